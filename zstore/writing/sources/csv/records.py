"""RFC 4180, strictly: where records end, and what is wrong with one. The slow path; good blocks never come here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from zstore.writing.sources.cells import Missing, NumberStyle, dialect_of, is_excess, shorten
from zstore.writing.sources.csv.calendar import no_start
from zstore.writing.sources.csv.framing import LONE_CR, PLAIN, Framing
from zstore.writing.sources.csv.table import CsvSpec, Line
from zstore.writing.sources.table import BadRow

_BLANK = (b"\n", b"\r\n")
_BLANK_LINES = re.compile(rb"\n(?:\r?\n)++")
_INSIDE = re.compile(rb'[^"]*+(?:""[^"]*+)*+')
_INSIDE_TEXT = re.compile(r'[^"]*+(?:""[^"]*+)*+')
_FIRST_BLANK_LINES = re.compile(rb"(?:\r?\n)++")
_MOST_RAW_BYTES = 1 << 20
_PIECE_BYTES = 1 << 22
_MOST_NAMES = 8
_MOST_EXTRA = 1000  # fields of a record beyond its columns that are counted


@dataclass(frozen=True)
class Record:
    """One record of a block: its raw bytes, where it starts, and its fields (None if they cannot be told)."""

    raw: bytes
    byte: int
    line: int
    fields: list[str] | None
    reason: str = ""


def split_records(
    content: bytes, delimiter: str, byte: int, line: int, framing: Framing = PLAIN, n_columns: int | None = None
) -> Iterator[Record]:
    """Cut bytes into records, keeping what is malformed whole and leaving comments out.

    Parameters
    ----------
    content
        Record-aligned bytes.
    delimiter
        One character.
    byte, line
        Where `content` starts in its file; lines count from 1.
    framing
        What is not plain CSV about them.
    n_columns
        Fields that a good record has; of one with far more, they are not told apart. None for any number.
    """
    position, most = 0, None if n_columns is None else n_columns + _MOST_EXTRA
    while position < len(content):
        comment = framing.is_comment(content, position)
        stop = line_end(content, position) if comment or framing.literal else record_end(content, position, delimiter)
        raw = content[position:stop]
        if not comment:
            fields, reason = framing.fields(raw, most) if framing.literal else split_fields(raw, delimiter, most)
            yield Record(raw, byte + position, line, fields, reason)
        line += raw.count(b"\n")
        position = stop


def line_end(content: bytes, start: int) -> int:
    """Position after the next line break, or the end."""
    return content.find(b"\n", start) + 1 or len(content)


def plain_records(content: bytes, delimiter: str, framing: Framing) -> bytes:
    """Record-aligned bytes as plain CSV: without comments, and with `delimiter` between fields.

    Raises
    ------
    RefusedError
        If a line cannot be brought to that.
    """
    if framing == PLAIN:
        return content
    if framing.comment is not None and framing.comment.encode() in content:
        if b'"' not in content or framing.literal:
            content = framing.without_comments(content)
        else:
            content = b"".join(record.raw for record in split_records(content, delimiter, 0, 1, framing))
    return framing.plain(content)


def record_end(content: bytes, start: int, delimiter: str) -> int:
    """Position after the line break that ends the record at `start`.

    A quote opens a field only at its beginning, so a stray one spoils no more than its own record.

    Notes
    -----
    No byte is looked at more than a few times, however many fields there are.
    """
    opening, stop = delimiter.encode() + b'"', line_end(content, start)
    quote = start if content.startswith(b'"', start) else content.find(opening, start, stop) + 1 or -1
    if quote < 0:
        return stop
    several = fields_that_end(delimiter).match(content, quote)
    last = quote if several is None else several.end()
    return line_end(content, _closing_quote(content, last) if content.startswith(b'"', last) else last)


@cache
def fields_that_end(delimiter: str) -> re.Pattern[bytes]:
    """Fields of a record that follow each other, in quotes or not, each with a delimiter behind it."""
    mark = re.escape(delimiter.encode())
    return re.compile(rb'(?:(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^\n%b]*+%b)++' % (mark, mark))


def record_borders(content: bytes, delimiter: str, n_parts: int, framing: Framing = PLAIN) -> list[int]:
    """Where some records begin that cut record-aligned bytes into about `n_parts`; none where a quote may be stray."""
    quoted = b'"' in content and not framing.literal
    if quoted and (framing.comment is not None or not is_strict(content, delimiter)):
        return []
    borders: list[int] = []
    inside, seen = 0, 0
    for wanted in range(len(content) // n_parts, len(content), max(len(content) // n_parts, 1)):
        newline = max(wanted, seen) - 1
        while (newline := content.find(b"\n", newline + 1)) >= 0:
            inside ^= content.count(b'"', seen, newline) % 2 if quoted else 0
            seen = newline
            if not inside:
                break
        if newline < 0 or newline + 1 >= len(content):
            break
        if not borders or newline + 1 > borders[-1]:
            borders.append(newline + 1)
    return borders


def without_blank_lines(content: bytes) -> bytes:
    """Record-aligned CSV, all of it strict, without the lines outside quotes that have no byte.

    Notes
    -----
    Takes as much memory as `content`, however many such lines there are.
    """
    first, *others = content.split(b'"')  # strictly, every second piece lies inside quotes, and no quote ends a line
    leading = _FIRST_BLANK_LINES.match(first)
    pieces = [first[leading.end() :] if leading else first, *others]
    pieces[::2] = [_BLANK_LINES.sub(b"\n", piece) for piece in pieces[::2]]
    return b'"'.join(pieces)


def _closing_quote(content: bytes, opening: int) -> int:
    """Position of the quote that closes a field, or the end."""
    inside = _INSIDE.match(content, opening + 1)
    return len(content) if inside is None else inside.end()


def is_strict(content: bytes, delimiter: str) -> bool:
    """Whether every quote opens, closes or doubles as RFC 4180 has it, and every record ends in LF or CRLF.

    Counted from the start, even quotes open and odd ones close; a doubled quote closes and opens at once. Cost: two
    searches of `content` where it has neither quotes nor carriage returns, else a few passes over those alone, some MiB
    at a time.
    """
    n_returns = content.count(b"\r") if b"\r" in content else 0
    lone = n_returns != content.count(b"\r\n") if n_returns else False
    if b'"' not in content:
        return not lone
    octets, n_before = np.frombuffer(content, np.uint8), 0
    last = len(octets) - 1
    edges = [ord(delimiter), ord("\n"), ord('"')]
    for start in range(0, len(octets), _PIECE_BYTES):
        piece = octets[start : start + _PIECE_BYTES]
        quotes = start + np.flatnonzero(piece == ord('"'))
        opening, closing = quotes[n_before % 2 :: 2], quotes[1 - n_before % 2 :: 2]
        opens = np.isin(octets[np.maximum(opening - 1, 0)], edges) | (opening == 0)
        closes = np.isin(octets[np.minimum(closing + 1, last)], [*edges, ord("\r")]) | (closing == last)
        if not (opens.all() and closes.all()):
            return False
        if lone:
            returns = start + np.flatnonzero(piece == ord("\r"))
            followed = octets[np.minimum(returns + 1, last)] == ord("\n")
            outside = (n_before + np.searchsorted(quotes, returns)) % 2 == 0
            if np.any(outside & ~followed):
                return False
        n_before += len(quotes)
    return n_before % 2 == 0


def is_utf8(content: bytes) -> bool:
    """Whether bytes are UTF-8. Cost: some 0.05 ns a byte of ASCII, else 1 ns."""
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def split_fields(raw: bytes, delimiter: str, most: int | None = None) -> tuple[list[str] | None, str]:
    """The fields of one record, or None and the reason why there are none, or that they are more than `most`."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"byte {raw[error.start]:#04x} is not UTF-8"
    text = text[:-1].removesuffix("\r") if text.endswith("\n") else text
    if '"' not in text:
        if most is not None and text.count(delimiter) >= most:
            return None, long_row(text.count(delimiter) + 1)
        return (None, LONE_CR) if "\r" in text else (text.split(delimiter), "")
    fields: list[str] = []
    position = 0
    while True:
        if most is not None and len(fields) >= most:
            return None, long_row(most, "more than ")
        if text[position : position + 1] == '"':
            inside = _INSIDE_TEXT.match(text, position + 1)
            stop = len(text) if inside is None else inside.end()
            if stop == len(text):
                return None, "a quoted field has no closing quote"
            fields.append(text[position + 1 : stop].replace('""', '"'))
            position = stop + 1
            if position < len(text) and text[position] != delimiter:
                return None, f"{text[position]!r} follows a closing quote"
        else:
            stop = text.find(delimiter, position)
            stop = len(text) if stop < 0 else stop
            if '"' in text[position:stop]:
                return None, "a quote stands inside an unquoted field"
            if "\r" in text[position:stop]:
                return None, LONE_CR
            fields.append(text[position:stop])
            position = stop
        if position >= len(text):
            return fields, ""
        position += 1


def long_row(n_fields: int, more: str = "") -> str:
    """What is wrong with a record of too many fields."""
    return f"long row: {more}{n_fields} fields"


def is_blank(record: Record, header: tuple[str, ...]) -> bool:
    """Whether a record has no byte at all. Under a header of one column it may be a missing value."""
    return len(header) > 1 and (record.raw in _BLANK or record.fields == [])


def judge(record: Record, header: tuple[str, ...], spec: CsvSpec, source: str) -> BadRow | None:
    """What is wrong with one record, or None."""
    if record.fields is None:
        reason, expected = record.reason, "a record as RFC 4180 has it"
        if reason.startswith("long row"):
            expected = f"{len(header)}"
    elif len(header) == 1 and record.raw in _BLANK:
        reason, expected = "a blank line in a file of one column", 'a value, or a text that means missing, such as ""'
    elif len(record.fields) != len(header):
        n_fields, expected = len(record.fields), f"{len(header)}"
        reason = f"short row: {n_fields} fields" if n_fields < len(header) else long_row(n_fields)
        expected += _way_of_ends(record.fields, header)
    else:
        found = _judge_cells(dict(zip(header, record.fields, strict=True)), spec)
        if found is None:
            return None
        reason, expected = found
    return bad_record(record, source, reason, expected)


def _way_of_ends(fields: Sequence[str], header: Sequence[str]) -> str:
    """What helps where the header alone ends in a delimiter, or the row alone."""
    if len(fields) == len(header) + 1 and not fields[-1]:
        what, names, more = "the row", [*header, "rest"], " --leave-out rest"
    elif len(fields) == len(header) - 1 and not header[-1]:
        what, names, more = "the header", list(header[:-1]), ""
    else:
        return ""
    shown = ",".join(names) if len(names) <= _MOST_NAMES else f"{','.join(names[: _MOST_NAMES - 1])},…"
    return (
        f" ({what} ends in a delimiter: if all do, leave out the header with --skip-lines, "
        f"and name the columns: --no-header --names {shown}{more})"
    )


def bad_record(record: Record, source: str, reason: str, expected: str) -> BadRow:
    """A record as a bad row of a file."""
    raw = record.raw.rstrip(b"\r\n")
    text = raw[:_MOST_RAW_BYTES].decode("utf-8", "backslashreplace")
    if len(raw) > _MOST_RAW_BYTES:
        text += f"… ({len(raw) - _MOST_RAW_BYTES:,} more bytes)"
    return BadRow(source, Line(record.line, record.byte), reason, expected, text, raw.count(b"\n") + 1)


def may_have_stray_quote(row: BadRow, delimiter: str) -> bool:
    """Whether blocks may be cut wrongly for a quote of a bad row; the text of a long one is not all there."""
    if len(row.raw) >= _MOST_RAW_BYTES:
        return True
    return '"' in row.raw and split_fields(row.raw.encode(), delimiter)[0] is None


def _judge_cells(cells: dict[str, str], spec: CsvSpec) -> tuple[str, str] | None:
    for name in spec.id_names:
        if not cells[name]:
            return f"empty id in column '{name}'", "the id of the series"
    wrong = spec.time.judge(cells)
    if wrong is not None:
        return wrong
    if spec.offsets and no_start(spec.time.read_cells([cells[name] for name in spec.time.columns]) or 0, spec):
        what = "year" if spec.months else "day"
        when = shorten(" ".join(cells[name] for name in spec.time.columns))
        return f"time {when!r} that is no {what}", f"a {what} in each row, since its columns are times in it"
    for column, texts in spec.missing_times.items():
        if cells[column] in texts:
            return f"missing time {shorten(cells[column])!r} in column {column!r}", "a time in every row"
    for column, (style, missing) in spec.styles.items():
        if column not in cells:
            continue
        cell = cells[column]
        text = style.text(cell)
        if missing.name(cell, None if text is None else float(text)) is not None:
            continue
        if text is None:
            dialect = dialect_of([cell], column, style)
            way = f" ({dialect.what}: {dialect.fix})" if dialect is not None else ""
            return (
                f"text {shorten(cell)!r} in number column {column!r}",
                f"a decimal number, or a text that means missing (--missing says which do){way}",
            )
        if is_excess(text, float(text), spec.largest):
            return (
                f"number {shorten(cell)} in column {column!r}",
                f"at most {spec.largest:.2g}" + ("; --dtype float64 has more" if spec.dtype == "float32" else ""),
            )
    if spec.across and not any(is_known(cells[name], *spec.styles[name]) for name in spec.series if name in cells):
        return "a series without a value", "at least one"
    return None


def is_known(cell: str, style: NumberStyle, missing: Missing) -> bool:
    """Whether a cell of numbers holds one."""
    text = style.text(cell)
    return text is not None and missing.name(cell, float(text)) is None and float(text) == float(text)
