"""Files that a user asks for replace nothing but the file of their name, and nothing inside a store."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_table

from zstore import ingest, open_store, verify
from zstore.cli import main as zstore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in the current folder, with what it was made of beside it."""
    monkeypatch.chdir(tmp_path)
    rows = [[id_, t, t / 4] for id_ in "ab" for t in range(20)]
    ingest(write_table(tmp_path / "rows.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    return tmp_path / "s.zarr"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "export": lambda out: ["export", "s.zarr", f"{out}.csv", "--overwrite", "--quiet"],
    "doctor": lambda out: ["doctor", "s.zarr", "--html", f"{out}.html", "--quiet"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", ["s.zarr/out", "s.zarr/v/c/0", "inside/out", "nowhere/out", "folder"])
def test_no_file_is_written_into_a_store_or_where_there_is_no_folder(command: str, out: str, store: Path) -> None:
    os.symlink("s.zarr", "inside")
    for ending in ("csv", "html"):
        Path(f"folder.{ending}").mkdir()
    before = files(store.parent)
    assert zstore(COMMANDS[command](out)) == (1 if out.startswith("nowhere") else 2)
    assert files(store.parent) == before


@pytest.mark.parametrize("out", ["s.zarr/zarr.json", "rows.csv", "", ".", "s3://bucket/report.html"])
def test_a_report_takes_the_place_of_no_store_and_no_source(
    out: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(store.parent)
    assert zstore(["doctor", "s.zarr", "--html", out, "--quiet"]) == 2
    assert "zstore doctor: report to" in capsys.readouterr().err
    assert files(store.parent) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_is_replaced_and_what_it_leads_to_stays(command: str, store: Path) -> None:
    for ending in ("csv", "html"):
        Path(f"out.{ending}").symlink_to("s.zarr/zarr.json")
    before = files(store)
    assert zstore(COMMANDS[command]("out")) == 0
    assert files(store) == before
    assert verify(open_store(store)).faults == ()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_older_file_stays_whole_where_the_new_one_cannot_be_written(
    command: str, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("csv", "html"):
        Path(f"out.{ending}").write_text("old")
    before = files(store.parent)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zstore.upkeep.outfile.os.replace", refuse)
    assert zstore(COMMANDS[command]("out")) == 1
    assert "cannot write out." in capsys.readouterr().err
    assert files(store.parent) == before


def test_an_export_goes_to_this_machine(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zstore(["export", "s.zarr", "s3://bucket/out.csv", "--quiet"]) == 2
    assert "expected a file on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-3"])
def test_verify_needs_a_worker(workers: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zstore(["verify", "s.zarr", "--workers", workers]) == 2
    assert "expected one or more. Fix: correct --workers" in capsys.readouterr().err


def test_show_prints_nothing_where_a_time_cannot_be_read(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zstore(["show", "s.zarr", "a", "--start", "tomorrow"]) == 2
    assert capsys.readouterr().out == ""
