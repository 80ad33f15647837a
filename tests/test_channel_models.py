"""Models of channels, such as PatchTST, and RevIN: their formulas written out, and what they hold by design."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import softplus

from lightning_app.batch import Batch, BatchShape
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.models import ChannelMLP, ITransformer, PatchTST, TiDE, TSMixer
from lightning_app.models.channels import ChannelModel
from lightning_app.models.revin import RevIN, RevINKind
from lightning_app.tasks import Classification, Forecast, ProbabilisticForecast, Task
from zstore import UsageError, ingest

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

Array = NDArray[np.float64]
SHAPE = BatchShape(lookback=24, horizon=4, delay=0, n_inputs=3, n_targets=3, target_inputs=[0, 1, 2])
MIXED = BatchShape(lookback=24, horizon=4, delay=0, n_inputs=4, n_targets=2, target_inputs=[3, 1], n_static=2)
SMALL: dict[type[ChannelModel], dict[str, Any]] = {
    PatchTST: {"patch": 8, "patch_stride": 4, "width": 8, "heads": 2, "layers": 2, "hidden": 12},
    ITransformer: {"width": 8, "heads": 2, "layers": 2, "hidden": 12},
    TiDE: {"hidden": 16, "layers": 2, "row_width": 3, "row_hidden": 5, "covariate_width": 2, "covariate_hidden": 6},
    TSMixer: {"blocks": 2, "hidden": 5},
    ChannelMLP: {"hidden": 16},
}
TASKS: dict[str, Callable[[], Task]] = {
    "forecast": lambda: Forecast(),
    "quantiles": lambda: ProbabilisticForecast(),
    "normal": lambda: ProbabilisticForecast("normal"),
    "student_t": lambda: ProbabilisticForecast("student_t"),
}
every_model = pytest.mark.parametrize("kind", SMALL)


def small(kind: type[ChannelModel], shape: BatchShape = SHAPE, task: Task | None = None, **options: Any) -> Any:
    """A model of that kind in float64, with weights and running statistics at random, as it is used in a test."""
    torch.manual_seed(1)
    model = kind(shape, **{**SMALL[kind], **options}, task=task).double().eval()
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("norm.weight", "norm.bias", "running_mean", "revin.weight", "revin.bias", ".1.weight")):
            nn.init.uniform_(values, 0.5, 1.5)
        if name.endswith("running_var"):
            nn.init.uniform_(values, 0.5, 2.0)
    return model


def batch(shape: BatchShape = SHAPE, n: int = 5, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    draw: Callable[..., torch.Tensor] = lambda *size: torch.randn(*size, generator=random, dtype=torch.float64)  # noqa: E731
    return {
        "x": draw(n, shape.lookback, shape.n_inputs),
        "y": draw(n, shape.horizon, shape.n_targets),
        "mask": torch.ones(n, shape.horizon, shape.n_targets, dtype=torch.bool),
        "x_static": draw(n, shape.n_static),
        "x_future": draw(n, shape.horizon, shape.n_future),
        "series": torch.zeros(n, dtype=torch.int64),
        "time": torch.zeros(n, dtype=torch.int64),
    }


def revin(x: Array) -> tuple[Array, float, float]:
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in x) / len(x) + 1e-5)
    return (x - mean) / deviation, mean, deviation


def linear(layer: Any, x: Array) -> Array:
    return np.array([row @ x for row in layer.weight.detach().numpy()]) + layer.bias.detach().numpy()  # type: ignore[no-any-return]


def layer_norm(layer: Any, x: Array) -> Array:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    normal: Array = (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
    return normal * weight + bias  # type: ignore[no-any-return]


def batch_norm(layer: Any, x: Array) -> Array:
    mean, variance = layer.running_mean.numpy(), layer.running_var.numpy()
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return (x - mean) / np.sqrt(variance + layer.eps) * weight + bias  # type: ignore[no-any-return]


def gelu(x: Array) -> Array:
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def encoder_layer(layer: Any, tokens: list[Array], norm: Callable[[Any, Array], Array]) -> list[Array]:
    width = len(tokens[0])
    size = width // layer.heads
    projected = [linear(layer.queries_keys_values, token) for token in tokens]
    out = []
    for own, token in zip(projected, tokens, strict=True):
        mixed = np.zeros(width)
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            queries, keys = own[:width][part], [other[width : 2 * width][part] for other in projected]
            scores = np.exp([queries @ key / math.sqrt(size) for key in keys])
            shares = scores / scores.sum()
            mixed[part] = sum(s * other[2 * width :][part] for s, other in zip(shares, projected, strict=True))
        z = norm(layer.norms[0], token + linear(layer.out, mixed))
        out.append(norm(layer.norms[1], z + linear(layer.mlp[3], gelu(linear(layer.mlp[0], z)))))
    return out


def test_patchtst_follows_its_formulas() -> None:
    model, given_batch = small(PatchTST), batch()
    found = model(given_batch).detach().numpy()
    for window in range(5):
        for target in range(3):
            x, mean, deviation = revin(given_batch["x"][window, :, target].numpy())
            x = np.concatenate([x, np.repeat(x[-1], 4)])
            patches = [x[start : start + 8] for start in range(0, len(x) - 7, 4)]
            assert len(patches) == (24 - 8) // 4 + 2
            positions = model.positions.detach().numpy()
            tokens = [linear(model.embedding, patch) + positions[n] for n, patch in enumerate(patches)]
            for layer in model.layers:
                tokens = encoder_layer(layer, tokens, lambda norm, token: batch_norm(norm.norm, token))
            expected = linear(model.head, np.concatenate(tokens)) * deviation + mean
            np.testing.assert_allclose(found[window, :, target], expected, rtol=1e-6)


def test_itransformer_follows_its_formulas_with_other_inputs_and_known_channels_as_tokens() -> None:
    shape = BatchShape(24, 4, 0, n_inputs=4, n_targets=2, target_inputs=[3, 1], n_future=2)
    model, given_batch = small(ITransformer, shape), batch(shape)
    found = model(given_batch).detach().numpy()
    for window in range(5):
        x = given_batch["x"][window].numpy()
        normal = [revin(x[:, channel]) for channel in (3, 1)]
        tokens = [linear(model.past, past) for past in (normal[0][0], normal[1][0], x[:, 0], x[:, 2])]
        tokens += [linear(model.ahead, given_batch["x_future"][window, :, n].numpy()) for n in range(2)]
        for layer in model.layers:
            tokens = encoder_layer(layer, tokens, layer_norm)
        for target, (_, mean, deviation) in enumerate(normal):
            expected = linear(model.head, layer_norm(model.norm, tokens[target])) * deviation + mean
            np.testing.assert_allclose(found[window, :, target], expected, rtol=1e-6)


def test_tsmixer_follows_its_formulas() -> None:
    model, given_batch = small(TSMixer, MIXED), batch(MIXED)
    found = model(given_batch).detach().numpy()
    weight, bias = (values.detach().numpy()[:, 0] for values in (model.revin.weight, model.revin.bias))
    for window in range(5):
        x = given_batch["x"][window].numpy()
        normal = [revin(x[:, channel]) for channel in (3, 1)]
        z = np.stack([*(past * weight[n] + bias[n] for n, (past, _, _) in enumerate(normal)), x[:, 0], x[:, 2]])
        for block in model.blocks:
            by_time = batch_norm(block.norms[0], z.ravel()).reshape(z.shape)
            z = z + np.stack([np.maximum(linear(block.rows[0], row), 0) for row in by_time])
            by_channel = batch_norm(block.norms[1], z.ravel()).reshape(z.shape).T
            mixed = [linear(block.channels[3], np.maximum(linear(block.channels[0], row), 0)) for row in by_channel]
            z = z + np.stack(mixed).T
        for target, (_, mean, deviation) in enumerate(normal):
            ahead = (linear(model.head, z[target]) - bias[target]) / weight[target]
            np.testing.assert_allclose(found[window, :, target], ahead * deviation + mean, rtol=1e-6)


def residual_block(block: Any, x: Array) -> Array:
    out = linear(block.hidden[2], np.maximum(linear(block.hidden[0], x), 0)) + linear(block.linear, x)
    return out if isinstance(block.norm, nn.Identity) else layer_norm(block.norm, out)


def test_tide_follows_its_formulas_with_covariates_and_attributes() -> None:
    shape = BatchShape(24, 4, 0, n_inputs=4, n_targets=2, target_inputs=[3, 1], n_static=2, n_future=3)
    model, given_batch = small(TiDE, shape), batch(shape)
    found = model(given_batch).detach().numpy()
    weight, bias = (values.detach().numpy()[:, 0] for values in (model.revin.weight, model.revin.bias))
    for window in range(5):
        x = given_batch["x"][window].numpy()
        past_rows = [residual_block(model.past_rows, row[[0, 2]]) for row in x]
        known = [residual_block(model.target_rows, row) for row in given_batch["x_future"][window].numpy()]
        for target, channel in enumerate((3, 1)):
            past, mean, deviation = revin(x[:, channel])
            past = past * weight[target] + bias[target]
            state = np.concatenate([past, given_batch["x_static"][window].numpy(), *past_rows, *known])
            for block in [*model.encoder, *model.decoder]:
                state = residual_block(block, state)
            rows = state.reshape(4, 3)
            decoded = [residual_block(model.head, np.concatenate([rows[t], known[t]]))[0] for t in range(4)]
            ahead = (np.array(decoded) + linear(model.residual, past) - bias[target]) / weight[target]
            np.testing.assert_allclose(found[window, :, target], ahead * deviation + mean, rtol=1e-6)


def test_channelmlp_follows_its_formulas() -> None:
    model, given_batch = small(ChannelMLP), batch()
    found = model(given_batch).detach().numpy()
    first, _, second, _, last = model.perceptron
    for window in range(5):
        for target in range(3):
            x = given_batch["x"][window, :, target].numpy()
            centred = x - x.mean()
            hidden = np.maximum(linear(second, np.maximum(linear(first, centred), 0)), 0)
            ahead = linear(last, hidden) + model.linear.weight.detach().numpy() @ centred + x.mean()
            np.testing.assert_allclose(found[window, :, target], ahead, rtol=1e-9)


@every_model
@pytest.mark.parametrize("task", TASKS)
def test_a_centred_window_that_is_shifted_has_its_forecast_shifted_by_as_much(
    kind: type[ChannelModel], task: str
) -> None:
    model, moved = small(kind, task=TASKS[task](), revin="centred"), batch()
    moved["x"] = moved["x"] + 7
    before, after = model(batch()), model(moved)
    shifts = torch.tensor([7.0 * (role == "location") for role in model.task.roles]).double().repeat(3)
    torch.testing.assert_close(after - before, shifts.expand_as(after))


@given(
    st.sampled_from(["none", "plain", "affine", "centred"]), st.floats(-50, 50), st.floats(0.01, 50), st.integers(0, 99)
)
def test_revin_restores_the_window_that_it_normalised(kind: RevINKind, shift: float, scale: float, seed: int) -> None:
    module = RevIN(3, kind).double()
    for values in module.parameters():
        nn.init.uniform_(values, 0.3, 2.0)
    x = shift + scale * torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    normal, level = module(x)
    torch.testing.assert_close(module.restore(normal[..., None], level, ["location"])[..., 0], x)
    if kind in ("plain", "centred"):
        torch.testing.assert_close(normal.mean(-1), torch.zeros(2, 3).double(), atol=1e-6, rtol=0)


@given(st.floats(-30, 30), st.floats(1e-3, 1e3), st.floats(0.1, 9))
def test_revin_scales_what_the_softplus_of_a_spread_is_and_leaves_shapes(
    output: float, scale: float, weight: float
) -> None:
    module = RevIN(1, "affine")
    nn.init.constant_(module.get_parameter("weight"), -weight)
    outputs = torch.full((1, 1, 1, 2), output)
    level = module(scale * torch.tensor([[[-1.0, 1.0]]]))[1]
    found = module.restore(outputs, level, ["spread", "shape"])[0, 0, 0]
    expected = level.deviation / weight * softplus(torch.tensor(output))
    torch.testing.assert_close(softplus(found[0]), expected[0, 0, 0], rtol=1e-3, atol=1e-9)
    assert found[1] == outputs[..., 1]


@every_model
@pytest.mark.parametrize("kind_of_revin", ["plain", "affine"])
@pytest.mark.parametrize("task", TASKS)
def test_a_window_shifted_and_scaled_has_its_forecast_shifted_and_scaled(
    kind: type[ChannelModel], kind_of_revin: RevINKind, task: str
) -> None:
    model = small(kind, task=TASKS[task](), revin=kind_of_revin)
    given_batch, moved = batch(), batch()
    moved["x"] = 300 + 40 * moved["x"]
    before, after = model(given_batch).detach(), model(moved).detach()
    if task != "forecast":  # the quantiles, which is what all outputs together say
        levels = model.task._read
        before, after = (levels.quantiles(out.view(5, 4, 3, -1)) for out in (before, after))
        assert (before.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(after, 300 + 40 * before, rtol=1e-3, atol=0.3)  # deviations have a floor of 0.001


@every_model
def test_without_revin_a_shift_is_no_shift_of_the_forecast(kind: type[ChannelModel]) -> None:
    model = small(kind, revin="none")
    given_batch, moved = batch(), batch()
    moved["x"] = 300 + 40 * moved["x"]
    assert not torch.allclose(model(moved), 300 + 40 * model(given_batch), rtol=1e-2)


def test_itransformer_permutes_its_forecasts_as_channels_are_permuted() -> None:
    model, given_batch = small(ITransformer), batch()
    before = model(given_batch)
    given_batch["x"] = given_batch["x"][..., [2, 0, 1]]
    torch.testing.assert_close(model(given_batch), before[..., [2, 0, 1]])


def test_patchtst_forecasts_each_channel_by_itself_and_all_alike() -> None:
    model, given_batch = small(PatchTST), batch()
    before = model(given_batch)
    given_batch["x"][..., 1] = given_batch["x"][..., 0]
    after = model(given_batch)
    torch.testing.assert_close(after[..., [0, 2]], before[..., [0, 2]])
    torch.testing.assert_close(after[..., 1], before[..., 0])


@pytest.mark.parametrize("kind", [ITransformer, TSMixer])
def test_forecasts_of_a_channel_follow_the_others_where_a_model_mixes_them(kind: type[ChannelModel]) -> None:
    model, given_batch = small(kind), batch()
    before = model(given_batch)
    given_batch["x"][:, 3, 1] += 1
    assert (model(given_batch)[..., 0] != before[..., 0]).all()


def test_tsmixer_mixes_rows_of_each_channel_alone_where_channels_are_not_mixed() -> None:
    model, given_batch = small(TSMixer), batch()
    for block in model.blocks:
        for layer in (block.channels[3].weight, block.channels[3].bias):
            nn.init.zeros_(layer)
    before = model(given_batch)
    given_batch["x"][:, 3, 1] += 1
    after = model(given_batch)
    torch.testing.assert_close(after[..., [0, 2]], before[..., [0, 2]])
    assert (after[..., 1] != before[..., 1]).all()


def test_tide_reads_static_attributes_known_channels_and_other_inputs() -> None:
    shape = BatchShape(24, 4, 0, n_inputs=4, n_targets=2, target_inputs=[3, 1], n_static=2, n_future=3)
    model = small(TiDE, shape)
    before = model(batch(shape))
    for name, column in (("x_static", (1,)), ("x_future", (2, 1)), ("x", (5, 0))):
        changed: Any = batch(shape)
        changed[name][(slice(None), *column)] += 1
        assert (model(changed) != before).any(dim=1).all(), name


@every_model
@pytest.mark.parametrize("task", TASKS)
def test_every_weight_has_a_finite_gradient_that_is_not_zero(kind: type[ChannelModel], task: str) -> None:
    model = small(kind, MIXED, TASKS[task](), dropout=0.1).float().train()
    given_batch = {name: part.float() if part.is_floating_point() else part for name, part in batch(MIXED, 64).items()}  # type: ignore[attr-defined]
    assert model(given_batch).shape == (64, 4, model.n_outputs)
    model.loss_of(model, given_batch).backward()
    for name, values in model.named_parameters():
        assert values.grad is not None, name
        assert values.grad.isfinite().all(), name
        if name != "revin.bias":  # which a head with a bias of its own may balance
            assert values.grad.abs().max() > 0, name


@every_model
@pytest.mark.parametrize("task", TASKS)
def test_windows_that_miss_everything_have_finite_forecasts_losses_and_gradients(
    kind: type[ChannelModel], task: str
) -> None:
    model, given_batch = small(kind, task=TASKS[task]()).train(), batch()
    given_batch["x"] = torch.zeros_like(given_batch["x"])
    loss = model.loss_of(model, given_batch)
    loss.backward()
    assert loss.isfinite()
    assert all(values.grad.isfinite().all() for values in model.parameters())


@every_model
def test_bfloat16_gives_about_the_same_forecast_in_float32(kind: type[ChannelModel]) -> None:
    shape = BatchShape(24, 4, 0, n_inputs=4, n_targets=2, target_inputs=[3, 1], n_static=2, n_future=2 * (kind is TiDE))
    model = small(kind, shape).float()
    given_batch: Any = {k: v.float() if v.is_floating_point() else v for k, v in batch(shape).items()}  # type: ignore[attr-defined]
    expected = model(given_batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(given_batch)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()


@every_model
def test_what_is_exported_forecasts_the_same_for_any_number_of_windows(kind: type[ChannelModel]) -> None:
    class Plain(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor, x_static: torch.Tensor) -> torch.Tensor:
            return self.model({"x": x, "x_static": x_static})  # type: ignore[no-any-return]

    model = small(kind)
    parts = [batch(seed=2)[name] for name in ("x", "x_static")]
    n = torch.export.Dim("n", min=2, max=64)
    exported = torch.export.export(Plain(model), tuple(parts), dynamic_shapes=({0: n}, {0: n}))
    other = batch(n=9)
    torch.testing.assert_close(exported.module()(other["x"], other["x_static"]), model(other))


@every_model
def test_what_a_model_cannot_do_is_refused(kind: type[ChannelModel]) -> None:
    outside = BatchShape(24, 4, 0, n_inputs=2, n_targets=1, target_inputs=[-1])
    with pytest.raises(UsageError, match=f"{kind.__name__} with a target that is no input"):
        kind(outside, **SMALL[kind])
    words = BatchShape(24, 1, 0, n_inputs=2, n_targets=1, target_inputs=[0], classes=[["a", "b"]])
    with pytest.raises(UsageError, match=f"{kind.__name__} for a Classification"):
        kind(words, **SMALL[kind], task=Classification())


@pytest.mark.parametrize("kind", [PatchTST, TSMixer, ChannelMLP])
def test_known_channels_are_refused_by_models_that_do_not_read_them(kind: type[ChannelModel]) -> None:
    known = BatchShape(24, 4, 0, n_inputs=2, n_targets=1, target_inputs=[0], n_future=1)
    with pytest.raises(UsageError, match="with channels known in advance"):
        kind(known, **SMALL[kind])


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (PatchTST, {"patch": 25}, "patches of 25 rows"),
        (PatchTST, {"patch": 4, "patch_stride": 5}, "patches of 4 rows, 5 apart"),
        (PatchTST, {"heads": 3}, "width 8 for 3 heads"),
        (ITransformer, {"heads": 0}, "width 8 for 0 heads"),
        (TiDE, {"layers": 0}, "layers 0"),
        (ChannelMLP, {"layers": 0}, "layers 0"),
    ],
)
def test_wrong_sizes_are_refused(kind: type[ChannelModel], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(SHAPE, **{**SMALL[kind], **wrong})


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three series side by side, a tenth of whose values are missing."""
    folder, random = tmp_path_factory.mktemp("gappy"), np.random.default_rng(0)
    rows = []
    for number in range(3):
        values = 10 * number + np.sin(np.arange(200) / 4)[:, None] + random.normal(0, 0.1, (200, 2))
        for hour, pair in enumerate(values):
            time = str(np.datetime64("2020-01-01T00") + np.timedelta64(hour, "h")).replace("T", " ") + ":00"
            rows.append([f"s{number}", time, *("" if random.random() < 0.1 else f"{v:.3f}" for v in pair)])
    csv = write_table(folder / "gappy.csv", ["id", "time", "a", "b"], rows)
    ingest(csv, folder / "gappy.zarr", id="id", time="time")
    return folder / "gappy.zarr"


@every_model
@pytest.mark.parametrize("panel", [None, Panel()])
def test_a_fit_with_gaps_jitter_and_quantiles_gets_better_and_is_loaded_again(
    kind: type[ChannelModel], panel: Panel | None, gappy: Path, tmp_path: Path
) -> None:
    pl.seed_everything(0)
    options: Any = {"stride": 2, "jitter": 1, "panel": panel, "batch_size": 16 if panel is None else 6}
    data = WindowDataModule(str(gappy), lookback=24, horizon=4, **options)
    model: Any = kind(data.shape, **{**SMALL[kind], "dropout": 0.0}, task=ProbabilisticForecast())
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=2, default_root_dir=tmp_path, **quiet)
    trainer.validate(model, data, verbose=False)
    before = model.exact["val/crps"]
    trainer.fit(model, data)
    trainer.validate(model, data, verbose=False)
    assert model.exact["val/crps"] < before
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "own.ckpt")
    assert all(torch.equal(again.state_dict()[name], values) for name, values in model.state_dict().items())
