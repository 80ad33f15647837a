"""What an ingest or an append is asked for: its arguments, read and checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zstore.errors import UsageError
from zstore.format.layout import RowGrid
from zstore.manual import parameters
from zstore.sizes import bytes_of
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.storage.urls import open_storage
from zstore.writing.cluster import ClusterClient
from zstore.writing.parse import BLOCK_COPIES
from zstore.writing.plan import Reading, most_bad
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.sources.files import find
from zstore.writing.sources.kinds import Named, find_sources
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import FieldSpec
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.typed.given import GivenTable, given_table, is_given


@dataclass(frozen=True)
class Request:
    """What both are asked for: which files, where to, and how to run.

    Parameters
    ----------
    files
        The sources.
    target
        Storage of the store.
    scratch
        Storage of what is needed meanwhile; None for one in the store.
    statics
        Table of static attributes, if any.
    on_bad_row, max_bad_rows
        See :func:`zstore.ingest`; a number of rows is an int, a share a float.
    blocksize, memory_limit
        In bytes; None to derive them.
    workers, scheduler, progress
        See :func:`zstore.ingest`.
    """

    files: Sequence[Any]
    target: Storage
    scratch: Storage | None
    statics: File | GivenTable | None
    on_bad_row: str
    max_bad_rows: float | int
    blocksize: int | None
    memory_limit: int | None
    workers: int | None
    scheduler: str | ClusterClient | None
    progress: Progress | None

    @classmethod
    def of(cls, verb: Callable[..., Any], arguments: Mapping[str, Any]) -> Request:
        """The request of some arguments of :func:`zstore.ingest` or :func:`zstore.append`.

        Raises
        ------
        UsageError
            If an argument is none that it can have.
        SourceError
            If there is no such file.
        """
        check_choices(verb, arguments)
        for name in ("store", "scratch", "scheduler"):
            if arguments[name] == "":
                raise UsageError(
                    "store ''" if name == "store" else f"--{name} ''",
                    expected="a folder or an address",
                    fix="check the variable that it comes from",
                )
        of_buckets, static, scratch = (arguments[name] for name in ("storage_options", "static", "scratch"))
        return cls(
            files=source_files(arguments["sources"], of_buckets, arguments["on_empty_file"]),
            target=open_storage(arguments["store"], of_buckets),
            scratch=None if scratch is None else open_storage(scratch, of_buckets),
            statics=None if static is None else static_table(static, of_buckets),
            max_bad_rows=most_bad(arguments["max_bad_rows"]),
            blocksize=bytes_of(arguments["blocksize"], "--blocksize"),
            memory_limit=bytes_of(arguments["memory_limit"], "--memory-limit"),
            **{name: arguments[name] for name in ("on_bad_row", "workers", "scheduler", "progress")},
        )

    def runner(self) -> Scheduler:
        """What runs its tasks."""
        task_bytes = BLOCK_COPIES * (self.blocksize or 0)
        return Scheduler(self.workers, self.scheduler, self.progress, self.memory_limit, task_bytes)

    def reading(
        self,
        source: Source,
        options: TableOptions,
        encoding: str,
        dtype: str,
        grid: RowGrid,
        files: Sequence[File],
        fields: Sequence[FieldSpec] = (),
    ) -> Reading:
        """How some of its files are read."""
        return Reading(
            files,
            source,
            options,
            encoding,
            dtype,
            grid,
            self.on_bad_row,
            self.max_bad_rows,
            self.blocksize,
            self.statics,
            fields,
        )


def static_table(static: Any, storage_options: Mapping[str, str] | None) -> File | GivenTable:
    """The file that ``--static`` names, or the table that is handed over for it; raises as :func:`find_sources`."""
    if is_given(static):
        return given_table(static, "the static attributes")
    if not isinstance(static, (str, Path)):
        raise UsageError(
            f"static attributes of type {type(static).__name__}",
            expected="a path, or a table: a data frame, an Arrow table or stream",
            fix="name a file, or hand over a data frame; collect() a lazy one",
        )
    return find(static, "--static", storage_options)


def source_files(
    sources: Named | Sequence[Named], storage_options: Mapping[str, str] | None, on_empty_file: str
) -> list[Any]:
    """What one or several paths, globs, URLs or queries name; raises as :func:`find_sources`."""
    return find_sources(sources, storage_options, on_empty_file == "skip")


def check_choices(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are none of those that their types list.

    Raises
    ------
    UsageError
        Naming the flag.
    """
    for name, parameter in parameters(function).items():
        if parameter.choices and name in arguments and arguments[name] not in parameter.choices:
            raise UsageError(
                f"--{name.replace('_', '-')} {arguments[name]}",
                expected=f"one of {', '.join(parameter.choices)}",
                fix="choose one of them",
            )
