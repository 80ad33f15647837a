"""How the values of fields lie on disk, each kind in a module of its own."""

from __future__ import annotations

from typing import Any

from zstore.format.encodings.base import Encoding, Family, Form, Kind
from zstore.format.encodings.numbers import Numbers
from zstore.format.encodings.words import Words

FAMILIES: dict[Kind, Family] = {"number": Numbers(), "category": Words()}
"""By the kind of values."""


def restored(document: dict[str, Any]) -> Encoding:
    """The encoding of a channel, from its document in the root."""
    return FAMILIES["number" if document["categories"] is None else "category"].restored(document)


__all__ = ["FAMILIES", "Encoding", "Form", "Kind", "restored"]
