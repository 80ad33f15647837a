"""The files of a cache folder that hold objects of buckets, each called by the digest of its bytes."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from zstore.reading.heldfile import HeldFile
from zstore.storage.locks import unused

FOLDER, SUFFIX = "objects", ".object"
_NAME = re.compile(r"([0-9a-f]{32})\.(?:object|partial)")  # what others have put there is not ours to remove


class ObjectFile(NamedTuple):
    """One of them, or what a process that fetches it has so far."""

    path: Path
    n_bytes: int
    used: float


def object_path(folder: Path, digest: str) -> Path:
    """Where an object lies in a cache folder."""
    return folder / FOLDER / f"{digest}{SUFFIX}"


def object_files(folder: Path) -> list[ObjectFile]:
    """Every object that a cache folder holds. Cost: a look at each."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder / FOLDER) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    used = min(state.st_mtime, time.time())  # a time to come counts as now
                    found.append(ObjectFile(Path(entry.path), state.st_size, used))
    return found


def remove_object(path: Path) -> int:
    """Remove an object, unless a process has it open or fetches it, and say how many bytes it had."""
    with suppress(OSError):
        if path.is_symlink():
            path.unlink()
            return 0
        with unused(path) as free:
            if free:
                n_bytes = path.stat().st_size
                path.unlink()
                return n_bytes
    return 0


def damaged_objects(folder: Path) -> tuple[int, list[ObjectFile]]:
    """How many objects there are, and those whose bytes are not those of their digest. Cost: all are read."""
    files = [each for each in object_files(folder) if each.path.suffix == SUFFIX]
    damaged = []
    for each in files:
        file = HeldFile.open(each.path)
        if file is not None and file.digest() != each.path.stem:
            damaged.append(each)
    return len(files), damaged
