"""Windows of rows that come one by one, as while a policy acts: the same batches as those of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.batch import Batch
from lightning_app.data.batches.fields import FieldRows
from lightning_app.data.batches.located import Located, StoreRows
from lightning_app.data.batches.padding import Bounds
from lightning_app.data.batches.source import WindowSource
from lightning_app.data.layout import Layout
from lightning_app.data.rows.fields import DecodedField
from lightning_app.data.rows.residency import Rows
from lightning_app.data.scales import Scales
from lightning_app.data.scaling.clip import Clip
from lightning_app.data.scaling.rowscaling import RowScaling
from lightning_app.data.scaling.statics import encode_statics
from zstore import NotFiniteError, UsageError


class LiveWindows:
    """The last rows of several episodes at once, and batches of them: scaled and padded as training windows are.

    Parameters
    ----------
    scales
        The layout, and how its rows are scaled: those of a checkpoint, once a data module has taken it.
    n_episodes
        Episodes that go on beside each other.
    like
        Id of a series of the store, whose static attributes, and scaler if each series has its own, episodes have.
        Default: none is needed.
    device
        That batches are for.

    Raises
    ------
    UsageError
        If a batch has what nobody knows while it happens, or windows cannot begin with the first row.

    Notes
    -----
    Memory: `lookback` rows of each episode. Targets of a batch are not known, and padded.
    """

    def __init__(
        self,
        scales: Scales,
        n_episodes: int,
        like: str | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008  # never changed
    ) -> None:
        layout = scales.layout
        _require_known(scales, like)
        self._shape, lookback = layout.window, layout.window.lookback
        self._seen = layout.seen
        self._columns = {name: number for number, name in enumerate(layout.columns)}
        self._n_seen = np.zeros(n_episodes, np.int64)
        self._rows = np.full((n_episodes, lookback, len(layout.columns)), np.nan, np.float32)
        self._frames = {
            name: np.zeros((n_episodes, lookback, *use.shape), np.dtype(layout.shape.field_dtypes[name]))
            for name, use in layout.fields.items()
        }
        series = 0 if like is None else int(np.flatnonzero(layout.store.ids == like)[0])
        self._series = torch.full((n_episodes,), series)
        self._source = self._made(scales).delivered_to(device)

    def _made(self, scales: Scales) -> WindowSource:
        """A source of the buffers, which share memory with its tensors."""
        layout = scales.layout
        values = torch.from_numpy(self._rows).flatten(0, 1)
        rows = Rows(values, None, RowScaling.of(scales.scaler, fills=True))
        fields = {name: self._field(layout, name) for name in layout.fields}
        return WindowSource(
            rows,
            layout.roles,
            encode_statics(layout.store, layout.static_meanings, layout.rule),
            masked=False,
            fields=fields,
            clip=Clip.of(scales.scaler, layout.roles.inputs),
            clip_vectors={name: Clip.of(scales.scaler, own.columns) for name, own in layout.roles.vectors.items()},
        )

    def _field(self, layout: Layout, name: str) -> FieldRows:
        """Rows of a field, none of which lacks."""
        values = DecodedField(torch.from_numpy(self._frames[name]).flatten(0, 1))
        rows = FieldRows.of(layout.readers[name], layout.fields[name], values, self._shape.lookback)
        observed = None if rows.observed is None else torch.ones(len(values.values), dtype=torch.bool)
        return replace(rows, observed=observed)

    @property
    def needed(self) -> list[str]:
        """Names of the channels and fields that :meth:`add` takes."""
        return [*self._seen, *self._frames]

    def restart(self) -> None:
        """Forget all rows: new episodes begin."""
        self._n_seen[:] = 0
        self._rows[:] = np.nan

    def add(self, episode: int, observation: Mapping[str, Any]) -> None:
        """Add a row to an episode.

        Parameters
        ----------
        episode
            Which one.
        observation
            By name, channels as numbers, vectors as arrays of their channels, and fields as arrays, in source units.

        Raises
        ------
        UsageError
            If one that is needed lacks, or has another shape or type than that of the store.
        NotFiniteError
            If a number is not finite.
        """
        row = self._rows[episode]
        row[:-1] = row[1:].copy()
        for name, value in self._numbers(observation).items():
            row[-1, self._columns[name]] = value
        for name, frames in self._frames.items():
            frame = np.asarray(_of(observation, name))
            own = frames[episode]
            if frame.shape != own.shape[1:] or frame.dtype != own.dtype:
                raise UsageError(
                    f"an observation {name!r} of {frame.dtype} {' x '.join(map(str, frame.shape))}",
                    expected=f"{own.dtype} {' x '.join(map(str, own.shape[1:]))}, as in the store",
                    fix="another environment, or options of it",
                )
            own[:-1] = own[1:].copy()
            own[-1] = frame
        self._n_seen[episode] += 1

    def _numbers(self, observation: Mapping[str, Any]) -> dict[str, float]:
        """By channel that is read, its number."""
        found = {}
        for name in self._seen:
            if name in observation:
                value = float(observation[name])
            else:
                vector, _, number = name.rpartition(".")
                values = np.asarray(_of(observation, vector or name, name)).reshape(-1)
                if not number.isdecimal() or int(number) >= len(values):
                    raise _lacking(name, observation)
                value = float(values[int(number)])
            if not np.isfinite(value):
                raise NotFiniteError(
                    f"an observation {name!r} of {value}", expected="a finite number", fix="correct the environment"
                )
            found[name] = value
        return found

    def batch(self, episodes: Sequence[int]) -> Batch:
        """Windows that end with the last rows of some episodes, each of which has one."""
        lookback = self._shape.lookback
        chosen = torch.tensor(episodes)
        seen = torch.from_numpy(self._n_seen[chosen.numpy()])
        start = chosen * lookback
        stop = torch.full_like(start, lookback)
        bounds = Bounds((lookback - seen).clamp(min=0), stop, stop)  # no target is known
        rows = StoreRows(start, torch.zeros_like(start)) if self._source.fields else None
        where = Located(start, self._series[chosen], torch.zeros_like(start), rows, bounds)
        return self._source.batch(self._shape, where)


def numbered(values: NDArray[Any], name: str) -> dict[str, float]:
    """A vector as its channels."""
    return {f"{name}.{number}": float(value) for number, value in enumerate(values.reshape(-1))}


def _of(observation: Mapping[str, Any], name: str, wanted: str | None = None) -> Any:
    if name not in observation:
        raise _lacking(wanted or name, observation)
    return observation[name]


def _lacking(name: str, observation: Mapping[str, Any]) -> UsageError:
    return UsageError(
        f"observations without {name!r}, which the model reads",
        expected=f"one of {', '.join(observation) or 'nothing'}",
        fix="leave it out of --data.channels or --data.fields and fit again, or take another environment",
    )


def _require_known(scales: Scales, like: str | None) -> None:
    """Raise UsageError unless all that a batch has is known when its last row is."""
    layout = scales.layout
    store, roles = layout.store, layout.roles
    categories = [name for name in layout.inputs if store.channel(name).kind == "category"]
    strange = {
        "a panel": layout.nodes is not None,
        "channels known in advance": bool(layout.future),
        "time features": bool(roles.calendar),
        "inputs that are words": bool(categories),
        "columns for observed inputs": bool(roles.observed),
    }
    found = [what for what, there in strange.items() if there]
    if found:
        raise UsageError(
            f"a policy that reads {', '.join(found)}",
            expected="numbers, fields and static attributes",
            fix="fit it without them",
        )
    if not store.float32_suffices(scales.scaler.channels, scales.scaler.scaling):
        raise UsageError(
            "a policy that reads numbers for which float32 has too few digits",
            expected="smaller ones, or such as vary more",
            where=store.path,
            fix="leave them out of --data.channels, and fit again",
        )
    if layout.window.lookback > 1 and layout.window.pad_before == "none":
        raise UsageError(
            f"a policy of {layout.window.lookback} input rows that was never shown the first rows of an episode",
            expected="windows that begin there",
            fix="fit it with --data.pad_before repeat",
        )
    if like is not None and like not in store.ids:
        raise UsageError(
            f"no series {like!r}", expected=f"one such as {store.ids[0]}", where=store.path, fix="change --acting.like"
        )
    if like is None and (layout.statics or scales.scaler.scaling.per_series):
        raise UsageError(
            "episodes without static attributes, or a scaler of their own",
            expected="the id of a series whose they have",
            where=store.path,
            fix=f"--acting.like {store.ids[0]}",
        )
