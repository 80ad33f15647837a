"""Suite read: random windows through the data module, against a memory-mapped array in a torch DataLoader."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from tests.benchmarks.harness import rate, setting
from tests.benchmarks.ingest import generate
from zstore import ingest, open_store

LOOKBACK, HORIZON = 96, 24


class Memmap(Dataset[Any]):
    """The usual hand-written dataset: one window per item, sliced from a memory-mapped array."""

    def __init__(self, path: str, shape: tuple[int, int], starts: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self.rows, self.starts = np.memmap(path, np.float32, "r", shape=shape), starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.starts[sample]
        x = torch.from_numpy(np.array(self.rows[start : start + LOOKBACK]))
        y = torch.from_numpy(np.array(self.rows[start + LOOKBACK : start + LOOKBACK + HORIZON]))
        return x, y


def batches_per_second(loader: Iterable[Any], batch_size: int) -> float:
    """Windows per second, epoch after epoch."""
    endless = itertools.chain.from_iterable(itertools.repeat(loader))

    def take() -> int:
        next(endless)
        return batch_size

    return rate(take)


def run(folder: Path, data: Path | None, n: int) -> None:
    """3 M rows x 12 channels, windows of 96 + 24 rows, full batch dict."""
    target = folder / "wide.zarr"
    if not (target / "zarr.json").exists():
        ingest(generate(folder / "wide.csv"), target, id="id", time="time")
    store = open_store(target)
    rows = np.empty((store.n_rows, len(store.channels)), np.float32)
    store.decode(store.channels, rows)
    rows.tofile(folder / "rows.f4")
    print(f"### read: windows/s, {store.n_rows:,} rows x {rows.shape[1]}, {LOOKBACK} + {HORIZON} rows a window\n")
    print("| batch | ours (host) | memmap + DataLoader, 0 workers | 2 workers | memcpy | ours / best peer |")
    print("|---|---|---|---|---|---|")
    figures = []
    for batch_size in (256, 2048):
        module = WindowDataModule(
            str(target),
            LOOKBACK,
            HORIZON,
            batch_size=batch_size,
            split=Split(sizes=(0.98, 0.01, 0.01)),
            cache=str(folder),
        )
        loader = module.train_dataloader()
        starts = loader.index.locate(np.arange(len(loader.index)))[0]
        dataset = Memmap(str(folder / "rows.f4"), rows.shape, starts)
        ours = batches_per_second(loader, batch_size)
        peers = [
            batches_per_second(DataLoader(dataset, batch_size, shuffle=True, num_workers=workers), batch_size)
            for workers in (0, 2)
        ]
        block = torch.from_numpy(rows[: (LOOKBACK + HORIZON) * batch_size])

        def copy(block: torch.Tensor = block, size: int = batch_size) -> int:
            block.clone()
            return size

        limit = rate(copy)
        figures.append({"batch": batch_size, "ours": ours, "memmap_0": peers[0], "memmap_2": peers[1], "memcpy": limit})
        shown = " | ".join(f"{figure:,.0f}" for figure in (batch_size, ours, *peers, limit))
        print(f"| {shown} | {ours / max(peers):.1f} |", flush=True)
    (folder / "read.json").write_text(json.dumps({"setting": setting(), "figures": figures}, indent=1) + "\n")
