"""Rows of one block, or of several, in the order of series and time."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zstore.writing import sort
from zstore.writing.sort import sort_keys

CODES = st.one_of(st.integers(0, 3), st.integers(0, 2**31 - 1))
TIMES = st.one_of(st.integers(-3, 3), st.integers(-(2**40), 2**40), st.integers(-(2**63), 2**63 - 1))


def check(codes: list[int], times: list[int]) -> None:
    """Sort, and compare with Python's stable sort."""
    by_code, its_times, order = sort_keys(np.array(codes, np.int32), np.array(times, np.int64))
    expected = sorted(range(len(codes)), key=lambda row: (codes[row], times[row]))
    assert list(zip(by_code.tolist(), its_times.tolist(), strict=True)) == [(codes[n], times[n]) for n in expected]
    assert (list(range(len(codes))) if order is None else order.tolist()) == expected
    assert (order is None) == (expected == list(range(len(codes))))


@given(st.lists(st.tuples(CODES, TIMES), max_size=60))
def test_rows_are_sorted_by_series_and_time_and_equal_ones_keep_their_order(rows: list[tuple[int, int]]) -> None:
    check([code for code, _ in rows], [time for _, time in rows])


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_so_are_sorted_stretches_behind_each_other(n_series: int, n_times: int, data: Any) -> None:
    rows = [(code, time) for code in range(n_series) for time in range(n_times)]
    cuts = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    stretches = [[row for row, cut in zip(rows, cuts, strict=True) if cut == n] for n in range(4)]
    check([code for part in stretches for code, _ in part], [time for part in stretches for _, time in part])


@pytest.mark.parametrize("order", ["time", "random"])
def test_a_table_by_time_needs_no_comparison_of_times_and_one_in_any_order_a_single_sort(order: str) -> None:
    codes, times = np.tile(np.arange(50, dtype=np.int32), 1400), np.repeat(np.arange(1400), 50)
    if order == "random":
        rows = np.random.default_rng(0).permutation(len(codes))
        codes, times = codes[rows], times[rows]
    with (
        mock.patch.object(sort, "_order_by_code", wraps=sort._order_by_code) as by_code,
        mock.patch.object(sort, "_order_by_both", wraps=sort._order_by_both) as by_both,
        mock.patch.object(np, "lexsort", side_effect=AssertionError("a sort that takes five times as long")),
    ):
        check(codes.tolist(), times.tolist())
    # A sample of the rows is sorted first.
    assert (by_code.call_count, by_both.call_count) == {"time": (2, 0), "random": (1, 1)}[order]
