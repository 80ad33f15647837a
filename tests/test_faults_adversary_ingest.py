"""What an adversary's CSV files led the reader to believe: each is read right now, or refused."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st

from zstore import Receipt, SourceError, Store, UsageError, append, ingest, open_store
from zstore.format.schema import TimeAxis
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.cells import NumberStyle, dialect_of
from zstore.writing.sources.csv.borders import nominal_ranges
from zstore.writing.sources.csv.header import open_source
from zstore.writing.sources.csv.records import record_end
from zstore.writing.sources.files import find
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.times.guesses import dates_or_epochs


def made(tmp_path: Path, text: str, **options: Any) -> tuple[Store, Receipt]:
    """A store of one file, with times in `t`, and its receipt."""
    (tmp_path / "rows.csv").write_text(text)
    receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", **{"time": "t", "overwrite": True, **options})
    return open_store(tmp_path / "s.zarr"), receipt


def values(store: Store, channel: str = "v") -> list[float]:
    numbers: list[float] = store.read(channel, 0, store.n_rows).tolist()
    return numbers


# Times.


@pytest.mark.parametrize(
    ("times", "flag"),
    [
        ([f"2001{day:03}" for day in range(1, 60)], "--time-format %Y%j"),
        (["990130", "990131", "990201", "990202"], "--time-format %y%m%d"),
        (["010130", "010131", "010201", "010202"], "--time-format %y%m%d"),
        ([f"200101{day:02}" for day in range(1, 31)] + ["20010231"], "--time-format %Y%m%d"),
        (["0", *(f"200101{day:02}" for day in range(1, 31))], "--time-format %Y%m%d"),
        (["0", *(str(978_307_200 + 3600 * n) for n in range(30))], "--time-unit s"),
    ],
)
def test_dates_and_epochs_are_asked_about_though_a_few_cells_are_none(times: list[str], flag: str) -> None:
    assert flag in dates_or_epochs(times)


@given(first=st.integers(0, 10**9), step=st.sampled_from([1, 2, 5, 10, 24, 60]))
def test_short_dates_are_told_from_counters(first: int, step: int) -> None:
    assert "--time-format %y%m%d" not in dates_or_epochs([str(first + step * n) for n in range(500)])


@pytest.mark.parametrize(
    ("cells", "line"),
    [(["1", "2", "t", "3"], 4), (["2001-01-01", "2001-01-02", "date", "2001-01-03"], 4), (["mm", "1", "2", "3"], 2)],
)
def test_a_cell_that_is_no_time_is_named_with_its_own_line(tmp_path: Path, cells: list[str], line: int) -> None:
    text = "t,v\n" + "".join(f"{cell},1\n" for cell in cells)
    with pytest.raises(SourceError, match=rf"unreadable time .* line {line}: "):
        made(tmp_path, text)
    store, receipt = made(tmp_path, text, on_bad_row="quarantine")
    assert (store.n_rows, receipt.n_quarantined) == (3, 1)


@pytest.mark.parametrize(
    ("axis", "text", "expected"),
    [
        (TimeAxis("s"), "2001", 978_307_200),
        (TimeAxis("s"), "2001-01-01 00:00:01.000", 978_307_201),
        (TimeAxis("ms"), "2001-01-01T00:00:00.5", 978_307_200_500),
        (TimeAxis("s", zone="UTC"), "2001-01-01 01:00+01:00", 978_307_200),
        (TimeAxis("s", zone="UTC"), "2001-01-01T00:00Z", 978_307_200),
        (TimeAxis("ns"), "1600-01-01", -(2**63 - 1)),
        (TimeAxis("s"), "2001-01-01T00:00:00.5", None),
        (TimeAxis("s"), "2001-01-01T00:00+05:00", None),
        (TimeAxis("s"), "2001-01-01T00:00Z", None),
        (TimeAxis("s"), "NaT", None),
        (TimeAxis("s"), "now", None),
        (TimeAxis("s"), "today", None),
        (TimeAxis("s"), "", None),
        (TimeAxis(None), "-12", -12),
        (TimeAxis(None), "1_0", None),
        (TimeAxis(None), 1.5, None),
    ],
)
def test_a_time_that_a_person_types_is_what_it_says_or_refused(axis: TimeAxis, text: Any, expected: int | None) -> None:
    if expected is not None:
        assert axis.parse(text) == expected
        return
    with pytest.raises(ValueError, match=r".*"):
        axis.parse(text)


def test_numbered_rows_do_not_start_at_the_moment_of_the_ingest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--start now"):
        made(tmp_path, "v\n1\n2\n", time=None, freq="1D", start="now")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["t", "v"]}, "column 't' in --time and in --channels"),
        ({"id": "t"}, "column 't' in --time and in --id"),
        ({"time": ["t", "v", "v"]}, "column 'v' twice in --time"),
    ],
)
def test_a_column_of_times_is_nothing_else(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(tmp_path, "t,v,w\n1,1,1\n2,2,2\n", **options)


# Words that look like numbers.


@pytest.mark.parametrize(
    "cells",
    [
        ["45\u00a0%", "5\u00a0%"],
        ["45\u202f€", "5\u202f€"],
        ["USD 5", "USD 6"],
        ["12 mm", "5.5 mm"],
        ["12m/s", "5m/s"],
        ["1.25D+02", "1.5D-01"],
        ["- 5", "- 6"],
        ["\uff11\uff12", "\uff15"],
        ["\u0661\u0662", "\u0663"],
        ["-", "1,5", "n/a", "2,25"],
        ["<0.5", ">0.6"],
        ["5*", "6*"],
        ["~5", "~6"],
        ["'5'", "'6'"],
        ["5.1 \u00b0C", "6 \u00b0C"],
        ["\ufeff5", "\ufeff6"],
        ["1\u00b75", "2\u00b75"],
    ],
)
def test_words_that_a_person_reads_as_numbers_are_refused(tmp_path: Path, cells: list[str]) -> None:
    text = "t;v\n" + "".join(f"{n};{cell}\n" for n, cell in enumerate(cells))
    with pytest.raises(SourceError, match=r"column 'v' holds words such as .* that look like"):
        made(tmp_path, text, delimiter=";")
    store, _ = made(tmp_path, text, delimiter=";", categories=["v"])
    assert set(store.channel("v").categories or ()) == set(cells)


@pytest.mark.parametrize(
    "cells",
    [
        ["a", "b"],
        ["2m", "2m"],
        ["1a", "2b"],
        ["Q1", "Q2"],
        ["-", "n/a"],
        ["NW", "SE"],
        ["#1", "#2"],
        ["1/2", "3/4"],
        ["5-6", "7-8"],
    ],
)
def test_other_words_are_words(cells: list[str]) -> None:
    assert dialect_of(cells, "v", NumberStyle()) is None


def test_a_space_of_any_kind_stands_before_a_percent_sign(tmp_path: Path) -> None:
    store, _ = made(tmp_path, "t,v\n1,45\u00a0%\n2,5 %\n3,6%\n", percent=["v"])
    assert values(store) == [45, 5, 6]


@pytest.mark.parametrize("cell", ["0,123", "00,123", "012,345"])
def test_digits_that_begin_with_0_are_not_grouped(tmp_path: Path, cell: str) -> None:
    with pytest.raises(SourceError, match=rf"text '{cell}' in number column 'v'.* line 3"):
        made(tmp_path, f't,v\n1,"1,234"\n2,"{cell}"\n', thousands=",")


LATE = 9000  # rows that are more than what decides on the kind of a column


@pytest.mark.parametrize("late", ["{}.5", '"{},5"'])
def test_numbers_behind_many_words_are_refused_with_their_line(tmp_path: Path, late: str) -> None:
    rows = [f"{n:09},-" for n in range(LATE)] + [f"{n:09},{late.format(n)}" for n in range(LATE, LATE + 100)]
    text = "t,v\n" + "\n".join(rows) + "\n"
    with pytest.raises(SourceError, match=rf"column 'v'.* line {LATE + 2:,}\."):
        made(tmp_path, text)
    assert not (tmp_path / "s.zarr").exists()
    store, _ = made(tmp_path, text, categories=["v"])
    assert len(store.channel("v").categories or ()) == 101
    if "," not in late:
        store, _ = made(tmp_path, text, missing=["v=-"])
        np.testing.assert_array_equal(values(store)[-101:], [np.nan, *(n + 0.5 for n in range(LATE, LATE + 100))])


def test_an_append_of_numbers_to_words_is_refused_until_they_are_named(tmp_path: Path) -> None:
    made(tmp_path, "t,v\n1,-\n2,-\n")
    more = write_table(tmp_path / "more.csv", ["t", "v"], [[3, 4.5], [4, 5]])
    with pytest.raises(SourceError, match=r"number '4.5' in column 'v' of words.*more.csv line 2.*--categories v"):
        append(more, tmp_path / "s.zarr")
    append(more, tmp_path / "s.zarr", given={"categories": ["v"]})
    append(write_table(tmp_path / "again.csv", ["t", "v"], [[5, 6]]), tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").channel("v").categories == ("-", "4.5", "5", "6")
    with pytest.raises(UsageError, match="--categories"):
        append(write_table(tmp_path / "c.csv", ["t", "v"], [[7, 6]]), tmp_path / "s.zarr", given={"categories": ["w"]})


def test_a_number_among_words_of_an_append_is_a_word(tmp_path: Path) -> None:
    made(tmp_path, "t,v\n1,A1\n2,B2\n")
    append(write_table(tmp_path / "more.csv", ["t", "v"], [[3, 77], [4, "A3"]]), tmp_path / "s.zarr")
    assert set(open_store(tmp_path / "s.zarr").channel("v").categories or ()) == {"A1", "B2", "77", "A3"}


# What options and files may say.


@pytest.mark.parametrize("most", [float("nan"), -1, -0.5, 1.5, float("inf")])
def test_a_ceiling_of_bad_rows_is_a_number_or_a_share(tmp_path: Path, most: float) -> None:
    with pytest.raises(UsageError, match="--max-bad-rows"):
        made(tmp_path, "t,v\n1,1\n", max_bad_rows=most)
    made(tmp_path, "t,v\n1,1\n")
    with pytest.raises(UsageError, match="--max-bad-rows"):
        append(tmp_path / "rows.csv", tmp_path / "s.zarr", max_bad_rows=most)


@pytest.mark.parametrize("encoding", ["hex", "zlib", "rot13", "base64", "no-such", "undefined", "punycode"])
def test_an_encoding_that_is_not_of_this_text_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises((UsageError, SourceError), match=encoding):
        made(tmp_path, "t,v\n1,1\n", encoding=encoding)


def test_a_column_without_a_name_is_no_series(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="column 1 has no name"):
        made(tmp_path, ",t,a\n0,1,5\n1,2,6\n", layout="wide")
    store, _ = made(tmp_path, ",t,a\n0,1,5\n1,2,6\n", layout="wide", leave_out=[""])
    assert store.ids.tolist() == ["a"]


# Stores that were appended to, and their sources.


def added(tmp_path: Path, name: str, text: str, **options: Any) -> Path:
    """A file whose rows were appended to the store of `made`."""
    path = tmp_path / name
    path.write_text(text)
    append(path, tmp_path / "s.zarr", **options)
    return path


@pytest.mark.parametrize(
    ("first", "second", "options"),
    [
        ("t;v\n1;1.5\n", "t,v\n3,4\n", {}),
        ("t,v\n2001-01-01 00:00:00.5,1\n", "t,v\n2001-01-03,4\n", {}),
        ("t,v\n5,1\n6,1\n", "t,v\n20010131,4\n20010201,4\n", {}),
        ("t,v\n1,x\n", "t,v\n3,7\n4,y\n", {}),
        ("t,v\n1,1\n", "v,t\n,3\n", {}),
        ("t,v,w\n1,1,a\n", "t,v,w\n3,4,b\n", {"rename": {"v": "w", "w": "v"}}),
    ],
)
def test_a_sound_store_equals_its_files_in_any_order_and_each_dialect(
    tmp_path: Path, first: str, second: str, options: dict[str, Any]
) -> None:
    made(tmp_path, first, **options)
    files = [tmp_path / "rows.csv", added(tmp_path, "more.csv", second)]
    store = open_store(tmp_path / "s.zarr")
    for order in (files, files[::-1]):
        compared = compare_sources(store, order)
        assert (compared.n_rows, compared.n_different, compared.n_unseen) == (store.n_rows, 0, 0), compared
    files[1].write_text(second.replace("3", "2", 1))
    assert compare_sources(store, files).n_different + compare_sources(store, files).n_unseen > 0


def test_a_file_whose_only_row_is_bad_is_compared_too(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("t,v\nnever,1\n")
    text = "t,v\n2001-01-01,1\n2001-01-02,2\n2001-01-03,3\n"
    (tmp_path / "rows.csv").write_text(text)
    files = [tmp_path / "rows.csv", tmp_path / "bad.csv"]
    ingest(files, tmp_path / "s.zarr", time="t", on_bad_row="quarantine")
    compared = compare_sources(open_store(tmp_path / "s.zarr"), files)
    assert (compared.n_rows, compared.n_bad, compared.n_different) == (3, 1, 0)


@pytest.mark.parametrize("options", [{"missing": ["q=-9", ""]}, {"categories": ["q"]}, {"percent": ["q"]}])
def test_options_may_name_static_attributes_that_were_replaced(tmp_path: Path, options: dict[str, Any]) -> None:
    cell = "5%" if "percent" in options else "5"
    (tmp_path / "static.csv").write_text(f"id,q\na,{cell}\n")
    made(tmp_path, "t,id,v\n1,a,1\n", static=tmp_path / "static.csv", id="id", **options)
    (tmp_path / "other.csv").write_text("id,w\na,7\n")
    files = [tmp_path / "rows.csv", added(tmp_path, "b.csv", "t,id,v\n2,a,2\n", static=tmp_path / "other.csv")]
    files.append(added(tmp_path, "c.csv", "t,id,v\n3,a,3\n"))
    store = open_store(tmp_path / "s.zarr")
    assert (values(store), [static.name for static in store.statics]) == ([1, 2, 3], ["w"])
    assert compare_sources(store, files).n_different == 0


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("v\n1\n2\n")
    monkeypatch.chdir(tmp_path)
    paths: list[str | Path] = ["rows.csv", tmp_path / "rows.csv", f"../{tmp_path.name}/rows.csv"]
    assert ingest(paths, "s.zarr", freq="1").n_stored == 2


def test_a_header_may_be_longer_than_the_first_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zstore.writing.sources.csv.header._HEAD_BYTES", 50)
    names = [f"gauge {n:04}" for n in range(100)]
    store, _ = made(tmp_path, ",".join(["t", *names]) + "\n1" + ",5" * 100 + "\n", layout="wide")
    assert (store.ids.tolist(), store.n_rows) == (names, 100)


# Quotes, lines and missing times.


def test_a_stray_quote_spoils_its_own_record_whatever_the_blocks(tmp_path: Path) -> None:
    rows = [f'{n},"x\ny{n}"' if n % 3 else f"{n},plain{n}" for n in range(30)]
    rows[6] = '6,pl"ain6'
    (tmp_path / "rows.csv").write_text("t,note\n" + "\n".join(rows) + "\n")
    for size in (20, 33, 64, 150, None):
        with pytest.raises(SourceError, match=r"a quote stands inside an unquoted field.* line 12: "):
            ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", time="t", blocksize=size, overwrite=True)
        options: dict[str, Any] = {"time": "t", "blocksize": size, "on_bad_row": "quarantine", "overwrite": True}
        receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", **options)
        assert (receipt.n_stored, receipt.n_quarantined) == (29, 1), size


PIECES = ['"', '"', "a", ",", "\n", "\n", '""', '"x\ny"', ',"q",', "\r\n", "1"]


@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=60),
    blocksize=st.integers(1, 20),
    n_bytes=st.sampled_from([1, 2, 3, 8, 1000]),
)
def test_blocks_end_where_records_end_though_quotes_are_stray(
    pieces: list[str], blocksize: int, n_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from zstore.writing.sources.csv.exact_borders import exact_blocks

    path = tmp_path_factory.getbasetemp() / "quotes.csv"
    content = ("t,a\n" + "".join(pieces)).encode()
    path.write_bytes(content)
    file = find(path, "SRC")
    source, _ = open_source(file, file, TableOptions(delimiter=","))
    ends, position = [], source.body
    while position < len(content):
        position = record_end(content, position, ",")
        ends.append(position)
    stops = [stop for _, stop in nominal_ranges(source, blocksize)]
    borders = sorted({source.body, *(min(end for end in ends if end >= stop) for stop in stops)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zstore.writing.sources.csv.exact_borders._PIECE_BYTES", n_bytes)
        found = [(block.start, block.stop) for block in exact_blocks(source, blocksize, ",")]
    assert found == list(pairwise(borders))


def test_rows_behind_a_quote_that_is_not_closed_are_counted(tmp_path: Path) -> None:
    rows = [f"{n},{n}" for n in range(100)]
    rows[90] = '90,"90'
    text = "t,v\n" + "\n".join(rows) + "\n"
    _, receipt = made(tmp_path, text, on_bad_row="quarantine")
    assert any("10 lines were set aside as 1 bad rows, the first from" in note for note in receipt.notes)
    with pytest.raises(SourceError, match="10 of 100 lines are bad"):
        made(tmp_path, text, on_bad_row="quarantine", max_bad_rows=0.05)


@pytest.mark.parametrize(
    ("header", "good", "bad", "options"),
    [
        ("t,v", "1,5", "-999,5", {"time": "t", "missing": ["t=-999"]}),
        ("t,v", "2001-01-01,5", "1900-01-01,5", {"time": "t", "missing": ["t=1900-01-01"]}),
        ("Y,M,D,v", "2001,2,3,5", "2001,1,1,5", {"time": ["Y", "M", "D"], "missing": ["D=1"]}),
    ],
)
def test_a_time_that_a_text_of_its_column_says_is_missing_makes_a_bad_row(
    tmp_path: Path, header: str, good: str, bad: str, options: dict[str, Any]
) -> None:
    text = f"{header}\n{good}\n{bad}\n"
    with pytest.raises(SourceError, match=r"missing time .* line 3"):
        made(tmp_path, text, **options)
    store, receipt = made(tmp_path, text, on_bad_row="quarantine", **options)
    assert (store.n_rows, receipt.n_quarantined) == (1, 1)
    assert not [note for note in receipt.notes if "never occurred" in note]


def test_an_id_is_never_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--missing id=NA of the id column"):
        made(tmp_path, "t,id,v\n1,NA,1\n", id="id", missing=["id=NA"])


@pytest.mark.parametrize("neighbour", ["2,2,x", "2,oops,x", '2,"2",x'])
def test_bytes_that_are_not_utf8_are_refused_in_columns_that_are_not_read_too(tmp_path: Path, neighbour: str) -> None:
    (tmp_path / "rows.csv").write_bytes(f"t,v,n\n1,1,caf\u00e9\n{neighbour}\n3,3,x\n".encode("latin-1"))
    options: dict[str, Any] = {"time": "t", "leave_out": ["n"], "overwrite": True}
    with pytest.raises(SourceError, match=r"byte 0xe9 is not UTF-8.* line 2: "):
        ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", **options)
    receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", on_bad_row="quarantine", max_bad_rows=2, **options)
    assert receipt.n_quarantined == 1 + ("oops" in neighbour)


@pytest.mark.parametrize(
    ("magic", "what"),
    [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "Excel"), (b"PAR1", "Parquet"), (b"\x89HDF\r\n", "HDF5")],
)
def test_a_file_that_is_no_text_is_named_for_what_it_is(tmp_path: Path, magic: bytes, what: str) -> None:
    (tmp_path / "rows.csv").write_bytes(magic + bytes(range(200)))
    with pytest.raises(SourceError, match=what):
        ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", time="t")


@pytest.mark.parametrize("form", ["%Y %H", "%m/%Y %H:%M", "%Y-%m %I %p"])
def test_a_format_with_a_clock_has_a_day(tmp_path: Path, form: str) -> None:
    with pytest.raises(UsageError, match="a day"):
        made(tmp_path, "t,v\n1,1\n", time_format=form)


def test_new_series_without_static_attributes_are_noted(tmp_path: Path) -> None:
    (tmp_path / "static.csv").write_text("id,q\na,5\n")
    made(tmp_path, "t,id,v\n1,a,1\n", id="id", static=tmp_path / "static.csv")
    receipt = append(write_table(tmp_path / "b.csv", ["t", "id", "v"], [[1, "b", 2]]), tmp_path / "s.zarr")
    assert receipt is not None
    assert "1 new series have no static attributes" in receipt.notes


def test_words_of_any_length_are_judged_at_once() -> None:
    long = ["-" * 1_000_000 + "x", "1." * 500_000 + "x", "1" * 1_000_000]
    assert dialect_of(long, "v", NumberStyle()) is None
    assert dialect_of([*long, *["1,5"] * 99], "v", NumberStyle()) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "2001-01-01"}, "--start 2001-01-01 with --time"),
        ({"time_format": "%Y", "time_unit": "s"}, "--time-unit s with --time-format"),
        ({"time": ["t", "v"], "time_format": "%Y"}, "--time-format '%Y' of 2 columns"),
        ({"time": None, "freq": "1", "time_unit": "s"}, "--time-unit s with no --time"),
        ({"rename": {"v": ""}}, "--rename v="),
        ({"channels": ["v", "v"]}, "change --channels"),
    ],
)
def test_no_option_is_passed_over(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(tmp_path, "t,v,w\n1,1,1\n", **options)


def test_a_wide_file_may_have_none_of_the_series_that_were_chosen(tmp_path: Path) -> None:
    files = [
        write_table(tmp_path / "a.csv", ["t", "a"], [[1, 1]]),
        write_table(tmp_path / "b.csv", ["t", "b", "a"], [[2, 5, 3]]),
    ]
    ingest(files, tmp_path / "s.zarr", time="t", layout="wide", channels=["b"], allow_new_channels=True)
    store = open_store(tmp_path / "s.zarr")
    assert (store.ids.tolist(), values(store, "value")) == (["b"], [5])
    assert compare_sources(store, files).n_different == 0
