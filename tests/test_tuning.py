"""Plans of fits, and presets: what a fit will cost here."""

import gc
import json
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from conftest import REPOSITORY, write_table

from lightning_app import fit_plan, tuning
from lightning_app.data.batches.mixing import inflation
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.residency import Place
from lightning_app.data.windows.splits import Split
from lightning_app.limits import StepTimes
from lightning_app.step_trial import StepTrial
from zstore import Store, UsageError, ingest, open_store

Run = Callable[..., subprocess.CompletedProcess[str]]
App = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own are theirs to fix

PRESETS = sorted((REPOSITORY / "configs" / "presets").glob("*.yaml"))


def fit_config(path: Path, store: Store, **data: Any) -> Path:
    document = {
        "data": {"store": str(store.path), "lookback": 48, "horizon": 12, "cache": str(path.parent / "cache"), **data},
        "model": {"class_path": "NLinear"},
        "trainer": {"accelerator": "cpu", "max_epochs": 1},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_plan_measures_what_fits_and_its_overlay_is_taken_by_fit(
    run: Run, app: App, hourly: Store, tmp_path: Path
) -> None:
    fit_config(tmp_path / "fit.yaml", hourly)
    words = ["--config", "fit.yaml", "--write", "plan.yaml", "--seconds", 0.2]
    done = run("zstore.cli", "plan", hourly.path, *words, check=True)
    assert "no GPU" in done.stdout
    assert "host *" in done.stdout
    assert "stream" in done.stdout
    assert "2,000 rows x 3 channels" in done.stdout
    assert re.search(r"^a fit with what is marked: (model|gather|Lightning) limits: \d+% of a step", done.stdout, re.M)
    assert yaml.safe_load((tmp_path / "plan.yaml").read_text()) == {"data": {"residency": "host", "memory_budget": 0.5}}
    fitted = app("fit", "--config", "fit.yaml", "--config", "plan.yaml", check=True)
    assert "residency host, for as told" in fitted.stdout


def test_bench_prints_every_residency_as_json(run: Run, hourly: Store) -> None:
    done = run("zstore.cli", "bench", hourly.path, "--seconds", 0.2, "--batch-size", 64, "--json", check=True)
    found = {each["place"]: each for each in json.loads(done.stdout)["measured"]}
    assert found["device"]["why_not"] == "there is no GPU"
    for place in ("host", "stream"):
        assert found[place]["windows_per_s"] > 1000
        assert 0 < found[place]["first_batch_s"] < 60
    assert (found["host"]["decoded"], found["stream"]["decoded"]) == (0, 1)
    assert found["host"]["shared_bytes"] == 2000 * 3 * 4


@pytest.mark.parametrize("place", ["host", "stream"])
def test_measuring_a_residency_leaves_no_thread_and_no_open_file(hourly: Store, tmp_path: Path, place: Place) -> None:
    options = tuning.data_options(str(hourly.path), None, {"cache": str(tmp_path / "cache")})
    assert tuning.measure(options, place, 0.05).windows_per_s > 0
    gc.collect()
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "prefetch"))]
    files = [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path / "cache"))]
    assert (threads, files) == ([], [])


