"""The manifest in parts: what an append writes of it, what a reader reads of it, and who refuses it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from benchmarks import objects
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st
from partly import document, parts_of_rows, small_parts

import zstore
from zstore import CorruptionError, SourceError, Store, StoreError, open_store, verify
from zstore.format import parts
from zstore.format.layout import root_copy_key, split_shard_key
from zstore.format.manifest import ObjectRecord, digest
from zstore.format.parts import MOST_PART_OBJECTS, Axes, Part, Top, decode_top
from zstore.format.spans import holds, uncovered, union
from zstore.reading.listed import Described, PartedManifest
from zstore.storage.folder import Folder
from zstore.writing.listing import Inventory, manifest_in_parts

GRID: dict[str, Any] = {"chunk_rows": 4, "shard_rows": 8, "workers": 1}


def rows(folder: Path, name: str, times: range, ids: str = "ab", value: float = 0.25) -> Path:
    """A table of two channels."""
    return write_table(folder / name, ["id", "t", "v", "w"], [[i, t, t * value, t] for i in ids for t in times])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of ten shards of three arrays, whose manifest is in parts of two shards."""
    small_parts(monkeypatch)
    zstore.ingest(rows(tmp_path, "1.csv", range(40)), tmp_path / "s.zarr", id="id", time="t", **GRID)
    return tmp_path / "s.zarr"


def objects_of(path: Path, version: int | None = None) -> set[str]:
    """The shards that a version lists."""
    keys = open_store(path, version).objects.records
    return {key for key in keys if not key.startswith(("index/", "moments/"))}


class Counted(Folder):
    """A folder that notes which objects are opened."""

    opened: ClassVar[list[str]] = []

    def open(self, key: str, most: int | None = None) -> Any:
        self.opened.append(key)
        return super().open(key, most)


def test_a_store_of_few_objects_has_its_manifest_in_one_piece_and_the_format_it_had(tmp_path: Path) -> None:
    zstore.ingest(rows(tmp_path, "1.csv", range(40)), tmp_path / "s.zarr", id="id", time="t", **GRID)
    zstore.append(rows(tmp_path, "2.csv", range(40, 44)), tmp_path / "s.zarr", workers=1)
    assert document(tmp_path / "s.zarr")["format"] == 2
    assert not list(tmp_path.rglob("top.json"))
    assert not list(tmp_path.rglob("part"))


def test_a_store_that_grows_beyond_the_limit_goes_on_in_parts_and_one_that_shrinks_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    zstore.ingest(rows(tmp_path, "1.csv", range(40)), path, id="id", time="t", **GRID)
    monkeypatch.setattr(parts, "MOST_LISTED", len(open_store(path).objects.records))
    formats = []
    for number in range(2, 5):
        zstore.append(rows(tmp_path, f"{number}.csv", range(20 * number, 20 * number + 4)), path, workers=1)
        formats.append(document(path)["format"])
    zstore.rollback(path, 1)
    formats.append(document(path)["format"])
    assert formats == [3, 3, 3, 2]
    assert verify(open_store(path)).faults == ()


def test_software_that_knows_two_formats_refuses_parts_with_one_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("zstore.reading.root", "zstore.format.schema"):
        monkeypatch.setattr(f"{module}.FORMATS", (1, 2))
    with pytest.raises(StoreError, match=r"store format 3; expected format 1 or 2.*Fix: install the zstore that wrote"):
        open_store(path)


def test_an_append_writes_the_last_part_as_long_as_it_has_room_and_else_a_new_one(path: Path, tmp_path: Path) -> None:
    first = parts_of_rows(path)
    assert [key.split("/")[1] for key in first] == ["00000001"] * 5
    for number, times in enumerate((range(40, 44), range(44, 48)), start=2):
        zstore.append(rows(tmp_path, f"{number}.csv", times), path, workers=1)
    assert parts_of_rows(path)[:5] == first  # full, they stay as they are
    assert [key.split("/")[1] for key in parts_of_rows(path)[5:]] == ["00000003"]
    written = {p.name for p in (path / "manifest/00000003/part").iterdir()}
    assert written == {"0.json", "1.json", "2.json"}  # small objects, the last shards, sources


def test_a_late_row_changes_only_parts_that_lose_shards(path: Path, tmp_path: Path) -> None:
    first = parts_of_rows(path)
    late = write_table(tmp_path / "late.csv", ["id", "t", "v", "w"], [["b", 3, 99, 99]])
    zstore.append(late, path, on_duplicate="last", workers=1)
    after = parts_of_rows(path)
    assert after[:2] == first[:2]  # of series a alone
    assert {key.split("/")[1] for key in after[2:]} == {"00000002"}
    assert open_store(path)["b"].to_pandas()["v"].iloc[3] == 99
    assert verify(open_store(path)).faults == ()


