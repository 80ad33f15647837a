"""The `zstore` command: flags in, plain words out. Everything it does is a public function elsewhere."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from zstore._version import __version__
from zstore.errors import UsageError, ZstoreError
from zstore.reading.store import Store, open_store
from zstore.writing.receipt import Receipt

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
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING, format="%(message)s")
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


def show_size(n_bytes: int) -> str:
    """Bytes as a person writes them."""
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="zstore",
        description="Turn long CSV tables of time series into compressed Zarr stores sorted by (id, time), and look at them.",
        version=__version__,
    )
    commands = parser.add_subcommands(required=True, dest="subcommand", metavar="COMMAND")
    for name, add, text in (
        ("ingest", _add_ingest, "turn CSV files into a store"),
        ("info", _add_info, "say what a store holds"),
        ("show", _add_show, "print the rows of one series"),
        ("verify", _add_verify, "compare a store with its digests"),
    ):
        command = ArgumentParser(description=text[0].upper() + text[1:] + ".")
        add(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        commands.add_subcommand(name, command, help=text)
    return parser


def _add_ingest(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", action="config", help="a YAML file with any of these options")
    add("paths", nargs="+", type=str, metavar="SRC", help="CSV files or globs (.csv, .csv.gz), then the STORE to make")
    add("--id", type=str | None, metavar="COL", help="column of series ids, kept as exact text; without it all rows are one series")
    add("--time", type=str, required=True, metavar="COL", help="column of times: ISO dates or dates and times, or whole numbers")
    add("--channels", type=str | list[str] | None, metavar="COL,COL", help="columns to keep; without it all but id and time")
    add("--static", type=str | None, metavar="FILE", help="CSV of static attributes, one row per id")
    add("--freq", type=str | None, metavar="STEP", help="step between rows, such as 1D, 1h or 15min; without it the usual step is found")
    add("--on-bad-row", type=str, default="error", choices=["error", "quarantine"], help="refuse the first bad row, or set bad rows aside in STORE.quarantine.csv (default: error)")
    add("--overwrite", action="store_true", help="replace an existing store once the new one is complete")
    add("--dtype", type=str, default="float32", choices=["float32", "float64"], help="float type of channels (default: float32)")
    add("--memory-limit", type=str, default="1GiB", metavar="SIZE", help="memory to stay under, at least 256MiB a worker (default: 1GiB)")
    add("--blocksize", type=str | None, metavar="SIZE", help="bytes of a file parsed at once (default: derived from the memory limit)")
    add("--workers", type=int | None, metavar="N", help="threads (default: one per core)")
    add("--scheduler", type=str | None, metavar="ADDR", help="a Dask cluster that shares this file system, such as tcp://host:8786")
    add("--json", action="store_true", help="print the receipt as JSON")


def _add_info(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("id", type=str, metavar="ID", help="exact id of the series (0 in a store without ids)")
    parser.add_argument("--start", type=str | None, metavar="T", help="first time shown: an ISO date, date and time, or a step number")
    parser.add_argument("--stop", type=str | None, metavar="T", help="time before which to stop")


def _add_verify(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=str, metavar="STORE", help="folder of the store")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="objects read at once (default: 2)")


def _ingest(options: Namespace) -> int:
    # The package exports the function `ingest`, which hides the module of that name from a plain import.
    ingest = import_module("zstore.writing.ingest").ingest
    if len(options.paths) < 2:
        raise UsageError(f"one path ({options.paths[0]})", expected="SRC [SRC …] STORE", fix="name the STORE to make last")
    *sources, store = options.paths
    channels = options.channels.split(",") if isinstance(options.channels, str) else options.channels
    with _progress() as progress:
        receipt = ingest(
            sources,
            store,
            id=options.id,
            time=options.time,
            channels=channels,
            static=options.static,
            freq=options.freq,
            on_bad_row=options.on_bad_row,
            overwrite=options.overwrite,
            dtype=options.dtype,
            memory_limit=parse_size(options.memory_limit),
            blocksize=parse_size(options.blocksize) if options.blocksize else None,
            workers=options.workers,
            scheduler=options.scheduler,
            progress=progress,
        )
    if options.json:
        print(json.dumps(receipt.to_json(), indent=1, ensure_ascii=False))
    else:
        _print_receipt(receipt)
    return 0


def _info(options: Namespace) -> int:
    store = open_store(options.store)
    if options.json:
        document = {key: value for key, value in store.objects.document.items() if key != "manifest"}
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        _print_info(store)
    return 0


def _show(options: Namespace) -> int:
    store = open_store(options.store)
    series = store.series(options.id)
    show = store.schema.time.show
    print(",".join(_csv_cell(name) for name in ("time", *store.channels)))
    for first, last in series.rows(options.start, options.stop):
        columns = [_shown(store, name, first, last) for name in store.channels]
        for time, *cells in zip(store.times(first, last).tolist(), *columns, strict=True):
            print(",".join([show(time), *cells]))
    return 0


def _verify(options: Namespace) -> int:
    from zstore.upkeep.verify import verify

    store = open_store(options.store)
    with _progress() as progress:
        found = verify(store, options.workers, lambda done, total: progress("verify", done, total))
    for fault in found.faults:
        print(fault)
    if found.faults:
        print(f"{len(found.faults)} faults in {options.store} version {store.version}", file=sys.stderr)
        return 1
    print(f"sound: version {store.version}, {found.n_objects:,} objects, {show_size(found.n_bytes)} equal their digests")
    return 0


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ingest": _ingest,
    "info": _info,
    "show": _show,
    "verify": _verify,
}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per phase on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield report


def _print_receipt(receipt: Receipt) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        f"{receipt.store} version {receipt.version}: {receipt.n_stored:,} rows of {receipt.n_series:,} series"
        + (f", {receipt.time_start} to {receipt.time_stop}, {receipt.freq}" if receipt.time_start else "")
    )
    out.print(
        f"rows in {receipt.n_rows_in:,} = stored {receipt.n_stored:,} + quarantined {receipt.n_quarantined:,}"
        f" + duplicates dropped {receipt.n_duplicates:,}"
    )
    if receipt.quarantine:
        out.print(f"rows set aside: {receipt.quarantine}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("channel", "left"), ("stored as", "left"), ("missing", "right"), ("bytes", "right"), ("ratio", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for channel in receipt.channels:
        stored = channel.stored if channel.decimals is None else f"{channel.stored}, {channel.decimals} decimals"
        table.add_row(channel.name, stored, f"{channel.n_missing:,}", f"{channel.n_bytes:,}", f"{channel.ratio:.2f}x")
    out.print(table)
    for note in receipt.notes:
        out.print(f"note: {note}", markup=False)
    source = sum(receipt.sources.values())
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in receipt.seconds.items() if phase != "total")
    out.print(
        f"{show_size(source)} in, {show_size(receipt.n_bytes)} stored, {receipt.seconds['total']:.1f} s ({phases})"
    )


def _print_info(store: Store) -> None:
    out = Console(highlight=False, soft_wrap=True)
    schema, index = store.schema, store.index
    out.print(f"{store.path} version {schema.version}, committed {schema.committed}")
    span = ""
    if schema.n_rows:
        show = schema.time.show
        span = f", {show(int(index.time_start.min()))} to {show(int(index.time_stop.max()))}"
    out.print(f"{schema.n_rows:,} rows of {schema.n_series:,} series{span}, step {schema.time.show_freq()}, {len(index.runs.start):,} runs")
    if schema.n_series:
        sizes = index.row_size
        out.print(f"rows per series: {int(sizes.min()):,} to {int(sizes.max()):,}; ids {index.ids[0]!r} to {index.ids[-1]!r}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("channel", "stored as", "missing", "mean", "std", "min", "max"):
        table.add_column(name, justify="left" if name in ("channel", "stored as") else "right")
    total = store.moments.total()
    for position, channel in enumerate(schema.channels):
        packing = channel.packing
        stored = packing.dtype if packing.decimals is None else f"{packing.dtype}, {packing.decimals} decimals"
        numbers = [total.mean, total.std, total.low, total.high]
        seen = total.count[position] > 0
        table.add_row(
            channel.name,
            stored,
            f"{int(total.n_missing[position]):,}",
            *(f"{values[position]:.6g}" if seen else "" for values in numbers),
        )
    out.print(table)
    if store.statics:
        out.print(f"static attributes: {', '.join(static.name for static in store.statics)}", markup=False)


def _shown(store: Store, name: str, start: int, stop: int) -> list[str]:
    """Values as the source wrote them, as far as the store keeps that: empty where missing."""
    channel = store.channel(name)
    values = store.read(name, start, stop)
    decimals = channel.packing.decimals
    if decimals is not None:
        return ["" if value != value else f"{value:.{decimals}f}" for value in values.astype("float64").tolist()]
    return ["" if value != value else str(value) for value in values]


def _csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


if __name__ == "__main__":
    sys.exit(main())
