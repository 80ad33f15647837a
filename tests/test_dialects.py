"""Ids in several columns, dates and clocks apart, series in rows: tables that plain flags do not describe."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st

from zstore import SourceError, UsageError, ingest, open_store
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.times import TimeSpec

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
