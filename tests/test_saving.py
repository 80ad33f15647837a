"""The last checkpoint is where the fit has got to; the best one is of the weights that were measured."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from drift import N_BATCHES, Drift, StoppedError
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_app.saving import BestAndLast
from lightning_app.seeds import BatchSeeds
from zstore import UsageError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")


USUAL: dict[str, Any] = {"monitor": "val/distance", "filename": "best", "enable_version_counter": False}


def saver(folder: Path, kind: type[ModelCheckpoint] = BestAndLast, **options: Any) -> ModelCheckpoint:
    return kind(**{"dirpath": folder, "save_last": True, **USUAL, **options})


def fit(model: Drift, saving: ModelCheckpoint, path: Path | None = None, **options: Any) -> ModelCheckpoint:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", callbacks=[BatchSeeds(), saving], **{"max_epochs": 3, **quiet, **options})
    if model.stop_at is None:
        trainer.fit(model, ckpt_path=path, weights_only=True)
    else:
        with pytest.raises(StoppedError):
            trainer.fit(model, ckpt_path=path, weights_only=True)
    return saving


def steps_in(path: Path) -> tuple[int, int]:
    """What a checkpoint says of its step, and what its weights say."""
    found = torch.load(path, weights_only=True)
    return found["global_step"], int(found["state_dict"]["weight"][0])


@pytest.mark.parametrize(
    ("options", "trainer"),
    [
        ({}, {}),
        ({"save_top_k": 0}, {}),
        ({"save_last": "link"}, {}),
        ({"every_n_train_steps": 4}, {}),
        ({"every_n_epochs": 2}, {}),
        ({}, {"check_val_every_n_epoch": 2}),
        ({}, {"val_check_interval": 0.5}),
        ({}, {"limit_val_batches": 0}),
    ],
)
def test_the_last_checkpoint_is_of_the_last_epoch_though_the_metric_gets_worse(
    tmp_path: Path, options: dict[str, Any], trainer: dict[str, Any]
) -> None:
    fit(Drift(), saver(tmp_path, **options), **trainer)
    assert steps_in(tmp_path / "last.ckpt") == (3 * N_BATCHES, 3 * N_BATCHES)
    assert (tmp_path / "best.ckpt").exists() == (options.get("save_top_k") != 0 and "limit_val_batches" not in trainer)


@pytest.mark.parametrize(
    ("options", "trainer", "stop_at", "expected"),
    [
        ({}, {}, 2 * N_BATCHES + 2, 2 * N_BATCHES),
        ({"every_n_train_steps": 4}, {}, 5, 4),  # before there was any validation
        ({"every_n_train_steps": 4}, {}, N_BATCHES + 1, N_BATCHES),
        ({"every_n_train_steps": 4}, {}, N_BATCHES + 3, 8),
        ({"train_time_interval": timedelta(0)}, {}, 5, 5),
        ({"every_n_epochs": 2}, {}, 2 * N_BATCHES + 2, 2 * N_BATCHES),
        ({}, {"val_check_interval": 0.5}, N_BATCHES + 4, N_BATCHES + 3),
        ({}, {"check_val_every_n_epoch": 2}, N_BATCHES + 2, N_BATCHES),
        ({"save_on_exception": True}, {}, N_BATCHES + 4, N_BATCHES + 4),
    ],
)
def test_a_fit_that_stops_in_mid_epoch_has_saved_its_last_checkpoint_as_asked_for_and_goes_on_as_if_it_had_not(
    tmp_path: Path, options: dict[str, Any], trainer: dict[str, Any], stop_at: int, expected: int
) -> None:
    parted = saver(tmp_path / "parted", **options)
    fit(Drift(), whole := saver(tmp_path / "whole", **options), **trainer)
    fit(Drift(stop_at=stop_at), parted, **trainer)
    last = tmp_path / "parted" / "last.ckpt"
    assert steps_in(last) == (expected, expected)
    torch.manual_seed(99)
    resumed = fit(Drift(), saver(tmp_path / "parted", **options), last, **trainer)
    assert resumed.best_model_score == whole.best_model_score
    for name in ("last", "best"):
        one, other = (torch.load(tmp_path / run / f"{name}.ckpt", weights_only=True) for run in ("whole", "parted"))
        assert one["global_step"] == other["global_step"]
        assert torch.equal(one["state_dict"]["weight"], other["state_dict"]["weight"])


@pytest.mark.parametrize(
    ("options", "trainer"),
    [
        ({"every_n_train_steps": 4}, {}),
        ({"every_n_train_steps": 1}, {"val_check_interval": 0.5}),
        ({"save_on_train_epoch_end": True}, {"check_val_every_n_epoch": 2}),
    ],
)
def test_a_checkpoint_is_compared_by_a_metric_that_was_measured_of_its_weights(
    tmp_path: Path, options: dict[str, Any], trainer: dict[str, Any]
) -> None:
    saving = saver(tmp_path, filename="{step}", save_top_k=3, **options)
    model = Drift(target=9)
    fit(model, saving, max_epochs=4, **trainer)
    distances = {step: abs(weight - 9) for step, weight in model.measured}
    found = {
        torch.load(path, weights_only=True)["global_step"]: float(score) for path, score in saving.best_k_models.items()
    }
    assert len(found) == min(3, len(distances))
    assert found == {
        step: distances[step] for step in sorted(distances, key=lambda step: distances[step])[: len(found)]
    }


def test_what_training_logs_is_compared_at_the_steps_that_are_asked_for(tmp_path: Path) -> None:
    saving = saver(tmp_path, monitor="train/step", mode="max", every_n_train_steps=4)
    fit(Drift(), saving, max_epochs=2)
    assert steps_in(tmp_path / "best.ckpt")[0] == float(saving.best_model_score or 0) + 1 == 2 * N_BATCHES


def test_a_checkpoint_that_lightnings_own_callback_saved_goes_on_with_its_best_one(tmp_path: Path) -> None:
    fit(Drift(), saver(tmp_path, ModelCheckpoint), max_epochs=1)
    (state,) = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"].keys() - {"BatchSeeds"}
    assert state == saver(tmp_path).state_key
    resumed = fit(Drift(), saver(tmp_path), tmp_path / "last.ckpt")
    assert resumed.best_model_score == N_BATCHES
    assert steps_in(tmp_path / "best.ckpt")[0] == N_BATCHES
    assert steps_in(tmp_path / "last.ckpt")[0] == 3 * N_BATCHES


def test_an_exception_leaves_the_best_checkpoint_as_it_is(tmp_path: Path) -> None:
    fit(Drift(stop_at=N_BATCHES + 2), saver(tmp_path, save_on_exception=True))
    assert steps_in(tmp_path / "best.ckpt")[0] == N_BATCHES
    assert steps_in(tmp_path / "last.ckpt")[0] == N_BATCHES + 2


def test_a_metric_that_validation_does_not_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"val/none, which is never logged; expected one of train/step, val/dist"):
        fit(Drift(), saver(tmp_path, monitor="val/none"))
