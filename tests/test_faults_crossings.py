"""What random crossings of features found."""

from pathlib import Path

import pytest
import torch
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import NoWindowError, Split
from lightning_app.metrics import MaskedErrors, SeriesScores
from lightning_app.models import Climatology
from zstore import ingest


@pytest.mark.parametrize("panel", [False, True])
def test_a_climatology_without_training_rows_says_so(tmp_path: Path, panel: bool) -> None:
    rows = [[name, f"2001-01-{day:02d}", day] for name in "ab" for day in range(1, 31)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    split = (
        Split(dates=("2000-01-01", "2000-02-01", "2000-03-01", "2002-01-01"))
        if panel
        else Split(by="series", ids={"train": [], "val": ["a"], "test": ["b"]})
    )
    data = WindowDataModule(
        str(tmp_path / "s.zarr"), 3, 1, split=split, time_features=["day_of_week"], time_encoding="index"
    )
    assert Climatology(data.shape).shape.time_sizes == [7]
    with pytest.raises(NoWindowError, match=r"no training row has an observed target \(v\); expected one at least"):
        data.training_rows()


@given(
    value=st.floats(-1e9, 1e9, allow_nan=False),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    which=st.sampled_from(["observed", "predicted"]),
)
def test_what_does_not_vary_has_no_score_that_divides_by_its_variance(
    value: float, sizes: list[int], which: str
) -> None:
    errors, scores = MaskedErrors(3, 1), SeriesScores(2, 1)
    for size in sizes:
        same = torch.full((size, 3, 1), value, dtype=torch.float64)
        other = same + torch.linspace(-1, 2, size * 3, dtype=torch.float64).view(size, 3, 1)
        truth, guess = (same, other) if which == "observed" else (other, same)
        mask = torch.ones(size, 3, 1, dtype=torch.bool)
        mask[0, 1] = False
        errors.update(guess, truth, mask)
        scores.update(guess, truth, mask, torch.ones(size, dtype=torch.int64))
    found = scores.compute()["by_series"]
    assert not bool(found["kge"].isfinite().any())
    if which == "observed":
        assert not bool(torch.stack([found["nse"], found["log_nse"], found["kge"]]).isfinite().any())
        assert not bool(errors.compute()["all"]["r2"].isfinite())
