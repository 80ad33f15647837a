"""Ids in several columns, dates and clocks apart, series in rows: tables that plain flags do not describe."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from conftest import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import SourceError, UsageError, append, ingest, open_store
from zstore.arrow import text_array
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.ids import join_id, joined_ids, split_id
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.times.formats import check_format, read_one
from zstore.writing.sources.times.spec import TimeSpec
from zstore.writing.sources.times.zones import to_utc

CLOCKS = ["00:00", "23:59", "01:02:03", "1:00", "07", "24:00", "00:00:00.500", "", "12:30Z", "12:30+02:00", " 01:00"]
DATES = ["2001-01-01", "2000-02-29", "2001-02-29", "9999-12-31", "0001-01-01", "2001-01-01 00", "1.2.2001", ""]


def times_of(path: Path) -> list[int]:
    store = open_store(path)
    return store.times(0, store.n_rows).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("date", "clock", "form"),
    [
        ("2001-02-03", "04:05", None),
        ("03.02.2001", "4:05", "%d.%m.%Y %H:%M"),
        ("3 Feb 2001", "04:05 AM", "%d %b %Y %I:%M %p"),
    ],
)
def test_a_date_and_a_clock_in_two_columns_are_one_time(
    date: str, clock: str, form: str | None, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "a.csv", ["d", "h", "x"], [[date, clock, 1]])
    ingest(path, tmp_path / "a.zarr", time=["d", "h"], time_format=form)
    assert times_of(tmp_path / "a.zarr") == [int(datetime(2001, 2, 3, 4, 5, tzinfo=UTC).timestamp())]
    assert open_store(tmp_path / "a.zarr").channels == ("x",)
    assert compare_sources(open_store(tmp_path / "a.zarr"), [path]).n_different == 0


def test_a_clock_that_there_is_not_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["d", "h", "x"], [["2001-01-01", "01:00", 1], ["2001-01-01", "24:00", 1]])
    with pytest.raises(SourceError, match=r"unreadable time '24:00' in column 'h'.*a\.csv line 3"):
        ingest(path, tmp_path / "a.zarr", time=["d", "h"])


def test_a_format_of_two_columns_has_a_date_before_a_space_and_a_clock_behind_it(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["d", "h", "x"], [["2001-01-01", "01:00", 1]])
    with pytest.raises(UsageError, match="the date, a space, and the clock"):
        ingest(path, tmp_path / "a.zarr", time=["d", "h"], time_format="%Y-%m-%dT%H:%M")


@given(
    st.lists(st.tuples(st.sampled_from(DATES), st.sampled_from(CLOCKS)), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["s", "ms", "ns"]),
)
def test_dates_and_clocks_are_read_alike_one_by_one_and_in_blocks(
    rows: list[tuple[str, str]], zone: bool, unit: str
) -> None:
    agree(TimeSpec("iso", ("d", "h"), unit, zone), rows)


@given(
    st.dates(min_value=datetime(1, 1, 2, tzinfo=UTC).date()),
    st.times(),
    st.sampled_from(["%d.%m.%Y %H:%M", "%Y%j %H%M%S"]),
)
def test_dates_and_clocks_in_a_format_are_those_of_strptime(date: object, clock: object, form: str) -> None:
    day, time = form.split(" ")
    texts = (date.strftime(day), clock.strftime(time))  # type: ignore[attr-defined]
    year = int(date.strftime("%Y"))  # type: ignore[attr-defined]
    spec = TimeSpec("format", ("d", "h"), "s", format=form)
    if year >= 1000:  # which strftime pads
        expected = datetime.strptime(" ".join(texts), form).replace(tzinfo=UTC)
        assert spec.read_cells(texts) == int(expected.timestamp())
    agree(spec, [texts])


def agree(spec: TimeSpec, rows: Sequence[tuple[str, str]]) -> None:
    """A block is read if every row is, and to the same times."""
    strict = [spec.read_cells(row) for row in rows]
    columns = [pa.array([row[n] for row in rows]).dictionary_encode() for n in range(2)]
    table = pa.table(columns, names=["d", "h"])
    if None in strict:
        with pytest.raises(RefusedError):
            spec.read(table, len(rows))
    else:
        assert spec.read(table, len(rows)).tolist() == strict
    assert [spec.judge(dict(zip("dh", row, strict=True))) is None for row in rows] == [t is not None for t in strict]


def test_ids_of_several_columns_are_joined_and_their_parts_are_static_attributes(tmp_path: Path) -> None:
    rows = [["01", "a/b", "2001-01-01", 1], ["01", "a", "2001-01-01", 2], ["01/a", "b", "2001-01-01", 3]]
    path = write_table(tmp_path / "a.csv", ["station", "layer", "time", "x"], rows)
    ingest(path, tmp_path / "a.zarr", id=["station", "layer"], time="time", blocksize=1)
    store = open_store(tmp_path / "a.zarr")
    assert {str(id_): store.read("x", n, n + 1)[0] for n, id_ in enumerate(store.ids)} == {
        join_id(row[:2]): row[3]  # type: ignore[arg-type]
        for row in rows
    }
    more = write_table(tmp_path / "b.csv", ["station", "layer", "time", "x"], [["00", "a/b", "2001-01-02", 4]])
    append(more, tmp_path / "a.zarr", given={"id": ["station", "layer"]})
    store = open_store(tmp_path / "a.zarr")
    parts = {static.name: [str(static.categories[code]) for code in static.values] for static in store.statics}  # type: ignore[index]
    assert [split_id(str(id_)) for id_ in store.ids] == list(zip(parts["station"], parts["layer"], strict=True))
    assert compare_sources(store, [path, more]).n_different == 0
    with pytest.raises(SourceError, match="empty id in column 'layer'"):
        ingest(
            write_table(tmp_path / "c.csv", ["station", "layer", "time", "x"], [["1", "", "2001-01-01", 1]]),
            tmp_path / "c.zarr",
            id=["station", "layer"],
            time="time",
        )


def test_static_attributes_of_ids_in_several_columns_are_found_by_all_of_them(tmp_path: Path) -> None:
    rows = [["s", "up", "2001-01-01", 1], ["s", "low", "2001-01-01", 2]]
    path = write_table(tmp_path / "a.csv", ["station", "layer", "time", "x"], rows)
    statics = write_table(tmp_path / "s.csv", ["layer", "depth", "station"], [["up", 1, "s"], ["low", 9, "s"]])
    assert (
        main(
            [
                "ingest",
                str(path),
                str(tmp_path / "a.zarr"),
                "--id",
                "station,layer",
                "--time",
                "time",
                "--static",
                str(statics),
            ]
        )
        == 0
    )
    store = open_store(tmp_path / "a.zarr")
    assert [str(id_) for id_ in store.ids] == ["s/low", "s/up"]
    assert {static.name: static.values.tolist() for static in store.statics} == {
        "station": [0, 0],
        "layer": [0, 1],
        "depth": [9, 1],
    }


@given(st.lists(st.lists(st.text(alphabet="a/\\b", max_size=4), min_size=2, max_size=2), max_size=6))
def test_ids_of_several_parts_are_joined_reversibly(rows: list[list[str]]) -> None:
    assert [list(split_id(join_id(row))) for row in rows] == rows
    columns = []
    for n in range(2):
        words = sorted({row[n] for row in rows})
        columns.append((np.array([words.index(row[n]) for row in rows], np.int32), text_array(words)))
    codes, ids = joined_ids(columns)
    assert [ids[code].as_py() for code in codes.tolist()] == [join_id(row) for row in rows]
    assert ids.to_pylist() == sorted({join_id(row) for row in rows}, key=str.encode)


def test_a_row_per_series_is_the_store_of_a_row_per_value(tmp_path: Path) -> None:
    values: dict[str, list[float | None]] = {"H1": [1.5, 2, None, 4], "H2": [5.25], "a/b": [7, 8, 9, 10, 11]}
    rows: list[list[object]] = [
        [id_, *("" if v is None else v for v in some), *[""] * (5 - len(some))] for id_, some in values.items()
    ]
    across = write_table(tmp_path / "a.csv", [f"V{n}" for n in range(1, 7)], rows)
    ingest(across, tmp_path / "a.zarr", layout="series", id="V1", start="2001-01-01", freq="MS", blocksize=1)
    store = open_store(tmp_path / "a.zarr")
    assert store.schema.time.rule.text == "MS"
    for id_, some in values.items():
        series = store.series(id_)
        first, last = series.rows(None, None)
        assert [None if v != v else v for v in store.read("value", first, last).tolist()] == some
        months = np.datetime64("2001-01") + np.arange(len(some))
        assert store.times(first, last).tolist() == months.astype("datetime64[s]").astype(int).tolist()
    assert compare_sources(store, [across]).n_different == 0
    more = write_table(tmp_path / "b.csv", [f"V{n}" for n in range(1, 7)], [["new", 1, 2, "", "", ""]])
    append(more, tmp_path / "a.zarr")
    assert len(open_store(tmp_path / "a.zarr").ids) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a", 1, 2], ["b", 1, 2], ["a", 3, 4]], r"duplicate time: id 'a' .*a\.csv line 2 and .*a\.csv line 4"),
        ([["a", 1, 2], ["b", "", ""]], r"a series without a value.*a\.csv line 3"),
        ([["a", 1, "x"]], "text 'x' in number column 'V3'|holds words"),
        ([["", 1, 2]], "empty id"),
    ],
)
def test_a_row_per_series_is_refused_where_it_cannot_be_stored(
    rows: list[list[object]], message: str, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "a.csv", ["V1", "V2", "V3"], rows)
    with pytest.raises(SourceError, match=message):
        ingest(path, tmp_path / "a.zarr", layout="series", id="V1", freq="rows")


def test_a_row_per_series_needs_an_id_and_a_step(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["V1", "V2", "V3"], [["a", 1, 2]])
    for options in ({"freq": "rows"}, {"id": "V1"}, {"id": "V1", "freq": "rows", "time": "V2"}):
        with pytest.raises(UsageError, match="--freq STEP"):
            ingest(path, tmp_path / "a.zarr", layout="series", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("%Y-Q%q", "2000-Q3", "2000-07-01"),
        ("Q%q %Y", "Q1 2000", "2000-01-01"),
        ("%Y-Q%q", "2000-Q5", None),
        ("%Y-Q%q", "2000-Q0", None),
        ("%G-W%V", "2000-W01", "2000-01-03"),
        ("%G-W%V", "2004-W53", "2004-12-27"),
        ("%G-W%V", "2003-W53", None),
        ("%G-W%V", "2003-W00", None),
        ("%G-W%V-%u", "2003-W01-2", "2002-12-31"),
    ],
)
def test_quarters_and_iso_weeks_begin_with_their_first_day(form: str, text: str, expected: str | None) -> None:
    day = None if expected is None else int(np.datetime64(expected, "s").astype(int))
    assert read_one(text, check_format(form)) == day


@pytest.mark.parametrize("form", ["%q", "%Y-Q%q-%m", "%Y-Q%q-%d", "%V"])
def test_a_quarter_or_a_week_needs_its_year_and_nothing_else(form: str) -> None:
    with pytest.raises(UsageError):
        check_format(form)


@pytest.mark.parametrize(
    ("of", "cells", "unit", "expected"),
    [
        ("s", ["1577836800.500", "1577836801"], "ms", [1577836800500, 1577836801000]),
        ("s", ["1577836800.0", "1577836801.000"], "s", [1577836800, 1577836801]),
        ("ms", ["1577836800000.25", "1577836800001.5"], "us", [1577836800000250, 1577836800001500]),
        ("d", ["0.5", "1"], "s", [43200, 86400]),
        ("excel", ["43831", "43831.5", "43831.0416666667", "43831.999988426"], "s", [0, 43200, 3600, 86399]),
        ("excel1904", ["42369", "42369.25"], "s", [0, 21600]),
    ],
)
def test_numbers_with_a_fraction_are_exact_times(
    of: str, cells: list[str], unit: str, expected: list[int], tmp_path: Path
) -> None:
    path = write_table(tmp_path / "a.csv", ["t", "x"], [[cell, n] for n, cell in enumerate(cells)])
    ingest(path, tmp_path / "a.zarr", time="t", time_unit=of)
    first = 1577836800 if of.startswith("excel") else 0
    assert times_of(tmp_path / "a.zarr") == sorted(first + time for time in expected)
    assert open_store(tmp_path / "a.zarr").schema.time.unit == unit
    assert compare_sources(open_store(tmp_path / "a.zarr"), [path]).n_bad == 0


@pytest.mark.parametrize(
    ("of", "cell"),
    [
        ("s", "1.0000000001"),
        ("s", "1e3"),
        ("s", "1,5"),
        ("excel", "43831.04"),
        ("excel", "60"),
        ("d", "0.33333333333333"),
    ],
)
def test_numbers_that_name_no_time_exactly_are_refused_with_their_line(of: str, cell: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["t", "x"], [["43831.5", 1], [f'"{cell}"', 2]])
    with pytest.raises(SourceError, match=r"a\.csv line 3"):
        ingest(path, tmp_path / "a.zarr", time="t", time_unit=of)


def test_whole_epochs_are_appended_to_ones_with_fractions(tmp_path: Path) -> None:
    first = write_table(tmp_path / "a.csv", ["t", "x"], [["100.5", 1], ["101", 2]])
    second = write_table(tmp_path / "b.csv", ["t", "x"], [["102", 1], ["103", 2]])
    ingest(first, tmp_path / "a.zarr", time="t", time_unit="s")
    append(second, tmp_path / "a.zarr")
    assert times_of(tmp_path / "a.zarr") == [100500, 101000, 102000, 103000]
    assert compare_sources(open_store(tmp_path / "a.zarr"), [first, second]).n_different == 0


def test_empty_files_among_others_are_left_out_where_asked(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["t", "x"], [["1", 1], ["2", 2]])
    empty = tmp_path / "b.csv"
    empty.touch()
    with pytest.raises(SourceError, match="--on-empty-file skip"):
        ingest([path, empty], tmp_path / "a.zarr", time="t")
    ingest([empty, path], tmp_path / "a.zarr", time="t", on_empty_file="skip")
    more = write_table(tmp_path / "c.csv", ["t", "x"], [["3", 1], ["4", 2]])
    words = ["ingest", str(tmp_path / "*.csv"), str(tmp_path / "a.zarr"), "--time", "t", "--append"]
    assert main(words) == 1
    assert main([*words, "--on-empty-file", "skip"]) == 0
    assert times_of(tmp_path / "a.zarr") == [1, 2, 3, 4]
    assert compare_sources(open_store(tmp_path / "a.zarr"), [path, empty, more]).n_different == 0
    with pytest.raises(SourceError, match="empty file"):
        ingest(empty, tmp_path / "b.zarr", time="t", on_empty_file="skip")


@settings(max_examples=12)
@given(
    st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)), min_size=1, max_size=5),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "Asia/Kolkata"]),
    st.integers(-2 * 3600, 2 * 3600),
)
def test_times_of_a_zone_are_those_of_the_standard_library(moments: list[datetime], zone: str, near: int) -> None:
    moments = [
        *moments,
        datetime(2020, 10, 25, 2) + timedelta(seconds=near),
        datetime(2020, 3, 29, 2) + timedelta(seconds=near),
    ]
    local = [moment.replace(microsecond=0, tzinfo=UTC) for moment in moments]
    utc, n_times = to_utc(np.array([int(moment.timestamp()) for moment in local], np.int64), zone)
    for moment, time, n in zip(local, utc.tolist(), n_times.tolist(), strict=True):
        ways = set()
        for fold in (0, 1):
            there = moment.replace(tzinfo=ZoneInfo(zone), fold=fold)
            if there.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=UTC) == moment:
                ways.add(int(there.timestamp()))
        assert n == len(ways)
        if n == 1:
            assert ways == {time}


def test_times_that_a_zone_has_twice_or_never_are_bad_rows(tmp_path: Path) -> None:
    good = [["2020-03-29 01:59:59", 1], ["2020-03-29 03:00:00", 2], ["2020-10-25 03:00:00", 3]]
    path = write_table(tmp_path / "a.csv", ["t", "x"], [*good, ["2020-10-25 02:30:00", 4], ["2020-03-29 02:30:00", 5]])
    with pytest.raises(
        SourceError, match=r"'2020-10-25 02:30:00' in column 't', which Europe/Berlin has twice.*line 5"
    ):
        ingest(path, tmp_path / "a.zarr", time="t", timezone="Europe/Berlin")
    ingest(path, tmp_path / "a.zarr", time="t", timezone="Europe/Berlin", on_bad_row="quarantine")
    store = open_store(tmp_path / "a.zarr")
    assert store.schema.time.zone == "UTC"
    begin = int(datetime(2020, 3, 29, 1, tzinfo=UTC).timestamp())
    assert times_of(tmp_path / "a.zarr")[:2] == [begin - 1, begin]
    more = write_table(tmp_path / "b.csv", ["t", "x"], [["2020-12-01 00:00:00", 4]])
    append(more, tmp_path / "a.zarr")
    assert times_of(tmp_path / "a.zarr")[-1] == int(datetime(2020, 11, 30, 23, tzinfo=UTC).timestamp())
    assert compare_sources(open_store(tmp_path / "a.zarr"), [path, more]).n_different == 0


def test_a_receipt_says_of_whose_clocks_times_are(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["t", "x"], [[f"2020-01-0{n} 00:00:00", n] for n in range(1, 4)])
    receipt = ingest(path, tmp_path / "a.zarr", time="t", timezone="Europe/Berlin")
    assert "times are of the clocks of Europe/Berlin and are stored as UTC" in receipt.notes


def test_a_zone_goes_with_local_times_alone(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["t", "x"], [["2020-03-29T01:59:59Z", 1]])
    with pytest.raises(UsageError, match="have offsets from UTC"):
        ingest(path, tmp_path / "a.zarr", time="t", timezone="Europe/Berlin")
    with pytest.raises(UsageError, match="IANA"):
        ingest(write_table(path, ["t", "x"], [["2020-03-29", 1]]), tmp_path / "a.zarr", time="t", timezone="Nowhere")


@pytest.mark.parametrize("time", ["time", ["day", "clock"]])
def test_the_first_time_that_cannot_be_read_is_named_by_its_own_line(time: str | list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "2001-01-01,2001-01-01,00:00,5\nwhen,the,sun,1\nnow,and,then,2\n"
    path.write_text(f"a report\n# of a meter\ntime,day,clock,x\n,,,m\n# below\n{rows}")
    with pytest.raises(SourceError, match=r"unreadable (time 'when'|date and clock 'the sun').*a\.csv line 7\."):
        ingest(path, tmp_path / "a.zarr", time=time, skip_lines=1, comment="#", units_row=True)


def test_a_unit_in_quotes_may_have_a_line_break_and_no_row_is_read_out_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,time,x\n,,"m\nb,2001-01-01,5\n"\na,2001-01-01,1\na,2001-01-02,2\n')
    ingest(path, tmp_path / "a.zarr", id="id", time="time", units_row=True, on_bad_row="quarantine")
    store = open_store(tmp_path / "a.zarr")
    assert (store.ids.tolist(), store.read("x", 0, 2).tolist()) == (["a"], [1, 2])
    assert store.channel("x").units == "m\nb,2001-01-01,5"


def test_a_mark_of_unicode_at_the_border_of_a_block_is_text_as_it_is_elsewhere(tmp_path: Path) -> None:
    rows = "".join(f"\ufeff{id_},2001-01-01,1\n" for id_ in "abc")
    (tmp_path / "a.csv").write_text(f"id,time,x\n{rows}")
    for blocksize in (1, 20, 1000):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", id="id", time="time", blocksize=blocksize, overwrite=True)
        assert open_store(tmp_path / "a.zarr").ids.tolist() == ["\ufeffa", "\ufeffb", "\ufeffc"]


@pytest.mark.parametrize(("flag", "cell"), [("percent", "1.0000.5%"), ("censored", "<a"), ("percent", "12")])
def test_a_column_that_the_user_calls_one_of_numbers_never_becomes_one_of_words(
    flag: str, cell: str, tmp_path: Path
) -> None:
    path = write_table(tmp_path / "a.csv", ["t", "x"], [[1, cell], [2, cell]])
    with pytest.raises(SourceError, match=r"in number column 'x'.*a\.csv line 2"):
        ingest(path, tmp_path / "a.zarr", time="t", **{flag: ["x"]})  # type: ignore[arg-type]
