"""What is left between the parts: fractions, forecasts that are not finite, resumed epochs, grown buckets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split, assign_series, time_borders
from lightning_app.data.views import Panel
from lightning_app.predictions import PredictionWriter
from tests.conftest import write_table
from zstore import NotFiniteError, Store, UsageError, ingest, open_store

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's


def steps(folder: Path, lengths: list[int]) -> Store:
    """Series of so many steps, each, of one channel."""
    rows = [[f"s{n:02d}", time, n + time / 8] for n, length in enumerate(lengths) for time in range(length)]
    ingest(write_table(folder / "r.csv", ["id", "t", "v"], rows), folder / "s.zarr", id="id", time="t", overwrite=True)
    return open_store(folder / "s.zarr")


def sized(n_series: int) -> Any:
    """As much of a store as dealing out series takes."""
    return type("Sized", (), {"n_series": n_series, "path": "s.zarr"})


@settings(max_examples=60)
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
    from lightning_app.data.fractions import share_out

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
            time_borders(store, Split(over=over))  # type: ignore[arg-type]
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


def predict(data: WindowDataModule, folder: Path, model: Planted) -> PredictionWriter:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    writer = PredictionWriter(folder)
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[writer], **quiet)
    trainer.predict(model, datamodule=data, return_predictions=False)
    return writer


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
    before = zarr.open_group(str(writer.target), mode="r")["v"][:]
    assert before[(window, *place[:-1])].reshape(-1).tolist() == [2.0]
    with pytest.raises(
        NotFiniteError, match=rf"forecast of 'v' for s01 at 21 is {re.escape(f'{value:g}')}.*no predictions are written"
    ):
        predict(data, tmp_path, Planted(value, window, place))
    assert np.array_equal(before, zarr.open_group(str(writer.target), mode="r")["v"][:])
    assert not list(tmp_path.glob(".predictions*"))


def test_a_float64_channel_takes_forecasts_that_float32_does_not_hold(tmp_path: Path) -> None:
    rows = [["s", time, time / 8] for time in range(30)]
    table = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", dtype="float64")
    data = WindowDataModule(str(tmp_path / "s.zarr"), 2, 3, cache=str(tmp_path / "c"), split=Split(sizes=(10, 8, 12)))
    writer = predict(data, tmp_path, Planted(1e39, 2, (1, 0)))
    assert zarr.open_group(str(writer.target), mode="r")["v"][2, 1] == 1e39
