"""Inputs that an adversary tried: zeros and constants that rounding passes for something else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import write_table
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_app.callbacks import FitReport
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.scaling.statics import static_matrix
from lightning_app.data.scaling.unscaler import Unscaler
from lightning_app.data.windows.splits import Split
from lightning_app.metrics import MaskedErrors, SeriesScores
from zstore import NotFiniteError, UsageError, ingest, open_store

App = Callable[..., subprocess.CompletedProcess[str]]


def make(folder: Path) -> Path:
    """A store of two series of 40 steps."""
    rows = [[id_, step, (step * 7) % 5 + number] for number, id_ in enumerate("pq") for step in range(40)]
    ingest(write_table(folder / "rows.csv", ["id", "t", "v"], rows), folder / "s.zarr", id="id", time="t")
    return folder / "s.zarr"


@pytest.mark.parametrize("value", [0.1, 0.3, 45.3, -7.77])
@pytest.mark.parametrize("sizes", [(11,), (97, 3), (333, 1000, 2)])
def test_targets_that_never_vary_have_no_finite_score_however_they_are_batched(
    value: float, sizes: tuple[int, ...]
) -> None:
    scores, errors = SeriesScores(2, 1), MaskedErrors(2, 1)
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        observed = torch.full((size, 2, 1), value, dtype=torch.float64)
        predicted = observed + torch.randn(observed.shape, generator=generator, dtype=torch.float64)
        mask = torch.ones_like(observed, dtype=torch.bool)
        scores.update(predicted, observed, mask, torch.zeros(size, dtype=torch.int64))
        errors.update(predicted, observed, mask)
    found = scores.compute()
    assert float(found["by_series"]["nse"][0, 0]) == -np.inf
    assert np.isnan(float(found["all"]["nse_median"]))
    assert float(errors.compute()["all"]["r2"]) == -np.inf


def test_a_forecast_that_never_varies_has_no_kge() -> None:
    scores = SeriesScores(1, 1)
    observed = torch.arange(1000, dtype=torch.float64).reshape(500, 2, 1)
    mask, series = torch.ones_like(observed, dtype=torch.bool), torch.zeros(500, dtype=torch.int64)
    scores.update(torch.full_like(observed, 0.1), observed, mask, series)
    assert np.isnan(float(scores.compute()["by_series"]["kge"]))


@pytest.mark.parametrize("log", [False, True])
def test_a_forecast_of_zero_is_zero_in_source_units(log: bool) -> None:
    rng = np.random.default_rng(0)
    offset, scale = rng.uniform(-50, 50, 200), rng.uniform(0.01, 50, 200)
    scaler = Scaler(tuple(map(str, range(200))), offset, scale, np.full(200, log))
    scaled = torch.from_numpy(-offset / scale).float()[None, None]
    zeros = Unscaler(scaler).to_source(scaled, torch.zeros(1, dtype=torch.int64))
    assert zeros.abs().max().item() == 0.0
    symmetric = MaskedErrors(1, 200)
    symmetric.update(zeros, torch.zeros_like(zeros), torch.ones_like(zeros, dtype=torch.bool))
    assert float(symmetric.compute()["all"]["smape"]) == 0.0


def test_a_forecast_near_zero_keeps_its_value_and_its_gradient() -> None:
    unscaler = Unscaler(Scaler(("a",), np.array([10.0]), np.array([2.0]), np.array([False])))
    scaled = torch.tensor([[[-5.0], [-4.999998]]], requires_grad=True)
    values = unscaler.to_source(scaled, torch.zeros(1, dtype=torch.int64))
    expected = scaled.detach().double() * 2 + 10
    torch.testing.assert_close(values.detach(), expected, rtol=0, atol=0)
    values.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(scaled.grad, torch.full_like(scaled, 2.0))


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("option", ["batch_size", "evaluation_stride"])
def test_sizes_of_batches_and_strides_of_an_evaluation_are_at_least_one(
    tmp_path: Path, option: str, number: int
) -> None:
    options: dict[str, Any] = {option: number}
    with pytest.raises(UsageError, match=f"{option} {number}; expected at least 1. Fix: change --data.{option}"):
        WindowDataModule(str(make(tmp_path)), 2, 1, cache=str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("size", [-0.1, np.nan])
def test_a_fraction_of_a_split_is_a_number_from_zero_on(size: float) -> None:
    with pytest.raises(UsageError, match="expected numbers, no negative ones"):
        Split(sizes=(0.6, size, 0.2))


def test_a_fit_with_fast_dev_run_leaves_the_checkpoints_of_an_earlier_fit_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"of an earlier fit")
    trainer: Any = pl.Trainer(
        fast_dev_run=True, accelerator="cpu", logger=False, callbacks=[ModelCheckpoint(dirpath=tmp_path)]
    )
    with caplog.at_level("INFO", logger="lightning_app"):
        FitReport().on_fit_end(trainer, pl.LightningModule())
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
    assert caplog.messages[-1] == "no checkpoint, for fast_dev_run saves none"


def test_a_static_attribute_beyond_float32_once_standardised_is_refused_by_name(tmp_path: Path) -> None:
    statics = write_table(tmp_path / "static.csv", ["id", "area"], [["p", "1e-30"], ["q", "0"], ["r", "1e10"]])
    rows = [[id_, step, step] for id_ in "pqr" for step in range(4)]
    table = write_table(tmp_path / "rows.csv", ["id", "t", "v"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", static=statics)
    split = Split(by="series", ids={"train": ["p", "q"], "test": ["r"]})
    with pytest.raises(NotFiniteError, match=r"1e\+10 in static attribute 'area' of series r, which is beyond float32"):
        static_matrix(open_store(tmp_path / "s.zarr"), split, ["area"])


@pytest.mark.parametrize(
    ("command", "split"), [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")]
)
@pytest.mark.filterwarnings("default")  # jsonargparse's and Lightning's own
def test_a_command_without_any_batch_is_refused(app: App, tmp_path: Path, command: str, split: str) -> None:
    words = ["--data.store", make(tmp_path), "--data.lookback", 2, "--data.horizon", 1, "--model", "Repeat"]
    done = app(command, *words, f"--trainer.limit_{split}_batches", 0)
    assert done.returncode == 2
    assert f"{command} with --trainer.limit_{split}_batches 0, which does nothing" in done.stderr


def infinite(folder: Path, id_: str, step: int) -> Path:
    """Three series of 40 steps, of which one has an infinite value of `w`."""
    rows = [[i, t, (t * 7) % 5, "inf" if (i, t) == (id_, step) else t % 3] for i in "abc" for t in range(40)]
    ingest(write_table(folder / "rows.csv", ["id", "t", "v", "w"], rows), folder / "s.zarr", id="id", time="t")
    return folder / "s.zarr"


@pytest.mark.parametrize("panel", [None, Panel(ids=["a", "b"])])
@pytest.mark.parametrize("step", [9, 21, 26, 33, 39])
def test_windows_that_read_an_infinite_input_are_refused_and_no_others(
    tmp_path: Path, step: int, panel: Panel | None
) -> None:
    path = infinite(tmp_path, "a", step)
    split = Split(sizes=(20, 8, 12), embargo=2)
    for future in (None, ["w"]):
        channels = ["v"] if future else ["v", "w"]
        options: dict[str, Any] = {"channels": channels, "targets": ["v"], "future": future, "scaler": "none"}
        data = WindowDataModule(str(path), 3, 2, split=split, panel=panel, cache=str(tmp_path / "c"), **options)
        bounds = {"train": (3, 20), "val": (22, 28), "test": (30, 40)}
        for name, (low, high) in bounds.items():
            firsts = range(low, high - 1)
            read = {first + n for first in firsts for n in (range(2) if future else range(-3, 0))}
            loader = getattr(data, f"{name}_dataloader")
            if step in read:
                with pytest.raises(NotFiniteError, match=rf"'w' that {name} windows read \(inf in a at {step}\)"):
                    loader()
            else:
                assert len(loader().index) == len(firsts) * (1 if panel else 3)


def test_an_infinite_input_of_another_store_is_not_forecast_from(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    options: dict[str, Any] = {"channels": ["w"], "targets": ["w"], "split": Split(sizes=(0.5, 0.2, 0.3))}
    first = WindowDataModule(str(infinite(tmp_path / "1", "z", 0)), 3, 2, cache=str(tmp_path / "c"), **options)
    other = WindowDataModule(str(infinite(tmp_path, "c", 33)), 3, 2, cache=str(tmp_path / "c"), **options)
    other.load_state_dict(first.state_dict())
    with pytest.raises(
        NotFiniteError, match=r"1 infinite values in channel 'w' that test windows read \(inf in c at 33"
    ):
        other.predict_dataloader()
