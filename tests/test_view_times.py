"""Times in the viewer, from decades to nanoseconds: a page shows, zooms to and writes down those of the store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser
from test_view_browser import Seen, served

import zstore
from zstore import Store
from zstore.format.schema import TimeAxis
from zstore.format.timesteps import TimeStepRule
from zstore.view.numbers import Clock
from zstore.view.traces import traces

DAY_NS = 86_400 * 10**9


def made(path: Path, times: Any, unit: str = "ns") -> Store:
    """A store of one series at some times, whose values count its rows."""
    columns = {
        "id": ["a"] * len(times),
        "t": pa.array(times, pa.timestamp(unit)),
        "v": np.arange(len(times), dtype="f4"),
    }
    pq.write_table(pa.table(columns), path / "t.parquet")
    zstore.ingest(path / "t.parquet", path / "s.zarr", id="id", time="t")
    return zstore.open_store(path / "s.zarr")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """20,000 rows, 250 ns apart, on a day of 2026."""
    first = np.datetime64("2026-03-05T10:00:00", "ns").astype(np.int64)
    return made(tmp_path, first + 250 * np.arange(20_000))


@given(st.sampled_from(["s", "ms", "us", "ns"]), st.integers(-(2**61), 2**61), st.integers(0, 90 * DAY_NS))
def test_a_time_that_went_to_the_page_and_back_is_the_same(unit: str, first: int, later: int) -> None:
    axis = TimeAxis(unit, TimeStepRule.fixed(1, unit))
    index = SimpleNamespace(time_start=np.array([first]), time_stop=np.array([first + later]), row_size=np.array([1]))
    clock = Clock.of(cast(Any, SimpleNamespace(time=axis, index=index, n_rows=1)))
    if unit in ("s", "ms") and abs(first) > 2**50:
        return  # beyond year 35,000 of ms
    for time in (first, first + later, first + later // 3):
        second = clock.second(time)
        if abs(second * clock.per_second) < 2**53:
            assert (clock.stored(second, up=False), clock.stored(second, up=True)) == (time, time)
        assert clock.seconds(np.array([time])).tolist() == [second]


def test_nanoseconds_are_told_apart_and_zoomed_to(store: Store) -> None:
    whole = traces(store, ["a"], ["v"], None, None, 4000)
    clock = Clock.of(store)
    assert clock.origin == np.datetime64("2026-03-05", "s").astype(np.int64)
    x = clock.seconds(store.times(0, 20_000))
    assert len(np.unique(x)) == 20_000
    assert (whole["start"], whole["stop"]) == (x[0], x[-1])
    some = traces(store, ["a"], ["v"], x[100], x[109], 1000)["charts"][0]["lines"][0]
    assert (some["n_rows"], some["y"]) == (10, list(range(99, 111)))  # and one on either side
    assert some["x"] == x[99:111].tolist()


@pytest.mark.long
def test_a_page_of_nanoseconds_has_their_ticks_and_an_address_that_leads_back(store: Store, browser: Browser) -> None:
    with served(store.path) as address:
        seen = Seen(browser, address)
        here = "#series?id=a&channel=v&start=1772704800.00002525&stop=1772704800.0000275"
        shown = seen.told("series", here)
        line = shown["charts"][0]["lines"][0]
        assert (line["n_rows"], line["y"]) == (10, list(range(100, 112)))
        assert "2026-03-05 10:00:00.000\u2009025\u2009250 to 2026-03-05 10:00:00.000\u2009027\u2009500" in (
            seen.page.locator("main").inner_text()
        )
        assert seen.page.url.endswith(here.removeprefix("#"))
        found = seen.page.evaluate(
            "async () => (await import('/static/clock.js')).ticks(36000.00002525, 36000.0000275, 5)"
        )
        assert [tick["text"].split("\n")[0] for tick in found] == [
            f".000\u2009{us:03}\u2009{ns:03}" for us, ns in ((25, 500), (26, 0), (26, 500), (27, 0), (27, 500))
        ]
        assert found[0]["text"].endswith("\n2026-03-05 10:00:00")
        seen.page.locator("main").focus()
        seen.page.keyboard.press("+")
        seen.page.wait_for_function("() => window.zstoreView.shown.series.charts[0].lines[0].n_rows < 10")
        seen.check()


SPANS = [31 * 365 * 86_400, 3 * 365 * 86_400, 200 * 86_400, 30 * 86_400, 86_400, 3600, 61, 1, 2e-2, 3e-4, 1e-5, 2e-7]


@pytest.mark.long
@pytest.mark.parametrize("year", [1905, 2026])
def test_ticks_say_the_times_that_they_stand_at_from_decades_to_nanoseconds(
    year: int, tmp_path: Path, browser: Browser
) -> None:
    first = np.datetime64(f"{year}-03-05T23:59:59.999998", "ns").astype(np.int64)
    store = made(tmp_path, first + 7 * np.arange(100))
    origin = Clock.of(store).origin
    with served(store.path) as address:
        seen = Seen(browser, address)
        ticks = "async ([low, high]) => (await import('/static/clock.js')).ticks(low, high, 9)"
        for span in SPANS:
            low = 86_399.999998
            found = seen.page.evaluate(ticks, [low, low + span])
            assert 2 <= len(found) <= 10
            for tick in found:
                assert low <= tick["at"] <= low + span
                time = np.datetime64(origin * 10**9 + round(tick["at"] * 1e9), "ns")
                for part in tick["text"].replace("\u2009", "").replace(" ", "T").split("\n"):
                    assert part in str(time)
            years = [str(np.datetime64(origin + int(tick["at"]), "s"))[:4] for tick in found[:2]]
            assert any(year_ in tick["text"] for year_, tick in zip(years, found[:2], strict=True))
        seen.check()


@pytest.mark.long
def test_readings_at_2_khz_are_shown_to_half_a_millisecond(tmp_path: Path, browser: Browser) -> None:
    first = np.datetime64("2024-06-01T12:00:00", "us").astype(np.int64)
    store = made(tmp_path, first + 500 * np.arange(5000), "us")
    with served(store.path) as address:
        seen = Seen(browser, address)
        whole = seen.told("series", "#series")
        seen.page.evaluate(
            "([low, high]) => window.zstoreView.part().look(low, high)", [whole["start"] + 1, whole["start"] + 1.004]
        )
        seen.page.wait_for_function("() => window.zstoreView.shown.series.charts[0].lines[0].n_rows === 9")
        plot = seen.page.locator(".u-over").first
        box = plot.bounding_box()
        assert box is not None
        plot.hover(position={"x": box["width"] * 0.126, "y": 20})
        assert "2024-06-01 12:00:01.000\u2009500: 2001" in seen.page.locator("figure.chart .title").inner_text()
        seen.check()
