"""Connections that never ask keep nobody from the viewer."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from zstore import Store
from zstore.view import connections
from zstore.view.server import _AT_ONCE, _bound, server_of
from zstore.view.session import Session


@pytest.fixture
def address(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the page of a store is served."""
    monkeypatch.setattr(connections, "_PATIENCE_S", 0.5)
    listening = _bound(0)
    server, address = server_of(Session(store.path), listening, [])
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield address
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of uvicorn in a thread
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_half_open_connections_are_closed_and_the_page_is_served(address: str, sent: bytes) -> None:
    url = httpx.URL(address)
    with ExitStack() as opened, httpx.Client(follow_redirects=True, timeout=30) as client:
        for _ in range(_AT_ONCE + 10):
            half = opened.enter_context(socket.create_connection((url.host, url.port)))
            half.sendall(sent)
        until = time.monotonic() + 30
        while (answer := client.get(address)).status_code == 503 and time.monotonic() < until:
            time.sleep(0.1)
        assert (answer.status_code, "zstore view" in answer.text) == (200, True)
        assert half.recv(1) == b""  # it was closed


def test_a_connection_that_asks_again_and_again_stays(address: str) -> None:
    url = httpx.URL(address)
    with httpx.Client(follow_redirects=True) as client:
        client.get(address)
        for _ in range(4):
            time.sleep(0.3)  # longer than the patience, all together
            found = client.get(url.copy_with(path="/api/overview", query=None))
            assert found.json()["n_series"] == 5
