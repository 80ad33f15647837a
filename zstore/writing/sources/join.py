"""The columns of several blocks as those of one, so that many small files cost no more than a few large ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zstore.writing.sources.channels import recoded
from zstore.writing.sources.table import Columns

MOST_TOGETHER = 256
"""Blocks, or files, that one task takes. A small block costs some 0.5 ms, so a task outlasts its own start."""


def grouped(sizes: Sequence[int], n_bytes: int, n_groups: int = 1) -> list[tuple[int, int]]:
    """Ranges of neighbours that one task takes together: as many as have `n_bytes` in all.

    Parameters
    ----------
    sizes
        Bytes of each.
    n_bytes
        Most bytes of a group; one that has more is a group by itself.
    n_groups
        Groups there should be at least, for as many threads, where there are enough to share out.

    Returns
    -------
    Ranges ``[first, last)`` of `sizes`, none of them empty.
    """
    most = min(MOST_TOGETHER, -(-len(sizes) // n_groups))
    ranges: list[tuple[int, int]] = []
    first = together = 0
    for position, size in enumerate(sizes):
        if position > first and (together + size > n_bytes or position - first >= most):
            ranges.append((first, position))
            first, together = position, 0
        together += size
    return [*ranges, (first, len(sizes))] if sizes else []


def join(parts: Sequence[Columns]) -> Columns:
    """Columns of the rows of all parts, in their order.

    Parameters
    ----------
    parts
        At least one, of blocks that were read by the same specification.
    """
    if len(parts) == 1:
        return parts[0]
    codes, ids = recoded([part.ids for part in parts], [part.codes for part in parts])
    return replace(
        parts[0],
        ids=ids,
        codes=codes,
        times=np.concatenate([part.times for part in parts]),
        channels=[first.followed_by(rest) for first, *rest in zip(*(part.channels for part in parts), strict=True)],
        bad=tuple(row for part in parts for row in part.bad),
        n_records=sum(part.n_records for part in parts),
        n_blank=sum(part.n_blank for part in parts),
        n_lost=tuple(map(sum, zip(*(part.n_lost for part in parts), strict=True))),
        seen=frozenset[str]().union(*(part.seen for part in parts)),
        tallies=tuple(n for part in parts for n in part.tallies),
        pieces=tuple(piece for part in parts for piece in part.pieces),
    )
