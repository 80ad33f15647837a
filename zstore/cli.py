"""The `zstore` command: flags in, plain words out. Everything it does is a public function elsewhere."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_parsing_settings
from rich.console import Console

from zstore.amounts import show_size
from zstore.datasets import DATASETS, fetch
from zstore.errors import UsageError, ZstoreError
from zstore.flags import make_parser
from zstore.format.commit import is_store
from zstore.inspection.look import inspect as inspect_file
from zstore.look.report import to_html
from zstore.output import end_quietly
from zstore.printing import (
    csv_cell,
    print_info,
    show_cache,
    show_datasets,
    show_diagnosis,
    show_log,
    show_plan,
    show_receipt,
    shown_values,
)
from zstore.progress import shown_progress
from zstore.reading.columns import free_name
from zstore.reading.eviction import Cache, cache_entries, clear_cache, make_room, verify_cache
from zstore.reading.store import Store, open_store
from zstore.sizes import parse_size
from zstore.storage.urls import is_remote, open_storage
from zstore.text import MOST_MESSAGE, HarmlessFormatter, shown, shown_json, shown_lines
from zstore.upkeep.compact import compact
from zstore.upkeep.compare import compare_sources
from zstore.upkeep.doctor import KINDS, examine
from zstore.upkeep.export import export
from zstore.upkeep.history import gc, log, rollback
from zstore.upkeep.verify import verify
from zstore.writing.append import append
from zstore.writing.ingest import ingest
from zstore.writing.planner import plan_ingest
from zstore.writing.receipt import Receipt
from zstore.yamlfiles import check_configs

logger = logging.getLogger("zstore.cli")

_AS_GIVEN: tuple[str, ...] = ("time_format", "time_unit", "freq", "start", "layout", "id_from_path")
_AS_GIVEN += (
    "allow_new_channels",
    "value_name",
    "delimiter",
    "decimal",
    "thousands",
    "encoding",
    "dtype",
    "codec",
    "fill_gaps",
    "skip_lines",
    "timezone",
    "comment",
    "units_row",
    "skip_below_header",
    "no_header",
)
_LISTS = ("time", "channels", "leave_out", "categories", "missing", "percent", "names", "widths")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    0 if it did what was asked, 1 if that failed, 2 if the arguments cannot be meant, 141 if nobody reads its output.
    """
    return end_quietly(partial(_main, arguments))


def _main(arguments: Sequence[str] | None) -> int:
    words = _joined(list(sys.argv[1:] if arguments is None else arguments))
    try:
        check_configs(words)
        parsed = make_parser().parse_args(words)
    except UsageError as error:
        if "--debug" in words:
            raise
        print(f"zstore: {error}", file=sys.stderr)
        return error.exit_code
    command = parsed.subcommand
    options = parsed[command]
    level = logging.DEBUG if options.debug else logging.WARNING
    stream = logging.StreamHandler()
    stream.setLevel(level)  # a log file may take more
    stream.setFormatter(HarmlessFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[stream])
    try:
        code = _COMMANDS[command](options)
        sys.stdout.flush()  # so that a full disk is told of as well
        return code
    except ZstoreError as error:
        if options.debug:
            raise
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"zstore {command}: {error}")
        return error.exit_code
    except OSError as error:
        if options.debug or isinstance(error, BrokenPipeError):
            raise
        print(
            f"zstore {command}: {shown_lines(error)}. Fix: check the disk or the network, and run again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"zstore {command}: interrupted; nothing was committed", file=sys.stderr)
        return 130


def parse_share(text: str) -> float:
    """Rows as an int from ``20``, or a share of all rows as a float from ``0.01`` or ``1%``.

    Raises
    ------
    UsageError
        If it is neither.
    """
    try:
        written = str(text).strip()
        if written.isdecimal():
            return int(written)
        share = float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)
        if not 0 <= share <= 1:
            raise ValueError(text)
        return share
    except ValueError:
        raise UsageError(
            f"--max-bad-rows {text!r}", expected="a number of rows, or a share such as 1% or 0.01"
        ) from None


