"""Configurations in YAML, bounded before anything is made of them.

Configurations come from files, from files that these name, from the command line, and from texts that stand in them.
`read_yaml` is for files of ours; `bound_yaml` holds the parsers of both commands to the same limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zstore.errors import UsageError

MOST_BYTES, MOST_VALUES, MOST_LEVELS = 1_000_000, 100_000, 50  # of a document; real ones have some hundred values
_EXPECTED = "a YAML file of names and plain values, in UTF-8"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only its events are used, which take no recursion
_LOADERS: dict[str, Callable[[str], Any]] = {}  # what `bound_yaml` put its own in the place of


def read_yaml(path: str | Path, what: str = "configuration") -> dict[str, Any]:
    """Read a YAML file of names and plain values; empty for an empty file.

    Parameters
    ----------
    path
        The file. No more than a million bytes of it are read.
    what
        Name of the file's role, for messages.

    Raises
    ------
    UsageError
        If it cannot be read, is no UTF-8 or no YAML, makes objects, holds no names, or breaks a limit of
        :func:`check_yaml`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        text = content.decode()
        check_yaml(text)
        document = yaml.safe_load(text)
        if document is not None and not isinstance(document, dict):
            raise ValueError(f"it holds {type(document).__name__}, no names")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason, fix = str(error), "correct it"
        if isinstance(error, OSError):
            reason, fix = str(error.strerror), "check the path and its permissions"
        raise UsageError(f"{what} {path} ({reason})", expected=_EXPECTED, fix=fix) from None
    return document or {}


def check_configs(words: Sequence[str]) -> None:
    """Refuse configurations that cannot be read, before a parser looks at them.

    Parameters
    ----------
    words
        Arguments of a command.

    Raises
    ------
    UsageError
        As :func:`read_yaml`, with the name of the file.
    """
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, sign, value = word.partition("=")
        path = value if sign else following
        if name == "--config" and ("\0" in path or Path(path).is_file()):
            read_yaml(path)


def bound_yaml() -> None:
    """Make every parser of jsonargparse in this process refuse YAML that breaks a limit of :func:`check_yaml`."""
    from jsonargparse import get_loader, set_loader  # here, since `import zstore` needs no parser, and it is large

    if get_loader("yaml") is not _bounded_load:
        _LOADERS["yaml"] = get_loader("yaml")
        set_loader("yaml", _bounded_load, (yaml.YAMLError,))


def check_yaml(text: str) -> None:
    """Refuse a document that is large, or grows when its aliases are followed, before anything is made of it.

    A text in it counts as a document of its own where it holds aliases, since a parser may read it as one.

    Raises
    ------
    ValueError
        If it has more than a million bytes, 100,000 values, each counted wherever an alias repeats it, or 50 levels, or
        an alias of what it lies in.
    yaml.YAMLError, RecursionError
        If it is no YAML.
    """
    if len(text.encode(errors="surrogatepass")) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    sizes: dict[str, _Size | None] = {}  # by anchor; None while it is open
    pending: list[tuple[str | None, _Size]] = [(None, _Size(0, 0))]  # the collections that are open, outermost first
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            pending.append((event.anchor, _Size(1, 0)))
            if event.anchor is not None:
                sizes[event.anchor] = None
            size = _Size(0, 0)
        elif isinstance(event, yaml.AliasEvent):
            known = sizes.get(str(event.anchor), _Size(1, 0))  # one of nothing is for the loader to refuse
            if known is None:
                raise ValueError("an alias of what it lies in")
            size = known
        elif isinstance(event, yaml.ScalarEvent):
            size = _Size(1, 0)
            if event.anchor is not None:
                sizes[event.anchor] = size
            if "*" in event.value and len(event.value) < len(text):
                _check_inner(event.value)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = pending.pop()
            size = _Size(size.n_values, size.n_levels + 1)
            if anchor is not None:
                sizes[anchor] = size
        else:
            continue
        outer, so_far = pending[-1]
        so_far = _Size(so_far.n_values + size.n_values, max(so_far.n_levels, size.n_levels))
        pending[-1] = outer, so_far
        if so_far.n_values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, aliases followed")
        if len(pending) - 1 + so_far.n_levels > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS} levels")


class _Size(NamedTuple):
    """What a node comes to once its aliases are followed."""

    n_values: int
    n_levels: int


def _check_inner(text: str) -> None:
    """Check a text of a document, which is no YAML itself as a rule."""
    try:
        check_yaml(text)
    except yaml.YAMLError:
        return


def _bounded_load(text: str) -> Any:
    """Load as jsonargparse would, unless a limit is broken."""
    if len(text) > MOST_LEVELS:  # shorter ones cannot break any
        try:
            check_yaml(text)
        except ValueError as error:
            raise UsageError(f"configuration ({error})", expected=_EXPECTED, fix="correct it") from None
    return _LOADERS["yaml"](text)
