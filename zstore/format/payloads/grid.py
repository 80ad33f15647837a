"""Where the voxels of a volume lie, and on which grid a chain puts them: arithmetic, without a voxel.

Grids are those of MONAI's ``Orientation``, ``Spacing`` (``diagonal=False``, ``scale_extent=False``), ``SpatialPad`` and
``CenterSpatialCrop``, to the rounding, since models that others have trained expect exactly these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.extras import library

Affine = NDArray[np.float64]
Shape = tuple[int, int, int]

_SAME = 1e-3  # mm, and voxels: MONAI leaves grids as they are that differ by less
_FLAT = 1e-6  # volume of a voxel, over that of a box with its edges
_MOST_VOXELS = 1 << 31  # along one axis of a grid


class SourceGrid(NamedTuple):
    """Where the voxels of a volume lie.

    Parameters
    ----------
    shape
        Of the volume in its source.
    affine
        (4, 4) float64: from (x, y, z, 1), the position of a voxel in the array, to millimetres to the right, to the
        front and to the top of the patient.
    """

    shape: Shape
    affine: Affine

    def to_array(self) -> Affine:
        """(5, 4) float64, as stores have it: the affine, and the shape below it."""
        return np.vstack([self.affine, [*self.shape, 0]]).astype(np.float64)

    @classmethod
    def from_array(cls, values: NDArray[Any]) -> SourceGrid:
        """Read :meth:`to_array` back.

        Raises
        ------
        PayloadError
            If the shape is none, or the affine is singular.
        """
        wide = values.astype(np.float64)
        sizes = wide[4, :3] if wide.shape == (5, 4) else np.zeros(3)
        if not ((sizes >= 1) & (sizes < _MOST_VOXELS) & (np.floor(sizes) == sizes)).all():
            raise PayloadError(f"a scan of shape {sizes.tolist()}", "three whole numbers of voxels")
        check_affine(wide[:4])
        return cls((int(sizes[0]), int(sizes[1]), int(sizes[2])), wide[:4])


def grid_name(field: str) -> str:
    """Name of the field that has where the voxels of another one lay in their sources."""
    return f"{field}_grid"


@dataclass(frozen=True)
class TargetGrid:
    """The grid that a chain puts a volume on.

    Parameters
    ----------
    axes
        For each axis of the result, the axis of the source that it follows.
    flipped
        For each of them, whether it runs against the source.
    matrix
        (4, 4) float64: from voxels of the spaced grid to those of the source in its new orientation.
    spaced_shape
        Of the grid with the new spacing, before anything is cropped or padded.
    shape
        Of the result.
    start
        For each axis, the voxel of the spaced grid that is the first of the result; negative where it is padded.
    affine
        (4, 4) float64: from voxels of the result to millimetres.
    """

    axes: Shape
    flipped: tuple[bool, bool, bool]
    matrix: Affine
    spaced_shape: Shape
    shape: Shape
    start: Shape
    affine: Affine

    @property
    def flips(self) -> tuple[int, ...]:
        """Axes of the result that run against the source."""
        return tuple(axis for axis in range(3) if self.flipped[axis])


def check_affine(affine: Affine) -> None:
    """Refuse an affine that does not place every voxel somewhere else.

    Raises
    ------
    PayloadError
        If it is not finite, or singular.
    """
    expected = "an affine of three directions, each apart from the others"
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.abs(affine).max() > 1e12:
        raise PayloadError(f"a volume with the affine {affine.tolist()}", expected)
    lengths = spacing_of(affine)
    if lengths.min() <= 1e-12 or abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLAT:
        raise PayloadError(f"a volume with the singular affine {affine.tolist()}", expected)


def spacing_of(affine: Affine) -> NDArray[np.float64]:
    """(3,) float64 millimetres from one voxel to the next along each axis."""
    spacing: NDArray[np.float64] = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return spacing


def target_grid(
    source: SourceGrid,
    orientation: str | None = None,
    spacing: tuple[float, float, float] | None = None,
    shape: Shape | None = None,
) -> TargetGrid:
    """The grid of a volume after it was turned, resampled, and cropped or padded around its middle.

    Parameters
    ----------
    source
        The grid that it has.
    orientation
        Three letters that say where each axis is to run to, such as ``RAS``; None to leave them as they are.
    spacing
        Millimetres between voxels along each axis of the result; None to leave them as they are.
    shape
        Of the result; None for all voxels.

    Raises
    ------
    PayloadError
        If the affine is singular, or the grid would have more than 2**31 voxels along an axis.
    """
    check_affine(source.affine)
    axes, flipped = _turns(source.affine, orientation)
    turned_shape: Shape = tuple(source.shape[axis] for axis in axes)  # type: ignore[assignment]
    affine = source.affine @ _turn_matrix(axes, flipped, source.shape)
    matrix: Affine = np.eye(4)
    spaced_shape = turned_shape
    if spacing is not None:
        spaced_affine, spaced_shape = _spaced(affine, turned_shape, spacing)
        matrix = np.linalg.solve(affine, spaced_affine).astype(np.float64)
        same = np.allclose(affine, spaced_affine, atol=_SAME) or np.allclose(matrix, np.eye(4), atol=_SAME)
        if same and spaced_shape == turned_shape:
            matrix = np.eye(4)
        else:
            affine = spaced_affine
    final = spaced_shape if shape is None else shape
    start: Shape = tuple(map(_start, spaced_shape, final))  # type: ignore[assignment]
    shift = np.eye(4)
    shift[:3, 3] = start
    return TargetGrid(axes, flipped, matrix, spaced_shape, final, start, affine @ shift)


def _turns(affine: Affine, orientation: str | None) -> tuple[Shape, tuple[bool, bool, bool]]:
    if orientation is None:
        return (0, 1, 2), (False, False, False)
    orientations = library("nibabel.orientations", "volume")
    here = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(here, orientations.axcodes2ornt(tuple(orientation)))
    axes = tuple(int(axis) for axis in np.argsort(turn[:, 0]))
    return axes, tuple(bool(turn[axis, 1] < 0) for axis in axes)  # type: ignore[return-value]


def _turn_matrix(axes: Shape, flipped: tuple[bool, bool, bool], shape: Shape) -> Affine:
    """From voxels of the turned array to those of the source."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
        matrix[axis, new] = -1 if flip else 1
        matrix[axis, 3] = shape[axis] - 1 if flip else 0
    return matrix


