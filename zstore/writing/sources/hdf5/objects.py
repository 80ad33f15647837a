"""Groups and data sets of a file, found without following a link out of it, and judged before a value is read.

What a file says of itself costs nothing until it is believed. So a data set is refused that lies in other files
(virtual, external), whose bytes are fewer than its shape claims, or whose filters or types this release does not know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from zstore.errors import ZstoreError
from zstore.writing.sources.hdf5.library import h5py_of

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "n-bit", 6: "scale-offset", 32000: "lzf"}
"""Filters that HDF5 and h5py have built in. No other is asked for: that would load code from a plugin path."""
MOST_CHUNK_BYTES = 1 << 29
_MOST_LINKS = 16


class ObjectError(Exception):
    """A group or data set that cannot be read as it should be.

    Parameters
    ----------
    reason
        What is wrong, with its path.
    expected
        What would be right.
    """

    def __init__(self, reason: str, expected: str) -> None:
        super().__init__(reason, expected)
        self.reason, self.expected = reason, expected


@contextmanager
def damage_in(what: str) -> Iterator[None]:
    """What h5py says of damage as an `ObjectError` of something."""
    try:
        yield
    except ZstoreError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ObjectError(f"damage in {what} ({error})", "bytes as they were written") from error


class AbsentError(ObjectError):
    """There is no such group or data set."""


@dataclass(frozen=True)
class DataSet:
    """What the header of a data set says, once that is checked against the file.

    Parameters
    ----------
    path
        From the root.
    shape, dtype
        Of its values, as numpy has them.
    chunk_rows
        Rows of a chunk; None where it is not chunked.
    handle
        Of h5py, while the file is open.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int | None
    handle: Any

    @property
    def n_rows(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return self.dtype.itemsize * math.prod(self.shape[1:])


def find_object(root: Any, path: str, base: str = "/") -> tuple[Any, str]:
    """An object of a file, by its path.

    Parameters
    ----------
    root
        The file of h5py, open.
    path, base
        From a group of it, or with a slash before it from its root.

    Returns
    -------
    The identifier of h5py, and the path from the root.

    Raises
    ------
    AbsentError
        If there is none.
    ObjectError
        If a link on the way leads out of the file.
    """
    whole = path if path.startswith("/") else f"{base.rstrip('/')}/{path}"
    node, shown = root.id, ""
    parts = [part for part in whole.split("/") if part]
    known: dict[str, tuple[Any, str]] = getattr(root, "known_groups", {})
    parent = "/".join(parts[:-1])
    if parent in known:
        (node, shown), parts = known[parent], parts[-1:]
    n_links = 0
    while parts:
        if len(parts) == 1 and not n_links:
            known[parent] = node, shown
        part = parts.pop(0)
        here = shown or "/"
        shown = f"{shown}/{part}"
        kind, value = link_of(node, part, shown)
        if kind == "soft":
            n_links += 1
            if n_links > _MOST_LINKS or ".." in str(value).split("/"):
                raise ObjectError(f"soft link {shown} to {value}", "a link that ends at a group or data set")
            target = str(value) if str(value).startswith("/") else f"{here.rstrip('/')}/{value}"
            node, shown = root.id, ""
            parts = [each for each in target.split("/") if each and each != "."] + parts
            continue
        node = h5py_of(shown).h5o.open(node, part.encode())
    return node, shown or "/"


def link_of(group: Any, name: str, shown: str) -> tuple[str, str | None]:
    """What kind of link a name of a group is, ``hard`` or ``soft``, and where a soft one leads.

    Raises
    ------
    AbsentError
        If there is no such name.
    ObjectError
        If it leads out of the file.
    """
    h5py = h5py_of(shown)
    if not isinstance(group, h5py.h5g.GroupID) or not group.links.exists(name.encode()):
        raise AbsentError(f"no {shown}", "a group or data set of this name")
    kind = group.links.get_info(name.encode()).type
    if kind == h5py.h5l.TYPE_HARD:
        return "hard", None
    if kind == h5py.h5l.TYPE_SOFT:
        return "soft", group.links.get_val(name.encode()).decode(errors="replace")
    where = " to another file" if kind == h5py.h5l.TYPE_EXTERNAL else f" of kind {kind}"
    raise ObjectError(f"link {shown}{where}", "data that lie in this file, which alone is read")


def names_of(group: Any, most: int) -> list[str]:
    """Names in a group, in the order of HDF5's index, at most so many.

    Raises
    ------
    ObjectError
        If there are more, or one is not UTF-8.
    """
    if group.get_num_objs() > most:
        raise ObjectError(f"{group.get_num_objs():,} names in a group", f"at most {most:,}")
    try:
        return [name.decode() for name in group]
    except UnicodeDecodeError as error:
        raise ObjectError(f"a name that is not UTF-8 ({error.object!r})", "names in UTF-8") from None


def address(node: Any) -> tuple[int, int]:
    """What tells an object of an open file, whatever names hard links give it."""
    info = h5py_of("an object").h5o.get_info(node)
    return int(info.fileno), int(info.addr)


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key by which ``demo_10`` stands behind ``demo_2``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]


def find_group(root: Any, path: str) -> tuple[Any, str]:
    """A group, as :func:`find_object`."""
    node, shown = find_object(root, path)
    if not isinstance(node, h5py_of(path).h5g.GroupID):
        raise ObjectError(f"{shown}, which is no group", "a group")
    return node, shown


def find_data(root: Any, path: str, base: str = "/", n_file_bytes: int | None = None) -> DataSet:
    """A data set, as :func:`find_object`, that can be read.

    Parameters
    ----------
    root, path, base
        As there.
    n_file_bytes
        Bytes of the file, which no data set can need more of; None not to look at its bytes.

    Raises
    ------
    ObjectError
        If it lies elsewhere, claims more than there is, or has a type or filter that is not known.
    """
    node, shown = find_object(root, path, base)
    if not isinstance(node, h5py_of(path).h5d.DatasetID):
        raise ObjectError(f"{shown}, which is no data set", "a data set")
    return judge(node, shown, n_file_bytes)


