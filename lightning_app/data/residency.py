"""Where decoded rows live while training. `host`: one memory-mapped row file, shared by every process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.scaler import Scaler
from zstore import Store, StoreError

logger = logging.getLogger(__name__)


def default_cache() -> Path:
    """``$ZSTORE_CACHE``, or ``zstore`` under the user's cache folder."""
    named = os.environ.get("ZSTORE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "zstore"


def host_rows(store: Store, scaler: Scaler, cache: Path) -> Tensor:
    """Scaled rows of a store, memory-mapped from a row file that is built on first use.

    Parameters
    ----------
    store
        Where rows come from.
    scaler
        Which channels, and how they are scaled.
    cache
        Folder of row files.

    Returns
    -------
    (row, channel) float32, NaN where missing. All processes of a machine share its pages.

    Raises
    ------
    StoreError
        If the file cannot be written.

    Notes
    -----
    Built under a lock beside its final name and renamed when whole, so a file that exists is complete.
    """
    shape = (store.n_rows, len(scaler.channels))
    if not store.n_rows:
        return torch.empty(shape)
    key = json.dumps([store.schema.uuid, store.version, scaler.to_json()])
    path = cache / f"rows-{hashlib.sha256(key.encode()).hexdigest()[:32]}.f4"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                _build(store, scaler, path, shape)
    except OSError as error:
        n_bytes = shape[0] * shape[1] * 4
        raise StoreError(
            f"cannot write the row file, {n_bytes:,} bytes ({error.strerror})",
            where=str(path),
            fix="free some space, or name another folder with --data.cache or ZSTORE_CACHE",
        ) from error
    # Copy-on-write: torch refuses read-only memory, and nothing here writes to it.
    return torch.from_numpy(np.memmap(path, np.float32, "c", shape=shape))


def _build(store: Store, scaler: Scaler, path: Path, shape: tuple[int, int]) -> None:
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * 4)
    rows = np.memmap(temporary, np.float32, "r+", shape=shape)
    store.decode(scaler.channels, rows, scaler.scale, scaler.offset)
    rows.flush()
    os.replace(temporary, path)
    logger.info("built the row file %s (%.1f MB)", path, rows.nbytes / 1e6)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
