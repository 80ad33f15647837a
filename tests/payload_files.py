"""Small files of each kind that payloads are read from, written as others write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.sources.payloads import Payload, PayloadError

AFFINE = np.array([[-1.5, 0.0, 0.0, 40.0], [0.0, -1.25, 0.0, 30.0], [0.0, 0.0, 2.0, -7.0], [0.0, 0.0, 0.0, 1.0]])


def voxels(shape: Sequence[int] = (7, 6, 5), dtype: Any = np.int16, seed: int = 0) -> NDArray[Any]:
    values: NDArray[Any] = np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
    return values


def nifti(path: Path, values: NDArray[Any], affine: NDArray[Any] | None = AFFINE, **header: Any) -> Path:
    image = nibabel.Nifti1Image(values, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def nrrd_file(path: Path, values: NDArray[Any], encoding: str = "gzip", **header: Any) -> Path:
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    placed = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    nrrd.write(str(path), values, {**placed, "encoding": encoding, **header})
    return path


def dicom_slice(path: Path, values: NDArray[Any], number: int = 0, series: str = "1.2.3", **tags: Any) -> Path:
    """A slice of (row, column) values, `number` steps of 2 mm up."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        CTImageStorage,
        generate_uid(entropy_srcs=[str(path)]),
    )
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SeriesInstanceUID, data.SOPInstanceUID = series, meta.MediaStorageSOPInstanceUID
    data.SOPClassUID, data.Modality, data.InstanceNumber = CTImageStorage, "CT", number + 1
    data.ImagePositionPatient = [-40.0, -30.0, -7.0 + 2 * number]
    data.ImageOrientationPatient, data.PixelSpacing = [1.0, 0, 0, 0, 1, 0], [1.25, 1.5]
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored, data.PixelRepresentation = (
        tags.pop("BitsStored", data.BitsAllocated),
        int(values.dtype.kind == "i"),
    )
    data.HighBit = data.BitsStored - 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        setattr(data, name, value)
    content = values.tobytes()
    data.PixelData = content + bytes(len(content) % 2)
    if meta.TransferSyntaxUID == RLELossless:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless)
    pydicom.dcmwrite(path, data)
    return path


def dicom_folder(path: Path, values: NDArray[Any], **tags: Any) -> Path:
    """(x, y, slice) values, whose files are not named in the order of their slices."""
    path.mkdir()
    n_slices = values.shape[2]
    for number in range(n_slices):
        dicom_slice(
            path / f"IM{(number * 7) % n_slices:03d}", np.ascontiguousarray(values[:, :, number].T), number, **tags
        )
    return path


def image(path: Path, values: NDArray[Any], **options: Any) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def npy(path: Path, values: NDArray[Any]) -> Path:
    np.save(path, values)
    return path


def npz(path: Path, compressed: bool = True, **arrays: NDArray[Any]) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "a.npy": lambda path: npy(path, voxels()),
    "f.npy": lambda path: npy(path, np.asfortranarray(voxels(dtype=">f4"))),
    "a.npz": lambda path: npz(path, a=voxels()),
    "s.npz": lambda path: npz(path, compressed=False, a=voxels()),
    "a.png": lambda path: image(path, voxels((9, 8, 3), np.uint8)),
    "a.jpg": lambda path: image(path, voxels((19, 18, 3), np.uint8)),
    "a.nii": lambda path: nifti(path, voxels()),
    "a.nii.gz": lambda path: nifti(path, voxels()),
    "a.nrrd": lambda path: nrrd_file(path, voxels()),
    "r.nrrd": lambda path: nrrd_file(path, voxels(), "raw"),
    "a.dcm": lambda path: dicom_slice(path, voxels((6, 7))),
    "r.dcm": lambda path: dicom_slice(path, voxels((6, 7)), syntax=RLELossless),
}
"""A small file of each kind, by its name."""


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
