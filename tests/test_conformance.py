"""A reader in another language, written from docs/format.md, has the rows of stores of every format version."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import REPOSITORY, SMALL_GRID, write_table

import zstore

KIT = REPOSITORY / "tests" / "conformance"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, which fetches zarrita and the compiler"),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    folder = tmp_path_factory.mktemp("conformance")
    for name in ("package.json", "tsconfig.json", "reader.ts"):
        shutil.copy(KIT / name, folder)
    for command in (["npm", "install", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "build" / "reader.js"


def read_by(reader: Path, path: Path) -> list[list[Any]]:
    made = subprocess.run(["node", reader, path], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in made.stdout.splitlines()]


def rows_of(path: Path) -> list[list[Any]]:
    """Every row as zstore has it: id, time as a whole number, and channels, None where missing."""
    table = zstore.open_store(path).sel().to_arrow().read_all()
    ids, times, *channels = table.columns
    texts = [str(time) for time in times.cast(pa.int64()).to_pylist()]
    columns = [[None if each != each else each for each in column.to_pylist()] for column in channels]
    return [list(row) for row in zip(ids.to_pylist(), texts, *columns, strict=True)]


@pytest.mark.parametrize("name", ["version1/daily", "version1/monthly", "version3/daily"])
def test_a_reader_in_typescript_has_the_rows_of_stores_of_versions_1_and_3(reader: Path, name: str) -> None:
    path = REPOSITORY / "tests" / "stores" / name
    assert read_by(reader, path) == rows_of(path)


@pytest.mark.parametrize("codec", ["zstd-3", "blosc-lz4-5-bitshuffle", "blosc-zstd-3-shuffle"])
def test_a_reader_in_typescript_has_the_rows_of_a_store_of_version_2(reader: Path, codec: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        (name, f"2020-{day // 28 + 1:02d}-{day % 28 + 1:02d}", round(random.normal(), 2), random.normal() * 1e9, sky)
        for day in random.permutation(300)
        for name, sky in (("b", "clear"), ("ä é", "rain"), ("a", ""))
    ]
    header = ("site", "day", "level", "flow", "sky")
    table = write_table(tmp_path / "a.csv", header, rows[:700])
    options: dict[str, Any] = {"id": "site", "time": "day", "codec": codec, "dtype": "float64"}
    zstore.ingest([str(table)], str(tmp_path / "s.zarr"), **options, **SMALL_GRID)
    zstore.append([str(write_table(tmp_path / "b.csv", header, rows[700:]))], str(tmp_path / "s.zarr"))
    assert len(rows_of(tmp_path / "s.zarr")) == len(rows)
    assert read_by(reader, tmp_path / "s.zarr") == rows_of(tmp_path / "s.zarr")
    zstore.compact(tmp_path / "s.zarr")
    assert read_by(reader, tmp_path / "s.zarr") == rows_of(tmp_path / "s.zarr")
