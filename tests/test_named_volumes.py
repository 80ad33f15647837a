"""Payloads out of NIfTI, NRRD and DICOM files that a column names, with nibabel, pynrrd and pydicom as the oracles."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
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
from payload_files import AFFINE, dicom_folder, dicom_slice, nifti, nrrd_file, one, refused, voxels
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, HTJ2KLossless, RLELossless

from zstore.format.payloads.chain import MERLIN, VolumeChain, Window
from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.sources.payloads import PayloadError

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]


@pytest.fixture
def reader(tmp_path: Path) -> FileReader:
    return FileReader(str(tmp_path))


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
