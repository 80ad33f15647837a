"""Which kind of source a name is of is asked in one place, so that a new kind is a module and a line."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

from lightning_app.data import stores
from zstore import SourceError, inspect, is_source
from zstore.writing.sources import kinds
from zstore.writing.sources.typed.source import TypedSource

WRITES_FILES = {"zstore/upkeep/export.py"}  # an ending there says what to write


class Runes(TypedSource):
    """A kind of source that no release has."""

    kind = "runes"
    endings = (".rune",)
    one = "file of runes"
    place = tuple


def test_how_files_of_a_source_end_is_said_in_its_module_alone() -> None:
    saying = {
        (ending, str(path.relative_to(REPOSITORY)))
        for source in kinds.SOURCES
        for ending in source.endings
        for package in ("zstore", "lightning_app")
        for path in (REPOSITORY / package).rglob("*.py")
        if f'"{ending}"' in path.read_text()
    }
    by_file = {file for ending, file in saying if ending not in (".csv", ".txt", ".tsv")} - WRITES_FILES
    assert len(by_file) == len([source for source in kinds.SOURCES if source.typed and source.endings])


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.tsv.gz", "b/*.csv.zst", "s3://b/k.parquet", "a.feather"])
def test_names_that_end_as_sources_do_are_sources(name: str) -> None:
    assert is_source(name)


@pytest.mark.parametrize("name", ["a", "a.zarr", "s3://b/store", "csv", "a.csv/", "a.gz"])
def test_other_names_are_those_of_stores(name: str) -> None:
    assert not is_source(name)


def test_a_kind_in_the_list_is_known_wherever_kinds_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "SOURCES", (*kinds.SOURCES, Runes()))
    (tmp_path / "a.rune").write_bytes(b"x")
    assert is_source(tmp_path / "a.rune")
    with pytest.raises(SourceError, match=r"\.rune file; expected a file of text"):
        inspect(tmp_path / "a.rune")


def test_the_data_module_takes_every_kind_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "SOURCES", (*kinds.SOURCES, Runes()))
    stores.require_openable("a.rune", {"id": "site"}, None)
