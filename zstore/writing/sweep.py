"""Removing what no version needs: what dead writers left behind, and what old versions had to themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from zstore.format.commit import is_store
from zstore.format.documents import to_bytes
from zstore.format.layout import MARKER, ROOT, SCRATCH, root_copy_key, split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import byte_arrays, row_arrays
from zstore.reading.objects import ObjectReader
from zstore.reading.root import committed_versions, root_document
from zstore.storage.protocol import Storage


def needed_keys(storage: Storage, versions: Iterable[int]) -> set[str]:
    """Every object that some versions need, the root document and the mirrors of the arrays' documents included."""
    needed, seen = {ROOT, MARKER}, set[ObjectRecord]()  # parts of manifests that versions share are read once
    for version in versions:
        objects = ObjectReader(storage, version)
        needed |= objects.own_keys
        needed.update(objects.manifest.keys_beside(seen))
        needed |= {f"{variable}/{ROOT}" for variable in (*row_arrays(objects.document), *byte_arrays(objects.document))}
    return needed


def is_finished(storage: Storage) -> bool:
    """Whether the writer that committed the newest version has made its copies, the last thing that it does."""
    return storage.n_bytes(root_copy_key(root_document(storage).version)) is not None


def tidy(storage: Storage, kept: Collection[str] = ()) -> None:
    """Finish what a writer that died after its commit left undone, and remove what one that died before left behind.

    Its scratch space stays, and so do objects that are `kept`: the next writer may go on from there.
    """
    needed, newest = needed_keys(storage, committed_versions(storage)), root_document(storage)
    remove_others(storage, needed.union(kept), SCRATCH)
    nodes = {key: key.removesuffix(f"/{ROOT}") for key in needed if key.endswith(f"/{ROOT}")}
    mirrors = {key: node for key, node in nodes.items() if "/" not in node and node in newest.nodes}
    storage.replace_all({key: to_bytes(newest.nodes[node]) for key, node in mirrors.items()})
    storage.replace(root_copy_key(newest.version), newest.content)


def remove_others(storage: Storage, needed: set[str], but: str = "-") -> tuple[int, int]:
    """Remove every object but the needed ones, and those whose keys start with `but`; root documents first.

    Returns
    -------
    Objects and bytes removed.
    """
    others = {key: n_bytes for key, n_bytes in storage.sizes().items() if key not in needed and not key.startswith(but)}
    copies = [key for key in others if key.endswith("/root.json")]
    storage.remove(copies)
    storage.remove(sorted(others.keys() - set(copies)))
    return len(others), sum(others.values())


def free_bytes(storage: Storage, variable: str, n_wanted: int) -> int:
    """The first of `n_wanted` consecutive shards of an array of bytes that no version has; 0 where nothing is."""
    if not is_store(storage):
        return 0
    used, seen = set[int](), set[ObjectRecord]()
    for version in committed_versions(storage):
        pairs = map(split_shard_key, ObjectReader(storage, version).manifest.keys_beside(seen))
        used |= {int(shard) for name, shard in pairs if name == variable and shard}
    return _free(used, n_wanted)


def free_shard(storage: Storage, n_wanted: int) -> int:
    """The first of `n_wanted` consecutive shards that no version has objects of."""
    used, seen = set[int](), set[ObjectRecord]()
    for version in committed_versions(storage):
        objects = ObjectReader(storage, version)
        arrays, size = row_arrays(objects.document), objects.document["shard_rows"]
        for key in objects.manifest.keys_beside(seen):
            variable, number = split_shard_key(key)
            if number and variable in arrays:
                used.add(int(number) * arrays[variable].grid.shard_rows // size)
    return _free(used, n_wanted)


def _free(used: set[int], n_wanted: int) -> int:
    """The first of so many consecutive numbers that are not used."""
    first = 0
    for shard in sorted(used):
        if shard - first >= n_wanted:
            break
        first = max(first, shard + 1)
    return first
