"""Some series of a store, chosen by ids, patterns or an attribute: as if the store had no others."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import yaml
from conftest import few, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lightning_app
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.splits import Split
from lightning_app.data.windows.subset import SeriesSubset
from zstore import Store, UsageError, ingest, open_store

App = Callable[..., subprocess.CompletedProcess[str]]

IDS = [f"s{n}" for n in range(8)]
REGIONS = ["north", "south", "north", "east", "south", "north", "east", "north"]
SPLITS: list[dict[str, Any]] = [
    {"dates": ("0", "24", "32", "44")},
    {"over": "series", "sizes": (0.5, 0.2, 0.3)},
    {"over": "series", "sizes": (-1, 6, 8)},
    {"by": "series", "sizes": (0.5, 0.25, 0.25), "seed": 3},
    {"by": "series", "folds": 3, "fold": 1},
    {"by": "series", "sizes": (0.4, 0.3, 0.3), "group": "region"},
    {"by": "both", "dates": ("0", "24", "32", "44"), "series_sizes": (0.4, 0.3, 0.3)},
    {"by": "series", "attribute": "region", "values": {"train": ["north"], "val": ["south"], "test": ["east"]}},
    {"by": "series", "ids": {"train": ["s0", "s1", "s5"], "val": ["s2", "s6"], "test": ["s3", "s4", "s7"]}},
]


def write(folder: Path, ids: list[str]) -> Store:
    """Series of different lengths and levels, with holes; of each the same rows, whichever others there are."""
    rows = []
    for id_ in ids:
        number = int(id_[1:])
        random = np.random.default_rng(number)
        for step in range(30 + 2 * number):
            value = "" if random.random() < 0.1 else f"{random.normal(10 * number, number + 1):.2f}"
            rows.append([id_, step, value, f"{random.normal():.2f}"])
    statics = write_table(
        folder / "a.csv", ["id", "region", "size"], [[id_, REGIONS[int(id_[1:])], id_[1:]] for id_ in ids]
    )
    table = write_table(folder / "r.csv", ["id", "t", "level", "rain"], rows)
    ingest(table, folder / "s.zarr", id="id", time="t", static=statics, overwrite=True)
    return open_store(folder / "s.zarr")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write(tmp_path_factory.mktemp("whole"), IDS)


def module(store: Store, folder: Path, **options: Any) -> WindowDataModule:
    given = {"lookback": 4, "horizon": 2, "targets": ["level"], "statics": ["size"], "batch_size": 64, **options}
    return WindowDataModule(str(store.path), cache=str(folder / "cache"), **given)


def windows(data: WindowDataModule, part: str) -> dict[str, Any] | str:
    """Windows of a part by id and time, each with all its values; or that it is refused."""
    loaders: dict[str, Callable[[], Any]] = {
        "train": data.train_dataloader,
        "val": data.val_dataloader,
        "test": data.test_dataloader,
        "predict": data.predict_dataloader,
    }
    try:
        loader = loaders[part]()
    except UsageError:
        return "refused"
    found = {}
    for batch in loader:
        for n in range(len(batch["y"])):
            id_ = str(data.store.ids[int(batch["series"][n])])
            values = {name: value[n] for name, value in batch.items() if name not in ("series", "time")}
            found[f"{id_} {int(batch['time'][n])}"] = {name: value.tolist() for name, value in values.items()}
    return found


def without_others(split: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    """A split that names only what is there: ids, and values of region that some of them have."""
    there = {"ids": set(ids), "values": {REGIONS[int(id_[1:])] for id_ in ids}}
    named = {
        key: {part: [name for name in names if name in there[key]] for part, names in split[key].items()}
        for key in there
        if key in split
    }
    return {**split, **named}


@settings(max_examples=few(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    chosen=st.sets(st.sampled_from(IDS), min_size=3),
    split=st.sampled_from(SPLITS),
    scale_by=st.sampled_from(["channel", "series"]),
    predict_on=st.sampled_from(["train", "test", "future"]),
)
def test_chosen_series_have_the_windows_and_scalers_of_a_store_without_the_others(
    chosen: set[str],
    split: dict[str, Any],
    scale_by: str,
    predict_on: str,
    whole: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, ids = tmp_path_factory.mktemp("alone"), sorted(chosen)
    options: dict[str, Any] = {"scale_by": scale_by, "predict_on": predict_on}
    ours = module(whole, folder, series=SeriesSubset(ids=ids), split=Split(**split), **options)
    theirs = module(write(folder, ids), folder, split=Split(**without_others(split, ids)), **options)
    for part in ("train", "val", "test", "predict"):
        assert windows(ours, part) == windows(theirs, part), part
    if isinstance(windows(ours, "train"), dict):
        kept = slice(None) if scale_by == "channel" else [whole.position(id_) for id_ in ids]
        np.testing.assert_array_equal(ours.scaler.offset[kept], theirs.scaler.offset)
        np.testing.assert_array_equal(ours.scaler.scale[kept], theirs.scaler.scale)


def test_ids_patterns_files_and_attributes_choose_series(whole: Store, tmp_path: Path) -> None:
    (tmp_path / "basins.txt").write_text("s1\ns4\n")
    for subset, expected in (
        (SeriesSubset(ids=["s6", "s1"]), ["s1", "s6"]),
        (SeriesSubset(ids=["?7", "s2"]), ["s2", "s7"]),
        (SeriesSubset(ids=str(tmp_path / "basins.txt")), ["s1", "s4"]),
        (SeriesSubset(attribute="region", values=["east", "south"]), ["s1", "s3", "s4", "s6"]),
        (SeriesSubset(attribute="size", values=[0, 5]), ["s0", "s5"]),
    ):
        assert whole.ids[subset.members(whole)].tolist() == expected


def test_series_that_are_not_there_are_refused_by_name(whole: Store) -> None:
    with pytest.raises(UsageError, match=r"--data\.series\.ids.*s9"):
        SeriesSubset(ids=["s9"]).members(whole)
    with pytest.raises(UsageError, match="no series whose id fits 'x"):
        SeriesSubset(ids=["x*"]).members(whole)
    with pytest.raises(UsageError, match="no series has region west"):
        SeriesSubset(attribute="region", values=["west"]).members(whole)
    with pytest.raises(UsageError, match="no series"):
        SeriesSubset(ids=[]).members(whole)
    for half in ({"attribute": "region"}, {"values": ["east"]}, {}, {"ids": ["s1"], "attribute": "a", "values": [1]}):
        with pytest.raises(UsageError, match=r"--data\.series"):
            SeriesSubset(**half)


def test_a_panel_of_chosen_series_is_the_panel_that_names_them(whole: Store, tmp_path: Path) -> None:
    options = {"split": Split(dates=("0", "20", "25", "30")), "statics": []}
    ours = module(whole, tmp_path, series=SeriesSubset(attribute="region", values=["east"]), panel=Panel(), **options)
    theirs = module(whole, tmp_path, panel=Panel(attribute="region", values=["east"]), **options)
    assert ours.view.nodes is not None
    assert ours.view.nodes.tolist() == [3, 6]
    for one, other in zip(ours.test_dataloader(), theirs.test_dataloader(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)  # type: ignore[literal-required]
    with pytest.raises(UsageError, match=r"--data\.series and by --data\.panel"):
        module(whole, tmp_path, series=SeriesSubset(ids=["s1"]), panel=Panel(ids=["s2"]), **options)


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_a_checkpoint_of_some_series_is_tested_on_others_unless_each_has_its_own_scaler(
    app: App, whole: Store, tmp_path: Path
) -> None:
    document = {
        "data": {
            "store": str(whole.path),
            "lookback": 4,
            "horizon": 2,
            "targets": ["level"],
            "split": {"dates": ["0", "20", "25", "44"]},
            "series": {"ids": ["s0", "s1", "s2"]},
            "cache": str(tmp_path / "cache"),
        },
        "model": {"class_path": "NLinear"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(document))
    app("run", "--config", "n.yaml", check=True)
    folder = tmp_path / "runs" / "n"
    assert set(xarray.open_zarr(folder / "predictions.zarr")["id"].values.tolist()) == {"s0", "s1", "s2"}
    assert lightning_app.load(folder).forecast()["id"].unique().tolist() == ["s0", "s1", "s2"]
    assert lightning_app.load(folder).forecast(ids=["s7"])["id"].unique().tolist() == ["s7"]
    elsewhere = write(tmp_path, ["s3", "s5"])
    assert lightning_app.load(folder).forecast(elsewhere)["id"].unique().tolist() == ["s3", "s5"]
    others = ("--data.series.ids", "[s3, s4]")
    app("test", "--config", "n.yaml", *others, check=True)
    expected = len(module(whole, tmp_path, split=Split(dates=("0", "20", "25", "44"))).index("test"))
    found = json.loads((folder / "test_metrics.json").read_text())["n_windows"]
    assert 0 < found < expected
    app("fit", "--config", "n.yaml", "--data.scale_by", "series", check=True)
    app("test", "--config", "n.yaml", check=True)
    refused = app("test", "--config", "n.yaml", *others)
    assert refused.returncode == 2
    assert "2 series without a scaler that the model has never seen ('s3', 's4')" in refused.stderr
