"""Which tasks write the shards, and what they report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from zstore.format.manifest import ObjectRecord
from zstore.format.moments import Moments, stack
from zstore.writing.segments import Segments
from zstore.writing.sort import ShardPlan, Spill
from zstore.writing.steps import StepReport

_LEAST_ROWS, _LEAST_CHANNELS = 1 << 16, 3  # of a part of a shard


@dataclass(frozen=True)
class ShardReport:
    """What one shard holds, to be merged in row order.

    Parameters
    ----------
    records
        Its objects.
    start
        Its first row.
    segments
        What is known of each series in it.
    steps
        Steps inside the shard.
    n_infinite
        (channel,) values that are infinite; looked for where the moments say that there are any.
    references
        The times of its rows, then holder and position of the payload of each field, on scratch space; None where there
        are no fields.
    """

    records: tuple[ObjectRecord, ...]
    start: int
    segments: Segments
    steps: StepReport
    n_infinite: tuple[int, ...] = ()
    references: Spill | None = None


@dataclass(frozen=True)
class ShardPart:
    """What one task writes: a shard, or some of its channels.

    Parameters
    ----------
    plan
        The rows.
    channels
        Positions of the channels. Whoever writes the first one writes the times too.
    n_rows
        Rows that it counts for where progress is told.
    """

    plan: ShardPlan
    channels: range
    n_rows: int

    @property
    def first(self) -> bool:
        """Whether the times are in it."""
        return self.channels.start == 0


@dataclass(frozen=True)
class PartReport:
    """What was written of some channels of a shard.

    Parameters
    ----------
    keys
        The shard's report, still without channels; None but of the first part. Of a whole shard it has the moments.
    records, n_infinite
        As of :class:`ShardReport`, of these channels.
    moments
        (segment, channel) of these channels.
    """

    keys: ShardReport | None
    records: tuple[ObjectRecord, ...]
    moments: Moments
    n_infinite: tuple[int, ...]


def share_out(plans: Sequence[ShardPlan], n_channels: int, workers: int) -> list[ShardPart]:
    """The tasks that write some shards, in their order: a shard each, but for the last ones.

    Where the shards cannot be dealt out evenly, those that are left over are cut by channels, so that no worker is idle
    while the last one is written. Each part puts series and times in order anew, which is worth three channels of work.
    """
    n_left = len(plans) % workers
    n_parts = max(1, min(workers // n_left, n_channels // _LEAST_CHANNELS)) if n_left else 1
    tasks = []
    for number, plan in enumerate(plans):
        n_rows = plan.stop - plan.start
        cut = number >= len(plans) - n_left and n_rows >= _LEAST_ROWS
        cuts = [n_channels * part // n_parts for part in range(n_parts + 1)] if cut else [0, n_channels]
        for start, stop in pairwise(cuts):
            share = n_rows * stop // n_channels - n_rows * start // n_channels if n_channels else n_rows
            tasks.append(ShardPart(plan, range(start, stop), share))
    return tasks


def join_parts(reports: Sequence[PartReport]) -> list[ShardReport]:
    """A report for each shard from those of its parts, all of them in their order."""
    firsts = [number for number, report in enumerate(reports) if report.keys is not None]
    shards = []
    for first, last in pairwise([*firsts, len(reports)]):
        parts = reports[first:last]
        keys: Any = parts[0].keys
        records = (*keys.records, *(record for part in parts for record in part.records))
        n_infinite = tuple(n for part in parts for n in part.n_infinite)
        segments = keys.segments
        if len(parts) > 1:
            segments = replace(segments, moments=stack([part.moments for part in parts], axis=1))
        shards.append(replace(keys, records=records, segments=segments, n_infinite=n_infinite))
    return shards
