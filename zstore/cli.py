"""The `zstore` command: flags in, plain words out. Everything it does is a public function elsewhere."""

from __future__ import annotations

import inspect
import json
import logging
import re
import sys
from argparse import Action
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from rich.console import Console

from zstore._version import __version__
from zstore.errors import UsageError, ZstoreError
from zstore.format.layout import ROOT
from zstore.printing import csv_cell, print_info, show_log, show_receipt, shown_values
from zstore.progress import show_size, shown_progress
from zstore.reading.store import Store, open_store
from zstore.upkeep.compact import compact
from zstore.upkeep.compare import compare_sources
from zstore.upkeep.export import export
from zstore.upkeep.history import gc, log, rollback
from zstore.upkeep.verify import verify
from zstore.writing.append import append
from zstore.writing.ingest import ingest
from zstore.writing.receipt import Receipt
from zstore.writing.sources.sniff import MISSING

logger = logging.getLogger("zstore.cli")

_AS_GIVEN: tuple[str, ...] = ("id", "time_format", "time_unit", "freq", "start", "layout", "id_from_path")
_AS_GIVEN += ("allow_new_channels", "value_name", "delimiter", "decimal", "encoding", "dtype", "codec", "fill_gaps")
_SIZES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SIZES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    0 if it did what was asked, 1 if that failed, 2 if the arguments cannot be meant.
    """
    parser = _parser()
    parsed = parser.parse_args(list(sys.argv[1:] if arguments is None else arguments))
    command = parsed.subcommand
    options = parsed[command]
    level = logging.DEBUG if options.debug else logging.WARNING
    stream = logging.StreamHandler()
    stream.setLevel(level)  # a log file may take more
    logging.basicConfig(level=level, format="%(message)s", handlers=[stream])
    try:
        return _COMMANDS[command](options)
    except ZstoreError as error:
        if options.debug:
            raise
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"zstore {command}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        print(f"zstore {command}: interrupted; nothing was committed", file=sys.stderr)
        return 130


def parse_size(text: str) -> int:
    """Bytes from a size such as ``512MiB``, ``1GiB`` or ``2e9``.

    Raises
    ------
    UsageError
        If it is not a size.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)", str(text).strip().lower())
    try:
        if match is None or match[2] not in _SIZES:
            raise ValueError(text)
        return int(float(match[1]) * _SIZES[match[2]])
    except ValueError:
        raise UsageError(f"size {text!r}", expected="bytes, or a size such as 512MiB or 2GB") from None


