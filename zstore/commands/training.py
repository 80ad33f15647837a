"""Commands around training: what a fit would cost, the rows that it keeps, and public data to try it with."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from zstore.amounts import show_size
from zstore.errors import UsageError
from zstore.flags import Command, Flags, as_text, said, say, storage_of
from zstore.manual import parameters
from zstore.printing import show_cache, show_datasets
from zstore.progress import shown_progress
from zstore.published.catalog import DATASETS
from zstore.published.fetching import fetch
from zstore.reading.eviction import Cache, cache_entries, clear_cache, make_room, verify_cache
from zstore.reading.objectfiles import object_files
from zstore.reading.store import open_store
from zstore.text import shown_json

_MOST_SHOWN = 8  # paths, one a line


@dataclass(frozen=True)
class Trial:
    """What a fit is tried with.

    Parameters
    ----------
    config
        YAML file of the fit.
    write
        File to save what was chosen in, as a further ``--config``; None to save nothing.
    seconds
        How long each residency is measured.
    machines
        Machines like this one, whose times are told too.
    """

    config: str
    write: str | None = None
    seconds: float = 2.0
    machines: int = 1


@dataclass(frozen=True)
class Bench:
    """Windows whose batches are measured.

    Parameters
    ----------
    lookback
        Input rows of a window.
    horizon
        Target rows of a window.
    stride
        Rows between the starts of two windows.
    batch_size
        Windows of a batch.
    memory_budget
        Of memory, that rows may take: a share of what is free, or a size such as ``2GiB``.
    seconds
        How long each residency is measured.
    """

    lookback: int = 96
    horizon: int = 24
    stride: int = 1
    batch_size: int = 256
    memory_budget: str = "0.5"
    seconds: float = 2.0


def _plan_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.own("--config", type=as_text, required=True, metavar="FILE", help=parameters(Trial)["config"].help)
    flags.of(Trial, write="FILE", seconds="S", machines="N")
    flags.own("--json", action="store_true", help="print JSON")


def _plan(options: Namespace) -> int:
    trial = Trial(options.config, **said(Trial, options))
    words = ["--config", trial.config, *(["--write", trial.write] if trial.write else [])]
    words += ["--machines", str(trial.machines)]
    return _tune(options, words, {}, trial.seconds)


def _bench_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.store()
    flags.of(Bench, lookback="N", horizon="N", stride="N", batch_size="N", memory_budget="SIZE", seconds="S")
    flags.own("--json", action="store_true", help="print JSON")


def _bench(options: Namespace) -> int:
    bench = Bench(**said(Bench, options))
    given = asdict(bench)
    return _tune(options, [], given, given.pop("seconds"))


def _tune(options: Namespace, words: list[str], given: dict[str, Any], seconds: float) -> int:
    """Run the measuring command of the training package, in a process of its own: this one never imports torch."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("pytorch_lightning") is None:
        raise UsageError(
            "torch and pytorch-lightning are not installed",
            expected="the training package, which measures",
            fix="pip install 'zstore[train]'",
        )
    open_store(options.store, storage_options=storage_of(options))  # says so before seconds of imports
    given |= {"storage_options": storage_of(options)} if storage_of(options) else {}
    command = [sys.executable, "-m", "lightning_app.tuning", options.store, "--seconds", str(seconds), *words]
    command += ["--set", "-", *(["--json"] if options.json else [])]
    # Through a pipe, since everybody on the machine can read command lines, and storage options may hold secrets.
    done = subprocess.run(command, input=json.dumps(given), text=True, check=False)  # noqa: S603  # ours
    return done.returncode


def _cache_flags(parser: ArgumentParser) -> None:
    flags, actions = Flags(parser), Literal["list", "clear", "verify"] | None
    what = "list them; clear: remove them; verify: compare each with its digest, and remove what is damaged"
    flags.own("action", nargs="?", type=actions, metavar="list|clear|verify", help=what)
    flags.own("--folder", type=as_text, metavar="DIR", help="default: $ZSTORE_CACHE, or ~/.cache/zstore")
    flags.own("--days", type=float, default=0.0, metavar="N", help="clear: only what was not used for N days")
    size = "clear: only what was used longest ago, until the rest fits in a size such as 50GiB, or a share of the disk"
    flags.own("--limit", type=as_text, metavar="SIZE", help=size)
    flags.own("--json", action="store_true", help="list: print JSON")


def _cache(options: Namespace) -> int:
    if options.action is None:
        return CACHE.print_help()
    cache = Cache.of(options.folder)
    folder = cache.folder
    if options.action == "clear":
        if options.limit is None:
            n_files, n_bytes = clear_cache(folder, options.days * 86_400)
        else:
            n_files, n_bytes = make_room(Cache(folder, options.limit, options.days or math.inf), 0)
        print(f"removed {n_files:,} files, {show_size(n_bytes)}, from {folder}")
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
    if options.days or options.limit is not None:
        return
    sizes = [row.n_bytes for row in cache_entries(folder)] + [each.n_bytes for each in object_files(folder)]
    if sizes:
        print(f"left {len(sizes):,} files, {show_size(sum(sizes))}, that a process has open")


def _verify_cache(folder: Path) -> int:
    n_files, damaged = verify_cache(folder)
    for entry in damaged:
        origin = f"{entry.store} version {entry.version}" if entry.version else entry.store
        print(f"{entry.path}: differs from its digest, and was removed ({origin})")
    if damaged:
        print(
            f"{len(damaged):,} of {n_files:,} files were damaged. They are built or fetched anew when they are next "
            "needed. Start runs that have them open again, and look at the disk"
        )
        return 1
    print(f"{n_files:,} files in {folder}, all as they were written")
    return 0


def _fetch_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.argument(fetch, "name", "name", "NAME", behind="; default: list all", nargs="?", type=as_text)
    flags.one(fetch, "folder", "DIR", flag="--to")
    flags.of(fetch, mirror="DIR|URL")


def _sizes(paths: list[Path]) -> list[tuple[str, str]]:
    """Paths and their sizes; many together as the folder they share."""
    found = [sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file()) for path in paths]
    if len(paths) > _MOST_SHOWN:
        together = f"{len(paths):,} files, {show_size(sum(found))}"
        return [(os.path.commonpath(paths), together)]
    return [(str(path), show_size(size)) for path, size in zip(paths, found, strict=True)]


def _fetch(options: Namespace) -> int:
    if options.name is None:
        print(show_datasets())
        return 0
    folder = options.to or parameters(fetch)["folder"].default
    with shown_progress(options.quiet) as progress:
        paths = fetch(options.name, folder, options.mirror, progress)
    dataset = DATASETS[options.name]
    n_published = len(dataset.files)
    lines = [f"{path}: {size}, as published" for path, size in _sizes(paths[:n_published])]
    lines += [f"{path}: {size}, written from these" for path, size in _sizes(paths[n_published:])]
    lines += [f"licence {dataset.licence}; {dataset.source}", f"next: {dataset.ingest.format(folder=folder)}"]
    say(options, "\n".join(lines))
    return 0


CACHE = Command(
    "cache", "list, clear or verify the decoded rows that training keeps", _cache_flags, _cache, stores=False
)
COMMANDS = (
    Command("plan", "try what a fit will cost here, and choose", _plan_flags, _plan),
    Command("bench", "measure windows per second of each residency here", _bench_flags, _bench),
    CACHE,
    Command("fetch", "download a public data set, or list them", _fetch_flags, _fetch, quiet=True, stores=False),
)
