"""A part of the page that another package brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from zstore.errors import UsageError


class Query(Protocol):
    """Parameters of an address."""

    def get(self, name: str) -> str | None:
        """The last of a name."""

    def many(self, name: str) -> list[str]:
        """All of a name, in their order, each once."""

    def whole(self, name: str, default: int, low: int = 0, high: int = 2**62) -> int:
        """A whole number, brought within bounds; `default` where there is none."""

    def number(self, name: str) -> float | None:
        """A finite number; None where there is none."""


class Panel(NamedTuple):
    """A part of the page.

    Parameters
    ----------
    name, title
        In addresses, and for people.
    script
        File of JavaScript that draws it: a module with ``title`` and ``show(page, overview, at)``.
    answers
        By the last part of an address, ``/api/NAME/…``, functions of a query to a document for JSON, or to bytes of a
        PNG.
    modules
        Further files of JavaScript that `script` imports, as ``/panels/NAME/FILE``.
    """

    name: str
    title: str
    script: Path
    answers: Mapping[str, Callable[[Any], Any]]
    modules: Sequence[Path] = ()


def require(value: str | None, name: str) -> str:
    """A parameter of an address that has to be there.

    Raises
    ------
    UsageError
        If it is not.
    """
    if value is None:
        raise UsageError(f"no {name}", expected=f"{name}=… in the address")
    return value
