"""What is shown of a store or of predictions elsewhere: other packages' tables, older versions, names that collide."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import yaml
from conftest import write_table

from lightning_app.batch import BatchShape
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models import GRU, LSTM
from zstore import NotFoundError, UsageError, append, export, ingest, open_store

App = Callable[..., Any]


def n_weights(model: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


@pytest.mark.parametrize("model", [LSTM, GRU])
def test_a_recurrent_model_without_input_layer_is_torchs_own_and_a_head(model: type[LSTM]) -> None:
    shape = BatchShape(6, 2, 0, n_inputs=3, n_targets=1, target_inputs=[0], n_static=1)
    built = model(shape, hidden=8, input_layer=False)
    assert n_weights(built) == n_weights(type(built.recurrent)(4, 8)) + n_weights(torch.nn.Linear(8, 2))
    x, statics = torch.randn(5, 6, 3), torch.randn(5, 1)
    batch: Any = {"x": x, "x_static": statics, "y": torch.zeros(5, 2, 1)}
    columns = torch.cat([x, statics[:, None].expand(-1, 6, -1)], dim=-1)
    expected = built.head(built.recurrent(columns)[0][:, -1]).reshape(5, 2, 1)
    torch.testing.assert_close(built(batch), expected)


def test_an_lstm_has_an_input_layer_unless_told_otherwise_so_older_checkpoints_load() -> None:
    shape = BatchShape(6, 1, 0, n_inputs=1, n_targets=1, target_inputs=[0])
    assert n_weights(LSTM(shape)) - n_weights(LSTM(shape).head) == 33_408
    assert "past.weight" in LSTM(shape).state_dict()


def test_an_lstm_without_input_layer_refuses_channels_known_in_advance() -> None:
    shape = BatchShape(6, 2, 0, n_inputs=3, n_targets=1, target_inputs=[0], n_future=2)
    with pytest.raises(UsageError, match="input_layer false and 2 channels known in advance"):
        LSTM(shape, input_layer=False)


def two_versions(folder: Path) -> Path:
    """A store whose second version has other decimals, another word and more rows."""
    rows = [[id_, step, step + number, "ab"[step % 2]] for number, id_ in enumerate("pq") for step in range(20)]
    ingest(write_table(folder / "1.csv", ["id", "t", "v", "w"], rows), folder / "s.zarr", id="id", time="t")
    more = [[id_, step, step + 0.25, "c"] for id_ in "pqr" for step in range(20, 30)]
    append(write_table(folder / "2.csv", ["id", "t", "v", "w"], more), folder / "s.zarr")
    return folder / "s.zarr"


def test_the_data_module_reads_the_version_that_it_is_told(tmp_path: Path) -> None:
    store = two_versions(tmp_path)
    sizes: dict[int | None, tuple[int, int]] = {}
    for version in (1, 2, None):
        data = WindowDataModule(str(store), 2, 1, cache=str(tmp_path / "cache"), version=version)
        sizes[version] = data.store.version, data.store.n_rows
    assert sizes == {1: (1, 40), 2: (2, 70), None: (2, 70)}
    with pytest.raises(NotFoundError, match="no version 3; expected one of 1, 2"):
        WindowDataModule(str(store), 2, 1, cache=str(tmp_path / "cache"), version=3)
    with pytest.raises(UsageError, match=r"--data\.version 1 of .*1\.csv"):
        WindowDataModule(str(tmp_path / "1.csv"), 2, 1, cache=str(tmp_path / "cache"), version=1)


@pytest.mark.filterwarnings("default")
def test_predictions_of_an_older_version_survive_netcdf_with_ids_as_python_strings(app: App, tmp_path: Path) -> None:
    """Channels are called like dimensions and coordinates of the predictions, and were recoded later."""
    header = ["site", "t", "id", "time", "window", "id_predicted"]
    rows = [[f"s{n}é", step, step % 7, n, step / 10, step] for n in range(3) for step in range(40)]
    ingest(write_table(tmp_path / "1.csv", header, rows), tmp_path / "s.zarr", id="site", time="t")
    more = [[f"s{n}é", step, 0.125, 0.125, 0.125, 0.125] for n in range(4) for step in range(40, 50)]
    append(write_table(tmp_path / "2.csv", header, more), tmp_path / "s.zarr")
    document = {
        "data": {
            "store": str(tmp_path / "s.zarr"),
            "lookback": 4,
            "horizon": 2,
            "split": {"sizes": [0.6, 0.2, 0.2]},
            "scaler": "none",
            "cache": str(tmp_path / "cache"),
        },
        "model": {"class_path": "Repeat"},
        "trainer": {"accelerator": "cpu"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document))
    app("predict", "--config", "r.yaml", "--data.version", "1", check=True)
    predicted = xarray.open_zarr(tmp_path / "runs" / "r" / "predictions.zarr").load()
    names = {predicted[name].attrs["long_name"]: name for name in predicted}
    assert sorted(names) == sorted([*header[2:], *(f"{name}, observed" for name in header[2:])])
    names = {name: names[name] for name in header[2:]}
    assert predicted.attrs["source_version"] == 1
    old = open_store(tmp_path / "s.zarr", 1)
    for id_ in ("s0é", "s2é"):
        one = predicted.where(predicted["id"] == id_, drop=True)
        assert set(one["id"].values.astype(str)) == {id_}
        first = one["time"].values[:, 0].astype(int)
        for channel, name in names.items():
            expected = old.series(id_).read(channel)[first - 1]
            np.testing.assert_array_equal(one[name].values[:, 0], expected)
    predicted.to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "p.nc", engine="h5netcdf") as again:
        again["id"] = again["id"].astype(object)
        xarray.testing.assert_equal(again.load(), predicted)
        assert {key: str(value) for key, value in again.attrs.items()} == {
            key: str(value) for key, value in predicted.attrs.items()
        }


def test_xarray_has_the_rows_of_each_version_though_an_append_recoded_channels_and_brought_late_rows(
    tmp_path: Path,
) -> None:
    path = two_versions(tmp_path)
    late = write_table(tmp_path / "3.csv", ["id", "t", "v", "w"], [["p", -1, 0.5, "a"]])
    append(late, path)
    expected = {1: 40, 2: 70, 3: 71}
    for version, n_rows in expected.items():
        store = open_store(path, version)
        dataset = store.to_xarray()
        assert dataset.sizes["row"] == n_rows
        assert dataset["v"].chunks is not None
        start = 0
        for id_, size in zip(dataset["id"].values, dataset["row_size"].values, strict=True):
            one, series = dataset.isel(row=slice(start, start + int(size))), store.series(id_)
            assert one["time"].values.tolist() == series.times().tolist()
            assert one["v"].values.tolist() == series.read("v").tolist()
            start += int(size)
    words = open_store(path, 3).to_xarray(words=True)["w"].values.tolist()
    assert words[:3] == ["a", "a", "b"]
    assert words[-1] == "c"


def test_categories_are_categorical_in_pandas_flags_in_xarray_and_enum_in_polars(tmp_path: Path) -> None:
    rows = [["a", 0, "low"], ["a", 1, ""], ["a", 2, "high water"]]
    ingest(write_table(tmp_path / "1.csv", ["id", "t", "w"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    series = store.series("a")
    frame = series.to_pandas()["w"]
    assert frame.dtype == "category"
    assert [word if isinstance(word, str) else None for word in frame] == ["low", None, "high water"]
    assert series.to_polars()["w"].to_list() == ["low", None, "high water"]
    categories = list(store.channel("w").categories or ())
    for dataset in (series.to_xarray(), store.to_xarray()):
        codes = dataset["w"]
        assert codes.dtype.kind == "i"
        assert [None if code < 0 else categories[code] for code in codes.values] == ["low", None, "high water"]
        assert json.loads(codes.attrs["categories"]) == categories
        assert codes.attrs["flag_values"].tolist() == [0, 1]
        assert set(codes.attrs["flag_meanings"].split()) == {"low", "high_water"}
    for dataset in (series.to_xarray(words=True), store.to_xarray(words=True)):
        assert dataset["w"].isnull().values.tolist() == [False, True, False]
        assert dataset["w"].values[::2].tolist() == ["low", "high water"]


@pytest.mark.parametrize("step", ["D", "h", "W", "ms", "ns"])
def test_polars_has_the_times_of_daily_hourly_weekly_and_finer_stores(tmp_path: Path, step: Any) -> None:
    times = np.datetime64("2001-01-01", step) + 7 * np.arange(5)
    rows = [["a", time, n] for n, time in enumerate(times)]
    ingest(write_table(tmp_path / "1.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    frame = open_store(tmp_path / "s.zarr").series("a").to_polars()
    assert np.array_equal(frame["time"].to_numpy(), times)


def test_a_channel_called_time_and_an_id_column_called_time_stay_apart_in_every_view(tmp_path: Path) -> None:
    header, rows = ["id", "t", "time", "row", "row_size"], [["a", 0, 5, 7, 1], ["a", 1, 6, 8, 2], ["b", 0, 9, 9, 3]]
    ingest(write_table(tmp_path / "1.csv", header, rows), tmp_path / "1.zarr", id="id", time="t")
    store = open_store(tmp_path / "1.zarr")
    dataset, frame, polar = store.to_xarray(), store.series("a").to_pandas(), store.series("a").to_polars()
    assert (dataset["time"].values.tolist(), dataset["time_"].values.tolist()) == ([5, 6, 9], [0, 1, 0])
    assert (dataset["row"].values.tolist(), dataset["row_size_"].values.tolist()) == ([7, 8, 9], [2, 1])
    assert (frame["time"].tolist(), frame.index.tolist(), frame.index.name) == ([5, 6], [0, 1], "time_")
    assert (polar["time"].to_list(), polar["time_"].to_list()) == ([5, 6], [0, 1])
    one = store.series("a").to_xarray()
    assert (one["time"].values.tolist(), one["time_"].values.tolist()) == ([5, 6], [0, 1])
    export(store, tmp_path / "out.csv")
    ingest(tmp_path / "out.csv", tmp_path / "2.zarr", id="id", time="time_")
    assert open_store(tmp_path / "2.zarr").channels == store.channels
    named = [["a", 0, 5], ["a", 1, 6]]
    ingest(write_table(tmp_path / "3.csv", ["time", "t", "v"], named), tmp_path / "3.zarr", id="time", time="t")
    export(open_store(tmp_path / "3.zarr"), tmp_path / "3.csv", overwrite=True)
    ingest(tmp_path / "3.csv", tmp_path / "4.zarr", id="time", time="time_")
    assert open_store(tmp_path / "4.zarr").ids.tolist() == ["a"]
    assert open_store(tmp_path / "4.zarr").series("a").read("v").tolist() == [5, 6]


def test_a_store_survives_netcdf_and_ids_can_be_compared(tmp_path: Path) -> None:
    path = two_versions(tmp_path)
    dataset = open_store(path).to_xarray()
    assert dataset["row_size"].where(dataset["id"] == "q", drop=True).values.tolist() == [30]
    dataset.to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    again = xarray.load_dataset(tmp_path / "s.nc", engine="h5netcdf")
    assert again["id"].values.tolist() == dataset["id"].values.tolist()
    for name in ("time", "v", "row_size"):
        np.testing.assert_array_equal(again[name].values, dataset[name].values)
    assert json.loads(again["w"].attrs["categories"]) == ["a", "b", "c"]
    assert np.array_equal(again["w"].values, dataset["w"].values)


def test_parts_of_a_lazy_dataset_are_those_of_the_whole(tmp_path: Path) -> None:
    values = open_store(two_versions(tmp_path)).to_xarray()["v"]
    whole = values.values
    for part in (slice(3, 50, 7), slice(None, None, -1), slice(69, 2, -5), slice(5, 5), 12, -1, [60, 1, 1]):
        assert np.array_equal(values.isel(row=part).values, whole[part])
