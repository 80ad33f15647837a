"""What is left between the parts: fractions, forecasts that are not finite, resumed epochs, grown buckets."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import xarray
import yaml
import zarr
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from s3server import S3Server

import zstore
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.borders import time_borders
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.splits import Split
from lightning_app.predictions import PredictionWriter
from lightning_app.table import _row
from zstore import Store, UsageError, ZstoreError, ingest, open_store
from zstore.cli import main as zstore_command

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's


def steps(folder: Path, lengths: list[int], **options: Any) -> Store:
    """Series of so many steps, each, of one channel."""
    rows = [[f"s{n:02d}", time, n + time / 8] for n, length in enumerate(lengths) for time in range(length)]
    source = write_table(folder / "r.csv", ["id", "t", "v"], rows)
    ingest(source, folder / "s.zarr", id="id", time="t", overwrite=True, **options)
    return open_store(folder / "s.zarr")


def sized(n_series: int) -> Any:
    """As much of a store as dealing out series takes."""
    return type("Sized", (), {"n_series": n_series, "path": "s.zarr"})


@settings(max_examples=few(60))
@given(n=st.integers(5, 3000), tenths=st.permutations([7, 1, 2]) | st.permutations([6, 2, 2]), seed=st.integers(0, 9))
def test_series_are_shared_out_as_time_steps_are(n: int, tenths: list[int], seed: int) -> None:
    assigned = assign_series(sized(n * 2), Split(by="series", sizes=tuple(t / 10 for t in tenths), seed=seed))  # type: ignore[arg-type]
    n_train, n_test = 2 * n * tenths[0] // 10, 2 * n * tenths[2] // 10
    assert [n_train, 2 * n - n_train - n_test, n_test] == np.bincount(assigned, minlength=3).tolist()


@given(
    numbers=st.lists(st.integers(0, 10**7), min_size=1, max_size=5),
    parts=st.lists(st.integers(0, 1000), min_size=3, max_size=4).filter(lambda parts: sum(parts) > 0),
)
def test_fractions_leave_nothing_over_and_give_nothing_to_a_fraction_of_0(numbers: list[int], parts: list[int]) -> None:
    from lightning_app.data.windows.fractions import share_out

    sizes = [part / sum(parts) for part in parts]
    counts = share_out(np.array(numbers), tuple(sizes[:3]))  # type: ignore[arg-type]
    for n, row in zip(numbers, counts.tolist(), strict=True):
        assert sum(row) == n if len(parts) == 3 or not parts[3] else sum(row) <= n
        for count, part in zip(row, parts, strict=False):
            assert count >= n * part // sum(parts) - (n * part % sum(parts) == 0)
            assert part or not count


@pytest.mark.parametrize(
    ("n_series", "split", "message"),
    [
        (4, Split(by="series"), "split test with 0.2 of 4 series, which is none"),
        (9, Split(by="series", sizes=(0.95, 0.05, 0.0)), None),
        (3, Split(by="series", sizes=(0.5, 0.0, 0.5)), None),
        (9, Split(by="series", sizes=(0.3, 0.1, 0.3)), "split val with 0.1 of 9 series.*split.sizes"),
        (4, Split(by="both"), "split test with 0.2 of 4 series.*split.series_sizes"),
        (3, Split(by="series", folds=4), "4 folds of 3 series"),
    ],
)
def test_a_split_that_comes_to_no_series_is_refused(n_series: int, split: Split, message: str | None) -> None:
    if message is None:
        counts = np.bincount(assign_series(sized(n_series), split), minlength=3)
        assert [size > 0 for size in split.shares] == (counts > 0).tolist()
    else:
        with pytest.raises(UsageError, match=message):
            assign_series(sized(n_series), split)


def test_a_split_that_comes_to_no_time_step_is_refused_unless_a_longer_series_has_one(tmp_path: Path) -> None:
    store = steps(tmp_path, [4, 3])
    for over in ("store", "series"):
        with pytest.raises(UsageError, match=r"split test with 0\.2 of 4 time steps, which is none"):
            time_borders(store, Split(over=over))
    train, val, test = time_borders(steps(tmp_path, [4, 10]), Split(over="series"))
    assert [(stop - start).tolist() for start, stop in (train, val, test)] == [[2, 7], [2, 1], [0, 2]]


class Planted(pl.LightningModule):
    """Forecasts 1 everywhere, and some other value of one window, step and target, counted over all batches."""

    def __init__(self, value: float, window: int, place: tuple[int, ...]) -> None:
        super().__init__()
        self.value, self.window, self.place, self.n_seen = value, window, place, 0

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        forecasts = torch.ones(batch["y"].shape, dtype=torch.float64)
        if self.n_seen <= self.window < self.n_seen + len(forecasts):
            forecasts[(self.window - self.n_seen, *self.place)] = self.value
        self.n_seen += len(forecasts)
        return forecasts


def predict(data: WindowDataModule, folder: Path, model: pl.LightningModule) -> PredictionWriter:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    writer = PredictionWriter(folder)
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[writer], **quiet)
    trainer.predict(model, datamodule=data, return_predictions=False)
    return writer


def predictions(writer: PredictionWriter) -> NDArray[Any]:
    """All that was predicted of the channel v."""
    values: NDArray[Any] = np.asarray(zarr.open_array(str(writer.target / "v"), mode="r")[:])
    return values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("panel", [None, Panel()])
def test_a_forecast_that_is_not_finite_is_refused_with_its_series_and_time_and_earlier_predictions_stay(
    tmp_path: Path, value: float, panel: Panel | None
) -> None:
    store = steps(tmp_path, [30, 30])
    data = WindowDataModule(store.path, 2, 3, cache=str(tmp_path / "c"), split=Split(sizes=(10, 8, 12)), panel=panel)
    place = (1, 1, 0) if panel else (1, 0)
    window = 2 if panel else 12  # ten windows of a series; targets of the third begin at 20
    writer = predict(data, tmp_path, Planted(2.0, window, place))
    before = predictions(writer)
    assert before[(window, *place[:-1])].reshape(-1).tolist() == [2.0]
    with pytest.raises(
        ZstoreError, match=rf"forecast of 'v' for s01 at 21 is {re.escape(f'{value:g}')}.*no predictions are written"
    ):
        predict(data, tmp_path, Planted(value, window, place))
    assert np.array_equal(before, predictions(writer))
    assert not list(tmp_path.glob(".predictions*"))


def test_a_float64_channel_takes_forecasts_that_float32_does_not_hold(tmp_path: Path) -> None:
    rows = [["s", time, time / 8] for time in range(30)]
    table = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", dtype="float64")
    data = WindowDataModule(str(tmp_path / "s.zarr"), 2, 3, cache=str(tmp_path / "c"), split=Split(sizes=(10, 8, 12)))
    writer = predict(data, tmp_path, Planted(1e39, 2, (1, 0)))
    assert predictions(writer)[2, 1] == 1e39


class KilledError(Exception):
    """A process that dies."""


class Watcher(pl.LightningModule):
    """Keeps what it is given in training, saves after each step and each validation, and forecasts the truth."""

    def __init__(self, folder: Path | None = None, stop_after: int | None = None) -> None:
        super().__init__()
        self.level, self.folder, self.stop_after = torch.nn.Parameter(torch.zeros(1)), folder, stop_after
        self.batches: list[dict[str, torch.Tensor]] = []

    @property
    def windows(self) -> list[list[Any]]:
        """Series and times of each step."""
        return [[batch["series"].tolist(), batch["time"].tolist()] for batch in self.batches]

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.batches.append({name: values.clone() for name, values in batch.items()})
        return (batch["y"] - self.level).square().mean()  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val/mse", (batch["y"] - self.level).square().mean())

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        return batch["y"]  # type: ignore[no-any-return]

    def on_train_batch_end(self, *_: Any) -> None:
        self._save("step")
        if self.global_step == self.stop_after:
            raise KilledError

    def on_validation_end(self) -> None:
        self._save("validation")

    def on_train_epoch_end(self) -> None:
        self._save("epoch")

    def _save(self, hook: str) -> None:
        if self.folder is not None:
            self.trainer.save_checkpoint(self.folder / f"{hook}-{self.global_step}.ckpt")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: WindowDataModule, folder: Path, model: Watcher, ckpt_path: Path | None = None, **options: Any) -> Watcher:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    given = {"max_epochs": 3, "limit_val_batches": 1, "num_sanity_val_steps": 0, **quiet, **options}
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, enable_checkpointing=False, **given)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model


def windows_of(store: Store, folder: Path, **options: Any) -> WindowDataModule:
    """Windows of 3 + 2 rows in source units, in batches of 20."""
    given: dict[str, Any] = {"batch_size": 20, "scaler": "none", "seed": 1, "cache": str(folder / "cache"), **options}
    return WindowDataModule(store.path, 3, 2, **given)


POOL = {"residency": "stream", "memory_budget": "3000b"}


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        ({}, {"limit_train_batches": 2}),
        (POOL, {"limit_train_batches": 2}),
        ({}, {"limit_train_batches": 0.6, "max_steps": 6}),
        ({}, {}),
        ({}, {"limit_train_batches": 2, "val_check_interval": 1}),
        ({}, {"overfit_batches": 2}),
        (POOL, {"overfit_batches": 2, "max_steps": 4}),
    ],
)
def test_a_fit_goes_on_after_the_last_step_of_a_cut_epoch_as_if_it_had_not_ended(
    tmp_path: Path, data: dict[str, Any], limits: dict[str, Any]
) -> None:
    store = chunked(tmp_path)
    more = {name: limits[name] for name in limits if name != "max_steps"}
    whole = fit(windows_of(store, tmp_path, **data), tmp_path, Watcher(), **more).windows
    n_steps = len(whole) // 3
    first = fit(windows_of(store, tmp_path, **data), tmp_path, Watcher(tmp_path), **limits).windows
    assert first == whole[: len(first)]
    for step, hook in ((n_steps, "step"), (n_steps, "validation"), (n_steps, "epoch"), (n_steps + 1, "step")):
        path = tmp_path / f"{hook}-{step}.ckpt"
        if path.exists():
            resumed = fit(windows_of(store, tmp_path, **data), tmp_path, Watcher(), path, **more)
            assert whole[step:] == resumed.windows, path.name


def test_a_fit_that_its_steps_end_within_an_epoch_goes_on_with_the_next_one(tmp_path: Path) -> None:
    store = chunked(tmp_path)
    whole = fit(windows_of(store, tmp_path), tmp_path, Watcher()).windows
    n_steps = len(whole) // 3
    fit(windows_of(store, tmp_path), tmp_path, Watcher(tmp_path), max_steps=n_steps - 2)
    resumed = fit(windows_of(store, tmp_path), tmp_path, Watcher(), tmp_path / f"epoch-{n_steps - 2}.ckpt")
    assert whole[n_steps:] == resumed.windows


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2)])
def test_no_window_comes_twice_in_an_epoch_where_another_number_of_batches_is_taken(
    tmp_path: Path, before: int, after: int
) -> None:
    store = chunked(tmp_path)
    whole = fit(windows_of(store, tmp_path), tmp_path, Watcher()).windows
    fit(windows_of(store, tmp_path), tmp_path, Watcher(tmp_path), limit_train_batches=before)
    for path in (tmp_path / f"{hook}-{before}.ckpt" for hook in ("step", "validation", "epoch")):
        resumed = fit(windows_of(store, tmp_path), tmp_path, Watcher(), path, limit_train_batches=after).windows
        numbers = [whole.index(step) for step in resumed]
        assert min(numbers) >= before
        assert len(set(numbers)) == len(numbers)


def test_an_epoch_that_was_cut_has_ended_for_a_store_that_has_grown(tmp_path: Path) -> None:
    store = steps(tmp_path, [60, 60])
    fit(windows_of(store, tmp_path), tmp_path, Watcher(tmp_path), limit_train_batches=2, max_epochs=1)
    zstore.append(write_table(tmp_path / "more.csv", ["id", "t", "v"], [["s00", 60, 1], ["s00", 61, 1]]), store.path)
    grown = windows_of(open_store(store.path), tmp_path)
    path = tmp_path / "step-2.ckpt"
    resumed = fit(grown, tmp_path, Watcher(), path, limit_train_batches=2, max_epochs=2).windows
    whole = fit(windows_of(open_store(store.path), tmp_path), tmp_path, Watcher(), max_epochs=2).windows
    n_steps = len(whole) // 2
    assert whole[n_steps : n_steps + 2] == resumed
    with pytest.raises(UsageError, match="middle of epoch 0 over other windows"):
        fit(windows_of(open_store(store.path), tmp_path), tmp_path, Watcher(), tmp_path / "step-1.ckpt", max_epochs=2)


def chunked(folder: Path) -> Store:
    """Two series of 60 steps in chunks of 16 rows."""
    return steps(folder, [60, 60], chunk_rows=16, shard_rows=64)


@pytest.fixture(scope="module")
def panel_table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[tuple[str, int], float]]:
    """Four series on one grid that begin and end at other times, with a gap; and their values by id and time."""
    folder = tmp_path_factory.mktemp("panel")
    cells = {
        (f"s{n}", 10 + 3 * step): float(n * 1000 + step)
        for n in range(4)
        for step in range(2 * n, 80 - 3 * n)
        if (n, step) not in ((1, 20), (1, 21), (2, 70))
    }
    rows = [[id_, time, value] for (id_, time), value in cells.items()]
    grid: dict[str, Any] = {"chunk_rows": 16, "shard_rows": 64}
    source = write_table(folder / "r.csv", ["id", "t", "v"], rows)
    ingest(source, folder / "s.zarr", id="id", time="t", freq="3", **grid)
    return open_store(folder / "s.zarr"), cells


def cut(cells: dict[tuple[str, int], float], first: int, n_steps: int) -> list[list[float | None]]:
    """(step, node) values from a time on; None where there is no row."""
    return [[cells.get((f"s{n}", first + 3 * step)) for n in range(4)] for step in range(n_steps)]


def plain(tensor: Any, mask: Any = None) -> list[list[float | None]]:
    """(step, node, 1) values, None where the mask is False."""
    values = [[node[0] for node in step] for step in tensor.tolist()]
    if mask is None:
        return values
    return [[v if m else None for v, m in zip(*pair, strict=True)] for pair in zip(values, plain(mask), strict=True)]


@pytest.mark.parametrize("data", [{"residency": "host"}, {"residency": "stream", "memory_budget": "4000b"}])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_panel_that_is_resumed_has_each_window_of_an_epoch_once_with_the_values_of_its_times(
    panel_table: tuple[Store, dict[tuple[str, int], float]], tmp_path: Path, data: dict[str, Any], stop_after: int
) -> None:
    store, cells = panel_table
    options = {"panel": Panel(), "batch_size": 16, "split": Split(sizes=(0.7, 0.1, 0.2)), **data}
    whole = fit(windows_of(store, tmp_path, **options), tmp_path, Watcher(), max_epochs=2)
    with pytest.raises(KilledError):
        fit(windows_of(store, tmp_path, **options), tmp_path, Watcher(tmp_path, stop_after), max_epochs=2)
    path = tmp_path / f"step-{stop_after}.ckpt"
    after = fit(windows_of(store, tmp_path, **options), tmp_path, Watcher(), path, max_epochs=2)
    assert whole.windows[stop_after:] == after.windows
    windows = {10 + 3 * step for step in range(3, 56 - 1)}  # 56 of 80 steps are for training
    n_steps = len(windows) // 16
    assert 2 * n_steps == len(whole.batches)
    for batches in (whole.batches[:n_steps], whole.batches[n_steps:stop_after] + after.batches[-n_steps:]):
        times = [time for batch in batches for time in batch["time"].tolist()]
        assert len(set(times) & windows) == len(times) >= 16 * n_steps
    for batch in whole.batches + after.batches:
        for n, time in enumerate(batch["time"].tolist()):
            assert cut(cells, time, 2) == plain(batch["y"][n], batch["mask"][n])
            assert [[value or 0 for value in step] for step in cut(cells, time - 9, 3)] == plain(batch["x"][n])


@pytest.mark.parametrize("data", [{"residency": "host"}, {"residency": "stream", "memory_budget": "4000b"}])
@pytest.mark.parametrize(("delay", "stride"), [(0, 1), (2, 3), (-2, 2)])
def test_predictions_of_a_panel_have_the_times_and_ids_of_their_values(
    panel_table: tuple[Store, dict[tuple[str, int], float]],
    tmp_path: Path,
    data: dict[str, Any],
    delay: int,
    stride: int,
) -> None:
    store, cells = panel_table
    options = {"panel": Panel(), "delay": delay, "evaluation_stride": stride, "batch_size": 3, **data}
    writer = predict(windows_of(store, tmp_path, **options), tmp_path, Watcher())
    group: Any = zarr.open_group(str(writer.target), mode="r")
    firsts = list(range(10 + 3 * 64, 10 + 3 * 79, 3 * stride))  # of the last 16 of 80 steps, two for each window
    assert [[first, first + 3] for first in firsts] == group["time"][:].tolist()
    assert [f"s{n}" for n in range(4)] == group["id"][:].tolist()
    expected = [[[value or 0 for value in step] for step in cut(cells, first, 2)] for first in firsts]
    assert expected == group["v"][:].tolist()


def recoded(folder: Path, target: str) -> None:
    """Four versions of a store: grown by more decimals and a word, by late rows and a series, and compacted."""
    first = [[id_, time, time + n, "xz"[time % 2]] for n, id_ in enumerate("pq") for time in range(20)]
    more = [[id_, time, time + 0.25, "y"] for id_ in "pq" for time in range(20, 26)]
    late = [["p", -3, 0.125, "a"], ["r", 4, 7, "z"], ["r", 5, "", ""], ["q", 26, 8, "x"]]
    for number, rows in enumerate((first, more, late)):
        table = write_table(folder / f"{number}.csv", ["id", "t", "v", "w"], rows)
        if number:
            zstore.append(table, target)
        else:
            ingest(table, target, id="id", time="t")
    zstore.compact(target)


def views(store: Store) -> list[Any]:
    """The rows of a version as its users see them: xarray, pandas, windows."""
    dataset = store.to_xarray(words=True).load()
    windows = store.windows(3, 2, channels=["v"])
    frames = [store.series(id_).to_pandas() for id_ in store.ids.tolist()]
    return [dataset, *frames, windows.batch(np.arange(len(windows)))]


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_each_version_of_a_grown_store_in_a_bucket_has_the_rows_of_the_local_one(
    grown: tuple[str, str], version: int
) -> None:
    remote, local = (views(open_store(path, version)) for path in grown)
    xarray.testing.assert_identical(local[0], remote[0])
    for ours, theirs in zip(local[1:-1], remote[1:-1], strict=True):
        pd.testing.assert_frame_equal(ours, theirs)
    assert len(local[-1]["x"]) > 0
    for name, values in local[-1].items():
        np.testing.assert_array_equal(values, remote[-1][name])


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The same store in a bucket and on disk."""
    folder = tmp_path_factory.mktemp("grown")
    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        remote = f"s3://{server.make_bucket()}/s.zarr"
        for target in (remote, str(folder / "s.zarr")):
            recoded(folder, target)
        yield remote, str(folder / "s.zarr")


