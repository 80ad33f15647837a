"""Surface EMG: from files without times to windows; models of it; what changes training windows."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from conftest import REPOSITORY, few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from readings import write_readings
from sklearn.linear_model import LogisticRegression

from lightning_app.batch import Batch, BatchShape
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.windows.members import assign_series
from lightning_app.models import TDS, RMSRegression
from lightning_app.models.augment import Augment
from lightning_app.tasks import Classification
from zstore import Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")

RECIPE = yaml.safe_load((REPOSITORY / "configs" / "ingest" / "emg_myo.yaml").read_text())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Sessions 1 to 3 of person 7, and session 1 of person 8."""
    folder = tmp_path_factory.mktemp("myo")
    write_readings(folder, ("7-1", "7-2", "7-3", "8-1"))
    ingest(f"{folder}/*/*.txt.gz", folder / "emg_myo.zarr", **RECIPE)
    return open_store(folder / "emg_myo.zarr")


def batch_of(x: torch.Tensor, **parts: torch.Tensor) -> Batch:
    n = len(x)
    own = {"x": x, "x_static": torch.zeros(n, 0), "series": torch.arange(n), "time": torch.full((n,), 5)}
    return cast(Batch, {**own, **parts})


def test_files_without_times_or_header_are_series_named_by_folder_and_file_at_their_rate(store: Store) -> None:
    assert store.ids.tolist() == [f"{session}/{g}" for session in ("7-1", "7-2", "7-3", "8-1") for g in (0, 1)]
    assert store.vectors == {"emg": tuple(f"emg.{n}" for n in range(8))}
    assert (store.schema.time.unit, store.schema.time.rule.text) == ("ms", "5ms")
    rows = store.series("7-3/1")
    assert np.array_equal(np.diff(rows.times()), np.full(399, np.timedelta64(5, "ms")))
    written = np.loadtxt(Path(store.path).parent / "7-3" / "1.txt.gz", delimiter=",")
    assert np.array_equal(np.column_stack([rows.read(name) for name in store.channels]), written)


@pytest.mark.parametrize(
    ("start", "freq", "unit", "last"),
    [
        ("2000-01-01", "5ms", "ms", "2000-01-01T00:00:00.010"),
        ("2000-01-01T00:00:00.5", "1s", "ms", "2000-01-01T00:00:02.500"),
        ("2000-01-01", "500us", "us", "2000-01-01T00:00:00.001"),
        ("2000-01-01", "1s", "s", "2000-01-01T00:00:02"),
    ],
)
def test_numbered_rows_have_times_in_the_coarsest_unit_that_has_start_and_step(
    start: str, freq: str, unit: str, last: str, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "a.csv", ["v"], [[1], [2], [3]])
    ingest(table, tmp_path / "a.zarr", start=start, freq=freq)
    found = open_store(tmp_path / "a.zarr")
    assert found.schema.time.unit == unit
    assert found.series(found.ids[0]).times()[-1] == np.datetime64(last)


def test_a_split_names_series_by_patterns(store: Store) -> None:
    split = Split(by="series", ids={"train": ["7-1/*", "7-2/?"], "test": ["7-3/0", "7-3/1"]})
    assert assign_series(store, split).tolist() == [0, 0, 0, 0, 2, 2, -1, -1]
    with pytest.raises(UsageError, match=r"no series whose id fits '9-\*'; expected a pattern"):
        assign_series(store, Split(by="series", ids={"train": ["7-1/*", "9-*"]}))
    with pytest.raises(UsageError, match=r"series 7-1/0 in both train and test"):
        assign_series(store, Split(by="series", ids={"train": ["7-1/*"], "test": ["*/0"]}))


def augment(n_inputs: int = 8, **options: Any) -> Augment:
    nothing = {"rotate": 0, "bands": 1, "electrodes": n_inputs, "masks": 2, "mask_rows": 0, "noise": 0.0, "seed": 0}
    return Augment(n_inputs, **{**nothing, **options})


