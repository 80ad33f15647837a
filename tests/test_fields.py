"""Fields: payloads are read in the order of their rows, stored as they are, and checked like all else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from conftest import few
from foreign import ForeignStore
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import zstore
from zstore.errors import SourceError
from zstore.writing.arguments import Request
from zstore.writing.plan import Reading
from zstore.writing.sources.payloads import FieldSpec, Payload, PayloadError, PayloadLook, origin_of

GRID: dict[str, Any] = {"chunk_rows": 8, "shard_rows": 16}


@dataclass(frozen=True)
class NpyFiles:
    """Reads one array of each file below a folder."""

    root: str

    def look(self, holder: str, position: int) -> PayloadLook:
        value = next(self.read(holder, [position])).value
        return PayloadLook(value.shape, str(value.dtype), value.nbytes)

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        path = Path(self.root, holder)
        if not path.is_file():
            raise PayloadError("no such file", "a file below the root")
        content, values = path.read_bytes(), np.load(path)
        for position in positions:
            yield Payload(values[position], xxhash.xxh3_128_digest(content + bytes([position])))

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        yield from [self.look(holder, position).n_bytes for position in positions]

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        path = Path(self.root, holder)
        return [origin_of((holder, n), str(path.stat().st_mtime_ns) if path.is_file() else "") for n in positions]

    def show(self, holder: str, position: int) -> str:
        return f"{holder}, number {position}"

    def to_json(self) -> dict[str, Any]:
        return {"root": self.root}


@pytest.fixture(autouse=True)
def with_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have every ingest read a field `image` that the columns `file` and `number` name."""
    plain = Request.reading

    def reading(self: Request, *arguments: Any) -> Reading:
        field = FieldSpec("image", NpyFiles(str(tmp_path)), "file", "number")
        return replace(plain(self, *arguments), fields=[field])

    monkeypatch.setattr(Request, "reading", reading)


def write_table(folder: Path, values: NDArray[Any], n_series: int = 2, seed: int = 0) -> Path:
    """Some values of two series, (series * time, …), in one file of each, and a table of them in no order."""
    n_times = len(values) // n_series
    rows = []
    for series in range(n_series):
        np.save(folder / f"s{series}.npy", values[series * n_times : (series + 1) * n_times])
        rows += [f"{series},{time},{time / 2},s{series}.npy,{time}" for time in range(n_times)]
    random.Random(seed).shuffle(rows)
    path = folder / "table.csv"
    path.write_text("\n".join(["id,time,v,file,number", *rows]) + "\n")
    return path


def ingest(folder: Path, values: NDArray[Any], name: str = "s.zarr", **options: Any) -> zstore.Store:
    """The store of a table of some values."""
    table = write_table(folder, values)
    zstore.ingest(table, folder / name, id="id", time="time", overwrite=True, **{**GRID, **options})
    return zstore.open_store(folder / name)


def objects(store: Path) -> dict[str, bytes]:
    """Everything in a store but root documents, which have names and times in them."""
    paths = [path for path in store.rglob("*") if path.is_file() and "root.json" not in path.name]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths if path != store / "zarr.json"}


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]


@settings(max_examples=few(25))
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: st.lists(st.integers(1, 4), min_size=1, max_size=3).flatmap(
            lambda shape: arrays(dtype, (40, *shape))
        )
    )
)
def test_every_value_of_a_field_comes_back_as_it_was(tmp_path_factory: Any, values: NDArray[Any]) -> None:
    folder = tmp_path_factory.mktemp("fields")
    with pytest.MonkeyPatch.context() as patch:
        with_images.__wrapped__(patch, folder)  # type: ignore[attr-defined]
        store = ingest(folder, values)
    stored = store.read_field("image", 0, 40)
    np.testing.assert_array_equal(values, stored.astype(values.dtype))
    assert list(zstore.verify(store).faults) == []


def test_zarr_and_numpy_read_a_field_as_an_array_over_rows(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    values = np.random.default_rng(0).integers(0, 2000, (60, 5, 4, 3)).astype(np.int16)
    ingest(tmp_path, values)
    array = zarr.open_group(tmp_path / "s.zarr", mode="r")["image"]
    assert array.metadata.dimension_names == ("row", "y", "x", "colour")
    np.testing.assert_array_equal(values, array[:60])


def test_floats_that_are_whole_and_fit_a_byte_are_stored_as_bytes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 6, 6)).astype(np.float32)
    assert ingest(tmp_path, values).read_field("image", 0, 1).dtype == "uint8"


