"""Policies: mixtures over chunks, padded actions, actions relative to a hand, averaged weights."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from lightning_app.batch import Batch, BatchShape
from lightning_app.checkpoints import read_checkpoint
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.losses import MAE, MSE
from lightning_app.models import GRU, MLP, SpatialSoftmaxCNN, TaskModel
from lightning_app.models.spatialsoftmax import SpatialSoftmax
from lightning_app.tasks import Policy
from lightning_app.tasks.mixture import ChunkMixture
from zstore import Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")

App = Callable[..., CompletedProcess[str]]
WORDS = ["push", "pull"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve episodes of 20 to 31 rows: hand, action, a hole in `loose`, a positive `force`, and an instruction."""
    folder, rng = tmp_path_factory.mktemp("robots"), np.random.default_rng(0)
    lengths = np.arange(20, 32)
    n_rows = int(lengths.sum())
    hand = rng.normal(300, 40, (n_rows, 2)).round(2)
    action = (hand + rng.normal(0, 20, (n_rows, 2))).round(1)
    loose = rng.normal(size=n_rows)
    loose[5] = np.nan
    ids = [f"e{number:02d}" for number in range(len(lengths))]
    table = pa.table(
        {
            "id": np.repeat(ids, lengths),
            "t": np.concatenate([np.arange(length) for length in lengths]),
            "hand": pa.FixedSizeListArray.from_arrays(hand.ravel(), 2),
            "action": pa.FixedSizeListArray.from_arrays(action.ravel(), 2),
            "loose": loose,
            "force": rng.gamma(2.0, size=n_rows),
        }
    )
    (folder / "told.csv").write_text("id,word\n" + "".join(f"{id_},{WORDS[n % 2]}\n" for n, id_ in enumerate(ids)))
    ingest(table, folder / "robots.zarr", id="id", time="t", static=folder / "told.csv")
    return open_store(folder / "robots.zarr")


def module(store: Store, **options: Any) -> WindowDataModule:
    usual: dict[str, Any] = {"lookback": 2, "horizon": 6, "delay": -1, "pad_before": "repeat", "pad_after": "repeat"}
    usual |= {"channels": ["hand"], "targets": ["action"], "batch_size": 16, "split": Split(by="series")}
    return WindowDataModule(str(store.path), cache=str(Path(store.path).parent / "cache"), **{**usual, **options})


class Beside:
    """What a task asks of the model that it belongs to, without a trainer."""

    def __init__(self, data: WindowDataModule) -> None:
        self.data, self.device, self.global_step = data, torch.device("cpu"), 0

    def share(self, n: torch.Tensor) -> float:
        return 1.0


