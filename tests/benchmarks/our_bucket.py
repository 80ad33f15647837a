"""What suite bucket runs of ours, each in a process of its own: ``python -m tests.benchmarks.our_bucket STORE …``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.monitor import Monitor
from zstore import Scaling, open_rows, open_store, verify

from .bucket_peers import BATCH, LOOKBACK, SPAN, options_of, timed
from .epoch import Stopwatch


def module(url: str, options: dict[str, str] | None, cache: Path, budget: str) -> WindowDataModule:
    """A stream of windows that do not overlap."""
    return WindowDataModule(
        url,
        LOOKBACK,
        SPAN - LOOKBACK,
        stride=SPAN,
        batch_size=BATCH,
        scaler="none",
        residency="stream",
        memory_budget=budget,
        cache=str(cache),
        storage_options=options,
    )


class Pause(pl.LightningModule):
    """Stands in for a model on a GPU: each step takes so many seconds, and no processor."""

    automatic_optimization = False

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def training_step(self, batch: Any, number: int) -> None:
        time.sleep(self.seconds)

    def configure_optimizers(self) -> None:
        return


def fit(data: WindowDataModule, seconds: float) -> dict[str, float]:
    """Seconds of an epoch, and the share of it that was waited for data, without its first three batches."""
    data.setup("fit")
    n_batches = len(data.train_dataloader())
    watch, monitor = Stopwatch(), Monitor()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[watch, monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Pause(seconds / n_batches), datamodule=data)
    return {"epoch_s": watch.seconds, "waits": monitor.total.figures()["perf/wait_share"]}


def main() -> None:
    """Print figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--budget", required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="that the steps of an epoch take")
    parser.add_argument("--what", choices=["stream", "fit", "rows", "verify"], default="stream")
    given = parser.parse_args()
    url, options = f"s3://bench/{given.store.name}", options_of(given.port)
    torch.set_num_threads(1)
    began = time.perf_counter()
    found: dict[str, float] = {}
    near = str(given.store), None, given.cache, given.budget
    if given.what == "stream":
        loader: Any = module(url, options, given.cache, given.budget).train_dataloader()
        found = timed(loader, began)
        local: Any = module(*near).train_dataloader()
        found["local_s"] = timed(local, began)["again_s"]
    elif given.what == "fit":
        places = {"": (url, options, given.cache, given.budget), "_again": (url, options, given.cache, given.budget)}
        for name, place in (places | {"_local": near}).items():
            found |= {f"{key}{name}": value for key, value in fit(module(*place), given.seconds).items()}
    elif given.what == "rows":
        store = open_store(url, storage_options=options)
        open_rows(store, store.channels, Scaling.identity(len(store.channels)), given.cache)
        found["epoch_s"] = time.perf_counter() - began
    else:
        assert not verify(open_store(url, storage_options=options)).faults
        found["epoch_s"] = time.perf_counter() - began
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
