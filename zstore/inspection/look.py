"""A look at a file before it is ingested: what it is, the command that would ingest it, and what a person must say."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from zstore.errors import SourceError, ZstoreError
from zstore.inspection.column import ColumnLook, look_at
from zstore.inspection.command import command_of, frame_flags
from zstore.inspection.frame import Frame, find_frame
from zstore.inspection.guess import Guess, see_cells, see_roles
from zstore.inspection.inspected import Inspection
from zstore.inspection.lerobot import look_at_folder
from zstore.inspection.query import QueryInspection, inspect_query
from zstore.inspection.roles import layout_of
from zstore.reading.store import open_store
from zstore.writing.ingest import ingest
from zstore.writing.sources.files import find
from zstore.writing.sources.inflate import head
from zstore.writing.sources.kinds import source_of
from zstore.writing.sources.lerobot.meta import is_lerobot
from zstore.writing.sources.sql.query import Query

_BYTES = 1 << 20
_LINES = 20_000
_WINDOWS = re.compile(rb"[\x80-\x9f]")


@overload
def inspect(path: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Inspection: ...


@overload
def inspect(path: Query, *, storage_options: Mapping[str, str] | None = None) -> QueryInspection: ...


def inspect(
    path: str | Path | Query, *, storage_options: Mapping[str, str] | None = None
) -> Inspection | QueryInspection:
    """Look at the first rows of a CSV file, a query or a LeRobot folder: what they are, and how they could be ingested.

    Parameters
    ----------
    path
        CSV or the like (also ``.gz``, ``.zst``), or ``s3://…``; a query; or a folder with a ``meta/info.json``. Of HDF5
        the command shows :func:`inspect_hdf5`.
    storage_options
        For object storage, see :func:`zstore.ingest`.

    Raises
    ------
    SourceError
        If there is no such file, or it holds no table of text.

    Notes
    -----
    Reads 1 MiB and ingests it, as the command says, into a temporary folder. Nothing is guessed silently: what reads in
    two ways is among the questions.
    """
    if isinstance(path, Query):
        return inspect_query(path)
    if is_lerobot(path):
        return look_at_folder(path)
    file = find(path, "SRC", storage_options)
    if source_of([file]).typed:
        fix = "ingest it: its types say what its columns are, and errors name them"
        raise SourceError(f"{file.path.suffix} file", expected="a file of text", where=str(path), fix=fix)
    sample = head(file, _BYTES)
    text, encoding, questions = _decoded(sample.plain)
    if b"\0" in sample.plain[:1024] and encoding in ("latin-1", "cp1252"):
        raise SourceError("no text", expected="a file of text", where=str(path), fix="export it as CSV")
    lines = text.split("\n")
    lines = [line.removesuffix("\r") for line in (lines if sample.whole else lines[:-1])][:_LINES]
    frame = find_frame(lines, str(path))
    frame, columns = _without_first(frame, _columns(frame))
    guess = Guess(frame_flags(frame, encoding), [*questions, *frame.questions], layout_of(frame, columns))
    see_roles(frame, columns, guess)
    if frame.units and not frame.units_row:
        named = zip(frame.names, frame.units, strict=True)
        guess.flags["units"] = {name: unit for name, unit in named if unit and name not in guess.roles}
    see_cells(frame, columns, guess)
    step, problem = _try(text, sample.whole, Path(str(path)), guess.flags, encoding)
    if problem:
        guess.questions.append(f"the sample is refused so: {problem}")
    return Inspection(
        path=str(path),
        encoding=encoding,
        n_lines=len(lines),
        skip_lines=frame.skip_lines,
        comment=frame.comment,
        header=frame.header,
        units=frame.units,
        n_below=frame.n_below,
        delimiter=frame.delimiter,
        layout=guess.layout,
        columns=columns,
        ids=guess.ids,
        times=guess.times,
        step=step,
        command=command_of(str(path), guess.flags),
        questions=tuple(guess.questions),
    )


def _decoded(content: bytes) -> tuple[str, str, list[str]]:
    """Text, its encoding, and what to ask about it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "ignore"), "utf-16", []
    cut = content[: content.rfind(b"\n") + 1] or content
    try:
        return cut.removeprefix(b"\xef\xbb\xbf").decode(), "utf-8", []
    except UnicodeDecodeError:
        asked = "bytes that are not UTF-8: is it --encoding latin-1, cp1252 or another one?"
    try:  # latin-1 has control characters where Windows has €, quotes and dashes
        windows = content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1", [asked]
    return (windows, "cp1252", [asked]) if _WINDOWS.search(content) else (windows, "latin-1", [asked])


def _columns(frame: Frame) -> tuple[ColumnLook, ...]:
    return tuple(look_at(name, [row[n] for row in frame.rows]) for n, name in enumerate(frame.names))


def _without_first(frame: Frame, columns: tuple[ColumnLook, ...]) -> tuple[Frame, tuple[ColumnLook, ...]]:
    """A frame without the first rows, and its columns, where times are missing in these and in no other row."""
    for column in columns:
        if column.kind != "time" or not column.n_missing or not frame.header:
            continue
        place = frame.names.index(column.name)
        empty = [row[place] == "" for row in frame.rows]
        n_first = empty.index(False)
        if n_first and not any(empty[n_first:]):
            asked = f"{column.name} is empty in the first {n_first} rows alone: are these no rows?"
            frame = replace(
                frame,
                rows=frame.rows[n_first:],
                n_below=frame.n_below + n_first,
                questions=(*frame.questions, asked),
            )
            return frame, _columns(frame)
    return frame, columns


def _try(text: str, whole: bool, path: Path, flags: Mapping[str, Any], encoding: str) -> tuple[str, str]:
    """The step of the sample, ingested as the flags say; or why it is refused."""
    options = {name: value for name, value in flags.items() if name != "encoding"}
    with tempfile.TemporaryDirectory(prefix="zstore-") as folder:
        sample = Path(folder) / "sample.csv"
        sample.write_bytes((text if whole else text[: text.rfind("\n") + 1]).encode())
        try:
            ingest(sample, Path(folder) / "s.zarr", workers=1, **options)
        except ZstoreError as error:
            return "", str(error).replace(str(sample), str(path))
        return str(open_store(Path(folder) / "s.zarr").schema.time.rule), ""
