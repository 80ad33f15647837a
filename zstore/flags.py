"""Flags of commands out of the parameters of functions: types, defaults and help are theirs; and back to keywords."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from zstore.errors import UsageError
from zstore.manual import Parameter, parameters
from zstore.mistyped import mistyped
from zstore.reading.store import Store, open_store
from zstore.short_help import Short, add_help
from zstore.text import shown_lines
from zstore.writing.ingest import ingest


class Help(DefaultHelpFormatter):
    """Help for people: the text as it is written, without the names of types."""

    def _get_help_string(self, action: Any) -> str:
        return action.help or ""


class Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with what is wrong, and where options are explained, without a list of them all."""
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        mistake = mistyped(message, parser)
        told = (
            str(mistake) if mistake is not None else f"{message}. Fix: correct it; {command} --help explains options."
        )
        sys.stderr.write(f"{command}: {shown_lines(told)}\n")
        sys.exit(2)

    def in_front(self, words: Sequence[str]) -> list[str]:
        """Words with those that are no flags before the flags, so that these may stand anywhere.

        They stay as they are where a flag is not known, for then it is not known either what belongs to it.
        """
        alone: list[str] = []
        flags: list[str] = []
        rest = iter(words)
        for word in rest:
            if not word.startswith("--") or word == "--":
                alone.append(word)
                continue
            flags.append(word)
            name, equals, _ = word.partition("=")
            action = self._option_string_actions.get(name)
            if action is None or action.nargs not in (None, 0):
                return list(words)
            if action.nargs is None and not equals:
                flags += [value for value in [next(rest, None)] if value is not None]
        return [*alone, *flags] if "--" not in alone else list(words)


class Flags:
    """Flags of one command, or of one group of them.

    Parameters
    ----------
    target
        The parser, or a group of it.
    """

    def __init__(self, target: Any) -> None:
        self.own = target.add_argument
        """Adds an argument that no function has, as argparse does."""

    def of(self, function: Callable[..., Any], /, **metavars: str | None) -> None:
        """Add a flag for each of some parameters of a function, unset where the user says nothing.

        Parameters
        ----------
        function
            Its docstring has their help: the first sentence of each.
        metavars
            By parameter, what stands for a value; None where its type says so, or there is none.
        """
        for name, metavar in metavars.items():
            self.one(function, name, metavar)

    def one(
        self, function: Callable[..., Any], name: str, metavar: str | None = None, *, flag: str = "", lead: str = ""
    ) -> None:
        """Add one flag, under another name than its parameter, or with something before its help."""
        parameter = parameters(function)[name]
        flag, shown = flag or f"--{name.replace('_', '-')}", lead + parameter.help
        if parameter.default is False:
            self.own(flag, action="store_true", help=shown)
        elif parameter.choices:
            self.own(flag, choices=parameter.choices, metavar="|".join(parameter.choices), help=shown)
        elif _is_mapping(parameter):
            self.own(flag, type=_pairs, action=_More, metavar=metavar, help=shown)
        else:
            self.own(flag, type=_type(parameter), metavar=metavar, help=shown)

    def argument(
        self, function: Callable[..., Any], name: str, dest: str, metavar: str, *, behind: str = "", **more: Any
    ) -> None:
        """Add an argument by position, with something behind its help."""
        kind = more.pop("type", str)
        self.own(dest, type=kind, metavar=metavar, help=parameters(function)[name].help + behind, **more)

    def store(self) -> None:
        """Add the store."""
        self.argument(open_store, "path", "store", "STORE")

    def version(self) -> None:
        """Add the version of the store."""
        self.of(open_store, version="N")


def as_text(value: Any) -> str | None:
    """A text as it stands. The parser's own types would take ``#`` and ``null`` for YAML, and so for nothing."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: put it in quotes")
    return value


def as_texts(value: Any) -> str | list[str] | None:
    """Texts with commas between, or, from YAML, a list of them."""
    if not isinstance(value, list):
        return as_text(value)
    return [str(each) if type(each) is int else str(as_text(each)) for each in value]


def _pairs(value: Any) -> str | dict[str, str] | None:
    """Pairs such as ``A=B,C=D``, or, from YAML, a mapping of texts."""
    if not isinstance(value, dict):
        return as_text(value)
    return {str(as_text(key)): str(as_text(each)) for key, each in value.items()}


class _More(argparse.Action):
    """Pairs that a flag brings are added to those that it brought before; they win over those of a configuration."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Note them."""
        before = namespace.get(self.dest)
        both = isinstance(before, str) and isinstance(values, str)
        setattr(namespace, self.dest, f"{before},{values}" if both else values)


def _is_mapping(parameter: Parameter) -> bool:
    return Mapping in {get_origin(arm) or arm for arm in parameter.arms}


