"""Reading a bucket over a wire that is slow, late, broken or busy, and the copies of its objects on the disk."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st
from wire import Wire

from lightning_app.data.datamodule import WindowDataModule
from zstore import CorruptionError, Scaling, Store, StoreError, UsageError, ingest, open_rows, open_store, verify
from zstore.cli import main
from zstore.format.manifest import ObjectRecord
from zstore.reading.ahead import Ahead
from zstore.reading.eviction import Cache, clear_cache, verify_cache
from zstore.reading.objectcache import ObjectCache
from zstore.reading.objectfiles import object_files
from zstore.storage.fetched import Fetched
from zstore.storage.inflight import PART_BYTES, Patience
from zstore.storage.urls import open_storage

GRID: dict[str, Any] = {"chunk_rows": 32, "shard_rows": 128}
N_SHARDS = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket ``b`` with a store of 25 shards, and an object of some 10 MB."""
    base = tmp_path_factory.mktemp("wire")
    content = [[id_, t, t / 10] for id_ in "abcdefgh" for t in range(400)]
    source = write_table(base / "a.csv", ["id", "t", "v"], content)
    ingest(source, base / "buckets" / "b" / "s.zarr", id="id", time="t", workers=1, **GRID)
    large = np.random.default_rng(0).integers(0, 256, 2 * PART_BYTES + 12345, np.uint8)
    (base / "buckets" / "b" / "large").write_bytes(large.tobytes())
    return base / "buckets"


@pytest.fixture
def wire(folder: Path) -> Iterator[Wire]:
    with Wire(folder) as running:
        yield running


def opened(wire: Wire, **more: str) -> Store:
    return open_store("s3://b/s.zarr", storage_options={**wire.options, **more})


def values(store: Store) -> list[float]:
    return [round(float(value), 1) for value in store.read("v", 0, store.n_rows)]


EXPECTED = [round(t / 10, 1) for _ in "abcdefgh" for t in range(400)]


@pytest.mark.parametrize("wrong", ["503", "429", "500", "drop", "half"])
def test_requests_that_fail_now_and_then_are_sent_again(wire: Wire, tmp_path: Path, wrong: str) -> None:
    count = itertools.count()
    wire.fault = lambda method, path, headers: wrong if "/v/c/" in path and next(count) % 5 == 0 else None
    store = opened(wire).with_cache(tmp_path)
    store.expect(["v"], np.array([0]), np.array([store.n_rows]))
    assert values(store) == EXPECTED
    assert verify(opened(wire)).faults == ()


def test_a_server_that_never_answers_ends_in_one_error_that_names_the_object(wire: Wire, tmp_path: Path) -> None:
    store = opened(wire, timeout="100ms", hedge="false").with_cache(tmp_path)
    assert store.n_series == 8
    wire.fault = lambda method, path, headers: "stall" if "/v/c/3" in path else None
    with pytest.raises(StoreError, match=r"cannot read object v/c/3 \(timed out: GET .*Fix: try again"):
        store.read("v", 3 * 128, 4 * 128)


def test_a_straggler_is_asked_for_a_second_time(wire: Wire, tmp_path: Path) -> None:
    store, late = opened(wire).with_cache(tmp_path), itertools.count()
    store.read("v", 0, 20 * 128)  # so that it is known what is usual
    wire.fault = lambda method, path, headers: "stall" if "/v/c/24" in path and next(late) == 0 else None
    began = time.monotonic()
    assert values(store) == EXPECTED
    assert time.monotonic() - began < 20  # it would be 30
    assert next(late) == 2


def test_without_hedge_a_straggler_is_waited_for(wire: Wire, tmp_path: Path) -> None:
    store, late = opened(wire, hedge="false", timeout="400ms").with_cache(tmp_path), itertools.count()
    store.read("v", 0, 20 * 128)
    wire.fault = lambda method, path, headers: "stall" if "/v/c/24" in path and next(late) == 0 else None
    began = time.monotonic()
    assert values(store) == EXPECTED
    assert time.monotonic() - began > 0.4


