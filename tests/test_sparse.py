"""River quality, in small: weather every day, a sample of the water once a month."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import write_table

from lightning_app.data.datamodule import WindowDataModule
from zstore import Store, ingest, open_store

N_SITES, N_DAYS, LOOKBACK = 40, 1460, 10

# Lightning's and jsonargparse's own warnings are theirs to fix; ours are errors in every other test.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def river(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nitrate that follows the rain of the last days, at each site in its own measure; sampled on one day in thirty."""
    folder, random = tmp_path_factory.mktemp("river"), np.random.default_rng(0)
    days = np.datetime64("2001-01-01") + np.arange(N_DAYS)
    rows, sites = [], []
    for site in range(N_SITES):
        slope, soil = random.uniform(0.2, 2), random.uniform(0, 1)
        rain, warmth = random.gamma(0.5, 4, N_DAYS), 10 + 8 * np.sin(2 * np.pi * np.arange(N_DAYS) / 365.25)
        recent = np.convolve(rain, [0.4, 0.3, 0.2, 0.1])[:N_DAYS]
        nitrate = slope * recent + soil * 5 + random.normal(0, 0.1, N_DAYS)
        sites.append([f"{site:03d}", round(slope, 3), round(soil, 3)])
        for day in range(N_DAYS):
            sampled = f"{nitrate[day]:.2f}" if day % 30 == site % 30 else ""
            rows.append([f"{site:03d}", days[day], f"{rain[day]:.1f}", f"{warmth[day]:.1f}", sampled])
    table = write_table(folder / "r.csv", ["site", "date", "rain", "warmth", "nitrate"], rows)
    statics = write_table(folder / "s.csv", ["site", "slope", "soil"], sites)
    ingest(table, folder / "river.zarr", id="site", time="date", static=statics)
    return open_store(folder / "river.zarr")


def test_only_windows_with_a_target_are_read_and_a_branchlstm_beats_climatology(
    river: Store, tmp_path: Path, app: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    data = {
        "store": str(river.path),
        "lookback": LOOKBACK,
        "horizon": 1,
        "delay": -1,
        "channels": ["rain", "warmth"],
        "targets": ["nitrate"],
        "cache": str(tmp_path / "cache"),
    }
    sampled = [day for site in range(N_SITES) for day in range(N_DAYS) if day % 30 == site % 30]
    n_train = round(N_DAYS * 0.7)
    reached = [day for day in sampled if LOOKBACK - 1 <= day < n_train]
    module = WindowDataModule(**{**data, "statics": ["slope", "soil"]})  # type: ignore[arg-type]
    index = module.index("train")
    assert len(index) == len(reached)
    assert index.n_rows() == LOOKBACK * len(reached)
    batches = list(module.val_dataloader())
    assert all(batch["mask"].all() for batch in batches)

    branch = {
        "data": {**data, "statics": ["slope", "soil"], "batch_size": 64},
        "model": {"class_path": "BranchLSTM", "init_args": {"hidden": 16, "units": "source", "series_scores": True}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "trainer": {"max_epochs": 15, "accelerator": "cpu"},
    }
    climate = {
        "data": {**data, "time_features": ["day_of_year"], "time_encoding": "index"},
        "model": {"class_path": "Climatology", "init_args": {"units": "source", "series_scores": True}},
        "trainer": {"accelerator": "cpu"},
    }
    for name, document in (("branch", branch), ("climate", climate)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    fitted = app("fit", "--config", "branch.yaml", check=True)
    assert (
        f"{len(reached):,} training windows read {LOOKBACK * len(reached):,} of {N_SITES * N_DAYS:,} rows"
        in fitted.stdout
    )
    for name in ("branch", "climate"):
        app("test", "--config", f"{name}.yaml", check=True)
    branch_found, climate_found = (
        json.loads((tmp_path / "runs" / name / "test_metrics.json").read_text()) for name in ("branch", "climate")
    )
    assert branch_found["n_windows"] == climate_found["n_windows"]
    assert branch_found["test/mse"] < 0.5 * climate_found["test/mse"]
    assert branch_found["test/nse_median"] > 0.5 > climate_found["test/nse_median"]

    refused = app("test", "--config", "climate.yaml", "--model.series_least", "1000")
    assert refused.returncode == 2
    assert "no series with 1000 observed test targets; expected one at least" in refused.stderr


def test_climatology_is_the_mean_of_the_training_targets_of_a_series_at_that_time(
    river: Store, tmp_path: Path, app: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    document = {
        "data": {
            "store": str(river.path),
            "lookback": 1,
            "horizon": 1,
            "channels": ["rain"],
            "time_features": ["day_of_week", "day_of_year"],
            "time_encoding": "index",
            "split": {"dates": ["2001-01-01", "2003-06-01", "2003-07-01", "2005-01-01"]},
            "cache": str(tmp_path / "cache"),
        },
        "model": {"class_path": "Climatology", "init_args": {"units": "source"}},
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "climate.yaml").write_text(yaml.safe_dump(document))
    app("test", "--config", "climate.yaml", check=True)
    frame = river.to_xarray()["rain"].to_pandas().to_frame("rain")
    frame["site"] = np.repeat(np.arange(N_SITES), N_DAYS)
    frame["time"] = np.tile(np.datetime64("2001-01-01") + np.arange(N_DAYS), N_SITES)
    frame["weekday"] = frame["time"].dt.day_of_week
    frame["slot"] = frame["weekday"] * 1000 + frame["time"].dt.day_of_year
    train = frame[frame["time"] < "2003-06-01"]
    test = frame[(frame["time"] >= "2003-07-01")]
    for keys in (["site", "slot"], ["site", "weekday"], ["site"]):
        test = test.join(train.groupby(keys)["rain"].mean().rename("mean by " + ", ".join(keys)), on=keys)
    assert test["mean by site, slot"].isna().any()
    predicted = test["mean by site, slot"].fillna(test["mean by site, weekday"]).fillna(test["mean by site"])
    expected = float(((predicted - test["rain"]) ** 2).mean())
    found = json.loads((tmp_path / "runs" / "climate" / "test_metrics.json").read_text())
    assert found["n_windows"] == len(test)
    assert found["test/mse"] == pytest.approx(expected, rel=1e-5)
