"""A checkpoint from elsewhere holds numbers. It runs no code, configures nothing, and touches no file but its own."""

import copy
import io
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_checkpoints_in_use import DATES, LSTM, configure, store

from lightning_app import models
from lightning_app.checkpoints import DurableCheckpointIO
from lightning_app.data.scaling.fit import fit_scaler
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.splits import Split
from zstore import StoreError, UsageError, open_store

App = Callable[..., subprocess.CompletedProcess[str]]
Checkpoint = dict[str, Any]
Change = Callable[[Checkpoint], Any]
pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own

DATA = "WindowDataModule"
SAVING = "ModelCheckpoint{'monitor': 'val/mse'}"


def small() -> Checkpoint:
    """As Lightning saves it, in a few bytes."""
    return {
        "epoch": 1,
        "global_step": 3,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {"weight": torch.arange(1000.0)},
        "callbacks": {SAVING: {"best_model_path": "/run/best.ckpt", "best_k_models": {"/run/best.ckpt": 1.0}}},
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 1, "completed": 1}}}},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
    }


def packed(checkpoint: Any) -> bytes:
    out = io.BytesIO()
    torch.save(checkpoint, out)
    return out.getvalue()


def repacked(change: Callable[[str, bytes], bytes] = lambda _, part: part, how: int = zipfile.ZIP_STORED) -> bytes:
    """A small checkpoint whose parts are others, or are compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed(small()))) as before, zipfile.ZipFile(out, "w", how) as after:
        for part in before.infolist():
            after.writestr(part.filename, change(part.filename, before.read(part)))
    return out.getvalue()


def flipped() -> bytes:
    """One bit of one weight."""
    content = bytearray(packed(small()))
    content[content.index(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    return bytes(content)


def running(command: str) -> bytes:
    """A pickle that runs a command where it is believed."""
    program = f"cos\nsystem\n(S'{command}'\ntR.".encode()
    return repacked(lambda name, part: program if name.endswith("data.pkl") else part)


BYTES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"weights",
    "a pickle": lambda: pickle.dumps(small()["loops"]),
    "a pickle that runs a command": lambda: b"cos\nsystem\n(S'touch evil'\ntR.",
    "an archive that runs a command": lambda: running("touch evil"),
    "an archive of nothing": lambda: b"PK\5\6" + b"\0" * 18,
    "one that is cut short": lambda: packed(small())[:-700],
    "one with a bit flipped": flipped,
    "one that inflates": lambda: repacked(how=zipfile.ZIP_DEFLATED),
    "one without its weights": lambda: repacked(lambda name, part: b"" if name.endswith("/0") else part),
    "one of numbers alone": lambda: packed(torch.ones(3)),
}


def put(value: Any, *path: Any) -> Change:
    """Another value at a place."""

    def change(checkpoint: Checkpoint) -> None:
        for name in path[:-1]:
            checkpoint = checkpoint[name]
        checkpoint[path[-1]] = value

    return change


CONTENT: dict[str, Change] = {
    "no weights": lambda checkpoint: checkpoint.pop("state_dict"),
    "weights that are a list": put([1], "state_dict"),
    "a weight that is a text": put("x", "state_dict", "weight"),
    "a weight that is complex": put(torch.zeros(1000, dtype=torch.complex64), "state_dict", "weight"),
    "a weight that is sparse": put(torch.zeros(1000).to_sparse(), "state_dict", "weight"),
    "a weight that is nowhere": put(torch.zeros(1000, device="meta"), "state_dict", "weight"),
    "a weight that is no number": put(torch.full((1000,), torch.nan), "state_dict", "weight"),
    "no version": lambda checkpoint: checkpoint.pop("pytorch-lightning_version"),
    "a version that is a number": put(2, "pytorch-lightning_version"),
    "an epoch that is a text": put("1", "epoch"),
    "steps without end": put(10**30, "loops", "fit_loop", "epoch_progress", "total", "ready"),
    "steps that are a text": put("1", "loops", "fit_loop", "epoch_progress", "total", "completed"),
    "callbacks that are a list": put([1], "callbacks"),
    "a callback that is a text": put("x", "callbacks", SAVING),
    "a best checkpoint elsewhere": put("/run/../evil.ckpt", "callbacks", SAVING, "best_model_path"),
    "a good checkpoint elsewhere": put({"/run/a/../../evil": 1.0}, "callbacks", SAVING, "best_k_models"),
    "a last checkpoint elsewhere": put("../evil.ckpt", "callbacks", SAVING, "last_model_path"),
    "optimizers that are a text": put("x", "optimizer_states"),
    "a function to make a model with": put({"_instantiator": "os.system"}, "hyper_parameters"),
    "one that holds itself": lambda checkpoint: checkpoint["loops"].update(again=checkpoint["loops"]),
}


@pytest.mark.parametrize("name", [*BYTES, *CONTENT])
def test_what_is_no_checkpoint_of_a_fit_is_refused_with_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "foreign.ckpt"
    checkpoint = small()
    if name in CONTENT:
        CONTENT[name](checkpoint)
    content = BYTES[name]() if name in BYTES else packed(checkpoint)
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for load in (DurableCheckpointIO().load_checkpoint, models.LSTM.load_from_checkpoint):
        with pytest.raises(StoreError, match=r"foreign\.ckpt") as refusal:
            load(path)
        assert "Fix: another --ckpt_path, or fit again." in str(refusal.value)
        assert "weights_only" not in str(refusal.value)  # torch would say how to run it
    assert os.listdir(tmp_path) == ["foreign.ckpt"]


def test_a_sound_checkpoint_is_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "sound.ckpt"
    DurableCheckpointIO().save_checkpoint(small(), path)
    loaded = DurableCheckpointIO().load_checkpoint(path)
    assert loaded["state_dict"]["weight"].tolist() == small()["state_dict"]["weight"].tolist()
    assert {**loaded, "state_dict": 0} == {**small(), "state_dict": 0}


def test_only_files_of_checkpoints_are_removed(tmp_path: Path) -> None:
    (tmp_path / "folder.ckpt").mkdir()
    for name in ("folder.ckpt/inner", "notes.txt", "old.ckpt"):
        (tmp_path / name).write_text("precious")
    for name in ("folder.ckpt", "notes.txt", "old.ckpt", "absent.ckpt"):
        DurableCheckpointIO().remove_checkpoint(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder.ckpt", "inner", "notes.txt"]


SCALER: dict[str, Change] = {
    "none": lambda document: document.clear(),
    "offsets that are a text": put("x", "offset"),
    "one offset for all": put([0.0], "offset"),
    "a scale of 0": put([1.0, 0.0], "scale"),
    "a negative scale": put([1.0, -1.0], "scale"),
    "a scale that is no number": put([1.0, float("nan")], "scale"),
    "logarithms of one channel": put([False], "log"),
    "logarithms that are texts": put(["no", "no"], "log"),
    "channels that are a text": put("ab", "channels"),
    "no rows": put(None, "fitted_on"),
}


@pytest.mark.parametrize("name", SCALER)
def test_a_scaler_that_is_none_is_refused(name: str) -> None:
    document = Scaler.identity(["a", "b"]).to_json()
    Scaler.from_json(document)
    SCALER[name](document)
    with pytest.raises(UsageError, match="a scaler that is none"):
        Scaler.from_json(document)


@pytest.fixture
def fitted(app: App, tmp_path: Path) -> Checkpoint:
    store(tmp_path / "a.zarr", "abc")
    configure(tmp_path / "fit.yaml", {"store": str(tmp_path / "a.zarr"), "scale_by": "series"}, LSTM)
    app("fit", "--config", "fit.yaml", check=True)
    checkpoint: Checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    return checkpoint


def _saving(checkpoint: Checkpoint) -> Checkpoint:
    states = checkpoint["callbacks"]
    state: Checkpoint = states[next(name for name in states if name.startswith("ModelCheckpoint"))]
    return state


def _elsewhere(checkpoint: Checkpoint) -> None:
    """Has a fit that goes on remove a folder, as the worst of its checkpoints."""
    state = _saving(checkpoint)
    path, worst = f"{state['dirpath']}/../../outside", torch.tensor(1e9)
    state |= {
        "kth_best_model_path": path,
        "kth_value": worst,
        "best_model_score": worst,
        "best_k_models": {path: worst},
    }


IN_USE: dict[str, tuple[str, Change]] = {
    "nothing of its data": ("what data it was fitted on", lambda checkpoint: checkpoint.pop(DATA)),
    "data that are a list": ("what data it was fitted on", put([1], DATA)),
    "no scaler": ("KeyError: 'scaler'", lambda checkpoint: checkpoint[DATA].pop("scaler")),
    "scalers of no series": ("cannot be used", put([[1.0]], DATA, "meaning", "other_series")),
    "nothing of its training": ("what it was trained on", put(None, DATA, "trained_on")),
    "training times in no unit": ("what it was trained on", put("fortnight", DATA, "trained_on", "unit")),
    "training times that are floats": ("what it was trained on", put(torch.zeros(3), DATA, "trained_on", "first")),
    "no notes": ("with model None", put(None, "lightning_app")),
    "a shape that is a text": ("cannot be used", put("x", "lightning_app", "shape")),
    "loops that are none": ("cannot be used", put({}, "loops")),
    "a version that is none": ("Invalid version", put("x", "pytorch-lightning_version")),
    "a folder elsewhere": ("outside their folder", _elsewhere),
}
WHILE_FITTING = {
    "no optimizer": ("0 optimizer states for 1", put([], "optimizer_states")),
    "moments of another shape": ("exp_avg of shape", put(torch.zeros(1), "optimizer_states", 0, "state", 0, "exp_avg")),
}


def test_a_foreign_checkpoint_in_use_is_refused_by_name_and_touches_nothing(
    app: App, fitted: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    for name, (reason, change) in {**IN_USE, **WHILE_FITTING}.items():
        checkpoint = copy.deepcopy(fitted)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "foreign.ckpt")
        for command in ("fit",) if name in WHILE_FITTING else ("test", "fit"):
            options = ("--config", "fit.yaml", "--ckpt_path", "foreign.ckpt", "--trainer.max_epochs", 3)
            done = app(command, *options)
            assert done.returncode in (1, 2), (name, command)
            assert reason in done.stderr, (name, command, done.stderr)
            assert "Fix: " in done.stderr
    assert (tmp_path / "outside" / "precious").read_text() == "precious"


def test_no_checkpoint_configures_a_run(
    app: App, fitted: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would take classes to import from what it calls hyper-parameters."""
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('imported').touch()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    fitted["hyper_parameters"] = {"class_path": "evil.Evil", "init_args": {}}
    torch.save(fitted, tmp_path / "foreign.ckpt")
    app("test", "--config", "fit.yaml", "--ckpt_path", "foreign.ckpt", check=True)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"channels": 7}', '{"offset": NaN}', "[" * 100_000])
def test_a_damaged_scaler_in_the_cache_is_fitted_anew(content: str, tmp_path: Path) -> None:
    rows = open_store(store(tmp_path / "a.zarr", "abc"))
    first, second, third, last = DATES
    split = Split(dates=(first, second, third, last))
    scaler = fit_scaler(rows, split, ["rain", "flow"], "standard", tmp_path)
    (kept,) = tmp_path.glob("scaler-*.json")
    sound = kept.read_text()
    kept.write_text(content)
    again = fit_scaler(rows, split, ["rain", "flow"], "standard", tmp_path)
    assert scaler.to_json() == again.to_json()
    assert sound == kept.read_text()
