"""Have the files of a public data set in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from zstore.errors import UsageError
from zstore.format.outside import check_outside
from zstore.progress import Report
from zstore.published.catalog import DATASETS
from zstore.published.download import Brought, bring


def fetch(
    name: str, folder: str | Path = "data", mirror: str | None = None, progress: Report | None = None
) -> list[Path]:
    """Have the files of a public data set in a folder.

    Parameters
    ----------
    name
        Of the data set. One of ``DATASETS``.
    folder
        Where its files go. Made if it is not there.
    mirror
        Folder, or the address of one, that has the files; None for ``$ZSTORE_MIRROR``, or where they are published. By
        the same names.
    progress
        Called with bytes done and in all.

    Returns
    -------
    Their paths, and those of tables that were written beside them. What is there already, and whole, is left as it is.

    Raises
    ------
    UsageError
        If there is no such data set, or the folder has another file of the same name.
    SourceError
        If a file cannot be had, or is not the one that was published. Nothing is left of it.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise UsageError(f"data set {name!r}", expected=f"one of {', '.join(DATASETS)}")
    mirror = mirror or os.environ.get("ZSTORE_MIRROR")
    total, done, found = sum(file.n_bytes for file in dataset.files), 0, []
    check_outside(folder, "--to")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in dataset.files:
        path = Path(folder) / file.path
        if not path.exists():
            bring(file, Path(folder), mirror, Brought(progress, name, done, file.n_bytes, total))
        elif not file.is_at(path):
            raise UsageError(f"{path} is not what was published", expected=f"sha256 {file.sha256}", fix="another --to")
        done += file.n_bytes
        if progress is not None:
            progress(name, done, total, "bytes")
        found.append(path)
    return found if dataset.prepare is None else found + dataset.prepare(Path(folder))
