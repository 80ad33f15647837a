"""Runs and splits in the viewer: what is shown is what predict wrote, and what the data module cuts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray
import yaml
from conftest import write_table
from test_view import asking

import zstore
from lightning_app.audit import audit, module_of
from lightning_app.view.folders import run_folders
from lightning_app.view.predicted import Predictions
from zstore import Store, UsageError
from zstore.view.app import make_app
from zstore.view.server import panels_of
from zstore.view.session import Session

pytestmark = pytest.mark.filterwarnings("default")

TASKS: dict[str, Any] = {
    "plain": None,
    "sure": {"class_path": "ProbabilisticForecast", "init_args": {"units": "source"}},
}


def config(store: Path, name: str, **data: Any) -> dict[str, Any]:
    task = {"task": TASKS[name]} if TASKS.get(name) else {}
    return {
        "data": {
            "store": str(store), "lookback": 8, "horizon": 3, "channels": ["v", "w"], "targets": ["v"],
            "batch_size": 32, "split": {"sizes": [0.5, 0.2, 0.3]}, "cache": str(store.parent / "cache"), **data,
        },
        "model": {"class_path": "LSTM", "init_args": {"hidden": 4, **task}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "trainer": {"max_epochs": 2},
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three series of 120 days with missing values, and places."""
    folder, random, rows = tmp_path_factory.mktemp("runs"), np.random.default_rng(0), []
    for number, id_ in enumerate(["a", "b", "c"]):
        for day in range(120):
            v = "" if random.random() < 0.1 else f"{1000 + number + np.sin(day / 5) + random.normal(0, 0.1):.4f}"
            rows.append([id_, np.datetime64("2024-01-01") + np.timedelta64(day, "D"), v, day % 7])
    places = write_table(folder / "p.csv", ["id", "lat", "lon"], [["a", 1, 2], ["b", 3, 4], ["c", "", ""]])
    table = write_table(folder / "t.csv", ["id", "t", "v", "w"], rows)
    zstore.ingest(table, folder / "s.zarr", id="id", time="t", static=places)
    return zstore.open_store(folder / "s.zarr")


@pytest.fixture
def runs(store: Store, tmp_path: Path, app: Callable[..., Any]) -> list[str]:
    """A run of each task, with its predictions of the test split."""
    for name in TASKS:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config(Path(store.path), name)))
        app("run", "--config", f"{name}.yaml", check=True)
    return [str(tmp_path / "runs" / name) for name in TASKS]


def test_forecasts_scores_and_curves_are_those_of_the_run(store: Store, runs: list[str]) -> None:
    session = Session(store.path)
    panel = next(panel for panel in panels_of(session, runs) if panel.name == "runs")
    ask = asking(session, panels=[panel])
    listed = {run["name"]: run for run in ask("/api/runs/list").json()}
    assert set(listed) == {"plain", "sure"}
    assert listed["plain"]["model"] == "LSTM"
    metrics = json.loads((Path(runs[0]) / "test_metrics.json").read_text())
    assert listed["plain"]["scores"]["rmse"] == metrics["test/rmse"]
    curves = ask("/api/runs/curves", {"run": "plain"}).json()
    logged = pd.read_csv(Path(runs[0]) / "logs" / "metrics.csv")
    assert curves["val/mse"]["value"] == pytest.approx(logged["val/mse"].dropna().tolist())

    for path, name in zip(runs, TASKS, strict=True):
        found = xarray.open_zarr(Path(path) / "predictions.zarr").load()
        scores = ask("/api/runs/scores", {"run": name}).json()["scores"]
        for position, id_ in enumerate(store.ids.tolist()):
            own = found.isel(window=found.id.values == id_)
            error = (own.v - own.v_observed).values
            assert scores["rmse"][position] == pytest.approx(np.sqrt(np.nanmean(error**2)))
            assert scores["mae"][position] == pytest.approx(np.nanmean(np.abs(error)))
            y = own.v_observed.values[np.isfinite(own.v_observed.values)].astype(np.float64)
            nse = 1 - np.nansum(error.astype(np.float64) ** 2) / ((y - y.mean()) ** 2).sum()
            assert scores["nse"][position] == pytest.approx(nse, rel=1e-5)
            asked = {"run": name, "id": id_, "step": 2, "points": 4000}
            lines = {line["id"]: line for line in ask("/api/runs/forecast", asked).json()["charts"][0]["lines"]}
            assert lines["forecast"]["y"] == pytest.approx(own.v.values[:, 1].astype(np.float64))
            seconds = own.time.values[:, 1].astype("datetime64[s]").astype(np.int64)
            np.testing.assert_array_equal(lines["forecast"]["x"], seconds)
            assert [value is None for value in lines["observed"]["y"]] == np.isnan(own.v_observed.values[:, 1]).tolist()
            assert ("lower" in lines) == (name == "sure")
            if name == "sure":
                np.testing.assert_allclose(lines["lower"]["y"], own.v_quantile.values[:, 1, 0])
                np.testing.assert_allclose(lines["upper"]["y"], own.v_quantile.values[:, 1, -1])
            window = ask("/api/runs/forecast", {**asked, "window": 1, "before": 5}).json()
            lines = {line["id"]: line for line in window["charts"][0]["lines"]}
            assert lines["forecast"]["y"] == pytest.approx(own.v.values[1].astype(np.float64))
            past = store.series(str(id_)).to_pandas()["v"]
            before = past[past.index < own.time.values[1, 0]].iloc[-5:]
            np.testing.assert_allclose(np.array(lines["before"]["y"], np.float64), before, rtol=1e-6)
    worst = ask("/api/table", {"sort": "rmse v plain", "down": 1}).json()["lines"]
    in_order = [line["rmse v plain"] for line in worst]
    assert in_order == sorted(in_order, reverse=True)
    assert ask("/api/table", {"q": f"missing<0.5 {'b'}"}).json()["n"] == 1


