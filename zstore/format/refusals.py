"""Plain values that a store holds, checked: what cannot be is refused, with one way to say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from zstore.errors import StoreError

FIX = "do not use this store: no release of zstore wrote it like this; fetch it again, or ingest its sources"


def refuse(what: str, expected: str, where: str, fix: str = FIX) -> NoReturn:
    """Say what in a store cannot be.

    Raises
    ------
    StoreError
        Always.
    """
    raise StoreError(what, expected=expected, where=where, fix=fix)


def whole(value: Any, least: int, most: int, what: str, where: str) -> int:
    """A whole number from `least` to `most`, or a refusal."""
    if not is_whole(value, least, most):
        refuse(f"{what} {shown(value)}", f"a whole number from {least:,} to {most:,}", where)
    return int(value)


def text(value: Any, what: str, where: str) -> str:
    """A text that can be encoded, or a refusal."""
    if not isinstance(value, str):
        refuse(f"{what} is {value!r}", "a text", where)
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(f"{what} is {value!r}", "a text without half of a surrogate pair", where)
    return value


def texts(values: Iterable[Any], what: str, where: str) -> list[str]:
    """Texts that can be encoded, or a refusal."""
    return [text(value, what, where) for value in values]


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether a value is a whole number from `least` to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def shown(value: Any) -> str:
    """A value as messages have it, digits of whole numbers in groups."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)
