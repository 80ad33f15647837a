"""Removing what no version needs: what dead writers left behind, and what old versions had to themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from zstore.format.arrays import to_bytes
from zstore.format.commit import replace_object
from zstore.format.layout import ROOT, TIME, root_copy_key
from zstore.reading.objects import ObjectReader, committed_versions


def needed_keys(root: Path, versions: Iterable[int]) -> set[str]:
    """Every object that some versions need, the root document and the mirrors of the arrays' documents included."""
    needed = {ROOT}
    for version in versions:
        objects = ObjectReader(root, version)
        needed |= objects.keys
        channels = (channel["variable"] for channel in objects.document["channels"])
        needed |= {f"{variable}/{ROOT}" for variable in (TIME, *channels)}
    return needed


def tidy(root: Path) -> set[str]:
    """Finish what a writer that died after its commit left undone, and remove what one that died before left behind.

    Returns
    -------
    Every object that is needed.
    """
    versions = committed_versions(root)
    needed, newest = needed_keys(root, versions), ObjectReader(root)
    remove_others(root, needed)
    replace_object(root, root_copy_key(int(newest.document["version"])), newest.root)
    for key in needed:
        node = key.removesuffix(f"/{ROOT}")
        if key.endswith(f"/{ROOT}") and "/" not in node and node in newest.nodes:
            replace_object(root, key, to_bytes(newest.nodes[node]))
    return needed


def remove_others(root: Path, needed: set[str]) -> tuple[int, int]:
    """Remove every object but the needed ones, root documents of versions first, and folders that become empty.

    Returns
    -------
    Objects and bytes removed.
    """
    found = [path for path in root.rglob("*") if path.is_file() and str(path.relative_to(root)) not in needed]
    n_bytes = sum(path.stat().st_size for path in found)
    for path in sorted(found, key=lambda path: (path.name != "root.json", path)):
        path.unlink()
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            shutil.rmtree(folder)
    return len(found), n_bytes
