"""Damage to tables of every dialect: stored as a strict reader has them, or refused with file and line."""

from __future__ import annotations

import csv
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import stored
from dialects import DIALECTS, Dialect, NoTableError, Reading, read

from zstore import SourceError, Store, UsageError, ingest, open_store
from zstore.writing.sources.csv import blocks

QUICK, ALL = 7, 250  # damaged files of each dialect: 140 and 5,000 in all
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MARKS = [",", ";", '"', '""', "\n", "\r", "\r\n", "\0", " ", "  ", "\t", "x", "0", "9", "-", "+", ".", "e", "#", "%"]
BYTES = [mark.encode() for mark in MARKS] + [b"\xff", "é".encode(), b"\xef\xbb\xbf", b"\x1f", b"\n\n", b"/", b"\\"]
CELLS = ["", " ", "nan", "inf", "1e400", "0x10", "1,5", "1.5", '"', '""', '"7"', '"a', 'a"', '"a"b', "١", "1_0", "NULL"]
Mode = Literal["error", "quarantine"]


def damaged(dialect: Dialect, random: random.Random) -> bytes:
    """A table with one to three blemishes; most often one."""
    content = dialect.clean.encode(dialect.get("encoding") or "utf-8")
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        content = blemished(content, dialect, random)
    return content


def blemished(content: bytes, dialect: Dialect, random: random.Random) -> bytes:
    """A table with one more blemish."""
    place = random.randrange(len(content) + 1)
    stop = min(place + random.choice([1, 1, 2, 5, 40]), len(content))
    mark = random.choice(BYTES)
    rows = content.splitlines(keepends=True) or [b""]
    here, there = random.randrange(len(rows)), random.randrange(len(rows))
    kind = random.randrange(16)
    if kind == 0:
        return content[:place] + content[stop:]
    if kind == 1:
        return content[:place] + mark + content[place:]
    if kind == 2:
        return content[:place] + mark + content[place + 1 :]
    if kind == 3:  # neighbours change places
        return content[:place] + content[place : place + 2][::-1] + content[place + 2 :]
    if kind == 4:
        return content[:stop] + content[place:]
    if kind == 5:  # another digit
        digits = [n for n, byte in enumerate(content) if 48 <= byte < 58]
        place = random.choice(digits) if digits else 0
        return content[:place] + str(random.randrange(10)).encode() + content[place + 1 :]
    if kind == 6:
        return content.replace(b"\n", b"\r\n")
    if kind == 7:
        return b"\xef\xbb\xbf" + content
    if kind == 8:
        return content[:place] + random.choice([b" ", b"x", b"1", b"\n", b"a,"]) * 3000 + content[place:]
    if kind == 9:
        return content[:place]
    if kind == 10:
        rows.insert(there, rows.pop(here))
    elif kind == 11:
        rows.insert(there, rows[here])
    elif kind == 12:
        rows.insert(there, random.choice([b"\n", b"\r\n", b" \n", b"#\n", b"# no \xff text\n", b'"\n', b"\t\r\n"]))
    else:  # another cell
        rows[here] = other_cell(rows[here], dialect, random)
    return b"".join(rows)


def other_cell(row: bytes, dialect: Dialect, random: random.Random) -> bytes:
    """A row, one cell of which is another, or in quotes."""
    cell = random.choice([*CELLS, *dialect.cells, *dialect.cells]).encode(dialect.get("encoding") or "utf-8", "replace")
    end = b"\n" if row.endswith(b"\n") else b""
    widths = dialect.texts("widths")
    if widths:
        width = int(widths[(n := random.randrange(len(widths) - 1))])
        place = sum(map(int, widths[:n]))
        return row[:place] + cell.ljust(width) + row[place + width :]
    delimiter = (dialect.get("delimiter") or ",").encode()
    cells = row.split() if delimiter == b"spaces" else row.removesuffix(b"\n").split(delimiter)
    n = random.randrange(len(cells)) if cells else 0
    cells[n : n + 1] = [random.choice([cell, cell, b'"%b"' % (cells[n] if cells else b"")])]
    return (b" " if delimiter == b"spaces" else delimiter).join(cells) + end


