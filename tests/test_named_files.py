"""Payloads out of files that a column names, with each library's own reading as the oracle."""

from __future__ import annotations

import errno
import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from payload_files import AFFINE, KINDS, dicom_folder, dicom_slice, image, nifti, npz, nrrd_file, voxels
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, HTJ2KLossless, RLELossless

from zstore import UsageError
from zstore.format.payloads.chain import MERLIN, VolumeChain, Window
from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.sources.payloads import Payload, PayloadError

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]


def one(reader: FileReader, holder: str) -> Payload:
    """The payload of a holder, which is what a look at it has promised."""
    look = reader.look(holder, 0)
    (payload,) = reader.read(holder, [0])
    if look.shape is not None:
        assert (payload.value.shape, payload.value.dtype.name) == (look.shape, look.dtype)
        assert look.dimensions is None or len(look.dimensions) == payload.value.ndim
    assert payload.value.nbytes == look.n_bytes
    assert payload.value.dtype.isnative
    return payload


def refused(reader: FileReader, holder: str, position: int = 0) -> str:
    """Why a payload is no good: the same from a read, whatever a look has said."""
    with pytest.raises(PayloadError) as error:
        list(reader.read(holder, [position]))
    return error.value.reason


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


# --- volumes


@given(st.sampled_from(DTYPES[:-1]), st.booleans(), st.sampled_from(["a.nii", "a.nii.gz"]), st.sampled_from([1, 2]))
def test_nifti_files_come_out_as_nibabel_reads_them(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, swapped: bool, name: str, version: int
) -> None:
    folder = tmp_path_factory.mktemp("volumes")
    values = voxels(dtype=dtype)
    if dtype == "f2":
        values = values.astype("f4")
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    header = kind.header_class(endianness=">" if swapped else "<")
    header.set_data_dtype(values.dtype)
    nibabel.save(kind(values, AFFINE, header), folder / name)
    payload = one(FileReader(str(folder)), name)
    np.testing.assert_array_equal(np.asanyarray(nibabel.load(folder / name).dataobj), payload.value)
    assert payload.value.dtype == values.dtype
    assert payload.digest == xxhash.xxh3_128_digest((folder / name).read_bytes())
    assert payload.grid is not None
    np.testing.assert_array_equal(AFFINE, payload.grid.affine)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "expected"),
    [
        ("i2", 1, 0, "int16"),
        ("i2", 0, 7, "int16"),
        ("i2", np.nan, np.nan, "int16"),
        ("u1", 1, -10, "int16"),
        ("u2", 1, -1024, "int32"),
        ("i2", 0.5, 0, "float32"),
        ("f4", 2, 1, "float32"),
        ("i4", 0.25, 0, "float32"),
        ("f8", 2, 1, "float64"),
    ],
)
def test_a_slope_and_an_intercept_are_applied(
    tmp_path: Path, reader: FileReader, dtype: str, slope: float, intercept: float, expected: str
) -> None:
    values = voxels(dtype=dtype)
    content = bytearray(nifti(tmp_path / "a.nii", values).read_bytes())
    content[112:120] = struct.pack("<ff", slope, intercept)
    (tmp_path / "a.nii").write_bytes(content)
    payload = one(reader, "a.nii")
    assert payload.value.dtype == expected
    np.testing.assert_array_equal(np.asanyarray(nibabel.load(tmp_path / "a.nii").dataobj), payload.value)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", ">i2"])
def test_nrrd_files_come_out_as_pynrrd_wrote_them(
    tmp_path: Path, reader: FileReader, encoding: str, dtype: str
) -> None:
    values = voxels(dtype=dtype)
    nrrd_file(tmp_path / "a.nrrd", values, encoding)
    payload = one(reader, "a.nrrd")
    np.testing.assert_array_equal(values, payload.value)
    assert payload.grid is not None
    np.testing.assert_allclose(payload.grid.affine, AFFINE)


