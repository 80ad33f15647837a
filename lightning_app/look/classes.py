"""What a test of classes looks like, drawn with matplotlib: which classes were taken for which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.look.style import dress
from zstore import shown

_MOST_NAMES = 24  # classes whose names fit beside the picture
_MOST_CELLS = 12  # classes whose counts fit into it


def confusion(counts: NDArray[np.int64], classes: list[Any], target: str) -> Any:
    """How many targets of each class were predicted as each.

    Colours are shares of the observed targets of a class, so that rare classes are seen as frequent ones are.

    Parameters
    ----------
    counts
        (class, class): entry ``[c, p]`` counts targets of class c that were predicted as p.
    classes
        Names, or numbers that stand for classes.
    target
        Name of what was predicted.

    Returns
    -------
    Matplotlib's figure.
    """
    from matplotlib.figure import Figure

    n, observed = len(counts), counts.sum(1, keepdims=True)
    side = min(2.2 + 0.55 * n, 8.0)
    figure = Figure(figsize=(side + 1.6, side), layout="constrained")
    axes = figure.subplots()
    shares = np.divide(counts, observed, out=np.full(counts.shape, np.nan), where=observed > 0)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, label="share of the observed class", fraction=0.046)
    if n <= _MOST_CELLS:
        for row, column in np.ndindex(n, n):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=7, color=colour)
    if n <= _MOST_NAMES:
        names = [shown(_name(each)) for each in classes]
        axes.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0, parse_math=False)
        axes.set_yticks(range(n), names, parse_math=False)
    accuracy = counts.trace() / max(counts.sum(), 1)
    title = f"{shown(target)}: {accuracy:.1%} of {counts.sum():,} right"
    dress(axes, title, "predicted", "observed", grid=False)
    return figure


def _name(each: Any) -> str:
    """A class as a person writes it: whole numbers without a point."""
    return f"{each:g}" if isinstance(each, float) else str(each)
