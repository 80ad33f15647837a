"""The phases of an ingest, each a list of independent tasks with a barrier after it; and what they say."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Literal

import numpy as np

from zstore._version import __version__
from zstore.errors import SourceError, UsageError
from zstore.format.codecs import AUTO, default_codec, smallest
from zstore.format.encodings import FAMILIES
from zstore.format.index import StaticAttribute
from zstore.format.layout import CHUNK_ROWS, SHARD_ROWS, safe_names
from zstore.format.manifest import ObjectRecord
from zstore.format.schema import Field, TimeAxis
from zstore.format.storage import Storage
from zstore.format.timesteps import TimeStepRule
from zstore.writing.blocks import BlockReport
from zstore.writing.duplicates import drop_rows, find_extra, find_fillers
from zstore.writing.fan_in import plan_shards
from zstore.writing.gaps import MOST_ROWS, OffGridError, TooManyRowsError, count_off_grid, fill, find_steps, try_rule
from zstore.writing.parse import Parsed
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import Gathered, RowsSpec, ShardReport, stored_trial
from zstore.writing.site import Site
from zstore.writing.sort import (
    Border,
    DuplicateTimeError,
    ShardPlan,
    SortedBlock,
    count_rows,
    find_border,
)
from zstore.writing.sources.cells import PLAIN
from zstore.writing.sources.protocol import Block, Source, SourceFile
from zstore.writing.sources.table import TableSpec
from zstore.writing.statics import StaticTable, match_statics, named_words
from zstore.writing.steps import Trial, choose_rule
from zstore.writing.version import Summary, border_steps, rule_of, summarise

logger = logging.getLogger(__name__)

_SAMPLE_CHUNKS = 2
_MIN_BLOCK, _MAX_BLOCK = 1 << 20, 1 << 24
_BLOCKS = 24  # fewer leave threads idle at the end of a phase
BLOCK_COPIES = 8  # a block in memory: its bytes, Arrow's columns, float64, sorted and packed copies
_SHOWN_IDS = 3
RULES = "a step such as 1D, 1h, 15min or 30s, a rule such as MS, QE, YE-JUN, W-WED or B, or rows"
MOST_BAD = 0.5  # share of bad rows above which it is not the rows that are wrong, but how they are read


class Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """End a phase."""
        now = perf_counter()
        self.laps[phase] = round(now - self._last, 3)
        logger.info("%s took %.1f s", phase, now - self._last)
        self._last = now


def block_bytes(memory_limit: int, workers: int, n_bytes: int) -> int:
    """Bytes of sources parsed at once, of `n_bytes` in all, so that every worker stays within its share of memory."""
    share = memory_limit // workers // BLOCK_COPIES
    return max(min(share, n_bytes // _BLOCKS, _MAX_BLOCK), _MIN_BLOCK)


def plan_of(ledger: Sequence[ObjectRecord], version: int, **reading: Any) -> str:
    """Everything that spills depend on, as text."""
    sources = [[record.key, record.n_bytes, record.digest] for record in ledger]
    return json.dumps([__version__, version, sources, reading])


def without_duplicates(
    n_series: int, blocks: list[SortedBlock], keep: Literal["first", "last"], runner: Scheduler
) -> list[SortedBlock]:
    """Blocks that have each (series, time) once: the first or the last in their order."""
    return _without(n_series, blocks, partial(find_extra, blocks=blocks, keep=keep), runner)


def without_fillers(n_series: int, blocks: list[SortedBlock], n_old: int, runner: Scheduler) -> list[SortedBlock]:
    """Blocks of which the first `n_old`, of a store, have no filler where another block has a row."""
    return _without(n_series, blocks, partial(find_fillers, blocks=blocks, n_old=n_old), runner)


def _without(
    n_series: int,
    blocks: list[SortedBlock],
    find: Callable[[ShardPlan], list[tuple[int, Any]]],
    runner: Scheduler,
) -> list[SortedBlock]:
    """Blocks without the rows that `find` names between two places of the final order."""
    plans = plan_shards(count_rows(n_series, blocks), blocks, unique=False)
    extra: dict[int, list[Any]] = {}
    for number, rows in (pair for pairs in runner.map("duplicates", find, plans) for pair in pairs):
        extra.setdefault(number, []).append(rows)
    tasks = [(blocks[number], np.sort(np.concatenate(rows))) for number, rows in extra.items()]
    thinned = dict(zip(extra, runner.map("drop", drop_rows, tasks), strict=True))
    return [thinned.get(number, block) for number, block in enumerate(blocks)]


def fill_skipped(
    ids: Any,
    blocks: list[SortedBlock],
    asked: TimeStepRule | None,
    rows: RowsSpec,
    scratch: Storage,
    runner: Scheduler,
) -> tuple[TimeStepRule, list[SortedBlock]]:
    """The rule of the rows, and blocks of missing rows, one for each shard's worth of rows that skips any."""
    if asked is not None and not asked.regular:
        raise UsageError(
            f"--fill-gaps with --freq {asked.text}",
            expected="a rule that says where a row is missing",
            fix="leave out --fill-gaps, or name a rule such as 1D, MS or B with --freq",
        )
    plans = plan_shards(count_rows(len(ids), blocks), blocks, unique=False)
    rule = asked
    if rule is None or not rule.plain:
        reports = runner.map("steps", partial(find_steps, blocks=blocks, axis=rows.time), plans)

        def measure(rule: TimeStepRule) -> list[Trial]:
            return runner.map("rule", partial(try_rule, blocks=blocks, rule=rule), plans)

        rule, _ = choose_rule(reports, rows.time.unit, asked, measure)
    if not rule.regular:
        raise SourceError(
            "gaps in irregular times cannot be filled",
            expected="a step that more than half of all rows have",
            fix="--freq STEP, or leave out --fill-gaps",
        )
    axis = replace(rows.time, rule=rule)
    n_off = np.zeros(len(ids), np.int64)
    for series, counts in runner.map("grid", partial(count_off_grid, blocks=blocks, rule=rule), plans):
        n_off[series] += counts
    irregular = np.flatnonzero(2 * n_off > np.diff(count_rows(len(ids), blocks)) - 1)
    try:
        n_channels = len(rows.channels)
        make = partial(fill, blocks=blocks, rule=rule, irregular=irregular, n_channels=n_channels, scratch=scratch)
        return rule, [block for block in runner.map("fill", make, plans) if block is not None]
    except OffGridError as error:
        raise SourceError(
            f"time {axis.show(error.time)} of id {str(ids[error.series])!r} is off the grid",
            expected=f"times a multiple of {axis.show_freq()} after the first"
            if rule.plain
            else f"times as {axis.show_freq()} has them",
            fix="another --freq, or leave out --fill-gaps",
        ) from None
    except TooManyRowsError as error:
        raise SourceError(
            f"filling gaps would add {error.args[0]:,} rows to a stretch of {rows.shard_rows:,}",
            expected=f"at most {MOST_ROWS:,}",
            fix="a larger --freq, or leave out --fill-gaps",
        ) from None


