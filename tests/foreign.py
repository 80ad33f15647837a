"""Stores that nobody should believe: a sound one, changed, with every digest made right again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd

from zstore import StoreError, append, compact, export, gc, log, open_store, rollback, verify
from zstore.format.arrays import decode_small, encode_small
from zstore.format.codecs import with_checksum
from zstore.format.layout import ROOT, index_path, manifest_path, moments_path
from zstore.format.manifest import ObjectRecord, digest, from_arrays, to_arrays
from zstore.format.shards import ArrayPlan
from zstore.printing import print_info
from zstore.upkeep.doctor import examine

_ZEROS = "0" * 32


class ForeignStore:
    """A store taken apart, to be changed and signed again.

    Parameters
    ----------
    path
        Its folder; it has one version.

    Attributes
    ----------
    document, nodes
        What the root document says.
    records
        Objects by key, as the manifest lists them; :meth:`put` changes one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root: dict[str, Any] = json.loads((path / ROOT).read_bytes())
        self.document: dict[str, Any] = self.root["attributes"]["zstore"]
        self.nodes: dict[str, Any] = self.root["consolidated_metadata"]["metadata"]
        group = manifest_path(self.document["version"])
        listed = [decode_small(self.nodes[f"{group}/{name}"], self._reader(f"{group}/{name}")) for name in _LISTING]
        self.records = {record.key: record for record in from_arrays(*listed)}
        self.listing = {key: (n_bytes, found) for key, n_bytes, found in self.document["manifest"]}

    @property
    def index(self) -> str:
        return index_path(self.document["version"])

    @property
    def moments(self) -> str:
        return moments_path(self.document["version"])

    @property
    def manifest(self) -> str:
        return manifest_path(self.document["version"])

    def _reader(self, path: str) -> Callable[[str], bytes]:
        return lambda key: (self.path / path / key).read_bytes()

    def values(self, path: str) -> np.ndarray:
        """A small array."""
        return decode_small(self.nodes[path], self._reader(path)).copy()

    def put(self, key: str, content: bytes) -> None:
        """An object of another content, with its digest."""
        (self.path / key).parent.mkdir(parents=True, exist_ok=True)
        (self.path / key).write_bytes(content)
        self.records[key] = ObjectRecord.of(key, content)

    def set(self, path: str, values: Any) -> None:
        """A small array of other values."""
        node = self.nodes[path]
        made = encode_small(np.asarray(values), tuple(node["dimension_names"]), node["attributes"])
        for key, content in made.items():
            self.put(f"{path}/{key}", content)
        self.nodes[path] = json.loads(made[ROOT])

    def shard(self, variable: str, values: np.ndarray, **changes: Any) -> None:
        """The first shard of a channel anew, and where it is another dtype or codec, not said so."""
        channel = next(each for each in self.document["channels"] if each["variable"] == variable)
        plan = ArrayPlan(
            changes.get("dtype", channel["stored"]),
            0,
            changes.get("codec", channel["codec"]),
            changes.get("chunk_rows", self.document["chunk_rows"]),
            changes.get("shard_rows", self.document["shard_rows"]),
            {},
        )
        self.put(f"{variable}/c/0", plan.encode_shard(values))

    def sign(self, listing: bool = True) -> None:
        """Write manifest and root document, each with the digest it should have."""
        if listing:
            made = {
                f"{self.manifest}/{name}": values for name, values in to_arrays(list(self.records.values())).items()
            }
            for path, values in made.items():
                for key, content in encode_small(values, ("object",)).items():
                    (self.path / path / key).write_bytes(content)
                    self.listing[f"{path}/{key}"] = (len(content), digest(content))
                    if key == ROOT:
                        self.nodes[path] = json.loads(content)
            self.document["manifest"] = [[key, *entry] for key, entry in self.listing.items()]
        self.write_root(json.dumps(self.root, indent=1, ensure_ascii=True).encode())

    def write_root(self, content: bytes) -> None:
        """A root document of these bytes, its own digest excepted."""
        before = content.partition(b'"digest": "')[2][:32]
        unsigned = content.replace(before, _ZEROS.encode(), 1)
        signed = unsigned.replace(_ZEROS.encode(), digest(unsigned).encode(), 1)
        (self.path / ROOT).write_bytes(signed)
        copy = self.path / self.manifest / "root.json"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(signed)


_LISTING = ("key", "n_bytes", "digest")


