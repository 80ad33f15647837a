r"""TDS: time-depth-separable convolutions, then an LSTM; for long windows at high rates, such as surface EMG.

Strided convolutions bring rows to fewer steps. A block then looks at its width as w groups of c channels,

.. math::
    a_t = N\bigl(s_t + \mathrm{ReLU}(K * s)_t\bigr), \qquad
    s'_t = N\bigl(a_t + W_2 \, \mathrm{ReLU}(W_1 a_t)\bigr)

where :math:`K` is a convolution of k steps that mixes channels and shares its weights between groups, and :math:`N`
normalises each step over its width: :math:`k c^2` weights in place of :math:`k c^2 w^2`. All convolutions are causal.
An LSTM reads what the last block gives; its states are read where targets are.

Hannun et al. 2019, "Sequence-to-sequence speech recognition with time-depth separable convolutions"; for surface EMG
Sivakumar et al. 2024, "emg2qwerty", and Salter et al. 2024, "emg2pose: a large and diverse benchmark for surface
electromyographic hand pose estimation", whose baselines have strided convolutions before such blocks, and emg2pose's
an LSTM behind them. The mean over turned bands is that of emg2qwerty's rotation-invariant layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.augment import Augment
from lightning_app.models.draws import seed_of
from lightning_app.models.states import StateModel, beside, open_forget_gate, refuse_known
from zstore import UsageError


class TDS(StateModel):
    """Strided convolutions, time-depth-separable blocks and an LSTM over the lookback.

    Many to many where targets are the last input rows (``delay`` of ``-horizon``): steps are brought back to rows by
    linear interpolation, so a target may be read from inputs less than one step behind it. Else many to one.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    width
        Of each step: outputs of the strided convolutions and of blocks.
    channels
        Of a group in the convolution of a block; divides `width`.
    strides
        Rows, or steps of the one before, from one step of each strided convolution to the next. Each is twice as long.
    blocks
        How many.
    kernel
        Steps of the convolution of a block.
    hidden
        Width of the state of the LSTM.
    dropout
        Share dropped in blocks and before the head while training.
    turns
        The first convolution reads each band turned by ``-turns`` to ``turns`` electrodes, and gives the mean of these.
        0: as it is.
    bands, electrodes
        Bands of electrodes, side by side and equally wide, in the first `electrodes` input channels. Default: one band
        of all inputs.
    rotate
        In training each band is turned by a number of electrodes from ``-rotate`` to ``rotate``.
    masks, mask_rows
        In training so many stretches of up to `mask_rows` rows are set to 0, the training mean.
    noise
        In training noise of this standard deviation is added to electrodes, in units of the scaled input.
    seed
        Of turns, masks and noise, which are drawn by seed, epoch and window: a fit that goes on, or runs on several
        processes, sees the same. Default: that of ``seed_everything``, or 0.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If `channels` does not divide `width`, a stride or a kernel is below 1, or channels are known in advance.
    """

    of_weights = ("turns", "bands", "electrodes")

    def __init__(
        self,
        shape: BatchShape,
        width: int = 64,
        channels: int = 8,
        strides: list[int] | None = None,
        blocks: int = 2,
        kernel: int = 9,
        hidden: int = 64,
        dropout: float = 0.0,
        turns: int = 0,
        rotate: int = 0,
        bands: int = 1,
        electrodes: int | None = None,
        masks: int = 2,
        mask_rows: int = 0,
        noise: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shape, hidden, dropout, **options)
        refuse_known(shape, "TDS")
        strides = [5, 2] if strides is None else list(strides)
        if channels < 1 or width % channels or kernel < 1 or min(strides, default=1) < 1 or turns < 0:
            raise UsageError(
                f"width {width} in groups of {channels} channels, kernel {kernel}, strides {strides}, turns {turns}",
                expected="a width that is a multiple of channels, strides and a kernel of 1 or more, no negative turns",
                fix="change --model.width, --model.channels, --model.kernel, --model.strides or --model.turns",
            )
        electrodes = shape.n_inputs if electrodes is None else electrodes
        self.augment = Augment(shape.n_inputs, rotate, bands, electrodes, masks, mask_rows, noise, seed=seed_of(seed))
        self.augments = bool(rotate or noise or (masks and mask_rows))
        self.turns, self.rate = turns, math.prod(strides)
        strides = strides or [1]
        widths = [shape.n_inputs + shape.n_static, *[width] * (len(strides) - 1)]
        self.strided = nn.ModuleList(_Strided(n, width, stride) for n, stride in zip(widths, strides, strict=True))
        self.blocks = nn.Sequential(*(_Block(width, channels, kernel, dropout) for _ in range(blocks)))
        self.recurrent = nn.LSTM(width, hidden, batch_first=True)
        open_forget_gate(self.recurrent)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        x, first = batch["x"], self.strided[0]
        if self.training and self.augments:
            x = self.augment(batch, self.current_epoch)
        turned = [self._turned(x, by) for by in range(-self.turns, self.turns + 1)]
        steps = torch.stack([first(beside(each, batch["x_static"])) for each in turned]).mean(0)
        for strided in self.strided[1:]:
            steps = strided(steps)
        states, _ = self.recurrent(self.blocks(steps))  # (batch, step, hidden)
        return self.read_used(self._at_rows(states) if self.each else states[:, -1:])

    def _turned(self, x: Tensor, by: int) -> Tensor:
        """Bands turned by some electrodes."""
        if not by:
            return x
        n, bands = self.augment.electrodes, self.augment.bands
        rings = x[..., :n].reshape(*x.shape[:2], bands, n // bands).roll(by, -1)  # (batch, row, band, electrode)
        return torch.cat([rings.flatten(-2), x[..., n:]], dim=-1)

    def _at_rows(self, states: Tensor) -> Tensor:
        """(batch, horizon, hidden) at the rows of targets: between steps, what lies between their states.

        The last step ends with the last row, and each other one `rate` rows before the next.
        """
        shape = self.shape
        back = torch.arange(shape.target_span - 1, -1, -shape.target_stride, device=states.device)  # rows to the end
        place = (states.shape[1] - 1 - back / self.rate).clamp(min=0)
        before = place.floor().long()
        after = (before + 1).clamp(max=states.shape[1] - 1)
        share = (place - before).to(states.dtype)[:, None]
        return states[:, before] * (1 - share) + states[:, after] * share


class _Strided(nn.Module):
    """(batch, step, n_in) to (batch, step / stride, n_out): the last step ends with the last one of the input."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(n_in, n_out, 2 * stride, stride)
        self.norm = nn.LayerNorm(n_out)

    def forward(self, steps: Tensor) -> Tensor:
        n_steps = steps.shape[1]
        n_out = -(-n_steps // self.stride)
        before = (n_out - 1) * self.stride + 2 * self.stride - n_steps
        out = self.conv(nn.functional.pad(steps.transpose(1, 2), (before, 0)))
        normal: Tensor = self.norm(out.transpose(1, 2).relu())
        return normal


class _Block(nn.Module):
    """(batch, step, width) to the same: a convolution over steps, then a layer over the width."""

    def __init__(self, width: int, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.channels, self.kernel = channels, kernel
        self.conv = nn.Conv2d(channels, channels, (1, kernel))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor) -> Tensor:
        n, n_steps, width = steps.shape
        groups = steps.transpose(1, 2).reshape(n, self.channels, width // self.channels, n_steps)
        mixed = self.conv(nn.functional.pad(groups, (self.kernel - 1, 0))).relu().flatten(1, 2)
        steps = self.norms[0](steps + self.dropout(mixed.transpose(1, 2)))
        out: Tensor = self.norms[1](steps + self.dropout(self.layers(steps)))
        return out
