"""One, two, four and eight processes have the same batches, decode their part, and go on with each other's fits."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from test_resuming import on_ranks, write_config

from zstore import Store, ingest, open_store

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]
BUDGET, WORLDS = 200_000, (1, 2, 4, 8)
SAVED_EVERY, KILL_AT = 4, 23


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Some 40,000 rows in 640 chunks."""
    folder, rng = tmp_path_factory.mktemp("wide"), np.random.default_rng(5)
    rows = [
        [f"s{number:02d}", step, rng.integers(1000) / 10, step % 17]
        for number in range(32)
        for step in range(1400 - 9 * number)
    ]
    table = write_table(folder / "r.csv", ["id", "t", "rain_mm", "flow_mm"], rows)
    ingest(table, folder / "s.zarr", id="id", time="t", chunk_rows=64, shard_rows=1024)
    return open_store(folder / "s.zarr")


def fit(python: str, folder: Path, world: int, witness: str, run: str, kill_at: int | None = None) -> None:
    callback = {
        "class_path": "witness.LaneWitness",
        "init_args": {"path": str(folder / witness), "kill_at": kill_at},
    }
    last = (folder / run / "checkpoints" / "last.ckpt").exists()
    done = on_ranks(python, folder, "fit", world, run, callback, *(("--ckpt_path", "last") if last else ()))
    assert done.returncode == (0 if kill_at is None else -signal.SIGKILL), done.stderr


def lines(folder: Path, witness: str, rank: int) -> list[Any]:
    return [json.loads(line) for line in (folder / f"{witness}.{rank}").read_text().splitlines()]


def batches(folder: Path, witness: str, world: int) -> dict[int, list[tuple[Any, str]]]:
    """By step, the windows of its global batch in their order, with a digest of their values."""
    found: dict[int, list[tuple[Any, str]]] = {}
    ranks = [
        list(zip(lines(folder, witness, rank), lines(folder, f"{witness}.values", rank), strict=True))
        for rank in range(world)
    ]
    for parts in zip(*ranks, strict=True):
        own = [list(zip(map(tuple, seen["windows"]), values, strict=True)) for seen, values in parts]
        assert len({seen["step"] for seen, _ in parts}) == len({len(each) for each in own}) == 1
        found[parts[0][0]["step"]] = [window for together in zip(*own, strict=True) for window in together]
    return found


def losses(folder: Path, witness: str, world: int) -> dict[int, list[str]]:
    """By step, the loss of each process, to the last bit."""
    ranks = [lines(folder, witness, rank) for rank in range(world)]
    return {parts[0]["step"]: [part["loss"] for part in parts] for parts in zip(*ranks, strict=True)}


def test_processes_have_the_same_batches_and_go_on_with_each_others_fits(
    wide: Store, tmp_path: Path, python: str
) -> None:
    window = {"stride": 7, "split": {"sizes": [0.96, 0.02, 0.02]}, "lookback": 9}
    write_config(tmp_path, wide, "stream", f"{BUDGET}b", window)
    found = {}
    for world in WORLDS:
        fit(python, tmp_path, world, f"whole{world}", f"undisturbed{world}")
        found[world] = batches(tmp_path, f"whole{world}", world)
        pools = [json.loads((tmp_path / f"whole{world}.pool.{rank}").read_text()) for rank in range(world)]
        assert {pool["lanes"] for pool in pools} == {8}
        assert sum(pool["n_bytes"] for pool in pools) <= BUDGET
        shares = [pool["decoded"] * world / wide.n_chunks_stored for pool in pools]
        assert all(0.95 <= share <= 1.05 for share in shares), shares
    whole = found[1]
    assert all(batch == whole for batch in found.values())
    n_steps = len(whole) // 2
    assert n_steps > KILL_AT
    for epoch in range(2):
        seen = [key for step, batch in whole.items() if (step - 1) // n_steps == epoch for key, _ in batch]
        assert len(set(seen)) == len(seen)

    fit(python, tmp_path, 4, "killed", "run", KILL_AT)
    saved = KILL_AT // SAVED_EVERY * SAVED_EVERY
    for world in WORLDS:
        shutil.copytree(tmp_path / "run", tmp_path / f"run{world}")
        fit(python, tmp_path, world, f"after{world}", f"run{world}")
        after = batches(tmp_path, f"after{world}", world)
        assert after == {step: batch for step, batch in whole.items() if step > saved}
    before, resumed = losses(tmp_path, "whole4", 4), losses(tmp_path, "after4", 4)
    assert resumed == {step: before[step] for step in resumed}
