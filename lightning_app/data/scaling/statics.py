"""Static attributes as inputs: numbers standardised over the training series, categories one column each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.columns.meaning import StaticMeaning, Unknown, codes_of
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.splits import Split
from zstore import NotFiniteError, Store

_LARGEST = float(np.finfo(np.float32).max)


def static_matrix(store: Store, split: Split, names: Sequence[str], members: NDArray[np.bool_] | None = None) -> Tensor:
    """(series, column) float32. What is missing is 0: the training mean, or none of the categories."""
    return encode_statics(store, fit_statics(store, split, names, members), "refuse")


def fit_statics(
    store: Store, split: Split, names: Sequence[str], members: NDArray[np.bool_] | None = None
) -> tuple[StaticMeaning, ...]:
    """What the columns of some attributes mean: words, or the mean and deviation of the training series."""
    meanings, train = [], _training_series(store, split, members) if names else None
    for static in map(store.static, names):
        if static.categories is not None:
            meanings.append(StaticMeaning(static.name, tuple(static.categories)))
            continue
        refuse_infinite(store, static.name)
        meanings.append(StaticMeaning(static.name, None, *mean_and_std(static.values[train])))
    return tuple(meanings)


def encode_statics(store: Store, meanings: Sequence[StaticMeaning], unknown: Unknown) -> Tensor:
    """(series, column) float32 columns of attributes as a model knows them.

    Numbers are standardised; what is missing is 0. Categories have a column for each word, and, with `own_column`, one
    more for words that are none of these.

    Raises
    ------
    NotFiniteError
        If a number is infinite, or beyond float32 once standardised.
    """
    columns = []
    for meaning in meanings:
        static = store.static(meaning.name)
        if meaning.words is None or static.categories is None:
            refuse_infinite(store, static.name)
            columns.append(_standardised(store, static.name, meaning))
            continue
        codes = np.append(codes_of(static.categories, meaning.words), -1)[static.values]  # -1 is missing
        columns += [codes == code for code in range(meaning.n_columns(unknown))]
    stacked = np.stack(columns, axis=1) if columns else np.zeros((store.n_series, 0))
    return torch.from_numpy(stacked.astype(np.float32))


def _standardised(store: Store, name: str, meaning: StaticMeaning) -> NDArray[np.float64]:
    """(series,) numbers of an attribute, less the mean, over the deviation; 0 where missing."""
    values = store.static(name).values
    missing = np.isnan(values)
    with np.errstate(all="ignore"):  # what leaves float64 is refused below
        scaled = (values - meaning.mean) / meaning.std
    beyond = np.flatnonzero(~missing & ~(np.abs(scaled) <= _LARGEST))
    if len(beyond):
        raise NotFiniteError(
            f"{values[beyond[0]]:g} in static attribute {name!r} of series {store.ids[beyond[0]]}, which is beyond "
            f"float32 once standardised by mean {meaning.mean:g} and deviation {meaning.std:g}",
            expected=f"at most {_LARGEST:.2g} deviations from the mean of the training series",
            where=store.path,
            fix="correct the table of attributes, or leave it out with --data.statics",
        )
    return np.where(missing, 0.0, scaled)


def unknown_words(store: Store, meaning: StaticMeaning, series: NDArray[np.int64]) -> list[str]:
    """Words of an attribute that some series have and a model does not know."""
    static = store.static(meaning.name)
    if meaning.words is None or static.categories is None:
        return []
    used, known = np.unique(static.values[series]), set(meaning.words)
    return [word for code in used[used >= 0].tolist() if (word := static.categories[code]) not in known]


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


def refuse_infinite(store: Store, name: str) -> None:
    """Raise NotFiniteError if a static attribute has infinite values."""
    values = store.static(name).values
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
        return np.equal(assign_series(store, split, members), 0)
    starts, stops = target_rows(store, split, "train", members)
    train = np.zeros(store.n_series, np.bool_)
    train[store.index.runs.series[stops > starts]] = True
    return train