@settings(deadline=None, max_examples=few(40))
@given(st.integers(-(2**31), 2**31), st.integers(1, 3), st.integers(0, 4), st.integers(0, 2))
def test_a_turned_band_is_a_ring_and_other_channels_stay(seed: int, bands: int, rotate: int, n_more: int) -> None:
    x = torch.randn(5, 7, 4 * bands + n_more)
    found = augment(x.shape[-1], rotate=rotate, bands=bands, electrodes=4 * bands, seed=seed)(batch_of(x), 0)
    assert torch.equal(found[..., 4 * bands :], x[..., 4 * bands :])
    for window, own in zip(found, x, strict=True):
        for band in range(bands):
            part = slice(4 * band, 4 * band + 4)
            turns = [own[:, part].roll(by, -1) for by in range(-rotate, rotate + 1)]
            assert any(torch.equal(window[:, part], turned) for turned in turns)


def test_turns_masks_and_noise_are_as_often_and_as_large_as_asked_for() -> None:
    n = 4000
    x = torch.arange(8.0).expand(n, 10, 8)
    first = augment(rotate=1)(batch_of(x), 0)[:, 0, 0]
    assert [float((first == value).float().mean()) for value in (0, 1, 7)] == pytest.approx([1 / 3] * 3, abs=0.03)
    masked = augment(masks=1, mask_rows=4)(batch_of(torch.ones(n, 10, 8)), 0) == 0
    assert torch.equal(masked.all(-1), masked.any(-1))
    lengths = torch.bincount(masked[..., 0].sum(1), minlength=5) / n
    assert lengths.tolist() == pytest.approx([1 / 5] * 5, abs=0.03)
    noise = augment(noise=0.5, electrodes=7)(batch_of(torch.zeros(n, 10, 8)), 0)
    assert float(noise[..., :7].std()) == pytest.approx(0.5, rel=0.01)
    assert float(noise[..., :7].mean()) == pytest.approx(0, abs=0.01)
    assert float(torch.corrcoef(noise[..., :7].reshape(n, -1).T).triu(1).abs().max()) < 0.1
    assert not noise[..., 7].any()


def test_what_is_drawn_follows_from_seed_epoch_and_window_whatever_else_is_in_the_batch() -> None:
    drawn = augment(rotate=2, mask_rows=3, noise=0.1, seed=1)
    x, series, time = torch.randn(6, 9, 8), torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([1, 2, 1, 3, 1, 1])
    whole = batch_of(x, series=series, time=time)
    found = drawn(whole, 3)
    order = torch.tensor([4, 1, 0])
    part = batch_of(x[order], series=series[order], time=time[order])
    assert torch.equal(drawn(part, 3), found[order])
    same = batch_of(x[:1].expand(6, -1, -1), series=series, time=time)
    assert len({tuple(window.flatten().tolist()) for window in drawn(same, 3)}) == 6
    assert not torch.equal(drawn(whole, 4), found)
    assert not torch.equal(augment(rotate=2, mask_rows=3, noise=0.1, seed=2)(whole, 3), found)


def test_windows_are_changed_in_training_alone() -> None:
    torch.manual_seed(0)
    model, batch = TDS(shape_of(20, 1, -1), noise=0.5), batch_of(torch.randn(3, 20, 8))
    plain = TDS(shape_of(20, 1, -1))
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(model.train()(batch), plain.train()(batch))
    assert torch.equal(model.eval()(batch), plain.eval()(batch))


