"""A store from elsewhere can make us fail. It never makes us hang, take memory without end, or leave its folder."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from foreign import (
    ForeignStore,
    at,
    blosc_header,
    bomb,
    cut_chunks,
    fifo,
    inflating,
    linked,
    moved_chunk,
    nested,
    of_array,
    of_channel,
    of_record,
    of_shard,
    of_values,
    other_chunk,
    promising,
    raw,
    refusals,
    said,
    texts,
)

from zstore import StoreError, UsageError, append, ingest, open_store, verify
from zstore.format import arrays

Change = Callable[[ForeignStore], object]  # what a change returns is not looked at

NAMES: dict[str, Change] = {
    "variable of the folder above": of_channel("variable", ".."),
    "variable beside the store": of_channel("variable", "../evil"),
    "variable deep inside": of_channel("variable", "a/b"),
    "variable with an absolute path": of_channel("variable", "/evil"),
    "variable of nothing": of_channel("variable", ""),
    "variable of a drive": of_channel("variable", "C:evil"),
    "variable of the index": of_channel("variable", "index"),
    "variable of the times": of_channel("variable", "Time"),
    "variable that differs by case": of_channel("variable", "COUNT"),
    "variable that is a number": of_channel("variable", 7),
    "variable without end": of_channel("variable", "v" * 3000),
    "variable with an escape": of_channel("variable", "v\x1b[31m"),
    "two channels of one name": of_channel("name", "count"),
    "a name that is half a surrogate": of_channel("name", "\ud800"),
    "a name that is a list": of_channel("name", ["level"]),
    "uuid that is a path": said("uuid", "../../evil"),
    "an object above the store": of_record("../evil"),
    "an object with an absolute path": of_record("/etc/passwd"),
    "an object in the manifest above the store": said("manifest", lambda old: [*old, ["manifest/../x", 1, "0" * 32]]),
    "an array above the store": lambda store: (store.nodes.update({"../evil": {}}), store.sign())[1],
}
NUMBERS: dict[str, Change] = {
    "10**15 rows": said("n_rows", 10**15),
    "10**15 rows and places": lambda store: (
        store.document.update(n_rows=10**15, n_places=10**15, next_shard=10**13),
        *(store.nodes[name].update(shape=[10**15]) for name in ("time", "level", "count", "weather")),
        store.sign(),
    )[-1],
    "minus five rows": said("n_rows", -5),
    "rows as text": said("n_rows", "200"),
    "rows that are true": said("n_rows", True),
    "half a row": said("n_rows", 0.5),
    "one row too many": said("n_rows", 201),
    "2**60 places": said("n_places", 2**60),
    "a thousand million series": said("n_series", 10**9),
    "chunk_rows 0": said("chunk_rows", 0),
    "chunk_rows 48": said("chunk_rows", 48),
    "chunk_rows 2**40": said("chunk_rows", 2**40),
    "shards smaller than chunks": said("shard_rows", 32),
    "next_shard 0": said("next_shard", 0),
    "next_shard 2**61": said("next_shard", 2**61),
    "version 0": said("version", 0),
    "version 10**12": said("version", 10**12),
    "stored as objects": of_channel("stored", "object"),
    "99 decimals": of_channel("decimals", 99),
    "read as objects": of_channel("dtype", "object"),
    "a codec that is none": of_channel("codec", "blosc-evil-9-shuffle"),
    "categories that are numbers": of_channel("categories", [1, 2, 3], 2),
    "categories that are no list": of_channel("categories", "abc", 2),
    "a category twice": of_channel("categories", ["a", "a", "b"], 2),
    "fewer categories than codes": of_channel("categories", ["dry"], 2),
    "a time unit that is none": said("time", {"unit": "fortnight", "freq": 1, "zone": None}),
    "a time step of 0": said("time", {"unit": "s", "freq": 0, "zone": None}),
    "a time zone that is none": said("time", {"unit": "s", "freq": 86400, "zone": "\x1b]0;evil\x07"}),
    "a receipt that is a list": said("receipt", []),
    "a table that is a text": said("table", "evil"),
    "sources compressed as an encoding": said("table", lambda old: {**old, "encoding": "zip"}),
    "options of a table that are numbers": said("table", lambda old: {**old, "time": 7, "missing": {"a": 1}}),
    "half a surrogate among options": said("table", lambda old: {**old, "codec": "\ud800"}),
    "renames that are a text": said("table", lambda old: {**old, "rename": "evil"}),
    "another digest than its own": lambda store: (
        store.root.update(attributes={"note": {"digest": "0" * 32}, **store.root["attributes"]}),
        store.document.update(digest="ab" * 16),
        store.write_root(json.dumps(store.root, indent=1).encode()),
    )[-1],
    "an object of a negative length": of_record("index/00000001/x", -1),
    "a digest that is none": of_record("index/00000001/x", 1, "xyz"),
    "a shard far away": of_record("level/c/1000000000000"),
    "a shard with a sign": of_record("level/c/+1"),
}
ARRAYS: dict[str, Change] = {
    "no array of times": lambda store: (store.nodes.pop("time"), store.sign())[1],
    "an array that is a group": of_array("level", "node_type", "group"),
    "an array of another shape": of_array("level", "shape", [7]),
    "an array of 2**70 places": of_array("level", "shape", [2**70]),
    "an array of two axes": of_array("count", "shape", [200, 1]),
    "an array of objects": of_array("level", "data_type", "object"),
    "chunks of 0 rows": of_array("level", "codecs", 0, "configuration", "chunk_shape", [0]),
    "a grid of 0 rows": of_array("level", "chunk_grid", "configuration", "chunk_shape", [0]),
    "codecs without a checksum": lambda store: (
        store.nodes["level"]["codecs"][0]["configuration"]["codecs"].pop(),
        store.sign(),
    )[1],
    "a fill value that is a list": of_array("level", "fill_value", [1]),
    "ids that are numbers": of_array("{index}/id", "data_type", "int64"),
    "an index of a negative length": of_array("{index}/row_size", "shape", [-5]),
    "an index longer than its series": of_array("{index}/row_size", "shape", [6]),
    "moments of another shape": of_array("{moments}/mean", "shape", [5, 2]),
    "a static attribute without a name": of_array("{index}/area", "attributes", {"zstore_static": 0}),
    "sizes that are negative": of_values("{index}/row_size", at(0, -40)),
    "sizes that add up to more": of_values("{index}/row_size", at(0, 41)),
    "extents outside the arrays": of_values("{index}/extent_stop", at(-1, 10**9)),
    "extents before the arrays": of_values("{index}/extent_start", at(0, -(10**9))),
    "extents that overlap": lambda store: (
        store.set(f"{store.index}/extent_start", store.values(f"{store.index}/extent_start") * 0),
        store.set(f"{store.index}/extent_stop", store.values(f"{store.index}/extent_stop") * 0 + 40),
        store.sign(),
    )[-1],
    "extents that lead nowhere": of_values("{index}/extent_ptr", at(1, 10**6)),
    "runs of other series": of_values("{index}/run_series", at(0, 99)),
    "runs that leave the rows": of_values("{index}/run_stop", at(-1, 10**12)),
    "times that end before they start": of_values("{index}/time_stop", at(0, -(2**63))),
    "ids that are not sorted": of_values("{index}/id", lambda ids: ids[::-1]),
    "ids that are not unique": of_values("{index}/id", at(1, "0000")),
    "codes without a word": of_values("{index}/kind", at(0, 1000)),
    "more values than rows": of_values("{moments}/count", lambda counts: counts * 0 + 10**9),
    "codes in moments without a word": of_values("{moments}/high", lambda values: values * 0 + 1e9),
    "a shard that is not listed": lambda store: (store.records.pop("level/c/0"), store.sign())[1],
}
BOMBS: dict[str, Change] = {
    "a root document nested deeply": raw(lambda content: content[:-1].rstrip() + b', "x": ' + nested(100_000) + b"}"),
    "a root document of 60 MB": raw(lambda content: content[:-1].rstrip() + b', "x": [' + b"[]," * 20_000_000 + b"0]}"),
    "NaN in the root document": raw(lambda content: content.replace(b'"version": 1', b'"version": NaN', 1)),
    "a number of 10,000 digits": raw(lambda content: content.replace(b'"version": 1', b'"version": ' + b"9" * 10_000)),
    "a root document that is no UTF-8": raw(lambda content: content.replace(b'"version": 1', b'"version": "\xff\xfe"')),
    "a root document that is a list": raw(lambda content: b'["zstore": {"digest": "' + b"0" * 32 + b'"}]'),
    "an index that inflates to 3 GB": inflating("{index}/row_size/c/0", 3 << 30),
    "ids that inflate to 3 GB": inflating("{index}/id/c/0", 3 << 30),
    "an index that says what it inflates to": promising(400_000_000),
    "2**32 - 1 ids in a few bytes": texts(b"\xff\xff\xff\xff" + b"\0" * 64),
    "an id of 2 GB in a few bytes": texts(b"\x05\0\0\0" + b"\xff\xff\xff\x7f" + b"\0" * 64),
    "ids that are no UTF-8": texts(b"\x05\0\0\0" + b"\x01\0\0\0\xff" * 5),
    "an index that is empty": inflating("{index}/row_size/c/0", 0),
    "an index that is no zstd": lambda store: (store.put(f"{store.index}/row_size/c/0", b"evil"), store.sign())[1],
    "a shard that inflates to 1 GB": of_shard(other_chunk(bomb(1 << 30))),
    "a shard that says it inflates to 2 GB": of_shard(other_chunk(blosc_header(2**31 - 1, 64))),
    "a chunk longer than it is": of_shard(other_chunk(blosc_header(128, 64)[:40])),
    "a chunk outside its shard": of_shard(moved_chunk(2**63, 2**63)),
    "a chunk of no bytes": of_shard(moved_chunk(0, 0)),
    "chunks that were never written": of_shard(cut_chunks(1)),
    "times that were never written": of_shard(cut_chunks(0), "time"),
    "a shard of four bytes": of_shard(lambda content: b"evil"),
}
LINKS: dict[str, Change] = {
    "scratch space elsewhere": linked(".ingest.scratch", "OUTSIDE"),
    "a channel elsewhere": linked("level", "OUTSIDE/copy"),
    "a shard that never ends": linked("level/c/0", "/dev/zero"),
    "a shard elsewhere": linked("level/c/0", "OUTSIDE/0"),
    "a FIFO as a shard": fifo("count/c/0"),
    "a FIFO as the index": fifo("index/00000001/id/c/0"),
    "a FIFO as the root document": fifo("zarr.json"),
    "a root document that never ends": linked("zarr.json", "/dev/zero"),
    "a folder of the index elsewhere": linked("index", "OUTSIDE/copy"),
    "a marker elsewhere": linked(".ingest", "OUTSIDE/precious"),
    "a copy of the root elsewhere": linked("manifest/00000001/root.json", "OUTSIDE/root.json"),
    "a document of an array elsewhere": linked("level/zarr.json", "OUTSIDE/precious"),
    "a loop": linked("level/loop", "."),
}
STORES = {**NAMES, **NUMBERS, **ARRAYS, **BOMBS, **LINKS}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store with text, static attributes and several chunks a shard."""
    folder = tmp_path_factory.mktemp("sound")
    grid: dict[str, Any] = {"chunk_rows": 64, "shard_rows": 256}
    ingest(rows(folder, range(40)), folder / "s.zarr", id="site", time="date", static=statics(folder), **grid)
    return folder / "s.zarr"


