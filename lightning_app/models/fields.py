"""Fields as floats, on the device that trains: batches have them as they are stored, mostly as a byte a value.

scaled = (value / unit − mean) / std, where unit is 255 for uint8 and 1 for all other types.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from lightning_app.batch import BatchShape
from zstore import UsageError

logger = logging.getLogger(__name__)


class MeanAndStd(TypedDict):
    """One number, or one for each colour."""

    mean: list[float]
    std: list[float]


FieldScale = Literal["unit", "signed", "imagenet"] | MeanAndStd

_NAMED: dict[str, tuple[list[float], list[float]]] = {
    "unit": ([0.0], [1.0]),
    "signed": ([0.5], [0.5]),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),  # of torchvision's weights
}
_MOST_TILED = 1 << 14  # values of constants that lie beside each other: long stretches are what vector units like


class FieldToFloat(nn.Module):
    """A field of a batch as float32, colours first, as convolutions read it.

    Parameters
    ----------
    shape
        Lengths, axes and types of the batches.
    name
        The field.
    scale
        ``unit``: uint8 from 0 to 1, other types as they are. ``signed``: uint8 from −1 to 1. ``imagenet``: uint8 by the
        means and deviations of ImageNet's colours, which pretrained networks expect. Or a mean and a deviation of one's
        own: of uint8 from 0 to 1, of other types in their units; one number, or one for each colour.

    Raises
    ------
    UsageError
        If batches have no such field, or the scale does not fit it.

    Notes
    -----
    Runs on whatever device the batch is: a quarter of the bytes travels there.
    """

    factor: Tensor
    bias: Tensor

    def __init__(self, shape: BatchShape, name: str, scale: FieldScale = "unit") -> None:
        super().__init__()
        if name not in shape.fields:
            raise UsageError(
                f"a model that reads field {name!r}",
                expected=f"one that batches have: {', '.join(shape.fields) or 'none'}",
                fix="name it in --data.fields",
            )
        self.name, self.has_colours = name, shape.field_axes[name][-1:] == ["colour"]
        lengths = shape.fields[name][1:]
        self.n_colours = lengths[-1] if self.has_colours else 1
        mean, std = self._numbers(scale, is_bytes := shape.field_dtypes[name] == "uint8")
        unit = 255.0 if is_bytes else 1.0
        size = math.prod(lengths[-2:])
        n_tiled = (size if size <= _MOST_TILED else lengths[-1]) // len(mean)
        deviations = torch.tensor(std, dtype=torch.float64)
        factor, bias = 1 / (unit * deviations), -torch.tensor(mean, dtype=torch.float64) / deviations
        self._factor = float(factor[0]) if len(factor) == 1 and not bias.any() else None  # where it is all there is
        factor, bias = factor.repeat(n_tiled), bias.repeat(n_tiled)
        self.register_buffer("factor", factor.float(), persistent=False)  # arguments of models are in checkpoints
        self.register_buffer("bias", bias.float(), persistent=False)

    def forward(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Scale and turn a field.

        Parameters
        ----------
        values
            (batch, step, …) or (batch, step, …, colour) as it is stored.
        out
            Contiguous float32 of the same shape to put the result into; None for new memory.

        Returns
        -------
        (batch, step, colour, …) of the dtype of the weights, float32 unless training is in another precision; one
        colour where there is no such axis. It is a view of memory whose last axis is the colour:
        ``torch.channels_last``, once batch and step are one axis.
        """
        if out is None:
            wide = torch.promote_types(self.factor.dtype, torch.float32)  # bfloat16 would round bytes before the scale
            out = torch.empty_like(values, dtype=wide, memory_format=torch.contiguous_format)
        flat = out.view(-1, len(self.factor))
        flat.copy_(values.reshape(flat.shape))
        if self._factor is None:
            torch.addcmul(self.bias, flat, self.factor, out=flat)
        else:  # in four fifths of the time
            flat.mul_(self._factor)
        out = out.to(self.factor.dtype)
        return out.movedim(-1, 2) if self.has_colours else out.unsqueeze(2)

    def _numbers(self, scale: FieldScale, is_bytes: bool) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and deviation, one or of each colour."""
        if isinstance(scale, str):
            mean, std = _NAMED[scale]
            if scale != "unit" and not is_bytes:
                raise UsageError(
                    f"the scale {scale!r} of field {self.name!r}, which is no uint8",
                    expected="unit, or a mean and a deviation in its units",
                    fix="{mean: [0.0], std: [1000.0]}, say",
                )
        else:
            mean, std = list(scale["mean"]), list(scale["std"])
        sizes = {1, self.n_colours}
        finite = all(math.isfinite(number) for number in (*mean, *std)) and all(number > 0 for number in std)
        if len(mean) not in sizes or len(std) not in sizes or not finite:
            raise UsageError(
                f"a scale of field {self.name!r} with mean {mean} and std {std}",
                expected=f"one number each, or {self.n_colours}, one for each colour; deviations above 0",
                fix="correct it",
            )
        n_numbers = max(len(mean), len(std))
        return mean * (n_numbers // len(mean)), std * (n_numbers // len(std))


def warn_of_unread(model: nn.Module, fields: Iterable[str]) -> None:
    """Warn of fields of batches that a model of this package does not read; of other models nothing is known."""
    ours = type(model).__module__.startswith("lightning_app.models.")
    if ours and (unread := sorted(fields)) and not any(isinstance(part, FieldToFloat) for part in model.modules()):
        logger.warning(
            f"{type(model).__name__} reads no fields: {', '.join(unread)} will be decoded and copied for nothing. Fix: "
            "drop --data.fields, or choose a model such as SpatialSoftmaxCNN, CNN3D or ResNet3D"
        )
