"""Where the time and the memory of a fit go: windows per second, waiting for data, processes and GPUs."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

from lightning_app.batch import Batch
from lightning_app.data.batches.phases import Phase, Phases
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.limits import StepTimes, advice

try:
    import resource as _resource
except ImportError:  # Windows
    resource: Any = None
else:
    resource = _resource

logger = logging.getLogger(__name__)

_SHOWN = {
    "perf/pss_gb": ("PSS now", "{:.2f} GB"),
    "perf/gpu_gb": ("GPU memory", "{:.2f} GB"),
    "perf/gpu_busy": ("GPU busy", "{:.0%}"),
}
_WARM_UP = 3  # batches that set things up and are not counted
_LOOKS = 0.01  # of the time may go into looking at memory: 20 ms of a process that uses a GPU


@dataclass
class Tally:
    """Sums over batches.

    Parameters
    ----------
    n_batches, n_windows
        How many, of all processes.
    wait_s, step_s, between_s
        Seconds that the loader held the trainer up, within steps, and of the trainer's own work between two steps.
    """

    n_batches: int = 0
    n_windows: int = 0
    wait_s: float = 0.0
    step_s: float = 0.0
    between_s: float = 0.0

    def figures(self) -> dict[str, float]:
        """Windows per second, and the shares of the time that went into waiting for data and between steps."""
        seconds = self.wait_s + self.step_s + self.between_s
        if not self.n_batches or not seconds:  # a first batch that is not done has a wait and no windows
            return {}
        return {
            "perf/windows_per_s": self.n_windows / seconds,
            "perf/wait_share": self.wait_s / seconds,
            "perf/between_share": self.between_s / seconds,
        }


class Monitor(pl.Callback):
    """Logs speed and memory while a model is fitted, and says at the end what they were, and what limited the fit.

    Notes
    -----
    Waiting for data is the time for which the loader held the trainer up, the first batch of each epoch but the first
    included. Between two steps the trainer and its callbacks do work of their own, which is told beside it; validation
    and checkpoints at the end of an epoch are neither. With a loader that does not say how long it is waited for, all
    between two steps counts as waiting. Steps of a GPU run on while the next is prepared, so there a small share of
    waiting means that the GPU was kept busy, and `perf/gpu_busy` (of the last second, where the driver tells) says how
    busy.
    """

    def __init__(self) -> None:
        self.total = Tally()
        self._recent = Tally()
        self._since: float | None = None
        self._began = self._waited = 0.0
        self._seen = 0
        self._look_again = 0.0
        self._phases: Phases | None = None
        self._before: dict[Phase, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What the trainer does between epochs is not counted."""
        self._since = None
        self._phases = getattr(trainer.train_dataloader, "phases", None)
        self._waited = 0.0 if self._phases is None else self._phases.wait_s

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        self._began = perf_counter()
        gap = 0.0 if self._since is None else self._began - self._since
        wait = gap if self._phases is None else self._phases.wait_s - self._waited
        self._waited += wait
        if self._seen == _WARM_UP and self._phases is not None:
            self._before = self._phases.seconds()
        if self._seen >= _WARM_UP:
            for tally in (self.total, self._recent):
                tally.wait_s += wait
                tally.between_s += max(gap - wait, 0.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The step is done."""
        now = perf_counter()
        self._seen += 1
        if self._seen > _WARM_UP:
            for tally in (self.total, self._recent):
                tally.n_batches += 1
                tally.n_windows += len(batch["time"]) * trainer.world_size
                tally.step_s += now - self._began
        if trainer.global_step % trainer.log_every_n_steps == 0 and self._recent.n_batches:  # type: ignore[attr-defined]
            step = trainer.fit_loop.epoch_loop._batches_that_stepped  # as Lightning counts what the same batch logs
            figures = self._recent.figures()
            if trainer.loggers and now >= self._look_again:
                figures |= memory(trainer)
                looked = perf_counter()
                self._look_again = looked + (looked - now) / _LOOKS
            for log in trainer.loggers:
                log.log_metrics(figures, step=step)
            self._recent = Tally()
        self._since = perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nor is validation."""
        self._since = None

    def times(self, trainer: pl.Trainer) -> StepTimes:
        """Where the time of all steps went that were counted."""
        phases = {} if self._phases is None else self._phases.seconds()
        total, before = self.total, self._before
        return StepTimes(
            total.n_batches,
            total.step_s,
            total.wait_s,
            total.between_s,
            {phase: seconds - before.get(phase, 0.0) for phase, seconds in phases.items()},
            trainer.strategy.root_device.type == "cuda",
        )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log a short table, and a sentence on what limited."""
        figures = self.total.figures()
        if not trainer.is_global_zero or not figures:
            return
        held = memory(trainer)
        cells = {
            "steps": f"{self.total.n_batches:,}",
            "windows/s": f"{figures['perf/windows_per_s']:,.0f}",
            "waiting for data": f"{figures['perf/wait_share']:.1%}",
            "between steps": f"{figures['perf/between_share']:.1%}",
            "precision": str(trainer.precision),
            "peak RSS": f"{peak_bytes() / 1e9:.2f} GB",
            **{_SHOWN[name][0]: _SHOWN[name][1].format(value) for name, value in held.items() if name in _SHOWN},
        }
        widths = [max(len(name), len(cell)) for name, cell in cells.items()]
        for row in (cells.keys(), cells.values()):
            logger.info("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, WindowDataModule) and self._phases is not None:
            logger.info(advice(self.times(trainer), data))


def peak_bytes() -> int:
    """The most memory that this process has held, mapped files included."""
    status = Path("/proc/self/status")
    if status.exists():  # of this process alone; getrusage counts the one that started it too
        return 1024 * next(
            int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")
        )
    if resource is None:
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))  # Windows knows the peak; else what is held now
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def memory(trainer: pl.Trainer) -> dict[str, float]:
    """What this process holds, in GB, and what its GPU does.

    Returns
    -------
    ``rss_gb``; ``pss_gb``, in which pages shared by n processes count for an n-th (Linux); on a GPU ``gpu_gb``, the
    most that was allocated, and ``gpu_busy``.
    """
    process = psutil.Process()
    found = {"perf/rss_gb": process.memory_info().rss / 1e9}
    if psutil.LINUX:
        found["perf/pss_gb"] = process.memory_full_info().pss / 1e9
    device = trainer.strategy.root_device
    if device.type == "cuda":
        found["perf/gpu_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        try:
            found["perf/gpu_busy"] = torch.cuda.utilization(device) / 100
        except Exception as error:  # the driver's package lacks, or has errors of its own: no reason to end a fit
            logger.debug("no GPU utilisation: %s", error)
    return found
