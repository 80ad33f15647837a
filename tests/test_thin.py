"""Series as a screen has them: every extreme at its own time, gaps where nothing was observed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zstore.view.thin import Thinned, with_gaps


def drawn(data: st.DataObject) -> tuple[NDArray[np.int64], NDArray[Any]]:
    n = data.draw(st.integers(1, 60))
    times = np.sort(data.draw(st.lists(st.integers(-500, 500), min_size=n, max_size=n, unique=True)))
    number = st.sampled_from([-2.0, 0.0, 1.0, 1.5, np.nan, np.nan, np.inf, -np.inf])
    values = np.array(data.draw(st.lists(number, min_size=n, max_size=n)), data.draw(st.sampled_from(["f4", "f8"])))
    return np.asarray(times, np.int64), values


@given(st.data())
def test_each_stretch_of_time_has_the_rows_with_its_lowest_and_highest_value_however_rows_come(
    data: st.DataObject,
) -> None:
    times, values = drawn(data)
    n = data.draw(st.integers(1, 12))
    low, high = int(times[0]) - data.draw(st.integers(0, 9)), int(times[-1]) + 1 + data.draw(st.integers(0, 9))
    thinned = Thinned(low, high, n)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=3)))
    for begin, end in zip([0, *cuts], [*cuts, len(times)], strict=True):
        thinned.add(times[begin:end], values[begin:end])
    x, y = thinned.points()
    expected: list[tuple[int, float]] = []
    stretch = np.minimum(((times - low).astype(float) * (n / (high - low))), n - 1).astype(int)
    before = None
    for number in range(n):
        own = np.flatnonzero((stretch == number) & np.isfinite(values))
        if not len(own):
            continue
        rows = sorted({int(own[np.argmin(values[own])]), int(own[np.argmax(values[own])])})
        if before is not None and number - before > 1:
            expected.append((0, np.nan))
        expected += [(int(times[row]), float(values[row])) for row in rows]
        before = number
    np.testing.assert_array_equal(y, [value for _, value in expected])
    seen = ~np.isnan(y)
    np.testing.assert_array_equal(x[seen], [time for time, value in expected if not np.isnan(value)])
    assert (np.diff(x) >= 0).all()
    assert len(x) <= 3 * n
    assert thinned.n_infinite == int(np.isinf(values).sum())


@given(st.data())
def test_rows_that_do_not_follow_each_other_have_a_gap_between_them(data: st.DataObject) -> None:
    times, values = drawn(data)
    follows = np.diff(times) == 1
    x, y = with_gaps(times, values, follows)
    added = np.insert(np.zeros(len(times), np.bool_), np.flatnonzero(~follows) + 1, True)
    np.testing.assert_array_equal(x[~added], times)
    np.testing.assert_array_equal(y[~added], values.astype(np.float64))
    assert np.isnan(y[added]).all()
    assert (np.diff(x) >= 0).all()
