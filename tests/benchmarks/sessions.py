"""Suite sessions: 2 GB of HDF5 at 2 kHz, ingested, and windows of 2,000 rows beside three readers of the files."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import session_peers
from .harness import in_turn, output_of, python, save, setting, size_of
from .our_sessions import BATCH, LENGTH, module_of, starts
from .session_data import sessions

N_BYTES = 2_000_000_000
_INGESTS = 3
WORKERS = (0, 2)
PEERS = ("memory", "lazy", "column")


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints tables; figures go to ``sessions.json`` and ``sessions-ingest.json``."""
    files = folder / "sessions"
    paths = sessions(files, N_BYTES)
    store = folder / "sessions.zarr"
    ingested = _ingest(paths, store, folder, min(n, _INGESTS))
    module = module_of(store, folder)
    np.save(files / "starts.npy", starts(module))  # opens the rows too: what follows finds them in the cache
    module.close()
    jobs = _jobs(store, files, folder, module.store.n_rows * len(module.store.channels) * 4)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {job: [] for job in jobs}
    for round_ in range(n):
        for job, command in jobs.items():
            if round_ and job[0] == "column":  # a window a second: one round is enough, of small batches
                continue
            result, peak_mib = output_of(command)
            found[job].append({**result, "peak_mib": peak_mib})
            print(f"{job}: {found[job][-1]}", file=sys.stderr, flush=True)
    checked, _ = output_of([*_ours(store, folder), "--check"])
    report(found, checked)
    document = {"setting": setting(), "n_bytes": sum(path.stat().st_size for path in paths), "checked": checked}
    runs = [{"name": name, "workers": workers, "runs": runs} for (name, workers), runs in found.items()]
    (folder / "sessions.json").write_text(json.dumps({**document, "runs": runs}, indent=1) + "\n")
    save(folder, "sessions-ingest", ingested)


def _ingest(paths: list[Path], store: Path, folder: Path, n: int) -> dict[str, Any]:
    """Ingest all sessions within 1 GiB, some times; the last store stays."""
    code = f"import zstore; zstore.ingest('{paths[0].parent}/*.h5', '{store}', mapping='emg2pose', memory_limit='1GiB')"
    timings = in_turn({"zstore": python(code)}, {"zstore": store}, n)
    timing = timings["zstore"]
    n_bytes = sum(path.stat().st_size for path in paths)
    cpu_s, peak_mib = statistics.median(timing.cpu_s), max(timing.peak_mib)
    print(f"### sessions: {n_bytes / 1e9:.2f} GB of HDF5, {len(paths)} files, ingested within 1 GiB\n")
    print(
        f"{timing.median_s():.1f} s ({min(timing.wall_s):.1f}–{max(timing.wall_s):.1f}), {cpu_s:.1f} s of processors, "
        f"peak {peak_mib:,.0f} MiB, {size_of(store) / 1e9:.2f} GB stored; median of {n}\n"
    )
    return timings


def _ours(store: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.our_sessions", str(store), "--cache", str(folder)]


def _jobs(store: Path, files: Path, folder: Path, decoded: int) -> dict[tuple[str, int], list[str]]:
    """Commands that count windows, by name and number of workers."""
    ours = _ours(store, folder)
    jobs = {("host", 0): ours, ("stream", 0): [*ours, "--residency", "stream", "--budget", f"{decoded // 8}B"]}
    for how, batch, numbers in (("memory", BATCH, WORKERS), ("lazy", BATCH, WORKERS), ("column", 8, (0,))):
        for workers in numbers:
            read = [sys.executable, "-W", "ignore", session_peers.__file__, how, str(files), "--length", str(LENGTH)]
            jobs[how, workers] = [*read, "--batch", str(batch), "--workers", str(workers)]
    return jobs


def report(found: dict[tuple[str, int], list[dict[str, Any]]], checked: dict[str, Any]) -> None:
    """The table of readers, and what was found in all windows."""
    rates = {job: statistics.median(each["windows_per_s"] for each in runs) for job, runs in found.items()}
    print(f"### sessions: random windows of {LENGTH:,} x 16, with 20 angles of each row, batch {BATCH}\n")
    print("| | windows/s | MB/s | first batch, s | peak MiB | host / this |")
    print("|---|---|---|---|---|---|")
    for name in ("host", "stream", *PEERS):
        workers = max((w for other, w in rates if other == name), key=lambda w: rates[name, w])
        rate, runs = rates[name, workers], found[name, workers]
        first_s = statistics.median(each["first_s"] for each in runs)
        peak = max(each["peak_mib"] for each in runs)
        megabytes = rate * LENGTH * 36 * 4 / 1e6
        ratio = rates["host", 0] / rate
        shown = f"{name}, {workers} workers" if name in PEERS else name
        print(f"| {shown} | {rate:,.1f} | {megabytes:,.0f} | {first_s:.1f} | {peak:,.0f} | {ratio:,.1f} |")
    print(
        f"\nall {checked['n_windows']:,} windows of an epoch read: {checked['n_failed']} with a row that failed, "
        f"{checked['n_zero_or_masked']} with a row of zeros or a missing target; there are "
        f"{checked['n_without_failure']:,} windows at this stride of which nothing failed\n"
    )
