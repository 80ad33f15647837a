"""The whole way, by the commands a user types: fit, validate, test, predict."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import xarray
import yaml

from lightning_app.data.batches.phases import Phases
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.losses import MAE, NSE
from lightning_app.models import LSTM, Repeat
from lightning_app.monitor import Monitor
from zstore import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
App = Callable[..., subprocess.CompletedProcess[str]]

# Lightning's and jsonargparse's own warnings are theirs to fix; ours are errors in every other test.
pytestmark = pytest.mark.filterwarnings("default")

SPLIT = {"sizes": [1400, 300, 300]}


def config(path: Path, store: Store, model: str = "NLinear", **changes: dict[str, Any]) -> Path:
    document: dict[str, Any] = {
        "data": {
            "store": str(store.path),
            "lookback": 48,
            "horizon": 12,
            "batch_size": 32,
            "split": SPLIT,
            "cache": str(path.parent / "cache"),
        },
        "model": {"class_path": model},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }
    for section, values in changes.items():
        document.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(document))
    return path


def metrics(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "test_metrics.json").read_text())
    return document


def test_fit_then_test_beats_persistence_and_leaves_a_complete_run_folder(
    run: Run, hourly: Store, tmp_path: Path
) -> None:
    config(tmp_path / "repeat.yaml", hourly, "Repeat")
    config(tmp_path / "nlinear.yaml", hourly)
    run("lightning_app", "test", "--config", "repeat.yaml", check=True)
    fitted = run("lightning_app", "fit", "--config", "nlinear.yaml", check=True)
    assert "fitted 2 epochs" in fitted.stdout
    assert "best val/mse" in fitted.stdout
    tested = run("lightning_app", "test", "--config", "nlinear.yaml", check=True)
    assert "NLinear on 289 test windows: test/mse" in tested.stdout
    folder = tmp_path / "runs" / "nlinear"
    assert metrics(folder)["test/mse"] < metrics(tmp_path / "runs" / "repeat")["test/mse"]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "logs/metrics.csv"} <= names
    assert any(name.startswith("logs/events.out.tfevents") for name in names)
    run("lightning_app", "validate", "--config", "nlinear.yaml", check=True)


def test_persistence_has_the_error_of_its_formula_over_every_window_once(
    app: App, hourly: Store, tmp_path: Path
) -> None:
    config(tmp_path / "repeat.yaml", hourly, "Repeat")
    app("test", "--config", "repeat.yaml", check=True)
    rows = np.stack([hourly.read(name, 0, 2000).astype(np.float64) for name in hourly.channels], axis=1)
    scaled = (rows - rows[:1400].mean(axis=0)) / rows[:1400].std(axis=0)
    residuals = [scaled[t : t + 12] - scaled[t - 1] for t in range(1700, 2000 - 12 + 1)]
    found = metrics(tmp_path / "runs" / "repeat")
    assert found["n_windows"] == len(residuals) == 289
    assert found["test/mse"] == pytest.approx(np.mean(np.square(residuals)), abs=1e-6)
    assert found["test/mae"] == pytest.approx(np.mean(np.abs(residuals)), abs=1e-6)


def test_two_processes_give_the_metrics_and_predictions_of_one(run: Run, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "repeat.yaml", hourly, "Repeat", data={"batch_size": 36})
    two = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.default_root_dir", "two")
    for command in ("test", "predict"):
        run("lightning_app", command, "--config", "repeat.yaml", check=True)
        run("lightning_app", command, "--config", "repeat.yaml", *two, check=True)
    one, other = metrics(tmp_path / "runs" / "repeat"), metrics(tmp_path / "two")
    for name in ("test/mse", "test/mae", "test/rmse"):
        assert one[name] == pytest.approx(other[name], abs=1e-6)
    stores = [
        xarray.open_zarr(folder / "predictions.zarr") for folder in (tmp_path / "runs" / "repeat", tmp_path / "two")
    ]
    xarray.testing.assert_equal(*(store.load() for store in stores))


def test_fitting_on_two_processes_trains_on_the_same_global_batches(run: Run, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly, trainer={"max_epochs": 1}, data={"batch_size": 64})
    run("lightning_app", "fit", "--config", "n.yaml", check=True)
    two = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.default_root_dir", "two")
    run("lightning_app", "fit", "--config", "n.yaml", *two, check=True)
    folders = (tmp_path / "runs" / "n", tmp_path / "two")
    one, other = (torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in folders)
    for name, weights in one.items():
        torch.testing.assert_close(weights, other[name], rtol=1e-4, atol=1e-5)


def test_predictions_joined_to_the_source_by_id_and_time_give_the_test_error(
    app: App, catchments: Store, tmp_path: Path
) -> None:
    data = {"lookback": 20, "horizon": 3, "targets": ["flow_mm"], "split": {"sizes": [0.6, 0.2, 0.2]}}
    config(tmp_path / "r.yaml", catchments, "LSTM", data=data, trainer={"max_epochs": 1, "limit_train_batches": 5})
    app("fit", "--config", "r.yaml", check=True)
    app("test", "--config", "r.yaml", check=True)
    predicted = app("predict", "--config", "r.yaml", check=True)
    folder = tmp_path / "runs" / "r"
    assert "predictions.zarr" in predicted.stdout
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    forecast = xarray.open_zarr(folder / "predictions.zarr")
    about = forecast["flow_mm"].attrs
    ids = np.broadcast_to(forecast["id"].values.astype(object)[:, None], forecast["time"].shape)
    joined = pd.DataFrame(
        {
            "gauge_id": ids.ravel(),
            "date": forecast["time"].values.ravel(),
            "predicted": forecast["flow_mm"].values.ravel(),
        }
    )
    source = pd.read_csv(
        Path(catchments.path).parent / "catchments.csv", dtype={"gauge_id": str}, parse_dates=["date"]
    ).astype({"date": "datetime64[ns]"})
    joined = joined.merge(source, on=["gauge_id", "date"], how="left", validate="many_to_one")
    residual = ((joined["predicted"] - joined["flow_mm"]) / about["scaler_scale"]).dropna()
    assert np.mean(residual**2) == pytest.approx(metrics(folder)["test/mse"], rel=1e-5)


def test_a_fit_stopped_early_says_so(app: App, hourly: Store, tmp_path: Path) -> None:
    stopping = {"patience": 1, "min_delta": 10.0}
    config(tmp_path / "n.yaml", hourly, trainer={"max_epochs": 20}, early_stopping=stopping)
    fitted = app("fit", "--config", "n.yaml", check=True)
    assert "stopped early after 2 epochs: val/mse did not improve" in fitted.stdout


def test_a_mixed_precision_fit_completes(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly, "LSTM", trainer={"precision": "bf16-mixed", "limit_train_batches": 3})
    assert "fitted 2 epochs" in app("fit", "--config", "n.yaml", check=True).stdout


def leaves(value: Any) -> Iterator[Any]:
    """What stands in dictionaries and sequences, however deep."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def test_checkpoints_hold_nothing_but_tensors_and_plain_values(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly, trainer={"limit_train_batches": 2, "max_epochs": 1})
    app("fit", "--config", "n.yaml", check=True)
    checkpoint = torch.load(tmp_path / "runs" / "n" / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["lightning_app"]["model"] == "NLinear"
    assert checkpoint["WindowDataModule"]["scaler"]["channels"] == ["a", "b", "c"]
    (loader,) = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert (loader["epoch"], loader["consumed"]) == (0, 2)
    assert loader["order"]["n_windows"] == 1341
    kinds = {type(value) for value in leaves({**checkpoint, "state_dict": {}})}
    assert kinds <= {int, float, bool, str, type(None), torch.Tensor}


def test_a_fit_goes_on_from_its_last_checkpoint(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly, trainer={"max_epochs": 2})
    app("fit", "--config", "n.yaml", check=True)
    whole = torch.load(tmp_path / "runs" / "n" / "checkpoints" / "last.ckpt")["state_dict"]
    half = ("--trainer.default_root_dir", "half")
    app("fit", "--config", "n.yaml", *half, "--trainer.max_epochs", "1", check=True)
    app("fit", "--config", "n.yaml", *half, "--ckpt_path", "last", check=True)
    resumed = torch.load(tmp_path / "half" / "checkpoints" / "last.ckpt")["state_dict"]
    for name, weights in whole.items():
        assert torch.equal(weights, resumed[name]), name


def refused(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in done.stderr


def test_what_cannot_work_is_told_in_one_line(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly, trainer={"limit_train_batches": 2, "max_epochs": 1})
    no_checkpoint = app("test", "--config", "n.yaml")
    refused(no_checkpoint, 2, "no checkpoint (runs/n/checkpoints/best.ckpt)", "fit first")
    app("fit", "--config", "n.yaml", check=True)
    misfit = app("test", "--config", "n.yaml", "--data.lookback", "24")
    refused(misfit, 2, "checkpoint with lookback 48; expected 24")
    other = app("test", "--config", "n.yaml", "--model", "DLinear")
    refused(other, 2, "checkpoint with model NLinear; expected DLinear")
    channels = app("test", "--config", "n.yaml", "--data.channels", "[c,a]")
    refused(channels, 2, "checkpoint trained on channels a, b, c; expected those of this configuration: c, a")
    long = app("fit", "--config", "n.yaml", "--data.lookback", "4000")
    refused(long, 2, "need 4,012 rows; expected at most 2,000 rows")
    nothing = app("fit", "--config", "n.yaml", "--model", "Repeat")
    refused(nothing, 2, "Repeat has nothing to fit")
    absent = app("fit", "--config", "n.yaml", "--data.store", "nowhere.zarr")
    refused(absent, 1, "no store (nowhere.zarr)")
    overlap = app("fit", "--config", "n.yaml", "--data.split.sizes", "[0.9,0.2,0.1]")
    refused(overlap, 2, "overlap")


def test_a_configuration_with_an_optimizer_is_tested_with_the_last_value_too(
    app: App, hourly: Store, tmp_path: Path
) -> None:
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}
    config(tmp_path / "nlinear.yaml", hourly, "NLinear", optimizer=adam)
    done = app("test", "--config", "nlinear.yaml", "--model", "Repeat", check=True)
    assert "Repeat on 289 test windows" in done.stdout


def test_a_fit_may_end_before_its_first_validation(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "nlinear.yaml", hourly)
    done = app("fit", "--config", "nlinear.yaml", "--trainer.max_steps", 2, check=True)
    assert "fitted 1 epoch, 2 steps" in done.stdout


def test_a_metric_to_stop_by_that_there_is_not_ends_the_fit(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "nlinear.yaml", hourly)
    with pytest.raises(RuntimeError, match="val/mistyped"):
        app("fit", "--config", "nlinear.yaml", "--early_stopping.monitor", "val/mistyped")


def test_a_quiet_fit_prints_nothing(run: Run, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "nlinear.yaml", hourly)
    done = run("lightning_app", "fit", "--config", "nlinear.yaml", "--trainer.max_epochs", 1, "--quiet", check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "3000"),
        pytest.param({"GOMP_SPINCOUNT": "7"}, "7", marks=pytest.mark.long),
        pytest.param({"OMP_WAIT_POLICY": "ACTIVE"}, "None", marks=pytest.mark.long),
    ],
)
def test_threads_of_torch_wait_asleep_unless_told_otherwise(given: dict[str, str], found: str) -> None:
    code = (
        "import atexit, os, sys; sys.argv[1:] = ['table', '--help']; from lightning_app.__main__ import main\n"
        "atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT')))\n"
        "main()"
    )
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **given}, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == found


