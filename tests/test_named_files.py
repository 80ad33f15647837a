"""Payloads out of arrays and images that a column names, with each library as the oracle; and paths to them."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from payload_files import image, npz, one, refused, voxels
from PIL import Image

from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.sources.payloads import PayloadError

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]


@pytest.fixture
def reader(tmp_path: Path) -> FileReader:
    return FileReader(str(tmp_path))


# --- arrays of numpy


@given(
    st.sampled_from(DTYPES),
    st.sampled_from("<>"),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from("CF"),
    st.sampled_from(["a.npy", "a.npz", "s.npz"]),
)
def test_arrays_come_out_as_numpy_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, order: str, shape: list[int], layout: Any, name: str
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    values = np.asarray(voxels(shape), dtype=np.dtype(dtype).newbyteorder(order), order=layout)  # type: ignore[arg-type]
    if name == "a.npy":
        np.save(folder / name, values)
    else:
        npz(folder / name, name == "a.npz", values=values)
    reader = FileReader(str(folder))
    np.testing.assert_array_equal(values, one(reader, name).value)
    if len(shape) > 1:
        rows = replace(reader, indexed=True)
        positions = [*range(shape[0])[::-1], 0, 0]
        for position, payload in zip(positions, rows.read(name, positions), strict=True):
            np.testing.assert_array_equal(values[position], payload.value)
            assert rows.look(name, position).shape == payload.value.shape


def test_rows_of_an_archive_are_held_no_more_than_a_payload_may_take(tmp_path: Path) -> None:
    values = voxels((40, 30), np.int64)
    npz(tmp_path / "a.npz", a=values)
    rows = FileReader(str(tmp_path), indexed=True, limit_bytes=3 * 240)
    positions = [*np.random.default_rng(0).permutation(40).tolist(), 5, 5, 39]
    np.testing.assert_array_equal(values[positions], [payload.value for payload in rows.read("a.npz", positions)])


def test_a_member_is_named_by_the_path_or_by_the_reader_or_is_the_only_one(tmp_path: Path) -> None:
    values = {"train": voxels((3, 4)), "test": voxels((2, 4), seed=1)}
    npz(tmp_path / "a.npz", train=values["train"], test=values["test"])
    reader = FileReader(str(tmp_path), indexed=True)
    for name in values:
        np.testing.assert_array_equal(values[name][1], next(iter(reader.read(f"a.npz/{name}", [1]))).value)
        np.testing.assert_array_equal(
            values[name][1], next(iter(replace(reader, member=name).read("a.npz", [1]))).value
        )
    assert "2 arrays (train, test)" in refused(reader, "a.npz")
    assert "0 arrays 'valid'" in refused(reader, "a.npz/valid")
    assert "'a.npz/../train'" in refused(reader, "a.npz/../train")
    (tmp_path / "odd.npz").mkdir()
    np.save(tmp_path / "odd.npz" / "a.npy", values["train"])
    np.testing.assert_array_equal(values["train"][2], next(iter(reader.read("odd.npz/a.npy", [2]))).value)


def header_of(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", "empty"),
        (b"PK\x03\x04", "begins with"),
        (header_of("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + pickle.dumps([1]), "'|O'"),
        (header_of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}"), "a"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40, 3)}"), "header"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999)}"), "header says"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}"), r"\(0, 3\)"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': ()}") + bytes(4), r"\(\)"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "header"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}") + bytes(7), "whose header says"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}") + bytes(9), "whose header says"),
        (header_of("[" * 5000, b"\x02\x00"), "header"),
        (header_of("__import__('os').abort()"), "header"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", b"\x03\x00"), "version"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31), "header of 2,147,483,648 bytes"),
        (b"\x93NUMPY\x01\x00\x10", "header of 0 bytes"),
    ],
)
def test_an_npy_file_that_is_none_or_lies_is_refused(
    tmp_path: Path, reader: FileReader, content: bytes, names: str
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(PayloadError, match=names):
        list(reader.read("a.npy", [0]))


def test_an_array_of_terabytes_is_refused_by_its_header(tmp_path: Path, reader: FileReader) -> None:
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(header_of(text))
        file.truncate(len(header_of(text)) + 8 * 10**12)
    assert "8,000,000,000,000 bytes" in refused(reader, "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header_of(text))
    assert "8,000,000,000,000 bytes" in refused(reader, "a.npz")


def test_an_archive_that_inflates_beyond_its_header_or_short_of_it_is_refused(
    tmp_path: Path, reader: FileReader
) -> None:
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (100,)}"
    for n_bytes, names in ((50 << 20, "more bytes behind"), (799, "ends after 799 of 800")):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", header_of(text) + bytes(n_bytes))
        assert names in refused(reader, "a.npz")


def test_positions_that_an_array_does_not_have_are_refused(tmp_path: Path, reader: FileReader) -> None:
    np.save(tmp_path / "a.npy", voxels((3, 4)))
    npz(tmp_path / "a.npz", a=voxels((3, 4)))
    np.save(tmp_path / "flat.npy", voxels((3,)))
    rows = replace(reader, indexed=True)
    for name in ("a.npy", "a.npz"):
        for position in (-1, 3, 1 << 62):
            assert f"position {position:,} of 3" in refused(rows, name, position)
        assert "position 2" in refused(reader, name, 2)
    assert "(3,)" in refused(rows, "flat.npy")
    image(tmp_path / "a.png", voxels((4, 4), np.uint8))
    assert "one value" in refused(rows, "a.png")


# --- images


def test_images_come_out_decoded_or_as_their_bytes(tmp_path: Path, reader: FileReader) -> None:
    values = voxels((30, 40, 3), np.uint8)
    image(tmp_path / "a.png", values)
    image(tmp_path / "B.JPEG", values, format="JPEG", quality=90)
    for name in ("a.png", "B.JPEG"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), one(reader, name).value)
        content = (tmp_path / name).read_bytes()
        keeping = replace(reader, keep_encoded=True)
        kept = one(keeping, name)
        assert (content, xxhash.xxh3_128_digest(content)) == (kept.value.tobytes(), kept.digest)
        assert keeping.look(name, 0).shape is None
        assert reader.look(name, 0).dimensions == ("y", "x", "colour")
        (tmp_path / name).write_bytes(content[: len(content) // 2] + b"\xff\xd9")
        assert refused(keeping, name)
    assert "no encoded image" in refused(replace(reader, keep_encoded=True), "a.npy")


# --- paths


@pytest.mark.parametrize(
    "path",
    [
        "../a.npy",
        "/a.npy",
        "x/../../a.npy",
        "x/../a.npy",
        "",
        " ",
        "a.npy\0",
        "..",
        "\0.npy",
        "a" * 5000 + ".npy",
        "x/",
    ],
)
def test_a_path_that_leads_nowhere_or_out_of_the_root_is_refused(tmp_path: Path, path: str) -> None:
    np.save(tmp_path / "a.npy", voxels())
    (tmp_path / "root" / "x").mkdir(parents=True)
    np.save(tmp_path / "root" / "a.npy", voxels())
    reader = FileReader(str(tmp_path / "root"))
    assert refused(reader, path.replace("/a.npy", f"{tmp_path}/a.npy", 1) if path == "/a.npy" else path)
    with pytest.raises(PayloadError):
        reader.look(path, 0)


def test_links_are_followed_as_long_as_they_end_below_the_root(tmp_path: Path) -> None:
    np.save(tmp_path / "out.npy", voxels())
    root = tmp_path / "root"
    (root / "kept").mkdir(parents=True)
    np.save(root / "kept" / "1f.npy", voxels())
    (root / "scan.npy").symlink_to("kept/1f.npy")
    (root / "folder").symlink_to("kept")
    (root / "out.npy").symlink_to("../out.npy")
    (root / "up").symlink_to("..")
    (root / "loop.npy").symlink_to("loop.npy")
    (root / "gone.npy").symlink_to("kept/2f.npy")
    (tmp_path / "other name").symlink_to("root")
    for base in (root, tmp_path / "other name"):
        reader = FileReader(str(base))
        for name in ("scan.npy", "folder/1f.npy", "./kept//1f.npy"):
            np.testing.assert_array_equal(voxels(), one(reader, name).value)
        for name, why in [
            ("out.npy", "leads elsewhere"),
            ("up/out.npy", "leads elsewhere"),
            ("loop.npy", "cannot be opened"),
            ("gone.npy", "not there"),
        ]:
            assert why in refused(reader, name)


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path, reader: FileReader) -> None:
    os.mkfifo(tmp_path / "a.npy")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "b.npy").mkdir()
    (tmp_path / "null.npy").symlink_to("/dev/zero")
    for name in ("a.npy", "b.npy", "null.npy", "fifo", "nothing.npy", "nothing"):
        assert refused(reader, name)
    device = FileReader("/dev")
    assert "regular" in refused(device, "zero") or refused(device, "zero")


def test_a_file_that_cannot_be_opened_is_refused_with_the_reason_of_the_system(
    tmp_path: Path, reader: FileReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", voxels())
    for code in (errno.EACCES, errno.EIO, errno.EMFILE):

        def fail(*_: object, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("zstore.writing.sources.named_files.below.open_file", fail)
        assert os.strerror(code) in refused(reader, "a.npy")
