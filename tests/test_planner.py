"""A dry run says how large an ingest would be, and does nothing."""

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_table

import zstore
from zstore.format.layout import SHARD_ROWS
from zstore.writing import planner
from zstore.writing.fan_in import MOST_FILES
from zstore.writing.planner import Sample, extrapolate, plan_ingest

Run = Callable[..., subprocess.CompletedProcess[str]]

SAMPLE = Sample(
    n_bytes=10**7,
    n_rows=10**5,
    n_series=2000,
    row_bytes=40,
    stored_bytes=20,
    parse_s=0.05,
    write_s=0.02,
    n_channels=12,
    growth=1,
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [[f"s{n % 20}", n // 20, n % 40 / 10, f"w{n % 3}"] for n in range(20_000)]
    return write_table(tmp_path / "rows.csv", ["id", "t", "v", "kind"], rows)


@pytest.mark.parametrize("packed", [False, True])
def test_the_plan_of_a_table_is_near_what_its_ingest_does(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(planner, "_SAMPLE_BYTES", 1 << 17)
    source = tmp_path / "rows.csv.gz" if packed else table
    if packed:
        source.write_bytes(gzip.compress(table.read_bytes()))
    planned = plan_ingest(source, id="id", time="t", blocksize=50_000)
    made = zstore.ingest(source, tmp_path / "s.zarr", id="id", time="t", blocksize=50_000)
    assert planned.n_rows == pytest.approx(made.n_stored, rel=0.1)
    assert planned.plain_bytes == pytest.approx(table.stat().st_size, rel=0.1)
    assert planned.n_blocks == pytest.approx(table.stat().st_size / 50_000, abs=1)
    assert planned.n_shards == 1
    assert planned.n_objects == 3


def test_a_dry_run_writes_nothing_and_says_so(run: Run, table: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = run("zstore.cli", "ingest", table, "s.zarr", "--id", "id", "--time", "t", "--dry-run", check=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert "about 20,000 rows" in done.stdout
    assert "nothing was written (--dry-run)" in done.stdout


def test_a_dry_run_refuses_what_the_ingest_would(run: Run, table: Path) -> None:
    done = run("zstore.cli", "ingest", table, "s.zarr", "--id", "site", "--time", "t", "--dry-run")
    assert done.returncode == 2
    assert "site" in done.stderr


@pytest.mark.parametrize(
    ("source_bytes", "block", "passes"),
    [(10**9, 1 << 24, 0), (10**11, 1 << 24, 1), (10**13, 1 << 24, 1), (10**15, 1 << 27, 2)],
)
def test_no_task_reads_from_more_blocks_than_it_may_at_any_size(source_bytes: int, block: int, passes: int) -> None:
    plan = extrapolate(SAMPLE, source_bytes, 1, block, workers=16)
    assert plan.merge_passes == passes
    assert plan.fan_in <= 2 * MOST_FILES
    assert plan.tasks["write"] == plan.n_shards == -(-plan.n_rows // SHARD_ROWS)
    assert plan.worker_bytes < 2 * 10**9


def test_seconds_and_space_grow_with_the_sources() -> None:
    small, large = (extrapolate(SAMPLE, n, 1, 1 << 24, workers=2) for n in (10**8, 10**9))
    assert large.seconds["parse"] == pytest.approx(10 * small.seconds["parse"], rel=0.05)
    assert large.scratch_bytes == pytest.approx(10 * small.scratch_bytes, rel=0.01)
    assert large.stored_bytes == pytest.approx(10 * small.stored_bytes, rel=0.01)
