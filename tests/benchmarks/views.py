"""Suite view: from `zstore view` to the first picture, from a zoom to its picture, and what the server needs.

A real Chromium drives the page; a zoom goes to a random stretch of a random series, from a day to everything, and ends
when the new lines are drawn. Beside it matplotlib draws the same stretches of the same channels into a PNG.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Browser, Page, sync_playwright

from zstore import Store, ingest, open_store

from .system_data import SYSTEMS

_N_ZOOMS = 50
_N_CHANNELS = 4
_WIDTH = 1600


def run(folder: Path, data: Path | None, n: int) -> None:
    """Each store in turn; those of real data where there are some."""
    stores = {
        "50 M rows, 2,000 series": made(folder / "long", 2_000, 25_000),
        "100,000 series of 60 rows": made(folder / "many", 100_000, 60),
    }
    if data is not None:
        stores["CAMELS, 6 M rows"] = camels(folder, data)
        for name, system in (("Push-T", "robots, images"), ("AdrenalMNIST3D", "hearts")):
            if system in SYSTEMS:
                path = folder / f"view-{name}.zarr"
                if not path.exists():
                    SYSTEMS[system].store(SYSTEMS[system].raw(folder, data), path)
                stores[name] = path
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("suite view: no chromium")
        return
    print("| store | first picture | zoom, median | worst of 50 | matplotlib, median | memory of the server |")
    print("|---|---|---|---|---|---|")
    figures = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, path in stores.items():
            figures[name] = found = measured(browser, open_store(path), n)
            print(
                f"| {name} | {found['first_s']:.2f} s | {1000 * median(found['zoom_s']):.0f} ms | "
                f"{1000 * max(found['zoom_s']):.0f} ms | {1000 * median(found['matplotlib_s']):.0f} ms | "
                f"{found['memory_mib']:.0f} MiB |"
            )
    (folder / "view.json").write_text(json.dumps(figures, indent=1))


def made(folder: Path, n_series: int, n_rows: int) -> Path:
    """A store of hourly numbers that wander, with a day's rhythm."""
    path, random = folder.with_suffix(".zarr"), np.random.default_rng(0)
    if path.exists():
        return path
    source = folder.with_suffix(".parquet")
    start = np.datetime64("1990-01-01", "s").astype(np.int64)
    times = pa.array((start + 3600 * np.arange(n_rows)).astype("datetime64[s]"))
    rhythm = np.sin(np.arange(n_rows) * 2 * np.pi / 24)
    numbers = [(f"c{number}", pa.float32()) for number in range(_N_CHANNELS)]
    schema = pa.schema([("id", pa.string()), ("time", times.type), *numbers])
    together = max(1_000_000 // n_rows, 1)
    with pq.ParquetWriter(source, schema) as writer:
        for first in range(0, n_series, together):
            parts = []
            for number in range(first, min(first + together, n_series)):
                walk = np.cumsum(random.normal(0, 0.05, (_N_CHANNELS, n_rows)), axis=1) + rhythm
                columns = [pa.array(column.astype(np.float32)) for column in walk]
                parts.append(pa.table([pa.array([f"s{number:06d}"] * n_rows), times, *columns], schema=schema))
            writer.write_table(pa.concat_tables(parts))
    ingest(source, path, id="id", time="time")
    source.unlink()
    return path


def camels(folder: Path, data: Path) -> Path:
    """Daily forcing and discharge of 482 catchments."""
    path, raw = folder / "view-camels.zarr", data / "caravan_camels482"
    if not path.exists():
        ingest(raw / "daily_long.csv.gz", path, id="gauge_id", time="date", static=raw / "attributes.csv")
    return path


def measured(browser: Browser, store: Store, n: int) -> dict[str, Any]:
    """Of one store: `n` starts, 50 zooms, and the same stretches by matplotlib."""
    starts = []
    for attempt in range(n):
        began = perf_counter()
        server, address = started(store)
        page = browser.new_context(viewport={"width": _WIDTH, "height": 900}).new_page()
        page.goto(address)
        page.wait_for_function("() => document.querySelector('main table') || document.querySelector('main canvas')")
        starts.append(perf_counter() - began)
        if attempt < n - 1:
            stopped(server)
    zooms, stretches = zoomed(page, store) if store.channels else ([0.0], [])
    memory = psutil.Process(server.pid).memory_info().rss / 2**20
    stopped(server)
    return {
        "first_s": median(starts),
        "zoom_s": zooms,
        "matplotlib_s": [drawn(store, *stretch) for stretch in stretches] or [0.0],
        "memory_mib": memory,
    }


def started(store: Store) -> tuple[subprocess.Popen[str], str]:
    """The command as a person types it, and the address that it prints."""
    words = [sys.executable, "-u", "-m", "zstore", "view", str(store.path), "--no-browser"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().rpartition(" ")[2].strip()


def stopped(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.wait(20)


def zoomed(page: Page, store: Store) -> tuple[list[float], list[tuple[str, list[str], int, int]]]:
    """Seconds of each zoom, and where it went."""
    random, index, seconds, stretches = np.random.default_rng(1), store.index, [], []
    units = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}.get(store.time.unit or "", 1)
    channels = list(store.channels[:_N_CHANNELS])
    for _ in range(_N_ZOOMS):
        position = int(random.integers(store.n_series))
        first, last = int(index.time_start[position]), int(index.time_stop[position])
        length = int((last - first) * 10 ** random.uniform(-3, 0))
        low = first + int(random.integers(max(last - first - length, 0) + 1))
        id_ = str(store.ids[position])
        stretches.append((id_, channels, low, low + length + 1))
        query = "&".join(f"channel={name}" for name in channels)
        hash_ = f"#series?id={id_}&{query}&start={low / units}&stop={(low + length) / units}"
        seconds.append(
            page.evaluate(
                """async (hash) => {
                  const before = window.zstoreView.shown.series;
                  const began = performance.now();
                  location.hash = hash;
                  while (window.zstoreView.shown.series === before) await new Promise((next) => setTimeout(next, 1));
                  await new Promise((next) => requestAnimationFrame(next));
                  return (performance.now() - began) / 1000;
                }""",
                hash_,
            )
        )
    return seconds, stretches


def drawn(store: Store, id_: str, channels: list[str], low: int, high: int) -> float:
    """Seconds that matplotlib takes for the same stretch."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    began = perf_counter()
    series = store.series(id_)
    show = store.time.show
    axes = series.plot(channels, show(low), show(high))
    axes[0].figure.savefig("/dev/null", format="png", dpi=100)
    plt.close(axes[0].figure)
    return perf_counter() - began
