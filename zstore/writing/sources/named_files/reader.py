"""The reader of payloads that are files: which kind one is, by how its name ends.

Adding a kind takes its endings in `KINDS`, a module with a `look`, which reads headers alone, and a `read`, and a line
for each where :class:`FileReader` picks by kind, in its `look` and `_one`; in its `read` for files of many payloads. Of
volumes also a `volume_of`, for :meth:`FileReader.grid`, and a word in `_VOLUMES`, so that chains work on them. What a
file claims is compared with the limit before memory is taken (:func:`~zstore.format.payloads.error.check_size`), and
nothing is opened but by :func:`~zstore.writing.sources.named_files.below.opened`. Images are told apart in
:mod:`zstore.format.payloads.images`, by their first bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash

from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.grid import SourceGrid
from zstore.format.payloads.images import decode_image, look_image
from zstore.writing.sources.named_files import dicom, nifti, npy, nrrd
from zstore.writing.sources.named_files.below import OpenFile, is_folder, opened, state_of
from zstore.writing.sources.payloads import Payload, PayloadLook, origin_of

DEFAULT_LIMIT_BYTES = 1 << 30
"""The most bytes of a payload, where the user says nothing."""

_IMAGES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif")
_NIFTI = (".nii", ".nii.gz")
_DICOM = (".dcm", ".dicom", ".ima")
KINDS = {
    **dict.fromkeys(_IMAGES, "image"),
    **dict.fromkeys(_NIFTI, "nifti"),
    **dict.fromkeys(_DICOM, "dicom"),
    ".npy": "npy",
    ".npz": "npz",
    ".nrrd": "nrrd",
}
"""Which kind a file is, by how its name ends."""
_VOLUMES = ("nifti", "nrrd", "dicom")
_HEAD_BYTES = 1 << 16  # of an image: most say by then how large they are


@dataclass(frozen=True)
class FileReader:
    """Reads payloads out of files below a folder.

    A holder is the path of a file from there, with ``/`` between parts: ``.npy``, ``.npz``, ``.png``, ``.jpg``,
    ``.nii``, ``.nii.gz``, ``.nrrd``, ``.dcm``; or of a folder that has the files of one DICOM series. What stands
    behind an ``.npz``, as in ``scans.npz/train``, is the name of an array in it.

    Parameters
    ----------
    root
        The folder.
    member
        Name of the array in ``.npz`` files, where holders do not say it; None for the only one.
    indexed
        Whether positions choose rows of the first dimension of an array; else each file is one payload.
    keep_encoded
        Whether images stay the bytes that they are, after it was proved that they can be decoded.
    chain
        What is done to volumes; None to store them as they are.
    limit_bytes
        The most bytes of a payload, as it is decoded.

    Notes
    -----
    Values are arrays as files have them: images (y, x) or (y, x, colour), volumes (x, y, z) or (x, y, slice), the
    dimension first that changes fastest in the file, as nibabel has it.
    """

    root: str
    member: str | None = None
    indexed: bool = False
    keep_encoded: bool = False
    chain: VolumeChain | None = None
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    def look(self, holder: str, position: int) -> PayloadLook:
        """What a payload will be, from headers alone; see :class:`zstore.writing.sources.payloads.PayloadReader`."""
        kind, name, member = self._kind(holder)
        if kind == "dicom":
            self._check_position(position, kind)
            return dicom.look(self.root, name, self.chain, self.limit_bytes)
        with opened(self.root, name) as file:
            if kind in ("npy", "npz"):
                wanted = self._position(position)
                if kind == "npy":
                    return npy.look_npy(file, wanted, self.limit_bytes)
                return npy.look_npz(file, member, wanted, self.limit_bytes)
            self._check_position(position, kind)
            if kind == "image":
                return self._image_look(file)
            look = nifti.look if kind == "nifti" else nrrd.look
            return look(file, self.chain, self.limit_bytes)

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        """Bytes of some encoded images; see :class:`zstore.writing.sources.payloads.PayloadReader`."""
        for position in positions:
            yield self.look(holder, position).n_bytes

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        """Some payloads of one holder; see :class:`zstore.writing.sources.payloads.PayloadReader`."""
        origins = self.origins(holder, positions)  # before: a file that changes meanwhile is one that has changed
        for payload, origin in zip(self._read(holder, positions), origins, strict=True):
            yield payload._replace(origin=origin)

    def _read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        kind, name, member = self._kind(holder)
        if kind in ("npy", "npz"):
            for position in () if self.indexed else positions:
                self._position(position)
            rows = positions if self.indexed else None
            with opened(self.root, name) as file:
                if kind == "npy":
                    payloads = npy.read_npy(file, rows, self.limit_bytes)
                else:
                    payloads = npy.read_npz(file, member, rows, self.limit_bytes)
                yield from payloads if rows is not None else _repeated(payloads, len(positions))
            return
        for position in positions:
            self._check_position(position, kind)
        if positions:
            yield from _repeated(iter([self._one(kind, name)]), len(positions))

    def grid(self, holder: str) -> SourceGrid:
        """Where the voxels of a volume lie, from headers alone.

        Raises
        ------
        PayloadError
            If it is no volume, or does not say it.
        """
        kind, name, _ = self._kind(holder)
        if kind == "dicom":
            volume = dicom.volume_of(self.root, name)
        else:
            with opened(self.root, name) as file:
                volume = (nifti.volume_of if kind == "nifti" else nrrd.volume_of)(file)
        volume.check(self.limit_bytes)
        return volume.placed()

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        """By path from the root, position, and bytes and time of change of the file, or of all in the folder."""
        state, about = self._state(holder), self._about
        return [origin_of((about, holder, position), state) for position in positions]

    @cached_property
    def _about(self) -> str:
        """How payloads are read, wherever files lie."""
        return json.dumps({**self.to_json(), "root": None}, sort_keys=True)

    def _state(self, holder: str) -> str:
        """Bytes and time of change of a file, or of all in a folder; empty where there is none."""
        try:
            name = self._kind(holder)[1]
            if not is_folder(self.root, name):
                return state_of(self.root, name)
            files = dicom.files_of(self.root, name)
            return " ".join(f"{file}:{state_of(self.root, file)}" for file in files)
        except PayloadError:  # what is wrong with it is told when it is read
            return ""

    def show(self, holder: str, position: int) -> str:
        """Where a payload lies, for messages: the path from the root, and the row."""
        return f"{holder}, row {position:,}" if self.indexed else holder

    def to_json(self) -> dict[str, Any]:
        """All that values depend on, beside the bytes of files."""
        document = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del document["limit_bytes"]
        chain = None if self.chain is None else {**self.chain.to_json(), "digest": self.chain.digest()}
        return {"reader": "files", **document, "chain": chain}

    def _one(self, kind: str, name: str) -> Payload:
        if kind == "dicom":
            return dicom.read(self.root, name, self.chain, self.limit_bytes)
        with opened(self.root, name) as file:
            if kind == "image":
                content = file.whole(self.limit_bytes)
                values = decode_image(content, self.limit_bytes)
                if self.keep_encoded:
                    values = np.frombuffer(content, np.uint8)
                return Payload(values, xxhash.xxh3_128_digest(content))
            read = nifti.read if kind == "nifti" else nrrd.read
            return read(file, self.chain, self.limit_bytes)

    def _image_look(self, file: OpenFile) -> PayloadLook:
        look = look_image(file.read(0, _HEAD_BYTES), self.limit_bytes, whole=file.n_bytes <= _HEAD_BYTES)
        if look is None:
            look = look_image(file.whole(self.limit_bytes), self.limit_bytes)
        assert look is not None
        if self.keep_encoded:
            return PayloadLook(None, "uint8", file.n_bytes)
        return PayloadLook(look.shape, look.dtype, look.n_bytes, ("y", "x", "colour")[: len(look.shape)])

    def _kind(self, holder: str) -> tuple[str, str, str | None]:
        """What a holder is, the path of its file, and the array in it that is meant."""
        name, member = holder, self.member
        head, ending, tail = _split_archive(holder)
        if tail and ".." not in tail.split("/") and not _is_no_file(self.root, head + ending):
            name, member = head + ending, tail
        lower = name.lower()
        kind = next((kind for ending, kind in KINDS.items() if lower.endswith(ending)), "")
        if not kind and (is_folder(self.root, name) or self._is_dicom(name)):
            kind = "dicom"
        if not kind:
            raise PayloadError(
                f"a file whose name ends in none of {', '.join(KINDS)}", "one of these, or a DICOM folder"
            )
        if self.keep_encoded and kind != "image":
            raise PayloadError(
                "a file that is no encoded image", f"one of {', '.join(_IMAGES)}, which --keep-encoded keeps"
            )
        if self.chain is not None and kind not in _VOLUMES:
            raise PayloadError("a file that is no volume", "NIfTI, NRRD or DICOM, which --file-chain works on")
        return kind, name, member

    def _is_dicom(self, name: str) -> bool:
        """Whether a file whose name says nothing has the mark of DICOM."""
        with opened(self.root, name) as file:
            return file.read(128, 4) == b"DICM"

    def _position(self, position: int) -> int | None:
        if self.indexed:
            return position
        self._check_position(position, "npy")
        return None

    def _check_position(self, position: int, kind: str) -> None:
        if self.indexed and kind not in ("npy", "npz"):
            raise PayloadError("a file of one value", "npy or npz, which --file-position chooses from")
        if position != 0:
            raise PayloadError(f"position {position:,} of a file that is one value", "position 0")


@dataclass(frozen=True)
class GridReader:
    """Reads where the voxels of volumes lay in their sources, as payloads of a field of their own.

    So that what is predicted for a volume can be put back on the voxels of its scan, see
    :func:`zstore.original_grid`.

    Parameters
    ----------
    files
        Reads the volumes.
    """

    files: FileReader

    def look(self, holder: str, position: int) -> PayloadLook:
        """What a payload will be; see :class:`zstore.writing.sources.payloads.PayloadReader`."""
        return PayloadLook((5, 4), "float64", 160, ("grid_row", "grid_column"))

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        """All have as many."""
        yield from [160] * len(positions)

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        """Those of the volumes."""
        return self.files.origins(holder, positions)

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        """(5, 4) float64: the affine, and the shape below it."""
        origins = self.origins(holder, positions)
        values = self.files.grid(holder).to_array()
        digest = xxhash.xxh3_128_digest(values.tobytes())
        yield from (Payload(values, digest, origin=origin) for origin in origins)

    def show(self, holder: str, position: int) -> str:
        """Where a payload lies, for messages."""
        return self.files.show(holder, position)

    def to_json(self) -> dict[str, Any]:
        """All that values depend on, beside the bytes of files."""
        return {**self.files.to_json(), "reader": "grids"}


def _repeated(payloads: Iterator[Payload], n: int) -> Iterator[Payload]:
    """One payload for several rows."""
    for payload in payloads:
        for _ in range(n):
            yield payload


def _split_archive(holder: str) -> tuple[str, str, str]:
    """The path of an ``.npz``, its ending, and what stands behind it."""
    at = holder.lower().find(".npz/")
    return (holder, "", "") if at < 0 else (holder[:at], holder[at : at + 4], holder[at + 5 :])


def _is_no_file(root: str, name: str) -> bool:
    """Whether a path means no file."""
    try:
        return is_folder(root, name)
    except PayloadError:
        return True
