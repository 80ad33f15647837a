"""Paths of LeRobot folders, which their `info.json` has as templates: read as patterns, and never formatted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from zstore.errors import SourceError
from zstore.writing.sources.files import cannot_read
from zstore.writing.sources.typed.parquet_source import ParquetSource

EPISODE = "episode_index"
_NUMBERS = ("episode_chunk", EPISODE, "chunk_index", "file_index", "total_episodes")
_SPEC = re.compile(r"(0\d{1,2})?d?", re.ASCII)
_LITERAL = re.compile(r"[\w.\- ]*", re.ASCII)
_MOST_FILES = 1_000_000


def patterns_of(template: object, where: str) -> list[re.Pattern[str]]:
    """What the parts of a path look like.

    Parameters
    ----------
    template
        Such as ``data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet``; anything else is refused.
    where
        The document that it is from.

    Raises
    ------
    SourceError
        If it is no path below the folder, or has other fields than numbers of chunks, files and episodes.
    """
    parts = template.split("/") if isinstance(template, str) and len(template) < 1000 else []
    try:
        patterns = [_pattern(part) for part in parts]
    except ValueError:
        patterns = []
    if not patterns or not str(template).endswith(ParquetSource.endings):
        raise SourceError(
            f"data_path {str(template)[:200]!r}",
            expected="a path of .parquet files below the folder, with numbers such as {chunk_index:03d} in it",
            where=where,
            fix="correct it, or name the Parquet files themselves",
        )
    return patterns


def _pattern(part: str) -> re.Pattern[str]:
    """Of one part between slashes; a `ValueError` where it may be none."""
    if part in ("", ".", ".."):
        raise ValueError(part)
    pattern, seen = "", set()
    for literal, field, spec, conversion in Formatter().parse(part):
        if not _LITERAL.fullmatch(literal):
            raise ValueError(literal)
        pattern += re.escape(literal)
        if field is None:
            continue
        if field not in _NUMBERS or conversion is not None or not _SPEC.fullmatch(spec or "") or field in seen:
            raise ValueError(field)
        seen.add(field)
        pattern += rf"(?P<{field}>\d{{1,12}})"
    return re.compile(pattern, re.ASCII)


def matches(root: Path, patterns: list[re.Pattern[str]], where: str) -> list[tuple[Path, int | None]]:
    """Files below a folder that a template names, in the order of their numbers, each with its episode if it has one.

    Raises
    ------
    SourceError
        If there are too many.
    """
    named: list[tuple[tuple[int, ...], Path, int | None]] = []
    for path, numbers in _below(root, patterns, {}):
        named.append((tuple(numbers.values()), path, numbers.get(EPISODE)))
        if len(named) > _MOST_FILES:
            raise SourceError(
                f"more than {_MOST_FILES:,} data files", expected="fewer", where=where, fix="ingest parts of the folder"
            )
    return [(path, episode) for _, path, episode in sorted(named, key=lambda each: (each[0], str(each[1])))]


def _below(
    folder: Path, patterns: list[re.Pattern[str]], before: dict[str, int]
) -> Iterator[tuple[Path, dict[str, int]]]:
    if not folder.is_dir():
        return
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, patterns[0].fullmatch(entry.name)) for entry in entries]
    except OSError as error:
        raise cannot_read(str(folder), error) from error
    for name, match in listed:
        if match is None:
            continue
        numbers = {**before, **{field: int(number) for field, number in match.groupdict().items()}}
        if len(patterns) > 1:
            yield from _below(folder / name, patterns[1:], numbers)
        elif (folder / name).is_file():
            yield folder / name, numbers
