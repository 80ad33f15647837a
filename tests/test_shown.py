"""How stores and series show themselves: numbers that are right, names that cannot do harm, little that is read."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import small_grid, write_table

from zstore import Store, ingest, open_store

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
    small_grid(monkeypatch)
    rows = [[f"s{n}", step, n + step] for n in range(40) for step in range(16)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    store, read = open_store(tmp_path / "s.zarr"), []
    stored = Store._stored
    monkeypatch.setattr(Store, "_stored", lambda *a: (read.append(a[2:]), stored(*a))[1])
    assert "24 of 40 series" in store._repr_html_()
    assert read == [(0, 16)]


def test_a_store_without_rows_or_with_irregular_times_shows_itself_too(tmp_path: Path) -> None:
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
