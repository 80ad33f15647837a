"""zstore: long tables of time series, parsed once, kept in Zarr v3, read as windows at memory speed.

Names are imported when they are first asked for, so that ``import zstore`` takes milliseconds, and a script pays for
what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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
from zstore.mistyped import mistyped  # would be hidden by its module, were it imported later

if TYPE_CHECKING:
    from zstore import look, view
    from zstore._version import __version__
    from zstore.format.moments import Moments
    from zstore.format.outside import check_outside
    from zstore.format.timesteps import TimeStepRule
    from zstore.inspection.column import ColumnLook
    from zstore.inspection.hdf5 import TreeInspection, inspect_hdf5
    from zstore.inspection.inspected import Inspection
    from zstore.inspection.look import inspect
    from zstore.memory import free_memory, total_memory
    from zstore.output import end_quietly
    from zstore.progress import shown_progress
    from zstore.published.fetching import fetch
    from zstore.reading.eviction import Cache, cache_entries, cache_folder, clear_cache, verify_cache
    from zstore.reading.fieldreader import FieldReader
    from zstore.reading.fieldrows import FieldSteps, open_field
    from zstore.reading.gather import Windows, observed_key
    from zstore.reading.localfield import local_field
    from zstore.reading.panel import PanelFile, PanelGrid, open_panel
    from zstore.reading.rowfile import RowFile, open_rows
    from zstore.reading.rownotes import CacheEntry
    from zstore.reading.scaling import Scaling
    from zstore.reading.selection import Selection
    from zstore.reading.series import Series
    from zstore.reading.store import Store, open_store
    from zstore.reading.volumes import SourceVolume, original_grid
    from zstore.reading.windows import WindowIndex, find_holes
    from zstore.reading.windowshape import Padding, WindowBounds, WindowShape
    from zstore.storage.locks import file_lock
    from zstore.text import counted, shown, shown_html
    from zstore.upkeep.compact import compact
    from zstore.upkeep.export import export
    from zstore.upkeep.history import LogEntry, gc, log, rollback
    from zstore.upkeep.outfile import check_target, whole_file
    from zstore.upkeep.verify import Verification, verify
    from zstore.writing.append import append
    from zstore.writing.ingest import ingest
    from zstore.writing.receipt import Receipt
    from zstore.writing.sources.files import source_states
    from zstore.writing.sources.kinds import is_source
    from zstore.writing.sources.sql.query import Query
    from zstore.yamlfiles import bound_yaml, check_configs, read_yaml

_NAMES = {
    "zstore._version": "__version__",
    "zstore.format.moments": "Moments",
    "zstore.format.outside": "check_outside",
    "zstore.format.timesteps": "TimeStepRule",
    "zstore.inspection.column": "ColumnLook",
    "zstore.inspection.hdf5": "TreeInspection inspect_hdf5",
    "zstore.inspection.inspected": "Inspection",
    "zstore.inspection.look": "inspect",
    "zstore.memory": "free_memory total_memory",
    "zstore.output": "end_quietly",
    "zstore.progress": "shown_progress",
    "zstore.published.fetching": "fetch",
    "zstore.reading.eviction": "Cache cache_entries cache_folder clear_cache verify_cache",
    "zstore.reading.fieldreader": "FieldReader",
    "zstore.reading.fieldrows": "FieldSteps open_field",
    "zstore.reading.gather": "Windows observed_key",
    "zstore.reading.localfield": "local_field",
    "zstore.reading.panel": "PanelFile PanelGrid open_panel",
    "zstore.reading.rowfile": "RowFile open_rows",
    "zstore.reading.rownotes": "CacheEntry",
    "zstore.reading.scaling": "Scaling",
    "zstore.reading.selection": "Selection",
    "zstore.reading.series": "Series",
    "zstore.reading.store": "Store open_store",
    "zstore.reading.volumes": "SourceVolume original_grid",
    "zstore.reading.windows": "WindowIndex find_holes",
    "zstore.reading.windowshape": "Padding WindowBounds WindowShape",
    "zstore.storage.locks": "file_lock",
    "zstore.text": "counted shown shown_html",
    "zstore.upkeep.compact": "compact",
    "zstore.upkeep.export": "export",
    "zstore.upkeep.history": "LogEntry gc log rollback",
    "zstore.upkeep.outfile": "check_target whole_file",
    "zstore.upkeep.verify": "Verification verify",
    "zstore.writing.append": "append",
    "zstore.writing.ingest": "ingest",
    "zstore.writing.receipt": "Receipt",
    "zstore.writing.sources.files": "source_states",
    "zstore.writing.sources.kinds": "is_source",
    "zstore.writing.sources.sql.query": "Query",
    "zstore.yamlfiles": "bound_yaml check_configs read_yaml",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
_PACKAGES = ("look", "view")

__all__ = [
    "Cache",
    "CacheEntry",
    "ColumnLook",
    "ConflictError",
    "CorruptionError",
    "FieldReader",
    "FieldSteps",
    "Inspection",
    "LogEntry",
    "Moments",
    "NotFiniteError",
    "NotFoundError",
    "Padding",
    "PanelFile",
    "PanelGrid",
    "Query",
    "Receipt",
    "RowFile",
    "Scaling",
    "Selection",
    "Series",
    "SourceError",
    "SourceVolume",
    "Store",
    "StoreError",
    "TimeStepRule",
    "TreeInspection",
    "UsageError",
    "Verification",
    "WindowBounds",
    "WindowIndex",
    "WindowShape",
    "Windows",
    "ZstoreError",
    "__version__",
    "append",
    "bound_yaml",
    "cache_entries",
    "cache_folder",
    "check_configs",
    "check_outside",
    "check_target",
    "clear_cache",
    "compact",
    "counted",
    "end_quietly",
    "export",
    "fetch",
    "file_lock",
    "find_holes",
    "free_memory",
    "gc",
    "ingest",
    "inspect",
    "inspect_hdf5",
    "is_source",
    "local_field",
    "log",
    "look",
    "mistyped",
    "observed_key",
    "open_field",
    "open_panel",
    "open_rows",
    "open_store",
    "original_grid",
    "read_yaml",
    "rollback",
    "shown",
    "shown_html",
    "shown_progress",
    "source_states",
    "total_memory",
    "verify",
    "verify_cache",
    "view",
    "whole_file",
]


if not TYPE_CHECKING:  # which would then let any name pass

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for."""
        if name in _PACKAGES:
            return import_module(f"zstore.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'zstore' has no attribute {name!r}")
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Public names, whether they were imported yet or not."""
    return sorted({*globals(), *__all__})
