"""Connections of which no request comes: they are closed, or a few dozen of them would keep everybody out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_PATIENCE_S = 5.0


class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes, by what is installed
    """HTTP of uvicorn, which waits for the whole head of a request for so long and no longer.

    Uvicorn itself ends connections that are idle behind an answer, but not those that never ask, or ask a byte at a
    time; and it refuses requests while it has too many connections.
    """

    _ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The time runs from the start."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """A request is there, or the time runs on."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if not self._is_idle():
            self._stop()
        elif self._ends is None:
            self._ends = self.loop.call_later(_PATIENCE_S, self._leave)

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _stop(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None

    def _leave(self) -> None:
        self._ends = None
        if self._is_idle():
            self.transport.close()
