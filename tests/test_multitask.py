"""Several targets, classes and numbers, any of which may be missing: losses and metrics as others have them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import in_two_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)
from torch import Tensor, distributed
from torch.nn import functional

from lightning_app.batch import Batch, BatchShape
from lightning_app.losses import MAE, NSE
from lightning_app.tasks import MultiTask
from lightning_app.tasks.base import Host
from zstore import UsageError

CLASSES: list[list[Any]] = [["ill", "well"], [], [0.0, 1.0, 4.0]]
SHAPE = BatchShape(1, 1, -1, 0, 3, [-1, -1, -1], classes=CLASSES)
PAIRS = BatchShape(1, 1, -1, 0, 2, [-1, -1], classes=[["ill", "well"], [2.0, 3.0]])
SCALE, OFFSET = 12.5, 60.0


def to_source(scaled: Tensor, series: Tensor, floored: bool = False) -> Tensor:
    return torch.stack([scaled[..., 0], scaled[..., 1] * SCALE + OFFSET, scaled[..., 2]], dim=-1).double()


HOST = cast(
    Host,
    SimpleNamespace(
        data=SimpleNamespace(to_source=to_source, training_rows=lambda: [windows(3, 50), windows(4, 50)]),
        global_step=0,
        trainer=SimpleNamespace(training=False),
        share=lambda n: 1.0,
    ),
)


def windows(seed: int, n: int) -> Batch:
    """Some targets of all three kinds, a third of which are missing."""
    random = np.random.default_rng(seed)
    drawn = np.stack([random.integers(2, size=n), random.normal(size=n), random.choice([0.0, 1.0, 4.0], n)], axis=-1)
    y = torch.from_numpy(drawn[:, None]).float()
    source = to_source(y.double(), torch.zeros(n)).view(torch.int64)
    mask = torch.from_numpy(random.random((n, 1, 3)) < 2 / 3)
    nothing = torch.zeros(n, dtype=torch.int64)
    return cast(Batch, {"y": y, "mask": mask, "y_source": source, "series": nothing, "time": nothing})


def part(batch: Batch, low: int, high: int) -> Batch:
    return cast(Batch, {name: cast(Tensor, each)[low:high] for name, each in batch.items()})


def made(shape: BatchShape = SHAPE, **options: Any) -> MultiTask:
    task = MultiTask(**options)
    task.suit(shape)
    return task


def outputs_of(task: MultiTask, n: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 1, task.n_outputs)).round(1)).float()


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0]])
def test_the_loss_is_the_weighted_mean_of_those_of_the_targets_over_what_was_observed(weights: Any) -> None:
    task = made(class_weights={"ill": 3.0}, weights=weights)
    batch, outputs = windows(0, 40), outputs_of(task, 40, 1)
    y, mask = batch["y"][:, 0], batch["mask"][:, 0]
    first, second, third = torch.split(outputs[:, 0], [2, 1, 3], dim=-1)
    codes = torch.bucketize(y[:, 2].contiguous(), torch.tensor([0.0, 1.0, 4.0]))
    losses = [
        functional.cross_entropy(first[mask[:, 0]], y[mask[:, 0], 0].long(), weight=torch.tensor([3.0, 1.0])),
        functional.mse_loss(second[mask[:, 1], 0], y[mask[:, 1], 1]),
        functional.cross_entropy(third[mask[:, 2]], codes[mask[:, 2]]),
    ]
    shares = torch.tensor([1.0, 1.0, 1.0] if weights is None else weights)
    expected = (torch.stack(losses) * shares).sum() / shares.sum()
    torch.testing.assert_close(task.loss_of(outputs, batch, HOST), expected)
    batch["mask"][..., 1] = False
    without = (losses[0] * shares[0] + losses[2] * shares[2]) / shares.sum()
    torch.testing.assert_close(task.loss_of(outputs, batch, HOST), without)
    batch["mask"][:] = False
    assert float(task.loss_of(outputs, batch, HOST)) == 0


def test_a_binary_loss_is_that_of_one_logit_for_each_target() -> None:
    task = made(PAIRS, class_loss="binary")
    assert task.n_outputs == 2
    y = torch.randint(2, (20, 1, 2)).float()
    batch = {**windows(0, 20), "y": y + torch.tensor([0.0, 2.0]), "mask": torch.ones(20, 1, 2, dtype=torch.bool)}
    outputs = outputs_of(task, 20, 2)
    expected = functional.binary_cross_entropy_with_logits(outputs, y)
    torch.testing.assert_close(task.loss_of(outputs, cast(Batch, batch), HOST), expected)


def test_balanced_weights_are_inverse_to_the_observed_training_targets() -> None:
    task = made(class_weights="balanced")
    y = torch.cat([rows["y"][rows["mask"][..., 0]][:, 0] for rows in HOST.data.training_rows()]).long()
    expected = len(y) / (2 * torch.bincount(y))
    torch.testing.assert_close(task._weights_of(HOST)[0], expected.float())


def expected_of(batch: Batch, outputs: Tensor) -> dict[str, float]:
    """By scikit-learn, over all targets at once."""
    seen, y = batch["mask"][:, 0].numpy(), batch["y"][:, 0].numpy()
    first, second, third = (part[:, 0].double().numpy() for part in torch.split(outputs, [2, 1, 3], dim=-1))
    codes = np.searchsorted([0.0, 1.0, 4.0], y[:, 2])
    labels = [(y[seen[:, 0], 0].astype(int), first[seen[:, 0]]), (codes[seen[:, 2]], third[seen[:, 2]])]
    ranks = [torch.from_numpy(scores).float().softmax(-1).numpy() for _, scores in labels]
    each = [range(1, 2), range(3)]
    truth, guess = y[seen[:, 1], 1] * SCALE + OFFSET, second[seen[:, 1], 0] * SCALE + OFFSET
    return {
        "accuracy": float(np.mean([accuracy_score(own, scores.argmax(-1)) for own, scores in labels])),
        "f1": float(np.mean([f1_score(own, scores.argmax(-1), average="macro") for own, scores in labels])),
        **{
            name: float(
                np.mean(
                    [
                        np.mean([score(own == c, rank[:, c]) for c in classes])
                        for (own, _), rank, classes in zip(labels, ranks, each, strict=True)
                    ]
                )
            )
            for name, score in (("auroc", roc_auc_score), ("average_precision", average_precision_score))
        },
        "mae": float(mean_absolute_error(truth, guess)),
        "r2": float(r2_score(truth, guess)),
    }


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 70))
def test_metrics_are_those_of_scikit_learn_however_batched(seed: int, size: int) -> None:
    task = made()
    batch, outputs = windows(seed, 120), outputs_of(task, 120, seed)
    for low in range(0, 120, size):
        task.update("test", outputs[low : low + size], part(batch, low, low + size), HOST)
    report = task.measured("test", HOST)
    for name, value in expected_of(batch, outputs).items():
        assert float(report["all"][name]) == pytest.approx(value, abs=1e-6), name
    assert float(report["all"]["loss"]) == pytest.approx(float(task.loss_of(outputs, batch, HOST)), rel=1e-5)
    for target, classes in ((0, [1]), (2, [0, 1, 2])):
        curves = [report["roc"][f"{target}/{own}"] for own in classes]
        areas = [float(torch.trapezoid(right, wrong)) for wrong, right in curves]
        assert float(np.mean(areas)) == pytest.approx(float(report["by_target"]["auroc"][target]), abs=1e-5)
    assert report["by_target"]["n"].tolist() == batch["mask"].sum(dim=(0, 1)).tolist()
    assert report["by_target"]["mae"].isnan().tolist() == [True, False, True]
    assert report["by_target"]["auroc"].isnan().tolist() == [False, True, False]


def _share_of(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    task = made()
    batch, outputs = windows(7, 150), outputs_of(task, 150, 7)
    for low in range(rank * 16, 150, 32):
        task.update("test", outputs[low : low + 16], part(batch, low, min(low + 16, 150)), HOST)
    found = [task.measured("test", HOST)]
    if rank == 1:  # the other one has no target
        task.update("test", outputs, batch, HOST)
    found.append(task.measured("test", HOST))
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_find_what_one_does_even_if_one_of_them_has_no_target(tmp_path: Path) -> None:
    in_two_processes(_share_of, tmp_path)
    task = made()
    batch, outputs = windows(7, 150), outputs_of(task, 150, 7)
    task.update("test", outputs, batch, HOST)
    alone = task.measured("test", HOST)
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt", weights_only=True):
            torch.testing.assert_close(found, alone, equal_nan=True)


def test_predictions_are_classes_as_stored_and_numbers_in_source_units() -> None:
    task = made()
    batch, outputs = windows(5, 30), outputs_of(task, 30, 5)
    found = task.predictions(outputs, batch, HOST)[:, 0]
    assert found[:, 0].tolist() == outputs[:, 0, :2].argmax(-1).tolist()
    torch.testing.assert_close(found[:, 1], outputs[:, 0, 2].double() * SCALE + OFFSET)
    assert found[:, 2].tolist() == [[0.0, 1.0, 4.0][k] for k in outputs[:, 0, 3:].argmax(-1)]


def test_a_target_that_a_stage_has_not_at_all_is_not_measured_and_spoils_no_other() -> None:
    task = made(loss=MAE())
    batch, outputs = windows(5, 30), outputs_of(task, 30, 5)
    batch["mask"][..., 0] = False
    task.update("val", outputs, batch, HOST)
    report = task.measured("val", HOST)
    assert report["by_target"]["n"][0] == 0
    assert all(bool(value.isfinite()) for value in report["all"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_loss": "binary"}, "a binary loss of 3 classes"),
        ({"weights": [1.0]}, "1 weights of 3 targets"),
        ({"weights": [0.0, 0.0, 0.0]}, "one target above 0"),
        ({"class_weights": {"sick": 1.0}}, "weights of classes sick; expected some of 0.0, 1.0, 4.0, ill, well"),
        ({"loss": NSE()}, "the loss NSE, which weights series"),
        ({"label_smoothing": 1.0}, "label_smoothing 1.0"),
    ],
)
def test_what_does_not_fit_the_targets_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**options)
