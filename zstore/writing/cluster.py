"""A Dask cluster, which may be someone else's: nothing is assumed of who started its workers, or how many there are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

from zstore._version import __version__
from zstore.errors import LostClusterError, StoreError, UsageError, ZstoreError

logger = logging.getLogger(__name__)

LOCAL = "local"
_CONNECT_S, _SETTLE_S = 10, 60
_LOOK_S, _ALONE_S, _POLL_S = 5, 300, 0.1  # how often to look for workers, and how long to wait for one
_WAITS = "distributed.scheduler.no-workers-timeout"  # Dask's own setting of how long
_DEATHS = 50  # of workers that a task may be running on, before it is taken for their cause
_AWAY = "1 hour"  # after which a worker that died is given up; 15 s, as is usual, are few on a busy machine


@runtime_checkable
class ClusterClient(Protocol):
    """A ``dask.distributed.Client``, of whichever cluster."""

    def get(self, dsk: Any, keys: Any, **options: Any) -> Any:
        """Compute a graph."""
        ...

    def scheduler_info(self) -> Any:
        """What the scheduler knows of its workers."""
        ...

    def run(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Run a function on workers, beside their tasks."""
        ...


class Cluster:
    """The workers of a cluster, as far as this process knows of them.

    Parameters
    ----------
    named
        ``tcp://…`` of its scheduler; ``local`` for processes that are started here; or a client that is connected.
    workers
        Processes to start here.

    Raises
    ------
    UsageError
        If it is none of these.

    Notes
    -----
    What was started or opened here is closed at the end; a client that was handed over stays as it is.
    """

    def __init__(self, named: str | ClusterClient, workers: int) -> None:
        self._named, self._workers = named, workers
        self._stack = ExitStack()
        self._client: Any = None
        self._known: set[str] = set()
        if not isinstance(named, str):
            _check_client(named)

    def __str__(self) -> str:
        return self._named if isinstance(self._named, str) else str(self._named.scheduler_info().get("address"))

    def close(self) -> None:
        """End what was started here."""
        self._stack.close()

    def run(
        self, name: str, graph: dict[str, Any], keys: list[str], finished: Callable[[str, Any], None], seen: bool
    ) -> list[Any]:
        """Compute keys of a graph; when this returns or raises, no task of it is running any more.

        Parameters
        ----------
        name
            What all keys begin with.
        graph, keys
            As Dask has them.
        finished
            Called with each key as it is done, and its result, or None.
        seen
            Whether results are handed to `finished`.

        Raises
        ------
        StoreError
            If the cluster cannot be reached or is lost, its workers die again and again, or are none that can do the
            work.
        """
        from distributed import KilledWorker, as_completed  # heavy, and only for clusters

        client, where = self._connected(), str(self)
        if not _is_connected(client):
            raise _lost(f"its client is {client.status}", where)
        self._look()
        futures = client.get(graph, keys, sync=False)
        try:
            for future in self._coming(as_completed(futures, loop=client.loop)):  # type: ignore[no-untyped-call]
                is_read = seen or future.status == "error"
                finished(future.key, future.result() if is_read else None)
            gathered: list[Any] = client.gather(futures)
            return gathered
        except KilledWorker as error:
            raise StoreError(
                f"workers died again and again ({error})",
                expected="a cluster that lasts",
                where=str(self),
                fix="give each worker more memory, or a smaller --memory-limit or --blocksize; where workers are taken "
                "away often, more of Dask's distributed.scheduler.allowed-failures",
            ) from error
        except ZstoreError:
            raise
        except (Exception, CancelledError) as error:
            if not _is_connected(client):
                raise _lost(f"{type(error).__name__}: {error}", where) from error
            self._look(anew=True)  # who has another release may not even understand what it is to do
            raise
        finally:
            if _is_connected(client):
                client.cancel(futures, force=True)
            end = time.monotonic() + _SETTLE_S
            while _is_connected(client) and time.monotonic() < end and _n_left(client, name):
                time.sleep(0.05)

    def _connected(self) -> Any:
        """The client of this run."""
        if self._client is None and not isinstance(self._named, str):
            self._client = self._named
        elif self._client is None:
            import dask.config
            from distributed import Client, LocalCluster

            try:
                if self._named == LOCAL:
                    patience = {
                        "distributed.scheduler.allowed-failures": _DEATHS,
                        "distributed.deploy.lost-worker-timeout": _AWAY,
                    }
                    self._stack.enter_context(dask.config.set(patience))
                    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
                    cluster: Any = LocalCluster(n_workers=self._workers, **options)  # type: ignore[no-untyped-call]
                    self._stack.enter_context(cluster)
                else:
                    cluster = self._named
                client: Any = Client(cluster, set_as_default=False, timeout=_CONNECT_S)  # type: ignore[no-untyped-call]
                self._client = self._stack.enter_context(client)
            except (OSError, ValueError, TimeoutError) as error:
                raise StoreError(
                    f"no cluster ({error})",
                    expected="a Dask scheduler",
                    where=str(self._named),
                    fix="check --scheduler, as tcp://host:8786, or local for processes on this machine",
                ) from error
        return self._client

    def _look(self, anew: bool = False) -> bool:
        """Look at workers that were not looked at yet, or at all; whether there is any.

        Raises
        ------
        StoreError
            If one of them has no zstore, or another release of it.
        """
        there = set(self._client.scheduler_info(n_workers=-1)["workers"])
        new = there if anew else there - self._known
        if new:
            releases = self._client.run(_release_teller(), workers=list(new), on_error="ignore")
            for worker, release in releases.items():
                if release != __version__:
                    raise StoreError(
                        f"worker {worker} of the cluster has {f'zstore {release}' if release else 'no zstore'}",
                        expected=f"zstore {__version__}, as on this machine",
                        where=str(self),
                        fix="install that release for the workers, and start them anew",
                    )
            self._known |= set(releases)
        return bool(there)

    def _coming(self, coming: Any) -> Iterator[Any]:
        """Tasks as they are done, as long as there are workers to do them, or may come.

        Raises
        ------
        StoreError
            If the cluster has had none for some minutes.
        """
        import dask.config
        from dask.utils import parse_timedelta

        most = parse_timedelta(dask.config.get(_WAITS, None) or _ALONE_S)
        alone_since, next_look, told = time.monotonic(), time.monotonic() + _LOOK_S, False
        while not coming.is_empty():
            if coming.has_ready():
                yield next(coming)
                continue
            with coming.thread_condition:
                coming.thread_condition.wait(_POLL_S)
            now = time.monotonic()
            if now < next_look:
                continue
            next_look = now + _LOOK_S
            if self._look():
                alone_since, told = now, False
            elif now - alone_since > most:
                raise StoreError(
                    f"a cluster without a worker for {most / 60:.0f} minutes",
                    expected="workers that come, and stay",
                    where=str(self),
                    fix="look at the logs of its workers, and run the same command again: it goes on from there. "
                    f"How long to wait is Dask's {_WAITS}",
                )
            elif not told:
                logger.warning("the cluster %s has no worker; waiting for one", self)
                told = True