@pytest.mark.parametrize("tags", [{}, {"syntax": RLELossless}], ids=["plain", "runs"])
def test_slices_are_put_together_as_they_lie(tmp_path: Path, reader: FileReader, tags: dict[str, Any]) -> None:
    values = voxels((7, 6, 9), np.uint16)
    dicom_folder(tmp_path / "scan", values, **tags)
    (tmp_path / "scan" / "DICOMDIR").write_bytes(b"an index")
    (tmp_path / "scan" / ".DS_Store").write_bytes(b"of a desktop")
    payload = one(reader, "scan")
    np.testing.assert_array_equal(values.astype(np.int32) - 1024, payload.value)
    assert payload.grid is not None
    np.testing.assert_allclose(payload.grid.affine, AFFINE)
    files = [(tmp_path / "scan" / f"IM{(n * 7) % 9:03d}").read_bytes() for n in range(9)]
    assert payload.digest == xxhash.xxh3_128_digest(b"".join(files))


def test_a_volume_is_the_same_out_of_every_kind_of_file(tmp_path: Path, reader: FileReader) -> None:
    values = voxels((7, 6, 5), np.uint16)
    dicom_folder(tmp_path / "dicom", values)
    hounsfield = values.astype(np.int16) - 1024
    nifti(tmp_path / "a.nii.gz", hounsfield)
    nrrd_file(tmp_path / "a.nrrd", hounsfield)
    chain = VolumeChain("RAS", (1.4, 1.3, 1.7), window=Window(-1024, -900), shape=(9, 8, 7))
    made = [one(replace(reader, chain=chain), name) for name in ("dicom", "a.nii.gz", "a.nrrd")]
    np.testing.assert_array_equal(made[0].value, made[1].value)
    np.testing.assert_array_equal(made[0].value, made[2].value)
    assert (made[0].value.shape, made[0].value.dtype) == ((9, 8, 7), np.dtype(np.float32))


def test_twelve_bits_of_sixteen_are_read_with_their_sign_and_without_what_lies_above(
    tmp_path: Path, reader: FileReader
) -> None:
    stored = np.array([[0x0800, 0x07FF, 0xF001]], np.uint16)
    dicom_slice(tmp_path / "u.dcm", stored, BitsStored=12, HighBit=11)
    dicom_slice(tmp_path / "i.dcm", stored.view(np.int16), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal([2048 - 1024, 2047 - 1024, 1 - 1024], one(reader, "u.dcm").value.ravel())
    np.testing.assert_array_equal([-2048 - 1024, 2047 - 1024, 1 - 1024], one(reader, "i.dcm").value.ravel())
    assert one(reader, "u.dcm").value.dtype == np.int16


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"])
def test_dicom_files_of_scanners_come_out_as_pydicom_reads_them(tmp_path: Path, reader: FileReader, name: str) -> None:
    source = get_testdata_file(name, download=False)
    assert isinstance(source, str)
    (tmp_path / "plain").write_bytes(Path(source).read_bytes())
    data = pydicom.dcmread(source)
    expected = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(expected.T[:, :, None], one(reader, "plain").value)


def changed(scan: Path, name: str, **tags: Any) -> None:
    data = pydicom.dcmread(scan / name)
    for tag, value in tags.items():
        setattr(data, tag, value)
    pydicom.dcmwrite(scan / name, data)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda scan: (scan / "IM000").unlink(), None),  # the last or first one: what is left is a volume
        (lambda scan: (scan / "IM001").unlink(), "a gap of 4 mm"),
        (lambda scan: (scan / "IM001").rename(scan / "IM001.txt"), None),  # whatever it is called
        (lambda scan: (scan / "notes.txt").write_text("of the scan"), "mark of DICOM.*notes.txt"),
        (lambda scan: (scan / "empty").touch(), "empty file.*empty"),
        (lambda scan: (scan / "inner").mkdir(), "another folder"),
        (lambda scan: (scan / "copy").write_bytes((scan / "IM002").read_bytes()), "two slices at one place"),
        (lambda scan: changed(scan, "IM001", SeriesInstanceUID="1.2.4"), "several series"),
        (lambda scan: changed(scan, "IM001", PixelSpacing=[1.25, 1.6]), "lie differently"),
        (lambda scan: changed(scan, "IM001", ImageOrientationPatient=[0.0, 1, 0, 1, 0, 0]), "lie differently"),
        (lambda scan: changed(scan, "IM001", ImagePositionPatient=[-40.0, -30, -6.5]), "mm between slices|place"),
        (lambda scan: changed(scan, "IM001", ImagePositionPatient=None), "where it lies"),
        (lambda scan: changed(scan, "IM001", Rows=5, Columns=7), "several sizes"),
        (lambda scan: changed(scan, "IM001", PixelRepresentation=1), "several types"),
        (lambda scan: changed(scan, "IM001", NumberOfFrames=2), "several frames"),
        (lambda scan: changed(scan, "IM001", PixelData=bytes(82)), "82 of 84 bytes"),
        (lambda scan: changed(scan, "IM001", PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
        (lambda scan: changed(scan, "IM001", ModalityLUTSequence=[pydicom.Dataset()]), "looked up in a table"),
        (lambda scan: changed(scan, "IM001", RescaleSlope="1e400"), "."),
    ],
)
def test_a_series_of_which_something_is_missing_or_mixed_is_refused(
    tmp_path: Path, reader: FileReader, damage: Callable[[Path], object], names: str | None
) -> None:
    scan = dicom_folder(tmp_path / "scan", voxels((7, 6, 5), np.uint16))
    damage(scan)
    if names is None:
        assert one(reader, "scan").value.shape[:2] == (7, 6)
        return
    with pytest.raises(PayloadError, match=names):
        list(reader.read("scan", [0]))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, HTJ2KLossless])
