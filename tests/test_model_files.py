"""Every shipped model as a file that needs none of this package."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from model_files import CASES, Case, case_of, write_places, write_scenes, write_times

import lightning_app
import lightning_app.export.program as program
from lightning_app import models
from lightning_app.batch import Batch
from lightning_app.data.columns.calendar import PER_SECOND, TimeFeature, time_cycles, time_index
from lightning_app.export.export import Export, Exported, export_model
from lightning_app.export.program import Format
from lightning_app.intervals import Intervals
from lightning_app.models import NLinear
from lightning_app.radii import Radii
from zstore import UsageError, open_store

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and torch's own

App = Callable[..., subprocess.CompletedProcess[str]]
ALWAYS = ["LSTM", "panel"]
"""What is exported in every run of the tests; all others take minutes."""
Unit = Literal["s", "ns"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_places(folder)
    write_scenes(folder)
    write_times(folder)
    return folder


def exported(case: Case, format_: Format, stores: Path, folder: Path, **options: Any) -> Exported:
    data = case.module(stores)
    return export_model(case.build(data), data, Export(format_, windows=20, **options), folder)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_model_gives_in_onnxruntime_what_it_gives_in_pytorch(name: str, stores: Path, tmp_path: Path) -> None:
    assert exported(CASES[name], "onnx", stores, tmp_path).difference <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("format_", ["onnx", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_every_shipped_model_and_task_is_exported(name: str, format_: Format, stores: Path, tmp_path: Path) -> None:
    assert exported(CASES[name], format_, stores, tmp_path).difference <= 1e-5


class Calendar(torch.nn.Module):
    """All time features of times, as numbers and as cycles."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {}
        for unit in get_args(Unit):
            times = inputs["times"] * PER_SECOND[unit] + PER_SECOND[unit] // 3
            for feature in get_args(TimeFeature):
                found[f"{feature}_{unit}"] = time_index(times, feature, unit, 900)
                if feature != "time_of_day":
                    found[f"{feature}_{unit}_cycles"] = time_cycles(times, feature, unit)
        return found


def test_onnxruntime_knows_the_calendar_to_the_second(tmp_path: Path) -> None:
    calendar = Calendar()
    traced = program.traced(calendar, {"times": torch.zeros(2, 3, dtype=torch.int64)}, "a calendar")
    seconds = np.random.default_rng(0).integers(-3_000_000_000, 4_000_000_000, (9000, 3))
    seconds[:3000] -= seconds[:3000] % 3600
    times = torch.from_numpy(seconds)
    expected = {name: part.numpy() for name, part in calendar({"times": times}).items()}
    about = {"inputs": {"times": {}}, "outputs": dict.fromkeys(expected)}
    program.write_onnx(traced, about, tmp_path / "calendar.onnx", "a calendar")
    found = program.opened(tmp_path / "calendar.onnx", "onnx").run({"times": times.numpy()})
    assert len(found) == 2 * 9
    for name, part in expected.items():
        np.testing.assert_allclose(found[name], part, rtol=0, atol=1e-6 if "cycles" in name else 0, err_msg=name)


