"""What a model was trained on keeps its meaning in another store, and in a later version of the same one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_table

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split
from zstore import UsageError, append, compact, ingest, open_store

HEADER = ["id", "t", "v", "w"]
WORDS = "mz"


def made(path: Path, ids: str, statics: dict[str, float] | None = None, words: str = WORDS) -> Path:
    """A store of some series whose rows are the same wherever they are."""
    rows = [[id_, t, (ord(id_) * 7 + t * t) % 13, words[(ord(id_) + t) % len(words)]] for id_ in ids for t in range(40)]
    table = write_table(path.with_suffix(".csv"), HEADER, rows)
    static = None
    if statics is not None:
        static = write_table(path.with_suffix(".static.csv"), ["id", "area"], [[*pair] for pair in statics.items()])
    ingest(table, path, id="id", time="t", static=static)
    return path


def module(path: Path, tmp_path: Path, **options: Any) -> WindowDataModule:
    return WindowDataModule(
        str(path), 3, 1, split=Split(sizes=(30, 5, 5)), cache=str(tmp_path / "cache"), batch_size=1000, **options
    )


def of_series(data: WindowDataModule, id_: str) -> dict[str, torch.Tensor]:
    """All windows that a series is predicted from."""
    batch: Any = next(iter(data.predict_dataloader()))
    mine = batch["series"] == data.store.ids.tolist().index(id_)
    return {name: batch[name][mine] for name in ("x", "y", "x_static")}


def assert_same(one: WindowDataModule, two: WindowDataModule, ids: str) -> None:
    for id_ in ids:
        expected, found = of_series(one, id_), of_series(two, id_)
        for name, values in expected.items():
            assert torch.equal(found[name], values), f"{name} of {id_}"


def test_words_keep_their_codes_when_a_store_is_compacted(tmp_path: Path) -> None:
    path = made(tmp_path / "s.zarr", "ab")
    more = write_table(tmp_path / "more.csv", HEADER, [["c", t, t % 5, "amz"[t % 3]] for t in range(40)])
    append(more, path)
    shutil.copytree(path, tmp_path / "before.zarr")
    before = module(tmp_path / "before.zarr", tmp_path, channels=["v", "w"], targets=["v"])
    state = before.state_dict()
    compact(path)
    assert open_store(path).channel("w").categories != before.store.channel("w").categories
    after = module(path, tmp_path, channels=["v", "w"], targets=["v"])
    after.load_state_dict(state)
    assert_same(before, after, "abc")


def test_words_keep_their_codes_in_a_store_that_has_them_in_another_order(tmp_path: Path) -> None:
    one = module(made(tmp_path / "one.zarr", "ab", words="az"), tmp_path, channels=["v", "w"], targets=["v"])
    state = one.state_dict()
    path = made(tmp_path / "two.zarr", "a", words="z")
    append(write_table(tmp_path / "b.csv", HEADER, rows_of(one, "b")), path)
    shutil.rmtree(tmp_path / "cache")
    two = module(path, tmp_path, channels=["v", "w"], targets=["v"])
    two.load_state_dict(state)
    assert_same(one, two, "b")


def rows_of(data: WindowDataModule, id_: str) -> list[list[object]]:
    series = data.store.series(id_)
    frame = series.to_pandas()
    return [[id_, t, v, w] for t, v, w in zip(range(40), frame["v"], frame["w"].astype(str), strict=True)]


def test_static_numbers_keep_their_mean_and_deviation_beside_other_series(tmp_path: Path) -> None:
    one = module(made(tmp_path / "one.zarr", "ab", {"a": 1.0, "b": 3.0}), tmp_path, channels=["v"], statics=["area"])
    state = one.state_dict()
    two = module(
        made(tmp_path / "two.zarr", "abc", {"a": 1.0, "b": 3.0, "c": 100.0}), tmp_path, channels=["v"], statics=["area"]
    )
    two.load_state_dict(state)
    assert_same(one, two, "ab")


def test_a_scaler_of_series_is_of_their_ids(tmp_path: Path) -> None:
    one = module(made(tmp_path / "one.zarr", "abcd"), tmp_path, channels=["v"], scale_by="series")
    state = one.state_dict()
    fewer = module(made(tmp_path / "fewer.zarr", "bd"), tmp_path, channels=["v"], scale_by="series")
    fewer.load_state_dict(state)
    assert_same(one, fewer, "bd")


def test_series_that_a_scaler_of_series_has_not_seen_are_refused_by_id(tmp_path: Path) -> None:
    one = module(made(tmp_path / "one.zarr", "abcd"), tmp_path, channels=["v"], scale_by="series")
    state = one.state_dict()
    others = module(made(tmp_path / "others.zarr", "cdef"), tmp_path, channels=["v"], scale_by="series")
    with pytest.raises(UsageError, match=r"\be\b.*\bf\b"):  # noqa: PT012  # at once, or when windows are asked for
        others.load_state_dict(state)
        others.predict_dataloader()


def test_the_order_of_channels_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    rows = [["a", t, t % 7, t % 3] for t in range(40)]
    ingest(write_table(tmp_path / "s.csv", ["id", "t", "p", "q"], rows), path, id="id", time="t")
    one = module(path, tmp_path, channels=["p", "q"], targets=["p"])
    two = module(path, tmp_path, channels=["q", "p"], targets=["p"])
    two.load_state_dict(one.state_dict())
    assert_same(one, two, "a")
    assert np.isfinite(of_series(two, "a")["x"].numpy()).all()
