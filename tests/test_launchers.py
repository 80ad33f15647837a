"""Processes that torchrun or SLURM starts, and starts again: one line fits, whoever dies meanwhile."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import yaml
from conftest import REPOSITORY
from documents import blocks
from test_resuming import free_port, seen, write_config

from lightning_app import checkpoints
from lightning_app.launchers import launched
from lightning_app.restore import CheckpointConnector
from zstore import Store, StoreError, UsageError

OF_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "SLURM_NTASKS", "SLURM_JOB_NAME")


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}, ("torchrun", 4, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}, ("SLURM", 4, 2)),
        ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, ("SLURM", None, 1)),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, None),
    ],
)
def test_the_number_of_processes_is_what_the_launcher_says(
    environment: dict[str, str], found: tuple[str, int | None, int | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*OF_LAUNCHERS, "SLURM_NTASKS_PER_NODE", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == found


def test_processes_that_would_look_for_dead_ones_after_a_restart_do_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert launched() is not None
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(UsageError, match=r"--max-restarts 3.*Fix: TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun"):
        launched()


def test_the_checkpoint_to_go_on_from_is_the_last_one_if_there_is_any(tmp_path: Path) -> None:
    assert checkpoints.checkpoint_file(tmp_path, "auto") is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    assert checkpoints.checkpoint_file(tmp_path, "auto") is None
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert checkpoints.checkpoint_file(tmp_path, "auto") == tmp_path / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("first", [None, [0, 12]])
def test_processes_that_do_not_see_the_same_checkpoint_do_not_begin(first: list[int] | None) -> None:
    strategy = SimpleNamespace(
        broadcast=lambda _: first,
        reduce_boolean_decision=lambda decision, **_: decision,
        load_checkpoint=lambda *_, **__: {"epoch": 0, "global_step": 8, "pytorch-lightning_version": "2.6.0"},
    )
    trainer: Any = SimpleNamespace(strategy=strategy, default_root_dir="runs/x")
    connector = CheckpointConnector(trainer)
    on_first = "none" if first is None else "one of epoch 0, step 12"
    with pytest.raises(StoreError, match=f"here one of epoch 0, step 8, on the first process {on_first}; .*Fix:"):
        connector.resume_start("runs/x/checkpoints/last.ckpt")


def overlay(folder: Path, run: str, witness: str, pause_s: float = 0, **trainer: Any) -> None:
    """Another layer of the configuration: a callback that writes down each step, and one epoch."""
    callback = {"class_path": "witness.Witness", "init_args": {"path": str(folder / witness), "pause_s": pause_s}}
    own = {"max_epochs": 1, "callbacks": [callback], "default_root_dir": str(folder / run), **trainer}
    (folder / "overlay.yaml").write_text(yaml.safe_dump({"trainer": own}))


def environment() -> dict[str, str]:
    found = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


FIT = ("-m", "lightning_app", "fit", "--config", "fit.yaml", "--config", "overlay.yaml", "--ckpt_path", "auto")


def torchrun(folder: Path, ranks: int, restarts: int = 0) -> Any:
    """Start a fit as its user does: one line."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*line, "--max-restarts", str(restarts), *FIT], cwd=folder, env=environment(), stdout=log, stderr=log
        )


def lines_of(folder: Path, witness: str, rank: int) -> list[dict[str, Any]]:
    path = folder / f"{witness}.{rank}"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def ranks_of(launcher: psutil.Process) -> list[psutil.Process]:
    """The processes of a launcher that run, in the order of their ranks."""
    found = {}
    for child in launcher.children():
        with suppress(psutil.Error, KeyError):  # it has ended, or is none of them
            found[int(child.environ()["LOCAL_RANK"])] = child
    return [found[rank] for rank in sorted(found)]


