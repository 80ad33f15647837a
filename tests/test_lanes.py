"""Lanes: ranks decode a part of a stream each, and no global batch depends on how many ranks there are."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.batches.mixing import inflation
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.process import Process
from lightning_app.data.rows.pool_plan import PoolPlan, Ranks
from lightning_app.data.rows.readers import StoreReader
from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.rows.views import Panel
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.lanes import LanedOrder, lanes_of
from lightning_app.data.windows.plan import OrderPlan, Pieces
from lightning_app.data.windows.pooled import PooledOrder, cut_pieces
from lightning_app.data.windows.splits import Split
from zstore import Store, UsageError, WindowIndex, WindowShape, ingest, open_store
from zstore.format.index import RunTable

SHAPES = st.builds(WindowShape, st.integers(1, 6), st.integers(1, 4), st.just(0), st.integers(1, 5))
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@dataclass(frozen=True)
class NoRows:
    """A source of which no batch is asked for."""

    phases: Any = None


def index_of(sizes: list[int], shape: WindowShape) -> WindowIndex:
    stops = np.cumsum(np.array(sizes, np.int64))
    return WindowIndex.build(RunTable(stops - sizes, stops, np.arange(len(sizes)), stops * 0), shape, 1)


def pieces_of(plan: OrderPlan, index: WindowIndex, n_rows: int) -> Pieces:
    return plan.pieces(np.arange(0, n_rows, 7), n_rows, index.shape.span)


@pytest.mark.parametrize(
    ("seed", "epoch", "jitter", "digest"),
    [(3, 0, 0, "fcff43e1a346d699"), (3, 1, 0, "41c9860a7a7e77fe"), (11, 7, 2, "d94af177a442ff35")],
)
def test_one_lane_has_the_order_that_epochs_had_before_there_were_lanes(
    seed: int, epoch: int, jitter: int, digest: str
) -> None:
    index = index_of([400, 37, 950, 5, 613, 280], WindowShape(9, 3))
    n_rows = 400 + 37 + 950 + 5 + 613 + 280
    cuts = cut_pieces(np.arange(0, n_rows, 64), n_rows, 64, 12)
    order = LanedOrder((PooledOrder(index, cuts, 5, True, seed, epoch, jitter),), range(1))
    samples, turns = order.at(np.arange(len(index)))
    found = samples.astype("<i8").tobytes() + turns.astype("<i8").tobytes()
    assert hashlib.blake2b(found, digest_size=8).hexdigest() == digest


def test_an_order_of_a_checkpoint_from_before_there_were_lanes_has_one() -> None:
    old = {"piece_rows": 64, "active": 5}
    assert OrderPlan.from_json(old) == OrderPlan(64, 5, lanes=1)
    assert OrderPlan(64, 5).to_json() == old
    assert OrderPlan.from_json(OrderPlan(64, 5, lanes=6).to_json()).lanes == 6
    for lanes in (0, -1, "2"):
        with pytest.raises(UsageError, match="lanes, 1 or more"):
            OrderPlan.from_json({**old, "lanes": lanes})


@settings(max_examples=few(80))
@given(
    sizes=SIZES,
    shape=SHAPES,
    piece_rows=st.integers(1, 30),
    active=st.integers(1, 4),
    lanes=st.integers(1, 9),
    per_rank=st.integers(1, 7),
    world=st.integers(1, 9),
    kill_at=st.integers(0, 9),
)
def test_ranks_have_together_the_batches_of_one_and_each_window_once(
    sizes: list[int],
    shape: WindowShape,
    piece_rows: int,
    active: int,
    lanes: int,
    per_rank: int,
    world: int,
    kill_at: int,
) -> None:
    index, batch, source = index_of(sizes, shape), per_rank * world, NoRows()
    if len(index) < world:
        return
    pieces = pieces_of(OrderPlan(piece_rows, active, lanes=lanes), index, sum(sizes))

    def loader(rank: int, n_ranks: int) -> WindowLoader:
        made = WindowLoader(source, index, batch, True, 3, rank, n_ranks, pieces=pieces)  # type: ignore[arg-type]
        made.start_epoch(2)
        return made

    alone, ranks = loader(0, 1), [loader(rank, world) for rank in range(world)]
    shared = []
    for number in range(len(alone)):
        parts = [each.samples(number) for each in ranks]
        together = np.empty(sum(map(len, parts)), np.int64)
        if lanes > 1:
            for rank, part in enumerate(parts):
                together[rank::world] = part
        else:
            together = np.concatenate(parts)
        assert together.tolist() == alone.samples(number).tolist()
        assert len(together) % world or len({len(part) for part in parts}) == 1
        shared.append(together)
    seen = np.concatenate([alone.samples(n) if n < kill_at else shared[n] for n in range(len(shared))])
    assert len(np.unique(seen)) == len(seen) == len(alone) * alone.batch_size
    rest = alone.samples_at(np.arange(len(seen), len(index)))
    assert np.sort(np.concatenate([seen, rest])).tolist() == list(range(len(index)))


@settings(max_examples=few(80))
@given(
    sizes=SIZES,
    shape=SHAPES,
    piece_rows=st.integers(1, 30),
    active=st.integers(1, 4),
    lanes=st.integers(1, 9),
    world=st.integers(1, 9),
    n_more=st.integers(0, 2),
    batch=st.integers(1, 40),
)
def test_what_a_window_needs_is_read_by_the_lane_that_has_it(
    sizes: list[int],
    shape: WindowShape,
    piece_rows: int,
    active: int,
    lanes: int,
    world: int,
    n_more: int,
    batch: int,
) -> None:
    index, n_rows = index_of(sizes, shape), sum(sizes)
    pieces = pieces_of(OrderPlan(piece_rows, active, lanes=lanes), index, n_rows)
    orders = tuple(
        PooledOrder(index, pieces.cuts, pieces.active, True, 3, 1, lane=lane, n_lanes=lanes) for lane in range(lanes)
    )
    for rank in range(world):
        order = LanedOrder(orders, lanes_of(rank, world, lanes))
        for low in range(rank, len(index), batch * world):
            positions = np.arange(low, min(low + batch * world, len(index)), world)
            samples, entries = order.at(positions)
            stop = min(int(positions[-1]) + 1, order.until(low, n_more))
            wanted, enough = order.wanted(low, stop)
            held = {ring: (first, last) for ring, first, last in wanted}
            for later in range(low, min(enough, low + 50, len(index))):  # nothing is to be done for these
                for ring, first, last in order.wanted(later, later + 1)[0]:
                    assert (held[ring][0], held[ring][1] >= last) == (first, True)
            assert all(last - first < pieces.active + n_more for first, last in held.values())
            for position, entry, first in zip(positions, entries, index.locate(samples)[0].tolist(), strict=True):
                if position >= stop:
                    continue
                turn, lane = divmod(int(entry), lanes)
                assert lane == position % lanes
                own = order.lanes[lane]
                assert held[order.served.index(lane)][0] <= turn <= held[order.served.index(lane)][1]
                piece = int(own.piece[turn])
                read = set(range(*own.rows_of(piece)))
                for other in (piece - 1, piece + 1):  # whose edges it has, for they came before
                    if 0 <= other < len(own.turn) and 0 <= own.turn[other] < turn:
                        read |= set(range(*own.rows_of(other)))
                assert set(range(first, first + shape.span)) <= read


def test_lanes_of_ranks_share_all_lanes_out() -> None:
    assert [list(lanes_of(rank, 4, 8)) for rank in range(4)] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert [list(lanes_of(rank, 6, 4)) for rank in range(6)] == [[0, 2], [1, 3]] * 3
    assert [list(lanes_of(rank, 3, 8)) for rank in range(3)] == [list(range(8))] * 3


READING: dict[str, Any] = {"id": "id", "time": "t", "chunk_rows": 64, "shard_rows": 1024}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Some 25,000 rows in 400 chunks; each value names its row, and some are missing."""
    folder, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(5)
    rows = [
        [f"s{number:02d}", step, number * 10_000 + step, "" if rng.random() < 0.1 else step % 10]
        for number in range(20)
        for step in range(1400 - 13 * number)
    ]
    ingest(write_table(folder / "r.csv", ["id", "t", "v", "w"], rows), folder / "s.zarr", **READING)
    return open_store(folder / "s.zarr")


