"""Times whose year, month, quarter or day of the year stand in columns of their own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore.errors import SourceError, UsageError
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.times.formats import read_one
from zstore.writing.sources.times.spec import TimeSpec


def stored(folder: Path, text: str, **options: object) -> list[str]:
    """The times of a table, as its store has them."""
    (folder / "a.csv").write_text(text)
    zstore.ingest(folder / "a.csv", folder / "a.zarr", **options)  # type: ignore[arg-type]  # what a test says
    return [str(time)[:10] for time in zstore.open_store(folder / "a.zarr")["0"].to_pandas().index]


@pytest.mark.parametrize(
    ("form", "rows", "times"),
    [
        ("%Y %q", ["1959,3", "1959,4", "1960,1"], ["1959-07-01", "1959-10-01", "1960-01-01"]),
        ("%Y %m", ["2001,11", "2001,12", "2002,01"], ["2001-11-01", "2001-12-01", "2002-01-01"]),
        ("%Y %b", ["2001,Nov", "2001,DEC", "2002,jan"], ["2001-11-01", "2001-12-01", "2002-01-01"]),
        ("%Y Q0%q", ["1959,Q03", "1959,Q04", "1960,Q01"], ["1959-07-01", "1959-10-01", "1960-01-01"]),
        ("%Y %j", ["2000,59", "2000,60", "2000,061"], ["2000-02-28", "2000-02-29", "2000-03-01"]),
    ],
)
def test_a_year_and_its_part_in_two_columns_are_one_time(
    form: str, rows: list[str], times: list[str], tmp_path: Path
) -> None:
    text = "y,p,v\n" + "".join(f"{row},1\n" for row in rows)
    assert stored(tmp_path, text, time=["y", "p"], time_format=form) == times


def test_a_format_may_be_spread_over_three_columns(tmp_path: Path) -> None:
    text = "Year,Month,Day,v\n2001,Jan,31,1\n2001,Feb,1,2\n2001,Feb,2,3\n"
    times = stored(tmp_path, text, time=["Year", "Month", "Day"], time_format="%Y %b %d")
    assert times == ["2001-01-31", "2001-02-01", "2001-02-02"]


def test_a_year_beside_a_number_is_refused_with_the_formats_that_read_both(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--time-format '%Y %q' or --time-format '%Y %m'"):
        stored(tmp_path, "y,p,v\n1959,1,5\n1959,2,6\n", time=["y", "p"])


@pytest.mark.parametrize("row", ["1959,5", "1959,", ",1", "1959 1,1", "1959,x"])
def test_a_quarter_that_does_not_exist_is_a_bad_row(row: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 3"):
        stored(tmp_path, f"y,q,v\n1959,1,5\n{row},6\n", time=["y", "q"], time_format="%Y %q")


@pytest.mark.parametrize("form", ["%Y-%q", "%Y %m %d", "%Y x"])
def test_a_format_of_several_columns_has_a_part_for_each(form: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of 2 columns"):
        stored(tmp_path, "y,q,v\n1959,1,5\n", time=["y", "q"], time_format=form)


def test_rows_are_appended_by_year_and_quarter_too(tmp_path: Path) -> None:
    stored(tmp_path, "y,q,v\n1959,1,5\n1959,2,6\n", time=["y", "q"], time_format="%Y %q")
    (tmp_path / "b.csv").write_text("y,q,v\n1959,3,7\n")
    zstore.append(tmp_path / "b.csv", tmp_path / "a.zarr")
    assert zstore.open_store(tmp_path / "a.zarr")["0"].to_pandas()["v"].tolist() == [5.0, 6.0, 7.0]


_CELLS = st.one_of(st.integers(0, 13).map(str), st.sampled_from(["2000", "1999", "", " 3", "03 ", "1 2", "Feb"]))


@given(st.lists(st.tuples(_CELLS, _CELLS, _CELLS), min_size=1, max_size=6))
def test_cells_that_are_read_together_say_the_same_in_blocks_and_alone(rows: list[tuple[str, str, str]]) -> None:
    spec = TimeSpec("format", ("y", "m", "d"), "s", format="%Y %m %d")
    rows = [("2000", "2", "29"), *rows]
    alone = [spec.read_cells(row) for row in rows]
    assert alone[0] == read_one("2000-02-29", "%Y-%m-%d")
    table = pa.table(
        {name: pa.array(cells).dictionary_encode() for name, cells in zip("ymd", zip(*rows, strict=True), strict=True)}
    )
    if None in alone:
        with pytest.raises(RefusedError):
            spec.read(table, len(rows))
        assert spec.judge(dict(zip("ymd", rows[alone.index(None)], strict=True))) is not None
    else:
        assert np.array_equal(spec.read(table, len(rows)), np.array(alone, np.int64))
