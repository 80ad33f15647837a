"""From what the shards report to the small objects of a version: index, moments, manifest, root document."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import StoreError
from zstore.format.commit import root_document
from zstore.format.documents import group_document, to_bytes
from zstore.format.index import RunTable, SeriesIndex, StaticAttribute, cut_runs
from zstore.format.layout import PARTED_VERSION, ROOT, TIME, index_path, moments_path, root_copy_key
from zstore.format.manifest import ObjectRecord
from zstore.format.moments import Moments, stack
from zstore.format.rowarrays import array_names, origin_name
from zstore.format.schema import Schema
from zstore.format.timesteps import TimeStepRule
from zstore.storage.protocol import Storage
from zstore.writing.encoded import byte_plan, place_plans
from zstore.writing.listing import Inventory, form_of, manifest_in_one, manifest_in_parts
from zstore.writing.shard_parts import ShardReport
from zstore.writing.shards import RowsSpec, digest_plan, origin_plan
from zstore.writing.small import small_arrays_of, write_small
from zstore.writing.spliced_index import IndexOf, MomentsOf
from zstore.writing.steps import Breaks, Steps, Trial, choose_rule, report_steps

logger = logging.getLogger(__name__)

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Summary:
    """Everything per series, merged from all shards.

    Parameters
    ----------
    time_start, time_stop
        (series,) first and last time.
    moments
        (series, channel).
    runs
        The run table.
    rule
        How far it is from one row to the next.
    """

    time_start: Int64
    time_stop: Int64
    moments: Moments
    runs: RunTable
    rule: TimeStepRule


def rule_of(
    shards: Sequence[ShardReport],
    unit: str | None,
    asked: TimeStepRule | None,
    measure: Callable[[TimeStepRule], Sequence[Trial]],
    calendar: bool,
) -> tuple[TimeStepRule, Sequence[Trial]]:
    """The rule of all rows, and its trials on shards and on the borders between them; see :func:`choose_rule`."""
    border = border_steps(shards)

    def everywhere(rule: TimeStepRule) -> Sequence[Trial]:
        breaks = border.unlike(rule)
        return [*measure(rule), Trial(len(border.row) - len(breaks.row), 0, breaks)]

    reports = [*(shard.steps for shard in shards), report_steps(border)]
    return choose_rule(reports, unit, asked, everywhere, calendar)


def summarise(
    shards: list[ShardReport], row_start: Int64, n_channels: int, rule: TimeStepRule, parts: Sequence[Breaks]
) -> Summary:
    """Merge what the shards report, in row order.

    Parameters
    ----------
    shards
        In row order. What they know of each series is taken out of them, so that it does not lie in memory twice.
    row_start
        (series + 1,) first row of each series.
    n_channels
        Channels of each row.
    rule
        How far it is from one row to the next.
    parts
        Where it is not that far, in any order.
    """
    n_series = len(row_start) - 1
    time_start, time_stop = np.zeros(n_series, np.int64), np.zeros(n_series, np.int64)
    moments, last_series = Moments.empty((n_series, n_channels)), -1
    for number, shard in enumerate(shards):
        segments = shard.segments.brought_back()
        series, fresh = segments.series, segments.moments
        shards[number] = replace(shard, segments=segments.at(slice(0, 0)))
        if not len(series):
            continue
        goes_on = int(series[0]) == last_series  # one that spans shards, whose moments are merged in row order
        if goes_on:
            first = moments.at(slice(last_series, last_series + 1)).merge(fresh.at(slice(0, 1)))
            fresh = stack([first, fresh.at(slice(1, None))])
        time_start[series[int(goes_on) :]] = segments.first_time[int(goes_on) :]
        time_stop[series] = segments.last_time
        for name, values in moments.fields().items():
            values[series] = fresh.fields()[name]
        last_series = int(series[-1])
    breaks = _merge_breaks(parts)
    n_rows = int(row_start[-1])
    runs = cut_runs(row_start[:-1], np.arange(n_series), n_rows, breaks.row, breaks.time, time_start)
    return Summary(time_start, time_stop, moments, runs, rule)


def index_of(
    ids: NDArray[Any],
    row_start: Int64,
    summary: Summary,
    statics: tuple[StaticAttribute, ...],
    first_place: int = 0,
) -> SeriesIndex:
    """The index of rows that lie in one extent per series, from `first_place` on."""
    return SeriesIndex(
        texts=ids,
        row_size=np.diff(row_start),
        extent_ptr=np.arange(len(row_start)),
        extent_start=row_start[:-1] + first_place if first_place else row_start[:-1],
        extent_stop=row_start[1:] + first_place if first_place else row_start[1:],
        runs=summary.runs,
        time_start=summary.time_start,
        time_stop=summary.time_stop,
        statics=statics,
    )


def rows_of(root: Storage, schema: Schema) -> RowsSpec:
    """How the rows of a committed version lie in its arrays."""
    return RowsSpec(root, schema.channels, (), schema.time, schema.chunk_rows, schema.shard_rows)


def commit_version(
    root: Storage,
    schema: Schema,
    rows: RowsSpec,
    index: IndexOf,
    moments: MomentsOf,
    shards: Inventory,
    ledger: Sequence[ObjectRecord],
    notes: dict[str, Any],
) -> None:
    """Write every small object of a version, then make it the newest one.

    Parameters
    ----------
    root
        Where the store is.
    schema
        What the version holds; its format version is settled here.
    rows
        How its rows lie in the arrays.
    index, moments
        Per series.
    shards
        Every shard that the version needs.
    ledger
        The sources whose rows it has; those of the version before first, in its order.
    notes
        What else the root document keeps.
    """
    version, nodes = schema.version, _row_nodes(rows, schema)
    # The arrays' own documents mirror those in the root. They change with every version, so they are in no manifest.
    mirrors = {f"{path}/{ROOT}": to_bytes(document) for path, document in nodes.items()}
    arrays = small_arrays_of(index, moments, version, schema.time.attributes())
    of_arrays, documents = write_small(root, arrays)
    groups = {group: group_document() for group in ("index", "moments", index_path(version), moments_path(version))}
    small = {f"{group}/{ROOT}": to_bytes(document) for group, document in groups.items()}
    of_small = [*of_arrays, *starmap(ObjectRecord.of, small.items())]
    schema = replace(schema, form=form_of(schema, shards.n_objects + len(of_small), len(ledger)))
    manifest = manifest_in_parts if schema.form == PARTED_VERSION else manifest_in_one
    made = manifest(schema, shards, of_small, ledger)
    nodes |= {**documents, **groups, **made.nodes}
    attributes = {
        "Conventions": "CF-1.11",
        **({"featureType": "timeSeries"} if index.contiguous else {}),
        "zstore": {
            **schema.to_json(),
            "manifest": [[r.key, r.n_bytes, r.digest] for r in starmap(ObjectRecord.of, made.listing.items())],
            **notes,
        },
    }
    document = root_document(attributes, nodes)
    everything = {**small, **made.parts, **made.listing, **mirrors}
    # Mirrors stay those of the version before until this one is committed; the documents of groups stay for good.
    old = {key for key in everything if key.count("/") == 1 and root.n_bytes(key) is not None}
    written = {key: content for key, content in everything.items() if key not in old}
    root.write_all(written)
    root.commit([*made.flushed, *(record.key for record in of_arrays), *written], ROOT, document)
    # The copy comes after the commit: a copy that is newer than the root then tells of a root that was put back.
    try:
        root.replace_all(mirrors)
        root.replace(root_copy_key(version), document)  # last: it tells that all copies are made
    except StoreError as error:
        logger.warning("version %d is committed; the next writer will finish its copies: %s", version, error)


def _row_nodes(rows: RowsSpec, schema: Schema) -> dict[str, dict[str, Any]]:
    """The metadata of every array over rows, and over bytes of fields, by its path."""
    nodes: dict[str, dict[str, Any]] = {TIME: rows.plan(None).document(schema.n_places)}
    for channel in schema.channels:
        nodes[channel.variable] = rows.plan(channel).document(schema.n_places)
    for field in schema.fields:
        if field.n_bytes is not None:
            nodes[field.variable] = byte_plan(field).document(field.n_bytes)
            plans = place_plans(field, schema.grid)
            nodes |= {variable: plan.document(schema.n_places) for variable, plan in plans.items()}
            continue
        variable, digests = array_names(field.variable)
        nodes[variable] = rows.plan(field).document(schema.n_places)
        nodes[digests] = digest_plan(field).document(schema.n_places)
        if field.origins:
            nodes[origin_name(variable)] = origin_plan(field).document(schema.n_places)
    return nodes


def border_steps(shards: Sequence[ShardReport]) -> Steps:
    """Steps from the last row of a shard to the first of the next."""
    pairs = ((before.segments, (after.start, after.segments)) for before, after in pairwise(shards))
    found = [
        (start, int(after.first_time[0]) - int(before.last_time[-1]), 1, int(after.first_time[0]))
        for before, (start, after) in pairs
        if before.series[-1] == after.series[0]
    ]
    return Steps(*np.array(found, np.int64).reshape(-1, 4).T)


def _merge_breaks(parts: Sequence[Breaks]) -> Breaks:
    row = np.concatenate([np.zeros(0, np.int64), *(part.row for part in parts)])
    time = np.concatenate([np.zeros(0, np.int64), *(part.time for part in parts)])
    order = np.argsort(row, kind="stable")
    return Breaks(row[order], time[order])
