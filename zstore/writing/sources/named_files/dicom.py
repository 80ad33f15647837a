"""DICOM series: one slice a file, in a folder of their own; pydicom reads headers, voxels are read here.

Slices are put in the order in which they lie in the patient. One that is missing, is there twice, or belongs to another
series makes the volume a bad one; a file is never left out in silence.
"""

from __future__ import annotations

import numpy as np
import xxhash

from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.grid import Affine
from zstore.writing.sources.named_files.below import files_in, is_folder, opened
from zstore.writing.sources.named_files.dicom_slice import Slice, header_of, voxels_of
from zstore.writing.sources.named_files.volume import VolumeLook
from zstore.writing.sources.payloads import Payload, PayloadLook

_MOST_SLICES = 1 << 14
_BESIDE = {"dicomdir", "thumbs.db", "desktop.ini"}  # files that systems put into folders
_NEAR = 0.01  # mm, or share of the distance between slices, that one may be off
_AWRY = 1e-4  # of a direction


def look(root: str, name: str, chain: VolumeChain | None, limit_bytes: int) -> PayloadLook:
    """What a DICOM file, or a folder of those of a series, holds; raises :class:`PayloadError`."""
    return volume_of(root, name).payload_look(chain, limit_bytes)


def volume_of(root: str, name: str) -> VolumeLook:
    """What the headers of a DICOM file, or of a folder of those of a series, say; raises :class:`PayloadError`."""
    return _volume(_slices(root, name))


def read(root: str, name: str, chain: VolumeChain | None, limit_bytes: int) -> Payload:
    """A DICOM file, or a folder of those of a series, as a payload.

    Parameters
    ----------
    root, name
        Of the file or folder, see :func:`zstore.writing.sources.named_files.below.opened`.
    chain
        What is done to it; None for its values as they are: slope and intercept applied.
    limit_bytes
        The most bytes of the volume, before and after.

    Returns
    -------
    (x, y, slice). The digest is that of all files, in the order of their slices.

    Raises
    ------
    PayloadError
        If a file is no whole DICOM file of one slice of numbers, or slices do not make one volume.
    """
    slices = _slices(root, name)
    volume = _volume(slices)
    volume.payload_look(chain, limit_bytes)
    raw, hasher = np.empty(volume.shape, volume.dtype, order="F"), xxhash.xxh3_128()
    for n, one in enumerate(slices):
        with opened(root, one.name) as file:
            content = file.whole(limit_bytes)
        hasher.update(content)
        raw[:, :, n] = voxels_of(content, one).T
    return volume.payload(raw, hasher.digest(), chain, limit_bytes)


def files_of(root: str, name: str) -> list[str]:
    """The files of a folder that are slices; raises as :func:`~zstore.writing.sources.named_files.below.files_in`."""
    return [f"{name}/{one}" for one in files_in(root, name, _MOST_SLICES) if one.lower() not in _BESIDE]


def _slices(root: str, name: str) -> list[Slice]:
    """Headers of all slices, in the order in which they lie."""
    names = files_of(root, name) if is_folder(root, name) else [name]
    if not names:
        raise PayloadError("an empty folder", "the files of a DICOM series")
    slices = []
    for one in names:
        with opened(root, one) as file:
            slices.append(header_of(file, one))
    if len(slices) == 1:
        return slices
    _check_alike(slices)
    return sorted(slices, key=Slice.distance)


def _check_alike(slices: list[Slice]) -> None:
    first = slices[0]
    for other in slices:
        for what, one, two in (
            ("series", first.series, other.series),
            ("sizes", first.size, other.size),
            ("types", first.stored, other.stored),
            ("bits", first.bits, other.bits),
        ):
            if one != two:
                raise PayloadError(
                    f"a folder of several {what} ({one} in {first.name}, {two} in {other.name})", "slices of one series"
                )
        if other.position is None or other.directions is None:
            raise PayloadError(
                f"a slice that does not say where it lies ({other.name})", "a position and an orientation"
            )
        assert first.directions is not None
        same = np.allclose(first.spacing, other.spacing, rtol=_AWRY)
        if not same or np.abs(first.directions - other.directions).max() > _AWRY:
            raise PayloadError(
                f"a folder of slices that lie differently ({first.name}, {other.name})", "one orientation and spacing"
            )


def _volume(slices: list[Slice]) -> VolumeLook:
    first = slices[0]
    affine = None
    if first.position is not None and first.directions is not None:
        affine = _affine(slices)
    low, high = (
        (0, (1 << first.bits) - 1) if first.stored.kind == "u" else (-(1 << first.bits - 1), (1 << first.bits - 1) - 1)
    )
    slopes, intercepts = tuple(one.slope for one in slices), tuple(one.intercept for one in slices)
    if len(set(slopes)) == len(set(intercepts)) == 1:
        slopes, intercepts = slopes[:1], intercepts[:1]
    shape = (*first.size, len(slices))
    doubt = "" if affine is not None else "a DICOM file that does not say where it lies"
    return VolumeLook(shape, first.stored.newbyteorder("="), slopes, intercepts, low, high, affine, doubt)


def _affine(slices: list[Slice]) -> Affine:
    """From voxels to millimetres to the right, to the front and to the top."""
    first, last = slices[0], slices[-1]
    assert first.position is not None
    assert first.directions is not None
    assert last.position is not None
    affine = np.eye(4)
    affine[:3, 0] = first.directions[:3] * first.spacing[0]
    affine[:3, 1] = first.directions[3:] * first.spacing[1]
    affine[:3, 2] = np.cross(first.directions[:3], first.directions[3:]) * first.thickness
    affine[:3, 3] = first.position
    if len(slices) > 1:
        step = (last.position - first.position) / (len(slices) - 1)
        _check_steps(slices)
        affine[:3, 2] = step
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM counts to the left and to the back


def _check_steps(slices: list[Slice]) -> None:
    """Refuse slices that do not follow each other at one distance, along one line."""
    positions = np.array([one.position for one in slices])
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    length = float(np.linalg.norm(usual))
    for n, step in enumerate(steps):
        if np.abs(step - usual).max() <= max(_NEAR, _NEAR * length):
            continue
        distance = float(np.linalg.norm(step))
        what = "two slices at one place" if distance <= _NEAR else f"a gap of {distance:.6g} mm between slices"
        raise PayloadError(
            f"{what} ({slices[n].name}, {slices[n + 1].name})",
            f"one slice every {length:.6g} mm, as the others have it",
        )
    if length <= _NEAR:
        raise PayloadError(
            f"two slices at one place ({slices[0].name}, {slices[1].name})", "slices apart from each other"
        )
