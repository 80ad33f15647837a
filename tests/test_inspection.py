"""A look before the ingest: the command that it prints ingests the file, or it says what to ask."""

import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore.cli import main
from zstore.inspection.column import look_at

RDB = """# data\n#  from a gauge
agency_cd\tsite_no\tdatetime\tflow\tflow_cd
5s\t15s\t20d\t14n\t10s
USGS\t01646500\t2001-01-01\t1530\tA
USGS\t01646500\t2001-01-02\t1540\tA
USGS\t01646501\t2001-01-01\t30\tA
USGS\t01646501\t2001-01-02\t40\tA:e
"""
TOA5 = """"TOA5","CR1000","x","y"
"TIMESTAMP","RECORD","AirT"
"TS","RN","Deg C"
"","","Avg"
"2001-01-01 00:00:00",0,1.5
"2001-01-01 00:15:00",1,1.25
"2001-01-01 00:30:00",2,1.75
"""
FILES = {
    "rdb": RDB,
    "toa5": TOA5,
    "preamble": "Station: 123\nMade: 2001-01-01\n\ntime,level\n2001-01-01,1\n2001-01-02,2\n2001-01-03,2\n",
    "sep": "sep=;\ntime;level\n2001-01-01;1.5\n2001-01-02;2.5\n2001-01-03;2.5\n",
    "spaces": "# model\n  step   x     y\n 2001-01-01  1.5  -2\n 2001-01-02  2.5   4\n 2001-01-03   .5   4\n",
    "long": "site,date,x\na,2001-01-01,1\nb,2001-01-01,2\na,2001-01-02,3\nb,2001-01-02,4\n",
    "parts": "No,year,month,day,hour,x\n" + "".join(f"{n},2001,1,1,{n},{n}.5\n" for n in range(1, 5)),
    "clock": "station,layer,d,h,x\n"
    + "".join(f"{s},{k},2001-01-01,0{n}:00,{n}\n" for s in "ab" for k in ("up", "low") for n in range(4)),
    "sensors": ",".join(str(700 + n) for n in range(12))
    + "\n"
    + "".join(",".join(f"{n}.{k}" for n in range(12)) + "\n" for k in range(1, 4)),
    "german": "Zeit;Pegel\n31.01.2001 10:00;1\n31.01.2001 10:15;2\n31.01.2001 10:30;3\n",
    "m4": "V1,V2,V3,"
    + ",".join(f"V{n}" for n in range(4, 20))
    + "\n"
    + "".join(f"H{n}," + ",".join(str(k * n) for k in range(15)) + "," * 4 + "\n" for n in range(1, 6)),
}


@pytest.mark.parametrize("name", FILES)
def test_the_command_that_is_printed_ingests_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.csv").write_text(FILES[name])
    look = zstore.inspect(f"{name}.csv")
    command = shlex.split(look.command)
    assert command[:2] == ["zstore", "ingest"]
    assert main(command[1:]) == 0, look
    assert zstore.open_store(command[3]).n_rows > 2
    assert look.layout == {"m4": "series", "sensors": "wide"}.get(name, "long")


def test_a_gauge_file_is_seen_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(RDB)
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.comment, look.delimiter, look.n_below, look.ids) == ("#", "\t", 1, ("site_no",))
    assert (look.times, look.step, look.questions) == (("datetime",), "1d", ())


