"""What limits a fit, out of the measured times of its steps, and what to change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from lightning_app.data.batches.phases import Phase
from lightning_app.data.datamodule import WindowDataModule
from zstore import FieldReader, free_memory

Limit = Literal["decode", "gather", "copy", "model", "lightning"]

_WAITS = 0.05  # of the time: a trainer that waits longer is no faster with a faster model
_BUSY = 0.2  # cores that decoding beside a model takes, from which on it is told
_COPIES = 0.8  # of the time: a GPU that copies batches for longer has no step that hides it
_ROOM = 0.8  # of the memory that is free, which rows may take


@dataclass(frozen=True)
class StepTimes:
    """Where the time of training steps went, in seconds, all steps together.

    Parameters
    ----------
    n_steps
        How many steps.
    model_s
        Forward, backward and the optimizer.
    wait_s
        The trainer was held up by the loader.
    between_s
        Work of the trainer itself and of its callbacks between two steps.
    phases
        By phase, what making batches took, most of it while the model was busy.
    on_gpu
        Whether batches are copied to a GPU, which does so beside the steps.
    """

    n_steps: int = 0
    model_s: float = 0.0
    wait_s: float = 0.0
    between_s: float = 0.0
    phases: Mapping[Phase, float] = field(default_factory=dict)
    on_gpu: bool = False

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.model_s + self.wait_s + self.between_s

    @property
    def batch_s(self) -> float:
        """Making batches, whoever did it."""
        return sum(self.phases.values())

    def limit(self) -> Limit:
        """What limits.

        Batches are made while the model is busy with others. So where the trainer waits, a faster model would wait the
        longer, and the phase that batches take most time for is what limits. Else it is the largest part of a step.
        """
        if min(self.wait_s, self.batch_s) > _WAITS * self.total_s:
            return max(self.phases, key=lambda phase: self.phases[phase])
        if self.on_gpu and self.phases.get("copy", 0.0) > _COPIES * self.total_s:
            return "copy"  # the GPU waits for them, and the trainer for the GPU: that is not told from a slow model
        return "lightning" if self.between_s > self.model_s else "model"


def advice(times: StepTimes, data: WindowDataModule) -> str:
    """One sentence: what limits, how much of a step, and what to change.

    Parameters
    ----------
    times
        Of a fit, or of some steps of one.
    data
        Its data, with rows that are open.
    """
    limit, total = times.limit(), times.total_s
    waits, per_step = times.wait_s / total, 1000 / max(times.n_steps, 1)
    making = f"making a batch takes {times.batch_s * per_step:.1f} ms, a step {total * per_step:.1f} ms"
    if limit == "decode":
        what, change = _decoded(data)
        share = times.phases["decode"] / times.batch_s
        return f"decode limits: {waits:.0%} of a step waits for data, {share:.0%} of that for {what}; {change}"
    if limit == "gather":
        return f"gather limits: {waits:.0%} of a step waits for rows to be copied into batches; {_gathered(data)}"
    if limit == "copy":
        share = times.phases["copy"] / total
        return f"copy limits: {share:.0%} of a step copies batches to the device; {_copied(data)}"
    if limit == "lightning":
        share = times.between_s / total
        return (
            f"Lightning limits: {share:.0%} of a step is its own work, whatever the batch; try a larger data.batch_size"
        )
    change = "" if (decoding := times.phases.get("decode", 0.0) / total) < _BUSY else _beside(data, decoding)
    return f"model limits: {times.model_s / total:.0%} of a step, {waits:.1%} waits for data ({making}); " + (
        change or _faster_model(data)
    )


def _decoded(data: WindowDataModule) -> tuple[str, str]:
    """What is decoded for batches, and how that would be less."""
    placement, readers = data.placement, data.layout.readers
    encoded = {name: reader for name, reader in readers.items() if placement.fields[name] == "encoded"}
    if not encoded:
        streamed = [readers[name].decoded_bytes for name in placement.streamed_fields]
        channels = data.view.n_rows * data.row_bytes if placement.place == "stream" else 0
        options = ["data.residency"] if channels else []
        options += [f"residency of {name} in data.fields" for name in placement.streamed_fields]
        return "pieces of the stream", _set("host", " and ".join(options), channels + sum(streamed))
    name, reader = max(encoded.items(), key=lambda item: item[1].decoded_bytes)
    change = _set("host", f"residency of {name} in data.fields", reader.decoded_bytes)
    if reader.decoded_bytes > _ROOM * free_memory() and _is_decoded_often(data, name, reader):
        change = f"set residency of {name} in data.fields to stream, which decodes each of its chunks once an epoch"
    return f"rows of field {name!r} to be decoded", change


def _is_decoded_often(data: WindowDataModule, name: str, reader: FieldReader) -> bool:
    """Whether a row is decoded more often than once in an epoch."""
    return reader.chunk_rows > 1 or data.layout.fields[name].steps.steps > 1


def _set(place: str, option: str, n_bytes: int) -> str:
    """What to set, where there is memory for it."""
    free = free_memory()
    sizes = f"{n_bytes / 1e9:.2f} GB of the {free / 1e9:.2f} GB that are free"
    if n_bytes <= _ROOM * free:
        return f"set {option} to {place}, which needs {sizes}"
    return f"decoded rows need {sizes}, so only more processor cores or smaller rows in the store help"


def _gathered(data: WindowDataModule) -> str:
    if data.process.device.type == "cuda":
        return _copied(data)
    loaded = data.source.field_bytes + data.source.rows.values[:1].nbytes * data.window.span
    parts = "a smaller crop or fewer steps in data.fields" if data.source.field_bytes else "fewer channels or rows"
    return f"a window has {loaded / 1e6:.2f} MB: take {parts}{_cores()}"


def _copied(data: WindowDataModule) -> str:
    held = sum(
        reader.decoded_bytes for name, reader in data.layout.readers.items() if data.placement.fields[name] != "device"
    )
    held += 0 if data.placement.place == "device" else data.view.n_rows * data.row_bytes
    free = torch.cuda.mem_get_info(data.process.device)[0] if data.process.device.type == "cuda" else 0
    if held <= _ROOM * free:
        return f"set residency to device, in data and in data.fields: it needs {held / 1e9:.2f} GB there"
    return (
        f"rows of {held / 1e9:.2f} GB do not fit into the {free / 1e9:.2f} GB that are free there: take a smaller crop"
    )


def _beside(data: WindowDataModule, n_cores: float) -> str:
    """What decoding costs that is done while the model works."""
    if data.process.device.type == "cuda":
        return ""
    return f"decoding keeps {n_cores:.1f} cores from it; {_decoded(data)[1]}"


def _faster_model(data: WindowDataModule) -> str:
    """What makes a model faster: nothing about data."""
    if data.process.device.type == "cuda":
        return "try --trainer.precision bf16-mixed, or a larger data.batch_size"
    return f"only a smaller model or a GPU helps{_cores()}"


def _cores() -> str:
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    return f", or more threads: OMP_NUM_THREADS is {used}, and there are {there} cores" if used < there else ""
