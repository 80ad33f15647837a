"""Every shipped configuration runs on data of its kind; tables of several; CSV files instead of stores."""

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml
from conftest import REPOSITORY, write_table
from hdf5files import session
from readings import write_readings
from scans import CHAIN, write_scans

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.stores import open_or_ingest
from lightning_app.demo.catchments import simulate, write
from zstore import Store, UsageError, ingest

App = Callable[..., subprocess.CompletedProcess[str]]
CONFIGS = sorted(path for path in (REPOSITORY / "configs").glob("*.yaml") if path.stem != "published")
AS_ON_ETTH1 = re.compile("ett(h2|m1|m2)_")  # other sizes of what runs on ETTh1 each time
SHORTER = {
    "trainer": {
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 1,
        "limit_test_batches": 2,
        "accelerator": "cpu",
    }
}

# Lightning's and jsonargparse's own warnings are theirs to fix; ours are errors in every other test.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stores like those that the configurations name, ingested by the recipes for them."""
    folder = tmp_path_factory.mktemp("stores")
    random = np.random.default_rng(0)
    for name, minutes in (("etth1", 60), ("ettm1", 15)):
        n_rows = 14_400 * 60 // minutes
        times = np.datetime64("2016-07-01", "m") + np.arange(n_rows) * minutes
        columns = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
        rows = [
            [str(time).replace("T", " ") + ":00", *values]
            for time, values in zip(times, random.integers(0, 90, (n_rows, 7)), strict=True)
        ]
        _ingest(folder, "ett", name, write_table(folder / f"{name}.csv", ["date", *columns], rows))
        (folder / f"{name[:-1]}2.zarr").symlink_to(folder / f"{name}.zarr")
    days = np.arange(np.datetime64("1992-01-01"), np.datetime64("1999-01-01"))
    rows = [[g, day, *random.gamma(1, 2, 4).round(2)] for g in ("01022500", "14400000") for day in days]
    statics = yaml.safe_load((REPOSITORY / "configs" / "camels_lstm.yaml").read_text())["data"]["statics"]
    attributes = write_table(
        folder / "attributes.csv",
        ["gauge_id", *statics],
        [[g, *random.random(len(statics)).round(3)] for g in ("01022500", "14400000")],
    )
    csv_path = write_table(folder / "camels.csv", ["gauge_id", "date", "prcp_mm", "temp_c", "pet_mm", "q_mm"], rows)
    _ingest(folder, "camels", "camels", csv_path, static=attributes)
    hours = np.datetime64("2015-11-01", "h") + np.arange(10_000)
    names = ["PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN"]
    rows = []
    for number, hour in enumerate(hours.astype(object)):
        values = ["NA" if random.random() < 0.05 else v for v in random.integers(1, 200, len(names))]
        rows.append(
            [number, hour.year, hour.month, hour.day, hour.hour, *values, "NW", round(random.random(), 1), "Dingling"]
        )
    heads = ["No", "year", "month", "day", "hour", *names, "wd", "WSPM", "station"]
    _ingest(folder, "beijing", "beijing", write_table(folder / "beijing.csv", heads, rows))
    lengths = {"H1": 748, "H2": 1008}
    rows = [
        [id_, np.datetime64("2015-07-01T12", "s") + np.timedelta64(hour, "h"), int(random.integers(10, 900))]
        for id_, n_hours in lengths.items()
        for hour in range(n_hours)
    ]
    _ingest(folder, "m4_hourly", "m4_hourly", write_table(folder / "m4.csv", ["series_id", "timestamp", "value"], rows))
    _roads(folder)
    _volumes(folder)
    _robots(folder)
    sessions = [f"{person}-{session}" for person in (12345, 21547, 45612) for session in (1, 2, 3)]
    write_readings(folder / "emg_myo", sessions)
    _ingest(folder, "emg_myo", "emg_myo", folder / "emg_myo" / "*" / "*.txt.gz")
    for number in range(10):
        session(folder / f"session{number}.h5", n_rows=12_000, seed=number)
    ingest(folder / "session*.h5", folder / "emg2pose.zarr", mapping="emg2pose")
    rows_of, places = write(simulate(n_catchments=3, n_years=8), folder)
    (folder / "demo").mkdir()
    ingest(rows_of, folder / "demo" / "catchments.zarr", id="gauge_id", time="date", static=places)
    return folder


