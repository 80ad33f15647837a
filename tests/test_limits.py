"""What limits a fit, and what to change, as measured steps say."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import write_table
from PIL import Image

from lightning_app.batch import Batch
from lightning_app.data.batches.phases import Phases
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.fields import FieldOptions
from lightning_app.data.rows.fields import FieldResidency
from lightning_app.limits import StepTimes, advice
from lightning_app.models import NLinear
from lightning_app.monitor import Monitor
from zstore import Store, ingest, open_store

pytest.importorskip("simplejpeg")
pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own are theirs to fix

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Slow(NLinear):
    """A model whose every step takes long."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """Forecasts, after some work."""
        values = torch.ones(600, 600)
        for _ in range(8):
            values = values @ values / 600
        return super().forward(batch) + 0 * values.mean()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """160 rows, each with a JPEG of 600 x 600."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(160):
        pixels = random.integers(0, 256, (50, 50, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((600, 600), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
        (folder / f"{number}.jpg").write_bytes(stream.getvalue())
    table = write_table(folder / "r.csv", ["id", "t", "v", "f"], [["a", n, n % 7, f"{n}.jpg"] for n in range(160)])
    files: dict[str, Any] = {"file": {"image": "f"}, "file_root": str(folder), "keep_encoded": ["image"]}
    ingest(table, folder / "s.zarr", id="id", time="t", **files)
    return open_store(folder / "s.zarr")


def fitted(
    store: Store,
    folder: Path,
    residency: FieldResidency | None,
    model: Callable[..., NLinear] = NLinear,
    epochs: int = 3,
    **options: Any,
) -> tuple[StepTimes, str]:
    """Where the time of the steps of a fit went, and what was advised."""
    said: list[tuple[StepTimes, str]] = []

    class Kept(Monitor):
        """Keeps what the end of the log says."""

        def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            """While rows are open."""
            said.append((self.times(trainer), advice(self.times(trainer), data)))

    fields = {} if residency is None else {"image": FieldOptions(residency=residency)}
    given: dict[str, Any] = {"lookback": 2, "horizon": 1, "batch_size": 8, "fields": fields, "channels": ["v"]}
    data = WindowDataModule(str(store.path), cache=str(folder / "cache"), **{**given, **options})
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, callbacks=[Kept()], **QUIET)
    trainer.fit(model(data.shape), data)
    return said[0]


def test_a_slow_model_limits_and_no_change_of_the_data_is_advised(photos: Store, tmp_path: Path) -> None:
    times, said = fitted(photos, tmp_path, None, Slow)
    assert times.limit() == "model"
    assert re.match(r"model limits: \d+% of a step, [\d.]+% waits for data \(.*\); only a smaller model or a GPU", said)
    assert "residency" not in said


def test_images_that_are_decoded_for_each_batch_limit_until_they_are_decoded_once(
    photos: Store, tmp_path: Path
) -> None:
    times, said = fitted(photos, tmp_path, "encoded")
    assert times.limit() == "decode"
    found = re.match(
        r"decode limits: (\d+)% of a step waits for data, (\d+)% of that for rows of field 'image' to be decoded; "
        r"set residency of image in data.fields to host, which needs 0.17 GB of the",
        said,
    )
    assert found is not None
    assert (int(found[1]) > 5, int(found[2]) > 50) == (True, True)
    changed, _ = fitted(photos, tmp_path, "host")
    assert changed.phases["decode"] == 0
    assert changed.total_s / changed.n_steps < 0.5 * times.total_s / times.n_steps


def test_a_large_field_in_memory_limits_by_its_copies(photos: Store, tmp_path: Path) -> None:
    times, said = fitted(photos, tmp_path, "host", batch_size=32, epochs=9)
    assert times.limit() == "gather"
    assert times.phases["decode"] == 0
    expected = (
        r"gather limits: \d+% of a step waits for rows to be copied .* 1.08 MB: take a smaller crop or fewer steps"
    )
    assert re.match(expected, said)


def test_pieces_of_a_stream_that_are_waited_for_are_decoding(photos: Store, tmp_path: Path) -> None:
    times, said = fitted(photos, tmp_path, "stream", memory_budget="30MB")
    assert times.limit() == "decode"
    assert "for pieces of the stream; set residency of image in data.fields to host" in said


@pytest.mark.parametrize(
    ("times", "limit"),
    [
        (StepTimes(10, 9.0, 0.1, 0.2, {"decode": 5.0, "gather": 1.0, "copy": 0.0}), "model"),
        (StepTimes(10, 9.0, 1.0, 0.2, {"decode": 5.0, "gather": 1.0, "copy": 0.0}), "decode"),
        (StepTimes(10, 9.0, 1.0, 0.2, {"decode": 0.0, "gather": 3.0, "copy": 0.1}), "gather"),
        (StepTimes(10, 9.0, 0.1, 0.2, {"decode": 0.0, "gather": 1.0, "copy": 8.0}, on_gpu=True), "copy"),
        (StepTimes(10, 9.0, 0.1, 0.2, {"decode": 0.0, "gather": 1.0, "copy": 6.0}, on_gpu=True), "model"),
        (StepTimes(10, 9.0, 0.1, 0.2, {"decode": 0.0, "gather": 1.0, "copy": 6.0}), "model"),
        (StepTimes(10, 2.0, 0.1, 3.0, {"decode": 0.0, "gather": 1.0, "copy": 0.0}), "lightning"),
        (StepTimes(10, 9.0, 2.0, 0.2, {"decode": 0.0, "gather": 0.1, "copy": 0.0}), "model"),
    ],
    ids=[
        "no wait",
        "waits",
        "waits for copies",
        "a GPU copies",
        "beside a step",
        "a CPU does not",
        "small steps",
        "a busy machine",
    ],
)
def test_the_limit_is_the_largest_phase_of_batches_if_they_are_waited_for_and_else_of_a_step(
    times: StepTimes, limit: str
) -> None:
    assert times.limit() == limit


def test_a_phase_within_another_counts_once_on_each_thread() -> None:
    phases = Phases()
    began = time.perf_counter()
    with phases.timed("gather"):
        time.sleep(0.02)
        with phases.timed("decode"):
            time.sleep(0.04)
    elapsed, found = time.perf_counter() - began, phases.seconds()
    assert found["decode"] >= 0.04
    assert 0.02 <= found["gather"] <= elapsed - found["decode"]
    assert sum(found.values()) == pytest.approx(elapsed, abs=0.005)


def test_the_first_batch_of_an_epoch_is_waited_for_and_validation_is_not(
    photos: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = Monitor()

    class LongValidation(NLinear):
        """A model that is slow to validate."""

        def on_validation_epoch_end(self) -> None:
            """Take long."""
            time.sleep(0.5)
            super().on_validation_epoch_end()

    data = WindowDataModule(str(photos.path), 2, 1, batch_size=8, channels=["v"], cache=str(tmp_path / "cache"))
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, callbacks=[monitor], **QUIET)
    with caplog.at_level(logging.INFO, "lightning_app"):
        trainer.fit(LongValidation(data.shape), data)
    loader, total = trainer.train_dataloader, monitor.total
    assert loader is not None
    assert total.n_batches == 3 * len(loader) - 3
    assert total.wait_s <= loader.phases.wait_s
    assert total.wait_s + total.between_s < 0.5
    assert caplog.messages[-1].split(" limits: ")[0] in ("model", "gather", "Lightning")
    assert [name in caplog.messages[-3] for name in ("waiting for data", "between steps")] == [True, True]