def measured(data: WindowDataModule) -> Batch:
    """The first training windows, with actions as the store has them."""
    return next(iter(data.loaders.in_order(data.proved("train", 1), True)))


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_the_likelihood_of_a_mixture_is_that_of_torch_distributions(
    seed: int, n_modes: int, horizon: int, n_targets: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    outputs = torch.randn(3, horizon, ChunkMixture.n_outputs(n_modes, n_targets), generator=random)
    chunks = torch.randn(3, horizon, n_targets, generator=random)
    mixture = ChunkMixture.of(outputs, n_modes, 0.01)
    of_modes = Independent(Normal(mixture.means, mixture.deviations), 2)
    both: Any = MixtureSameFamily(Categorical(logits=mixture.log_weights), of_modes)
    expected = both.log_prob(chunks)
    found = mixture.log_probability(chunks, torch.ones_like(chunks, dtype=torch.bool))
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 2**31))
def test_modes_are_drawn_as_often_as_they_weigh(seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = torch.from_numpy(random.dirichlet([1.0, 1.0, 1.0])).float()
    means = torch.arange(3.0).view(1, 3, 1, 1).expand(1000, -1, 2, 1)
    mixture = ChunkMixture(weights.log().expand(1000, -1), means, torch.ones_like(means))
    drawn = mixture.drawn((torch.arange(1000) + 0.5) / 1000)
    shares = torch.bincount(drawn[:, 0, 0].long(), minlength=3) / 1000
    assert (shares - weights).abs().max() < 0.002
    assert (drawn == drawn[:, :1]).all()  # a mode is a whole chunk
    assert int(mixture.likeliest()[0, 0, 0]) == int(weights.argmax())


@pytest.mark.parametrize("options", [{}, {"loss": MSE()}, {"modes": 3}], ids=["mae", "mse", "mixture"])
def test_padded_actions_count_in_no_loss_and_no_metric(store: Store, options: dict[str, Any]) -> None:
    data = module(store)
    batch = measured(data)
    assert batch["y_pad"].any()
    task: Policy = Policy(relative_to=["hand.0", None], **options)
    task.suit(data.shape)
    outputs = torch.randn(len(batch["x"]), data.shape.horizon, task.n_outputs)
    other: Batch = {**batch, "y": batch["y"].clone(), "y_source": batch["y_source"].clone()}
    other["y"][~batch["mask"]] = 1e9
    other["y_source"].view(torch.float64)[~batch["mask"]] = 1e9
    found = []
    for windows in (batch, other):
        loss = task.loss_of(outputs, windows, Beside(data))  # type: ignore[arg-type]
        task.update("val", outputs, windows, Beside(data))  # type: ignore[arg-type]
        found.append([loss, *task.measured("val", Beside(data))["all"].values()])  # type: ignore[arg-type]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0, equal_nan=True)
    assert torch.isfinite(found[0][0])


@pytest.mark.parametrize("scale_by", ["channel", "series"])
@pytest.mark.parametrize("scaler", ["standard", "minmax_signed", "none"])
def test_relative_actions_become_the_actions_that_they_were(store: Store, scaler: Any, scale_by: Any) -> None:
    data = module(store, scaler=scaler, scale_by=scale_by, unknown="own_column")
    batch = measured(data)
    task = Policy(relative_to=["hand.0", "hand.1"])
    task.suit(data.shape)
    assert data.layout.inputs == ["hand.0", "hand.1"]
    perfect = task._relative(batch, Beside(data))  # type: ignore[arg-type]
    found = task.predictions(perfect, batch, Beside(data))  # type: ignore[arg-type]
    done = batch["y_source"].view(torch.float64)
    assert (found - done)[batch["mask"]].abs().max() < 1e-4  # of 300: float32 has 3e-5 there
    zeros = task.predictions(torch.zeros_like(perfect), batch, Beside(data))  # type: ignore[arg-type]
    first = data.proved("train", 1).locate(np.arange(len(zeros)))[0] + 1  # the last input row
    rows = np.empty((store.n_rows, 2))
    store.decode(["hand.0", "hand.1"], rows)
    hand = rows[first]
    assert np.abs(zeros.numpy() - hand[:, None]).max() < 1e-4


def test_what_actions_cannot_be_relative_to_is_refused(store: Store) -> None:
    def last_inputs(name: str, **options: Any) -> None:
        data = module(store, channels=["hand", "loose", "force"], **options)
        batch = measured(data)
        data.last_inputs([name, None], batch["x"], batch["series"])

    with pytest.raises(UsageError, match=r"'hand\.7', which is no input"):
        last_inputs("hand.7")
    with pytest.raises(UsageError, match="'loose', which may be missing"):
        last_inputs("loose")
    with pytest.raises(UsageError, match="'force', which is scaled as a logarithm"):
        last_inputs("force", scaler={"force": "log1p"})
    with pytest.raises(UsageError, match="'force', which is clipped"):
        last_inputs("force", scaler={"force": "quantile"})


def test_policies_that_cannot_be_meant_are_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="a mixture of 0 modes"):
        Policy(modes=0)
    with pytest.raises(UsageError, match=r"a loss \(MAE\) beside modes"):
        Policy(modes=2, loss=MAE())
    with pytest.raises(UsageError, match="relative_to with 1 channels; expected one, or null, for each of 2 targets"):
        Policy(relative_to=["hand.0"]).suit(module(store).shape)


