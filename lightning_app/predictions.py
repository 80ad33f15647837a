"""Predictions as a Zarr store keyed by (id, time, step): each process writes its windows, the first gathers them."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.observed import ObservedTargets
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.models.finite import not_finite
from zstore import PanelGrid, Store, WindowIndex

logger = logging.getLogger(__name__)

_CHUNK_WINDOWS = 1 << 14
_GAP_ROWS = 1 << 12  # between targets that are read together
_OTHER_WEIGHTS = "another --ckpt_path, or fit again: with a smaller learning rate, or another --data.scaler"
_RESERVED = ("id", "time", "window", "step", "series")
_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")


class PredictionWriter(pl.Callback):
    """Writes what `predict` predicts to ``predictions.zarr`` in the run folder.

    Parameters
    ----------
    folder
        The run folder.

    Notes
    -----
    The store has the dimensions `window` and `step`. Each target is in source units (window, step), float64 where its
    channel is, else float32, with its scale and offset as attributes, and has its own name, see
    :func:`target_variables`; beside it, with ``_observed`` behind the name, is what was observed, NaN where nothing
    was, and the codes of categories. Coordinates are ``id`` (window), ``time`` (window, step) and ``step``, which
    counts targets from 1; so xarray's ``to_dataframe()`` has a row for each id, time and step. Of panels ``id`` is
    (series), and targets are (window, step, series). Attributes are numbers and text, so xarray can write what it
    reads as netCDF; the ``missing_value`` of ``id`` is no id, and lets xarray read ids as ordinary Python strings. It
    replaces an earlier one when whole. Memory: one chunk of windows.
    """

    def __init__(self, folder: Path) -> None:
        self.target = folder / "predictions.zarr"
        self._parts = folder / ".predictions.parts"

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make room."""
        if trainer.is_global_zero:
            shutil.rmtree(self._parts, ignore_errors=True)
            self._parts.mkdir(parents=True)
        trainer.strategy.barrier("predictions")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append one batch to this process' part."""
        samples = _loader(trainer).samples(batch_idx)
        part = self._parts / str(trainer.global_rank)
        with part.with_suffix(".samples").open("ab") as file:
            samples.astype(np.int64).tofile(file)
        with part.with_suffix(".values").open("ab") as file:
            cast(Tensor, outputs).to("cpu", torch.float64).numpy().tofile(file)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather all parts in the order of the windows.

        Raises
        ------
        NotFiniteError
            On all processes, if a forecast is not finite, or does not fit the type of its channel; then nothing is
            written, and earlier predictions stay.
        """
        trainer.strategy.barrier("predictions")
        data = cast(WindowDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        wrong = self._write(data, _loader(trainer)) if trainer.is_global_zero else None
        wrong = trainer.strategy.broadcast(wrong)
        if wrong is not None:
            raise not_finite(wrong, data.infinite_channels, data.where, _OTHER_WEIGHTS)

    def _write(self, data: WindowDataModule, loader: WindowLoader) -> str | None:
        """The store of predictions, as a whole; or nothing, and which forecast is not finite."""
        building = self.target.with_name(f".{self.target.name}.partial")
        shutil.rmtree(building, ignore_errors=True)
        n_windows, wrong = self._gather(building, data, loader)
        if wrong is None:
            shutil.rmtree(self.target, ignore_errors=True)
            building.rename(self.target)
            logger.info(f"wrote the predictions of {n_windows:,} windows: {self.target}")
        else:
            shutil.rmtree(building)
        shutil.rmtree(self._parts)
        return wrong

    def _gather(self, building: Path, data: WindowDataModule, loader: WindowLoader) -> tuple[int, str | None]:
        """How many windows were written; and, where that stopped, which forecast is not finite."""
        n_nodes = data.view.n_nodes
        tail = (data.window.horizon, *([n_nodes] if n_nodes else []), len(data.targets))
        samples, values = [], []
        for rank in range(loader.world):
            part = self._parts / str(rank)
            mine = np.fromfile(part.with_suffix(".samples"), np.int64)
            samples.append(mine)
            values.append(np.memmap(part.with_suffix(".values"), np.float64, "r", shape=(len(mine), *tail)))
        n_windows = sum(map(len, samples))
        places = np.empty((n_windows, 2), np.int64)  # (sample) -> (rank, row of its part)
        for rank, mine in enumerate(samples):
            places[mine] = np.stack([np.full(len(mine), rank), np.arange(len(mine))], axis=1)
        ids, times, forecasts, observations = _create(building, data, n_windows)
        truth = data.view.observed_targets(data.scaler.of(data.targets), data.window.target_rows, data.row_cache)
        if data.view.nodes is not None:
            ids[:] = data.store.ids[data.view.nodes]
        size = _windows_of_chunk(data)
        for start in range(0, n_windows, size):
            stop = min(start + size, n_windows)
            block = np.empty((stop - start, *tail))
            for rank, part_values in enumerate(values):
                here = np.flatnonzero(places[start:stop, 0] == rank)
                block[here] = part_values[places[start:stop, 1][here]]
            if not n_nodes:
                ids[start:stop] = data.store.ids[loader.index.locate(np.arange(start, stop))[1]]
            block_times = target_times(data.view.timed, loader.index, np.arange(start, stop))
            times[start:stop] = block_times
            for position, forecast in enumerate(forecasts):
                with np.errstate(over="ignore"):  # it is looked for
                    stored = block[..., position].astype(forecast.dtype)
                wrong = np.argwhere(~np.isfinite(stored))
                if len(wrong):
                    window, step, *node = wrong[0].tolist()
                    id_, value = ids[node[0] if node else start + window], block[window, step, ..., position][*node]
                    when = data.store.schema.time.show(int(block_times[window, step]))
                    return n_windows, _not_written(data.targets[position], f"{id_} at {when}", value, forecast.dtype)
                forecast[start:stop] = stored
            for position, values_observed in enumerate(np.moveaxis(_observed(truth, loader.index, start, stop), -1, 0)):
                observations[position][start:stop] = values_observed
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(str(building))
        return n_windows, None


def _observed(truth: ObservedTargets, index: WindowIndex, start: int, stop: int) -> NDArray[np.float64]:
    """(window, step, …, target) what was observed of the targets of some windows, NaN where nothing was."""
    samples = np.arange(start, stop)
    first = index.locate(samples)[0]
    if not index.shape.padded:
        return truth.at(first + index.shape.target_offset)
    bounds = index.bounds_of(samples)
    observed = truth.at(first + index.shape.target_offset, bounds)
    observed[bounds.pads(index.shape, first)[1]] = np.nan
    return observed


def _not_written(target: str, where: str, value: float, dtype: Any) -> str:
    """What is wrong with a forecast."""
    why = f", which {dtype} does not hold" if np.isfinite(value) else ""
    return f"forecast of {target!r} for {where} is {value:g}{why} (no predictions are written)"


def target_times(source: Store | PanelGrid, index: WindowIndex, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """(batch, horizon) times of the target rows of some samples, whichever rows are in memory.

    Of padded targets the times that these rows would have; where times are irregular, that of the nearest row.

    Parameters
    ----------
    source
        Where times are read from, where they are irregular: row by row near each other, at most `_GAP_ROWS` too many.
        The store, or the grid of a panel.
    index
        Which windows there are.
    samples
        (batch,) sample numbers.
    """
    first, _, time = index.locate(samples)
    steps = index.shape.target_rows
    if index.rule.regular:
        return index.rule.times(steps, time[:, None])
    rows = first[:, None] + index.shape.target_offset + steps
    if index.shape.padded:
        bounds = index.bounds_of(samples)
        rows = np.clip(rows, bounds.target_start[:, None], bounds.stop[:, None] - 1)
    order = np.argsort(first, kind="stable")
    times = np.empty_like(rows)
    gaps = np.flatnonzero(np.diff(first[order]) > _GAP_ROWS) + 1
    for near in np.split(order, gaps) if len(order) else []:
        low = int(rows[near[0], 0])
        times[near] = source.times(low, int(rows[near[-1], -1]) + 1)[rows[near] - low]
    return times


def target_variables(store: Store, targets: Sequence[str]) -> list[str]:
    """Names of the arrays that predictions of some channels lie in, in the same order.

    A channel's own name where that is safe (letters, digits, ``_ . -`` after a first letter), no dimension or
    coordinate of the predictions, and unique when case is ignored; else that of its variable in the store with
    ``_predicted`` behind it, as often as it takes. ``long_name`` has the true name.
    """
    taken, names = set(_RESERVED), []
    for target in sorted(targets, key=lambda name: _SAFE.fullmatch(name) is None):  # own names first
        name = target if _SAFE.fullmatch(target) else store.channel(target).variable
        while name.lower() in taken:
            name = f"{name}_predicted"
        taken.add(name.lower())
        names.append((target, name))
    chosen = dict(names)
    return [chosen[target] for target in targets]


def observed_variables(variables: Sequence[str]) -> list[str]:
    """Names of the arrays of observed values: those of :func:`target_variables`, with ``_observed`` behind them."""
    taken, names = {*_RESERVED, *(name.lower() for name in variables)}, []
    for name in variables:
        while name.lower() in taken:
            name = f"{name}_observed"
        taken.add(name.lower())
        names.append(name)
    return names


def _create(path: Path, data: WindowDataModule, n_windows: int) -> tuple[Any, Any, list[Any], list[Any]]:
    """Empty arrays: ids, times, one per target, and one per target for what was observed."""
    store: Store = data.store
    horizon, n_nodes = data.window.horizon, data.view.n_nodes
    attributes = {
        "Conventions": "CF-1.11",
        "source_uuid": store.schema.uuid,
        "source_version": store.version,
        "source_split": data.split.digest(),
        "lookback": data.window.lookback,
        "horizon": horizon,
        "delay": data.window.delay,
        **({"target_stride": data.window.target_stride} if data.window.target_stride > 1 else {}),
    }
    group = zarr.create_group(str(path), attributes=attributes)
    sizes = {"window": n_windows, "step": horizon, "series": n_nodes}
    of_chunk = {**sizes, "window": max(min(_windows_of_chunk(data), n_windows), 1)}
    of_target = ["window", "step", *(["series"] if n_nodes else [])]

    def create(name: str, dtype: Any, dimensions: list[str], about: dict[str, Any]) -> Any:
        shape, chunks = (tuple(each[dimension] for dimension in dimensions) for each in (sizes, of_chunk))
        return group.create_array(
            name, shape=shape, dtype=dtype, chunks=chunks, dimension_names=dimensions, attributes=about
        )

    about_ids = {"long_name": store.schema.id_name or "id", "missing_value": _no_id(store)}
    ids = create("id", str, ["series" if n_nodes else "window"], about_ids)
    times = create("time", "int64", ["window", "step"], store.schema.time.attributes())
    steps = create("step", "int64", ["step"], {"long_name": "number of the target row, from 1"})
    steps[:] = np.arange(1, horizon + 1)
    scaler, forecasts, observations = data.scaler.of(data.targets), [], []
    names = target_variables(store, data.targets)
    for position, (target, name) in enumerate(zip(data.targets, names, strict=True)):
        channel, beside = store.channel(target), {"coordinates": "id time"}
        about = {"long_name": target, **({"units": channel.units} if channel.units else {}), **beside}
        dtype = np.result_type(np.float32, channel.dtype)
        scaling = {} if scaler.scaling.per_series else _linear(scaler, position)
        forecasts.append(create(name, dtype, of_target, {**about, **scaling}))
        observed = {**about, "long_name": f"{target}, observed"}
        observations.append(create(observed_variables(names)[position], dtype, of_target, observed))
    return ids, times, forecasts, observations


def _no_id(store: Store) -> str:
    """A text that is no id of the store."""
    text, ids = "none", set(store.ids.tolist())
    while text in ids:
        text = f"({text})"
    return text


def _windows_of_chunk(data: WindowDataModule) -> int:
    return max(1, _CHUNK_WINDOWS // max(data.view.n_nodes, 1))


def _linear(scaler: Scaler, position: int) -> dict[str, Any]:
    numbers = {"scaler_scale": float(scaler.scale[position]), "scaler_offset": float(scaler.offset[position])}
    return {**numbers, "scaler_log1p": 1} if scaler.log[position] else numbers


def _loader(trainer: pl.Trainer) -> WindowLoader:
    return cast(WindowLoader, trainer.predict_dataloaders)
