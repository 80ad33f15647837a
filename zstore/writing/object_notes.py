"""Notes of objects that tasks have written: what a run that was killed has made of payloads is not read again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zstore.format.manifest import ObjectRecord
from zstore.storage.protocol import Storage
from zstore.writing.sources.workspace import NOTE, digest_of

_SHARD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*/c(/[0-9]+)+")

OBJECTS = "objects-"
"""What the names of such notes begin with."""


@dataclass(frozen=True)
class ObjectNotes:
    """Notes of one run, and those of one before it that died.

    Parameters
    ----------
    root
        Where objects go.
    scratch
        Where notes go.
    notes
        From name to note: what the run that died has noted.
    """

    root: Storage
    scratch: Storage
    notes: Mapping[str, bytes] = field(default_factory=dict)

    def known(self, name: str) -> dict[str, Any] | None:
        """What was noted of a task, with its objects as ``records``; None where one of them is not whole.

        Notes
        -----
        Cost: the objects are read, as they are stored.
        """
        try:
            document: dict[str, Any] = json.loads(self.notes[OBJECTS + name])
            records = [ObjectRecord(*record) for record in document["records"]]
        except (KeyError, TypeError, ValueError):  # not done, or cut short when its writer was killed
            return None
        whole = all(
            self.root.n_bytes(record.key) == record.n_bytes
            and digest_of(self.root, record.key, record.n_bytes) == record.digest
            for record in records
        )
        return {**document, "records": records} if whole else None

    def add(self, name: str, records: Sequence[ObjectRecord], **more: Any) -> None:
        """Note what a task has done.

        Parameters
        ----------
        name
            What tells the task, and all that its work depends on.
        records
            The objects that it has written.
        more
            What else there is to know, as JSON has it.
        """
        document = {"records": [[record.key, record.n_bytes, record.digest] for record in records], **more}
        self.scratch.write_stream(OBJECTS + name + NOTE, (json.dumps(document).encode(),))


def noted_keys(scratch: Storage) -> set[str]:
    """Every object that notes on scratch space tell of: shards, for others may have written there."""
    keys: set[str] = set()
    try:
        notes = [key for key in scratch.sizes(OBJECTS) if key.endswith(NOTE)]
    except PermissionError:  # a link, which is refused where something is to be written there
        return keys
    for note in notes:
        try:
            keys.update(record[0] for record in json.loads(scratch.read(note))["records"] if _is_shard(record[0]))
        except (KeyError, TypeError, ValueError, IndexError, RecursionError):  # cut short
            continue
    return keys


def _is_shard(key: Any) -> bool:
    return isinstance(key, str) and _SHARD.fullmatch(key) is not None
