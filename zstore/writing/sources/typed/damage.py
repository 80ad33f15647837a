"""Files in one state of their bytes, and those that are not what their format says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from zstore.errors import SourceError
from zstore.storage.file import File
from zstore.writing.sources.files import cannot_read

_MOST_TEXT = 200


@dataclass(frozen=True)
class FileState:
    """A file in one state of its bytes, by which what was read of it is kept in memory."""

    name: str
    n_bytes: int
    etag: str | None
    file: File = field(compare=False)


def state_of(file: File) -> FileState:
    """The state that a file is meant to be in."""
    return FileState(str(file), file.n_bytes, file.etag, file)


@contextmanager
def damage_told(name: str, kind: str) -> Iterator[None]:
    """Arrow's refusals as errors that name the file, which is of some kind, such as ``Parquet file``."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise cannot_read(name, error) from error
        raise damaged(name, kind, str(error)) from error
    except (pa.ArrowException, ValueError) as error:
        raise damaged(name, kind, str(error)) from error


def damaged(name: str, kind: str, what: str) -> SourceError:
    """The error of a file that is not whole."""
    return SourceError(
        f"damaged {kind} ({what.splitlines()[0][:_MOST_TEXT] if what else 'it ends too early'})",
        expected=f"a whole {kind} that is not encrypted",
        where=name,
        fix="fetch or write the file again",
    )
