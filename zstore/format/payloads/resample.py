"""Voxels of one grid from those of another, between the corners around each (linear) or from the nearest one.

Where axes of both grids run along each other, planes are made one by one, in the order in which the source lies in
memory: each is read once, and no copy of the source is made. Where they lean, as rounded affines and gantries do, the
matrix between them is upper triangular, since the new grid is the old one without its shear: the third position of a
voxel depends on its plane, the second on its row, the first on itself. All is computed in float64, and what lies beyond
the border is what lies on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.grid import Affine

Interpolation = Literal["linear", "nearest"]
Plane = Callable[[NDArray[Any]], NDArray[Any]]

_STRAIGHT = 1e-9  # voxels that a grid may lean over its whole extent, and still count as straight


class Line(NamedTuple):
    """Voxels of one axis, and between which two of the source each lies.

    Parameters
    ----------
    low, high
        (voxel,) int64 of the source.
    weight
        (voxel,) float64 share of `high`; 0 everywhere where the nearest is taken.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float64]


def line(scale: float, shift: float, start: int, stop: int, size: int, interpolation: Interpolation) -> Line:
    """The voxels ``[start, stop)`` of an axis, in an axis of `size` voxels.

    Parameters
    ----------
    scale, shift
        Voxel ``n`` lies at ``scale * n + shift`` of the source.
    start, stop, size, interpolation
        See there, and :func:`resample`.
    """
    return _line(np.arange(start, stop, dtype=np.float64) * scale + shift, size, interpolation)


def _line(positions: NDArray[np.float64], size: int, interpolation: Interpolation) -> Line:
    """Positions of any shape in an axis of `size` voxels."""
    positions = np.clip(positions, 0, size - 1)
    if interpolation == "nearest":
        nearest = np.rint(positions).astype(np.int64)
        return Line(nearest, nearest, np.zeros(positions.shape))
    low = np.minimum(positions.astype(np.int64), max(size - 2, 0))
    return Line(low, np.minimum(low + 1, size - 1), positions - low)


def is_straight(matrix: Affine, extents: tuple[int, ...]) -> bool:
    """Whether each axis of a grid runs along the same axis of the other."""
    leaning = np.abs(matrix[:3, :3] - np.diag(np.diag(matrix[:3, :3]))) @ np.array(extents, dtype=np.float64)
    return bool(leaning.max() <= _STRAIGHT)


def resample(
    source: NDArray[Any],
    matrix: Affine,
    start: tuple[int, ...],
    shape: tuple[int, ...],
    interpolation: Interpolation,
    before: Plane,
    after: Plane,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """A box of voxels of a new grid.

    Parameters
    ----------
    source
        Three dimensions, any dtype and strides.
    matrix
        (4, 4) from voxels of the new grid to those of the source, upper triangular.
    start, shape
        The box.
    interpolation
        ``linear``, or ``nearest``.
    before
        What is done to values of the source before they are used, such as a slope.
    after
        What is done to new values, such as a window; makes them `dtype`.
    dtype
        Of the result.

    Returns
    -------
    Three dimensions of shape `shape`, in any order in memory.

    Notes
    -----
    Beside source and result, a few planes.
    """
    if is_straight(matrix, tuple(np.add(start, shape))):
        return _planes(source, matrix, start, shape, interpolation, before, after, dtype)
    return _leaning(source, matrix, start, shape, interpolation, before, after, dtype)


def _planes(
    source: NDArray[Any],
    matrix: Affine,
    start: tuple[int, ...],
    shape: tuple[int, ...],
    interpolation: Interpolation,
    before: Plane,
    after: Plane,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    order = tuple(int(axis) for axis in np.argsort([-abs(stride) for stride in source.strides], kind="stable"))
    lying = source.transpose(order)
    across, down, along = (
        line(
            matrix[axis, axis],
            matrix[axis, 3],
            start[axis],
            start[axis] + shape[axis],
            source.shape[axis],
            interpolation,
        )
        for axis in order
    )
    known: dict[int, NDArray[np.float64]] = {}
    result = np.empty(tuple(shape[axis] for axis in order), dtype)
    for n, (low, high, weight) in enumerate(zip(*across, strict=True)):
        wanted = {int(low), int(high)} if weight else {int(low)}
        known = {m: known[m] if m in known else _flat(before(lying[m]), down, along) for m in wanted}
        plane = known[int(low)]
        if weight:
            plane = plane + (known[int(high)] - plane) * weight
        result[n] = after(plane)
    return result.transpose(tuple(int(axis) for axis in np.argsort(order)))


def _leaning(
    source: NDArray[Any],
    matrix: Affine,
    start: tuple[int, ...],
    shape: tuple[int, ...],
    interpolation: Interpolation,
    before: Plane,
    after: Plane,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    along, down, across = (np.arange(first, first + n, dtype=np.float64) for first, n in zip(start, shape, strict=True))
    result = np.empty(shape[::-1], dtype)
    known: dict[int, NDArray[np.float64]] = {}
    for n, at in enumerate(across.tolist()):
        near, far, share = _line(np.array([matrix[2, 2] * at + matrix[2, 3]]), source.shape[2], interpolation)
        rows = _line(matrix[1, 1] * down + matrix[1, 2] * at + matrix[1, 3], source.shape[1], interpolation)
        shifts = matrix[0, 1] * down + matrix[0, 2] * at + matrix[0, 3]
        cells = _line(shifts[:, None] + matrix[0, 0] * along, source.shape[0], interpolation)
        wanted = {int(near[0]), int(far[0])}
        known = {m: known[m] if m in known else _wide(before(source[:, :, m].T)) for m in wanted}
        plane = _between(known[int(near[0])], rows, 0)
        if share[0]:
            plane = plane + (_between(known[int(far[0])], rows, 0) - plane) * share[0]
        low = np.take_along_axis(plane, cells.low, 1)
        result[n] = after(low + (np.take_along_axis(plane, cells.high, 1) - low) * cells.weight)
    return result.transpose(2, 1, 0)


def _wide(plane: NDArray[Any]) -> NDArray[np.float64]:
    return np.ascontiguousarray(plane, dtype=np.float64)


def _flat(plane: NDArray[Any], down: Line, along: Line) -> NDArray[np.float64]:
    """A plane of the source on the two axes of a plane of the result."""
    values = _between(plane, down, 0)
    return _between(values, along, 1)


def _between(plane: NDArray[Any], axis_line: Line, axis: int) -> NDArray[np.float64]:
    values = plane.take(axis_line.low, axis).astype(np.float64, copy=False)
    if not axis_line.weight.any():
        return values
    weight = axis_line.weight if axis else axis_line.weight[:, None]
    difference = plane.take(axis_line.high, axis).astype(np.float64, copy=False)
    difference = difference - values
    difference *= weight
    difference += values
    return difference
