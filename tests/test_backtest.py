"""A backtest forecasts from origins in the past, knows nothing of what lies behind them, and scores that in a table."""

import csv
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.borders import time_borders
from lightning_app.data.windows.rolling import Steps, rolling_splits
from lightning_app.data.windows.splits import Split
from lightning_app.naive2 import naive2, seasonal_indices
from zstore import Store, UsageError, ingest, open_store

App = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

N = 160  # hours of the whole series
HORIZON, EVERY = 6, 8
BACK = (HORIZON + EVERY, HORIZON)  # steps from the origins of two folds to the end

KILLER = """
import os, signal
from pathlib import Path
import pytorch_lightning as pl

class Killer(pl.Callback):
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        flag = Path("kill")
        if flag.exists() and flag.read_text() in trainer.default_root_dir and trainer.global_step == 7:
            flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def rows_of(spans: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """An hourly wave of each series, from one step to another, with a channel that is known in advance."""
    random, parts = np.random.default_rng(5), []
    for number, (start, stop) in enumerate(spans):
        steps = np.arange(start, stop)
        times = pd.Timestamp("2024-01-01") + pd.to_timedelta(steps, unit="h")
        part = pd.DataFrame({"id": f"s{number}", "t": times, "u": (steps % 5).astype(float)})
        part["v"] = (10 + np.sin(steps * np.pi / 12) + random.normal(0, 0.2, len(steps))).round(3)
        parts.append(part)
    return pd.concat(parts)


def stored(rows: pd.DataFrame, path: Path, **options: Any) -> Path:
    rows.to_csv(path.with_suffix(".csv"), index=False)
    ingest(path.with_suffix(".csv"), path, id="id", time="t", **{"freq": "1h", **options})
    return path


def config(path: Path, store: Path, model: str = "NLinear", **data: Any) -> Path:
    document = {
        "data": {
            "store": str(store),
            "lookback": 12,
            "horizon": HORIZON,
            "channels": ["v"],
            "targets": ["v"],
            "split": {"sizes": [-1, 16, 6]},
            "batch_size": 32,
            "cache": str(path.parent / "cache"),
            **data,
        },
        "model": {"class_path": model, "init_args": {"units": "source", "mase_season": 24}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def forecasts(folder: Path) -> pd.DataFrame:
    """What was kept, by id and time."""
    paths = sorted((folder / "backtest" / "forecasts").glob("*.parquet"))
    return pd.concat(map(pd.read_parquet, paths)).sort_values(["origin", "id", "time"]).reset_index(drop=True)


def folds_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("panel", [False, pytest.param(True, marks=pytest.mark.long)], ids=["series", "panel"])
@pytest.mark.parametrize("refit", [pytest.param(False, marks=pytest.mark.long), True], ids=["one fit", "refit"])
def test_forecasts_do_not_change_with_what_lies_behind_their_origin(
    app: App, tmp_path: Path, refit: bool, panel: bool
) -> None:
    """Not by a bit, though every row behind it is another, which the scaler and the weights would see."""
    rows = rows_of([(0, N), (0, N), (30, N)])
    beside: dict[str, Any] = {"panel": {}} if panel else {}
    found = {}
    for changed in (0, *BACK):
        place = tmp_path / f"from_{changed}"
        place.mkdir()
        own = rows.copy()
        late = own.t >= pd.Timestamp("2024-01-01") + pd.Timedelta(hours=N - changed)
        own.loc[late, "v"] = (own.v[late] * 3 - 40).round(3)
        config(place / "c.yaml", stored(own, place / "c.zarr"), **beside)
        words = ("--folds", 2, "--every", EVERY, *(["--refit"] if refit else []), "--intervals.levels", "[0.8]")
        app("backtest", "--config", place / "c.yaml", *words, "--trainer.default_root_dir", place, check=True)
        found[changed] = forecasts(place)
    whole, from_first, from_second = (found[changed] for changed in (0, *BACK))
    first, second = (frame.origin == frame.origin.min() for frame in (whole, from_first))
    assert len(whole) == 2 * 3 * HORIZON
    assert (whole.lower80 < whole.upper80).all()
    pd.testing.assert_frame_equal(whole[first], from_first[second], check_exact=True)
    pd.testing.assert_frame_equal(whole, from_second, check_exact=True)
    assert not np.isclose(whole[~first].forecast, from_first[~second].forecast).any()


def test_a_fold_is_what_predict_would_have_said_then_and_its_scores_are_of_that(app: App, tmp_path: Path) -> None:
    store = stored(rows_of([(0, N), (0, N)]), tmp_path / "w.zarr")
    config(tmp_path / "w.yaml", store, channels=["v", "u"], future=["u"], time_features=["hour_of_day"])
    flags = ("--config", "w.yaml", "--model", "LSTM", "--model.hidden", 4)
    app("backtest", *flags, "--folds", 3, "--every", 5, check=True)
    kept = forecasts(tmp_path / "runs/w")
    scored = folds_of(tmp_path / "runs/w/backtest.csv")
    assert [row["fold"] for row in scored] == ["1", "2", "3", "mean", "sd"]
    truth = open_store(store).sel().to_pandas().reset_index().set_index(["id", "time"]).v
    mean_errors = []
    for number, back in enumerate((16, 11, 6)):
        origin = pd.Timestamp("2024-01-01") + pd.Timedelta(hours=N - back - 1)
        assert scored[number]["origin"] == str(origin)
        own = kept[kept.origin == origin]
        error = own.forecast.to_numpy() - truth.loc[list(zip(own.id, own.time, strict=True))].to_numpy()
        mean_errors.append(np.abs(error).mean())
        assert float(scored[number]["mae"]) == pytest.approx(mean_errors[-1], rel=1e-6)  # forecasts are kept as float32
        since = ("--data.predict_on", "future", "--data.predict_from", origin + pd.Timedelta(hours=1))
        checkpoint = ("--ckpt_path", tmp_path / "runs/w/backtest/fit/checkpoints/best.ckpt")
        app("predict", *flags, *since, *checkpoint, "--trainer.default_root_dir", "other", check=True)
        import xarray

        said = xarray.open_zarr(tmp_path / "other/predictions.zarr").v.to_numpy()
        np.testing.assert_array_equal(said.ravel(), own.forecast.to_numpy().astype(said.dtype))
    assert float(scored[3]["mae"]) == pytest.approx(np.mean(mean_errors), rel=1e-6)
    assert float(scored[4]["mae"]) == pytest.approx(np.std(mean_errors, ddof=1), rel=1e-6)


def test_evaluate_scores_what_a_backtest_kept(app: App, tmp_path: Path) -> None:
    config(tmp_path / "r.yaml", stored(rows_of([(0, N), (0, N)]), tmp_path / "r.zarr"), "Repeat")
    app("backtest", "--config", "r.yaml", "--folds", 4, check=True)
    assert "8 forecasts" in app("evaluate", "runs/r/backtest", check=True).stdout
    scores = json.loads((tmp_path / "runs/r/backtest/evaluation.json").read_text())
    assert (scores["n_scored"], scores["n_partly"], scores["n_waiting"]) == (8, 0, 0)
    mean = folds_of(tmp_path / "runs/r/backtest.csv")[4]
    assert scores["targets"]["v"]["all"]["mae"] == pytest.approx(float(mean["mae"]), rel=1e-6)


def test_series_that_cannot_be_forecast_or_scored_are_named_fold_by_fold(app: App, tmp_path: Path) -> None:
    """One ends before the second origin, one begins behind the first, one has a gap, one ended long ago."""
    rows = rows_of([(0, N), (0, N - 9), (N - 13, N), (0, N), (0, 90)])
    rows = rows[~((rows.id == "s3") & rows.t.between("2024-01-07 06:00", "2024-01-07 09:00"))]  # 4 of the last 10 steps
    config(tmp_path / "e.yaml", stored(rows, tmp_path / "e.zarr"))
    done = app("backtest", "--config", "e.yaml", "--folds", 2, "--every", EVERY, check=True)
    page = (tmp_path / "runs/e/backtest.md").read_text()
    assert "- Fold 1 scores 3 of 5 series. Not s2, s4: nothing" in page
    assert "- Fold 2 scores 2 of 5 series. Not s1, s2, s4: nothing" in page
    assert "series are not forecast, for they have no known row: s2" in done.stdout
    assert "2 series end before test begins, and are not forecast: s1, s4" in done.stdout
    assert "1 series have a gap where test begins, and are forecast from their own last rows: s3" in done.stdout
    assert [row["windows"] for row in folds_of(tmp_path / "runs/e/backtest.csv")[:2]] == ["3", "2"]


@pytest.mark.parametrize("refit", [pytest.param(False, marks=pytest.mark.long), True], ids=["one fit", "refit"])
def test_a_backtest_that_is_killed_goes_on_where_it_was(
    run: Callable[..., Any], app: App, tmp_path: Path, refit: bool
) -> None:
    """In the middle of an epoch of a fit; a fold that was done stays as it was, and the numbers are the same."""
    (tmp_path / "killer.py").write_text(KILLER)
    store = stored(rows_of([(0, N)] * 3), tmp_path / "k.zarr")
    document = yaml.safe_load(config(tmp_path / "k.yaml", store).read_text())
    document["trainer"] |= {"max_epochs": 3, "callbacks": [{"class_path": "killer.Killer"}]}
    (tmp_path / "k.yaml").write_text(yaml.safe_dump(document))
    flags = ("backtest", "--config", "k.yaml", "--folds", 2, "--data.batch_size", 64, *(["--refit"] if refit else []))
    run("lightning_app", *flags, "--trainer.default_root_dir", "whole", check=True)
    (tmp_path / "kill").write_text("backtest/2" if refit else "backtest/fit")
    flags = (*flags, "--trainer.default_root_dir", "killed")
    assert run("lightning_app", *flags).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/backtest.md").exists()
    first = tmp_path / "killed/backtest/1/fold.json"
    assert first.exists() == refit
    before = first.stat().st_mtime_ns if refit else 0
    assert (tmp_path / f"killed/backtest/{'2' if refit else 'fit'}/checkpoints/last.ckpt").exists()
    done = run("lightning_app", *flags, check=True)
    assert ("1 of 2 folds are done already" in done.stdout) == refit
    assert not refit or first.stat().st_mtime_ns == before
    for name in ("backtest.md", "backtest.csv"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    pd.testing.assert_frame_equal(forecasts(tmp_path / "killed"), forecasts(tmp_path / "whole"), check_exact=True)


def test_another_configuration_is_refused_in_the_folder_of_a_backtest_unless_it_may_replace_it(
    app: App, tmp_path: Path
) -> None:
    config(tmp_path / "r.yaml", stored(rows_of([(0, N)]), tmp_path / "r.zarr"), "Repeat")
    words = ("backtest", "--config", "r.yaml", "--folds", 2)
    app(*words, check=True)
    done = app(*words, "--data.lookback", 5)
    assert done.returncode == 2
    assert "with other flags, files or rows" in done.stderr
    more = app("backtest", "--config", "r.yaml", "--folds", 3)
    assert more.returncode == 2
    app("backtest", "--config", "r.yaml", "--folds", 3, "--overwrite", check=True)
    assert len(folds_of(tmp_path / "runs/r/backtest.csv")) == 3 + 2
    wrong = ("--data.lookback", 150, "--trainer.default_root_dir", "failed")
    assert "no series has 150 rows" in app(*words, *wrong).stderr
    app(*words, *wrong[2:], check=True)  # of what failed before anything was done, nothing is to be kept
    (tmp_path / "other/backtest").mkdir(parents=True)
    (tmp_path / "other/backtest/mine.txt").touch()
    done = app(*words, "--overwrite", "--trainer.default_root_dir", "other")
    assert "which is no backtest" in done.stderr
    assert (tmp_path / "other/backtest/mine.txt").exists()


def test_damaged_notes_of_a_backtest_are_named_and_replaced_only_if_asked_for(app: App, tmp_path: Path) -> None:
    config(tmp_path / "r.yaml", stored(rows_of([(0, N)]), tmp_path / "r.zarr"), "Repeat")
    words = ("backtest", "--config", "r.yaml", "--folds", 2)
    app(*words, check=True)
    folder = tmp_path / "runs/r/backtest"
    for name, content in (
        ("2/test_metrics.json", "{"),
        ("1/fold.json", "{}"),
        ("backtest.json", "[]"),
        ("backtest.json", "\0"),
    ):
        kept = (folder / name).read_text()
        (folder / name).write_text(content)
        done = app(*words)
        assert (done.returncode, "a file of a backtest that cannot be read" in done.stderr) == (1, True)
        assert name in done.stderr
        if content != "\0":
            (folder / name).write_text(kept)
    app(*words, "--overwrite", check=True)


def test_a_checkpoint_that_was_trained_behind_an_origin_is_refused(app: App, tmp_path: Path) -> None:
    config(tmp_path / "c.yaml", stored(rows_of([(0, N), (0, N)]), tmp_path / "c.zarr"))
    app("fit", "--config", "c.yaml", check=True)
    words = ("backtest", "--config", "c.yaml", "--ckpt_path", "best")
    app(*words, "--folds", 2, check=True)
    assert not (tmp_path / "runs/c/backtest/fit").exists()
    done = app(*words, "--folds", 6, "--overwrite")
    assert done.returncode == 2
    assert "model trained on targets that are in test here: series s" in done.stderr
    assert "no checkpoint (none.ckpt)" in app("backtest", "--config", "c.yaml", "--ckpt_path", "none.ckpt").stderr
    assert "--refit with --ckpt_path" in app(*words, "--refit", "--overwrite").stderr


def test_what_was_published_stands_beside_it(app: App, tmp_path: Path) -> None:
    config(tmp_path / "p.yaml", stored(rows_of([(0, N)]), tmp_path / "p.zarr"), "Repeat")
    (tmp_path / "known.yaml").write_text(yaml.safe_dump({"p": {HORIZON: {"mae": 0.25}}}))
    words = ("--metrics", "mae", "mae@6", "--published", "known.yaml")
    app("backtest", "--config", "p.yaml", "--folds", 1, *words, check=True)
    lines = (tmp_path / "runs/p/backtest.md").read_text().splitlines()
    assert lines[2] == "| fold | origin | windows | MAE | MAE@6 |"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| 1", "| mean", "| published"]
    assert lines[-1] == "| published |  |  | 0.2500 |  |"
    done = app("backtest", "--config", "p.yaml", "--folds", 1, "--metrics", "nse")
    assert "metric nse; expected one of mse, mae" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folds", 0), "--folds 0; expected 1 or more"),
        (("--every", 0), "--every 0; expected 1 or more"),
        (("--folds", 40), "--folds 40 of 160 steps"),
        (("--data.split.by", "series"), "a backtest with a split by series"),
        (("--data.split.context", "forbid"), "a backtest with a split whose context is forbid"),
        (("--data.split", '{"over": "series"}'), "with 0.1 of its steps for validation"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_fit(
    app: App, tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    config(tmp_path / "c.yaml", stored(rows_of([(0, N)]), tmp_path / "c.zarr"), split={"sizes": [0.7, 0.1, 0.2]})
    done = app("backtest", "--config", "c.yaml", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("split", "said"),
    [({"by": "series"}, "a split by series; expected by time"), ({"context": "forbid"}, "whose context is forbid")],
)
def test_one_forecast_is_refused_where_test_has_no_time_to_begin_or_may_not_read_what_lies_before(
    tmp_path: Path, split: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=f"--data.one_forecast with .*{said}"):
        WindowDataModule(str(tmp_path), 4, 2, one_forecast=True, split=Split(**split))


RULES = {"MS": "MS", "B": "B", "D": "1D", "h": "1h", "irregular": "rows"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("rolling")
    found = {}
    for name, rule in RULES.items():
        if name == "irregular":
            times = pd.Timestamp("2001-01-01") + pd.to_timedelta(np.cumsum(1 + np.arange(70) % 4), unit="h")
        else:
            times = pd.date_range("2001-01-01", periods=70, freq=name)
        rows = [pd.DataFrame({"id": f"s{n}", "t": times[start:], "v": 1.0}) for n, start in enumerate((0, 3))]
        found[name] = open_store(stored(pd.concat(rows), folder / f"{name}.zarr", freq=rule))
    return found


@given(st.sampled_from(sorted(RULES)), st.integers(1, 9), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2))
def test_origins_are_so_many_steps_apart_and_the_last_forecast_ends_with_the_store(
    stores: dict[str, Store], name: str, n_ahead: int, n_folds: int, every: int, embargo: int
) -> None:
    store, steps = stores[name], Steps(stores[name])
    regular = name != "irregular"
    split = Split(sizes=(0.7, 0.1, 0.2), embargo=embargo if regular else 0)
    splits = rolling_splits(store, split, n_ahead, n_folds, every)
    configured = time_borders(store, split)
    n_val = steps.before(int(configured[1][1][0])) - steps.before(int(configured[0][1][0]))
    for number, found in enumerate(splits):
        train, val, test = ((int(a[0]), int(b[0])) for a, b in time_borders(store, found))
        origin = 70 - n_ahead - (n_folds - 1 - number) * every
        assert steps.before(test[0]) == origin
        assert steps.before(val[1]) == origin - split.embargo
        assert steps.before(val[1]) - steps.before(train[1]) == n_val
        assert steps.before(train[0]) == 0


@given(st.sampled_from(sorted(RULES)), st.integers(1, 9), st.integers(1, 4), st.integers(1, 9))
def test_over_each_series_origins_count_from_its_own_end(
    stores: dict[str, Store], name: str, n_ahead: int, n_folds: int, every: int
) -> None:
    store = stores[name]
    for number, found in enumerate(
        rolling_splits(store, Split(sizes=(-1, 5, 3), over="series"), n_ahead, n_folds, every)
    ):
        begin = time_borders(store, found)[2][0]
        for series in range(2):
            times = store.times(*store.index.row_start[series : series + 2].tolist())
            assert len(times) - times.searchsorted(begin[series]) == n_ahead + (n_folds - 1 - number) * every


def test_months_and_irregular_times_are_backtested_as_hours_are(app: App, tmp_path: Path) -> None:
    for name in ("MS", "irregular"):
        times = pd.date_range("2001-01-01", periods=70, freq="MS")
        if name == "irregular":
            times = pd.Timestamp("2001-01-01") + pd.to_timedelta(np.cumsum(1 + np.arange(70) % 4), unit="h")
        rows = pd.concat([pd.DataFrame({"id": f"s{n}", "t": times, "u": 0.0, "v": np.arange(70.0)}) for n in range(2)])
        store = stored(rows, tmp_path / f"{name}.zarr", freq=RULES[name])
        config(tmp_path / f"{name}.yaml", store, "Repeat", split={"sizes": [0.7, 0.1, 0.2]})
        app("backtest", "--config", f"{name}.yaml", "--folds", 2, "--every", 3, check=True)
        kept = forecasts(tmp_path / "runs" / name)
        assert kept.origin.unique().tolist() == [times[60], times[63]]
        assert kept[kept.origin == times[60]].time.tolist() == times[61:67].tolist() * 2
        assert (kept[kept.origin == times[63]].forecast == 63.0).all()


@pytest.mark.long
def test_two_processes_backtest_as_one_does(run: Callable[..., Any], tmp_path: Path) -> None:
    config(tmp_path / "d.yaml", stored(rows_of([(0, N)] * 4), tmp_path / "d.zarr"))
    words = ("backtest", "--config", "d.yaml", "--folds", 2, "--refit", "--trainer.default_root_dir")
    run("lightning_app", *words, "one", check=True)
    two = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
    run("lightning_app", *words, "two", *two, "--overwrite", check=True)
    one, other = (forecasts(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(one.forecast, other.forecast, rtol=1e-4)
    assert os.listdir(tmp_path / "one/backtest") == os.listdir(tmp_path / "two/backtest")


def test_naive2_repeats_the_last_value_at_the_place_of_each_row_in_its_season() -> None:
    season = np.array([0.5, 1.5, 1.25, 0.75])
    assert naive2(np.tile(season, 6)[:-1] * 40, 4, 6) == pytest.approx([30, 20, 60, 50, 30, 20])
    assert seasonal_indices(np.tile(season, 5) * 40, 4) == pytest.approx(season)
    assert seasonal_indices(np.tile([2.0, 3.0, 4.0], 5), 3) == pytest.approx([2 / 3, 1, 4 / 3])
    noise = np.random.default_rng(0).normal(10, 1, 100)
    assert naive2(noise, 4, 2).tolist() == [noise[-1]] * 2  # not seasonal
    assert naive2(np.tile(season, 2), 4, 2).tolist() == [0.75] * 2  # for less than three seasons nobody can say
    assert naive2(np.full(50, 3.0), 4, 2).tolist() == [3.0] * 2
    assert seasonal_indices(np.r_[np.tile(season, 6), np.zeros(9)] * 40, 4)[1] == pytest.approx(1.5, rel=0.2)


@pytest.mark.parametrize("panel", [False, True], ids=["series", "panel"])
def test_owa_is_the_mean_of_smape_and_mase_each_over_that_of_naive2(app: App, tmp_path: Path, panel: bool) -> None:
    rows = rows_of([(0, N), (0, N)] if panel else [(0, N), (20, N - 3)])
    split = {"sizes": [-1, 0, HORIZON], **({} if panel else {"over": "series"})}
    store = stored(rows, tmp_path / "o.zarr", dtype="float64")
    config(tmp_path / "o.yaml", store, "Repeat", split=split, scaler="none", **({"panel": {}} if panel else {}))
    app("backtest", "--config", "o.yaml", "--folds", 1, "--owa", check=True)
    errors: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    for _, own in rows.groupby("id"):
        history, truth = own.v.to_numpy()[:-HORIZON], own.v.to_numpy()[-HORIZON:]
        scale = np.abs(history[24:] - history[:-24]).mean()
        for name, guess in (("ours", np.full(HORIZON, history[-1])), ("theirs", naive2(history, 24, HORIZON))):
            symmetric = 200 * np.abs(guess - truth) / (np.abs(guess) + np.abs(truth))
            errors[name].append([symmetric.mean(), np.abs(guess - truth).mean() / scale])
    expected = (np.mean(errors["ours"], axis=0) / np.mean(errors["theirs"], axis=0)).mean()
    found = folds_of(tmp_path / "runs/o/backtest.csv")[0]
    assert float(found["owa"]) == pytest.approx(expected, rel=1e-6)
    assert found["windows"] == ("1" if panel else "2")


def test_an_owa_that_cannot_be_is_refused(app: App, tmp_path: Path) -> None:
    rows = rows_of([(0, N)])
    rows.loc[rows.index[40], "v"] = np.nan
    config(tmp_path / "o.yaml", stored(rows, tmp_path / "o.zarr"), "Repeat")
    words = ("backtest", "--config", "o.yaml", "--folds", 1, "--owa")
    assert "Naive2 of s0, whose v has missing values before its forecast" in app(*words).stderr
    assert "--owa without a MASE, or without source units" in app(*words, "--model.units", "scaled").stderr
    assert "--owa with delay 2 and target_stride 1" in app(*words, "--data.delay", 2).stderr
    gap = rows_of([(0, N)]).drop(index=40)
    config(tmp_path / "gap.yaml", stored(gap, tmp_path / "gap.zarr"), "Repeat")
    assert "whose v has gaps before its forecast" in app(*words[:2], "gap.yaml", *words[3:]).stderr
    sun = rows_of([(0, N), (0, N)])
    sun.loc[sun.id == "s1", "v"] = np.where(sun.t[sun.id == "s1"].dt.hour.between(11, 22), 5.0, 0.0)
    config(tmp_path / "sun.yaml", stored(sun, tmp_path / "sun.zarr"), "Repeat")
    assert "Naive2 of s1, whose v has seasonal indices of 0" in app(*words[:2], "sun.yaml", *words[3:]).stderr
    still = rows_of([(0, N)])
    still.loc[still.index[-HORIZON - 1 :], "v"] = 10.0
    config(tmp_path / "still.yaml", stored(still, tmp_path / "still.zarr"), "Repeat")
    no_season = ("--model.mase_season", 1)
    assert "an OWA where Naive2 makes no error" in app(*words[:2], "still.yaml", *words[3:], *no_season).stderr
