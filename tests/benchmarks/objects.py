"""What opening a store of very many objects reads, and what an append of one shard to it writes.

``python -m tests.benchmarks.objects FOLDER [OBJECTS]`` makes such a store (1,000,000 objects by default, some 1.1 GB
and minutes), measures, prints a Markdown table and removes it. Each line is a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import zstore
from zstore.format import parts
from zstore.format.index import RunTable, SeriesIndex
from zstore.format.layout import TIME, shard_key
from zstore.format.manifest import ObjectRecord
from zstore.storage.folder import Folder
from zstore.writing.listing import Inventory
from zstore.writing.version import commit_version, rows_of

GRID, CHANNELS = 4, "xyz"
LINKS = 60_000  # files of one content that share an inode, so that a million of them fit on a small disk
LINES = {
    "open, and its index": ("open", False),
    "read one row": ("row", False),
    "append, manifest in one piece": ("append", True),
    "first append after that, which cuts it into parts": ("append", False),
    "append": ("append", False),
    "append again": ("append", False),
    "roll back to the version before": ("rollback", False),
}


def make(path: Path, n_objects: int) -> None:
    """A store of one series on a grid of four rows a shard, whose shards of a channel all have the same content."""
    n_shards = n_objects // (1 + len(CHANNELS))
    source = path.with_name("first.csv")
    source.write_text("\n".join(["id,t," + ",".join(CHANNELS), *(row_of(t) for t in range(GRID))]) + "\n")
    zstore.ingest(source, path, id="id", time="t", chunk_rows=GRID, shard_rows=GRID, workers=1)
    base, n_rows = zstore.open_store(path), n_shards * GRID
    schema = replace(base.schema, version=2, n_rows=n_rows, n_places=n_rows)
    records = []
    for name, plan in {TIME: rows_of(base.storage, schema).plan(None), **dict.fromkeys(CHANNELS)}.items():
        content = (path / name / "c" / "0").read_bytes()
        for shard in range(n_shards):
            key, same = shard_key(name, shard), shard_key(name, shard - shard % LINKS)
            if plan is not None:
                content = bytes(plan.encode_shard(base.times(0, GRID) + GRID * shard))
            if plan is not None or key == same:
                (path / key).write_bytes(content)
            else:
                os.link(path / same, path / key)
            records.append(ObjectRecord.of(key, content))
    one: Any = np.array
    index = SeriesIndex(
        texts=base.ids,
        row_size=one([n_rows]),
        extent_ptr=one([0, 1]),
        extent_start=one([0]),
        extent_stop=one([n_rows]),
        runs=RunTable(one([0]), one([n_rows]), one([0]), one([0])),
        time_start=one([0]),
        time_stop=one([n_rows - 1]),
    )
    moments = replace(base.moments, count=base.moments.count * n_shards, m2=base.moments.m2 * n_shards)
    notes = {key: base.objects.document[key] for key in ("action", "receipt", "table", "n_dropped")}
    notes["next_shard"] = n_shards
    with mock.patch("zstore.storage.flush.flush"):
        rows = rows_of(base.storage, schema)
        commit_version(base.storage, schema, rows, index, moments, Inventory(records), base.ledger, notes)


def row_of(t: int) -> str:
    """A line of a table."""
    return f"s,{t}," + ",".join(str(t % n) for n in range(2, 2 + len(CHANNELS)))


class Counted(Folder):
    """A folder that counts the objects that are opened."""

    n_opened = 0

    def open(self, key: str, most: int | None = None) -> Any:
        Counted.n_opened += 1
        return super().open(key, most)


def measure(job: str, path: Path) -> dict[str, float]:
    """Do one thing in this process, and say what it cost."""
    n_rows = zstore.open_store(path).n_rows
    more = path.with_name(f"more{n_rows}.csv")
    lines = ["id,t," + ",".join(CHANNELS), *(row_of(t) for t in range(n_rows, n_rows + GRID))]
    more.write_text("\n".join(lines) + "\n")
    before, began, cpu = number_in("io", "wchar:"), time.perf_counter(), cpu_s()
    if job == "append":
        zstore.append(more, path, workers=1)
    elif job == "rollback":
        zstore.rollback(path, zstore.open_store(path).version - 1)
    else:
        store = zstore.Store(Counted(path))
        store.index  # noqa: B018  # read for it
        if job == "row":
            Counted.n_opened = 0
            store.read(CHANNELS[0], n_rows // 2, n_rows // 2 + 1)
    return {
        "wall": time.perf_counter() - began,
        "cpu": cpu_s() - cpu,
        "written": number_in("io", "wchar:") - before,
        "opened": Counted.n_opened,
        "peak": number_in("status", "VmHWM:") / 1024,  # getrusage's is that of whoever started this process, if higher
    }


def cpu_s() -> float:
    """Seconds of processors of this process and of those that it has started."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def number_in(name: str, label: str) -> int:
    """A number that the system has of this process, such as the bytes that it has written so far."""
    lines = Path(f"/proc/self/{name}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(label))


def main(folder: Path, n_objects: int) -> None:
    """Make the store, measure and print."""
    path = folder / "objects.zarr"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        make(path, n_objects)
        print(
            f"| {n_objects:,} objects | wall | processor | written | objects opened | peak |\n|---|---|---|---|---|---|"
        )
        for name, (job, in_one) in LINES.items():
            words = [sys.executable, "-m", __spec__.name, job, str(path), "one" if in_one else "parts"]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            cost = json.loads(done.stdout)
            opened = f"{cost['opened']:,}" if cost["opened"] else ""
            print(
                f"| {name} | {cost['wall']:.2f} s | {cost['cpu']:.2f} s | {cost['written'] / 1e3:,.0f} kB "
                f"| {opened} | {cost['peak']:.0f} MiB |"
            )
    finally:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] in {job for job, _ in LINES.values()}:
        if sys.argv[3] == "one":
            parts.MOST_LISTED = sys.maxsize
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000)
