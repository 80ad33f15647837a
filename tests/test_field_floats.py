"""Fields become floats on the device that trains, as torch would make them step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zstore
from lightning_app.batch import Batch, BatchShape
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models.base import TaskModel
from lightning_app.models.fields import FieldScale, FieldToFloat
from zstore import UsageError

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own


def shape_of(lengths: list[int], axes: list[str], dtype: str = "uint8") -> BatchShape:
    fields = {"camera": [2, *lengths]}
    return BatchShape(4, 1, 0, 1, 1, [0], fields=fields, field_axes={"camera": axes}, field_dtypes={"camera": dtype})


def of_torch(values: torch.Tensor, mean: Any, std: Any, colours: bool) -> torch.Tensor:
    floats = values.double() / (255 if values.dtype == torch.uint8 else 1)
    floats = (floats - torch.as_tensor(mean, dtype=torch.float64)) / torch.as_tensor(std, dtype=torch.float64)
    return (floats.movedim(-1, 2) if colours else floats.unsqueeze(2)).float()


@given(st.data())
def test_a_field_is_scaled_as_its_formula_says_with_its_colours_first(data: st.DataObject) -> None:
    colours = data.draw(st.booleans())
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    axes = ["z", "y", "x"][-len(lengths) :] + (["colour"] if colours else [])
    lengths += [data.draw(st.integers(1, 4))] if colours else []
    n_numbers = data.draw(st.sampled_from([1, lengths[-1] if colours else 1]))
    dtype = data.draw(st.sampled_from([torch.uint8, torch.int16, torch.float32]))
    numbers = st.lists(st.floats(-3, 3, width=32), min_size=n_numbers, max_size=n_numbers)
    mean, std = data.draw(numbers), [abs(number) + 0.1 for number in data.draw(numbers)]
    floats = FieldToFloat(shape_of(lengths, axes, str(dtype)[6:]), "camera", {"mean": mean, "std": std})
    values = torch.randint(0, 256, (3, 2, *lengths)).to(dtype)
    expected = of_torch(values, mean, std, colours)
    torch.testing.assert_close(floats(values), expected, rtol=1e-5, atol=1e-5)
    out = torch.empty(values.shape)
    found = floats(values, out)
    assert torch.equal(found, floats(values))
    assert found.data_ptr() == out.data_ptr()
    turned = values.flip(0)[:, :1]  # neither contiguous nor with all steps
    assert torch.equal(floats(turned), floats(values).flip(0)[:, :1])


@pytest.mark.parametrize("name", ["unit", "signed", "imagenet"])
def test_named_scales_are_those_of_torchvision(name: Any) -> None:
    values = torch.randint(0, 256, (2, 2, 5, 4, 3), dtype=torch.uint8)
    mean, std = {
        "unit": (0.0, 1.0),
        "signed": (0.5, 0.5),
        "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[name]
    floats = FieldToFloat(shape_of([5, 4, 3], ["y", "x", "colour"]), "camera", name)
    assert floats.n_colours == 3
    torch.testing.assert_close(floats(values), of_torch(values, mean, std, True), rtol=0, atol=1e-6)
    assert floats(values).flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert dict(floats.state_dict()) == {}


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-6), (torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 2e-3)]
)
@pytest.mark.parametrize("name", ["signed", "imagenet"])
def test_a_field_comes_in_the_precision_of_the_weights_that_read_it(
    name: Any, dtype: torch.dtype, close: float
) -> None:
    """As with Lightning's ``64-true`` and ``bf16-true``."""
    values = torch.randint(0, 256, (2, 2, 5, 4, 3), dtype=torch.uint8)
    floats = FieldToFloat(shape_of([5, 4, 3], ["y", "x", "colour"]), "camera", name)
    expected = floats(values)
    found = floats.to(dtype)(values)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=close, atol=close)


def test_other_types_than_bytes_stay_as_they_are_without_a_scale() -> None:
    values = torch.randint(-1000, 1000, (2, 1, 3, 4, 5), dtype=torch.int16)
    floats = FieldToFloat(shape_of([3, 4, 5], ["z", "y", "x"], "int16"), "camera")
    assert torch.equal(floats(values), values.float().unsqueeze(2))


