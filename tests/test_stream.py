"""Stream: rows that do not fit into memory, read in pieces, give the windows that the rest gives."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from lightning_app.data.batches import threads
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.pool import Pool
from lightning_app.data.rows.pool_plan import PoolPlan
from lightning_app.data.rows.readers import StoreReader
from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.order import shuffled
from lightning_app.data.windows.pooled import PooledOrder, cut_pieces
from lightning_app.data.windows.splits import Split
from zstore import CorruptionError, Store, UsageError, WindowIndex, WindowShape, ingest, open_store
from zstore.format.index import RunTable

READING: dict[str, Any] = {"id": "id", "time": "t", "chunk_rows": 64, "shard_rows": 256}


def many(path: Path, n_series: int = 12, n_times: int = 180, irregular: bool = False) -> Path:
    """Series of several lengths with missing cells; each value names its row."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(n_series):
        for step in range(n_times - 7 * number):
            when = step * step if irregular else step
            missing = rng.random() < 0.3
            rows.append([f"s{number:02d}", when, number * 1000 + step, "" if missing else step % 10, step / 4])
    return write_table(path, ["id", "t", "v", "w", "u"], rows)


@pytest.fixture
def chunky(tmp_path: Path) -> Store:
    """Some 1,700 rows in chunks of 64."""
    ingest(many(tmp_path / "r.csv"), tmp_path / "s.zarr", **READING)
    store = open_store(tmp_path / "s.zarr")
    assert store.schema.chunk_rows == 64
    return store


