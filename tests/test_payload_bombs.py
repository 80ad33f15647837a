"""Files that claim to be vast are refused by their headers, before memory is taken; the user can raise the limit."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import write_table
from payload_files import dicom_slice, image, nifti, npy, nrrd_file, voxels

import zstore
from zstore import SourceError
from zstore.format.payloads import png

MOST_BYTES = 200 << 20  # of a whole ingest, whatever it reads; the least that a file here claims is 10 GB


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def vast_png(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    path.write_bytes(png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def vast_jpeg(path: Path) -> None:
    content = image(path, voxels((16, 16, 3), np.uint8)).read_bytes()
    at = content.index(b"\xff\xc0")
    path.write_bytes(content[: at + 5] + struct.pack(">HH", 60_000, 60_000) + content[at + 9 :])


def npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def vast_npy(path: Path) -> None:
    path.write_bytes(npy_header((1 << 25, 1 << 25)) + bytes(64))


def vast_sparse_npy(path: Path) -> None:
    """As long as it says, without taking space."""
    header = npy_header((1 << 18, 1 << 18))
    path.write_bytes(header)
    try:
        os.truncate(path, len(header) + (1 << 38))
    except OSError:
        pytest.skip("no sparse files of this size")


def vast_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy_header((1 << 25, 1 << 25)) + bytes(1 << 20))


def vast_nifti(path: Path) -> None:
    plain = path.with_name("plain.nii")
    content = nifti(plain, voxels()).read_bytes()
    header = nibabel.Nifti1Header(content[:348])
    header["dim"] = [3, 32767, 32767, 32767, 1, 1, 1, 1]
    content = header.binaryblock + content[348:]
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def vast_nrrd(path: Path) -> None:
    content = nrrd_file(path, voxels((40, 40, 40))).read_bytes()
    path.write_bytes(content.replace(b"sizes: 40 40 40", b"sizes: 40000 40000 40000"))


def vast_dicom(path: Path) -> None:
    dicom_slice(path, voxels((6, 7)), Rows=65_535, Columns=65_535)


VAST: list[tuple[str, Callable[[Path], None], Callable[[Path], object]]] = [
    ("png", vast_png, lambda path: image(path, voxels((9, 8, 3), np.uint8))),
    ("jpg", vast_jpeg, lambda path: image(path, voxels((16, 16, 3), np.uint8))),
    ("npy", vast_npy, lambda path: npy(path, voxels((4, 3), np.float32))),
    ("npy", vast_sparse_npy, lambda path: npy(path, voxels((4, 3), np.float32))),
    ("npz", vast_npz, lambda path: np.savez(path, a=voxels((4, 3), np.float32))),
    ("nii", vast_nifti, lambda path: nifti(path, voxels())),
    ("nii.gz", vast_nifti, lambda path: nifti(path, voxels())),
    ("nrrd", vast_nrrd, lambda path: nrrd_file(path, voxels())),
    ("dcm", vast_dicom, lambda path: dicom_slice(path, voxels((6, 7)))),
]


@pytest.mark.parametrize(("ending", "vast", "good"), VAST, ids=lambda value: getattr(value, "__name__", value))
def test_a_file_that_claims_to_be_vast_is_refused_or_set_aside_without_memory(
    tmp_path: Path, ending: str, vast: Callable[[Path], None], good: Callable[[Path], object]
) -> None:
    good(tmp_path / f"0.{ending}")
    vast(tmp_path / f"1.{ending}")
    table = [["a", n, n, f"{n % 2}.{ending}"] for n in range(4)]
    source = write_table(tmp_path / "a.csv", ["id", "t", "v", "path"], table)
    options: dict[str, Any] = {"id": "id", "time": "t", "file": {"scan": "path"}, "file_root": tmp_path, "workers": 1}
    options["categories"] = ["path"]
    zstore.ingest(write_table(tmp_path / "b.csv", ["id", "t", "v", "path"], table[:1]), tmp_path / "b.zarr", **options)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=rf"(?s)scan of id 'a' at 1: .*a.csv line 3: 1.{ending}"):
            zstore.ingest(source, tmp_path / "s.zarr", **options)
        receipt = zstore.ingest(source, tmp_path / "s.zarr", **options, on_bad_row="quarantine")
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert (receipt.n_stored, receipt.n_quarantined) == (2, 2)


@pytest.mark.parametrize("ending", ["npy", "nii.gz", "png"])
def test_the_limit_is_what_the_user_says(tmp_path: Path, ending: str) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "npy": lambda path: npy(path, voxels((40, 40, 40))),
        "nii.gz": lambda path: nifti(path, voxels((40, 40, 40))),
        "png": lambda path: image(path, voxels((200, 214, 3), np.uint8)),
    }
    make[ending](tmp_path / f"x.{ending}")
    source = write_table(tmp_path / "a.csv", ["id", "t", "v", "path"], [["a", 0, 0, f"x.{ending}"]])
    options: dict[str, Any] = {"id": "id", "time": "t", "file": {"scan": "path"}, "file_root": tmp_path}
    with pytest.raises(SourceError, match=r"at most 102,400 bytes a payload; --file-limit raises that"):
        zstore.ingest(source, tmp_path / "s.zarr", **options, file_limit="100KiB")
    assert zstore.ingest(source, tmp_path / "s.zarr", **options, file_limit="200KiB").n_stored == 1
