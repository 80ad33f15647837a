"""The note beside each row file: what the file holds, its digest, and how to know it again without reading it."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zstore.errors import StoreError
from zstore.reading.heldfile import HeldFile

SUFFIX = ".f4"
_MOST_NOTE_BYTES = 1 << 24
_NEEDS = {"store": str, "version": int, "channels": list, "n_rows": int, "n_bytes": int, "digest": str}


@dataclass(frozen=True)
class CacheEntry:
    """One file of a cache folder.

    Parameters
    ----------
    path
        The file.
    store, version
        Where its values come from, as it was named when the file was built.
    channels
        Its columns.
    n_rows, n_bytes
        Its size.
    digest
        xxh3-128 of its bytes.
    used
        Seconds since 1970 when it was last opened.
    """

    path: str
    store: str
    version: int
    channels: tuple[str, ...]
    n_rows: int
    n_bytes: int
    digest: str
    used: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class FileState:
    """What the system says of a file that was looked at whole; something of it differs once the file was changed.

    Parameters
    ----------
    n_bytes
        Its size: another one where it was cut off.
    inode
        Its number in the file system: another one where it was copied or replaced.
    mtime_ns
        When its bytes last changed, in nanoseconds since 1970. Only compared, so clocks may go back.
    ctime_ns
        When anything about it last changed, which nobody can set: it tells of an edit that put `mtime_ns` back.
    """

    n_bytes: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, file: HeldFile) -> FileState:
        """Of an open file."""
        status = file.status
        return cls(status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class RowNote:
    """What stands beside a row file.

    Parameters
    ----------
    entry
        What the file holds.
    state
        Of the file when its bytes were last compared with the digest; None if the note does not say.
    boot
        Since which start of the system the bytes may be in memory alone, see :func:`boot_id`; None if they are surely
        on the disk.
    """

    entry: CacheEntry
    state: FileState | None
    boot: str | None

    def write(self) -> None:
        """Put it beside its file, whole or not at all."""
        document: dict[str, Any] = asdict(self.entry) | {"name": Path(self.entry.path).name}
        document |= {"state": None if self.state is None else asdict(self.state), "boot": self.boot}
        document = {name: value for name, value in document.items() if name not in ("path", "used")}
        path = note_path(Path(self.entry.path))
        temporary = partial_path(path)
        try:
            temporary.write_text(json.dumps(document))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def note_path(path: Path) -> Path:
    """Where the note of a row file is."""
    return path.with_suffix(".json")


def lock_path(path: Path) -> Path:
    """Where the lock is that a builder of a row file holds."""
    return path.with_suffix(".lock")


def partial_path(path: Path) -> Path:
    """A name beside a file that no other process takes, for what is not whole yet."""
    return path.with_name(f"{path.stem}.{uuid.uuid4().hex[:12]}.partial")


def read_note(path: Path) -> RowNote | None:
    """The note of a row file; None if it has none, or what is there is none of ours."""
    file = HeldFile.open(note_path(path))
    if file is None or file.status.st_size > _MOST_NOTE_BYTES:
        return None
    refuse_stranger(file)
    content, used = memoryview(bytearray(file.status.st_size)), file.status.st_mtime
    try:
        document = json.loads(bytes(content[: file.read_into(content, 0)]))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("name") != path.name:
        return None
    if not all(type(document.get(name)) is kind for name, kind in _NEEDS.items()):
        return None
    if not all(isinstance(name, str) for name in document["channels"]):
        return None
    known = {name: document[name] for name in _NEEDS} | {"channels": tuple(document["channels"])}
    boot = document.get("boot", "")  # of an older note: no start that was ever
    return RowNote(CacheEntry(path=str(path), **known, used=used), _state(document.get("state")), boot)


def _state(document: Any) -> FileState | None:
    names = ("n_bytes", "inode", "mtime_ns", "ctime_ns")
    if not isinstance(document, Mapping) or not all(type(document.get(name)) is int for name in names):
        return None
    return FileState(*(document[name] for name in names))


def refuse_stranger(file: HeldFile) -> None:
    """Refuse a file of another user in a folder that everybody may write to: a digest tells damage, not who wrote it.

    Raises
    ------
    StoreError
        If it is one.
    """
    if not hasattr(os, "getuid"):
        return
    path, owner = file.path, file.status.st_uid
    if owner in (os.getuid(), 0) or not path.parent.stat().st_mode & stat.S_IWOTH:
        return
    raise StoreError(
        f"{path.name} belongs to another user (number {owner}), in a folder that everybody may write to",
        expected="a file of your own, or a folder that only people you trust may write to",
        where=str(path),
        fix="name another folder with --data.cache or ZSTORE_CACHE, or take away the right of others (chmod o-w)",
    )


def boot_id() -> str | None:
    """What names the start of the system that we live in; None where nothing does.

    What a process wrote is seen by all others at once, but is on the disk only later; a power cut in between leaves a
    file that is whole by all that the file system says, and is not. It also ends what this names.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def is_known(file: HeldFile, note: RowNote) -> bool:
    """Whether an open row file is what its note says: by its state, or, where that has changed, by all its bytes.

    A file whose bytes are right is known by its new state from then on.
    """
    state = FileState.of(file)
    if state.n_bytes != note.entry.n_bytes:
        return False
    if state == note.state and (note.boot is None or note.boot == boot_id()):
        return True
    if file.digest() != note.entry.digest or FileState.of(file) != state:
        return False
    with suppress(OSError):  # a folder that may only be read: bytes are compared each time
        os.fsync(file.descriptor)
        if os.stat(note.entry.path).st_ino == state.inode:
            RowNote(note.entry, state, None).write()
    return True


def remember_use(path: Path) -> None:
    """Note that a row file is used now."""
    with suppress(OSError):  # a folder that may only be read, or a file of another user
        os.utime(note_path(path))
