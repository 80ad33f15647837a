"""Names as users write them: of channels and the vectors that they make, of fields and attributes, and ids."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from zstore.errors import NotFoundError

_ALIKE, _ALIKE_AMONG = 0.8, 500  # a share of the characters; ids before, and behind, that are compared
FIX_NAME = "correct the name; zstore info shows those of a store"


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


HasName = TypeVar("HasName", bound=_HasName)


def by_name(some: Sequence[HasName], name: str, kind: str, none: str, where: str) -> HasName:
    """The one of some things that has a name.

    Parameters
    ----------
    some
        The things, few.
    name
        The name.
    kind, none, where
        For the error: what they are, what to say where there are none, and the store.

    Raises
    ------
    NotFoundError
        If none is called so.
    """
    for each in some:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in some) or none
    raise NotFoundError(f"no {kind} {name!r}", expected=f"one of {known}", where=where, fix=FIX_NAME)


def position_of(ids: NDArray[Any], id_: str, where: str) -> int:
    """Position of an id among sorted ones, (series,).

    Raises
    ------
    NotFoundError
        If there is no such id, naming those that look alike, or else those nearest in order.
    """
    place = bisect_left(ids, id_)  # in the order of characters, which is that of UTF-8
    if place < len(ids) and ids[place] == id_:
        return place
    around = [str(other) for other in ids[max(place - _ALIKE_AMONG, 0) : place + _ALIKE_AMONG]]
    alike = get_close_matches(id_, around, 2, _ALIKE)
    near = ", ".join(map(repr, alike or map(str, ids[max(place - 2, 0) : place + 2])))
    raise NotFoundError(f"no id {id_!r}", expected=f"one of {len(ids):,} ids, such as {near}", where=where)


def grouped(channels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names of channels by their own name; those of a vector together, by its own, see `DescribedVersion.vectors`.

    A vector stands where its first channel does.
    """
    numbers: dict[str, set[str]] = {}
    for name in channels:
        stem, dot, number = name.rpartition(".")
        if stem and dot and number.isascii() and number.isdigit() and str(int(number)) == number:
            numbers.setdefault(stem, set()).add(number)
    known = set(channels)
    vectors = {
        stem: tuple(f"{stem}.{n}" for n in range(len(some)))
        for stem, some in numbers.items()
        if len(some) > 1 and some == {str(n) for n in range(len(some))} and stem not in known
    }
    vector_of = {channel: name for name, own in vectors.items() for channel in own}
    names = dict.fromkeys(vector_of.get(name, name) for name in channels)
    return {name: vectors.get(name, (name,)) for name in names}
