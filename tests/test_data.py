"""Splits, order, scaler, loader: what is trained on is exactly what the configuration says."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import few, processes, write_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_app.batch import Batch
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.batches.source import gather
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.residency import Placement, choose, parse_budget
from lightning_app.data.rows.views import SeriesView
from lightning_app.data.scaling.fit import fit_scaler
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.borders import target_rows, time_borders
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.order import shuffled
from lightning_app.data.windows.splits import NAMES, Split
from zstore import Store, UsageError, WindowIndex, WindowShape, find_holes, ingest, open_store
from zstore.format.index import RunTable


def module(store: Store, tmp_path: Path, **options: object) -> WindowDataModule:
    settings = {"lookback": 24, "horizon": 6, "batch_size": 32, "cache": str(tmp_path / "cache"), **options}
    return WindowDataModule(str(store.path), **settings)  # type: ignore[arg-type]


def covered(store: Store, split: Split, name: str) -> set[int]:
    starts, stops = target_rows(store, split, name)  # type: ignore[arg-type]
    return {row for a, b in zip(starts, stops, strict=True) for row in range(a, b)}


@given(st.integers(1, 5000), st.integers(0, 2**63), st.integers(0, 10**6))
@settings(max_examples=few(60))
def test_a_shuffled_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


def test_orders_differ_between_seeds_and_epochs_and_look_random() -> None:
    n = 10_000
    first, second, other = (shuffled(np.arange(n), n, *key) for key in ((1, 0), (1, 1), (2, 0)))
    for a, b in ((first, second), (first, other)):
        assert np.count_nonzero(a == b) < 10
    # Spearman's rho of a random permutation has standard deviation 1 / sqrt(n - 1): five of them are 0.05.
    for order in (first, second, other):
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.05
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize(
    "split",
    [
        Split(sizes=(0.6, 0.2, 0.2)),
        Split(sizes=(500, 100, 300)),
        Split(dates=("2001-06-01", "2003-01-01", "2004-01-01", "2004-12-01")),
        Split(by="series", sizes=(0.5, 0.25, 0.25)),
    ],
)
def test_no_target_row_belongs_to_two_splits(catchments: Store, split: Split) -> None:
    rows = [covered(catchments, split, name) for name in NAMES]
    assert all(rows)
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_a_time_split_has_the_same_borders_for_every_series(catchments: Store) -> None:
    split = Split(dates=("2001-06-01", "2003-01-01", "2004-01-01", "2004-12-01"))
    times = catchments.times(0, catchments.n_rows)
    for name, (low, high) in zip(NAMES, time_borders(catchments, split), strict=True):
        expected = set(np.flatnonzero((times >= low[0]) & (times < high[0])).tolist())
        assert covered(catchments, split, name) == expected


def test_steps_count_from_the_first_time(hourly: Store) -> None:
    split = Split(sizes=(1200, 300, 500))
    assert [sorted(covered(hourly, split, name))[0] for name in NAMES] == [0, 1200, 1500]
    assert max(covered(hourly, split, "test")) == 1999


def test_an_embargo_leaves_a_gap_after_each_border(hourly: Store) -> None:
    split = Split(sizes=(1200, 300, 500), embargo=10)
    assert min(covered(hourly, split, "val")) == 1210
    assert min(covered(hourly, split, "test")) == 1510


def test_splitting_by_series_deals_every_series_to_one_split(catchments: Store) -> None:
    split = Split(by="series", sizes=(0.5, 0.25, 0.25), seed=3)
    assert Counter(assign_series(catchments, split).tolist()) == {0: 4, 1: 2, 2: 2}
    other = Split("series", (0.5, 0.25, 0.25), seed=4)
    assert assign_series(catchments, split).tolist() != assign_series(catchments, other).tolist()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"sizes": (0.7, 0.3, 0.2)}, "overlap"),
        ({"sizes": (2000, 300, 500)}, "split of 2,800 steps; expected at most 2,000"),
        ({"sizes": (-0.1, 0.3, 0.2)}, "no negative"),
        ({"dates": ("2020-02-01", "2020-01-15", "2020-03-01", "2020-04-01")}, "go back in time"),
        ({"dates": ("soon", "2020-01-15", "2020-03-01", "2020-04-01")}, "ISO dates"),
        ({"by": "series", "sizes": (5, 1, 1)}, "fractions"),
        ({"embargo": -1}, "embargo -1"),
    ],
)
def test_splits_that_overlap_or_do_not_fit_are_refused(hourly: Store, split: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        target_rows(hourly, Split(**split), "train")  # type: ignore[arg-type]


def test_context_lets_lookbacks_but_never_targets_reach_over_the_border(hourly: Store, tmp_path: Path) -> None:
    allow = module(hourly, tmp_path, split=Split(sizes=(1200, 300, 500))).index("val")
    forbid = module(hourly, tmp_path, split=Split(sizes=(1200, 300, 500), context="forbid")).index("val")
    assert (len(allow), len(forbid)) == (300 - 6 + 1, 300 - 24 - 6 + 1)
    assert int(allow.locate(np.array([0]))[0][0]) == 1200 - 24
    assert int(forbid.locate(np.array([0]))[0][0]) == 1200


def test_the_scaler_sees_training_rows_only_and_no_missing_value(catchments: Store, tmp_path: Path) -> None:
    split = Split(sizes=(0.5, 0.2, 0.3))
    scaler = fit_scaler(catchments, split, ["flow_mm", "rain_mm"], "standard", tmp_path)
    rows = sorted(covered(catchments, split, "train"))
    for position, channel in enumerate(scaler.channels):
        values = catchments.read(channel, 0, catchments.n_rows)[rows].astype(np.float64)
        np.testing.assert_allclose(scaler.offset[position], np.nanmean(values), rtol=1e-12)
        np.testing.assert_allclose(scaler.scale[position], np.nanstd(values), rtol=1e-12)


def test_a_fitted_scaler_comes_from_the_cache_unless_the_split_changes(
    catchments: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit_scaler(catchments, Split(), ["flow_mm"], "standard", tmp_path)
    monkeypatch.setattr(Store, "read", None)
    assert fit_scaler(catchments, Split(), ["flow_mm"], "standard", tmp_path).to_json() == first.to_json()
    with pytest.raises(TypeError):
        fit_scaler(catchments, Split(sizes=(0.5, 0.2, 0.3)), ["flow_mm"], "standard", tmp_path)


def test_a_constant_channel_is_scaled_by_one(tmp_path: Path) -> None:
    path = write_table(tmp_path / "r.csv", ["t", "v"], [[n, 5] for n in range(20)])
    ingest(path, tmp_path / "s.zarr", time="t")
    scaler = fit_scaler(open_store(tmp_path / "s.zarr"), Split(), ["v"], "standard", tmp_path)
    assert (scaler.offset.tolist(), scaler.scale.tolist()) == ([5.0], [1.0])


def test_the_row_file_is_built_once_and_its_rows_are_scaled_when_copied(catchments: Store, tmp_path: Path) -> None:
    scaler = Scaler(("flow_mm", "rain_mm"), np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.zeros(2, bool))
    rows = SeriesView(catchments, Split(), scaler.channels).open(scaler, tmp_path).to(torch.device("cpu"))
    observed = torch.ones(rows.values.shape, dtype=torch.bool) if rows.observed is None else rows.observed
    for column, channel in enumerate(scaler.channels):
        expected = (catchments.read(channel, 0, catchments.n_rows) - scaler.offset[column]) / scaler.scale[column]
        np.testing.assert_allclose(rows.values[:, column].numpy(), np.nan_to_num(expected), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(observed[:, column].numpy(), ~np.isnan(expected))
    built = [path.stat().st_mtime_ns for path in tmp_path.glob("*.f4")]
    SeriesView(catchments, Split(), scaler.channels).open(scaler, tmp_path)
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*.f4")] == built
    assert len(built) == 1
    assert not list(tmp_path.glob("*.partial"))


def _sum_rows(path: str, cache: str) -> float:
    store = open_store(path)
    scaler = Scaler.identity(["rain_mm"])
    return float(SeriesView(store, Split(), scaler.channels).open(scaler, Path(cache)).values.double().sum())


def test_processes_that_build_the_row_file_at_once_share_one(catchments: Store, tmp_path: Path) -> None:
    with processes().Pool(3) as pool:
        sums = pool.starmap(_sum_rows, [(str(catchments.path), str(tmp_path))] * 3)
    assert sums == [float(catchments.read("rain_mm", 0, catchments.n_rows).astype(np.float64).sum())] * 3
    assert len(list(tmp_path.glob("*.f4"))) == 1


def test_a_batch_is_what_slicing_the_rows_gives(catchments: Store, tmp_path: Path) -> None:
    data = module(
        catchments,
        tmp_path,
        channels=["rain_mm", "flow_mm"],
        targets=["flow_mm"],
        future=["rain_mm", "temperature_c"],
        statics=["elevation_m", "land"],
        split=Split(sizes=(0.6, 0.2, 0.2)),
    )
    loader = data.train_dataloader()
    batch: Batch = next(iter(loader))
    starts, series, time = loader.index.locate(loader.samples(0))
    offset, scale = data.scaler.offset, data.scaler.scale
    columns = {n: (catchments.read(n, 0, catchments.n_rows) - offset[i]) / scale[i] for i, n in enumerate(data.columns)}
    for row, start in enumerate(starts):
        ahead = slice(start + 24, start + 30)
        x = np.stack([columns["rain_mm"][start : start + 24], columns["flow_mm"][start : start + 24]], axis=1)
        np.testing.assert_allclose(batch["x"][row], np.nan_to_num(x), atol=1e-5)
        y = columns["flow_mm"][ahead, None]
        assert batch["mask"][row].numpy().tolist() == (~np.isnan(y)).tolist()
        np.testing.assert_allclose(batch["y"][row], np.nan_to_num(y), atol=1e-5)
        known = np.stack([columns["rain_mm"][ahead], columns["temperature_c"][ahead]], axis=1)
        np.testing.assert_allclose(batch["x_future"][row], known, atol=1e-5)
        assert int(time[row]) == int(catchments.times(start + 24, start + 25)[0])
    assert batch["series"].tolist() == series.tolist()
    lands = len(catchments.static("land").categories or ())
    assert batch["x_static"].shape == (32, 1 + lands)
    assert torch.all(batch["x_static"][:, 1:].sum(dim=1) == 1)
    assert data.shape.n_static == 1 + lands


def test_codes_of_words_are_inputs_only_if_their_channel_is_named(tmp_path: Path) -> None:
    rows = [[step, "NS"[step % 2], step % 5] for step in range(60)]
    ingest(write_table(tmp_path / "r.csv", ["t", "wind", "v"], rows), tmp_path / "s.zarr", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert module(store, tmp_path, lookback=4, horizon=1).inputs == ["v"]
    assert module(store, tmp_path, lookback=4, horizon=1, channels=["wind", "v"]).inputs == ["wind", "v"]
    ingest(tmp_path / "r.csv", tmp_path / "words.zarr", time="t", channels=["wind"])
    with pytest.raises(UsageError, match="no channel of numbers"):
        module(open_store(tmp_path / "words.zarr"), tmp_path, lookback=4, horizon=1)


def test_irregular_times_reach_the_batch(tmp_path: Path) -> None:
    path = write_table(tmp_path / "r.csv", ["t", "v"], [[n * n, n] for n in range(60)])
    ingest(path, tmp_path / "s.zarr", time="t")
    data = module(open_store(tmp_path / "s.zarr"), tmp_path, lookback=4, horizon=1, split=Split(sizes=(0.5, 0.2, 0.3)))
    batch = next(iter(data.test_dataloader()))
    target = (batch["y"][:, 0, 0] * data.scaler.scale[0] + data.scaler.offset[0]).round().long()
    assert batch["time"].tolist() == (target * target).tolist()


def loaders(data: WindowDataModule, world: int, shuffle: bool) -> list[WindowLoader]:
    index = data.index("train")
    return [WindowLoader(data.source, index, 32, shuffle, 7, rank, world) for rank in range(world)]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_global_batches_do_not_depend_on_the_number_of_ranks(hourly: Store, tmp_path: Path, world: int) -> None:
    data = module(hourly, tmp_path)
    alone = loaders(data, 1, shuffle=True)[0]
    ranks = loaders(data, world, shuffle=True)
    for loader in (alone, *ranks):
        next(iter(loader))
    for number in range(len(alone)):
        joined = np.concatenate([loader.samples(number) for loader in ranks])
        assert joined.tolist() == alone.samples(number).tolist()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("n_windows", [64, 65, 66, 70, 95])
def test_evaluation_visits_every_window_exactly_once_on_any_number_of_ranks(
    hourly: Store, tmp_path: Path, world: int, n_windows: int
) -> None:
    data = module(hourly, tmp_path, split=Split(sizes=(n_windows + 29, 300, 500)))
    index = data.index("train")
    assert len(index) == n_windows
    ranks = [WindowLoader(data.source, index, 12, False, 0, rank, world) for rank in range(world)]
    seen = [loader.samples(number) for loader in ranks for number in range(len(loader))]
    assert sorted(np.concatenate(seen).tolist()) == list(range(n_windows))
    assert min(map(len, seen)) > 0
    assert sum(len(batch["series"]) for loader in ranks for batch in loader) == n_windows


def test_an_interrupted_epoch_goes_on_with_the_next_batch(hourly: Store, tmp_path: Path) -> None:
    data = module(hourly, tmp_path)
    whole = [batch["x"] for batch in loaders(data, 1, shuffle=True)[0]]
    first, second = (loaders(data, 1, shuffle=True)[0] for _ in range(2))
    consumed = [batch["x"] for batch, _ in zip(first, range(5), strict=False)]
    # zip asked for a sixth batch before it saw the range end.
    state = {**first.state_dict(), "consumed": 5}
    second.load_state_dict(state)
    resumed = [batch["x"] for batch in second]
    assert len(consumed) + len(resumed) == len(whole)
    assert all(torch.equal(a, b) for a, b in zip(whole, consumed + resumed, strict=True))


def test_every_epoch_has_an_order_of_its_own(hourly: Store, tmp_path: Path) -> None:
    loader = module(hourly, tmp_path).train_dataloader()
    first, second = ([batch["time"] for batch in loader] for _ in range(2))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_breaking_off_an_epoch_starts_a_new_one(hourly: Store, tmp_path: Path) -> None:
    loader = module(hourly, tmp_path).train_dataloader()
    next(iter(loader))
    assert len(list(loader)) == len(loader)


def test_torch_gather_equals_slicing_and_refuses_to_leave_the_rows() -> None:
    rows = torch.arange(60.0).reshape(20, 3)
    found = gather(rows, torch.tensor([0, 15, 15, 3]), 5)
    assert torch.equal(found, torch.stack([rows[0:5], rows[15:20], rows[15:20], rows[3:8]]))
    with pytest.raises(IndexError):
        gather(rows, torch.tensor([16]), 5)
    with pytest.raises(IndexError):
        gather(rows[:3], torch.tensor([0]), 5)


def test_a_batch_size_that_ranks_cannot_share_is_wrong_usage(hourly: Store, tmp_path: Path) -> None:
    data = module(hourly, tmp_path)
    with pytest.raises(UsageError, match="batch size 32 on 3 processes"):
        WindowLoader(data.source, data.index("train"), 32, True, 0, 0, 3)


def test_a_lookback_longer_than_every_series_says_what_fits(hourly: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"need 3,006 rows; expected at most 2,000 rows"):
        module(hourly, tmp_path, lookback=3000).train_dataloader()


def test_unknown_channels_and_attributes_are_named(catchments: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no channel 'depth'"):
        module(catchments, tmp_path, targets=["depth"])
    with pytest.raises(KeyError, match="no static attribute 'depth'"):
        module(catchments, tmp_path, statics=["depth"])


def test_the_climatology_of_the_demo_uses_training_days_only() -> None:
    from lightning_app.demo.compare import _climatology

    first = int(np.datetime64("2001-01-01").astype("M8[D]").astype(int))
    days = pd.date_range("2001-01-01", "2003-12-31")
    values = days.year.to_numpy(float)
    found = _climatology(values[: 365 * 2], first)
    assert found[0] == 2001.5


@settings(max_examples=few(40))
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    seen=st.lists(st.booleans(), min_size=120, max_size=120),
    lookback=st.integers(1, 5),
    horizon=st.integers(1, 4),
    stride=st.integers(1, 3),
)
@example([2], [False] * 120, 1, 1, 1)
def test_windows_without_a_target_are_left_out_of_the_index_and_no_others(
    sizes: list[int], seen: list[bool], lookback: int, horizon: int, stride: int
) -> None:
    stops = np.cumsum(np.array(sizes, np.int64))
    runs = RunTable(stops - sizes, stops, np.arange(len(sizes)), np.arange(len(sizes)) * 1000)
    index = WindowIndex.build(runs, WindowShape(lookback, horizon, 0, stride), 1)
    start, series, time = index.locate(np.arange(len(index)))
    kept = [any(seen[first + lookback : first + lookback + horizon]) for first in start]
    rows = np.array(seen[: int(stops[-1])])
    found = index.observed(find_holes([rows[:7], rows[7:7], rows[7:]]))
    for row in range(-1, int(stops[-1]) + 2):
        assert int(index.rank(np.array([row]))[0]) == np.count_nonzero(start < row)
    assert len(found) == sum(kept)
    for values, expected in zip(found.locate(np.arange(len(found))), (start, series, time), strict=True):
        assert values.tolist() == expected[kept].tolist()


def test_sparse_targets_are_trained_on_without_reading_windows_that_have_none(tmp_path: Path) -> None:
    """One sample a month under daily inputs, as in river quality."""
    rows = [["a", day, day % 7, day / 10 if day % 30 == 0 else ""] for day in range(900)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "x", "q"], rows), tmp_path / "s.zarr", id="id", time="t")
    split = Split(sizes=(0.6, 0.2, 0.2))
    data = module(open_store(tmp_path / "s.zarr"), tmp_path, targets=["q"], horizon=1, batch_size=4, split=split)
    batches = list(data.train_dataloader())
    assert sum(len(batch["mask"]) for batch in batches) == len(data.index("train")) // 4 * 4 == 16
    assert all(batch["mask"].all() for batch in batches)
    assert len(data.predict_dataloader().index) == 180
    assert len(data.test_dataloader().index) == 6


def test_a_copy_on_the_device_gives_the_batches_of_the_host(catchments: Store, tmp_path: Path) -> None:
    options: dict[str, object] = {"targets": ["flow_mm"], "future": ["rain_mm"], "statics": ["elevation_m"]}
    sides = [
        module(catchments, tmp_path, residency=where, **options).train_dataloader() for where in ("host", "device")
    ]
    assert sides[0].source.rows.values.data_ptr() != sides[1].source.rows.values.data_ptr()
    for host, device in zip(*sides, strict=True):
        for key, values in host.items():
            assert torch.equal(values, device[key]), key


def test_the_residency_is_chosen_by_size_and_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "lightning_app")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (10**8, 10**9))
    cpu, gpu, cache = torch.device("cpu"), torch.device("cuda", 0), tmp_path / "not" / "yet"
    assert choose("auto", 10**6, 40, cpu, "50MB", cache, 1).place == "host"
    assert "40 bytes, 0.04 GB: residency host, for they fit into 0.05 GB of" in caplog.text
    assert choose("auto", 10**6, 40, cpu, "30MB", cache, 2) == Placement("stream", 15_000_000)
    assert "residency stream, for they do not fit into 0.03 GB" in caplog.text
    assert choose("auto", 10**6, 40, gpu, 0.5, cache, 2) == Placement("device", 50_000_000)
    assert "for they fit into 0.05 GB of 0.10 GB free in cuda:0" in caplog.text
    assert choose("auto", 10**6, 60, gpu, 0.5, cache, 1).place == "host"
    assert "not into 0.05 GB of 0.10 GB free in cuda:0" in caplog.text
    assert choose("auto", 10**6, 40, gpu, "30MB", cache, 1).place == "stream"
    assert choose("host", 10**6, 40, gpu, "30MB", cache, 1).place == "host"
    with pytest.raises(UsageError, match=r"rows of 0.05 GB in the memory of cuda:0.*--data.residency host"):
        choose("device", 10**6, 50, gpu, 0.1, cache, 1)


@pytest.mark.parametrize("budget", ["much", "0", -1, 2, "1.5.2GB"])
def test_a_budget_that_cannot_be_meant_is_refused(budget: float | str) -> None:
    with pytest.raises(UsageError, match=r"correct --data\.memory_budget"):
        parse_budget(budget, 1000)


def test_a_budget_is_a_share_or_a_size() -> None:
    assert [parse_budget(budget, 1000) for budget in (0.5, "0.25", 1, "2KiB", "1.5 MB")] == [
        500,
        250,
        1000,
        2048,
        1_500_000,
    ]
