"""NRRD files (.nrrd) with their values in them: raw, gzip or bzip2."""

from __future__ import annotations

import io
import re
from typing import Any, Literal, NamedTuple

import numpy as np

from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.error import PayloadError
from zstore.writing.sources.named_files.below import OpenFile
from zstore.writing.sources.named_files.inflate import (
    Hashed,
    Inflated,
    Readable,
    check_end,
    check_plausible,
    exactly,
    some,
)
from zstore.writing.sources.named_files.volume import VolumeLook
from zstore.writing.sources.payloads import Payload, PayloadLook

_MOST_HEADER = 1 << 20  # bytes
_WHOLE = "a whole NRRD file"
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_ENDS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
# What each axis of its space runs to, as factors that turn it to right, front and top.
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_DTYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPES = {name: dtype for dtype, names in _DTYPES.items() for name in names}


class _Header(NamedTuple):
    volume: VolumeLook
    stored: np.dtype[Any]  # in the byte order of the file
    encoding: str


def look(file: OpenFile, chain: VolumeChain | None, limit_bytes: int) -> PayloadLook:
    """What an NRRD file holds; raises :class:`PayloadError`."""
    return volume_of(file).payload_look(chain, limit_bytes)


def volume_of(file: OpenFile) -> VolumeLook:
    """What the header of an NRRD file says; raises :class:`PayloadError`."""
    return _header(file.stream)[0].volume


def read(file: OpenFile, chain: VolumeChain | None, limit_bytes: int) -> Payload:
    """An NRRD file as a payload; parameters and errors as those of :func:`...nifti.read`."""
    hashed = Hashed(file.stream)
    header, rest = _header(hashed)
    volume = header.volume
    volume.payload_look(chain, limit_bytes)
    stream: Readable = _Chained(rest, hashed)
    if header.encoding == "raw":
        n_left = file.n_bytes - hashed.n_read + len(rest)
        if volume.n_bytes > n_left:
            raise PayloadError(f"an NRRD file with {n_left:,} of {volume.n_bytes:,} bytes of values", _WHOLE)
    else:
        check_plausible(volume.n_bytes, file.n_bytes, header.encoding)
        stream = Inflated(stream, header.encoding)
    content = exactly(stream, volume.n_bytes, "values")
    check_end(stream, "values")
    raw = content.view(header.stored).reshape(volume.shape, order="F").astype(volume.dtype, copy=False)
    return volume.payload(raw, hashed.digest(), chain, limit_bytes)


class _Chained:
    """Bytes that were read already, and those behind them."""

    def __init__(self, begin: bytes, stream: Readable) -> None:
        self._begin, self._stream = io.BytesIO(begin), stream

    def read(self, n_bytes: int, /) -> bytes:
        return self._begin.read(n_bytes) or self._stream.read(n_bytes)


def _header(stream: Readable) -> tuple[_Header, bytes]:
    """The header, and the bytes behind it that were read with it."""
    content = some(stream, 4096)
    if not re.match(rb"NRRD000[1-5]\r?\n", content):
        raise PayloadError(f"a file that begins with {content[:8]!r}" if content else "an empty file", "an NRRD file")
    while (end := re.search(rb"\r?\n\r?\n", content)) is None:
        more = some(stream, 1 << 16)
        if not more or len(content) > _MOST_HEADER:
            raise PayloadError(f"an NRRD file without an empty line in {len(content):,} bytes, as headers end", _WHOLE)
        content += more
    fields: dict[str, str] = {}
    for line in content[: end.start()].decode("utf-8", "replace").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("#") or (colon and value.startswith("=")):  # a comment, or a note of the user's own
            continue
        name = name.strip().lower()
        if not colon or name in fields:
            raise PayloadError(f"an NRRD header with the line {line[:80]!r}", "name: value, each name once")
        fields[name] = value.strip()
    return _understood(fields), content[end.end() :]


def _understood(fields: dict[str, str]) -> _Header:
    if {"data file", "datafile"} & set(fields):
        raise PayloadError("an NRRD header without its values, which are in another file", "one file; save it as .nrrd")
    if any(fields.get(name, "0") != "0" for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise PayloadError("an NRRD file with bytes to skip before its values", "values right behind the header")
    encoding, kind = fields.get("encoding", "").lower(), fields.get("type", "").lower()
    if encoding not in _ENCODINGS:
        raise PayloadError(f"an NRRD file in the encoding {encoding!r}", "raw, gzip or bzip2")
    if kind not in _TYPES:
        raise PayloadError(f"an NRRD file of the type {kind!r}", "integers or floats")
    dtype = np.dtype(_TYPES[kind])
    if dtype.itemsize > 1 and fields.get("endian", "").lower() not in _ENDS:
        raise PayloadError(f"an NRRD file with the byte order {fields.get('endian', '')!r}", "little or big")
    stored = dtype.newbyteorder(_ENDS.get(fields.get("endian", "").lower(), "="))
    try:
        dimension = int(fields.get("dimension", ""))
        shape = tuple(int(size) for size in fields.get("sizes", "").split())
    except ValueError as error:
        raise PayloadError(f"an NRRD header with the sizes {fields.get('sizes')!r}", "whole numbers") from error
    if dimension != len(shape):
        raise PayloadError(f"an NRRD header of {dimension} dimensions and {len(shape)} sizes", "as many of each")
    affine, doubt = _affine(fields, len(shape))
    return _Header(VolumeLook(shape, dtype, affine=affine, doubt=doubt), stored, _ENCODINGS[encoding])


def _affine(fields: dict[str, str], n_dimensions: int) -> tuple[np.ndarray[Any, Any] | None, str]:
    """From voxels to millimetres, and why it cannot be relied on; None where the file has none of three dimensions."""
    directions, origin = _vectors(fields.get("space directions", "")), _vectors(fields.get("space origin", ""))
    if n_dimensions != 3 or [len(vector) for vector in directions] != [3, 3, 3]:
        return None, ""
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions).T
    if [len(vector) for vector in origin] == [3]:
        affine[:3, 3] = origin[0]
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        return affine, f"a volume in the space {space!r}, which says nothing of a patient"
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"", "mm", "millimeter", "millimetre"}
    affine[:3] *= np.array(_SPACES[space])[:, None]
    return affine, f"a volume in {sorted(units)[0]}" if units else ""


def _vectors(text: str) -> list[list[float]]:
    """Vectors such as ``(1,0,0) (0,1,0) none``; an empty one for none."""
    vectors = []
    if not re.fullmatch(r"(\s*(\([^()]*\)|none))*\s*", text.lower()):
        raise PayloadError(f"an NRRD header with the vectors {text!r}", "numbers in parentheses, or none")
    for match in re.finditer(r"\(([^()]*)\)|none", text.lower()):
        try:
            vectors.append([float(number) for number in match[1].split(",")] if match[1] is not None else [])
        except ValueError as error:
            raise PayloadError(f"an NRRD header with the vector {match[0]!r}", "numbers") from error
    return vectors
