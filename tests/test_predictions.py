"""Predictions as a data set: ids, times and steps are coordinates, and what was observed lies beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import xarray
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.views import Panel
from lightning_app.prediction_arrays import class_variables, observed_variables, target_variables
from lightning_app.predictions import PredictionWriter
from zstore import Store, ingest, open_store

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's


class Last(pl.LightningModule):
    """Forecasts the last input plus 100."""

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        n_targets = batch["y"].shape[-1]
        last: torch.Tensor = batch["x"][:, -1:, ..., :n_targets] + 100
        return last.expand(batch["y"].shape).double()


def predicted(folder: Path, **options: Any) -> xarray.Dataset:
    data = WindowDataModule(
        str(folder / "s.zarr"), 2, 3, cache=str(folder / "c"), split=Split(sizes=(10, 8, 12)), scaler="none", **options
    )
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    writer = PredictionWriter(folder)
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[writer], **quiet)
    trainer.predict(Last(), datamodule=data, return_predictions=False)
    dataset: xarray.Dataset = xarray.open_zarr(writer.target).load()
    return dataset


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three series of 30 days: a number with gaps, a large number that only float64 holds, and words."""
    start, rows = np.datetime64("2001-01-01"), []
    for n in range(3):
        for day in range(30):
            value = "" if (day + n) % 4 == 0 else day + n / 10
            rows.append([f"s{n}", start + np.timedelta64(day, "D"), value, 2**40 + day / 8, "xyz"[day % 3]])
    source = write_table(tmp_path / "r.csv", ["id", "t", "v", "big", "word"], rows)
    ingest(source, tmp_path / "s.zarr", id="id", time="t", dtype="float64", units={"v": "mm"}, workers=1)
    return open_store(tmp_path / "s.zarr")


def test_a_row_of_the_frame_has_an_id_a_time_and_a_step_and_both_values(store: Store, tmp_path: Path) -> None:
    dataset = predicted(tmp_path)
    assert set(dataset.coords) == {"id", "time", "step"}
    assert sorted(map(str, dataset.data_vars)) == ["big", "big_observed", "v", "v_observed"]
    assert dataset["step"].values.tolist() == [1, 2, 3]
    assert (dataset["v"].attrs["units"], dataset["v_observed"].attrs["units"]) == ("mm", "mm")
    frame = dataset.to_dataframe().reset_index().set_index(["id", "time", "step"])
    assert len(frame) == 3 * 10 * 3 == len(frame.index.unique())
    for id_ in store:
        rows = store[id_].to_pandas()
        mine = frame.loc[id_].reset_index()
        for name in ("v", "big"):
            expected = rows[name].reindex(mine["time"]).to_numpy()
            np.testing.assert_array_equal(mine[f"{name}_observed"], expected)
        before = rows["big"].reindex(mine["time"] - pd.to_timedelta(mine["step"], unit="D")).to_numpy()
        np.testing.assert_allclose(mine["big"], before + 100)


def test_predictions_of_a_panel_lie_beside_what_was_observed(store: Store, tmp_path: Path) -> None:
    dataset = predicted(tmp_path, panel=Panel(), targets=["v"])
    assert dataset["v_observed"].dims == ("window", "step", "series")
    frame = dataset.to_dataframe().reset_index()
    assert {"id", "time", "step", "v", "v_observed"} <= set(frame)
    for id_ in store:
        mine = frame[frame["id"] == id_]
        np.testing.assert_array_equal(mine["v_observed"], store[id_].to_pandas()["v"].reindex(mine["time"]).to_numpy())


def test_predictions_survive_netcdf_with_their_coordinates(store: Store, tmp_path: Path) -> None:
    dataset = predicted(tmp_path, targets=["v"])
    dataset.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "p.nc", engine="h5netcdf") as again:
        assert set(again.coords) == {"id", "time", "step"}
        assert again["id"].values.astype(str).tolist() == dataset["id"].values.astype(str).tolist()
        np.testing.assert_array_equal(again["v_observed"].values, dataset["v_observed"].values)


@settings(max_examples=few(30))
@given(
    st.lists(
        st.sampled_from(
            ["v", "V", "v_observed", "v_observed_observed", "step", "id_predicted", "v_class", "v_probability"]
        ),
        unique=True,
    )
)
def test_every_array_has_a_name_of_its_own(variables: list[str]) -> None:
    class Named:
        def channel(self, name: str) -> Any:
            return type("Channel", (), {"variable": name})

    names = target_variables(Named(), variables)  # type: ignore[arg-type]
    classes = class_variables(names)
    everyone = [*names, *observed_variables(names), *classes, "id", "time", "step", "window", "series"]
    everyone += [f"{name.removesuffix('_class')}_probability" for name in classes]
    everyone = [name.lower() for name in everyone]
    assert len(everyone) == len(set(everyone))
