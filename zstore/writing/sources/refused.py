"""What Arrow reads and zstore does not take."""

from __future__ import annotations


class RefusedError(Exception):
    """A block that Arrow parses but that holds a row which must not be stored."""
