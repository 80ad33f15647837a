"""What people get wrong the first time, with their own files: one clear error or a note each, never a silent number."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import xarray

import lightning_app.cli
import zstore.cli
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.demo.reach import write_store
from zstore import Query, SourceError, UsageError, ingest

pytestmark = pytest.mark.filterwarnings("default")

MINE = """
import numpy as np
from lightning_app.rollout.environment import Environment, Outcome


class Still(Environment):
    n_actions, rate_hz = 2, 10.0

    def open(self, names):
        return self

    def reset(self, seed):
        return {"state": np.zeros(4)}

    def act(self, action):
        return Outcome(self.reset(0), 0.5, False)

    def scene(self):
        return None


class Tuple(Still):
    def act(self, action):
        return self.reset(0), 0.5, False


class Broken(Still):
    def act(self, action):
        return self.arm


class Nan(Still):
    def act(self, action):
        return Outcome(self.reset(0), float("nan"), False)


class Unsaid(Environment):
    open, reset, act, scene = Still.open, Still.reset, Still.act, Still.scene
"""


def band(folder: Path, name: str, n_rows: int = 90) -> Path:
    """A headerless file of two electrodes and a word."""
    rows = np.random.default_rng(0).normal(size=(n_rows, 2))
    words = np.repeat(["rest", "fist", "rest"], n_rows // 3)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"{a:.2f},{b:.2f},{word}" for (a, b), word in zip(rows, words, strict=True)) + "\n")
    return path


def counted(sources: Sequence[Path], store: Path, **options: Any) -> Any:
    """Ingest such files, whose rows are counted."""
    usual: dict[str, Any] = {
        "no_header": True,
        "names": ["emg.0", "emg.1", "gesture"],
        "id_from_path": r"([^/]+)\.csv$",
    }
    usual |= {"start": "2024-05-01", "freq": "1ms"}
    return ingest([str(each) for each in sources], str(store), **{**usual, **options})


def run(*words: str) -> int:
    return lightning_app.cli.main([*words])


def test_files_of_one_id_whose_rows_are_counted_are_refused(tmp_path: Path) -> None:
    files = [band(tmp_path, "day1/trial.csv"), band(tmp_path, "day2/trial.csv")]
    with pytest.raises(UsageError, match="id 'trial' of two files, whose rows have no times"):
        counted(files, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    assert counted(files, tmp_path / "s.zarr", id_from_path=r"([^/]+/[^/]+)\.csv$").n_series == 2


def test_a_header_that_looks_like_a_row_is_noted(tmp_path: Path) -> None:
    path = band(tmp_path, "a.csv")
    receipt = counted([path], tmp_path / "s.zarr", no_header=False, names=None)
    assert [note for note in receipt.notes if "the header looks like a row" in note and "--no-header" in note]
    receipt = counted([path], tmp_path / "t.zarr")
    assert not [note for note in receipt.notes if "header" in note]


def test_a_bad_row_that_counts_for_a_time_is_not_told_to_be_set_aside(tmp_path: Path) -> None:
    path = band(tmp_path, "a.csv")
    path.write_text(path.read_text() + "abc,1.0,rest\n")
    with pytest.raises(SourceError) as caught:
        counted([path], tmp_path / "s.zarr")
    assert "line 91" in str(caught.value)
    assert "quarantine" not in str(caught.value)


def test_a_study_that_a_table_has_twice_is_noted(tmp_path: Path) -> None:
    table = tmp_path / "studies.csv"
    table.write_text("study,ef\n" + "".join(f"s{n},{50 + n}\n" for n in range(20)) + "s3,53\n")
    receipt = ingest([str(table)], str(tmp_path / "s.zarr"), id="study", freq="1")
    assert [note for note in receipt.notes if note.startswith("1 id has several rows, the other 19 have one ('s3')")]


def test_info_gives_no_mean_of_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counted([band(tmp_path, "a.csv")], tmp_path / "s.zarr")
    assert zstore.cli.main(["info", str(tmp_path / "s.zarr")]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("gesture")]
    assert line.split() == ["gesture", "int16,", "2", "categories", "0"]


def fit(store: Path, *words: str) -> tuple[str, ...]:
    data = ["store", str(store), "lookback", "5", "horizon", "1", "delay", "-1", "split.sizes", "[0.6,0.2,0.2]"]
    flags = [f"--data.{name}={value}" for name, value in zip(data[::2], data[1::2], strict=True)]
    folder = f"--trainer.default_root_dir={store.parent / 'run'}"
    return ("fit", *flags, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", folder, *words)


def test_words_are_no_target_of_a_model_of_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counted([band(tmp_path, "a.csv")], tmp_path / "s.zarr")
    assert run(*fit(tmp_path / "s.zarr", "--data.channels=[emg]", "--data.targets=[gesture]", "--model=MLP")) == 2
    error = capsys.readouterr().err
    assert "target 'gesture', which holds words ('fist', 'rest')" in error
    assert "--data.classes [gesture]" in error


def test_a_measurement_is_no_class(tmp_path: Path) -> None:
    counted([band(tmp_path, "a.csv")], tmp_path / "s.zarr")
    data = WindowDataModule(
        str(tmp_path / "s.zarr"), lookback=5, horizon=1, targets=["emg.0"], channels=["emg.1"], classes=["emg.0"]
    )
    with pytest.raises(UsageError, match="looks like a measurement"):
        data.shape  # noqa: B018


def test_a_name_that_a_store_has_not_is_told_with_vectors_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted([band(tmp_path, "a.csv")], tmp_path / "s.zarr")
    assert run(*fit(tmp_path / "s.zarr", "--data.channels=[emgs]", "--data.targets=[emg.0]", "--model=MLP")) == 1
    assert "no channel 'emgs'; expected one of emg, gesture." in (error := capsys.readouterr().err)
    assert "Fix: correct the name" in error


def test_a_flag_that_cannot_be_meant_is_told_in_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*fit(tmp_path / "s.zarr", "--model=MLP", "--data.pad_after=zeros"))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 4
    assert "zeros" in "".join(lines)
    assert lines[0].startswith("lightning_app: ")
    assert "Fix: --data.pad_after zero" in lines[-1]


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of one epoch, and environments of its user."""
    folder = tmp_path_factory.mktemp("robot")
    write_store(folder, 12)
    (folder / "own_worlds.py").write_text(MINE)
    (folder / "bc.yaml").write_text(f"""
data: {{store: {folder}/reach.zarr, lookback: 1, horizon: 4, delay: -1, pad_after: repeat, channels: [state],
  targets: [action], split: {{by: series, sizes: [0.6, 0.2, 0.2]}}}}
model: {{class_path: MLP, init_args: {{hidden: 8, task: Policy}}}}
trainer: {{max_epochs: 1, default_root_dir: {folder}/run, accelerator: cpu}}
acting: {{episodes: 2, steps: 4, execute: 2, pictures: false}}
""")
    assert run("fit", f"--config={folder / 'bc.yaml'}", "--quiet") == 0
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Tuple", "act of Tuple that returns tuple"),
        ("Broken", "AttributeError ('Broken' object has no attribute 'arm') in act of Broken"),
        ("Nan", "a reward of Nan of nan"),
        ("Unsaid", "Unsaid without n_actions"),
    ],
)
def test_a_mistake_in_an_environment_is_told_as_one(
    reached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, expected: str
) -> None:
    monkeypatch.syspath_prepend(reached)
    code = run("rollout", f"--config={reached / 'bc.yaml'}", f"--acting.environment=own_worlds.{name}")
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert expected in error
    assert "Fix: " in error
    assert "Traceback" not in error


