"""The data module: a store, what is cut from it, and the loaders Lightning asks for."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_app.batch import BatchShape
from lightning_app.data.calendar import TimeEncoding, TimeFeature, n_values
from lightning_app.data.leaks import joined, refuse_leaks, refuse_trained, trained_on
from lightning_app.data.loader import WindowLoader
from lightning_app.data.plan import EpochOrder, OrderPlan, Pieces, digest
from lightning_app.data.pool import Pool, PoolPlan
from lightning_app.data.residency import Placement, Residency, choose, parse_budget
from lightning_app.data.scaler import ScaledBy, Scaler, ScalerKind, Training, fit_scaler, scaled_std, source_std
from lightning_app.data.shown import module_html, module_text
from lightning_app.data.source import Columns, PositionTimes, WindowSource, as_range
from lightning_app.data.splits import NoWindowError, Split, SplitName
from lightning_app.data.statics import n_columns, static_matrix
from lightning_app.data.stores import open_or_ingest
from lightning_app.data.unscaler import Unscaler
from lightning_app.data.views import Panel, PanelView, SeriesView, View
from zstore import Store, UsageError, WindowIndex, WindowShape, cache_folder, find_holes

logger = logging.getLogger(__name__)

_PREFETCH = 2
_ROWS = 1 << 14  # of a batch of single rows
_BLOCK = 1 << 22  # values that are looked at together
_GLOBAL_SEED = "PL_GLOBAL_SEED"  # where Lightning's seed_everything leaves it, for other processes too


class WindowDataModule(pl.LightningDataModule):
    """Windows of a zstore store, split, scaled and batched by configuration alone.

    Parameters
    ----------
    store
        Folder of the store; or a CSV file, which is ingested into the cache once.
    lookback
        Input rows of a window.
    horizon
        Target rows of a window.
    delay
        Rows between the last input and the first target. -1 with horizon 1 targets the last input row;
        -horizon targets the last `horizon` input rows.
    stride
        Rows between the starts of two training windows.
    evaluation_stride
        Rows between the starts of two windows of validation, test and prediction. Default: every window. As many as
        `horizon`: every target once.
    channels
        Input channels. Default: all of the store that hold numbers. (Codes of categories are taken as numbers too, if
        their channel is named.)
    targets
        Target channels. Default: the input channels.
    future
        Channels known in advance, given to the model for the target rows too.
    statics
        Static attributes given to the model: numbers are standardised over the training series, categories
        become one column each.
    panel
        Which series are side by side in a window that has all of them at once; None for windows of single series.
    split
        How targets are shared out between train, val and test.
    scaler
        Fitted on the training rows. ``standard``: mean 0, standard deviation 1. ``minmax``: from 0 to 1. ``robust``:
        median 0, interquartile range 1. ``log1p``: ``standard``, of ``log(1 + value)``. ``none``: source units. One for
        all channels, or by channel; a channel that is not named is ``standard``.
    scale_by
        Whether a channel has one mean and deviation, or each ``series`` its own.
    batch_size
        Windows of a batch, over all devices together.
    seed
        Of the order of training windows. Default: that of ``seed_everything``, or 0.
    predict_on
        The split that `predict` predicts.
    time_features
        Of the times of all rows of a window: ``time_of_day``, in steps of the time grid, ``hour_of_day``,
        ``day_of_week``, ``day_of_year``.
    time_encoding
        ``cyclic``: sine and cosine of each, as further inputs and further channels known in advance. ``index``: whole
        steps, hours or days, in ``x_time`` and ``y_time`` of a batch, for models with embeddings.
    observed_inputs
        Whether each input channel that may be missing gets another beside it: 1 where it was observed, 0 where it was
        filled with the training mean.
    residency
        Where decoded rows live: ``host``, in a memory-mapped file that all processes of a machine share; ``device``, in
        the memory of the device that trains; ``stream``, in a pool of bounded size, into which pieces of the store are
        decoded ahead of use, in random order; ``auto``, the first of device (a GPU), host, stream where they fit.
    memory_budget
        Of memory, that rows may take: a share of what is free, or a size such as ``8GiB``.
    cache
        Folder of row files and scalers. Default: $ZSTORE_CACHE, or zstore under the user's cache folder.
    ingest
        How a CSV file is ingested: arguments of ``zstore.ingest``, or a YAML file of them.
    storage_options
        For a store in object storage, such as region or endpoint. They are written to the run folder with the rest of
        the configuration: secrets belong into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
    version
        Version of the store to read, from 1; see ``zstore log``. Default: the newest. Not for a CSV file.
    """

    def __init__(
        self,
        store: str,
        lookback: int,
        horizon: int,
        delay: int = 0,
        stride: int = 1,
        evaluation_stride: int = 1,
        channels: list[str] | None = None,
        targets: list[str] | None = None,
        future: list[str] | None = None,
        statics: list[str] | None = None,
        panel: Panel | None = None,
        split: Split = Split(),  # noqa: B008  # frozen
        scaler: ScalerKind | dict[str, ScalerKind] = "standard",
        scale_by: ScaledBy = "channel",
        batch_size: int = 256,
        seed: int | None = None,
        predict_on: Literal["train", "val", "test"] = "test",
        time_features: list[TimeFeature] | None = None,
        time_encoding: TimeEncoding = "cyclic",
        observed_inputs: bool = False,
        residency: Residency = "auto",
        memory_budget: float | str = 0.5,
        cache: str | None = None,
        ingest: dict[str, Any] | str | None = None,
        storage_options: dict[str, str] | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__()
        self.cache = Path(cache) if cache else cache_folder()
        self.store: Store = open_or_ingest(store, ingest, self.cache, storage_options, version)
        self.window = WindowShape(lookback, horizon, delay, stride)
        self.evaluation_stride = evaluation_stride
        self.inputs = list(channels or self.store.numbers)
        if not self.inputs:
            raise UsageError("no channel of numbers", where=self.store.path, fix="name some with --data.channels")
        self.targets = list(targets or self.inputs)
        self.future = list(future or [])
        self.statics = list(statics or [])
        for option, names in {"channels": self.inputs, "targets": self.targets, "future": self.future}.items():
            _refuse_repeated(option, names)
        _refuse_repeated("statics", self.statics)
        _refuse_repeated("time_features", list(time_features or []))
        self.split, self.scaler_kind, self.scale_by, self.batch_size = split, scaler, scale_by, batch_size
        self.seed = int(os.environ.get(_GLOBAL_SEED, 0)) if seed is None else seed
        self.predict_on: SplitName = predict_on
        self.residency, self.memory_budget = residency, memory_budget
        parse_budget(memory_budget, 1)
        self.columns = list(dict.fromkeys(self.inputs + self.targets + self.future))
        for name in self.columns:
            self.store.channel(name)
        self.view: View = (
            SeriesView(self.store, split, self.columns)
            if panel is None
            else PanelView(self.store, split, self.columns, panel)
        )
        self.columns_of = self._columns(list(time_features or []), time_encoding, observed_inputs)
        self._n_static = n_columns(self.store, self.statics)
        self._trained: dict[str, Any] | None = None  # as a checkpoint says
        self._trains: dict[str, Any] | None = None  # in this fit
        self._scaler: Scaler | None = None
        self._placement: Placement | None = None
        self._recorded: OrderPlan | None = None
        self._pool: Pool | None = None
        self._source: WindowSource | None = None

    def __repr__(self) -> str:
        return module_text(self)

    __str__ = __repr__  # Lightning's makes every loader, which decodes the store

    def _repr_html_(self) -> str:
        return module_html(self)

    @property
    def shape(self) -> BatchShape:
        """What models are built from."""
        columns = self.columns_of
        cycles = 2 * len(columns.calendar) if columns.encoding == "cyclic" else 0
        return BatchShape(
            lookback=self.window.lookback,
            horizon=self.window.horizon,
            delay=self.window.delay,
            n_inputs=len(self.inputs) + len(columns.observed) + cycles,
            n_targets=len(self.targets),
            target_inputs=[self.inputs.index(name) if name in self.inputs else -1 for name in self.targets],
            n_static=self._n_static,
            n_future=len(self.future) + cycles,
            time_sizes=[n_values(name, columns.unit, columns.step) for name in columns.calendar]
            if columns.encoding == "index"
            else [],
            n_nodes=self.view.n_nodes,
        )

    @property
    def scaler(self) -> Scaler:
        """The scaler of all columns, fitted on the training rows or taken from a checkpoint."""
        if self._scaler is None:
            self._scaler = fit_scaler(
                self.store,
                self.split,
                self.columns,
                self.scaler_kind,
                self.cache,
                self.scale_by,
                self.view.members,
            )
        return self._scaler

    @property
    def n_series(self) -> int:
        """Series of the store, which `series` of a batch counts."""
        return self.store.n_series

    @property
    def where(self) -> str:
        """The store, for messages."""
        return self.store.path

    @property
    def infinite_channels(self) -> list[str]:
        """Channels in use that have infinite values somewhere in the store."""
        return [name for name in self.columns if self.store.n_infinite_series(name)]

    @cached_property
    def target_std(self) -> Tensor:
        """(series, target) float32 standard deviation of the scaled training targets."""
        with torch.inference_mode(False):  # a test may be first to ask, and a fit next
            return torch.from_numpy(scaled_std(self._training, self.scaler.of(self.targets))).float()

    @cached_property
    def source_std(self) -> Tensor:
        """(series, target) float64 standard deviation of each series' training targets in source units."""
        with torch.inference_mode(False):  # a test may be first to ask, and a fit next
            return torch.from_numpy(source_std(self._training, self.targets))

    @property
    def _training(self) -> Training:
        return Training(self.store, self.split, self.view.members)

    @cached_property
    def node_positions(self) -> Tensor:
        """(node, 2) float64 latitude and longitude of the series of the panel.

        Raises
        ------
        UsageError
            If there is no panel, it names no static attributes for them, or one is missing.
        """
        if not isinstance(self.view, PanelView):
            raise UsageError(
                "positions of series without a panel",
                expected="one that names the static attributes of latitude and longitude",
                fix="--data.panel.positions [latitude, longitude]",
            )
        return torch.from_numpy(self.view.positions())

    def to_source(self, scaled: Tensor, series: Tensor) -> Tensor:
        """Scaled targets, (batch, horizon, target), of some series, (batch,), in source units, float64."""
        return self._unscaler.to_source(scaled, series)

    @cached_property
    def _unscaler(self) -> Unscaler:
        return Unscaler(self.scaler.of(self.targets))

    def index(self, name: SplitName, stride: int = 1, all_windows: bool = False) -> WindowIndex:
        """The windows whose targets belong to one split.

        Parameters
        ----------
        name
            The split.
        stride
            Rows between the starts of two windows.
        all_windows
            Whether windows without any observed target are in it too.

        Raises
        ------
        UsageError
            If there is none.
        """
        shape = WindowShape(self.window.lookback, self.window.horizon, self.window.delay, stride)
        runs = self.view.runs
        index = WindowIndex.build(
            runs, shape, self.store.schema.time.freq, self.view.ranges(name), self.split.context == "allow"
        )
        if not len(index):
            longest = int(np.max(runs.stop - runs.start, initial=0))
            whole = f"at most {longest:,} rows, the longest stretch without a gap"
            fits = whole if shape.span > longest else f"so many without a gap, with all targets in {name}"
            raise NoWindowError(
                f"no window in {name}: lookback {shape.lookback} + delay {shape.delay} + horizon {shape.horizon}"
                f" need {shape.span:,} rows",
                expected=fits,
                where=str(self.store.path),
                fix="smaller --data.lookback or --data.horizon, or other --data.split.sizes",
            )
        if all_windows or not self._may_miss(self.targets):
            return index
        index = index.observed(self._holes)
        if not len(index):
            raise NoWindowError(
                f"no window in {name} has an observed target ({', '.join(self.targets)})",
                expected="one that is not missing",
                where=str(self.store.path),
                fix="other --data.targets, or other --data.split.sizes",
            )
        return index

    @cached_property
    def _holes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stretches of rows without any observed target."""
        nothing, columns, n_rows = np.zeros(0, np.int64), list(self.columns_of.targets), self.view.n_rows
        if not all(self._may_miss([name]) for name in self.targets):
            return nothing, nothing
        if self.placement.place == "stream":
            return find_holes(self.view.observed(columns, self.scaler, self.cache))
        observed = self.source.rows.observed
        if observed is None:
            return nothing, nothing
        by_node = observed.view(n_rows, max(self.view.n_nodes, 1), -1)
        size = max(1, _BLOCK // self.view.width)
        parts = (by_node[low : low + size, :, columns] for low in range(0, n_rows, size))
        return find_holes(part.flatten(1).any(dim=1).cpu().numpy() for part in parts)

    def _may_miss(self, channels: list[str]) -> bool:
        """Whether any of their values may be missing in a row."""
        return bool(self.view.missing(channels).any())

    def setup(self, stage: str) -> None:
        """Let the first process decide for all where rows live: what is free differs between them."""
        if self.trainer is not None:
            placement = self.trainer.strategy.broadcast(self.placement)
            self._placement = placement

    def train_dataloader(self) -> WindowLoader:
        """Shuffled training windows, in the order that a checkpoint began with if there is one.

        Raises
        ------
        UsageError
            If that order cannot be kept to, or processes have different ones.
        """
        self._refuse_other_plan()
        index = self._checked("train", self.window.stride)
        if self._is_first:
            kind = f"steps of {self.view.n_nodes:,} series" if self.view.n_nodes else "rows"
            logger.info(f"{len(index):,} training windows read {index.n_rows():,} of {self.view.n_rows:,} {kind}")
        loader = self._loader(index, shuffle=True)
        self._refuse_other_ranks(loader)
        return loader

    def val_dataloader(self) -> WindowLoader:
        """Every validation window once, in order."""
        return self._loader(self._checked("val", self.evaluation_stride), evaluated=True)

    def test_dataloader(self) -> WindowLoader:
        """Every test window once, in order."""
        return self._loader(self._checked("test", self.evaluation_stride), evaluated=True)

    def predict_dataloader(self) -> WindowLoader:
        """Every window of the split `predict_on` once, in order, whether its targets were observed or not."""
        return self._loader(self.index(self.predict_on, self.evaluation_stride, all_windows=True))

    def training_rows(self) -> WindowLoader:
        """Every training target once, in order, as input and target of a window of one row; on every process.

        Raises
        ------
        NoWindowError
            If no training row has an observed target.
        """
        view, freq = self.view, self.store.schema.time.freq
        index = WindowIndex.build(view.runs, WindowShape(1, 1, -1), freq, view.ranges("train"))
        index = index.observed(self._holes) if self._may_miss(self.targets) else index
        if not len(index):
            raise NoWindowError(
                f"no training row has an observed target ({', '.join(self.targets)})",
                expected="one at least, for what is learned of the training rows",
                where=self.store.path,
                fix="another --data.split, or other --data.targets",
            )
        return WindowLoader(self.source, index, max(1, _ROWS // max(view.n_nodes, 1)), pool=self._pool)

    def _checked(self, name: SplitName, stride: int) -> WindowIndex:
        """The windows of a split, after a proof that no target is in another one, or was trained on elsewhere."""
        index = self.index(name, stride)
        refuse_leaks(self.view.ranges, index, name, self.store.path)
        if name != "train" and self._trained is not None:
            refuse_trained(self.store, index, name, self._trained, self._nodes)
        return index

    @property
    def _nodes(self) -> NDArray[np.int64] | None:
        """(node,) positions of the series of a panel; None without one."""
        return self.view.grid.series if isinstance(self.view, PanelView) else None

    def _trained_on(self) -> dict[str, Any]:
        """When each series was a training target: what a checkpoint says, and, in a fit, what this one has."""
        if self._trained is not None and not self._is_fitting:
            return self._trained
        if self._trains is None:
            try:
                index = self.index("train", self.window.stride)
            except NoWindowError:  # of a module that only tests
                index = None
            self._trains = trained_on(self.store, index, self._nodes)
        return self._trains if self._trained is None else joined(self._trained, self._trains)

    @property
    def _is_first(self) -> bool:
        return self.trainer is None or self.trainer.is_global_zero

    def state_dict(self) -> dict[str, Any]:
        """The scaler, the split and what was trained on, for checkpoints."""
        plan = self._order_plan  # first, for what follows places the rows
        return {
            "scaler": self.scaler.to_json(),
            "fitted_on": self.scaler.fitted_on,
            "split": self.split.digest(),
            "trained_on": self._trained_on(),
            "order": None if plan is None else plan.to_json(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scaler a model was trained with.

        Raises
        ------
        UsageError
            If it was trained on other channels.
        """
        scaler = Scaler.from_json(state_dict["scaler"])
        if list(scaler.channels) != self.columns:
            raise UsageError(
                f"checkpoint trained on channels {', '.join(scaler.channels)}",
                expected=f"those of this configuration: {', '.join(self.columns)}",
                fix="the --data.channels, --data.targets and --data.future it was trained with, or another --ckpt_path",
            )
        if scaler.fitted_on != state_dict["fitted_on"]:
            raise UsageError(
                "checkpoint with a scaler that was fitted on other rows than the model",
                expected="the one that it was trained with",
                fix="fit again",
            )
        if scaler.scaling.per_series and len(scaler.offset) != self.n_series:
            raise UsageError(
                f"checkpoint scaled by series, of {len(scaler.offset):,}",
                expected=f"the {self.n_series:,} of this store",
                where=self.store.path,
                fix="the store it was trained on, or fit with --data.scale_by channel",
            )
        if self._pool is not None:
            self._pool.close()
        self._scaler, self._source, self._pool, self._trained = scaler, None, None, state_dict["trained_on"]
        self._take_plan(state_dict.get("order"))
        self.__dict__.pop("_unscaler", None)
        self.__dict__.pop("target_std", None)

    def _loader(self, index: WindowIndex, shuffle: bool = False, evaluated: bool = False) -> WindowLoader:
        trainer = self.trainer
        measured = evaluated and trainer is not None and getattr(trainer.lightning_module, "measures_source", False)
        targets = self.view.observed_targets(self.targets, self.window.horizon, self.cache) if measured else None
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        epoch = None if trainer is None else lambda: trainer.current_epoch
        source = self.source
        ahead = _PREFETCH if source.target != source.device else 0
        pieces = self._pieces() if shuffle else None

        def describe(batch_size: int) -> EpochOrder:
            windows = digest(index, self.store, self._nodes, pieces)
            plan = OrderPlan() if pieces is None else pieces.plan
            return EpochOrder(
                windows, len(index), batch_size, self.seed, plan, self.store.version, str(self.store.path)
            )

        return WindowLoader(
            source,
            index,
            self.batch_size,
            shuffle,
            self.seed,
            rank,
            world,
            epoch,
            self._pool,
            ahead,
            targets,
            pieces,
            describe if shuffle else None,
            trainer is not None and bool(trainer.overfit_batches),  # type: ignore[attr-defined]
            (lambda: trainer.num_training_batches) if shuffle and trainer is not None else None,
        )

    @property
    def _order_plan(self) -> OrderPlan | None:
        """What fixes the order of training windows: as recorded, or as rows are placed; None before they are."""
        if self._recorded is not None or self._source is None:
            return self._recorded
        return OrderPlan() if self._pool is None else self._pool.plan.pieces.plan

    def _pieces(self) -> Pieces | None:
        """The pieces that training windows are mixed over; None where all windows are mixed."""
        if self._pool is not None:
            return self._pool.plan.pieces
        plan = self._order_plan
        if plan is None or not plan.streamed:
            return None
        reader = self.view.reader(self.scaler, self.cache)
        return plan.pieces(reader.chunk_starts, reader.n_rows, self.window.span)

    @property
    def _is_fitting(self) -> bool:
        """Whether the order of a checkpoint matters: not in tests and predictions, which have their own."""
        return self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING

    def _take_plan(self, recorded: Any) -> None:
        """Keep to the order of a checkpoint from now on."""
        self._recorded = None if recorded is None else OrderPlan.from_json(recorded)
        mixed_whole = self._recorded is not None and not self._recorded.streamed
        if mixed_whole and self._is_fitting and self.residency == "auto" and self.placement.place == "stream":
            logger.info("residency host, for the epochs of the checkpoint mix all windows")
            self._placement = Placement("host", self.placement.limit)

    def _refuse_other_plan(self) -> None:
        """Raise where rows are in a pool, and the epochs of the checkpoint mix all windows."""
        if self._recorded is None or self._recorded.streamed or self.placement.place != "stream":
            return
        raise UsageError(
            "checkpoint of a fit with residency host or device, to go on with residency stream",
            expected="host or device: its epochs mix all windows, a stream mixes those in memory",
            where=self.store.path,
            fix="--data.residency host",
        )

    def _refuse_other_ranks(self, loader: WindowLoader) -> None:
        """Raise on all processes if one has another order than the first."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1 or loader.order is None:
            return
        mine = loader.order.to_json()
        first = trainer.strategy.broadcast(mine)
        if not trainer.strategy.reduce_boolean_decision(mine == first, all=True):
            raise UsageError(
                f"processes with different windows ({mine['n_windows']:,} of version {mine['version']} here, "
                f"{first['n_windows']:,} of version {first['version']} on the first)",
                expected="the same store and options on all",
                where=self.store.path,
                fix="start again, with --data.version if the store grows meanwhile",
            )

    @property
    def placement(self) -> Placement:
        """Where rows live."""
        if self._placement is None:
            view = self.view
            self._placement = choose(
                self.residency,
                view.n_rows,
                self.row_bytes,
                self._device,
                self.memory_budget,
                self.cache,
                self._n_processes,
            )
        return self._placement

    @property
    def _n_processes(self) -> int:
        """Processes of this machine."""
        return 1 if self.trainer is None else self.trainer.num_devices

    @property
    def row_bytes(self) -> int:
        """Bytes of a decoded row; of a step in a panel."""
        return self.view.width * (5 if self.view.masked else 4)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def source(self) -> WindowSource:
        """The decoded rows, where they are to live; built on first use."""
        if self._source is None:
            with torch.inference_mode(False):  # a test may be first to ask, and a fit next
                self._source = self._opened()
        return self._source

    def _opened(self) -> WindowSource:
        store, view, placement = self.store, self.view, self.placement
        if placement.place == "stream":
            reader = view.reader(self.scaler, self.cache)
            order, n_processes = self._recorded if self._is_fitting else None, self._n_processes
            order = order if order is not None and order.streamed else None
            plan = PoolPlan.fit(reader, self.window.span, placement.limit, order, n_processes)
            self._pool = Pool(reader, plan)
            rows, slot_times = self._pool.rows, self._pool.times
            times = None if slot_times is None else PositionTimes(slot_times)
        else:
            rows, irregular = view.open(self.scaler, self.cache), store.schema.time.freq is None
            times = PositionTimes(torch.from_numpy(store.times(0, store.n_rows))) if irregular else None
        source = WindowSource(
            rows,
            self.columns_of,
            static_matrix(store, self.split, self.statics, view.members),
            self._may_miss(self.targets),
            torch.from_numpy(view.grid.series) if isinstance(view, PanelView) else None,
            times,
        )
        if placement.place == "device":
            source = source.to(self._device)
        elif self._device.type != "cpu":
            source = source.delivered_to(self._device)
        return source

    def _columns(self, calendar: list[TimeFeature], encoding: TimeEncoding, observed: bool) -> Columns:
        """Which columns of the rows are what."""
        time = self.store.schema.time
        if calendar and time.unit is None:
            raise UsageError(
                f"time features {', '.join(calendar)} of times that are plain steps",
                expected="dates",
                where=self.store.path,
                fix="drop --data.time_features",
            )
        if calendar and self.view.n_nodes and encoding != "index":
            raise UsageError(
                f"time features of a panel as {encoding}",
                expected="index: whole steps, hours or days, the same for all series",
                fix="--data.time_encoding index",
            )
        if "time_of_day" in calendar and time.freq is None:
            raise UsageError(
                "time_of_day of irregular times",
                expected="evenly spaced ones",
                where=self.store.path,
                fix="hour_of_day",
            )
        missing = self.view.missing(self.inputs)
        return Columns(
            inputs=range(len(self.inputs)),
            targets=as_range([self.columns.index(name) for name in self.targets]),
            future=as_range([self.columns.index(name) for name in self.future]),
            observed=as_range(np.flatnonzero(missing).tolist() if observed else []),
            calendar=calendar,
            encoding=encoding,
            unit=time.unit or "s",
            freq=time.freq,
        )


def _refuse_repeated(option: str, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(
            f"--data.{option} with {', '.join(map(repr, repeated))} more than once",
            expected="each name once",
            fix=f"--data.{option} [{', '.join(dict.fromkeys(names))}]",
        )
