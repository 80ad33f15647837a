"""Manifests in parts of a few objects, for tests of small stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zstore.format import parts

SMALL = {"MOST_LISTED": 0, "PART_OBJECTS": 8}


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every manifest is written in parts of at most eight objects, or those of one position."""
    for name, value in SMALL.items():
        monkeypatch.setattr(parts, name, value)


def force_parts() -> None:
    """The same, in a process that is there for nothing else."""
    for name, value in SMALL.items():
        setattr(parts, name, value)


def document(path: Path) -> dict[str, Any]:
    """What the root document says of the store."""
    found: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]["zstore"]
    return found


def parts_of_rows(path: Path) -> list[str]:
    """Keys of the parts that list shards of rows, by position."""
    top = json.loads((path / f"manifest/{document(path)['version']:08d}/top.json").read_text())
    return [entry[0] for entry in top["objects"] if entry[4] == "row"]
