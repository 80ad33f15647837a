"""Who may ask: this machine alone, with the token that the command printed, from this page alone.

A page elsewhere may make a browser send requests to ``127.0.0.1``. Of four locks each would do: the token, which no
other page has; a cookie that browsers keep from requests of other pages; the name of the host, which a page that lets
its own name stand for ``127.0.0.1`` cannot have; and the origin.

A link in another page, such as a chat or a notebook, may be followed: browsers keep the cookie back then, so the
visitor is given a page without data whose script, which has to be let in, opens the same address anew.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser

_HOSTS = {"127.0.0.1", "localhost", "::1"}
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_MOST_ADDRESS = 16_384

NOT_LET_IN = (
    "This page needs the token that belongs to it. Open the whole address that zstore view printed, up to the end of "
    "token=…"
)
"""What somebody without the token is told."""
_AGAIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>zstore view</title>'
    f'<script src="/static/again.js"></script><p>{NOT_LET_IN}</p></html>'
)


class Guard:
    """Lets through what may ask, and adds headers that keep the page from fetching anything elsewhere.

    Parameters
    ----------
    app
        The ASGI application behind.
    token
        What the address must have once, and a cookie from then on.
    cookie
        Its name.
    """

    def __init__(self, app: Any, token: str, cookie: str) -> None:
        self.app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        status, reason = self._refusal(scope)
        if status:
            await _answer(send, status, reason)
            return
        if reason:
            await _answer(send, 200, reason, kind=b"text/html")
            return
        if "token" in parse_qs(scope["query_string"].decode("latin-1")) and scope["path"] == "/":
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", ((b"location", b"/"), (b"set-cookie", cookie.encode())))
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)

    def _refusal(self, scope: Any) -> tuple[int, str]:
        """A status and a sentence; 0 where the request may pass, or is answered with a page of its own."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        host = headers.get(b"host", "")
        if len(scope["path"]) + len(scope["query_string"]) > _MOST_ADDRESS:
            return 414, "An address of that length is not one of this page."
        if _name_of(host) not in _HOSTS:
            return 403, "This page answers to 127.0.0.1 and localhost alone."
        origin = headers.get(b"origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return 403, "Another page may not ask."
        follows_link = headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin")
        if follows_link and not _is_visit(scope, headers):
            return 403, "Another page may not ask."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "This page is for reading."
        if follows_link and not given:
            return 0, _AGAIN
        given.append(cookie_parser(headers.get(b"cookie", "")).get(self._cookie, ""))
        if not any(secrets.compare_digest(each.encode(), self._token.encode()) for each in given):
            return 403, NOT_LET_IN
        return 0, ""


def _is_visit(scope: Any, headers: dict[bytes, str]) -> bool:
    """Whether a person opens the page itself, in a tab and not in a frame."""
    is_opened = (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")) == ("navigate", "document")
    return is_opened and scope["method"] == "GET" and scope["path"] == "/"


def _name_of(host: str) -> str:
    """The name of a host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _answer(
    send: Any, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = (), kind: bytes = b"text/plain"
) -> None:
    head = [(b"content-type", kind + b"; charset=utf-8"), *_HEADERS, *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": text.encode()})
