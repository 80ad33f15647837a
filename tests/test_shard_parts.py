"""Which tasks write the shards of a version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import stored
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore.writing import shard_parts
from zstore.writing.shard_parts import share_out
from zstore.writing.sort import Border, ShardPlan

N_ROWS = 1 << 17


def plans_of(n_shards: int, last_rows: int) -> list[ShardPlan]:
    """Shards of which the last may have fewer rows."""
    sizes = [N_ROWS] * (n_shards - 1) + [last_rows]
    starts = np.cumsum([0, *sizes]).tolist()
    return [ShardPlan(n, starts[n], starts[n + 1], Border(0, None), Border(1, None)) for n in range(n_shards)]


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 9), st.integers(1, N_ROWS))
def test_every_channel_of_every_shard_is_written_once_and_all_rows_are_counted(
    n_shards: int, n_channels: int, workers: int, last_rows: int
) -> None:
    plans = plans_of(n_shards, last_rows)
    parts = share_out(plans, n_channels, workers)
    written = [(part.plan.shard, channel) for part in parts for channel in part.channels]
    assert written == [(shard, channel) for shard in range(n_shards) for channel in range(n_channels)]
    assert [part.plan.shard for part in parts if part.first] == list(range(n_shards))
    assert sum(part.n_rows for part in parts) == plans[-1].stop


@pytest.mark.parametrize(
    ("n_shards", "n_channels", "workers", "expected"),
    [
        (3, 12, 2, [12, 12, 6, 6]),
        (4, 12, 2, [12, 12, 12, 12]),
        (1, 12, 16, [3, 3, 3, 3]),
        (2, 12, 8, [3] * 8),
        (3, 5, 2, [5, 5, 5]),
    ],
)
def test_shards_that_are_left_over_are_cut_so_that_no_worker_is_idle_if_that_pays(
    n_shards: int, n_channels: int, workers: int, expected: list[int]
) -> None:
    assert [len(part.channels) for part in share_out(plans_of(n_shards, N_ROWS), n_channels, workers)] == expected


def test_a_small_shard_is_written_by_one_task() -> None:
    assert len(share_out(plans_of(1, 1000), 12, 2)) == 1


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_store_has_the_same_bytes_whoever_writes_which_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(shard_parts, "_LEAST_ROWS", 1)
    random = np.random.default_rng(0)
    rows = random.permutation(2000)
    values = {f"v{n}": np.where(random.random(2000) < 0.1, np.nan, random.normal(size=2000).round(n)) for n in range(7)}
    values["v3"][5] = np.inf
    table = pa.table({"id": rows // 300, "t": rows % 300, **values})
    options: dict[str, Any] = {"id": "id", "time": "t", "time_unit": "steps", "chunk_rows": 256, "shard_rows": 1024}
    stores = {n: tmp_path / f"{n}.zarr" for n in (1, workers)}
    receipts = {n: zstore.ingest(table, path, workers=n, **options) for n, path in stores.items()}
    content = {n: stored(path) for n, path in stores.items()}
    assert content[1] == content[workers]
    assert len(content[1]) > 2 * 8
    assert receipts[1].notes == receipts[workers].notes
