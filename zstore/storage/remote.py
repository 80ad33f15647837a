"""S3, GCS and Azure through obstore: connections, requests sent again, and what went wrong in one line."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from zstore.errors import StoreError

Result = TypeVar("Result")

ATTEMPTS = 3
ERRORS = (BaseError, FileNotFoundError, PermissionError)
"""What obstore raises where a request fails."""

REFUSED = (PermissionDeniedError, UnauthenticatedError, InvalidPathError, PermissionError)
"""Errors of requests that fail however often they are sent."""

WAIT_S = 0.2
STORES: Mapping[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
"""By scheme, what speaks with a service."""

Connection = S3Store | GCSStore | AzureStore

_CLIENT = {"timeout": "30s", "connect_timeout": "10s"}
_MOST_SHOWN = 240
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENDPOINT = re.compile("endpoint|base_?url", re.IGNORECASE)
_UNLISTED = "Encountered object with invalid path: "
_NOISE = re.compile(r"Generic \w+ error: |, max_retries: \d+, retry_timeout: \w+|Error performing ")


def parse_url(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix of a URL."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    return scheme, bucket, prefix


def can_be_key(key: str) -> bool:
    """Whether an object can have this key; obstore takes no other, though S3 itself would."""
    return all(part not in ("", ".", "..") for part in key.split("/")) and not _CONTROL.search(key)


@lru_cache(maxsize=64)
def connect(process: int, scheme: str, bucket: str, prefix: str, options: tuple[tuple[str, str], ...]) -> Connection:
    """A connection, one for each process: none survives a fork."""
    given = dict(options)
    client: dict[str, Any] = {name: given.pop(name, usual) for name, usual in _CLIENT.items()}
    named = [value for name, value in (*given.items(), *os.environ.items()) if _ENDPOINT.search(name)]
    if any(value.startswith("http://") for value in named):
        client["allow_http"] = True
    backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}
    retry: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=45), "backoff": backoff}
    store = STORES[scheme]
    connection: Connection = store(bucket, prefix=prefix or None, client_options=client, retry_config=retry, **given)
    return connection


def send(where: str, request: Callable[[], Result]) -> Result:
    """The answer to a request that may be sent again.

    Parameters
    ----------
    where
        For messages.
    request
        What is sent.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    PreconditionError
        If it is in another state than was asked for.
    PermissionError
        If the request is refused.
    OSError
        If it fails each time.
    """
    failed: Exception | None = None
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except ERRORS as error:
            failed = failed_for_good(error, where)
            wait(attempt)
    raise given_up(failed, where)


def failed_for_good(error: Exception, where: str) -> Exception:
    """An error that may pass; those that stay are raised, as :func:`send` says."""
    if isinstance(error, (NotFoundError, FileNotFoundError)):
        raise FileNotFoundError(errno.ENOENT, "no such object", where) from error
    if isinstance(error, PreconditionError):
        raise error
    if isinstance(error, REFUSED):
        raise PermissionError(errno.EACCES, reason(error), where) from error
    return error


def given_up(failed: Exception | None, where: str) -> OSError:
    """What is raised once a request has failed each time."""
    error = OSError(errno.EIO, reason(failed), where)
    error.__cause__ = failed
    return error


def wait(attempt: int) -> None:
    """Wait after an attempt that failed, counted from 0: each time twice as long."""
    time.sleep(WAIT_S * 2**attempt)


@contextmanager
def reached(bucket: str) -> Iterator[None]:
    """Errors of the network as the user sees them; that there is no object is none."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if (why := str(error.strerror)).startswith(_UNLISTED):
            raise StoreError(
                f"an object in the way, in {bucket} ({why.removeprefix(_UNLISTED)})",
                expected="keys without empty parts, '.', '..' and control characters",
                fix="remove that object with another tool, or give it another key",
            ) from error
        raise StoreError(
            f"cannot reach {bucket} ({error.strerror})",
            expected="a bucket that answers",
            fix="check URL, network and credentials (in the environment, as AWS_…, GOOGLE_… or AZURE_…, or with "
            "--storage-options)",
        ) from error


def reason(error: BaseException | None) -> str:
    """The first line of an error, without the tail of its causes and the settings of the client."""
    first, _, causes = str(error).partition("\n\n")
    text = "timed out: " * ("TimedOut" in causes) + _NOISE.sub("", " ".join(first.split()))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
