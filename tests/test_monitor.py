"""What a fit says of its memory, and what it costs to say so."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models import NLinear
from lightning_app.monitor import Monitor, Tally
from zstore import Store

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own are theirs to fix


def test_the_peak_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it() -> None:
    held = np.ones(1 << 27)  # 1 GiB, far more than what PyTorch takes
    code = "from lightning_app.monitor import peak_bytes; print(peak_bytes())"
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert 100_000_000 < int(shown.stdout) < held.nbytes


def test_a_wait_for_a_first_batch_is_not_yet_a_speed() -> None:
    assert Tally(wait_s=0.5, between_s=0.1).figures() == {}
    assert Tally(1, 32, 0.5, 1.0, 0.5).figures()["perf/windows_per_s"] == 16


def fitted(store: Store, folder: Path, **options: Any) -> pl.Trainer:
    """A trainer after 40 steps, each of which is logged."""
    data = WindowDataModule(str(store.path), 24, 6, batch_size=32, cache=str(folder / "cache"))
    given: dict[str, Any] = {"max_steps": 40, "limit_val_batches": 0, "log_every_n_steps": 1, "accelerator": "cpu"}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**(given | quiet | options), default_root_dir=folder, callbacks=[Monitor()])
    trainer.fit(NLinear(data.shape), data)
    return trainer


def test_looking_at_memory_takes_no_more_than_a_hundredth_of_the_time(
    hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def slow(trainer: pl.Trainer) -> dict[str, float]:
        looks.append(time.perf_counter())
        time.sleep(0.2)
        return {"perf/rss_gb": 1.0}

    monkeypatch.setattr("lightning_app.monitor.memory", slow)
    fitted(hourly, tmp_path, logger=CSVLogger(tmp_path))
    steps, rest = looks[:-1], looks[-1:]  # the last one is that of the table at the end
    assert (len(steps), len(rest)) == (1, 1)
    assert "perf/windows_per_s" in (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()


def test_without_a_bar_no_loss_is_made_ready_for_one(hourly: Store, tmp_path: Path) -> None:
    assert "train/loss" not in fitted(hourly, tmp_path, logger=False).progress_bar_metrics
    assert "train/loss" in fitted(hourly, tmp_path, logger=False, enable_progress_bar=True).progress_bar_metrics
