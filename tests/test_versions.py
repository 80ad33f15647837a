"""Versions: appending, going back, collecting; what was committed never changes under a reader."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    SourceError,
    Store,
    StoreError,
    UsageError,
    append,
    compact,
    gc,
    ingest,
    log,
    open_store,
    rollback,
    verify,
)
from zstore.writing.lock import locked

Run = Callable[..., subprocess.CompletedProcess[str]]
Rows = dict[tuple[str, int], float]

BY_ID: dict[str, Any] = {"id": "id", "time": "t"}


def contents(store: Store) -> dict[tuple[str, int], list[float | str]]:
    """Every row of a store, read as a whole; words for codes."""
    times = store.times(0, store.n_rows).tolist()
    owners = np.repeat(store.ids, store.index.row_size).tolist()
    columns = []
    for channel in store.schema.channels:
        values = store.read(channel.name, 0, store.n_rows).tolist()
        words = channel.categories or None
        columns.append(values if words is None else ["" if v != v else words[int(v)] for v in values])
    return {
        key: list(cells) for key, cells in zip(zip(owners, times, strict=True), zip(*columns, strict=True), strict=True)
    }


def written(path: Path, rows: Rows) -> Path:
    return write_table(path, ["id", "t", "v"], [[id_, t, v] for (id_, t), v in rows.items()])


def expected(rows: Rows) -> dict[tuple[str, int], list[float]]:
    order = sorted(rows, key=lambda key: (key[0].encode(), key[1]))
    return {key: [float(np.float32(rows[key]))] for key in order}


def assert_same_store(grown: Store, fresh: Store) -> None:
    """Two stores hold the same series, rows, runs and statistics, wherever the rows lie."""
    assert list(contents(grown).items()) == list(contents(fresh).items())
    assert grown.ids.tolist() == fresh.ids.tolist()
    a, b = grown.index, fresh.index
    for name in ("row_size", "row_start", "time_start", "time_stop"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert grown.schema.time == fresh.schema.time
    for name in ("start", "stop", "series", "time"):
        np.testing.assert_array_equal(getattr(a.runs, name), getattr(b.runs, name), err_msg=name)
    for name in ("count", "n_missing"):
        np.testing.assert_array_equal(getattr(grown.moments, name), getattr(fresh.moments, name), err_msg=name)
    for name in ("mean", "std", "low", "high"):  # a channel that was widened later had exact decimals before
        grew, anew = (getattr(store.moments, name) for store in (grown, fresh))
        np.testing.assert_allclose(grew, anew, rtol=1e-5, atol=1e-3, err_msg=name)
    rows = [np.empty((store.n_rows, len(store.channels)), np.float32) for store in (grown, fresh)]
    for store, out in zip((grown, fresh), rows, strict=True):
        store.decode(store.channels, out)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert verify(grown).faults == ()


def test_later_rows_and_new_series_go_behind_the_old_ones(tmp_path: Path) -> None:
    before = {("a", 0): 1.0, ("a", 1): 2.0, ("c", 0): 3.0, ("c", 1): 3.5}
    after = {("c", 2): 4.0, ("b", 0): 5.0, ("b", 1): 5.5, ("a", 2): 6.0, ("a", 5): 7.0}
    ingest(written(tmp_path / "1.csv", before), tmp_path / "s.zarr", **BY_ID)
    old = open_store(tmp_path / "s.zarr")
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "s.zarr").glob("*/c/*")}
    receipt = append(written(tmp_path / "2.csv", after), tmp_path / "s.zarr")
    assert receipt is not None
    assert (receipt.version, receipt.n_rows_in, receipt.n_stored) == (2, 5, 5)
    store = open_store(tmp_path / "s.zarr")
    assert contents(store) == expected({**before, **after})
    assert contents(old) == expected(before)
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    ingest(written(tmp_path / "all.csv", {**before, **after}), tmp_path / "all.zarr", **BY_ID)
    assert_same_store(store, open_store(tmp_path / "all.zarr"))
    assert store.series("a").read("v").tolist() == [1, 2, 6, 7]


def test_late_rows_rewrite_their_series_and_no_other(tmp_path: Path) -> None:
    before = {(id_, t): t + 0.5 for id_ in "abc" for t in range(0, 10, 2)}
    after = {("b", 3): 9.0, ("b", 20): 8.0}
    ingest(written(tmp_path / "1.csv", before), tmp_path / "s.zarr", **BY_ID)
    receipt = append(written(tmp_path / "2.csv", after), tmp_path / "s.zarr")
    assert receipt is not None
    assert "1 series had late rows and were written anew" in receipt.notes
    store = open_store(tmp_path / "s.zarr")
    assert contents(store) == expected({**before, **after})
    assert np.diff(store.index.extent_ptr).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("keep", "value"), [("first", 1.0), ("last", 9.0)])
def test_a_row_that_is_there_already_is_settled_as_told(tmp_path: Path, keep: Any, value: float) -> None:
    ingest(written(tmp_path / "1.csv", {("a", 0): 1.0, ("a", 1): 2.0}), tmp_path / "s.zarr", **BY_ID)
    again = written(tmp_path / "2.csv", {("a", 0): 9.0, ("a", 2): 3.0})
    with pytest.raises(SourceError, match=r"duplicate time: id 'a' has 0 twice.*2.csv line 2 and in the store already"):
        append(again, tmp_path / "s.zarr")
    receipt = append(again, tmp_path / "s.zarr", on_duplicate=keep)
    assert receipt is not None
    assert receipt.n_rows_in == receipt.n_stored + receipt.n_duplicates == 2
    store = open_store(tmp_path / "s.zarr")
    assert (store.version, store.series("a").read("v").tolist()) == (2, [value, 2.0, 3.0])


def test_a_repeated_call_takes_only_what_is_new(tmp_path: Path) -> None:
    ingest(written(tmp_path / "day1.csv", {("a", 0): 1.0}), tmp_path / "s.zarr", **BY_ID)
    assert append(tmp_path / "day*.csv", tmp_path / "s.zarr") is None
    written(tmp_path / "day2.csv", {("a", 1): 2.0})
    receipt = append(tmp_path / "day*.csv", tmp_path / "s.zarr")
    assert receipt is not None
    assert list(receipt.sources) == [str(tmp_path / "day2.csv")]
    assert append(tmp_path / "day*.csv", tmp_path / "s.zarr") is None
    assert open_store(tmp_path / "s.zarr").version == 2
    forced = append(tmp_path / "day1.csv", tmp_path / "s.zarr", force=True, on_duplicate="last")
    assert forced is not None
    assert [record.key for record in open_store(tmp_path / "s.zarr").ledger] == ["day1.csv", "day2.csv"]


def test_one_command_makes_a_store_and_adds_to_it_every_day(run: Run, tmp_path: Path) -> None:
    command = ["ingest", "day*.csv", "s.zarr", "--append", "--id", "id", "--time", "t"]
    for day in range(3):
        written(tmp_path / f"day{day}.csv", {("a", day): 1.0 + day})
        done = run("zstore.cli", *command, check=True)
        assert f"version {day + 1}: 1 row of 1 series" in done.stdout
    assert (
        "nothing new: s.zarr has the rows of all these files already" in run("zstore.cli", *command, check=True).stdout
    )
    assert contents(open_store(tmp_path / "s.zarr")) == expected({("a", day): 1.0 + day for day in range(3)})
    other = run("zstore.cli", *command, "--delimiter", ";")
    assert other.returncode == 2
    assert "--delimiter ;; expected none, as s.zarr was ingested" in other.stderr


def test_values_that_need_more_room_widen_their_channel_alone(tmp_path: Path) -> None:
    header = ["id", "t", "v", "w", "kind"]
    first = [["a", t, 1.5 + t, t, "x"] for t in range(5)]
    rest = [["a", 5, 1.125, 7, "y"], ["a", 6, "1e30", 8, "a"], ["b", 0, 0.123456789, 9, ""]]
    ingest(write_table(tmp_path / "1.csv", header, first), tmp_path / "s.zarr", **BY_ID)
    old = open_store(tmp_path / "s.zarr")
    for number, row in enumerate(rest, start=2):
        append(write_table(tmp_path / f"{number}.csv", header, [row]), tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    ingest(write_table(tmp_path / "all.csv", header, first + rest), tmp_path / "all.zarr", **BY_ID)
    assert contents(store) == contents(open_store(tmp_path / "all.zarr"))
    assert [channel.variable for channel in store.schema.channels] == ["v-v3", "w", "kind"]
    assert store.channel("kind").categories == ("x", "y", "a")
    assert contents(old) == {("a", t): [1.5 + t, t, "x"] for t in range(5)}
    assert verify(store).faults == () == verify(old).faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,t\na,9\n", "no channel"),
        ("id,t,w\na,9,1\n", "channel 'v' is missing; expected what .* holds: v"),
        ("id,t,v,w\na,9,1,1\n", "channel 'w' is not in the store"),
        ("id,t,v\na,9,up\na,10,up\na,11,up\n", "text in channel 'v'"),
        ("id,t,v\na,2001-01-01,1\n", "expected a whole number"),
    ],
)
def test_rows_of_another_kind_are_refused_and_nothing_is_left(tmp_path: Path, text: str, message: str) -> None:
    ingest(written(tmp_path / "1.csv", {("a", 0): 1.0}), tmp_path / "s.zarr", **BY_ID)
    before = sorted((tmp_path / "s.zarr").rglob("*"))
    (tmp_path / "2.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        append(tmp_path / "2.csv", tmp_path / "s.zarr")
    assert sorted((tmp_path / "s.zarr").rglob("*")) == before


@settings(max_examples=few(8))
@given(
    parts=st.lists(
        st.dictionaries(
            st.tuples(st.sampled_from(["a", "é", "0", "zz"]), st.integers(0, 30)),
            st.decimals(-400, 400, places=2).map(float) | st.sampled_from([1e-7, 5e9]),
            min_size=1,
            max_size=12,
        ),
        min_size=2,
        max_size=5,
    ),
    keep=st.sampled_from(["first", "last"]),
)
def test_a_store_grown_by_appending_equals_one_ingested_in_one_go(tmp_path: Path, parts: list[Rows], keep: Any) -> None:
    path, files = tmp_path / "grown.zarr", []
    for number, part in enumerate(parts):
        files.append(written(tmp_path / f"{number}.csv", part))
        if number == 0:
            ingest(files[0], path, **BY_ID, freq="1", overwrite=True)
        else:
            append(files[-1], path, on_duplicate=keep, force=True)
    ingest(files, tmp_path / "whole.zarr", **BY_ID, freq="1", on_duplicate=keep, overwrite=True)
    whole = open_store(tmp_path / "whole.zarr")
    assert_same_store(open_store(path), whole)
    for version in range(1, len(parts) + 1):
        assert verify(open_store(path, version)).faults == ()
    assert_same_store(compact(path), whole)
    gc(path, keep=1)
    again = compact(path)
    gc(path, keep=1)
    assert_same_store(again, whole)
    assert again.index.contiguous


def test_every_version_can_be_opened_logged_and_gone_back_to(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    ingest(written(tmp_path / "1.csv", {("a", 0): 1.0}), path, **BY_ID)
    append(written(tmp_path / "2.csv", {("a", 1): 2.0}), path)
    append(written(tmp_path / "3.csv", {("b", 1): 3.0}), path)
    assert [(e.version, e.action, e.n_rows, e.n_series) for e in log(path)] == [
        (3, "append", 3, 2),
        (2, "append", 2, 1),
        (1, "ingest", 1, 1),
    ]
    assert open_store(path, 2).series("a").read("v").tolist() == [1, 2]
    with pytest.raises(NotFoundError, match="no version 7; expected one of 1, 2, 3"):
        open_store(path, 7)
    done = run("zstore.cli", "rollback", path, "1", check=True)
    assert "version 4: 1 row, as in version 1" in done.stdout
    store = open_store(path)
    assert (store.version, contents(store)) == (4, expected({("a", 0): 1.0}))
    append(tmp_path / "3.csv", path)
    assert contents(open_store(path)) == expected({("a", 0): 1.0, ("b", 1): 3.0})
    assert contents(open_store(path, 3)) == expected({("a", 0): 1.0, ("a", 1): 2.0, ("b", 1): 3.0})
    lines = run("zstore.cli", "log", path, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["5", "4", "3", "2", "1"]
    assert verify(store).faults == ()


def test_collecting_removes_what_only_old_versions_need(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    ingest(written(tmp_path / "1.csv", {("a", 0): 1.0, ("b", 0): 1.0}), path, **BY_ID)
    append(written(tmp_path / "2.csv", {("a", 0): 2.0, ("b", 0): 3.0}), path, on_duplicate="last")
    assert (path / "v/c/0").exists()
    n_objects, n_bytes = gc(path, keep=1)
    assert n_objects > 0 < n_bytes
    assert not (path / "v/c/0").exists()
    store = open_store(path)
    assert contents(store) == expected({("a", 0): 2.0, ("b", 0): 3.0})
    assert verify(store).faults == ()
    assert [entry.version for entry in log(path)] == [2]
    with pytest.raises(NotFoundError, match="no version 1"):
        open_store(path, 1)
    with pytest.raises(UsageError, match="keep 0"):
        gc(path, keep=0)


def test_a_compacted_store_equals_array_for_array_one_ingested_in_one_go(run: Run, tmp_path: Path) -> None:
    path, header = tmp_path / "s.zarr", ["id", "t", "level", "kind"]
    rows = [[f"s{n % 7}", n // 7, f"{n % 50 / 10}", "zyx"[n % 3]] for n in range(700)]
    rows[650][2] = "1.125"  # needs three decimals
    parts = [rows[:300], rows[300:301], rows[350:600], rows[301:350], rows[600:]]
    for number, part in enumerate(parts):
        name = write_table(tmp_path / f"{number}.csv", header, part)
        run("zstore.cli", "ingest", name, path, "--id", "id", "--time", "t", "--append", check=True)
    assert int(np.diff(open_store(path).index.extent_ptr).max()) > 1
    ingest(write_table(tmp_path / "all.csv", header, rows), tmp_path / "all.zarr", **BY_ID)
    whole = open_store(tmp_path / "all.zarr")
    reader = open_store(path)
    before = contents(reader)
    for _ in range(2):
        run("zstore.cli", "compact", path, check=True)
        assert contents(reader) == before == contents(open_store(path))
        run("zstore.cli", "gc", path, "--keep", "1", check=True)
        reader = open_store(path)
    assert_same_store(reader, whole)
    a, b = (zarr.open_group(opened.path, mode="r") for opened in (reader, whole))
    assert sorted(a.array_keys()) == sorted(b.array_keys())
    for key in b.array_keys():
        np.testing.assert_array_equal(np.asarray(a[key]), np.asarray(b[key]), strict=True)
        assert dict(a[key].attrs) == dict(b[key].attrs)
    shards = {str(p.relative_to(path)): p.read_bytes() for p in path.glob("*/c/*")}
    assert shards == {str(p.relative_to(whole.path)): p.read_bytes() for p in Path(whole.path).glob("*/c/*")}
    assert "is in order already" in run("zstore.cli", "compact", path, check=True).stdout


def test_a_second_writer_gets_a_conflict_and_changes_nothing(csv: Path, store: Store) -> None:
    with locked(Path(store.path)):
        for write in (
            lambda: ingest(csv, store.path, id="site", time="date", overwrite=True),
            lambda: append(csv, store.path),
            lambda: rollback(store.path, 1),
            lambda: gc(store.path, 1),
            lambda: compact(store.path),
        ):
            with pytest.raises(ConflictError, match="another process is writing"):
                write()
    assert verify(open_store(store.path)).faults == ()


def test_appending_to_nothing_says_so_and_makes_nothing(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store to append to"):
        append(csv, tmp_path / "none.zarr")
    assert not (tmp_path / "none.zarr").exists()


def test_a_store_of_irregular_times_stays_so_when_regular_rows_come(tmp_path: Path) -> None:
    before = {("a", t): float(t) for t in (0, 1, 5, 12, 13, 40)}
    after = {("a", t): float(t) for t in range(100, 140, 2)}
    ingest(written(tmp_path / "1.csv", before), tmp_path / "s.zarr", **BY_ID)
    append(written(tmp_path / "2.csv", after), tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert store.schema.time.freq is None
    windows = store.windows(lookback=1, horizon=1)
    assert [int(window["time"]) for window in windows] == [*sorted(t for _, t in {**before, **after})][1:]


def test_bad_rows_of_an_append_do_not_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.csv").write_text(f"id,t,v\na,{number},1\na,{number},bad{number}\n")
    ingest(tmp_path / "1.csv", tmp_path / "s.zarr", **BY_ID, on_bad_row="quarantine")
    append(tmp_path / "2.csv", tmp_path / "s.zarr", on_bad_row="quarantine")
    assert "bad1" in (tmp_path / "s.zarr.quarantine.csv").read_text()
    assert "bad2" in (tmp_path / "s.zarr.quarantine-2.csv").read_text()


def test_an_append_takes_no_other_dtype_or_codec_than_the_store_has(run: Run, tmp_path: Path) -> None:
    ingest(written(tmp_path / "1.csv", {("a", 0): 1.0}), tmp_path / "s.zarr", **BY_ID)
    written(tmp_path / "2.csv", {("a", 1): 1.0})
    for flags in (["--dtype", "float64"], ["--codec", "zstd-3"], ["--fill-gaps"]):
        done = run("zstore.cli", "ingest", "2.csv", "s.zarr", "--append", *flags)
        assert done.returncode == 2
        assert f"{flags[0]} " in done.stderr
        assert "as s.zarr was ingested" in done.stderr


def test_a_reader_of_a_version_that_was_collected_sees_its_rows_or_an_error_never_others(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    ingest(written(tmp_path / "1.csv", {("a", t): t + 0.5 for t in range(50)}), path, **BY_ID)
    touched, untouched = open_store(path), open_store(path)
    expected_rows = touched.series("a").read("v").tolist()
    len(untouched.series("a"))
    append(written(tmp_path / "2.csv", {("a", 3): 99.0}), path, on_duplicate="last")
    gc(path, keep=1)
    compact(path)  # into the shard that the first version had
    assert touched.series("a").read("v").tolist() == expected_rows
    with pytest.raises(StoreError, match="v/c/0"):
        untouched.series("a").read("v")


def test_a_damaged_store_is_ingested_again_by_overwriting_it_and_nothing_else_is(csv: Path, store: Store) -> None:
    root = Path(store.path) / "zarr.json"
    content = root.read_bytes()
    root.write_bytes(content.replace(b'"n_rows"', b'"m_rows"', 1))
    with pytest.raises(CorruptionError, match=r"root document differs.*or ingest again"):
        open_store(store.path)
    ingest(csv, store.path, id="site", time="date", overwrite=True)
    assert verify(open_store(store.path)).faults == ()
    root.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreError):
        ingest(csv, store.path, id="site", time="date", overwrite=True)
    assert root.read_text().startswith('{"zarr_format": 3, "node')


@pytest.mark.parametrize(
    ("case", "times", "expected"),
    [
        (
            "daily rows",
            range(124, 124 + 24 * 30, 24),
            ["steps other than 1 step: 30, in 1 series; runs are split there"],
        ),
        ("one gap before them", range(200, 210), ["steps other than 1 step: 1, in 1 series; runs are split there"]),
        ("rows that go on", range(100, 130), []),
    ],
)
def test_the_steps_of_an_append_are_counted_from_the_last_row_of_the_store(
    case: str, times: range, expected: list[str], tmp_path: Path
) -> None:
    rows = [[id_, t, t] for id_ in "ab" for t in range(100)]
    ingest(write_table(tmp_path / "a.csv", ["id", "t", "v"], rows), tmp_path / "s", **BY_ID, freq="1")
    receipt = append(write_table(tmp_path / "b.csv", ["id", "t", "v"], [["b", t, t] for t in times]), tmp_path / "s")
    assert receipt is not None
    assert [*receipt.notes] == expected, case


def test_whether_a_series_is_irregular_is_judged_by_all_its_rows_not_by_those_of_an_append(tmp_path: Path) -> None:
    rows = [[id_, t, t] for id_ in "ab" for t in range(0, 1000, 10)]
    ingest(write_table(tmp_path / "a.csv", ["id", "t", "v"], rows), tmp_path / "s", **BY_ID)
    odd = [1003, 1007, 1011, 1018, 1021]
    receipt = append(write_table(tmp_path / "b.csv", ["id", "t", "v"], [["b", t, t] for t in odd]), tmp_path / "s")
    assert receipt is not None
    assert [*receipt.notes] == ["steps other than 10 steps: 5, in 1 series; runs are split there"]
    others = [["c", t, t] for t in odd]
    receipt = append(write_table(tmp_path / "c.csv", ["id", "t", "v"], others), tmp_path / "s")
    assert receipt is not None
    assert [note.split(": ")[0] for note in receipt.notes] == [
        "steps other than 10 steps",
        "1 series is irregular and kept as it is",
    ]


def test_rows_that_close_a_gap_are_no_new_one(tmp_path: Path) -> None:
    rows = [["a", t, t] for t in range(100) if t not in (50, 51)]
    first = ingest(write_table(tmp_path / "a.csv", ["id", "t", "v"], rows), tmp_path / "s", **BY_ID)
    assert [*first.notes] == ["steps other than 1 step: 1, in 1 series; runs are split there"]
    receipt = append(write_table(tmp_path / "b.csv", ["id", "t", "v"], [["a", 50, 0], ["a", 51, 0]]), tmp_path / "s")
    assert receipt is not None
    assert [*receipt.notes] == ["1 series had late rows and were written anew"]


@settings(max_examples=few(15))
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 30), max_size=8)), min_size=2, max_size=4)
)
def test_appends_tell_of_as_many_steps_as_one_ingest_of_all_rows(
    tmp_path_factory: pytest.TempPathFactory, parts: list[dict[str, set[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("steps")
    header, base = ["id", "t", "v"], [["z", t, t] for t in range(50)]  # by which the rule is one step

    def n_told(notes: tuple[str, ...]) -> int:
        return sum(int(note.split(": ")[1].split(",")[0]) for note in notes if note.startswith("steps other than"))

    made, n_steps = (
        [*base],
        n_told(ingest(write_table(folder / "0.csv", header, base), folder / "s", **BY_ID, freq="1").notes),
    )
    for number, part in enumerate(parts, 1):  # later and later, so that no rows are late
        rows = [[id_, 31 * number + t, t] for id_, times in part.items() for t in sorted(times)]
        made += rows
        if rows:
            receipt = append(write_table(folder / f"{number}.csv", header, rows), folder / "s")
            assert receipt is not None
            n_steps += n_told(receipt.notes)
    whole = ingest(write_table(folder / "all.csv", header, made), folder / "whole", **BY_ID, freq="1")
    assert n_told(whole.notes) == n_steps
