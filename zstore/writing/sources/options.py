"""What the user said about tables of any kind."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral
from typing import Any, Literal

import numpy as np

from zstore.errors import StoreError, UsageError
from zstore.writing.sources.hdf5.mapping import ID, TIME
from zstore.writing.sources.hdf5.read_mapping import mapping_of, mapping_text
from zstore.writing.sources.table import MissingTexts

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")


CENSORED = ".censored"
"""Ending of the channel that says where the numbers of another are limits."""


@dataclass(frozen=True)
class TableOptions:
    """What the user said about the tables; see :func:`zstore.ingest` for each, which has the defaults from here."""

    id: str | None = None  # of several columns, all of their names
    time: tuple[str, ...] = ()
    time_format: str | None = None
    time_unit: str | None = None
    freq: str | None = None
    start: str | None = None
    layout: Literal["long", "wide", "series", "calendar"] = "long"
    id_from_path: str | None = None
    channels: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    allow_new_channels: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    value_name: str = "value"
    delimiter: str | None = None
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] = MISSING
    missing_by: Literal["column", "text"] = "column"
    thousands: str | None = None
    percent: tuple[str, ...] = ()
    largest: float = sys.float_info.max
    skip_lines: int = 0
    comment: str | None = None
    units_row: bool = False
    skip_below_header: int = 0
    no_header: bool = False
    names: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()
    timezone: str | None = None
    censored: tuple[str, ...] = ()
    mapping: str | None = None  # of HDF5, as text

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> TableOptions:
        """The options among arguments of :func:`zstore.ingest`; those that are not there, or None, are as usual.

        Raises
        ------
        UsageError
            If what should be texts is none.
        """
        names = [option.name for option in fields(cls)]
        given: dict[str, Any] = {name: arguments[name] for name in names if arguments.get(name) is not None}
        if "mapping" in given:
            given = _by_mapping(given)
        ids = _texts("id", given.pop("id", ()))
        if ids:
            given |= {"id": ",".join(ids), "id_columns": ids if len(ids) > 1 else ()}
        for name, value in given.items():
            if isinstance(getattr(_USUAL, name), tuple) or name == "channels":
                given[name] = _texts(name, value)
        if not given.get("channels"):
            given.pop("channels", None)
        if "dtype" in arguments:
            given["largest"] = float(np.finfo(arguments["dtype"]).max)
        return cls(**given)

    @property
    def id_names(self) -> tuple[str, ...]:
        """Columns that ids are in."""
        return self.id_columns or (() if self.id is None else (self.id,))

    def to_json(self) -> dict[str, Any]:
        """Plain values for the store's own record; of newer options those alone that the user has used."""
        document = asdict(self)
        return {k: v for k, v in document.items() if k in _ALWAYS or v != getattr(_USUAL, k)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableOptions:
        """Read :meth:`to_json` back; what else the document has is left alone.

        A store of before `missing_by` was recorded has one list of texts for columns of every kind.
        """
        document = {"missing_by": "text", **document}
        found = {option.name: document[option.name] for option in fields(cls) if option.name in document}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        for name, value in known.items():
            usual = getattr(_USUAL, name)
            if not (value is None and name in _OPTIONAL) and not _is_like(value, "" if usual is None else usual):
                raise StoreError(
                    f"option {name} {value!r} of the store's record of its sources",
                    expected="an option as zstore ingest records it",
                    fix="do not append to this store: no release of zstore wrote it like this; ingest its sources",
                )
        if known.get("mapping") is not None:
            _check_recorded(str(known["mapping"]))
        return cls(**known)

    def with_categories(self, words: Iterable[str]) -> TableOptions:
        """The options under which these channels hold words, whatever those look like."""
        columns = {name: column for column, name in self.rename.items()}
        return replace(self, categories=tuple({*self.categories, *(columns.get(word, word) for word in words)}))

    def of_header(self, header: Collection[str]) -> TableOptions:
        """The options without columns that only other files have, and without new names."""
        present = set(header)
        return replace(
            self,
            channels=tuple(name for name in self.channels or () if name in present) or None,
            leave_out=tuple(name for name in self.leave_out if name in present),
            rename={},
            units={},
        )

    def named(self) -> set[str]:
        """Columns that the options name and a table need not have any more: static attributes can be replaced."""
        entries = [entry.partition("=")[0] for entry in self.missing if "=" in entry]
        return {*self.categories, *self.percent, *self.censored, *(entries if self.missing_by == "column" else ())} - {
            ""
        }

    def missing_texts(self, columns: Collection[str]) -> MissingTexts:
        """What `missing` means for a table.

        Parameters
        ----------
        columns
            Those that ``COL=TEXT`` may name.

        Raises
        ------
        UsageError
            If it names another.
        """
        if self.missing_by == "text":
            return MissingTexts(self.missing, as_texts=True)
        everywhere: list[str] = []
        own: dict[str, tuple[str, ...]] = {}
        for entry in self.missing:
            column, sign, text = split_entry(entry, columns)
            if not sign or not column:
                everywhere.append(entry)
            elif column in columns:
                own[column] = (*own.get(column, ()), text)
            else:
                raise UsageError(
                    f"no column {column!r}",
                    expected=f"one of {', '.join(map(repr, columns))}",
                    fix="name an existing column with --missing COL=TEXT",
                )
        return MissingTexts(tuple(everywhere) if everywhere or not own else MISSING, own)


_ALWAYS = frozenset(
    (
        *("id", "time", "time_format", "time_unit", "freq", "start", "layout", "id_from_path", "channels", "leave_out"),
        *("categories", "allow_new_channels", "rename", "units", "value_name", "delimiter", "decimal", "missing"),
        *("missing_by", "thousands", "percent", "largest"),
    )
)
"""Options that every store records; newer ones are recorded only where they are used."""
_USUAL = TableOptions()
_OPTIONAL = frozenset(option.name for option in fields(TableOptions) if getattr(_USUAL, option.name) is None)


def _by_mapping(given: dict[str, Any]) -> dict[str, Any]:
    """The options with what a mapping says of ids and times, which nothing else may say then.

    Raises
    ------
    UsageError
        If it cannot be read, or something else does.
    """
    for name in ("id", "time", "time_format", "time_unit", "timezone", "start", "id_from_path", "layout"):
        if given.get(name) not in (None, (), [], getattr(_USUAL, name)):
            raise UsageError(
                f"--{name.replace('_', '-')} with --mapping",
                expected="a mapping that says what ids and times are",
                fix=f"drop --{name.replace('_', '-')}, or write it into the mapping",
            )
    text = mapping_text(given["mapping"])
    moments = mapping_of(text).time.moments
    return {**given, "mapping": text, "id": ID, "time": (TIME,), "time_unit": None if moments else "steps"}


def _check_recorded(text: str) -> None:
    """Refuse a mapping of a store's record that no release wrote."""
    try:
        same = text.startswith("{") and mapping_text(text) == text
    except (UsageError, ValueError, RecursionError):
        same = False
    if not same:
        raise StoreError(
            f"mapping {text[:200]!r} of the store's record of its sources",
            expected="a mapping as zstore ingest records it",
            fix="do not append to this store: no release of zstore wrote it like this; ingest its sources",
        )


def refuse_mapping(options: TableOptions, many: str) -> None:
    """Refuse a mapping of sources that are not HDF5.

    Raises
    ------
    UsageError
        If there is one.
    """
    if options.mapping is not None:
        raise UsageError(
            f"--mapping of {many}", expected="HDF5 files (.h5, .hdf5)", fix="leave out --mapping, or name HDF5 files"
        )


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """Texts from one or several; whole numbers may stand for theirs."""
    texts = (value,) if isinstance(value, str) else tuple(value)
    for text in texts:
        if not isinstance(text, (str, Integral)):
            raise UsageError(f"--{name.replace('_', '-')} {text!r}", expected="text", fix="put it in quotes, as a text")
    return tuple(map(str, texts))


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a value from a store is of the kind of the usual one: text, a tuple or mapping of texts, a number."""
    if isinstance(usual, (tuple, Mapping)) or isinstance(value, tuple):
        inner = [*value, *value.values()] if isinstance(value, Mapping) else value
        same = isinstance(value, Mapping) == isinstance(usual, Mapping)
        return same and isinstance(value, (tuple, Mapping)) and all(isinstance(each, str) for each in inner)
    return isinstance(value, (float, int) if isinstance(usual, float) else type(usual))


def split_entry(entry: str, columns: Collection[str]) -> tuple[str, str, str]:
    """Column, sign and text of ``COL=TEXT``; the name of a column may have a sign of its own."""
    for column in columns:
        if entry.startswith(f"{column}="):
            return column, "=", entry[len(column) + 1 :]
    return entry.partition("=")


def check_options(options: TableOptions) -> None:
    """Refuse options of which one would be passed over.

    Raises
    ------
    UsageError
        Naming both.
    """
    for flag, value, other in (
        ("--start", options.start, "--time" if options.time else ""),
        ("--time-unit", options.time_unit, "--time-format" if options.time_format is not None else ""),
        ("--time-unit", options.time_unit, "--time of several columns" if len(options.time) > 1 else ""),
        ("--timezone", options.timezone, "no --time" if not options.time else ""),
        ("--time-unit", options.time_unit, "no --time" if not options.time else ""),
        ("--time-format", options.time_format, "no --time" if not options.time else ""),
    ):
        if value is not None and other:
            raise UsageError(f"{flag} {value} with {other}", expected="one way to read times", fix=f"drop {flag}")
    both = set(options.censored) & {*options.percent, *options.categories}
    if both or (options.censored and options.layout != "long"):
        other = f"--layout {options.layout}"
        if both:
            other = "--percent" if set(options.censored) & set(options.percent) else "--categories"
        raise UsageError(
            f"--censored {','.join(options.censored)} with {other}", expected="one of them", fix="drop one"
        )
    if options.delimiter == "":
        raise UsageError("--delimiter ''", expected="what stands between fields", fix="as in --delimiter ';'")
    for column, name in options.rename.items():
        if not name:
            raise UsageError(f"--rename {column}=", expected="a name", fix=f"as in --rename {column}=level")


def id_in_path(name: str, pattern: str) -> str:
    """The id of a file's rows: the first group of a pattern, searched in the path as the user named it, with ``/``.

    Raises
    ------
    UsageError
        If that is no regular expression, or finds no id.
    """
    try:
        match = re.search(pattern, name.replace(os.sep, "/"))
    except re.error as error:
        raise UsageError(
            f"--id-from-path {pattern!r} ({error})", expected="a regular expression", fix="correct --id-from-path"
        ) from None
    if match is None or not match.groups() or not match[1]:
        raise UsageError(
            f"no id in the path {name}",
            expected=f"a match of {pattern!r} with a group, as in 'site_(\\w+)\\.csv'",
            fix="correct --id-from-path",
        )
    return match[1]
