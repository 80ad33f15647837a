"""Time features: where a time lies in its day, week and year."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

TimeFeature = Literal["hour_of_day", "day_of_week", "day_of_year"]
TimeEncoding = Literal["cyclic", "index"]

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400
_WEEK, _YEAR = 7, 365.2425


def time_index(times: Tensor, feature: TimeFeature, unit: str) -> Tensor:
    """Where times lie, in whole hours or days.

    Parameters
    ----------
    times
        int64, since 1970-01-01, of any shape.
    feature
        ``hour_of_day`` from 0; ``day_of_week``, Monday is 0; ``day_of_year``, the 1st of January is 0.
    unit
        Of `times`: s, ms, us or ns.

    Returns
    -------
    int64, of the same shape.
    """
    seconds = torch.div(times, PER_SECOND[unit], rounding_mode="floor")
    days = torch.div(seconds, _DAY_S, rounding_mode="floor")
    if feature == "hour_of_day":
        return torch.div(seconds - days * _DAY_S, 3600, rounding_mode="floor")
    if feature == "day_of_week":
        return torch.remainder(days + 3, _WEEK)  # 1970-01-01 was a Thursday
    return _day_of_year(days)


def time_cycles(times: Tensor, feature: TimeFeature, unit: str) -> Tensor:
    """Sine and cosine of the share of the day, week or year that has passed; (..., 2) float32."""
    seconds = torch.div(times, PER_SECOND[unit], rounding_mode="floor")
    of_day = torch.remainder(seconds, _DAY_S).double() / _DAY_S
    if feature == "hour_of_day":
        share = of_day
    elif feature == "day_of_week":
        share = (time_index(times, feature, unit) + of_day) / _WEEK
    else:
        share = (time_index(times, feature, unit) + of_day) / _YEAR
    angle = share * (2 * math.pi)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).float()


def _day_of_year(days: Tensor) -> Tensor:
    """Days since the 1st of January, from days since 1970-01-01.

    In years that begin in March, so that the leap day is their last, cut into eras of 400 years of 146,097 days (the
    proleptic Gregorian calendar repeats after each).
    """
    shifted = days + 719_468  # from 0000-03-01
    era_day = torch.remainder(shifted, 146_097)
    year = _whole(era_day - _whole(era_day, 1460) + _whole(era_day, 36_524) - _whole(era_day, 146_096), 365)
    of_year = era_day - (365 * year + _whole(year, 4) - _whole(year, 100))  # from the 1st of March
    # March to December lie in the same civil year, January and February in the next one.
    civil = year + (of_year >= 306)
    leap = ((torch.remainder(civil, 4) == 0) & (torch.remainder(civil, 100) != 0)) | (torch.remainder(civil, 400) == 0)
    return torch.where(of_year >= 306, of_year - 306, of_year + 59 + leap.long())


def _whole(values: Tensor, by: int) -> Tensor:
    return torch.div(values, by, rounding_mode="floor")