def rows(folder: Path, days: range) -> Path:
    """Rows of five sites."""
    start = np.datetime64("2001-01-01")
    values = [
        [f"{n:04d}", start + np.timedelta64(day, "D"), f"{n + day / 10:.1f}", day, ["dry", "wet", "snow"][day % 3]]
        for n in range(5)
        for day in days
    ]
    return write_table(folder / f"rows{days.start}.csv", ["site", "date", "level", "count", "weather"], values)


def statics(folder: Path) -> Path:
    return write_table(
        folder / "statics.csv", ["site", "area", "kind"], [[f"{n:04d}", n, "ab"[n % 2]] for n in range(5)]
    )


def neighbourhood(folder: Path) -> dict[str, Any]:
    """Everything beside the store: contents of files, targets of links, names of folders."""
    seen: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith("s.zarr"):
            seen[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return seen


def craft(name: str, sound: Path, folder: Path) -> Path:
    """A crafted store in a folder of its own, beside files that nobody may touch."""
    folder.mkdir(parents=True)
    store = folder / "s.zarr"
    shutil.copytree(sound, store)
    (folder / "outside" / "deep").mkdir(parents=True)
    (folder / "outside" / "precious").write_text("precious")
    (folder / "outside" / "deep" / "precious").write_text("precious")
    (folder / "zarr.json").write_text("precious")
    rows(folder, range(40, 42))
    STORES[name](ForeignStore(store))
    return store


# Sound for everybody but `verify`, which sees it: no command needs what the link stands in the place of.
HARMLESS = {"a document of an array elsewhere", "a loop", "a copy of the root elsewhere", "a marker elsewhere"}
HARMLESS |= {"scratch space elsewhere"}


@pytest.mark.parametrize("name", STORES)
def test_no_crafted_store_is_believed_or_leaves_its_folder(name: str, sound: Path, tmp_path: Path) -> None:
    path = craft(name, sound, tmp_path / "folder")
    before = neighbourhood(path.parent)
    said = refusals(path)
    (path.parent / "out.csv").unlink(missing_ok=True)
    assert before == neighbourhood(path.parent)
    assert "verify" in said
    if name not in HARMLESS:
        assert "append" in said or "read" in said


@pytest.mark.parametrize(("name", "n_days"), [("run_time", 1), ("time_start", 1), ("time_stop", -1)])
def test_runs_that_do_not_lead_to_the_times_of_their_series_are_found(
    name: str, n_days: int, sound: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "s.zarr"))
    day = np.array([0, 1, 0, 0, 0]) * open_store(path).time.rule.count
    of_values("{index}/" + name, lambda times: times + n_days * day)(ForeignStore(path))
    assert verify(open_store(path)).faults == ("index: the runs of id '0001' do not lead to its times",)


