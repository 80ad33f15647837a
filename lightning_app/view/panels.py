"""The parts of the page, and the functions that answer for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_app.view.folders import RunFolder, run_folders
from lightning_app.view.predicted import Predictions
from zstore import UsageError, view

if TYPE_CHECKING:
    from lightning_app.view.kept import KeptForecasts

_SCRIPTS = Path(__file__).parent / "static"


def runs(session: Any, paths: list[str]) -> view.Panel | None:
    """Losses, forecasts and scores of some runs.

    Parameters
    ----------
    session
        The viewer's: `session.opened.store` is what is looked at, `session.opened.table` takes scores as columns.
    paths
        Run folders; None is shown where there are none.
    """
    if not paths:
        return None
    folders, kept, ahead = run_folders(paths), _Kept(session), _Ahead(session)

    def folder(query: Any) -> RunFolder:
        name = query.get("run") or next(iter(folders))
        if name not in folders:
            raise UsageError(f"no run {name!r}", expected=f"one of {', '.join(folders)}")
        return folders[name]

    def listed(_: Any) -> Any:
        return [each.about() for each in folders.values()]

    def targets(query: Any) -> Any:
        own = kept.predictions(folder(query))
        ids, n = np.unique(own.ids.astype(str), return_counts=True)
        first = {"ids": ids[:1].tolist(), "n_windows": own.n_windows if own.is_panel else int(n[:1].sum())}
        return {"targets": list(own.targets), "n_steps": own.n_steps, **first}

    def scores(query: Any) -> Any:
        chosen = folder(query)
        own = kept.predictions(chosen)
        target = query.get("target") or next(iter(own.targets), "")
        found = kept.scores(chosen, own, target)
        return {"target": target, "scores": {name: view.listed(values) for name, values in found.items()}}

    def forecast(query: Any) -> Any:
        own = kept.predictions(folder(query))
        target, id_ = query.get("target") or next(iter(own.targets), ""), query.get("id") or ""
        if (number := query.get("window")) is not None and number != "":
            return own.of_window(id_, target, query.whole("window", 0), query.whole("before", 100, 0, 5000))
        low, high = query.number("start"), query.number("stop")
        clock = view.Clock.of(session.opened.store)
        span = None if low is None or high is None else clock.span(low, high)
        return own.by_lead(id_, target, query.whole("step", 1, 1), span, query.whole("points", 1000, 16, 4000))

    def film(query: Any) -> Any:
        return folder(query).film(query.get("name") or "")

    def ahead_forecast(query: Any) -> Any:
        own = ahead.forecasts(folder(query))
        target, id_ = query.get("target") or "", query.get("id") or ""
        if query.get("origin"):
            return own.forecast(id_, target, query.whole("origin", 0), query.whole("before", 100, 0, 5000))
        low, high = query.number("start"), query.number("stop")
        clock = view.Clock.of(session.opened.store)
        span = None if low is None or high is None else clock.span(low, high)
        return own.by_lead(id_, target, query.whole("step", 1, 1), span, query.whole("points", 1000, 16, 4000))

    answers = {
        "kept": lambda query: ahead.about(folder(query)),
        "kept_forecast": ahead_forecast,
        "kept_scores": lambda query: ahead.forecasts(folder(query)).scores(query.get("target") or ""),
        "list": listed,
        "curves": lambda query: folder(query).curves(),
        "targets": targets,
        "scores": scores,
        "forecast": forecast,
        "film": film,
    }
    return view.Panel("runs", "Runs", _SCRIPTS / "runs.js", answers, [_SCRIPTS / "kept.js"])


class _Kept:
    """Predictions that are open, as long as nothing is written anew."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._open: dict[str, tuple[Any, Predictions]] = {}

    def predictions(self, folder: RunFolder) -> Predictions:
        """Those of a run; opened again where they were written again, or another version is looked at."""
        path = folder.predictions
        if path is None:
            fix = "python -m lightning_app predict --config …"
            raise UsageError(f"run {folder.name} has no predictions", expected="some", fix=fix)
        opened = self._session.opened
        state = ((path / "zarr.json").stat().st_mtime_ns if (path / "zarr.json").exists() else 0, opened.number)
        found = self._open.get(folder.name)
        if found is None or found[0] != state:
            found = self._open[folder.name] = (state, Predictions(path, opened.store))
        return found[1]

    def scores(self, folder: RunFolder, own: Predictions, target: str) -> Any:
        """Scores by series, which become columns of the table of series, too: ``rmse TARGET RUN``."""
        found = own.scores(target)
        for name, values in found.items():
            self._session.opened.table.add(f"{name} {target} {folder.name}", values)
        return found


class _Ahead:
    """Forecasts that runs have kept, read again where there are more, or another version is looked at."""

    def __init__(self, session: Any) -> None:
        self._session, self._lock = session, threading.Lock()
        self._open: dict[str, tuple[Any, Any]] = {}

    def about(self, folder: RunFolder) -> dict[str, Any]:
        """What there is; `n_forecasts` is 0 where there is nothing."""
        return self.forecasts(folder).about() if folder.kept_state else {"n_forecasts": 0}

    def forecasts(self, folder: RunFolder) -> KeptForecasts:
        """Those of a run."""
        if not folder.kept_state:
            fix = "python -m lightning_app predict --config … --data.predict_on future"
            raise UsageError(f"run {folder.name} has kept no forecasts", expected="some", fix=fix)
        try:
            from lightning_app.view.kept import KeptForecasts  # torch, for seconds: once somebody asks
        except ImportError as error:
            what, fix = f"{error.name} cannot be imported ({error})", "pip install 'zstore[train]'"
            raise UsageError(what, expected="the libraries of the extra 'train'", fix=fix) from error
        opened = self._session.opened
        with self._lock:
            state = (folder.kept_state, opened.number)
            found = self._open.get(folder.name)
            if found is None or found[0] != state:
                found = self._open[folder.name] = (state, KeptForecasts(folder.kept, opened.store))
            own: KeptForecasts = found[1]
            return own


def splits(session: Any, paths: list[str]) -> view.Panel | None:
    """What is train, validation and test in the configurations of some runs, and windows as the model sees them."""
    if not paths:
        return None
    folders = run_folders(paths)

    @cache
    def answers() -> Any:
        try:
            from lightning_app.view.windows import answers  # torch, for seconds: once somebody asks
        except ImportError as error:
            what, fix = f"{error.name} cannot be imported ({error})", "pip install 'zstore[train]'"
            raise UsageError(what, expected="the libraries of the extra 'train'", fix=fix) from error
        return answers(session, folders)

    own: dict[str, Callable[[Any], Any]] = {name: partial(_later, answers, name) for name in ("parts", "window")}
    own["list"] = lambda _: list(folders)
    return view.Panel("splits", "Splits", _SCRIPTS / "splits.js", own)


def _later(answers: Callable[[], Any], name: str, query: Any) -> Any:
    return answers()[name](query)
