"""A writer killed at any point leaves the old version or the new one, and the next run finishes the work."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

OPERATIONS = ["ingest", "overwrite", "append", "compact", "rollback", "gc"]


def harmed(tmp_path: Path, operation: str, every: int, how: str) -> dict[str, Any]:
    """Report of ``tests/crash.py``."""
    words = [sys.executable, REPOSITORY / "tests/crash.py", tmp_path / "crash", operation, str(every), how]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=1800)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_writer_killed_at_some_points_loses_nothing(tmp_path: Path, operation: str) -> None:
    report = harmed(tmp_path, operation, 37, "kill")
    assert report["failures"] == []
    assert report["points"] >= 3


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_writer_killed_at_every_mutating_call_loses_nothing(tmp_path: Path, operation: str) -> None:
    report = harmed(tmp_path, operation, 1, "kill")
    assert report["failures"] == []
    assert report["points"] > 100


@pytest.mark.parametrize("operation", ["ingest", "append", "compact"])
def test_a_full_disk_is_told_with_path_and_bytes_and_the_next_run_goes_on(tmp_path: Path, operation: str) -> None:
    report = harmed(tmp_path, operation, 13, "full")
    assert report["failures"] == []
    assert report["points"] >= 5
