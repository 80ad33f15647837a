"""Where the rows of a CSV file begin, and what stands above them: lines that are none, a header, units."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from zstore.errors import SourceError, UsageError
from zstore.storage.file import File
from zstore.writing.sources.columns import DELIMITERS
from zstore.writing.sources.csv.framing import REST, SPACES, Framing
from zstore.writing.sources.csv.record_limit import MOST_RECORD_BYTES
from zstore.writing.sources.csv.records import line_end, record_end, split_fields
from zstore.writing.sources.csv.table import CsvFile
from zstore.writing.sources.files import read_source
from zstore.writing.sources.magic import refuse_no_text
from zstore.writing.sources.options import TableOptions, id_in_path

_HEAD_BYTES = 1 << 18
_MOST_COLUMNS = 1 << 20
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


@dataclass(frozen=True)
class _Lines:
    """The first lines of a file.

    Parameters
    ----------
    head
        Its first bytes.
    header
        Byte and line where its header begins, or, without one, its rows.
    delimiter
        Between fields.
    units
        Byte and line where its row of units begins, if it has one.
    body
        Byte where its rows begin.
    """

    head: bytes
    header: tuple[int, int]
    delimiter: str
    units: tuple[int, int] | None
    body: int


def framing_of(options: TableOptions) -> Framing:
    """What is not plain CSV about files, as the user says."""
    widths = tuple(None if width == REST else int(width) for width in options.widths)
    return Framing(options.comment, options.delimiter == SPACES, widths)


def check_framing(options: TableOptions) -> None:
    """Refuse what cannot be said about the first lines of files and the fields of their records.

    Raises
    ------
    UsageError
        Naming the flag.
    """
    spaces, widths = options.delimiter == SPACES, bool(options.widths)
    if widths and options.delimiter is not None:
        raise UsageError(f"--widths with --delimiter {options.delimiter}", expected="one of them", fix="drop one")
    numbers = options.widths[:-1] if options.widths[-1:] == (REST,) else options.widths
    if widths and not (len(options.widths) > 1 and all(n.isascii() and n.isdigit() and int(n) > 0 for n in numbers)):
        raise UsageError(
            f"--widths {','.join(options.widths)}",
            expected="the characters of each of several columns; * as the last for the rest of the line",
            fix="as in --widths 11,10,8",
        )
    for flag, number in (("--skip-lines", options.skip_lines), ("--skip-below-header", options.skip_below_header)):
        if number < 0:
            raise UsageError(f"{flag} {number}", expected="a number of lines", fix="as in --skip-lines 3")
    comment = options.comment
    if comment is not None and (not comment or any(mark in comment for mark in '"\r\n')):
        raise UsageError(
            f"--comment {comment!r}", expected="what lines begin with that are left out", fix="as in --comment '#'"
        )
    if options.names and not options.no_header:
        raise UsageError(
            f"--names {','.join(options.names)} of files with a header",
            expected="--no-header with --names",
            fix="add --no-header if the first line is a row, or name columns anew with --rename",
        )
    if options.no_header and (options.units_row or options.skip_below_header):
        flag = "--units-row" if options.units_row else "--skip-below-header"
        raise UsageError(f"{flag} with --no-header", expected="a header above it", fix="--skip-lines skips lines")
    twice = sorted(name for name, n_times in Counter(options.names).items() if n_times > 1)
    if twice:
        raise UsageError(f"name {twice[0]!r} stands twice in --names", expected="every name once", fix="change --names")
    if spaces and options.thousands is not None and options.thousands.isspace():
        raise UsageError("--thousands ' ' with --delimiter spaces", expected="one of them", fix="drop --thousands")


def open_source(named: File, plain: File, options: TableOptions, delimiter: str | None = None) -> tuple[CsvFile, str]:
    """Read the first lines of a file.

    Parameters
    ----------
    named
        The file as the user named it.
    plain
        Its plain bytes.
    options
        What the user says about them.
    delimiter
        What the first file has between fields; None to go by the options, or to find it.

    Returns
    -------
    The source and its delimiter.
    """
    framing = framing_of(options)
    lines = _first_lines(named, plain, options, framing, delimiter)
    head, (start, line), delimiter = lines.head, lines.header, lines.delimiter
    fields, reason = _fields(head, start, delimiter, framing)
    if fields is None:
        other = "name the encoding with --encoding, or " if "UTF-8" in reason else ""
        what, fix = ("first row", "correct it") if options.no_header else ("header", "correct the header")
        raise SourceError(
            f"unreadable {what} ({reason})", expected="column names", where=f"{named} line {line:,}", fix=other + fix
        )
    if not options.no_header and not head[start : line_end(head, start)].removeprefix(_BOM).strip(_SPACE):
        raise SourceError(
            "blank line in the place of a header",
            expected="column names",
            where=f"{named} line {line:,}",
            fix="--skip-lines leaves out lines above the header, and blank ones that follow them",
        )
    header = options.names if options.no_header else tuple(fields)
    if options.no_header and len(header) != len(fields):
        raise UsageError(
            f"{len(header)} names in --names" if header else "--no-header without --names",
            expected=f"{len(fields)} names, for the first row has {len(fields)} fields",
            where=f"{named} line {line:,}: {', '.join(fields)[:200]}",
            fix=f"as in --names {','.join(f'c{n + 1}' for n in range(min(len(fields), 8)))}",
        )
    twice = sorted(column for column, n_times in Counter(header).items() if n_times > 1)
    if twice:
        raise SourceError(
            f"column {twice[0]!r} stands {header.count(twice[0])} times in the header",
            expected="every column name once",
            where=f"{named} line {line:,}",
            fix="rename one of them in the file, or --skip-lines its header and name all columns with --no-header "
            "--names",
        )
    units = _units(lines, header, framing, named) if lines.units is not None else ()
    id_ = id_in_path(str(named), options.id_from_path) if options.id_from_path is not None else None
    quoted = b'"' in head and not framing.literal
    at = None if options.no_header else line
    return CsvFile(str(named), plain, header, lines.body, quoted, id_, framing, at, units), delimiter


def _first_lines(named: File, plain: File, options: TableOptions, framing: Framing, delimiter: str | None) -> _Lines:
    """Where the lines above the rows lie; reads as much of the file as they take."""
    n_bytes = _HEAD_BYTES
    while True:
        head = read_source(plain, 0, n_bytes)
        refuse_no_text(head, str(named))
        whole = len(head) >= plain.n_bytes
        if whole and not head.removeprefix(_BOM).strip(_SPACE):
            what = f"{len(head):,} blank bytes, and no text" if head else "no text in its compressed stream"
            raise SourceError(what, expected="a header line and rows", where=str(named), fix="leave the file out")
        lines = _look(head, whole, named, options, framing, delimiter)
        if lines is not None:
            return lines
        if n_bytes >= MOST_RECORD_BYTES:
            raise endless_head(named, n_bytes)
        n_bytes *= 4


def endless_head(named: File, n_bytes: int) -> SourceError:
    """The error of a file whose rows do not begin within its first bytes."""
    return SourceError(
        f"no end of the lines above the rows in {n_bytes:,} bytes",
        expected="a header line, and rows below it",
        where=str(named),
        fix="check that it is a table, or --skip-lines and --comment",
    )


def rows_begin(head: bytes, named: File, options: TableOptions) -> tuple[int, str] | None:
    """Byte where the rows of a file begin, and its delimiter; None if its first bytes end before that."""
    refuse_no_text(head, str(named))
    lines = _look(head, False, named, options, framing_of(options), None)
    return None if lines is None else (lines.body, lines.delimiter)


def _look(
    head: bytes, whole: bool, named: File, options: TableOptions, framing: Framing, delimiter: str | None
) -> _Lines | None:
    """The lines above the rows; None if the first bytes of a file end before its rows begin."""
    position, line = len(_BOM) if head.startswith(_BOM) else 0, 1

    def skip(n_lines: int) -> None:
        nonlocal position, line
        for _ in range(n_lines):
            if position < len(head):
                position, line = line_end(head, position), line + 1

    skip(options.skip_lines)
    framed = bool(options.skip_lines) or framing != Framing()
    while framed and position < len(head):
        blank = not head[position : line_end(head, position)].strip(_SPACE)
        if not (blank or framing.is_comment(head, position)):
            break
        skip(1)
    if position >= len(head) and framed:
        if not whole:
            return None
        raise SourceError(
            "no line left for a header",
            expected="rows below the lines that are skipped",
            where=str(named),
            fix="change --skip-lines or --comment",
        )
    header, first = (position, line), head[position : line_end(head, position)]
    found = framing.delimiter or delimiter or options.delimiter
    found = found or max(DELIMITERS, key=first.decode("utf-8", "replace").count)
    if framing.delimiter is None and (len(found.encode()) != 1 or found in '"\r\n'):
        raise UsageError(f"delimiter {found!r}", expected=f"one ASCII character, or {SPACES}", fix="change --delimiter")

    def end() -> int:
        return line_end(head, position) if framing.literal else record_end(head, position, found)

    def skip_record() -> None:
        nonlocal position, line
        stop = end()
        position, line = stop, line + head[position:stop].count(b"\n")

    if not options.no_header:
        skip_record()
    units = None
    if options.units_row:
        while position < len(head) and framing.is_comment(head, position):
            skip(1)
        units = position, line
        skip_record()
    skip(options.skip_below_header)
    last = end() if options.no_header else position
    beyond = options.units_row or options.skip_below_header
    if not whole and ((last >= len(head) and not head.endswith(b"\n")) or (beyond and position >= len(head))):
        return None
    return _Lines(head, header, found, units, position)


def _fields(head: bytes, start: int, delimiter: str, framing: Framing) -> tuple[list[str] | None, str]:
    """The fields of the record that begins at a byte of the first ones of a file."""
    if framing.literal:
        return framing.fields(head[start : line_end(head, start)], _MOST_COLUMNS)
    return split_fields(head[start : record_end(head, start, delimiter)], delimiter, _MOST_COLUMNS)


def _units(lines: _Lines, header: tuple[str, ...], framing: Framing, named: File) -> tuple[str | None, ...]:
    start, line = lines.units or (0, 0)
    fields, reason = _fields(lines.head, start, lines.delimiter, framing)
    if fields is None or len(fields) != len(header):
        raise SourceError(
            f"{len(fields)} units" if fields is not None else f"unreadable row of units ({reason})",
            expected=f"one for each of the {len(header)} columns",
            where=f"{named} line {line:,}",
            fix="leave out --units-row if that line is none",
        )
    return tuple(field.strip() or None for field in fields)
