"""Suite series: very many short series. ``python -m tests.benchmarks.series FOLDER 10000000`` for as many as that."""

from __future__ import annotations

import importlib
import json
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zstore import append, ingest, open_store
from zstore.printing import print_info
from zstore.upkeep.doctor import examine
from zstore.view.overview import overview
from zstore.view.table import SeriesTable

from .harness import setting, watched

N_SERIES, N_ROWS, N_NEW = 1_000_000, 20, 1_000
SCHEMA = pa.schema([("id", pa.string()), ("day", pa.timestamp("s")), ("flow", pa.float32())])
LIMIT = "2GiB"
_GROUP_ROWS, _DAY, _FIRST_DAY = 1 << 20, 86_400, 1_577_836_800  # seconds; 2020-01-01


def ids_of(series: Any) -> Any:
    """The ids of series by number: ``s`` and eight digits."""
    octets = np.full((len(series), 9), ord("s"), np.uint8)
    octets[:, 1:] = series[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
    offsets = np.arange(0, octets.size + 1, 9, dtype=np.int32)
    return pa.StringArray.from_buffers(len(series), pa.py_buffer(offsets), pa.py_buffer(octets))


def rows_of(series: Any, day: Any, seed: int) -> Any:
    """Rows of some series at some days, as a table."""
    flow = np.random.default_rng(seed).integers(0, 2000, len(series)) / np.float32(10)
    columns = [ids_of(series), pa.array(_FIRST_DAY + _DAY * day, pa.timestamp("s")), pa.array(flow, pa.float32())]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def table(path: Path, n_series: int, by_time: bool = False) -> Path:
    """A Parquet file of 20 days of each series, one series after the other; or `by_time`, one day after the other."""
    if path.exists():
        return path
    n_rows = n_series * N_ROWS
    with pq.ParquetWriter(path, SCHEMA, use_dictionary=["day"], compression="zstd") as writer:
        for low in range(0, n_rows, _GROUP_ROWS):
            row = np.arange(low, min(low + _GROUP_ROWS, n_rows))
            parts = (row % n_series, row // n_series) if by_time else (row // N_ROWS, row % N_ROWS)
            writer.write_table(rows_of(*parts, low))
    return path


def job_ingest(source: Path, store: Path) -> None:
    """Ingest a file."""
    ingest(source, store, id="id", time="day", memory_limit=LIMIT)


def job_append(_: Path, store: Path) -> None:
    """Append a row to some series, evenly spread."""
    series = np.linspace(0, open_store(store).n_series - 1, N_NEW).astype(np.int64)
    path = store.with_suffix(".new.parquet")
    pq.write_table(rows_of(series, np.full(N_NEW, N_ROWS), 1), path)
    append(path, store)
    path.unlink()


def job_open(_: Path, store: Path) -> None:
    """Open."""
    open_store(store)


def job_series(_: Path, store: Path) -> None:
    """Open, and find 1,000 series by their ids."""
    opened = open_store(store)
    for number in random.Random(0).choices(range(opened.n_series), k=1000):
        opened.series(f"s{number:08d}")


def job_rows(_: Path, store: Path) -> None:
    """Open, and read all rows of 100 series."""
    opened = open_store(store)
    for number in random.Random(1).choices(range(opened.n_series), k=100):
        opened.series(f"s{number:08d}").read("flow")


def job_window(_: Path, store: Path) -> None:
    """The first batch of a fit whose rows are streamed."""
    from lightning_app.data.datamodule import WindowDataModule  # loaded by `work`

    data = WindowDataModule(str(store), 10, 2, targets=["flow"], residency="stream", memory_budget="1GiB")
    next(iter(data.train_dataloader()))
    data.close()


def job_info(_: Path, store: Path) -> None:
    """What ``zstore info`` prints."""
    print_info(open_store(store))


def job_doctor(_: Path, store: Path) -> None:
    """What ``zstore doctor`` does."""
    examine(open_store(store))


def job_view(_: Path, store: Path) -> None:
    """What the viewer shows first, a page of its table, and one that was searched for."""
    opened = open_store(store)
    overview(opened)
    lines = SeriesTable(opened)
    lines.page("", "missing", True, 0, 100)
    lines.page("s0000012", "id", False, 0, 100)


JOBS: dict[str, Callable[[Path, Path], None]] = {
    "ingest": job_ingest,
    "open": job_open,
    "series": job_series,
    "rows": job_rows,
    "window": job_window,
    "info": job_info,
    "doctor": job_doctor,
    "view": job_view,
    "append": job_append,
}


def work(job: str, source: Path, store: Path) -> dict[str, float]:
    """Seconds of one job in this process, by the clock and of its processors, and the peak of its memory in MiB."""
    if job == "window":  # torch alone, which takes more memory than most of what is measured
        importlib.import_module("lightning_app.data.datamodule")
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    with redirect_stdout(StringIO()):
        JOBS[job](source, store)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"wall_s": wall, "cpu_s": cpu, "peak_mib": int(peak.split()[1]) / 1024}


def measure(folder: Path, n_series: int, by_time: bool = False, keep: bool = False) -> dict[str, dict[str, float]]:
    """Each job in a process of its own, one after the other; what they made is removed unless it is to be kept."""
    name = f"{'days' if by_time else 'series'}-{n_series}"
    source, store = table(folder / f"{name}.parquet", n_series, by_time), folder / f"{name}.zarr"
    shutil.rmtree(store, ignore_errors=True)
    found = {}
    for job in JOBS:
        command = [sys.executable, "-m", "tests.benchmarks.series", "--job", job, str(source), str(store)]
        found[job] = json.loads(watched(command)[2].strip().splitlines()[-1])
    if not keep:
        shutil.rmtree(store)
        source.unlink()
    return found


def report(n_series: int, found: dict[str, dict[str, float]]) -> None:
    """Print a table of what was measured."""
    print(f"\n{n_series:,} series of {N_ROWS} rows, each job in a process of its own; imports are not counted\n")
    print("| job | s | s of processors | peak MiB |\n|---|---|---|---|")
    for job, each in found.items():
        about = (JOBS[job].__doc__ or "").rstrip(".")
        print(f"| {job}: {about} | {each['wall_s']:.2f} | {each['cpu_s']:.2f} | {each['peak_mib']:,.0f} |")


def run(folder: Path, data: Path | None, n: int) -> None:
    """Run the suite, once: it has no peer, and what it measures are limits."""
    found = measure(folder, N_SERIES)
    (folder / "series.json").write_text(json.dumps({"setting": setting(), "n_series": N_SERIES, "jobs": found}))
    report(N_SERIES, found)


def main(arguments: list[str]) -> None:
    """One job for `measure`, or all of them: ``FOLDER N_SERIES [by_time]``."""
    if arguments[0] == "--job":
        job, source, store = arguments[1:]
        print(json.dumps(work(job, Path(source), Path(store))))
        return
    folder, n_series = Path(arguments[0]), int(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(setting())
    report(n_series, measure(folder, n_series, "by_time" in arguments, "keep" in arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
