"""Time step rules: how times and whole step numbers map to each other. Pure arithmetic, vectorised.

A rule counts *ordinals*: units of the time axis for fixed steps, months since 1970 for ``MS`` … ``YE``, weekdays since
1970 for ``B``. Ordinals are never less for a later time. A step is `count` ordinals, so everything that holds of fixed
steps holds of calendar steps too. What is not in the ordinal (day of the month, time of day) is a constant of the rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.ordinals import ceil_divided, days_of_months, days_of_weekdays, far_apart, months_of, weekdays_of
from zstore.format.rule_text import DAY_S, LAST_DAY, UNITS_PER_SECOND, Kind, RuleFields, parse_rule, text_of_rule

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
_MOST = 10**18
_HIGH = int(np.iinfo(np.int64).max)
_LOW = -_HIGH
_MOST_CALENDAR = 10**5  # months or weekdays in a step


@dataclass(frozen=True)
class TimeStepRule:
    """How far it is from one row of a series to the next.

    Parameters
    ----------
    kind
        ``fixed``: so many units of the axis. ``month``: calendar months. ``weekday``: Monday to Friday. ``rows``: each
        row is one step after the one before, whatever their times. ``irregular``: the same, since no rule was found.
    unit
        Of the time axis: ``s``, ``ms``, ``us`` or ``ns`` since 1970-01-01; None for plain steps.
    count
        Ordinals in a step.
    period, anchor
        Times have ordinals that leave `anchor` when divided by `period`, such as 12 and 5 for June. A period of 1 is no
        condition: each series has its own first ordinal. None: not known yet, see :attr:`complete`.
    day
        For ``month``, day of the month, 1 to 31, and the last day where a month is shorter. None: not known yet.
    clock
        Time of day of each row, in units of the axis, but for ``fixed`` without an anchor. None: not known yet.
    """

    kind: Kind
    unit: str | None = None
    count: int = 1
    period: int = 1
    anchor: int | None = 0
    day: int | None = 1
    clock: int | None = 0

    @classmethod
    def fixed(cls, count: int, unit: str | None) -> TimeStepRule:
        """Steps of so many units of the axis."""
        return cls("fixed", unit, count)

    @classmethod
    def parse(cls, text: str, unit: str | None) -> TimeStepRule:
        """Read a rule as a person writes it.

        Parameters
        ----------
        text
            ``15min``, ``1D``, ``7D``, ``W-WED``; ``MS ME QS QE YS YE`` with a count (``2MS``) and an anchor month
            (``YE-JUN``), as pandas writes them; ``B``; ``rows``; a whole number for plain steps. What it leaves open
            is None in the rule: the day of ``MS``, the anchor of ``QS`` without a month, every time of day.
        unit
            Of the time axis.

        Raises
        ------
        ValueError
            If `text` is no rule of this axis, or not a whole number of units.
        """
        fields = RuleFields("rows") if text.strip() == "rows" else parse_rule(text.strip(), unit)
        rule = None if fields is None else cls(unit=unit, **vars(fields))
        if rule is None or rule.count >= (_MOST_CALENDAR if rule.calendar else _MOST):
            raise ValueError(f"{text!r} is no time step rule of an axis in {unit or 'steps'}")
        return rule

    @property
    def regular(self) -> bool:
        """Whether step numbers follow from times alone: not so for ``rows`` and ``irregular``."""
        return self.kind not in ("rows", "irregular")

    @property
    def calendar(self) -> bool:
        """Whether steps differ in length."""
        return self.kind in ("month", "weekday")

    @property
    def plain(self) -> bool:
        """Whether the length of a step tells it: a fixed step without an anchor."""
        return self.kind == "fixed" and self.period == 1

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be taken from the rows."""
        return None not in (self.anchor, self.day, self.clock)

    @property
    def text(self) -> str:
        """The rule as :meth:`parse` reads it, but for what only the rows say; ``irregular`` where there is none."""
        fields = RuleFields(self.kind, self.count, self.period, self.anchor, self.day, self.clock)
        return text_of_rule(fields, self.unit) if self.regular else self.kind

    def __str__(self) -> str:
        """The rule for a person, such as ``MS on day 15 at 09:00``."""
        parts = [self.text]
        if self.kind == "month" and self.day not in (None, 1, LAST_DAY):
            parts.append(f"on day {self.day}")
        if self.clock and self.unit is not None:
            time = str(np.array(self.clock, f"datetime64[{self.unit}]")).partition("T")[2]
            parts.append(f"at {time.removesuffix(':00')}")
        return " ".join(parts)

    def noun(self, n: int = 2) -> str:
        """What `n` steps are called: ``months``, ``quarters``, ``years``, ``weekdays``, else ``steps``."""
        names = {1: "month", 3: "quarter", 12: "year"}
        name = "step"
        if self.kind == "month":
            name = names.get(self.count, "step")
        elif self.kind == "weekday" and self.count == 1:
            name = "weekday"
        return name if n == 1 else f"{name}s"

    @property
    def per_day(self) -> int:
        """Units of the axis in a day."""
        return DAY_S * UNITS_PER_SECOND[self.unit or "s"]

    @property
    def shortest(self) -> int:
        """Units of the axis that no step is shorter than; 1 for ``rows`` and ``irregular``."""
        if self.kind == "month":
            return self.count * 28 * self.per_day
        return self.count * (self.per_day if self.kind == "weekday" else 1)

    def begun(self, start: int) -> TimeStepRule:
        """The rule with what it leaves open taken from the time of a first row, which may not fit the rest."""
        days, clock = divmod(start, self.per_day)
        date = np.array(days, "datetime64[D]")
        month = date.astype("datetime64[M]")
        day = int((date - month.astype("datetime64[D]")).astype(np.int64)) + 1
        anchor = int(month.astype(np.int64)) % self.period if self.anchor is None else self.anchor
        return replace(
            self,
            anchor=anchor,
            day=day if self.day is None else self.day,
            clock=clock if self.clock is None else self.clock,
        )

    def steps(self, times: Int64 | int, origin: Int64 | int | None = None) -> tuple[Int64, Bool]:
        """Step numbers of times.

        Parameters
        ----------
        times
            Any shape, in units of the axis.
        origin
            Time of step 0, one or one for each time; None for the first time of the rule from 1970-01-01 on.

        Returns
        -------
        int64 numbers: the last step at or before each time. And whether each time lies on the grid of its origin: is
        that step's time, and the origin itself fits the rule.

        Raises
        ------
        ValueError
            If the rule is not :attr:`regular`, or not :attr:`complete`.
        """
        self._require()
        ordinals, fits = self._locate(np.asarray(times, np.int64))
        first: Int64 = np.asarray(self._first)
        if origin is not None:
            first, origin_fits = self._locate(np.asarray(origin, np.int64))
            fits = fits & origin_fits
        number, rest = np.divmod(ordinals - first, self.count)
        return number, (rest == 0) & fits

    def times(self, steps: Int64 | int, origin: Int64 | int | None = None) -> Int64:
        """Times of step numbers.

        Parameters
        ----------
        steps
            Any shape.
        origin
            Time of step 0, as for :meth:`steps`. Step 0 is that very time, even where it does not fit the rule.

        Returns
        -------
        int64, in units of the axis, of the shape that `steps` and `origin` have together.

        Raises
        ------
        ValueError
            As for :meth:`steps`; and if a calendar time does not fit int64.
        """
        self._require()
        steps = np.asarray(steps, np.int64)
        if origin is None:
            return self._times(self._first + steps * self.count)
        origin = np.asarray(origin, np.int64)
        if self.kind == "fixed":
            return np.asarray(origin + steps * self.count)
        moved = self._times(self._locate(origin)[0] + steps * self.count)
        return np.where(steps == 0, origin, moved)

    def first_step(self, times: Int64 | int, origin: Int64 | int) -> Int64:
        """The first step of the grid of `origin` at or after each time: so many steps lie before it from there on."""
        times, origin = np.asarray(times, np.int64), np.asarray(origin, np.int64)
        if self.kind == "fixed":
            self._require()
            ahead = np.asarray(times - origin)
            if far_apart(times, origin):
                overflown = (times < 0) != (origin < 0)
                overflown &= (ahead < 0) != (times < 0)
                ahead = np.where(overflown, np.where(times < 0, _LOW, _HIGH), ahead)
            return ceil_divided(ahead, self.count)
        reach = (self.count * LAST_DAY + 2 * LAST_DAY) * self.per_day  # steps next to a time are times too
        times = np.clip(times, _LOW + min(reach, _HIGH), _HIGH - min(reach, _HIGH))
        number, _ = self.steps(times, origin)
        return np.asarray(number + (self.times(number, origin) < times))

    def fits(self, times: Int64 | int) -> Bool:
        """Whether each time has the day, the time of day and the anchor of the rule; its phase is not looked at."""
        self._require()
        return self._locate(np.asarray(times, np.int64))[1]

    def follows(self, before: Int64, after: Int64) -> Bool:
        """Whether each time is one step after the one before."""
        number, on_grid = self.steps(after, before)
        following: Bool = on_grid & (number == 1)
        return following

    def advance(self, times: Int64) -> tuple[Int64, Bool]:
        """Steps from each of some times to the next, and whether both lie on one grid; one shorter than `times`."""
        self._require()
        ordinals, fits = self._locate(times)
        number, on_grid = np.diff(ordinals), fits[1:] & fits[:-1]
        if self.count == 1:
            return number, on_grid
        number, rest = np.divmod(number, self.count)
        return number, on_grid & (rest == 0)

    def to_json(self) -> dict[str, Any]:
        """The document kept in the root of a store."""
        document: dict[str, Any] = {"text": self.text, "kind": self.kind}
        if self.regular:
            document |= {"count": self.count, "period": self.period, "anchor": self.anchor, "clock": self.clock}
        return document | ({"day": self.day} if self.kind == "month" else {})

    @classmethod
    def from_json(cls, document: Any, unit: str | None) -> TimeStepRule:
        """Read :meth:`to_json` back.

        Raises
        ------
        ValueError
            If the document is no rule of this axis.
        """
        if not isinstance(document, dict):
            raise ValueError(f"time step rule {document!r}")
        kind = document.get("kind")
        if kind in ("rows", "irregular"):
            return cls(kind, unit)
        if kind not in ("fixed", "month", "weekday") or (unit is None and kind != "fixed"):
            raise ValueError(f"time step rule of kind {kind!r}")
        numbers: dict[str, Any] = {name: document.get(name) for name in ("count", "period", "anchor", "clock")}
        numbers["day"] = document.get("day") if kind == "month" else 1
        if any(type(number) is not int for number in numbers.values()):
            raise ValueError(f"time step rule {document!r}")
        rule = cls(kind, unit, **numbers)
        rule._check()
        return rule

    def _check(self) -> None:
        day, anchor, clock = self.day or 0, self.anchor or 0, self.clock or 0
        week = 7 * self.per_day if self.kind == "fixed" and self.unit is not None else 1
        periods = {"fixed": (1, week), "month": (1, 3, 12), "weekday": (1,)}[self.kind]
        sound = (
            1 <= self.count < (_MOST if self.kind == "fixed" else _MOST_CALENDAR)
            and self.period in periods
            and self.count % self.period == 0
            and 0 <= anchor < self.period
            and 1 <= day <= LAST_DAY
            and 0 <= clock < (1 if self.kind == "fixed" and self.period == 1 else self.per_day)
        )
        if not sound:
            raise ValueError(f"time step rule {self!r}")

    def _require(self) -> None:
        if not self.regular or not self.complete:
            raise ValueError(f"no step numbers under the rule {self.text!r}")

    @property
    def _first(self) -> int:
        """Ordinal of step 0."""
        return (self.anchor or 0) + ((self.clock or 0) if self.kind == "fixed" else 0)

    def _locate(self, times: Int64) -> tuple[Int64, Bool]:
        """The last ordinal whose time is not after each time; and whether that is its time, and has the anchor."""
        if self.plain:
            return times, np.ones(times.shape, np.bool_)
        if self.kind == "fixed":
            return times, (times - self._first) % self.period == 0
        days = times // self.per_day
        clock = times - days * self.per_day
        low, high = (int(days.min()), int(days.max())) if days.size else (0, 0)
        if high - low < days.size:  # a table of days is shorter
            days -= low
            table = self._locate_days(np.arange(low, high + 1))
            ordinals, same, fits = table[0][days], table[1][days], table[2][days]
        else:
            ordinals, same, fits = self._locate_days(days)
        if self.clock:
            ordinals -= same & (clock < self.clock)
        return ordinals, fits & (clock == self.clock)

    def _locate_days(self, days: Int64) -> tuple[Int64, Bool, Bool]:
        """The last ordinal whose day is not after each day; whether it is that day; and whether it has the anchor."""
        ordinals = months_of(days) if self.kind == "month" else weekdays_of(days)
        begin = self._days_of(ordinals)
        same = begin == days
        fits = same if self.period == 1 else same & ((ordinals - (self.anchor or 0)) % self.period == 0)
        return ordinals - (begin > days), same, fits

    def _times(self, ordinals: Int64) -> Int64:
        if self.kind == "fixed":
            return ordinals
        days = self._days_of(ordinals)
        if days.size and max(abs(int(days.min())), abs(int(days.max()))) >= np.iinfo(np.int64).max // self.per_day:
            raise ValueError(f"a time beyond what int64 holds in {self.unit}")
        return np.asarray(days * self.per_day + (self.clock or 0))

    def _days_of(self, ordinals: Int64) -> Int64:
        """Days since 1970 of months, by the rule's day in each, or of weekdays."""
        return days_of_weekdays(ordinals) if self.kind == "weekday" else days_of_months(ordinals, self.day or 1)


IRREGULAR = TimeStepRule("irregular")
"""No rule: rows lie at times of their own."""
UNIT_STEPS = TimeStepRule("fixed")
"""Plain steps of 1."""
