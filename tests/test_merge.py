"""The index after appends is that of one ingest of all rows, but for where rows lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import append, ingest, open_store, verify

READING: dict[str, Any] = {"id": "id", "time": "t", "on_duplicate": "last", "workers": 1}
ROW = st.tuples(st.sampled_from("abcdefg"), st.integers(0, 12), st.integers(0, 99))


def known(store: Path) -> dict[str, list[Any]]:
    """What a store says of its series and their runs, the rule among it."""
    opened = open_store(store)
    index, moments = opened.index, opened.moments
    runs = [index.runs.start, index.runs.stop, index.runs.series, index.runs.time]
    arrays = [index.ids, index.row_size, index.time_start, index.time_stop, *runs, moments.count, moments.low]
    values = [opened.times(0, opened.n_rows), opened.read("v", 0, opened.n_rows)]
    return {str(opened.time.rule): [each.tolist() for each in (*arrays, *values)]}


@settings(max_examples=few(25), deadline=None)
@given(first=st.lists(ROW, min_size=1, max_size=30), later=st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=4))
def test_the_index_after_appends_is_that_of_one_ingest(
    tmp_path_factory: Any, first: list[tuple[str, int, int]], later: list[list[tuple[str, int, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    grown, whole, header = folder / "grown.zarr", folder / "whole.zarr", ["id", "t", "v"]
    # Steps of one, so that both have the same rule: of an odd series, which all appends leave as it is.
    steady = [("steady", time, 0) for time in range(200)]
    ingest(write_table(folder / "0.csv", header, [*steady, *first]), grown, **READING)
    for number, rows in enumerate(later, 1):
        if rows:
            append(write_table(folder / f"{number}.csv", header, rows), grown, on_duplicate="last", workers=1)
    everything = [*steady, *first, *(row for rows in later for row in rows)]
    ingest(write_table(folder / "all.csv", header, everything), whole, **READING)
    assert known(grown) == known(whole)
    assert verify(open_store(grown)).faults == ()
    pointer, index = open_store(grown).index.extent_ptr, open_store(grown).index
    assert np.add.reduceat(index.extent_stop - index.extent_start, pointer[:-1]).tolist() == index.row_size.tolist()
