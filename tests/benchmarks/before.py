"""Suite before: this tree against another one, such as a worktree of the commit before, in turn in one run."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from zstore import ingest

from .harness import in_turn, output_of, table
from .ingest import generate

HERE = Path(__file__).parents[2]
BATCHES = (256, 2048)


def run(folder: Path, data: Path | None, n: int, before: Path | None = None) -> None:
    """Prints medians of both and of the ratios of pairs: at most 1 is no slower.

    Parameters
    ----------
    folder
        For data and stores.
    data
        Folder of real data sets; None to leave CAMELS out.
    n
        Counted pairs.
    before
        The other tree.
    """
    if before is None:
        raise SystemExit("suite before needs --before FOLDER, a worktree of the commit to compare with")
    trees = {"now": HERE, "before": before.resolve()}
    folder = folder.resolve()
    tables = {"3.0 M rows x 12": (generate(folder / "wide.csv"), "id", "time")}
    if data is not None:
        tables["CAMELS"] = (data / "caravan_camels482" / "daily_long.csv.gz", "gauge_id", "date")
    for title, (source, id_, time) in tables.items():
        outputs = {name: folder / f"{name}.zarr" for name in trees}
        words = ["ingest", str(source), "--id", id_, "--time", time, "--workers", "2", "--quiet"]
        commands = {
            name: python_in(tree, "zstore.cli", *words[:2], str(outputs[name]), *words[2:])
            for name, tree in trees.items()
        }
        print(table(f"ingest, {title}", in_turn(commands, outputs, n), "now"))
    read(folder, trees, n)


def read(folder: Path, trees: dict[str, Path], n: int) -> None:
    """Windows per second of 96 + 24 rows of 16 channels."""
    store = folder / "wide16.zarr"
    if not (store / "zarr.json").exists():
        ingest(generate(folder / "wide16.csv", 2000, 2000, 16), store, id="id", time="time", overwrite=True)
    print("| windows/s | batch | now | before | time now / before, pairs: median (min to max) |\n|---|---|---|---|---|")
    for residency in ("host", "stream"):
        for batch in BATCHES:
            found: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(n):
                for name, tree in trees.items():
                    words = [str(store), "--cache", str(folder / f"cache-{name}"), "--batch", str(batch)]
                    words += ["--residency", residency, "--budget", "32MB" if residency == "stream" else "0.5"]
                    result: dict[str, Any] = output_of(python_in(tree, "tests.benchmarks.ours", *words))[0]
                    found[name].append(result["windows_per_s"])
            ratios = [old / new for new, old in zip(found["now"], found["before"], strict=True)]
            medians = " | ".join(f"{statistics.median(rates):,.0f}" for rates in found.values())
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"| {residency} | {batch:,} | {medians} | {spread} |", flush=True)
    print(json.dumps({name: str(tree) for name, tree in trees.items()}), file=sys.stderr)


def python_in(tree: Path, module: str, *words: str) -> list[str]:
    """A command that runs a module of one tree; its warm-up leaves the bytecode behind, as an installation does."""
    environment = ["env", "-C", str(tree), f"PYTHONPATH={tree}", "PYTHONDONTWRITEBYTECODE="]
    return [*environment, sys.executable, "-W", "ignore", "-m", module, *words]
