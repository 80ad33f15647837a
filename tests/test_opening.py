"""What it takes to open a store of many series and see its first rows: no more than is needed, and all at once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import VLenUTF8

import zstore
from zstore import StoreError, open_store
from zstore.format import arrays
from zstore.format.soundness import check_missing
from zstore.reading.objects import ObjectReader

texts = st.text(st.sampled_from("aZ09_-/ ~\x7fé\0"), max_size=9) | st.text(max_size=4) | st.just("x" * 127)
ids = st.text(st.sampled_from("abc019"), min_size=1, max_size=8)


def encoded(words: list[str]) -> np.ndarray:
    return np.frombuffer(VLenUTF8().encode(np.array(words, object)), np.uint8)


@given(st.lists(ids, min_size=1, max_size=30) | st.lists(texts, max_size=30))
def test_texts_are_decoded_at_once_as_one_by_one(words: list[str]) -> None:
    found = arrays._short_texts(encoded(words)[4:], len(words))
    plain = all(word.isascii() and 0 < len(word) < 128 and "\0" not in word for word in words)
    if found is not None:
        assert found.astype(np.dtypes.StringDType()).tolist() == words
    if plain and len({len(word) for word in words}) == 1:
        assert found is not None


@given(st.lists(ids, min_size=1, max_size=6), st.data())
def test_texts_that_are_damaged_are_decoded_at_once_only_as_one_by_one(words: list[str], data: st.DataObject) -> None:
    content = encoded(words).copy()
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 9) | st.integers(0, 255))
    found = arrays._short_texts(content[4:], len(words))
    if found is not None:
        assert found.astype(np.dtypes.StringDType()).tolist() == VLenUTF8().decode(content).tolist()


@pytest.mark.parametrize("counts", [[[0], [-1]], [[0], [4]], [[9], [0]]])
def test_more_missing_values_than_rows_are_refused(counts: list[list[int]]) -> None:
    row_size = np.array([2, 3])
    with pytest.raises(StoreError, match="missing values that are more than rows"):
        check_missing(np.array(counts), row_size, "s.zarr")
    check_missing(np.array([[2], [0]]), row_size, "s.zarr")


def test_the_first_rows_of_a_selection_need_one_array_of_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"id": ["a", "a", "b"], "t": [1, 2, 1], "v": [0.5, None, 2.0]})
    static = pa.table({"id": ["a", "b"], "land": ["wood", "field"]})
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t", time_unit="steps", static=static)
    read, small, part = [], ObjectReader.small, ObjectReader.small_part
    monkeypatch.setattr(ObjectReader, "small", lambda self, path: read.append(path) or small(self, path))
    monkeypatch.setattr(
        ObjectReader, "small_part", lambda self, path, *more: read.append(path) or part(self, path, *more)
    )
    rows = open_store(tmp_path / "s.zarr").sel(where={"land": "wood"}).to_arrow().read_all()
    assert rows.column("v").to_pylist() == [0.5, None]
    assert [path.rpartition("/")[2] for path in read if "moments" in path] == ["n_missing"]
    store = open_store(tmp_path / "s.zarr")
    assert store.moments.n_missing.tolist() == [[1], [0]]
    assert store.missing(["v"]).tolist() == [True]