def test_the_error_of_a_policy_is_of_actions_in_source_units(store: Store) -> None:
    data = module(store)
    batch = measured(data)
    task = Policy()
    task.suit(data.shape)
    outputs = batch["y"] + 0.5
    task.update("test", outputs, batch, Beside(data))  # type: ignore[arg-type]
    report = task.measured("test", Beside(data))  # type: ignore[arg-type]
    expected = 0.5 * data.scaler.of(data.targets).scale
    assert report["by_target"]["mae"].numpy() == pytest.approx(expected, rel=1e-5)


def test_the_likeliest_of_all_chunks_is_what_is_done_and_a_drawn_one_is_another_of_them(store: Store) -> None:
    data = module(store)
    batch = measured(data)
    beside: Any = Beside(data)
    task = Policy(modes=3, relative_to=["hand.0", None])
    task.suit(data.shape)
    outputs = torch.randn(len(batch["x"]), data.shape.horizon, task.n_outputs)
    weights, found = task.all_chunks(outputs, batch, beside)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(found)))
    windows = torch.arange(len(found))
    assert torch.equal(task.predictions(outputs, batch, beside), found[windows, weights.argmax(1)])
    last = torch.ones(len(found)) - 1e-7
    assert torch.equal(task.chunks(outputs, batch, beside, last), found[:, 2])
    single = Policy(relative_to=["hand.0", None])
    single.suit(data.shape)
    weights, found = single.all_chunks(outputs[..., :2], batch, beside)
    assert torch.equal(weights, torch.ones(len(found), 1))
    assert torch.equal(found[:, 0], single.predictions(outputs[..., :2], batch, beside))


def test_images_are_pooled_before_they_are_read() -> None:
    axes, types = {"eye": ["y", "x", "colour"]}, {"eye": "uint8"}
    shape = BatchShape(1, 4, -1, 3, 2, [-1, -1], fields={"eye": [1, 32, 48, 3]}, field_axes=axes, field_dtypes=types)
    eye: Any = SpatialSoftmaxCNN(shape, pool=2, task=Policy()).eyes[0]
    stored = torch.randint(0, 256, (2, 1, 32, 48, 3), dtype=torch.uint8)
    means = stored.view(2, 16, 2, 24, 2, 3).float().mean(dim=(2, 4)) / 127.5 - 1
    torch.testing.assert_close(eye(stored), eye.where(eye.convolutions(means.movedim(3, 1))).flatten(1))
    with pytest.raises(UsageError, match=r"of 32 x 48 x 3 for convolutions, with pool 3; expected images of 16 x 16"):
        SpatialSoftmaxCNN(shape, pool=3, task=Policy())


def test_spatial_softmax_tells_where_a_map_is_bright() -> None:
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 4, 0] = maps[0, 1, 2, 8] = 1000
    found = SpatialSoftmax(5, 9)(maps)
    assert found.tolist() == [[[-1.0, 1.0], [1.0, 0.0]]]


@pytest.mark.parametrize("model", [MLP, GRU, SpatialSoftmaxCNN])
def test_models_learn_chunks_and_read_instructions(model: type[TaskModel]) -> None:
    axes, types = {"eye": ["y", "x", "colour"]}, {"eye": "uint8"}
    shape = BatchShape(2, 4, -1, 3, 2, [-1, -1], n_static=2)
    if model is SpatialSoftmaxCNN:
        shape = replace(shape, fields={"eye": [2, 24, 32, 3]}, field_axes=axes, field_dtypes=types)
    torch.manual_seed(0)
    policy = model(shape, task=Policy(modes=2))
    batch: Any = {
        "x": torch.randn(2, 2, 3).repeat(2, 1, 1),
        "x_static": torch.eye(2).repeat_interleave(2, dim=0),
        "x_future": torch.zeros(4, 4, 0),
        "eye": torch.randint(0, 256, (2, 2, 24, 32, 3), dtype=torch.uint8).repeat(2, 1, 1, 1, 1),
    }
    outputs = policy(batch)
    assert outputs.shape == (4, 4, 2 * 5)
    assert not torch.allclose(outputs[:2], outputs[2:])  # the same rows, told otherwise
    outputs.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in policy.parameters())