def test_transfer_syntaxes_that_inflate_or_that_nobody_has_are_refused_by_name(
    tmp_path: Path, reader: FileReader, syntax: Any
) -> None:
    dicom_slice(tmp_path / "a.dcm", voxels((6, 7), np.uint16))
    content = (tmp_path / "a.dcm").read_bytes()
    uid = b"1.2.840.10008.1.2.1\0"
    padded = (str(syntax).encode() + b"\0" * 9)[: len(uid) + 2]
    (tmp_path / "a.dcm").write_bytes(
        content.replace(struct.pack("<H", len(uid)) + uid, struct.pack("<H", len(padded)) + padded)
    )
    assert "transfer syntax" in refused(reader, "a.dcm")
    assert ExplicitVRBigEndian.name not in refused(reader, "a.dcm")


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ({"srow_x": [0, 0, 0, 0]}, "singular affine"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "affine"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "32767 × 32767 × 32767"),
        ({"dim": [3, 7, 6, 6, 1, 1, 1, 1]}, "ends after|whose header says"),
        ({"dim": [3, 7, 6, 4, 1, 1, 1, 1]}, "more bytes behind"),
        ({"dim": [3, 7, -6, 5, 1, 1, 1, 1]}, r"\(7, -6, 5\)"),
        ({"dim": [0, 7, 6, 5, 1, 1, 1, 1]}, "0 dimensions"),
        ({"bitpix": 8}, "8 bits"),
        ({"datatype": 128}, "data type 128"),
        ({"vox_offset": 1e9}, "1e\\+09"),
        ({"magic": b"ni1"}, "magic"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "intercept"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_nifti_file_whose_header_lies_is_refused(
    tmp_path: Path, reader: FileReader, name: str, header: dict[str, Any], names: str
) -> None:
    content = gzip.decompress(nifti(tmp_path / "a.nii.gz", voxels()).read_bytes())
    lying = nibabel.Nifti1Header(content[:348])
    for key, value in header.items():
        lying[key] = value
    content = lying.binaryblock + content[348:]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(PayloadError, match=names):
        list(reader.read(name, [0]))


def test_a_chain_refuses_what_it_cannot_place_in_millimetres(tmp_path: Path, reader: FileReader) -> None:
    chained = replace(reader, chain=MERLIN)
    nifti(tmp_path / "metres.nii", voxels(), xyzt_units=1)
    nifti(tmp_path / "other.nii", voxels(), pixdim=[1, 1.5, 1.25, 2.5, 1, 1, 1, 1])
    nifti(tmp_path / "four.nii", voxels((7, 6, 5, 2)))
    nifti(tmp_path / "one.nii", voxels((7, 6, 5, 1)))
    nrrd_file(tmp_path / "scanner.nrrd", voxels(), space="scanner-xyz")
    dicom_slice(tmp_path / "flat.dcm", voxels((6, 7), np.uint16), ImagePositionPatient=None)
    np.save(tmp_path / "a.npy", voxels())
    for name, why in [
        ("metres.nii", "in metres"),
        ("other.nii", "2.5] mm by one part"),
        ("four.nii", "4 dimensions"),
        ("scanner.nrrd", "scanner-xyz"),
        ("flat.dcm", "where it lies"),
        ("a.npy", "no volume"),
    ]:
        assert why in refused(chained, name)
        assert one(reader, name).value.size
    assert one(chained, "one.nii").value.shape == (224, 224, 160)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "b.nrrd"])
