"""Values that are known in advance, from a table beside the store: forecasts of weather, holidays, prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.columns.meaning import UNITS_PER_SECOND, codes_of
from lightning_app.data.layout import Layout
from lightning_app.data.stores import names_files, open_or_ingest
from zstore import Store, UsageError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_OF_TABLE = ("id", "time", "time_format", "time_unit", "delimiter", "decimal", "encoding")


@dataclass(frozen=True)
class KnownValues:
    """Rows of another table, by the ids and times of the store that is forecast.

    Parameters
    ----------
    store
        Of the table.
    layout
        Of the store that is forecast.
    """

    store: Store
    layout: Layout

    @classmethod
    def open(cls, source: str, layout: Layout) -> KnownValues:
        """Those of files of rows, which are ingested into the cache once, or of a store.

        Text without offsets is read as of the clocks that the store was ingested with (`--timezone`), if it was.

        Raises
        ------
        UsageError
            If it has none of the channels that a model reads, or other kinds of times.
        SourceError, StoreError
            If it cannot be read.
        """
        options = layout.options
        asked, clocks = _as_source(source, layout), _record(layout.store).get("timezone")
        if asked is not None and clocks is not None:
            # Looked at first: it may have offsets. An hour that clocks show twice is judged when it is read.
            once = {**asked, "on_duplicate": "first"}
            seen = open_or_ingest(source, once, options.cache, options.storage_options)
            is_local = seen.schema.time.unit is not None and seen.schema.time.zone is None
            asked |= {"timezone": clocks} if is_local and _is_text(seen) else {}
        found = cls(open_or_ingest(source, asked, options.cache, options.storage_options), layout)
        _ = found.channels, found._factor  # refused here and now
        return found

    @cached_property
    def channels(self) -> list[str]:
        """Those that a model reads of rows to come; of other columns nothing is taken, such as targets.

        Raises
        ------
        UsageError
            If it has none, or words for numbers or the other way round.
        """
        layout = self.layout
        wanted = [name for name in _read(layout) if name in self.store.channels]
        for name in wanted:
            kind, own = layout.store.channel(name).kind, self.store.channel(name).kind
            if kind != own:
                words = {"category": "words"}
                raise UsageError(
                    f"--data.future_values with {words.get(own, 'numbers')} in {name!r}",
                    expected=f"{words.get(kind, 'numbers')}, as the store has",
                    where=self.store.path,
                    fix="correct the column",
                )
        if not wanted and self.layout.store.time.rule.regular:
            raise UsageError(
                f"--data.future_values without a channel that the model reads ({', '.join(self.store.channels)})",
                expected=f"some of {', '.join(self.layout.future or self.layout.inputs)}",
                where=self.store.path,
                fix="correct its header",
            )
        return wanted

    @cached_property
    def _factor(self) -> tuple[int, int]:
        """What a time of the table is multiplied by, and divided by, to be one of the store."""
        own, other = self.store.schema.time, self.layout.store.schema.time
        example = other.show(int(self.layout.view.runs.time.max(initial=0)))
        if (own.unit is None) != (other.unit is None):
            raise UsageError(
                f"--data.future_values whose times are {'whole numbers' if own.unit is None else 'dates'}",
                expected=f"such as {example}, as the store has them",
                where=self.store.path,
                fix="correct its times",
            )
        if own.zone is not None and other.zone is None:
            raise UsageError(
                "--data.future_values whose times have offsets from UTC",
                expected=f"times without, such as {example}, as the store has them",
                where=self.store.path,
                fix="write its times as the clocks of the store show them",
            )
        if own.zone is None and other.zone is not None:
            clocks = _record(self.layout.store).get("timezone")
            raise UsageError(
                "--data.future_values whose times have no zone",
                expected=f"times in UTC or with an offset, such as {example}Z: the store is in UTC",
                where=self.store.path,
                fix="write its times with their zone" + (f", or as CSV of the clocks of {clocks}" if clocks else ""),
            )
        if own.unit is None or other.unit is None:
            return 1, 1
        return UNITS_PER_SECOND[other.unit], UNITS_PER_SECOND[own.unit]

    def times(self, id_: str, after: int) -> Int64:
        """Times of a series that are later than one, in units of the store that is forecast, ascending."""
        times = self._times(id_)[1]
        return times[times > after]

    def rows(self, id_: str, times: Int64) -> Int64:
        """(time,) the row of the table for each of some times of a series; -1 where it has none."""
        start, own = self._times(id_)
        place = np.searchsorted(own, times)
        there = place < len(own)
        there[there] = own[place[there]] == times[there]
        return np.where(there, start + place, -1)

    def values(self, rows: Int64) -> Float64:
        """(row, channel) values of :attr:`channels` in some rows, NaN where missing; codes as the model has them."""
        found = np.full((len(rows), len(self.channels)), np.nan)
        if not len(rows):
            return found
        low, high = int(rows.min()), int(rows.max()) + 1
        for position, name in enumerate(self.channels):
            values = self.store.read(name, low, high)[rows - low].astype(np.float64)
            codes = self._codes.get(name)
            if codes is not None:
                seen = ~np.isnan(values)
                values[seen] = codes[values[seen].astype(np.int64)]
            found[:, position] = values
        return found

    @cached_property
    def _codes(self) -> Mapping[str, Int64]:
        """By channel of words, what a model has for each code of the table.

        Raises
        ------
        UsageError
            If it has a word that the store or the checkpoint has not.
        """
        codes = {}
        for name in self.channels:
            known = self.layout.store.channel(name)
            if known.kind != "category":
                continue
            recorded = self.layout.recorded
            words = known.categories if recorded is None else recorded.words[name]
            codes[name] = codes_of(self.store.channel(name).categories, words)
            strange = [word for word in self.store.channel(name).categories if word not in words]
            if strange and self.layout.rule == "refuse":
                raise UsageError(
                    f"--data.future_values with {name} {strange[0]!r}",
                    expected="words that the model was trained with",
                    where=self.store.path,
                    fix="correct it",
                )
        return codes

    @property
    def _nameless(self) -> bool:
        """Whether both have one series, and one of them no ids to tell it by."""
        both = self.store, self.layout.store
        return all(store.n_series == 1 for store in both) and not all(store.schema.id_name for store in both)

    def _times(self, id_: str) -> tuple[int, Int64]:
        """First row of a series, and its times; no times where there is no such series."""
        edges = self.store.index.row_start
        if not self._nameless and id_ not in self.store:
            return 0, np.zeros(0, np.int64)
        place = 0 if self._nameless else self.store.position(id_)
        start, stop = int(edges[place]), int(edges[place + 1])
        up, down = self._factor
        times = self.store.times(start, stop)
        if up >= down:
            return start, times * (up // down)
        whole, rest = np.divmod(times, down // up)
        if rest.any():
            first = self.store.schema.time.show(int(times[np.flatnonzero(rest)[0]]))
            raise UsageError(
                f"--data.future_values with {id_} at {first}, finer than the times of the store",
                expected=f"whole {self.layout.store.schema.time.unit}",
                where=self.store.path,
                fix="correct its times",
            )
        return start, whole


def _read(layout: Layout) -> list[str]:
    """Channels that a model reads of rows to come."""
    read = {*layout.future, *(layout.seen if layout.window.delay < 0 else ())}
    return [name for name in layout.columns if name in read]


def _record(store: Store) -> Mapping[str, Any]:
    """How the sources of a store were read."""
    record: Mapping[str, Any] = store.objects.document["table"]
    return record


def _is_text(store: Store) -> bool:
    return "source" not in _record(store)


def _as_source(source: str, layout: Layout) -> dict[str, Any] | None:
    """How files are read: by the names of columns that those of the store had; None for a store.

    Of columns that no model reads ahead, such as targets, nothing is said: files need not have them.
    """
    if not names_files(source):
        return None
    table = _record(layout.store)
    read, names = _read(layout), table.get("rename") or {}
    own = {column: name for column, name in names.items() if name in read}
    columns = {*own, *(name for name in read if name not in own.values())}
    texts = table.get("missing") or ()
    found = {name: table.get(name) for name in _OF_TABLE} | {
        "rename": own,
        "categories": [column for column in table.get("categories") or () if column in columns],
        "missing": [text for text in texts if "=" not in text or text.partition("=")[0] in columns],
    }
    return {name: value for name, value in found.items() if value not in (None, [], {})} | {"freq": "rows"}
