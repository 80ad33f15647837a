"""Plans of ingests far larger than this machine, from a sample of a file: ``python -m tests.benchmarks.scale FILE``."""

import sys
from pathlib import Path

from zstore.amounts import show_size
from zstore.writing.planner import extrapolate, take_sample
from zstore.writing.sources.files import find

CASES = [(10**11, 100, 1 << 24, 16), (10**13, 10_000, 1 << 26, 256), (10**15, 100_000, 1 << 27, 4096)]


def main(path: Path) -> None:
    sample = take_sample(find(path, "FILE"), id="id", time="time")
    print(
        f"one thread: parse {sample.n_bytes / sample.parse_s / 1e6:.0f} MB/s, "
        f"write {sample.write_s / sample.n_rows * 2**20:.2f} s a shard; "
        f"{sample.row_bytes} bytes a row on scratch, {sample.stored_bytes:.1f} in the store\n"
    )
    plans = [extrapolate(sample, *case) for case in CASES]
    rows = {
        "workers": [f"{plan.workers:,}" for plan in plans],
        "rows": [f"{plan.n_rows:.1e}" for plan in plans],
        "blocks (parse tasks)": [f"{plan.n_blocks:,} of {show_size(plan.block_bytes)}" for plan in plans],
        "shards (write tasks)": [f"{plan.n_shards:,}" for plan in plans],
        "merge tasks": [f"{plan.tasks.get('merge', 0):,} in {plan.merge_passes} passes" for plan in plans],
        "fan-in of a shard": [f"{plan.fan_in:,}" for plan in plans],
        "scratch": [show_size(plan.scratch_bytes) for plan in plans],
        "store": [f"{show_size(plan.stored_bytes)}, {plan.n_objects:,} objects" for plan in plans],
        "manifest": [show_size(plan.manifest_bytes) for plan in plans],
        "memory of the client": [show_size(plan.client_bytes) for plan in plans],
        "memory of a worker": [show_size(plan.worker_bytes) for plan in plans],
        "hours": [f"{sum(plan.seconds.values()) / 3600:.1f}" for plan in plans],
    }
    print("| | " + " | ".join(show_size(n).replace(".0", "") for n, *_ in CASES) + " |\n|---|---|---|---|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
