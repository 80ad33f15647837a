"""The order of an epoch is decided once, recorded, and obeyed or refused by whoever goes on with it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import pytorch_lightning as pl
import torch
import zarr
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from lightning_app.data.batches.buffers import Buffers
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.pool_plan import PoolPlan
from lightning_app.data.windows.pooled import PooledOrder, cut_pieces
from lightning_app.data.windows.splits import Split
from lightning_app.predictions import PredictionWriter
from zstore import Store, UsageError, WindowIndex, WindowShape, ingest, open_store
from zstore.format.index import RunTable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's
Window = tuple[int, int]
READING: dict[str, Any] = {"id": "id", "time": "t", "chunk_rows": 32, "shard_rows": 128}


class KilledError(Exception):
    """A process that dies."""


class Mean(pl.LightningModule):
    """A model that writes down the windows of its training steps."""

    def __init__(self, folder: Path, kill_at: int | None = None) -> None:
        super().__init__()
        self.level, self.folder, self.kill_at = torch.nn.Parameter(torch.zeros(1)), folder, kill_at
        self.seen: list[list[Window]] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.seen.append(list(zip(batch["series"].tolist(), batch["time"].tolist(), strict=True)))
        loss: torch.Tensor = (batch["y"] - self.level).square().mean()
        return loss

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        return batch["y"] * 0  # type: ignore[no-any-return]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == self.kill_at:
            self.trainer.save_checkpoint(self.folder / "last.ckpt")
            raise KilledError

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    given: dict[str, Any] = {**quiet, "accelerator": "cpu", "devices": 1, "max_epochs": 2, "limit_val_batches": 0}
    return pl.Trainer(default_root_dir=folder, enable_checkpointing=False, **{**given, **options})


def fit(data: WindowDataModule, folder: Path, kill_at: int | None = None, **options: Any) -> list[list[Window]]:
    """The windows of each step; from the last checkpoint unless this fit is to be killed after some step."""
    model = Mean(folder, kill_at)
    path = folder / "last.ckpt"
    try:
        resumed = path if kill_at is None and path.exists() else None
        trainer(folder, **options).fit(model, datamodule=data, ckpt_path=resumed, weights_only=True)
    except KilledError:
        assert kill_at is not None
    return model.seen


def rows(n_series: int = 6, n_times: int = 120, first: int = 0, irregular: bool = False) -> list[list[Any]]:
    return [
        [f"s{number:02d}", step * step if irregular else step, number * 1000 + step, step % 10]
        for number in range(first, first + n_series)
        for step in range(n_times - 7 * (number % 5))
    ]


def make(folder: Path, table: list[list[Any]], name: str = "s") -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    source = write_table(folder / f"{name}.csv", ["id", "t", "v", "w"], table)
    ingest(source, folder / f"{name}.zarr", **READING)
    return open_store(folder / f"{name}.zarr")


def grow(folder: Path, table: list[list[Any]], compact: bool = False) -> None:
    zstore.append(write_table(folder / "more.csv", ["id", "t", "v", "w"], table), folder / "s.zarr")
    if compact:
        zstore.compact(folder / "s.zarr")


def module(store: Store, residency: str = "stream", budget: float | str = "6000b", **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": 5, "horizon": 2, "batch_size": 16, "scaler": "none", **options}
    given.setdefault("cache", str(Path(store.path).parent / "cache"))
    return WindowDataModule(str(store.path), residency=residency, memory_budget=budget, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Some 660 rows in chunks of 32."""
    return make(tmp_path_factory.mktemp("small"), rows())


