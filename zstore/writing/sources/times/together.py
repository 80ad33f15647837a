"""Times whose format is spread over several columns: their cells are read together, with a space between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.arrow import as_numpy


def text_together(cells: Sequence[str]) -> str | None:
    """The cells of one time as one text; None if a cell is empty or has a space within, so that parts could shift."""
    stripped = [cell.strip(" \t") for cell in cells]
    if any(not cell or " " in cell for cell in stripped):
        return None
    return " ".join(stripped)


def distinct_together(columns: Sequence[Any]) -> tuple[list[str | None], NDArray[np.intp]]:
    """Each distinct time of a block, and which one every row has.

    Parameters
    ----------
    columns
        Dictionary columns of text, of the same length, without a null.

    Returns
    -------
    (time,) texts as of :func:`text_together`; (row,) positions in these.
    """
    arrays = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in columns]
    codes = [as_numpy(array.indices, "int32").astype(np.int64) for array in arrays]
    first, which = np.unique(codes[0], return_index=True, return_inverse=True)[1:]
    for array, more in zip(arrays[1:], codes[1:], strict=True):
        first, which = np.unique(which * len(array.dictionary) + more, return_index=True, return_inverse=True)[1:]
    words = [array.dictionary.to_pylist() for array in arrays]
    texts = [
        text_together([known[of_row[row]] for known, of_row in zip(words, codes, strict=True)])
        for row in first.tolist()
    ]
    return texts, which
