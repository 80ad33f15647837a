"""The flags of the `zstore` command and their help; what they do is in :mod:`zstore.cli`."""

from __future__ import annotations

from argparse import Action
from collections.abc import Callable
from typing import Any, Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from zstore._version import __version__
from zstore.format.layout import RowGrid
from zstore.upkeep.doctor import KINDS
from zstore.writing.sources.options import MISSING
from zstore.yamlfiles import bound_yaml

_QUIET = ("ingest", "verify", "doctor", "export", "rollback", "compact", "gc", "fetch")  # what cron runs
_NAMES = str | list[str]
_PAIRS = str | dict[str, str]
_Add = Callable[..., Action]


class _Help(DefaultHelpFormatter):
    """Help for people: the text as it is written, without the names of types."""

    def _get_help_string(self, action: Action) -> str:
        return action.help or ""


def make_parser() -> ArgumentParser:
    """The parser of all commands."""
    bound_yaml()
    parser = ArgumentParser(
        prog="zstore",
        description="Long tables of time series as compressed Zarr stores sorted by (id, time).",
        version=__version__,
        formatter_class=_Help,
    )
    commands = parser.add_subcommands(required=True, dest="subcommand", metavar="COMMAND")
    for name, add, text in (
        ("ingest", _add_ingest, "turn CSV, Parquet or Arrow files into a store"),
        ("inspect", _add_inspect, "say what a file of text holds, and how to ingest it"),
        ("info", _add_info, "say what a store holds"),
        ("show", _add_show, "print the rows of one series as CSV"),
        ("verify", _add_verify, "compare a store with its digests"),
        ("doctor", _add_doctor, "look for what is wrong with the data of a store"),
        ("export", _add_export, "write a store as CSV or Parquet"),
        ("log", _add_log, "list the versions of a store"),
        ("rollback", _add_rollback, "go back to an older version, as a new one"),
        ("compact", _add_compact, "put the rows of every series in one place again"),
        ("gc", _add_gc, "remove what only old versions need"),
        ("plan", _add_plan, "try what a fit will cost here, and choose"),
        ("bench", _add_bench, "measure windows per second of each residency here"),
        ("cache", _add_cache, "list, clear or verify the decoded rows that training keeps"),
        ("fetch", _add_fetch, "download a public data set, or list them"),
        ("completion", _add_completion, "print what makes a shell complete these commands"),
    ):
        command = ArgumentParser(description=text[0].upper() + text[1:] + ".", formatter_class=_Help)
        add(command)
        if name in _QUIET:
            command.add_argument("--quiet", action="store_true", help="print errors only; no progress either")
        if name not in ("cache", "fetch", "completion"):
            # Of any type, since the parser would repeat what is of another one, and it may be secret.
            of_buckets = "for s3://, as region=…; secrets are better set as AWS_SECRET_ACCESS_KEY and the like"
            command.add_argument("--storage-options", type=Any, metavar="KEY=VALUE,…", help=of_buckets)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        commands.add_subcommand(name, command, help=text)
    return parser


def _add_ingest(parser: ArgumentParser) -> None:
    paths = "CSV (also .gz, .zst), .parquet, .arrow or .feather files, globs, s3://…; then the STORE"
    parser.add_argument("paths", nargs="+", type=str, metavar="SRC", help=paths)
    for title, add in (
        ("which columns", _add_columns),
        ("times", _add_times),
        ("how CSV is written", _add_cells),
        ("what stands around the rows of CSV", _add_first_lines),
        ("rows that are wrong, or there twice", _add_rows),
        ("the store", _add_target),
        ("how it runs", _add_running),
    ):
        add(parser.add_argument_group(title).add_argument)
    parser.add_argument("--config", action="config", metavar="FILE", help="a YAML file with any of these options")


def _add_columns(add: _Add) -> None:
    add("--id", type=_NAMES, metavar="COL", help="column of ids, kept as exact text; or COL,COL; default: one series")
    add(
        "--time",
        type=_NAMES,
        metavar="COL",
        help="column of times: ISO or whole numbers; or COL,COL for date and clock, or year, month, day, …",
    )
    add(
        "--layout",
        type=Literal["long", "wide", "series"],
        default="long",
        metavar="long|wide|series",
        help="a row per id and time (default), a column per series, or a row per series (with --freq)",
    )
    add("--value-name", type=str, default="value", metavar="NAME", help="channel of a wide table; default: value")
    add("--id-from-path", type=str, metavar="REGEX", help="one file per series: the first group is its id")
    add("--channels", type=_NAMES, metavar="COL,COL", help="columns to keep; default: all but id and time")
    add("--leave-out", type=_NAMES, metavar="COL,COL", help="columns not to keep")
    add("--categories", type=_NAMES, metavar="COL,COL", help="columns of words that may look like numbers")
    add(
        "--allow-new-channels",
        action="store_true",
        help="files may have columns that the first has not: missing elsewhere",
    )
    add("--rename", type=_PAIRS, metavar="COL=NAME,…", help="new names of columns")
    add("--units", type=_PAIRS, metavar="COL=UNIT,…", help="units of columns, to record")
    add("--static", type=str, metavar="FILE", help="CSV of static attributes, one row per id")


