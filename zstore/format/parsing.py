"""JSON documents from elsewhere, parsed within a limit of memory."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NoReturn

from zstore.errors import StoreError, UsageError
from zstore.format.refusals import refuse

MOST_ROOT_BYTES = 192 << 20
"""Memory that a root document may take when it is parsed; ``ZSTORE_ROOT_BYTES`` sets another limit."""


_VALUE_BYTES = 64  # of memory for each value in a JSON document, at most, its text left out


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def most_root_bytes() -> int:
    """The limit in force. Raises `UsageError` if ``ZSTORE_ROOT_BYTES`` is no number."""
    given = os.environ.get("ZSTORE_ROOT_BYTES")
    if given is None:
        return MOST_ROOT_BYTES
    if not (given.isascii() and given.isdigit()):
        raise UsageError(f"ZSTORE_ROOT_BYTES={given!r}", expected="a number of bytes", fix="correct it, or unset it")
    return int(given)


def parse_json(content: bytes, where: str, what: str = "root document") -> Any:
    """A JSON document from bytes that nobody vouches for; `what` it is, for messages.

    Raises
    ------
    StoreError
        If it would take more than the limit to parse, is nested too deeply, is not UTF-8, or is no JSON, which has no
        NaN and no halves of surrogate pairs.
    """
    wide = 1 if content.isascii() else 4 if max(content) >= 0xF0 else 2  # bytes of memory for each character
    n_values = sum(content.count(mark) for mark in (b",", b":", b"[", b"{"))
    needed = (1 + 2 * wide) * len(content) + _VALUE_BYTES * n_values
    if needed > most_root_bytes():
        too_large_root(needed, where, what)
    try:
        document = json.loads(content, parse_constant=_no_constant)
        if _SURROGATE.search(content):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except RecursionError:
        refuse("a JSON document nested too deeply", f"a {what} of zstore", where)
    except ValueError as error:
        raise StoreError(
            f"not a zstore {what} ({error})",
            expected="a Zarr v3 group written by zstore",
            where=where,
            fix="restore the file, or ingest again",
        ) from error


def too_large_root(n_bytes: int, where: str, what: str = "root document") -> NoReturn:
    """Refuse a document for its size. Raises `StoreError`."""
    refuse(
        f"a {what} that would take {n_bytes:,} bytes of memory",
        f"at most {most_root_bytes():,}",
        where,
        "if you know whose store it is, set ZSTORE_ROOT_BYTES to a higher limit",
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