@pytest.mark.parametrize("name", ["count", "low", "n_missing"])
def test_statistics_in_chunks_of_several_lengths_are_read_as_they_are(
    name: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copytree(sound, tmp_path / "s.zarr"))
    crafted = ForeignStore(path)
    for chunk, each in ((1, name), (5, "high")):
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "_SMALL_CHUNK", chunk)
            crafted.set(f"{crafted.moments}/{each}", crafted.values(f"{crafted.moments}/{each}"))
    crafted.sign()
    shutil.copytree(sound, tmp_path / "plain.zarr")
    for done in range(2):
        stores = [open_store(tmp_path / each) for each in ("s.zarr", "plain.zarr")]
        np.testing.assert_array_equal(stores[0].extremes, stores[1].extremes)
        for field, values in stores[1].moments.fields().items():
            np.testing.assert_array_equal(stores[0].moments.fields()[field], values)
        assert verify(stores[0]).faults == ()
        if not done:
            source = rows(tmp_path, range(40, 42))
            for store in stores:
                append(source, store.path, workers=1)


def test_a_sound_store_is_refused_by_nobody(sound: Path, tmp_path: Path) -> None:
    STORES["none"] = lambda store: store.sign()
    path = craft("none", sound, tmp_path / "folder")
    del STORES["none"]
    assert refusals(path) == {}


