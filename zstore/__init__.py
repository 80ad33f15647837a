"""zstore: long tables of time series, parsed once, kept in Zarr v3, read as windows at memory speed."""

from zstore.errors import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    SourceError,
    StoreError,
    UsageError,
    ZstoreError,
)

__version__ = "0.1.0"
