"""A network that fails at any request: a writer recovers, or fails in bounded time with nothing half-committed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import write_table
from faults import FaultProxy, Harm
from s3server import S3Server

import zstore
from zstore import StoreError, ZstoreError, open_store, verify
from zstore.storage.urls import open_storage

BY_ID: dict[str, Any] = {"id": "id", "time": "t"}
TRIES = 9  # of a request: three of ours, each three of obstore's; then the writer gives up


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.port, stall_s=2) as running:
        yield running


def options_of(server: S3Server, port: int) -> dict[str, str]:
    return {**server.options, "endpoint": f"http://127.0.0.1:{port}", "timeout": "1s"}


def copied(server: S3Server, source: str) -> str:
    """A bucket with the same objects."""
    target = f"s3://{server.make_bucket()}"
    old, new = (open_storage(url, server.options) for url in (source, target))
    for key in old.sizes():
        new.replace(key, old.read(key))
    return target


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    """Leases are taken over, and attempts follow each other, at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSTORE_LEASE_S", "0")
        patch.setattr("zstore.storage.remote.WAIT_S", 0.01)
        yield


@dataclass(frozen=True)
class Append:
    """What is to be harmed.

    Parameters
    ----------
    start
        A bucket with a store and a table to append.
    n_requests
        How many it takes where none fails.
    keys
        Of all objects then.
    """

    start: str
    n_requests: int
    keys: frozenset[str]


@pytest.fixture(scope="module")
def unharmed(server: S3Server, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Append:
    folder = tmp_path_factory.mktemp("unharmed")
    first = write_table(folder / "a.csv", ["id", "t", "v"], [["a", t, t / 4] for t in range(50)])
    more = write_table(folder / "b.csv", ["id", "t", "v"], [["a", t, t / 4] for t in range(50, 60)])
    start = f"s3://{server.make_bucket()}"
    open_storage(start, server.options).replace("b.csv", more.read_bytes())
    zstore.ingest(first, f"{start}/s.zarr", **BY_ID, storage_options=server.options)
    whole = copied(server, start)
    proxy.calm()
    zstore.append(f"{whole}/b.csv", f"{whole}/s.zarr", storage_options=options_of(server, proxy.port))
    return Append(start, proxy.n_seen, frozenset(open_storage(whole, server.options).sizes()))


def run_through_faults(
    server: S3Server, proxy: FaultProxy, unharmed: Append, harm: Harm, every: int, n: int
) -> tuple[int, int]:
    """Append through the proxy, harming `n` requests from each one on, `every` apart; how often it went through."""
    options = options_of(server, proxy.port)
    points = range(0, unharmed.n_requests, every)
    n_done, said = 0, ""
    for point in points:
        there = copied(server, unharmed.start)
        store, source = f"{there}/s.zarr", f"{there}/b.csv"
        proxy.harm_from(point, harm, n)
        try:
            zstore.append(source, store, storage_options=options)
            n_done += 1
        except ZstoreError as error:
            said = str(error)
        assert n_done or "Fix: " in said
        assert proxy.n_seen <= TRIES * unharmed.n_requests
        proxy.calm()
        opened = open_store(store, storage_options=server.options)
        assert opened.n_rows in (50, 60)
        assert verify(opened).faults == ()
        try:
            zstore.append(source, store, storage_options=server.options)
        except StoreError:
            pytest.fail(f"{harm} at {point}: cannot run again")
        opened = open_store(store, storage_options=server.options)
        assert (opened.version, opened.n_rows, verify(opened).faults) == (2, 60, ())
        assert set(open_storage(there, server.options).sizes()) == unharmed.keys, f"{harm} at {point}"
    return len(points), n_done


@pytest.mark.parametrize("harm", ["refuse", "reset", "truncate", "lose"])
def test_one_request_that_fails_is_sent_again(
    server: S3Server, proxy: FaultProxy, unharmed: Append, harm: Harm
) -> None:
    tried, done = run_through_faults(server, proxy, unharmed, harm, every=40, n=1)
    assert done == tried > 2


def test_a_network_that_is_gone_ends_a_writer_soon(server: S3Server, proxy: FaultProxy, unharmed: Append) -> None:
    tried, done = run_through_faults(server, proxy, unharmed, "refuse", every=50, n=1 << 30)
    assert done < tried


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("n", [1, 1 << 30])
@pytest.mark.parametrize("harm", ["refuse", "reset", "stall", "truncate", "lose"])
def test_every_request_in_turn(server: S3Server, proxy: FaultProxy, unharmed: Append, harm: Harm, n: int) -> None:
    every = 1 if n == 1 else 40
    tried, done = run_through_faults(server, proxy, unharmed, harm, every, n)
    print(f"{harm} {'one' if n == 1 else 'all'}: {tried} points, {done} went through")  # noqa: T201
    assert done == tried if n == 1 else done < tried
