"""Metrics of one's own beside those of a forecast: any of torchmetrics that takes predicted and observed values."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import Metric

from zstore import UsageError, ZstoreError

_EXPECTED = "a metric that takes update(predicted, observed), both (n,), and whose compute() is one number"


def named_metrics(metrics: Mapping[str, Metric] | None) -> dict[str, Metric]:
    """Metrics by name.

    Raises
    ------
    UsageError
        If a name cannot be part of ``test/NAME``.
    """
    for name in metrics or {}:
        if not re.fullmatch(r"\w+", name):
            raise UsageError(
                f"extra metric {name!r}",
                expected="a name of letters, digits and _",
                fix="correct --model.extra_metrics",
            )
    return dict(metrics or {})


def add_observed(metric: Metric, name: str, predicted: Tensor, observed: Tensor) -> None:
    """Add observed values, (n,), and what was predicted for them.

    Raises
    ------
    UsageError
        If the metric fails.
    """
    if len(observed):
        with _told(metric, name):
            metric.update(predicted, observed)


def one_number(metric: Metric, name: str, world: int) -> Tensor:
    """What a metric came to, () float; NaN where nothing was observed.

    Parameters
    ----------
    metric, name
        Which one.
    world
        Processes, all of which ask.

    Raises
    ------
    UsageError
        If the metric fails, or is not one number.
    """
    if world == 1 and not metric.update_called:
        return torch.tensor(torch.nan, device=metric.device)
    with _told(metric, name):
        found = metric.compute()
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"type {type(found).__name__}"
            raise UsageError(
                f"extra metric {name!r} ({type(metric).__name__}) of {shape}",
                expected=_EXPECTED,
                fix="correct compute()",
            )
        return found.reshape(())


@contextmanager
def _told(metric: Metric, name: str) -> Iterator[None]:
    try:
        yield
    except ZstoreError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"extra metric {name!r} ({type(metric).__name__}) that fails: {type(error).__name__} ({said})",
            expected=_EXPECTED,
            where=f"{Path(last.filename).name} line {last.lineno}",
            fix="correct it; --debug shows the whole traceback",
        ) from error
