"""Splits by time, by series and both; and that no target is ever in two of them."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import SeriesView
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.leaks import refuse_leaks, refuse_trained, trained_on
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.splits import NAMES, Split, SplitName
from zstore import Store, UsageError, WindowIndex, WindowShape, ZstoreError, ingest, open_store


@pytest.fixture(scope="module")
def staggered(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nine series of 100 steps that begin at 0, 10, 20 …, in three regions."""
    folder = tmp_path_factory.mktemp("staggered")
    rows = [[f"s{n}", 10 * n + t, n + t / 100] for n in range(9) for t in range(100)]
    statics = write_table(
        folder / "a.csv", ["id", "region", "size"], [[f"s{n}", "abc"[n % 3], n // 3] for n in range(9)]
    )
    ingest(write_table(folder / "r.csv", ["id", "t", "v"], rows), folder / "s.zarr", id="id", time="t", static=statics)
    return open_store(folder / "s.zarr")


def targets_of(store: Store, split: Split, name: SplitName) -> WindowIndex:
    """Windows of one row, the targets of a split."""
    freq = store.schema.time.freq
    return WindowIndex.build(store.index.runs, WindowShape(1, 1, -1), freq, target_rows(store, split, name))


def rows_of(store: Store, split: Split, name: SplitName) -> dict[int, tuple[int, int]]:
    """First and last target time of each series that has any."""
    start, stop = target_rows(store, split, name)
    times = store.times(0, store.n_rows)
    kept = stop > start
    series = store.index.runs.series[kept].tolist()
    return {n: (int(times[a]), int(times[b - 1])) for n, a, b in zip(series, start[kept], stop[kept], strict=True)}


def test_borders_over_each_series_count_from_its_own_first_time(staggered: Store) -> None:
    split = Split(over="series", sizes=(0.5, 0.2, 0.3))
    assert rows_of(staggered, split, "train") == {n: (10 * n, 10 * n + 49) for n in range(9)}
    assert rows_of(staggered, split, "val") == {n: (10 * n + 50, 10 * n + 69) for n in range(9)}
    steps = Split(over="series", sizes=(60, 10, 30))
    assert rows_of(staggered, steps, "test") == {n: (10 * n + 70, 10 * n + 99) for n in range(9)}


def test_a_last_border_far_behind_all_times_leaves_test_what_lies_before_it(staggered: Store) -> None:
    far, near = (Split(dates=("0", "90", "110", end)) for end in (str(2**63 - 1), "180"))
    for name in NAMES:
        assert rows_of(staggered, far, name) == rows_of(staggered, near, name) != {}


def test_a_crossed_split_tests_unseen_series_in_an_unseen_period(staggered: Store) -> None:
    split = Split(by="both", dates=("0", "90", "110", "180"), series_sizes=(5 / 9, 2 / 9, 2 / 9), seed=1)
    found = {name: rows_of(staggered, split, name) for name in NAMES}
    assert not set(found["train"]) & set(found["test"])
    assert not set(found["train"]) & set(found["val"])
    assert all(stop < 90 for _, stop in found["train"].values())
    assert all(start >= 110 for start, _ in found["test"].values())
    assert np.bincount(assign_series(staggered, split)).tolist() == [5, 2, 2]


def test_series_are_shared_out_by_lists_files_and_attributes(staggered: Store, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("s7\ns8\n")
    named = Split(by="series", ids={"train": ["s0", "s1"], "val": ["s2"], "test": str(tmp_path / "test.txt")})
    assert assign_series(staggered, named).tolist() == [0, 0, 1, -1, -1, -1, -1, 2, 2]
    before = named.digest()
    (tmp_path / "test.txt").write_text("s7\n")
    assert named.digest() != before
    region = Split(by="series", attribute="region", values={"train": ["a"], "val": ["b"], "test": ["c"]})
    assert assign_series(staggered, region).tolist() == [0, 1, 2] * 3
    size = Split(by="series", attribute="size", values={"train": [0, 2], "test": [1]})
    assert assign_series(staggered, size).tolist() == [0, 0, 0, 2, 2, 2, 0, 0, 0]


def test_an_origin_k_tests_on_the_kth_last_stretch_of_each_series(staggered: Store) -> None:
    for origin in range(4):
        split = Split(over="series", sizes=(-1, 10, 20), origin=origin)
        stop = 100 - 20 * origin
        assert rows_of(staggered, split, "test") == {n: (10 * n + stop - 20, 10 * n + stop - 1) for n in range(9)}
        assert rows_of(staggered, split, "val") == {n: (10 * n + stop - 30, 10 * n + stop - 21) for n in range(9)}
        assert rows_of(staggered, split, "train") == {n: (10 * n, 10 * n + stop - 31) for n in range(9)}
    whole = Split(sizes=(-1, 0, 30), origin=2)  # the last 90 to 60 of 180 steps, the same for every series
    assert {n: span for n, span in rows_of(staggered, whole, "test").items() if n in (0, 4, 8)} == {
        0: (90, 99),
        4: (90, 119),
        8: (90, 119),
    }


def test_a_series_too_short_for_an_origin_belongs_to_nobody(tmp_path: Path) -> None:
    rows = [[name, t, t] for name, length in (("long", 50), ("short", 12), ("tiny", 4)) for t in range(length)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    split = Split(over="series", sizes=(-1, 0, 5), origin=1)
    assert rows_of(store, split, "test") == {0: (40, 44), 1: (2, 6)}
    assert rows_of(store, split, "train") == {0: (0, 39), 1: (0, 1)}
    with pytest.raises(UsageError, match="split of 55 steps; expected at most 50 steps"):
        target_rows(store, Split(over="series", sizes=(-1, 0, 5), origin=10), "test")


def test_a_table_says_which_series_are_for_what(staggered: Store, tmp_path: Path) -> None:
    table = tmp_path / "folds.csv"
    table.write_text(
        "site,id,split,fold\n" + "".join(f"x,s{n},{['train', 'val', 'test'][n % 3]},{n % 5}\n" for n in range(9))
    )
    assert assign_series(staggered, Split(by="series", table=str(table))).tolist() == [0, 1, 2] * 3
    by_fold = Split(
        by="series", table=str(table), attribute="fold", values={"train": [0, "1"], "val": [2], "test": [3]}
    )
    assert assign_series(staggered, by_fold).tolist() == [0, 0, 1, 2, -1, 0, 0, 1, 2]
    before = by_fold.digest()
    table.write_text(table.read_text().replace("s0,train", "s0,val") + "x,unknown,train,0\r\n\n")
    assert by_fold.digest() != before
    assert assign_series(staggered, Split(by="series", table=str(table))).tolist() == [1, 1, 2] + [0, 1, 2] * 2
    table.write_text("\ufeffname,split\n" + "".join(f"s{n},{'test' if n else ''}\n" for n in range(9)))
    assert assign_series(staggered, Split(by="series", table=str(table))).tolist() == [-1] + [2] * 8


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("id,split\ns0,train\n", {}, "no line of series s1 in"),
        ("id,role\ns0,train\n", {}, "no column 'split'"),
        ("id,split,split\ns0,train,val\n", {}, "no column 'split' of its own"),
        ("", {}, "no column 'split'"),
        ("id,split\ns0,train\ns0,val\n", {}, "id s0 again; expected each id once. .* line 3"),
        ("id,split\ns0,train,1\n", {}, "3 fields; expected 2 fields"),
        ('id,split\n"s0,train\n', {}, "no CSV"),
        ("ALL learn", {}, "no series is of train, val or test by split; expected one of these words; it has learn"),
        ("ALL learn", {"values": {"train": ["lern"]}}, "no series of .* has split lern"),
        ("ALL train", {"folds": 4}, "table and folds"),
        ("ALL train", {"by": "time"}, "table by time"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    staggered: Store, tmp_path: Path, text: str, more: dict[str, Any], message: str
) -> None:
    if text.startswith("ALL "):
        text = "id,split\n" + "".join(f"s{n},{text[4:]}\n" for n in range(9))
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        assign_series(staggered, Split(**{"by": "series", "table": str(tmp_path / "t.csv"), **more}))


def test_a_split_without_later_options_keeps_its_digest() -> None:
    assert Split().digest() == "069c73364260b87d"


def test_a_split_shorter_than_the_horizon_is_named(staggered: Store) -> None:
    split = Split(over="series", sizes=(-1, 5, 20))
    data = WindowDataModule(staggered.path, lookback=4, horizon=8, targets=["v"], split=split)
    data.setup("fit")
    with pytest.raises(
        UsageError, match="a horizon of at most 5, the most rows of a series without a gap that val has"
    ):
        data.val_dataloader()


@given(st.integers(3, 9), st.integers(0, 50))
def test_every_series_is_tested_in_exactly_one_fold(folds: int, seed: int) -> None:
    store = type("Sized", (), {"n_series": 23})
    dealt = [assign_series(store, Split(by="series", folds=folds, fold=n, seed=seed)) for n in range(folds)]  # type: ignore[arg-type]
    assert (np.stack(dealt) == 2).sum(axis=0).tolist() == [1] * 23
    assert (np.stack(dealt) == 1).sum(axis=0).tolist() == [1] * 23
    sizes = [int((part == 2).sum()) for part in dealt]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"by": "series", "ids": {"train": ["s0", "s1"], "test": ["s1"]}}, "series s1 in both train and test"),
        ({"by": "series", "ids": {"train": ["s0"], "test": ["nobody"]}}, "nobody"),
        ({"by": "series", "ids": {"train": "no/such.txt"}}, "a text file"),
        ({"by": "series", "attribute": "region", "values": {"train": ["a", "b"], "val": ["b"]}}, "both train and val"),
        (
            {"by": "series", "attribute": "region", "values": {"train": ["z"]}},
            "no series has region z; expected one of",
        ),
        ({"by": "series", "attribute": "colour", "values": {"train": ["z"]}}, "no static attribute 'colour'"),
        ({"by": "series", "attribute": "region"}, "without its values"),
        ({"by": "series", "folds": 2}, "fold 0 of 2"),
        ({"by": "series", "folds": 4, "fold": 4}, "fold 4 of 4"),
        ({"by": "series", "folds": 4, "ids": {"train": ["s0"]}}, "ids and folds"),
        ({"by": "series", "embargo": 3}, "embargo by series"),
        ({"by": "time", "folds": 4}, "folds by time"),
        ({"over": "series", "dates": ("0", "1", "2", "3")}, "dates over each series"),
        ({"sizes": (0.5, 0.2, 0.3), "dates": ("0", "1", "2", "3")}, "sizes .* and dates"),
        ({"dates": ("0", "90", "110", "9" * 20)}, "split dates"),
        ({"sizes": (0.5, -0.2, 0.3)}, "no negative ones"),
        (
            {"sizes": (0.5, 0.2, 0.3), "origin": 1},
            "origin 1 with sizes .*; expected sizes that end with the last steps",
        ),
        ({"sizes": (-1, 3, 0), "origin": 1}, "origin 1 with sizes"),
        ({"sizes": (-1, 0, 3), "origin": -1}, "origin -1"),
        ({"by": "both", "sizes": (0.5, 0.2, 0.3), "series_sizes": (0.9, 0.2, 0.1)}, "overlap"),
    ],
)
def test_a_split_that_cannot_be_meant_is_refused(staggered: Store, split: dict[str, Any], message: str) -> None:
    with pytest.raises(ZstoreError, match=message):
        target_rows(staggered, Split(**split), "train")


