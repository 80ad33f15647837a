"""Suite ingest: CSV to a sorted, compressed store, against engines that sort a CSV into Parquet."""

from __future__ import annotations

import cProfile
import gzip
import os
import pstats
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import zstore
from zstore.writing.scheduler import Scheduler

from .harness import in_turn, python, save, table


def generate(path: Path, n_series: int = 2000, n_times: int = 1500, n_channels: int = 12, seed: int = 0) -> Path:
    """A long CSV in time-major order: 3 M rows of 2,000 sensors by default."""
    if path.exists():
        return path
    random = np.random.default_rng(seed)
    ids = [f"s{number:05d}" for number in range(n_series)]
    state = random.normal(20, 5, (n_series, n_channels))
    start = np.datetime64("2020-01-01T00:00:00")
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(",".join(["id", "time", *(f"c{n}" for n in range(n_channels))]) + "\n")
        for step in range(n_times):
            state += random.normal(0, 0.3, state.shape)
            when = str(start + np.timedelta64(15 * step, "m")).replace("T", " ")
            lines = [f"{id_},{when}," + ",".join(f"{v:.2f}" for v in row) for id_, row in zip(ids, state, strict=True)]
            file.write("\n".join(lines) + "\n")
    partial.rename(path)
    return path


def commands(csv: Path, id_: str, time: str, out: Path, threads: int) -> tuple[dict[str, list[str]], dict[str, Path]]:
    """The same job for every engine: parse, sort by (id, time), write compressed."""
    outputs = {name: out / f"{name}.out" for name in ("zstore", "duckdb", "polars", "dask")}
    duckdb = (
        f"import duckdb; c = duckdb.connect(); c.execute('SET threads={threads}');"
        f"c.execute(\"COPY (SELECT * FROM read_csv('{csv}', types={{'{id_}': 'VARCHAR'}}) ORDER BY \\\"{id_}\\\", "
        f'\\"{time}\\") TO \'{outputs["duckdb"]}\' (FORMAT parquet)")'
    )
    polars = (
        f"import polars as pl; pl.scan_csv('{csv}', schema_overrides={{'{id_}': pl.String}}, try_parse_dates=True)"
        f".sort('{id_}', '{time}').sink_parquet('{outputs['polars']}')"
    )
    dask = (
        f"import dask, dask.dataframe as dd; dask.config.set(scheduler='threads', num_workers={threads});"
        f"dd.read_csv('{csv}', dtype={{'{id_}': str}}, parse_dates=['{time}']).sort_values(['{id_}', '{time}'])"
        f".to_parquet('{outputs['dask']}')"
    )
    zstore = (
        f"import zstore; zstore.ingest('{csv}', '{outputs['zstore']}', id='{id_}', time='{time}', workers={threads})"
    )
    codes = {"zstore": zstore, "duckdb": duckdb, "polars": polars, "dask": dask}
    return {name: python(code) for name, code in codes.items()}, outputs


STEPS = {
    "parse": ["blocks.py:read_block"],
    "sort": ["sort.py:sort_keys"],
    "pack": ["channels.py:observe"],
    "spill": ["sort.py:write", "resume.py:note_report"],
    "gather": ["steps.py:gather_keys", "shards.py:columns"],
    "encode": ["shards.py:encode_shard"],
    "moments": ["shards.py:_segment_moments"],
    "write": ["folder.py:write"],
    "commit": ["folder.py:commit"],
}


def where_the_time_goes(csv: Path, id_: str, time: str, store: Path) -> str:
    """Seconds of one thread in each step of an ingest, profiled; sorting inside a gather counts for the gather."""

    def inline(self: Scheduler, phase: str, function: Any, items: Any, *_: Any) -> list[Any]:
        return [function(item) for item in items]

    profile = cProfile.Profile()
    with mock.patch.object(Scheduler, "map", inline):
        profile.runcall(zstore.ingest, csv, store, id=id_, time=time, overwrite=True)
    stats: Any = pstats.Stats(profile)
    seconds = {f"{Path(file).name}:{name}": row[3] for (file, _, name), row in stats.stats.items()}
    parts = {step: sum(seconds.get(key, 0.0) for key in keys) for step, keys in STEPS.items()}
    total = seconds["ingest.py:ingest"]
    shares = ", ".join(f"{step} {spent:.2f}" for step, spent in parts.items())
    return f"one thread, profiled, {total:.2f} s: {shares}, the rest {total - sum(parts.values()):.2f}\n"


def run(folder: Path, data: Path | None, n: int) -> None:
    """Time-major generated rows, and the CAMELS file where there is one."""
    threads = len(os.sched_getaffinity(0))
    jobs = {"3.0 M rows x 12 channels, time-major": (generate(folder / "wide.csv"), "id", "time")}
    if data is not None:
        packed, plain = data / "caravan_camels482" / "daily_long.csv.gz", folder / "daily_long.csv"
        if not plain.exists():
            with gzip.open(packed, "rb") as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 22)
        jobs["CAMELS, 5.99 M rows x 4 channels, sorted"] = (plain, "gauge_id", "date")
    for number, (title, (csv, id_, time)) in enumerate(jobs.items()):
        run_commands, outputs = commands(csv, id_, time, folder, threads)
        timings = in_turn(run_commands, outputs, n)
        print(table(f"ingest: {title}, {threads} threads, median of {n}", timings, "zstore"))
        print(where_the_time_goes(csv, id_, time, outputs["zstore"]))
        save(folder, f"ingest-{number}", timings)