def kill_again_and_again(folder: Path, launcher: Any, ranks: int, n_kills: int, n_steps: int) -> int:
    """Kill one rank, whichever, each time that the fit has got a bit further; return when it ends, or all are done."""
    shuffler, watched, n_done, n_before = random.Random(ranks), psutil.Process(launcher.pid), 0, 0
    while n_done < n_kills and launcher.poll() is None:
        steps = [line["step"] for line in lines_of(folder, "killed", 0)]
        if len(steps) > n_before and steps[-1] > n_steps * n_done // n_kills:
            time.sleep(0.1 * shuffler.random())
            victims = ranks_of(watched)
            victims[shuffler.randrange(len(victims))].send_signal(signal.SIGKILL)
            n_done += 1
            known = {victim.pid for victim in victims}
            while launcher.poll() is None and known & {rank.pid for rank in ranks_of(watched)}:
                time.sleep(0.05)
            n_before = len(lines_of(folder, "killed", 0))
        time.sleep(0.02)
    return n_done


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_rank_killed_twenty_times_within_an_epoch_changes_no_bit(catchments: Store, tmp_path: Path) -> None:
    n_kills = 20
    write_config(tmp_path, catchments, "host")
    overlay(tmp_path, "undisturbed", "whole")
    assert torchrun(tmp_path, 2).wait() == 0, (tmp_path / "log.txt").read_text()
    whole = {step["step"]: step for step in seen(tmp_path, "whole", 2)}
    overlay(tmp_path, "run", "killed", pause_s=0.1)
    began, launcher = time.monotonic(), torchrun(tmp_path, 2, n_kills)
    n_done = kill_again_and_again(tmp_path, launcher, 2, n_kills, len(whole) - 1)
    assert launcher.wait() == 0, (tmp_path / "log.txt").read_text()
    print(f"{n_done} ranks killed in {time.monotonic() - began:.0f} s")  # noqa: T201  # the figure is asked for
    assert n_done == n_kills
    assert (tmp_path / "log.txt").read_text().count("going on from") >= n_kills // 2  # processes print it; not all do
    for rank in range(2):
        steps = lines_of(tmp_path, "killed", rank)
        assert {step["step"] for step in steps} == set(whole)
        of_whole = {step["step"]: step for step in lines_of(tmp_path, "whole", rank)}
        assert all(step == of_whole[step["step"]] for step in steps)
    states = [
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("run", "undisturbed")
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == len(whole)
    for name, weights in states[0]["state_dict"].items():
        assert torch.equal(weights, states[1]["state_dict"][name])
    assert list(tmp_path.rglob("*.partial")) == []


def batches_of(folder: Path, witness: str, ranks: int) -> dict[int, list[tuple[Any, ...]]]:
    """By step, the windows of its global batch, whichever rank has them."""
    found = {}
    for parts in zip(*(lines_of(folder, witness, rank) for rank in range(ranks)), strict=True):
        assert len({part["step"] for part in parts}) == len({len(part["windows"]) for part in parts}) == 1
        found[parts[0]["step"]] = sorted(tuple(window) for part in parts for window in part["windows"])
    return found


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("residency", ["host", "stream"])
def test_a_fit_whose_rank_was_killed_goes_on_with_the_same_windows_on_another_number_of_ranks(
    residency: str, catchments: Store, tmp_path: Path
) -> None:
    write_config(tmp_path, catchments, residency)
    overlay(tmp_path, "undisturbed", "whole")
    assert torchrun(tmp_path, 2).wait() == 0, (tmp_path / "log.txt").read_text()
    whole = batches_of(tmp_path, "whole", 2)
    overlay(tmp_path, "run", "killed", pause_s=0.2)
    launcher = torchrun(tmp_path, 2)
    while len(lines_of(tmp_path, "killed", 0)) < 10:
        assert launcher.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.02)
    ranks_of(psutil.Process(launcher.pid))[1].send_signal(signal.SIGKILL)
    assert launcher.wait() == 1
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < saved < len(whole) - 1
    finals = {}
    for ranks in (1, 2, 4):
        shutil.copytree(tmp_path / "run", tmp_path / f"run{ranks}")
        overlay(tmp_path, f"run{ranks}", f"after{ranks}", strategy="ddp_find_unused_parameters_true")
        assert torchrun(tmp_path, ranks).wait() == 0, (tmp_path / "log.txt").read_text()
        after = batches_of(tmp_path, f"after{ranks}", ranks)
        assert after == {step: batch for step, batch in whole.items() if step > saved}
        finals[ranks] = torch.load(tmp_path / f"run{ranks}" / "checkpoints" / "last.ckpt", weights_only=True)
    for name, weights in finals[2]["state_dict"].items():
        for ranks in (1, 4):
            torch.testing.assert_close(finals[ranks]["state_dict"][name], weights, rtol=1e-3, atol=1e-5)


