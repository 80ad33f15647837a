"""The `zstore` command: flags in, plain words out. Everything it does is a public function elsewhere."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Literal

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from rich.console import Console

from zstore._version import __version__
from zstore.commands import about, ingest, stores, training, versions, view
from zstore.errors import UsageError, ZstoreError
from zstore.flags import Command, Flags, Help, Parser
from zstore.output import end_quietly
from zstore.text import HarmlessFormatter, shown_lines
from zstore.yamlfiles import bound_yaml, check_configs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    0 if it did what was asked, 1 if that failed, 2 if the arguments cannot be meant, 141 if nobody reads its output.
    """
    return end_quietly(partial(_main, arguments))


def make_parser() -> ArgumentParser:
    """The parser of all commands."""
    bound_yaml()
    parser = Parser(
        prog="zstore",
        description="Long tables of time series as compressed Zarr stores sorted by (id, time).",
        version=__version__,
        formatter_class=Help,
    )
    commands = parser.add_subcommands(required=True, dest="subcommand", metavar="COMMAND")
    for command in COMMANDS.values():
        commands.add_subcommand(command.name, command.parser(), help=command.summary)
    return parser


def _main(arguments: Sequence[str] | None) -> int:
    words = _joined(list(sys.argv[1:] if arguments is None else arguments))
    if not words:
        make_parser().print_help()
        return 2
    if words[0] in COMMANDS:
        words[1:] = COMMANDS[words[0]].parser().in_front(words[1:])
    try:
        check_configs(words)
        parsed = make_parser().parse_args(words)
    except UsageError as error:
        if "--debug" in words:
            raise
        print(f"zstore: {error}", file=sys.stderr)
        return error.exit_code
    command = parsed.subcommand
    options = parsed[command]
    level = logging.DEBUG if options.debug else logging.WARNING
    stream = logging.StreamHandler()
    stream.setLevel(level)  # a log file may take more
    stream.setFormatter(HarmlessFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[stream])
    try:
        code = COMMANDS[command].run(options)
        sys.stdout.flush()  # so that a full disk is told of as well
        return code
    except ZstoreError as error:
        if options.debug:
            raise
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"zstore {command}: {error}")
        return error.exit_code
    except OSError as error:
        if options.debug or isinstance(error, BrokenPipeError):
            raise
        print(
            f"zstore {command}: {shown_lines(error)}. Fix: check the disk or the network, and run again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"zstore {command}: interrupted; nothing was committed", file=sys.stderr)
        return 130


def _joined(arguments: list[str]) -> list[str]:
    """The arguments, with a value of --missing that begins with a minus (``-999.00,``) told from a flag."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--missing" and re.match(r"-(?!-[a-z])", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _completion_flags(parser: ArgumentParser) -> None:
    Flags(parser).own(
        "shell",
        type=Literal["bash", "zsh", "fish", "tcsh"],
        metavar="bash|zsh|fish|tcsh",
        help="as in: zstore completion bash > ~/.local/share/bash-completion/completions/zstore",
    )


def _completion(options: Namespace) -> int:
    set_parsing_settings(add_print_completion_argument=True)  # a flag of jsonargparse that prints and exits
    try:
        make_parser().parse_args([f"--print_completion=shtab-{options.shell}"])
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        set_parsing_settings(add_print_completion_argument=False)
    return 1


_COMPLETION = Command(
    "completion", "print what makes a shell complete these commands", _completion_flags, _completion, stores=False
)
_ALL = (
    *ingest.COMMANDS,
    *stores.COMMANDS,
    *view.COMMANDS,
    *versions.COMMANDS,
    *training.COMMANDS,
    *about.COMMANDS,
    _COMPLETION,
)
COMMANDS = {command.name: command for command in _ALL}


if __name__ == "__main__":
    sys.exit(main())
