"""One command: LightningCLI, with a run folder, early stopping and the best checkpoint set up."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO

import lightning_app.models
import lightning_app.rates
import lightning_app.rollout.pusht
import lightning_app.schedules  # noqa: F401  # lets configurations name its classes
from lightning_app.arguments import Parser, SavedConfig, config_text
from lightning_app.batch import BatchShape
from lightning_app.calibration import Calibration
from lightning_app.callbacks import FiniteMonitors, FitReport, Stopping, TestReport
from lightning_app.checkpoints import (
    DurableCheckpointIO,
    checkpoint_file,
    read_checkpoint,
    require_checkpoint,
    told,
)
from lightning_app.data.columns.classes import require_words_as_classes
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.export.export import Export
from lightning_app.models import TaskModel
from lightning_app.models.fields import warn_of_unread
from lightning_app.monitor import Monitor
from lightning_app.own_code import made_wrongly
from lightning_app.pictures import Pictures
from lightning_app.precision import usable_precision
from lightning_app.predictions import PredictionWriter
from lightning_app.radii import IntervalOptions
from lightning_app.restore import CheckpointConnector
from lightning_app.rollout.options import Rollout
from lightning_app.rollout.trainer import AppTrainer
from lightning_app.run_config import fill_in, refuse_no_batches
from lightning_app.saving import BestAndLast
from lightning_app.seeds import BatchSeeds
from zstore import UsageError, ZstoreError, __version__

logger = logging.getLogger(__name__)

_OPTIONS = {"rollout": "acting", "export": "export"}
"""Commands that have options of their own, and how these are called."""
_OF_TASK = "of the task"
PARTS_OF_RUN = ("fit", "test", "predict")
"""Commands that a run does one after another."""
_ABOUT_RUN = """Fit, test and predict in one process: what these commands do one after another with the same flags.

Test and predict take the best checkpoint of the fit. A model without parameters is not fitted. Forecasts of rows to
come that the run folder has kept are scored at the end, as by evaluate. The first part that fails ends the run, with
its error and its exit code; what was done before stays."""
_ABOUT = """Train models on windows of the series in a store: fit, validate, test, predict.