@pytest.fixture
def config(store: Store, tmp_path: Path) -> Path:
    """A policy whose weights are averaged; no checkpoint is chosen."""
    document = {
        "data": {
            "store": str(store.path),
            "cache": str(tmp_path / "cache"),
            "lookback": 2,
            "horizon": 6,
            "delay": -1,
            "pad_before": "repeat",
            "pad_after": "zero",
            "channels": ["hand"],
            "targets": ["action"],
            "statics": ["word"],
            "split": {"by": "series"},
            "batch_size": 32,
        },
        "model": {
            "class_path": "MLP",
            "init_args": {
                "hidden": 16,
                "task": {"class_path": "Policy", "init_args": {"modes": 2, "relative_to": ["hand.0", "hand.1"]}},
            },
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "trainer": {
            "max_epochs": 4,
            "accelerator": "cpu",
            "callbacks": {
                "class_path": "pytorch_lightning.callbacks.EMAWeightAveraging",
                "init_args": {"decay": 0.9},
            },
        },
        "checkpoint": {"monitor": None},
    }
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_checkpoint_has_averaged_weights_and_a_fit_goes_on_with_those_that_it_trains(
    config: Path, app: App, tmp_path: Path
) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    app("fit", "--config", config, "--trainer.default_root_dir", whole, check=True)
    words = ["--config", config, "--trainer.default_root_dir", parted]
    app("fit", *words, "--trainer.max_epochs", 2, check=True)
    app("fit", *words, "--ckpt_path", "last", check=True)
    expected, found = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (whole, parted))
    for name in ("state_dict", "current_model_state"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
    weight = "perceptron.0.weight"
    assert not torch.equal(expected["state_dict"][weight], expected["current_model_state"][weight])
    policy = MLP.load_from_checkpoint(parted / "checkpoints" / "last.ckpt")
    assert isinstance(policy.task, Policy)
    assert policy.task.relative_to == ["hand.0", "hand.1"]
    torch.testing.assert_close(policy.state_dict()[weight], expected["state_dict"][weight])


def test_validation_and_test_measure_averaged_weights(config: Path, app: App, tmp_path: Path) -> None:
    words = ["--config", config, "--data.split.sizes", "[0.6, 0.2, 0.2]"]
    app("fit", *words, check=True)
    checkpoint = read_checkpoint(tmp_path / "runs" / "policy" / "checkpoints" / "last.ckpt")
    plain = {key: value for key, value in checkpoint.items() if key != "current_model_state"}
    found = {}
    for name, weights in (("averaged", "state_dict"), ("trained", "current_model_state")):
        torch.save({**plain, "state_dict": checkpoint[weights]}, tmp_path / f"{name}.ckpt")
        app("test", *words, "--ckpt_path", tmp_path / f"{name}.ckpt", check=True)
        found[name] = json.loads((tmp_path / "runs" / "policy" / "test_metrics.json").read_text())["test/nll"]
    app("test", *words, check=True)
    best = json.loads((tmp_path / "runs" / "policy" / "test_metrics.json").read_text())["test/nll"]
    assert best == found["averaged"] != found["trained"]
    assert (tmp_path / "runs" / "policy" / "chunks.png").read_bytes()[:4] == b"\x89PNG"
    table = app("validate", *words, "--ckpt_path", tmp_path / "averaged.ckpt", check=True).stdout
    with (tmp_path / "runs" / "policy" / "logs" / "metrics.csv").open(newline="") as file:
        logged = [row["val/nll"] for row in csv.DictReader(file) if row["val/nll"]]
    (shown,) = re.findall(r"val/nll\s+\S\s+(-?[\d.]+)", table)
    assert float(shown) == pytest.approx(float(logged[-1]), rel=1e-5)
