"""What a store holds: its channels, its time axis, and the document about them in the root attributes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from zstore.errors import StoreError
from zstore.format.layout import FORMAT_VERSION
from zstore.format.packing import Packing, flag_attributes

UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_MOMENT = re.compile(
    r"(\d{4}(?:-\d\d(?:-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d)?)?)?)?)?)(?:(?<=:\d\d:\d\d)\.(\d+))?"
    r"(Z|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_LATEST = int(np.iinfo(np.int64).max)
_CF_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Channel:
    """One column of the source, one variable on disk.

    Parameters
    ----------
    name
        The column's name, as the source has it.
    variable
        Its variable in the store; equal to `name` where that is a safe name.
    packing
        How it lies on disk.
    dtype
        Its float dtype when read, ``float32`` or ``float64``.
    units
        Its units, if they are known.
    categories
        What its codes mean, where it holds categories; None for numbers.
    codec
        Name of its codec.
    """

    name: str
    variable: str
    packing: Packing
    dtype: str = "float32"
    units: str | None = None
    categories: tuple[str, ...] | None = None
    codec: str = ""

    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable."""
        known: dict[str, Any] = {"long_name": self.name}
        if self.units is not None:
            known["units"] = self.units
        if self.categories is not None:
            return {**known, "_FillValue": int(self.packing.fill), **flag_attributes(self.categories)}
        return {**known, **self.packing.cf_attributes()}


@dataclass(frozen=True)
class TimeAxis:
    """How times are written as int64.

    Parameters
    ----------
    unit
        ``s``, ``ms``, ``us`` or ``ns`` since 1970-01-01 for calendar times; None for plain steps.
    freq
        Usual step between two rows of a series, in `unit`; None where there is none.
    zone
        ``UTC`` where the source wrote offsets from it; None where it wrote no zone.
    """

    unit: str | None
    freq: int | None = None
    zone: str | None = None

    def attributes(self) -> dict[str, Any]:
        """CF attributes of the time variable."""
        if self.unit is None:
            return {"long_name": "time step", "axis": "T"}
        known = {
            "standard_name": "time",
            "axis": "T",
            "units": f"{_CF_UNITS[self.unit]} since 1970-01-01",
            "calendar": "proleptic_gregorian",
        }
        return known if self.zone is None else {**known, "time_zone": self.zone}

    def show(self, time: int) -> str:
        """One time as a person writes it: a date, a date and time, or the step number."""
        if self.unit is None:
            return str(time)
        text = str(np.array(time, f"datetime64[{self.unit}]")).replace("T", " ")
        return text.removesuffix(" 00:00:00")

    def show_freq(self) -> str:
        """The usual step as a person writes it, such as ``1d``, ``15min`` or ``irregular``."""
        if self.freq is None:
            return "irregular"
        if self.unit is None:
            return f"{self.freq} steps" if self.freq != 1 else "1 step"
        per_second = UNITS_PER_SECOND[self.unit]
        for name, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
            if self.freq % (seconds * per_second) == 0:
                return f"{self.freq // (seconds * per_second)}{name}"
        return f"{self.freq}{self.unit}"

    def parse(self, text: str | int) -> int:
        """A person's time (an ISO date, date and time, or step number) as int64.

        Parameters
        ----------
        text
            Such as ``2001``, ``2001-02``, ``2001-02-03`` or ``2001-02-03 04:05:06.7``; with ``Z`` or ``+01:00`` behind
            a clock if times of the axis carry offsets from UTC, which it has where it says none.

        Raises
        ------
        ValueError
            If `text` is not such a time, or finer than the axis.
        """
        written = str(text).strip()
        if self.unit is None:
            if re.fullmatch(r"[+-]?\d+", written, re.ASCII) is None:
                raise ValueError(text)
            return int(written)
        match = _MOMENT.fullmatch(written)
        if match is None:
            raise ValueError(text)
        clock, fraction, zone, sign, hours, minutes = match.groups("")
        fraction, n_digits = fraction.rstrip("0"), len(str(UNITS_PER_SECOND[self.unit])) - 1
        if len(fraction) > n_digits or (zone and (self.zone is None or ":" not in clock)):
            raise ValueError(text)
        seconds = int(np.array(clock.replace(" ", "T"), "datetime64[s]").astype(np.int64))
        seconds -= int(f"{sign}1") * (int(hours) * 3600 + int(minutes) * 60) if hours else 0
        moment = seconds * UNITS_PER_SECOND[self.unit] + int(fraction.ljust(n_digits, "0") or 0)
        return min(max(moment, -_LATEST), _LATEST)

    def parse_freq(self, text: str) -> int:
        """A person's step, such as ``1D``, ``15min``, ``3600s`` or ``1``, in this axis' units.

        Raises
        ------
        ValueError
            If `text` is not such a step, or not a whole number of units.
        """
        seconds = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
        digits = len(text) - len(text.lstrip("0123456789"))
        count, name = int(text[:digits] or 1), text[digits:].strip().lower()
        if self.unit is None and not name:
            step = count
        elif self.unit is not None and name in seconds:
            step = count * seconds[name] * UNITS_PER_SECOND[self.unit]
        else:
            raise ValueError(text)
        if step < 1:
            raise ValueError(text)
        return step


