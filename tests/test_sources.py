"""Every CSV people really have: how times, ids, numbers and texts are written."""

import gzip
import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xarray
import yaml
from conftest import REPOSITORY, SMALL_GRID, table, write_table

from zstore import SourceError, Store, UsageError, ingest, open_store, verify

Run = Callable[..., subprocess.CompletedProcess[str]]

DAY = 86_400


def made(tmp_path: Path, text: str | bytes, name: str = "rows.csv", **options: Any) -> Store:
    """A store of one file."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    ingest(path, tmp_path / "made.zarr", overwrite=True, **options)
    return open_store(tmp_path / "made.zarr")


def times(store: Store) -> list[int]:
    moments: list[int] = store.times(0, store.n_rows).tolist()
    return moments


def values(store: Store, channel: str = "v") -> list[float]:
    numbers: list[float] = store.read(channel, 0, store.n_rows).tolist()
    return numbers


@pytest.mark.parametrize(
    ("written", "options", "unit", "expected"),
    [
        (["2001-01-01", "2001-01-02"], {}, "s", [978307200, 978393600]),
        (["2001-01-01T00:00", "2001-01-01 01:00"], {}, "s", [978307200, 978310800]),
        (["2001-01-01 00:00:00.250", "2001-01-01 00:00:00.5"], {}, "ms", [978307200250, 978307200500]),
        (["2001-01-01T02:00+02:00", "2001-01-01T00:30Z"], {}, "s", [978307200, 978309000]),
        (["01.02.2001 13:00", "02.02.2001 13:00"], {"time_format": "%d.%m.%Y %H:%M"}, "s", [981032400, 981118800]),
        (["978307200", "978307260"], {"time_unit": "s"}, "s", [978307200, 978307260]),
        (["978307200000", "978307200001"], {"time_unit": "ms"}, "ms", [978307200000, 978307200001]),
        (["11323", "11324"], {"time_unit": "d"}, "s", [978307200, 978393600]),
        (["-5", "7"], {}, None, [-5, 7]),
    ],
)
def test_times_are_read_as_they_are_written(
    tmp_path: Path, written: list[str], options: dict[str, str], unit: str | None, expected: list[int]
) -> None:
    rows = "".join(f"{time},{n}\n" for n, time in enumerate(written))
    store = made(tmp_path, f"t,v\n{rows}", time="t", **options)
    assert (store.schema.time.unit, times(store)) == (unit, expected)


def test_offsets_become_utc_and_that_is_recorded(tmp_path: Path) -> None:
    store = made(tmp_path, "t,v\n2001-03-25T01:59+01:00,1\n2001-03-25T03:00+02:00,2\n", time="t")
    assert np.diff(times(store)).tolist() == [60]  # clocks went forward in between
    assert store.schema.time.zone == "UTC"
    assert xarray.open_zarr(store.path)["time"].attrs["time_zone"] == "UTC"
    assert any("UTC" in note for note in store.receipt["notes"])


@pytest.mark.parametrize("odd", ["2001-01-02T00:00", "2001-01-02"])
def test_times_with_and_without_offset_never_mix(tmp_path: Path, odd: str) -> None:
    with pytest.raises(SourceError, match=rf"unreadable time '{odd}' .*with zone"):
        made(tmp_path, f"t,v\n2001-01-01T00:00Z,1\n{odd},2\n", time="t")
    with pytest.raises(SourceError, match=r"unreadable time '2001-01-01T00:00Z' .*without zone"):
        made(tmp_path, f"t,v\n{odd},2\n2001-01-01T00:00Z,1\n", time="t")


def test_time_may_stand_in_several_columns(tmp_path: Path) -> None:
    store = made(tmp_path, "y,m,d,h,v\n2000,2,29,23,1\n2000,3,01,00,2\n", time=["y", "m", "d", "h"])
    assert (np.diff(times(store)).tolist(), store.channels) == ([3600], ("v",))
    assert store.schema.time.show(times(store)[0]) == "2000-02-29 23:00:00"


def test_a_day_that_does_not_exist_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"time that does not exist '2001-2-29' .*line 3"):
        made(tmp_path, "y,m,d,v\n2001,2,28,1\n2001,2,29,2\n", time=["y", "m", "d"])
    with pytest.raises(SourceError, match=r"time that does not exist '2001-13-1'"):
        made(tmp_path, "y,m,d,v\n2001,13,1,1\n", time=["y", "m", "d"])


def test_without_a_time_column_rows_follow_each_other(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 2}\n" for n in range(40))
    store = made(tmp_path, f"v,w\n{rows}", freq="5min", start="2012-03-01", blocksize=20)
    assert times(store) == [1330560000 + 300 * n for n in range(40)]
    assert values(store) == list(range(40))
    by_id = made(tmp_path, "id,v\na,1\nb,2\na,3\n", id="id", freq="1")
    assert (times(by_id), values(by_id)) == ([0, 1, 0], [1, 3, 2])


def test_a_column_per_series_equals_a_row_per_id_and_time(tmp_path: Path) -> None:
    cells = {(id_, day): (day * 7 + n) % 5 / 2 for n, id_ in enumerate(["s10", "s9", "007"]) for day in range(30)}
    wide = "day,s10,s9,007\n" + "".join(f"{day},{cells['s10', day]},,{cells['007', day]}\n" for day in range(30))
    long = "day,id,speed\n" + "".join(
        f"{day},{id_},{'' if id_ == 's9' else value}\n" for (id_, day), value in cells.items()
    )
    a = made(tmp_path, wide, time="day", layout="wide", value_name="speed", units={"speed": "mile h-1"}, blocksize=64)
    assert a.channel("speed").units == "mile h-1"
    both = [(a.ids.tolist(), times(a), a.read("speed", 0, 90))]
    b = made(tmp_path, long, time="day", id="id")
    both.append((b.ids.tolist(), times(b), b.read("speed", 0, 90)))
    assert both[0][:2] == both[1][:2]
    np.testing.assert_array_equal(both[0][2], both[1][2])


def test_the_id_may_stand_in_the_path(tmp_path: Path) -> None:
    for site in ("010", "2"):
        write_table(tmp_path / f"site_{site}.csv", ["t", "v"], [[1, site], [2, site]])
    receipt = ingest(tmp_path / "site_*.csv", tmp_path / "s.zarr", time="t", id_from_path=r"site_(\w+)\.csv")
    store = open_store(tmp_path / "s.zarr")
    assert (store.ids.tolist(), values(store), receipt.n_rows_in) == (["010", "2"], [10, 10, 2, 2], 4)
    with pytest.raises(UsageError, match="no id in the path"):
        ingest(tmp_path / "site_2.csv", tmp_path / "t.zarr", time="t", id_from_path=r"plant_(\w+)")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_dialects_are_found(tmp_path: Path, delimiter: str, newline: str, bom: bytes) -> None:
    rows = [["id", "t", "v"], ['"x\ny"', "1", "1.5"], ['"a""b"', "2", ""], ["plain", "3", "3"]]
    text = newline.join(delimiter.join(row) for row in rows) + newline
    store = made(tmp_path, bom + text.encode(), id="id", time="t")
    assert store.ids.tolist() == ['a"b', "plain", "x\ny"]
    np.testing.assert_array_equal(values(store), [np.nan, 3, 1.5])


def test_a_decimal_comma_is_an_option(tmp_path: Path) -> None:
    store = made(tmp_path, "t;v\n1;1,5\n2;-0,25\n", time="t", decimal=",")
    assert values(store) == [1.5, -0.25]
    with pytest.raises(SourceError, match=r"text '1\.5' in number column"):
        made(tmp_path, "t;v\n1;1,5\n2;1.5\n", time="t", decimal=",")


def test_other_encodings_are_read_and_wrong_ones_refused(tmp_path: Path) -> None:
    text = "id,t,v\nMünchen,1,1\n"
    for encoding in ("latin-1", "utf-16"):
        store = made(tmp_path, text.encode(encoding), id="id", time="t", encoding=encoding)
        assert store.ids.tolist() == ["München"]
    with pytest.raises(SourceError, match=r"byte 0xfc is not UTF-8.* line 2"):
        made(tmp_path, text.encode("latin-1"), id="id", time="t")
    with pytest.raises(SourceError, match="are not utf-16"):
        made(tmp_path, b"\x00\xd8\x00\x00" + b"x" * 9, id="id", time="t", encoding="utf-16-le")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_are_read_and_broken_ones_refused(tmp_path: Path, suffix: str) -> None:
    plain = table(tmp_path / "r.csv", n_days=400).read_bytes()
    packed = gzip.compress(plain) if suffix == ".gz" else pa.compress(plain, "zstd", asbytes=True)
    store = made(tmp_path, packed, f"r.csv{suffix}", id="site", time="date")
    assert store.n_rows == 2000
    for cut in (len(packed) // 2, len(packed) - 1):
        with pytest.raises(SourceError, match="damaged file"):
            made(tmp_path, packed[:cut], f"r.csv{suffix}", id="site", time="date")


def test_text_becomes_categories_with_exact_words(tmp_path: Path) -> None:
    words = ["NNW", "", "very calm", "N", "NA", "NNW"]
    rows = "".join(f"{n},{word},{n}\n" for n, word in enumerate(words))
    store = made(tmp_path, f"t,wind,v\n{rows}", time="t", blocksize=8, missing=["wind=NA"])
    channel = store.channel("wind")
    assert channel.categories == ("N", "NNW", "very calm")
    np.testing.assert_array_equal(values(store, "wind"), [1, np.nan, 2, 0, np.nan, 1])
    attributes = xarray.open_zarr(store.path)["wind"].attrs
    assert (attributes["flag_values"], attributes["flag_meanings"]) == ([0, 1, 2], "N NNW very_calm")
    assert any("wind holds text" in note for note in store.receipt["notes"])


def test_columns_are_chosen_renamed_and_given_units(tmp_path: Path) -> None:
    store = made(
        tmp_path,
        "t,PM2.5,note,row\n1,5,a,1\n2,6,b,2\n",
        time="t",
        leave_out=["note", "row"],
        rename={"PM2.5": "fine dust"},
        units={"PM2.5": "ug m-3"},
    )
    assert store.channels == ("fine dust",)
    assert store.channel("fine dust").units == "ug m-3"
    assert xarray.open_zarr(store.path)["fine_dust"].attrs["units"] == "ug m-3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["depth"]}, "no column 'depth'"),
        ({"leave_out": ["depth"]}, "no column 'depth'"),
        ({"rename": {"v": "w"}}, "every name once"),
        ({"time_unit": "weeks"}, "--time-unit 'weeks'"),
        ({"time": None}, "no time column"),
        ({"time": None, "freq": "5min"}, "--freq 5min"),
        ({"id": "w", "layout": "wide"}, "--id with --layout wide"),
        ({"id_from_path": "("}, "a regular expression"),
    ],
)
def test_options_that_cannot_be_meant_are_told(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as caught:
        made(tmp_path, "t,v,w\n1,2,3\n", **{"time": "t", **options})
    assert caught.value.fix


def test_seven_columns_are_no_time(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one column, a date and a clock, or three to six: year, month"):
        made(tmp_path, "a,b,c,d,e,f,g,v\n2001,1,1,1,1,1,1,2\n", time=list("abcdefg"))


def test_a_duplicate_is_settled_by_the_order_of_the_source_whatever_the_blocks(tmp_path: Path) -> None:
    shuffler = random.Random(5)
    rows = [(f"s{shuffler.randrange(4)}", shuffler.randrange(25), n) for n in range(300)]
    half = [rows[:150], rows[150:]]
    paths = [
        write_table(tmp_path / f"{name}.csv", ["id", "t", "v"], part) for name, part in zip("ba", half, strict=True)
    ]
    for keep, workers, blocksize in itertools.product(("first", "last"), (1, 2), (40, 1000, 100_000)):
        chosen = dict(
            reversed([((i, t), v) for i, t, v in rows]) if keep == "first" else [((i, t), v) for i, t, v in rows]
        )
        receipt = ingest(
            paths,
            tmp_path / "s.zarr",
            id="id",
            time="t",
            on_duplicate=keep,  # type: ignore[arg-type]
            workers=workers,
            blocksize=blocksize,
            overwrite=True,
        )
        store = open_store(tmp_path / "s.zarr")
        assert values(store) == [chosen[key] for key in sorted(chosen)]
        assert (receipt.n_rows_in, receipt.n_stored) == (300, len(chosen))
        assert receipt.n_duplicates == 300 - len(chosen)
        assert verify(store).faults == ()


def test_duplicates_on_both_sides_of_a_shard_border_are_found(tmp_path: Path) -> None:
    rows = [[t, n] for n, t in enumerate([0, *([7] * 40), *range(8, 50)])]
    path = write_table(tmp_path / "r.csv", ["t", "v"], rows)
    ingest(path, tmp_path / "s.zarr", time="t", on_duplicate="last", blocksize=60, **SMALL_GRID)
    store = open_store(tmp_path / "s.zarr")
    assert times(store) == [0, 7, *range(8, 50)]
    assert values(store)[:3] == [0, 40, 41]
    with pytest.raises(SourceError, match=r"has 7 twice.*line 3 and .*line 4"):
        ingest(path, tmp_path / "t.zarr", time="t", blocksize=60, **SMALL_GRID)


OF_FILES = ("adrenal", "ct_cardiac", "emg_myo")  # many files each: ingested in test_recipes.py
RECIPES = {
    "ett": ("e.csv", "date,OT\n2016-07-01 00:00:00,30.5\n2016-07-01 01:00:00,27.7\n", 2),
    "camels": ("c.csv", "gauge_id,date,prcp_mm,temp_c,pet_mm,q_mm\n01022500,1981-01-01,0,-16.5,1.6,\n", 1),
    "metr_la_long": ("l.csv", "sensor_id,date,speed\n773869,2012-03-01 00:00:00,64.375\n", 1),
    "metr_la_wide": ("w.csv", "773869,767541\n64.375,67.625\n62.6,68.5\n", 4),
    "beijing": (
        "PRSA_Data_A.csv",
        '"No","year","month","day","hour","TEMP","PRES","DEWP","RAIN","wd","WSPM","station"\n'
        '1,2013,3,1,0,-0.7,NA, ,0,"NNW",4.4,"A"\n',
        1,
    ),
    "m4_hourly": ("m.csv", "series_id,timestamp,value,category\nH1,2015-07-01 12:00:00,605.0,Other\n", 1),
    "largest_flows": ("f.csv", "time,1114091,1118333\n2019-01-01 00:00:00,55,60\n2019-01-01 00:15:00,57,\n", 4),
    "toa5": (
        "logger.dat",
        '"TOA5","mast","CR1000"\n"TIMESTAMP","RECORD","T"\n"TS","RN","Deg C"\n"","","Avg"\n'
        '"2020-01-01 00:00:00",0,1.5\n"2020-01-01 00:10:00",1,"NAN"\n',
        2,
    ),
    "usgs_rdb": (
        "daily.rdb",
        "# U.S. Geological Survey\nagency_cd\tsite_no\tdatetime\tflow\n5s\t15s\t20d\t14n\n"
        "USGS\t01646500\t2020-01-01\t5260\nUSGS\t01646500\t2020-01-02\t\n",
        2,
    ),
    "noaa_ghcn_daily": (
        "USC00010008.csv",
        '"STATION","DATE","NAME","PRCP","PRCP_ATTRIBUTES","TMAX","TMAX_ATTRIBUTES","TMIN","TMIN_ATTRIBUTES"\n'
        '"USC00010008","2001-01-01","A, AL US","   0",",,7,0700","  150",",,7","  -17",",,7"\n'
        '"USC00010008","2001-01-02","A, AL US","  33","T,,7,0700",,,"  -22",",,7"\n',
        2,
    ),
    "noaa_isd_lite": (
        "010010-99999-2001.txt",
        "2001 01 01 00   -78 -9999 10200   270    59     8 -9999 -9999\n"
        "2001 01 01 01   -72  -100 10201   270    62     8     0 -9999\n",
        2,
    ),
    "noaa_lcd": (
        "lcd.csv",
        '"STATION","DATE","REPORT_TYPE","HourlyDryBulbTemperature","HourlyRelativeHumidity","HourlySeaLevelPressure",'
        '"HourlyWindSpeed"\n'
        '"72503014732","2001-01-01T00:51:00","FM-15","31","58","30.05","9"\n'
        '"72503014732","2001-01-01T01:51:00","FM-15","31s","58","30.05","9"\n'
        '"72503014732","2001-01-01T23:59:00","SOD","","","",""\n'
        '"72503014732","2001-01-01T23:59:00","SOM","*","","",""\n',
        2,
    ),
    "noaa_monthly": (
        "nino.txt",
        " 2000 2001\n 2000 -1.5 -1.4 -1.1 -0.9 -0.8 -0.7 -0.6 -0.5 -0.5 -0.6 -0.7 -0.8\n"
        " 2001 -0.7 -0.5 -0.4 -99.9 -99.9 -99.9 -99.9 -99.9 -99.9 -99.9 -99.9 -99.9\n  -99.9\n Nino 3.4\n",
        24,
    ),
    "largest_sd": ("sd.csv", "ID,Lat,Lng,Fwy\n1114091,32.5,-117.03,I5-N\n1118333,32.6,-117.04,I5-N\n", 2),
}


def test_every_recipe_ingests_a_file_of_its_kind(run: Run, tmp_path: Path) -> None:
    recipes = sorted((REPOSITORY / "configs" / "ingest").glob("*.yaml"))
    assert [path.stem for path in recipes] == sorted([*RECIPES, *OF_FILES])
    for path in (path for path in recipes if path.stem in RECIPES):
        name, text, n_rows = RECIPES[path.stem]
        (tmp_path / name).write_text(text)
        run("zstore.cli", "ingest", name, f"{path.stem}.zarr", "--config", path, check=True)
        assert open_store(tmp_path / f"{path.stem}.zarr").n_rows == n_rows
        yaml.safe_load(path.read_text())


def test_flags_take_lists_and_pairs_with_commas(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("y,m,d,a,b,c\n2001,1,1,1,2,3\n2001,1,2,1,2,x\n")
    words = ("--time", "y,m,d", "--leave-out", "c", "--rename", "a=first,b=second", "--units", "a=m")
    run("zstore.cli", "ingest", "r.csv", "s.zarr", *words, check=True)
    store = open_store(tmp_path / "s.zarr")
    assert (store.channels, store.channel("first").units) == (("first", "second"), "m")


def test_the_codec_is_chosen_by_trial_and_the_trial_recorded(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=3000)
    rows = "".join(f"{n},{value!r},{n % 7}\n" for n, value in enumerate(noise.tolist()))
    store = made(tmp_path, f"t,noise,week\n{rows}", time="t", codec="auto")
    for channel in store.receipt["channels"]:
        assert channel["codec"] in channel["trial"]
        assert len(channel["trial"]) == 5
    np.testing.assert_array_equal(values(store, "noise"), noise.astype(np.float32))
    np.testing.assert_array_equal(xarray.open_zarr(store.path)["week"], np.arange(3000) % 7)
    named = made(tmp_path, f"t,noise,week\n{rows}", time="t", codec="blosc-lz4-1-noshuffle")
    assert {channel["codec"] for channel in named.receipt["channels"]} == {"blosc-lz4-1-noshuffle"}
    with pytest.raises(UsageError, match="codec 'zip'; expected auto, zstd-LEVEL"):
        made(tmp_path, "t,v\n1,2\n", time="t", codec="zip")


def test_gaps_are_filled_with_missing_rows_on_request(tmp_path: Path) -> None:
    rows = [("a", 0), ("a", 2), ("a", 4), ("a", 12), ("b", 5), ("b", 7), ("c", 1)]
    text = "id,t,v,w\n" + "".join(f"{id_},{t},{t}.5,x\n" for id_, t in random.Random(0).sample(rows, 7))
    store = made(tmp_path, text, id="id", time="t", fill_gaps=True)
    assert times(store) == [0, 2, 4, 6, 8, 10, 12, 5, 7, 1]
    np.testing.assert_array_equal(values(store), [0.5, 2.5, 4.5, *[np.nan] * 3, 12.5, 5.5, 7.5, 1.5])
    np.testing.assert_array_equal(values(store, "w"), [0, 0, 0, *[np.nan] * 3, 0, 0, 0, 0])
    assert (store.receipt["n_rows_in"], store.receipt["n_stored"], store.receipt["n_filled"]) == (7, 7, 3)
    assert len(store.index.runs.start) == 3
    assert verify(store).faults == ()


def test_gaps_across_shard_borders_are_filled(tmp_path: Path) -> None:
    kept = [t for t in range(100) if t % 16 not in (15, 0) or t in (0, 99)]
    path = write_table(tmp_path / "r.csv", ["t", "v"], [[t, t] for t in kept])
    ingest(path, tmp_path / "s.zarr", time="t", fill_gaps=True, blocksize=100, **SMALL_GRID)
    store = open_store(tmp_path / "s.zarr")
    assert times(store) == list(range(100))
    assert np.flatnonzero(~np.isnan(store.read("v", 0, 100))).tolist() == kept


def test_gaps_that_cannot_be_filled_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"time 5 of id '0' is off the grid; expected times a multiple of 2 steps"):
        made(tmp_path, "t,v\n0,1\n2,1\n4,1\n5,1\n7,1\n", time="t", fill_gaps=True)
    with pytest.raises(SourceError, match="gaps in irregular times"):
        made(tmp_path, "t,v\n0,1\n1,1\n4,1\n9,1\n", time="t", fill_gaps=True)
    with pytest.raises(SourceError, match="would add 99,999,997 rows"):
        made(tmp_path, "t,v\n0,1\n1,1\n2,1\n100000000,1\n", time="t", fill_gaps=True)


def test_a_header_may_have_the_only_quotes_of_a_file(tmp_path: Path) -> None:
    store = made(tmp_path, '"t","a b","c"\n0,1,2\n1,3,4\n', time="t")
    assert store.channels == ("a b", "c")
    assert values(store, "a b") == [1, 3]


@pytest.mark.parametrize("content", [b"\0" * 100_000, b"a" * 100_000], ids=["zeros", "letters"])
def test_a_header_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("zstore.writing.sources.csv.header._HEAD_BYTES", 1 << 10)
    monkeypatch.setattr("zstore.writing.sources.csv.header.MOST_RECORD_BYTES", 1 << 14)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(content))
    with pytest.raises(SourceError, match=r"no end of the lines above the rows in 16,384 bytes"):
        ingest(tmp_path / "bomb.csv.gz", tmp_path / "s.zarr", id="id", time="t")
    assert not (tmp_path / "s.zarr").exists()
