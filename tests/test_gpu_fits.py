"""On a GPU: fits of a seed, checkpoints, precisions, exports; and steps that do not wait for the device.

Run by ``make test-gpu``, and skipped where there is no CUDA device.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gpus import NEEDS_GPU, module, of_frames, store_of_frames, tensors

from lightning_app import models
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models import TaskModel
from lightning_app.monitor import memory
from lightning_app.tasks import Classification
from lightning_app.tuning import plan
from zstore import Store

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it products of matrices are not deterministic

pytestmark = NEEDS_GPU

FORECASTERS = ("DLinear", "NLinear", "LSTM", "GRU", "TCN", "PatchTST", "ITransformer", "TSMixer", "TiDE")
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of_frames(tmp_path_factory.mktemp("frames"))


def fitted(
    store: Store, folder: Path, accelerator: str, make: Callable[..., TaskModel], **options: Any
) -> tuple[TaskModel, WindowDataModule, pl.Trainer]:
    """A model after some steps."""
    pl.seed_everything(1)
    given: dict[str, Any] = {"precision": "32-true", "max_steps": 12, **options}
    data = module(WindowDataModule, store, folder, given.pop("residency", "auto"), **given.pop("data", {}))
    model = make(data.shape)
    trainer = pl.Trainer(accelerator=accelerator, devices=1, default_root_dir=folder, **given, **QUIET)
    trainer.fit(model, data)
    return model, data, trainer


def error_of(model: TaskModel, data: WindowDataModule, trainer: pl.Trainer) -> float:
    """The mean squared error on the validation split."""
    return float(trainer.validate(model, data, verbose=False)[0]["val/mse"])


def kind_of(name: str, **given: Any) -> Callable[..., TaskModel]:
    options: dict[str, dict[str, Any]] = {"PatchTST": {"patch": 8, "patch_stride": 4}}
    return partial(getattr(models, name), **options.get(name, {}), **given)


@pytest.mark.parametrize("name", ["DLinear", "LSTM"])
def test_two_fits_of_a_seed_give_the_same_weights(hourly: Store, tmp_path: Path, name: str) -> None:
    one, other = (fitted(hourly, tmp_path, "gpu", kind_of(name), deterministic=True)[0] for _ in range(2))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("name", FORECASTERS)
def test_a_checkpoint_of_the_cpu_forecasts_the_same_on_the_gpu_and_back(
    hourly: Store, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for accelerator in ("cpu", "gpu"):
        _, data, trainer = fitted(hourly, tmp_path, accelerator, kind_of(name))
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        batch = next(iter(module(WindowDataModule, hourly, tmp_path).val_dataloader()))
        found = []
        for device in ("cpu", "cuda:0"):
            model = TaskModel.load_from_checkpoint(tmp_path / "model.ckpt", map_location=device).eval()
            model.attach(data)
            with torch.no_grad():
                moved: Any = {key: values.to(device) for key, values in tensors(batch).items()}
                found.append(model.predict_step(moved, 0).cpu())
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("name", FORECASTERS)
def test_a_fit_in_mixed_precision_ends_near_that_in_full(
    hourly: Store, tmp_path: Path, name: str, precision: str
) -> None:
    # Without dropout: kernels of other precisions draw otherwise, which alone moves the error by more than this.
    kind = kind_of(name, dropout=0.0) if "dropout" in signature(getattr(models, name)).parameters else kind_of(name)
    full, mixed = (
        error_of(*fitted(hourly, tmp_path, "gpu", kind, precision=each, max_steps=30))
        for each in ("32-true", precision)
    )
    assert mixed == pytest.approx(full, rel=0.05)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_a_model_of_images_is_fitted_from_bytes_on_the_device(frames: Store, tmp_path: Path, precision: str) -> None:
    data = of_frames(WindowDataModule, frames, tmp_path, "device", None)
    model = models.SpatialSoftmaxCNN(data.shape)
    trainer = pl.Trainer(accelerator="gpu", devices=1, precision=precision, max_epochs=2, **QUIET)  # type: ignore[arg-type]
    trainer.fit(model, data)
    assert np.isfinite(error_of(model, data, trainer))


def test_a_compiled_model_is_fitted(hourly: Store, tmp_path: Path) -> None:
    compiled, plain = (
        error_of(*fitted(hourly, tmp_path, "gpu", partial(models.NLinear, compile_with=backend)))
        for backend in ("inductor", None)
    )
    assert compiled == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", [*FORECASTERS, "classes"])
def test_a_step_does_not_wait_for_the_gpu(hourly: Store, frames: Store, tmp_path: Path, name: str) -> None:
    class Watched(pl.Callback):
        """Refuses waits in steps that are not logged."""

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("error" if trainer.global_step in range(5, 40) else "default")

        def on_train_end(self, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

    options: dict[str, Any] = {"callbacks": [Watched()], "max_steps": 45, "log_every_n_steps": 1000}
    store, make = hourly, partial(models.LSTM, task=Classification()) if name == "classes" else kind_of(name)
    if name == "classes":
        store, options["data"] = frames, {"targets": ["v"], "classes": ["v"], "lookback": 4, "batch_size": 8}
    try:
        fitted(store, tmp_path, "gpu", make, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_fit_tells_the_memory_of_the_gpu(hourly: Store, tmp_path: Path) -> None:
    _, _, trainer = fitted(hourly, tmp_path, "gpu", kind_of("DLinear"))
    assert 0 < memory(trainer)["perf/gpu_gb"] < 10


def test_a_plan_measures_rows_on_the_gpu(catchments: Store, tmp_path: Path) -> None:
    options = {"lookback": 24, "horizon": 6, "store": str(catchments.path), "cache": str(tmp_path / "cache")}
    found = plan(options, 0.1)
    assert (found.chosen, found.measured[0].place, found.measured[0].why_not) == ("device", "device", "")
    assert found.measured[0].windows_per_s > 0


def test_what_was_fitted_on_the_gpu_is_exported(app: Callable[..., Any], hourly: Store, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("model:\n  class_path: DLinear\n")
    words = [
        "--config", "model.yaml", "--data.store", hourly.path, "--data.lookback", 24, "--data.horizon", 6,
        "--trainer.max_steps", 5, "--trainer.accelerator", "gpu", "--trainer.devices", 1,
    ]  # fmt: skip
    app("fit", *words, check=True)
    app("export", *words, check=True)
    assert any((tmp_path).rglob("*.onnx"))
