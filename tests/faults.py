"""A proxy before a server that does harm to one request, or to every one from a certain one on."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Harm = Literal["none", "refuse", "reset", "stall", "truncate", "lose"]


class FaultProxy:
    """Passes requests on to a server on loopback.

    Parameters
    ----------
    port
        Of the server.
    stall_s
        How long a stalled request waits, longer than the client does.
    """

    def __init__(self, port: int, stall_s: float) -> None:
        self.target, self.stall_s = port, stall_s
        self.calm()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def calm(self) -> None:
        """Do no harm, and count from 0 again."""
        self.harm_from(1 << 60, "none", 0)

    def harm_from(self, first: int, harm: Harm, n_requests: int = 1) -> None:
        """Harm `n_requests` requests from the first one on."""
        self.n_seen, self._first, self._harm, self._n = 0, first, harm, n_requests

    def next_harm(self) -> Harm:
        """What happens to the next request."""
        with self._lock:
            number, self.n_seen = self.n_seen, self.n_seen + 1
            return self._harm if self._first <= number < self._first + self._n else "none"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        harm = self.proxy.next_harm()
        if harm == "refuse":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if harm == "reset":
            self._hang_up()
            return
        if harm == "stall":
            time.sleep(self.proxy.stall_s)
            self._hang_up()
            return
        server = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=60)
        server.request(self.command, self.path, body, dict(self.headers))
        answer = server.getresponse()
        content = answer.read()
        server.close()
        if harm == "lose":
            self._hang_up()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        n_bytes = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", n_bytes or "0")
        self.end_headers()
        if harm == "truncate":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self._hang_up()
        elif self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        """End the connection at once, without a word."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        """Nothing may be left to flush."""
        try:
            super().finish()
        except (OSError, ValueError):
            return

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815  # as http.server calls them

    def log_message(self, *_: object) -> None:
        """Say nothing."""
