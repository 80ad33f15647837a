"""Time features: where a time lies in its day, week and year."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from zstore import TimeStepRule

TimeFeature = Literal["time_of_day", "hour_of_day", "day_of_week", "day_of_year", "month_of_year"]
TimeEncoding = Literal["cyclic", "index"]

_SIZES = {"hour_of_day": 24, "day_of_week": 7, "day_of_year": 366, "month_of_year": 12}

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400
_WEEK = 7
_PERIOD_S = {
    "time_of_day": _DAY_S,
    "hour_of_day": _DAY_S,
    "day_of_week": _WEEK * _DAY_S,
    "day_of_year": 365.2425 * _DAY_S,
}
_DAYS_OF_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BEGINS_S = {
    "time_of_day": 0,
    "hour_of_day": 0,
    "day_of_week": 3 * _DAY_S,
    "day_of_year": 0,
}  # 1970-01-01 was a Thursday


def calendar_step(rule: TimeStepRule) -> str:
    """A step of months or weekdays, such as ``3 months``; empty where steps have one length, or none."""
    return f"{rule.count} {rule.kind}s" if rule.calendar else ""


def n_values(feature: TimeFeature, unit: str, step: int) -> int:
    """How many values a time feature has as an index; parameters as for :func:`time_index`."""
    return -(-_DAY_S * PER_SECOND[unit] // step) if feature == "time_of_day" else _SIZES[feature]


def time_index(times: Tensor, feature: TimeFeature, unit: str, step: int = 0) -> Tensor:
    """Where times lie, in whole steps, hours, days or months.

    Parameters
    ----------
    times
        int64, since 1970-01-01, of any shape.
    feature
        ``time_of_day``, in steps from 0; ``hour_of_day`` from 0; ``day_of_week``, Monday is 0; ``day_of_year``, the 1st
        of January is 0; ``month_of_year``, January is 0.
    unit
        Of `times`: s, ms, us or ns.
    step
        Between two rows, in `unit`; for ``time_of_day``.

    Returns
    -------
    int64, of the same shape.
    """
    if feature == "time_of_day":
        return torch.remainder(times, _DAY_S * PER_SECOND[unit]) // step
    seconds = times // PER_SECOND[unit]
    days = seconds // _DAY_S
    if feature == "hour_of_day":
        return (seconds - days * _DAY_S) // 3600
    if feature == "day_of_week":
        return torch.remainder(days + _BEGINS_S[feature] // _DAY_S, _WEEK)
    day, leap = _day_of_year(days)
    return day if feature == "day_of_year" else _month_of_year(day, leap)


def time_cycles(times: Tensor, feature: TimeFeature, unit: str) -> Tensor:
    """Sine and cosine of the share of the day, week or year that has passed; of the year in whole months, for months.

    Parameters
    ----------
    times, feature, unit
        As for :func:`time_index`. A week begins on Monday; a year has 365.2425 days, so that the share goes on evenly,
        and on the 1st of January it is within one and a half days of 0.

    Returns
    -------
    (..., 2) float32.
    """
    angle = _angle(times, feature, unit)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).float()


def cycles_along(time: Tensor, steps: range, freq: int, feature: TimeFeature, unit: str) -> Tensor:
    """:func:`time_cycles` of evenly spaced times, without a sine or cosine for each.

    Parameters
    ----------
    time
        (batch,) int64 times.
    steps
        How many times `freq` later than `time` each row is.
    freq
        Step between two rows, in `unit`.
    feature, unit
        As for :func:`time_index`.

    Returns
    -------
    (batch, step, 2) float32, by the addition theorems: one product of (batch, 2) and (2, 2 * step).
    """
    places = torch.arange(steps.start, steps.stop, steps.step, device=time.device)  # made there: no copy is waited for
    if feature == "month_of_year":  # goes on by leaps
        return time_cycles(time[:, None] + places * freq, feature, unit)
    here = time_cycles(time, feature, unit)
    further = places.double() * (freq / PER_SECOND[unit] * 2 * math.pi / _PERIOD_S[feature])
    sin, cos = further.sin().float(), further.cos().float()
    # sin(a + b) = sin a cos b + cos a sin b; cos(a + b) = cos a cos b - sin a sin b
    turned = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)])
    return (here @ turned.reshape(2, -1)).reshape(len(time), len(steps), 2)


def _angle(times: Tensor, feature: TimeFeature, unit: str) -> Tensor:
    if feature == "month_of_year":
        return time_index(times, feature, unit).double() * (2 * math.pi / _SIZES[feature])
    seconds = times // PER_SECOND[unit] + _BEGINS_S[feature]
    return torch.remainder(seconds.double(), _PERIOD_S[feature]) * (2 * math.pi / _PERIOD_S[feature])


def _day_of_year(days: Tensor) -> tuple[Tensor, Tensor]:
    """Days since the 1st of January, from days since 1970-01-01; and whether it is a leap year.

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
    return torch.where(of_year >= 306, of_year - 306, of_year + 59 + leap.long()), leap


def _month_of_year(day: Tensor, leap: Tensor) -> Tensor:
    """Months since January, from days since the 1st of it."""
    last_days = torch.tensor(_DAYS_OF_MONTHS, device=day.device).cumsum(0) - 1
    without_leap_day = torch.where(leap & (day >= 59), day - 1, day)  # the 29th of February counts as the 28th
    return torch.bucketize(without_leap_day, last_days)


def _whole(values: Tensor, by: int) -> Tensor:
    return values // by