@given(st.lists(st.floats(0.001, 1), min_size=16, max_size=200))
def test_a_second_request_waits_for_twice_what_is_usual_and_few_are_sent(seconds: list[float]) -> None:
    patience, n_hedged = Patience(), 0
    for each in seconds:
        if patience.may_hedge and each > patience.limit_s:
            patience.n_hedged, n_hedged = patience.n_hedged + 1, n_hedged + 1
        patience.add(each)
    assert 0.1 <= patience.limit_s <= 2 * max(seconds) + 0.1
    assert n_hedged <= 4 + len(seconds) / 20


def test_an_object_that_is_read_in_parts_is_whole_and_few_bytes_are_in_flight(wire: Wire, folder: Path) -> None:
    storage: Any = open_storage("s3://b", {**wire.options, "in_flight": "8MiB", "hedge": "false"})
    known = (folder / "b" / "large").read_bytes()
    assert storage.open("large", len(known)).read() == known
    assert wire.requests["GET"] == 3
    assert storage.read("large", 5, len(known) - 5) == known[5:-5]
    assert 0 < storage._requests.peak_bytes <= 8 << 20
    with pytest.raises(OSError, match="where at most"):
        storage.open("large", len(known) - 1)
    assert wire.n_bytes < 3.2 * len(known)


@pytest.mark.parametrize(("name", "value"), [("in_flight", "1kB"), ("in_flight", "many"), ("hedge", "perhaps")])
def test_options_that_cannot_be_meant_are_refused(wire: Wire, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=value):
        opened(wire, **{name: value})


def test_a_second_epoch_and_another_process_read_the_disk(wire: Wire, tmp_path: Path) -> None:
    fetched: list[str] = []
    wire.fault = lambda method, path, headers: fetched.append(path) if "/v/c/" in path else None
    first, second = (opened(wire).with_cache(tmp_path) for _ in range(2))
    assert values(first) == values(first) == values(second) == EXPECTED
    assert sorted(fetched) == sorted(f"/b/s.zarr/v/c/{shard}" for shard in range(N_SHARDS))
    assert len(object_files(tmp_path)) == N_SHARDS


