"""Many files made durable at once: flushes wait for the disk, and a disk answers many of them together."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zstore.storage.beneath import flush

_FLUSHERS = 16  # a file system with a journal writes it once for all flushes that wait for it
_SHARE = 64  # paths of one task: handing over a path costs as much as flushing it on a quick disk

Beneath = tuple[Path, tuple[str, ...]]
"""A folder, and the parts of a path below it, of which none may be a link."""


def flush_all(paths: Collection[Beneath]) -> None:
    """Let files, and the names in folders, reach the disk, in any order.

    Parameters
    ----------
    paths
        Files and folders; each is flushed once.

    Raises
    ------
    OSError
        The first failure. Some of the others may be durable then, and nothing may rely on that.
    """
    distinct = list(dict.fromkeys(paths))
    n_threads = min(_FLUSHERS, len(distinct))
    if n_threads < 2:
        _flush_some(distinct)
        return
    size = min(_SHARE, -(-len(distinct) // n_threads))
    shares = [distinct[first : first + size] for first in range(0, len(distinct), size)]
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(_flush_some, shares):
            pass


def _flush_some(paths: list[Beneath]) -> None:
    for base, parts in paths:
        flush(base, parts)
