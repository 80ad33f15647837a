"""The windows of a layout whose targets belong to one split, and the proofs that they may be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.columns.meaning import Meaning, refuse_unknown
from lightning_app.data.layout import Layout
from lightning_app.data.rows.infinite import refuse_infinite_inputs
from lightning_app.data.scaling.statics import unknown_words
from lightning_app.data.windows.leaks import refuse_leaks, refuse_trained
from lightning_app.data.windows.splits import NoWindowError, SplitName
from zstore import WindowIndex, WindowShape

Int64 = NDArray[np.int64]
Holes = tuple[Int64, Int64]
"""(stretch,) first rows, and rows behind the last ones, of stretches without any observed target, or without all."""


def windows_of(layout: Layout, name: SplitName, stride: int) -> WindowIndex:
    """All windows whose targets belong to one split, `stride` rows apart, whether any target was observed or not.

    Raises
    ------
    NoWindowError
        If there is none.
    """
    store, view, options = layout.store, layout.view, layout.options
    runs, shape = view.runs, replace(layout.window, stride=stride)
    start, stop = view.ranges(name)
    index = WindowIndex.build(runs, shape, store.time.rule, (start, stop), options.split.context == "allow")
    if not len(index) and not (stop > start).any():
        raise NoWindowError(
            f"no window in {name}, to which no row belongs",
            expected=f"series, or times, of {name}",
            where=store.path,
            fix="give it some in --data.split, or go without it",
        )
    if not len(index):
        longest = int(np.max(runs.stop - runs.start, initial=0))
        n_targets = int(np.max(stop - start, initial=0))
        fits = f"so many without a gap, with all targets in {name}"
        if shape.least_rows > longest:
            fits = f"at most {longest:,} rows, the longest stretch without a gap"
        elif shape.horizon > n_targets:
            fits = f"a horizon of at most {n_targets:,}, the most rows of a series without a gap that {name} has"
        raise NoWindowError(
            f"no window in {name}: {shape.needs}",
            expected=fits,
            where=store.path,
            fix="smaller --data.lookback or --data.horizon, or other --data.split.sizes",
        )
    return index


def observed_windows(layout: Layout, index: WindowIndex, name: SplitName, holes: Holes) -> WindowIndex:
    """Those of some windows of a split that have an observed target, or all of them observed, as is asked for.

    Raises
    ------
    NoWindowError
        If there is none.
    """
    whole = layout.options.whole_targets
    index = index.whole(holes) if whole else index.observed(holes)
    if not len(index):
        asked = "all targets observed" if whole else "an observed target"
        raise NoWindowError(
            f"no window in {name} has {asked} ({', '.join(layout.targets)})",
            expected="one without a missing target" if whole else "one that is not missing",
            where=layout.store.path,
            fix="--data.whole_targets false, or a smaller --data.horizon"
            if whole
            else "other --data.targets, or other --data.split.sizes",
        )
    return index


def training_targets(layout: Layout, holes: Holes | None) -> WindowIndex:
    """Each training target with one observed value or more, as a window of one row that is input and target.

    Raises
    ------
    NoWindowError
        If there is none.
    """
    view, rule = layout.view, layout.store.time.rule
    index = WindowIndex.build(view.runs, WindowShape(1, 1, -1), rule, view.ranges("train"))
    index = index if holes is None else index.observed(holes)
    if not len(index):
        raise NoWindowError(
            f"no training row has an observed target ({', '.join(layout.targets)})",
            expected="one at least, for what is learned of the training rows",
            where=layout.store.path,
            fix="another --data.split, or other --data.targets",
        )
    return index


def prove(layout: Layout, index: WindowIndex, name: SplitName, trained: dict[str, Any] | None) -> None:
    """Prove that no target of some windows is in another split, and that a model may read them and be measured on them.

    Parameters
    ----------
    layout, index, name
        The windows, and their split.
    trained
        When each series was a training target of the checkpoint in use; None without one.

    Raises
    ------
    UsageError
        If that is not so.
    """
    refuse_leaks(layout.view.ranges_near(), index, name, layout.store.path)
    require_readable(layout, index, name)
    if name != "train" and trained is not None:
        refuse_trained(layout.store, index, name, trained, layout.nodes, layout.options.split.group)


def require_readable(layout: Layout, index: WindowIndex, name: SplitName) -> None:
    """Raise UsageError where windows have words, series or infinite inputs that a model cannot read."""
    if layout.recorded is not None:
        series = (
            index.series[np.flatnonzero(np.diff(index.series, prepend=-1))] if layout.nodes is None else layout.nodes
        )
        refuse_unseen(layout, layout.recorded, series, index.spans())
    refuse_infinite_inputs(layout.view, index, layout.seen, layout.future, name)


def refuse_unseen(layout: Layout, recorded: Meaning, series: Int64, spans: tuple[Int64, Int64]) -> None:
    """Raise UsageError where a model has never seen words, or series, that it is to read.

    Parameters
    ----------
    layout, recorded
        The columns, and what a checkpoint says of them.
    series
        Positions of the series that are read.
    spans
        (span,) rows ``[start, stop)`` that are read; not used of a panel, all of whose rows count.
    """
    store = layout.store
    if recorded.series is not None and recorded.other_series is None:
        known = set(recorded.series)
        unseen = [id_ for id_ in store.ids[series].tolist() if id_ not in known]
        refuse_unknown(store, "series without a scaler", unseen, recorded.unknown)
    for static in recorded.statics:
        if recorded.unknown == "refuse":
            refuse_unknown(store, f"words of {static.name!r}", unknown_words(store, static, series), recorded.unknown)
    for name, codes in layout.recoded.items():
        if recorded.unknown == "own_column" and name not in recorded.classes:
            continue
        strange = np.flatnonzero(codes == len(recorded.words[name]))
        if len(strange):
            words = store.channel(name).categories
            used = [words[code] for code in strange.tolist() if _reads(layout, spans, series, name, code)]
            refuse_unknown(store, f"words of {name!r}", used, recorded.unknown)


def _reads(layout: Layout, spans: tuple[Int64, Int64], series: Int64, channel: str, code: int) -> bool:
    """Whether some rows have one code; of a panel, whether its series have it anywhere."""
    store = layout.store
    start, stop = spans
    if layout.nodes is not None:
        start, stop = (store.index.row_start[series + shift] for shift in (0, 1))
    return any(
        bool((store.read(channel, low, high) == code).any())
        for low, high in zip(start.tolist(), stop.tolist(), strict=True)
    )
