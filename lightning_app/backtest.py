"""``python -m lightning_app backtest``: forecasts from several origins in the past, and their scores as one table."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from lightning_app.data.ahead.forecast import Ahead
from lightning_app.data.ahead.rows import rows_known
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.rolling import rolling_splits
from lightning_app.data.windows.splits import Split
from lightning_app.fold_table import FoldTable, read_noted
from lightning_app.models import TaskModel
from lightning_app.table import metric_value
from zstore import UsageError, check_outside, counted, read_yaml, whole_file

logger = logging.getLogger(__name__)

FOLDER = "backtest"
"""Of a run folder, where fits and forecasts of a backtest are."""
_STATE, _DONE, _FITTED = "backtest.json", "fold.json", "fitted"
_NAMED = 10  # series in a note


Command = Callable[..., Any]
"""Does a command of its words, as `lightning_app.app_cli.AppCLI` does, which has what it was done with."""


@dataclass(frozen=True)
class Fold:
    """A forecast from one origin.

    Parameters
    ----------
    number
        From 1, the earliest.
    split
        Whose test begins behind the origin.
    folder
        Where its files are.
    """

    number: int
    split: Split
    folder: Path

    @property
    def is_done(self) -> bool:
        """Whether it was forecast and scored."""
        return (self.folder / _DONE).is_file()

    @property
    def flags(self) -> list[str]:
        """What its commands have behind the flags that were typed."""
        return [
            *("--data.split", json.dumps(asdict(self.split)), "--data.one_forecast", "true"),
            *("--data.predict_on", "test", "--data.predict_from", "null", "--data.future_values", "null"),
        ]


class Backtest:
    """All folds of a configuration.

    Parameters
    ----------
    command
        Makes commands.
    words
        Flags that `fit` has, as typed.
    options
        Those of the backtest alone.

    Raises
    ------
    UsageError
        If there are not so many folds, or another backtest is in its folder.
    """

    def __init__(self, command: Command, words: Sequence[str], options: argparse.Namespace) -> None:
        self._command, self._words, self._options = command, list(words), options
        plan = command(["fit", *words], "backtest", execute=False)
        if not isinstance(plan.model, TaskModel):
            raise UsageError(
                f"a backtest of {type(plan.model).__name__}, which is no TaskModel",
                expected="a model that says by its task what is measured",
                fix="derive it from lightning_app.models.TaskModel",
            )
        task = plan.model.task
        if options.owa and (getattr(task, "mase_season", None) is None or getattr(task, "units", "") != "source"):
            raise UsageError(
                "--owa without a MASE, or without source units",
                expected="sMAPE and MASE of source units",
                fix="--model.mase_season 24, for example, and --model.units source",
            )
        window = plan.datamodule.window
        if options.owa and (window.delay or window.target_stride > 1):
            raise UsageError(
                f"--owa with delay {window.delay} and target_stride {window.target_stride}",
                expected="targets in the rows that follow the inputs, which Naive2 forecasts",
                fix="drop --owa, or --data.delay and --data.target_stride",
            )
        self._plan, self.model, self.leads = plan, plan.model, bool(plan.trainer.is_global_zero)
        data = cast(WindowDataModule, plan.datamodule)
        shape = data.window
        n_ahead = shape.span - rows_known(shape)
        every = n_ahead if options.every is None else options.every
        self.run_folder = plan.run_folder
        self.folder = self.run_folder / FOLDER
        splits = rolling_splits(data.store, data.split, n_ahead, options.folds, every)
        self.folds = [Fold(number, split, self.folder / str(number)) for number, split in enumerate(splits, 1)]
        self.checkpoint = plan.named_checkpoint
        if self.checkpoint is not None and options.refit:
            raise UsageError(
                f"--refit with --ckpt_path {self.checkpoint}",
                expected="one of them: fold by fold another fit, or a model that was fitted before",
                fix="drop one",
            )
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise UsageError(f"no checkpoint ({self.checkpoint})", expected="one of a fit", fix="correct --ckpt_path")
        self._store, self.horizon = {"uuid": data.store.schema.uuid, "version": data.store.version}, shape.horizon
        self._ids = data.store.ids if data.view.members is None else data.store.ids[data.view.members]

    @cached_property
    def digest(self) -> str:
        """What names it: the configuration as a whole, the store, the folds."""
        plan, options = self._plan, self._options
        folds = [fold.split.digest() for fold in self.folds]
        content = [plan.config_text, self._store, folds, options.refit, str(self.checkpoint)]
        if self.checkpoint is not None:
            content.append(hashlib.sha256(self.checkpoint.read_bytes()).hexdigest())
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def begin(self) -> None:
        """Make its folder, or go on with what is there.

        Raises
        ------
        UsageError
            If that is another backtest, unless it is to be replaced; or no backtest at all.
        StoreError
            If what is noted there is damaged.
        """
        state, known = self.folder / _STATE, None
        if state.is_file():
            known = {} if self._options.overwrite else read_noted(state, ("digest",))
        if not self.leads:  # the first process has begun
            return
        if known is None and self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"{self.folder}, which is no backtest", expected="an empty folder", fix="move it, or its files"
            )
        others = known is not None and known.get("digest") != self.digest
        if known is not None and (self._options.overwrite or (others and not self._has_results())):
            shutil.rmtree(self.folder)
            known = None
        if known is not None and others:
            raise UsageError(
                f"a backtest in {self.folder} with other flags, files or rows",
                expected="the same, to go on with it",
                fix="--overwrite to begin anew, or another --trainer.default_root_dir",
            )
        if known is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(self._plan.config_text, encoding="utf-8")
            with whole_file(state, "backtest") as path:
                path.write_text(json.dumps({"digest": self.digest, "folds": len(self.folds)}))
        n_done = sum(fold.is_done for fold in self.folds)
        if n_done:
            logger.info(f"{n_done} of {counted(len(self.folds), 'fold')} are done already: {self.folder}")

    def _has_results(self) -> bool:
        """Whether there is anything to lose: a fold that was done, or a checkpoint."""
        return any(next(self.folder.glob(f"*/{name}"), None) for name in (_DONE, "checkpoints/*.ckpt"))

    def run(self) -> None:
        """Do the folds that are not done."""
        for fold in self.folds:
            if fold.is_done:
                continue
            checkpoint = self.checkpoint
            if self.model.fitted and checkpoint is None:
                first = self.folds[0]
                fitted = fold if self._options.refit else Fold(first.number, first.split, self.folder / "fit")
                checkpoint = self._fitted(fitted)
            self._forecast(fold, checkpoint)

    def _words_of(self, command: str, fold: Fold, checkpoint: Path | None) -> list[str]:
        folder = fold.folder / "checkpoints" if checkpoint is None else checkpoint.parent
        places = ("--trainer.default_root_dir", str(fold.folder), "--checkpoint.dirpath", str(folder))
        named = ("--ckpt_path", "null" if checkpoint is None else str(checkpoint))
        return [command, *self._words, *fold.flags, *places, *named]

    def _fitted(self, fold: Fold) -> Path:
        """The checkpoint of a fit on what lies before an origin, which is made or gone on with unless it is there."""
        folder, done = fold.folder / "checkpoints", fold.folder / _FITTED
        best, last = folder / "best.ckpt", folder / "last.ckpt"
        if not done.exists():
            self._command(self._words_of("fit", fold, last if last.is_file() else None), "backtest")
            if self.leads:
                done.touch()
        return best if best.is_file() else last

    def _forecast(self, fold: Fold, checkpoint: Path | None) -> None:
        """Forecast from an origin, and score and keep that."""
        from lightning_app import kept  # with Parquet, which other commands do not need

        done = self._command(self._words_of("test", fold, checkpoint), "backtest")
        data = cast(WindowDataModule, done.datamodule)
        done.trainer.predict(done.model, datamodule=data, return_predictions=False)
        if not done.trainer.is_global_zero:
            return
        ahead = data.windows_ahead.test
        kept.keep_forecasts(self.folder / kept.FOLDER, fold.folder / "predictions.zarr", data, ahead)
        found = {"origin": _shown_origin(data, ahead), "unscored": _unscored(data, ahead, self._ids.tolist())}
        with whole_file(fold.folder / _DONE, "fold") as path:
            path.write_text(json.dumps(found))

    def _owa(self, fold: Fold, result: dict[str, Any]) -> float:
        """The mean of sMAPE and MASE, each over that of Naive2."""
        from lightning_app.owa import naive2_errors  # with Zarr

        data = cast(WindowDataModule, self._plan.datamodule)
        season, predictions = cast(Any, self.model.task).mase_season, fold.folder / "predictions.zarr"
        smape, mase = naive2_errors(data.store, fold.split, predictions, data.targets, season, data.view.members)
        return (float(result["test/smape"]) / smape + float(result["test/mase"]) / mase) / 2

    def table(self) -> FoldTable:
        """Metrics of all folds, once they are done."""
        options, rows, notes = self._options, [], []
        results = [read_noted(fold.folder / "test_metrics.json", ("n_windows",)) for fold in self.folds]
        names = options.metrics or _measured(self.model.task.listed, results)
        for fold, result in zip(self.folds, results, strict=True):
            about = read_noted(fold.folder / _DONE, ("origin", "unscored"))
            values = [metric_value(result, name) for name in names] + ([self._owa(fold, result)] if options.owa else [])
            rows.append((str(fold.number), about["origin"], str(result["n_windows"]), values))
            unscored = about["unscored"]
            if unscored:
                more = ", …" if len(unscored) > _NAMED else ""
                notes.append(
                    f"Fold {fold.number} scores {len(self._ids) - len(unscored):,} of {len(self._ids):,} series. "
                    f"Not {', '.join(unscored[:_NAMED])}{more}: nothing to forecast from, or no truth."
                )
        names = [*names, "owa"] if options.owa else names
        stem = Path(str(options.config[0])).stem if options.config else self.run_folder.name
        known = read_yaml(options.published, "--published") if Path(options.published).exists() else {}
        theirs = known.get(stem, {}).get(self.horizon, {})
        return FoldTable(names, rows, {name: theirs[name] for name in names if name in theirs}, notes)


def _measured(listed: Sequence[str], results: Sequence[dict[str, Any]]) -> list[str]:
    """Those of some metrics that all folds have as finite numbers, and those of intervals."""
    known = [*listed, *(name.removeprefix("test/") for name in results[0] if name.startswith("test/interval_"))]
    values = {name: [result.get(f"test/{name}") for result in results] for name in known}
    return [name for name in known if all(isinstance(v, float) and math.isfinite(v) for v in values[name])]


def _shown_origin(data: WindowDataModule, ahead: Ahead) -> str:
    """The last known row, or the first and the last of those of all series."""
    show, shape = data.store.schema.time.show, ahead.index.shape
    first = ahead.index.locate(np.arange(len(ahead.index)))[0]
    times = ahead.row_times[first + rows_known(shape) - 1]
    ends = sorted({int(times.min()), int(times.max())})
    return " to ".join(map(show, ends))


def _unscored(data: WindowDataModule, ahead: Ahead, ids: Sequence[str]) -> list[str]:
    """Those of some series that have no observed target in any window."""
    first = ahead.index.locate(np.arange(len(ahead.index)))[0]
    seen = np.isfinite(ahead.at(first + ahead.index.shape.target_offset)).any(axis=(1, -1))  # (window,) or by node too
    nodes = data.view.nodes
    scored = data.store.ids[ahead.index.series[seen] if nodes is None else nodes[seen.any(axis=0)]]
    known = set(scored.tolist())
    return [id_ for id_ in ids if id_ not in known]


def make_parser() -> argparse.ArgumentParser:
    """The flags of ``python -m lightning_app backtest`` that fit has not."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_app backtest",
        description="Forecast from several origins in the past, one window a series, or of the panel, each, and score "
        "that by the metrics of the configuration. Writes backtest.md and backtest.csv into the run folder, and "
        "forecasts into backtest/forecasts, for evaluate. Further flags are those of fit. Folds that are done are "
        "not done again.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", nargs="+", action="extend", default=[], help="YAML files, as for fit")
    parser.add_argument("--folds", type=int, default=5, help="how many origins (default: 5)")
    parser.add_argument(
        "--every",
        type=int,
        help="steps from one origin to the next; of irregular times, rows (default: those of a forecast, so that each "
        "target is forecast once)",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="fit anew for each origin, on all that lies before it; without it, one fit on what lies before the "
        "first, or the --ckpt_path that is named",
    )
    parser.add_argument("--metrics", nargs="+", default=[], help="such as mae; mae@3 is that of the third step")
    parser.add_argument(
        "--owa", action="store_true", help="also the mean of sMAPE and MASE over those of Naive2, as M4 ranks by"
    )
    parser.add_argument("--published", default="configs/published.yaml", help="values to put beside")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever is there of another backtest")
    return parser


def main(command: Command, arguments: Sequence[str]) -> int:
    """``python -m lightning_app backtest``.

    Parameters
    ----------
    command
        Makes commands such as `fit`.
    arguments
        Words of the command line.
    """
    options, flags = make_parser().parse_known_args(list(arguments))
    configs = [word for config in options.config for word in ("--config", config)]
    backtest = Backtest(command, [*configs, *flags], options)
    check_outside(backtest.folder, "backtest")
    backtest.begin()
    backtest.run()
    if not backtest.leads:
        return 0
    table = backtest.table()
    page = table.to_markdown()
    with whole_file(backtest.run_folder / "backtest.md", "backtest") as path:
        path.write_text(page, encoding="utf-8")
    with whole_file(backtest.run_folder / "backtest.csv", "backtest") as path:
        table.write_csv(path)
    logger.info(page.partition("\n")[2].strip())
    logger.info(f"wrote {backtest.run_folder / 'backtest.md'}")
    return 0
