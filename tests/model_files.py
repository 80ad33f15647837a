"""Models of every kind on stores of every kind, for tests of files that they are exported to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lightning_app import models
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.views import Panel
from lightning_app.models import TaskModel
from lightning_app.tasks import Classification, MultiTask, Policy, ProbabilisticForecast, Task
from zstore import ingest

SHIPPED = [name for name in models.__all__ if name not in ("TaskModel", "FieldToFloat")]
"""Every model of the package: one that is added is exported by the tests too."""
_DAYS = 220


def write_places(folder: Path) -> None:
    """Four places over 220 days: values with gaps, far from 0, words and classes; attributes of numbers and words."""
    random, n = np.random.default_rng(0), 4 * _DAYS
    level = random.normal(3, 2, n).round(2)
    level[random.random(n) < 0.1] = np.nan
    days = np.datetime64("2023-11-05", "s") + np.arange(_DAYS) * np.timedelta64(86_400, "s")
    words = np.array(["clear", "rain", "snow"])
    sky = pa.array([None if random.random() < 0.1 else word for word in words[random.integers(0, 3, n)]])
    table = pa.table(
        {
            "place": np.repeat([f"p{number}" for number in range(4)], _DAYS),
            "day": np.tile(days, 4),
            "level": level,
            "rain": random.gamma(1.0, 3.0, n).round(1),
            "pressure": (101_325 + random.normal(0, 300, n)).round(1),
            "sky": sky,
            "state": random.integers(0, 3, n),
        }
    )
    attributes = "place,height,soil,latitude,longitude\np0,12.5,clay,1,5\np1,,sand,2,6\np2,80,clay,3,5\np3,40,,4,6\n"
    (folder / "attributes.csv").write_text(attributes)
    ingest(table, folder / "places.zarr", id="place", time="day", static=folder / "attributes.csv")


def write_times(folder: Path) -> None:
    """Two series of months, and one whose times have no step."""
    random = np.random.default_rng(2)
    months = np.arange(np.datetime64("1999-01"), np.datetime64("2014-01")).astype("datetime64[s]")
    seconds = np.cumsum(random.integers(60, 90_000, 400)).astype("timedelta64[s]")
    for name, times in {"months": np.tile(months, 2), "irregular": seconds + np.datetime64("2020-01-01", "s")}.items():
        n = len(times)
        table = {
            "place": ["a"] * n if name == "irregular" else np.repeat(["a", "b"], n // 2),
            "time": times,
            "level": random.normal(size=n).round(3),
            "rain": random.gamma(1.0, 2.0, n).round(2),
        }
        ingest(pa.table(table), folder / f"{name}.zarr", id="place", time="time")


def write_scenes(folder: Path) -> None:
    """Twelve episodes of 14 steps: an image, a volume, a state, an action."""
    random, n = np.random.default_rng(1), 12 * 14
    np.save(folder / "images.npy", random.integers(0, 256, (n, 24, 20, 3), dtype=np.uint8))
    np.save(folder / "volumes.npy", random.integers(-900, 900, (n, 16, 16, 16), dtype=np.int16))
    table = pa.table(
        {
            "episode": np.repeat([f"e{number:02d}" for number in range(12)], 14),
            "step": np.tile(np.arange(14), 12),
            "hand": pa.FixedSizeListArray.from_arrays(random.normal(300, 40, 2 * n).round(1), 2),
            "action": pa.FixedSizeListArray.from_arrays(random.normal(300, 50, 2 * n).round(1), 2),
            "ill": random.integers(0, 2, n),
            "images": ["images.npy"] * n,
            "volumes": ["volumes.npy"] * n,
            "number": np.arange(n),
        }
    )
    ingest(
        table,
        folder / "scenes.zarr",
        id="episode",
        time="step",
        channels=["hand", "action", "ill"],
        file={"image": "images", "volume": "volumes"},
        file_position={"image": "number", "volume": "number"},
        file_root=folder,
    )


@dataclass(frozen=True)
class Case:
    """A model, what it is for, and what it reads."""

    model: str
    data: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    task: Task | None = None
    store: str = "places"

    def module(self, folder: Path) -> WindowDataModule:
        """Its data module on a store in a folder."""
        usual: dict[str, Any] = {"lookback": 24, "horizon": 3, "channels": ["level", "rain"], "targets": ["level"]}
        if self.store == "scenes":
            usual = {"lookback": 2, "horizon": 4, "delay": -1, "channels": ["hand"], "targets": ["action"]}
        usual["split"] = Split(by="series") if self.store == "scenes" else Split(sizes=(0.6, 0.2, 0.2))
        return WindowDataModule(
            str(folder / f"{self.store}.zarr"), cache=str(folder / "cache"), batch_size=16, **{**usual, **self.data}
        )

    def build(self, data: WindowDataModule) -> TaskModel:
        """The model, with weights that a seed says."""
        torch.manual_seed(0)
        more = {} if self.task is None else {"task": self.task}
        model: TaskModel = getattr(models, self.model)(data.shape, **self.arguments, **more)
        if isinstance(model, models.PatchSTG):  # whose patches are found where a fit begins
            model.attach(data)
            model.place(model.patches())
        return model.eval()


_KNOWN = {"future": ["rain"], "time_features": ["day_of_week", "month_of_year"], "observed_inputs": True}
_STATIC = {"statics": ["height", "soil"]}
_INDEX = {"time_features": ["day_of_year", "day_of_week"], "time_encoding": "index"}
_PANEL = {"panel": Panel(positions=("latitude", "longitude"))}
_VOLUME: dict[str, Any] = {"lookback": 1, "horizon": 1, "fields": {"volume": 1}, "targets": ["ill"], "classes": ["ill"]}
_HOUNSFIELD = {"scale": {"mean": [0.0], "std": [500.0]}}

OF_MODEL: dict[str, Case] = {
    "LSTM": Case(
        "LSTM", {**_KNOWN, **_STATIC, "channels": ["level", "sky", "pressure"], "lookback": 10}, {"hidden": 6}
    ),
    "GRU": Case("GRU", {"scaler": {"rain": "log1p", "level": "minmax_signed"}, "targets": ["rain", "level"]}),
    "EALSTM": Case("EALSTM", {**_STATIC, "scale_by": "series"}, {"hidden": 6}),
    "BranchLSTM": Case("BranchLSTM", {**_STATIC, **_KNOWN}, {"hidden": 6}),
    "MLP": Case("MLP", {**_KNOWN, **_STATIC, "pad_before": "zero"}, {"hidden": 8}),
    "TCN": Case("TCN", {"pad_before": "repeat"}, {"hidden": 4}),
    "TDS": Case("TDS", {"delay": -3}, {"width": 8, "channels": 4, "hidden": 6}),
    "RMSRegression": Case("RMSRegression", {"targets": ["state"], "classes": ["state"]}, {}, Classification()),
    "Climatology": Case("Climatology", {**_INDEX, "scale_by": "series"}),
    "PatchSTG": Case("PatchSTG", {**_PANEL, **_INDEX, "targets": ["level", "rain"]}, {"depth": 1, "leaf_size": 2}),
    "SeasonalRepeat": Case("SeasonalRepeat", {}, {"season": 7}),
    "Ensemble": Case("Ensemble", _KNOWN, {"members": 2, "member_args": {"hidden": 4}}),
    "SpatialSoftmaxCNN": Case(
        "SpatialSoftmaxCNN",
        {"fields": {"image": {"steps": 2}}, "pad_before": "repeat", "pad_after": "repeat"},
        {"channels": [8], "points": 4, "hidden": 8},
        Policy(),
        "scenes",
    ),
    "CNN3D": Case("CNN3D", _VOLUME, {"widths": [8, 8], **_HOUNSFIELD}, Classification(), "scenes"),
    "ResNet3D": Case(
        "ResNet3D",
        {**_VOLUME, "targets": ["ill", "hand.0"]},
        {"width": 4, "pool": 2, **_HOUNSFIELD},
        MultiTask(),
        "scenes",
    ),
}
"""What a model is tried with; others read two channels of the places."""

OF_TASK: dict[str, Case] = {
    "quantiles": Case("LSTM", _KNOWN, {"hidden": 6}, ProbabilisticForecast()),
    "normal": Case("GRU", {"scale_by": "series"}, {"hidden": 6}, ProbabilisticForecast("normal")),
    "student_t": Case(
        "MLP", {"scaler": {"rain": "log1p"}, "targets": ["rain"]}, {"hidden": 6}, ProbabilisticForecast("student_t")
    ),
    "binary": Case(
        "MLP",
        {**_VOLUME, "fields": {}, "targets": ["ill", "hand"]},
        {"hidden": 6},
        MultiTask(class_loss="binary"),
        "scenes",
    ),
    "mixture": Case("GRU", {"pad_before": "repeat"}, {"hidden": 6}, Policy(modes=3), "scenes"),
    "relative": Case("MLP", {}, {"hidden": 6}, Policy(relative_to=["hand.0", None]), "scenes"),
    "panel": Case("LSTM", {"panel": Panel(), "scale_by": "series", **_STATIC, "lookback": 10}, {"hidden": 6}),
    "code": Case("NLinear", {"channels": ["level", "sky"], "category_encoding": "code", "scaler": "robust"}),
    "months": Case("MLP", {"time_features": ["day_of_year", "month_of_year"]}, {"hidden": 4}, None, "months"),
    "irregular": Case(
        "MLP", {"time_features": ["hour_of_day"], "pad_before": "repeat"}, {"hidden": 4}, None, "irregular"
    ),
    "clipped": Case("MLP", {"scaler": "quantile", "residency": "stream"}, {"hidden": 4}),
    "strided": Case("LSTM", {"target_stride": 2, "delay": 1, "channels": ["pressure"], "targets": ["pressure"]}),
}


def case_of(name: str) -> Case:
    """What a shipped model is tried with."""
    return OF_MODEL.get(name, Case(name))


CASES = {**{name: case_of(name) for name in SHIPPED}, **OF_TASK}
"""All of them, by name."""