@settings(max_examples=10)
@given(
    budgets=st.tuples(st.integers(4_000, 9_000), st.integers(4_000, 9_000)),
    then=st.sampled_from(["stream", "stream", "host", "auto"]),
    kill_at=st.integers(1, 55),
)
def test_a_stream_goes_on_with_the_windows_it_began_with_or_says_which_budget_it_needs(
    small: Store, tmp_path_factory: pytest.TempPathFactory, budgets: tuple[int, int], then: str, kill_at: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    whole = fit(module(small, "stream", f"{budgets[0]}b"), folder)
    assert kill_at < len(whole)
    before = fit(module(small, "stream", f"{budgets[0]}b"), folder, kill_at)
    refusal = ""
    try:
        after = fit(module(small, then, f"{budgets[1]}b"), folder)
    except UsageError as error:
        refusal = str(error)
    if refusal:
        assert budgets[1] < budgets[0]
        assert "which the epochs of this checkpoint mix" in refusal
        needed = refusal.split("--data.memory_budget ")[1].split(",")[0]
        assert int(needed.removesuffix("b")) <= budgets[0]
        after = fit(module(small, "stream", needed), folder)
    assert before + after == whole
    epoch = [window for step in (before + after)[: len(whole) // 2] for window in step]
    assert len(set(epoch)) == len(epoch)


def test_a_fit_that_mixed_all_windows_does_not_go_on_in_a_stream(small: Store, tmp_path: Path) -> None:
    whole = fit(module(small, "host"), tmp_path)
    before = fit(module(small, "host"), tmp_path, 7)
    with pytest.raises(UsageError, match=r"residency host or device, to go on with residency stream.*residency host"):
        fit(module(small, "stream"), tmp_path)
    assert before + fit(module(small, "auto", "2000b"), tmp_path) == whole


def test_memory_that_is_taken_meanwhile_changes_no_order(
    small: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(n_bytes: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=n_bytes))

    free(9_000)
    whole = fit(module(small, "auto", 0.5), tmp_path)
    before = fit(module(small, "auto", 0.5), tmp_path, 9)
    free(10_400)
    assert before + fit(module(small, "auto", 0.5), tmp_path) == whole
    free(1 << 30)
    assert before + fit(module(small, "auto", 0.5), tmp_path) == whole
    free(4_000)
    with pytest.raises(UsageError, match=r"expected at least .*which the epochs of this checkpoint mix"):
        fit(module(small, "auto", 0.5), tmp_path)


@dataclass(frozen=True)
class NoRows:
    """A source of which no batch is asked for."""

    phases: Any = None


@settings(max_examples=few(60))
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    shape=st.builds(WindowShape, st.integers(1, 6), st.integers(1, 4), st.just(0), st.integers(1, 5)),
    piece_rows=st.integers(1, 30),
    active=st.integers(1, 6),
    batch=st.integers(1, 24),
    world=st.sampled_from([1, 2, 3, 4]),
    kill_at=st.integers(0, 40),
)
def test_global_batches_depend_on_the_plan_alone_and_a_kill_loses_and_repeats_nothing(
    sizes: list[int], shape: WindowShape, piece_rows: int, active: int, batch: int, world: int, kill_at: int
) -> None:
    stops = np.cumsum(np.array(sizes, np.int64))
    index = WindowIndex.build(RunTable(stops - sizes, stops, np.arange(len(sizes)), stops * 0), shape, 1)
    batch *= world
    if len(index) < world:
        return
    from lightning_app.data.windows.plan import OrderPlan

    pieces = OrderPlan(piece_rows, active).pieces(np.arange(0, int(stops[-1]), 7), int(stops[-1]), shape.span)
    source: Any = NoRows()

    def loaders(n_ranks: int) -> list[WindowLoader]:
        return [WindowLoader(source, index, batch, True, 3, rank, n_ranks, pieces=pieces) for rank in range(n_ranks)]

    def batches(ranks: list[WindowLoader]) -> list[list[int]]:
        for loader in ranks:
            loader.start_epoch(2)
        return [np.concatenate([each.samples(n) for each in ranks]).tolist() for n in range(len(ranks[0]))]

    alone, shared = batches(loaders(1)), batches(loaders(world))
    assert alone == shared
    seen = alone[:kill_at] + shared[kill_at:]
    flat = [sample for part in seen for sample in part]
    assert len(set(flat)) == len(flat) == len(index) // min(batch, len(index)) * min(batch, len(index))


@given(budget=st.integers(6_000, 60_000), other=st.integers(6_000, 60_000), lookback=st.integers(1, 8))
def test_a_plan_gives_the_same_order_whatever_the_budget(small: Store, budget: int, other: int, lookback: int) -> None:
    from lightning_app.data.rows.readers import StoreReader
    from lightning_app.data.rows.streamed import Streamed
    from lightning_app.data.scaling.scaler import Scaler

    reader = Streamed(StoreReader(small, Scaler.identity(small.channels), masked=False))
    span = lookback + 1
    first = PoolPlan.fit(reader, span, budget)
    try:
        second = PoolPlan.fit(reader, span, other, first.pieces.plan)
    except UsageError:
        assert other < budget
        return
    assert second.cuts.tolist() == first.cuts.tolist()
    assert second.pieces.active == first.pieces.active
    assert second.n_bytes + len(second.cuts) * (span - 1) * second.row_bytes <= other


@pytest.mark.parametrize("world", [4, 5])
def test_fewer_windows_than_a_batch_are_one_global_batch_on_any_number_of_ranks(small: Store, world: int) -> None:
    data = module(small, "host", split=Split(sizes=(19, 50, 40)))
    index = data.index("train")
    assert world < len(index) < 160
    assert len(index) % world

    def batch(n_ranks: int) -> list[int]:
        ranks = [WindowLoader(data.source, index, 160, True, 1, rank, n_ranks) for rank in range(n_ranks)]
        for loader in ranks:
            loader.start_epoch(0)
        return np.concatenate([loader.samples(0) for loader in ranks]).tolist()  # type: ignore[no-any-return]

    assert batch(world) == batch(1)
    assert sorted(batch(1)) == list(range(len(index)))


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_overfit_batches_are_the_same_in_each_epoch(small: Store, tmp_path: Path, residency: str) -> None:
    seen = fit(module(small, residency), tmp_path, overfit_batches=2, max_epochs=3)
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]


@pytest.mark.parametrize("residency", ["host", "stream"])
@pytest.mark.parametrize("compact", [False, True])
def test_an_epoch_does_not_go_on_over_a_store_that_has_other_windows_now(
    tmp_path: Path, residency: str, compact: bool
) -> None:
    store = make(tmp_path, rows())
    whole = fit(module(store, residency), tmp_path)
    before = fit(module(store, residency), tmp_path, 9)
    grow(tmp_path, [["s02", step, 7, 7] for step in range(200, 240)], compact)
    with pytest.raises(UsageError, match=r"middle of epoch 0 over other windows.*--data.version 1"):
        fit(module(store, residency), tmp_path)
    if not compact:
        assert before + fit(module(store, residency, version=1), tmp_path) == whole


@pytest.mark.parametrize("flag", ["batch_size", "seed"])
def test_an_epoch_does_not_go_on_with_another_batch_size_or_seed(small: Store, tmp_path: Path, flag: str) -> None:
    fit(module(small, "host"), tmp_path, 9)
    with pytest.raises(UsageError, match=f"middle of epoch 0 with --data.{flag} 8; expected"):
        fit(module(small, "host", **{flag: 8}), tmp_path)


@pytest.mark.parametrize("irregular", [False, True])
def test_rows_appended_behind_all_windows_let_an_epoch_go_on(tmp_path: Path, irregular: bool) -> None:
    store = make(tmp_path, rows(irregular=irregular))
    split = Split(by="series", ids={"train": ["s00", "s01", "s02", "s03"], "val": ["s04"], "test": ["s05"]})
    whole = fit(module(store, "host", split=split), tmp_path)
    before = fit(module(store, "host", split=split), tmp_path, 9)
    grow(tmp_path, rows(1, first=90, irregular=irregular))
    assert before + fit(module(store, "host", split=split), tmp_path) == whole


def test_the_next_epoch_has_the_windows_of_a_store_that_has_grown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(tmp_path, rows())
    loader = module(store, "host").train_dataloader()
    list(loader)
    state = loader.state_dict()
    grow(tmp_path, [["s02", step, 7, 7] for step in range(200, 240)])
    other = module(store, "host").train_dataloader()
    with caplog.at_level("INFO"):
        other.load_state_dict(state)
    assert "epoch 0 ended on other windows" in caplog.text
    assert len(list(other)) == len(other)
    assert other.state_dict()["epoch"] == 1


@pytest.mark.parametrize(
    "order", [{"piece_rows": -1, "active": 3}, {"piece_rows": 32, "active": 0}, {"active": 3}, [], {"a": 1, "b": 2}]
)
def test_a_checkpoint_with_a_malformed_order_is_refused(small: Store, order: Any) -> None:
    data = module(small, "stream")
    state = data.state_dict()
    with pytest.raises(UsageError, match="checkpoint with the order"):
        data.load_state_dict({**state, "order": order})


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize(("residency", "budget"), [("host", "1GB"), ("stream", "7500b"), ("stream", "10000b")])
@pytest.mark.parametrize("delay", [0, 2, -2])
def test_predictions_have_the_times_of_their_rows_wherever_these_live(
    tmp_path: Path, irregular: bool, residency: str, budget: str, delay: int
) -> None:
    table = rows(irregular=irregular)
    data = module(make(tmp_path, table), residency, budget, delay=delay, evaluation_stride=3)
    writer = PredictionWriter(tmp_path / "out")
    trainer(tmp_path, callbacks=[writer]).predict(Mean(tmp_path), datamodule=data, return_predictions=False)
    found: Any = zarr.open_group(str(writer.target), mode="r")
    true_times: dict[str, list[int]] = {}
    for id_, time, *_ in table:
        true_times.setdefault(id_, []).append(time)
    times, ids = found["time"][:], found["id"][:]
    assert len(times) == len(data.index("test", 3))
    for window, id_ in zip(times.tolist(), ids.tolist(), strict=True):
        first = true_times[id_].index(window[0])
        assert window == true_times[id_][first : first + 2]
    assert len({(id_, *window) for id_, window in zip(ids.tolist(), times.tolist(), strict=True)}) == len(times)


def test_memory_of_a_batch_is_handed_out_again_only_when_no_part_of_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "getrefcount", lambda _: 2)  # says nothing, as where threads count references each
    buffers, float32 = Buffers(), np.dtype(np.float32)
    held = [buffers.take((4, 3), float32).fill_(number) for number in range(40)]
    assert [float(tensor[0, 0]) for tensor in held] == list(range(40))
    part = buffers.take((2, 2), float32).fill_(5)[1:].view(-1).numpy()[1:]
    assert all(buffers.take((2, 2), float32).fill_(6).sum() == 24 for _ in range(40))
    assert part.tolist() == [5]
    del part
    places = {buffers.take((2, 2), float32).data_ptr() for _ in range(10)}
    assert len(places) == 1


def test_pieces_of_a_plan_are_those_that_its_order_was_made_of() -> None:
    from lightning_app.data.windows.plan import OrderPlan

    starts = np.arange(0, 500, 32)
    pieces = OrderPlan(64, 3).pieces(starts, 500, 7)
    assert pieces.cuts.tolist() == cut_pieces(starts, 500, 64, 7).tolist()
    assert OrderPlan.from_json(OrderPlan(64, 3).to_json()) == OrderPlan(64, 3)
    assert PooledOrder.__dataclass_fields__.keys() >= {"cuts", "active"}