class OnRanks(WindowDataModule):
    """A data module as one of several processes has it, without a trainer."""

    given = Process()

    @property
    def process(self) -> Process:
        return self.given


def module(store: Store, budget: str, rank: int = 0, world: int = 1, **options: Any) -> OnRanks:
    asked: dict[str, Any] = {"lookback": 9, "horizon": 3, "batch_size": 24, "residency": "stream", **options}
    data = OnRanks(str(store.path), memory_budget=budget, cache=str(Path(store.path).parent / "cache"), **asked)
    data.given = Process(rank, world, world)
    return data


def together(parts: list[torch.Tensor]) -> torch.Tensor:
    """The global batch that ranks have every so manieth window of."""
    return torch.stack(parts, 1).flatten(0, 1)


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (1, {}),
        (2, {"stride": 5}),
        (4, {"jitter": 3, "whole_targets": True}),
        (4, {"pad_before": "repeat", "pad_after": "zero", "targets": ["w"]}),
        (8, {"targets": ["w"], "observed_inputs": True, "batch_size": 16, "stride": 4}),
        (6, {"batch_size": 30}),
        (1, {"batch_size": 3, "stride": 30}),
        (4, {"batch_size": 4, "stride": 20}),
    ],
)
def test_batches_of_a_stream_with_lanes_are_those_of_the_host_in_its_order_on_any_number_of_ranks(
    long: Store, world: int, options: dict[str, Any]
) -> None:
    budget = 160_000 if 8 % world == 0 else 480_000
    ranks = [module(long, f"{budget}b", rank, world, lanes=8, **options) for rank in range(world)]
    streams = [data.train_dataloader() for data in ranks]
    plan = ranks[0].pool.plan  # type: ignore[union-attr]
    assert plan.pieces.plan.lanes == 8
    host = module(long, "1GB", **{**options, "residency": "host"})
    host._record = replace(host._record, order=plan.pieces.plan)
    expected = host.train_dataloader()
    assert len(expected) == len(streams[0]) > 100
    for _ in range(2):
        for whole, *parts in zip(expected, *streams, strict=True):
            for name in whole:
                assert torch.equal(whole[name], together([part[name] for part in parts])), name
    pools = [data.pool for data in ranks]
    assert sum(pool.plan.n_bytes for pool in pools if pool is not None) <= budget
    for data in ranks:
        data.close()


