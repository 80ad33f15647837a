"""The command line: one command, or several in one process, and what goes wrong as one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from jsonargparse import set_parsing_settings
from pytorch_lightning import Callback, Trainer

from lightning_app import audit, backtest, completion, evaluation, table
from lightning_app.app_cli import PARTS_OF_RUN, AppCLI
from lightning_app.arguments import take_arguments
from lightning_app.batch import BatchShape
from lightning_app.front import answered
from lightning_app.messages import Printed, quiet
from lightning_app.own_code import mistake_in
from zstore import ZstoreError, check_configs, end_quietly

_BESIDE: dict[str, Callable[[Sequence[str]], int]] = {
    "completion": completion.main,
    "evaluate": evaluation.main,
    "splits": audit.main,
    "table": table.main,
}


def fit(*words: object, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Fit as the command does, and keep the trainer: to search for good values, say.

    Parameters
    ----------
    words
        Arguments of the command `fit`: ``fit("--config", "mine.yaml", "--optimizer.lr", 0.01)``.
    callbacks
        Further ones beside those of the configuration.

    Returns
    -------
    After the fit. It has `lightning_module`, `callback_metrics`, and ``checkpoint_callback.best_model_score``.

    Raises
    ------
    ZstoreError
        What the command would print. Arguments that cannot be parsed end with `SystemExit`, as in the command.
    """
    quiet()
    set_parsing_settings(subclasses_enabled=[BatchShape])
    arguments = ["fit", *map(str, words)]
    check_configs(arguments)
    return AppCLI(arguments, None, callbacks=callbacks).trainer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    0 if it did what was asked, 1 if that failed, 2 if the arguments cannot be meant, 141 if nobody reads its output.
    """
    return end_quietly(partial(_main, arguments))


def _main(arguments: Sequence[str] | None) -> int:
    words = take_arguments() if arguments is None else list(arguments)
    code = answered(words)
    if code is not None:
        return code
    words = ["--help" if word == "--help-all" else word for word in words]
    debug = "--debug" in words
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
    logging.basicConfig(handlers=[Printed()], format="%(message)s")
    logging.getLogger("lightning_app").setLevel(logging.WARNING if "--quiet" in words else logging.INFO)
    quiet()
    if words[:1] and words[0] in _BESIDE:
        return _beside(_BESIDE[words[0]], words[1:], debug)
    # A shape is handed from the data to the model as a whole; it is no group of flags.
    set_parsing_settings(subclasses_enabled=[BatchShape])
    try:
        check_configs(words)
        if words[:1] == ["backtest"]:
            return backtest.main(AppCLI, words[1:])
        parts, loggers = _parts(words), None
        for part in parts:
            cli = AppCLI(part, "run" if len(parts) > 1 else None, loggers=loggers)
            loggers = loggers or cli.named_loggers
        if len(parts) > 1:
            _score_kept(cli.run_folder, "--quiet" in words)
    except ZstoreError as error:
        if debug:
            raise
        print(f"lightning_app: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # which Lightning has handled, and ended with 1
            return _interrupted()
        raise
    except Exception as error:
        mistake = None if debug else mistake_in(error)
        if mistake is None:
            raise
        print(f"lightning_app: {mistake}", file=sys.stderr)
        return mistake.exit_code
    return 0


def _interrupted() -> int:
    print("lightning_app: interrupted", file=sys.stderr)
    return 130


def _score_kept(folder: Path, is_quiet: bool) -> None:
    """Score the forecasts of rows to come that a run folder has kept, if it has any."""
    from lightning_app.kept import FOLDER  # with Parquet, which other commands do not need

    if (folder / FOLDER).is_dir():
        evaluation.main([str(folder), *(["--quiet"] if is_quiet else [])], leave_out_others=True)


def _parts(words: Sequence[str]) -> list[list[str]]:
    """The commands of a line: three of `run`, which starts from its checkpoint, if it names one, in the fit alone."""
    if not words or words[0] != "run":
        return [list(words)]
    fit, *later = ([command, *words[1:]] for command in PARTS_OF_RUN)
    return [fit, *([*command, "--ckpt_path", "null"] for command in later)]


def _beside(command: Callable[[Sequence[str]], int], words: Sequence[str], debug: bool) -> int:
    """Run a command that is none of Lightning's."""
    try:
        return command([word for word in words if word != "--debug"])
    except ZstoreError as error:
        if debug:
            raise
        print(f"lightning_app: {error}", file=sys.stderr)
        return error.exit_code
