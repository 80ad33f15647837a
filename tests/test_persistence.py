"""The baseline beside a test is what the model `Repeat` gets on the same windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

import zstore
from lightning_app.callbacks import TestReport
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.models import LSTM, MLP, Repeat
from lightning_app.tasks import ProbabilisticForecast, Task

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three series of 80 hours with two channels, a tenth of whose values are missing."""
    random = np.random.default_rng(5)
    values = random.normal(size=(240, 2)).cumsum(0).round(2)
    values[random.random((240, 2)) < 0.1] = np.nan
    frame = pd.DataFrame(values, columns=["a", "b"])
    frame["id"], frame["time"] = np.repeat(["x", "y", "z"], 80), np.tile(np.arange(80) * 3600, 3)
    path = tmp_path_factory.mktemp("persistence") / "s.zarr"
    zstore.ingest(frame, path, id="id", time="time")
    return path


def trial(model: type[Any], store: Path, arguments: dict[str, Any], **options: Any) -> Any:
    """A model without a fit, after its test."""
    data = WindowDataModule(str(store), 6, 3, cache=str(store.parent / "cache"), batch_size=7, **options)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=store.parent,
    )
    made = model(data.shape, **arguments)
    trainer.test(made, data, verbose=False)
    return made


VIEWS: list[dict[str, Any]] = [{}, {"targets": ["b"], "delay": 2}, {"panel": Panel()}]


@pytest.mark.parametrize("view", VIEWS, ids=["plain", "delayed", "panel"])
@pytest.mark.parametrize("units", ["scaled", "source"])
@pytest.mark.parametrize("quantiles", [False, True])
def test_persistence_has_the_errors_of_repeat_to_the_last_bit(
    table: Path, view: dict[str, Any], units: str, quantiles: bool
) -> None:
    repeat = trial(Repeat, table, {"units": units}, **view)
    task: Task | None = ProbabilisticForecast(levels=[0.1, 0.5, 0.9], units=units) if quantiles else None  # type: ignore[arg-type]
    model = trial(MLP, table, {"task": task} if task else {"units": units}, **view)
    for name, value in model.report["persistence"].items():
        assert float(value) == repeat.exact[f"test/{name}"], name
    for name, values in model.report["persistence_by_step"].items():
        assert torch.equal(values, repeat.report["by_step"][name]), name
    assert model.exact["test/mae"] != repeat.exact["test/mae"]
    reports = [*model.report.values(), *repeat.report.values(), model.exact, repeat.exact]
    named = {name.removeprefix("test/") for report in reports for name in report}
    assert named & {"mape", "smape"} == ({"mape", "smape"} if units == "source" else set()), (
        "scaled values have no percentages"
    )


def test_the_file_of_a_test_has_numbers_and_a_list_for_each_step_even_if_there_is_one(
    table: Path, tmp_path: Path
) -> None:
    data = WindowDataModule(str(table), 6, 1, cache=str(table.parent / "cache"), targets=["a"])
    pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[TestReport(tmp_path)],
        default_root_dir=tmp_path,
    ).test(MLP(data.shape), data, verbose=False)
    found = json.loads((tmp_path / "test_metrics.json").read_text())
    assert isinstance(found["persistence"]["mse"], float)
    assert found["persistence_by_step"]["mse"] == [found["persistence"]["mse"]]
    assert len(found["by_step"]["mse"]) == 1


def test_a_second_test_counts_its_own_windows_alone(table: Path) -> None:
    data = WindowDataModule(str(table), 6, 3, cache=str(table.parent / "cache"))
    model = MLP(data.shape)
    found = []
    for _ in range(2):
        pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=table.parent).test(
            model, data, verbose=False
        )
        found.append(model.report["persistence_by_step"]["mse"])
    assert torch.equal(*found)


def test_there_is_no_baseline_where_a_target_is_no_input_or_lies_among_the_inputs(table: Path) -> None:
    assert LSTM(WindowDataModule(str(table), 6, 3, channels=["a"], targets=["b"]).shape).persistence is None
    assert (
        LSTM(WindowDataModule(str(table), 6, 3, channels=["a", "b"], targets=["b"], delay=-6).shape).persistence is None
    )
