"""The addresses of the viewer: a page, its files, and what it asks for as JSON or PNG."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from zstore.errors import NotFoundError, UsageError, ZstoreError
from zstore.format.payloads.error import PayloadError
from zstore.text import shown
from zstore.view.frames import field_rows, frame, row_at
from zstore.view.guard import Guard
from zstore.view.overview import places
from zstore.view.panel import Panel, Query, require
from zstore.view.session import Session
from zstore.view.spread import histogram, missing_map
from zstore.view.table import MOST_LINES
from zstore.view.traces import MOST_POINTS, traces

logger = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"
_LARGEST = 1e300

Answer = Callable[[Any], Any]
"""What answers an address: a function of its parameters, to a document for JSON, or bytes of a PNG or GIF."""

OPENED_ANEW = "Another page has opened another version of the store in this viewer. Load this page again to see it."
"""What a page is told that shows what is no longer looked at."""
_AT_ONCE = 6
_LEFT = 499


def make_app(session: Session, token: str, cookie: str, panels: Sequence[Panel] = ()) -> Guard:
    """The application that serves one store.

    Parameters
    ----------
    session
        The store.
    token, cookie
        See :class:`zstore.view.guard.Guard`.
    panels
        Further parts of the page, such as those of runs.
    """

    def reopened(query: Query) -> Any:
        return session.reopen(query.whole("version", 0) or None).overview

    answers = {**_answers(session), "panels": lambda _: [{"name": p.name, "title": p.title} for p in panels]}
    endpoint = partial(_endpoint, session, CapacityLimiter(_AT_ONCE))
    routes: list[BaseRoute] = [
        Route(f"/api/{name}", endpoint(answer), methods=["GET"]) for name, answer in answers.items()
    ]
    routes += [
        Route("/api/reopen", endpoint(reopened), methods=["POST"]),
        Route("/api/doctor", endpoint(lambda _: session.examine(begin=True)), methods=["POST"]),
    ]
    for panel in panels:
        own = partial(_endpoint, session, CapacityLimiter(_AT_ONCE))  # one that takes minutes keeps no other waiting
        routes += [
            Route(f"/api/{panel.name}/{name}", own(answer), methods=["GET"]) for name, answer in panel.answers.items()
        ]
        files = {f"{panel.name}.js": panel.script, **{f"{panel.name}/{path.name}": path for path in panel.modules}}
        routes += [Route(f"/panels/{name}", _file(path), methods=["GET"]) for name, path in files.items()]
    routes += [
        Route("/", _file(_STATIC / "index.html"), methods=["GET"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    return Guard(Starlette(routes=routes), token, cookie)


def _answers(session: Session) -> dict[str, Answer]:
    """By the last part of their address, what answers about the store."""

    def table(query: Query) -> Any:
        first, n = query.whole("first", 0), query.whole("n", 100, 1, MOST_LINES)
        descending = query.get("down") == "1"
        return session.opened.table.page(query.get("q") or "", query.get("sort") or "id", descending, first, n)

    def series(query: Query) -> Any:
        ids, channels = query.many("id"), query.many("channel")
        require(next(iter(ids), None), "id")
        require(next(iter(channels), None), "channel")
        n_points = query.whole("points", 1000, 16, MOST_POINTS)
        return traces(session.opened.store, ids, channels, query.number("start"), query.number("stop"), n_points)

    def missing(query: Query) -> Any:
        n_lines, n_columns = query.whole("lines", 60), query.whole("columns", 200)
        return missing_map(session.opened.store, n_lines, n_columns, query.get("channel"))

    def values(query: Query) -> Any:
        return histogram(session.opened.store, require(query.get("channel"), "channel"))

    def rows(query: Query) -> Any:
        return field_rows(session.opened.store, require(query.get("id"), "id"), require(query.get("field"), "field"))

    def row(query: Query) -> Any:
        id_ = require(query.get("id"), "id")
        return row_at(session.opened.store, id_, query.whole("row", 0), query.number("second"))

    def image(query: Query) -> Any:
        id_, name = require(query.get("id"), "id"), require(query.get("field"), "field")
        at = None if query.get("at") is None else query.whole("at", 0)
        opened = session.opened
        return frame(opened.store, opened.values, id_, name, query.whole("row", 0), query.get("axis"), at)

    return {
        "overview": lambda _: session.opened.overview,
        "state": lambda _: session.state(),
        "table": table,
        "series": series,
        "missing": missing,
        "values": values,
        "field": rows,
        "frame": image,
        "row": row,
        "places": lambda _: places(session.opened.store),
        "versions": lambda _: session.versions(),
        "doctor": lambda _: session.examine(begin=False),
    }


def _endpoint(session: Session, limiter: CapacityLimiter, answer: Answer) -> Callable[[Request], Any]:
    """A route that calls a function on a thread, and says in a sentence what goes wrong.

    Few are answered at a time. Who has left meanwhile, as a page does that zooms on, is not answered at all.
    """

    async def respond(request: Request) -> Response:
        asked = Parameters(request)
        try:
            async with limiter:
                if await request.is_disconnected():
                    return Response(status_code=_LEFT)
                if asked.get("opening") not in (None, str(session.opened.number)):
                    return _json({"error": OPENED_ANEW}, 409)
                found = await run_sync(answer, asked, limiter=CapacityLimiter(1))  # the limit is above
        except NotFoundError as error:
            return _failed(404, error)
        except UsageError as error:
            return _failed(400, error)
        except ZstoreError as error:
            return _failed(409, error)
        except PayloadError as error:
            return _json({"error": f"{error.reason}; expected {error.expected}."}, 409)
        except OSError as error:
            return _json({"error": f"{error}. Was the store moved or removed?"}, 409)
        except MemoryError:
            return _json({"error": "Not enough memory for this. Fix: ask for fewer series, or a shorter stretch."}, 507)
        except Exception as error:  # whatever it was, a page shows a sentence; the traceback goes to the log
            logger.exception(f"{request.url.path}")
            told = f"The viewer failed ({type(error).__name__}: {shown(str(error), 500)}); the terminal has more."
            return _json({"error": told}, 500)
        return Response(found, media_type=_kind(found)) if isinstance(found, bytes) else _json(found)

    return respond


class Parameters:
    """Parameters of an address, as :class:`zstore.view.panel.Query` has them."""

    def __init__(self, request: Request) -> None:
        self._all = request.query_params

    def get(self, name: str) -> str | None:
        """The last of a name."""
        return self._all.get(name)

    def many(self, name: str) -> list[str]:
        """All of a name, in their order, each once."""
        return list(dict.fromkeys(self._all.getlist(name)))

    def whole(self, name: str, default: int, low: int = 0, high: int = 2**62) -> int:
        """A whole number, brought within bounds; `default` where there is none."""
        text = self.get(name)
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            raise UsageError(f"{name}={text}", expected="a whole number") from None
        return min(max(value, low), high)

    def number(self, name: str) -> float | None:
        """A finite number; None where there is none."""
        text = self.get(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise UsageError(f"{name}={text}", expected="a number") from None
        if not abs(value) <= _LARGEST:
            raise UsageError(f"{name}={text}", expected="a finite number")
        return value


def _kind(content: bytes) -> str:
    return "image/gif" if content.startswith(b"GIF8") else "image/png"


def _failed(status: int, error: ZstoreError) -> Response:
    return _json({"error": str(error)}, status)


def _json(document: Any, status: int = 200) -> Response:
    content = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Response(content.encode("utf-8", "replace"), status, media_type="application/json")


def _file(path: Path) -> Callable[[Request], Any]:
    async def respond(_: Request) -> Response:
        return FileResponse(path)

    return respond