def module(store: Store, tmp_path: Path, residency: str, budget: str = "14kB", **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": 9, "horizon": 3, "batch_size": 16, "cache": str(tmp_path / "cache"), **options}
    return WindowDataModule(str(store.path), residency=residency, memory_budget=budget, **given)  # type: ignore[arg-type]


def by_window(loader: WindowLoader) -> dict[tuple[int, int], dict[str, Any]]:
    """All windows of an epoch by series and time; each must come once."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for batch in loader:
        for n in range(len(batch["series"])):
            key = int(batch["series"][n]), int(batch["time"][n])
            assert key not in found
            found[key] = {name: values[n] for name, values in batch.items()}  # type: ignore[index]
    return found


def same(ours: dict[Any, Any], theirs: dict[Any, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for key, window in ours.items():
        for name, values in window.items():
            assert torch.equal(values, theirs[key][name]), (key, name)


@settings(max_examples=few(60))
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    shape=st.builds(WindowShape, st.integers(1, 6), st.integers(1, 4), st.just(0), st.integers(1, 5)),
    least=st.integers(1, 30),
    active=st.integers(1, 6),
    shuffle=st.booleans(),
    batch=st.integers(1, 20),
    epoch=st.integers(0, 5),
)
def test_every_window_comes_once_and_with_the_pieces_of_its_step(
    sizes: list[int], shape: WindowShape, least: int, active: int, shuffle: bool, batch: int, epoch: int
) -> None:
    stops = np.cumsum(np.array(sizes, np.int64))
    index = WindowIndex.build(RunTable(stops - sizes, stops, np.arange(len(sizes)), stops * 0), shape, 1)
    cuts = cut_pieces(np.arange(0, int(stops[-1]), 7), int(stops[-1]), max(shape.span, least), shape.span)
    assert len(cuts) == 2 or np.diff(cuts).min() >= shape.span
    order = PooledOrder(index, cuts, active if shuffle else 1, shuffle, 3, epoch)
    seen: list[int] = []
    for low in range(0, len(index), batch):
        positions = np.arange(low, min(low + batch, len(index)))
        samples, turns = order.at(positions)
        first, last = order.turns_of(low, int(positions[-1]) + 1)
        assert np.all((turns >= first) & (turns <= last))
        start, piece = index.locate(samples)[0], order.piece[turns]
        before = start < cuts[piece]
        behind = start + order.halo >= cuts[piece + 1]
        assert np.all(order.turn[piece[before] - 1] < turns[before])
        assert np.all(order.turn[piece[behind] + 1] < turns[behind])
        assert np.all((start >= cuts[piece] - order.halo) & (start < cuts[piece + 1]))
        seen += samples.tolist()
    assert (sorted(seen) if shuffle else seen) == list(range(len(index)))


@given(st.lists(st.integers(1, 70), min_size=1, max_size=8), st.integers(0, 2**40), st.integers(0, 9))
def test_parts_are_permuted_each_by_itself(sizes: list[int], seed: int, epoch: int) -> None:
    part = np.repeat(np.arange(len(sizes)), sizes)
    position = np.concatenate([np.arange(size) for size in sizes])
    found = shuffled(position, np.repeat(sizes, sizes), seed, epoch, part)
    assert all(sorted(found[part == n].tolist()) == list(range(size)) for n, size in enumerate(sizes))


@pytest.mark.parametrize("stride", [1, 5, 30])
@pytest.mark.parametrize("options", [{}, {"targets": ["w"], "future": ["u"], "observed_inputs": True}])
def test_a_stream_gives_every_window_of_the_host_once(
    chunky: Store, tmp_path: Path, stride: int, options: dict[str, Any]
) -> None:
    options = {"stride": stride, "split": Split(sizes=(0.7, 0.2, 0.1)), "batch_size": 7, **options}
    sides = [module(chunky, tmp_path, residency, **options) for residency in ("stream", "host")]
    assert [side.placement.place for side in sides] == ["stream", "host"]
    for stage in ("train", "val", "test", "predict"):
        stream, host = (getattr(side, f"{stage}_dataloader")() for side in sides)
        assert len(stream) == len(host)
        if stage != "train":
            for ours, theirs in zip(stream, host, strict=True):
                assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
            continue
        ours, theirs = by_window(stream), by_window(host)
        n_windows = len(host) * host.batch_size  # a last batch that is not whole is left out, another in each order
        assert len(ours) == len(theirs) == n_windows
        common = ours.keys() & theirs.keys()
        assert len(common) >= 2 * n_windows - len(host.index)
        same({key: ours[key] for key in common}, {key: theirs[key] for key in common})


def test_a_pool_of_an_eighth_decodes_each_chunk_once_an_epoch(tmp_path: Path) -> None:
    ingest(many(tmp_path / "r.csv", 20, 400), tmp_path / "s.zarr", **READING)
    store = open_store(tmp_path / "s.zarr")
    budget = store.n_rows * 15 // 8
    options = {"lookback": 3, "horizon": 1, "split": Split(sizes=(0.98, 0.01, 0.01))}
    data = module(store, tmp_path, "stream", f"{budget}B", **options)
    loader = data.train_dataloader()
    pool = data.pool
    assert pool is not None
    assert pool.plan.n_bytes < budget
    assert len(pool.plan.cuts) - 1 == store.n_chunks(0, store.n_rows) > 4 * pool.plan.n_slots  # pieces are chunks
    for epoch in range(3):
        for _ in loader:
            pass
        assert pool.n_decoded == (epoch + 1) * (len(pool.plan.cuts) - 1)


def test_windows_reach_over_the_borders_of_pieces_and_extents(tmp_path: Path) -> None:
    table = many(tmp_path / "r.csv").read_text().splitlines()
    header, rows = table[0], table[1:]
    steps = np.array([int(row.split(",")[1]) for row in rows])
    for number, low in enumerate((0, 60, 100)):
        taken = [row for row, step in zip(rows, steps, strict=True) if low <= step < (60, 100, 999)[number]]
        (tmp_path / f"{number}.csv").write_text("\n".join([header, *taken]) + "\n")
        if number:
            zstore.append(tmp_path / f"{number}.csv", tmp_path / "s.zarr")
        else:
            ingest(tmp_path / "0.csv", tmp_path / "s.zarr", **READING)
    store = open_store(tmp_path / "s.zarr")
    assert not store.index.contiguous
    sides = [module(store, tmp_path, residency, budget="32kB", batch_size=1) for residency in ("stream", "host")]
    ours, theirs = (by_window(side.train_dataloader()) for side in sides)
    same(ours, theirs)
    assert len(ours) == len(sides[0].index("train"))


def test_irregular_times_come_with_the_pieces(tmp_path: Path) -> None:
    ingest(many(tmp_path / "r.csv", irregular=True), tmp_path / "s.zarr", **READING)
    store = open_store(tmp_path / "s.zarr")
    assert store.schema.time.freq is None
    options: dict[str, Any] = {"batch_size": 1, "lookback": 1, "horizon": 1, "delay": -1}
    sides = [module(store, tmp_path, residency, **options) for residency in ("stream", "host")]
    same(*(by_window(side.train_dataloader()) for side in sides))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_goes_on_in_its_middle_with_the_same_batches(chunky: Store, tmp_path: Path, prefetch: int) -> None:
    def fresh() -> WindowLoader:
        loader = module(chunky, tmp_path, "stream", stride=2).train_dataloader()
        loader._prefetch = prefetch
        return loader

    whole = [batch["x"] for batch in fresh()]
    for consumed in (1, 7, len(whole) - 1):
        resumed = fresh()
        resumed.load_state_dict({**resumed.state_dict(), "epoch": 0, "consumed": consumed})
        rest = [batch["x"] for batch in resumed]
        assert all(torch.equal(a, b) for a, b in zip(whole[consumed:], rest, strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_global_batches_of_a_stream_do_not_depend_on_the_number_of_ranks(
    chunky: Store, tmp_path: Path, world: int
) -> None:
    def loader(rank: int, n_ranks: int) -> WindowLoader:
        data = module(chunky, tmp_path, "stream")
        source, index = data.source, data.index("train")
        return WindowLoader(source, index, 16, True, 1, rank, n_ranks, pool=data.pool)

    alone = list(loader(0, 1))
    for batch, *parts in zip(alone, *(loader(rank, world) for rank in range(world)), strict=True):
        assert torch.equal(batch["x"], torch.cat([part["x"] for part in parts]))


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches are made on other threads, however small they are."""
    monkeypatch.setattr(threads, "_LARGE_BYTES", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_pieces_are_decoded_once_an_epoch_where_batches_are_made_ahead(
    chunky: Store, tmp_path: Path, ahead: None
) -> None:
    data = module(chunky, tmp_path, "stream")
    batches, pool = data.train_dataloader(), data.pool
    assert pool is not None
    for epoch in range(3):
        for _ in batches:
            pass
        assert pool.n_decoded == (epoch + 1) * (len(pool.plan.cuts) - 1)


def test_two_epochs_at_once_have_the_batches_of_each(chunky: Store, tmp_path: Path, ahead: None) -> None:
    def fresh() -> tuple[WindowDataModule, WindowLoader, WindowLoader]:
        data = module(chunky, tmp_path, "stream")
        return data, data.train_dataloader(), data.val_dataloader()

    _, train, val = fresh()
    expected = [batch["x"] for batch in train], [batch["x"] for batch in val]
    _, train, val = fresh()
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for first, second in zip_longest(train, val):
        for batches, batch in zip(found, (first, second), strict=True):
            if batch is not None:
                batches.append(batch["x"])
    for batches, others in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batches, others, strict=True))


