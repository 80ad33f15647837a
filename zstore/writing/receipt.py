"""The receipt of an ingest: every row accounted for, every channel's type, packing and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np

from zstore.format.rowarrays import array_names, byte_names, origin_name
from zstore.format.schema import Field, Schema
from zstore.writing.parse import Parsed
from zstore.writing.pipeline import Written
from zstore.writing.plan import Planned


@dataclass(frozen=True)
class ChannelReceipt:
    """How one channel came out.

    Parameters
    ----------
    name
        The column.
    stored
        Dtype on disk.
    decimals
        Decimals kept by an integer dtype; None for floats.
    codec
        Name of its codec.
    trial
        Bytes of a sample with each codec tried, where the codec was chosen by trial.
    n_categories
        Categories of a column of text; None for numbers.
    n_missing
        Missing values.
    n_inexact
        Values read with more digits than a float32 keeps.
    n_bytes
        Bytes on disk.
    ratio
        Bytes as float32 (or float64) over bytes on disk.
    """

    name: str
    stored: str
    decimals: int | None
    codec: str
    trial: dict[str, int]
    n_categories: int | None
    n_missing: int
    n_inexact: int
    n_bytes: int
    ratio: float


@dataclass(frozen=True)
class FieldReceipt:
    """How one field came out.

    Parameters
    ----------
    name
        Its name.
    stored, shape
        Dtype on disk, and lengths of its dimensions beside the row; none of bytes that are kept as they are.
    codec, trial
        As of a channel.
    n_bytes
        Bytes on disk.
    ratio
        Bytes in the dtype of the source over bytes on disk; None of bytes that are kept as they are.
    """

    name: str
    stored: str
    shape: tuple[int, ...]
    codec: str
    trial: dict[str, int]
    n_bytes: int
    ratio: float | None


@dataclass(frozen=True)
class Receipt:
    """What an ingest did. ``n_rows_in == n_stored + n_quarantined + n_duplicates + n_known``, always.

    Parameters
    ----------
    store
        Where.
    version
        The version committed.
    sources
        File name to bytes.
    n_rows_in, n_stored, n_quarantined, n_duplicates
        Rows read, stored, set aside as bad, dropped as duplicates.
    n_filled
        Rows of missing values added in gaps; the store has ``n_stored + n_filled``.
    quarantine
        The file of rows set aside, if any.
    n_series, n_runs
        Series, and stretches without a gap.
    time_start, time_stop
        First and last time, as a person writes them.
    freq
        Usual step between rows.
    channels
        Per channel.
    n_bytes
        Bytes of all objects.
    seconds
        Wall time of each phase.
    notes
        What else should be known.
    fields
        Per field; none where rows have channels alone.
    n_known
        Rows read that the store has already, as they are.
    """

    store: str
    version: int
    sources: dict[str, int]
    n_rows_in: int
    n_stored: int
    n_filled: int
    n_quarantined: int
    n_duplicates: int
    quarantine: str | None
    n_series: int
    n_runs: int
    time_start: str | None
    time_stop: str | None
    freq: str
    channels: tuple[ChannelReceipt, ...]
    n_bytes: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = field(default=())
    fields: tuple[FieldReceipt, ...] = ()
    n_known: int = 0

    def to_json(self) -> dict[str, Any]:
        """The receipt as a document."""
        known = asdict(self)
        return {key: value for key, value in known.items() if value or key not in ("fields", "n_known")}

    def lasting(self) -> dict[str, Any]:
        """What of it is kept in the store: not where that lies, nor how long it took."""
        return {key: value for key, value in self.to_json().items() if key not in ("store", "seconds")}


@dataclass(frozen=True)
class RowCounts:
    """Rows added; rows read and not stored, and the file of those set aside; per channel, values rounded.

    Of rows that were not stored, those that the store has already as they are.
    """

    n_filled: int
    n_quarantined: int
    n_duplicates: int
    quarantine: str | None
    n_inexact: tuple[int, ...]
    n_known: int = 0


def row_counts(
    planned: Planned,
    parsed: Parsed,
    written: Written,
    n_filled: int,
    n_duplicates: int,
    quarantine: str | None,
    n_known: int = 0,
) -> RowCounts:
    """Rows that were not stored as they were read, beside those that were.

    Parameters
    ----------
    planned, parsed, written
        The rows.
    n_filled, n_duplicates
        Rows added in gaps, and dropped.
    quarantine
        The file of bad rows, if any. In a wide table each stands for a row of every series.
    n_known
        Rows that the store has already.
    """
    n_quarantined = sum(row.n_rows for row in parsed.bad) * max(len(planned.spec.series), 1)
    n_inexact = parsed.n_inexact(len(written.rows.channels))
    return RowCounts(n_filled, n_quarantined, n_duplicates, quarantine, n_inexact, n_known)


def write_receipt(
    store: str,
    sources: dict[str, int],
    schema: Schema,
    written: Written,
    counts: RowCounts,
    notes: Sequence[str],
) -> Receipt:
    """Add up what happened.

    Parameters
    ----------
    store
        Where.
    sources
        File name to bytes.
    schema
        What the receipt is of: all rows of an ingest, or those that an append added.
    written
        The rows, as they were written.
    counts
        Rows that were not, and values that were rounded.
    notes
        What else should be known.
    """
    summary, trials = written.summary, written.trials
    sizes: dict[str, int] = {}
    for record in written.records:
        variable = record.key.partition("/")[0]
        sizes[variable] = sizes.get(variable, 0) + record.n_bytes
    channels = []
    for position, channel in enumerate(schema.channels):
        n_bytes = sizes.get(channel.variable, 0)
        raw = schema.n_rows * np.dtype(channel.dtype).itemsize
        n_missing = int(summary.moments.n_missing[:, position].sum())
        ratio = round(raw / n_bytes, 2) if n_bytes else 1.0
        channels.append(
            ChannelReceipt(
                name=channel.name,
                stored=channel.encoding.dtype,
                decimals=channel.encoding.decimals,
                codec=channel.codec,
                trial=trials.get(channel.name, {}),
                n_categories=len(channel.categories) if channel.kind == "category" else None,
                n_missing=n_missing,
                n_inexact=counts.n_inexact[position],
                n_bytes=n_bytes,
                ratio=ratio,
            )
        )
    has_rows = schema.n_rows > 0
    return Receipt(
        store=store,
        version=schema.version,
        sources=sources,
        n_rows_in=schema.n_rows - counts.n_filled + counts.n_quarantined + counts.n_duplicates + counts.n_known,
        n_stored=schema.n_rows - counts.n_filled,
        n_filled=counts.n_filled,
        n_quarantined=counts.n_quarantined,
        n_duplicates=counts.n_duplicates,
        quarantine=counts.quarantine,
        n_series=schema.n_series,
        n_runs=len(summary.runs.start),
        time_start=schema.time.show(int(summary.time_start.min())) if has_rows else None,
        time_stop=schema.time.show(int(summary.time_stop.max())) if has_rows else None,
        freq=schema.time.show_freq(),
        channels=tuple(channels),
        n_bytes=sum(sizes.values()),
        seconds={},
        notes=tuple(notes),
        n_known=counts.n_known,
        fields=tuple(_field(each, sizes, schema.n_rows, trials) for each in written.fields),
    )


def _field(made: Field, sizes: dict[str, int], n_rows: int, trials: dict[str, dict[str, int]]) -> FieldReceipt:
    """How a field came out, of what was written under each variable."""
    names = array_names(made.variable) if made.n_bytes is None else byte_names(made.variable)
    n_bytes = sum(sizes.get(name, 0) for name in (*names, origin_name(made.variable)))
    raw = n_rows * prod(made.shape) * np.dtype(made.dtype).itemsize
    ratio = round(raw / n_bytes, 2) if made.n_bytes is None and n_bytes else None
    trial = trials.get(made.name, {})
    return FieldReceipt(made.name, made.encoding.dtype, made.shape, made.codec, trial, n_bytes, ratio)
