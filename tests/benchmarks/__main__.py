"""``python -m tests.benchmarks [--suite SUITE] [--n 5] [--data FOLDER] [--before FOLDER] [--system NAME]``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from . import (
    before,
    bucket,
    fields,
    gpu,
    ingest,
    panel,
    queries,
    read,
    rivers,
    series,
    sessions,
    systems,
    views,
    volumes,
)
from .harness import setting
from .system_data import SYSTEMS

SUITES = {
    "ingest": ingest,
    "read": read,
    "bucket": bucket,
    "panel": panel,
    "sql": queries,
    "sessions": sessions,
    "volumes": volumes,
    "fields": fields,
    "systems": systems,
    "rivers": rivers,
    "view": views,
    "series": series,
    "gpu": gpu,
}


def main() -> None:
    """Run the suites and print Markdown tables; figures go to the folder as JSON."""
    parser = argparse.ArgumentParser(description="Ratios against peers, measured in one run.")
    parser.add_argument("--suite", choices=[*SUITES, "before"], action="append", help="default: all but before")
    parser.add_argument("--n", type=int, default=5, help="counted runs of each command; default: 5")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="for data and figures; default: .bench")
    named = os.environ.get("ZSTORE_DATA")
    data = Path(named) if named else None
    parser.add_argument("--data", type=Path, default=data, help="folder of real data sets; default: $ZSTORE_DATA")
    parser.add_argument("--before", type=Path, help="a worktree of another commit, for the suite before")
    parser.add_argument("--system", choices=list(SYSTEMS), action="append", help="of the suite systems; all")
    parser.add_argument("--stores", type=Path, help="folder of stores, for the suite gpu; they are ingested else")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{setting()}\n")
    for suite in options.suite or SUITES:
        if suite == "before":
            before.run(options.folder, options.data, options.n, options.before)
        elif suite == "systems":
            systems.run(options.folder, options.data, options.n, options.system)
        elif suite == "gpu":
            gpu.run(options.folder, options.data, options.n, options.stores)
        else:
            SUITES[suite].run(options.folder, options.data, options.n)


if __name__ == "__main__":
    main()
