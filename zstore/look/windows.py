"""How windows show themselves: how many there are, and the rows of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zstore.look.style import BLUE, GROUND, RED
from zstore.look.svg import BAR, WIDTH, path, picture, rect
from zstore.look.template import Html, card, fill, listed
from zstore.reading.windows import WindowIndex
from zstore.reading.windowshape import WindowShape

_MOST_FIELDS = 12


def windows_html(index: WindowIndex, fields: Mapping[str, Sequence[int]] | None = None) -> Html:
    """Windows: how many there are, of how many series, and one of them as a picture.

    Parameters
    ----------
    index
        The windows.
    fields
        What each has beside channels, by name: how many rows, and the lengths of their own axes.

    Notes
    -----
    Cost: arithmetic on the stretches that windows lie in; no row is read.
    """
    n_stretches, lies = len(index.ends), None
    if n_stretches:
        counts = np.bincount(index.series, weights=np.diff(index.ends, prepend=0))
        counts = counts[counts > 0].astype(np.int64)
        lies = fill(
            "<div>$range of each of $n_series series, in $n_stretches stretches without a gap; they read $n_rows rows"
            "</div>",
            range=f"{counts.min():,}" + (f" to {counts.max():,}" if counts.min() < counts.max() else ""),
            n_series=f"{len(counts):,}",
            n_stretches=f"{n_stretches:,}",
            n_rows=f"{index.n_rows():,}",
        )
    head = fill("<div><b>$n windows</b> of $shape</div>", n=f"{len(index):,}", shape=index.shape)
    beside = [f"{name} {' x '.join(f'{n:,}' for n in shape)}" for name, shape in (fields or {}).items()]
    of_fields = fill("<div>fields: $fields</div>", fields=listed(beside, _MOST_FIELDS)) if beside else None
    return card(head, lies, of_fields, _one_window(index.shape))


def _one_window(shape: WindowShape) -> Html:
    """A window to scale: its inputs above, its targets below."""
    scale, height, offset = WIDTH / shape.span, 2 * BAR + 2, shape.target_offset
    frame = path(f"M0,{height}V0H{WIDTH}V{height}", GROUND)
    inputs = rect(0, 0, max(shape.lookback * scale, 1), BAR, BLUE)
    targets = rect(offset * scale, BAR + 2, max(shape.target_span * scale, 1), BAR, RED)
    return fill(
        "$drawn<div><span style='color:$blue'>$lookback input rows</span>, "
        "<span style='color:$red'>$horizon target rows</span></div>",
        drawn=picture(WIDTH, height, "one window", frame, inputs, targets, stretched=True),
        blue=BLUE,
        red=RED,
        lookback=f"{shape.lookback:,}",
        horizon=f"{shape.horizon:,}",
    )
