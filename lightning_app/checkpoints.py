"""Checkpoints: written so that a kill never tears them, read as tensors and plain values that nobody vouches for."""

from __future__ import annotations

import os
import pickle
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from zstore import StoreError, UsageError, ZstoreError

_FIX = "another --ckpt_path, or fit again"
_MOST_STEPS = 1 << 53
_HYPER_PARAMETERS = ("hyper_parameters", "hparams", "module_arguments", "datamodule_hyper_parameters")
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def read_checkpoint(
    path: str | Path, map_location: Any = "cpu", mmap: bool = False, expected: str = "one that a fit wrote"
) -> dict[str, Any]:
    """Read a checkpoint that may come from anywhere: tensors and plain values, never code.

    Parameters
    ----------
    path
        Its file.
    map_location
        Device of the tensors, as for `torch.load`.
    mmap
        Whether tensors are read from the file when they are used. Their bytes are not compared with their checksums
        then.
    expected
        For messages.

    Returns
    -------
    By name, as Lightning saves it; what decides how Lightning goes on has its types.

    Raises
    ------
    StoreError
        If it is damaged, holds anything else, would take more memory than it has bytes, or names files outside the
        folder of its checkpoints.
    """
    with told(path, expected):
        _check_archive(Path(path), whole=not mmap)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        _check_kinds(checkpoint)
        _check_paths(checkpoint.get("callbacks", {}))
        _check_progress(checkpoint.get("loops", {}))
    loaded: dict[str, Any] = checkpoint
    return loaded


@contextmanager
def told(path: object, expected: str) -> Iterator[None]:
    """Say of which checkpoint it is that something cannot be done with it.

    Raises
    ------
    StoreError
        In the place of any error that is none of ours: what was not written by a fit can fail anywhere.
    """
    try:
        yield
    except ZstoreError:
        raise
    except pickle.UnpicklingError as error:  # its text says how to run what is in there
        raise StoreError(
            "a checkpoint that holds more than tensors and plain values, or is damaged",
            expected=expected,
            where=str(path),
            fix=_FIX,
        ) from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0] if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {lines[0]}"
        raise StoreError(
            f"a checkpoint that cannot be used ({reason})", expected=expected, where=str(path), fix=_FIX
        ) from error


def _check_archive(path: Path, whole: bool) -> None:
    """Nothing in it is larger than the file, and every part has its checksum."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("a compressed archive")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("an archive that says it is larger than its file")
        if whole and (damaged := archive.testzip()) is not None:
            raise ValueError(f"{damaged} differs from its checksum")


def _check_kinds(checkpoint: Any) -> None:
    if not isinstance(checkpoint, dict):
        raise ValueError("no mapping from names")
    kinds = {"state_dict": dict, "pytorch-lightning_version": str, "epoch": int, "global_step": int}
    kinds |= {"callbacks": dict, "loops": dict, "optimizer_states": list, "lr_schedulers": list}
    needed = ("state_dict", "pytorch-lightning_version")
    for name, kind in kinds.items():
        if name not in checkpoint and name not in needed:
            continue
        if not isinstance(checkpoint.get(name), kind):
            raise ValueError(f"{name} that is no {kind.__name__}" if name in checkpoint else f"no {name}")
    for name, tensor in checkpoint["state_dict"].items():
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not dense or tensor.is_complex():
            raise ValueError(f"weights {name} that are no dense tensor of real numbers")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"weights {name} that are not finite")
    for name in _HYPER_PARAMETERS:
        if "_instantiator" in dict(checkpoint.get(name) or {}):
            raise ValueError(f"{name} that name a function to call")


def _check_paths(callbacks: Mapping[str, Any]) -> None:
    """A fit that goes on removes the checkpoints that are noted here: none may lie outside their folder."""
    for name, state in callbacks.items():
        if not isinstance(state, dict):
            raise ValueError(f"state of {name} that is no dict")
        paths = [state[each] for each in _PATHS if each in state]
        paths += list(dict(state.get("best_k_models", {})))
        for each in paths:
            if not isinstance(each, str) or ".." in Path(each).parts:
                raise ValueError(f"a checkpoint at {each!r}, outside their folder")


def _check_progress(state: Any) -> None:
    """Counts of batches and epochs are whole numbers."""
    if isinstance(state, list):
        for each in state:
            _check_progress(each)
    elif isinstance(state, dict):
        for name, value in state.items():
            counts = name in ("ready", "started", "processed", "completed")
            if counts and not (type(value) is int and 0 <= value < _MOST_STEPS):
                raise ValueError(f"{value!r} steps {name}")
            _check_progress(value)


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
        """Read a checkpoint: tensors and plain values, never code. Raises as :func:`read_checkpoint`."""
        return read_checkpoint(path, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file of a checkpoint, and nothing else: paths may come from a checkpoint that was gone on with."""
        target = Path(path)
        if target.suffix == ".ckpt" and (target.is_symlink() or not target.is_dir()):
            target.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # where folders cannot be opened, and the file system keeps a journal of names
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint_file(folder: Path, named: str | None, default: str | None = None) -> Path | None:
    """The file of a checkpoint.

    Parameters
    ----------
    folder
        The run folder.
    named
        ``best`` or ``last`` of it; ``auto``: the last, if there is one; or a path. None: not named.
    default
        What is taken where none is named, ``best``, of which the last takes the place where a fit had no validation;
        or None.
    """
    checkpoints = folder / "checkpoints"
    if named == "auto":
        last = checkpoints / "last.ckpt"
        return last if last.is_file() else None
    name = named or default
    if name is None:
        return None
    path, last = checkpoints / f"{name}.ckpt" if name in ("best", "last") else Path(name), checkpoints / "last.ckpt"
    return last if named is None and not path.is_file() and last.is_file() else path


def require_checkpoint(path: Path) -> None:
    """Raise UsageError if there is no such file."""
    if not path.is_file():
        raise UsageError(
            f"no checkpoint ({path})",
            expected="one made by: python -m lightning_app fit --config …",
            fix="fit first, or name one with --ckpt_path",
        )
