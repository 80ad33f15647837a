"""Which share of test targets intervals hold: ``python -m tests.benchmarks.coverage [--folder .bench/coverage]``.

Simulated catchments, ETTh1 and 41 gauges of CAMELS (the last two from $ZSTORE_DATA), each with a model of one number
and one of quantiles: fit, test, and a table. Beside the intervals of the validation windows, the same are made of every
other week of the test windows, for the weeks between: these hold what they say where all that is wrong with the others
is that the test years are unlike the validation years. The last column is how many of the targets of a quarter of a
year the intervals of 80 % hold, in the quarter with the fewest and in that with the most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from lightning_app.radii import find_radii
from zstore import open_store

LEVELS = [0.5, 0.8, 0.95]
CONFIGS = Path(__file__).parents[2] / "configs"
TASK = {"class_path": "ProbabilisticForecast", "init_args": {"units": "source"}}


def configurations(folder: Path) -> dict[str, dict[str, Any]]:
    """By name; two for each store that is there."""
    demo = yaml.safe_load((CONFIGS / "demo_lstm.yaml").read_text())
    ett = yaml.safe_load((CONFIGS / "etth1_dlinear.yaml").read_text())
    patches = yaml.safe_load((CONFIGS / "etth1_patchtst.yaml").read_text())
    patches["model"]["init_args"]["task"] = TASK
    patches["optimizer"]["init_args"]["lr"] = 0.001  # for few epochs
    patches["trainer"] = {"max_epochs": 5}
    found = {
        "catchments LSTM": demo,
        "catchments LSTM quantiles": {**demo, "model": lstm(task=TASK)},
        "ETTh1 DLinear": ett,
        "ETTh1 PatchTST quantiles": patches,
    }
    if (folder / "camels.zarr").is_dir():
        known = ["prcp_mm", "temp_c", "pet_mm"]
        ids = open_store(folder / "camels.zarr").ids.tolist()[::12]
        data = {
            **demo["data"], "store": "camels.zarr", "channels": [*known, "q_mm"], "targets": ["q_mm"], "future": known,
            "statics": ["p_mean", "aridity", "frac_snow", "slope_mean", "area_gages2", "frac_forest"],
            "stride": 5, "evaluation_stride": 3, "series": {"ids": ids},
            "split": {"dates": ["1981-01-01", "1995-01-01", "2000-01-01", "2015-01-01"]},
        }  # fmt: skip
        camels = {**demo, "data": data, "trainer": {**demo["trainer"], "max_epochs": 6}}
        found |= {"CAMELS LSTM": camels, "CAMELS LSTM quantiles": {**camels, "model": lstm(task=TASK)}}
    return found


def lstm(**options: Any) -> dict[str, Any]:
    return {"class_path": "LSTM", "init_args": {"hidden": 48, **options}}


def stores(folder: Path) -> None:
    """Simulate and ingest what is not there yet."""
    data = os.environ.get("ZSTORE_DATA")
    commands = [(folder / "demo/catchments.zarr", ["lightning_app.demo", "simulate"])]
    words = ["demo/catchments.csv", "demo/catchments.zarr", "--id", "gauge_id", "--time", "date"]
    commands += [(folder / "demo/catchments.zarr", ["zstore", "ingest", *words, "--static", "demo/attributes.csv"])]
    if data:
        ett, camels = Path(data) / "ett/ETTh1.csv", Path(data) / "caravan_camels482"
        made = (("etth1.zarr", [str(ett)], "ett"), ("camels.zarr", [str(camels / "daily_long.csv.gz")], "camels"))
        for name, source, kind in made:
            more = ["--static", str(camels / "attributes.csv")] if kind == "camels" else []
            config = ["--config", str(CONFIGS / f"ingest/{kind}.yaml")]
            commands.append((folder / name, ["zstore", "ingest", *source, name, *config, *more]))
    missing = [words for path, words in commands if not path.is_dir()]
    for words in missing:
        run(folder, *words)


def run(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def alternate(run_folder: Path) -> list[float]:
    """Coverage where every other week of the test windows makes the intervals of the weeks between, and the reverse."""
    written = xr.open_zarr(run_folder / "predictions.zarr").load()
    names = [str(name).removesuffix("_lower") for name in written.data_vars if str(name).endswith("_lower")]
    ids, series = np.unique(written.id.to_numpy().astype(str), return_inverse=True)
    even = written.time.to_numpy()[:, 0].astype("datetime64[W]").astype(int) % 2 == 0
    truth = np.stack([written[f"{name}_observed"].to_numpy() for name in names], axis=-1)
    ends = []
    for side, levels in ((0, [(1 - level) / 2 for level in LEVELS]), (1, [(1 + level) / 2 for level in LEVELS])):
        if f"{names[0]}_quantile" in written:
            parts = [written[f"{name}_quantile"].sel(level=levels, method="nearest").to_numpy() for name in names]
        else:
            parts = [written[name].to_numpy()[..., None] for name in names]
        ends.append(np.stack(parts, axis=2) * (1 if side == 0 else -1))
    outside = np.maximum(ends[0] - truth[..., None], truth[..., None] + ends[1]).astype(np.float32)
    inside, spread = [], np.ones((len(ids), len(names)))
    for half in (even, ~even):
        radii = find_radii(outside[half], series[half], ids.tolist(), spread, LEVELS, "series").of(ids.tolist())
        held = outside[~half] <= radii[series[~half]]
        inside.append(np.where(np.isnan(outside[~half]), np.nan, held).reshape(-1, len(LEVELS)))
    found: list[float] = np.nanmean(np.concatenate(inside), axis=0).tolist()
    return found


def by_quarter(run_folder: Path, level: float = 0.8) -> tuple[float, float]:
    """The least and the largest coverage of the intervals of a level, by quarter of the first target of a window."""
    written = xr.open_zarr(run_folder / "predictions.zarr").load()
    quarters = written.time.to_numpy()[:, 0].astype("datetime64[M]").astype(int) // 3
    parts = []
    for name in (str(name).removesuffix("_lower") for name in written.data_vars if str(name).endswith("_lower")):
        low, high = (written[f"{name}_{end}"].sel(interval=level).to_numpy() for end in ("lower", "upper"))
        truth = written[f"{name}_observed"].to_numpy()
        parts.append(np.where(np.isnan(truth), np.nan, (low <= truth) & (truth <= high)))
    inside = np.concatenate(parts, axis=1)
    shares = [float(np.nanmean(inside[quarters == quarter])) for quarter in np.unique(quarters)]
    return min(shares), max(shares)


def row(run_folder: Path) -> str:
    """Coverage of quantiles, of intervals, of those of every other week, and by quarter, as cells."""
    found = json.loads((run_folder / "test_metrics.json").read_text())
    kinds = ("coverage", "interval_coverage")
    shares = [[found.get(f"test/{kind}_{100 * level:g}") for level in LEVELS] for kind in kinds]
    cells = [" / ".join("–" if each is None else f"{100 * each:.1f}" for each in row) for row in shares]
    cells.append(" / ".join(f"{100 * each:.1f}" for each in alternate(run_folder)))
    cells.append(" to ".join(f"{100 * each:.0f}" for each in by_quarter(run_folder)))
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench/coverage"), help="default: .bench/coverage")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stores(folder)
    print("| | quantiles | intervals | of other weeks of test | by quarter |\n|---|---|---|---|---|", flush=True)
    for name, document in configurations(folder).items():
        if not (folder / document["data"]["store"]).is_dir():
            continue
        path = folder / f"{name.replace(' ', '_')}.yaml"
        path.write_text(yaml.safe_dump({**document, "intervals": {"levels": LEVELS}}))
        run(folder, "lightning_app", "run", "--config", path.name, "--quiet")
        print(f"| {name} | {row(folder / 'runs' / path.stem)} |", flush=True)


if __name__ == "__main__":
    main()
