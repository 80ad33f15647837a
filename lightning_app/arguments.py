"""Storage options may hold secrets, which stand on no command line made here, in no saved configuration, in no message.

The usual environment variables (``AWS_SECRET_ACCESS_KEY``) keep them off the command line that a user types, too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback

from zstore import UsageError

_NAME = "storage_options"
_WORDS = "LIGHTNING_APP_ARGUMENTS"
_MOST_BYTES, _MOST_VALUES, _MOST_LEVELS = 1_000_000, 100_000, 50  # of a YAML file; real ones have some hundred values
_HARMLESS = ("allow_http", "bucket", "connect_timeout", "default_region", "endpoint", "region", "timeout")


class Parser(LightningArgumentParser):
    """A parser whose errors do not repeat storage options."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """End with a message about the arguments."""
        return super().error(without_secrets(message), None if _NAME in message else ex)


class SavedConfig(SaveConfigCallback):
    """Saves the configuration of a run without what may be secret in its storage options."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it."""
        self.config = self.config.clone()
        _strip(self.config)
        super().setup(trainer, pl_module, stage)


def read_yaml(path: str | Path, what: str = "configuration") -> dict[str, Any]:
    """A YAML file of names and plain values; empty for an empty file.

    Raises
    ------
    UsageError
        If it cannot be read, is no UTF-8 or no YAML, makes objects, holds no names, has more than a million bytes, or
        is not held to the limits of :func:`check_yaml`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        text = content.decode()
        check_yaml(text)
        document = yaml.safe_load(text)
        if document is not None and not isinstance(document, dict):
            raise ValueError(f"it holds {type(document).__name__}, no names")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason, fix = str(error), "correct it"
        if isinstance(error, OSError):
            reason, fix = str(error.strerror), "check the path and its permissions"
        raise UsageError(
            f"{what} {path} ({reason})", expected="a YAML file of names and plain values, in UTF-8", fix=fix
        ) from None
    return document or {}


def check_yaml(text: str) -> None:
    """Refuse a document that grows when its aliases are followed, before anything is made of it.

    Raises
    ------
    ValueError
        If it has more than 100,000 values, each counted wherever an alias repeats it, more than 50 levels, or an alias
        of what it lies in.
    """
    sizes: dict[int, int | None] = {}  # values below a node, by its identity; None while they are counted

    def size(node: yaml.Node, level: int) -> int:
        if level > _MOST_LEVELS:
            raise ValueError(f"more than {_MOST_LEVELS} levels")
        if id(node) not in sizes:
            sizes[id(node)] = None
            inner = list(chain(*node.value)) if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + (0 if isinstance(inner, str) else sum(size(each, level + 1) for each in inner))
        known = sizes[id(node)]
        if known is None:
            raise ValueError("an alias of what it lies in")
        if known > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values, aliases followed")
        return known

    document = yaml.compose(text, Loader=yaml.SafeLoader)
    if document is not None:
        size(document, 0)


def check_configs(words: Sequence[str]) -> None:
    """Refuse configurations that cannot be read, before a parser looks at them. Raises as :func:`read_yaml`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, sign, value = word.partition("=")
        if name == "--config" and Path(path := value if sign else following).is_file():
            read_yaml(path)


def without_secrets(message: str) -> str:
    """A message of the parser; one about storage options says what they should be, not what they are."""
    if _NAME not in message:
        return message
    return f"{_NAME} (not shown, for they may hold secrets); expected names and texts, such as {{region: eu-west-1}}"


def child_environment(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """How a process of this program gets its arguments: on its command line, unless there are storage options in them.

    Returns
    -------
    Words for the command line, and variables to add to the environment, which only the same user can read.
    """
    if not _are_secret(words):
        return list(words), {}
    return [], {_WORDS: json.dumps(list(words))}


def take_arguments() -> list[str]:
    """The arguments of this process, with storage options kept off the command lines of processes that it starts.

    Lightning starts a process for each further GPU with the arguments of this one (`sys.argv`).
    """
    words = sys.argv[1:] or json.loads(os.environ.get(_WORDS, "[]"))
    visible, variables = child_environment(words)
    sys.argv[1:] = visible
    os.environ.update(variables)
    return list(words)


def lasting(words: Sequence[str]) -> list[str]:
    """Arguments without storage options, which say how a result is reached, not what it is."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip and not word.startswith("--"):
            skip = False
            continue
        skip = _NAME in word and "=" not in word
        if _NAME not in word:
            kept.append(word)
    return kept


def _are_secret(words: Sequence[str]) -> bool:
    return any(_NAME in word for word in words)


def _strip(config: Any) -> None:
    """Drop what may be secret from every mapping of storage options, wherever it stands."""
    items = list(vars(config).items()) if isinstance(config, Namespace) else list(config.items())
    for name, value in items:
        if name == _NAME and isinstance(value, (dict, Namespace)):
            known = value if isinstance(value, dict) else vars(value)
            kept = {key: known[key] for key in known if key.lower().removeprefix("aws_") in _HARMLESS}
            config[name] = kept or None
        elif isinstance(value, (dict, Namespace)):
            _strip(value)
