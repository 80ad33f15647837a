"""How records of a text file are told apart and cut into fields, where that is not plain CSV.

Comments, runs of spaces and columns of fixed width are brought to plain CSV before anything else looks at them. What a
record is stands here once, in :meth:`Framing.fields`; :meth:`Framing.plain` gives the same for a whole block at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zstore.writing.sources.refused import RefusedError

SPACES = "spaces"
"""The delimiter of columns that runs of spaces and tabs separate."""
REST = "*"
"""Width of a last column that takes the rest of each line."""
_UNIT = "\x1f"  # stands between columns of fixed width once they are cut
_RUN = re.compile("[ \t]+")
_TABS = bytes.maketrans(b"\t", b" ")
_STEPS = (16, 4, 2, 1)
LONE_CR = "a carriage return without a line feed stands outside quotes"


@dataclass(frozen=True)
class Framing:
    """What is not plain CSV about a file.

    Parameters
    ----------
    comment
        Lines that begin with it are left out; None where there are no such lines.
    spaces
        Whether runs of spaces and tabs stand between fields, and before and behind them all.
    widths
        Characters of each column; None, as the last, for the rest of the line. Empty where columns have no widths.
    """

    comment: str | None = None
    spaces: bool = False
    widths: tuple[int | None, ...] = ()

    @property
    def literal(self) -> bool:
        """Whether each line is a record, and none may have a quote."""
        return self.spaces or bool(self.widths)

    @property
    def delimiter(self) -> str | None:
        """What stands between fields in what :meth:`plain` makes; None if that is for the file to say."""
        return " " if self.spaces else _UNIT if self.widths else None

    def is_comment(self, content: bytes, position: int) -> bool:
        """Whether a record that begins at `position` is a comment."""
        return self.comment is not None and content.startswith(self.comment.encode(), position)

    def without_comments(self, content: bytes) -> bytes:
        """Record-aligned bytes without their comments, if no quote stands among them."""
        if self.comment is None:
            return content
        first = self._comments.match(content)
        return self._comments_below.sub(b"\n", content[first.end() :] if first else content)

    def fields(self, raw: bytes, most: int | None = None) -> tuple[list[str] | None, str]:
        """The fields of one line where lines are records; or None, and the reason why there are none, or too many."""
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return None, f"byte {raw[error.start]:#04x} is not UTF-8"
        text = text[:-1].removesuffix("\r") if text.endswith("\n") else text
        if "\r" in text:
            return None, LONE_CR
        if '"' in text or _UNIT in text:
            return None, "a quote, or a control character, where fields have no delimiter"
        if self.spaces:
            text = text.strip(" \t")
            fields = _RUN.split(text, most or 0) if text else []
            return (fields, "") if most is None or len(fields) <= most else (None, f"long row: more than {most} fields")
        return self._cut(text)

    def plain(self, content: bytes) -> bytes:
        """Record-aligned bytes, of which none is a comment, as CSV with the delimiter :attr:`delimiter`.

        Raises
        ------
        RefusedError
            If a line has a quote, or a control character that columns of fixed width are told by.

        Notes
        -----
        Cost: some 3 ns a byte; of widths where lines differ in length or are not ASCII, some 1 us a field.
        """
        if not self.literal:
            return content
        if b'"' in content or _UNIT.encode() in content:
            raise RefusedError("a quote stands where fields have no delimiter")
        return _collapsed(content) if self.spaces else self._cut_all(content)

    @cached_property
    def _comments(self) -> re.Pattern[bytes]:
        """Lines of comments, as many as follow each other: a match of each would take more memory than they do."""
        return re.compile(rb"(?:%b[^\n]*+(?:\n|\Z))++" % re.escape(str(self.comment).encode()))

    @cached_property
    def _comments_below(self) -> re.Pattern[bytes]:
        return re.compile(rb"\n" + self._comments.pattern)

    def _cut(self, text: str) -> tuple[list[str] | None, str]:
        if not text:
            return [], ""
        least = sum(width or 0 for width in self.widths)
        if len(text) < least or (len(text) > least and self.widths[-1] is not None):
            return None, f"a line of {len(text)} characters, where the widths of its columns make {least}"
        fields, start = [], 0
        for width in self.widths:
            stop = len(text) if width is None else start + width
            fields.append(text[start:stop].strip(" \t"))
            start = stop
        return fields, ""

    def _cut_all(self, content: bytes) -> bytes:
        length = sum(width or 0 for width in self.widths)
        lines = content if content.endswith(b"\n") else content + b"\n"
        even = self.widths[-1] is not None and content.isascii() and b"\t" not in content and b"\r" not in content
        if not even or len(lines) % (length + 1) or lines.count(b"\n") != len(lines) // (length + 1):
            return self._cut_each(content)
        letters = np.frombuffer(lines, np.uint8).reshape(-1, length + 1)
        if (letters[:, length] != ord("\n")).any():
            return self._cut_each(content)
        borders = np.cumsum([width or 0 for width in self.widths[:-1]])
        return _trimmed(np.insert(letters, borders, ord(_UNIT), axis=1).tobytes())

    def _cut_each(self, content: bytes) -> bytes:
        *lines, last = content.split(b"\n")
        cut = [self.fields(line + b"\n")[0] for line in lines] + [self.fields(last)[0]]
        wrong = [""] * (len(self.widths) + 1)  # more fields than there are columns, which nobody takes
        return "\n".join(_UNIT.join(wrong if fields is None else fields) for fields in cut).encode()


PLAIN = Framing()


def _collapsed(content: bytes) -> bytes:
    """Runs of spaces and tabs as one space, and none at the beginning and end of a line."""
    text = content.translate(_TABS) if b"\t" in content else content
    for n in (*_STEPS, 1):
        run = b" " * (n + 1)
        while run in text:
            text = text.replace(run, b" ")
    if text.startswith(b" "):
        text = text[1:]
    for inner, outer in ((b"\n ", b"\n"), (b" \n", b"\n"), (b" \r\n", b"\r\n")):
        text = text.replace(inner, outer)
    return text.removesuffix(b" ")


def _trimmed(text: bytes) -> bytes:
    """Fields without spaces before and behind them."""
    for mark in (_UNIT.encode(), b"\n"):
        for n in (*_STEPS, 1):
            run = b" " * n
            for before, after in ((mark + run, mark), (run + mark, mark)):
                while before in text:
                    text = text.replace(before, after)
    return text.lstrip(b" ")