def rows_spec(
    site: Site, spec: TableSpec, reports: Sequence[BlockReport], dtype: str, freq: str | None = None
) -> RowsSpec:
    """How rows are to lie in the arrays: every channel's variable, type and packing."""
    variables = safe_names([channel.name for channel in spec.channels])
    channels: list[Field] = []
    for n, (channel, variable) in enumerate(zip(spec.channels, variables, strict=True)):
        forms = [report.forms[n] for report in reports if report.spill.n_rows]
        encoding = FAMILIES[channel.kind].choose(forms, dtype)
        channels.append(Field(channel.name, variable, encoding, dtype, channel.units))
    axis = TimeAxis(spec.time.unit, zone="UTC" if spec.time.zone else None)
    axis = replace(axis, rule=asked_rule(freq, axis) or axis.rule)
    rows = RowsSpec(site.root, (), (), axis, CHUNK_ROWS, SHARD_ROWS, site.first_shard)
    return rows.of(channels, [report.forms for report in reports])


def choose_codecs(
    rows: RowsSpec, row_start: Any, blocks: Sequence[SortedBlock], codec: str | None
) -> tuple[RowsSpec, dict[str, dict[str, int]]]:
    """The channels with their codecs, and, for ``auto``, the bytes of a sample of each with every candidate."""
    trials: dict[str, dict[str, int]] = {}
    chosen = [codec or default_codec(channel.encoding.dtype) for channel in rows.channels]
    n_rows = int(row_start[-1])
    if codec == AUTO and n_rows:
        stop = min(_SAMPLE_CHUNKS * rows.chunk_rows, n_rows)
        end = Border(len(row_start) - 1, None) if stop == n_rows else find_border(stop, row_start, blocks, unique=False)
        sample = Gathered(ShardPlan(0, 0, stop, Border(0, None), end), blocks, rows)
        for position, channel in enumerate(rows.channels):
            chosen[position], trials[channel.name] = smallest(sample.column(position), rows.chunk_rows)
    elif codec == AUTO:
        chosen = [default_codec(channel.encoding.dtype) for channel in rows.channels]
    channels = tuple(replace(channel, codec=name) for channel, name in zip(rows.channels, chosen, strict=True))
    return replace(rows, channels=channels), trials