class _Help(DefaultHelpFormatter):
    """Help for people: the text as it is written, without the names of types."""

    def _get_help_string(self, action: Action) -> str:
        return action.help or ""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="zstore",
        description="Long CSV tables of time series as compressed Zarr stores sorted by (id, time).",
        version=__version__,
        formatter_class=_Help,
    )
    commands = parser.add_subcommands(required=True, dest="subcommand", metavar="COMMAND")
    for name, add, text in (
        ("ingest", _add_ingest, "turn CSV files into a store"),
        ("info", _add_info, "say what a store holds"),
        ("show", _add_show, "print the rows of one series as CSV"),
        ("verify", _add_verify, "compare a store with its digests"),
        ("export", _add_export, "write a store as CSV or Parquet"),
        ("log", _add_log, "list the versions of a store"),
        ("rollback", _add_rollback, "go back to an older version, as a new one"),
        ("compact", _add_compact, "put the rows of every series in one place again"),
        ("gc", _add_gc, "remove what only old versions need"),
    ):
        command = ArgumentParser(description=text[0].upper() + text[1:] + ".", formatter_class=_Help)
        add(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        commands.add_subcommand(name, command, help=text)
    return parser


def _add_ingest(parser: ArgumentParser) -> None:
    add = parser.add_argument
    names, shown = str | list[str] | None, ", ".join(MISSING[1:])
    pairs = str | dict[str, str] | None
    add("paths", nargs="+", type=str, metavar="SRC", help="files or globs (also .gz, .zst), then the STORE to make")
    add(
        "--id",
        type=str | None,
        metavar="COL",
        help="column of ids, kept as exact text; default: one series",
    )
    add(
        "--time",
        type=names,
        metavar="COL",
        help="column of times: ISO or whole numbers; or COL,COL,… for year, month, …",
    )
    add(
        "--time-format",
        type=str | None,
        metavar="FMT",
        help="how times are written, as in '%d.%m.%Y %H:%M'",
    )
    add(
        "--time-unit",
        type=str | None,
        metavar="UNIT",
        help="times are numbers since 1970: d, h, min, s, ms, us, ns",
    )
    add("--freq", type=str | None, metavar="STEP", help="step between rows, as 1D or 15min; default: the usual")
    add(
        "--start",
        type=str | None,
        metavar="T",
        help="without --time: time of the first row; --freq follows",
    )
    add(
        "--layout",
        type=Literal["long", "wide"],
        default="long",
        metavar="long|wide",
        help="a row per id and time (default), or a column per series",
    )
    add("--fill-gaps", action="store_true", help="add a row of missing values at each step that a series skips")
    add("--id-from-path", type=str | None, metavar="REGEX", help="one file per series: the first group is its id")
    add("--channels", type=names, metavar="COL,COL", help="columns to keep; default: all but id and time")
    add("--leave-out", type=names, metavar="COL,COL", help="columns not to keep")
    add("--categories", type=names, metavar="COL,COL", help="columns of words that may look like numbers")
    add(
        "--allow-new-channels",
        action="store_true",
        help="files may have columns that the first has not: missing elsewhere",
    )
    add("--rename", type=pairs, metavar="COL=NAME,…", help="new names of columns")
    add("--units", type=pairs, metavar="COL=UNIT,…", help="units of columns, to record")
    add("--value-name", type=str, default="value", metavar="NAME", help="channel of a wide table; default: value")
    add("--static", type=str | None, metavar="FILE", help="CSV of static attributes, one row per id")
    add(
        "--on-bad-row",
        type=Literal["error", "quarantine"],
        default="error",
        metavar="error|quarantine",
        help="refuse the first bad row (default), or set bad rows aside in STORE.quarantine.csv",
    )
    add(
        "--on-duplicate",
        type=Literal["error", "first", "last"],
        default="error",
        metavar="error|first|last",
        help="which row stays when an id has several at one time; default: error",
    )
    add("--delimiter", type=str | None, metavar="CHAR", help="between fields; default: found")
    add("--decimal", type=Literal[".", ","], default=".", metavar=".|,", help="decimal point; default: .")
    add("--encoding", type=str, default="utf-8", metavar="NAME", help="of the files; default: utf-8")
    add(
        "--missing",
        type=names,
        metavar="TEXT,TEXT",
        help=f"texts that mean missing; default: empty, {shown}",
    )
    add(
        "--codec",
        type=str | None,
        metavar="NAME",
        help="auto: try some on a sample; or zstd-3, …",
    )
    add("--append", action="store_true", help="add to the store, reading only files that it does not know; or make it")
    add("--force", action="store_true", help="with --append: read files again that the store knows")
    add("--overwrite", action="store_true", help="replace an existing store once the new one is complete")
    add(
        "--dtype",
        type=Literal["float32", "float64"],
        default="float32",
        metavar="float32|float64",
        help="float type of channels; default: float32",
    )
    add(
        "--memory-limit",
        type=str,
        default="1GiB",
        metavar="SIZE",
        help="memory to stay under, at least 256MiB a worker; default: 1GiB",
    )
    add("--blocksize", type=str | None, metavar="SIZE", help="bytes of a file parsed at once; default: by memory limit")
    add("--workers", type=int | None, metavar="N", help="threads; default: one per core")
    add(
        "--scheduler",
        type=str | None,
        metavar="ADDR",
        help="a Dask cluster sharing this file system, as tcp://host:8786",
    )
    add("--log-file", type=str | None, metavar="FILE", help="append what happens to this file, with times")
    add("--json", action="store_true", help="print the receipt as JSON")
    add("--config", action="config", metavar="FILE", help="a YAML file with any of these options")


def _add_info(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("id", type=str, metavar="ID", help="exact id of the series; 0 in a store without ids")
    parser.add_argument("--start", type=str | None, metavar="T", help="first time: an ISO date (and time), or a step")
    parser.add_argument("--stop", type=str | None, metavar="T", help="time to stop before")


def _add_verify(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="objects read at once; default: 2")
    parser.add_argument("--source", nargs="+", type=str, metavar="SRC", help="compare with these files too, row by row")


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("out", type=str, metavar="OUT", help="file to write, ending in .csv or .parquet")
    parser.add_argument("--ids", type=str | list[str] | None, metavar="ID,ID", help="series to write; default: all")


def _add_log(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--json", action="store_true", help="print JSON, receipts included")


def _add_rollback(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("version", type=int, metavar="VERSION", help="version whose rows the new one has")


def _add_compact(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--workers", type=int | None, metavar="N", help="threads; default: one per core")


def _add_gc(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="newest versions to keep; default: 1")


def _ingest(options: Namespace) -> int:
    if len(options.paths) < 2:
        raise UsageError(
            f"one path ({options.paths[0]})", expected="SRC [SRC …] STORE", fix="name the STORE to make last"
        )
    *sources, store = options.paths
    if options.append and options.overwrite:
        raise UsageError("--append with --overwrite", expected="one of them", fix="drop one")
    table = _table(options)
    run: dict[str, Any] = {
        "static": options.static,
        "on_bad_row": options.on_bad_row,
        "on_duplicate": options.on_duplicate,
        "memory_limit": parse_size(options.memory_limit),
        "blocksize": parse_size(options.blocksize) if options.blocksize else None,
        "workers": options.workers,
        "scheduler": options.scheduler,
    }
    made: Receipt | None
    with _logged_to(options.log_file), shown_progress() as progress:
        if options.append and (Path(store) / ROOT).exists():
            made = append(sources, store, force=options.force, given=table, progress=progress, **run)
        else:
            # A first --append makes the store, so that one command serves every day.
            made = ingest(sources, store, progress=progress, overwrite=options.overwrite, **table, **run)
        text = show_receipt(made) if made else f"nothing new: {store} has the rows of all these files already\n"
        logger.info("%s", text)
    if options.json:
        print(json.dumps(made.to_json() if made else None, indent=1, ensure_ascii=False))
    else:
        print(text, end="")
    return 0


def _table(options: Namespace) -> dict[str, Any]:
    """How the files are read, as far as the user says so."""
    found: dict[str, Any] = {name: options[name] for name in _AS_GIVEN}
    found |= {name: _names(options[name]) for name in ("time", "channels", "leave_out", "categories", "missing")}
    found |= {name: _pairs(options[name], f"--{name}") for name in ("rename", "units")}
    usual = inspect.signature(ingest).parameters
    return {name: value for name, value in found.items() if value and value != usual[name].default}


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
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
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


def _names(given: str | list[str] | None) -> list[str] | None:
    """Names from ``A,B`` or, in YAML, from a list, which can hold names with commas."""
    return given.split(",") if isinstance(given, str) else given


def _pairs(given: str | dict[str, str] | None, flag: str) -> dict[str, str]:
    """A mapping from ``A=B,C=D`` or, in YAML, as it stands."""
    if given is None or isinstance(given, dict):
        return given or {}
    pairs = [pair.partition("=") for pair in given.split(",")]
    for key, sign, _ in pairs:
        if not sign:
            raise UsageError(f"{flag} {key!r}", expected="COLUMN=VALUE,COLUMN=VALUE")
    return {key: value for key, _, value in pairs}


def _info(options: Namespace) -> int:
    store = open_store(options.store)
    if options.json:
        document = {key: value for key, value in store.objects.document.items() if key != "manifest"}
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print_info(store)
    return 0


def _show(options: Namespace) -> int:
    store = open_store(options.store)
    series = store.series(options.id)
    show = store.schema.time.show
    print(",".join(csv_cell(name) for name in ("time", *store.channels)))
    first, last = series.rows(options.start, options.stop)
    columns = [shown_values(store, name, first, last) for name in store.channels]
    for time, *cells in zip(store.times(first, last).tolist(), *columns, strict=True):
        print(",".join([show(time), *cells]))
    return 0


def _verify(options: Namespace) -> int:
    store = open_store(options.store)
    with shown_progress() as progress:
        found = verify(store, options.workers, lambda done, total: progress("verify", done, total, "objects"))
    for fault in found.faults:
        print(fault)
    if found.faults:
        print(f"{len(found.faults)} faults in {options.store} version {store.version}", file=sys.stderr)
        return 1
    if options.source:
        return _verify_source(store, options.source)
    print(
        f"sound: version {store.version}, {found.n_objects:,} objects, {show_size(found.n_bytes)} equal their digests"
    )
    return 0


def _verify_source(store: Store, sources: list[str]) -> int:
    with shown_progress() as progress:
        found = compare_sources(store, sources, lambda done, total: progress("compare", done, total, "blocks"))
    for fault in found.faults:
        print(fault)
    n_wrong = found.n_different + found.n_unseen
    print(
        f"{found.n_rows:,} rows of the sources compared: {found.n_different:,} differ, {found.n_unseen:,} rows of the "
        f"store are in none, {found.n_bad:,} records cannot be stored"
    )
    return 1 if n_wrong else 0


def _export(options: Namespace) -> int:
    store = open_store(options.store)
    with shown_progress() as progress:
        n_rows = export(
            store, Path(options.out), _names(options.ids), lambda done, total: progress("export", done, total, "rows")
        )
    print(f"wrote {n_rows:,} rows of {options.store} version {store.version}: {options.out}")
    return 0


def _log(options: Namespace) -> int:
    entries = log(options.store)
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False))
    else:
        print(show_log(entries), end="")
    return 0


def _rollback(options: Namespace) -> int:
    store = rollback(options.store, options.version)
    print(f"{options.store} version {store.version}: {store.n_rows:,} rows, as in version {options.version}")
    return 0


def _compact(options: Namespace) -> int:
    before = open_store(options.store)
    with shown_progress() as progress:
        store = compact(options.store, workers=options.workers, progress=progress)
    if store.version == before.version:
        print(f"{options.store} version {store.version} is in order already")
    else:
        print(f"{options.store} version {store.version}: {store.n_rows:,} rows in order; gc frees what older ones need")
    return 0


def _gc(options: Namespace) -> int:
    n_objects, n_bytes = gc(options.store, options.keep)
    print(f"removed {n_objects:,} objects, {show_size(n_bytes)}; kept the newest {options.keep}")
    return 0


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ingest": _ingest,
    "info": _info,
    "show": _show,
    "verify": _verify,
    "export": _export,
    "log": _log,
    "rollback": _rollback,
    "compact": _compact,
    "gc": _gc,
}


if __name__ == "__main__":
    sys.exit(main())
