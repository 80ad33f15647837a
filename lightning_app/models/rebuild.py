"""How a model is built again from its checkpoint alone, and what a checkpoint must be of for a model that there is."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Container
from typing import Any

import pytorch_lightning as pl
from torch import nn

from lightning_app import losses, tasks
from lightning_app.batch import BatchShape
from lightning_app.losses import Loss
from lightning_app.tasks import Task
from zstore import UsageError

_LACKING: dict[str, Any] = {
    "fields": {},
    "vectors": {},
    "target_stride": 1,
    "classes": [],
}  # of shapes in older checkpoints
_UNSAID = ("field_axes", "field_dtypes")  # likewise, and nothing else says so
_LEFT_OUT = ("shape", "extra_metrics")  # which only measure
_FIX = "fit again, or build the model as its configuration does and hand it to the trainer with ckpt_path"


class Remembers(type(pl.LightningModule)):  # type: ignore[misc]
    """Keeps the arguments that a model was made with, which its checkpoints note.

    A metaclass, for `__new__` with ``**options`` would hide the options of a constructor from the command line.
    """

    def __call__(cls, *args: Any, **options: Any) -> Any:
        """Make a model."""
        model = super().__call__(*args, **options)
        model.__dict__["_given"] = args, options
        return model


def noted_arguments(
    constructor: Any, given: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Arguments of a constructor as plain values for a checkpoint, `shape` and metrics left out.

    Parameters
    ----------
    constructor
        ``__init__`` of the model's class.
    given
        The positional and the named arguments it was called with.

    Returns
    -------
    By name: numbers, texts, None, lists and dictionaries of these; a loss as ``{"loss": CLASS, …its arguments}``, and
    a task likewise. Then the names of what cannot be noted, such as a loss of one's own: it has to be passed when the
    model is loaded.
    """
    bound = inspect.signature(constructor).bind(None, *given[0], **given[1]).arguments
    named = {**{k: v for k, v in list(bound.items())[1:] if k != "options"}, **bound.get("options", {})}
    noted = {name: _noted(value) for name, value in named.items() if name not in _LEFT_OUT}
    unsaid = [name for name, value in noted.items() if not _is_plain(value)]
    return {name: value for name, value in noted.items() if name not in unsaid}, unsaid


def unsaid_arguments(noted: Any) -> list[str]:
    """Names of the arguments that a checkpoint cannot say."""
    return list(noted.get("unsaid", [])) if isinstance(noted, dict) else []


def arguments_of(noted: Any, model: str, passed: Container[str] = ()) -> dict[str, Any]:
    """What :func:`noted_arguments` noted, and the shape, as arguments of the model's class.

    Parameters
    ----------
    noted
        Of a checkpoint.
    model
        The name of the class.
    passed
        Names of arguments that are known otherwise, and left out here.

    Raises
    ------
    UsageError
        If the checkpoint is of another model, or has no such notes, or does not say an argument.
    """
    if not isinstance(noted, dict) or not {"model", "shape", "arguments"} <= set(noted):
        raise UsageError("checkpoint that does not say how its model was built", expected="its arguments", fix=_FIX)
    if noted["model"] != model:
        raise UsageError(
            f"checkpoint of {noted['model']}", expected=f"one of {model}", fix=f"{noted['model']}.load_from_checkpoint"
        )
    lacking = [name for name in unsaid_arguments(noted) if name not in passed]
    if lacking:
        raise UsageError(
            f"checkpoint that cannot say what {' and '.join(lacking)} of {model} is",
            expected="numbers, texts, lists, and losses and tasks of lightning_app",
            fix=f"pass {', '.join(f'{name}=' for name in lacking)}, or load its run: lightning_app.load(folder)",
        )
    arguments = {name: value for name, value in noted["arguments"].items() if name not in passed}
    if "." in str(arguments.get("member", "")):  # of an ensemble, which would import it
        raise UsageError(
            f"checkpoint of an ensemble of {arguments['member']}",
            expected="a model of this package",
            fix="pass member=, or load its run: lightning_app.load(folder)",
        )
    if isinstance(arguments.get("task"), dict):
        task = dict(arguments["task"])
        if isinstance(task.get("loss"), dict):
            task["loss"] = _made(task["loss"], "loss", Loss, losses)
        arguments["task"] = _made(task, "task", Task, tasks)
    if isinstance(arguments.get("loss"), dict):
        arguments["loss"] = _made(arguments["loss"], "loss", Loss, losses)
    return {"shape": BatchShape(**noted["shape"]), **arguments}


