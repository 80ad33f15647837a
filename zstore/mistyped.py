"""Options that do not exist, and values that an option cannot have, told in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

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


def mistyped(message: str, flags: Iterable[str]) -> UsageError | None:
    """What is wrong with an option or its value.

    Parameters
    ----------
    message
        Of the parser.
    flags
        All that the command has, such as ``--data.lookback``.

    Returns
    -------
    None if the message is about something else.
    """
    choice = re.match(r"argument ([^:]+): invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
    if choice is not None:
        words = re.findall(r"[^\s,']+", choice[3])
        similar = get_close_matches(choice[2], words, 1)
        expected = f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)
        name = choice[1] if choice[1].startswith("-") else choice[1].lower()
        return UsageError(f"{name} {choice[2]!r}", expected=similar[0] if similar else expected, fix="correct it")
    ambiguous = re.match(r"ambiguous option: (\S+) could match (.+)", message)
    if ambiguous is not None:
        return UsageError(f"option {ambiguous[1]}", expected=f"one of {ambiguous[2]}", fix="write it out")
    unknown = re.match(
        r"unrecognized arguments: (--[^\s=]+)|Subcommand '\w+' does not accept option '([^']+)'", message
    )
    if unknown is not None:
        return _unknown(unknown[1] or unknown[2], flags)
    lacking = re.match(r"the following arguments are required: (.+)", message)
    if lacking is not None:
        command, names = lacking[1].partition(".")[0], [name.partition(".")[2] for name in lacking[1].split(", ")]
        known = set(flags)
        if not all(f"--{name}" in known for name in names):  # by position
            return UsageError(f"no {', no '.join(names)}", expected="each of them", fix="name what lacks")
        return UsageError(
            f"{command} without {', '.join(f'--{name}' for name in names)}",
            expected="a value, in a configuration or behind its flag",
            fix=f"--config FILE, or {' '.join(f'--{name} …' for name in names)}",
        )
    keys = re.findall(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)\Z", message, re.S)
    if not keys or value is None:
        missing = re.search(r'Parser key "(\w+)": File does not exist: (.+)', message)
        if missing is None:
            return None
        return UsageError(f"{missing[1]} {missing[2]}", expected="a file that exists", fix=f"correct --{missing[1]}")
    named, shown = ".".join(keys), value[1]
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    kinds = re.search(r"Subtypes: \[(.*)\]$", message, re.M) or re.search(
        r"Expected an? (.+?)\. Got value", message, re.S
    )
    if kinds is None:
        return None
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


def _unknown(name: str, flags: Iterable[str]) -> UsageError:
    similar = get_close_matches(f"--{name.lstrip('-')}", list(flags), 1)
    return UsageError(
        f"option {name}, which does not exist",
        expected=similar[0] if similar else "one that --help lists",
        fix="correct it",
    )


def _kinds(text: str) -> list[str]:
    """Types as people call them, from the outside: ``dict[str, int]`` is a mapping."""
    while "[" in text and (shorter := re.sub(r"\[[^\[\]]*\]", "", text)) != text:
        text = shorter
    names = [name.rpartition(".")[2] for name in re.findall(r"[A-Za-z_][\w.]*", text) if name != "class"]
    return [_KINDS.get(name, name) for name in names if name != "NoneType"]
