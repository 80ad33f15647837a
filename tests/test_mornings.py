"""Every morning: rows come in, tomorrow is forecast, and what was forecast is scored when its truth is in."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mornings
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import stored, write_table

from lightning_app.evaluation import evaluate
from lightning_app.kept import read_forecasts
from zstore import StoreError, append, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

App = Callable[..., subprocess.CompletedProcess[str]]


def lived(folder: Path, days: int, kills: int, seed: int = 0) -> list[Any]:
    folder.mkdir()
    words = [sys.executable, mornings.__file__, str(folder), str(days), str(kills), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def kept(folder: Path) -> pd.DataFrame:
    parts = [pd.read_parquet(path) for path in sorted((folder / "runs/plant/forecasts").glob("*.parquet"))]
    return pd.concat(parts, ignore_index=True)


def assert_whole(folder: Path, days: int) -> None:
    """As many forecasts as days, each scored once against what came, and a store of what pandas makes of the files."""
    truth = mornings.weather(days)
    forecasts = kept(folder)
    origins = pd.date_range(mornings.FIRST - pd.Timedelta(days=1), periods=days)
    assert forecasts.origin.tolist() == np.repeat(origins, 3).tolist()
    assert forecasts.step.tolist() == [1, 2, 3] * days
    joined = forecasts.merge(truth, left_on="time", right_on="date")
    joined = joined[joined.time < mornings.FIRST + pd.Timedelta(days=days - 1)]
    error = joined.forecast - joined.load.astype("float32")
    found = json.loads((folder / "runs/plant/evaluation.json").read_text())
    assert (found["n_forecasts"], found["n_scored"], found["n_partly"], found["n_waiting"]) == (days, days - 3, 2, 1)
    scores = found["targets"]["load"]
    assert [row["n"] for row in scores["by_step"]] == [n for n in (days - 1, days - 2, days - 3) if n]
    assert scores["all"]["n"] == len(error) == sum(row["n"] for row in scores["by_week"])
    expected = [error.abs().mean(), np.sqrt((error**2).mean()), error.mean()]
    np.testing.assert_allclose([scores["all"][name] for name in ("mae", "rmse", "bias")], expected, rtol=1e-6)
    weeks = error.groupby(joined.time.dt.to_period("W").dt.start_time.dt.strftime("%Y-%m-%d")).agg(["count", "mean"])
    assert [(row["name"], row["n"]) for row in scores["by_week"]] == list(weeks["count"].items())
    np.testing.assert_allclose([row["bias"] for row in scores["by_week"]], weeks["mean"], rtol=1e-6)
    rows = pd.DataFrame(columns=["date", "temp", "load"]).set_index("date")
    for path in sorted((folder / "incoming").glob("*.csv")):
        new = pd.read_csv(path, parse_dates=["date"]).set_index("date")[["temp", "load"]]
        rows = new.combine_first(rows) if len(rows) else new
    store = open_store(folder / "plant.zarr")
    for name in ("temp", "load"):
        np.testing.assert_array_equal(store.series("p").read(name), rows[name].to_numpy("float32"))
    assert not list((folder / "runs/plant").rglob(".*.partial"))


def test_three_mornings_with_two_kills_have_three_forecasts_each_scored_once(tmp_path: Path) -> None:
    assert len(lived(tmp_path / "killed", 3, 2)) == 2
    assert_whole(tmp_path / "killed", 3)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_mornings_with_ten_kills_are_those_without(tmp_path: Path, seed: int) -> None:
    """Nothing is lost, nothing is there twice: store, forecasts and scores are, byte for byte, those without kills."""
    assert lived(tmp_path / "calm", 30, 0) == []
    assert len(lived(tmp_path / "killed", 30, 10, seed)) == 10
    for folder in ("calm", "killed"):
        assert_whole(tmp_path / folder, 30)
    assert stored(tmp_path / "calm/plant.zarr") == stored(tmp_path / "killed/plant.zarr")
    pd.testing.assert_frame_equal(kept(tmp_path / "calm"), kept(tmp_path / "killed"), check_exact=True)
    pages = [(tmp_path / folder / "runs/plant/evaluation.md").read_text() for folder in ("calm", "killed")]
    assert pages[0] == pages[1]


CONFIG = """
data: {store: s.zarr, lookback: 2, horizon: 2, targets: [v], batch_size: 4, split: {sizes: [0.5, 0.25, 0.25]}}
model: {class_path: Repeat}
"""


def made(folder: Path, lengths: dict[str, int]) -> None:
    """A store whose series have so many rows, each value its own number."""
    rows = [[id_, t, t] for id_, n in lengths.items() for t in range(n)]
    path = write_table(folder / f"{sum(lengths.values())}.csv", ["id", "t", "v"], rows)
    if (folder / "s.zarr").exists():
        append(path, folder / "s.zarr", on_duplicate="update")
    else:
        ingest(path, folder / "s.zarr", id="id", time="t")
    (folder / "c.yaml").write_text(CONFIG)


def predict(app: App, *flags: str) -> None:
    app("predict", "--config", "c.yaml", "--data.predict_on", "future", *flags, check=True)


def test_a_series_that_ends_earlier_keeps_its_forecast_beside_those_of_its_origin(app: App, tmp_path: Path) -> None:
    made(tmp_path, {"a": 12, "b": 12})
    predict(app)
    made(tmp_path, {"a": 12, "b": 14})
    predict(app)
    predict(app)
    folder = tmp_path / "runs/c/forecasts"
    assert sorted(path.name for path in folder.iterdir()) == ["11.parquet", "13.parquet"]
    found = pd.concat(map(pd.read_parquet, sorted(folder.iterdir())))
    key = list(zip(found.id, found.origin, found.time, found.step, found.forecast, strict=True))
    first = [(id_, 11, 11 + step, step, 11.0) for id_ in "ab" for step in (1, 2)]
    assert key == [*first, ("b", 13, 14, 1, 13.0), ("b", 13, 15, 2, 13.0)]
    done = app("evaluate", "runs/c", check=True)
    assert "3 forecasts from 11 to 13: 1 scored, 0 in part, 2 waiting for their truth" in done.stdout
    scores = json.loads((tmp_path / "runs/c/evaluation.json").read_text())["targets"]["v"]
    assert scores["all"] == {"n": 2, "mae": 1.5, "rmse": np.sqrt(2.5), "bias": -1.5}
    assert scores["by_step"][1] == {"name": 2, "n": 1, "mae": 2.0, "rmse": 2.0, "bias": -2.0}
    assert scores["by_week"] == []
    assert "| 2 | 1 | 2 | 2 | -2 |" in (tmp_path / "runs/c/evaluation.md").read_text()


@pytest.mark.parametrize("panel", [[], ["--data.panel", "{ids: [a, b]}"]])
def test_kept_forecasts_are_those_predicted_by_id_origin_time_and_target(
    app: App, tmp_path: Path, panel: list[str]
) -> None:
    days = pd.date_range("2001-01-01", periods=12)
    rows = [[id_, day.date(), n, 10 * n, "dry"] for id_ in "ab" for n, day in enumerate(days)]
    write_table(tmp_path / "s.csv", ["id", "t", "v", "a target", "word"], rows)
    ingest(tmp_path / "s.csv", tmp_path / "s.zarr", id="id", time="t")
    (tmp_path / "c.yaml").write_text(CONFIG.replace("[v]", "[v, a target]"))
    predict(app, "--data.delay", "1", "--data.target_stride", "2", *panel)
    [path] = (tmp_path / "runs/c/forecasts").iterdir()
    assert path.name == "2001-01-12.parquet"
    found = pd.read_parquet(path)
    first, second = pd.Timestamp("2001-01-14"), pd.Timestamp("2001-01-16")
    assert found.drop(columns="origin").to_numpy().tolist() == [
        [id_, time, step, target, value]
        for id_ in "ab"
        for target, value in (("a target", 110.0), ("v", 11.0))
        for step, time in ((1, first), (2, second))
    ]
    assert set(found.origin) == {pd.Timestamp("2001-01-12")}


def test_what_would_have_been_forecast_and_splits_are_not_kept(app: App, tmp_path: Path) -> None:
    made(tmp_path, {"a": 12})
    predict(app, "--data.predict_from", "8")
    app("predict", "--config", "c.yaml", check=True)
    assert not (tmp_path / "runs/c/forecasts").exists()
    done = app("evaluate", "--config", "c.yaml")
    assert (done.returncode, "no forecasts in runs/c" in done.stderr) == (2, True)


def test_a_forecast_that_is_kept_twice_or_torn_is_refused(app: App, tmp_path: Path) -> None:
    made(tmp_path, {"a": 12})
    predict(app)
    folder = tmp_path / "runs/c/forecasts"
    (folder / "copy.parquet").write_bytes((folder / "11.parquet").read_bytes())
    done = app("evaluate", "runs/c")
    assert (done.returncode, "that are kept twice, in 11.parquet and copy.parquet;" in done.stderr) == (1, True)
    (folder / "copy.parquet").write_bytes((folder / "11.parquet").read_bytes()[:-40])
    done = app("evaluate", "runs/c")
    assert (done.returncode, "copy.parquet" in done.stderr, "cannot be read" in done.stderr) == (1, True, True)
    (folder / "copy.parquet").unlink()
    (tmp_path / "d.yaml").write_text("trainer: {default_root_dir: runs/c}\n")
    done = app("evaluate", "--config", "d.yaml")
    assert (done.returncode, "no store in d.yaml" in done.stderr) == (2, True)
    assert app("evaluate", "--config", "d.yaml", "--data.store", "s.zarr").returncode == 0
    made(tmp_path, {"a": 13})
    store = open_store(tmp_path / "s.zarr")
    assert evaluate(store, read_forecasts(folder, store)).n_partly == 1
    write_table(tmp_path / "d.csv", ["id", "t", "v"], [["a", f"2001-01-{day:02}", day] for day in range(1, 9)])
    ingest(tmp_path / "d.csv", tmp_path / "d.zarr", id="id", time="t")
    with pytest.raises(StoreError, match="forecasts at whole steps; expected dates"):
        read_forecasts(folder, open_store(tmp_path / "d.zarr"))


def test_forecasts_of_one_store_are_scored_against_another_only_if_it_is_named(app: App, tmp_path: Path) -> None:
    """A store that was ingested anew is another one, even in the same place."""
    made(tmp_path, {"a": 12, "b": 12})
    predict(app)
    path = tmp_path / "runs/c/forecasts/11.parquet"
    older = path.read_bytes()
    shutil.rmtree(tmp_path / "s.zarr")
    made(tmp_path, {"a": 14, "b": 12})
    done = app("evaluate", "runs/c")
    told = (
        f"forecasts of another store than s.zarr, or from before it was ingested anew, in {path.relative_to(tmp_path)}"
    )
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert "--data.store s.zarr" in done.stderr
    assert "evaluate runs/c --data.store s.zarr" in done.stderr
    assert not (tmp_path / "runs/c/evaluation.json").exists()
    done = app("run", "--config", "c.yaml", "--trainer.default_root_dir", "runs/c", check=True)
    assert f"{told}, are not scored" in done.stdout + done.stderr, "whoever fits again is told, and not stopped"
    done = app("evaluate", "runs/c", "--data.store", "s.zarr", check=True)
    assert told in done.stdout + done.stderr
    assert "2 forecasts from 11 to 11: 1 scored, 0 in part, 1 waiting" in done.stdout
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "copy.zarr")
    predict(app, "--data.store", "copy.zarr", "--data.series.ids", "[b]")
    assert app("evaluate", "runs/c").returncode == 2, "a forecast of a is still of the store of before"
    predict(app)
    path.unlink()
    (path.parent / "13.parquet").rename(path.parent / "moved.parquet")
    app("evaluate", "runs/c", check=True)
    table = pq.read_table(io.BytesIO(older), partitioning=None)
    pq.write_table(table.replace_schema_metadata(), path)  # as it was before stores were noted
    app("evaluate", "runs/c", check=True)


def test_forecasts_of_files_that_grow_are_scored_against_them(app: App, tmp_path: Path) -> None:
    """A store of files is ingested anew when they change, and its forecasts are still of these files."""
    csv = tmp_path / "d.csv"
    write_table(csv, ["id", "t", "v"], [["a", t, t] for t in range(12)])
    (tmp_path / "c.yaml").write_text(CONFIG.replace("s.zarr", "d.csv, ingest: {id: id, time: t}, cache: cache"))
    predict(app)
    write_table(csv, ["id", "t", "v"], [["a", t, t] for t in range(14)])
    assert "1 scored" in app("evaluate", "runs/c", check=True).stdout
    write_table(tmp_path / "e.csv", ["id", "t", "v"], [["a", t, t] for t in range(14)])
    (tmp_path / "d.yaml").write_text((tmp_path / "c.yaml").read_text().replace("d.csv", "e.csv"))
    assert app("evaluate", "--config", "d.yaml", "--trainer.default_root_dir", "runs/c").returncode == 2


def test_forecasts_in_utc_are_not_scored_against_times_of_a_local_clock(app: App, tmp_path: Path) -> None:
    rows = [["a", f"2024-06-{day:02} 00:00", day] for day in range(1, 13)]
    write_table(tmp_path / "d.csv", ["id", "t", "v"], rows)
    ingest(tmp_path / "d.csv", tmp_path / "s.zarr", id="id", time="t", timezone="Europe/Berlin")
    (tmp_path / "c.yaml").write_text(CONFIG)
    predict(app)
    [path] = (tmp_path / "runs/c/forecasts").iterdir()
    assert pd.read_parquet(path).time.iloc[0] == pd.Timestamp("2024-06-12 22:00", tz="UTC")
    ingest(tmp_path / "d.csv", tmp_path / "s.zarr", id="id", time="t", overwrite=True)
    done = app("evaluate", "runs/c", "--data.store", "s.zarr")
    assert (done.returncode, "forecasts at times in UTC; expected times without a zone" in done.stderr) == (1, True)
