"""How this project trains an LSTM on rivers: a configuration for `python -m lightning_app`, and a callback that looks.

``python -m tests.benchmarks.our_rivers RAW FOLDER`` writes the configuration, and keeps a batch of it for peers to
compare.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytorch_lightning as pl
import yaml

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.monitor import Monitor, peak_bytes

from .river_data import BATCH, CHANNELS, HIDDEN, LOOKBACK, RATE, TARGET, periods_of, statics_of


def clocks() -> tuple[float, float]:
    """Seconds since this process began, and seconds that processors have worked for it."""
    process = psutil.Process()
    times = process.cpu_times()
    return time.time() - process.create_time(), sum(times[:4])  # its children that have ended included


IMPORTED = clocks()  # this module is imported when everything else is


class Watch(pl.Callback):
    """Prints, at the end of a fit, when the first batch was there, what the steps took, and the peak memory."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.first = self.first or clocks()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        assert self.first is not None
        ended = clocks()
        (monitor,) = [each for each in trainer.callbacks if isinstance(each, Monitor)]
        found = {
            "imports_s": IMPORTED[0],
            "imports_cpu_s": IMPORTED[1],
            "first_s": self.first[0],
            "first_cpu_s": self.first[1],
            "steps_s": ended[0] - self.first[0],
            "steps_cpu_s": ended[1] - self.first[1],
            "n_steps": trainer.global_step,
            "wait_share": monitor.total.figures().get("perf/wait_share", 0.0),
            "n_windows": len(trainer.train_dataloader.index),
            "peak_mib": peak_bytes() / 2**20,
        }
        print(json.dumps(found))


def configuration(raw: Path, folder: Path) -> dict[str, Any]:
    """What a user would write, and the callback."""
    data = {
        "store": str(raw / "timeseries" / "csv" / "camels" / "*.csv"),
        "ingest": {
            "id_from_path": r"(camels_\w+)\.csv$",
            "time": "date",
            "static": str(raw / "attributes" / "camels" / "attributes.csv"),
        },
        "cache": str(folder / "cache"),
        "lookback": LOOKBACK,
        "horizon": 1,
        "delay": -1,
        "channels": CHANNELS,
        "targets": [TARGET],
        "statics": statics_of(raw),
        "whole_targets": True,
        "split": {"dates": periods_of(raw)},
        "batch_size": BATCH,
    }
    loss = {"class_path": "lightning_app.losses.NSE"}
    options = {"hidden": HIDDEN, "input_layer": False, "loss": loss, "loss_units": "source", "units": "source"}
    watch = {"class_path": f"{__package__}.our_rivers.Watch"}
    trainer = {"logger": False, "limit_val_batches": 0, "accelerator": "cpu", "callbacks": [watch]}
    return {
        "data": data,
        "model": {"class_path": "LSTM", "init_args": {**options, "series_scores": True}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": RATE}},
        "trainer": {**trainer, "default_root_dir": str(folder / "run")},
    }


def facts(raw: Path, folder: Path) -> dict[str, Any]:
    """Keep a batch of training windows in source units, by gauge and day."""
    options = configuration(raw, folder)["data"]
    data = WindowDataModule(split=Split(**options.pop("split")), **options)
    index = data.train_dataloader().index
    batch = next(iter(data.loaders.in_order(index)))
    scaler = data.scaler.of(data.inputs)
    np.savez(
        folder / "batch.npz",
        x=batch["x"].numpy() * scaler.scale + scaler.offset,
        y=data.to_source(batch["y"], batch["series"])[:, 0, 0].numpy(),
        gauge=np.array(data.store.ids[batch["series"].numpy()].tolist()),
        date=batch["time"].numpy().astype(f"M8[{data.store.schema.time.unit}]").astype("M8[D]"),
    )
    return {"n_windows": len(index)}


def main() -> None:
    parser = argparse.ArgumentParser(description="How this project trains an LSTM on rivers.")
    parser.add_argument("raw", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rivers.yaml").write_text(yaml.safe_dump(configuration(options.raw, folder)))
    print(json.dumps(facts(options.raw, folder)))


if __name__ == "__main__":
    main()