def config_of(store: Store, folder: Path, **init_args: Any) -> Path:
    """A short fit of a small TDS on the sessions of person 7."""
    task = {"class_path": "Classification", "init_args": {"weights": "balanced"}}
    small = {"width": 8, "channels": 4, "hidden": 8, "kernel": 3, "blocks": 1, "strides": [4]}
    document = {
        "data": {
            "store": str(store.path), "lookback": 40, "horizon": 1, "delay": -1, "stride": 5,
            "channels": ["emg"], "targets": ["label"], "classes": ["label"], "cache": str(folder / "cache"),
            "split": {"by": "series", "ids": {"train": ["7-1/*", "7-2/*"], "test": ["7-3/*"]}}, "batch_size": 32,
        },
        "model": {"class_path": "TDS", "init_args": {"task": task, **small, **init_args}},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        "checkpoint": {"monitor": None, "every_n_train_steps": 4},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "logger": False},
    }  # fmt: skip
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_fit_that_goes_on_in_mid_epoch_draws_what_it_would_have_drawn(
    store: Store, tmp_path: Path, app: Callable[..., Any]
) -> None:
    config = config_of(store, tmp_path, rotate=1, mask_rows=10, noise=0.2)
    weights = []
    for name, parts in (("whole", ([],)), ("parts", (["--trainer.max_steps", 12], ["--ckpt_path", "last"]))):
        for words in parts:
            app("fit", "--config", config, "--trainer.default_root_dir", tmp_path / name, *words, check=True)
        found = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append((found["global_step"], found["state_dict"]))
    (steps, whole), (resumed, parts_of) = weights
    assert steps == resumed > 12
    assert all(torch.equal(value, parts_of[name]) for name, value in whole.items())


def test_a_fit_learns_gestures_and_its_test_has_a_confusion_matrix(
    store: Store, tmp_path: Path, app: Callable[..., Any]
) -> None:
    config = config_of(store, tmp_path, rotate=1, noise=0.05)
    for command in ("fit", "test"):
        app(command, "--config", config, "--trainer.default_root_dir", tmp_path / "run", check=True)
    found = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    assert found["test/accuracy"] > 0.85
    counts = np.reshape(found["confusion"]["counts"], (2, 2))
    assert counts.trace() / counts.sum() == pytest.approx(found["test/accuracy"])
    assert counts.sum(1).tolist() == found["by_class"]["n"]
    assert (tmp_path / "run" / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    assert "(confusion.png)" in (tmp_path / "run" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("options", "empty"),
    [
        ({"by": "series", "ids": {"train": ["a"], "test": ["b"]}}, True),
        ({"by": "series", "ids": {"train": ["a"], "val": ["c"]}}, False),
        ({"by": "series", "attribute": "user", "values": {"train": [1], "test": [2]}}, True),
        ({"by": "series", "table": "roles.csv"}, False),
        ({"by": "series", "folds": 3}, False),
        ({"sizes": (-1, 0, 48), "over": "series"}, True),
        ({"sizes": (0.8, 0.0, 0.2)}, True),
        ({}, False),
    ],
)
def test_a_split_says_whether_there_is_nothing_to_validate_on(options: dict[str, Any], empty: bool) -> None:
    assert Split(**options).is_empty("val") == empty


class Failing(pl.Callback):
    """Fails in the first step."""

    def on_train_batch_start(self, *_: Any) -> None:
        raise OSError("no disk left")


@pytest.mark.parametrize("fails", [False, True])
def test_a_trainer_whose_fit_had_no_validation_refuses_to_validate_on_nothing(
    fails: bool, store: Store, tmp_path: Path
) -> None:
    split = Split(by="series", ids={"train": ["7-1/*"], "test": ["7-3/*"]})
    given: dict[str, Any] = {"channels": ["emg"], "targets": ["label"], "classes": ["label"], "split": split}
    data = WindowDataModule(str(store.path), 40, 1, -1, cache=str(tmp_path), **given)
    model = RMSRegression(data.shape, task=Classification())
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=1, limit_train_batches=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.callbacks += [Failing()] if fails else []  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="no disk left") if fails else nullcontext():
        trainer.fit(model, data)
    with pytest.raises(
        UsageError, match="no window in val, to which no row belongs; expected series, or times, of val"
    ):
        trainer.validate(model, data, verbose=False)


def shape_of(lookback: int, horizon: int, delay: int, n_inputs: int = 8, **more: Any) -> BatchShape:
    return BatchShape(lookback, horizon, delay, n_inputs, 2, [-1, -1], **more)