def test_show_and_export_give_the_rows_of_the_version_they_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "s.zarr")
    recoded(tmp_path, store)
    capsys.readouterr()
    shown = {}
    for version in (1, 2, 3, None):
        flag = [] if version is None else ["--version", str(version)]
        assert zstore_command(["show", store, "p", *flag]) == 0
        shown[version] = capsys.readouterr().out.splitlines()[1:]
        out = tmp_path / f"version{version}.csv"
        assert zstore_command(["export", store, str(out), "--ids", "p", *flag]) == 0
        assert f"of {store} version {version or 4}" in capsys.readouterr().out
        assert len(shown[version]) == len(out.read_text().splitlines()) - 1
    assert [f"{time},{time},{'xz'[time % 2]}" for time in range(20)] == shown[1]
    assert [f"{time},{time}.00,{'xz'[time % 2]}" for time in range(20)] == shown[2][:20]
    assert shown[2][20:] == [f"{time},{time}.25,y" for time in range(20, 26)]
    assert shown[3][:2] == ["-3,0.125,a", "0,0.000,x"]
    assert shown[3] == shown[None]
    assert zstore_command(["show", store, "r", "--version", "2"]) == 1
    assert zstore_command(["show", store, "p", "--version", "9"]) == 1
    assert "version 9" in capsys.readouterr().err


