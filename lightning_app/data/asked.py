"""Which channels, static attributes and time features are in use: as asked for, or as a checkpoint has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from lightning_app.data.columns.calendar import TimeEncoding, TimeFeature
from lightning_app.data.columns.meaning import Meaning, agreed
from lightning_app.data.columns.vectors import VectorUse, vector_uses
from lightning_app.data.options import DataOptions, refuse_repeated
from zstore import Store, UsageError, WindowShape


class Names(NamedTuple):
    """Channels, static attributes and time features in use."""

    inputs: list[str]
    targets: list[str]
    future: list[str]
    statics: list[str]
    calendar: list[TimeFeature]
    encoding: TimeEncoding
    vectors: dict[str, VectorUse]

    @property
    def columns(self) -> list[str]:
        """Channels that rows have, each once; inputs first."""
        own = [name for use in self.vectors.values() for name in use.channels]
        return list(dict.fromkeys([*self.inputs, *self.targets, *self.future, *own]))


def asked_names(store: Store, options: DataOptions) -> Names:
    """What was asked for, and what stands for what was not."""
    inputs, targets, future = (
        store.channels_of(names) for names in (options.channels or (), options.targets, options.future)
    )
    for option, names in (("channels", inputs), ("targets", targets), ("future", future)):
        refuse_repeated(option, names)  # a vector, and one of its channels
    vectors = vector_uses(store, options.vectors, options.window.lookback)
    apart = {name for use in vectors.values() for name in use.channels}
    strange = [name for name in options.classes if name not in targets]
    if strange:
        raise UsageError(
            f"classes {', '.join(map(repr, strange))} that are no targets",
            expected=f"some of {', '.join(targets) or 'them, which are not named'}",
            fix="name them in --data.targets too",
        )
    if options.channels is None:  # all numbers but what is to be found out
        unknown = {*apart, *(targets if options.window.delay < 0 else options.classes)}
        inputs = [name for name in store.numbers if name not in unknown]
    if not inputs and not options.fields and not vectors:
        raise UsageError(
            "no channel of numbers" if options.channels is None else "no input channel, and no field",
            where=store.path,
            fix="name some with --data.channels",
        )
    if not inputs and not targets:
        raise UsageError("no target", expected="one, where fields alone are inputs", fix="name it in --data.targets")
    statics, calendar = list(options.statics), list(options.time_features)
    return Names(inputs, targets or list(inputs), future, statics, calendar, options.time_encoding, vectors)


def require_recorded(store: Store, options: DataOptions, recorded: Meaning) -> None:
    """Raise UsageError unless a store has all that a model was trained with."""
    recorded.require_time(store)
    uses = map(VectorUse.from_json, recorded.vectors.values())
    own = [name for use in uses for name in use.channels]
    columns = dict.fromkeys([*recorded.inputs, *recorded.targets, *recorded.future, *own])
    recorded.require_channels(store, list(columns))
    recorded.require_statics(store)
    recorded.require_fields(store)
    if options.unknown == "own_column" and recorded.unknown != "own_column":
        agreed("unknown", ["own_column"], [recorded.unknown])


def agreed_names(store: Store, options: DataOptions, recorded: Meaning) -> Names:
    """What a checkpoint has; refused if anything else was asked for."""
    inputs = agreed("channels", store.channels_of(options.channels or ()), recorded.inputs)
    targets = agreed("targets", store.channels_of(options.targets), recorded.targets)
    agreed("classes", options.classes, list(recorded.classes))
    future = agreed("future", store.channels_of(options.future), recorded.future)
    statics = agreed("statics", options.statics, [static.name for static in recorded.statics])
    calendar = agreed("time_features", options.time_features, recorded.calendar)
    if options.time_features:
        agreed("time_encoding", [options.time_encoding], [recorded.encoding])
    if options.category_encoding == "code" and recorded.words:
        agreed("category_encoding", ["code"], [recorded.category_encoding])
    vectors = {name: VectorUse.from_json(use) for name, use in recorded.vectors.items()}
    if options.vectors:
        asked, known = (
            [f"{name} ({each.steps} steps, {each.stride} rows apart)" for name, each in uses.items()]
            for uses in (options.vectors, vectors)
        )
        agreed("vectors", asked, known)
    if options.observed_inputs and not recorded.observed_inputs:
        agreed("observed_inputs", ["true"], ["false"])
    return Names(inputs, targets, future, statics, calendar, recorded.encoding, vectors)  # type: ignore[arg-type]  # as read


def recorded_window(asked: WindowShape, recorded: Meaning) -> WindowShape:
    """The window that was asked for, padded and with targets as far apart as in a checkpoint.

    Raises
    ------
    UsageError
        If something else was asked for.
    """
    known: dict[str, Any] = {name: getattr(recorded, name) for name in ("target_stride", "pad_before", "pad_after")}
    for name, value in known.items():
        if getattr(asked, name) != getattr(WindowShape, name):  # the default: nothing was asked for
            agreed(name, [str(getattr(asked, name))], [str(value)])
    return replace(asked, **known)
