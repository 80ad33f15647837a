"""DICOM whose voxels a codec has compressed: as pydicom decodes them, or refused before anything is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from conftest import SMALL_GRID, write_table
from numpy.typing import NDArray
from payload_files import dicom_slice, voxels
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

import zstore
from zstore import UsageError
from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.sources.payloads import PayloadError

BY_PILLOW = ["JPEG2000.dcm", "MR_small_jp2klossless.dcm"]
"""Files that come with pydicom, which Pillow decodes."""

BY_GDCM = ["MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_16.dcm"]


def sample(name: str, folder: Path) -> pydicom.FileDataset:
    """A file that comes with pydicom, copied as ``a.dcm``."""
    source = get_testdata_file(name, download=False)
    assert isinstance(source, str)
    (folder / "a.dcm").write_bytes(Path(source).read_bytes())
    return pydicom.dcmread(source)


def read(folder: Path) -> NDArray[Any]:
    (payload,) = FileReader(str(folder)).read("a.dcm", [0])
    return payload.value


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, about headers of old files
@pytest.mark.parametrize("name", BY_PILLOW + BY_GDCM)
def test_compressed_files_of_scanners_come_out_as_pydicom_reads_them(name: str, tmp_path: Path) -> None:
    if name in BY_GDCM:
        pytest.importorskip("gdcm")
    data = sample(name, tmp_path)
    expected = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(read(tmp_path), expected.T[:, :, None])


@pytest.mark.parametrize("name", BY_PILLOW[1:] + BY_GDCM[:1])
def test_a_lossless_codec_gives_what_the_file_without_it_has(name: str, tmp_path: Path) -> None:
    if name in BY_GDCM:
        pytest.importorskip("gdcm")
    sample(name, tmp_path)
    made = read(tmp_path)
    sample("MR_small.dcm", tmp_path)
    np.testing.assert_array_equal(made, read(tmp_path))


@pytest.mark.parametrize("signed", [False, True])
def test_slices_of_lossless_jpeg_have_every_voxel(tmp_path: Path, signed: bool) -> None:
    gdcm = pytest.importorskip("gdcm")
    values = voxels((16, 17), np.uint16, seed=4) * 30
    dicom_slice(tmp_path / "plain.dcm", values.astype(np.int16) - 900 if signed else values)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read(tmp_path), values.astype(np.int32).T[:, :, None] - 1024 - 900 * signed)


def test_scans_of_jpeg_2000_are_ingested_and_named_where_they_are_damaged(tmp_path: Path) -> None:
    data = sample(BY_PILLOW[1], tmp_path)
    expected = data.pixel_array.T[:, :, None]
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(content)
    change_frame(tmp_path, lambda frame: frame[:-300])
    table = write_table(tmp_path / "r.csv", ["id", "t", "scan"], [["p", 0, "b.dcm"], ["p", 1, "a.dcm"]])
    options: dict[str, Any] = {"id": "id", "time": "t", "file": {"scan": "scan"}, "file_root": tmp_path, **SMALL_GRID}
    with pytest.raises(zstore.SourceError, match=r"codestream ends early.*a\.dcm"):
        zstore.ingest(table, tmp_path / "s.zarr", **options)
    zstore.ingest(table, tmp_path / "s.zarr", **options, on_bad_row="quarantine")
    np.testing.assert_array_equal(zstore.open_store(tmp_path / "s.zarr").read_field("scan", 0, 1), expected[None])


def change_frame(folder: Path, change: Callable[[bytes], bytes]) -> None:
    data = pydicom.dcmread(folder / "a.dcm")
    (frame,) = generate_frames(data.PixelData, number_of_frames=1)
    data.PixelData = encapsulate([change(frame)])
    data["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(folder / "a.dcm", data)


def larger(frame: bytes) -> bytes:
    """A codestream of JPEG 2000 that claims to be vast."""
    return frame[:8] + struct.pack(">2I", 60_000, 60_000) + frame[16:]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (larger, "60000 × 60000 voxels of 1 × 16 bits in its codestream.*64 × 64"),
        (lambda frame: frame[:40] + b"\0\3" + frame[42:], "3 × 16 bits"),
        (lambda frame: frame[:42] + b"\x1f" + frame[43:], "1 × 32 bits"),
        (lambda frame: frame[: len(frame) // 2], "codestream ends early"),
        (lambda frame: frame[:4], "no JPEG 2000"),
        (lambda frame: b"\xff\xd8\xff\xd9" + frame, "no JPEG 2000"),
        (lambda frame: frame[:60] + bytes(200) + frame[260:], "cannot be read|DICOM"),
    ],
)
def test_a_codestream_that_is_not_what_its_header_says_is_refused(
    change: Callable[[bytes], bytes], told: str, tmp_path: Path
) -> None:
    sample(BY_PILLOW[1], tmp_path)
    change_frame(tmp_path, change)
    with pytest.raises(PayloadError) as refused:
        read(tmp_path)
    text = f"{refused.value.reason}; {refused.value.expected}"
    assert re.search(told, text), text


def test_a_codestream_of_another_kind_is_refused(tmp_path: Path) -> None:
    sample("JPEG-lossy.dcm", tmp_path)
    if not get_decoder(pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID).is_available:
        pytest.skip("no decoder")
    change_frame(tmp_path, lambda frame: b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xff\xda\0\x08" + frame[2:])
    with pytest.raises(PayloadError, match="no JPEG"):
        read(tmp_path)


@pytest.mark.parametrize(("name", "syntax"), [(BY_PILLOW[1], JPEG2000Lossless), (BY_GDCM[0], JPEGLSLossless)])
def test_a_codec_that_is_not_there_is_told_with_what_installs_it(
    name: str, syntax: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(get_decoder(syntax)), "is_available", property(lambda self: False))
    sample(name, tmp_path)
    with pytest.raises(UsageError, match="which nothing that is installed decodes") as refused:
        read(tmp_path)
    assert refused.value.fix == "pip install 'zstore[dicom]'"
