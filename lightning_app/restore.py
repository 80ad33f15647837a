"""How a run takes over what a checkpoint says, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_app.checkpoints import told
from lightning_app.metrics_log import MetricsLog
from zstore import StoreError, UsageError

_LIKE_WEIGHTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
_EXPECTED = "one that a fit with this configuration wrote"


class CheckpointConnector(_CheckpointConnector):
    """Lightning's, whose errors about a checkpoint name it, and which wants to know what a model was trained on."""

    def resume_start(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        """Read the checkpoint.

        Raises
        ------
        StoreError
            If it is not the same one on all processes: some would begin where others go on.
        """
        super().resume_start(checkpoint_path, weights_only)
        strategy, loaded = self.trainer.strategy, self._loaded_checkpoint
        own = [loaded.get("epoch"), loaded.get("global_step")] if loaded else None
        first = strategy.broadcast(own)
        if not strategy.reduce_boolean_decision(own == first, all=True):
            found = f"here {_shown(own)}, on the first process {_shown(first)}"
            raise StoreError(
                f"processes that do not see the same checkpoint: {found}",
                expected="one run folder that all see",
                where=str(checkpoint_path or self.trainer.default_root_dir),
                fix="--trainer.default_root_dir on a folder that all machines share; start all of them again",
            )

    def restore_datamodule(self) -> None:
        """Take the scaler, the meaning of columns and the times that were trained on.

        Raises
        ------
        UsageError
            If the checkpoint does not say: another scaler would be fitted, and tests might see what was trained on.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self._loaded_checkpoint and data is not None:
            name = type(data).__qualname__
            if not isinstance(self._loaded_checkpoint.get(name), dict):
                raise UsageError(
                    "checkpoint that does not say what data it was fitted on",
                    expected=f"a scaler, and the times that it was trained on, under {name!r}",
                    where=str(self._ckpt_path),
                    fix="another --ckpt_path, or fit again",
                )
        super().restore_datamodule()

    def _keep_metrics(self) -> None:
        """Let the curves of a fit go on, if its checkpoint is one of this run folder."""
        folder = getattr(self.trainer.checkpoint_callback, "dirpath", None)
        if self._ckpt_path is None or folder is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        if Path(self._ckpt_path).resolve().parent == Path(folder).resolve():
            loaded = self._loaded_checkpoint
            of_epochs = loaded.get("loops", {}).get("fit_loop", {}).get("epoch_loop.state_dict", {})
            # In mid-epoch Lightning saves this count before it adds the batch; a batch may have several steps.
            n_batches = min(of_epochs.get("_batches_that_stepped", 0) + 1, loaded["global_step"])
            for each in self.trainer.loggers:
                if isinstance(each, MetricsLog):
                    each.go_on(n_batches)

    def restore_training_state(self) -> None:
        """Take the progress and the state of optimizers. Raises `StoreError` if they do not fit this run."""
        with told(self._ckpt_path, _EXPECTED):
            if self._loaded_checkpoint and self.trainer.state.fn == TrainerFn.FITTING:
                self._check_counts()
            super().restore_training_state()
            self._check_shapes()

    def _check_counts(self) -> None:
        """Lightning would leave out states that are missing, and go on with new ones."""
        counts = {
            "optimizer_states": len(self.trainer.strategy.optimizers),
            "lr_schedulers": len(self.trainer.lr_scheduler_configs),
        }
        for name, n_wanted in counts.items():
            n_states = len(self._loaded_checkpoint.get(name, ()))
            if n_states != n_wanted:
                raise ValueError(f"{n_states} {name.replace('_', ' ')} for {n_wanted}")

    def _check_shapes(self) -> None:
        """Optimizers find out in the middle of a step."""
        for optimizer in self.trainer.strategy.optimizers:
            for weights, state in optimizer.state.items():
                for name in _LIKE_WEIGHTS.intersection(state):
                    if isinstance(state[name], Tensor) and state[name].shape != weights.shape:
                        raise ValueError(f"{name} of shape {tuple(state[name].shape)} for {tuple(weights.shape)}")

    def _restore_modules_and_callbacks(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        with told(checkpoint_path, _EXPECTED):
            super()._restore_modules_and_callbacks(checkpoint_path, weights_only)
            self._keep_metrics()


def _shown(at: Any) -> str:
    return "none" if at is None else f"one of epoch {at[0]}, step {at[1]:,}"