def _joined(arguments: list[str]) -> list[str]:
    """The arguments, with a value of --missing that begins with a minus (``-999.00,``) told from a flag."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--missing" and re.match(r"-(?!-[a-z])", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


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
        "max_bad_rows": parse_share(options.max_bad_rows),
        "on_duplicate": options.on_duplicate,
        "on_empty_file": options.on_empty_file,
        "memory_limit": parse_size(options.memory_limit) if options.memory_limit else None,
        "blocksize": parse_size(options.blocksize) if options.blocksize else None,
        "workers": options.workers,
        "scheduler": options.scheduler,
        "scratch": options.scratch,
        "storage_options": _storage(options),
    }
    made: Receipt | None
    if options.dry_run:
        return _plan(options, sources, store, table)
    with _logged_to(options.log_file), shown_progress(options.quiet) as progress:
        if options.append and is_store(open_storage(store, _storage(options))):
            made = append(sources, store, force=options.force, given=table, progress=progress, **run)
        else:
            # A first --append makes the store, so that one command serves every day.
            made = ingest(sources, store, progress=progress, overwrite=options.overwrite, **table, **run)
        text = show_receipt(made) if made else f"nothing new: {store} has the rows of all these files already\n"
        logger.info("%s", text)
    if options.json:
        print(shown_json(made.to_json() if made else None))
    else:
        _say(options, text.rstrip("\n"))
    return 0


def _plan(options: Namespace, sources: list[str], store: str, table: dict[str, Any]) -> int:
    planned = plan_ingest(
        sources,
        storage_options=_storage(options),
        blocksize=parse_size(options.blocksize) if options.blocksize else None,
        memory_limit=parse_size(options.memory_limit) if options.memory_limit else None,
        workers=options.workers,
        remote_scratch=is_remote(options.scratch or (store if options.scheduler else "")),
        static=options.static,
        on_empty_file=options.on_empty_file,
        **table,
    )
    if options.json:
        print(shown_json(planned.to_json()))
    else:
        print(show_plan(planned, store), end="")
    return 0


def _table(options: Namespace) -> dict[str, Any]:
    """How the files are read, as far as the user says so."""
    found: dict[str, Any] = {name: options[name] for name in _AS_GIVEN}
    found |= {name: _names(options[name]) for name in _LISTS}
    ids = _names(options.id)
    found["id"] = ids[0] if ids and len(ids) == 1 else ids
    found |= {name: _pairs(options[name], f"--{name}") for name in ("rename", "units")}
    usual = inspect.signature(ingest).parameters
    grid = {name: options[name] for name in ("chunk_rows", "shard_rows") if options[name] is not None}
    return {name: value for name, value in found.items() if value and value != usual[name].default} | grid


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


def _storage(options: Namespace) -> dict[str, str]:
    """Options of an object storage. They may hold secrets, so no message shows what is given."""
    given = options.storage_options
    try:
        pairs = _pairs(given, "--storage-options")
    except (UsageError, AttributeError):  # the latter where it is neither a text nor a mapping
        pairs = None
    if not isinstance(pairs, dict) or not all(isinstance(text, str) for pair in pairs.items() for text in pair):
        raise UsageError(
            "--storage-options (not shown, for they may hold secrets)",
            expected="KEY=VALUE,KEY=VALUE, or a mapping of texts such as {region: eu-west-1}",
            fix="check the commas and quotes, or set the usual environment variables, such as AWS_ACCESS_KEY_ID",
        )
    return pairs


def _open(options: Namespace) -> Store:
    return open_store(options.store, options.get("version"), storage_options=_storage(options))


def _inspect(options: Namespace) -> int:
    look = inspect_file(options.file, storage_options=_storage(options))
    print(shown_json(asdict(look)) if options.json else shown_lines(look))
    return 0


def _info(options: Namespace) -> int:
    store = _open(options)
    if options.json:
        document = {key: value for key, value in store.objects.document.items() if key != "manifest"}
        print(shown_json(document))
    else:
        print_info(store)
    return 0


def _show(options: Namespace) -> int:
    store = _open(options)
    series = store.series(options.id)
    show = store.schema.time.show
    print(",".join(csv_cell(shown(name, None)) for name in (free_name("time", store.channels), *store.channels)))
    first, last = series.rows(options.start, options.stop)
    columns = [shown_values(store, name, first, last) for name in store.channels]
    for time, *cells in zip(store.times(first, last).tolist(), *columns, strict=True):
        print(",".join([show(time), *cells]))
    return 0


def _verify(options: Namespace) -> int:
    store = _open(options)
    with shown_progress(options.quiet) as progress:
        found = verify(store, options.workers, lambda done, total: progress("verify", done, total, "objects"))
    for fault in found.faults:
        print(shown(fault, MOST_MESSAGE))
    if found.faults:
        print(f"{len(found.faults)} faults in {shown(options.store)} version {store.version}", file=sys.stderr)
        return 1
    if options.source:
        return _verify_source(store, options)
    size = show_size(found.n_bytes)
    _say(options, f"sound: version {store.version}, {found.n_objects:,} objects, {size} equal their digests")
    return 0


def _doctor(options: Namespace) -> int:
    store, wanted = _open(options), _names(options.fail_on) or []
    for kind in wanted:
        if kind not in (*KINDS, "any"):
            raise UsageError(f"--fail-on {kind}", expected=f"any, or some of {', '.join(KINDS)}")
    with shown_progress(options.quiet) as progress:
        found = examine(store, lambda done, total: progress("doctor", done, total, "rows"), _storage(options))
    if options.html:
        Path(options.html).write_text(to_html(found), encoding="utf-8")
    if options.json:
        print(shown_json(found.to_json()))
    else:
        _say(options, show_diagnosis(found) + (f"\nwrote {options.html}" if options.html else ""))
    return int(any(kind in found.counts or (kind == "any" and found.counts) for kind in wanted))


def _verify_source(store: Store, options: Namespace) -> int:
    with shown_progress(options.quiet) as progress:
        found = compare_sources(
            store, options.source, lambda done, total: progress("compare", done, total, "blocks"), _storage(options)
        )
    for fault in found.faults:
        print(shown(fault, MOST_MESSAGE))
    n_wrong = found.n_different + found.n_unseen
    text = (
        f"{found.n_rows:,} rows of the sources compared: {found.n_different:,} differ, {found.n_unseen:,} rows of the "
        f"store are in none, {found.n_bad:,} records cannot be stored"
    )
    if found.n_inexact:
        text += f"; {found.n_inexact:,} cells have more digits than the store keeps, and those were not compared"
    if n_wrong:
        print(text)
    else:
        _say(options, text)
    return 1 if n_wrong else 0


def _export(options: Namespace) -> int:
    store = _open(options)
    with shown_progress(options.quiet) as progress:
        n_rows = export(
            store, Path(options.out), _names(options.ids), lambda done, total: progress("export", done, total, "rows")
        )
    _say(options, f"wrote {n_rows:,} rows of {options.store} version {store.version}: {options.out}")
    return 0


def _log(options: Namespace) -> int:
    entries = log(options.store, _storage(options))
    if options.json:
        print(shown_json([asdict(entry) for entry in entries]))
    else:
        print(show_log(entries), end="")
    return 0


def _rollback(options: Namespace) -> int:
    store = rollback(options.store, options.version, _storage(options))
    _say(options, f"{options.store} version {store.version}: {store.n_rows:,} rows, as in version {options.version}")
    return 0


def _compact(options: Namespace) -> int:
    before = _open(options)
    with shown_progress(options.quiet) as progress:
        store = compact(
            options.store,
            storage_options=_storage(options),
            scratch=options.scratch,
            workers=options.workers,
            scheduler=options.scheduler,
            progress=progress,
        )
    if store.version == before.version:
        _say(options, f"{options.store} version {store.version} is in order already")
    else:
        _say(
            options,
            f"{options.store} version {store.version}: {store.n_rows:,} rows in order; gc frees what older ones need",
        )
    return 0


def _gc(options: Namespace) -> int:
    n_objects, n_bytes = gc(options.store, options.keep, _storage(options))
    _say(options, f"removed {n_objects:,} objects, {show_size(n_bytes)}; kept the newest {options.keep}")
    return 0


def _cache(options: Namespace) -> int:
    if options.action is None:
        return _help("cache")
    cache = Cache.of(options.folder)
    folder = cache.folder
    if options.action == "clear":
        if options.limit is None:
            n_files, n_bytes = clear_cache(folder, options.days * 86_400)
        else:
            n_files, n_bytes = make_room(Cache(folder, options.limit, options.days or math.inf), 0)
        print(f"removed {n_files:,} row files, {show_size(n_bytes)}, from {folder}")
        _say_what_stays(options, folder)
        return 0
    if options.action == "verify":
        return _verify_cache(folder)
    if options.json:
        print(shown_json([asdict(entry) for entry in cache_entries(folder)]))
    else:
        print(show_cache(cache_entries(folder), cache), end="")
    return 0


def _say_what_stays(options: Namespace, folder: Path) -> None:
    """Say what a process has open, where everything was to go."""
    entries = [] if options.days or options.limit is not None else cache_entries(folder)
    if entries:
        size = show_size(sum(entry.n_bytes for entry in entries))
        print(f"left {len(entries):,} row files, {size}, that a process has open")


def _verify_cache(folder: Path) -> int:
    n_files, damaged = verify_cache(folder)
    for entry in damaged:
        print(f"{entry.path}: differs from its digest, and was removed ({entry.store} version {entry.version})")
    if damaged:
        print(
            f"{len(damaged):,} of {n_files:,} row files were damaged. They are built anew when they are next needed. "
            "Start runs that have them open again, and look at the disk"
        )
        return 1
    print(f"{n_files:,} row files in {folder}, all as they were written")
    return 0


def _help(command: str) -> int:
    """Print the help of a command."""
    try:
        make_parser().parse_args([command, "--help"])
    except SystemExit as end:
        return int(end.code or 0)
    return 1


def _fit_plan(options: Namespace) -> int:
    words = ["--config", options.config, *(["--write", options.write] if options.write else [])]
    return _tune(options, words, {})


def _bench(options: Namespace) -> int:
    names = ("lookback", "horizon", "stride", "batch_size", "memory_budget")
    return _tune(options, [], {name: getattr(options, name) for name in names})


def _tune(options: Namespace, words: list[str], given: dict[str, Any]) -> int:
    """Run the measuring command of the training package, in a process of its own: this one never imports torch."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("pytorch_lightning") is None:
        raise UsageError(
            "torch and pytorch-lightning are not installed",
            expected="the training package, which measures",
            fix="pip install 'zstore[train]'",
        )
    open_store(options.store, storage_options=_storage(options))  # says so if there is none, before seconds of imports
    given |= {"storage_options": _storage(options)} if _storage(options) else {}
    command = [sys.executable, "-m", "lightning_app.tuning", options.store, "--seconds", str(options.seconds), *words]
    command += ["--set", "-", *(["--json"] if options.json else [])]
    # Through a pipe, since everybody on the machine can read command lines, and storage options may hold secrets.
    done = subprocess.run(command, input=json.dumps(given), text=True, check=False)  # noqa: S603  # ours
    return done.returncode


