"""The cache folder: what is taken for whole, who waits for whom, what leaves it and when."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import write_table

from zstore import (
    Cache,
    PanelGrid,
    RowFile,
    Scaling,
    Store,
    StoreError,
    UsageError,
    cache_entries,
    clear_cache,
    ingest,
    open_panel,
    open_rows,
    open_store,
    verify_cache,
)
from zstore.cli import main
from zstore.reading import cached, eviction, heldfile, rownotes
from zstore.reading.rownotes import RowNote
from zstore.storage.locks import file_lock

N_ROWS = 300
PER_CHANNEL = 4 * N_ROWS  # bytes of a row file


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    rows = [[f"s{n % 3}", n // 3, n / 4, n % 5, -n] for n in range(N_ROWS)]
    ingest(write_table(folder / "r.csv", ["id", "t", "u", "v", "w"], rows), folder / "s.zarr", id="id", time="t")
    return open_store(folder / "s.zarr")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def n_digests(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many files were digested so far."""
    calls: list[Path] = []
    digest = heldfile.HeldFile.digest

    def counted(file: heldfile.HeldFile) -> str:
        calls.append(file.path)
        return digest(file)

    monkeypatch.setattr(heldfile.HeldFile, "digest", counted)
    return lambda: len(calls)


def rows_of(store: Store, cache: Cache | Path, channels: tuple[str, ...] = ("u", "v")) -> RowFile:
    return open_rows(store, channels, Scaling.identity(len(channels)), cache)


def values_of(store: Store, channels: tuple[str, ...] = ("u", "v")) -> np.ndarray:
    return np.stack([store.read(name, 0, N_ROWS) for name in channels], axis=1).astype(np.float32)


def row_file(folder: Path) -> Path:
    (entry,) = cache_entries(folder)
    return Path(entry.path)


def path_of(folder: Path, *channels: str) -> Path:
    return next(Path(entry.path) for entry in cache_entries(folder) if entry.channels == channels)


def unused_for(path: Path, days: float) -> None:
    times = (time.time() - days * 86_400,) * 2
    os.utime(path.with_suffix(".json"), times)


# What is taken for whole


