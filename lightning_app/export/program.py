"""A module as a program: traced by `torch.export`, written as such or as ONNX, and run from the file."""

from __future__ import annotations

import importlib
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zstore import UsageError

Format = Literal["onnx", "torch"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
METADATA = "metadata.json"
"""The file in a ``.pt2`` archive that has what an ONNX file has as its metadata."""

_ONNX = ("onnx", "onnxscript", "onnxruntime")
_MOST_BYTES = 1 << 31  # of a protobuf message
Arrays = dict[str, NDArray[Any]]


def require_libraries(format: Format) -> None:  # noqa: A002  # as the option is called
    """Raise UsageError where a format needs packages that are not installed."""
    absent = [name for name in _ONNX if not _is_there(name)] if format == "onnx" else []
    if absent:
        raise UsageError(
            f"no way to write ONNX without {', '.join(absent)}",
            expected=", ".join(_ONNX),
            fix="pip install 'zstore[export]', or --export.format torch",
        )


def _is_there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def traced(module: nn.Module, inputs: dict[str, Tensor], what: str) -> torch.export.ExportedProgram:
    """The program of a module that takes and gives tensors by name, for batches of any size.

    Raises
    ------
    UsageError
        If it does something that depends on the values of tensors, or on the number of windows.
    """
    batch = torch.export.Dim("batch", min=1)
    shapes = {"inputs": {name: {0: batch} for name in inputs}}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, (inputs,), dynamic_shapes=shapes)
    except Exception as error:  # of whatever the model does
        raise UsageError(
            f"{what}, which torch.export cannot trace ({_first_line(error)})",
            expected="a forward that does the same whatever the values and the number of windows",
            fix="in the model, x.shape[0] for len(x), torch.where for if",
        ) from error


def write_torch(program: torch.export.ExportedProgram, metadata: Mapping[str, Any], path: Path) -> None:
    """Write a ``.pt2`` archive."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where in which file of this machine it came from
    with _quiet():
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata, indent=1)})


def write_onnx(program: torch.export.ExportedProgram, metadata: Mapping[str, Any], path: Path, what: str) -> None:
    """Write ONNX; each entry of the metadata under its own name, as JSON.

    Raises
    ------
    UsageError
        If there is no ONNX for an operation, or the file would be larger than 2 GiB.
    """
    n_bytes = sum(part.numel() * part.element_size() for part in program.state_dict.values())
    if n_bytes >= _MOST_BYTES:
        raise UsageError(f"{what} of {n_bytes:,} bytes", expected="ONNX below 2 GiB", fix="--export.format torch")
    names = {"input_names": list(metadata["inputs"]), "output_names": list(metadata["outputs"])}
    try:
        with _quiet():
            found: Any = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    except Exception as error:  # of whatever the model does
        raise UsageError(
            f"{what}, which has no ONNX ({_operation(error) or _first_line(error)})",
            expected="operations that ONNX has",
            fix="--export.format torch",
        ) from error
    for node in found.model.graph.all_nodes():
        node.metadata_props.clear()  # where in which file of this machine each operation came from
    found.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    found.model.producer_name = "lightning_app"
    _name_batch(found.model.graph)
    found.save(path, external_data=False)


def _name_batch(graph: Any) -> None:
    """Call the number of windows ``batch`` wherever it is the length of an axis."""
    drawn = str(graph.inputs[0].shape[0])
    values = [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]
    for value in values:
        for axis, length in enumerate(value.shape or ()):
            if str(length) == drawn:
                value.shape[axis] = "batch"


class TorchFile:
    """A ``.pt2`` archive that is run.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._module = torch.export.load(path).module()

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        with torch.no_grad():
            found = self._module({name: torch.from_numpy(part) for name, part in inputs.items()})
        return {name: part.numpy() for name, part in found.items()}


class OnnxFile:
    """An ONNX file that onnxruntime runs, on the CPU.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name."""
        return {name: np.asarray(part) for name, part in zip(self._names, self._session.run(None, inputs), strict=True)}


def opened(path: Path, format: Format) -> TorchFile | OnnxFile:  # noqa: A002  # as the option is called
    """A file of a format."""
    return OnnxFile(path) if format == "onnx" else TorchFile(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxscript warn of themselves while they trace."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


def _operation(error: BaseException) -> str:
    """The operation that an error of the ONNX exporter is about; empty where it names none."""
    found = re.search(r"target=torch\.ops\.([\w.]+)", str(error))
    return f"operation {found[1]}" if found else ""


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
