"""A model into a file that needs nothing of this package; what the file gives is compared with what the model gives."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.batch import DataOfModels
from lightning_app.data.window_data import WindowData
from lightning_app.export.metadata import BY_LEVEL, metadata_of
from lightning_app.export.program import (
    ENDINGS,
    Arrays,
    Format,
    opened,
    require_libraries,
    traced,
    write_onnx,
    write_torch,
)
from lightning_app.export.reads import inputs_read
from lightning_app.export.real_windows import RealWindows
from lightning_app.export.source_model import SourceModel, by_level
from lightning_app.models import TaskModel
from zstore import UsageError, check_target, whole_file

logger = logging.getLogger(__name__)


class Export:
    """What is written, and how it is checked.

    Parameters
    ----------
    format
        ``onnx``: for onnxruntime, in any language and in browsers. ``torch``: a program of ``torch.export``, for
        PyTorch in Python and C++.
    path
        The file, ending in ``.onnx`` or ``.pt2``. Default: ``model.onnx`` or ``model.pt2`` in the run folder.
    windows
        Windows of the store that the file and the model are compared on: of the test split, or, without one, of
        validation or training.
    tolerance
        The largest difference between the two, in scaled units, and of probabilities; beyond it no file is written.
    """

    def __init__(
        self,
        format: Format = "onnx",  # noqa: A002  # as the option is called
        path: str | None = None,
        windows: int = 64,
        tolerance: float = 1e-5,
    ) -> None:
        if windows < 1:
            raise UsageError(f"a check on {windows} windows", expected="1 or more", fix="correct --export.windows")
        if not 0 < tolerance < float("inf"):
            raise UsageError(f"tolerance {tolerance}", expected="above 0", fix="correct --export.tolerance")
        self.format, self.path, self.windows, self.tolerance = format, path, windows, tolerance


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    path
        The file.
    difference
        The largest one between the file and the model, in scaled units, and of probabilities.
    n_windows, split
        How many windows that is of, and of which split.
    """

    path: Path
    difference: float
    n_windows: int
    split: str


def export_model(model: TaskModel, data: WindowData, options: Export, folder: Path) -> Exported:
    """Write a model with its scaling, and compare the file with the model on windows of the store.

    Parameters
    ----------
    model
        With its weights.
    data
        The data module, once it has taken the checkpoint.
    options
        See :class:`Export`.
    folder
        Where the file goes unless `options` name one.

    Raises
    ------
    UsageError
        If a package lacks, the model does something that cannot be exported, or the file gives other numbers.

    Notes
    -----
    Cost: seconds; of recurrent models some 70 ms for each row of a window, which are traced one by one.
    """
    require_libraries(options.format)
    ending = ENDINGS[options.format]
    path = folder / f"model{ending}" if options.path is None else Path(options.path)
    check_target(path, "model", (ending,))
    what = f"the model {type(model).__name__}"
    model.cpu().eval()
    model.attach(data)
    windows = RealWindows.of(data, options.windows)
    parts = [(inputs, _predicted(model, batch), _scales(data, batch)) for inputs, batch in windows.batches()]
    inputs, expected, _ = parts[0]
    program, read = _program(model, data, inputs, what)
    metadata = metadata_of(model, data, {name: inputs[name] for name in read}, expected)
    with whole_file(path, "model", (ending,)) as temporary:
        if options.format == "onnx":
            write_onnx(program, metadata, temporary, what)
        else:
            write_torch(program, metadata, temporary)
        file = opened(temporary, options.format)
        difference = 0.0
        for inputs, expected, scale in parts:
            found = file.run({name: inputs[name].numpy() for name in read})
            difference = max(difference, largest_difference(found, expected, scale, data.scales.targets.log))
        if not difference <= options.tolerance:
            raise UsageError(
                f"{what}, whose file gives other numbers than it: {difference:.1e} apart in scaled units",
                expected=f"at most {options.tolerance:g}",
                where=str(path),
                fix="--export.format torch, or a larger --export.tolerance",
            )
    logger.info(
        f"wrote {path}: at most {difference:.1e} from PyTorch in {len(windows):,} windows of {windows.split},"
        " in scaled units"
    )
    return Exported(path, difference, len(windows), windows.split)


def _program(
    model: TaskModel, data: WindowData, inputs: dict[str, Tensor], what: str
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """The program of a model with its scaling, and the names of the inputs that it reads."""
    try:
        module = SourceModel(model, data).eval()
        model.attach(cast(DataOfModels, module.units))
        module.guards = False
        read = inputs_read(module, inputs)
        module.guards = True
        if not read:
            raise UsageError(f"{what}, which reads no input", expected="a forecast of something", fix="another model")
        return traced(module, _blank({name: inputs[name] for name in read}), what), read
    finally:
        model.attach(data)


def _predicted(model: TaskModel, batch: Any) -> Arrays:
    """What a model predicts of a batch, by name."""
    with torch.inference_mode():
        return {name: part.numpy() for name, part in by_level(model, model.predict_step(batch, 0)).items()}


def _blank(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two windows of zeros: an archive has the example that it was traced with, and no one's rows belong in there.

    Two, for torch takes a batch of one for a batch that is always of one.
    """
    return {name: torch.zeros(2, *part.shape[1:], dtype=part.dtype) for name, part in inputs.items()}


def _scales(data: WindowData, batch: Any) -> NDArray[np.float64]:
    """(batch, 1, …, target) what targets are scaled by; a batch of 1 where series have no scales of their own."""
    scaler = data.scales.targets
    own = scaler.scale[batch["series"].numpy()] if scaler.scaling.per_series else scaler.scale[None]
    return own[:, None]


def largest_difference(found: Arrays, expected: Arrays, scale: NDArray[np.float64], log: NDArray[np.bool_]) -> float:
    """The largest difference of two predictions by name; infinite where one is missing in one of them alone.

    Parameters
    ----------
    found, expected
        By name. Numbers of targets are compared as they are scaled; probabilities, and outputs of other names, as they
        are.
    scale
        (…, target) of targets; broadcasts against predictions.
    log
        (target,) whether logarithms are scaled.
    """
    worst = 0.0
    for name, own in expected.items():
        theirs = found[name]
        if own.shape != theirs.shape or not np.array_equal(np.isnan(own), np.isnan(theirs)):
            return float("inf")
        difference = np.abs(own - theirs)
        if name in ("predictions", *BY_LEVEL):
            by, logs = (scale, log) if name == "predictions" else (scale[..., None], log[:, None])
            ends = (np.where(logs, np.log1p(np.where(logs, part, 0.0)), part) for part in (own, theirs))
            difference = np.abs(np.subtract(*ends)) / by
        worst = max(worst, float(np.nanmax(difference, initial=0.0)))
    return worst