def _text_or_number(value: Any) -> str | int | float | None:
    return value if isinstance(value, (int, float)) else as_text(value)


def _type(parameter: Parameter) -> Callable[[Any], Any]:
    """What makes of a word of the command line, or a value from YAML, what a parameter takes."""
    arms = {get_origin(arm) or arm for arm in parameter.arms}
    if Sequence in arms:
        return as_texts
    if str in arms:
        return _text_or_number if arms & {int, float} else as_text
    return int if int in arms else float


def said(function: Callable[..., Any], options: Namespace) -> dict[str, Any]:
    """Optional arguments of a function, as far as the user says something of them."""
    arguments: dict[str, Any] = {}
    for name, parameter in parameters(function).items():
        value = options.get(name)
        if parameter.required or value is None or value is False:
            continue
        arms = {get_origin(arm) for arm in parameter.arms}
        if name == "storage_options":
            value = storage_of(options)
        elif Sequence in arms:
            value = names_of(value)
        elif Mapping in arms:
            value = pairs_of(value, f"--{name.replace('_', '-')}")
        arguments[name] = value
    return arguments


def names_of(given: str | list[str] | None) -> list[str] | None:
    """Names from ``A,B``, as a line of CSV has them (``"A, B",C``), or, in YAML, from a list.

    Raises
    ------
    UsageError
        If a quote that begins a name has no end.
    """
    if not isinstance(given, str) or '"' not in given:
        return given.split(",") if isinstance(given, str) else given
    try:
        (names,) = csv.reader(io.StringIO(given, newline=""), strict=True)
    except (csv.Error, ValueError):
        raise UsageError(
            f"names {given!r}", expected="quotes around a name with a comma, as in '\"A, B\",C'", fix="close the quotes"
        ) from None
    return names


def pairs_of(given: str | dict[str, str] | None, flag: str) -> dict[str, str]:
    """A mapping from ``A=B,C=D`` or, in YAML, as it stands."""
    if given is None or isinstance(given, dict):
        return given or {}
    pairs = [pair.partition("=") for pair in names_of(given) or ()]
    for key, sign, _ in pairs:
        if not sign:
            raise UsageError(f"{flag} {key!r}", expected="COLUMN=VALUE,COLUMN=VALUE")
    return {key: value for key, _, value in pairs}


def storage_of(options: Namespace) -> dict[str, str]:
    """Options of an object storage. They may hold secrets, so no message shows what is given."""
    given = options.storage_options
    try:
        pairs = pairs_of(given, "--storage-options")
    except (UsageError, AttributeError):  # the latter where it is neither a text nor a mapping
        pairs = None
    if not isinstance(pairs, dict) or not all(isinstance(text, str) for pair in pairs.items() for text in pair):
        raise UsageError(
            "--storage-options (not shown, for they may hold secrets)",
            expected="KEY=VALUE,KEY=VALUE, or a mapping of texts such as {region: eu-west-1}",
            fix="check the commas and quotes, or set the usual environment variables, such as AWS_ACCESS_KEY_ID",
        )
    return pairs


def open_named(options: Namespace) -> Store:
    """The store that a command is about, at the version that is asked for."""
    return open_store(options.store, options.get("version"), storage_options=storage_of(options))


def say(options: Namespace, message: str) -> None:
    """Print what went well, unless it is not wanted."""
    if not options.quiet:
        print(shown_lines(message))


@dataclass(frozen=True)
class Command:
    """One command: its flags, and what it does.

    Parameters
    ----------
    name
        As it is typed.
    summary
        What it does, in a line.
    flags
        Adds its flags.
    run
        Does it; returns the exit code.
    quiet
        Whether it has --quiet: what cron runs.
    stores
        Whether it opens stores or sources, which may be in a bucket.
    short
        What ``--help`` shows of it; None for all options.
    """

    name: str
    summary: str
    flags: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    quiet: bool = False
    stores: bool = True
    short: Short | None = None

    def parser(self) -> Parser:
        """The parser of its arguments."""
        about = f"{self.summary[0].upper()}{self.summary[1:]}."
        parser = Parser(description=about, formatter_class=Help, add_help=False)
        add_help(parser, self.short)
        self.flags(parser)
        if self.quiet:
            parser.add_argument("--quiet", action="store_true", help="print errors only; no progress either")
        if self.stores:
            # Of any type, since the parser would repeat what is of another one, and it may be secret.
            shown = parameters(ingest)["storage_options"].help
            parser.add_argument("--storage-options", type=Any, metavar="KEY=VALUE,…", help=shown)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return parser

    def print_help(self) -> int:
        """Print the help of the command."""
        parser = self.parser()
        parser.prog = f"zstore [options] {self.name}"
        parser.print_help()
        return 0
