"""A CSV that says for each series, by a value in a column, what it is for."""

from __future__ import annotations

import csv
import hashlib
import io
from itertools import islice
from pathlib import Path

from zstore import UsageError, shown

_MOST_BYTES = 1 << 28  # some ten million series; nothing larger is read
_OPTION = "--data.split.table"


def table_digest(path: str) -> str:
    """SHA-256 of a table, as 64 hex digits.

    Raises
    ------
    UsageError
        If it cannot be read, or is larger than 256 MiB.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def read_split_table(path: str, id_name: str, column: str) -> dict[str, str]:
    """The value of each id in a column of a CSV file (UTF-8, a header, commas, RFC 4180).

    Parameters
    ----------
    path
        Of the file.
    id_name
        Column of ids; the first column where there is no such one.
    column
        Column of values.

    Raises
    ------
    UsageError
        If it cannot be read as such, has no such column, or names an id twice.
    """
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} ({error})", expected="a CSV file in UTF-8", fix=f"correct {_OPTION}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if column not in header or len(set(header)) < len(header):
            raise UsageError(
                f"no column {column!r} of its own in {shown(','.join(islice(header, 50)))}",
                expected="a header with each name once",
                where=path,
                fix=f"correct {_OPTION}, or name the column by --data.split.attribute",
            )
        of_id, of_value = header.index(id_name) if id_name in header else 0, header.index(column)
        values: dict[str, str] = {}
        for record in reader:
            if not record:  # a blank line
                continue
            if len(record) != len(header) or record[of_id] in values:
                what = f"{len(record)} fields" if len(record) != len(header) else f"id {record[of_id]} again"
                expected = f"{len(header)} fields, as in the header" if len(record) != len(header) else "each id once"
                raise UsageError(what, expected=expected, where=f"{path} line {reader.line_num}", fix="correct it")
            values[record[of_id]] = record[of_value]
    except csv.Error as error:
        where = f"{path} line {reader.line_num}"
        raise UsageError(
            f"a line that is no CSV ({error})", expected="RFC 4180", where=where, fix="correct it"
        ) from None
    return values


def same_value(text: str, value: str | float) -> bool:
    """Whether a text of a table is a value that the user named: the same word, or the same number."""
    if isinstance(value, str):
        return text == value
    try:
        return float(text) == value
    except ValueError:
        return False


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path} ({error.strerror or error})", expected="a CSV file", fix=f"correct {_OPTION}"
        ) from None
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path} with more than 256 MiB", expected="a line for each series", fix=f"correct {_OPTION}")
    return content
