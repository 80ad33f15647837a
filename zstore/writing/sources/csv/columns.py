"""CSV: plain records as typed columns: ids, times, and values of channels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import as_numpy, text_array
from zstore.writing.sources.cells import Missing
from zstore.writing.sources.channels import Categories, ChannelValues, NumberValues
from zstore.writing.sources.csv.calendar import laid_out
from zstore.writing.sources.csv.parse import count_blank, has_hexadecimal, may_have_blank, parse, with_times_as_words
from zstore.writing.sources.csv.table import CsvFile, CsvSpec
from zstore.writing.sources.csv.unroll import unrolled
from zstore.writing.sources.ids import SINGLE_ID, joined_ids
from zstore.writing.sources.numbers import (
    NumberColumn,
    count_lost,
    encoded,
    from_arrow,
    from_words,
    is_suspect,
    may_lose_digits,
    reach,
)
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.table import Columns

_MOST_HITS = 100


def typed_columns(content: bytes, source: CsvFile, spec: CsvSpec, judged: bool = False) -> Columns:
    """The columns of a block, if all of its rows are good.

    With `judged`, every record was judged before, and numbers are read as the judge reads them. Else a cell of which
    Arrow and the judge may think differently raises `RefusedError`.
    """
    table = parse(content, source.header, spec, (), judged, skip_blank=judged)
    n_blank = 0
    if not judged and may_have_blank(table, content):
        table = parse(content, source.header, spec, (), judged)
        n_blank = count_blank(content, source, table.num_rows)
    if spec.time.whole and not judged and has_hexadecimal(content):  # which Arrow takes for a number
        table = with_times_as_words(table, content, source.header, spec)
    times = _times(table, spec)
    numbers = _numbers(table, content, source, spec)
    seen = frozenset[str]().union(*(column.seen for column in numbers.values()))
    if not judged:
        seen |= _seen_texts(content, table, source, spec, seen)
    if spec.across:
        codes, ids = _ids(table, spec)
        return replace(
            unrolled(codes, ids, [numbers[n] for n in spec.series if n in numbers], spec, seen), n_blank=n_blank
        )
    if spec.offsets:
        codes, ids = _codes(table, source, spec, len(times))
        laid = laid_out(codes, ids, times, numbers, spec)
        return replace(laid, n_blank=n_blank, seen=seen)
    if spec.series:
        return replace(_melt(table, times, source, spec, numbers, seen), n_blank=n_blank)
    channels: list[ChannelValues] = []
    present = set(source.header)
    for channel in spec.channels:
        if channel.column not in present:  # a channel that other files add
            channels.append((Categories if channel.text else NumberValues).missing(len(times)))
        elif channel.text:
            column, named = _categories(table[channel.column], spec.missing.of_words(channel.column))
            channels.append(column)
            seen |= named
        else:
            numbered = numbers[channel.column]
            channels.append(
                NumberValues(numbered.values if numbered.sides is None or not channel.sides else numbered.sides)
            )
    lost = [numbers[c.column].n_lost if c.column in numbers and not c.sides else 0 for c in spec.channels]
    codes, ids = _codes(table, source, spec, len(times))
    return Columns(ids, codes, times, channels, (), len(times), n_blank, tuple(lost), seen)


def _codes(table: Any, source: CsvFile, spec: CsvSpec, n_rows: int) -> tuple[NDArray[np.int32], Any]:
    """As :func:`_ids`; all rows of a file without a column of ids have one."""
    if spec.id is not None:
        return _ids(table, spec)
    return np.zeros(n_rows, np.int32), text_array([source.id or SINGLE_ID] if n_rows else [])


def _ids(table: Any, spec: CsvSpec) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct ids that they stand for, sorted by their UTF-8 bytes."""
    parts = [_encoded(table[name]) for name in spec.id_names]
    if any(len(words) and words[0].as_py() == "" for _, words in parts):
        raise RefusedError("an id is empty")
    return parts[0] if len(parts) == 1 else joined_ids(parts)


def _times(table: Any, spec: CsvSpec) -> NDArray[np.int64]:
    times = spec.time.read(table, table.num_rows)
    for name, missing in spec.missing_times.items():
        if pa.types.is_dictionary(table[name].type):
            _, texts = encoded(table[name])
            if pc.any(pc.is_in(texts, value_set=text_array(sorted(missing)))).as_py():
                raise RefusedError("a time is missing")
    return times


