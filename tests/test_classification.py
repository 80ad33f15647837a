"""Targets that are classes: losses and metrics as scikit-learn has them, from a table to predictions."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
)

from lightning_app.batch import BatchShape
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.models import LSTM, Linear
from lightning_app.tasks import Classification, MultiTask
from lightning_app.tasks.class_metrics import Confusion, Curves
from zstore import Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")

WORDS = ["rest", "fist", "wave"]
NUMBERS = [1.0, 4.0, 7.5]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight series of 80 rows; a class lasts for ten rows and shows in both channels; some labels are missing."""
    folder, rng, rows = tmp_path_factory.mktemp("classes"), np.random.default_rng(0), []
    for number in range(8):
        kinds = rng.integers(3, size=8)
        for step in range(80):
            kind = int(kinds[step // 10])
            labels = ["", ""] if rng.random() < 0.1 else [WORDS[kind], NUMBERS[kind]]
            rows.append([f"s{number}", step, kind + 0.1 * rng.normal(), -kind + 0.1 * rng.normal(), *labels])
    table = write_table(folder / "r.csv", ["id", "t", "a", "b", "word", "number"], rows)
    ingest(table, folder / "s.zarr", id="id", time="t", chunk_rows=64, shard_rows=256)
    return open_store(folder / "s.zarr")


def module(store: Store, name: str, **options: Any) -> WindowDataModule:
    given_: dict[str, Any] = {"lookback": 12, "horizon": 12, "delay": -12, "batch_size": 16}
    given_ |= {"targets": [name], "classes": [name], "split": Split(sizes=(0.6, 0.2, 0.2), by="series")}
    cache = str(Path(store.path).parent / "cache")
    return WindowDataModule(str(store.path), **{**given_, "cache": cache, **options})


@settings(deadline=None, max_examples=few(60))
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 60), st.integers(1, 7))
def test_metrics_are_those_of_scikit_learn_however_batched(seed: int, n_classes: int, n: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    observed, logits = rng.integers(n_classes, size=n), rng.normal(size=(n, n_classes)).round(1)
    probabilities = torch.from_numpy(logits).float().softmax(-1)
    predicted = probabilities.argmax(-1).numpy()
    confusion, curves = Confusion(n_classes), Curves(n_classes)
    for low in range(0, n, size):
        part = slice(low, low + size)
        own = torch.from_numpy(observed[part])
        losses = torch.ones(len(own))
        confusion.update(torch.from_numpy(predicted[part]), own, losses, losses)
        curves.update(probabilities[part], own)
    found = confusion.compute()
    labels = sorted({*observed.tolist(), *predicted.tolist()})
    assert confusion.counts.tolist() == confusion_matrix(observed, predicted, labels=range(n_classes)).tolist()
    assert float(found["all"]["accuracy"]) == pytest.approx(accuracy_score(observed, predicted))
    assert float(found["all"]["f1"]) == pytest.approx(
        f1_score(observed, predicted, labels=labels, average="macro", zero_division=0)
    )
    recalls = [np.mean(predicted[observed == c] == c) for c in np.unique(observed)]
    assert float(found["all"]["balanced_accuracy"]) == pytest.approx(np.mean(recalls))
    if set(predicted) <= set(observed) and len(recalls) > 1:
        assert np.mean(recalls) == pytest.approx(balanced_accuracy_score(observed, predicted))
    measured = curves.compute()
    counted = [1] if n_classes == 2 else range(n_classes)
    both = [c for c in counted if 0 < (observed == c).sum() < n]
    if not both:
        assert all(math.isnan(value) for value in measured.values())
        return
    for name, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        expected = np.mean([score(observed == c, probabilities[:, c].numpy()) for c in both])
        assert float(measured[name]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [Classification, MultiTask])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_curves_are_those_of_the_probabilities_that_are_predicted_in_any_precision(
    kind: type[Classification] | type[MultiTask], precision: torch.dtype
) -> None:
    task = kind(curves=True)
    random = torch.Generator().manual_seed(0)
    observed = (torch.rand(500, 1, 1, generator=random) < 0.3).float()
    logits = 4 + 1.5 * observed + 1.5 * torch.randn(500, 1, 1, generator=random)
    outputs = torch.cat([torch.zeros_like(logits), logits], dim=-1).to(precision)
    task.suit(BatchShape(1, 1, -1, 0, 1, [-1], classes=[["ill", "well"]]))
    window: Any = {"y": observed, "mask": torch.ones_like(observed, dtype=torch.bool)}
    host: Any = SimpleNamespace(trainer=SimpleNamespace(training=False, sanity_checking=False), global_step=0)
    task.update("test", outputs, window, host)
    found, probabilities = task.measured("test", host)["all"], task.probabilities(outputs)
    assert probabilities is not None
    for name, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        expected = score(observed.flatten().numpy(), probabilities[:, 0, 1].numpy())
        assert float(found[name]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "classes"), [("word", sorted(WORDS)), ("number", NUMBERS)])