def _fetch(options: Namespace) -> int:
    if options.name is None:
        print(show_datasets())
        return 0
    mirror = options.mirror or os.environ.get("ZSTORE_MIRROR")
    with shown_progress(options.quiet) as progress:
        paths = fetch(options.name, options.to, mirror, progress)
    dataset = DATASETS[options.name]
    lines = [f"{path}: {show_size(path.stat().st_size)}, as published" for path in paths]
    lines += [f"licence {dataset.licence}; {dataset.source}", f"next: {dataset.ingest.format(folder=options.to)}"]
    _say(options, "\n".join(lines))
    return 0


def _completion(options: Namespace) -> int:
    set_parsing_settings(add_print_completion_argument=True)  # a flag of jsonargparse that prints and exits
    try:
        make_parser().parse_args([f"--print_completion=shtab-{options.shell}"])
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        set_parsing_settings(add_print_completion_argument=False)
    return 1


def _say(options: Namespace, text: str) -> None:
    """Print what went well, unless it is not wanted."""
    if not options.quiet:
        print(shown_lines(text))


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ingest": _ingest,
    "inspect": _inspect,
    "info": _info,
    "show": _show,
    "verify": _verify,
    "doctor": _doctor,
    "export": _export,
    "log": _log,
    "rollback": _rollback,
    "compact": _compact,
    "gc": _gc,
    "plan": _fit_plan,
    "bench": _bench,
    "cache": _cache,
    "fetch": _fetch,
    "completion": _completion,
}


if __name__ == "__main__":
    sys.exit(main())
