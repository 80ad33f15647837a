"""Memory: what there is, who gets which share of it, and what an ingest takes."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore import UsageError, open_store, verify
from zstore.format.encodings.numbers import Plain
from zstore.format.moments import Moments
from zstore.writing import pipeline, shards, steps
from zstore.writing.parse import BLOCK_COPIES, block_bytes
from zstore.writing.scheduler import Scheduler
from zstore.writing.shard_parts import PartReport

MIB = 1 << 20


@given(
    limit=st.integers(256 * MIB, 1 << 40),
    workers=st.integers(1, 512),
    n_bytes=st.integers(1, 1 << 45),
    there=st.integers(256 * MIB, 1 << 40),
)
def test_blocks_of_all_threads_fit_into_the_memory_limit_and_into_the_memory_that_there_is(
    limit: int, workers: int, n_bytes: int, there: int
) -> None:
    with pytest.MonkeyPatch.context() as machine:
        machine.setattr("zstore.writing.scheduler.total_memory", lambda: there, raising=False)
        runner = Scheduler(workers, memory_limit=limit)
    size = block_bytes(runner.memory_limit, runner.sharers, n_bytes)
    assert 1 <= runner.workers <= workers
    assert runner.workers * BLOCK_COPIES * size <= min(limit, there)
    assert runner.workers == workers or (runner.workers + 1) * 256 * MIB > min(limit, there // 4 * 3)


@pytest.mark.parametrize(("workers", "n_threads"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_a_gigabyte_is_shared_by_four_threads_at_most(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, n_threads: int
) -> None:
    monkeypatch.setattr("zstore.writing.scheduler.total_memory", lambda: 1 << 36, raising=False)
    pools: list[int] = []
    pool = zstore.writing.threads.ThreadPoolExecutor  # type: ignore[attr-defined]
    monkeypatch.setattr("zstore.writing.threads.ThreadPoolExecutor", lambda n: pools.append(n) or pool(n))
    zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date", workers=workers, memory_limit=1 << 30)
    assert set(pools) == {n_threads}


def test_large_blocks_take_threads_away() -> None:
    assert Scheduler(64, memory_limit=1 << 30, task_bytes=BLOCK_COPIES << 26).workers == 2


def test_a_memory_limit_too_small_for_one_thread_is_refused(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"memory limit of 10 bytes; expected at least .*256MiB.*--memory-limit"):
        zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date", memory_limit=10)
    assert not (tmp_path / "s.zarr").exists()


def machine(root: Path, group: str, files: dict[str, str]) -> Path:
    """A folder that looks like ``/`` of a system with control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "memory.max", "memory.current", "inactive_file"
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def group(names: tuple[str, str, str], folder: str, limit: str, used: int = 0, cached: int = 0) -> dict[str, str]:
    statistics = f"anon 1\n{names[2]} {cached}\nactive_file 3\n"
    values = {names[0]: limit + "\n", names[1]: f"{used}\n", "memory.stat": statistics}
    return {f"{folder}/{name}": text for name, text in values.items()}


UNLIMITED = str(2**63 - 4096)
GROUPS = {
    "v2": ("0::/user/job\n", group(V2, "user/job", str(512 * MIB), 200 * MIB, 80 * MIB)),
    "v2, above": (
        "0::/user/job\n",
        {**group(V2, "user/job", "max", 200 * MIB), **group(V2, "user", str(512 * MIB), 200 * MIB, 80 * MIB)},
    ),
    "v2, throttled": (
        "0::/job\n",
        {**group(V2, "job", "max", 200 * MIB, 80 * MIB), "job/memory.high": str(512 * MIB)},
    ),
    "v2, a container's own": ("0::/\n", group(V2, ".", str(512 * MIB), 200 * MIB, 80 * MIB)),
    "v2, outside": ("0::/../other\n", group(V2, ".", str(512 * MIB), 200 * MIB, 80 * MIB)),
    "v1": (
        "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n",
        {
            **group(V1, "memory/job", str(512 * MIB), 200 * MIB, 80 * MIB),
            **group(V1, "memory", UNLIMITED, 900 * MIB),
        },
    ),
    "v1, seen from a container": (
        "4:memory:/docker/0123\n",
        group(V1, "memory", str(512 * MIB), 200 * MIB, 80 * MIB),
    ),
    "both": (
        "4:memory:/job\n0::/job\n",
        {**group(V1, "memory/job", str(512 * MIB), 200 * MIB, 80 * MIB), "unified/job/cgroup.procs": "1\n"},
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_memory_is_what_the_control_group_allows(tmp_path: Path, kind: str) -> None:
    from zstore import free_memory, total_memory

    root = machine(tmp_path, *GROUPS[kind])
    assert total_memory(root) == 512 * MIB
    assert free_memory(root) == min(psutil.virtual_memory().available, 392 * MIB)


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("0::/job\n", group(V2, "job", "max")),
        ("4:memory:/job\n", group(V1, "memory/job", UNLIMITED)),
        ("0::/gone\n", {}),
        ("0::/job\n", group(V2, "job", "broken")),
        ("4:cpu:/job\n", group(V1, "memory/job", str(MIB))),
    ],
)
def test_without_a_limit_memory_is_that_of_the_machine(tmp_path: Path, lines: str, files: dict[str, str]) -> None:
    from zstore import total_memory

    assert total_memory(machine(tmp_path, lines, files)) == psutil.virtual_memory().total
    assert total_memory(tmp_path / "no proc") == psutil.virtual_memory().total


