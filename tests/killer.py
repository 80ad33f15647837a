"""Runs operations on a store in forks of a process without threads, each to be killed at some mutating call.

Reads lines ``{"point": n, "folder": …, "operation": …, "arguments": {…}}`` and answers each with the wait status.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from crash import die_at

import zstore


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        wanted: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            die_at(wanted["point"], Path(wanted["folder"]))
            try:
                getattr(zstore, wanted["operation"])(**wanted["arguments"])
            except zstore.ZstoreError:
                os._exit(1)
            os._exit(0)
        sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
