"""Padding in all parts of a batch, in checkpoints, in predictions and on the command line."""

import dataclasses
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import xarray
from conftest import write_table
from padded import plain_windows

from lightning_app.batch import BatchShape, by_series
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.fields import FieldOptions
from lightning_app.data.splits import Split
from lightning_app.data.views import Panel
from lightning_app.models import LSTM, BranchLSTM, SeasonalRepeat
from lightning_app.predictions import PredictionWriter
from zstore import Store, UsageError, WindowShape, ingest, open_store

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
LENGTH = 20
SHAPE = WindowShape(4, 5, -1, 1, 1, "zero", "repeat")
ALL_TEST = Split(dates=("2001-01-01", "2001-01-02", "2001-01-03", "2001-02-01"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three series of 20 days: `v` names the row, `w` has words, `u` is missing on every third day; a frame each."""
    folder, rows = tmp_path_factory.mktemp("parts"), []
    for n in range(3):
        for day in range(LENGTH):
            number = n * LENGTH + day
            np.save(folder / f"{number}.npy", np.full((2, 3), number + 1, np.uint8))
            when = np.datetime64("2001-01-01") + np.timedelta64(day, "D")
            rows.append([f"s{n}", when, number + 1, "" if day % 3 == 0 else day, "xyz"[day % 3], f"{number}.npy"])
    table = write_table(folder / "r.csv", ["id", "t", "v", "u", "w", "frame"], rows)
    ingest(table, folder / "s.zarr", id="id", time="t", file={"camera": "frame"}, file_root=folder, workers=1)
    return open_store(folder / "s.zarr")


def module(store: Store, shape: WindowShape = SHAPE, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {
        **dataclasses.asdict(shape),
        "channels": ["v", "u"],
        "targets": ["v"],
        "scaler": "none",
        "split": ALL_TEST,
        "batch_size": 7,
        "cache": str(Path(store.path).parent / "cache"),
        **options,
    }
    return WindowDataModule(str(store.path), **given)


def whole(data: WindowDataModule, measured: bool = False) -> dict[str, torch.Tensor]:
    """All windows of the test split."""
    batches = list(data.loaders.in_order(data.index("test"), measured))
    return {name: torch.cat([dict(batch)[name] for batch in batches]) for name in batches[0]}  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["repeat", "zero"])
@pytest.mark.parametrize("crop", [None, (1, 2)])
def test_steps_of_a_field_are_padded_as_the_inputs_beside_them(store: Store, kind: Any, crop: Any) -> None:
    shape = dataclasses.replace(SHAPE, pad_before=kind)
    data = module(store, shape, fields={"camera": FieldOptions(2, 3, crop=crop)})
    batch = whole(data)
    assert batch["camera"].shape[1:] == (2, *(crop or (2, 3)))
    steps = batch["x"][:, [0, 3], 0]
    assert torch.equal(batch["camera"][..., 0, 0].float(), steps)
    assert bool((batch["camera"] == batch["camera"][..., :1, :1]).all())
    zero = batch["x_pad"] if kind == "zero" else torch.zeros_like(batch["x_pad"])
    assert torch.equal(batch["camera"][..., 0, 0] == 0, zero[:, [0, 3]])


@pytest.mark.parametrize("kind", ["repeat", "zero"])
def test_words_and_masks_of_inputs_are_padded_and_time_features_go_on(store: Store, kind: Any) -> None:
    shape = WindowShape(4, 5, -1, 1, 1, kind, kind)
    options: dict[str, Any] = {"channels": ["v", "w", "u"], "future": ["w"], "observed_inputs": True}
    data = module(store, shape, **options, time_features=["day_of_week"], time_encoding="index")
    batch, plain = whole(data), plain_windows(store.index.runs, shape, data.view.ranges("test"), True)
    assert data.shape.n_inputs == 2 + 1 + 3  # v, u; whether u was observed; three words
    assert batch["x"].shape == (len(plain), 4, 6)
    days = np.arange(LENGTH)
    for n, window in enumerate(plain):
        for step, (row, _, zero) in enumerate(window.inputs):
            day = days[row % LENGTH]
            seen = day % 3 != 0
            expected = [row + 1, day if seen else 0, seen, *(np.arange(3) == day % 3)]
            assert batch["x"][n, step].tolist() == ([0] * 6 if zero else expected)
            assert batch["x_time"][n, step, 0] == (window.start + step - row // LENGTH * LENGTH) % 7  # a Monday is 0
        for step, (row, _, zero) in enumerate(window.targets):
            assert batch["x_future"][n, step].tolist() == (
                [0] * 3 if zero else (np.arange(3) == row % LENGTH % 3).tolist()
            )
            assert batch["y_time"][n, step, 0] == (window.start + 3 + step - row // LENGTH * LENGTH) % 7


def test_targets_in_source_units_are_those_of_the_rows_that_are_there(store: Store) -> None:
    for shape in (SHAPE, WindowShape(4, 3, 0, 1, 4, "none", "zero"), WindowShape(4, 3, -4, 2, 2, "repeat", "none")):
        data = module(store, shape, targets=["u"])
        batch = whole(data, measured=True)
        source = batch["y_source"].view(torch.float64)
        assert torch.equal(source[batch["mask"]], batch["y"][batch["mask"]].double())
        assert int(batch["mask"].sum()) > 50


def test_a_panel_is_padded_at_its_ends_for_all_series(store: Store) -> None:
    data = module(store, SHAPE, panel=Panel(), channels=["v"])
    batch = whole(data)
    assert len(batch["x"]) == LENGTH - 2  # every step of the test split, whose inputs reach back to the first
    last = batch["y"][-1, ..., 0]
    assert last.tolist() == [[20.0, 40.0, 60.0]] * 5
    assert batch["y_pad"][-1].tolist() == [False] + [True] * 4
    assert batch["mask"][-1, :, :, 0].tolist() == [[True] * 3] + [[False] * 3] * 4
    flat = by_series(dict(batch))  # type: ignore[arg-type]
    assert torch.equal(flat["y_pad"][:3], batch["y_pad"][:1].expand(3, -1))
    assert torch.equal(flat["x_pad"][3:6], batch["x_pad"][1:2].expand(3, -1))


def test_padded_batches_can_be_made_for_another_device(store: Store) -> None:
    data = module(store, SHAPE, future=["w"], fields={"camera": 2})
    loader = data.loaders.in_order(data.index("test"))
    batch = next(iter(loader))
    loader.source = data.source.delivered_to(torch.device("meta"))
    for key, values in next(iter(loader)).items():
        assert isinstance(values, torch.Tensor)
        assert (values.device.type, values.shape) == ("meta", dict(batch)[key].shape)  # type: ignore[attr-defined]


def test_a_checkpoint_remembers_how_windows_are_padded_and_how_far_targets_are_apart(store: Store) -> None:
    shape = WindowShape(4, 3, 0, 1, 2, "repeat", "zero")
    split = Split(dates=("2001-01-01", "2001-01-10", "2001-01-12", "2001-02-01"))
    trained = module(store, shape, split=split)
    trained.train_dataloader()
    state = trained.state_dict()
    plain = module(store, WindowShape(4, 3), split=split)
    plain.obey(Meaning.from_json(state["meaning"]))  # as the command line does before it builds the model
    assert (plain.window, plain.shape) == (shape, trained.shape)
    plain.load_state_dict(state)
    for batch, other in zip(plain.test_dataloader(), trained.test_dataloader(), strict=True):
        assert torch.equal(batch["x"], other["x"])
        assert torch.equal(batch["y_pad"], other["y_pad"])
    other_shape = dataclasses.replace(shape, pad_after="repeat")
    with pytest.raises(UsageError, match=r"checkpoint trained on pad_after zero; expected those of .*: repeat"):
        module(store, other_shape, split=split).load_state_dict(state)
    with pytest.raises(UsageError, match=r"checkpoint trained on target_stride 2; expected those of .*: 3"):
        module(store, WindowShape(4, 3, 0, 1, 3), split=split).load_state_dict(state)


def test_a_checkpoint_from_before_there_was_padding_has_none(store: Store) -> None:
    split = Split(dates=("2001-01-01", "2001-01-10", "2001-01-12", "2001-02-01"))
    data = module(store, WindowShape(4, 3), split=split)
    state = data.state_dict()
    for name in ("target_stride", "pad_before", "pad_after"):
        del state["meaning"][name]
    data.load_state_dict(state)
    assert data.window == WindowShape(4, 3)
    with pytest.raises(UsageError, match="checkpoint trained on pad_before none"):
        module(store, SHAPE, split=split).load_state_dict(state)


@pytest.mark.parametrize(("name", "value"), [("target_stride", 0), ("target_stride", "2"), ("pad_before", "edge")])
def test_a_checkpoint_with_a_padding_that_is_none_is_refused(store: Store, name: str, value: Any) -> None:
    data = module(store, WindowShape(4, 3))
    state = data.state_dict()
    state["meaning"][name] = value
    with pytest.raises(UsageError, match="does not say what its columns mean"):
        data.load_state_dict(state)


class Last(pl.LightningModule):
    """Forecasts the last input plus 100."""

    def predict_step(self, batch: Any, _: int) -> torch.Tensor:
        last: torch.Tensor = batch["x"][:, -1:, :1] + 100
        return last.expand(batch["y"].shape).double()


def test_predictions_have_padded_targets_with_their_times_and_without_an_observed_value(
    store: Store, tmp_path: Path
) -> None:
    data = module(store, WindowShape(4, 3, 0, 1, 2, "repeat", "zero"))
    writer = PredictionWriter(tmp_path)
    trainer = pl.Trainer(accelerator="cpu", devices=1, callbacks=[writer], default_root_dir=tmp_path, **QUIET)
    trainer.predict(Last(), datamodule=data, return_predictions=False)
    found = xarray.open_zarr(writer.target).load()
    assert found.attrs["target_stride"] == 2
    plain = plain_windows(store.index.runs, data.window, data.view.ranges("test"), True)
    assert found.sizes == {"window": len(plain), "step": 3}
    observed = [[np.nan if padded else row + 1 for row, padded, _ in window.targets] for window in plain]
    np.testing.assert_array_equal(found["v_observed"], observed)
    apart = np.diff(found["time"].values, axis=1)
    assert (apart == np.timedelta64(2, "D")).all()


def test_the_options_come_from_yaml_and_from_flags(store: Store, tmp_path: Path) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WindowDataModule, "data")
    parser.add_argument("--config", action="config")
    (tmp_path / "c.yaml").write_text(
        f"data:\n  store: {store.path}\n  lookback: 4\n  horizon: 3\n  pad_before: repeat\n  cache: {tmp_path}\n"
    )
    words = ["--config", str(tmp_path / "c.yaml"), "--data.pad_after", "zero", "--data.jitter", "2"]
    data = parser.instantiate(parser.parse_args([*words, "--data.target_stride", "2"])).data
    assert data.window == WindowShape(4, 3, 0, 1, 2, "repeat", "zero")
    assert data.options.jitter == 2
    with pytest.raises(UsageError, match="jitter -1; expected at least 0"):
        module(store, jitter=-1)


def test_states_of_targets_several_rows_apart_are_those_of_their_rows() -> None:
    shape = BatchShape(lookback=9, horizon=3, delay=-7, n_inputs=1, n_targets=1, target_inputs=[0], target_stride=3)
    assert shape.target_span == 7
    model = LSTM(shape, hidden=2)
    assert model.each
    states = torch.arange(9.0)[None, :, None]
    assert model.used(states).flatten().tolist() == [2, 5, 8]
    branch = BranchLSTM(dataclasses.replace(shape, n_static=1), hidden=2)
    batch: Any = {"x": torch.zeros(4, 9, 1), "x_static": torch.zeros(4, 1)}
    assert branch(batch).shape == (4, 3, 1)


def test_a_season_is_repeated_at_targets_several_rows_apart() -> None:
    shape = BatchShape(lookback=8, horizon=3, delay=0, n_inputs=1, n_targets=1, target_inputs=[0], target_stride=3)
    batch: Any = {"x": torch.arange(8.0)[None, :, None]}
    assert SeasonalRepeat(shape, season=4)(batch).flatten().tolist() == [4, 7, 6]


def test_a_data_module_shows_its_padding(store: Store) -> None:
    data = module(store, dataclasses.replace(SHAPE, target_stride=2), jitter=3)
    assert "windows of 4 + 5 rows, 2 rows apart, delay -1, padded before (zero), padded after (repeat)" in repr(data)
    assert "up to 3 rows" in data._repr_html_()


def test_what_is_padded_counts_in_no_metric(store: Store, tmp_path: Path) -> None:
    split = Split(dates=("2001-01-01", "2001-01-12", "2001-01-16", "2001-02-01"))
    data = module(store, dataclasses.replace(SHAPE, stride=3), split=split, jitter=2)
    model = LSTM(data.shape, hidden=4, units="source")
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=2, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    plain = plain_windows(store.index.runs, dataclasses.replace(SHAPE, stride=1), data.view.ranges("test"), True)
    batches = data.test_dataloader()
    with torch.no_grad():
        forecasts = torch.cat([model(batch)[..., 0] for batch in batches]).double().numpy()
    errors = [
        (forecasts[n, step] - (row + 1)) ** 2
        for n, window in enumerate(plain)
        for step, (row, padded, _) in enumerate(window.targets)
        if not padded
    ]
    assert len(errors) < forecasts.size
    assert model.exact["test/mse"] == pytest.approx(np.mean(errors), rel=1e-5)