def test_opening_a_row_file_reads_none_of_its_bytes(
    store: Store, folder: Path, n_digests: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of(store, folder)
    assert n_digests() == 1
    monkeypatch.setattr(cached, "file_lock", None)  # nor is any lock taken
    for _ in range(3):
        np.testing.assert_array_equal(rows_of(store, folder).values, values_of(store))
    assert n_digests() == 1


@pytest.mark.parametrize("times_kept", [False, True])
def test_a_row_file_that_was_edited_in_place_is_built_anew(store: Store, folder: Path, times_kept: bool) -> None:
    rows_of(store, folder)
    path = row_file(folder)
    before = path.stat()
    time.sleep(0.02)  # the clock of the file system ticks
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\x07")
    if times_kept:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(rows_of(store, folder).values, values_of(store))


@pytest.mark.parametrize(
    "harm", ["cut", "longer", "torn copy", "other file", "link", "pipe", "link for a note", "no note", "half a note"]
)
def test_a_row_file_that_is_not_what_was_built_is_built_anew(
    store: Store, folder: Path, harm: str, tmp_path: Path
) -> None:
    rows_of(store, folder, ("w", "v"))
    (other,) = [Path(entry.path) for entry in cache_entries(folder)]
    rows_of(store, folder)
    (path,) = [Path(entry.path) for entry in cache_entries(folder) if entry.path != str(other)]
    content = path.read_bytes()
    note = path.with_suffix(".json")
    if harm in ("cut", "longer"):
        path.write_bytes(content[:-8] if harm == "cut" else content + b"\0" * 8)
    elif harm == "torn copy":  # as long as it should be, with nothing in its second half
        copy = tmp_path / "copy"
        copy.write_bytes(content[: len(content) // 2] + b"\0" * (len(content) // 2))
        shutil.copystat(path, copy)
        os.replace(copy, path)
    elif harm == "other file":  # with its note
        shutil.copy2(other, path)
        shutil.copy2(other.with_suffix(".json"), note)
    elif harm == "link":
        path.unlink()
        path.symlink_to(other)
    elif harm == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif harm == "link for a note":
        note.unlink()
        note.symlink_to("/dev/zero")
    elif harm == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text()[:-9])
    np.testing.assert_array_equal(rows_of(store, folder).values, values_of(store))
    np.testing.assert_array_equal(rows_of(store, folder, ("w", "v")).values, values_of(store, ("w", "v")))


@pytest.mark.parametrize(
    "note",
    [
        "[]",
        "null",
        "3",
        "[" * 20_000,
        '{"name": 3}',
        '{"channels": 3}',
        '{"n_rows": "300"}',
        '{"n_rows": true}',
        '{"digest": null}',
        '{"channels": [null]}',
        '{"state": [1, 2]}',
        '{"state": {"inode": "x"}}',
    ],
)
def test_a_note_is_never_believed_beyond_its_types(store: Store, folder: Path, note: str) -> None:
    rows_of(store, folder)
    path = row_file(folder)
    known = json.loads(path.with_suffix(".json").read_text())
    wrong = json.dumps(known | json.loads(note)) if note.startswith("{") else note
    path.with_suffix(".json").write_text(wrong)
    assert len(cache_entries(folder)) == (1 if "state" in note else 0)
    np.testing.assert_array_equal(rows_of(store, folder).values, values_of(store))
    assert len(cache_entries(folder)) == 1


def test_a_row_file_that_was_copied_or_touched_is_read_once_and_known_again(
    store: Store, folder: Path, n_digests: Callable[[], int], tmp_path: Path
) -> None:
    rows_of(store, folder)
    shutil.copytree(folder, tmp_path / "restored")
    inode = row_file(tmp_path / "restored").stat().st_ino
    for _ in range(2):
        rows_of(store, tmp_path / "restored")
    assert (n_digests(), row_file(tmp_path / "restored").stat().st_ino) == (2, inode)
    os.utime(row_file(tmp_path / "restored"), (0, 0))  # a clock that went back
    for _ in range(2):
        rows_of(store, tmp_path / "restored")
    assert n_digests() == 3


def test_the_bytes_of_a_new_row_file_are_compared_once_after_a_restart_of_the_system(
    store: Store, folder: Path, n_digests: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of(store, folder)
    assert rownotes.boot_id()
    monkeypatch.setattr(rownotes, "boot_id", lambda: "another")
    for _ in range(2):
        rows_of(store, folder)
    assert n_digests() == 2
    monkeypatch.setattr(rownotes, "boot_id", lambda: "and another")
    rows_of(store, folder)
    assert n_digests() == 2  # it was on the disk


def test_a_row_file_that_the_disk_refuses_is_not_used_again(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: int) -> None:
        raise OSError(5, "Input/output error")

    rows_of(store, folder)
    path = row_file(folder)
    monkeypatch.setattr(os, "fsync", refused)
    cached._flush(path, path.stat().st_ino + 1)
    assert len(cache_entries(folder)) == 1
    cached._flush(path, path.stat().st_ino)
    assert cache_entries(folder) == []
    assert "the disk does not keep the row file" in caplog.text
    cached._flush(folder / "rows-gone.f4", 1)


def test_a_file_of_another_user_in_a_folder_for_everybody_is_refused(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of(store, folder)
    monkeypatch.setattr(os, "getuid", lambda: os.stat(folder).st_uid + 1)
    if os.stat(folder).st_uid == 0:
        os.chown(row_file(folder), 12_345, -1)
    rows_of(store, folder)  # only people with the right to write to the folder can have put it there
    folder.chmod(0o777)
    with pytest.raises(StoreError, match=r"another user .* everybody may write to.*chmod o-w"):
        rows_of(store, folder)


def test_a_folder_that_may_only_be_read_is_read(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of(store, folder)
    shutil.copytree(folder, tmp_path / "copy")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("utime", "replace", "unlink", "mkdir", "rename"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(cached, "file_lock", refused)
    for cache in (folder, tmp_path / "copy"):
        np.testing.assert_array_equal(rows_of(store, cache).values, values_of(store))


def test_a_panel_that_is_read_stays_readable_when_its_file_goes(store: Store, folder: Path) -> None:
    panel = open_panel(store, PanelGrid.of(store), ("u", "v"), Scaling.identity(2), folder)
    expected = panel.rows().values.copy()
    shutil.rmtree(folder)
    found = np.empty_like(expected[5:50])
    panel.read(5, found, None)
    np.testing.assert_array_equal(found, expected[5:50])
    np.testing.assert_array_equal(panel.rows().values, expected)


def test_rows_stay_readable_when_their_file_goes(store: Store, folder: Path) -> None:
    rows = rows_of(store, folder)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(rows.values, values_of(store))


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


# The command


def test_verify_finds_what_opening_does_not_and_removes_it(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_of(store, folder)
    rows_of(store, folder, ("w",))
    assert (verify_cache(folder), main(["cache", "verify", "--folder", str(folder)])) == ((2, []), 0)
    path = path_of(folder, "w")
    with path.open("r+b") as file:
        file.write(b"\1")
    note = json.loads(path.with_suffix(".json").read_text())
    status = path.stat()
    note["state"] |= {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}  # a disk that lost a bit
    path.with_suffix(".json").write_text(json.dumps(note))
    assert rows_of(store, folder, ("w",)).values[0, 0] != values_of(store, ("w",))[0, 0]
    assert main(["cache", "verify", "--folder", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert f"{path}: differs from its digest, and was removed" in printed
    assert "1 of 2 files were damaged" in printed
    assert [entry.channels for entry in cache_entries(folder)] == [("u", "v")]
    np.testing.assert_array_equal(rows_of(store, folder, ("w",)).values, values_of(store, ("w",)))


def test_the_command_lists_ages_evicts_by_size_and_explains_itself(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache"]) == 0
    assert "list|clear|verify" in capsys.readouterr().out
    assert main(["cache", "list", "--folder", str(folder)]) == 0
    for channel, days in (("u", 2.1), ("v", 0.2), ("w", 0)):
        rows_of(store, folder, (channel,))
        unused_for(path_of(folder, channel), days)
    main(["cache", "list", "--folder", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("KiB")[0].split()[-3:] for line in lines[2:5]] == [
        ["0", "min", "1.2"],
        ["4", "h", "1.2"],
        ["2", "d", "1.2"],
    ]
    assert all(store.path in line for line in lines[2:5])
    held = rows_of(store, folder, ("v",))
    assert main(["cache", "clear", "--folder", str(folder), "--limit", "1B"]) == 0
    assert "removed 2 files" in capsys.readouterr().out
    main(["cache", "clear", "--folder", str(folder)])
    assert "left 1 files, 1.2 KiB, that a process has open" in capsys.readouterr().out
    assert held.values.shape == (N_ROWS, 1)
    with pytest.raises(UsageError, match="limit 'much'"):
        eviction.Cache(folder, "much")
    assert main(["cache", "clear", "--folder", str(folder), "--limit", "much"]) == 2


# Other systems


_WITHOUT = """
import logging, os, sys, warnings
import numpy as np, zstore
logging.disable()
from zstore.storage import locks
sys.modules["fcntl"] = locks._flock = None
for name in ("posix_fallocate", "preadv", "posix_fadvise", "getuid"):
    delattr(os, name)
warnings.simplefilter("error")
from pathlib import Path
store, cache = zstore.open_store(sys.argv[1]), zstore.Cache(Path(sys.argv[2]), 0)
expected = np.stack([store.read(name, 0, store.n_rows) for name in "uv"], axis=1)
for _ in range(2):
    rows = zstore.open_rows(store, ["u", "v"], zstore.Scaling.identity(2), cache)
    assert (rows.values == expected).all()
panel = zstore.open_panel(store, zstore.PanelGrid.of(store), ["u"], zstore.Scaling.identity(1), cache)
steps = np.empty((10, panel.width), np.float32)
panel.read(3, steps, None)
assert (steps == panel.rows().values[3:13]).all()
folder = cache.folder
with zstore.file_lock(folder / "a.lock") as held, zstore.file_lock(folder / "a.lock", wait=False) as twice:
    assert (held, twice) == (True, False)
del panel
print(len(zstore.cache_entries(folder)), zstore.verify_cache(folder)[0], zstore.clear_cache(folder)[0])
"""


def test_row_files_are_built_opened_and_evicted_without_what_only_linux_has(store: Store, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, store.path, str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["1", "1", "1"], "")
