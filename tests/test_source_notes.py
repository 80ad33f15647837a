"""Files that a store has, and that are as they were, are not read again by an append; nothing else is believed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import stored
from hdf5files import session

import zstore
from zstore import SourceError
from zstore.cli import main
from zstore.format.manifest import ObjectRecord
from zstore.reading.eviction import cache_folder
from zstore.storage.urls import open_storage
from zstore.writing.source_notes import SourceNotes
from zstore.writing.sources.files import expand

TICK_S = 0.06
"""Longer than any tick of a clock: a file that was changed just now is not noted."""


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three sessions of 1 MB, and a cache of their own."""
    monkeypatch.setenv("ZSTORE_CACHE", str(tmp_path / "cache"))
    for n in range(3):
        session(tmp_path / f"s{n}.h5", n_rows=8000, seed=n)
    time.sleep(TICK_S)
    return tmp_path


def ingest(folder: Path, *options: str) -> int:
    words = ["ingest", str(folder / "*.h5"), str(folder / "s.zarr"), "--mapping", "emg2pose", "--quiet", *options]
    return main(words)


def bytes_read(function: Callable[[], object]) -> int:
    """Bytes that this process reads meanwhile, of files in the page cache too."""
    if not Path("/proc/self/io").exists():
        pytest.skip("this system does not count what is read")

    def count() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = count()
    function()
    return count() - before


def note(folder: Path) -> Path:
    (found,) = (folder / "cache/sources").glob("*.json")
    return found


def test_the_same_command_with_one_more_session_reads_that_session_alone(sessions: Path) -> None:
    assert ingest(sessions) == 0
    known = sum(path.stat().st_size for path in sessions.glob("*.h5"))
    assert ingest(sessions, "--append") == 0  # with all that it imports
    nothing_new = bytes_read(lambda: ingest(sessions, "--append"))
    session(sessions / "s3.h5", n_rows=300, seed=3)
    one_more = bytes_read(lambda: ingest(sessions, "--append"))
    assert nothing_new < known / 2
    assert one_more - nothing_new < known / 2
    assert [str(id_) for id_ in zstore.open_store(sessions / "s.zarr").ids] == ["s0", "s1", "s2", "s3"]


def test_files_without_a_note_are_read_once_and_noted(sessions: Path) -> None:
    assert ingest(sessions) == 0
    known = sum(path.stat().st_size for path in sessions.glob("*.h5"))
    note(sessions).unlink()
    assert bytes_read(lambda: ingest(sessions, "--append")) > known
    assert bytes_read(lambda: ingest(sessions, "--append")) < known / 2


def test_a_file_that_was_edited_is_refused_though_its_size_and_time_are_as_before(sessions: Path) -> None:
    assert ingest(sessions) == 0
    before = (sessions / "s1.h5").stat()
    content = bytearray((sessions / "s1.h5").read_bytes())
    content[-100] ^= 1
    (sessions / "s1.h5").write_bytes(content)
    os.utime(sessions / "s1.h5", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceError, match="changed after its rows were taken"):
        zstore.append(sessions / "*.h5", sessions / "s.zarr")


def test_files_that_were_copied_are_read_and_known(sessions: Path) -> None:
    assert ingest(sessions) == 0
    for path in sessions.glob("*.h5"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert zstore.append(sessions / "*.h5", sessions / "s.zarr") is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": ["b", "c"]}', b"\xff", b"[" * 100_000])
def test_what_is_no_note_is_no_reason_to_fail(sessions: Path, content: bytes) -> None:
    assert ingest(sessions) == 0
    note(sessions).write_bytes(content)
    assert zstore.append(sessions / "*.h5", sessions / "s.zarr") is None


def test_a_wrong_digest_in_a_note_takes_no_row_for_another(sessions: Path) -> None:
    assert ingest(sessions) == 0
    digests = [record.digest for record in zstore.open_store(sessions / "s.zarr").ledger]
    note(sessions).write_text(note(sessions).read_text().replace(digests[0], "0" * 32))
    with pytest.raises(SourceError, match="changed after its rows were taken"):
        zstore.append(sessions / "*.h5", sessions / "s.zarr")


def test_a_file_that_was_changed_just_before_it_was_read_is_not_noted(sessions: Path) -> None:
    files = expand([sessions / "*.h5"])
    records = [ObjectRecord(str(file), file.n_bytes, "0" * 32) for file in files]
    changed_ns = min(path.stat().st_ctime_ns for path in sessions.glob("*.h5"))
    notes = SourceNotes.of(open_storage(sessions / "s.zarr"), None)
    for began_ns, n_known in ((changed_ns, 0), (changed_ns + 10**10, 3)):
        noted = notes.with_files(files, records, began_ns)
        assert sum(noted.digest_of(file) is not None for file in files) == n_known


def test_ids_by_another_pattern_have_notes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSTORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a1.csv").write_text("t,v\n0,1\n1,2\n")
    time.sleep(TICK_S)
    for pattern in (r"(a)1\.csv", r"(a1)\.csv"):
        zstore.ingest(tmp_path / "a1.csv", tmp_path / "s.zarr", time="t", id_from_path=pattern, overwrite=True)
        assert zstore.append(tmp_path / "a1.csv", tmp_path / "s.zarr") is None
    assert len(list((tmp_path / "cache/sources").iterdir())) == 2


def test_a_cache_that_cannot_be_written_to_changes_nothing_but_a_line_of_the_log(
    sessions: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert ingest(sessions) == 0
    (sessions / "file").write_text("")
    monkeypatch.setenv("ZSTORE_CACHE", str(sessions / "file"))
    with caplog.at_level(logging.INFO):
        zstore.ingest(sessions / "*.h5", sessions / "t.zarr", mapping="emg2pose")
        assert zstore.append(sessions / "*.h5", sessions / "t.zarr") is None
    assert "cannot be noted" in caplog.text
    assert stored(sessions / "s.zarr") == stored(sessions / "t.zarr")
    assert cache_folder() == sessions / "file"