def test_a_channel_that_needs_more_room_is_listed_under_its_new_variable(path: Path, tmp_path: Path) -> None:
    finer = write_table(tmp_path / "finer.csv", ["id", "t", "v", "w"], [["a", 50, "0.00001", 1]])
    zstore.append(finer, path, workers=1)
    assert {split_shard_key(key)[0] for key in objects_of(path)} == {"time", "v-v2", "w"}
    assert verify(open_store(path)).faults == ()


def test_the_ledger_keeps_its_parts_and_the_order_in_which_sources_came(path: Path, tmp_path: Path) -> None:
    for number in range(2, 20):
        zstore.append(rows(tmp_path, f"{number}.csv", range(38 + number, 39 + number)), path, workers=1)
    names = [Path(record.key).name for record in open_store(path).ledger]
    assert names == [f"{number}.csv" for number in range(1, 20)]
    top = json.loads((path / "manifest/00000019/top.json").read_text())
    assert [(key.split("/")[1], n) for key, _, _, n, *_ in top["sources"]] == [
        ("00000008", 8),
        ("00000016", 8),
        ("00000019", 3),
    ]
    (tmp_path / "5.csv").write_text((tmp_path / "5.csv").read_text().replace("a,43,10.75", "a,43,10.5"))
    zstore.append(tmp_path / "5.csv", path, force=True, on_duplicate="last", workers=1)
    assert [Path(record.key).name for record in open_store(path).ledger] == names
    assert zstore.append(tmp_path / "5.csv", path, workers=1) is None


def test_opening_reads_the_root_alone_and_a_row_one_part_more(path: Path) -> None:
    Counted.opened.clear()
    store = Store(Counted(path))
    assert Counted.opened == ["zarr.json"]
    Counted.opened.clear()
    assert len(store.index.ids) == 2
    read = [key for key in Counted.opened if key.startswith("manifest/")]
    groups = ["manifest/zarr.json", "manifest/00000001/zarr.json"]
    assert read == ["manifest/00000001/top.json", *groups, "manifest/00000001/part/0.json"]
    Counted.opened.clear()
    assert store.read("v", 17, 19).tolist() == [4.25, 4.5]
    assert Counted.opened == [parts_of_rows(path)[1], "v/c/2"]


def test_a_damaged_part_costs_the_objects_that_it_lists_and_verify_looks_at_all_others(path: Path) -> None:
    damaged = path / parts_of_rows(path)[1]
    damaged.write_bytes(damaged.read_bytes().replace(b'"v/c/2"', b'"v/c/3"'))
    (path / "w/c/9").unlink()
    store = open_store(path)
    assert store.read("v", 0, 16).tolist() == [t / 4 for t in range(16)]
    with pytest.raises(CorruptionError, match=f"object {parts_of_rows(path)[1]} has digest"):
        store.read("v", 16, 24)
    faults = verify(open_store(path)).faults
    assert [fault.split()[1] for fault in faults] == [parts_of_rows(path)[1], "w/c/9"]
    assert "the 6 objects that it lists were not looked at" in faults[0]


@pytest.mark.parametrize("lost", ["manifest/00000001/top.json", "manifest/00000001/part/0.json"])
def test_a_manifest_without_its_top_or_the_part_of_the_index_is_damage(path: Path, lost: str) -> None:
    (path / lost).unlink()
    with pytest.raises(CorruptionError, match=f"object {lost} is missing"):
        open_store(path).read("v", 0, 1)
    with pytest.raises(StoreError, match="is missing"):
        zstore.gc(path)  # which would remove what it does not know to be needed
    assert len(list((path / "v/c").iterdir())) == 10


def test_gc_keeps_the_parts_of_removed_versions_that_a_kept_one_shares(path: Path, tmp_path: Path) -> None:
    zstore.append(rows(tmp_path, "2.csv", range(40, 44)), path, workers=1)
    zstore.append(rows(tmp_path, "3.csv", range(44, 48)), path, workers=1)
    zstore.rollback(path, 2)
    zstore.gc(path)
    store = open_store(path)
    assert verify(store).faults == ()
    assert (store.version, store.n_rows) == (4, 88)
    left = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert left == {*store.objects.keys, "zarr.json", "time/zarr.json", "v/zarr.json", "w/zarr.json"}
    assert any(key.startswith("manifest/00000001/part/") for key in left)
    assert root_copy_key(1) not in left


