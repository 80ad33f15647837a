"""Suite bucket: a stream from a bucket behind a wire of 30 ms and 100 MB/s, and what other libraries make of it.

The server is ours (``tests/wire.py``): moto answers one request at a time here, and would be what is measured. A fit
has a model that pauses in each step, as a GPU does for the processors, so that its steps take `SLOWER` times what the
wire takes: what it waits is told beside what it waits for the same store in a folder.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zstore import ingest, open_store

from . import bucket_peers
from .harness import output_of, remove, setting, size_of

LATENCY_S, BYTES_PER_S = 0.03, 100e6
N_SERIES, N_ROWS, N_CHANNELS = 800, 40_000, 4
BUDGET = "128MB"  # a quarter of what is decoded
SLOWER = 4.0
WIRE = Path(__file__).parents[1] / "wire.py"


def prepare(folder: Path) -> Path:
    """32 M rows x 4 channels, random walks with two decimals: the store in a folder that is served as a bucket."""
    target = folder / "buckets" / "bench" / "walks.zarr"
    if not (target / "zarr.json").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        ingest(list(_tables()), target, id="id", time="time", workers=1, overwrite=True)
    rows = folder / "bucket-rows.npy"
    if not rows.exists():
        store = open_store(target)
        values = np.lib.format.open_memmap(rows, "w+", np.float32, (store.n_rows, N_CHANNELS))
        store.decode(store.channels, values)
    return target


def _tables() -> Iterator[pa.Table]:
    random, hours = np.random.default_rng(0), np.datetime64("2000-01-01T00", "s") + np.arange(N_ROWS) * 3600
    for number in range(N_SERIES):
        steps = random.integers(-50, 51, (N_ROWS, N_CHANNELS))
        walks = ((np.cumsum(steps, axis=0) % 30_000) / 100).astype(np.float32)
        columns = {f"c{channel}": walks[:, channel] for channel in range(N_CHANNELS)}
        yield pa.table({"id": pa.array([f"s{number:04d}"] * N_ROWS), "time": pa.array(hours), **columns})


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port of a server of the buckets of a folder, in a process of its own."""
    command = [sys.executable, str(WIRE), str(folder / "buckets"), str(LATENCY_S), str(BYTES_PER_S)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait(10)


def figures(port: int) -> dict[str, float]:
    """What a server has sent so far: bytes, requests, and seconds from the first byte to the last one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/figures") as answer:
        found: dict[str, float] = json.load(answer)
    return found


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints tables; figures go to ``bucket.json``."""
    store, python = prepare(folder), folder / "peers" / "bin" / "python"
    peer_python = str(python) if python.exists() else sys.executable
    made: dict[str, Any] = {}
    for name in bucket_peers.PREPARE:
        command = [peer_python, "-W", "ignore", bucket_peers.__file__, "prepare", name, str(folder)]
        made[name], _ = output_of(command)
        print(f"prepared {name}: {made[name]}", file=sys.stderr)
    ours = [sys.executable, "-m", "tests.benchmarks.our_bucket", str(store), "--budget", BUDGET]
    wire_s = size_of(store) / BYTES_PER_S
    ours += ["--cache", str(folder / "bucket-cache")]
    jobs = {
        "ours, stream": ours,
        "ours, fit": [*ours, "--what", "fit", "--seconds", str(SLOWER * wire_s)],
        "ours, row file": [*ours, "--what", "rows"],
        "ours, verify": [*ours, "--what", "verify"],
    }
    for name in (name for name in made if "missing" not in made[name]):
        jobs[name] = [peer_python, "-W", "ignore", bucket_peers.__file__, "read", name, str(folder)]
    found: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    for _ in range(n):
        for job, command in jobs.items():
            remove(folder / "bucket-cache")
            with served(folder) as port:
                result, peak_mib = output_of([*command, "--port", str(port)])
                found[job].append({**result, **figures(port), "peak_mib": peak_mib})
            print(f"{job}: {found[job][-1]}", file=sys.stderr, flush=True)
    report(folder, made, found)


def report(folder: Path, made: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> None:
    """The tables and the JSON."""

    def median(job: str, name: str) -> float:
        return statistics.median(each.get(name) or 0.0 for each in found[job])

    print(f"### bucket: {N_SERIES * N_ROWS / 1e6:.0f} M rows x {N_CHANNELS} behind {LATENCY_S * 1e3:.0f} ms\n")
    shown = {
        "first_s": "first batch, s",
        "epoch_s": "epoch, s",
        "again_s": "second epoch, s",
        "local_s": "from a folder, s",
        "waits": "waiting",
        "waits_again": "in the second",
        "waits_local": "from a folder",
    }
    print("| | " + " | ".join(shown.values()) + " | MB sent | share of the wire | requests | peak MiB |")
    print("|---" * (len(shown) + 5) + "|")
    for job in found:
        cells = [f"{median(job, name):.{2 + (name[0] == 'w')}f}" if name in found[job][0] else "" for name in shown]
        share = statistics.median(each["n_bytes"] / each["sending_s"] / BYTES_PER_S for each in found[job])
        cells += [f"{median(job, 'n_bytes') / 1e6:.0f}", f"{share:.2f}", f"{median(job, 'n_requests'):.0f}"]
        print(f"| {job} | " + " | ".join([*cells, f"{median(job, 'peak_mib'):.0f}"]) + " |")
    for name in (name for name in made if "missing" in made[name]):
        print(f"| {name} | {made[name]['missing']} |")
    print()
    document = {"setting": setting(), "prepared": made, "runs": found}
    (folder / "bucket.json").write_text(json.dumps(document, indent=1) + "\n")
