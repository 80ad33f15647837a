"""Intervals to the last digit: targets on their ends, other scalers, and damaged files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import write_table
from test_intervals import LEVELS, config, noise, radius

from lightning_app.batch import Batch
from lightning_app.models import NLinear
from lightning_app.radii import Radii, find_radii
from lightning_app.tasks import ProbabilisticForecast
from zstore import StoreError, UsageError, ingest

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

App = Callable[..., Any]


class Silent(NLinear):
    """Measures, and gives nothing."""

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        """Nothing."""
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("offset", "unit", "scaler"),
    [
        pytest.param(0, 1, "standard", id="counts"),
        pytest.param(1013, 0.1, "minmax", id="tenths far from 0"),
        pytest.param(0, 1, "log1p", id="logarithms of counts", marks=pytest.mark.long),
        pytest.param(20_000, 0.05, "none", id="very far from 0", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("units", ["source", "scaled"])
def test_intervals_hold_the_targets_that_lie_on_their_ends(
    app: App, tmp_path: Path, offset: float, unit: float, scaler: str, units: str
) -> None:
    """Of whole numbers many errors are the same: each share is that of exact arithmetic, whatever float32 rounds."""
    values = offset + unit * np.random.default_rng(0).poisson(3, 600)
    rows = [["a", day, round(value, 2)] for day, value in enumerate(values.tolist())]
    ingest(write_table(tmp_path / "s.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    config(tmp_path, {"class_path": "Repeat", "init_args": {"units": units}}, {"scaler": scaler})
    app("test", "--config", "c.yaml", check=True)
    app("predict", "--config", "c.yaml", check=True)
    found = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    written = xr.open_zarr(tmp_path / "run" / "predictions.zarr").load()
    inside = (written.v_lower <= written.v_observed) & (written.v_observed <= written.v_upper)
    exact = np.log1p(values) if scaler == "log1p" else np.round(values / unit)
    for place, level in enumerate(LEVELS):
        shares = []
        for step in (1, 2):
            val, test = (np.arange(first, first + 179) + step - 1 for first in (240, 420))  # their targets
            errors = [np.abs(exact[at] - exact[at - step]) for at in (val, test)]
            shares.append(np.mean(errors[1] <= radius(errors[0], level) + 1e-9))
        assert found["by_step"][f"interval_coverage_{100 * level:g}"] == pytest.approx(shares)
        np.testing.assert_allclose(inside[..., place].mean("window"), shares)


def test_a_model_without_weights_has_its_intervals_found_anew_for_another_scaler_or_delay(
    app: App, tmp_path: Path
) -> None:
    noise(tmp_path)
    config(tmp_path, {"class_path": "Repeat"}, {"scaler": "none"})
    app("predict", "--config", "c.yaml", check=True)
    widths = [float((each.v_upper - each.v_lower).mean()) for each in [xr.open_zarr(tmp_path / "run/predictions.zarr")]]
    done = app("predict", "--config", "c.yaml", "--data.scaler", "standard", check=True)
    assert "wrote run/intervals/Repeat.npz" in done.stdout
    written = xr.open_zarr(tmp_path / "run/predictions.zarr")
    assert float((written.v_upper - written.v_lower).mean()) == pytest.approx(widths[0], rel=1e-5)
    done = app("test", "--config", "c.yaml", "--data.scaler", "standard", "--data.delay", "3", check=True)
    assert "wrote run/intervals/Repeat.npz" in done.stdout
    done = app("test", "--config", "c.yaml", "--data.scaler", "standard", "--data.delay", "3", check=True)
    assert "intervals of" not in done.stdout


def test_no_bit_of_a_file_of_radii_changes_one_without_a_word(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "best.npz"
    errors = random.normal(size=(60, 2, 1, 1)).astype(np.float32)
    found = find_radii(errors, random.integers(0, 3, 60), ["a", "b", "c"], random.random((3, 1)), [0.5], "series")
    found.write(path)
    content, refused = path.read_bytes(), 0
    for place in random.integers(0, len(content), 600).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            again = Radii.read(path)
        except StoreError:
            refused += 1
            continue
        for name, values in vars(found).items():
            np.testing.assert_array_equal(getattr(again, name), values)
    assert refused > 300


def test_series_that_validation_does_not_have_are_told_to_take_the_intervals_of_all(app: App, tmp_path: Path) -> None:
    noise(tmp_path, lengths={"brook": 150})  # ends before val
    config(tmp_path, {"class_path": "Repeat"})
    done = app("test", "--config", "c.yaml", check=True)
    assert "1 of 2 series have fewer than 19 at some step, and take there the radius of all series" in done.stdout
    done = app("test", "--config", "c.yaml", "--data.series.ids", "[river]", check=True)
    assert "intervals of" in done.stdout
    assert "fewer than" not in done.stdout


def test_levels_whose_columns_would_have_the_same_name_are_refused() -> None:
    with pytest.raises(UsageError, match="that differ in their first six digits"):
        ProbabilisticForecast(levels=[0.1, 0.10000001, 0.9])


def test_a_validation_step_of_ones_own_that_gives_nothing_is_named(app: App, tmp_path: Path) -> None:
    noise(tmp_path)
    config(tmp_path, {"class_path": "test_interval_ends.Silent"})
    done = app("fit", "--config", "c.yaml")
    assert (done.returncode, "intervals of Silent, whose validation_step does not give" in done.stderr) == (2, True)
