"""Help of a command that fits on a screen: the options that matter, and examples. ``--help-all`` lists all options."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_WIDTH = 78
_INDENT = 24
_CLAUSE_END = re.compile(r"[.;]\s")
_DEFAULT = re.compile(r"; default: .*")


@dataclass(frozen=True)
class Short:
    """What the short help of a command shows.

    Parameters
    ----------
    arguments
        What stands behind the command, by position.
    flags
        The options that matter, without dashes.
    more
        What the other options are for.
    examples
        Whole commands.
    """

    arguments: str
    flags: tuple[str, ...]
    more: str
    examples: tuple[str, ...]


def add_help(parser: argparse.ArgumentParser, short: Short | None) -> None:
    """Add ``--help`` and ``--help-all`` to a parser that has no help yet; both are the same without a short help."""
    if short is None:
        parser.add_argument("-h", "--help", "--help-all", action="help", help="show this help message and exit")
        return
    parser.add_argument("-h", "--help", action=_ShortHelp, short=short, help="show the options that matter and exit")
    parser.add_argument("--help-all", action="help", help="show all options and exit")


class _ShortHelp(argparse.Action):
    """Prints the short help and exits."""

    def __init__(self, *, short: Short, **keywords: Any) -> None:
        super().__init__(**{**keywords, "nargs": 0, "default": argparse.SUPPRESS, "dest": argparse.SUPPRESS})
        self.short = short

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it."""
        sys.stdout.write("\n".join([*short_help(parser, self.short), ""]))
        parser.exit()


def short_help(parser: argparse.ArgumentParser, short: Short) -> Iterator[str]:
    """Lines of a short help; what it says of an option are the first clause of its help, and the default."""
    command = parser.prog.replace(" [options]", "")
    alone = [action for action in parser._actions if not action.option_strings]
    by_name = {word.lstrip("-"): action for action in parser._actions for word in action.option_strings}
    yield f"usage: {command} [options] {short.arguments}"
    yield from ["", str(parser.description), ""]
    for action in [*alone, *(by_name[name] for name in short.flags)]:
        yield from _entry(action)
    yield from ["", "Examples:", *(f"  {example}" for example in short.examples), ""]
    yield from textwrap.wrap(f"There are also options for {short.more}.", _WIDTH, break_on_hyphens=False)
    yield f"All options: {command} --help-all"


def _entry(action: argparse.Action) -> Iterator[str]:
    name = action.metavar if not action.option_strings else action.option_strings[0]
    value = "" if action.nargs == 0 or not action.option_strings else f" {action.metavar}"
    name = f"  {name}{value}"
    whole = action.help or ""
    default = _DEFAULT.search(whole)
    text = _CLAUSE_END.split(whole, maxsplit=1)[0] + (default[0] if default else "")
    lines = textwrap.wrap(text if action.option_strings else whole, _WIDTH - _INDENT, break_on_hyphens=False)
    if len(name) < _INDENT - 1:
        yield f"{name:<{_INDENT}}{lines[0]}"
        lines = lines[1:]
    else:
        yield name
    yield from (" " * _INDENT + line for line in lines)
