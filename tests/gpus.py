"""Data for a GPU, and for the CPU beside it: what tests of a GPU share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

import zstore
from lightning_app.batch import Batch
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import FieldPlace
from lightning_app.data.rows.residency import Residency
from lightning_app.data.windows.splits import Split
from zstore import Store

NEEDS_GPU = [
    pytest.mark.filterwarnings("default"),  # Lightning's own are theirs to fix
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here"),
]


class OnGPU(WindowDataModule):
    """Batches for the GPU without a trainer."""

    @property
    def process(self) -> Any:
        """One, on the first GPU."""
        return replace(super().process, device=torch.device("cuda", 0))


def module(
    kind: type[WindowDataModule], store: Store, folder: Path, residency: Residency = "auto", **options: Any
) -> WindowDataModule:
    usual: dict[str, Any] = {
        "lookback": 24,
        "horizon": 6,
        "batch_size": 32,
        "cache": str(folder / "cache"),
        "memory_budget": "1MB" if residency == "stream" else 0.5,
    }
    return kind(str(store.path), residency=residency, **(usual | options))


def store_of_frames(folder: Path) -> Store:
    """Two series of 400 rows with an image each, 16 x 16 pixels in three colours."""
    n_rows = 800
    np.save(folder / "frames.npy", np.random.default_rng(0).integers(0, 256, (n_rows, 16, 16, 3), np.uint8))
    count = np.arange(n_rows)
    table = pa.table(
        {
            "id": np.repeat(["a", "b"], n_rows // 2),
            "t": count % (n_rows // 2),
            "v": count % 17 / 4,
            "w": count % 5 * 1.0,
            "file": ["frames.npy"] * n_rows,
            "n": count,
        }
    )
    files: dict[str, Any] = {"file": {"image": "file"}, "file_position": {"image": "n"}}
    zstore.ingest(table, folder / "s.zarr", id="id", time="t", channels=["v", "w"], file_root=str(folder), **files)
    return zstore.open_store(folder / "s.zarr")


def of_frames(
    kind: type[WindowDataModule], store: Store, folder: Path, place: FieldPlace, crop: tuple[int, ...] | None = (12, 12)
) -> WindowDataModule:
    fields = {"image": FieldOptions(2, 1, place, crop)}
    usual: dict[str, Any] = {"lookback": 4, "horizon": 1, "batch_size": 8, "split": Split(sizes=(0.6, 0.2, 0.2))}
    usual |= {"memory_budget": "900kB"} if place == "stream" else {}
    return module(kind, store, folder, "host", fields=fields, **usual)


def tensors(batch: Batch) -> dict[str, Tensor]:
    return cast(dict[str, Tensor], dict(batch))
