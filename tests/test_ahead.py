"""What has not happened yet: windows of a store that was cut are those that the whole store has at its end."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml
from conftest import few
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lightning_app import load
from lightning_app.cli import main
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.splits import Split
from zstore import Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and what it calls

Run = Callable[..., subprocess.CompletedProcess[str]]
N = 60  # times of the longest series
AT = 48  # the first that is not known
KINDS = ["step", "hour", "month", "weekday", "irregular"]
FILL = ("--data.future_gaps", "fill")


def times_of(kind: str) -> Any:
    if kind == "step":
        return np.arange(N)
    if kind == "irregular":
        return np.cumsum(1 + np.arange(N) % 3)
    names = {"hour": "h", "month": "MS", "weekday": "B"}
    return pd.date_range("2001-01-01", periods=N, freq=names[kind])


def rows_of(kind: str) -> pd.DataFrame:
    """Three series, of which one begins later and one ends before the others; u and holiday are known in advance."""
    random, parts = np.random.default_rng(3), []
    for number, (start, stop) in enumerate([(0, N), (9, N), (0, AT - 5)]):
        part = pd.DataFrame({"id": f"s{number}", "t": times_of(kind)[start:stop]})
        part["v"], part["w"] = random.normal(size=(2, len(part))).round(3)
        part["word"] = np.array(["low", "high"])[random.integers(0, 2, len(part))]
        part["u"] = random.normal(size=len(part)).round(3)
        part["holiday"] = np.array(["no", "yes"])[random.integers(0, 2, len(part))]
        part.loc[random.random(len(part)) < 0.1, "v"] = np.nan
        if number == 1 and kind != "irregular":
            part = part.drop(index=[3, 4])
        parts.append(part)
    return pd.concat(parts)


def stored(rows: pd.DataFrame, path: Path, kind: str) -> Store:
    rows.to_csv(path.with_suffix(".csv"), index=False)
    step = {"month": {"freq": "MS"}, "weekday": {"freq": "B"}, "step": {"freq": "1"}, "hour": {"freq": "1h"}}
    asked: dict[str, Any] = {"freq": "rows"} if kind == "irregular" else step[kind]
    ingest(path.with_suffix(".csv"), path, id="id", time="t", **asked)
    return open_store(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of times: `whole`; `cut` before AT; `ahead`, which has what is known in advance from there on."""
    folder = tmp_path_factory.mktemp("ahead")
    for kind in KINDS:
        rows, at = rows_of(kind), times_of(kind)[AT]
        stored(rows, folder / f"{kind}_whole.zarr", kind)
        stored(rows[rows.t < at], folder / f"{kind}_cut.zarr", kind)
        ahead = rows.copy()
        ahead.loc[ahead.t >= at, ["v", "w", "word"]] = np.nan
        stored(ahead, folder / f"{kind}_ahead.zarr", kind)
        rows[rows.t >= at][["id", "t", "u", "holiday"]].to_csv(folder / f"{kind}_known.csv", index=False)
    return folder


def module(store: Path, **options: Any) -> WindowDataModule:
    return WindowDataModule(str(store), cache=str(store.parent / "cache"), **options)


def windows(loader: Any, data: WindowDataModule) -> Iterator[tuple[tuple[str, int], dict[str, torch.Tensor]]]:
    """By id (of a panel: its first) and time of the first target, what a batch has of each window."""
    for batch in loader:
        for number in range(len(batch["y"])):
            own = {key: value[number] for key, value in batch.items()}
            series = own["series"] if own["series"].ndim == 0 else own["series"][0]
            yield (str(data.store.ids[int(series)]), int(own["time"])), own


