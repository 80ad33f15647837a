"""What makes `python -m lightning_app` start sooner; imported before torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

_SIGNAL, _PLOTS = "scipy.signal", "matplotlib"


class _AxesKind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        loaded = sys.modules.get(f"{_PLOTS}.axes")
        return loaded is not None and isinstance(instance, loaded.Axes)


class _Axes(metaclass=_AxesKind):
    """In the place of the class, by which torchmetrics tells one from an array of them."""


class _Plots(ModuleType):
    """In the place of a module of matplotlib, which is loaded once something in it is asked for."""

    Figure, colors = object, SimpleNamespace(Colormap=object)  # what annotations of torchmetrics name
    Axes = _Axes

    @property
    def style(self) -> Any:
        """What torchmetrics decorates functions with when it is loaded."""
        return SimpleNamespace(context=_style)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _leave_to_matplotlib()
        return getattr(importlib.import_module(self.__name__), name)


def _leave_to_matplotlib() -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(module, _Plots):
            del sys.modules[name]


@contextmanager
def _style(*words: Any, **options: Any) -> Iterator[None]:
    """Draw in a style of matplotlib."""
    with importlib.import_module(f"{_PLOTS}.style").context(*words, **options):
        yield


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


def leave_out_plots() -> None:
    """Import torchmetrics without matplotlib, which takes a tenth of the time of all imports.

    Metrics that are drawn load it then. Nothing happens where something has imported either of them already.
    """
    loaded = {"torchmetrics", _PLOTS}.intersection(sys.modules)
    if loaded or None in map(importlib.util.find_spec, ("torchmetrics", _PLOTS)):
        return
    inside = {_PLOTS: _Plots(_PLOTS)} | {f"{_PLOTS}.{name}": _Plots(f"{_PLOTS}.{name}") for name in ("axes", "pyplot")}
    for name in ("axes", "pyplot"):
        setattr(inside[_PLOTS], name, inside[f"{_PLOTS}.{name}"])
    sys.modules.update(inside)
    try:
        importlib.import_module("torchmetrics")
    finally:
        _leave_to_matplotlib()


def shorten_spins() -> None:
    """Let threads of torch that have nothing to do sleep soon.

    Between two small operations they wait for each other awake, for a millisecond or more. On a machine that is busy
    otherwise one of them is not running, and the rest burn their time: a fit of the demo took 69 s instead of 9. With
    so short a wait it takes 12 s there, and no longer than before on an idle machine. Torch reads it when loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def share_allocator() -> None:
    """Let pyarrow take memory where NumPy and torch take theirs.

    Its own allocator keeps more for the same blocks: a `run` of 373,372 rows of Parquet needs 636 MB instead of 675,
    and its ingest takes as long as before. pyarrow reads the variable when it is loaded; a value that is there stays.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
