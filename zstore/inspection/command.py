"""The command that would ingest a file as it looks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from zstore.inspection.frame import Frame
from zstore.writing.sources.csv.framing import SPACES
from zstore.writing.sources.kinds import stem_of


def command_of(path: str, flags: Mapping[str, Any]) -> str:
    """The command line of an ingest.

    Parameters
    ----------
    path
        The file.
    flags
        From the names of the options of :func:`zstore.ingest` to their values: texts, numbers, lists, mappings.
    """
    words = ["zstore", "ingest", path, f"{stem_of(path)}.zarr"]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, written(value)]
    return shlex.join(words)


def written(value: Any) -> str:
    """A value as it is typed: lists as a line of CSV, in which names with commas have quotes."""
    if isinstance(value, Mapping):
        value = [f"{name}={text}" for name, text in value.items()]
    if not isinstance(value, list):
        return str(value)
    return ",".join(map(_quoted, value))


def _quoted(name: str) -> str:
    """A name within quotes, if it needs them."""
    plain = not name.startswith('"') and not any(mark in name for mark in ",\r\n")
    return name if plain else '"' + name.replace('"', '""') + '"'


def frame_flags(frame: Frame, encoding: str) -> dict[str, Any]:
    """Options that say how the text is cut."""
    flags: dict[str, Any] = {}
    if encoding != "utf-8":
        flags["encoding"] = encoding
    if frame.skip_lines:
        flags["skip_lines"] = frame.skip_lines
    if frame.comment is not None:
        flags["comment"] = frame.comment
    if not frame.header:
        flags |= {"no_header": True, "names": list(frame.names)}
    if frame.units_row and frame.header:
        flags["units_row"] = True
    if frame.n_below:
        flags["skip_below_header"] = frame.n_below
    if frame.delimiter == SPACES or (not frame.header and frame.delimiter != ","):
        flags["delimiter"] = frame.delimiter
    return flags
