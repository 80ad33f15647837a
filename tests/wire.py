"""A static S3 server behind a wire of known latency and rate, with faults when asked for.

It reads a folder whose first level are buckets, as ``GET``, ``HEAD`` and lists ask. ``PUT`` and ``DELETE`` are those of
Google Cloud Storage, whose objects have numbers of versions: each write may depend on the one that is there. As a
process of its own, ``python tests/wire.py FOLDER LATENCY_S BYTES_PER_S`` prints its port, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_SLICE_BYTES, _LARGE_BYTES = 1 << 16, 1 << 18
Headers = dict[str, str]
Fault = Callable[[str, str, Headers], str | None]
"""From method, path and headers to what goes wrong: a status such as ``503``, ``drop``, ``half`` or ``stall``."""


@dataclass
class Wire:
    """The server; ``/-/figures`` of it says what it has sent so far.

    Parameters
    ----------
    folder
        Of buckets.
    latency_s
        Seconds before the first byte of each answer.
    bytes_per_s
        Of all answers together.
    fault
        What goes wrong; None for nothing.

    Attributes
    ----------
    requests
        By method, how many came.
    n_bytes
        Of bodies sent so far.
    """

    folder: Path
    latency_s: float = 0.0
    bytes_per_s: float = 1e12
    fault: Fault | None = None
    requests: Counter[str] = field(default_factory=Counter)
    n_bytes: int = 0
    port: int = 0
    _free_at: float = 0.0
    _first: float = 0.0
    _last: float = 0.0

    @property
    def options(self) -> dict[str, str]:
        """Storage options to reach it by."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return {"endpoint": endpoint, "region": "us-east-1", "access_key_id": "a", "secret_access_key": "b"}

    async def start(self) -> asyncio.Server:
        """Listen on a free port of loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def __enter__(self) -> Wire:
        """Serve on a thread of this process."""
        self._loop, ready = asyncio.new_event_loop(), threading.Event()

        def work() -> None:
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(self.start())
            ready.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for _ in range(3):  # transports end in the next rounds
                await asyncio.sleep(0)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                first, *lines = head.split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(method, target, headers, body, writer):
                    break
        except asyncio.CancelledError:
            writer.transport.abort()  # what was not sent yet keeps a closed one open
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, method: str, target: str, headers: Headers, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer a request; whether the connection stays."""
        url = urlsplit(target)
        path = unquote(url.path)
        self.requests[method] += not path.startswith("/-/")
        wrong = self.fault(method, path, headers) if self.fault else None
        await asyncio.sleep(self.latency_s)
        if wrong == "drop":
            return False
        if wrong == "stall":
            await asyncio.sleep(60)
        if wrong and wrong.isdigit():
            await self._send(writer, method, wrong, {}, b"<Error><Code>SlowDown</Code></Error>")
            return True
        if path == "/-/figures":
            await self._send(writer, method, "200 OK", {}, json.dumps(self._sent).encode())
            return True
        if "list-type" in (query := parse_qs(url.query)):
            content = self._listed(path.strip("/"), query.get("prefix", [""])[0])
            await self._send(writer, method, "200 OK", {"Content-Type": "application/xml"}, content)
            return True
        file = self.folder / path.lstrip("/")
        if method in ("PUT", "DELETE"):
            status, about = self._changed(method, file, headers, body)
            await self._send(writer, method, status, about, b"")
            return True
        if not file.is_file():
            await self._send(writer, method, "404 Not Found", {}, b"<Error><Code>NoSuchKey</Code></Error>")
            return True
        return await self._send_file(file, method, headers, writer, half=wrong == "half")

    async def _send_file(
        self, file: Path, method: str, headers: Headers, writer: asyncio.StreamWriter, half: bool
    ) -> bool:
        state, about = file.stat(), _state(file)
        etag = about["ETag"]
        if headers.get("if-match", etag) != etag:
            await self._send(writer, method, "412 Precondition Failed", {}, b"")
            return True
        start, stop, status = 0, state.st_size, "200 OK"
        if wanted := headers.get("range", "").removeprefix("bytes="):
            low, _, high = wanted.partition("-")
            start = int(low) if low else max(state.st_size - int(high), 0)
            stop, status = min(int(high) + 1, state.st_size) if low and high else state.st_size, "206 Partial Content"
            if start >= stop:
                await self._send(writer, method, "416 Range Not Satisfiable", {}, b"")
                return True
            about["Content-Range"] = f"bytes {start}-{stop - 1}/{state.st_size}"
        with file.open("rb") as opened:
            opened.seek(start)
            content = memoryview(opened.read(stop - start))
        await self._send(writer, method, status, about, content, half)
        return not half

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        status: str,
        headers: Headers,
        body: bytes | memoryview,
        half: bool = False,
    ) -> None:
        lines = {"Content-Length": str(len(body)), **headers}
        head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        writer.write(head.encode())
        for start in range(0, (len(body) // 2 if half else len(body)) * (method != "HEAD"), _SLICE_BYTES):
            some = body[start : start + _SLICE_BYTES]
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + len(some) / self.bytes_per_s
            if self._free_at > now + 1e-3:
                await asyncio.sleep(self._free_at - now)
            writer.write(some)
            if len(body) >= _LARGE_BYTES:
                self._first, self._last = self._first or now, time.monotonic()
            self.n_bytes += len(some)
            await writer.drain()
        await writer.drain()

    def _changed(self, method: str, file: Path, headers: Headers, body: bytes) -> tuple[str, Headers]:
        """Write or remove an object, if it is in the state that is asked for: status and headers of the answer."""
        there = file.stat().st_mtime_ns if file.is_file() else 0
        if headers.get("x-goog-if-generation-match", str(there)) != str(there):
            return "412 Precondition Failed", {}
        if method == "DELETE":
            file.unlink(missing_ok=True)
            return ("204 No Content" if there else "404 Not Found"), {}
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "incoming"
        temporary.write_bytes(body)
        temporary.replace(file)
        return "200 OK", _state(file)

    @property
    def _sent(self) -> dict[str, float]:
        """Bytes and requests, and seconds from the first to the last byte of objects of 256 KiB or more."""
        return {"n_bytes": self.n_bytes, "n_requests": self.requests.total(), "sending_s": self._last - self._first}

    def _listed(self, bucket: str, prefix: str) -> bytes:
        base = self.folder / bucket
        files = sorted(path for path in base.rglob("*") if path.is_file())
        found = {path.relative_to(base).as_posix(): path.stat() for path in files}
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>x</ETag><Size>{state.st_size}</Size></Contents>"
            for key, state in found.items()
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


def _state(file: Path) -> Headers:
    """Headers that tell one state of an object from another."""
    state = file.stat()
    about = {"ETag": f'"{state.st_size:x}-{state.st_mtime_ns:x}"', "x-goog-generation": str(state.st_mtime_ns)}
    return {**about, "Last-Modified": formatdate(state.st_mtime, usegmt=True), "Accept-Ranges": "bytes"}


async def _main(folder: Path, latency_s: float, bytes_per_s: float) -> None:
    wire = Wire(folder, latency_s, bytes_per_s)
    server = await wire.start()
    sys.stdout.write(f"{wire.port}\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
