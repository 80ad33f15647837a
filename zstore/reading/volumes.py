"""From what was predicted for a volume back to the voxels of the scan that it was made of."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.errors import NotFoundError, StoreError, UsageError
from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.grid import SourceGrid, grid_name
from zstore.reading.version import StoredVersion

_MOST_BYTES = 1 << 31


class SourceVolume(NamedTuple):
    """Values where the voxels of a scan are.

    Parameters
    ----------
    values
        (x, y, z) of the scan's shape.
    affine
        (4, 4) float64: from voxels to millimetres to the right, to the front and to the top, as NIfTI has it.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]


def original_grid(store: StoredVersion, field: str, row: int, values: NDArray[Any], fill: float = 0) -> SourceVolume:
    """Put values of a volume's voxels, such as a predicted label map, back on the voxels of its scan.

    Parameters
    ----------
    store
        The store that has the volume.
    field
        Its field, which was made by a chain.
    row
        Its row.
    values
        (x, y, z) of the shape that the field has; any dtype.
    fill
        What voxels of the scan get that the chain has cropped away.

    Returns
    -------
    The values, in their own dtype: for each voxel of the scan the nearest one.

    Raises
    ------
    NotFoundError
        If the field has no chain, or the row no volume.
    UsageError
        If the values are of another shape.
    StoreError
        If what the store says of the chain or of the scan cannot be.
    """
    documents = store.objects.document["table"].get("file_chain", {})
    if field not in documents or grid_name(field) not in store.fields:
        raise NotFoundError(
            f"no chain of field {field!r}", expected=f"one of {', '.join(documents) or 'none'}", where=store.path
        )
    if not 0 <= row < store.n_rows or not store.payload_digests(field, row, row + 1).any():
        raise NotFoundError(f"no volume of field {field!r} in row {row:,}", expected="a row with one", where=store.path)
    try:
        chain = VolumeChain.from_json(documents[field])
        source = SourceGrid.from_array(store.read_field(grid_name(field), row, row + 1)[0])
        n_bytes = math.prod(source.shape) * values.dtype.itemsize
        if n_bytes > _MOST_BYTES:
            raise PayloadError(f"a scan of {source.shape}", f"at most {_MOST_BYTES:,} bytes")
        made = chain.grid(source).shape
    except (UsageError, PayloadError, AttributeError) as error:
        what = error.reason if isinstance(error, PayloadError) else str(error)
        raise StoreError(f"{what}, of field {field!r}", expected="a chain and a scan", where=store.path) from error
    if values.shape != made:
        raise UsageError(f"values of shape {values.shape}", expected=f"{made}, which row {row:,} of {field!r} has")
    return SourceVolume(chain.original_grid(values, source, fill), source.affine)