def test_there_are_more_than_sixty_of_them() -> None:
    assert len(STORES) >= 60


def test_overwriting_a_store_never_touches_what_lies_behind_a_link(sound: Path, tmp_path: Path) -> None:
    path = craft("a loop", sound, tmp_path / "folder")
    aside = path.with_name(".s.zarr.new")
    aside.symlink_to(path.parent / "outside")
    before = neighbourhood(path.parent)
    with pytest.raises(StoreError, match="something that is no store is in the way"):
        ingest(path.parent / "rows40.csv", path, id="site", time="date", overwrite=True, workers=1)
    assert before == neighbourhood(path.parent)


def test_overwriting_a_store_leaves_a_folder_that_no_writer_made(sound: Path, tmp_path: Path) -> None:
    path = craft("a loop", sound, tmp_path / "folder")
    (path.parent / "outside").rename(path.with_name(".s.zarr.new"))
    with pytest.raises(StoreError, match="something that is no store is in the way"):
        ingest(path.parent / "rows40.csv", path, id="site", time="date", overwrite=True, workers=1)
    assert (path.with_name(".s.zarr.new") / "precious").read_text() == "precious"


def test_an_overwritten_store_has_nothing_of_a_foreign_one(sound: Path, tmp_path: Path) -> None:
    path = craft("scratch space elsewhere", sound, tmp_path / "folder")
    before = neighbourhood(path.parent)
    ingest(path.parent / "rows40.csv", path, id="site", time="date", overwrite=True, workers=1)
    assert before == neighbourhood(path.parent)
    assert refusals(path) == {}


