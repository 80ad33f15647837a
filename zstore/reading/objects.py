"""Stored objects as Zarr arrays, each checked against the manifest before it is first decoded."""

from __future__ import annotations

import importlib.util
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError, NotFoundError, StoreError
from zstore.format.arrays import decode_shard, decode_small
from zstore.format.commit import check_root, read_root
from zstore.format.folder import Folder
from zstore.format.layout import FORMAT_VERSION, ROOT, manifest_path, root_copy_key, shard_key, shards_of
from zstore.format.manifest import ObjectRecord, digest, from_arrays
from zstore.format.storage import Storage

_READERS = 8
_RECENT = 8  # shards of a bucket that are kept after they were fetched


class ObjectReader:
    """One committed version of a store, as the root document read at opening time describes it.

    Parameters
    ----------
    storage
        Where the store is.
    version
        Which; None for the newest.

    Raises
    ------
    StoreError
        If nothing is committed there, or the root document is not one of zstore.
    NotFoundError
        If there is no such version.
    CorruptionError
        If the root document was changed.
    """

    def __init__(self, storage: Storage, version: int | None = None) -> None:
        self.storage = storage
        self._load_newest()
        newest = int(self.document["version"])
        if version is not None and version != newest:
            key = root_copy_key(version)
            if not 0 < version < newest or storage.n_bytes(key) is None:
                known = ", ".join(map(str, committed_versions(storage, newest)))
                raise NotFoundError(f"no version {version}", expected=f"one of {known}", where=str(storage))
            self._load(storage.read(key), key)
        self._arrays: dict[str, Any] = {}
        self._records: dict[str, ObjectRecord] | None = None
        self._checked: set[str] = set()
        self._recent: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def _load_newest(self) -> None:
        """Read the root document, again if a writer commits meanwhile."""
        content = b""
        while content != (content := read_root(self.storage)):
            self._load(content, ROOT)
            newest = int(self.document["version"])
            if self.storage.n_bytes(root_copy_key(newest + 1)) is None:
                return
        raise CorruptionError(
            f"root document of version {newest}, though version {newest + 1} was committed",
            expected="the newest one",
            where=f"{self.storage}/{ROOT}",
            fix=f"copy {root_copy_key(newest + 1)} (or that of the newest version) over it",
        )

    def _load(self, content: bytes, key: str) -> None:
        where = f"{self.storage}/{key}"
        try:
            root = json.loads(content)
            self.document: dict[str, Any] = root["attributes"]["zstore"]
            self.nodes: dict[str, Any] = root["consolidated_metadata"]["metadata"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"not a zstore root document ({error!r})",
                expected="a Zarr v3 group written by zstore",
                where=where,
                fix="restore the file, or ingest again",
            ) from error
        if self.document.get("format") == FORMAT_VERSION:  # other formats are refused by name
            check_root(content, where)
        self.root = content

    @property
    def records(self) -> dict[str, ObjectRecord]:
        """The manifest by key; read once, itself checked against the root document."""
        with self._lock:
            if self._records is None:
                self._records = {record.key: record for record in self.listing()}
            return self._records

    @property
    def keys(self) -> set[str]:
        """Every object that this version needs, the root document's copy included."""
        listing = {key for key, _, _ in self.document["manifest"]}
        return {*self.records, *listing, root_copy_key(int(self.document["version"]))}

    def check(self, key: str) -> None:
        """Compare one object with the manifest, once.

        Raises
        ------
        CorruptionError
            If it is missing, of another length, or of another digest.
        """
        if key not in self._checked:
            record = self.records.get(key)
            if record is None:
                raise CorruptionError(
                    f"object {key} is not in the manifest",
                    where=str(self.storage),
                    fix="zstore verify, then ingest again",
                )
            compare(self.storage, record)
            self._checked.add(key)

    def content(self, key: str) -> bytes:
        """The bytes of one object, compared with the manifest.

        Raises
        ------
        CorruptionError
            As :meth:`check`.
        """
        if key not in self.records:
            self.check(key)  # says that it is not in the manifest
        content = compare(self.storage, self.records[key])
        self._checked.add(key)
        return content

    def small(self, path: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """A whole small array (index, moments) and its attributes, checked."""
        document = self.nodes[path]
        return decode_small(document, lambda key: self.content(f"{path}/{key}")), dict(document["attributes"])

    def children(self, group: str) -> list[str]:
        """Names of the arrays of a group."""
        return [path.rpartition("/")[2] for path in self.nodes if path.rpartition("/")[0] == group]

    def stored(self, variable: str, start: int, stop: int, shard_rows: int) -> NDArray[Any]:
        """Stored values at the places ``[start, stop)`` of a variable; every shard touched is checked."""
        shards = shards_of(start, stop, shard_rows)
        if not isinstance(self.storage, Folder):
            parts = [self._fetched(variable, shard, start, stop, shard_rows) for shard in shards]
            return np.concatenate([np.zeros(0, self.nodes[variable]["data_type"]), *parts])
        for shard in shards:
            self.check(shard_key(variable, shard))
        return np.asarray(self._array(variable)[start:stop])

    def _fetched(self, variable: str, shard: int, start: int, stop: int, shard_rows: int) -> NDArray[Any]:
        """What of the places ``[start, stop)`` lies in one shard of a bucket, which is fetched as a whole."""
        key, document = shard_key(variable, shard), self.nodes[variable]
        with self._lock:
            content = self._recent.pop(key, None)
        content = self.content(key) if content is None else content
        with self._lock:
            self._recent[key] = content
            while len(self._recent) > _RECENT:
                self._recent.pop(next(iter(self._recent)))
        inner = document["codecs"][0]["configuration"]
        (size,), first = inner["chunk_shape"], max(start - shard * shard_rows, 0)
        last = min(stop - shard * shard_rows, shard_rows)
        wanted = slice(first // size, -(-last // size))
        codec = inner["codecs"][1]["name"]
        chunks = decode_shard(content, document["data_type"], codec, size, shard_rows, wanted)
        return np.concatenate([chunk.copy() for chunk in chunks])[
            first - wanted.start * size : last - wanted.start * size
        ]

    def _array(self, path: str) -> Any:
        if path not in self._arrays:
            self._arrays[path] = open_array(self.storage, path, self.nodes[path])
        return self._arrays[path]

    def listing(self, prefix: str = "") -> list[ObjectRecord]:
        """The objects that the manifest lists, or, with the prefix ``source_``, the sources."""
        group = manifest_path(self.document["version"])
        listed = {key: ObjectRecord(key, n_bytes, expected) for key, n_bytes, expected in self.document["manifest"]}
        with ThreadPoolExecutor(_READERS) as pool:
            run = map if isinstance(self.storage, Folder) else pool.map
            contents = dict(zip(listed, run(partial(compare, self.storage), listed.values()), strict=True))
        paths = [f"{group}/{prefix}{name}" for name in ("key", "n_bytes", "digest")]
        return from_arrays(*(decode_small(self.nodes[p], lambda key, p=p: contents[f"{p}/{key}"]) for p in paths))  # type: ignore[misc]


def committed_versions(storage: Storage, newest: int | None = None) -> list[int]:
    """Versions that can be opened, ascending."""
    if newest is None:
        newest = int(ObjectReader(storage).document["version"])
    folders = (key.split("/") for key in storage.sizes("manifest/") if key.endswith("/root.json"))
    found = (int(parts[1]) for parts in folders if len(parts) == 3 and parts[1].isdigit())
    return sorted({*(version for version in found if version < newest), newest})


def compare(storage: Storage, record: ObjectRecord) -> bytes:
    """Compare one stored object with its record, and return it.

    Raises
    ------
    CorruptionError
        If they differ.
    """
    where = f"{storage}/{record.key}"
    fix = "restore the store from a copy, or ingest again; zstore verify lists every damaged object"
    try:
        content = storage.read(record.key)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptionError(f"object {record.key} is missing ({error.strerror})", where=where, fix=fix) from error
    except OSError as error:
        raise StoreError(f"cannot read object {record.key} ({error.strerror})", where=where, fix="try again") from error
    if len(content) != record.n_bytes:
        raise CorruptionError(
            f"object {record.key} has {len(content):,} bytes", expected=f"{record.n_bytes:,}", where=where, fix=fix
        )
    found = digest(content)
    if found != record.digest:
        raise CorruptionError(f"object {record.key} has digest {found}", expected=record.digest, where=where, fix=fix)
    return content


def open_array(storage: Storage, path: str, document: dict[str, Any]) -> Any:
    """A Zarr array from its metadata document, decoded by the Rust pipeline where there is one.

    The document comes from the root, not from the array's own ``zarr.json``, so later commits do not show.
    """
    import zarr  # a sixth of a second, which an ingest can do without
    from zarr.core.array import Array, AsyncArray
    from zarr.core.metadata import ArrayV3Metadata
    from zarr.storage import LocalStore, StorePath

    place = storage.zarr()
    fast = isinstance(place, LocalStore) and importlib.util.find_spec("zarrs")  # which reads files by itself
    pipeline = "zarrs.ZarrsCodecPipeline" if fast else None
    with zarr.config.set({"codec_pipeline.path": pipeline} if pipeline else {}):
        metadata = ArrayV3Metadata.from_dict(document)
        return Array(AsyncArray(metadata=metadata, store_path=StorePath(place, path)))