def _roads(folder: Path) -> None:
    """Speeds of a week, a row a sensor and time, and flows of some days, a column a sensor; all at random places."""
    random = np.random.default_rng(1)
    times = [str(time).replace("T", " ") for time in np.datetime64("2012-03-01T00:00:00") + np.arange(2016) * 300]
    sensors = random.permutation(900_000)[:716] + 100_000
    speeds = random.integers(20, 70, (2016, 207))
    rows = [
        [sensor, time, speed]
        for time, of in zip(times, speeds, strict=True)
        for sensor, speed in zip(sensors, of, strict=False)
    ]
    places = [[number, sensor, *random.random(2).round(4)] for number, sensor in enumerate(sensors[:207])]
    static = write_table(folder / "sensors.csv", ["index", "sensor_id", "latitude", "longitude"], places)
    speed_of = write_table(folder / "speeds.csv", ["sensor_id", "date", "speed"], rows)
    _ingest(folder, "metr_la_long", "metr_la", speed_of, static=static)
    flow_of = write_table(
        folder / "flows.csv",
        ["time", *sensors],
        [[time, *of] for time, of in zip(times, random.integers(0, 300, (200, 716)), strict=False)],
    )
    static = write_table(
        folder / "sd.csv", ["ID", "Lat", "Lng"], [[s, *random.random(2).round(4)] for s in sensors.tolist()]
    )
    _ingest(folder, "largest_flows", "largest_sd", flow_of, static=static)


def _volumes(folder: Path) -> None:
    """Two archives' worth of small volumes in the official splits, and scans of patients."""
    random, rows = np.random.default_rng(2), []
    splits = {"train": 32, "val": 8, "test": 8}
    volumes: dict[str, Any] = {
        f"{name}_images": random.integers(0, 255, (n, 60, 60, 60)).astype(np.uint8) for name, n in splits.items()
    }
    np.savez_compressed(folder / "v.npz", **volumes)
    for name, n in splits.items():
        rows += [[name, f"{k:04}", f"v.npz/{name}_images", k, ("normal", "hyperplasia")[k % 2]] for k in range(n)]
    listed = write_table(folder / "adrenal.csv", ["split", "study", "archive", "position", "label"], rows)
    _ingest(folder, "adrenal", "adrenal", listed, file_root=folder)
    _ingest(folder, "ct_cardiac", "ct", write_scans(folder), file_root=folder, file_chain={"scan": CHAIN})


