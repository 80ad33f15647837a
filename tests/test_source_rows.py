"""Row files hold source units: splits and scalers share them, and batches are scaled as float64 would scale them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.scaling.rowscaling import RowScaling, applied
from lightning_app.data.scaling.scaler import ScaledBy, Scaler, ScalerKind
from lightning_app.data.scaling.unscaler import Unscaler
from lightning_app.data.windows.splits import Split
from zstore import PanelGrid, Scaling, Store, ingest, open_panel, open_rows, open_store

KINDS: tuple[ScalerKind, ...] = ("standard", "minmax", "minmax_signed", "quantile", "robust", "log1p", "none")


def files(cache: Path) -> dict[str, tuple[int, int]]:
    """Row files of a cache: size and time of the last change."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in cache.glob("*.f4")}


def make(folder: Path, columns: dict[str, np.ndarray[Any, Any]], n_series: int = 3, **options: Any) -> Store:
    """Series of equal length, whose values follow each other; NaN is an empty cell."""
    names, values = list(columns), np.stack(list(columns.values()), axis=1).tolist()
    n_rows = len(values) // n_series
    cells = [["" if np.isnan(value) else repr(value) for value in row] for row in values]
    rows = [[f"s{n // n_rows}", n % n_rows, *row] for n, row in enumerate(cells)]
    ingest(write_table(folder / "t.csv", ["id", "t", *names], rows), folder / "t.zarr", id="id", time="t", **options)
    return open_store(folder / "t.zarr")


