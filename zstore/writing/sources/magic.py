"""What a file is by its first bytes, where its name says that it is text."""

from __future__ import annotations

from zstore.errors import SourceError

_NO_TEXT = {
    b"\x1f\x8b": ("gzip", "name it .csv.gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "name it .csv.zst"),
    b"PK\x03\x04": ("a ZIP archive or Excel sheet", "unpack it, or save it as CSV"),
    b"PAR1": ("Parquet", "name it .parquet, or write it as CSV"),
    b"ARROW1": ("Arrow", "name it .arrow, or write it as CSV"),
    b"\x89HDF\r\n": ("HDF5", "name it .h5, or write it as CSV"),
}
"""First bytes of what is no text: what it is, and what to do."""


def refuse_no_text(head: bytes, where: str) -> None:
    """Refuse a file that is named like text and is none.

    Parameters
    ----------
    head
        Its first bytes.
    where
        The file, for the message.

    Raises
    ------
    SourceError
        Saying what it is.
    """
    for first, (what, fix) in _NO_TEXT.items():
        if head.startswith(first):
            raise SourceError(f"{what}, and no text", expected="a CSV file", where=where, fix=fix)
