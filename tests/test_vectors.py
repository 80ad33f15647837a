"""Vectors: a name for channels that belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zstore
from lightning_app.data.datamodule import WindowDataModule

HEAD = "id,time,emg.0,emg.1,emg.2,joint.0,joint.2,q,q.0,q.1,rest"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> zstore.Store:
    folder = tmp_path_factory.mktemp("vectors")
    rows = [f"a,{n},{n},{n + 1},{n + 2},1,2,3,4,5,6" for n in range(60)]
    (folder / "t.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    zstore.ingest(folder / "t.csv", folder / "s.zarr", id="id", time="time")
    return zstore.open_store(folder / "s.zarr")


def test_channels_that_are_numbered_without_a_hole_are_a_vector_unless_a_channel_is_called_so(
    store: zstore.Store,
) -> None:
    assert store.vectors == {"emg": ("emg.0", "emg.1", "emg.2")}


def test_selecting_a_vector_selects_its_channels_in_order(store: zstore.Store) -> None:
    assert store.sel(channels=["rest", "emg"]).channels == ("rest", "emg.0", "emg.1", "emg.2")
    assert store.sel(channels="emg").channels == ("emg.0", "emg.1", "emg.2")


def test_a_vector_and_one_of_its_channels_are_refused(store: zstore.Store, tmp_path: Path) -> None:
    with pytest.raises(zstore.UsageError, match=r"'emg\.1' twice"):
        store.sel(channels=["emg", "emg.1"])
    with pytest.raises(zstore.UsageError, match=r"'emg\.1' more than once"):
        WindowDataModule(store.path, 4, 1, channels=["emg.1", "emg"], cache=str(tmp_path))


def test_a_data_module_takes_vectors_for_channels_and_targets(store: zstore.Store, tmp_path: Path) -> None:
    data = WindowDataModule(store.path, 4, 1, channels=["emg"], targets=["rest", "emg"], cache=str(tmp_path))
    assert data.inputs == ["emg.0", "emg.1", "emg.2"]
    assert data.targets == ["rest", "emg.0", "emg.1", "emg.2"]


def test_windows_and_pictures_take_vectors_for_channels_and_targets(store: zstore.Store, tmp_path: Path) -> None:
    windows = store.windows(4, 1, channels="rest", targets="emg", cache=str(tmp_path))
    expected = np.stack([store.read(f"emg.{n}", 4, 5) for n in range(3)], axis=-1)
    np.testing.assert_array_equal(expected, windows[0]["y"])
    assert windows[0]["x"].shape == (4, 1)
    with pytest.raises(zstore.NotFoundError, match="no channel 'leg'"):
        store.windows(4, 1, targets=["leg"], cache=str(tmp_path))
    assert len(store.plot(store.ids[0], ["emg", "rest"])) == 4


def test_a_note_on_the_channels_of_a_vector_is_one_note(tmp_path: Path) -> None:
    rows = [f"{n},0.1234567890{n},0.9876543210{n},1" for n in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["time,emg.0,emg.1,other", *rows]) + "\n")
    receipt = zstore.ingest(tmp_path / "t.csv", tmp_path / "s.zarr", time="time")
    assert [note for note in receipt.notes if "digits" in note] == [
        "emg.0 to emg.1 have 40 values with more digits than float32 keeps (about 7); --dtype float64 keeps them"
    ]
