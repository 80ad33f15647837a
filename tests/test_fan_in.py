"""Many blocks are merged in groups before they are gathered; what is stored does not depend on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import stored, write_table

import zstore
from zstore import open_store, verify
from zstore.writing import fan_in
from zstore.writing.sort import plan_shards


def tables(folder: Path) -> list[Path]:
    """Rows in no order, in two files, some of them twice, with words, floats and decimals."""
    rng = np.random.default_rng(3)
    rows = [
        [
            f"s{n % 7}",
            int(n // 7 * 2 + (n % 11 == 0)),
            int(rng.integers(1000)) / 10,
            repr(float(rng.normal())),
            f"w{n % 5}",
        ]
        for n in range(3000)
    ]
    rows = [rows[n] for n in rng.permutation(len(rows))]
    again = [[*row[:2], 5, *row[3:]] for row in rows[:50]]
    header = ["id", "t", "v", "f", "kind"]
    return [write_table(folder / "a.csv", header, rows), write_table(folder / "b.csv", header, again)]


@pytest.mark.parametrize("most", [2, 3, 10])
@pytest.mark.parametrize(
    "options", [{"on_duplicate": "first"}, {"on_duplicate": "last", "fill_gaps": True, "freq": "1"}]
)
def test_merging_in_groups_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, options: dict[str, Any]
) -> None:
    reading: dict[str, Any] = {"id": "id", "time": "t", "freq": "1", "blocksize": 3000, **options}
    files = tables(tmp_path)
    zstore.ingest(files, tmp_path / "plain.zarr", **reading)
    n_merges = 0

    def counted(phase: str, done: int, total: int, unit: str) -> None:
        nonlocal n_merges
        n_merges += phase == "merge" and done == 0

    monkeypatch.setattr(fan_in, "MOST_FILES", most)
    zstore.ingest(files, tmp_path / "merged.zarr", **reading, progress=counted)
    assert n_merges > 1
    assert stored(tmp_path / "merged.zarr") == stored(tmp_path / "plain.zarr")


def test_an_append_of_many_blocks_is_merged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tables(tmp_path)
    for name, most in (("plain", 100), ("merged", 2)):
        monkeypatch.setattr(fan_in, "MOST_FILES", most)
        zstore.ingest(second, tmp_path / f"{name}.zarr", id="id", time="t", on_duplicate="first")
        zstore.append(first, tmp_path / f"{name}.zarr", blocksize=3000, on_duplicate="last")
        assert verify(open_store(tmp_path / f"{name}.zarr")).faults == ()
    assert stored(tmp_path / "merged.zarr") == stored(tmp_path / "plain.zarr")


def test_merged_stretches_are_of_a_shard_and_what_was_merged_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several stretches a group, whose borders lie inside series."""
    monkeypatch.setattr(fan_in, "MOST_FILES", 4)
    gathered = plan_shards
    blocks: list[int] = []
    monkeypatch.setattr(fan_in, "plan_shards", lambda start, parts, _, unique: gathered(start, parts, 100, unique))

    def seen(row_start: Any, parts: Any, shard_rows: int) -> Any:
        blocks.append(len(parts))
        spills = [key for key in parts[0].spill.scratch.sizes() if key.endswith(".spill")]
        assert len(spills) == len(parts)
        return gathered(row_start, parts, shard_rows)

    monkeypatch.setattr("zstore.writing.pipeline.plan_shards", seen)
    files = tables(tmp_path)[:1]
    zstore.ingest(files, tmp_path / "merged.zarr", id="id", time="t", blocksize=3000)
    monkeypatch.undo()
    zstore.ingest(files, tmp_path / "plain.zarr", id="id", time="t", blocksize=3000)
    assert blocks[0] >= 30
    assert stored(tmp_path / "merged.zarr") == stored(tmp_path / "plain.zarr")
