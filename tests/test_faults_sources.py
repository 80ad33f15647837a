"""What is kept of a store goes by its content."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_table

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.splits import Split
from lightning_app.data.views import Panel
from zstore import Scaling, StoreError, append, ingest, open_rows, open_store


def two_histories(tmp_path: Path) -> None:
    """Two stores of the same uuid and version number: a copy was restored and appended to otherwise."""
    header = ["id", "t", "v"]
    first = [[id_, t, t] for id_ in "ab" for t in range(20)]
    ingest(write_table(tmp_path / "a.csv", header, first), tmp_path / "one.zarr", id="id", time="t")
    shutil.copytree(tmp_path / "one.zarr", tmp_path / "two.zarr")
    for name, factor in (("one", 1), ("two", -1)):
        rows = [[id_, t, factor * t] for id_ in "ab" for t in range(20, 40)]
        append(write_table(tmp_path / f"{name}.csv", header, rows), tmp_path / f"{name}.zarr")


def test_decoded_rows_go_by_the_content_of_a_version(tmp_path: Path) -> None:
    two_histories(tmp_path)
    one, two = (open_store(tmp_path / f"{name}.zarr") for name in ("one", "two"))
    assert (one.schema.uuid, one.version) == (two.schema.uuid, two.version)
    assert one.digest != two.digest
    for store in (one, two):
        found = open_rows(store, ["v"], Scaling.identity(1), tmp_path / "cache").values[:, 0]
        assert found.tolist() == store.read("v", 0, store.n_rows).tolist()


@pytest.mark.parametrize("panel", [None, Panel()], ids=["series", "panel"])
def test_scalers_and_panels_go_by_the_content_of_a_version(tmp_path: Path, panel: Panel | None) -> None:
    two_histories(tmp_path)
    split = Split(over="store", sizes=(30, 5, 5))
    means = []
    for name in ("one", "two"):
        data = WindowDataModule(
            str(tmp_path / f"{name}.zarr"), 2, 1, split=split, panel=panel, cache=str(tmp_path / "cache")
        )
        means.append(float(data.scaler.offset[0]))
        batch = next(iter(data.train_dataloader()))
        assert np.isfinite(batch["x"].numpy()).all()
    assert means == [14.5, np.mean([*range(20), *(-t for t in range(20, 30))])]


def test_a_store_that_was_replaced_is_no_longer_the_one_that_was_pickled(tmp_path: Path) -> None:
    two_histories(tmp_path)
    store = open_store(tmp_path / "one.zarr")
    pickled = pickle.dumps(store)
    assert pickle.loads(pickled).digest == store.digest  # noqa: S301  # our own bytes
    shutil.rmtree(tmp_path / "one.zarr")
    (tmp_path / "two.zarr").rename(tmp_path / "one.zarr")
    with pytest.raises(StoreError, match="another one than when it was opened"):
        pickle.loads(pickled)  # noqa: S301  # our own bytes
