"""The suite systems on a few small files: what it compares are the same numbers, and it prints all readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

from benchmarks import our_systems, system_data, system_peers, systems
from benchmarks.system_data import SYSTEMS
from benchmarks.system_readers import Facts, files_of, reader_of

RAW: dict[str, Callable[[Path], Path]] = {
    "gestures": lambda folder: system_data.readings(folder, None, 400),
    "joint angles": lambda folder: system_data.sessions(folder, None, 13_000_000, 9_000),
    "robots, state": lambda folder: system_data.replay(folder, None, 20, 24),
    "robots, images": lambda folder: system_data.replay(folder, None, 20, 24),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "robots, state" else pytest.mark.long) for name in RAW]
)
def test_others_read_the_numbers_that_this_trains_on(name: str, tmp_path: Path) -> None:
    system, raw = SYSTEMS[name], RAW[name](tmp_path)
    size = system.configuration()["data"]["batch_size"]
    system.store(raw, tmp_path / "store.zarr")
    batches = our_systems.facts(system, tmp_path)["batches"]
    for reader in system.peers:
        files_of(name, reader, raw, tmp_path)
        dataset = reader_of(name, reader, raw, tmp_path, Facts.read(tmp_path), trains=False)
        assert system_peers.check(dataset, tmp_path, batches, size)["n_compared"] > 0
        with np.load(tmp_path / "batch0.npz") as ours:
            np.savez(tmp_path / "batch0.npz", **{**ours, "x": ours["x"] + np.float32(0.001)})
        with pytest.raises(AssertionError, match="x"):
            system_peers.check(dataset, tmp_path, batches, size)
        our_systems.facts(system, tmp_path)


@pytest.mark.long
def test_both_sides_train_the_same_windows_in_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = SYSTEMS["robots, state"]
    small = replace(
        system, raw=lambda folder, data: system_data.replay(folder, data, 80, 24), peers={"replay buffer": (0, 2)}
    )
    monkeypatch.setitem(SYSTEMS, "robots, state", small)
    found = systems.measured("robots, state", tmp_path, None, 1)
    assert {each[0]["n_batches"] for each in found.values()} == {found[systems.OURS][0]["n_batches"]}
    printed = systems.report("robots, state", small, found, False)
    assert all(f"| {label} |" in printed for label in ("this", "replay buffer, 0 workers", "replay buffer, 2 workers"))