@pytest.mark.parametrize("odd", [0.5, -0.0, 256.0, np.nan, np.inf, -1.0])
def test_one_value_that_is_no_byte_keeps_the_floats_of_all(tmp_path: Path, odd: float) -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 300, 300)).astype(np.float32)
    values[39, 299, 299] = odd  # behind what a sample of the first ones shows
    stored = ingest(tmp_path, values).read_field("image", 0, 40)
    assert values.tobytes() == stored.tobytes()


def test_fields_have_the_same_bytes_on_any_number_of_threads_and_blocks(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(80, 3, 2)).astype(np.float32)
    ingest(tmp_path, values, "one.zarr", workers=1)
    ingest(tmp_path, values, "two.zarr", workers=2, blocksize=200)
    one, two = (
        {key: content for key, content in objects(tmp_path / name).items() if not key.startswith("manifest")}
        for name in ("one.zarr", "two.zarr")
    )
    assert one == two


def test_a_row_without_a_payload_has_zeros_and_no_digest(tmp_path: Path) -> None:
    table = write_table(tmp_path, np.ones((8, 2, 2), np.int16))
    lines = table.read_text().splitlines()
    lines = [line.replace("s0.npy,2", ",") if line.startswith("0,2,") else line for line in lines]
    table.write_text("\n".join(lines) + "\n")
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="time", **GRID)
    store = zstore.open_store(tmp_path / "s.zarr")
    assert store.read_field("image", 0, 8)[:, 0, 0].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert np.flatnonzero(~store.payload_digests("image", 0, 8).any(axis=1)).tolist() == [2]


def test_a_payload_of_another_shape_is_refused_with_its_row_and_place(tmp_path: Path) -> None:
    table = write_table(tmp_path, np.ones((8, 2, 2), np.int16))
    np.save(tmp_path / "s1.npy", np.ones((4, 2, 3), np.int16))
    with pytest.raises(SourceError, match=r"of id '1' at 0: a value of shape \(2, 3\).*csv line \d+: s1.npy"):
        zstore.ingest(table, tmp_path / "s.zarr", id="id", time="time", **GRID)
    assert not (tmp_path / "s.zarr").exists()


def test_a_payload_that_is_missing_is_refused_with_its_row_and_place(tmp_path: Path) -> None:
    table = write_table(tmp_path, np.ones((8, 2, 2), np.int16))
    (tmp_path / "s1.npy").unlink()
    with pytest.raises(SourceError, match=r"image of id '1' at 0: no such file.*table.csv line \d+: s1.npy, number 0"):
        zstore.ingest(table, tmp_path / "s.zarr", id="id", time="time", **GRID)
    assert not (tmp_path / "s.zarr").exists()


def test_a_flipped_bit_of_a_field_is_told_by_verify_and_refused_when_read(tmp_path: Path) -> None:
    store = ingest(tmp_path, np.random.default_rng(0).normal(size=(40, 4, 4)).astype(np.float32))
    path = tmp_path / "s.zarr" / "image" / "c" / "1" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert any("image, rows 16 to 31" in fault for fault in zstore.verify(store).faults)
    with pytest.raises(zstore.CorruptionError, match="image/c/1/0/0"):
        zstore.open_store(tmp_path / "s.zarr").read_field("image", 16, 17)


def append_rows(folder: Path, rows: Sequence[tuple[int, int]], values: NDArray[Any], name: str) -> None:
    """Append rows of (series, time) with these values."""
    np.save(folder / f"{name}.npy", values)
    lines = [f"{series},{time},{time / 2},{name}.npy,{number}" for number, (series, time) in enumerate(rows)]
    (folder / f"{name}.csv").write_text("\n".join(["id,time,v,file,number", *lines]) + "\n")
    zstore.append(folder / f"{name}.csv", folder / "s.zarr")


def all_values(store: zstore.Store) -> dict[tuple[str, int], NDArray[Any]]:
    """Values of a field by id and time."""
    times, values = store.times(0, store.n_rows), store.read_field("image", 0, store.n_rows)
    ids = np.repeat(store.ids, store.index.row_size)
    return {(str(id_), int(time)): value for id_, time, value in zip(ids, times, values, strict=True)}