def test_only_a_mixture_has_chunks_to_draw(
    reached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(reached)
    words = ["rollout", f"--config={reached / 'bc.yaml'}", "--acting.environment=own_worlds.Still"]
    assert run(*words) == 0
    assert run(*words, "--acting.mode=drawn") == 2
    assert "mode drawn of a policy without a mixture" in capsys.readouterr().err


def test_fields_that_a_model_does_not_read_are_warned_of(reached: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run("fit", f"--config={reached / 'bc.yaml'}", "--data.fields={image: 1}", "--trainer.max_steps=1") == 0
    assert "MLP reads no fields: image will be decoded and copied for nothing" in caplog.text


def test_predictions_say_what_their_classes_are(tmp_path: Path) -> None:
    counted([band(tmp_path, "a.csv", 300)], tmp_path / "s.zarr")
    words = fit(
        tmp_path / "s.zarr", "--data.channels=[emg]", "--data.targets=[gesture]", "--data.classes=[gesture]",
        "--model=MLP", "--model.task=Classification", "--quiet",
    )  # fmt: skip
    assert run(*words) == 0
    assert run("predict", *words[1:]) == 0
    found = xarray.open_zarr(tmp_path / "run" / "predictions.zarr")["gesture"].attrs
    assert (found["flag_values"], found["flag_meanings"]) == ([0.0, 1.0], "fist rest")


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "sql", "memory"])
def test_a_table_without_time_is_told_which_column_looks_like_one(kind: str, tmp_path: Path) -> None:
    """A column of timestamps is not told to be left out where no other has the times."""
    table = pa.table(
        {
            "site": ["a"] * 3,
            "timestamp": np.arange(3).astype("datetime64[h]").astype("datetime64[s]"),
            "v": [1.0, 2.0, 3.0],
        }
    )
    path = tmp_path / f"t.{kind}"
    sources: Any = path
    if kind == "csv":
        pa.csv.write_csv(table, path)
    elif kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        pa.feather.write_feather(table, path)
    elif kind == "memory":
        sources = table
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("create table t as select 'a' site, '2024-01-01 00:00' timestamp, 1.0 v")
            database.commit()
        sources = Query("select * from t", f"sqlite:///{path}")
    with pytest.raises(UsageError, match=r"no time column, though 'timestamp' looks like one; .*: --time timestamp\n"):
        ingest(sources, tmp_path / "s.zarr", id="site")
    ingest(sources, tmp_path / "s.zarr", id="site", time="timestamp")
    if kind in ("parquet", "arrow", "memory"):
        other: Any = {"freq": "1h", "start": "2024-01-01"}
        with pytest.raises(UsageError, match=r"though column 'timestamp' is one of times; .*Fix: --time timestamp, or"):
            ingest(sources, tmp_path / "o.zarr", id="site", **other)
        ingest(sources, tmp_path / "o.zarr", id="site", leave_out=["timestamp"], **other)