@pytest.mark.parametrize(
    ("cells", "asked"),
    [
        (["01/02/2001", "02/02/2001", "03/02/2001"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["20010130", "20010131", "20010201"], ["%Y%m%d", "--time-unit steps"]),
        (["978307200", "978310800", "978314400"], ["--time-unit s", "--time-unit steps"]),
    ],
)
def test_times_that_read_in_two_ways_are_asked_about(cells: list[str], asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x\n" + "".join(f"{cell},{n}.5\n" for n, cell in enumerate(cells)))
    (question,) = zstore.inspect(tmp_path / "a.csv").questions
    assert all(way in question for way in asked), question


def test_decimal_commas_and_what_may_be_missing_are_asked_about(tmp_path: Path) -> None:
    rows = "".join(f"2001-01-0{n};{n},5;{-999 if n % 2 else n}\n" for n in range(1, 8))
    (tmp_path / "a.csv").write_text("t;x;y\n" + rows)
    questions = "\n".join(zstore.inspect(tmp_path / "a.csv").questions)
    assert "--decimal ," in questions
    assert "--missing y=-999" in questions


def test_a_number_that_is_written_otherwise_than_most_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell of four digits and its mark of thousands says how all others are meant."""
    monkeypatch.chdir(tmp_path)
    cells = ["-", "1.234,500", *(f"0,{n:03d}" for n in range(60))]
    rows = "".join(f"2001-01-01 {n // 60:02d}:{n % 60:02d};{cell}\n" for n, cell in enumerate(cells))
    Path("a.csv").write_text("t;power\n" + rows)
    command = shlex.split(zstore.inspect("a.csv").command)
    assert main(command[1:]) == 0
    values = zstore.open_store(command[3]).series("0").read("power")
    assert np.isnan(values[0])
    np.testing.assert_allclose(values[1:], [1234.5, *(n / 1000 for n in range(60))], rtol=1e-6)


@given(st.lists(st.sampled_from(["0,5", "0.5", "12", "1.234,5", "1,234.5", "1.234", "-", "n/d", "1 234", "3 *", "x"])))
def test_no_number_is_said_to_mean_missing(cells: list[str]) -> None:
    look = look_at("power", [*cells, *["7,25"] * len(cells)])
    assert [cell for cell in look.odd if cell not in ("-", "n/d", "x")] == []


def test_every_column_with_numbers_that_read_in_another_way_is_told(tmp_path: Path) -> None:
    rows = "".join(f"2001-01-{n:02d};{n},5;{n},5\n" for n in range(1, 29))
    (tmp_path / "a.csv").write_text(f"t;x;y\n{rows}2001-02-01;3,5;12.5\n")
    assert "column y: '12.5' read in another way" in "\n".join(zstore.inspect(tmp_path / "a.csv").questions)


def test_a_number_with_a_decimal_comma_is_asked_about_and_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(
        f"2001-01-{n:02d};{99 if n in (3, 9) else 50 + n // 9},{9 if n in (3, 9) else n % 10}\n" for n in range(1, 29)
    )
    Path("a.csv").write_text(f"t;humidity\n{rows}")
    look = zstore.inspect("a.csv")
    assert """--missing '"humidity=99,9"'""" in "\n".join(look.questions)  # as one may type it
    assert "--missing" not in look.command
    assert main(shlex.split(look.command)[1:]) == 0
    assert np.count_nonzero(zstore.open_store("a.zarr").series("0").read("humidity") > 99) == 2


def test_numbers_that_the_thousands_of_another_column_would_change_are_asked_about(tmp_path: Path) -> None:
    rows = "".join(f"2001-01-{n:02d};1.{n:03d},50;{n}.{100 + n}\n" for n in range(1, 29))
    (tmp_path / "a.csv").write_text(f"t;x;y\n{rows}")
    look = zstore.inspect(tmp_path / "a.csv")
    assert "column y: --thousands . reads '1.101' as 1101: is that meant?" in look.questions


def test_shares_with_a_decimal_comma_need_no_correction(tmp_path: Path) -> None:
    rows = "".join(f"2001-01-{n:02d};{n},50%;{n},5\n" for n in range(1, 29))
    (tmp_path / "a.csv").write_text(f"t;p;q\n{rows}")
    assert "another way" not in "\n".join(zstore.inspect(tmp_path / "a.csv").questions)


def test_a_number_that_reads_in_another_way_than_the_others_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "t;x\n" + "".join(f"2001-01-{n:02d};{n},5\n" for n in range(1, 29)) + "2001-02-01;12.5\n"
    )
    look = zstore.inspect(tmp_path / "a.csv")
    assert "'12.5' read in another way" in "\n".join(look.questions)
    assert "--missing" not in look.command


def test_the_command_prints_what_the_file_is_and_a_command_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text(RDB)
    assert main(["inspect", str(tmp_path / "a.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("zstore ingest ")
    assert any("site_no" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "candidates"),
    [("1990/1/1 0:00", ["%Y/%m/%d %H:%M"]), ("01-12-2008", ["%d-%m-%Y", "%m-%d-%Y"])],
)
def test_a_time_that_cannot_be_read_comes_with_the_formats_that_would_read_it(
    text: str, candidates: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(f"t,x\n{text},1\n{text},2\n")
    with pytest.raises(zstore.SourceError) as refusal:
        zstore.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="t")
    assert all(f"--time-format '{form}'" in str(refusal.value) for form in candidates), refusal.value


def test_a_date_a_clock_and_an_id_of_two_columns_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(FILES["clock"])
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.ids, look.times, look.step, look.questions) == (("station,layer",), ("d", "h"), "1h", ())


RECIPES = {
    "usgs_rdb": (RDB, ["USGS/01646500", "USGS/01646501"], None),
    "toa5": (TOA5, ["0"], "Deg C"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_what_an_instrument_or_an_agency_writes(name: str, tmp_path: Path) -> None:
    text, ids, unit = RECIPES[name]
    (tmp_path / "a.csv").write_text(text)
    recipe = REPOSITORY / "configs" / "ingest" / f"{name}.yaml"
    assert main(["ingest", str(tmp_path / "a.csv"), str(tmp_path / "a.zarr"), "--config", str(recipe)]) == 0
    store = zstore.open_store(tmp_path / "a.zarr")
    assert [str(id_) for id_ in store.ids] == ids
    assert store.schema.channels[0].units == unit


def test_ids_are_told_by_their_text_even_where_it_means_missing_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("site,day,x\n01,2001-01-01,1\n01,2001-01-02,2\nNA,2001-01-01,3\nNA,2001-01-02,4\n")
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.ids, look.questions) == (("site",), ())


def test_a_column_that_may_be_the_id_is_asked_about_where_no_time_is_there_twice(tmp_path: Path) -> None:
    text = "# a logger\nmeter;day;clock;kW\n;;;W\nm1;13.01.2021;00:00;1.210,50\nm1;13.01.2021;00:15;-999\n"
    (tmp_path / "a.csv").write_text(text + "m2;14.01.2021;00:00;12,25\nm2;14.01.2021;00:15;1.012,75\n")
    look = zstore.inspect(tmp_path / "a.csv")
    assert look.ids == ("meter",)
    assert [question.split(":")[0] for question in look.questions] == [
        "meter has 2 different cells, and no time is there twice",
        "column kW",
        "column kW",
    ]
    assert "does -999 mean missing?" in look.questions[2]


def test_patients_of_whom_most_were_seen_once_may_be_the_ids(tmp_path: Path) -> None:
    rows = [f"P{n},2020-01-{n + 1:02d},{n}\n" for n in (0, 1, 2, 3, 4, 5)]
    (tmp_path / "a.csv").write_text("patient,date,v\n" + "".join(rows) + "P3,2020-02-01,7\n")
    look = zstore.inspect(tmp_path / "a.csv")
    assert "--id patient" in look.command
    assert any("patient has 6 different cells" in question for question in look.questions)


def test_a_column_that_names_files_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,t,scan,kind\n" + "".join(f"p,{n},in/{n}.NII.gz,a.b\n" for n in range(9)))
    look = zstore.inspect(tmp_path / "a.csv")
    asked = "does column scan name files? --file scan=scan --file-root DIR stores what is in them, not the names"
    assert [question for question in look.questions if "files" in question] == [asked]


def test_the_package_runs_as_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["zstore", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("zstore", run_name="__main__")
    assert (stopped.value.code, capsys.readouterr().out.strip()) == (0, f"zstore {zstore.__version__}")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no time column"),
        (["--time", "datum"], "no column 'datum'; expected one of 'gauge', 'date', 'flow'"),
        (["--time", "date", "--id", "site"], "no column 'site'"),
    ],
)
def test_an_ingest_that_lacks_a_column_says_how_the_file_looks(
    given: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{gauge},2001-01-0{n},{n}\n" for gauge in "ab" for n in range(1, 4))
    Path("flow.csv").write_text(f"gauge,date,flow\n{rows}")
    assert main(["ingest", "flow.csv", "mine.zarr", *given]) == 2
    error = capsys.readouterr().err
    assert told in error
    command = "zstore ingest flow.csv mine.zarr --time date --id gauge"  # no full stop, which would be typed with it
    assert error.rstrip("\n").endswith(f"as zstore inspect flow.csv sees it: {command}")
    assert not Path("mine.zarr").exists()


def test_an_ingest_that_lacks_a_column_says_that_there_is_something_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flow.csv").write_text("day,flow\n" + "".join(f"0{n}/02/2001,{n}\n" for n in range(1, 4)))
    assert main(["ingest", "flow.csv", "mine.zarr"]) == 2
    assert "sees it, with questions to answer first: zstore ingest" in capsys.readouterr().err


def macro(year: str, part: str, cells: list[str]) -> str:
    """Three rows of a year and a part of it."""
    return f"{year},{part},gdp\n" + "".join(f"1959,{cell},{n}.5\n" for n, cell in enumerate(cells))


@pytest.mark.parametrize(
    ("text", "form", "step"),
    [
        (macro("year", "quarter", ["1", "2", "3"]), "%Y %q", "QS"),
        (macro("Year", "Period", ["Q01", "Q02", "Q03"]), "%Y Q0%q", "QS"),
        (macro("YEAR", "MONTH", ["1", "2", "3"]), "%Y %m", "MS"),
        (macro("year", "month", ["Jan", "Feb", "Mar"]), "%Y %b", "MS"),
        (macro("year", "doy", ["59", "60", "61"]), "%Y %j", "1d"),
        ("Year,Month,Day,x\n2001,Jan,30,1\n2001,Jan,31,2\n2001,Feb,1,3\n", "%Y %b %d", "1d"),
    ],
)
def test_a_year_and_its_part_in_columns_of_their_own_are_the_times(
    text: str, form: str, step: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(text)
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.step, look.questions) == (step, ())
    assert f"--time-format '{form}'" in look.command


def test_a_date_is_preferred_to_a_year_and_a_month(tmp_path: Path) -> None:
    rows = "2001,1,2001-01-30,1\n2001,1,2001-01-31,2\n2001,2,2001-02-01,3\n"
    (tmp_path / "a.csv").write_text(f"year,month,date,x\n{rows}")
    assert zstore.inspect(tmp_path / "a.csv").times == ("date",)


def test_a_column_of_years_is_asked_about_and_tells_the_ids(tmp_path: Path) -> None:
    rows = "".join(f"{name},{year},{year}.5\n" for name in ("Chad", "Peru") for year in range(1952, 2008, 5))
    (tmp_path / "a.csv").write_text(f"country,year,pop\n{rows}")
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.ids, look.times, look.step) == (("country",), ("year",), "5YS")
    assert look.questions == ("year, such as '1952', reads in 2 ways: --time-format %Y or --time-unit steps?",)


def test_months_side_by_side_are_told_apart_from_channels(tmp_path: Path) -> None:
    months = "JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC"
    rows = "".join(f"{year}," + ",".join(f"{n}.5" for n in range(12)) + "\n" for year in range(1950, 1955))
    (tmp_path / "a.csv").write_text(f"YEAR,{months}\n{rows}")
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.layout, look.step, len(look.questions)) == ("calendar", "MS", 1)
    assert "JAN to DEC are times within each row" in look.questions[0]


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["1991 Jan", "1991 Feb", "1991 Mar"], "%Y %b"),
        (["Jan-91", "Feb-91", "Mar-91"], "%b-%y"),
        (["1991M01", "1991M02", "1991M03"], "%YM%m"),
    ],
)
def test_months_are_read_however_they_are_written(cells: list[str], form: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x\n" + "".join(f"{cell},1\n" for cell in cells))
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.step, look.questions) == ("MS", ())
    assert form in look.command


def test_a_month_of_two_digits_is_no_day_of_the_year(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x\n1991-01,1\n1991-02,2\n1991-03,2\n")
    look = zstore.inspect(tmp_path / "a.csv")
    assert (look.step, look.questions) == ("MS", ())


def test_ids_are_seen_behind_the_first_thousands_of_rows_and_where_clocks_show_an_hour_twice(tmp_path: Path) -> None:
    rows = [f"{name},{time},1.5\n" for name in ("EWR", "JFK") for time in _minutes()]
    (tmp_path / "a.csv").write_text("origin,time,temp\n" + "".join(rows))
    look = zstore.inspect(tmp_path / "a.csv")
    assert look.ids == ("origin",)
    assert "id 'EWR' has 2001-01-01 02:00:00 twice" in look.questions[0]


def _minutes() -> list[str]:
    """The minutes of three days and a bit, and one of them again."""
    minutes = [f"2001-01-{day:02} {n // 60:02}:{n % 60:02}" for day in range(1, 5) for n in range(1440)]
    return [*minutes[:121], *minutes[120:4_700]]


def test_columns_of_long_names_stay_below_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,private_service_providing\n2001-01-01,1\n2001-01-02,2\n")
    lines = str(zstore.inspect(tmp_path / "a.csv")).splitlines()
    assert lines[3].index("time") == lines[4].index("whole")


def test_a_file_of_one_column_is_told_how_it_is_ingested(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("flow\n1\n2\n3\n")
    with pytest.raises(zstore.SourceError, match=r"zstore ingest .*a\.csv STORE --freq STEP --start T"):
        zstore.inspect(path)
    assert zstore.ingest(path, tmp_path / "a.zarr", freq="1D", start="2001-01-01").n_stored == 3


def test_a_day_after_the_first_two_hundred_cells_tells_days_from_months(tmp_path: Path) -> None:
    times = [f"{day:02}.01.2013 {hour:02}:00" for day in range(1, 14) for hour in range(24)]
    (tmp_path / "a.csv").write_text("t;x\n" + "".join(f"{time};1\n" for time in times))
    look = zstore.inspect(tmp_path / "a.csv")
    assert look.questions == ()
    assert "--time-format '%d.%m.%Y %H:%M'" in look.command


def test_an_export_of_a_spreadsheet_in_german_is_ingested_as_its_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most gusts are k.A., numbers have commas, € and ° are bytes of Windows."""
    monkeypatch.chdir(tmp_path)
    gusts = [f"{n},5" if n % 5 == 0 else "k.A." for n in range(1, 29)]
    days = list(enumerate(gusts, 1))
    rows = "".join(f"{o};2013-01-{n:02};{n},25;{gust};{n},5\n" for o in ("Köln", "Höxter") for n, gust in days)
    Path("a.csv").write_bytes(f"Ort;Zeit;Luft [°C];Böe;Preis [€]\n{rows}".encode("cp1252"))
    look = zstore.inspect("a.csv")
    assert look.encoding == "cp1252"
    assert sum("decimal comma" in question for question in look.questions) == 1
    assert main(shlex.split(look.command)[1:]) == 0, look
    frame = zstore.open_store("a.zarr")["Köln"].to_pandas()
    assert (int(frame["Böe"].isna().sum()), frame["Böe"].max(), frame["Preis [€]"].iloc[0]) == (23, 25.5, 1.5)


@pytest.mark.parametrize(
    ("offset", "times"), [("Z", ("time_hour",)), ("-05:00", ("time_hour",)), ("", ("year", "month", "day", "hour"))]
)
def test_times_with_an_offset_are_preferred_to_clocks_in_parts_and_both_are_named(
    offset: str, times: tuple[str, ...], tmp_path: Path
) -> None:
    rows = "".join(f"2013,1,1,{hour},{hour}.5,2013-01-01T{hour + 5:02}:00:00{offset}\n" for hour in range(9))
    (tmp_path / "a.csv").write_text(f"year,month,day,hour,x,time_hour\n{rows}")
    look = zstore.inspect(tmp_path / "a.csv")
    assert look.times == times
    assert look.questions == ("which has the times: time_hour, or year, month, day, hour together?",)


@pytest.mark.parametrize(
    ("time", "said"), [("2013-11-03 01:00:00", True), ("2013-11-04 01:00:00", False), ("2013-11-03 13:00:00", False)]
)
def test_an_hour_that_is_there_twice_on_a_sunday_night_may_be_the_end_of_summer_time(
    time: str, said: bool, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(f"t,x\n2013-11-02 23:00:00,1\n{time},2\n{time},3\n2013-11-05 02:00:00,4\n")
    with pytest.raises(zstore.SourceError, match="duplicate time") as caught:
        zstore.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="t")
    assert ("--timezone ZONE" in str(caught.value)) is said


def test_an_apostrophe_between_digits_is_ingested_as_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"2024-01-{day:02},{day}'210\n" for day in range(1, 29))
    Path("a.csv").write_text(f"time,flow\n{rows}")
    look = zstore.inspect("a.csv")
    assert main(shlex.split(look.command)[1:]) == 0, look
    assert zstore.open_store("a.zarr").series("0").read("flow")[:2].tolist() == [1210.0, 2210.0]
