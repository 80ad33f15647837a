"""Panels: the series of a store side by side, whatever order, gaps and lengths they have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
import zstore.reading.panel
from zstore import PanelFile, PanelGrid, Scaling, Store, UsageError, ingest, open_panel, open_store

STEP = 300


def store_of(folder: Path, rows: Sequence[Sequence[Any]], name: str = "p") -> Store:
    table = write_table(folder / f"{name}.csv", ["id", "t", "v", "w"], rows)
    ingest(table, folder / f"{name}.zarr", id="id", time="t", freq=str(STEP))
    return open_store(folder / f"{name}.zarr")


def panel_of(store: Store, cache: Path, series: Sequence[int] | None = None) -> PanelFile:
    grid = PanelGrid.of(store, None if series is None else np.array(series))
    return open_panel(store, grid, ("v", "w"), Scaling.linear(np.ones(2), np.full(2, 2.0)), cache)


def expected(rows: Sequence[Sequence[Any]], ids: Sequence[str]) -> np.ndarray[Any, Any]:
    """(step, node, channel) in source units, NaN where there is none; a cell at a time."""
    mine = [row for row in rows if row[0] in ids]
    first, last = min(row[1] for row in mine), max(row[1] for row in mine)
    panel = np.full(((last - first) // STEP + 1, len(ids), 2), np.nan)
    for id_, time, *values in mine:
        panel[(time - first) // STEP, ids.index(id_)] = [np.nan if value == "" else value for value in values]
    return panel


def check(panel: PanelFile, rows: Sequence[Sequence[Any]], ids: Sequence[str]) -> None:
    wanted = (expected(rows, ids) - 1) / 2
    found, shape = panel.rows(), wanted.shape
    np.testing.assert_allclose(found.values.reshape(shape), np.nan_to_num(wanted), atol=1e-6)
    blank = any(value == "" for row in rows for value in row[2:])  # of any series of the store, in the panel or not
    assert panel.masked == (blank or bool(np.isnan(wanted).any()))
    if found.observed is not None:
        np.testing.assert_array_equal(found.observed.reshape(shape), ~np.isnan(wanted))
    for low, high in ((0, len(wanted)), (len(wanted) // 3, len(wanted) // 2 + 1)):
        values = np.full((high - low, panel.width), 7, np.float32)
        seen = np.zeros(values.shape, np.bool_) if panel.masked else None
        panel.read(low, values, seen)
        np.testing.assert_array_equal(values, found.values[low:high])
        if seen is not None and found.observed is not None:
            np.testing.assert_array_equal(seen, found.observed[low:high])


@st.composite
def tables(draw: st.DrawFn) -> list[list[Any]]:
    """Rows of a few series on one grid: some begin late, end early, have gaps or missing cells."""
    rows = []
    for series in range(draw(st.integers(1, 6))):
        steps = draw(st.sets(st.integers(0, 30), min_size=1, max_size=31)) | {3, 4, 5}
        value = st.one_of(st.integers(-99, 99), st.just(""))
        rows += [[f"s{series}", 1_000 * STEP + step * STEP, draw(value), draw(value)] for step in sorted(steps)]
    return draw(st.permutations(rows))


@settings(max_examples=15)
@given(rows=tables(), data=st.data())
def test_every_cell_of_a_panel_is_that_of_its_series_at_its_time(
    rows: list[list[Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("panel")
    store = store_of(folder, rows)
    ids = sorted({row[0] for row in rows})
    chosen = sorted(data.draw(st.sets(st.integers(0, len(ids) - 1), min_size=1)))
    with pytest.MonkeyPatch.context() as patch:  # a few bytes at a time: many groups, pieces and writes
        patch.setattr(zstore.reading.panel, "_BUFFER_BYTES", data.draw(st.sampled_from([1, 600, 1 << 27])))
        patch.setattr(zstore.reading.panel, "_PIECE_BYTES", data.draw(st.sampled_from([1, 100, 1 << 24])))
        check(panel_of(store, folder / "cache", chosen), rows, [ids[n] for n in chosen])


def test_rows_that_were_appended_are_in_the_panel(tmp_path: Path) -> None:
    rows = [[f"s{n}", step * STEP, n + step, step] for n in range(3) for step in range(20)]
    more = [[f"s{n}", step * STEP, n + step, step] for n in (0, 2, 3) for step in range(20, 33)]
    store = store_of(tmp_path, rows)
    zstore.append(write_table(tmp_path / "more.csv", ["id", "t", "v", "w"], more), store.path)
    check(panel_of(open_store(store.path), tmp_path / "cache"), rows + more, ["s0", "s1", "s2", "s3"])


def test_panels_of_other_series_channels_or_versions_are_other_files_of_one_cache(tmp_path: Path) -> None:
    rows = [[f"s{n}", step * STEP, n + step, step] for n in range(3) for step in range(20)]
    store, cache = store_of(tmp_path, rows), tmp_path / "cache"
    paths = {panel_of(store, cache, series).path for series in (None, [0, 1, 2], [1], [0, 2])}
    assert len(paths) == 3
    assert {Path(entry.path) for entry in zstore.cache_entries(cache)} == paths
    damaged = panel_of(store, cache, [1]).path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x07")
    check(panel_of(store, cache, [1]), rows, ["s1"])


def test_series_off_the_grid_of_the_others_are_named(tmp_path: Path) -> None:
    rows = [["a", step * STEP, 1, 1] for step in range(9)] + [["b", step * STEP + 7, 1, 1] for step in range(9)]
    store = store_of(tmp_path, rows)
    with pytest.raises(UsageError, match="series b is off the others' time grid, at 7"):
        PanelGrid.of(store)
    assert PanelGrid.of(store, np.array([1])).n_steps == 9
