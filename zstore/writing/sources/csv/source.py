"""CSV as a source: inflated, cut where records end, its bad rows numbered by line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from zstore.format.schema import Schema
from zstore.storage.file import File
from zstore.writing.room import check_room
from zstore.writing.sources.base import FileSource
from zstore.writing.sources.columns import has_no_series
from zstore.writing.sources.csv import lookup
from zstore.writing.sources.csv.blocks import below, read_block
from zstore.writing.sources.csv.borders import align, check_borders, count_quotes, nominal_ranges
from zstore.writing.sources.csv.exact_borders import exact_blocks
from zstore.writing.sources.csv.header import check_framing, open_source
from zstore.writing.sources.csv.record_limit import lines_before
from zstore.writing.sources.csv.records import may_have_stray_quote
from zstore.writing.sources.csv.sample import first_records
from zstore.writing.sources.csv.sniff import sniff
from zstore.writing.sources.csv.table import CsvBlock, CsvFile, CsvSpec, Line
from zstore.writing.sources.inflate import COMPRESSED, is_plain, is_plain_text, plain_utf8
from zstore.writing.sources.options import CENSORED, TableOptions, refuse_mapping
from zstore.writing.sources.protocol import RecutError, SourceSample
from zstore.writing.sources.table import BadRow, ChannelSpec, Columns
from zstore.writing.sources.workspace import Runner, Workspace, digest_of


class CsvSource(FileSource):
    """Text files of records, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "csv"
    endings = tuple(f"{text}{ending}" for text in (".csv", ".tsv", ".txt") for ending in ("", *COMPRESSED))
    typed = False
    place = Line

    def check(self, options: TableOptions, encoding: str) -> None:
        """Refuse options that contradict each other; there are none that CSV files do not have."""
        refuse_mapping(options, "CSV files")
        check_framing(options)

    def prepare(self, files: Sequence[File], encoding: str, space: Workspace, runner: Runner | None) -> list[File]:
        """The plain UTF-8 bytes of each file; those that notes tell of are there already."""
        plain = list(files)
        tasks = [(n, file) for n, file in enumerate(files) if not is_plain(file, encoding)]
        sizes = [file.n_bytes for _, file in tasks]
        if is_plain_text(encoding):
            check_room(space.scratch, sum(sizes))  # text that is inflated takes more than that
        inflate = partial(_plain, space=space, encoding=encoding)
        made = list(map(inflate, tasks)) if runner is None else runner.map("inflate", inflate, tasks, sizes, "bytes")
        for (number, _), file in zip(tasks, made, strict=True):
            plain[number] = file
        return plain

    def open(
        self,
        files: Sequence[File],
        prepared: Sequence[File],
        options: TableOptions,
        others: Collection[str] = (),
        runner: Runner | None = None,
    ) -> tuple[list[CsvFile], CsvSpec]:
        """Headers of all files, and what the columns mean; the first file has the delimiter of all."""
        first, delimiter = open_source(files[0], prepared[0], options)
        pairs = zip(files[1:], prepared[1:], strict=True)
        opened = [first, *(open_source(named, plain, options, delimiter)[0] for named, plain in pairs)]
        return opened, sniff(opened, delimiter, options, others)

    def open_known(
        self, file: File, prepared: File, options: TableOptions, others: Collection[str], schema: Schema
    ) -> tuple[CsvFile, CsvSpec] | None:
        """One file whose rows a store has; it may have another delimiter than the first."""
        opened, delimiter = open_source(file, prepared, options)
        if has_no_series(opened, options):
            return None
        columns = {new: column for column, new in options.rename.items()}
        kinds = [_known_channel(c.name, c.kind == "category", columns, options.censored) for c in schema.channels]
        known = options.of_header(opened.header).with_categories(kind.column for kind in kinds)
        spec = sniff([opened], delimiter, known, others, schema.time)
        if not spec.series:
            spec = replace(spec, channels=tuple(kinds))
        return opened, spec

    def n_bytes(self, files: Sequence[CsvFile], spec: CsvSpec) -> int:
        """Bytes of all files as plain text."""
        return sum(file.file.n_bytes for file in files)

    def cut(
        self, files: Sequence[CsvFile], spec: CsvSpec, block_bytes: int, runner: Runner | None = None
    ) -> list[CsvBlock]:
        """Cut files into blocks where records end.

        Notes
        -----
        Where a record ends depends on the quotes before it. Few files have any, so blocks are cut as if there were
        none. If one turns up, :meth:`recut` counts them.
        """
        if runner is None:
            return [block for file in files for block in exact_blocks(file, block_bytes, spec.delimiter)]
        if any(file.quoted for file in files):
            return self._counted(files, block_bytes, runner, spec.delimiter)
        ranges = [nominal_ranges(file, block_bytes) for file in files]
        pairs = zip(files, ranges, strict=True)
        try:
            return [block for file, some in pairs for block in align(file, some, [0] * len(some), "plain")]
        except RecutError:
            return self._exact(files, block_bytes, runner, spec.delimiter)

    def recut(
        self,
        files: Sequence[CsvFile],
        spec: CsvSpec,
        block_bytes: int,
        runner: Runner,
        before: Sequence[CsvBlock],
        wrong: Exception | Sequence[BadRow],
    ) -> list[CsvBlock] | None:
        """Count quotes where they were not counted. Where they were, a bad row may have a stray one: read them all."""
        borders = before[0].borders if before else "exact"
        if borders == "plain":
            return self._counted(files, block_bytes, runner, spec.delimiter) if isinstance(wrong, RecutError) else None
        stray = isinstance(wrong, Exception) or any(may_have_stray_quote(row, spec.delimiter) for row in wrong)
        if borders == "exact" or not stray:
            return None
        exact = self._exact(files, block_bytes, runner, spec.delimiter)
        return None if exact == list(before) else exact

    def _counted(self, files: Sequence[CsvFile], block_bytes: int, runner: Runner, delimiter: str) -> list[CsvBlock]:
        if any(file.framing.comment is not None for file in files):  # in which quotes mean nothing
            return self._exact(files, block_bytes, runner, delimiter)
        ranges = [nominal_ranges(file, block_bytes) for file in files]
        tasks = [(file.file, *ab) for file, pairs in zip(files, ranges, strict=True) for ab in pairs]
        sizes = [stop - start for _, start, stop in tasks]
        counts = iter(runner.map("scan", _count_quotes, tasks, sizes, "bytes"))
        blocks: list[CsvBlock] = []
        try:
            for file, pairs in zip(files, ranges, strict=True):
                blocks += align(file, pairs, [next(counts) for _ in pairs])
        except RecutError:
            return self._exact(files, block_bytes, runner, delimiter)
        return blocks

    def _exact(self, files: Sequence[CsvFile], block_bytes: int, runner: Runner, delimiter: str) -> list[CsvBlock]:
        scan = partial(exact_blocks, blocksize=block_bytes, delimiter=delimiter)
        return list(chain.from_iterable(runner.map("scan", scan, files)))

    def read(self, block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> Iterator[Columns]:
        """The rows of a block, as one part."""
        yield read_block(block, spec, keep_bad)

    def doubt(self, blocks: Sequence[CsvBlock]) -> None:
        """Raise where quotes that were not counted stand before a block."""
        check_borders(blocks)

    def placed(
        self,
        groups: Sequence[Sequence[CsvBlock]],
        bad: Sequence[Sequence[BadRow]],
        tallies: Sequence[Sequence[int]],
    ) -> list[BadRow]:
        """The bad rows of all blocks, with their lines in the files.

        Notes
        -----
        A task knows lines of its block only. What it reports of the blocks before tells the rest, so no byte is read
        but those of the headers.
        """
        rows: list[BadRow] = []
        n_before: dict[str, int] = {}
        for group, some, counts in zip(groups, bad, tallies, strict=True):
            for block, n_lines, those in zip(group, counts, _by_block(group, some), strict=True):
                if block.name not in n_before:
                    n_before[block.name] = lines_before(block.source, block.start)
                rows += [below(row, n_before[block.name]) for row in those]
                n_before[block.name] += n_lines
        return rows

    def placed_alone(self, row: BadRow, group: Sequence[CsvBlock]) -> BadRow:
        """A bad row with its line in the file. Reads all before its block."""
        (block,) = (b for b in group if b.name == row.source and b.start <= row.place.byte < b.stop)
        return below(row, lines_before(block.source, block.start))

    def most_rows(self, blocks: Sequence[CsvBlock], spec: CsvSpec) -> int:
        """Good records that fit into the bytes of some blocks.

        Notes
        -----
        Of a good row: a digit or letter in id and time, and what stands between columns and behind the last one.
        """
        if not blocks:
            return 0
        n_columns = min(len(block.source.header) for block in blocks)
        n_files = len({block.name for block in blocks})  # whose last rows may end without a line break
        row_bytes = n_columns + len(spec.time.columns) + len(spec.id_names)
        return (sum(block.n_bytes for block in blocks) + n_files) // row_bytes

    def explain(self, blocks: Sequence[CsvBlock], spec: CsvSpec, id_: str, time: int, limit: int) -> list[str]:
        """Lines of the rows of one id at one time."""
        return lookup.find_rows(blocks, spec, id_, time, limit)

    def rows_at(self, blocks: Sequence[CsvBlock], spec: CsvSpec, numbers: Sequence[int]) -> list[BadRow]:
        """Some rows, by their numbers among the good ones. Reads their blocks, and counts the lines before."""
        return lookup.rows_at(blocks, spec, numbers)

    def find_word(self, blocks: Sequence[CsvBlock], spec: CsvSpec, column: str, word: str) -> str:
        """The line where a word first stands in a column."""
        return lookup.find_word(blocks, spec, column, word)

    def notes(self, n_blank: int, bad: Sequence[BadRow]) -> Iterator[str]:
        """Blank lines, and quotes that may lack their closing ones."""
        if n_blank:
            yield f"{n_blank:,} blank lines were skipped"
        long = [row for row in bad if row.n_lost > 1]
        if long:
            n_lines = sum(row.n_lost for row in long)
            yield (
                f"{n_lines:,} lines were set aside as {len(long):,} bad rows, the first from {long[0].source} "
                f"{long[0].place} on: a quote there may lack its closing one"
            )

    def sample(self, file: File, options: TableOptions, encoding: str, folder: Path, n_bytes: int) -> SourceSample:
        """The first records of a file as plain UTF-8."""
        path = folder / file.key.lstrip("/")  # so that ids are found in the path
        path = path.with_suffix("") if path.suffix in COMPRESSED else path
        path.parent.mkdir(parents=True)
        text, growth = first_records(file, encoding, n_bytes, options)
        path.write_bytes(text)
        return SourceSample(path, len(text), growth, "utf-8", growth > 1)


def _plain(task: tuple[int, File], space: Workspace, encoding: str) -> File:
    number, file = task
    name = f"plain-{number}"
    known = _noted_plain(space, name)
    if known is not None:
        return known
    made = plain_utf8(file, space.scratch, f"{number}-{uuid.uuid4().hex}.csv", encoding)
    digest = digest_of(space.scratch, made.key, made.n_bytes)
    space.note(name, json.dumps({"key": made.key, "n_bytes": made.n_bytes, "digest": digest}).encode())
    return made


def _noted_plain(space: Workspace, name: str) -> File | None:
    """An inflated file from the note of it; None if note or file are not whole."""
    try:
        known = json.loads(space.notes[name])
    except (KeyError, ValueError):  # not done, or cut short when its writer was killed
        return None
    whole = space.is_whole(known["key"], known["n_bytes"], known["digest"])
    return File(space.scratch, known["key"], known["n_bytes"]) if whole else None


def _count_quotes(task: tuple[File, int, int]) -> int:
    return count_quotes(*task)


def _by_block(group: Sequence[CsvBlock], rows: Sequence[BadRow]) -> Iterator[Sequence[BadRow]]:
    """The bad rows of each block; they are in the order of the blocks."""
    first = 0
    for block in group:
        last = first
        while last < len(rows) and rows[last].source == block.name and rows[last].place.byte < block.stop:
            last += 1
        yield rows[first:last]
        first = last


def _known_channel(name: str, text: bool, columns: Mapping[str, str], censored: Collection[str]) -> ChannelSpec:
    """A channel of a store, and the column that it was read from; `columns` are those of renamed channels."""
    number = name.removesuffix(CENSORED)
    if number != name and columns.get(number, number) in censored:
        return ChannelSpec(columns.get(number, number), name, sides=True)
    return ChannelSpec(columns.get(name, name), name, text)
