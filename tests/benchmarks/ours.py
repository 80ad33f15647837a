"""How this project reads windows: ``python -m tests.benchmarks.ours STORE --residency host …``; prints JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.batches.source import gather
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split

from .harness import rate
from .peers import LOOKBACK, SPAN, measure


def module_of(options: argparse.Namespace) -> WindowDataModule:
    return WindowDataModule(
        str(options.store),
        LOOKBACK,
        SPAN - LOOKBACK,
        stride=options.stride,
        batch_size=options.batch,
        split=Split(sizes=(0.98, 0.01, 0.01)),
        cache=str(options.cache),
        residency=options.residency,
        memory_budget=options.budget,
    )


def memcpy(rows: torch.Tensor, batch: int, seconds: float) -> float:
    """Windows per second, if their bytes lay beside each other: copies of as many rows from random places."""
    n_rows = batch * SPAN
    out = torch.empty(n_rows, rows.shape[1])
    places = np.random.default_rng(0).integers(0, len(rows) - n_rows, 1000).tolist()
    numbers = iter(range(10**9))

    def copy() -> int:
        place = places[next(numbers) % len(places)]
        out.copy_(rows[place : place + n_rows])
        return batch

    return rate(copy, seconds)


def microseconds(data: WindowDataModule, loader: WindowLoader) -> dict[str, float]:
    """Where the time of a batch goes, each part measured alone; medians."""
    source, shape, batch = data.source, loader.index.shape, loader.batch_size
    n_windows = max(16_384, batch)
    located = loader._locate(np.arange(n_windows))
    parts = list(located.split([batch] * (n_windows // batch)))
    numbers = iter(range(10**9))

    def part() -> Any:
        return parts[next(numbers) % len(parts)]

    def copy() -> None:
        size = (batch, shape.span * source.rows.values.shape[1])
        gather(source.rows.values, part().start, shape.span, source.buffers.take(size, np.dtype(np.float32)))

    located_us = median_us(lambda: loader._locate(np.arange(n_windows)), 40) * batch / n_windows
    copied_us = median_us(copy, 400)
    batch_us = median_us(lambda: source.batch(shape, part()), 400)
    return {"locate": located_us, "gather": copied_us, "rest of the batch": batch_us - copied_us}


def median_us(function: Callable[[], Any], n: int) -> float:
    function()
    found = []
    for _ in range(n):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return sorted(found)[n // 2] * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="How this project reads windows.")
    parser.add_argument("store", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".bench"))
    parser.add_argument("--residency", default="host")
    parser.add_argument("--budget", default="0.5")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    data = module_of(options)
    data.store.index, data.scaler  # noqa: B018  # opened and fitted before; only what follows is counted
    idle = psutil.Process().memory_info().rss
    began = time.perf_counter()
    loader = data.train_dataloader()
    windows_per_s, _ = measure(loader, options.batch, options.seconds)
    found: dict[str, Any] = {"windows_per_s": windows_per_s, "first_s": time.perf_counter() - began - options.seconds}
    if data.pool is not None:
        before = data.pool.n_decoded
        n_windows = sum(len(batch["series"]) for batch in loader)
        n_chunks = data.store.n_chunks(0, data.store.n_rows)
        found |= {
            "decoded_per_epoch": (data.pool.n_decoded - before) / n_chunks,
            "n_windows": n_windows,
            "peak_over_idle": psutil.Process().memory_info().rss - idle,
            "budget": options.budget,
        }
    elif options.residency == "host":
        found["memcpy"] = memcpy(data.source.rows.values, options.batch, 1.0)
        found["microseconds"] = microseconds(data, loader)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
