"""What many tests share: small tables, stores made from them, and the commands as a user runs them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forks
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other; torch reads it when it is loaded

from zstore import Store, ingest, open_store
from zstore.storage.beneath import flush
from zstore.storage.urls import open_storage

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).parents[1]
gc.disable()  # until all tests are collected: they are a million objects, which all stay

# No test has a clock: a slow machine, or a busy one, is no fault of the code. Fixtures are made once for all examples.
# Examples are few, and the same in every run, so that a change passes or fails by what it changed. `make test-long` has
# more, and others each time (`HYPOTHESIS_PROFILE=fresh`). `deep` has ten times as many where a test does not say how
# many.
for profile, examples in {"tests": 20, "fresh": 40, "deep": 400}.items():
    settings.register_profile(
        profile,
        derandomize=profile == "tests",
        deadline=None,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))


def few(n_examples: int) -> int:
    """So many examples in long runs, and half of them in the normal one: for tests that say how many they have."""
    return n_examples if os.environ.get("HYPOTHESIS_PROFILE", "tests") != "tests" else n_examples // 2


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a plain CSV."""
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The program of a browser, if there is one."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; a test that asks for one fails where there is none."""
    from playwright.sync_api import sync_playwright  # only these tests need it

    if CHROMIUM is None:
        pytest.fail("no browser: this test needs chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


SMALL_GRID: dict[str, Any] = {"chunk_rows": 8, "shard_rows": 16}
"""Options of an ingest, by which even small tables have several chunks and shards."""


def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave flushing to the system, as tests do that are not about it."""
    monkeypatch.setattr("zstore.storage.flush.flush", lambda *_: None)


def stored(path: Path | str) -> dict[str, bytes]:
    """Every object of a store but those that record times."""
    storage = open_storage(path)
    timed = [key for key in storage.sizes() if key == "zarr.json" or key.endswith("/root.json")]
    return {key: storage.read(key) for key in storage.sizes() if key not in timed}


def table(path: Path, n_series: int = 5, n_days: int = 40, seed: int = 0) -> Path:
    """A long CSV in time order: ids with leading zeros, two channels, some values missing."""
    random = np.random.default_rng(seed)
    rows = []
    for day in range(n_days):
        for number in range(n_series):
            value = "" if random.random() < 0.1 else f"{random.normal():.2f}"
            date = np.datetime64("2001-01-01") + np.timedelta64(day, "D")
            rows.append([f"{number:04d}", date, value, f"{number * 1000 + day}"])
    return write_table(path, ["site", "date", "level", "count"], rows)


@pytest.fixture(autouse=True, scope="session")
def cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests and the commands that they run leave the user's cache alone."""
    os.environ["ZSTORE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def no_flushes() -> Iterator[None]:
    """Leave flushing to the system: no power is cut here. Commands that tests start flush what they write."""
    with pytest.MonkeyPatch.context() as patch:
        no_flush(patch)
        yield


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush as everywhere else, in a test that is about it."""
    monkeypatch.setattr("zstore.storage.flush.flush", flush)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return table(tmp_path / "rows.csv")


@pytest.fixture
def store(csv: Path, tmp_path: Path) -> Store:
    ingest(csv, tmp_path / "rows.zarr", id="site", time="date")
    return open_store(tmp_path / "rows.zarr")


@pytest.fixture(scope="session")
def catchments(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight simulated catchments over four years, with gaps, missing values and static attributes."""
    from lightning_app.demo.catchments import simulate, write  # imports torch

    folder = tmp_path_factory.mktemp("catchments")
    rows, attributes = write(simulate(n_catchments=8, n_years=4), folder)
    ingest(rows, folder / "catchments.zarr", id="gauge_id", time="date", static=attributes)
    return open_store(folder / "catchments.zarr")


@pytest.fixture(scope="session")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One hourly series of three waves, 2,000 hours, without an id column."""
    folder = tmp_path_factory.mktemp("hourly")
    hours = np.arange(2000)
    times = (np.datetime64("2020-01-01T00", "s") + (hours * 3600).astype("m8[s]")).astype(str)
    random = np.random.default_rng(1)
    waves = [np.sin(2 * np.pi * hours / period) * 3 + random.normal(0, 0.1, 2000) for period in (24, 24, 168)]
    rows = [[time.replace("T", " "), *(f"{wave[n]:.3f}" for wave in waves)] for n, time in enumerate(times)]
    write_table(folder / "hourly.csv", ["date", "a", "b", "c"], rows)
    ingest(folder / "hourly.csv", folder / "hourly.zarr", time="date")
    return open_store(folder / "hourly.zarr")


@pytest.fixture(scope="session")
def python() -> Iterator[str]:
    """The path of a Python that runs the project's commands without seconds of imports."""
    with forks.serving() as path:
        yield path


def processes() -> Any:
    """The standard library's processes, as forks of one that has torch and the project imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_app.cli", "distributed"])
    return context


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[None]:
    """Workers of Dask clusters that are started here are such forks too: imports take each of them seconds."""
    import dask.config

    processes()
    forkserver.ensure_running()  # before Dask says what it imports
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


def in_two_processes(share: Callable[[int, str], None], folder: Path) -> None:
    """Let two processes do a share each, of rank 0 and 1, with a folder in common."""
    workers = [processes().Process(target=share, args=(rank, str(folder))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0


@pytest.fixture
def run(tmp_path: Path, python: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m MODULE ARGUMENTS`` in a folder of its own, as a user would."""

    def command(module: str, *arguments: object, check: bool = False) -> subprocess.CompletedProcess[str]:
        words = [python, "-m", module, *map(str, arguments)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return command


@pytest.fixture
def app(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    python: str,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m lightning_app ARGUMENTS`` in this process: the same code, without seconds of imports."""
    from lightning_app.cli import main  # not above: the process that deals tests out needs no torch

    def command(*arguments: object, check: bool = False) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["lightning_app"])
        monkeypatch.setattr(sys, "executable", python)  # for commands that start others
        capfd.readouterr()
        caplog.clear()
        try:
            code = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capfd.readouterr()
        done = subprocess.CompletedProcess(words, code, printed.out + "\n".join(caplog.messages), printed.err)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return command


def pytest_unconfigure() -> None:
    """Leave all objects to the end of the interpreter, which takes some of them apart in its own order."""
    gc.unfreeze()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the command before what tests import, as a user's process does; not in the process that deals tests out.

    ``typing`` keeps one of ``Union[int, float]`` and ``Union[float, int]``: that of whoever asks first. If another
    library does, Lightning's ``limit_train_batches: 1`` is read as 1.0, which is all batches.
    """
    if session.config.getoption("dist", "no") == "no":
        import lightning_app.cli  # noqa: F401


def pytest_collection_finish() -> None:
    """Collect garbage from now on, and never look at what was imported and collected before."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of minutes an hour each: beside other work they take several times as long."""
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))
