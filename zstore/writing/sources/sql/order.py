"""Rows that come in the order of a column: cut so that a later run goes on from there.

Nothing is believed: rows that were read count only if the database, in the same state, has as many below the cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zstore.writing.sources.sql.parts import has_order, writable
from zstore.writing.sources.sql.query import Bound, Query

_ORDER_BY = re.compile(r'\border\s+by\s+(?:\w+\.)?("(?:[^"]|"")+"|\w+)(?:\s+asc)?\s*(?:,[^()]*)?$', re.IGNORECASE)
_SEGMENT_BYTES = 1 << 26
_SHARE = 8  # of all bytes before, that a segment has at least: there are never many


class Order:
    """Cuts the rows of a query into segments, as long as they come in the order of its watermark or `ORDER BY`.

    Parameters
    ----------
    query
        The query.
    text_order
        Whether the database compares texts by their bytes.
    n_segments
        Segments that an earlier run has read.
    """

    def __init__(self, query: Query, text_order: bool, n_segments: int = 0) -> None:
        self._column, self._text_order = _column(query), text_order
        self._greatest: Any = None
        self._n_bytes = self._n_before = 0
        self.segment = n_segments
        self.borders: dict[int, Bound] = {}
        """The least value behind each segment that was cut off."""

    def segments(self, batches: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """Batches, some of them cut in two, each with the number of its segment."""
        for batch in batches:
            column = self._ordered(batch)
            if column is not None:
                self._n_bytes += batch.nbytes
                first = pc.index(column, column[-1]).as_py()
                if first and self._n_bytes >= max(_SEGMENT_BYTES, self._n_before // _SHARE) and _writable(column[-1]):
                    yield self.segment, batch.slice(0, first)
                    self.borders[self.segment] = self._border(column[-1])
                    self.segment += 1
                    self._n_before, self._n_bytes = self._n_before + self._n_bytes, 0
                    batch = batch.slice(first)
            yield self.segment, batch

    def _ordered(self, batch: Any) -> Any:
        """The column of the order; None where the batch has no row, or not all rows so far have that order."""
        if self._column is None or batch is None or not batch.num_rows:
            return None
        column = batch.column(self._column) if batch.schema.names.count(self._column) == 1 else None
        if column is not None and has_order(column.type, self._text_order) and not column.null_count:
            first, last = column[0], column[-1]
            fits = self._greatest is None or (
                self._greatest.type == first.type and pc.less_equal(self._greatest, first).as_py()
            )
            if fits and pc.all(pc.less_equal(column[:-1], column[1:]), min_count=0).as_py():
                self._greatest = last
                return column
        self._column = None
        return None

    def _border(self, value: Any) -> Bound:
        known = value.value if pa.types.is_temporal(value.type) else value.as_py()
        return Bound(str(self._column), str(value.type), known, 0)


def _column(query: Query) -> str | None:
    """The column by whose order a query may give its rows; one that is asked in parts goes on part by part."""
    if query.partition is not None:
        return None
    if query.watermark is not None:
        return query.watermark
    match = _ORDER_BY.search(query.sql)
    return None if match is None else match[1].removeprefix('"').removesuffix('"').replace('""', '"')


def _writable(value: Any) -> bool:
    """Whether SQL can write a value."""
    if not pa.types.is_temporal(value.type):
        return True
    first, last = writable(value.type)
    return bool(first <= value.value <= last)
