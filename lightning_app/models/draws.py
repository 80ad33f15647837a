"""Random numbers of windows as arithmetic: whoever makes a batch, in whichever order, draws the same for a window.

A window is known by its series and the time of its first target. What is drawn for it is a pure function of that, of a
seed and of the epoch: the same after a kill, on any number of processes, in batches of any size. The function is the
mixer of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from lightning_app.batch import Batch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = 24  # of a float32 below 1


def seed_of(seed: int | None) -> int:
    """A seed; for None that of Lightning's ``seed_everything``, or 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed


def uniform(windows: Batch, seed: int, epoch: int, n: int) -> Tensor:
    """Numbers for each window of a batch.

    Parameters
    ----------
    windows
        Of single series.
    seed, epoch
        Key of what is drawn.
    n
        How many numbers a window gets.

    Returns
    -------
    (batch, n) float32, evenly from [0, 1), on the device of the batch.
    """
    series, time = windows["series"], windows["time"]
    key = torch.full((), seed, dtype=torch.int64, device=series.device)  # filled there: no copy is waited for
    for part in (torch.full_like(series, epoch), series, time):
        key = _mixed(key + _GOLDEN) ^ part
    steps = torch.arange(1, n + 1, device=series.device) * _GOLDEN
    return _shifted(_mixed(_mixed(key)[:, None] + steps), 64 - _BITS).float() / (1 << _BITS)


def _mixed(bits: Tensor) -> Tensor:
    """Every bit of each number depends on all of it."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, n: int) -> Tensor:
    """To the right, zeros following: that of int64 repeats the sign."""
    return (bits >> n) & ((1 << (64 - n)) - 1)
