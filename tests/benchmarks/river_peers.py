"""How NeuralHydrology trains its CudaLSTM on rivers: ``python -m tests.benchmarks.river_peers RAW FOLDER --start …``.

Its own training, from a configuration as its users write it. ``csv`` reads the raw files, which it does in every run;
``save`` keeps its rows for later runs, as ``pickle`` reads them, and writes the netCDF files that Caravan publishes
beside those of text, as ``netcdf`` reads them. ``score`` trains longer, and evaluates; ``check`` compares a batch of
ours with its samples. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from neuralhydrology.datasetzoo import register_dataset
from neuralhydrology.datasetzoo.caravan import Caravan, load_caravan_timeseries
from neuralhydrology.evaluation import get_tester
from neuralhydrology.training.basetrainer import BaseTrainer
from neuralhydrology.utils.config import Config

from .river_data import BATCH, CHANNELS, FORGET, HIDDEN, LOOKBACK, RATE, TARGET, periods_of, statics_of


def clocks() -> tuple[float, float]:
    """Seconds since this process began, and seconds that processors have worked for it."""
    process = psutil.Process()
    times = process.cpu_times()
    return time.time() - process.create_time(), sum(times[:4])


IMPORTED = clocks()


class CaravanCSV(Caravan):  # type: ignore[misc]  # of no type where it is not installed
    """Its data set of Caravan, from the files of text."""

    def _load_basin_data(self, basin: str) -> Any:
        return load_caravan_timeseries(data_dir=self.cfg.data_dir, basin=basin, filetype="csv")


class Watched:
    """A loader: when the first batch is there, and for how long the training waited for the others."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.first, self.ended, self.wait_s, self.n_batches = loader, (0.0, 0.0), (0.0, 0.0), 0.0, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches, asked = iter(self.loader), time.perf_counter()
        for batch in batches:
            if self.n_batches == 0:
                self.first = clocks()
            else:
                self.wait_s += time.perf_counter() - asked
            self.n_batches += 1
            yield batch
            asked, self.ended = time.perf_counter(), clocks()


def configuration(raw: Path, folder: Path, source: str, steps: int, seed: int) -> Config:
    """What its user would write."""
    dates = pd.to_datetime(periods_of(raw))
    begins, ends = dates[:-1], dates[1:] - pd.Timedelta(days=1)
    periods = {
        f"{name}_{side}_date": each[n].strftime("%d/%m/%Y")
        for n, name in enumerate(("train", "validation", "test"))
        for side, each in (("start", begins), ("end", ends))
    }
    files = {f"{name}_basin_file": str(raw / "gauges.txt") for name in ("train", "validation", "test")}
    saved = sorted((folder / "runs").glob("saved_*/train_data/train_data.p"))
    return Config(
        {
            "experiment_name": "saved" if source == "save" else "rivers",
            "run_dir": str(folder / "runs"),
            **files,
            **periods,
            "device": "cpu",
            "seed": seed,
            "dataset": "caravan" if source == "netcdf" else "caravan_csv",
            "data_dir": str(raw),
            "save_train_data": source == "save",
            **({"train_data_file": str(saved[-1])} if source == "pickle" else {}),
            "dynamic_inputs": CHANNELS,
            "static_attributes": statics_of(raw),
            "target_variables": [TARGET],
            "model": "cudalstm",
            "head": "regression",
            "output_activation": "linear",
            "hidden_size": HIDDEN,
            "initial_forget_bias": FORGET,
            "output_dropout": 0.0,
            "loss": "NSE",
            "optimizer": "Adam",
            "learning_rate": {0: RATE},
            "batch_size": BATCH,
            "epochs": 1,
            "max_updates_per_epoch": steps,
            "seq_length": LOOKBACK,
            "predict_last_n": 1,
            "num_workers": 0,
            "log_tensorboard": False,
            "log_interval": 50,
            "save_weights_every": 1,
            "metrics": ["NSE"],
            "verbose": 0,
        }
    )


def fit(config: Config) -> dict[str, float]:
    """Train for an epoch of so many steps."""
    trainer = BaseTrainer(cfg=config)
    trainer.initialize_training()
    loader = trainer.loader = Watched(trainer.loader)
    trainer.train_and_validate()
    steps_s, n_steps = loader.ended[0] - loader.first[0], loader.n_batches - 1  # the last one only ends the loop
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return {
        "imports_s": IMPORTED[0],
        "imports_cpu_s": IMPORTED[1],
        "first_s": loader.first[0],
        "first_cpu_s": loader.first[1],
        "steps_s": steps_s,
        "steps_cpu_s": loader.ended[1] - loader.first[1],
        "n_steps": n_steps,
        "wait_share": loader.wait_s / steps_s,
        "n_windows": len(loader.loader.dataset),
        "peak_mib": int(peak.split()[1]) / 1024,
    }


def to_netcdf(raw: Path) -> None:
    """The files that Caravan publishes beside those of text."""
    folder = raw / "timeseries" / "netcdf" / "camels"
    folder.mkdir(parents=True, exist_ok=True)
    for gauge in (raw / "gauges.txt").read_text().split():
        path = folder / f"{gauge}.nc"
        if not path.exists():
            rows = load_caravan_timeseries(data_dir=raw, basin=gauge, filetype="csv")
            rows.to_xarray().to_netcdf(path)


def check(config: Config, batch: Path) -> dict[str, int]:
    """Compare a batch of ours, in source units, with samples for the same days; raises AssertionError."""
    trainer = BaseTrainer(cfg=config)
    dataset = trainer._get_dataset()
    center, scale = (dataset.scaler[f"xarray_feature_{name}"] for name in ("center", "scale"))
    places = {}
    for number, (gauge, (at,)) in dataset.lookup_table.items():
        places[gauge, dataset._dates[gauge]["1D"][at].astype("M8[D]")] = number
    with np.load(batch) as ours:
        for n, (gauge, date) in enumerate(zip(ours["gauge"], ours["date"], strict=True)):
            sample = dataset[places[str(gauge), date]]
            for column, name in enumerate(CHANNELS):
                theirs = sample["x_d"][name][:, 0].numpy() * float(scale[name]) + float(center[name])
                np.testing.assert_allclose(ours["x"][n, :, column], theirs, rtol=1e-4, atol=1e-3)
            flow = float(sample["y"][-1, 0]) * float(scale[TARGET]) + float(center[TARGET])
            np.testing.assert_allclose(ours["y"][n], flow, rtol=1e-4, atol=1e-3)
        return {"n_compared": ours["x"].size, "n_windows": len(dataset)}


def main() -> None:
    parser = argparse.ArgumentParser(description="How NeuralHydrology trains its CudaLSTM on rivers.")
    parser.add_argument("raw", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", choices=["csv", "netcdf", "save", "pickle", "score", "check"], default="csv")
    parser.add_argument("--batch", type=Path, help="of ours, to compare")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    register_dataset("caravan_csv", CaravanCSV)
    config = configuration(options.raw, options.folder, options.start, options.steps, options.seed)
    if options.start == "check":
        print(json.dumps(check(config, options.batch)))
        return
    if options.start == "save":
        to_netcdf(options.raw)
    found = fit(config)
    if options.start == "score":
        tester = get_tester(cfg=config, run_dir=config.run_dir, period="test", init_model=True)
        scored = tester.evaluate(save_results=False, metrics=["NSE"])
        found["nse_median"] = float(np.median([each["1D"]["NSE"] for each in scored.values()]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
