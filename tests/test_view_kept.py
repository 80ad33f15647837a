"""Forecasts that runs have kept, in the viewer: what is shown is what predict kept, beside what has come since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import write_table
from test_view import Ask, asking
from test_view_runs import config

import zstore
from lightning_app.evaluation import evaluate
from lightning_app.kept import read_forecasts
from zstore.view.server import panels_of
from zstore.view.session import Session

pytestmark = pytest.mark.filterwarnings("default")

IDS = ["a", "b"]
N_DAYS, HORIZON = 120, 3


def days(first: int, last: int) -> list[list[Any]]:
    """Rows of two series over some days; those of ``b`` lie 50 above those of ``a``."""
    start = np.datetime64("2024-01-01")
    return [
        [id_, start + np.timedelta64(day, "D"), 50 * (id_ == "b") + day % 7, day % 2]
        for id_ in IDS
        for day in range(first, last)
    ]


@pytest.fixture
def kept(tmp_path: Path, app: Callable[..., Any]) -> tuple[Path, Path]:
    """A store, and a run that has forecast from three mornings with intervals; two days have come since the last."""
    store = tmp_path / "s.zarr"
    table = write_table(tmp_path / "t.csv", ["id", "t", "v", "w"], days(0, N_DAYS))
    zstore.ingest(table, store, id="id", time="t")
    document = {**config(store, "plain", channels=["v"]), "intervals": {"levels": [0.5, 0.8]}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(document))
    app("fit", "--config", "c.yaml", check=True)
    for morning in range(3):
        app("predict", "--config", "c.yaml", "--data.predict_on", "future", check=True)
        new = days(N_DAYS + morning, N_DAYS + morning + 1 + (morning == 2))
        zstore.append(write_table(tmp_path / f"{morning}.csv", ["id", "t", "v", "w"], new), store)
    return store, tmp_path / "runs" / "c"


def asking_of(store: Path, run: Path) -> Ask:
    session = Session(str(store))
    return asking(session, panels=panels_of(session, [str(run)]))


def lines(answer: Any) -> dict[str, Any]:
    return {line["kind"]: line for line in answer["charts"][0]["lines"]}


def test_each_origin_is_shown_with_its_interval_and_what_came_beside_it(kept: tuple[Path, Path]) -> None:
    store, run = kept
    ask = asking_of(store, run)
    about = ask("/api/runs/kept").json()
    assert {key: about[key] for key in ("n_forecasts", "n_scored", "n_partly", "targets", "ids", "n_steps")} == {
        "n_forecasts": 6, "n_scored": 4, "n_partly": 2, "targets": ["v"], "ids": ["a"], "n_steps": HORIZON,
    }  # fmt: skip
    frame = pd.concat([pd.read_parquet(path) for path in sorted((run / "forecasts").glob("*.parquet"))])
    truth = zstore.open_store(store).series("b").to_pandas()["v"]
    for number, origin in enumerate(sorted(frame["origin"].unique())):
        answer = ask("/api/runs/kept_forecast", {"id": "b", "target": "v", "origin": number, "before": 4}).json()
        own = frame[(frame["id"] == "b") & (frame["origin"] == origin)].sort_values("step")
        drawn = lines(answer)
        assert (answer["n_origins"], answer["number"]) == (3, number)
        assert answer["origin"] == pd.Timestamp(origin).timestamp()
        for kind, column in {"forecast": "forecast", "lower": "lower80", "upper": "upper80"}.items():
            np.testing.assert_array_equal(drawn[kind]["y"], own[column])
        np.testing.assert_array_equal(drawn["forecast"]["x"], own["time"].astype("datetime64[s]").astype(np.int64))
        came = [None if np.isnan(value) else value for value in truth.reindex(own["time"]).tolist()]
        assert drawn["observed"]["y"] == came
        assert drawn["before"]["y"] == truth[:origin].iloc[-4:].tolist()
    last = ask("/api/runs/kept_forecast", {"id": "b", "target": "v", "origin": 10**9}).json()
    assert last["number"] == 2


def test_forecasts_so_many_steps_ahead_are_those_of_all_origins_and_scored_as_evaluate_does(
    kept: tuple[Path, Path],
) -> None:
    store, run = kept
    ask = asking_of(store, run)
    frame = pd.concat([pd.read_parquet(path) for path in (run / "forecasts").glob("*.parquet")])
    own = frame[(frame["id"] == "a") & (frame["step"] == 2)].sort_values("time")
    drawn = lines(ask("/api/runs/kept_forecast", {"id": "a", "target": "v", "step": 2}).json())
    np.testing.assert_array_equal(drawn["forecast"]["y"], own["forecast"])
    truth = zstore.open_store(store).series("a").to_pandas()["v"].reindex(own["time"])
    np.testing.assert_array_equal(drawn["observed"]["y"], truth)
    opened = zstore.open_store(store)
    expected = evaluate(opened, read_forecasts(run / "forecasts", opened)).targets["v"]
    found = ask("/api/runs/kept_scores", {"target": "v"}).json()
    assert (found["all"], found["by_step"]) == (expected["all"], expected["by_step"])
    both = pd.concat({id_: opened.series(id_).to_pandas()["v"] for id_ in IDS}).rename("truth")
    frame = frame.join(both, on=["id", "time"]).dropna(subset="truth")
    error = (frame["forecast"] - frame["truth"]).groupby(frame["id"])
    rmse = error.apply(lambda own: np.sqrt((own**2).mean())).sort_values(ascending=False)
    assert [each["id"] for each in found["series"]] == rmse.index.tolist()
    assert [each["rmse"] for each in found["series"]] == pytest.approx(rmse.tolist())
    assert [each["n"] for each in found["series"]] == error.size()[rmse.index].tolist()


def test_what_is_kept_and_what_comes_later_is_shown_when_it_is_there(
    kept: tuple[Path, Path], app: Callable[..., Any]
) -> None:
    store, run = kept
    ask = asking_of(store, run)
    assert ask("/api/runs/kept").json()["n_forecasts"] == 6
    app("predict", "--config", "c.yaml", "--data.predict_on", "future", check=True)
    assert ask("/api/runs/kept").json()["n_forecasts"] == 8
    new = write_table(store.parent / "new.csv", ["id", "t", "v", "w"], days(N_DAYS + 4, N_DAYS + 5))
    zstore.append(new, store)
    assert ask("/api/runs/kept").json()["n_scored"] == 4
    ask("/api/reopen", method="POST")
    assert ask("/api/runs/kept").json()["n_scored"] == 6


def test_forecasts_that_are_not_there_or_cannot_be_read_are_told_in_a_sentence(
    kept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = kept
    ask = asking_of(store, run)
    asked = {
        "kept_forecast?id=z&target=v&origin=0": "no forecasts of 'v' of 'z'; expected a series",
        "kept_forecast?id=a&target=w": "no forecasts of 'w' of 'a'; expected a series",
        "kept_scores?target=w": "no forecasts of 'w'; expected one of v",
    }
    for path, told in asked.items():
        answer = ask(f"/api/runs/{path}")
        assert (answer.status_code, told in answer.json()["error"]) == (400, True)
    (run / "forecasts" / "2024-01-01.parquet").write_bytes(b"PAR1 and no more")
    answer = ask("/api/runs/kept")
    assert (answer.status_code, "forecasts that cannot be read" in answer.json()["error"]) == (409, True)
    (run / "forecasts" / "2024-01-01.parquet").unlink()
    monkeypatch.setattr("lightning_app.view.kept._MOST_OF_FILE", 5)
    assert "expected at most 5 in a file" in asking_of(store, run)("/api/runs/kept").json()["error"]
    monkeypatch.undo()
    monkeypatch.setattr("lightning_app.view.kept._MOST_VALUES", 7)
    assert asking_of(store, run)("/api/runs/kept").json()["n_left_out"] == 2
    for file in (run / "forecasts").iterdir():
        file.unlink()
    assert ask("/api/runs/kept").json() == {"n_forecasts": 0}
    assert "has kept no forecasts" in ask("/api/runs/kept_forecast?id=a&target=v").json()["error"]
