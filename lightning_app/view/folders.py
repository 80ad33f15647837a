"""What a run folder holds, read again whenever it has changed: its configuration, its curves, its scores."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from zstore import UsageError, ZstoreError, read_yaml

_MOST_BYTES = 1 << 26
_MOST_POINTS = 2000
_OF_TEST = "test/"
_WRITERS = {"test_metrics.json": "test", "rollout.json": "rollout"}


@dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Parameters
    ----------
    name
        What it is called in addresses: its own name, with a number behind it where two are called alike.
    path
        The folder, which a run to come has not made yet.
    config_path
        File with its configuration.
    """

    name: str
    path: Path
    config_path: Path

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the fit; empty where there is none."""
        return read_yaml(str(self.config_path), "the configuration of a run") if self.config_path.is_file() else {}

    @property
    def predictions(self) -> Path | None:
        """The store of predictions, if there is one."""
        path = self.path / "predictions.zarr"
        return path if path.is_dir() else None

    @property
    def kept(self) -> Path:
        """Where forecasts are kept that were made of rows to come."""
        return self.path / "forecasts"

    @property
    def kept_state(self) -> tuple[tuple[str, int, int], ...]:
        """What changes where a forecast is kept: names, times and sizes of files; empty where there are none."""
        files = [path for path in self.kept.glob("*.parquet") if not path.name.startswith(".")]
        return tuple(sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files))

    @property
    def films(self) -> list[str]:
        """Names of the GIFs of a rollout."""
        return sorted(path.name for path in self.path.glob("rollout_*.gif") if path.is_file())

    def film(self, name: str) -> bytes:
        """One of :attr:`films`.

        Raises
        ------
        UsageError
            If there is none of that name.
        """
        if name not in self.films:
            raise UsageError(f"no film {name!r}", expected=f"one of {', '.join(self.films) or 'none'}")
        return (self.path / name).read_bytes()

    def about(self) -> dict[str, Any]:
        """Name, model and scores for the list of runs; what cannot be read of one keeps no other from being shown."""
        model, scores, rollout, told = None, {}, {}, ""
        try:
            model, scores, rollout = self.config.get("model"), self.scores(), self.rollout()
        except ZstoreError as error:
            told = str(error)
        kind = model.get("class_path", "") if isinstance(model, dict) else ""
        return {
            "name": self.name,
            "path": str(self.path),
            "model": str(kind).rpartition(".")[2],
            "scores": scores,
            "has_predictions": self.predictions is not None,
            "films": self.films,
            "n_kept": len(self.kept_state),
            "rollout": rollout,
            "error": told,
        }

    def scores(self) -> dict[str, float]:
        """What the last test measured over everything, such as ``rmse``; empty without a test."""
        numbers = _numbers(self._document("test_metrics.json"), self.path / "test_metrics.json")
        of_test = {name: value for name, value in numbers.items() if name.startswith(_OF_TEST)}
        return {name.removeprefix(_OF_TEST): value for name, value in of_test.items() if math.isfinite(value)}

    def rollout(self) -> dict[str, Any]:
        """What came of the last rollout: `mean_max_reward`, `success`, `n` episodes, and `films`, by name.

        Of the film of an episode, such as ``rollout_best.gif``: its `seed`, `max_reward` and `n_steps`.
        """
        path = self.path / "rollout.json"
        document = self._document(path.name)
        if not document:
            return {}
        try:
            keys = ("max_reward", "n_steps", "seed")
            episodes = [{key: float(each[key]) for key in keys} for each in document["episodes"]]
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UsageError(f"{path} ({error!r})", expected="the JSON that rollout writes") from error
        ranked = sorted(episodes, key=lambda each: (each["max_reward"], -each["n_steps"]))
        films = {"rollout_best.gif": ranked[-1], "rollout_worst.gif": ranked[0]} if ranked else {}
        found = {name: value for name, value in _numbers(document, path).items() if math.isfinite(value)}
        scores: dict[str, Any] = {name: found[name] for name in ("mean_max_reward", "success") if name in found}
        return {**scores, "n": len(episodes), "films": films}

    def _document(self, name: str) -> dict[str, Any]:
        """JSON of the run folder; empty where there is none."""
        path = self.path / name
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return {}
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} ({error})", expected=f"the JSON that {_WRITERS[name]} writes") from error
        if not isinstance(document, dict):
            raise UsageError(
                f"{path} with {type(document).__name__}", expected=f"the JSON that {_WRITERS[name]} writes"
            )
        return document

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Losses and metrics over steps, by name: ``step`` and ``value``; of very many points every so many.

        While a fit runs, the file is read up to its last whole line.
        """
        path = self.path / "logs" / "metrics.csv"
        if not path.is_file():
            return {}
        state = path.stat()
        try:
            return _curves(path, (state.st_mtime_ns, state.st_size))
        except (ValueError, csv.Error) as error:
            raise UsageError(f"{path} ({error})", expected="the CSV that CSVLogger writes") from error


def _numbers(document: dict[str, Any], path: Path) -> dict[str, float]:
    """The numbers of a document."""
    try:
        return {name: float(value) for name, value in document.items() if isinstance(value, (int, float))}
    except OverflowError as error:
        raise UsageError(f"{path} ({error})", expected=f"the JSON that {_WRITERS[path.name]} writes") from error


@lru_cache(maxsize=16)
def _curves(path: Path, state: tuple[int, int]) -> dict[str, dict[str, list[float]]]:
    """The curves of a file as it was in a `state`, its time and size."""
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read(_MOST_BYTES)
    lines = csv.reader(text[: text.rfind("\n") + 1].splitlines())
    names = next(lines, [])
    curves: dict[str, dict[str, list[float]]] = {}
    at = names.index("step") if "step" in names else len(names)
    for line in lines:
        step = _number(line[at]) if at < len(line) else None
        if step is None:
            continue
        for name, written in zip(names, line, strict=False):
            value = _number(written)
            if value is None or name in ("step", "epoch"):
                continue
            own = curves.setdefault(name, {"step": [], "value": []})
            own["step"].append(step)
            own["value"].append(value)
    for own in curves.values():
        every = -(-len(own["step"]) // _MOST_POINTS)
        own["step"], own["value"] = own["step"][::every], own["value"][::every]
    return curves


def run_folders(paths: list[str]) -> dict[str, RunFolder]:
    """Run folders by name.

    Parameters
    ----------
    paths
        Folders, or configurations (``.yaml``), whose run need not have begun.

    Raises
    ------
    UsageError
        If one is neither.
    """
    found: dict[str, RunFolder] = {}
    for text in paths:
        path = Path(text)
        is_config = path.suffix in (".yaml", ".yml") and path.is_file()
        if not path.is_dir() and not is_config:
            expected = "a run folder, such as runs/demo_lstm, or a configuration, such as configs/demo_lstm.yaml"
            raise UsageError(f"run {text}", expected=expected, fix="correct --run")
        folder = _folder_of(path) if is_config else path
        name = stem = path.stem if is_config else path.resolve().name
        number = 2
        while name in found:
            name, number = f"{stem} ({number})", number + 1
        found[name] = RunFolder(name, folder, path if is_config else folder / "config.yaml")
    return found


def _folder_of(config: Path) -> Path:
    """Where the run of a configuration goes."""
    trainer = read_yaml(str(config)).get("trainer")
    folder = trainer.get("default_root_dir") if isinstance(trainer, dict) else None
    return Path(folder) if isinstance(folder, str) else Path("runs") / config.stem


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
