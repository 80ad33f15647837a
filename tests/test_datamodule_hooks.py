"""The data module as Lightning's hooks have it, and the names by which users' files know its parts."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytorch_lightning as pl
import torch
from conftest import write_table
from jsonargparse import ArgumentParser

import zstore
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split, SplitName
from lightning_app.losses import NSE
from lightning_app.models import NLinear
from zstore import StoreError, UsageError, ingest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's

STREAM: dict[str, Any] = {"residency": "stream", "memory_budget": "30kB"}
INGEST: dict[str, Any] = {"id": "id", "time": "t"}


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Six series of 300 rows, some of their cells blank."""
    rows = [
        [f"s{series}", step, "" if (series * 7 + step) % 11 == 0 else series + step % 24, step % 7]
        for series in range(6)
        for step in range(300)
    ]
    return write_table(tmp_path / "rows.csv", ["id", "t", "v", "w"], rows)


@pytest.fixture
def store(csv: Path, tmp_path: Path) -> Path:
    """The same in chunks of 64 rows."""
    ingest(csv, tmp_path / "s.zarr", chunk_rows=64, shard_rows=256, **INGEST)
    return tmp_path / "s.zarr"


def module(store: Path, tmp_path: Path, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": 8, "horizon": 2, "batch_size": 64, "cache": str(tmp_path / "cache")}
    return WindowDataModule(str(store), **{**given, **options})


def trainer(tmp_path: Path, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, limit_train_batches=3, enable_checkpointing=False, **quiet, **options
    )


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is ingested from now on."""
    sources: list[str] = []

    def counting(source: str, *args: Any, **options: Any) -> Any:
        sources.append(source)
        return ingest(source, *args, **options)

    counting.__wrapped__ = ingest  # type: ignore[attr-defined]  # its parameters are the options that there are
    monkeypatch.setattr(zstore, "ingest", counting)
    return sources


def first_batch(data: WindowDataModule, name: SplitName = "train") -> dict[str, torch.Tensor]:
    loaders: dict[SplitName, Callable[[], Any]] = {"train": data.train_dataloader, "val": data.val_dataloader}
    return dict(next(iter(loaders[name]())))


# The constructor -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, STREAM, {"panel": Panel()}, {"observed_inputs": True}])
def test_a_module_says_its_shape_and_its_windows_of_a_store_whose_rows_are_gone(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = module(store, tmp_path, **options)
    told = whole.shape, len(whole.index("train", all_windows=True)), str(whole)
    for channel in ("v", "w"):
        shutil.rmtree(store / channel / "c")
    bare = module(store, tmp_path, **options)
    assert told == (bare.shape, len(bare.index("train", all_windows=True)), str(bare))
    assert not (tmp_path / "cache").exists()
    with pytest.raises(StoreError):
        bare.train_dataloader()


def test_the_constructor_ingests_no_file_but_refuses_options_that_no_file_could_meet(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = counted(monkeypatch)
    data = module(csv, tmp_path, ingest=INGEST)
    wrong: list[dict[str, Any]] = [{"version": 1}, {"ingest": {"idd": "id"}}, {"batch_size": 0}, {"memory_budget": -1}]
    for options in wrong:
        with pytest.raises(UsageError):
            module(csv, tmp_path, **{"ingest": INGEST, **options})
    assert str(data) == f"<WindowDataModule: {csv}, not opened yet>"
    assert (sources, data.is_open, (tmp_path / "cache").exists()) == ([], False, False)
    assert (2, [str(csv)]) == (data.shape.n_inputs, sources)


# prepare_data and setup ----------------------------------------------------------------------------------------------


def test_a_file_is_ingested_once_by_two_ranks_of_which_the_first_prepares_it(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = counted(monkeypatch)
    ranks = [module(csv, tmp_path, ingest=INGEST) for _ in range(2)]
    ranks[0].prepare_data()
    assert [rank.is_open for rank in ranks] == [False, False]
    for rank in ranks:
        rank.setup("fit")
    assert ranks[0].shape == ranks[1].shape
    assert torch.equal(first_batch(ranks[0])["x"], first_batch(ranks[1])["x"])
    assert [str(csv)] == sources


def test_a_file_is_ingested_once_by_two_ranks_that_need_its_shape_at_the_same_time(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = counted(monkeypatch)
    ranks, together = [module(csv, tmp_path, ingest=INGEST) for _ in range(2)], threading.Barrier(2)

    def shape(rank: WindowDataModule) -> Any:
        together.wait()
        return rank.shape

    with ThreadPoolExecutor(2) as threads:
        shapes = list(threads.map(shape, ranks))
    ranks[0].prepare_data()
    assert (shapes[0], [str(csv)]) == (shapes[1], sources)


# teardown ------------------------------------------------------------------------------------------------------------


def held(tmp_path: Path) -> list[str]:
    """Threads that decode, and open files of the cache."""
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "prefetch"))]
    files = [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path / "cache"))]
    return threads + files


def left(tmp_path: Path) -> list[str]:
    """What is still held in ten seconds: pools just collected take time to end, and a new row file to be flushed."""
    gc.collect()
    for _ in range(100):
        if not held(tmp_path):
            break
        time.sleep(0.1)
    return held(tmp_path)


@pytest.mark.parametrize("options", [{"residency": "host"}, STREAM, {"residency": "host", "panel": Panel()}])
def test_teardown_leaves_no_thread_and_no_open_file(store: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    data = module(store, tmp_path, **options)
    data.setup("fit")
    first_batch(data)
    assert held(tmp_path)
    data.teardown("fit")
    assert left(tmp_path) == []


def test_batches_that_are_still_asked_for_after_teardown_are_the_same_and_start_no_thread(
    store: Path, tmp_path: Path
) -> None:
    """As those that were begun beside a model when its fit failed."""
    loaders = []
    for _ in range(2):
        data = module(store, tmp_path, **STREAM)
        data.setup("fit")
        loaders.append((data, data.train_dataloader()))
    (_, whole), (closed, kept) = loaders
    batches = iter(kept)
    given = [next(batches)["x"].clone()]
    closed.teardown("fit")
    given += [batch["x"].clone() for batch in batches]
    gc.collect()
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("decode")}
    assert threads == set()
    assert torch.equal(torch.cat(given), torch.cat([batch["x"].clone() for batch in whole]))


def test_a_fit_of_lightning_leaves_no_thread(store: Path, tmp_path: Path) -> None:
    data = module(store, tmp_path, **STREAM)
    trainer(tmp_path).fit(NLinear(data.shape), datamodule=data)
    assert (data.pool, left(tmp_path)) == (None, [])


class Diverging(NLinear):
    """Fails in its second step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1:
            raise FloatingPointError("diverged")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("options", [{"residency": "host"}, STREAM, {"residency": "host", "panel": Panel()}])
def test_a_fit_that_raises_leaves_no_thread_and_no_open_file(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    data = module(store, tmp_path, **options)
    with pytest.raises(FloatingPointError, match="diverged"):
        trainer(tmp_path).fit(Diverging(data.shape), datamodule=data)
    data.trainer = None  # Lightning's trainer keeps its loaders, after a fit that ends well too
    assert left(tmp_path) == []


def test_after_a_fit_that_raised_the_same_module_fits(store: Path, tmp_path: Path) -> None:
    data = module(store, tmp_path, **STREAM)
    with pytest.raises(FloatingPointError, match="diverged"):
        trainer(tmp_path).fit(Diverging(data.shape), datamodule=data)
    fitted = trainer(tmp_path)
    fitted.fit(NLinear(data.shape), datamodule=data)
    assert fitted.global_step == 3


@pytest.mark.parametrize("options", [{"residency": "host"}, STREAM])
def test_after_teardown_the_state_is_as_before_and_the_next_stage_has_the_same_batches(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    data = module(store, tmp_path, **options)
    before, state = [batch["x"].clone() for batch in data.train_dataloader()], plain(data.state_dict())
    data.teardown("fit")
    assert state == plain(data.state_dict())
    after = [batch["x"] for batch in data.train_dataloader()]
    assert len(before) == len(after)
    assert all(map(torch.equal, before, after))
    data.teardown("fit")
    data.teardown("fit")


# Checkpoints ---------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Tensors of a state as lists, which can be compared."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


def told(data: WindowDataModule) -> list[Any]:
    """All that follows from a checkpoint."""
    scaled, series = torch.tensor([[[0.25] * len(data.targets)] * 2]), torch.tensor([3])
    tensors = [data.target_std, data.source_std, *data.seasonal_errors(24), data.to_source(scaled, series)]
    values = [first_batch(data)["x"], first_batch(data, "val")["y"], *tensors]
    return [plain(data.state_dict()), data.shape, data.inputs, data.columns, *(value.tolist() for value in values)]


@pytest.mark.parametrize("options", [{"residency": "host"}, STREAM])
def test_obeying_another_checkpoint_leaves_nothing_of_the_first(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    early = module(store, tmp_path, channels=["v"], split=Split(sizes=(60, 30, 30)), **options)
    late = module(store, tmp_path, channels=["w", "v"], targets=["w"], scaler="minmax", **options)
    states = [(told(data), data.state_dict())[1] for data in (early, late)]
    again, fresh = (module(store, tmp_path, **options) for _ in range(2))
    again.load_state_dict(states[0])
    told(again)
    pool = again.pool
    again.load_state_dict(states[1])
    fresh.load_state_dict(states[1])
    assert told(fresh) == told(again)
    assert pool is None or pool is not again.pool
    for data in (again, fresh):
        data.teardown("fit")


def test_a_checkpoint_that_is_refused_changes_nothing(store: Path, tmp_path: Path) -> None:
    data = module(store, tmp_path, channels=["v"])
    before, state = told(data), data.state_dict()
    other = module(store, tmp_path, channels=["w"]).state_dict()
    damaged = [other, {**state, "fitted_on": "?"}, {**state, "order": {"active": -1}}, {**state, "trained_on": 3}]
    for refused in damaged:
        with pytest.raises(UsageError):
            data.load_state_dict(refused)
    assert before == told(data)


# Inference mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"residency": "host"}, STREAM, {"channels": ["w"]}])
def test_what_a_validation_in_inference_mode_has_made_serves_training(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    data = module(store, tmp_path, **options)
    with torch.inference_mode():
        batch = first_batch(data, "val")
        data.to_source(batch["y"], batch["series"])
        told(data)
    model = NLinear(data.shape, loss=NSE(), loss_units="source")
    trainer(tmp_path).fit(model, datamodule=data)
    for value in (data.target_std, data.source_std, first_batch(data)["mask"]):
        assert not value.is_inference()
    data.teardown("fit")


# Names ---------------------------------------------------------------------------------------------------------------


def test_class_paths_that_configurations_of_earlier_releases_name_are_those_classes(csv: Path, tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(WindowDataModule, "data")
    split = {"class_path": "lightning_app.data.splits.Split", "init_args": {"sizes": [0.5, 0.25, 0.25]}}
    panel = {"class_path": "lightning_app.data.views.Panel", "init_args": {"ids": ["s1"]}}
    given = {"store": str(csv), "lookback": 2, "horizon": 1, "cache": str(tmp_path / "cache"), "ingest": INGEST}
    config = {
        "class_path": "lightning_app.data.datamodule.WindowDataModule",
        "init_args": {**given, "split": split, "panel": panel},
    }
    data = parser.instantiate(parser.parse_object({"data": config})).data
    assert (Split(sizes=(0.5, 0.25, 0.25)), 1) == (data.split, data.view.n_nodes)


def test_split_and_panel_are_imported_by_the_names_that_they_had() -> None:
    import lightning_app.data.splits as splits
    import lightning_app.data.views as views

    assert (Split, Panel) == (splits.Split, views.Panel)
