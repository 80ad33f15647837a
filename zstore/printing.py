"""How the command line shows things: receipts, stores, cells."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Sequence
from datetime import datetime
from io import StringIO

import numpy as np
from rich.console import Console
from rich.table import Table

from zstore.amounts import show_size
from zstore.format.rowarrays import array_names, byte_names, origin_name
from zstore.format.schema import Field
from zstore.published.catalog import DATASETS
from zstore.reading.eviction import Cache
from zstore.reading.names import grouped
from zstore.reading.objectfiles import object_files
from zstore.reading.rownotes import CacheEntry
from zstore.reading.store import Store
from zstore.text import MOST_MESSAGE, counted, shown
from zstore.upkeep.findings import KINDS, Diagnosis
from zstore.upkeep.history import LogEntry
from zstore.writing.planner import IngestPlan
from zstore.writing.receipt import Receipt

_WIDTH = 160
_SHOWN_SOURCES = 3
_SHOWN_CHANNELS = 60
_SHOWN_FINDINGS = 5


def show_cache(entries: Sequence[CacheEntry], cache: Cache) -> str:
    """The row files of a cache folder, and how much it has of buckets, for a person."""
    objects = object_files(cache.folder)
    size = show_size(sum(each.n_bytes for each in objects))
    others = f"{len(objects):,} objects of buckets, {size}, in {shown(cache.folder)}\n" if objects else ""
    if not entries:
        return others or f"no row files in {cache.folder}\n"
    out = Console(file=StringIO(), highlight=False, markup=False, soft_wrap=True, width=_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("used", "age", "size", "store", "version", "rows", "channels"):
        table.add_column(name, justify="right" if name in ("age", "size", "version", "rows") else "left")
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).astimezone().isoformat(" ", "minutes")[:16]
        size = show_size(entry.n_bytes)
        channels = ", ".join(_show_name(name, own) for name, own in grouped(entry.channels).items())
        names = channels if len(channels) <= _SHOWN_CHANNELS else f"{channels[:_SHOWN_CHANNELS]}…"
        age = show_age(time.time() - entry.used)
        table.add_row(used, age, size, shown(entry.store), str(entry.version), f"{entry.n_rows:,}", shown(names))
    out.print(table)
    limit = show_size(cache.limit_on(shutil.disk_usage(cache.folder).total))
    size = show_size(sum(entry.n_bytes for entry in entries))
    out.print(
        f"{len(entries):,} row files, {size}, in {shown(cache.folder)}. When one is built, those leave that were used "
        f"longest ago, to stay within {limit}, and those that were not used for {cache.unused_s / 86_400:g} days"
    )
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    return text + others


def show_age(seconds: float) -> str:
    """A time that has gone by as a person says it, such as ``3 h``; 0 min for one to come."""
    for size, unit in ((86_400, "d"), (3_600, "h")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0) // 60:.0f} min"


def show_datasets() -> str:
    """The public data sets there are, for a person."""
    lines = []
    for name, dataset in DATASETS.items():
        size = show_size(sum(file.n_bytes for file in dataset.files))
        lines += [f"{name}: {dataset.about}", f"  {size}, {dataset.licence}; {dataset.source}"]
    return "\n".join(lines)


def show_plan(plan: IngestPlan, store: str) -> str:
    """How large an ingest would be, for a person."""
    seconds = sum(plan.seconds.values())
    kind = "as plain text" if plan.inflated else "as rows in memory"
    parsed = f", {show_size(plan.plain_bytes)} {kind}" if plan.plain_bytes > plan.source_bytes else ""
    passes = f", after merging all rows {plan.merge_passes} times" if plan.merge_passes else ""
    size = show_size(plan.block_bytes)
    bad = f"bad rows  {plan.n_bad:,} of the first {plan.n_seen:,} cannot be stored as they stand (--on-bad-row)"
    is_query = "query" in plan.tasks
    many = "query" if is_query else "files"
    lines = [
        f"sources   {plan.n_files:,} {many}, {show_size(plan.source_bytes)}{parsed}, about {plan.n_rows:,} rows",
        *([f"read      the first {plan.n_seen:,} rows"] if is_query else []),
        *([bad] if plan.n_bad else []),
        f"store     {shown(store)}: {show_size(plan.stored_bytes)}, {plan.n_shards:,} shards, "
        f"{plan.n_objects:,} objects",
        f"manifest  {show_size(plan.manifest_bytes)}",
        f"tasks     {', '.join(f'{phase} {count:,}' for phase, count in plan.tasks.items())}",
        f"blocks    {plan.n_blocks:,} of {size}; a shard reads from at most {plan.fan_in:,}{passes}",
        f"scratch   {show_size(plan.scratch_bytes)}",
        f"memory    {show_size(plan.worker_bytes)} a thread, {show_size(plan.client_bytes)} here for where series lie",
        f"time      about {_show_seconds(seconds)} on {plan.workers} threads like these "
        f"({', '.join(f'{phase} {_show_seconds(found)}' for phase, found in plan.seconds.items())})",
    ]
    return "\n".join([*lines, "nothing was written (--dry-run)", ""])


def _show_seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def show_receipt(receipt: Receipt) -> str:
    """What an ingest did, for a person."""
    out = Console(file=StringIO(), highlight=False, markup=False, soft_wrap=True, width=_WIDTH)
    n_rows = receipt.n_stored + receipt.n_filled
    out.print(
        f"{shown(receipt.store)} version {receipt.version}: {counted(n_rows, 'row')} of {receipt.n_series:,} series"
        + (f", {receipt.time_start} to {receipt.time_stop}, {receipt.freq}" if receipt.time_start else "")
    )
    out.print(
        f"rows in {receipt.n_rows_in:,} = stored {receipt.n_stored:,} + quarantined {receipt.n_quarantined:,}"
        f" + duplicates dropped {receipt.n_duplicates:,}"
        + (f" + in the store already {receipt.n_known:,}" if receipt.n_known else "")
    )
    if receipt.n_filled:
        out.print(f"rows added in gaps: {receipt.n_filled:,}, all of them missing")
    if receipt.quarantine:
        out.print(f"rows set aside: {shown(receipt.quarantine)}")
    table = _table(("channel", "stored as", "codec"), ("missing", "bytes", "ratio"))
    by_name = {channel.name: channel for channel in receipt.channels}
    for name, own in grouped(list(by_name)).items():
        channels = [by_name[each] for each in own]
        kinds = dict.fromkeys(_show_stored(each.stored, each.decimals, each.n_categories) for each in channels)
        n_bytes = sum(each.n_bytes for each in channels)
        raw = sum(each.ratio * each.n_bytes for each in channels)
        table.add_row(
            _show_name(name, own),
            " or ".join(kinds),
            " or ".join(dict.fromkeys(each.codec for each in channels)),
            f"{sum(each.n_missing for each in channels):,}",
            f"{n_bytes:,}",
            f"{raw / n_bytes if n_bytes else 1:.2f}x",
        )
    out.print(table)
    for field in receipt.fields:
        kind = f"{' x '.join(map(str, field.shape))} of {field.stored}, {field.codec}" if field.shape else "bytes"
        ratio = "" if field.ratio is None else f", {field.ratio:.2f}x"
        out.print(f"field {shown(field.name)}: {kind}; {show_size(field.n_bytes)}{ratio}", markup=False)
    for note in receipt.notes:
        out.print(f"note: {shown(note, MOST_MESSAGE)}")
    source = sum(receipt.sources.values())
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in receipt.seconds.items() if phase != "total")
    out.print(
        f"{show_size(source)} in, {show_size(receipt.n_bytes)} stored, {receipt.seconds['total']:.1f} s ({phases})"
    )
    return str(out.file.getvalue())  # type: ignore[attr-defined]  # a StringIO


def show_diagnosis(diagnosis: Diagnosis) -> str:
    """What is wrong with the data of a store, for a person: the first findings of each kind."""
    store = diagnosis.store
    lines = [
        f"{shown(store.path)} version {store.version}: {counted(store.n_rows, 'row')} of {store.n_series:,} series, "
        f"{counted(len(diagnosis.findings), 'finding')}"
    ]
    for kind, count in diagnosis.counts.items():
        of_kind = [finding for finding in diagnosis.findings if finding.kind == kind]
        lines.append(f"{kind}: {KINDS[kind]} ({count:,})")
        lines += [
            f"  {shown(finding.where(store))}: {shown(finding.sentence, MOST_MESSAGE)}"
            for finding in of_kind[:_SHOWN_FINDINGS]
        ]
        if count > _SHOWN_FINDINGS:
            lines.append(f"  and {count - _SHOWN_FINDINGS:,} more (--json lists all)")
    others = ", ".join(kind.replace("_", " ") for kind in diagnosis.not_found)
    lines.append(f"looked for, and not found: {others}" if others else "")
    return "\n".join(lines).rstrip("\n")


def show_log(entries: Sequence[LogEntry]) -> str:
    """The versions of a store, for a person."""
    out = Console(file=StringIO(), highlight=False, markup=False, soft_wrap=True, width=_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("version", "committed", "by", "rows", "ids", "sources"):
        table.add_column(name, justify="left" if name in ("committed", "by", "sources") else "right")
    for entry in entries:
        sources = [shown(name) for name in entry.receipt["sources"]]
        named = ", ".join(sources[:_SHOWN_SOURCES]) + (", …" if len(sources) > _SHOWN_SOURCES else "")
        counts = f"{entry.n_rows:,}", f"{entry.n_series:,}"
        table.add_row(str(entry.version), shown(entry.committed), shown(entry.action), *counts, named)
    out.print(table)
    return str(out.file.getvalue())  # type: ignore[attr-defined]  # a StringIO


def print_info(store: Store) -> None:
    """What a store holds, for a person."""
    out = Console(highlight=False, markup=False, soft_wrap=True, width=_WIDTH)
    schema, index = store.schema, store.index
    out.print(f"{shown(store.path)} version {schema.version}, committed {shown(schema.committed)}")
    span = ""
    if schema.n_rows:
        show = schema.time.show
        span = f", {show(int(index.time_start.min()))} to {show(int(index.time_stop.max()))}"
    out.print(
        f"{counted(schema.n_rows, 'row')} of {schema.n_series:,} series{span}, "
        f"step {re.sub(' steps?$', '', schema.time.show_freq())}, {counted(len(index.runs.start), 'run')}"
    )
    if schema.n_series:
        sizes = index.row_size
        out.print(
            f"rows per series: {int(sizes.min()):,} to {int(sizes.max()):,}; "
            f"ids {shown(repr(index.ids[0]))} to {shown(repr(index.ids[-1]))}"
        )
    if store.channels:
        out.print(_channel_table(store))
    for line in _show_fields(store) if schema.fields else ():
        out.print(line)
    if store.statics:
        out.print(f"static attributes: {', '.join(shown(static.name) for static in store.statics)}", markup=False)


def _channel_table(store: Store) -> Table:
    """A line for each channel, and for each vector."""
    table = _table(("channel", "stored as"), ("missing", "mean", "std", "min", "max"))
    total, position_of = store.moments.total(), {name: n for n, name in enumerate(store.channels)}
    for name, own in store.named_channels.items():
        all_ = total.at(np.array([position_of[each] for each in own])).total()
        kinds = dict.fromkeys(_show_channel(store.channel(each)) for each in own)
        has_numbers = all_.count and store.channel(own[0]).kind != "category"  # codes of words have no mean
        numbers = [all_.mean, all_.std, all_.low, all_.high]
        table.add_row(
            _show_name(name, own),
            " or ".join(kinds),
            f"{int(all_.n_missing):,}",
            *(f"{float(value):.6g}" if has_numbers else "" for value in numbers),
        )
    return table


def _show_fields(store: Store) -> list[str]:
    """A line for each field: what a row of it is, how it lies on disk, and how large that is."""
    lines, n_bytes_of = [], store.objects.variable_bytes
    for field in store.schema.fields:
        origins = [origin_name(field.variable)] if field.origins else []
        if field.n_bytes is not None:
            n_bytes = sum(n_bytes_of(name) for name in (*byte_names(field.variable), *origins))
            lines.append(f"field {shown(field.name)}: bytes, as in the source; {show_size(n_bytes)}")
            continue
        n_bytes = sum(n_bytes_of(name) for name in (*array_names(field.variable), *origins))
        raw = store.n_rows * math.prod(field.shape) * np.dtype(field.dtype).itemsize
        stored, size = field.encoding.dtype, " x ".join(f"{n:,}" for n in field.shape)
        was = f" ({field.dtype} in the source)" if stored != field.dtype else ""
        grid = "" if field.grid is None else f", {counted(field.grid.chunk_rows, 'row')} a chunk"
        ratio = f", {raw / n_bytes:.2f}x" if n_bytes else ""
        lines.append(
            f"field {shown(field.name)}: {size} ({', '.join(map(shown, field.dimensions))}) of {stored}{was}, "
            f"{shown(field.codec)}{grid}; {show_size(n_bytes)}{ratio}"
        )
    return lines


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    """An empty table of columns of texts, and of numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def _show_name(name: str, channels: Sequence[str]) -> str:
    """The name of a channel, or of a vector and how many channels it has."""
    return shown(name) + (f" ({len(channels):,})" if len(channels) > 1 else "")


def _show_channel(channel: Field) -> str:
    n_categories = None if channel.kind == "number" else len(channel.categories)
    return _show_stored(channel.encoding.dtype, channel.encoding.decimals, n_categories)


def _show_stored(dtype: str, decimals: int | None, n_categories: int | None) -> str:
    if n_categories is not None:
        return f"{dtype}, {n_categories:,} {'category' if n_categories == 1 else 'categories'}"
    if decimals is None:
        return dtype
    return f"{dtype}, {decimals} decimal{'' if decimals == 1 else 's'}"
