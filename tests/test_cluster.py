"""The same graph on a Dask cluster of processes: the same bytes, whoever dies meanwhile."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest
from conftest import SMALL_GRID, stored, write_table
from dialects import DIALECTS
from distributed import Client, LocalCluster
from hdf5files import aloha
from payload_files import image, voxels
from s3server import S3Server
from workers import process_of

import zstore
from zstore import SourceError, StoreError, open_store, verify
from zstore.cli import main
from zstore.storage.urls import open_storage
from zstore.writing.scheduler import Scheduler

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("forked_workers")  # but those that a command starts

READING: dict[str, Any] = {"id": "id", "time": "t", "blocksize": 20_000}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 rows in no order, with words, decimals and gaps."""
    rng = np.random.default_rng(7)
    keys = [(f"s{series}", step) for series in range(40) for step in range(500) if step % 97]
    rows = [[*keys[n], rng.integers(0, 10_000) / 100, f"w{n % 7}"] for n in rng.permutation(len(keys))]
    return write_table(tmp_path_factory.mktemp("table") / "rows.csv", ["id", "t", "v", "kind"], rows)


@pytest.fixture(scope="module")
def threaded(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("threads") / "s.zarr"
    zstore.ingest(table, path, **READING)
    return stored(path)


@contextmanager
def started(n_workers: int) -> Iterator[LocalCluster]:
    """A cluster of processes on this machine."""
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with (
        # A worker that is away when its cluster looks, 15 s after it died before, is given up for ever.
        dask.config.set(
            {"distributed.scheduler.allowed-failures": 100, "distributed.deploy.lost-worker-timeout": "1 hour"}
        ),
        LocalCluster(n_workers=n_workers, **options) as running,  # type: ignore[no-untyped-call]
    ):
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One for all tests that leave its workers alive: a start takes seconds."""
    with started(2) as running:
        yield running


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_any_number_of_workers_writes_the_bytes_that_threads_write(
    cluster: LocalCluster, n_workers: int, table: Path, threaded: dict[str, bytes], tmp_path: Path
) -> None:
    cluster.scale(n_workers)  # type: ignore[no-untyped-call]
    while len(cluster.scheduler_info["workers"]) != n_workers:
        time.sleep(0.01)
    zstore.ingest(table, tmp_path / "s.zarr", **READING, scheduler=cluster.scheduler_address)
    assert stored(tmp_path / "s.zarr") == threaded
    assert verify(open_store(tmp_path / "s.zarr")).faults == ()


def test_tables_of_dialects_make_the_bytes_that_threads_make(cluster: LocalCluster, tmp_path: Path) -> None:
    for name in ("comments and quotes", "date and clock", "a row per series", "even widths"):
        path = tmp_path / f"{name}.csv"
        path.write_text(DIALECTS[name].clean)
        where: dict[str, dict[str, Any]] = {
            "threads": {"workers": 1},
            "cluster": {"scheduler": cluster.scheduler_address},
        }
        for kind, reading in where.items():
            zstore.ingest(path, tmp_path / f"{name} {kind}.zarr", **DIALECTS[name].options, **reading, blocksize=60)
        assert stored(tmp_path / f"{name} cluster.zarr") == stored(tmp_path / f"{name} threads.zarr")


def test_append_and_compact_run_on_a_cluster_too(
    cluster: LocalCluster, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no worker is
    (tmp_path / "rows.csv").write_bytes(table.read_bytes())
    write_table(tmp_path / "late.csv", ["id", "t", "v", "kind"], [["s3", 97, 1.5, "w1"], ["s99", 3, 2.5, "new"]])
    for scheduler in (None, cluster.scheduler_address):
        path = f"{'threads' if scheduler is None else 'cluster'}.zarr"
        zstore.ingest("rows.csv", path, **READING, scheduler=scheduler)
        assert zstore.append("late.csv", path, scheduler=scheduler) is not None
        assert zstore.compact(path, scheduler=scheduler).version == 3
    assert stored("cluster.zarr") == stored("threads.zarr")


def test_a_cluster_works_on_buckets_with_its_scratch_space_there(
    table: Path, threaded: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})  # with this environment
    with S3Server() as server, starts:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{server.make_bucket()}"
        open_storage(url).replace("rows.csv", table.read_bytes())
        zstore.ingest(f"{url}/rows.csv", f"{url}/s.zarr", **READING, scheduler="local", workers=2)
        found = stored(f"{url}/s.zarr")
        shards = {key for key in threaded if "/c/" in key and not key.startswith(("manifest", "index"))}
        assert found.keys() == threaded.keys()
        assert {key: found[key] for key in shards} == {key: threaded[key] for key in shards}


def test_the_command_starts_a_cluster_of_its_own(
    run: Run, table: Path, threaded: dict[str, bytes], tmp_path: Path
) -> None:
    flags = ["--id", "id", "--time", "t", "--blocksize", "20000", "--scheduler", "local", "--workers", "2"]
    run("zstore.cli", "ingest", table, "s.zarr", *flags, check=True)
    assert stored(tmp_path / "s.zarr") == threaded


def test_a_cluster_that_is_started_here_has_as_many_processes_as_were_asked_for() -> None:
    with Scheduler(3, "local") as runner:
        assert len({*runner.map("nap", process_of, range(12))} - {os.getpid()}) == 3


def test_a_bad_row_ends_a_run_on_a_cluster_as_it_does_one_of_threads(cluster: LocalCluster, tmp_path: Path) -> None:
    rows = [["a", t, "bad" if t == 700 else t] for t in range(1000)]
    source = write_table(tmp_path / "a.csv", ["id", "t", "v"], rows)
    with pytest.raises(SourceError, match=r"line 702: 'a,700,bad'"):
        zstore.ingest(
            source, tmp_path / "s.zarr", id="id", time="t", blocksize=1000, scheduler=cluster.scheduler_address
        )
    assert not (tmp_path / "s.zarr").exists()


def test_a_scheduler_that_is_not_there_is_told(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zstore.writing.cluster._CONNECT_S", 1)
    words = ["ingest", str(table), str(tmp_path / "s.zarr"), "--id", "id", "--time", "t"]
    assert main([*words, "--scheduler", "tcp://127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert "no cluster" in said
    assert "check --scheduler" in said
    assert "Traceback" not in said


def running(client: Client) -> list[int]:
    """Processes of workers that run, as their nannies see it: one does not start a worker again that died before."""

    def started(dask_worker: Any) -> int | None:
        process = dask_worker.process
        return process.pid if process is not None and process.status.name == "running" else None

    pids = client.run(started, nanny=True, on_error="ignore").values()
    return sorted(pid for pid in pids if isinstance(pid, int))


def kill_workers(cluster: LocalCluster, n_kills: int, every_s: float, table: Path, path: Path) -> int:
    """Kill a worker now and then while a store is made of a table, again and again until all kills were done."""
    n_done, over = 0, threading.Event()
    rng = random.Random(5)

    def kill() -> None:
        nonlocal n_done
        with Client(cluster.scheduler_address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            while n_done < n_kills and not over.wait(every_s * (0.5 + rng.random())):
                pids = running(client)
                if pids:
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    n_done += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while True:
            zstore.ingest(table, path, **READING, scheduler=cluster.scheduler_address, overwrite=True)
            if n_done >= n_kills:
                break
    finally:
        over.set()
        killer.join()
    return n_done


def test_workers_that_die_change_no_byte(table: Path, threaded: dict[str, bytes], tmp_path: Path) -> None:
    with started(2) as cluster:
        assert kill_workers(cluster, 3, 0.5, table, tmp_path / "s.zarr") == 3
    assert stored(tmp_path / "s.zarr") == threaded


@pytest.mark.long
def test_workers_killed_twenty_times_during_a_run_change_no_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "big.csv"
    with path.open("w") as file:
        file.write("id,t,v,w\n")
        for step in range(6000):
            values = rng.integers(0, 10_000, (500, 2)) / 100
            file.writelines(f"s{series},{step},{a},{b}\n" for series, (a, b) in enumerate(values))
    reading: dict[str, Any] = {"id": "id", "time": "t", "blocksize": 200_000}
    zstore.ingest(path, tmp_path / "threads.zarr", **reading)
    with started(4) as cluster:
        began, n_kills, over = time.monotonic(), 0, threading.Event()

        def kill() -> None:
            nonlocal n_kills
            with Client(cluster.scheduler_address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
                while not over.wait(1):
                    pids = running(client)
                    if pids and n_kills < 20:
                        os.kill(pids[0], signal.SIGKILL)
                        n_kills += 1

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            while n_kills < 20:
                zstore.ingest(path, tmp_path / "s.zarr", **reading, scheduler=cluster.scheduler_address, overwrite=True)
        finally:
            over.set()
            killer.join()
    print(f"{n_kills} workers killed in {time.monotonic() - began:.0f} s")  # noqa: T201  # the figure is asked for
    assert n_kills == 20
    assert stored(tmp_path / "s.zarr") == stored(tmp_path / "threads.zarr")


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_cluster_that_loses_all_its_workers_is_told_of_and_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zstore.writing.cluster._LOOK_S", 0.1)
    monkeypatch.setattr("zstore.writing.cluster._ALONE_S", 2)
    monkeypatch.setattr("zstore.writing.cluster._SETTLE_S", 0)
    with (
        LocalCluster(n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,  # type: ignore[no-untyped-call]
        Scheduler(address=cluster.scheduler_address) as runner,
    ):
        leave = threading.Timer(0.5, cluster.scale, [0])
        leave.start()
        with pytest.raises(StoreError, match="without a worker"):
            runner.map("nap", nap, [0.2] * 100)
        leave.join()
    assert "has no worker; waiting for one" in caplog.text


@pytest.mark.parametrize("compress", [False, True])
def test_fields_are_the_same_on_a_cluster_with_rows_set_aside(
    cluster: LocalCluster, tmp_path: Path, compress: bool
) -> None:
    for n in range(40):
        image(tmp_path / f"im{n}.png", voxels((9, 8, 3), np.uint8, seed=n))
    (tmp_path / "im9.png").write_bytes(b"no image")
    (tmp_path / "im33.png").unlink()
    rows = [[f"s{n % 3}", n // 3, n / 4, f"im{n}.png"] for n in range(40)]
    tables = [write_table(tmp_path / f"{n}.csv", ["id", "t", "v", "path"], rows[: 30 + 10 * n]) for n in range(2)]
    for n in range(2):
        aloha(tmp_path / f"{n}.hdf5", seed=n, compress=compress)
    naming: dict[str, Any] = {"id": "id", "time": "t", "file": {"image": "path"}, "file_root": tmp_path}
    naming |= {"keep_encoded": ["image"] if compress else [], "on_bad_row": "quarantine", **SMALL_GRID}
    where: dict[str, dict[str, Any]] = {"threads": {"workers": 1}, "cluster": {"scheduler": cluster.scheduler_address}}
    for kind, running in where.items():
        zstore.ingest(tables[0], tmp_path / f"files {kind}.zarr", **naming, **running)
        zstore.append(tables[1], tmp_path / f"files {kind}.zarr", on_bad_row="quarantine", **running)
        zstore.compact(tmp_path / f"files {kind}.zarr", **running)
        zstore.ingest(tmp_path / "0.hdf5", tmp_path / f"hdf5 {kind}.zarr", mapping="aloha", **SMALL_GRID, **running)
        zstore.append(tmp_path / "1.hdf5", tmp_path / f"hdf5 {kind}.zarr", **running)
        zstore.compact(tmp_path / f"hdf5 {kind}.zarr", **running)
    for name in ("files", "hdf5"):
        assert stored(tmp_path / f"{name} cluster.zarr") == stored(tmp_path / f"{name} threads.zarr")
