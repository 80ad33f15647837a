"""Suite view: from `zstore view` to the first picture, from a zoom to its picture, and what the server needs.

A real Chromium drives the page; a zoom goes to a random stretch of a random series, from a day to everything, and ends
when the new lines are drawn. Beside it matplotlib draws the same stretches of the same channels into a PNG.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Browser, Page, sync_playwright

from zstore import Store, ingest, open_store
from zstore.view import Clock

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
        figures["fit"] = beside = fit_beside(browser, folder, max(n, 3))
    figures["clients"] = clients = fit_beside_clients(folder, max(n, 3))
    alone, watched = (median(rates) for rates in (beside["alone"], beside["ten pages"]))
    print(f"\nwindows/s of a fit: alone {alone:,.0f}, beside ten pages {watched:,.0f}, ratio {watched / alone:.3f}")
    alone, watched = (median(clients[name]) for name in ("alone", "ten clients"))
    print(
        f"beside ten clients without a browser {watched:,.0f}, ratio {watched / alone:.3f}; the server takes "
        f"{1000 * median(clients['cpu_s_a_zoom']):.1f} ms of a processor for a zoom"
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
    random, index, clock, seconds, stretches = np.random.default_rng(1), store.index, Clock.of(store), [], []
    channels = list(store.channels[:_N_CHANNELS])
    for _ in range(_N_ZOOMS):
        position = int(random.integers(store.n_series))
        first, last = int(index.time_start[position]), int(index.time_stop[position])
        length = int((last - first) * 10 ** random.uniform(-3, 0))
        low = first + int(random.integers(max(last - first - length, 0) + 1))
        id_ = str(store.ids[position])
        stretches.append((id_, channels, low, low + length + 1))
        query = "&".join(f"channel={quote(name)}" for name in channels)
        changed(page, "(hash) => { location.hash = hash }", f"#series?id={quote(id_)}&{query}")
        page.wait_for_function("() => window.zstoreView.part()?.look")
        zoom = "([low, high]) => window.zstoreView.part().look(low, high)"
        seconds.append(changed(page, zoom, [clock.second(low), clock.second(low + length)]))
    return seconds, stretches


def changed(page: Page, action: str, argument: Any) -> float:
    """Seconds from something that is done to the picture that it leads to."""
    found: float = page.evaluate(
        f"""async (argument) => {{
          const before = window.zstoreView.shown.series;
          const began = performance.now();
          ({action})(argument);
          while (window.zstoreView.shown.series === before) await new Promise((next) => setTimeout(next, 1));
          await new Promise((next) => requestAnimationFrame(next));
          return (performance.now() - began) / 1000;
        }}""",
        argument,
    )
    return found


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


def fit_beside(browser: Browser, folder: Path, n: int) -> dict[str, list[float]]:
    """Windows/s of fits without anybody looking, and with ten pages that look at the store; in turn.

    Browsers have the least priority, for they stand for those of other machines; the server has its own.
    """
    store = open_store(made(folder / "fitted", 50, 20_000))
    rates: dict[str, list[float]] = {"alone": [], "ten pages": []}
    for _ in range(n):
        rates["alone"].append(fitted(folder, store))
        server, address = started(store)
        context = browser.new_context(viewport={"width": _WIDTH, "height": 900})
        pages = [context.new_page() for _ in range(10)]
        for page in pages:
            page.goto(address)
            page.evaluate("() => { location.hash = '#series' }")
            page.wait_for_function("() => window.zstoreView.shown.series && window.zstoreView.part()?.zoom")
            page.evaluate("() => setInterval(() => window.zstoreView.part().zoom(Math.random() < 0.5 ? 0.5 : 2), 5000)")
        for process in psutil.Process().children(recursive=True):
            if "chrom" in process.name():
                process.nice(19)
        sleep(2)
        rates["ten pages"].append(fitted(folder, store))
        context.close()
        stopped(server)
    return rates


def fit_beside_clients(folder: Path, n: int) -> dict[str, list[float]]:
    """Windows/s of fits alone, and beside ten clients that ask what a page asks at a zoom, every 5 s; in turn.

    They draw nothing, so what the fit loses is the server's share. Its processor time for a zoom is told beside it.
    """
    store = open_store(made(folder / "fitted", 50, 20_000))
    found: dict[str, list[float]] = {"alone": [], "ten clients": [], "cpu_s_a_zoom": []}
    for _ in range(n):
        found["alone"].append(fitted(folder, store))
        server, address = started(store)
        over, zooms = threading.Event(), [0] * 10
        clients = [threading.Thread(target=zooming, args=(address, store, seed, over, zooms)) for seed in range(10)]
        for client in clients:
            client.start()
        sleep(2)
        before, n_before = cpu_s(server.pid), sum(zooms)
        found["ten clients"].append(fitted(folder, store))
        found["cpu_s_a_zoom"].append((cpu_s(server.pid) - before) / max(sum(zooms) - n_before, 1))
        over.set()
        for client in clients:
            client.join()
        stopped(server)
    return found


def zooming(address: str, store: Store, seed: int, over: threading.Event, zooms: list[int]) -> None:
    """Ask for a random stretch of a random series, as a page does, every 5 s; counts its answers in `zooms`."""
    random, index, clock = np.random.default_rng(seed), store.index, Clock.of(store)
    origin = address.partition("/?")[0]
    with httpx.Client(follow_redirects=True, timeout=60) as client:
        client.get(address)
        opening = client.get(f"{origin}/api/overview").json()["opening"]
        while not over.wait(5 * random.uniform(0.9, 1.1)):
            position = int(random.integers(store.n_series))
            first, last = int(index.time_start[position]), int(index.time_stop[position])
            low, high = sorted(random.integers(first, last, 2).tolist())
            asked: dict[str, Any] = {"id": str(store.ids[position]), "channel": list(store.channels[:_N_CHANNELS])}
            asked |= {"start": clock.second(low), "stop": clock.second(high + 1), "points": _WIDTH, "opening": opening}
            client.get(f"{origin}/api/series", params=asked).raise_for_status()
            zooms[seed] += 1


def cpu_s(pid: int) -> float:
    """Seconds of processors that a process has taken."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def fitted(folder: Path, store: Store) -> float:
    """Windows/s of a small LSTM, the median over its reports."""
    run_folder = folder / "fit"
    shutil.rmtree(run_folder, ignore_errors=True)
    options = {
        "data.store": store.path, "data.targets": "[c0]", "data.lookback": 48, "data.horizon": 12,
        "data.batch_size": 256, "model": "LSTM", "trainer.max_steps": 400, "trainer.log_every_n_steps": 50,
        "trainer.limit_val_batches": 1, "trainer.default_root_dir": run_folder,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    subprocess.run([sys.executable, "-m", "lightning_app", "fit", *words, "--quiet"], check=True)
    logged = pd.read_csv(run_folder / "logs" / "metrics.csv")["perf/windows_per_s"].dropna()
    return float(logged.iloc[1:].median())
