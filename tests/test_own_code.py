"""Models, losses, metrics and so on of a module of one's own, and what people get wrong in them: one line each."""

import importlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.functional import l1_loss
from torchmetrics import MeanAbsoluteError

import lightning_app
from lightning_app.batch import BatchShape
from lightning_app.losses import MSE
from lightning_app.models import NLinear
from lightning_app.own_code import mistake_in
from lightning_app.tasks import Forecast
from zstore import Store, UsageError

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning, as in the tests of the command

App = Callable[..., subprocess.CompletedProcess[str]]
OWN = """
import torch
from torch import nn
from torchmetrics import Metric

from lightning_app.losses import Loss
from lightning_app.models import TaskModel


class Average(TaskModel):
    def __init__(self, shape, start: float = 1.0, bend: nn.Module | None = None, **options):
        super().__init__(shape, **options)
        self.factor, self.bend = nn.Parameter(torch.tensor(start)), bend or nn.Identity()

    def forward(self, batch):
        mean = batch["x"][..., self.shape.target_inputs].mean(dim=1, keepdim=True)
        return (self.bend(self.factor) * mean).expand(-1, self.shape.horizon, -1)


class Needs(Average):
    def __init__(self, shape, width: int, **options):
        super().__init__(shape, **options)


class Short(Average):
    def forward(self, batch):
        return super().forward(batch)[:, :1]


class Detached(Average):
    def forward(self, batch):
        return batch["y"] * 0


class Raises(Average):
    def forward(self, batch):
        return batch["z"]


class Lacks(TaskModel):
    def __init__(self, shape):
        super().__init__(shape)
        self.head = nn.Linear(2, 1)


class NoSuper(Average):
    def __init__(self, shape):
        self.head = nn.Linear(2, 1)


class Plain(nn.Module):
    pass


class LogCosh(Loss):
    def __init__(self, width: float = 1.0):
        super().__init__()
        self.width = width

    def each(self, residual):
        return (residual / self.width).cosh().log()


class Mean(Loss):
    def each(self, residual):
        return residual.square().mean()


class Peak(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("highest", torch.tensor(-torch.inf), dist_reduce_fx="max")

    def update(self, predicted, observed):
        self.highest = torch.maximum(self.highest, predicted.max())

    def compute(self):
        return self.highest


class Pair(Peak):
    def compute(self):
        return torch.stack([self.highest, self.highest])


class Crooked(Peak):
    def update(self, predicted, observed):
        predicted.frobnicate()
"""


