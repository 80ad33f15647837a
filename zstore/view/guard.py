"""Who may ask: this machine alone, with the token that the command printed, from this page alone.

A page elsewhere may make a browser send requests to ``127.0.0.1``. Of four locks each would do: the token, which no
other page has; a cookie that browsers keep from requests of other pages; the name of the host, which a page that lets
its own name stand for ``127.0.0.1`` cannot have; and the origin.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

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
        """A status and a sentence; 0 where the request may pass."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if len(scope["path"]) + len(scope["query_string"]) > _MOST_ADDRESS:
            return 414, "An address of that length is not one of this page."
        if _name_of(host) not in _HOSTS:
            return 403, "This page answers to 127.0.0.1 and localhost alone."
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Another page may not ask."
        if headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "Another page may not ask."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "This page is for reading."
        given = [self._of_cookie(headers.get(b"cookie", ""))]
        given += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if not any(secrets.compare_digest(each.encode(), self._token.encode()) for each in given):
            return 403, NOT_LET_IN
        return 0, ""

    def _of_cookie(self, text: str) -> str:
        try:
            found = SimpleCookie(text).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""


def _name_of(host: str) -> str:
    """The name of a host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _answer(send: Any, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS, *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": text.encode()})
