r"""ResNet3D: a residual network of 18 layers for volumes.

A block adds to its input two convolutions of 3³ voxels; four stages of two blocks each, of which all but the first
halve the edges and double the colours.
He et al. 2016, "Deep residual learning for image recognition"; in three dimensions Hara, Kataoka & Satoh 2018, "Can
spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?"
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_app.batch import BatchShape
from lightning_app.models.cnn3d import Norm, normalised
from lightning_app.models.volumes import VolumeModel
from zstore import UsageError

_STAGES = 4


class ResNet3D(VolumeModel):
    """A residual network of 18 layers.

    Parameters
    ----------
    shape
        Lengths, axes and types of the batches; linked from the data by the command line.
    width
        Colours of the first stage; the last one has eight times as many. 64 has 33 million weights, 16 has 2 million.
    stem_stride
        Voxels from one to the next of the first convolution: 2 halves the edges before the first stage.
    norm
        As for `CNN3D`.
    options
        See `VolumeModel` and `TaskModel`.
    """

    of_weights = (*VolumeModel.of_weights, "stem_stride", "norm")

    def __init__(
        self, shape: BatchShape, width: int = 16, stem_stride: int = 1, norm: Norm = "batch", **options: Any
    ) -> None:
        super().__init__(shape, width * 2 ** (_STAGES - 1), **options)
        if width < 1 or stem_stride < 1:
            raise UsageError(
                f"width {width}, stem_stride {stem_stride}",
                expected="1 or more each",
                fix="correct --model.width and --model.stem_stride",
            )
        stem = nn.Conv3d(self.n_colours, width, 3, stride=stem_stride, padding=1, bias=False)
        layers: list[nn.Module] = [stem, normalised(width, norm), nn.ReLU()]
        n_in = width
        for stage in range(_STAGES):
            n_out = width * 2**stage
            layers += [_Block(n_in, n_out, 1 if stage == 0 else 2, norm), _Block(n_out, n_out, 1, norm)]
            n_in = n_out
        self.layers = nn.Sequential(*layers)

    def features(self, volumes: Tensor) -> Tensor:
        """(batch, colour, z, y, x) to (batch, 8 * width)."""
        left: Tensor = self.layers(volumes)
        return left.mean(dim=(2, 3, 4))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
            normalised(n_out, norm),
            nn.ReLU(),
            nn.Conv3d(n_out, n_out, 3, padding=1, bias=False),
            normalised(n_out, norm),
        )
        same = stride == 1 and n_in == n_out
        self.skip: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv3d(n_in, n_out, 1, stride=stride, bias=False), normalised(n_out, norm))
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """(batch, colour, z, y, x)."""
        out: Tensor = (self.layers(volumes) + self.skip(volumes)).relu()
        return out
