r"""SpatialSoftmaxCNN: images become points, which an MLP reads beside the other inputs.

The last convolution gives maps :math:`a_c`, one for each point; the place of a point is the mean of the places of the
pixels, weighted by the softmax of its map over them:

.. math::
    w_{cij} = \frac{\exp (a_{cij} / \tau)}{\sum_{kl} \exp (a_{ckl} / \tau)}, \qquad
    (u_c, v_c) = \sum_{ij} w_{cij} \, (x_j, y_i)

with coordinates from −1 to 1 and a temperature :math:`\tau` that is learned. Finn, Tan, Duan, Darrell, Levine & Abbeel
2016, "Deep spatial autoencoders for visuomotor learning", ICRA.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel
from lightning_app.models.fields import FieldScale, FieldToFloat
from lightning_app.models.mlp import perceptron
from zstore import UsageError

_LEAST_EDGE = 16  # pixels of an image that the convolutions still find places in


class SpatialSoftmax(nn.Module):
    """Maps to the places of points.

    Parameters
    ----------
    height, width
        Of maps.
    """

    y: Tensor
    x: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(()))
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("y", y.flatten(), persistent=False)
        self.register_buffer("x", x.flatten(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(image, map, y, x) to (image, map, 2): x and y of each point, from −1 to 1."""
        shares = (maps.flatten(2) * torch.exp(-self.log_temperature)).softmax(dim=-1)
        return torch.stack([shares @ self.x, shares @ self.y], dim=-1)


class Eye(nn.Module):
    """Images of one camera to points.

    Parameters
    ----------
    shape
        Lengths and widths of the batches.
    name
        The field.
    channels
        Of each convolution.
    points
        How many.
    scale
        See `FieldToFloat`.
    pool
        Edge of the squares of pixels that become their mean before the first convolution.
    """

    def __init__(
        self, shape: BatchShape, name: str, channels: list[int], points: int, scale: FieldScale, pool: int
    ) -> None:
        super().__init__()
        self.name, self.pool = name, pool
        self.to_float = FieldToFloat(shape, name, scale)
        n_steps, *lengths = shape.fields[name]
        if pool < 1 or len(lengths) < 2 or min(lengths[:2]) // pool < _LEAST_EDGE:
            raise UsageError(
                f"field {name!r} of {' x '.join(map(str, lengths))} for convolutions, with pool {pool}",
                expected=f"images of {_LEAST_EDGE} x {_LEAST_EDGE} pixels at least, and a pool of 1 or more",
                fix="another --data.fields, a larger crop, or another --model.pool",
            )
        widths = [self.to_float.n_colours, *channels]
        parts: list[nn.Module] = []
        for number, (before, behind) in enumerate(pairwise(widths)):
            edge, stride = 5 if number == 0 else 3, 2 if number < 2 else 1
            parts += [nn.Conv2d(before, behind, edge, stride, padding=edge // 2)]
            parts += [nn.GroupNorm(behind // 8 if behind % 8 == 0 else 1, behind), nn.ReLU()]
        self.convolutions = nn.Sequential(*parts, nn.Conv2d(widths[-1], points, 1))
        with torch.no_grad():
            maps = self.convolutions(torch.zeros(1, widths[0], lengths[0] // pool, lengths[1] // pool))
        self.where = SpatialSoftmax(*maps.shape[2:])
        self.n_outputs = n_steps * points * 2

    def forward(self, images: Tensor) -> Tensor:
        """(batch, step, y, x, colour) as stored to (batch, output)."""
        floats = self.to_float(images).flatten(0, 1)  # (batch * step, colour, y, x)
        if self.pool > 1:
            floats = nn.functional.avg_pool2d(floats, self.pool)
        points: Tensor = self.where(self.convolutions(floats))
        return points.reshape(images.shape[0], self.n_outputs)


class SpatialSoftmaxCNN(TaskModel):
    """Convolutions that see where things are, an MLP that reads this beside the inputs and static attributes.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    channels
        Of each convolution; the first two have a stride of 2. Behind each one, eight channels of an image are
        normalised together.
    points
        Points that are looked for in each image.
    hidden, layers, dropout
        Of the MLP, as of `MLP`.
    scale
        Of pixels, as of `FieldToFloat`.
    pool
        Edge of the squares of pixels that become their mean before the first convolution, such as 2 for 96 x 96 to
        48 x 48: some four times as fast.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If batches have no images, or too small ones.
    """

    of_weights = ("scale", "pool")

    def __init__(
        self,
        shape: BatchShape,
        channels: list[int] = [32, 32, 64],  # noqa: B006  # never changed
        points: int = 32,
        hidden: int = 256,
        layers: int = 3,
        dropout: float = 0.0,
        scale: FieldScale = "signed",
        pool: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(shape, **options)
        if not shape.fields:
            raise UsageError(
                f"{type(self).__name__} without images", expected="a field", fix="name it in --data.fields"
            )
        eyes = [Eye(shape, name, list(channels), points, scale, pool) for name in sorted(shape.fields)]
        self.eyes = nn.ModuleList(eyes)
        seen = sum(eye.n_outputs for eye in eyes)
        width = seen + shape.lookback * shape.n_inputs + shape.horizon * shape.n_future + shape.n_static
        self.perceptron = perceptron(width, hidden, layers, shape.horizon * self.n_outputs, dropout)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        seen = [eye(batch[eye.name]) for eye in self.eyes]  # type: ignore[literal-required]
        inputs = [batch["x"].flatten(1)] if self.shape.n_inputs else []  # an ONNX runtime cannot reshape nothing
        parts = [*seen, *inputs, batch["x_future"].flatten(1), batch["x_static"]]
        out: Tensor = self.perceptron(torch.cat(parts, dim=1))
        return out.view(-1, self.shape.horizon, self.n_outputs)
