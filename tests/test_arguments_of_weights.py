"""Weights are refused under arguments that change what they do, though the shapes of all weights fit."""

from typing import Any

import pytest
import torch

from lightning_app.batch import BatchShape
from lightning_app.models import LSTM, ChannelMLP, DLinear, Ensemble, ITransformer, PatchTST, TiDE, TSMixer
from lightning_app.models.base import TaskModel
from lightning_app.tasks import Forecast, Policy, ProbabilisticForecast
from zstore import UsageError

SHAPE = BatchShape(lookback=24, horizon=4, delay=0, n_inputs=3, n_targets=3, target_inputs=[0, 1, 2])
QUANTILES = [0.25, 0.5, 0.75]


def saved(model: TaskModel) -> dict[str, Any]:
    """The checkpoint of a model."""
    found: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(found)
    return found


@pytest.mark.parametrize(
    ("kind", "fitted", "other", "named"),
    [
        (ITransformer, {"width": 8, "heads": 4}, {"width": 8, "heads": 2}, "heads 4"),
        (ITransformer, {"width": 8}, {"width": 8, "revin": "none"}, "revin plain"),
        (PatchTST, {"patch": 8, "patch_stride": 6}, {"patch": 8, "patch_stride": 7}, "patch_stride 6"),
        (TiDE, {"hidden": 8, "revin": "plain"}, {"hidden": 8, "revin": "none"}, "revin plain"),
        (TSMixer, {"hidden": 8, "revin": "none"}, {"hidden": 8, "revin": "plain"}, "revin none"),
        (ChannelMLP, {"hidden": 8}, {"hidden": 8, "revin": "plain"}, "revin centred"),
        (DLinear, {}, {"kernel": 3}, "kernel 25"),
        (Ensemble, {"member": "DLinear"}, {"member": "DLinear", "member_args": {"kernel": 3}}, "member_args None"),
        (
            LSTM,
            {"task": ProbabilisticForecast(levels=QUANTILES)},
            {"task": ProbabilisticForecast(levels=[0.05, 0.5, 0.95])},
            r"task.levels \[0.25, 0.5, 0.75\]",
        ),
        (
            LSTM,
            {"task": ProbabilisticForecast(levels=QUANTILES)},
            {"task": ProbabilisticForecast("student_t")},
            "task.distribution quantiles",
        ),
        (
            LSTM,
            {"task": Policy(relative_to=["a", None, None])},
            {"task": Policy()},
            r"task.relative_to \['a', None, None\]",
        ),
    ],
)
def test_weights_are_refused_under_arguments_that_they_were_not_fitted_with(
    kind: type[TaskModel], fitted: dict[str, Any], other: dict[str, Any], named: str
) -> None:
    checkpoint = saved(kind(SHAPE, **fitted))
    kind(SHAPE, **fitted).on_load_checkpoint(checkpoint)
    with pytest.raises(UsageError, match=f"checkpoint with {named}; expected .*, as this configuration has"):
        kind(SHAPE, **other).on_load_checkpoint(checkpoint)


def test_members_of_another_class_do_not_take_the_weights_of_an_ensemble() -> None:
    checkpoint = saved(Ensemble(SHAPE, member="Linear"))
    Ensemble(SHAPE, member="lightning_app.models.Linear").on_load_checkpoint(checkpoint)
    with pytest.raises(UsageError, match="checkpoint of members Linear; expected NLinear"):
        Ensemble(SHAPE, member="NLinear").on_load_checkpoint(checkpoint)


def test_what_only_measures_or_regularises_may_be_another_than_in_the_fit() -> None:
    checkpoint = saved(ITransformer(SHAPE, width=8, task=Forecast()))
    ITransformer(SHAPE, width=8, dropout=0.5, units="source", mase_season=7).on_load_checkpoint(checkpoint)
    ITransformer(SHAPE, width=8, heads=8, revin="plain").on_load_checkpoint(checkpoint)  # the defaults, named
    checkpoint = saved(LSTM(SHAPE, task=ProbabilisticForecast("normal", levels=QUANTILES)))
    LSTM(SHAPE, task=ProbabilisticForecast("normal", units="source")).on_load_checkpoint(checkpoint)


def test_a_checkpoint_that_notes_no_arguments_is_taken_as_it_is() -> None:
    checkpoint = saved(DLinear(SHAPE, kernel=3))
    del checkpoint["lightning_app"]["arguments"]
    DLinear(SHAPE).on_load_checkpoint(checkpoint)


def test_a_batch_of_one_window_cannot_be_normalised_by_its_batch() -> None:
    batch: Any = {"x": torch.randn(1, 24, 3)}
    model = TSMixer(SHAPE, hidden=8)
    with pytest.raises(UsageError, match=r"TSMixer with a training batch of one window; expected two at least"):
        model.train()(batch)
    assert model.eval()(batch).shape == (1, 4, 3)
