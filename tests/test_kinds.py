"""Which kind of source a name is of is asked in one place, so that a new kind is a module and a line."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from lightning_app.data import stores
from zstore import SourceError, inspect, is_source
from zstore.writing.sources import kinds
from zstore.writing.sources.typed.source import TypedSource

WRITES_FILES = {"zstore/upkeep/export.py", "zstore/writing/quarantine.py"}  # an ending there says what to write


class Runes(TypedSource):
    """A kind of source that no release has."""

    kind = "runes"
    endings = (".rune",)
    one = "file of runes"
    place = tuple


def texts_of(content: str) -> Iterator[str]:
    """The texts of a module, apart from docstrings and what names are put together of."""
    pending: list[ast.AST] = [ast.parse(content)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Constant):
            yield from [node.value] if isinstance(node.value, str) else []
        elif not isinstance(node, ast.JoinedStr):
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            pending.extend(() if docstring else ast.iter_child_nodes(node))


def asks_for(content: str) -> bool:
    """Whether a module asks how files of a source end: it has an ending as a text of its own, or in a pattern."""
    endings = {ending for source in kinds.SOURCES for ending in source.endings}
    bare = {ending.rpartition(".")[2] for ending in endings} - {source.kind for source in kinds.SOURCES}
    pattern = re.compile(rf"(?:\\\.|[(|])(?:{'|'.join(ending.lstrip('.') for ending in endings)})(?![A-Za-z0-9])")
    return any(
        text in endings or text in bare - {"gz", "zst", "zstd"} or (" " not in text and pattern.search(text))
        for text in texts_of(content)
    )


def test_how_files_of_a_source_end_is_said_in_its_module_alone() -> None:
    paths = [path for package in ("zstore", "lightning_app") for path in (REPOSITORY / package).rglob("*.py")]
    asking = {str(path.relative_to(REPOSITORY)) for path in paths if asks_for(path.read_text())} - WRITES_FILES
    assert asking == {
        str(Path(str(sys.modules[type(source).__module__].__file__)).relative_to(REPOSITORY))
        for source in kinds.SOURCES
        if source.endings
    }


@pytest.mark.parametrize(
    ("content", "asks"),
    [
        ('name.endswith(".h5")', True),
        ('path.suffix[1:] == "pq"', True),
        (r're.sub(r"\.(h5|hdf5|he5)$", "", name)', True),
        (r're.compile(r".*\.parquet")', True),
        ('kind == "parquet"', False),
        ('f"{name}.arrows"', False),
        ('fix="name it .parquet, or write it as CSV"', False),
        ('"""What ends in .h5, or is called\n.pq."""', False),
    ],
)
def test_a_module_that_asks_how_a_file_ends_is_told(content: str, asks: bool) -> None:
    assert asks_for(content) == asks


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.csv", "a"),
        ("folder/A.B.CSV.GZ", "A.B"),
        ("s3://bucket/k.parquet", "k"),
        ("run.HE5", "run"),
        ("a.dat.zst", "a"),
        ("a.dat", "a"),
        ("a", "a"),
    ],
)
def test_the_stem_of_a_name_lacks_the_ending_of_its_kind(name: str, stem: str) -> None:
    assert kinds.stem_of(name) == stem


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
