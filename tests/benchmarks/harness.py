"""Runs commands in turn, A B A B …, and reports medians and the ratio pair by pair."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Timing:
    """Wall seconds, peak memory and seconds of processors (of the whole process tree) of the runs of one command."""

    name: str
    wall_s: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    n_bytes: int = 0

    def median_s(self) -> float:
        return statistics.median(self.wall_s)


def resident(process: psutil.Process) -> int:
    """Bytes of memory that a process holds; shared pages count in full."""
    found: int = process.memory_info().rss
    return found


def proportional(process: psutil.Process) -> int:
    """The same, but pages that n processes share count an n-th; it takes milliseconds to find."""
    found: int = process.memory_full_info().pss
    return found


def output_of(
    command: list[str], every: float = 0.02, held: Callable[[psutil.Process], int] = resident
) -> tuple[dict[str, Any], float]:
    """The JSON that a command prints last, and its peak memory in MiB; see :func:`watched`."""
    _, peak, printed = watched(command, every, held)
    document: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return document, peak


def run_once(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident memory of a command and its children, in MiB."""
    return watched(command)[:2]


def watched(
    command: list[str], every: float = 0.02, held: Callable[[psutil.Process], int] = resident
) -> tuple[float, float, str]:
    """Wall seconds, peak memory of a command and its children in MiB, and what it printed.

    Parameters
    ----------
    command
        What is run.
    every
        Seconds from one look at the memory to the next.
    held
        Bytes that a process holds.
    """
    peak, done = 0.0, threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def watch() -> None:
        nonlocal peak
        with suppress(psutil.NoSuchProcess):  # it has ended
            root = psutil.Process(process.pid)
            while not done.wait(every):
                tree = [root, *root.children(recursive=True)]
                peak = max(peak, sum(held(p) for p in tree) / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, errors = process.communicate()
    wall = time.perf_counter() - start
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{command}: {errors[-2000:]}")
    return wall, peak, printed


def in_turn(
    commands: dict[str, list[str]], outputs: dict[str, Path], n: int, others: Callable[[], float] = lambda: 0.0
) -> dict[str, Timing]:
    """Run every command `n` times, in turn, after one warm-up each; what they write is removed between runs.

    Parameters
    ----------
    commands, outputs
        By name.
    n
        Counted runs of each.
    others
        Seconds that processors have worked so far for servers that the commands ask.
    """
    timings = {name: Timing(name) for name in commands}
    for round_ in range(n + 1):
        for name, command in commands.items():
            remove(outputs[name])
            before = _cpu_s() + others()
            wall, peak = run_once(command)
            if round_:
                timings[name].cpu_s.append(_cpu_s() + others() - before)
                timings[name].wall_s.append(wall)
                timings[name].peak_mib.append(peak)
                timings[name].n_bytes = size_of(outputs[name])
    return timings


def _cpu_s() -> float:
    """Seconds that processors have worked for all commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(title: str, timings: dict[str, Timing], ours: str) -> str:
    """A Markdown table, with our wall time over each peer's, pair by pair."""
    lines = [
        f"### {title}",
        "",
        "| | median s | min–max s | processors s | peak MiB | bytes written | ours / this |",
        "|---|---|---|---|---|---|---|",
    ]
    for timing in timings.values():
        pairs = [a / b for a, b in zip(timings[ours].wall_s, timing.wall_s, strict=True)]
        lines.append(
            f"| {timing.name} | {timing.median_s():.2f} | {min(timing.wall_s):.2f}–{max(timing.wall_s):.2f} "
            f"| {statistics.median(timing.cpu_s):.2f} | {statistics.median(timing.peak_mib):.0f} | {timing.n_bytes:,} "
            f"| {statistics.median(pairs):.2f} |"
        )
    return "\n".join(lines) + "\n"


def rate(function: Callable[[], int], seconds: float = 2.0) -> float:
    """Items per second of a function that returns how many items it handled."""
    function()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += function()
    return count / (time.perf_counter() - start)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Meanwhile, so many other processes work without a pause."""
    others = [subprocess.Popen(python("while True: pass")) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def setting() -> str:
    """The machine, in words."""
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    return f"{cores} cores, {memory:.0f} GiB, {platform.machine()}, Python {platform.python_version()}"


def save(folder: Path, name: str, timings: dict[str, Timing]) -> None:
    """Keep the figures as JSON."""
    document = {"setting": setting(), "timings": [asdict(timing) for timing in timings.values()]}
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def python(code: str) -> list[str]:
    """A command that runs some Python; its warm-up leaves bytecode behind, as an installation does of every peer."""
    return ["env", "PYTHONDONTWRITEBYTECODE=", sys.executable, "-c", code]
