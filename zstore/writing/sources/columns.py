"""What the columns of a source are, by their names and the options: which are read, and which are channels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from zstore.errors import NoColumnError, SourceError, UsageError
from zstore.writing.sources.options import MISSING, TableOptions, split_entry
from zstore.writing.sources.protocol import SourceFile
from zstore.writing.sources.table import ChannelSpec, MissingTexts

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class ColumnChoice:
    """What is read of a source.

    Parameters
    ----------
    wanted
        Columns that become channels, or, in a wide table of series, series.
    missing
        What means a missing value.
    tracked
        Texts of --missing that the user names, and of which to tell whether they occur.
    """

    wanted: tuple[str, ...]
    missing: MissingTexts
    tracked: frozenset[str]


def choose_columns(
    sources: Sequence[SourceFile], options: TableOptions, others: Collection[str] = (), hint: str = ""
) -> ColumnChoice:
    """Decide which columns are read.

    Parameters
    ----------
    sources, options
        The files, and what the user said about them.
    others
        Columns of static attributes, which options may name too.
    hint
        Where to learn what such files hold, as messages end that refuse a column.

    Raises
    ------
    UsageError
        If a named column does not exist, or options contradict each other.
    SourceError
        If headers disagree, or there is nothing to read.
    """
    first = sources[0]
    columns = _all_columns(sources, options.allow_new_channels)
    _check_names(options, columns, first, others, hint)
    _check_roles(options)
    missing = options.missing_texts(dict.fromkeys([*columns, *others]))
    for name in missing.in_column.keys() & set(options.id_names):
        raise UsageError(
            f"--missing {name}={missing.in_column[name][0]} of the id column",
            expected="a column of numbers, words or times; ids are kept as they are",
            fix="drop it, or leave such rows out of the file",
        )
    given = options.missing if options.missing != MISSING else ()
    elsewhere = [*others, *options.time]  # a row without a time is bad
    tracked = frozenset(
        t
        for t in given
        if t and not t.endswith("=") and not _names_other(t, elsewhere, [c for c in columns if c not in options.time])
    )
    used = {*options.id_names, *options.time, *options.leave_out}
    wanted = tuple(options.channels or (column for column in columns if column not in used))
    if not wanted:
        raise SourceError(
            "no channel",
            expected="a column beside id and time",
            where=first.head,
            fix="add a column of values, or leave out fewer with --leave-out",
        )
    if options.layout == "wide" and "" in wanted:
        raise SourceError(
            f"column {columns.index('') + 1} has no name",
            expected="the id of a series above each column",
            where=first.head,
            fix="name it in the file, or leave it out: --leave-out ''",
        )
    return ColumnChoice(wanted, missing, tracked)


def series_channel(options: TableOptions, units: str | None = None) -> ChannelSpec:
    """The one channel of a wide table of series, with the units that its columns have unless the user says others."""
    return ChannelSpec(options.value_name, options.value_name, units=options.units.get(options.value_name, units))


def check_channels(channels: Sequence[ChannelSpec], wanted: Sequence[str]) -> None:
    """Refuse two channels of one name.

    Raises
    ------
    UsageError
        If there are some.
    """
    names = [channel.name for channel in channels]
    if len(set(names)) < len(names):
        flag = "--channels" if len(set(wanted)) < len(wanted) else "--rename"
        raise UsageError(f"channels {', '.join(names)}", expected="every name once", fix=f"change {flag}")


def _names_other(entry: str, others: Collection[str], columns: Collection[str]) -> bool:
    """Whether ``COL=TEXT`` names a static attribute alone."""
    column, sign, _ = split_entry(entry, [*columns, *others])
    return bool(sign) and column in others and column not in columns


def _check_roles(options: TableOptions) -> None:
    """Refuse a column of times that is to be something else as well."""
    twice = [column for column in options.time if options.time.count(column) > 1]
    if len(set(options.id_names)) < len(options.id_names):
        raise UsageError(f"--id {options.id}", expected="every column once", fix="change --id")
    for column, flag in [
        *((column, "--time, twice") for column in twice),
        *((column, "--channels") for column in options.channels or () if column in options.time),
        *((column, "--id") for column in options.time if column in options.id_names),
    ]:
        raise UsageError(
            f"column {column!r} in --time and in {flag}"
            if flag != "--time, twice"
            else f"column {column!r} twice in --time",
            expected="one use of a column of times",
            fix=f"drop it from {flag.partition(',')[0]}, or write a copy of it to the file under another name",
        )


def _check_names(
    options: TableOptions, columns: Sequence[str], first: SourceFile, others: Collection[str], hint: str
) -> None:
    named = [*(("--id", column) for column in options.id_names), *(("--time", column) for column in options.time)]
    named += [
        (flag, c)
        for flag, group in (
            ("--channels", options.channels),
            ("--leave-out", options.leave_out),
            ("--categories", [column for column in options.categories if column not in others]),
            ("--percent", [column for column in options.percent if column not in others]),
            ("--censored", [column for column in options.censored if column not in others]),
            ("--rename", options.rename),
            ("--units", options.units),
        )
        for c in group or ()
    ]
    known = set(columns)
    made = {options.value_name} if options.layout != "long" else set()
    for flag, column in named:
        if column is not None and column not in known and not (flag == "--units" and column in made):
            together = any(mark in name for name in columns for mark in DELIMITERS)
            raise NoColumnError(
                f"no column {column!r}",
                expected=f"one of {', '.join(map(repr, columns))}",
                where=first.head,
                fix=f"name an existing column with {flag}"
                + (", or say what stands between columns with --delimiter" if together else "")
                + hint,
            )
    for flag, group in (("--rename", options.rename), ("--units", options.units)):
        for column in group:
            if column in (*options.id_names, *options.time):
                raise UsageError(f"{flag} of {column!r}", expected="a channel", fix=f"leave it out of {flag}")
    if options.id is not None and (options.layout == "wide" or options.id_from_path is not None):
        other = "--layout wide" if options.layout == "wide" else "--id-from-path"
        raise UsageError(f"--id with {other}", expected="one place that ids come from", fix=f"drop --id or {other}")


def _all_columns(sources: Sequence[SourceFile], allow_new: bool) -> list[str]:
    """The columns of the first file, and, where they are allowed, those that others add."""
    first = sources[0]
    columns = dict.fromkeys(first.header)
    for other in sources[1:]:
        present = set(other.header)
        lacking = [(column, "is missing") for column in first.header if column not in present]
        extra = [(column, "is not in the files before") for column in other.header if column not in columns]
        for column, problem in lacking + ([] if allow_new else extra):
            new = "--allow-new-channels, " if problem != "is missing" else ""
            raise SourceError(
                f"column {column!r} {problem}",
                expected=f"the columns of {first.name} (in any order): {', '.join(first.header)}",
                where=other.head,
                fix=f"{new}ingest files of different columns into different stores, or correct the header",
            )
        columns.update(dict.fromkeys(other.header))
    return list(columns)


def has_no_series(source: SourceFile, options: TableOptions) -> bool:
    """Whether a wide table has none of the series that the options choose."""
    return options.layout == "wide" and bool(options.channels) and not set(options.channels or ()) & set(source.header)
