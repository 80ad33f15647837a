"""Files as instruments, agencies, wearables and shops export them: a look prints the command that ingests them.

Their layouts are from public descriptions; the values are made up. What only a person can say is asked, and the answer
is a flag; what cannot be read is refused with the flag that helps.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY

import zstore
from zstore.cli import main

FOLDER = REPOSITORY / "tests" / "exports"


@dataclass(frozen=True)
class Expected:
    """What a file becomes: rows, series, step; what is asked; what is added to the command in answer."""

    n_rows: int
    n_series: int
    step: str
    asked: tuple[str, ...] = ()
    more: str = ""


NAMES = "no line names the columns"
FILES = {
    # meters
    "green_button": Expected(12, 1, "1h", ("amounts of money",), "--categories COST"),
    "london_meters": Expected(16, 2, "30min", ("does Null mean missing",)),
    "household_power": Expected(8, 1, "1min", ("does ? mean missing",)),
    "uk_dale": Expected(10, 1, "6s", (NAMES, "--time-unit s or --time-unit steps")),
    "smard": Expected(10, 1, "1h", ("Datum von or Datum bis", "reads in 2 ways", "does - mean missing")),
    # plants
    "turbine_hash": Expected(10, 1, "10min"),
    "turbine_spaces_in_date": Expected(10, 1, "10min"),
    "historian": Expected(10, 1, "1min", ("is it the id", "does No Data mean missing")),
    "grafana": Expected(16, 2, "5min"),
    "influx": Expected(8, 1, "1min", ("without a name",)),
    "thingspeak": Expected(8, 1, "15min"),
    "traffic_wide": Expected(96, 12, "5min", ("--layout wide",)),
    "pems": Expected(48, 2, "5min", (NAMES,)),
    "iot_epoch_ms": Expected(16, 2, "1min", ("--time-unit ms or --time-unit steps",)),
    "utf16": Expected(8, 1, "1min", ("is it the id",)),
    # gauges and weather
    "grdc": Expected(10, 1, "1d", ("does -999.000 mean missing",)),
    "ndbc": Expected(10, 1, "1h", ("years, months, days",)),
    "dwd": Expected(10, 1, "1d", ("reads in 2 ways", "does -999 mean missing")),
    "ecad": Expected(10, 1, "1d", ("reads in 2 ways", "does -9999 mean missing")),
    "isd_lite": Expected(10, 1, "1h", (NAMES, "years, months, days")),
    "ghcn_by_year": Expected(16, 4, "1d", (NAMES, "reads in 2 ways", "ids: c1,c3 or")),
    "hobo": Expected(10, 1, "15min"),
    "openaq": Expected(16, 2, "1h", ("ids: location_id or",)),
    "latin1": Expected(8, 1, "1h", ("--encoding", "--decimal ,")),
    "madrid_hours": Expected(5, 1, "1d", ("--decimal ,",)),
    # wearables
    "dexcom": Expected(10, 1, "5min", ("are these no rows", "does Low mean missing")),
    "libre": Expected(10, 1, "15min", ("is it the id",)),
    "fitbit": Expected(16, 2, "1h", ("reads in 2 ways",)),
    "empatica_acc": Expected(12, 1, "1 step", (NAMES, "no column reads as times")),
    "actigraph": Expected(10, 1, "1 step", (NAMES, "no column reads as times")),
    "garmin_steps": Expected(10, 1, "1d", ("--decimal , if", "--thousands , if"), "--thousands ,"),
    # sales, money, the world
    "walmart": Expected(24, 4, "7d"),
    "m5": Expected(36, 3, "1 step", ("are left out", "--freq RULE")),
    "m4_weekly": Expected(36, 3, "1 step", ("--freq RULE",)),
    "world_bank": Expected(36, 3, "YS", ("without a name", "are left out", "years from 1990")),
    "fred": Expected(14, 1, "MS", ("does . mean missing",)),
    "stock": Expected(10, 1, "B"),
    "online_retail": Expected(10, 1, "25h", ("is it the id",)),
    "excel_serial": Expected(10, 1, "1d", ("--time-unit excel or", "--decimal ,")),
    "quarters": Expected(16, 2, "QS"),
    "iso_weeks": Expected(16, 2, "7d"),
    "eex_percent": Expected(10, 1, "MS"),
    "lab_censored": Expected(16, 2, "1d", ("--censored Pb ug/l", "refused so"), "--censored 'Pb ug/l'"),
    "airquality_uci": Expected(10, 1, "1h", ("reads in 2 ways", "refused so"), "--on-bad-row quarantine"),
}
REFUSED = {
    "entsoe": ("looks like times, and no format reads them", "--time-format"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_look_at_an_export_prints_the_command_that_ingests_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = FILES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.csv").write_bytes((FOLDER / f"{name}.csv").read_bytes())
    look = zstore.inspect(f"{name}.csv")
    asked = "\n".join(look.questions)
    for text in expected.asked:
        assert text in asked
    assert bool(expected.asked) == bool(look.questions), asked
    assert main([*shlex.split(look.command)[1:], *shlex.split(expected.more), "--quiet"]) == 0, look
    store = zstore.open_store(f"{name}.zarr")
    assert (store.n_rows, store.n_series, store.time.show_freq()) == (expected.n_rows, expected.n_series, expected.step)


@pytest.mark.parametrize("name", REFUSED)
def test_an_export_that_cannot_be_read_is_refused_with_what_helps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.csv").write_bytes((FOLDER / f"{name}.csv").read_bytes())
    look = zstore.inspect(f"{name}.csv")
    assert main([*shlex.split(look.command)[1:], "--quiet"]) == 1
    told = "\n".join(look.questions) + capsys.readouterr().err
    for text in REFUSED[name]:
        assert text in told


def test_a_file_of_records_of_several_kinds_is_no_table() -> None:
    with pytest.raises(zstore.SourceError, match=r"no table of several columns"):
        zstore.inspect(FOLDER / "nem.csv")
