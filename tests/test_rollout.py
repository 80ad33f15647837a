"""Policies in environments: what they see is what they were trained on, and what is done is what they say."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image, ImageSequence

from lightning_app.data.batches.live import LiveWindows
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.fields import FieldOptions
from lightning_app.demo.reach import Reach, write_store
from lightning_app.look.chunks import chunks
from lightning_app.models import SpatialSoftmaxCNN
from lightning_app.rollout.options import Rollout
from lightning_app.rollout.play import Plan, Played
from lightning_app.rollout.pusht import PushT, keypoints
from lightning_app.rollout.report import scores
from lightning_app.tasks import Policy
from zstore import NotFiniteError, Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")

App = Callable[..., CompletedProcess[str]]
SIMULATED = importlib.util.find_spec("gym_pusht") is not None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Forty demonstrations of a hand that goes around a post to a goal."""
    folder = tmp_path_factory.mktemp("reach")
    write_store(folder, 40)
    return open_store(folder / "reach.zarr")


def module(store: Store, **options: Any) -> WindowDataModule:
    usual: dict[str, Any] = {"lookback": 3, "horizon": 4, "delay": -1, "pad_before": "repeat", "pad_after": "repeat"}
    usual |= {"channels": ["state"], "targets": ["action"], "batch_size": 64}
    return WindowDataModule(str(store.path), cache=str(Path(store.path).parent / "cache"), **{**usual, **options})


@pytest.mark.parametrize("pad", ["repeat", "zero"])
@pytest.mark.parametrize("scaler", ["standard", "quantile"])
def test_what_a_policy_sees_while_it_acts_is_what_it_saw_in_training_to_the_bit(
    store: Store, scaler: Any, pad: Any
) -> None:
    fields: dict[str, int | FieldOptions] = {"image": FieldOptions(steps=2, stride=2, crop=(28, 30))}
    usual: dict[str, Any] = {"pad_before": pad, "scaler": scaler, "scale_by": "series", "unknown": "own_column"}
    data = module(store, fields=fields, channels=["state.0", "state.1"], vectors={"state": 2}, **usual)
    windows = data.proved("train", 1)
    trained: Any = next(iter(data.loaders.in_order(windows)))
    first, series, _ = windows.locate(np.arange(64))
    n_rows = int((series == series[0]).sum())
    assert 4 < n_rows < 64
    rows = np.empty((store.n_rows, 4))
    store.decode(["state.0", "state.1", "state.2", "state.3"], rows)
    live = LiveWindows(data.scales, 2, like=str(store.ids[series[0]]))
    assert live.needed == ["state.0", "state.1", "state.2", "state.3", "image"]
    start = int(first[0]) + 2
    for number in range(n_rows):
        row = start + number
        live.add(1, {"state": rows[row], "image": store.read_field("image", row, row + 1)[0]})
        seen: Any = live.batch([1])
        for name in ("x", "x_static", "x_pad", "series", "image", "state"):
            assert torch.equal(seen[name][0], trained[name][number]), (name, number)
    assert not seen["mask"].any()


def test_a_picture_of_chunks_has_what_was_seen_and_done_and_what_is_meant_instead(store: Store) -> None:
    data = module(store, fields={"image": FieldOptions(steps=2, crop=(28, 30))})
    model = SpatialSoftmaxCNN(data.shape, task=Policy(modes=3, relative_to=["state.0", "state.1"])).eval()
    model.trainer = type("T", (), {"datamodule": data, "world_size": 1})()
    batch: Any = next(iter(data.loaders.in_order(data.proved("train", 1))))
    padded = int((~batch["mask"]).any(dim=(1, 2)).nonzero()[0])
    windows: list[Any] = [{name: part[at : at + 1] for name, part in batch.items()} for at in (0, padded)]
    figure = chunks(model, data, windows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["image", "action.0", "action.1"] * 2
    for window, (image, *panels) in zip(windows, (figure.axes[:3], figure.axes[3:]), strict=True):
        assert np.array_equal(image.images[0].get_array(), window["image"][0, -1])
        done = data.to_source(window["y"], window["series"])[0].masked_fill(~window["mask"][0], np.nan).numpy()
        with torch.no_grad():
            likeliest = model.task.predictions(model(window), window, model)[0].numpy()
        for number, axes in enumerate(panels):
            first, *_, last = axes.lines
            assert first.get_xdata().tolist() == [0, 1, 2, 3]  # rows from the last input row: delay is -1
            np.testing.assert_array_equal(first.get_ydata(), done[:, number])
            np.testing.assert_array_equal(last.get_ydata(), likeliest[:, number])


def test_observations_that_the_model_was_not_trained_on_are_refused(store: Store) -> None:
    live = LiveWindows(module(store, fields={"image": 1}).scales, 1)
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(
        UsageError, match=r"observations without 'state\.0', which the model reads; expected one of hand"
    ):
        live.add(0, {"hand": np.zeros(2)})
    with pytest.raises(UsageError, match=r"observations without 'state\.3'"):
        live.add(0, {"state": np.zeros(3), "image": image})
    with pytest.raises(UsageError, match="an observation 'image' of float64 32 x 32 x 3; expected uint8 32 x 32 x 3"):
        live.add(0, {"state": np.zeros(4), "image": image / 255})
    with pytest.raises(NotFiniteError, match=r"an observation 'state\.1' of nan"):
        live.add(0, {"state": np.array([0, np.nan, 0, 0]), "image": image})
    live.add(0, {"state.0": 1.0, "state.1": 2.0, "state.2": 3.0, "state.3": 4.0, "image": image})
    assert not live.batch([0])["x_pad"][0, -1]


def test_policies_that_need_what_nobody_knows_are_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="3 input rows that was never shown the first rows of an episode"):
        LiveWindows(module(store, pad_before="none").scales, 1)
    with pytest.raises(UsageError, match="a policy that reads channels known in advance"):
        LiveWindows(module(store, future=["state.2"], delay=0).scales, 1)
    with pytest.raises(UsageError, match="without static attributes, or a scaler of their own; expected the id"):
        LiveWindows(module(store, scale_by="series", unknown="own_column").scales, 1)
    with pytest.raises(UsageError, match="no series 'nobody'"):
        LiveWindows(module(store).scales, 1, "nobody")


