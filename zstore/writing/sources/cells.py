"""What a number and a missing value is: the one statement that every reader of cells goes by.

Arrow parses columns of numbers on the fast path. It takes exactly what :class:`NumberStyle` takes, and gives the same
float64, but for ``nan(…)``; :mod:`zstore.writing.sources.numbers` looks for the columns that may hold such a cell.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache

BLANKS = " \t"
_SPACES = " \u00a0\u2009\u202f"  # a space, and those that do not break lines or are thin
_SEPARATORS = ",._'\u2019" + _SPACES
_MOST_DIGITS = 800  # no float64 has more than 767 significant digits
_SHARE = 0.9  # of the words of a column that make it one of numbers
_LARGEST_SINGLE_ROUNDED = float((2 - 2**-24) * 2**127)  # smallest number that is no longer rounded to a float32
_CURRENCY = "[$€£¥₹₽₩₺₿¢]|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD"
_SHOWN = 200
_LONGEST = 100  # characters of a word that may be a number in another spelling
_SAYS_NOTHING = re.compile(r"\W*(?:na|n/a|nan|nil|null|none|missing|no ?data)?\W*", re.IGNORECASE)
_WITH_UNIT = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)\s*(?P<unit>[^\w\s.,+-]?[^\W\d_][^\d+-]*)")


@dataclass(frozen=True)
class NumberStyle:
    """How numbers of one column are written.

    Parameters
    ----------
    decimal
        ``.`` or ``,``.
    thousands
        Character between groups of three digits, the first of which does not begin with 0; None where digits are not
        grouped. A space stands for every space.
    percent
        Whether each number has a ``%`` behind it, which is dropped.
    censored
        Whether numbers may have a ``<`` or ``>`` before them (``<=``, ``≤`` … too), for what was beyond a limit.
    """

    decimal: str = "."
    thousands: str | None = None
    percent: bool = False
    censored: bool = False

    @property
    def plain(self) -> bool:
        """Whether Arrow reads these numbers itself."""
        return self.thousands is None and not self.percent and not self.censored

    def side(self, cell: str) -> int:
        """On which side of its number the value of a cell lies: -1 below (``<0.5``), 1 above, 0 where it is that."""
        return _SIDES.get(cell.lstrip(BLANKS)[:1], 0) if self.censored else 0

    def text(self, cell: str) -> str | None:
        """The number as Python and Arrow write it, with a decimal point and without groups; None if it is none."""
        match = _pattern(self).fullmatch(cell)
        if match is None:
            return None
        number = match[match.lastindex or 1]
        if self.thousands is not None:
            number = re.sub(f"[{re.escape(_grouping(self.thousands))}]", "", number)
        return number.replace(self.decimal, ".")

    def read(self, cell: str) -> float | None:
        """The float64 nearest to the number in a cell; None if there is none."""
        text = self.text(cell)
        return None if text is None else float(text)


PLAIN = NumberStyle()
_SIDES = {"<": -1, "\u2264": -1, ">": 1, "\u2265": 1}


@cache
def _pattern(style: NumberStyle) -> re.Pattern[str]:
    point, digits = re.escape(style.decimal), r"\d+"
    if style.thousands is not None:
        digits = rf"(?:[1-9]\d{{0,2}}(?:[{re.escape(_grouping(style.thousands))}]\d{{3}})+|\d+)"
    number = rf"[+-]?(?:{digits}(?:{point}\d*)?|{point}\d+)(?:e[+-]?\d+)?"
    special, blanks = r"[+-]?(?:inf|infinity|nan)", f"[{BLANKS}]*"
    if style.censored:
        number = rf"(?:[<>]=?|[\u2264\u2265])?{blanks}({number}){blanks}"
        return re.compile(f"{blanks}(?:{number}|({special}){blanks})", re.IGNORECASE | re.ASCII)
    if style.percent:
        sign = f"[\t{_SPACES}]*%"
        return re.compile(f"{blanks}(?:({number}){sign}|({special})){blanks}", re.IGNORECASE | re.ASCII)
    return re.compile(f"{blanks}({number}|{special}){blanks}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Missing:
    """What means a missing value in one column.

    Parameters
    ----------
    texts
        Cells that do, and for each what the user named it by, such as ``NA`` or ``wind=NA``.
    numbers
        Numbers that do, however they are written, likewise. None in columns of words.
    """

    texts: Mapping[str, str]
    numbers: Mapping[float, str] = field(default_factory=dict)

    @classmethod
    def of_numbers(cls, named: Mapping[str, str], style: NumberStyle) -> Missing:
        """Of a column of numbers: texts as they stand, and numbers compared as numbers."""
        numbers: dict[float, str] = {}
        texts: dict[str, str] = {}
        for text, name in named.items():
            value = style.read(text)
            value = PLAIN.read(text) if value is None else value
            is_number = value is not None and value == value
            if not is_number or not style.plain:  # -9 among numbers with a % behind each
                texts[text] = name
            if is_number:
                numbers[float(value or 0)] = name
        return cls(texts, numbers)

    def name(self, cell: str, value: float | None) -> str | None:
        """What names a cell, whose number is `value`, as missing; None if it is not."""
        name = self.texts.get(cell)
        return name if name is not None or value is None else self.numbers.get(value)


def shorten(text: str) -> str:
    """A text short enough for a message."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def lost_digits(text: str) -> bool:
    """Whether a number loses digits as a float64.

    Parameters
    ----------
    text
        A decimal with a point, as from :meth:`NumberStyle.text`.

    Notes
    -----
    It keeps them if the float64, written with as many significant digits as the text has, is the text.
    """
    if "n" in text.lower():
        return False
    exact, value = Decimal(text), float(text)
    if value == 0 or exact == 0:
        return exact != value
    if abs(value) == float("inf"):
        return True
    digits = len(str(exact).lower().partition("e")[0].replace(".", "").strip("+-").lstrip("0").rstrip("0")) or 1
    if digits > _MOST_DIGITS:
        return True
    return Decimal(f"{value:.{digits - 1}e}") != exact


