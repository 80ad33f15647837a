"""Ids of several columns: joined exactly, and taken apart again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import as_numpy, text_array
from zstore.format.index import StaticAttribute

SINGLE_ID = "0"
"""Id of the one series of a table without a column of ids."""

_JOINT = "/"
_PART = re.compile(r"(?:[^\\/]|\\.)*", re.DOTALL)


def join_id(parts: Sequence[str]) -> str:
    r"""One id of several texts: ``/`` between them, and ``\\`` before each ``/`` and ``\\`` within."""
    return _JOINT.join(part.replace("\\", "\\\\").replace(_JOINT, "\\" + _JOINT) for part in parts)


def split_id(text: str) -> tuple[str, ...]:
    """The texts that :func:`join_id` has made an id of."""
    parts, position = [], 0
    while position <= len(text):
        match = _PART.match(text, position)
        stop = position if match is None else match.end()
        parts.append(re.sub(r"\\(.)", r"\1", text[position:stop], flags=re.DOTALL))
        position = stop + 1
    return tuple(parts)


def joined_ids(columns: Sequence[tuple[NDArray[np.int32], Any]]) -> tuple[NDArray[np.int32], Any]:
    """Ids of a block from the columns of their parts.

    Parameters
    ----------
    columns
        Each as (row,) codes and the distinct texts that they stand for.

    Returns
    -------
    (row,) codes and the distinct ids, sorted by their UTF-8 bytes.
    """
    n_rows, combined = len(columns[0][0]), np.zeros(len(columns[0][0]), np.int64)
    for codes, words in columns:  # after each column at most one number per row
        distinct, combined = np.unique(combined * max(len(words), 1) + codes, return_inverse=True)
    first = np.zeros(len(distinct) if n_rows else 0, np.int64)
    first[combined[::-1]] = np.arange(n_rows)[::-1]
    texts = [words.take(pa.array(codes[first])).to_pylist() for codes, words in columns]
    ids = text_array([join_id(parts) for parts in zip(*texts, strict=True)])
    order = pc.sort_indices(ids)
    rank = np.empty(len(order), np.int32)
    rank[as_numpy(order, "uint64")] = np.arange(len(order), dtype=np.int32)
    return rank[combined] if n_rows else np.zeros(0, np.int32), ids.take(order)


def parts_of(ids: Iterable[Any], columns: Sequence[str]) -> tuple[StaticAttribute, ...]:
    """The parts of ids of several columns as static attributes, words all of them; none of ids of one column."""
    if len(columns) < 2:
        return ()
    parts = [split_id(str(id_)) for id_ in ids]
    attributes = []
    for position, name in enumerate(columns):
        words = sorted({part[position] for part in parts}, key=str.encode)
        code = {word: number for number, word in enumerate(words)}
        values = np.array([code[part[position]] for part in parts], np.int32)
        attributes.append(StaticAttribute(name, values, tuple(words)))
    return tuple(attributes)
