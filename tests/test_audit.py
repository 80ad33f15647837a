"""The split audit: counts that a plain count confirms, a proof that can fail, a picture."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lightning_app.audit import audit
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.splits import NAMES, Split, SplitName
from zstore import Store, UsageError

App = Callable[..., subprocess.CompletedProcess[str]]

# Lightning's and jsonargparse's own warnings are theirs to fix; ours are errors in every other test.
pytestmark = pytest.mark.filterwarnings("default")

OPTIONS: dict[str, Any] = {"channels": ["rain_mm"], "targets": ["flow_mm"], "stride": 3, "evaluation_stride": 4}


def by_counting(data: WindowDataModule, name: SplitName) -> dict[str, int]:
    """The same, window by window."""
    index = data.index(name, data.window.stride if name == "train" else data.evaluation_stride)
    first, series, _ = index.locate(np.arange(len(index)))
    offset, shape = data.window.target_offset, data.window
    targets = {row + step for row in first.tolist() for step in range(offset, offset + shape.horizon)}
    values = data.store.read("flow_mm", 0, data.store.n_rows)
    return {
        "n_windows": len(first),
        "n_series": len(set(series.tolist())),
        "n_targets": len(targets),
        "n_missing": sum(bool(np.isnan(values[row])) for row in targets),
    }


HALF = (0.5, 0.25, 0.25)


@pytest.mark.parametrize(
    "split", [Split(), Split(by="series", sizes=HALF), Split(by="both", sizes=HALF, series_sizes=HALF, embargo=5)]
)
def test_windows_series_targets_and_missing_ones_are_counted(catchments: Store, tmp_path: Path, split: Split) -> None:
    options = {**OPTIONS, "stride": 1, "evaluation_stride": 1}
    data = WindowDataModule(catchments.path, 20, 5, split=split, cache=str(tmp_path), **options)
    for part in audit(data).parts:
        counted = by_counting(data, part.name)  # type: ignore[arg-type]
        assert {key: getattr(part, key) for key in counted} == counted
        assert part.first < part.last


def test_a_panel_is_counted_by_its_series(catchments: Store, tmp_path: Path) -> None:
    data = WindowDataModule(
        catchments.path, 20, 5, channels=["flow_mm"], panel=Panel(ids=catchments.ids[:3].tolist()), cache=str(tmp_path)
    )
    found = {part.name: part for part in audit(data).parts}
    start, stop = data.view.ranges("val")
    n_steps = int((stop - start)[0])
    assert (found["val"].n_series, found["val"].n_targets) == (3, 3 * n_steps)
    rows = data.view.open(data.scaler, tmp_path).observed
    assert rows is not None
    assert found["val"].n_missing == int((~rows[int(start[0]) : int(stop[0])]).sum())


def test_targets_of_two_splits_are_found(catchments: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def further(store: Store, split: Split, name: SplitName, members: Any = None) -> Any:
        start, stop = target_rows(store, split, name, members)
        return start, np.where((stop > start) & (name == "train"), stop + 3, stop)

    monkeypatch.setattr("lightning_app.data.rows.views.target_rows", further)
    monkeypatch.setattr("lightning_app.audit.refuse_leaks", lambda *_: None)  # the other proof, by itself
    data = WindowDataModule(catchments.path, 20, 5, cache=str(tmp_path), **OPTIONS)
    with pytest.raises(UsageError, match=r"row [0-9,]+ is a target of train and val"):
        audit(data)


def test_the_command_prints_a_table_and_a_timeline_and_draws(catchments: Store, tmp_path: Path, app: App) -> None:
    data = {"store": catchments.path, "lookback": 20, "horizon": 5, "cache": str(tmp_path), "channels": ["flow_mm"]}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump({"data": data, "model": {"class_path": "Repeat"}}))
    done = app("splits", "--config", "fit.yaml", "--data.split.sizes", "[0.6, 0.4, 0.0]", "--out", "s.png", check=True)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["split", "windows", "series"]
    assert "no window in test" in done.stdout
    assert "no target belongs to two splits" in done.stdout
    drawn = {line.split()[0]: line.split()[1] for line in lines if "█" in line}
    assert set(drawn) == {"train", "val"}
    assert drawn["train"].count("█") == pytest.approx(36, abs=1)
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads(app("splits", "--config", "fit.yaml", "--json", check=True).stdout)
    assert [part["name"] for part in found["parts"]] == list(NAMES)
    refused = app("splits", "--config", "fit.yaml", "--data.lookbock", "3")
    assert refused.returncode == 2
    assert "lookbock" in refused.stderr
    assert "expected a YAML file" in app("splits", "--config", "none.yaml").stderr
