"""A run that was killed while it wrote fields is gone on with: what it has written of payloads is not read again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_GRID, stored, write_table
from hdf5files import aloha
from payload_files import image, npy, voxels

import zstore
from zstore.format.layout import SCRATCH
from zstore.writing.referred import StoredPayloads
from zstore.writing.sources.hdf5 import fields as hdf5_fields
from zstore.writing.sources.named_files.reader import FileReader

DYING = """
import json, os, sys
import zstore, zstore.writing.pipeline as pipeline
pipeline.sum_up = lambda *_: os._exit(9)  # once all shards are written
verb, sources, store, options = sys.argv[1:5]
getattr(zstore, verb)(json.loads(sources), store, **json.loads(options))
"""

N_ROWS = 40
MOST_AGAIN = 2 * 1024**2 // (100 * 400 * 3) + 1
"""Images of the sample of 2 MiB that tells how they are encoded."""


DYING_COMPACT = """
import os, sys
import zstore, zstore.writing.pipeline as pipeline
pipeline.sum_up = lambda *_: os._exit(9)
zstore.compact(sys.argv[1])
"""


def die_compacting(python: str, store: Path) -> None:
    done = subprocess.run([python, "-c", DYING_COMPACT, str(store)], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


def die(python: str, verb: str, sources: Any, store: Path, options: dict[str, Any]) -> None:
    words = [python, "-c", DYING, verb, json.dumps(sources), str(store), json.dumps(options)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files of which payloads are read."""
    found: list[str] = []
    one, episode = FileReader._one, hdf5_fields._rows

    def noted(self: FileReader, kind: str, name: str) -> Any:
        found.append(name)
        return one(self, kind, name)

    def rows(data: Any, positions: Any) -> Any:
        found.extend(f"{data.path} {position}" for position in positions)
        return episode(data, positions)

    plain = FileReader.read

    def arrays(self: FileReader, holder: str, positions: Any) -> Any:
        if holder.endswith(".npy"):
            found.append(holder)
        return plain(self, holder, positions)

    monkeypatch.setattr(FileReader, "_one", noted)
    monkeypatch.setattr(FileReader, "read", arrays)
    monkeypatch.setattr(hdf5_fields, "_rows", rows)
    return found


def table(folder: Path, name: str, n_rows: range, ending: str = ".png") -> str:
    rows = [[f"p{n % 3}", f"2020-01-{n // 3 + 1:02d}", n, f"im{n}{ending}"] for n in n_rows]
    return str(write_table(folder / name, ["id", "date", "age", "path"], rows))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for n in range(N_ROWS + 20):
        image(tmp_path / f"im{n}.png", voxels((100, 400, 3), np.uint8, seed=n))
    return tmp_path


def naming(folder: Path, **more: Any) -> dict[str, Any]:
    usual = {"id": "id", "time": "date", "file": {"image": "path"}, "file_root": str(folder)}
    return {**usual, **SMALL_GRID, "workers": 1, **more}


def resumed(python: str, folder: Path, verb: str, sources: Any, options: dict[str, Any], reads: list[str]) -> list[str]:
    """Compare a run that was killed, and then went on, with one that was not; returns what it read again."""
    getattr(zstore, verb)(sources, folder / "whole.zarr", **options)
    die(python, verb, sources, folder / "s.zarr", options)
    reads.clear()
    getattr(zstore, verb)(sources, folder / "s.zarr", **options)
    assert stored(folder / "s.zarr") == stored(folder / "whole.zarr")
    assert sorted(path.name for path in folder.glob(".*")) == []
    assert sorted(path.name for path in (folder / "s.zarr").glob(".*")) == []
    return list(reads)


def test_images_that_are_in_the_store_are_not_read_again(pictures: Path, reads: list[str], python: str) -> None:
    again = resumed(python, pictures, "ingest", table(pictures, "a.csv", range(N_ROWS)), naming(pictures), reads)
    assert len(again) <= MOST_AGAIN


def test_a_store_that_is_overwritten_goes_on_too(pictures: Path, reads: list[str], python: str) -> None:
    for name in ("s.zarr", "whole.zarr"):
        zstore.ingest(table(pictures, "old.csv", range(5)), pictures / name, **naming(pictures))
    options = naming(pictures, overwrite=True)
    source = table(pictures, "a.csv", range(N_ROWS))
    zstore.ingest(source, pictures / "whole.zarr", **options)
    die(python, "ingest", source, pictures / "s.zarr", options)
    assert zstore.open_store(pictures / "s.zarr").n_rows == 5
    reads.clear()
    zstore.ingest(source, pictures / "s.zarr", **options)
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")
    assert len(reads) <= MOST_AGAIN


