"""The project's side of a draw, and the comparison."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import zarr

import zstore
from lightning_app import models
from lightning_app.audit import audit
from lightning_app.callbacks import TestReport
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.splits import Split
from lightning_app.metrics import PERCENTAGES
from lightning_app.predictions import PredictionWriter
from zstore import Store, UsageError

from .draws import DAY_MS, DRAWS_PER_CASE, Draw, case, draw
from .formulas import InvalidError, errors, scores, shared
from .loading import Maker, close, loaders
from .reference import STAGES, USUAL, Reference, Stage
from .rules import Array
from .stores import Built, build, factor, write_rows

KEYS = ("x", "y", "mask", "x_future", "x_static", "series", "time", "x_time", "y_time")


@dataclass
class Outcome:
    """What came out of one draw.

    Parameters
    ----------
    draw
        Which.
    problems
        Where project and reference disagree; empty if nowhere.
    counts
        What was compared, by kind.
    """

    draw: Draw
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, n: int = 1) -> None:
        """Add to the counts."""
        self.counts[what] = self.counts.get(what, 0) + n


# Stores --------------------------------------------------------------------------------------------------------------


# Data modules and loaders --------------------------------------------------------------------------------------------


# Comparisons ---------------------------------------------------------------------------------------------------------


class Comparison:
    """One draw, compared step by step."""

    def __init__(self, built: Built, draw: Draw) -> None:
        self.built, self.draw, self.outcome = built, draw, Outcome(draw)
        self.case = built.case
        self.maker = Maker(built, draw, built.path, None if built.is_newest else built.number, draw.budget)
        store = zstore.open_store(built.path, version=built.number)
        self.per = factor(store)
        words = {name: list(store.channel(name).categories or ()) for name in self.case.words}
        self.reference = Reference(self.case, built.version, draw, words, self._assigned(store), self.per)
        self.stages: dict[tuple[str, bool], Stage | None] = {}

    def problem(self, text: str) -> None:
        """Note a disagreement."""
        self.outcome.problems.append(text)

    def _assigned(self, store: Store) -> Array | None:
        """Which split a shuffle deals each series to: the project says it, and fractions must be kept."""
        split = self.draw.split
        if split["by"] == "time" or "ids" in split or "attribute" in split:
            return None
        n = store.n_series
        try:
            assigned = assign_series(store, Split(**{**split, "dates": None} if "dates" in split else split))
        except UsageError:
            return None  # the reference says whether that is right
        if "folds" in split:
            sizes = np.bincount(np.where(assigned == 0, 0, assigned), minlength=3)
            wanted = n / split["folds"]
            if abs(sizes[1] - wanted) >= 1 or abs(sizes[2] - wanted) >= 1 or sizes.sum() != n:
                self.problem(f"folds of {sizes.tolist()} series of {n}")
        else:
            shares = split.get("sizes", USUAL) if split["by"] == "series" else USUAL
            dealt = np.bincount(assigned[assigned >= 0], minlength=3).tolist()
            if dealt != shared(n, shares):
                self.problem(f"series dealt out as {dealt} of {n} for {shares}")
        return assigned

    def stage(self, name: str, everything: bool = False) -> Stage | None:
        """The windows of a split; None if there are none."""
        key = name, everything
        if key not in self.stages:
            try:
                self.stages[key] = self.reference.stage(name, everything)
            except InvalidError:
                self.stages[key] = None
        return self.stages[key]

    def run(self) -> Outcome:
        """Everything."""
        reasons = self.reference.refusals()
        if reasons:
            self._refused(reasons)
            return self.outcome
        self._shapes()
        for name in STAGES:
            self._loaders(name, name, self.stage(name))
        predicted = self.draw.options["predict_on"]
        self._loaders("predict", predicted, self.stage(predicted, everything=True))
        self._counts()
        self._spreads()
        self._models()
        if self.draw.resume is not None and self.stage("train") is not None:
            self._resumed()
        return self.outcome

    def _refused(self, reasons: list[str]) -> None:
        """All that can be asked for is refused."""
        self.outcome.count("refused draws")
        for name in (*STAGES, "predict"):
            modules: list[WindowDataModule] = []
            try:
                modules = self.maker.ranks(1, 0)
                list(loaders(modules, name)[0])
                self.problem(f"{name} is not refused: {'; '.join(reasons)}")
            except UsageError:
                pass
            finally:
                close(*modules)

    def _shapes(self) -> None:
        data, options = self.maker.module(), self.draw.options
        cycles = 2 * len(options["time_features"]) if options["time_encoding"] == "cyclic" else 0
        wanted = {
            "n_inputs": self.reference.n_inputs + cycles,
            "n_targets": len(options["targets"]),
            "n_future": self.reference.n_future + cycles,
            "n_static": self.reference.statics.shape[1],
            "n_nodes": len(self.reference.members) if self.draw.panel is not None else 0,
        }
        for name, value in wanted.items():
            if getattr(data.shape, name) != value:
                self.problem(f"shape {name} {getattr(data.shape, name)}, not {value}")

    def _loaders(self, name: str, split: str, stage: Stage | None) -> None:
        """Every batch of every process, of one stage."""
        world = self.draw.world
        modules = self.maker.ranks(world, self.draw.number % 3)
        repeats = name == "predict" and stage is not None and len(stage) < world  # processes without a window of theirs
        few = stage is None or len(stage) < (1 if repeats else world)
        try:
            epoch = [list(loader) for loader in loaders(modules, name)]
        except UsageError as error:
            if not few:
                self.problem(f"{name} was refused: {error}")
            self.outcome.count("refused stages")
            return
        finally:
            close(*modules)
        if few:
            self.problem(f"{name} was not refused: no window for each process")
            return
        assert stage is not None
        if len({len(part) for part in epoch}) != 1:
            self.problem(f"{name}: processes have {[len(part) for part in epoch]} batches")
        seen: list[int] = []
        lookup = {key: n for n, key in enumerate(stage.keys)}
        for number, parts in enumerate(zip(*epoch, strict=False)):
            for rank, batch in enumerate(parts):
                seen += self._batch(f"{name} batch {number} rank {rank}", batch, stage, lookup)
        self.outcome.count("windows", len(seen))
        if name != "train":
            # Of a stream each process has a range of its own, for it decodes those rows alone.
            ranges = world > 1 and self.draw.options["residency"] == "stream"
            found = sorted(set(seen)) if repeats else sorted(seen) if ranges else seen
            if found != list(range(len(stage))):
                self.problem(f"{name}: {len(seen)} windows are not the {len(stage)} of the split in order")
            return
        size = min(self.draw.options["batch_size"], len(stage))
        if len(set(seen)) != len(seen):
            self.problem(f"train: {len(seen) - len(set(seen))} windows come twice")
        if len(seen) != len(stage) // size * size:
            self.problem(f"train: {len(seen)} windows of {len(stage)} in batches of {size}")
        if world > 1:
            self._same_global_batches(epoch, stage, lookup)

    def _same_global_batches(self, epoch: list[Any], stage: Stage, lookup: dict[Any, int]) -> None:
        """What a batch of all processes holds does not depend on their number."""
        alone = self.maker.ranks(1, self.draw.number % 3)
        try:
            batches = list(loaders(alone, "train")[0])
        finally:
            close(*alone)
        for number, batch in enumerate(batches):
            wanted = sorted(self._positions(batch, lookup))
            found = sorted(n for part in epoch for n in self._positions(part[number], lookup))
            if wanted != found:
                self.problem(f"train: global batch {number} is another on one process")
                return

    def _positions(self, batch: Any, lookup: dict[Any, int]) -> list[int]:
        series, time = batch["series"].numpy(), batch["time"].numpy() * self.per
        panel = self.draw.panel is not None
        keys = [(0 if panel else int(s), int(t)) for s, t in zip(series, time, strict=True)]
        return [lookup.get(key, -1) for key in keys]

    def _batch(self, where: str, batch: Any, stage: Stage, lookup: dict[Any, int]) -> list[int]:
        """Compare a batch; which windows it has."""
        found = self._positions(batch, lookup)
        if -1 in found:
            self.problem(f"{where}: {found.count(-1)} windows that are not in the split")
            return [n for n in found if n >= 0]
        self.outcome.count("batches")
        for key in KEYS:
            if (key in batch) != (key in stage.batch):
                self.problem(f"{where}: {key} is {'' if key in batch else 'not '}there")
                continue
            if key not in batch:
                continue
            values, wanted = batch[key].numpy(), stage.batch[key][found]
            values = values * self.per if key == "time" else values
            if values.shape != wanted.shape:
                self.problem(f"{where}: {key} {values.shape}, not {wanted.shape}")
            elif not np.allclose(values, wanted, rtol=6 * 2.0**-24, atol=self._batch_slack):
                off = np.unravel_index(np.argmax(np.abs(values - wanted)), wanted.shape)
                self.problem(f"{where}: {key}{[int(n) for n in off]} is {values[off]}, not {wanted[off]}")
        return found

    @property
    def _batch_slack(self) -> float:
        """How far values of batches may be from float64 ones, beside six roundings of their own.

        Four roundings of an offset of 8 scales, as a larger one is subtracted first. Values of float64 are rounded
        before, where an offset is at most 64 scales. Those of cycles are added up, and leave out fractions of a second.
        """
        if self.draw.options["time_features"] and self.draw.options["time_encoding"] == "cyclic":
            return 1e-4 if self.case.kind == "ms" else 2e-5
        return (4 * 8 + (64 if self.case.dtype == "float64" else 0)) * 2.0**-24

    def _counts(self) -> None:
        """What is logged of a fit, and what an audit counts."""
        data = self.maker.module()
        strides = {"train": self.draw.options["stride"], "val": self.draw.options["evaluation_stride"]}
        found = audit(data)
        for part in found.parts:
            stage = self.stage(part.name)
            wanted = {
                "n_windows": 0 if stage is None else len(stage),
                "n_targets": 0 if stage is None else stage.n_targets,
                "n_missing": 0 if stage is None else stage.n_missing,
            }
            if strides.get(part.name, self.draw.options["evaluation_stride"]) <= self.reference.span:
                wanted["n_rows"] = 0 if stage is None else stage.n_rows
            for name, value in wanted.items():
                self.outcome.count("counts")
                if getattr(part, name) != value:
                    self.problem(f"audit of {part.name}: {name} {getattr(part, name)}, not {value}")
        stage = self.stage("train")
        if stage is None:
            return
        with logged("lightning_app.data.datamodule") as lines:
            data.train_dataloader()
        close(data)
        match = re.search(r"([\d,]+) training windows read ([\d,]+) of", "\n".join(lines))
        counts = [int(text.replace(",", "")) for text in match.groups()] if match else []
        width = len(self.reference.members) if self.draw.panel is not None else 1
        if not counts or counts[0] != len(stage):
            self.problem(f"logged {lines}, of {len(stage)} windows")
        elif strides["train"] <= self.reference.span and counts[1] * width != stage.n_rows:
            self.problem(f"logged {counts[1]} rows, not {stage.n_rows // width}")

    def _spreads(self) -> None:
        """Deviations of the training targets of each series, which a loss may weigh with."""
        data = self.maker.module()
        for units, values in (("scaled", data.target_std), ("source", data.source_std)):
            wanted = self.reference.spread(units)
            self.outcome.count("counts", wanted.size)
            if not np.allclose(values.numpy(), wanted, rtol=1e-5, atol=1e-6 if units == "scaled" else 0):
                self.problem(f"{units} deviations of series are {values.tolist()}, not {wanted.tolist()}")

    # Models ----------------------------------------------------------------------------------------------------------

    def _models(self) -> None:
        """Metrics of a test and forecasts of a prediction, through Lightning."""
        random = np.random.default_rng(self.draw.number)
        shape = self.reference.horizon, self.reference.lookback
        weight, bias = random.normal(0, 0.5, shape).astype(np.float32), random.normal(0, 1, shape[0]).astype(np.float32)
        data, folder = self.maker.ranks(1, 0)[0], Path(tempfile.mkdtemp(dir=self.built.folder))
        data.trainer = None
        options: dict[str, Any] = {"units": self.draw.units, "series_scores": self.draw.scores}
        if self.draw.model == "SeasonalRepeat":
            options["season"] = self.draw.season
        wrong = self.reference.model_refusal()
        try:
            model = getattr(models, self.draw.model)(data.shape, **options)
        except UsageError as error:
            if wrong is None:
                self.problem(f"{self.draw.model} was refused: {error}")
            self.outcome.count("refused models")
            return
        if wrong is not None:
            self.problem(f"{self.draw.model} was not refused: {wrong}")
            return
        if self.draw.model == "NLinear":
            model.linear.weight.data, model.linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        forecast = partial(self.reference.forecast, weight=weight.astype(float), bias=bias.astype(float))
        self._tested(data, model, folder, forecast)
        self._predicted(data, model, folder, forecast)
        close(data)
        shutil.rmtree(folder)

    def _tested(self, data: Any, model: Any, folder: Path, forecast: Callable[[Stage], Array]) -> None:
        stage, guess = self._forecasts("test", False, forecast)
        test = partial(pl.Trainer.test, model=model, datamodule=data, verbose=False)
        by_series = {} if stage is None or guess is None or not self.draw.scores else self._scores(stage, guess)
        scored = not self.draw.scores or any(
            count >= 2 and np.isfinite(list(values.values())).any() for count, values, _ in by_series.values()
        )
        ended = self._trainer(folder, test, stage is not None and scored, "test")
        if not ended or stage is None or guess is None:
            return
        self._same_scores(folder, by_series)
        report = json.loads((folder / "test_metrics.json").read_text())
        n = self._n_tested(stage)
        if report["n_windows"] != n:
            self.problem(f"test says {report['n_windows']} windows, not {n}")
        mask, units = stage.batch["mask"], self.draw.units
        slack = self.reference.slack(guess, stage, units)
        truth = stage.batch["y"] if units == "scaled" else np.nan_to_num(stage.truth)
        guess = guess if units == "scaled" else self.reference.in_source(guess, stage.batch["series"])
        parts = [np.moveaxis(part[:n], 1, 0) for part in (truth, guess, slack, mask)]
        groups: list[tuple[str, int | None, Any]] = [("all", None, np.s_[...])]
        groups += [("by_step", step, np.s_[step]) for step in range(self.reference.horizon)]
        groups += [("by_target", target, np.s_[..., target]) for target in range(len(self.reference.targets))]
        for group, number, where in groups:
            t, g, s, m = (part[where] for part in parts)
            for name, (value, off) in errors(t[m], g[m], s[m], units == "source").items():
                if units == "scaled" and name in PERCENTAGES:
                    continue
                found = report[f"test/{name}"] if number is None else report[group][name][number]
                self.outcome.count("metrics")
                if np.isinf(off) or (np.isnan(value) and not m.any()):
                    continue
                if name == "r2" and np.isnan(value):
                    continue
                if not (np.isnan(value) and np.isnan(found)) and not abs(found - value) <= off + 2e-6 * abs(value):
                    self.problem(f"test {group} {name} of {self.draw.model} {units}: {found}, not {value} ± {off:.2g}")

    def _n_tested(self, stage: Stage) -> int:
        """Windows of the test batches that are looked at."""
        size, limit = min(self.draw.options["batch_size"], len(stage)), self.draw.limit
        return len(stage) if limit is None else min(limit * size, len(stage))

    def _scores(self, stage: Stage, guess: Array) -> dict[tuple[str, str], tuple[int, dict[str, float], Any]]:
        """By id and target: observed targets, scores, and how far others may be from them."""
        n = self._n_tested(stage)
        slack = self.reference.slack(guess, stage, "source")
        source, found = self.reference.in_source(guess, stage.batch["series"]), {}
        shape = stage.truth[:n].shape[:-1]
        series = stage.batch["series"][:n]
        owner = np.broadcast_to(series[:, None], shape)
        for position, id_ in enumerate(self.reference.ids):
            for number, target in enumerate(self.draw.options["targets"]):
                mine = (owner == position) & ~np.isnan(stage.truth[:n, ..., number])
                t, g, s = (part[:n, ..., number][mine] for part in (stage.truth, source, slack))
                if not len(t):
                    continue
                wanted, off = scores(t, g), {}
                others = [scores(t, g + sign * s) for sign in (1, -1, np.where(np.arange(len(s)) % 2, 1, -1))]
                for name, value in wanted.items():
                    moved = [abs(other[name] - value) for other in others]
                    off[name] = 4 * max(moved) + 1e-6 * max(1.0, abs(value))
                if np.ptp(g) < 100 * s.max(initial=0):
                    off["kge"] = np.nan
                found[id_, target] = len(t), wanted, off
        return found

    def _same_scores(self, folder: Path, by_series: dict[Any, Any]) -> None:
        """Compare the table of scores."""
        if not self.draw.scores:
            return
        with (folder / "test_series.csv").open(encoding="utf-8") as file:
            rows = {(row["id"], row["target"]): row for row in csv.DictReader(file)}
        for key, (_, wanted, off) in by_series.items():
            for name, value in wanted.items():
                found = float(rows[key][name])
                self.outcome.count("scores")
                unsure = name == "kge" and np.isnan(off[name]) and np.isfinite(value)
                if np.isfinite(value) != np.isfinite(found) and not unsure:
                    self.problem(f"{name} of {key} is {found}, not {value}")
                elif np.isfinite(value) and np.isfinite(off[name]) and abs(found - value) > off[name]:
                    self.problem(f"{name} of {key} is {found}, not {value} ± {off[name]:.2g}")

    def _forecasts(
        self, name: str, everything: bool, forecast: Callable[[Stage], Array]
    ) -> tuple[Stage | None, Array | None]:
        """The windows of a split and what is forecast of them; None if there is nothing to be forecast."""
        stage = self.stage(name, everything)
        try:
            return stage, None if stage is None else forecast(stage)
        except InvalidError:
            return None, None

    def _predicted(self, data: Any, model: Any, folder: Path, forecast: Callable[[Stage], Array]) -> None:
        stage, scaled = self._forecasts(self.draw.options["predict_on"], True, forecast)
        predict = partial(pl.Trainer.predict, model=model, datamodule=data, return_predictions=False)
        ended = self._trainer(folder, predict, stage is not None, "predict")
        if not ended or stage is None or scaled is None:
            return
        group: Any = zarr.open_group(str(folder / "predictions.zarr"), mode="r")
        wanted = self.reference.in_source(scaled, stage.batch["series"])
        slack = self.reference.slack(scaled, stage, "source")
        times = np.asarray(group["time"][:]) * self.per
        starts = [time for _, time in stage.keys]
        if times[:, 0].tolist() != starts or len(times) != len(stage):
            self.problem("times of predictions differ")
            return
        if not np.array_equal(times, stage.times):
            self.problem("times of the steps of predictions differ")
        ids = [str(id_) for id_ in group["id"][:]]
        series = stage.batch["series"][0] if self.draw.panel is not None else stage.batch["series"]
        if ids != [self.reference.ids[n] for n in series]:
            self.problem("ids of predictions differ")
        arrays = {array.attrs.get("long_name"): array for name, array in group.arrays() if name not in ("id", "time")}
        for n, target in enumerate(self.draw.options["targets"]):
            values = np.asarray(arrays[target][:], np.float64)
            self.outcome.count("predictions", values.size)
            off = np.abs(values - wanted[..., n])
            if values.shape != wanted[..., n].shape or not (off <= slack[..., n] + 1e-9).all():
                at = np.unravel_index(np.nanargmax(off - slack[..., n]), off.shape)
                self.problem(f"prediction of {target} at {at} is {values[at]}, not {wanted[..., n][at]}")

    def _trainer(self, folder: Path, call: Callable[[Any], Any], valid: bool, what: str) -> bool:
        """Run something on a trainer; whether it ended."""
        with warnings.catch_warnings():
            for message in (".*does not have many workers.*", ".*LeafSpec.*is deprecated.*"):
                warnings.filterwarnings("ignore", message=message)
            trainer = pl.Trainer(
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_progress_bar=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                default_root_dir=str(folder),
                limit_test_batches=self.draw.limit,
                callbacks=[TestReport(folder), PredictionWriter(folder)],
            )
            try:
                call(trainer)
            except UsageError as error:
                if valid:
                    self.problem(f"{what} was refused: {error}")
                return False
        if not valid:
            self.problem(f"{what} was not refused")
        return valid

    # Resuming --------------------------------------------------------------------------------------------------------

    def _resumed(self) -> None:
        """A fit that stops in the middle of an epoch and goes on: each window once, or refused."""
        stage, (share, budget, world, change) = self.stage("train"), self.draw.resume or (0.0, 0.0, 0, "")
        assert stage is not None
        if min(len(stage), self.draw.options["batch_size"]) < max(world, self.draw.world):
            return
        epoch = self.draw.number % 3
        before = self.maker.ranks(self.draw.world, epoch)
        first = loaders(before, "train")
        whole = len(first[0])
        if whole < 2:  # there is no middle
            close(*before)
            return
        stop = 1 + int(share * (whole - 1))
        seen: list[Any] = []
        for loader in first:
            iterator = iter(loader)
            seen += [key for _ in range(stop) for key in self._keys(next(iterator))]
        state = _kept({"data": before[0].state_dict(), "loader": first[0].state_dict()}, self.built.folder)
        close(*before)
        other = Maker(self.built, self.draw, *self._changed(change), budget)
        after: list[WindowDataModule] = []
        changed = bool(change) or world != self.draw.world or budget != self.draw.budget
        try:
            after = other.ranks(world, epoch)
            for data in after:
                data.load_state_dict(state["data"])
            rest = loaders(after, "train")
            for loader in rest:
                loader.load_state_dict(state["loader"])
            seen += [key for loader in rest for batch in loader for key in self._keys(batch)]
        except UsageError as error:
            self.outcome.count("resumes refused")
            if not changed:
                self.problem(f"resuming was refused: {error}")
            return
        finally:
            close(*after)
        self.outcome.count("resumes")
        size = min(self.draw.options["batch_size"], len(stage))
        if len(set(seen)) != len(seen) or not set(seen) <= set(stage.keys) or len(seen) != whole * size:
            self.problem(
                f"resumed after {stop} of {whole} batches, {self.draw.world} to {world} processes, "
                f"{self.draw.options['residency']} {self.draw.budget} to {budget}, {change or 'same'} store: "
                f"{len(seen)} windows, {len(set(seen))} distinct, of {whole * size}"
            )

    def _keys(self, batch: Any) -> list[tuple[int, int]]:
        panel, time = self.draw.panel is not None, batch["time"].numpy() * self.per
        return [(0 if panel else int(s), int(t)) for s, t in zip(batch["series"].numpy(), time, strict=True)]

    def _changed(self, change: str) -> tuple[Path, int | None]:
        """The store, or a copy of it to which something happened."""
        if not change or not self.built.is_newest:
            return self.maker.path, self.maker.version
        copy = self.built.folder / f"copy{self.draw.number}.zarr"
        shutil.copytree(self.built.path, copy)
        if change == "compact":
            zstore.compact(copy, workers=1)
            return copy, None
        version, case = self.built.version, self.case
        known = sorted(version.rows.items(), key=lambda item: item[0])
        texts = next(texts for _, texts in known[self.draw.number % len(known) :] + known if texts is not None)
        step = version.rule.later if version.rule.regular else lambda time, n: time + n * DAY_MS
        rows = [(id_, step(version.times(id_)[-1], 1), texts) for id_ in version.ids]
        table = write_rows(self.built.folder / f"more{self.draw.number}.csv", case, rows)
        zstore.append(table, copy, workers=1)
        return copy, None


def _kept(state: Any, folder: Path) -> Any:
    """As it comes out of a checkpoint."""
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """The lines of a logger."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def run_draws(numbers: Sequence[int], folder: Path) -> Iterator[Outcome]:
    """Some draws; those of one case share its store."""
    built: Built | None = None
    for number in numbers:
        wanted = number // DRAWS_PER_CASE
        if built is None or built.case.number != wanted:
            if built is not None:
                shutil.rmtree(built.folder)
            built = build(case(wanted), folder / f"case{wanted}")
        runs = [len(run) for _, run in built.version.runs()]
        times = sorted({time for _, time in built.version.rows})
        chosen = draw(number, built.case, built.version.ids, max(runs), times)
        if built.problems:
            yield Outcome(chosen, [f"case {wanted}: {problem}" for problem in built.problems])
            continue
        try:
            yield Comparison(built, chosen).run()
        except Exception as error:  # a traceback is a disagreement too
            if isinstance(error, AssertionError):
                raise
            yield Outcome(chosen, [f"{type(error).__name__}: {error}"])
