"""How long a record may be: nothing longer is read into memory, and lines that are no records take none."""

import gzip
import importlib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zstore import SourceError, inspect, open_store
from zstore.printing import show_plan
from zstore.upkeep.compare import compare_sources
from zstore.writing import planner
from zstore.writing.ingest import ingest
from zstore.writing.sources.csv import record_limit, records, sample
from zstore.writing.sources.csv.framing import Framing
from zstore.writing.sources.csv.header import open_source
from zstore.writing.sources.csv.record_limit import first_long, long_record
from zstore.writing.sources.csv.records import is_strict, record_end, split_records, without_blank_lines
from zstore.writing.sources.csv.source import CsvSource
from zstore.writing.sources.csv.table import CsvBlock
from zstore.writing.sources.files import find
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import RecutError
from zstore.writing.sources.table import Columns

MOST = 200
ROWS = "t,id,v\n0,a,0\n1,a,1\n2,a,2\n"


def bound(patch: pytest.MonkeyPatch, most: int = MOST) -> None:
    """Let no record be longer than some bytes."""
    for name in ("blocks", "borders", "header", "record_limit", "sample"):
        patch.setattr(importlib.import_module(f"zstore.writing.sources.csv.{name}"), "MOST_RECORD_BYTES", most)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    bound(monkeypatch)


