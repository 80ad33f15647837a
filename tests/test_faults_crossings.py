"""What random crossings of features found."""

from pathlib import Path

import pytest
from conftest import write_table

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import NoWindowError, Split
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
