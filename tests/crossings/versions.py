"""What a store holds after each action, in plain numpy, from the documentation alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .draws import Action, Case
from .rules import IRREGULAR, Key, Rule, asked_rule, found_rule


@dataclass(frozen=True)
class Version:
    """The rows of a store: texts of the channels by id and time, None for a row that only fills a gap."""

    rows: dict[Key, tuple[str, ...] | None]
    rule: Rule

    @property
    def ids(self) -> list[str]:
        """In the order of their UTF-8 bytes."""
        return sorted({id_ for id_, _ in self.rows}, key=lambda id_: id_.encode())

    def times(self, id_: str) -> list[int]:
        """Of one series, ascending."""
        return sorted(time for other, time in self.rows if other == id_)

    def runs(self) -> Iterator[tuple[str, list[int]]]:
        """Stretches without a gap: each time is one step after the one before, if there is a rule that says so."""
        for id_ in self.ids:
            times = self.times(id_)
            following = self.rule.follows(np.array(times)) if self.rule.regular else np.ones(len(times) - 1, bool)
            run = times[:1]
            for follows, time in zip(following.tolist(), times[1:], strict=True):
                if not follows:
                    yield id_, run
                    run = []
                run.append(time)
            yield id_, run


def history(case: Case) -> list[Version | None]:
    """The newest version after each action; None where the action is to be refused."""
    found: list[Version | None] = []
    committed: list[Version] = []
    for action in case.actions:
        after = _after(case, action, committed)
        found.append(after)
        if after is not None and (not committed or after is not committed[-1]):
            committed.append(after)
    return found


def _after(case: Case, action: Action, committed: list[Version]) -> Version | None:
    asked = case.freq or case.numbered
    if action.verb == "gc":
        return committed[-1]
    if action.verb == "rollback":
        return replace(committed[action.version - 1])
    if action.verb == "compact":
        before = committed[-1]
        return replace(before, rule=before.rule if asked else found_rule(before.rows, case.dated))
    before = committed[-1] if action.verb == "append" else Version({}, IRREGULAR)
    rows = dict(before.rows)
    for id_, time, texts in action.rows:
        known = rows.get((id_, time))
        if known is not None and action.on_duplicate == "error":
            return None
        if known is None or action.on_duplicate == "last":
            rows[id_, time] = texts
    if action.verb == "append":
        anew = before.rule.kind == "irregular" and len(before.rows) == len(before.ids)
        return Version(rows, found_rule(rows, case.dated) if anew else before.rule)
    rule = asked_rule(asked, rows) if asked else found_rule(rows, case.dated)
    if action.fill_gaps:
        skipped = _skipped(Version(rows, rule)) if rule.regular else None
        if skipped is None:
            return None
        rows |= dict.fromkeys(skipped)
    return Version(rows, rule)


def _skipped(version: Version) -> list[Key] | None:
    """Rows that series skip; None where a row lies between the steps of its series.

    A series most of whose steps are no whole ones stays as it is.
    """
    found: list[Key] = []
    for id_ in version.ids:
        times = np.array(version.times(id_))
        number, whole = version.rule.between(times)
        if 2 * int((~whole).sum()) > len(number):
            continue
        if not whole.all():
            return None
        for time, n in zip(times.tolist(), number.tolist(), strict=False):
            found += [(id_, version.rule.later(time, k)) for k in range(1, n)]
    return found