def packed(path: Path, content: bytes) -> Path:
    """A file of some bytes, compressed as its name says."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, "zstd", asbytes=True)
    path.write_bytes(content)
    return path


LONG = {
    "cell": ("3,a," + "x" * 3000 + "\n", "record", "check that it is a table"),
    "unclosed quote": ('3,a,"' + "\n" * 3000, "record", "close the quote that is open there"),
    "zeros": ("\0" * 3000, "record", "fetch the file again if zeros fill it up"),
    "carriage returns": ("3,a,3\r" * 500, "record", "its lines end in carriage returns alone"),
    "quoted cell": ('3,"' + "x,\n" * 1000 + '",3\n', "record", "close the quote that is open there"),
    "comment": ("#" + "c" * 3000 + "\n", "comment", "shorten the comment"),
}


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst"])
@pytest.mark.parametrize("kind", LONG)
def test_a_record_that_is_too_long_is_refused_with_its_line_and_the_fix(tmp_path: Path, kind: str, ending: str) -> None:
    text, what, fix = LONG[kind]
    path = packed(tmp_path / f"rows.{ending}", f"{ROWS}{text}9,a,9\n".encode())
    for size in (50, 1 << 20):
        for on_bad_row in ("error", "quarantine"):
            with pytest.raises(SourceError, match=rf"a {what} of more than 200 bytes; .*{ending} line 5: .*{fix}"):
                ingest(
                    path,
                    tmp_path / "s.zarr",
                    id="id",
                    time="t",
                    comment="#",
                    blocksize=size,
                    on_bad_row=on_bad_row,
                )
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("size", [20, 300, 1 << 20])
@pytest.mark.parametrize("options", [{"delimiter": "spaces"}, {"widths": ["2", "2", "*"]}])
def test_a_long_line_is_refused_where_lines_are_records(tmp_path: Path, size: int, options: dict[str, str]) -> None:
    (tmp_path / "rows.txt").write_text("t v w\n" + "1 2 3\n" * 50 + "2 3 " + "4" * 300 + "\n3 4 5\n")
    with pytest.raises(SourceError, match=r"a record of more than 200 bytes; .* line 52: '2 3 444"):
        ingest(tmp_path / "rows.txt", tmp_path / "s.zarr", time="t", blocksize=size, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_limit")
def test_a_record_of_just_the_bound_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    for size in (20, 150, 1 << 20):
        for n in (MOST, MOST + 1):
            row = f'3,"{"x" * 90}\n'
            row += "y" * (n - len(row) - 2) + '"\n'
            assert len(row) == n
            (tmp_path / "rows.csv").write_text("t,w\n0,a\n" + row + "4,b\n")
            if n > MOST:
                with pytest.raises(SourceError, match=r"a record of more than 200 bytes; .*rows.csv line 3: "):
                    ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", time="t", blocksize=size, overwrite=True)
            else:
                receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", time="t", blocksize=size, overwrite=True)
                assert receipt.n_stored == 3


class Here:
    """Runs tasks one after the other."""

    def map(self, phase: str, function: Any, items: Any, sizes: Any = None, unit: str = "tasks") -> list[Any]:
        return list(map(function, items))

    def report(self, phase: str, done: int, total: int, unit: str) -> None:
        """Nobody looks."""


def outcome_of(path: Path, options: TableOptions, block_bytes: int) -> tuple[int, int, int] | str:
    """Good rows, bad ones and blank lines of a file; or the line of the record that is too long."""
    csv, file, runner = CsvSource(), find(path, "SRC"), Here()
    files, spec = csv.open([file], [file], options)
    try:
        blocks: list[CsvBlock] | None = csv.cut(files, spec, block_bytes, runner)
        while blocks is not None:
            parts, failed, before = list[Columns](), None, blocks
            try:
                parts = [part for block in blocks for part in csv.read(block, spec, keep_bad=True)]
            except (RecutError, SourceError) as error:
                failed = error
            wrong = failed or [row for part in parts for row in part.bad]
            blocks = csv.recut(files, spec, block_bytes, runner, before, wrong) if wrong else None
        if failed is not None:
            raise failed
    except SourceError as error:
        assert "a record of more than" in str(error)  # noqa: PT017
        return str(error).partition("rows.csv ")[2].partition(":")[0]
    return sum(part.n_rows for part in parts), sum(len(part.bad) for part in parts), sum(part.n_blank for part in parts)


CELLS = st.one_of(
    st.text("ab", max_size=3),
    st.integers(10, 60).map(lambda n: "c" * n),
    st.integers(1, 60).map(lambda n: '"' + "\n" * n + '"'),
    st.sampled_from(['"x,\ny"', '"a""b"', 'str"ay', '"a"b', '"', "\r", '"\r\n"']),
)


@given(
    rows=st.lists(st.one_of(CELLS, st.just(None)), min_size=1, max_size=12),
    most=st.integers(20, 60),
    literal=st.booleans(),
)
@example(rows=["a", 'str"ay', "c" * 60, '"\n"'], most=40, literal=False)
def test_what_is_refused_does_not_depend_on_the_blocks(
    rows: list[str | None], most: int, literal: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("limit")
    records = ["" if cell is None else (f"{n:<3}{cell}" if literal else f"{n},{cell}") for n, cell in enumerate(rows)]
    (folder / "rows.csv").write_bytes("\n".join(["t,note", "99 w" if literal else "99,w", *records]).encode())
    content = (folder / "rows.csv").read_bytes()[len("t,note\n") :]
    framing = Framing(widths=(3, None)) if literal else Framing()
    long = [r.line for r in split_records(content, ",", 0, 2, framing) if len(r.raw) > most]
    options = TableOptions(time=("t",), categories=("note",), delimiter=None if literal else ",")
    if literal:
        options = replace(options, names=("t", "note"), no_header=True, skip_lines=1, widths=("3", "*"))
    with pytest.MonkeyPatch.context() as patch:
        bound(patch, most)
        patch.setattr("zstore.writing.sources.csv.borders._LOOK_BYTES", 7)
        patch.setattr("zstore.writing.sources.csv.exact_borders._PIECE_BYTES", 16)
        outcomes = {outcome_of(folder / "rows.csv", options, size) for size in (5, 17, 40, 1 << 20)}
    if long:  # of several, any
        assert outcomes <= {f"line {line}" for line in long}
    else:
        assert [type(outcome) for outcome in outcomes] == [tuple]


STRICT = st.lists(
    st.sampled_from(["\n", "\r\n", "1,2\n", 'a,"x\n\n\ny"\n', '"",1\r\n', '"a""\n\n""b",\n', ",\n"]), max_size=12
)


@given(lines=STRICT, last=st.sampled_from(["", "1,2", '"\n\n"']))
def test_blank_lines_outside_quotes_are_taken_out_and_nothing_else(lines: list[str], last: str) -> None:
    content = "".join([*lines, last]).encode()
    expected = "".join(line for line in [*lines, last] if line.strip("\r\n")).encode()
    assert without_blank_lines(content) == expected


@given(lines=STRICT, last=st.sampled_from(["", "1,2", '"\n\n"']), most=st.integers(1, 16))
def test_the_first_long_record_is_the_same_to_those_who_look_fast_and_exactly(
    lines: list[str], last: str, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "long.csv"
    content = "".join([*lines, last])
    path.write_bytes(f"t,v\n{content}".encode())
    file = find(path, "SRC")
    source, _ = open_source(file, file, TableOptions(delimiter=","))
    records = list(split_records(content.encode(), ",", 0, 1))
    expected = next((record.byte for record in records if len(record.raw) > most), None)
    assert long_record(content.encode(), most) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_limit, "MOST_RECORD_BYTES", most)
        assert first_long(source, 4, file.n_bytes, ",") == (None if expected is None else expected + 4)


@given(lines=st.lists(st.sampled_from(["#", "# c", "#\r", "1,2", "", " #", "1,#"]), max_size=10), ends=st.booleans())
def test_comments_are_taken_out_and_nothing_else(lines: list[str], ends: bool) -> None:
    text = [line + "\n" for line in lines]
    if text and not ends:
        text[-1] = lines[-1]
    expected = "".join(line for line in text if not line.startswith("#")).encode()
    assert Framing("#").without_comments("".join(text).encode()) == expected


@pytest.mark.parametrize("quoted", [False, True])
def test_rows_among_very_many_blank_lines_are_those_without_them(tmp_path: Path, quoted: bool) -> None:
    cell = '"x\n\ny"' if quoted else "x"
    gap = "\n" * 5000 + "\r\n" * 500
    (tmp_path / "rows.csv").write_bytes(f"t,w\n{gap}0,{cell}\n{gap}1,{cell}\r\n{gap}2,z\n{gap}".encode())
    receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert (receipt.n_stored, receipt.notes[-1]) == (3, "22,000 blank lines were skipped")
    words = store.schema.channels[0].categories or ()
    assert [words[int(n)] for n in store.series("0").read("w")] == [cell.strip('"'), cell.strip('"'), "z"]
    assert compare_sources(store, [tmp_path / "rows.csv"]).n_different == 0
    (tmp_path / "bad.csv").write_bytes(f"t,w\n{gap}0,a\n1,b\n{gap * 3}2,c\n3\n".encode())
    with pytest.raises(SourceError, match=r"short row: 1 fields; .* line 22,005: '3'"):
        ingest(tmp_path / "bad.csv", tmp_path / "bad.zarr", time="t")


def test_of_a_very_long_bad_row_the_first_mebibyte_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("t,v\n0,0\n1,1\n" + '2,"' + "é\n" * (1 << 19) + "3,3\n")
    receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", time="t", on_bad_row="quarantine", max_bad_rows=1.0)
    assert (receipt.n_stored, receipt.n_quarantined) == (2, 1)
    assert any(f"{(1 << 19) + 1:,} lines were set aside as 1 bad rows" in note for note in receipt.notes)
    text = Path(str(receipt.quarantine)).read_text()
    assert text.rstrip().endswith('… (524,294 more bytes)"')
    assert len(text) < 1 << 20


@pytest.fixture
def statics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[object]]:
    """Attributes of a table of static attributes that is read in blocks of some bytes."""
    monkeypatch.setattr("zstore.writing.statics._BLOCK_BYTES", 64)
    (tmp_path / "rows.csv").write_text("t,id,v\n" + "".join(f"0,{n},1\n" for n in range(30)))

    def read(text: str) -> list[object]:
        (tmp_path / "statics.csv").write_text(text)
        ingest(
            tmp_path / "rows.csv",
            tmp_path / "s.zarr",
            time="t",
            id="id",
            static=tmp_path / "statics.csv",
            overwrite=True,
        )
        store = open_store(tmp_path / "s.zarr")
        return [
            [attribute.categories[n] if attribute.categories else n for n in attribute.values.tolist()]
            for attribute in store.statics
        ]

    return read


def test_static_attributes_are_those_of_the_table_whatever_its_blocks(statics: Callable[[str], list[object]]) -> None:
    rows = "".join(f'{n},{n / 2},"w\n{n % 3}"\n\n' for n in reversed(range(30)))
    ids = sorted(range(30), key=str)
    assert statics(f"id,a,w\n{rows}") == [[n / 2 for n in ids], [f"w\n{n % 3}" for n in ids]]
    with pytest.raises(SourceError, match=r"id '7' stands 2 times"):
        statics(f"id,a,w\n{rows}7,1,x\n")
    with pytest.raises(SourceError, match=r"text 'x' in number column 'a'.*statics.csv line 92"):
        statics(f"id,a,w\n{rows}97,x,x\n")
    with pytest.raises(SourceError, match=r"short row.*statics.csv line 92"):
        statics(f"id,a,w\n{rows}97,x\n")


@pytest.mark.usefixtures("small_limit")
def test_a_row_of_static_attributes_that_is_too_long_is_refused(statics: Callable[[str], list[object]]) -> None:
    with pytest.raises(SourceError, match=r"a record of more than 200 bytes.*statics.csv line 3.*close the quote"):
        statics('id,w\n1,a\n2,"' + "\n" * 300)


def test_a_file_without_a_record_that_ends_is_inspected_without_reading_it(tmp_path: Path) -> None:
    path = packed(tmp_path / "rows.csv.gz", b"t,v\n0,1\n1,2\n2,3\n" + b"4" * (8 << 20))
    assert inspect(path).columns[0].name == "t"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv.gz", b"", "no text in its compressed stream; expected a header line and rows. .*rows.csv.gz"),
        ("rows.csv.zst", b"", "no text in its compressed stream; expected a header line and rows. .*rows.csv.zst"),
        ("rows.csv.gz", b"\n\r\n \t\n", "6 blank bytes, and no text; expected a header line and rows"),
        ("rows.csv", b"\xef\xbb\xbf", "3 blank bytes, and no text; expected a header line and rows"),
        (
            "rows.csv",
            b"\nt,v\n1,2\n",
            "blank line in the place of a header; expected column names. .* line 1. Fix: --skip",
        ),
    ],
)
def test_a_file_without_a_text_or_a_header_is_told_so(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = packed(tmp_path / name, content)
    with pytest.raises(SourceError, match=message):
        ingest(path, tmp_path / "s.zarr", id="ID", time="t")
    if not content.strip(b"\xef\xbb\xbf \t\r\n"):
        with pytest.raises(SourceError, match=r"no text in its first lines"):
            inspect(path)


def record_end_by_bytes(content: bytes, start: int) -> int:
    """Where the record at a byte ends, byte by byte."""
    position, at_field, inside = start, True, False
    while position < len(content):
        byte = content[position : position + 1]
        if inside and content[position : position + 2] == b'""':
            position += 1
        elif inside:
            inside = byte != b'"'
        elif at_field and byte == b'"':
            inside = True
        elif byte == b"\n":
            return position + 1
        at_field = byte == b"," and not inside
        position += 1
    return len(content)


@given(text=st.text(alphabet='",\na', max_size=24), start=st.integers(0, 24))
def test_a_record_ends_at_the_first_line_break_outside_fields_that_a_quote_opens(text: str, start: int) -> None:
    start = min(start, len(text))
    assert record_end(text.encode(), start, ",") == record_end_by_bytes(text.encode(), start)


class Searched(bytes):
    """Bytes that count how many of them are looked at where something is looked for."""

    n_bytes = 0

    def find(self, wanted: Any, start: Any = 0, stop: Any = None) -> int:
        """As of bytes."""
        position = super().find(wanted, start, stop)
        type(self).n_bytes += (position if position >= 0 else stop if stop is not None else len(self)) - start
        return position


@pytest.mark.parametrize("field", [b",", b'"a",', b'"a""b",', b'a"b,', b'"\n",'])
def test_the_end_of_a_record_is_looked_for_once_however_many_fields_it_has(
    field: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Searched, "n_bytes", 0)
    content = Searched(field * 5_000 + b"\n1,2\n")
    assert record_end(content, 0, ",") == len(content) - 4
    assert Searched.n_bytes <= 4 * len(content)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst"])
@pytest.mark.parametrize("kind", LONG)
def test_a_dry_run_refuses_a_record_that_is_too_long_as_the_ingest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ending: str
) -> None:
    text, what, fix = LONG[kind]
    monkeypatch.setattr(planner, "_SAMPLE_BYTES", 30)
    monkeypatch.setattr(sample, "_MORE_BYTES", (10, 50))
    path = packed(tmp_path / f"rows.{ending}", f"{ROWS}{text}9,a,9\n".encode())
    with pytest.raises(SourceError, match=rf"a {what} of more than 200 bytes; .*{ending} line 5: .*{fix}"):
        planner.plan_ingest(path, id="id", time="t", comment="#")


@pytest.mark.usefixtures("small_limit")
def test_a_dry_run_refuses_lines_above_the_rows_that_do_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "_SAMPLE_BYTES", 30)
    monkeypatch.setattr(sample, "_MORE_BYTES", (10, 50))
    path = packed(tmp_path / "rows.csv.gz", b't,id,"' + b"x" * 3000)
    with pytest.raises(SourceError, match="no end of the lines above the rows in 200 bytes"):
        planner.plan_ingest(path, id="id", time="t")


@given(st.text(',"a\n', max_size=60), st.integers(0, 70))
@example('t,v\n0,"a\n"\n1,2\n', 9)
def test_the_records_of_a_dry_run_are_the_first_whole_ones(text: str, n_bytes: int) -> None:
    content = f"t,v\n{text}".encode()
    stop = sample._end_of_records(content, n_bytes, find(Path(__file__), "SRC"), TableOptions())
    ends = list(accumulate(len(record.raw) for record in split_records(content[4:], ",", 0, 1)))
    sure = '"' not in text and text.endswith("\n")  # that the last one has ended
    whole = [4 + end for end in ends if n_bytes <= 4 + end < len(content) + sure]
    assert stop == (4 if n_bytes <= 4 else next(iter(whole), None))


def test_a_dry_run_counts_the_rows_that_cannot_be_stored(tmp_path: Path) -> None:
    path = packed(tmp_path / "rows.csv", b"t,id,v\n0,a,0\n1,a,x\n2,a,2\nno,a,2\n")
    planned = planner.plan_ingest(path, id="id", time="t", categories=[], missing=[""])
    assert (planned.n_bad, planned.n_seen) == (2, 4)
    assert "bad rows  2 of the first 4 cannot be stored as they stand" in show_plan(planned, "s.zarr")


MANY = 200_000


@pytest.mark.parametrize("field", ["a,", '"a",', '"",', '"a"b,', '"a""b",', "a ,", '" ,', ","])
def test_fields_of_a_record_are_told_apart_as_far_as_its_columns_go(tmp_path: Path, field: str) -> None:
    path = packed(tmp_path / "rows.csv", f"{ROWS}{field * MANY}\n9,a,9\n".encode())
    tracemalloc.start()
    receipt = ingest(path, tmp_path / "s.zarr", id="id", time="t", on_bad_row="quarantine", max_bad_rows=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (receipt.n_stored, receipt.n_quarantined) == (4, 1)
    assert peak < 25 * len(field) * MANY + (4 << 20)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a," * 2000, "long row: 2001 fields; expected 3"),
        ('"a",' * 2000, "long row: more than 1003 fields; expected 3"),
        ('"a",' * 4, "long row: 5 fields; expected 3"),
        ("a" + ",a" * 1002, "long row: 1003 fields; expected 3"),
    ],
)
def test_a_record_of_too_many_fields_is_told_as_such(tmp_path: Path, row: str, reason: str) -> None:
    path = packed(tmp_path / "rows.csv", f"{ROWS}{row}\n9,a,9\n".encode())
    with pytest.raises(SourceError, match=reason):
        ingest(path, tmp_path / "s.zarr", id="id", time="t")


def test_columns_of_a_header_are_counted_and_bounded(tmp_path: Path) -> None:
    path = packed(tmp_path / "rows.csv", b'"a",' * (1 << 20) + b"\n1\n")
    with pytest.raises(SourceError, match=r"unreadable header \(long row: more than 1048576 fields"):
        ingest(path, tmp_path / "s.zarr", id="id", time="t")


def plain_end(content: bytes, start: int, delimiter: int) -> int:
    """Where the record at a byte ends, byte by byte."""
    inside, opens, position = False, True, start
    while position < len(content):
        byte = content[position]
        if inside:
            if byte == ord('"') and content[position + 1 : position + 2] == b'"':
                position += 1
            elif byte == ord('"'):
                inside = opens = False
        elif byte == ord("\n"):
            return position + 1
        elif byte == ord('"') and opens:
            inside = True
        else:
            opens = byte == delimiter
        position += 1
    return len(content)


@given(st.text(',"a\n\r;', max_size=40), st.integers(0, 40), st.sampled_from(",;"))
def test_a_record_ends_where_its_bytes_say(text: str, start: int, delimiter: str) -> None:
    content = text.encode()
    assert record_end(content, min(start, len(content)), delimiter) == plain_end(content, start, ord(delimiter))


@given(st.text(',"a\n\r', max_size=40), st.integers(1, 8))
def test_quotes_are_strict_or_not_whichever_pieces_they_are_looked_at_in(text: str, size: int) -> None:
    content = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_PIECE_BYTES", size)
        strict = is_strict(content, ",")
    apart = [record.fields for record in split_records(content, ",", 0, 1)]
    if strict:
        assert None not in apart
    assert strict == is_strict(content, ",")
