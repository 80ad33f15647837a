"""Windows as numpy: which there are, what is in them."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zstore import Store, UsageError, WindowIndex, WindowShape
from zstore.format.index import RunTable
from zstore.reading.gather import gather


def runs_of(lengths: list[int]) -> RunTable:
    stops = np.cumsum(lengths, dtype=np.int64)
    starts = stops - lengths
    return RunTable(starts, stops, np.arange(len(lengths)), starts * 10)


shapes = st.builds(
    lambda lookback, horizon, delay, stride: WindowShape(lookback, horizon, max(delay, -lookback), stride),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(-6, 3),
    st.integers(1, 3),
)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), shapes, st.sampled_from([1, 2, 1 << 17]), st.data())
def test_windows_are_exactly_those_a_plain_loop_finds_however_many_runs_are_looked_at_together(
    lengths: list[int], shape: WindowShape, block: int, data: st.DataObject
) -> None:
    runs = runs_of(lengths)
    low = np.array([data.draw(st.integers(0, 20)) for _ in lengths]) + runs.start
    high = np.array([data.draw(st.integers(0, 20)) for _ in lengths]) + runs.start
    context = data.draw(st.booleans())
    with patch("zstore.format.spans._BLOCK", block):
        index = WindowIndex.build(runs, shape, 10, (low, high), context)
    expected = []
    for run in range(len(lengths)):
        start, stop = max(low[run], runs.start[run]), min(high[run], runs.stop[run])
        begin = max(runs.start[run], start - shape.target_offset) if context else start
        rows = [row for row in range(begin, stop) if row + shape.span <= stop] if stop > start else []
        expected += [(row, run, row * 10 + shape.target_offset * 10) for row in rows[:: shape.stride]]
    starts, series, times = index.locate(np.arange(len(index)))
    assert list(zip(starts.tolist(), series.tolist(), times.tolist(), strict=True)) == expected
    for row, run, _ in expected:
        assert low[run] <= row + shape.target_offset
        assert row + shape.target_offset + shape.horizon <= high[run]


def test_windows_that_begin_with_their_runs_need_no_memory_for_where_they_begin() -> None:
    runs = runs_of([5, 9, 7])
    index = WindowIndex.build(runs, WindowShape(2, 1), 10, (runs.start, runs.stop - 1))
    shared = [(index.first, runs.start), (index.time, runs.time), (index.series, runs.series)]
    shared += [(index.bounds.input_start, runs.start), (index.bounds.target_start, runs.start)]
    assert [np.shares_memory(own, of_runs) for own, of_runs in shared] == [True] * 5


@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 8), st.data())
def test_gather_equals_slicing(n_rows: int, n_channels: int, length: int, data: st.DataObject) -> None:
    rows = np.arange(n_rows * n_channels, dtype=np.float32).reshape(n_rows, n_channels)
    if length > n_rows:
        with pytest.raises(IndexError):
            gather(rows, np.array([0]), length)
        return
    starts = np.array(data.draw(st.lists(st.integers(0, n_rows - length), max_size=8)), np.int64)
    expected = [rows[start : start + length] for start in starts]
    np.testing.assert_array_equal(gather(rows, starts, length), np.reshape(expected, (-1, length, n_channels)))
    with pytest.raises(IndexError):
        gather(rows, np.array([n_rows - length + 1]), length)


def test_no_window_crosses_a_series_or_a_gap(catchments: Store) -> None:
    windows = catchments.windows(30, 7, targets=["flow_mm"])
    starts, series, _ = windows.index.locate(np.arange(len(windows)))
    rows = starts[:, None] + np.arange(37)
    times = catchments.times(0, catchments.n_rows)[rows]
    assert np.all(np.diff(times, axis=1) == 86_400)
    owner = np.repeat(np.arange(catchments.n_series), catchments.index.row_size)
    assert np.all(owner[rows] == series[:, None])


def test_a_window_holds_the_rows_of_its_series(catchments: Store) -> None:
    windows = catchments.windows(10, 3, delay=2, channels=["rain_mm", "flow_mm"], targets=["flow_mm"])
    window = windows[17]
    frame = catchments.series(str(catchments.ids[window["series"]])).to_pandas()
    np.testing.assert_array_equal(window["x"], frame[["rain_mm", "flow_mm"]].iloc[17:27])
    np.testing.assert_array_equal(window["y"], frame[["flow_mm"]].iloc[29:32])
    assert frame.index[29] == np.datetime64(int(window["time"]), "s")
    assert len(list(windows)) == len(windows)
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_a_negative_delay_targets_the_last_input_rows(hourly: Store) -> None:
    window = hourly.windows(24, 6, delay=-6)[100]
    np.testing.assert_array_equal(window["x"][-6:], window["y"])


def test_a_lookback_longer_than_every_series_is_wrong_usage(catchments: Store) -> None:
    with pytest.raises(UsageError, match=r"no window: lookback 5000 .* need 5,001 rows; expected at most 1,461"):
        catchments.windows(5000, 1)


@pytest.mark.parametrize("wrong", [{"lookback": 0}, {"horizon": 0}, {"stride": 0}, {"delay": -4}])
def test_impossible_windows_are_wrong_usage(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        WindowShape(**{"lookback": 3, "horizon": 1, **wrong})  # type: ignore[arg-type]
