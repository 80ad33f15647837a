"""``zstore about``: what a report of a bug says of the machine."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from jsonargparse import ArgumentParser, Namespace

from zstore._version import __version__
from zstore.amounts import show_size
from zstore.flags import Command
from zstore.memory import total_memory
from zstore.storage.portable import n_cores


def about() -> dict[str, str]:
    """Versions and the machine, by name: zstore, Python, system, cores, memory, and the dependencies that are here.

    Notes
    -----
    Dependencies are those of zstore and of all of its extras, in alphabetical order. None of them is imported.
    """
    known = {
        "zstore": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "cores": str(n_cores()),
        "memory": show_size(total_memory()),
    }
    return known | {name: version for name in _dependencies() if (version := _version_of(name)) is not None}


def _dependencies() -> list[str]:
    try:
        required = metadata.requires("zstore") or []
    except metadata.PackageNotFoundError:  # a tree that was never installed
        required = []
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in required}
    return sorted(names - {"zstore"})


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _flags(_: ArgumentParser) -> None:
    """It has none of its own."""


def _about(_: Namespace) -> int:
    found = about()
    width = max(map(len, found)) + 2
    for name, text in found.items():
        print(f"{name:<{width}}{text}")
    return 0


COMMANDS = (Command("about", "print versions and the machine, for a report of a bug", _flags, _about, stores=False),)