def test_bytes_of_images_that_are_in_the_store_are_not_read_again(
    pictures: Path, reads: list[str], python: str
) -> None:
    options = naming(pictures, keep_encoded=["image"])
    assert resumed(python, pictures, "ingest", table(pictures, "a.csv", range(N_ROWS)), options, reads) == []


def test_an_append_goes_on_from_its_images(pictures: Path, reads: list[str], python: str) -> None:
    for name in ("s.zarr", "whole.zarr"):
        zstore.ingest(table(pictures, "a.csv", range(N_ROWS)), pictures / name, **naming(pictures))
    assert (
        resumed(python, pictures, "append", table(pictures, "b.csv", range(N_ROWS, N_ROWS + 20)), {"workers": 1}, reads)
        == []
    )
    assert zstore.verify(zstore.open_store(pictures / "s.zarr")).faults == ()


def test_what_another_append_has_written_is_removed_and_not_taken(pictures: Path, python: str) -> None:
    for name in ("s.zarr", "whole.zarr"):
        zstore.ingest(table(pictures, "a.csv", range(N_ROWS)), pictures / name, **naming(pictures))
    die(python, "append", table(pictures, "b.csv", range(N_ROWS, N_ROWS + 20)), pictures / "s.zarr", {})
    for name in ("s.zarr", "whole.zarr"):
        zstore.append(table(pictures, "c.csv", range(N_ROWS, N_ROWS + 2)), pictures / name)
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")
    die(python, "append", table(pictures, "b.csv", range(N_ROWS + 2, N_ROWS + 20)), pictures / "s.zarr", {})
    assert zstore.append(table(pictures, "c.csv", range(N_ROWS, N_ROWS + 2)), pictures / "s.zarr") is None
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")
    die(python, "append", table(pictures, "b.csv", range(N_ROWS + 2, N_ROWS + 20)), pictures / "s.zarr", {})
    for name in ("s.zarr", "whole.zarr"):
        zstore.compact(pictures / name)
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")


