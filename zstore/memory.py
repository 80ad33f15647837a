"""Memory that this process may use: that of the machine, or less where a container or a batch system allows less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

_ROOT = Path("/")


@dataclass(frozen=True)
class _Group:
    """What a control group of Linux allows its processes, in bytes.

    Parameters
    ----------
    limit
        Memory of all of them together.
    used
        What they have, without file pages that were not used lately: the system takes those back.
    """

    limit: int
    used: int


def total_memory(root: Path | None = None) -> int:
    """Bytes of memory that this process may use at most: those of the machine, or the limit of its control group.

    Parameters
    ----------
    root
        Folder that has ``proc`` and ``sys``; None for that of the system.
    """
    return min([int(psutil.virtual_memory().total), *(group.limit for group in _groups(root))])


def free_memory(root: Path | None = None) -> int:
    """Bytes of memory that this process may still take: those that the machine has, and its control group allows.

    Parameters
    ----------
    root
        Folder that has ``proc`` and ``sys``; None for that of the system.
    """
    left = (max(group.limit - group.used, 0) for group in _groups(root))
    return min([int(psutil.virtual_memory().available), *left])


def _groups(root: Path | None) -> Iterator[_Group]:
    """The control groups that have a limit, of this process and above, in both versions of them."""
    root = _ROOT if root is None else root
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits: Sequence[str] = ("memory.max", "memory.high")
            yield from _limited(root / "sys/fs/cgroup", path, limits, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount, limits = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes",)
            yield from _limited(mount, path, limits, "memory.usage_in_bytes", "total_inactive_file")


def _limited(mount: Path, path: str, limits: Sequence[str], usage: str, reclaimable: str) -> Iterator[_Group]:
    """The group at a path and those above it; a container may see its own at the top, whatever the path says."""
    inner = PurePosixPath(path.lstrip("/"))
    inner = PurePosixPath() if ".." in inner.parts else inner
    for below in (inner, *inner.parents) if inner.parts else (inner,):
        folder = mount / below
        known = [n_bytes for name in limits if (n_bytes := _number(folder / name)) is not None]
        used = _number(folder / usage)
        if known and used is not None:
            yield _Group(min(known), max(used - _from_statistics(folder / "memory.stat", reclaimable), 0))


def _number(path: Path) -> int | None:
    """The number in a file; None if it is not there, cannot be read, or says ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _from_statistics(path: Path, name: str) -> int:
    try:
        values = dict(line.split() for line in path.read_text().splitlines())
        return int(values.get(name, 0))
    except (OSError, ValueError):
        return 0