def is_code(cell: str) -> bool:
    """Whether a cell is a whole number with leading zeros, as codes have them."""
    return len(cell) > 1 and cell[0] == "0" and cell.isascii() and cell.isdigit()


def excess_from(largest: float) -> float | None:
    """The smallest number that is too large to be stored where `largest` is the largest; None if every float64 fits."""
    return _LARGEST_SINGLE_ROUNDED if largest < _LARGEST_SINGLE_ROUNDED else None


def is_excess(text: str, value: float, largest: float) -> bool:
    """Whether a number is too large to be stored; an infinity that the source wrote is not."""
    limit = excess_from(largest)
    return abs(value) >= (float("inf") if limit is None else limit) and "n" not in text.lower()


@dataclass(frozen=True)
class Dialect:
    """A way in which nearly all words of a column are numbers: what it is called, what to do, and one of the words."""

    what: str
    fix: str
    example: str


def dialect_of(cells: Sequence[str], column: str, style: NumberStyle) -> Dialect | None:
    """How cells that are no numbers in `style` would be, if nearly all that say anything would."""
    words = [(unicodedata.normalize("NFKC", cell).strip(), cell) for cell in cells if len(cell) <= _LONGEST]
    n_longer = len(cells) - len(words)
    words = [(word, cell) for word, cell in words if _SAYS_NOTHING.fullmatch(word) is None]
    enough = max(_SHARE * (len(words) + n_longer), 1)
    for name, pattern in _dialects(style.decimal):
        like = [(word, cell) for word, cell in words if pattern.fullmatch(word) is not None]
        if len(like) >= enough:
            return Dialect(*_advice(name, [word for word, _ in like], column, style), like[0][1])
    matches = [(match["unit"], cell) for word, cell in words if (match := _WITH_UNIT.fullmatch(word)) is not None]
    unit, n_cells = max(Counter(unit for unit, _ in matches).items(), key=lambda item: item[1], default=("", 0))
    like = [(unit, cell) for cell in dict.fromkeys(cell for other, cell in matches if other == unit)]
    if n_cells >= enough and len(like) > 1:
        return Dialect(f"numbers in {unit}", _advice("unit", [], column, style)[1], like[0][1])
    return None


