"""Commands that make and add to stores: `ingest` and `inspect`."""

from __future__ import annotations

import glob
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from zstore.errors import NoColumnError, UsageError, ZstoreError
from zstore.flags import Command, Flags, as_text, said, say, storage_of
from zstore.format.commit import is_store
from zstore.inspection.hdf5 import TreeInspection, inspect_hdf5
from zstore.inspection.inspected import Inspection
from zstore.inspection.look import inspect
from zstore.inspection.query import QueryInspection
from zstore.manual import parameters
from zstore.printing import show_plan, show_receipt
from zstore.progress import shown_progress
from zstore.short_help import Short
from zstore.storage.urls import is_remote, open_storage
from zstore.text import HarmlessFormatter, shown_json, shown_lines
from zstore.upkeep.outfile import check_place
from zstore.writing.append import append
from zstore.writing.ingest import ingest
from zstore.writing.planner import plan_ingest
from zstore.writing.receipt import Receipt
from zstore.writing.sources.hdf5.source import Hdf5Source
from zstore.writing.sources.kinds import kind_of
from zstore.writing.sources.sql.query import Query

logger = logging.getLogger("zstore.cli")


def _ingest_flags(parser: ArgumentParser) -> None:
    """Add a flag for each parameter of `ingest`: a new one needs its name here, in the group that it belongs to."""
    Flags(parser).argument(ingest, "sources", "paths", "SRC", behind="; then the STORE", nargs="+")
    query, columns, files, times, cells, around, rows, store, running = (
        Flags(parser.add_argument_group(title))
        for title in (
            "rows of a database, in the place of SRC",
            "which columns",
            "values that are files, whose paths are in a column",
            "times",
            "how CSV is written",
            "what stands around the rows of CSV",
            "rows that are wrong, or there twice",
            "the store",
            "how it runs",
        )
    )
    query.of(Query, sql="QUERY")
    # Of any type, since the parser would repeat what is of another one, and it may hold a password.
    query.own("--connection", type=Any, metavar="URI", help=parameters(Query)["connection"].help)
    query.of(Query, partition="COL", partitions="N", watermark="COL")
    columns.of(ingest, id="COL[,COL…]", time="COL[,COL…]", layout=None, value_name="NAME", id_from_path="REGEX")
    columns.of(ingest, mapping="FILE|PRESET")
    columns.of(ingest, channels="COL,COL", leave_out="COL,COL", categories="COL,COL", allow_new_channels=None)
    columns.of(ingest, rename="COL=NAME,…", units="COL=UNIT,…", static="FILE")
    files.of(ingest, file="FIELD=COL,…", file_root="DIR", file_limit="SIZE", file_position="FIELD=COL,…")
    files.of(ingest, file_member="FIELD=NAME,…", file_chain="FIELD=FILE,…", keep_encoded="FIELD,FIELD")
    times.of(ingest, time_format="FMT", time_unit="UNIT", timezone="ZONE", freq="RULE", start="T", fill_gaps=None)
    cells.of(ingest, delimiter="CHAR", decimal=None, thousands="CHAR", percent="COL,COL", encoding="NAME")
    cells.of(ingest, censored="COL,COL", missing="TEXT,COL=TEXT")
    around.of(ingest, skip_lines="N", comment="TEXT", units_row=None, skip_below_header="N", no_header=None)
    around.of(ingest, names="COL,COL", widths="N,N,…")
    rows.of(ingest, on_bad_row=None, max_bad_rows="N|SHARE", on_duplicate=None, on_empty_file=None)
    add = "add to the store, reading only files that it does not know; or make it"
    store.own("--append", action="store_true", help=add)
    store.one(append, "force", lead="with --append: ")
    store.of(ingest, overwrite=None, codec="NAME", dtype=None, chunk_rows="N", shard_rows="N")
    running.of(ingest, memory_limit="SIZE", blocksize="SIZE", workers="N", scheduler="ADDR", scratch="DIR")
    dry = "say how large it would be (tasks, memory, space, time); do nothing"
    running.own("--dry-run", action="store_true", help=dry)
    running.own("--log-file", type=as_text, metavar="FILE", help="append what happens to this file, with times")
    running.own("--json", action="store_true", help="print the receipt as JSON")
    parser.add_argument("--config", action="config", metavar="FILE", help="a YAML file with any of these options")


def _ingest(options: Namespace) -> int:
    sources, store = _sources(options)
    if options.append and options.overwrite:
        raise UsageError("--append with --overwrite", expected="one of them", fix="drop one")
    arguments = said(ingest, options)
    if options.dry_run:
        return _plan(options, sources, store, arguments)
    made: Receipt | None
    if options.log_file is not None:
        _check_log(options, sources, store)
    with _logged_to(options.log_file), shown_progress(options.quiet) as progress:
        if options.append and is_store(open_storage(store, storage_of(options))):
            known = said(append, options)
            given = {name: value for name, value in arguments.items() if name not in known}
            made = append(sources, store, given=given, progress=progress, **known)
        else:
            # A first --append makes the store, so that one command serves every day.
            try:
                made = ingest(sources, store, progress=progress, **arguments)
            except NoColumnError as error:
                if options.sql is not None:
                    raise
                raise _as_it_looks(error, sources[0], store, options) from error
        what = "the rows of all these files" if options.sql is None else "all rows of the query"
        text = show_receipt(made) if made else f"nothing new: {store} has {what} already\n"
        logger.info("%s", text)
    if options.json:
        print(shown_json(made.to_json() if made else None))
    else:
        say(options, text.rstrip("\n"))
    return 0


