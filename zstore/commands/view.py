"""The command that shows a store in the browser."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from zstore.flags import Command, Flags, said
from zstore.view.server import view


def _view_flags(parser: ArgumentParser) -> None:
    flags = Flags(parser)
    flags.argument(view, "store", "store", "STORE")
    flags.of(view, run="RUN,RUN", version="N", port="N", no_browser=None)


def _view(options: Namespace) -> int:
    view(options.store, **said(view, options))
    return 0


COMMANDS = (Command("view", "show a store in the browser", _view_flags, _view),)
"""Commands about looking."""
