"""How other libraries read windows: ``python peers.py prepare|read NAME FOLDER …``, in an environment of their own.

Needs numpy, torch and the library that is measured; what is not installed says so. Prints one line of JSON. `prepare`
writes the library's own form of the rows in ``FOLDER/rows.npy``; `read` counts random windows of 96 + 24 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

LOOKBACK, SPAN = 96, 120
MANY, FEW = 160_000, 24_000  # windows written out by the libraries that keep samples
SHARD_WINDOWS = 4_000
CHUNK = (1024, 16)


def rows_of(folder: Path, name: str = "rows.npy") -> np.ndarray[Any, np.dtype[np.float32]]:
    rows: np.ndarray[Any, np.dtype[np.float32]] = np.load(folder / name, mmap_mode="r")
    return rows


def starts_of(folder: Path, n: int | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
    starts = np.load(folder / "starts.npy")
    return starts if n is None else np.sort(np.random.default_rng(0).choice(starts, n, replace=False))


class Sliced(Dataset[Any]):
    """One window per item, sliced from something that is opened where it is read."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.starts = name, folder, starts_of(folder)
        self.rows: Any = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.rows is None:
            self.rows = OPEN[self.name](self.folder)
        start = int(self.starts[sample])
        window = self.rows[start : start + SPAN]
        window = window.read().result() if hasattr(window, "read") else np.array(window)
        rows = torch.from_numpy(window)
        return rows[:LOOKBACK], rows[LOOKBACK:]


def open_h5(folder: Path, name: str) -> Any:
    import h5py

    return h5py.File(folder / f"{name}.out")["rows"]


def open_zarr(folder: Path) -> Any:
    import zarr

    return zarr.open_array(folder / "zarr-python.out", mode="r")


def open_tensorstore(folder: Path) -> Any:
    import tensorstore

    path = str(folder / "tensorstore.out")
    return tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, read=True).result()


OPEN = {
    "memmap": lambda folder: rows_of(folder, "memmap.out"),
    "h5py": lambda folder: open_h5(folder, "h5py"),
    "h5py-lzf": lambda folder: open_h5(folder, "h5py-lzf"),
    "zarr-python": open_zarr,
    "tensorstore": open_tensorstore,
}


def prepare_h5(folder: Path, out: Path, compression: str | None) -> None:
    import h5py

    options: dict[str, Any] = {"chunks": CHUNK, "compression": compression} if compression else {}
    with h5py.File(out, "w") as file:
        file.create_dataset("rows", data=rows_of(folder), **options)


def prepare_zarr(folder: Path, out: Path) -> None:
    import zarr

    rows = rows_of(folder)
    array = zarr.create_array(out, shape=rows.shape, chunks=CHUNK, dtype="float32")
    for low in range(0, len(rows), 1 << 18):
        array[low : low + (1 << 18)] = rows[low : low + (1 << 18)]


class Window:
    """Makes a sample for LitData; at the top level, for its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, start: int) -> Any:
        return np.array(rows_of(self.folder)[start : start + SPAN])


def prepare_litdata(folder: Path, out: Path) -> None:
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder / "litdata-cache")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(folder / "litdata-data-cache")
    from litdata import optimize

    starts = starts_of(folder, MANY).tolist()
    optimize(Window(folder), starts, str(out), chunk_bytes="64MB", num_workers=2, verbose=False)


def prepare_webdataset(folder: Path, out: Path) -> None:
    import webdataset

    rows = rows_of(folder)
    out.mkdir()
    with webdataset.ShardWriter(f"{out}/%05d.tar", maxcount=SHARD_WINDOWS, verbose=0) as sink:
        for number, start in enumerate(starts_of(folder, FEW).tolist()):
            sink.write({"__key__": f"{number:08d}", "x.npy": np.array(rows[start : start + SPAN])})


def prepare_datasets(folder: Path, out: Path) -> None:
    import datasets

    rows = rows_of(folder)
    columns = rows.shape[1]

    def windows() -> Any:
        for start in starts_of(folder, FEW).tolist():
            yield {"x": rows[start : start + SPAN]}

    features = datasets.Features({"x": datasets.Array2D((SPAN, columns), "float32")})
    made = datasets.Dataset.from_generator(windows, features=features, cache_dir=str(folder / "datasets-cache"))
    made.save_to_disk(str(out))
    shutil.rmtree(folder / "datasets-cache")


class XBatches(Dataset[Any]):
    """Windows of xbatcher over an array in memory, one in 24 of all, for it lists them."""

    def __init__(self, folder: Path) -> None:
        import xarray
        import xbatcher

        array = xarray.DataArray(np.array(rows_of(folder)), dims=("row", "channel"))
        self.batches = xbatcher.BatchGenerator(array, {"row": SPAN}, {"row": SPAN - 24})

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, sample: int) -> Any:
        return torch.from_numpy(np.array(self.batches[sample].values))


PREPARE: dict[str, Any] = {
    "memmap": lambda folder, out: shutil.copy(folder / "rows.npy", out),
    "h5py": lambda folder, out: prepare_h5(folder, out, None),
    "h5py-lzf": lambda folder, out: prepare_h5(folder, out, "lzf"),
    "zarr-python": prepare_zarr,
    "tensorstore": prepare_zarr,
    "litdata": prepare_litdata,
    "webdataset": prepare_webdataset,
    "datasets": prepare_datasets,
    "xbatcher": lambda folder, out: None,
}


def loader_of(name: str, folder: Path, batch: int, workers: int) -> Any:
    out = folder / f"{name}.out"
    dataset: Dataset[Any] | IterableDataset[Any]
    if name == "litdata":
        from litdata import StreamingDataLoader, StreamingDataset

        return StreamingDataLoader(StreamingDataset(str(out), shuffle=True), batch_size=batch, num_workers=workers)
    if name == "webdataset":
        import webdataset

        shards = sorted(map(str, out.iterdir()))
        dataset = (
            webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(SHARD_WINDOWS).decode().to_tuple("x.npy")
        )
        return DataLoader(dataset, batch, num_workers=workers)
    if name == "datasets":
        import datasets

        return DataLoader(datasets.load_from_disk(str(out)).with_format("torch"), batch, True, num_workers=workers)
    dataset = XBatches(folder) if name == "xbatcher" else Sliced(name, folder)
    context = "spawn" if workers and name == "tensorstore" else None
    return DataLoader(dataset, batch, shuffle=True, num_workers=workers, multiprocessing_context=context)


def measure(loader: Any, batch: int, seconds: float) -> tuple[float, float]:
    """Windows per second after a first batch, and seconds to that."""
    began = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first_s = time.perf_counter() - began
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        try:
            next(batches)
        except StopIteration:
            batches = iter(loader)
            continue
        count += batch
    return count / (time.perf_counter() - start), first_s


def main() -> None:
    parser = argparse.ArgumentParser(description="How other libraries read windows.")
    parser.add_argument("what", choices=["prepare", "read"])
    parser.add_argument("name", choices=list(PREPARE))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    out = options.folder / f"{options.name}.out"
    try:
        if options.what == "prepare":
            began = time.perf_counter()
            PREPARE[options.name](options.folder, out)
            print(json.dumps({"prepare_s": time.perf_counter() - began}))
        else:
            loader = loader_of(options.name, options.folder, options.batch, options.workers)
            windows_per_s, first_s = measure(loader, options.batch, options.seconds)
            print(json.dumps({"windows_per_s": windows_per_s, "first_s": first_s}))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}))


if __name__ == "__main__":
    main()
