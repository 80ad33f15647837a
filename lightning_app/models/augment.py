"""Augmentation of windows of electrodes while training: bands turned, stretches of rows masked, noise.

What is drawn for a window follows from a seed, the epoch and the window, see `lightning_app.models.draws`: a fit that
goes on from a checkpoint draws what it would have drawn, on any number of processes, in batches of any order.

Bands are turned as in emg2qwerty (Sivakumar et al. 2024, "emg2qwerty: a large dataset with baselines for touch typing
using surface electromyography"), for an armband is put on anew for each session. Masks of rows as in SpecAugment (Park
et al. 2019, "SpecAugment: a simple data augmentation method for automatic speech recognition").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch
from lightning_app.models.draws import uniform
from zstore import UsageError


@dataclass(frozen=True)
class Augment:
    """Changes the inputs of training windows, each window by itself.

    Parameters
    ----------
    n_inputs
        Input channels.
    rotate
        Most electrodes by which a band is turned, either way: each number of them from ``-rotate`` to ``rotate`` is as
        likely. The electrodes of a band are a ring: what leaves at one end comes in at the other.
    bands
        Bands that the electrodes are of, side by side and equally wide; each is turned by itself.
    electrodes
        Input channels, from the first on, that are electrodes.
    masks, mask_rows
        Stretches of rows that are set to 0, the training mean; and the most rows of each, of which 0 to `mask_rows`
        are as likely.
    noise
        Standard deviation of what is added to each electrode at each row, in units of the scaled input.
    seed
        Key of what is drawn.

    Raises
    ------
    UsageError
        If electrodes do not make up bands, or a number is negative.

    Notes
    -----
    Cost: a copy of `x` for each kind; of noise, some 40 operations for each value.
    """

    n_inputs: int
    rotate: int
    bands: int
    electrodes: int
    masks: int
    mask_rows: int
    noise: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.electrodes <= self.n_inputs or self.bands < 1 or self.electrodes % self.bands:
            raise UsageError(
                f"{self.electrodes} electrodes in {self.bands} bands, of {self.n_inputs} input channels",
                expected="bands of as many electrodes each",
                fix="change --model.bands and --model.electrodes",
            )
        if min(self.rotate, self.masks, self.mask_rows) < 0 or not 0 <= self.noise < math.inf:
            raise UsageError(
                f"rotate {self.rotate}, masks {self.masks}, mask_rows {self.mask_rows}, noise {self.noise}",
                expected="0 or more each",
                fix="change --model.rotate, --model.masks, --model.mask_rows or --model.noise",
            )

    def __call__(self, batch: Batch, epoch: int) -> Tensor:
        """(batch, lookback, channel) changed inputs of a batch of single series."""
        x = batch["x"]
        n_masks = self.masks if self.mask_rows else 0
        n_values = x.shape[1] * self.electrodes if self.noise else 0
        numbers = uniform(batch, self.seed, epoch, self.bands + 2 * n_masks + 2 * n_values)
        sizes = [self.bands, n_masks, n_masks, n_values, n_values]
        turns, lengths, firsts, *pair = torch.split(numbers, sizes, dim=1)
        if self.rotate:
            x = self._turned(x, turns)
        if n_values:
            noise = self.noise * _normal(*pair).reshape(len(x), x.shape[1], self.electrodes)
            x = x + nn.functional.pad(noise, (0, self.n_inputs - self.electrodes)).to(x.dtype)
        return self._masked(x, lengths, firsts) if n_masks else x

    def _turned(self, x: Tensor, turns: Tensor) -> Tensor:
        """Each band turned; `turns` are (batch, band) uniform numbers."""
        width = self.electrodes // self.bands
        by = (turns * (2 * self.rotate + 1)).long() - self.rotate
        source = (torch.arange(width, device=x.device) - by[:, :, None]) % width  # (batch, band, electrode)
        source = source + width * torch.arange(self.bands, device=x.device)[:, None]
        rest = torch.arange(self.electrodes, self.n_inputs, device=x.device).expand(len(x), -1)
        channel = torch.cat([source.flatten(1), rest], dim=1)
        return x.gather(2, channel[:, None].expand_as(x))

    def _masked(self, x: Tensor, lengths: Tensor, firsts: Tensor) -> Tensor:
        """Stretches of rows set to 0; `lengths` and `firsts` are (batch, mask) uniform numbers."""
        n_rows = x.shape[1]
        length = (lengths * (min(self.mask_rows, n_rows) + 1)).long()
        first = (firsts * (n_rows - length + 1)).long()
        row = torch.arange(n_rows, device=x.device)[:, None, None]
        masked = ((row >= first) & (row < first + length)).any(-1)  # (row, batch)
        return x.masked_fill(masked.T[:, :, None], 0.0)


def _normal(first: Tensor, second: Tensor) -> Tensor:
    """Standard normal numbers of two uniform ones each (Box & Muller 1958)."""
    return (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # 1 - u is never 0