def test_validation_in_the_middle_of_an_epoch_leaves_its_batches_as_they_are(chunky: Store, tmp_path: Path) -> None:
    whole = [batch["x"] for batch in module(chunky, tmp_path, "stream").train_dataloader()]
    data = module(chunky, tmp_path, "stream")
    found = []
    for number, batch in enumerate(data.train_dataloader()):
        found.append(batch["x"])
        if number % 9 == 4:
            assert len(list(data.val_dataloader())) == len(data.val_dataloader())
    assert all(torch.equal(a, b) for a, b in zip(whole, found, strict=True))


def test_a_damaged_shard_stops_a_stream_where_it_is_met(chunky: Store, tmp_path: Path) -> None:
    data = module(chunky, tmp_path, "stream", scaler="none")
    loader = data.train_dataloader()
    path = Path(chunky.path) / "v" / "c" / "3"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match="object v/c/3 has digest"):
        list(loader)


def test_a_budget_too_small_for_three_pieces_says_what_is_needed(chunky: Store, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"budget of 100 bytes for a stream; expected at least [\d,]+ bytes, for 3 pieces"
    ):
        module(chunky, tmp_path, "stream", budget="100B").train_dataloader()


def test_a_pool_takes_no_more_than_its_budget(chunky: Store) -> None:
    reader = StoreReader(chunky, Scaler.identity(chunky.channels), masked=True)
    assert reader.width == 3
    for budget in range(13_000, 40_000, 1_000):
        plan = PoolPlan.fit(Streamed(reader), 12, budget)
        assert plan.n_bytes + len(plan.cuts) * 11 * plan.row_bytes <= budget
        assert 0 <= plan.n_ahead < plan.n_slots
        assert (plan.n_ahead == 0) == (plan.n_slots == len(plan.cuts) - 1)
        assert np.all(np.diff(plan.cuts) >= 12)


def test_a_pool_can_be_closed_while_it_decodes(chunky: Store, tmp_path: Path) -> None:
    data = module(chunky, tmp_path, "stream")
    next(iter(data.train_dataloader()))
    pool = data.pool
    assert isinstance(pool, Pool)
    pool.close()
    assert len(list(data.train_dataloader())) == len(data.train_dataloader())
