"""How stores, series, windows and data modules show themselves: right numbers, harmless names, little that is read."""

import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import SMALL_GRID, write_table
from nbclient import NotebookClient

from lightning_app.audit import audit
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import NAMES, Split
from lightning_app.look.audit import audit_rows
from lightning_app.look.style import SPLITS
from zstore import Store, append, ingest, open_store

HOSTILE = '<script>alert("x")</script>'


def parsed(html: str) -> ElementTree.Element:
    """The HTML, which is well-formed XML too."""
    return ElementTree.fromstring(f"<body>{html}</body>")  # noqa: S314  # ours


def test_a_store_shows_its_size_channels_and_rows(catchments: Store) -> None:
    html = catchments._repr_html_()
    page = parsed(html)
    assert f"{catchments.n_rows:,} rows of 8 series" in html
    rows = {row[0].text: [cell.text for cell in row[1:6]] for row in page.iter("tr") if row[0].tag == "td"}
    assert set(rows) == set(catchments.channels)
    flow = catchments.read("flow_mm", 0, catchments.n_rows).astype(np.float64)
    share, mean, _, low, high = rows["flow_mm"]
    assert share == f"{np.isnan(flow).mean():.1%}"
    assert [float(str(each)) for each in (mean, low, high)] == pytest.approx(
        [np.nanmean(flow), np.nanmin(flow), np.nanmax(flow)], rel=1e-3
    )
    maps = [svg for svg in page.iter("svg") if svg.get("aria-label") == "when series have rows"]
    assert len(list(maps[0].iter("rect"))) == len(catchments.index.runs.start)


def test_names_from_the_data_are_text_and_nothing_else(tmp_path: Path) -> None:
    rows = [[f'"{HOSTILE.replace(chr(34), chr(34) * 2)}"', n, n % 3, f'"{HOSTILE[:8]}{n % 2}"'] for n in range(5)]
    heads = ["id", "t", '"a&<b>"', "word"]
    places = write_table(tmp_path / "s.csv", ["id", '"<i>"'], [[rows[0][0], '"<b>"']])
    ingest(write_table(tmp_path / "r.csv", heads, rows), tmp_path / f"{'<u>'}.zarr", id="id", time="t", static=places)
    store = open_store(tmp_path / "<u>.zarr")
    series = store.series(HOSTILE)
    for html in (store._repr_html_(), series._repr_html_()):
        page = parsed(html)
        assert not {"script", "i", "u"} & {element.tag for element in page.iter()}
        assert HOSTILE in "".join(page.itertext())
        assert "a&<b>" in "".join(page.itertext())


def test_showing_a_store_decodes_one_series_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[f"s{n}", step, n + step] for n in range(40) for step in range(16)]
    source = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(source, tmp_path / "s.zarr", id="id", time="t", **SMALL_GRID)
    store = open_store(tmp_path / "s.zarr")
    read: list[Any] = []
    stored = Store._stored
    monkeypatch.setattr(Store, "_stored", lambda *a: read.append(a[2:]) or stored(*a))
    assert "24 of 40 series" in store._repr_html_()
    assert read == [(0, 16)]


def test_a_store_without_rows_or_with_irregular_times_shows_itself_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:  # releases made stores without rows
        earlier.setattr("zstore.writing.anew.refuse_empty", lambda *arguments: None)
        ingest(write_table(tmp_path / "0.csv", ["id", "t", "v"], []), tmp_path / "0.zarr", id="id", time="t")
    assert "0 rows of 0 series" in open_store(tmp_path / "0.zarr")._repr_html_()
    rows = [["a", step**2, "" if step < 9 else step] for step in range(10)]
    ingest(write_table(tmp_path / "i.csv", ["id", "t", "v"], rows), tmp_path / "i.zarr", id="id", time="t")
    store = open_store(tmp_path / "i.zarr")
    parsed(store._repr_html_())
    assert "90.0%" in store._repr_html_()
    assert "<path" in store.series("a")._repr_html_()


def test_a_series_is_a_frame_or_a_dataset_in_one_call(catchments: Store) -> None:
    series = catchments.series(str(catchments.ids[3]))
    frame, dataset = series.to_pandas("2002-01-01", "2002-03-01"), series.to_xarray("2002-01-01", "2002-03-01")
    pd.testing.assert_frame_equal(
        dataset[list(catchments.channels)].to_pandas()[frame.columns], frame, check_freq=False
    )
    assert str(dataset["id"].values) == series.id
    name, value = next(iter(series.statics.items()))
    assert float(dataset[name]) == value


def test_a_series_is_drawn_a_channel_below_the_other(catchments: Store, tmp_path: Path) -> None:
    id_ = str(catchments.ids[0])
    axes = catchments.plot(id_, ["flow_mm", "rain_mm"], stop="2002-01-01")
    assert [each.get_ylabel().split("\n")[0] for each in axes] == ["flow_mm", "rain_mm"]
    drawn = axes[0].lines[0].get_ydata()
    np.testing.assert_array_equal(drawn, catchments.series(id_).read("flow_mm", stop="2002-01-01"))
    axes[0].figure.savefig(tmp_path / "series.png")


