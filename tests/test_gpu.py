"""On a GPU: batches as on the CPU, copied beside the steps, nothing waits for the device, and fits of every precision.

Run by ``make test-gpu``, and skipped where there is no CUDA device.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

import zstore
from lightning_app import models
from lightning_app.batch import Batch
from lightning_app.data.batches.beside import made_beside
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.batches.live import LiveWindows
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import FieldPlace
from lightning_app.data.rows.residency import Residency
from lightning_app.data.windows.splits import Split
from lightning_app.models import TaskModel
from lightning_app.monitor import memory
from lightning_app.tasks import Classification
from lightning_app.tuning import plan
from zstore import Store

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it products of matrices are not deterministic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here"),
]

RESIDENCIES: tuple[Residency, ...] = ("device", "host", "stream")
PLACES: tuple[FieldPlace, ...] = ("device", "host", "encoded", "stream")
FORECASTERS = ("DLinear", "NLinear", "LSTM", "GRU", "TCN", "PatchTST", "ITransformer", "TSMixer", "TiDE")
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}


class OnGPU(WindowDataModule):
    """Batches for the GPU without a trainer."""

    @property
    def process(self) -> Any:
        """One, on the first GPU."""
        return replace(super().process, device=torch.device("cuda", 0))


def module(
    kind: type[WindowDataModule], store: Store, folder: Path, residency: Residency = "auto", **options: Any
) -> WindowDataModule:
    usual: dict[str, Any] = {
        "lookback": 24,
        "horizon": 6,
        "batch_size": 32,
        "cache": str(folder / "cache"),
        "memory_budget": "1MB" if residency == "stream" else 0.5,
    }
    return kind(str(store.path), residency=residency, **(usual | options))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two series of 400 rows with an image each, 16 x 16 pixels in three colours."""
    folder, n_rows = tmp_path_factory.mktemp("frames"), 800
    np.save(folder / "frames.npy", np.random.default_rng(0).integers(0, 256, (n_rows, 16, 16, 3), np.uint8))
    count = np.arange(n_rows)
    table = pa.table(
        {
            "id": np.repeat(["a", "b"], n_rows // 2),
            "t": count % (n_rows // 2),
            "v": count % 17 / 4,
            "w": count % 5 * 1.0,
            "file": ["frames.npy"] * n_rows,
            "n": count,
        }
    )
    files: dict[str, Any] = {"file": {"image": "file"}, "file_position": {"image": "n"}}
    zstore.ingest(table, folder / "s.zarr", id="id", time="t", channels=["v", "w"], file_root=str(folder), **files)
    return zstore.open_store(folder / "s.zarr")


def of_frames(
    kind: type[WindowDataModule], store: Store, folder: Path, place: FieldPlace, crop: tuple[int, ...] | None = (12, 12)
) -> WindowDataModule:
    fields = {"image": FieldOptions(2, 1, place, crop)}
    usual: dict[str, Any] = {"lookback": 4, "horizon": 1, "batch_size": 8, "split": Split(sizes=(0.6, 0.2, 0.2))}
    usual |= {"memory_budget": "900kB"} if place == "stream" else {}
    return module(kind, store, folder, "host", fields=fields, **usual)


def catchment_options() -> dict[str, Any]:
    return {
        "targets": ["flow_mm"],
        "future": ["rain_mm"],
        "statics": ["elevation_m"],
        "observed_inputs": True,
        "pad_before": "repeat",
        "pad_after": "zero",
    }


def require_same(there: Batch, here: Batch, exact: bool = True) -> None:
    """All bits are equal; or floats by some roundings of float32, where the GPU takes products or logarithms."""
    assert there.keys() == here.keys()
    for name, values in dict(here).items():
        assert isinstance(values, Tensor)
        found = dict(there)[name]
        assert isinstance(found, Tensor)
        assert found.device == torch.device("cuda", 0)
        assert found.dtype == values.dtype
        if values.dtype.is_floating_point and not exact:
            torch.testing.assert_close(found.cpu(), values, rtol=2**-20, atol=2**-20)
        else:
            assert torch.equal(found.cpu(), values), name


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Whatever waits for the GPU is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_batches_are_those_of_the_cpu_wherever_rows_live(
    catchments: Store, tmp_path: Path, residency: Residency
) -> None:
    there = module(OnGPU, catchments, tmp_path, residency, **catchment_options())
    here = module(WindowDataModule, catchments, tmp_path, residency, **catchment_options())
    assert there.source.device.type == ("cuda" if residency == "device" else "cpu")
    for loader in ("train_dataloader", "val_dataloader"):
        ours, theirs = (list(islice(getattr(data, loader)(), 70)) for data in (there, here))
        assert len(ours) == len(theirs) > 1
        for mine, other in zip(ours, theirs, strict=True):
            require_same(mine, other)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_logarithms_and_calendars_are_those_of_the_cpu_but_for_roundings(
    catchments: Store, tmp_path: Path, residency: Residency
) -> None:
    options = catchment_options() | {"time_features": ["day_of_year"], "scaler": {"flow_mm": "log1p"}}
    there, here = (module(kind, catchments, tmp_path, residency, **options) for kind in (OnGPU, WindowDataModule))
    for ours, theirs in zip(*(islice(data.train_dataloader(), 40) for data in (there, here)), strict=True):
        require_same(ours, theirs, exact=False)


@pytest.mark.parametrize("place", PLACES)
def test_bytes_of_fields_are_those_of_the_cpu_and_stay_bytes(frames: Store, tmp_path: Path, place: FieldPlace) -> None:
    there, here = (of_frames(kind, frames, tmp_path, place) for kind in (OnGPU, WindowDataModule))
    for ours, theirs in zip(there.train_dataloader(), here.train_dataloader(), strict=True):
        assert ours["image"].dtype == torch.uint8
        require_same(ours, theirs)


def test_a_field_on_the_device_takes_a_byte_a_value_there(frames: Store, tmp_path: Path) -> None:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    data = of_frames(OnGPU, frames, tmp_path, "device")
    held = data.source.fields["image"].values
    assert (held.device, held.dtype) == (torch.device("cuda", 0), torch.uint8)
    taken, n_bytes = torch.cuda.memory_allocated() - before, 800 * 16 * 16 * 3
    assert n_bytes <= taken < n_bytes + 100_000


@pytest.mark.parametrize("residency", ["device", "host"])
def test_a_batch_is_made_without_waiting_for_the_gpu(catchments: Store, tmp_path: Path, residency: Residency) -> None:
    data = module(OnGPU, catchments, tmp_path, residency, **catchment_options())
    batches = iter(data.train_dataloader())
    next(batches)
    with refusing_waits():
        assert len(list(islice(batches, 40))) == 40


@pytest.mark.parametrize("place", ["device", "host"])
def test_a_batch_of_fields_is_made_without_waiting_for_the_gpu(
    frames: Store, tmp_path: Path, place: FieldPlace
) -> None:
    batches = iter(of_frames(OnGPU, frames, tmp_path, place).train_dataloader())
    next(batches)
    with refusing_waits():
        assert len(list(islice(batches, 40))) == 40


def test_copies_are_done_while_the_gpu_computes() -> None:
    device, begun = torch.device("cuda", 0), threading.Event()
    step, copied = torch.cuda.Event(), torch.cuda.Event()
    pinned = torch.ones(1 << 20, pin_memory=True)

    def first() -> list[Batch]:
        batch: Any = {"x": pinned.to(device, non_blocking=True)}
        return [batch]

    def second() -> list[Batch]:
        begun.wait()
        batches = first()
        copied.record(torch.cuda.current_stream(device))
        return batches

    batches = made_beside(iter([first, second]), 1, device)
    next(batches)
    torch.cuda._sleep(10**9)  # half a second of the stream that steps are on
    step.record()
    begun.set()
    batch = next(batches)
    copied.synchronize()
    assert not step.query(), "the copy waited for the kernels of the step"
    assert bool((batch["x"] == 1).all())


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_no_batch_is_overwritten_while_a_slow_step_reads_it(
    catchments: Store, tmp_path: Path, residency: Residency
) -> None:
    options: dict[str, Any] = {"targets": ["flow_mm"], "lookback": 100, "batch_size": 256}
    data, here = (module(kind, catchments, tmp_path, residency, **options) for kind in (OnGPU, WindowDataModule))
    sums = []
    for batch in islice(data.train_dataloader(), 30):
        torch.cuda._sleep(10**7)  # the batch is read behind this, and let go of before
        sums.append(batch["x"].double().sum())
        del batch
    expected = [batch["x"].double().sum() for batch in islice(here.train_dataloader(), 30)]
    torch.testing.assert_close(torch.stack(sums).cpu(), torch.stack(expected), rtol=1e-5, atol=1e-3)


def test_windows_of_a_running_episode_are_those_of_the_cpu(hourly: Store, tmp_path: Path) -> None:
    data = module(WindowDataModule, hourly, tmp_path, pad_before="repeat")
    ours, theirs = (LiveWindows(data.scales, 2, device=torch.device(name)) for name in ("cuda:0", "cpu"))
    for number in range(30):
        for live in (ours, theirs):
            live.add(number % 2, {"a": number / 7, "b": -number / 3, "c": 1.0})
    require_same(ours.batch([0, 1]), theirs.batch([0, 1]))


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
                moved: Any = {key: values.to(device) for key, values in dict(batch).items()}  # type: ignore[attr-defined]
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


def test_a_loader_of_the_gpu_goes_on_where_it_stopped(hourly: Store, tmp_path: Path) -> None:
    data = module(OnGPU, hourly, tmp_path, "host")
    loader = data.train_dataloader()
    assert isinstance(loader, WindowLoader)
    taken = list(islice(loader, 7))
    state, rest = loader.state_dict(), module(OnGPU, hourly, tmp_path, "host").train_dataloader()
    rest.load_state_dict(state)
    again = list(module(OnGPU, hourly, tmp_path, "host").train_dataloader())
    assert len(taken) == 7
    for ours, theirs in zip(rest, again[7:], strict=True):
        assert all(torch.equal(values, dict(theirs)[name]) for name, values in dict(ours).items())  # type: ignore[call-overload]