@pytest.fixture
def stored_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many payloads of a store are read together, each time."""
    found: list[int] = []
    read = StoredPayloads.read

    def noted(self: StoredPayloads, holder: str, positions: Any) -> Any:
        found.append(len(positions))
        return read(self, holder, positions)

    monkeypatch.setattr(StoredPayloads, "read", noted)
    return found


def appended(folder: Path, name: str, **more: Any) -> Path:
    """A store whose rows lie in two extents a series."""
    zstore.ingest(table(folder, "a.csv", range(N_ROWS)), folder / name, **naming(folder, **more))
    zstore.append(table(folder, "b.csv", range(N_ROWS, N_ROWS + 20)), folder / name)
    return folder / name


@pytest.mark.parametrize("more", [{}, {"keep_encoded": ["image"]}], ids=["arrays", "bytes"])
def test_a_store_that_was_being_compacted_goes_on_from_its_images(
    pictures: Path, stored_reads: list[int], more: dict[str, Any], python: str
) -> None:
    whole, store = appended(pictures, "whole.zarr", **more), appended(pictures, "s.zarr", **more)
    zstore.compact(whole)
    assert sum(stored_reads) >= N_ROWS + 20
    die_compacting(python, store)
    stored_reads.clear()
    assert zstore.compact(store).version == 3
    assert stored_reads == []
    assert stored(store) == stored(whole)
    assert not list(store.glob(".*"))


def test_a_store_that_was_appended_to_since_it_was_being_compacted_is_compacted_anew(
    pictures: Path, stored_reads: list[int], python: str
) -> None:
    whole, store = appended(pictures, "whole.zarr"), appended(pictures, "s.zarr")
    die_compacting(python, store)
    image(pictures / "new.png", voxels((100, 400, 3), np.uint8, seed=99))
    later = str(write_table(pictures / "c.csv", ["id", "date", "age", "path"], [["p0", "2021-01-01", 1, "new.png"]]))
    for path in (store, whole):
        zstore.append(later, path)
        assert not list(path.glob(".*"))
        stored_reads.clear()
        zstore.compact(path)
        assert sum(stored_reads) >= N_ROWS + 21
    assert stored(store) == stored(whole)
    assert zstore.verify(zstore.open_store(store)).faults == ()


@pytest.mark.parametrize("what", ["shard", "note"])
def test_what_was_damaged_since_a_compaction_was_killed_is_written_again(
    pictures: Path, what: str, python: str
) -> None:
    whole, store = appended(pictures, "whole.zarr"), appended(pictures, "s.zarr")
    kept = {key for key in stored(store) if key.startswith("image/c/")}
    zstore.compact(whole)
    die_compacting(python, store)
    new = sorted(key for key in stored(store) if key.startswith("image/c/") and key not in kept)
    _cut(store / new[1] if what == "shard" else sorted((store / SCRATCH).glob("objects-*.note"))[0])
    zstore.compact(store)
    assert stored(store) == stored(whole)


def test_images_of_hdf5_are_not_read_again(tmp_path: Path, reads: list[str], python: str) -> None:
    for n in range(3):
        aloha(tmp_path / f"{n}.hdf5", n_rows=30, seed=n, compress=True)
    sources = [str(path) for path in sorted(tmp_path.glob("*.hdf5"))]
    assert resumed(python, tmp_path, "ingest", sources, {"mapping": "aloha", **SMALL_GRID}, reads) == []


@pytest.mark.parametrize("last", [0.5, 7.0])
def test_floats_that_looked_like_bytes_are_not_read_again_either(
    tmp_path: Path, reads: list[str], last: float, python: str
) -> None:
    for n in range(N_ROWS):
        values = voxels((200, 300), np.float32, seed=n)
        values[0, 0] = last if n == N_ROWS - 1 else 3
        npy(tmp_path / f"im{n}.npy", values)
    again = resumed(
        python, tmp_path, "ingest", table(tmp_path, "a.csv", range(N_ROWS), ".npy"), naming(tmp_path), reads
    )
    assert len(again) <= 2 * 1024**2 // (200 * 300 * 4) + 1


def test_rows_that_were_left_out_are_not_looked_for_again(pictures: Path, reads: list[str], python: str) -> None:
    for n in (17, 31, 39):
        (pictures / f"im{n}.png").unlink()
    options = naming(pictures, on_bad_row="quarantine", keep_encoded=["image"])
    source = table(pictures, "a.csv", range(N_ROWS))
    assert resumed(python, pictures, "ingest", source, options, reads) == []
    told = [(pictures / f"{name}.zarr.quarantine.csv").read_text() for name in ("s", "whole")]
    assert told[0] == told[1]
    assert told[0].count("not there") == 3


def test_notes_that_others_wrote_keep_or_remove_nothing_but_shards_that_no_version_needs(
    pictures: Path, python: str
) -> None:
    for name in ("s.zarr", "whole.zarr"):
        zstore.ingest(table(pictures, "a.csv", range(N_ROWS)), pictures / name, **naming(pictures))
    die(python, "append", table(pictures, "b.csv", range(N_ROWS, N_ROWS + 20)), pictures / "s.zarr", {})
    keys = [*stored(pictures / "whole.zarr"), "zarr.json", "../a.csv", "/etc/passwd", "image/c/../../x", 7, None]
    note = pictures / "s.zarr" / SCRATCH / "objects-crafted.note"
    note.write_text(json.dumps({"records": [[key, 1, "0" * 32] for key in keys]}))
    for name in ("s.zarr", "whole.zarr"):
        zstore.append(table(pictures, "c.csv", range(N_ROWS, N_ROWS + 2)), pictures / name)
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")
    assert (pictures / "a.csv").exists()
    assert zstore.verify(zstore.open_store(pictures / "s.zarr")).faults == ()


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("another file", lambda folder: image(folder / "im7.png", voxels((100, 400, 3), np.uint8, seed=99))),
    ("a shard cut", lambda folder: _cut(folder / "s.zarr/image/c/1/0/0/0")),
    ("a shard gone", lambda folder: (folder / "s.zarr/image/c/1/0/0/0").unlink()),
    ("a note cut", lambda folder: _cut(sorted((folder / "s.zarr" / SCRATCH).glob("objects-*.note"))[0])),
]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_what_has_changed_since_the_kill_is_read_again(
    pictures: Path, what: str, change: Callable[[Path], object], python: str
) -> None:
    source, options = table(pictures, "a.csv", range(N_ROWS)), naming(pictures)
    die(python, "ingest", source, pictures / "s.zarr", options)
    change(pictures)
    zstore.ingest(source, pictures / "s.zarr", **options)
    zstore.ingest(source, pictures / "whole.zarr", **options)
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")


def test_a_file_that_is_good_again_since_the_kill_is_not_left_out(pictures: Path, python: str) -> None:
    content = (pictures / "im7.png").read_bytes()
    (pictures / "im7.png").write_bytes(content[:-50])
    source, options = table(pictures, "a.csv", range(N_ROWS)), naming(pictures, on_bad_row="quarantine")
    die(python, "ingest", source, pictures / "s.zarr", options)
    (pictures / "im7.png").write_bytes(content)
    assert zstore.ingest(source, pictures / "s.zarr", **options).n_quarantined == 0
    zstore.ingest(source, pictures / "whole.zarr", **options)
    assert stored(pictures / "s.zarr") == stored(pictures / "whole.zarr")
