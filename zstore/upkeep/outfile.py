"""Files that users ask for: written aside, and in their place only once they are whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zstore.errors import StoreError, UsageError
from zstore.format.outside import check_outside
from zstore.storage.paths import check_path
from zstore.storage.urls import is_remote


def check_place(path: str | Path, what: str, follow: bool = False, beside: Sequence[str | Path] = ()) -> None:
    """Refuse to write where nothing may be written.

    Parameters
    ----------
    path
        File or folder to write.
    what
        What is written, for messages.
    follow
        Whether what a link leads to is written, and not replaced.
    beside
        Stores that need not be there yet, which it may neither be nor lie in.

    Raises
    ------
    UsageError
        If it lies in a bucket, or inside a store, which would be damaged; or has a NUL in it.
    StoreError
        If its folder is not there.
    """
    check_path(path, f"{what} to")
    target = Path(path)
    if is_remote(path) or target.parts[:1] in (("s3:",), ("gs:",), ("az:",)):  # as a path that was a URL
        raise UsageError(f"{what} to {path}", expected="a file on this machine", fix="write it here, then copy it")
    if not target.parent.is_dir():
        raise StoreError(f"cannot write {target}, whose folder is not there", fix=f"make {target.parent} first")
    check_outside(target, f"{what} to", follow, beside)


def check_target(path: str | Path, what: str, endings: Sequence[str] = ()) -> None:
    """Refuse a file that cannot be meant, before the work for it is done.

    Parameters
    ----------
    path, what, endings
        As for :func:`whole_file`.

    Raises
    ------
    UsageError, StoreError
        As :func:`check_place`; if it has another ending, or is a folder.
    """
    target = Path(path)
    check_place(path, what)
    if endings and target.suffix not in endings:
        expected = f"a file ending in {' or '.join(endings)}"
        raise UsageError(f"{what} to {target}", expected=expected, fix="choose such a name")
    if target.is_dir():
        raise UsageError(f"{what} to {target}, which is a folder", fix="name a file in it")


@contextmanager
def whole_file(path: str | Path, what: str, endings: Sequence[str] = ()) -> Iterator[Path]:
    """Give a path to write to; what was written replaces `path` at the end, and nothing does after an error.

    Parameters
    ----------
    path
        The file. Where it is a link, the link is replaced, and what it leads to stays.
    what
        What is written, for messages.
    endings
        Those that it may have, such as ``.csv``; empty for any.

    Raises
    ------
    UsageError
        As :func:`check_target`.
    StoreError
        If it cannot be written.
    """
    target = Path(path)
    check_target(path, what, endings)
    temporary = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise StoreError(
            f"cannot write {target} ({error.strerror or error})", fix="free some space or check the permissions"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
