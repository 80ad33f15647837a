"""Quantiles and intervals of forecasts that are kept: beside each value, and scored when the truth is in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xarray as xr
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.forecast_files import schema_of, write_kept
from lightning_app.kept import read_forecasts
from lightning_app.kept_scores import measures, scored
from lightning_app.quantile_errors import QuantileErrors
from zstore import StoreError, append, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

App = Callable[..., Any]
CONFIG = """
data:
  {store: s.zarr, lookback: 3, horizon: 2, targets: [v], batch_size: 16, split: {sizes: [0.4, 0.4, 0.2]}}
model:
  class_path: LSTM
  init_args: {hidden: 2, task: {class_path: ProbabilisticForecast, init_args: {levels: [0.1, 0.5, 0.9]}}}
trainer: {max_epochs: 1, accelerator: cpu, logger: false}
intervals: {levels: [0.8]}
"""
PLAIN = CONFIG[: CONFIG.index("intervals")].replace("{levels: [0.1, 0.5, 0.9]}", "{levels: [0.5]}")


@settings(max_examples=few(40), deadline=None)
@given(st.integers(0, 999), st.lists(st.sampled_from([0.025, 0.1, 0.5, 0.9, 0.975]), min_size=1, unique=True))
def test_scores_of_kept_quantiles_are_those_that_a_test_measures(seed: int, levels: list[float]) -> None:
    levels, random = sorted(levels), np.random.default_rng(seed)
    truth, quantiles = random.normal(size=30), np.sort(random.normal(size=(30, len(levels))), axis=-1)
    beside = {f"q{level:g}": quantiles[:, n] for n, level in enumerate(levels)}
    metric = QuantileErrors(1, 1, levels)
    shaped = torch.from_numpy(quantiles)[:, None, None], torch.from_numpy(truth)[:, None, None]
    metric.update(*shaped, torch.ones(30, 1, 1, dtype=torch.bool))
    found = scored(measures(truth * 0, truth, beside))
    for name, value in metric.compute()["all"].items():
        assert found[name] == pytest.approx(float(value)), name
    assert found["n_quantiles"] == found["n"] == 30


def test_values_without_quantiles_or_intervals_count_in_no_score_of_these() -> None:
    nan = np.nan
    beside = {
        "q0.1": np.array([0.0, nan, nan]),
        "q0.9": np.array([2.0, nan, nan]),
        "lower80": np.array([nan, 4.0, nan]),
        "upper80": np.array([nan, 5.0, nan]),
    }
    each = measures(np.array([1.0, -1.0, 3.0]), np.array([1.0, 6.0, 0.0]), beside)
    found = scored(each)
    assert found == {
        "n": 3, "mae": 5 / 3, "rmse": pytest.approx((11 / 3) ** 0.5), "bias": 1.0,
        "pinball": pytest.approx(0.1), "crps": pytest.approx(0.2), "coverage_80": 1.0, "width_80": 2.0,
        "interval_coverage_80": 0.0, "interval_width_80": 1.0, "n_quantiles": 1, "n_intervals": 1,
    }  # fmt: skip
    last = scored(each, np.array([False, False, True]))
    assert (last["n"], last["mae"], last["crps"], last["interval_width_80"], last["n_intervals"]) == (
        1,
        3,
        None,
        None,
        0,
    )


def rows(folder: Path, days: int) -> None:
    """Two series of noise, which go on with the same values however long they are."""
    table = [
        [id_, str(day.date()), round(float(np.random.default_rng(n + 1000 * len(id_)).normal(5, 1)), 3)]
        for id_ in ("a", "bb")
        for n, day in enumerate(pd.date_range("2024-01-01", periods=days))
    ]
    path = write_table(folder / f"{days}.csv", ["id", "t", "v"], table)
    if (folder / "s.zarr").exists():
        append(path, folder / "s.zarr", on_duplicate="update")
    else:
        ingest(path, folder / "s.zarr", id="id", time="t")


def test_forecasts_are_kept_with_quantiles_and_intervals_and_scored_when_the_truth_is_in(
    app: App, tmp_path: Path
) -> None:
    rows(tmp_path, 100)
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "p.yaml").write_text(PLAIN)
    app("fit", "--config", "c.yaml", check=True)
    future = ("--data.predict_on", "future")
    app("predict", "--config", "c.yaml", *future, check=True)
    folder = tmp_path / "runs/c/forecasts"
    kept = pd.read_parquet(folder / "2024-04-09.parquet")
    names = ["lower80", "q0.1", "q0.5", "q0.9", "upper80"]
    assert list(kept.columns) == ["id", "origin", "time", "step", "target", "forecast", *names]
    written = xr.open_zarr(tmp_path / "runs/c/predictions.zarr").load()
    for name, values in (("lower80", written.v_lower[..., 0]), ("q0.9", written.v_quantile[..., 2])):
        np.testing.assert_array_equal(kept[name], values.to_numpy().ravel())
    rows(tmp_path, 101)
    app("predict", "--config", "c.yaml", *future, check=True)
    rows(tmp_path, 102)
    words = ("--config", "p.yaml", "--trainer.default_root_dir", "runs/p")
    app("fit", *words, check=True)  # weights without intervals make the last forecasts
    app("predict", *words, *future, check=True)
    (tmp_path / "runs/p/forecasts/2024-04-11.parquet").replace(folder / "2024-04-11.parquet")
    rows(tmp_path, 110)
    app("evaluate", "runs/c", check=True)
    every = pd.concat(pd.read_parquet(path) for path in sorted(folder.iterdir()))
    assert len(every) == 12
    store = open_store(tmp_path / "s.zarr")
    values = {id_: store.series(id_).read("v") for id_ in ("a", "bb")}
    days = (every.time - pd.Timestamp("2024-01-01")).dt.days
    truth = np.array([values[id_][day] for id_, day in zip(every.id, days, strict=True)], np.float64)
    found = json.loads((tmp_path / "runs/c/evaluation.json").read_text())["targets"]["v"]
    sure = every["lower80"].notna().to_numpy()
    assert (found["all"]["n"], found["all"]["n_quantiles"], found["all"]["n_intervals"]) == (12, 12, 8)
    inside = ((every.lower80 <= truth) & (truth <= every.upper80))[sure]
    assert found["all"]["interval_coverage_80"] == pytest.approx(inside.mean())
    width = (every.upper80 - every.lower80)[sure]
    assert found["all"]["interval_width_80"] == pytest.approx(width.mean())
    for row in found["by_step"]:
        at = every.step[sure] == row["name"]
        assert row["interval_coverage_80"] == pytest.approx(inside[at].mean())
        assert row["coverage_80"] is not None
    assert {"2024-04-08", "2024-04-15"} >= {row["name"] for row in found["by_week"]}
    page = (tmp_path / "runs/c/evaluation.md").read_text()
    assert "| step | n | MAE | RMSE | bias | CRPS | coverage 80 | width 80 | interval coverage 80 |" in page
    assert "Of the 12 values, 12 quantiles and 8 intervals were forecast" in page


def test_forecasts_of_an_origin_that_other_weights_made_keep_their_own_columns(app: App, tmp_path: Path) -> None:
    """A series that is forecast later from the same origin replaces its own rows only."""
    rows(tmp_path, 100)
    (tmp_path / "c.yaml").write_text(CONFIG)
    app("run", "--config", "c.yaml", "--data.predict_on", "future", check=True)
    path = tmp_path / "runs/c/forecasts/2024-04-09.parquet"
    before = pd.read_parquet(path)
    off, only = ("--intervals.levels", "null"), ("--data.series.ids", "[bb]")
    app("predict", "--config", "c.yaml", "--data.predict_on", "future", *off, *only, check=True)
    after = pd.read_parquet(path)
    pd.testing.assert_frame_equal(after[after.id == "a"], before[before.id == "a"])
    assert after[after.id == "bb"].lower80.isna().all()
    app("predict", "--config", "c.yaml", "--data.predict_on", "future", *off, check=True)
    assert list(pd.read_parquet(path).columns) == [*before.columns[:6], "q0.1", "q0.5", "q0.9"]


def test_a_file_with_columns_that_no_forecast_has_is_refused(app: App, tmp_path: Path) -> None:
    rows(tmp_path, 100)
    (tmp_path / "c.yaml").write_text(CONFIG)
    app("run", "--config", "c.yaml", "--data.predict_on", "future", check=True)
    path = tmp_path / "runs/c/forecasts/2024-04-09.parquet"
    pd.read_parquet(path).rename(columns={"q0.1": "q_low"}).to_parquet(path, index=False)
    done = app("evaluate", "runs/c")
    assert (done.returncode, "forecasts with the columns id" in done.stderr) == (1, True)


def kept_file(folder: Path) -> tuple[Path, Any]:
    """A file with quantiles and intervals of ten forecasts, and the store that they are of."""
    rows = [[id_, f"2024-01-{day:02}", day] for id_ in "abcde" for day in range(1, 29)]
    ingest(write_table(folder / "s.csv", ["id", "t", "v"], rows), folder / "s.zarr", id="id", time="t")
    random, unit = np.random.default_rng(0), "datetime64[s]"
    table: dict[str, Any] = {
        "id": np.repeat(list("abcde"), 2),
        "origin": np.full(10, "2024-01-20").astype(unit),
        "time": np.tile(["2024-01-21", "2024-01-22"], 5).astype(unit),
        "step": np.tile([1, 2], 5),
        "target": np.full(10, "v"),
        **{name: random.normal(size=10) for name in ("forecast", "q0.1", "q0.9", "lower80", "upper80")},
    }
    store = open_store(folder / "s.zarr")
    path = folder / "forecasts" / "2024-01-20.parquet"
    path.parent.mkdir()
    beside = ("q0.1", "q0.9", "lower80", "upper80")
    write_kept(path, pa.table(table).cast(schema_of(store, beside)), {store.schema.uuid})
    return path, store


def test_no_bit_of_a_kept_file_changes_a_forecast_without_a_word(tmp_path: Path) -> None:
    path, store = kept_file(tmp_path)
    whole, content = read_forecasts(path.parent, store), path.read_bytes()
    random, n_refused = np.random.default_rng(0), 0
    for place in random.integers(0, len(content), 600).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_forecasts(path.parent, store)
        except StoreError as error:
            n_refused += str(path) in str(error)
            continue
        for name, values in vars(whole).items():
            np.testing.assert_equal(getattr(found, name), values)
    assert n_refused > 300


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", [None] * 10),
        ("time", [None] * 10),
        ("forecast", [np.inf] * 10),
        ("step", ["x"] * 10),
        ("q0.10", [1.0] * 10),
        ("q7", [1.0] * 10),
        ("q1..2", [1.0] * 10),
        ("lower50", [1.0] * 10),
        ("q0.5", ["x"] * 10),
    ],
)
def test_what_predict_would_not_have_written_is_refused(column: str, values: list[Any], tmp_path: Path) -> None:
    path, store = kept_file(tmp_path)
    table = pq.read_table(path, partitioning=None)
    if column in table.column_names:
        place = table.column_names.index(column)
        kind = table.schema.field(column).type if values[0] is None else None
        table = table.set_column(place, column, pa.array(values, kind))
    else:
        table = table.append_column(column, pa.array(values))
    pq.write_table(table, path)
    with pytest.raises(StoreError, match=r"forecasts .*2024-01-20\.parquet"):
        read_forecasts(path.parent, store)


def test_files_of_before_and_times_of_another_unit_are_read(tmp_path: Path) -> None:
    path, store = kept_file(tmp_path)
    whole, table = read_forecasts(path.parent, store), pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(2, "time", table["time"].cast(pa.timestamp("ns"))), path)
    np.testing.assert_array_equal(read_forecasts(path.parent, store).time, whole.time)
    pq.write_table(table.replace_schema_metadata(), path)
    np.testing.assert_array_equal(read_forecasts(path.parent, store).forecast, whole.forecast)
