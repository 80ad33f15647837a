"""A comparison as a table: configurations by horizons and seeds, fitted and tested, beside what was published."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_app.models
from lightning_app.arguments import child_environment, lasting
from zstore import UsageError, check_outside, check_target, read_yaml, whole_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One configuration at one horizon with one seed.

    Parameters
    ----------
    config
        Its file.
    horizon
        Of the run; None for that of the file.
    seed
        Of weights and order; None where nothing is fitted.
    folder
        Its run folder.
    flags
        Further flags of `fit` and `test`.
    """

    config: Path
    horizon: int | None
    seed: int | None
    folder: Path
    flags: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The flags it is fitted and tested with."""
        horizon = [] if self.horizon is None else ["--data.horizon", str(self.horizon)]
        seed = [] if self.seed is None else ["--seed_everything", str(self.seed)]
        return ["--config", str(self.config), *horizon, *seed, *self.flags]

    @property
    def digest(self) -> str:
        """What names the run: its flags and what its file says."""
        return hashlib.sha256(
            json.dumps([lasting(self.words), self.config.read_text(encoding="utf-8")]).encode()
        ).hexdigest()

    def result(self) -> dict[str, Any]:
        """Test metrics: those of a run that is whole, or else of one that is made now.

        Raises
        ------
        UsageError
            If it fails; its output is in `run.log` of its folder.
        """
        metrics, note = self.folder / "test_metrics.json", self.folder / "run.sha256"
        digest = self.digest  # of the file as the run reads it, which may be edited meanwhile
        if not (metrics.exists() and note.exists() and note.read_text() == digest):
            self.folder.mkdir(parents=True, exist_ok=True)
            note.unlink(missing_ok=True)
            log = self.folder / "run.log"
            with log.open("w") as output:
                for command in ("test",) if self.seed is None else ("fit", "test"):
                    words = [command, *self.words, "--trainer.default_root_dir", str(self.folder)]
                    visible, variables = child_environment(words)
                    done = subprocess.run(  # noqa: S603  # ours
                        [sys.executable, "-m", "lightning_app", *visible],
                        env={**os.environ, **variables},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        check=False,
                    )
                    if done.returncode:
                        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
                        raise UsageError(
                            f"{command} of {self.folder.name} failed: {last}", where=str(log), fix="see there"
                        )
            note.write_text(digest)
        found: dict[str, Any] = json.loads(metrics.read_text())
        return found


def make_parser() -> argparse.ArgumentParser:
    """The flags of ``python -m lightning_app table``."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_app table",
        description="Fit and test configurations, and write a table of them. Runs that are there already are kept. "
        "Flags that are not listed here go to fit and test.",
    )
    parser.add_argument("--configs", nargs="+", required=True, help="YAML files")
    parser.add_argument("--horizons", type=int, nargs="+", default=[], help="default: that of each file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of models that are fitted")
    parser.add_argument(
        "--metrics", nargs="+", default=["mse", "mae"], help="such as nse_median; mae@3 is that of the third step"
    )
    parser.add_argument("--published", default="configs/published.yaml", help="values to put beside")
    parser.add_argument("--runs", default="runs/table", help="folder of the runs")
    parser.add_argument("--out", required=True, help="Markdown file to write")
    return parser


def main(arguments: Sequence[str]) -> int:
    """``python -m lightning_app table``."""
    options, flags = make_parser().parse_known_args(list(arguments))
    check_target(options.out, "table")
    check_outside(options.runs, "--runs")
    published = Path(options.published)
    known = read_yaml(published, "--published") if published.exists() else {}
    rows = []
    for config in map(Path, options.configs):
        for horizon in options.horizons or [None]:
            runs = runs_of(config, horizon, options.seeds, Path(options.runs), tuple(flags))
            found = [run.result() for run in runs]
            theirs = known.get(config.stem, {}).get(horizon or found[0]["horizon"], {})
            rows.append(_row(config.stem, found, options.metrics, theirs))
            logger.info("  ".join(rows[-1]))
    with whole_file(options.out, "table") as path:
        path.write_text(to_markdown(rows, options.metrics), encoding="utf-8")
    logger.info(f"wrote {options.out}")
    return 0


def runs_of(config: Path, horizon: int | None, seeds: list[int], folder: Path, flags: tuple[str, ...]) -> list[Run]:
    """The runs of one row: one for each seed, or a single one of a model without parameters.

    Raises
    ------
    UsageError
        If the file is none, or names no model.
    """
    try:
        name = read_yaml(config)["model"]["class_path"]
        module, _, cls = name.rpartition(".")
        model = getattr(importlib.import_module(module) if module else lightning_app.models, cls)
    except (LookupError, TypeError, AttributeError, ImportError) as error:
        raise UsageError(
            f"{config} ({error})", expected="a configuration that names a model", fix="correct it"
        ) from None
    stem = config.stem + (f"-{horizon}" if horizon else "")
    chosen: list[int | None] = [*seeds] if model.fitted else [None]
    suffixes = ["" if seed is None else f"-{seed}" for seed in chosen]
    return [
        Run(config, horizon, seed, folder / f"{stem}{suffix}", flags)
        for seed, suffix in zip(chosen, suffixes, strict=True)
    ]


def _row(name: str, found: list[dict[str, Any]], metrics: list[str], theirs: dict[str, float]) -> list[str]:
    cells = [name, str(found[0]["horizon"]), str(len(found)), _windows(found)]
    for metric in metrics:
        values = [metric_value(result, metric) for result in found]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        cells += [f"{statistics.fmean(values):.4f}{spread}", f"{theirs[metric]:.3f}" if metric in theirs else "–"]
    return cells


def _windows(found: list[dict[str, Any]]) -> str:
    """How many windows the tests saw; ``10 of 29`` where one of them saw a part of its split."""
    n_windows, of_split = min((run["n_windows"], run.get("n_windows_of_split", run["n_windows"])) for run in found)
    return f"{n_windows:,}" if n_windows == of_split else f"{n_windows:,} of {of_split:,}"


def metric_value(result: dict[str, Any], metric: str) -> float:
    """A metric over all steps, or ``name@step`` of one.

    Raises
    ------
    UsageError
        If the run has none such.
    """
    name, _, step = metric.partition("@")
    found: list[Any] = result["by_step"].get(name, []) if step else [result.get(f"test/{name}")]
    place = int(step) - 1 if step.isdecimal() else 0
    if not 0 <= place < len(found) or found[place] is None:
        known = ", ".join(key.removeprefix("test/") for key in result if key.startswith("test/"))
        raise UsageError(
            f"metric {metric}", expected=f"one of {known}; or mae@3 for its third step", fix="correct --metrics"
        )
    value: float = found[place]
    return value


def to_markdown(rows: list[list[str]], metrics: list[str]) -> str:
    """The table; a spread is the standard deviation (ddof 1) over seeds. Columns without any value are left out."""
    heads = ["configuration", "horizon", "runs", "windows"]
    for metric in metrics:
        heads += [metric.upper(), "published"]
    kept = [place for place in range(len(heads)) if any(row[place] != "–" for row in rows)]
    lines = [[row[place] for place in kept] for row in (heads, ["---"] * len(heads), *rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
