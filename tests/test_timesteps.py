"""Time step rules: step numbers and times, against pandas' offsets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import few
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore.format.rule_text import LAST_DAY, UNITS_PER_SECOND
from zstore.format.timesteps import TimeStepRule

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
NAMES = [
    *("s", "min", "h", "D", "B", "MS", "ME", "QS", "QE", "YS", "YE"),
    *(f"W-{day}" for day in WEEKDAYS),
    *(f"{name}-{month}" for name in ("QS", "QE", "YS", "YE") for month in MONTHS),
]
texts = st.builds(
    lambda count, name: f"{count}{name}" if count > 1 else name, st.integers(1, 5), st.sampled_from(NAMES)
)
units = st.sampled_from(sorted(UNITS_PER_SECOND))
starts = st.integers(0, 86_400 * 366 * 199).map(lambda s: pd.Timestamp("1900-01-01") + pd.Timedelta(seconds=s))


def closed(text: str, unit: str, clock: int) -> TimeStepRule:
    """The rule as pandas means it: first days of months, the usual anchors, at a time of day."""
    rule = TimeStepRule.parse(text, unit)
    usual = rule.period - 1 if rule.day == LAST_DAY else 0
    return replace(
        rule,
        anchor=usual if rule.anchor is None else rule.anchor,
        day=rule.day or 1,
        clock=clock if rule.clock is None else rule.clock,
    )


def drawn(text: str, unit: str, start: pd.Timestamp, n: int) -> tuple[TimeStepRule, Any]:
    """A rule, and the times of `n` steps of it as pandas has them."""
    dates = pd.date_range(start, periods=n, freq=text)
    times = dates.as_unit(unit).to_numpy().astype(np.int64)
    clock = int(times[0] % (86_400 * UNITS_PER_SECOND[unit])) if n else 0
    return closed(text, unit, clock), times


@settings(max_examples=few(150))
@given(text=texts, unit=units, start=starts, n=st.integers(1, 30))
def test_steps_are_those_of_pandas_and_lead_back_to_their_times(
    text: str, unit: str, start: pd.Timestamp, n: int
) -> None:
    rule, times = drawn(text, unit, start, n)
    number, on_grid = rule.steps(times, times[0])
    assert (np.arange(n).tolist(), True) == (number.tolist(), bool(on_grid.all()))
    assert times.tolist() == rule.times(number, times[0]).tolist()
    assert [True] * (n - 1) == rule.follows(times[:-1], times[1:]).tolist()
    number, on_grid = rule.steps(times)
    assert times[on_grid].tolist() == rule.times(number[on_grid]).tolist()
    if rule.count == rule.period or (rule.calendar and rule.count == 1):  # there is one grid only
        assert on_grid.all()


@settings(max_examples=few(80))
@given(text=texts, unit=units, start=starts, others=st.lists(starts, min_size=1, max_size=20))
def test_a_step_is_the_last_one_at_or_before_a_time_so_order_is_kept(
    text: str, unit: str, start: pd.Timestamp, others: list[pd.Timestamp]
) -> None:
    rule, (origin,) = drawn(text, unit, start, 1)
    times = np.sort(pd.DatetimeIndex(others).as_unit(unit).to_numpy().astype(np.int64))
    number, on_grid = rule.steps(times, origin)
    assert np.all(np.diff(number) >= 0)
    assert np.all(rule.times(number, origin) <= times)
    assert np.all(rule.times(number + 1, origin) > times)
    assert on_grid.tolist() == (rule.times(number, origin) == times).tolist()
    assert (number + ~on_grid).tolist() == rule.first_step(times, origin).tolist()


@settings(max_examples=few(80))
@given(text=st.sampled_from([n for n in NAMES if n not in "s min h D"]), start=starts, shift=st.integers(-400, 400))
def test_a_time_fits_a_rule_where_pandas_says_that_it_is_on_the_offset(
    text: str, start: pd.Timestamp, shift: int
) -> None:
    rule = closed(text, "s", 0)
    date = start.normalize() + pd.Timedelta(days=shift)
    assert pd.tseries.frequencies.to_offset(text).is_on_offset(date) == bool(rule.fits(date.value // 10**9))


@pytest.mark.parametrize("day", range(1, 32))
def test_a_day_of_the_month_is_the_last_one_where_the_month_is_shorter(day: int) -> None:
    rule = TimeStepRule("month", "s", day=day, clock=9 * 3600)
    months = np.datetime64("1899-12", "M") + np.arange(2500).astype("m8[M]")
    lengths = ((months + np.timedelta64(1, "M")).astype("M8[D]") - months.astype("M8[D]")).astype(int)
    dates = months.astype("M8[D]") + (np.minimum(day, lengths) - 1).astype("m8[D]")
    times = dates.astype("M8[s]").astype(np.int64) + 9 * 3600
    assert times.tolist() == rule.times(months.astype(np.int64)).tolist()
    assert months.astype(np.int64).tolist() == rule.steps(times)[0].tolist()


@given(text=texts, unit=units)
def test_a_rule_is_written_as_it_is_read_and_comes_back_from_its_document(text: str, unit: str) -> None:
    rule = TimeStepRule.parse(text, unit)
    assert replace(rule, anchor=None) == replace(TimeStepRule.parse(rule.text, unit), anchor=None)
    whole = closed(text, unit, 3600 * UNITS_PER_SECOND[unit])
    assert whole == TimeStepRule.from_json(whole.to_json(), unit)
    assert whole == closed(whole.text, unit, 3600 * UNITS_PER_SECOND[unit])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("MS", "MS"),
        ("2MS", "2MS"),
        ("ME", "ME"),
        ("QS", "QS"),
        ("QS-APR", "QS"),
        ("QS-FEB", "QS-FEB"),
        ("QE-MAR", "QE"),
        ("QE-OCT", "QE-OCT"),
        ("YE", "YE"),
        ("YE-JUN", "YE-JUN"),
        ("YS-JAN", "YS"),
        ("2YS-OCT", "2YS-OCT"),
        ("B", "B"),
        ("7D", "7d"),
        ("W", "7d"),
        ("W-WED", "W-WED"),
        ("2W-SUN", "2W-SUN"),
        ("15min", "15min"),
        ("90 s", "90s"),
        ("rows", "rows"),
        ("500ms", "500ms"),
    ],
)
def test_a_rule_has_one_text(text: str, shown: str) -> None:
    assert shown == TimeStepRule.parse(text, "ms").text


@pytest.mark.parametrize(
    "text", ["", "0D", "M", "me", "Q", "A", "2", "W-JUN", "QS-WED", "MS-FEB", "B-MON", "-1D", "1.5h"]
)
def test_what_is_no_rule_of_a_calendar_axis_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time step rule"):
        TimeStepRule.parse(text, "s")


@pytest.mark.parametrize("text", ["", "MS", "1D", "B", "0", "W-WED", "-3"])
def test_what_is_no_rule_of_plain_steps_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time step rule"):
        TimeStepRule.parse(text, None)


@pytest.mark.parametrize(
    "document",
    [
        None,
        7,
        {},
        {"kind": "lunar"},
        {"kind": "fixed", "count": 0, "period": 1, "anchor": 0, "clock": 0},
        {"kind": "fixed", "count": True, "period": 1, "anchor": 0, "clock": 0},
        {"kind": "fixed", "count": 2.0, "period": 1, "anchor": 0, "clock": 0},
        {"kind": "fixed", "count": 10**400, "period": 1, "anchor": 0, "clock": 0},
        {"kind": "month", "count": 3, "period": 3, "anchor": 3, "clock": 0, "day": 1},
        {"kind": "month", "count": 1, "period": 3, "anchor": 0, "clock": 0, "day": 1},
        {"kind": "month", "count": 1, "period": 1, "anchor": 0, "clock": 0, "day": 32},
        {"kind": "month", "count": 1, "period": 1, "anchor": 0, "clock": 86_400, "day": 1},
        {"kind": "weekday", "count": 1, "period": 1, "anchor": None, "clock": 0},
    ],
)
def test_a_document_that_is_no_rule_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="time step rule"):
        TimeStepRule.from_json(document, "s")


def test_rows_have_no_step_numbers_and_an_open_rule_neither() -> None:
    for rule in (TimeStepRule.parse("rows", "s"), TimeStepRule.parse("MS", "s"), TimeStepRule.parse("QS", "s")):
        with pytest.raises(ValueError, match="no step numbers"):
            rule.steps(np.zeros(1, np.int64))


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        (TimeStepRule("month", "s", day=15, clock=9 * 3600), "MS on day 15 at 09:00"),
        (TimeStepRule("month", "s", day=31, clock=86_399), "ME at 23:59:59"),
        (TimeStepRule("weekday", "ms", clock=16 * 3_600_000), "B at 16:00:00.000"),
        (TimeStepRule("irregular", "s"), "irregular"),
    ],
)
def test_a_rule_is_shown_with_its_constants(rule: TimeStepRule, shown: str) -> None:
    assert shown == str(rule)


@pytest.mark.parametrize("text", ["1ns", "1D", "W-WED", "MS", "5YE", "B"])
@pytest.mark.parametrize("year", [1700, 1970, 2250])
def test_the_first_step_at_a_border_beyond_all_times_is_before_or_behind_all(text: str, year: int) -> None:
    rule, (origin,) = drawn(text, "ns", pd.Timestamp(f"{year}-06-01"), 1)
    borders = np.array([-(2**63) + 1, 2**63 - 1])
    before, behind = rule.first_step(borders, origin).tolist()
    assert before < 0 < behind
