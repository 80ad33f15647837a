"""From sorted blocks to a committed version: the stages that ingest, append and compact have in common.

Ordered -> Written -> summed -> committed, each made from the one before. How a verb comes to ordered rows, and what its
version says of them, is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from zstore.errors import SourceError
from zstore.format.manifest import ObjectRecord
from zstore.format.schema import Field, Schema
from zstore.format.soundness import LONGEST
from zstore.format.timesteps import TimeStepRule
from zstore.writing.encode_plan import choose_codecs
from zstore.writing.fields import Fields, write_fields
from zstore.writing.listing import Inventory
from zstore.writing.scheduler import Scheduler
from zstore.writing.shard_parts import ShardReport, join_parts, share_out
from zstore.writing.shards import RowsSpec, stored_trial, write_part
from zstore.writing.site import Site
from zstore.writing.sort import DuplicateTimeError, ShardPlan, SortedBlock, plan_shards
from zstore.writing.sources.payloads import BadPayloadsError, PayloadFaultError
from zstore.writing.spliced_index import IndexOf, MomentsOf
from zstore.writing.steps import Trial
from zstore.writing.version import Summary, border_steps, commit_version, rule_of, summarise


@dataclass(frozen=True)
class Ordered:
    """Rows on scratch space, sorted and packed, with nothing left to drop or to add.

    Parameters
    ----------
    blocks
        The rows; of two at one time those of the later block come later.
    row_start
        (series + 1,) first row of each series, counted from the first of these rows.
    rows
        How they are spilled, and where and how they are to lie in the arrays.
    rule
        The time step rule that the user, or the store, names; None to find it.
    calendar
        Whether a rule of a calendar may be found.
    fields
        What rows have beside scalar channels; None where they have nothing.
    """

    blocks: Sequence[SortedBlock]
    row_start: Any
    rows: RowsSpec
    rule: TimeStepRule | None
    calendar: bool = True
    fields: Fields | None = None

    @property
    def n_rows(self) -> int:
        """Rows."""
        return int(self.row_start[-1])


@dataclass(frozen=True)
class Written:
    """Rows in the arrays of a store, which no version has yet.

    Parameters
    ----------
    row_start
        As of :class:`Ordered`.
    rows
        How they lie, codecs included.
    plans, shards
        Per shard, its rows and what was written.
    summary
        Of each series.
    trials
        Per channel and field, the bytes of a sample with each codec tried.
    fields, field_records
        The fields, and the objects of them.
    """

    row_start: Any
    rows: RowsSpec
    plans: Sequence[ShardPlan]
    shards: Sequence[ShardReport]
    summary: Summary
    trials: dict[str, dict[str, int]]
    fields: tuple[Field, ...] = ()
    field_records: Sequence[ObjectRecord] = ()

    @property
    def n_rows(self) -> int:
        """Rows."""
        return int(self.row_start[-1])

    @property
    def first_place(self) -> int:
        """Place of the first row."""
        return self.rows.first_shard * self.rows.shard_rows

    @property
    def next_shard(self) -> int:
        """The first shard behind the rows."""
        return self.rows.first_shard + len(self.plans)

    @property
    def records(self) -> list[ObjectRecord]:
        """The objects that were written."""
        return [*(record for shard in self.shards for record in shard.records), *self.field_records]


@dataclass(frozen=True)
class Version:
    """All that a version is committed from.

    Parameters
    ----------
    schema
        What it holds; when it was committed is filled in.
    index, moments
        Per series of the store.
    shards
        Every shard that it needs.
    ledger
        The sources whose rows it has; those of the version before first, in its order.
    notes
        What else the root document keeps.
    """

    schema: Schema
    index: IndexOf
    moments: MomentsOf
    shards: Inventory
    ledger: Sequence[ObjectRecord]
    notes: dict[str, Any]


def write(
    ordered: Ordered,
    runner: Scheduler,
    refuse: Callable[[DuplicateTimeError | PayloadFaultError], SourceError] | None = None,
    codec: str | None = None,
    keep_codecs: bool = False,
) -> Written:
    """Write rows, shard by shard, and sum them up.

    Parameters
    ----------
    ordered
        The rows.
    runner
        Runs a task or more for each shard.
    refuse
        The error for two rows of one series at one time, or a payload that cannot be stored; None where there cannot be
        any.
    codec
        Of every channel, as for :func:`zstore.ingest`.
    keep_codecs
        Whether channels have theirs already.

    Raises
    ------
    SourceError
        From `refuse`.
    BadPayloadsError
        If payloads cannot be stored, where those are kept.
    """
    row_start, blocks, rows = ordered.row_start, ordered.blocks, ordered.rows
    trials: dict[str, dict[str, int]] = {}
    try:
        plans = plan_shards(row_start, blocks, rows.shard_rows)
        if not keep_codecs:
            rows, trials = choose_codecs(rows, row_start, blocks, codec)
        fields = ordered.fields or Fields()
        parts = share_out(plans, len(rows.channels), runner.workers)
        put = partial(write_part, blocks=blocks, spec=rows, scratch=fields.scratch)
        shards = join_parts(runner.map("write", put, parts, [part.n_rows for part in parts], "rows"))
        made = write_fields(fields, shards, row_start, rows, runner)
    except (DuplicateTimeError, PayloadFaultError) as error:
        if refuse is None:
            raise
        raise refuse(error) from None
    if made.bad:
        keys = [record.key for shard in shards for record in shard.records]
        raise BadPayloadsError(made.bad, [*keys, *(record.key for record in made.records)])
    summary = sum_up(ordered, rows, plans, shards, runner)
    return Written(row_start, rows, plans, shards, summary, {**trials, **made.trials}, made.fields, made.records)


def sum_up(
    ordered: Ordered, rows: RowsSpec, plans: Sequence[ShardPlan], shards: list[ShardReport], runner: Scheduler
) -> Summary:
    """Everything per series of rows that were written.

    Parameters
    ----------
    ordered, rows, plans, shards
        The rows, and how they were written; what the reports of shards know of each series is taken out of them.
    runner
        Reads times back where a rule of a calendar is tried, or steps were too many to report.
    """
    back = partial(stored_trial, spec=rows, row_start=ordered.row_start)

    def measure(rule: TimeStepRule) -> list[Trial]:
        return runner.map("gaps", partial(back, rule=rule), plans)

    rule, trials = rule_of(shards, rows.time.unit, ordered.rule, measure, ordered.calendar)
    breaks = [trial.breaks for trial in trials]
    if rule.plain:
        steps = [shard.steps.runs for shard in shards if shard.steps.runs is not None]
        breaks = [each.unlike(rule) for each in (*steps, border_steps(shards))]
        dense = [plan for plan, shard in zip(plans, shards, strict=True) if shard.steps.runs is None]
        breaks += [trial.breaks for trial in runner.map("gaps", partial(back, rule=rule), dense)]
    return summarise(shards, ordered.row_start, len(rows.channels), rule, breaks)


def next_schema(base: Schema, site: Site, written: Written, index: IndexOf) -> Schema:
    """The schema of the version that comes after one."""
    return replace(
        base,
        version=site.version,
        n_rows=index.n_rows,
        n_places=written.first_place + written.n_rows,
        n_series=index.n_series,
        channels=written.rows.channels,
        fields=written.fields,
        time=replace(base.time, rule=written.summary.rule),
    )


def commit(site: Site, version: Version, rows: RowsSpec) -> None:
    """Make a version the newest one, in one step. Scratch space is cleared before, so that no store needs it.

    Parameters
    ----------
    site
        Where it is built.
    version, rows
        What it holds, and how its rows lie.

    Raises
    ------
    SourceError
        If times are so far apart that an int64 cannot count the units between them.
    """
    _check_span(version)
    schema = replace(version.schema, committed=datetime.now(UTC).isoformat(timespec="seconds"))
    site.scratch.clear()
    commit_version(
        site.root, schema, rows, version.index, version.moments, version.shards, version.ledger, version.notes
    )


def _check_span(version: Version) -> None:
    ends, axis = version.index.time_ends(), version.schema.time
    if ends is None:
        return
    first, last = ends
    if last - first > LONGEST:
        raise SourceError(
            f"times from {axis.show(first)} to {axis.show(last)}, in {axis.unit or 'steps'}",
            expected=f"a first and a last time that are at most {LONGEST:,} {axis.unit or 'steps'} apart",
            fix="write times with fewer digits of a second, or ingest them into several stores",
        )
