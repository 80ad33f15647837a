"""Dialects of CSV and a strict reader of them in plain Python, which shares nothing with the code that it judges.

A :class:`Dialect` is a clean table and the options that it is ingested with; :func:`read` says what the bytes of such a
table mean, however damaged they are: rows, and the lines of records that are none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from dialect_times import (
    ReadTime,
    date_and_clock,
    epoch,
    excel,
    german,
    iso,
    of_day,
    of_zone,
    one,
    parts,
    quarter,
    week,
)

BOM = b"\xef\xbb\xbf"
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")

Value = float | str | None


@dataclass(frozen=True)
class Dialect:
    """A kind of table.

    Parameters
    ----------
    clean
        Such a table, every row of which is good.
    options
        Of :func:`zstore.ingest`; the reader goes by them too.
    read_time
        Seconds since 1970 by the cells of `options["time"]`; None where they say no time. Of a row per series, by the
        position of a value.
    cells
        Cells to damage rows with, beside the usual ones.
    words
        Columns of words.
    others
        Further files with the same columns, every row of which is good.
    """

    clean: str
    options: Mapping[str, Any]
    read_time: ReadTime
    cells: Sequence[str] = ()
    words: Sequence[str] = ()
    others: Sequence[bytes] = ()

    @property
    def headers(self) -> list[list[str]]:
        """Those of the further files, which are plain."""
        return [other.split(b"\n")[0].decode().split(",") for other in self.others if other]

    def get(self, option: str) -> Any:
        """The value of an option, None where it is not given."""
        return self.options.get(option)

    def texts(self, option: str) -> list[str]:
        """An option of one or several names."""
        value = self.options.get(option, ())
        return [value] if isinstance(value, str) else list(value)


@dataclass
class Reading:
    """What a table says: its columns, its rows as (id, seconds, value …), and the lines at which bad records begin."""

    header: list[str]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)


class NoTableError(Exception):
    """What stands above the rows is not as the options say; the argument is what."""


# Numbers


def number_reader(dialect: Dialect, column: str) -> Callable[[str], float]:
    """Numbers of a column; raises ValueError where a cell is none, gives NaN where it is missing."""
    point, group = re.escape(dialect.get("decimal") or "."), dialect.get("thousands")
    digits = r"\d+" if group is None else rf"(?:[1-9]\d?\d?(?:{re.escape(group)}\d\d\d)+|\d+)"
    number = rf"(?P<number>[+-]?(?:{digits}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?)"
    percent = r"[ \t\u00a0\u2009\u202f]*%" if column in dialect.texts("percent") else ""
    pattern = re.compile(rf"[ \t]*(?:{number}{percent}|(?P<special>[+-]?(?:inf|infinity|nan)))[ \t]*", re.I | re.A)
    named = dialect.texts("missing") or list(MISSING)
    absent = [text for text in named if "=" not in text] or list(MISSING)
    absent += [text.partition("=")[2] for text in named if text.startswith(f"{column}=")]

    def value_of(cell: str) -> float | None:
        match = pattern.fullmatch(cell)
        if match is None:
            return None
        if match["special"]:
            return float(match["special"])
        plain = match["number"] if group is None else match["number"].replace(group, "")
        value = float(plain.replace(dialect.get("decimal") or ".", "."))
        return None if math.isinf(value) else value

    absent_values = {value for text in absent if (value := value_of(text)) is not None}
    absent_values |= {float(text) for text in absent if re.fullmatch(r"-?\d+", text, re.A)}

    def read_number(cell: str) -> float:
        value = value_of(cell)
        if cell in absent or value in absent_values:
            return math.nan
        if value is None:
            raise ValueError(cell)
        return value

    return read_number


def limit(cell: str, column: str, dialect: Dialect) -> list[float]:
    """The number of a cell, and of a column of limits the side that the value is on."""
    read_number = number_reader(dialect, column)
    if column not in dialect.texts("censored"):
        return [read_number(cell)]
    match = re.fullmatch(r"[ \t]*([<>]=?|[\u2264\u2265])([ \t]*[-+\d.,].*)", cell, re.S)
    number = read_number(cell if match is None else match[2])
    side = 0 if match is None else -1 if match[1][0] in "<\u2264" else 1
    return [number, number if math.isnan(number) else side]


# Records


def cut(content: bytes, delimiter: str, comment: bytes | None, by_lines: bool) -> list[tuple[int, bytes]]:
    """Every record that is no comment, with the line on which it begins; quotes open a field only at its beginning."""
    records: list[tuple[int, bytes]] = []
    place, line, comma = 0, 1, ord(delimiter or ",")
    while place < len(content):
        start, first, state = place, line, "begin"
        is_comment = comment is not None and content.startswith(comment, start)
        while place < len(content):
            byte = content[place]
            place += 1
            if byte == 10:
                line += 1
            if by_lines or is_comment:
                if byte == 10:
                    break
            elif state == "quoted":
                if byte == 34:
                    if content[place : place + 1] == b'"':
                        place += 1
                    else:
                        state = "plain"
            elif byte == 10:
                break
            elif byte == comma:
                state = "begin"
            elif byte == 34 and state == "begin":
                state = "quoted"
            else:
                state = "plain"
        if not is_comment:
            records.append((first, content[start:place]))
    return records


def without_break(text: str) -> str:
    """A record without the line break behind it."""
    return text[:-1].removesuffix("\r") if text.endswith("\n") else text


def fields_of(raw: bytes, dialect: Dialect) -> list[str]:
    """The fields of one record; raises ValueError where it is not as the dialect has it."""
    text = without_break(raw.decode("utf-8"))
    delimiter, widths = dialect.get("delimiter") or ",", dialect.texts("widths")
    if widths or delimiter == "spaces":
        if any(mark in text for mark in '\r"\x1f'):
            raise ValueError(text)
        if not widths:
            return re.findall("[^ \t]+", text)
        return of_widths(text, widths)
    fields, place = [], 0
    comma = re.escape(delimiter)
    while True:
        match = re.compile(rf'(?:"((?:[^"]|"")*)"|([^"\r\n{comma}]*))(?={comma}|\Z)').match(text, place)
        if match is None:
            raise ValueError(text)
        fields.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        place = match.end() + 1
        if place > len(text):
            return fields


def of_widths(text: str, widths: Sequence[str]) -> list[str]:
    """The fields of a line of fixed width."""
    if not text:
        return []
    numbers = [int(width) for width in widths if width != "*"]
    if len(text) < sum(numbers) or (len(text) > sum(numbers) and widths[-1] != "*"):
        raise ValueError(text)
    starts = [sum(numbers[:n]) for n in range(len(widths))]
    return [text[a:b].strip(" \t") for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def line_of(content: bytes) -> int:
    """Bytes of the first line, its break included."""
    return content.find(b"\n") + 1 or len(content)


def read(content: bytes, dialect: Dialect, set_aside: Sequence[int] = ()) -> Reading:
    """The rows of a table.

    Parameters
    ----------
    content
        Of a file, damaged or not.
    dialect
        What it should be like.
    set_aside
        Lines of records that are to be taken for bad ones, whatever they say.

    Raises
    ------
    NoTableError
        If what stands above the rows is not as the dialect has it.
    """
    if dialect.get("encoding"):
        content = content.decode(dialect.get("encoding")).encode()
    content, line = content.removeprefix(BOM), 1

    def skip(n_bytes: int) -> bytes:
        nonlocal content, line
        head, content = content[:n_bytes], content[n_bytes:]
        line += head.count(b"\n")
        return head

    by_lines = dialect.get("delimiter") == "spaces" or bool(dialect.get("widths"))
    comment = dialect.get("comment").encode() if dialect.get("comment") else None
    delimiter = "" if by_lines else dialect.get("delimiter") or ","
    for _ in range(dialect.get("skip_lines") or 0):
        skip(line_of(content))
    if dialect.get("skip_lines") or comment or by_lines:
        while content and (
            not content[: line_of(content)].strip(b" \t\r\n") or (comment is not None and content.startswith(comment))
        ):
            skip(line_of(content))
    header = dialect.texts("names")
    try:
        if not header:
            _, raw = cut(content, delimiter, None, by_lines)[0]
            header = fields_of(skip(len(raw)), dialect)
            if not raw.strip(b" \t\r\n") or len(set(header)) < len(header):
                raise NoTableError("header")
        if dialect.get("units_row"):
            while comment is not None and content.startswith(comment):
                skip(line_of(content))
            _, raw = cut(content, delimiter, None, by_lines)[0]
            units = dict(zip(header, fields_of(skip(len(raw)), dialect), strict=True))
            of_series = {unit.strip() for name, unit in units.items() if name not in dialect.texts("time")}
            if dialect.get("layout") == "wide" and len(of_series) > 1:
                raise NoTableError("units")
    except (ValueError, IndexError):
        raise NoTableError("header") from None
    for _ in range(dialect.get("skip_below_header") or 0):
        skip(line_of(content))
    named = [name for option in ("id", "time", "percent", "categories", "censored") for name in dialect.texts(option)]
    named += [text.partition("=")[0] for text in dialect.texts("missing") if "=" in text]
    if not set(named) <= set(header) or any(set(other) != set(header) for other in dialect.headers):
        raise NoTableError("columns")
    reading, first = Reading(header), line
    for number, raw in cut(content, delimiter, comment, by_lines):
        at = number + first - 1
        try:
            if raw in (b"\n", b"\r\n") or (by_lines and not fields_of(raw, dialect)):
                continue
            if at in set_aside:
                raise ValueError
            rows = rows_of(fields_of(raw, dialect), header, dialect)
        except ValueError:
            reading.bad.append(at)
            continue
        reading.rows += rows
        reading.lines += [at] * len(rows)
    return reading


def rows_of(cells: Sequence[str], header: Sequence[str], dialect: Dialect) -> list[tuple[Any, ...]]:
    """The rows that a record makes; raises ValueError where a cell is not as it should be."""
    if len(cells) != len(header):
        raise ValueError(cells)
    by_name = dict(zip(header, cells, strict=True))
    ids = [by_name.pop(name) for name in dialect.texts("id")]
    if not all(ids):
        raise ValueError(ids)
    id_ = "0"
    if ids:
        id_ = "/".join(re.sub(r"([/\\])", r"\\\1", part) if len(ids) > 1 else part for part in ids)
    if dialect.get("layout") == "series":
        numbers = [number_reader(dialect, name)(cell) for name, cell in by_name.items()]
        while numbers and math.isnan(numbers[-1]):
            numbers.pop()
        if not numbers:
            raise ValueError(cells)
        return [(id_, dialect.read_time([str(n)]), number) for n, number in enumerate(numbers)]
    time = dialect.read_time([by_name.pop(name) for name in dialect.texts("time")])
    if time is None:
        raise ValueError(cells)
    if dialect.get("layout") == "wide":
        return [(name, time, number_reader(dialect, name)(cell)) for name, cell in by_name.items()]
    if dialect.texts("censored"):
        return [(id_, time, *(value for name, cell in by_name.items() for value in limit(cell, name, dialect)))]
    values = [
        (cell or None) if name in dialect.words else number_reader(dialect, name)(cell)
        for name, cell in by_name.items()
    ]
    return [(id_, time, *values)]


# Tables


def lines(*rows: str) -> str:
    """Rows as the text of a file."""
    return "".join(f"{row}\n" for row in rows)


def days(n: int, start: str = "2001-02-25") -> list[str]:
    """ISO dates."""
    return [str(date.fromisoformat(start) + timedelta(days=k)) for k in range(n)]


IDS = ["a", "b/1", "c\\d"]
LONG = [f"{IDS[n % 3]},{day},{n}.25,w{n % 4}" for n, day in enumerate(days(9))]
ROWS = {"id": "id", "time": "time"}

DIALECTS = {
    "skipped lines": Dialect(
        lines("Report, of a meter", "made 2001-02-03", "", "id,time,level,word", *LONG),
        {**ROWS, "skip_lines": 2, "categories": ["word"], "delimiter": ","},
        one(iso),
        words=["word"],
    ),
    "comments and quotes": Dialect(
        lines("# made by", "id,time,level,word", *LONG[:3], "# a break", '"x, ""y""",2001-01-01,5,"line', '# two"')
        + lines(*LONG[3:]),
        {**ROWS, "comment": "#", "categories": ["word"], "delimiter": ","},
        one(iso),
        ["#", '"#"', '"a\n#b"'],
        words=["word"],
    ),
    "units and types": Dialect(
        lines("id;day;time;level;load", ";;;m;%", "s;d;t;n;n")
        + lines(*(f"{IDS[n % 3]};{day};0{n}:30;{n},25;{n}.000,5%" for n, day in enumerate(days(9), 1))),
        {
            "id": "id",
            "time": ["day", "time"],
            "units_row": True,
            "skip_below_header": 1,
            "delimiter": ";",
            "decimal": ",",
            "thousands": ".",
            "percent": ["load"],
        },
        date_and_clock,
        ["1.000", "1.00", "1.000,5", "0.500", "12.345.678", "5 %", "%", "1.5%", "24:00", "23:59:60", "7"],
    ),
    "no header": Dialect(
        lines(*LONG),
        {**ROWS, "no_header": True, "names": ["id", "time", "level", "word"], "categories": ["word"], "delimiter": ","},
        one(iso),
        words=["word"],
    ),
    "spaces": Dialect(
        lines("# gauge", " id   time\tlevel")
        + lines(*(f"  {IDS[n % 3]}  {1_577_836_800 + n}.{n}00 \t {n}e1 " for n in range(9))),
        {**ROWS, "delimiter": "spaces", "comment": "#", "time_unit": "s"},
        one(epoch),
        ["1e3", "1577836800.0000000001", "1577836800.5", "\x1f", "-1.5", "0x10"],
    ),
    "widths": Dialect(
        lines("id   time     level") + lines(*(f"s{n % 3:<4}2001-W{n + 1:02}{n * 1.5:>7} rest" for n in range(9))),
        {**ROWS, "widths": [5, 8, 7, "*"], "no_header": True, "skip_lines": 1}
        | {"names": ["id", "time", "level", "word"], "time_format": "%G-W%V", "categories": ["word"]},
        one(week),
        ["2001-W53", "2004-W53", "é", "\t"],
        words=["word"],
    ),
    "even widths": Dialect(
        lines(*(f"s{n % 3:<4}2001-W{n + 1:02}{n * 1.5:>7}" for n in range(9))),
        {**ROWS, "widths": [5, 8, 7], "no_header": True, "names": ["id", "time", "level"], "time_format": "%G-W%V"},
        one(week),
        ["2001-W53", "2004-W53", "é", "\t"],
    ),
    "two ids": Dialect(
        lines("id,layer,time,level") + lines(*(f"{IDS[n % 3]},{IDS[n // 3]},2001-Q{n % 4 + 1},{n}" for n in range(9))),
        {"id": ["id", "layer"], "time": "time", "time_format": "%Y-Q%q", "delimiter": ","},
        one(quarter),
        ["2001-Q0", "2001-Q5", "2001-Q1 ", "/", "\\", "a/b", "a\\/b", "0001-Q1", "0000-Q1"],
    ),
    "date and clock": Dialect(
        lines("id;day;clock;level") + lines(*(f"{IDS[n % 3]};2{n}.10.2020;{n}:1{n};{n}" for n in range(9))),
        {"id": "id", "time": ["day", "clock"], "time_format": "%d.%m.%Y %H:%M", "delimiter": ";"}
        | {"timezone": "Europe/Berlin"},
        of_zone(german, "Europe/Berlin"),
        ["25.10.2020", "2:30", "29.3.2020", "02:59", "3:00", "24:00", "1:5", "31.02.2020", "1.1.0001", "31.12.9999"],
    ),
    "a zone": Dialect(
        lines("id,time,level") + lines(*(f"{IDS[n % 3]},2020-04-0{n + 1} 0{n}:1{n}:00.{n},{n}" for n in range(9))),
        {**ROWS, "timezone": "Australia/Lord_Howe", "delimiter": ","},
        of_zone(one(iso), "Australia/Lord_Howe"),
        ["2020-04-05 01:45:00", "2020-04-05 02:00:00", "2020-10-04 02:15", "2020-10-04 02:29:59.9", "2020-10-04 02:30"],
    ),
    "epochs": Dialect(
        lines("id,time,level") + lines(*(f"{IDS[n % 3]},{1_577_836_800 + n}.{n}25,{n}" for n in range(9))),
        {**ROWS, "time_unit": "s", "delimiter": ",", "missing": ["NA", "", "-999", "level=-"]},
        one(epoch),
        ["-999", "-999.0", "-", "-9.99e2", "1577836800.", ".5", "1577836800.123456789", "-1.5", "99999999999999"],
    ),
    "excel": Dialect(
        lines("id,time,level")
        + lines(*(f"{IDS[n % 3]},{43_830 + n + n / 24:.10f},{n}%" for n in range(6)))
        + lines("a,43841,1%", "a,43842.5,2%", "a,43843.25,3%"),
        {**ROWS, "time_unit": "excel", "percent": ["level"], "delimiter": ","},
        one(excel(date(1899, 12, 30), 61)),
        ["60", "61", "60.9999999", "43831.04", "43831.0416666667", "43831.999994212", "43831.999999", "2958466", "1 %"],
    ),
    "excel1904": Dialect(
        lines("id,time,level") + lines(*(f"{IDS[n % 3]},4236{n}.5,{n}" for n in range(9))),
        {**ROWS, "time_unit": "excel1904", "delimiter": ","},
        one(excel(date(1904, 1, 1), 0)),
        ["0", "-1", "0.5", "42369.000694", "42369.0006944444", "42369.1", "42369.00001", "42369.25000000"],
    ),
    "a row per series": Dialect(
        lines("# M4", "V1,V2,V3,V4,V5", "H1,5,7,6,8", "H2,1,,,", 'H3,,"2",3,', "# half", "H4,1.5,2.5,NA,4", "H5,1,2,,"),
        {"layout": "series", "id": "V1", "freq": "1h", "start": "2001-01-01", "comment": "#", "delimiter": ","},
        lambda cells: of_day(date(2001, 1, 1)) + 3600 * int(cells[0]),
        ["NA", "nan", "inf", "H1", '""', "1,2"],
    ),
    "series in groups": Dialect(
        lines("V1;site;V2;V3;V4", *(f"{IDS[n % 3]};k{n};{n + 1}.000,5;;{n}" for n in range(7))),
        {"layout": "series", "id": ["V1", "site"], "freq": "1D", "start": "2001-02-27", "delimiter": ";"}
        | {"decimal": ",", "thousands": "."},
        lambda cells: of_day(date(2001, 2, 27)) + 86_400 * int(cells[0]),
        ["1.000", "1.00", "1.000,5", ",5", "5,", "1.234.567"],
    ),
    "files without a byte": Dialect(
        lines("id,time,level", *(row.rpartition(",")[0] for row in LONG)),
        {**ROWS, "on_empty_file": "skip", "delimiter": ","},
        one(iso),
        others=[b"", lines("time,id,level", *(f"{day},z,1" for day in days(5))).encode()],
    ),
    "tabs": Dialect(
        lines("# gauges", "#\tof a river", "agency\tid\ttime\tlevel", "5s\t15s\t20d\t14n")
        + lines(*(f"USGS\t0{n % 3}\t2021-11-07 0{(n + 2) % 10}:1{n}\t{n}.5" for n in range(9))),
        {"id": ["agency", "id"], "time": "time", "comment": "#", "skip_below_header": 1, "delimiter": "\t"}
        | {"timezone": "America/New_York", "skip_lines": 1},
        of_zone(one(iso), "America/New_York"),
        ["2021-11-07 01:30", "2021-11-07 00:59:59.999", "2021-03-14 02:30", "2021-03-14T03:00", "/", "\\"],
    ),
    "parts of times": Dialect(
        lines("#YY MM DD hh mm WVHT", "#yr mo dy hr mn m")
        + lines(*(f"2004 02 2{n} 0{n} 1{n}   {n}.5 {99 if n % 2 else 12}.0" for n in range(9))),
        {"time": ["Y", "m", "d", "H", "M"], "delimiter": "spaces", "comment": "#", "no_header": True}
        | {"names": ["Y", "m", "d", "H", "M", "height", "period"], "missing": ["MM", "period=99.0"]},
        parts,
        ["29", "30", "24", "60", "-1", "1900", "0", "10000", "MM", "99", "99.00", "9.9e1", "0x1d", "2004.0"],
    ),
    "a column per series": Dialect(
        lines("made by;x", "time;a;b/1;c", ";m;m;m", *(f"{day};{n}.001,5;{n};" for n, day in enumerate(days(9), 1))),
        {"layout": "wide", "time": "time", "skip_lines": 1, "units_row": True, "delimiter": ";"}
        | {"decimal": ",", "thousands": "."},
        one(iso),
        ["1.000", "1.00", "1.000,5", ",5", "NA", "2001-02-26 00", "2001-02-29"],
    ),
    "limits": Dialect(
        lines(
            "id;time;lead;zinc",
            *(f"{IDS[n % 3]};{day};{'<> '[n % 3]}{n}.000,5;{n},5" for n, day in enumerate(days(9), 1)),
        ),
        {**ROWS, "censored": ["lead"], "delimiter": ";", "decimal": ",", "thousands": "."},
        one(iso),
        [
            "<0,5",
            "> 200",
            "≤0,05",
            ">=1e3",
            "<<1",
            "<",
            "< ",
            "=5",
            "<nan",
            "<NA",
            ">-1.000",
            "<1.00",
            " <1",
            "1<",
            "<+7 ",
        ],
    ),
    "latin": Dialect(
        lines("id,time,level,word", *(f"{row}é" for row in LONG)),
        {**ROWS, "encoding": "latin-1", "categories": ["word"], "delimiter": ",", "thousands": " "},
        one(iso),
        ["1 000", "1 00", "1 234 567.5", "é"],
        words=["word"],
    ),
}