def test_a_table_says_where_a_test_saw_a_part_of_the_windows(tmp_path: Path) -> None:
    whole: dict[str, Any] = {"horizon": 2, "n_windows": 1029, "n_windows_of_split": 1029, "test/mse": 0.5}
    part = {**whole, "n_windows": 10}
    older = {name: whole[name] for name in whole if name != "n_windows_of_split"}
    cells = [_row("c", runs, ["mse"], {})[3] for runs in ([whole], [whole, part], [part], [older])]
    assert cells == ["1,029", "10 of 1,029", "10 of 1,029", "1,029"]


def test_times_of_years_1_to_9999_come_back_from_netcdf_as_seconds(tmp_path: Path) -> None:
    days = ["0001-01-01", "1582-10-10", "2000-02-29", "9999-12-31"]
    table = write_table(tmp_path / "r.csv", ["id", "t", "v"], [["a", day, n] for n, day in enumerate(days)])
    ingest(table, tmp_path / "s.zarr", id="id", time="t")
    open_store(tmp_path / "s.zarr").to_xarray().to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    coder = xarray.coders.CFDatetimeCoder(time_unit="s")
    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf", decode_times=coder) as found:
        assert np.array(days, "datetime64[s]").tolist() == found["time"].values.tolist()


@pytest.mark.long
def test_a_loss_that_explodes_ends_a_fit_with_1_on_each_of_two_processes_without_a_best_checkpoint(
    tmp_path: Path,
) -> None:
    store = steps(tmp_path, [200, 200])
    document = {
        "data": {"store": store.path, "lookback": 3, "horizon": 2, "batch_size": 8, "cache": str(tmp_path / "cache")},
        "model": {"class_path": "NLinear"},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e30}},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "strategy": "ddp", "devices": 2, "logger": False},
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(document))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lightning_app", "fit", "--config", "n.yaml"]
    command += ["--trainer.default_root_dir", str(tmp_path / "run")]
    group = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    piped: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    ranks = [
        subprocess.Popen(command, cwd=tmp_path, env={**group, "LOCAL_RANK": str(rank)}, **piped) for rank in range(2)
    ]
    printed = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], printed
    assert all("training loss of step" in text and "is not finite" in text for text in printed)
    assert not any("Traceback" in text for text in printed)
    assert not list((tmp_path / "run").rglob("best*.ckpt"))
