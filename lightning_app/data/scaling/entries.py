"""What a configuration says of channels: of all alike, or by name, vector and pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from lightning_app.data.patterns import compile_pattern, is_pattern
from zstore import UsageError

Value = TypeVar("Value")


def by_channel(
    entries: Mapping[str, Value], channels: Sequence[str], vectors: Mapping[str, Sequence[str]], option: str
) -> dict[str, Value]:
    """The value of each channel that an entry fits; of several, the last one's.

    Parameters
    ----------
    entries
        Values by name of a channel, by name of a vector, which stands for its channels, or by pattern: ``*`` is any
        text, ``?`` any one letter.
    channels
        Those in use.
    vectors
        The channels of each vector of the store.
    option
        Of the command line, for messages: ``scaler``.

    Raises
    ------
    UsageError
        If an entry fits no channel, or later entries fit all of its channels too.
    """
    owner: dict[str, str] = {}
    for entry in entries:
        fitting = _fitting(entry, channels, vectors)
        if not fitting:
            raise UsageError(
                f"a {option} for channel {entry!r}",
                expected=f"one of those in use: {', '.join(channels)}; or a vector, or a pattern such as 'emg.*'",
                fix=f"change --data.{option}",
            )
        owner.update(dict.fromkeys(fitting, entry))
    unused = entries.keys() - owner.values()
    for entry in entries:
        if entry in unused:
            later = dict.fromkeys(map(repr, (owner[name] for name in _fitting(entry, channels, vectors))))
            raise UsageError(
                f"a {option} for {entry!r}, whose channels {', '.join(later)} behind it fits too",
                expected="the last entry that fits a channel to be the one that is meant",
                fix=f"change the order of --data.{option}",
            )
    return {name: entries[owner[name]] for name in channels if name in owner}


def _fitting(entry: str, channels: Sequence[str], vectors: Mapping[str, Sequence[str]]) -> list[str]:
    """The channels that an entry is about."""
    if entry in channels:
        return [entry]
    if entry in vectors:
        return [name for name in channels if name in vectors[entry]]
    if not is_pattern(entry):
        return []
    pattern = compile_pattern(entry)
    return [name for name in channels if pattern.fullmatch(name)]
