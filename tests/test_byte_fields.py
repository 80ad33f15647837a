"""Fields of bytes, such as encoded images: what a row has comes back byte for byte, whatever its length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from conftest import few
from foreign import ForeignStore
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore.writing.arguments import Request
from zstore.writing.plan import Reading
from zstore.writing.sources.payloads import FieldSpec, Payload, PayloadError, PayloadLook, origin_of

GRID: dict[str, Any] = {"id": "id", "time": "time", "chunk_rows": 4, "shard_rows": 8}
SMALL = {"CHUNK_BYTES": 64, "SHARD_BYTES": 256}


@dataclass(frozen=True)
class Files:
    """Reads the bytes of files below a folder."""

    root: str

    def look(self, holder: str, position: int) -> PayloadLook:
        path = Path(self.root, holder)
        if not path.is_file():
            raise PayloadError("no such file", "a file below the root")
        return PayloadLook(None, "uint8", path.stat().st_size)

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        content = Path(self.root, holder).read_bytes()
        for _ in positions:
            yield Payload(np.frombuffer(content, np.uint8), xxhash.xxh3_128_digest(content))

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        yield from [self.look(holder, position).n_bytes for position in positions]

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        path = Path(self.root, holder)
        return [origin_of((holder, n), str(path.stat().st_mtime_ns) if path.is_file() else "") for n in positions]

    def show(self, holder: str, position: int) -> str:
        return holder

    def to_json(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module", autouse=True)
def with_pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Have every ingest read a field `picture` of the files that a column names; and cut bytes into small shards."""
    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        plain = Request.reading
        field = FieldSpec("picture", Files(str(folder)), "file", encoded=True)
        patch.setattr(Request, "reading", lambda self, *given: _with(plain(self, *given), field))
        for module in ("writing.encoded", "format.nodes", "format.soundness", "upkeep.verify"):
            for name, value in SMALL.items():
                patch.setattr(f"zstore.{module}.{name}", value, raising=False)
        yield folder


def _with(reading: Reading, field: FieldSpec) -> Reading:
    return replace(reading, fields=[field])


def write_table(folder: Path, values: dict[tuple[str, int], bytes], name: str) -> Path:
    """A table of some values by id and time, in no order; none has no file."""
    lines = []
    for number, ((id_, time), value) in enumerate(values.items()):
        file = f"{name}{number}.bin" if value else ""
        if value:
            (folder / file).write_bytes(value)
        lines.append(f"{id_},{time},{time},{file}")
    random.Random(1).shuffle(lines)
    path = folder / f"{name}.csv"
    path.write_text("\n".join(["id,time,v,file", *lines]) + "\n")
    return path


def all_values(store: zstore.Store) -> dict[tuple[str, int], bytes]:
    """What the store has, by id and time."""
    ids = np.repeat(store.ids, store.index.row_size).tolist()
    times = store.times(0, store.n_rows).tolist()
    return dict(zip(zip(ids, times, strict=True), store.read_bytes("picture", 0, store.n_rows), strict=True))


VALUES = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.integers(0, 40)), st.binary(max_size=700), min_size=1, max_size=30
)


@settings(max_examples=few(12))
@given(VALUES, VALUES, VALUES)
def test_bytes_come_back_as_they_were_after_an_ingest_appends_and_a_compaction(
    with_pictures: Path,
    first: dict[tuple[str, int], bytes],
    later: dict[tuple[str, int], bytes],
    late: dict[tuple[str, int], bytes],
) -> None:
    path = with_pictures / "s.zarr"
    first |= {("a", 99): b"at least one"}
    zstore.ingest(write_table(with_pictures, first, "first"), path, **GRID, overwrite=True)
    assert first == all_values(zstore.open_store(path))
    expected = dict(first)
    for name, rows, shift in (("later", later, 100), ("late", late, -100)):
        more = {(id_, time + shift): value for (id_, time), value in rows.items()}
        zstore.append(write_table(with_pictures, more, name), path)
        expected |= more
        store = zstore.open_store(path)
        assert expected == all_values(store)
        assert zstore.verify(store).faults == ()
    compact = zstore.compact(path)
    assert expected == all_values(compact)
    assert zstore.verify(compact).faults == ()
    zstore.gc(path)
    assert expected == all_values(zstore.open_store(path))
    assert zstore.verify(zstore.open_store(path)).faults == ()