@pytest.fixture(scope="module")
def by_hand(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A session of a file whose series have scalers of their own, and inputs of its windows."""
    folder = tmp_path_factory.mktemp("files")
    data = Case("MLP", {"scale_by": "series", "future": ["rain"], "statics": ["height", "soil"]}, {"hidden": 5})
    found = exported(data, "onnx", stores, folder)
    random = np.random.default_rng(3)
    inputs = {
        "x": random.normal(3, 2, (5, 24, 2)),
        "x_future": random.gamma(1, 3, (5, 3, 1)),
        "x_static": np.array([[30.0, 0.0]] * 5),
        "series": np.array([0, 1, 2, 3, 0]),
    }
    return onnxruntime.InferenceSession(found.path), inputs


def predictions(session: Any, inputs: dict[str, Any], **changed: Any) -> Any:
    return session.run(["predictions"], {**inputs, **changed})[0]


def test_a_file_names_inputs_and_outputs_and_says_what_they_are(by_hand: Any) -> None:
    session, inputs = by_hand
    assert {each.name: each.shape[0] for each in session.get_inputs()} == dict.fromkeys(inputs, "batch")
    assert [each.name for each in session.get_outputs()] == ["predictions"]
    about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert (about["model"], about["lookback"], about["horizon"], about["step"]) == ("MLP", 24, 3, "1d")
    assert (about["channels"], about["future"], about["targets"]) == (["level", "rain"], ["rain"], ["level"])
    assert (about["statics"], about["static_words"]) == (["height", "soil"], {"soil": ["clay", "sand"]})
    assert about["series"] == ["p0", "p1", "p2", "p3"]
    assert about["inputs"]["x"] == {
        "dtype": "float64",
        "axes": ["batch", "lookback", "channel"],
        "shape": [None, 24, 2],
    }
    assert about["outputs"]["predictions"]["axes"] == ["batch", "horizon", "target"]


def test_windows_are_forecast_alike_in_batches_of_any_size(by_hand: Any) -> None:
    session, inputs = by_hand
    whole = predictions(session, inputs)
    for window in range(5):
        own = predictions(session, {name: part[window : window + 1] for name, part in inputs.items()})
        np.testing.assert_allclose(own[0], whole[window], rtol=1e-5)


def test_what_is_missing_is_read_as_the_training_mean_of_its_series(by_hand: Any, stores: Path) -> None:
    session, inputs = by_hand
    data = Case("MLP", {"scale_by": "series", "future": ["rain"]}).module(stores)
    holes = inputs["x"].copy()
    holes[:, 4, 0] = np.nan
    means = holes.copy()
    means[:, 4, 0] = data.scaler.offset[inputs["series"], 0]
    np.testing.assert_allclose(predictions(session, inputs, x=holes), predictions(session, inputs, x=means), rtol=1e-6)
    assert not np.allclose(predictions(session, inputs, x=holes), predictions(session, inputs))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e60])
def test_a_window_with_what_no_model_can_read_is_nan_and_others_are_not(by_hand: Any, value: float) -> None:
    session, inputs = by_hand
    wrong = inputs["x"].copy()
    wrong[2, 7, 1] = value
    found = predictions(session, inputs, x=wrong)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(predictions(session, inputs), 2, 0))


@pytest.mark.parametrize("number", [-1, 4, 1 << 40])
def test_a_number_that_no_series_has_gives_nan_and_not_the_forecast_of_another(by_hand: Any, number: int) -> None:
    session, inputs = by_hand
    assert np.isnan(predictions(session, inputs, series=np.array([0, number, 2, 3, 0]))[1]).all()


def test_a_series_that_the_model_has_never_seen_has_the_scaler_of_all_others(stores: Path, tmp_path: Path) -> None:
    data = Case("NLinear", {"scale_by": "series", "unknown": "own_column"}).module(stores)
    model = NLinear(data.shape).eval()
    found = export_model(model, data, Export("onnx", windows=8), tmp_path)
    x = np.random.default_rng(1).normal(3, 2, (1, 24, 2))
    (predicted,) = onnxruntime.InferenceSession(found.path).run(None, {"x": x, "series": np.array([4])})
    others = data.meaning.other_series
    assert others is not None
    offset, scale = (np.array(each) for each in others)
    scaled: Any = {"x": torch.from_numpy((x - offset) / scale).float()}
    with torch.no_grad():
        expected = model(scaled).numpy() * scale[:1] + offset[:1]
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)


@pytest.fixture
def run_folder(app: App, stores: Path, tmp_path: Path) -> Path:
    """A fitted run, beside its configuration."""
    document = {
        "data": {
            "store": str(stores / "places.zarr"), "lookback": 24, "horizon": 3, "channels": ["level", "rain"],
            "targets": ["rain"], "split": {"sizes": [0.6, 0.2, 0.2]}, "scaler": {"rain": "log1p"},
            "cache": str(stores / "cache"),
        },
        "model": {"class_path": "NLinear"},
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu"},
        "export": {"windows": 9},
    }  # fmt: skip
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(document))
    app("fit", "--config", "n.yaml", check=True)
    return tmp_path / "runs" / "n"


def test_the_command_and_python_export_what_a_run_forecasts(
    app: App, run_folder: Path, stores: Path, tmp_path: Path
) -> None:
    done = app("export", "--config", "n.yaml", check=True)
    said = re.search(r"wrote runs/n/model\.onnx: at most (\S+) from PyTorch in 9 windows of test", done.stdout)
    assert said is not None
    assert float(said[1]) <= 1e-5
    app("export", "--config", "n.yaml", "--export.format", "torch", "--export.path", "n.pt2", check=True)
    forecaster = lightning_app.load(run_folder)
    again = forecaster.export(tmp_path / "again.onnx")
    table = forecaster.forecast(ids=["p2"])
    rows = open_store(stores / "places.zarr").series("p2").to_pandas()
    x = rows[["level", "rain"]].to_numpy(np.float64)[None, -24:]
    for path in (run_folder / "model.onnx", again.path):
        (predicted,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
        np.testing.assert_allclose(predicted[0, :, 0], table.rain, rtol=1e-5)
    program_of = torch.export.load(tmp_path / "n.pt2").module()
    np.testing.assert_allclose(
        program_of({"x": torch.from_numpy(x)})["predictions"].detach()[0, :, 0], table.rain, 1e-5
    )


def test_an_export_that_cannot_be_meant_is_refused(app: App, run_folder: Path) -> None:
    done = app("export", "--config", "n.yaml", "--export.path", "n.pt2")
    assert (done.returncode, "expected a file ending in .onnx" in done.stderr) == (2, True)
    done = app("export", "--config", "n.yaml", "--trainer.default_root_dir", "elsewhere")
    assert (done.returncode, "no checkpoint (elsewhere/checkpoints/" in done.stderr) == (2, True)
    done = app("export", "--config", "n.yaml", "--export.windows", "0")
    assert (done.returncode, "correct --export.windows" in done.stderr) == (2, True)


def test_the_intervals_of_a_run_are_in_its_file(stores: Path, tmp_path: Path) -> None:
    data = Case("NLinear", {"scale_by": "series"}).module(stores)
    model, ids = NLinear(data.shape).eval(), data.store.ids.tolist()
    own = np.random.default_rng(0).gamma(1, 1, (4, 3, 1, 2)).astype(np.float32)
    rest = np.ones((3, 1, 2))
    radii = Radii((0.5, 0.9), tuple(ids), own, rest, rest, np.ones((4, 1)), {})
    model.intervals = Intervals(radii, ids, data.target_offsets, model.device)
    found = export_model(model, data, Export("onnx", windows=8), tmp_path)
    session = onnxruntime.InferenceSession(found.path)
    assert [each.name for each in session.get_outputs()] == ["predictions", "lower", "upper"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["interval_levels"]) == [0.5, 0.9]
    predicted, lower, upper = session.run(None, {"x": np.ones((4, 24, 2)), "series": np.arange(4)})
    reach = own * data.scaler.scale[:, :1, None, None]
    np.testing.assert_allclose(upper - predicted[..., None], reach, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(predicted[..., None] - lower, reach, rtol=1e-5, atol=1e-5)


def test_a_file_that_gives_other_numbers_than_the_model_is_not_written(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"whose file gives other numbers than it: .*at most 1e-15"):
        exported(case_of("GRU"), "torch", stores, tmp_path, tolerance=1e-15)
    assert list(tmp_path.iterdir()) == []


def test_a_program_has_no_rows_of_the_store_and_no_paths_of_this_machine(stores: Path, tmp_path: Path) -> None:
    found = exported(case_of("NLinear"), "torch", stores, tmp_path)
    extra = {program.METADATA: ""}
    torch.export.load(found.path, extra_files=extra)
    assert json.loads(extra[program.METADATA])["targets"] == ["level"]
    example, _ = torch.export.load(found.path).example_inputs
    assert not example[0]["x"].any()
    with zipfile.ZipFile(found.path) as archive:
        here = str(Path(models.__file__).parents[1]).encode()
        assert not [name for name in archive.namelist() if here in archive.read(name)]


class Counts(NLinear):
    """Does something else where values are large, which no program can say."""

    def forward(self, batch: Batch) -> torch.Tensor:
        return super().forward(batch) + (1.0 if float(batch["x"].sum()) > 0 else 0.0)


class Sorts(NLinear):
    """Uses an operation that ONNX has not."""

    def forward(self, batch: Batch) -> torch.Tensor:
        found: torch.Tensor = super().forward(batch) + torch.special.i1(batch["x"]).sum()
        return found


def test_what_cannot_be_exported_is_told_with_the_operation(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Case("NLinear").module(stores)
    with pytest.raises(UsageError, match=r"the model Counts, which torch.export cannot trace .*torch\.where for if"):
        export_model(Counts(data.shape), data, Export("torch"), tmp_path)
    with pytest.raises(UsageError, match=r"Sorts, which has no ONNX \(operation prims\.bessel_i1\.default\)"):
        export_model(Sorts(data.shape), data, Export("onnx"), tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"without onnxscript.*pip install 'zstore\[export\]'"):
        export_model(NLinear(data.shape), data, Export("onnx"), tmp_path)
    assert list(tmp_path.iterdir()) == []
