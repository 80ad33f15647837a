"""Stores of format version 1 go on as they did: each compared with what the last code that made them said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from version1 import CHECKS, NAMES, STORES, compacted, copied, exported, results

import zstore
from lightning_app.metrics import PERCENTAGES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's

EXPECTED: dict[str, dict[str, Any]] = json.loads((STORES / "expected.json").read_text())


def document(path: Path) -> dict[str, Any]:
    root: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]["zstore"]
    return root


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", sorted(set(CHECKS) - {"trained"}))
def test_a_store_of_version_1_gives_what_it_gave(name: str, check: str, tmp_path: Path) -> None:
    assert without_means_of_words(EXPECTED[name][check]) == without_means_of_words(results(name, check, tmp_path))


def without_means_of_words(found: Any) -> Any:
    """Codes of words have no mean any more, nor the like."""
    if not isinstance(found, dict) or "info" not in found:
        return found
    lines = [re.sub(r"^(\S+ .*categories +\d+)[ \d.e+-]*$", r"\1", line) for line in found["info"]]
    return {**found, "info": lines}


@pytest.mark.parametrize("name", NAMES)
def test_a_store_of_version_1_trains_to_the_loss_it_had(name: str, tmp_path: Path) -> None:
    expected = {
        metric: value
        for metric, value in EXPECTED[name]["trained"].items()
        if metric.removeprefix("val/") not in PERCENTAGES  # which were of scaled units
    }
    assert pytest.approx(expected, rel=1e-4) == results(name, "trained", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_of_version_1_stays_one_when_rows_are_appended_and_compact_makes_it_version_2(
    name: str, tmp_path: Path
) -> None:
    path = copied(name, tmp_path)
    assert document(path)["format"] == 1
    zstore.append(tmp_path / f"{name}-later.csv", path)
    assert document(path)["format"] == 1
    rows = exported(path)
    compacted(path)
    assert document(path)["format"] == 2
    assert rows == exported(path)


def test_compact_upgrades_a_store_of_version_1_whose_rows_are_in_order_already(tmp_path: Path) -> None:
    path = copied("monthly", tmp_path)
    rows = exported(path)
    store = zstore.compact(path)
    assert (document(path)["format"], store.schema.time.show_freq(), len(store.index.runs.start)) == (2, "MS", 3)
    assert rows == exported(path)
    zstore.rollback(path, 1)
    assert (document(path)["format"], zstore.open_store(path).schema.time.show_freq()) == (1, "31d")
    assert rows == exported(path)
