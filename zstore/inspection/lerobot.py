"""A look at a LeRobot folder before it is ingested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zstore.inspection.column import ColumnLook, Kind
from zstore.inspection.command import command_of
from zstore.inspection.inspected import Inspection
from zstore.writing.sources.lerobot.meta import read_episodes, read_info, read_tasks
from zstore.writing.sources.lerobot.source import lerobot_files
from zstore.writing.sources.lerobot.table import FRAME, EpisodesFile, EpisodesTable
from zstore.writing.sources.lerobot.template import EPISODE
from zstore.writing.sources.typed.cells import kind_of

_SHOWN = 8
_KINDS: dict[str | None, Kind] = {"words": "word", "unknown": "empty"}


@dataclass(frozen=True)
class FolderInspection(Inspection):
    """What a LeRobot folder says of itself.

    Parameters
    ----------
    fps
        Frames a second; times count frames.
    n_files, n_episodes
        Data files that are there, and episodes that its meta knows.
    tasks
        Texts of its tasks.
    not_read
        Features that are images or videos.
    """

    fps: float = 0.0
    n_files: int = 0
    n_episodes: int = 0
    tasks: tuple[str, ...] = ()
    not_read: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.encoding}, {self.n_files:,} data files, {self.n_episodes:,} episodes in its meta, "
            f"{self.fps:.10g} frames a second",
            f"  ids {EPISODE}; times {FRAME}, which count frames; static attribute task",
        ]
        width = max([20, *(len(column.name) for column in self.columns)])
        lines += [f"  {column.name:<{width}} {', '.join(column.examples)}" for column in self.columns]
        more = f" and {len(self.tasks) - _SHOWN:,} more" if len(self.tasks) > _SHOWN else ""
        lines += [f"  task: {task}" for task in self.tasks[:_SHOWN]] + ([f"  …{more}"] if more else [])
        lines += [f"  not read: {name}" for name in self.not_read]
        return "\n".join([*lines, self.command])


def look_at_folder(path: str | Path) -> FolderInspection:
    """What a LeRobot folder says of itself, and the columns of its first data file.

    Raises
    ------
    SourceError
        If that makes no sense, or there is no data file.
    """
    root = Path(path)
    info, episodes, tasks, files = read_info(root), read_episodes(root), read_tasks(root), lerobot_files(root)
    first = files[0]
    assert isinstance(first, EpisodesFile)
    table = EpisodesTable.of(first)
    columns = tuple(
        ColumnLook(name, _KINDS.get(kind_of(table.types[name]), "number"), (str(table.types[name]),), 0)
        for name in table.header
        if name not in (EPISODE, FRAME)
    )
    known = dict.fromkeys([*tasks.values(), *(task for episode in episodes.values() for task in episode.tasks)])
    return FolderInspection(
        path=str(path),
        encoding=f"LeRobot {info.version}",
        n_lines=0,
        skip_lines=0,
        comment=None,
        header=True,
        units=(),
        n_below=0,
        delimiter="",
        layout="long",
        columns=columns,
        ids=(EPISODE,),
        times=(FRAME,),
        step="",
        command=command_of(str(path), {}),
        questions=(),
        fps=info.fps,
        n_files=len(files),
        n_episodes=len(episodes),
        tasks=tuple(known),
        not_read=info.images,
    )
