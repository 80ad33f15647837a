"""Where decoded rows live while training, and why there.

`host`: one memory-mapped row file, shared by every process of a machine. `device`: a copy in the memory of the device
that trains, where batches are gathered without leaving it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor

from lightning_app.data.scaler import Scaler
from zstore import Store, UsageError, open_rows

logger = logging.getLogger(__name__)

Residency = Literal["auto", "device", "host"]

_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_MASKED_BYTES = 5  # of a value, and whether it was observed


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

    def to(self, device: torch.device) -> Rows:
        """A copy in the memory of a device."""
        observed = None if self.observed is None else self.observed.to(device, copy=True)
        return Rows(self.values.to(device, copy=True), observed)


def host_rows(store: Store, scaler: Scaler, cache: Path) -> Rows:
    """Scaled rows of a store from its row file, see :func:`zstore.open_rows`.

    Parameters
    ----------
    store
        Where rows come from.
    scaler
        Which channels, and how they are scaled.
    cache
        Folder of row files.
    """
    rows = open_rows(store, scaler.channels, scaler.scale, scaler.offset, cache)
    observed = None if rows.observed is None else torch.from_numpy(rows.observed)
    return Rows(torch.from_numpy(rows.values), observed)


def choose(
    wanted: Residency, n_rows: int, n_channels: int, device: torch.device, budget: float | str
) -> Literal["device", "host"]:
    """Where rows are to live; says so, and why, in one line of the log.

    Parameters
    ----------
    wanted
        What the user wants; ``auto`` leaves it to this function: on a GPU if they fit there, else on the host.
    n_rows, n_channels
        Shape of the rows.
    device
        What trains.
    budget
        Of the device's memory, that rows may take: a share of what is free, or a size such as ``8GiB``.
    """
    n_bytes = n_rows * n_channels * _MASKED_BYTES
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    limit = parse_budget(budget, free)
    size, room = f"{n_bytes / 1e9:.2f} GB", f"{limit / 1e9:.2f} GB of {free / 1e9:.2f} GB free"
    if wanted == "device" and n_bytes > limit:
        raise UsageError(
            f"rows of {size} in the memory of {device}",
            expected=f"at most {room}",
            fix="a larger --data.memory_budget, fewer --data.channels, or --data.residency host",
        )
    fits = device.type == "cuda" and n_bytes <= limit
    chosen: Literal["device", "host"] = "device" if wanted == "device" or (wanted == "auto" and fits) else "host"
    if wanted != "auto":
        why = "as told"
    elif device.type != "cuda":
        why = "there is no GPU"
    else:
        why = f"they {'fit' if fits else 'do not fit'} into {room}"
    logger.info(f"{n_rows:,} rows x {n_channels} channels, {size}: residency {chosen} on {device}, for {why}")
    return chosen


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
            fix="mend --data.memory_budget",
        )
    return int(number * (_SIZES[match[2]] if match[2] else free))