def test_what_a_run_lacks_is_told_in_a_sentence(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    session = Session(store.path)
    ask = asking(session, panels=panels_of(session, [str(tmp_path / "empty")]))
    assert ask("/api/runs/list").json()[0]["has_predictions"] is False
    assert ask("/api/runs/curves").json() == {}
    asked = {
        "/api/runs/forecast?id=a": "has no predictions",
        "/api/runs/scores": "has no predictions",
        "/api/runs/curves?run=zebra": "no run 'zebra'",
        "/api/runs/film?name=../../secret": "no film",
        "/api/splits/parts": "the configuration of a run",
        "/api/splits/window?split=tomorrow": "one of train, val, test",
    }
    for path, told in asked.items():
        answer = ask(path)
        assert (path, answer.status_code, told in answer.json()["error"]) == (path, 400, True)
    with pytest.raises(UsageError, match="a run folder, such as runs/demo_lstm, or a configuration"):
        panels_of(session, [str(tmp_path / "nowhere")])
    (tmp_path / "predictions.zarr").mkdir()
    with pytest.raises(UsageError, match="predictions that predict wrote"):
        Predictions(tmp_path / "predictions.zarr", store)


def test_predictions_of_another_store_are_refused(store: Store, runs: list[str], tmp_path: Path) -> None:
    zstore.ingest(
        write_table(tmp_path / "o.csv", ["id", "t", "v"], [["a", 0, 1]]), tmp_path / "o.zarr", id="id", time="t"
    )
    with pytest.raises(UsageError, match="predictions of another store"):
        Predictions(Path(runs[0]) / "predictions.zarr", zstore.open_store(tmp_path / "o.zarr"))


def test_curves_of_a_fit_that_is_writing_end_at_the_last_whole_line(tmp_path: Path) -> None:
    (tmp_path / "r" / "logs").mkdir(parents=True)
    (tmp_path / "r" / "logs" / "metrics.csv").write_text("step,train/loss\n10,0.5\n20,nan\n30,0.2")
    (folder,) = run_folders([str(tmp_path / "r")]).values()
    assert folder.curves() == {"train/loss": {"step": [10.0], "value": [0.5]}}


@pytest.mark.parametrize("options", [{}, {"panel": {}}, {"observed_inputs": True, "time_features": ["day_of_week"]}])
def test_splits_are_those_of_the_audit_and_windows_those_of_the_loader(
    store: Store, tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config(Path(store.path), "plain", **options)))
    session = SimpleNamespace(opened=SimpleNamespace(store=store))
    ask = asking(Session(store.path), panels=panels_of(session, [str(path)]))  # type: ignore[arg-type]
    found = ask("/api/splits/parts").json()
    data = module_of([str(path)], [])
    expected = audit(data).to_json()
    assert found["parts"] == expected["parts"]
    assert {bar[1] for bar in found["bars"]} == {"train", "val", "test"}
    assert found["start"] == pd.Timestamp("2024-01-01").timestamp()
    loader = data.loaders.in_order(data.index("val", data.evaluation_stride))
    batch = next(iter(loader))
    shown = ask("/api/splits/window", {"split": "val", "number": 2}).json()
    x, y, mask = (batch[name][2] for name in ("x", "y", "mask"))
    if "panel" in options:
        x, y, mask = x[:, 0], y[:, 0], mask[:, 0]
    drawn = np.array([line["y"] for line in shown["inputs"]], np.float64).T
    np.testing.assert_allclose(drawn, x.numpy(), atol=1e-6)  # sines of one window and of many differ
    targets = np.array([line["y"] for line in shown["targets"]], np.float64).T
    np.testing.assert_array_equal(np.isnan(targets), ~mask.numpy())
    np.testing.assert_allclose(targets[mask.numpy()], y.numpy()[mask.numpy()])
    assert [line["name"] for line in shown["inputs"]][:2] == ["v", "w"]
    assert shown["n"] == len(loader.index)
    assert ask("/api/splits/window", {"split": "val", "number": 10**9}).status_code == 400


def test_the_page_has_the_parts_that_runs_bring(store: Store, tmp_path: Path) -> None:
    session = Session(store.path)
    (tmp_path / "r").mkdir()
    panels = panels_of(session, [str(tmp_path / "r")])
    ask = asking(session, panels=panels)
    assert sorted(panel["name"] for panel in ask("/api/panels").json()) == ["runs", "splits"]
    for panel in panels:
        script = ask(f"/panels/{panel.name}.js")
        assert (script.status_code, "innerHTML" in script.text, "http" in script.text) == (200, False, False)
    assert panels_of(session, []) == []
    assert make_app(session, "t", "c") is not None
