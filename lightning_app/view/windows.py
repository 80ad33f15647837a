"""The splits of a configuration over time and series, and single windows as a model sees them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import numpy as np
from torch import Tensor

from lightning_app.audit import Audit, audit, module_of
from lightning_app.batch import Batch
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import NAMES, SplitName
from lightning_app.look.splits import sampled_series
from lightning_app.view.folders import RunFolder
from zstore import UsageError, view

_MOST_SERIES = 200
_MOST_BARS = 20_000
_MOST_COLUMNS = 64


def answers(session: Any, folders: Mapping[str, RunFolder]) -> dict[str, Callable[[Any], Any]]:
    """By the last part of an address, what answers about splits and windows."""
    kept = _Kept(session)

    def folder(query: Any) -> RunFolder:
        name = query.get("run") or next(iter(folders))
        if name not in folders:
            raise UsageError(f"no run {name!r}", expected=f"one of {', '.join(folders)}")
        return folders[name]

    def window(query: Any) -> Any:
        split = query.get("split") or "train"
        if split not in NAMES:
            raise UsageError(f"split {split!r}", expected=f"one of {', '.join(NAMES)}")
        return kept.window(folder(query), cast(SplitName, split), query.whole("number", 0))

    return {
        "parts": lambda query: kept.parts(folder(query)),
        "window": window,
    }


class _Kept:
    """Data modules of configurations, and what was counted of them, of the version that is looked at."""

    def __init__(self, session: Any) -> None:
        self._session, self._lock = session, threading.Lock()
        self._data: dict[tuple[str, int], WindowDataModule] = {}
        self._parts: dict[tuple[str, int], dict[str, Any]] = {}

    def _key(self, folder: RunFolder) -> tuple[str, int]:
        return folder.name, self._session.opened.store.version

    def _module(self, folder: RunFolder) -> WindowDataModule:
        key = self._key(folder)
        if key not in self._data:
            if not folder.config_path.is_file():
                raise UsageError(f"no {folder.config_path}", expected="the configuration of a run")
            store = self._session.opened.store
            # Rows are decoded for what is looked at alone, and a fit beside keeps its memory.
            given = {"store": store.path, "version": store.version, "ingest": "null", "residency": "stream"}
            flags = [f"--data.{name}={value}" for name, value in given.items()]
            logging.getLogger("lightning_app").setLevel(logging.WARNING)
            for old in self._data.values():
                old.close()
            self._data = {key: module_of([str(folder.config_path)], [*flags, "--data.batch_size=1"])}
        return self._data[key]

    def parts(self, folder: RunFolder) -> dict[str, Any]:
        """Windows of each split, counted and proved to share no target, and where they are of some series."""
        with self._lock:
            key = self._key(folder)
            if key not in self._parts:
                self._parts[key] = _shown_parts(audit(self._module(folder)))
            return self._parts[key]

    def window(self, folder: RunFolder, split: SplitName, number: int) -> dict[str, Any]:
        """One window of a split, scaled, masked and padded, as a model is given it."""
        with self._lock:
            data = self._module(folder)
            index = data.index(split, data.window.stride if split == "train" else data.evaluation_stride)
            if not 0 <= number < len(index):
                raise UsageError(f"window {number:,} of {len(index):,} of {split}", expected="one that is there")
            loader = data.loaders.in_order(index)
            loader.start_epoch(0)
            return _shown_window(data, loader.window(number)) | {"number": number, "n": len(index), "split": split}


def _shown_parts(found: Audit) -> dict[str, Any]:
    data, clock = found.data, view.Clock.of(found.data.store)
    chosen, n_series = sampled_series(found.spans, _MOST_SERIES)
    bars: list[list[Any]] = []
    for name in NAMES:
        spans = found.spans[name]
        for place in np.flatnonzero(np.isin(spans.series, chosen)).tolist()[:_MOST_BARS]:
            line = int(np.searchsorted(chosen, spans.series[place]))
            ends = [clock.second(int(each[place])) for each in (spans.first, spans.last)]
            bars.append([line, name, *ends])
    nodes = data.view.n_nodes
    ids = [f"all {nodes:,} series"] if nodes else [str(data.store.ids[position]) for position in chosen.tolist()]
    index = data.store.index
    return {
        **found.to_json(),
        "ids": ids,
        "n_series": n_series,
        "bars": bars,
        "start": clock.second(int(index.time_start.min()) if data.store.n_rows else 0),
        "stop": clock.second(int(index.time_stop.max()) if data.store.n_rows else 0),
        "about": str(data.window),
    }


def _shown_window(data: WindowDataModule, batch: Batch) -> dict[str, Any]:
    """Inputs and targets by step from the first row behind the inputs on; of a panel, those of its first series."""
    shape, store = data.window, data.store
    of_panel = batch["x"].ndim == 4
    series = int(batch["series"].reshape(-1)[0])

    def lines(part: Tensor, names: list[str], steps: Any, seen: Tensor | None = None) -> list[dict[str, Any]]:
        values = (part[0, :, 0] if of_panel else part[0]).double().numpy()
        if seen is not None:
            values = np.where((seen[0, :, 0] if of_panel else seen[0]).numpy(), values, np.nan)
        beside = [f"column {column}" for column in range(len(names), values.shape[1])]  # masks, words, times
        shown = enumerate([*names, *beside][:_MOST_COLUMNS])
        return [{"name": name, "x": steps.tolist(), "y": view.listed(values[:, column])} for column, name in shown]

    before = np.arange(-shape.lookback, 0)
    ahead = shape.delay + shape.target_rows
    found = {
        "id": str(store.ids[series]),
        "time": store.time.show(int(batch["time"].reshape(-1)[0])) if store.time.rule.regular else "",
        "inputs": lines(batch["x"], _named(data, data.columns_of.inputs), before),
        "targets": lines(batch["y"], data.targets, ahead, batch["mask"]),
        "future": lines(batch["x_future"], _named(data, data.columns_of.future), ahead),
        "static": view.listed(batch["x_static"].reshape(-1).double().numpy()[:_MOST_COLUMNS]),
        "padded": 0,
    }
    if "x_pad" in batch:
        found["padded"] = int(batch["x_pad"].sum())
    return found


def _named(data: WindowDataModule, columns: Iterable[int]) -> list[str]:
    return [data.columns[column] for column in columns]