def test_a_residency_that_fails_while_it_is_measured_leaves_no_thread(
    hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[WindowDataModule] = []

    def failing(*_: object) -> float:
        raise FloatingPointError

    def building(options: dict[str, Any], place: str) -> WindowDataModule:
        modules.append(build(options, place))
        return modules[-1]

    build = tuning.build
    monkeypatch.setattr(tuning, "inflation", failing)
    monkeypatch.setattr(tuning, "build", building)
    options = tuning.data_options(str(hourly.path), None, {"cache": str(tmp_path / "cache")})
    with pytest.raises(FloatingPointError):
        tuning.measure(options, "stream", 0.05)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")] == []
    assert len(modules) == 1


def test_rows_beyond_the_budget_are_planned_as_a_stream(hourly: Store, tmp_path: Path) -> None:
    options = tuning.data_options(str(hourly.path), None, {"memory_budget": "20kB", "cache": str(tmp_path)})
    with pytest.raises(UsageError, match=r"no residency fits.*host: rows of 0.00 GB; budget.*stream: memory"):
        tuning.plan(options, 0.1)


def test_a_plan_for_machines_divides_what_was_measured_here(hourly: Store, tmp_path: Path) -> None:
    options = tuning.data_options(str(hourly.path), None, {"cache": str(tmp_path / "cache")})
    one = fit_plan.Measured("host", 3_000_000, 1_000_000, 0.25, 500.0)
    times = StepTimes(n_steps=10, model_s=1.0)
    found = fit_plan.FitPlan("a machine", "rows", 4000, (one,), "host", steps=StepTrial(times, "advice"), machines=4)
    shown = fit_plan.show(found)
    assert "4 machines like this one, a process on each: batches of 2,000 windows/s, an epoch of them in 2.0 s" in shown
    assert "on each of them: 4 MB for rows and batches, the first batch after 0.25 s" in shown
    assert "steps of 100.0 ms each" in shown
    assert "machines like" not in fit_plan.show(replace(found, machines=1))
    with pytest.raises(UsageError, match="0 machines; expected at least 1"):
        tuning.plan(options, 0.1, machines=0)


@pytest.fixture
def frames(tmp_path: Path) -> Store:
    """A thousand rows with a field of 1,200 bytes each, which zstd makes a third of."""
    values = np.random.default_rng(0).integers(0, 256, (1000, 20, 20, 3), np.uint8)
    values[:, 7:] = 0
    np.save(tmp_path / "all.npy", values)
    rows = [["a", n, n % 7, "all.npy", n] for n in range(1000)]
    files: dict[str, Any] = {"file": {"image": "f"}, "file_position": {"image": "p"}, "file_root": str(tmp_path)}
    table = write_table(tmp_path / "r.csv", ["id", "t", "v", "f", "p"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", **files)
    return open_store(tmp_path / "s.zarr")


def test_a_plan_measures_how_fields_are_decoded_and_where_there_is_room_for_them(
    app: App, frames: Store, tmp_path: Path
) -> None:
    fields = {"image": {"steps": 2, "stride": 3, "crop": [16, 12]}}
    config = fit_config(tmp_path / "fit.yaml", frames, fields=fields, channels=["v"], memory_budget="1MB")
    options = tuning.data_options(str(frames.path), config, {})
    plan = tuning.plan(options, 0.1)
    found = json.loads(json.dumps(asdict(plan)))
    (image,) = found["fields"]
    assert image["rows"] == "1,000 rows of 20 x 20 x 3 uint8"
    assert (image["decoded_bytes"], image["chosen"]) == (1_200_000, "encoded")
    assert 0.3 < image["stored_bytes"] / image["decoded_bytes"] < 0.4
    assert image["decoded_mb_per_s"] == pytest.approx(image["rows_per_s"] * 1200 / 1e6)
    assert min(image["rows_per_s"], image["random_rows_per_s"]) > 100
    assert set(image["why_not"]) == {"device", "host"}
    assert image["by_size"] == dict.fromkeys(("under 1 GB", "under 10 GB", "under 100 GB", "beyond"), "stream")
    measured = {each["place"]: each for each in found["measured_fields"]}
    assert list(measured) == ["device", "host", "encoded", "stream"]
    assert "image: decoded rows do not fit into" in measured["host"]["why_not"]
    assert (measured["encoded"]["decoded"], measured["stream"]["decoded"]) == (0, 1)
    assert measured["encoded"]["shared_bytes"] == 1000 * 4 + image["stored_bytes"]

    assert plan.steps is None  # no model was asked for
    shown = fit_plan.show(plan)
    assert "field image: 1,000 rows of 20 x 20 x 3 uint8, 0.001 GB decoded, 0.000 GB stored: encoded" in shown
    assert "encoded *" in shown
    (tmp_path / "plan.yaml").write_text(fit_plan.overlay(plan, options))
    planned = yaml.safe_load((tmp_path / "plan.yaml").read_text())["data"]["fields"]["image"]
    assert planned == {"steps": 2, "stride": 3, "residency": "encoded", "crop": [16, 12]}
    fitted = app("fit", "--config", "fit.yaml", "--config", "plan.yaml", check=True)
    assert "residency encoded, for as told" in fitted.stdout


@pytest.mark.parametrize(("data", "message"), [({"lookbak": 3}, "lookbak"), ({"lookback": 5000}, "no window in train")])
def test_a_plan_refuses_what_fit_would_refuse(
    run: Run, hourly: Store, tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    fit_config(tmp_path / "fit.yaml", hourly, **data)
    done = run("zstore.cli", "plan", hourly.path, "--config", "fit.yaml")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_fits_some_steps_and_keeps_nothing_of_them(hourly: Store, tmp_path: Path) -> None:
    config = fit_config(tmp_path / "fit.yaml", hourly)
    options = tuning.data_options(str(hourly.path), config, {"cache": str(tmp_path / "cache")})
    plan = tuning.plan(options, 0.1, yaml.safe_load(config.read_text()))
    assert plan.steps is not None
    times = plan.steps.times
    assert times.n_steps >= 8
    assert times.model_s > times.phases["gather"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "fit.yaml"]
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith(("batch", "prefetch"))]
    assert threads == []


def test_a_plan_refuses_a_model_that_does_not_fit_its_data(run: Run, hourly: Store, tmp_path: Path) -> None:
    document = yaml.safe_load(fit_config(tmp_path / "fit.yaml", hourly).read_text())
    document["model"] = {"class_path": "NLinear", "init_args": {"widht": 3}}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(document))
    done = run("zstore.cli", "plan", hourly.path, "--config", "fit.yaml", "--seconds", 0.1)
    assert (done.returncode, "widht" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_a_plan_of_no_store_or_no_config_says_so(run: Run, hourly: Store) -> None:
    assert "no store" in run("zstore.cli", "bench", "nowhere.zarr").stderr
    done = run("zstore.cli", "plan", hourly.path, "--config", "nowhere.yaml")
    assert (done.returncode, "nowhere.yaml" in done.stderr) == (2, True)


def test_the_inflation_is_one_for_a_permutation_and_grows_as_the_pool_shrinks(tmp_path: Path) -> None:
    rows = [[f"s{n // 100:03d}", n % 100, n] for n in range(20_000)]
    grid: dict[str, Any] = {"chunk_rows": 64, "shard_rows": 1024}
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t", **grid)

    def found(residency: str, budget: str = "0.5") -> float:
        data = WindowDataModule(
            str(tmp_path / "s.zarr"),
            3,
            1,
            batch_size=64,
            split=Split(sizes=(0.98, 0.01, 0.01)),
            cache=str(tmp_path),
            residency=residency,  # type: ignore[arg-type]
            memory_budget=budget,
        )
        return inflation(data.train_dataloader())

    assert found("host") == pytest.approx(1, abs=0.25)
    whole, half, eighth = (found("stream", f"{budget}B") for budget in (160_000, 40_000, 10_000))
    assert whole == pytest.approx(1, abs=0.25)
    assert whole < half < eighth < 64


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_fits(app: App, hourly: Store, tmp_path: Path, preset: Path) -> None:
    fit_config(tmp_path / "fit.yaml", hourly, split={"sizes": [1400, 300, 300]})
    done = app("fit", "--config", "fit.yaml", "--config", preset, check=True)
    kept = yaml.safe_load(next((tmp_path / "runs" / "fit").rglob("config.yaml")).read_text())
    for section, values in yaml.safe_load(preset.read_text()).items():
        assert {name: kept[section][name] for name in values} == values
    residency = "stream" if preset.stem == "low_memory" else "host"
    assert f"residency {residency}, for " in done.stdout


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """800 rows with a field of 40 MB in all, most of which is zero."""
    folder = tmp_path_factory.mktemp("scans")
    values = np.zeros((800, 20, 50, 50), np.uint8)
    values[:, :2] = np.random.default_rng(0).integers(0, 256, (800, 2, 50, 50))
    np.save(folder / "all.npy", values)
    rows = [["a", n, n % 7, "all.npy", n] for n in range(800)]
    table = write_table(folder / "r.csv", ["id", "t", "v", "f", "p"], rows)
    files: dict[str, Any] = {"file": {"image": "f"}, "file_position": {"image": "p"}}
    ingest(table, folder / "s.zarr", id="id", time="t", file_root=str(folder), **files)
    return open_store(folder / "s.zarr")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_fits_data_with_fields_and_keeps_their_batches(
    app: App, scans: Store, tmp_path: Path, preset: Path
) -> None:
    data: dict[str, Any] = {"fields": {"image": {"steps": 2}}, "channels": ["v"], "batch_size": 16}
    fit_config(tmp_path / "fit.yaml", scans, split={"sizes": [0.8, 0.1, 0.1]}, **data)
    done = app("fit", "--config", "fit.yaml", "--config", preset, check=True)
    kept = yaml.safe_load(next((tmp_path / "runs" / "fit").rglob("config.yaml")).read_text())
    assert kept["data"]["batch_size"] == 16
    place = "encoded" if preset.stem == "low_memory" else "host"
    assert f"field 'image', 0.04 GB decoded, 0.00 GB stored: residency {place}, for " in done.stdout
    assert re.search(r"^(model|decode|gather|Lightning) limits: \d+% of a step", done.stdout, re.MULTILINE)


def test_there_are_the_presets_that_the_benchmarks_name() -> None:
    text = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    assert [path.stem for path in PRESETS] == ["default", "high_performance", "low_memory", "quick_demo"]
    assert all(f"presets/{path.name}" in text or f"`{path.stem}`" in text for path in PRESETS)


def test_every_chunk_counts_once(tmp_path: Path) -> None:
    rows = [["a", n, n] for n in range(1000)]
    grid: dict[str, Any] = {"chunk_rows": 64, "shard_rows": 256}
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t", **grid)
    store = open_store(tmp_path / "s.zarr")
    assert store.n_chunks_stored == store.n_chunks(0, 1000) == 16
    assert store.chunk_starts.tolist() == list(range(0, 1000, 64))
    assert np.array_equal(store.n_chunks(63, 65), 2)