def sum_up(
    shards: Sequence[ShardReport],
    plans: Sequence[ShardPlan],
    rows: RowsSpec,
    row_start: Any,
    asked: TimeStepRule | None,
    runner: Scheduler,
    calendar: bool = True,
) -> Summary:
    """Everything per series of the rows that were written.

    Parameters
    ----------
    shards, plans, rows, row_start
        What was written.
    asked
        The rule that the user, or the store, names; None to find it.
    runner
        Reads times back where a rule of a calendar is tried, or steps were too many to report.
    calendar
        Whether such a rule may be found.
    """
    back = partial(stored_trial, spec=rows, row_start=row_start)

    def measure(rule: TimeStepRule) -> list[Trial]:
        return runner.map("gaps", partial(back, rule=rule), plans)

    rule, trials = rule_of(shards, rows.time.unit, asked, measure, calendar)
    breaks = [trial.breaks for trial in trials]
    if rule.plain:
        steps = [shard.steps.runs for shard in shards if shard.steps.runs is not None]
        breaks = [each.unlike(rule) for each in (*steps, border_steps(shards))]
        dense = [plan for plan, shard in zip(plans, shards, strict=True) if shard.steps.runs is None]
        breaks += [trial.breaks for trial in runner.map("gaps", partial(back, rule=rule), dense)]
    return summarise(shards, row_start, len(rows.channels), rule, breaks)


def matched(ids: Any, known: StaticTable) -> tuple[tuple[StaticAttribute, ...], list[str]]:
    """Static attributes in the order of `ids`, and what should be known of them."""
    statics, n_without, n_unused = match_statics(ids, known.ids, known.attributes)
    remarks = [f"{n_without} series have no static attributes"] if n_without else []
    remarks += [f"{n_unused} ids of {known.name} are not in the rows"] if n_unused else []
    return statics, [*known.notes, *remarks]


def duplicate_error(
    error: DuplicateTimeError, ids: Any, source: Source, blocks: Sequence[Block], spec: TableSpec, axis: TimeAxis
) -> SourceError:
    """Two rows at one time as the error that refuses the ingest, with the places of both."""
    id_ = str(ids[error.series])
    places = source.explain(blocks, spec, id_, error.time, limit=2)
    if len(places) == 1:
        places.append("in the store already")
    return SourceError(
        f"duplicate time: id {id_!r} has {axis.show(error.time)} twice",
        expected="one row per (id, time)",
        where=" and ".join(places),
        fix="--on-duplicate first or last, clean the file, or name the id column with --id if it holds several series",
    )


