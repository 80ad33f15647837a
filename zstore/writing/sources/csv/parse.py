"""CSV: plain records as an Arrow table of the columns that are needed, and the blank lines among them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pacsv

from zstore.arrow import text_array
from zstore.writing.sources.csv.table import CsvFile, CsvSpec
from zstore.writing.sources.numbers import count_newlines, encoded
from zstore.writing.sources.refused import RefusedError

_BOM = b"\xef\xbb\xbf"


def parse(
    content: bytes,
    header: tuple[str, ...],
    spec: CsvSpec,
    as_words: Collection[str],
    judged: bool,
    once: bool = True,
    skip_blank: bool = True,
) -> Any:
    """The needed columns of a block, or only those `as_words`; these, and with `judged` numbers and times, as texts.

    Texts are dictionary-encoded if `once`, so that each is looked at once. Unless `skip_blank`, a blank line is a row
    of empty cells; under a single column it always is, since it may be a missing value there.
    """
    words = pa.dictionary(pa.int32(), pa.string()) if once else pa.string()
    chosen, present = frozenset(as_words), frozenset(header)
    types: dict[str, pa.DataType] = {
        name: words if judged or name in chosen or not _is_plain(name, spec) else pa.float64() for name in spec.numbers
    }
    types.update(dict.fromkeys([*spec.texts, *spec.id_names], words))
    as_texts = judged or spec.has_own_missing_times or not set(spec.time.columns).isdisjoint(chosen)
    types.update(spec.time.arrow_types(as_texts))
    wanted = chosen & present if chosen else present
    needed = [name for name in spec.needed if name in wanted]
    quoted = b'"' in content
    content = _BOM + content if content.startswith(_BOM) else content  # Arrow drops one, which is text of a row
    if not content:
        return pa.schema([(name, types[name]) for name in needed]).empty_table()
    return pacsv.read_csv(
        pa.BufferReader(content),
        pacsv.ReadOptions(use_threads=False, column_names=header, block_size=len(content) + 1),
        pacsv.ParseOptions(
            delimiter=spec.delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            ignore_empty_lines=skip_blank and len(header) > 1,
        ),
        pacsv.ConvertOptions(
            column_types=types,
            include_columns=needed,
            null_values=[] if judged else sorted(spec.null_texts),
            strings_can_be_null=False,
            decimal_point=spec.decimal,
            timestamp_parsers=[pacsv.ISO8601],
        ),
    )


def _is_plain(column: str, spec: CsvSpec) -> bool:
    """Whether Arrow reads a column of numbers itself: so it does unless groups, signs or texts of its own are in it."""
    style, missing = spec.styles[column]
    return style.plain and missing.texts.keys() == spec.null_texts


def with_times_as_words(table: Any, content: bytes, header: tuple[str, ...], spec: CsvSpec) -> Any:
    """A table of :func:`parse`, with times as texts."""
    words = parse(content, header, spec, spec.time.columns, judged=False)
    for name in spec.time.columns:
        table = table.set_column(table.column_names.index(name), name, words[name])
    return table


def has_hexadecimal(content: bytes) -> bool:
    """Whether a hexadecimal number may stand anywhere. One byte is looked for first, which is many times as fast."""
    return any(mark[1:] in content and mark in content for mark in (b"0x", b"0X"))


def may_have_blank(table: Any, content: bytes) -> bool:
    """Whether any record of a block may be a blank line: every column has an empty cell, and line breaks follow."""
    if not all(_has_empty(column) for column in table.columns):
        return False
    starts = content.startswith((b"\n", b"\r\n"))
    return starts or b"\n\n" in content or (b"\r" in content and b"\n\r\n" in content)


def _has_empty(column: Any) -> bool:
    """Whether a parsed column has a missing cell, or an empty text."""
    if not pa.types.is_dictionary(column.type):
        return bool(column.null_count)
    return bool(pc.any(pc.is_in(encoded(column)[1], value_set=text_array([""]))).as_py())


def count_blank(content: bytes, source: CsvFile, n_records: int) -> int:
    """Lines without a byte that Arrow has passed over.

    Raises
    ------
    RefusedError
        If one stands under a single column, where it would be a missing value.
    """
    if b'"' not in content:
        n_lines = count_newlines(content)
    else:
        octets = np.frombuffer(content, np.uint8)
        quotes = np.flatnonzero(octets == ord('"'))
        n_lines = int(np.count_nonzero(np.searchsorted(quotes, np.flatnonzero(octets == ord("\n"))) % 2 == 0))
    n_lines += bool(content) and not content.endswith(b"\n")
    if len(source.header) == 1:
        raise RefusedError("a blank line may be a missing value")
    return n_lines - n_records
