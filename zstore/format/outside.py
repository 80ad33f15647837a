"""Where files may be written: nowhere inside a store, whose next writer would take them for what a dead one left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zstore.errors import UsageError
from zstore.format.commit import is_store
from zstore.format.layout import MARKER, ROOT
from zstore.storage.folder import Folder
from zstore.storage.paths import check_path
from zstore.storage.urls import is_remote


def check_outside(path: str | Path, what: str, follow: bool = True, beside: Sequence[str | Path] = ()) -> None:
    """Refuse a file or folder inside a store.

    Parameters
    ----------
    path
        What is to be written; it need not be there. URLs are not looked at.
    what
        What it is, for messages.
    follow
        Whether what a link leads to is written, and not replaced.
    beside
        Stores that need not be there yet, which it may neither be nor lie in.

    Raises
    ------
    UsageError
        If it lies inside a store, which would be damaged, or whose next writer may remove it; or has a NUL in it.
    """
    check_path(path, what)
    if is_remote(path):
        return
    real = Path(path).resolve() if follow else Path(path).parent.resolve() / Path(path).name
    stores = [Path(store).resolve() for store in beside if not is_remote(store)]
    if real in stores:
        raise UsageError(f"{what} {path}, which is the store", expected="another place", fix="choose one outside of it")
    for folder in real.parents:
        if folder in stores or (folder / MARKER).is_file() or ((folder / ROOT).is_file() and is_store(Folder(folder))):
            raise UsageError(f"{what} {path}, inside the store {folder}", fix="choose a place outside of it")
