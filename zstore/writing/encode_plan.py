"""How rows are to lie in the arrays, from what was observed of their blocks: variables, encodings, codecs, times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zstore.errors import UsageError
from zstore.format.codecs import AUTO, default_codec, smallest
from zstore.format.encodings import FAMILIES, Form
from zstore.format.layout import RowGrid, safe_names
from zstore.format.schema import Field, TimeAxis
from zstore.format.timesteps import TimeStepRule
from zstore.writing.blocks import BlockReport
from zstore.writing.shards import Gathered, RowsSpec
from zstore.writing.site import Site
from zstore.writing.sort import Border, ShardPlan, SortedBlock, find_border
from zstore.writing.sources.table import TableSpec

_SAMPLE_CHUNKS = 2
RULES = "a step such as 1D, 1h, 15min or 30s, a rule such as MS, QE, YE-JUN, W-WED or B, or rows"


def rows_spec(
    site: Site, spec: TableSpec, reports: Sequence[BlockReport], dtype: str, grid: RowGrid, freq: str | None = None
) -> RowsSpec:
    """How rows are to lie in the arrays: every channel's variable, type and packing, and the `grid` of all."""
    some = [report.forms for report in reports if report.spill.n_rows]
    variables = safe_names([channel.name for channel in spec.stored])
    channels: list[Field] = []
    for n, (channel, variable) in enumerate(zip(spec.stored, variables, strict=True)):
        encoding = FAMILIES[channel.kind].choose([forms[n] for forms in some], dtype)
        channels.append(Field(channel.name, variable, encoding, dtype, channel.units))
    axis = TimeAxis(spec.time.unit, zone="UTC" if spec.time.in_utc else None)
    axis = replace(axis, rule=asked_rule(freq, axis) or axis.rule)
    rows = RowsSpec(site.root, (), (), axis, grid.chunk_rows, grid.shard_rows, site.first_shard)
    rows = replace(rows, references=references_of(some, len(channels), len(spec.fields)))
    return rows.of(channels, [report.forms for report in reports])


def references_of(forms: Sequence[Sequence[Form]], n_channels: int, n_fields: int) -> tuple[Field, ...]:
    """How references of fields lie on scratch space: of each, the holder, and the position in there.

    Parameters
    ----------
    forms
        (block, column) how blocks are spilled: channels first.
    n_channels, n_fields
        How many there are of each.
    """
    references = []
    for n in range(n_channels, n_channels + 2 * n_fields, 2):
        holders = FAMILIES["category"].choose([block[n] for block in forms], "float64")
        positions = FAMILIES["number"].choose([block[n + 1] for block in forms], "float64")
        references += [Field("holder", "", holders, "float64"), Field("position", "", positions, "float64")]
    return tuple(references)


def choose_codecs(
    rows: RowsSpec, row_start: Any, blocks: Sequence[SortedBlock], codec: str | None
) -> tuple[RowsSpec, dict[str, dict[str, int]]]:
    """The channels with their codecs, and, for ``auto``, the bytes of a sample of each with every candidate."""
    trials: dict[str, dict[str, int]] = {}
    chosen = [codec or default_codec(channel.encoding.dtype) for channel in rows.channels]
    n_rows = int(row_start[-1])
    if codec == AUTO and n_rows:
        stop = min(_SAMPLE_CHUNKS * rows.chunk_rows, n_rows)
        end = Border(len(row_start) - 1, None) if stop == n_rows else find_border(stop, row_start, blocks, unique=False)
        sample = Gathered(ShardPlan(0, 0, stop, Border(0, None), end), blocks, rows)
        for position, values in enumerate(sample.columns(range(len(rows.channels)))):
            chosen[position], trials[rows.channels[position].name] = smallest(values, rows.chunk_rows)
    elif codec == AUTO:
        chosen = [default_codec(channel.encoding.dtype) for channel in rows.channels]
    channels = tuple(replace(channel, codec=name) for channel, name in zip(rows.channels, chosen, strict=True))
    return replace(rows, channels=channels), trials


def asked_rule(freq: str | None, axis: TimeAxis) -> TimeStepRule | None:
    """The rule that the user named."""
    if freq is None:
        return None
    try:
        return axis.parse_freq(freq)
    except ValueError:
        wanted = "a whole number of steps, or rows" if axis.unit is None else RULES
        raise UsageError(f"frequency {freq!r}", expected=wanted, fix="choose one for --freq") from None
