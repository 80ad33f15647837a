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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from lightning_app.arguments import without_secrets
from lightning_app.data.batches.mixing import inflation
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.process import Process
from lightning_app.data.rows.fields import DecodedField, FieldPlace
from lightning_app.data.rows.residency import Place, room
from lightning_app.field_trials import FIELD_PLACES, FieldTrial, try_fields
from lightning_app.fit_plan import FitPlan, Measured, overlay, show
from lightning_app.step_trial import StepTrial, try_steps
from zstore import UsageError, ZstoreError, bound_yaml, check_target, free_memory, read_yaml, total_memory, whole_file

_PLACES: tuple[Place, ...] = ("device", "host", "stream")


class _DataHere(WindowDataModule):
    """Data for the GPU that there is, as a trainer would have them; without one for the CPU."""

    @property
    def process(self) -> Process:
        """A single one."""
        return replace(super().process, device=_device())


def data_options(store: str, config: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the data module: those of a configuration, with some replaced."""
    options = {} if config is None else read_yaml(config).get("data") or {}
    return {"lookback": 96, "horizon": 24, **options, **given, "store": store}


def build(options: dict[str, Any], residency: str) -> WindowDataModule:
    """The data module of some arguments, checked as the training command checks them."""
    bound_yaml()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(_DataHere, "data")
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
    return _tried(options, place, place, seconds)


def _measure_fields(data: WindowDataModule, options: dict[str, Any], place: FieldPlace, seconds: float) -> Measured:
    """Try one residency of all fields, beside channels as they are placed."""
    fields = {name: given.to_json() | {"residency": place} for name, given in data.options.fields.items()}
    return _tried({**options, "fields": fields}, data.placement.place, place, seconds)


def _tried(options: dict[str, Any], residency: Place, place: str, seconds: float) -> Measured:
    try:
        with closing(build(options, residency)) as data:
            return _measured(data, place, seconds)
    except UsageError as error:
        return Measured(place, why_not=str(error))


def _measured(data: WindowDataModule, place: str, seconds: float) -> Measured:
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
    if _device().type == "cuda":
        torch.cuda.synchronize()  # batches that were asked for are made now
    elapsed = time.perf_counter() - began
    batch_bytes = sum(part.nbytes for part in batch.values() if isinstance(part, torch.Tensor))
    shared, own = _memory_bytes(data)
    pool, decoded = data.pool, 0.0
    if pool is not None:
        cuts, reader = pool.plan.cuts, pool.reader
        pieces = zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
        decoded = loader.overlap * sum(reader.n_chunks(*piece) for piece in pieces) / reader.n_chunks_stored
    return Measured(
        place,
        memory_bytes=own + 3 * batch_bytes,
        shared_bytes=shared,
        first_batch_s=first_s,
        windows_per_s=n_windows / elapsed,
        decoded=decoded,
        mixing=inflation(data.train_dataloader()),
    )


def _memory_bytes(data: WindowDataModule) -> tuple[int, int]:
    """Bytes of rows that all processes of a machine share, in files, and of those that each has for itself."""
    values, observed = data.source.rows.values, data.source.rows.observed
    sizes: list[tuple[str, int]] = [
        (data.placement.place, values.nbytes + (0 if observed is None else observed.nbytes))
    ]
    for name, reader in data.layout.readers.items():
        place = data.placement.fields[name]
        held = data.source.fields[name].values
        in_memory = held.values.nbytes if isinstance(held, DecodedField) else reader.stored_bytes
        sizes.append((place, in_memory))
    shared = sum(n_bytes for place, n_bytes in sizes if place in ("host", "encoded"))
    return shared, sum(n_bytes for _, n_bytes in sizes) - shared


def _shape_of(data: WindowDataModule) -> str:
    """What rows are, in words."""
    channels = f"{len(data.columns):,} channels"
    return f"steps x {data.view.n_nodes:,} series x {channels}" if data.view.n_nodes else f"rows x {channels}"


def plan(
    options: dict[str, Any], seconds: float = 2.0, fit: dict[str, Any] | None = None, machines: int = 1
) -> FitPlan:
    """Look at the machine and the store, try what fits, choose.

    Parameters
    ----------
    options
        Arguments of :class:`WindowDataModule`.
    seconds
        How long each residency is measured, beside what its first batch takes.
    fit
        Configuration whose model is fitted for as long, with what was chosen; None to measure data alone.
    machines
        Machines like this one to plan for.

    Raises
    ------
    UsageError
        If the options do not fit the store.
    """
    if machines < 1:
        raise UsageError(f"{machines} machines", expected="at least 1", fix="correct --machines")
    data = build(options, "auto")
    here = room(options.get("memory_budget", 0.5), None)
    n_bytes = data.view.n_rows * data.row_bytes
    measured = []
    for place in _PLACES:
        if place == "device" and _device().type == "cpu":
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
    fields = try_fields(data, seconds)
    trials = [
        Measured(place, why_not=why)
        if (why := _no_room(fields, place))
        else _measure_fields(data, options, place, seconds)
        for place in (FIELD_PLACES if fields else ())
    ]
    return FitPlan(
        machine=machine(data.cache),
        rows=f"{data.view.n_rows:,} {_shape_of(data)}, {n_bytes / 1e9:.3f} GB decoded",
        n_windows=len(data.index("train", data.window.stride)),
        measured=tuple(measured),
        chosen=tried[0].place,
        fields=fields,
        measured_fields=tuple(trials),
        steps=_steps(fit or {}, {**options, "residency": tried[0].place}, seconds),
        machines=machines,
    )


def _steps(fit: dict[str, Any], options: dict[str, Any], seconds: float) -> StepTrial | None:
    """Some steps of a fit, if there is a model."""
    return try_steps(options, fit["model"], fit.get("trainer") or {}, seconds) if fit.get("model") else None


def _no_room(fields: Sequence[FieldTrial], place: FieldPlace) -> str:
    """Why not all fields can live somewhere; empty if they can. A stream has no limit."""
    return "; ".join(f"{each.name}: {each.why_not[place]}" for each in fields if place in each.why_not)


def _device() -> torch.device:
    """What a fit would train on."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def machine(cache: Path) -> str:
    """Cores, memory, GPU and disk, in words."""
    parts = [f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else f"{os.cpu_count()} cores"]
    n_nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    parts += [f"{n_nodes} NUMA nodes: bind a process to each, as by numactl"] if n_nodes > 1 else []
    parts.append(f"{total_memory() / 1e9:.1f} GB RAM, {free_memory() / 1e9:.1f} GB free")
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if pages.exists():
        parts.append(f"huge pages: {pages.read_text().partition('[')[2].partition(']')[0]}")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        parts.append(f"{torch.cuda.get_device_name()}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free")
    else:
        parts.append("no GPU")
    folder = cache if cache.exists() else Path.home()
    return "; ".join([*parts, f"{shutil.disk_usage(folder).free / 1e9:.0f} GB of disk free for row files"])


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m lightning_app.tuning STORE``, which `zstore plan` and `zstore bench` run."""
    parser = argparse.ArgumentParser(prog="python -m lightning_app.tuning")
    parser.add_argument("store")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--set", default="{}", help="arguments of the data module, as JSON; - to read them from stdin")
    parser.add_argument("--json", action="store_true")
    parsed = parser.parse_args(arguments)
    given = json.loads(sys.stdin.read() if parsed.set == "-" else parsed.set)
    logging.getLogger("lightning_app").setLevel(logging.WARNING)
    try:
        if parsed.write is not None:
            check_target(parsed.write, "plan")
        options = data_options(parsed.store, parsed.config, given)
        fit = None if parsed.config is None else read_yaml(parsed.config)
        found = plan(options, parsed.seconds, fit, parsed.machines)
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
