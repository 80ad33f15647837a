"""A LightningModule that knows nothing of tasks is fitted, validated and tested from a configuration."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from zstore import Store

pytestmark = pytest.mark.filterwarnings("default")

App = Callable[..., subprocess.CompletedProcess[str]]
MODULE = """
import pytorch_lightning as pl
import torch


class Plain(pl.LightningModule):
    def __init__(self, lookback: int, lr: float = 0.01) -> None:
        super().__init__()
        self.lr, self.head = lr, torch.nn.Linear(lookback, 1)

    def error(self, batch):
        found = self.head(batch["x"][..., -1])
        return ((found - batch["y"][:, 0]) ** 2)[batch["mask"][:, 0]].mean()

    def training_step(self, batch, batch_idx):
        return self.error(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_error", self.error(batch), batch_size=len(batch["x"]))

    def test_step(self, batch, batch_idx):
        self.log("test_error", self.error(batch), batch_size=len(batch["x"]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


class Shaped(Plain):
    def __init__(self, shape, lr: float = 0.01) -> None:
        super().__init__(shape.lookback, lr)
"""


@pytest.fixture
def config(hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plain_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    document: dict[str, Any] = {
        "data": {"store": str(hourly.path), "lookback": 24, "horizon": 1, "split": {"sizes": [1400, 300, 300]}},
        "model": {"class_path": "plain_module.Plain", "init_args": {"lookback": 24}},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
    }
    document["data"] |= {"channels": ["a"], "targets": ["a"], "cache": str(tmp_path / "cache")}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "plain.yaml"


def test_a_plain_module_is_fitted_validated_and_tested(config: Path, app: App, tmp_path: Path) -> None:
    fitted = app("fit", "--config", config, check=True)
    assert "fitted 3 epochs" in fitted.stdout
    run = tmp_path / "runs" / "plain"
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert last["WindowDataModule"]["scaler"]["channels"] == ["a"]
    assert "val_error" in app("validate", "--config", config, check=True).stdout
    tested = app("test", "--config", config, check=True)
    found = json.loads((run / "test_metrics.json").read_text())
    assert 0 < found["test_error"] < 1
    assert found["model"] == "Plain"
    assert f"test_error {found['test_error']:.4f}" in tested.stdout


def test_a_plain_module_stops_and_is_chosen_by_a_metric_that_is_named(config: Path, app: App, tmp_path: Path) -> None:
    named = ("--early_stopping.monitor", "val_error", "--checkpoint.monitor", "val_error")
    flat = ("--model.lr", "0", "--early_stopping.patience", "1")
    fitted = app("fit", "--config", config, *named, *flat, check=True)
    assert "stopped early after 2 epochs: val_error did not improve" in fitted.stdout
    assert "best val_error" in fitted.stdout
    wrong = app("fit", "--config", config, "--checkpoint.monitor", "val/none")
    assert wrong.returncode == 2
    assert "checkpoints compared by val/none, which is never logged; expected one of val_error" in wrong.stderr


def test_a_plain_module_may_be_told_the_shape_of_batches(config: Path, app: App) -> None:
    document = yaml.safe_load(config.read_text())
    document["model"] = {"class_path": "plain_module.Shaped"}
    config.write_text(yaml.safe_dump(document))
    app("fit", "--config", config, "--trainer.max_epochs", 1, check=True)


@pytest.mark.parametrize("command", ["predict", "rollout"])
def test_what_needs_a_task_is_refused_of_a_plain_module(config: Path, app: App, command: str) -> None:
    done = app(command, "--config", config)
    assert done.returncode == 2
    assert f"{command} with Plain, which is no TaskModel" in done.stderr
    assert "fit, validate and test take any LightningModule" in done.stderr