# What a foreign top, or a foreign part, may not say.

Change = Callable[[dict[str, Any], dict[str, list[Any]]], object]


def sign(path: Path, change: Change) -> None:
    """Change the top, or parts, of a manifest, with every digest made right again."""
    root = json.loads((path / "zarr.json").read_text())
    said = root["attributes"]["zstore"]
    top_key = f"manifest/{said['version']:08d}/top.json"
    top = json.loads((path / top_key).read_text())
    contents = {entry[0]: json.loads((path / entry[0]).read_text()) for entry in top["objects"]}
    before = {key: json.dumps(content) for key, content in contents.items()}
    change(top, contents)
    for entry in top["objects"] if isinstance(top, dict) and isinstance(top.get("objects"), list) else ():
        if isinstance(entry, list) and entry[0] in contents and json.dumps(contents[entry[0]]) != before[entry[0]]:
            content = json.dumps(contents[entry[0]]).encode()
            (path / entry[0]).write_bytes(content)
            entry[1:3] = len(content), digest(content)
    content = json.dumps(top).encode()
    (path / top_key).write_bytes(content)
    said["manifest"] = [
        [k, len(content), digest(content)] if k == top_key else [k, n, d] for k, n, d in said["manifest"]
    ]
    said["digest"] = "0" * 32
    said["digest"] = digest(json.dumps(root, indent=1).encode())
    signed = json.dumps(root, indent=1).encode()
    (path / "zarr.json").write_bytes(signed)
    (path / root_copy_key(said["version"])).write_bytes(signed)


def entry(position: int, value: Any, number: int = 2) -> Change:
    """Another value in the line of a part."""

    def change(top: dict[str, Any], _: Any) -> None:
        top["objects"][number][position] = value

    return change


def listed(number: int, *line: Any) -> Change:
    """Another object in a part."""

    def change(top: dict[str, Any], contents: dict[str, list[Any]]) -> None:
        contents[top["objects"][number][0]][0] = list(line)

    return change


