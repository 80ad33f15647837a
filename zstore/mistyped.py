"""Options that do not exist, and values that an option cannot have, told in one line."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from zstore.errors import UsageError

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list, such as A,B",
    "tuple": "a list, such as A,B",
    "Sequence": "a list, such as A,B",
    "dict": "a mapping, such as {a: 1}",
}
_LONGEST = 200  # characters of a value that a message repeats


def mistyped(message: str, parser: Any) -> UsageError | None:
    """What is wrong with an option or its value.

    Parameters
    ----------
    message
        Of jsonargparse, or of argparse beneath it.
    parser
        Of the command.

    Returns
    -------
    The error to show; None if the message is about something else.
    """
    known = _flags_of(parser)
    return _wrong_choice(message) or _unknown(message, known) or _missing(message, known) or _wrong_value(message)


def _flags_of(parser: Any) -> list[str]:
    """All flags of a parser, and of the commands under it."""
    commands = getattr(parser, "_subcommands_action", None)
    parsers = [parser, *({} if commands is None else commands._name_parser_map).values()]
    return [flag for each in parsers for flag in each._option_string_actions]


def _wrong_choice(message: str) -> UsageError | None:
    """A word that is none of a few, or a flag that is cut short and may be several."""
    choice = re.match(r"argument ([^:]+): invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
    if choice is not None:
        words = re.findall(r"[^\s,']+", choice[3])
        similar = get_close_matches(choice[2], words, 1)
        expected = f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)
        name = choice[1] if choice[1].startswith("-") else choice[1].lower()
        return UsageError(f"{name} {choice[2]!r}", expected=similar[0] if similar else expected, fix="correct it")
    short = re.match(r"ambiguous option: (\S+) could match (.+)", message)
    return short and UsageError(f"option {short[1]}", expected=f"one of {short[2]}", fix="write it out")


def _unknown(message: str, flags: list[str]) -> UsageError | None:
    """An option that does not exist."""
    found = re.match(r"unrecognized arguments: (--[^\s=]+)|Subcommand '\w+' does not accept option '([^']+)'", message)
    if found is None:
        return None
    name = found[1] or found[2]
    similar = get_close_matches(f"--{name.lstrip('-')}", flags, 1)
    return UsageError(
        f"option {name}, which does not exist",
        expected=similar[0] if similar else "one that --help lists",
        fix="correct it",
    )


def _missing(message: str, flags: list[str]) -> UsageError | None:
    """Options that were not given, though they have to be; a configuration that is not there."""
    file = re.match(r'Parser key "(\w+)": File does not exist: (.+)', message)
    if file is not None:
        return UsageError(f"{file[1]} {file[2]}", expected="a file that exists", fix=f"correct --{file[1]}")
    required = re.match(r"the following arguments are required: (.+)", message)
    if required is None:
        return None
    command, names = required[1].partition(".")[0], [name.partition(".")[2] for name in required[1].split(", ")]
    if not all(f"--{name}" in flags for name in names):  # they go by position
        return UsageError(f"no {', no '.join(names)}", expected="each of them", fix="name what is missing")
    return UsageError(
        f"{command} without {', '.join(f'--{name}' for name in names)}",
        expected="a value, in a configuration or behind its flag",
        fix=f"--config FILE, or {' '.join(f'--{name} …' for name in names)}",
    )


def _wrong_value(message: str) -> UsageError | None:
    """A value that is of none of the types that its option takes."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)\Z", message, re.S)
    union = re.search(r"Subtypes: \[(.*)\]$", message, re.M)
    kinds = union or re.search(r"Expected an? (.+?)\. Got value", message, re.S)
    if not keys or value is None or kinds is None:
        return None
    named, shown = ".".join(keys), value[1] if len(value[1]) <= _LONGEST else f"{value[1][:_LONGEST]}…"
    words = [word for each in re.findall(r"Literal\[(.*?)\]", kinds[1]) for word in re.findall(r"'([^']+)'", each)]
    expected = list(dict.fromkeys([*words, *_kinds(re.sub(r"[\w.]*Literal\[.*?\]", "", kinds[1]))]))
    if not expected:
        return None
    similar = get_close_matches(shown, words, 1)
    return UsageError(
        f"{named} {shown}",
        expected=f"{', '.join(expected[:-1])} or {expected[-1]}" if expected[1:] else expected[0],
        fix=f"--{named} {similar[0]}" if similar else f"correct --{named}",
    )


def _kinds(text: str) -> list[str]:
    """Types as people call them, from the outside: ``dict[str, int]`` is a mapping."""
    while "[" in text and (shorter := re.sub(r"\[[^\[\]]*\]", "", text)) != text:
        text = shorter
    names = [name.rpartition(".")[2] for name in re.findall(r"[A-Za-z_][\w.]*", text) if name != "class"]
    return [_KINDS.get(name, name) for name in names if name != "NoneType"]