def test_one_and_two_threads_write_the_same_bytes(with_pictures: Path) -> None:
    values = {("a", time): bytes([time]) * (time * 7 % 300 + 1) for time in range(40)}
    table, made = write_table(with_pictures, values, "threads"), []
    for workers in (1, 2):
        path = with_pictures / f"{workers}.zarr"
        zstore.ingest(table, path, **GRID, workers=workers, blocksize=100 * workers)
        made.append(
            {
                str(file.relative_to(path)): file.read_bytes()
                for file in path.glob("picture*/**/c/**/*")
                if file.is_file()
            }
        )
    assert made[0] == made[1]
    assert len(made[0]) > 20


def test_bytes_that_are_no_images_are_refused_as_an_array(with_pictures: Path) -> None:
    values = {("a", time): b"text %d" % time for time in range(5)}
    zstore.ingest(write_table(with_pictures, values, "text"), with_pictures / "t.zarr", **GRID, overwrite=True)
    store = zstore.open_store(with_pictures / "t.zarr")
    with pytest.raises(zstore.UsageError, match="field 'picture' of id 'a' in row 0: a file that begins with"):
        zstore.open_field(store, "picture", with_pictures / "cache")


def test_plain_zarr_reads_the_bytes_of_a_row_by_its_start_and_size(with_pictures: Path) -> None:
    zarr = pytest.importorskip("zarr")
    values = {("a", time): bytes([time + 1]) * (time + 1) for time in range(30)}
    zstore.ingest(write_table(with_pictures, values, "zarr"), with_pictures / "z.zarr", **GRID, overwrite=True)
    group = zarr.open_group(with_pictures / "z.zarr", mode="r")
    start, size = group["picture_start"][:], group["picture_size"][:]
    found = [group["picture"][low : low + n].tobytes() for low, n in zip(start.tolist(), size.tolist(), strict=True)]
    assert list(values.values()) == found
    assert group["picture"].metadata.dimension_names == ("picture_byte",)


def test_a_file_that_is_missing_is_refused_with_its_row(with_pictures: Path) -> None:
    table = write_table(with_pictures, {("a", 1): b"x", ("a", 2): b"y"}, "lost")
    (with_pictures / "lost1.bin").unlink()
    with pytest.raises(zstore.SourceError, match=r"picture of id 'a' at 2: no such file.*lost.csv line \d: lost1.bin"):
        zstore.ingest(table, with_pictures / "lost.zarr", **GRID)
    assert not (with_pictures / "lost.zarr").exists()


@pytest.mark.parametrize("what", ["start", "size", "length", "shard"])
def test_bytes_that_lie_outside_their_array_are_refused_and_told(
    with_pictures: Path, tmp_path: Path, what: str
) -> None:
    values = {("a", time): bytes([time + 1]) * 50 for time in range(8)}
    zstore.ingest(write_table(with_pictures, values, "crafted"), tmp_path / "s.zarr", **GRID)
    foreign = ForeignStore(tmp_path / "s.zarr")
    if what in ("start", "size"):
        from zstore.format.layout import RowGrid
        from zstore.writing.encoded import place_plans

        field = zstore.open_store(tmp_path / "s.zarr").field("picture")
        plan = place_plans(field, RowGrid(4, 8))[f"picture_{what}"]
        foreign.put(f"picture_{what}/c/0", plan.encode_shard(np.array([1 << 40] * 8)))
    elif what == "length":
        foreign.document["fields"][0]["n_bytes"] = 100
        foreign.nodes["picture"]["shape"] = [100]
    else:
        del foreign.records["picture/c/1"]
    foreign.sign()
    with pytest.raises(zstore.StoreError):
        zstore.open_store(tmp_path / "s.zarr").read_bytes("picture", 0, 8)
    try:
        assert zstore.verify(zstore.open_store(tmp_path / "s.zarr")).faults
    except zstore.StoreError:
        return  # told before anything else is checked
