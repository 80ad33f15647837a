"""What looks wrong in the fields of a store: rows without a value, with one that repeats, is black, or of another kind.

Whether a row has a value, and whether it is that of the row before, is told by the digests of payloads; the rest by the
values, each of which is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.format.payloads.grid import spacing_of
from zstore.format.rowarrays import DIGEST_BYTES
from zstore.format.schema import Field
from zstore.reading.store import Store
from zstore.text import counted
from zstore.upkeep.checks import whole_series
from zstore.upkeep.field_checks import GLANCE, far_sizes, glances, repeats, saturated
from zstore.upkeep.field_rows import FieldRows, by_series
from zstore.upkeep.findings import Finding, of_series
from zstore.upkeep.odd_images import look_at_images, odd_images
from zstore.writing.scheduler import Scheduler

_READ_BYTES = 1 << 24  # decoded by a task
_STILL_ROWS = 3  # of a series that has one value throughout


def odd_fields(store: Store, values: bool, runner: Scheduler, told: Callable[[int], None]) -> Iterator[Finding]:
    """Findings about the fields of a store.

    Parameters
    ----------
    store
        The store.
    values
        Whether values are looked at, and not only the digests of their payloads.
    runner
        Runs what decodes them.
    told
        Called with rows of a field that are done.

    Notes
    -----
    Cost: 16 bytes a row for the digests; with `values` each chunk of each field is decoded once, and of encoded images
    each header is read, and those with the fewest bytes are decoded. Memory: some 30 bytes a row, and of a task 16 MB
    of values, or one value where that is larger.
    """
    for field in store.schema.fields:
        rows = _told_by_digests(store, field)
        if field.name in store.volume_grids:
            yield from _odd_grids(rows, store.volume_grids[field.name])
            if values:
                told(store.n_rows)
            continue
        images = None
        if values and field.n_bytes is not None:
            images = look_at_images(rows, runner, told)
            rows = replace(rows, glance=images.glance)
        elif values:
            rows = replace(rows, glance=_glances(store, field, runner, told))
        yield from _of_presence(rows)
        yield from _of_copies(rows)
        yield from _of_stillness(rows)
        yield from _of_glances(rows)
        if images is not None:
            yield from odd_images(rows, images)


def _told_by_digests(store: Store, field: Field) -> FieldRows:
    present, repeated = np.zeros(store.n_rows, np.bool_), np.zeros(store.n_rows, np.bool_)
    row_start, series_digests = store.index.row_start, np.zeros((store.n_series, DIGEST_BYTES), np.uint8)
    for low, high in whole_series(row_start):
        start, stop = int(row_start[low]), int(row_start[high])
        digests = store.payload_digests(field.name, start, stop)
        present[start:stop], repeated[start:stop] = repeats(digests)
        for position in range(low, high):
            own = digests[row_start[position] - start : row_start[position + 1] - start]
            if own.any():
                series_digests[position] = np.frombuffer(xxhash.xxh3_128_digest(own.tobytes()), np.uint8)
    repeated[row_start[:-1][row_start[:-1] < store.n_rows]] = False  # the row before is of another series
    _, first, inverse = np.unique(series_digests, axis=0, return_index=True, return_inverse=True)
    other = first[inverse.ravel()]
    copied = np.flatnonzero((other != np.arange(store.n_series)) & np.any(series_digests, axis=1))
    copies = dict(zip(copied.tolist(), other[copied].tolist(), strict=True))
    return FieldRows(store, field, present, repeated, copies)


def _glances(store: Store, field: Field, runner: Scheduler, told: Callable[[int], None]) -> NDArray[Any]:
    """(row,) of :data:`GLANCE`: each chunk is decoded once."""
    found, chunk_rows = np.zeros(store.n_rows, GLANCE), 1 if field.grid is None else field.grid.chunk_rows
    step = max(_READ_BYTES // field.row_bytes // chunk_rows, 1) * chunk_rows
    blocks = [(start, min(start + step, store.n_rows)) for start in range(0, store.n_rows, step)]

    def seen(number: int, glanced: NDArray[Any]) -> None:
        start, stop = blocks[number]
        found[start:stop] = glanced
        told(stop - start)

    runner.map("look", partial(_glance, store=store, name=field.name), blocks, seen=seen)
    return found


def _glance(block: tuple[int, int], store: Store, name: str) -> NDArray[Any]:
    return glances(store.read_field(name, *block))


def same_payloads(store: Store, position: int, other: int) -> bool:
    """Whether two series have the same payloads in each field, row by row; where there is no field they have."""
    bounds = [store.index.row_start[each : each + 2].tolist() for each in (position, other)]
    digests = ([store.payload_digests(field, start, stop) for start, stop in bounds] for field in store.fields)
    return all(np.array_equal(of_one, of_other) for of_one, of_other in digests)


def _of_presence(rows: FieldRows) -> Iterator[Finding]:
    """Rows without a value, where most rows have one."""
    if 2 * int(rows.present.sum()) < len(rows.present):
        return
    store = rows.store
    lacking = np.repeat(rows.counts(rows.present) == 0, store.index.row_size)
    yield from by_series(rows, "empty", lacking, lambda of: f"no value in {counted(len(of), 'row')}", whole=True)
    yield from by_series(
        rows, "absent", ~rows.present & ~lacking, lambda of: f"{counted(len(of), 'row')} without a value"
    )


def _of_copies(rows: FieldRows) -> Iterator[Finding]:
    """Series that have the values of another one, such as a scan under two ids, unless most series have."""
    store, size = rows.store, rows.store.index.row_size
    if 2 * len(rows.copies) < np.count_nonzero(rows.counts(rows.present)):
        for position, other in rows.copies.items():
            detail = f"the values of {store.ids[other]} in {counted(int(size[position]), 'row')}"
            yield of_series(store, "copy", position, rows.field.name, detail)


def _of_stillness(rows: FieldRows) -> Iterator[Finding]:
    """Series whose rows all have one value, and rows that have that of the row before."""
    size = rows.store.index.row_size
    is_still = (size >= _STILL_ROWS) & (rows.counts(rows.repeated) == size - 1)
    still = np.repeat(is_still & (rows.counts(rows.is_uniform) < size), size)
    yield from by_series(
        rows, "constant", still, lambda of: f"one value in all of {counted(len(of), 'row')}", whole=True
    )
    moving = rows.repeated & ~still & ~rows.is_uniform
    yield from by_series(
        rows, "repeated", moving, lambda of: f"{counted(len(of), 'row')} with the value of the row before"
    )


def _of_glances(rows: FieldRows) -> Iterator[Finding]:
    """Rows whose values are one number, infinite, or at the ends of their dtype."""
    if rows.glance is None:
        return
    glance, dtype = rows.glance, rows.field.encoding.dtype
    yield from by_series(rows, "black", rows.is_black, lambda of: f"{counted(len(of), 'row')} with 0 throughout")
    plain = rows.is_uniform & ~rows.is_black
    yield from by_series(
        rows,
        "uniform",
        plain,
        lambda of: f"{counted(len(of), 'row')} with one number throughout, such as {glance['value'][of[0]]:g}",
    )
    yield from by_series(
        rows,
        "infinite",
        rows.present & glance["infinite"],
        lambda of: f"{counted(len(of), 'row')} with infinite values",
    )
    for name, word in (("at_low", "lowest"), ("at_high", "highest")):
        marked = np.zeros_like(rows.present)
        judged = np.flatnonzero(rows.present & ~rows.is_uniform)
        marked[judged] = saturated(glance[name][judged])
        if marked.any():
            say = partial(_saturation, share=glance[name], end=f"the {word} of {dtype}")
            yield from by_series(rows, "saturated", marked, say)


def _saturation(of: NDArray[np.int64], share: NDArray[np.float32], end: str) -> str:
    most = float(share[of].max())
    return f"{counted(len(of), 'row')} with {'up to ' if len(of) > 1 else ''}{most:.0%} of the values at {end}"


def _odd_grids(rows: FieldRows, name: str) -> Iterator[Finding]:
    """Volumes whose scans had voxels of another size, or another number of them, than most."""
    store, at = rows.store, np.flatnonzero(rows.present)
    grids = store.read_field(rows.field.name, 0, store.n_rows)[at].astype(np.float64)
    rows = replace(rows, field=store.field(name))
    spacings = np.array([spacing_of(grid[:4]) for grid in grids]).reshape(-1, 3)
    yield from _odd_sizes(rows, at, spacings, "mm a voxel")
    yield from _odd_sizes(rows, at, grids[:, 4, :3], "voxels")


def _odd_sizes(rows: FieldRows, at: NDArray[np.int64], sizes: NDArray[np.float64], unit: str) -> Iterator[Finding]:
    marked, kept = np.zeros_like(rows.present), np.zeros((len(rows.present), 3))
    marked[at], kept[at] = far_sizes(sizes), sizes
    if marked.any():
        usual = _product(np.median(sizes, axis=0))

        def say(of: NDArray[np.int64]) -> str:
            scans = (
                f"{counted(len(of), 'scan')}{' such as one' if len(of) > 1 else ''} of {_product(kept[of[0]])} {unit}"
            )
            return f"{scans}, where {usual} is usual"

        yield from by_series(rows, "odd_file", marked, say)


def _product(sizes: Any) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
