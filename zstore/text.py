"""How texts that others wrote are shown: names, ids, words, paths. One function, for terminals, logs and pages alike.

A name may hold what a terminal obeys (escape sequences), what turns a line around (bidirectional marks), or 200,000
characters. What cannot be printed is written as Python writes it in a string; what is too long is cut, with a count.
"""

from __future__ import annotations

import html
import json
import logging
import re
from typing import Any

MOST_SHOWN = 120
"""Characters of one name that are shown."""

MOST_MESSAGE = 4_000
"""Characters of each part of an error that are shown."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JSON = re.compile(r"[^\x20-\x7e\n]")


def shown(text: object, most: int | None = MOST_SHOWN) -> str:
    """A text as one harmless line.

    Parameters
    ----------
    text
        Anything; its `str` is shown.
    most
        Characters to show, before what cannot be printed is written out; None for all.

    Returns
    -------
    The same text where it is printable and short.
    """
    whole = str(text)
    part = whole if most is None or len(whole) <= most else whole[:most]
    safe = part if part.isprintable() else "".join(map(_escaped, part))
    return safe if len(part) == len(whole) else f"{safe}… ({len(whole):,} characters)"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 row``, ``2 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown_lines(text: object) -> str:
    """A text of several lines, each harmless; none is cut."""
    return "\n".join(shown(line, None) for line in str(text).split("\n"))


def shown_html(text: object, most: int | None = 4 * MOST_SHOWN) -> str:
    """A text as HTML that is nothing but this text, in an element or in a quoted attribute."""
    return html.escape(shown(text, most), quote=True)


def shown_json(document: Any) -> str:
    """A document as indented JSON that a terminal does not obey; whoever parses it gets every text as it is."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return _JSON.sub(lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)


class HarmlessFormatter(logging.Formatter):
    """Lines of a log in which no name can be obeyed by the terminal that shows them."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, with what cannot be printed written out."""
        return shown_lines(super().format(record))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return _SHORT.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