def rows_of(store: Store, unit: str | None) -> list[tuple[Any, ...]]:
    """The rows of a store, as the strict reader has them."""
    columns: list[Sequence[Any]] = []
    for name in store.channels:
        channel = store.channel(name)
        values = store.read(name, 0, store.n_rows).tolist()
        if channel.kind != "number":
            values = [None if math.isnan(code) else channel.categories[int(code)] for code in values]
        columns.append(values)
    times = [Fraction(time, UNITS[str(unit)]) for time in store.times(0, store.n_rows).tolist()]
    ids: list[str] = []
    for id_ in store.ids.tolist():
        start, stop = store.series(id_).rows()
        ids += [id_] * (stop - start)
    return list(zip(ids, times, *columns, strict=True))


def is_same(left: Sequence[tuple[Any, ...]], right: Sequence[tuple[Any, ...]]) -> bool:
    """Whether rows are the same, missing values too."""
    known = [[[None if cell != cell else cell for cell in row] for row in rows] for rows in (left, right)]
    return known[0] == known[1]


class Judge:
    """Ingests damaged tables of one dialect, and compares them with what the strict reader makes of them."""

    def __init__(self, dialect: Dialect, folder: Path) -> None:
        self.dialect = dialect
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.paths = [folder / "a.csv", *(folder / f"{n}.csv" for n in range(len(dialect.others)))]
        self.others = Reading([])
        self.header = read(dialect.clean.encode(), replace(dialect, options={**dialect.options, "encoding": ""})).header
        for path, content in zip(self.paths[1:], dialect.others, strict=True):
            path.write_bytes(content)
            if content:
                self.others.rows += read(content, dialect).rows

    def expected(self, content: bytes, set_aside: Sequence[int] = ()) -> Reading | None:
        """What the strict reader makes of a table; None if it is none."""
        try:
            skipped = not content and self.dialect.get("on_empty_file") == "skip"
            reading = Reading(self.header) if skipped else read(content, self.dialect, set_aside)
        except NoTableError:
            return None
        reading.rows += self.others.rows
        reading.rows.sort(key=lambda row: (row[0].encode(), row[1]))
        return reading

    def ingest(self, mode: Mode, blocksize: int) -> Path:
        """Ingest the table."""
        ingest(
            self.paths,
            self.folder / "s.zarr",
            **self.dialect.options,
            on_bad_row=mode,
            max_bad_rows="100%",
            dtype="float64",
            overwrite=True,
            blocksize=blocksize,
            workers=1,
        )
        return self.folder / "s.zarr"

    def judge(self, content: bytes, mode: Mode, blocksize: int, again: int | None) -> None:
        """Ingest a damaged table and note what is wrong; once more with blocks of another size."""
        self.paths[0].write_bytes(content)
        expected = self.expected(content)
        made: dict[str, bytes] | str
        try:
            path = self.ingest(mode, blocksize)
        except (SourceError, UsageError) as error:
            made = str(error)
            self.judge_refusal(content, expected, mode, error, blocksize)
        else:
            made = stored(path) if again is not None else {}
            if expected is not None and len(expected.header) != len(self.header):  # who knows what these hold
                self.counts["other columns"] += 1
            else:
                self.judge_store(content, expected, mode, path, blocksize)
        if again is not None:
            self.compare(content, mode, again, made)

    def judge_refusal(
        self, content: bytes, expected: Reading | None, mode: Mode, error: Exception, blocksize: int
    ) -> None:
        """A refusal is right where the strict reader refuses, and names the line of a row that is bad, or the header.

        Mostly the first bad row; the first one of too many fields where times are looked at before rows are read.
        """
        text = str(error)
        said = [int(number.replace(",", "")) for number in re.findall(r"a\.csv line ([\d,]+)", text)]
        if expected is None:
            self.counts["no table"] += 1
            if not ("a.csv" in text or isinstance(error, UsageError)):
                self.wrong.append(("nowhere", mode, blocksize, content, text))
            return
        times = [row[:2] for row in expected.rows]
        twice = len(times) > len(set(times))
        first = self.dialect.get("no_header") and said[:1] == expected.bad[:1]  # by which fields are counted
        if (mode == "error" or first) and expected.bad:
            self.counts["refused"] += 1
            known = {*expected.bad, *([1] if text.startswith("no channel") else [])}
            if not known.issuperset(said[:1] or [0]) and "in its first rows" not in text:
                self.wrong.append(("other line", mode, blocksize, content, text, expected.bad))
        elif twice or not expected.rows:
            self.counts["refused"] += 1
        else:
            self.counts["refused though strict"] += 1
            if "a.csv" not in text and not isinstance(error, UsageError):
                self.wrong.append(("nowhere", mode, blocksize, content, text))

    def judge_store(self, content: bytes, expected: Reading | None, mode: Mode, path: Path, blocksize: int) -> None:
        """A store is right where it has the rows of the strict reader, and the others were set aside by their lines."""
        self.counts["stored"] += 1
        aside: list[int] = []
        file = path.with_name(f"{path.name}.quarantine.csv")
        if file.exists():
            limit = csv.field_size_limit(1 << 30)
            with file.open(newline="") as opened:
                aside = [int(row["line"]) for row in csv.DictReader(opened)]
            csv.field_size_limit(limit)
        if expected is not None and not set(expected.bad) <= set(aside):
            self.wrong.append(("bad row taken", mode, blocksize, content, aside, expected.bad))
            return
        if expected is not None and aside != expected.bad:
            self.counts["set aside though strict"] += 1
            expected = self.expected(content, aside)
        store = open_store(path)
        found = rows_of(store, store.schema.time.unit)
        if expected is None or aside != expected.bad or not is_same(found, expected.rows):
            self.wrong.append(("other rows", mode, blocksize, content, found, expected))
            return
        self.counts["rows set aside"] += len(aside)
        ids = self.dialect.texts("id")
        if len(ids) > 1:
            parts = [[static.categories[code] for code in static.values.tolist()] for static in store.statics]  # type: ignore[index]
            joined = ["/".join(re.sub(r"([/\\])", r"\\\1", part) for part in each) for each in zip(*parts, strict=True)]
            if joined != store.ids.tolist():
                self.wrong.append(("other parts", mode, blocksize, content, joined))

    def compare(self, content: bytes, mode: Mode, blocksize: int, made: dict[str, bytes] | str) -> None:
        """Blocks of another size make the same bytes, or the same refusal."""
        again: dict[str, bytes] | str
        try:
            again = stored(self.ingest(mode, blocksize))
        except (SourceError, UsageError) as error:
            again = str(error)
        self.counts["of two sizes"] += 1
        if again != made:
            self.wrong.append(
                ("other bytes", mode, blocksize, content, *(m for m in (made, again) if isinstance(m, str)))
            )