def test_a_chunk_is_done_from_the_row_that_was_seen_on() -> None:
    plan = Plan(skipped=1, ensemble=None)  # of a delay of -2
    chunk = np.arange(5.0)[:, None]
    plan.add(0, chunk)
    assert [plan.action(step)[0] for step in range(3)] == [1, 2, 3]
    plan.add(3, chunk + 10)
    assert plan.action(3)[0] == 11


def test_temporal_ensembling_is_a_mean_with_the_weights_of_act() -> None:
    plan, decay = Plan(skipped=0, ensemble=0.5), 0.5
    for step in range(5):
        plan.add(step, 10.0 * step + np.arange(3.0)[:, None])
        meant = [10.0 * at + step - at for at in range(max(0, step - 2), step + 1)]  # the oldest first
        weights = np.exp(-decay * np.arange(len(meant)))
        assert plan.action(step)[0] == pytest.approx((weights * meant).sum() / weights.sum())


CONFIG: dict[str, Any] = {
    "data": {
        "lookback": 1,
        "horizon": 8,
        "delay": -1,
        "pad_after": "repeat",
        "channels": ["state"],
        "targets": ["action"],
        "split": {"by": "series", "sizes": [0.8, 0.1, 0.1]},
        "batch_size": 64,
    },
    "model": {
        "class_path": "MLP",
        "init_args": {
            "hidden": 64,
            "task": {"class_path": "Policy", "init_args": {"modes": 3, "relative_to": ["state.0", "state.1"]}},
        },
    },
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}},
    "trainer": {"max_epochs": 25, "accelerator": "cpu", "limit_val_batches": 0, "logger": False},
    "checkpoint": {"monitor": None},
    "acting": {"environment": "lightning_app.demo.reach.Reach", "episodes": 12, "steps": 60, "execute": 4},
}


@pytest.fixture
def config(store: Store, tmp_path: Path) -> Path:
    data = {**CONFIG["data"], "store": str(store.path), "cache": str(tmp_path / "cache")}
    path = tmp_path / "reach.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "data": data}))
    return path


def test_a_policy_learns_to_reach_from_demonstrations_alone(config: Path, app: App, tmp_path: Path) -> None:
    app("fit", "--config", config, check=True)
    done = app("rollout", "--config", config, check=True)
    run = tmp_path / "runs" / "reach"
    report = json.loads((run / "rollout.json").read_text())
    assert "MLP in 12 episodes of Reach: mean of the maximal reward" in done.stdout
    assert report["mean_max_reward"] > 0.8
    assert report["success"] >= 0.4
    assert [each["seed"] for each in report["episodes"]] == list(range(100_000, 100_012))
    best = np.array([each["max_reward"] for each in report["episodes"]])
    assert report["mean_max_reward"] == pytest.approx(best.mean())
    assert report["success"] == np.mean(best == 1)
    assert report["standard_error"] == pytest.approx(best.std(ddof=1) / np.sqrt(12))
    lengths = {each["n_steps"] for each in report["episodes"]}
    for name in ("best", "worst"):
        with Image.open(run / f"rollout_{name}.gif") as picture:
            assert picture.size == (32, 32)
            n_frames = sum(1 for _ in ImageSequence.Iterator(picture))
            assert 1 < n_frames <= max(lengths) + 1  # frames that are alike are one
    assert app("rollout", "--config", config, "--acting.pictures", "false").returncode == 0
    again = json.loads((run / "rollout.json").read_text())
    assert again["episodes"] == report["episodes"]
    words = ["--acting.episodes", 3, "--acting.first_seed", 100_002]
    app("rollout", "--config", config, *words, check=True)
    alone = json.loads((run / "rollout.json").read_text())
    assert [each["n_steps"] for each in alone["episodes"]] == [each["n_steps"] for each in report["episodes"][2:5]]
    app("rollout", "--config", config, "--acting.ensemble", 0.1, "--acting.mode", "drawn", check=True)
    assert json.loads((run / "rollout.json").read_text())["ensemble"] == 0.1


