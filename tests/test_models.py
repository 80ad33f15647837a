"""Models, metrics and schedules against formulas written out plainly."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.batch import Batch, BatchShape
from lightning_app.losses import Huber, Quantile
from lightning_app.metrics import MaskedErrors
from lightning_app.models import (
    EALSTM,
    GRU,
    LSTM,
    TCN,
    BranchLSTM,
    Climatology,
    DLinear,
    Ensemble,
    Linear,
    NLinear,
    Repeat,
    SeasonalRepeat,
    TaskModel,
)
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
    weights: Any = model.recurrent  # torch has its weights as tensors or modules
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


def test_seasonal_repeat_repeats_the_row_a_season_before() -> None:
    shape = BatchShape(lookback=10, horizon=9, delay=2, n_inputs=3, n_targets=1, target_inputs=[1])
    given_batch = batch(shape)
    found = SeasonalRepeat(shape, season=4)(given_batch)
    for step in range(9):
        row = 10 + 2 + step
        while row >= 10:
            row -= 4
        assert torch.equal(found[:, step, 0], given_batch["x"][:, row, 1])


def test_linear_is_a_linear_map_of_each_channel() -> None:
    model, given_batch = Linear(SHAPE), batch(SHAPE)
    expected = given_batch["x"][..., 2] @ model.linear.weight.T + model.linear.bias
    torch.testing.assert_close(model(given_batch)[..., 0], expected)


def test_an_ealstm_step_follows_the_equations_of_its_paper() -> None:
    shape = BatchShape(3, 1, 0, n_inputs=2, n_targets=1, target_inputs=[-1], n_static=3)
    model, given_batch = EALSTM(shape, hidden=4), batch(shape)
    gate = torch.sigmoid(model.gate(given_batch["x_static"]))
    h, c = torch.zeros(4, 4), torch.zeros(4, 4)
    for t in range(3):
        f, g, o = (model.inputs(given_batch["x"][:, t]) + model.state(h)).chunk(3, dim=1)
        c = torch.sigmoid(f) * c + gate * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    torch.testing.assert_close(model(given_batch)[:, 0], model.head(h))


def test_a_branchlstm_joins_the_last_state_and_the_branch_of_static_attributes() -> None:
    shape = BatchShape(5, 3, 0, n_inputs=2, n_targets=2, target_inputs=[-1, 0], n_static=3)
    model, given_batch = BranchLSTM(shape), batch(shape)
    assert [layer.out_features for layer in model.branch if isinstance(layer, torch.nn.Linear)] == [32, 32]
    states, _ = model.recurrent(model.past(given_batch["x"]))
    joined = torch.cat([states[:, -1], model.branch(given_batch["x_static"])], dim=1)
    assert joined.shape == (4, 64 + 32)
    torch.testing.assert_close(model(given_batch), model.head(joined).view(4, 3, 2))


MANY = BatchShape(lookback=12, horizon=5, delay=-5, n_inputs=2, n_targets=1, target_inputs=[-1], n_static=2)


@pytest.mark.parametrize("build", [LSTM, GRU, EALSTM, BranchLSTM, TCN])
def test_where_targets_are_input_rows_each_is_read_from_its_own_and_earlier_rows(
    build: type[TaskModel],
) -> None:
    model, given_batch = build(MANY), batch(MANY)
    before = model(given_batch)
    assert before.shape == (4, 5, 1)
    given_batch["x"][:, 9] += 1  # the row of the third target
    after = model(given_batch)
    torch.testing.assert_close(before[:, :2], after[:, :2], rtol=0, atol=0)
    assert (before[:, 2] != after[:, 2]).all()


def test_a_tcn_sees_the_whole_lookback_and_no_more_blocks_than_that_takes() -> None:
    shape = BatchShape(40, 1, 0, n_inputs=1, n_targets=1, target_inputs=[0])
    model, given_batch = TCN(shape), batch(shape)
    assert len(model.blocks) == 4  # 1 + 2 * 2 * (2**4 - 1) = 61 rows
    before = model(given_batch)
    given_batch["x"][:, 0] += 5
    assert not torch.equal(before, model(given_batch))


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python:RuntimeWarning")
def test_a_compiled_model_predicts_what_it_does_otherwise() -> None:
    torch.manual_seed(0)
    plain = NLinear(SHAPE)
    compiled = NLinear(SHAPE, compile_with="aot_eager")
    compiled.load_state_dict(plain.state_dict())
    compiled.setup("fit")
    torch.testing.assert_close(compiled._predict(batch(SHAPE)), plain(batch(SHAPE)))


@pytest.mark.parametrize(
    "model",
    [
        NLinear(SHAPE),
        Linear(SHAPE),
        DLinear(SHAPE),
        LSTM(SHAPE, hidden=16),
        GRU(SHAPE, hidden=16),
        TCN(SHAPE, hidden=16),
        EALSTM(BatchShape(30, 5, 0, 3, 2, [2, 0], n_static=2), hidden=16),
        BranchLSTM(BatchShape(30, 5, 0, 3, 2, [2, 0], n_static=2), hidden=16),
    ],
    ids=lambda model: type(model).__name__,
)
def test_one_batch_can_be_learned_by_heart(model: TaskModel) -> None:
    given_batch = batch(model.shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    best = float("inf")
    for _ in range(1500):
        if best < 0.01:
            break
        loss = ((model(given_batch) - given_batch["y"]) ** 2 * given_batch["mask"]).sum() / given_batch["mask"].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = float(loss.detach())
    assert best < 0.01


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Repeat(BatchShape(3, 1, 0, 1, 1, [-1])), "no input"),
        (lambda: Repeat(BatchShape(3, 1, -1, 1, 1, [0])), "delay -1"),
        (lambda: NLinear(BatchShape(3, 1, 0, 1, 1, [-1])), "no input"),
        (lambda: DLinear(SHAPE, kernel=4), "kernel 4"),
        (lambda: LSTM(BatchShape(3, 1, 1, 1, 1, [0], n_future=1)), "delay 1"),
        (lambda: EALSTM(SHAPE), "EALSTM without static"),
        (lambda: EALSTM(BatchShape(3, 1, 0, 1, 1, [0], 2, 1)), "EALSTM with channels known"),
        (lambda: TCN(BatchShape(3, 1, 0, 1, 1, [0], 2, 1)), "TCN with channels known"),
        (lambda: TCN(SHAPE, kernel=1), "kernel 1"),
        (lambda: BranchLSTM(SHAPE), "BranchLSTM without static"),
        (lambda: Climatology(SHAPE), "without time features"),
        (lambda: Linear(BatchShape(3, 1, 0, 1, 1, [-1])), "no input"),
        (lambda: SeasonalRepeat(SHAPE, season=31), "season of 31 rows"),
        (lambda: SeasonalRepeat(BatchShape(3, 1, -1, 1, 1, [0]), season=2), "delay -1"),
        (lambda: Huber(delta=0), "delta 0"),
        (lambda: Quantile(level=1.0), "quantile 1.0"),
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
    errors = MaskedErrors(3, 2)
    for start in range(0, n, size):
        part = slice(start, start + size)
        errors.update(*(torch.from_numpy(values[part]) for values in (predicted, observed, mask)))
    found = errors.compute()["all"]
    residual = (predicted - observed)[mask].astype(np.float64)
    if len(residual):
        expected = {"mse": np.mean(residual**2), "mae": np.mean(abs(residual)), "rmse": np.mean(residual**2) ** 0.5}
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-6)
    else:
        assert all(torch.isnan(value) for value in found.values())


def test_a_missing_target_cannot_spoil_the_error() -> None:
    errors = MaskedErrors(2, 1)
    pair = torch.tensor([1.0, 5.0]), torch.tensor([2.0, float("nan")]), torch.tensor([True, False])
    errors.update(*(values.view(1, 2, 1) for values in pair))
    assert float(errors.compute()["all"]["mse"]) == 1.0


def test_the_rate_is_held_and_then_halved_each_epoch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = HoldThenDecay(optimizer, hold=2, factor=0.5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.125]


def test_an_ensemble_predicts_the_mean_of_its_members_and_trains_each_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, given_batch = Ensemble(SHAPE, "LSTM", 3, {"hidden": 4}, loss=Huber()), batch(SHAPE)
    alone = [member(given_batch) for member in model.members]
    assert not torch.allclose(alone[0], alone[1])
    torch.testing.assert_close(model(given_batch), torch.stack(alone).mean(dim=0))
    monkeypatch.setattr(Ensemble, "log", lambda *_, **__: None)
    model.training_step(given_batch, 0).backward()  # type: ignore[no-untyped-call]
    for member in model.members:
        weights = list(member.parameters())
        found = [weight.grad for weight in weights]
        by_itself = Huber()(member(given_batch), given_batch["y"], given_batch["mask"]) / 3
        torch.testing.assert_close(found, list(torch.autograd.grad(by_itself, weights)))


@pytest.mark.parametrize(
    ("member", "members", "arguments", "message"),
    [
        ("Repeat", 2, None, "an ensemble of 2 x Repeat; expected one or more of a model with weights"),
        ("LSTM", 0, None, "an ensemble of 0 x LSTM"),
        ("Nonsense", 2, None, "an ensemble of 2 x Nonsense"),
        ("LSTM", 2, {"width": 3}, "arguments of LSTM .* expected those of its class"),
    ],
)
def test_an_ensemble_of_what_cannot_be_is_refused(
    member: str, members: int, arguments: dict[str, int] | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Ensemble(SHAPE, member, members, arguments)
