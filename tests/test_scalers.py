"""Scalers of every kind against numpy, on training rows alone."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL_GRID, write_table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import SeriesView
from lightning_app.data.scaling.entries import by_channel
from lightning_app.data.scaling.fit import fit_scaler
from lightning_app.data.scaling.quantiles import quantiles
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.scaling.training import Training, scaled_std, training_parts
from lightning_app.data.scaling.unscaler import Unscaler
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.splits import Split
from zstore import Store, UsageError, ingest, open_store

SPLIT = Split(sizes=(0.5, 0.2, 0.3))
CHANNELS = ["flow_mm", "rain_mm", "temperature_c"]


def training_rows(store: Store) -> np.ndarray[Any, Any]:
    ranges = zip(*target_rows(store, SPLIT, "train"), strict=True)
    return np.concatenate([np.arange(start, stop) for start, stop in ranges])


def expected(values: np.ndarray[Any, Any], kind: str) -> tuple[float, float]:
    if kind == "standard":
        return float(np.nanmean(values)), float(np.nanstd(values))
    if kind == "minmax":
        return float(np.nanmin(values)), float(np.nanmax(values) - np.nanmin(values))
    if kind == "log1p":
        return float(np.nanmean(np.log1p(values))), float(np.nanstd(np.log1p(values)))
    if kind == "robust":
        low, middle, high = np.nanquantile(values.astype(np.float32).astype(np.float64), [0.25, 0.5, 0.75])
        return float(middle), float(high - low)
    low, high = np.nanmin(values), np.nanmax(values)
    if kind == "quantile":
        low, high = np.nanquantile(values.astype(np.float32).astype(np.float64), [0.01, 0.99])
    return float(low + high) / 2, float(high - low) / 2


@pytest.mark.parametrize("by", ["channel", "series"])
@pytest.mark.parametrize("kind", ["standard", "minmax", "minmax_signed", "quantile", "robust", "log1p"])
def test_a_scaler_is_that_of_the_training_rows_alone(catchments: Store, tmp_path: Path, kind: Any, by: Any) -> None:
    channels = CHANNELS[:2]
    scaler = fit_scaler(catchments, SPLIT, channels, kind, tmp_path, by)
    rows = training_rows(catchments)
    owner = catchments.index.series_of(0, catchments.n_rows)[rows]
    for position, name in enumerate(channels):
        values = catchments.read(name, 0, catchments.n_rows)[rows].astype(np.float64)
        groups = [values] if by == "channel" else [values[owner == n] for n in range(catchments.n_series)]
        found = np.stack([scaler.offset[..., position], scaler.scale[..., position]]).reshape(2, -1).T
        np.testing.assert_allclose(found, [expected(group, kind) for group in groups], rtol=1e-9)


def test_a_scaler_fitted_on_everything_would_be_found(catchments: Store, tmp_path: Path) -> None:
    everything = catchments.read("flow_mm", 0, catchments.n_rows).astype(np.float64)
    scaler = fit_scaler(catchments, SPLIT, ["flow_mm"], "standard", tmp_path)
    assert abs(scaler.offset[0] - np.nanmean(everything)) > 1e-3
    planted = Scaler(("flow_mm",), np.array([np.nanmean(everything)]), scaler.scale, scaler.log, "0" * 32)
    path = next(tmp_path.glob("scaler-*.json"))
    path.write_text(json.dumps(planted.to_json()))
    again = fit_scaler(catchments, SPLIT, ["flow_mm"], "standard", tmp_path)
    assert again.to_json() == scaler.to_json()


def test_a_checkpoint_whose_scaler_saw_other_rows_is_refused(catchments: Store, tmp_path: Path) -> None:
    data = WindowDataModule(str(catchments.path), 5, 2, split=SPLIT, cache=str(tmp_path))
    state = data.state_dict()
    data.load_state_dict(state)
    state["scaler"]["fitted_on"] = "0" * 32
    with pytest.raises(UsageError, match="scaler that was fitted on other rows than the model"):
        data.load_state_dict(state)


@pytest.mark.parametrize("by", ["channel", "series"])
@pytest.mark.parametrize("residency", ["host", "device", "stream"])
def test_batches_are_scaled_and_come_back_to_source_units(
    catchments: Store, tmp_path: Path, by: Any, residency: Any
) -> None:
    kinds: Any = {"flow_mm": "log1p", "rain_mm": "robust", "temperature_c": "minmax"}
    data = WindowDataModule(
        str(catchments.path), 4, 3, split=SPLIT, channels=CHANNELS, scaler=kinds, scale_by=by, residency=residency,
        memory_budget=0.5 if residency != "stream" else "3MB", cache=str(tmp_path), batch_size=64,
    )  # fmt: skip
    index, loader = data.index("test"), data.test_dataloader()
    samples = loader.samples_at(np.arange(64))
    first = index.locate(samples)[0] + 4
    batch = next(iter(loader))
    source = data.to_source(batch["y"], batch["series"])
    for position, name in enumerate(CHANNELS):
        column = catchments.read(name, 0, catchments.n_rows)
        truth = torch.from_numpy(np.stack([column[row : row + 3] for row in first]))
        mask = batch["mask"][..., position]
        assert torch.equal(mask, ~truth.isnan())
        torch.testing.assert_close(source[..., position][mask], truth[mask].double(), rtol=2e-5, atol=2e-4)
        scaler = data.scaler
        owner = batch["series"].numpy()
        offset, scale = (
            part[owner][:, None, position] if by == "series" else part[position]
            for part in (scaler.offset, scaler.scale)
        )
        inner = np.log1p(truth.numpy().astype(np.float64)) if kinds[name] == "log1p" else truth.numpy()
        wanted = torch.from_numpy((inner - offset) / scale)
        torch.testing.assert_close(batch["y"][..., position][mask], wanted[mask].float(), rtol=1e-5, atol=1e-5)


def test_series_without_training_values_are_scaled_as_the_channel(tmp_path: Path) -> None:
    rows = [["a", t, t % 7] for t in range(100)] + [["b", t, "" if t < 60 else t] for t in range(100)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    own = fit_scaler(store, SPLIT, ["v"], "standard", tmp_path, "series")
    whole = fit_scaler(store, SPLIT, ["v"], "standard", tmp_path)
    assert own.offset[1, 0] == whole.offset[0]
    assert own.scale[1, 0] == whole.scale[0]
    np.testing.assert_allclose(scaled_std(Training(store, SPLIT), whole)[:, 0], [1, 1])


@pytest.mark.parametrize("by", ["channel", "series"])
@pytest.mark.parametrize("kind", ["standard", "minmax", "minmax_signed", "quantile", "robust", "log1p"])
def test_a_deviation_or_range_below_the_floor_counts_as_the_floor(
    catchments: Store, tmp_path: Path, kind: Any, by: Any
) -> None:
    plain = fit_scaler(catchments, SPLIT, CHANNELS[:2], kind, tmp_path, by)
    share = 0.5 if kind in ("minmax_signed", "quantile") else 1.0  # a range of 2 instead of 1
    floor = float(np.median(plain.scale[..., 0])) / share * 1.01
    raised = fit_scaler(catchments, SPLIT, CHANNELS[:2], kind, tmp_path, by, floor={"flow_*": floor})
    np.testing.assert_array_equal(raised.scale[..., 0], np.maximum(plain.scale[..., 0], floor * share))
    np.testing.assert_array_equal(raised.scale[..., 1], plain.scale[..., 1])
    np.testing.assert_array_equal(raised.offset, plain.offset)
    assert (raised.scale[..., 0] != plain.scale[..., 0]).any()


def test_a_channel_that_does_not_vary_has_the_floor_for_its_scale(tmp_path: Path) -> None:
    rows = [["a", t, 3.5, t % 3] for t in range(40)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v", "w"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert fit_scaler(store, SPLIT, ["v", "w"], "standard", tmp_path).scale[0] == 1
    scaler = fit_scaler(store, SPLIT, ["v", "w"], "standard", tmp_path, floor=1e-2)
    assert (scaler.offset[0], scaler.scale[0]) == (3.5, 1e-2)
    assert scaler.scale[1] > 0.5


@pytest.mark.parametrize("floor", [-1.0, float("nan"), float("inf")])
def test_a_floor_that_is_none_is_refused(catchments: Store, tmp_path: Path, floor: float) -> None:
    with pytest.raises(UsageError, match=r"scale_floor .*expected 0, or a finite number"):
        fit_scaler(catchments, SPLIT, CHANNELS, "standard", tmp_path, floor=floor)


NAMES = ["emg.0", "emg.1", "emg.10", "pos", "quat.x", "quat.y", "a*b", "a.b"]
VECTORS = {"emg": ("emg.0", "emg.1", "emg.10")}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, {}),
        ({"emg": 1, "emg.1": 2}, {"emg.0": 1, "emg.1": 2, "emg.10": 1}),
        ({"emg.?": 1}, {"emg.0": 1, "emg.1": 1}),
        ({"*": 0, "quat.*": 1}, {**dict.fromkeys(NAMES, 0), "quat.x": 1, "quat.y": 1}),
        ({"a*b": 1}, {"a*b": 1}),  # a name is no pattern
        ({"emg.0": 1, "emg.*": 2}, "a scaler for 'emg.0', whose channels 'emg.*' behind it fits too"),
        ({"*.x": 1, "quat.*": 2}, "a scaler for '*.x', whose channels 'quat.*' behind it fits too"),
        ({"emg": 1, "emg.0": 2, "emg.1*": 3}, "a scaler for 'emg', whose channels 'emg.0', 'emg.1*' behind it"),
        ({"legs.*": 1}, "a scaler for channel 'legs.*'; expected one of those in use: emg.0, emg.1"),
        ({"emg.[01]": 1}, "a scaler for channel 'emg.[01]'"),
    ],
)
def test_the_last_entry_that_fits_a_channel_counts_and_each_must_count_for_one(entries: Any, expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=re.escape(expected)):
            by_channel(entries, NAMES, VECTORS, "scaler")
        return
    assert expected == by_channel(entries, NAMES, VECTORS, "scaler")


@pytest.mark.parametrize("delay", [0, 2, -3])
@pytest.mark.parametrize("residency", ["host", "device", "stream"])
def test_quantile_scalers_clip_inputs_and_leave_targets_whole(
    catchments: Store, tmp_path: Path, residency: Any, delay: int
) -> None:
    options: dict[str, Any] = {"channels": CHANNELS, "targets": ["flow_mm"], "future": ["flow_mm", "rain_mm"]}
    options |= {"batch_size": 64, "residency": residency, "cache": str(tmp_path), "split": SPLIT, "delay": delay}
    options |= {"memory_budget": "3MB" if residency == "stream" else 0.5}
    mixed = WindowDataModule(catchments.path, 4, 3, scaler={"flow_mm": "quantile"}, **options)
    whole = WindowDataModule(catchments.path, 4, 3, scaler="quantile", **options)
    plain = WindowDataModule(catchments.path, 4, 3, scaler="quantile", **options)
    free = Scaler(**{**vars(plain.scaler), "clipped": ()})
    plain.scales.__dict__["scaler"] = free
    assert (mixed.scaler.clipped, whole.scaler.clipped) == (("flow_mm",), tuple(CHANNELS))
    n_beyond = 0
    for some, every, unclipped in zip(*(data.test_dataloader() for data in (mixed, whole, plain)), strict=True):
        n_beyond += int((unclipped["y"].abs() > 1).sum())
        for batch in (some, every):
            assert torch.equal(batch["y"], unclipped["y"])
        assert torch.equal(every["x"], unclipped["x"].clamp(-1, 1))
        assert torch.equal(every["x_future"], unclipped["x_future"].clamp(-1, 1))
        assert torch.equal(some["x"][..., 0], every["x"][..., 0])
        assert (some["x"][..., 1:].abs() > 1).any()
    assert n_beyond > 0


def test_a_checkpoint_keeps_what_is_clipped_and_older_ones_clip_nothing(catchments: Store, tmp_path: Path) -> None:
    options: dict[str, Any] = {"split": SPLIT, "cache": str(tmp_path), "batch_size": 64}
    first = WindowDataModule(catchments.path, 5, 2, scaler={"*_mm": "quantile"}, scale_floor=0.1, **options)
    state = copy.deepcopy(first.state_dict())
    other = WindowDataModule(catchments.path, 5, 2, scaler="standard", **options)
    other.load_state_dict(state)
    for batch, expected in zip(other.test_dataloader(), first.test_dataloader(), strict=True):
        assert torch.equal(expected["x"], batch["x"])
        assert torch.equal(expected["y"], batch["y"])
    assert other.scaler.clipped == ("rain_mm", "evaporation_mm", "flow_mm")
    del state["scaler"]["clipped"]
    assert Scaler.from_json(state["scaler"]).clipped == ()
    for wrong in (["wind"], "flow_mm", 3, [None]):
        with pytest.raises(UsageError, match="a scaler that is none"):
            Scaler.from_json({**state["scaler"], "clipped": wrong})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"flow_mm": "log1p", "wind": "none"}, "a scaler for channel 'wind'; expected one of those in use: flow_mm"),
        ("log1p", "a logarithm of channel 'temperature_c', which has -"),
    ],
)
def test_a_scaler_that_cannot_be_meant_is_refused(catchments: Store, tmp_path: Path, kind: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_scaler(catchments, SPLIT, CHANNELS, kind, tmp_path)


def test_rows_of_a_scaled_store_are_the_same_by_any_way(catchments: Store, tmp_path: Path) -> None:
    scaler = fit_scaler(catchments, SPLIT, CHANNELS, {"flow_mm": "log1p", "rain_mm": "none"}, tmp_path, "series")
    view = SeriesView(catchments, Split(), scaler.channels)
    rows = view.open(scaler, tmp_path).to(torch.device("cpu"))
    part = np.empty((500, 3), np.float32)
    observed = np.empty((500, 3), bool)
    catchments.decode_part(CHANNELS, 1200, part, scaler.scaling, observed)
    np.testing.assert_allclose(rows.values[1200:1700].numpy(), part, rtol=1e-6, atol=1e-6)
    streamed = np.empty((500, 3), np.float32)
    view.reader(scaler, tmp_path).read(1200, streamed, observed)
    np.testing.assert_array_equal(rows.values[1200:1700].numpy(), streamed)
    assert rows.observed is not None
    np.testing.assert_array_equal(rows.observed[1200:1700].numpy(), observed)
    plain = catchments.read("rain_mm", 1200, 1700)
    np.testing.assert_array_equal(part[:, 1], np.nan_to_num(plain))


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("most_kept", [0, 1000])
@given(arrays(np.float32, st.integers(1, 200), elements=FLOATS | st.just(float("nan"))), st.integers(1, 60))
def test_quantiles_by_counting_and_by_sorting_are_those_of_numpy(
    most_kept: int, values: np.ndarray[Any, Any], size: int
) -> None:
    shares = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0]
    blocks: Callable[[], Any] = lambda: (values[at : at + size] for at in range(0, len(values), size))  # noqa: E731
    found = quantiles(blocks, shares, most_kept=most_kept)
    seen = values[~np.isnan(values)].astype(np.float64)
    wanted = np.quantile(seen, shares) if len(seen) else np.zeros(6)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-300)


@given(
    arrays(np.float64, st.integers(1, 6), elements=st.floats(-1e300, 1e300)),
    st.integers(0, 6),
    st.integers(0, 3),
)
def test_a_scaler_comes_back_from_json_as_it_was(offset: np.ndarray[Any, Any], n_clipped: int, count: int) -> None:
    names = tuple(f"c{n}" for n in range(len(offset)))
    offset = np.tile(offset, (count, 1)) if count else offset
    log = np.arange(len(names)) % 2 == 0
    scaler = Scaler(names, offset, np.exp2(offset / 1e300), log, "x", clipped=names[:n_clipped])
    found = Scaler.from_json(json.loads(json.dumps(scaler.to_json())))
    assert (found.channels, found.fitted_on, found.clipped) == (scaler.channels, scaler.fitted_on, scaler.clipped)
    for name in ("offset", "scale", "log"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scaler, name))
    assert found.of(names[:1]).clipped == scaler.clipped[:1]


@given(
    arrays(np.float64, (5, 2), elements=st.floats(-100, 100)),
    st.lists(st.integers(0, 4), min_size=1, max_size=9),
    st.booleans(),
)
def test_unscaling_undoes_scaling(offset: np.ndarray[Any, Any], series: list[int], log: bool) -> None:
    scaler = Scaler(("a", "b"), offset, np.full((5, 2), 2.0), np.array([log, False]))
    values = np.random.default_rng(0).uniform(0, 5, (len(series), 3, 2))
    inner = np.where(scaler.log, np.log1p(values), values)
    scaled = torch.from_numpy((inner - offset[series][:, None]) / 2).float()
    found = Unscaler(scaler).to_source(scaled, torch.tensor(series))
    np.testing.assert_allclose(found.numpy(), values, rtol=1e-3, atol=1e-3)


def test_irregular_times_are_read_once_for_the_training_rows_of_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [["a", n * n + n, n] for n in range(200)]
    source = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(source, tmp_path / "s.zarr", id="id", time="t", **SMALL_GRID)
    store, n_read, read = open_store(tmp_path / "s.zarr"), [0], Store.times

    def counted(self: Store, start: int, stop: int) -> Any:
        n_read[0] += stop - start
        return read(self, start, stop)

    monkeypatch.setattr(Store, "times", counted)
    values = np.concatenate([part for _, _, part in training_parts(Training(store, SPLIT), "v")])
    assert store.time.rule.kind == "irregular"
    assert values.tolist() == list(range(len(values)))
    assert 0 < n_read[0] <= 2 * store.n_rows  # the first row of the split, and the one behind it
