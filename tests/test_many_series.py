"""Ids and statistics of very many series: no Python string for each, and nothing done twice."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from benchmarks import series
from conftest import SMALL_GRID, no_flush, stored
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import VLenUTF8

from zstore import NotFoundError, StoreError, append, ingest, open_store, verify
from zstore.arrow import from_strings, numbered, text_array, to_strings
from zstore.format import arrays
from zstore.reading.described import DescribedVersion
from zstore.writing import segments, small, spliced
from zstore.writing.spliced import Edits, Spliced

odd_texts = st.text(max_size=6) | st.sampled_from(["", "\0", "a\0", "é", "Ω≈", "🙂", "~" * 300, "0", "00"])
plain_texts = st.text(st.sampled_from("abc019/"), max_size=5)
lists_of_texts = st.lists(odd_texts, max_size=12) | st.lists(plain_texts, max_size=12)
long_ids = st.text(st.sampled_from("aé"), min_size=9, max_size=10)  # of some more than 15 bytes
ids = st.text(st.sampled_from("abé"), min_size=1, max_size=2) | long_ids
rows = st.dictionaries(st.tuples(ids, st.integers(0, 9)), st.none() | st.integers(-9, 9).map(float), min_size=1)


def strings(texts: list[str]) -> Any:
    """Texts as `store.ids` has them."""
    return np.array(texts, np.dtypes.StringDType())


@given(lists_of_texts)
def test_texts_come_back_from_arrow_as_they_were(texts: list[str]) -> None:
    column = from_strings(strings(texts))
    column.validate(full=True)
    assert column.to_pylist() == texts
    assert to_strings(column).tolist() == texts
    assert to_strings(column.slice(1)).tolist() == texts[1:]


@given(lists_of_texts)
def test_texts_are_encoded_at_once_as_one_by_one(texts: list[str]) -> None:
    expected = VLenUTF8().encode(np.array(texts, object)) if texts else bytes(4)
    assert bytes(arrays._encoded_texts(strings(texts))) == bytes(expected)


@given(st.lists(lists_of_texts, max_size=4), st.booleans())
def test_texts_of_several_arrays_are_numbered_in_the_order_of_their_bytes(texts: list[list[str]], sort: bool) -> None:
    if sort:  # as in sources that are sorted by id, which go on where the block before has ended
        cuts = np.cumsum([0, *map(len, texts)])
        everything = sorted({text for some in texts for text in some}, key=str.encode)
        texts = [everything[max(low - 1, 0) : high] for low, high in pairwise(cuts)]
    among, positions = numbered([text_array(some) for some in texts])
    assert among.to_pylist() == sorted({text for some in texts for text in some}, key=str.encode)
    assert [[among[place].as_py() for place in some.tolist()] for some in positions] == texts


def table(values: dict[tuple[str, int], float | None]) -> Any:
    """Rows as a table."""
    columns = [[id_ for id_, _ in values], [time for _, time in values], list(values.values())]
    types = (pa.string(), pa.int64(), pa.float64())
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=["id", "t", "v"])


@given(rows, rows)
def test_an_append_knows_of_each_series_what_an_ingest_of_all_rows_knows(
    tmp_path_factory: pytest.TempPathFactory, first: dict[Any, Any], second: dict[Any, Any]
) -> None:
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        no_flush(patch)
        patch.setattr(arrays, "_SMALL_CHUNK", 2)
        options: dict[str, Any] = {"id": "id", "time": "t", "time_unit": "steps", "freq": "1", **SMALL_GRID}
        ingest(table(first), folder / "some.zarr", **options)
        append(table(second), folder / "some.zarr", on_duplicate="last")
        ingest(table({**first, **second}), folder / "all.zarr", **options)
    some, every = open_store(folder / "some.zarr"), open_store(folder / "all.zarr")
    assert some.ids.tolist() == every.ids.tolist()
    for name in ("row_size", "time_start", "time_stop"):
        np.testing.assert_array_equal(getattr(some.index, name), getattr(every.index, name))
    for name in ("start", "stop", "series", "time"):
        np.testing.assert_array_equal(getattr(some.index.runs, name), getattr(every.index.runs, name))
    for name in every.moments.fields():
        np.testing.assert_allclose(getattr(some.moments, name), getattr(every.moments, name))
    np.testing.assert_array_equal(some.read("v", 0, some.n_rows), every.read("v", 0, every.n_rows))
    assert verify(some).faults == ()


def test_long_ids_with_other_letters_than_ascii_are_found_and_put_in_order(tmp_path: Path) -> None:
    names = [f"Münster, Aa bei Gievenbeck {n}" for n in range(30)]
    ingest(table({(name, 0): 1.0 for name in names[::2]}), tmp_path / "s.zarr", id="id", time="t", freq="1")
    append(table({(name, 1): 2.0 for name in names}), tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert store.ids.tolist() == sorted(names)
    assert [store.series(name).read("v").tolist() for name in names[:2]] == [[1.0, 2.0], [2.0]]
    assert verify(store).faults == ()


@given(rows, rows)
def test_parts_of_the_index_that_stay_are_copied_and_are_what_encoding_them_gives(
    tmp_path_factory: pytest.TempPathFactory, first: dict[Any, Any], second: dict[Any, Any]
) -> None:
    made = []
    for copies in (True, False):
        folder = tmp_path_factory.mktemp("stores")
        with pytest.MonkeyPatch.context() as patch:
            no_flush(patch)
            patch.setattr(arrays, "_SMALL_CHUNK", 2)
            patch.setattr(small, "_stays", small._stays if copies else lambda *_: False)
            ingest(table(first), folder / "s.zarr", id="id", time="t", time_unit="steps", **SMALL_GRID)
            append(table(second), folder / "s.zarr", on_duplicate="last")
        made.append(stored(folder / "s.zarr"))
    assert made[0] == made[1]


@given(rows, rows)
def test_what_shards_know_of_series_is_summed_up_from_scratch_space_as_from_memory(
    tmp_path_factory: pytest.TempPathFactory, first: dict[Any, Any], second: dict[Any, Any]
) -> None:
    made = []
    for much in (0, segments._MUCH_BYTES):
        folder = tmp_path_factory.mktemp("stores")
        with pytest.MonkeyPatch.context() as patch:
            no_flush(patch)
            patch.setattr(segments, "_MUCH_BYTES", much)
            ingest(table(first), folder / "s.zarr", id="id", time="t", time_unit="steps", chunk_rows=2, shard_rows=4)
            append(table(second), folder / "s.zarr", on_duplicate="last")
        made.append(stored(folder / "s.zarr"))
    assert made[0] == made[1]


class Items:
    """An array as `SmallColumn` gives it."""

    def __init__(self, values: Any) -> None:
        self.values, self.dtype, self.shape = values, values.dtype, values.shape

    def __len__(self) -> int:
        return len(self.values)

    def read(self, start: int, stop: int) -> Any:
        return self.values[start:stop]


@given(st.data())
def test_an_array_with_edits_is_what_numpy_makes_of_them(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 12), "items")
    before, chunk_rows = np.arange(n) * 10, data.draw(st.integers(1, 5))
    column: Any = Items(before)

    def ascending(most: int, unique: bool = False) -> Any:
        drawn = data.draw(st.lists(st.integers(0, most), max_size=5, unique=unique)) if most >= 0 else []
        return np.array(sorted(drawn), np.int64)

    drop, until = np.zeros(0, np.int64), np.zeros(0, np.int64)
    change, insert, shift = ascending(n - 1, unique=True), ascending(n), ascending(n)
    if data.draw(st.booleans()):
        low = data.draw(st.integers(0, n))
        high = data.draw(st.integers(low, n))
        drop, until = np.array([low]), np.array([high])
        change, insert = change[(change < low) | (change >= high)], insert[(insert <= low) | (insert >= high)]
    by = np.array([data.draw(st.integers(-2, 2)) for _ in shift], np.int64)
    edits = Edits.of(
        (insert, -1 - np.arange(len(insert))), (change, -100 - np.arange(len(change))), (drop, until), (shift, by)
    )
    made = Spliced.of(column, edits)
    expected = before.copy()
    for place, amount in zip(shift, by, strict=True):
        expected[place:] += amount
    expected[change] = -100 - np.arange(len(change))
    stays = np.ones(n, np.bool_)
    for first, last in zip(drop.tolist(), until.tolist(), strict=True):
        stays[first:last] = False
    items = [[int(expected[place])] if stays[place] else [] for place in range(n)] + [[]]
    for place, value in reversed(list(zip(insert.tolist(), range(-1, -1 - len(insert), -1), strict=True))):
        items[place].insert(0, value)
    flat = [value for some in items for value in some]
    assert len(made) == len(flat)
    for long in (1, 1 << 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spliced, "_LONG", long)
            assert made.whole().tolist() == flat
            parts = [slice(low, min(low + chunk_rows, len(made))) for low in range(0, len(made), chunk_rows)]
            assert [made.read(part.start, part.stop).tolist() for part in parts] == [flat[part] for part in parts]
    for part in parts:
        if made.stays(part.start, part.stop):
            assert flat[part] == before[part].tolist()


def test_an_append_encodes_only_parts_of_the_index_that_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_SMALL_CHUNK", 4)
    ingest(table({(f"s{n:02}", t): 1.0 for n in range(12) for t in (0, 1)}), tmp_path / "s.zarr", id="id", time="t")
    encoded: list[int] = []
    encode = arrays.encode_small_chunk

    def counted(values: Any, document: Any) -> bytes:
        encoded.append(len(values))
        return encode(values, document)

    monkeypatch.setattr(small, "encode_small_chunk", counted)
    append(table({("s11", 2): 1.0}), tmp_path / "s.zarr")
    changed = ["row_size", "extent_ptr", "extent_start", "extent_stop", "run_stop", "time_stop", "count"]
    assert len(encoded) == len(changed)  # of each the last part, of more than 40 in all


def test_an_append_behind_all_rows_has_no_index_and_no_statistics_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(table({(f"s{n:02}", t): 1.0 for n in range(12) for t in (0, 1)}), tmp_path / "s.zarr", id="id", time="t")

    def read(_: Any) -> None:
        raise AssertionError("read whole")

    with monkeypatch.context() as patch:
        for name in ("index", "moments", "ids"):
            patch.setattr(DescribedVersion, name, property(read))
        append(table({("s03", 2): 2.0, ("s035", 0): 3.0, ("s11", 2): 4.0}), tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert verify(store).faults == ()
    assert store.series("s035").read("v").tolist() == [3.0]
    assert store.series("s11").read("v").tolist() == [1.0, 1.0, 4.0]


def test_a_series_is_found_without_reading_what_is_known_of_all(tmp_path: Path) -> None:
    ingest(table({("a", 0): 1.0, ("b", 0): 2.0}), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    for name in ("extent_ptr", "row_size", "run_start"):
        (tmp_path / "s.zarr" / "index" / "00000001" / name / "c" / "0").unlink()
    assert store.ids.tolist() == ["a", "b"]
    assert store.series("b").position == 1
    assert "a" in store
    assert "c" not in store
    with pytest.raises(NotFoundError, match="one of 2 ids"):
        store.series("c")
    with pytest.raises(StoreError, match="is missing"):
        len(store.series("b"))


def test_the_suite_does_each_of_its_jobs(tmp_path: Path) -> None:
    for by_time in (False, True):
        source = series.table(tmp_path / f"{by_time}.parquet", 1_200, by_time)
        found = {job: series.work(job, source, tmp_path / f"{by_time}.zarr") for job in series.JOBS}
        assert all(each["peak_mib"] > 0 for each in found.values())
    stores = [open_store(tmp_path / f"{by_time}.zarr") for by_time in (False, True)]
    assert [(store.n_series, store.n_rows) for store in stores] == [(1_200, 25_000)] * 2
    assert stores[0].series("s00000005").times()[-1] == np.datetime64("2020-01-20")
    assert stores[0].series("s00000000").times()[-1] == np.datetime64("2020-01-21")