@pytest.fixture
def config(hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import torch\nraise RuntimeError('no licence')\n")
    (tmp_path / "own_typo.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "own_lacks.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    document: dict[str, Any] = {
        "data": {"store": str(hourly.path), "lookback": 24, "horizon": 6, "split": {"sizes": [1400, 300, 300]}},
        "model": {"class_path": "own_parts.Average", "init_args": {"start": 0.5}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False},
    }
    document["data"] |= {"channels": ["a", "b"], "targets": ["a"], "cache": str(tmp_path / "cache")}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "own.yaml"


def some_long(cases: dict[str, str], usual: str) -> list[Any]:
    """Cases, of which those that are much like others are run by make test-long."""
    marks = {case: () if re.search(usual, case) else pytest.mark.long for case in cases}
    return [pytest.param(case, expected, marks=marks[case]) for case, expected in cases.items()]


CLASSES = {
    "own_parts.Averag": "no Averag in own_parts; expected one of Average. ",
    "own_part.Average": "no module 'own_part', which model own_part.Average names; expected own_part.py in the folder",
    "own_broken.Average": r"RuntimeError (no licence); expected code that runs. ",
    "own_typo.Average": "SyntaxError (invalid syntax); expected code that runs. ",
    "own_lacks.Average": "ModuleNotFoundError (No module named 'no_such_package'); expected code that runs. ",
    "own_parts.Plain": "model own_parts.Plain, which is no LightningModule; expected a class derived from Light",
    "own_parts.Needs": "model own_parts.Needs without width; expected a value for each of its arguments",
    "own_parts.Lacks": "Lacks without forward(batch); expected a method that returns outputs",
    "own_parts.NoSuper": "AttributeError (cannot assign module before Module.__init__() call) in __init__",
    "own_parts.Short": "Short whose outputs have the shape (256, 1, 1); expected (256, 6, 1)",
    "own_parts.Detached": "a training loss of Detached that no weight has a part in",
    "own_parts.Raises": "KeyError ('z') in forward; expected code that runs. ",
    "LSTN": "model LSTN; expected LSTM or EALSTM, or one of your own by its module, such as mymodule.LSTN",
}
PARTS = {
    "model: {init_args: {strat: 1}}": "model own_parts.Average with strat; expected one of start, bend, units, loss",
    "model: {init_args: {start: fast}}": "model.start fast; expected float. Fix: correct --model.start",
    "model: {init_args: {loss: own_parts.LogCos}}": "no LogCos in own_parts; expected one of LogCosh. ",
    "model: {init_args: {loss: torch.nn.MSELoss}}": "model.loss torch.nn.MSELoss, which is no Loss",
    "model: {init_args: {loss: {class_path: own_parts.LogCosh, init_args: {wide: 2}}}}": (
        "model.loss own_parts.LogCosh with wide; expected one of width"
    ),
    "model: {init_args: {loss: own_parts.Mean}}": "Mean whose losses have the shape (); expected (256, 6, 1)",
    "model: {init_args: {extra_metrics: {peak: own_parts.Pair}}}": "extra metric 'peak' (Pair) of shape (2,); expected",
    "model: {init_args: {extra_metrics: {peak: own_parts.Crooked}}}": "extra metric 'peak' (Crooked) that fails: Attr",
    "model: {init_args: {extra_metrics: {mse: own_parts.Peak}}}": "extra metric 'mse'; expected another name",
    "model: {init_args: {extra_metrics: {a/b: own_parts.Peak}}}": "extra metric 'a/b'; expected a name of letters",
    "optimizer: {class_path: own_parts.Sgd}": "no Sgd in own_parts",
    "optimizer: {class_path: torch.optim.Adam, init_args: {rate: 1}}": "optimizer torch.optim.Adam with rate; expected",
    "trainer: {callbacks: [{class_path: own_parts.Plain}]}": "trainer.callbacks own_parts.Plain, which is no Callback",
    "trainer: {logger: {class_path: own_parts.Log}}": "no Log in own_parts",
}


@pytest.mark.parametrize(
    ("name", "expected"), some_long(CLASSES, "Averag$|own_part\\.|broken|Plain|Super|Short|Raises|LSTN")
)
def test_a_mistake_in_a_model_of_ones_own_is_told_in_one_line(config: Path, app: App, name: str, expected: str) -> None:
    document = yaml.safe_load(config.read_text())
    document["model"] = {"class_path": name}
    config.write_text(yaml.safe_dump(document))
    refused(app("fit", "--config", config, "--quiet"), expected)


@pytest.mark.parametrize(("text", "expected"), some_long(PARTS, "strat|MSELoss|wide|Pair|Crooked"))
def test_a_mistake_in_another_part_is_told_in_one_line(config: Path, app: App, text: str, expected: str) -> None:
    more = config.with_name("more.yaml")
    more.write_text(text)
    refused(app("fit", "--config", config, "--config", more, "--quiet"), expected)


@pytest.mark.parametrize(("words", "expected"), [(("--optimizer.lr", 0.1), "--optimizer.lr without --optimizer;")])
def test_an_argument_of_a_class_that_is_not_named_is_told_as_such(
    config: Path, app: App, words: tuple[object, ...], expected: str
) -> None:
    refused(app("fit", "--config", config, "--quiet", *words), expected)


def refused(done: subprocess.CompletedProcess[str], expected: str) -> None:
    errors = [line for line in done.stderr.splitlines() if "Warning" not in line and not line.startswith(" ")]
    assert done.returncode == 2
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith(f"lightning_app: {expected}")
    assert "Fix: " in errors[0]


def test_an_error_in_no_code_of_ones_own_keeps_its_traceback() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_load("{")
    here, error = mistake_in(caught.value), caught.value
    assert here is not None
    assert "in test_an_error_in_no_code_of_ones_own_keeps_its_traceback" in here.what
    assert error.__traceback__ is not None
    assert mistake_in(error.with_traceback(error.__traceback__.tb_next)) is None


def test_extra_metrics_see_what_was_observed_in_the_units_of_the_others(config: Path, app: App, tmp_path: Path) -> None:
    more = config.with_name("more.yaml")
    own = {"peak": "own_parts.Peak", "off": {"class_path": "torchmetrics.MeanAbsoluteError"}}
    more.write_text(yaml.safe_dump({"model": {"init_args": {"units": "source", "extra_metrics": own}}}))
    words = ("--config", config, "--config", more, "--checkpoint.monitor", "val/off")
    assert "best val/off" in app("fit", *words, check=True).stdout
    tested = app("test", *words, check=True).stdout
    found = yaml.safe_load((tmp_path / "runs" / "own" / "test_metrics.json").read_text())
    assert found["test/off"] == pytest.approx(found["test/mae"], rel=1e-6)
    assert 0 < found["test/peak"] < 4
    assert f"test/peak {found['test/peak']:.4f}" in tested
    assert "| peak |" in (tmp_path / "runs" / "own" / "summary.md").read_text()


def test_extra_metrics_are_of_one_stage_and_of_observed_targets() -> None:
    shape = BatchShape(lookback=2, horizon=3, delay=0, n_inputs=1, n_targets=1, target_inputs=[0])
    task = NLinear(shape, task=Forecast(extra_metrics={"off": MeanAbsoluteError()})).task
    y = torch.tensor([[[1.0], [2.0], [9.0]]])
    mask = torch.tensor([[[True], [True], [False]]])
    host: Any = type("Host", (), {"trainer": type("Trainer", (), {"world_size": 1, "training": False})})
    task.update("val", y + 1, {"y": y, "mask": mask}, host)  # type: ignore[typeddict-item]
    task.update("val", y + 2, {"y": y, "mask": ~mask & False}, host)  # type: ignore[typeddict-item]
    assert float(task.measured("val", host)["all"]["off"]) == 1.0 == l1_loss(y + 1, y)
    assert task.measured("val", host)["all"]["off"].isnan()
    assert task.measured("test", host)["all"]["off"].isnan()


def test_a_run_with_parts_of_ones_own_is_loaded_with_them(config: Path, app: App, tmp_path: Path) -> None:
    more = config.with_name("more.yaml")
    loss = {"class_path": "own_parts.LogCosh", "init_args": {"width": 2.0}}
    own = {"loss": loss, "bend": {"class_path": "torch.nn.Tanh"}, "extra_metrics": {"peak": "own_parts.Peak"}}
    more.write_text(yaml.safe_dump({"model": {"init_args": own}}))
    app("fit", "--config", config, "--config", more, "--quiet", check=True)
    app("predict", "--config", config, "--config", more, "--data.predict_on", "future", check=True)
    loaded = lightning_app.load(tmp_path / "runs" / "own")
    model: Any = loaded.model
    assert model.task.loss.width == 2.0
    assert isinstance(model.bend, torch.nn.Tanh)
    path = tmp_path / "runs" / "own" / "checkpoints" / "last.ckpt"
    with pytest.raises(UsageError, match="cannot say what bend and loss of Average is"):
        type(model).load_from_checkpoint(path)
    with pytest.raises(UsageError, match="cannot say what bend of Average is"):
        type(model).load_from_checkpoint(path, loss=MSE())
    assert isinstance(type(model).load_from_checkpoint(path, loss=MSE(), bend=torch.nn.Tanh()).task.loss, MSE)


NOTES = """
from pytorch_lightning.loggers.logger import Logger


class Notes(Logger):
    made = []

    def __init__(self, file: str):
        super().__init__()
        self.file, self.images, self.told, self.metrics = file, [], [], {}
        self.made.append(self)

    @property
    def name(self):
        return "notes"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params):
        self.told.append(params)

    def log_metrics(self, metrics, step=None):
        self.metrics |= metrics

    def log_image(self, key, images):
        self.images += [key, *images]
"""


def test_the_parts_of_a_run_share_loggers_which_get_the_configuration_and_the_pictures(
    config: Path, app: App, tmp_path: Path
) -> None:
    (tmp_path / "own_notes.py").write_text(NOTES)
    more = config.with_name("more.yaml")
    logger = {"class_path": "own_notes.Notes", "init_args": {"file": "x"}}
    more.write_text(yaml.safe_dump({"trainer": {"logger": [logger, {**logger, "init_args": {"file": "y"}}]}}))
    app("run", "--config", config, "--config", more, "--data.storage_options.secret=x", "--quiet", check=True)
    made = importlib.import_module("own_notes").Notes.made
    assert [each.file for each in made] == ["x", "y"]
    for each in made:
        (told,) = [told for told in each.told if "data" in told]
        assert told["data"]["lookback"] == 24
        assert told["data"]["storage_options"] is None
        assert {"val/mse", "test/mse"} <= set(each.metrics)
        assert each.images == [
            "test/forecast",
            "runs/own/forecast.png",
            "test/error_by_step",
            "runs/own/error_by_step.png",
        ]
    app("predict", "--config", config, "--config", more, "--quiet", check=True)
    assert len(made) == 2


@pytest.mark.long
def test_a_run_is_one_run_of_mlflow_and_of_weights_and_biases(config: Path, app: App, tmp_path: Path) -> None:
    mlflow, _ = pytest.importorskip("mlflow"), pytest.importorskip("wandb")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    loggers = [
        {"class_path": "WandbLogger", "init_args": {"project": "own", "save_dir": str(tmp_path), "offline": True}},
        {"class_path": "MLFlowLogger", "init_args": {"experiment_name": "own", "tracking_uri": uri, "log_model": True}},
    ]
    more = config.with_name("more.yaml")
    more.write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    app("run", "--config", config, "--config", more, "--quiet", check=True)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("own").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["data/lookback"] == "24"
    assert {"val/mse", "test/mse"} <= set(run.data.metrics)
    artifacts = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"forecast.png", "error_by_step.png"} < artifacts
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert len(list(folder.glob("files/media/images/test/forecast_*.png"))) == 1
