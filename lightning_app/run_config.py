"""What the configuration of a run leaves open: its folder, loggers and checkpoints, processes that others started."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from jsonargparse import Namespace

from lightning_app.launchers import launched
from zstore import UsageError, check_outside

_LIMITS = {  # of the batches that a command is about
    "fit": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}
_MOST_EPOCHS = 1000  # as Lightning has it, which warns of it; a fit stops when validation does not get better
_LOGGERS = ("lightning_app.metrics_log.MetricsLog", "pytorch_lightning.loggers.TensorBoardLogger")


def refuse_no_batches(trainer: Namespace, commands: Iterable[str]) -> None:
    """Raise UsageError if some commands would do nothing, for a limit of the trainer is 0."""
    for command in commands:
        limit = _LIMITS.get(command)
        if limit is not None and trainer[limit] == 0:
            raise UsageError(
                f"{command} with --trainer.{limit} 0, which does nothing",
                expected="at least one batch",
                fix=f"drop --trainer.{limit}",
            )


def fill_in(config: Namespace, command: str, goes_on: bool) -> bool:
    """Fill in what the configuration of a command leaves open.

    Parameters
    ----------
    config
        What was asked for; changed in place.
    command
        Which one, such as ``fit``.
    goes_on
        Whether the command takes over loggers of one before it.

    Returns
    -------
    Whether the configuration leaves loggers open.

    Raises
    ------
    UsageError
        If the run would write into a store.
    """
    trainer = config["trainer"]
    if trainer["max_epochs"] is None and trainer["max_steps"] == -1 and trainer["max_time"] is None:
        trainer["max_epochs"] = _MOST_EPOCHS
    if trainer["default_root_dir"] is None:
        files = config.get("config") or []
        trainer["default_root_dir"] = f"runs/{Path(str(files[0])).stem}" if files else "runs/unnamed"
    folder = Path(trainer["default_root_dir"])
    check_outside(trainer["default_root_dir"], "run folder")
    if config["checkpoint"]["dirpath"] is not None:
        check_outside(config["checkpoint"]["dirpath"], "--checkpoint.dirpath")
    else:
        config["checkpoint"]["dirpath"] = str(folder / "checkpoints")
    has_default_loggers = trainer["logger"] is None
    if has_default_loggers:
        trainer["logger"] = command == "fit" and [_logger(name, folder) for name in _LOGGERS]
    elif goes_on or command == "predict":  # which has nothing to log
        trainer["logger"] = False
    for each in trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]:
        logs = each.get("init_args", {}).get("save_dir") if isinstance(each, Namespace) else None
        if logs is not None:
            check_outside(logs, "logger to")
    _take_processes(trainer)
    if trainer["enable_progress_bar"] is None:
        trainer["enable_progress_bar"] = sys.stderr.isatty() and not config["quiet"]
    if trainer["enable_model_summary"] is None:
        trainer["enable_model_summary"] = False
    return has_default_loggers


def _take_processes(trainer: Namespace) -> None:
    """Take the numbers of devices and machines from what torchrun or SLURM has started, if it has."""
    processes = launched()
    if processes is not None and trainer["devices"] == "auto" and processes.devices is not None:
        trainer["devices"] = processes.devices
    if processes is not None and trainer["num_nodes"] == 1 and processes.num_nodes is not None:
        trainer["num_nodes"] = processes.num_nodes


def _logger(class_path: str, folder: Path) -> Namespace:
    options = Namespace(save_dir=str(folder), name="logs", version="")  # type: ignore[no-untyped-call]
    return Namespace(class_path=class_path, init_args=options)  # type: ignore[no-untyped-call]
