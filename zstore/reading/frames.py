"""Record batches as data frames of other packages, which are imported when one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from zstore.errors import UsageError

if TYPE_CHECKING:
    import pandas
    import polars


def needed(package: str) -> Any:
    """An optional package.

    Raises
    ------
    UsageError
        If it is not installed, naming the command that installs it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UsageError(f"{package} cannot be imported ({error})", fix=f"pip install {package}") from error


def pandas_frame(table: Any) -> pandas.DataFrame:
    """A table of Arrow, which must not be used again, as a data frame; dictionaries are Categorical."""
    needed("pandas")
    frame: pandas.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    return frame


def polars_frame(table: Any) -> polars.DataFrame:
    """A table of Arrow as a data frame of polars; dictionaries are Enum, which has all their words."""
    pl = needed("polars")
    frame: Any = pl.from_arrow(table)
    words = {
        field.name: pl.Enum(column.chunk(0).dictionary.to_pylist())
        for field, column in zip(table.schema, table.columns, strict=True)
        if pa.types.is_dictionary(field.type)
    }
    return frame.cast(words)  # type: ignore[no-any-return]


def polars_scan(empty: Any, batches: Callable[[Sequence[str] | None], Iterator[Any]]) -> polars.LazyFrame:
    """A query of polars over record batches that are made anew each time it is collected.

    Parameters
    ----------
    empty
        A batch without a row.
    batches
        From the names of the columns that are needed, or None for all, to batches.
    """
    needed("polars")
    from polars.io.plugins import register_io_source

    def source(names: list[str] | None, predicate: Any, n_rows: int | None, _: int | None) -> Iterator[Any]:
        for batch in batches(names):
            frame = polars_frame(pa.Table.from_batches([batch]))
            if n_rows is not None:
                frame = frame.head(n_rows)
                n_rows -= len(frame)
            yield frame if predicate is None else frame.filter(predicate)
            if n_rows == 0:
                return

    return register_io_source(source, schema=polars_frame(pa.Table.from_batches([empty])).schema, is_pure=True)
