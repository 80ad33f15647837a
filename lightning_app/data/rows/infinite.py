"""Infinite values among the inputs of windows: some models forecast a finite number from them, which means nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_app.data.infinite import infinite_values
from lightning_app.data.rows.views import View
from lightning_app.data.windows.splits import SplitName
from zstore import NotFiniteError, WindowIndex


def refuse_infinite_inputs(
    view: View, index: WindowIndex, inputs: Sequence[str], future: Sequence[str], name: SplitName
) -> None:
    """Refuse windows that read an infinite value.

    Parameters
    ----------
    view, index
        Where rows come from, and the windows.
    inputs, future
        Channels of the input rows, and channels known in advance, of the target rows.
    name
        The split of the windows.

    Raises
    ------
    NotFiniteError
        If one does; it names the channel, the series and the times.

    Notes
    -----
    Cost: nothing, where the statistics of the store know of no infinite value; else rows of the series that have some.
    """
    store = view.store
    for channels, ranges in ((inputs, index.input_ranges), (future, index.target_ranges)):
        for channel in channels:
            suspects = store.infinite_series(channel)
            if not len(suspects):
                continue
            n_infinite, named = infinite_values(store, channel, view.rows_of(suspects, *ranges()))
            if n_infinite:
                raise NotFiniteError(
                    f"{n_infinite:,} infinite values in channel {channel!r} that {name} windows read ({named})",
                    expected="finite inputs",
                    where=store.path,
                    fix="correct the source, or ingest it with those values as missing; or leave the channel out with "
                    "--data.channels, or their times with --data.split.dates",
                )