def module(store: Store, cache: Path, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": 5, "horizon": 2, "batch_size": 7, "residency": "host", **options}
    return WindowDataModule(store.path, cache=str(cache), **given)


@pytest.mark.parametrize("panel", [False, True])
def test_another_split_fold_or_scaler_writes_no_rows(hourly: Store, tmp_path: Path, panel: bool) -> None:
    options: dict[str, Any] = {"panel": Panel()} if panel else {}
    next(iter(module(hourly, tmp_path, **options).train_dataloader()))
    built = files(tmp_path)
    splits = [Split(sizes=(0.5, 0.2, 0.3)), Split(sizes=(0.3, 0.3, 0.4))]
    splits += [] if panel else [Split(over="series")]
    for split in splits:
        next(iter(module(hourly, tmp_path, split=split, **options).train_dataloader()))
    by: ScaledBy
    for by in ("channel", "series"):
        for kind in ("standard", "minmax", "robust", "none"):
            next(iter(module(hourly, tmp_path, scaler=kind, scale_by=by, **options).train_dataloader()))
    assert len(built) == 1
    assert files(tmp_path) == built


def test_windows_of_a_store_and_training_share_one_row_file(catchments: Store, tmp_path: Path) -> None:
    names = catchments.channels
    windows = catchments.windows(5, 2, channels=names, cache=tmp_path)
    built = files(tmp_path)
    data = module(catchments, tmp_path, channels=list(names), scaler="none")
    loader = data.val_dataloader()
    batch = next(iter(loader))
    rows = loader.index.locate(np.arange(7))[0]
    samples = np.array([np.flatnonzero(windows.index.locate(np.arange(len(windows)))[0] == row)[0] for row in rows])
    assert files(tmp_path) == built
    np.testing.assert_array_equal(batch["x"].numpy(), np.nan_to_num(windows.batch(samples)["x"]))


@settings(max_examples=15)
@given(
    level=st.sampled_from([0.0, 0.3, 12.0, 1e3]),
    spread=st.sampled_from([0.5, 3.0, 40.0]),
    decimals=st.sampled_from([0, 2, 12]),
    kind=st.sampled_from(KINDS),
    by=st.sampled_from(["channel", "series"]),
    seed=st.integers(0, 99),
)
def test_batches_of_every_residency_are_those_of_float64_arithmetic(
    tmp_path_factory: pytest.TempPathFactory,
    level: float,
    spread: float,
    decimals: int,
    kind: ScalerKind,
    by: ScaledBy,
    seed: int,
) -> None:
    folder, random = tmp_path_factory.mktemp("residencies"), np.random.default_rng(seed)
    plain, other = (np.abs(random.normal(level, spread, 90)).round(decimals) for _ in range(2))
    other[random.integers(0, 90, 9)] = np.nan
    store = make(folder, {"plain": plain, "other": other})
    batches = []
    for residency in ("host", "device", "stream"):
        data = module(store, folder / "cache", scaler=kind, scale_by=by, residency=residency, memory_budget="1MB")
        batches.append(list(data.val_dataloader()))
    for batch, *others in zip(*batches, strict=True):
        assert all(torch.equal(batch[key], each[key]) for each in others for key in ("x", "y", "mask"))
    scaler, index = data.scaler, data.index("val")
    source = np.stack([store.read(name, 0, 90).astype(np.float64) for name in ("plain", "other")], axis=1)
    inner = np.log1p(source) if kind == "log1p" else source
    series = np.arange(90) // 30
    offset, scale = (part[series] if part.ndim == 2 else part for part in (scaler.offset, scaler.scale))
    expected = (inner - offset) / scale
    bound = 1.0 if kind == "quantile" else np.inf
    first = index.locate(np.arange(len(index)))[0]
    error = 2.0**-24 * (4 * np.abs(np.nan_to_num(expected)) + 4 * np.minimum(np.abs(offset / scale), 2048) + 1)
    found = torch.cat([batch["x"] for batch in batches[0]]).numpy()
    for window, row in zip(found, first.tolist(), strict=True):
        difference = np.abs(window - np.clip(np.nan_to_num(expected[row : row + 5]), -bound, bound))
        assert (difference <= error[row : row + 5]).all()


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_rows_that_float32_cannot_hold_in_source_units_are_scaled_in_a_file_of_their_own(
    tmp_path: Path, residency: str
) -> None:
    values = 1e9 + np.random.default_rng(0).normal(0, 3, 90)
    store = make(tmp_path, {"a": values}, dtype="float64")
    data = module(store, tmp_path / "cache", residency=residency, memory_budget="1MB")
    found = torch.cat([batch["x"] for batch in data.val_dataloader()]).numpy()[..., 0]
    index, expected = data.index("val"), (values - data.scaler.offset) / data.scaler.scale
    first = index.locate(np.arange(len(index)))[0]
    np.testing.assert_allclose(found, expected[first[:, None] + np.arange(5)], rtol=2.0**-23, atol=2.0**-23)


def test_float32_suffices_where_offsets_are_few_scales_or_values_are_exact(tmp_path: Path) -> None:
    base = np.arange(90) % 7
    columns = {"whole": 1e6 + base, "tenths": 1e5 + base / 10, "near": 20 + base / 10, "huge": 1e30 * (1 + base)}
    store = make(tmp_path, columns)

    def suffices(name: str, offset: float, scale: float, log: bool = False) -> bool:
        scaling = Scaling(np.array([offset]), np.array([scale]), np.array([log]))
        return store.float32_suffices([name], scaling)

    assert suffices("whole", 1e6, 2.0)
    assert suffices("near", 20.0, 0.2)
    assert suffices("near", 3.0, 0.2, log=True)
    assert not suffices("tenths", 1e5, 0.2)
    assert not suffices("whole", 13.0, 1e-6, log=True)
    assert not suffices("huge", 1e30, 2e30)
    assert not suffices("near", 20.0, 1e-35)
    assert "moments" not in vars(store)  # six numbers for each of maybe ten million series


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Channels whose series differ: in size, by infinite values, by missing ones, and by values close to -1."""
    base = np.arange(90) % 7 + 10.0 ** (np.arange(90) // 30)
    infinite = np.where(np.arange(90) == 50, np.inf, base)
    columns = {"sizes": base / 10, "infinite": infinite, "part": np.where(base < 50, base, np.nan)}
    return make(tmp_path_factory.mktemp("varied"), {**columns, "near": base / 1000 - 1}, dtype="float64")


@given(
    st.sampled_from(["sizes", "infinite", "part", "near"]),
    st.sampled_from([0.0, 0.3, 60.0, 1e3, 1e32]),
    st.sampled_from([1e-35, 1e-6, 0.2, 1.0, 1e3]),
    st.booleans(),
)
def test_float32_suffices_for_one_scaling_of_all_series_where_it_does_for_the_same_of_each(
    varied: Store, name: str, offset: float, scale: float, log: bool
) -> None:
    one = Scaling(np.array([offset]), np.array([scale]), np.array([log]))
    each = Scaling(np.full((3, 1), offset), np.full((3, 1), scale), np.array([log]))
    assert varied.float32_suffices([name], one) == varied.float32_suffices([name], each)


@settings(max_examples=few(40))
@given(
    width=st.integers(1, 9),
    length=st.integers(1, 300),
    by_series=st.booleans(),
    steep=st.booleans(),
    log=st.booleans(),
    fills=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_value_is_scaled_to_the_same_bits_in_whatever_block(
    width: int, length: int, by_series: bool, steep: bool, log: bool, fills: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    shape = (4, width) if by_series else (width,)
    offset = random.normal(50 if steep else 1, 1, shape)
    logs = random.random(width) < 0.5 if log else np.zeros(width, bool)
    scaler = Scaler(tuple(map(str, range(width))), offset, random.uniform(0.5, 3, shape), logs)
    scaling, series = RowScaling.of(scaler, fills), torch.from_numpy(random.integers(0, 4, 3))
    values = torch.from_numpy(random.uniform(0, 60, (3, length, width)).astype(np.float32))
    values[0, 0, 0] = np.nan
    together, rows = values.clone(), values.clone()
    scaling.scale_windows(together, series)
    for window, position in zip(rows, series, strict=True):
        scaling.scale_rows(window, position.expand(length))
    torch.testing.assert_close(rows, together, rtol=0, atol=0, equal_nan=True)
    assert bool(torch.isnan(together).any()) == (not fills)


@settings(max_examples=few(40))
@given(
    n_scales=st.sampled_from([0.0, 3.0, 7.9, 60.0, 200.0, 1000.0]),
    log_offset=st.sampled_from([0.7, 4.6, 13.0]),
    by_series=st.booleans(),
    nodes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_float32_value_loses_no_digit_by_its_scaling_however_many_scales_the_offset_is(
    n_scales: float, log_offset: float, by_series: bool, nodes: bool, seed: int
) -> None:
    random, logs = np.random.default_rng(seed), np.array([True, False, False, True])
    shape = (3, 4) if by_series else (4,)
    scale = log_offset / np.array([n_scales or 1, n_scales or 1, 2, 2]) * random.uniform(1, 1.01, shape)
    offset = np.where(logs, log_offset, log_offset * (n_scales > 0)) * random.uniform(1, 1.001, shape)
    offset[..., 0] *= n_scales > 0
    scaler = Scaler(("steep log", "steep", "level", "log"), offset, scale, logs)
    inner = offset + scale * random.normal(0, 2, (200, 3, 4))
    inner[:3] = np.array([-5.0, 0.0, 20.0])[:, None, None]  # far from all others
    values = np.where(logs, np.expm1(np.minimum(inner, 80)), inner).astype(np.float32)  # (row, series, column)
    values[..., logs] = np.maximum(values[..., logs], np.float32(-0.999))
    taken = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is no logarithm
        expected = (np.where(logs, np.log1p(taken), taken) - offset) / scale
    scaled = torch.from_numpy(values.copy())
    if nodes:
        RowScaling.of(scaler, False, np.arange(3)).scale_rows(scaled.view(200, 12))
    else:
        RowScaling.of(scaler, False).scale_rows(scaled.view(600, 4), torch.arange(3).repeat(200))
    error = 2.0**-24 * (6 * np.abs(expected) + 4 * np.minimum(np.abs(offset / scale), 8) + 1)
    assert (np.abs(scaled.numpy() - expected) <= error).all()
    back = Unscaler(applied(scaler)).to_source(scaled.movedim(1, 0), torch.arange(3)).movedim(0, 1).numpy()
    slope = scale * np.where(logs, 1 + taken, 1) * 1.001
    zero = 2.0**-23 * np.abs(expected * scale) * np.where(logs, 1 + taken, 1)  # what counts as 0
    assert (np.abs(back - taken) <= error * slope + zero + 1e-12 * np.abs(taken)).all()


def test_panels_with_and_without_filled_values_differ_only_where_they_are_missing(
    catchments: Store, tmp_path: Path
) -> None:
    names, scaling = catchments.channels, Scaling.identity(len(catchments.channels))
    grid = PanelGrid.of(catchments)
    filled, blank = (open_panel(catchments, grid, names, scaling, tmp_path, fill=fill).rows() for fill in (True, False))
    assert filled.observed is not None
    assert blank.observed is not None
    np.testing.assert_array_equal(blank.observed, ~np.isnan(blank.values))
    np.testing.assert_array_equal(filled.observed, blank.observed)
    np.testing.assert_array_equal(filled.values, np.nan_to_num(blank.values))
    rows = open_rows(catchments, names, scaling, tmp_path, fill=False)
    assert rows.observed is not None
    np.testing.assert_array_equal(rows.observed, ~np.isnan(rows.values))
