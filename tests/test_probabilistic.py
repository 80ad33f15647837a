"""Forecasts that say how sure they are: quantiles that never cross, their scores, and where they are written."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app import load
from lightning_app.batch import BatchShape
from lightning_app.cli import main
from lightning_app.models import Ensemble
from lightning_app.quantile_errors import QuantileErrors, central_pairs
from lightning_app.tasks import ProbabilisticForecast
from lightning_app.tasks.distributions import DISTRIBUTIONS, student_quantile
from zstore import UsageError, ingest

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

LEVELS = st.lists(st.sampled_from([0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99]), min_size=1, unique=True)
# scipy.stats.t.ppf(level, degrees)
STUDENT = {(0.975, 3.0): 3.1824463052837078, (0.9, 2.5): 1.7302509288071766, (0.999, 10.0): 4.143700494046589}


@given(st.sampled_from(sorted(DISTRIBUTIONS)), LEVELS, st.integers(0, 99))
def test_quantiles_never_cross_and_the_median_is_the_forecast(name: str, levels: list[float], seed: int) -> None:
    levels = sorted(levels)
    read = DISTRIBUTIONS[name](levels)
    outputs = 9 * torch.randn(5, 3, read.n_outputs, generator=torch.Generator().manual_seed(seed))
    found = read.quantiles(outputs)
    assert found.shape == (5, 3, len(levels))
    assert (found.diff(dim=-1) >= 0).all()
    if 0.5 in levels:
        torch.testing.assert_close(found[..., levels.index(0.5)], read.centre(outputs))


@pytest.mark.parametrize(("asked", "expected"), STUDENT.items())
def test_quantiles_of_student_are_those_of_scipy(asked: tuple[float, float], expected: float) -> None:
    level, degrees = asked
    assert float(student_quantile(torch.tensor(degrees).double(), level)) == pytest.approx(expected, rel=1e-8)
    assert float(student_quantile(torch.tensor(degrees).double(), 1 - level)) == pytest.approx(-expected, rel=1e-8)


@pytest.mark.parametrize("name", ["normal", "student_t"])
def test_the_likelihood_is_that_of_torch(name: str) -> None:
    outputs, observed = torch.randn(7, 3), torch.randn(7)
    scale = 1e-3 + torch.nn.functional.softplus(outputs[:, 1])
    degrees = 2 + torch.nn.functional.softplus(outputs[:, 2])
    expected = {
        "normal": torch.distributions.Normal(outputs[:, 0], scale),
        "student_t": torch.distributions.StudentT(degrees, outputs[:, 0], scale),
    }[name]
    read = DISTRIBUTIONS[name]([0.5])
    torch.testing.assert_close(read.loss(outputs[:, : read.n_outputs], observed), -expected.log_prob(observed))


@given(st.sampled_from(sorted(DISTRIBUTIONS)), LEVELS, st.integers(0, 99))
def test_an_ensemble_has_the_means_of_the_quantiles_of_its_members(name: str, levels: list[float], seed: int) -> None:
    random, shape = torch.Generator().manual_seed(seed), BatchShape(6, 2, 0, 2, 2, [0, 1])
    task = ProbabilisticForecast(name, sorted(levels))  # type: ignore[arg-type]
    model = Ensemble(shape, "MLP", 3, {"hidden": 4}, task=task)
    batch: Any = {"x": 5 * torch.randn(4, 6, 2, generator=random), "x_future": torch.zeros(4, 2, 0)}
    batch["x_static"] = torch.zeros(4, 0)
    read, sizes = DISTRIBUTIONS[name](sorted(levels)), (4, 2, 2, -1)
    outputs = torch.stack([member(batch).reshape(sizes) for member in model.members]).detach()
    if name == "student_t":  # quantiles have a mean among these distributions if degrees are alike
        outputs[..., 2:] = outputs[:1, ..., 2:].clone()
        found = read.quantiles(read.mean(outputs))
    else:
        found = read.quantiles(model(batch).reshape(sizes))
    torch.testing.assert_close(found, read.quantiles(outputs).mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_a_constant_learns_the_quantiles_of_what_it_is_shown(name: str) -> None:
    read = DISTRIBUTIONS[name]([0.1, 0.5, 0.9])
    observed = 3 + 2 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    outputs = torch.zeros(read.n_outputs, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss = read.loss(outputs.expand(len(observed), -1), observed).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    expected = torch.quantile(observed, torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(read.quantiles(outputs.detach()), expected, rtol=0, atol=0.12)


@settings(max_examples=few(50), deadline=None)
@given(LEVELS, st.integers(1, 4), st.integers(0, 99))
def test_scores_are_those_of_their_formulas_however_targets_are_cut(levels: list[float], cut: int, seed: int) -> None:
    levels, random = sorted(levels), np.random.default_rng(seed)
    truth, guess = random.normal(size=(9, 3, 2)), np.sort(random.normal(size=(9, 3, 2, len(levels))), axis=-1)
    mask = random.random((9, 3, 2)) < 0.7
    metric = QuantileErrors(3, 2, levels)
    for part in np.array_split(np.arange(9), cut):
        metric.update(*(torch.from_numpy(values[part]) for values in (guess, truth, mask)))
    found = metric.compute()
    above = truth[..., None] - guess
    losses = np.where(above > 0, np.array(levels) * above, (np.array(levels) - 1) * above).mean(axis=-1)
    for group, chosen in (("all", mask), ("by_step", mask[:, 1]), ("by_target", mask[..., 1])):
        place: Any = {"all": ..., "by_step": np.s_[:, 1], "by_target": np.s_[:, :, 1]}[group]
        own = [losses[place], truth[place], guess[place]]
        pinball, y, q = (values[chosen] for values in own)
        at = {name: value if group == "all" else value[1] for name, value in found[group].items()}
        if not chosen.any():
            assert all(math.isnan(value) for value in at.values())
            continue
        assert float(at["pinball"]) == pytest.approx(pinball.mean())
        assert float(at["crps"]) == pytest.approx(2 * pinball.mean())
        for name, (low, high) in central_pairs(levels).items():
            inside = (y >= q[:, low]) & (y <= q[:, high])
            assert float(at[f"coverage_{name}"]) == pytest.approx(inside.mean())
            assert float(at[f"width_{name}"]) == pytest.approx((q[:, high] - q[:, low]).mean())


def test_the_crps_is_that_of_scoringrules() -> None:
    """scoringrules 0.10: `crps_quantile([0.3, -1.2], [[-1, 0, 2], [-2, -1, 0.5]], [0.1, 0.5, 0.9])`."""
    metric = QuantileErrors(1, 1, [0.1, 0.5, 0.9])
    guess = torch.tensor([[-1.0, 0, 2], [-2, -1, 0.5]]).reshape(2, 1, 1, 3)
    metric.update(guess, torch.tensor([0.3, -1.2]).reshape(2, 1, 1), torch.ones(2, 1, 1, dtype=torch.bool))
    assert float(metric.compute()["all"]["crps"]) == pytest.approx(np.mean(SCORINGRULES), abs=1e-6)


SCORINGRULES = [0.3, 0.2333333333333333]


def test_wrong_levels_are_refused() -> None:
    for levels in ([0.0, 0.5], [1.0], [-0.1], []):
        with pytest.raises(UsageError, match=r"levels .* from 0\.001 to 0\.999"):
            ProbabilisticForecast(levels=levels)


@pytest.mark.parametrize("panel", [False, True])
def test_a_fit_a_test_and_a_forecast_have_intervals(panel: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [[f"s{series}", day, value] for series in range(2) for day, value in enumerate(random.normal(5, 2, 300))]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "r.zarr", id="id", time="t")
    config = {
        "data": {
            "store": str(tmp_path / "r.zarr"),
            "cache": str(tmp_path / "cache"),
            "lookback": 4,
            "horizon": 2,
            "batch_size": 16,
            **({"panel": {}} if panel else {}),
        },
        "model": {
            "class_path": "LSTM",
            "init_args": {
                "hidden": 4,
                "task": {"class_path": "ProbabilisticForecast", "init_args": {"units": "source"}},
            },
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}},
        "trainer": {"max_epochs": 6, "accelerator": "cpu", "logger": False, "default_root_dir": str(tmp_path / "run")},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning_app"])
        for words in (["fit"], ["test"], ["predict"]):
            assert main([*words, "--config", str(tmp_path / "c.yaml"), "--quiet"]) == 0
    found = yaml.safe_load((tmp_path / "run" / "test_metrics.json").read_text())
    assert found["test/crps"] == pytest.approx(0.4292 * 1.9, rel=0.1)  # that of a normal distribution, at these levels
    for share in (50, 80, 95):
        assert found[f"test/coverage_{share}"] == pytest.approx(share / 100, abs=0.12)
    assert found["calibration"]["share"] == pytest.approx(found["calibration"]["level"], abs=0.1)
    assert {"forecast.png", "calibration.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    written = xr.open_zarr(tmp_path / "run" / "predictions.zarr")
    dims = ("window", "step", *(["series"] if panel else []), "level")
    assert written.v_quantile.dims == dims
    assert written.level.to_numpy().tolist() == [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975]
    median = written.v_quantile.sel(level=0.5)
    np.testing.assert_allclose(median, written.v, rtol=1e-6)
    assert (written.v_quantile.diff("level") >= 0).all()
    tomorrow = load(tmp_path / "run").forecast()
    assert list(tomorrow.columns)[:4] == ["id", "time", "step", "v"]
    assert (tomorrow["v_q0.025"] < tomorrow["v_q0.975"]).all()
    np.testing.assert_allclose(tomorrow["v_q0.5"], tomorrow["v"])
