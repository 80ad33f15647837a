"""Sizes as people write them."""

from __future__ import annotations

import re

from zstore.errors import UsageError

_SIZES = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SIZES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_size(text: str) -> int:
    """Bytes from a size such as ``512MiB``, ``1GiB`` or ``2e9``.

    Raises
    ------
    UsageError
        If it is not a size.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)", str(text).strip().lower())
    try:
        if match is None or match[2] not in _SIZES:
            raise ValueError(text)
        return int(float(match[1]) * _SIZES[match[2]])
    except (ValueError, OverflowError):
        raise UsageError(f"size {text!r}", expected="bytes, or a size such as 512MiB or 2GB") from None


def bytes_of(size: int | str | None, flag: str) -> int | None:
    """Bytes from a number of them or a size as people write it; None stays None.

    Raises
    ------
    UsageError
        If it is neither, or less than one; names the flag.
    """
    if size is None:
        return None
    n_bytes = parse_size(size) if isinstance(size, str) else int(size)
    if n_bytes < 1:
        raise UsageError(f"{flag} {size}", expected="one byte or more", fix=f"as in {flag} 512MiB")
    return n_bytes
