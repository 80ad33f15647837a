"""Suite panel: windows of 716 sensors at once, against a contiguous copy and against one serialised row a sample."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import csv

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from zstore import ingest

from .harness import output_of, rate, setting, size_of

N_NODES, N_STEPS = 716, 35_040  # LargeST's San Diego: a year of quarters of an hour
LOOKBACK, HORIZON, BATCH = 12, 12, 64
N_SAMPLES = 1_000  # that are serialised
SPAN = LOOKBACK + HORIZON


def flows(path: Path, n_nodes: int = N_NODES, n_steps: int = N_STEPS) -> Path:
    """A wide CSV of simulated flows, a column for each sensor and a row for each quarter of an hour of 2019."""
    if path.exists():
        return path
    random, block = np.random.default_rng(0), 2_000
    phase, height = random.random(n_nodes), random.uniform(50, 400, n_nodes)
    start = np.datetime64("2019-01-01T00:00:00", "s")
    names = ["time", *(str(1_100_000 + node) for node in range(n_nodes))]
    schema = pa.schema([("time", pa.timestamp("s")), *((name, pa.int16()) for name in names[1:])])
    with csv.CSVWriter(path, schema) as writer:
        for low in range(0, n_steps, block):
            step = np.arange(low, min(low + block, n_steps))
            wave = 1 + np.sin(2 * np.pi * (step[:, None] / 96 + phase))
            values = (height * wave + random.gamma(2, 5, wave.shape)).astype(np.int16)
            columns: list[Any] = [start + step * np.timedelta64(900, "s"), *np.ascontiguousarray(values.T)]
            writer.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema))
    return path


def prepare(folder: Path) -> Path:
    """The store of the flows."""
    target = folder / "flows.zarr"
    if not (target / "zarr.json").exists():
        ingest(flows(folder / "flows.csv"), target, layout="wide", time="time", value_name="flow", overwrite=True)
    return target


def module_of(store: Path, cache: Path) -> WindowDataModule:
    return WindowDataModule(
        str(store),
        LOOKBACK,
        HORIZON,
        panel=Panel(),
        batch_size=BATCH,
        split=Split(sizes=(0.98, 0.01, 0.01)),
        cache=str(cache),
        residency="host",
    )


def ours(store: Path, cache: Path, seconds: float) -> dict[str, Any]:
    """Windows a second through the loader, and of contiguous copies of as many bytes."""
    data = module_of(store, cache)
    loader = data.train_dataloader()
    batches = iter(loader)

    def batch() -> int:
        nonlocal batches
        try:
            return len(next(batches)["x"])
        except StopIteration:
            batches = iter(loader)
            return len(next(batches)["x"])

    steps = data.source.rows.values
    out = torch.empty(BATCH * SPAN, steps.shape[1])
    places = np.random.default_rng(0).integers(0, len(steps) - BATCH * SPAN, 1000).tolist()
    numbers = iter(range(10**9))

    def copy() -> int:
        place = places[next(numbers) % len(places)]
        out.copy_(steps[place : place + BATCH * SPAN])
        return BATCH

    pairs = [(rate(batch, seconds), rate(copy, seconds)) for _ in range(3)]
    windows, copies = (statistics.median(each) for each in zip(*pairs, strict=True))
    return {"windows_per_s": windows, "memcpy": copies, "ratio": statistics.median(a / b for a, b in pairs)}


def serialised(store: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Windows a second from a file with a line of numbers for each sample, lines at random, parsed by numpy."""
    data = module_of(store, folder)
    steps = data.source.rows.values
    path, offsets = folder / "samples.txt", [0]
    starts = np.random.default_rng(1).integers(0, len(steps) - SPAN, N_SAMPLES).tolist()
    with path.open("wb") as file:
        for start in starts:
            numbers = steps[start : start + SPAN].double().numpy() * data.scaler.scale + data.scaler.offset
            offsets.append(offsets[-1] + file.write(" ".join(f"{n:.0f}" for n in numbers.ravel()).encode() + b"\n"))
    random = np.random.default_rng(2)
    with path.open("rb") as source:

        def read(sample: int) -> NDArray[np.float32]:
            source.seek(offsets[sample])
            line = source.read(offsets[sample + 1] - offsets[sample]).decode()
            return np.fromstring(line, np.float32, sep=" ").reshape(SPAN, N_NODES, 1)

        def batch() -> int:
            together = torch.from_numpy(np.stack([read(sample) for sample in random.integers(0, N_SAMPLES, BATCH)]))
            return len(together[:, :LOOKBACK])

        found = {"windows_per_s": rate(batch, seconds), "n_bytes": size_of(path) / N_SAMPLES}
    path.unlink()
    return found


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints a table; figures go to ``panel.json``."""
    store = prepare(folder)
    jobs = {name: [sys.executable, "-m", "tests.benchmarks.panel", name, str(store)] for name in ("ours", "serialised")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    peaks: dict[str, float] = {}
    for _ in range(n):
        for name, command in jobs.items():
            figures, peaks[name] = output_of([*command, "--folder", str(folder)])
            found[name].append(figures)
    rates = {name: statistics.median(each["windows_per_s"] for each in figures) for name, figures in found.items()}
    ratio = statistics.median(each["ratio"] for each in found["ours"])
    print(f"### panel: {N_NODES} sensors x {N_STEPS:,} steps, batches of {BATCH} x ({LOOKBACK} + {HORIZON})\n")
    print("| | windows/s | MB/s | peak MiB | panel / this |\n|---|---|---|---|---|")
    for name, label in (("ours", "panel, host"), ("serialised", "a line of numbers for each sample")):
        mb = rates[name] * SPAN * N_NODES * 4 / 1e6
        times = rates["ours"] / rates[name]
        print(f"| {label} | {rates[name]:,.0f} | {mb:,.0f} | {peaks[name]:,.0f} | {times:.1f} |")
    print(f"\npanel: {ratio:.2f} of a contiguous copy of the same bytes\n")
    (folder / "panel.json").write_text(json.dumps({"setting": setting(), **found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="One reader of panels.")
    parser.add_argument("name", choices=["ours", "serialised"])
    parser.add_argument("store", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    reader = {"ours": ours, "serialised": serialised}[options.name]
    print(json.dumps(reader(options.store, options.folder, options.seconds)))


if __name__ == "__main__":
    main()