def test_a_group_that_has_used_everything_leaves_nothing(tmp_path: Path) -> None:
    from zstore import free_memory

    assert free_memory(machine(tmp_path, "0::/job\n", group(V2, "job", str(MIB), 2 * MIB))) == 0


def test_budgets_and_threads_know_the_control_group(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lightning_app.data.rows.residency import choose, room

    root = machine(tmp_path / "root", "0::/job\n", group(V2, "job", str(700 * MIB), 100 * MIB))
    monkeypatch.setattr("zstore.memory._ROOT", root)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1 << 36, available=1 << 35))
    assert room(0.5, None).limit == 300 * MIB
    assert room("400MiB", None).limit == 400 * MIB
    assert room("8GiB", None).limit == room(1.0, None).limit == 540 * MIB
    assert choose("stream", 10, 4, torch.device("cpu"), "8GiB", tmp_path, 2).limit == 270 * MIB
    assert "memory budget of 8.59 GB: taking 0.57 GB of 0.63 GB free in RAM" in caplog.text
    runner = Scheduler(64, memory_limit=1 << 36)
    assert (runner.workers, runner.memory_limit) == (2, 525 * MIB)
    assert Scheduler(64).workers == 1
    assert zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date", workers=64).n_stored == 200
    assert verify(open_store(tmp_path / "s.zarr")).faults == ()


# What a task takes.

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(sizes, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_moments_are_the_same_bits_however_many_rows_they_are_made_of_at_once(
    sizes: list[int], together: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(0, 1000, sum(sizes)).astype(np.float32)
    values[random.random(len(values)) < random.choice([0.0, 0.3])] = np.nan
    starts = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_TOGETHER_ROWS", together)
        made = shards._segment_moments(values, Plain("float32"), starts)
    whole = Moments.of_segments(values.astype(np.float64), starts)
    assert {n: v.tobytes() for n, v in made.fields().items()} == {n: v.tobytes() for n, v in whole.fields().items()}


@given(sizes, st.integers(1, 9), st.lists(st.integers(1, 3), min_size=360, max_size=360))
def test_steps_are_the_same_however_many_rows_are_looked_at_at_once(
    sizes: list[int], stretch: int, forward: list[int]
) -> None:
    codes = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    times = np.cumsum(forward[: len(codes)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_STRETCH_ROWS", stretch)
        found = steps.encode_steps(codes, times, 5)
    inside = [n for n in range(1, len(codes)) if codes[n] == codes[n - 1]]
    rows = [int(row) + n for row, length in zip(found.row, found.length, strict=True) for n in range(length)]
    assert rows == [5 + n for n in inside]
    assert np.repeat(found.step, found.length).tolist() == [int(times[n] - times[n - 1]) for n in inside]
    runs = zip(found.row[1:], found.row[:-1] + found.length[:-1], found.step[1:], found.step[:-1], strict=True)
    assert all(first != behind or step != before for first, behind, step, before in runs)


def test_the_shard_of_a_table_takes_a_few_bytes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_rows, peaks, write = 1 << 19, [], shards.write_part

    def traced(*arguments: Any, **options: Any) -> PartReport:
        tracemalloc.start()
        try:
            return write(*arguments, **options)
        finally:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    monkeypatch.setattr(pipeline, "write_part", traced)
    values = np.where(np.arange(n_rows) % 7, np.arange(n_rows) / 3, np.nan)
    table = pa.table({"id": np.arange(n_rows) // 4096, "t": np.arange(n_rows) % 4096, "v": values})
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t", time_unit="steps", workers=1)
    assert len(peaks) == 1
    assert peaks[0] < 48 * n_rows
