"""What the columns of batches are on one store: as asked for, or as a checkpoint has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_app.batch import BatchShape
from lightning_app.data.asked import Names, agreed_names, asked_names, recorded_window, require_recorded
from lightning_app.data.batches.fields import FieldUse
from lightning_app.data.columns.calendar import n_values
from lightning_app.data.columns.classes import Classes, classes_of, require_known
from lightning_app.data.columns.meaning import Meaning, StaticMeaning, Unknown, codes_of
from lightning_app.data.columns.roles import CategoryEncoding, Columns, Words, as_range
from lightning_app.data.columns.vectors import VectorUse, vector_steps
from lightning_app.data.field_uses import axes_of, field_readers, field_uses, refuse_in_panel
from lightning_app.data.options import DataOptions
from lightning_app.data.rows.views import PanelView, SeriesView, View
from lightning_app.data.scaling.statics import fit_statics
from lightning_app.data.scaling.training import Training
from zstore import FieldReader, Store, UsageError, WindowShape

_MOST_WORDS = 1024  # columns of one channel of categories


@dataclass(frozen=True)
class Layout:
    """Which columns rows and batches have. Another checkpoint is another layout; none changes.

    Parameters
    ----------
    store, options
        Where rows come from, and what was asked for.
    recorded
        What a checkpoint says that its columns mean, which this store is read by; None without one.
    inputs, targets, future, statics
        Names of channels and static attributes in use.
    view
        Rows by series, or all series of a panel side by side.
    roles
        Which columns of the rows are what.
    vectors
        By name, vectors that batches have beside the inputs.
    fields, readers
        By name, what batches have of fields, and what decodes them.
    window
        The rows of a window.

    Notes
    -----
    Reads the index of the store and no row, but for the first image of fields of encoded ones.
    """

    store: Store
    options: DataOptions
    recorded: Meaning | None
    inputs: list[str]
    targets: list[str]
    future: list[str]
    statics: list[str]
    view: View
    roles: Columns
    vectors: dict[str, VectorUse]
    fields: dict[str, FieldUse]
    readers: dict[str, FieldReader]
    window: WindowShape

    @classmethod
    def of(cls, store: Store, options: DataOptions, recorded: Meaning | None = None) -> Layout:
        """The layout of a store.

        Raises
        ------
        UsageError
            If the store has not what was asked for, or not what the model was trained with, or these differ.
        """
        if recorded is not None:
            require_recorded(store, options, recorded)
        names = asked_names(store, options) if recorded is None else agreed_names(store, options, recorded)
        columns = names.columns
        for name in columns:
            store.channel(name)
        if recorded is None:
            for name in names.statics:
                store.static(name)
        split, panel, subset = options.split, options.panel, options.series
        if panel is None:
            view: View = SeriesView(store, split, columns, subset)
        else:
            view = PanelView(store, split, columns, panel, subset)
        if recorded is not None:
            observed = list(recorded.observed)
        else:
            missing = zip(names.inputs, view.missing(names.inputs).tolist(), strict=True)
            observed = [name for name, blank in missing if blank and options.observed_inputs]
        as_words = _word_counts(store, options, recorded, names)
        roles = _roles(store, names, columns, observed, as_words, view.n_nodes)
        readers = field_readers(store, options, recorded)
        uses = field_uses(readers, options, recorded)
        for name in [name for name in uses if name in names.vectors]:
            raise UsageError(
                f"{name!r} as a field and as a vector", expected="one of them", fix="drop it from --data.vectors"
            )
        if options.panel is not None:
            refuse_in_panel(uses, names.vectors)
        window = options.window if recorded is None else recorded_window(options.window, recorded)
        return cls(store, options, recorded, *names[:4], view, roles, names.vectors, uses, readers, window)

    @property
    def columns(self) -> list[str]:
        """Channels that rows have, each once."""
        return self.view.columns

    @property
    def seen(self) -> list[str]:
        """Channels that models read of input rows: inputs, and those of vectors."""
        return list(dict.fromkeys([*self.inputs, *(name for use in self.vectors.values() for name in use.channels)]))

    @property
    def plain_inputs(self) -> list[str]:
        """Inputs that are a column each: all but those that become a column for each word."""
        one_hot = {words.column for words in self.roles.words}
        return [name for column, name in enumerate(self.inputs) if column not in one_hot]

    @property
    def one_hot(self) -> list[str]:
        """Channels of categories that become a column for each word."""
        roles = self.roles
        return [self.columns[column] for column in sorted({w.column for w in (*roles.words, *roles.future_words)})]

    @property
    def category_encoding(self) -> CategoryEncoding:
        """What becomes of categories that change over time."""
        return self.options.category_encoding if self.recorded is None else self.recorded.category_encoding

    @property
    def reach(self) -> int:
        """Rows of a window and, behind them, those that jitter may move it by."""
        return self.window.span + self.options.jitter

    @property
    def rule(self) -> Unknown:
        """What becomes of words and series that a model has never seen."""
        return self.options.unknown if self.recorded is None else self.recorded.unknown

    @property
    def nodes(self) -> NDArray[np.int64] | None:
        """(node,) positions of the series of a panel; None without one."""
        return self.view.nodes

    @property
    def row_bytes(self) -> int:
        """Bytes of a decoded row; of a step in a panel."""
        return self.view.width * (5 if self.view.masked else 4)

    def may_miss(self, channels: Sequence[str]) -> bool:
        """Whether any of their values may be missing in a row."""
        return bool(self.view.missing(channels).any())

    @property
    def shape(self) -> BatchShape:
        """What models are built from."""
        roles, window, inputs = self.roles, self.window, self.plain_inputs
        cycles = 2 * len(roles.calendar) if roles.encoding == "cyclic" else 0
        indexed = roles.calendar if roles.encoding == "index" else []
        return BatchShape(
            lookback=window.lookback,
            horizon=window.horizon,
            delay=window.delay,
            n_inputs=len(inputs) + len(roles.observed) + sum(words.n_words for words in roles.words) + cycles,
            n_targets=len(self.targets),
            target_inputs=[inputs.index(name) if name in inputs else -1 for name in self.targets],
            n_static=sum(static.n_columns(self.rule) for static in self._static_words),
            n_future=len(roles.future) + sum(words.n_words for words in roles.future_words) + cycles,
            time_sizes=[n_values(name, roles.unit, roles.step) for name in indexed],
            n_nodes=self.view.n_nodes,
            fields={name: [use.steps.steps, *use.part] for name, use in self.fields.items()},
            vectors={name: [use.steps, len(use.channels)] for name, use in self.vectors.items()},
            target_stride=window.target_stride,
            field_axes={name: axes_of(self.store, name) for name in self.fields},
            field_dtypes={name: str(FieldReader.of(self.store, name).dtype) for name in self.fields},
            classes=[list(self.classes.get(name, ())) for name in self.targets] if self.classes else [],
        )

    @property
    def _static_words(self) -> tuple[StaticMeaning, ...]:
        """Static attributes and their words; without means and deviations, so that nothing is fitted."""
        if self.recorded is not None:
            return self.recorded.statics
        statics = [self.store.static(name) for name in self.statics]
        return tuple(StaticMeaning(static.name, static.categories) for static in statics)

    @cached_property
    def static_meanings(self) -> tuple[StaticMeaning, ...]:
        """Static attributes with the means and deviations of the training series, or those of the checkpoint."""
        if self.recorded is not None:
            return self.recorded.statics
        return fit_statics(self.store, self.options.split, self.statics, self.view.members)

    @cached_property
    def recoded(self) -> dict[str, NDArray[np.int64]]:
        """By channel, what the checkpoint has for each code of this store, where that is another code."""
        recoded = {}
        for name, known in (self.recorded.words if self.recorded is not None else {}).items():
            words = self.store.channel(name).categories
            if tuple(words) != known[: len(words)]:
                recoded[name] = codes_of(words, known)
        return recoded

    @cached_property
    def classes(self) -> dict[str, Classes]:
        """By name of a target that is a class, all its classes: those of the store, or of the checkpoint.

        Raises
        ------
        UsageError
            If a target has none to tell apart, or this store has one that the checkpoint has not.
        """
        if self.recorded is None:
            return {name: classes_of(self.store, name) for name in self.options.classes}
        for name, own in self.recorded.classes.items():
            require_known(self.store, name, own)
        return self.recorded.classes

    @property
    def training(self) -> Training:
        """The training rows, with the codes of the checkpoint."""
        return Training(self.store, self.options.split, self.view.members, self.recoded)

    @cached_property
    def node_positions(self) -> NDArray[np.float64]:
        """(node, 2) latitude and longitude of the series of the panel.

        Raises
        ------
        UsageError
            If there is no panel, it names no static attributes for them, or one is missing.
        """
        return self.view.positions()


def _word_counts(store: Store, options: DataOptions, recorded: Meaning | None, names: Names) -> dict[str, int]:
    """By channel of categories that becomes a column for each word, how many; a target stays one channel of codes."""
    encoding = options.category_encoding if recorded is None else recorded.category_encoding
    if encoding == "code":
        return {}
    counts = {}
    for name in dict.fromkeys([*names.inputs, *names.future]):
        channel = store.channel(name)
        if channel.kind != "category" or name in names.targets:
            continue
        words = channel.categories if recorded is None else recorded.words[name]
        unknown = options.unknown if recorded is None else recorded.unknown
        counts[name] = len(words) + (unknown == "own_column")
        if counts[name] > _MOST_WORDS:
            raise UsageError(
                f"channel {name!r} with {len(words):,} words, a column for each",
                expected=f"at most {_MOST_WORDS} columns",
                where=store.path,
                fix="leave it out of --data.channels and --data.future, or --data.category_encoding code",
            )
    return counts


def _roles(
    store: Store, names: Names, columns: list[str], observed: list[str], as_words: dict[str, int], n_nodes: int
) -> Columns:
    """Which columns of the rows are what."""
    time, calendar = store.schema.time, names.calendar
    if calendar and time.unit is None:
        raise UsageError(
            f"time features {', '.join(calendar)} of times that are plain steps",
            expected="dates",
            where=store.path,
            fix="drop --data.time_features",
        )
    if calendar and n_nodes and names.encoding != "index":
        raise UsageError(
            f"time features of a panel as {names.encoding}",
            expected="index: whole steps, hours or days, the same for all series",
            fix="--data.time_encoding index",
        )
    if "time_of_day" in calendar and time.rule.kind != "fixed":
        raise UsageError(
            f"time_of_day of times whose step is {time.show_freq()}",
            expected="evenly spaced ones",
            where=store.path,
            fix="hour_of_day",
        )
    return Columns(
        inputs=as_range([column for column, name in enumerate(names.inputs) if name not in as_words]),
        targets=as_range([columns.index(name) for name in names.targets]),
        future=as_range([columns.index(name) for name in names.future if name not in as_words]),
        observed=as_range([names.inputs.index(name) for name in observed]),
        vectors=vector_steps(names.vectors, columns),
        words=tuple(Words(columns.index(name), as_words[name]) for name in names.inputs if name in as_words),
        future_words=tuple(Words(columns.index(name), as_words[name]) for name in names.future if name in as_words),
        calendar=calendar,
        encoding=names.encoding,
        unit=time.unit or "s",
        rule=time.rule,
    )