def channel_notes(rows: RowsSpec, inexact: Sequence[int], spec: TableSpec) -> Iterator[str]:
    """What should be known of the channels."""
    columns = {channel.name: channel.column for channel in spec.channels}
    for channel, n_inexact in zip(rows.channels, inexact, strict=True):
        column = columns.get(channel.name, channel.name)
        if n_inexact and channel.dtype == "float32":
            yield (
                f"{channel.name} has {n_inexact:,} values with more digits than float32 keeps (about 7); "
                "--dtype float64 keeps them"
            )
        elif n_inexact:
            yield (
                f"{channel.name} has {n_inexact:,} values with more digits than float64 keeps (about 16); "
                f"--categories {column} keeps them as words"
            )
        if channel.kind == "category":
            yield f"{channel.name} holds text and is stored as categories; --leave-out {column} leaves it out"
            yield from named_words(channel.name, column, list(channel.categories), spec.missing)
    if rows.time.zone is not None:
        yield f"times have offsets and are stored as {rows.time.zone}"


def infinite_notes(rows: RowsSpec, shards: Sequence[ShardReport]) -> Iterator[str]:
    """Channels that have infinite values among the rows that were written."""
    for position, channel in enumerate(rows.channels):
        n_infinite = sum(shard.n_infinite[position] for shard in shards)
        if n_infinite:
            yield f"{channel.name} has {n_infinite:,} infinite values, which models cannot be trained on"


def source_notes(source: Source, parsed: Parsed, spec: TableSpec, seen: Collection[str]) -> Iterator[str]:
    """What should be known of how the sources were read; `seen` are missing texts that statics have."""
    yield from source.notes(sum(report.n_blank for report in parsed.reports), parsed.bad)
    met = frozenset(seen).union(*(report.seen for report in parsed.reports))
    numbers = {PLAIN.read(name.rpartition("=")[2]) for name in met} - {None}
    for name in sorted(spec.tracked - met):
        if "=" in name or PLAIN.read(name) not in numbers:
            yield f"--missing {name} never occurred"


def check_most_bad(most: float | int) -> None:
    """Refuse a `max_bad_rows` that is neither a number of rows nor a share."""
    if not (most >= 0 if isinstance(most, int) else 0 <= most <= 1):
        raise UsageError(
            f"--max-bad-rows {most}",
            expected="a number of rows from 0 on (an int), or a share from 0 to 1 (a float)",
            fix="as in --max-bad-rows 20 or --max-bad-rows 1%",
        )


def refuse_empty(n_rows: int, n_bad: int, sources: Sequence[SourceFile]) -> None:
    """Refuse to make a store without a row."""
    if n_rows == 0:
        raise SourceError(
            f"no row to store ({n_bad:,} are bad)" if n_bad else "no row to store",
            expected="at least one row below the header",
            where=sources[0].name if len(sources) == 1 else f"{sources[0].name} and {len(sources) - 1:,} more",
            fix="check the files",
        )


def asked_rule(freq: str | None, axis: TimeAxis) -> TimeStepRule | None:
    """The rule that the user named."""
    if freq is None:
        return None
    try:
        return axis.parse_freq(freq)
    except ValueError:
        wanted = "a whole number of steps, or rows" if axis.unit is None else RULES
        raise UsageError(f"frequency {freq!r}", expected=wanted, fix="choose one for --freq") from None


def freq_notes(summary: Summary, axis: TimeAxis, row_start: Any, ids: Any) -> Iterator[str]:
    """What should be known of the steps between rows."""
    rule = summary.rule
    if rule.kind == "irregular" and np.any(np.diff(row_start) > 1):
        yield "times are irregular: no step between rows is the usual one, so runs are not split"
    elif rule.regular and summary.n_gaps:
        usual = str(rule)
        yield f"{summary.n_gaps:,} steps in {summary.n_gapped:,} series differ from {usual}; runs are split there"
        if len(summary.irregular):
            shown = ", ".join(repr(str(ids[series])) for series in summary.irregular[:_SHOWN_IDS])
            more = ", …" if len(summary.irregular) > _SHOWN_IDS else ""
            off = "multiple of" if rule.plain else "whole step of"
            yield (
                f"{len(summary.irregular):,} series are irregular and kept as they are: most of their steps are no "
                f"{off} {usual} ({shown}{more}); ingest them apart for windows over their rows"
            )
