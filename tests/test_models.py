"""Models, metrics and schedules against formulas written out plainly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.batch import Batch, BatchShape
from lightning_app.metrics import MaskedErrors
from lightning_app.models import LSTM, DLinear, ForecastModel, NLinear, Repeat
from lightning_app.schedules import HoldThenDecay
from zstore import UsageError

SHAPE = BatchShape(lookback=30, horizon=5, delay=0, n_inputs=3, n_targets=2, target_inputs=[2, 0])


def batch(shape: BatchShape, n: int = 4) -> Batch:
    torch.manual_seed(0)
    return {
        "x": torch.randn(n, shape.lookback, shape.n_inputs),
        "y": torch.randn(n, shape.horizon, shape.n_targets),
        "mask": torch.rand(n, shape.horizon, shape.n_targets) > 0.3,
        "x_static": torch.randn(n, shape.n_static),
        "x_future": torch.randn(n, shape.horizon, shape.n_future),
        "series": torch.zeros(n, dtype=torch.int64),
        "time": torch.zeros(n, dtype=torch.int64),
    }


def test_repeat_repeats_the_last_input_of_each_target() -> None:
    given_batch = batch(SHAPE)
    found = Repeat(SHAPE)(given_batch)
    for step in range(5):
        assert torch.equal(found[:, step], given_batch["x"][:, -1, [2, 0]])


def test_nlinear_is_a_linear_map_of_differences_to_the_last_value() -> None:
    model, given_batch = NLinear(SHAPE), batch(SHAPE)
    weight, bias = model.linear.weight, model.linear.bias
    for target, channel in enumerate([2, 0]):
        x = given_batch["x"][..., channel]
        expected = (x - x[:, -1:]) @ weight.T + bias + x[:, -1:]
        torch.testing.assert_close(model(given_batch)[..., target], expected)


def test_dlinear_adds_the_maps_of_trend_and_rest() -> None:
    model, given_batch = DLinear(SHAPE, kernel=7), batch(SHAPE)
    for target, channel in enumerate([2, 0]):
        x = given_batch["x"][..., channel].numpy()
        padded = np.concatenate([np.repeat(x[:, :1], 3, 1), x, np.repeat(x[:, -1:], 3, 1)], axis=1)
        trend = torch.tensor(np.stack([padded[:, t : t + 7].mean(axis=1) for t in range(30)], axis=1))
        expected = model.trend(trend) + model.rest(torch.tensor(x) - trend)
        torch.testing.assert_close(model(given_batch)[..., target], expected)


def test_an_lstm_step_follows_the_gate_equations() -> None:
    shape = BatchShape(2, 1, 0, n_inputs=3, n_targets=1, target_inputs=[-1], n_static=2)
    model, given_batch = LSTM(shape, hidden=4), batch(shape)
    weights = model.recurrent
    h, c = torch.zeros(4, 4), torch.zeros(4, 4)
    for t in range(2):
        inputs = model.past(torch.cat([given_batch["x"][:, t], given_batch["x_static"]], dim=1))
        gates = inputs @ weights.weight_ih_l0.T + weights.bias_ih_l0 + h @ weights.weight_hh_l0.T + weights.bias_hh_l0
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    torch.testing.assert_close(model(given_batch)[:, 0], model.head(h))


def test_the_lstm_uses_what_is_known_of_each_target_day_and_nothing_later() -> None:
    shape = BatchShape(6, 4, 0, n_inputs=2, n_targets=1, target_inputs=[0], n_static=1, n_future=2)
    model, given_batch = LSTM(shape, hidden=8), batch(shape)
    before = model(given_batch)
    given_batch["x_future"][:, 2] += 1
    after = model(given_batch)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])


@pytest.mark.parametrize("model", [NLinear(SHAPE), DLinear(SHAPE), LSTM(SHAPE, hidden=16)])
def test_one_batch_can_be_learned_by_heart(model: ForecastModel) -> None:
    given_batch = batch(SHAPE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(1500):
        loss = ((model(given_batch) - given_batch["y"]) ** 2 * given_batch["mask"]).sum() / given_batch["mask"].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Repeat(BatchShape(3, 1, 0, 1, 1, [-1])), "no input"),
        (lambda: Repeat(BatchShape(3, 1, -1, 1, 1, [0])), "delay -1"),
        (lambda: NLinear(BatchShape(3, 1, 0, 1, 1, [-1])), "no input"),
        (lambda: DLinear(SHAPE, kernel=4), "kernel 4"),
        (lambda: LSTM(BatchShape(3, 1, 1, 1, 1, [0], n_future=1)), "delay 1"),
    ],
)
def test_models_refuse_batches_they_cannot_use(build: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()  # type: ignore[operator]


@given(st.integers(1, 40), st.integers(1, 15), st.floats(0, 1), st.integers(0, 2**31))
def test_errors_are_those_of_all_observed_targets_however_batched(n: int, size: int, share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, observed = random.normal(size=(2, n, 3, 2)).astype(np.float32)
    mask = random.random((n, 3, 2)) < share
    errors = MaskedErrors()
    for start in range(0, n, size):
        part = slice(start, start + size)
        errors.update(*(torch.from_numpy(values[part]) for values in (predicted, observed, mask)))
    found = errors.compute()
    residual = (predicted - observed)[mask].astype(np.float64)
    if len(residual):
        expected = {"mse": np.mean(residual**2), "mae": np.mean(abs(residual)), "rmse": np.mean(residual**2) ** 0.5}
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-6)
    else:
        assert all(torch.isnan(value) for value in found.values())


def test_a_missing_target_cannot_spoil_the_error() -> None:
    errors = MaskedErrors()
    errors.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, float("nan")]), torch.tensor([True, False]))
    assert float(errors.compute()["mse"]) == 1.0


def test_the_rate_is_held_and_then_halved_each_epoch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = HoldThenDecay(optimizer, hold=2, factor=0.5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.125]