def test_a_class_is_never_scaled_nor_an_input_of_itself(store: Store, name: str, classes: list[Any]) -> None:
    data = module(store, name)
    assert data.inputs == (["a", "b", "number"] if name == "word" else ["a", "b"])
    assert data.shape.classes == [list(classes)] if name == "number" else sorted(data.shape.classes[0]) == classes
    values = set(range(3)) if name == "word" else set(NUMBERS)
    for batch in data.train_dataloader():
        assert set(batch["y"][batch["mask"]].tolist()) <= values


@pytest.mark.parametrize("weights", [None, "balanced", {"fist": 3.0, "rest": 0.0}])
def test_the_loss_is_a_weighted_mean_over_observed_targets(store: Store, weights: Any) -> None:
    data = module(store, "word", channels=["a", "b"])
    task = Classification(weights, label_smoothing=0.1)
    model = LSTM(data.shape, hidden=4, task=task)
    model.trainer = type("T", (), {"datamodule": data, "world_size": 1})()
    batch = next(iter(data.train_dataloader()))
    classes, seen = data.shape.classes[0], batch["mask"][..., 0]
    if weights == "balanced":
        labels = torch.cat([rows["y"][rows["mask"]] for rows in data.training_rows()]).long()
        counts = torch.bincount(labels, minlength=3)
        of_class = counts.sum() / (3 * counts)
    else:
        of_class = torch.tensor([(weights or {}).get(name, 1.0) for name in classes])
    logits = model(batch)[seen]
    expected = torch.nn.functional.cross_entropy(
        logits, batch["y"][seen][:, 0].long(), weight=of_class.float(), label_smoothing=0.0
    )
    smooth = -(of_class[batch["y"][seen][:, 0].long()] * logits.log_softmax(-1).mean(-1)).sum()
    smooth = smooth / of_class[batch["y"][seen][:, 0].long()].sum()
    assert float(model.loss_of(model, batch).detach()) == pytest.approx(float((0.9 * expected + 0.1 * smooth).detach()))


