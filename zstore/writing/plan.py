"""The first stage: which files are read, how, and what their columns mean."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zstore._version import __version__
from zstore.errors import NoColumnError, SourceError, UsageError
from zstore.format.layout import RowGrid
from zstore.format.trust import grid_fault
from zstore.storage.file import File
from zstore.writing.resume import begin
from zstore.writing.scheduler import Scheduler
from zstore.writing.site import Site
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import FieldSpec
from zstore.writing.sources.protocol import Source, SourceFile
from zstore.writing.sources.table import StaticTable, TableSpec
from zstore.writing.sources.typed.given import GivenTable
from zstore.writing.sources.workspace import Workspace
from zstore.writing.statics import open_statics

MOST_BAD = 0.5  # share of bad rows above which it is not the rows that are wrong, but how they are read


@dataclass(frozen=True)
class Reading:
    """What is to be read, and how.

    Parameters
    ----------
    files
        The sources, in the order that decides between rows at one time.
    source
        Reads them.
    options
        What the user says of their columns.
    encoding
        Of texts.
    dtype
        Float type of channels.
    grid
        How the rows of the store are cut.
    on_bad_row
        ``error`` or ``quarantine``.
    max_bad_rows
        With ``quarantine``, the most of them, see :class:`~zstore.writing.bad_rows.BadRowLimit`.
    blocksize
        Bytes parsed at once; None to derive them from the memory there is.
    statics
        Table of static attributes, if any.
    fields
        Fields whose payloads columns name. Those that a source has of its own are its business.
    """

    files: Sequence[File]
    source: Source
    options: TableOptions
    encoding: str
    dtype: str
    grid: RowGrid
    on_bad_row: str
    max_bad_rows: float | int
    blocksize: int | None = None
    statics: File | GivenTable | None = None
    fields: Sequence[FieldSpec] = ()

    @property
    def keep_bad(self) -> bool:
        """Whether bad rows are set aside."""
        return self.on_bad_row == "quarantine"

    @property
    def sizes(self) -> dict[str, int]:
        """File name to bytes."""
        return {str(file): file.n_bytes for file in self.files}


@dataclass(frozen=True)
class Planned:
    """Files whose columns are known.

    Parameters
    ----------
    reading
        What was asked for.
    files
        The sources, opened.
    spec
        What their columns mean.
    statics
        Static attributes of a table of their own, if any.
    notes
        What a run of the same plan that died has done, from name to note.
    own_statics
        Static attributes that the sources have, if any.
    """

    reading: Reading
    files: Sequence[SourceFile]
    spec: TableSpec
    statics: StaticTable | None
    notes: Mapping[str, bytes]
    own_statics: StaticTable | None = None


def plan(
    reading: Reading,
    text: str,
    site: Site,
    runner: Scheduler,
    known: TableOptions | None = None,
    others: Collection[str] = (),
) -> Planned:
    """Open the sources, and go on from a run of the same plan that died.

    Parameters
    ----------
    reading
        What to read.
    text
        All that spills depend on, from :func:`plan_text`.
    site
        Where spills go.
    runner
        Runs tasks where files have to be prepared.
    known
        What is known of the columns beyond the options; None for the options alone.
    others
        Columns of other tables, which options may name.

    Raises
    ------
    SourceError, UsageError
        If the files cannot be rows of one store, or options do not fit.
    """
    notes, options = begin(site, text), reading.options
    runner.require(site, reading.files)
    prepared = reading.source.prepare(reading.files, reading.encoding, Workspace(site.scratch, notes), runner)
    table = None
    if reading.statics is not None:
        table = open_statics(reading.statics, options, reading.encoding, site.scratch)
    others = {*others, *(table.header if table is not None else ())}
    looks = runner if known is None else None  # a store has the unit of its times already
    as_read = with_references(known or options, reading.fields)
    try:
        opened, spec = reading.source.open(reading.files, prepared, as_read, others, looks)
    except NoColumnError as error:
        raise _of_field(error, reading.fields) from error
    if reading.fields:
        spec = spec.with_fields((*spec.fields, *reading.fields))
        _check_names(spec, reading.fields)
    if not reading.keep_bad:
        reading.source.refuse_damaged(opened)
    if spec.time.kind == "rows" and reading.keep_bad and known is None:
        raise UsageError(
            "quarantine without a time column",
            expected="a time for the rows that stay",
            fix="name the time column with --time, or --on-bad-row error",
        )
    if spec.time.kind == "rows":
        _refuse_shared_ids(opened)
    statics = None if table is None else table.read(options, spec.missing)
    own = reading.source.statics(opened)
    if own is not None and statics is not None:
        _check_apart(own, statics)
    return Planned(reading, opened, spec, statics, notes, own)


def _check_apart(own: StaticTable, statics: StaticTable) -> None:
    """Refuse attributes that sources have, and a table of their own too."""
    names = {each.name for each in own.attributes}
    for each in statics.attributes:
        if each.name in names:
            raise UsageError(
                f"static attribute {each.name!r} in {statics.name} and in the sources",
                expected="every name once",
                fix="rename it in the table of static attributes, or leave it out of the mapping",
            )


def _check_names(spec: TableSpec, fields: Sequence[FieldSpec]) -> None:
    """Refuse a field that is called like a channel, or like a field that the sources have."""
    taken = {channel.name for channel in spec.stored}
    for field in fields:
        if field.name in taken or [each.name for each in spec.fields].count(field.name) > 1:
            raise UsageError(
                f"field {field.name!r}, as a channel or field of the sources is called",
                expected="every name once",
                fix="give it another name, as in --file picture=COL, or --rename the channel",
            )


def _of_field(error: NoColumnError, fields: Sequence[FieldSpec]) -> NoColumnError:
    """The error, with the option that names the column."""
    for flag, columns in (("--file", [f.holder for f in fields]), ("--file-position", [f.position for f in fields])):
        if any(error.what == f"no column {column!r}" for column in columns):
            fix = f"name an existing column with {flag}"
            return NoColumnError(error.what, expected=error.expected, where=error.where, fix=fix)
    return error


def with_references(options: TableOptions, fields: Sequence[FieldSpec]) -> TableOptions:
    """Options by which the columns that say where payloads of fields lie are read, too."""
    names = [name for field in fields for name in (field.holder, field.position) if name is not None]
    channels = options.channels
    if channels is not None:
        channels += tuple(name for name in dict.fromkeys(names) if name not in channels)
    return replace(options.with_categories(field.holder for field in fields), channels=channels)


def described(fields: Sequence[FieldSpec]) -> list[Any]:
    """Fields as plain values: all that their payloads depend on."""
    return [[field.name, field.holder, field.position, field.units, field.reader.to_json()] for field in fields]


def plan_text(states: Sequence[list[Any]], version: int, **reading: Any) -> str:
    """Everything that spills depend on, as text; `states` are those of the sources."""
    return json.dumps([__version__, version, states, reading])


def most_bad(given: float | int | str) -> float | int:
    """The most bad rows: a number of them as an int, or a share of all rows as a float.

    Parameters
    ----------
    given
        Such a number; or a text: ``20`` rows, or a share as ``0.01`` or ``1%``.

    Raises
    ------
    UsageError
        If it is neither.
    """
    try:
        most = _number(given) if isinstance(given, str) else given
        if most >= 0 if isinstance(most, int) else 0 <= most <= 1:
            return most
    except ValueError:  # a text that is no number, which is refused as one that is none of these
        pass
    raise UsageError(
        f"--max-bad-rows {given}",
        expected="a number of rows from 0 on (an int), or a share from 0 to 1 (a float)",
        fix="as in --max-bad-rows 20 or --max-bad-rows 1%",
    )


def _number(text: str) -> float | int:
    written = text.strip()
    if written.isdecimal():
        return int(written)
    return float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)


def check_grid(grid: RowGrid) -> None:
    """Refuse chunks and shards that the store format has not."""
    fault = grid_fault(grid.chunk_rows, grid.shard_rows)
    if fault is not None:
        usual = RowGrid()
        raise UsageError(
            fault[0],
            expected=fault[1],
            fix=f"powers of two, as in --chunk-rows {usual.chunk_rows} --shard-rows {usual.shard_rows}",
        )


def refuse_empty(n_rows: int, n_bad: int, sources: Sequence[SourceFile]) -> None:
    """Refuse to make a store without a row."""
    if n_rows == 0:
        raise SourceError(
            f"no row to store ({n_bad:,} are bad)" if n_bad else "no row to store",
            expected="at least one row below the header",
            where=sources[0].name if len(sources) == 1 else f"{sources[0].name} and {len(sources) - 1:,} more",
            fix="check the files",
        )


def _refuse_shared_ids(opened: Sequence[SourceFile]) -> None:
    """Raise UsageError if two files have one id of their paths, while their rows are counted.

    Nothing says which file comes first, nor how long it is from one to the other: windows would reach over the seam.
    """
    first: dict[str, str] = {}
    for file in opened:
        if file.id is not None and first.setdefault(file.id, file.name) != file.name:
            raise UsageError(
                f"the id {file.id!r} of two files, whose rows have no times",
                expected="an id of its own for each file",
                where=f"{first[file.id]}, {file.name}",
                fix="match more of the path in --id-from-path, or name the time column with --time",
            )