_CHILD = """
import json, re, sys, time
sys.path.insert(0, sys.argv[1])
from foreign import refusals
from pathlib import Path
for path in sys.argv[2:]:
    begun = time.monotonic()
    said = refusals(Path(path))
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    print(json.dumps([path, time.monotonic() - begun, peak, "verify" in said]), flush=True)
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_crafted_store_is_refused_within_five_seconds_and_300_megabytes(sound: Path, tmp_path: Path) -> None:
    paths = [str(craft(name, sound, tmp_path / str(n))) for n, name in enumerate(STORES)]
    words = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), *paths]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    measured = [json.loads(line) for line in lines if line.startswith('["/')]
    assert len(measured) == len(STORES)
    slow = [(path, seconds) for path, seconds, _, _ in measured if seconds > 11 * 5]  # eleven uses of each
    assert slow == []
    assert measured[-1][2] < 300_000  # kB, at most so far
    assert all(refused for _, _, _, refused in measured)


def test_a_file_that_would_fill_the_disk_is_refused_while_it_is_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rows(tmp_path, range(40)).read_bytes()
    header, _, body = plain.partition(b"\n")
    source = tmp_path / "bomb.csv.gz"
    source.write_bytes(gzip.compress(header + b"\n" + body * 2_000))
    free = iter(range(34 << 20, 0, -(1 << 20)))  # as pieces are written
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**12, free=next(free)))
    with pytest.raises(StoreError, match=r"cannot write [0-9,]+ bytes .No space left on device.; expected room"):
        ingest(source, tmp_path / "s.zarr", id="site", time="date", workers=1)
    assert not (tmp_path / "s.zarr").exists()


def test_a_root_document_may_be_larger_where_the_user_says_so(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSTORE_ROOT_BYTES", "1000")
    with pytest.raises(StoreError, match="ZSTORE_ROOT_BYTES"):
        open_store(sound)
    monkeypatch.setenv("ZSTORE_ROOT_BYTES", str(1 << 30))
    assert open_store(sound).n_rows == 200
    monkeypatch.setenv("ZSTORE_ROOT_BYTES", "much")
    with pytest.raises(UsageError, match="ZSTORE_ROOT_BYTES='much'"):
        open_store(sound)


def test_rows_of_a_store_with_another_grid_are_appended_on_that_grid(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "s.zarr")
    append(rows(tmp_path, range(40, 200)), tmp_path / "s.zarr", workers=1)
    store = open_store(tmp_path / "s.zarr")
    assert verify(store).faults == ()
    assert [day for _ in range(5) for day in range(200)] == store.read("count", 0, store.n_rows).tolist()
