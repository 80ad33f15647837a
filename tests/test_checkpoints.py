"""A kill while a checkpoint is written leaves the previous one or the new one, whole."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from lightning_app.checkpoints import DurableCheckpointIO
from zstore import StoreError

WRITER = """
import sys, torch
from lightning_app.checkpoints import DurableCheckpointIO
torch.set_num_threads(1)
io, path, number = DurableCheckpointIO(), sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
while True:
    number += 1
    weights = {"weights": torch.full((1_000_000,), float(number))}
    io.save_checkpoint({"number": number, "state_dict": weights, "pytorch-lightning_version": "2.6.0"}, path)
    print("written", flush=True)
"""
EMPTY = {"state_dict": {}, "pytorch-lightning_version": "2.6.0"}  # what every checkpoint of Lightning has


def kill_writers(python: str, path: Path, n_kills: int) -> None:
    """Kill a process that writes checkpoints without pause, again and again, and look at what is left."""
    io, shuffler, number = DurableCheckpointIO(), random.Random(0), 0
    for kill in range(n_kills):
        writer = subprocess.Popen(
            [python, "-c", WRITER, path, str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": "/dev/shm"},  # noqa: S108  # another file system than the target's
        )
        assert writer.stdout is not None
        for _ in range(3 if kill else 1):  # the first is killed at its start, the others behind two checkpoints
            writer.stdout.readline()
        time.sleep(0.02 + shuffler.random() / 20)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        if path.exists():
            found = io.load_checkpoint(path)
            assert found["number"] >= number
            number = found["number"]
            assert torch.equal(found["state_dict"]["weights"], torch.full((1_000_000,), float(number)))
    assert number > n_kills
    io.save_checkpoint({"number": 0}, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_survives_kills_while_it_is_written(tmp_path: Path, python: str) -> None:
    kill_writers(python, tmp_path / "last.ckpt", 3)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_checkpoint_survives_a_hundred_kills_while_it_is_written(tmp_path: Path, python: str) -> None:
    kill_writers(python, tmp_path / "last.ckpt", 100)


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(tmp_path: Path) -> None:
    io, path = DurableCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"number": 1, **EMPTY}, path)

    class Full:
        def __reduce__(self) -> tuple[object, ...]:
            raise OSError(28, "No space left on device")

    with pytest.raises(
        StoreError, match=r"cannot write the checkpoint \(No space left.*last.ckpt.*previous checkpoint"
    ):
        io.save_checkpoint({"number": 2, "rest": Full()}, path)
    assert io.load_checkpoint(path) == {"number": 1, **EMPTY}
    assert list(tmp_path.iterdir()) == [path]
