"""Every time step rule through zstore: runs, windows, gaps, filling, appends, panels, and how each is told."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import PanelGrid, SourceError, Store, StoreError, UsageError, ingest, open_panel, open_store
from zstore.cli import main
from zstore.format.schema import Schema
from zstore.reading.scaling import Scaling
from zstore.upkeep.doctor import examine

N_ROWS = 66
STARTS = {"a": 0, "b": 3, "c": 7}

# What pandas calls the steps, what the store calls the rule that it finds, and what a doctor counts gaps in.
RULES = {
    "MS": ("MS", "months"),
    "2MS": ("2MS", "steps"),
    "ME": ("ME", "months"),
    "QS": ("QS", "quarters"),
    "QE": ("QE", "quarters"),
    "YS": ("YS", "years"),
    "YE": ("YE", "years"),
    "YE-JUN": ("YE-JUN", "years"),
    "QS-FEB": ("QS-FEB", "quarters"),
    "B": ("B", "weekdays"),
    "2B": ("2B", "steps"),
    "W-WED": ("7d", "steps"),
    "15min": ("15min", "steps"),
}


def dates(freq: str, n: int = N_ROWS + 10) -> Any:
    return pd.date_range("1999-03-02", periods=n, freq=freq).as_unit("s")


def rows_of(freq: str, left_out: dict[str, list[int]] | None = None, n: int = N_ROWS) -> list[list[Any]]:
    """Three series that begin at different steps, one value each, in time order."""
    rows = []
    for id_, first in STARTS.items():
        for row, date in enumerate(dates(freq)[first : first + n]):
            if row not in (left_out or {}).get(id_, []):
                rows.append([id_, date.isoformat(sep=" "), first + row + 0.5])
    return sorted(rows, key=lambda row: row[1])


def made(folder: Path, rows: list[list[Any]], name: str = "s.zarr", **options: Any) -> Store:
    table = write_table(folder / "r.csv", ["id", "time", "v"], rows)
    ingest(table, folder / name, id="id", time="time", overwrite=True, **options)
    return open_store(folder / name)


def times_of(store: Store) -> list[str]:
    axis = store.schema.time
    return [axis.show(int(time)) for time in store.times(0, store.n_rows)]


def expected_times(freq: str, n: int = N_ROWS) -> list[str]:
    both = [date for first in STARTS.values() for date in dates(freq)[first : first + n]]
    return [date.isoformat(sep=" ").removesuffix(" 00:00:00") for date in both]


@pytest.mark.parametrize("freq", RULES)
@pytest.mark.parametrize("given_freq", [False, True])
def test_series_of_a_rule_are_one_run_each_and_have_the_windows_of_the_formula(
    freq: str, given_freq: bool, tmp_path: Path
) -> None:
    store = made(tmp_path, rows_of(freq), freq=freq if given_freq else None)
    shown = freq if given_freq and freq == "W-WED" else RULES[freq][0]
    assert store.schema.time.show_freq() == shown
    assert store.index.runs.start.tolist() == [0, N_ROWS, 2 * N_ROWS]
    windows = store.windows(12, 3, cache=tmp_path / "cache")
    assert len(windows) == 3 * (N_ROWS - 12 - 3 + 1)
    batch = windows.batch(np.arange(len(windows)))
    expected = [dates(freq)[first + n + 12] for first in STARTS.values() for n in range(N_ROWS - 14)]
    assert batch["time"].astype("M8[s]").tolist() == [date.to_pydatetime() for date in expected]
    assert zstore.verify(store).faults == ()
    assert not examine(store).counts
    assert times_of(store) == expected_times(freq)


@pytest.mark.parametrize("freq", RULES)
def test_filling_adds_exactly_the_missing_rows_and_the_doctor_finds_them_before(freq: str, tmp_path: Path) -> None:
    rows = rows_of(freq, {"a": [20], "c": [5, 6, 7, 50]})
    store = made(tmp_path, rows)
    assert store.schema.time.show_freq() == RULES[freq][0]
    assert store.index.runs.start.tolist() == [0, 20, 65, 131, 136, 178]
    noun = RULES[freq][1]
    found = [(f.series, f.detail) for f in examine(store).findings if f.kind == "gap"]
    one, several = f"1 {noun.removesuffix('s')} missing", f"4 {noun} missing in 2 gaps, at most 3 together"
    assert sorted(found) == [("a", one), ("c", several)]
    receipt = ingest(tmp_path / "r.csv", tmp_path / "f.zarr", id="id", time="time", fill_gaps=True)
    filled = open_store(tmp_path / "f.zarr")
    assert receipt.n_filled == 5
    assert times_of(filled) == expected_times(freq)
    assert len(filled.index.runs.start) == 3
    missing = np.flatnonzero(np.isnan(filled.read("v", 0, filled.n_rows))).tolist()
    assert missing == [20, *(2 * N_ROWS + row for row in (5, 6, 7, 50))]


@pytest.mark.parametrize("freq", RULES)
def test_a_panel_of_a_rule_has_every_series_at_its_own_steps(freq: str, tmp_path: Path) -> None:
    store = made(tmp_path, rows_of(freq, {"b": [30, 31]}))
    grid = PanelGrid.of(store)
    assert grid.n_steps == N_ROWS + 7
    times = grid.times(0, grid.n_steps).astype("M8[s]").tolist()
    assert times == [date.to_pydatetime() for date in dates(freq)[: N_ROWS + 7]]
    assert grid.first_step(grid.times(0, grid.n_steps)).tolist() == list(range(grid.n_steps))
    values = open_panel(store, grid, ["v"], Scaling.identity(1), tmp_path / "cache").rows()
    expected = np.zeros((grid.n_steps, 3))
    for node, first in enumerate(STARTS.values()):
        expected[first : first + N_ROWS, node] = np.arange(N_ROWS) + first + 0.5
    expected[33:35, 1] = 0
    assert values.values.tolist() == expected.tolist()


@pytest.mark.parametrize("freq", RULES)
def test_rows_that_are_appended_go_on_in_the_rule_of_the_store(freq: str, tmp_path: Path) -> None:
    everything = rows_of(freq)
    early, later = [row for row in everything if row[2] < 50], [row for row in everything if row[2] >= 50]
    store = made(tmp_path, early)
    write_table(tmp_path / "later.csv", ["id", "time", "v"], later)
    zstore.append(tmp_path / "later.csv", tmp_path / "s.zarr")
    grown, whole = open_store(tmp_path / "s.zarr"), made(tmp_path, everything, "w.zarr")
    assert grown.schema.time.rule == store.schema.time.rule == whole.schema.time.rule
    for name in ("start", "stop", "series", "time"):
        assert getattr(grown.index.runs, name).tolist() == getattr(whole.index.runs, name).tolist()
    assert zstore.verify(grown).faults == ()
    compacted = zstore.compact(tmp_path / "s.zarr")
    assert compacted.schema.time.rule == whole.schema.time.rule
    assert times_of(compacted) == times_of(grown) == times_of(whole)


@pytest.mark.parametrize("freq", ["MS", "QE", "YE-JUN", "B"])
def test_a_rule_is_shown_exported_and_read_by_xarray(freq: str, tmp_path: Path) -> None:
    store = made(tmp_path, rows_of(freq))
    out = io.StringIO()
    with redirect_stdout(out):
        main(["info", store.path])
        main(["show", store.path, "b"])
    printed = out.getvalue()
    assert f"step {RULES[freq][0]}, 3 runs" in printed
    assert dates(freq)[3].isoformat(sep=" ").removesuffix(" 00:00:00") in printed
    zstore.export(store, tmp_path / "out.csv")
    back = pd.read_csv(tmp_path / "out.csv", parse_dates=["time"])
    assert back["time"].tolist() == [d for first in STARTS.values() for d in dates(freq)[first : first + N_ROWS]]
    again = made(tmp_path, back.values.tolist(), "again.zarr")
    assert again.schema.time.rule == store.schema.time.rule
    times = store.to_xarray().time.values
    assert times.tolist() == back["time"].to_numpy().astype("M8[s]").tolist()
    assert "<svg" in store._repr_html_()


@pytest.mark.parametrize("n_rows_a_shard", [16, 64])
@pytest.mark.parametrize("freq", ["MS", "YE-JUN", "B"])
def test_a_rule_is_found_over_shards_whose_borders_lie_within_series(
    freq: str, n_rows_a_shard: int, tmp_path: Path
) -> None:
    grid: dict[str, Any] = {"chunk_rows": 8, "shard_rows": n_rows_a_shard}
    rows = rows_of(freq, {"b": [15, 16], "c": [62]})
    store = made(tmp_path, rows, workers=2, **grid)
    assert store.schema.time.show_freq() == RULES[freq][0]
    assert store.index.runs.start.tolist() == [0, 66, 81, 130, 192]
    filled = made(tmp_path, rows, "f.zarr", fill_gaps=True, **grid)
    assert times_of(filled) == expected_times(freq)


@settings(max_examples=12)
@given(
    freq=st.sampled_from(sorted(RULES)),
    left_out=st.dictionaries(st.sampled_from(sorted(STARTS)), st.sets(st.integers(1, 28), max_size=8)),
    shards=st.sampled_from([16, 32]),
)
def test_whatever_is_missing_is_filled_and_cuts_runs(
    freq: str, left_out: dict[str, set[int]], shards: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("r")
    grid: dict[str, Any] = {"chunk_rows": 8, "shard_rows": shards}
    rows = rows_of(freq, {id_: sorted(gone) for id_, gone in left_out.items()}, n=30)
    store = made(folder, rows, freq=freq, **grid)
    n_runs = sum(1 + sum(row - 1 not in gone for row in gone) for gone in map(left_out.get, STARTS) if gone)
    assert len(store.index.runs.start) == n_runs + sum(not left_out.get(id_) for id_ in STARTS)
    filled = made(folder, rows, "f.zarr", fill_gaps=True, freq=freq, **grid)
    assert times_of(filled) == expected_times(freq, 30)
    assert zstore.verify(filled).faults == ()


@pytest.mark.parametrize(
    ("shift", "shown"),
    [("14D", "MS on day 15"), ("14D9h", "MS on day 15 at 09:00"), ("9h", "MS at 09:00"), ("-1s", "ME at 23:59:59")],
)
def test_the_day_of_the_month_and_the_time_of_day_are_those_of_the_rows(shift: str, shown: str, tmp_path: Path) -> None:
    moved = pd.date_range("2000-03-01", periods=40, freq="MS") + pd.Timedelta(shift)
    store = made(tmp_path, [["a", date.isoformat(sep=" "), n] for n, date in enumerate(moved)])
    assert (store.schema.time.show_freq(), len(store.index.runs.start)) == (shown, 1)
    assert store.time.rule.times(np.arange(45), int(store.times(0, 1)[0]))[:40].tolist() == store.times(0, 40).tolist()
    assert zstore.verify(store).faults == ()


def test_quarters_of_series_with_different_months_are_every_third_month(tmp_path: Path) -> None:
    rows = [
        [id_, date.date(), n]
        for id_, freq in (("a", "QS-JAN"), ("b", "QS-FEB"))
        for n, date in enumerate(pd.date_range("2000-01-01", periods=20, freq=freq))
    ]
    store = made(tmp_path, rows)
    assert (store.schema.time.show_freq(), len(store.index.runs.start)) == ("3MS", 2)
    with pytest.raises(UsageError, match=r"series b is off the others' time grid, at 2000-02-01.*steps of 3MS apart"):
        PanelGrid.of(store)
    asked = made(tmp_path, rows, freq="QS-FEB")
    assert (asked.schema.time.show_freq(), len(asked.index.runs.start)) == ("QS-FEB", 21)
    assert any("1 series is irregular" in note for note in asked.receipt["notes"])


def test_daily_rows_stay_daily_whatever_is_missing_of_them(tmp_path: Path) -> None:
    rows = [["a", date.date(), n] for n, date in enumerate(pd.date_range("2000-01-01", periods=60))]
    for gone in ([], [9, 10], [3, 4, 20, 21, 40, 41]):
        store = made(tmp_path, [row for n, row in enumerate(rows) if n not in gone])
        assert (store.schema.time.show_freq(), len(store.index.runs.start)) == ("1d", 1 + len(gone) // 2)


def test_a_holiday_is_a_gap_of_weekdays_and_a_step_like_any_other_of_rows(tmp_path: Path) -> None:
    days = [
        day for day in pd.date_range("2001-01-01", "2001-06-30", freq="B") if f"{day:%m-%d}" not in ("04-13", "05-28")
    ]
    rows = [[id_, day.date(), n] for id_ in "abc" for n, day in enumerate(days)]
    store = made(tmp_path, rows)
    assert (store.schema.time.show_freq(), len(store.index.runs.start)) == ("B", 9)
    rows = [row for row in rows if (row[0], row[2]) != ("b", 50)]
    store = made(tmp_path, rows, freq="rows")
    assert (store.schema.time.show_freq(), len(store.index.runs.start)) == ("rows", 3)
    assert zstore.verify(store).faults == ()
    assert "gap" not in examine(store).counts
    windows = store.windows(12, 3, cache=tmp_path / "cache")
    assert len(windows) == 3 * (len(days) - 14) - 1
    batch = windows.batch(np.array([0, len(windows) - 1]))
    assert batch["time"].astype("M8[s]").tolist() == [days[12].to_pydatetime(), days[-3].to_pydatetime()]
    grid = PanelGrid.of(store)
    assert (grid.n_steps, grid.whole) == (len(days), False)
    assert grid.times(0, grid.n_steps).astype("M8[s]").tolist() == [day.to_pydatetime() for day in days]
    panel = open_panel(store, grid, ["v"], Scaling.identity(1), tmp_path / "cache").rows()
    expected = np.tile(np.arange(len(days), dtype=float)[:, None], 3)
    expected[50, 1] = 0
    assert panel.values.tolist() == expected.tolist()
    with pytest.raises(UsageError, match="--fill-gaps with --freq rows"):
        made(tmp_path, rows, freq="rows", fill_gaps=True)


def test_rows_are_kept_as_the_rule_by_an_append(tmp_path: Path) -> None:
    store = made(tmp_path, [["a", f"2001-01-0{day}", day] for day in (1, 2, 5)], freq="rows")
    write_table(tmp_path / "more.csv", ["id", "time", "v"], [["a", "2001-02-07", 4], ["b", "2001-02-07", 4]])
    zstore.append(tmp_path / "more.csv", store.path)
    grown = open_store(store.path)
    assert (grown.schema.time.show_freq(), grown.index.runs.start.tolist()) == ("rows", [0, 4])
    assert zstore.compact(store.path).schema.time.show_freq() == "rows"


@pytest.mark.parametrize("first_rows", [[40, 55], [30, 40, 55], [61, 62]], ids=["long step", "irregular", "days"])
def test_compact_finds_the_rule_in_all_rows_even_where_late_ones_left_them_in_order(
    first_rows: list[int], tmp_path: Path
) -> None:
    rows = [["a", date.date().isoformat(), n] for n, date in enumerate(dates("MS", N_ROWS))]
    store = made(tmp_path, [rows[n] for n in first_rows])
    others = [row for row in rows if row[2] not in first_rows]
    write_table(tmp_path / "more.csv", ["id", "time", "v"], others)
    zstore.append(tmp_path / "more.csv", store.path)
    assert open_store(store.path).schema.time.rule == store.schema.time.rule
    compacted = zstore.compact(store.path)
    assert (compacted.schema.time.show_freq(), compacted.index.runs.start.tolist()) == ("MS", [0])
    assert zstore.compact(store.path).version == compacted.version


@pytest.mark.parametrize(
    ("start", "freq", "last"),
    [
        ("2000-01-31", "ME", "2001-12-31"),
        ("2000-01-01", "MS", "2001-12-01"),
        ("2000-01-15 09:00", "MS", "2001-12-15 09:00:00"),
        ("2000-02-29", "YE-FEB", "2023-02-28"),
        ("2000-01-03", "B", "2000-02-03"),
        ("2000-01-01", "2QS", "2011-07-01"),
        ("2000-01-05", "W-WED", "2000-06-14"),
    ],
)
def test_rows_without_times_follow_each_other_by_the_rule_from_the_start(
    start: str, freq: str, last: str, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "r.csv", ["id", "v"], [[id_, n] for n in range(24) for id_ in "ab"])
    ingest(table, tmp_path / "s.zarr", id="id", start=start, freq=freq)
    store = open_store(tmp_path / "s.zarr")
    shown = times_of(store)
    assert (shown[0], shown[23]) == (str(pd.Timestamp(start)).removesuffix(" 00:00:00"), last)
    assert len(store.index.runs.start) == 2
    assert zstore.verify(store).faults == ()


@pytest.mark.parametrize(
    ("start", "freq"), [("2000-01-15", "ME"), ("2000-01-01", "QS-FEB"), ("2000-01-01", "B"), ("2000-01-01", "W-WED")]
)
def test_a_start_that_the_rule_does_not_have_is_refused(start: str, freq: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "r.csv", ["v"], [[n] for n in range(24)])
    with pytest.raises(UsageError, match=f"--start {start} with --freq {freq}; expected a first row that {freq} has"):
        ingest(table, tmp_path / "s.zarr", start=start, freq=freq)


@pytest.mark.parametrize("freq", ["M", "me", "Q", "fortnight", "W-JUN", "MS-JAN"])
def test_a_rule_that_there_is_not_is_refused_with_those_there_are(freq: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"frequency '.*'; expected a step such as 1D.*MS, QE, YE-JUN, W-WED or B"):
        made(tmp_path, rows_of("MS"), freq=freq)


def test_a_row_off_the_rule_is_a_run_of_its_own_with_its_own_time(tmp_path: Path) -> None:
    rows = [["a", date.date(), n] for n, date in enumerate(pd.date_range("2000-01-01", periods=24, freq="MS"))]
    rows[10][1] = "2000-11-09"
    store = made(tmp_path, rows)
    assert store.index.runs.start.tolist() == [0, 10, 11]
    assert store.schema.time.show(int(store.index.runs.time[1])) == "2000-11-09"
    windows = store.windows(1, 1, delay=-1, cache=tmp_path / "cache")
    batch = windows.batch(np.arange(24))
    assert batch["time"].tolist() == store.times(0, 24).tolist()
    assert zstore.verify(store).faults == ()
    with pytest.raises(SourceError, match="time 2000-11-09 of id 'a' is off the grid; expected times as MS has them"):
        made(tmp_path, rows, fill_gaps=True)
    write_table(tmp_path / "more.csv", ["id", "time", "v"], [["a", "2002-01-03", 1], ["a", "2002-02-01", 1]])
    zstore.append(tmp_path / "more.csv", store.path)
    assert open_store(store.path).index.runs.start.tolist() == [0, 10, 11, 24, 25]


def test_the_rule_stands_in_the_root_document(tmp_path: Path) -> None:
    store = made(tmp_path, rows_of("YE-JUN"))
    root = json.loads((Path(store.path) / "zarr.json").read_text())["attributes"]["zstore"]
    rule = {"text": "YE-JUN", "kind": "month", "count": 12, "period": 12, "anchor": 5, "clock": 0, "day": 31}
    assert (root["format"], root["time"]) == (2, {"unit": "s", "rule": rule, "zone": None})


def test_a_yearly_append_after_a_leap_year_goes_on(tmp_path: Path) -> None:
    store = made(tmp_path, [["a", f"{year}-01-01", year] for year in range(2000, 2009)])
    assert store.schema.time.show_freq() == "YS"
    write_table(
        tmp_path / "more.csv", ["id", "time", "v"], [["a", f"{year}-01-01", year] for year in range(2009, 2020)]
    )
    zstore.append(tmp_path / "more.csv", store.path)
    assert len(open_store(store.path).index.runs.start) == 1


def test_the_doctor_tells_rows_off_the_rule_from_gaps(tmp_path: Path) -> None:
    rows = [["a", date.date(), n] for n, date in enumerate(pd.date_range("2000-01-01", periods=24, freq="MS"))]
    rows[10][1] = "2000-11-09"
    rows.pop(5)
    found = [(finding.kind, finding.detail) for finding in examine(made(tmp_path, rows)).findings]
    assert ("gap", "1 month missing") in found
    assert ("off_grid", "2 steps that are no multiple of MS") in found
    assert len(found) == 2


@pytest.mark.parametrize(
    "changes", [{"rule": None}, {"rule": {"kind": "month"}}, {"unit": "year"}, {"rule": {"kind": "fixed", "count": -1}}]
)
def test_a_root_document_with_a_rule_that_is_none_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    document = made(tmp_path, rows_of("MS")).schema.to_json()
    document["time"] |= changes
    with pytest.raises(StoreError, match=r"root document with time .*; expected a time axis of format 2. s\.zarr"):
        Schema.from_json(document, "s.zarr")