def said(name: str, value: Any) -> Callable[[ForeignStore], None]:
    """Another value in the document of zstore; a callable gets the old one."""

    def change(store: ForeignStore) -> None:
        old = store.document[name]
        store.document[name] = value(old) if callable(value) else value
        store.sign(listing=name not in ("version", "manifest"))

    return change


def of_channel(name: str, value: Any, number: int = 0) -> Callable[[ForeignStore], None]:
    """Another value in the description of a channel; a variable takes its array along."""

    def change(store: ForeignStore) -> None:
        channel = store.document["channels"][number]
        if name == "variable" and isinstance(value, str):
            old = channel["variable"]
            store.nodes[value] = store.nodes.pop(old)
            for key in [key for key in store.records if key.startswith(f"{old}/c/")]:
                record = store.records.pop(key)
                moved = key.replace(old, value, 1)
                store.records[moved] = ObjectRecord(moved, record.n_bytes, record.digest)
        channel[name] = value
        store.sign()

    return change


def of_array(path: str, *steps: Any) -> Callable[[ForeignStore], None]:
    """Another value in the metadata of an array: keys that lead there, then the value."""

    def change(store: ForeignStore) -> None:
        full = path.format(index=store.index, moments=store.moments, manifest=store.manifest)
        node = store.nodes[full]
        for step in steps[:-2]:
            node = node[step]
        node[steps[-2]] = steps[-1]
        store.sign(listing=not full.startswith("manifest/"))

    return change


def of_values(path: str, change_values: Callable[[np.ndarray], Any]) -> Callable[[ForeignStore], None]:
    """Other values in a small array."""

    def change(store: ForeignStore) -> None:
        full = path.format(index=store.index, moments=store.moments)
        store.set(full, change_values(store.values(full)))
        store.sign()

    return change


