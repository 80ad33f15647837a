"""A store of format version 3, whose manifest is in parts, opens, trains and grows for ever.

``python tests/test_version3.py make`` wrote it, from the tables of the stores of version 1.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from partly import document, force_parts, parts_of_rows, small_parts
from version1 import STORES as VERSION1
from version1 import compacted, exported, trained

import zstore
from lightning_app.metrics import PERCENTAGES
from zstore import open_store, verify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's

STORE = VERSION1.parent / "version3" / "daily"
EXPECTED: dict[str, Any] = json.loads((VERSION1 / "expected.json").read_text())["daily"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The store, and the table that comes after it."""
    shutil.copy(VERSION1 / "daily-later.csv", tmp_path)
    return Path(shutil.copytree(STORE, tmp_path / "daily"))


def test_it_has_the_rows_of_the_store_of_version_1_made_of_the_same_tables(path: Path) -> None:
    assert document(path)["format"] == 3
    assert {key.split("/")[1] for key in parts_of_rows(path)} == {"00000001", "00000002"}
    assert exported(path) == EXPECTED["opened"]["rows"]
    assert verify(open_store(path)).faults == ()
    assert verify(open_store(path, 1)).faults == ()


def test_it_trains_to_the_loss_of_the_store_of_version_1(path: Path) -> None:
    expected = {
        metric: value
        for metric, value in EXPECTED["trained"].items()
        if metric.removeprefix("val/") not in PERCENTAGES  # which were of scaled units
    }
    assert trained(path) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("in_parts", [True, False])
def test_it_grows_in_parts_or_in_one_piece_and_is_compacted_to_the_same_rows(
    path: Path, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_parts:
        small_parts(monkeypatch)
    zstore.append(path.parent / "daily-later.csv", path, workers=1)
    assert document(path)["format"] == (3 if in_parts else 2)
    assert exported(path) == EXPECTED["appended"]["rows"]
    assert verify(open_store(path)).faults == ()
    assert compacted(path)["faults"] == []
    assert exported(path) == EXPECTED["appended"]["rows"]
    zstore.rollback(path, 2)
    zstore.gc(path)
    assert exported(path) == EXPECTED["opened"]["rows"]
    assert verify(open_store(path)).faults == ()


def make() -> None:
    """Write the store."""
    force_parts()
    os.chdir(VERSION1)  # receipts name files as they were named
    STORE.parent.mkdir(parents=True, exist_ok=True)
    grid: dict[str, Any] = {"chunk_rows": 8, "shard_rows": 16}
    zstore.ingest("daily.csv", STORE, static="statics.csv", id="site", time="date", workers=1, **grid)
    zstore.append("daily-more.csv", STORE, static="statics.csv", workers=1)


if __name__ == "__main__" and sys.argv[1:] == ["make"]:
    make()
