"""The receipt of an ingest: every row accounted for, every channel's type, packing and size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
    n_missing
        Missing values.
    n_bytes
        Bytes on disk.
    ratio
        Bytes as float32 (or float64) over bytes on disk.
    """

    name: str
    stored: str
    decimals: int | None
    n_missing: int
    n_bytes: int
    ratio: float


@dataclass(frozen=True)
class Receipt:
    """What an ingest did. ``n_rows_in == n_stored + n_quarantined + n_duplicates``, always.

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
    """

    store: str
    version: int
    sources: dict[str, int]
    n_rows_in: int
    n_stored: int
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

    def to_json(self) -> dict[str, Any]:
        """The receipt as a document."""
        return asdict(self)
