"""What was measured of residencies, and which to take: as tables, and as a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lightning_app.field_trials import FieldTrial, show_fields
from lightning_app.step_trial import StepTrial


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
    fields
        Fields of batches, each alone.
    measured_fields
        Every residency of all these fields together.
    steps
        Some steps of the fit with what was chosen; None without a model to fit.
    machines
        Machines like this one that are planned for.
    """

    machine: str
    rows: str
    n_windows: int
    measured: tuple[Measured, ...]
    chosen: str
    fields: tuple[FieldTrial, ...] = ()
    measured_fields: tuple[Measured, ...] = ()
    steps: StepTrial | None = None
    machines: int = 1


def show(found: FitPlan) -> str:
    """The plan as tables."""
    lines = [found.machine, f"{found.rows}; {found.n_windows:,} training windows", ""]
    lines += _table("residency", found.measured, found.n_windows, {found.chosen})
    if found.fields:
        lines += ["", *show_fields(found.fields), ""]
        lines += _table("fields", found.measured_fields, found.n_windows, {each.chosen for each in found.fields})
    lines += [
        "",
        "mixing: variance of batch means over that of a true permutation; 1 is perfect, the batch size is none",
    ]
    if found.steps is not None:
        lines += [f"a fit with what is marked: {found.steps.advice}"]
    lines += _on_machines(found) if found.machines > 1 else []
    return "\n".join(lines) + "\n"


def _on_machines(found: FitPlan) -> list[str]:
    """What a process on each of some machines would do, from what one did here. The network is not in it."""
    n, (one,) = found.machines, (each for each in found.measured if each.place == found.chosen)
    epoch = found.n_windows / one.windows_per_s / n
    lines = [
        "",
        f"{n:,} machines like this one, a process on each: batches of {n * one.windows_per_s:,.0f} windows/s, "
        f"an epoch of them in {epoch:,.1f} s",
        f"on each of them: {(one.memory_bytes + one.shared_bytes) / 1e6:,.0f} MB for rows and batches, the first batch "
        f"after {one.first_batch_s:.2f} s from a store on its own disk",
    ]
    if found.steps is not None and found.steps.times.total_s:
        times = found.steps.times
        lines += [f"steps of {1000 * times.total_s / times.n_steps:,.1f} ms each, and what exchanging gradients takes"]
    return lines


def _table(what: str, trials: Sequence[Measured], n_windows: int, chosen: set[str]) -> list[str]:
    """A line for each residency that was tried, and why the others were not."""
    head = (what, "windows/s", "epoch, s", "RAM a process", "shared", "first batch", "decoded", "mixing")
    rows = [head]
    for each in trials:
        if each.why_not:
            continue
        rows.append(
            (
                f"{each.place}{' *' if each.place in chosen else ''}",
                f"{each.windows_per_s:,.0f}",
                f"{n_windows / each.windows_per_s:,.1f}",
                f"{each.memory_bytes / 1e6:,.0f} MB",
                f"{each.shared_bytes / 1e6:,.0f} MB" if each.shared_bytes else "-",
                f"{each.first_batch_s:.2f} s",
                f"{each.decoded:.2f} x" if each.decoded else "once",
                f"{each.mixing:.1f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return lines + [f"{each.place}: not tried, {each.why_not}" for each in trials if each.why_not]


def overlay(found: FitPlan, options: dict[str, Any]) -> str:
    """A configuration to lay over another: ``fit --config fit.yaml --config out.yaml``."""
    data = {"residency": found.chosen, "memory_budget": options.get("memory_budget", 0.5)}
    if found.fields:
        data["fields"] = {each.name: each.options for each in found.fields}
    return f"# made by zstore plan on: {found.machine}\n" + yaml.safe_dump({"data": data})
