"""A run on one page of Markdown."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models.base import TaskModel
from lightning_app.tasks import Forecast, Task
from zstore import WindowShape, shown_html


def summary(model: TaskModel, data: WindowDataModule, drawn: list[str], windows: str) -> str:
    """The run on one page of Markdown; `windows` says how many were tested."""
    store, window = data.store, data.window
    baseline = model.report.get("persistence", {})
    kind = f"panels of {data.view.n_nodes:,} series" if data.view.n_nodes else f"windows of {store.n_series:,} series"
    lines = [
        f"# {type(model).__name__} on {shown_html(Path(store.path).name)}",
        "",
        f"- {kind}: lookback {window.lookback:,}, delay {window.delay:,}, horizon {window.horizon:,}{_more(window)}",
        f"- metrics of {windows}",
        f"- inputs: {_names(data.inputs)}; targets: {_names(data.targets)}"
        + (f"; static attributes: {model.shape.n_static:,} columns" if model.shape.n_static else ""),
        f"- store {store.schema.uuid} version {store.version}",
        f"- split {data.split.digest()}; scaler {data.scaler.fitted_on}",
        f"- {sum(weight.numel() for weight in model.parameters()):,} parameters; {_task(model.task)}",
        "",
        f"| metric{f', {model.task.unit}' if model.task.unit else ''} | test |{' last value |' if baseline else ''}",
        "|---|---|" + ("---|" if baseline else ""),
        *(
            f"| {name} | {model.exact[f'test/{name}']:.4f} |{_beside(baseline, name)}"
            for name in (
                *model.task.listed,
                *model.task.also,
                *([] if model.intervals is None else model.intervals.listed),
            )
            if f"test/{name}" in model.exact
        ),
        "",
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})\n" for name in drawn),
    ]
    return "\n".join(lines)


def _beside(baseline: dict[str, Tensor], name: str) -> str:
    """The cell of the baseline, empty where it has no such metric."""
    return "" if not baseline else f" {float(baseline[name]):.4f} |" if name in baseline else "  |"


def _task(task: Task) -> str:
    """What the model is for."""
    return f"loss {type(task.loss).__name__}" if isinstance(task, Forecast) else f"task {type(task).__name__}"


def _more(window: WindowShape) -> str:
    """What else there is to a window."""
    apart = f", targets {window.target_stride:,} rows apart" if window.target_stride > 1 else ""
    return apart + (f", padded before: {window.pad_before}, after: {window.pad_after}" if window.padded else "")


def _names(names: list[str]) -> str:
    """Names as text of Markdown, which may hold HTML."""
    return ", ".join(map(shown_html, names))
