"""Metrics against scikit-learn and formulas written out, on one process and on two."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from conftest import in_two_processes
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torchmetrics import Metric

from lightning_app.losses import MAE, MSE, NSE, Huber, Loss, Quantile
from lightning_app.metrics import MaskedErrors, SeriesScores
from lightning_app.scaled_errors import RootScaledErrors, ScaledErrors

HORIZON, TARGETS, SERIES = 3, 2, 5
Data = dict[str, np.ndarray[Any, Any]]


def random_data(seed: int, n: int, share: float = 0.8) -> Data:
    random = np.random.default_rng(seed)
    observed = random.gamma(2, 3, (n, HORIZON, TARGETS)).round(1)
    observed[random.random(observed.shape) < 0.05] = 0
    mask = random.random(observed.shape) < share
    return {
        "predicted": (observed * random.uniform(0.7, 1.2) + random.normal(0, 1, observed.shape)).astype(np.float32),
        "observed": np.where(mask, observed, np.nan).astype(np.float32),
        "mask": mask,
        "series": random.integers(0, SERIES, n),
    }


def written_out(truth: np.ndarray[Any, Any], guess: np.ndarray[Any, Any]) -> dict[str, float]:
    kept = truth != 0
    both = np.abs(truth) + np.abs(guess)
    return {
        "mse": sklearn.metrics.mean_squared_error(truth, guess),
        "mae": sklearn.metrics.mean_absolute_error(truth, guess),
        "rmse": sklearn.metrics.root_mean_squared_error(truth, guess),
        "mape": sklearn.metrics.mean_absolute_percentage_error(truth[kept], guess[kept]),
        "smape": float(np.mean(200 * np.abs(guess - truth)[both > 0] / both[both > 0]) * np.mean(both > 0)),
        "r2": sklearn.metrics.r2_score(truth, guess),
    }


def scores(truth: np.ndarray[Any, Any], guess: np.ndarray[Any, Any], epsilon: float) -> dict[str, float]:
    def nse(o: np.ndarray[Any, Any], s: np.ndarray[Any, Any]) -> float:
        return float(1 - ((s - o) ** 2).sum() / ((o - o.mean()) ** 2).sum())

    r, alpha, beta = np.corrcoef(truth, guess)[0, 1], guess.std() / truth.std(), guess.mean() / truth.mean()
    return {
        "nse": nse(truth, guess),
        "kge": float(1 - np.sqrt((r - 1) ** 2 + (alpha - 1) ** 2 + (beta - 1) ** 2)),
        "log_nse": nse(np.log(np.maximum(truth, 0) + epsilon), np.log(np.maximum(guess, 0) + epsilon)),
        "bias": float(beta - 1),
    }


def update(metric: Metric, data: Data, part: Any) -> None:
    values = {name: torch.from_numpy(column[part]) for name, column in data.items()}
    series = values.pop("series")
    if isinstance(metric, (ScaledErrors, RootScaledErrors)):
        values["scale"] = torch.arange(SERIES)[series][:, None].expand(-1, TARGETS)  # that of the first series is 0
    if isinstance(metric, (SeriesScores, RootScaledErrors)):
        values["series"] = series
    metric.update(*values.values())


def check(errors: Any, by_series: Any, data: Data) -> None:
    wide = {name: data[name].astype(np.float64) for name in ("predicted", "observed")}
    mask = data["mask"]

    def of(where: Any) -> dict[str, float]:
        kept = mask[where]
        return written_out(wide["observed"][where][kept], wide["predicted"][where][kept])

    for name, value in of(...).items():
        assert float(errors["all"][name]) == pytest.approx(value, rel=1e-6), name
    for step in range(HORIZON):
        for name, value in of(np.s_[:, step]).items():
            assert float(errors["by_step"][name][step]) == pytest.approx(value, rel=1e-6), name
    for target in range(TARGETS):
        for name, value in of(np.s_[:, :, target]).items():
            assert float(errors["by_target"][name][target]) == pytest.approx(value, rel=1e-6), name
    found: dict[str, list[float]] = {"nse": [], "kge": [], "log_nse": [], "bias": []}
    for series in range(SERIES):
        for target in range(TARGETS):
            mine = data["series"] == series
            kept = mask[mine][..., target]
            truth, guess = (wide[name][mine][..., target][kept] for name in ("observed", "predicted"))
            for name, value in scores(truth, guess, epsilon=0.01).items():
                assert float(by_series["by_series"][name][series, target]) == pytest.approx(value, rel=1e-6), name
                found[name].append(value)
    for name, values in found.items():
        assert float(by_series["all"][f"{name}_median"]) == pytest.approx(np.median(values), rel=1e-6)
        assert float(by_series["all"][f"{name}_q10"]) == pytest.approx(np.quantile(values, 0.1), rel=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 70))
def test_every_metric_is_that_of_its_formula_however_batched(seed: int, size: int) -> None:
    data = random_data(seed, 120)
    errors, by_series = MaskedErrors(HORIZON, TARGETS), SeriesScores(SERIES, TARGETS)
    for start in range(0, 120, size):
        update(errors, data, slice(start, start + size))
        update(by_series, data, slice(start, start + size))
    check(errors.compute(), by_series.compute(), data)


def scaled_errors() -> tuple[Metric, Metric]:
    return ScaledErrors(HORIZON, TARGETS), RootScaledErrors(SERIES, HORIZON, TARGETS)


def _share_of(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    data = random_data(7, 200)
    metrics = MaskedErrors(HORIZON, TARGETS), SeriesScores(SERIES, TARGETS), *scaled_errors()
    for start in range(rank * 16, 200, 32):  # batches of 16, dealt out in turn: the last one is smaller
        for metric in metrics:
            update(metric, data, slice(start, start + 16))
    found = [metric.compute() for metric in metrics]
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    in_two_processes(_share_of, tmp_path)
    data, alone = random_data(7, 200), scaled_errors()
    for metric in alone:
        update(metric, data, slice(None))
    for rank in range(2):
        errors, by_series, *scaled = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        check(errors, by_series, data)
        torch.testing.assert_close(scaled, [metric.compute() for metric in alone])


def test_scores_keep_their_digits_where_values_are_large() -> None:
    random = np.random.default_rng(0)
    truth = 1e7 + random.normal(0, 1, 4000)
    guess = truth + random.normal(0, 0.1, 4000)
    metric = SeriesScores(1, 1)
    for part in np.array_split(np.arange(4000), 37):
        predicted, observed = (torch.from_numpy(values[part])[:, None, None] for values in (guess, truth))
        metric.update(
            predicted,
            observed,
            torch.ones(len(part), 1, 1, dtype=torch.bool),
            torch.zeros(len(part), dtype=torch.int64),
        )
    wanted = 1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert float(metric.compute()["all"]["nse_median"]) == pytest.approx(wanted, rel=1e-7)


def test_series_with_too_few_targets_are_in_no_median() -> None:
    data, metric = random_data(3, 60), SeriesScores(SERIES, TARGETS, least=10_000)
    update(metric, data, slice(None))
    assert bool(metric.compute()["all"]["nse_median"].isnan())


@pytest.mark.parametrize(
    ("loss", "each"),
    [
        (MSE(), lambda r: r**2),
        (MAE(), abs),
        (Huber(delta=0.5), lambda r: r**2 / 2 if abs(r) <= 0.5 else 0.5 * (abs(r) - 0.25)),
        (Quantile(level=0.9), lambda r: 0.1 * r if r > 0 else -0.9 * r),
    ],
)
def test_a_loss_is_the_mean_of_its_formula_over_what_was_observed(loss: Loss, each: Any) -> None:
    data = random_data(1, 40)
    found = loss(*(torch.from_numpy(data[name]) for name in ("predicted", "observed", "mask")))
    residuals = (data["predicted"] - data["observed"])[data["mask"]].astype(np.float64)
    assert float(found) == pytest.approx(np.mean([each(residual) for residual in residuals]), rel=1e-5)


def test_the_nse_loss_weighs_each_series_by_its_own_variance() -> None:
    data, std = random_data(1, 40), np.random.default_rng(0).uniform(0.1, 3, (SERIES, TARGETS)).astype(np.float32)
    mine = torch.from_numpy(std[data["series"]])
    found = NSE(epsilon=0.1)(*(torch.from_numpy(data[name]) for name in ("predicted", "observed", "mask")), mine)
    squares = (data["predicted"] - data["observed"]) ** 2 / (std[data["series"]][:, None] + 0.1) ** 2
    assert float(found) == pytest.approx(float(squares[data["mask"]].mean()), rel=1e-5)


@pytest.mark.parametrize("loss", [MSE(), MAE(), Huber(), Quantile(), NSE()])
def test_a_missing_target_has_no_gradient_and_an_empty_batch_no_loss(loss: Loss) -> None:
    predicted = torch.randn(4, 2, 1, requires_grad=True)
    observed, mask = torch.full((4, 2, 1), float("nan")), torch.zeros(4, 2, 1, dtype=torch.bool)
    std = torch.ones(4, 1) if loss.by_series else None
    value = loss(predicted, observed, mask, std)
    value.backward()
    assert float(value.detach()) == 0
    assert predicted.grad is not None
    assert torch.equal(predicted.grad, torch.zeros(4, 2, 1))
