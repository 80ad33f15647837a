"""``python -m lightning_app evaluate``: forecasts that were made and kept, against what came."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.stores import names_files, open_or_ingest
from lightning_app.kept_scores import measures, scored
from zstore import Store, UsageError, cache_folder, check_outside, read_yaml, whole_file

if TYPE_CHECKING:
    from lightning_app.kept import Forecasts, OfOthers

logger = logging.getLogger(__name__)

_NOT_SHOWN = ("name", "pinball", "n_quantiles", "n_intervals")
_NAMES = {"mae": "MAE", "rmse": "RMSE", "crps": "CRPS"}


@dataclass(frozen=True)
class Evaluation:
    """Scores of forecasts whose truth is in.

    Parameters
    ----------
    n_forecasts
        Forecasts that are kept: an id and an origin each.
    n_scored, n_partly, n_waiting
        How many of them have the truth of all their values, of some, and of none; missing values never come.
    first, last
        The first and the last origin, as text; empty without forecasts.
    version
        Of the store.
    targets
        By target `all`, `by_step` and `by_week`: `n` values, their mean absolute error `mae`, root mean squared error
        `rmse`, and `bias`, the mean of forecast less truth; of quantiles `pinball`, `crps`, and by central pair
        `coverage_80` and `width_80`; of intervals `interval_coverage_80` and `interval_width_80`. See
        :mod:`lightning_app.kept_scores`. Weeks are named by their Monday, and are those of the time that is forecast;
        plain steps have none.
    """

    n_forecasts: int
    n_scored: int
    n_partly: int
    n_waiting: int
    first: str
    last: str
    version: int
    targets: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))

    def to_markdown(self) -> str:
        """A page."""
        lines = ["# Forecasts against what came", "", self.summary, ""]
        for target, scores in self.targets.items():
            lines += [f"## {target}", ""]
            for title, name in (("step", "by_step"), ("week of", "by_week")):
                groups = scores[name]
                if groups:
                    rows = [{**scores["all"], "name": "all"}, *groups]
                    keys = [key for key in rows[0] if key not in _NOT_SHOWN]
                    heads = [_NAMES.get(key, key.replace("_", " ")) for key in keys]
                    lines += [f"| {title} | {' | '.join(heads)} |", "|---" + "|--:" * len(keys) + "|"]
                    for row in rows:
                        cells = [_cell(row[key]) for key in ("name", *keys)]
                        lines.append(f"| {' | '.join(cells)} |")
                    lines += _fewer(scores["all"])
                    lines.append("")
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """One sentence."""
        if not self.n_forecasts:
            return "No forecasts are kept yet."
        forecasts = "forecast" if self.n_forecasts == 1 else "forecasts"
        return (
            f"{self.n_forecasts:,} {forecasts} from {self.first} to {self.last}: {self.n_scored:,} scored, "
            f"{self.n_partly:,} in part, {self.n_waiting:,} waiting for their truth "
            f"(version {self.version} of the store)."
        )


def evaluate(store: Store, forecasts: Forecasts) -> Evaluation:
    """Score forecasts against a store.

    Parameters
    ----------
    store
        Has the truth.
    forecasts
        Each is scored once, where the store has a value at its id and time.

    Raises
    ------
    UsageError
        If the store has no such channel of numbers.

    Notes
    -----
    Reads of each series the rows that were forecast and those between them.
    """
    for target in np.unique(forecasts.targets).tolist():
        if target not in store.channels or store.channel(target).kind != "number":
            raise UsageError(
                f"forecasts of {target!r}",
                expected=f"channels of numbers of {store.path}",
                fix="evaluate them against the store that they were made from",
            )
    truth = truth_of(store, forecasts)
    known = np.isfinite(truth)
    _, number = np.unique(np.rec.fromarrays([_codes(forecasts.ids), forecasts.origin]), return_inverse=True)
    n_values, n_known = np.bincount(number), np.bincount(number, known)
    ends = np.sort(forecasts.origin)[[0, -1]].tolist() if len(forecasts) else []
    first, last = map(store.schema.time.show, ends) if ends else ("", "")
    return Evaluation(
        n_forecasts=len(n_values),
        n_scored=int(np.count_nonzero(n_known == n_values)),
        n_partly=int(np.count_nonzero((n_known > 0) & (n_known < n_values))),
        n_waiting=int(np.count_nonzero(n_known == 0)),
        first=first,
        last=last,
        version=store.version,
        targets={
            target: _scores(store, forecasts, truth, known & (forecasts.targets == target))
            for target in np.unique(forecasts.targets).tolist()
        },
    )


def truth_of(store: Store, forecasts: Forecasts) -> NDArray[np.float64]:
    """(value,) what the store has, NaN where nothing."""
    found = np.full(len(forecasts), np.nan)
    ids = _codes(forecasts.ids)
    order = np.argsort(ids, kind="stable")
    positions = {str(id_): position for position, id_ in enumerate(store.ids)}
    for rows in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1) if len(order) else []:
        position = positions.get(forecasts.ids[rows[0]])
        if position is None:
            continue
        start, stop = store.index.row_start[position : position + 2].tolist()
        times = store.times(start, stop)
        place = np.searchsorted(times, forecasts.time[rows])
        there = place < len(times)
        there[there] = times[place[there]] == forecasts.time[rows][there]
        for target in np.unique(forecasts.targets[rows[there]]).tolist():
            own = there & (forecasts.targets[rows] == target)
            low, high = int(place[own].min()), int(place[own].max()) + 1
            found[rows[own]] = store.read(target, start + low, start + high)[place[own] - low]
    return found


def _scores(store: Store, forecasts: Forecasts, truth: NDArray[Any], which: NDArray[np.bool_]) -> dict[str, Any]:
    """Scores of some values: of all, by step and by week."""
    beside = {name: values[which] for name, values in forecasts.beside.items()}
    each = measures(forecasts.forecast[which] - truth[which], truth[which], beside)
    steps, unit = forecasts.step[which], store.schema.time.unit
    found: dict[str, Any] = {"all": scored(each), "by_step": [], "by_week": []}
    found["by_step"] = [{"name": int(step), **scored(each, steps == step)} for step in np.unique(steps)]
    if unit is not None:
        days = forecasts.time[which].astype(f"datetime64[{unit}]").astype("datetime64[D]")
        mondays = days - (days.astype(np.int64) + 3) % 7
        found["by_week"] = [{"name": str(day), **scored(each, mondays == day)} for day in np.unique(mondays)]
    return found


def _fewer(scores: dict[str, Any]) -> list[str]:
    """A line where not all values have quantiles or intervals."""
    parts = [f"{scores[f'n_{kind}']:,} {kind}" for kind in ("quantiles", "intervals") if f"n_{kind}" in scores]
    if all(scores.get(f"n_{kind}", scores["n"]) == scores["n"] for kind in ("quantiles", "intervals")):
        return []
    return ["", f"Of the {scores['n']:,} values, {' and '.join(parts)} were forecast: their scores are of these alone."]


def _codes(ids: NDArray[Any]) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = np.unique(ids.astype(str), return_inverse=True)[1].astype(np.int64)
    return codes


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def make_parser() -> argparse.ArgumentParser:
    """The flags of ``python -m lightning_app evaluate``."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_app evaluate",
        description="Score the forecasts that predict --data.predict_on future has made and kept, against what the "
        "store has of their times by now: by lead time and by week. Writes evaluation.md and evaluation.json into the "
        "run folder.",
    )
    parser.add_argument("run", nargs="?", type=Path, help="run folder, such as runs/demo_lstm; or name --config")
    parser.add_argument("--config", nargs="+", action="extend", default=[], help="YAML files, as for predict")
    parser.add_argument(
        "--data.store",
        dest="store",
        help="store that has the truth, be it another than that of the forecasts; default: that of the run",
    )
    parser.add_argument("--trainer.default_root_dir", dest="folder", type=Path, help="run folder of --config")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    return parser