def _add_times(add: _Add) -> None:
    add("--time-format", type=str, metavar="FMT", help="how times are written, as in '%d.%m.%Y %H:%M'")
    add(
        "--time-unit",
        type=str,
        metavar="UNIT",
        help="times are numbers since 1970: d, h, min, s, ms, us, ns; excel for serial days; or steps",
    )
    add("--timezone", type=str, metavar="ZONE", help="times are of its clocks, as Europe/Berlin; stored as UTC")
    add(
        "--freq",
        type=str,
        metavar="RULE",
        help="from row to row: 15min, 1D; MS ME QS QE YS YE for months, quarters, years (2MS, YE-JUN); W-WED; "
        "B for weekdays; rows to count rows. Default: the one that most rows follow",
    )
    add("--start", type=str, metavar="T", help="without --time: time of the first row; --freq follows")
    add("--fill-gaps", action="store_true", help="add a row of missing values at each step that a series skips")


def _add_cells(add: _Add) -> None:
    shown = ", ".join(MISSING[1:])
    add("--delimiter", type=str, metavar="CHAR", help="between fields, or spaces for runs; default: found")
    add("--decimal", type=Literal[".", ","], default=".", metavar=".|,", help="decimal point; default: .")
    add("--thousands", type=str, metavar="CHAR", help="between groups of three digits, as , in 1,234")
    add("--percent", type=_NAMES, metavar="COL,COL", help="columns of numbers with a % behind each, which is dropped")
    add("--encoding", type=str, default="utf-8", metavar="NAME", help="of the files; default: utf-8")
    add(
        "--missing",
        type=_NAMES,
        metavar="TEXT,COL=TEXT",
        help=f"what means missing among numbers (default: empty, {shown}), or in one column, words too",
    )


def _add_rows(add: _Add) -> None:
    add(
        "--on-bad-row",
        type=Literal["error", "quarantine"],
        default="error",
        metavar="error|quarantine",
        help="refuse the first bad row (default), or set bad rows aside in STORE.quarantine.csv",
    )
    add(
        "--max-bad-rows",
        type=str,
        default="0.5",
        metavar="N|SHARE",
        help="most bad rows to set aside: a number, or a share as 1% or 0.01; default: 0.5",
    )
    add(
        "--on-duplicate",
        type=Literal["error", "first", "last"],
        default="error",
        metavar="error|first|last",
        help="which row stays when an id has several at one time; default: error",
    )
    add(
        "--on-empty-file",
        type=Literal["error", "skip"],
        default="error",
        metavar="error|skip",
        help="refuse files without a byte (default), or leave them out",
    )


def _add_target(add: _Add) -> None:
    add("--append", action="store_true", help="add to the store, reading only files that it does not know; or make it")
    add("--force", action="store_true", help="with --append: read files again that the store knows, or that changed")
    add("--overwrite", action="store_true", help="replace an existing store once the new one is complete")
    add("--codec", type=str, metavar="NAME", help="auto: try some on a sample; or zstd-3, …")
    add(
        "--dtype",
        type=Literal["float32", "float64"],
        default="float32",
        metavar="float32|float64",
        help="float type of channels; default: float32",
    )
    usual = RowGrid()
    add(
        "--chunk-rows",
        type=int | None,
        metavar="N",
        help=f"rows decoded together: fewer read short ranges faster and take more space; default: {usual.chunk_rows}",
    )
    add(
        "--shard-rows",
        type=int | None,
        metavar="N",
        help=f"rows of an object: more make fewer objects, and take more memory; default: {usual.shard_rows}",
    )


def _add_running(add: _Add) -> None:
    add(
        "--memory-limit",
        type=str,
        metavar="SIZE",
        help="memory to stay under, 256MiB a thread; default: enough for all, at most half of what is there",
    )
    add("--blocksize", type=str, metavar="SIZE", help="bytes of a file parsed at once; default: by memory limit")
    add("--workers", type=int | None, metavar="N", help="threads, or processes; default: one per core")
    add(
        "--scheduler",
        type=str,
        metavar="ADDR",
        help="a Dask cluster that sees the same files, as tcp://host:8786; local: --workers processes",
    )
    add("--scratch", type=str, metavar="DIR", help="where to keep what is needed meanwhile; default: in STORE")
    add("--dry-run", action="store_true", help="say how large it would be (tasks, memory, space, time); do nothing")
    add("--log-file", type=str, metavar="FILE", help="append what happens to this file, with times")
    add("--json", action="store_true", help="print the receipt as JSON")


