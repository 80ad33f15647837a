"""Parts of images and volumes: at random in training, in the middle else, the same for whoever makes the batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import zstore
from lightning_app.batch import Batch
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.columns.vectors import VectorOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.options import options_by_name
from lightning_app.data.rows.fields import DecodedField
from lightning_app.data.rows.parts import Part
from lightning_app.data.windows.crops import Crops
from zstore import UsageError

HEIGHT, WIDTH, N_ROWS = 9, 7, 120
CROP = (4, 3)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two series whose images say where each of their values is: its row, its y and its x."""
    folder = tmp_path_factory.mktemp("coded")
    row, y, x = np.meshgrid(np.arange(N_ROWS), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    np.save(folder / "images.npy", np.stack([row, y, x], axis=-1).astype(np.uint8))
    np.save(folder / "volumes.npy", np.stack([row, y, x], axis=1).astype(np.int16))
    rows = [f"{n // 60},{n % 60},{n / 2},{n},images.npy,volumes.npy" for n in range(N_ROWS)]
    (folder / "t.csv").write_text("\n".join(["id,t,v,number,image,volume", *rows]) + "\n")
    zstore.ingest(
        folder / "t.csv", folder / "s.zarr", id="id", time="t", file={"image": "image", "volume": "volume"},
        file_root=folder, file_position={"image": "number", "volume": "number"}, channels=["v"],
    )  # fmt: skip
    return folder / "s.zarr"


def module(store: Path, cache: Path, **options: Any) -> WindowDataModule:
    fields = {"image": FieldOptions(3, 2, crop=CROP), "volume": FieldOptions(1, crop=(2, *CROP))}
    usual: dict[str, Any] = {"fields": fields, "batch_size": 8, "cache": str(cache), "channels": ["v"], "seed": 5}
    return WindowDataModule(str(store), 6, 1, **{**usual, **options})


def corners_of(images: torch.Tensor, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(batch, axis) where the parts of some windows lie, all of whose values say so."""
    values = images.numpy().astype(np.int64)
    first = values[:, 0, 0, 0, 1:]
    y, x = np.meshgrid(*map(np.arange, CROP), indexing="ij")
    inside = np.stack([y, x], axis=-1)
    for step, offset in enumerate((1, 3, 5)):
        np.testing.assert_array_equal(
            values[:, step, :, :, 0], np.broadcast_to(rows[:, None, None] + offset, (len(rows), *CROP))
        )
        np.testing.assert_array_equal(values[:, step, :, :, 1:], first[:, None, None] + inside)
    return first


def images_of(batch: Batch) -> torch.Tensor:
    images = dict(batch)["image"]
    assert isinstance(images, torch.Tensor)
    return images


def of_epoch(loader: WindowLoader, epoch: int) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
    """The first row of each window, and its batch, of an epoch."""
    loader._epoch = epoch - 1
    for number, batch in enumerate(loader):
        yield loader.index.locate(loader.samples(number))[0], dict(batch)


def test_training_windows_have_a_part_at_random_the_same_in_all_steps_and_another_in_each_epoch(
    coded: Path, tmp_path: Path
) -> None:
    data = module(coded, tmp_path)
    assert data.shape.fields == {"image": [3, *CROP, 3], "volume": [1, 2, *CROP]}
    loader, found = data.train_dataloader(), []
    for epoch in (0, 1):
        corners, volumes = [], []
        for rows, batch in of_epoch(loader, epoch):
            corners.append(corners_of(batch["image"], rows))
            volumes.append(batch["volume"][:, 0, :, 0, 0].numpy())
            assert batch["image"].dtype == torch.uint8
        found.append(np.concatenate(corners))
        drawn = Crops({"image": (6, 5), "volume": (2, 6, 5)}).drawn(np.arange(len(found[-1])), 5, epoch)
        np.testing.assert_array_equal(drawn["image"], found[-1])
        first = np.concatenate(volumes)[:, 0]  # of the axis that holds row, y and x
        np.testing.assert_array_equal(np.where(drawn["volume"][:, 0] == 1, drawn["volume"][:, 1], first), first)
    assert (found[0] != found[1]).any(axis=1).mean() > 0.5
    assert {tuple(corner) for corner in np.concatenate(found).tolist()} == {(y, x) for y in range(6) for x in range(5)}


@pytest.mark.parametrize("stage", ["val", "test", "predict"])
def test_all_other_windows_have_the_part_in_the_middle(coded: Path, tmp_path: Path, stage: str) -> None:
    data = module(coded, tmp_path)
    for rows, batch in of_epoch(getattr(data, f"{stage}_dataloader")(), 0):
        assert (corners_of(batch["image"], rows) == [(HEIGHT - 4) // 2, (WIDTH - 3) // 2]).all()


def test_a_window_has_the_same_part_on_any_number_of_ranks_and_threads_and_after_a_resume(
    coded: Path, tmp_path: Path
) -> None:
    data = module(coded, tmp_path)
    whole = data.train_dataloader()
    expected: list[dict[str, Any]] = [dict(batch) for batch in whole]
    options: dict[str, Any] = {"shuffle": True, "seed": 5, "crops": whole._crops}
    ranks = [WindowLoader(data.source, whole.index, 8, rank=rank, world=4, **options) for rank in range(4)]
    for number, parts in enumerate(zip(*ranks, strict=True)):
        assert torch.equal(expected[number]["image"], torch.cat([images_of(part) for part in parts]))
    resumed = WindowLoader(data.source, whole.index, 8, **options)
    resumed.load_state_dict({"epoch": 0, "consumed": 3, "n_batches": len(whole)})
    prefetched = WindowLoader(data.source, whole.index, 8, prefetch=2, **options)
    prefetched.load_state_dict({"epoch": 0, "consumed": 3, "n_batches": len(whole)})
    for loader in (resumed, prefetched):
        left: list[dict[str, Any]] = [dict(batch) for batch in loader]
        assert len(left) == len(expected) - 3 > 3
        for batch, other in zip(left, expected[3:], strict=True):
            assert all(torch.equal(batch[name], other[name]) for name in ("image", "volume", "x"))


def test_parts_are_the_same_wherever_the_rows_of_a_field_live(coded: Path, tmp_path: Path) -> None:
    batches = []
    for place in ("host", "device", "encoded"):
        data = module(coded, tmp_path, fields={"image": FieldOptions(3, 2, place, CROP)})
        assert data.placement.fields == {"image": place}
        batches.append([images_of(batch) for batch in data.train_dataloader()])
    for host, *others in zip(*batches, strict=True):
        assert all(torch.equal(host, other) for other in others)


def test_windows_of_a_stream_have_the_parts_that_are_drawn_for_their_positions(coded: Path, tmp_path: Path) -> None:
    data = module(coded, tmp_path, fields={"image": FieldOptions(3, 2, "stream", CROP)})
    assert data.placement.fields == {"image": "stream"}
    found = [corners_of(batch["image"], rows) for rows, batch in of_epoch(data.train_dataloader(), 2)]
    drawn = Crops({"image": (6, 5)}).drawn(np.arange(sum(map(len, found))), 5, 2)
    np.testing.assert_array_equal(drawn["image"], np.concatenate(found))
    data.close()


def test_padded_windows_have_the_part_of_the_first_row_again_or_zeros(coded: Path, tmp_path: Path) -> None:
    repeated, zeros = (module(coded, tmp_path, pad_before=pad, batch_size=16) for pad in ("repeat", "zero"))
    n_padded = 0
    for (rows, batch), (_, other) in zip(*(of_epoch(d.train_dataloader(), 0) for d in (repeated, zeros)), strict=True):
        images, padded = batch["image"].numpy(), batch["x_pad"][:, [1, 3, 5]].numpy()
        first = batch["series"].numpy() * 60
        expected = np.maximum(rows[:, None] + (1, 3, 5), first[:, None])
        np.testing.assert_array_equal(images[..., 0], np.broadcast_to(expected[..., None, None], images.shape[:-1]))
        assert (images[..., 1:] == images[:, :1, ..., 1:]).all()
        np.testing.assert_array_equal(np.where(padded[..., None, None, None], 0, images), other["image"].numpy())
        n_padded += int(padded.sum())
    assert n_padded > 9


def test_what_is_drawn_is_uniform_and_independent_between_positions_axes_and_fields() -> None:
    room = {"front": (12, 5), "side": (12, 5)}
    drawn = Crops(room).drawn(np.arange(40_000), 3, 1)
    for name in room:
        counts = np.bincount(drawn[name] @ [5, 1], minlength=60)
        assert len(counts) == 60
        assert (np.abs(counts - 40_000 / 60) < 6 * math.sqrt(40_000 / 60)).all()
    columns = [*drawn["front"].T, *drawn["side"].T, drawn["front"][1:, 0], drawn["front"][:-1, 0]]
    size = min(map(len, columns))
    correlations = np.corrcoef([column[:size] for column in columns])
    assert (np.abs(correlations - np.round(correlations)) < 0.03).all()
    np.testing.assert_array_equal(Crops({"side": (12, 5)}).drawn(np.arange(9, 40), 3, 1)["side"], drawn["side"][9:40])
    assert (Crops(room).drawn(np.arange(99), 4, 1)["side"] != drawn["side"][:99]).any()


@given(st.data())
def test_a_part_of_some_rows_is_what_slices_of_them_are(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    n_axes = data.draw(st.integers(1, len(shape)))
    lengths = tuple(data.draw(st.integers(1, length)) for length in shape[:n_axes])
    dtype = data.draw(st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.bool]))
    values = torch.randint(0, 99, (data.draw(st.integers(1, 6)), *shape)).to(dtype)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(values) - 1), max_size=9)), dtype=torch.int64)
    room = [length - size for length, size in zip(shape, lengths, strict=False)]
    corners = [[data.draw(st.integers(0, most)) for most in room] for _ in rows]
    part = Part(torch.tensor(corners, dtype=torch.int64).view(len(rows), n_axes), lengths)
    expected = [
        values[row][tuple(slice(low, low + size) for low, size in zip(corner, lengths, strict=True))].flatten()
        for row, corner in zip(rows.tolist(), corners, strict=True)
    ]
    n_values = math.prod((*lengths, *shape[n_axes:]))
    out = torch.empty(len(rows), n_values, dtype=dtype) if data.draw(st.booleans()) else None
    found = DecodedField(values).take(rows, out, part)
    assert found.shape == (len(rows), n_values)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert out is None or out.data_ptr() == found.data_ptr()


def test_a_part_of_a_row_that_there_is_not_is_refused() -> None:
    values = DecodedField(torch.zeros(3, 4, 4))
    for row in (-1, 3):
        with pytest.raises(IndexError):
            values.take(torch.tensor([0, row]), None, Part(torch.zeros(2, 2, dtype=torch.int64), (2, 2)))


@pytest.mark.parametrize("crop", [(10, 3), (4, 8), (4, 3, 4), (4, 3, 3, 1), (0, 3)])
def test_a_crop_that_is_not_within_the_rows_is_one_error_before_anything_is_decoded(
    coded: Path, tmp_path: Path, crop: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match=r"a crop of \[.*\] of field 'image'; expected .* \[9, 7, 3\].*smaller crop"):
        module(coded, tmp_path, fields={"image": FieldOptions(1, crop=crop)})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_keeps_its_crop_and_refuses_another_one(coded: Path, tmp_path: Path) -> None:
    state = copy.deepcopy(module(coded, tmp_path).state_dict())
    silent = module(coded, tmp_path, fields=None)
    silent.load_state_dict(state)
    assert silent.shape.fields == {"image": [3, *CROP, 3], "volume": [1, 2, *CROP]}
    for rows, batch in of_epoch(silent.train_dataloader(), 0):
        corners_of(batch["image"], rows)
    other = module(coded, tmp_path, fields={"image": FieldOptions(3, 2, crop=(5, 3)), "volume": 1})
    with pytest.raises(
        UsageError, match=r"on fields image \(3 steps, 2 rows apart, cropped to 4 × 3\), volume \(1 step, "
    ):
        other.load_state_dict(state)
    wrongs: list[Any] = [{"image": [10, 3]}, {"image": []}, {"sound": [1]}, {"image": "12"}, {"image": [4, 3, 3, 3]}, 7]
    for wrong in wrongs:
        broken = {**state, "meaning": {**state["meaning"], "crops": wrong}}
        with pytest.raises(UsageError, match="does not say what its columns mean"):
            module(coded, tmp_path).load_state_dict(broken)
    older = {**state, "meaning": {name: part for name, part in state["meaning"].items() if name != "crops"}}
    uncropped = module(coded, tmp_path, fields=None)
    uncropped.load_state_dict(older)
    assert uncropped.shape.fields == {"image": [3, HEIGHT, WIDTH, 3], "volume": [1, 3, HEIGHT, WIDTH]}


def test_fields_and_vectors_are_told_as_numbers_options_or_dictionaries() -> None:
    """In Python as in YAML; a name that is no option is refused."""
    asked = FieldOptions(2, crop=(3, 4))
    found = options_by_name("fields", FieldOptions, {"a": 2, "b": asked, "c": {"steps": 2, "crop": [3, 4]}})
    assert found == {"a": FieldOptions(2), "b": asked, "c": asked}
    assert options_by_name("vectors", VectorOptions, {"v": {"steps": 2, "stride": 5}}) == {"v": VectorOptions(2, 5)}
    with pytest.raises(UsageError, match=r"a of --data.fields with 'croop'; expected some of steps, stride"):
        options_by_name("fields", FieldOptions, {"a": {"croop": [3, 4]}})
