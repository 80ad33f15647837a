"""Run folders that are broken or hostile in the viewer: told in a sentence, and what is sound is shown beside."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conftest import write_table
from test_view import Ask, asking

import zstore
from lightning_app.prediction_arrays import observed_variables, target_variables
from lightning_app.view.folders import run_folders
from lightning_app.view.predicted import Predictions
from zstore import Store, UsageError
from zstore.view.server import panels_of
from zstore.view.session import Session

pytestmark = pytest.mark.filterwarnings("default")

N_WINDOWS, N_STEPS = 10, 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two series of 50 rows with two channels, and a channel of words."""
    rows = [[id_, n, n, 2 * n, ["rest", "fist"][n % 2]] for id_ in "ab" for n in range(50)]
    table = write_table(tmp_path / "t.csv", ["id", "t", "v", "v_observed", "word"], rows)
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t")
    return zstore.open_store(tmp_path / "s.zarr")


def predicted(folder: Path, store: Store, targets: dict[str, tuple[float, float]], **of_target: Any) -> Path:
    """Predictions as `predict` writes them: by target the number that is forecast and the one that was observed."""
    group = zarr.create_group(str(folder / "predictions.zarr"), attributes={"source_uuid": store.schema.uuid})
    ids = np.array(["a", "b"] * (N_WINDOWS // 2), dtype=object)
    group.create_array("id", shape=ids.shape, dtype=str)[:] = ids
    times = np.arange(N_WINDOWS)[:, None] // 2 * 5 + np.arange(N_STEPS)
    group.create_array("time", data=times)
    group.create_array("step", data=np.arange(1, N_STEPS + 1))
    variables = target_variables(store, list(targets))
    names = zip(variables, observed_variables(variables), strict=True)
    for (target, values), own in zip(targets.items(), names, strict=True):
        for value, name, what in zip(values, own, ("", ", observed"), strict=True):
            about = {"long_name": f"{target}{what}", **of_target}
            group.create_array(name, data=np.full(times.shape, value), attributes=about)
    return folder


def asking_of(store: Store, *folders: Path) -> Ask:
    session = Session(store.path)
    return asking(session, panels=panels_of(session, [str(folder) for folder in folders]))


def folder(tmp_path: Path, name: str = "r") -> Path:
    (tmp_path / name / "logs").mkdir(parents=True)
    return tmp_path / name


def test_scores_of_a_target_stay_those_of_that_target_whatever_is_looked_at_next(store: Store, tmp_path: Path) -> None:
    ask = asking_of(store, predicted(folder(tmp_path), store, {"v": (3, 1), "word": (1, 0)}))

    def column(target: str) -> list[float]:
        assert ask("/api/runs/scores", {"target": target}).status_code == 200
        lines = ask("/api/table", {"sort": f"rmse {target} r"}).json()["lines"]
        return [line[f"rmse {target} r"] for line in lines]

    assert [column("v"), column("word"), column("v")] == [[2, 2], [1, 1], [2, 2]]
    for _ in range(2):
        ask("/api/reopen", method="POST")  # as two pages do
        assert column("v") == [2, 2]


def test_what_was_observed_is_that_of_the_target_whatever_targets_are_called(store: Store, tmp_path: Path) -> None:
    path = predicted(folder(tmp_path), store, {"v": (3, 1), "v_observed": (9, 5)}) / "predictions.zarr"
    ask = asking_of(store, path.parent)
    assert "v_observed" in zarr.open_group(str(path), mode="r")
    for target, (forecast, observed) in {"v": (3, 1), "v_observed": (9, 5)}.items():
        lines = ask("/api/runs/forecast", {"id": "a", "target": target}).json()["charts"][0]["lines"]
        assert [(line["kind"], line["y"][0]) for line in lines] == [("observed", observed), ("forecast", forecast)]


def test_classes_are_scored_by_accuracy_and_shown_as_words(store: Store, tmp_path: Path) -> None:
    ask = asking_of(store, predicted(folder(tmp_path), store, {"word": (1, 0)}, flag_values=[0.0, 1.0]))
    assert ask("/api/runs/scores").json() == {"target": "word", "scores": {"accuracy": [0, 0]}}
    words = list(store.channel("word").categories)
    for asked in ("id=a", "id=a&window=0"):
        assert ask(f"/api/runs/forecast?{asked}").json()["charts"][0]["categories"] == words


def reshape(array: str, **changes: Any) -> Callable[[Path], None]:
    """Changes what the metadata of an array says."""

    def change(path: Path) -> None:
        file = path / array / "zarr.json"
        document = json.loads(file.read_text())
        if "chunks" in changes:
            document["chunk_grid"]["configuration"]["chunk_shape"] = changes["chunks"]
        document |= {key: value for key, value in changes.items() if key != "chunks"}
        file.write_text(json.dumps(document))

    return change


def without(array: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / array / "zarr.json").unlink()

    return change


def of_format_2(path: Path) -> None:
    for file in path.rglob("zarr.json"):
        file.unlink()
    zarr.create_group(str(path), zarr_format=2)


HOSTILE: dict[str, Callable[[Path], None]] = {
    "ids that fill the memory": reshape("id", shape=[2**40]),
    "windows without end": reshape("time", shape=[2**40, N_STEPS]),
    "steps without end": reshape("time", shape=[N_WINDOWS, 2**40]),
    "more steps than times": reshape("step", shape=[2**40]),
    "values of another shape": reshape("v", shape=[N_WINDOWS, 2**40]),
    "levels without end": reshape("v", shape=[N_WINDOWS, N_STEPS, 2**40], chunks=[N_WINDOWS, N_STEPS, 1]),
    "a chunk that fills the memory": reshape("time", chunks=[2**40, N_STEPS]),
    "values that are no numbers": reshape("v", data_type="string", codecs=[{"name": "vlen-utf8"}], fill_value=""),
    "no times": without("time"),
    "a format that may unpickle": of_format_2,
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_predictions_from_elsewhere_are_refused_before_anything_is_allocated(
    store: Store, tmp_path: Path, fault: str
) -> None:
    path = predicted(folder(tmp_path), store, {"v": (3, 1)}) / "predictions.zarr"
    assert Predictions(path, store).scores("v")["rmse"].tolist() == [2, 2]
    HOSTILE[fault](path)
    ask = asking_of(store, path.parent)
    for name in ("targets", "scores", "forecast?id=a", "forecast?id=a&window=0"):
        answer = ask(f"/api/runs/{name}")
        assert (name, answer.status_code) == (name, 400)
        assert "predictions that predict wrote" in answer.json()["error"]


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", '{"test/rmse": 1' + "0" * 400 + "}", "\xff", "{"])
def test_a_run_whose_scores_cannot_be_read_says_so_and_others_are_listed(
    store: Store, tmp_path: Path, text: str
) -> None:
    broken, sound = folder(tmp_path, "broken"), folder(tmp_path, "sound")
    (broken / "test_metrics.json").write_text(text, encoding="latin-1")
    (sound / "test_metrics.json").write_text('{"test/rmse": 2, "test/nse": NaN, "epoch": 1}')
    found = {run["name"]: run for run in asking_of(store, broken, sound)("/api/runs/list").json()}
    assert "expected the JSON that test writes" in found["broken"]["error"]
    assert (found["sound"]["error"], found["sound"]["scores"]) == ("", {"rmse": 2})


def test_curves_of_a_file_with_odd_lines_are_those_of_its_sound_cells(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "logs" / "metrics.csv").write_text("step,loss\n1,2,3,4\n5\n\n6,x\n7,8\n")
    (found,) = run_folders([str(path)]).values()
    assert found.curves() == {"loss": {"step": [1, 7], "value": [2, 8]}}
    (path / "logs" / "metrics.csv").write_text("step,loss\n1,2\n")
    assert found.curves() == {"loss": {"step": [1], "value": [2]}}
    limit = csv.field_size_limit(1 << 17)  # as Python has it
    try:
        for text in ("step,loss\n1," + "9" * 200_000 + "\n", "step,loss\n1,\xff\n"):
            (path / "logs" / "metrics.csv").write_text(text, encoding="latin-1")
            with pytest.raises(UsageError, match="expected the CSV that CSVLogger writes"):
                found.curves()
    finally:
        csv.field_size_limit(limit)


def test_films_are_files_and_told_to_be_what_they_are(store: Store, tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "rollout_1.gif").write_bytes(b"GIF89a...")
    (path / "rollout_2.gif").mkdir()
    ask = asking_of(store, path)
    assert ask("/api/runs/list").json()[0]["films"] == ["rollout_1.gif"]
    film = ask("/api/runs/film", {"name": "rollout_1.gif"})
    assert (film.headers["content-type"], film.content) == ("image/gif", b"GIF89a...")


def test_splits_without_the_libraries_of_a_fit_say_what_to_install(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_app.view.windows", None)
    answer = asking_of(store, folder(tmp_path))("/api/splits/parts")
    assert (answer.status_code, "pip install 'zstore[train]'" in answer.json()["error"]) == (400, True)
