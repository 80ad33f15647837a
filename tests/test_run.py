"""`run` is fit, test and predict in one process: the same files, the same bytes of numbers, the same errors."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import write_table
from pytorch_lightning.cli import LightningArgumentParser

from zstore import Store, append, ingest, open_store

Run = Callable[..., subprocess.CompletedProcess[str]]
App = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own warnings are theirs to fix

INTERRUPT = """
import os, signal
import pytorch_lightning as pl

class Interrupt(pl.Callback):
    def on_test_start(self, trainer, model):
        os.kill(os.getpid(), signal.SIGINT)
"""


def config(path: Path, store: Store, model: str = "MLP", **trainer: Any) -> Path:
    document: dict[str, Any] = {
        "data": {
            "store": str(store.path),
            "lookback": 24,
            "horizon": 4,
            "batch_size": 64,
            "split": {"sizes": [1400, 300, 300]},
            "cache": str(path.parent / "cache"),
        },
        "model": {"class_path": model, **({"init_args": {"dropout": 0.2}} if model == "MLP" else {})},
        "trainer": {"max_epochs": 2, "limit_train_batches": 8, "accelerator": "cpu", **trainer},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """What a run folder holds, by name, but for logs, which have times in them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tfevents" not in path.name and path.name != "metrics.csv"
    }


def require_equal(one: Path, other: Path) -> None:
    """Assert that two run folders hold the same, weights bit for bit."""
    ours, theirs = files_of(one), files_of(other)
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        if name.endswith(".ckpt"):
            weights = [torch.load(folder / name, weights_only=True)["state_dict"] for folder in (one, other)]
            assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
        elif not name.endswith((".yaml", ".png")):
            assert ours[name] == theirs[name], name
    for name in ("config.yaml", "logs/config.yaml"):
        if name in ours:
            assert ours[name].replace(bytes(one), b"") == theirs[name].replace(bytes(other), b""), name


def test_a_run_leaves_what_three_commands_leave(run: Run, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "m.yaml", hourly)
    for command in ("fit", "test", "predict"):
        words = ("--config", "m.yaml", "--trainer.default_root_dir", str(tmp_path / "three"))
        run("lightning_app", command, *words, check=True)
    words = ("--config", "m.yaml", "--trainer.default_root_dir", str(tmp_path / "one"))
    done = run("lightning_app", "run", *words, check=True)
    assert "fitted 2 epochs" in done.stdout
    assert "args parameter" not in done.stderr
    require_equal(tmp_path / "one", tmp_path / "three")


@pytest.mark.long
def test_a_run_on_two_processes_leaves_what_three_commands_leave(run: Run, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "m.yaml", hourly, strategy="ddp", devices=2)
    for command in ("fit", "test", "predict"):
        words = ("--config", "m.yaml", "--trainer.default_root_dir", str(tmp_path / "three"))
        run("lightning_app", command, *words, check=True)
    run("lightning_app", "run", "--config", "m.yaml", "--trainer.default_root_dir", str(tmp_path / "one"), check=True)
    require_equal(tmp_path / "one", tmp_path / "three")


