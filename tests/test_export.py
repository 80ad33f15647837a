"""What is written is whole or not there, keeps its columns apart, and takes no other file's place."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import CorruptionError, Store, StoreError, UsageError, cli, export, ingest, open_store
from zstore.reading.batches import Columns


def test_a_folder_of_parquet_has_each_series_in_one_file_and_all_rows_in_order(
    catchments: Store, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    n_rows = export(catchments, tmp_path / "out", rows_per_file=2500, progress=lambda *n: told.append(n), statics=True)
    files = sorted((tmp_path / "out").iterdir())
    assert (n_rows, told[-1]) == (catchments.n_rows, (n_rows, n_rows))
    assert [file.name for file in files] == [f"part-{number:05d}.parquet" for number in range(len(files))]
    ids = [set(pq.read_table(file)["gauge_id"].to_pylist()) for file in files]
    assert sum(map(len, ids)) == catchments.n_series == len(set().union(*ids))
    assert len(files) > 2
    expected = catchments.sel().to_arrow(statics=True).read_all()
    found = pl.scan_parquet(tmp_path / "out").collect()
    assert found.select("gauge_id", "flow_mm", "land").equals(
        pl.DataFrame(expected.select(["gauge_id", "flow_mm", "land"])), null_equal=True
    )
    id_ = str(catchments.ids[3])
    query = "SELECT count(*) FROM read_parquet(?) WHERE gauge_id = ?"
    counted = duckdb.connect().execute(query, [f"{tmp_path}/out/*.parquet", id_]).fetchall()
    assert counted == [(len(catchments[id_]),)]


@pytest.mark.parametrize("options", [{}, {"rows_per_file": 5000}])
def test_what_is_there_is_replaced_only_when_that_is_asked_for(
    catchments: Store, tmp_path: Path, options: dict[str, Any]
) -> None:
    target = tmp_path / ("out" if options else "out.parquet")
    export(catchments, target, **options)
    with pytest.raises(UsageError, match=r"is there already; expected a free name.*--overwrite"):
        export(catchments, target, **options)
    part = catchments.sel(catchments.ids[:1].tolist(), channels=["flow_mm"])
    export(part, target, **options, overwrite=True)
    assert pq.read_table(target).column_names == ["gauge_id", "time", "flow_mm"]
    assert pq.read_table(target).num_rows == part.n_rows
    assert os.listdir(tmp_path) == [target.name]


def test_a_folder_with_other_files_is_never_replaced(catchments: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("years")
    for target, options in (("out", {"rows_per_file": 9}), ("file", {"rows_per_file": 9}), ("out.csv", {})):
        if target == "out.csv":
            (tmp_path / target).mkdir()
        with pytest.raises(UsageError, match=r"--overwrite of .*; expected a f"):
            export(catchments, tmp_path / target, overwrite=True, **options)  # type: ignore[arg-type]
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"


@pytest.mark.parametrize("options", [{}, {"rows_per_file": 1000}])
def test_an_export_that_fails_leaves_nothing_and_what_was_there(
    catchments: Store, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / ("out" if options else "out.parquet")
    export(catchments, target, **options)
    before = pq.read_table(target)
    plain = Columns.batch

    def torn(columns: Columns, ranges: Any) -> Any:
        if ranges.series[-1] > 4:
            raise CorruptionError("object is missing")
        return plain(columns, ranges)

    monkeypatch.setattr(Columns, "batch", torn)
    with pytest.raises(CorruptionError):
        export(catchments, target, **options, overwrite=True)
    assert (os.listdir(tmp_path), pq.read_table(target).equals(before)) == ([target.name], True)


def test_a_file_that_comes_while_rows_are_written_stays(
    catchments: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"

    def other(done: int, total: int) -> None:
        target.write_text("from elsewhere")

    with pytest.raises(UsageError, match="is there already"):
        export(catchments, target, progress=other)
    assert (target.read_text(), os.listdir(tmp_path)) == ("from elsewhere", ["out.csv"])
    with pytest.raises(StoreError, match="cannot write"):
        export(catchments, tmp_path / "no" / "out.csv")


def test_the_command_writes_the_part_that_its_flags_name(catchments: Store, tmp_path: Path) -> None:
    target = str(tmp_path / "out.parquet")
    flags = ["--where", "land=forest", "--start", "2002-01-01", "--channels", "flow_mm", "--statics", "--quiet"]
    assert cli.main(["export", catchments.path, target, *flags]) == 0
    found = catchments.sel(where={"land": "forest"}, start="2002-01-01", channels=["flow_mm"])
    frame = pq.read_table(target).to_pandas()
    assert len(frame) == found.n_rows
    assert set(frame["land"]) == {"forest"}
    assert cli.main(["export", catchments.path, target, "--where", "slope=x", "--overwrite"]) == 2
    assert cli.main(["export", catchments.path, target]) == 2
    slope = float(catchments.static("slope").values[0])
    assert cli.main(["export", catchments.path, target, "--where", f"slope={slope}", "--overwrite", "--quiet"]) == 0
    assert set(pq.read_table(target)["gauge_id"].to_pylist()) >= {str(catchments.ids[0])}


def test_an_export_of_no_row_has_the_columns(catchments: Store, tmp_path: Path) -> None:
    nothing = open_store(catchments.path).sel([])
    for target, options in (("a.parquet", {}), ("b", {"rows_per_file": 10}), ("a.csv", {})):
        assert export(nothing, tmp_path / target, **options) == 0  # type: ignore[arg-type]
    assert pq.read_table(tmp_path / "b").schema == pq.read_table(tmp_path / "a.parquet").schema
    assert (tmp_path / "a.csv").read_text().count("\n") == 1


DAY = 86_400


@settings(max_examples=few(25))
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=6, unique=True),
    st.sampled_from([DAY, 3600, 900]),
    st.sampled_from(["", "Z", ".500", ".250Z"]),
)
def test_export_and_show_write_times_alike_and_what_is_exported_makes_the_same_store(
    numbers: list[int], step: int, ending: str
) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()) as printed:
        folder = Path(name)
        times = [np.datetime64(number * step, "s").item().isoformat() + ending for number in numbers]
        rows = write_table(folder / "a.csv", ["id", "t", "v"], [["a", time, n] for n, time in enumerate(times)])
        ingest(rows, folder / "a.zarr", id="id", time="t")
        assert cli.main(["export", str(folder / "a.zarr"), str(folder / "b.csv"), "--quiet"]) == 0
        ingest(folder / "b.csv", folder / "b.zarr", id="id", time="time")
        assert cli.main(["show", str(folder / "a.zarr"), "a"]) == 0
        exported = [line.split(",") for line in (folder / "b.csv").read_text().splitlines()]
        shown = [",".join(cells[1:]).replace('"', "") for cells in exported]
        assert shown == printed.getvalue().splitlines()
        first, second = (open_store(folder / f"{one}.zarr") for one in "ab")
        assert second.times(0, second.n_rows).tolist() == first.times(0, first.n_rows).tolist()
        assert second.time == first.time


def test_times_of_a_store_are_all_dates_or_none(tmp_path: Path) -> None:
    for days, expected in (
        (["2001-01-01", "2001-01-03", "2001-01-09"], True),
        (["2001-01-01", "2001-01-02 12:00"], False),
    ):
        path = write_table(tmp_path / "a.csv", ["t", "v"], [[day, 1] for day in days])
        ingest(path, tmp_path / "a.zarr", time="t", overwrite=(tmp_path / "a.zarr").exists())
        export(open_store(tmp_path / "a.zarr"), tmp_path / "b.csv", overwrite=True)
        times = [line.split(",")[1] for line in (tmp_path / "b.csv").read_text().splitlines()[1:]]
        assert [len(time) == 10 for time in times] == [expected] * len(days)
