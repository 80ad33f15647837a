"""The viewer in a real browser: each part shows what numpy says, at any width, light and dark, and fetches nothing."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import CHROMIUM, write_table
from hdf5files import aloha
from playwright.sync_api import Browser, Page, Route
from test_view import HOSTILE
from test_view_runs import config

import zstore
from zstore import Store
from zstore.view.server import _bound, panels_of, serve
from zstore.view.session import Session

WIDTHS = [480, 1000, 1600]
_TOLD = "() => window.zstoreView && window.zstoreView.shown"


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Fifteen series of daily sales for three years with a gap, one of them with a hostile name; and places."""
    folder, random, rows, places = tmp_path_factory.mktemp("shops"), np.random.default_rng(0), [], []
    ids = [f"shop {n:02d}" for n in range(14)] + [HOSTILE]
    for number, id_ in enumerate(ids):
        places.append([id_, 40 + number, number * 2 % 11, "north" if number % 2 else "south"])
        for day in range(1095):
            if number == 3 and 300 <= day < 360:
                continue
            sold = "" if random.random() < 0.05 else f"{50 + number + 20 * np.sin(day / 58) + random.normal():.3f}"
            rows.append([id_, np.datetime64("2021-01-01") + np.timedelta64(day, "D"), sold, day % 7])
    table = write_table(folder / "t.csv", ["shop", "date", "sold", "weekday"], rows)
    statics = write_table(folder / "p.csv", ["shop", "lat", "lon", "region"], places)
    zstore.ingest(table, folder / "shops.zarr", id="shop", time="date", static=statics)
    return zstore.open_store(folder / "shops.zarr")


@contextmanager
def served(path: str, runs: list[str] | None = None) -> Iterator[str]:
    """The address of a viewer on a thread, until it is left."""
    session, listening, addresses = Session(path), _bound(0), []
    ready = threading.Event()

    def told(text: str) -> None:
        addresses.append(text.split("\n")[0].rpartition(" ")[2])
        ready.set()

    panels = panels_of(session, runs or [])
    server = threading.Thread(target=serve, args=(session, listening, panels, None, told), daemon=True)
    server.start()
    assert ready.wait(20)
    yield addresses[0]
    listening.close()


