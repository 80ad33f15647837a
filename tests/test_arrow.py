"""Arrow IPC files as sources, files and streams, with the Parquet file of the same table as the oracle."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, stored
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import SourceError, Store, UsageError, ZstoreError, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.planner import plan_ingest

READING: dict[str, Any] = {"id": "id", "time": "time"}
DAY = dt.datetime(2020, 1, 1)


def table(n_rows: int = 240, n_series: int = 5, ids: Sequence[str | None] | None = None) -> pa.Table:
    """Every kind of column: ids, timestamps, numbers, decimals, large integers, words, categories, lists, nulls."""
    hours = [DAY + dt.timedelta(hours=n // n_series) for n in range(n_rows)]
    return pa.table(
        {
            "id": ids or [f"s{n % n_series}" for n in range(n_rows)],
            "time": pa.array(hours, pa.timestamp("us")),
            "v": pa.array([None if n % 7 == 3 else n / 4 for n in range(n_rows)]),
            "money": pa.array([Decimal(n) / 100 for n in range(n_rows)], pa.decimal128(12, 2)),
            "large": pa.array([2**53 + n for n in range(n_rows)]),
            "word": [["north", "south", None][n % 3] for n in range(n_rows)],
            "kind": pa.array([["a", None, "b", "c"][n % 4] for n in range(n_rows)]).dictionary_encode(),
            "emg": pa.array([[n, n + 0.5, None] for n in range(n_rows)], pa.list_(pa.float32(), 3)),
            "none": pa.nulls(n_rows),
        }
    )


def arrow(path: Path, rows: pa.Table, batch_rows: int = 50, compression: str | None = None) -> Path:
    """Write an Arrow file, or, where it ends in .arrows, a stream."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with new(path, rows.schema, options=options) as writer:
        writer.write_table(rows, max_chunksize=batch_rows)
    return path


def made(source: Any, path: Path, **reading: Any) -> Store:
    zstore.ingest(source, path, **{**READING, **reading})
    return open_store(path)


def content(path: Path) -> dict[str, bytes]:
    """Every object of a store but the list of its sources."""
    return {key: octets for key, octets in stored(path).items() if not key.startswith("manifest/")}


WAYS: dict[str, Callable[[pa.Table, Path], object]] = {
    "plain.arrow": lambda rows, path: arrow(path, rows),
    "lz4.arrow": lambda rows, path: arrow(path, rows, compression="lz4"),
    "zstd.arrow": lambda rows, path: arrow(path, rows, 7, compression="zstd"),
    "plain.arrows": lambda rows, path: arrow(path, rows),
    "zstd.arrows": lambda rows, path: arrow(path, rows, 1000, compression="zstd"),
    "feather.feather": lambda rows, path: pf.write_feather(rows, path, chunksize=64),
    "polars.ipc": lambda rows, path: pl.from_arrow(rows).write_ipc(path),  # type: ignore[union-attr]
    "polars-zstd.arrow": lambda rows, path: pl.from_arrow(rows).write_ipc(path, compression="zstd"),  # type: ignore[union-attr]
    "polars.arrows": lambda rows, path: pl.from_arrow(rows).write_ipc_stream(path),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("name", WAYS)
def test_a_table_makes_the_bytes_that_its_parquet_file_makes_however_it_is_written(name: str, tmp_path: Path) -> None:
    rows = table()
    pq.write_table(rows, tmp_path / "r.parquet")
    WAYS[name](rows, tmp_path / name)
    made(tmp_path / "r.parquet", tmp_path / "parquet.zarr")
    store = made(tmp_path / name, tmp_path / "arrow.zarr", workers=2, blocksize=2000)
    assert content(tmp_path / "arrow.zarr") == content(tmp_path / "parquet.zarr")
    assert store.objects.document["table"]["source"] == "arrow"
    receipts = [open_store(tmp_path / f"{kind}.zarr").objects.document["receipt"] for kind in ("arrow", "parquet")]
    assert receipts[0]["channels"] == receipts[1]["channels"]
    assert receipts[0]["notes"] == receipts[1]["notes"]


def test_the_csv_of_a_table_makes_the_same_bytes(tmp_path: Path) -> None:
    rows = table().select(["id", "time", "v", "kind"])
    rows = rows.filter(rows["kind"].is_valid())
    pl.from_arrow(rows).write_csv(tmp_path / "r.csv", datetime_format="%Y-%m-%d %H:%M:%S")  # type: ignore[union-attr]
    made(tmp_path / "r.csv", tmp_path / "csv.zarr")
    made(arrow(tmp_path / "r.arrow", rows), tmp_path / "arrow.zarr")
    assert content(tmp_path / "arrow.zarr") == content(tmp_path / "csv.zarr")


@settings(max_examples=12)
@given(
    batches=st.lists(st.lists(st.none() | st.sampled_from("abcdef"), max_size=6), min_size=1, max_size=6),
    deltas=st.booleans(),
    stream=st.booleans(),
)
def test_each_batch_has_the_dictionary_of_its_time_whether_it_grows_or_is_replaced(
    batches: list[list[str | None]],
    deltas: bool,
    stream: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("dictionaries")
    cells = [cell for batch in batches for cell in batch]
    if not cells:
        return
    path = folder / ("d.arrows" if stream else "d.arrow")
    schema = pa.schema({"time": pa.int64(), "w": pa.dictionary(pa.int8(), pa.string())})
    known = ["never"]  # a dictionary that is empty cannot grow
    n_rows = 0
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas, unify_dictionaries=not stream and not deltas)
    columns = []
    for batch in batches:
        words = sorted({cell for cell in batch if cell is not None}, reverse=True)
        known = known + [word for word in words if word not in known] if deltas or not stream else words
        codes = pa.array([None if cell is None else known.index(cell) for cell in batch], pa.int8())
        times = pa.array(range(n_rows, n_rows + len(batch)), pa.int64())
        columns.append(pa.record_batch([times, pa.DictionaryArray.from_arrays(codes, pa.array(known))], schema))
        n_rows += len(batch)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, schema, options=options) as writer:
        if stream or deltas:
            for column in columns:
                writer.write_batch(column)
        else:
            writer.write_table(pa.Table.from_batches(columns))
    store = made(path, folder / "d.zarr", id=None, blocksize=64, **SMALL_GRID)
    stored_words = store.channel("w").categories or ()
    codes_read = store.read("w", 0, n_rows).tolist()
    assert [None if code != code else stored_words[int(code)] for code in codes_read] == cells


