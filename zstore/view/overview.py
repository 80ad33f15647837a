"""What a store holds, at a glance: its channels with their moments, its fields, where series lie, its versions."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from zstore.look.fields import field_text
from zstore.look.svg import sample_evenly
from zstore.reading.store import Store
from zstore.upkeep.history import LogEntry
from zstore.view.numbers import Clock, listed, number

MOST_CHANNELS = 500
"""Channels and vectors that are listed."""
_MOST_PLACES = 20_000
_MOST_SOURCES = 3


def overview(store: Store) -> dict[str, Any]:
    """Sizes, channels and fields. Cost: the index and the moments; no row is read."""
    index, total = store.index, store.moments.total()
    column = {name: number_ for number_, name in enumerate(store.channels)}
    channels = []
    for name, own in list(store.named_channels.items())[:MOST_CHANNELS]:
        first, all_ = store.channel(own[0]), total.at(np.array([column[each] for each in own])).total()
        channels.append(
            {
                "name": name,
                "channels": list(own),
                "kind": first.kind,
                "units": first.units,
                "n_words": len(first.categories) if first.kind == "category" else None,
                "missing": int(all_.n_missing) / max(store.n_rows * len(own), 1),
                "n_observed": int(all_.count),
                "mean": number(float(all_.mean)) if all_.count else None,
                "std": number(float(all_.std)) if all_.count else None,
                "min": number(float(all_.low)) if all_.count else None,
                "max": number(float(all_.high)) if all_.count else None,
            }
        )
    clock = Clock.of(store)
    span = (int(index.time_start.min()), int(index.time_stop.max())) if store.n_rows else (0, 0)
    return {
        "name": PurePosixPath(store.path).name,
        "path": store.path,
        "version": store.version,
        "n_rows": store.n_rows,
        "n_series": store.n_series,
        "n_channels": len(store.channels),
        "first": clock.second(span[0]),
        "last": clock.second(span[1]),
        "shown_first": store.time.show(span[0]) if store.n_rows else "",
        "shown_last": store.time.show(span[1]) if store.n_rows else "",
        "is_dated": store.time.unit is not None,
        "origin": clock.origin,
        "n_digits": clock.n_digits,
        "zone": store.time.zone,
        "step": store.time.show_freq(),
        "channels": channels,
        "fields": [
            {"name": field.name, "about": field_text(store, field), "is_grid": field.name in store.volume_grids}
            for field in store.schema.fields
        ],
        "statics": [
            {"name": static.name, "is_word": static.categories is not None, "units": getattr(static, "units", None)}
            for static in store.statics
        ],
        "has_places": store.coordinates is not None,
    }


def places(store: Store) -> dict[str, Any]:
    """Latitude and longitude of the series that have them; of very many, some that are evenly chosen."""
    coordinates = store.coordinates
    if coordinates is None:
        return {"ids": [], "positions": [], "latitude": [], "longitude": [], "n": 0}
    known = np.flatnonzero(np.isfinite(coordinates).all(axis=1))
    chosen = known[sample_evenly(len(known), _MOST_PLACES)] if len(known) else known
    return {
        "ids": [str(store.ids[position]) for position in chosen.tolist()],
        "positions": chosen.tolist(),
        "latitude": listed(coordinates[chosen, 0]),
        "longitude": listed(coordinates[chosen, 1]),
        "n": len(known),
    }


def _brought(entry: LogEntry) -> dict[str, Any]:
    """Files and times of the rows that a version brought, and rows that it left out; nothing of a compaction."""
    receipt = entry.receipt
    if receipt.get("version") != entry.version:
        return {"sources": [], "n_sources": 0, "time_start": "", "time_stop": "", "n_left_out": 0}
    sources = list(receipt.get("sources", {}))
    left_out = ("n_quarantined", "n_duplicates", "n_known")
    return {
        "sources": [PurePosixPath(name).name for name in sources[:_MOST_SOURCES]],
        "n_sources": len(sources),
        "time_start": receipt.get("time_start") or "",
        "time_stop": receipt.get("time_stop") or "",
        "n_left_out": sum(int(receipt.get(name, 0)) for name in left_out),
    }


def versions(entries: list[LogEntry]) -> list[dict[str, Any]]:
    """What each version brought, the newest first."""
    found = []
    for entry, before in zip(entries, [*entries[1:], None], strict=True):
        found.append(
            {
                "version": entry.version,
                "committed": entry.committed,
                "action": entry.action,
                "n_rows": entry.n_rows,
                "n_series": entry.n_series,
                "more_rows": entry.n_rows - (before.n_rows if before is not None else 0),
                "more_series": entry.n_series - (before.n_series if before is not None else 0),
                **_brought(entry),
            }
        )
    return found
