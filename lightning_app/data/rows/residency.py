"""Where decoded rows live while training, and why there.

`host`: one memory-mapped row file, shared by every process of a machine. `device`: a copy in the memory of the device
that trains, where batches are gathered without leaving it. `stream`: a bounded pool, into which threads decode what is
needed next.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lightning_app.data.rows.fields import FieldPlace
from lightning_app.data.scaling.rowscaling import RowScaling
from zstore import UsageError, free_memory

logger = logging.getLogger(__name__)

Residency = Literal["auto", "device", "host", "stream"]
Place = Literal["device", "host", "stream"]

_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


_MOST = 0.9  # of the memory that is free: beyond that a fit ends with a process that is killed


@dataclass(frozen=True)
class Rows:
    """Decoded rows.

    Parameters
    ----------
    values
        (row, channel) float32; with `scaling` in source units and NaN where missing, else scaled and 0 where missing.
    observed
        (row, channel) bool, False where missing; None where nothing is.
    scaling
        To be applied to what is copied out of `values`; None where they are scaled and filled.
    ends
        (series,) int64 the row behind the last one of each series; empty where a row has all series of a panel.
    """

    values: Tensor
    observed: Tensor | None
    scaling: RowScaling | None = None
    ends: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def to(self, device: torch.device) -> Rows:
        """A scaled and filled copy in the memory of a device."""
        observed = None if self.observed is None else self.observed.to(device, copy=True)
        values = self.values.to(device, copy=True)
        if self.scaling is not None:
            self.scaling.to(device).scale_rows(values, self._series.to(device) if self.scaling.by_series else None)
        return Rows(values, observed)

    def delivered_to(self, device: torch.device) -> Rows:
        """The same rows where they are, with what scales copies of them on a device."""
        return replace(self, scaling=None if self.scaling is None else self.scaling.to(device))

    @property
    def _series(self) -> Tensor:
        """(row,) int64 the series of each row."""
        return torch.searchsorted(self.ends, torch.arange(len(self.values)), right=True)


@dataclass(frozen=True)
class Placement:
    """Where rows live.

    Parameters
    ----------
    place
        Of channels.
    limit
        Bytes that they may take there.
    fields
        By name, where the rows of fields live.
    pool
        Bytes that a pool of fields may take.
    """

    place: Place
    limit: int
    fields: Mapping[str, FieldPlace] = field(default_factory=dict)
    pool: int = 0

    @property
    def streamed_fields(self) -> list[str]:
        """Names of the fields that are in a pool."""
        return [name for name, place in self.fields.items() if place == "stream"]


@dataclass(frozen=True)
class Room:
    """Bytes that rows may take, of those that are free in some memory."""

    limit: int
    free: int
    name: str

    def __str__(self) -> str:
        return f"{self.limit / 1e9:.2f} GB of {self.free / 1e9:.2f} GB free in {self.name}"


def choose(
    wanted: Residency,
    n_rows: int,
    row_bytes: int,
    device: torch.device,
    budget: float | str,
    cache: Path,
    n_processes: int,
) -> Placement:
    """Where rows are to live; says so, and why, in one line of the log.

    Parameters
    ----------
    wanted
        What the user wants; ``auto`` leaves it to this function: ``device`` on a GPU if they fit there, else
        ``host`` if they fit into memory and on the disk of `cache`, else ``stream``.
    n_rows, row_bytes
        Size of the rows.
    device
        What trains.
    budget
        Of memory, that rows may take: a share of what is free, or a size such as ``8GiB``; at most 0.9 of what is free.
    cache
        Folder of row files.
    n_processes
        Processes of this machine, which share what `stream` may take.

    Raises
    ------
    UsageError
        If `device` is wanted and rows do not fit there.
    """
    n_bytes, gpu = n_rows * row_bytes, device.type == "cuda"
    on_device, on_host = (room(budget, device) if gpu or wanted == "device" else None), room(budget, None)
    for there in (on_device, on_host):
        if there is not None and (asked := parse_budget(budget, there.free)) > there.limit:
            logger.warning(f"memory budget of {asked / 1e9:.2f} GB: taking {there}, the most that rows may have")
    size = f"{n_bytes / 1e9:.2f} GB"
    if wanted == "device" and on_device is not None and n_bytes > on_device.limit:
        raise UsageError(
            f"rows of {size} in the memory of {device}",
            expected=f"at most {on_device}",
            fix="a larger --data.memory_budget, fewer --data.channels, or --data.residency host",
        )
    free = disk_free(cache)
    chosen: Place
    if wanted != "auto":
        chosen, why = wanted, "as told"
    elif on_device is not None and n_bytes <= on_device.limit:
        chosen, why = "device", f"they fit into {on_device}"
    elif n_bytes > on_host.limit:
        chosen, why = "stream", f"they do not fit into {on_host}"
    elif n_bytes > free:
        chosen, why = "stream", f"{cache} has {free / 1e9:.2f} GB free"
    else:
        chosen, why = "host", f"they fit into {on_host}" + (f", not into {on_device}" if on_device else ": no GPU")
    limit = on_device.limit if chosen == "device" and on_device is not None else on_host.limit // n_processes
    logger.info(f"{n_rows:,} rows of {row_bytes} bytes, {size}: residency {chosen}, for {why}")
    return Placement(chosen, limit)


def room(budget: float | str, device: torch.device | None) -> Room:
    """What a budget is of the memory of a GPU, or of this machine, that is free: nine tenths of it at most."""
    if device is not None and device.type == "cuda":
        free, name = torch.cuda.mem_get_info(device)[0], str(device)
    else:
        free, name = free_memory(), "RAM"
    return Room(min(parse_budget(budget, free), int(_MOST * free)), free, name)


def disk_free(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def parse_budget(budget: float | str, free: int) -> int:
    """Bytes from a share of what is free, or a size.

    Raises
    ------
    UsageError
        If it is neither.
    """
    text = str(budget).strip().lower()
    match = re.fullmatch(r"([0-9.]+)\s*([kmg]?i?b)?", text)
    try:
        number = float(match[1]) if match else -1.0
    except ValueError:
        number = -1.0
    if match is None or number <= 0 or (match[2] is None and number > 1):
        raise UsageError(
            f"memory budget {budget!r}",
            expected="a share such as 0.5, or a size such as 8GiB",
            fix="correct --data.memory_budget",
        )
    return int(number * (_SIZES[match[2]] if match[2] else free))
