"""``lightning-app demo``: the main job from nothing to a forecast, one command after another, each printed first."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_app.shipped import configurations
from zstore import whole_file

CONFIG = "configs/demo_lstm.yaml"
STEPS = (
    "python -m lightning_app.demo simulate",
    "zstore ingest demo/catchments.csv demo/catchments.zarr --id gauge_id --time date --static demo/attributes.csv"
    " --overwrite",
    f"python -m lightning_app run --config {CONFIG}",
    "python -m lightning_app.demo compare",
)
"""What is run, as one would type it."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_app demo",
        description="Simulate rivers, ingest them, fit an LSTM, forecast and compare. Takes about a minute, 100 MB of "
        "disk and no network. Makes the folders demo, configs and runs.",
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder to work in (default: the one you are in)")
    return parser


def main(words: Sequence[str]) -> int:
    """Run the demo.

    Returns
    -------
    0 if every command did what was asked; else the exit code of the one that failed, and none after it was run.

    Raises
    ------
    UsageError
        If the package was installed without its configurations.
    """
    folder: Path = make_parser().parse_args(words).out
    config = folder / CONFIG
    if not config.exists():
        text = configurations()["demo_lstm"].read_bytes()
        config.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(config, "configuration") as temporary:
            temporary.write_bytes(text)
    for step in STEPS:
        print(f"$ {step}", flush=True)
        program, *rest = shlex.split(step)
        module = rest if program == "python" else ["-m", program, *rest]
        code = subprocess.run([sys.executable, *module], cwd=folder, check=False).returncode  # noqa: S603
        if code:
            return code
    return 0
