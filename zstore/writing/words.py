"""Columns that were taken for words by their first cells, and turn out to hold numbers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow.compute as pc

from zstore.arrow import union
from zstore.errors import SourceError
from zstore.format.encodings.words import words_of
from zstore.writing.blocks import BlockReport
from zstore.writing.parse import Parsed
from zstore.writing.sources.cells import NumberStyle, dialect_of, shorten
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.table import ChannelSpec, TableSpec

_LIKE_NUMBER = r"^[ \t]*[+-]?[0-9.,]"
_MOST_WORDS = 1 << 14  # that are looked at for a spelling of numbers


def refuse_numbers(source: Source, parsed: Parsed, spec: TableSpec, named: Collection[str]) -> None:
    """Refuse columns of words that neither the user nor their type says to be such, if any of their words is a number.

    Parameters
    ----------
    source, parsed, spec
        What has read what.
    named
        Columns that the user says hold words, whatever those look like.

    Raises
    ------
    SourceError
        If a word is a number, or nearly all are numbers in another spelling: all of a column are words, or none.

    Notes
    -----
    The first rows decide what a column holds. A gauge that was not there yet has only ``-`` in them.
    """
    if source.typed:
        return
    for column, style, words in _columns_of_words(parsed.reports, spec, named):
        number = next(iter(_numbers(words, column, style, spec)), None)
        if number is not None:
            _refuse(column, number, "no number, as in its first rows", source, parsed, spec)
        refuse_spelling(column, words, style, source, parsed, spec)


def refuse_all_numbers(
    source: Source,
    parsed: Parsed,
    spec: TableSpec,
    named: Collection[str],
    known: dict[str, Sequence[str]],
) -> None:
    """Refuse rows without types that have nothing but numbers where a store has words, none of which is one.

    Parameters
    ----------
    source, parsed, spec, named
        As for :func:`refuse_numbers`.
    known
        Per column, the words of the store.

    Raises
    ------
    SourceError
        If there are such rows. One number among words is a word.
    """
    if source.typed:
        return
    for column, style, words in _columns_of_words(parsed.reports, spec, named):
        if any(style.read(word) is not None for word in known.get(column, ())):
            continue
        numbers = _numbers(words, column, style, spec)
        if numbers and len(numbers) == len(words):
            _refuse(column, numbers[0], "words, as the store has them", source, parsed, spec)
        refuse_spelling(column, words, style, source, parsed, spec)


def refuse_spelling(
    column: str, words: Any, style: NumberStyle, source: Source, parsed: Parsed, spec: TableSpec
) -> None:
    """Refuse words of which nearly all would be numbers if the user said how they are written."""
    some = list(itertools.islice(words.to_pylist(), 0, None, len(words) // _MOST_WORDS + 1))
    dialect = dialect_of(some, column, style)
    if dialect is not None:
        raise SourceError(
            f"column {column!r} holds words such as {shorten(dialect.example)!r} that look like {dialect.what}",
            expected="numbers, or words",
            where=source.find_word(parsed.blocks, spec, column, dialect.example),
            fix=dialect.fix,
        )


def _columns_of_words(
    reports: Sequence[BlockReport], spec: TableSpec, named: Collection[str]
) -> list[tuple[str, NumberStyle, Any]]:
    """Each column of words that is not named, how numbers would be written there, and its distinct words."""
    columns: list[tuple[int, ChannelSpec]] = [
        (n, channel) for n, channel in enumerate(spec.stored) if channel.text and channel.column not in named
    ]
    return [
        (
            channel.column,
            spec.style(channel.column),
            union([words_of(report.forms[n]) for report in reports]),
        )
        for n, channel in columns
    ]


def _numbers(words: Any, column: str, style: NumberStyle, spec: TableSpec) -> list[str]:
    """The words that are numbers, but for those that mean missing among numbers."""
    absent = spec.missing.of_numbers(column, style)
    likely = words.filter(pc.match_substring_regex(words, _LIKE_NUMBER)).to_pylist()
    read = {word: style.read(word) for word in likely}
    return [word for word, value in read.items() if value is not None and absent.name(word, value) is None]


def _refuse(column: str, number: str, expected: str, source: Source, parsed: Parsed, spec: TableSpec) -> None:
    raise SourceError(
        f"number {shorten(number)!r} in column {column!r} of words",
        expected=expected,
        where=source.find_word(parsed.blocks, spec, column, number),
        fix=f"--categories {column} to keep all of them as words, or, in a new store, --missing {column}=TEXT for each "
        "word that stands for a missing number",
    )
