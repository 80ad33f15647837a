"""Windows that are padded at the ends of runs, and targets that are several rows apart."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st
from padded import SHAPES, Plain, plain_windows, runs_of

import zstore
from zstore import UsageError, WindowIndex, Windows, WindowShape, find_holes
from zstore.reading.gather import WindowField

LENGTHS = st.lists(st.integers(1, 14), min_size=1, max_size=6)
CONTENT = np.random.default_rng(0).random((100, 2), dtype=np.float32) + 1


def drawn(lengths: list[int], shape: WindowShape, data: st.DataObject) -> tuple[WindowIndex, list[Plain]]:
    """Windows of some runs whose targets lie in some rows of each, and the same by a plain loop."""
    runs = runs_of(lengths)
    low, high = (np.array([data.draw(st.integers(0, 14)) for _ in lengths]) + runs.start for _ in range(2))
    whole, context = data.draw(st.booleans()), data.draw(st.booleans())
    span = (runs.start, runs.stop) if whole else (low, high)
    return WindowIndex.build(runs, shape, 10, span, context), plain_windows(runs, shape, span, context)


@given(LENGTHS, SHAPES, st.data())
def test_padded_windows_are_those_of_a_plain_loop(lengths: list[int], shape: WindowShape, data: st.DataObject) -> None:
    index, plain = drawn(lengths, shape, data)
    assert len(index) == len(plain)
    windows = Windows(
        CONTENT, index, [0, 1], [1], fields={"image": WindowField(CONTENT * 2, np.array([shape.lookback - 1]))}
    )
    batch, runs = windows.batch(np.arange(len(plain))), runs_of(lengths)
    for n, window in enumerate(plain):
        expected = [np.zeros(2) if zero else CONTENT[row] for row, _, zero in window.inputs]
        np.testing.assert_array_equal(batch["x"][n], expected)
        np.testing.assert_array_equal(batch["image"][n], [expected[-1] * 2])
        np.testing.assert_array_equal(batch["y"][n, :, 0], [0 if z else CONTENT[r, 1] for r, _, z in window.targets])
        if shape.padded:
            assert batch["x_pad"][n].tolist() == [padded for _, padded, _ in window.inputs]
            assert batch["y_pad"][n].tolist() == [padded for _, padded, _ in window.targets]
        first_target = window.start + shape.target_offset - runs.start[window.run]
        assert batch["time"][n] == runs.time[window.run] + first_target * 10
        assert batch["series"][n] == runs.series[window.run]
    assert shape.padded == ("x_pad" in batch) == ("y_pad" in batch)


@pytest.mark.parametrize("whole", [False, True])
@given(lengths=LENGTHS, shape=SHAPES, data=st.data(), observed=st.lists(st.booleans(), min_size=100, max_size=100))
def test_windows_with_one_or_all_targets_observed_are_those_of_a_plain_loop(
    whole: bool, lengths: list[int], shape: WindowShape, data: st.DataObject, observed: list[bool]
) -> None:
    index, plain = drawn(lengths, shape, data)
    holes, enough = find_holes([np.array(observed[: sum(lengths)])]), all if whole else any
    kept = index.whole(holes) if whole else index.observed(holes)
    expected = [window for window in plain if enough(observed[row] for row in window.real_targets)]
    starts, series, time = kept.locate(np.arange(len(kept)))
    assert starts.tolist() == [window.start for window in expected]
    all_starts, all_series, all_times = index.locate(np.arange(len(index)))
    among = np.isin(all_starts, starts)
    assert all_series[among].tolist() == series.tolist()
    assert all_times[among].tolist() == time.tolist()
    bounds, before = kept.bounds_of(np.arange(len(kept))), index.bounds_of(np.flatnonzero(among))
    for name in ("input_start", "target_start", "stop"):
        assert getattr(bounds, name).tolist() == getattr(before, name).tolist()


@given(LENGTHS, SHAPES, st.data())
def test_ranges_are_the_rows_that_windows_read_and_none_that_is_padded(
    lengths: list[int], shape: WindowShape, data: st.DataObject
) -> None:
    index, plain = drawn(lengths, shape, data)
    for (start, stop), name in ((index.target_ranges(), "real_targets"), (index.input_ranges(), "real_inputs")):
        assert np.all(start[1:] > stop[:-1])
        rows = [row for low, high in zip(start, stop, strict=True) for row in range(low, high)]
        assert rows == sorted(set().union(*(getattr(window, name) for window in plain)))
    spans = list(zip(*index.target_spans(), strict=True))
    targets = set().union(*(window.real_targets for window in plain))
    assert targets == {row for row in targets for low, high in spans if low <= row < high}
    assert all((low in targets and high - 1 in targets) or shape.target_stride > 1 for low, high in spans)


@given(LENGTHS, SHAPES, st.data())
def test_windows_are_numbered_in_the_order_of_their_first_rows_padded_ones_too(
    lengths: list[int], shape: WindowShape, data: st.DataObject
) -> None:
    index, plain = drawn(lengths, shape, data)
    starts = np.array([window.start for window in plain], np.int64)
    assert np.all(np.diff(starts) > 0)
    rows = np.arange(-8, sum(lengths) + 8)
    assert index.rank(rows).tolist() == [int((starts < row).sum()) for row in rows]


@given(SHAPES, st.integers(1, 30))
def test_a_run_of_the_least_rows_has_a_window_and_a_shorter_one_has_none(shape: WindowShape, n_rows: int) -> None:
    n_windows = len(WindowIndex.build(runs_of([n_rows]), shape, 10))
    assert (n_windows > 0) == (n_rows >= shape.least_rows)


def episodes(folder: Path, lengths: list[int]) -> zstore.Store:
    """Episodes whose values say which row they are."""
    rows = [[f"e{n}", t, 100 * n + t, -(100 * n + t)] for n, length in enumerate(lengths) for t in range(length)]
    zstore.ingest(write_table(folder / "r.csv", ["id", "t", "v", "w"], rows), folder / "s.zarr", id="id", time="t")
    return zstore.open_store(folder / "s.zarr")


def test_every_row_is_the_last_input_of_a_window_as_in_the_data_sets_of_robots(tmp_path: Path) -> None:
    store = episodes(tmp_path, [5, 1, 9])
    windows = store.windows(2, 4, delay=-1, channels=["v"], pad_before="repeat", pad_after="zero", cache=tmp_path)
    assert len(windows) == store.n_rows
    batch = windows.batch(np.arange(len(windows)))
    assert batch["x"][:, -1, 0].tolist() == batch["y"][:, 0, 0].tolist() == [*range(5), 100, *range(200, 209)]
    assert batch["x"][0, :, 0].tolist() == [0, 0]
    assert batch["x"][5, :, 0].tolist() == [100, 100]
    assert batch["y"][3, :, 0].tolist() == [3, 4, 0, 0]
    assert batch["y_pad"][3].tolist() == [False, False, True, True]
    assert batch["x_pad"][:, 0].tolist() == [True, *[False] * 4, True, True, *[False] * 8]


def test_targets_at_every_third_row_are_read_at_every_third_row(tmp_path: Path) -> None:
    store = episodes(tmp_path, [12])
    windows = store.windows(2, 3, target_stride=3, channels=["v"], targets=["w"], cache=tmp_path)
    assert len(windows) == 12 - (2 + 7) + 1
    assert windows[1]["x"].ravel().tolist() == [1, 2]
    assert windows[1]["y"].ravel().tolist() == [-3, -6, -9]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"target_stride": 0}, "target_stride 0; expected at least 1"),
        ({"pad_before": "edge"}, "pad_before 'edge'; expected none, repeat or zero"),
        ({"pad_after": "mean"}, "pad_after 'mean'"),
    ],
)
def test_a_padding_that_is_none_of_these_is_wrong_usage(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WindowShape(3, 1, **given_)


def test_a_selection_is_padded_at_its_own_ends(tmp_path: Path) -> None:
    store = episodes(tmp_path, [12])
    windows = store.sel(start=4, stop=8, channels="v").windows(
        3, 2, delay=-1, pad_before="repeat", pad_after="repeat", cache=tmp_path
    )
    batch = windows.batch(np.arange(len(windows)))
    assert batch["x"][..., 0].tolist() == [[4, 4, 4], [4, 4, 5], [4, 5, 6], [5, 6, 7]]
    assert batch["y"][..., 0].tolist() == [[4, 5], [5, 6], [6, 7], [7, 7]]


def test_the_rows_that_a_window_needs_take_no_memory_to_count() -> None:
    tracemalloc.start()
    assert WindowShape(10**9, 24).least_rows == 10**9 + 24
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