def at(position: int, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Another value at a position of an array."""

    def change(values: np.ndarray) -> np.ndarray:
        values[position] = value
        return values

    return change


def raw(make: Callable[[bytes], bytes]) -> Callable[[ForeignStore], None]:
    """Other bytes of the root document, with its digest."""

    def change(store: ForeignStore) -> None:
        store.write_root(make((store.path / ROOT).read_bytes()))

    return change


def of_record(key: str, n_bytes: int = 10, found: str = "a" * 32) -> Callable[[ForeignStore], None]:
    """One more object in the manifest."""

    def change(store: ForeignStore) -> None:
        store.records[key] = ObjectRecord(key, n_bytes, found)
        store.sign()

    return change


def inflating(path: str, n_bytes: int, checksum: bool = True) -> Callable[[ForeignStore], None]:
    """A small object that inflates to zeros, more than its array has."""

    def change(store: ForeignStore) -> None:
        full = path.format(index=store.index, moments=store.moments)
        store.put(full, bomb(n_bytes, checksum))
        store.sign()

    return change


def bomb(n_bytes: int, checksum: bool = True) -> bytes:
    """A zstd frame of zeros, put together of blocks that repeat one byte: a 16,000th of what it inflates to."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + n_bytes.to_bytes(8, "little")
    size, blocks = 1 << 17, bytearray()
    for start in range(0, n_bytes, size):
        part = min(size, n_bytes - start)
        blocks += ((part << 3) | 2 | (start + size >= n_bytes)).to_bytes(3, "little") + b"\0"
    frame = head + bytes(blocks)
    return with_checksum(frame) if checksum else frame


def promising(shape: int) -> Callable[[ForeignStore], None]:
    """An index whose arrays all say that they are large, in small objects that really inflate to that."""

    def change(store: ForeignStore) -> None:
        store.document["n_series"] = shape
        for name in ("row_size", "time_start", "time_stop"):
            path = f"{store.index}/{name}"
            store.nodes[path]["shape"] = [shape]
            store.nodes[path]["chunk_grid"]["configuration"]["chunk_shape"] = [shape]
            store.put(f"{path}/c/0", bomb(8 * shape))
        store.nodes[f"{store.index}/id"]["shape"] = [shape]
        store.nodes[f"{store.index}/id"]["chunk_grid"]["configuration"]["chunk_shape"] = [shape]
        store.nodes[f"{store.index}/extent_ptr"]["shape"] = [shape + 1]
        for path, node in store.nodes.items():
            if path.startswith(f"{store.moments}/"):
                node["shape"][0] = shape
                node["chunk_grid"]["configuration"]["chunk_shape"][0] = min(shape, 1 << 20)
            elif "zstore_static" in node["attributes"]:
                node["shape"] = [shape]
        store.sign()

    return change


def texts(content: bytes) -> Callable[[ForeignStore], None]:
    """An array of ids of these bytes, once inflated."""

    def change(store: ForeignStore) -> None:
        store.put(f"{store.index}/id/c/0", with_checksum(bytes(Zstd(3).encode(content))))
        store.sign()

    return change


def of_shard(change_bytes: Callable[[bytes], bytes], variable: str = "level") -> Callable[[ForeignStore], None]:
    """Other bytes in the first shard of a channel."""

    def change(store: ForeignStore) -> None:
        store.put(f"{variable}/c/0", change_bytes((store.path / variable / "c/0").read_bytes()))
        store.sign()

    return change


def cut_chunks(n_kept: int) -> Callable[[bytes], bytes]:
    """A shard whose index says that only the first chunks were ever written."""

    def change(content: bytes) -> bytes:
        n_chunks = 4
        index = np.frombuffer(content[-16 * n_chunks - 4 : -4], "<u8").reshape(-1, 2).copy()
        index[n_kept:] = 2**64 - 1
        return content[: -16 * n_chunks - 4] + with_checksum(index.tobytes())

    return change


def moved_chunk(offset: int, length: int) -> Callable[[bytes], bytes]:
    """A shard whose first chunk lies elsewhere."""

    def change(content: bytes) -> bytes:
        index = np.frombuffer(content[-68:-4], "<u8").reshape(-1, 2).copy()
        index[0] = offset, length
        return content[:-68] + with_checksum(index.tobytes())

    return change


def other_chunk(chunk: bytes) -> Callable[[bytes], bytes]:
    """A shard whose every chunk is this one."""

    def change(content: bytes) -> bytes:
        index = np.full((4, 2), 2**64 - 1, "<u8")
        index[:] = 0, len(chunk)
        return chunk + with_checksum(index.tobytes())

    return change


def linked(key: str, target: str) -> Callable[[ForeignStore], None]:
    """A link in the place of a file or folder; ``OUTSIDE`` stands for a folder beside the store."""

    def change(store: ForeignStore) -> None:
        path, outside = store.path / key, store.path.parent / "outside"
        if path.is_dir():
            shutil.copytree(path, outside / "copy", dirs_exist_ok=True)
            shutil.rmtree(path)
        elif path.exists():
            shutil.copy(path, outside / path.name)
            path.unlink()
        path.symlink_to(target.replace("OUTSIDE", str(outside)))

    return change


def fifo(key: str) -> Callable[[ForeignStore], None]:
    """A FIFO in the place of a file."""

    def change(store: ForeignStore) -> None:
        (store.path / key).unlink(missing_ok=True)
        os.mkfifo(store.path / key)

    return change


def nested(depth: int) -> bytes:
    """JSON in JSON in JSON."""
    return b"[" * depth + b"]" * depth


def blosc_header(n_bytes: int, size: int) -> bytes:
    """A chunk that says that it inflates to so much."""
    head = bytes([2, 1, 0x13, 8]) + n_bytes.to_bytes(4, "little") + (256).to_bytes(4, "little")
    return with_checksum(head + size.to_bytes(4, "little") + b"\0" * (size - 16))


def uses(path: Path) -> dict[str, Callable[[], object]]:
    """Everything that a user may do with a store, what only reads first."""
    folder = path.parent

    def read_all() -> None:
        store = open_store(path)
        for name in store.channels:
            store.read(name, 0, store.n_rows)
        store.decode(store.channels, np.empty((store.n_rows, len(store.channels)), np.float32))
        store.series("0001").to_pandas()

    return {
        "verify": lambda: _refused_by_faults(path),
        "info": lambda: print_info(open_store(path)),
        "log": lambda: log(path),
        "read": read_all,
        "doctor": lambda: examine(open_store(path)),
        "html": lambda: open_store(path)._repr_html_(),
        "export": lambda: export(open_store(path), folder / "out.csv", overwrite=True),
        "append": lambda: append(folder / "rows40.csv", path, workers=1),
        "compact": lambda: compact(path, workers=1),
        "rollback": lambda: rollback(path, 1),
        "gc": lambda: gc(path, 1),
    }


def _refused_by_faults(path: Path) -> None:
    if faults := verify(open_store(path)).faults:
        raise StoreError("; ".join(faults))


def refusals(path: Path) -> dict[str, str]:
    """Who refuses a store, and what it says. What is no error of ours comes out as it is."""
    said: dict[str, str] = {}
    for name, call in uses(path).items():
        try:
            call()
        except StoreError as error:
            said[name] = str(error)
    return said
