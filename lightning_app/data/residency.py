"""Where decoded rows live while training. `host`: one memory-mapped row file, shared by every process of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_app.data.scaler import Scaler
from zstore import Store, open_rows


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
