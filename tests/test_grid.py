"""How many rows a chunk and a shard have is an option of an ingest, which a store keeps."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL_GRID, stored, table
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore import Store, UsageError, open_store
from zstore.cli import main
from zstore.format.trust import MOST_CHUNK_ROWS, MOST_CHUNKS, MOST_SHARD_ROWS, grid_fault
from zstore.writing.planner import plan_ingest

READING: dict[str, Any] = {"id": "site", "time": "date"}


def cells(store: Store) -> list[list[str]]:
    return [store.read(name, 0, store.n_rows).astype(str).tolist() for name in store.channels]


@pytest.mark.parametrize("chunk_rows", [1, 16, 64])
def test_a_store_of_any_grid_has_the_same_rows_through_appends_and_compactions(
    store: Store, csv: Path, tmp_path: Path, chunk_rows: int
) -> None:
    path, late = tmp_path / "s.zarr", tmp_path / "late.csv"
    late.write_text("site,date,level,count\n0001,2000-12-30,1.5,7\n0009,2001-01-01,2.5,8\n")
    zstore.ingest(csv, path, chunk_rows=chunk_rows, shard_rows=64, **READING)
    for change in (None, lambda where: zstore.append(late, where), zstore.compact):
        for where in (path, store.path):
            if change is not None:
                change(where)
        ours, usual = open_store(path), open_store(store.path)
        assert (ours.schema.chunk_rows, ours.schema.shard_rows) == (chunk_rows, 64)
        assert cells(ours) == cells(usual)
        assert zstore.verify(ours).faults == ()


def test_the_usual_grid_is_65536_and_1048576_rows(store: Store, csv: Path, tmp_path: Path) -> None:
    zstore.ingest(csv, tmp_path / "s.zarr", chunk_rows=65_536, shard_rows=1_048_576, **READING)
    assert stored(tmp_path / "s.zarr") == stored(store.path)


@pytest.mark.parametrize(
    ("chunk_rows", "shard_rows", "message"),
    [
        (0, 16, "chunk_rows 0; expected a whole number from 1 to 1,048,576"),
        (48, 96, "chunk_rows 48; expected a power of two"),
        (8, 24, "shard_rows 24; expected a power of two"),
        (64, 32, "shard_rows 32; expected at least chunk_rows 64"),
        (8, 1 << 20, "131,072 chunks in a shard; expected at most 65,536"),
        (1 << 21, 1 << 21, "chunk_rows 2,097,152"),
        (8, 1 << 29, "shard_rows 536,870,912"),
        (8.0, 16, "chunk_rows 8.0"),
        (True, 16, "chunk_rows True"),
    ],
)
def test_a_grid_that_no_store_can_have_is_refused_before_anything_is_made(
    csv: Path, tmp_path: Path, chunk_rows: Any, shard_rows: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        zstore.ingest(csv, tmp_path / "s.zarr", chunk_rows=chunk_rows, shard_rows=shard_rows, **READING)
    assert not (tmp_path / "s.zarr").exists()


@given(chunk=st.integers(-1, 22), shard=st.integers(-1, 30), more=st.sampled_from([0, 0, 1]))
def test_a_grid_is_refused_exactly_where_the_format_has_none(chunk: int, shard: int, more: int) -> None:
    chunk_rows, shard_rows = int(2.0**chunk) + more * 2, int(2.0**shard)
    powers = all(rows > 0 and rows.bit_count() == 1 for rows in (chunk_rows, shard_rows))
    fits = 0 < chunk_rows <= MOST_CHUNK_ROWS and chunk_rows <= shard_rows <= MOST_SHARD_ROWS
    assert (grid_fault(chunk_rows, shard_rows) is None) == (powers and fits and shard_rows // chunk_rows <= MOST_CHUNKS)


def test_the_command_takes_a_grid_and_refuses_another_one_for_an_append(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ingest", str(csv), str(tmp_path / "s.zarr"), "--id", "site", "--time", "date", "--quiet"]
    grid = ["--chunk-rows", "8", "--shard-rows", "16"]
    assert main([*command, "--chunk-rows", "0"]) == 2
    assert main([*command, *grid]) == 0
    assert asdict(open_store(tmp_path / "s.zarr").schema.grid) == SMALL_GRID
    assert main([*command, "--append", *grid]) == 0
    capsys.readouterr()
    assert main([*command, "--append", "--chunk-rows", "65536"]) == 2
    assert "--chunk-rows 65536; expected 8, as" in capsys.readouterr().err


def test_a_dry_run_plans_with_the_grid_that_is_asked_for(tmp_path: Path) -> None:
    source = table(tmp_path / "long.csv", n_series=4, n_days=256)
    usual, small = plan_ingest(source, **READING), plan_ingest(source, **READING, chunk_rows=8, shard_rows=64)
    assert (usual.n_shards, small.n_shards) == (1, 1024 // 64)
    assert (usual.n_objects, small.n_objects) == (3, 3 * 1024 // 64)
    assert small.tasks["write"] == 1024 // 64
