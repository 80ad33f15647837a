"""What nobody hopes to look at, in a real browser: a sentence in the page, never a blank, and never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_table
from playwright.sync_api import Browser
from test_view_browser import Seen, served

import zstore
from zstore.view.overview import overview
from zstore.view.session import Session

pytestmark = pytest.mark.long

REFUSED = "Failed to load resource: the server responded with a status of"


def made(folder: Path, rows: list[list[Any]], **options: Any) -> str:
    """The path of a store of rows of an id, a time and a value."""
    folder.mkdir(exist_ok=True)
    zstore.ingest(
        write_table(folder / "t.csv", ["id", "t", "v"], rows), folder / "s.zarr", id="id", time="t", **options
    )
    return str(folder / "s.zarr")


def rows(n: int, first: int = 0) -> list[list[Any]]:
    return [["a", number, number] for number in range(first, first + n)]


def said(seen: Seen) -> str:
    """What the page says; nothing of it is a traceback."""
    text = seen.page.locator("body").inner_text()
    assert "Traceback" not in text
    assert "undefined" not in text
    return str(text)


def test_a_store_that_is_overwritten_while_it_is_looked_at(browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path, rows(50))
    with served(path) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        made(tmp_path, rows(20, 1000), overwrite=True)
        seen.page.get_by_role("button", name="Show what it holds now").click(timeout=15_000)
        seen.page.wait_for_function("() => document.body.innerText.includes('20 rows of 1 series')")
        shown = seen.told("series", "#series")
        assert shown["charts"][0]["lines"][0]["y"] == list(range(1000, 1020))
        said(seen)


def test_a_store_that_is_compacted_and_cleaned_while_it_is_looked_at(browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path, rows(50))
    for number in range(2):
        zstore.append(write_table(tmp_path / f"{number}.csv", ["id", "t", "v"], rows(10, 50 + 10 * number)), path)
    with served(path) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        zstore.compact(path)
        zstore.gc(path, keep=1)
        seen.page.evaluate("() => window.zstoreView.part().look(10, 20)")
        seen.page.wait_for_function("() => document.getElementById('banner').innerText.includes('Version 4 is there')")
        text = said(seen)
        assert "what is shown here is being removed" in text
        seen.page.get_by_role("button", name="Show version 4").click()
        seen.page.wait_for_function("() => document.body.innerText.includes('version 4 ·')")
        shown = seen.told("series", "#series")
        assert shown["charts"][0]["lines"][0]["y"] == list(range(70))


def test_a_store_that_is_removed_says_so_at_the_next_zoom(browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path, rows(5000), chunk_rows=64, shard_rows=128)
    with served(path) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        (tmp_path / "s.zarr").rename(tmp_path / "elsewhere.zarr")
        seen.page.evaluate("() => window.zstoreView.part().look(4000, 4500)")
        seen.page.wait_for_function("() => document.querySelector('.error, #banner:not([hidden])')", timeout=15_000)
        said(seen)
        for part in ("#store", "#versions", "#findings"):
            seen.page.evaluate("(hash) => { location.hash = hash }", part)
            seen.page.wait_for_timeout(500)
            assert len(said(seen)) > 100
        assert [text for text in seen.said if not text.startswith(REFUSED)] == []


def test_runs_without_anything_and_configurations_that_are_none(browser: Browser, tmp_path: Path) -> None:
    path = made(tmp_path, rows(50))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").write_text("data: [")
    with served(path, [str(tmp_path / "empty")]) as address:
        seen = Seen(browser, address)
        seen.told("curves", "#runs")
        text = said(seen)
        assert "none yet: they are in logs/metrics.csv of a run" in text
        assert "none yet: python -m lightning_app predict" in text
        seen.page.evaluate("() => { location.hash = '#splits' }")
        seen.page.wait_for_selector(".error", timeout=30_000)
        assert "expected the configuration of a run" in said(seen)


def test_series_and_stores_without_values(browser: Browser, tmp_path: Path) -> None:
    nothing = [["a", number, ""] for number in range(5)] + [["b", number, number] for number in range(5)]
    path = made(tmp_path / "values", nothing)
    with served(path) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series?id=a")
        assert "no values here" in said(seen)
        seen.check()
    path = made(tmp_path / "none", [["a", number, ""] for number in range(5)])
    with served(path) as address:
        seen = Seen(browser, address)
        assert "100.0 %" in said(seen)
        seen.page.locator("tr[data-id=v]").click()
        seen.page.wait_for_function("() => document.body.innerText.includes('nothing was observed')")
        for part, word in {
            "#series": "no values here",
            "#findings": "Look the store over",
            "#versions": "ingest",
        }.items():
            seen.page.evaluate("(hash) => { location.hash = hash }", part)
            seen.page.wait_for_function("(word) => document.getElementById('page').innerText.includes(word)", arg=word)
            said(seen)
        seen.check()


def test_a_million_series_are_found_sorted_and_shown(browser: Browser, tmp_path: Path) -> None:
    n = 1_000_000
    ids = pa.array(np.char.add("s", np.char.zfill(np.arange(n).astype(str), 7)))
    table = pa.table({"id": ids, "t": np.zeros(n, np.int64), "v": (np.arange(n) % 1000).astype("f4")})
    pq.write_table(table, tmp_path / "t.parquet")
    zstore.ingest(tmp_path / "t.parquet", tmp_path / "s.zarr", id="id", time="t", memory_limit="1GiB")
    with served(str(tmp_path / "s.zarr")) as address:
        seen = Seen(browser, address)
        assert "1,000,000 series" in said(seen)
        shown = seen.told("series", "#series?q=s0777777&channel=v")
        assert shown["charts"][0]["lines"][0]["y"] == [777]
        assert seen.page.locator("tbody tr").count() == 1
        table_ = seen.told("table", "#series?sort=id&down=1&first=999900")
        assert [table_["lines"][0]["id"], table_["lines"][-1]["id"], len(table_["lines"])] == [
            "s0000099",
            "s0000000",
            100,
        ]
        seen.check()


def test_places_that_are_no_numbers_of_degrees_are_drawn_or_left_out(browser: Browser, tmp_path: Path) -> None:
    places = [["a", 1e300, 2], ["b", 3, ""], ["c", 4, 5]]
    statics = write_table(tmp_path / "p.csv", ["id", "lat", "lon"], places)
    table = [[id_, number, number] for id_ in "abc" for number in range(3)]
    path = made(tmp_path, table, static=statics)
    assert overview(Session(path).opened.store)["has_places"]
    with served(path) as address:
        seen = Seen(browser, address)
        said(seen)
        seen.check()
