"""From a path or URL, as a user writes it, to the storage that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from zstore.errors import UsageError
from zstore.storage.folder import Folder
from zstore.storage.paths import check_path
from zstore.storage.protocol import Storage

_REMOTE = ("s3://", "gs://", "az://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of two letters at least: one is a drive, as in C://data


def is_remote(url: str | Path) -> bool:
    """Whether a path as the user gave it names an object storage."""
    return str(url).startswith(_REMOTE)


def open_storage(url: str | Path, options: Mapping[str, str] | None = None) -> Storage:
    """The folder or prefix that a user names.

    Parameters
    ----------
    url
        A path, or ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``az://CONTAINER/PREFIX``.
    options
        For object storage, beside the usual environment variables: see :class:`zstore.storage.bucket.Bucket`.

    Raises
    ------
    UsageError
        If the URL is of no known kind, the packages for it are missing, or a path has a NUL in it.
    """
    check_path(url, "path")
    text = str(url)
    if not is_remote(text):
        if _SCHEME.match(text):
            raise UsageError(
                f"URL {text!r}", expected="a path, or s3://, gs:// or az://BUCKET/PREFIX", fix="check the URL"
            )
        return Folder(Path(url))
    try:
        from zstore.storage.bucket import Bucket  # needs obstore
    except ImportError as error:
        raise UsageError(
            f"no way to read {text} ({error})", expected="obstore", fix="pip install 'zstore[s3]'"
        ) from error
    return Bucket.of(text, options or {})
