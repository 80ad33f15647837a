"""Speed and memory of a fit: ``python -m tests.benchmarks.one_fit --config …``, with the flags of ``fit``.

Prints one line: windows per second, the shares of the time that went into waiting for data and between steps; seconds
of the whole fit; megabytes that the process had before any row was read (torch, Lightning, the model), the most that it
had, and that most again as private memory and as files that are mapped, which may be dropped and are shared.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

from lightning_app.app_cli import AppCLI
from lightning_app.cli import main
from lightning_app.monitor import Monitor, peak_bytes

_EVERY_S = 0.005


def held() -> dict[str, int]:
    """Kilobytes of this process: all, private, of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "Rss"))}
    return {"all": found["VmRSS"], "private": found["RssAnon"], "files": found["RssFile"] + found["RssShmem"]}


class Watch:
    """Looks at the memory of this process again and again."""

    def __init__(self) -> None:
        self.most = held()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            now = held()
            self.most = {name: max(self.most[name], now[name]) for name in now}

    def end(self) -> dict[str, int]:
        """The most that was seen of each."""
        self._ended.set()
        self._thread.join()
        return self.most


def run(words: list[str]) -> None:
    """Fit, and print."""
    before: list[dict[str, int]] = []
    figures: dict[str, float] = {}
    plain, plain_end = AppCLI.before_fit, Monitor.on_fit_end

    def noted(cli: AppCLI) -> None:
        before.append(held())
        plain(cli)

    def ended(monitor: Monitor, *given: Any) -> None:
        figures.update(monitor.total.figures())
        plain_end(monitor, *given)

    watch, began = Watch(), perf_counter()
    # The model is built before_fit, and no row is read.
    with patch.object(AppCLI, "before_fit", noted), patch.object(Monitor, "on_fit_end", ended):
        code = main(["fit", "--quiet", *words])
    most, (start,) = watch.end(), before
    peak = peak_bytes() // 1024
    print(
        f"{figures['perf/windows_per_s']:,.0f} windows/s, waiting {figures['perf/wait_share']:.1%}, "
        f"between steps {figures['perf/between_share']:.1%}, {perf_counter() - began:.1f} s; "
        f"before {start['all'] / 1e3:.0f} MB (private {start['private'] / 1e3:.0f}), peak {peak / 1e3:.0f} MB "
        f"(private {most['private'] / 1e3:.0f}, files {most['files'] / 1e3:.0f}), "
        f"beyond {(peak - start['all']) / 1e3:.0f} MB"
    )
    sys.exit(code)


if __name__ == "__main__":
    run(sys.argv[1:])
