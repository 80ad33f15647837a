"""From CSV to a committed store: every row, in order, whatever the order of the source."""

import gzip
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import xarray
from conftest import SMALL_GRID, few, table, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import SourceError, Store, ingest, open_store, verify
from zstore.upkeep.compare import compare_sources


def oracle(*paths: Path) -> pd.DataFrame:
    """The rows as pandas reads them, sorted by (id, time)."""
    frame = pd.concat([pd.read_csv(path, dtype={"site": str}, parse_dates=["date"]) for path in paths])
    return frame.sort_values(["site", "date"], kind="stable").reset_index(drop=True)


def objects(store: Path) -> dict[str, str]:
    """Digest of every object of a store but those that record when and from which files it was made."""
    roots = {store / "zarr.json", *store.glob("manifest/*/root.json"), *store.glob("manifest/*/source_*/**/*")}
    files = [path for path in store.rglob("*") if path.is_file() and path not in roots]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_equal(store: Store, frame: pd.DataFrame) -> None:
    assert store.n_rows == len(frame)
    assert store.ids.tolist() == frame["site"].unique().tolist()
    np.testing.assert_array_equal(store.times(0, store.n_rows), frame["date"].astype("datetime64[s]").astype("int64"))
    for channel in store.channels:
        np.testing.assert_array_equal(
            store.read(channel, 0, store.n_rows), frame[channel].to_numpy(np.float64).astype(np.float32)
        )


def test_a_store_holds_every_row_sorted_by_id_and_time(csv: Path, store: Store) -> None:
    assert_equal(store, oracle(csv))


def test_the_receipt_accounts_for_every_row(csv: Path, tmp_path: Path) -> None:
    receipt = ingest(csv, tmp_path / "s.zarr", id="site", time="date")
    frame = oracle(csv)
    assert (receipt.n_rows_in, receipt.n_stored, receipt.n_quarantined, receipt.n_duplicates) == (200, 200, 0, 0)
    assert receipt.n_series == 5
    assert (receipt.time_start, receipt.time_stop, receipt.freq) == ("2001-01-01", "2001-02-09", "1d")
    assert receipt.channels[0].n_missing == int(frame["level"].isna().sum())
    assert [(c.stored, c.decimals) for c in receipt.channels] == [("int16", 2), ("int16", 0)]


def test_several_files_plain_and_gzipped_with_columns_in_any_order_make_one_store(tmp_path: Path) -> None:
    first, second = table(tmp_path / "a.csv", n_days=10), tmp_path / "b.csv.gz"
    header, *rows = table(tmp_path / "b.csv", n_days=30, seed=1).read_text().splitlines()
    later = [row.split(",") for row in rows if row.split(",")[1] > "2001-01-10"]
    turned = ["date,count,site,level", *(f"{date},{count},{site},{level}" for site, date, level, count in later)]
    second.write_bytes(gzip.compress("\n".join(turned).encode()))
    assert header == "site,date,level,count"
    ingest([first, second], tmp_path / "s.zarr", id="site", time="date")
    assert_equal(open_store(tmp_path / "s.zarr"), oracle(first, second))


def test_order_workers_and_block_size_do_not_change_a_byte(csv: Path, tmp_path: Path) -> None:
    header, *rows = csv.read_text().splitlines()
    random.Random(3).shuffle(rows)
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text("\n".join([header, *rows]) + "\n")
    ingest(csv, tmp_path / "a.zarr", id="site", time="date", workers=1)
    ingest(shuffled, tmp_path / "b.zarr", id="site", time="date", workers=2, blocksize=300)
    assert objects(tmp_path / "a.zarr") == objects(tmp_path / "b.zarr")


