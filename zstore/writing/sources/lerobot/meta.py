"""What the `meta` folder of a LeRobot folder says: nothing of it is believed, and everything is bounded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa

from zstore.errors import SourceError
from zstore.writing.sources.files import find
from zstore.writing.sources.lerobot.template import matches, patterns_of
from zstore.writing.sources.typed.cells import is_text
from zstore.writing.sources.typed.parquet_table import ParquetTable

INFO = Path("meta") / "info.json"
_EPISODES = Path("meta") / "episodes.jsonl"
_TASKS = Path("meta") / "tasks.jsonl"
_TASK_TABLE = Path("meta") / "tasks.parquet"
_EPISODE_TABLES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VERSIONS = ("v2.", "v3.")
_MOST_INFO, _MOST_LINES = 1 << 24, 1 << 28  # bytes
_MOST_EPISODES = 10_000_000
_MOST_FPS = 1_000_000
_PIECE_ROWS = 1 << 16
_IMAGES = ("image", "video")


@dataclass(frozen=True)
class Info:
    """What `meta/info.json` says.

    Parameters
    ----------
    version
        Of the layout, such as ``v2.1``.
    fps
        Frames a second.
    data_path
        Template of the paths of data files.
    kinds
        Dtype of each feature by its name.
    robot
        The robot, if it is named.
    """

    version: str
    fps: float
    data_path: str
    kinds: Mapping[str, str]
    robot: str | None

    @property
    def images(self) -> tuple[str, ...]:
        """Features that are images or videos, which are not read."""
        return tuple(name for name, kind in self.kinds.items() if kind in _IMAGES)


@dataclass(frozen=True)
class Episode:
    """What is said of an episode.

    Parameters
    ----------
    length
        Rows that it should have; None where that is not said.
    tasks
        Texts of its tasks.
    """

    length: int | None
    tasks: tuple[str, ...]


def is_lerobot(path: str | Path) -> bool:
    """Whether a path is a folder on disk with a ``meta/info.json``."""
    try:
        return (Path(path) / INFO).is_file()
    except (OSError, ValueError):
        return False


def read_info(root: Path) -> Info:
    """Read `meta/info.json`.

    Raises
    ------
    SourceError
        If it is not what it should be.
    """
    where = str(root / INFO)
    document = _parsed(_bytes_of(root / INFO, _MOST_INFO), where)
    version, fps, features = (document.get(name) for name in ("codebase_version", "fps", "features"))
    if not isinstance(version, str) or not version.startswith(_VERSIONS):
        raise _refused(
            f"codebase_version {_shown(version)}",
            "v2.0, v2.1 or v3.0",
            where,
            "bring the folder to one of them with LeRobot's own converter, or name its Parquet files",
        )
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= _MOST_FPS:
        raise _refused(f"fps {_shown(fps)}", f"frames a second: a number above 0, at most {_MOST_FPS:,}", where)
    if not isinstance(features, dict) or not all(isinstance(each, dict) for each in features.values()):
        raise _refused(f"features {_shown(features)}", "a dtype and a shape for each name", where)
    robot, data_path = document.get("robot_type"), document.get("data_path")
    patterns_of(data_path, where)
    kinds = {name: str(each.get("dtype"))[:100] for name, each in features.items()}
    return Info(version[:20], float(fps), str(data_path), kinds, robot[:200] if isinstance(robot, str) else None)


def data_files(root: Path, info: Info) -> list[tuple[Path, int | None]]:
    """Data files, each with the episode that its name has; none has another one.

    Raises
    ------
    SourceError
        If there is none.
    """
    where = str(root / INFO)
    named = matches(root, patterns_of(info.data_path, where), where)
    if not named:
        raise _refused(
            f"no file as data_path {info.data_path!r} has it", "Parquet files", where, "fetch the data files too"
        )
    return named


def read_episodes(root: Path) -> dict[int, Episode]:
    """What is said of each episode: `meta/episodes.jsonl`, or the Parquet files of `meta/episodes`.

    Raises
    ------
    SourceError
        If one of them is damaged, or says two things of an episode.
    """
    episodes: dict[int, Episode] = {}
    for where, document in _rows_of(root, _EPISODES, _EPISODE_TABLES, ("episode_index", "length", "tasks")):
        number, length, tasks = (document.get(name) for name in ("episode_index", "length", "tasks"))
        tasks = [] if tasks is None else [tasks] if isinstance(tasks, str) else tasks
        known = isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)
        if not _is_count(number) or not known or not (length is None or _is_count(length)):
            raise _refused(f"episode {_shown(document)}", "episode_index, length and a list of tasks", where)
        if number in episodes or len(episodes) >= _MOST_EPISODES:
            raise _refused(f"episode {number} again", f"every episode once, at most {_MOST_EPISODES:,}", where)
        episodes[number] = Episode(length, tuple(tasks))
    return episodes


def read_tasks(root: Path) -> dict[int, str]:
    """Texts of tasks by their number: `meta/tasks.jsonl`, or `meta/tasks.parquet`. Raises as :func:`read_episodes`."""
    tasks: dict[int, str] = {}
    for where, document in _rows_of(root, _TASKS, str(_TASK_TABLE), ("task_index", "task", "__index_level_0__")):
        number, text = document.get("task_index"), document.get("task", document.get("__index_level_0__"))
        if not _is_count(number) or not isinstance(text, str):
            raise _refused(f"task {_shown(document)}", "task_index and the text of the task", where)
        if tasks.setdefault(number, text) != text or len(tasks) > _MOST_EPISODES:
            raise _refused(f"task {number} again", "every task once", where)
    return tasks


def _rows_of(root: Path, lines: Path, table: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of a file of lines, or rows of Parquet files, each with where it stands."""
    if (root / lines).exists():
        content = _bytes_of(root / lines, _MOST_LINES)
        for number, line in enumerate(content.split(b"\n"), 1):
            if line.strip():
                where = f"{root / lines} line {number:,}"
                yield where, _parsed(line, where)
        return
    for path, _ in matches(root, patterns_of(table, str(root / "meta")), str(root / "meta")):
        opened = ParquetTable.open(find(path, "SRC"), str(path))
        names = [name for name in columns if name in opened.types and _is_plain(opened.types[name])]
        n_rows = sum(opened.group_rows)
        if n_rows > _MOST_EPISODES:
            raise _refused(f"{n_rows:,} rows", f"at most {_MOST_EPISODES:,}", str(path))
        for group in range(len(opened.group_rows)):
            row = 0
            for batch in opened.batches(names, (), group, _PIECE_ROWS):
                try:
                    cells = batch.select(names).to_pylist()
                except UnicodeDecodeError:
                    raise _refused("a text that is not UTF-8", "text in UTF-8", str(path)) from None
                for cell in cells:
                    yield f"{path} {opened.place(group, row)}", {n: v for n, v in cell.items() if v is not None}
                    row += 1


def _is_plain(dtype: pa.DataType) -> bool:
    """Whether cells of a type are numbers, texts, or lists of texts."""
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        dtype = dtype.value_type
    return bool(pa.types.is_integer(dtype)) or is_text(dtype)


def _bytes_of(path: Path, most: int) -> bytes:
    file = find(path, "SRC")
    if file.n_bytes > most:
        raise _refused(f"{file.n_bytes:,} bytes", f"at most {most:,}", str(path))
    try:
        return file.read()
    except OSError as error:
        raise _refused(f"it cannot be read ({error.strerror})", "a file of JSON", str(path)) from error


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise _refused("no JSON", "a JSON object", where) from None
    if not isinstance(document, dict):
        raise _refused(f"JSON {_shown(document)}", "a JSON object", where)
    return document


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _refused(what: str, expected: str, where: str, fix: str = "fetch the file again, or correct it") -> SourceError:
    return SourceError(what, expected=expected, where=where, fix=fix)