def test_a_stream_that_inflates_without_end_is_refused_at_the_size_of_its_header(
    tmp_path: Path, reader: FileReader, name: str
) -> None:
    values = np.zeros((40, 40, 40), np.int16)
    if name == "a.nii.gz":
        nifti(tmp_path / name, values)
        bomb = gzip.compress(gzip.decompress((tmp_path / name).read_bytes()) + bytes(80 << 20))
        (tmp_path / name).write_bytes(bomb)
    else:
        content = nrrd_file(tmp_path / name, values, "bzip2" if name == "b.nrrd" else "gzip").read_bytes()
        (tmp_path / name).write_bytes(content.replace(b"sizes: 40 40 40", b"sizes: 40 40 39"))
    tracemalloc.start()
    assert "more bytes behind" in refused(reader, name)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_a_promise_that_a_stream_cannot_keep_takes_no_memory(tmp_path: Path, reader: FileReader) -> None:
    content = nifti(tmp_path / "a.nii", voxels()).read_bytes()
    header = nibabel.Nifti1Header(content[:348])
    header["dim"] = [3, 700, 700, 700, 1, 1, 1, 1]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + content[348:]))
    text = (b"NRRD0004\ntype: short\ndimension: 3\nsizes: 700 700 700\nendian: little\nencoding: %s\n\n") % b"gzip"
    (tmp_path / "a.nrrd").write_bytes(text + gzip.compress(bytes(420)))
    tracemalloc.start()
    for name in ("a.nii.gz", "a.nrrd"):
        assert "is to become" in refused(reader, name)
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()


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


