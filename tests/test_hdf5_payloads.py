"""Payloads of HDF5: arrays, and the bytes of encoded images, with h5py's own reading of them as the oracle."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
from conftest import few
from hdf5files import aloha, channel, session, vector
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import SourceError, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.files import find
from zstore.writing.sources.hdf5.source import Hdf5Source
from zstore.writing.sources.hdf5.table import holder_of
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import Payload, PayloadError

# Payloads of fields.


def bytes_of(payload: Payload) -> bytes:
    return bytes(payload.value.tobytes())


def field_readers(path: Path, mapping: str) -> tuple[Any, dict[str, Any], list[str]]:
    """The opened file, its readers by name of the field, and holders of its episodes."""
    options = TableOptions.of({"mapping": mapping})
    table = Hdf5Source().open_one(find(path, "SRC"), options)
    fields = Hdf5Source().fields([table], options)
    groups = dict.fromkeys(stretch.episode.group for group in table.groups for stretch in group)
    return table, {field.name: field.reader for field in fields}, [holder_of(table.file, group) for group in groups]


@settings(max_examples=few(20))
@given(data=st.data(), seed=st.integers(0, 99), chunk=st.integers(1, 5))
def test_dense_payloads_are_the_rows_of_h5py_in_any_order(
    data: st.DataObject, seed: int, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("dense") / "a.hdf5"
    dtype = data.draw(st.sampled_from(["u1", ">i2", "<f4", "f8", "?"]))
    images = np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 200, (12, 4, 5)).astype(dtype)
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(12)
        file.create_dataset("image", data=images, chunks=(chunk, 4, 5))
    mapping = json.dumps({"channels": {"x": "x"}, "fields": {"image": {"data": "image", "dimensions": ["y", "x"]}}})
    _, readers, (holder,) = field_readers(path, mapping)
    positions = data.draw(st.lists(st.integers(0, 11), max_size=20))
    payloads = list(readers["image"].read(holder, positions))
    assert [bytes_of(payload) for payload in payloads] == [
        images[position].astype(images.dtype.newbyteorder("=")).tobytes() for position in positions
    ]
    assert {payload.digest for payload in payloads} == {
        xxhash.xxh3_128(images[position].tobytes()).digest() for position in positions
    }
    look = readers["image"].look(holder, 3)
    assert (look.shape, look.dtype, look.n_bytes) == ((4, 5), images.dtype.newbyteorder("=").name, images[0].nbytes)


@pytest.mark.parametrize("cameras", [("cam_high", "cam_low"), ("cam_low", "cam_high", "a")])
def test_jpegs_of_aloha_are_the_exact_bytes_whatever_the_order_of_cameras(
    cameras: tuple[str, ...], tmp_path: Path
) -> None:
    made = aloha(tmp_path / "a.hdf5", compress=True, cameras=cameras)["images"]
    _, readers, (holder,) = field_readers(tmp_path / "a.hdf5", "aloha")
    assert sorted(readers) == sorted(cameras)
    for name, reader in readers.items():
        positions = [*range(20), 3, 3, 19, 0]
        assert [bytes_of(payload) for payload in reader.read(holder, positions)] == [made[name][n] for n in positions]
        assert reader.look(holder, 7)[:3] == (None, "uint8", len(made[name][7]))


def damaged_frame(file: h5py.File) -> None:
    rows = file["observations/images/cam_high"]
    row = rows[5]
    length = int(np.flatnonzero(row)[-1]) + 1
    row[length - 2 : length] = 0
    rows[5] = row


def longer_frame(file: h5py.File) -> None:
    lengths = file["compress_len"]
    lengths[0, 5] -= 3


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damaged_frame, "JPEG|lengths"),
        (longer_frame, "bytes behind the|lengths"),
        (lambda file: file["observations/images/cam_high"].__setitem__(5, 0), "no image|lengths"),
        (lambda file: file["compress_len"].__setitem__((0, 5), 0.5), "whole numbers"),
        (lambda file: file["compress_len"].__setitem__((0, 5), np.nan), "whole numbers"),
        (lambda file: file["compress_len"].__setitem__((0, 5), 1e9), "whole numbers"),
        (lambda file: file.__delitem__("compress_len"), "no /compress_len"),
    ],
)
def test_an_image_that_is_not_whole_is_a_fault_with_its_row(
    damage: Callable[[h5py.File], None], told: str, tmp_path: Path
) -> None:
    aloha(tmp_path / "a.hdf5", compress=True)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        damage(file)
    _, readers, (holder,) = field_readers(tmp_path / "a.hdf5", "aloha")
    with pytest.raises(PayloadError) as refused:
        list(readers["cam_high"].read(holder, range(20)))
    assert re.search(told, f"{refused.value.reason} {refused.value.expected}")


def test_payloads_that_are_too_large_or_gone_are_faults(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    _, readers, (holder,) = field_readers(tmp_path / "a.hdf5", "aloha")
    reader = readers["cam_high"]
    assert reader.show(holder, 7) == f"{tmp_path / 'a.hdf5'}: /observations/images/cam_high, row 7"
    with pytest.raises(PayloadError, match="row 20 of"):
        reader.look(holder, 20)
    with pytest.raises(PayloadError, match="144 bytes in a row"):
        replace(reader, most_bytes=143).look(holder, 0)
    (tmp_path / "a.hdf5").unlink()
    with pytest.raises(PayloadError, match="no file"):
        reader.look(holder, 0)


def test_a_damaged_image_is_refused_with_file_and_row(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        images = file["observations/images/cam_low"][:]
        del file["observations/images/cam_low"]
        made = file.create_dataset("observations/images/cam_low", data=images, chunks=(1, 6, 8, 3), fletcher32=True)
        offset = made.id.get_chunk_info(13).byte_offset
    content = bytearray((tmp_path / "a.hdf5").read_bytes())
    content[offset + 5] ^= 1
    (tmp_path / "a.hdf5").write_bytes(content)
    with pytest.raises(SourceError, match=r"/observations/images/cam_low.*13"):
        zstore.ingest(tmp_path / "a.hdf5", tmp_path / "s.zarr", mapping="aloha")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("odd", [np.zeros((7, 5, 5, 3), "u1"), np.zeros((7, 6, 8, 3), "f4"), None])
def test_an_episode_whose_images_are_of_another_kind_is_refused_or_set_aside(odd: Any, tmp_path: Path) -> None:
    for n in range(3):
        aloha(tmp_path / f"{n}.hdf5", 7, n)
    with h5py.File(tmp_path / "0.hdf5", "a") as file:
        del file["observations/images/cam_low"]
        if odd is not None:
            file["observations/images/cam_low"] = odd
    with pytest.raises(SourceError, match=r"field 'cam_low' .*expected uint8 of 6×8×3 as in .*1\.hdf5"):
        zstore.ingest(tmp_path / "*.hdf5", tmp_path / "s.zarr", mapping="aloha")
    zstore.ingest(tmp_path / "*.hdf5", tmp_path / "s.zarr", mapping="aloha", on_bad_row="quarantine")
    assert [str(id_) for id_ in open_store(tmp_path / "s.zarr").ids] == ["1", "2"]
    zstore.ingest(tmp_path / "*.hdf5", tmp_path / "t.zarr", mapping="aloha", leave_out=["cam_low"])
    assert [str(id_) for id_ in open_store(tmp_path / "t.zarr").ids] == ["0", "1", "2"]


def test_images_that_are_appended_stand_behind_those_of_before(tmp_path: Path) -> None:
    made = {f"e{n}": aloha(tmp_path / f"e{n}.hdf5", 6 + n, n) for n in range(3)}
    for name in ("e1", "e[02]"):
        command = ["ingest", str(tmp_path / f"{name}.hdf5"), str(tmp_path / "s.zarr"), "--mapping", "aloha"]
        assert main([*command, "--append", "--quiet"]) == 0
    store = open_store(tmp_path / "s.zarr")
    assert [str(id_) for id_ in store.ids] == list(made)
    expected = np.concatenate([made[id_]["images"]["cam_high"] for id_ in made])
    np.testing.assert_array_equal(zstore.open_field(store, "cam_high"), expected)
    zstore.compact(tmp_path / "s.zarr")
    np.testing.assert_array_equal(zstore.open_field(open_store(tmp_path / "s.zarr"), "cam_high"), expected)


def test_a_star_takes_the_data_sets_that_have_rows_and_refuses_those_of_other_lengths(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.arange(3.0), np.ones((3, 2))
        file["scalar"], file["empty"], file["deep/x"] = 5.0, h5py.Empty("f8"), np.arange(9)
    mapping = {"channels": {"*": "*"}, "vectors": {"v.*": "*"}}
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping=mapping)
    assert list(open_store(tmp_path / "s.zarr").channels) == ["x", "v.y.0", "v.y.1"]
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["z"] = np.arange(4.0)
    with pytest.raises(SourceError, match="4 rows in data set /z; expected 3 as in /x"):
        zstore.ingest(tmp_path / "a.h5", tmp_path / "t.zarr", mapping=mapping)


NUMBERS = st.sampled_from(["?", "i1", ">i2", "<u4", ">i8", "f2", ">f4", "f8"])


@settings(max_examples=few(20))
@given(
    dtypes=st.lists(st.tuples(NUMBERS, st.integers(0, 3)), min_size=1, max_size=5),
    chunk=st.none() | st.integers(1, 9),
    compression=st.sampled_from([None, "gzip", "lzf"]),
    compound=st.booleans(),
    seed=st.integers(0, 999),
)
def test_values_of_every_type_layout_and_width_are_those_of_h5py(
    dtypes: list[tuple[str, int]],
    chunk: int | None,
    compression: str | None,
    compound: bool,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path, random = tmp_path_factory.mktemp("types"), np.random.default_rng(seed)
    columns = {
        f"c{n}": random.integers(0, 2 if dtype == "?" else 100, (9, width) if width else 9).astype(dtype)
        for n, (dtype, width) in enumerate(dtypes)
    }
    writing: dict[str, Any] = {}
    if chunk is not None:
        writing = {"compression": compression, "shuffle": True}
    with h5py.File(path / "a.h5", "w") as file:
        if compound:
            kinds = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
            rows = np.zeros(9, kinds)
            for name, values in columns.items():
                rows[name] = values
            file.create_dataset("rows", data=rows, chunks=None if chunk is None else (chunk,), **writing)
        else:
            for name, values in columns.items():
                chunks = None if chunk is None else (chunk, *values.shape[1:])
                file.create_dataset(name, data=values, chunks=chunks, **writing)
    where = {name: {"data": "rows", "member": name} if compound else name for name in columns}
    mapping = {
        "channels": {name: where[name] for name, values in columns.items() if values.ndim == 1},
        "vectors": {name: where[name] for name, values in columns.items() if values.ndim == 2},
    }
    zstore.ingest(path / "a.h5", path / "s.zarr", mapping=mapping, dtype="float64", blocksize=1000)
    store = open_store(path / "s.zarr")
    for name, values in columns.items():
        if values.ndim == 1:
            np.testing.assert_array_equal(channel(store, "a", name), values.astype("f8"))
        else:
            np.testing.assert_array_equal(vector(store, "a", name, values.shape[1]), values.astype("f8"))
    assert compare_sources(store, path / "a.h5").n_different == 0


def test_no_handle_outlives_a_read_and_none_is_pickled(tmp_path: Path) -> None:
    session(tmp_path / "a.h5", n_rows=300)
    aloha(tmp_path / "b.hdf5")
    options = TableOptions.of({"mapping": "emg2pose"})
    files = [find(tmp_path / "a.h5", "SRC")]
    source = Hdf5Source()
    tables, spec = source.open(files, files, options)
    blocks = pickle.loads(pickle.dumps(source.cut(tables, spec, 1 << 20)))  # noqa: S301  # its own
    assert sum(columns.n_rows for block in blocks for columns in source.read(block, spec, keep_bad=False)) == 300
    zstore.ingest(tmp_path / "b.hdf5", tmp_path / "s.zarr", mapping="aloha")
    zstore.inspect_hdf5(tmp_path / "b.hdf5")
    kinds = h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_GROUP | h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_ATTR
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, kinds) == 0
