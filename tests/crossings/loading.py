"""The data modules of a draw, on one process or several ranks, and their loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from zstore import UsageError

from .draws import Draw
from .stores import Built, time_texts


class Ranks:
    """Trainers of several processes, one after another: what rank 0 says, the others hear."""

    def __init__(self, world: int, epoch: int) -> None:
        self.world, self.epoch = world, epoch
        self.said: list[Any] = []
        self._heard: dict[int, int] = {}

    def trainer(self, rank: int) -> Any:
        """What a data module asks of its trainer."""
        strategy = SimpleNamespace(
            root_device=torch.device("cpu"),
            broadcast=partial(self._broadcast, rank),
            barrier=lambda *_: None,
            reduce_boolean_decision=lambda decision, all=True: decision,  # noqa: A006  # Lightning's name
        )
        return SimpleNamespace(
            limit_val_batches=1.0,
            global_rank=rank,
            local_rank=rank,
            node_rank=0,
            num_nodes=1,
            world_size=self.world,
            num_devices=self.world,
            is_global_zero=rank == 0,
            current_epoch=self.epoch,
            strategy=strategy,
            overfit_batches=0.0,
            num_training_batches=float("inf"),
            state=SimpleNamespace(fn=TrainerFn.FITTING, stage=None),
            lightning_module=None,
        )

    def _broadcast(self, rank: int, value: Any, src: int = 0) -> Any:
        if rank == 0:
            self.said.append(value)
            return value
        number = self._heard.get(rank, 0)
        self._heard[rank] = number + 1
        return self.said[number]


@dataclass
class Maker:
    """Makes data modules of one draw.

    Parameters
    ----------
    built, draw
        What they are of.
    path, version
        Of the store; another one after it changed.
    share
        Of the bytes of all rows that a stream may have.
    """

    built: Built
    draw: Draw
    path: Path
    version: int | None
    share: float

    def module(self, budget: str = "1GiB") -> WindowDataModule:
        """One, without a trainer."""
        options: dict[str, Any] = {**self.draw.options}
        split = {**self.draw.split}
        if "dates" in split:
            split["dates"] = tuple(time_texts(self.built.case, split["dates"]))
        if self.draw.panel is not None:
            options["panel"] = Panel(**self.draw.panel)
        return WindowDataModule(
            str(self.path),
            split=Split(**split),
            memory_budget=budget,
            cache=str(self.built.folder / "cache"),
            version=self.version,
            **options,
        )

    def ranks(self, world: int, epoch: int) -> list[WindowDataModule]:
        """One for each process, with a budget that a stream can do with."""
        budget = self.budget(world)
        ranks, found = Ranks(world, epoch), []
        for rank in range(world):
            data = self.module(budget)
            data.trainer = ranks.trainer(rank)
            data.setup("fit")
            found.append(data)
        return found

    def budget(self, world: int) -> str:
        """At least the share of the rows; more where that is too little for a stream."""
        if self.draw.options["residency"] != "stream":
            return "1GiB"
        size = 0
        for _ in range(20):
            data = self.module(f"{size or 1}b")
            size = size * 2 or max(int(self.share * data.view.n_rows * data.row_bytes) * world, 1)
            data = self.module(f"{size}b")
            data.trainer = Ranks(world, 0).trainer(0)
            try:
                data.source  # noqa: B018  # opens the pool
                return f"{size}b"
            except UsageError as error:
                if "memory budget" not in str(error):
                    return "1GiB"
            finally:
                close(data)
        raise AssertionError(f"no budget is enough: {size} bytes")


def close(*modules: WindowDataModule) -> None:
    """Stop the threads of their pools."""
    for data in modules:
        if data.pool is not None:
            data.pool.close()


def loaders(modules: Sequence[WindowDataModule], stage: str) -> list[Any]:
    """Of each process."""
    return [getattr(data, f"{stage}_dataloader")() for data in modules]
