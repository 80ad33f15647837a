"""What a fit will cost here, measured for a few seconds: ``zstore plan`` and ``zstore bench``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from lightning_app.arguments import without_secrets
from lightning_app.data.batches.mixing import inflation
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.residency import Place, room
from zstore import UsageError, ZstoreError, bound_yaml, check_target, free_memory, read_yaml, total_memory, whole_file

_PLACES: tuple[Place, ...] = ("device", "host", "stream")


@dataclass(frozen=True)
class Measured:
    """One residency, tried.

    Parameters
    ----------
    place
        Which.
    memory_bytes, shared_bytes
        Of each process for itself, and of all processes of a machine together (the row file).
    first_batch_s
        Seconds to the first batch, from a store that is open.
    windows_per_s
        Windows per second, batch dictionaries as training gets them.
    decoded
        Times each chunk is decoded in an epoch; 0 where rows are decoded once and kept.
    mixing
        See :func:`lightning_app.data.batches.mixing.inflation`.
    why_not
        Why it was not tried, else empty.
    """

    place: str
    memory_bytes: int = 0
    shared_bytes: int = 0
    first_batch_s: float = 0.0
    windows_per_s: float = 0.0
    decoded: float = 0.0
    mixing: float = 1.0
    why_not: str = ""


@dataclass(frozen=True)
class FitPlan:
    """What there is, what was measured, and what to take.

    Parameters
    ----------
    machine
        Cores, memory, GPU and disk, in words.
    rows
        The decoded rows, in words.
    n_windows
        Training windows of an epoch.
    measured
        Every residency.
    chosen
        The one to take.
    """

    machine: str
    rows: str
    n_windows: int
    measured: tuple[Measured, ...]
    chosen: str


def data_options(store: str, config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the data module: those of a configuration, with some replaced."""
    options = {} if config is None else read_yaml(config).get("data") or {}
    return {"lookback": 96, "horizon": 24, **options, **given, "store": store}


def build(options: dict[str, Any], residency: str) -> WindowDataModule:
    """The data module of some arguments, checked as the training command checks them."""
    bound_yaml()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WindowDataModule, "data")
    try:
        found = parser.parse_object({"data": {**options, "residency": residency}})
    except argparse.ArgumentError as error:
        raise UsageError(
            f"data options ({without_secrets(str(error))})", expected="those of fit", fix="correct the configuration"
        ) from error
    data: WindowDataModule = parser.instantiate(found).data
    return data


def measure(options: dict[str, Any], place: Place, seconds: float) -> Measured:
    """Try one residency; what it took is let go of before the next one is tried."""
    try:
        with closing(build(options, place)) as data:
            return _measured(data, place, seconds)
    except UsageError as error:
        return Measured(place, why_not=str(error))


def _measured(data: WindowDataModule, place: Place, seconds: float) -> Measured:
    data.store.index, data.store.moments  # noqa: B018  # opening the store is not what is measured
    began = time.perf_counter()
    loader = data.train_dataloader()
    batches = iter(loader)
    batch = next(batches)
    first_s = time.perf_counter() - began
    n_windows, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        try:
            n_windows += len(next(batches)["time"])
        except StopIteration:
            batches = iter(loader)
    elapsed = time.perf_counter() - began
    values, observed = data.source.rows.values, data.source.rows.observed
    n_bytes = values.nbytes + (0 if observed is None else observed.nbytes)
    batch_bytes = sum(part.nbytes for part in batch.values() if isinstance(part, torch.Tensor))
    pool, decoded = data.pool, 0.0
    if pool is not None:
        cuts = pool.plan.cuts
        pieces = zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
        reader = data.view.reader(data.scaler, data.row_cache)
        decoded = sum(reader.n_chunks(*piece) for piece in pieces) / reader.n_chunks_stored
    return Measured(
        place,
        memory_bytes=(0 if place == "host" else n_bytes) + 3 * batch_bytes,
        shared_bytes=n_bytes if place == "host" else 0,
        first_batch_s=first_s,
        windows_per_s=n_windows / elapsed,
        decoded=decoded,
        mixing=inflation(data.train_dataloader()),
    )


def _shape_of(data: WindowDataModule) -> str:
    """What rows are, in words."""
    channels = f"{len(data.columns):,} channels"
    return f"steps x {data.view.n_nodes:,} series x {channels}" if data.view.n_nodes else f"rows x {channels}"