@pytest.mark.parametrize("n_files", [QUICK, pytest.param(ALL, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", DIALECTS)
def test_no_damage_to_a_table_of_a_dialect_is_stored_as_other_rows(
    name: str, n_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, chance = DIALECTS[name], random.Random(f"{name} {n_files}")
    judge = Judge(dialect, tmp_path)
    judge.judge(dialect.clean.encode(dialect.get("encoding") or "utf-8"), "error", 1, 50)
    assert (judge.wrong, judge.counts["stored"]) == ([], 1)
    for n in range(n_files):
        content = damaged(dialect, chance)
        blocksize, again = (chance.randrange(1, 400) for _ in range(2))
        monkeypatch.setattr(blocks, "_MOST_JUDGED_BYTES", chance.choice([30, 1 << 16]))
        monkeypatch.setattr(blocks, "_PARTS", chance.choice([2, 5]))
        judge.judge(content, "quarantine" if n % 2 else "error", blocksize, again if n % 8 in (0, 1) else None)
    counts = judge.counts
    print(f"{name}: {n_files} damaged files: {dict(counts)}")  # noqa: T201  # the figure is asked for
    assert judge.wrong == []
    assert counts["stored"] > n_files // 4
    assert counts["refused though strict"] + counts["set aside though strict"] <= max(1, n_files // 20)
