"""Suite volumes: AdrenalMNIST3D (or simulated organs) beside MONAI, memory of four processes, and a chain on a CT."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import zstore

from . import volume_peers
from .harness import output_of, remove, setting, size_of
from .our_volumes import BATCH

SIZES = {"train": 1188, "val": 98, "test": 298}
SIDE = 64
ADRENAL = Path("medmnist3d") / "adrenalmnist3d_64.npz"
SCAN = Path("ct") / "nnunet_example_ct_sm.nii.gz"
GOLDEN = Path("ct") / "merlin_chain_golden.json"
PEERS = {"cache": "CacheDataset", "persistent": "PersistentDataset"}
WORKERS = (0, 2)
N_PROCESSES = 4


def simulated(path: Path) -> Path:
    """Ellipsoids, as many and as large as the adrenal glands of MedMNIST, with a label each."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    places = np.indices((SIDE,) * 3)
    for split, n in SIZES.items():
        volumes = np.zeros((n, *(SIDE,) * 3), np.uint8)
        for volume in volumes:
            middle, axes = random.uniform(20, 44, (3, 1, 1, 1)), random.uniform(5, 20, (3, 1, 1, 1))
            volume[(((places - middle) / axes) ** 2).sum(axis=0) < 1] = 255
        arrays |= {f"{split}_images": volumes, f"{split}_labels": random.integers(0, 2, (n, 1), dtype=np.uint8)}
    np.savez_compressed(path, **arrays)
    return path


def prepare(folder: Path, data: Path | None) -> dict[str, Any]:
    """The npz, a CSV of its labels and splits, the store of both, and a file for each training volume for MONAI.

    Raises
    ------
    AssertionError
        If a volume or label of the store is another one than in the npz.
    """
    folder.mkdir(parents=True, exist_ok=True)
    npz, table, store = folder / "organs.npz", folder / "organs.csv", folder / "organs.zarr"
    if not npz.exists():
        if data is not None and (data / ADRENAL).exists():
            shutil.copyfile(data / ADRENAL, npz)
        else:
            simulated(npz)
    arrays = np.load(npz)
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "split", "label", "file", "position"])
        for split in SIZES:
            for n, label in enumerate(arrays[f"{split}_labels"].ravel().tolist()):
                lines.writerow([f"{split}{n:04d}", split, label, f"{npz.name}/{split}_images", n])
    began = time.perf_counter()
    columns: dict[str, Any] = {"file": {"volume": "file"}, "file_position": {"volume": "position"}}
    zstore.ingest(table, store, id="id", freq="rows", leave_out=["split"], file_root=folder, overwrite=True, **columns)
    taken = time.perf_counter() - began
    opened, start = zstore.open_store(store), 0
    for split in sorted(SIZES):  # as ids are
        stop = start + len(arrays[f"{split}_images"])
        np.testing.assert_array_equal(opened.read_field("volume", start, stop), arrays[f"{split}_images"])
        np.testing.assert_array_equal(opened.read("label", start, stop), arrays[f"{split}_labels"].ravel())
        start = stop
    if not (folder / "volumes").exists():
        (folder / "volumes").mkdir()
        for n, volume in enumerate(arrays["train_images"]):
            np.save(folder / "volumes" / f"{n:05d}.npy", volume)
    return {"ingest_s": taken, "n_bytes": size_of(store), "n_volumes": start, "source_bytes": npz.stat().st_size}