def test_a_run_that_goes_on_from_a_checkpoint_tests_what_it_fitted_then(
    app: App, hourly: Store, tmp_path: Path
) -> None:
    config(tmp_path / "m.yaml", hourly)
    app("fit", "--config", "m.yaml", check=True)
    first = torch.load(tmp_path / "runs/m/checkpoints/last.ckpt", weights_only=True)["global_step"]
    app("run", "--config", "m.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "3", check=True)
    assert torch.load(tmp_path / "runs/m/checkpoints/last.ckpt", weights_only=True)["global_step"] > first
    found = (tmp_path / "runs/m/test_metrics.json").read_bytes()
    app("test", "--config", "m.yaml", check=True)
    assert (tmp_path / "runs/m/test_metrics.json").read_bytes() == found


def test_a_run_of_a_model_with_nothing_to_fit_says_so_and_tests_it(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "r.yaml", hourly, "Repeat")
    done = app("run", "--config", "r.yaml", check=True)
    assert "no fit, for Repeat has nothing to fit" in done.stdout
    folder = tmp_path / "runs" / "r"
    assert json.loads((folder / "test_metrics.json").read_text())["n_windows"] == 297
    assert (folder / "predictions.zarr").is_dir()
    assert not (folder / "checkpoints").exists()


def test_predict_on_counts_for_the_predictions_of_a_run(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "r.yaml", hourly, "Repeat")
    done = app("run", "--config", "r.yaml", "--data.predict_on", "train", check=True)
    assert "Repeat on 297 test windows" in done.stdout
    assert "wrote the predictions of 1,373 windows" in done.stdout


def test_a_part_that_fails_ends_a_run_with_its_error_and_code(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "m.yaml", hourly)
    done = app("run", "--config", "m.yaml", "--data.split.sizes", "[1400, 300, 2]")
    assert done.returncode == 2
    assert "no window in test" in done.stderr
    folder = tmp_path / "runs" / "m"
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert not (folder / "test_metrics.json").exists()
    assert not (folder / "predictions.zarr").exists()


def test_what_a_later_part_would_refuse_is_refused_before_the_fit(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "m.yaml", hourly)
    done = app("run", "--config", "m.yaml", "--trainer.limit_predict_batches", "0")
    assert done.returncode == 2
    assert "predict with --trainer.limit_predict_batches 0" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_interrupted_in_its_test_predicts_nothing(run: Run, hourly: Store, tmp_path: Path) -> None:
    (tmp_path / "interrupt.py").write_text(INTERRUPT)
    config(tmp_path / "m.yaml", hourly, callbacks=[{"class_path": "interrupt.Interrupt"}])
    codes = [run("lightning_app", command, "--config", "m.yaml").returncode for command in ("run", "test")]
    assert codes == [130, 130]
    assert (tmp_path / "runs/m/checkpoints/best.ckpt").exists()
    assert not (tmp_path / "runs/m/predictions.zarr").exists()


def test_the_help_of_run_names_it_and_has_the_flags_of_fit(app: App) -> None:
    done = app("run", "--help-all", check=True)
    assert "run [-c CONFIG]" in done.stdout
    assert "in one process" in done.stdout
    assert "--data.lookback" in done.stdout


def test_flags_are_made_of_the_typed_command_alone(
    app: App, hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    plain = LightningArgumentParser.add_method_arguments

    def noted(parser: Any, klass: type, name: str, *args: Any, **kwargs: Any) -> Any:
        made.append(name)
        return plain(parser, klass, name, *args, **kwargs)

    monkeypatch.setattr(LightningArgumentParser, "add_method_arguments", noted)
    config(tmp_path / "r.yaml", hourly, "Repeat")
    app("test", "--config", "r.yaml", check=True)
    assert made == ["test"]


def test_a_run_scores_the_forecasts_that_were_kept_once_their_truth_is_in(app: App, tmp_path: Path) -> None:
    def rows(first: int, last: int) -> Path:
        lines = [["a", number, number % 24 + number % 7 / 10] for number in range(first, last)]
        return write_table(tmp_path / f"{first}.csv", ["id", "t", "v"], lines)

    ingest(rows(0, 400), tmp_path / "s.zarr", id="id", time="t")
    path = config(tmp_path / "c.yaml", open_store(tmp_path / "s.zarr"))
    document = yaml.safe_load(path.read_text())
    document["data"]["split"] = {"sizes": [0.6, 0.2, 0.2]}
    path.write_text(yaml.safe_dump(document))
    words = ("run", "--config", "c.yaml", "--data.predict_on", "future")
    app(*words, check=True)
    page = tmp_path / "runs" / "c" / "evaluation.json"
    scored = json.loads(page.read_text())
    assert (scored["n_forecasts"], scored["n_scored"], scored["n_waiting"]) == (1, 0, 1)
    append(rows(400, 404), tmp_path / "s.zarr")
    done = app(*words, check=True)
    scored = json.loads(page.read_text())
    assert (scored["n_forecasts"], scored["n_scored"], scored["n_waiting"]) == (2, 1, 1)
    assert "1 scored" in done.stdout


def test_a_run_of_a_table_scores_what_it_forecasts_against_the_store_that_is_made_of_it(
    app: App, tmp_path: Path
) -> None:
    write_table(tmp_path / "r.csv", ["id", "t", "v"], [["a", step, step % 7] for step in range(60)])
    data = {"store": "r.csv", "ingest": {"id": "id", "time": "t"}, "lookback": 4, "horizon": 2, "cache": "cache"}
    document = {"data": data, "model": {"class_path": "Repeat"}, "trainer": {"accelerator": "cpu"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(document))
    app("run", "--config", "c.yaml", "--data.predict_on", "future", check=True)
    with (tmp_path / "r.csv").open("a") as file:
        file.write("a,60,4\na,61,5\n")
    app("evaluate", "--config", "c.yaml", check=True)
    scored = json.loads((tmp_path / "runs" / "c" / "evaluation.json").read_text())
    assert (scored["n_forecasts"], scored["n_scored"], scored["n_waiting"]) == (1, 1, 0)
