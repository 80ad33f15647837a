"""Where everything lies: names, versions and the row grid. Pure arithmetic, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FORMAT_VERSION = 2
PARTED_VERSION = 3  # the same, but for the manifest, which is in parts
FORMATS = (1, 2, 3)  # that are read and appended to
CHUNK_ROWS = 1 << 16
SHARD_ROWS = 1 << 20
CHUNK_BYTES, SHARD_BYTES = 1 << 18, 1 << 27  # of fields, before they are compressed
BYTES_CODEC = "zstd-1"  # of bytes that are compressed already; it stores what does not shrink as it is
ROOT = "zarr.json"
TIME = "time"
MARKER = ".ingest"  # of a writer at work, or one that died
SCRATCH = f"{MARKER}.scratch"
RESERVED = frozenset({TIME, "row", "series", "index", "manifest", "moments", "zarr.json", "c"})

_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_FOREIGN = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|.*\.", re.IGNORECASE)  # no folder of Windows


@dataclass(frozen=True)
class RowGrid:
    """How the rows of every array are cut.

    Parameters
    ----------
    chunk_rows
        Rows that are encoded, and decoded, together.
    shard_rows
        Rows of an object; a power of two times `chunk_rows`.
    """

    chunk_rows: int = CHUNK_ROWS
    shard_rows: int = SHARD_ROWS


def index_path(version: int) -> str:
    """Group path of the ID index of one version."""
    return f"index/{version:08d}"


def manifest_path(version: int) -> str:
    """Group path of the manifest of one version."""
    return f"manifest/{version:08d}"


def root_copy_key(version: int) -> str:
    """Key of the copy of a version's root document, by which it is opened once there is a newer one."""
    return f"{manifest_path(version)}/root.json"


def moments_path(version: int) -> str:
    """Group path of the moments of one version."""
    return f"moments/{version:08d}"


def n_shards(n_rows: int, shard_rows: int = SHARD_ROWS) -> int:
    """Number of shards that hold `n_rows` rows."""
    return -(-n_rows // shard_rows)


def shard_bounds(shard: int, n_rows: int, shard_rows: int = SHARD_ROWS) -> tuple[int, int]:
    """Row range ``[start, stop)`` of one shard."""
    return shard * shard_rows, min((shard + 1) * shard_rows, n_rows)


def shard_key(variable: str, shard: int, n_axes: int = 1) -> str:
    """Key of the object that holds one shard of a variable of so many axes, of which only the rows are cut."""
    return f"{variable}/c/{shard}" + "/0" * (n_axes - 1)


def split_shard_key(key: str) -> tuple[str, str]:
    """Variable and number of a shard from its key; the number is empty where the key is none of a shard."""
    variable, _, place = key.partition("/c/")
    shard, *others = place.split("/")
    return variable, shard if all(other == "0" for other in others) else ""


def array_grid(row_bytes: int, most_rows: int) -> RowGrid:
    """How the rows of a field are cut, which has so many bytes in each.

    Chunks have at most :data:`CHUNK_BYTES`, or one row; shards at most :data:`SHARD_BYTES`, or one chunk, and
    `most_rows`, the rows in a shard of channels. All are powers of two.
    """
    shard_rows = min(_power_of_two(SHARD_BYTES // row_bytes), most_rows)
    return RowGrid(min(_power_of_two(CHUNK_BYTES // row_bytes), shard_rows), shard_rows)


def _power_of_two(number: int) -> int:
    """The largest that is not above a number; 1 for 0."""
    return 1 << max(number.bit_length() - 1, 0)


def shards_of(start: int, stop: int, shard_rows: int = SHARD_ROWS) -> range:
    """Shards that a row range touches."""
    return range(start // shard_rows, -(-stop // shard_rows)) if stop > start else range(0)


def safe_names(names: Iterable[str], reserved: Iterable[str] = RESERVED) -> list[str]:
    """A variable name for every column name: the name itself if it is safe, else one made from it.

    Safe are letters, digits, ``_ . -`` after a first letter, at most 64 of them and no ``.`` at the end, not reserved
    here or on Windows (``aux``), and unique when case is ignored, so that no name of the data ever steers a path, and a
    store can be copied to any file system.
    """
    taken = {name.lower() for name in reserved}
    names = list(names)
    made: list[str | None] = []
    for name in names:
        safe = _SAFE.fullmatch(name) is not None and not _FOREIGN.fullmatch(name) and name.lower() not in taken
        made.append(name if safe else None)
        if safe:
            taken.add(name.lower())
    for position, name in enumerate(names):
        if made[position] is None:
            stem = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:48] or "column"
            stem = stem if stem[0].isalpha() and not _FOREIGN.fullmatch(stem) else f"v_{stem}"
            candidate, number = stem, 1
            while candidate.lower() in taken:
                number += 1
                candidate = f"{stem}_{number}"
            made[position] = candidate
            taken.add(candidate.lower())
    return [name for name in made if name is not None]
