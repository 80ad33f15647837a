"""Lightning's trainer, with two more things that it does with a model: rollouts, and files that need no Python."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from lightning_app.checkpoints import read_checkpoint
from lightning_app.data.batches.live import LiveWindows
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.export.export import Export, Exported, export_model
from lightning_app.forecaster import kept_radii
from lightning_app.intervals import Intervals
from lightning_app.models.base import TaskModel
from lightning_app.rollout.options import Rollout
from lightning_app.rollout.play import play
from lightning_app.rollout.report import scores, write_pictures, write_report
from lightning_app.tasks import Policy
from zstore import UsageError

logger = logging.getLogger(__name__)


class AppTrainer(pl.Trainer):
    """Lightning's, rollouts, and exports."""

    def export(
        self,
        model: TaskModel,
        datamodule: WindowDataModule,
        options: Export,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> Exported:
        """Write a model, with its scaling, as ONNX or as a program of `torch.export`.

        Parameters
        ----------
        model, datamodule
            What is exported, and what it reads: the file has the names, the scaling and the ids of both.
        options
            The format, the file, and how it is checked.
        ckpt_path
            Checkpoint of the model: ``best``, ``last``, or a path. Default: the best one, or the last where there is no
            best.
        weights_only
            Whether only tensors and plain values are loaded, which is always so here.

        Raises
        ------
        UsageError
            If a package lacks, the model does something that cannot be exported, or the file gives other numbers.
        """
        self._connected(model, datamodule, ckpt_path)
        folder = Path(self.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if ckpt_path is not None:
            radii = kept_radii(folder, Path(ckpt_path), model, read_checkpoint(ckpt_path))
            ids = datamodule.store.ids.tolist()
            offsets = datamodule.target_offsets
            model.intervals = None if radii is None else Intervals(radii, ids, offsets, torch.device("cpu"))
        return export_model(model, datamodule, options, folder)

    def rollout(
        self,
        model: TaskModel,
        datamodule: WindowDataModule,
        options: Rollout,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, float]:
        """Let a policy act in an environment, and report what comes of it.

        Parameters
        ----------
        model
            With a task `Policy`.
        datamodule
            That it was trained with: observations are scaled as its rows were.
        options
            Which environment, and how.
        ckpt_path
            Checkpoint of the policy: ``best``, ``last``, or a path. Default: last, for the error of a policy on
            validation rows says little of what it does.
        weights_only
            Whether only tensors and plain values are loaded, which is always so here.

        Returns
        -------
        ``mean_max_reward``, ``standard_error`` and ``success``, which are in ``rollout.json`` of the run folder too.

        Raises
        ------
        UsageError
            If the model is no policy, the environment is not installed, or they do not fit each other.
        """
        environment = options.environment
        _require_policy(model, options)
        assert environment is not None
        self._connected(model, datamodule, ckpt_path)
        device = self.strategy.root_device
        windows = LiveWindows(datamodule.scales, options.episodes, options.like, device)
        started = time.monotonic()
        played = play(model.to(device).eval(), windows, environment, options)
        found, seconds = scores(played), time.monotonic() - started
        folder = Path(self.default_root_dir)
        about = {"environment": environment.described(), **options.to_json(), "checkpoint": ckpt_path}
        write_report(folder / "rollout.json", played, {**about, "model": type(model).__name__, "seconds": seconds})
        reward, success = found["mean_max_reward"], found["success"]
        logger.info(
            f"{type(model).__name__} in {len(played)} episodes of {type(environment).__name__}: mean of the maximal"
            f" reward {reward:.3f}, success {success:.2f}, in {seconds:.0f} s"
        )
        logger.info(f"wrote {folder / 'rollout.json'}")
        if options.pictures:
            for path in write_pictures(folder, environment, played):
                logger.info(f"wrote {path}")
        environment.close()
        return found

    def _connected(self, model: TaskModel, datamodule: WindowDataModule, ckpt_path: str | None) -> None:
        """Let model, data and trainer know each other, and take the checkpoint."""
        if self.world_size > 1:
            raise UsageError(f"one process on {self.world_size} devices", expected="one", fix="--trainer.devices 1")
        self.state.fn = TrainerFn.PREDICTING  # of all that is no fit, for what takes a checkpoint
        self.strategy.connect(model)
        self._data_connector.attach_data(model, datamodule=datamodule)
        datamodule.prepare_data()
        self._checkpoint_connector._restore_modules_and_callbacks(ckpt_path, True)
        self._checkpoint_connector.resume_end()


def _require_policy(model: TaskModel, options: Rollout) -> None:
    """Raise UsageError unless chunks of the model can be done in the environment."""
    environment, shape = options.environment, model.shape
    if environment is None:
        raise UsageError(
            "a rollout without an environment",
            expected="PushT, or a class of your own",
            fix="--acting.environment PushT",
        )
    if not isinstance(model.task, Policy):
        raise UsageError(
            f"a rollout of a model whose task is {type(model.task).__name__}",
            expected="Policy",
            fix="name it in --model.task",
        )
    for name, meaning in (("n_actions", "numbers of an action"), ("rate_hz", "actions a second")):
        if not getattr(environment, name, 0) > 0:
            raise UsageError(
                f"{type(environment).__name__} without {name}",
                expected=f"{name}, the {meaning}",
                fix="set it in the class",
            )
    if options.mode == "drawn" and model.task.modes is None:
        raise UsageError(
            "mode drawn of a policy without a mixture",
            expected="a policy that was fitted with modes",
            fix="drop --acting.mode, or fit with modes of --model.task",
        )
    if shape.n_targets != environment.n_actions:
        raise UsageError(
            f"a policy of {shape.n_targets} targets in {type(environment).__name__}",
            expected=f"{environment.n_actions}, the numbers of an action",
            fix="change --data.targets, or --acting.environment",
        )
    if shape.target_stride > 1 or shape.delay >= 0:
        raise UsageError(
            f"a policy with delay {shape.delay} and target_stride {shape.target_stride}",
            expected="delay -1 or less, so that a chunk has the action of the last row, and an action for each row",
            fix="fit it with --data.delay -1 --data.target_stride 1",
        )
    n_ahead = shape.horizon + 1 + shape.delay
    if options.asks_every > n_ahead:
        raise UsageError(
            f"{options.asks_every} actions executed of chunks of {n_ahead}",
            expected=f"at most {n_ahead}",
            fix="lower --acting.execute",
        )
