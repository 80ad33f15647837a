"""A run that was fitted, loaded to forecast: without a command, a trainer's stages or files."""

from __future__ import annotations

import importlib
import logging
import shutil
import tempfile
import weakref
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from torch import Tensor

import zstore
from lightning_app.calibration import digest_of_weights, kept_at
from lightning_app.checkpoints import checkpoint_file, read_checkpoint
from lightning_app.data.ahead.forecast import Ahead, forecast_windows
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.options import Gaps
from lightning_app.data.stores import open_or_ingest
from lightning_app.export.export import Export, Exported, export_model
from lightning_app.export.program import Format
from lightning_app.intervals import Intervals
from lightning_app.models import TaskModel
from lightning_app.models.finite import not_finite
from lightning_app.models.rebuild import unsaid_arguments
from lightning_app.predictions import OTHER_WEIGHTS, target_times
from lightning_app.radii import Radii
from zstore import Store, UsageError, read_yaml

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)

_OF_PREDICT = ("predict_on", "predict_from", "future_values", "future_gaps")
_OF_TABLE = ("id", "time", "time_format", "time_unit", "freq", "start", "categories", "missing", "rename")


class Forecaster:
    """A model, and how it reads data.

    Parameters
    ----------
    model
        With its weights.
    options
        Arguments of the data module that it was fitted with.
    state
        What its checkpoint says of data: scaler, columns, words.
    radii
        Of its intervals; None without any.

    Notes
    -----
    Not for several threads at once. On the CPU.
    """

    def __init__(
        self, model: TaskModel, options: Mapping[str, Any], state: Mapping[str, Any], radii: Radii | None = None
    ) -> None:
        self.model, self._options, self._state, self._radii = model.eval(), dict(options), dict(state), radii
        self._data: WindowDataModule | None = None

    def forecast(
        self,
        store: Any = None,
        ids: Sequence[str] | None = None,
        predict_from: str | None = None,
        future_values: str | None = None,
        future_gaps: Gaps = "refuse",
        ingest_options: Mapping[str, Any] | None = None,
    ) -> pandas.DataFrame:
        """Forecast what comes behind the last known row of each series.

        Parameters
        ----------
        store
            Folder or URL of a store, or files of rows, or an open store; or a table in memory, such as of pandas, whose
            columns are called as those of the run's source were. Default: the store of the run.
        ids
            Only these series; a panel always has all of its own. Default: of the store of the run those that it was
            fitted on, if `--data.series` said which; else all.
        predict_from, future_values, future_gaps
            As `--data.predict_from`, `--data.future_values` and `--data.future_gaps`.
        ingest_options
            Arguments of :func:`zstore.ingest` for a table in memory. Default: those of the run's store.

        Returns
        -------
        A row for each series and target row: its id, ``time``, in UTC where the source wrote zones, ``step`` from 1,
        and a column for each target in source units; behind them quantiles, where the model has some, such as
        ``flow_mm_q0.9``, and the ends of intervals that were found with the checkpoint (`--intervals.levels`), such as
        ``flow_mm_lower80`` and ``flow_mm_upper80``. A name that another column has, such as ``time`` or ``step`` of a
        target, has an underscore behind it.

        Raises
        ------
        UsageError
            If the model cannot forecast them, or what it reads of rows to come is not known.
        NotFiniteError
            If a forecast is not finite.

        Notes
        -----
        Memory: the rows of the windows. A store stays open for the next call, until another version of it is there:
        each call looks for one, unless an open store is handed over.
        """
        if ids is not None and not len(ids):
            raise UsageError("a forecast of no series", expected="an id or more", fix="leave out ids, for all")
        data = self._opened(store, ingest_options)
        series = None if ids is None else np.array([data.store.position(id_) for id_ in ids], np.int64)
        ahead = forecast_windows(data.scales, series, predict_from, future_values, future_gaps)
        loader = data.windows_ahead.loader(ahead)
        self.model.shape = replace(
            self.model.shape, n_nodes=data.shape.n_nodes
        )  # a panel may have others than in the fit
        self.model.attach(data)
        self._give_intervals(data)
        parts: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for number, batch in enumerate(loader):
                found = self.model.predict_step(batch, number)
                for name, part in found.items() if isinstance(found, dict) else [("predictions", found)]:
                    parts.setdefault(name, []).append(part)
        values = {name: torch.cat(each).numpy() for name, each in parts.items()}
        if not np.isfinite(values["predictions"]).all():
            raise not_finite("a forecast that is not finite", data.infinite_channels, data.where, OTHER_WEIGHTS)
        table = _table(data, ahead, values["predictions"])
        if "quantiles" in values:
            _add(table, data, [f"q{level:g}" for level in self.model.task.levels], values["quantiles"])
        if self._radii is not None:
            for name in ("lower", "upper"):
                _add(table, data, [f"{name}{100 * level:.6g}" for level in self._radii.levels], values[name])
        return table

    def export(
        self,
        path: str | Path,
        format: Format = "onnx",  # noqa: A002  # as the option is called
        windows: int = 64,
        tolerance: float = 1e-5,
    ) -> Exported:
        """Write the model, with its scaling, into a file that needs nothing of this package.

        Parameters
        ----------
        path
            The file, ending in ``.onnx`` or ``.pt2``.
        format, windows, tolerance
            As ``--export.format`` and so on: see :class:`lightning_app.export.export.Export`.

        Returns
        -------
        Has ``path``, and ``difference``: the largest one from the model, in scaled units.

        Raises
        ------
        UsageError
            If a package lacks, the model does something that cannot be exported, or the file gives other numbers.
        """
        data = self._opened(None, None)
        self._give_intervals(data)
        return export_model(self.model, data, Export(format, str(path), windows, tolerance), Path(path).parent)

    def _give_intervals(self, data: WindowDataModule) -> None:
        """Give the model those of the series of a store, if it has some."""
        if self._radii is not None:
            ids = data.store.ids.tolist()
            self.model.intervals = Intervals(self._radii, ids, data.target_offsets, self.model.device)

    def _opened(self, store: Any, ingest_options: Mapping[str, Any] | None) -> WindowDataModule:
        """The data module of a store, that has taken what the checkpoint says."""
        if store is None or isinstance(store, (str, Path)):
            return self._module(str(store) if store is not None else self._options["store"])
        if isinstance(store, Store):
            return self._module(str(store.path), store)
        asked = dict(ingest_options) if ingest_options is not None else self._as_ingested(store)
        folder = tempfile.mkdtemp(prefix="forecast-")
        try:
            zstore.ingest(store, Path(folder) / "table.zarr", **asked)
            if ingest_options is None:
                _refuse_other_steps(zstore.open_store(Path(folder) / "table.zarr"))
            data = self._module(str(Path(folder) / "table.zarr"))
        except BaseException:
            shutil.rmtree(folder)
            raise
        weakref.finalize(data, shutil.rmtree, folder)  # rows are read as long as it lives
        return data

    def _as_ingested(self, rows: Any) -> dict[str, Any]:
        """How the store of the run was ingested, with a step that few rows may not say: weekdays look like days.

        How its times were written is not said of a table whose type says that its times are some.
        """
        store = WindowDataModule(**self._options).store
        table, axis = store.objects.document["table"], store.schema.time
        found = {name: table[name] for name in _OF_TABLE if table.get(name) not in (None, [], {})}
        if len(table["time"]) == 1 and _has_moments(rows, table["time"][0]):
            found = {name: value for name, value in found.items() if name not in ("time_format", "time_unit")}
        if axis.rule.kind == "fixed":
            return found
        step = axis.show_freq().partition(" ")[0] if axis.rule.regular else "rows"  # at what hour, rows say
        return {"freq": step, **found}

    def _module(self, store: str, as_opened: Store | None = None) -> WindowDataModule:
        """The data module of a store: of its newest version, or of that which is open."""
        kept = self._data
        if kept is not None and kept.options.store == store:
            options = kept.options
            now = as_opened or open_or_ingest(store, options.ingest, options.cache, options.storage_options)
            if now.digest == kept.store.digest:
                return kept
        version = None if as_opened is None else as_opened.version
        others: dict[str, Any] = {}
        if store != self._options["store"]:
            others["ingest"] = None
            if self._options.get("panel") is None:  # which is of these series, wherever
                others["series"] = None
        data = WindowDataModule(**{**self._options, **others, "store": store, "version": version})
        data.take(self._state, self.model.panels)
        self._data = data
        return data


