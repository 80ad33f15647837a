"""On a GPU: batches are those of the CPU, copied beside the steps, and nothing that makes them waits for the device.

Run by ``make test-gpu``, and skipped where there is no CUDA device.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from gpus import NEEDS_GPU, OnGPU, module, of_frames, store_of_frames, tensors

from lightning_app.batch import Batch
from lightning_app.data.batches.beside import made_beside
from lightning_app.data.batches.live import LiveWindows
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import FieldPlace
from lightning_app.data.rows.residency import Residency
from zstore import Store

pytestmark = NEEDS_GPU

RESIDENCIES: tuple[Residency, ...] = ("device", "host", "stream")
PLACES: tuple[FieldPlace, ...] = ("device", "host", "encoded", "stream")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of_frames(tmp_path_factory.mktemp("frames"))


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
    for name, values in tensors(here).items():
        found = tensors(there)[name]
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
        assert tensors(ours)["image"].dtype == torch.uint8
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
    step, copied = (torch.cuda.Event() for _ in range(2))  # type: ignore[no-untyped-call]
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
    torch.cuda._sleep(10**9)  # type: ignore[no-untyped-call]  # half a second of the stream that steps are on
    step.record()
    begun.set()
    batch = next(batches)
    copied.synchronize()
    assert not step.query(), "the copy waited for the kernels of the step"  # type: ignore[no-untyped-call]
    assert bool((batch["x"] == 1).all())


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_no_batch_is_overwritten_while_a_slow_step_reads_it(
    catchments: Store, tmp_path: Path, residency: Residency
) -> None:
    options: dict[str, Any] = {"targets": ["flow_mm"], "lookback": 100, "batch_size": 256}
    data, here = (module(kind, catchments, tmp_path, residency, **options) for kind in (OnGPU, WindowDataModule))
    sums = []
    for batch in islice(data.train_dataloader(), 30):
        torch.cuda._sleep(10**7)  # type: ignore[no-untyped-call]  # the batch is read behind this, and let go of before
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
        assert all(torch.equal(values, tensors(theirs)[name]) for name, values in tensors(ours).items())
