"""A writer killed at any point leaves the old version or the new one, and the next run finishes the work."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

OPERATIONS = ["ingest", "overwrite", "append", "compact", "rollback", "gc"]


def killed(tmp_path: Path, operation: str, every: int) -> dict[str, Any]:
    """Report of ``tests/crash.py``."""
    words = [sys.executable, REPOSITORY / "tests/crash.py", tmp_path / "crash", operation, str(every)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=1800)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_writer_killed_at_some_points_loses_nothing(tmp_path: Path, operation: str) -> None:
    report = killed(tmp_path, operation, every=37)
    assert report["failures"] == []
    assert report["points"] >= 3


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_writer_killed_at_every_mutating_call_loses_nothing(tmp_path: Path, operation: str) -> None:
    report = killed(tmp_path, operation, every=1)
    assert report["failures"] == []
    assert report["points"] > 100