def _check_client(client: Any) -> None:
    """Raise UsageError unless it is a client that can be used from this thread."""
    if isinstance(client, ClusterClient) and not getattr(client, "asynchronous", False):
        if getattr(client, "status", "running") == "running":
            return
        found = f"a client that is {getattr(client, 'status', 'closed')}"
    else:
        found = f"{'an asynchronous' if getattr(client, 'asynchronous', False) else 'a'} {type(client).__name__}"
    raise UsageError(
        f"scheduler that is {found}",
        expected="an address such as tcp://host:8786, local, or a dask.distributed.Client that is connected",
        fix="pass Client(cluster)",
    )


def _release_teller() -> Callable[[], str]:
    """A function that is sent to workers as it is, and so runs where zstore is of another release, or not at all."""

    def release() -> str:
        import importlib

        try:
            return str(importlib.import_module("zstore._version").__version__)
        except ImportError:
            return ""

    return release


def _lost(why: str, where: str) -> LostClusterError:
    return LostClusterError(
        f"lost the cluster ({why})",
        expected="a scheduler and a client that last until the end",
        where=where,
        fix="look at the logs of the scheduler, and run the same command again: it goes on from there",
    )


def _is_connected(client: Any) -> bool:
    """Whether a client has its scheduler; one that was closed, or whose scheduler is gone, can cancel nothing."""
    return str(client.status) == "running"


def _n_left(client: Any, name: str) -> int:
    """Tasks of a phase that workers still have."""
    return sum(n or 0 for n in client.run(_n_tasks, name, on_error="ignore").values())


def _n_tasks(name: str, dask_worker: Any = None) -> int:
    """Tasks of a phase that a worker still has."""
    return sum(str(key).startswith(name) for key in dask_worker.state.tasks)
