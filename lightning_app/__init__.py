"""Train models on windows of the series in a zstore store, with PyTorch Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_app.forecaster import Forecaster


def load(run: str | Path, checkpoint: str = "best") -> Forecaster:
    """Load a run that was fitted, to forecast with it.

    Parameters
    ----------
    run
        Its folder, such as ``runs/demo_lstm``.
    checkpoint
        ``best``, ``last``, or the path of one. Default: the best, or the last where the fit had no validation.

    Returns
    -------
    Has ``model``, a LightningModule with its weights, and ``forecast()``.

    Raises
    ------
    UsageError
        If it is no folder of a run.
    StoreError
        If the checkpoint is damaged, or holds more than tensors and plain values.

    Notes
    -----
    The class of the model is imported as the configuration in that folder names it: load runs that you trust, as you
    would run their configuration. Cost: imports torch and Lightning, some seconds.
    """
    from lightning_app.forecaster import load_run

    return load_run(run, checkpoint)
