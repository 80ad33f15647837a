"""Parquet files as sources, with pyarrow's own reading of them as the oracle."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, few, stored, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from parquets import DAY, READING, made, parquet, rows, values, words

import zstore
from zstore import SourceError, UsageError, ZstoreError, open_store
from zstore.cli import main
from zstore.printing import show_plan
from zstore.upkeep.compare import compare_sources
from zstore.writing.planner import plan_ingest

# Options.


@pytest.mark.parametrize(
    ("option", "value"),
    [("delimiter", ";"), ("decimal", ","), ("thousands", "."), ("percent", ["v"]), ("encoding", "latin-1")],
)
def test_options_of_csv_alone_are_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{option} .* of Parquet files"):
        made(rows(tmp_path / "r.parquet"), tmp_path / "r.zarr", **{option: value})
    assert not (tmp_path / "r.zarr").exists()


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    csv = write_table(tmp_path / "r.csv", ["id", "time", "v", "word"], [["a", "2020-01-01", 1, "b"]])
    with pytest.raises(UsageError, match=r"files of several kinds: .*r.parquet \(parquet\) and .*r.csv \(csv\)"):
        made([rows(tmp_path / "r.parquet"), csv], tmp_path / "r.zarr")
    made(csv, tmp_path / "r.zarr")
    with pytest.raises(UsageError, match=r"r.parquet \(parquet\); expected files of the kind that .* \(csv\)"):
        zstore.append(tmp_path / "r.parquet", tmp_path / "r.zarr")


def test_missing_names_numbers_and_words_of_columns(tmp_path: Path) -> None:
    parquet(
        tmp_path / "m.parquet", {"time": [0, 1, 2], "x": [-999, 5, 7], "w": ["-", "NA", ""], "y": [7.0, -999.0, 1.0]}
    )
    missing = ["-999", "w=-", "y=7", "w=never"]
    store = made(tmp_path / "m.parquet", tmp_path / "m.zarr", id=None, missing=missing)
    assert (values(store, "x"), values(store, "y"), words(store, "w")) == (
        [None, 5, 7],
        [None, None, 1],
        [None, "NA", ""],
    )
    notes = store.objects.document["receipt"]["notes"]
    assert [note for note in notes if "never occurred" in note] == ["--missing w=never never occurred"]


def test_a_wide_table_has_a_series_in_each_column(tmp_path: Path) -> None:
    parquet(tmp_path / "w.parquet", {"t": [1, 2, 3], "b": [1.0, None, 3.0], "a": [4, 5, 6]}, row_group_size=2)
    store = made(tmp_path / "w.parquet", tmp_path / "w.zarr", id=None, time="t", layout="wide", value_name="speed")
    assert [str(id_) for id_ in store.ids] == ["a", "b"]
    assert values(store, "speed") == [4, 5, 6, 1, None, 3]
    assert compare_sources(store, [tmp_path / "w.parquet"]).n_different == 0


def test_ids_can_come_from_paths(tmp_path: Path) -> None:
    for name in ("id=a", "id=b"):
        (tmp_path / name).mkdir()
        parquet(tmp_path / name / "part-0.parquet", {"time": [0, 1], "x": [ord(name[-1]), 2]})
    store = made(sorted(tmp_path.glob("id=*/*.parquet")), tmp_path / "p.zarr", id=None, id_from_path=r"id=(\w+)/")
    assert ([str(id_) for id_ in store.ids], values(store, "x")) == (["a", "b"], [97, 2, 98, 2])


# Bad rows.


def bad_rows(path: Path, group: int = 4) -> Path:
    ids = ["a", None, "b", "", "a", "c"]
    times = [0, 1, None, 3, 4, None]
    return parquet(path, {"id": ids, "time": times, "v": [float(n) for n in range(6)]}, row_group_size=group)


def test_rows_without_id_or_time_are_refused_with_row_group_and_row(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing id in column 'id'; expected the id of .*row group 0 row 1"):
        made(bad_rows(tmp_path / "bad.parquet", group=6), tmp_path / "bad.zarr")
    assert not (tmp_path / "bad.zarr").exists()


def test_rows_without_id_or_time_are_set_aside_with_row_group_and_row(tmp_path: Path) -> None:
    store = made(bad_rows(tmp_path / "bad.parquet"), tmp_path / "bad.zarr", on_bad_row="quarantine", max_bad_rows=4)
    assert ([str(id_) for id_ in store.ids], values(store, "v")) == (["a"], [0, 4])
    lines = (tmp_path / "bad.zarr.quarantine.csv").read_text().splitlines()
    assert [line.split(",")[1:4] for line in lines[1:]] == [
        ["0", "1", "missing id in column 'id'"],
        ["0", "2", "missing time in column 'time'"],
        ["0", "3", "empty id in column 'id'"],
        ["1", "1", "missing time in column 'time'"],
    ]
    assert json.loads(lines[1].split(",", 4)[4].strip('"').replace('""', '"')) == {"id": None, "time": 1, "v": 1.0}
    with pytest.raises(SourceError, match=r"4 of 6 rows are bad, the first for this: missing id.*row group 0 row 1"):
        made(tmp_path / "bad.parquet", tmp_path / "few.zarr", on_bad_row="quarantine", max_bad_rows=3)


def test_times_finer_than_the_store_are_bad_rows_of_an_append(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"id": ["a"], "time": pa.array([dt.date(2020, 1, 1)]), "x": [1.0]})
    later = [DAY + dt.timedelta(days=1), DAY + dt.timedelta(days=2, milliseconds=1)]
    parquet(tmp_path / "b.parquet", {"id": ["a", "a"], "time": pa.array(later, pa.timestamp("us")), "x": [2.0, 3.0]})
    made(tmp_path / "a.parquet", tmp_path / "s.zarr")
    with pytest.raises(SourceError, match=r"time '2020-01-03 00:00:00.001000' in column .*expected whole seconds"):
        zstore.append(tmp_path / "b.parquet", tmp_path / "s.zarr")
    zstore.append(tmp_path / "b.parquet", tmp_path / "s.zarr", on_bad_row="quarantine")
    assert values(open_store(tmp_path / "s.zarr"), "x") == [1, 2]


def test_texts_that_are_no_utf8_are_bad_rows(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    for name in ("id", "w"):
        columns = {"id": ["a", "b", "c"], "time": [0, 1, 2], "x": [1.0, 2.0, 3.0], "w": ["p", "q", "r"], name: broken}
        parquet(tmp_path / "u.parquet", columns)
        with pytest.raises(SourceError, match=f"in column '{name}' that is not UTF-8.*row group 0 row 1"):
            made(tmp_path / "u.parquet", tmp_path / "u.zarr", overwrite=True)
        store = made(tmp_path / "u.parquet", tmp_path / "u.zarr", on_bad_row="quarantine", overwrite=True)
        assert values(store, "x") == [1, 3]


def test_two_rows_at_one_time_are_named_by_row_group_and_row(tmp_path: Path) -> None:
    parquet(
        tmp_path / "d.parquet", {"id": list("aaba"), "time": [0, 1, 1, 1], "x": [1.0, 2.0, 3.0, 4.0]}, row_group_size=3
    )
    with pytest.raises(SourceError, match=r"id 'a' has 1 twice.*row group 0 row 1 and .*row group 1 row 0"):
        made(tmp_path / "d.parquet", tmp_path / "d.zarr")
    assert values(made(tmp_path / "d.parquet", tmp_path / "d.zarr", on_duplicate="last"), "x") == [1, 4, 3]


@pytest.mark.parametrize("cut", [4, 8, 100, -1, -9])
def test_damaged_files_are_refused_by_name(cut: int, tmp_path: Path) -> None:
    content = rows(tmp_path / "r.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:cut])
    with pytest.raises(SourceError, match=r"damaged Parquet file .*cut.parquet"):
        made(tmp_path / "cut.parquet", tmp_path / "r.zarr")


def test_a_flipped_bit_in_the_pages_is_refused_where_pages_have_checksums(tmp_path: Path) -> None:
    path = rows(tmp_path / "r.parquet", compression="none", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(b"s3")] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"damaged Parquet file .*r.parquet"):
        made(path, tmp_path / "r.zarr")


def test_a_table_as_csv_and_as_parquet_makes_the_same_bytes(tmp_path: Path) -> None:
    table = pq.read_table(rows(tmp_path / "r.parquet", row_group_size=50))
    pa_csv.write_csv(table.filter(pc.is_valid(table["word"])), tmp_path / "r.csv")
    pq.write_table(table.filter(pc.is_valid(table["word"])), tmp_path / "r.parquet")
    for ending in ("csv", "parquet"):
        made(tmp_path / f"r.{ending}", tmp_path / f"{ending}.zarr")
    ledger = {key for key in stored(tmp_path / "csv.zarr") if key.startswith("manifest/")}
    csv, other = (stored(tmp_path / f"{ending}.zarr") for ending in ("csv", "parquet"))
    assert {k: v for k, v in csv.items() if k not in ledger} == {k: v for k, v in other.items() if k not in ledger}


@settings(max_examples=few(20))
@given(where=st.floats(0, 1, exclude_max=True), octet=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_read_as_it_was(
    where: float, octet: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(rows(folder / "r.parquet", 30, row_group_size=10, write_page_checksum=True).read_bytes())
    expected = values(made(folder / "r.parquet", folder / "whole.zarr"), "v")
    content[int(where * len(content))] = octet
    (folder / "r.parquet").write_bytes(content)
    with suppress(ZstoreError):
        assert values(made(folder / "r.parquet", folder / "r.zarr"), "v") == expected


# The way of the data: nothing of it may depend on how a file is cut.


@given(
    cells=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 500), st.none() | st.integers(-99, 99)), min_size=1
    ),
    group=st.integers(1, 40),
    blocksize=st.integers(1, 2000),
    workers=st.integers(1, 2),
)
def test_every_row_comes_back_however_files_and_blocks_are_cut(
    cells: list[tuple[str, int, int | None]],
    group: int,
    blocksize: int,
    workers: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    cells = list({cell[:2]: cell for cell in cells}.values())
    ids, times, numbers = zip(*cells, strict=True)
    source = parquet(
        folder / "r.parquet", {"id": ids, "time": times, "v": pa.array(numbers, pa.int64())}, row_group_size=group
    )
    store = made(source, folder / "r.zarr", blocksize=blocksize, workers=workers, **SMALL_GRID)
    expected = sorted(cells, key=lambda cell: cell[:2])
    assert store.times(0, store.n_rows).tolist() == [time for _, time, _ in expected]
    assert values(store, "v") == [number for _, _, number in expected]
    made(source, folder / "whole.zarr", **SMALL_GRID)
    assert stored(folder / "r.zarr") == stored(folder / "whole.zarr")


def test_one_large_row_group_is_read_in_parts_by_several_tasks(tmp_path: Path) -> None:
    source = rows(tmp_path / "r.parquet", n_rows=4000)
    phases: dict[str, int] = {}
    made(source, tmp_path / "parts.zarr", blocksize=2000, progress=lambda phase, done, *_: phases.update({phase: done}))
    made(source, tmp_path / "whole.zarr")
    assert stored(tmp_path / "parts.zarr") == stored(tmp_path / "whole.zarr")


@pytest.mark.parametrize("scheduler", [None, pytest.param("local", marks=pytest.mark.long)])
def test_one_and_two_workers_and_a_cluster_make_the_same_bytes(scheduler: str | None, tmp_path: Path) -> None:
    paths = [rows(tmp_path / "a.parquet", 3000, row_group_size=500), tmp_path / "b.parquet"]
    pq.write_table(pq.read_table(paths[0]).set_column(0, "id", pa.array([f"t{n % 7}" for n in range(3000)])), paths[1])
    made(paths, tmp_path / "one.zarr", workers=1, blocksize=5000)
    made(paths, tmp_path / "two.zarr", workers=2, blocksize=3000, scheduler=scheduler)
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "two.zarr")


def test_rows_that_are_appended_are_those_of_one_ingest(tmp_path: Path) -> None:
    table = pq.read_table(rows(tmp_path / "all.parquet"))
    pq.write_table(table.slice(0, 150), tmp_path / "1.parquet")
    pq.write_table(table.slice(150), tmp_path / "2.parquet")
    made(tmp_path / "1.parquet", tmp_path / "s.zarr")
    assert zstore.append([tmp_path / "1.parquet", tmp_path / "2.parquet"], tmp_path / "s.zarr") is not None
    assert zstore.append(tmp_path / "2.parquet", tmp_path / "s.zarr") is None
    store, whole = open_store(tmp_path / "s.zarr"), made(tmp_path / "all.parquet", tmp_path / "all.zarr")
    assert store.times(0, store.n_rows).tolist() == whole.times(0, whole.n_rows).tolist()
    assert (values(store, "v"), words(store, "word")) == (values(whole, "v"), words(whole, "word"))
    assert store.objects.document["table"]["source"] == "parquet"
    comparison = compare_sources(store, [tmp_path / "1.parquet", tmp_path / "2.parquet"])
    assert (comparison.n_rows, comparison.n_different, comparison.n_unseen) == (240, 0, 0)


def test_verify_source_finds_a_row_that_differs(tmp_path: Path) -> None:
    parquet(
        tmp_path / "r.parquet", {"id": ["a", "a"], "time": [0, 1], "emg": [[1.0, 2.0], [3.0, 4.0]], "w": ["p", "q"]}
    )
    store = made(tmp_path / "r.parquet", tmp_path / "r.zarr", rename={"emg": "e"})
    assert compare_sources(store, [tmp_path / "r.parquet"]).n_different == 0
    parquet(
        tmp_path / "r.parquet", {"id": ["a", "a"], "time": [0, 1], "emg": [[1.0, 2.0], [3.0, 5.0]], "w": ["p", "q"]}
    )
    comparison = compare_sources(store, [tmp_path / "r.parquet"])
    assert comparison.n_different == 1
    assert comparison.faults == (f"id 'a' at 1 in {tmp_path / 'r.parquet'} is not what the store has",)


DYING = """
import os, sys
import zstore, zstore.writing.pipeline as pipeline
pipeline.plan_shards = lambda *_, **__: os._exit(9)
zstore.ingest(sys.argv[1], sys.argv[2], id="id", time="time", on_bad_row="quarantine", blocksize=2000)
"""


def test_a_run_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    table = pq.read_table(rows(tmp_path / "r.parquet", 2000))
    ids = [None if n == 777 else f"s{n % 5}" for n in range(2000)]
    pq.write_table(table.set_column(0, "id", pa.array(ids)), tmp_path / "r.parquet")
    options: dict[str, Any] = {"on_bad_row": "quarantine", "blocksize": 2000}
    made(tmp_path / "r.parquet", tmp_path / "whole.zarr", **options)
    command = [python, "-c", DYING, str(tmp_path / "r.parquet"), str(tmp_path / "killed.zarr")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 9

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("zstore.writing.parse.parse_blocks", refused)
    made(tmp_path / "r.parquet", tmp_path / "killed.zarr", **options)
    assert stored(tmp_path / "killed.zarr") == stored(tmp_path / "whole.zarr")
    aside = [(tmp_path / f"{name}.zarr.quarantine.csv").read_text() for name in ("killed", "whole")]
    assert aside[0] == aside[1] != ""


def test_the_dry_run_knows_the_rows_from_the_footer(tmp_path: Path) -> None:
    source = rows(tmp_path / "r.parquet", 3000, row_group_size=400)
    planned = plan_ingest(source, **READING)
    assert abs(planned.n_rows - 3000) <= 1
    assert "inflate" not in planned.tasks
    assert planned.source_bytes == source.stat().st_size
    assert "plain text" not in show_plan(planned, "r.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.parquet"]


def test_the_command_takes_parquet_as_it_takes_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, store = rows(tmp_path / "r.parquet"), tmp_path / "r.zarr"
    flags = ["--id", "id", "--time", "time", "--quiet"]
    assert main(["ingest", str(source), str(store), *flags, "--dry-run"]) == 0
    assert main(["ingest", str(source), str(store), *flags]) == 0
    assert main(["ingest", str(source), str(store), *flags, "--append"]) == 0
    assert main(["verify", str(store), "--source", str(source), "--quiet"]) == 0
    assert main(["ingest", str(source), str(store), *flags, "--append", "--delimiter", ";"]) == 2
    assert "--delimiter ;" in capsys.readouterr().err
