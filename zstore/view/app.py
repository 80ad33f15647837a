"""The addresses of the viewer: a page, its files, and what it asks for as JSON or PNG."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from zstore.errors import NotFoundError, UsageError, ZstoreError
from zstore.format.payloads.error import PayloadError
from zstore.view.frames import field_rows, frame
from zstore.view.guard import Guard
from zstore.view.numbers import seconds_of
from zstore.view.overview import places
from zstore.view.session import Session, require
from zstore.view.spread import histogram, missing_map
from zstore.view.table import MOST_LINES
from zstore.view.traces import MOST_POINTS, traces

logger = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"

Answer = Callable[[Mapping[str, Any]], Any]
"""What answers an address: a function of its parameters, to a document for JSON, or bytes of a PNG."""


def make_app(session: Session, token: str, cookie: str, panels: Sequence[Any] = ()) -> Guard:
    """The application that serves one store.

    Parameters
    ----------
    session
        The store.
    token, cookie
        See :class:`zstore.view.guard.Guard`.
    panels
        Further parts of the page, such as those of runs: each has `name`, `title`, `script`, a file of JavaScript, and
        `answers`, functions by the last part of their address.
    """

    def reopened(query: Mapping[str, Any]) -> Any:
        return session.reopen(_whole(query, "version", None)).overview

    answers = {**_answers(session), "panels": lambda _: [{"name": p.name, "title": p.title} for p in panels]}
    routes: list[BaseRoute] = [
        Route(f"/api/{name}", _endpoint(answer), methods=["GET"]) for name, answer in answers.items()
    ]
    routes += [
        Route("/api/reopen", _endpoint(reopened), methods=["POST"]),
        Route("/api/doctor", _endpoint(lambda _: session.examine(begin=True)), methods=["POST"]),
    ]
    for panel in panels:
        routes += [
            Route(f"/api/{panel.name}/{name}", _endpoint(answer), methods=["GET"])
            for name, answer in panel.answers.items()
        ]
        routes.append(Route(f"/panels/{panel.name}.js", _file(panel.script), methods=["GET"]))
    routes += [
        Route("/", _file(_STATIC / "index.html"), methods=["GET"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    return Guard(Starlette(routes=routes), token, cookie)


def _answers(session: Session) -> dict[str, Answer]:
    """By the last part of their address, what answers about the store."""

    def overview(_: Mapping[str, Any]) -> Any:
        return session.opened.overview

    def state(_: Mapping[str, Any]) -> Any:
        return session.state()

    def table(query: Mapping[str, Any]) -> Any:
        first, n = _whole(query, "first", 0, 0), _whole(query, "n", 100, 1, MOST_LINES)
        found, descending = session.opened.table, query.get("down") == "1"
        return found.page(query.get("q", ""), query.get("sort", "id"), descending, first, n)

    def series(query: Mapping[str, Any]) -> Any:
        return traces(
            session.opened.store,
            _many(query, "id"),
            _many(query, "channel"),
            _number(query, "start"),
            _number(query, "stop"),
            _whole(query, "points", 1000, 16, MOST_POINTS),
        )

    def statics(query: Mapping[str, Any]) -> Any:
        return session.opened.store.series(require(query.get("id"), "id")).statics

    def missing(query: Mapping[str, Any]) -> Any:
        n_lines, n_columns = _whole(query, "lines", 60), _whole(query, "columns", 200)
        return missing_map(session.opened.store, n_lines, n_columns, query.get("channel") or None)

    def values(query: Mapping[str, Any]) -> Any:
        return histogram(session.opened.store, require(query.get("channel"), "channel"))

    def rows(query: Mapping[str, Any]) -> Any:
        return field_rows(session.opened.store, require(query.get("id"), "id"), require(query.get("field"), "field"))

    def image(query: Mapping[str, Any]) -> Any:
        id_, name = require(query.get("id"), "id"), require(query.get("field"), "field")
        at = None if query.get("at") is None else _whole(query, "at", 0, 0)
        return frame(session.opened.store, id_, name, _whole(query, "row", 0, 0), query.get("axis"), at)

    def doctor(_: Mapping[str, Any]) -> Any:
        found = session.examine(begin=False)
        axis = session.opened.store.time
        for finding in found.get("findings", ()):
            found_at = [None if finding[end] is None else seconds_of(finding[end], axis) for end in ("first", "last")]
            finding["span"] = found_at if None not in found_at else None
        return found

    return {
        "overview": overview,
        "state": state,
        "table": table,
        "series": series,
        "statics": statics,
        "missing": missing,
        "values": values,
        "field": rows,
        "frame": image,
        "places": lambda _: places(session.opened.store),
        "versions": lambda _: session.versions(),
        "doctor": doctor,
    }


def _endpoint(answer: Answer) -> Callable[[Request], Any]:
    """A route that calls a function on a thread, and says in a sentence what goes wrong."""

    async def respond(request: Request) -> Response:
        query = _Query(request)
        try:
            found = await run_in_threadpool(answer, query)
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
        return Response(found, media_type="image/png") if isinstance(found, bytes) else _json(found)

    return respond


class _Query(dict[str, Any]):
    """Parameters of an address, the last of each name; all of one by :meth:`many`."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.query_params)
        self._all = request.query_params

    def many(self, name: str) -> list[str]:
        """All of one name, in their order, each once."""
        return list(dict.fromkeys(self._all.getlist(name)))


def _many(query: Mapping[str, Any], name: str) -> list[str]:
    assert isinstance(query, _Query)
    found = query.many(name)
    if not found:
        raise UsageError(f"no {name}", expected=f"{name}=… in the address, once or more")
    return found


def _whole(query: Mapping[str, Any], name: str, default: Any, low: int = 0, high: int = 2**62) -> Any:
    text = query.get(name)
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        raise UsageError(f"{name}={text}", expected="a whole number") from None
    return min(max(value, low), high)


def _number(query: Mapping[str, Any], name: str) -> float | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{name}={text}", expected="a number") from None
    if value != value or abs(value) > 1e300:
        raise UsageError(f"{name}={text}", expected="a finite number")
    return value


def _failed(status: int, error: ZstoreError) -> Response:
    return _json({"error": str(error)}, status)


def _json(document: Any, status: int = 200) -> Response:
    content = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Response(content.encode("utf-8", "replace"), status, media_type="application/json")


def _file(path: Path) -> Callable[[Request], Any]:
    async def respond(_: Request) -> Response:
        return FileResponse(path)

    return respond
