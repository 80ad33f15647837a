"""Finders of Lightning, and ours, leave a fit as it would have been: weights, draws and the order of windows."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.tuner.tuning import Tuner

from lightning_app.cli import fit
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.models import LSTM
from lightning_app.rates import suggested
from zstore import Store, UsageError

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning, as in the tests of the command

App = Callable[..., subprocess.CompletedProcess[str]]
FINDER = "--trainer.callbacks=RateFinder", "--trainer.callbacks.steps=30", "--trainer.callbacks.max_lr=0.1"


@pytest.fixture
def config(hourly: Store, tmp_path: Path) -> Path:
    document: dict[str, Any] = {
        "data": {"store": str(hourly.path), "lookback": 24, "horizon": 6, "split": {"sizes": [1400, 300, 300]}},
        "model": {"class_path": "LSTM", "init_args": {"hidden": 4, "dropout": 0.5}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "lr_scheduler": {"class_path": "HoldThenDecay", "init_args": {"hold": 1}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False, "limit_train_batches": 6},
    }
    document["data"] |= {"channels": ["a", "b"], "targets": ["a"], "cache": str(tmp_path / "cache"), "batch_size": 64}
    document["trainer"] |= {"limit_val_batches": 2}
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "rates.yaml"


def checkpoint(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, weights in one["state_dict"].items():
        assert torch.equal(weights, other["state_dict"][name]), name


def test_a_fit_after_a_search_for_a_rate_is_the_fit_without_it(config: Path, app: App, tmp_path: Path) -> None:
    runs = {name: ("--config", config, "--trainer.default_root_dir", tmp_path / name) for name in "abcd"}
    app("fit", *runs["a"], check=True)
    said = app("fit", *runs["b"], *FINDER, check=True).stdout
    assert "suggested learning rate " in said
    assert_same(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))
    said = app("fit", *runs["c"], *FINDER, "--trainer.callbacks.use=true", check=True).stdout
    assert "which is taken" in said
    rate = checkpoint(tmp_path / "c")["lr_schedulers"][0]["base_lrs"][0]
    app("fit", *runs["d"], f"--optimizer.lr={rate!r}", check=True)
    assert rate != 0.01
    assert_same(checkpoint(tmp_path / "c"), checkpoint(tmp_path / "d"))


def test_a_fit_that_goes_on_tries_no_rates(config: Path, app: App, tmp_path: Path) -> None:
    whole, parts = ("--trainer.default_root_dir", tmp_path / "a"), ("--trainer.default_root_dir", tmp_path / "b")
    app("fit", "--config", config, *whole, *FINDER, check=True)
    app("fit", "--config", config, *parts, *FINDER, "--trainer.max_epochs=1", check=True)
    said = app("fit", "--config", config, *parts, *FINDER, "--ckpt_path=last", check=True).stdout
    assert "suggested" not in said
    assert_same(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))


def test_the_rate_is_that_where_the_line_falls_most_steeply() -> None:
    logs = torch.linspace(-5, 0, 101, dtype=torch.float64)
    losses = 1 / (1 + torch.exp(4 * (logs + 2)))
    losses[:10] = torch.linspace(-9, 9, 10)  # of few batches
    losses[-1] = torch.nan
    assert suggested(10**logs, losses) == pytest.approx(1e-2, rel=0.1)
    with pytest.raises(UsageError, match="19 rates before the loss grew too large; expected 20 or more"):
        suggested(10 ** logs[:19], losses[:19])


class Rated(LSTM):
    def __init__(self, shape: Any, lr: float = 0.01) -> None:
        super().__init__(shape, hidden=4)
        self.lr = lr

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


def data_of(store: Store, batch_size: int = 64) -> WindowDataModule:
    split = Split(sizes=(1400, 300, 300))
    return WindowDataModule(str(store.path), 24, 6, channels=["a"], targets=["a"], split=split, batch_size=batch_size)


def trainer_of(folder: Path, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", limit_val_batches=1, default_root_dir=folder, **quiet, **options)


def test_lightnings_own_finder_leaves_the_order_of_windows(hourly: Store, tmp_path: Path) -> None:
    pl.seed_everything(0)
    data = data_of(hourly)
    model = Rated(data.shape)
    trainer = trainer_of(tmp_path, max_epochs=1)
    Tuner(trainer).lr_find(model, datamodule=data, num_training=15)
    trainer.fit(model, datamodule=data)
    pl.seed_everything(0)
    again = Rated(data.shape, model.lr)
    trainer_of(tmp_path, max_epochs=1).fit(again, datamodule=data_of(hourly))
    assert model.lr != 0.01
    assert_same({"state_dict": model.state_dict()}, {"state_dict": again.state_dict()})


def test_lightnings_batch_size_finder_tries_batches_of_other_sizes(hourly: Store, tmp_path: Path) -> None:
    sizes: set[int] = set()

    class Counts(Rated):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            sizes.add(len(batch["x"]))
            return super().training_step(batch, batch_idx)

    data = data_of(hourly, 8)  # which Lightning tries in place of the first size
    model, trainer = Counts(data.shape), trainer_of(tmp_path, max_epochs=1)
    found = Tuner(trainer).scale_batch_size(model, datamodule=data, init_val=16, max_trials=3, steps_per_trial=1)
    assert (sizes, found, data.batch_size) == ({8, 32, 64}, 64, 64)
    assert len(next(iter(data.train_dataloader()))["x"]) == 64


def test_a_fit_from_python_gives_its_trainer(config: Path, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watch(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(float(trainer.callback_metrics["val/mse"]))

    flags = "--config", config, "--optimizer.lr", 0.02, "--trainer.default_root_dir", tmp_path / "a"
    trainer = fit(*flags, callbacks=[Watch()])
    score: Any = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    assert float(score) == min(seen[-2:])
    assert checkpoint(tmp_path / "a")["lr_schedulers"][0]["base_lrs"] == [0.02]
    with pytest.raises(UsageError, match=r"fit with --trainer\.limit_train_batches 0"):
        fit(*flags, "--trainer.limit_train_batches", 0)