def _numbers(table: Any, content: bytes, source: CsvFile, spec: CsvSpec) -> dict[str, NumberColumn]:
    """The columns of numbers that a file has, by name."""
    present = set(source.header)
    names = [name for name in spec.styles if name in present]
    parsed = {name: table[name] for name in names if pa.types.is_floating(table[name].type)}
    farthest = {name: reach(column) for name, column in parsed.items()}
    suspects = {name for name in parsed if is_suspect(farthest[name], spec.largest)}
    again = parse(content, source.header, spec, suspects, judged=False) if suspects else table
    numbers = {}
    for name in names:
        style, missing = spec.styles[name]
        if name in parsed and name not in suspects:
            numbers[name] = from_arrow(parsed[name], missing)
        else:
            words = (again if name in suspects else table)[name]  # columns that name what is missing are words here
            numbers[name] = from_words(words, style, missing, spec.largest, spec.dtype)
    clear = [name for name in parsed if name not in suspects]
    far = max((farthest[name] for name in clear), default=0.0)
    if clear and may_lose_digits(content, spec.decimal, [parsed[name] for name in clear], far, spec.dtype):
        again = parse(content, source.header, spec, clear, judged=False, once=False)
        for name in clear:
            lost = count_lost(again[name], numbers[name].values, spec.styles[name][0], spec.dtype)
            numbers[name] = replace(numbers[name], n_lost=lost)
    return numbers


def _seen_texts(content: bytes, table: Any, source: CsvFile, spec: CsvSpec, seen: frozenset[str]) -> frozenset[str]:
    """Which of the texts that the user named for every column, and Arrow has taken for missing, are in a block."""
    present = set(source.header)
    columns = {name for name in spec.styles if name in present and table[name].null_count}
    if not columns:
        return frozenset()
    sure = {
        text: _stands_in(content, text, columns, source.header, spec) for text in spec.tracked & spec.null_texts - seen
    }
    found = {text for text, stands in sure.items() if stands}
    wanted = [text for text, stands in sure.items() if stands is None]
    if wanted:
        again = parse(content, source.header, spec, columns, judged=False)
        words = [encoded(again[name])[1] for name in columns]
        found |= {w for some in words for w in some.filter(pc.is_in(some, value_set=text_array(wanted))).to_pylist()}
    return frozenset(found)


def _stands_in(
    content: bytes, text: str, columns: Collection[str], header: tuple[str, ...], spec: CsvSpec
) -> bool | None:
    """Whether a cell of some columns is a text; None where that would take long to say."""
    wanted, delimiter, position = text.encode(), spec.delimiter.encode(), -1
    for _ in range(_MOST_HITS):
        position = content.find(wanted, position + 1)
        if position < 0:
            return None if b'"' in content and wanted in content else False
        start, stop = content.rfind(b"\n", 0, position) + 1, position + len(wanted)
        whole = content[position - 1 : position] in (delimiter, b"\n", b"") and (
            content[stop : stop + 1] in (delimiter, b"\n", b"\r", b"")
        )
        if whole and content.find(b'"', start, position) < 0:
            place = content.count(delimiter, start, position)
            if place < len(header) and header[place] in columns:
                return True
    return None


def _encoded(column: Any) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct texts they stand for, sorted by their UTF-8 bytes."""
    codes, words = encoded(column)
    order = pc.sort_indices(words)
    rank = np.empty(len(order), np.int32)
    rank[as_numpy(order, "uint64")] = np.arange(len(order), dtype=np.int32)
    return rank[codes], words.take(order)


def _categories(column: Any, missing: Missing) -> tuple[Categories, frozenset[str]]:
    """A column of words, and what names those of it that are missing."""
    codes, words = _encoded(column)
    is_missing = pc.is_in(words, value_set=text_array(list(missing.texts)))
    absent = as_numpy(is_missing.cast(pa.int8()), "int8").astype(bool)
    place = np.where(absent, -1, np.cumsum(~absent) - 1).astype(np.int32)
    seen = frozenset(missing.texts[word] for word in words.filter(is_missing).to_pylist())
    return Categories(place[codes], words.filter(pc.invert(is_missing))), seen


def _melt(
    table: Any,
    times: NDArray[np.int64],
    source: CsvFile,
    spec: CsvSpec,
    numbers: dict[str, NumberColumn],
    seen: frozenset[str],
) -> Columns:
    """A wide table of series: one row per record and column."""
    present = set(source.header)
    names = sorted((name for name in spec.series if name in present), key=str.encode)
    values = NumberValues(np.concatenate([np.zeros(0), *(numbers[name].values for name in names)]))
    codes = np.repeat(np.arange(len(names), dtype=np.int32), len(times))
    ids = text_array(names if len(times) else [])
    lost = sum(column.n_lost for column in numbers.values())
    return Columns(ids, codes, np.tile(times, len(names)), [values], (), len(times), n_lost=(lost,), seen=seen)
