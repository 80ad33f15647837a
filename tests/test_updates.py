"""Rows that come in parts: new values replace old ones, empty cells keep them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import few, stored, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_files import image, voxels

from zstore import Store, UsageError, append, compact, ingest, open_store, verify
from zstore.upkeep.compare import compare_sources

Cell = tuple[str, int, float | None, float | None, str | None]
CELLS = st.tuples(
    st.sampled_from("abc"),
    st.integers(0, 6),
    st.sampled_from([None, 0.0, 1.0, 2.5, 1 / 3, 1e6]),
    st.sampled_from([None, -1.0, 40_000.0]),
    st.sampled_from([None, "x", "y", "a longer word"]),
)
COLUMNS = ["id", "t", "v", "n", "w"]
FIRST: list[Cell] = [("z", 0, 1.25, 1.0, "x"), ("z", 1, None, None, "y")]  # which say what the columns hold


def written(path: Path, rows: Sequence[Cell]) -> Path:
    return write_table(path, COLUMNS, [["" if cell is None else cell for cell in row] for row in rows])


def updated(before: pd.DataFrame, rows: Sequence[Cell]) -> pd.DataFrame:
    """What pandas makes of one row after the other."""
    for row in rows:
        before = pd.DataFrame([row], columns=COLUMNS).set_index(["id", "t"]).combine_first(before)
    return before.astype({"v": "float32", "n": "float32"}).sort_index()[COLUMNS[2:]]


def contents(store: Store) -> pd.DataFrame:
    rows = pd.DataFrame({"id": store.ids[store.index.series_of(0, store.n_rows)], "t": store.times(0, store.n_rows)})
    for channel in store.schema.channels:
        values = store.read(channel.name, 0, store.n_rows)
        words = channel.categories
        rows[channel.name] = [None if v != v else words[int(v)] for v in values] if words else values
    return rows.set_index(["id", "t"])


def assert_same(store: Store, expected: pd.DataFrame) -> None:
    found = contents(store)
    assert found.index.tolist() == expected.index.tolist()
    for name in ("v", "n"):
        np.testing.assert_array_equal(found[name].to_numpy("float32"), expected[name].to_numpy("float32"))
        assert store.moments.total().count[store.channels.index(name)] == expected[name].count()
    assert found["w"].fillna("").tolist() == expected["w"].fillna("").tolist()


@given(
    first=st.lists(CELLS, max_size=8),
    later=st.lists(st.tuples(st.lists(CELLS, min_size=1, max_size=8), st.booleans()), min_size=1, max_size=4),
)
@settings(max_examples=few(10))
def test_updates_are_what_combine_first_of_pandas_makes_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, first: list[Cell], later: list[tuple[list[Cell], bool]]
) -> None:
    folder = tmp_path_factory.mktemp("updates")
    store, files = str(folder / "s.zarr"), [written(folder / "0.csv", [*FIRST, *first])]
    small: dict[str, Any] = {"workers": 1, "blocksize": 80}
    ingest(files[0], store, id="id", time="t", on_duplicate="update", chunk_rows=2, shard_rows=4, **small)
    expected = updated(pd.DataFrame(columns=COLUMNS).set_index(["id", "t"]), [*FIRST, *first])
    assert_same(open_store(store), expected)
    for number, (rows, compacted) in enumerate(later, start=1):
        files.append(written(folder / f"{number}.csv", rows))
        receipt = append(files[-1], store, on_duplicate="update", **small)
        expected = updated(expected, rows)
        assert receipt is not None
        assert receipt.n_rows_in == len(rows) == receipt.n_stored + receipt.n_duplicates
        if compacted:
            compact(store, workers=1)
        assert_same(open_store(store), expected)
    assert verify(open_store(store)).faults == ()
    comparison = compare_sources(open_store(store), files)
    assert (comparison.n_different, comparison.n_unseen, comparison.faults) == (0, 0, ())


def test_forecasts_become_observations_and_empty_targets_get_their_truth(tmp_path: Path) -> None:
    write_table(tmp_path / "1.csv", ["id", "t", "rain", "flow"], [["a", 0, 1.5, 0.5], ["a", 1, 4, ""], ["a", 2, 2, ""]])
    write_table(tmp_path / "2.csv", ["id", "t", "rain", "flow"], [["a", 1, 3.25, 0.75], ["a", 2, "", ""]])
    ingest(tmp_path / "1.csv", tmp_path / "s.zarr", id="id", time="t")
    receipt = append(tmp_path / "2.csv", tmp_path / "s.zarr", on_duplicate="update")
    assert receipt is not None
    assert "2 rows of the store were updated" in receipt.notes
    store = open_store(tmp_path / "s.zarr")
    assert store.series("a").read("rain").tolist() == [1.5, 3.25, 2]
    np.testing.assert_array_equal(store.series("a").read("flow"), [0.5, 0.75, np.nan])
    assert open_store(tmp_path / "s.zarr", version=1).series("a").read("rain").tolist() == [1.5, 4, 2]
    assert append(tmp_path / "2.csv", tmp_path / "s.zarr", on_duplicate="update") is None


def test_updates_are_the_same_bytes_whatever_the_workers_and_blocks(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    names = ["id", "t", "u", "v"]
    rows = [[f"s{n % 7}", n // 7, draw.integers(100), draw.integers(9) / 4] for n in range(600)]
    parts = [
        [f"s{s}", t, ["", 7.5, 1 / 3][draw.integers(3)], ["", 3][draw.integers(2)]]
        for s, t in zip(draw.integers(0, 8, 400).tolist(), draw.integers(40, 99, 400).tolist(), strict=True)
    ]
    write_table(tmp_path / "1.csv", names, rows)
    write_table(tmp_path / "2.csv", names, parts)
    found = []
    for workers, blocksize in ((1, 100_000), (2, 700)):
        path = tmp_path / f"{workers}.zarr"
        ingest(tmp_path / "1.csv", path, id="id", time="t", workers=workers, chunk_rows=16, shard_rows=64)
        append(tmp_path / "2.csv", path, on_duplicate="update", workers=workers, blocksize=blocksize)
        found.append({key: value for key, value in stored(path).items() if "root" not in key and key != "zarr.json"})
    assert found[0] == found[1]


def test_a_source_that_is_not_in_an_updated_row_is_found(tmp_path: Path) -> None:
    write_table(tmp_path / "1.csv", ["id", "t", "v", "w"], [["a", 0, 1, ""], ["a", 1, 2, 5]])
    write_table(tmp_path / "2.csv", ["id", "t", "v", "w"], [["a", 0, "", 4]])
    ingest(tmp_path / "1.csv", tmp_path / "s.zarr", id="id", time="t")
    append(tmp_path / "2.csv", tmp_path / "s.zarr", on_duplicate="update")
    store = open_store(tmp_path / "s.zarr")
    assert compare_sources(store, [tmp_path / "1.csv", tmp_path / "2.csv"]).n_different == 0
    write_table(tmp_path / "2.csv", ["id", "t", "v", "w"], [["a", 0, "", 9]])
    assert compare_sources(store, [tmp_path / "1.csv", tmp_path / "2.csv"]).n_different > 0


def test_vectors_are_updated_cell_by_cell(tmp_path: Path) -> None:
    for n, x in enumerate(([1.0, 2.0], [5.0, None])):
        pd.DataFrame({"id": ["a"], "t": [0], "x": [x]}).to_parquet(tmp_path / f"{n}.parquet")
    ingest(tmp_path / "0.parquet", tmp_path / "s.zarr", id="id", time="t")
    append(tmp_path / "1.parquet", tmp_path / "s.zarr", on_duplicate="update")
    store = open_store(tmp_path / "s.zarr")
    assert [store.read(name, 0, 1).tolist() for name in store.channels] == [[5.0], [2.0]]


def test_rows_with_files_are_not_updated_and_nothing_is_committed(tmp_path: Path) -> None:
    for n in range(2):
        image(tmp_path / f"{n}.png", voxels((4, 4, 3), np.uint8, seed=n))
        write_table(tmp_path / f"{n}.csv", ["id", "t", "v", "path"], [["a", 0, n, f"{n}.png"]])
    reading: dict[str, Any] = {"id": "id", "time": "t", "file": {"image": "path"}, "file_root": tmp_path}
    with pytest.raises(UsageError, match=r"--on-duplicate update of rows with the field 'image'.*last or first"):
        ingest(tmp_path / "0.csv", tmp_path / "new.zarr", on_duplicate="update", **reading)
    assert not (tmp_path / "new.zarr" / "zarr.json").exists()
    ingest(tmp_path / "0.csv", tmp_path / "s.zarr", **reading)
    with pytest.raises(UsageError, match="--on-duplicate update of rows with the field 'image'"):
        append(tmp_path / "1.csv", tmp_path / "s.zarr", on_duplicate="update")
    assert open_store(tmp_path / "s.zarr").version == 1
