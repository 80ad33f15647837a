"""What a checkpoint says of the data that its model was trained with, and what of that this run is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_app.data.columns.meaning import refuse_unknown
from lightning_app.data.layout import Layout
from lightning_app.data.old_checkpoints import require_plain, require_same_store
from lightning_app.data.scaling.scaler import Scaler, channel_kinds
from lightning_app.data.windows.leaks import check_trained
from lightning_app.data.windows.plan import OrderPlan
from zstore import UsageError


@dataclass(frozen=True)
class Record:
    """What was recorded in a checkpoint; nothing without one.

    Parameters
    ----------
    scaler
        With the series and codes of the store that it was fitted on.
    trained
        When each series was a training target, see :func:`lightning_app.data.windows.leaks.trained_on`.
    order
        Which windows its epochs mix.
    """

    scaler: Scaler | None = None
    trained: dict[str, Any] | None = None
    order: OrderPlan | None = None

    @classmethod
    def of(cls, state: Mapping[str, Any], layout: Layout) -> Record:
        """Read the state of a data module for a layout that obeys its meaning, if it has one.

        Raises
        ------
        UsageError
            If the checkpoint contradicts itself, or needs more to be understood than it says.
        """
        scaler = Scaler.from_json(state["scaler"])
        if state.get("meaning") is None:
            _require_plain(layout, scaler)
        if list(scaler.channels) != layout.columns:
            raise UsageError(
                f"checkpoint trained on channels {', '.join(scaler.channels)}",
                expected=f"those of this configuration: {', '.join(layout.columns)}",
                fix="the --data.channels, --data.targets and --data.future it was trained with, or another --ckpt_path",
            )
        if scaler.fitted_on != state["fitted_on"]:
            raise UsageError(
                "checkpoint with a scaler that was fitted on other rows than the model",
                expected="the one that it was trained with",
                fix="fit again",
            )
        if state.get("meaning") is None:
            kinds = channel_kinds(layout.columns, layout.options.scaler, layout.store.vectors)
            require_same_store(layout.store, state["split"], kinds, scaler.fitted_on, layout.view.members)
        check_trained(state["trained_on"])
        order = state.get("order")
        return cls(scaler, state["trained_on"], None if order is None else OrderPlan.from_json(order))


def refuse_other_nodes(layout: Layout) -> None:
    """Raise UsageError where a panel is not the one of the checkpoint: for models with weights for each series."""
    recorded = None if layout.recorded is None else layout.recorded.nodes
    if recorded is None:
        return
    store = layout.store
    nodes = [] if layout.nodes is None else store.ids[layout.nodes].tolist()
    known, present = set(recorded), set(nodes)
    unseen = [id_ for id_ in nodes if id_ not in known]
    refuse_unknown(store, "series of the panel", unseen, "refuse")
    if nodes != list(recorded):
        absent = [id_ for id_ in recorded if id_ not in present]
        raise UsageError(
            f"panel without {len(absent):,} series that the model has weights for ({', '.join(absent[:3])})",
            expected=f"all {len(recorded):,} of its panel",
            where=store.path,
            fix="--data.panel.ids of the panel it was trained with",
        )


def _require_plain(layout: Layout, scaler: Scaler) -> None:
    """Raise unless a checkpoint that does not say what its columns mean can be understood without that."""
    roles = layout.roles
    told = {
        "static attributes": layout.statics,
        "observed inputs": layout.options.observed_inputs,
        "channels known in advance": layout.future,
        "time features": roles.calendar and roles.encoding == "cyclic",  # all of two channels each
    }
    require_plain(layout.store, layout.columns, [name for name, used in told.items() if used], scaler)
