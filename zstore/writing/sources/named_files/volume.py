"""Volumes as files hold them, and as fields do: as they are, or through a chain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.error import PayloadError, check_size
from zstore.format.payloads.grid import SourceGrid, check_affine
from zstore.writing.sources.payloads import Payload, PayloadLook


@dataclass(frozen=True)
class VolumeLook:
    """What the header of a volume says.

    Parameters
    ----------
    shape
        As the file has it, the dimension first that changes fastest: (x, y, z).
    dtype
        Of what is stored, in this machine's byte order.
    slopes, intercepts
        Of each slice, or one of all: values are ``slope * stored + intercept``.
    low, high
        The least and the largest that can be stored, where it is whole numbers.
    affine
        (4, 4) float64 from voxels to millimetres; None where the file says nothing of it.
    doubt
        Why the affine cannot be relied on, if so.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    slopes: tuple[float, ...] = (1.0,)
    intercepts: tuple[float, ...] = (0.0,)
    low: int = 0
    high: int = 0
    affine: NDArray[np.float64] | None = None
    doubt: str = ""

    @property
    def n_bytes(self) -> int:
        """Bytes of what is stored."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def grid(self) -> SourceGrid | None:
        """Where its voxels lie, of three dimensions."""
        if self.affine is None or len(self.shape) != 3:
            return None
        return SourceGrid(self.shape, self.affine)

    @property
    def is_scaled(self) -> bool:
        """Whether values are others than those that are stored."""
        return set(self.slopes) != {1.0} or set(self.intercepts) != {0.0}

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Of the values: int16 or int32 where all that can be stored comes out whole and fits, else float32."""
        if not self.is_scaled:
            return self.dtype
        whole = all(number.is_integer() for number in (*self.slopes, *self.intercepts))
        if self.dtype.kind in "iu" and whole:
            pairs = [*zip(self.slopes, self.intercepts, strict=True)]
            ends = [slope * end + intercept for slope, intercept in pairs for end in (self.low, self.high)]
            for name in ("int16", "int32"):
                if min(ends) >= np.iinfo(name).min and max(ends) <= np.iinfo(name).max:
                    return np.dtype(name)
        return np.dtype("float64" if self.dtype.itemsize > 4 else "float32")

    @property
    def _dimensions(self) -> tuple[str, ...] | None:
        return ("x", "y", "z") if len(self.shape) == 3 else None

    def check(self, limit_bytes: int) -> None:
        """Refuse a volume that is too large, has no voxel, or whose affine is singular.

        Raises
        ------
        PayloadError
            If it is.
        """
        if not self.shape or min(self.shape) < 1:
            raise PayloadError(f"a volume of shape {self.shape}", "one voxel or more along each dimension")
        n_bytes = math.prod(self.shape) * max(self.dtype.itemsize, self.value_dtype.itemsize)
        check_size(f"a volume of {' × '.join(map(str, self.shape))}", n_bytes, limit_bytes)
        if self.affine is not None:
            check_affine(self.affine)
        if not all(map(math.isfinite, (*self.slopes, *self.intercepts))):
            raise PayloadError(
                f"a slope of {self.slopes[0]} and an intercept of {self.intercepts[0]}", "finite numbers"
            )

    def placed(self) -> SourceGrid:
        """The grid that a chain needs.

        Raises
        ------
        PayloadError
            If the file has none that can be relied on.
        """
        grid = self.grid
        if grid is None or self.doubt:
            shape = (
                f"a volume of {len(self.shape)} dimensions" if len(self.shape) != 3 else "a volume without an affine"
            )
            raise PayloadError(self.doubt or shape, "three dimensions in millimetres, which a chain works on")
        return grid

    def payload_look(self, chain: VolumeChain | None, limit_bytes: int) -> PayloadLook:
        """What its payload will be; raises as :meth:`check` and :meth:`placed`."""
        self.check(limit_bytes)
        if chain is None:
            dtype = self.value_dtype
            return PayloadLook(self.shape, dtype.name, math.prod(self.shape) * dtype.itemsize, self._dimensions)
        target = chain.grid(self.placed())
        n_bytes = math.prod(target.shape) * np.dtype(chain.dtype).itemsize
        check_size(f"a volume of {' × '.join(map(str, target.shape))} after its chain", n_bytes, limit_bytes)
        return PayloadLook(target.shape, chain.dtype, n_bytes, self._dimensions)

    def payload(self, raw: NDArray[Any], digest: bytes, chain: VolumeChain | None, limit_bytes: int) -> Payload:
        """Its payload.

        Parameters
        ----------
        raw
            What is stored, of this look's shape and dtype, any order in memory.
        digest
            Of the file.
        chain
            What is done to it; None for its values as they are.
        limit_bytes
            The most bytes of the result.

        Raises
        ------
        PayloadError
            If a chain cannot be applied.
        """
        if chain is None:
            return Payload(self._values(raw), digest, self.grid)
        grid = self.placed()
        if len(self.slopes) > 1:
            raw = self._values(raw)
            return Payload(chain.apply(raw, grid, limit_bytes), digest, grid)
        return Payload(chain.apply(raw, grid, limit_bytes, self.slopes[0], self.intercepts[0]), digest, grid)

    def _values(self, raw: NDArray[Any]) -> NDArray[Any]:
        if not self.is_scaled:
            return raw
        values = np.empty(raw.shape, self.value_dtype, order="F")
        slopes = np.broadcast_to(np.array(self.slopes), raw.shape[-1:])
        intercepts = np.broadcast_to(np.array(self.intercepts), raw.shape[-1:])
        for n in range(raw.shape[-1]):
            with np.errstate(over="ignore", invalid="ignore"):
                values[..., n] = raw[..., n].astype(np.float64) * slopes[n] + intercepts[n]
        return values
