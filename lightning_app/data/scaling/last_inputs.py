"""Inputs as targets are scaled: what a target counts from that is relative to an input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.lasting import lasting
from lightning_app.data.layout import Layout
from lightning_app.data.scaling.scaler import Scaler
from zstore import UsageError


class LastInputs:
    """Values of some inputs at the last input row, in the scaled units of the targets.

    Parameters
    ----------
    layout
        Which inputs there are.
    scaler
        That rows were scaled with, of all columns.
    names
        For each target, an input channel, or None.

    Raises
    ------
    UsageError
        If one is no input, may be missing, or cannot be had back from what it was scaled to.
    """

    def __init__(self, layout: Layout, scaler: Scaler, names: Sequence[str | None]) -> None:
        for target, name in zip(layout.targets, names, strict=True):
            if name is not None:
                _require(layout, scaler, target, name)
        used = [position for position, name in enumerate(names) if name is not None]
        given = [name for name in names if name is not None]
        from_, to = scaler.of(given), scaler.of([layout.targets[position] for position in used])
        shape = (*from_.offset.shape[:-1], len(names))
        factor, bias = np.zeros(shape), np.zeros(shape)
        factor[..., used] = from_.scale / to.scale
        bias[..., used] = (from_.offset - to.offset) / to.scale
        columns = np.zeros(len(names), np.int64)
        columns[used] = [layout.plain_inputs.index(name) for name in given]
        self._by_series = scaler.scaling.per_series
        self._parts = (torch.from_numpy(columns), torch.from_numpy(factor).float(), torch.from_numpy(bias).float())
        self._moved: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def of(self, x: Tensor, series: Tensor) -> Tensor:
        """(batch, target) float32 from (batch, lookback, channel) inputs of series (batch,); 0 where none is named."""
        if x.device not in self._moved:
            with lasting():
                self._moved[x.device] = tuple(part.to(x.device) for part in self._parts)  # type: ignore[assignment]
        columns, factor, bias = self._moved[x.device]
        if self._by_series:
            factor, bias = factor[series], bias[series]
        return torch.addcmul(bias, x[:, -1, columns].float(), factor)


def _require(layout: Layout, scaler: Scaler, target: str, name: str) -> None:
    """Raise UsageError unless an input says what it was, and differences of targets are those of source units."""
    if name not in layout.plain_inputs:
        raise UsageError(
            f"actions relative to {name!r}, which is no input",
            expected=f"one of {', '.join(layout.plain_inputs)}",
            fix="add it to --data.channels, or change relative_to of --model.task",
        )
    logs = dict(zip(scaler.channels, scaler.log.tolist(), strict=True))
    reason = "may be missing" if layout.may_miss([name]) else ""
    reason = reason or ("is scaled as a logarithm, or its target is" if logs[name] or logs[target] else "")
    reason = reason or ("is clipped" if name in scaler.clipped else "")
    if reason:
        raise UsageError(
            f"actions relative to {name!r}, which {reason}",
            expected="a channel that is there in all rows, with a scaler such as standard or minmax",
            where=layout.store.path,
            fix="another --data.scaler for it, or another channel in relative_to of --model.task",
        )
