"""How others read windows of sessions: ``python session_peers.py lazy|column|memory FOLDER …``; prints JSON.

``lazy`` opens each session and slices the members of its compound data set; ``column`` is what that looks like by
mistake, ``data["emg"][a:b]``, which reads the whole column for each window; ``memory`` reads each session once. Windows
with a failed label are left out by a list of starts that is made beforehand. Needs numpy, torch and h5py.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

PATH, MEMBERS = "emg2pose/timeseries", ("emg", "joint_angles")


class Windows(Dataset[Any]):
    """Windows by session and first row; files are opened where they are read.

    Parameters
    ----------
    how
        ``lazy``, ``column`` or ``memory``.
    folder
        Of the sessions, and of ``starts.npy`` (window, 2) int64: session, first row.
    length
        Rows of a window.
    """

    def __init__(self, how: str, folder: Path, length: int) -> None:
        self.how, self.length = how, length
        self.paths = sorted(folder.glob("*.h5"))
        self.starts = np.load(folder / "starts.npy")
        self.opened: dict[int, Any] = {}
        self.memory = [self._columns(path) for path in self.paths] if how == "memory" else []

    @staticmethod
    def _columns(path: Path) -> dict[str, Any]:
        with h5py.File(path) as file:
            return {name: file[PATH].fields(name)[:].astype(np.float32, copy=False) for name in MEMBERS}

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, ...]:
        session, start = self.starts[sample].tolist()
        rows = slice(start, start + self.length)
        if self.memory:
            return tuple(torch.from_numpy(self.memory[session][name][rows]) for name in MEMBERS)
        data = self.opened.get(session)
        if data is None:
            data = self.opened[session] = h5py.File(self.paths[session])[PATH]
        if self.how == "column":
            read = [data[name][rows] for name in MEMBERS]
        else:
            both = data.fields(MEMBERS)[rows]  # one pass over the chunks
            read = [both[name] for name in MEMBERS]
        return tuple(torch.from_numpy(np.ascontiguousarray(values, np.float32)) for values in read)


def main() -> None:
    parser = argparse.ArgumentParser(description="How others read windows of sessions.")
    parser.add_argument("how", choices=["lazy", "column", "memory"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    began = time.perf_counter()
    dataset = Windows(options.how, options.folder, options.length)
    loader = DataLoader(dataset, options.batch, shuffle=True, num_workers=options.workers)
    batches = iter(loader)
    next(batches)
    first_s = time.perf_counter() - began
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
        else:
            count += len(batch[0])
    spent = time.perf_counter() - start
    print(json.dumps({"windows_per_s": count / spent, "first_s": first_s}))


if __name__ == "__main__":
    main()