def main(arguments: Sequence[str], leave_out_others: bool = False) -> int:
    """``python -m lightning_app evaluate``; `run` leaves out what its folder has kept from another store."""
    from lightning_app.kept import FOLDER, read_forecasts  # with Parquet, which other commands do not need

    options = make_parser().parse_args(list(arguments))
    if (options.run is None) == (not options.config):
        raise UsageError(
            "evaluate without a run" if options.run is None else f"evaluate {options.run} with --config",
            expected="a run folder, or --config",
            fix="evaluate runs/x, or evaluate --config x.yaml",
        )
    configs = options.config or [options.run / "config.yaml"]
    documents = [read_yaml(path, "configuration of a run") for path in configs]
    data: dict[str, Any] = {}
    trainer: dict[str, Any] = {}
    for document in documents:
        data |= document.get("data") or {}
        trainer |= document.get("trainer") or {}
    asked = options.run or options.folder or trainer.get("default_root_dir")
    folder = Path(asked or f"runs/{Path(configs[0]).stem}")
    check_outside(folder, "run folder")
    kept = folder / FOLDER
    if not kept.is_dir():
        raise UsageError(
            f"no forecasts in {folder}",
            expected=f"{kept}, where predict keeps forecasts of rows to come",
            fix="python -m lightning_app predict --data.predict_on future --config …",
        )
    named = options.store or data.get("store")
    if not isinstance(named, str):
        raise UsageError(f"no store in {configs[-1]}", expected="data.store", fix="name one with --data.store")
    cache = Path(data["cache"]) if data.get("cache") else cache_folder()
    recipe = data.get("ingest") if names_files(named) else None
    store = open_or_ingest(named, recipe, cache, data.get("storage_options"))
    of_others: OfOthers = "read" if options.store is not None else "leave out" if leave_out_others else "refuse"
    found = evaluate(store, read_forecasts(kept, store, of_others=of_others))
    page = json.dumps(found.to_json(), indent=1)
    for name, text in (("evaluation.json", page), ("evaluation.md", found.to_markdown())):
        with whole_file(folder / name, "evaluation") as path:
            path.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(page)
    elif not options.quiet:
        logger.info(f"{found.summary} See {folder / 'evaluation.md'}")
    return 0
