"""What makes `python -m lightning_app` start sooner; imported before torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

_SIGNAL = "scipy.signal"


class _Signal(ModuleType):
    """In the place of `scipy.signal`, which is loaded once something in it is asked for."""

    hamming = None  # what torchmetrics looks for, and would make

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # which inspect asks of every module
            raise AttributeError(name)
        if sys.modules.get(_SIGNAL) is self:
            del sys.modules[_SIGNAL]
        loaded: Any = importlib.import_module(_SIGNAL)
        loaded.hamming = loaded.windows.hamming  # as torchmetrics does, for a metric of speech
        return getattr(loaded, name)


def leave_out_signals() -> None:
    """Let torchmetrics load without `scipy.signal`, which takes a fifth of the time of all imports.

    All that it does there is to give a function back a name that older releases of scipy had, for a metric of speech.
    """
    if _SIGNAL not in sys.modules and importlib.util.find_spec("scipy") is not None:
        importlib.import_module("scipy").signal = sys.modules[_SIGNAL] = _Signal(_SIGNAL)  # type: ignore[attr-defined]


def shorten_spins() -> None:
    """Let threads of torch that have nothing to do sleep soon.

    Between two small operations they wait for each other awake, for a millisecond or more. On a machine that is busy
    otherwise one of them is not running, and the rest burn their time: a fit of the demo took 69 s instead of 9. With
    so short a wait it takes 12 s there, and no longer than before on an idle machine. Torch reads it when loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