Export writes a model as ONNX, or as a program of torch.export; rollout lets a policy act.
Five further commands have help of their own: run does fit, test and predict in one process; backtest forecasts from
several origins in the past; splits counts what train, val and test are, and proves that no target belongs to two of
them; table fits and tests several configurations, and puts their metrics side by side; evaluate scores forecasts of
rows to come, once their truth is in."""


class AppCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` from one YAML file and flags.

    Parameters
    ----------
    words
        The arguments of a command.
    part_of
        Whether it is a part of `run` or of a `backtest`, whose folds are many: they are not drawn.
    execute
        Whether to do what they say. False to build the model, the data and the trainer alone.
    loggers
        Of the part of `run` before it, which go on; None to make those that the configuration names.
    callbacks
        Further ones.
    """

    def __init__(
        self,
        words: Sequence[str],
        part_of: Literal["run", "backtest"] | None,
        execute: bool = True,
        loggers: list[Logger] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self._typed, self._part_of, self._execute = next(iter(words), ""), part_of, execute
        self._run, self._loggers, self._more = part_of == "run", loggers, callbacks
        super().__init__(
            LightningModule,
            WindowDataModule,
            trainer_class=AppTrainer,
            subclass_mode_model=True,
            seed_everything_default=0,
            save_config_callback=SavedConfig,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=Parser,
            trainer_defaults={"enable_progress_bar": None, "enable_model_summary": None},
            parser_kwargs={"prog": "python -m lightning_app", "version": __version__, "description": _ABOUT},
            args=list(words) if words != sys.argv[1:] else None,
        )

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        if self._run:  # which has the flags of fit
            flags = self._subcommand_parsers["fit"]
            flags.prog, flags.description = flags.prog.replace("fit", "run"), _ABOUT_RUN

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """The flags of the command that was typed; of others none, for each takes a twentieth of a second."""
        if self._typed in self.subcommands() and subcommand != self._typed:
            self._subcommand_method_arguments[subcommand] = []
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        """Leave out the fit of a `run` whose model has nothing to fit."""
        if not self._execute:
            return
        if self._run and subcommand == "fit" and not getattr(self.model, "fitted", True):
            logger.info(f"no fit, for {type(self.model).__name__} has nothing to fit")
            return
        super()._run_subcommand(subcommand)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Early stopping and the best checkpoint are part of every fit; models take their shapes from the data."""
        parser.add_lightning_class_args(Stopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": _OF_TASK, "early_stopping.patience": 5})
        parser.add_lightning_class_args(BestAndLast, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": _OF_TASK,
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.add_class_arguments(Rollout, "acting")
        parser.add_class_arguments(IntervalOptions, "intervals")
        parser.add_class_arguments(Export, "export")
        parser.link_arguments("data", "model.init_args.shape", self._shape, apply_on="instantiate")
        parser.add_argument("--quiet", action="store_true", help="print warnings and errors only; no progress either")
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")

    @property
    def run_folder(self) -> Path:
        """Where this run keeps its checkpoints, logs, metrics and predictions."""
        return Path(self._get(self.config, "trainer")["default_root_dir"])

    @property
    def named_loggers(self) -> list[Logger] | None:
        """The loggers that the configuration names; None if it leaves them to this class."""
        return None if self._default_loggers else list(self.trainer.loggers)

    def before_instantiate_classes(self) -> None:
        """Fill in what depends on the run folder."""
        config, command = self.config[self.subcommand], str(self.subcommand)
        refuse_no_batches(config["trainer"], PARTS_OF_RUN if self._run else (command,))
        self._default_loggers = fill_in(config, command, self._loggers is not None)

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """Leave a model without parameters alone: a configuration with an optimizer may be tested with Repeat too."""
        if getattr(self.model, "fitted", True):
            super()._add_configure_optimizers_method_to_model(subcommand)

    def instantiate_classes(self) -> None:
        """Let an error of ours be told as such, though it came up in a link."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, ZstoreError):
                raise error.__cause__ from None
            mistake = made_wrongly(error)
            if mistake is None:
                raise
            raise mistake from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add the callbacks that report, checkpoints that a kill does not tear, and a precision that the device has."""
        task = self.model.task if isinstance(self.model, TaskModel) else None
        for name in ("early_stopping", "checkpoint"):
            callback = self._get(self.config_init, name)
            if callback.monitor == _OF_TASK:
                callback.monitor, callback.mode = (None, "min") if task is None else (task.monitor, task.mode)
        options = self._get(self.config_init, "trainer")
        plugins = options["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, DurableCheckpointIO()]
        precision = usable_precision(options["precision"], options["accelerator"])
        if options["enable_progress_bar"]:
            from lightning_app.bar import with_bar  # rich takes 40 ms to import: only where its bars may be seen

            kwargs["callbacks"] = with_bar(options["callbacks"])
        if self._loggers and self.subcommand != "predict":
            kwargs["logger"] = self._loggers
        trainer: Any = super().instantiate_trainer(**kwargs, plugins=plugins, precision=precision)
        trainer._checkpoint_connector = CheckpointConnector(trainer)
        folder = self.run_folder
        self._calibration = Calibration(folder, self._get(self.config_init, "intervals"))
        # In front: users' callbacks may seed otherwise, and nothing is stopped or saved by what is not finite.
        trainer.callbacks[:0] = [BatchSeeds(), FiniteMonitors()]
        trainer.callbacks += [*self._more, FitReport(), Monitor(), TestReport(folder), self._calibration]
        if task is not None:
            pictures = [] if self._part_of == "backtest" else [Pictures(folder)]
            trainer.callbacks += [*pictures, PredictionWriter(folder)]
        elif self._get(self.config_init, "early_stopping").monitor is None:
            trainer.callbacks.remove(self._get(self.config_init, "early_stopping"))
        return trainer

    def before_fit(self) -> None:
        """Warn of fields that the model does not read; load nothing but tensors and plain values from a checkpoint."""
        if self._run:
            self._require_task("run")
        warn_of_unread(self.model, self.datamodule.shape.fields)
        self._calibration.require(self.model, self.datamodule)
        self._choose_checkpoint(default=None)

    def after_fit(self) -> None:
        """Find the intervals of the checkpoint that test and predict will take, if some are asked for."""
        path = self._checkpoint(None, "best")
        if path is not None and path.is_file():
            self._calibration.prepare(self.trainer, self.model, self.datamodule, path)

    def _find_intervals(self) -> None:
        """Have the intervals of the checkpoint in use, if some are asked for."""
        path = self.config_init[self.subcommand]["ckpt_path"]
        self._calibration.prepare(self.trainer, self.model, self.datamodule, path)

    def before_validate(self) -> None:
        """Take the best checkpoint of the run folder unless another is named."""
        self._choose_checkpoint(default="best")

    def before_test(self) -> None:
        """Likewise; the report prints the metrics, so Lightning's own table is not needed."""
        self._choose_checkpoint(default="best")
        self._find_intervals()
        self.config_init[self.subcommand]["verbose"] = False

    def before_rollout(self) -> None:
        """Likewise, but the last checkpoint."""
        self._require_task("rollout")
        self._choose_checkpoint(default="last")

    def before_export(self) -> None:
        """Likewise, the best checkpoint; and nothing but the files that were asked for is written."""
        self._require_task("export")
        self._choose_checkpoint(default="best")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, `rollout` and `export`."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule", "options"} for name in _OPTIONS}}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        more = {"options": self._get(self.config_init, _OPTIONS[subcommand])} if subcommand in _OPTIONS else {}
        return {**super()._prepare_subcommand_kwargs(subcommand), **more}

    def before_predict(self) -> None:
        """Likewise; predictions go to disk, not into memory."""
        self._require_task("predict")
        self._choose_checkpoint(default="best")
        self._find_intervals()
        self.config_init[self.subcommand]["return_predictions"] = False

    def _require_task(self, command: str) -> None:
        if not isinstance(self.model, TaskModel):
            raise UsageError(
                f"{command} with {type(self.model).__name__}, which is no TaskModel",
                expected="a model that says by its task what its outputs are",
                fix="derive it from lightning_app.models.TaskModel; fit, validate and test take any LightningModule",
            )

    def _shape(self, data: WindowDataModule) -> BatchShape:
        """The shape of batches, once the data are read as the checkpoint in use has them.

        Raises
        ------
        UsageError
            If a target of words is no class: codes of words have no errors and no means.
        """
        config = self.config[self.subcommand]
        require_words_as_classes(data.store, data.targets, data.options.classes)
        default = None if self.subcommand == "fit" or not _has_weights(config["model"]["class_path"]) else "best"
        path = self._checkpoint(config["ckpt_path"], default)
        if path is not None and path.is_file():
            state = read_checkpoint(path, mmap=True).get(type(data).__name__)
            if isinstance(state, dict) and state.get("meaning") is not None:
                with told(path, "one that a fit with this configuration wrote"):
                    data.obey(Meaning.from_json(state["meaning"]))
                    return data.shape
        return data.shape

    def _parse_ckpt_path(self) -> None:
        """Take no configuration from a checkpoint: it could name any class, and importing runs code."""

    @property
    def config_text(self) -> str:
        """The configuration as YAML, without secrets."""
        return config_text(self._parser(self.subcommand), self.config[self.subcommand])

    @property
    def named_checkpoint(self) -> Path | None:
        """The file of the checkpoint that is named; None without one."""
        return self._checkpoint(self.config[self.subcommand]["ckpt_path"], None)

    def _checkpoint(self, named: str | None, default: str | None) -> Path | None:
        if named == "auto" and self.subcommand != "fit":
            raise UsageError(
                f"{self.subcommand} with --ckpt_path auto",
                expected="best, last or a path; a fit alone goes on from where it has got to",
                fix="drop --ckpt_path",
            )
        return checkpoint_file(self.run_folder, named, default)

    def _choose_checkpoint(self, default: str | None) -> None:
        options = self.config_init[self.subcommand]
        options["weights_only"] = True
        named = options["ckpt_path"]
        path = self._checkpoint(named, default if getattr(self.model, "fitted", True) else None)
        if path is None:
            options["ckpt_path"] = None
            return
        if named == "auto":
            logger.info(f"going on from {path}")
        if named is None and default == "best" and path.name == "last.ckpt":
            logger.info(f"no best checkpoint, for the fit had no validation; taking the last one: {path}")
        require_checkpoint(path)
        options["ckpt_path"] = str(path)


def _has_weights(class_path: str) -> bool:
    """Whether a model has anything to fit."""
    module, _, name = class_path.rpartition(".")
    return bool(getattr(getattr(importlib.import_module(module), name), "fitted", True))
