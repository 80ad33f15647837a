"""The cache folder: who waits for whom, what leaves it and when."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from caches import N_ROWS, PER_CHANNEL, path_of, row_file, rows_of, small_store, unused_for, values_of

from zstore import (
    Cache,
    PanelGrid,
    Scaling,
    Store,
    StoreError,
    UsageError,
    cache_entries,
    clear_cache,
    open_panel,
)
from zstore.reading import cached, heldfile
from zstore.reading.rownotes import RowNote
from zstore.storage.locks import file_lock


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# Who waits for whom


_BUILDER = """
import sys, time, numpy as np, zstore
from pathlib import Path
decode = zstore.reading.rowfile.decode_rows_of
def slow(*a, **k):
    decode(*a, **k)
    print("building", flush=True)
    sys.stdin.readline()
zstore.reading.rowfile.decode_rows_of = slow
rows = zstore.open_rows(zstore.open_store(sys.argv[1]), ["u", "v"], zstore.Scaling.identity(2), sys.argv[2])
print("open", float(rows.values.sum()), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def builders(store: Store, folder: Path, python: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start processes that build the row file until they are told to go on, and then keep it open."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        words = [python, "-c", _BUILDER, store.path, str(folder)]
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_one_builds_and_a_killed_one_is_taken_over_from(
    store: Store, folder: Path, builders: Callable[[], subprocess.Popen[str]]
) -> None:
    first = builders()
    assert said(first) == "building"
    assert (cache_entries(folder), clear_cache(folder)) == ([], (0, 0))  # nothing yet, and nothing to be taken away
    second = builders()
    rows_of(store, folder, ("w",))  # another file does not wait
    with file_lock(next(folder.glob("rows-*.partial")).with_suffix("").with_suffix(".lock"), wait=False) as free:
        assert not free
    first.send_signal(signal.SIGKILL)
    assert said(second) == "building"
    go_on(second)
    assert said(second) == f"open {float(values_of(store).sum())}"
    assert not list(folder.glob("*.partial"))
    closed = path_of(folder, "w")
    n_bytes = PER_CHANNEL + closed.with_suffix(".json").stat().st_size
    assert clear_cache(folder) == (1, n_bytes)  # not the one that is open
    assert [entry.channels for entry in cache_entries(folder)] == [("u", "v")]
    go_on(second)
    second.wait()
    clear_cache(folder)
    assert list(folder.iterdir()) == []


def test_a_builder_that_is_killed_after_its_rename_leaves_a_file_that_is_not_believed(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RowNote, "write", killed)
        with pytest.raises(Killed):
            rows_of(store, folder)
    (path,) = folder.glob("*.f4")
    path.write_bytes(b"\1" * path.stat().st_size)
    assert cache_entries(folder) == []
    np.testing.assert_array_equal(rows_of(store, folder).values, values_of(store))


def test_processes_build_for_themselves_where_the_folder_has_no_locks(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cached, "file_lock", refused)
    np.testing.assert_array_equal(rows_of(store, folder).values, values_of(store))
    assert len(cache_entries(folder)) == 1


# What leaves it


def test_what_was_used_longest_ago_leaves_when_the_limit_is_reached(store: Store, folder: Path) -> None:
    for channel, days in (("u", 2), ("v", 3), ("w", 1)):
        rows_of(store, folder, (channel,))
        unused_for(path_of(folder, channel), days)
    rows_of(store, folder, ("u",))  # used now
    held = sum(path.stat().st_size for path in folder.iterdir())
    rows_of(store, Cache(folder, f"{held + PER_CHANNEL}b"), ("u", "w"))
    assert [entry.channels for entry in cache_entries(folder)] == [("u", "w"), ("u",), ("w",)]
    rows_of(store, Cache(folder, 0), ("w", "v"))
    assert [entry.channels for entry in cache_entries(folder)] == [("w", "v")]


def test_what_was_not_used_for_long_leaves_when_something_new_is_built(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSTORE_CACHE_DAYS", "10")
    for channel, days in (("u", 9), ("w", -400), ("v", 11)):  # and one of a clock that was wrong
        rows_of(store, folder, (channel,))
        unused_for(path_of(folder, channel), days)
    rows_of(store, folder, ("w",))
    assert len(cache_entries(folder)) == 3
    rows_of(store, folder, ("u", "v"))
    assert sorted(entry.channels for entry in cache_entries(folder)) == [("u",), ("u", "v"), ("w",)]


def test_what_is_in_use_stays_beyond_the_limit_and_a_line_says_so(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = rows_of(store, folder, ("u",))
    panel = open_panel(store, PanelGrid.of(store), ("u",), Scaling.identity(1), folder)
    rows_of(store, folder, ("v",))
    rows_of(store, Cache(folder, 0), ("w",))
    assert sorted(entry.channels for entry in cache_entries(folder)) == [("u",), ("u",), ("w",)]
    assert "more than its limit: what is in use stays" in caplog.text
    np.testing.assert_array_equal(held.values, values_of(store, ("u",)))
    del held, panel
    rows_of(store, Cache(folder, 0), ("v",))
    assert [entry.channels for entry in cache_entries(folder)] == [("v",)]


def test_a_disk_that_is_full_takes_what_others_leave_and_then_says_so(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = rows_of(store, folder, ("u",))
    rows_of(store, folder, ("v",))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    usage = shutil.disk_usage(folder)._replace(free=PER_CHANNEL - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    rows_of(store, folder, ("w",))
    assert sorted(entry.channels for entry in cache_entries(folder)) == [("u",), ("w",)]
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match=r"2,400 bytes \(No space left.*2,400 bytes free.*zstore cache clear"):
        rows_of(store, folder, ("v", "w"))
    assert not list(folder.glob("*.partial"))
    assert [entry.channels for entry in cache_entries(folder)] == [("u",)]
    assert kept.values.shape == (N_ROWS, 1)


def test_files_that_leave_while_others_look_disturb_nobody(store: Store, folder: Path, python: str) -> None:
    script = (
        "import logging, sys, warnings, zstore\n"
        "logging.disable()\n"
        "warnings.simplefilter('error')\n"
        "store, cache = zstore.open_store(sys.argv[1]), zstore.Cache(__import__('pathlib').Path(sys.argv[2]), 0)\n"
        "for n in range(25):\n"
        "    for name in 'uvw':\n"
        "        rows = zstore.open_rows(store, [name], zstore.Scaling.identity(1), cache)\n"
        "        assert float(rows.values.sum()) == float(store.read(name, 0, store.n_rows).sum()), name\n"
        "        zstore.cache_entries(cache.folder)\n"
    )
    words = [python, "-c", script, store.path, str(folder)]
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    assert not list(folder.glob("*.partial"))


def test_an_older_version_of_a_file_that_is_left_over_goes_with_the_rest(store: Store, folder: Path) -> None:
    rows_of(store, folder)
    first, second, third, fourth = (f"rows-{n:032x}" for n in range(4))
    (folder / f"{first}.partial").write_bytes(b"half")
    (folder / f"{first}.lock").touch()
    (folder / f"{second}.json").write_text("{}")
    (folder / f"{third}.f4").write_bytes(b"whole?")
    (folder / f"{fourth}.f4").symlink_to("/dev/zero")
    (folder / "scaler-4.json").write_text("{}")
    clear_cache(folder)
    assert [path.name for path in folder.iterdir()] == ["scaler-4.json"]


def test_a_file_that_comes_while_it_is_looked_for_is_none_yet(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of(store, folder)
    path, open_ = row_file(folder), os.open

    def too_early(name: Path, *options: int) -> int:
        if name == path:
            raise FileNotFoundError(2, "No such file or directory", str(name))
        return open_(name, *options)

    monkeypatch.setattr("zstore.reading.heldfile.os.open", too_early)
    assert heldfile.HeldFile.open(path) is None


def test_files_that_others_put_into_the_folder_stay(store: Store, folder: Path) -> None:
    names = {"rows-2001.json", "rows-2001.f4", "rows-2001.csv", "rows-.f4", "rows-*.json", "rows-a.b.partial"}
    folder.mkdir()
    for name in names:
        (folder / name).write_text("precious")
    for channel in "uvw":
        rows_of(store, Cache(folder, limit=0.0, days=0.0), (channel,))
    clear_cache(folder)
    assert names == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("limit", ["much", "-1", "2", "5", "nan", "1.5.2GiB", "inf", ""])
def test_a_limit_that_cannot_be_meant_is_refused(tmp_path: Path, limit: str) -> None:
    with pytest.raises(UsageError, match=r"share of its disk such as 0\.2, or a size such as 50GiB"):
        Cache(tmp_path, limit)


def test_limits_are_sizes_or_shares_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str | float, int] = {"2GiB": 2 << 30, "0.5": 500, 1: 1000, 0.25: 250, "3 kB": 3000, 0: 0}
    assert {limit: Cache(tmp_path, limit).limit_on(1000) for limit in limits} == limits
    assert Cache(tmp_path).limit_on(1000) == 200
    monkeypatch.setenv("ZSTORE_CACHE_LIMIT", "7MB")
    assert Cache(tmp_path).limit_on(1000) == 7_000_000
    monkeypatch.setenv("ZSTORE_CACHE_DAYS", "soon")
    with pytest.raises(UsageError, match="days 'soon'"):
        Cache(tmp_path)