def _as_it_looks(error: NoColumnError, source: str, store: str, options: Namespace) -> NoColumnError:
    """The error, with the command that would ingest the first file as it looks, where that can be told."""
    try:
        look: Inspection | TreeInspection
        if isinstance(kind_of(source), Hdf5Source):
            look = inspect_hdf5(source, storage_options=storage_of(options))
        else:
            look = inspect(source, storage_options=storage_of(options))
    except ZstoreError:  # no file of text, or a glob: the error says what to do
        return error
    words = shlex.split(look.command)
    words[3] = store
    asked = ", with questions to answer first" if look.questions else ""
    fix = (
        f"{error.fix.partition('; zstore inspect')[0]}; as zstore inspect {source} sees it{asked}: {shlex.join(words)}"
    )
    return NoColumnError(error.what, expected=error.expected, where=error.where, fix=fix)


def _sources(options: Namespace) -> tuple[Any, str]:
    """What to read, and the store to make of it."""
    *paths, store = options.paths
    if options.sql is None:
        for flag in ("connection", "partition", "partitions", "watermark"):
            if options[flag] is not None:
                raise UsageError(f"--{flag} without --sql", expected="a query", fix="--sql 'select …'")
        if not paths:
            raise UsageError(f"one path ({store})", expected="SRC [SRC …] STORE", fix="name the STORE to make last")
        return paths, store
    if paths:
        raise UsageError(
            f"--sql with {paths[0]}", expected="a query, or files", fix="name the STORE alone, or leave out --sql"
        )
    _check_connection(options)
    return Query(options.sql, **said(Query, options)), store


def _check_connection(options: Namespace) -> None:
    """Refuse a connection that is no text, which a configuration may have."""
    if not isinstance(options.connection, str | None):
        raise UsageError("--connection (not shown, for it may hold a password)", expected="a URI", fix="write a text")


def _plan(options: Namespace, sources: Any, store: str, arguments: dict[str, Any]) -> int:
    running = {name: arguments[name] for name in parameters(plan_ingest) if name in arguments}
    apart = parameters(append).keys() - {"static"} | {"overwrite"}  # not how files are read
    table = {name: value for name, value in arguments.items() if name not in apart}
    on_scratch = options.scratch or (store if options.scheduler else "")
    planned = plan_ingest(sources, remote_scratch=is_remote(on_scratch), **running, **table)
    if options.json:
        print(shown_json(planned.to_json()))
    else:
        print(show_plan(planned, store), end="")
    return 0


def _check_log(options: Namespace, sources: Any, store: str) -> None:
    """Refuse to append to a store, or to what is read."""
    log, paths = Path(options.log_file), [options.static, *(options.config or ())]
    check_place(log, "log", follow=True, beside=[store])
    if log.is_dir():
        raise UsageError(f"log to {log}, which is a folder", fix="name a file in it with --log-file")
    if not isinstance(sources, Query):
        paths += [path for source in sources for path in (glob.glob(source) if glob.has_magic(source) else [source])]
    read = (Path(str(path)) for path in paths if path is not None and not is_remote(str(path)))
    if log.is_file() and any(path.is_file() and path.samefile(log) for path in read):
        raise UsageError(f"log to {log}, which is read", expected="another file", fix="choose another --log-file")


@contextmanager
def _logged_to(path: str | None) -> Iterator[None]:
    """Everything that zstore logs, errors included, appended to a file as well."""
    if path is None:
        yield
        return
    log = logging.getLogger("zstore")
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the log file {path} ({error.strerror})", fix="another --log-file") from error
    handler.setFormatter(HarmlessFormatter("%(asctime)s %(message)s"))
    handler.setLevel(logging.INFO)
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    except ZstoreError as error:
        logger.error("%s", error)  # the message says all; the traceback is for --debug
        raise
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


def _inspect_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.argument(inspect, "path", "file", "FILE", nargs="?")
    flags.of(Query, sql="QUERY")
    flags.own("--connection", type=Any, metavar="URI", help=parameters(Query)["connection"].help)
    flags.own("--json", action="store_true", help="print JSON")


def _inspect(options: Namespace) -> int:
    look: Inspection | QueryInspection | TreeInspection
    if options.sql is not None:
        if options.file is not None:
            raise UsageError(f"--sql with {options.file}", expected="a query, or a file", fix="leave out one of them")
        _check_connection(options)
        look = inspect(Query(options.sql, options.connection))
    elif options.file is None:
        raise UsageError("no FILE", expected="a file, or --sql QUERY", fix="name the one to look at")
    else:
        kind, given = kind_of(options.file), {"storage_options": storage_of(options)}
        look = inspect_hdf5(options.file, **given) if isinstance(kind, Hdf5Source) else inspect(options.file, **given)
    print(shown_json(asdict(look)) if options.json else shown_lines(look))
    return 0


_SHORT = Short(
    "SRC [SRC …] STORE",
    (
        *("id", "time", "time-format", "timezone", "freq", "channels", "categories", "static", "delimiter"),
        *("decimal", "missing", "on-bad-row", "append", "overwrite", "dry-run"),
    ),
    "other layouts and dialects, queries of databases, HDF5, files that a column names, duplicate rows, codecs, "
    "memory, workers, buckets, and a YAML file with options",
    (
        "zstore inspect rivers.csv      says how to ingest it",
        "zstore ingest rivers.csv rivers.zarr --id gauge_id --time date",
        "zstore ingest 'days/*.csv' rivers.zarr --id gauge_id --time date --append",
    ),
)
COMMANDS = (
    Command(
        "ingest",
        "turn CSV, Parquet, Arrow or HDF5 files into a store",
        _ingest_flags,
        _ingest,
        quiet=True,
        short=_SHORT,
    ),
    Command(
        "inspect", "say what a file of text or HDF5, or a query, holds, and how to ingest it", _inspect_flags, _inspect
    ),
)