@pytest.mark.parametrize(
    ("name", "scale", "dtype", "message"),
    [
        ("depth", "unit", "uint8", "a model that reads field 'depth'; expected one that batches have: camera"),
        ("camera", "imagenet", "int16", "the scale 'imagenet' of field 'camera', which is no uint8"),
        ("camera", {"mean": [0.0, 1.0], "std": [1.0]}, "uint8", r"mean \[0.0, 1.0\].*or 3, one for each colour"),
        ("camera", {"mean": [0.0], "std": [0.0]}, "uint8", "deviations above 0"),
        ("camera", {"mean": [float("nan")], "std": [1.0]}, "uint8", "a scale of field 'camera' with mean"),
    ],
)
def test_a_scale_that_cannot_be_meant_is_refused(name: str, scale: FieldScale, dtype: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FieldToFloat(shape_of([5, 4, 3], ["y", "x", "colour"], dtype), name, scale)


class Eye(TaskModel):
    """Forecasts from the mean colour of the last image, after one convolution."""

    def __init__(self, shape: BatchShape, scale: FieldScale = "unit", **options: Any) -> None:
        super().__init__(shape, **options)
        self.camera = FieldToFloat(shape, "camera", scale)
        self.look = nn.Conv2d(self.camera.n_colours, 4, 3)
        self.read = nn.Linear(4, shape.horizon * shape.n_targets)

    def forward(self, batch: Batch) -> torch.Tensor:
        """(batch, horizon, target)."""
        images = self.camera(dict(batch)["camera"])[:, -1]  # (batch, colour, y, x)
        forecast: torch.Tensor = self.read(self.look(images).relu().mean(dim=(2, 3)))
        return forecast.view(len(images), self.shape.horizon, self.shape.n_targets)


def test_a_model_learns_from_images_and_its_checkpoint_forecasts_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    level = np.sin(np.arange(120) / 5)
    images = random.integers(0, 40, (120, 8, 9, 3)) + (90 * (1 + level))[:, None, None, None]
    np.save(tmp_path / "images.npy", images.astype(np.uint8))
    rows = [f"a,{n},{value},{n},images.npy" for n, value in enumerate(level)]
    (tmp_path / "t.csv").write_text("\n".join(["id,t,v,number,file", *rows]) + "\n")
    zstore.ingest(
        tmp_path / "t.csv", tmp_path / "s.zarr", id="id", time="t", file={"camera": "file"}, file_root=tmp_path,
        file_position={"camera": "number"},
    )  # fmt: skip
    options: dict[str, Any] = {"channels": ["v"], "batch_size": 8, "cache": str(tmp_path)}
    options["fields"] = {"camera": FieldOptions(2, crop=(6, 6))}
    data = WindowDataModule(str(tmp_path / "s.zarr"), 3, 1, delay=-1, **options)
    assert (data.shape.field_axes, data.shape.field_dtypes) == (
        {"camera": ["y", "x", "colour"]},
        {"camera": "uint8"},
    )
    pl.seed_everything(0, verbose=False)
    model = Eye(data.shape, "signed")
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=20, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    before = trainer.validate(model, data, verbose=False)[0]["val/mse"]
    trainer.fit(model, data)
    after = trainer.validate(model, data, verbose=False)[0]["val/mse"]
    assert after < before / 2
    trainer.save_checkpoint(tmp_path / "eye.ckpt")
    loaded = Eye.load_from_checkpoint(tmp_path / "eye.ckpt")
    batch = next(iter(data.test_dataloader()))
    assert torch.equal(loaded.eval()(batch), model.eval()(batch))


def test_a_checkpoint_of_images_of_another_type_is_refused_and_one_that_names_none_is_not() -> None:
    model = Eye(shape_of([8, 9, 3], ["y", "x", "colour"]))
    checkpoint: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    model.on_load_checkpoint(checkpoint)
    shape = checkpoint["lightning_app"]["shape"]
    older = {name: part for name, part in shape.items() if name not in ("field_axes", "field_dtypes")}
    model.on_load_checkpoint({**checkpoint, "lightning_app": {**checkpoint["lightning_app"], "shape": older}})
    floats = Eye(shape_of([8, 9, 3], ["y", "x", "colour"], "float32"))
    with pytest.raises(UsageError, match=r"checkpoint with field_dtypes .*uint8"):
        floats.on_load_checkpoint(checkpoint)