def _add_first_lines(add: _Add) -> None:
    """Flags of CSV files that are not a header and records with a delimiter."""
    add("--skip-lines", type=int, default=0, metavar="N", help="lines before the header to leave out; default: 0")
    add("--comment", type=str, metavar="TEXT", help="leave out lines that begin with this, as in '#'")
    add("--units-row", action="store_true", help="a row of units stands below the header; they are recorded")
    add(
        "--skip-below-header",
        type=int,
        default=0,
        metavar="N",
        help="further lines below the header to leave out, such as a row of types; default: 0",
    )
    add("--no-header", action="store_true", help="the files have no header; --names has the columns")
    add("--names", type=_NAMES, metavar="COL,COL", help="with --no-header: names of all columns")
    add("--widths", type=_NAMES, metavar="N,N,…", help="characters of each column; * for the rest")


def _add_inspect(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=str, metavar="FILE", help="CSV or the like (also .gz, .zst), or s3://…")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_info(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("id", type=str, metavar="ID", help="exact id of the series; 0 in a store without ids")
    parser.add_argument("--start", type=str, metavar="T", help="first time: an ISO date (and time), or a step")
    parser.add_argument("--stop", type=str, metavar="T", help="time to stop before")
    _add_version(parser)


def _add_verify(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="objects read at once; default: 2")
    parser.add_argument("--source", nargs="+", type=str, metavar="SRC", help="compare with these files too, row by row")


def _add_doctor(parser: ArgumentParser) -> None:
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--html", type=str, metavar="FILE", help="write a report that works offline and on paper")
    parser.add_argument("--json", action="store_true", help="print JSON, all findings included")
    parser.add_argument(
        "--fail-on",
        type=str | list[str],
        metavar="KIND,KIND",
        help=f"exit with 1 if any of these is found, or 'any'. {kinds}",
    )


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("out", type=str, metavar="OUT", help="file to write, ending in .csv or .parquet")
    parser.add_argument("--ids", type=str | list[str], metavar="ID,ID", help="series to write; default: all")
    _add_version(parser)


def _add_version(parser: ArgumentParser) -> None:
    which = "rows of this version, see zstore log; default: the newest"
    parser.add_argument("--version", type=int | None, metavar="N", help=which)


def _add_log(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--json", action="store_true", help="print JSON, receipts included")


def _add_rollback(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("version", type=int, metavar="VERSION", help="version whose rows the new one has")


def _add_compact(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--workers", type=int | None, metavar="N", help="threads, or processes; default: one per core")
    parser.add_argument("--scheduler", type=str, metavar="ADDR", help="a Dask cluster, as in ingest")
    parser.add_argument("--scratch", type=str, metavar="DIR", help="where to keep what is needed meanwhile")


def _add_plan(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--config", type=str, required=True, metavar="FILE", help="YAML file of the fit")
    parser.add_argument("--write", type=str, metavar="FILE", help="save what was chosen, as a further --config")
    _add_measuring(parser)


def _add_bench(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    for name, default, text in (
        ("lookback", 96, "input rows of a window"),
        ("horizon", 24, "target rows of a window"),
        ("stride", 1, "rows between two windows"),
        ("batch-size", 256, "windows of a batch"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text}; default: {default}")
    share = "a share of free memory, or a size such as 2GiB; default: 0.5"
    parser.add_argument("--memory-budget", type=str, default="0.5", metavar="SIZE", help=share)
    _add_measuring(parser)


def _add_measuring(parser: ArgumentParser) -> None:
    each = "how long each residency is measured; default: 2"
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help=each)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_cache(parser: ArgumentParser) -> None:
    actions = Literal["list", "clear", "verify"] | None
    what = "list them; clear: remove them; verify: compare each with its digest, and remove what is damaged"
    parser.add_argument("action", nargs="?", type=actions, metavar="list|clear|verify", help=what)
    parser.add_argument("--folder", type=str, metavar="DIR", help="default: $ZSTORE_CACHE, or ~/.cache/zstore")
    parser.add_argument("--days", type=float, default=0.0, metavar="N", help="clear: only what was not used for N days")
    size = "clear: only what was used longest ago, until the rest fits in a size such as 50GiB, or a share of the disk"
    parser.add_argument("--limit", type=str, metavar="SIZE", help=size)
    parser.add_argument("--json", action="store_true", help="list: print JSON")


def _add_gc(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder or s3://… of the store")
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="newest versions to keep; default: 1")


def _add_fetch(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", type=str, metavar="NAME", help="of the data set; default: list them")
    parser.add_argument("--to", type=str, default="data", metavar="DIR", help="where its files go; default: data")
    where = "a folder, or the address of one, that has the files; default: $ZSTORE_MIRROR, or where they are published"
    parser.add_argument("--mirror", type=str, metavar="DIR|URL", help=where)


def _add_completion(parser: ArgumentParser) -> None:
    shells = Literal["bash", "zsh", "fish", "tcsh"]
    parser.add_argument(
        "shell",
        type=shells,
        metavar="bash|zsh|fish|tcsh",
        help="as in: zstore completion bash > ~/.local/share/bash-completion/completions/zstore",
    )
