"""The first rows of a LeRobot folder as a folder of its own, for a dry run."""

from __future__ import annotations

import json
from pathlib import Path

from zstore.writing.sources.lerobot.meta import INFO, read_info
from zstore.writing.sources.typed.parquet_table import ParquetTable


def write_sample(table: ParquetTable, root: Path, folder: Path, n_rows: int) -> int:
    """Write the first rows of a data file into a new folder.

    Parameters
    ----------
    table
        The data file.
    root, folder
        Its folder, and the new one.
    n_rows
        Most of them.

    Returns
    -------
    How many there are.
    """
    info = read_info(root)
    place = "data/file-{file_index:03d}.parquet"  # without an episode in its name, which rows need not be whole of
    features = {name: {"dtype": kind} for name, kind in info.kinds.items()}
    document = {"codebase_version": info.version, "fps": info.fps, "data_path": place, "features": features}
    (folder / INFO).parent.mkdir(parents=True)
    (folder / INFO).write_text(json.dumps(document))
    (folder / "data").mkdir()
    return table.write_sample(folder / "data" / "file-000.parquet", n_rows)