class Seen:
    """A page, with what its console said and what it asked for."""

    def __init__(self, browser: Browser, address: str, width: int = 1000, theme: Any = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_function("() => window.zstoreView?.shown.store")
        self.origin = address.partition("/?")[0]

    def told(self, name: str, hash_: str) -> Any:
        """What a part of the page shows, once it does."""
        self.page.evaluate("() => { window.zstoreView.shown = {}; location.hash = '#versions' }")
        self.page.wait_for_function("() => window.zstoreView.shown.versions")
        self.page.evaluate("(hash) => { window.zstoreView.shown = {}; location.hash = hash }", hash_)
        self.page.wait_for_function("(name) => window.zstoreView.shown[name]", arg=name)
        return self.page.evaluate("(name) => window.zstoreView.shown[name]", name)

    def check(self) -> None:
        """Nothing went wrong, nothing came from elsewhere, nothing is wider than the page."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith((self.origin, "data:"))] == []
        wide, inner = self.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
        assert wide <= inner


def pixels(page: Page, selector: str) -> int:
    """How many different colours a canvas has."""
    return int(
        page.evaluate(
            """(selector) => {
              const canvas = document.querySelector(selector);
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              return new Set(new Uint32Array(data.buffer)).size;
            }""",
            selector,
        )
    )


def check_store(seen: Seen, store: Store) -> None:
    """The parts about a store against numpy."""
    overview = seen.told("store", "#store")
    frame = store.sel().to_pandas()
    sold = next(channel for channel in overview["channels"] if channel["name"] == "sold")
    assert sold["mean"] == pytest.approx(float(frame["sold"].mean()), rel=1e-6)
    cells = seen.page.locator("tr[data-id=sold] td").all_text_contents()
    assert cells[2] == f"{100 * frame['sold'].isna().mean():.1f} %"
    assert float(cells[3]) == pytest.approx(frame["sold"].mean(), rel=1e-3)
    assert pixels(seen.page, "canvas[aria-label='map of the series']") > 3
    seen.check()
    answer = seen.told("series", "#series?id=shop%2003&id=shop%2001&channel=sold")
    lines = {line["id"]: line for line in answer["charts"][0]["lines"]}
    for id_, line in lines.items():
        own = store.series(id_).to_pandas()["sold"].dropna()
        drawn = [value for value in line["y"] if value is not None]
        assert (min(drawn), max(drawn)) == (pytest.approx(own.min()), pytest.approx(own.max()))
    gap = [x for x, y in zip(lines["shop 03"]["x"], lines["shop 03"]["y"], strict=True) if y is None]
    begin = pd.Timestamp("2021-01-01").timestamp()
    assert any(begin + 300 * 86_400 <= x <= begin + 360 * 86_400 for x in gap)
    assert len(answer["charts"][0]["lines"][0]["x"]) <= max(seen.page.viewport_size["width"], 240)  # type: ignore[index]
    assert pixels(seen.page, ".chart canvas") > 3
    seen.check()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_first_page_shows_the_store_and_a_series(shops: Store, browser: Browser) -> None:
    with served(shops.path) as address:
        check_store(Seen(browser, address), shops)


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_part_shows_what_numpy_says_at_any_width_light_and_dark(
    shops: Store, browser: Browser, width: int, theme: str
) -> None:
    with served(shops.path) as address:
        seen = Seen(browser, address, width, theme)
        check_store(seen, shops)
        seen.told("store", "#store")
        seen.page.locator("tr[data-id=sold]").click()
        seen.page.wait_for_function("() => window.zstoreView.shown.values")
        values = seen.page.evaluate("() => window.zstoreView.shown.values")
        sold = shops.sel().to_pandas()["sold"].dropna().to_numpy()
        assert values["quantiles"][1] == pytest.approx(float(np.median(sold)))
        seen.told("doctor", "#findings")
        seen.page.locator("#examine").click()
        seen.page.wait_for_function("() => window.zstoreView.shown.doctor?.is_done")
        found = seen.page.evaluate("() => window.zstoreView.shown.doctor")
        assert "gap" in found["counts"]
        assert "shop 03" in seen.page.locator("main").inner_text()
        seen.check()


@pytest.mark.long
def test_the_table_is_sought_sorted_and_names_are_text(shops: Store, browser: Browser) -> None:
    with served(shops.path) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        seen.page.locator("input[type=search]").fill("region=north shop")
        seen.page.wait_for_function("() => window.zstoreView.shown.table.n === 7")
        seen.page.get_by_role("button", name="lat").click()
        seen.page.wait_for_function("() => window.zstoreView.shown.table.lines[0].id === 'shop 13'")
        seen.page.locator("input[type=search]").fill("onerror")
        seen.page.wait_for_function("() => window.zstoreView.shown.table.n === 1")
        seen.page.locator("tr[data-id]").click()
        seen.page.wait_for_function("() => window.zstoreView.shown.series.charts[0].lines[0].id.includes('onerror')")
        assert seen.page.locator("main img").count() == 0
        assert HOSTILE in seen.page.locator("main").inner_text()
        address_ = seen.page.url
        other = Seen(browser, address)
        other.page.evaluate("(hash) => { location.hash = hash }", address_.partition("#")[2])
        other.page.wait_for_function("() => window.zstoreView.shown.series?.charts[0].lines[0].id.includes('onerror')")
        seen.check()


@pytest.mark.long
def test_keys_zoom_and_move_and_dragging_zooms(shops: Store, browser: Browser) -> None:
    with served(shops.path) as address:
        seen = Seen(browser, address)
        whole = seen.told("series", "#series?id=shop%2001&channel=sold")
        span = whole["stop"] - whole["start"]
        shown_span = "window.zstoreView.shown.series.stop - window.zstoreView.shown.series.start"

        def spanned() -> float:
            return float(seen.page.evaluate(f"() => {shown_span}"))

        def wait(relation: str, bound: float) -> None:
            seen.page.wait_for_function(f"(bound) => {shown_span} {relation} bound", arg=bound)

        seen.page.locator("main").focus()
        seen.page.keyboard.press("+")
        wait("<", span * 0.6)
        assert spanned() == pytest.approx(span / 2, rel=0.01)
        seen.page.keyboard.press("0")
        wait(">=", span)
        over = seen.page.locator(".u-over").first
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        assert box is not None
        seen.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
        seen.page.mouse.down()
        seen.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40, steps=4)
        seen.page.mouse.up()
        wait("<", span * 0.3)
        shown = seen.page.evaluate("() => window.zstoreView.shown.series")
        assert shown["start"] == pytest.approx(whole["start"] + span * 0.25, abs=span * 0.02)
        own = shops.series("shop 01").to_pandas()["sold"]
        times = own.index.astype("datetime64[s]").astype(np.int64)
        inside = own[(times >= shown["start"]) & (times <= shown["stop"])].dropna()
        drawn = [value for value in shown["charts"][0]["lines"][0]["y"] if value is not None]
        assert len(drawn) - 2 <= len(inside) <= len(drawn)
        seen.page.keyboard.press("1")
        seen.page.wait_for_function("() => window.zstoreView.shown.store")
        seen.check()


@pytest.mark.long
def test_a_store_that_is_appended_to_and_removed_while_it_is_looked_at(browser: Browser, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", ["id", "t", "v"], [["a", n, n] for n in range(50)])
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t")
    with served(str(tmp_path / "s.zarr")) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        zstore.append(write_table(tmp_path / "u.csv", ["id", "t", "v"], [["b", 0, 7]]), tmp_path / "s.zarr")
        seen.page.get_by_role("button", name="Show version 2").click(timeout=15_000)
        seen.page.wait_for_function("() => document.body.innerText.includes('2 series')")
        shutil.rmtree(tmp_path / "s.zarr")
        seen.page.wait_for_function("() => document.getElementById('banner').innerText.includes('no longer there')")


@pytest.mark.long
def test_frames_follow_the_slider(browser: Browser, tmp_path: Path) -> None:
    aloha(tmp_path / "0.hdf5", n_rows=6, cameras=("cam",))
    zstore.ingest(tmp_path / "0.hdf5", tmp_path / "s.zarr", mapping="aloha")
    with served(str(tmp_path / "s.zarr")) as address:
        seen = Seen(browser, address)
        seen.told("field", "#fields")
        seen.page.locator("main").focus()
        for _ in range(3):
            seen.page.keyboard.press("ArrowRight")
        seen.page.wait_for_function("() => window.zstoreView.shown.field.row === 3")
        seen.page.wait_for_function("() => document.querySelector('img.frame').naturalWidth === 8")
        seen.check()


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_runs_and_splits_are_shown(shops: Store, browser: Browser, tmp_path: Path, app: Any) -> None:
    document = config(Path(shops.path), "sure", channels=["sold"], targets=["sold"])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(document))
    app("run", "--config", "c.yaml", check=True)
    with served(shops.path, [str(tmp_path / "runs" / "c")]) as address:
        seen = Seen(browser, address, 1000, "dark")
        scores = seen.told("scores", "#runs")
        assert len([value for value in scores[0]["scores"]["rmse"] if value is not None]) == 15
        seen.page.wait_for_function("() => window.zstoreView.shown.forecast")
        forecast = seen.page.evaluate("() => window.zstoreView.shown.forecast")
        assert [line["id"] for line in forecast[0]["charts"][0]["lines"]] == ["observed", "forecast", "lower", "upper"]
        seen.check()
        seen.told("window", "#splits")
        assert seen.page.locator("tbody tr").count() == 3
        seen.check()


@pytest.mark.long
def test_a_link_in_another_page_opens_the_view_that_it_names(shops: Store, browser: Browser, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with served(shops.path) as address, ThreadingHTTPServer(("localhost", 0), handler) as other:
        link = address.partition("/?")[0] + "/#series?id=shop+03&channel=sold"
        (tmp_path / "a.html").write_text(f"<a href='{link}'>look</a>")
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page = browser.new_context().new_page()
        page.goto(f"http://localhost:{other.server_port}/a.html")
        page.get_by_text("look").click()
        page.wait_for_function("() => document.body?.innerText.includes('needs the token')")
        page.goto(address)
        page.goto(f"http://localhost:{other.server_port}/a.html")
        page.get_by_text("look").click()
        page.wait_for_function("() => window.zstoreView?.shown.series?.charts[0].lines[0].id === 'shop 03'")
        assert page.url.startswith(link)
        other.shutdown()


@pytest.mark.long
def test_steps_that_a_browser_cannot_tell_apart_are_a_sentence_and_not_a_page_that_hangs(
    browser: Browser, tmp_path: Path
) -> None:
    rows = [["a", 10**18 - 900 + n, n] for n in range(500)]
    table = write_table(tmp_path / "t.csv", ["id", "t", "v"], rows)
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t", time_unit="steps")
    with served(str(tmp_path / "s.zarr")) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        assert "too close together" in seen.page.locator("main").inner_text(timeout=10_000)


@pytest.mark.long
def test_a_slow_answer_neither_replaces_a_newer_one_nor_the_address_of_another_part(
    shops: Store, browser: Browser
) -> None:
    with served(shops.path) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")

        def slowly(route: Route) -> None:
            time.sleep(1)
            route.continue_()

        seen.page.route("**/api/table?q=shop+0&**", slowly)
        search = seen.page.locator("input[type=search]")
        search.fill("shop 0")
        seen.page.wait_for_timeout(300)
        search.fill("shop 13")
        seen.page.wait_for_timeout(2000)
        assert seen.page.locator("tbody tr").count() == 1
        search.fill("shop 0")
        seen.page.wait_for_timeout(300)
        seen.page.evaluate("() => { location.hash = '#versions' }")
        seen.page.wait_for_timeout(2000)
        assert seen.page.url.endswith("#versions")
        tips = "() => document.querySelectorAll('.tip').length"
        for hash_ in ("#store", "#versions", "#store", "#versions"):
            seen.page.evaluate("(hash) => { location.hash = hash }", hash_)
            seen.page.wait_for_timeout(300)
        assert seen.page.evaluate(tips) <= 1
