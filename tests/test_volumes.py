"""Volumes listed by a table: from files to classes and values; models of volumes, and what is drawn for training."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray
import yaml
from conftest import REPOSITORY, write_table
from hypothesis import given
from hypothesis import strategies as st
from scans import CHAIN, write_scans
from sklearn.metrics import roc_auc_score

from lightning_app.audit import audit
from lightning_app.batch import Batch, BatchShape
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.windows.leaks import check_trained, joined
from lightning_app.export.export import Export, export_model
from lightning_app.look.volumes import volumes
from lightning_app.models import CNN3D, Ensemble, ResNet3D
from lightning_app.models.draws import uniform
from lightning_app.tasks import Classification, MultiTask
from zstore import NotFiniteError, Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("default")

App = Callable[..., subprocess.CompletedProcess[str]]
BY_PATIENT = Split(by="series", group="patient", sizes=(0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """39 scans of 20 patients through the recipe for them, made smaller."""
    folder = tmp_path_factory.mktemp("scans")
    recipe = yaml.safe_load((REPOSITORY / "configs" / "ingest" / "ct_cardiac.yaml").read_text())
    ingest(write_scans(folder), folder / "ct.zarr", **{**recipe, "file_root": folder, "file_chain": {"scan": CHAIN}})
    return open_store(folder / "ct.zarr")


def module(store: Store, **options: Any) -> WindowDataModule:
    usual: dict[str, Any] = {
        "lookback": 1, "horizon": 1, "delay": -1, "channels": ["age"], "fields": {"scan": 1}, "batch_size": 8,
        "targets": ["disease", "ejection_fraction"], "classes": ["disease"], "split": BY_PATIENT,
    }  # fmt: skip
    return WindowDataModule(str(store.path), **{**usual, "cache": str(Path(store.path).parent / "cache"), **options})


def config(store: Store, folder: Path, **model: Any) -> str:
    """A configuration without any input channel."""
    task = {"class_path": "MultiTask", "init_args": {"class_weights": "balanced"}}
    document = {
        "data": {
            "store": str(store.path), "lookback": 1, "horizon": 1, "delay": -1,
            "fields": {"scan": {"crop": [28, 28, 20]}},
            "targets": ["disease", "ejection_fraction"], "classes": ["disease"], "batch_size": 8,
            "split": {"by": "series", "group": "patient", "sizes": [0.6, 0.2, 0.2]}, "cache": str(folder / "cache"),
        },
        "model": {
            "class_path": "CNN3D",
            "init_args": {
                "widths": [8, 16, 16], "flips": ["x", "y"], "intensity_scale": 0.1, "intensity_shift": 0.1, **model,
                "task": task,
            },
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "deterministic": True},
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(document))
    return "c.yaml"


def test_a_patient_is_in_one_split_however_the_split_is_told(scans: Store, tmp_path: Path) -> None:
    patients = np.array([id_.split("/")[0] for id_ in scans.ids])
    for split in (BY_PATIENT, Split(by="series", group="patient", folds=4, fold=1)):
        data = module(scans, split=split)
        members = {name: set(patients[data.index(name).series]) for name in ("train", "val", "test")}
        assert sum(map(len, members.values())) == len(set.union(*members.values()))
        assert "nor does a patient: 20 compared" in str(audit(data))
    with pytest.raises(UsageError, match=r"patient p\d\d in both train and (val|test)"):
        audit(
            module(
                scans, split=Split(by="series", group="patient", ids={"train": [scans.ids[1]], "test": [scans.ids[2]]})
            )
        )
    with pytest.raises(UsageError, match="split group by time; expected none"):
        Split(group="patient")
    with pytest.raises(UsageError, match="21 folds of 20 values of patient"):
        audit(module(scans, split=Split(by="series", group="patient", folds=21)))


def test_no_channels_are_none_and_channels_that_are_not_named_are_all_numbers_but_targets(scans: Store) -> None:
    only_disease: dict[str, Any] = {"targets": ["disease"], "classes": ["disease"]}
    assert module(scans, channels=None, **only_disease).inputs == ["ejection_fraction", "age"]
    none = module(scans, channels=[], **only_disease)
    assert none.inputs == []
    assert next(iter(none.loaders.in_order(none.proved("train", 1))))["x"].shape == (8, 1, 0)
    with pytest.raises(UsageError, match="no input channel, and no field"):
        module(scans, channels=[], fields={}, **only_disease)


def test_a_model_that_reads_a_scan_and_no_channel_gives_the_same_as_a_file(scans: Store, tmp_path: Path) -> None:
    data = module(scans, channels=[])
    model = CNN3D(data.shape, (4,), task=MultiTask())
    assert export_model(model, data, Export(windows=5), tmp_path).difference <= 1e-5


def test_a_model_is_not_tested_on_patients_of_its_training_whatever_their_studies_are_called(tmp_path: Path) -> None:
    def studies(name: str, patients: range, **split: Any) -> WindowDataModule:
        rows = [[f"p{number}", name, number, number % 7] for number in patients]
        table = write_table(tmp_path / f"{name}.csv", ["patient", "study", "age", "ef"], rows)
        if not (tmp_path / f"{name}.zarr").exists():
            ingest(table, tmp_path / f"{name}.zarr", id=["patient", "study"], freq="1")
        usual: dict[str, Any] = {"lookback": 1, "horizon": 1, "delay": -1, "channels": ["age"], "targets": ["ef"]}
        split = {"by": "series", "group": "patient", **split}
        return WindowDataModule(
            str(tmp_path / f"{name}.zarr"), **usual, split=Split(**split), cache=str(tmp_path / "cache")
        )

    first = {"train": ["p0/*", "p1/*", "p2/*"], "test": ["p3/*", "p4/*"]}
    fitted = studies("first", range(5), ids=first).state_dict()
    check_trained(fitted["trained_on"])
    others = studies("second", range(2, 9), ids={"test": ["p3/*", "p8/*"]})
    others.take(fitted, panels=False)
    assert len(others.proved("test", 1)) == 2
    known = {"train": ["p8/*"], "test": ["p2/*", "p3/*"]}
    again = studies("second", range(2, 9), ids=known)
    again.take(fitted, panels=False)
    with pytest.raises(UsageError, match=r"trained on other series of patient p2, which is in test here; .* of 1 such"):
        again.proved("test", 1)
    apart = studies("second", range(2, 9), ids=known, group=None)
    apart.take(fitted, panels=False)
    assert len(apart.proved("test", 1)) == 2  # who may be the same was not said
    later = studies("second", range(2, 9), ids=known).state_dict()["trained_on"]
    both = joined(fitted["trained_on"], later)
    assert set(both["groups"].tolist()) == {*fitted["trained_on"]["groups"].tolist(), *later["groups"].tolist()}
    with pytest.raises(UsageError, match="does not say which groups it was trained on"):
        check_trained({**both, "groups": both["groups"].float()})


@pytest.mark.parametrize("model", [CNN3D, ResNet3D, Ensemble])
def test_models_read_a_volume_and_what_stands_beside_it(scans: Store, model: Any) -> None:
    data = module(scans)
    options: dict[str, Any] = {"member": "CNN3D", "members": 2} if model is Ensemble else {"pool": 2}
    options |= {} if model is Ensemble else {"flips": ["x", "z"], "dropout": 0.1}
    net = model(data.shape, task=MultiTask(), **options)
    batch = next(iter(data.train_dataloader()))
    out = net(batch) if model is not Ensemble else net.eval()(batch)
    assert out.shape == (8, 1, 3)
    older = {**batch, "x": batch["x"] + 1}
    assert not torch.equal(net.eval()(batch), net(cast(Batch, older)))
    if model is CNN3D:
        assert sum(p.numel() for p in net.parameters()) == 290_736 + 480 + 3 * 129 + 3


def test_what_a_model_of_volumes_cannot_read_is_refused(scans: Store) -> None:
    shape = module(scans).shape
    for options, message in (
        ({"flips": ["w"]}, "flips of w; expected some of x, y, z, the axes of scan"),
        ({"pool": 25}, "pool 25 of volumes of 32 x 32 x 24"),
        ({"field": "ct"}, "a model that reads field 'ct'"),
        ({"intensity_scale": 1.0}, "intensity_scale 1.0"),
    ):
        with pytest.raises(UsageError, match=message):
            CNN3D(shape, task=MultiTask(), **cast(Any, options))
    with pytest.raises(UsageError, match="CNN3D of one field of 0: none"):
        CNN3D(module(scans, fields=None).shape, task=MultiTask())
    with pytest.raises(UsageError, match="field 'scan_grid' with axes grid_row, grid_column"):
        CNN3D(module(scans, fields={"scan_grid": 1}).shape, task=MultiTask())


@given(st.integers(0, 2**40), st.integers(0, 1000), st.permutations(range(6)), st.integers(1, 6))
def test_what_is_drawn_for_a_window_depends_on_no_other_one(seed: int, epoch: int, order: list[int], n: int) -> None:
    series, time = torch.arange(6) % 3, torch.tensor([0, 0, 0, 5, -5, 2**60])
    batch = cast(Batch, {"series": series, "time": time})
    drawn = uniform(batch, seed, epoch, 4)
    assert bool(((drawn >= 0) & (drawn < 1)).all())
    assert len(set(drawn.flatten().tolist())) == 24
    some = cast(Batch, {"series": series[order[:n]], "time": time[order[:n]]})
    assert torch.equal(uniform(some, seed, epoch, 4), drawn[order[:n]])
    assert not torch.equal(uniform(batch, seed, epoch + 1, 4), drawn)
    assert not torch.equal(uniform(batch, seed + 1, epoch, 4), drawn)


def test_what_is_drawn_is_spread_evenly_and_independent_of_what_is_drawn_beside_it() -> None:
    batch = cast(Batch, {"series": torch.arange(20_000), "time": torch.zeros(20_000, dtype=torch.int64)})
    drawn = uniform(batch, 0, 0, 4).double()
    assert float((drawn.mean(dim=0) - 0.5).abs().max()) < 0.01
    assert float((drawn.var(dim=0) - 1 / 12).abs().max()) < 0.002
    assert float((torch.corrcoef(drawn.T) - torch.eye(4)).abs().max()) < 0.03


def test_flips_and_intensities_are_of_each_window_and_of_training_alone() -> None:
    shape = BatchShape(
        1, 1, -1, 0, 1, [-1], fields={"v": [1, 4, 4, 4]}, field_axes={"v": ["z", "y", "x"]}, classes=[["a", "b"]],
        field_dtypes={"v": "uint8"},
    )  # fmt: skip
    values = torch.arange(64, dtype=torch.uint8).view(1, 1, 4, 4, 4).repeat(50, 1, 1, 1, 1)
    batch = cast(Batch, {"v": values, "series": torch.arange(50), "time": torch.zeros(50, dtype=torch.int64)})
    plain = values.float() / 255
    flipping = CNN3D(shape, (8,), flips=["x"], task=Classification())
    found = flipping.volumes(batch)
    turned = found.isclose(plain.flip(-1)).flatten(1).all(1)
    assert 10 < int(turned.sum()) < 40
    torch.testing.assert_close(found[~turned], plain[~turned])
    torch.testing.assert_close(flipping.eval().volumes(batch), plain)
    brighter = CNN3D(shape, (8,), intensity_scale=0.2, intensity_shift=0.1, task=Classification()).volumes(batch)
    assert float((brighter - plain).abs().max()) <= 0.2 * 63 / 255 + 0.1
    assert len(set((brighter - plain)[:, 0, 0, 0, 0].tolist())) > 40
    pooled = CNN3D(shape, (8,), pool=2, task=Classification()).volumes(batch)
    torch.testing.assert_close(pooled[0, 0, 0, 0, 0], plain[0, 0, :2, :2, :2].mean())


def test_from_a_list_of_scans_to_predictions_by_study(scans: Store, tmp_path: Path, app: App) -> None:
    name = config(scans, tmp_path)
    for command in ("fit", "test", "predict"):
        app(command, "--config", name, check=True)
    run = tmp_path / "runs" / "c"
    found = json.loads((run / "test_metrics.json").read_text())
    assert "roc" not in found
    for picture in ("roc.png", "volumes.png"):
        assert (run / picture).stat().st_size > 5000
        assert picture in (run / "summary.md").read_text()
    predicted = xarray.open_zarr(run / "predictions.zarr")
    data = module(scans, channels=[])
    assert predicted["id"].values.tolist() == scans.ids[data.readable("test", 1).series].tolist()
    words = scans.channel("disease").categories
    assert predicted["disease_class"].values.tolist() == list(words)
    probable = predicted["disease_probability"].values[:, 0]
    np.testing.assert_allclose(probable.sum(axis=-1), 1, atol=1e-6)
    assert predicted["disease"].values[:, 0].tolist() == probable.argmax(-1).tolist()
    for key, id_ in enumerate(predicted["id"].values):
        position = scans.position(id_)
        stored = scans.read_stored("disease", position, position + 1)[0]
        seen = predicted["disease_observed"].values[key, 0]
        assert seen == stored if stored >= 0 else np.isnan(seen)
    seen = predicted["disease_observed"].values[:, 0]
    known = np.isfinite(seen)
    assert found["test/auroc"] == pytest.approx(roc_auc_score(seen[known], probable[known, 1]))
    errors = (predicted["ejection_fraction"] - predicted["ejection_fraction_observed"]).values
    assert found["test/mae"] == pytest.approx(np.nanmean(np.abs(errors)), rel=1e-5)
    assert found["by_target"]["n"] == [known.sum(), np.isfinite(errors).sum()]
    frame = predicted["disease_probability"].to_dataframe()
    assert set(frame["id"]) == set(predicted["id"].values)


def test_a_picture_of_volumes_says_what_is_known_and_what_is_predicted(scans: Store) -> None:
    data = module(scans)
    model = CNN3D(data.shape, (8,), task=MultiTask()).eval()
    model.trainer = type("T", (), {"datamodule": data, "world_size": 1})()
    batch = next(iter(data.val_dataloader()))
    parts = cast(dict[str, torch.Tensor], batch)
    windows = [cast(Batch, {name: part[at : at + 1] for name, part in parts.items()}) for at in range(3)]
    figure = volumes(model, data, windows)
    assert len(figure.axes) == 9
    titles = [axes.get_title(loc="left").split("\n") for axes in figure.axes[::3]]
    for window, (id_, disease, fraction) in zip(windows, titles, strict=True):
        position = int(window["series"][0])
        assert id_ == scans.ids[position]
        known = window["mask"][0, 0].tolist()
        code = int(scans.read_stored("disease", position, position + 1)[0])
        words = scans.channel("disease").categories
        assert disease.startswith(f"disease: {words[code] if known[0] else 'unknown'}, predicted ")
        value = float(scans.read("ejection_fraction", position, position + 1)[0])
        assert fraction.startswith(f"ejection_fraction: {f'{value:.4g}' if known[1] else 'unknown'}, predicted ")
        out = model(window)[0, 0, :2].softmax(-1).detach()
        assert disease.endswith(f"{words[int(out.argmax())]} ({float(out.max()):.0%})")


def test_a_fit_that_goes_on_draws_what_it_would_have_drawn(scans: Store, tmp_path: Path, app: App) -> None:
    name = config(scans, tmp_path)
    rest = ["--early_stopping.patience", "9"]
    app("fit", "--config", name, *rest, "--trainer.default_root_dir", "whole", check=True)
    app("fit", "--config", name, *rest, "--trainer.default_root_dir", "half", "--trainer.max_epochs", "1", check=True)
    app("fit", "--config", name, *rest, "--trainer.default_root_dir", "half", "--ckpt_path", "last", check=True)
    whole, half = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "half")
    )
    assert all(torch.equal(weight, half[name]) for name, weight in whole.items())


@pytest.mark.long
def test_two_processes_measure_what_one_does(scans: Store, tmp_path: Path, app: App) -> None:
    name = config(scans, tmp_path)
    app("fit", "--config", name, check=True)
    app("test", "--config", name, check=True)
    alone = json.loads((tmp_path / "runs" / "c" / "test_metrics.json").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for command in ("fit", "test", "predict"):
        words = [sys.executable, "-m", "lightning_app", command, "--config", name]
        words += ["--trainer.default_root_dir", "both", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
        words += [] if command == "fit" else ["--ckpt_path", "runs/c/checkpoints/best.ckpt"]
        group = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "NODE_RANK": "0",
            "WORLD_SIZE": "2",
        }
        piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        ranks = [
            subprocess.Popen(words, cwd=tmp_path, env={**group, "LOCAL_RANK": str(rank)}, **piped) for rank in range(2)
        ]
        printed = [rank.communicate(timeout=300)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], printed
    both = json.loads((tmp_path / "both" / "test_metrics.json").read_text())
    for key, value in alone.items():
        if key.startswith("test/"):
            assert both[key] == pytest.approx(value, abs=1e-6), key
    assert len(xarray.open_zarr(tmp_path / "both" / "predictions.zarr")["id"]) >= alone["n_windows"]


def test_a_loss_that_is_not_finite_for_a_voxel_that_is_missing_names_the_field(tmp_path: Path) -> None:
    volumes_ = np.random.default_rng(0).normal(size=(12, 6, 6, 6)).astype("f4")
    volumes_[5, 1, 2, 3] = np.nan
    np.save(tmp_path / "scans.npy", volumes_)
    rows = [[f"p{n}", 0, "scans.npy", n, n % 3] for n in range(12)]
    table = write_table(tmp_path / "t.csv", ["id", "t", "file", "row", "age"], rows)
    where: dict[str, Any] = {"file": {"scan": "file"}, "file_position": {"scan": "row"}}
    ingest(table, tmp_path / "s.zarr", id="id", time="t", file_root=tmp_path, **where)
    given_: dict[str, Any] = {"targets": ["age"], "classes": None, "split": Split(by="series", sizes=(0.8, 0.2, 0.0))}
    data = module(open_store(tmp_path / "s.zarr"), **{**given_, "channels": None, "delay": -1})
    trainer = pl.Trainer(accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False)
    with pytest.raises(NotFiniteError, match=r"fill what is NaN or infinite in 'scan', which is read as it is stored"):
        trainer.fit(CNN3D(data.shape, widths=[2]), datamodule=data)