@cache
def _dialects(decimal: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    other = "," if decimal == "." else "."
    separators = re.escape(_SEPARATORS)
    some = rf"[+-]?(?:\d+(?:[{separators}]\d+)*[.,]?|[.,]\d+)(?:e[+-]?\d+)?"
    mark = r"(?:[^\w\s#/:%+-]|[<>]=)*"  # such as < of what was below a limit, or * of what was estimated
    money, fortran = f"(?:{_CURRENCY})", r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)d[+-]?\d+"
    return tuple(
        (name, re.compile(pattern, re.IGNORECASE))
        for name, pattern in (
            ("number", rf"[+-]?(?:\d+{re.escape(decimal)}?\d*|{re.escape(decimal)}\d+)(?:e[+-]?\d+)?"),
            ("decimal", rf"[+-]?(?:\d+{re.escape(other)}?\d*|{re.escape(other)}\d+)(?:e[+-]?\d+)?"),
            ("grouped", some),
            ("percent", rf"{some}\s*%"),
            ("currency", rf"[+-]?\s*{money}\s*{some}|{some}\s*{money}|[+-]?\({money}?\s*{some}\)"),
            ("minus", rf"[+\u2212\u2013-]?\s*{some}|{some}\s*-|{fortran}|[+-]?\d+[\u00b7\u066b]\d+"),
            ("marked", rf"{mark}\s*{some}\s*{mark}"),
        )
    )


def _advice(name: str, words: Sequence[str], column: str, style: NumberStyle) -> tuple[str, str]:
    keep = f"--categories {column} to keep them as words"
    if name == "decimal":
        other = "," if style.decimal == "." else "."
        fix = f"--decimal {other} if {words[0]!r} is {words[0].replace(other, '.')}"
        if all(re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}(?:\{other}\d{{3}})+|[+-]?\d{{1,3}}", word) for word in words):
            fix += f", or --thousands {other} if it is {words[0].replace(other, '')}"
        return "numbers with a decimal " + ("comma" if other == "," else "point"), f"{fix}; or {keep}"
    if name == "marked" and all(replace(style, censored=True).read(word) is not None for word in words):
        ways = f"--censored {column} for the numbers, and a channel that says where they are limits"
        return "numbers beyond a limit", f"{ways}; or {keep}"
    if name == "marked":
        return "numbers with a mark beside each", f"write plain numbers to the file, or {keep}"
    if name == "grouped" and style.thousands is not None:
        return "numbers whose digits are grouped in another way", f"write plain numbers to the file, or {keep}"
    if name == "grouped":
        marks = dict.fromkeys(mark for word in words for mark in word if mark in _SEPARATORS)
        pairs = [(point, mark) for mark in marks or "," for point in ".," if point != mark]
        point, first = max(pairs, key=lambda pair: _n_read(replace(style, decimal=pair[0], thousands=pair[1]), words))
        flag = f"--thousands {first!r}" if first in _SPACES + "'\u2019" else f"--thousands {first}"
        flags = flag if point == style.decimal else f"--decimal {point} {flag}"
        return "numbers whose digits are grouped", f"{flags} or {keep}"
    if name == "number" and style.percent:
        return "numbers without a percent sign", f"leave {column} out of --percent, or write the sign behind each"
    if name == "percent":
        return "percentages", f"--percent {column} to store the numbers before the sign, or {keep}"
    if name == "currency":
        return "amounts of money", f"write plain numbers to the file, or {keep}"
    return "numbers in an unusual spelling", f"write plain numbers to the file, or {keep}"


def _n_read(style: NumberStyle, words: Sequence[str]) -> int:
    return sum(style.read(word) is not None for word in words)


def _grouping(thousands: str) -> str:
    """The characters that may stand between groups of digits."""
    if thousands in _SPACES:
        return _SPACES
    return "'\u2019" if thousands == "'" else thousands
