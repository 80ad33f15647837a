"""How this project reads windows of frames: ``python -m tests.benchmarks.our_fields HOW FOLDER …``; prints JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import DecodedField, FieldResidency
from lightning_app.data.windows.splits import Split
from lightning_app.models import FieldToFloat
from zstore import open_store

from .field_peers import BATCH, HORIZON, LOOKBACK, endless, paced, private_mib

EIGHTH = 8
TURNS = 3


def module_of(folder: Path, residency: FieldResidency, cache: Path, batch: int = BATCH) -> WindowDataModule:
    """The windows of :mod:`tests.benchmarks.field_peers`; a stream gets an eighth of what all frames take."""
    store = open_store(folder / "frames.zarr")
    n_bytes = store.n_rows * int(np.prod(store.field("image").shape))
    return WindowDataModule(
        str(store.path),
        LOOKBACK,
        HORIZON,
        delay=-1,
        pad_before="repeat",
        pad_after="repeat",
        channels=["state"],
        targets=["action"],
        fields={"image": FieldOptions(LOOKBACK, residency=residency)},
        scaler="minmax_signed",
        split=Split(by="series", sizes=(1, 0, 0)),
        batch_size=batch,
        cache=str(cache),
        residency="host",
        memory_budget=f"{n_bytes // EIGHTH}B" if residency == "stream" else 0.5,
    )


def copier(values: torch.Tensor, n_bytes: int) -> Callable[[], int]:
    """Copies as many bytes as a batch has from random places of the frames, where they lie beside each other."""
    flat = values.flatten()
    out, last = torch.empty(n_bytes, dtype=flat.dtype), len(flat) - n_bytes
    starts = np.random.default_rng(0).integers(0, last + 1, 1000).tolist()
    numbers = iter(range(10**9))

    def copy() -> int:
        start = starts[next(numbers) % len(starts)]
        out.copy_(flat[start : start + n_bytes])
        return BATCH

    return copy


def in_turns(readers: dict[str, Callable[[], int]], seconds: float) -> dict[str, dict[str, float]]:
    """Samples a second, and a second of processors, of several readers in turn; medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in readers}
    for _ in range(TURNS):
        for name, take in readers.items():
            found[name].append(paced(take, seconds / TURNS))
    return {
        name: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]} for name, turns in found.items()
    }


def read(name: str, folder: Path, cache: Path, seconds: float) -> dict[str, Any]:
    """Samples a second, seconds to the first batch, and memory; of others, that were measured in turn, the first."""
    began = time.perf_counter()
    data = module_of(folder, "host" if name == "first" else name, cache)  # type: ignore[arg-type]
    loader = data.train_dataloader()
    take = endless(loader)
    take()
    found: dict[str, Any] = {"first_s": time.perf_counter() - began}
    if name == "first":
        return found
    readers = {name: take}
    if name == "host":
        readers |= beside(data)
    rates = in_turns(readers, seconds)
    found |= {**rates.pop(name), "others": rates, "private_mib": private_mib()}
    if data.pool is not None:
        found |= decoded(data, loader)
    return found


def beside(data: WindowDataModule) -> dict[str, Callable[[], int]]:
    """Copies of as many bytes as a batch has, and frames as float."""
    values = data.source.fields["image"].values
    assert isinstance(values, DecodedField)
    batch: Any = next(iter(data.train_dataloader()))
    n_bytes = sum(batch[key].nbytes for key in ("image", "x", "y"))
    model, out = FieldToFloat(data.shape, "image"), torch.empty(batch["image"].shape)
    floats = endless(data.train_dataloader(), lambda batch: model(batch["image"], out))
    return {"copy": copier(values.values, n_bytes), "float": floats}


def decoded(data: WindowDataModule, loader: WindowLoader) -> dict[str, float]:
    """How often each chunk is decoded in an epoch, and how large the pool is."""
    pool = data.pool
    assert pool is not None
    before = pool.n_decoded
    n_samples = sum(len(batch["series"]) for batch in loader)
    found = {"n_samples": n_samples, "decoded_per_epoch": (pool.n_decoded - before) / pool.reader.n_chunks_stored}
    return {**found, "pool_mib": pool.plan.n_bytes / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description="How this project reads windows of frames.")
    parser.add_argument("name", choices=["first", "host", "encoded", "stream"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    print(json.dumps(read(options.name, options.folder, options.cache, options.seconds)))


if __name__ == "__main__":
    main()
