"""Suite fields: windows of two frames, state and 16 actions, through the data module and as others read them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zstore import ingest, open_store

from . import field_data, field_peers
from .field_data import MAPPING, PUSHT, Episode
from .field_peers import BATCH, HORIZON, LOOKBACK
from .harness import busy, output_of, remove, setting, size_of

SETTINGS = ("alone", "beside one busy process")
RATES = ("samples_per_s", "per_cpu_s")
LABELS = {
    "copy": "contiguous copy of as many bytes",
    "host": "host",
    "float": "host, as float into a buffer that is used again",
    "stream": "stream of an eighth of the frames",
    "encoded": "encoded chunks",
    "h5py 0": "h5py",
    "h5py 2": "h5py, 2 workers",
    "h5py-gzip 0": "h5py, gzip",
    "h5py-gzip 2": "h5py, gzip, 2 workers",
    "memory 0": "float32 in memory, sampled and padded one by one",
}
FLOORS = (
    ("host", ("copy",), 0.4),
    ("host", ("h5py 0", "h5py 2"), 8.0),
    ("host", ("memory 0",), 8.0),
    ("float", ("memory 0",), 2.5),
)

Runs = dict[str, list[dict[str, Any]]]


def prepare(folder: Path, episodes: Iterator[Episode]) -> None:
    """The files that peers read, and a store of the same episodes; what is there is left as it is."""
    if (folder / "frames.zarr" / "zarr.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    plain, packed = (folder / field_peers.FILES[name] for name in ("h5py", "h5py-gzip"))
    field_data.write_hdf5(plain, episodes)
    field_data.pack(plain, packed)
    ingest(plain, folder / "frames.zarr", mapping=MAPPING, overwrite=True)


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints tables; figures go to ``fields.json``. Push-T where the real data are, else episodes like it."""
    name = "frames" if data is None else "pusht"
    own = folder / name
    prepare(own, field_data.simulated() if data is None else field_data.recorded(data / PUSHT))
    found = {about: measured(folder, own, n, about) for about in SETTINGS}
    report(own, found)
    (folder / "fields.json").write_text(json.dumps({"setting": setting(), "data": name, **found}, indent=1) + "\n")


def measured(folder: Path, own: Path, n: int, about: str, seconds: float = 3.0) -> Runs:
    """All readers in turn, `n` times, by name."""
    python = folder / "peers" / "bin" / "python"
    peer = [str(python) if python.exists() else sys.executable, "-W", "ignore", field_peers.__file__]
    cache = own / "cache"
    ours = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.our_fields"]
    jobs = {name: [*ours, name, str(own), "--cache", str(cache)] for name in ("first", "host", "stream", "encoded")}
    for job in (job for job in LABELS if job.split()[0] in field_peers.FILES):
        name, workers = job.split()
        jobs[job] = [*peer, name, str(own), "--workers", workers]
    found: Runs = {}
    with busy(1 if about == SETTINGS[1] else 0):
        for _ in range(n):
            for job, command in jobs.items():
                if job == "first":
                    remove(cache)
                result, peak_mib = output_of([*command, "--seconds", str(seconds)])
                print(f"{about}, {job}: {result}", file=sys.stderr, flush=True)
                add(found, job, {**result, "peak_mib": peak_mib})
    return found


def add(found: Runs, job: str, result: dict[str, Any]) -> None:
    """Keep the result of a reader; what was measured in the same process gets a line of its own."""
    found.setdefault(job, []).append(result)
    for other, rates in result.pop("others", {}).items():
        found.setdefault(other, []).append(rates)


def report(own: Path, found: dict[str, Runs]) -> None:
    """The tables, and the ratios that are asked for."""
    store = open_store(own / "frames.zarr")
    shape = store.field("image").shape
    decoded = store.n_rows * shape[0] * shape[1] * shape[2]
    print(
        f"### fields ({own.name}): {store.n_rows:,} frames of {' × '.join(map(str, shape))} u1, "
        f"{decoded / 1e6:,.0f} MB decoded, {size_of(own / 'frames.zarr') / 1e6:,.1f} MB stored\n\n"
        f"Random windows of {LOOKBACK} frames, {LOOKBACK} states and {HORIZON} actions, batch {BATCH}\n"
    )
    for about, runs in found.items():
        print(f"#### {about}\n")
        print("| | samples/s | of one processor | first batch, s | private MiB | peak MiB | host / this |")
        print("|---|---|---|---|---|---|---|")
        for job in (job for job in LABELS if job in runs):
            each = [f"{median(runs, job, key):,.0f}" for key in RATES]
            first = f"{median(runs, job, 'first_s'):.2f}" if "first_s" in runs[job][0] else ""
            memory = [
                f"{median(runs, job, key):,.0f}" if key in runs[job][0] else "" for key in ("private_mib", "peak_mib")
            ]
            cells = [LABELS[job], *each, first, *memory, f"{ratio(runs, 'host', (job,), 'samples_per_s'):.2f}"]
            print(f"| {' | '.join(cells)} |")
        print(f"\nfirst start, decoding all frames into a file: {median(runs, 'first', 'first_s'):.2f} s to a batch\n")
        for job, others, floor in FLOORS:
            by_time, by_work = (ratio(runs, job, others, key) for key in RATES)
            print(f"{job} / {' or '.join(others)}: {by_time:.2f}, by time of processors {by_work:.2f} (floor {floor})")
        stream = runs["stream"][-1]
        print(
            f"\nstream: each piece decoded {stream['decoded_per_epoch']:.2f} times in an epoch, in a pool of "
            f"{stream['pool_mib']:.1f} MiB\n"
        )


def median(runs: Runs, job: str, key: str) -> float:
    """Of all rounds."""
    found: float = statistics.median(each[key] for each in runs[job])
    return found


def ratio(runs: Runs, job: str, others: tuple[str, ...], key: str) -> float:
    """Median of one reader over the best of some others, round by round."""
    best = [max(pair) for pair in zip(*([each[key] for each in runs[other]] for other in others), strict=True)]
    found: float = statistics.median(own[key] / other for own, other in zip(runs[job], best, strict=True))
    return found
