"""Suite systems: an epoch of the shipped models of muscles, hearts and robots, beside what groups read files with.

Both sides train the same modules with the same optimiser on batches of the same windows, whose numbers are compared
first. A start is first where there is neither a store nor another file made of the raw ones.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_app.start import shorten_spins

from .harness import output_of, proportional, setting
from .system_data import SYSTEMS, System

OURS = ("this", 0)
_ROUNDS = 3
Job = tuple[str, int]
Runs = dict[Job, list[dict[str, Any]]]


def run(folder: Path, data: Path | None, n: int, names: list[str] | None = None) -> None:
    """Prints a table for each system; figures go to ``systems-NAME.json``.

    Parameters
    ----------
    folder
        For data and stores.
    data
        Folder of real data sets; None for others like them.
    n
        Rounds; three at most.
    names
        Systems; None for all.
    """
    for name in names or SYSTEMS:
        found = measured(name, folder, data, min(n, _ROUNDS))
        is_real = data is not None and SYSTEMS[name].has_real
        print(report(name, SYSTEMS[name], found, is_real))
        runs = [{"name": job[0], "workers": job[1], "runs": each} for job, each in found.items()]
        document = {"setting": setting(), "real": is_real, "runs": runs}
        file = folder / f"systems-{name.replace(', ', '-').replace(' ', '-')}.json"
        file.write_text(json.dumps(document, indent=1) + "\n")


def measured(name: str, folder: Path, data: Path | None, n: int) -> Runs:
    """All readers of a system in turn, `n` times, each start in a process of its own."""
    shorten_spins()  # of both sides: else threads of torch that wait make a step several times as long, by chance
    system = SYSTEMS[name]
    own = folder / ("systems" if data is None else "systems-real")
    kept = own / name.replace(", ", "-").replace(" ", "-")
    kept.mkdir(parents=True, exist_ok=True)
    raw = system.raw(own, data)
    start = [sys.executable, "-W", "ignore", "-m"]
    ours = [*start, "tests.benchmarks.our_systems", name, str(raw), str(kept)]
    most = [] if system.most is None else ["--most", str(system.most)]
    output_of([*ours, "--start", "first"])
    facts, _ = output_of([*ours, "--start", "facts"])
    compared = ["--start", "check", "--batches", *map(str, facts["batches"])]
    packages = next((folder / "peers" / "lib").glob("python*/site-packages"), None)
    also = [] if packages is None else ["--packages", str(packages)]
    peers = {
        peer: [*start, "tests.benchmarks.system_peers", name, peer, str(raw), str(kept), *also] for peer in system.peers
    }
    found: Runs = {OURS: []}
    for _ in range(n):
        found[OURS].append(_both(ours, ours, most))
        print(f"{name}, {OURS}: {found[OURS][-1]}", file=sys.stderr, flush=True)
        for peer, command in peers.items():
            first, _ = output_of([*command, "--start", "first"])
            if "missing" not in first and (peer, 0) not in found:
                print(output_of([*command, *compared])[0], file=sys.stderr, flush=True)
            for workers in system.peers[peer]:
                later = [*command, "--workers", str(workers)]
                result = first if "missing" in first else _second(later, most) | {"first_start_s": first["first_s"]}
                found.setdefault((peer, workers), []).append(result)
                print(f"{name}, {peer}, {workers} workers: {result}", file=sys.stderr, flush=True)
    return found


def _both(first: list[str], second: list[str], most: list[str]) -> dict[str, Any]:
    started, _ = output_of([*first, "--start", "first"])
    later = {"first_start_s": started["first_s"], "ingest_s": started["ingest_s"]}
    return _second(second, most) | later


def _second(command: list[str], most: list[str]) -> dict[str, Any]:
    """A second start: the loader alone, then an epoch; memory counts shared pages in shares."""
    found, peak_mib = output_of([*command, *most], every=0.2, held=proportional)
    return {**found, "peak_mib": peak_mib}


def report(name: str, system: System, found: Runs, real: bool) -> str:
    """A Markdown table: medians, and the ratios to this project's of each round."""
    ours = found[OURS][0]
    batches = "an epoch" if system.most is None else f"{ours['n_batches']:.0f} batches"
    size = system.configuration()["data"]["batch_size"]
    lines = [
        f"### systems: {name} ({system.config}, {'real' if real else 'simulated'} data), {batches} of "
        f"{ours['n_batches'] * size:,.0f} windows, batch {size}\n",
        "| | epoch, s | min–max | waiting | a step, ms | loader alone, windows/s | first start, s | second start, s "
        "| peak MiB | epoch / this | loader / this |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for job, runs in found.items():
        label = job[0] if job == OURS else f"{job[0]}, {job[1]} workers"
        if "missing" in runs[0]:
            lines.append(f"| {label} | {runs[0]['missing']} |")
            continue
        median = _medians(runs)
        seconds = [each["epoch_s"] for each in runs]
        ratios = [f"{_ratio(found, job, key):.2f}" for key in ("epoch_s", "samples_per_s")]
        cells = [f"{median('epoch_s'):.2f}", f"{min(seconds):.2f}–{max(seconds):.2f}", f"{median('wait_share'):.1%}"]
        cells += [f"{median('step_ms'):.1f}", f"{median('samples_per_s'):,.0f}", f"{median('first_start_s'):.2f}"]
        cells += [f"{median('first_s'):.2f}", f"{median('peak_mib'):,.0f}", *ratios]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _medians(runs: list[dict[str, Any]]) -> Callable[[str], float]:
    return lambda key: statistics.median(each[key] for each in runs)


def _ratio(runs: Runs, job: Job, key: str) -> float:
    """Median over rounds of this project's figure over another's."""
    pairs = zip(runs[OURS], runs[job], strict=True)
    found: float = statistics.median(ours[key] / other[key] for ours, other in pairs)
    return found
