"""What is done to a volume before it is stored: turned, resampled, windowed, cropped or padded. And the way back.

The chain stands in the store's record, with its digest, and the grid of the source beside each payload: a label map
that a model predicted goes back to the voxels of the scan, which is where a person looks at it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.payloads.error import PayloadError, check_size
from zstore.format.payloads.grid import Affine, Shape, SourceGrid, TargetGrid, target_grid
from zstore.format.payloads.resample import Interpolation, is_straight, line, resample

_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float16", "float32", "float64")
_MOST_SIDE = 1 << 16


@dataclass(frozen=True)
class Window:
    """Intensities mapped from one range to another; what lies outside becomes the nearer end.

    Parameters
    ----------
    low, high
        In the unit of the source, such as −1000 and 1000 Hounsfield units.
    to_low, to_high
        What they become, 0 and 1 by default.
    """

    low: float
    high: float
    to_low: float = 0.0
    to_high: float = 1.0

    def __post_init__(self) -> None:
        ends = (self.low, self.high, self.to_low, self.to_high)
        if not all(map(math.isfinite, ends)) or not self.low < self.high or not self.to_low < self.to_high:
            raise UsageError(
                f"window {self.low:g}…{self.high:g} to {self.to_low:g}…{self.to_high:g}",
                expected="two ranges, each from a number to a larger one",
                fix="as in window: {low: -1000, high: 1000}",
            )


@dataclass(frozen=True)
class VolumeChain:
    """What is done to each volume of a field, in this order.

    Parameters
    ----------
    orientation
        Where the axes of the result run to: three letters of ``L R``, ``P A`` and ``I S``, such as ``RAS``; None to
        leave them as they are.
    spacing
        Millimetres from voxel to voxel along each axis of the result; None to leave them as they are.
    interpolation
        How values between voxels are had: ``linear``, or ``nearest``, for label maps.
    window
        The range of intensities that is kept, and what it becomes; None to leave them as they are.
    shape
        Voxels along each axis of the result: cropped or padded around the middle; None for all there are.
    fill
        Value of voxels that are padded, in the unit of the result.
    dtype
        Type of the result: a float, or an integer, to which values are rounded.

    Notes
    -----
    Equal to MONAI's ``Orientation``, ``Spacing``, ``ScaleIntensityRange(clip=True)``, ``SpatialPad`` and
    ``CenterSpatialCrop`` in this order, borders included.
    """

    orientation: str | None = None
    spacing: tuple[float, float, float] | None = None
    interpolation: Interpolation = "linear"
    window: Window | None = None
    shape: Shape | None = None
    fill: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        axes = [next((pair for pair in ("LR", "PA", "IS") if letter in pair), "") for letter in self.orientation or ""]
        if self.orientation is not None and (len(axes) != 3 or len({*axes} - {""}) != 3):
            raise _odd("orientation", self.orientation, "one letter each of L R, P A and I S, as in RAS")
        if self.spacing is not None and not (
            len(self.spacing) == 3 and all(math.isfinite(size) and size > 0 for size in self.spacing)
        ):
            raise _odd("spacing", self.spacing, "three positive numbers of millimetres, as in [1.5, 1.5, 3]")
        if self.shape is not None and not (len(self.shape) == 3 and all(0 < n <= _MOST_SIDE for n in self.shape)):
            raise _odd("shape", self.shape, f"three whole numbers of 1 to {_MOST_SIDE:,} voxels")
        if self.interpolation not in get_args(Interpolation):
            raise _odd("interpolation", self.interpolation, "linear or nearest")
        if self.dtype not in _DTYPES:
            raise _odd("dtype", self.dtype, f"one of {', '.join(_DTYPES)}")
        dtype = np.dtype(self.dtype)
        ends = [self.fill, *((self.window.to_low, self.window.to_high) if self.window else ())]
        if not all(_fits(value, dtype) for value in ends):
            raise _odd("dtype", self.dtype, f"one that holds the fill and the ends of the window, {ends}")

    def grid(self, source: SourceGrid) -> TargetGrid:
        """The grid of a volume after this chain; raises :class:`PayloadError` where there can be none."""
        return target_grid(source, self.orientation, self.spacing, self.shape)

    def apply(
        self, raw: NDArray[Any], source: SourceGrid, limit_bytes: int, slope: float = 1.0, intercept: float = 0.0
    ) -> NDArray[Any]:
        """A volume as it is stored.

        Parameters
        ----------
        raw
            (x, y, z), any number type and order in memory; not changed.
        source
            Its grid.
        limit_bytes
            The most bytes that the result may take.
        slope, intercept
            Values are ``slope * raw + intercept``, as float32.

        Returns
        -------
        Of the chain's shape and dtype, C order.

        Raises
        ------
        PayloadError
            If the affine is singular, the result is larger than the limit, or a value does not fit the dtype.

        Notes
        -----
        Beside `raw` and the result, one volume of the result's size.
        """
        target, dtype = self.grid(source), np.dtype(self.dtype)
        n_bytes = math.prod(target.shape) * dtype.itemsize
        check_size(f"a volume of {' × '.join(map(str, target.shape))} after its chain", n_bytes, limit_bytes)
        turned = np.flip(raw.transpose(target.axes), target.flips)
        start = tuple(max(first, 0) for first in target.start)
        stop = tuple(
            min(first + n, size) for first, n, size in zip(target.start, target.shape, target.spaced_shape, strict=True)
        )
        core = resample(
            turned,
            target.matrix,
            start,
            tuple(np.subtract(stop, start).tolist()),
            self.interpolation,
            lambda plane: _scaled(plane, slope, intercept),
            self._finish,
            dtype,
        )
        if core.shape == target.shape:
            return np.ascontiguousarray(core)
        result = np.full(target.shape, self.fill, dtype)
        first = np.subtract(start, target.start)
        result[tuple(slice(at, at + n) for at, n in zip(first, core.shape, strict=True))] = core
        return result

    def original_grid(self, values: NDArray[Any], source: SourceGrid, fill: float = 0) -> NDArray[Any]:
        """Values on the grid of the chain, such as a predicted label map, on the grid of the source.

        Parameters
        ----------
        values
            Of the shape that :meth:`apply` makes; any dtype.
        source
            The grid of the volume that they belong to, as the store has it.
        fill
            What voxels of the source get that the chain has cropped away.

        Returns
        -------
        (x, y, z) of the source's shape, in the dtype of `values`: of each voxel, the nearest value.

        Raises
        ------
        PayloadError
            If `values` has another shape than the chain makes of this source.
        """
        target = self.grid(source)
        if values.shape != target.shape:
            raise PayloadError(
                f"values of shape {values.shape}", f"{target.shape}, which the chain makes of this volume"
            )
        back: Affine = np.linalg.inv(target.matrix).astype(np.float64)
        turned_shape = tuple(source.shape[axis] for axis in target.axes)
        result = np.full(source.shape, fill, values.dtype)
        turned = np.flip(result.transpose(target.axes), target.flips)
        if is_straight(back, turned_shape):
            lines = [
                line(back[n, n], back[n, 3], 0, turned_shape[n], target.spaced_shape[n], "nearest").low
                - target.start[n]
                for n in range(3)
            ]
            known = [np.flatnonzero((at >= 0) & (at < n)) for at, n in zip(lines, values.shape, strict=True)]
            turned[np.ix_(*known)] = values[np.ix_(*(at[inside] for at, inside in zip(lines, known, strict=True)))]
            return result
        return _leaning_back(values, target, back, turned, result)

    def digest(self) -> str:
        """xxh3-128 of the chain, 32 hex digits: what tells whether volumes were made by another one."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.to_json(), sort_keys=True).encode())

    def to_json(self) -> dict[str, Any]:
        """As plain values, all of them."""
        document = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in document.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str = "") -> VolumeChain:
        """A chain from plain values, as YAML and JSON have them.

        Parameters
        ----------
        document
            What stands in it has the default where it is left out.
        where
            The file, for messages.

        Raises
        ------
        UsageError
            If a name or a value is none that a chain has.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            _known(document, names, "the chain")
            values = {key: _value(key, value) for key, value in document.items()}
            return cls(**values)
        except UsageError as error:
            raise UsageError(error.what, expected=error.expected, where=where, fix=error.fix) from None

    def _finish(self, plane: NDArray[Any]) -> NDArray[Any]:
        """New values in their window and dtype; a fresh float64 plane is worked on in place."""
        if self.window is not None:
            window = self.window
            plane = (plane - window.low) * ((window.to_high - window.to_low) / (window.high - window.low))
            plane += window.to_low
            np.clip(plane, window.to_low, window.to_high, out=plane)
        return _cast(plane, np.dtype(self.dtype))


def _leaning_back(
    values: NDArray[Any], target: TargetGrid, back: Affine, turned: NDArray[Any], result: NDArray[Any]
) -> NDArray[Any]:
    """Voxels of a source whose axes lean against those of the result; written into `turned`, a view of `result`."""
    shift = back[:3, 3] - np.array(target.start)
    for n in range(turned.shape[0]):  # a plane of positions at a time
        plane = np.indices((1, *turned.shape[1:]), dtype=np.float64).reshape(3, -1)
        plane[0] = n
        positions = back[:3, :3] @ plane + shift[:, None]
        last = np.array(target.spaced_shape)[:, None] - 1 - np.array(target.start)[:, None]
        at = np.rint(np.clip(positions, -np.array(target.start)[:, None], last)).astype(np.int64)
        inside = ((at >= 0) & (at < np.array(values.shape)[:, None])).all(axis=0)
        layer = turned[n].reshape(-1).copy()
        layer[inside] = values[tuple(at[:, inside])]
        turned[n] = layer.reshape(turned.shape[1:])
    return result


def _scaled(plane: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Values as the source means them; those that float32 may not hold are rounded to it."""
    if slope == 1 and intercept == 0:
        wide = plane.dtype.itemsize > 4 or (plane.dtype.kind in "iu" and plane.dtype.itemsize == 4)
        return plane.astype(np.float32) if wide else plane
    with np.errstate(over="ignore", invalid="ignore"):
        return (plane.astype(np.float64) * slope + intercept).astype(np.float32)


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrow: NDArray[Any] = values.astype(dtype, copy=False)
        if dtype.itemsize < 4 and not np.isfinite(narrow).all() and np.isfinite(values).all():
            raise PayloadError(f"a voxel of {np.abs(values).max():g}", f"what {dtype} holds; a window, or float32")
        return narrow
    rounded = np.rint(values)
    limits = np.iinfo(dtype)
    if not (np.isfinite(rounded).all() and rounded.min() >= limits.min and rounded.max() <= limits.max):
        odd = rounded[~((rounded >= limits.min) & (rounded <= limits.max))].flat[0]
        raise PayloadError(f"a voxel of {odd:g}", f"what {dtype} holds; a window, or a wider dtype")
    whole: NDArray[Any] = rounded.astype(dtype)
    return whole


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return math.isfinite(value) and abs(value) <= float(np.finfo(dtype).max)
    return math.isfinite(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max and value == int(value)


def _value(key: str, value: Any) -> Any:
    """A value of a chain from a plain one."""
    if key == "window" and value is not None:
        if not isinstance(value, Mapping):
            raise _odd(key, value, "low, high and, if wanted, to_low and to_high")
        _known(value, {field.name for field in dataclasses.fields(Window)}, "its window")
        if not {"low", "high"} <= set(value):
            raise _odd(key, dict(value), "low and high")
        return Window(**{name: _number(name, one) for name, one in value.items()})
    if key in ("spacing", "shape") and value is not None:
        if not isinstance(value, (list, tuple)):
            raise _odd(key, value, "a list of three numbers")
        numbers = tuple(_number(key, one) for one in value)
        if key == "spacing":
            return numbers
        if any(number != int(number) for number in numbers):
            raise _odd(key, value, "whole numbers")
        return tuple(map(int, numbers))
    if key == "fill":
        return _number(key, value)
    if not isinstance(value, str) and not (value is None and key == "orientation"):
        if key in ("window", "spacing", "shape"):
            return value
        raise _odd(key, value, "a word")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _odd(name, value, "a number")
    return float(value)


def _known(document: Mapping[str, Any], names: set[str], what: str) -> None:
    odd = sorted(str(key) for key in document if key not in names)
    if odd:
        raise _odd(odd[0], document.get(odd[0]), f"names of {what}: {', '.join(sorted(names))}")


def _odd(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{name}: {value} in the chain of a volume", expected=expected, fix="correct the chain")


MERLIN = VolumeChain("RAS", (1.5, 1.5, 3.0), "linear", Window(-1000, 1000), (224, 224, 160))
"""Chest and abdominal CT as the Merlin models take it: float32 of 0…1 for −1000…1000 HU."""

PRESETS = {"merlin": MERLIN}
"""Chains by name."""
