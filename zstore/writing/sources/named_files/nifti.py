"""NIfTI files (.nii, .nii.gz) of versions 1 and 2; nibabel knows where their voxels lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.extras import library
from zstore.format.payloads.grid import spacing_of
from zstore.writing.sources.named_files.below import OpenFile
from zstore.writing.sources.named_files.inflate import (
    Hashed,
    Inflated,
    Readable,
    check_end,
    check_plausible,
    exactly,
    skip,
    some,
)
from zstore.writing.sources.named_files.volume import VolumeLook
from zstore.writing.sources.payloads import Payload, PayloadLook

_HEADERS = {348: ("Nifti1Header", b"n+1\0"), 540: ("Nifti2Header", b"n+2\0")}
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MOST_OFFSET = 1 << 28  # bytes of notes between header and voxels
_UNITS = {1: "metres", 3: "micrometres"}  # of space; 2 is millimetres, 0 is not said
_WHOLE = "a whole NIfTI file"


class _Header(NamedTuple):
    volume: VolumeLook
    stored: np.dtype[Any]  # in the byte order of the file
    offset: int  # of the first voxel
    n_read: int


def look(file: OpenFile, chain: VolumeChain | None, limit_bytes: int) -> PayloadLook:
    """What a NIfTI file holds; raises :class:`PayloadError`."""
    return volume_of(file).payload_look(chain, limit_bytes)


def volume_of(file: OpenFile) -> VolumeLook:
    """What the header of a NIfTI file says; raises :class:`PayloadError`."""
    return _header(_plain(file, file.stream)).volume


def read(file: OpenFile, chain: VolumeChain | None, limit_bytes: int) -> Payload:
    """A NIfTI file as a payload.

    Parameters
    ----------
    file
        Its length is compared with what its header says, and its checksum with its bytes, if it has one.
    chain
        What is done to it; None for its values as they are.
    limit_bytes
        The most bytes of the volume, before and after.

    Raises
    ------
    PayloadError
        If it is no whole NIfTI file of numbers, or its affine is singular.
    """
    hashed = Hashed(file.stream)
    stream = _plain(file, hashed)
    header = _header(stream)
    volume = header.volume
    volume.payload_look(chain, limit_bytes)
    n_bytes = header.offset + volume.n_bytes
    if stream is not hashed:
        check_plausible(n_bytes, file.n_bytes, "gzip")
    elif n_bytes > file.n_bytes:
        raise PayloadError(f"a NIfTI file of {file.n_bytes:,} bytes, whose header says {n_bytes:,}", _WHOLE)
    skip(stream, header.offset - header.n_read, "voxels")
    content = exactly(stream, volume.n_bytes, "voxels")
    check_end(stream, "voxels")
    raw = content.view(header.stored).reshape(volume.shape, order="F").astype(volume.dtype, copy=False)
    return volume.payload(raw, hashed.digest(), chain, limit_bytes)


def _plain(file: OpenFile, stream: Readable) -> Readable:
    return Inflated(stream, "gzip") if file.name.lower().endswith(".gz") else stream


def _header(stream: Readable) -> _Header:
    begin = some(stream, 4)
    if not begin:
        raise PayloadError("an empty file", "a NIfTI file")
    size, order = next(
        ((size, order) for size in _HEADERS for order in ("<", ">") if begin == np.array(size, f"{order}i4").tobytes()),
        (0, ""),
    )
    if not size:
        raise PayloadError(f"a file that begins with {begin!r}", "a NIfTI file")
    content = begin + some(stream, size - 4)
    name, magic = _HEADERS[size]
    if len(content) < size:
        raise PayloadError(f"a NIfTI file that ends within its header, after {len(content)} bytes", _WHOLE)
    kind = getattr(library("nibabel", "volume"), name)
    try:
        header = kind(content, endianness=order, check=False)
        if header["magic"].tobytes()[:3] != magic[:3]:
            raise PayloadError(
                f"a NIfTI header with the magic {header['magic'].tobytes()!r}", f"{magic!r}, a single file"
            )
        return _understood(header, order, size)
    except (ValueError, TypeError, ArithmeticError) as error:  # what nibabel raises is one of these
        raise PayloadError(f"a NIfTI header that cannot be read ({error})", "a NIfTI header") from error


def _understood(header: Any, order: str, size: int) -> _Header:
    code = int(header["datatype"])
    if code not in _DTYPES:
        raise PayloadError(
            f"a NIfTI file of data type {code}, such as colours or complex numbers", "integers or floats"
        )
    stored = np.dtype(order + _DTYPES[code])
    dimensions = [int(n) for n in header["dim"]]
    if not 1 <= dimensions[0] <= 7 or int(header["bitpix"]) != 8 * stored.itemsize:
        raise PayloadError(
            f"a NIfTI header of {dimensions[0]} dimensions and {int(header['bitpix'])} bits a voxel",
            f"1 to 7 dimensions, and {8 * stored.itemsize} bits",
        )
    shape = tuple(dimensions[1 : dimensions[0] + 1])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and size + 4 <= offset <= _MOST_OFFSET):
        raise PayloadError(f"a NIfTI header that puts voxels at byte {offset:g}", f"{size + 4:,} to {_MOST_OFFSET:,}")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # it says that there is none
        slope, intercept = 1.0, 0.0
    with np.errstate(all="ignore"):
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        doubt = _doubt(header, affine)
    limits = np.iinfo(stored) if stored.kind in "iu" else None
    volume = VolumeLook(
        shape,
        stored.newbyteorder("="),
        (slope,),
        (intercept,),
        int(limits.min) if limits else 0,
        int(limits.max) if limits else 0,
        affine,
        doubt,
    )
    return _Header(volume, stored, int(offset), size)


def _doubt(header: Any, affine: np.ndarray[Any, Any]) -> str:
    """Why an affine is not to be relied on: other units, or voxels of another size than the header gives them."""
    unit = int(header["xyzt_units"]) & 7
    if unit in _UNITS:
        return f"a volume in {_UNITS[unit]}"
    says, has = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)), spacing_of(affine)
    if int(header["sform_code"]) > 0 and not np.allclose(says, has, rtol=1e-3):
        return (
            f"a volume whose voxels are {says.tolist()} mm by one part of its header and {has.tolist()} mm by another"
        )
    return ""
