"""A run that was killed is gone on with: what it had parsed is not parsed again, and the result is the same."""

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL_GRID, stored, write_table
from dialects import DIALECTS

import zstore
from zstore.format.layout import SCRATCH

READING: dict[str, Any] = {"id": "id", "time": "t", "blocksize": 2000, "on_bad_row": "quarantine"}

DYING = """
import json, os, sys
import zstore, zstore.writing.pipeline as pipeline
pipeline.plan_shards = lambda *_, **__: os._exit(9)
source, store, how = sys.argv[1:4]
reading = dict(blocksize=2000, on_bad_row="quarantine", scratch=sys.argv[4] if len(sys.argv) > 4 else None)
if how.startswith("{"):
    zstore.ingest(source, store, **json.loads(how))
elif how == "append":
    zstore.append(source, store, **reading)
else:
    zstore.ingest(source, store, id="id", time="t", overwrite=how == "overwrite", **reading)
"""


def die(python: str, *arguments: object) -> None:
    done = subprocess.run([python, "-c", DYING, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [[f"s{n % 5}", n // 5, "bad" if n == 777 else n % 40 / 10, f"w{n % 3}"] for n in range(2000)]
    return write_table(tmp_path / "rows.csv", ["id", "t", "v", "kind"], rows)


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, no block may be parsed and no file inflated."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    def forbid() -> None:
        monkeypatch.setattr("zstore.writing.parse.parse_blocks", refused)
        monkeypatch.setattr("zstore.writing.sources.csv.source.plain_utf8", refused)

    return forbid


@pytest.mark.parametrize("how", ["new", "overwrite", "append"])
def test_spills_that_are_whole_are_not_made_again(
    table: Path, tmp_path: Path, unparsed: Callable[[], None], how: str, python: str
) -> None:
    first = write_table(tmp_path / "first.csv", ["id", "t", "v", "kind"], [["s1", -1, 5, "w0"]])
    paths = [tmp_path / "undisturbed.zarr", tmp_path / "killed.zarr"]
    if how != "new":
        for path in paths:
            zstore.ingest(first, path, id="id", time="t")

    def run(path: Path) -> None:
        if how == "append":
            zstore.append(table, path, blocksize=2000, on_bad_row="quarantine")
        else:
            zstore.ingest(table, path, **READING, overwrite=how == "overwrite")

    run(paths[0])
    die(python, table, paths[1], how)
    unparsed()
    run(paths[1])
    assert stored(paths[1]) == stored(paths[0])
    assert "bad" in next(tmp_path.glob("killed.zarr.quarantine*.csv")).read_text()
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@pytest.mark.parametrize("name", ["comments and quotes", "a row per series"])
def test_a_table_of_a_dialect_is_gone_on_with_too(
    name: str, tmp_path: Path, unparsed: Callable[[], None], python: str
) -> None:
    path, reading = tmp_path / "a.csv", {**DIALECTS[name].options, "blocksize": 60}
    path.write_text(DIALECTS[name].clean)
    zstore.ingest(path, tmp_path / "undisturbed.zarr", **reading)
    die(python, path, tmp_path / "killed.zarr", json.dumps(reading))
    unparsed()
    zstore.ingest(path, tmp_path / "killed.zarr", **reading)
    assert stored(tmp_path / "killed.zarr") == stored(tmp_path / "undisturbed.zarr")


def test_a_file_that_was_inflated_is_not_inflated_again(
    table: Path, tmp_path: Path, unparsed: Callable[[], None], python: str
) -> None:
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(table.read_bytes()))
    die(python, packed, tmp_path / "s.zarr", "new")
    unparsed()
    assert zstore.ingest(packed, tmp_path / "s.zarr", **READING).n_stored == 1999


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "cut note"])
def test_a_spill_that_is_not_whole_is_made_again(table: Path, tmp_path: Path, harm: str, python: str) -> None:
    zstore.ingest(table, tmp_path / "undisturbed.zarr", **READING)
    die(python, table, tmp_path / "killed.zarr", "new")
    scratch = tmp_path / "killed.zarr" / SCRATCH
    damaged = sorted(scratch.glob("*.note" if harm == "cut note" else "*.spill"))[3]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        damaged.unlink()
    else:
        damaged.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    zstore.ingest(table, tmp_path / "killed.zarr", **READING)
    assert stored(tmp_path / "killed.zarr") == stored(tmp_path / "undisturbed.zarr")


@pytest.mark.parametrize("change", ["rows", "options", "grid", "blocksize"])
def test_spills_of_another_run_are_not_taken(table: Path, tmp_path: Path, change: str, python: str) -> None:
    die(python, table, tmp_path / "s.zarr", "new")
    reading = dict(READING)
    if change == "rows":
        table.write_text(table.read_text().replace("bad", "1.5"))
    elif change == "options":
        reading["channels"] = ["v"]
    elif change == "grid":
        reading |= SMALL_GRID
    else:
        reading["blocksize"] = 1500
    zstore.ingest(table, tmp_path / "s.zarr", **reading)
    zstore.ingest(table, tmp_path / "t.zarr", **reading)
    assert stored(tmp_path / "s.zarr") == stored(tmp_path / "t.zarr")


def test_scratch_space_of_its_own_is_gone_on_from_and_left_empty(
    table: Path, tmp_path: Path, unparsed: Callable[[], None], python: str
) -> None:
    scratch = tmp_path / "scratch"
    die(python, table, tmp_path / "s.zarr", "new", scratch)
    assert os.listdir(scratch)
    unparsed()
    zstore.ingest(table, tmp_path / "s.zarr", **READING, scratch=scratch)
    assert os.listdir(scratch) == []
