"""The command that shows a store in the browser."""

from __future__ import annotations

import sys
import threading

from jsonargparse import ArgumentParser, Namespace

from zstore.flags import Command, Flags, said
from zstore.view.server import view

_LATE_S = 0.5


def _view_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.argument(view, "store", "store", "STORE")
    flags.of(view, run="RUN,RUN", version="N", port="N", no_browser=None)


def _view(options: Namespace) -> int:
    late = threading.Timer(_LATE_S, print, [f"reading the index of {options.store} …"], {"file": sys.stderr})
    late.daemon = True

    def told(text: str) -> None:
        late.cancel()
        print(text, flush=True)

    if sys.stderr.isatty():
        late.start()
    try:
        view(options.store, **said(view, options), told=told)
    finally:
        late.cancel()
    return 0


COMMANDS = (Command("view", "show a store in the browser", _view_flags, _view),)
"""Commands about looking."""
