"""Libraries that read images and volumes: each is imported when the first file of its kind is met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zstore.errors import UsageError


def library(name: str, extra: str) -> Any:
    """Import a library of an extra.

    Parameters
    ----------
    name
        Of the module.
    extra
        The extra of this package that it comes with: ``image``, ``volume`` or ``dicom``.

    Raises
    ------
    UsageError
        If it cannot be imported; says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise UsageError(
            f"{package} cannot be imported ({error})",
            expected=f"the libraries of the extra {extra!r}, which read these files",
            fix=f"pip install 'zstore[{extra}]'",
        ) from error
