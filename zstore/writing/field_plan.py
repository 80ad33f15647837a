"""How a field is to lie in its array, from its first payloads in final order: encoding, codec, grid, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import SourceError
from zstore.format.codecs import ARRAY_CANDIDATES, smallest
from zstore.format.encodings.arrays import ARRAY_DTYPES, Arrays, observe_array
from zstore.format.layout import RESERVED, array_grid, safe_names
from zstore.format.rowarrays import DIGEST_BYTES, byte_names, origin_name
from zstore.format.schema import Field
from zstore.format.trust import MOST_AXES, MOST_ROW_BYTES
from zstore.writing.field_shards import FieldShard
from zstore.writing.referred import Payloads
from zstore.writing.shards import RowsSpec
from zstore.writing.sources.payloads import BadPayload, FieldSpec, Outcome, Payload, PayloadError

_SAMPLE_BYTES = 1 << 21
_PASSED_BYTES = 1 << 26  # of a sample that is handed on to the tasks that write it; a larger one is read again
_AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x"), 4: ("z", "y", "x", "colour")}
_MOST_COLOURS = 4


@dataclass(frozen=True)
class FieldSample:
    """The first payloads of a field in final order: of shape and dtype of the first one, 2 MiB of them, or one.

    Parameters
    ----------
    outcomes
        What came of the payloads of the first rows, up to the last one that is in the sample.
    values
        The payloads; none where no row has one that can be stored.
    bad
        Those between them that cannot be stored, where such are kept.
    """

    outcomes: Sequence[Outcome]
    values: Sequence[Payload]
    bad: Sequence[BadPayload] = ()

    @property
    def passed(self) -> Sequence[Outcome]:
        """What tasks need not read again."""
        n_bytes = sum(payload.value.nbytes for payload in self.values)
        return self.outcomes if n_bytes <= _PASSED_BYTES else ()


def read_sample(spec: FieldSpec, payloads: Payloads, shards: Sequence[FieldShard]) -> FieldSample:
    """Read the first payloads of a field.

    Parameters
    ----------
    spec
        What it is.
    payloads, shards
        Its payloads; shards as of channels, in order.

    Raises
    ------
    PayloadFaultError
        If one cannot be read, or the first cannot be of a field, unless those are kept.
    SourceError
        If no row has any.
    """
    outcomes: list[Outcome] = []
    values: list[Payload] = []
    bad: list[BadPayload] = []
    for shard in shards:
        for row, outcome in enumerate(shard.outcomes(payloads), shard.start):
            if isinstance(outcome, Payload) and not values:
                outcome = _first(outcome)
            outcomes.append(outcome)
            if isinstance(outcome, PayloadError):
                bad.append(payloads.bad(shard.references, row, outcome))
            elif outcome is not None:
                values.append(outcome)
                if len(values) * values[0].value.nbytes >= _SAMPLE_BYTES:
                    return FieldSample(outcomes, values, bad)
    if not values and not bad:
        raise no_payload(spec)
    return FieldSample(outcomes, values, bad)


def no_payload(spec: FieldSpec) -> SourceError:
    """The error of a field that no row has a value of."""
    return SourceError(
        f"no row has a payload of field {spec.name!r}",
        expected=f"a name in column {spec.holder!r} of some row",
        fix="leave the field out",
    )


def plan_field(
    spec: FieldSpec, sample: FieldSample, rows: RowsSpec, others: Sequence[Field]
) -> tuple[Field, dict[str, int]]:
    """How a field is to lie in its array.

    Parameters
    ----------
    spec
        What it is.
    sample
        Its first payloads, one at least.
    rows
        How channels lie.
    others
        Fields that the store has beside it.

    Returns
    -------
    The field, and the bytes of a sample with each codec tried.
    """
    first = sample.values[0].value
    found = [payload.value for payload in sample.values]
    found = [value for value in found if value.shape == first.shape and value.dtype == first.dtype]
    encoding = Arrays().choose([observe_array(each) for each in found], str(first.dtype))
    tried = np.stack([each.astype(encoding.dtype) for each in found])
    grid = array_grid(tried[0].nbytes, rows.shard_rows)
    codec, trial = smallest(tried, grid.chunk_rows, ARRAY_CANDIDATES)
    variable = new_variable(spec.name, taken_by(rows, others))
    shape = tuple(map(int, first.shape))
    placed = sample.values[0].grid is not None
    dimensions = _own_dimensions(spec.dimensions or _dimensions(shape, placed), shape, variable, others)
    about = (spec.name, variable, encoding, str(first.dtype), spec.units, codec)
    return Field(*about, shape, dimensions, grid, origins=spec.named), trial


def _first(payload: Payload) -> Outcome:
    """The first payload, or why no field can be made of it."""
    value: NDArray[Any] = payload.value
    if str(value.dtype) not in ARRAY_DTYPES:
        return PayloadError(f"values of dtype {value.dtype}", f"one of {', '.join(ARRAY_DTYPES)}")
    if not 0 < value.ndim <= MOST_AXES or not value.size:
        return PayloadError(f"a value of shape {value.shape}", f"one to {MOST_AXES} axes, none of them empty")
    if value.nbytes > MOST_ROW_BYTES:
        return PayloadError(f"a value of {value.nbytes:,} bytes", f"at most {MOST_ROW_BYTES:,}")
    return payload


def _dimensions(shape: tuple[int, ...], placed: bool) -> tuple[str, ...]:
    """Usual names of the axes of a value; of a volume that is placed in millimetres, those of its affine."""
    n_axes = len(shape)
    if n_axes == 3 and placed:
        return ("x", "y", "z")
    if n_axes == 3 and shape[-1] <= _MOST_COLOURS:
        return ("y", "x", "colour")
    return _AXES.get(n_axes, tuple(f"axis_{n}" for n in range(n_axes)))


def _own_dimensions(
    names: Sequence[str], shape: tuple[int, ...], variable: str, others: Sequence[Field]
) -> tuple[str, ...]:
    """Names of the dimensions of a field: one name has one length in a store, so that xarray can open all of it."""
    known = {"row": 0, "series": 0, "channel": 0, "digest_byte": DIGEST_BYTES}
    for field in others:
        known |= dict(zip(field.dimensions, field.shape, strict=True))
    pairs = zip(names, shape, strict=True)
    return tuple(name if known.get(name, length) == length else f"{variable}_{name}" for name, length in pairs)


def _all_names(variable: str) -> tuple[str, ...]:
    """Arrays that a field may have."""
    return *byte_names(variable), origin_name(variable)


def taken_by(rows: RowsSpec, fields: Sequence[Field]) -> list[str]:
    """Variables of channels, and of some fields."""
    arrays = (name for field in fields for name in _all_names(field.variable))
    return [*(channel.variable for channel in rows.channels), *arrays]


def new_variable(name: str, taken: Sequence[str]) -> str:
    """A variable for a field, whose arrays are called like nothing else."""
    used = {each.lower() for each in (*RESERVED, *taken)}
    (variable,) = safe_names([name], used)
    while used.intersection(each.lower() for each in _all_names(variable)):
        used.add(variable.lower())
        (variable,) = safe_names([name], used)
    return variable
