"""Pictures as inline SVG: bars over time, lines, cells. Coordinates are pixels from the upper left corner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.look.style import BLUE, MARKED, QUIET
from zstore.look.template import Html, fill

WIDTH = 520
"""Pixels of what lies over time, or over rows."""

BAR = 7
"""Pixels from a line of bars to the next one; a bar takes two less."""

_COLUMNS_PER_PX = 8 / 9  # of a line, of which each is drawn from its lowest to its highest value


def picture(width: float, height: float, label: str, *parts: object, stretched: bool = False) -> Html:
    """An SVG element.

    Parameters
    ----------
    width, height
        In pixels; narrower where there is less room.
    label
        What a screen reader says.
    parts
        What is drawn, the later ones above the earlier ones.
    stretched
        Whether the height stays where there is less room.
    """
    return fill(
        "<svg width='$width' height='$height' viewBox='0 0 $width $height' style='max-width:100%'$stretched "
        "role='img' aria-label='$label'>$parts</svg>",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        label=label,
        parts=parts,
        stretched=Html(" preserveAspectRatio='none'") if stretched else None,
    )


def rect(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> Html:
    """A filled rectangle."""
    return fill(
        "<rect x='$x' y='$y' width='$width' height='$height' fill='$colour'$opacity/>",
        x=_pixels(x),
        y=_pixels(y),
        width=_pixels(width),
        height=_pixels(height),
        colour=colour,
        opacity=None if opacity == 1 else fill(" fill-opacity='$opacity'", opacity=f"{opacity:g}"),
    )


def path(steps: str, colour: str, width: float = 1) -> Html:
    """A line that is not filled, by the commands of SVG's paths."""
    return fill(
        "<path d='$steps' stroke='$colour' stroke-width='$width' fill='none'/>",
        steps=Html(steps),
        colour=colour,
        width=_pixels(width),
    )


def dot(x: float, y: float, colour: str, title: str) -> Html:
    """A point with a name, which is shown under the pointer."""
    return fill(
        "<circle cx='$x' cy='$y' r='3' fill='$colour'><title>$title</title></circle>",
        x=_pixels(x),
        y=_pixels(y),
        colour=colour,
        title=title,
    )


class Bar(NamedTuple):
    """A stretch of time of one line.

    Parameters
    ----------
    line
        Number of the line, from the top.
    start, stop
        Times, in any unit.
    colour
        Of the bar.
    """

    line: int
    start: int
    stop: int
    colour: str = BLUE


def timeline(bars: Iterable[Bar], n_lines: int, span: tuple[int, int], captions: Sequence[str], label: str) -> Html:
    """Lines of bars over time.

    Parameters
    ----------
    bars
        What is drawn; none is narrower than half a pixel.
    n_lines
        How many lines there are.
    span
        First and last time of the axis.
    captions
        Three texts above: the first time, what is drawn, the last time.
    label
        What a screen reader says.
    """
    low, scale = span[0], WIDTH / max(span[1] - span[0], 1)
    drawn = [
        rect((bar.start - low) * scale, bar.line * BAR, max((bar.stop - bar.start) * scale, 0.5), BAR - 2, bar.colour)
        for bar in bars
    ]
    above = fill(
        "<div style='color:$quiet;width:${width}px;max-width:100%;display:flex;justify-content:space-between'>"
        "<span>$first</span><span>$what</span><span>$last</span></div>",
        quiet=QUIET,
        width=WIDTH,
        first=captions[0],
        what=captions[1],
        last=captions[2],
    )
    return Html(above + picture(WIDTH, n_lines * BAR, label, drawn, stretched=True))


def line(values: NDArray[Any], width: int, height: int, label: str, marked: tuple[int, int] = (0, 0)) -> Html:
    """Values as a line over their rows: of each column of pixels the lowest and the highest.

    Parameters
    ----------
    values
        (row,), or (row, channel) of a vector; NaN where missing.
    width, height
        In pixels.
    label
        What a screen reader says.
    marked
        Rows ``[start, stop)`` that lie on a coloured ground.
    """
    low, high = _ranges(np.where(np.isfinite(values), values, np.nan), max(int(width * _COLUMNS_PER_PX), 1))
    seen = np.isfinite(low)
    if not seen.any():
        return fill("<span style='color:$quiet'>nothing observed</span>", quiet=QUIET)
    bottom, top = float(low[seen].min()), float(high[seen].max())
    half = top / 2 - bottom / 2  # of the range, which may be beyond float64
    x = (np.arange(len(low)) + 0.5) * width / len(low)
    shares = [(ends[seen] / 2 - bottom / 2) / half if half > 0 else 0 * ends[seen] for ends in (low, high)]
    from_top = [height - 2 - share * (height - 4) for share in shares]
    steps = "".join(
        f"M{at:.1f},{start:.1f}V{stop - 0.8:.1f}" for at, start, stop in zip(x[seen], *from_top, strict=True)
    )
    per_row = width / max(len(values), 1)
    start, stop = marked
    ground = rect(start * per_row, 0, max((stop - start) * per_row, 2), height, MARKED) if stop > start else None
    return picture(width, height, label, ground, path(steps, BLUE, max(width / len(low), 1)))


def _ranges(values: NDArray[Any], n_columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(column,) lowest and highest value of stretches of like length; NaN where nothing was observed."""
    if not values.size:
        return np.zeros(0), np.zeros(0)
    each = values.reshape(len(values), -1)
    low, high = np.fmin.reduce(each, axis=1), np.fmax.reduce(each, axis=1)
    starts = np.unique(np.linspace(0, len(values), min(n_columns, len(values)) + 1).astype(np.int64)[:-1])
    return np.fmin.reduceat(low, starts), np.fmax.reduceat(high, starts)


def sample_evenly(count: int, most: int) -> NDArray[np.int64]:
    """Numbers below `count`, ascending: all of them, or `most` that are evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _pixels(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
