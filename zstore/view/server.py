"""`zstore view`: a server on this machine, and the browser that looks at it."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zstore.errors import UsageError
from zstore.view.panel import Panel
from zstore.view.session import Session

if TYPE_CHECKING:
    import uvicorn

_HOST = "127.0.0.1"
_NICENESS = 5
_AT_ONCE = 256  # connections; a browser has six


def view(
    store: str | Path,
    version: int | None = None,
    run: Sequence[str] = (),
    port: int = 0,
    no_browser: bool = False,
    storage_options: Mapping[str, str] | None = None,
    told: Callable[[str], None] = print,
) -> None:
    """Show a store in the browser until interrupted.

    Parameters
    ----------
    store
        Folder or URL of the store.
    version
        Version to look at. Default: the newest.
    run
        Folders of runs of lightning_app whose splits, losses and forecasts are shown too.
    port
        Port of this machine to serve the page at, 0 for a free one.
    no_browser
        Print the address only, as for a tunnel: ``ssh -L 8765:localhost:8765 host``, with ``--port 8765``.
    storage_options
        For object storage, see :func:`zstore.open_store`.
    told
        Called with the address.

    Raises
    ------
    StoreError
        If there is no store.
    UsageError
        If the libraries of the extra ``view`` are not installed, the port is taken, or runs are named and lightning_app
        is not installed.
    """
    _require_libraries()
    listening = _bound(port)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)  # a fit beside goes first
    session = Session(str(store), version, storage_options)
    serve(session, listening, panels_of(session, run), None if no_browser else webbrowser.open, told)


def serve(
    session: Session,
    listening: socket.socket,
    panels: Sequence[Panel],
    browse: Callable[[str], Any] | None,
    told: Callable[[str], None],
) -> None:
    """Serve on a socket until interrupted; see :func:`view`."""
    server, address = server_of(session, listening, panels)
    told(f"{session.path} version {session.opened.store.version}: {address}\nCtrl+C ends it")
    if browse is not None:
        threading.Thread(target=browse, args=(address,), daemon=True).start()
    server.run([listening])


def server_of(session: Session, listening: socket.socket, panels: Sequence[Panel]) -> tuple[uvicorn.Server, str]:
    """What serves on a socket once it runs, and the address of the page."""
    import uvicorn

    from zstore.view.app import make_app
    from zstore.view.connections import Impatient

    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    address = f"http://{_HOST}:{port}/?token={token}"
    app = make_app(session, token, f"zstore_view_{port}", panels)
    config = uvicorn.Config(
        app,
        http=Impatient,
        log_level="warning",
        access_log=False,
        limit_concurrency=_AT_ONCE,
        server_header=False,
        lifespan="off",
    )
    return uvicorn.Server(config), address


def panels_of(session: Session, runs: Sequence[str]) -> list[Panel]:
    """Parts of the page that other packages bring, by the entry points of the group ``zstore.view``."""
    found = [point.load()(session, list(runs)) for point in entry_points(group="zstore.view")] if runs else []
    panels = [panel for panel in found if panel is not None]
    if runs and not panels:
        raise UsageError(
            f"run {runs[0]}",
            expected="a package that shows runs, and none is installed",
            fix="pip install 'zstore[train]'",
        )
    return panels


def _require_libraries() -> None:
    for name in ("starlette", "uvicorn"):
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(
                f"{name} cannot be imported ({error})",
                expected="the libraries of the extra 'view'",
                fix="pip install 'zstore[view]'",
            ) from error


def _bound(port: int) -> socket.socket:
    """A socket of this machine at a port."""
    if not 0 <= port < 1 << 16:
        raise UsageError(f"port {port}", expected="0 to 65,535", fix="correct --port")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
    except OSError as error:
        listening.close()
        what = f"port {port} ({error.strerror})"
        raise UsageError(what, expected="a free port", fix="another --port, or none") from error
    listening.listen(128)
    return listening
