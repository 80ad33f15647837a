"""Data files of a LeRobot folder, opened: their frames as rows, each compared with what its folder says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from zstore.arrow import text_array
from zstore.errors import SourceError
from zstore.storage.file import File
from zstore.writing.sources.lerobot.template import EPISODE
from zstore.writing.sources.typed.cells import kind_of, missing_of, numbers_of
from zstore.writing.sources.typed.parquet_table import ParquetTable
from zstore.writing.sources.typed.table import FAULTS

FRAME, TIMESTAMP = "frame_index", "timestamp"
TASK = "task_index"
_NO_CHANNELS = ("index", TIMESTAMP)
_COUNT_ROWS = 1 << 18


@dataclass(frozen=True)
class EpisodesFile(File):
    """A data file of a LeRobot folder.

    Parameters
    ----------
    root
        The folder, as the user named it.
    fps
        Frames a second.
    episode
        Of all its rows; None where it may have several.
    images
        Features that are images or videos.
    keep_tasks
        Whether the number of the task is a channel, since an episode of the folder has several.
    """

    root: str = ""
    fps: float = 1.0
    episode: int | None = None
    images: tuple[str, ...] = ()
    keep_tasks: bool = False


@dataclass(frozen=True)
class EpisodesTable(ParquetTable):
    """Such a file, opened."""

    @classmethod
    def of(cls, file: EpisodesFile) -> EpisodesTable:
        """Open a file.

        Raises
        ------
        SourceError
            If it is damaged, or has no episodes and frames.
        """
        whole = cls.open(file, str(file))
        for name in (EPISODE, FRAME):
            if name not in whole.types or not pa.types.is_integer(whole.types[name]):
                raise SourceError(
                    f"column {name!r} of type {whole.types[name]}" if name in whole.types else f"no column {name!r}",
                    expected="whole numbers in it, as in every LeRobot folder",
                    where=str(file),
                    fix="fetch the file again, or ingest it as a Parquet file of its own",
                )
        if TIMESTAMP in whole.types and kind_of(whole.types[TIMESTAMP]) != "number":
            raise SourceError(
                f"column {TIMESTAMP!r} of type {whole.types[TIMESTAMP]}",
                expected="seconds since the first frame, as numbers",
                where=str(file),
                fix="fetch the file again, or ingest it as a Parquet file of its own",
            )
        dropped = {*_NO_CHANNELS, *file.images, *(() if file.keep_tasks else (TASK,))}
        return cls(whole.name, file, tuple(name for name in whole.header if name not in dropped))

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column of the file."""
        known = self.layout_of(self.file)
        return dict(zip(known.names, known.types, strict=True))

    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a row group, and what is wrong with some of them."""
        wanted = list(dict.fromkeys([*columns, EPISODE, FRAME, TIMESTAMP]))
        for batch in super().batches(wanted, texts, group, n_rows):
            told = self._faults(batch)
            yield batch if told is None else batch.append_column(FAULTS, told)

    def _faults(self, batch: Any) -> Any:
        file = self.file
        assert isinstance(file, EpisodesFile)
        told: dict[int, str] = {}
        frames = numbers_of(batch.column(FRAME)).values
        for row in np.flatnonzero(frames < 0).tolist():
            told[row] = f"frame_index {int(frames[row])}\nframes that count from 0"
        if TIMESTAMP in batch.schema.names:
            seconds = numbers_of(batch.column(TIMESTAMP)).values
            with np.errstate(invalid="ignore", over="ignore"):
                off = ~(np.abs(seconds * file.fps - frames) < 0.5) & ~np.isnan(frames)
            expected = f"{1 / file.fps:.6g} s from frame to frame, as the folder's fps of {file.fps:.10g} has it"
            for row in np.flatnonzero(off).tolist():
                told.setdefault(row, f"timestamp {seconds[row]:.10g} of frame {int(frames[row]):,}\n{expected}")
        if file.episode is not None:
            episodes, missing = numbers_of(batch.column(EPISODE)).values, missing_of(batch.column(EPISODE))
            other = episodes != file.episode
            expected = f"episode {file.episode:,}, as its name says"
            for row in np.flatnonzero(other if missing is None else other & ~missing).tolist():
                told.setdefault(row, f"episode {int(episodes[row]):,} in the file of another\n{expected}")
        if not told:
            return None
        return text_array([told.get(row, "") for row in range(batch.num_rows)]).dictionary_encode()

    def episode_rows(self) -> dict[int, int]:
        """Rows of each episode; of a file of one, the footer has them."""
        file = self.file
        if isinstance(file, EpisodesFile) and file.episode is not None:
            return {file.episode: sum(self.group_rows)}
        counts: dict[int, int] = {}
        for group in range(len(self.group_rows)):
            for batch in super().batches([EPISODE], (), group, _COUNT_ROWS):
                for pair in batch.column(EPISODE).drop_null().value_counts().to_pylist():
                    counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
        return counts
