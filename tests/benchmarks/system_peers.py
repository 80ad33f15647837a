"""How others train the same: ``python -m tests.benchmarks.system_peers SYSTEM READER RAW FOLDER …``; prints JSON.

``--start first`` makes the reader's own files of the raw ones, if it has any, and a batch; ``second`` counts batches
and trains for an epoch; ``check`` compares two batches with ours. Which windows there are, and how they are scaled, is
read from a file that we wrote: they need not fit a scaler. Samples are made one by one and collated by a DataLoader.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_app.models import SpatialSoftmaxCNN, TaskModel
from lightning_app.models.volumes import VolumeModel

from .epoch import fit, measured
from .system_data import SYSTEMS, System, import_packages
from .system_readers import Facts, files_of, reader_of


class PeerData(pl.LightningDataModule):
    """A DataLoader for Lightning, and what a policy asks beside batches."""

    def __init__(self, loader: Any, facts: Facts) -> None:
        super().__init__()
        self.loader, self.facts = loader, facts

    def train_dataloader(self) -> Any:
        return self.loader

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """What these systems have none of."""
        n, shape = len(batch["time"]), self.facts.shape
        empty = {"x_static": torch.empty(n, 0), "x_future": torch.empty(n, shape.horizon, 0)}
        return {"x": torch.empty(n, shape.lookback, 0), **batch, **empty}

    def to_source(self, scaled: Tensor, series: Tensor, floored: bool = False) -> Tensor:
        """Targets in source units, float64."""
        return scaled.double() * torch.from_numpy(self.facts.y_scale) + torch.from_numpy(self.facts.y_offset)

    def last_inputs(self, names: Sequence[str], x: Tensor, series: Tensor) -> Tensor:
        """Some inputs of the last row, in the units of targets."""
        facts, columns = self.facts, [self.facts.inputs.index(name) for name in names]
        factor = facts.x_scale[columns] / facts.y_scale
        bias = (facts.x_offset[columns] - facts.y_offset) / facts.y_scale
        return x[:, -1, columns] * torch.from_numpy(factor) + torch.from_numpy(bias)


class Volume(nn.Module):
    """(batch, colour, z, y, x) from 0 to 1, as they are, with an axis for steps."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, values: Tensor) -> Tensor:
        return values.unsqueeze(1)


class Signed(nn.Module):
    """(batch, step, colour, y, x) from 0 to 1, as from −1 to 1."""

    def forward(self, values: Tensor) -> Tensor:
        return values * 2 - 1


def adapt(model: TaskModel) -> None:
    """Take fields as peers make them, in place of bytes."""
    if isinstance(model, VolumeModel):
        model.to_float = Volume(model.to_float.name)  # type: ignore[assignment]
    if isinstance(model, SpatialSoftmaxCNN):
        for eye in model.eyes:
            eye.to_float = Signed()


def loader_of(dataset: Any, facts: Facts, batch_size: int, workers: int) -> Any:
    """Shuffled batches; workers stay."""
    return DataLoader(dataset, batch_size, True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)


def check(dataset: Any, folder: Path, batches: Sequence[int], size: int) -> dict[str, Any]:
    """Compare batches, whose crops are in the middle, with ours.

    Raises
    ------
    AssertionError
        If a number is another one.
    """
    compared = 0
    for number, at in enumerate(batches):
        with np.load(folder / f"batch{number}.npz") as ours:
            first = at * size
            theirs = torch.utils.data.default_collate([dataset[n] for n in range(first, first + len(ours["time"]))])
            for name, part in theirs.items():
                if name == "time":
                    continue
                own = ours[name]
                if own.dtype == np.uint8:
                    own = np.moveaxis(own, -1, 2) if own.ndim == 5 and own.shape[-1] == 3 else own
                    own = (own / np.float32(255)).reshape(part.shape)
                where = ours["mask"] if name == "y" else np.ones(own.shape, np.bool_)
                np.testing.assert_allclose(part.numpy()[where], own[where], rtol=1e-5, atol=1e-5, err_msg=name)
                compared += own.size
    return {"n_compared": compared}


def main() -> None:
    parser = argparse.ArgumentParser(description="How others train the same.")
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("reader")
    parser.add_argument("raw", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", choices=["first", "second", "check"], default="second")
    parser.add_argument("--batches", type=int, nargs="*", default=[], help="which ones of ours are compared")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--most", type=int, help="batches that are trained on")
    parser.add_argument("--packages", help="folder of packages that are not installed here")
    options = parser.parse_args()
    if options.packages:
        sys.path.append(options.packages)  # behind our own: torch and Lightning are the same on both sides
    system: System = SYSTEMS[options.system]
    config = system.configuration()
    size = config["data"]["batch_size"]
    import_packages()
    try:
        began = time.perf_counter()
        if options.start == "first":
            files_of(options.system, options.reader, options.raw, options.folder)
        facts = Facts.read(options.folder)
        trains = options.start != "check"

        def open_loader() -> Any:
            dataset = reader_of(options.system, options.reader, options.raw, options.folder, facts, trains)
            return loader_of(dataset, facts, size, options.workers)

        if not trains:
            dataset = open_loader().dataset
            print(json.dumps(check(dataset, options.folder, options.batches, size)))
            return
        opened: list[Any] = []

        def kept() -> Any:
            opened.append(open_loader())
            return opened[0]

        seconds = None if options.start == "first" else options.seconds
        found = measured(kept, began, seconds)
        if options.start == "second":
            data = PeerData(opened[0], facts)
            found |= fit(config, facts.shape, data, options.most, adapt)
        print(json.dumps(found))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}))


if __name__ == "__main__":
    main()
