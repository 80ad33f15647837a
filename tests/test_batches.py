"""Batches: time features, masks as inputs, memory that is used again, and making them ahead on a thread."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import seed_everything

import lightning_app.data.batches.threads
from lightning_app.batch import Batch
from lightning_app.data.batches import making
from lightning_app.data.batches.beside import taken_apart
from lightning_app.data.batches.buffers import Buffers
from lightning_app.data.batches.making import made
from lightning_app.data.batches.prefetch import prefetched
from lightning_app.data.batches.source import gather
from lightning_app.data.columns.calendar import TimeFeature, cycles_along, time_cycles, time_index
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.residency import Residency
from zstore import Store, UsageError, ingest, open_store

FEATURES: list[TimeFeature] = ["hour_of_day", "day_of_week", "day_of_year"]


def module(store: Store, tmp_path: Path, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {
        "lookback": 24,
        "horizon": 6,
        "batch_size": 32,
        "cache": str(tmp_path / "cache"),
        **options,
    }
    return WindowDataModule(str(store.path), **given)


@given(st.lists(st.integers(-4_000_000_000, 8_000_000_000), min_size=1), st.sampled_from(["s", "ms", "us"]))
def test_time_indices_are_those_of_pandas(seconds: list[int], unit: str) -> None:
    times = pd.to_datetime(np.array(seconds), unit="s")
    found = torch.from_numpy(times.to_numpy().astype(f"datetime64[{unit}]").astype(np.int64))
    assert time_index(found, "hour_of_day", unit).tolist() == times.hour.tolist()
    assert time_index(found, "day_of_week", unit).tolist() == times.day_of_week.tolist()
    assert time_index(found, "day_of_year", unit).tolist() == (times.day_of_year - 1).tolist()


def test_cycles_go_round_once_in_their_period() -> None:
    hours = torch.arange(0, 24 * 15, 6) * 3600
    day, week = (time_cycles(hours, feature, "s") for feature in ("hour_of_day", "day_of_week"))
    assert torch.allclose(day[:4], torch.tensor([[0.0, 1], [1, 0], [0, -1], [-1, 0]]), atol=1e-6)
    assert torch.allclose(week[:28], week[28:56], atol=1e-6)
    assert len(torch.unique((week[:28] * 1000).round(), dim=0)) == 28


@given(st.lists(st.integers(-4_000_000_000, 8_000_000_000), min_size=1, max_size=5), st.integers(1, 10**6))
def test_cycles_along_even_steps_are_those_of_each_time(seconds: list[int], freq: int) -> None:
    time, steps = torch.tensor(seconds), range(-9, 7)
    for feature in FEATURES:
        each = time_cycles(time[:, None] + torch.tensor(steps) * freq, feature, "s")
        assert torch.allclose(cycles_along(time, steps, freq, feature, "s"), each, atol=1e-5)


def test_a_year_begins_with_the_calendar_to_a_day() -> None:
    first = torch.from_numpy(
        np.arange("1900-01-01", "2100", dtype="datetime64[Y]").astype("datetime64[s]").astype(np.int64)
    )
    sin, cos = time_cycles(first, "day_of_year", "s").unbind(-1)
    days = torch.atan2(sin, cos) / (2 * np.pi) * 365.2425
    assert float(days.abs().max()) < 1.5


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_cycles_are_further_inputs_and_further_known_channels(hourly: Store, tmp_path: Path, residency: str) -> None:
    options: dict[str, Any] = {"residency": residency, "memory_budget": "1MB"}
    data = module(hourly, tmp_path, time_features=FEATURES, future=["c"], **options)
    batch = next(iter(data.val_dataloader()))
    assert (data.shape.n_inputs, data.shape.n_future) == (3 + 6, 1 + 6)
    assert batch["x"].shape == (32, 24, 9)
    assert batch["x_future"].shape == (32, 6, 7)
    plain = next(iter(module(hourly, tmp_path, future=["c"], **options).val_dataloader()))
    assert torch.equal(batch["x"][..., :3], plain["x"])
    times = batch["time"][:, None] + (torch.arange(30) - 24) * 3600
    cycles = torch.cat([time_cycles(times, feature, "s") for feature in FEATURES], dim=-1)
    assert torch.allclose(batch["x"][..., 3:], cycles[:, :24], atol=1e-5)
    assert torch.allclose(batch["x_future"][..., 1:], cycles[:, 24:], atol=1e-5)


def test_indices_of_irregular_times_come_beside_the_channels(tmp_path: Path) -> None:
    days = np.datetime64("2001-01-01") + np.cumsum(np.arange(40) % 3 + 1)
    path = write_table(tmp_path / "r.csv", ["t", "v"], [[day, n] for n, day in enumerate(days)])
    ingest(path, tmp_path / "s.zarr", time="t")
    store = open_store(tmp_path / "s.zarr")
    options: dict[str, Any] = {"lookback": 2, "horizon": 1, "scaler": "none", "batch_size": 4}
    for residency in ("host", "stream"):
        data = module(
            store, tmp_path, time_features=FEATURES[1:], time_encoding="index", residency=residency, **options
        )
        batch = next(iter(data.test_dataloader()))
        assert data.shape.n_inputs == 1
        for key, values in (("x_time", batch["x"]), ("y_time", batch["y"])):
            expected = pd.DatetimeIndex(days[values[..., 0].long().numpy().ravel()])
            found = batch[key].reshape(-1, 2)  # type: ignore[literal-required]
            assert found[:, 0].tolist() == expected.day_of_week.tolist()
            assert found[:, 1].tolist() == (expected.day_of_year - 1).tolist()


def test_time_features_of_plain_steps_are_wrong_usage(tmp_path: Path) -> None:
    ingest(write_table(tmp_path / "r.csv", ["t", "v"], [[n, n] for n in range(90)]), tmp_path / "s.zarr", time="t")
    with pytest.raises(UsageError, match=r"time features hour_of_day of times that are plain steps.*drop --data"):
        module(open_store(tmp_path / "s.zarr"), tmp_path, time_features=["hour_of_day"])


def test_the_mask_of_inputs_that_may_be_missing_is_an_input(catchments: Store, tmp_path: Path) -> None:
    options: dict[str, Any] = {"channels": ["rain_mm", "flow_mm"], "targets": ["flow_mm"]}
    data = module(catchments, tmp_path, observed_inputs=True, **options)
    plain = module(catchments, tmp_path, **options)
    n_missing = int(catchments.missing(["rain_mm", "flow_mm"]).sum())
    assert data.shape.n_inputs == 2 + n_missing > 2
    for batch, without, _ in zip(data.train_dataloader(), plain.train_dataloader(), range(20), strict=False):
        assert torch.equal(batch["x"][..., :2], without["x"])
        unseen = batch["x"][..., -1] == 0
        assert torch.all(batch["x"][..., 1][unseen] == 0)
        if unseen.any():
            return
    pytest.fail("nothing was missing in 20 batches")


def test_memory_is_used_again_only_when_no_part_of_a_batch_is_held() -> None:
    rows, buffers = torch.arange(400.0).reshape(100, 4), Buffers()

    def windows(first: int) -> torch.Tensor:
        return gather(rows, torch.arange(first, first + 8), 5, buffers.take((8, 20), np.dtype(np.float32)))

    held = windows(0)[:, :2, 1:]
    copy, places = held.clone(), set()
    for first in range(1, 60):
        places.add(windows(first).data_ptr())
        assert torch.equal(held, copy)
    assert len(places) == 1
    many = [windows(first) for first in range(40)]
    assert all(torch.equal(found[3, 2], rows[first + 5]) for first, found in enumerate(many))


def test_a_loader_holds_none_of_its_batches(hourly: Store, tmp_path: Path) -> None:
    batches = iter(module(hourly, tmp_path).train_dataloader())
    places = set()
    for _ in range(6):
        batch = next(batches)
        places.add(batch["x"].untyped_storage().data_ptr())
        del batch
    assert len(places) == 1


def test_batches_for_another_device_are_copied_there(catchments: Store, tmp_path: Path) -> None:
    data = module(catchments, tmp_path, targets=["flow_mm"], future=["rain_mm"], statics=["elevation_m"])
    loader = data.train_dataloader()
    batch = next(iter(loader))
    loader.source = data.source.delivered_to(torch.device("meta"))
    there = next(iter(loader))
    for key, values in there.items():
        assert isinstance(values, torch.Tensor)
        assert (values.device.type, values.shape) == ("meta", batch[key].shape)  # type: ignore[literal-required]


def test_batches_for_another_device_are_made_together_and_none_is_lost(hourly: Store, tmp_path: Path) -> None:
    loader = module(hourly, tmp_path).val_dataloader()
    sizes = [len(batch["time"]) for batch in loader]
    loader.source = loader.source.delivered_to(torch.device("meta"))
    there = list(loader)
    assert [len(batch["time"]) for batch in there] == sizes
    assert there[1]["x"].storage_offset() == there[0]["x"][0].numel() // 24 * 30 * sizes[0]  # one gather for both


def test_batches_that_were_made_together_are_views_of_their_windows(hourly: Store, tmp_path: Path) -> None:
    whole = next(iter(module(hourly, tmp_path).val_dataloader()))
    parts = taken_apart(whole, [20, 7, 5])
    assert [len(part["y"]) for part in parts] == [20, 7, 5]
    for name, values in dict(whole).items():
        assert isinstance(values, torch.Tensor)
        own: list[Any] = [dict(part)[name] for part in parts]
        assert torch.equal(torch.cat(own), values)
        assert own[1].untyped_storage().data_ptr() == values.untyped_storage().data_ptr()


def test_batches_that_are_kept_stay_as_they_were(hourly: Store, tmp_path: Path) -> None:
    loader = module(hourly, tmp_path).val_dataloader()
    kept = list(loader)
    for batch, again in zip(kept, loader, strict=True):
        assert all(torch.equal(batch[key], again[key]) for key in again)  # type: ignore[literal-required]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prefetched_items_come_in_order_and_errors_in_their_place(depth: int) -> None:
    def failing() -> Iterator[int]:
        yield from range(20)
        raise ValueError("the 21st")

    found: list[int] = []
    with pytest.raises(ValueError, match="the 21st"):
        found.extend(prefetched(failing(), depth))
    assert found == list(range(20))


def test_a_prefetching_thread_ends_with_its_reader() -> None:
    before = threading.active_count()
    for _, item in zip(range(3), prefetched(iter(range(10**9)), 2), strict=False):
        assert item < 3
    made = prefetched(iter(range(10**9)), 2)
    next(made)
    made.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize("beside_model", [False, True])
def test_batches_made_ahead_are_the_same_and_count_when_they_are_used(
    hourly: Store, tmp_path: Path, beside_model: bool
) -> None:
    plain, ahead = (module(hourly, tmp_path).train_dataloader() for _ in range(2))
    ahead._prefetch, ahead._beside_model = 0 if beside_model else 3, beside_model
    for number, (batch, other) in enumerate(zip(plain, ahead, strict=True)):
        assert torch.equal(batch["x"], other["x"])
        assert ahead.state_dict() == plain.state_dict()
        assert plain.state_dict()["epoch"] == 0
        assert plain.state_dict()["consumed"] == number + 1


def test_batches_are_made_while_a_model_is_busy_and_their_threads_end_with_the_epoch(
    hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = module(hourly, tmp_path).train_dataloader()
    make, n_threads = loader._make, torch.get_num_threads()

    def slow(*given: Any) -> Batch:
        time.sleep(0.02)
        return make(*given)

    monkeypatch.setattr(loader, "_make", slow)
    loader._beside_model = True
    for _ in loader:
        time.sleep(0.03)  # of a model
    assert 0.02 <= loader.phases.wait_s < len(loader) * 0.02 / 2
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("batch")] == []
    assert torch.get_num_threads() == n_threads


def test_the_seed_of_everything_is_that_of_the_order_too(store: Store, tmp_path: Path) -> None:
    def first(seed: int | None) -> torch.Tensor:
        return next(iter(module(store, tmp_path, lookback=4, horizon=2, seed=seed).train_dataloader()))["x"].clone()

    orders = []
    for seed in (3, 4):
        seed_everything(seed, verbose=False)
        orders.append(first(None))
    assert not torch.equal(*orders)
    assert torch.equal(orders[0], first(3))


def test_memory_of_batches_begins_with_a_cache_line() -> None:
    buffers = Buffers()
    assert [buffers.take((n, 3), np.dtype(np.float32)).data_ptr() % 64 for n in (1, 5, 1000, 100_000)] == [0] * 4


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_TRIAL_S", 0.05)


def test_results_come_in_the_order_of_their_tasks_whichever_threads_made_them(
    two_threads: None, short_trials: None
) -> None:
    def task(number: int) -> tuple[int, int]:
        time.sleep(0.003 * (number % 3))
        return number, torch.get_num_threads()

    for n in (0, 1, 2, 3, 4, 6, 13, 60):
        found = list(made((partial(task, number) for number in range(n)), 2))
        assert [number for number, _ in found] == list(range(n))
    assert {threads for _, threads in found} == {1, 2}
    with ThreadPoolExecutor(1) as others:
        assert (torch.get_num_threads(), others.submit(torch.get_num_threads).result()) == (2, 2)


@pytest.mark.parametrize("slow", [1, 2])
def test_the_way_that_is_slow_is_left_after_its_trial(slow: int, two_threads: None, short_trials: None) -> None:
    def task() -> int:
        threads = torch.get_num_threads()
        time.sleep(0.1 if threads == slow else 0.002)
        return threads

    found = list(made(iter([task] * 200), 2))
    assert 8 <= found.count(slow) <= 8 + 2 + 1  # and those that were made ahead
    assert found[-100:] == [3 - slow] * 100


def test_a_way_that_becomes_slow_is_left_before_its_time(two_threads: None, short_trials: None) -> None:
    def task(number: int) -> int:
        threads = torch.get_num_threads()
        time.sleep(0.1 if (threads == 2) == (number >= 100) else 0.002)  # together is fast, and then slow
        return threads

    found = list(made((partial(task, number) for number in range(300)), 2))
    assert found[60:100] == [2] * 40
    assert found[-100:] == [1] * 100


@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_an_error_is_raised_in_the_place_of_its_result_and_leaves_no_thread(
    first: int, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_TRIAL_S", 0)
    monkeypatch.setattr(making, "_LEAST", 2)
    results = made((partial(divmod, 6, divisor) for divisor in [1] * first + [0, 3]), 2)
    assert [next(results) for _ in range(first)] == [(6, 0)] * first
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_batches_made_at_once_are_those_made_one_after_the_other(
    residency: Residency, hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    data = WindowDataModule(str(hourly.path), 24, 4, batch_size=16, cache=str(tmp_path), residency=residency)
    loader = data.train_dataloader()
    one_by_one = list(loader)
    monkeypatch.setattr(lightning_app.data.batches.threads, "_LARGE_BYTES", 0)
    loader.load_state_dict({**loader.state_dict(), "consumed": 3})
    at_once = list(loader)
    assert len(at_once) == len(one_by_one) - 3
    for batch, other in zip(at_once, one_by_one[3:], strict=True):
        assert all(torch.equal(batch[key], other[key]) for key in other)  # type: ignore[literal-required]
