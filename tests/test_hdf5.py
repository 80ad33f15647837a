"""HDF5 files as sources, in four layouts, with h5py's own reading of them as the oracle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY, SMALL_GRID, stored
from hdf5files import QWERTY, aloha, channel, robomimic, session, statics, times, vector

import zstore
from zstore import open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.planner import plan_ingest

# The four layouts, by the command that a user types.


def test_sessions_of_emg2pose_have_every_value_of_h5py_and_failed_labels_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"session{n}": session(tmp_path / f"session{n}.h5", seed=n, n_rows=500 + n) for n in range(2)}
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", "session*.h5", "s.zarr", "--mapping", "emg2pose", "--quiet"]) == 0
    store = open_store("s.zarr")
    assert list(store.channels) == [*(f"emg.{n}" for n in range(16)), *(f"joint_angles.{n}" for n in range(20))]
    for id_, expected in rows.items():
        np.testing.assert_array_equal(vector(store, id_, "emg", 16), expected["emg"])
        angles = np.where(expected["joint_angles"].any(axis=1, keepdims=True), expected["joint_angles"], np.nan)
        np.testing.assert_array_equal(vector(store, id_, "joint_angles", 20), angles.astype("f4"))
        assert times(store, id_) == list(range(len(expected)))
    known = statics(store)
    assert known["session"] == ["session0", "session1"]
    assert known["sample_rate"] == [2000.0, 2000.0]
    assert known["time_start"] == [rows[id_]["time"][0] for id_ in rows]
    assert compare_sources(store, "session*.h5").n_different == 0


def test_sessions_of_emg2qwerty_leave_long_attributes_out_and_say_so(tmp_path: Path) -> None:
    rows = session(tmp_path / "a.hdf5", QWERTY)
    receipt = zstore.ingest(tmp_path / "a.hdf5", tmp_path / "s.zarr", mapping="emg2qwerty")
    store = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(vector(store, "a", "emg_right", 16), rows["emg_right"])
    assert "keystrokes" not in statics(store)
    assert [note for note in receipt.notes if "keystrokes" in note and "left out" in note]


def test_a_long_attribute_that_is_named_is_kept(tmp_path: Path) -> None:
    session(tmp_path / "a.hdf5", QWERTY)
    mapping = {
        "episodes": "emg2qwerty",
        "vectors": {"emg_left": {"data": "timeseries", "member": "emg_left"}},
        "statics": {"attributes": ["keystrokes"]},
    }
    zstore.ingest(tmp_path / "a.hdf5", tmp_path / "s.zarr", mapping=mapping)
    with h5py.File(tmp_path / "a.hdf5") as file:
        expected = file["emg2qwerty"].attrs["keystrokes"]
    assert statics(open_store(tmp_path / "s.zarr")) == {"keystrokes": [expected]}


def test_episodes_of_aloha_have_every_value_of_h5py(tmp_path: Path) -> None:
    made = {f"episode_{n}": aloha(tmp_path / f"episode_{n}.hdf5", 20 + n, n) for n in range(3)}
    command = ["ingest", str(tmp_path / "episode_*.hdf5"), str(tmp_path / "s.zarr"), "--mapping", "aloha"]
    assert main([*command, "--leave-out", "cam_high,cam_low", "--quiet"]) == 0
    store = open_store(tmp_path / "s.zarr")
    for id_, expected in made.items():
        for name in ("action", "qpos", "qvel"):
            np.testing.assert_array_equal(vector(store, id_, name, 14), expected[name])
    assert statics(store) == {"sim": [1.0, 1.0, 1.0]}


def test_demonstrations_of_robomimic_have_every_value_of_h5py_and_the_splits_of_their_masks(tmp_path: Path) -> None:
    made = robomimic(tmp_path / "low_dim.hdf5")
    assert main(["ingest", str(tmp_path / "low_dim.hdf5"), str(tmp_path / "s.zarr"), "--mapping", "robomimic"]) == 0
    store = open_store(tmp_path / "s.zarr")
    for id_, expected in made.items():
        for name, width in (("actions", 7), ("states", 5), ("robot0_eef_pos", 3)):
            known = expected[name if name in expected else f"obs/{name}"]
            np.testing.assert_array_equal(vector(store, id_, name, width), known.astype("f4"))
        for name in ("rewards", "dones", "gripper"):
            known = expected[name if name in expected else f"obs/{name}"]
            np.testing.assert_array_equal(channel(store, id_, name), known.astype("f4"))
    facts = statics(store)
    assert facts["split"] == ["train", "train", "valid"]
    assert facts["mask_20_percent"] == [1.0, 0.0, 0.0]
    assert facts["num_samples"] == [12.0, 9.0, 15.0]
    assert "model_file" not in facts


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 6, 8), ("colour", "y", "x")), ((1, 6, 8), ("colour", "y", "x")), ((6, 8, 3), ("y", "x", "colour"))],
)
def test_images_with_their_colours_first_are_named_so(
    shape: tuple[int, ...], axes: tuple[str, ...], tmp_path: Path
) -> None:
    aloha(tmp_path / "e.hdf5", cameras=["cam"])
    frames = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    with h5py.File(tmp_path / "e.hdf5", "a") as file:
        del file["observations/images/cam"]
        file["observations/images/cam"] = frames
    zstore.ingest(tmp_path / "e.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store = open_store(tmp_path / "s.zarr")
    assert store.field("cam").dimensions == axes
    np.testing.assert_array_equal(store.read_field("cam", 0, 20), frames)


def test_images_of_aloha_and_robomimic_are_fields_with_every_value_of_h5py(tmp_path: Path) -> None:
    made = {f"episode_{n}": aloha(tmp_path / f"episode_{n}.hdf5", 7 + n, n) for n in range(2)}
    zstore.ingest(tmp_path / "episode_*.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store = open_store(tmp_path / "s.zarr")
    names = ["cam_high", "cam_low"]
    frames = {name: np.concatenate([made[id_]["images"][name] for id_ in made]) for name in names}
    for name in names:
        np.testing.assert_array_equal(zstore.open_field(store, name), frames[name])
    assert list(store.channels) == [f"{name}.{n}" for name in ("action", "qpos", "qvel") for n in range(14)]


# What all sources share.


@pytest.mark.parametrize("scheduler", [None, pytest.param("local", marks=pytest.mark.long)])
def test_one_and_two_workers_and_a_cluster_make_the_same_bytes(scheduler: str | None, tmp_path: Path) -> None:
    for n in range(2):
        session(tmp_path / f"{n}.h5", seed=n, n_rows=1500 + n)
    robomimic(tmp_path / "demos.hdf5", range(1, 20), images=True)
    for files, mapping in (("*.h5", "emg2pose"), ("demos.hdf5", "robomimic")):
        options: dict[str, Any] = {"mapping": mapping, **SMALL_GRID} if mapping == "robomimic" else {"mapping": mapping}
        zstore.ingest(tmp_path / files, tmp_path / f"one {mapping}.zarr", **options, workers=1)
        again = {**options, "workers": 2, "blocksize": 50_000, "scheduler": scheduler}
        zstore.ingest(tmp_path / files, tmp_path / f"two {mapping}.zarr", **again)
        assert stored(tmp_path / f"one {mapping}.zarr") == stored(tmp_path / f"two {mapping}.zarr")


def test_sessions_that_are_appended_are_those_of_one_ingest_with_their_static_attributes(tmp_path: Path) -> None:
    for n in range(3):
        session(tmp_path / f"{n}.h5", seed=n, n_rows=300 + n)
    options = ["--mapping", "emg2pose", "--quiet", "--append"]
    for name in ("1.h5", "[02].h5", "*.h5"):
        assert main(["ingest", str(tmp_path / name), str(tmp_path / "s.zarr"), *options]) == 0
    zstore.ingest(tmp_path / "*.h5", tmp_path / "whole.zarr", mapping="emg2pose")
    store, whole = open_store(tmp_path / "s.zarr"), open_store(tmp_path / "whole.zarr")
    assert store.version == 2
    assert statics(store) == statics(whole)
    for id_ in map(str, whole.ids):
        np.testing.assert_array_equal(vector(store, id_, "emg", 16), vector(whole, id_, "emg", 16))
        assert times(store, id_) == times(whole, id_)
    comparison = compare_sources(store, tmp_path / "*.h5")
    assert (comparison.n_rows, comparison.n_different, comparison.n_unseen) == (903, 0, 0)


def test_an_append_by_another_mapping_is_refused(tmp_path: Path) -> None:
    session(tmp_path / "a.h5")
    session(tmp_path / "b.h5", seed=1)
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")
    command = ["ingest", str(tmp_path / "b.h5"), str(tmp_path / "s.zarr"), "--append", "--mapping"]
    assert main([*command, "emg2qwerty"]) == 2
    assert main([*command, "emg2pose"]) == 0


@pytest.mark.parametrize("n_points", [4, pytest.param(60, marks=pytest.mark.long)])
def test_a_run_that_is_killed_anywhere_is_gone_on_with(n_points: int, tmp_path: Path) -> None:
    for n in range(2):
        session(tmp_path / f"{n}.h5", seed=n, n_rows=300)
    options: dict[str, Any] = {"mapping": "emg2pose", "workers": 1, **SMALL_GRID}
    options |= {"shard_rows": 256, "chunk_rows": 64}
    zstore.ingest(tmp_path / "*.h5", tmp_path / "whole/s.zarr", **options)
    words = [sys.executable, str(REPOSITORY / "tests/killer.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        for point in np.unique(np.linspace(0, 150, n_points, dtype=int)).tolist():
            folder = tmp_path / str(point)
            arguments = {"sources": str(tmp_path / "*.h5"), "store": str(folder / "s.zarr"), **options}
            wanted = {"point": point, "folder": str(folder), "operation": "ingest", "arguments": arguments}
            killer.stdin.write(json.dumps(wanted) + "\n")
            killer.stdin.flush()
            if int(killer.stdout.readline()) != 0:
                zstore.ingest(tmp_path / "*.h5", folder / "s.zarr", **options)
            assert stored(folder / "s.zarr") == stored(tmp_path / "whole/s.zarr")
        killer.stdin.close()


def test_the_dry_run_knows_the_rows_from_the_layout(tmp_path: Path) -> None:
    session(tmp_path / "a.h5", n_rows=3000)
    robomimic(tmp_path / "d.hdf5", [5, 7, 9])
    assert abs(plan_ingest(tmp_path / "a.h5", mapping="emg2pose").n_rows - 3000) <= 1
    assert abs(plan_ingest(tmp_path / "d.hdf5", mapping="robomimic").n_rows - 21) <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "d.hdf5"]
    aloha(tmp_path / "e.hdf5", n_rows=40)
    planned = plan_ingest(tmp_path / "e.hdf5", mapping="aloha")
    assert abs(planned.n_rows - 40) <= 1


def test_an_empty_text_is_missing_as_an_empty_cell_of_csv_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["run/label"] = np.array([b"rest", b"", b"fist", b"", b"rest"])
        file["run/nothing"] = np.array([b"", b"", b"", b"", b""], "S4")
        file["run/x"] = np.arange(5.0)
    channels = {name: name for name in ("label", "nothing", "x")}
    mapping = {"episodes": "run", "id": "file", "time": "rows", "channels": channels}
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping=mapping)
    store = open_store(tmp_path / "s.zarr")
    assert store.channel("label").categories == ("fist", "rest")
    assert np.isnan(store.read("label", 0, 5)).tolist() == [False, True, False, True, False]
    assert np.isnan(store.read("nothing", 0, 5)).all()


def test_a_clock_that_drifts_is_refused_with_the_way_to_count_rows(tmp_path: Path) -> None:
    drifting = 1.66e9 + np.arange(30_000) / (2000 * (1 + 2e-5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["run/time"], file["run/x"] = drifting, np.arange(30_000.0)
    mapping = {"episodes": "run", "id": "file", "time": {"data": "time", "rate": 2000}, "channels": {"x": "x"}}
    with pytest.raises(
        zstore.SourceError, match=r"time: \{rate: 2000\} in the mapping, which counts rows, for a clock that"
    ):
        zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping=mapping)
    receipt = zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping={**mapping, "time": {"rate": 2000}})
    assert (receipt.n_stored, receipt.n_runs) == (30_000, 1)
