"""Checkpoints as commands use them: fitted on one store, tested, used to predict and fitted on with another one."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import yaml
from conftest import write_table

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split
from zstore import UsageError, append, compact, ingest, open_store

App = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own

N_DAYS = 40
CHANNELS = ("rain", "flow", "kind")
STATICS = ("word", "size", "north", "east")
DATES = ["2001-01-01", "2001-01-21", "2001-01-29", "2001-02-10"]


def rows(ids: str, channels: tuple[str, ...] = CHANNELS, words: str = "mzk") -> list[list[Any]]:
    """Rows of some series, which depend on the id and on nothing else."""
    table = []
    for id_ in ids:
        random = np.random.default_rng(ord(id_))
        for day in range(N_DAYS):
            rain, flow = random.normal(ord(id_) % 5, ord(id_) % 3 + 1, 2).round(2)
            blank = random.random() < 0.05
            values = {"rain": "" if blank else rain, "flow": flow, "kind": words[day % len(words)], "other": day % 7}
            table.append(
                [id_, np.datetime64("2001-01-01") + np.timedelta64(day, "D"), *(values[name] for name in channels)]
            )
    return table


def statics(ids: str, names: tuple[str, ...] = STATICS) -> list[list[Any]]:
    def of(id_: str) -> dict[str, Any]:
        number = ord(id_)
        return {"word": "bcd"[number % 3], "size": number**2, "north": number % 4, "east": number % 7}

    return [[id_, *(of(id_)[name] for name in names)] for id_ in ids]


def store(
    path: Path,
    ids: str,
    later: str = "",
    channels: tuple[str, ...] = CHANNELS,
    names: tuple[str, ...] = STATICS,
    **options: Any,
) -> Path:
    """A store of some series, of which some are appended, in which case it is compacted too."""
    about = write_table(path.with_suffix(".static.csv"), ["id", *names], statics(ids + later, names))
    table = write_table(path.with_suffix(".csv"), ["id", "date", *channels], rows(ids, channels))
    ingest(table, path, id="id", time="date", static=about, **options)
    if later:
        grow(path, later, channels, about)
        compact(path)
    return path


def grow(path: Path, ids: str, channels: tuple[str, ...] = CHANNELS, static: Path | None = None, **cells: Any) -> None:
    table = write_table(path.with_suffix(".later.csv"), ["id", "date", *channels], rows(ids, channels, **cells))
    append(table, path, static=static)


def another(path: Path) -> Path:
    """Other series beside two of those in ``abcd``, and every name, word and series in another place."""
    return store(path, "Zde", "b", ("other", "kind", "flow", "rain"), ("east", "size", "north", "word"))


def configure(path: Path, data: dict[str, Any], model: dict[str, Any], **rest: Any) -> None:
    document = {
        "data": {
            "lookback": 4,
            "horizon": 2,
            "split": {"dates": DATES},
            "batch_size": 16,
            "channels": list(CHANNELS),
            "targets": ["flow"],
            "cache": str(path.parent / "cache"),
            **data,
        },
        "model": model,
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": "run", "logger": False, **rest},
    }
    path.write_text(yaml.safe_dump(document))


def predicted(folder: Path) -> dict[tuple[str, str], list[float]]:
    """Forecasts of each window, by id and time of the first target."""
    with xarray.open_zarr(folder / "predictions.zarr") as written:
        flow, times = written["flow"].values, written["time"].values[:, 0].astype("M8[D]").astype(str)
        ids = [str(id_) for id_ in written["id"].values]
        if flow.ndim == 2:
            return {(id_, time): values.tolist() for id_, time, values in zip(ids, times, flow, strict=True)}
        pairs = [(id_, time) for time in times for id_ in ids]
        return dict(zip(pairs, flow.swapaxes(1, 2).reshape(-1, flow.shape[1]).tolist(), strict=True))


def assert_same_forecasts(folder: Path, one: str, other: str, ids: str) -> None:
    expected, found = (
        {key: values for key, values in predicted(folder / run).items() if key[0] in ids} for run in (one, other)
    )
    assert {key[0] for key in found} == set(ids)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-6, err_msg=str(key))


def scores(folder: Path) -> dict[str, str]:
    with (folder / "test_series.csv").open(newline="") as file:
        return {row["id"]: row["nse"] for row in csv.DictReader(file)}


LSTM = {"class_path": "LSTM", "init_args": {"hidden": 4, "series_scores": True}}
NLINEAR = {"class_path": "NLinear", "init_args": {"series_scores": True}}
BEST = ("--ckpt_path", "run/checkpoints/best.ckpt")


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (LSTM, {"statics": ["word", "size"], "scale_by": "series", "unknown": "own_column", "future": ["kind"]}),
        (NLINEAR, {"observed_inputs": True, "residency": "stream", "memory_budget": "1MB"}),
    ],
)
def test_commands_forecast_and_score_the_series_of_another_store_as_those_of_the_first(
    app: App, tmp_path: Path, model: dict[str, Any], data: dict[str, Any]
) -> None:
    configure(tmp_path / "fit.yaml", {"store": str(store(tmp_path / "1.zarr", "abcd")), **data}, model)
    renamed = {**data, "channels": ["kind", "flow", "rain"], **({"statics": ["size", "word"]} if model is LSTM else {})}
    configure(tmp_path / "other.yaml", {"store": str(another(tmp_path / "2.zarr")), **renamed}, model)
    app("fit", "--config", "fit.yaml", check=True)
    for command in ("predict", *(["test"] if model is LSTM else [])):
        app(command, "--config", "fit.yaml", check=True)
        app(command, "--config", "other.yaml", *BEST, "--trainer.default_root_dir", "other", check=True)
    assert_same_forecasts(tmp_path, "run", "other", "bd")
    if model is LSTM:
        first, second = scores(tmp_path / "run"), scores(tmp_path / "other")
        assert [float(second[id_]) for id_ in "bd"] == pytest.approx([float(first[id_]) for id_ in "bd"], rel=1e-5)


PATCHES = {"depth": 0, "leaf_size": 2, "layers": 1, "input_width": 4, "node_width": 4, "time_width": 4}


def test_commands_use_weights_of_nodes_for_the_panel_they_were_fitted_to_and_for_no_other(
    app: App, tmp_path: Path
) -> None:
    data = {
        "store": str(store(tmp_path / "1.zarr", "abcd")),
        "panel": {"ids": ["b", "d"], "positions": ["north", "east"]},
        "time_features": ["day_of_week", "day_of_year"],
        "time_encoding": "index",
        "channels": ["flow", "rain"],
    }
    model = {"class_path": "PatchSTG", "init_args": PATCHES}
    configure(tmp_path / "fit.yaml", data, model)
    app("fit", "--config", "fit.yaml", check=True)
    app("predict", "--config", "fit.yaml", check=True)
    other = {**data, "store": str(another(tmp_path / "2.zarr"))}

    def predict(*ids: str) -> subprocess.CompletedProcess[str]:
        panel = {"ids": list(ids), "positions": ["north", "east"]}
        configure(tmp_path / "other.yaml", {**other, "panel": panel}, model)
        return app("predict", "--config", "other.yaml", *BEST, "--trainer.default_root_dir", "other")

    strange = predict("d", "e")
    assert strange.returncode == 2
    assert "1 series of the panel that the model has never seen ('e')" in strange.stderr
    assert predict("b", "d", "e").returncode == 2
    assert predict("b").returncode == 2
    assert not (tmp_path / "other" / "predictions.zarr").exists()
    assert predict("d", "b").returncode == 0
    assert_same_forecasts(tmp_path, "run", "other", "bd")


def test_a_fit_goes_on_with_the_meaning_it_began_with_though_the_store_has_grown(app: App, tmp_path: Path) -> None:
    path = store(tmp_path / "1.zarr", "bcd")
    configure(tmp_path / "fit.yaml", {"store": str(path), "statics": ["word", "size"]}, LSTM)
    app("fit", "--config", "fit.yaml", check=True)
    before = state(tmp_path)
    grow(path, "ae", static=write_table(tmp_path / "later.csv", ["id", *STATICS], statics("ae")))
    compact(path)
    again = ("fit", "--config", "fit.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    app(*again, check=True)
    after = state(tmp_path)
    assert after["meaning"] == before["meaning"]
    assert after["scaler"] == before["scaler"]
    assert (len(before["trained_on"]["ids"]), len(after["trained_on"]["ids"])) == (3, 5)


def test_a_fit_does_not_go_on_over_words_and_series_that_it_cannot_know(app: App, tmp_path: Path) -> None:
    words, series = (store(tmp_path / name, "bcd") for name in ("words.zarr", "series.zarr"))
    for path, options in ((words, {}), (series, {"scale_by": "series"})):
        configure(tmp_path / "fit.yaml", {"store": str(path), **options}, LSTM, default_root_dir=path.stem)
        app("fit", "--config", "fit.yaml", check=True)
        grow(path, "e", words="aaa" if path is words else "mzk")
        refused = app("fit", "--config", "fit.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "2")
        assert refused.returncode == 2
        assert ("words of 'kind'" if path is words else "series without a scaler") in refused.stderr
        assert ("('a')" if path is words else "('e')") in refused.stderr


def state(folder: Path) -> dict[str, Any]:
    checkpoint = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["WindowDataModule"]  # type: ignore[no-any-return]


def module(path: Path, **options: Any) -> WindowDataModule:
    chosen: dict[str, Any] = {"channels": ["rain", "flow"], "targets": ["flow"], "batch_size": 1000, **options}
    return WindowDataModule(str(path), 4, 2, split=Split(dates=tuple(DATES)), cache=str(path.parent / "c"), **chosen)  # type: ignore[arg-type]  # four


def old_state(data: WindowDataModule) -> dict[str, Any]:
    """What a checkpoint had before it said what its columns mean."""
    kinds = [[name, data.scaler_kind] for name in data.columns]
    members = data.view.members
    key: list[Any] = [data.store.schema.uuid, data.store.version, data.split.digest(), kinds, data.scale_by]
    key += [] if members is None else [np.flatnonzero(members).tolist()]
    fitted = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    scaler = {**data.scaler.to_json(), "fitted_on": fitted}
    times = [np.datetime64(date, "s").astype(np.int64) for date in DATES[:2]]
    trained = {"start": torch.tensor(times[:1]), "stop": torch.tensor(times[1:]), "unit": "s"}
    return {"scaler": scaler, "fitted_on": fitted, "split": data.split.digest(), "trained_on": trained}


def windows(data: WindowDataModule) -> dict[tuple[str, int], torch.Tensor]:
    batch = next(iter(data.predict_dataloader()))
    keys = zip(data.store.ids[batch["series"]].tolist(), batch["time"].tolist(), strict=True)
    return dict(zip(keys, batch["x"], strict=True))


def test_a_checkpoint_without_meanings_is_used_on_its_store_and_on_later_versions_of_it(tmp_path: Path) -> None:
    path = store(tmp_path / "1.zarr", "bcd")
    first = module(path)
    expected, recorded = windows(first), old_state(first)
    same = module(path)
    same.load_state_dict(recorded)
    grow(path, "ae")
    compact(path)
    grown = module(path)
    grown.load_state_dict(recorded)
    for data in (same, grown):
        found = windows(data)
        for key, values in expected.items():
            assert torch.equal(found[key], values)
    assert len(windows(grown)) == 5 * len(expected) // 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"channels": ["rain", "kind"]}, "words of channel 'kind'"),
        ({"statics": ["size"]}, "static attributes"),
        ({"future": ["rain"]}, "channels known in advance"),
        ({"observed_inputs": True}, "observed inputs"),
        ({"scale_by": "series"}, "a scaler by series"),
        ({"time_features": ["day_of_week"]}, "time features"),
    ],
)
def test_a_checkpoint_without_meanings_is_refused_where_names_do_not_say_enough(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    data = module(store(tmp_path / "1.zarr", "bcd"), **options)
    with pytest.raises(UsageError, match=f"does not say what was meant by .*{named}"):
        data.load_state_dict(old_state(data))


def test_a_checkpoint_without_meanings_is_refused_on_another_store_or_with_another_scaler(tmp_path: Path) -> None:
    path = store(tmp_path / "1.zarr", "bcd")
    recorded = old_state(module(path))
    for other in (module(store(tmp_path / "2.zarr", "bcd")), module(path, scaler="minmax")):
        with pytest.raises(UsageError, match=r"of another store or with another --data\.scaler"):
            other.load_state_dict(recorded)
    with pytest.raises(UsageError, match="checkpoint trained on channels rain, flow"):
        module(path, channels=["flow", "rain"], targets=["rain"]).load_state_dict(recorded)
    assert open_store(path).version == 1
