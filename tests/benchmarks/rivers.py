"""Suite rivers: an LSTM on daily flow from raw files, beside NeuralHydrology's own training of its CudaLSTM.

Both sides have the same gauges, inputs, days, windows, sizes, loss (NSE), optimiser and forget bias, and one thread; a
batch of windows is compared first. Each start is a process of its own, from the first import to the first batch.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from .harness import output_of, remove, run_once, setting
from .river_data import BATCH, HIDDEN, LOOKBACK, N_GAUGES, raw_files

_ROUNDS, _STEPS, _SCORED = 3, 200, 600
PEERS = {"csv": "the files of text, in every run", "pickle": "rows that a run saved", "netcdf": "netCDF, made before"}
Runs = dict[str, list[dict[str, Any]]]


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints a table; figures go to ``rivers.json``. NeuralHydrology is in the environment of peers, or left out."""
    found, scores = measured(folder, data, min(n, _ROUNDS), _STEPS, _SCORED)
    print(report(found, scores, data is not None))
    document = {"setting": setting(), "real": data is not None, "runs": found, "scores": scores}
    (folder / "rivers.json").write_text(json.dumps(document, indent=1) + "\n")


def measured(
    folder: Path, data: Path | None, n: int, steps: int, scored: int
) -> tuple[Runs, dict[str, dict[str, Any]]]:
    """All starts in turn, `n` times, and a longer fit of each side, by name; 0 steps of these to leave them out."""
    raw, own, other = raw_files(folder, data), folder / "rivers-ours", folder / "rivers-peer"
    os.environ["OMP_NUM_THREADS"] = "1"
    ours = [sys.executable, "-W", "ignore", "-m"]
    output_of([*ours, "tests.benchmarks.our_rivers", str(raw), str(own)])
    fit = [*ours, "lightning_app", "fit", "--quiet", "--config", str(own / "rivers.yaml"), "--trainer.max_steps"]
    python = next((folder / "peers" / "bin").glob("python"), None)
    peer = None
    if python is not None:
        peer = [str(python), "-W", "ignore", "-m", "tests.benchmarks.river_peers", str(raw), str(other)]
        print(output_of([*peer, "--start", "check", "--batch", str(own / "batch.npz")])[0], file=sys.stderr, flush=True)
        output_of([*peer, "--start", "save", "--steps", "1"])
    found: Runs = {}
    for _ in range(n):
        remove(own / "cache")
        for name, most in (("first", 1), ("second", steps)):
            found.setdefault(name, []).append(_shown(name, output_of([*fit, str(most)])[0]))
        for name, most in (("csv", steps), ("pickle", 1), ("netcdf", 1)) if peer is not None else ():
            result = output_of([*peer, "--start", name, "--steps", str(most)])[0]  # type: ignore[misc]
            found.setdefault(name, []).append(_shown(name, result))
    return found, _scores(fit, peer, own, scored) if scored else {}


def _scores(fit: list[str], peer: list[str] | None, own: Path, steps: int) -> dict[str, dict[str, Any]]:
    """The median NSE of each side after so many steps."""
    output_of([*fit, str(steps)])
    run_once([*["test" if word == "fit" else word for word in fit[:-1]]])
    tested = json.loads((own / "run" / "test_metrics.json").read_text())
    scores = {"this": {"nse_median": tested["test/nse_median"], "n_steps": steps}}
    if peer is not None:
        scores["NeuralHydrology"] = output_of([*peer, "--start", "score", "--steps", str(steps)])[0]
    return {name: _shown(name, each) for name, each in scores.items()}


def _shown(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    print(f"rivers, {name}: {figures}", file=sys.stderr, flush=True)
    return figures


def report(found: Runs, scores: dict[str, dict[str, Any]], real: bool) -> str:
    """A Markdown table: medians over rounds."""
    gauges = f"{N_GAUGES} gauges of CAMELS-US" if real else "simulated gauges"
    lines = [
        f"### rivers: {gauges}, {found['second'][0]['n_windows']:,} training windows of {LOOKBACK} days, "
        f"hidden {HIDDEN}, batch {BATCH}\n",
        "| | first batch, s of processors (wall) | of which imports | steps | s of processors | waiting | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    labels = {"first": "this, first start", "second": "this, later starts"}
    labels |= {name: f"NeuralHydrology, {what}" for name, what in PEERS.items()}
    for name, runs in found.items():
        middle = {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        cells = [f"{middle['first_cpu_s']:.1f} ({middle['first_s']:.1f})", f"{middle['imports_cpu_s']:.1f}"]
        if middle["n_steps"] > 1:
            cells += [f"{middle['n_steps']:.0f}", f"{middle['steps_cpu_s']:.1f}", f"{middle['wait_share']:.1%}"]
            cells += [f"{middle['peak_mib']:,.0f}"]
        lines.append(f"| {labels[name]} | {' | '.join(cells)} |")
    for name, score in scores.items():
        lines.append(f"\n{name}: median NSE {score['nse_median']:.3f} after {score['n_steps']:.0f} steps.")
    return "\n".join(lines) + "\n"
