r"""How far intervals reach: the quantiles of validation errors that split conformal prediction takes.

A forecast has two ends, :math:`l \le u`: of one number both are that number, of quantiles they are the central pair at
the level :math:`1 - \alpha`. The error of a validation target is how far it lies outside,

.. math:: e = \max(l - y, y - u)

and of the n errors of a series at a step the radius r is the :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest. The
interval of a new forecast is :math:`[l - r, u + r]`. Where its error and those n are exchangeable, it holds the target
with a probability of at least :math:`1 - \alpha`, whatever the model is: Vovk, Gammerman & Shafer 2005, "Algorithmic
learning in a random world"; Lei et al. 2018, "Distribution-free predictive inference for regression"; of quantiles
Romano, Patterson & Candès 2019, "Conformalized quantile regression". Errors in time are not exchangeable, so coverage
on later rows is to be measured, as `test` does.

All is in scaled units. Errors of several series are pooled as multiples of the spread of each, the standard deviation
of its training targets, so that a small river is not given the interval of a large one.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zstore import StoreError, UsageError, whole_file

By = Literal["series", "all"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_OF_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError),  # also of an encryption or a compression that zip may have
)
_PARTS = ("ids", "own", "relative", "plain", "spread")


class IntervalOptions:
    """Intervals around forecasts, found by split conformal prediction on the validation windows.

    Parameters
    ----------
    levels
        Share of targets that each is to hold, such as ``[0.5, 0.8, 0.95]``. Of a model with quantiles, those whose
        central pairs it has. Default: no intervals.
    by
        Whose validation errors the interval of a series is made of, at each step: ``series``, its own, and where these
        are too few for the highest level those of ``all``; or always those of all, as multiples of the spread of each
        series.
    """

    def __init__(self, levels: list[float] | None = None, by: By = "series") -> None:
        self.levels = sorted(set(levels or ()))
        alike = len({f"{100 * level:.6g}" for level in self.levels}) < len(self.levels)  # as columns are named
        if alike or not all(0 < level < 1 for level in self.levels):
            raise UsageError(
                f"intervals of {levels}",
                expected="shares between 0 and 1, such as 0.8, that differ in their first six digits",
                fix="correct --intervals.levels",
            )
        self.by: By = by


@dataclass(frozen=True)
class Radii:
    """The radii of intervals, by id of a series.

    Parameters
    ----------
    levels
        (level,) ascending.
    ids
        (series,) of the store that they were found on.
    own
        (series, step, target, level) float32, in scaled units, NaN where a series takes those of all.
    relative
        (step, target, level) of all series, as multiples of their spread; NaN where no spread is known.
    plain
        (step, target, level) of all series, in scaled units, for those whose spread is not known.
    spread
        (series, target) of scaled training targets, NaN where a series has none.
    about
        What they are of, see :meth:`matches`.
    """

    levels: tuple[float, ...]
    ids: tuple[str, ...]
    own: Float32
    relative: Float64
    plain: Float64
    spread: Float64
    about: dict[str, Any]

    def matches(self, wanted: dict[str, Any]) -> bool:
        """Whether they are of these weights, levels and options: each item of `wanted` is theirs."""
        about = {**self.about, "levels": list(self.levels)}
        return all(about.get(name) == value for name, value in wanted.items())

    def of(self, ids: Sequence[str]) -> Float32:
        """(series, step, target, level) for the series of a store: their own, or those of all.

        Parameters
        ----------
        ids
            Of that store. Those that are not among `ids` here have the radii `plain`.
        """
        place = {id_: number for number, id_ in enumerate(self.ids)}
        found = np.broadcast_to(self.plain.astype(np.float32), (len(ids), *self.plain.shape)).copy()
        known = np.array([number for number, id_ in enumerate(ids) if id_ in place], np.int64)
        here = np.array([place[id_] for id_ in ids if id_ in place], np.int64)
        if len(known):
            pooled = (self.relative * self.spread[here][:, None, :, None]).astype(np.float32)
            pooled = np.where(np.isnan(pooled), found[known], pooled)
            found[known] = np.where(np.isnan(self.own[here]), pooled, self.own[here])
        return found

    def write(self, path: Path) -> None:
        """Keep them in a file, which is there as a whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"levels": self.levels, **self.about}, sort_keys=True)
        arrays = {name: np.asarray(getattr(self, name)) for name in _PARTS}
        arrays["about"] = np.asarray(about)
        with whole_file(path, "intervals") as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> Radii:
        """Read what :meth:`write` kept.

        Raises
        ------
        StoreError
            If the file is damaged, or is nothing of the kind.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                parts = {name: file[name] for name in _PARTS}
                about = json.loads(str(file["about"]))
            found = cls(tuple(about.pop("levels")), tuple(parts.pop("ids").tolist()), about=about, **parts)
            _check(found)
        except _OF_DAMAGE as error:
            raise StoreError(
                f"intervals that cannot be read ({str(error).partition(chr(10))[0]})",
                expected="a file that a fit or a test with --intervals.levels wrote",
                where=str(path),
                fix="remove the file: test and predict then find the intervals anew",
            ) from error
        return found


def _check(radii: Radii) -> None:
    """Raise ValueError where arrays do not fit each other."""
    n_steps, n_targets, n_levels = radii.plain.shape
    shapes = {
        "own": (len(radii.ids), n_steps, n_targets, n_levels),
        "relative": (n_steps, n_targets, n_levels),
        "spread": (len(radii.ids), n_targets),
    }
    for name, shape in shapes.items():
        if getattr(radii, name).shape != shape:
            raise ValueError(f"{name} of shape {getattr(radii, name).shape}, not {shape}")
    if n_levels != len(radii.levels) or not np.isfinite(radii.plain).all():
        raise ValueError("levels without radii")


def rank_of(n: int | Int64, level: float) -> Any:
    """Which of n errors in ascending order is the radius, from 1: above n where they are too few for the level."""
    return np.ceil(np.round((np.asarray(n) + 1) * level, 9)).astype(np.int64)


def least_errors(level: float) -> int:
    """How few errors suffice for a level: 19 for 0.95."""
    return math.ceil(round(level / (1 - level), 9))


def find_radii(
    errors: Float32, series: Int64, ids: Sequence[str], spread: Float64, levels: Sequence[float], by: By
) -> Radii:
    """Radii out of the errors of validation windows.

    Parameters
    ----------
    errors
        (window, step, target, level or 1) in scaled units, NaN where the target was not observed; 1 where the ends are
        the same at all levels. May be a memory map.
    series
        (window,) positions of their series.
    ids
        (series,) of the store.
    spread
        (series, target) of scaled training targets, NaN where a series has none.
    levels
        (level,) ascending.
    by
        See :class:`IntervalOptions`.

    Raises
    ------
    UsageError
        If even those of all series are too few for the highest level at some step of a target.

    Notes
    -----
    Memory: the errors of a series, and those of all at one step. They do not depend on the order of windows.
    """
    n_steps, n_targets = errors.shape[1:3]
    own = np.full((len(ids), n_steps, n_targets, len(levels)), np.nan, np.float32)
    order = np.argsort(series, kind="stable")
    present, starts = np.unique(series[order], return_index=True)
    if by == "series":
        for position, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            own[position] = _quantiles(errors[rows], levels)
    plain = np.empty((n_steps, n_targets, len(levels)))
    relative = np.empty_like(plain)
    of_window = np.where(spread > 0, spread, np.nan)[series][:, None, :, None]
    for step in range(n_steps):
        each = errors[:, step : step + 1]
        plain[step] = _quantiles(each, levels)[0]
        relative[step] = _quantiles((each / of_window).astype(np.float64), levels)[0]
        if np.isnan(plain[step]).any():
            target = int(np.argwhere(np.isnan(plain[step]))[0][0])
            n = int((~np.isnan(each[:, 0, target, 0])).sum())
            raise UsageError(
                f"{n:,} validation errors of target {target + 1} at step {step + 1}",
                expected=f"{least_errors(levels[-1]):,} at least for an interval of {100 * levels[-1]:g} %",
                fix="lower --intervals.levels, or a longer val in --data.split",
            )
    return Radii(tuple(levels), tuple(ids), own, relative, plain, spread, {})


def _quantiles(errors: NDArray[Any], levels: Sequence[float]) -> NDArray[Any]:
    """(step, target, level) radii of (window, step, target, level or 1), NaN where errors are too few for one."""
    ascending = np.sort(errors, axis=0)  # NaN last
    count = (~np.isnan(ascending[..., 0])).sum(axis=0)
    found = np.full((*count.shape, len(levels)), np.nan, errors.dtype)
    enough = rank_of(count, levels[-1]) <= count
    for number, level in enumerate(levels):
        column = ascending[..., min(number, ascending.shape[-1] - 1)]
        place = np.minimum(rank_of(count, level), np.maximum(count, 1)) - 1
        values = np.take_along_axis(column, place[None], axis=0)[0] if len(column) else np.nan
        found[..., number] = np.where(enough, values, np.nan)
    return found
