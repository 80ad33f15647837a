"""Windows of one store, from options to loaders, without Lightning.

options -> layout (what columns are on this store) -> scales (what the training rows say) -> supply (rows, open) ->
loaders. Each is made of those before it and never changes: another checkpoint is another layout, and what follows from
it is made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_app.data.ahead.forecast import Ahead, Predicted
from lightning_app.data.ahead.windows import WindowsAhead
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.facts import DataFacts
from lightning_app.data.layout import Layout
from lightning_app.data.loaders import Loaders
from lightning_app.data.options import DataOptions
from lightning_app.data.process import Process
from lightning_app.data.record import Record, refuse_other_nodes
from lightning_app.data.rows.residency import Placement
from lightning_app.data.scales import Scales
from lightning_app.data.selection import Holes, observed_windows, prove, require_readable, training_targets, windows_of
from lightning_app.data.stores import names_files, open_or_ingest, require_openable
from lightning_app.data.supply import RowSupply, no_holes, open_holes, place, streamed_holes
from lightning_app.data.windows.jitter import Jitter
from lightning_app.data.windows.leaks import joined, trained_on
from lightning_app.data.windows.plan import OrderPlan
from lightning_app.data.windows.splits import NoWindowError, SplitName
from zstore import Store, UsageError, WindowIndex, WindowShape

logger = logging.getLogger(__name__)


class WindowData(DataFacts):
    """All that is made of a store for training, each part when it is first asked for.

    Parameters
    ----------
    options
        What was asked for.

    Raises
    ------
    UsageError
        If the options cannot be meant or, of a store, if it has not what they name.

    Notes
    -----
    A store is opened at once, and its index is read; no row is. Files of rows, such as CSV, are ingested when
    something that depends on them is first asked for.
    """

    def __init__(self, options: DataOptions) -> None:
        self.options = options
        self.evaluation_stride, self.batch_size = options.evaluation_stride, options.batch_size
        self.split, self.scaler_kind, self.scale_by = options.split, options.scaler, options.scale_by
        self.seed, self.predict_on, self.residency = options.seed, options.predict_on, options.residency
        self.cache, self.row_cache = options.cache, options.row_cache
        self._store: Store | None = None
        self._layout: Layout | None = None
        self._placement: Placement | None = None
        self._begin(Record())
        require_openable(options.store, options.ingest, options.version)
        if not names_files(options.store):
            self.layout  # noqa: B018  # names that the store does not have are refused here and now

    def _begin(self, record: Record, scales: Scales | None = None) -> None:
        """Start anew with what a checkpoint says: nothing that was made of another one stays."""
        self._record, self._scales = record, scales
        self._supply: RowSupply | None = None
        self._plan: OrderPlan | None = None  # of rows that were open, and are closed
        self._holes: dict[bool, Holes] = {}
        self._ahead: WindowsAhead | None = None
        self._trains: dict[str, Any] | None = None  # when each series is a training target of this fit

    # The chain ---------------------------------------------------------------------------------------------------

    @property
    def process(self) -> Process:
        """Which process this is, of how many."""
        return Process()

    @property
    def is_open(self) -> bool:
        """Whether the store is open."""
        return self._store is not None

    @property
    def store(self) -> Store:
        """The store, opened on first use; a file is ingested into the cache first, unless that was done before.

        The command line builds a model from :attr:`shape` before Lightning calls any hook, so whoever needs the shape
        first ingests. Of several processes that do so at once one ingests under a lock, and the others wait for it.
        """
        if self._store is None:
            asked = self.options
            self._store = open_or_ingest(asked.store, asked.ingest, asked.cache, asked.storage_options, asked.version)
        return self._store

    @property
    def layout(self) -> Layout:
        """What the columns of batches are on this store."""
        if self._layout is None:
            self._layout = Layout.of(self.store, self.options)
        return self._layout

    @property
    def scales(self) -> Scales:
        """What is fitted on the training rows, or taken from a checkpoint."""
        if self._scales is None:
            self._scales = Scales(self.layout)
        return self._scales

    @property
    def placement(self) -> Placement:
        """Where rows live."""
        if self._placement is None:
            self._placement = place(self.layout, self.process)
        return self._placement

    @property
    def supply(self) -> RowSupply:
        """The decoded rows, where they are to live; opened on first use."""
        if self._supply is None:
            recorded = self._record.order if self.process.fitting else None
            self._supply = RowSupply.open(self.scales, self.placement, self.process, recorded)
        return self._supply

    @property
    def loaders(self) -> Loaders:
        """Makes loaders of the rows."""
        return Loaders(self.scales, self.supply, self.process, self._record.order or self.supply.plan, self.batch_size)

    @property
    def ahead(self) -> Ahead:
        """The windows whose targets are not known yet; see :attr:`WindowsAhead.future`."""
        return self.windows_ahead.future

    @property
    def windows_ahead(self) -> WindowsAhead:
        """Windows whose targets lie ahead of what is known."""
        if self._ahead is None:
            self._ahead = WindowsAhead(self.scales, self.process)
        return self._ahead

    @property
    def predicted(self) -> Predicted:
        """What is known of the windows that `predict_on` names."""
        if self.predict_on == "future":
            return Predicted(self.ahead, self.ahead)
        if self.predict_on == "test" and self.options.one_forecast:
            return Predicted(self.windows_ahead.test, self.windows_ahead.test)
        layout = self.layout
        truth = layout.view.observed_targets(self.scales.targets, layout.window.target_rows, self.row_cache)
        return Predicted(layout.view.timed, truth)

    def loader_of_test(self, measured: bool) -> WindowLoader:
        """With `one_forecast`, the windows of test, after a proof that the model was not trained on their targets."""
        if self._record.trained is not None:
            self.windows_ahead.refuse_trained(self._record.trained)
        return self.windows_ahead.loader(self.windows_ahead.test, measured)

    def close(self) -> None:
        """Stop the threads of a stream, and let go of rows and their files; whoever asks next opens them again.

        Files are closed with the last loader or batch that lies in them.
        """
        if self._supply is not None:
            self._supply.close()
            self._plan, self._supply = self._supply.plan, None

    # Checkpoints -------------------------------------------------------------------------------------------------

    def obey(self, meaning: Meaning) -> None:
        """Take the columns of batches from a checkpoint: every name, word and time of this store is read as there.

        Raises
        ------
        UsageError
            If this store has not what the model was trained with, or other things were asked for.
        """
        layout = self._layout_for(meaning)
        if layout is not self._layout:
            self._replace(layout, Record())

    def take(self, state: Mapping[str, Any], panels: bool) -> None:
        """Take what :meth:`state_dict` gave; `panels` of a model that has weights for each series of its panel.

        Raises
        ------
        UsageError
            If this store has not what the model was trained with, or that is not known.
        """
        meaning = state.get("meaning")
        layout = self._layout_for(None if meaning is None else Meaning.from_json(meaning))
        if panels:
            refuse_other_nodes(layout)
        record = Record.of(state, layout)
        scales = Scales(layout, record.scaler)
        scales.scaler  # noqa: B018  # refused here if it cannot be matched with this store
        self._replace(layout, record, scales)
        if record.order is not None and self.process.fitting:
            self._placement = self._placed_for(record.order)

    def _placed_for(self, order: OrderPlan) -> Placement:
        """Where rows live, with all in memory that was to be streamed by ``auto`` and that epochs cannot stream."""
        placement, asked = self.placement, self.options.fields
        if not order.streamed and self.residency == "auto" and placement.place == "stream":
            logger.info("residency host, for the epochs of the checkpoint mix all windows")
            placement = replace(placement, place="host")
        fields = dict(placement.fields)
        for name in placement.streamed_fields:
            streamed = placement.place == "stream" or name in order.fields
            if not (order.streamed and streamed) and (name not in asked or asked[name].residency == "auto"):
                fields[name] = "encoded"
                logger.info(f"field {name!r}: residency {fields[name]}, for its epochs mix other rows")
        return replace(placement, fields=fields)

    def state_dict(self) -> dict[str, Any]:
        """The scaler, the split and what was trained on, for checkpoints."""
        plan = self._order_plan  # first, for what follows places the rows
        scaler = self._record.scaler or self.scales.to_record
        return {
            "meaning": self.meaning.to_json(),
            "scaler": scaler.to_json(),
            "fitted_on": scaler.fitted_on,
            "split": self.split.digest(),
            "trained_on": self._trained_on(),
            "order": None if plan is None else plan.to_json(),
        }

    def _layout_for(self, meaning: Meaning | None) -> Layout:
        """The layout that obeys a checkpoint; the one there is, if it does."""
        same = self._layout is not None and self._layout.recorded == meaning
        return self.layout if same else Layout.of(self.store, self.options, meaning)

    def _replace(self, layout: Layout, record: Record, scales: Scales | None = None) -> None:
        self.close()
        self._layout = layout
        self._begin(record, scales)

    @property
    def _order_plan(self) -> OrderPlan | None:
        """What fixes the order of training windows: as recorded, or as rows are placed; None before they are."""
        if self._record.order is not None or self._supply is None:
            return self._record.order or self._plan
        return self._supply.plan

    def refuse_other_plan(self) -> None:
        """Raise UsageError where rows are in a pool, and the epochs of the checkpoint mix other windows."""
        order, placement, lanes = self._record.order, self.placement, self.options.lanes
        if order is None or not (placement.place == "stream" or placement.streamed_fields):
            return
        if order.streamed and lanes not in (None, order.lanes):
            raise UsageError(
                f"--data.lanes {lanes} with a checkpoint whose epochs have {order.lanes}",
                expected=f"{order.lanes}: a fit keeps to the order that it began with",
                where=self.store.path,
                fix=f"drop --data.lanes, or --data.lanes {order.lanes}, or fit again",
            )
        if order.streamed:
            return
        names = ", ".join(map(repr, placement.streamed_fields))
        raise UsageError(
            "checkpoint of a fit with residency host or device, to go on with residency stream",
            expected="host or device: its epochs mix all windows, a stream mixes those in memory",
            where=self.store.path,
            fix="--data.residency host"
            if placement.place == "stream"
            else f"residency encoded or host for {names} in --data.fields",
        )

    def _trained_on(self) -> dict[str, Any]:
        """When each series was a training target: what a checkpoint says, and, in a fit, what this one has."""
        before = self._record.trained
        if before is not None and not self.process.fitting:
            return before
        if self._trains is None:
            try:
                index = self.index("train", 1 if self.options.jitter else self.window.stride)
            except NoWindowError:  # of a module that only tests
                index = None
            self._trains = trained_on(self.store, index, self.layout.nodes, self.options.split.group)
        return self._trains if before is None else joined(before, self._trains)

    # Windows -----------------------------------------------------------------------------------------------------

    def index(self, name: SplitName, stride: int = 1, all_windows: bool = False) -> WindowIndex:
        """The windows whose targets belong to one split.

        Parameters
        ----------
        name
            The split.
        stride
            Rows between the starts of two windows.
        all_windows
            Whether windows are in it too that are left out for want of observed targets.

        Raises
        ------
        UsageError
            If there is none.
        """
        index = windows_of(self.layout, name, stride)
        if all_windows or not self.layout.may_miss(self.targets):
            return index
        return observed_windows(self.layout, index, name, self._target_holes(self.options.whole_targets))

    @property
    def window(self) -> WindowShape:
        """The rows of a window: as asked for, and padded as a checkpoint has it."""
        return self.options.window if self._layout is None else self._layout.window

    def jitter(self) -> Jitter | None:
        """What moves training windows; None where they stay. That each may become is proved to be no leak."""
        n_rows = self.options.jitter
        return Jitter(n_rows, self.proved("train", 1)) if n_rows else None

    def proved(self, name: SplitName, stride: int) -> WindowIndex:
        """The windows of a split, after a proof that no target is in another one, or was trained on elsewhere."""
        index = self.index(name, stride)
        prove(self.layout, index, name, self._record.trained)
        return index

    def readable(self, name: SplitName, stride: int) -> WindowIndex:
        """All windows of a split, whether a target was observed or not, after a proof that a model can read them."""
        index = self.index(name, stride, all_windows=True)
        require_readable(self.layout, index, name)
        return index

    def training_rows(self) -> WindowLoader:
        """Every training target once, in order, as input and target of a window of one row; on every process.

        Raises
        ------
        NoWindowError
            If no training row has an observed target.
        """
        holes = self._target_holes(False) if self.layout.may_miss(self.targets) else None
        return self.loaders.of_rows(training_targets(self.layout, holes))

    def _target_holes(self, whole: bool) -> Holes:
        """Stretches of rows without any observed target or, if `whole`, with a missing one."""
        if whole not in self._holes:
            may_miss = [self.layout.may_miss([name]) for name in self.targets]
            if not (any if whole else all)(may_miss):
                self._holes[whole] = no_holes()
            elif self.placement.place == "stream":
                self._holes[whole] = streamed_holes(self.scales, whole)
            else:
                self._holes[whole] = open_holes(self.layout, self.source, whole)
        return self._holes[whole]