def _spaced(affine: Affine, shape: Shape, spacing: tuple[float, float, float]) -> tuple[Affine, Shape]:
    """The affine and the shape of the grid with a new spacing."""
    own = spacing_of(affine)
    wanted = np.where(np.abs(own - spacing) <= _SAME, own, spacing)
    edges = np.linalg.cholesky(affine[:3, :3].T @ affine[:3, :3]).T  # what is left is a rotation, without a shear
    spaced = np.eye(4)
    spaced[:3, :3] = affine[:3, :3] @ np.linalg.inv(edges) @ np.diag(wanted)
    corners = np.stack(np.meshgrid(*((0.0, size - 1.0) for size in shape), indexing="ij")).reshape(3, -1)
    corners = np.concatenate([corners, np.ones((1, 8))])
    positions = (np.linalg.solve(spaced, affine) @ corners)[:3]
    extents = np.round(np.ptp(positions, axis=1) + 1)  # halves to even numbers
    if not np.isfinite(extents).all() or extents.max() > _MOST_VOXELS:
        raise PayloadError(
            f"a volume of {' × '.join(f'{size:.6g} mm' for size in own * shape)}",
            f"at most {_MOST_VOXELS:,} voxels of the new spacing along an axis",
        )
    lowest = [n for n in range(8) if np.allclose(np.min(positions - positions[:, n : n + 1], axis=1), 0, rtol=_SAME)]
    if lowest:
        spaced[:3, 3] = (affine @ corners)[:3, lowest[0]]
    else:  # no corner is the first along all axes: as a shear has it
        middle = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
        spaced[:3, 3] = middle - spaced[:3, :3] @ (extents / 2)
    return spaced, tuple(int(extent) for extent in extents)  # type: ignore[return-value]


def _start(size: int, wanted: int) -> int:
    """The first voxel of `wanted` around the middle of `size`."""
    return size // 2 - wanted // 2 if size > wanted else -((wanted - size) // 2)
