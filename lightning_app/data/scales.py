"""What is fitted on the training rows of a layout: scaler, deviations, seasonal errors; and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.columns.calendar import calendar_step
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.layout import Layout
from lightning_app.data.scaling.entries import by_channel
from lightning_app.data.scaling.fit import fit_scaler
from lightning_app.data.scaling.last_inputs import LastInputs
from lightning_app.data.scaling.rowscaling import applied
from lightning_app.data.scaling.scaler import ScaledBy, Scaler, channel_kinds
from lightning_app.data.scaling.seasonal_error import seasonal_errors
from lightning_app.data.scaling.training import scaled_std, source_std
from lightning_app.data.scaling.unscaler import Unscaler
from zstore import UsageError

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Scales:
    """The scaler of a layout and what follows from it; each fitted when it is first asked for.

    Parameters
    ----------
    layout
        Which columns there are, on which store.
    recorded
        The scaler of a checkpoint, with the series and codes of its own store; None to fit one.
    """

    layout: Layout
    recorded: Scaler | None = None
    _seasonal: dict[int, tuple[Float64, Float64]] = field(default_factory=dict, repr=False, compare=False)
    _last: dict[tuple[str | None, ...], LastInputs] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        _ = self.floors  # refused here and now, not behind a fit

    @cached_property
    def scaler(self) -> Scaler:
        """Of all columns, for the codes and series of this store.

        Raises
        ------
        UsageError
            If the checkpoint has a scaler by series, and not their ids.
        """
        return self._fitted(self.layout.options.scale_by) if self.recorded is None else self._matched(self.recorded)

    def _fitted(self, by: ScaledBy) -> Scaler:
        layout, options = self.layout, self.layout.options
        members = layout.view.members
        kinds = channel_kinds(layout.columns, options.scaler, layout.store.vectors)
        asked = options.scaler if not isinstance(options.scaler, str) else {}
        words = ("whose words become columns of 0 and 1", ", or --data.category_encoding code")
        without = dict.fromkeys(layout.one_hot, words) | dict.fromkeys(options.classes, ("which is a class", ""))
        for name, (why, instead) in without.items():  # neither a column for each word nor a class has a scale
            if asked.get(name, "none") != "none":
                raise UsageError(
                    f"a {asked[name]} scaler of {name!r}, {why}",
                    expected="none",
                    fix=f"drop {name} from --data.scaler{instead}",
                )
            kinds[name] = "none"
        floor = options.scale_floor
        return fit_scaler(layout.store, options.split, layout.columns, kinds, options.cache, by, members, floor)

    def _matched(self, scaler: Scaler) -> Scaler:
        """The scaler of a checkpoint for the codes and series of this store."""
        layout, recorded = self.layout, self.layout.recorded
        if layout.recoded:
            scaler = replace(scaler, codes=tuple(layout.recoded.get(name) for name in scaler.channels))
        if not scaler.scaling.per_series or recorded is None:
            return scaler
        n_channels = len(scaler.channels)
        if recorded.series is None or scaler.offset.shape != (len(recorded.series), n_channels):
            raise UsageError("checkpoint with a scaler by series, without their ids", fix="fit again")
        others = (np.zeros(n_channels), np.ones(n_channels))  # never used: such series are refused
        if recorded.other_series is not None:
            others = (np.array(recorded.other_series[0]), np.array(recorded.other_series[1]))
        return scaler.by_id(recorded.series, layout.store.ids.tolist(), others)

    @property
    def _with_scaler(self) -> NDArray[np.intp]:
        """Positions of the series that have a scaler of their own, where each has one: of those that were asked for."""
        members = None if self.layout.options.series is None else self.layout.view.members
        return np.flatnonzero(np.ones(self.layout.store.n_series, np.bool_) if members is None else members)

    @property
    def to_record(self) -> Scaler:
        """The scaler for a checkpoint: of the series that :attr:`meaning` names, where each has its own."""
        scaler = self.scaler
        if not scaler.scaling.per_series:
            return scaler
        own = self._with_scaler
        return replace(scaler, offset=scaler.offset[own], scale=scaler.scale[own])

    @property
    def targets(self) -> Scaler:
        """Of the targets."""
        return self.scaler.of(self.layout.targets)

    @cached_property
    def unscaler(self) -> Unscaler:
        """From scaled targets back to source units."""
        return Unscaler(self._of_rows.of(self.layout.targets), self.floors)

    @cached_property
    def floors(self) -> Float64 | None:
        """(target,) least values of forecasts in source units, -inf for none; None without any.

        Raises
        ------
        UsageError
            If one is no number, or of a target whose values are words or classes.
        """
        layout, asked = self.layout, self.layout.options.target_floor
        if asked is None:
            return None
        store, classes = layout.store, layout.options.classes
        numbers = [name for name in layout.targets if store.channel(name).kind == "number" and name not in classes]
        if isinstance(asked, Mapping):
            floors = by_channel(asked, numbers, store.vectors, "target_floor")
        else:
            floors = dict.fromkeys(numbers, asked)
        for value in floors.values():
            if not np.isfinite(value):
                raise UsageError(
                    f"target_floor {value}", expected="a number such as 0", fix="change --data.target_floor"
                )
        return np.array([floors.get(name, -np.inf) for name in layout.targets], np.float64)

    @property
    def _of_rows(self) -> Scaler:
        """What rows are scaled with, to the last digit."""
        scaler = self.scaler
        later = self.layout.store.float32_suffices(scaler.channels, scaler.scaling)
        return applied(scaler) if later else scaler

    def last_inputs(self, names: tuple[str | None, ...]) -> LastInputs:
        """Inputs that targets count from; see :class:`LastInputs`."""
        if names not in self._last:
            self._last[names] = LastInputs(self.layout, self._of_rows, names)
        return self._last[names]

    @cached_property
    def target_std(self) -> NDArray[np.float32]:
        """(series, target) standard deviation of the scaled training targets."""
        return scaled_std(self.layout.training, self.targets).astype(np.float32)

    @cached_property
    def target_spread(self) -> Float64:
        """As :attr:`target_std`, in float64, but NaN where a series has no training target, or only one value."""
        spread = scaled_std(self.layout.training, self.targets, filled=False)
        return np.where(spread > 0, spread, np.nan)

    @cached_property
    def source_std(self) -> Float64:
        """(series, target) standard deviation of each series' training targets in source units."""
        return source_std(self.layout.training, self.layout.targets)

    def seasonal_errors(self, season: int) -> tuple[Float64, Float64]:
        """(series, target) mean absolute and mean squared difference of training targets `season` rows apart."""
        if season not in self._seasonal:
            layout = self.layout
            errors = seasonal_errors(layout.store, layout.options.split, self.targets, season, layout.view.members)
            self._seasonal[season] = errors
        return self._seasonal[season]

    @cached_property
    def meaning(self) -> Meaning:
        """What the columns of batches mean: as a checkpoint has it, or as this store and split do."""
        layout, options = self.layout, self.layout.options
        if layout.recorded is not None:
            return layout.recorded
        store, axis, others = layout.store, layout.store.schema.time, None
        per_series = self.scaler.scaling.per_series
        if per_series and options.unknown == "own_column":
            whole = self._fitted("channel")
            others = (tuple(whole.offset.tolist()), tuple(whole.scale.tolist()))
        roles, nodes = layout.roles, layout.nodes
        channels = [store.channel(name) for name in layout.columns]
        return Meaning(
            inputs=tuple(layout.inputs),
            targets=tuple(layout.targets),
            future=tuple(layout.future),
            observed=tuple(layout.inputs[column] for column in roles.observed),  # inputs are the first columns
            observed_inputs=options.observed_inputs,
            words={channel.name: channel.categories for channel in channels if channel.kind == "category"},
            statics=layout.static_meanings,
            time_unit=axis.unit or "",
            time_step=axis.freq or 0,
            time_rule=calendar_step(axis.rule),
            time_zone=axis.zone or "",
            calendar=tuple(roles.calendar),
            encoding=roles.encoding,
            unknown=options.unknown,
            series=tuple(store.ids[self._with_scaler].tolist()) if per_series else None,
            other_series=others,
            nodes=None if nodes is None else tuple(store.ids[nodes].tolist()),
            category_encoding=options.category_encoding,
            fields={name: use.to_json() for name, use in layout.fields.items()},
            crops={name: list(use.steps.crop) for name, use in layout.fields.items() if use.steps.crop},
            vectors={name: use.to_json() for name, use in layout.vectors.items()},
            target_stride=layout.window.target_stride,
            pad_before=layout.window.pad_before,
            pad_after=layout.window.pad_after,
            classes=layout.classes,
        )
