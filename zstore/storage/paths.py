"""Paths as users write them, before anything is looked for at them."""

from __future__ import annotations

from pathlib import Path

from zstore.errors import UsageError


def check_path(path: str | Path, what: str) -> None:
    """Refuse a path that no system has.

    Parameters
    ----------
    path
        A path or URL.
    what
        What it is of, for messages.

    Raises
    ------
    UsageError
        If there is a NUL in it.
    """
    if "\0" in str(path):
        shown = str(path).replace("\0", "\\0")
        raise UsageError(f"{what} {shown!r}, with a NUL", expected="a path", fix="check the variable it comes from")
