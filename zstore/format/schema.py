"""What a store holds: its channels, its time axis, and the document about them in the root attributes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zstore.errors import StoreError
from zstore.format.encodings import Encoding, Kind, restored
from zstore.format.encodings.arrays import Dense
from zstore.format.layout import BYTES_CODEC, FORMAT_VERSION, FORMATS, RowGrid
from zstore.format.rule_text import UNITS_PER_SECOND
from zstore.format.timesteps import IRREGULAR, TimeStepRule

_MOMENT = re.compile(
    r"(\d{4}(?:-\d\d(?:-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d)?)?)?)?)?)(?:(?<=:\d\d:\d\d)\.(\d+))?"
    r"(Z|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_LATEST = int(np.iinfo(np.int64).max)
_CF_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Field:
    """One variable over the rows of a store; of shape ``()`` it is a channel, one column of the source.

    Parameters
    ----------
    name
        The column's name, as the source has it.
    variable
        Its variable in the store; equal to `name` where that is a safe name.
    encoding
        How it lies on disk.
    dtype
        Its float dtype when read, ``float32`` or ``float64``; of other shapes, the dtype of the source.
    units
        Its units, if they are known.
    codec
        Name of its codec.
    shape, dimensions
        Lengths and names of its dimensions beside the row.
    grid
        How its rows are cut; None for the grid of all channels.
    n_bytes
        Of values whose length differs from row to row, such as encoded images, the length of the array that has their
        bytes one behind the other; else None.
    origins
        Whether the store has what tells the file of each row, and whether that has changed since.
    """

    name: str
    variable: str
    encoding: Encoding
    dtype: str = "float32"
    units: str | None = None
    codec: str = ""
    shape: tuple[int, ...] = ()
    dimensions: tuple[str, ...] = ()
    grid: RowGrid | None = None
    n_bytes: int | None = None
    origins: bool = False

    @property
    def kind(self) -> Kind:
        """``number`` or ``category``; ``array`` for other shapes than ``()``."""
        return self.encoding.kind

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, as it is stored, before it is compressed."""
        return math.prod(self.shape) * np.dtype(self.encoding.dtype).itemsize

    @property
    def categories(self) -> tuple[str, ...]:
        """What the codes of a category mean; empty for numbers."""
        return self.encoding.words

    def to_json(self) -> dict[str, Any]:
        """Its document in the root."""
        known = {
            "name": self.name,
            "variable": self.variable,
            "stored": self.encoding.dtype,
            "decimals": self.encoding.decimals,
            "dtype": self.dtype,
            "units": self.units,
            "codec": self.codec,
            "categories": list(self.categories) if self.kind == "category" else None,
        }
        origins = {"origins": True} if self.origins else {}
        if self.n_bytes is not None:
            return {**{key: known[key] for key in ("name", "variable", "units")}, "n_bytes": self.n_bytes, **origins}
        if self.grid is None:
            return known
        of_array = {"shape": list(self.shape), "dimensions": list(self.dimensions), **asdict(self.grid), **origins}
        return {**{key: known[key] for key in ("name", "variable", "stored", "dtype", "units", "codec")}, **of_array}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Field:
        """Read :meth:`to_json` back. Raises `KeyError` or `TypeError` if it is none."""
        if "n_bytes" in document:
            names = (document["name"], document["variable"], document["units"])
            return cls.of_bytes(*names, document["n_bytes"], "origins" in document)
        own = (document["name"], document["variable"], restored(document), document["dtype"], document["units"])
        if "shape" not in document:
            return cls(*own, document["codec"])
        grid = RowGrid(document["chunk_rows"], document["shard_rows"])
        axes = (tuple(document["shape"]), tuple(document["dimensions"]))
        return cls(*own, document["codec"], *axes, grid, origins="origins" in document)

    @classmethod
    def of_bytes(cls, name: str, variable: str, units: str | None, n_bytes: int, origins: bool = False) -> Field:
        """A field of values that are bytes, as many as it takes."""
        return cls(name, variable, Dense("uint8", "uint8"), "uint8", units, BYTES_CODEC, (), (), None, n_bytes, origins)

    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable."""
        units = {} if self.units is None else {"units": self.units}
        return {"long_name": self.name, **units, **self.encoding.attributes()}


@dataclass(frozen=True)
class TimeAxis:
    """How times are written as int64.

    Parameters
    ----------
    unit
        ``s``, ``ms``, ``us`` or ``ns`` since 1970-01-01 for calendar times; None for plain steps.
    rule
        How far it is from one row of a series to the next.
    zone
        ``UTC`` where the source wrote offsets from it; None where it wrote no zone.
    """

    unit: str | None
    rule: TimeStepRule = IRREGULAR
    zone: str | None = None

    @property
    def freq(self) -> int | None:
        """The step in `unit` where all steps are that long; None where they differ, as months do."""
        return self.rule.count if self.rule.kind == "fixed" else None

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
        """The rule as a person writes it, such as ``1d``, ``15min``, ``MS``, ``rows`` or ``irregular``."""
        return str(self.rule)

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

    def parse_freq(self, text: str) -> TimeStepRule:
        """A person's rule for this axis, such as ``1D``, ``15min``, ``MS`` or ``1``.

        Raises
        ------
        ValueError
            If `text` is no rule, or not a whole number of units; see :meth:`TimeStepRule.parse`.
        """
        return TimeStepRule.parse(text, self.unit)

    def to_json(self, form: int) -> dict[str, Any]:
        """The document kept in the root, of a format version."""
        steps = {"freq": self.freq} if form == 1 else {"rule": self.rule.to_json()}
        return {"unit": self.unit, **steps, "zone": self.zone}

    @classmethod
    def from_json(cls, document: dict[str, Any], form: int) -> TimeAxis:
        """Read :meth:`to_json` back.

        Raises
        ------
        ValueError
            If it is none.
        """
        unit, zone = document["unit"], document["zone"]
        if unit is not None and unit not in UNITS_PER_SECOND:
            raise ValueError(f"time unit {unit!r}")
        if form > 1:
            return cls(unit, TimeStepRule.from_json(document["rule"], unit), zone)
        freq = document["freq"]
        if freq is not None and (type(freq) is not int or freq < 1):
            raise ValueError(f"time step {freq!r}")
        return cls(unit, TimeStepRule("irregular", unit) if freq is None else TimeStepRule.fixed(freq, unit), zone)


@dataclass(frozen=True)
class Schema:
    """The shape of one version of a store, as far as it does not grow with the rows.

    `n_rows` counts the rows of all series, `n_places` the length of the arrays' dimension `row`, which has places
    without a row once something was appended. `form` is the version of the format: appends keep that of the store.
    `channels` are scalar, `fields` have further dimensions.
    """

    uuid: str
    version: int
    n_rows: int
    n_places: int
    n_series: int
    chunk_rows: int
    shard_rows: int
    channels: tuple[Field, ...]
    time: TimeAxis
    id_name: str
    committed: str
    form: int = FORMAT_VERSION
    fields: tuple[Field, ...] = ()

    @property
    def grid(self) -> RowGrid:
        """How rows are cut into chunks and shards."""
        return RowGrid(self.chunk_rows, self.shard_rows)

    def to_json(self) -> dict[str, Any]:
        """The document kept in ``attributes["zstore"]`` of the root group."""
        return {
            "format": self.form,
            "uuid": self.uuid,
            "version": self.version,
            "committed": self.committed,
            "n_rows": self.n_rows,
            "n_places": self.n_places,
            "n_series": self.n_series,
            "chunk_rows": self.chunk_rows,
            "shard_rows": self.shard_rows,
            "id_name": self.id_name,
            "time": self.time.to_json(self.form),
            "channels": [channel.to_json() for channel in self.channels],
            **({"fields": [field.to_json() for field in self.fields]} if self.fields else {}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any], where: str) -> Schema:
        """Read :meth:`to_json` back.

        Raises
        ------
        StoreError
            If the document is of a format version that is not known, or not whole.
        """
        form = document.get("format")
        if form not in FORMATS:
            raise StoreError(
                f"store format {form!r}",
                expected=f"format {' or '.join(map(str, FORMATS))}",
                where=where,
                fix="install the zstore that wrote this store, or ingest again",
            )
        try:
            channels, fields = (
                tuple(Field.from_json(each) for each in document.get(key, ())) for key in ("channels", "fields")
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
            axis = TimeAxis.from_json(document["time"], form)
            return cls(channels=channels, fields=fields, time=axis, form=form, **kept)
        except (KeyError, TypeError) as error:
            raise StoreError(
                f"root document without {error}",
                expected=f"all of format {form}",
                where=where,
                fix="install the zstore that wrote this store, or ingest again",
            ) from error
        except ValueError as error:
            raise StoreError(
                f"root document with {error}",
                expected=f"a time axis of format {form}",
                where=where,
                fix="install the zstore that wrote this store, or ingest again",
            ) from error