def same(left: dict[tuple[str, int], NDArray[Any]], right: dict[tuple[str, int], NDArray[Any]]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


@settings(max_examples=few(8))
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(20, 60)), min_size=1, max_size=25, unique=True),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-30, -1)), max_size=10, unique=True),
    st.booleans(),
)
def test_rows_that_are_appended_bring_their_payloads_late_ones_too(
    tmp_path_factory: Any, later: list[tuple[int, int]], late: list[tuple[int, int]], whole: bool
) -> None:
    folder, random_ = tmp_path_factory.mktemp("fields"), np.random.default_rng(len(later))
    with pytest.MonkeyPatch.context() as patch:
        with_images.__wrapped__(patch, folder)  # type: ignore[attr-defined]
        values = random_.integers(0, 256, (40, 3, 2)).astype(np.float32)
        expected = {(str(n // 20), n % 20): value for n, value in enumerate(values)}
        store = ingest(folder, values)
        for number, rows in enumerate((later, late)):
            if rows:
                more = random_.integers(0, 256, (len(rows), 3, 2)).astype(np.float32) + (0 if whole else number / 4)
                append_rows(folder, rows, more, f"more{number}")
                expected |= {(str(series), time): value for (series, time), value in zip(rows, more, strict=True)}
        store = zstore.open_store(folder / "s.zarr")
        assert same(expected, all_values(store))
        assert zstore.verify(store).faults == ()
        compact = zstore.compact(folder / "s.zarr")
        assert same(expected, all_values(compact))
        assert zstore.verify(compact).faults == ()
        assert zstore.gc(folder / "s.zarr")[0] > 0 or compact.version == store.version
        assert same(expected, all_values(zstore.open_store(folder / "s.zarr")))


def test_xarray_opens_a_field_as_a_lazy_array_with_named_dimensions(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    values = np.random.default_rng(0).integers(0, 2000, (60, 5, 4, 3)).astype(np.int16)
    store = ingest(tmp_path, values)
    for dataset in (store.to_xarray(), xarray.open_zarr(tmp_path / "s.zarr", consolidated=True)):
        assert dataset["image"].dims == ("row", "y", "x", "colour")
        np.testing.assert_array_equal(values, dataset["image"].values)
        np.testing.assert_array_equal(values[7:50:3, 1:3], dataset["image"][7:50:3, 1:3].values)
    np.testing.assert_array_equal(values[11], store.to_xarray()["image"][11].values)


@settings(max_examples=few(10))
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_windows_have_the_last_steps_of_a_field(
    tmp_path_factory: Any, lookback: int, horizon: int, steps: int, stride: int
) -> None:
    folder = tmp_path_factory.mktemp("fields")
    values = np.random.default_rng(0).integers(0, 256, (40, 3, 2)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        with_images.__wrapped__(patch, folder)  # type: ignore[attr-defined]
        store = ingest(folder, values)
    if (steps - 1) * stride >= lookback:
        with pytest.raises(zstore.UsageError, match="steps of 'image'"):
            store.windows(lookback, horizon, fields={"image": (steps, stride)}, cache=folder)
        return
    windows = store.windows(lookback, horizon, fields={"image": (steps, stride)}, cache=folder)
    batch = windows.batch(np.arange(len(windows))[::-1])
    starts, _, _ = windows.index.locate(np.arange(len(windows))[::-1])
    last = starts + lookback - 1
    expected = np.stack([values[last - stride * back] for back in range(steps)[::-1]], axis=1)
    np.testing.assert_array_equal(expected, batch["image"])
    assert batch["image"].dtype == np.uint8


@settings(max_examples=few(10))
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.sampled_from(["none", "repeat", "zero"]))
def test_windows_have_the_middle_of_each_row_where_a_crop_is_asked_for(
    tmp_path_factory: Any, height: int, width: int, n_axes: int, pad: Any
) -> None:
    folder = tmp_path_factory.mktemp("fields")
    values = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 2)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        with_images.__wrapped__(patch, folder)  # type: ignore[attr-defined]
        store = ingest(folder, values)
    crop = (height, width)[:n_axes]
    options: dict[str, Any] = {"pad_before": pad, "cache": folder}
    whole = store.windows(3, 1, fields={"image": 2}, **options)
    windows = store.windows(3, 1, fields={"image": zstore.FieldSteps(2, crop=crop)}, **options)
    top, left = (5 - height) // 2, (4 - width) // 2
    part = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))[: n_axes + 2]
    samples = np.arange(len(windows))
    np.testing.assert_array_equal(whole.batch(samples)["image"][part], windows.batch(samples)["image"])
    np.testing.assert_array_equal(windows[1]["image"], windows.batch(samples)["image"][1])


@pytest.mark.parametrize("crop", [(4, 1), (3, 3), (0, 2), (2, 2, 2), (-1,)])
def test_a_crop_that_is_not_within_the_rows_is_refused(tmp_path: Path, crop: tuple[int, ...]) -> None:
    store = ingest(tmp_path, np.ones((40, 3, 2), np.int16))
    with pytest.raises(zstore.UsageError, match=r"a crop of \[.*\] of field 'image'; expected .* \[3, 2\]"):
        store.windows(3, 1, fields={"image": zstore.FieldSteps(crop=crop)}, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_two_processes_share_one_file_of_a_field(tmp_path: Path) -> None:
    store = ingest(tmp_path, np.ones((40, 3, 2), np.int16))
    cache = tmp_path / "cache"
    first = zstore.open_field(store, "image", cache)
    states = {path: path.stat().st_mtime_ns for path in cache.glob("rows-*.f4")}
    second = zstore.open_field(zstore.open_store(tmp_path / "s.zarr"), "image", cache)
    np.testing.assert_array_equal(first, second)
    assert states == {path: path.stat().st_mtime_ns for path in cache.glob("rows-*.f4")}
    assert len(states) == 1


def test_batches_have_the_last_steps_of_a_field_beside_the_channels(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from lightning_app.data.batches.fields import FieldOptions
    from lightning_app.data.datamodule import WindowDataModule

    values = np.random.default_rng(0).integers(0, 256, (160, 3, 2)).astype(np.float32)
    store = ingest(tmp_path, values)
    data = WindowDataModule(
        store.path, 6, 2, channels=["v"], fields={"image": FieldOptions(2, 3)}, batch_size=7, cache=str(tmp_path)
    )
    assert data.shape.fields == {"image": [2, 3, 2]}
    index = data.index("test")
    n_windows = 0
    for batch in data.test_dataloader():
        n_rows = len(batch["x"])
        starts, _, _ = index.locate(np.arange(n_windows, n_windows + n_rows))
        expected = np.stack([values[starts + 2], values[starts + 5]], axis=1)
        image = dict(batch)["image"]
        assert isinstance(image, torch.Tensor)
        assert image.dtype == torch.uint8
        np.testing.assert_array_equal(expected, image.numpy())
        n_windows += n_rows
    assert len(index) == n_windows > 7


def test_batches_are_the_same_wherever_the_rows_of_a_field_live(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from lightning_app.data.batches.fields import FieldOptions
    from lightning_app.data.datamodule import WindowDataModule

    path = ingest(tmp_path, np.random.default_rng(0).integers(0, 256, (160, 3, 2)).astype(np.float32)).path
    usual: dict[str, Any] = {"channels": ["v"], "batch_size": 9, "cache": str(tmp_path)}
    for rows in ("host", "device"):
        modules = [
            WindowDataModule(path, 6, 2, residency=rows, fields={"image": FieldOptions(2, 3, place)}, **usual)
            for place in ("host", "device")
        ]
        assert [module.placement.fields for module in modules] == [{"image": "host"}, {"image": "device"}]
        for host, device in zip(*(module.train_dataloader() for module in modules), strict=True):
            assert host.keys() == device.keys()
            assert all(torch.equal(dict(host)[name], dict(device)[name]) for name in host)


def test_what_is_learned_of_training_rows_reads_no_field(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from lightning_app.data.datamodule import WindowDataModule

    path = ingest(tmp_path, np.ones((160, 3, 2), np.uint8)).path
    data = WindowDataModule(path, 6, 2, channels=["v"], fields={"image": 2}, cache=str(tmp_path))
    assert all("image" not in batch for batch in data.training_rows())


def test_fields_of_a_panel_of_too_many_steps_or_of_another_name_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from lightning_app.data.datamodule import WindowDataModule
    from lightning_app.data.rows.views import Panel

    path = ingest(tmp_path, np.ones((40, 3, 2), np.int16)).path
    usual: dict[str, Any] = {"fields": {"image": 1}, "cache": str(tmp_path)}
    for match, options in (
        ("of a panel", {"panel": Panel()}),
        ("4 steps of 'image'", {"fields": {"image": 4}}),
        ("no field 'picture'", {"fields": {"picture": 1}}),
    ):
        with pytest.raises(zstore.ZstoreError, match=match):
            WindowDataModule(path, 3, 1, **(usual | options))


def changed(field: dict[str, Any], nodes: dict[str, Any], name: str, value: Any) -> None:
    """Another value of a field in the root, and in the metadata of its array where that says the same."""
    field[name] = value
    if name == "shape" and isinstance(value, list):
        node = nodes["image"]
        node["shape"][1:] = value
        node["chunk_grid"]["configuration"]["chunk_shape"][1:] = value
        node["codecs"][0]["configuration"]["chunk_shape"][1:] = value
    if name == "stored":
        nodes["image"]["data_type"] = value
    if name == "shard_rows":
        nodes["image"]["chunk_grid"]["configuration"]["chunk_shape"][0] = value
    if name == "chunk_rows":
        nodes["image"]["codecs"][0]["configuration"]["chunk_shape"][0] = value


CRAFTED: list[tuple[str, Any]] = [
    ("name", 7),
    ("name", "\ud800"),
    ("variable", "../image"),
    ("variable", "time"),
    ("variable", "v"),
    ("variable", "index"),
    ("variable", ""),
    ("variable", None),
    ("stored", "object"),
    ("stored", "int16"),
    ("stored", "complex128"),
    ("stored", ["uint8"]),
    ("dtype", "datetime64[ns]"),
    ("dtype", "float16x"),
    ("shape", []),
    ("shape", [0, 2]),
    ("shape", [-1, 2]),
    ("shape", [1 << 40, 1 << 40]),
    ("shape", [1 << 31]),
    ("shape", [3.0, 2]),
    ("shape", [True, 2]),
    ("shape", [1] * 9),
    ("shape", "32"),
    ("dimensions", ["y"]),
    ("dimensions", ["y", "y"]),
    ("dimensions", ["y", 2]),
    ("dimensions", None),
    ("chunk_rows", 3),
    ("chunk_rows", 0),
    ("chunk_rows", 1 << 19),
    ("chunk_rows", 1e3),
    ("shard_rows", 32),
    ("shard_rows", 1 << 62),
    ("shard_rows", 4),
    ("codec", "pickle"),
    ("codec", "zstd-99"),
    ("units", 7),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a field of int32."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        with_images.__wrapped__(patch, folder)  # type: ignore[attr-defined]
        ingest(folder, np.arange(240, dtype=np.int32).reshape(40, 3, 2))
    return folder / "s.zarr"


@pytest.mark.parametrize(("name", "value"), CRAFTED, ids=[f"{name}-{value!r}"[:40] for name, value in CRAFTED])
def test_a_field_that_no_writer_wrote_is_refused_when_the_store_is_opened(
    sound: Path, tmp_path: Path, name: str, value: Any
) -> None:
    shutil.copytree(sound, tmp_path / "s.zarr")
    foreign = ForeignStore(tmp_path / "s.zarr")
    changed(foreign.document["fields"][0], foreign.nodes, name, value)
    foreign.sign()
    with pytest.raises(zstore.StoreError):
        zstore.open_store(tmp_path / "s.zarr").index  # noqa: B018  # read, and checked, here


def read_all(path: Path) -> None:
    """Read every row of a field, and every digest."""
    store = zstore.open_store(path)
    store.read_field("image", 0, 40)
    store.payload_digests("image", 0, 40)


@pytest.mark.parametrize("key", ["image/c/0/0/0", "image_digest/c/1/0"])
@pytest.mark.parametrize("what", ["absent", "empty", "short", "other"])
def test_a_shard_of_a_field_that_no_writer_wrote_is_refused(sound: Path, tmp_path: Path, key: str, what: str) -> None:
    shutil.copytree(sound, tmp_path / "s.zarr")
    foreign = ForeignStore(tmp_path / "s.zarr")
    content = (tmp_path / "s.zarr" / key).read_bytes()
    if what == "absent":
        del foreign.records[key]
    else:
        foreign.put(key, {"empty": b"", "short": content[40:], "other": bytes(len(content))}[what])
    foreign.sign()
    with pytest.raises(zstore.StoreError):
        read_all(tmp_path / "s.zarr")
    try:
        assert zstore.verify(zstore.open_store(tmp_path / "s.zarr")).faults
    except zstore.StoreError:
        return  # told before anything else is checked
