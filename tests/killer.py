"""Runs operations on a store in forks of a process without threads, each to be killed at some mutating call.

Reads lines ``{"point": n, "folder": …, "operation": …, "arguments": {…}}`` and answers each with the wait status; with
``null`` as the point nothing is killed, and the answer is how many such calls there were. Started with ``parts``, it
writes manifests in parts of a few objects.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import dask.threaded  # noqa: F401  # once here, and not in each fork
from crash import die_at, watch_files
from partly import force_parts

import zstore


def run(wanted: dict[str, Any]) -> None:
    """Do what is wanted; end this process with 1 where that is refused."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    folder = Path(wanted["folder"])
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    if wanted["point"] is None:
        watch_files(folder, count, count)
    else:
        die_at(wanted["point"], folder)
    try:
        getattr(zstore, wanted["operation"])(**wanted["arguments"])
    except zstore.ZstoreError:
        os._exit(1)
    os.write(wanted["answer"], str(counted).encode())
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        wanted: dict[str, Any] = json.loads(line)
        reader, wanted["answer"] = os.pipe()
        child = os.fork()
        if child == 0:
            run(wanted)
        status = os.waitpid(child, 0)[1]
        os.close(wanted["answer"])
        counted = os.read(reader, 100)
        os.close(reader)
        sys.stdout.write(f"{status if wanted['point'] is not None else int(counted)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:] == ["parts"]:
        force_parts()
    main()
