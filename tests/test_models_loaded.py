"""Every shipped model from its checkpoint alone, without a data module."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import CASES, Case, write_places, write_scenes, write_times

from lightning_app.batch import Batch
from lightning_app.losses import Loss
from lightning_app.models import LSTM, Ensemble, NLinear, TaskModel
from zstore import UsageError

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and torch's own


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_places(folder)
    write_scenes(folder)
    write_times(folder)
    return folder


def noted(model: TaskModel, path: Path) -> Path:
    """What a trainer keeps of a model, but for the loops."""
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.0"}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_every_shipped_model_is_loaded_from_its_checkpoint_without_a_data_module(
    name: str, stores: Path, tmp_path: Path
) -> None:
    data = CASES[name].module(stores)
    model = CASES[name].build(data)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.01)  # no longer those that a seed says
    path = noted(model, tmp_path / "m.ckpt")
    torch.manual_seed(7)
    batch: Batch = next(iter(data.loaders.in_order(data.readable("train", 1))))
    for load in (type(model).load_from_checkpoint, TaskModel.load_from_checkpoint):
        again = load(path).eval()
        assert type(again) is type(model)
        assert type(again.task) is type(model.task)
        for each in (model, again):
            each.attach(data)
        with torch.inference_mode():
            expected, found = (each.predict_step(batch, 0) for each in (model, again))
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


class Cubic(Loss):
    """A loss of one's own."""

    def each(self, residual: torch.Tensor) -> torch.Tensor:
        return residual.abs() ** 3


class Own(NLinear):
    """A model of one's own."""


def test_no_module_that_a_checkpoint_names_is_imported_and_what_is_passed_counts(stores: Path, tmp_path: Path) -> None:
    data = Case("NLinear").module(stores)
    path = noted(Own(data.shape), tmp_path / "own.ckpt")
    with pytest.raises(UsageError, match=r"checkpoint of Own; expected a model of this package"):
        TaskModel.load_from_checkpoint(path)
    assert type(Own.load_from_checkpoint(path)) is Own
    path = noted(NLinear(data.shape, loss=Cubic()), tmp_path / "loss.ckpt")
    with pytest.raises(UsageError, match=r"cannot say what loss of NLinear is.*pass loss="):
        NLinear.load_from_checkpoint(path)
    assert type(NLinear.load_from_checkpoint(path, loss=Cubic()).task.loss) is Cubic
    path = noted(Ensemble(data.shape, "NLinear", 2), tmp_path / "e.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lightning_app"]["arguments"]["member"] = "antigravity.NLinear"
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match=r"an ensemble of antigravity\.NLinear.*pass member="):
        Ensemble.load_from_checkpoint(path)
    assert "antigravity" not in sys.modules
    assert len(Ensemble.load_from_checkpoint(path, member="NLinear").members) == 2


def test_a_checkpoint_of_an_earlier_release_is_loaded_without_what_was_not_noted_then(
    stores: Path, tmp_path: Path
) -> None:
    data = Case("LSTM").module(stores)
    path = noted(LSTM(data.shape, hidden=5), tmp_path / "old.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    for later in ("fields", "vectors", "target_stride", "classes", "field_axes", "field_dtypes"):
        del checkpoint["lightning_app"]["shape"][later]
    torch.save(checkpoint, path)
    assert TaskModel.load_from_checkpoint(path).shape == data.shape
