"""Storage options may hold secrets, which stand on no command line made here, in no saved configuration, in no message.

The usual environment variables (``AWS_SECRET_ACCESS_KEY``) keep them off the command line that a user types, too.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_app.front import WORDS
from lightning_app.own_code import class_mistake
from zstore import bound_yaml, mistyped, read_yaml

_NAME = "storage_options"
_HARMLESS = (
    "allow_http",
    "bucket",
    "connect_timeout",
    "default_region",
    "endpoint",
    "hedge",
    "in_flight",
    "region",
    "timeout",
)


class Parser(LightningArgumentParser):
    """A parser of bounded YAML and of lists without brackets. Its errors are short, and repeat no storage options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound_yaml()
        super().__init__(*args, **kwargs)

    def add_argument_group(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """A group of flags; a command may be called as another group is, such as ``export``."""
        return super().add_argument_group(*args, name=None if name in (self.groups or ()) else name, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:  # type: ignore[override]
        """Parse words; ``a,b`` is the list ``[a, b]`` where a flag takes a list and nothing else."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args(self._with_brackets(words), *more, **options)

    def dump(self, cfg: Any, *more: Any, **options: Any) -> str:
        """The text of a configuration. It was parsed, so it is not checked again, which takes a tenth of a second."""
        text: str = super().dump(cfg, *more, **{"skip_validation": True, **options})
        return text

    def _with_brackets(self, words: Sequence[str]) -> list[str]:
        """The words, with brackets around what stands for a list."""
        bracketed: list[str] = []
        for word in words:
            flag, equals, value = word.partition("=")
            of_flag, of_before = self._items(flag), self._items(bracketed[-1] if bracketed else "")
            if equals and of_flag:
                bracketed.append(f"{flag}={_bracketed(value, of_flag)}")
            elif of_before and not word.startswith("--"):
                bracketed.append(_bracketed(word, of_before))
            else:
                bracketed.append(word)
        return bracketed

    def _items(self, flag: str) -> list[Any]:
        """The types of the items of a list, if a flag takes lists and nothing else; else none."""
        action = self._option_string_actions.get(flag)
        return [] if action is None else _items_of(getattr(action, "_typehint", None))

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """End with a message about the arguments, and where options are explained, without a list of them all."""
        message = without_secrets(message)
        if not self.exit_on_error or "subcommand" in message:  # the commands are listed where none was named
            return super().error(message, None if _NAME in message else ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        mistake = class_mistake(message) or mistyped(message, parser)
        if mistake is not None:
            sys.stderr.write(f"lightning_app: {mistake}\n")
            sys.exit(mistake.exit_code)
        command = parser.prog.replace(" [options]", "")
        sys.stderr.write(f"lightning_app: {message}\nFix: correct it; {command} --help-all explains all options.\n")
        sys.exit(2)


class SavedConfig(SaveConfigCallback):
    """Saves the configuration of a fit without what may be secret in its storage options, and tells it to loggers.

    Those for CSV and TensorBoard write beside it, and are not told. Other commands, which may read another store, leave
    it; without a fit the first of them saves its own.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it in the run folder. Lightning calls this on the first process."""
        path = Path(trainer.default_root_dir) / self.config_filename
        if stage != "fit" and path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.config = self.config.clone()
        _strip(self.config)
        self.parser.save(self.config, str(path), skip_unset=False, overwrite=True, multifile=False)
        saved = read_yaml(str(path), "the configuration of a run")
        for logger in trainer.loggers:
            if stage == "fit" and not isinstance(logger, (CSVLogger, TensorBoardLogger)):
                logger.log_hyperparams(saved)


def _items_of(kind: Any) -> list[Any]:
    """The types of the items where values of a type are lists, or None; else no types."""
    if get_origin(kind) in (Union, types.UnionType):
        items = [_items_of(each) for each in get_args(kind) if each is not type(None)]
        return [each for own in items for each in own] if all(items) else []
    return list(get_args(kind)) if get_origin(kind) in (list, tuple, Sequence) else []


def _bracketed(text: str, items: Sequence[Any]) -> str:
    """The list ``a,b`` as YAML has it; what is a list already, nothing, or a file as it is."""
    if text[:1] in ("[", "{", "") or text in ("null", "None") or os.path.isfile(text):
        return text
    parts = [part.strip() for part in text.split(",")]
    are_numbers = any(each in (int, float) for each in items)
    return f"[{', '.join(part if are_numbers else _quoted(part) for part in parts)}]"


def _quoted(text: str) -> str:
    """A text as YAML has it whatever is in it."""
    return '"' + "".join(each if each.isascii() and each.isalnum() else f"\\U{ord(each):08x}" for each in text) + '"'


def config_text(parser: LightningArgumentParser, config: Namespace) -> str:
    """The configuration of a command as YAML, as :class:`SavedConfig` saves it."""
    own = config.clone()
    _strip(own)
    return str(parser.dump(own, skip_unset=False))


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
    return [], {WORDS: json.dumps(list(words))}


def take_arguments() -> list[str]:
    """The arguments of this process, with storage options kept off the command lines of processes that it starts.

    Lightning starts a process for each further GPU with the arguments of this one (`sys.argv`).
    """
    words = sys.argv[1:] or json.loads(os.environ.get(WORDS, "[]"))
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
