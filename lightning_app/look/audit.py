"""How an audit shows itself: a table and a timeline, as text, HTML or a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.audit import Audit
from lightning_app.data.windows.groups import Groups
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.splits import NAMES
from lightning_app.look.splits import sampled_series, splits_table, splits_timeline
from lightning_app.look.style import SPLITS
from zstore import look, shown

_WIDTH = 60  # of the timeline, in characters
_DRAWN = 40  # series, at most


def audit_rows(audit: Audit) -> list[list[str]]:
    """A head, and a row for each split."""
    rows = [["split", "windows", "series", "rows read", "targets", "missing", "first target", "last target"]]
    for part in audit.parts:
        share = f"{part.n_missing / part.n_targets:.1%}" if part.n_targets else "-"
        counts = [f"{n:,}" for n in (part.n_windows, part.n_series, part.n_rows, part.n_targets)]
        rows.append([part.name, *counts, share, part.first or "-", part.last or "-"])
    return rows


def audit_text(audit: Audit) -> str:
    """The table, why splits have no windows, what was proved, and a timeline."""
    rows = audit_rows(audit)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < column < len(row) - 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += [f"{part.name}: {part.why_none}" for part in audit.parts if part.why_none]
    return "\n".join([*lines, "", _proof(audit), "", *_text_timeline(audit)])


def audit_html(audit: Audit) -> look.Html:
    """The same for a notebook."""
    return look.card(
        splits_table(audit_rows(audit)),
        [
            look.fill("<div>$name: $why</div>", name=part.name, why=part.why_none)
            for part in audit.parts
            if part.why_none
        ],
        look.fill("<div>$proof</div>", proof=_proof(audit)),
        splits_timeline(audit.data.store, audit.spans, whole=audit.data.view.n_nodes > 0),
    )


def plot_audit(audit: Audit, axes: Any) -> Any:
    """See :meth:`lightning_app.audit.Audit.plot`."""
    import matplotlib.pyplot as plt  # only who draws needs it

    data, unit = audit.data, audit.data.store.time.unit
    chosen, n_series = sampled_series(audit.spans, _DRAWN)
    if axes is None:
        axes = plt.subplots(figsize=(9, 1.2 + 0.18 * len(chosen)), layout="constrained")[1]

    def on_axis(times: NDArray[np.int64]) -> Any:
        return times if unit is None else times.astype(f"datetime64[{unit}]")

    for name in NAMES:
        span = audit.spans[name]
        drawn = np.isin(span.series, chosen)
        lines = np.searchsorted(chosen, span.series[drawn])
        bars = on_axis(span.first[drawn]), on_axis(span.last[drawn])
        axes.hlines(lines, *bars, colors=SPLITS[name], linewidth=6, label=name)
    ids = ["all series"] if data.view.n_nodes else [shown(data.store.ids[position]) for position in chosen]
    axes.set_yticks(range(len(chosen)), ids, fontsize=7, parse_math=False)  # an id may have a $
    axes.set_ylim(-0.8, len(chosen) - 0.2)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    left_out = f", {len(chosen)} of {n_series:,} series" if len(chosen) < n_series else ""
    axes.set_title(f"targets of train, val and test{left_out}", loc="left", fontsize=10)
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, borderaxespad=0, fontsize=8)
    return axes


def _proof(audit: Audit) -> str:
    proof = f"no target belongs to two splits: {sum(part.n_targets for part in audit.parts):,} compared"
    split, store = audit.data.split, audit.data.store
    if split.group is None:
        return proof
    members = audit.data.view.members
    chosen = np.arange(store.n_series) if members is None else np.flatnonzero(members)
    assigned = assign_series(store, split, members)[chosen]
    n_groups = Groups.of(store, split.group, chosen).require_whole(assigned, store.path)
    return f"{proof}; nor does a {split.group}: {n_groups:,} compared"


def _text_timeline(audit: Audit) -> list[str]:
    """A line for each split: full blocks where some series has targets."""
    index, axis = audit.data.store.index, audit.data.store.time
    low, high = int(index.time_start.min(initial=2**62)), int(index.time_stop.max(initial=-(2**62)))
    scale, indent = max(high - low, 1), max(map(len, NAMES)) + 2
    begin, end = axis.show(low), axis.show(high)
    lines = [" " * indent + begin + end.rjust(max(_WIDTH - len(begin), len(end) + 1))]
    for name in NAMES:
        marks = np.zeros(_WIDTH, np.bool_)
        first, last = audit.spans[name].first, audit.spans[name].last
        for a, b in zip((first - low) / scale * _WIDTH, (last - low) / scale * _WIDTH, strict=True):
            marks[int(min(a, _WIDTH - 1)) : int(np.ceil(b)) or 1] = True
        lines.append(name.ljust(indent) + "".join("█" if mark else "·" for mark in marks))
    return lines
