"""Patterns of names, as configurations have them: ``*`` is any text, ``?`` any one letter."""

from __future__ import annotations

import re


def is_pattern(text: str) -> bool:
    """Whether there is any ``*`` or ``?`` in a text."""
    return not set("*?").isdisjoint(text)


def compile_pattern(text: str) -> re.Pattern[str]:
    """The expression that matches the whole names that a pattern fits."""
    return re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in text), re.DOTALL)
