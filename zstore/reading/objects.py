"""Stored objects as Zarr arrays, each checked against the manifest before it is first decoded."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError, NotFoundError, StoreError
from zstore.format.commit import check_root, read_root
from zstore.format.layout import FORMAT_VERSION, ROOT, manifest_path, root_copy_key, shard_key, shards_of
from zstore.format.manifest import ObjectRecord, digest, from_arrays


class ObjectReader:
    """One committed version of a store, as the root document read at opening time describes it.

    Parameters
    ----------
    path
        Folder of the store.
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

    def __init__(self, path: Path, version: int | None = None) -> None:
        self.path = path
        self._load(read_root(path), path / ROOT)
        newest = int(self.document["version"])
        if (path / root_copy_key(newest + 1)).exists():
            raise CorruptionError(
                f"root document of version {newest}, though version {newest + 1} was committed",
                expected="the newest one",
                where=str(path / ROOT),
                fix=f"copy {root_copy_key(newest + 1)} (or that of the newest version) over it",
            )
        if version is not None and version != newest:
            copy = path / root_copy_key(version)
            if not 0 < version < newest or not copy.exists():
                known = ", ".join(map(str, committed_versions(path, newest)))
                raise NotFoundError(f"no version {version}", expected=f"one of {known}", where=str(path))
            self._load(copy.read_bytes(), copy)
        self._arrays: dict[str, Any] = {}
        self._records: dict[str, ObjectRecord] | None = None
        self._checked: set[str] = set()
        self._lock = threading.Lock()

    def _load(self, content: bytes, where: Path) -> None:
        try:
            root = json.loads(content)
            self.document: dict[str, Any] = root["attributes"]["zstore"]
            self.nodes: dict[str, Any] = root["consolidated_metadata"]["metadata"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"not a zstore root document ({error!r})",
                expected="a Zarr v3 group written by zstore",
                where=str(where),
                fix="restore the file, or ingest again",
            ) from error
        if self.document.get("format") == FORMAT_VERSION:  # other formats are refused by name
            check_root(content, str(where))
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
                    f"object {key} is not in the manifest", where=str(self.path), fix="zstore verify, then ingest again"
                )
            compare(self.path, record)
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
        content = compare(self.path, self.records[key])
        self._checked.add(key)
        return content

    def small(self, path: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """A whole small array (index, moments) and its attributes, checked."""
        for key in self.records:
            if key.startswith(f"{path}/c/"):
                self.check(key)
        array = self._array(path)
        return np.asarray(array[...]), dict(array.attrs)

    def children(self, group: str) -> list[str]:
        """Names of the arrays of a group."""
        return [path.rpartition("/")[2] for path in self.nodes if path.rpartition("/")[0] == group]

    def stored(self, variable: str, start: int, stop: int, shard_rows: int) -> NDArray[Any]:
        """Stored values at the places ``[start, stop)`` of a variable; every shard touched is checked."""
        for shard in shards_of(start, stop, shard_rows):
            self.check(shard_key(variable, shard))
        return np.asarray(self._array(variable)[start:stop])

    def _array(self, path: str) -> Any:
        if path not in self._arrays:
            self._arrays[path] = open_array(self.path, path, self.nodes[path])
        return self._arrays[path]

    def listing(self, prefix: str = "") -> list[ObjectRecord]:
        """The objects that the manifest lists, or, with the prefix ``source_``, the sources."""
        for key, n_bytes, expected in self.document["manifest"]:
            compare(self.path, ObjectRecord(key, n_bytes, expected))
        group = manifest_path(self.document["version"])
        columns = [np.asarray(self._array(f"{group}/{prefix}{name}")[...]) for name in ("key", "n_bytes", "digest")]
        return from_arrays(*columns)


def committed_versions(path: Path, newest: int | None = None) -> list[int]:
    """Versions that can be opened, ascending."""
    if newest is None:
        newest = int(ObjectReader(path).document["version"])
    found = (int(copy.parent.name) for copy in path.glob("manifest/*/root.json") if copy.parent.name.isdigit())
    return sorted({*(version for version in found if version < newest), newest})


def compare(root: Path, record: ObjectRecord) -> bytes:
    """Compare one stored object with its record, and return it.

    Raises
    ------
    CorruptionError
        If they differ.
    """
    path = root / record.key
    fix = "restore the store from a copy, or ingest again; zstore verify lists every damaged object"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptionError(f"object {record.key} is missing ({error.strerror})", where=str(path), fix=fix) from error
    if len(content) != record.n_bytes:
        raise CorruptionError(
            f"object {record.key} has {len(content):,} bytes", expected=f"{record.n_bytes:,}", where=str(path), fix=fix
        )
    found = digest(content)
    if found != record.digest:
        raise CorruptionError(
            f"object {record.key} has digest {found}", expected=record.digest, where=str(path), fix=fix
        )
    return content


def open_array(root: Path, path: str, document: dict[str, Any]) -> Any:
    """A Zarr array from its metadata document, decoded by the Rust pipeline where there is one.

    The document comes from the root, not from the array's own ``zarr.json``, so later commits do not show.
    """
    import zarr  # a sixth of a second, which an ingest can do without
    from zarr.core.array import Array, AsyncArray
    from zarr.core.metadata import ArrayV3Metadata
    from zarr.storage import LocalStore, StorePath

    pipeline = "zarrs.ZarrsCodecPipeline" if importlib.util.find_spec("zarrs") else None
    with zarr.config.set({"codec_pipeline.path": pipeline} if pipeline else {}):
        metadata = ArrayV3Metadata.from_dict(document)
        return Array(AsyncArray(metadata=metadata, store_path=StorePath(LocalStore(root, read_only=True), path)))