def plan(options: dict[str, Any], seconds: float = 2.0) -> FitPlan:
    """Look at the machine and the store, try what fits, choose.

    Parameters
    ----------
    options
        Arguments of :class:`WindowDataModule`.
    seconds
        How long each residency is measured, beside what its first batch takes.

    Raises
    ------
    UsageError
        If the options do not fit the store.
    """
    data = build(options, "auto")
    gpu = torch.device("cuda") if torch.cuda.is_available() else None
    here = room(options.get("memory_budget", 0.5), None)
    n_bytes = data.view.n_rows * data.row_bytes
    measured = []
    for place in _PLACES:
        if place == "device" and gpu is None:
            measured.append(Measured(place, why_not="there is no GPU"))
        elif place == "host" and n_bytes > here.limit:
            measured.append(Measured(place, why_not=f"rows of {n_bytes / 1e9:.2f} GB; budget {here}"))
        else:
            measured.append(measure(options, place, seconds))
    tried = [each for each in measured if not each.why_not]
    if not tried:
        raise UsageError(
            "no residency fits", expected="one", fix="; ".join(f"{each.place}: {each.why_not}" for each in measured)
        )
    return FitPlan(
        machine=machine(data.cache),
        rows=f"{data.view.n_rows:,} {_shape_of(data)}, {n_bytes / 1e9:.3f} GB decoded",
        n_windows=len(data.index("train", data.window.stride)),
        measured=tuple(measured),
        chosen=tried[0].place,
    )


def machine(cache: Path) -> str:
    """Cores, memory, GPU and disk, in words."""
    parts = [f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else f"{os.cpu_count()} cores"]
    parts.append(f"{total_memory() / 1e9:.1f} GB RAM, {free_memory() / 1e9:.1f} GB free")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        parts.append(f"{torch.cuda.get_device_name()}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free")
    else:
        parts.append("no GPU")
    folder = cache if cache.exists() else Path.home()
    return "; ".join([*parts, f"{shutil.disk_usage(folder).free / 1e9:.0f} GB of disk free for row files"])


def show(found: FitPlan) -> str:
    """The plan as a table."""
    lines = [found.machine, f"{found.rows}; {found.n_windows:,} training windows", ""]
    head = ("residency", "windows/s", "epoch, s", "RAM a process", "shared", "first batch", "decoded", "mixing")
    rows = [head]
    for each in found.measured:
        if each.why_not:
            continue
        rows.append(
            (
                f"{each.place}{' *' if each.place == found.chosen else ''}",
                f"{each.windows_per_s:,.0f}",
                f"{found.n_windows / each.windows_per_s:,.1f}",
                f"{each.memory_bytes / 1e6:,.0f} MB",
                f"{each.shared_bytes / 1e6:,.0f} MB" if each.shared_bytes else "-",
                f"{each.first_batch_s:.2f} s",
                f"{each.decoded:.2f} x" if each.decoded else "once",
                f"{each.mixing:.1f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += [f"{each.place}: not tried, {each.why_not}" for each in found.measured if each.why_not]
    lines += [
        "",
        "mixing: variance of batch means over that of a true permutation; 1 is perfect, the batch size is none",
    ]
    return "\n".join(lines) + "\n"


def overlay(found: FitPlan, options: dict[str, Any]) -> str:
    """A configuration to lay over another: ``fit --config fit.yaml --config out.yaml``."""
    data = {"residency": found.chosen, "memory_budget": options.get("memory_budget", 0.5)}
    return f"# made by zstore plan on: {found.machine}\n" + yaml.safe_dump({"data": data})


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m lightning_app.tuning STORE``, which `zstore plan` and `zstore bench` run."""
    parser = argparse.ArgumentParser(prog="python -m lightning_app.tuning")
    parser.add_argument("store")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--set", default="{}", help="arguments of the data module, as JSON; - to read them from stdin")
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_args(arguments)
    given = json.loads(sys.stdin.read() if parsed.set == "-" else parsed.set)
    logging.getLogger("lightning_app").setLevel(logging.WARNING)
    try:
        if parsed.write is not None:
            check_target(parsed.write, "plan")
        options = data_options(parsed.store, parsed.config, given)
        found = plan(options, parsed.seconds)
    except FileNotFoundError as error:
        print(f"zstore: no configuration {error.filename}", file=sys.stderr)
        return 2
    except ZstoreError as error:
        print(f"zstore: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(found), indent=1) if parsed.json else show(found), end="\n" if parsed.json else "")
    if parsed.write is not None:
        with whole_file(parsed.write, "plan") as path:
            path.write_text(overlay(found, options), encoding="utf-8")
        print(f"wrote {parsed.write}: python -m lightning_app fit --config {parsed.config} --config {parsed.write}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