def test_debug_shows_the_traceback(run: Run, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly)
    assert "Traceback" in run("lightning_app", "test", "--config", "n.yaml", "--debug").stderr


def test_help_lists_what_the_data_can_be_told(app: App) -> None:
    text = app("fit", "--help-all", check=True).stdout
    for flag in ("--data.lookback", "--data.split.sizes", "--data.statics", "--early_stopping.patience", "--ckpt_path"):
        assert flag in text
    assert "--model.shape" not in text


def test_help_says_when_the_last_checkpoint_is_saved(app: App) -> None:
    words = " ".join(app("fit", "--help-all", check=True).stdout.split())
    asked = words.partition("--checkpoint.save_last SAVE_LAST ")[2].partition(" --checkpoint.")[0]
    assert "whether or not the metric improved" in asked


def test_a_fit_that_is_told_no_number_of_epochs_ends_with_its_validation_and_warns_of_nothing(
    app: App, hourly: Store, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    few = {"max_epochs": None, "limit_train_batches": 1, "limit_val_batches": 1}
    config(tmp_path / "n.yaml", hourly, trainer=few, early_stopping={"patience": 1})
    fitted = app("fit", "--config", "n.yaml", "--optimizer", "SGD", "--optimizer.lr", 100, check=True)
    assert "stopped early after 2 epochs" in fitted.stdout
    assert [str(each.message) for each in recwarn if "max_epochs" in str(each.message)] == []


def test_a_fit_logs_its_speed_its_waiting_and_its_memory(app: App, hourly: Store, tmp_path: Path) -> None:
    config(tmp_path / "n.yaml", hourly, trainer={"max_epochs": 2, "log_every_n_steps": 5})
    fitted = app("fit", "--config", "n.yaml", check=True)
    assert re.search(r"steps +windows/s +waiting for data +between steps +precision +peak RSS +PSS now", fitted.stdout)
    assert re.search(r"\d+ +[1-9][\d,]* +\d+\.\d% +\d+\.\d% +32-true +\d\.\d\d GB", fitted.stdout)
    logged = pd.read_csv(tmp_path / "runs/n/logs/metrics.csv")
    speed, share = logged["perf/windows_per_s"].dropna(), logged["perf/wait_share"].dropna()
    assert len(speed) > 2
    assert (speed > 0).all()
    assert share.between(0, 1).all()
    assert (logged["perf/pss_gb"].dropna() <= logged["perf/rss_gb"].dropna() * 1.01).all()


@pytest.mark.parametrize(("told", "shares"), [(None, (0.5, 0.0)), (0.75, (0.375, 0.125))])
def test_waiting_is_what_the_loader_tells_and_else_all_time_between_steps(
    monkeypatch: pytest.MonkeyPatch, told: float | None, shares: tuple[float, float]
) -> None:
    clock = iter(float(n) for n in range(1000))
    monkeypatch.setattr("lightning_app.monitor.perf_counter", lambda: next(clock))
    monkeypatch.setattr("lightning_app.monitor.memory", lambda trainer: {})
    monitor = Monitor()
    phases = Phases()
    loader = SimpleNamespace() if told is None else SimpleNamespace(phases=phases)
    trainer = SimpleNamespace(world_size=2, global_step=1, log_every_n_steps=10, loggers=[], train_dataloader=loader)
    batch = {"time": torch.zeros(8)}
    monitor.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    for _ in range(10):
        phases.wait_s += told or 0.0
        monitor.on_train_batch_start(trainer, None, batch, 0)  # type: ignore[arg-type]
        monitor.on_train_batch_end(trainer, None, None, batch, 0)  # type: ignore[arg-type]
    # Each batch: one second until it starts, one in the step, one until the next begins to be waited for.
    assert (monitor.total.n_batches, monitor.total.n_windows) == (7, 7 * 16)
    found = monitor.total.figures()
    assert found["perf/windows_per_s"] == 7 * 16 / 14
    assert (found["perf/wait_share"], found["perf/between_share"]) == shares


def test_a_test_draws_forecasts_errors_by_step_and_scores_and_sums_the_run_up(
    catchments: Store, tmp_path: Path, app: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    document = {
        "data": {
            "store": catchments.path,
            "lookback": 10,
            "horizon": 3,
            "channels": ["flow_mm"],
            "cache": str(tmp_path / "cache"),
        },
        "model": {"class_path": "Repeat", "init_args": {"units": "source", "series_scores": True}},
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "drawn.yaml").write_text(yaml.safe_dump(document))
    app("test", "--config", "drawn.yaml", check=True)
    folder = tmp_path / "runs" / "drawn"
    page = (folder / "summary.md").read_text()
    found = json.loads((folder / "test_metrics.json").read_text())
    assert f"| mse | {found['test/mse']:.4f} |" in page
    assert "# Repeat on catchments.zarr" in page
    drawn = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert drawn == ["forecast.png", "error_by_step.png"]
    for name in drawn:
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    assert list((folder / "logs").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("panel", [None, Panel()])
def test_a_data_module_that_a_test_used_first_can_be_fitted_with(
    catchments: Store, tmp_path: Path, panel: Panel | None
) -> None:
    """Lightning tests in inference mode, whose tensors no gradient may need."""
    options: dict[str, Any] = {"channels": ["flow_mm"], "statics": [catchments.statics[0].name], "panel": panel}
    data = WindowDataModule(catchments.path, 10, 3, cache=str(tmp_path), **options)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", enable_model_summary=False, max_epochs=1, limit_train_batches=2, **quiet)
    trainer.test(Repeat(data.shape, units="source"), datamodule=data, verbose=False)
    for loss, units in ((MAE(), "source"), (NSE(), "scaled")):
        model = LSTM(data.shape, hidden=4, loss=loss, loss_units=units)
        before = [weight.clone() for weight in model.parameters()]
        trainer = pl.Trainer(
            accelerator="cpu", enable_model_summary=False, max_epochs=1, limit_train_batches=2, **quiet
        )
        trainer.fit(model, datamodule=data)
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_model_that_was_validated_can_be_fitted(catchments: Store, tmp_path: Path) -> None:
    """What it measured in inference mode is no part of what the fit measures."""
    data = WindowDataModule(catchments.path, 10, 3, cache=str(tmp_path))
    model = LSTM(data.shape, hidden=4, series_scores=True, mase_season=5)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", enable_model_summary=False, max_epochs=1, limit_train_batches=2, **quiet)
    (before,) = trainer.validate(model, datamodule=data, verbose=False)
    trainer.fit(model, datamodule=data)
    assert before["val/mse"] != trainer.callback_metrics["val/mse"].item() > 0


def test_a_fit_in_bfloat16_trains_in_float32_on_a_cpu_without_it(
    run: Callable[..., subprocess.CompletedProcess[str]], hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")  # heeded on x86 alone; elsewhere the machine is what it is
    config(tmp_path / "n.yaml", hourly, "LSTM", trainer={"precision": "bf16-mixed", "limit_train_batches": 5})
    fitted = run("lightning_app", "fit", "--config", "n.yaml", check=True)
    precision = "bf16-mixed" if "precision 32-true instead" not in fitted.stdout else "32-true"
    assert re.search(rf"precision .*\n.* {precision} ", fitted.stdout)
    if platform.machine() in ("x86_64", "AMD64"):
        assert precision == "32-true"
