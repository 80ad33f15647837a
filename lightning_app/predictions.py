"""Predictions as a Zarr store keyed by (id, time, step): each process writes its windows, the first gathers them."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.ahead.forecast import Ahead
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.observed import ObservedTargets
from lightning_app.models.finite import not_finite
from lightning_app.prediction_arrays import create_arrays, windows_of_chunk
from zstore import PanelGrid, Store, WindowIndex

logger = logging.getLogger(__name__)

_GAP_ROWS = 1 << 12  # between targets that are read together
OTHER_WEIGHTS = "another --ckpt_path, or fit again: with a smaller learning rate, or another --data.scaler"
"""What to do where weights give forecasts that are not finite."""


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
    :func:`~lightning_app.prediction_arrays.target_variables`; beside it, with ``_observed`` behind the name, is what
    was observed, NaN where nothing was, and the codes of categories. Of a target that is a class, the probability of
    each class is beside it too, with ``_probability`` behind the name (window, step, class); that dimension, and its
    coordinate with the names of the classes, have ``_class`` behind it. Quantiles, if there are some, have
    ``_quantile`` behind the name (window, step, level), the ends of intervals ``_lower`` and ``_upper`` (window, step,
    interval). Coordinates are ``id`` (window), ``time``
    (window, step) and ``step``, which counts targets from 1; so xarray's ``to_dataframe()`` has a row for each id, time
    and step. Of panels ``id`` is (series), and targets are (window, step, series). Attributes are numbers and text, so
    xarray can write what it reads as netCDF; the ``missing_value`` of ``id`` is no id, and lets xarray read ids as
    ordinary Python strings. It
    replaces an earlier one when whole. Memory: one chunk of windows.

    Forecasts of rows to come (`predict_on` is ``future``) are kept too, in ``forecasts`` beside it, for `evaluate`; not
    those from an origin in the past that was asked for, which were never made then.
    """

    def __init__(self, folder: Path) -> None:
        self.target = folder / "predictions.zarr"
        self._parts = folder / ".predictions.parts"
        self._probable = False
        self._levels: Sequence[float] = ()
        self._intervals: Sequence[float] = ()

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
        self._probable = isinstance(outputs, dict) and "probabilities" in outputs
        self._levels = getattr(getattr(pl_module, "task", None), "levels", ())
        self._intervals = getattr(getattr(pl_module, "intervals", None), "levels", ())
        values = torch.cat(list(outputs.values()), dim=-1) if isinstance(outputs, dict) else cast(Tensor, outputs)
        with part.with_suffix(".samples").open("ab") as file:
            samples.astype(np.int64).tofile(file)
        with part.with_suffix(".values").open("ab") as file:
            values.to("cpu", torch.float64).numpy().tofile(file)

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
            raise not_finite(wrong, data.infinite_channels, data.where, OTHER_WEIGHTS)

    def _write(self, data: WindowDataModule, loader: WindowLoader) -> str | None:
        """The store of predictions, as a whole; or nothing, and which forecast is not finite."""
        building = self.target.with_name(f".{self.target.name}.partial")
        shutil.rmtree(building, ignore_errors=True)
        n_windows, wrong = self._gather(building, data, loader)
        if wrong is None:
            shutil.rmtree(self.target, ignore_errors=True)
            building.rename(self.target)
            logger.info(f"wrote the predictions of {n_windows:,} windows: {self.target}")
            if data.predict_on == "future" and data.options.predict_from is None:
                from lightning_app.kept import FOLDER, keep_forecasts  # with Parquet, which nothing else needs

                keep_forecasts(self.target.with_name(FOLDER), self.target, data, data.ahead)
        else:
            shutil.rmtree(building)
        shutil.rmtree(self._parts)
        return wrong

    def _gather(self, building: Path, data: WindowDataModule, loader: WindowLoader) -> tuple[int, str | None]:
        """How many windows were written; and, where that stopped, which forecast is not finite."""
        import zarr  # an eighth of a second, and only for predictions

        n_nodes = data.view.n_nodes
        n_targets, classes = len(data.targets), data.shape.classes if self._probable else []
        width = n_targets * (1 + len(self._levels) + 2 * len(self._intervals)) + sum(map(len, classes))
        tail = (data.window.horizon, *([n_nodes] if n_nodes else []), width)
        samples, values = [], []
        for rank in range(loader.world):
            part = self._parts / str(rank)
            mine = np.fromfile(part.with_suffix(".samples"), np.int64)
            samples.append(mine)
            values.append(np.memmap(part.with_suffix(".values"), np.float64, "r", shape=(len(mine), *tail)))
        n_windows = min(sum(map(len, samples)), len(loader.index))  # some may have been read twice
        places = np.empty((n_windows, 2), np.int64)  # (sample) -> (rank, row of its part)
        for rank, mine in enumerate(samples):
            places[mine] = np.stack([np.full(len(mine), rank), np.arange(len(mine))], axis=1)
        arrays = create_arrays(building, data, n_windows, classes, self._levels, self._intervals)
        ids, times = arrays.ids, arrays.times
        known = data.predicted
        if data.view.nodes is not None:
            ids[:] = data.store.ids[data.view.nodes]
        size = windows_of_chunk(data)
        for start in range(0, n_windows, size):
            stop = min(start + size, n_windows)
            block = np.empty((stop - start, *tail))
            for rank, part_values in enumerate(values):
                here = np.flatnonzero(places[start:stop, 0] == rank)
                block[here] = part_values[places[start:stop, 1][here]]
            if not n_nodes:
                ids[start:stop] = data.store.ids[loader.index.locate(np.arange(start, stop))[1]]
            block_times = target_times(known.timed, loader.index, np.arange(start, stop))
            times[start:stop] = block_times
            for position, forecast in enumerate(arrays.forecasts):
                with np.errstate(over="ignore"):  # it is looked for
                    stored = block[..., position].astype(forecast.dtype)
                wrong = np.argwhere(~np.isfinite(stored))
                if len(wrong):
                    window, step, *node = wrong[0].tolist()
                    id_, value = ids[node[0] if node else start + window], block[window, step, ..., position][*node]
                    when = data.store.schema.time.show(int(block_times[window, step]))
                    return n_windows, _not_written(data.targets[position], f"{id_} at {when}", value, forecast.dtype)
                forecast[start:stop] = stored
            low = n_targets
            for beside in (*arrays.probabilities, *arrays.quantiles, *arrays.ends):
                beside[start:stop] = block[..., low : low + beside.shape[-1]]
                low += beside.shape[-1]
            observed = np.moveaxis(_observed(known.truth, loader.index, start, stop), -1, 0)
            for observation, values_observed in zip(arrays.observations, observed, strict=True):
                observation[start:stop] = values_observed
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(str(building))
        return n_windows, None


def _observed(truth: ObservedTargets | Ahead, index: WindowIndex, start: int, stop: int) -> NDArray[np.float64]:
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


def target_times(
    source: Store | PanelGrid | Ahead, index: WindowIndex, samples: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(batch, horizon) times of the target rows of some samples, whichever rows are in memory.

    Of padded targets the times that these rows would have; where times are irregular, that of the nearest row.

    Parameters
    ----------
    source
        Where times are read from, where they are irregular: row by row near each other, at most `_GAP_ROWS` too many.
        The store, the grid of a panel, or the rows of windows ahead.
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


def _loader(trainer: pl.Trainer) -> WindowLoader:
    return cast(WindowLoader, trainer.predict_dataloaders)