def memory(ours: list[str], rows: str) -> dict[str, float]:
    """Bytes that processes hold of one file of rows, once each has read all; shared pages count in shares.

    Parameters
    ----------
    ours
        The command of a process.
    rows
        What the path of the file contains.
    """
    made = [
        subprocess.Popen([*ours, "--hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(N_PROCESSES)
    ]

    def told(word: str) -> int:
        """Proportional bytes of all processes, once all have said so."""
        for process in made:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == word
        return sum(_pss(process.pid, "") for process in made)

    def go_on() -> None:
        for process in made:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    before = told("ready")
    go_on()
    after = told("read")
    shares = sum(_pss(process.pid, rows) for process in made)
    go_on()
    for process in made:
        process.wait()
    return {"of_rows": shares, "grown": after - before}


def _pss(process: int, name: str) -> int:
    """Proportional bytes of the mappings of a process whose path contains a name; all of them where it is empty."""
    total, counts = 0, False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            counts = name in line
        elif first == "Pss:" and counts:
            total += 1024 * int(line.split()[1])
    return total


def chain(folder: Path, data: Path, python: str) -> dict[str, Any]:
    """The Merlin chain on a real CT, in a store, beside MONAI's on the same; differences in HU."""
    table, store = folder / "scan.csv", folder / "scan.zarr"
    table.write_text(f"id,file\nscan,{SCAN.name}\n")
    began = time.perf_counter()
    options: dict[str, Any] = {"file": {"scan": "file"}, "file_chain": {"scan": "merlin"}}
    zstore.ingest(table, store, id="id", freq="rows", file_root=(data / SCAN).parent, overwrite=True, **options)
    found: dict[str, Any] = {"seconds": time.perf_counter() - began}
    volume = zstore.open_store(store).read_field("scan", 0, 1)[0].astype(np.float64)
    golden = json.loads((data / GOLDEN).read_text())
    assert list(volume.shape) == golden["shape"]
    found["golden_hu"] = max(abs(volume[tuple(each["index"])] - each["value"]) * 2000 for each in golden["voxels"])
    found["golden_sum"], found["sum"] = golden["sum"], float(volume.sum())
    peer = [python, "-W", "ignore", volume_peers.__file__, "chain", str(data / SCAN), str(folder / "monai.npy")]
    found["monai"], _ = output_of(peer)
    if "missing" not in found["monai"]:
        theirs = np.load(folder / "monai.npy").astype(np.float64)
        assert theirs.shape == volume.shape
        found["largest_hu"] = float(np.abs(volume - theirs).max() * 2000)
    return found


def run(folder: Path, data: Path | None, n: int) -> None:
    """Prints tables; figures go to ``volumes.json``."""
    own = folder / "volumes"
    made = prepare(own, data)
    store, table = own / "organs.zarr", own / "organs.csv"
    python = folder / "peers" / "bin" / "python"
    peer_python = str(python) if python.exists() else sys.executable
    ours = [sys.executable, "-m", "tests.benchmarks.our_volumes", str(store), str(table), "--cache", str(own)]
    jobs = {("u1", 0): [*ours, "--as", "u1"], ("float", 0): [*ours, "--as", "float"]}
    for how in PEERS:
        for workers in WORKERS:
            read = [peer_python, "-W", "ignore", volume_peers.__file__, how, str(own), "--workers", str(workers)]
            jobs[how, workers] = [*read, "--batch", str(BATCH)]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {job: [] for job in jobs}
    for _ in range(n):
        for job, command in jobs.items():
            result, peak_mib = output_of(command)
            found[job].append({**result, "peak_mib": peak_mib})
            print(f"{job}: {found[job][-1]}", file=sys.stderr, flush=True)
    remove(own / "persistent.out")
    shares = memory(ours, str(own))
    scan = chain(own, data, peer_python) if data is not None and (data / SCAN).exists() else None
    report(made, found, shares, scan)
    runs = [{"name": name, "workers": workers, "runs": runs} for (name, workers), runs in found.items()]
    document = {"setting": setting(), "made": made, "runs": runs, "memory": shares, "chain": scan}
    (folder / "volumes.json").write_text(json.dumps(document, indent=1) + "\n")


def report(
    made: dict[str, Any],
    found: dict[tuple[str, int], list[dict[str, Any]]],
    shares: dict[str, float],
    scan: dict[str, Any] | None,
) -> None:
    """The tables."""
    print(f"### volumes: {made['n_volumes']:,} of {SIDE}^3 bytes, batch {BATCH}\n")
    print(f"ingested in {made['ingest_s']:.1f} s: {made['source_bytes']:,} bytes of npz, {made['n_bytes']:,} stored\n")
    print("| | volumes/s | first epoch, s | peak MiB | u1 / this | float / this |")
    print("|---|---|---|---|---|---|")
    there = {job: runs for job, runs in found.items() if "missing" not in runs[0]}
    rates = {job: statistics.median(each["windows_per_s"] for each in runs) for job, runs in there.items()}
    for name in dict.fromkeys(name for name, _ in rates):
        workers = max((w for other, w in rates if other == name), key=lambda w: rates[name, w])
        rate, runs = rates[name, workers], there[name, workers]
        first_s = statistics.median(each["first_s"] for each in runs)
        peak = max(each["peak_mib"] for each in runs)
        shown = f"MONAI {PEERS[name]}, {workers} workers" if name in PEERS else f"host, {name}"
        ratios = " | ".join(f"{rates[kind, 0] / rate:.1f}" for kind in ("u1", "float"))
        print(f"| {shown} | {rate:,.0f} | {first_s:.1f} | {peak:,.0f} | {ratios} |")
    for job in (job for job in found if job not in there and job[1] == 0):
        print(f"| MONAI {PEERS[job[0]]} | {found[job][0]['missing']} |")
    copy = made["n_volumes"] * SIDE**3
    print(
        f"\n{N_PROCESSES} processes that each read all volumes hold {shares['of_rows'] / copy:.3f} of one copy of the "
        f"{copy / 1e6:,.0f} MB of rows, in proportional pages of the file; with batches and all else they grew by "
        f"{shares['grown'] / 1e6:,.0f} MB\n"
    )
    if scan is not None:
        line = f"chain merlin on a CT: {scan['seconds']:.2f} s into a store; golden voxels within "
        line += f"{scan['golden_hu']:.1e} HU, sum {scan['sum']:.3f} for {scan['golden_sum']:.3f}"
        monai = scan["monai"]
        if "missing" in monai:
            line += f"; MONAI: {monai['missing']}"
        else:
            line += f"; all voxels within {scan['largest_hu']:.1e} HU of MONAI's, {monai['seconds']:.2f} s"
        print(line + "\n")
