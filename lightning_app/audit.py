"""``python -m lightning_app splits``: what train, val and test are of a configuration, counted and proved."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
from numpy.typing import NDArray

from lightning_app.arguments import without_secrets
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.leaks import refuse_leaks
from lightning_app.data.windows.spans import Spans
from lightning_app.data.windows.splits import NAMES, NoWindowError, SplitName
from zstore import UsageError, WindowIndex, bound_yaml, check_target, read_yaml, whole_file

logger = logging.getLogger(__name__)

Int64 = NDArray[np.int64]
_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Part:
    """One split.

    Parameters
    ----------
    name
        Which.
    n_windows, n_series
        Its windows, and the series they are of.
    n_rows
        Rows that any window reads.
    n_targets, n_missing
        Targets, rows by channels, that any window has, and how many of them are missing.
    first, last
        Times of the first and the last target; empty without windows.
    why_none
        Why there is no window, else empty.
    """

    name: str
    n_windows: int = 0
    n_series: int = 0
    n_rows: int = 0
    n_targets: int = 0
    n_missing: int = 0
    first: str = ""
    last: str = ""
    why_none: str = ""


@dataclass(frozen=True)
class Audit:
    """All splits of a configuration.

    Parameters
    ----------
    parts
        Of train, val and test.
    spans
        By split, where its targets lie.
    data
        What was looked at.
    """

    parts: tuple[Part, ...]
    spans: dict[SplitName, Spans]
    data: WindowDataModule

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"split": self.data.split.digest(), "parts": [asdict(part) for part in self.parts]}

    def __str__(self) -> str:
        """A table, and a timeline."""
        from lightning_app.look.audit import audit_text

        return audit_text(self)

    def _repr_html_(self) -> str:
        from lightning_app.look.audit import audit_html

        return audit_html(self)

    def plot(self, axes: Any = None) -> Any:
        """Draw targets over time, a bar for each series; of many series some, evenly chosen.

        Parameters
        ----------
        axes
            Matplotlib's axes to draw on; None for new ones.

        Returns
        -------
        The axes.
        """
        from lightning_app.look.audit import plot_audit

        return plot_audit(self, axes)


def audit(data: WindowDataModule) -> Audit:
    """Count, and prove, what the splits of a data module are.

    Raises
    ------
    UsageError
        If a target belongs to two of them.

    Notes
    -----
    Two proofs: of the windows of each split against the ranges of the others, as before every fit, and of the targets
    of all windows against each other. Cost: one pass over the target channels, where any may be missing.
    """
    indices: dict[SplitName, WindowIndex | str] = {}
    n_windows: dict[SplitName, int] = {}
    for name in NAMES:
        try:
            stride = data.window.stride if name == "train" else data.evaluation_stride
            found = data.index(name, stride)
            n_windows[name] = len(found)
            if name == "train" and data.options.jitter:
                found = data.index(name)  # windows may become any of these
            refuse_leaks(data.view.ranges_near(), found, name, data.store.path)
            indices[name] = found
        except NoWindowError as error:
            indices[name] = str(error)
    spans = {
        name: Spans.of(data.view.timed, None if isinstance(index, str) else index) for name, index in indices.items()
    }
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64)
    ranges = {name: nothing if isinstance(index, str) else index.target_ranges() for name, index in indices.items()}
    _refuse_overlaps(data, ranges)
    missing = _missing(data, ranges)
    return Audit(
        tuple(_part(data, name, indices[name], n_windows.get(name, 0), spans[name], missing[name]) for name in NAMES),
        spans,
        data,
    )


def _part(
    data: WindowDataModule,
    name: SplitName,
    index: WindowIndex | str,
    n_windows: int,
    spans: Spans,
    n_missing: int,
) -> Part:
    if isinstance(index, str):
        return Part(name, why_none=index)
    start, stop = index.target_ranges()
    first, last = spans.show(data.store.schema.time)
    width = max(data.view.n_nodes, 1)
    return Part(
        name,
        n_windows=n_windows,
        n_series=data.view.n_nodes or len(np.unique(index.series)),
        n_rows=index.n_rows() * width,
        n_targets=int((stop - start).sum()) * width * len(data.targets),
        n_missing=n_missing,
        first=first,
        last=last,
    )


def _refuse_overlaps(data: WindowDataModule, ranges: dict[SplitName, tuple[Int64, Int64]]) -> None:
    start, stop = (np.concatenate([ranges[name][side] for name in NAMES]) for side in (0, 1))
    of = np.repeat(np.arange(3), [len(ranges[name][0]) for name in NAMES])
    order = np.argsort(start, kind="stable")
    meets = np.flatnonzero(start[order][1:] < np.maximum.accumulate(stop[order])[:-1])
    if len(meets):
        both = sorted({NAMES[of[order[meets[0]]]], NAMES[of[order[meets[0] + 1]]]})
        raise UsageError(
            f"row {int(start[order][meets[0] + 1]):,} is a target of {' and '.join(both)}",
            expected="targets in one split at most",
            where=data.store.path,
            fix="correct --data.split",
        )


def _missing(data: WindowDataModule, ranges: dict[SplitName, tuple[Int64, Int64]]) -> dict[SplitName, int]:
    """Targets of each split that are missing."""
    found: dict[SplitName, int] = dict.fromkeys(NAMES, 0)
    if not data.view.masked:
        return found
    reader, columns = data.view.reader(data.scaler, data.row_cache), list(data.columns_of.targets)
    for low in range(0, reader.n_rows, reader.chunk_rows):
        high = min(low + reader.chunk_rows, reader.n_rows)
        inside = {name: (np.clip(a, low, high), np.clip(b, low, high)) for name, (a, b) in ranges.items()}
        if not any((b > a).any() for a, b in inside.values()):
            continue
        observed = np.ones((high - low, reader.width), np.bool_)
        reader.read(low, np.empty(observed.shape, np.float32), observed)
        absent = ~observed.reshape(high - low, max(data.view.n_nodes, 1), -1)[..., columns]
        before = np.append(0, np.cumsum(absent.sum(axis=(1, 2))))
        for name, (start, stop) in inside.items():
            found[name] += int((before[stop - low] - before[start - low]).sum())
    return found


def make_parser() -> argparse.ArgumentParser:
    """The flags of ``python -m lightning_app splits``."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_app splits",
        description="Count the windows, rows and missing targets of train, val and test, prove that no target belongs "
        "to two of them, and draw them over time. Flags such as --data.split.sizes replace what the files say.",
    )
    parser.add_argument("--config", nargs="+", action="extend", required=True, help="YAML files, as for fit")
    parser.add_argument("--out", type=Path, help="picture to write, such as splits.png")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    """``python -m lightning_app splits``."""
    options, flags = make_parser().parse_known_args(list(arguments))
    if options.out is not None:
        check_target(options.out, "picture", _PICTURES)
    log = logging.getLogger("lightning_app")
    level = log.level
    log.setLevel(logging.WARNING)  # what a fit says of its rows is no part of the table
    try:
        found = audit(module_of(options.config, flags))
    finally:
        log.setLevel(level)
    print(json.dumps(found.to_json(), indent=1) if options.json else found)
    if options.out is not None:
        with whole_file(options.out, "picture", _PICTURES) as path:
            found.plot().figure.savefig(path, dpi=150)
        print(f"wrote {options.out}")
    return 0


def module_of(configs: Sequence[str], flags: Sequence[str]) -> WindowDataModule:
    """The data module of some configurations, and of flags that replace what these say.

    Raises
    ------
    UsageError
        If they cannot be read or meant.
    """
    bound_yaml()
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WindowDataModule, "data")
    parser.add_argument("--config", action="config")
    words = []
    for config in configs:
        document = read_yaml(config)
        words += ["--config", json.dumps({"data": document.get("data", {})})]
    try:
        module: WindowDataModule = parser.instantiate(parser.parse_args([*words, *flags])).data
    except argparse.ArgumentError as error:
        why = without_secrets(str(error))
        raise UsageError(f"options ({why})", expected="those of fit", fix="correct the configuration") from error
    return module
