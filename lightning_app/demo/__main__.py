"""``python -m lightning_app.demo simulate|compare``: the two steps of the demo that are not everyday commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from lightning_app.demo.catchments import simulate, write
from lightning_app.demo.compare import compare, draw
from zstore import open_store


def demo(step: Literal["simulate", "compare"], folder: str = "demo", run: str = "runs/demo_lstm") -> int:
    """Simulate catchments, or compare a finished forecast of them with simpler ones.

    Parameters
    ----------
    step
        simulate: write catchments.csv and attributes.csv.
        compare: print the errors of the forecast and draw it.
    folder
        Folder of the CSV files and the store.
    run
        Run folder of the fit.
    """
    if step == "simulate":
        rows, attributes = write(simulate(), Path(folder))
        print(f"simulated {rows} ({rows.stat().st_size / 1e6:.1f} MB) and {attributes}")
        return 0
    store = open_store(Path(folder) / "catchments.zarr")
    train_stop = int(np.datetime64("2006-01-01", "D").astype(int))
    found = compare(store, Path(run) / "predictions.zarr", "flow_mm", train_stop, simulate())
    errors = found.errors()
    print("flow of the next 7 days, test years 2007 and 2008")
    table = Table(box=None, pad_edge=False)
    table.add_column("forecast")
    for name in ("MSE", "MAE", "NSE"):
        table.add_column(name, justify="right")
    for name, (mse, mae, nse) in errors.items():
        table.add_row(name, f"{mse:.3f}", f"{mae:.3f}", f"{nse:.3f}")
    Console(highlight=False).print(table)
    print(f"drew {draw(found, Path(run) / 'forecast.png')}")
    best = min(errors["persistence"][0], errors["climatology"][0])
    if not errors["LSTM"][0] < best:
        print("the LSTM is no better than the simple forecasts: something is wrong", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(auto_cli(demo, as_positional=True))
