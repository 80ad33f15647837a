"""Rivers as raw files in the layout of Caravan, a CSV for each gauge, and what both sides of the suite train on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # both sides read the names below, and pandas is no part of ours
    import pandas as pd

N_GAUGES = 24
CHANNELS = ["prcp_mm", "temp_c", "pet_mm"]
TARGET = "q_mm"
STATICS = ["p_mean", "pet_mean", "aridity", "frac_snow", "elev_mean", "slope_mean", "area_gages2", "frac_forest"]
PERIODS = ["1990-01-01", "2000-01-01", "2001-01-01", "2006-01-01"]
"""Where training, validation and test of real rivers begin, and the test ends."""
SIMULATED = ["2002-01-01", "2006-01-01", "2007-01-01", "2009-01-01"]
LOOKBACK, HIDDEN, BATCH, RATE, FORGET = 365, 64, 64, 0.001, 3.0
_SAME = {"p_mean": "mean_rain_mm", "elev_mean": "elevation_m", "slope_mean": "slope", "aridity": "baseflow"}


def raw_files(folder: Path, data: Path | None) -> Path:
    """A folder of raw files: of CAMELS-US if there are real ones, else of simulated catchments; kept once made.

    ``timeseries/csv/camels/camels_GAUGE.csv`` has a row a day, ``attributes/camels/attributes.csv`` a row a gauge,
    ``gauges.txt`` their ids.
    """
    raw = folder / ("rivers-real" if data is not None else "rivers")
    if (raw / "gauges.txt").exists():
        return raw
    rows, statics = _camels(data) if data is not None else _simulated()
    series, attributes = raw / "timeseries" / "csv" / "camels", raw / "attributes" / "camels"
    for made in (series, attributes):
        made.mkdir(parents=True, exist_ok=True)
    for gauge, days in rows.groupby("gauge_id", sort=False):
        days[["date", *CHANNELS, TARGET]].to_csv(series / f"camels_{gauge}.csv", index=False)
    statics = statics.assign(gauge_id="camels_" + statics["gauge_id"])
    statics.to_csv(attributes / "attributes.csv", index=False)
    (raw / "gauges.txt").write_text("\n".join(statics["gauge_id"]) + "\n")
    return raw


def _camels(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every twentieth gauge whose flow is there on nearly all days from 1990 on."""
    import pandas as pd

    source = data / "caravan_camels482"
    text = {"gauge_id": str}
    rows = pd.read_csv(source / "daily_long.csv.gz", dtype=text)
    within = rows[(rows["date"] >= PERIODS[0]) & (rows["date"] < PERIODS[-1])]
    observed = within.groupby("gauge_id")[TARGET].apply(lambda flow: flow.notna().mean())
    gauges = sorted(observed.index[observed > 0.99])
    chosen = gauges[:: max(len(gauges) // N_GAUGES, 1)][:N_GAUGES]
    statics = pd.read_csv(source / "attributes.csv", dtype=text)
    statics = statics[statics["gauge_id"].isin(chosen)][["gauge_id", *STATICS]]
    return rows[rows["gauge_id"].isin(chosen)], statics


def _simulated() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Catchments of the demo, under the names of CAMELS."""
    import pandas as pd

    from lightning_app.demo.catchments import simulate

    found = simulate(n_catchments=6, n_years=8)
    values = dict(zip([*CHANNELS, TARGET], (found.rain, found.temperature, found.evaporation, found.flow), strict=True))
    parts = [
        pd.DataFrame({"gauge_id": gauge, "date": found.dates, **{name: each[n] for name, each in values.items()}})
        for n, gauge in enumerate(found.ids)
    ]
    columns = {name: found.attributes[own] for name, own in _SAME.items()}
    return pd.concat(parts), pd.DataFrame({"gauge_id": found.ids, **columns})


def statics_of(raw: Path) -> list[str]:
    """Names of the static attributes."""
    with (raw / "attributes" / "camels" / "attributes.csv").open(newline="") as file:
        return next(csv.reader(file))[1:]


def periods_of(raw: Path) -> list[str]:
    """Where training, validation and test begin, and the test ends."""
    return PERIODS if raw.name.endswith("real") else SIMULATED
