"""HDF5 files as sources, in four layouts, with h5py's own reading of them as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hdf5files import QWERTY, aloha, robomimic, session
from numpy.typing import NDArray

import zstore
from zstore import Store, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources


def vector(store: Store, id_: str, name: str, width: int) -> NDArray[Any]:
    """(row, item) a vector of one series, as the store has it."""
    row = store.index.row_start
    position = [str(each) for each in store.ids].index(id_)
    start, stop = int(row[position]), int(row[position + 1])
    return np.stack([store.read(f"{name}.{item}", start, stop) for item in range(width)], axis=1)


def channel(store: Store, id_: str, name: str) -> NDArray[Any]:
    position = [str(each) for each in store.ids].index(id_)
    start, stop = store.index.row_start[position : position + 2].tolist()
    return np.asarray(store.read(name, start, stop))


def times(store: Store, id_: str) -> list[int]:
    position = [str(each) for each in store.ids].index(id_)
    start, stop = store.index.row_start[position : position + 2].tolist()
    return [int(time) for time in store.times(start, stop)]


def statics(store: Store) -> dict[str, list[Any]]:
    """By name, the value of each series."""
    return {
        static.name: [
            float(value) if static.categories is None else (static.categories[value] if value >= 0 else None)
            for value in static.values.tolist()
        ]
        for static in store.statics
    }


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


def test_images_of_aloha_and_robomimic_are_fields_with_every_value_of_h5py(tmp_path: Path) -> None:
    made = {f"episode_{n}": aloha(tmp_path / f"episode_{n}.hdf5", 7 + n, n) for n in range(2)}
    zstore.ingest(tmp_path / "episode_*.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store = open_store(tmp_path / "s.zarr")
    names = ["cam_high", "cam_low"]
    frames = {name: np.concatenate([made[id_]["images"][name] for id_ in made]) for name in names}
    for name in names:
        np.testing.assert_array_equal(zarr.open_array(tmp_path / "s.zarr" / name, mode="r")[:], frames[name])
    assert list(store.channels) == [f"{name}.{n}" for name in ("action", "qpos", "qvel") for n in range(14)]
