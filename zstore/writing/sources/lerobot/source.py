"""LeRobot folders as a source: an episode is a series, a frame is a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zstore.errors import SourceError, UsageError
from zstore.format.index import StaticAttribute
from zstore.storage.file import File
from zstore.writing.sources.files import find
from zstore.writing.sources.lerobot.meta import Episode, data_files, read_episodes, read_info, read_tasks
from zstore.writing.sources.lerobot.sample import write_sample
from zstore.writing.sources.lerobot.table import FRAME, EpisodesFile, EpisodesTable
from zstore.writing.sources.lerobot.template import EPISODE
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import SourceSample
from zstore.writing.sources.table import StaticTable, TableSpec
from zstore.writing.sources.times.spec import STEPS
from zstore.writing.sources.typed.parquet_table import GroupRow, ParquetTable
from zstore.writing.sources.typed.source import TypedSource
from zstore.writing.sources.typed.spec import typed_spec
from zstore.writing.sources.typed.table import n_rows_of, whole_row_bytes
from zstore.writing.sources.workspace import Runner

_RATE = "fps"
_TOGETHER = " | "  # between the tasks of an episode that has several
_FIX = "fetch the file again"


class LeRobotSource(TypedSource):
    """LeRobot folders, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "lerobot"
    endings = ()
    one = "LeRobot folder"
    many = "LeRobot folders"
    place = GroupRow

    def check(self, options: TableOptions, encoding: str) -> None:
        """Refuse what the folder itself says."""
        usual = self.usual(TableOptions())
        for name in ("id", "time", "time_unit", "time_format", "start", "id_from_path"):
            value = getattr(options, name)
            if value not in (getattr(usual, name), getattr(TableOptions(), name)):
                shown = ",".join(value) if isinstance(value, tuple) else value
                raise UsageError(
                    f"--{name.replace('_', '-')} {shown} of {self.many}",
                    expected="folders that say themselves what ids and times are",
                    fix=f"leave out --{name.replace('_', '-')}, or name the Parquet files as they are",
                )
        if options.layout != "long":
            raise UsageError(f"--layout {options.layout} of {self.many}", expected="long", fix="leave out --layout")
        super().check(options, encoding)

    def usual(self, options: TableOptions) -> TableOptions:
        """The options, with ids and times as every such folder has them."""
        return replace(options, id=EPISODE, time=(FRAME,), time_unit=STEPS)

    def takes(self, file: Any) -> bool:
        """Whether it is a data file of such a folder."""
        return isinstance(file, EpisodesFile)

    def open_one(self, file: Any, options: TableOptions) -> EpisodesTable:
        """One data file."""
        return EpisodesTable.of(file)

    def open(
        self,
        files: Sequence[File],
        prepared: Sequence[File],
        options: TableOptions,
        others: Collection[str] = (),
        runner: Runner | None = None,
    ) -> tuple[list[Any], TableSpec]:
        """The columns of all data files, and what they mean; episodes have as many rows as their folder says."""
        known = {root: read_episodes(Path(root)) for root in dict.fromkeys(_root(file) for file in files)}
        tables = []
        for file in files:
            table = self.open_one(file, options)
            _check_lengths(table, known[_root(file)])
            tables.append(table)
        return tables, typed_spec(tables, options, others, self.one, runner=runner)

    def statics(self, files: Sequence[EpisodesTable]) -> StaticTable | None:
        """The task of each episode, and what is not read of the folders."""
        notes: list[str] = []
        tasks: dict[int, str | None] = {}
        by_root: dict[str, list[EpisodesTable]] = {}
        for table in files:
            by_root.setdefault(_root(table.file), []).append(table)
        for root, tables in by_root.items():
            info, episodes, texts = read_info(Path(root)), read_episodes(Path(root)), read_tasks(Path(root))
            n_rows: dict[int, int] = {}
            for table in tables:
                n_rows |= {episode: n or n_rows.get(episode, 0) for episode, n in table.episode_rows().items()}
            there = [episode for episode, n in n_rows.items() if n]
            for episode in there:
                own = episodes[episode].tasks if episode in episodes else ()
                if not own and len(texts) == 1:
                    own = tuple(texts.values())
                task = _TOGETHER.join(own) if own else None
                if tasks.setdefault(episode, task) != task:
                    notes.append(f"episode {episode} has another task in {root}; the first one stays")
            notes += _notes(root, info, episodes, texts, n_rows)
        words = sorted({task for task in tasks.values() if task is not None})
        codes = {word: number for number, word in enumerate(words)}
        values = np.array([-1 if task is None else codes[task] for task in tasks.values()], np.int32)
        ids = np.array([str(episode) for episode in tasks], np.dtypes.StringDType())
        attributes = (StaticAttribute("task", values, tuple(words)),) if words else ()
        return StaticTable("the LeRobot folder", ids, attributes, tuple(notes))

    def state(self, files: Sequence[Any]) -> dict[str, Any]:
        """Frames a second, which a store's times count by."""
        return {_RATE: _rate([table.file for table in files])}

    def since(self, files: Sequence[Any], table: Mapping[str, Any], take_again: bool) -> list[Any]:
        """The files, if they have as many frames a second as those before."""
        rate = _rate(files)
        if table.get(_RATE) != rate:
            raise UsageError(
                f"{rate:.10g} frames a second",
                expected=f"{table.get(_RATE)} frames a second, by which the times of the store count",
                where=_root(files[0]),
                fix="ingest the folder into a store of its own",
            )
        return list(files)

    def sample(self, file: Any, options: TableOptions, encoding: str, folder: Path, n_bytes: int) -> SourceSample:
        """The first rows of the first data file, as a folder."""
        table = ParquetTable.open(file, str(file))
        size = whole_row_bytes(table)
        n_rows = write_sample(table, Path(file.root), folder, max(n_bytes // size, 1))
        growth = n_rows_of(table) * size / max(file.n_bytes, 1)
        return SourceSample(folder, n_rows * size, growth, encoding, prepared=False)


def lerobot_files(root: str | Path) -> list[File]:
    """The data files of a LeRobot folder.

    Raises
    ------
    SourceError
        If there is none, or what the folder says of them makes no sense.
    """
    info = read_info(Path(root))
    several = any(len(episode.tasks) > 1 for episode in read_episodes(Path(root)).values())
    files: list[File] = []
    for path, episode in data_files(Path(root), info):
        file = find(path, "SRC")
        state = (file.storage, file.key, file.n_bytes, file.etag)
        files.append(EpisodesFile(*state, str(root), info.fps, episode, info.images, several))
    return files


def _root(file: Any) -> str:
    return str(file.root)


def _rate(files: Sequence[Any]) -> float:
    """Frames a second of all files."""
    rates = {file.fps: file.root for file in files}
    if len(rates) > 1:
        (first, where), (other, there) = list(rates.items())[:2]
        raise UsageError(
            f"{other:.10g} frames a second",
            expected=f"{first:.10g}, as in {where}",
            where=there,
            fix="ingest each folder into a store of its own",
        )
    return float(next(iter(rates)))


def _check_lengths(table: EpisodesTable, episodes: Mapping[int, Episode]) -> None:
    for episode, n_rows in table.episode_rows().items():
        length = episodes[episode].length if episode in episodes else None
        if length is not None and length != n_rows:
            raise SourceError(
                f"{n_rows:,} rows of episode {episode:,}",
                expected=f"{length:,}, as meta has it",
                where=table.name,
                fix=_FIX,
            )


def _notes(
    root: str, info: Any, episodes: Mapping[int, Episode], texts: Mapping[int, str], n_rows: Mapping[int, int]
) -> list[str]:
    """What to know of a folder; `n_rows` are those of each episode of its data files."""
    notes = [f"times count frames, {info.fps:.10g} a second"]
    if info.images:
        notes.append(f"images and videos are not read: {', '.join(info.images)}")
    for lacking, what in (
        (sorted(episodes.keys() - n_rows.keys()), "are in no data file"),
        (sorted(episode for episode, n in n_rows.items() if not n), "have no rows and make no series"),
    ):
        if lacking:
            first = ", ".join(map(str, lacking[:3])) + (" …" if len(lacking) > 3 else "")
            n_known = len(episodes.keys() | n_rows.keys())
            notes.append(f"{len(lacking):,} of {n_known:,} episodes of {root} {what}: {first}")
    unknown = sorted(n_rows.keys() - episodes.keys())
    if unknown:
        notes.append(f"{len(unknown):,} episodes of {root} are not in its meta, such as {unknown[0]}")
    known = set(texts.values())
    odd = next((task for episode in episodes.values() for task in episode.tasks if task not in known), None)
    if odd is not None and known:
        notes.append(f"task {odd[:80]!r} of an episode of {root} is not in the list of its tasks")
    return notes
