"""The data module: Lightning's hooks around :class:`lightning_app.data.window_data.WindowData`."""

from __future__ import annotations

import logging
import os
from copy import copy
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl

from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.batches.mixing import inflation
from lightning_app.data.columns.calendar import TimeEncoding, TimeFeature
from lightning_app.data.columns.meaning import Unknown
from lightning_app.data.columns.roles import CategoryEncoding
from lightning_app.data.columns.vectors import VectorOptions
from lightning_app.data.options import DataOptions, Gaps, options_by_name
from lightning_app.data.process import Process, refuse_other_orders
from lightning_app.data.rows.residency import Residency
from lightning_app.data.rows.views import Panel
from lightning_app.data.scaling.scaler import ScaledBy, ScalerKind
from lightning_app.data.stores import open_or_ingest
from lightning_app.data.window_data import WindowData
from lightning_app.data.windows.splits import Split, SplitName
from lightning_app.data.windows.subset import SeriesSubset
from zstore import Cache, Padding, WindowShape, cache_folder, shown

logger = logging.getLogger(__name__)

_GLOBAL_SEED = "PL_GLOBAL_SEED"  # where Lightning's seed_everything leaves it, for other processes too


class WindowDataModule(WindowData, pl.LightningDataModule):
    """Windows of a zstore store, split, scaled and batched by configuration alone.

    Parameters
    ----------
    store
        Folder of the store; or files of rows, such as CSV or Parquet, which are ingested into the cache once.
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
    jitter
        Rows that each training window starts later at most: so many are drawn anew in each epoch, as long as the window
        stays in its run and its split. With a stride of 16, a jitter of 15 has every window in some epoch.
    one_forecast
        Whether `test`, and `predict` of that split, have one window a series, or of the panel: the forecast from the
        time at which test begins, as competitions have it, whichever of its targets were observed. Default: every
        window.
    whole_targets
        Whether windows that lack a target are left out of training, validation and test, as where labels have failed.
        Default: only those that lack all of theirs. Padded targets do not count as lacking.
    target_stride
        Rows from one target to the next, where targets are slower than inputs; `horizon` counts targets.
    pad_before
        What stands for input rows before the first one of a series, or behind a gap: ``repeat`` that row, or ``zero``,
        the training mean. Then the first row is the last input of a window too. ``none``: no window reaches there.
    pad_after
        What stands for targets behind the last row of a series, before a gap, or behind the last one of the split:
        ``repeat`` that row, or ``zero``. They count in no loss and no metric. Then windows go on as long as the first
        target is there. ``none``: no window reaches there. With padding a batch has ``x_pad`` and ``y_pad``, True
        where a row is padded.
    channels
        Input channels. Default: all of the store that hold numbers, but for those of `classes` and, where targets are
        among the input rows (a negative `delay`), those of `targets`. ``[]``: none, beside `fields`. (Codes of
        categories are taken as numbers too, if their channel is named.) A vector stands for its channels: ``emg`` for
        ``emg.0``, ``emg.1`` and so on.
    targets
        Target channels. Default: the input channels.
    classes
        Those of the targets that are classes: words, or numbers that stand for classes. They are not scaled: a batch
        has words as their codes, and numbers as they are. For models whose task is a classification.
    future
        Channels known in advance, given to the model for the target rows too.
    statics
        Static attributes given to the model: numbers are standardised over the training series, categories
        become one column each.
    fields
        Fields of the store, such as images, and how many of the last input rows of a window a batch has of each:
        ``{image: 2}``; or that, how many rows apart they are, which part of each, and where its rows live:
        ``{image: {steps: 2, stride: 5, crop: [84, 84], residency: encoded}}``. A batch has them under their names,
        (batch, step, …), as they are stored; encoded images are decoded. In training a crop is somewhere in the row,
        drawn by seed, epoch and position, in all else in the middle.
    vectors
        Vectors, or channels, on steps of their own, where that of `x` is another rate: ``{qpos: 2}`` has the last two
        input rows of a window, ``{qpos: {steps: 2, stride: 5}}`` two that are five rows apart. A batch has them under
        their names, (batch, step, channel), scaled, 0 where missing. `channels` then are by default all others.
    series
        Which series of the store there are: of them alone are windows, scalers and what is predicted, whatever shares
        targets out. Default: all.
    panel
        Which series are side by side in a window that has all of them at once; None for windows of single series.
    split
        How targets are shared out between train, val and test.
    scaler
        Fitted on the training rows. ``standard``: mean 0, standard deviation 1. ``minmax``: from 0 to 1.
        ``minmax_signed``: from −1 to 1. ``quantile``: the 1st percentile to −1 and the 99th to 1; inputs beyond them
        are clipped, targets are not. ``robust``: median 0, interquartile range 1. ``log1p``: ``standard``, of
        ``log(1 + value)``. ``none``: source units. One for all channels, or by name of a channel or vector or by
        pattern: ``{emg: robust, "*.gripper": none}``. The last that fits a channel counts; where none does, it is
        ``standard``.
    scale_by
        Whether a channel has one mean and deviation, or each ``series`` its own.
    scale_floor
        The smallest deviation or range that a channel is divided by, in source units (of logarithms for ``log1p``): a
        smaller one counts as this. For all channels, or as `scaler` by channel. Default: none; then a channel that does
        not vary has scale 1.
    target_floor
        The least value of a forecast in source units, as 0 of what is counted: forecasts, quantiles and ends of
        intervals below it are this, in metrics of source units and in exported files too. Losses are as without it. For
        all targets that are numbers, or by name, vector or pattern. Default: none.
    batch_size
        Windows of a batch, over all devices together.
    seed
        Of the order of training windows. Default: that of ``seed_everything``, or 0.
    predict_on
        The split that `predict` predicts; or ``future``: one window a series, or of the panel, whose first target is
        the row behind the last known one, or `delay` rows later. A row is known that has a value which nobody knows
        in advance: a target or, unless targets lie among the inputs, any input that is not among `future`.
    predict_from
        The first time that is taken as not known, instead: a forecast as it would have been made then.
    future_values
        Files of rows such as CSV, with the store's names of columns, or a store: values of channels that are known in
        advance, for rows that are not in the store or lack them there. Where times have no step, its times are those
        of the rows to come.
    future_gaps
        What becomes of values that a model reads of rows to come, and that nobody gave: ``refuse``, with the first id,
        time and channel; ``fill``, by the training mean.
    time_features
        Of the times of all rows of a window: ``time_of_day``, in steps of the time grid, ``hour_of_day``,
        ``day_of_week``, ``day_of_year``, ``month_of_year``.
    time_encoding
        ``cyclic``: sine and cosine of each, as further inputs and further channels known in advance. ``index``: whole
        steps, hours or days, in ``x_time`` and ``y_time`` of a batch, for models with embeddings.
    category_encoding
        What becomes of channels of categories among the inputs and the channels known in advance, behind the others.
        ``one_hot``: a column for each word, 1 where it stands, all 0 where it is missing; the first linear layer of a
        model is an embedding of them. ``code``: the code of the word, scaled like a number. Targets are codes.
    observed_inputs
        Whether each input channel that may be missing gets another beside it: 1 where it was observed, 0 where it was
        filled with the training mean.
    residency
        Where decoded rows live: ``host``, in a memory-mapped file that all processes of a machine share; ``device``, in
        the memory of the device that trains; ``stream``, in a pool of bounded size, into which pieces of the store are
        decoded ahead of use, in random order; ``auto``, the first of device (a GPU), host, stream where they fit.
    memory_budget
        Of memory, that rows may take: a share of what is free, or a size such as ``8GiB``; at most 0.9 of what is free.
        Of a stream, that of all processes of a machine together.
    lanes
        Of a stream that begins: equal shares of the windows, from each of which every batch has its share. Each of
        several processes decodes the rows of its lanes alone, so their number should divide that of the lanes. A
        checkpoint keeps to its own. Default: 8, or fewer where the store or the budget is small.
    cache
        Folder of row files and scalers. Default: $ZSTORE_CACHE, or zstore under the user's cache folder.
    cache_limit
        Of row files, that are kept in that folder when one is built: a size such as ``50GiB``, or a share of its disk.
        Those go first that were used longest ago; what a process has open stays. Default: $ZSTORE_CACHE_LIMIT, or 0.2.
    ingest
        How such files are ingested: arguments of ``zstore.ingest``, or a YAML file of them.
    storage_options
        For a store in object storage, such as region or endpoint. They are written to the run folder with the rest of
        the configuration: secrets belong into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
    version
        Version of the store to read, from 1; see ``zstore log``. Default: the newest. Not for files of rows.
    unknown
        What a model that is fitted now makes of what it has never seen, when it is used on another store: words of
        categories, and series where each has its own scaler. ``refuse``: an error that names them. ``own_column``:
        a word gets a column, or a code, of its own, and a series the scaler of the channel. A checkpoint keeps to the
        rule that it was fitted with.

    Notes
    -----
    The constructor opens a store, and reads its index and no row. A file is ingested by `prepare_data`, or before that
    by whoever first asks for what depends on the store: the command line builds the model from `shape` before Lightning
    calls any hook. Of several processes that ask at once one ingests, under a lock, and the others wait for it.

    Rows are decoded when a loader is first asked for: only then has Lightning taken the checkpoint, whose scaler and
    columns they follow.
    """

    def __init__(
        self,
        store: str,
        lookback: int,
        horizon: int,
        delay: int = 0,
        stride: int = 1,
        evaluation_stride: int = 1,
        jitter: int = 0,
        one_forecast: bool = False,
        whole_targets: bool = False,
        target_stride: int = 1,
        pad_before: Padding = "none",
        pad_after: Padding = "none",
        channels: list[str] | None = None,
        targets: list[str] | None = None,
        classes: list[str] | None = None,
        future: list[str] | None = None,
        statics: list[str] | None = None,
        fields: dict[str, int | FieldOptions] | None = None,
        vectors: dict[str, int | VectorOptions] | None = None,
        series: SeriesSubset | None = None,
        panel: Panel | None = None,
        split: Split = Split(),  # noqa: B008  # frozen
        scaler: ScalerKind | dict[str, ScalerKind] = "standard",
        scale_by: ScaledBy = "channel",
        scale_floor: float | dict[str, float] = 0.0,
        target_floor: float | dict[str, float] | None = None,
        batch_size: int = 256,
        seed: int | None = None,
        predict_on: Literal["train", "val", "test", "future"] = "test",
        predict_from: str | None = None,
        future_values: str | None = None,
        future_gaps: Gaps = "refuse",
        time_features: list[TimeFeature] | None = None,
        time_encoding: TimeEncoding = "cyclic",
        category_encoding: CategoryEncoding = "one_hot",
        observed_inputs: bool = False,
        residency: Residency = "auto",
        memory_budget: float | str = 0.5,
        lanes: int | None = None,
        cache: str | None = None,
        cache_limit: float | str | None = None,
        ingest: dict[str, Any] | str | None = None,
        storage_options: dict[str, str] | None = None,
        version: int | None = None,
        unknown: Unknown = "refuse",
    ) -> None:
        pl.LightningDataModule.__init__(self)
        folder = Path(cache) if cache else cache_folder()
        options = DataOptions(
            store=store,
            window=WindowShape(lookback, horizon, delay, stride, target_stride, pad_before, pad_after),
            evaluation_stride=evaluation_stride,
            jitter=jitter,
            one_forecast=one_forecast,
            whole_targets=whole_targets,
            channels=None if channels is None else tuple(channels),
            targets=tuple(targets or ()),
            classes=tuple(classes or ()),
            future=tuple(future or ()),
            statics=tuple(statics or ()),
            fields=options_by_name("fields", FieldOptions, fields),
            vectors=options_by_name("vectors", VectorOptions, vectors),
            time_features=tuple(time_features or ()),
            time_encoding=time_encoding,
            category_encoding=category_encoding,
            observed_inputs=observed_inputs,
            unknown=unknown,
            series=series,
            panel=panel,
            split=split,
            predict_on=predict_on,
            predict_from=None if predict_from is None else str(predict_from),
            future_values=future_values,
            future_gaps=future_gaps,
            scaler=scaler,
            scale_by=scale_by,
            scale_floor=scale_floor,
            target_floor=target_floor,
            batch_size=batch_size,
            seed=int(os.environ.get(_GLOBAL_SEED, 0)) if seed is None else seed,
            residency=residency,
            memory_budget=memory_budget,
            lanes=lanes,
            cache=folder,
            row_cache=Cache(folder, cache_limit),
            ingest=ingest,
            storage_options=storage_options,
            version=version,
        )
        WindowData.__init__(self, options)
        self._limit_val_batches: int | float | None = None  # of the trainer, while a fit has no validation

    @property
    def process(self) -> Process:
        """That of the trainer; one alone on the CPU without it."""
        return Process.of(self.trainer)

    def prepare_data(self) -> None:
        """Ingest a file. Lightning calls this on the first process of each machine, before the others go on.

        Nothing is kept of it: every process opens the store for itself.
        """
        if not self.is_open:
            options = self.options
            open_or_ingest(options.store, options.ingest, options.cache, options.storage_options, options.version)

    def setup(self, stage: str) -> None:
        """Open the store, and let the first process decide for all where rows live: what is free differs between them.

        Rows are not opened yet: Lightning takes the checkpoint after this, and they follow its scaler and columns.
        A fit whose split says that there is nothing to validate on has no validation.
        """
        if self.trainer is not None:
            if stage == "fit" and self.split.is_empty("val"):
                self._limit_val_batches, self.trainer.limit_val_batches = self.trainer.limit_val_batches, 0
            self._placement = self.trainer.strategy.broadcast(self.placement)

    def teardown(self, stage: str) -> None:
        """Stop the threads of a stream, and let go of rows and their files; what was fitted stays."""
        if self.trainer is not None and self._limit_val_batches is not None:
            self.trainer.limit_val_batches, self._limit_val_batches = self._limit_val_batches, None
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        """Do the same when a stage fails: Lightning does not call `teardown` then."""
        self.teardown("fit")

    def train_dataloader(self) -> WindowLoader:
        """Shuffled training windows, in the order that a checkpoint began with if there is one.

        Raises
        ------
        UsageError
            If that order cannot be kept to, or processes have different ones.
        """
        self.refuse_other_plan()
        index, jitter, view = self.proved("train", self.window.stride), self.jitter(), self.view
        if self.process.rank == 0:
            kind = f"steps of {view.n_nodes:,} series" if view.n_nodes else "rows"
            n_rows = (index if jitter is None else jitter.index).n_rows()
            logger.info(f"{len(index):,} training windows read {n_rows:,} of {view.n_rows:,} {kind}")
        loader = self.loaders.mixed(index, jitter)
        if self.process.rank == 0 and self.pool is not None:
            logger.info(f"batches of the stream have a design effect of {inflation(copy(loader)):.2f}; 1 is a shuffle")
        refuse_other_orders(self.trainer, loader.order)
        return loader

    def val_dataloader(self) -> WindowLoader:
        """Every validation window once, in order."""
        return self._evaluated("val")

    def test_dataloader(self) -> WindowLoader:
        """Every test window once, in order; with `one_forecast` one a series, or of the panel."""
        return self.loader_of_test(self._measured) if self.options.one_forecast else self._evaluated("test")

    def predict_dataloader(self) -> WindowLoader:
        """Every window that `predict_on` names once, in order, whether its targets were observed or not."""
        if self.predict_on == "future":
            return self.windows_ahead.loader(self.ahead, repeats=True)
        if self.predict_on == "test" and self.options.one_forecast:
            return self.windows_ahead.loader(self.windows_ahead.test, repeats=True)
        return self.loaders.in_order(self.readable(self.predict_on, self.evaluation_stride), repeats=True)

    def _evaluated(self, name: SplitName) -> WindowLoader:
        return self.loaders.in_order(self.proved(name, self.evaluation_stride), self._measured)

    @property
    def _measured(self) -> bool:
        """Whether errors are measured in source units."""
        model = None if self.trainer is None else self.trainer.lightning_module
        return bool(getattr(model, "measures_source", False))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a model was trained with: the meaning of columns, the scaler, the order of an epoch.

        Raises
        ------
        UsageError
            If this store has not what it was trained with, or that is not known.
        """
        model = None if self.trainer is None else self.trainer.lightning_module
        self.take(state_dict, getattr(model, "panels", False))

    def __repr__(self) -> str:
        if not self.is_open:  # an error message that names this module must not ingest a file
            return f"<WindowDataModule: {shown(self.options.store)}, not opened yet>"
        from lightning_app.look.module import module_text

        return module_text(self)

    __str__ = __repr__  # Lightning's makes every loader, which decodes the store

    def _repr_html_(self) -> str:
        from lightning_app.look.module import module_html

        return module_html(self)
