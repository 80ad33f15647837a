"""Where decoded rows live while training. `host`: one memory-mapped row file, shared by every process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.scaler import Scaler
from zstore import Store, StoreError

logger = logging.getLogger(__name__)

_LAYOUT = 2  # of row files


def default_cache() -> Path:
    """``$ZSTORE_CACHE``, or ``zstore`` under the user's cache folder."""
    named = os.environ.get("ZSTORE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "zstore"


@dataclass(frozen=True)
class Rows:
    """Decoded rows, scaled and filled.

    Parameters
    ----------
    values
        (row, channel) float32; 0 where missing.
    observed
        (row, channel) bool, False where missing; None where nothing is.
    """

    values: Tensor
    observed: Tensor | None


def host_rows(store: Store, scaler: Scaler, cache: Path) -> Rows:
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
    The rows. All processes of a machine share their pages.

    Raises
    ------
    StoreError
        If the file cannot be written.

    Notes
    -----
    Values, then, if any is missing, which are observed. Built under a lock beside its final name and renamed when
    whole, so a file that exists is complete.
    """
    shape = (store.n_rows, len(scaler.channels))
    n_missing = store.moments.n_missing.sum(axis=0)[[store.channels.index(name) for name in scaler.channels]]
    masked = bool(n_missing.any())
    if not store.n_rows:
        return Rows(torch.empty(shape), None)
    key = json.dumps([_LAYOUT, store.schema.uuid, store.version, scaler.to_json()])
    path = cache / f"rows-{hashlib.sha256(key.encode()).hexdigest()[:32]}.f4"
    n_bytes = shape[0] * shape[1] * (5 if masked else 4)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                _build(store, scaler, path, shape, n_bytes)
    except OSError as error:
        raise StoreError(
            f"cannot write the row file, {n_bytes:,} bytes ({error.strerror})",
            where=str(path),
            fix="free some space, or name another folder with --data.cache or ZSTORE_CACHE",
        ) from error
    # Copy-on-write: torch refuses read-only memory, and nothing here writes to it.
    values, observed = _mapped(path, shape, masked, "c")
    return Rows(torch.from_numpy(values), None if observed is None else torch.from_numpy(observed))


def _mapped(
    path: Path, shape: tuple[int, int], masked: bool, mode: Literal["c", "r+"]
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    values = np.memmap(path, np.float32, mode, shape=shape)
    return values, np.memmap(path, np.bool_, mode, values.nbytes, shape) if masked else None


def _build(store: Store, scaler: Scaler, path: Path, shape: tuple[int, int], n_bytes: int) -> None:
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes)
    values, observed = _mapped(temporary, shape, n_bytes > 4 * shape[0] * shape[1], "r+")
    if observed is not None:
        observed[:] = True
    store.decode(scaler.channels, values, scaler.scale, scaler.offset, observed)
    for mapped in (values, observed):
        if isinstance(mapped, np.memmap):
            mapped.flush()
    os.replace(temporary, path)
    logger.info("built the row file %s (%.1f MB)", path, n_bytes / 1e6)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
