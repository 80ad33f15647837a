"""The viewer's server: what it answers is what the store holds, and nobody else is answered."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import SMALL_GRID, write_table
from hdf5files import aloha
from PIL import Image

import zstore
from zstore import Store
from zstore.view.app import make_app
from zstore.view.guard import NOT_LET_IN
from zstore.view.panel import Panel
from zstore.view.session import Session
from zstore.view.spread import histogram, missing_map
from zstore.view.traces import MOST_SERIES, traces

HOST = "127.0.0.1:8000"
HOSTILE = "<img src=x onerror=alert(1)>"

Ask = Callable[..., httpx.Response]


def asking(session: Session, panels: Sequence[Panel] = (), **cookies: str) -> Ask:
    """Asks the application of a session as a browser that has been let in does."""
    app = make_app(session, "secret", "view", panels)

    def ask(path: str, parameters: Any = None, method: str = "GET", **headers: str) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            given = cookies or {"view": "secret"}
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", cookies=given) as client:
                return await client.request(method, path, params=parameters, headers=headers)

        return asyncio.run(once())

    return ask


@pytest.fixture
def sales(tmp_path: Path) -> Store:
    """Three shops with gaps, missing and infinite values, words, places; one has a hostile name and no row."""
    random, rows = np.random.default_rng(0), []
    for number, shop in enumerate(["b", "a", HOSTILE]):
        for day in range(300 if number < 2 else 20):
            if number == 1 and 100 <= day < 140:
                continue
            sold = "" if random.random() < 0.1 else f"{random.normal(10, 3):.3f}"
            sold = "inf" if (number, day) == (0, 7) else sold
            rows.append(
                [shop, np.datetime64("2024-01-01") + np.timedelta64(day, "D"), sold, ["rain", "sun"][day // 10 % 2]]
            )
    statics = [["b", 50.5, 3.25, "north", 7], ["a", 51.5, 4.25, "south", ""], [HOSTILE, "", "", "", 9]]
    table = write_table(tmp_path / "sales.csv", ["shop", "date", "sold", "sky"], rows)
    attributes = write_table(tmp_path / "shops.csv", ["shop", "lat", "lon", "region", "area"], statics)
    path = tmp_path / "sales.zarr"
    zstore.ingest(table, path, id="shop", time="date", static=attributes, chunk_rows=64, shard_rows=128)
    return zstore.open_store(path)


@pytest.fixture
def ask(sales: Store) -> Ask:
    return asking(Session(sales.path))


def test_the_overview_has_the_numbers_of_the_table(sales: Store, ask: Ask) -> None:
    found = ask("/api/overview").json()
    frame = sales.sel().to_pandas()
    sold = frame["sold"][np.isfinite(frame["sold"])]
    channel = {each["name"]: each for each in found["channels"]}
    assert (found["n_rows"], found["n_series"], found["version"]) == (len(frame), 3, 1)
    assert channel["sold"]["missing"] == pytest.approx(frame["sold"].isna().mean())
    assert channel["sold"]["min"] == pytest.approx(sold.min())
    assert channel["sky"]["n_words"] == 2
    assert [static["name"] for static in found["statics"]] == ["lat", "lon", "region", "area"]
    assert json.dumps(found, allow_nan=False)


def test_a_short_stretch_is_every_row_with_gaps_and_a_long_one_every_extreme(sales: Store) -> None:
    whole = traces(sales, ["a"], ["sold", "sky"], None, None, 4000)
    (sold, sky) = (chart["lines"][0] for chart in whole["charts"])
    frame = sales.series("a").to_pandas()
    seen = [value for value in sold["y"] if value is not None]
    assert sold["whole"]
    np.testing.assert_allclose(seen, frame["sold"].dropna().to_numpy())
    assert len(sold["x"]) == len(frame) + 1  # and the gap
    assert sky["y"][:12] == [0.0] * 10 + [1.0] * 2
    day = 86_400
    begin = pd.Timestamp("2024-01-01").timestamp()
    some = traces(sales, ["b", "a"], ["sold"], begin + 10 * day, begin + 20 * day, 100)["charts"][0]["lines"]
    assert [line["id"] for line in some] == ["b", "a"]
    assert [line["n_rows"] for line in some] == [11, 11]
    assert [len(line["x"]) for line in some] == [13, 13]  # and one on either side
    thin = traces(sales, ["b"], ["sold"], None, None, 60)["charts"][0]["lines"][0]
    values = sales.series("b").to_pandas()["sold"]
    finite = values[np.isfinite(values)]
    assert (thin["whole"], thin["n_infinite"], len(thin["x"]) <= 60) == (False, 1, True)
    drawn = [value for value in thin["y"] if value is not None]
    assert (min(drawn), max(drawn)) == (pytest.approx(finite.min()), pytest.approx(finite.max()))


@pytest.mark.parametrize("step", ["months", "irregular", "steps"])
def test_times_of_every_kind_are_drawn_where_they_are(step: str, tmp_path: Path) -> None:
    times: dict[str, list[Any]] = {
        "months": [str(each)[:10] for each in pd.date_range("2000-01-01", periods=90, freq="MS")],
        "irregular": [
            str(np.datetime64("2000-01-01") + np.timedelta64(int(each), "D"))
            for each in np.cumsum(np.arange(1, 91) % 7 + 1)
        ],
        "steps": list(range(-30, 60)),
    }
    table = write_table(tmp_path / "t.csv", ["t", "v"], [[t, n] for n, t in enumerate(times[step])])
    zstore.ingest(table, tmp_path / "s.zarr", time="t")
    store = zstore.open_store(tmp_path / "s.zarr")
    line = traces(store, [str(store.ids[0])], ["v"], None, None, 1000)["charts"][0]["lines"][0]
    assert line["y"] == list(range(90))
    stored = store.times(0, 90)
    np.testing.assert_array_equal(line["x"], stored if step == "steps" else stored.astype(np.float64))
    thin = traces(store, [str(store.ids[0])], ["v"], line["x"][10], line["x"][69], 40)["charts"][0]["lines"][0]
    drawn = [value for value in thin["y"] if value is not None]
    assert (min(drawn), max(drawn), thin["n_rows"]) == (10, 69, 60)


def test_the_table_finds_sorts_and_pages_with_what_is_missing_last(sales: Store, ask: Ask) -> None:
    def ids(**query: Any) -> list[str]:
        return [line["id"] for line in ask("/api/table", query).json()["lines"]]

    assert ids() == [HOSTILE, "a", "b"]
    assert ids(sort="rows", down=1) == ["b", "a", HOSTILE]
    assert ids(sort="static:area", down=1) == [HOSTILE, "b", "a"]
    assert ids(sort="static:area") == ["b", HOSTILE, "a"]
    assert ids(sort="static:region", down=1) == ["a", "b", HOSTILE]
    assert ids(q="area>6 ONERROR") == [HOSTILE]
    assert ids(q="region=NORTH") == ["b"]
    assert ids(q="rows>=260 rows<300") == ["a"]
    assert ids(first=1, n=1) == ["a"]
    assert ids(q="zebra") == []
    page = ask("/api/table", {"q": "a", "n": 1}).json()
    assert (page["n"], page["n_all"]) == (2, 3)
    missing = {line["id"]: line["missing"] for line in ask("/api/table").json()["lines"]}
    frame = sales.series("b").to_pandas()
    assert missing["b"] == pytest.approx(frame[["sold", "sky"]].isna().to_numpy().mean())
    for wrong, told in {"zone=3": "no column 'zone'", "area>x": "a number", "region>1": "it has words"}.items():
        answer = ask("/api/table", {"q": wrong})
        assert (answer.status_code, told in answer.json()["error"]) == (400, True)


def test_maps_and_histograms_are_those_of_numpy(sales: Store, ask: Ask) -> None:
    places = ask("/api/places").json()
    assert places.pop("positions") == [sales.position("a"), sales.position("b")]
    assert places == {"ids": ["a", "b"], "latitude": [51.5, 50.5], "longitude": [4.25, 3.25], "n": 2}
    found = missing_map(sales, 10, 30, "sold")
    frame = sales.series("a").to_pandas()
    days = (frame.index - pd.Timestamp("2024-01-01")).days
    seen = np.bincount(days * 30 // 300, weights=frame["sold"].notna(), minlength=30)
    np.testing.assert_allclose(found["shares"][found["ids"].index("a")], (seen / 10).round(1))
    values = sales.sel().to_pandas()["sold"].to_numpy()
    values = values[np.isfinite(values)]
    drawn = histogram(sales, "sold")
    low, _, high = np.quantile(values, [0.001, 0.5, 0.999])
    counts, edges = np.histogram(values, 60, (low, high))
    assert (drawn["counts"], drawn["n"]) == (counts.tolist(), len(values))
    np.testing.assert_allclose(drawn["edges"], edges)


def test_each_row_of_a_store_that_is_not_large_counts_once_in_a_histogram(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", ["t", "v"], [[n, n] for n in range(9000)])
    zstore.ingest(table, tmp_path / "s.zarr", time="t")
    found = histogram(zstore.open_store(tmp_path / "s.zarr"), "v")
    assert (found["n"], found["quantiles"][1]) == (9000, 4499.5)
    assert set(found["counts"]) <= {149, 150}


def test_frames_are_the_pictures_of_the_field_and_volumes_have_three_planes(tmp_path: Path) -> None:
    made = aloha(tmp_path / "0.hdf5", n_rows=4, cameras=("cam",))
    zstore.ingest(tmp_path / "0.hdf5", tmp_path / "s.zarr", mapping="aloha")
    ask = asking(Session(str(tmp_path / "s.zarr")))
    about = ask("/api/field", {"id": "0", "field": "cam"}).json()
    assert (about["n"], about["axes"], about["n_present"], about["is_coloured"]) == (4, ["y", "x", "colour"], 4, True)
    answer = ask("/api/frame", {"id": "0", "field": "cam", "row": 2})
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), made["images"]["cam"][2])
    past = ask("/api/frame", {"id": "0", "field": "cam", "row": 4})
    assert (past.status_code, past.json()["error"]) == (400, "row 4 of 4; expected a row of the series, from 0.")
    volume = np.arange(5 * 6 * 7, dtype="i2").reshape(1, 5, 6, 7)
    np.save(tmp_path / "v.npy", volume)
    table = write_table(tmp_path / "v.csv", ["id", "t", "file", "row"], [["p", 0, "v.npy", 0]])
    options: dict[str, Any] = {"file": {"scan": "file"}, "file_position": {"scan": "row"}, "file_root": tmp_path}
    zstore.ingest(table, tmp_path / "v.zarr", id="id", time="t", **options)
    ask = asking(Session(str(tmp_path / "v.zarr")))
    axes = ask("/api/field", {"id": "p", "field": "scan"}).json()["axes"]
    sizes = []
    for axis in axes:
        shown = ask("/api/frame", {"id": "p", "field": "scan", "axis": axis, "at": 1})
        sizes.append(sorted(Image.open(io.BytesIO(shown.content)).size))
    assert sizes == [[6, 7], [5, 7], [5, 6]]
    assert ask("/api/frame", {"id": "p", "field": "scan", "axis": axes[0], "at": 5}).status_code == 400


def test_too_much_and_what_is_not_there_is_told_in_a_sentence(ask: Ask) -> None:
    asked = {
        "/api/series?id=zebra&channel=sold": (404, "no id 'zebra'"),
        "/api/series?id=a&channel=price": (404, "no channel 'price'"),
        "/api/series?id=a": (400, "no channel; expected channel=… in the address"),
        "/api/series?id=a&channel=sold&start=x": (400, "start=x; expected a number"),
        "/api/series?id=a&channel=sold&start=nan": (400, "start=nan; expected a finite number"),
        "/api/series?id=a&channel=sold&start=5&stop=1": (400, "an end behind its beginning"),
        f"/api/series?channel=sold&{'&'.join(f'id={n}' for n in range(MOST_SERIES + 1))}": (400, "at most 12 series"),
        "/api/frame?id=a&field=sold&row=0": (404, "no field 'sold'"),
        "/api/values?channel=zebra": (404, "no channel 'zebra'"),
        "/api/table?sort=zebra": (400, "a table sorted by 'zebra'"),
        "/api/table?first=a": (400, "a whole number"),
    }
    for path, (status, told) in asked.items():
        answer = ask(path)
        assert (path, answer.status_code, told in answer.json()["error"]) == (path, status, True)
    far = ask("/api/series?id=a&channel=sold&start=-1e200&stop=1e200&points=999999999")
    assert (far.status_code, far.json()["charts"][0]["lines"][0]["n_rows"]) == (200, 260)


def test_nobody_is_answered_without_the_token_from_another_host_or_page(sales: Store, ask: Ask) -> None:
    strange = asking(Session(sales.path), view="guess")
    for path in ("/", "/api/overview", "/static/main.js", "/?token=guess", "/api/overview?token=guess"):
        answer = strange(path)
        assert (path, answer.status_code, answer.text) == (path, 403, NOT_LET_IN)
    let_in = strange("/?token=secret")
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in let_in.headers["set-cookie"]
    assert ask("/api/overview", Host="evil.example:8000").status_code == 403
    assert ask("/api/overview", Host="localhost:8000").status_code == 200
    assert ask("/api/overview", Host="[::1]:8000").status_code == 200
    assert ask("/api/overview", Host="[").status_code == 403
    assert ask("/api/overview", Origin="http://evil.example").status_code == 403
    assert ask("/api/overview", Origin="null").status_code == 403
    assert ask("/api/overview", Origin=f"http://{HOST}").status_code == 200
    assert ask("/api/overview", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ask("/api/overview", **{"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert ask("/api/overview", method="PUT").status_code == 405
    assert ask("/api/reopen").status_code == 405  # changes what is shown: not by a link
    assert ask(f"/api/overview?{'x' * 20_000}").status_code == 414
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/panels/x.js", "/static/"):
        assert (path, ask(path).status_code) == (path, 404)
    policy = ask("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_and_its_files_ask_for_nothing_elsewhere(ask: Ask) -> None:
    static = Path(zstore.__file__).parent / "view" / "static"
    own = [path for path in static.rglob("*") if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts]
    assert len(own) > 8
    for path in own:
        text = path.read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "eval(" not in text
        assert ask(f"/static/{path.relative_to(static)}").status_code == 200


def test_a_store_that_changes_underneath_is_told_and_the_new_version_shown_when_asked_for(
    sales: Store, ask: Ask, tmp_path: Path
) -> None:
    kept = {"version": 1, "opening": 1, "newest": 1, "is_kept": True, "is_same": True}
    assert ask("/api/state").json() == kept
    rows = [["b", "2024-12-01", 5, "sun"], ["new", "2024-12-01", 6, "sun"]]
    more = write_table(tmp_path / "more.csv", ["shop", "date", "sold", "sky"], rows)
    zstore.append(more, sales.path)
    assert ask("/api/state").json() == {**kept, "newest": 2}
    assert ask("/api/overview").json()["n_series"] == 3
    assert ask("/api/series?id=new&channel=sold").status_code == 404
    assert ask("/api/reopen", method="POST").json()["n_series"] == 4
    assert ask("/api/series?id=new&channel=sold").json()["charts"][0]["lines"][0]["y"] == [6.0]
    brought = [(each["version"], each["more_rows"], each["more_series"]) for each in ask("/api/versions").json()]
    assert brought == [(2, 2, 1), (1, 580, 3)]
    shutil.rmtree(sales.path)
    assert ask("/api/state").json()["newest"] is None
    answer = ask("/api/series?id=b&channel=sold")
    assert (answer.status_code, len(answer.json()["error"]) > 20) == (409, True)
    assert ask("/api/reopen", method="POST").status_code == 409


def test_the_doctor_is_called_once_and_its_findings_say_where_they_are(ask: Ask) -> None:
    assert ask("/api/doctor").json() == {"is_running": False, "is_done": False}
    ask("/api/doctor", method="POST")
    while (found := ask("/api/doctor").json())["is_running"]:
        time.sleep(0.02)
    assert found["error"] == ""
    kinds = {finding["kind"]: finding for finding in found["findings"]}
    assert kinds["infinite"]["series"] == "b"
    begin = pd.Timestamp("2024-01-01").timestamp()
    low, high = kinds["gap"]["span"]
    assert kinds["gap"]["series"] == "a"
    assert begin + 98 * 86_400 <= low <= high <= begin + 141 * 86_400
    assert found["counts"] == {
        kind: sum(finding["kind"] == kind for finding in found["findings"]) for kind in found["counts"]
    }


def test_a_store_without_rows_or_channels_is_shown_too(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", ["id", "t", "v"], [["a", 0, ""], ["a", 1, ""]])
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t", **SMALL_GRID)
    ask = asking(Session(str(tmp_path / "s.zarr")))
    for path in ("overview", "table", "missing", "places", "versions", "state", "series?id=a&channel=v"):
        assert (path, ask(f"/api/{path}").status_code) == (path, 200)
    assert ask("/api/values?channel=v").json()["n"] == 0
    assert ask("/api/overview").json()["channels"][0]["mean"] is None


def test_the_command_prints_an_address_that_opens_and_ends_with_the_terminal(sales: Store) -> None:
    words = [sys.executable, "-m", "zstore", "view", sales.path, "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().rpartition(" ")[2].strip()
        assert urlsplit(address).hostname == "127.0.0.1"
        with httpx.Client(follow_redirects=True) as client:
            page = client.get(address)
            assert (page.status_code, "zstore view" in page.text) == (200, True)
            origin = address.partition("/?")[0]
            assert client.get(f"{origin}/api/overview").json()["n_series"] == 3
        taken = subprocess.run(
            [*words, "--port", origin.rpartition(":")[2]], capture_output=True, text=True, check=False
        )
        assert (taken.returncode, "expected a free port" in taken.stderr) == (2, True)
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 130
        assert "Traceback" not in server.stdout.read()