def test_a_row_without_id_is_set_aside_by_its_record_batch_and_row(tmp_path: Path) -> None:
    ids = [None if n == 77 else f"s{n % 5}" for n in range(240)]
    source = arrow(tmp_path / "r.arrow", table(ids=ids))
    with pytest.raises(SourceError, match=r"missing id in column 'id'.*r.arrow record batch 1 row 27"):
        made(source, tmp_path / "r.zarr")
    made(source, tmp_path / "r.zarr", on_bad_row="quarantine")
    lines = (tmp_path / "r.zarr.quarantine.csv").read_text().splitlines()
    assert lines[0] == "file,record_batch,row,reason,row"
    assert lines[1].startswith(f"{source},1,27,missing id in column 'id'")


def test_one_and_two_workers_and_any_block_make_the_same_bytes(tmp_path: Path) -> None:
    paths = [arrow(tmp_path / "a.arrow", table()), arrow(tmp_path / "b.arrows", table(ids=["t"] * 48 * 5)[::5], 9)]
    made(paths, tmp_path / "one.zarr", workers=1)
    made(paths, tmp_path / "two.zarr", workers=2, blocksize=900)
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "two.zarr")


def test_rows_that_are_appended_are_those_of_one_ingest(tmp_path: Path) -> None:
    whole = table()
    arrow(tmp_path / "1.arrow", whole.slice(0, 150))
    arrow(tmp_path / "2.arrow", whole.slice(150))
    made(tmp_path / "1.arrow", tmp_path / "s.zarr")
    assert zstore.append([tmp_path / "1.arrow", tmp_path / "2.arrow"], tmp_path / "s.zarr") is not None
    assert zstore.append(tmp_path / "2.arrow", tmp_path / "s.zarr") is None
    store, other = open_store(tmp_path / "s.zarr"), made(arrow(tmp_path / "w.arrow", whole), tmp_path / "w.zarr")
    for channel in other.channels:
        assert store.read(channel, 0, 240).tolist() == pytest.approx(other.read(channel, 0, 240).tolist(), nan_ok=True)
    comparison = compare_sources(store, [tmp_path / "1.arrow", tmp_path / "2.arrow"])
    assert (comparison.n_rows, comparison.n_different, comparison.n_unseen) == (240, 0, 0)


DYING = """
import os, sys
import zstore, zstore.writing.pipeline as pipeline
pipeline.plan_shards = lambda *_, **__: os._exit(9)
zstore.ingest(sys.argv[1], sys.argv[2], id="id", time="time", blocksize=2000)
"""


