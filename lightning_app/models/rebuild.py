"""How a model is built again from its checkpoint alone: its class and the plain arguments it was given."""

from __future__ import annotations

import inspect
from typing import Any

from lightning_app import losses
from lightning_app.batch import BatchShape
from lightning_app.losses import Loss
from zstore import UsageError

_FIX = "fit again, or build the model as its configuration does and hand it to the trainer with ckpt_path"


def plain_arguments(constructor: Any, given: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    """Arguments of a constructor as plain values for a checkpoint, `shape` left out.

    Parameters
    ----------
    constructor
        ``__init__`` of the model's class.
    given
        The positional and the named arguments it was called with.

    Returns
    -------
    By name: numbers, texts, None, lists and dictionaries of these; a loss as ``{"loss": CLASS, …its arguments}``.
    What is neither is left out, and has to be passed when the model is loaded.
    """
    bound = inspect.signature(constructor).bind(None, *given[0], **given[1]).arguments
    named = {**{k: v for k, v in list(bound.items())[1:] if k != "options"}, **bound.get("options", {})}
    named.pop("shape", None)
    if isinstance(named.get("loss"), Loss):
        loss = named["loss"]
        public = {name: value for name, value in vars(loss).items() if name[0] != "_" and name != "training"}
        named["loss"] = {"loss": type(loss).__name__, **public}
    return {name: value for name, value in named.items() if _is_plain(value)}


def arguments_of(noted: Any, model: str) -> dict[str, Any]:
    """What :func:`plain_arguments` noted, and the shape, as arguments of the model's class.

    Raises
    ------
    UsageError
        If the checkpoint is of another model, or has no such notes.
    """
    if not isinstance(noted, dict) or not {"model", "shape", "arguments"} <= set(noted):
        raise UsageError("checkpoint that does not say how its model was built", expected="its arguments", fix=_FIX)
    if noted["model"] != model:
        raise UsageError(
            f"checkpoint of {noted['model']}", expected=f"one of {model}", fix=f"{noted['model']}.load_from_checkpoint"
        )
    arguments = dict(noted["arguments"])
    if isinstance(arguments.get("loss"), dict):
        named = dict(arguments["loss"])
        kind = getattr(losses, str(named.pop("loss", "")), None)
        if not (isinstance(kind, type) and issubclass(kind, Loss)):
            raise UsageError(
                f"checkpoint with the loss {arguments['loss'].get('loss')!r}",
                expected="one of lightning_app.losses",
                fix="pass loss= to load_from_checkpoint",
            )
        arguments["loss"] = kind(**named)
    return {"shape": BatchShape(**noted["shape"]), **arguments}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(each) for name, each in value.items())
    return value is None or isinstance(value, (bool, int, float, str))
