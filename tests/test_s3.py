"""Stores and sources in buckets, against a real server on loopback."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, stored, write_table
from partly import small_parts
from payload_files import image, voxels
from s3server import S3Server

import zstore
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from zstore import ConflictError, SourceError, StoreError, UsageError, ingest, open_store, verify
from zstore.format.layout import MARKER, ROOT
from zstore.storage.bucket import Bucket
from zstore.storage.urls import open_storage
from zstore.writing.lease import leased
from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.version import commit_version

Run = Callable[..., subprocess.CompletedProcess[str]]

BY_ID: dict[str, Any] = {"id": "id", "time": "t"}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, reached through the usual environment variables."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.make_bucket()}"


def rows(first: int, last: int, ids: str = "abc") -> list[list[object]]:
    return [[id_, t, t / 10, f"w{t % 3}"] for t in range(first, last) for id_ in ids]


def table(path: Path, content: list[list[object]]) -> Path:
    return write_table(path, ["id", "t", "v", "kind"], content)


def upload(url: str, path: Path) -> str:
    open_storage(url).replace(path.name, path.read_bytes())
    return f"{url}/{path.name}"


def objects(url: str, options: dict[str, str] | None = None) -> dict[str, bytes]:
    storage = open_storage(url, options)
    return {key: storage.read(key) for key in storage.sizes()}


def without_times(found: dict[str, bytes]) -> dict[str, bytes]:
    return {key: content for key, content in found.items() if not key.endswith(("zarr.json", "root.json"))}


def test_a_store_in_a_bucket_has_the_bytes_of_one_on_disk(bucket: str, tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", rows(0, 200))
    static = write_table(tmp_path / "static.csv", ["id", "area"], [["a", 1.5], ["b", 2.5], ["c", 3]])
    remote = zstore.ingest(upload(bucket, source), f"{bucket}/s.zarr", **BY_ID, static=upload(bucket, static))
    zstore.ingest(source, tmp_path / "s.zarr", **BY_ID, static=static)
    local = {
        str(p.relative_to(tmp_path / "s.zarr")): p.read_bytes() for p in (tmp_path / "s.zarr").rglob("*") if p.is_file()
    }
    found = objects(f"{bucket}/s.zarr")
    assert found.keys() == local.keys()
    ledger = {key for key in found if "/source_" in key}
    assert {k: v for k, v in without_times(found).items() if k not in ledger and "manifest" not in k} == {
        k: v for k, v in without_times(local).items() if k not in ledger and "manifest" not in k
    }
    assert remote.n_stored == 600
    store = open_store(f"{bucket}/s.zarr")
    assert verify(store).faults == ()
    assert store.series("b").read("v").tolist() == [np.float32(t / 10) for t in range(200)]
    assert store.static("area").values.tolist() == [1.5, 2.5, 3]


def test_plain_zarr_and_xarray_read_a_store_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    zstore.ingest(table(tmp_path / "a.csv", rows(0, 50)), f"{bucket}/s.zarr", **BY_ID)
    found = open_store(f"{bucket}/s.zarr").to_xarray()
    assert found["v"].values.tolist() == pytest.approx([t / 10 for _ in "abc" for t in range(50)], abs=1e-6)
    assert found["id"].values.tolist() == ["a", "b", "c"]


def test_a_store_is_not_made_inside_another_one(bucket: str, tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", rows(0, 20))
    zstore.ingest(source, f"{bucket}/s.zarr", **BY_ID)
    before = objects(bucket)
    with pytest.raises(UsageError, match="inside the store"):
        zstore.ingest(source, f"{bucket}/s.zarr/below/t.zarr", **BY_ID)
    assert objects(bucket) == before


def test_an_append_from_a_bucket_takes_only_what_is_new(bucket: str, tmp_path: Path) -> None:
    for day in range(3):
        upload(f"{bucket}/in", table(tmp_path / f"day{day}.csv", rows(10 * day, 10 * day + 10)))
        if day == 0:
            zstore.ingest(f"{bucket}/in/day*.csv", f"{bucket}/s.zarr", **BY_ID)
        else:
            receipt = zstore.append(f"{bucket}/in/day*.csv", f"{bucket}/s.zarr")
            assert receipt is not None
            assert list(receipt.sources) == [f"{bucket}/in/day{day}.csv"]
    assert zstore.append(f"{bucket}/in/day*.csv", f"{bucket}/s.zarr") is None
    late = zstore.append(table(tmp_path / "late.csv", [["b", -5, 1, "new"]]), f"{bucket}/s.zarr")
    assert late is not None
    store = open_store(f"{bucket}/s.zarr")
    assert (store.version, store.n_rows) == (4, 91)
    assert store.channel("kind").categories == ("w0", "w1", "w2", "new")
    for version in range(1, 5):
        assert verify(open_store(f"{bucket}/s.zarr", version)).faults == ()


def test_the_upkeep_of_a_store_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/s.zarr"
    zstore.ingest(table(tmp_path / "0.csv", rows(0, 10)), url, **BY_ID)
    for day in (1, 2):
        zstore.append(table(tmp_path / f"{day}.csv", rows(10 * day, 10 * day + 10)), url)
    whole = open_store(url).series("a").read("v")
    assert zstore.compact(url).version == 4
    assert zstore.rollback(url, 2).n_rows == 60
    assert [entry.action for entry in zstore.log(url)] == ["rollback", "compact", "append", "append", "ingest"]
    assert zstore.rollback(url, 4).version == 6
    assert zstore.gc(url, keep=1)[0] > 0
    np.testing.assert_array_equal(open_store(url).series("a").read("v"), whole)
    assert verify(open_store(url)).faults == ()
    assert MARKER not in objects(url)
    assert b"zstore_writer" not in objects(url)["zarr.json"]


def test_a_store_in_a_bucket_whose_manifest_is_in_parts_grows_and_keeps_what_versions_share(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    store = f"{bucket}/s"
    ingest(table(tmp_path / "1.csv", rows(0, 40)), store, **BY_ID, **SMALL_GRID, workers=1)
    for number in (2, 3):
        zstore.append(table(tmp_path / f"{number}.csv", rows(20 * number, 20 * number + 2)), store, workers=1)
    zstore.rollback(store, 2)
    zstore.gc(store)
    opened = open_store(store)
    assert (opened.version, opened.n_rows, verify(opened).faults) == (4, 126, ())
    kept = {key for key in open_storage(store).sizes() if key.startswith("manifest/")}
    assert kept == {key for key in opened.objects.keys if key.startswith("manifest/")}
    assert {key.split("/")[1] for key in kept if "/part/" in key} == {"00000001", "00000002", "00000004"}


def test_overwriting_in_a_bucket_leaves_the_new_store_alone(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/s.zarr"
    for number in range(3):
        zstore.ingest(table(tmp_path / "a.csv", rows(number, 100)), url, **BY_ID, overwrite=True)
        store = open_store(url)
        assert (store.version, store.n_rows, len(zstore.log(url))) == (number + 1, 3 * (100 - number), 1)
        assert verify(store).faults == ()
        assert sum(key.startswith("v/c/") for key in objects(url)) == 1
    assert store.index.contiguous


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_object_of_a_bucket_is_told(bucket: str, tmp_path: Path, harm: str) -> None:
    url = f"{bucket}/s.zarr"
    zstore.ingest(table(tmp_path / "a.csv", rows(0, 100)), url, **BY_ID)
    storage = open_storage(url)
    content = bytearray(storage.read("v/c/0"))
    content[50] ^= 1
    if harm == "remove":
        storage.remove(["v/c/0"])
    else:
        storage.replace("v/c/0", bytes(content if harm == "flip" else content[:-7]))
    with pytest.raises(zstore.CorruptionError, match="v/c/0"):
        open_store(url).read("v", 0, 10)
    assert "v/c/0" in verify(open_store(url)).faults[0]


def test_an_object_in_the_way_of_a_new_one_is_replaced_and_not_fetched(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/s.zarr"
    zstore.ingest(table(tmp_path / "a.csv", rows(0, 100)), url, **BY_ID)
    table(tmp_path / "b.csv", rows(100, 120))
    open_storage(url).replace("v/c/1", b"\0" * 5_000_000)
    looked: list[int] = []
    look = Bucket.look

    def measured(self: Bucket, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        found = look(self, key, most)
        looked.append(len(found[0]) if found else 0)
        return found

    monkeypatch.setattr(Bucket, "look", measured)
    zstore.append(tmp_path / "b.csv", url)
    assert open_store(url).n_rows == 360
    assert verify(open_store(url)).faults == ()
    assert max(looked) < 1_000_000


def test_a_bucket_without_its_lease_commits_nothing(bucket: str) -> None:
    storage = open_storage(f"{bucket}/s.zarr")
    with pytest.raises(ConflictError, match="another process is writing"):
        storage.commit([], ROOT, b"{}")
    assert storage.sizes() == {}


def test_a_leased_bucket_survives_the_way_to_a_worker_with_its_mark(bucket: str) -> None:
    storage = open_storage(f"{bucket}/s.zarr")
    assert isinstance(storage, Bucket)
    with leased(storage) as (held, _):
        arrived = pickle.loads(pickle.dumps(held))  # noqa: S301  # made here
        assert arrived == held
        arrived.check_held()
        held.at("inner").write("a", b"1")
        with pytest.raises(ConflictError):
            held.at("inner").write("a", b"2")
        held.write("b", b"1")
        held.write("b", b"2")
        assert (held.read("b"), held.read("inner/a")) == (b"2", b"1")


def test_a_second_writer_is_refused_while_the_first_lives_and_takes_over_when_it_died(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    url = f"{bucket}/s.zarr"
    zstore.ingest(table(tmp_path / "a.csv", rows(0, 10)), url, **BY_ID)
    more = table(tmp_path / "b.csv", rows(10, 20))
    script = (
        "import os, sys, zstore, zstore.writing.pipeline as pipeline\n"
        "pipeline.commit_version = lambda *_: os._exit(9)\n"
        "zstore.append(sys.argv[1], sys.argv[2])"
    )
    assert subprocess.run([python, "-c", script, str(more), url], check=False).returncode == 9
    assert open_store(url).n_rows == 30
    with pytest.raises(ConflictError, match="another process is writing"):
        zstore.append(more, url)
    monkeypatch.setenv("ZSTORE_LEASE_S", "0.2")
    assert zstore.append(more, url) is not None
    store = open_store(url)
    assert (store.version, store.n_rows, verify(store).faults) == (2, 60, ())
    zstore.ingest(tmp_path / "a.csv", tmp_path / "one.zarr", **BY_ID)
    zstore.append(more, tmp_path / "one.zarr")
    assert objects(url).keys() == objects(str(tmp_path / "one.zarr")).keys()


def test_a_writer_that_was_taken_for_dead_commits_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/s.zarr"
    zstore.ingest(table(tmp_path / "a.csv", rows(0, 10)), url, **BY_ID)
    slow, quick = table(tmp_path / "slow.csv", rows(10, 20)), table(tmp_path / "quick.csv", rows(10, 15))
    commit: Any = commit_version

    def overtaken(*arguments: object) -> None:
        monkeypatch.setattr("zstore.writing.pipeline.commit_version", commit)
        monkeypatch.setenv("ZSTORE_LEASE_S", "0")
        assert zstore.append(quick, url) is not None
        commit(*arguments)

    monkeypatch.setattr("zstore.writing.pipeline.commit_version", overtaken)
    with pytest.raises(ConflictError):
        zstore.append(slow, url)
    store = open_store(url)
    assert (store.version, store.n_rows, verify(store).faults) == (2, 45, ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s3://{}/none.csv", "s3://{}/s.zarr"], "no such file"),
        (["s3://{}/none*.csv", "s3://{}/s.zarr"], "no file matches"),
        (["a.csv", "s3://missing-bucket/s.zarr"], "cannot reach s3://missing-bucket/s.zarr"),
        (["a.csv", "s3://{}"], "name a prefix for the store"),
        (["a.csv", "ftp://x/s.zarr"], "expected a path, or s3://, gs:// or az://BUCKET/PREFIX"),
        (["a.csv", "s3://{}/s.zarr", "--storage-options", "flavour=1"], "correct --storage-options"),
    ],
)
def test_what_cannot_be_reached_is_told_in_one_line(
    bucket: str, run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    table(tmp_path / "a.csv", rows(0, 10))
    given = [argument.format(bucket.removeprefix("s3://")) for argument in arguments]
    done = run("zstore.cli", "ingest", *given, "--id", "id", "--time", "t")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_storage_options_take_the_place_of_the_environment_and_are_shown_nowhere(
    bucket: str, server: S3Server, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in server.environment:
        monkeypatch.delenv(name)
    options = ",".join(f"{name}={value}" for name, value in server.options.items())
    table(tmp_path / "a.csv", rows(0, 10))
    flags = ["--storage-options", options]
    made = run("zstore.cli", "ingest", "a.csv", f"{bucket}/s.zarr", "--id", "id", "--time", "t", *flags, check=True)
    seen = run("zstore.cli", "info", f"{bucket}/s.zarr", *flags, check=True)
    checked = run("zstore.cli", "verify", f"{bucket}/s.zarr", *flags, check=True)
    assert "sound" in checked.stdout
    stored = b"".join(objects(f"{bucket}/s.zarr", server.options).values())
    for text in (made.stdout, made.stderr, seen.stdout, str(stored)):
        assert server.options["secret_access_key"] not in text
    assert server.options["secret_access_key"] not in repr(
        open_store(f"{bucket}/s.zarr", storage_options=server.options).storage
    )


def test_parquet_is_read_from_a_bucket_as_from_a_folder(bucket: str, tmp_path: Path) -> None:
    columns = list(zip(*rows(0, 60), strict=True))
    written = pa.table({name: list(column) for name, column in zip(["id", "t", "v", "w"], columns, strict=True)})
    pq.write_table(written, tmp_path / "r.parquet", row_group_size=50)
    source = upload(bucket, tmp_path / "r.parquet")
    zstore.ingest(source, f"{bucket}/s.zarr", id="id", time="t", blocksize=1000)
    zstore.ingest(tmp_path / "r.parquet", tmp_path / "s.zarr", id="id", time="t")
    remote, local = (
        {key: content for key, content in stored(path).items() if not key.startswith("manifest/")}
        for path in (f"{bucket}/s.zarr", tmp_path / "s.zarr")
    )
    assert remote == local
    assert zstore.append(source, f"{bucket}/s.zarr") is None


def test_a_source_that_changes_while_it_is_read_is_refused(bucket: str, tmp_path: Path) -> None:
    from zstore.writing.sources.files import expand, read_source

    name = upload(bucket, table(tmp_path / "a.csv", rows(0, 10)))
    (file,) = expand([name])
    upload(bucket, table(tmp_path / "a.csv", rows(5, 15)))
    with pytest.raises(SourceError, match="replaced meanwhile"):
        read_source(file)


def test_without_the_package_for_it_a_bucket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstore.storage.bucket", None)
    with pytest.raises(UsageError, match=r"pip install 'zstore\[s3\]'"):
        open_store("s3://x/y")


@pytest.mark.parametrize("where", ["bucket", "folder"])
@pytest.mark.parametrize("error", [StoreError("the answer was lost"), KeyboardInterrupt()])
def test_a_first_version_that_was_committed_stays_though_its_writer_fails_afterwards(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    url = f"{bucket}/s.zarr" if where == "bucket" else str(tmp_path / "s.zarr")
    commit: Any = commit_version

    def committed_and_failed(*arguments: object) -> None:
        commit(*arguments)
        raise error

    monkeypatch.setattr("zstore.writing.pipeline.commit_version", committed_and_failed)
    with pytest.raises(type(error)):
        zstore.ingest(table(tmp_path / "a.csv", rows(0, 10)), url, **BY_ID)
    store = open_store(url)
    assert (store.version, store.n_rows, verify(store).faults) == (1, 30, ())
    assert MARKER not in objects(url)


def test_a_folder_of_other_things_in_a_bucket_is_left_alone(bucket: str, tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", rows(0, 10))
    upload(f"{bucket}/mine", source)
    with pytest.raises(StoreError, match="something that is no store is in the way"):
        zstore.ingest(source, f"{bucket}/mine", **BY_ID)
    with pytest.raises(StoreError, match="something that is no store is in the way"):
        zstore.ingest(source, f"{bucket}/mine", **BY_ID, overwrite=True)
    assert list(objects(f"{bucket}/mine")) == ["a.csv"]
    assert os.environ["AWS_ENDPOINT_URL"]


def test_a_model_is_trained_from_a_bucket(bucket: str, run: Run, tmp_path: Path) -> None:
    content = [[id_, t, np.sin(t / 9).round(3)] for id_ in "ab" for t in range(400)]
    source = write_table(tmp_path / "a.csv", ["id", "t", "v"], content)
    zstore.ingest(upload(bucket, source), f"{bucket}/s.zarr", **BY_ID)
    (tmp_path / "fit.yaml").write_text(
        f"data:\n  store: {bucket}/s.zarr\n  lookback: 24\n  horizon: 4\n  split:\n    sizes: [0.6, 0.2, 0.2]\n"
        "model:\n  class_path: NLinear\ntrainer:\n  max_epochs: 1\n  accelerator: cpu\n"
    )
    run("lightning_app", "fit", "--config", "fit.yaml", check=True)
    run("lightning_app", "test", "--config", "fit.yaml", check=True)
    assert (tmp_path / "runs/fit/test_metrics.json").exists()


def in_small_chunks(bucket: str, tmp_path: Path) -> str:
    grid: dict[str, Any] = {"chunk_rows": 32, "shard_rows": 128}
    content = [[id_, t, t / 10] for id_ in "abcdefgh" for t in range(400)]
    zstore.ingest(write_table(tmp_path / "a.csv", ["id", "t", "v"], content), f"{bucket}/s.zarr", **BY_ID, **grid)
    return f"{bucket}/s.zarr"


def test_a_stream_from_a_bucket_fetches_each_shard_once_and_further_epochs_read_the_disk(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, fetched = in_small_chunks(bucket, tmp_path), Counter[str]()
    fetch = Bucket.fetch

    def counted(self: Bucket, key: str, n_bytes: int, use: Callable[[int, Any], None]) -> bool:
        fetched.update([key])
        return fetch(self, key, n_bytes, use)

    monkeypatch.setattr(Bucket, "fetch", counted)
    for _ in range(2):  # two runs, of two epochs each
        data = WindowDataModule(
            url, 5, 1, batch_size=16, scaler="none", residency="stream", memory_budget="3500B", cache=str(tmp_path)
        )
        loader = data.train_dataloader()
        assert loader._pool is not None
        assert len(loader._pool.plan.cuts) > 3 * loader._pool.plan.n_slots
        for _ in range(2):
            found = [int(values) for batch in loader for values in (batch["y"][:, 0, 0] * 10).round()]
        assert len(found) == len(loader) * 16
    assert fetched == {f"v/c/{shard}": 1 for shard in range(-(-3200 // 128))}


def test_fields_in_a_bucket_are_streamed_or_decoded_once_but_not_for_each_batch(bucket: str, tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", np.random.default_rng(0).integers(0, 256, (3000, 20, 20), np.uint8))
    content = [["a", t, t, "all.npy", t] for t in range(3000)]
    source = write_table(tmp_path / "t.csv", ["id", "time", "v", "f", "n"], content)
    files: dict[str, Any] = {"file": {"image": "f"}, "file_position": {"image": "n"}, "file_root": str(tmp_path)}
    ingest(source, f"{bucket}/fields.zarr", id="id", time="time", **files)

    def module(place: Any, budget: float | str = 0.5) -> WindowDataModule:
        usual: dict[str, Any] = {"channels": ["v"], "cache": str(tmp_path / "cache"), "batch_size": 70}
        usual["fields"] = {"image": FieldOptions(2, 1, place)}
        return WindowDataModule(f"{bucket}/fields.zarr", 3, 1, memory_budget=budget, **usual)

    host, stream = module("host"), module("auto", "1.1MB")
    assert (host.placement.fields["image"], stream.placement.fields["image"]) == ("host", "stream")
    for ours, theirs in zip(stream.test_dataloader(), host.test_dataloader(), strict=True):
        left, right = (np.asarray(dict(batch)["image"]) for batch in (ours, theirs))
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("keep", [False, True], ids=["arrays", "images"])
def test_encoded_fields_in_a_bucket_are_fetched_once_and_decoded_from_the_cache(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    for n in range(60):
        image(tmp_path / f"{n}.png", np.random.default_rng(n).integers(0, 256, (9, 8, 3), np.uint8))
    source = write_table(tmp_path / "t.csv", ["id", "time", "v", "f"], [["a", t, t, f"{t}.png"] for t in range(60)])
    files: dict[str, Any] = {"file": {"image": "f"}, "file_root": str(tmp_path), **SMALL_GRID}
    ingest(source, f"{bucket}/s.zarr", id="id", time="time", keep_encoded=["image"] if keep else [], **files)

    def module(place: Any) -> WindowDataModule:
        usual: dict[str, Any] = {"channels": ["v"], "cache": str(tmp_path / "cache"), "batch_size": 7, "seed": 1}
        return WindowDataModule(f"{bucket}/s.zarr", 3, 1, fields={"image": FieldOptions(2, 1, place)}, **usual)

    fetched: Counter[str] = Counter()
    get = Bucket._get

    def counted(self: Bucket, key: str, *which: Any) -> Any:
        fetched.update([key] if key.startswith("image/c/") else [])
        return get(self, key, *which)

    encoded, host = module("encoded"), module("host")
    known: list[Any] = list(host.train_dataloader())
    monkeypatch.setattr(Bucket, "_get", counted)
    loader = encoded.train_dataloader()
    for _ in range(2):
        found: list[Any] = list(loader)
        assert len(found) == len(known)
    assert len(fetched) >= (1 if keep else 4)
    assert max(fetched.values()) == 1
    fetched.clear()
    again = module("encoded")
    for ours, theirs in zip(again.train_dataloader(), known, strict=True):
        np.testing.assert_array_equal(np.asarray(dict(ours)["image"]), theirs["image"])
    assert sum(fetched.values()) == keep  # of encoded images the first one is looked at where it is


def test_a_shard_that_took_the_place_of_another_is_refused_however_it_is_read(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = in_small_chunks(bucket, tmp_path)
    store, storage = open_store(url), open_storage(url)
    for shard in range(12):  # more than are kept in memory
        store.read("v", shard * 128, shard * 128 + 10)
    opened = storage.open("v/c/0")
    again = storage.reopen("v/c/0", opened.identity())
    assert again is not None
    assert again.read(0, 10) == opened.read(0, 10)
    storage.replace("v/c/0", storage.read("v/c/1"))
    with pytest.raises(StoreError, match=r"cannot read object v/c/0 any more .*replaced.*Fix: open the store again"):
        store.read("v", 0, 10)


@pytest.mark.parametrize("key", ["../a.csv", "in//a.csv", "in/./a.csv", "in/../*.csv", "in/a\x01.csv", "in//*.csv", ""])
def test_a_url_that_can_be_none_of_an_object_is_refused_wherever_it_is_given(
    key: str, bucket: str, tmp_path: Path
) -> None:
    url, source = f"{bucket}/{key}", table(tmp_path / "a.csv", rows(0, 3))
    calls: list[Callable[[], object]] = [
        lambda: zstore.ingest(url, tmp_path / "s.zarr", **BY_ID),
        lambda: zstore.ingest(source, tmp_path / "s.zarr", **BY_ID, static=url),
        lambda: zstore.ingest(source, url, **BY_ID),
        lambda: zstore.inspect(url),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="expected s3://BUCKET/"):
            call()
    assert not (tmp_path / "s.zarr").exists()


def test_the_key_of_one_object_is_taken_as_it_is_written(bucket: str, tmp_path: Path) -> None:
    table(tmp_path / "a.csv", rows(0, 3))
    for name, area in (("areas.csv", 1), ("[a]reas.csv", 2)):
        upload(bucket, write_table(tmp_path / name, ["id", "area"], [["a", area], ["b", area], ["c", area]]))
    zstore.ingest(tmp_path / "a.csv", tmp_path / "s.zarr", **BY_ID, static=f"{bucket}/[a]reas.csv")
    assert open_store(tmp_path / "s.zarr").static("area").values.tolist() == [2, 2, 2]
    with pytest.raises(SourceError, match="no such file"):
        zstore.ingest(tmp_path / "a.csv", tmp_path / "t.zarr", **BY_ID, static=f"{bucket}/*.csv")


def test_an_object_that_cannot_be_listed_is_told_from_a_bucket_that_does_not_answer(
    bucket: str, server: S3Server, tmp_path: Path
) -> None:
    zstore.ingest(table(tmp_path / "a.csv", rows(0, 3)), f"{bucket}/s.zarr", **BY_ID)
    zstore.append(table(tmp_path / "b.csv", rows(3, 6)), f"{bucket}/s.zarr")
    server.put(f"{bucket.removeprefix('s3://')}/s.zarr/level//x")
    with pytest.raises(StoreError, match=r"an object in the way, .*level//x.*expected keys without empty parts"):
        zstore.gc(f"{bucket}/s.zarr", 1)
    store = open_store(f"{bucket}/s.zarr")
    assert (store.n_rows, verify(store).faults) == (18, ())


def test_a_table_goes_into_a_bucket_and_comes_out_of_it(bucket: str) -> None:
    hours = pd.date_range("2001-01-01", periods=50, freq="h").astype("datetime64[s]")
    rows = pd.DataFrame({"id": "a", "time": hours, "v": np.arange(50, dtype=np.float32), "w": np.float32(0.5)})
    ingest([rows[:30], rows[30:]], f"{bucket}/s.zarr", id="id", time="time", workers=1, **SMALL_GRID)
    store = open_store(f"{bucket}/s.zarr")
    pd.testing.assert_frame_equal(store.sel().to_pandas(), rows)
    assert store.sel(start="2001-01-01 10:00", channels="v").head(1)["v"].tolist() == [10]


@pytest.mark.parametrize("keep", [[], ["image"]])
def test_fields_go_on_in_a_bucket_and_rows_with_a_bad_file_are_set_aside_beside_it(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: list[str], python: str
) -> None:
    for n in range(40):
        image(tmp_path / f"im{n}.png", voxels((9, 8, 3), np.uint8, seed=n))
    (tmp_path / "im11.png").unlink()
    source = write_table(tmp_path / "a.csv", ["id", "t", "path"], [[f"s{n % 3}", n, f"im{n}.png"] for n in range(40)])
    options: dict[str, Any] = {"file": {"image": "path"}, "file_root": str(tmp_path), "keep_encoded": keep}
    options |= {**BY_ID, "chunk_rows": 8, "shard_rows": 16, "on_bad_row": "quarantine"}
    zstore.ingest(source, tmp_path / "s.zarr", **options)
    script = (
        "import json, os, sys, zstore, zstore.writing.pipeline as pipeline\n"
        "pipeline.sum_up = lambda *_: os._exit(9)\n"
        "zstore.ingest(*sys.argv[1:3], scratch=sys.argv[3], **json.loads(sys.argv[4]))"
    )
    words = [str(source), f"{bucket}/s.zarr", str(tmp_path / "scratch"), json.dumps(options)]
    assert subprocess.run([python, "-c", script, *words], check=False).returncode == 9
    monkeypatch.setenv("ZSTORE_LEASE_S", "0.2")
    read: list[str] = []
    one = FileReader._one

    def noted(self: FileReader, kind: str, name: str) -> Any:
        read.append(name)
        return one(self, kind, name)

    monkeypatch.setattr(FileReader, "_one", noted)
    zstore.ingest(source, f"{bucket}/s.zarr", **options, scratch=tmp_path / "scratch")
    assert read == [] if keep else len(set(read)) == 39  # the sample that tells how they are encoded has all of these
    found, local = objects(f"{bucket}/s.zarr"), objects(str(tmp_path / "s.zarr"))
    assert found.keys() == local.keys()
    assert {k: v for k, v in found.items() if k.startswith("image")} == {
        k: v for k, v in local.items() if k.startswith("image")
    }
    assert b"im11.png" in objects(bucket)["s.zarr.quarantine.csv"]