def _has_moments(table: Any, column: str) -> bool:
    """Whether a column of a table in memory has timestamps or dates, as its type says."""
    try:
        own = table[column]
    except (TypeError, KeyError):  # a stream; or no such column, which is told when it is read
        return False
    return str(getattr(own, "dtype", getattr(own, "type", ""))).lower().startswith(("datetime", "timestamp", "date"))


def _refuse_other_steps(table: Store) -> None:
    """Raise UsageError where rows of a table lie beside the step that it was ingested with, which would be gaps."""
    index, axis = table.index, table.schema.time
    if axis.rule.kind not in ("weekday", "month"):
        return
    wrong = np.flatnonzero(~axis.rule.steps(index.runs.time, index.time_start[index.runs.series])[1])
    if len(wrong):
        id_, when = table.ids[index.runs.series[wrong[0]]], axis.show(int(index.runs.time[wrong[0]]))
        raise UsageError(
            f"a row of {id_} at {when}, beside the step of the run's store",
            expected=f"rows {axis.show_freq()} apart, or gaps of whole steps",
            fix="leave it out, or name another freq in ingest_options",
        )


def load_run(run: str | Path, checkpoint: str = "best") -> Forecaster:
    """See :func:`lightning_app.load`."""
    folder = Path(run)
    path = checkpoint_file(folder, None if checkpoint == "best" else checkpoint, "best")
    assert path is not None  # as there is a default
    for needed in (path, folder / "config.yaml"):
        if not needed.is_file():
            raise UsageError(
                f"no {needed.name} of a fit ({needed})",
                expected="a run folder, such as runs/demo_lstm",
                fix="python -m lightning_app fit --config …",
            )
    config = read_yaml(str(folder / "config.yaml"), "the configuration of a run")
    model_kind, saved = _class_of(config["model"]["class_path"]), read_checkpoint(path)
    unsaid = unsaid_arguments(saved.get("lightning_app"))
    arguments = config["model"].get("init_args") or {}
    others = _model_options(model_kind, arguments, unsaid) if unsaid else {}
    others |= {"member": arguments["member"]} if "member" in arguments else {}  # of an ensemble: a class of the user's
    model = model_kind.load_from_checkpoint(path, map_location="cpu", **others)
    state = saved.get(WindowDataModule.__name__)
    if not isinstance(state, dict):
        raise UsageError("checkpoint that does not say what data it was fitted on", where=str(path), fix="fit again")
    return Forecaster(model, _data_options(config["data"]), state, kept_radii(folder, path, model, saved))


