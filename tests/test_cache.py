"""The cache folder: what of it is taken for whole, and its command."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from caches import N_ROWS, path_of, row_file, rows_of, small_store, unused_for, values_of

from zstore import (
    PanelGrid,
    Scaling,
    Store,
    StoreError,
    UsageError,
    cache_entries,
    open_panel,
    verify_cache,
)
from zstore.cli import main
from zstore.reading import cached, eviction, heldfile, rownotes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("store"))


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
