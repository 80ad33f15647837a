"""Batches of padded windows, of targets several rows apart, and of windows that are moved: those of a plain loop."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from padded import SHAPES, Plain, plain_windows

from lightning_app.audit import audit
from lightning_app.batch import Batch
from lightning_app.data.batches import padding
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.windows.splits import NAMES, NoWindowError
from zstore import Store, WindowShape, ingest, open_store

GAPS = {17, 18, 40}
USUAL: dict[str, Any] = {"scaler": "none", "batch_size": 5, "channels": ["v", "w"], "targets": ["w"], "future": ["u"]}


def written(
    folder: Path, irregular: bool = False, missing: float = 0.3, lengths: tuple[int, ...] = (60, 45, 3)
) -> Store:
    """Series with gaps and missing cells; `v` and `u` name their rows."""
    rng = np.random.default_rng(5)
    rows: list[list[Any]] = []
    for number, length in enumerate(lengths):
        for step in range(length):
            if step in GAPS and not irregular:
                continue
            blank = rng.random() < missing
            rows.append(
                [f"s{number}", step * (step + 1) if irregular else step, len(rows) + 1, step % 7, "" if blank else step]
            )
    table = write_table(folder / "r.csv", ["id", "t", "v", "u", "w"], rows)
    ingest(table, folder / "s.zarr", id="id", time="t", chunk_rows=16, shard_rows=64)
    return open_store(folder / "s.zarr")


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return written(tmp_path_factory.mktemp("gappy"))


@pytest.fixture(scope="module")
def irregular(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return written(tmp_path_factory.mktemp("irregular"), irregular=True)


def first_rows(loader: WindowLoader, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of the store at which the windows at some positions of the epoch begin."""
    index, samples, _ = loader._moved(positions)
    return index.locate(samples)[0]


def module(store: Store, shape: WindowShape, **options: Any) -> WindowDataModule:
    window = dataclasses.asdict(shape)
    given_ = {**USUAL, **window, "evaluation_stride": shape.stride, "cache": str(Path(store.path).parent / "cache")}
    return WindowDataModule(str(store.path), **{"memory_budget": "40kB", **given_, **options})


def columns(store: Store) -> dict[str, Any]:
    return {name: store.read(name, 0, store.n_rows).astype(np.float64) for name in store.channels}


def check(batch: Batch, n: int, window: Plain, shape: WindowShape, values: dict[str, Any]) -> None:
    """Compare a window of a batch with a plain one."""

    def expected(names: list[str], rows: list[tuple[int, bool, bool]]) -> Any:
        read = [[0.0 if zero else np.nan_to_num(values[name][row]) for name in names] for row, _, zero in rows]
        return np.array(read)

    np.testing.assert_array_equal(batch["x"][n].numpy(), expected(["v", "w"], window.inputs))
    np.testing.assert_array_equal(batch["y"][n].numpy(), expected(["w"], window.targets))
    np.testing.assert_array_equal(batch["x_future"][n].numpy(), expected(["u"], window.targets))
    seen = [not padded and not np.isnan(values["w"][row]) for row, padded, _ in window.targets]
    assert batch["mask"][n, :, 0].tolist() == seen
    if shape.padded:
        assert batch["x_pad"][n].tolist() == [padded for _, padded, _ in window.inputs]
        assert batch["y_pad"][n].tolist() == [padded for _, padded, _ in window.targets]
    assert ("x_pad" in batch) == ("y_pad" in batch) == shape.padded


