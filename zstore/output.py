"""What a command prints, and how it ends when nobody reads that any more."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper

from zstore.storage.interrupts import ending_waits

BROKEN_PIPE = 141
"""The exit code that a shell gives to a tool which SIGPIPE has ended."""
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def end_quietly(command: Callable[[], int]) -> int:
    """Run a command; end without a word where the reader of its output has gone, as in ``zstore show … | head``.

    Ctrl-C ends what it waits for from a network.

    Returns
    -------
    Its exit code; 141 where the reader has gone; 1, with a line on standard error, where what is printed has no room.
    """
    _open_closed()
    if os.name == "nt" and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as files are, where it leads to one
    try:
        with ending_waits():
            code = command()
    except BrokenPipeError:
        _flush_all()
        return BROKEN_PIPE
    except SystemExit:  # help, or wrong usage
        if _is_pipe(_flush_all()):
            return BROKEN_PIPE
        raise
    except OSError as full:
        if full.errno not in _NO_ROOM or full.filename is not None:
            raise
        _flush_all()
        return _tell(full)
    error = _flush_all()
    if _is_pipe(error):
        return BROKEN_PIPE
    return _tell(error) if error is not None and code == 0 else code


def _tell(error: OSError) -> int:
    sys.stderr.write(f"{error}. Fix: make room where the command writes, and run again\n")
    return 1


def _open_closed() -> None:
    """Let what is printed go nowhere where standard output or errors are closed, as by ``>&-``."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as this runs


def _flush_all() -> OSError | None:
    """Write what is still to be written; if that fails, why, and it goes nowhere from then on."""
    failed = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            failed = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return failed


def _is_pipe(error: OSError | None) -> bool:
    """Whether an error says that the reader of a pipe has gone; Windows calls that an invalid argument."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error is not None and error.errno == errno.EINVAL)