def _robots(folder: Path) -> None:
    """Episodes of Push-T as its store is made in docs/robots.md, and of ALOHA as its files are."""
    random, n_episodes, n_steps = np.random.default_rng(2), 40, 20
    n_rows = n_episodes * n_steps
    np.save(folder / "frames.npy", random.integers(0, 256, (n_rows, 96, 96, 3), dtype=np.uint8))
    widths = {"state": 5, "keypoint": 18, "action": 2}
    values = {name: random.integers(0, 512, n_rows * width).astype(np.float32) for name, width in widths.items()}
    table = {
        "episode": np.repeat([f"{number:03d}" for number in range(n_episodes)], n_steps),
        "step": np.tile(np.arange(n_steps), n_episodes),
        **{name: pa.FixedSizeListArray.from_arrays(values[name], width) for name, width in widths.items()},
        "frames": ["frames.npy"] * n_rows,
        "frame": np.arange(n_rows),
    }
    images: dict[str, Any] = {"file": {"image": "frames"}, "file_position": {"image": "frame"}, "file_root": folder}
    channels = list(widths)
    ingest(pa.table(table), folder / "pusht.zarr", id="episode", time="step", channels=channels, **images)
    (folder / "aloha").mkdir()
    for number in range(10):
        with h5py.File(folder / "aloha" / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            file["action"] = random.normal(size=(n_steps, 14)).astype(np.float32)
            for name in ("qpos", "qvel"):
                file[f"observations/{name}"] = random.normal(size=(n_steps, 14)).astype(np.float32)
            for camera in ("cam_high", "cam_left_wrist"):
                frames = random.integers(0, 256, (n_steps, 48, 64, 3), dtype=np.uint8)
                file[f"observations/images/{camera}"] = frames
    ingest(str(folder / "aloha" / "*.hdf5"), folder / "aloha.zarr", mapping="aloha")


def _ingest(folder: Path, recipe: str, name: str, path: Path, **options: Any) -> None:
    recipe_of = yaml.safe_load((REPOSITORY / "configs" / "ingest" / f"{recipe}.yaml").read_text())
    ingest(path, folder / f"{name}.zarr", **{**recipe_of, **options})


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] if AS_ON_ETTH1.match(path.stem) else [])
        for path in CONFIGS
    ],
)
def test_a_shipped_configuration_runs(config: Path, stores: Path, tmp_path: Path, app: App) -> None:
    named = yaml.safe_load(config.read_text())["data"]["store"]
    overlay: dict[str, Any] = {**SHORTER, "data": {"store": str(stores / named), "cache": str(stores / "cache")}}
    if "panel:" in config.read_text():
        overlay["data"]["batch_size"] = 2
    (tmp_path / "shorter.yaml").write_text(yaml.safe_dump(overlay))
    words = ["--config", config, "--config", tmp_path / "shorter.yaml", "--trainer.default_root_dir", tmp_path / "run"]
    if "class_path: torch.optim" in config.read_text():
        app("fit", *words, check=True)
    app("test", *words, check=True)
    found = json.loads((tmp_path / "run" / "test_metrics.json").read_text())
    if found["task"] in ("Forecast", "Policy"):
        assert np.isfinite(found["test/mse"])
        assert len(found["by_step"]["mae"]) == found["horizon"]
    else:
        assert np.isfinite(found["test/loss"])
    if found["task"] == "Classification":
        assert sum(found["by_class"]["n"]) == sum(found["confusion"]["counts"]) > 0
    if "mase_season:" in config.read_text():
        assert np.isfinite(found["test/mase"])
    if "series_scores: true" in config.read_text():
        with (tmp_path / "run" / "test_series.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert any(np.isfinite(float(row["nse"])) for row in rows)


def test_a_table_has_a_row_for_each_configuration_and_horizon_and_keeps_what_it_has(
    app: App, hourly: Store, tmp_path: Path
) -> None:
    data = {"store": hourly.path, "lookback": 48, "horizon": 24, "split": {"sizes": [1400, 300, 300]}}
    trainer = {"max_epochs": 1, "limit_train_batches": 5, "accelerator": "cpu"}
    for model in ("NLinear", "Repeat"):
        document = {"data": data, "model": {"class_path": model}, "trainer": trainer}
        (tmp_path / f"{model.lower()}.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "known.yaml").write_text("nlinear:\n  12: {mse: 0.25}\n")
    words = ["table", "--configs", "nlinear.yaml", "repeat.yaml", "--horizons", 12, "--seeds", 1, 2]
    words += ["--metrics", "mse", "mae@3", "--published", "known.yaml", "--out", "table.md"]
    words += ["--data.cache", tmp_path / "cache"]
    app(*words, check=True)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0] == "| configuration | horizon | runs | windows | MSE | published | MAE@3 |"
    assert re.fullmatch(r"\| nlinear \| 12 \| 2 \| 289 \| \d\.\d{4} ± 0\.\d{4} \| 0\.250 \| .* \|", lines[2])
    assert [line.split(" | ")[1:3] for line in lines[2:]] == [["12", "2"], ["12", "1"]]
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("test_metrics.json")}
    assert len(runs) == 3
    found = [json.loads(path.read_text()) for path in sorted(runs)]
    values = [each["test/mse"] for each in found if each["model"] == "NLinear"]
    assert values[0] != values[1]
    (repeat,) = (each["by_step"]["mae"][2] for each in found if each["model"] == "Repeat")
    assert lines[3].endswith(f"| {repeat:.4f} |")
    assert "metric mae@13" in app(*words, "--metrics", "mae@13").stderr
    before = (tmp_path / "table.md").read_text()
    app(*words, check=True)
    assert runs == {path: path.stat().st_mtime_ns for path in runs}
    assert (tmp_path / "table.md").read_text() == before


