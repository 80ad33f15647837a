"""Rows of a field, in order or some here and some there, are what is stored; encoded images are what Pillow decodes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import zstore

image = pytest.importorskip("PIL.Image")
pytest.importorskip("simplejpeg")

GRID: dict[str, Any] = {"id": "id", "time": "t", "chunk_rows": 8, "shard_rows": 16}
FORMS: list[dict[str, Any]] = [
    {"format": "JPEG", "quality": 90},
    {"format": "JPEG", "quality": 60, "progressive": True},
    {"format": "PNG"},
]


def pictures(n: int, seed: int = 0, shape: tuple[int, ...] = (20, 28, 3)) -> list[bytes]:
    """Encoded images, JPEG and PNG in turn."""
    made, random = [], np.random.default_rng(seed)
    for number in range(n):
        coarse = image.fromarray(random.integers(0, 256, (4, 5, *shape[2:]), np.uint8))
        to = io.BytesIO()
        coarse.resize(shape[1::-1]).save(to, **FORMS[number % len(FORMS)])
        made.append(to.getvalue())
    return made


def as_pillow(content: bytes, shape: tuple[int, ...] = (20, 28, 3)) -> NDArray[np.uint8]:
    return np.asarray(image.open(io.BytesIO(content))) if content else np.zeros(shape, np.uint8)


def write_pictures(folder: Path, contents: Sequence[bytes], first: int = 0) -> Any:
    """A table of two series whose column names files of these bytes; none where there are none."""
    folder.mkdir(exist_ok=True)
    names = []
    for number, content in enumerate(contents, first):
        ending = "png" if content.startswith(b"\x89PNG") else "jpg"
        names.append(f"{number}.{ending}" if content else None)
        if content:
            (folder / f"{number}.{ending}").write_bytes(content)
    half = len(contents) // 2
    times = [first + n for n in range(half)] + [first + n for n in range(len(contents) - half)]
    ids = ["a"] * half + ["b"] * (len(contents) - half)
    return pa.table({"id": ids, "t": times, "v": [float(t) for t in times], "file": pa.array(names, pa.string())})


def encoded_store(folder: Path, contents: Sequence[bytes]) -> zstore.Store:
    """A store of encoded images, series after series in their order."""
    table = write_pictures(folder / "files", contents)
    options: dict[str, Any] = {"file": {"img": "file"}, "file_root": str(folder / "files"), "keep_encoded": ["img"]}
    zstore.ingest(table, folder / "e.zarr", **GRID, **options, overwrite=True)
    return zstore.open_store(folder / "e.zarr")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> zstore.Store:
    """Arrays of two series; half of them were appended, so that neighbours lie in several chunks."""
    folder = tmp_path_factory.mktemp("arrays")
    values = np.random.default_rng(0).integers(-900, 900, (80, 150, 40)).astype(np.int16)
    np.save(folder / "all.npy", values)
    numbers = np.arange(80)
    columns = {"id": np.where(numbers % 40 < 20, "a", "b"), "t": numbers % 20 + numbers // 40 * 20}
    table = pa.table({**columns, "v": numbers / 2, "file": ["all.npy"] * 80, "n": numbers})
    options: dict[str, Any] = {"file": {"img": "file"}, "file_root": str(folder), "file_position": {"img": "n"}}
    zstore.ingest(table.slice(0, 40), folder / "s.zarr", **GRID, **options)
    zstore.append(table.slice(40), folder / "s.zarr", file_root=str(folder))
    store = zstore.open_store(folder / "s.zarr")
    assert not store.index.contiguous
    return store


@given(st.lists(st.integers(0, 79), max_size=60), st.integers(1, 3))
def test_rows_of_arrays_come_in_any_order_as_they_are_stored(
    arrays: zstore.Store, rows: list[int], threads: int
) -> None:
    reader = zstore.FieldReader.of(arrays, "img")
    out = np.empty((len(rows), 150, 40), np.int16)
    reader.take(np.array(rows, np.int64), out, threads)
    reader.close()
    np.testing.assert_array_equal(arrays.read_field("img", 0, 80)[rows], out)


@given(st.integers(0, 79), st.integers(1, 80))
def test_rows_of_arrays_in_order_are_those_that_are_stored(arrays: zstore.Store, start: int, n_rows: int) -> None:
    out = np.empty((min(n_rows, 80 - start), 150, 40), np.int16)
    zstore.FieldReader.of(arrays, "img").read(start, out)
    np.testing.assert_array_equal(arrays.read_field("img", start, start + len(out)), out)


def test_a_row_that_there_is_not_is_an_index_error(arrays: zstore.Store) -> None:
    reader = zstore.FieldReader.of(arrays, "img")
    for row in (-1, 80):
        with pytest.raises(IndexError, match="of 80"):
            reader.take(np.array([row]), np.empty((1, 150, 40), np.int16))


def test_sizes_are_those_of_the_rows_and_of_the_objects(arrays: zstore.Store) -> None:
    reader = zstore.FieldReader.of(arrays, "img")
    objects = [path for path in Path(arrays.path, "img", "c").rglob("*") if path.is_file()]
    assert reader.stored_bytes == sum(path.stat().st_size for path in objects)
    assert reader.decoded_bytes == 80 * 150 * 40 * 2
    assert reader.n_chunks_stored == -(-40 // reader.chunk_rows) * 2


@settings(max_examples=15)
@given(st.integers(2, 12), st.sets(st.integers(1, 11), max_size=3), st.data())
def test_encoded_images_are_what_pillow_decodes_and_black_where_there_is_none(
    tmp_path_factory: Any, n: int, empty: set[int], data: Any
) -> None:
    contents = [b"" if number in empty else content for number, content in enumerate(pictures(n))]
    store = encoded_store(tmp_path_factory.mktemp("pictures"), contents)
    expected = np.stack([as_pillow(content) for content in contents])
    reader = zstore.FieldReader.of(store, "img")
    assert (reader.shape, str(reader.dtype)) == ((20, 28, 3), "uint8")
    for _ in range(2):  # the second time it is known that they are whole
        rows = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
        out = np.empty((len(rows), 20, 28, 3), np.uint8)
        reader.take(np.array(rows, np.int64), out, 2)
        np.testing.assert_array_equal(expected[rows], out)
    in_order = np.empty_like(expected)
    reader.read(0, in_order)
    reader.close()
    np.testing.assert_array_equal(expected, in_order)


def test_images_that_go_over_the_borders_of_chunks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("writing.encoded", "format.nodes", "format.soundness", "upkeep.verify"):
        monkeypatch.setattr(f"zstore.{module}.CHUNK_BYTES", 512, raising=False)
        monkeypatch.setattr(f"zstore.{module}.SHARD_BYTES", 2048, raising=False)
    contents = pictures(20)
    store = encoded_store(tmp_path, contents)
    assert max(map(len, contents)) > 1024
    rows = np.random.default_rng(0).permutation(20)
    out = np.empty((20, 20, 28, 3), np.uint8)
    zstore.FieldReader.of(store, "img").take(rows, out, 1)
    np.testing.assert_array_equal(np.stack([as_pillow(contents[row]) for row in rows]), out)


def test_encoded_images_are_decoded_once_into_a_file(tmp_path: Path) -> None:
    contents = pictures(30)
    store = encoded_store(tmp_path, contents)
    decoded = zstore.open_field(store, "img", tmp_path / "cache")
    np.testing.assert_array_equal(np.stack([as_pillow(content) for content in contents]), decoded)
    windows = store.windows(3, 1, fields={"img": 2}, cache=tmp_path / "cache")
    np.testing.assert_array_equal(decoded[1:3], windows[0]["img"])
    assert len(list((tmp_path / "cache").glob("rows-*.f4"))) == 2  # of the channel, and of the field


def test_images_of_16_bits_keep_them(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 1 << 16, (4, 6, 9), np.uint16)
    contents = []
    for values in depth:
        to = io.BytesIO()
        image.fromarray(values).save(to, "PNG")
        contents.append(to.getvalue())
    np.testing.assert_array_equal(depth, zstore.open_field(encoded_store(tmp_path, contents), "img", tmp_path / "c"))


def test_an_image_of_another_shape_is_refused_with_its_row(tmp_path: Path) -> None:
    contents = pictures(8)
    contents[6] = pictures(1, shape=(20, 27, 3))[0]
    store = encoded_store(tmp_path, contents)
    reader = zstore.FieldReader.of(store, "img")
    match = r"field 'img' of id 'b' in row 6: an image of shape \(20, 27, 3\) and uint8; expected \(20, 28, 3\)"
    with pytest.raises(zstore.UsageError, match=match):
        reader.take(np.array([1, 6]), np.empty((2, 20, 28, 3), np.uint8))
    with pytest.raises(zstore.UsageError, match=match):
        zstore.open_field(store, "img", tmp_path / "cache")
    assert list((tmp_path / "cache").glob("rows-*.f4*")) == []
    reader.close()


def first_row(store: zstore.Store) -> NDArray[Any]:
    reader = zstore.FieldReader.of(store, "img")
    out = np.empty((1, *reader.shape), reader.dtype)
    reader.take(np.array([0]), out)
    return out


@pytest.mark.parametrize("kind", ["arrays", "images"])
def test_a_flipped_bit_is_told_before_a_row_comes(tmp_path: Path, kind: str) -> None:
    if kind == "images":
        store = encoded_store(tmp_path, pictures(6))
        (path,) = (path for path in Path(store.path, "img", "c").rglob("*") if path.is_file())
    else:
        np.save(tmp_path / "all.npy", np.random.default_rng(0).normal(size=(6, 9, 4)))
        table = pa.table({"id": ["a"] * 6, "t": range(6), "v": range(6), "file": ["all.npy"] * 6, "n": range(6)})
        options: dict[str, Any] = {"file": {"img": "file"}, "file_root": str(tmp_path), "file_position": {"img": "n"}}
        zstore.ingest(table, tmp_path / "s.zarr", **GRID, **options)
        store = zstore.open_store(tmp_path / "s.zarr")
        path = Path(store.path, "img", "c", "0", "0", "0")
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    with pytest.raises(zstore.CorruptionError, match="img/c/0"):
        first_row(store)
