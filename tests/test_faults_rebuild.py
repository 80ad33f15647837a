"""A checkpoint is enough to build its model again."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_app.batch import BatchShape
from lightning_app.losses import Huber, Quantile
from lightning_app.models import LSTM, TCN, Ensemble, NLinear
from lightning_app.models.base import TaskModel
from zstore import Store, UsageError

App = Callable[..., subprocess.CompletedProcess[str]]
SHAPE = BatchShape(lookback=8, horizon=2, delay=0, n_inputs=3, n_targets=3, target_inputs=[0, 1, 2])
MODELS: list[tuple[type[TaskModel], tuple[Any, ...], dict[str, Any]]] = [
    (NLinear, (), {}),
    (LSTM, (7,), {"dropout": 0.1, "units": "source", "loss": Huber(0.25)}),
    (LSTM, (), {"hidden": 5, "input_layer": False, "loss": Quantile(0.9)}),
    (TCN, (), {"hidden": 4}),
    (Ensemble, ("NLinear", 2), {}),
]

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own


def saved(model: TaskModel, path: Path) -> Path:
    """What a trainer keeps of a model, but for the loops."""
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.6.0"}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(("kind", "args", "options"), MODELS)
def test_a_model_is_built_again_from_its_checkpoint_alone(
    kind: type[TaskModel], args: tuple[Any, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    model = kind(SHAPE, *args, **options).eval()
    again = kind.load_from_checkpoint(saved(model, tmp_path / "m.ckpt")).eval()
    batch: Any = {"x": torch.randn(4, 8, 3), "x_static": torch.zeros(4, 0), "x_future": torch.zeros(4, 2, 0)}
    assert torch.equal(again(batch), model(batch))
    assert (again.task.units, type(again.task.loss), vars(again.task.loss).get("delta")) == (
        model.task.units,
        type(model.task.loss),
        vars(model.task.loss).get("delta"),
    )


def test_a_checkpoint_of_another_model_or_of_an_earlier_release_is_refused(tmp_path: Path) -> None:
    path = saved(NLinear(SHAPE), tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match=r"checkpoint of NLinear.*NLinear\.load_from_checkpoint"):
        LSTM.load_from_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["lightning_app"]["arguments"]
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match="does not say how its model was built"):
        NLinear.load_from_checkpoint(path)
    assert NLinear.load_from_checkpoint(path, shape=SHAPE).shape == SHAPE


def test_the_best_checkpoint_of_a_fit_is_loaded_in_a_notebook(app: App, hourly: Store, tmp_path: Path) -> None:
    document = {
        "data": {"store": hourly.path, "lookback": 8, "horizon": 2, "split": {"sizes": [1400, 300, 300]}},
        "model": {"class_path": "LSTM", "init_args": {"hidden": 6}},
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu"},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(document))
    app("fit", "--config", "n.yaml", check=True)
    model = LSTM.load_from_checkpoint(tmp_path / "runs" / "n" / "checkpoints" / "best.ckpt")
    assert model.shape.horizon == 2
    assert not [value for value in model.state_dict().values() if not torch.isfinite(value).all()]