@settings(deadline=None, max_examples=few(25))
@given(st.integers(9, 60), st.integers(1, 9), st.lists(st.integers(1, 4), max_size=2), st.integers(0, 2**31))
def test_targets_of_a_tds_are_read_from_inputs_less_than_a_step_behind_them(
    lookback: int, horizon: int, strides: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = TDS(shape_of(lookback, horizon, -horizon), width=24, channels=3, strides=strides, hidden=5, kernel=3)
    rate = int(np.prod(strides, dtype=int))
    x = torch.randn(1, lookback, 8, requires_grad=True)
    out = model.eval()(batch_of(x))
    assert out.shape == (1, horizon, 2)
    for step in range(horizon):
        (slope,) = torch.autograd.grad(out[0, step].sum(), x, retain_graph=True)
        seen = slope[0].abs().sum(-1)
        row = lookback - horizon + step
        assert bool((seen[row + rate :] == 0).all())
        assert seen[: row + 1].any()
    assert bool((torch.autograd.grad(out[0, -1].sum(), x)[0][0, -1] != 0).any())


def test_a_tds_that_turns_through_the_whole_ring_does_not_see_how_a_band_is_turned() -> None:
    torch.manual_seed(0)
    model = TDS(shape_of(20, 1, -1, n_inputs=12), width=8, channels=4, bands=2, electrodes=10, turns=2).eval()
    x = torch.randn(3, 20, 12)
    turned = torch.cat([x[..., :5].roll(2, -1), x[..., 5:10].roll(2, -1), x[..., 10:]], -1)
    assert torch.allclose(model(batch_of(turned)), model(batch_of(x)), atol=1e-5)
    assert not torch.allclose(model(batch_of(x.roll(1, -1))), model(batch_of(x)), atol=1e-3)


def test_a_block_of_a_tds_shares_its_convolution_between_groups() -> None:
    torch.manual_seed(0)
    block: Any = TDS(shape_of(20, 1, -1), width=6, channels=2, kernel=3).blocks[0]
    steps = torch.randn(1, 5, 6)
    groups = steps[0].reshape(5, 2, 3)  # (step, channel, group)
    padded = torch.cat([torch.zeros(2, 2, 3), groups])
    weight, bias = block.conv.weight[:, :, 0], block.conv.bias  # (out, channel, step)
    sums = [torch.einsum("ocs,scg->og", weight, padded[n : n + 3]) + bias[:, None] for n in range(5)]
    mixed = torch.stack(sums).relu().reshape(5, 6)
    after = block.norms[0](steps[0] + mixed)
    expected = block.norms[1](after + block.layers(after))
    assert torch.allclose(block(steps)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "channels": 4}, "width 10 in groups of 4 channels"),
        ({"strides": [0]}, r"strides \[0\]"),
        ({"bands": 3}, "8 electrodes in 3 bands, of 8 input channels"),
        ({"electrodes": 9}, "9 electrodes in 1 bands, of 8 input channels"),
        ({"noise": -1.0}, "noise -1.0"),
    ],
)
def test_a_tds_that_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TDS(shape_of(20, 1, -1), **options)


def test_log_rms_regression_is_the_logistic_regression_of_scikit_learn() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    kinds = random.integers(3, size=300)
    scale = np.array([[1, 2, 1.5], [2, 1, 1.5], [1.4, 1.5, 1.6]])[kinds]
    x = random.normal(size=(300, 23, 3)) * scale[:, None]
    features = np.stack([np.sqrt((x[:, low : low + 5] ** 2).mean(1)) for low in range(3, 23, 5)], 1)
    features = np.log(features + 1e-3).reshape(300, -1)
    shape = BatchShape(23, 1, -1, 3, 1, [-1], classes=[[0, 1, 2]])
    model = RMSRegression(shape, parts=4, task=Classification())
    batch = batch_of(torch.from_numpy(x).float())
    assert np.allclose(model.features(batch["x"]), features, atol=1e-5)
    reference = LogisticRegression(C=np.inf, max_iter=10_000, tol=1e-8).fit(features, kinds)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe")
    labels = torch.from_numpy(kinds)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = torch.nn.functional.cross_entropy(model(batch)[:, 0], labels)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    assert np.allclose(model(batch)[:, 0].softmax(-1).detach(), reference.predict_proba(features), atol=2e-3)
    with pytest.raises(UsageError, match="24 parts of 23 rows"):
        RMSRegression(shape, parts=24, task=Classification())
