"""Templates, pictures and the layer that draws: text stays text, whatever it holds, and numbers stay finite."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, write_table
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.audit import audit
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.look.forecasts import scores_map
from zstore import ingest, look, open_store, shown
from zstore.look.presence import observed_share
from zstore.look.report import to_html
from zstore.look.svg import Bar, line, sample_evenly, timeline
from zstore.upkeep.doctor import examine

ANY = st.text(st.characters(exclude_categories=[]), max_size=80)
MATHS = "$x_{$ \x1b[31m"  # no formula of matplotlib, and an order to a terminal


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<body>{markup}</body>")  # noqa: S314  # ours


@given(ANY, ANY)
def test_a_template_takes_every_text_as_text(title: str, text: str) -> None:
    (element,) = parsed(look.fill("<p title='$title'>$text</p>", title=title, text=text))
    assert list(element) == []
    assert (shown(title, None), shown(text, None)) == (element.get("title"), element.text or "")


@given(st.lists(ANY, max_size=5))
def test_markup_in_a_template_is_escaped_once_only(names: list[str]) -> None:
    items = [look.fill("<li>$name</li>", name=name) for name in names]
    page = parsed(look.fill("<ul>$items</ul>", items=items))
    assert [shown(name, None) for name in names] == [item.text or "" for item in page.iter("li")]


def test_markup_that_was_joined_to_text_is_text_again() -> None:
    assert look.fill("$it", it=look.Html("<b>x</b>") + "!") == "&lt;b&gt;x&lt;/b&gt;!"


def test_none_is_nothing_and_a_name_without_a_value_is_an_error() -> None:
    assert look.fill("<p>$nothing$empty</p>", nothing=None, empty=[]) == "<p></p>"
    with pytest.raises(KeyError):
        look.fill("<p>$name</p>")


@given(ANY)
def test_a_page_a_card_and_a_table_hold_any_name_as_text(name: str) -> None:
    table = look.table([[name, look.Cell(name, "color:red", columns=2)]], "lrr", [name, "n"])
    markup = look.page(name, look.card(table, name)).removeprefix("<!doctype html>")
    page = ElementTree.fromstring(re.sub(r"<(meta[^>]*)>", r"<\1/>", markup))  # noqa: S314  # ours
    cells = [cell.text or "" for row in page.iter("tr") for cell in row]
    assert [shown(name, None), "n", shown(name, None), shown(name, None)] == cells


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300), st.integers(1, 600))
def test_a_line_of_any_numbers_stays_in_its_picture(values: list[float], width: int) -> None:
    drawn = line(np.array(values), width, 26, "any")
    for path in parsed(drawn).iter("path"):
        steps = re.findall(r"M([^,]+),([^V]+)V([^M]+)", str(path.get("d")))
        assert steps
        assert all(0 <= float(x) <= width and 0 <= float(a) <= 26 and 0 <= float(b) <= 26 for x, a, b in steps)
    assert np.isfinite(values).any() == ("<path" in drawn)


def test_bars_of_a_timeline_are_to_scale() -> None:
    drawn = parsed(timeline([Bar(0, 100, 150), Bar(1, 150, 200)], 2, (100, 200), ("a", "b", "c"), "bars"))
    places = [tuple(float(rect.get(name, 0)) for name in ("x", "y", "width")) for rect in drawn.iter("rect")]
    assert places == [(0, 0, 260), (260, 7, 260)]
    assert [span.text for span in drawn.iter("span")] == ["a", "b", "c"]


@given(st.integers(0, 2000), st.integers(1, 100))
def test_numbers_that_are_sampled_evenly_are_the_most_that_may_be(count: int, most: int) -> None:
    sample = sample_evenly(count, most)
    assert min(count, most) == len(sample)
    assert sorted(set(sample.tolist())) == sample.tolist()
    assert not len(sample) or 0 <= sample[0] <= sample[-1] < count


def test_markup_and_colours_are_written_in_the_layer_that_draws_alone() -> None:
    for package in ("zstore", "lightning_app"):
        for path in (REPOSITORY / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.parent.name != "look":
                assert not re.search(r"</?(svg|div|span|td|table|rect|path)\b", text), path
            if path.parent.name != "look" or path.name != "style.py":
                assert not re.search(r"[\"':]#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?\b", text), path


def test_a_report_of_nanoseconds_over_many_years_places_every_row(tmp_path: Path) -> None:
    days = np.arange("2000-01-01", "2024-01-01", 30, dtype="datetime64[D]")
    rows = [["a", f"{day}T00:00:00.000000001", number] for number, day in enumerate(days)]
    ingest(write_table(tmp_path / "r.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert store.time.unit == "ns"
    page = str(to_html(examine(store)))
    drawn = next(svg for svg in re.findall(r"<svg.*?</svg>", page) if "values over time" in svg)
    cells = [rect for rect in parsed(drawn).iter("rect") if rect.get("fill") == look.style.BLUE]
    assert sum(float(rect.get("width", 0)) for rect in cells) == 720


@pytest.fixture(scope="module")
def odd_names(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store whose names are what matplotlib and terminals obey."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [[f"{MATHS}{n}", step, step % 7 + n] for n in range(3) for step in range(60)]
    table = write_table(folder / "r.csv", ["id", "t", MATHS], rows)
    ingest(table, folder / "s.zarr", id="id", time="t")
    return str(folder / "s.zarr")


def test_names_that_look_like_formulas_are_drawn_as_they_are(odd_names: str, tmp_path: Path) -> None:
    store = open_store(odd_names)
    axes = store.plot(str(store.ids[0]))
    axes[0].figure.savefig(tmp_path / "series.png")
    data = WindowDataModule(odd_names, 5, 2, cache=str(tmp_path / "cache"))
    audit(data).plot().figure.savefig(tmp_path / "audit.png")
    scores_map(torch.tensor([[0.5], [0.2]]), np.array([[50.0, 8.0], [51.0, 9.0]]), [MATHS]).savefig(
        tmp_path / "map.png"
    )
    assert axes[0].get_ylabel() == shown(MATHS)


def test_a_data_module_says_names_that_no_terminal_obeys(odd_names: str, tmp_path: Path) -> None:
    data = WindowDataModule(odd_names, 5, 2, cache=str(tmp_path))
    assert repr(data).isprintable()
    assert shown(MATHS) in repr(data)


@pytest.mark.parametrize("values", [(-1.7e308, 0, 1.7e308), (0, 5e-324, 1e-323), ("inf", 1, "-inf"), (3, 3, 3)])
def test_a_report_of_numbers_at_the_ends_of_float64_has_finite_pictures(
    values: tuple[object, ...], tmp_path: Path
) -> None:
    rows = [["a", step, values[step % 3]] for step in range(150)]
    table = write_table(tmp_path / "r.csv", ["id", "t", "v"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", dtype="float64")
    page = str(to_html(examine(open_store(tmp_path / "s.zarr"))))
    histogram = next(svg for svg in re.findall(r"<svg.*?</svg>", page) if "distribution of v" in svg)
    assert "<rect" in histogram
    assert not re.search(r"[' ,V](nan|-?inf)", "".join(re.findall(r"<svg.*?</svg>", page)))


@pytest.mark.parametrize(
    ("freq", "n_steps", "n_times"), [("D", 365, 120), ("D", 31, 120), ("MS", 61, 20), ("h", 1000, 7)]
)
def test_a_series_without_a_gap_is_as_full_in_each_stretch_of_time(
    freq: str, n_steps: int, n_times: int, tmp_path: Path
) -> None:
    """Stretches that a step more fits in are not fuller; of those that no step fits in, none is empty."""
    times = pd.date_range("2023-01-01", periods=n_steps, freq=freq)
    known = np.arange(n_steps) < 0.8 * n_steps
    frame = pd.DataFrame({"t": times, "x": np.arange(n_steps) % 7 + 0.5, "y": np.where(known, 1.5, np.nan)})
    ingest(frame, tmp_path / "a.zarr", time="t")
    store = open_store(tmp_path / "a.zarr")
    span = int(store.index.time_start[0]), int(store.index.time_stop[0]) + 1
    assert set(observed_share(store, 0, span, n_times, ["x"]).tolist()) == {1.0}
    both = observed_share(store, 0, span, n_times, ["x", "y"])
    assert both[0] == 1.0
    assert both[-1] < 1.0
