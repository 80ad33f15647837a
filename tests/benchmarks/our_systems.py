"""How this project trains: ``python -m tests.benchmarks.our_systems SYSTEM RAW FOLDER --start first|second|facts``.

``first`` ingests the raw files and makes a batch; ``second`` opens the store, counts batches and trains for an epoch;
``facts`` keeps, for peers, which windows there are, how they are scaled, and two batches in order. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split

from .epoch import batches_of, fit, measured
from .harness import remove
from .system_data import SYSTEMS, System, import_packages


def module_of(system: System, folder: Path) -> WindowDataModule:
    """The data module of the configuration, on a store of one's own."""
    options = system.configuration()["data"]
    split, fields = options.pop("split"), options.get("fields", {})
    told = {name: given if isinstance(given, int) else FieldOptions(**given) for name, given in fields.items()}
    options |= {"fields": told}
    options |= {"store": str(folder / "store.zarr"), "cache": str(folder / "cache")}
    return WindowDataModule(split=Split(**split), **options)


def facts(system: System, folder: Path) -> dict[str, Any]:
    """Keep what peers must know to read the same windows."""
    data = module_of(system, folder)
    index = data.train_dataloader().index
    first, series, _ = index.locate(np.arange(len(index)))
    arrays: dict[str, Any] = {"windows": np.stack([series, first - data.store.index.row_start[series]], axis=1)}
    for name, channels in (("x", data.inputs), ("y", data.targets)):
        scaler = data.scaler.of(channels)
        arrays |= {f"{name}_offset": scaler.offset, f"{name}_scale": scaler.scale}
    np.savez(folder / "facts.npz", **arrays)
    document = {"shape": data.shape.to_json(), "ids": data.store.ids.tolist(), "inputs": data.inputs}
    (folder / "facts.json").write_text(json.dumps(document))
    loader = data.loaders.in_order(index)
    for number, batch in enumerate(batches_of(loader)):
        np.savez(folder / f"batch{number}.npz", **{name: part.numpy() for name, part in batch.items()})
    return {"n_windows": len(index), "batches": [0, len(loader) // 2]}


def main() -> None:
    parser = argparse.ArgumentParser(description="How this project trains.")
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("raw", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", choices=["first", "second", "facts"], default="second")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--most", type=int, help="batches that are trained on")
    options = parser.parse_args()
    system, folder = SYSTEMS[options.system], options.folder
    if options.start == "facts":
        print(json.dumps(facts(system, folder)))
        return
    found: dict[str, float] = {}
    if options.start == "first":
        remove(folder / "store.zarr")
        remove(folder / "cache")
    import_packages()
    began = time.perf_counter()
    if options.start == "first":
        system.store(options.raw, folder / "store.zarr")
        found["ingest_s"] = time.perf_counter() - began
    data = module_of(system, folder)
    seconds = None if options.start == "first" else options.seconds
    found |= measured(data.train_dataloader, began, seconds)
    if options.start == "second":
        found |= fit(system.configuration(), data.shape, data, options.most)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
