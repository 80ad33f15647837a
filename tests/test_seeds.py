"""What steps draw follows from the seed, the process, the epoch and the batch; a fit that goes on draws the same."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from drift import N_BATCHES, Drift, StoppedError
from pytorch_lightning.strategies import SingleDeviceStrategy

from lightning_app.saving import BestAndLast
from lightning_app.seeds import BatchSeeds

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")


def drawn(
    folder: Path, stop_at: int | None = None, resume: bool = False, model: Drift | None = None, **options: Any
) -> float:
    """The sum of what a fit of two epochs draws; saved at each third step."""
    saving = BestAndLast(folder, "best", save_last=True, every_n_train_steps=3, enable_version_counter=False)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks: list[pl.Callback] = [BatchSeeds(), saving]
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, **{**quiet, **options})
    model = Drift(stop_at=stop_at) if model is None else model
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(time.monotonic_ns() % 2**32)
    path = folder / "last.ckpt" if resume else None
    if stop_at is None:
        trainer.fit(model, ckpt_path=path, weights_only=True)
    else:
        with pytest.raises(StoppedError):
            trainer.fit(model, ckpt_path=path, weights_only=True)
    return float(model.weight[1])


@pytest.mark.parametrize("validation", [{}, {"val_check_interval": 0.5}, {"limit_val_batches": 0}])
def test_a_fit_that_goes_on_draws_what_it_would_have_drawn(tmp_path: Path, validation: dict[str, Any]) -> None:
    whole = drawn(tmp_path / "whole", **validation)
    assert drawn(tmp_path / "again", **validation) == whole
    for stop_at in (4, N_BATCHES, N_BATCHES + 1, 2 * N_BATCHES - 1):
        drawn(tmp_path / str(stop_at), stop_at, **validation)
        assert drawn(tmp_path / str(stop_at), resume=True, **validation) == whole


def test_another_seed_draws_otherwise_and_a_fit_that_goes_on_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(tmp_path / "whole")
    drawn(tmp_path / "parted", 4)
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    assert drawn(tmp_path / "other") != whole
    assert drawn(tmp_path / "parted", resume=True) == whole


def test_without_a_seed_fits_draw_otherwise_and_still_go_on_as_they_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert drawn(tmp_path / "one") != drawn(tmp_path / "other")
    drawn(tmp_path / "one", 4)
    first, second = [drawn(tmp_path / "one", resume=True) for _ in range(2)]
    assert first == second


def test_each_batch_and_each_process_draws_for_itself() -> None:
    strategy = SingleDeviceStrategy()
    trainer = pl.Trainer(accelerator="cpu", strategy=strategy, logger=False, enable_checkpointing=False)
    seeds, found = BatchSeeds(), []
    seeds.load_state_dict({"seed": 7})
    for rank in (0, 1):
        strategy.global_rank = rank
        for batch in (0, 1):
            seeds.on_train_batch_start(trainer, Drift(), None, batch)
            found.append((float(torch.rand(())), float(np.random.random()), random.random()))  # noqa: NPY002
    assert all(len(set(numbers)) == 4 for numbers in zip(*found, strict=True))


def test_a_checkpoint_without_a_seed_goes_on(tmp_path: Path) -> None:
    drawn(tmp_path, 4)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["callbacks"].pop("BatchSeeds") == {"seed": 7}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert drawn(tmp_path, resume=True) > 0


def test_what_a_step_seeds_itself_stays(tmp_path: Path) -> None:
    class Fixed(Drift):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            torch.manual_seed(5)
            self.found = float(torch.rand(()))
            return super().training_step(batch, batch_idx)

    drawn(tmp_path, model=(model := Fixed()))
    torch.manual_seed(5)
    assert model.found == float(torch.rand(()))
