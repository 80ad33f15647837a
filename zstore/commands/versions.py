"""Commands about the versions of a store."""

from __future__ import annotations

from dataclasses import asdict

from jsonargparse import ArgumentParser, Namespace

from zstore.amounts import show_size
from zstore.flags import Command, Flags, open_named, said, say, storage_of
from zstore.manual import parameters
from zstore.printing import show_log
from zstore.progress import shown_progress
from zstore.text import counted, shown_json
from zstore.upkeep.compact import compact
from zstore.upkeep.history import gc, log, rollback
from zstore.writing.ingest import ingest


def _log_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.own("--json", action="store_true", help="print JSON, receipts included")


def _log(options: Namespace) -> int:
    entries = log(options.store, storage_of(options))
    if options.json:
        print(shown_json([asdict(entry) for entry in entries]))
    else:
        print(show_log(entries), end="")
    return 0


def _rollback_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.argument(rollback, "version", "version", "VERSION", type=int)


def _rollback(options: Namespace) -> int:
    store = rollback(options.store, options.version, storage_of(options))
    say(
        options,
        f"{options.store} version {store.version}: {counted(store.n_rows, 'row')}, as in version {options.version}",
    )
    return 0


def _compact_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.of(ingest, workers="N", scheduler="ADDR", scratch="DIR")


def _compact(options: Namespace) -> int:
    before = open_named(options)
    with shown_progress(options.quiet) as progress:
        store = compact(options.store, **said(compact, options), progress=progress)
    if store.version == before.version:
        say(options, f"{options.store} version {store.version} is in order already")
    else:
        rows = counted(store.n_rows, "row")
        say(options, f"{options.store} version {store.version}: {rows} in order; gc frees what older ones need")
    return 0


def _gc_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.of(gc, keep="N")


def _gc(options: Namespace) -> int:
    arguments = said(gc, options)
    n_objects, n_bytes = gc(options.store, **arguments)
    keep = arguments.get("keep", parameters(gc)["keep"].default)
    say(options, f"removed {n_objects:,} objects, {show_size(n_bytes)}; kept the newest {keep}")
    return 0


COMMANDS = (
    Command("log", "list the versions of a store", _log_flags, _log),
    Command("rollback", "go back to an older version, as a new one", _rollback_flags, _rollback, quiet=True),
    Command("compact", "put the rows of every series in one place again", _compact_flags, _compact, quiet=True),
    Command("gc", "remove what only old versions need", _gc_flags, _gc, quiet=True),
)
