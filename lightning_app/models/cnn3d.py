"""CNN3D: a few strided convolutions of a volume, each of which halves its edges, and the mean of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from lightning_app.batch import BatchShape
from lightning_app.models.volumes import VolumeModel

Norm = Literal["batch", "group"]


class CNN3D(VolumeModel):
    """A small network for volumes: fast on a CPU, and hard to overfit with.

    Parameters
    ----------
    shape
        Lengths, axes and types of the batches; linked from the data by the command line.
    widths
        Colours behind each convolution. The four of the default have 291,000 weights.
    norm
        What is normalised behind each convolution: ``batch``, each colour over the batch, or ``group``, eight colours
        of each window together: then what is learned does not depend on how batches are shared out between processes.
    options
        See `VolumeModel` and `TaskModel`.
    """

    def __init__(
        self, shape: BatchShape, widths: Sequence[int] = (16, 32, 64, 128), norm: Norm = "batch", **options: Any
    ) -> None:
        super().__init__(shape, widths[-1], **options)
        before = [self.n_colours, *widths[:-1]]
        self.layers = nn.Sequential(*(_block(n_in, n_out, norm) for n_in, n_out in zip(before, widths, strict=True)))

    def features(self, volumes: Tensor) -> Tensor:
        """(batch, colour, z, y, x) to (batch, width)."""
        left: Tensor = self.layers(volumes)
        return left.mean(dim=(2, 3, 4))


def _block(n_in: int, n_out: int, norm: Norm) -> nn.Sequential:
    convolution = nn.Conv3d(n_in, n_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, normalised(n_out, norm), nn.ReLU())


def normalised(n_colours: int, norm: Norm) -> nn.Module:
    """Of each colour over the batch; or of groups of eight colours, or of all where eight do not divide them."""
    if norm == "batch":
        return nn.BatchNorm3d(n_colours)
    return nn.GroupNorm(n_colours // 8 if n_colours % 8 == 0 else 1, n_colours)
