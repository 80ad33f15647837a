"""Rows parsed and written; where payloads turn out to be bad, once more, without the rows that name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zstore.writing.left_out import LeftOut
from zstore.writing.parse import Parsed, parse
from zstore.writing.pipeline import Written
from zstore.writing.plan import Planned
from zstore.writing.resume import noted_objects
from zstore.writing.scheduler import Scheduler
from zstore.writing.site import Site
from zstore.writing.sources.payloads import BadPayloadsError

Ordered = TypeVar("Ordered")


def write_good(
    planned: Planned, site: Site, runner: Scheduler, attempt: Callable[[Parsed], tuple[Ordered, Written]]
) -> tuple[Parsed, Ordered, Written]:
    """Parse the sources of a plan and write their rows.

    Parameters
    ----------
    planned
        What to read. Where bad rows are set aside, so are rows with a payload that cannot be stored.
    site, runner
        Where to, and what runs the tasks.
    attempt
        Orders and writes what was parsed.

    Returns
    -------
    What was parsed in the end, and what `attempt` made of it.

    Raises
    ------
    SourceError
        On rows that are refused, or if there are too many bad ones.

    Notes
    -----
    As long as no payload is bad, nothing is done twice. Else everything is parsed and written again, once for all bad
    payloads that were found together; of payloads, shards before the first row that was left out are not read again.
    """
    left_out, stale = LeftOut.noted(planned.notes, planned.spec.fields), noted_objects(site)
    while True:
        parsed = parse(planned, site, runner, left_out)
        site.begun.append("rows")
        try:
            ordered, written = attempt(parsed)
        except BadPayloadsError as error:
            left_out = left_out.and_these(error.bad)
            left_out.note(site.scratch, planned.spec.fields)
            stale.update(error.keys)
            site.scratch.remove([report.spill.key for report in parsed.reports])
            continue
        stale.difference_update(record.key for record in written.records)
        if stale:
            site.root.remove(stale)
        return parsed, ordered, written
