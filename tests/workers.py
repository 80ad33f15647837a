"""Workers of a Dask cluster as processes of their own, which nobody starts again when they are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster


class Workers:
    """A scheduler on loopback, and processes that somebody else started.

    Parameters
    ----------
    n
        How many there are.
    """

    def __init__(self, n: int) -> None:
        self.cluster = LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0")  # type: ignore[no-untyped-call]
        self.client = Client(self.cluster, set_as_default=False)  # type: ignore[no-untyped-call]
        self.processes = [self.start() for _ in range(n)]
        self.wait(n)

    @property
    def address(self) -> str:
        return str(self.cluster.scheduler_address)

    @property
    def n_there(self) -> int:
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def start(self, *options: object, folder: Path | None = None) -> subprocess.Popen[bytes]:
        """Start one worker, in some folder."""
        words = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--memory-limit", "1GiB", *map(str, options)]
        return subprocess.Popen(
            [sys.executable, "-m", "dask", "worker", self.address, *words],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self, n: int) -> None:
        """Wait until there are so many."""
        end = time.monotonic() + 120
        while self.n_there != n:
            assert time.monotonic() < end, f"{self.n_there} workers"
            time.sleep(0.1)

    def replace(self, number: int) -> None:
        """Kill one that is at work, and start another in its place."""
        self.processes[number].kill()
        self.processes[number].wait()
        self.processes[number] = self.start()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.client.close()  # type: ignore[no-untyped-call]
        self.cluster.close()


def process_of(_: int) -> int:
    """The process that a task runs in, after a while."""
    time.sleep(0.3)
    return os.getpid()


class Killer:
    """Takes the place of progress: kills a worker when some of a phase is done, and another one two tasks later.

    Parameters
    ----------
    workers
        Of whom two are replaced.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers, self._n_reports, self.n_kills = workers, 0, 0

    def __call__(self, phase: str, done: int, total: int, unit: str) -> Any:
        if phase != "query" and 0 < done < total:  # of a query this process asks
            self._n_reports += 1
            if self._n_reports in (1, 3):
                self._workers.replace(self.n_kills)
                self.n_kills += 1
