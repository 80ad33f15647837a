"""One style for all pictures: what each colour means, and what axes look like.

Colours are those of Okabe & Ito 2008, which are told apart by colour-blind people too, as in `zstore view`.
"""

from __future__ import annotations

from typing import Any

from zstore import look

SPLITS = {"train": look.style.BLUE, "val": look.style.AMBER, "test": look.style.RED}
"""Of the targets of each split."""

OBSERVED, FORECAST = "#1c2024", "#0072b2"
"""Of what was observed, and of what the model says; the bands of its intervals are paler."""

SECOND = "#009e73"
"""Of a second measure of the model in the same picture."""

PERSISTENCE, CLIMATOLOGY = "#d55e00", "#8a8a8a"
"""Of the forecasts that a model is compared with."""

GUIDE = "#b0b0b0"
"""Of lines that nothing was measured for: where a perfect model lies, and grids."""

SMALL = 8
"""Points of tick labels, axis labels and legends; titles have one more."""


def dress(axes: Any, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Give matplotlib's axes the style of all pictures, a title on the left, and labels.

    Names in them are text: a ``$`` of an id does not begin a formula.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    if grid:
        axes.grid(axis="y", color=GUIDE, alpha=0.35, linewidth=0.6)
        axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=SMALL + 1, parse_math=False)
    axes.set_xlabel(x, fontsize=SMALL, parse_math=False)
    axes.set_ylabel(y, fontsize=SMALL, parse_math=False)


def legend(axes: Any, **options: Any) -> None:
    """A legend without a frame, of names that are text."""
    for text in axes.legend(frameon=False, fontsize=SMALL, **options).get_texts():
        text.set_parse_math(False)
