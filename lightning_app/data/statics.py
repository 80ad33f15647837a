"""Static attributes as inputs: numbers standardised over the training series, categories one column each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.splits import Split, assign_series, target_rows
from zstore import NotFiniteError, Store


def n_columns(store: Store, names: Sequence[str]) -> int:
    """Columns that some attributes become."""
    found = [store.static(name).categories for name in names]
    return sum(1 if categories is None else len(categories) for categories in found)


def static_matrix(store: Store, split: Split, names: Sequence[str], members: NDArray[np.bool_] | None = None) -> Tensor:
    """(series, column) float32. What is missing is 0: the training mean, or none of the categories."""
    train = _training_series(store, split, members)
    columns = []
    for static in map(store.static, names):
        if static.categories is not None:
            columns += [static.values == code for code in range(len(static.categories))]
            continue
        _refuse_infinite(store, static.name, static.values)
        mean, std = mean_and_std(static.values[train])
        columns.append(np.nan_to_num((static.values - mean) / std, nan=0.0))
    stacked = np.stack(columns, axis=1) if columns else np.zeros((store.n_series, 0))
    return torch.from_numpy(stacked.astype(np.float32))


def mean_and_std(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and population standard deviation of what is not NaN; the deviation is 1 where it does not vary.

    Without any value 0 and 1. Values may be as large as float64 has them: squares are of numbers near 1.
    """
    seen = values[~np.isnan(values)].astype(np.float64)
    if not len(seen) or seen.min() == seen.max():
        return (float(seen[0]) if len(seen) else 0.0), 1.0
    unit = float(np.ldexp(1.0, np.frexp(np.abs(seen).max())[1] - 1))
    mean = float((seen / unit).mean())
    return mean * unit, float((seen / unit).std()) * unit


def _refuse_infinite(store: Store, name: str, values: NDArray[np.float64]) -> None:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise NotFiniteError(
            f"{len(infinite):,} infinite values of static attribute {name!r}, such as "
            f"{values[infinite[0]]:g} of {store.ids[infinite[0]]}",
            expected="finite numbers",
            where=store.path,
            fix="correct the table of attributes, or leave it out with --data.statics",
        )


def _training_series(store: Store, split: Split, members: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """(series,) whether a series has training targets."""
    if split.by == "series":
        return np.equal(assign_series(store, split), 0)
    starts, stops = target_rows(store, split, "train", members)
    train = np.zeros(store.n_series, np.bool_)
    train[store.index.runs.series[stops > starts]] = True
    return train