OPTIONS = st.fixed_dictionaries(
    {
        "lookback": st.integers(1, 9),
        "horizon": st.integers(1, 5),
        "delay": st.sampled_from([0, 0, 2, -1]),
        "pad_before": st.sampled_from(["none", "repeat", "zero"]),
        "scaler": st.sampled_from(["none", "standard", "robust", "minmax"]),
        "scale_by": st.sampled_from(["channel", "series"]),
        "observed_inputs": st.booleans(),
        "category_encoding": st.sampled_from(["one_hot", "code"]),
        "target_stride": st.sampled_from([1, 1, 2]),
        "residency": st.sampled_from(["host", "stream"]),
    }
)


ONE_ROW_AHEAD = {  # no row that is read is there yet
    "lookback": 1,
    "horizon": 1,
    "delay": -1,
    "pad_before": "none",
    "scaler": "none",
    "scale_by": "channel",
    "observed_inputs": False,
    "category_encoding": "one_hot",
    "target_stride": 1,
    "residency": "host",
}


@settings(max_examples=few(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.booleans(), st.booleans(), st.sampled_from(["cut", "ahead", "whole"]), OPTIONS)
@example("step", False, False, "cut", ONE_ROW_AHEAD)
def test_windows_ahead_are_those_that_the_whole_store_has_there(
    folder: Path, kind: str, panel: bool, future: bool, source: str, options: dict[str, Any]
) -> None:
    """Whatever the times, with and without known channels, from rows, a file or an origin in the past."""
    options = {**options, "targets": ["w"], "future": ["u", "holiday"] if future else []}
    if panel:
        options |= {"panel": Panel(ids=["s0", "s1"]), "scale_by": "channel"}
    behind = options["delay"] < 0  # inputs of the rows of targets are known in advance then
    options["channels"] = ["u", "holiday"] if behind else ["v", "w", "word", *(["u"] if future else [])]
    if kind in ("hour", "weekday", "month") and not (panel and kind == "hour"):
        options |= {"time_features": ["day_of_year"], "time_encoding": "index"}
    times = open_store(folder / f"{kind}_whole.zarr").schema.time
    at, first = (times.show(int(open_store(folder / f"{kind}_whole.zarr").times(row, row + 1)[0])) for row in (AT, 0))
    dates = (first, at, at, times.show(times.parse(at) + (1 << 40 if times.unit is None else 10**9)))
    whole = module(folder / f"{kind}_whole.zarr", split=Split(dates=dates), **options)
    expected = dict(windows(whole.loaders.in_order(whole.readable("test", 1)), whole))
    beside: dict[str, Any] = {"predict_from": at} if source == "whole" else {}
    if source == "cut" and (future or behind or kind == "irregular"):
        beside["future_values"] = str(folder / f"{kind}_known.csv")
    gaps = {"predict_on": "future", "future_gaps": "fill", **beside}
    data = module(folder / f"{kind}_{source}.zarr", split=Split(dates=dates), **options, **gaps)
    data.load_state_dict(whole.state_dict())
    found = dict(windows(data.predict_dataloader(), data))
    compared = 0
    for key, own in found.items():
        if key not in expected:
            assert key[0] == "s2"  # which ended before
            continue
        compared += 1
        for name in ("x", "x_future", "x_static", "x_time", "y_time", "x_pad"):
            if name in own:
                assert torch.equal(own[name], expected[key][name]), name
        if source == "whole":
            assert torch.equal(own["mask"], expected[key]["mask"])
            assert torch.equal(own["y"] * own["mask"], expected[key]["y"] * own["mask"])
        else:
            assert not own["mask"].any()
    assert compared == (1 if panel else 2)


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Path:
    """The folder of a run on the hourly store that was cut."""
    config = {
        "data": {
            "store": str(folder / "hour_cut.zarr"),
            "cache": str(folder / "cache"),
            "lookback": 6,
            "horizon": 4,
            "channels": ["v", "w", "word", "u"],
            "targets": ["w"],
            "future": ["u", "holiday"],
            "split": {"sizes": [0.6, 0.2, 0.2]},
            "batch_size": 8,
        },
        "model": {"class_path": "LSTM", "init_args": {"hidden": 8}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "default_root_dir": str(folder / "run")},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    typed("fit", "--config", str(folder / "c.yaml"), "--quiet")
    return folder


def typed(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning_app"])
        assert main(list(words)) == 0


def forecasts(folder: Path, *words: str) -> xr.Dataset:
    """What `predict` writes."""
    typed("predict", "--config", str(folder / "c.yaml"), "--quiet", *words)
    found: xr.Dataset = xr.open_zarr(folder / "run" / "predictions.zarr").load()
    return found


def test_the_command_and_python_forecast_what_the_whole_store_says(fitted: Path) -> None:
    """From a table of known values, rows without targets, an origin in the past, and a table in memory."""
    whole = ["--data.store", str(fitted / "hour_whole.zarr"), "--data.split.sizes", "[0.2, 0.2, 0.6]"]
    every = forecasts(fitted, *whole, "--data.split.context", "allow")
    known = str(fitted / "hour_known.csv")
    made = [
        forecasts(fitted, "--data.predict_on", "future", "--data.future_values", known, "--data.future_gaps", "fill"),
        forecasts(fitted, "--data.predict_on", "future", "--data.store", str(fitted / "hour_ahead.zarr"), *FILL),
        forecasts(fitted, "--data.predict_on", "future", "--data.predict_from", "2001-01-03", *whole[:2], *FILL),
    ]
    forecaster = load(fitted / "run")
    ahead = pd.read_csv(fitted / "hour_ahead.csv", parse_dates=["t"])
    tables = [
        forecaster.forecast(future_values=known, future_gaps="fill"),
        forecaster.forecast(fitted / "hour_ahead.zarr", future_gaps="fill"),
        forecaster.forecast(ahead, future_gaps="fill"),
        forecaster.forecast(fitted / "hour_whole.zarr", ["s0", "s1"], "2001-01-03"),
    ]
    for name in ("s0", "s1"):
        at = np.flatnonzero((every.id == name) & (every.time[:, 0] == np.datetime64("2001-01-03")))
        wanted = every.w[int(at[0])].to_numpy()
        for found in made:
            np.testing.assert_allclose(found.w[found.id == name][0], wanted, rtol=0, atol=1e-6)
            assert found.time[found.id == name][0, 0] == np.datetime64("2001-01-03")
        for table in tables:
            own = table[table.id == name]
            assert own.step.tolist() == [1, 2, 3, 4]
            np.testing.assert_allclose(own.w, wanted, rtol=0, atol=1e-6)
    assert np.isnan(made[0].w_observed).all()
    assert not np.isnan(made[2].w_observed[made[2].id == "s0"]).any()


@pytest.mark.long
@pytest.mark.parametrize("panel", [False, True])
def test_two_processes_forecast_what_one_forecasts(fitted: Path, run: Run, panel: bool) -> None:
    """The future and an origin in the past, of series and of a panel, from each residency."""
    config = yaml.safe_load((fitted / "c.yaml").read_text())
    if panel:
        config["data"]["panel"] = {"ids": ["s0", "s1"]}
        config["trainer"]["default_root_dir"] = str(fitted / "panel")
    words = ["--config", str(fitted / "two.yaml")]
    (fitted / "two.yaml").write_text(yaml.safe_dump(config))
    run("lightning_app", "fit", *words, check=True)
    words += ["--data.future_gaps", "fill", "--data.batch_size", "2"]  # one window for each of two processes
    sources = {
        "future": ["--data.predict_on", "future", "--data.future_values", str(fitted / "hour_known.csv")],
        "past": ["--data.predict_on", "future", "--data.predict_from", "2001-01-03"],
    }
    sources["past"] += ["--data.store", str(fitted / "hour_whole.zarr")]
    for source in sources.values():
        made = []
        for residency in ("host", "stream"):
            for n_processes in (1, 2):
                ranks = [
                    "--trainer.devices",
                    str(n_processes),
                    "--trainer.strategy",
                    "ddp" if n_processes > 1 else "auto",
                ]
                run("lightning_app", "predict", *words, *source, *ranks, "--data.residency", residency, check=True)
                written = Path(config["trainer"]["default_root_dir"]) / "predictions.zarr"
                made.append(xr.open_zarr(written).load())
        assert len(np.unique(made[0].id)) == (2 if panel else 3)
        for other in made[1:]:
            xr.testing.assert_allclose(other, made[0], rtol=0, atol=1e-6)


def test_what_a_model_reads_of_rows_to_come_is_asked_for_by_id_time_and_channel(fitted: Path) -> None:
    forecaster = load(fitted / "run")
    with pytest.raises(UsageError, match=r"24 values .* not known, the first one u of s0 at 2001-01-03; "):
        forecaster.forecast(future_gaps="refuse")
    known = pd.read_csv(fitted / "hour_known.csv")
    known.drop(index=1).to_csv(fitted / "lacking.csv", index=False)
    with pytest.raises(UsageError, match=r"2 values .* u of s0 at 2001-01-03 01:00:00"):
        forecaster.forecast(ids=["s0"], future_values=str(fitted / "lacking.csv"))
    known.assign(holiday="perhaps").to_csv(fitted / "strange.csv", index=False)
    with pytest.raises(UsageError, match="holiday 'perhaps'"):
        forecaster.forecast(ids=["s0"], future_values=str(fitted / "strange.csv"))
    known.drop(columns=["u", "holiday"]).assign(other=1).to_csv(fitted / "other.csv", index=False)
    with pytest.raises(UsageError, match="without a channel that the model reads"):
        forecaster.forecast(ids=["s0"], future_values=str(fitted / "other.csv"))
    known.assign(u="warm").to_csv(fitted / "words.csv", index=False)
    with pytest.raises(UsageError, match="words in 'u'; expected numbers, as the store has"):
        forecaster.forecast(ids=["s0"], future_values=str(fitted / "words.csv"))
    known.assign(holiday=1).to_csv(fitted / "numbers.csv", index=False)
    with pytest.raises(UsageError, match="numbers in 'holiday'; expected words, as the store has"):
        forecaster.forecast(ids=["s0"], future_values=str(fitted / "numbers.csv"))
    known.assign(w=99.0).to_csv(fitted / "targets.csv", index=False)
    usual, with_targets = (
        forecaster.forecast(ids=["s0"], future_values=str(fitted / name)) for name in ("hour_known.csv", "targets.csv")
    )
    assert with_targets.equals(usual)
    late = known.assign(t=pd.to_datetime(known.t) + pd.Timedelta("500ms"))
    late.to_csv(fitted / "late.csv", index=False)  # half a second beside every row: no value of it is one of a row
    with pytest.raises(UsageError, match=r"s0 at 2001-01-03 00:00:00\.500, finer than the times of the store"):
        forecaster.forecast(ids=["s0"], future_values=str(fitted / "late.csv"), future_gaps="fill")
    with pytest.raises(UsageError, match="no series has a known row before 1999"):
        forecaster.forecast(predict_from="1999")
    with pytest.raises(UsageError, match="predict_from 'soon'"):
        forecaster.forecast(predict_from="soon")
    with pytest.raises(UsageError, match="no series has 6 rows without a gap"):
        forecaster.forecast(predict_from="2001-01-01 05:00")


def test_series_that_end_earlier_are_told_and_short_ones_left_out(
    fitted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load(fitted / "run").forecast(future_gaps="fill")
    assert found.id.unique().tolist() == ["s0", "s1", "s2"]
    assert "1 series end earlier" in caplog.text
    assert "their own last rows: s2" in caplog.text
    assert found[found.id == "s2"].time.iloc[0] == pd.Timestamp("2001-01-02 19:00")
    found = load(fitted / "run").forecast(predict_from="2001-01-01 18:00", future_gaps="fill")
    assert found.id.unique().tolist() == ["s0", "s2"]
    assert "1 series are not forecast" in caplog.text
