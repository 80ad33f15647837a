"""Payloads of the sources against those of a store, by their digests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.format.rowarrays import DIGEST_BYTES
from zstore.format.schema import Field
from zstore.reading.store import Store
from zstore.writing.references import references
from zstore.writing.referred import each_at
from zstore.writing.sources.channels import Categories, NumberValues
from zstore.writing.sources.payloads import FieldSpec, Payload, PayloadError
from zstore.writing.sources.table import ChannelSpec, Columns, TableSpec

_DIGEST_ROWS = 1 << 20


def reference_channels(fields: Sequence[FieldSpec]) -> tuple[ChannelSpec, ...]:
    """Columns that say where payloads of fields lie, in the order in which blocks have them behind all others."""
    return tuple(
        ChannelSpec(name, name, text=name == field.holder, reference=True)
        for field in fields
        for name in (field.holder, field.position)
        if name is not None
    )


@dataclass(frozen=True)
class StoredDigests:
    """The digests of the payloads of a store, on disk.

    Parameters
    ----------
    fields
        By name, (row, 16).
    kinds
        What the fields are.
    """

    fields: Mapping[str, NDArray[np.uint8]]
    kinds: Mapping[str, Field]

    @classmethod
    def of(cls, store: Store, scratch: Path) -> StoredDigests:
        """Those of all rows; 16 bytes a row and field."""
        found: dict[str, NDArray[np.uint8]] = {}
        for number, field in enumerate(store.schema.fields):
            shape = max(store.n_rows, 1), DIGEST_BYTES
            digests = np.memmap(scratch / f"{number}.digests", np.uint8, "w+", shape=shape)
            for start in range(0, store.n_rows, _DIGEST_ROWS):
                stop = min(start + _DIGEST_ROWS, store.n_rows)
                digests[start:stop] = store.payload_digests(field.name, start, stop)
            found[field.name] = digests
        return cls(found, {field.name: field for field in store.schema.fields})

    def differ(
        self, columns: Columns, spec: TableSpec, place: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Read the payloads of the rows of a block again.

        Parameters
        ----------
        columns, spec
            The rows, and what their columns mean.
        place
            (row,) rows of the store that they are; -1 for none.

        Returns
        -------
        (row,) whether a payload is another one than in the store; (row,) whether one cannot be stored, as it cannot be
        read, or is not like those of its field.

        Notes
        -----
        Cost: every payload is read whole, and decoded as in an ingest. Memory: one of them.
        """
        wrong, bad = np.zeros((2, columns.n_rows), np.bool_)
        values = references(columns, spec)
        for field in spec.fields:
            holders, positions = next(values), next(values)
            assert isinstance(positions, NumberValues)
            digests, kind = self.fields[field.name], self.kinds[field.name]
            found = np.zeros((columns.n_rows, DIGEST_BYTES), np.uint8)
            for row, payload in _read(field, holders, positions.values):
                bad[row] |= isinstance(payload, PayloadError) or not _fits(payload, kind)
                if isinstance(payload, Payload):
                    found[row] = np.frombuffer(payload.digest, np.uint8)
            wrong |= np.any(found != digests[np.maximum(place, 0)], axis=1)
        return wrong, bad


def _fits(payload: Payload, field: Field) -> bool:
    """Whether a payload is as all of its field are."""
    if field.n_bytes is not None:
        return True
    return payload.value.shape == field.shape and str(payload.value.dtype) == field.dtype


def _read(
    field: FieldSpec, holders: Any, positions: NDArray[np.float64]
) -> Iterator[tuple[int, Payload | PayloadError]]:
    """Rows of a block that have a payload, and it, or what is wrong with it. One holder after the other."""
    if not isinstance(holders, Categories):  # all of them missing
        return
    rows = np.flatnonzero(holders.codes >= 0)
    rows = rows[np.lexsort((positions[rows], holders.codes[rows]))]
    words = pa.array(holders.words).to_pylist()
    cuts = np.flatnonzero(np.diff(holders.codes[rows])) + 1
    for own in np.split(rows, cuts) if len(rows) else []:
        read = partial(field.reader.read, words[int(holders.codes[own[0]])])
        yield from zip(own.tolist(), each_at(read, positions[own].astype(np.int64).tolist()), strict=True)