@pytest.mark.parametrize("residency", ["host", "stream", "device"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    context=st.sampled_from(["allow", "forbid"]),
    name=st.sampled_from(["val", "test", "predict"]),
    whole=st.booleans(),
)
def test_batches_of_padded_windows_are_those_of_a_plain_loop(
    gappy: Store, residency: str, shape: WindowShape, context: Any, name: str, whole: bool
) -> None:
    split, enough = Split(sizes=(25, 14, 20), context=context), all if whole else any
    data = module(gappy, shape, residency=residency, split=split, predict_on="train", whole_targets=whole)
    values = columns(gappy)
    of = "train" if name == "predict" else name
    plain = plain_windows(gappy.index.runs, shape, data.view.ranges(of), context == "allow")  # type: ignore[arg-type]
    if name != "predict":
        plain = [window for window in plain if enough(not np.isnan(values["w"][row]) for row in window.real_targets)]
    if not plain:
        with pytest.raises(NoWindowError, match="no window in"):
            getattr(data, f"{name}_dataloader")()
        return
    loader, n_seen = getattr(data, f"{name}_dataloader")(), 0
    for batch in loader:
        for n in range(len(batch["x"])):
            check(batch, n, plain[n_seen], shape, values)
            n_seen += 1
    assert n_seen == len(plain)
    data.close()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=SHAPES,
    jitter=st.integers(0, 4),
    residency=st.sampled_from(["host", "stream", "device"]),
    irregular_times=st.booleans(),
    context=st.sampled_from(["allow", "forbid"]),
    epoch=st.integers(0, 3),
    whole_targets=st.booleans(),
)
def test_an_epoch_has_windows_of_a_plain_loop_each_moved_a_little_and_goes_on_in_its_middle(
    gappy: Store,
    irregular: Store,
    shape: WindowShape,
    jitter: int,
    residency: str,
    irregular_times: bool,
    context: Any,
    epoch: int,
    whole_targets: bool,
) -> None:
    store, by_time = (irregular, None) if irregular_times else (gappy, (40, 10, 5))
    split = Split(sizes=by_time, context=context) if by_time else Split(by="series", ids={"train": ["s0", "s2"]})

    enough = all if whole_targets else any

    def begun(n_batches: int) -> tuple[WindowDataModule, WindowLoader]:
        options = {"residency": residency, "jitter": jitter, "whole_targets": whole_targets, "memory_budget": "60kB"}
        data = module(store, shape, split=split, batch_size=4, **options)
        loader = data.train_dataloader()
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "consumed": n_batches})
        return data, loader

    try:
        data, loader = begun(0)
    except NoWindowError:
        return
    values, every, base = columns(store), dataclasses.replace(shape, stride=1), []
    plain = plain_windows(store.index.runs, every, data.view.ranges("train"), context == "allow")
    by_start, whole = {window.start: window for window in plain}, list(loader)
    for number, batch in enumerate(whole):
        positions = loader.shares.positions(number)
        unmoved = loader.index.locate(loader.samples_at(positions))[0].tolist()
        for n, row in enumerate(first_rows(loader, positions).tolist()):
            check(batch, n, by_start[row], shape, values)
            assert 0 <= row - unmoved[n] <= jitter
            assert enough(not np.isnan(values["w"][target]) for target in by_start[row].real_targets)
        base += unmoved
    assert len(set(base)) == len(whole) * loader.batch_size
    if len(whole) > 1:
        for batch, again in zip(whole[len(whole) // 2 :], begun(len(whole) // 2)[1], strict=True):
            assert all(torch.equal(batch[key], again[key]) for key in batch)  # type: ignore[literal-required]


PADDED = WindowShape(7, 5, -1, 2, 1, "repeat", "zero")
MOVED = [
    (PADDED, 0),
    (PADDED, 3),
    (WindowShape(7, 5, -7, 3, 2, "zero", "repeat"), 2),
    (WindowShape(6, 3, 1, 4, 1), 3),
    (WindowShape(6, 3, 0, 1, 3), 0),
]


@pytest.mark.parametrize(("shape", "jitter"), MOVED)
def test_a_stream_gives_every_padded_or_moved_window_of_the_host_once(
    gappy: Store, shape: WindowShape, jitter: int
) -> None:
    split = Split(sizes=(45, 10, 5))
    sides = [
        module(gappy, shape, residency=where, split=split, jitter=jitter, batch_size=1) for where in ("stream", "host")
    ]
    stream, host = (
        {(int(batch["series"][0]), int(batch["time"][0])): batch for batch in side.train_dataloader()} for side in sides
    )
    if not jitter:
        assert stream.keys() == host.keys()
        assert len(stream) == len(sides[0].index("train", shape.stride))
    values, runs = columns(gappy), gappy.index.runs
    fine = dataclasses.replace(shape, stride=1)
    plain = plain_windows(runs, fine, sides[0].view.ranges("train"), True)
    times = {
        (int(runs.series[w.run]), int(runs.time[w.run]) + w.start + shape.target_offset - int(runs.start[w.run])): w
        for w in plain
    }
    for side in (stream, host):
        for key, batch in side.items():
            check(batch, 0, times[key], shape, values)


@pytest.mark.parametrize("residency", ["host", "stream"])
@pytest.mark.parametrize(("shape", "jitter"), MOVED)
def test_an_epoch_of_padded_or_moved_windows_goes_on_in_its_middle_and_on_two_ranks(
    gappy: Store, shape: WindowShape, jitter: int, residency: str
) -> None:
    def fresh(rank: int = 0, world: int = 1) -> WindowLoader:
        data = module(gappy, shape, residency=residency, jitter=jitter, batch_size=4, memory_budget="60kB")
        loader = data.train_dataloader()
        loader.rank, loader.world = rank, world
        return loader

    whole = list(fresh())
    for consumed in (1, len(whole) // 2, len(whole) - 1):
        resumed = fresh()
        resumed.load_state_dict({**resumed.state_dict(), "epoch": 0, "consumed": consumed})
        for batch, again in zip(whole[consumed:], resumed, strict=True):
            assert all(torch.equal(batch[key], again[key]) for key in batch)  # type: ignore[literal-required]
    for batch, *parts in zip(whole, fresh(0, 2), fresh(1, 2), strict=True):
        for key in batch:
            both = torch.cat([part[key] for part in parts])  # type: ignore[literal-required]
            assert torch.equal(batch[key], both)  # type: ignore[literal-required]


@pytest.mark.parametrize(("shape", "n_rows"), [(WindowShape(6, 3, 0, 5, 1), 4), (PADDED, 1), (PADDED, 40)])
def test_jitter_starts_windows_up_to_so_many_rows_later_in_their_run_and_split(
    gappy: Store, shape: WindowShape, n_rows: int
) -> None:
    data = module(gappy, shape, jitter=n_rows, batch_size=1, split=Split(sizes=(35, 10, 15)))
    loader, values = data.train_dataloader(), columns(gappy)
    fine = dataclasses.replace(shape, stride=1)
    plain = {w.start: w for w in plain_windows(gappy.index.runs, fine, data.view.ranges("train"), True)}
    observed = {s for s, w in plain.items() if any(not np.isnan(values["w"][row]) for row in w.real_targets)}
    base = loader.index.locate(np.arange(len(loader.index)))[0].tolist()
    owner = {start: plain[start].run for start in base}
    allowed = {
        start: {s for s in observed if start <= s <= start + n_rows and plain[s].run == owner[start]} for start in base
    }
    found: dict[int, set[int]] = {start: set() for start in base}
    for epoch in range(60):
        loader.start_epoch(epoch)
        for number in range(len(loader)):
            position = np.arange(number, number + 1)
            start = int(loader.index.locate(loader.samples_at(position))[0][0])
            found[start].add(int(first_rows(loader, position)[0]))
    assert all(found[start] <= allowed[start] for start in base)
    if n_rows < 10:
        assert sum(found[start] == allowed[start] for start in base) > 0.9 * len(base)
    again = module(gappy, shape, jitter=n_rows, batch_size=1, split=Split(sizes=(35, 10, 15))).train_dataloader()
    loader.start_epoch(3), again.start_epoch(3)  # type: ignore[func-returns-value]
    assert np.array_equal(first_rows(loader, np.arange(20)), first_rows(again, np.arange(20)))


def test_validation_and_test_are_not_moved(gappy: Store) -> None:
    plain, moved = (module(gappy, PADDED, jitter=jitter, split=Split(sizes=(30, 15, 15))) for jitter in (0, 5))
    for name in ("val", "test", "predict"):
        for batch, other in zip(*(getattr(side, f"{name}_dataloader")() for side in (plain, moved)), strict=True):
            assert torch.equal(batch["x"], other["x"])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, context=st.sampled_from(["allow", "forbid"]))
def test_no_padded_window_has_a_target_of_another_split(gappy: Store, shape: WindowShape, context: Any) -> None:
    data = module(gappy, shape, split=Split(sizes=(30, 12, 15), context=context), jitter=2)
    found = audit(data)
    for part in found.parts:
        if part.n_windows:
            index = data.index(part.name, 1 if part.name == "train" else shape.stride)  # type: ignore[arg-type]
            start, stop = index.target_ranges()
            assert part.n_targets == (stop - start).sum()
            for other in NAMES:
                if other != part.name:
                    low, high = data.view.ranges(other)
                    assert not ((start[:, None] < high) & (stop[:, None] > low) & (low < high)).any()


def test_padded_rows_of_irregular_times_have_the_time_of_the_nearest_row(tmp_path: Path) -> None:
    store = written(tmp_path, irregular=True, missing=0)
    assert store.time.freq is None
    data = module(store, PADDED, split=Split(by="series", ids={"train": ["s0"], "val": ["s1"], "test": ["s2"]}))
    batch = next(iter(data.test_dataloader()))
    times = store.times(0, store.n_rows)[-3:]
    assert batch["time"].tolist() == [times[0], times[2]]
    assert batch["y_pad"].tolist() == [[False] * 3 + [True] * 2, [False] + [True] * 4]


@given(st.integers(1, 20), st.integers(1, 50), st.booleans(), st.integers(0, 99))
def test_many_rows_are_gathered_as_few_are(length: int, n_few: int, many: bool, seed: int) -> None:
    n_windows = n_few + (padding._FEW_ROWS // length if many else 0)
    random = np.random.default_rng(seed)
    rows = torch.from_numpy(random.random((200, 3), np.float32))
    first, last = np.sort(random.integers(0, 200, (2, n_windows)), axis=0)
    starts = random.integers(first - length + 1, last + 1)
    low, high = torch.from_numpy(first - starts), torch.from_numpy(last + 1 - starts)
    found = padding.gather_within(rows, torch.from_numpy(starts), length, padding.Reach(1, low, high))
    wanted = (starts[:, None] + np.arange(length)).clip(first[:, None], last[:, None])
    assert torch.equal(found, rows[torch.from_numpy(wanted)])
