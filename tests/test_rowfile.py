"""Row files: built once, checked, shared, listed and cleared."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import processes, write_table
from torch.utils.data import DataLoader

import zstore
from zstore import RowFile, Scaling, Store, cache_entries, clear_cache, ingest, open_rows, open_store

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rows = [[f"s{n % 3}", n // 3, n / 4, "" if n % 7 == 0 else n % 5] for n in range(300)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v", "w"], rows), tmp_path / "s.zarr", id="id", time="t")
    return open_store(tmp_path / "s.zarr")


def rows_of(store: Store, cache: Path, channels: tuple[str, ...] = ("w", "v")) -> RowFile:
    return open_rows(store, channels, Scaling.linear(np.ones(len(channels)), np.full(len(channels), 2.0)), cache)


def test_rows_are_scaled_and_filled_and_say_what_was_observed(store: Store, tmp_path: Path) -> None:
    rows = rows_of(store, tmp_path / "cache")
    source = np.stack([store.read(name, 0, 300) for name in ("w", "v")], axis=1)
    np.testing.assert_allclose(rows.values, np.nan_to_num((source - 1) / 2))
    assert rows.observed is not None
    np.testing.assert_array_equal(rows.observed, ~np.isnan(source))
    assert rows_of(store, tmp_path / "cache", ("v",)).observed is None


def test_a_row_file_is_built_once_for_each_version_and_set_of_channels(store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        rows_of(store, cache)
    built = {entry.path: Path(entry.path).stat().st_ino for entry in cache_entries(cache)}
    rows_of(store, cache)
    assert {entry.path: Path(entry.path).stat().st_ino for entry in cache_entries(cache)} == built
    rows_of(store, cache, ("v",))
    zstore.append(write_table(tmp_path / "2.csv", ["id", "t", "v", "w"], [["s0", 500, 1, 2]]), store.path)
    rows_of(open_store(store.path), cache)
    assert sorted((e.version, e.channels, e.n_rows) for e in cache_entries(cache)) == [
        (1, ("v",), 300),
        (1, ("w", "v"), 300),
        (2, ("w", "v"), 301),
    ]


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "note"])
def test_a_damaged_row_file_is_built_anew(store: Store, tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "cache"
    expected = rows_of(store, cache).values.copy()
    (entry,) = cache_entries(cache)
    path = Path(entry.path)
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    if harm == "remove":
        path.unlink()
    elif harm == "note":
        path.with_suffix(".json").write_text("{")
    else:
        path.write_bytes(content if harm == "flip" else content[:-8])
    np.testing.assert_array_equal(rows_of(store, cache).values, expected)
    assert cache_entries(cache) == [entry]


def test_what_a_process_does_to_its_rows_no_other_sees(store: Store, tmp_path: Path) -> None:
    rows = rows_of(store, tmp_path / "cache")
    before = rows.values.copy()
    rows.values[:] = 7
    np.testing.assert_array_equal(rows_of(store, tmp_path / "cache").values, before)


def test_a_builder_that_is_killed_leaves_nothing_that_is_taken_for_rows(store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    script = (
        "import sys, time, numpy as np, zstore\n"
        "import zstore.reading.rowfile\n"
        "decode = zstore.reading.rowfile.decode_rows_of\n"
        "def slow(*a, **k):\n"
        "    decode(*a, **k)\n"
        "    print('decoded', flush=True)\n"
        "    time.sleep(60)\n"
        "zstore.reading.rowfile.decode_rows_of = slow\n"
        "scaling = zstore.Scaling.linear(np.ones(2), np.full(2, 2.0))\n"
        "zstore.open_rows(zstore.open_store(sys.argv[1]), ['w', 'v'], scaling, sys.argv[2])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, store.path, cache], stdout=subprocess.PIPE, text=True
    ) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "decoded\n"
        assert clear_cache(cache) == (0, 0)
        builder.send_signal(signal.SIGKILL)
    assert cache_entries(cache) == []
    assert rows_of(store, cache).values.shape == (300, 2)
    assert [path.suffix for path in sorted(cache.iterdir())] == [".f4", ".json", ".lock"]


def test_the_cache_is_listed_and_cleared(run: Run, store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    rows_of(store, cache)
    rows_of(store, cache, ("v",))
    old = Path(cache_entries(cache)[1].path)
    for suffix in (".f4", ".json"):
        os.utime(old.with_suffix(suffix), (time.time() - 10 * 86_400,) * 2)
    listed = run("zstore.cli", "cache", "list", "--folder", cache, check=True).stdout
    assert store.path in listed
    assert "2 row files" in listed
    assert len(json.loads(run("zstore.cli", "cache", "list", "--folder", cache, "--json", check=True).stdout)) == 2
    assert "removed 1 files" in run("zstore.cli", "cache", "clear", "--folder", cache, "--days", "5", check=True).stdout
    assert len(cache_entries(cache)) == 1
    run("zstore.cli", "cache", "clear", "--folder", cache, check=True)
    assert list(cache.iterdir()) == []
    assert "no row files" in run("zstore.cli", "cache", "list", "--folder", cache, check=True).stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_windows_are_a_dataset_for_a_loader_of_ones_own(store: Store, tmp_path: Path, workers: int) -> None:
    windows = store.windows(lookback=5, horizon=2, targets=["v"], cache=tmp_path / "cache")
    spawned = {"num_workers": workers, "multiprocessing_context": processes()} if workers else {}
    batches = list(DataLoader(windows, 16, **spawned))  # type: ignore[arg-type]
    assert sum(len(batch["x"]) for batch in batches) == len(windows)
    expected = windows.batch(np.arange(len(windows)))
    for key in ("x", "y", "series", "time"):
        found = torch.cat([batch[key] for batch in batches]).numpy()
        np.testing.assert_array_equal(found, expected[key])
    assert np.isnan(expected["x"]).any()
    assert len(cache_entries(tmp_path / "cache")) == 1
