"""The arrays of a store of predictions: their names, dimensions, types and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_app.data.columns.classes import names_of
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.scaling.scaler import Scaler
from zstore import Store

_CHUNK_WINDOWS = 1 << 14
_RESERVED = ("id", "time", "window", "step", "series")
_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")


def target_variables(store: Store, targets: Sequence[str]) -> list[str]:
    """Names of the arrays that predictions of some channels lie in, in the same order.

    A channel's own name where that is safe (letters, digits, ``_ . -`` after a first letter), no dimension or
    coordinate of the predictions, and unique when case is ignored; else that of its variable in the store with
    ``_predicted`` behind it, as often as it takes. ``long_name`` has the true name.
    """
    taken, names = set(_RESERVED), []
    for target in sorted(targets, key=lambda name: _SAFE.fullmatch(name) is None):  # own names first
        name = target if _SAFE.fullmatch(target) else store.channel(target).variable
        while name.lower() in taken:
            name = f"{name}_predicted"
        taken.add(name.lower())
        names.append((target, name))
    chosen = dict(names)
    return [chosen[target] for target in targets]


def observed_variables(variables: Sequence[str]) -> list[str]:
    """Names of the arrays of observed values: those of :func:`target_variables`, with ``_observed`` behind them."""
    return _behind(variables, {*_RESERVED, *(name.lower() for name in variables)}, ("_observed",))


def class_variables(variables: Sequence[str]) -> list[str]:
    """Names of the dimensions of classes: those of :func:`target_variables`, with ``_class`` behind them.

    Probabilities have ``_probability`` in the place of ``_class``.
    """
    taken = {*_RESERVED, *(name.lower() for name in (*variables, *observed_variables(variables)))}
    return _behind(variables, taken, ("_class", "_probability"))


def quantile_variables(variables: Sequence[str]) -> list[str]:
    """Names of the arrays of quantiles: those of :func:`target_variables`, with ``_quantile`` behind them.

    The ends of intervals have ``_lower`` and ``_upper`` in its place.
    """
    taken = {*_RESERVED, *(name.lower() for name in (*variables, *observed_variables(variables)))}
    return _behind(variables, taken, ("_quantile", "_lower", "_upper"))


def _behind(variables: Sequence[str], taken: set[str], endings: tuple[str, ...]) -> list[str]:
    """Names with the first of some endings behind them, longer where any of these would be a name that is taken."""
    names = []
    for name in variables:
        stem = name
        while any(f"{stem}{ending}".lower() in taken for ending in endings):
            stem = f"{stem}{endings[0]}"
        taken.update(f"{stem}{ending}".lower() for ending in endings)
        names.append(f"{stem}{endings[0]}")
    return names


@dataclass(frozen=True)
class Arrays:
    """Arrays of a store of predictions: of all windows, and one for each target, or for each that is a class.

    Those behind forecasts and observations are in the order of what is predicted beside numbers: `probabilities`, then
    `quantiles`, then lower and upper `ends` of intervals.
    """

    ids: Any
    times: Any
    forecasts: list[Any]
    observations: list[Any]
    probabilities: list[Any]
    quantiles: list[Any]
    ends: list[Any]


def create_arrays(
    path: Path,
    data: WindowDataModule,
    n_windows: int,
    classes: list[list[Any]],
    levels: Sequence[float] = (),
    intervals: Sequence[float] = (),
) -> Arrays:
    """Empty arrays; of probabilities for targets with classes, of quantiles and intervals where there are levels."""
    import zarr  # an eighth of a second, and only for predictions

    store: Store = data.store
    horizon, n_nodes = data.window.horizon, data.view.n_nodes
    attributes = {
        "Conventions": "CF-1.11",
        "source_uuid": store.schema.uuid,
        "source_version": store.version,
        "source_split": data.split.digest(),
        "lookback": data.window.lookback,
        "horizon": horizon,
        "delay": data.window.delay,
        **({"target_stride": data.window.target_stride} if data.window.target_stride > 1 else {}),
    }
    group = zarr.create_group(str(path), attributes=attributes)
    sizes = {"window": n_windows, "step": horizon, "series": n_nodes}
    names = target_variables(store, data.targets)
    axes = dict(zip(names, class_variables(names), strict=True))
    behind = quantile_variables(names)
    named = {axes[name]: names_of(own) for name, own in zip(names, classes, strict=False) if own}
    sizes |= {axis: len(own) for axis, own in named.items()}
    quantile_axis, interval_axis = (
        _unlike_any(name, f"{name}_of_{what}", names) for name, what in (("level", "quantile"), ("interval", "targets"))
    )
    sizes |= {quantile_axis: len(levels), interval_axis: len(intervals)}
    of_chunk = {**sizes, "window": max(min(windows_of_chunk(data), n_windows), 1)}
    of_target = ["window", "step", *(["series"] if n_nodes else [])]

    def create(name: str, dtype: Any, dimensions: list[str], about: dict[str, Any]) -> Any:
        shape, chunks = (tuple(each[dimension] for dimension in dimensions) for each in (sizes, of_chunk))
        return group.create_array(
            name, shape=shape, dtype=dtype, chunks=chunks, dimension_names=dimensions, attributes=about
        )

    about_ids = {"long_name": store.schema.id_name or "id", "missing_value": _unlike(store.ids.tolist())}
    ids = create("id", str, ["series" if n_nodes else "window"], about_ids)
    times = create("time", "int64", ["window", "step"], store.schema.time.attributes())
    steps = create("step", "int64", ["step"], {"long_name": "number of the target row, from 1"})
    steps[:] = np.arange(1, horizon + 1)
    for axis, own in named.items():
        create(axis, str, [axis], {"missing_value": _unlike(own)})[:] = np.array(own, dtype=object)
    if levels:
        create(quantile_axis, "float64", [quantile_axis], {"long_name": "level of a quantile"})[:] = np.array(levels)
    if intervals:
        about_interval = {"long_name": "share of targets that an interval is to hold"}
        create(interval_axis, "float64", [interval_axis], about_interval)[:] = np.array(intervals)
    scaler = data.scaler.of(data.targets)
    forecasts: list[Any] = []
    observations: list[Any] = []
    probabilities: list[Any] = []
    quantiles: list[Any] = []
    ends: list[list[Any]] = [[], []]
    for position, (target, name) in enumerate(zip(data.targets, names, strict=True)):
        channel, beside = store.channel(target), {"coordinates": "id time"}
        about = {"long_name": target, **({"units": channel.units} if channel.units else {}), **beside}
        dtype = np.result_type(np.float32, channel.dtype)
        scaling = {} if scaler.scaling.per_series else _linear(scaler, position)
        if axes[name] in named:
            about |= _flags(classes[position])
            scaling = {}
        forecasts.append(create(name, dtype, of_target, {**about, **scaling}))
        observed = {**about, "long_name": f"{target}, observed"}
        observations.append(create(observed_variables(names)[position], dtype, of_target, observed))
        if axes[name] in named:
            about_it = {"long_name": f"{target}, probability of each class", **beside}
            probable = f"{axes[name].removesuffix('_class')}_probability"
            probabilities.append(create(probable, "float32", [*of_target, axes[name]], about_it))
        if levels:
            about_them = {**about, "long_name": f"{target}, quantiles"}
            quantiles.append(create(behind[position], dtype, [*of_target, quantile_axis], about_them))
        for end, arrays in zip(("lower", "upper") if intervals else (), ends, strict=False):
            about_it = {**about, "long_name": f"{target}, {end} ends of intervals"}
            stem = behind[position].removesuffix("quantile")
            arrays.append(create(f"{stem}{end}", dtype, [*of_target, interval_axis], about_it))
    return Arrays(ids, times, forecasts, observations, probabilities, quantiles, ends[0] + ends[1])


def _unlike_any(name: str, longer: str, names: Sequence[str]) -> str:
    """A name of a dimension that no target has, whatever its case."""
    return longer if name in {each.lower() for each in names} else name


def _flags(classes: Sequence[Any]) -> dict[str, Any]:
    """What the values of a target with classes mean, as the CF conventions say it: names without blanks."""
    values = [float(number if isinstance(each, str) else each) for number, each in enumerate(classes)]
    return {"flag_values": values, "flag_meanings": " ".join("_".join(name.split()) for name in names_of(classes))}


def _unlike(texts: Iterable[str]) -> str:
    """A text that is none of these."""
    text, taken = "none", set(texts)
    while text in taken:
        text = f"({text})"
    return text


def windows_of_chunk(data: WindowDataModule) -> int:
    """How many windows a chunk has."""
    return max(1, _CHUNK_WINDOWS // max(data.view.n_nodes, 1))


def _linear(scaler: Scaler, position: int) -> dict[str, Any]:
    numbers = {"scaler_scale": float(scaler.scale[position]), "scaler_offset": float(scaler.offset[position])}
    return {**numbers, "scaler_log1p": 1} if scaler.log[position] else numbers
