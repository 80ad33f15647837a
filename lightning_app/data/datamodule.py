"""The data module: a store, what is cut from it, and the loaders Lightning asks for."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
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
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.batches.source import PositionTimes, WindowSource
from lightning_app.data.columns.calendar import TimeEncoding, TimeFeature, calendar_step, n_values
from lightning_app.data.columns.meaning import Meaning, StaticMeaning, Unknown, agreed, codes_of, refuse_unknown
from lightning_app.data.columns.roles import Columns, as_range
from lightning_app.data.old_checkpoints import require_plain, require_same_store
from lightning_app.data.rows.infinite import refuse_infinite_inputs
from lightning_app.data.rows.pool import Pool, PoolPlan
from lightning_app.data.rows.residency import Placement, Residency, choose, parse_budget
from lightning_app.data.rows.views import Panel, PanelView, SeriesView, View
from lightning_app.data.scaling.fit import fit_scaler
from lightning_app.data.scaling.rowscaling import applied
from lightning_app.data.scaling.scaler import ScaledBy, Scaler, ScalerKind, channel_kinds
from lightning_app.data.scaling.seasonal_error import seasonal_errors
from lightning_app.data.scaling.statics import encode_statics, fit_statics, unknown_words
from lightning_app.data.scaling.training import Training, scaled_std, source_std
from lightning_app.data.scaling.unscaler import Unscaler
from lightning_app.data.stores import open_or_ingest
from lightning_app.data.windows.leaks import check_trained, joined, refuse_leaks, refuse_trained, trained_on
from lightning_app.data.windows.plan import EpochOrder, OrderPlan, Pieces, digest
from lightning_app.data.windows.splits import NoWindowError, Split, SplitName
from zstore import Cache, Store, UsageError, WindowIndex, WindowShape, cache_folder, find_holes

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
        ``day_of_week``, ``day_of_year``, ``month_of_year``.
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
    cache_limit
        Of row files, that are kept in that folder when one is built: a size such as ``50GiB``, or a share of its disk.
        Those go first that were used longest ago; what a process has open stays. Default: $ZSTORE_CACHE_LIMIT, or 0.2.
    ingest
        How a CSV file is ingested: arguments of ``zstore.ingest``, or a YAML file of them.
    storage_options
        For a store in object storage, such as region or endpoint. They are written to the run folder with the rest of
        the configuration: secrets belong into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
    version
        Version of the store to read, from 1; see ``zstore log``. Default: the newest. Not for a CSV file.
    unknown
        What a model that is fitted now makes of what it has never seen, when it is used on another store: words of
        categories, and series where each has its own scaler. ``refuse``: an error that names them. ``own_column``:
        a word gets a column, or a code, of its own, and a series the scaler of the channel. A checkpoint keeps to the
        rule that it was fitted with.
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
        cache_limit: float | str | None = None,
        ingest: dict[str, Any] | str | None = None,
        storage_options: dict[str, str] | None = None,
        version: int | None = None,
        unknown: Unknown = "refuse",
    ) -> None:
        super().__init__()
        self.cache = Path(cache) if cache else cache_folder()
        self.row_cache = Cache(self.cache, cache_limit)
        self.store: Store = open_or_ingest(store, ingest, self.cache, storage_options, version)
        self.window = WindowShape(lookback, horizon, delay, stride)
        for option, number in {"batch_size": batch_size, "evaluation_stride": evaluation_stride}.items():
            if number < 1:
                raise UsageError(f"{option} {number}", expected="at least 1", fix=f"change --data.{option}")
        self.evaluation_stride = evaluation_stride
        self._asked: dict[str, list[str]] = {
            "channels": list(channels or []),
            "targets": list(targets or []),
            "future": list(future or []),
            "statics": list(statics or []),
            "time_features": list(time_features or []),
        }
        for option, names in self._asked.items():
            _refuse_repeated(option, names)
        self.unknown, self._panel, self._observed_inputs = unknown, panel, observed_inputs
        self._encoding: TimeEncoding = time_encoding
        self.split, self.scaler_kind, self.scale_by, self.batch_size = split, scaler, scale_by, batch_size
        self.seed = int(os.environ.get(_GLOBAL_SEED, 0)) if seed is None else seed
        self.predict_on: SplitName = predict_on
        self.residency, self.memory_budget = residency, memory_budget
        parse_budget(memory_budget, 1)
        self._obeyed: Meaning | None = None
        self._arrange()
        self._trained: dict[str, Any] | None = None  # as a checkpoint says
        self._trains: dict[str, Any] | None = None  # in this fit
        self._scaler: Scaler | None = None
        self._recorded_scaler: Scaler | None = None  # of a checkpoint, with the series of its own store
        self._placement: Placement | None = None
        self._recorded: OrderPlan | None = None
        self._pool: Pool | None = None
        self._source: WindowSource | None = None
        self._seasonal: dict[int, Tensor] = {}  # by season

    def _arrange(self) -> None:
        """Say which columns rows have, as asked for, or as a checkpoint has them."""
        asked, meant, store = self._asked, self._obeyed, self.store
        if meant is None:
            self.inputs = asked["channels"] or store.numbers
            if not self.inputs:
                raise UsageError("no channel of numbers", where=store.path, fix="name some with --data.channels")
            self.targets, self.future = asked["targets"] or list(self.inputs), asked["future"]
            self.statics, calendar = asked["statics"], asked["time_features"]
        else:
            names = {"channels": meant.inputs, "targets": meant.targets, "future": meant.future}
            self.inputs, self.targets, self.future = (agreed(name, asked[name], names[name]) for name in names)
            self.statics = agreed("statics", asked["statics"], [static.name for static in meant.statics])
            calendar = agreed("time_features", asked["time_features"], meant.calendar)
            if asked["time_features"]:
                agreed("time_encoding", [self._encoding], [meant.encoding])
            if self._observed_inputs and not meant.observed_inputs:
                agreed("observed_inputs", ["true"], ["false"])
            self._encoding = meant.encoding  # type: ignore[assignment]  # one of those, as it was read
        self.columns = list(dict.fromkeys([*self.inputs, *self.targets, *self.future]))
        for name in self.columns:
            store.channel(name)
        if meant is None:
            for name in self.statics:
                store.static(name)
        panel = self._panel
        self.view: View = (
            SeriesView(store, self.split, self.columns)
            if panel is None
            else PanelView(store, self.split, self.columns, panel)
        )
        missing = zip(self.inputs, self.view.missing(self.inputs).tolist(), strict=True)
        masked = [name for name, blank in missing if blank and self._observed_inputs]
        observed = masked if meant is None else list(meant.observed)
        self.columns_of = self._columns(calendar, self._encoding, observed)  # type: ignore[arg-type]  # likewise

    def __repr__(self) -> str:
        from lightning_app.look.module import module_text

        return module_text(self)

    __str__ = __repr__  # Lightning's makes every loader, which decodes the store

    def _repr_html_(self) -> str:
        from lightning_app.look.module import module_html

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
            n_static=sum(static.n_columns(self._rule) for static in self._static_words),
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
            self._scaler = self._fitted(self.scale_by)
        return self._scaler

    def _fitted(self, by: ScaledBy) -> Scaler:
        members = self.view.members
        return fit_scaler(self.store, self.split, self.columns, self.scaler_kind, self.cache, by, members)

    @property
    def _rule(self) -> Unknown:
        """What becomes of what is unknown."""
        return self.unknown if self._obeyed is None else self._obeyed.unknown

    @property
    def _static_words(self) -> tuple[StaticMeaning, ...]:
        """Static attributes and their words; without means and deviations, so that nothing is fitted."""
        if self._obeyed is not None:
            return self._obeyed.statics
        found = [self.store.static(name) for name in self.statics]
        return tuple(StaticMeaning(static.name, static.categories) for static in found)

    @property
    def meaning(self) -> Meaning:
        """What the columns of batches mean: as a checkpoint has it, or as this store and split do."""
        if self._obeyed is not None:
            return self._obeyed
        store, axis, others = self.store, self.store.schema.time, None
        per_series = self.scaler.scaling.per_series
        if per_series and self.unknown == "own_column":
            whole = self._fitted("channel")
            others = (tuple(whole.offset.tolist()), tuple(whole.scale.tolist()))
        columns, nodes = self.columns_of, self._nodes
        known = [store.channel(name) for name in dict.fromkeys(self.columns)]
        return Meaning(
            inputs=tuple(self.inputs),
            targets=tuple(self.targets),
            future=tuple(self.future),
            observed=tuple(self.inputs[column] for column in columns.observed),
            observed_inputs=self._observed_inputs,
            words={channel.name: channel.categories for channel in known if channel.kind == "category"},
            statics=self._static_meanings,
            time_unit=axis.unit or "",
            time_step=axis.freq or 0,
            time_rule=calendar_step(axis.rule),
            calendar=tuple(columns.calendar),
            encoding=columns.encoding,
            unknown=self.unknown,
            series=tuple(store.ids.tolist()) if per_series else None,
            other_series=others,
            nodes=None if nodes is None else tuple(store.ids[nodes].tolist()),
        )

    def obey(self, meaning: Meaning) -> None:
        """Take the columns of batches from a checkpoint: every name, word and time of this store is read as there.

        Raises
        ------
        UsageError
            If this store has not what the model was trained with, or other things were asked for.
        """
        if meaning == self._obeyed:
            return
        meaning.require_time(self.store)
        columns = dict.fromkeys([*meaning.inputs, *meaning.targets, *meaning.future])
        meaning.require_channels(self.store, list(columns))
        meaning.require_statics(self.store)
        if self.unknown == "own_column" and meaning.unknown != "own_column":
            agreed("unknown", ["own_column"], [meaning.unknown])
        before, self._obeyed = self._obeyed, meaning
        try:
            self._arrange()
        except UsageError:
            self._obeyed = before
            self._arrange()
            raise
        self._forget()

    def _forget(self) -> None:
        """Drop what was made of other columns or another scaler."""
        if self._pool is not None:
            self._pool.close()
        self._source, self._pool, self._trains, self._seasonal = None, None, None, {}
        for name in ("_unscaler", "target_std", "source_std", "_holes", "node_positions"):
            self.__dict__.pop(name, None)

    def _recoded(self) -> dict[str, NDArray[np.int64]]:
        """By channel, what the checkpoint has for each code of this store, where that is another code."""
        found = {}
        for name, known in (self._obeyed.words if self._obeyed is not None else {}).items():
            words = self.store.channel(name).categories
            if tuple(words) != known[: len(words)]:
                found[name] = codes_of(words, known)
        return found

    def _matched(self, scaler: Scaler) -> Scaler:
        """The scaler of a checkpoint for the codes and series of this store."""
        recoded, meant = self._recoded(), self._obeyed
        if recoded:
            scaler = replace(scaler, codes=tuple(recoded.get(name) for name in scaler.channels))
        if not scaler.scaling.per_series or meant is None:
            return scaler
        n_channels = len(scaler.channels)
        if meant.series is None or scaler.offset.shape != (len(meant.series), n_channels):
            raise UsageError("checkpoint with a scaler by series, without their ids", fix="fit again")
        others = (np.zeros(n_channels), np.ones(n_channels))  # never used: such series are refused
        if meant.other_series is not None:
            others = (np.array(meant.other_series[0]), np.array(meant.other_series[1]))
        return scaler.by_id(meant.series, self.store.ids.tolist(), others)

    def _refuse_unknown(self, index: WindowIndex) -> None:
        """Raise where some windows have words, or are of series, that the model of a checkpoint has never seen."""
        meant, store = self._obeyed, self.store
        if meant is None:
            return
        series = np.unique(index.series) if self._nodes is None else self._nodes
        if meant.series is not None and meant.other_series is None:
            known = set(meant.series)
            unseen = [id_ for id_ in store.ids[series].tolist() if id_ not in known]
            refuse_unknown(store, "series without a scaler", unseen, meant.unknown)
        if meant.unknown == "own_column":
            return
        for static in meant.statics:
            refuse_unknown(store, f"words of {static.name!r}", unknown_words(store, static, series), meant.unknown)
        for name, codes in self._recoded().items():
            strange = np.flatnonzero(codes == len(meant.words[name]))
            if len(strange):
                words = store.channel(name).categories
                used = [words[code] for code in strange.tolist() if self._reads(index, series, name, code)]
                refuse_unknown(store, f"words of {name!r}", used, meant.unknown)

    def _reads(self, index: WindowIndex, series: NDArray[np.int64], channel: str, code: int) -> bool:
        """Whether some windows read rows with one code; of a panel, whether its series have it anywhere."""
        store = self.store
        if self._nodes is None:
            first, stop = index.target_spans()
            windows = np.diff(index.ends, prepend=0) - 1
            start = np.minimum(index.first, first)
            stop = np.maximum(stop, index.first + windows * index.shape.stride + index.shape.span)
        else:
            start, stop = (store.index.row_start[series + shift] for shift in (0, 1))
        return any(
            bool((store.read(channel, low, high) == code).any())
            for low, high in zip(start.tolist(), stop.tolist(), strict=True)
        )

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

    def seasonal_error(self, season: int) -> Tensor:
        """(series, target) float64 mean absolute difference of training targets `season` rows apart, NaN if none.

        In source units; the scale of MASE. Cost: the first call for a season decodes the targets of the training rows.
        """
        if season not in self._seasonal:
            targets = self.scaler.of(self.targets)
            error = seasonal_errors(self.store, self.split, targets, season, self.view.members)
            self._seasonal[season] = torch.from_numpy(error)
        return self._seasonal[season]

    @property
    def _training(self) -> Training:
        return Training(self.store, self.split, self.view.members, self._recoded())

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
        scaler = self.scaler
        later = self.store.float32_suffices(scaler.channels, scaler.scaling)
        return Unscaler((applied(scaler) if later else scaler).of(self.targets))

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
            runs, shape, self.store.time.rule, self.view.ranges(name), self.split.context == "allow"
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
            return find_holes(self.view.observed(columns, self.scaler, self.row_cache))
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
        index = self.index(self.predict_on, self.evaluation_stride, all_windows=True)
        self._refuse_unknown(index)
        refuse_infinite_inputs(self.view, index, self.inputs, self.future, self.predict_on)
        return self._loader(index)

    def training_rows(self) -> WindowLoader:
        """Every training target once, in order, as input and target of a window of one row; on every process.

        Raises
        ------
        NoWindowError
            If no training row has an observed target.
        """
        view, rule = self.view, self.store.time.rule
        index = WindowIndex.build(view.runs, WindowShape(1, 1, -1), rule, view.ranges("train"))
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
        self._refuse_unknown(index)
        refuse_infinite_inputs(self.view, index, self.inputs, self.future, name)
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
        scaler = self._recorded_scaler or self.scaler
        return {
            "meaning": self.meaning.to_json(),
            "scaler": scaler.to_json(),
            "fitted_on": scaler.fitted_on,
            "split": self.split.digest(),
            "trained_on": self._trained_on(),
            "order": None if plan is None else plan.to_json(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a model was trained with: the meaning of columns, the scaler, the order of an epoch.

        Raises
        ------
        UsageError
            If this store has not what it was trained with, or that is not known.
        """
        scaler = Scaler.from_json(state_dict["scaler"])
        if state_dict.get("meaning") is not None:
            self.obey(Meaning.from_json(state_dict["meaning"]))
            self._refuse_other_nodes()
        else:
            self._require_plain(scaler)
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
        if state_dict.get("meaning") is None:
            kinds = channel_kinds(self.columns, self.scaler_kind)
            require_same_store(self.store, state_dict["split"], kinds, scaler.fitted_on, self.view.members)
        check_trained(state_dict["trained_on"])
        matched = self._matched(scaler)
        self._forget()
        self._scaler, self._recorded_scaler, self._trained = matched, scaler, state_dict["trained_on"]
        self._take_plan(state_dict.get("order"))

    def _refuse_other_nodes(self) -> None:
        """Raise where a model with weights for each series of its panel is given another panel."""
        model = None if self.trainer is None else self.trainer.lightning_module
        recorded = None if self._obeyed is None else self._obeyed.nodes
        if not getattr(model, "panels", False) or recorded is None:
            return
        nodes = [] if self._nodes is None else self.store.ids[self._nodes].tolist()
        known, present = set(recorded), set(nodes)
        unseen = [id_ for id_ in nodes if id_ not in known]
        refuse_unknown(self.store, "series of the panel", unseen, "refuse")
        if nodes != list(recorded):
            absent = [id_ for id_ in recorded if id_ not in present]
            raise UsageError(
                f"panel without {len(absent):,} series that the model has weights for ({', '.join(absent[:3])})",
                expected=f"all {len(recorded):,} of its panel",
                where=self.store.path,
                fix="--data.panel.ids of the panel it was trained with",
            )

    def _require_plain(self, scaler: Scaler) -> None:
        """Raise unless a checkpoint that does not say what its columns mean can be understood without that."""
        told = {
            "static attributes": self.statics,
            "observed inputs": self._observed_inputs,
            "channels known in advance": self.future,
            "time features": self.columns_of.calendar and self._encoding == "cyclic",  # all of two channels each
        }
        require_plain(self.store, self.columns, [name for name, used in told.items() if used], scaler)

    def _loader(self, index: WindowIndex, shuffle: bool = False, evaluated: bool = False) -> WindowLoader:
        trainer = self.trainer
        measured = evaluated and trainer is not None and getattr(trainer.lightning_module, "measures_source", False)
        scaled = self.scaler.of(self.targets)
        targets = self.view.observed_targets(scaled, self.window.horizon, self.row_cache) if measured else None
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
        reader = self.view.reader(self.scaler, self.row_cache)
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
            reader = view.reader(self.scaler, self.row_cache)
            order, n_processes = self._recorded if self._is_fitting else None, self._n_processes
            order = order if order is not None and order.streamed else None
            plan = PoolPlan.fit(reader, self.window.span, placement.limit, order, n_processes)
            self._pool = Pool(reader, plan)
            rows, slot_times = self._pool.rows, self._pool.times
            times = None if slot_times is None else PositionTimes(slot_times)
        else:
            rows, irregular = view.open(self.scaler, self.row_cache), not store.time.rule.regular
            times = PositionTimes(torch.from_numpy(view.timed.times(0, view.n_rows))) if irregular else None
        source = WindowSource(
            rows,
            self.columns_of,
            encode_statics(store, self._static_meanings, self._rule),
            self._may_miss(self.targets),
            torch.from_numpy(view.grid.series) if isinstance(view, PanelView) else None,
            times,
        )
        if placement.place == "device":
            source = source.to(self._device)
        elif self._device.type != "cpu":
            source = source.delivered_to(self._device)
        return source

    @property
    def _static_meanings(self) -> tuple[StaticMeaning, ...]:
        if self._obeyed is not None:
            return self._obeyed.statics
        return fit_statics(self.store, self.split, self.statics, self.view.members)

    def _columns(self, calendar: list[TimeFeature], encoding: TimeEncoding, observed: list[str]) -> Columns:
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
        if "time_of_day" in calendar and time.rule.kind != "fixed":
            raise UsageError(
                f"time_of_day of times whose step is {time.show_freq()}",
                expected="evenly spaced ones",
                where=self.store.path,
                fix="hour_of_day",
            )
        return Columns(
            inputs=range(len(self.inputs)),
            targets=as_range([self.columns.index(name) for name in self.targets]),
            future=as_range([self.columns.index(name) for name in self.future]),
            observed=as_range([self.inputs.index(name) for name in observed]),
            calendar=calendar,
            encoding=encoding,
            unit=time.unit or "s",
            rule=time.rule,
        )


def _refuse_repeated(option: str, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(
            f"--data.{option} with {', '.join(map(repr, repeated))} more than once",
            expected="each name once",
            fix=f"--data.{option} [{', '.join(dict.fromkeys(names))}]",
        )
