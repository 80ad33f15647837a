"""How this project reads windows of sessions: ``python -m tests.benchmarks.our_sessions STORE …``; prints JSON.

With ``--check`` it reads each window once, and counts those with a label of which the generator says that it failed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split

from .peers import measure
from .session_data import failed

LENGTH, BATCH, STRIDE = 2000, 64, 100


def module_of(store: Path, cache: Path, residency: str = "host", budget: str = "0.5") -> WindowDataModule:
    """Windows of EMG, with the joint angles of the same rows as targets; all sessions are trained on."""
    return WindowDataModule(
        str(store),
        lookback=LENGTH,
        horizon=LENGTH,
        delay=-LENGTH,
        stride=STRIDE,
        channels=["emg"],
        targets=["joint_angles"],
        whole_targets=True,
        scaler="none",
        batch_size=BATCH,
        split=Split(by="series", sizes=(1.0, 0.0, 0.0)),
        cache=str(cache),
        residency=residency,  # type: ignore[arg-type]
        memory_budget=budget,
    )


def starts(data: WindowDataModule) -> Any:
    """(window, 2) int64 session and first row in it of each training window."""
    index = data.index("train", STRIDE)
    first, series, _ = index.locate(np.arange(len(index)))
    return np.stack([series, first - data.store.index.row_start[series]], axis=1)


def check(data: WindowDataModule) -> dict[str, Any]:
    """Windows of an epoch, all of their rows compared with what failed when the sessions were made."""
    edges = data.store.index.row_start
    lengths = np.diff(edges).tolist()
    before = [np.append(0, failed(number, n).cumsum()) for number, n in enumerate(lengths)]
    n_failed = sum(
        bool(before[session][first + LENGTH] - before[session][first]) for session, first in starts(data).tolist()
    )
    n_windows = n_zero = 0
    for batch in data.loaders.in_order(data.index("train", STRIDE)):
        zeros = (batch["y"] == 0).all(dim=2).any(dim=1)
        n_windows, n_zero = n_windows + len(zeros), n_zero + int((zeros | ~batch["mask"].all(dim=(1, 2))).sum())
    n_good = sum(
        int(counts[low + LENGTH] - counts[low] == 0)
        for counts in before
        for low in range(0, len(counts) - LENGTH, STRIDE)
    )
    return {"n_windows": n_windows, "n_failed": n_failed, "n_zero_or_masked": n_zero, "n_without_failure": n_good}


def main() -> None:
    parser = argparse.ArgumentParser(description="How this project reads windows of sessions.")
    parser.add_argument("store", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".bench"))
    parser.add_argument("--residency", default="host")
    parser.add_argument("--budget", default="0.5")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    data = module_of(options.store, options.cache, options.residency, options.budget)
    if options.check:
        print(json.dumps(check(data)))
        return
    began = time.perf_counter()
    loader = data.train_dataloader()
    windows_per_s, _ = measure(loader, BATCH, options.seconds)
    found = {"windows_per_s": windows_per_s, "first_s": time.perf_counter() - began - options.seconds}
    print(json.dumps({**found, "n_windows": len(loader.index)}))


if __name__ == "__main__":
    main()
