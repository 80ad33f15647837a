"""moto's S3 on loopback, one request at a time so that conditional writes are atomic, and faults when asked for."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_NAMES = itertools.count()  # moto keeps its buckets for as long as the process lives
logging.getLogger("werkzeug").setLevel(logging.ERROR)


class S3Server:
    """A server in a thread of this process.

    Attributes
    ----------
    environment
        The usual variables to reach it by.
    options
        The same as storage options.
    """

    def __init__(self) -> None:
        app = DomainDispatcherApplication(create_backend_app)
        lock = threading.Lock()

        def serial(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            with lock:
                return [b"".join(app(environ, start_response))]

        self._server = make_server("127.0.0.1", 0, serial, threaded=True, request_handler=_Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.port = self._server.server_port
        self.environment = environment(self.port)
        self.options = {
            "endpoint": f"http://127.0.0.1:{self.port}",
            "region": "us-east-1",
            "access_key_id": "someone",
            "secret_access_key": "not-to-be-shown",
        }

    def __enter__(self) -> S3Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def make_bucket(self) -> str:
        """A new bucket."""
        name = f"bucket-{next(_NAMES)}"
        self.put(name)
        return name

    def put(self, path: str) -> None:
        """A bucket, or an empty object of any key."""
        import urllib.request

        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method="PUT")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request).close()  # noqa: S310


def environment(port: int) -> dict[str, str]:
    """The usual variables for a server on this port."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing."""
