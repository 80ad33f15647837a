"""Weights are refused under arguments that change what they do, though the shapes of all weights fit."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_app import models
from lightning_app.batch import BatchShape
from lightning_app.models import (
    LSTM,
    ChannelMLP,
    DLinear,
    Ensemble,
    ITransformer,
    PatchTST,
    SpatialSoftmaxCNN,
    TiDE,
    TSMixer,
)
from lightning_app.models.base import TaskModel
from lightning_app.models.volumes import VolumeModel
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


STATICS = replace(SHAPE, delay=-4, n_static=2)
VOLUMES = replace(
    STATICS,
    fields={name: [1, 16, 16, 16] for name in ("scan", "other")},
    field_axes={name: ["x", "y", "z"] for name in ("scan", "other")},
    field_dtypes=dict.fromkeys(("scan", "other"), "float32"),
)
IMAGES = replace(
    STATICS,
    fields={"image": [1, 32, 32, 3]},
    field_axes={"image": ["y", "x", "colour"]},
    field_dtypes={"image": "uint8"},
)
SMALL = {"hidden": 8, "width": 8, "heads": 2, "patch": 8}
OTHERS: dict[type, list[Any]] = {
    bool: [False, True],
    int: [1, 2, 3, 4],
    float: [0.3],
    str: ["signed", "none", "plain", "group", "other"],
}


def options_of(kind: type[TaskModel]) -> dict[str, Any]:
    """By name, the defaults of a model's arguments that not all models have; of some, smaller ones."""
    known = inspect.signature(TaskModel.__init__).parameters
    found: dict[str, inspect.Parameter] = {}
    for each in kind.__mro__[: kind.__mro__.index(TaskModel)]:
        found = {**inspect.signature(vars(each)["__init__"]).parameters, **found} if "__init__" in vars(each) else found
    defaults = {name: own.default for name, own in found.items() if name not in known}
    options = {name: SMALL.get(name, own) for name, own in defaults.items() if own is not inspect.Parameter.empty}
    if issubclass(kind, VolumeModel):
        return {**options, "field": "scan", **({"width": 1} if "width" in options else {"widths": [4, 4]})}
    return {**options, "channels": [8, 8]} if kind is SpatialSoftmaxCNN else options


def batch_of(shape: BatchShape) -> Any:
    """Three windows."""
    random = torch.Generator().manual_seed(0)
    floats = {"x": (24, 3), "y": (4, 3), "x_static": (shape.n_static,), "x_future": (4, 0)}
    batch: dict[str, Any] = {name: torch.randn(3, *own, generator=random) for name, own in floats.items()}
    for name, own in shape.fields.items():
        values = torch.randint(0, 256, (3, *own), generator=random, dtype=torch.uint8)
        batch[name] = values if shape.field_dtypes[name] == "uint8" else values / 255
    return {**batch, "series": torch.arange(3), "time": torch.arange(3)}


WITH_OPTIONS = [
    kind
    for kind in (getattr(models, name) for name in sorted(models.__all__))
    if issubclass(kind, TaskModel) and kind.fitted and not kind.panels and kind is not TaskModel and options_of(kind)
]


@pytest.mark.parametrize("kind", WITH_OPTIONS)
def test_no_argument_changes_what_the_weights_of_a_checkpoint_give(kind: type[TaskModel]) -> None:
    options = options_of(kind)
    shape = VOLUMES if issubclass(kind, VolumeModel) else IMAGES if kind is SpatialSoftmaxCNN else STATICS
    fitted, batch = kind(shape, **options).eval(), batch_of(shape)
    checkpoint, n_compared = saved(fitted), 0
    with torch.no_grad():
        expected = fitted(batch)
    for name, own in options.items():
        for value in OTHERS.get(type(own), [1, [2, 5]]):
            try:
                other = kind(shape, **{**options, name: value}).eval()
                other.load_state_dict(checkpoint["state_dict"])
            except (UsageError, RuntimeError, ValueError, TypeError, KeyError, AttributeError):
                continue  # there is no such model, or its weights have other shapes
            n_compared += 1
            with torch.no_grad():
                same = torch.equal(other(batch), expected)
            if not same:
                with pytest.raises(UsageError, match=f"checkpoint with {name} "):
                    other.on_load_checkpoint(checkpoint)
    assert n_compared