def test_a_cached_object_that_was_changed_is_fetched_again(wire: Wire, tmp_path: Path, caplog: Any) -> None:
    store = opened(wire).with_cache(tmp_path)
    assert values(store) == EXPECTED
    for number, kept in enumerate(object_files(tmp_path)[:3]):
        content = bytearray(kept.path.read_bytes())
        content[len(content) // 2] ^= 1
        kept.path.write_bytes([bytes(content), bytes(content[:-3]), b""][number])
    before = wire.requests["GET"]
    again = opened(wire).with_cache(tmp_path)
    assert values(again) == EXPECTED
    assert sum("fetched again" in message for message in caplog.messages) == 3
    assert wire.requests["GET"] > before
    assert verify_cache(tmp_path) == (N_SHARDS, [])


def test_a_copy_that_is_damaged_while_it_is_open_is_told_once_and_fetched_again(wire: Wire, tmp_path: Path) -> None:
    store = opened(wire).with_cache(tmp_path)
    assert values(store) == EXPECTED
    path = tmp_path / "objects" / f"{store.objects.records['v/c/3'].digest}.object"
    with path.open("r+b") as file:
        file.write(b"else")
    with pytest.raises(CorruptionError, match=r"the copy of object v/c/3 was changed .*Fix: run again"):
        values(store)
    assert values(store) == EXPECTED
    assert verify_cache(tmp_path) == (N_SHARDS, [])


def test_a_damaged_copy_is_found_and_removed_by_whoever_verifies_the_cache(
    wire: Wire, tmp_path: Path, capsys: Any
) -> None:
    assert values(opened(wire).with_cache(tmp_path)) == EXPECTED
    damaged = object_files(tmp_path)[0].path
    damaged.write_bytes(b"else")
    n_files, wrong = verify_cache(tmp_path)
    assert (n_files, [entry.path for entry in wrong], damaged.exists()) == (N_SHARDS, [str(damaged)], False)
    main(["cache", "list", "--folder", str(tmp_path)])
    assert f"{N_SHARDS - 1} objects of buckets, " in capsys.readouterr().out
    gc.collect()  # files that a store has open are left alone
    assert clear_cache(tmp_path)[0] == N_SHARDS - 1
    assert object_files(tmp_path) == []


def test_an_object_that_is_damaged_in_the_bucket_is_told_and_not_kept(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "b" / "s.zarr", tmp_path / "buckets" / "b" / "s.zarr")
    path = tmp_path / "buckets" / "b" / "s.zarr" / "v" / "c" / "3"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with Wire(tmp_path / "buckets") as wire:
        store = opened(wire).with_cache(tmp_path / "cache")
        store.expect(["v"], np.array([0]), np.array([store.n_rows]))
        with pytest.raises(CorruptionError, match="object v/c/3 has digest"):
            values(store)
        assert "v/c/3" in verify(opened(wire)).faults[0]
    assert all(file.path.suffix == ".object" for file in object_files(tmp_path / "cache"))


def test_the_limit_of_the_cache_is_held_and_what_was_used_longest_ago_goes(wire: Wire, tmp_path: Path) -> None:
    n_bytes = sum(record.n_bytes for key, record in opened(wire).objects.records.items() if key.startswith("v/c/"))
    limit, most = n_bytes // 3, 0
    store = opened(wire).with_cache(Cache(tmp_path, str(limit) + "B"))
    for _ in range(2):
        for start in range(0, store.n_rows, 128):
            store.objects._recent.clear()  # whoever has a copy open keeps it
            store.read("v", start, start + 128)
            most = max(most, sum(file.n_bytes for file in object_files(tmp_path)))
    assert 0 < most <= limit


@pytest.mark.parametrize("limit", [0, 1e-12], ids=["none", "next to none"])
def test_without_room_in_the_cache_rows_come_from_memory(wire: Wire, tmp_path: Path, limit: float) -> None:
    store = opened(wire).with_cache(Cache(tmp_path, limit))
    store.expect(["v"], np.array([0]), np.array([store.n_rows]))
    assert values(store) == EXPECTED
    assert object_files(tmp_path) == []


def test_a_cache_that_cannot_be_written_to_is_said_and_rows_come_from_memory(
    wire: Wire, tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "objects").write_text("a file in the way")
    assert values(opened(wire).with_cache(tmp_path)) == EXPECTED
    assert "are not kept in" in caplog.text


_SHARE = """
import sys
import numpy as np
from zstore import open_store
store = open_store("s3://b/s.zarr", storage_options=eval(sys.argv[1])).with_cache(sys.argv[2])
store.expect(["v"], np.array([0]), np.array([store.n_rows]))
print([round(float(value), 1) for value in store.read("v", 0, store.n_rows)])
"""


def test_two_processes_that_read_at_once_fetch_each_object_once(folder: Path, tmp_path: Path) -> None:
    fetched: list[str] = []
    with Wire(folder, latency_s=0.05) as wire:
        wire.fault = lambda method, path, headers: fetched.append(path) if "/v/c/" in path else None
        words = [sys.executable, "-c", _SHARE, repr({**wire.options, "hedge": "false"}), str(tmp_path)]
        workers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [worker.communicate()[0].strip() for worker in workers] == [str(EXPECTED)] * 2
    assert sorted(fetched) == sorted(f"/b/s.zarr/v/c/{shard}" for shard in range(N_SHARDS))


def test_a_writer_that_died_leaves_nothing_that_is_taken_for_whole(wire: Wire, tmp_path: Path) -> None:
    store = opened(wire)
    record = store.objects.records["v/c/0"]
    partial = tmp_path / "objects" / f"{record.digest}.partial"
    partial.parent.mkdir()
    partial.write_bytes(os.urandom(record.n_bytes + 100))
    assert values(store.with_cache(tmp_path)) == EXPECTED
    assert not partial.exists()
    assert verify_cache(tmp_path) == (N_SHARDS, [])


def test_a_row_file_and_verify_ask_for_many_objects_at_once(folder: Path, tmp_path: Path) -> None:
    with Wire(folder, latency_s=0.1) as wire:
        store = opened(wire)
        assert store.index.contiguous
        assert store.moments
        began = time.monotonic()
        rows = open_rows(store, ["v"], Scaling.identity(1), tmp_path)
        assert time.monotonic() - began < 0.1 * N_SHARDS / 2
    np.testing.assert_allclose(rows.values[:, 0], EXPECTED, rtol=1e-6)


@given(st.lists(st.integers(1, 1 << 26), min_size=1, max_size=20), st.booleans(), st.randoms())
def test_objects_read_ahead_are_those_that_are_read_one_by_one(sizes: list[int], remote: bool, random: Any) -> None:
    records, lock, held, most = [ObjectRecord(f"{n}", size, "") for n, size in enumerate(sizes)], threading.Lock(), 0, 0

    def read(record: ObjectRecord) -> int:
        nonlocal held, most
        with lock:
            held += record.n_bytes
            most = max(most, held)
        return record.n_bytes

    with Ahead(read, records, remote) as ahead:
        for record in records:
            assert ahead.take(record.key) == record.n_bytes
            with lock:
                held -= record.n_bytes
    assert most <= (1 << 27) + max(sizes)


def test_a_stream_with_missing_targets_fetches_each_shard_once_and_gives_the_batches_of_a_folder(
    tmp_path: Path,
) -> None:
    content = [[id_, t, "" if (t // 7) % 3 == 0 else t / 10] for id_ in "abcdefgh" for t in range(400)]
    source = write_table(tmp_path / "a.csv", ["id", "t", "v"], content)
    path = tmp_path / "buckets" / "b" / "s.zarr"
    ingest(source, path, id="id", time="t", workers=1, **GRID)
    fetched: list[str] = []

    def batches(store: str, options: dict[str, str] | None) -> list[Any]:
        data = WindowDataModule(
            store,
            5,
            2,
            batch_size=64,
            scaler="none",
            residency="stream",
            memory_budget="6kB",
            cache=str(tmp_path / "cache"),
            storage_options=options,
        )
        return [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]

    with Wire(tmp_path / "buckets") as wire:
        wire.fault = lambda method, path, headers: fetched.append(path) if "/v/c/" in path else None
        ours = batches("s3://b/s.zarr", {**wire.options, "hedge": "false"})
    for one, other in zip(ours, batches(str(path), None), strict=True):
        for name in ("x", "y", "mask"):
            np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]))
    assert sorted(fetched) == sorted(f"/b/s.zarr/v/c/{shard}" for shard in range(N_SHARDS))


def test_an_object_longer_than_the_limit_puts_nothing_out_of_the_cache(wire: Wire, tmp_path: Path) -> None:
    assert values(opened(wire).with_cache(Cache(tmp_path, "1MB"))) == EXPECTED
    kept = object_files(tmp_path)
    small = Cache(tmp_path, f"{sum(each.n_bytes for each in kept)}B")
    big = ObjectCache(_Answers(b"x" * (2 * small.limit_here)), small)  # type: ignore[arg-type]
    record = ObjectRecord.of("v/c/0", b"x" * (2 * small.limit_here))
    assert big.open(record).read(0, 3) == b"xxx"
    assert not big.has_room
    assert sorted(object_files(tmp_path)) == sorted(kept)


class _Answers:
    """A bucket that answers with the same bytes."""

    remote = True

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, key: str, most: int) -> Fetched:
        return Fetched(self.content, None)