# --- all kinds


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_refused_wherever_it_ends_and_whatever_it_says_it_is(
    tmp_path: Path, reader: FileReader, name: str
) -> None:
    content = KINDS[name](tmp_path / name).read_bytes()
    whole = one(reader, name).value
    assert whole.any()
    for n in [*range(0, min(len(content), 400), 23), len(content) // 2, len(content) - 9]:
        (tmp_path / name).write_bytes(content[:n])
        assert refused(reader, name)
    (tmp_path / name).write_bytes(content[:-1])
    if name == "r.dcm":  # that byte only says that no voxels follow
        np.testing.assert_array_equal(whole, one(reader, name).value)
    else:
        assert refused(reader, name)
    (tmp_path / name).write_bytes(bytes(1000))
    assert refused(reader, name)


@pytest.mark.parametrize("name", KINDS)
def test_a_payload_beyond_the_limit_is_refused(tmp_path: Path, reader: FileReader, name: str) -> None:
    KINDS[name](tmp_path / name)
    n_bytes = one(reader, name).value.nbytes
    small = replace(reader, limit_bytes=n_bytes // 2)
    assert "bytes" in refused(small, name)
    with pytest.raises(PayloadError, match="--file-limit"):
        small.look(name, 0)


@pytest.mark.parametrize("name", KINDS)
def test_the_digest_changes_with_the_bytes_and_with_nothing_else(tmp_path: Path, reader: FileReader, name: str) -> None:
    path = KINDS[name](tmp_path / name)
    (tmp_path / f"copy.{name}").write_bytes(path.read_bytes())
    assert one(reader, name).digest == one(reader, f"copy.{name}").digest == one(reader, name).digest
    assert len(one(reader, name).digest) == 16


@pytest.mark.parametrize("name", KINDS)
def test_a_payload_that_several_rows_name_is_handed_out_for_each(tmp_path: Path, reader: FileReader, name: str) -> None:
    KINDS[name](tmp_path / name)
    payloads = list(reader.read(name, [0, 0, 0]))
    assert len(payloads) == 3
    assert list(reader.read(name, [])) == []


def mutations(content: bytes, n: int, seed: int) -> list[bytes]:
    """Damage of the kinds that disks, networks and people do."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        damaged, at = bytearray(content), int(random.integers(len(content)))
        match random.integers(8):
            case 0:
                damaged[at] ^= 1 << int(random.integers(8))
            case 1:
                damaged[at : at + 8] = random.bytes(8)
            case 2:
                del damaged[at : at + int(random.integers(1, 64))]
            case 3:
                damaged[at:at] = random.bytes(int(random.integers(1, 64)))
            case 4:
                damaged[at : at + 4] = b"\xff" * 4
            case 5:
                damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
            case 6:
                damaged[int(random.integers(min(400, len(damaged))))] = int(random.integers(256))
            case _:
                damaged = damaged[:at] + damaged[: len(damaged) - at]
        made.append(bytes(damaged))
    return made


CHECKED = ("a.npz", "s.npz", "a.png", "a.nii.gz", "a.nrrd")
"""Kinds with checksums over their values: those come out the same, or not at all."""


@pytest.mark.filterwarnings("ignore")  # of pydicom, about values that it cannot make anything of
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chained", [False, True])
def test_a_damaged_file_is_read_as_it_is_or_refused(tmp_path: Path, name: str, chained: bool) -> None:
    check_damaged(tmp_path, name, chained, 30)


def check_damaged(tmp_path: Path, name: str, chained: bool, n: int) -> None:
    chain = VolumeChain("RAS", (2.0, 2.0, 2.0), shape=(8, 8, 8)) if chained else None
    if chained and not name.endswith((".nii", ".gz", ".nrrd", ".dcm")):
        return
    reader = FileReader(str(tmp_path), chain=chain, limit_bytes=1 << 24)
    content = KINDS[name](tmp_path / name).read_bytes()
    whole = one(reader, name)
    for damaged in mutations(content, n, seed=1):
        (tmp_path / name).write_bytes(damaged)
        try:
            payload = one(reader, name)
        except PayloadError:
            continue
        if name in CHECKED and not chained:
            same = payload.value.tobytes() == whole.value.tobytes()
            assert same or payload.value.shape != whole.value.shape or payload.value.dtype != whole.value.dtype
        assert payload.digest != whole.digest or damaged == content or name in ("a.npz", "s.npz")


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files_are_read_as_they_are_or_refused(tmp_path: Path, name: str, chained: bool) -> None:
    check_damaged(tmp_path, name, chained, 2_000)


# --- the reader itself


def test_a_reader_survives_pickle_and_says_all_that_values_depend_on(tmp_path: Path) -> None:
    reader = FileReader(str(tmp_path), "a", chain=MERLIN)
    assert pickle.loads(pickle.dumps(reader)) == reader  # noqa: S301  # our own bytes
    assert len({reader, replace(reader, member="b"), replace(reader)}) == 2
    assert reader.to_json() == {
        "reader": "files",
        "root": str(tmp_path),
        "member": "a",
        "indexed": False,
        "keep_encoded": False,
        "chain": {**MERLIN.to_json(), "digest": MERLIN.digest()},
    }


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("simplejpeg", "a.jpg", "image"),
        ("PIL", "a.png", "image"),
        ("nibabel", "a.nii", "volume"),
        ("pydicom", "a.dcm", "volume"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_the_command_that_installs_it(
    tmp_path: Path, reader: FileReader, monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str
) -> None:
    KINDS[name](tmp_path / name)
    for part in ("", ".Image", ".PngImagePlugin", ".filereader", ".orientations"):
        monkeypatch.setitem(__import__("sys").modules, module + part, None)
    with pytest.raises(UsageError) as error:
        list(reader.read(name, [0]))
    assert error.value.fix == f"pip install 'zstore[{extra}]'"


def test_one_file_is_opened_once_for_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = voxels((50, 4))
    np.save(tmp_path / "a.npy", values)
    opened, real = [], io.FileIO

    def counting(*arguments: Any) -> Any:
        opened.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("zstore.writing.sources.named_files.below.io.FileIO", counting)
    rows: list[NDArray[Any]] = [
        payload.value for payload in FileReader(str(tmp_path), indexed=True).read("a.npy", range(50))
    ]
    np.testing.assert_array_equal(values, rows)
    assert len(opened) == 1
