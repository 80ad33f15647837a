"""Muscles, hearts and robots: kills, and several processes, change nothing of what a fit or a test finds."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import REPOSITORY
from readings import write_readings
from test_recipes import _ingest, _robots, _volumes
from test_resuming import fit, on_ranks

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]

SYSTEMS: dict[str, dict[str, Any]] = {
    "emg_myo_tds": {"batch_size": 16, "stride": 6},
    "adrenal_cnn3d": {"batch_size": 4},
    "pusht_state_bc": {"batch_size": 32},
}
N_KILLS, N_RANKS = 20, 4


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up stores of the three kinds."""
    folder = tmp_path_factory.mktemp("systems")
    sessions = [f"{person}-{session}" for person in (12345, 21547, 45612) for session in (1, 2, 3)]
    write_readings(folder / "emg_myo", sessions)
    _ingest(folder, "emg_myo", "emg_myo", folder / "emg_myo" / "*" / "*.txt.gz")
    _volumes(folder)
    _robots(folder)
    return folder


@pytest.fixture(params=SYSTEMS)
def folder(request: pytest.FixtureRequest, stores: Path, tmp_path: Path) -> Path:
    """A folder with a shipped configuration of two short epochs, saved in mid-epoch, as `fit.yaml`."""
    document = yaml.safe_load((REPOSITORY / "configs" / f"{request.param}.yaml").read_text())
    place = {"store": str(stores / document["data"]["store"]), "cache": str(tmp_path / "cache")}
    document["data"] |= {**place, **SYSTEMS[request.param]}
    document["trainer"] |= {"max_epochs": 2, "accelerator": "cpu", "logger": False}
    document["checkpoint"] = {**document.get("checkpoint", {}), "every_n_train_steps": 3}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


def steps(folder: Path, witness: str, rank: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{witness}.{rank}").read_text().splitlines()]


def last_of(folder: Path, run: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / run / "checkpoints" / "last.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize(("ranks", "n_kills"), [(1, N_KILLS), (N_RANKS, 3)])
def test_a_fit_killed_at_random_moments_ends_with_the_same_weights_and_losses(
    folder: Path, python: str, ranks: int, n_kills: int
) -> None:
    fit(python, folder, "whole", ranks, run="undisturbed")
    whole = [{step["step"]: step for step in steps(folder, "whole", rank)} for rank in range(ranks)]
    n_steps, drawn = len(whole[0]), random.Random(ranks)
    latest = n_steps - 5  # to be killed at: it has to be running when that comes
    for _ in range(n_kills):
        saved = folder / "run" / "checkpoints" / "last.ckpt"
        done = last_of(folder, "run")["global_step"] if saved.exists() else 0
        if done >= latest:
            shutil.rmtree(saved.parent)  # from the beginning once more
            done = 0
        fit(python, folder, "killed", ranks, drawn.randint(done + 1, latest), kill_after_s=drawn.uniform(0, 0.05))
    fit(python, folder, "killed", ranks)
    for rank in range(ranks):
        taken = steps(folder, "killed", rank)
        assert {step["step"] for step in taken} == set(whole[rank])
        assert all(step == whole[rank][step["step"]] for step in taken)
    expected, found = (last_of(folder, run) for run in ("undisturbed", "run"))
    assert found["global_step"] == expected["global_step"] == n_steps
    for key in ("state_dict", "current_model_state"):
        for name, weights in expected.get(key, {}).items():
            assert torch.equal(found[key][name], weights), name


def test_four_processes_learn_from_a_batch_what_one_does(folder: Path, python: str) -> None:
    document = yaml.safe_load((folder / "fit.yaml").read_text())
    options = document["model"]["init_args"]  # without what depends on how a batch is shared out
    has_volumes = document["model"]["class_path"] == "CNN3D"  # which are of single precision
    options |= {"norm": "group"} if has_volumes else {"dropout": 0.0}
    document["trainer"] |= {"precision": "32-true" if has_volumes else "64-true"}
    tolerance = 1e-5 if has_volumes else 1e-6
    (folder / "fit.yaml").write_text(yaml.safe_dump(document))
    for ranks in (1, N_RANKS):
        fit(python, folder, f"on{ranks}", ranks, run=f"run{ranks}")
    alone, *shared = (steps(folder, "on1"), *(steps(folder, f"on{N_RANKS}", rank) for rank in range(N_RANKS)))
    assert {len(taken) for taken in shared} == {len(alone)}
    for step, *parts in zip(alone, *shared, strict=True):
        mean = sum(float.fromhex(part["loss"]) for part in parts) / N_RANKS
        assert mean == pytest.approx(float.fromhex(step["loss"]), rel=tolerance), step["step"]


def test_four_processes_measure_what_one_does_and_share_one_copy_of_the_rows(folder: Path, python: str) -> None:
    fit(python, folder, "fitted")
    memory = {"path": str(folder / "memory"), "cache": str(folder / "cache")}
    callback = {"class_path": "witness.RowMemory", "init_args": memory}
    found, shares = {}, {}
    for ranks in (1, N_RANKS):
        run, words = f"on{ranks}", ("--ckpt_path", str(folder / "run" / "checkpoints" / "last.ckpt"))
        done = on_ranks(python, folder, "test", ranks, run, callback, *words)
        assert done.returncode == 0, done.stderr
        found[ranks] = json.loads((folder / run / "test_metrics.json").read_text())
        shares[ranks] = [json.loads((folder / f"memory.{rank}").read_text()) for rank in range(ranks)]
    for name, value in found[1].items():
        other = found[N_RANKS][name]
        if isinstance(value, dict) and isinstance(next(iter(value.values())), list):
            for metric, values in value.items():
                assert other[metric] == pytest.approx(values, rel=1e-6, abs=1e-6, nan_ok=True), (name, metric)
        else:
            assert other == (pytest.approx(value, rel=1e-6, abs=1e-6) if isinstance(value, float) else value), name
    (alone,) = shares[1]
    assert alone["Rss"] > 0
    assert sum(share["Pss"] for share in shares[N_RANKS]) <= 1.01 * alone["Rss"] + (N_RANKS << 12)
    assert all(share["Private_Dirty"] == share["Anonymous"] == 0 for share in shares[N_RANKS])
