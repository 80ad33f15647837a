"""zstore: long tables of time series, parsed once, kept in Zarr v3, read as windows at memory speed."""

from zstore._version import __version__
from zstore.datasets import fetch
from zstore.errors import (
    ConflictError,
    CorruptionError,
    NotFiniteError,
    NotFoundError,
    SourceError,
    StoreError,
    UsageError,
    ZstoreError,
)
from zstore.format.moments import Moments
from zstore.format.timesteps import TimeStepRule
from zstore.progress import shown_progress
from zstore.reading.cached import CacheEntry, cache_entries, cache_folder, clear_cache
from zstore.reading.panel import PanelFile, PanelGrid, open_panel
from zstore.reading.rowfile import RowFile, open_rows
from zstore.reading.scaling import Scaling
from zstore.reading.series import Series
from zstore.reading.store import Store, open_store
from zstore.reading.windows import WindowIndex, Windows, WindowShape, find_holes
from zstore.upkeep.compact import compact
from zstore.upkeep.export import export
from zstore.upkeep.history import LogEntry, gc, log, rollback
from zstore.upkeep.verify import Verification, verify
from zstore.writing.append import append
from zstore.writing.ingest import ingest
from zstore.writing.receipt import Receipt
from zstore.writing.sources.files import source_states

__all__ = [
    "CacheEntry",
    "ConflictError",
    "CorruptionError",
    "LogEntry",
    "Moments",
    "NotFiniteError",
    "NotFoundError",
    "PanelFile",
    "PanelGrid",
    "Receipt",
    "RowFile",
    "Scaling",
    "Series",
    "SourceError",
    "Store",
    "StoreError",
    "TimeStepRule",
    "UsageError",
    "Verification",
    "WindowIndex",
    "WindowShape",
    "Windows",
    "ZstoreError",
    "__version__",
    "append",
    "cache_entries",
    "cache_folder",
    "clear_cache",
    "compact",
    "export",
    "fetch",
    "find_holes",
    "gc",
    "ingest",
    "log",
    "open_panel",
    "open_rows",
    "open_store",
    "rollback",
    "shown_progress",
    "source_states",
    "verify",
]