def judge(node: Any, shown: str, n_file_bytes: int | None) -> DataSet:
    """A data set that can be read; raises as :func:`find_data`."""
    h5py, creation = h5py_of(shown), node.get_create_plist()
    layout = creation.get_layout()  # before the shape, which of a virtual one would be looked up in other files
    if layout == h5py.h5d.VIRTUAL:
        raise ObjectError(f"virtual data set {shown}", "data that lie in this file, which alone is read")
    if creation.get_external_count():
        raise ObjectError(f"data set {shown} in an external file", "data that lie in this file, which alone is read")
    for position in range(creation.get_nfilters()):
        code = creation.get_filter(position)[0]
        if code not in FILTERS:
            raise ObjectError(f"filter {code} of data set {shown}", f"one of {', '.join(FILTERS.values())}")
    space = node.get_space()
    if space.get_simple_extent_type() != h5py.h5s.SIMPLE or not space.get_simple_extent_ndims():
        raise ObjectError(f"data set {shown} without rows", "a value for each row")
    dtype = _dtype(node, shown)
    shape = tuple(int(size) for size in space.get_simple_extent_dims())
    chunks = tuple(int(size) for size in creation.get_chunk()) if layout == h5py.h5d.CHUNKED else None
    if n_file_bytes is not None:
        _check_bytes(node, shown, shape, chunks, creation.get_nfilters(), n_file_bytes)
    return DataSet(shown, shape, dtype, None if chunks is None else chunks[0], node)


def has_rows(node: Any) -> bool:
    """Whether a data set has a dimension; one of others, which is never looked up in them, counts as if it had."""
    h5py = h5py_of("a data set")
    if node.get_create_plist().get_layout() == h5py.h5d.VIRTUAL:
        return True
    space = node.get_space()
    return bool(space.get_simple_extent_type() == h5py.h5s.SIMPLE and space.get_simple_extent_ndims())


def _dtype(node: Any, shown: str) -> np.dtype[Any]:
    expected = "numbers, booleans, or texts of fixed length"
    try:
        dtype: np.dtype[Any] = node.dtype
    except (TypeError, ValueError) as error:
        raise ObjectError(f"data set {shown} of a type that numpy has not ({error})", expected) from None
    if dtype.hasobject:
        raise ObjectError(f"data set {shown} of variable length or references", expected)
    return dtype


def _check_bytes(
    node: Any, shown: str, shape: tuple[int, ...], chunks: tuple[int, ...] | None, n_filters: int, n_file_bytes: int
) -> None:
    """Refuse a data set whose bytes are fewer than its shape claims."""
    item, n_values, stored = node.get_type().get_size(), math.prod(shape), node.get_storage_size()
    if not n_values:
        return
    lacking = ObjectError(
        f"data set {shown} of {n_values * item:,} bytes, of which {stored:,} are in the file",
        "every row of it, written",
    )
    if chunks is None:
        offset = node.get_offset() or 0
        if stored != n_values * item or offset + stored > n_file_bytes:
            raise lacking
        return
    chunk_bytes = item * math.prod(chunks)
    if chunk_bytes > MOST_CHUNK_BYTES:
        raise ObjectError(f"chunks of {chunk_bytes:,} bytes in data set {shown}", f"at most {MOST_CHUNK_BYTES:,}")
    n_chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    if stored > n_file_bytes or n_chunks > n_file_bytes or (not n_filters and stored < n_chunks * chunk_bytes):
        raise lacking
    if node.get_num_chunks() != n_chunks:
        raise ObjectError(
            f"data set {shown} of {n_chunks:,} chunks, of which {node.get_num_chunks():,} are in the file",
            "every row of it, written",
        )


def attributes_of(node: Any, most: int, most_characters: int | None) -> Iterator[tuple[str, Any]]:
    """Attributes of an object that are one number or text.

    Parameters
    ----------
    node
        Its identifier.
    most
        Most attributes that are looked at.
    most_characters
        Characters of a text; longer ones come as None. None for all.

    Raises
    ------
    ObjectError
        If there are more of them.
    """
    h5py = h5py_of("attributes")
    n_attributes = h5py.h5a.get_num_attrs(node)
    if n_attributes > most:
        raise ObjectError(f"{n_attributes:,} attributes", f"at most {most:,}")
    for index in range(n_attributes):
        attribute = h5py.h5a.open(node, index=index)
        name = attribute.name.decode(errors="replace")
        size = math.prod(attribute.shape) if attribute.shape is not None else 0
        if size == 1 and attribute.get_type().get_size() <= (most_characters or 1 << 20):
            yield name, _attribute(h5py, node, name, most_characters)


def _attribute(h5py: Any, node: Any, name: str, most_characters: int | None) -> Any:
    """The value of one; None where it is a longer text, none in UTF-8, or of a kind that no static attribute has."""
    try:
        value = h5py.AttributeManager(_Node(node))[name]
        value = value.reshape(-1)[0] if isinstance(value, np.ndarray) else value
        value = value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
    except (TypeError, ValueError):
        return None
    if isinstance(value, str):
        utf8 = value.isascii() or not any("\udc80" <= character <= "\udcff" for character in value)
        return value if utf8 and (most_characters is None or len(value) <= most_characters) else None
    return value.item() if isinstance(value, (np.bool_, np.integer, np.floating)) else None


@dataclass(frozen=True)
class _Node:
    """What h5py's manager of attributes asks of an object."""

    id: Any
