"""The arithmetic a fit can have: reduced precision where the device has it, else float32."""

from __future__ import annotations

import logging
from typing import Any

import torch

logger = logging.getLogger(__name__)

_FULL = "32-true"
_REDUCED = ("bf16", "16-")  # how Lightning's names of them begin; on a CPU it takes 16-mixed for bf16-mixed


def usable_precision(asked: Any, accelerator: Any) -> Any:
    """The precision to train with, and a line in the log where it is not the one asked for.

    Parameters
    ----------
    asked
        Lightning's ``precision``, such as ``32-true`` or ``bf16-mixed``; None for its default.
    accelerator
        Lightning's ``accelerator``, such as ``auto``, ``cpu`` or ``gpu``.

    Returns
    -------
    `asked`, or ``32-true`` where training runs on a CPU whose kernels have no bfloat16.

    Notes
    -----
    Cost: where reduced precision is asked for on a CPU, one step of a tiny LSTM. Processor flags would not do: they
    neither know what oneDNN was built with, nor the limit set by ``ONEDNN_MAX_CPU_ISA``.
    """
    if not str(asked).startswith(_REDUCED) or not _on_cpu(accelerator) or cpu_has_bfloat16():
        return asked
    logger.info(f"precision {_FULL} instead of {asked}: this CPU has no bfloat16 kernels for recurrent layers")
    return _FULL


def cpu_has_bfloat16() -> bool:
    """Whether recurrent layers can be trained in bfloat16 on this CPU."""
    layer = torch.nn.LSTM(4, 8, batch_first=True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            outputs, _ = layer(torch.zeros(2, 3, 4))
            outputs.sum().backward()
    except RuntimeError as error:  # oneDNN: "could not create a primitive descriptor …"
        logger.debug("no bfloat16 on this CPU: %s", error)
        return False
    return True


def _on_cpu(accelerator: Any) -> bool:
    """Whether Lightning will train on the CPU."""
    if accelerator == "auto":
        return not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return bool(accelerator == "cpu")
