"""Records that are series: their values, side by side, as rows below each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.writing.sources.channels import NumberValues
from zstore.writing.sources.numbers import NumberColumn
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.table import Columns, TableSpec


def unrolled(
    codes: NDArray[np.int32], ids: Any, columns: Sequence[NumberColumn], spec: TableSpec, seen: frozenset[str]
) -> Columns:
    """The rows of a block whose records are series.

    Parameters
    ----------
    codes, ids
        (record,) codes of ids, and the distinct ids.
    columns
        The values, from the first time on; a series ends with its last value that is not missing.
    spec
        First time and rule.
    seen
        Texts of --missing that occurred.

    Raises
    ------
    RefusedError
        If a record has no value.
    """
    n_records, n_columns = len(codes), len(columns)
    values = np.array([column.values for column in columns]).reshape(n_columns, n_records).T
    known = ~np.isnan(values)
    if n_records and not known.any(axis=1).all():
        raise RefusedError("a series has no value")
    lengths = n_columns - np.argmax(known[:, ::-1], axis=1) if n_records else np.zeros(0, np.int64)
    stays = np.arange(n_columns) < lengths[:, None]
    times = spec.time.rule.times(np.arange(n_columns), spec.time.start)
    n_lost = sum(column.n_lost for column in columns)
    return Columns(
        ids,
        np.repeat(codes, lengths),
        np.broadcast_to(times, stays.shape)[stays],
        [NumberValues(values[stays])],
        (),
        n_records,
        n_lost=(n_lost,),
        seen=seen,
    )