@pytest.mark.parametrize("panel", [False, True])
def test_fields_and_panels_have_lanes_too(panel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_times, world, budget = 1200, 4, "9kB" if panel else "34kB"
    rows = [[f"s{n}", t, t % 17 + n, "f.npy", n * n_times + t] for n in range(3) for t in range(n_times)]
    np.save(tmp_path / "f.npy", np.random.default_rng(0).integers(0, 256, (len(rows), 4, 4), np.uint8))
    monkeypatch.setattr("zstore.format.layout.CHUNK_BYTES", 128)  # 8 rows of the field
    files: dict[str, Any] = {"file": {"image": "f"}, "file_position": {"image": "n"}, "file_root": str(tmp_path)}
    table = write_table(tmp_path / "r.csv", ["id", "t", "v", "f", "n"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", chunk_rows=64, shard_rows=256, **files)
    monkeypatch.setattr("lightning_app.data.rows.readers._PIECE_BYTES", 64)  # of a panel
    options: dict[str, Any] = {"channels": ["v"], "targets": ["v"], "lanes": 4, "batch_size": 8}
    if panel:
        options |= {"panel": Panel(), "lookback": 2, "horizon": 1}
    else:
        options |= {"fields": {"image": FieldOptions(2, 3, "stream")}, "residency": "host"}
    opened = open_store(tmp_path / "s.zarr")
    ranks = [module(opened, budget, rank, world, **options) for rank in range(world)]
    streams = [data.train_dataloader() for data in ranks]
    plan = ranks[0].pool.plan  # type: ignore[union-attr]
    assert (plan.pieces.plan.lanes, plan.n_rings) == (4, 1)
    assert len(plan.cuts) > 4 * plan.n_slots
    within = {**options, "residency": "host"}
    if not panel:
        within["fields"] = {"image": FieldOptions(2, 3, "host")}
    host = module(opened, "1GB", **within)
    host._record = replace(host._record, order=plan.pieces.plan)
    for whole, *parts in zip(host.train_dataloader(), *streams, strict=True):
        for name in whole:
            assert torch.equal(whole[name], together([part[name] for part in parts])), name
    for data in ranks:
        assert 10 < data.pool.n_decoded <= data.pool.reader.n_chunks_stored / world + 5  # type: ignore[union-attr]
        data.close()


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_each_rank_decodes_its_part_of_the_store(long: Store, world: int) -> None:
    split = Split(sizes=(0.98, 0.01, 0.01))
    for rank in range(world):
        data = module(long, "160kB", rank, world, split=split)
        for _ in data.train_dataloader():
            pass
        share = data.pool.n_decoded * world / long.n_chunks(0, long.n_rows)  # type: ignore[union-attr]
        assert 0.95 < share <= 1.05
        data.close()


@settings(max_examples=few(60))
@given(
    budget=st.integers(20_000, 1_000_000),
    lanes=st.sampled_from([None, 1, 2, 4, 5, 8, 12]),
    world=st.integers(1, 12),
    span=st.integers(1, 40),
)
def test_pools_of_all_ranks_take_no_more_than_the_budget_and_mix_alike(
    long: Store, budget: int, lanes: int | None, world: int, span: int
) -> None:
    reader = Streamed(StoreReader(long, Scaler.identity(long.channels), masked=True))
    try:
        alone = PoolPlan.fit(reader, span, budget, lanes=lanes)
        shared = PoolPlan.fit(reader, span, budget // world, ranks=Ranks(world, world), lanes=lanes)
    except UsageError as refusal:
        needed = int(str(refusal).split("--data.memory_budget ")[1].split("b")[0])
        assert needed > budget // world * world
        return
    n_lanes = shared.pieces.plan.lanes
    all_edges = (len(shared.cuts) - 1) * (span - 1) * shared.row_bytes
    edges = all_edges * world * len(lanes_of(0, world, n_lanes)) / n_lanes
    assert world * shared.n_bytes + edges <= budget
    if alone.pieces.plan.lanes % world == 0:
        assert shared.pieces.plan == alone.pieces.plan
        assert shared.cuts.tolist() == alone.cuts.tolist()
        again = PoolPlan.fit(reader, span, budget // world, alone.pieces.plan, Ranks(world, world))
        assert again.pieces.plan == alone.pieces.plan


def test_a_stream_has_lanes_by_itself_where_they_cost_little(long: Store) -> None:
    reader = Streamed(StoreReader(long, Scaler.identity(long.channels), masked=True))
    found = [PoolPlan.fit(reader, 12, budget).pieces.plan.lanes for budget in (70_000, 130_000, 160_000)]
    assert found == [4, 4, 8]
    small = replace(reader, channels=_Few(reader.channels))  # type: ignore[arg-type]
    assert PoolPlan.fit(small, 12, 160_000).pieces.plan.lanes == 2


@dataclass(frozen=True)
class _Few:
    """A reader of a store that has few chunks."""

    of: StoreReader

    def __getattr__(self, name: str) -> Any:
        return 100 if name == "n_chunks_stored" else getattr(self.of, name)


def test_lanes_mix_as_many_pieces_as_one_and_spread_a_batch_over_the_store(long: Store) -> None:
    one, eight = (module(long, "250kB", lanes=lanes) for lanes in (1, 8))
    loaders = [data.train_dataloader() for data in (one, eight)]
    plans = [data.pool.plan.pieces for data in (one, eight)]  # type: ignore[union-attr]
    mixed = [pieces.active * pieces.plan.lanes for pieces in plans]
    assert mixed[1] >= 0.75 * mixed[0]
    assert inflation(loaders[1]) <= inflation(loaders[0]) * 1.1
    for data in (one, eight):
        data.close()


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [12, 24])
def test_evaluation_has_each_window_once_and_each_rank_decodes_its_part(
    long: Store, world: int, batch_size: int
) -> None:
    seen, n_decoded, n_batches = [], [], []
    split = Split(sizes=(0.2, 0.3, 0.5))
    for rank in range(world):
        data = module(long, "300kB", rank, world, split=split, batch_size=batch_size)
        loader = data.test_dataloader()
        before = data.pool.n_decoded  # type: ignore[union-attr]
        batches = list(loader)
        n_decoded.append(data.pool.n_decoded - before)  # type: ignore[union-attr]
        n_batches.append(len(batches))
        times = torch.cat([torch.stack([batch["series"], batch["time"]]) for batch in batches], 1)
        positions = np.concatenate([loader.samples(number) for number in range(len(loader))])
        assert positions.tolist() == list(range(positions[0], positions[-1] + 1))
        assert torch.equal(times[0], torch.from_numpy(loader.index.locate(positions)[1]))
        seen += positions.tolist()
        data.close()
    assert seen == list(range(len(loader.index)))
    assert len(set(n_batches)) == 1
    assert sum(n_decoded) <= long.n_chunks(0, long.n_rows) + 3 * world


def test_with_a_limit_an_evaluation_has_the_windows_of_one_process(long: Store) -> None:
    alone = module(long, "160kB").test_dataloader()
    data = module(long, "160kB", 1, 2)
    data.given = replace(data.given, evaluates_all=False)
    assert data.test_dataloader().samples(0).tolist() == alone.samples(0)[12:].tolist()


def test_a_checkpoint_keeps_to_its_lanes(long: Store) -> None:
    data = module(long, "160kB", lanes=4)
    data.train_dataloader()
    state = data.state_dict()
    assert state["order"]["lanes"] == 4
    other = module(long, "200kB", 1, 2)
    other.load_state_dict(state)
    assert other.train_dataloader()._n_lanes == 4
    wrong = module(long, "200kB", lanes=8)
    wrong.load_state_dict(state)
    with pytest.raises(UsageError, match=r"--data.lanes 8 with a checkpoint whose epochs have 4"):
        wrong.train_dataloader()
    small = module(long, "12kB")
    small.load_state_dict(state)
    with pytest.raises(UsageError, match=r"pieces of each of 4 lanes, which the epochs of this checkpoint mix"):
        small.train_dataloader()
    for each in (data, other):
        each.close()


def test_lanes_that_cannot_be_meant_are_refused(long: Store) -> None:
    with pytest.raises(UsageError, match="lanes 0; expected at least 1"):
        module(long, "160kB", lanes=0)
    with pytest.raises(UsageError, match=r"for 2 pieces of each of 100 lanes.*fewer --data.lanes"):
        module(long, "60kB", lanes=100).train_dataloader()


def test_the_log_says_what_is_mixed_and_which_lanes_would_do(long: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        data = module(long, "480kB", 0, 6, batch_size=24)
        data.train_dataloader()
    assert "in 8 lanes: a pool of" in caplog.text
    assert "each of 6 processes decodes 1/2 of the store: a fit that begins with --data.lanes 6" in caplog.text
    assert "design effect" in caplog.text
    data.close()
