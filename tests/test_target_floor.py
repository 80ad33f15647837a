"""Forecasts of what is never below 0, such as counts: no less than a floor, and as they were without one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import yaml
from conftest import write_table

from lightning_app import load
from lightning_app.data.datamodule import WindowDataModule
from zstore import UsageError, ingest

App = Any
pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

DATA: dict[str, Any] = {"lookback": 4, "horizon": 2, "channels": ["v", "w"], "targets": ["v", "w"], "batch_size": 16}
TASK = {"class_path": "ProbabilisticForecast", "init_args": {"levels": [0.1, 0.5, 0.9], "units": "source"}}


def written(folder: Path) -> Path:
    """A store of two series: `v` is mostly 0, and `w` has both signs."""
    draw = np.random.default_rng(0)
    rows = [[id_, t, int(max(draw.normal(-1, 2), 0)), round(draw.normal(), 3)] for id_ in "ab" for t in range(80)]
    ingest(write_table(folder / "s.csv", ["id", "t", "v", "w"], rows), folder / "s.zarr", id="id", time="t")
    return folder / "s.zarr"


def test_forecasts_quantiles_and_intervals_are_no_less_than_the_floor(app: App, tmp_path: Path) -> None:
    """In tables, in stores of predictions, in metrics and in exported files; with the same weights."""
    data = {"store": str(written(tmp_path)), "split": {"sizes": [0.6, 0.2, 0.2]}, **DATA}
    trainer = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path / "run")}
    config: dict[str, Any] = {
        "data": data,
        "model": {"class_path": "MLP", "init_args": {"hidden": 4, "task": TASK}},
        "trainer": trainer,
        "intervals": {"levels": [0.8]},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    app("run", "--config", tmp_path / "c.yaml", "--quiet", check=True)
    plain = load(tmp_path / "run").forecast()
    shutil.copytree(tmp_path / "run", tmp_path / "floored")
    saved = yaml.safe_load((tmp_path / "floored/config.yaml").read_text())
    saved["data"]["target_floor"] = {"v": 0.0}
    (tmp_path / "floored/config.yaml").write_text(yaml.safe_dump(saved))
    forecaster = load(tmp_path / "floored")
    found = forecaster.forecast()
    counts = [name for name in plain.columns if name == "v" or name.startswith("v_")]
    assert len(counts) == 1 + 3 + 2
    assert (plain[["v_q0.1", "v_lower80"]] < 0).all().all()
    expected = plain.assign(**{name: np.maximum(plain[name], 0.0) for name in counts})
    pd.testing.assert_frame_equal(found, expected)
    assert (found["w_q0.1"] < 0).all()
    forecaster.export(tmp_path / "m.onnx", windows=8)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    x = np.random.default_rng(1).normal(0, 1, (5, 4, 2))
    named = {"x": x, "series": np.zeros(5, np.int64)}
    given = {each.name: named[each.name] for each in session.get_inputs()}
    outputs = [each.name for each in session.get_outputs()]
    assert len(outputs) == 1 + 1 + 2, "forecasts, quantiles and two ends"
    for name, values in zip(outputs, session.run(None, given), strict=True):
        assert values[:, :, 0].min() >= 0, name


def test_a_data_module_shows_the_floor_only_if_it_has_one(tmp_path: Path) -> None:
    store = str(written(tmp_path))
    assert "least forecast: 0" in WindowDataModule(store, target_floor=0, **DATA)._repr_html_()
    assert "least forecast" not in WindowDataModule(store, **DATA)._repr_html_()


def test_floors_that_cannot_be_meant_are_refused_before_a_fit(tmp_path: Path) -> None:
    store = str(written(tmp_path))
    for floor, told in (({"u": 0.0}, "target_floor for channel 'u'"), (float("nan"), "target_floor nan")):
        data = WindowDataModule(store, target_floor=floor, **DATA)
        with pytest.raises(UsageError, match=told):
            _ = data.scales
