"""Batches have the same fields wherever their rows live: decoded on the host or a device, encoded, or in a stream."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lightning_app.data.batches.threads
import zstore
from lightning_app.data.batches.behind import Copies, copied_behind
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import FieldPlace
from lightning_app.data.rows.pool import Pool
from lightning_app.data.windows.splits import Split

image = pytest.importorskip("PIL.Image")
pytest.importorskip("simplejpeg")

PLACES: tuple[FieldPlace, ...] = ("host", "device", "encoded", "stream")
SHAPE, CHUNK_BYTES = (4, 4, 4), 512  # so that 8 rows are a chunk
LENGTHS = (460, 8, 640, 492)


def table_of(files: list[str], lengths: tuple[int, ...] = LENGTHS) -> Any:
    """Rows of some series, whose column names a file of each."""
    ids = np.repeat([f"s{n}" for n in range(len(lengths))], lengths)
    times = np.concatenate([np.arange(n) for n in lengths])
    count = np.arange(len(ids))
    return pa.table({"id": ids, "t": times, "v": count % 17 / 4, "w": count * 1.0, "file": files, "n": count})


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> zstore.Store:
    """Two fields of arrays over 1,600 rows: a wide one in 201 chunks, and a narrow one."""
    folder = tmp_path_factory.mktemp("arrays")
    n_rows, random = sum(LENGTHS), np.random.default_rng(0)
    np.save(folder / "wide.npy", random.integers(0, 256, (n_rows, *SHAPE), np.uint8))
    np.save(folder / "narrow.npy", random.normal(size=(n_rows, 3, 2)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zstore.format.layout.CHUNK_BYTES", CHUNK_BYTES)
        store = ingest_arrays(folder, n_rows, {"chunk_rows": 64, "shard_rows": 512})
    assert zstore.FieldReader.of(store, "image").chunk_rows == 8
    return store


def ingest_arrays(folder: Path, n_rows: int, grid: dict[str, Any]) -> zstore.Store:
    """A store of `wide.npy` as the field `image`, and `narrow.npy` as `touch`."""
    table = table_of(["wide.npy"] * n_rows).append_column("narrow", pa.array(["narrow.npy"] * n_rows))
    files: dict[str, Any] = {
        "file": {"image": "file", "touch": "narrow"},
        "file_position": {"image": "n", "touch": "n"},
    }
    zstore.ingest(table, folder / "s.zarr", id="id", time="t", file_root=str(folder), **files, **grid)
    return zstore.open_store(folder / "s.zarr")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> zstore.Store:
    """A field of encoded images, JPEG and PNG."""
    folder, random, files = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number in range(80):
        files.append(f"{number}.{('jpg', 'png')[number % 2]}")
        coarse = image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((128, 96)).save(folder / files[-1])
    options: dict[str, Any] = {"file": {"image": "file"}, "file_root": str(folder), "keep_encoded": ["image"]}
    zstore.ingest(table_of(files, (40, 40)), folder / "e.zarr", id="id", time="t", **options)
    return zstore.open_store(folder / "e.zarr")


def module(store: zstore.Store, place: str, steps: int = 2, stride: int = 1, **options: Any) -> WindowDataModule:
    """Windows of a store with a field somewhere, and 30 kB for what is streamed."""
    usual: dict[str, Any] = {
        "lookback": 4,
        "horizon": 1,
        "channels": ["v"],
        "batch_size": 8,
        "split": Split(sizes=(0.6, 0.2, 0.2)),
        "cache": str(Path(store.path).parent / "cache"),
        "residency": "host",
        "fields": {"image": FieldOptions(steps, stride, place)},  # type: ignore[arg-type]
        "memory_budget": "30kB" if place == "stream" else 0.5,
    }
    return WindowDataModule(store.path, **(usual | options))


def values_of(batch: Any) -> dict[str, Tensor]:
    return dict(batch)


def same(ours: Any, theirs: Any) -> bool:
    ours, theirs = values_of(ours), values_of(theirs)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def epoch_of(loader: WindowLoader) -> tuple[list[tuple[int, int]], dict[str, Tensor]]:
    """All windows of an epoch in the order of series and time, which are their keys; each must come once."""
    batches = [values_of(batch) for batch in loader]
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    order = np.lexsort((whole["time"].numpy(), whole["series"].numpy()))
    whole = {name: values[torch.from_numpy(order)] for name, values in whole.items()}
    keys = list(zip(whole["series"].tolist(), whole["time"].tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    return keys, whole


def same_windows(ours: WindowLoader, theirs: WindowLoader) -> bool:
    """Whether the windows that two epochs have in common are the same; only those of their last batches may differ."""
    (our_keys, our_values), (their_keys, their_values) = epoch_of(ours), epoch_of(theirs)
    common = set(our_keys) & set(their_keys)
    assert len(our_keys) == len(their_keys)
    assert len(common) > len(our_keys) - ours.batch_size
    left, right = ([n for n, key in enumerate(keys) if key in common] for keys in (our_keys, their_keys))
    return same(*({n: v[rows] for n, v in each.items()} for each, rows in ((our_values, left), (their_values, right))))


def in_place(store: zstore.Store, data: WindowDataModule, steps: int, stride: int) -> bool:
    """Whether windows of a module have the rows of the field before their first target, or what is padded for them."""
    values = torch.from_numpy(store.read_field("image", 0, store.n_rows))
    for batch in data.train_dataloader():
        start = torch.from_numpy(store.index.row_start)[batch["series"]]
        back = torch.arange(steps - 1, -1, -1) * stride
        rows = start[:, None] + batch["time"][:, None] - 1 - back
        expected = values[torch.maximum(rows, start[:, None])]
        if data.window.pad_before == "zero":
            expected[rows < start[:, None]] = 0
        if not torch.equal(expected, values_of(batch)["image"]):
            return False
    return True


@settings(max_examples=8)
@given(
    steps=st.integers(1, 4),
    stride=st.integers(1, 3),
    batch_size=st.integers(5, 40),
    beyond=st.integers(0, 3),
    horizon=st.integers(1, 3),
    padding=st.sampled_from([{}, {"pad_before": "repeat", "pad_after": "zero"}, {"pad_before": "zero"}]),
    jitter=st.sampled_from([0, 0, 3]),
    crop=st.sampled_from([None, (3, 2)]),
)
def test_every_residency_gives_the_same_windows(
    arrays: zstore.Store,
    steps: int,
    stride: int,
    batch_size: int,
    beyond: int,
    horizon: int,
    padding: dict[str, str],
    jitter: int,
    crop: tuple[int, ...] | None,
) -> None:
    options: dict[str, Any] = {
        "lookback": (steps - 1) * stride + 1 + beyond,
        "horizon": horizon,
        "batch_size": batch_size,
        "split": Split(by="series", sizes=(0.5, 0.25, 0.25)),
        "jitter": jitter,
        **padding,
    }
    sides = []
    for place in PLACES:
        options["fields"] = {"image": FieldOptions(steps, stride, place, crop)}
        sides.append(module(arrays, place, memory_budget="70kB" if place == "stream" else 0.5, **options))
    assert [side.placement.fields["image"] for side in sides] == list(PLACES)
    for host, *others in zip(*(side.test_dataloader() for side in sides), strict=True):
        assert all(same(host, other) for other in others)
    *mapped, stream = sides
    for host, *others in zip(*(side.train_dataloader() for side in mapped), strict=True):
        assert all(same(host, other) for other in others)
    if jitter:  # windows may come twice, and follow their positions, which are others in a stream
        assert crop or in_place(arrays, stream, steps, stride)
    elif not crop:  # which follows positions too
        assert same_windows(stream.train_dataloader(), mapped[0].train_dataloader())
    for side in sides:
        side.close()


def test_batches_have_the_rows_that_were_ingested(arrays: zstore.Store) -> None:
    values = arrays.read_field("image", 0, arrays.n_rows)
    for place in PLACES:
        data = module(arrays, place, 2, 2)
        index = data.index("train")
        n_windows = 0
        for batch in data.train_dataloader():
            series, time = batch["series"].numpy(), batch["time"].numpy()
            first = arrays.index.row_start[series] + time  # of the target: times count from 0 in each series
            expected = np.stack([values[first - 3], values[first - 1]], axis=1)
            np.testing.assert_array_equal(expected, values_of(batch)["image"].numpy())
            n_windows += len(series)
        assert n_windows == len(index) // 8 * 8
        data.close()


def test_a_stream_of_an_eighth_decodes_each_chunk_of_the_field_once_an_epoch(arrays: zstore.Store) -> None:
    budget = arrays.n_rows * zstore.FieldReader.of(arrays, "image").row_bytes // 8
    with_channel = budget + arrays.n_rows * 4
    data = module(arrays, "stream", memory_budget=f"{with_channel}B", split=Split(sizes=(0.98, 0.01, 0.01)))
    loader, pool = data.train_dataloader(), data.pool
    assert isinstance(pool, Pool)
    assert pool.plan.n_bytes < budget
    n_chunks = zstore.FieldReader.of(arrays, "image").n_chunks_stored
    assert n_chunks == 200
    assert len(pool.plan.cuts) - 1 > 10 * pool.plan.pieces.active
    for epoch in range(3):
        for _ in loader:
            pass
        assert pool.n_decoded == (epoch + 1) * n_chunks
    data.close()


def test_channels_and_fields_are_streamed_together(arrays: zstore.Store) -> None:
    fields = {"image": FieldOptions(2, 1, "stream"), "touch": FieldOptions(1, 1, "stream")}
    options: dict[str, Any] = {"fields": fields, "batch_size": 5, "channels": ["v", "w"]}
    together = module(arrays, "stream", residency="stream", memory_budget="70kB", **options)
    assert together.placement.place == "stream"
    assert together.placement.streamed_fields == ["image", "touch"]
    apart = module(arrays, "stream", memory_budget="70kB", **options)
    host = module(arrays, "host", **(options | {"fields": {"image": FieldOptions(2), "touch": FieldOptions()}}))
    for side in (together, apart):
        assert same_windows(side.train_dataloader(), host.train_dataloader())
        side.close()


def test_channels_are_streamed_beside_fields_that_are_not(arrays: zstore.Store) -> None:
    options: dict[str, Any] = {"batch_size": 5, "channels": ["v", "w"]}
    expected = module(arrays, "host", **options).train_dataloader()
    for place in ("host", "encoded"):
        data = module(arrays, place, residency="stream", memory_budget="9kB", **options)
        assert same_windows(data.train_dataloader(), expected)
        data.close()


@pytest.mark.parametrize("place", PLACES)
def test_encoded_images_are_decoded_as_pillow_does_wherever_they_live(pictures: zstore.Store, place: str) -> None:
    contents = pictures.read_bytes("image", 0, 80)
    values = np.stack([np.asarray(image.open(io.BytesIO(content))) for content in contents])
    data = module(pictures, place, memory_budget="4.5MB" if place == "stream" else 0.5)
    assert data.shape.fields == {"image": [2, 96, 128, 3]}
    for batch in data.train_dataloader():
        first = pictures.index.row_start[batch["series"].numpy()] + batch["time"].numpy()
        expected = np.stack([values[first - 2], values[first - 1]], axis=1)
        np.testing.assert_array_equal(expected, values_of(batch)["image"].numpy())
    data.close()


@pytest.mark.parametrize("place", ["encoded", "stream"])
def test_an_epoch_goes_on_in_its_middle_with_the_same_batches(arrays: zstore.Store, place: str) -> None:
    whole = list(module(arrays, place).train_dataloader())
    for consumed in (1, 5, len(whole) - 1):
        data = module(arrays, place)
        resumed = data.train_dataloader()
        resumed.load_state_dict({**resumed.state_dict(), "epoch": 0, "consumed": consumed})
        rest = list(resumed)
        assert len(rest) == len(whole) - consumed
        assert all(same(ours, theirs) for ours, theirs in zip(rest, whole[consumed:], strict=True))
        data.close()


@pytest.mark.parametrize("place", ["host", "encoded", "stream"])
def test_an_epoch_of_a_stream_goes_on_wherever_rows_are_then(arrays: zstore.Store, place: str) -> None:
    before = module(arrays, "stream")
    loader = before.train_dataloader()
    whole = list(loader)
    state = {**loader.state_dict(), "consumed": 4}
    after = module(arrays, place, memory_budget="40kB" if place == "stream" else 0.5)
    after.take(before.state_dict(), False)
    resumed = after.train_dataloader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(whole) - 4
    assert all(same(ours, theirs) for ours, theirs in zip(rest, whole[4:], strict=True))
    for data in (before, after):
        data.close()


@pytest.mark.parametrize("place", PLACES)
def test_two_ranks_share_out_the_batches_of_one(arrays: zstore.Store, place: str) -> None:
    def loader(rank: int, n_ranks: int) -> WindowLoader:
        data = module(arrays, place)
        return WindowLoader(data.source, data.index("train"), 8, True, 1, rank, n_ranks, pool=data.pool)

    together = torch.cat if place != "stream" else lambda parts: torch.stack(parts, 1).flatten(0, 1)  # of lanes
    for whole, *parts in zip(loader(0, 1), loader(0, 2), loader(1, 2), strict=True):
        joined = {name: together([values_of(part)[name] for part in parts]) for name in values_of(whole)}
        assert same(whole, joined)


def test_validation_in_the_middle_of_an_epoch_of_a_stream_leaves_its_batches_as_they_are(
    arrays: zstore.Store,
) -> None:
    whole = list(module(arrays, "stream").train_dataloader())
    data, found = module(arrays, "stream"), []
    for number, batch in enumerate(data.train_dataloader()):
        found.append(batch)
        if number % 4 == 2:
            assert len(list(data.val_dataloader())) == len(data.val_dataloader())
    assert all(same(ours, theirs) for ours, theirs in zip(found, whole, strict=True))
    data.close()


def test_a_checkpoint_whose_epochs_mix_all_windows_does_not_go_on_in_a_stream(arrays: zstore.Store) -> None:
    before = module(arrays, "host")
    before.train_dataloader()
    after = module(arrays, "stream")
    after.take(before.state_dict(), False)
    with pytest.raises(zstore.UsageError, match=r"epochs mix all windows.*Fix: residency encoded or host for 'image'"):
        after.train_dataloader()


def test_threads_that_decode_a_field_end_with_the_module(arrays: zstore.Store) -> None:
    before = set(threading.enumerate())
    for place in ("encoded", "stream"):
        data = module(arrays, place, batch_size=40)
        next(iter(data.train_dataloader()))
        data.close()
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("decode")] == []


@pytest.mark.parametrize(
    ("budget", "residency", "expected"),
    [
        (0.5, "auto", {"image": "host", "touch": "host"}),
        ("4MB", "auto", {"image": "encoded", "touch": "host"}),
        ("3MB", "auto", {"image": "stream", "touch": "host"}),
        ("5MB", "stream", {"image": "encoded", "touch": "host"}),
    ],
)
def test_auto_says_where_a_field_lives_and_why(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    budget: float | str,
    residency: str,
    expected: dict[str, str],
) -> None:
    random, n_rows = np.random.default_rng(0), sum(LENGTHS)
    values = random.integers(0, 256, (n_rows, 40, 64), np.uint8)
    values[:, 32:] = 0  # a fifth
    np.save(tmp_path / "wide.npy", values)
    np.save(tmp_path / "narrow.npy", random.normal(size=(n_rows, 3, 2)).astype(np.float32))
    store = ingest_arrays(tmp_path, n_rows, {})
    reader = zstore.FieldReader.of(store, "image")
    assert (round(reader.decoded_bytes / 1e6, 1), round(reader.stored_bytes / 1e6, 1)) == (4.1, 3.3)
    fields = {"image": FieldOptions(2), "touch": FieldOptions()}
    with caplog.at_level(logging.INFO, "lightning_app"):
        data = module(store, "auto", fields=fields, memory_budget=budget, residency=residency)
        assert dict(data.placement.fields) == expected
    for name, place in expected.items():
        assert any(f"field '{name}', " in line and f"residency {place}, for" in line for line in caplog.messages)


def test_a_field_that_does_not_fit_on_the_device_is_refused_with_what_to_do(arrays: zstore.Store) -> None:
    with pytest.raises(zstore.UsageError, match=r"field 'image' of 0.00 GB in the memory of cpu; expected at most"):
        _ = module(arrays, "device", memory_budget="90kB").placement


def test_a_residency_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(zstore.UsageError, match="residency 'disk' of a field; expected one of auto, device, host"):
        FieldOptions(1, 1, "disk")  # type: ignore[arg-type]


def test_a_module_shows_its_fields_and_where_they_live(arrays: zstore.Store) -> None:
    assert "fields: image of the last 2 rows, encoded" in module(arrays, "encoded")._repr_html_()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("pad", ["none", "zero", "repeat"])
def test_batches_whose_fields_are_copied_behind_are_those_made_one_after_the_other(
    pad: Any, arrays: zstore.Store, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    fields = {"image": FieldOptions(2, crop=(3, 2)), "touch": FieldOptions(2, 2)}
    data = module(arrays, "host", fields=fields, pad_before=pad, pad_after=pad)
    loader = data.train_dataloader()
    one_by_one = list(loader)
    monkeypatch.setattr(lightning_app.data.batches.threads, "_LARGE_BYTES", 0)
    monkeypatch.setattr(lightning_app.data.batches.threads, "_BEHIND", (0, 1 << 20))
    loader.load_state_dict({**loader.state_dict(), "consumed": 3})
    assert loader.threads.behind
    behind = list(loader)
    assert len(behind) == len(one_by_one) - 3
    assert all(map(same, behind, one_by_one[3:]))


def test_a_test_on_several_threads_has_the_fields_of_one_on_one_thread(
    arrays: zstore.Store, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    data = module(arrays, "host", fields={"image": FieldOptions(2, crop=(3, 2)), "touch": FieldOptions(2, 2)})
    one_by_one = list(data.test_dataloader())
    monkeypatch.setattr(lightning_app.data.batches.threads, "_LARGE_BYTES", 0)
    monkeypatch.setattr(lightning_app.data.batches.threads, "_BEHIND", (0, 1 << 20))
    loader = data.test_dataloader()
    assert loader.threads.behind
    with torch.inference_mode():  # as Lightning tests; no other thread is in it
        assert all(map(same, list(loader), one_by_one))


@pytest.mark.parametrize("place", ["encoded", "stream"])
def test_what_is_decoded_for_each_batch_is_not_copied_behind(place: FieldPlace, arrays: zstore.Store) -> None:
    assert not module(arrays, place).train_dataloader().threads.behind


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("of_copy", [False, True])
def test_an_error_of_a_copy_is_raised_in_the_place_of_its_batch_and_leaves_no_thread(
    first: int, of_copy: bool, two_threads: None
) -> None:
    def task(number: int, later: Copies) -> list[int]:
        found: list[int] = []
        later.append(lambda: found.append(6 // (number - first if of_copy else 1)))
        return found if of_copy or number != first else [6 // 0]

    results = copied_behind((partial(task, number) for number in range(9)), 2)
    for number in range(max(first - 2 * (not of_copy), 0)):  # two are begun ahead
        assert next(results) == [6 // (number - first) if of_copy else 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]
