"""How far training rows are from those a season before: the errors that MASE and RMSSE are scaled by."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.splits import Split
from zstore import NotFiniteError, Store

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def seasonal_errors(
    store: Store, split: Split, targets: Scaler, season: int, members: NDArray[np.bool_] | None = None
) -> tuple[Float64, Float64]:
    """Mean absolute and mean squared difference of each training row and the row of its series a season before it.

    Parameters
    ----------
    store, split
        Where the training rows are.
    targets
        Channels, and the codes that stand for theirs; values are taken in source units.
    season
        Time steps of a season, by the time step rule of the store; rows where times are irregular.
    members
        (series,) which series count; None for all.

    Returns
    -------
    Twice (series, channel) float64. NaN where no two training rows a season apart were both observed.

    Raises
    ------
    NotFiniteError
        If training values are infinite, or their differences or the squares of these leave float64; it names the
        channel and the series.

    Notes
    -----
    Both rows are training rows. Cost: decodes the channels once. Memory: a chunk of rows and a season.
    """
    starts, stops = target_rows(store, split, "train", members)
    trained = stops > starts
    starts, stops, first_step = starts[trained], stops[trained], _step_of_row_0(store)[trained]
    series = store.index.runs.series[trained]
    sums = np.zeros((store.n_series, 2, len(targets.channels)))
    counts = np.zeros((store.n_series, len(targets.channels)), np.int64)
    before: tuple[int, Int64, Float64] = -1, np.zeros(0, np.int64), np.zeros((0, len(targets.channels)))
    size = store.schema.chunk_rows
    for low in range(0, store.n_rows, size):
        high = min(low + size, store.n_rows)
        low_run, high_run = np.searchsorted(stops, low, side="right"), np.searchsorted(starts, high)
        if low_run == high_run:
            continue
        values = np.empty((high - low, len(targets.channels)))
        store.decode_part(targets.channels, low, values, targets.source_units)
        runs = slice(low_run, high_run)
        first, last = np.maximum(starts[runs], low), np.minimum(stops[runs], high)
        owners = series[runs]
        bounds = np.flatnonzero(np.diff(owners, prepend=-1, append=-1))
        for begin, end in itertools.pairwise(bounds.tolist()):
            ranges = list(zip(first[begin:end].tolist(), last[begin:end].tolist(), strict=True))
            rows = np.concatenate([np.arange(start, stop) for start, stop in ranges])
            steps = rows + np.repeat(first_step[runs][begin:end], [stop - start for start, stop in ranges])
            owner, rows_values = int(owners[begin]), values[rows - low]
            earlier = before[1:] if before[0] == owner else (steps[:0], rows_values[:0])
            before = owner, *_add(sums[owner], counts[owner], steps, rows_values, earlier, season)
    if not np.isfinite(sums).all():
        position, _, channel = np.argwhere(~np.isfinite(sums))[0].tolist()
        raise NotFiniteError(
            f"a seasonal error of channel {targets.channels[channel]!r} in series {store.ids[position]} is not finite",
            expected="finite training values, whose differences and their squares float64 holds",
            where=store.path,
            fix="correct the source, or drop --model.mase_season",
        )
    with np.errstate(invalid="ignore"):
        absolute, squared = (sums / counts[:, None]).swapaxes(0, 1)
    return absolute, squared


def _step_of_row_0(store: Store) -> Int64:
    """(run,) what is added to the number of a row of each run to have its time step, from the first of its series."""
    index, rule = store.index, store.time.rule
    if not rule.regular:
        return -index.row_start[index.runs.series]
    steps, _ = rule.steps(index.runs.time, index.time_start[index.runs.series])
    return steps - index.runs.start


def _add(
    sums: Float64, counts: Int64, steps: Int64, values: Float64, earlier: tuple[Int64, Float64], season: int
) -> tuple[Int64, Float64]:
    """Add differences of rows of one series to (2, channel) sums, of these and of squares, and (channel,) counts.

    What rows after them need is returned.

    `steps` ascend, with (row, channel) values of theirs; `earlier` has those of rows of the series before them.
    """
    all_steps, all_values = np.concatenate([earlier[0], steps]), np.concatenate([earlier[1], values])
    position = np.searchsorted(all_steps, steps - season)  # before its own, so always one of them
    paired = all_steps[position] == steps - season
    with np.errstate(over="ignore", invalid="ignore"):
        differences = np.abs(values[paired] - all_values[position[paired]])
    unseen = np.isnan(values[paired]) | np.isnan(all_values[position[paired]])
    differences = np.where(unseen, 0.0, differences)
    with np.errstate(over="ignore", invalid="ignore"):
        sums += np.stack([differences.sum(axis=0), np.square(differences).sum(axis=0)])
    counts += (~unseen).sum(axis=0)
    needed = all_steps > steps[-1] - season
    return all_steps[needed], all_values[needed]
