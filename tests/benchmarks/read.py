"""Suite read: random windows of 96 + 24 rows through the data module, and as other libraries read them, in one run."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zstore import WindowIndex, WindowShape, ingest, open_store

from . import peers
from .harness import output_of, remove, setting, size_of
from .ingest import generate

BATCHES = (256, 2048)
MEASURED_OFTEN = ("memmap", "litdata")  # the peers that ratios are given for
WORKERS = (0, 2)


def prepare(folder: Path) -> Path:
    """4 M rows x 16 channels of 2,000 series: the store, and what peers read."""
    target = folder / "wide16.zarr"
    if not (target / "zarr.json").exists():
        ingest(generate(folder / "wide16.csv", 2000, 2000, 16), target, id="id", time="time", overwrite=True)
    store = open_store(target)
    rows = np.empty((store.n_rows, len(store.channels)), np.float32)
    store.decode(store.channels, rows)
    np.save(folder / "rows.npy", rows)
    shape = WindowShape(peers.LOOKBACK, peers.SPAN - peers.LOOKBACK)
    index = WindowIndex.build(store.index.runs, shape, store.schema.time.freq)
    np.save(folder / "starts.npy", index.locate(np.arange(len(index)))[0])
    return target


def prepare_peers(python: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What each peer makes of the rows: seconds and bytes, or what it lacks."""
    found = {}
    for name in peers.PREPARE:
        out = folder / f"{name}.out"
        remove(out)
        done, _ = output_of([python, "-W", "ignore", peers.__file__, "prepare", name, str(folder)])
        found[name] = done if "missing" in done else {**done, "n_bytes": size_of(out) if out.exists() else 0}
        print(f"prepared {name}: {found[name]}", file=sys.stderr)
    return found


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints tables; figures go to ``read.json``, a chart to ``read.png``."""
    store, python = prepare(folder), folder / "peers" / "bin" / "python"
    peer_python = str(python) if python.exists() else sys.executable
    made = prepare_peers(peer_python, folder)
    decoded = (folder / "rows.npy").stat().st_size
    ours = [sys.executable, "-m", "tests.benchmarks.ours", str(store), "--cache", str(folder)]
    stream = ["--residency", "stream", "--budget", f"{decoded // 8}B"]
    jobs: dict[tuple[str, int, int], list[str]] = {}
    for batch in BATCHES:
        jobs["host", batch, 0] = [*ours, "--batch", str(batch)]
        jobs["stream", batch, 0] = [*ours, *stream, "--batch", str(batch)]
        jobs["stream, stride 24", batch, 0] = [*ours, *stream, "--batch", str(batch), "--stride", "24"]
    for name in (name for name in made if "missing" not in made[name]):
        for batch in BATCHES:
            for workers in WORKERS:
                read = [peer_python, "-W", "ignore", peers.__file__, "read", name, str(folder)]
                jobs[name, batch, workers] = [*read, "--batch", str(batch), "--workers", str(workers)]
    found = measured(jobs, made, n)
    rates = {job: statistics.median(each["windows_per_s"] for each in runs) for job, runs in found.items()}
    report(folder, made, found, rates)


def measured(
    jobs: Mapping[tuple[str, int, int], list[str]], made: dict[str, dict[str, Any]], n: int
) -> dict[tuple[str, int, int], list[dict[str, Any]]]:
    """What each reader measured, but for peers that lack a package when they read: `made` says which."""
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {job: [] for job in jobs}
    for round_ in range(n):
        for job, command in jobs.items():
            of_peer = made.get(job[0])
            if of_peer is not None and ("missing" in of_peer or (round_ and job[0] not in MEASURED_OFTEN)):
                continue
            result, peak_mib = output_of(command)
            if "missing" in result:
                made[job[0]] = result
                continue
            found[job].append({**result, "peak_mib": peak_mib})
            print(f"{job}: {found[job][-1]}", file=sys.stderr, flush=True)
    return {job: runs for job, runs in found.items() if "missing" not in made.get(job[0], {})}


def best(rates: dict[tuple[str, int, int], float], name: str, batch: int) -> float:
    """Windows per second with the better number of workers."""
    return max(rate for (other, size, _), rate in rates.items() if (other, size) == (name, batch))


def report(
    folder: Path,
    made: dict[str, dict[str, Any]],
    found: dict[tuple[str, int, int], list[dict[str, Any]]],
    rates: dict[tuple[str, int, int], float],
) -> None:
    """The tables, the JSON, the chart."""
    names = list(dict.fromkeys(name for name, _, _ in rates))
    n_channels = np.load(folder / "rows.npy", mmap_mode="r").shape[1]
    print(
        f"### read: 4 M rows x {n_channels}, random windows of {peers.LOOKBACK} + {peers.SPAN - peers.LOOKBACK} rows\n"
    )
    print(
        "| | windows/s, batch 256 | batch 2,048 | MB/s | preparing, s | bytes | peak MiB | host / this, 256 | 2,048 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sorted(names, key=lambda name: -best(rates, name, 256)):
        per_s = [best(rates, name, batch) for batch in BATCHES]
        peak = max(each["peak_mib"] for job, runs in found.items() if job[0] == name for each in runs)
        prepared = made.get(name, {"prepare_s": 0.0, "n_bytes": size_of(folder / "wide16.zarr")})
        megabytes = max(per_s) * peers.SPAN * n_channels * 4 / 1e6
        ratios = [best(rates, "host", batch) / rate for batch, rate in zip(BATCHES, per_s, strict=True)]
        cells = [*(f"{rate:,.0f}" for rate in per_s), f"{megabytes:,.0f}", f"{prepared['prepare_s']:.1f}"]
        cells += [f"{prepared['n_bytes']:,}", f"{peak:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()
    say_missing(made)
    for batch in BATCHES:
        host = found["host", batch, 0]
        ratio = statistics.median(each["windows_per_s"] / each["memcpy"] for each in host)
        parts = {
            name: statistics.median(each["microseconds"][name] for each in host) for name in host[0]["microseconds"]
        }
        shown = ", ".join(f"{name} {value:.0f}" for name, value in parts.items())
        print(f"host, batch {batch}: {ratio:.2f} of a contiguous memcpy; microseconds of a batch: {shown}")
    for job in (job for job in found if job[0].startswith("stream")):
        last = found[job][-1]
        print(
            f"{job[0]}, batch {job[1]}: decoded {last['decoded_per_epoch']:.2f} times an epoch, memory over idle "
            f"{last['peak_over_idle'] / 1e6:.1f} MB of {last['budget']}"
        )
    print()
    document = {
        "setting": setting(),
        "prepared": made,
        "runs": [{"name": job[0], "batch": job[1], "workers": job[2], "runs": runs} for job, runs in found.items()],
    }
    (folder / "read.json").write_text(json.dumps(document, indent=1) + "\n")
    draw(folder / "read.png", names, rates)


def say_missing(made: Mapping[str, dict[str, Any]]) -> None:
    """A line for each peer that was not measured."""
    for name, known in made.items():
        if "missing" in known:
            print(f"{name} is not installed: {known['missing']}")


def draw(path: Path, names: list[str], rates: dict[tuple[str, int, int], float]) -> None:
    """Bars of windows per second, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    order = sorted(names, key=lambda name: best(rates, name, 256))
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(order) + 1.2), layout="constrained")
    values = [best(rates, name, 256) for name in order]
    ours = ("host", "stream")
    colours = ["tab:blue" if name.startswith(ours) else "tab:gray" for name in order]
    bars = axes.barh(order, values, color=colours)
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 4)
    axes.set_xlabel("random windows per second, batch 256")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
