"""Templates of HTML: what fills them is text, and escaped, unless it says that it is markup.

This is the one place where text becomes markup, so a name from a file cannot become an element anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import Template
from typing import LiteralString, NamedTuple

from zstore.look.style import CARD, PAGE
from zstore.text import shown_html

_SIDES = {"l": "text-align:left", "r": "text-align:right;white-space:nowrap"}


class Html(str):
    """Markup. A template takes it as it is; every other text is escaped."""

    __slots__ = ()


def fill(template: LiteralString, /, **values: object) -> Html:
    """Fill the ``$names`` of a template.

    Parameters
    ----------
    template
        Markup, written in the code that calls; ``$$`` is a dollar sign. Attributes are quoted.
    values
        What stands for each name: :class:`Html` as it is; of a list, tuple or iterator each after the other; nothing
        for None; the text of anything else, escaped, as :func:`zstore.shown_html` shows it.

    Raises
    ------
    KeyError
        If the template has a name without a value.
    """
    return Html(Template(template).substitute({name: markup(value) for name, value in values.items()}))


def markup(value: object) -> Html:
    """Anything as markup, as :func:`fill` puts it into a template."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return Html("".join(map(markup, value)))
    return Html(shown_html(value))


def listed(names: Sequence[object], most: int) -> Html:
    """Names with commas between them; of more than `most`, the first of them and how many there are besides."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return Html(", ".join(map(markup, names[:most])) + more)


class Cell(NamedTuple):
    """A cell of a table with a style or a width of its own.

    Parameters
    ----------
    content
        What is in it, as :func:`fill` takes values.
    style
        CSS declarations.
    columns
        How many columns it reaches over.
    """

    content: object
    style: str = ""
    columns: int = 1


def table(rows: Iterable[Sequence[object]], sides: str, head: Sequence[object] = ()) -> Html:
    """A table that takes its font from what is around it.

    Parameters
    ----------
    rows
        Their cells: a :class:`Cell`, or its content.
    sides
        A letter for each column: ``l`` for text, ``r`` for numbers.
    head
        Names of the columns; empty for none.
    """
    lines = [_row("th", head, sides)] if head else []
    lines += [_row("td", row, sides) for row in rows]
    return fill("<table style='font-size:inherit;border-spacing:8px 0'>$lines</table>", lines=lines)


def _row(tag: str, cells: Sequence[object], sides: str) -> Html:
    drawn = []
    for cell, side in zip(cells, sides, strict=False):
        content, style, columns = cell if isinstance(cell, Cell) else Cell(cell)
        drawn.append(
            fill(
                "<$tag style='$side$style'$span>$content</$tag>",
                tag=tag,
                side=_SIDES[side],
                style=f";{style}" if style else None,
                span=fill(" colspan='$columns'", columns=columns) if columns > 1 else None,
                content=content,
            )
        )
    return fill("<tr>$cells</tr>", cells=drawn)


def card(*parts: object) -> Html:
    """What shows itself in a notebook: parts below each other, beside a coloured line."""
    return fill("<div style='$style'>\n$parts\n</div>", style=CARD, parts=Html("\n".join(map(markup, parts))))


def page(title: str, *parts: object) -> Html:
    """A page of its own, with a style sheet in it; it needs no other file and no network."""
    return fill(
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><title>$title</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        "<style>$style</style></head><body>\n<h1>$title</h1>\n$parts\n</body></html>\n",
        title=title,
        style=Html(PAGE),
        parts=Html("\n".join(map(markup, parts))),
    )
