"""Callbacks that write down what each training step saw, kill their process, and measure its memory."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import xxhash

from lightning_app.batch import BATCH_KEYS


class Witness(pl.Callback):
    """One line of JSON a step and rank: epoch, step, windows, a digest of their fields, loss to the last bit.

    Kills the process after step `kill_at`: at once, or some seconds later, whatever it does then. Each step takes
    `pause_s` longer, so that others can kill it, too.
    """

    def __init__(
        self, path: str, kill_at: int | None = None, kill_after_s: float | None = None, pause_s: float = 0
    ) -> None:
        self.path, self.kill_at, self.kill_after_s, self.pause_s = Path(path), kill_at, kill_after_s, pause_s

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        windows = list(zip(batch["series"].tolist(), batch["time"].tolist(), strict=True))
        seen = {"epoch": trainer.current_epoch, "step": trainer.global_step, "windows": windows}
        fields = [values.numpy() for name, values in sorted(batch.items()) if name not in BATCH_KEYS]
        seen["fields"] = xxhash.xxh3_128_hexdigest(b"".join(values.tobytes() for values in fields))
        with self.path.with_suffix(f".{trainer.global_rank}").open("a") as file:
            file.write(json.dumps({**seen, "loss": float(outputs["loss"]).hex()}) + "\n")
        time.sleep(self.pause_s)
        if trainer.global_step == self.kill_at:
            if self.kill_after_s is not None:
                threading.Timer(self.kill_after_s, _die).start()
            else:
                _die()


class LaneWitness(Witness):
    """Also a digest of the values of each window and, at the end, what the pool of the process was and decoded."""

    def __init__(self, path: str, kill_at: int | None = None) -> None:
        super().__init__(path, kill_at)
        self._decoded: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        values = [batch[name].numpy() for name in ("x", "y")]
        digests = [
            xxhash.xxh3_64_hexdigest(b"".join(own[n].tobytes() for own in values)) for n in range(len(values[0]))
        ]
        with self.path.with_suffix(f".values.{trainer.global_rank}").open("a") as file:
            file.write(json.dumps(digests) + "\n")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._decoded.append(trainer.datamodule.pool.n_decoded)  # type: ignore[attr-defined]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._decoded.append(trainer.datamodule.pool.n_decoded)  # type: ignore[attr-defined]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        plan = trainer.datamodule.pool.plan  # type: ignore[attr-defined]
        found = {
            "n_bytes": plan.n_bytes,
            "lanes": plan.pieces.plan.lanes,
            "decoded": self._decoded[-2] - self._decoded[-3],
        }
        self.path.with_suffix(f".pool.{trainer.global_rank}").write_text(json.dumps(found))


class RowMemory(pl.Callback):
    """Writes down, where a test ends, how many bytes of row files each rank has mapped, and its share of them."""

    def __init__(self, path: str, cache: str) -> None:
        self.path, self.cache = Path(path), cache

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.strategy.barrier()  # all have read all rows, and none has let go of them
        found, counts = {"Rss": 0, "Pss": 0, "Private_Dirty": 0, "Anonymous": 0}, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            first, *rest = line.split()
            if "-" in first and not first.endswith(":"):  # 7f00-7f01 r--s 0000 fe:00 12 /path
                counts = len(rest) > 4 and rest[4].startswith(self.cache)
            elif counts and first[:-1] in found:
                found[first[:-1]] += int(rest[0]) << 10
        self.path.with_suffix(f".{trainer.global_rank}").write_text(json.dumps(found))
        trainer.strategy.barrier()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
