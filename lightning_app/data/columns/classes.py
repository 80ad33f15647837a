"""The classes of channels that are targets of a classification: words, or numbers that stand for classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zstore import Store, UsageError

_AT_ONCE = 1 << 20  # rows
MOST = 1024
"""Classes of a target."""
Classes = tuple[str, ...] | tuple[float, ...]
"""Of a target: its words, whose codes are their positions; or its numbers, ascending."""


def classes_of(store: Store, name: str) -> Classes:
    """All classes of a channel of a store, in training rows or not.

    Raises
    ------
    UsageError
        If there are fewer than two or more than 1,024, one is infinite, or two are the same in float32.

    Notes
    -----
    Cost: decodes a channel of numbers once; of words nothing.
    """
    channel = store.channel(name)
    found: Classes = channel.categories if channel.kind == "category" else _numbers(store, name)
    if not 2 <= len(found) <= MOST:
        named = (
            f"only {', '.join(map(repr, found)) or 'missing values'}" if len(found) < 2 else f"over {MOST:,} classes"
        )
        raise UsageError(
            f"target {name!r} as a class, which has {named}",
            expected=f"2 to {MOST:,} classes",
            where=store.path,
            fix="drop it from --data.classes",
        )
    return found


def require_words_as_classes(store: Store, targets: Sequence[str], classes: Sequence[str]) -> None:
    """Raise UsageError if a target holds words and is no class: their codes are no numbers to come close to."""
    words = [name for name in targets if name not in classes and store.channel(name).kind == "category"]
    if words:
        raise UsageError(
            f"target {words[0]!r}, which holds words ({', '.join(map(repr, store.channel(words[0]).categories[:3]))})",
            expected="a target of numbers, or one of --data.classes",
            where=store.path,
            fix=f"--data.classes [{','.join(words)}]",
        )


def require_known(store: Store, name: str, recorded: Classes) -> None:
    """Raise UsageError if a channel has classes that a model was not trained with.

    Words are looked at elsewhere, only where windows have them.
    """
    if recorded and isinstance(recorded[0], str):
        return
    known = set(recorded)
    strange = [value for value in _numbers(store, name) if value not in known]
    if strange:
        raise UsageError(
            f"target {name!r} with classes that the model has never seen ({', '.join(map(_shown, strange[:3]))}"
            + (", …)" if len(strange) > 3 else ")"),
            expected=f"some of {', '.join(map(_shown, recorded))}",
            where=store.path,
            fix="correct the source, or fit again",
        )


def _numbers(store: Store, name: str) -> tuple[float, ...]:
    """The distinct values of a channel of numbers, ascending; at most one more than there may be."""
    found, n_observed = np.zeros(0), 0
    for low in range(0, store.n_rows, _AT_ONCE):
        values = store.read(name, low, min(low + _AT_ONCE, store.n_rows)).astype(np.float64)
        observed = values[~np.isnan(values)]
        found, n_observed = np.union1d(found, observed), n_observed + len(observed)
        if len(found) > MOST:
            break
    if not np.isfinite(found).all() or len(np.unique(found.astype(np.float32))) < min(len(found), MOST):
        raise UsageError(
            f"target {name!r} as a class, with values that are infinite or the same in float32",
            expected="numbers that stand for classes, such as 0, 1, 2",
            where=store.path,
            fix="drop it from --data.classes, or correct the source",
        )
    fractions = found[found != np.round(found)]
    if len(fractions) and len(found) > n_observed / 2:
        raise UsageError(
            f"target {name!r} as a class, with {len(found):,} values of {n_observed:,} rows, such as {fractions[0]:g}",
            expected="numbers that stand for classes, such as 0, 1, 2",
            where=store.path,
            fix="drop it from --data.classes, for it looks like a measurement",
        )
    return tuple(found[: MOST + 1].tolist())


def names_of(classes: Sequence[str] | Sequence[float]) -> list[str]:
    """Their names: words, and numbers as they are written, whole ones without a point."""
    return [each if isinstance(each, str) else _shown(each) for each in classes]


def _shown(value: float | str) -> str:
    return f"{int(value)}" if isinstance(value, float) and value.is_integer() else f"{value}"
