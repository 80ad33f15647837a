"""Payloads: the values of fields, such as images. References to them are sorted; they are read once, in final order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import xxhash
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.grid import SourceGrid

__all__ = [
    "NO_ORIGIN",
    "STORED",
    "BadPayload",
    "BadPayloadsError",
    "FieldSpec",
    "Outcome",
    "Payload",
    "PayloadError",
    "PayloadFaultError",
    "PayloadLook",
    "PayloadReader",
    "origin_of",
]

NO_ORIGIN = bytes(16)
STORED = "\0stored"
"""Holder of payloads that the store has already: their positions are places there. No file is called so."""


class PayloadFaultError(Exception):
    """A payload that cannot be stored, and the row whose it is.

    Parameters
    ----------
    field
        Name of the field.
    series, time
        Number of the row's series, and its time.
    place
        Where the payload lies.
    reason, expected
        As of a :class:`PayloadError`.
    """

    def __init__(self, field: str, series: int, time: int, place: str, reason: str, expected: str) -> None:
        super().__init__(field, series, time, place, reason, expected)
        self.field, self.series, self.time, self.place = field, series, time, place
        self.reason, self.expected = reason, expected


@dataclass(frozen=True)
class BadPayload:
    """A payload that cannot be stored, where such rows are set aside: every row that names it is left out.

    Parameters
    ----------
    field
        Name of the field.
    holder, position
        Where it lies, as its reader has it.
    place
        The same, for messages.
    reason, expected
        As of a :class:`PayloadError`.
    """

    field: str
    holder: str
    position: int
    place: str
    reason: str
    expected: str


class BadPayloadsError(Exception):
    """Payloads that were found bad when rows were written, which have to be written again without theirs.

    Parameters
    ----------
    bad
        All that were found, each once.
    keys
        Objects that were written meanwhile.
    """

    def __init__(self, bad: Sequence[BadPayload], keys: Sequence[str]) -> None:
        super().__init__(bad, keys)
        self.bad, self.keys = bad, keys


class Payload(NamedTuple):
    """The value of a field in one row.

    Parameters
    ----------
    value
        Any shape, in the dtype that the source has; or the bytes of an encoded image, (byte,) uint8.
    digest
        xxh3-128 of the bytes in the source, 16 bytes: what tells whether it has changed.
    grid
        Where the voxels of a volume lay in its source, so that what is made of it can be put there again; None of
        everything else.
    origin
        The file that it was read from, and how that was just before; zeros where nothing is known.
    """

    value: NDArray[Any]
    digest: bytes
    grid: SourceGrid | None = None
    origin: bytes = NO_ORIGIN


Outcome = Payload | PayloadError | None
"""What came of the payload of a row: it, or what is wrong with it; None where the row has none."""


class PayloadLook(NamedTuple):
    """What a payload will be, as far as its header tells.

    Parameters
    ----------
    shape, dtype
        Of its value; None for the bytes of an encoded image, whose length differs from row to row.
    n_bytes
        Bytes of the value in memory.
    dimensions
        Names of its dimensions, where the kind of file tells: ``("y", "x", "colour")`` of an image.
    """

    shape: tuple[int, ...] | None
    dtype: str
    n_bytes: int
    dimensions: tuple[str, ...] | None = None


class PayloadReader(Protocol):
    """Reads the payloads of one field. A frozen dataclass: it is pickled, and hashed into the plan of an ingest."""

    def look(self, holder: str, position: int) -> PayloadLook:
        """What a payload will be, from headers alone.

        Parameters
        ----------
        holder
            What holds it, such as a file, as the reader named it.
        position
            Its number in there; 0 where a holder has one.

        Raises
        ------
        PayloadError
            If there is none, or it is larger than the limit.
        """
        ...

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        """Bytes of some encoded images, from headers alone; asked for where values are such. Raises as :meth:`look`."""
        ...

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        """Some payloads of one holder, which is opened once.

        Parameters
        ----------
        holder, positions
            As for :meth:`look`; positions in any order.

        Raises
        ------
        PayloadError
            If one cannot be read whole.
        """
        ...

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        """What tells, without reading them, whether payloads have changed since they were read.

        Returns
        -------
        For each 16 bytes, see :func:`origin_of`; zeros where the ledger of sources knows the bytes, or nothing is
        known.
        """
        ...

    def show(self, holder: str, position: int) -> str:
        """Where a payload lies, for messages, such as ``scans/a.nii.gz`` or ``demos.h5: /images/top, row 12``."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All that its values depend on, beside the bytes of the source."""
        ...


def origin_of(about: object, state: str) -> bytes:
    """What tells a file, and whether it has changed.

    Parameters
    ----------
    about
        Its name, the payload in it, and how that is read.
    state
        Its length and time of change; empty where there is none.

    Returns
    -------
    xxh3-64 of both, one behind the other. Zeros for the second where there is no file.
    """
    return xxhash.xxh3_64_digest(repr(about).encode()) + (xxhash.xxh3_64_digest(state.encode()) if state else bytes(8))


@dataclass(frozen=True)
class FieldSpec:
    """One field of the store to be.

    References to its payloads are columns like others: a source reads them as a channel of words, the holders, and, if
    `position` is given, one of numbers, behind all other channels of a :class:`TableSpec`. So blocks, spills, sorting
    and appends know nothing of fields.

    Parameters
    ----------
    name
        Its name in the store.
    reader
        Reads its payloads.
    holder
        Column of texts that name what holds the payload of a row; where it is missing, the row has none.
    position
        Column of the payload's number in there, a whole number; None where each holder has one payload.
    dimensions
        Names of its dimensions beside the row, such as ``("y", "x", "colour")``; None to number them.
    units
        Units to record, if any.
    encoded
        Whether values are the bytes of encoded images, whose length differs from row to row.
    named
        Whether a column names files that the ledger of sources does not know, so that the store is to know them.
    """

    name: str
    reader: PayloadReader
    holder: str
    position: str | None = None
    dimensions: tuple[str, ...] | None = None
    units: str | None = None
    encoded: bool = False
    named: bool = False