def test_a_configuration_that_is_edited_while_it_runs_is_run_again_by_the_next_table(
    app: App, hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"store": hourly.path, "lookback": 48, "horizon": 24, "split": {"sizes": [1400, 300, 300]}}
    config, runs = tmp_path / "repeat.yaml", []
    config.write_text(yaml.safe_dump({"data": data, "model": {"class_path": "Repeat"}}))

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        done = app(*words[3:])  # in this process
        runs.append(config.read_text())
        if len(runs) == 1:
            config.write_text(runs[0].replace("lookback: 48", "lookback: 24"))
        return done

    monkeypatch.setattr("lightning_app.table.subprocess.run", run)
    for _ in range(3):
        app("table", "--configs", "repeat.yaml", "--out", "table.md", "--data.cache", tmp_path / "cache", check=True)
    assert len(runs) == 2


def test_a_run_of_a_table_that_fails_is_told(app: App, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "data: {store: none.zarr, lookback: 2, horizon: 1}\nmodel: {class_path: Repeat}\n"
    )
    done = app("table", "--configs", "bad.yaml", "--out", "table.md")
    assert done.returncode == 2
    assert "test of bad failed: lightning_app: no store" in done.stderr
    (tmp_path / "none.yaml").write_text("model: {class_path: NoSuchModel}\n")
    done = app("table", "--configs", "none.yaml", "--out", "table.md")
    assert "expected a configuration that names a model" in done.stderr


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    rows = [[f"a{n % 2}", n // 2, n / 2] for n in range(200)]
    return write_table(tmp_path / "readings.csv", ["id", "t", "v"], rows)


def test_a_csv_is_ingested_once_and_again_only_if_it_changed(
    readings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning_app")
    cache = str(tmp_path / "cache")

    def opened() -> tuple[str, int]:
        caplog.clear()
        data = WindowDataModule(str(readings), 5, 2, ingest={"id": "id", "time": "t"}, cache=cache)
        return data.store.schema.uuid, data.store.n_rows

    first = opened()
    assert "not ingested yet" in caplog.text
    assert opened() == first
    assert caplog.text == ""
    readings.touch()
    assert opened() == first
    assert caplog.text == ""
    with readings.open("a") as file:
        file.write("a1,100,7\n")
    changed = opened()
    assert f"{readings} changed; ingesting it into" in caplog.text
    assert changed[0] != first[0]
    assert changed[1] == 201


def test_a_csv_is_ingested_by_a_recipe_and_its_attributes_count_too(readings: Path, tmp_path: Path) -> None:
    attributes = write_table(tmp_path / "places.csv", ["id", "height"], [["a0", 5], ["a1", 7]])
    (tmp_path / "recipe.yaml").write_text(f"id: id\ntime: t\nstatic: {attributes}\n")
    store = open_or_ingest(str(readings), str(tmp_path / "recipe.yaml"), tmp_path, None)
    assert store.static("height").values.tolist() == [5, 7]
    write_table(attributes, ["id", "height"], [["a0", 6], ["a1", 7]])
    store = open_or_ingest(str(readings), str(tmp_path / "recipe.yaml"), tmp_path, None)
    assert store.static("height").values.tolist() == [6, 7]


def test_an_ingest_that_cannot_be_meant_is_refused_and_leaves_nothing(readings: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.ingest with 'identity'; expected some of"):
        open_or_ingest(str(readings), {"identity": "id"}, tmp_path, None)
    with pytest.raises(UsageError, match=r"No such file.*a YAML file of names and plain values"):
        open_or_ingest(str(readings), str(tmp_path / "none.yaml"), tmp_path, None)
    with pytest.raises(UsageError, match="files of rows, such as CSV or Parquet, since a store is ingested already"):
        open_or_ingest(str(tmp_path), {"id": "id"}, tmp_path, None)
    with pytest.raises(UsageError, match="no column 'when'"):
        open_or_ingest(str(readings), {"id": "id", "time": "when"}, tmp_path, None)
    assert not list((tmp_path / "stores").glob("*.json"))
    assert open_or_ingest(str(readings), {"id": "id", "time": "t"}, tmp_path, None).n_rows == 200