def test_a_dask_cluster_makes_the_same_bytes_as_threads(csv: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    ingest(csv, tmp_path / "a.zarr", id="site", time="date")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", processes=False) as cluster:  # type: ignore[no-untyped-call]
        ingest(csv, tmp_path / "b.zarr", id="site", time="date", scheduler=cluster.scheduler_address, blocksize=1000)
    assert objects(tmp_path / "a.zarr") == objects(tmp_path / "b.zarr")


def test_shards_split_long_series_at_the_right_rows(csv: Path, tmp_path: Path) -> None:
    ingest(csv, tmp_path / "s.zarr", id="site", time="date", blocksize=500, **SMALL_GRID)
    store = open_store(tmp_path / "s.zarr")
    assert len(list((tmp_path / "s.zarr" / "level" / "c").iterdir())) == 13
    assert_equal(store, oracle(csv))
    assert verify(store).faults == ()
    assert len(store.index.runs.start) == 5
    frame = oracle(csv)
    np.testing.assert_allclose(store.moments.mean[:, 0], frame.groupby("site")["level"].mean(), rtol=1e-12)
    np.testing.assert_allclose(store.moments.std[:, 0], frame.groupby("site")["level"].std(ddof=0), rtol=1e-9)


def test_the_border_of_a_giant_series_is_found_without_reading_it(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zstore.writing.sort._SELECT_ROWS", 4)
    test_shards_split_long_series_at_the_right_rows(csv, tmp_path)


def test_a_wide_file_without_ids_is_one_series(hourly: Store) -> None:
    assert (hourly.n_series, hourly.ids.tolist(), hourly.n_rows) == (1, ["0"], 2000)
    assert hourly.schema.time.show_freq() == "1h"


def test_ids_stay_exactly_as_written(tmp_path: Path) -> None:
    ids = ["01022500", "NA", "9007199254740993", "../x", "1e5", "é", "e\u0301", "a b", "null"]
    path = write_table(tmp_path / "r.csv", ["id", "t", "v"], [[id_, 1, n] for n, id_ in enumerate(ids)])
    ingest(path, tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert store.ids.tolist() == sorted(ids, key=str.encode)
    for number, id_ in enumerate(ids):
        assert store.series(id_).read("v").tolist() == [number]
    assert not (tmp_path / "x").exists()


def test_quoted_fields_may_hold_line_breaks_across_blocks(tmp_path: Path) -> None:
    lines = [f'"site\n{n % 3},""x""",2001-01-{n // 3 + 1:02d},{n}' for n in range(60)]
    path = tmp_path / "r.csv"
    path.write_text("id,date,v\n" + "\n".join(lines) + "\n")
    ingest(path, tmp_path / "s.zarr", id="id", time="date", blocksize=64)
    store = open_store(tmp_path / "s.zarr")
    assert store.ids.tolist() == [f'site\n{n},"x"' for n in range(3)]
    assert store.series('site\n1,"x"').read("v").tolist() == list(range(1, 60, 3))


def test_runs_split_at_gaps_and_the_receipt_says_so(tmp_path: Path) -> None:
    days = [1, 2, 3, 7, 8]
    path = write_table(tmp_path / "r.csv", ["id", "date", "v"], [["a", f"2001-01-{d:02d}", d] for d in days])
    receipt = ingest(path, tmp_path / "s.zarr", id="id", time="date")
    assert receipt.n_runs == 2
    assert "steps other than 1d: 1, in 1 series" in receipt.notes[0]
    runs = open_store(tmp_path / "s.zarr").index.runs
    assert (runs.start.tolist(), runs.stop.tolist()) == ([0, 3], [3, 5])


def test_a_given_frequency_cuts_runs_by_it(tmp_path: Path) -> None:
    path = write_table(tmp_path / "r.csv", ["date", "v"], [[f"2001-01-{d:02d}", d] for d in (1, 3, 5, 6)])
    assert ingest(path, tmp_path / "a.zarr", time="date").n_runs == 2
    assert ingest(path, tmp_path / "b.zarr", time="date", freq="1D").n_runs == 3


def test_irregular_times_are_kept_and_said_to_be_irregular(tmp_path: Path) -> None:
    path = write_table(tmp_path / "r.csv", ["t", "v"], [[t, t] for t in (0, 1, 4, 9, 16, 25)])
    receipt = ingest(path, tmp_path / "s.zarr", time="t")
    assert (receipt.freq, receipt.n_runs) == ("irregular", 1)
    assert "irregular" in receipt.notes[0]


def test_an_irregular_series_among_regular_ones_is_kept_and_named(tmp_path: Path) -> None:
    regular = [[id_, t, t] for id_ in ("a", "b", "d") for t in range(0, 300, 10)]
    odd = [["c", t, t] for t in (0, 3, 10, 17, 21, 100)]
    path = write_table(tmp_path / "r.csv", ["id", "t", "v"], regular + odd)
    for fill_gaps in (False, True):
        receipt = ingest(path, tmp_path / "s.zarr", id="id", time="t", fill_gaps=fill_gaps, overwrite=True)
        assert (receipt.n_stored, receipt.n_filled, receipt.freq) == (96, 0, "10 steps")
        named = "1 series is irregular and kept as it is: most steps are no multiple of 10 steps ('c')"
        assert any(note.startswith(named) for note in receipt.notes)


def test_where_every_series_is_off_the_step_that_was_asked_for_the_note_says_how_to_read_rows(tmp_path: Path) -> None:
    rows = [[id_, t, t] for id_ in ("a", "b") for t in (0, 3, 7, 11, 20, 33)]
    path = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    receipt = ingest(path, tmp_path / "s.zarr", id="id", time="t", freq="10")
    expected = "most steps of every series are no multiple of 10 steps; --freq rows is for windows over such rows"
    assert receipt.notes[-1] == expected


def test_steps_that_change_too_often_to_be_reported_give_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    times = {id_: np.cumsum(random.choice([5, 5, 5, 7, 10], 400)) for id_ in "abc"}
    rows = [[id_, time, 1] for id_, column in times.items() for time in column]
    path = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(path, tmp_path / "few.zarr", id="id", time="t")
    monkeypatch.setattr("zstore.writing.steps._MOST_RUNS", 2)
    ingest(path, tmp_path / "many.zarr", id="id", time="t")
    assert objects(tmp_path / "few.zarr") == objects(tmp_path / "many.zarr")
    runs = open_store(tmp_path / "few.zarr").index.runs
    breaks = sum(int(np.count_nonzero(np.diff(column) != 5)) for column in times.values())
    assert len(runs.start) == breaks + 3


def test_fractions_of_a_second_are_kept(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "r.csv", ["date", "v"], [[f"2001-01-01 00:00:00.{n:02d}", n] for n in range(0, 100, 5)]
    )
    ingest(path, tmp_path / "s.zarr", time="date")
    store = open_store(tmp_path / "s.zarr")
    assert store.schema.time.unit == "ms"
    assert np.diff(store.times(0, 20)).tolist() == [50] * 19


def test_numbers_that_do_not_pack_are_stored_as_float32(tmp_path: Path) -> None:
    values = [1 / 3, 1e30, float("inf"), -0.0, 2.5e-30]
    path = write_table(tmp_path / "r.csv", ["t", "v"], [[n, repr(value)] for n, value in enumerate(values)])
    receipt = ingest(path, tmp_path / "s.zarr", time="t")
    assert receipt.channels[0].stored == "float32"
    stored = open_store(tmp_path / "s.zarr").read("v", 0, 5)
    assert stored.view(np.uint32).tolist() == np.array(values, np.float32).view(np.uint32).tolist()


def test_the_receipt_says_where_float32_is_not_exact(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("t,a,b,c\n1,0.12345678901,1.5,16777217\n2,1.25,2.5,3\n3,2.123456789,3,4\n")
    receipt = ingest(path, tmp_path / "n.zarr", time="t")
    assert [(c.name, c.n_inexact) for c in receipt.channels] == [("a", 2), ("b", 0), ("c", 1)]
    assert "a has 2 values with more digits than float32 keeps (about 7); --dtype float64 keeps them" in receipt.notes
    receipt = ingest(path, tmp_path / "n.zarr", time="t", dtype="float64", overwrite=True)
    assert [c.n_inexact for c in receipt.channels] == [0, 0, 0]
    assert open_store(tmp_path / "n.zarr").read("a", 0, 3).tolist() == [0.12345678901, 1.25, 2.123456789]


def test_progress_tells_phases_bytes_and_rows(csv: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    ingest(
        csv, tmp_path / "p.zarr", id="site", time="date", blocksize=1000, progress=lambda *report: told.append(report)
    )
    n_bytes = csv.stat().st_size - len("site,date,level,count\n")
    last = {phase: (done, total, unit) for phase, done, total, unit in told}
    assert last == {"parse": (n_bytes, n_bytes, "bytes"), "write": (200, 200, "rows")}
    parsed = [done for phase, done, _, _ in told if phase == "parse"]
    assert parsed == sorted(parsed)
    assert len(parsed) > 2


def test_a_log_file_tells_phases_memory_receipt_and_errors_with_times(
    run: Callable[..., subprocess.CompletedProcess[str]], csv: Path, tmp_path: Path
) -> None:
    words = ["ingest", csv, "l.zarr", "--id", "site", "--time", "date", "--log-file", "l.log"]
    done = run("zstore.cli", *words, check=True)
    again = run("zstore.cli", *words)
    assert (done.stderr, again.returncode) == ("", 1)
    text = (tmp_path / "l.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]+ parse: .* of .*, .*/s, .* in memory$", text, re.MULTILINE)
    assert "write: 200 rows of 200 rows" in text
    assert done.stdout in text
    assert "there is a store already" in text


def test_static_attributes_are_matched_by_exact_id_and_the_rest_is_told(csv: Path, tmp_path: Path) -> None:
    static = write_table(
        tmp_path / "static.csv",
        ["site", "area", "kind"],
        [["0003", 2.5, "wet"], ["0001", "", "very dry"], ["0000", 7, ""], ["3", 9, "x"]],
    )
    receipt = ingest(csv, tmp_path / "s.zarr", id="site", time="date", static=static)
    store = open_store(tmp_path / "s.zarr")
    assert store.series("0003").statics == {"area": 2.5, "kind": "wet"}
    assert store.series("0001").statics == {"area": None, "kind": "very dry"}
    assert store.series("0004").statics == {"area": None, "kind": None}
    assert "2 series have no static attributes" in receipt.notes
    assert f"1 ids of {static} are not in the rows" in receipt.notes


def test_xarray_opens_a_store_without_zstore(csv: Path, store: Store) -> None:
    dataset = xarray.open_zarr(store.path)
    frame = oracle(csv)
    assert dataset["level"].dims == ("row",)
    np.testing.assert_array_equal(dataset["level"].values.astype(np.float32), frame["level"].to_numpy(np.float32))
    np.testing.assert_array_equal(dataset["time"].values, frame["date"].to_numpy())


def test_a_store_is_a_cf_contiguous_ragged_array(catchments: Store) -> None:
    dataset = catchments.to_xarray()
    assert dataset["id"].attrs["cf_role"] == "timeseries_id"
    assert dataset["row_size"].attrs["sample_dimension"] == "row"
    assert int(dataset["row_size"].sum()) == dataset.sizes["row"]
    assert dataset["elevation_m"].dims == ("series",)


def test_bad_rows_can_be_set_aside_with_file_line_and_reason(csv: Path, tmp_path: Path) -> None:
    lines = csv.read_text().splitlines()
    lines[10] = "0001,2001-01-03,much,5"
    lines[20] = "0001,2001-01-03"
    lines[30] = ",2001-01-03,1,5"
    csv.write_text("\n".join(lines) + "\n")
    receipt = ingest(csv, tmp_path / "s.zarr", id="site", time="date", on_bad_row="quarantine", blocksize=900)
    assert (receipt.n_rows_in, receipt.n_stored, receipt.n_quarantined) == (200, 197, 3)
    aside = pd.read_csv(str(receipt.quarantine))
    assert aside["line"].tolist() == [11, 21, 31]
    assert aside["row"].tolist() == [lines[10], lines[20], lines[30]]
    raw = csv.read_bytes()
    for byte, row in zip(aside["byte"], aside["row"], strict=True):
        assert raw[byte : byte + len(row)].decode() == row


def test_overwriting_replaces_a_store_and_leaves_nothing_behind(csv: Path, store: Store, tmp_path: Path) -> None:
    other = table(tmp_path / "other.csv", n_series=2, n_days=7)
    ingest(other, store.path, id="site", time="date", overwrite=True)
    assert_equal(open_store(store.path), oracle(other))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.csv", "rows.csv", "rows.zarr"]


def test_a_failed_overwrite_leaves_the_old_store_whole(csv: Path, store: Store, tmp_path: Path) -> None:
    rows = [["a", "2001-01-01", 1, 1], ["a", "2001-01-02", "x", 1]]
    bad = write_table(tmp_path / "bad.csv", ["site", "date", "level", "count"], rows)
    with pytest.raises(ValueError, match="text 'x' in number column 'level'"):
        ingest(bad, store.path, id="site", time="date", overwrite=True)
    assert_equal(open_store(store.path), oracle(csv))
    assert verify(open_store(store.path)).faults == ()


def test_a_killed_ingest_leaves_no_store_and_the_next_one_clears_up(tmp_path: Path) -> None:
    csv = table(tmp_path / "rows.csv", n_series=50, n_days=900)
    target = tmp_path / "s.zarr"
    code = f"import zstore; zstore.ingest({str(csv)!r}, {str(target)!r}, id='site', time='date', blocksize=2000)"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (target / ".ingest.scratch").exists():
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (target / "zarr.json").exists()
    ingest(csv, target, id="site", time="date")
    assert_equal(open_store(target), oracle(csv))
    assert sorted(path.name for path in target.iterdir() if path.name.startswith(".")) == []


def test_a_header_without_rows_makes_no_store(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("id,date,v\n")
    with pytest.raises(SourceError, match="no row to store"):
        ingest(path, tmp_path / "s.zarr", id="id", time="date")
    assert not (tmp_path / "s.zarr").exists()


def test_the_root_document_records_the_receipt(store: Store) -> None:
    document = json.loads((Path(store.path) / "zarr.json").read_text())["attributes"]["zstore"]
    assert document["receipt"]["n_stored"] == 200
    assert store.receipt["n_rows_in"] == 200


numbers = st.one_of(
    st.sampled_from(["", "NA", "inf", "-inf", "-0.0", "nan", "0", "1e-7"]),
    st.floats(width=32, allow_nan=False).map(repr),
    st.decimals(-999, 999, places=2, allow_nan=False).map(str),
)
odd_ids = ["01022500", "NA", "9007199254740993", "../x", "é", "e\u0301", "null", " a ", "x" * 4096, "\n", '"']
ids = st.one_of(
    st.sampled_from(odd_ids),
    st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
)
columns = st.one_of(
    st.sampled_from(["v", "time", "../v", "zarr.json", "a b", "é", "c", "row", "x,y", 'q"q']),
    st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
).filter(lambda name: name not in ("id", "t"))


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
BORDER = datetime(2001, 10, 28, 1, tzinfo=UTC)  # clocks go back in Berlin, and, hours away, in the others


def written_times(clock: str, times: Iterable[int]) -> tuple[list[str], list[int], dict[str, Any]]:
    """Times as a source has them, as a store should, and the options that say how they are written."""
    if clock == "steps":
        return list(map(str, times)), list(times), {}
    moments = [BORDER + timedelta(minutes=15 * time) for time in times]
    seconds = [round(moment.timestamp()) for moment in moments]
    if clock == "no zone":
        return [moment.strftime("%Y-%m-%d %H:%M:%S") for moment in moments], seconds, {}
    name, _, style = clock.partition(" ")
    local = [moment.astimezone(ZoneInfo(name)) for moment in moments]
    if style == "ISO":
        return [moment.isoformat() for moment in local], seconds, {}
    form = "%d.%m.%Y %H:%M:%S %z"
    return [moment.strftime(form) for moment in local], seconds, {"time_format": form}


@settings(max_examples=few(30))
@given(
    rows=st.dictionaries(st.tuples(ids, st.integers(-1000, 1000)), numbers, min_size=1, max_size=40),
    column=columns,
    seed=st.integers(0, 99),
    blocksize=st.integers(1, 400),
    delimiter=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n"]),
    n_files=st.integers(1, 3),
    clock=st.sampled_from(["steps", "no zone", *(f"{zone} {style}" for zone in ZONES for style in ("ISO", "format"))]),
)
def test_any_table_reads_back_exactly(
    tmp_path: Path,
    rows: dict[tuple[str, int], str],
    column: str,
    seed: int,
    blocksize: int,
    delimiter: str,
    newline: str,
    n_files: int,
    clock: str,
) -> None:
    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    shuffler = random.Random(seed)
    listed = list(rows.items())
    shuffler.shuffle(listed)
    written, expected_times, options = written_times(clock, [time_ for (_, time_), _ in listed])
    stored_time = {key: time_ for (key, _), time_ in zip(listed, expected_times, strict=True)}
    text = {key: time_ for (key, _), time_ in zip(listed, written, strict=True)}
    paths = []
    for number in range(n_files):
        order = shuffler.sample(["id", "t", column], 3)
        lines = [delimiter.join(field(name) for name in order)]
        for (id_, time_), value in listed[number::n_files]:
            cells = {"id": field(id_), "t": text[id_, time_], column: value}
            lines.append(delimiter.join(cells[name] for name in order))
        paths.append(tmp_path / f"any-{number}.csv")
        paths[-1].write_bytes((newline.join(lines) + newline).encode())
    store_path = tmp_path / "any.zarr"
    ingest(paths, store_path, id="id", time="t", blocksize=blocksize, delimiter=delimiter, overwrite=True, **options)
    store = open_store(store_path)
    ordered = sorted(rows, key=lambda key: (key[0].encode(), key[1]))
    owners = np.repeat(np.arange(store.n_series), store.index.row_size)
    assert [str(store.ids[position]) for position in owners] == [id_ for id_, _ in ordered]
    assert store.times(0, len(ordered)).tolist() == [stored_time[key] for key in ordered]
    expected = np.array([float(rows[key].replace("NA", "nan") or "nan") for key in ordered]).astype(np.float32)
    np.testing.assert_array_equal(store.read(column, 0, len(ordered)), expected, strict=True)
    assert verify(store).faults == ()
    assert compare_sources(store, paths).n_different == 0
    assert sorted(path.name for path in tmp_path.iterdir() if "any" not in path.name) == []