@pytest.mark.parametrize("refused", ["open", "digest"])
def test_a_copy_that_the_disk_does_not_give_is_said_and_rows_come_from_memory(
    wire: Wire, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    assert values(opened(wire).with_cache(tmp_path)) == EXPECTED

    def refuse(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(f"zstore.reading.objectcache.HeldFile.{refused}", refuse)
    assert values(opened(wire).with_cache(tmp_path)) == EXPECTED
    assert "are not kept in" in caplog.text
    assert "Input/output error" in caplog.text


def test_a_copy_of_a_time_to_come_counts_as_used_now_and_can_leave(wire: Wire, tmp_path: Path) -> None:
    assert values(opened(wire).with_cache(tmp_path)) == EXPECTED
    first, *_ = object_files(tmp_path)
    os.utime(first.path, (time.time() + 1e6,) * 2)
    assert max(each.used for each in object_files(tmp_path)) <= time.time()
    assert values(opened(wire).with_cache(tmp_path)) == EXPECTED
    assert first.path.stat().st_mtime <= time.time()


def test_credentials_that_expire_are_told_with_what_to_look_at(wire: Wire, tmp_path: Path) -> None:
    store, count = opened(wire).with_cache(tmp_path), itertools.count()
    assert store.n_series == 8
    wire.fault = lambda method, path, headers: "403" if "/v/c/" in path and next(count) > 3 else None
    with pytest.raises(StoreError, match=r"cannot read object v/c/.*Fix: check .* that credentials have not expired"):
        values(store)


_HEEDS = """
import signal, sys
from {package}.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs behind it ignore interrupts
sys.exit(main(sys.argv[1:]))
"""


def interrupted(wire: Wire, package: str, words: list[str], n_answered: int = 0) -> tuple[int, str]:
    """What a command says, and its code, that is interrupted while it waits for a shard after the first ones."""
    waiting, n_asked = threading.Event(), itertools.count()

    def stall(method: str, path: str, headers: dict[str, str]) -> str | None:
        if "/v/c/" not in path or next(n_asked) < n_answered:
            return None
        waiting.set()
        return "stall"

    wire.fault = stall
    environment = {**os.environ, **{f"AWS_{name.upper()}": value for name, value in wire.options.items()}}
    command = [sys.executable, "-c", _HEEDS.format(package=package), *words]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert waiting.wait(100)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=15)  # an answer is waited for during 30 s, several times
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("command", ["verify", "export"])
def test_a_command_that_waits_for_a_bucket_ends_when_it_is_interrupted(
    wire: Wire, tmp_path: Path, command: str
) -> None:
    words = [command, "s3://b/s.zarr", *([str(tmp_path / "o.csv")] if command == "export" else [])]
    code, said = interrupted(wire, "zstore", words)
    assert code == 130
    assert "interrupted; nothing was committed" in said


@pytest.mark.parametrize("n_answered", [pytest.param(0, marks=pytest.mark.long), 12])
def test_a_fit_that_waits_for_a_bucket_ends_when_it_is_interrupted(wire: Wire, tmp_path: Path, n_answered: int) -> None:
    """Before its first batch, and in an epoch."""
    data: dict[str, Any] = {
        "store": "s3://b/s.zarr",
        "residency": "stream",
        "memory_budget": "20kB",
        "cache": str(tmp_path),
    }
    data |= {"lookback": 8, "horizon": 2, "targets": ["v"], "batch_size": 8, "split": {"sizes": [0.8, 0.1, 0.1]}}
    trainer = {"accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path / "run"), "max_epochs": 1}
    config = {"data": data, "model": {"class_path": "Linear"}, "trainer": trainer}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    code, said = interrupted(wire, "lightning_app", ["fit", "--config", str(tmp_path / "c.yaml")], n_answered)
    assert code == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
