"""What is wrong with a payload."""

from __future__ import annotations


class PayloadError(Exception):
    """A payload that cannot be stored as it is.

    Parameters
    ----------
    reason
        What is wrong with it, such as ``a file that ends after 1,024 of 27,648 bytes``.
    expected
        What would be right.
    whole
        Whether nothing of what holds the payload can be read, so that there is no use in trying the others in it.
    """

    def __init__(self, reason: str, expected: str, whole: bool = False) -> None:
        super().__init__(reason, expected, whole)
        self.reason, self.expected, self.whole = reason, expected, whole


def check_size(what: str, n_bytes: int, limit_bytes: int) -> None:
    """Refuse what would take more memory than it may, before any is taken.

    Parameters
    ----------
    what
        What would take it, such as ``an image of 60,000 × 60,000 pixels``.
    n_bytes
        Bytes that it would take.
    limit_bytes
        Bytes that it may take.

    Raises
    ------
    PayloadError
        If it would take more.
    """
    if n_bytes > limit_bytes:
        raise PayloadError(
            f"{what}, which takes {n_bytes:,} bytes",
            f"at most {limit_bytes:,} bytes a payload; --file-limit raises that",
        )
