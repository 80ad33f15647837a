"""Names from files and stores are shown as what they are: text, which neither a terminal nor a browser obeys."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st

from zstore import ZstoreError, ingest, open_store
from zstore.cli import main
from zstore.look.report import to_html
from zstore.text import HarmlessFormatter, shown, shown_html, shown_json, shown_lines
from zstore.upkeep.doctor import examine

NASTY = "evil\x1b[31m\x9b2J\u202egnp\x07<script>alert(1)</script>"
ANY = st.text(st.characters(exclude_categories=[]), max_size=200)


@given(ANY)
def test_what_is_shown_is_printable_and_can_be_encoded(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(text).encode().decode() == shown(text)
    assert all(line.isprintable() for line in shown_lines(text).split("\n"))


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="\xa0"), max_size=100))
def test_a_printable_short_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == (text if text.isprintable() else shown(text))


def test_a_text_without_end_is_cut_with_a_count() -> None:
    assert shown("x" * 200_000) == "x" * 120 + "… (200,000 characters)"


@given(ANY)
def test_html_holds_no_markup_of_a_text(text: str) -> None:
    assert not set(shown_html(text)) & set("<>\"'")
    assert shown_html(text).isprintable()


@given(st.dictionaries(ANY, ANY, max_size=3))
def test_json_for_a_terminal_is_the_same_document(document: dict[str, str]) -> None:
    assert json.loads(shown_json(document)) == document
    assert all(line.isprintable() for line in shown_json(document).split("\n"))


def test_an_error_shows_names_harmlessly_and_keeps_them_as_they_are() -> None:
    error = ZstoreError(f"no channel {NASTY}", expected="x" * 10_000)
    assert str(error).isprintable()
    assert len(str(error)) < 5_000
    assert error.what == f"no channel {NASTY}"


def test_a_log_shows_names_harmlessly() -> None:
    record = logging.LogRecord("zstore", logging.WARNING, "", 0, "%s", (f"a {NASTY}\nb",), None)
    assert all(line.isprintable() for line in HarmlessFormatter().format(record).split("\n"))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose column, id, word, static attribute and file are called so that a terminal would obey."""
    folder = tmp_path_factory.mktemp("nasty")
    start, quoted = np.datetime64("2001-01-01"), NASTY.replace("/", "")
    rows = [[f"{NASTY}{n}", start + np.timedelta64(day, "D"), day, NASTY] for n in range(2) for day in range(60)]
    csv = write_table(folder / f"{quoted[:20]}.csv", ["site", "date", NASTY, "word"], rows)
    statics = write_table(folder / "statics.csv", ["site", f"static{NASTY}"], [[f"{NASTY}{n}", n] for n in range(2)])
    ingest(csv, folder / "s.zarr", id="site", time="date", static=statics)
    return folder / "s.zarr"


@pytest.mark.parametrize(
    "words",
    [["info"], ["info", "--json"], ["doctor"], ["doctor", "--json"], ["log"], ["log", "--json"], ["show"], ["verify"]],
    ids=" ".join,
)
def test_no_command_prints_what_a_terminal_obeys(
    words: list[str], nasty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command, *flags = words
    assert main([command, str(nasty), *([f"{NASTY}0"] if command == "show" else []), *flags]) == 0
    printed = capfd.readouterr()
    assert [line for line in (printed.out + printed.err).split("\n") if not line.isprintable()] == []


def test_an_error_of_a_command_prints_nothing_that_a_terminal_obeys(
    nasty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(nasty), NASTY]) == 1
    assert all(line.isprintable() for line in capfd.readouterr().err.split("\n"))


def test_pages_show_names_as_text(nasty: Path) -> None:
    store = open_store(nasty)
    for page in (store._repr_html_(), store.series(f"{NASTY}0")._repr_html_(), to_html(examine(store))):
        assert "<script" not in page
        assert [line for line in page.split("\n") if not line.isprintable()] == []


def test_a_header_of_200_kilobytes_is_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    csv = write_table(tmp_path / "a.csv", ["site", "date", "v" * 200_000], [["a", "2001-01-01", 1]])
    ingest(csv, tmp_path / "s.zarr", id="site", time="date")
    assert main(["info", str(tmp_path / "s.zarr")]) == 0
    assert len(capfd.readouterr().out) < 5_000
