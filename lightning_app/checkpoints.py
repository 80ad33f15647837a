"""Checkpoints that a kill never tears: written beside their place, flushed, and renamed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from zstore import StoreError


class DurableCheckpointIO(TorchCheckpointIO):
    """Local checkpoints, of which there is always the previous one or the new one.

    Lightning's own writer goes through the temporary folder and moves the file; where that is another file system, the
    move is a copy, and a kill in the middle of it leaves half a checkpoint in the place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        checkpoint
            Tensors and plain values.
        path
            Where.
        storage_options
            Must be None.

        Raises
        ------
        StoreError
            If the file system refuses; the previous checkpoint stays.
        """
        if storage_options is not None:
            raise TypeError("storage options of a local checkpoint")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in target.parent.glob(f".{target.name}.*.partial"):
            abandoned.unlink(missing_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            _flush_folder(target.parent)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreError(
                f"cannot write the checkpoint ({error.strerror or error})",
                where=str(target),
                fix="free some space or check the permissions; the previous checkpoint is whole",
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint: tensors and plain values, never code."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # where folders cannot be opened, and the file system keeps a journal of names
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
