"""What has not happened yet: windows of a store that was cut are those that the whole store has at its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.splits import Split
from zstore import Store, ingest, open_store

N = 60  # times of the longest series
AT = 48  # the first that is not known
KINDS = ["step", "hour", "month", "weekday", "irregular"]
COLUMNS = ["v", "w", "word", "u", "holiday"]  # u and holiday are known in advance


def times_of(kind: str) -> Any:
    if kind == "step":
        return np.arange(N)
    if kind == "irregular":
        return np.cumsum(1 + np.arange(N) % 3)
    names = {"hour": "h", "month": "MS", "weekday": "B"}
    return pd.date_range("2001-01-01", periods=N, freq=names[kind])


def rows_of(kind: str) -> pd.DataFrame:
    """Three series, of which one begins later and one ends before the others; with gaps and missing cells."""
    random, parts = np.random.default_rng(3), []
    for number, (start, stop) in enumerate([(0, N), (9, N), (0, AT - 5)]):
        part = pd.DataFrame({"id": f"s{number}", "t": times_of(kind)[start:stop]})
        part["v"], part["w"] = random.normal(size=(2, len(part))).round(3)
        part["word"] = np.array(["low", "high"])[random.integers(0, 2, len(part))]
        part["u"] = random.normal(size=len(part)).round(3)
        part["holiday"] = np.array(["no", "yes"])[random.integers(0, 2, len(part))]
        part.loc[random.random(len(part)) < 0.1, "v"] = np.nan
        if number == 1 and kind != "irregular":
            part = part.drop(index=[3, 4])
        parts.append(part)
    return pd.concat(parts)


def stored(rows: pd.DataFrame, path: Path, kind: str) -> Store:
    rows.to_csv(path.with_suffix(".csv"), index=False)
    step = {"month": {"freq": "MS"}, "weekday": {"freq": "B"}, "step": {"freq": "1"}, "hour": {"freq": "1h"}}
    asked: dict[str, Any] = {"freq": "rows"} if kind == "irregular" else step[kind]
    ingest(path.with_suffix(".csv"), path, id="id", time="t", **asked)
    return open_store(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of times: `whole`; `cut` before AT; `ahead`, which has what is known in advance from there on."""
    folder = tmp_path_factory.mktemp("ahead")
    for kind in KINDS:
        rows, at = rows_of(kind), times_of(kind)[AT]
        stored(rows, folder / f"{kind}_whole.zarr", kind)
        stored(rows[rows.t < at], folder / f"{kind}_cut.zarr", kind)
        ahead = rows.copy()
        ahead.loc[ahead.t >= at, ["v", "w", "word"]] = np.nan
        stored(ahead, folder / f"{kind}_ahead.zarr", kind)
        rows[rows.t >= at][["id", "t", "u", "holiday"]].to_csv(folder / f"{kind}_known.csv", index=False)
    return folder


def module(store: Path, **options: Any) -> WindowDataModule:
    return WindowDataModule(str(store), cache=str(store.parent / "cache"), **options)


def windows(loader: Any, data: WindowDataModule) -> Iterator[tuple[tuple[str, int], dict[str, torch.Tensor]]]:
    """By id (of a panel: its first) and time of the first target, what a batch has of each window."""
    for batch in loader:
        for number in range(len(batch["y"])):
            own = {key: value[number] for key, value in batch.items()}
            series = own["series"] if own["series"].ndim == 0 else own["series"][0]
            yield (str(data.store.ids[int(series)]), int(own["time"])), own


OPTIONS = st.fixed_dictionaries(
    {
        "lookback": st.integers(1, 9),
        "horizon": st.integers(1, 5),
        "delay": st.sampled_from([0, 0, 2, -1]),
        "pad_before": st.sampled_from(["none", "repeat", "zero"]),
        "scaler": st.sampled_from(["none", "standard", "robust", "minmax"]),
        "scale_by": st.sampled_from(["channel", "series"]),
        "observed_inputs": st.booleans(),
        "category_encoding": st.sampled_from(["one_hot", "code"]),
        "target_stride": st.sampled_from([1, 1, 2]),
        "residency": st.sampled_from(["host", "stream"]),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.booleans(), st.booleans(), st.sampled_from(["cut", "ahead", "whole"]), OPTIONS)
def test_windows_ahead_are_those_that_the_whole_store_has_there(
    folder: Path, kind: str, panel: bool, future: bool, source: str, options: dict[str, Any]
) -> None:
    """Whatever the times, with and without known channels, from rows, a file or an origin in the past."""
    if panel:
        options |= {"panel": Panel(ids=["s0", "s1"]), "scale_by": "channel"}
    behind = options["delay"] < 0  # inputs of the rows of targets are known in advance then
    options["channels"] = ["u", "holiday"] if behind else ["v", "w", "word", *(["u"] if future else [])]
    options |= {"targets": ["w"], "future": ["u", "holiday"] if future else []}
    if kind in ("hour", "weekday", "month") and not (panel and kind == "hour"):
        options |= {"time_features": ["day_of_year"], "time_encoding": "index"}
    times = open_store(folder / f"{kind}_whole.zarr").schema.time
    at, first = (times.show(int(open_store(folder / f"{kind}_whole.zarr").times(row, row + 1)[0])) for row in (AT, 0))
    dates = (first, at, at, times.show(times.parse(at) + (1 << 40 if times.unit is None else 10**9)))
    whole = module(folder / f"{kind}_whole.zarr", split=Split(dates=dates), **options)
    expected = dict(windows(whole.loaders.in_order(whole.readable("test", 1)), whole))
    beside: dict[str, Any] = {"predict_from": at} if source == "whole" else {}
    if source == "cut" and (future or behind or kind == "irregular"):
        beside["future_values"] = str(folder / f"{kind}_known.csv")
    gaps = {"predict_on": "future", "future_gaps": "fill", **beside}
    data = module(folder / f"{kind}_{source}.zarr", split=Split(dates=dates), **options, **gaps)
    data.load_state_dict(whole.state_dict())
    found = dict(windows(data.predict_dataloader(), data))
    compared = 0
    for key, own in found.items():
        if key not in expected:
            assert key[0] == "s2"  # which ended before
            continue
        compared += 1
        for name in ("x", "x_future", "x_static", "x_time", "y_time", "x_pad"):
            if name in own:
                assert torch.equal(own[name], expected[key][name]), name
        if source == "whole":
            assert torch.equal(own["mask"], expected[key]["mask"])
            assert torch.equal(own["y"] * own["mask"], expected[key]["y"] * own["mask"])
        else:
            assert not own["mask"].any()
    assert compared == (1 if panel else 2)
