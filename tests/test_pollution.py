"""Damage to a clean file, one character or one field at a time: stored as a strict reader has it, or refused."""

import itertools
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from zstore import SourceError, ingest, open_store
from zstore.format.storage import File
from zstore.writing.sources import csv as source_csv
from zstore.writing.sources.files import find
from zstore.writing.sources.sniff import TableOptions, open_source, sniff
from zstore.writing.sources.table import TableSpec

HEADER = "id,time,level,flow\n"
PLAIN = ["a1,2001-01-02,1.5,NA\n", "0042,2001-01-02,-3e2,7\n"]
QUOTED = ['"b, ""x""",2001-01-03,"2.25",\n', '"line\nbreak",2001-01-04,0,1\n']
GOOD = [f"z{n},2001-01-01,{n}.5,{n}\n" for n in range(6)]
CHARACTERS = [
    b",",
    b'"',
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"x",
    b"0",
    b"9",
    b"-",
    b".",
    b"e",
    b";",
    b"\xff",
    "é".encode(),
]
FIELDS = [
    "",
    " ",
    "nan",
    "inf",
    "1e400",
    "1e39",
    "0x10",
    "1,5",
    '"',
    '""',
    '"a',
    'a"',
    '"a"b',
    "١",
    "1_0",
    "NULL",
    "None",
    "\ufeff",
]

# An oracle of its own: one regular expression per record, nothing shared with the code.
FIELD = r'(?:"((?:[^"]|"")*)"|([^",\n]*))'
RECORD = re.compile(rf"{FIELD},{FIELD},{FIELD},{FIELD}\r?(?:\n|\Z)")
NUMBER = re.compile(
    r"[ \t]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t]*|[ \t]*[+-]?(inf|infinity|nan)[ \t]*", re.I | re.A
)
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")

Row = tuple[str, str, float, float]


def oracle(content: bytes) -> list[Row] | None:
    """The rows as a strict reader has them, or None if any record is not as declared."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    rows, position = [], 0
    while position < len(text):
        match = RECORD.match(text, position)
        if match is None:
            return None
        groups = match.groups()
        pairs = [groups[n : n + 2] for n in range(0, 8, 2)]
        cells = [plain if quoted is None else quoted.replace('""', '"') for quoted, plain in pairs]
        if match.group().endswith("\r"):
            return None
        cells[3] = cells[3].removesuffix("\r") if groups[6] is None else cells[3]
        if any("\r" in plain for quoted, plain in pairs[:3] if quoted is None) or "\r" in (
            cells[3] if groups[6] is None else ""
        ):
            return None
        if not cells[0] or not re.fullmatch(
            r"\d{4}-\d\d-\d\d( \d\d(:\d\d(:\d\d)?)?)?", cells[1].replace("T", " "), re.A
        ):
            return None
        try:
            np.datetime64(cells[1].replace(" ", "T"), "s")
        except ValueError:
            return None
        numbers = []
        for cell in cells[2:]:
            if cell not in MISSING and not NUMBER.fullmatch(cell):
                return None
            number = math.nan if cell in MISSING else float(cell)
            if math.isinf(number) and "n" not in cell.lower():
                return None
            numbers.append(number)
        rows.append((cells[0], cells[1].replace("T", " "), *numbers))
        position = match.end()
    return rows  # type: ignore[return-value]


def mutations(rows: list[str]) -> list[bytes]:
    """Every way to change one character or one field of the rows."""
    clean = "".join(rows).encode()
    found = []
    for place in range(len(clean)):
        found.append(clean[:place] + clean[place + 1 :])
        for character in CHARACTERS:
            found.append(clean[:place] + character + clean[place:])
            found.append(clean[:place] + character + clean[place + 1 :])
    for number, row in enumerate(rows):
        cells = row.rstrip("\n").split(",")
        for place, field in itertools.product(range(len(cells)), FIELDS):
            changed = [*cells[:place], field, *cells[place + 1 :]]
            found.append("".join([*rows[:number], ",".join(changed) + "\n", *rows[number + 1 :]]).encode())
    return found


def as_rows(path: Path, spec: TableSpec) -> list[Row]:
    """What the reader of one block makes of a file."""
    source, _ = open_source(as_file(path), as_file(path), ",")
    size = path.stat().st_size
    block = source_csv.align(source, [(source.body, size)], [0])[0]
    columns = source_csv.read_block(block, spec, keep_bad=False)
    if any(np.isinf(channel).any() for channel in columns.channels):
        columns = source_csv.read_block(block, spec, keep_bad=False, judge_all=True)
    ids = [columns.ids[code].as_py() for code in columns.codes.tolist()]
    return list(zip(ids, columns.times.tolist(), *(channel.tolist() for channel in columns.channels), strict=True))


def as_file(path: Path) -> File:
    return find(path, "SRC")


def same(found: list[Row], expected: list[Row]) -> bool:
    times = [int(np.datetime64(row[1].replace(" ", "T"), "s").astype(int)) for row in expected]
    if [row[:2] for row in found] != [(row[0], time) for row, time in zip(expected, times, strict=True)]:
        return False
    return np.array_equal(
        np.array([r[2:] for r in found], float), np.array([r[2:] for r in expected], float), equal_nan=True
    )


@pytest.mark.parametrize("rows", [PLAIN, QUOTED, PLAIN + QUOTED], ids=["plain", "quoted", "both"])
def test_no_damage_to_a_file_makes_a_wrong_cell(rows: list[str], tmp_path: Path) -> None:
    path, counts = tmp_path / "r.csv", Counter[str]()
    path.write_text(HEADER + "".join(GOOD + rows))
    source, delimiter = open_source(as_file(path), as_file(path))
    spec = sniff([source], delimiter, TableOptions(id="id", time=("time",)))
    wrong, nowhere = [], []
    for content in mutations(rows):
        whole = "".join(GOOD).encode() + content
        path.write_bytes(HEADER.encode() + whole)
        expected = oracle(whole)
        try:
            found = as_rows(path, spec)
        except SourceError as error:
            if " line " not in str(error):
                nowhere.append((content, str(error)))
            counts["refused" if expected is None else "refused though strict"] += 1
            continue
        if expected is None or not same(found, expected):
            wrong.append(content)
        counts["stored"] += 1
    assert (wrong, nowhere) == ([], [])
    assert counts["stored"] > 0
    assert counts["refused"] > 0
    # A lone carriage return and a NUL are text to RFC 4180's grammar, but no reader agrees on them.
    assert counts["refused though strict"] <= 0.05 * counts.total()


@pytest.mark.parametrize("on_bad_row", ["error", "quarantine"])
def test_a_sample_of_the_damage_goes_the_whole_way(tmp_path: Path, on_bad_row: str) -> None:
    path = tmp_path / "r.csv"
    for content in random.Random(1).sample(mutations(PLAIN + QUOTED), 60):
        whole = "".join(GOOD).encode() + content
        path.write_bytes(HEADER.encode() + whole)
        expected = oracle(whole)
        try:
            receipt = ingest(
                path,
                tmp_path / "s.zarr",
                id="id",
                time="time",
                on_bad_row=on_bad_row,  # type: ignore[arg-type]
                overwrite=True,
                blocksize=50,
            )
        except SourceError:
            assert expected is None or on_bad_row == "error"
            continue
        store = open_store(tmp_path / "s.zarr")
        assert receipt.n_rows_in == receipt.n_stored + receipt.n_quarantined == store.n_rows + receipt.n_quarantined
        if expected is not None and not receipt.n_quarantined:
            assert sorted(store.ids.tolist()) == sorted({row[0] for row in expected})