@pytest.mark.parametrize("name", ["word", "number"])
def test_a_fit_learns_classes_and_its_predictions_are_those_of_the_store(
    store: Store, name: str, tmp_path: Path, app: Callable[..., Any]
) -> None:
    config = {
        "data": {
            "store": str(store.path), "lookback": 12, "horizon": 12, "delay": -12, "channels": ["a", "b"],
            "targets": [name], "classes": [name], "batch_size": 32, "cache": str(tmp_path / "cache"),
            "split": {"sizes": [0.6, 0.2, 0.2], "by": "series"}, "evaluation_stride": 12,
        },
        "model": {
            "class_path": "LSTM",
            "init_args": {"hidden": 16, "task": {"class_path": "Classification", "init_args": {"curves": True}}},
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}},
        "trainer": {"max_epochs": 4},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    for command in ("fit", "test", "predict"):
        app(command, "--config", "c.yaml", check=True)
    found = json.loads((tmp_path / "runs" / "c" / "test_metrics.json").read_text())
    assert found["test/accuracy"] > 0.95
    assert found["test/auroc"] > 0.95
    assert found["task"] == "Classification"
    assert len(found["by_class"]["recall"]) == 3
    import xarray

    predicted = xarray.open_zarr(tmp_path / "runs" / "c" / "predictions.zarr")
    seen, guess = predicted[f"{name}_observed"].values, predicted[name].values
    wanted = {0.0, 1.0, 2.0} if name == "word" else set(NUMBERS)
    assert set(np.unique(guess)) <= wanted
    both = np.isfinite(seen)
    assert np.mean(seen[both] == guess[both]) == pytest.approx(found["test/accuracy"])
    model = LSTM.load_from_checkpoint(tmp_path / "runs" / "c" / "checkpoints" / "best.ckpt")
    assert isinstance(model.task, Classification)
    assert model.task.curves


def test_what_cannot_be_classes_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=r"classes 'word' that are no targets"):
        module(store, "word", targets=["a"]).shape  # noqa: B018
    with pytest.raises(UsageError, match=r"a standard scaler of 'number', which is a class"):
        module(store, "number", scaler={"number": "standard"}).scaler  # noqa: B018
    with pytest.raises(UsageError, match="classification of targets that are numbers"):
        LSTM(module(store, "number", classes=None).shape, task=Classification())
    with pytest.raises(UsageError, match="Linear for a Classification; expected a forecast"):
        Linear(module(store, "number").shape, task=Classification())
    with pytest.raises(UsageError, match="options of forecasts beside the task"):
        LSTM(module(store, "word").shape, task=Classification(), units="source")
    with pytest.raises(UsageError, match="weights of classes fits; expected some of fist, rest, wave"):
        LSTM(module(store, "word").shape, task=Classification({"fits": 2.0}))


def drifting(folder: Path, late: list[str]) -> WindowDataModule:
    """Two series: the classes of the first half are rest and fist; those of the rest are given, half of it each."""
    rows = []
    for number in range(2):
        for step in range(160):
            word = WORDS[step // 4 % 2] if step < 80 else late[(step - 80) // 40]
            rows.append([f"s{number}", step, step % 7, word])
    ingest(write_table(folder / "r.csv", ["id", "t", "a", "word"], rows), folder / "s.zarr", id="id", time="t")
    split = Split(sizes=(0.5, 0.5, 0.0))
    options: dict[str, Any] = {"lookback": 1, "horizon": 1, "delay": -1, "batch_size": 8, "channels": ["a"]}
    cache = str(folder / "cache")
    return WindowDataModule(
        str(folder / "s.zarr"), targets=["word"], classes=["word"], split=split, cache=cache, **options
    )


@pytest.mark.parametrize("task", [lambda: Classification("balanced"), lambda: MultiTask(class_weights="balanced")])
def test_a_stage_whose_classes_no_training_target_has_is_told_by_their_names(
    task: Callable[[], Any], tmp_path: Path
) -> None:
    data = drifting(tmp_path, ["wave", "wave"])
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(UsageError, match=r"val/loss of 160 targets that are all of class wave, whose weight is 0"):
        trainer.fit(LSTM(data.shape, hidden=2, task=task()), datamodule=data)


@pytest.mark.parametrize("task", [lambda: Classification("balanced"), lambda: MultiTask(class_weights="balanced")])
def test_a_sanity_check_whose_few_targets_count_nothing_stops_no_fit(task: Callable[[], Any], tmp_path: Path) -> None:
    data = drifting(tmp_path, ["wave", "fist"])
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(LSTM(data.shape, hidden=2, task=task()), datamodule=data)
    assert math.isfinite(trainer.callback_metrics["val/loss"])
