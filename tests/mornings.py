"""Thirty mornings, or fewer: each day's commands are run, on some days killed with SIGKILL, and then run again.

``python tests/mornings.py FOLDER DAYS KILLS SEED`` prints what was killed, as JSON. Each command is a fork of this
process, which itself computes nothing, so it dies as a process of its own would, and starts without its imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lightning_app.cli import main as app
from zstore.cli import main as zstore

FIRST = pd.Timestamp("2024-03-01")  # the first morning has the load of the day before it
HISTORY, AHEAD = 80, 3  # days before the first morning, and days of weather to come
CONFIG = """
data:
  store: plant.zarr
  lookback: 7
  horizon: 3
  channels: [load, temp]
  targets: [load]
  future: [temp]
  split: {sizes: [0.7, 0.2, 0.1]}
  batch_size: 16
model: {class_path: LSTM, init_args: {hidden: 4}}
optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.01}}
trainer: {max_epochs: 2, accelerator: cpu}
intervals: {levels: [0.8]}
"""
INGEST = ["ingest", "incoming/*.csv", "plant.zarr", "--append", "--on-duplicate", "update"]
INGEST += ["--id", "plant", "--time", "date", "--quiet", "--workers", "1"]
PREDICT = ["predict", "--config", "plant.yaml", "--data.predict_on", "future", "--quiet"]
EVALUATE = ["evaluate", "--config", "plant.yaml", "--quiet"]
MORNING: list[tuple[Callable[[list[str]], int], list[str]]] = [(zstore, INGEST), (app, PREDICT), (app, EVALUATE)]


def weather(days: int) -> pd.DataFrame:
    """What comes: temperature and load of each day."""
    draw = np.random.default_rng(8)
    dates = pd.date_range(FIRST - pd.Timedelta(days=HISTORY), periods=HISTORY + days + AHEAD)
    temp = (10 + 8 * np.sin(np.arange(len(dates)) / 58) + draw.normal(0, 3, len(dates))).round(1)
    load = (90 - 2 * temp + draw.normal(0, 2, len(dates))).round(1)
    return pd.DataFrame({"plant": "p", "date": dates, "temp": temp, "load": load})


def arrive(folder: Path, truth: pd.DataFrame, day: int) -> None:
    """The file of a morning: the last day as it was, and the weather of those to come as it is forecast."""
    today = FIRST + pd.Timedelta(days=day)
    seen = truth[truth.date == today - pd.Timedelta(days=1)]
    if day == 0:
        seen = truth[truth.date < today]
    ahead = truth[(truth.date >= today) & (truth.date < today + pd.Timedelta(days=AHEAD))].assign(load=np.nan)
    ahead["temp"] = (ahead.temp + np.random.default_rng(day).normal(0, 1, len(ahead))).round(1)
    path = folder / "incoming" / f"{today.date()}.csv"
    path.parent.mkdir(exist_ok=True)
    pd.concat([seen, ahead]).to_csv(path, index=False)


def started(command: Callable[[list[str]], int], words: list[str], folder: Path) -> int:
    """The process of a command."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.chdir(folder)
            code = command(words)
        finally:
            os._exit(code)
    return child


def run(command: Callable[[list[str]], int], words: list[str], folder: Path) -> float:
    """Run a command to its end; seconds."""
    begun = time.monotonic()
    status = os.waitpid(started(command, words, folder), 0)[1]
    assert status == 0, (words, status)
    return time.monotonic() - begun


def killed(command: Callable[[list[str]], int], words: list[str], folder: Path, seconds: float) -> bool:
    """Run a command and kill it after some seconds; whether it was still at work."""
    child = started(command, words, folder)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder: Path, days: int, kills: int, seed: int) -> None:
    """Live through the days; those of kills are drawn."""
    draw = random.Random(seed)
    truth, told = weather(days), []
    (folder / "plant.yaml").write_text(CONFIG)
    bad = set(draw.sample(range(days), kills))
    lasted = [0.5, 1.0, 0.3]
    for day in range(days):
        arrive(folder, truth, day)
        if day == 0:
            run(zstore, INGEST, folder)
            run(app, ["fit", "--config", "plant.yaml", "--quiet"], folder)
        victim = draw.randrange(len(MORNING)) if day in bad else None
        for number, (command, words) in enumerate(MORNING):
            if number == victim:
                seconds = draw.uniform(0, lasted[number])
                while not killed(command, words, folder, seconds):
                    seconds = draw.uniform(0, seconds)
                told.append([day, words[0], round(seconds, 3)])
                break
            lasted[number] = run(command, words, folder)
        else:
            continue
        for command, words in MORNING:  # the commands of the day are simply run again
            run(command, words, folder)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
