"""What a person sees of a fit in a terminal: one line that fits, with the speed, the metric and the time left."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from rich.console import Console

import zstore
from lightning_app.bar import LiveBar, Whole, _batches_left, with_bar


def lines_of(command: list[str], folder: Path, width: int) -> list[str]:
    """Everything that a command shows in a terminal of so many columns, without colours."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        seen = b""
        while True:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    os.close(terminal)
    assert process.returncode == 0, seen.decode()
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()))


def test_a_fit_shows_speed_metric_and_time_left_in_lines_that_fit(tmp_path: Path, python: str) -> None:
    rows = "".join(f"{n},{n * n % 97}\n" for n in range(4000))
    (tmp_path / "a.csv").write_text("t,v\n" + rows)
    zstore.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="t")
    data = {"store": "a.zarr", "lookback": 8, "horizon": 2, "batch_size": 4}
    trainer = {"max_epochs": 2, "limit_train_batches": 600, "limit_val_batches": 5}
    (tmp_path / "f.yaml").write_text(
        yaml.safe_dump({"data": data, "model": {"class_path": "LSTM"}, "trainer": trainer})
    )
    seen = lines_of([python, "-m", "lightning_app", "fit", "--config", "f.yaml"], tmp_path, 80)
    bars = [line.rstrip() for line in seen if line.startswith("Epoch ")]
    assert max(map(len, bars)) <= 80
    wanted = r"Epoch 2/2 +[━╸╺ ]+ +\d+/600 (\d+:)?\d\d:\d\d left [\d,]+ windows/s  val/mse [\d.]+(  loss [\d.]+)?"
    assert [line for line in bars if re.fullmatch(wanted, line)], bars[-5:]
    assert [line for line in bars if "…" in line or " 0 windows/s" in line] == []
    table = [line for line in seen if line.startswith("steps  ")]
    assert len(table) == 1
    assert table[0].rstrip().endswith("PSS now")


@pytest.mark.parametrize(
    ("width", "shown"), [(40, "5 windows/s  val/mse 0.9793  loss 0.429"), (38, "5 windows/s  val/mse 0.9793"), (5, "")]
)
def test_a_word_without_room_is_left_out_and_never_cut(width: int, shown: str) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(Whole(["5 windows/s", "val/mse 0.9793", "loss 0.429"]))
    assert captured.get().strip() == shown


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"max_epochs": 3, "max_steps": -1}, 25),
        ({"max_epochs": -1, "max_steps": 20}, 26),
        ({"max_epochs": 3, "max_steps": 8}, 2),
        ({"max_epochs": -1, "max_steps": -1}, None),
        ({"max_epochs": None, "max_steps": -1}, None),
        ({"max_epochs": 1, "max_steps": -1}, 0),
    ],
)
def test_batches_left_are_those_before_the_nearest_end(limits: dict[str, Any], left: int | None) -> None:
    now = {"current_epoch": 1, "global_step": 7, "accumulate_grad_batches": 2, "num_training_batches": 15}
    assert _batches_left(SimpleNamespace(**now, **limits), 5) == left  # type: ignore[arg-type]


def test_a_bar_that_was_asked_for_stays_the_only_one() -> None:
    own = LiveBar()
    assert with_bar([own]) == [own]
    assert with_bar(own) == [own]
    assert [type(each) for each in with_bar(None)] == [LiveBar]
