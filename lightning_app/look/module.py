"""How a data module shows itself: what is cut from which store, and when which split has targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.spans import Spans
from lightning_app.data.windows.splits import NAMES, NoWindowError, SplitName
from lightning_app.look.splits import splits_table, splits_timeline
from zstore import WindowIndex, counted, look, shown

_MOST_NAMES = 12


def module_text(data: WindowDataModule) -> str:
    """One line: the store, the shape of a window, channels and splits."""
    windows = ", ".join(f"{name} {0 if index is None else len(index):,}" for name, index in _indices(data).items())
    return (
        f"<WindowDataModule: {shown(data.store.path)} version {data.store.version}, windows of {data.window}"
        f"{_panel(data, ' of')}, {_names(_grouped(data, data.inputs))} to {_names(_grouped(data, data.targets))}"
        f"{''.join(f', {each}' for each in [*_fields(data), *_vectors(data)])}; {windows} windows>"
    )


def module_html(data: WindowDataModule) -> look.Html:
    """What is cut from the store, how many windows that makes, and where targets lie in time.

    Notes
    -----
    Arithmetic on runs: no row is read and no scaler fitted, so windows without any observed target count too;
    ``python -m lightning_app splits`` leaves them out.
    """
    store, indices, n_nodes = data.store, _indices(data), data.view.n_nodes
    spans = {name: Spans.of(data.view.timed, index) for name, index in indices.items()}
    facts = {
        "inputs": look.listed(_grouped(data, data.inputs), _MOST_NAMES),
        "targets": look.listed(_grouped(data, data.targets), _MOST_NAMES),
        "known in advance": look.listed(_grouped(data, data.future), _MOST_NAMES),
        "fields": look.listed(_fields(data), _MOST_NAMES),
        "vectors": look.listed(_vectors(data), _MOST_NAMES),
        "static attributes": look.listed(data.statics, _MOST_NAMES),
        "times": look.listed(data.columns_of.calendar, _MOST_NAMES),
        "scaler": f"{data.scaler_kind}, by {data.scale_by}",
        "scale floor": str(data.options.scale_floor or ""),
        "least forecast": "" if data.options.target_floor is None else str(data.options.target_floor),
        "batch": f"{data.batch_size:,} windows",
        "jitter": f"up to {data.options.jitter:,} rows" if data.options.jitter else "",
        "windows": "none that lacks a target" if data.options.whole_targets else "",
        "residency": data.residency,
    }
    rows = [["split", "windows", "series", "first target", "last target"]]
    for name, index in indices.items():
        n_series = 0 if index is None else n_nodes or len(np.unique(index.series))
        first, last = spans[name].show(store.time)
        rows.append([name, f"{0 if index is None else len(index):,}", f"{n_series:,}", first or "-", last or "-"])
    train = indices["train"]
    return look.card(
        look.fill(
            "<div><b>WindowDataModule</b> of <b>$path</b> version $version$panel</div>",
            path=store.path,
            version=store.version,
            panel=_panel(data, ","),
        ),
        [look.fill("<div>$name: $value</div>", name=name, value=value) for name, value in facts.items() if value],
        splits_table(rows),
        splits_timeline(store, spans, whole=n_nodes > 0),
        None
        if train is None
        else look.fill("<div style='margin-top:6px'>training:</div>$train", train=look.Html(train._repr_html_())),
    )


def _grouped(data: WindowDataModule, names: Sequence[str]) -> list[str]:
    """Names of channels; where all of a vector follow each other, its name and how many there are."""
    vector_of = {own[0]: (name, own) for name, own in data.store.vectors.items()}
    found, at = list[str](), 0
    while at < len(names):
        name, own = vector_of.get(names[at], ("", ()))
        whole = bool(own) and tuple(names[at : at + len(own)]) == own
        found.append(f"{name} ({len(own):,})" if whole else names[at])
        at += len(own) if whole else 1
    return found


def _fields(data: WindowDataModule) -> list[str]:
    """What a window has of each field, and where its rows are asked to live."""
    return [
        f"{name} of {_last(each.steps, each.stride)}, {each.residency}" for name, each in data.options.fields.items()
    ]


def _vectors(data: WindowDataModule) -> list[str]:
    """What a window has of each vector that it has on its own."""
    return [f"{name} of {_last(each.steps, each.stride)}" for name, each in data.layout.vectors.items()]


def _last(steps: int, stride: int) -> str:
    return f"the last {counted(steps, 'row')}" + (f", {stride:,} apart" if stride > 1 else "")


def _panel(data: WindowDataModule, before: str) -> str:
    return f"{before} {data.view.n_nodes:,} series side by side" if data.view.n_nodes else ""


def _indices(data: WindowDataModule) -> dict[SplitName, WindowIndex | None]:
    """The windows of each split, whether their targets were observed or not; None where there are none."""
    indices: dict[SplitName, WindowIndex | None] = {}
    for name in NAMES:
        stride = data.window.stride if name == "train" else data.evaluation_stride
        try:
            indices[name] = data.index(name, stride, all_windows=True)
        except NoWindowError:
            indices[name] = None
    return indices


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(shown, names[:_MOST_NAMES])) + more