def test_a_store_shows_where_rows_lie_and_what_is_out_of_use(tmp_path: Path) -> None:
    rows = [[f"s{n}", 10 + step, n + step] for n in range(4) for step in range(16)]
    source = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(source, tmp_path / "s.zarr", id="id", time="t", **SMALL_GRID)
    fresh = open_store(tmp_path / "s.zarr")._repr_html_()
    assert "64 places in 4 shards, rows in 1 stretch<" in fresh
    late = write_table(tmp_path / "late.csv", ["id", "t", "v"], [["s1", 9, 0]])
    append(late, tmp_path / "s.zarr")
    page = parsed(open_store(tmp_path / "s.zarr")._repr_html_())
    drawn = next(svg for svg in page.iter("svg") if svg.get("aria-label") == "where rows lie in the arrays")
    bars = [(float(rect.get("x", 0)), float(rect.get("width", 0))) for rect in drawn.iter("rect")][1:]
    scale = 520 / 81  # 64 places of before, 17 of the series that was written anew
    expected = [(0, 16), (32, 32), (64, 17)]
    np.testing.assert_allclose(bars, [(start * scale, size * scale) for start, size in expected], atol=0.1)
    assert f"{1 - 65 / 81:.1%} out of use" in "".join(page.itertext())


def test_windows_show_how_many_there_are_and_one_of_them(catchments: Store) -> None:
    windows = catchments.windows(lookback=30, horizon=5, delay=-2, stride=3, targets=["flow_mm"])
    index = windows.index
    n_pieces, n_series = len(index.ends), len(np.unique(index.series))
    shape = "30 + 5 rows, delay -2, 3 rows apart"
    assert (
        repr(index)
        == f"<WindowIndex: {len(index):,} windows of {shape}, in {n_pieces:,} stretches of {n_series} series>"
    )
    n_channels = len(catchments.channels)
    assert repr(windows) == f"<Windows: {len(index):,} of {shape}, x (30, {n_channels}), y (5, 1)>"
    page = parsed(windows._repr_html_())
    assert f"{len(index):,} windows of {shape}" in "".join(page.itertext())
    assert f"they read {index.n_rows():,} rows" in "".join(page.itertext())
    inputs, targets = page.iter("rect")
    per_row = float(inputs.get("width", 0)) / 30
    assert float(targets.get("width", 0)) == pytest.approx(5 * per_row, abs=0.1)
    assert float(targets.get("x", 0)) == pytest.approx(28 * per_row, abs=0.1)


def test_a_data_module_shows_its_splits_without_decoding_anything(
    catchments: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = WindowDataModule(str(catchments.path), 30, 5, targets=["flow_mm"], cache=str(tmp_path))
    monkeypatch.setattr(Store, "_stored", lambda *_: pytest.fail("rows were read"))
    counts = {name: len(data.index(name, all_windows=True)) for name in NAMES}
    page = parsed(data._repr_html_())
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in page.iter("tr") if row[0].tag == "td"}
    assert {name: cells[0] for name, cells in rows.items()} == {name: f"{n:,}" for name, n in counts.items()}
    drawn = [svg for svg in page.iter("svg") if svg.get("aria-label") == "when which split has targets"]
    assert {rect.get("fill") for rect in drawn[0].iter("rect")} == set(SPLITS.values())
    assert str(data) == repr(data)
    assert all(f"{name} {n:,}" in repr(data) for name, n in counts.items())


def test_a_split_without_windows_is_shown_as_such(catchments: Store, tmp_path: Path) -> None:
    split = Split(sizes=(0.8, 0.0, 0.2))
    data = WindowDataModule(str(catchments.path), 30, 5, targets=["flow_mm"], split=split, cache=str(tmp_path))
    assert "val 0" in repr(data)
    found = audit(data)
    page = parsed(found._repr_html_())
    assert "no window in val" in "".join(page.itertext())
    cells = [[cell.text for cell in row] for row in page.iter("tr")]
    assert cells[1:] == audit_rows(found)[1:]


def test_progress_is_shown_in_a_notebook_and_not_in_a_pipe(tmp_path: Path) -> None:
    write_table(tmp_path / "r.csv", ["id", "t", "v"], [["a", step, step] for step in range(9)])
    code = (
        "import zstore\nwith zstore.shown_progress() as progress:\n"
        "    zstore.ingest('r.csv', 's.zarr', id='id', time='t', progress=progress)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's start-up, on this side
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = str(notebook.metadata["widgets"])
    assert re.search(r"write .{0,200}9 rows of 9 rows", shown)
    piped = [sys.executable, "-c", code.replace("s.zarr", "t.zarr")]
    done = subprocess.run(piped, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
