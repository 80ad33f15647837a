"""The one error tree. Every message says: what (value); what was expected. Where. Fix."""

from __future__ import annotations

import re

from zstore.in_python import in_python
from zstore.text import MOST_MESSAGE, shown

__all__ = [
    "ConflictError",
    "CorruptionError",
    "NotFiniteError",
    "NotFoundError",
    "SourceError",
    "StoreError",
    "UsageError",
    "ZstoreError",
]


_ENDS_IN_COMMAND = re.compile(
    r"(?:^|: |as in )(?:(?:pip install|python -m) .*|(?:--[\w.-]+ [^\s-]\S*(?: |$))+)$"
    r"|: (?:zstore|lightning-app) [^;]*$"
)


class ZstoreError(Exception):
    """Base of everything that zstore and lightning_app raise on purpose.

    Messages name options of the command line; a note below the traceback says what they are in Python.

    Parameters
    ----------
    what
        What went wrong, with the offending value in it.
    expected
        What was expected instead.
    where
        File, line, shard or argument.
    fix
        What to do about it, naming the flag or argument.
    """

    exit_code = 1

    def __init__(self, what: str, *, expected: str = "", where: str = "", fix: str = "") -> None:
        self.what, self.expected, self.where, self.fix = what, expected, where, fix
        # Names from files and stores are in there: shown harmlessly, though the attributes have them as they are.
        what, expected, where, fix = (shown(part, MOST_MESSAGE) for part in (what, expected, where, fix))
        head = f"{what}; expected {expected}" if expected else what
        sentences = [part.rstrip(".") + "." for part in (head, where, f"Fix: {fix}" if fix else "") if part]
        if _ENDS_IN_COMMAND.search(fix):
            sentences[-1] = f"Fix: {fix}"  # a full stop would change what is to be typed
        super().__init__(" ".join(sentences))
        python = in_python(" ".join(sentences))
        if python:
            self.add_note(python)  # shown below a traceback, and so to callers in Python

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments: the default would lose them between the processes of a cluster.
        return (_rebuild, (type(self), self.what, self.expected, self.where, self.fix))


class UsageError(ZstoreError, ValueError):
    """An argument, flag or configuration key that cannot be meant (exit code 2)."""

    exit_code = 2


class NoColumnError(UsageError):
    """A column that a table does not have, or none where one has to be named."""


class SourceError(ZstoreError, ValueError):
    """A source file or a row in it that cannot be stored as written."""


class LostSourceError(SourceError):
    """A source that went away while it was read; what was read of it is kept for a run that goes on from there."""


class NotFiniteError(ZstoreError, ArithmeticError):
    """A value, loss or metric that is infinite or no number, or does not fit the type that it is needed in."""


class StoreError(ZstoreError):
    """A store that is not what it should be: absent, of another format, already there."""


class LostClusterError(StoreError):
    """A cluster that went away; its workers may still be writing, and what they wrote is kept for the next run."""


class NotFoundError(StoreError, KeyError):
    """An id, channel, attribute or version that the store does not hold."""

    __str__ = Exception.__str__  # KeyError would print the repr


class CorruptionError(StoreError):
    """A stored object that is missing or differs from its digest in the manifest."""


class ConflictError(StoreError):
    """Another writer committed, or is at work, on the same store."""


def _rebuild(kind: type[ZstoreError], what: str, expected: str, where: str, fix: str) -> ZstoreError:
    return kind(what, expected=expected, where=where, fix=fix)