def test_a_run_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    source = arrow(tmp_path / "r.arrows", table(2000))
    made(source, tmp_path / "whole.zarr", blocksize=2000)
    command = [python, "-c", DYING, str(source), str(tmp_path / "killed.zarr")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 9

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("zstore.writing.parse.parse_blocks", refused)
    made(source, tmp_path / "killed.zarr", blocksize=2000)
    assert stored(tmp_path / "killed.zarr") == stored(tmp_path / "whole.zarr")


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("r.arrow", lambda octets: octets[:-1], "no footer at its end"),
        ("r.arrow", lambda octets: octets[: len(octets) // 2], "no footer at its end"),
        ("r.arrows", lambda octets: octets[:-8], "a stream without the mark at its end"),
        ("r.arrows", lambda octets: octets[: len(octets) // 2], "are left"),
        ("r.arrows", lambda octets: octets + octets, "bytes behind the end of the stream"),
        ("r.arrow", lambda octets: b"id,time\na,1\n", "no schema at its beginning|are left"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_name(
    name: str, damage: Callable[[bytes], bytes], told: str, tmp_path: Path
) -> None:
    path = arrow(tmp_path / name, table())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=rf"damaged Arrow file \(.*({told}).*\).*{name}"):
        made(path, tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr").exists()


def test_a_buffer_that_claims_more_than_it_can_hold_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    rows = pa.table({"time": range(5000), "x": [1.0] * 5000})
    path = arrow(tmp_path / "r.arrow", rows, 5000, compression="zstd")
    octets = path.read_bytes()
    claimed = (5000 * 8).to_bytes(8, "little")
    assert octets.count(claimed) == 2
    path.write_bytes(octets.replace(claimed, (1 << 60).to_bytes(8, "little")))
    with pytest.raises(SourceError, match=r"a buffer of [\d,]+ bytes that claims to hold 1,152,921,504,606,846,976"):
        made(path, tmp_path / "r.zarr", id=None)


def test_rows_without_any_byte_are_refused_before_there_is_memory_for_them(tmp_path: Path) -> None:
    rows = pa.record_batch([pa.Array.from_buffers(pa.null(), 1 << 40, [None])], ["x"])
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with pa.ipc.new_file(tmp_path / "r.arrow", rows.schema, options=options) as writer:
        writer.write_batch(rows)
    with pytest.raises(SourceError, match=r"1,099,511,627,776 rows in 0 bytes"):
        made(tmp_path / "r.arrow", tmp_path / "r.zarr", id=None, time=None, freq="1")


@settings(max_examples=15)
@given(
    where=st.floats(0, 1, exclude_max=True),
    octets=st.binary(min_size=1, max_size=8),
    name=st.sampled_from(["plain.arrow", "lz4.arrow", "zstd.arrows", "plain.arrows"]),
)
def test_a_damaged_file_is_refused_or_read_and_never_more(
    where: float, octets: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    WAYS[name](table(30), folder / name)
    whole = bytearray((folder / name).read_bytes())
    first = int(where * len(whole))
    whole[first : first + len(octets)] = octets
    (folder / name).write_bytes(whole)
    with suppress(ZstoreError):
        assert made(folder / name, folder / "r.zarr", on_bad_row="quarantine").n_rows <= 30


def test_feather_of_version_1_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "old.feather").write_bytes(b"FEA1" + bytes(40) + b"FEA1")
    with pytest.raises(SourceError, match=r"Feather file of version 1; expected version 2.*old.feather"):
        made(tmp_path / "old.feather", tmp_path / "r.zarr")


def test_options_of_csv_and_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    source = arrow(tmp_path / "r.arrow", table())
    with pytest.raises(UsageError, match="--delimiter ; of Arrow files"):
        made(source, tmp_path / "r.zarr", delimiter=";")
    pq.write_table(table(), tmp_path / "r.parquet")
    with pytest.raises(UsageError, match=r"files of several kinds: .*\(arrow\) and .*\(parquet\)"):
        made([source, tmp_path / "r.parquet"], tmp_path / "r.zarr")


def test_the_dry_run_and_the_command_take_arrow_as_they_take_csv(tmp_path: Path) -> None:
    source, store = arrow(tmp_path / "r.feather", table(3000)), tmp_path / "r.zarr"
    assert abs(plan_ingest(source, **READING).n_rows - 3000) <= 1
    flags = ["--id", "id", "--time", "time", "--quiet"]
    assert main(["ingest", str(source), str(store), *flags]) == 0
    assert main(["verify", str(store), "--source", str(source), "--quiet"]) == 0
