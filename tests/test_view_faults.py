"""The viewer under attack, with odd data, and with a store that changes: a sentence in the page, and bounded work."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pyarrow as pa
import pytest
from conftest import write_table
from hdf5files import aloha
from PIL import Image
from test_view import HOST, Ask, asking

import zstore
from zstore import Store
from zstore.commands.view import _view
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.images import decode_image
from zstore.look.fields import read_value
from zstore.view import frames, session, spread
from zstore.view.app import OPENED_ANEW, make_app
from zstore.view.frames import LastValues, frame
from zstore.view.guard import NOT_LET_IN
from zstore.view.panel import Panel
from zstore.view.session import Session
from zstore.view.spread import histogram
from zstore.view.traces import MOST_WORDS, traces

VISIT = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}


def made(folder: Path, name: str, rows: list[list[Any]], **options: Any) -> Store:
    """A store of an id, plain steps or times, and a channel."""
    table = write_table(folder / f"{name}.csv", ["id", "t", "v"], rows)
    zstore.ingest(table, folder / f"{name}.zarr", id="id", time="t", **options)
    return zstore.open_store(folder / f"{name}.zarr")


@pytest.fixture
def plain(tmp_path: Path) -> Store:
    """Two series of 50 rows."""
    return made(tmp_path, "plain", [[id_, n, n] for id_ in "ab" for n in range(50)])


@pytest.fixture
def ask(plain: Store) -> Ask:
    return asking(Session(plain.path))


def test_an_origin_that_is_no_address_is_refused_not_a_failure(ask: Ask) -> None:
    for origin in ("http://[", "http://127.0.0.1:8000.evil.example", f"http://{HOST}@evil.example", f"ftp://{HOST}"):
        assert (origin, ask("/api/overview", Origin=origin).status_code) == (origin, 403)


def test_cookies_of_other_servers_of_this_machine_do_not_lock_out(ask: Ask) -> None:
    for cookie in ('other={"a": 1, "b": [2]}; view=secret', "a b c; view=secret", 'x="; view=secret'):
        assert (cookie, ask("/api/overview", Cookie=cookie).status_code) == (cookie, 200)


def test_a_link_in_another_page_opens_this_one_but_another_page_reads_nothing(plain: Store) -> None:
    ask, stranger = asking(Session(plain.path)), asking(Session(plain.path), view="guess")
    followed = stranger("/?token=secret", **VISIT)
    assert (followed.status_code, followed.headers["location"]) == (303, "/")
    assert stranger("/?token=guess", **VISIT).status_code == 403
    again = stranger("/", **VISIT)  # browsers keep the cookie back: the same address is opened anew
    assert (again.status_code, 'src="/static/again.js"' in again.text) == (200, True)
    assert again.text == ask("/", **VISIT).text
    assert (stranger("/").status_code, stranger("/").text) == (403, NOT_LET_IN)
    for path in ("/api/overview", "/api/overview?token=secret", "/static/main.js"):
        assert (path, ask(path, **VISIT).status_code) == (path, 403)
    for other in ({"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors"}):
        assert ask("/?token=secret", **{**VISIT, **other}).status_code == 403
    assert ask("/?token=secret", method="POST", **VISIT).status_code == 403


def test_whatever_fails_is_a_sentence_in_the_page_and_a_traceback_in_the_log_alone(
    plain: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> Any:
        raise ValueError("<b>\x1b[31m")

    panel = Panel("p", "P", Path("p.js"), {"x": broken, "nan": lambda _: float("nan")})
    ask = asking(Session(plain.path), [panel])
    answer = ask("/api/p/x")
    assert answer.status_code == 500
    assert answer.json()["error"] == r"The viewer failed (ValueError: <b>\x1b[31m); the terminal has more."
    assert "Traceback" in caplog.text


def test_a_store_that_is_overwritten_is_told_and_its_new_content_shown_when_asked_for(
    plain: Store, ask: Ask, tmp_path: Path
) -> None:
    more = write_table(tmp_path / "m.csv", ["id", "t", "v"], [["c", 0, 5]])
    zstore.ingest(more, plain.path, id="id", time="t", overwrite=True)
    assert ask("/api/state").json() == {
        "version": 1, "opening": 1, "newest": 1, "is_kept": False, "is_same": False,
    }  # fmt: skip
    assert ask("/api/reopen", method="POST").json()["n_series"] == 1
    assert ask("/api/state").json()["is_same"]


def test_a_page_is_not_given_rows_of_another_version_than_it_shows(plain: Store, ask: Ask, tmp_path: Path) -> None:
    opening = ask("/api/overview").json()["opening"]
    asked = f"/api/series?id=a&channel=v&opening={opening}"
    assert ask(asked).status_code == 200
    zstore.append(write_table(tmp_path / "m.csv", ["id", "t", "v"], [["a", 50, 5]]), plain.path)
    assert ask("/api/reopen", method="POST").json()["opening"] == opening + 1  # as another page does
    answer = ask(asked)
    assert (answer.status_code, answer.json()["error"]) == (409, OPENED_ANEW)
    assert ask("/api/state").json()["opening"] == opening + 1


def test_a_doctor_that_fails_says_so_and_one_that_nobody_waits_for_stops(
    plain: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    def fails(*_: Any) -> Any:
        raise ValueError("no idea")

    def reads(_: Any, told: Any, __: Any) -> Any:
        try:
            while True:
                told(1, 2)
                time.sleep(0.01)
        finally:
            stopped.set()

    shown = Session(plain.path)
    monkeypatch.setattr(session, "examine", reads)
    assert shown.examine(begin=True)["is_running"]
    shown.reopen()
    assert stopped.wait(10)
    monkeypatch.setattr(session, "examine", fails)
    shown.examine(begin=True)
    while (found := shown.examine(begin=False))["is_running"]:
        time.sleep(0.01)
    assert found["error"] == "The doctor failed (ValueError: no idea); the terminal has more."


def test_nanoseconds_of_any_year_are_drawn_where_they_are(tmp_path: Path) -> None:
    rows = [["a", f"2200-01-01T00:00:00.{n:09d}", n] for n in range(0, 200_000_000, 1_000_001)]
    store = made(tmp_path, "ns", rows)
    whole = traces(store, ["a"], ["v"], None, None, 1000)
    line = traces(store, ["a"], ["v"], whole["start"], whole["stop"], 1000)["charts"][0]["lines"][0]
    assert line["n_rows"] in (199, 200)  # seconds of that year are exact to a microsecond


def test_a_picture_ends_near_the_rows_however_far_one_zooms_out(plain: Store) -> None:
    far = traces(plain, ["a"], ["v"], -1e300, 1e300, 1000)
    assert (far["start"], far["stop"]) == (-500, 548)
    assert far["charts"][0]["lines"][0]["n_rows"] == 50
    past = traces(plain, ["a"], ["v"], 1e200, 1e300, 1000)
    assert (past["start"] <= past["stop"], past["charts"][0]["lines"][0]["n_rows"]) == (True, 0)


def test_of_many_words_those_are_sent_that_are_drawn(tmp_path: Path) -> None:
    store = made(tmp_path, "words", [["a", n, f"word {n:04d}"] for n in range(3000)])
    chart = traces(store, ["a"], ["v"], 100, 109, 1000)["charts"][0]
    drawn = {int(code): chart["categories"][int(code)] for code in chart["lines"][0]["y"]}
    assert drawn == {n: f"word {n:04d}" for n in range(99, 111)} == chart["categories"]
    assert len(drawn) < MOST_WORDS
    assert asking(Session(store.path))("/api/overview").json()["channels"][0]["n_words"] == 3000


def test_a_histogram_looks_at_a_bounded_number_of_values_of_a_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(np.arange(100 * 40, dtype=np.float64), 40)
    zstore.ingest(pa.table({"t": np.arange(100), "v": vectors}), tmp_path / "v.zarr", time="t")
    store = zstore.open_store(tmp_path / "v.zarr")
    assert histogram(store, "v")["n"] == 4000
    monkeypatch.setattr(spread, "_MOST_SAMPLED", 500)
    assert histogram(store, "v")["n"] == 500


def test_the_largest_numbers_are_drawn_or_told(tmp_path: Path) -> None:
    rows = [["a", n, ["1.7e308", "-1.7e308"][n % 2]] for n in range(100)]
    ask = asking(Session(made(tmp_path, "huge", rows, dtype="float64").path))
    for path in ("overview", "values?channel=v", "series?id=a&channel=v", "series?id=a&channel=v&points=16", "table"):
        assert (path, ask(f"/api/{path}").status_code) == (path, 200)
    assert ask("/api/values?channel=v").json()["n"] == 100


def test_a_query_of_many_words_is_refused_before_it_is_sought(ask: Ask) -> None:
    answer = ask("/api/table", {"q": "a " * 21})
    assert (answer.status_code, "at most 20" in answer.json()["error"]) == (400, True)
    assert ask("/api/table", {"q": "a " * 20}).json()["n"] == 1


def test_a_picture_of_many_lines_reads_no_more_than_one_of_few(plain: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zstore.view.traces._MOST_VALUES", 40)
    monkeypatch.setattr("zstore.view.traces._BLOCK_ROWS", 4)
    one = traces(plain, ["a"], ["v"], None, None, 16)["charts"][0]["lines"]
    two = traces(plain, ["a", "b"], ["v"], None, None, 16)["charts"][0]["lines"]
    assert [line["n_read"] for line in one] == [38]
    assert [line["n_read"] for line in two] == [18, 18]


def test_few_requests_are_answered_at_a_time_and_none_for_whom_has_left(plain: Store) -> None:
    running, most, n_answered, lock = 0, 0, 0, threading.Lock()

    def slow(_: Any) -> int:
        nonlocal running, most, n_answered
        with lock:
            running, n_answered = running + 1, n_answered + 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return 1

    app = make_app(Session(plain.path), "secret", "view", [Panel("p", "P", Path("p.js"), {"slow": slow})])

    async def many() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            asked = [client.get("/api/p/slow?token=secret") for _ in range(20)]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    async def left() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        head = [(b"host", HOST.encode())]
        scope = {
            "type": "http", "method": "GET", "path": "/api/p/slow", "query_string": b"token=secret", "headers": head,
            "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 8000), "root_path": "",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent

    assert asyncio.run(many()) == [200] * 20
    assert 1 < most <= 6
    assert n_answered == 20
    assert asyncio.run(left())[0]["status"] == 499
    assert n_answered == 20


def test_an_image_that_cannot_be_read_is_told_in_its_row_and_others_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(random.integers(0, 255, (8, 6, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    rows = [[id_, n, f"{n}.png"] for id_ in "ab" for n in range(3)]
    table = write_table(tmp_path / "t.csv", ["id", "t", "file"], rows)
    options: dict[str, Any] = {"file": {"cam": "file"}, "file_root": tmp_path, "keep_encoded": ["cam"]}
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t", **options)
    damaged = (tmp_path / "0.png").read_bytes()

    def decoded(content: bytes, limit: int) -> Any:  # an ingest refuses such files; a foreign store may have them
        if content == damaged:
            raise PayloadError("rows that cannot be inflated", "a whole PNG file")
        return decode_image(content, limit)

    monkeypatch.setattr("zstore.look.fields.decode_image", decoded)
    ask = asking(Session(str(tmp_path / "s.zarr")))
    about = ask("/api/field?id=a&field=cam").json()
    assert (about["n"], about["n_present"], about["before"], about["after"]) == (3, 3, None, "b")
    assert about["is_coloured"]
    wrong = ask("/api/frame?id=a&field=cam&row=0")
    assert wrong.status_code == 409
    assert wrong.json()["error"] == "rows that cannot be inflated; expected a whole PNG file."
    assert Image.open(io.BytesIO(ask("/api/frame?id=a&field=cam&row=1").content)).size == (6, 8)


def test_a_value_is_decoded_once_for_all_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aloha(tmp_path / "0.hdf5", n_rows=4, cameras=("cam",))
    zstore.ingest(tmp_path / "0.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store, values = zstore.open_store(tmp_path / "s.zarr"), LastValues()
    read: list[int] = []

    def decode(*given: Any) -> Any:
        read.append(given[2])
        return read_value(*given)

    monkeypatch.setattr(frames, "read_value", decode)
    first = frame(store, values, "0", "cam", 1, None, None)
    assert frame(store, values, "0", "cam", 1, None, None) == first
    assert read == [1]
    monkeypatch.setattr(frames, "_MOST_KEPT", 10)
    assert frame(store, LastValues(), "0", "cam", 1, None, None) == first


def test_the_time_of_a_row_and_the_row_of_a_time_are_those_of_the_store(plain: Store, ask: Ask) -> None:
    times = plain.times(0, 50).tolist()
    for row in (0, 7, len(times) - 1):
        assert ask("/api/row", {"id": "a", "row": row}).json() == {"row": row, "x": times[row]}
        for second, wanted in ((times[row], row), (times[row] + 0.5, row)):
            assert ask("/api/row", {"id": "a", "second": second}).json()["row"] == wanted
    assert ask("/api/row", {"id": "a", "second": times[0] - 100}).json()["row"] == 0
    assert ask("/api/row", {"id": "a", "row": len(times)}).status_code == 400


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_a_store_that_takes_long_to_open_is_told_to_be_read(
    seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def view(store: str, told: Callable[[str], None], **_: Any) -> None:
        time.sleep(seconds)
        told("an address")

    monkeypatch.setattr("zstore.commands.view.view", view)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("zstore.commands.view._LATE_S", 0.2)
    monkeypatch.setattr("zstore.commands.view.said", lambda *_: {})
    assert _view(cast(Any, SimpleNamespace(store="s.zarr"))) == 0
    time.sleep(0.3)
    found = capsys.readouterr()
    assert found.out == "an address\n"
    assert found.err == ("reading the index of s.zarr …\n" if seconds else "")


def test_what_each_version_brought_has_its_files_times_and_rows_left_out(
    plain: Store, ask: Ask, tmp_path: Path
) -> None:
    more = write_table(tmp_path / "more.csv", ["id", "t", "v"], [["a", 100, 1], ["a", 101, 2], ["a", 101, 2]])
    zstore.append(more, plain.path, on_duplicate="first")
    zstore.compact(plain.path)
    found = ask("/api/versions").json()
    assert [each["action"] for each in found][:2] == ["compact", "append"]
    assert (found[0]["sources"], found[0]["n_left_out"], found[0]["more_rows"]) == ([], 0, 0)
    brought = {key: found[1][key] for key in ("sources", "n_sources", "time_start", "time_stop", "n_left_out")}
    assert brought == {
        "sources": ["more.csv"], "n_sources": 1, "time_start": "100", "time_stop": "101", "n_left_out": 1,
    }  # fmt: skip
