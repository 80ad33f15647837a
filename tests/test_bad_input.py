"""Bad input gets one clear error, the right exit code, and leaves nothing behind."""

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import table, write_table

Run = Callable[..., subprocess.CompletedProcess[str]]

HEADER = ["site", "date", "level", "count"]
GOOD = [["a", "2001-01-01", "1.5", "1"], ["a", "2001-01-02", "2.5", "2"], ["b", "2001-01-01", "3", "3"]]


def refused(run: Run, tmp_path: Path, *arguments: str, code: int = 1) -> str:
    """Ingest must fail with one line of text, without traceback, and leave no store."""
    done = run("zstore.cli", "ingest", *arguments, tmp_path / "s.zarr", "--id", "site", "--time", "date")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "s.zarr").exists()
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("row", "what", "expected"),
    [
        (["a", "yesterday", "1", "1"], "unreadable time 'yesterday' in column 'date'", "ISO date"),
        (["a", "2001-02-30", "1", "1"], "unreadable time '2001-02-30' in column 'date'", "ISO date"),
        (["a", "", "1", "1"], "unreadable time '' in column 'date'", "ISO date"),
        (["a", "2001-01-05", "high", "1"], "text 'high' in number column 'level'", "a decimal number"),
        (["a", "2001-01-05", "1"], "short row: 3 fields", "expected 4"),
        (["a", "2001-01-05", "1", "1", "1"], "long row: 5 fields", "expected 4"),
        (["", "2001-01-05", "1", "1"], "empty id in column 'site'", "the id of the series"),
        (['a"b', "2001-01-05", "1", "1"], "a quote stands inside an unquoted field", "RFC 4180"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_value(
    run: Run, tmp_path: Path, row: list[str], what: str, expected: str
) -> None:
    path = write_table(tmp_path / "r.csv", HEADER, [*GOOD, row, *[["c", "2001-01-01", "1", "1"]]])
    text = refused(run, tmp_path, str(path))
    assert what in text
    assert expected in text
    assert f"{path} line 5" in text
    assert "Fix: --on-bad-row quarantine" in text


def test_a_duplicate_time_names_both_lines(run: Run, tmp_path: Path) -> None:
    path = write_table(tmp_path / "r.csv", HEADER, [*GOOD, ["a", "2001-01-02", "9", "9"]])
    text = refused(run, tmp_path, str(path))
    assert "duplicate time: id 'a' has 2001-01-02 twice; expected one row per (id, time)" in text
    assert f"{path} line 3 and {path} line 5" in text


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    assert "no such file (nowhere.csv)" in refused(run, tmp_path, "nowhere.csv")
    assert "no file matches 'no*.csv'" in refused(run, tmp_path, "no*.csv")


def test_an_empty_file_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.csv").touch()
    assert "empty file (r.csv)" in refused(run, tmp_path, "r.csv")


def test_a_truncated_gzip_file_is_named(run: Run, tmp_path: Path) -> None:
    content = gzip.compress(table(tmp_path / "r.csv").read_bytes())
    (tmp_path / "r.csv.gz").write_bytes(content[: len(content) // 2])
    assert "damaged file (r.csv.gz)" in refused(run, tmp_path, "r.csv.gz")


def test_a_column_that_does_not_exist_is_wrong_usage_and_the_others_are_listed(run: Run, tmp_path: Path) -> None:
    path = write_table(tmp_path / "r.csv", ["place", "date", "level"], [["a", "2001-01-01", "1"]])
    text = refused(run, tmp_path, str(path), code=2)
    assert "no column 'site'; expected one of 'place', 'date', 'level'" in text
    assert "--id" in text


def test_a_later_file_with_other_columns_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", HEADER, GOOD)
    write_table(tmp_path / "b.csv", ["site", "date", "level", "extra"], [["a", "2001-01-01", "1", "1"]])
    text = refused(run, tmp_path, "a.csv", "b.csv")
    assert "column 'count' is missing" in text
    assert "b.csv line 1" in text


def test_an_existing_store_is_kept_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    path = table(tmp_path / "r.csv")
    arguments = ("ingest", path, tmp_path / "s.zarr", "--id", "site", "--time", "date")
    run("zstore.cli", *arguments, check=True)
    before = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    again = run("zstore.cli", *arguments)
    assert again.returncode == 1
    assert "there is a store already" in again.stderr
    assert "--overwrite" in again.stderr
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == before
    assert run("zstore.cli", *arguments, "--overwrite").returncode == 0


def test_a_folder_that_is_no_store_is_never_touched(run: Run, tmp_path: Path) -> None:
    path = table(tmp_path / "r.csv")
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "thesis.txt").write_text("precious")
    done = run("zstore.cli", "ingest", path, tmp_path / "s.zarr", "--id", "site", "--time", "date", "--overwrite")
    assert done.returncode == 1
    assert "something that is no store is in the way" in done.stderr
    assert (tmp_path / "s.zarr" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ingest", "only.csv", "--time", "date"], "expected SRC [SRC …] STORE"),
        (
            ["ingest", "r.csv", "s.zarr"],
            "no time column, though 'date' looks like one; expected --time COL, or --freq STEP",
        ),
        (["ingest", "r.csv", "s.zarr", "--time", "date", "--memory-limit", "lots"], "size 'lots'"),
        (["ingest", "r.csv", "s.zarr", "--time", "date", "--id", "site", "--freq", "often"], "frequency 'often'"),
        (["fly"], "fly"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, tmp_path: Path, arguments: list[str], text: str) -> None:
    table(tmp_path / "r.csv")
    done = run("zstore.cli", *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("command", [["info"], ["show"], ["verify"]])
def test_reading_where_there_is_no_store_says_so(run: Run, command: list[str]) -> None:
    done = run("zstore.cli", *command, "nowhere.zarr", *(["x"] if command == ["show"] else []))
    assert done.returncode == 1
    assert "no store (nowhere.zarr)" in done.stderr