@dataclass(frozen=True)
class Schema:
    """The shape of one version of a store, as far as it does not grow with the rows.

    `n_rows` counts the rows of all series, `n_places` the length of the arrays' dimension `row`, which has places
    without a row once something was appended.
    """

    uuid: str
    version: int
    n_rows: int
    n_places: int
    n_series: int
    chunk_rows: int
    shard_rows: int
    channels: tuple[Channel, ...]
    time: TimeAxis
    id_name: str
    committed: str

    def to_json(self) -> dict[str, Any]:
        """The document kept in ``attributes["zstore"]`` of the root group."""
        return {
            "format": FORMAT_VERSION,
            "uuid": self.uuid,
            "version": self.version,
            "committed": self.committed,
            "n_rows": self.n_rows,
            "n_places": self.n_places,
            "n_series": self.n_series,
            "chunk_rows": self.chunk_rows,
            "shard_rows": self.shard_rows,
            "id_name": self.id_name,
            "time": {"unit": self.time.unit, "freq": self.time.freq, "zone": self.time.zone},
            "channels": [
                {
                    "name": channel.name,
                    "variable": channel.variable,
                    "stored": channel.packing.dtype,
                    "decimals": channel.packing.decimals,
                    "dtype": channel.dtype,
                    "units": channel.units,
                    "codec": channel.codec,
                    "categories": None if channel.categories is None else list(channel.categories),
                }
                for channel in self.channels
            ],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any], where: str) -> Schema:
        """Read :meth:`to_json` back.

        Raises
        ------
        StoreError
            If the document is of another format version.
        """
        if document.get("format") != FORMAT_VERSION:
            raise StoreError(
                f"store format {document.get('format')!r}",
                expected=f"format {FORMAT_VERSION}",
                where=where,
                fix="install the zstore that wrote this store, or ingest again",
            )
        try:
            channels = tuple(
                Channel(
                    c["name"],
                    c["variable"],
                    Packing(c["stored"], c["decimals"]),
                    c["dtype"],
                    c["units"],
                    None if c["categories"] is None else tuple(c["categories"]),
                    c["codec"],
                )
                for c in document["channels"]
            )
            keys = (
                "uuid",
                "version",
                "n_rows",
                "n_places",
                "n_series",
                "chunk_rows",
                "shard_rows",
                "id_name",
                "committed",
            )
            kept = {key: document[key] for key in keys}
            return cls(channels=channels, time=TimeAxis(**document["time"]), **kept)
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"root document without {error}",
                expected=f"all of format {FORMAT_VERSION}",
                where=where,
                fix="install the zstore that wrote this store, or ingest again",
            ) from error
