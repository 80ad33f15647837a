"""Rows that have no value of a field: windows and batches say so, wherever rows live and however windows are padded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from payload_files import image, voxels
from torch import Tensor

import zstore
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import FieldPlace

N_ROWS = 40
SEEN = np.arange(2 * N_ROWS) % 3 != 1
PLACES: tuple[FieldPlace, ...] = ("host", "device", "encoded", "stream")


@pytest.fixture(scope="module", params=[(), ("camera",)], ids=["decoded", "kept"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> zstore.Store:
    """Two series, whose first row has a picture, the next none, the next one, and so on."""
    folder = tmp_path_factory.mktemp("lacking")
    table = []
    for row, seen in enumerate(SEEN.tolist()):
        if seen:
            image(folder / f"{row}.png", voxels((6, 5), np.uint8, seed=row) + 1)
        table.append(["ab"[row // N_ROWS], row % N_ROWS, row, f"{row}.png" if seen else ""])
    source = write_table(folder / "t.csv", ["id", "t", "v", "file"], table)
    files: dict[str, Any] = {"file": {"camera": "file"}, "file_root": folder, "keep_encoded": request.param}
    zstore.ingest(source, folder / "s.zarr", id="id", time="t", **files)
    return zstore.open_store(folder / "s.zarr")


def rows_of(batch: Any) -> Any:
    """(batch, step) rows of the last three inputs of windows whose targets follow, the nearest one where padded."""
    first = np.asarray(batch["series"]) * N_ROWS
    last = first + np.asarray(batch["time"]) - 1
    return np.maximum(last[:, None] - [2, 1, 0], first[:, None])


@pytest.mark.parametrize("pad", ["none", "repeat", "zero"])
def test_windows_say_which_steps_have_a_value(store: zstore.Store, tmp_path: Path, pad: zstore.Padding) -> None:
    windows = store.windows(4, 1, pad_before=pad, fields={"camera": 3}, cache=tmp_path)
    batch = windows.batch(np.arange(len(windows)))
    expected = SEEN[rows_of(batch)]
    if pad == "zero":
        expected &= ~batch["x_pad"][:, 1:]
    np.testing.assert_array_equal(expected, batch["camera_observed"])
    np.testing.assert_array_equal(expected, batch["camera"].any(axis=(2, 3)))
    assert windows[5]["camera_observed"].shape == (3,)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("pad", ["none", "repeat", "zero"])
def test_batches_say_which_steps_have_a_value_wherever_rows_live(
    store: zstore.Store, tmp_path: Path, place: FieldPlace, pad: zstore.Padding, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fields: dict[str, int | FieldOptions] = {"camera": FieldOptions(3, residency=place, crop=(4, 4))}
    data = WindowDataModule(store.path, 4, 1, pad_before=pad, fields=fields, batch_size=16, seed=1, cache=str(tmp_path))
    n_windows = 0
    for batch in data.train_dataloader():
        seen: Tensor = batch["camera_observed"]  # type: ignore[typeddict-item]
        expected = SEEN[rows_of(batch)]
        if pad == "zero":
            expected &= ~batch["x_pad"][:, 1:].numpy()
        np.testing.assert_array_equal(expected, seen.numpy())
        np.testing.assert_array_equal(expected, batch["camera"].numpy().any(axis=(2, 3)))  # type: ignore[typeddict-item]
        n_windows += len(seen)
    assert n_windows > 40
    assert "field 'camera' has no value in 27 of 80 rows: batches have zeros there, and camera_observed" in caplog.text


def test_a_field_of_which_every_row_has_a_value_says_nothing_of_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", voxels((20, 3)))
    table = [[n, n % 7, "a.npy", n] for n in range(20)]
    source = write_table(tmp_path / "t.csv", ["t", "v", "file", "n"], table)
    files: dict[str, Any] = {"file": {"touch": "file"}, "file_position": {"touch": "n"}, "file_root": tmp_path}
    zstore.ingest(source, tmp_path / "s.zarr", time="t", **files)
    assert (
        "touch_observed"
        not in zstore.open_store(tmp_path / "s.zarr").windows(2, 1, fields={"touch": 1}, cache=tmp_path)[0]
    )


def test_a_field_that_is_called_as_what_says_so_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", voxels((20, 3)))
    table = [[n, n % 7, "a.npy"] for n in range(20)]
    source = write_table(tmp_path / "t.csv", ["t", "v", "file"], table)
    both = {"touch": "file", "touch_observed": "file"}
    zstore.ingest(source, tmp_path / "s.zarr", time="t", file=both, file_root=tmp_path)
    store = zstore.open_store(tmp_path / "s.zarr")
    with pytest.raises(zstore.UsageError, match="a field called 'touch_observed'"):
        store.windows(2, 1, fields={"touch": 1, "touch_observed": 1}, cache=tmp_path)
    with pytest.raises(zstore.UsageError, match="a field called 'touch_observed'"):
        WindowDataModule(store.path, 2, 1, fields={"touch": 1, "touch_observed": 1}, cache=str(tmp_path)).setup("fit")