SPLITS = st.one_of(
    st.builds(
        Split,
        by=st.just("time"),
        sizes=st.tuples(*[st.floats(0.05, 0.33)] * 3),
        over=st.sampled_from(["store", "series"]),
        embargo=st.integers(0, 5),
    ),
    st.builds(Split, by=st.just("series"), sizes=st.tuples(*[st.floats(0.12, 0.33)] * 3), seed=st.integers(0, 9)),
    st.builds(
        Split,
        by=st.just("both"),
        sizes=st.tuples(*[st.floats(0.05, 0.33)] * 3),
        series_sizes=st.tuples(*[st.floats(0.12, 0.33)] * 3),
        over=st.sampled_from(["store", "series"]),
    ),
)


BLOCKS = (1, 2, 1 << 17)  # runs, or stretches of windows, that are looked at together


@given(
    SPLITS,
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from(["allow", "forbid"]),
    st.sampled_from(BLOCKS),
)
def test_no_target_of_any_split_is_in_another(
    staggered: Store, split: Split, lookback: int, horizon: int, delay: int, context: str, block: int
) -> None:
    runs, shape, targets = staggered.index.runs, WindowShape(lookback, horizon, delay), {}
    view = SeriesView(staggered, split, staggered.channels)
    for name in NAMES:
        index = WindowIndex.build(runs, shape, 1, target_rows(staggered, split, name), context == "allow")
        with patch("zstore.format.spans._BLOCK", block):
            refuse_leaks(view.ranges_near(), index, name, staggered.path)
        start = index.locate(np.arange(len(index)))[0] + shape.target_offset
        targets[name] = {int(row) + step for row in start for step in range(horizon)}
    assert not targets["train"] & targets["val"]
    assert not targets["train"] & targets["test"]
    assert not targets["val"] & targets["test"]


