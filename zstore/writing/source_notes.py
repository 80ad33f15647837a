"""What the files of a store were when they were digested, so that an append need not read them again.

One note a store lies in the cache folder of the user, for the state of a file is of one machine, and a store is not.
Where there is none, files are read and digested: that is slower, and the same.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zstore.format.manifest import ObjectRecord, digest
from zstore.reading.eviction import cache_folder
from zstore.reading.heldfile import HeldFile
from zstore.reading.rownotes import partial_path, refuse_stranger
from zstore.storage.protocol import Storage
from zstore.writing.sources.digests import knows_digest

logger = logging.getLogger(__name__)

_FOLDER = "sources"
_MOST_BYTES = 1 << 28
_TICK_NS = 50_000_000  # no clock of a kernel is coarser: whatever is changed later has a later time of change
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class SourceNotes:
    """Digests of local files, by the state that each file was in when its bytes were read.

    Parameters
    ----------
    path
        The note.
    digests
        By path and state of a file, its digest in the ledger.
    """

    path: Path
    digests: Mapping[tuple[str, str], str]

    @classmethod
    def of(cls, target: Storage, id_from_path: str | None) -> SourceNotes:
        """Those of a store; none if there is no note, or what is there is none of ours.

        Parameters
        ----------
        target
            The store.
        id_from_path
            Where ids come from paths, the pattern of them, which is part of the digests.

        Raises
        ------
        StoreError
            If the note belongs to a stranger.
        """
        store = str(target) if target.remote else os.path.realpath(str(target))
        path = cache_folder() / _FOLDER / f"{digest(json.dumps([store, id_from_path]).encode())}.json"
        return cls(path, _read(path))

    def digest_of(self, file: Any) -> str | None:
        """The digest of a file that is in the state that it was in then; None if it is not known to be."""
        return self.digests.get(_key(file))

    def with_files(self, files: Sequence[Any], records: Sequence[ObjectRecord], began_ns: int) -> SourceNotes:
        """These and those of further files, each of which has a record.

        Parameters
        ----------
        files, records
            The files, and what the ledger has of each.
        began_ns
            A time before they were read, in nanoseconds since 1970: a file that was changed just then could be changed
            once more, and have the same times.
        """
        made = dict(self.digests)
        for file, record in zip(files, records, strict=True):
            if not knows_digest(file) and file.etag is not None and _changed_ns(file) + _TICK_NS < began_ns:
                made[_key(file)] = record.digest
        return SourceNotes(self.path, made)

    def write(self) -> None:
        """Keep them, whole or not at all; a folder that cannot be written to is told in the log."""
        latest = {path: [state, known] for (path, state), known in self.digests.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = partial_path(self.path)
            try:
                temporary.write_text(json.dumps(latest))
                os.replace(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            logger.info("an append will read these sources again, for what they are cannot be noted: %s", error)


def _key(file: Any) -> tuple[str, str]:
    return os.path.realpath(str(file)), str(file.etag)


def _changed_ns(file: Any) -> int:
    """When anything about a file last changed, which its state ends with."""
    return int(str(file.etag).rpartition("-")[2])


def _read(path: Path) -> dict[tuple[str, str], str]:
    file = HeldFile.open(path)
    if file is None or file.status.st_size > _MOST_BYTES:
        return {}
    refuse_stranger(file)
    content = memoryview(bytearray(file.status.st_size))
    try:
        document = json.loads(bytes(content[: file.read_into(content, 0)]))
    except (ValueError, RecursionError):
        return {}
    pairs = document.items() if isinstance(document, dict) else ()
    return {(name, pair[0]): pair[1] for name, pair in pairs if _is_pair(pair)}


def _is_pair(pair: Any) -> bool:
    texts = isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
    return texts and _DIGEST.fullmatch(pair[1]) is not None
