"""How the values of fields lie on disk, each kind in a module of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zstore.format.encodings.arrays import Arrays
from zstore.format.encodings.base import Encoding, Family, Form, Kind
from zstore.format.encodings.numbers import Numbers
from zstore.format.encodings.words import Words

FAMILIES: dict[Kind, Family] = {"number": Numbers(), "category": Words(), "array": Arrays()}
"""By the kind of values."""


def restored(document: Mapping[str, Any]) -> Encoding:
    """The encoding of a field, from its document in the root."""
    kind: Kind = "array" if "shape" in document else "number" if document["categories"] is None else "category"
    return FAMILIES[kind].restored(dict(document))


__all__ = ["FAMILIES", "Encoding", "Form", "Kind", "restored"]