def shipped_class(noted: Any, base: type[Any]) -> type[Any]:
    """The class of a model of this package that a checkpoint is of.

    Raises
    ------
    UsageError
        If it is of none of these.
    """
    name = str(noted.get("model", "")) if isinstance(noted, dict) else ""
    found = getattr(importlib.import_module("lightning_app.models"), name, None)
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        raise UsageError(
            f"checkpoint of {name or 'a model that it does not name'}",
            expected="a model of this package",
            fix="load_from_checkpoint of its own class",
        )
    return found


def _noted(value: Any) -> Any:
    """A loss or a task of this package as plain values; anything else as it is."""
    if isinstance(value, Loss) and type(value).__module__ == losses.__name__:
        public = {name: each for name, each in vars(value).items() if name[0] != "_" and name != "training"}
        return {"loss": type(value).__name__, **public}
    if isinstance(value, Task) and getattr(tasks, type(value).__name__, None) is type(value):
        own = {name: _noted(each) for name, each in value.arguments().items() if name not in _LEFT_OUT}
        return {"task": type(value).__name__, **own}
    return value


def _made(noted: dict[str, Any], what: str, base: type[Any], module: Any) -> Any:
    """A loss or a task of this package, with the arguments that were noted."""
    arguments = dict(noted)
    name = str(arguments.pop(what, ""))
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UsageError(
            f"checkpoint with the {what} {noted.get(what)!r}",
            expected=f"one of {module.__name__}",
            fix=f"pass {what}= to load_from_checkpoint",
        )
    return kind(**arguments)


def require_same_model(
    model: nn.Module, shape: BatchShape, panels: bool, given: dict[str, Any], checkpoint: dict[str, Any]
) -> None:
    """Raise UsageError if a checkpoint is of another model or shape, or has other weights, or means others by them.

    Parameters
    ----------
    model, shape
        What it is loaded into.
    panels
        Whether the model reads panels as such; others know of any panel what they learned of single series.
    given
        Arguments of the model, by name, as :func:`noted_arguments` notes them: those of them that `of_weights` of a
        model and `of_outputs` of a task name have to be the same.
    checkpoint
        What was saved.
    """
    noted = checkpoint.get("lightning_app") or {}
    own = {"model": type(model).__name__, **shape.to_json()}
    unsaid = {name: own[name] for name in _UNSAID}
    recorded = {"model": noted.get("model"), **_LACKING, **unsaid, **noted.get("shape", {})}
    if not panels:
        del own["n_nodes"]
    arguments = _of_weights(model, noted.get("arguments"))
    own |= {name: value for name, value in _of_weights(model, given).items() if name in arguments}
    recorded |= arguments
    for name, value in own.items():
        if recorded.get(name) != value:
            raise _misfit(f"checkpoint with {name} {recorded.get(name)}", f"{value}, as this configuration has")
    sizes = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    for name, tensor in model.state_dict().items():
        if sizes.pop(name, None) != tuple(tensor.shape):
            raise _misfit(f"checkpoint without weights {name} {tuple(tensor.shape)}", "the weights of this model")
    if sizes:
        raise _misfit(f"checkpoint with further weights {', '.join(sizes)}", "the weights of this model")


def _of_weights(model: Any, noted: Any) -> dict[str, Any]:
    """By name, those of noted arguments, of the task as ``task.levels``, that weights are of; older ones have none."""
    if not isinstance(noted, dict):
        return {}
    options: dict[str, inspect.Parameter] = {}
    for each in reversed(type(model).__mro__):  # what it hands on as **options has defaults further up
        if "__init__" in vars(each):
            options |= inspect.signature(vars(each)["__init__"]).parameters
    found = {name: noted.get(name, options[name].default) for name in model.of_weights if name in options}
    task = noted.get("task")
    if isinstance(task, dict):
        found |= {f"task.{name}": task[name] for name in model.task.of_outputs if name in task}
    return found


def _misfit(what: str, expected: str) -> UsageError:
    return UsageError(what, expected=expected, fix="the --config and flags it was trained with, or another --ckpt_path")


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(each) for name, each in value.items())
    return value is None or isinstance(value, (bool, int, float, str))