def kept_radii(folder: Path, path: Path, model: TaskModel, checkpoint: Mapping[str, Any]) -> Radii | None:
    """Those of intervals that were found with these weights."""
    kept = kept_at(folder, path, model)
    if not kept.is_file():
        return None
    radii = Radii.read(kept)
    if radii.matches({"weights": digest_of_weights(checkpoint["state_dict"])}):
        return radii
    logger.warning(f"no intervals, for those in {kept} are of other weights; a test finds them anew")
    return None


def _class_of(path: str) -> type[TaskModel]:
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module or "lightning_app.models"), name)
    if not (isinstance(found, type) and issubclass(found, TaskModel)):
        raise UsageError(f"a run of {path}", expected="a model of lightning_app, or one derived from TaskModel")
    return found


def _model_options(kind: type[TaskModel], config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Some arguments of a model, of their own types, out of a configuration."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "model", instantiate=False, skip={"shape"})
    asked = {name: value for name, value in config.items() if name != "shape"}
    found = parser.instantiate(parser.parse_object({"model": asked}))["model"]
    return {name: found[name] for name in names}


def _data_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the data module, of their own types, out of a configuration."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WindowDataModule, "data", instantiate=False)
    asked = {name: value for name, value in config.items() if name not in _OF_PREDICT}
    found: dict[str, Any] = parser.instantiate(parser.parse_object({"data": asked}))["data"].as_dict()
    return found


def _table(data: WindowDataModule, ahead: Ahead, values: NDArray[np.float64]) -> pandas.DataFrame:
    import pandas as pd

    store, n = data.store, len(ahead.index)
    horizon, n_nodes = data.window.horizon, max(data.view.n_nodes, 1)
    times = target_times(ahead, ahead.index, np.arange(n))
    nodes = data.view.nodes
    series = np.tile(nodes, n) if nodes is not None else ahead.index.locate(np.arange(n))[1]
    unit = store.schema.time.unit
    every = np.repeat(times, n_nodes, axis=0).ravel()
    table = pd.DataFrame(
        {
            _free(store.schema.id_name or "id", ("time", "step")): np.repeat(store.ids[series].astype(object), horizon),
            "time": every if unit is None else every.astype(f"datetime64[{unit}]"),
            "step": np.tile(np.arange(1, horizon + 1), n * n_nodes),
        }
    )
    if store.schema.time.zone is not None:
        table["time"] = table["time"].dt.tz_localize(store.schema.time.zone)
    for position, target in enumerate(data.targets):
        table[_free(target, table)] = _by_row(data, values)[:, position]
    return table


def _free(name: str, taken: Container[str]) -> str:
    """A name that no other column has: a target may be called as ids, times or steps are."""
    while name in taken:
        name += "_"
    return name


def _add(table: pandas.DataFrame, data: WindowDataModule, names: Sequence[str], values: NDArray[np.float64]) -> None:
    """A column for each target and level, such as ``flow_mm_q0.9``."""
    flat = _by_row(data, values).reshape(len(table), len(data.targets), len(names))
    for position, target in enumerate(data.targets):
        for place, name in enumerate(names):
            table[_free(f"{target}_{name}", table)] = flat[:, position, place]


def _by_row(data: WindowDataModule, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(row, column) of (window, step, …, column): the steps of a series, then those of the next."""
    n_nodes = max(data.view.n_nodes, 1)
    by_node = values.reshape(len(values), data.window.horizon, n_nodes, -1)
    return by_node.swapaxes(1, 2).reshape(-1, by_node.shape[-1])
