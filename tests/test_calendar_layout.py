"""A row per year with a column per month, a row per day with a column per hour: the same store as a row per time."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import few, stored, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import SourceError, UsageError, append, ingest, inspect, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
NAMES = {
    "months": (MONTHS, "{:04d}", [f"-{month:02d}-01" for month in range(1, 13)]),
    "long months": (["January", "february", "March"], "{:04d}", ["-01-01", "-02-01", "-03-01"]),
    "numbers": ([str(month) for month in range(1, 13)], "{:04d}", [f"-{month:02d}-01" for month in range(1, 13)]),
    "clocks": (["00:00", "06:00", "12:30"], "2001-01-{:02d}", [" 00:00:00", " 06:00:00", " 12:30:00"]),
    "hours": ([f"H{hour}" for hour in range(24)], "2001-01-{:02d}", [f" {hour:02d}:00:00" for hour in range(24)]),
}
CELL = st.one_of(st.integers(-999, 999).map(lambda n: f"{n / 10:.1f}"), st.just("-99.9"))


@settings(max_examples=few(25))
@given(st.data(), st.sampled_from(sorted(NAMES)), st.sampled_from([None, 1, 3]))
def test_a_calendar_makes_the_rows_of_the_table_that_has_one_for_each_time(
    data: st.DataObject, kind: str, workers: int | None
) -> None:
    columns, form, ends = NAMES[kind]
    firsts = data.draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 28)), min_size=1, max_size=6, unique=True)
    )
    rows = [
        [id_, form.format(n + 1900 * (form == "{:04d}")), *data.draw(st.tuples(*[CELL] * len(columns)))]
        for id_, n in firsts
    ]
    long = [[id_, f"{start}{end}", cell] for id_, start, *cells in rows for end, cell in zip(ends, cells, strict=True)]
    flags: dict[str, Any] = {"id": "id", "missing": ["-99.9"], "dtype": "float64"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ingest(write_table(folder / "b.csv", ["id", "t", "value"], long), folder / "b.zarr", time="t", **flags)
        table = write_table(folder / "a.csv", ["id", "t", *columns], rows)
        receipt = ingest(table, folder / "a.zarr", time="t", layout="calendar", blocksize=40, workers=workers, **flags)
        first, second = open_store(folder / "a.zarr"), open_store(folder / "b.zarr")
        assert receipt.n_rows_in == receipt.n_stored == len(long)
        assert first.times(0, first.n_rows).tolist() == second.times(0, second.n_rows).tolist()
        for id_ in {row[0] for row in rows}:
            expected = second.series(id_).read("value")
            assert first.series(id_).read("value").tobytes() == expected.tobytes()
        seen = compare_sources(first, [table])
        assert (seen.n_rows, seen.n_different, seen.n_unseen) == (len(long), 0, 0)


def calendar(path: Path, header: str, *rows: str, **flags: Any) -> Any:
    path.write_text("\n".join([header, *rows]) + "\n")
    return ingest(path, path.with_suffix(".zarr"), **{"layout": "calendar", "time": "t", **flags})


@pytest.mark.parametrize(
    ("header", "row", "flags", "message"),
    [
        ("t,JAN,FEB,ANN", "2001,1,2,3", {}, "--layout calendar with columns 'ANN'.*--leave-out ANN"),
        ("t,DEC,JAN,FEB", "2001,1,2,3", {}, "in their order"),
        ("t,H1,H2", "2001-01-01,1,2", {}, "or hours from 0 or H0 on"),
        ("t,00:00,25:00", "2001-01-01,1,2", {}, "in their order"),
        ("t,JAN,00:00", "2001,1,2", {}, "in their order"),
        ("t,JAN,FEB", "2001,1,2", {"timezone": "Europe/Berlin"}, "--layout calendar with --timezone"),
        ("t,JAN,FEB", "2001,1,2", {"time": None}, "--layout calendar with no --time"),
        ("t,H0,H1", "20,1,2", {"time_unit": "steps"}, "of times that count steps"),
    ],
)
def test_columns_that_do_not_say_their_times_are_refused(
    header: str, row: str, flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        calendar(tmp_path / "a.csv", header, row, **flags)


@pytest.mark.parametrize(
    ("header", "row", "flags", "message"),
    [
        ("t,JAN,FEB", "2001-02-01,1,2", {"time_format": "%Y-%m-%d"}, "time '2001-02-01' that is no year"),
        ("t,00:00,06:00", "2001-02-01 06:00,1,2", {}, "time '2001-02-01 06:00' that is no day"),
        ("t,JAN,FEB", "2001,1,x", {}, "text 'x' in number column 'FEB'.*line 3"),
        ("t,JAN,FEB", "2000,1,3", {}, "duplicate time: id '0' has 2000-01-01 twice.*line 2 and .*line 3"),
    ],
)
def test_a_row_that_is_no_year_or_day_is_refused_with_its_line(
    header: str, row: str, flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    first = "2000,5,6" if not flags and "JAN" in header else "2000-01-01,5,6"
    with pytest.raises(SourceError, match=message):
        calendar(tmp_path / "a.csv", header, first, row, **flags)
    if "twice" not in message:
        receipt = calendar(tmp_path / "a.csv", header, first, row, **flags, on_bad_row="quarantine", max_bad_rows=2)
        assert (receipt.n_stored, receipt.n_quarantined) == (2, 2)


def test_years_are_appended_as_they_were_ingested(tmp_path: Path) -> None:
    header = ",".join(["t", *MONTHS])
    calendar(tmp_path / "a.csv", header, "2000," + ",".join("1" * 12), value_name="index")
    (tmp_path / "b.csv").write_text(header + "\n2001," + ",".join("2" * 12) + "\n")
    append(tmp_path / "b.csv", tmp_path / "a.zarr")
    store = open_store(tmp_path / "a.zarr")
    assert (store.n_rows, str(store.time.rule), store.channels) == (24, "MS", ("index",))
    assert [path for path in stored(tmp_path / "a.zarr") if path.startswith("JAN")] == []


def test_a_look_at_days_of_hours_prints_the_command_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hours = [f"{hour:02d}:00" for hour in range(24)]
    rows = [[f"2001-01-{day:02d}", *(hour * day / 4 for hour in range(24)), day] for day in range(1, 9)]
    write_table(Path("a.csv"), ["day", *hours, "mean"], rows)
    look = inspect("a.csv")
    assert (look.layout, look.step) == ("calendar", "1h")
    assert main([*look.command.split()[1:], "--quiet"]) == 0
    assert open_store("a.zarr").n_rows == 8 * 24