@given(st.integers(0, 8), st.integers(1, 30), st.sampled_from(NAMES), st.sampled_from(BLOCKS))
def test_a_target_planted_in_another_split_is_found_in_whatever_series(
    staggered: Store, series: int, by: int, name: SplitName, block: int
) -> None:
    split, shape = Split(sizes=(0.4, 0.3, 0.3), over="series"), WindowShape(5, 2)
    start, stop = target_rows(staggered, split, name)
    ranges = SeriesView(staggered, split, staggered.channels).ranges_near()
    moved = (start, stop + by * (np.arange(9) == series))
    if name == "test":
        moved = (start - by * (np.arange(9) == series), stop)
    with patch("zstore.format.spans._BLOCK", block):
        sound = WindowIndex.build(staggered.index.runs, shape, 1, (start, stop))
        refuse_leaks(ranges, sound, name, staggered.path)
        leaking = WindowIndex.build(staggered.index.runs, shape, 1, moved)
        other = "val" if name != "val" else "test"
        with pytest.raises(UsageError, match=rf"row [0-9,]+ is a target of both {name} and {other}"):
            refuse_leaks(ranges, leaking, name, staggered.path)


def test_windows_are_proved_beside_the_targets_of_runs_near_them_alone(staggered: Store) -> None:
    split, n_runs = Split(sizes=(0.5, 0.2, 0.3)), []
    ranges = SeriesView(staggered, split, staggered.channels).ranges_near()

    def counted(name: SplitName, low: int, high: int) -> Any:
        found = ranges(name, low, high)
        n_runs.append(len(found[0]))
        return found

    with patch("zstore.format.spans._BLOCK", 2):
        index = WindowIndex.build(staggered.index.runs, WindowShape(5, 2), 1, target_rows(staggered, split, "train"))
        refuse_leaks(counted, index, "train", staggered.path)
    assert n_runs == [2, 2] * (len(index.ends) // 2) + [1, 1] * (len(index.ends) % 2)


def test_a_module_whose_splits_overlap_does_not_start(
    staggered: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_step_more(store: Store, split: Split, name: SplitName, members: Any = None) -> Any:
        start, stop = target_rows(store, split, name)
        return start, np.where((stop > start) & (name == "train"), stop + 1, stop)

    monkeypatch.setattr("lightning_app.data.rows.views.target_rows", one_step_more)
    data = WindowDataModule(str(staggered.path), 5, 2, cache=str(tmp_path))
    with pytest.raises(UsageError, match="target of both train and"):
        data.train_dataloader()


@given(SPLITS, SPLITS)
def test_a_model_is_not_tested_on_what_another_split_trained_it_on(
    staggered: Store, first: Split, second: Split
) -> None:
    def rows(split: Split, name: SplitName) -> set[int]:
        return {row for a, b in zip(*target_rows(staggered, split, name), strict=True) for row in range(a, b)}

    trained = trained_on(staggered, targets_of(staggered, first, "train"))
    tested = targets_of(staggered, second, "test")
    if rows(first, "train") & rows(second, "test"):
        with pytest.raises(UsageError, match="trained on targets that are in test here"):
            refuse_trained(staggered, tested, "test", trained)
    else:
        refuse_trained(staggered, tested, "test", trained)


def test_what_was_trained_on_is_known_by_id_in_a_store_with_other_series(staggered: Store, tmp_path: Path) -> None:
    rows = [[f"s{n}", 10 * n + t, t] for n in (8, 3, 20) for t in range(100)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    other = open_store(tmp_path / "s.zarr")
    split = Split(by="series", ids={"train": ["s3"], "test": ["s0"]})
    trained = trained_on(staggered, targets_of(staggered, split, "train"))
    unseen, seen = (Split(by="series", ids={"test": ["s20", id_]}) for id_ in ("s8", "s3"))
    refuse_trained(other, targets_of(other, unseen, "test"), "test", trained)
    with pytest.raises(UsageError, match="in test here: series s3"):
        refuse_trained(other, targets_of(other, seen, "test"), "test", trained)
    assert all(isinstance(value, torch.Tensor | str) for value in trained.values())
