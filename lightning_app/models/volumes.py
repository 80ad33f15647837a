"""What models of one field share: it is read as floats, pooled, augmented in training, and described by features."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel
from lightning_app.models.draws import seed_of, uniform
from lightning_app.models.fields import FieldScale, FieldToFloat
from lightning_app.models.states import refuse_known
from zstore import UsageError


class VolumeModel(TaskModel):
    """Features of a volume, beside them what else is known of the window, and a linear head.

    A volume is a field of three axes, or of four with colours; its steps are further colours. Input channels and static
    attributes, such as an age, stand beside the features.

    Parameters
    ----------
    shape
        Lengths, axes and types of the batches.
    width
        Numbers that :meth:`features` gives.
    field
        The volume that is read. Default: the only field of the batches.
    scale
        Of its values; see `FieldToFloat`.
    pool
        Edge of the cubes of voxels that become their mean before anything else, such as 2 for 64³ to 32³.
    flips
        Axes that are turned round in half of the training windows, each by itself, such as ``[x, y]``.
    intensity_scale
        In training values are multiplied by a number between 1 minus and 1 plus this, once per window.
    intensity_shift
        In training a number between minus and plus this is added to the values, once per window.
    dropout
        Share of the features dropped before the head while training.
    seed
        Of flips and intensities, which are drawn by seed, epoch and window: a fit that goes on, or runs on several
        processes, sees the same. Default: that of ``seed_everything``, or 0.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If there is no such volume or axis, or pooling leaves nothing of it.
    """

    of_weights: ClassVar[tuple[str, ...]] = ("field", "scale", "pool")

    def __init__(
        self,
        shape: BatchShape,
        width: int,
        field: str | None = None,
        scale: FieldScale = "unit",
        pool: int = 1,
        flips: list[str] | None = None,
        intensity_scale: float = 0.0,
        intensity_shift: float = 0.0,
        dropout: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shape, **options)
        kind = type(self).__name__
        refuse_known(shape, kind)
        name = _volume_of(shape, field, kind)
        self.to_float = FieldToFloat(shape, name, scale)
        n_steps, *lengths = shape.fields[name]
        axes = shape.field_axes[name]
        if self.to_float.has_colours:
            lengths, axes = lengths[:-1], axes[:-1]
        if pool < 1 or pool > min(lengths):
            raise UsageError(
                f"pool {pool} of volumes of {' x '.join(map(str, lengths))}",
                expected="1 to the shortest edge",
                fix="correct --model.pool",
            )
        strange = sorted(set(flips or ()) - set(axes))
        if strange:
            raise UsageError(
                f"flips of {', '.join(strange)}",
                expected=f"some of {', '.join(axes)}, the axes of {name}",
                fix="correct --model.flips",
            )
        if not (0 <= intensity_scale < 1 and intensity_shift >= 0):
            raise UsageError(
                f"intensity_scale {intensity_scale}, intensity_shift {intensity_shift}",
                expected="a scale in [0, 1) and a shift of 0 or more",
                fix="correct --model.intensity_scale and --model.intensity_shift",
            )
        self.pool = pool
        self.lengths = [length // pool for length in lengths]
        self.n_colours = n_steps * self.to_float.n_colours
        self.intensity_scale, self.intensity_shift = intensity_scale, intensity_shift
        self.seed = seed_of(seed)
        self._flipped = [axes.index(name) - len(axes) for name in flips or ()]
        n_beside = shape.lookback * shape.n_inputs + shape.n_static
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width + n_beside, shape.horizon * self.n_outputs)

    def features(self, volumes: Tensor) -> Tensor:
        """(batch, colour, z, y, x) float32, scaled, to (batch, width)."""
        raise NotImplementedError

    def volumes(self, batch: Batch) -> Tensor:
        """(batch, colour, z, y, x) float32: scaled, pooled and, in training, augmented."""
        stored: Tensor = batch[self.to_float.name]  # type: ignore[literal-required]
        values = self.to_float(stored).flatten(1, 2)  # (batch, step * colour, z, y, x)
        if self.pool > 1:
            values = nn.functional.avg_pool3d(values, self.pool)
        return self.augmented(values, batch) if self.training else values

    def augmented(self, values: Tensor, batch: Batch) -> Tensor:
        """Flipped, brighter or darker: what :meth:`volumes` are in training, of the epoch of the trainer."""
        n_flips = len(self._flipped)
        if not (n_flips or self.intensity_scale or self.intensity_shift):
            return values
        drawn = uniform(batch, self.seed, self.current_epoch, n_flips + 2).to(values.dtype)
        for number, axis in enumerate(self._flipped):
            turned = (drawn[:, number] < 0.5)[:, None, None, None, None]
            values = torch.where(turned, values.flip(axis), values)
        by = 1 + self.intensity_scale * (2 * drawn[:, -2] - 1)
        shift = self.intensity_shift * (2 * drawn[:, -1] - 1)
        return values * by[:, None, None, None, None] + shift[:, None, None, None, None]

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        features = self.dropout(self.features(self.volumes(batch)))
        inputs = [batch["x"].flatten(1)] if self.shape.n_inputs else []  # an ONNX runtime cannot reshape nothing
        known = torch.cat([features, *inputs, batch["x_static"]], dim=1)
        out: Tensor = self.head(known)
        return out.view(-1, self.shape.horizon, self.n_outputs)


def _volume_of(shape: BatchShape, field: str | None, model: str) -> str:
    """The field that is read."""
    if shape.n_nodes:
        raise UsageError(f"{model} with a panel", expected="windows of single series", fix="drop --data.panel")
    if field is None and len(shape.fields) != 1:
        raise UsageError(
            f"{model} of one field of {len(shape.fields)}: {', '.join(shape.fields) or 'none'}",
            expected="one",
            fix="name it in --data.fields" if not shape.fields else "pass --model.field",
        )
    name = next(iter(shape.fields)) if field is None else field
    axes = shape.field_axes.get(name, [])
    if name in shape.fields and len(axes) - (axes[-1:] == ["colour"]) != 3:
        raise UsageError(
            f"{model} of field {name!r} with axes {', '.join(axes)}",
            expected="three axes, or three and colours",
            fix="pass another --model.field",
        )
    return name
