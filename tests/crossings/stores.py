"""The stores of a draw: what is ingested, appended and compacted, and how it differs from what must be in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import zstore
from zstore import SourceError, Store, UsageError

from .draws import Action, Case, Row
from .rules import Rule
from .versions import Version, history

GRID = {"chunk_rows": 16, "shard_rows": 64}


@dataclass
class Built:
    """The store of a case, and what the reference says of the version that is read.

    Parameters
    ----------
    case, folder
        Which, and where it lies.
    number
        The version to read.
    version
        What it holds.
    problems
        Where the store is not what it should be.
    """

    case: Case
    folder: Path
    number: int
    version: Version
    problems: list[str]

    @property
    def path(self) -> Path:
        """The store."""
        return self.folder / "s.zarr"

    @property
    def is_newest(self) -> bool:
        """Whether the newest version is read."""
        return zstore.open_store(self.path).version == self.number


def write_rows(path: Path, case: Case, rows: Sequence[Row]) -> Path:
    """A CSV of some rows; wide ones have a column per series."""
    times = sorted({time for _, time, _ in rows}) if case.layout == "wide" else [time for _, time, _ in rows]
    shown = time_texts(case, times)
    first = 1 if case.numbered else 0
    if case.layout == "wide":
        ids = list(dict.fromkeys(id_ for id_, _, _ in rows))
        cells = {(id_, time): texts[0] for id_, time, texts in rows}
        lines = [["t", *ids]] + [
            [text, *(cells[id_, at] for id_ in ids)] for text, at in zip(shown, times, strict=True)
        ]
    else:
        lines = [["id", "t", *case.channels]] + [[r[0], text, *r[2]] for r, text in zip(rows, shown, strict=True)]
        lines = [line[1:] for line in lines] if case.kind == "single" else lines
    path.write_text("\n".join(",".join(line[first:]) for line in lines) + "\n", encoding="utf-8")
    return path


def time_texts(case: Case, times: Sequence[int]) -> list[str]:
    """Times as they are written."""
    if not case.dated:
        return [str(time) for time in times]
    unit = "ms" if case.kind == "ms" else case.texts
    return [str(np.datetime64(int(time), "ms").astype(f"datetime64[{unit}]")) for time in times]


def build(case: Case, folder: Path) -> Built:
    """Do to a store what the case says; compare what is refused, and the rows of the version that is read."""
    folder.mkdir(parents=True, exist_ok=True)
    path, problems = folder / "s.zarr", []
    versions: dict[int, Version] = {}
    for number, (action, after) in enumerate(zip(case.actions, history(case), strict=True)):
        try:
            _act(case, action, folder, number)
        except (SourceError, UsageError) as error:
            if after is not None:
                return Built(case, folder, 0, after, [f"action {number} {action.verb} was refused: {error}"])
            continue
        if after is None:
            problems.append(f"action {number} {action.verb} was not refused")
            continue
        versions[zstore.open_store(path).version] = after
    newest = max(versions)
    read = newest - case.read if newest - case.read in versions else newest
    problems += differences(case, zstore.open_store(path, version=read), versions[read])
    return Built(case, folder, read, versions[read], problems)


def _act(case: Case, action: Action, folder: Path, number: int) -> None:
    path, quick = folder / "s.zarr", {"workers": 1}
    if action.verb in ("ingest", "append"):
        rows = write_rows(folder / f"{number}.csv", case, action.rows)
    if action.verb == "ingest":
        options: dict[str, Any] = {"layout": case.layout, "dtype": case.dtype, "categories": list(case.words), **quick}
        options |= GRID
        options |= {"on_duplicate": action.on_duplicate, "fill_gaps": action.fill_gaps}
        if case.layout == "wide":
            options["value_name"] = case.channels[0]
        elif case.kind != "single":
            options["id"] = "id"
        if case.numbered:
            start = min(time for _, time, _ in action.rows)
            options |= {"start": time_texts(case, [start])[0], "freq": case.numbered}
        else:
            options["time"] = "t"
            options["freq"] = case.freq or None
        options["overwrite"] = path.exists()
        if case.statics:
            ids = list(dict.fromkeys(id_ for values in case.statics.values() for id_ in values))
            lines = [["id", *case.statics]] + [[i, *(case.statics[name][i] for name in case.statics)] for i in ids]
            (folder / "statics.csv").write_text("\n".join(map(",".join, lines)) + "\n", encoding="utf-8")
            options["static"] = folder / "statics.csv"
        zstore.ingest(rows, path, **options)
    elif action.verb == "append":
        zstore.append(rows, path, on_duplicate=action.on_duplicate, **quick)  # type: ignore[arg-type]
    elif action.verb == "compact":
        zstore.compact(path, **quick)  # type: ignore[arg-type]
    elif action.verb == "gc":
        zstore.gc(path, keep=1)
    else:
        zstore.rollback(path, action.version)


def factor(store: Store) -> int:
    """Milliseconds of a time of the store; 1 for plain steps."""
    return {"s": 1000, "ms": 1, None: 1}[store.schema.time.unit]


def differences(case: Case, store: Store, version: Version) -> list[str]:
    """Where ids, times, values, words and steps of a store are not those of the reference."""
    per = factor(store)
    keys = sorted(version.rows, key=lambda key: (key[0].encode(), key[1]))
    found = []
    if store.ids.tolist() != version.ids:
        return [f"ids {store.ids.tolist()}, not {version.ids}"]
    rule = store.time.rule
    shown = Rule(rule.kind)
    if rule.regular:
        units = per if rule.kind == "fixed" else 1
        numbers = rule.count * units, rule.period if rule.period == 1 else rule.period * units
        shown = Rule(rule.kind, *numbers, (rule.anchor or 0) * units, rule.day or 0, (rule.clock or 0) * per)
    if shown != version.rule:
        found.append(f"{shown}, not {version.rule}")
    if store.n_rows != len(keys):
        return [*found, f"{store.n_rows} rows, not {len(keys)}"]
    if (store.times(0, store.n_rows) * per).tolist() != [time for _, time in keys]:
        found.append("times differ")
    for place, name in enumerate(case.channels):
        texts = ["" if version.rows[key] is None else version.rows[key][place] for key in keys]  # type: ignore[index]
        values = store.read(name, 0, store.n_rows)
        if name in case.words:
            words = list(store.channel(name).categories or ())
            texts_of_codes = ["" if np.isnan(value) else words[int(value)] for value in values]
            if len(set(words)) < len(words) or texts_of_codes != texts:
                found.append(f"words of {name} differ")
            continue
        wanted = np.array([float(text or "nan") for text in texts]).astype(case.dtype)
        if not np.array_equal(values.astype(case.dtype), wanted, equal_nan=True):
            found.append(f"values of {name} differ")
    return found
