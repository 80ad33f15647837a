"""What the data module makes of months, quarters, years, weekdays, weeks and rows, against pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL_GRID, write_table

from lightning_app.data.columns.calendar import time_cycles, time_index
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.spans import Spans
from lightning_app.data.windows.splits import Split
from lightning_app.predictions import target_times
from zstore import Store, UsageError, ingest, open_store

N_ROWS = (60, 72, 66)
LOOKBACK, HORIZON = 12, 3
RULES = {
    "MS": "MS",
    "2MS": "2MS",
    "ME": "ME",
    "QS": "QS",
    "QE": "QE",
    "YS": "YS",
    "YE": "YE",
    "YE-JUN": "YE-JUN",
    "B": "B",
    "W-WED": "7D",
    "15min": "15min",
}


def dates_of(rule: str, n_rows: int, later: int = 0) -> pd.DatetimeIndex:
    offset = pd.tseries.frequencies.to_offset(rule)
    start = pd.Timestamp("1950-01-03") if rule in ("B", "W-WED", "15min") else pd.Timestamp("1950-01-01")
    first = offset.rollforward(start)
    return pd.date_range(first + later * offset if later else first, periods=n_rows, freq=offset)


def store_of(
    tmp_path: Path, rule: str, freq: str | None = None, n_rows: tuple[int, ...] = N_ROWS, **options: Any
) -> Store:
    rows = [
        (f"s{series}", str(time), series * 100 + number)
        for series, count in enumerate(n_rows)
        for number, time in enumerate(dates_of(rule, count, later=series))
    ]
    source = write_table(tmp_path / "table.csv", ["id", "time", "x"], rows)
    ingest(source, tmp_path / "table.zarr", id="id", time="time", freq=freq, **options)
    return open_store(tmp_path / "table.zarr")


def module(store: Store, tmp_path: Path, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": LOOKBACK, "horizon": HORIZON, "batch_size": 16, "scaler": "none", **options}
    return WindowDataModule(str(store.path), cache=str(tmp_path / "cache"), **given)


def all_batches(data: WindowDataModule, name: str = "test") -> dict[str, torch.Tensor]:
    data.setup({"train": "fit", "val": "validate", "test": "test"}[name])
    batches = list(getattr(data, f"{name}_dataloader")())
    return {key: torch.cat([batch[key].clone() for batch in batches]) for key in batches[0]}


def whole_split() -> Split:
    """Everything is tested but the first of the rows."""
    return Split(sizes=(0.2, 0.1, 0.7), over="series")


@pytest.mark.parametrize("rule", RULES)
def test_windows_of_a_rule_are_counted_by_rows_and_dated_as_pandas_does(tmp_path: Path, rule: str) -> None:
    store = store_of(tmp_path, rule)
    data = module(store, tmp_path, split=Split(sizes=(0.34, 0.33, 0.33), over="series"), time_features=["day_of_year"])
    batch = all_batches(data)
    per_series = [count - int(np.floor(round(count * 0.67, 6))) for count in N_ROWS]
    n_windows = sum(max(0, n - HORIZON + 1) for n in per_series)
    assert abs(len(batch["x"]) - n_windows) <= len(N_ROWS)  # a border falls between two rows
    dates = [dates_of(rule, count, later=series) for series, count in enumerate(N_ROWS)]
    unit = store.schema.time.unit
    for number in range(len(batch["x"])):
        series = int(batch["series"][number])
        row = int(batch["y"][number, 0, 0]) - series * 100
        assert int(batch["time"][number]) == dates[series][row].to_numpy().astype(f"datetime64[{unit}]").astype(int)
        assert batch["y"][number, :, 0].tolist() == [series * 100 + row + n for n in range(HORIZON)]
        assert batch["x"][number, :, 0].tolist() == [series * 100 + row - LOOKBACK + n for n in range(LOOKBACK)]
        times = torch.from_numpy(
            dates[series][row - LOOKBACK : row].to_numpy().astype(f"datetime64[{unit}]").view("i8")
        )
        expected = time_cycles(times, "day_of_year", str(unit))
        torch.testing.assert_close(batch["x"][number, :, 1:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", RULES)
def test_predictions_of_a_rule_have_its_dates(tmp_path: Path, rule: str) -> None:
    store = store_of(tmp_path, rule)
    data = module(store, tmp_path, split=whole_split())
    data.setup("test")
    loader = data.test_dataloader()
    samples = np.arange(len(loader.index))
    first, series, _ = loader.index.locate(samples)
    row = first + LOOKBACK - store.index.row_start[series]
    unit = store.schema.time.unit
    dates = [dates_of(rule, count, later=n).to_numpy().astype(f"datetime64[{unit}]") for n, count in enumerate(N_ROWS)]
    expected = np.stack([dates[s][r : r + HORIZON].astype(np.int64) for s, r in zip(series, row, strict=True)])
    assert np.array_equal(expected, target_times(store, loader.index, samples))


@pytest.mark.parametrize("rule", ["MS", "QE", "YE-JUN", "B", "W-WED"])
def test_a_panel_of_a_rule_has_every_row_at_its_step(tmp_path: Path, rule: str) -> None:
    store = store_of(tmp_path, rule, n_rows=(60, 60, 60))
    data = module(store, tmp_path, split=Split(sizes=(0.3, 0.2, 0.5)), panel=Panel())
    batch = all_batches(data)
    dates = dates_of(rule, 62).to_numpy().astype(f"datetime64[{store.schema.time.unit}]").astype(np.int64)
    step = np.searchsorted(dates, batch["time"].numpy())
    assert np.array_equal(dates[step], batch["time"].numpy())
    for series in range(3):  # each begins one step later
        expected = torch.from_numpy(series * 100 + step[:, None] + np.arange(HORIZON) - series).float()
        there = batch["mask"][:, :, series, 0]
        assert torch.equal(batch["y"][:, :, series, 0][there], expected[there])
        assert bool(there[: -HORIZON - 2].all())


@pytest.mark.parametrize("rule", ["MS", "B"])
def test_a_stream_of_months_or_weekdays_has_the_batches_that_memory_has(tmp_path: Path, rule: str) -> None:
    store = store_of(tmp_path, rule, **SMALL_GRID)
    options: dict[str, Any] = {"split": whole_split(), "time_features": ["month_of_year", "day_of_week"]}
    for encoding in ("cyclic", "index"):
        host, stream = (
            all_batches(module(store, tmp_path, residency=where, time_encoding=encoding, **options, **budget))
            for where, budget in (("host", {}), ("stream", {"memory_budget": "2kB"}))
        )
        assert host.keys() == stream.keys()
        assert all(torch.equal(host[name], stream[name]) for name in host)


@pytest.mark.parametrize("rule", ["MS", "QS", "B", "YE-JUN"])
def test_a_split_by_whole_steps_ends_at_the_step_that_pandas_says(tmp_path: Path, rule: str) -> None:
    store = store_of(tmp_path, rule)
    split = Split(sizes=(30, 10, 15), over="series", embargo=2)
    data = module(store, tmp_path, split=split, lookback=2, horizon=1)
    counts = {name: len(all_batches(data, name)["y"]) for name in ("val", "test")}
    assert counts == {"val": (10 - 2) * 3, "test": (15 - 2) * 3}


def test_a_split_by_dates_cuts_months_at_the_first_one_that_is_not_before(tmp_path: Path) -> None:
    store = store_of(tmp_path, "MS")
    split = Split(dates=("1950-01-01", "1952-01-15", "1953-01-01", "1954-01-02"))
    data = module(store, tmp_path, split=split, lookback=2, horizon=1)
    times = all_batches(data, "val")["time"]
    shown = sorted({store.schema.time.show(int(time)) for time in times})
    assert (shown[0], shown[-1]) == ("1952-02-01", "1952-12-01")
    times = all_batches(data, "test")["time"]
    assert store.schema.time.show(int(times.max())) == "1954-01-01"


def test_rows_can_be_the_steps_of_a_split_by_series(tmp_path: Path) -> None:
    store = store_of(tmp_path, "MS", freq="rows")
    data = module(store, tmp_path, split=Split(sizes=(30, 10, 15), over="series"), lookback=2, horizon=1)
    assert {name: len(all_batches(data, name)["y"]) for name in ("val", "test")} == {"val": 30, "test": 45}


def test_steps_of_irregular_times_are_refused_still(tmp_path: Path) -> None:
    rows = [("a", f"2001-01-{day:02d}", day) for day in (1, 2, 4, 8, 9, 15, 25, 31)]
    source = write_table(tmp_path / "table.csv", ["id", "time", "x"], rows)
    ingest(source, tmp_path / "table.zarr", id="id", time="time")
    data = module(open_store(tmp_path / "table.zarr"), tmp_path, split=Split(sizes=(3, 2, 2)), lookback=1, horizon=1)
    with pytest.raises(UsageError, match="times are irregular"):
        data.train_dataloader()


def test_months_of_the_year_are_those_of_pandas() -> None:
    dates = pd.date_range("1896-01-01", "1908-12-31", freq="D").append(pd.date_range("1999-12-01", "2001-03-02"))
    times = torch.from_numpy(dates.to_numpy().astype("datetime64[s]").astype(np.int64))
    assert (dates.month - 1).tolist() == time_index(times, "month_of_year", "s").tolist()
    cycles = time_cycles(times, "month_of_year", "s")
    angle = (dates.month - 1).to_numpy() * 2 * np.pi / 12
    np.testing.assert_allclose(np.stack([np.sin(angle), np.cos(angle)], axis=1), cycles.numpy(), atol=1e-6)


def test_the_step_of_a_checkpoint_is_that_of_its_rule(tmp_path: Path) -> None:
    stores = {}
    for name, rule in {"months": "MS", "ends": "ME", "weekdays": "B"}.items():
        (tmp_path / name).mkdir()
        stores[name] = store_of(tmp_path / name, rule)
    meaning = module(stores["months"], tmp_path, split=whole_split()).meaning
    meaning.require_time(stores["ends"])
    with pytest.raises(UsageError, match="trained on steps of 1 months of dates"):
        meaning.require_time(stores["weekdays"])


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_a_panel_of_rows_has_the_times_of_its_steps_in_batches_predictions_and_spans(
    tmp_path: Path, residency: str
) -> None:
    days = [day for day in pd.date_range("2001-01-01", periods=60, freq="B") if day.day % 7]
    rows = [(id_, str(day), n) for id_, first in (("a", 0), ("b", 3)) for n, day in enumerate(days) if n >= first]
    source = write_table(tmp_path / "table.csv", ["id", "time", "x"], rows)
    ingest(source, tmp_path / "table.zarr", id="id", time="time", freq="rows", **SMALL_GRID)
    store = open_store(tmp_path / "table.zarr")
    budget = {"memory_budget": "4kB"} if residency == "stream" else {}
    options: dict[str, Any] = {"time_features": ["day_of_year", "day_of_week"], "time_encoding": "index", **budget}
    data = module(
        store, tmp_path, split=Split(sizes=(0.3, 0.2, 0.5)), panel=Panel(ids=["b"]), residency=residency, **options
    )
    batch = all_batches(data)
    known = pd.DatetimeIndex(days)
    step = batch["y"][:, :, 0, 0].long().numpy()  # a row is its own number
    seconds = known.to_numpy().astype("datetime64[s]").astype(np.int64)
    assert seconds[step[:, 0]].tolist() == batch["time"].tolist()
    assert (known.day_of_year.to_numpy() - 1)[step].tolist() == batch["y_time"][..., 0].tolist()
    assert known.day_of_week.to_numpy()[step].tolist() == batch["y_time"][..., 1].tolist()
    index = data.test_dataloader().index
    assert seconds[step].tolist() == target_times(data.view.timed, index, np.arange(len(index))).tolist()
    spans = Spans.of(data.view.timed, index)
    assert (seconds[step.min()], seconds[step.max()]) == (spans.first.min(), spans.last.max())


def test_an_embargo_of_steps_is_refused_where_the_store_has_none(tmp_path: Path) -> None:
    store = store_of(tmp_path, "MS", freq="rows")
    dates = ("1950-01-01", "1952-01-15", "1953-01-01", "1954-01-02")
    data = module(store, tmp_path, split=Split(dates=dates, embargo=2), lookback=2, horizon=1)
    with pytest.raises(UsageError, match=r"embargo of 2 steps; expected 0, or --data\.split\.over series"):
        data.train_dataloader()
    data = module(store, tmp_path, split=Split(over="series", embargo=2), lookback=2, horizon=1)
    assert len(all_batches(data, "val")["y"]) == sum(n - int(0.7 * n) - int(0.2 * n) - 2 for n in N_ROWS)
