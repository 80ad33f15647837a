"""What a docstring says of each parameter: the one description of an option, which the help of commands quotes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

_SECTION = re.compile(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(\w.*)\n((?:(?: +.*)?(?:\n|\Z))+)", re.MULTILINE)
_SENTENCE = re.compile(r"\.(?:\s+(?=[A-Z`*])|$)")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function or class, and what its docstring says.

    Parameters
    ----------
    name
        As Python has it.
    annotation
        Its type.
    default
        ``inspect.Parameter.empty`` if it has none.
    text
        Its description, on one line.
    """

    name: str
    annotation: Any
    default: Any
    text: str

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def arms(self) -> tuple[Any, ...]:
        """The types of a union; else its one type."""
        annotation = self.annotation
        return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that it may have, where its type lists them."""
        return tuple(each for arm in self.arms if get_origin(arm) is Literal for each in get_args(arm))

    @property
    def help(self) -> str:
        """The first sentence as the command line has it: flags for parameters, no markup, and the default.

        Notes
        -----
        "None for …" is the default of a flag. "Whether to …" is what a switch does.
        """
        text = _SENTENCE.split(self.text, maxsplit=1)[0]
        text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
        text = re.sub(r"``([^`]+)``", r"\1", text)
        text = re.sub(r"`(\w+)`", lambda name: f"--{name[1].replace('_', '-')}", text)
        text = re.sub(r"; None (?:for|to) ", "; default: ", text)
        text = re.sub(r"^Whether (?:to )?", "", text) if self.default is False else text
        text = text[:1].lower() + text[1:] if not text[1:2].isupper() else text
        shown = shown_default(self.default)
        return f"{text}; default: {shown}" if shown and "default" not in text else text


def shown_default(default: Any) -> str:
    """A default as help shows it; ``""`` where there is none to show."""
    if default is inspect.Parameter.empty or default is None or isinstance(default, (bool, Mapping)):
        return ""
    return ", ".join(each or "empty" for each in default) if isinstance(default, tuple) else str(default)


@cache
def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """All parameters of a function, or of the constructor of a class, in their order, with their numpydoc texts."""
    section = _SECTION.search(inspect.cleandoc(function.__doc__ or ""))
    texts: dict[str, str] = {}
    for names, text in _ENTRY.findall(section[1] if section else ""):
        texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return {
        name: Parameter(name, each.annotation, each.default, texts.get(name, ""))
        for name, each in inspect.signature(function, eval_str=True).parameters.items()
    }