def test_rollouts_that_cannot_be_meant_are_refused(config: Path, app: App, store: Store) -> None:
    assert "no checkpoint" in app("rollout", "--config", config).stderr
    app("fit", "--config", config, "--trainer.max_epochs", 1, check=True)

    def refusal(*words: object) -> str:
        done = app("rollout", "--config", config, *words)
        assert done.returncode == 2
        return done.stderr

    assert "9 actions executed of chunks of 8; expected at most 8" in refusal("--acting.execute", 9)
    assert "a rollout of episodes 0" in refusal("--acting.episodes", 0)
    assert "a rollout without an environment; expected PushT" in refusal("--acting.environment", "null")
    arm = refusal("--acting.environment", f"{__name__}.Arm")
    assert "a policy of 2 targets in Arm; expected 7" in arm


class Arm(Reach):
    """An environment that wants more numbers."""

    n_actions = 7


def test_scores_are_over_the_best_reward_of_each_episode() -> None:
    played = [Played(0, rewards=[0.2, 1.0, 0.4]), Played(1, rewards=[0.5, 0.1])]
    assert scores(played) == {"mean_max_reward": 0.75, "standard_error": pytest.approx(0.25), "success": 0.5}


def test_options_say_how_chunks_are_executed() -> None:
    assert Rollout().asks_every == 8
    assert Rollout(ensemble=0.01).asks_every == 1
    with pytest.raises(UsageError, match=r"ensemble -1"):
        Rollout(ensemble=-1)


@pytest.mark.skipif(SIMULATED, reason="gym_pusht is installed")
def test_push_t_without_its_simulator_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"PushT without its simulator.*pip install 'zstore\[robot\]'"):
        PushT().open(["state"])


@pytest.mark.skipif(not SIMULATED, reason="needs gym_pusht")
def test_push_t_is_seen_as_its_demonstrations_have_it() -> None:
    environment = PushT(names={"image": "camera"})
    table = environment.open(["state.0", "camera"])
    seen = table.reset(seed=3)
    assert seen["state"].shape == (5,)
    assert 0 <= seen["state"][4] < 2 * np.pi
    assert (seen["camera"].shape, seen["camera"].dtype) == ((96, 96, 3), np.uint8)
    assert seen["keypoint"] == pytest.approx(keypoints(seen["state"][2:]))
    before = environment.picture(table.scene())
    for _ in range(5):
        outcome = table.act(seen["state"][2:4])  # towards the T
    assert not np.array_equal(environment.picture(table.scene()), before)
    small = np.asarray(Image.fromarray(environment.picture(table.scene())).resize((96, 96), Image.Resampling.BILINEAR))
    assert np.abs(small.astype(float) - outcome.observation["camera"]).mean() < 6  # the same scene
    again = PushT().open(["state"])
    assert np.array_equal(again.reset(seed=3)["state"], seen["state"])
    assert "image" not in again.reset(seed=3)
    assert 0 <= outcome.reward <= 1


@pytest.mark.skipif(not SIMULATED, reason="needs gym_pusht")
def test_a_policy_acts_in_push_t(tmp_path: Path, app: App) -> None:
    random, n = np.random.default_rng(0), 10 * 30
    state = np.hstack([random.uniform(100, 400, (n, 4)), random.uniform(0, 6, (n, 1))])
    vectors = {
        "state": state,
        "keypoint": np.stack([keypoints(pose) for pose in state[:, 2:]]),
        "action": state[:, 2:4],
    }
    columns = {k: pa.FixedSizeListArray.from_arrays(v.ravel(), v[0].size) for k, v in vectors.items()}
    table = {"id": np.repeat(np.arange(10), 30), "t": np.tile(np.arange(30), 10), **columns}
    ingest(pa.table(table), tmp_path / "pusht.zarr", id="id", time="t")
    data = {"store": str(tmp_path / "pusht.zarr"), "channels": ["state", "keypoint"], "cache": str(tmp_path / "c")}
    document = {**CONFIG, "data": {**CONFIG["data"], **data}, "acting": {"environment": "PushT"}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    words = ["--config", tmp_path / "p.yaml", "--trainer.max_epochs", 1]
    app("fit", *words, check=True)
    app("rollout", *words, "--acting.episodes", 2, "--acting.steps", 12, check=True)
    report = json.loads((tmp_path / "runs" / "p" / "rollout.json").read_text())
    assert report["environment"]["name"] == "PushT"
    assert all(0 <= each["max_reward"] <= 1 and each["n_steps"] <= 12 for each in report["episodes"])