_SLURM = r"""
sbatch() { :; }
scontrol() { echo 127.0.0.1; }
srun() {  # the tasks of one node, with what SLURM tells each of them; when one fails, all end
  while [ "${1#--}" != "$1" ]; do shift; done
  local n; n=$(sed -n 's/.*--ntasks-per-node=\([0-9]*\).*/\1/p' fit.sh)
  for rank in $(seq 0 $((n - 1))); do
    env SLURM_JOB_NAME=rivers SLURM_JOB_ID=4242 SLURM_NTASKS=$n SLURM_NTASKS_PER_NODE=$n SLURM_NNODES=1 SLURM_NODEID=0 \
      SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODELIST=127.0.0.1 "$@" &
  done
  for _ in $(seq $n); do wait -n || { code=$?; kill $(jobs -p); wait; return $code; }; done
}
"""


def slurm_scripts() -> list[str]:
    """The batch scripts of the documentation."""
    return [block.text for block in blocks(REPOSITORY / "docs" / "machines.md") if "#SBATCH" in block.text]


def submit(folder: Path, script: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a batch script on this machine as SLURM would, with the tasks that it asks for."""
    (folder / "fit.sh").write_text(script.rstrip("\n") + " " + " ".join(more) + "\n")
    port = str(free_port())
    variables = {"MASTER_PORT": port, "SLURM_NNODES": "1", "SLURM_JOB_ID": "4242", "SLURM_JOB_NODELIST": "127.0.0.1"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if "torchrun" in script:
        (folder / "fit.sh").write_text((folder / "fit.sh").read_text().replace(":29500", f":{port}"))
    return subprocess.run(
        ["bash", "-c", f"{_SLURM}\n. ./fit.sh"],
        cwd=folder,
        env={**environment(), **variables, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1])
def test_the_batch_scripts_of_the_documentation_fit_and_go_on_after_a_kill(
    number: int, catchments: Store, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    write_config(tmp_path / "configs", catchments, "host")
    (tmp_path / "configs" / "fit.yaml").rename(tmp_path / "configs" / "demo_lstm.yaml")
    for run, kill_at in (("whole", None), ("run", 10), ("run", None)):
        callback = {"path": str(tmp_path / run), "kill_at": None if kill_at is None else kill_at}
        own = {"callbacks": [{"class_path": "witness.Witness", "init_args": callback}], "max_epochs": 1}
        (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": own}))
        script = slurm_scripts()[number].replace("--max-restarts 20", "--max-restarts 0")
        more = ("--config more.yaml", f"--trainer.default_root_dir {run}", "--checkpoint.every_n_train_steps 4")
        done = submit(tmp_path, script, *more)
        assert (done.returncode == 0) is (kill_at is None), done.stderr
    whole = {step["step"]: step for step in seen(tmp_path, "whole", 2)}
    for rank in range(2):
        steps = lines_of(tmp_path, "run", rank)
        assert [step["step"] for step in steps] == [*range(1, 11), *range(9, len(whole) + 1)]
        of_whole = {step["step"]: step for step in lines_of(tmp_path, "whole", rank)}
        assert all(step == of_whole[step["step"]] for step in steps)
