"""Clusters that someone else runs: a client that is handed over, workers that come and go, differ, or cannot do it."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, stored, write_table
from distributed import Client, LocalCluster
from hdf5files import aloha
from payload_files import image, npy, voxels
from queries import rows as rows_of_query
from queries import sqlite
from test_lerobot import third
from workers import Killer, Workers

import zstore
from zstore import Query, StoreError, UsageError, open_store, verify
from zstore.storage.folder import Folder
from zstore.upkeep.doctor import examine
from zstore.writing.scheduler import Scheduler

GRID: dict[str, Any] = {"chunk_rows": 32, "shard_rows": 64, "blocksize": 2000}


def frame(n_rows: int = 1200) -> pd.DataFrame:
    n = np.random.default_rng(3).permutation(n_rows)
    return pd.DataFrame({"id": [f"s{each % 7}" for each in n], "time": n // 7, "v": n % 400 / 4, "w": n % 5})


@pytest.fixture
def at_hand() -> Iterator[Client]:
    """A client of a cluster of threads of this process: nothing is assumed of who started what."""
    with (
        LocalCluster(n_workers=2, processes=False, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,  # type: ignore[no-untyped-call]
        Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


def test_a_client_that_is_handed_over_does_all_of_it_and_stays_open(at_hand: Client, tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "a.csv", index=False)
    late = write_table(tmp_path / "late.csv", ["id", "time", "v", "w"], [["s1", -1, 1.5, 0], ["new", 0, 2, 9]])
    found = []
    for scheduler in (None, at_hand):
        path = tmp_path / ("threads.zarr" if scheduler is None else "client.zarr")
        zstore.ingest(tmp_path / "a.csv", path, id="id", time="time", **GRID, scheduler=scheduler)
        assert zstore.append(late, path, scheduler=scheduler) is not None
        zstore.compact(path, scheduler=scheduler)
        store = open_store(path)
        found.append((verify(store, scheduler=scheduler), examine(store, scheduler=scheduler).findings))
    assert stored(tmp_path / "client.zarr") == stored(tmp_path / "threads.zarr")
    assert found[0] == found[1]
    assert at_hand.status == "running"


def test_damage_and_what_is_odd_are_told_alike_by_workers_and_threads(at_hand: Client, tmp_path: Path) -> None:
    rows = frame()
    rows.loc[rows["id"] == "s2", "v"] = 7.25
    zstore.ingest(rows, tmp_path / "s.zarr", id="id", time="time", **GRID)
    shard = sorted((tmp_path / "s.zarr" / "w" / "c").iterdir())[3]
    store = open_store(tmp_path / "s.zarr")
    findings = examine(store, scheduler=at_hand).findings
    assert findings == examine(store, workers=2).findings
    assert {(each.kind, each.series) for each in findings} >= {("constant", "s2")}
    shard.write_bytes(shard.read_bytes()[::-1])
    faults = verify(store, scheduler=at_hand).faults
    assert len(faults) == 1
    assert faults == verify(store).faults


async def _asynchronous(address: str) -> Any:
    return await Client(address, asynchronous=True, set_as_default=False)  # type: ignore[no-untyped-call]


def test_what_is_no_client_that_can_be_used_is_refused(at_hand: Client, tmp_path: Path) -> None:
    address = str(at_hand.scheduler_info()["address"])
    closed = Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
    closed.close()  # type: ignore[no-untyped-call]
    waiting = asyncio.new_event_loop().run_until_complete(_asynchronous(address))
    for wrong, said in ((closed, "closed"), (waiting, "an asynchronous Client"), (at_hand.cluster, "a LocalCluster")):
        with pytest.raises(UsageError, match=rf"scheduler that is .*{said}.*pass Client\(cluster\)"):
            zstore.ingest(frame(), tmp_path / "s.zarr", id="id", time="time", scheduler=wrong)
    assert not (tmp_path / "s.zarr").exists()


def _most_at_once(_: int, counts: list[int] = []) -> int:  # noqa: B006  # of the process of the worker
    counts.append(1)
    time.sleep(0.05)
    found = len(counts)
    counts.pop()
    return found


def test_a_worker_does_as_many_tasks_at_once_as_its_memory_has_room_for() -> None:
    never = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
    for memory, n in (("1GiB", 3), ("300MiB", 1), ("64GiB", 6)):
        with (
            dask.config.set(never),  # this process is larger than the worker that it has
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=1, processes=False, threads_per_worker=6, memory_limit=memory, dashboard_address="127.0.0.1:0"
            ) as cluster,
            Scheduler(address=cluster.scheduler_address) as runner,
        ):
            assert max(runner.map("count", _most_at_once, range(24))) == n


def test_a_commit_removes_what_a_killed_worker_was_writing_beside_its_place(tmp_path: Path) -> None:
    folder = Folder(tmp_path, shared=True)
    folder.write_all({"v/c/0": b"one", "v/c/1": b"two"})
    (tmp_path / "v" / "c" / f".1.{'0a' * 16}").write_bytes(b"tw")
    folder.commit(["v/c/0", "v/c/1"], "zarr.json", b"{}")
    assert {*folder.sizes()} == {"v/c/0", "v/c/1", "zarr.json"}


# ---- Processes. Their memory, threads, folders and releases are their own.


@pytest.fixture(scope="module")
def four() -> Iterator[Workers]:
    workers = Workers(4)
    yield workers
    workers.close()


def _csv(folder: Path) -> dict[str, Any]:
    frame().to_csv(folder / "a.csv", index=False)
    frame().assign(time=lambda rows: rows["time"] + 500).to_csv(folder / "b.csv.gz", index=False)
    return {"sources": [folder / "a.csv", folder / "b.csv.gz"]}


def _wide(folder: Path) -> dict[str, Any]:
    wide = frame().pivot_table(index="time", columns="id", values="v").reset_index()
    wide.to_csv(folder / "wide.csv", index=False)
    return {"sources": folder / "wide.csv", "layout": "wide", "id": None}


def _parquet(folder: Path) -> dict[str, Any]:
    for n in range(5):
        part = frame().assign(time=lambda rows, n=n: rows["time"] + 500 * n)
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), folder / f"{n}.parquet", row_group_size=300)
    return {"sources": str(folder / "*.parquet")}


def _arrow(folder: Path) -> dict[str, Any]:
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=200)
    return {"sources": folder / "a.arrow"}


def _query(folder: Path) -> dict[str, Any]:
    uri = sqlite(folder / "t.db", rows_of_query(3000))
    return {"sources": Query("select * from t", uri, partition="k", partitions=4)}


def _memory(folder: Path) -> dict[str, Any]:
    return {"sources": frame(), "static": pd.DataFrame({"id": [f"s{n}" for n in range(7)], "area": range(7)})}


def _stream(folder: Path) -> dict[str, Any]:
    return {"sources": pa.Table.from_pandas(frame(), preserve_index=False).to_reader(200)}


def _hdf5(folder: Path) -> dict[str, Any]:
    for n in range(4):
        aloha(folder / f"{n}.hdf5", seed=n)
    return {"sources": str(folder / "*.hdf5"), "mapping": "aloha", "id": None, "time": None}


def _lerobot(folder: Path) -> dict[str, Any]:
    return {"sources": third(folder / "robot"), "id": None, "time": None, "chunk_rows": 1, "shard_rows": 2}


def _fields(folder: Path, **more: Any) -> dict[str, Any]:
    for n in range(120):
        image(folder / f"{n}.png", voxels((6, 5, 3), np.uint8, seed=n))
        npy(folder / f"{n}.npy", voxels((4, 3), np.float32, seed=n))
    rows = [[f"s{n % 3}", n // 3, n / 4, f"{n}.png", f"{n}.npy"] for n in range(120)]
    path = write_table(folder / "rows.csv", ["id", "time", "v", "png", "npy"], rows)
    files = {"file": {"image": "png", "scan": "npy"}, "file_root": folder}
    return {"sources": path, **files, **SMALL_GRID, "blocksize": 400, **more}


def _bytes(folder: Path) -> dict[str, Any]:
    return _fields(folder, keep_encoded=["image"])


SOURCES: list[Callable[[Path], dict[str, Any]]] = [
    _csv,
    _wide,
    _parquet,
    _arrow,
    _query,
    _memory,
    _stream,
    _hdf5,
    _lerobot,
    _fields,
    _bytes,
]


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__[1:])
def test_two_of_four_workers_are_killed_and_replaced_and_no_byte_is_another(
    source: Callable[[Path], dict[str, Any]], four: Workers, tmp_path: Path
) -> None:
    four.wait(4)
    killer = Killer(four)
    where = four.client if source in (_csv, _hdf5) else four.address
    runs: dict[str, dict[str, Any]] = {"threads": {}, "cluster": {"scheduler": where, "progress": killer}}
    given = source(tmp_path)
    for name, running in runs.items():
        given = source(tmp_path) if source is _stream else given  # which can be read once
        zstore.ingest(store=tmp_path / f"{name}.zarr", **{"id": "id", "time": "time", **GRID, **given, **running})
    assert killer.n_kills == 2
    assert stored(tmp_path / "cluster.zarr") == stored(tmp_path / "threads.zarr")
    assert verify(open_store(tmp_path / "cluster.zarr"), scheduler=four.address).faults == ()


@pytest.mark.long
def test_workers_that_come_and_go_as_dask_likes_change_no_byte(tmp_path: Path) -> None:
    frame(30_000).to_csv(tmp_path / "a.csv", index=False)
    reading: dict[str, Any] = {"id": "id", "time": "time", **GRID}
    zstore.ingest(tmp_path / "a.csv", tmp_path / "threads.zarr", **reading)
    numbers, over = set[int](), threading.Event()
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,  # type: ignore[no-untyped-call]
        Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        cluster.adapt(minimum=0, maximum=4, interval="100ms", wait_count=1)

        def count() -> None:
            while not over.wait(0.05):
                numbers.add(len(client.scheduler_info(n_workers=-1)["workers"]))

        counter = threading.Thread(target=count)
        counter.start()
        zstore.ingest(tmp_path / "a.csv", tmp_path / "s.zarr", **reading, scheduler=client)
        over.set()
        counter.join()
    assert min(numbers) == 0
    assert max(numbers) > 1
    assert stored(tmp_path / "s.zarr") == stored(tmp_path / "threads.zarr")


@pytest.mark.long
def test_workers_that_differ_in_threads_and_memory_make_the_same_bytes(tmp_path: Path) -> None:
    frame(5000).to_csv(tmp_path / "a.csv", index=False)
    reading: dict[str, Any] = {"id": "id", "time": "time", **GRID}
    zstore.ingest(tmp_path / "a.csv", tmp_path / "threads.zarr", **reading)
    workers = Workers(1)
    workers.processes += [
        workers.start("--nthreads", 8, "--memory-limit", "600MiB"),
        workers.start("--nthreads", 2, "--memory-limit", "8GiB"),
    ]
    workers.wait(3)
    zstore.ingest(tmp_path / "a.csv", tmp_path / "s.zarr", **reading, scheduler=workers.client)
    workers.close()
    assert stored(tmp_path / "s.zarr") == stored(tmp_path / "threads.zarr")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs a path that each process has another folder at")
@pytest.mark.parametrize("unseen", ["scratch", "store", "source"])
def test_a_worker_that_does_not_see_a_folder_is_named(
    unseen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame().to_csv(tmp_path / "a.csv", index=False)
    places = {"scratch": tmp_path / "scratch", "store": tmp_path / "s.zarr", "source": tmp_path / "a.csv"}
    places[unseen] = Path("/proc/self/cwd") / places[unseen].name  # the folder that each process is in
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    workers = Workers(1)
    workers.processes.append(workers.start(folder=elsewhere))
    workers.wait(2)
    blind = {
        address
        for address, folder in workers.client.run(lambda: __import__("os").getcwd()).items()
        if folder == str(elsewhere)
    }
    try:
        with pytest.raises(StoreError, match=f"worker {blind.pop()} of the cluster does not see .*Fix:"):
            zstore.ingest(
                places["source"],
                places["store"],
                id="id",
                time="time",
                scratch=places["scratch"],
                scheduler=workers.client,
                **GRID,
            )
    finally:
        workers.close()
    assert not (tmp_path / "s.zarr").exists()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize(("text", "said"), [("9.9.9", "zstore 9.9.9"), (None, "no zstore")])
def test_a_worker_with_another_release_is_named(text: str | None, said: str, tmp_path: Path) -> None:
    other = "sys.modules['zstore'] = None" if text is None else f"import zstore._version as v; v.__version__ = {text!r}"
    (tmp_path / "other.py").write_text(f"import sys\n{other}\n")
    workers = Workers(1)
    workers.processes.append(workers.start("--preload", tmp_path / "other.py", "--name", "odd"))
    workers.wait(2)
    try:
        with pytest.raises(StoreError, match=f"worker tcp://127.0.0.1:[0-9]+ of the cluster has {said}; expected"):
            zstore.ingest(frame(), tmp_path / "s.zarr", id="id", time="time", scheduler=workers.address)
    finally:
        workers.close()
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("at", [0, 3], ids=["between two phases", "within one"])
def test_a_client_that_is_closed_in_the_middle_is_told_and_the_next_run_goes_on(tmp_path: Path, at: int) -> None:
    frame().to_csv(tmp_path / "a.csv", index=False)
    reading: dict[str, Any] = {"id": "id", "time": "time", **GRID}
    zstore.ingest(tmp_path / "a.csv", tmp_path / "whole.zarr", **reading)
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:  # type: ignore[no-untyped-call]
        client = Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]

        def close(phase: str, done: int, total: int, unit: str) -> None:
            if phase == "parse" and done >= at:
                client.close()  # type: ignore[no-untyped-call]

        with pytest.raises(StoreError, match=r"lost the cluster \(.*run the same command again: it goes on from there"):
            zstore.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", **reading, scheduler=client, progress=close)
    assert not (tmp_path / "a.zarr" / "zarr.json").exists()
    zstore.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", **reading)
    assert stored(tmp_path / "a.zarr") == stored(tmp_path / "whole.zarr")