FOREIGN: dict[str, tuple[Change, str]] = {
    "a part above the store": (entry(0, "../../evil"), "a key of letters, digits"),
    "a part that is a shard": (entry(0, "v/c/0"), "part 'v/c/0'"),
    "a part of a version to come": (entry(0, "manifest/00000009/part/0.json"), "of this version or one before"),
    "a part of another spelling": (entry(0, "manifest/00000001/part/007.json"), "of this version or one before"),
    "a part twice": (lambda top, _: top["objects"].append(top["objects"][-1]), "a part twice"),
    "parts that overlap": (entry(5, 0), "begins before"),
    "parts out of order": (lambda top, _: top["objects"].reverse(), "begins before"),
    "a part of a strange dimension": (entry(4, "evil"), "objects of this store"),
    "a dimension that is a number": (entry(4, 7), "a text"),
    "a part that ends before it begins": (entry(6, 0), "objects of this store"),
    "a part without objects": (entry(3, 0), "number of objects"),
    "a million objects in a few bytes": (entry(3, 10**6), "number of objects"),
    "a part of 2**40 bytes": (entry(1, 1 << 40), "length of manifest"),
    "positions beyond all": (entry(6, 1 << 60, -1), "last position"),
    "a line of two values": (lambda top, _: top["objects"].append(["a", 1]), "as a part"),
    "a top without sources": (lambda top, _: top.pop("sources"), "without lists of parts"),
    "a top without the last shards": (lambda top, _: top["objects"].pop(), "every shard that holds a row|80 rows"),
    "an object above the store": (listed(1, "../evil", 1, "0" * 32), "a key of letters, digits"),
    "an object of another part": (listed(1, "v/c/7", 200, "0" * 32), "objects from"),
    "an object twice": (listed(1, "time/c/1", 200, "0" * 32), "twice in the manifest"),
    "an object of the index among shards": (listed(1, "index/00000001/x", 1, "0" * 32), "objects from"),
    "an object that is a number": (listed(1, 7, 1, "0" * 32), "a text"),
    "a line of an object that is short": (listed(1, "v/c/0"), "key, length and digest"),
    "a digest that is none": (listed(1, "v/c/0", 200, "evil"), "32 hex digits"),
    "a shard that ends before its index of chunks": (listed(1, "v/c/0", 3, "0" * 32), "the index of chunks"),
    "a part that lists fewer": (
        lambda top, contents: contents[top["objects"][1][0]].pop(),
        "lists other than 6 objects",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_foreign_manifest_says_is_checked_before_anything_is_made_of_it(path: Path, name: str) -> None:
    change, expected = FOREIGN[name]
    sign(path, change)
    store = open_store(path)
    with pytest.raises(StoreError, match=expected):
        store.read("v", 0, store.n_rows)
    try:
        faults = " ".join(verify(open_store(path)).faults)
    except StoreError as error:
        faults = str(error)
    assert faults


def test_ten_to_the_fifteenth_rows_need_parts_that_list_them(path: Path) -> None:
    root = json.loads((path / "zarr.json").read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    root["attributes"]["zstore"].update(n_places=10**15, next_shard=10**15 // 8)
    for name in ("time", "v", "w"):
        nodes[name]["shape"] = [10**15]
    (path / "zarr.json").write_text(json.dumps(root, indent=1))
    sign(path, lambda top, _: top["objects"][-1].__setitem__(6, 10**14))
    assert open_store(path).read("v", 79, 80).tolist() == [9.75]  # far places alone need no memory
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["zstore"].update(n_rows=10**15)
    (path / "zarr.json").write_text(json.dumps(root, indent=1))
    sign(path, lambda top, _: None)
    with pytest.raises(StoreError, match="sizes of series that add up to 80"):
        open_store(path).read("v", 0, 1)


def test_a_part_behind_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    part = path / parts_of_rows(path)[0]
    os.rename(part, tmp_path / "outside.json")
    part.symlink_to(tmp_path / "outside.json")
    with pytest.raises(CorruptionError, match="is a link"):
        open_store(path).read("v", 0, 1)


# Any sequence of changes, against a set.

SHARDS = st.sets(st.integers(0, 60), max_size=12)


class Versions:
    """Manifests in parts of one version after the other, without a store around them."""

    def __init__(self, template: Store) -> None:
        self.template, self.version = template, 0
        self.objects: dict[str, bytes] = {}
        self.listed: dict[str, ObjectRecord] = {}
        self.ledger: list[ObjectRecord] = []
        self.manifest: PartedManifest | None = None

    def commit(self, gone: set[str], new: list[ObjectRecord], sources: list[ObjectRecord]) -> None:
        """A version without some shards of the one before, with new ones, and with more sources."""
        self.version += 1
        small = [ObjectRecord(f"index/{self.version:08d}/zarr.json", 10, "0" * 32)]
        self.listed = {key: record for key, record in self.listed.items() if key not in gone and key[0] != "i"}
        self.listed |= {record.key: record for record in (*new, *small)}
        self.ledger = [*self.ledger, *sources]
        schema = replace(self.template.schema, version=self.version, form=3)
        made = manifest_in_parts(schema, self.inventory(gone, new), small, self.ledger)
        assert not made.parts.keys() & self.objects.keys()
        self.objects |= {**made.parts, **made.listing}  # no shards: nobody looks at them
        document = {**self.template.objects.document, **schema.to_json(), "next_shard": 100}
        document["manifest"] = [[key, len(content), digest(content)] for key, content in made.listing.items()]
        self.described = Described(document, self.nodes(), "here", self.read)
        self.manifest = PartedManifest(self.described)

    def inventory(self, gone: set[str], new: list[ObjectRecord]) -> Inventory:
        if self.manifest is None:
            return Inventory(new)
        listed = {part: self.manifest.listed(part) for part in self.parts}
        begun = [part for part, records in listed.items() if gone & records.keys()]
        others = [record for part in begun for key, record in listed[part].items() if key not in gone]
        return Inventory(new, others, [part for part in self.parts if part not in begun], self.manifest)

    @property
    def parts(self) -> list[Part]:
        """Those of shards."""
        return [] if self.manifest is None else [part for part in self.manifest.top.objects if part.dimension]

    def read(self, records: Sequence[ObjectRecord]) -> list[bytes]:
        return [self.objects[record.key] for record in records]

    def nodes(self) -> dict[str, Any]:
        nodes = self.template.objects.nodes
        return {path.replace("/00000001", f"/{self.version:08d}"): node for path, node in nodes.items()}


@given(steps=st.lists(st.tuples(SHARDS, SHARDS, st.integers(0, 3)), min_size=1, max_size=6), size=st.integers(1, 9))
def test_parts_list_what_a_set_has_after_any_changes_and_full_ones_without_a_change_stay(
    steps: list[tuple[set[int], set[int], int]], size: int, template: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_OBJECTS", size)
    versions = Versions(template)
    for number, (gone, added, n_sources) in enumerate(steps):
        before = versions.parts
        lost = {f"{name}/c/{n}" for n in gone for name in ("time", "v")} & versions.listed.keys()
        new = [ObjectRecord(f"{name}/c/{n}", 300, f"{number:032x}") for n in added for name in ("time", "v")]
        new = [record for record in new if record.key not in versions.listed or record.key in lost]
        versions.commit(lost, new, [ObjectRecord(f"{number}-{n}.csv", 1, f"{n:032x}") for n in range(n_sources)])
        assert versions.manifest is not None
        assert versions.manifest.records == versions.listed
        assert versions.manifest.sources == versions.ledger
        fresh = PartedManifest(versions.described)
        assert all(fresh.find(key) == record for key, record in versions.listed.items())
        assert fresh.find("v/c/61") is fresh.find("v/c/x") is fresh.find("evil") is None
        assert all(part.n_objects <= size or part.first == part.last for part in versions.parts)
        ends = [*(part.first for part in before), 10**9][1:]  # none where there was no part
        changed = {8 * int(key.rpartition("/")[2]) for key in (*lost, *(record.key for record in new))}
        for part, end in zip(before, ends, strict=True):
            has_room = part.n_objects < size  # for what lies behind it, if that is written anew
            assert part in versions.parts or has_room or any(part.first <= position < end for position in changed)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of one channel on a small grid."""
    folder = tmp_path_factory.mktemp("template")
    table = write_table(folder / "1.csv", ["id", "t", "v"], [["a", t, t] for t in range(4)])
    zstore.ingest(table, folder / "s.zarr", id="id", time="t", **GRID)
    return open_store(folder / "s.zarr")


def test_the_top_is_read_back_as_it_was_written(template: Store) -> None:
    part = Part(ObjectRecord("manifest/00000001/part/0.json", 4000, "0" * 32), 40, "row", 8, 800)
    top = Top((part,), (Part(ObjectRecord("manifest/00000001/part/1.json", 90, "1" * 32), 2),))
    axes = Axes(template.objects.document)
    assert decode_top(top.to_bytes(), template.objects.document, axes, "here") == top
    crowded = Top((Part(ObjectRecord(part.record.key, 1 << 20, "0" * 32), MOST_PART_OBJECTS + 1, "row", 8, 800),), ())
    with pytest.raises(StoreError, match=r"4,097 objects in manifest/00000001/part/0\.json; expected 4,096 at most"):
        decode_top(crowded.to_bytes(), template.objects.document, axes, "here")


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=8)


@given(some=SPANS, cover=SPANS)
def test_spans_are_the_sets_of_numbers_that_they_stand_for(
    some: list[tuple[int, int]], cover: list[tuple[int, int]]
) -> None:
    def made(spans: list[tuple[int, int]]) -> tuple[Any, set[int]]:
        bounds = np.array([(low, low + size) for low, size in spans], np.int64).reshape(-1, 2)
        return union(bounds[:, 0], bounds[:, 1]), {n for low, size in spans for n in range(low, low + size)}

    (spans, numbers), (other, others) = made(some), made(cover)
    assert {n for low, high in spans.tolist() for n in range(low, high)} == numbers
    assert np.all(spans[1:, 0] > spans[:-1, 1])
    left = uncovered(spans, other)
    assert {n for low, high in left.tolist() for n in range(low, high)} == numbers - others
    assert holds(spans, np.arange(60)).tolist() == [n in numbers for n in range(60)]


def test_an_append_that_is_refused_before_it_has_written_lists_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    sizes = Folder.sizes

    def noted(self: Folder, prefix: str = "") -> dict[str, int]:
        listed.append(f"{self}/{prefix}")
        return sizes(self, prefix)

    monkeypatch.setattr(Folder, "sizes", noted)
    bad = write_table(tmp_path / "bad.csv", ["id", "t", "v", "w"], [["a", 50, 1, 1], ["a", 51, 2, "1,,,"]])
    with pytest.raises(SourceError):
        zstore.append(bad, path, workers=1)
    zstore.append(rows(tmp_path, "2.csv", range(40, 44)), path, workers=1)
    assert [place for place in listed if ".ingest.scratch" not in place] == []
    assert not list(path.glob(".*"))


def test_the_benchmark_of_many_objects_makes_a_sound_store_and_measures_it(tmp_path: Path) -> None:
    objects.make(tmp_path / "s.zarr", 400)
    opened = open_store(tmp_path / "s.zarr")
    assert (opened.n_rows, verify(opened).faults) == (400, ())
    cost = objects.measure("append", tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").n_rows == 404
    assert 10_000 < cost["written"] < 200_000
    assert objects.measure("row", tmp_path / "s.zarr")["opened"] == 1
