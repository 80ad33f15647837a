"""What is typed wrongly: one line that says what was meant, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_table

from zstore.cli import COMMANDS, main

MISTAKES = [
    ("ingest a.csv b.zarr --on-bad-row eror", "--on-bad-row 'eror'; expected error"),
    ("ingest a.csv b.zarr --tim t", "option --tim; expected one of --time, --time-format"),
    ("ingest a.csv b.zarr --workers x", "workers x; expected a whole number"),
    ("ingestt a.csv", "command 'ingestt'; expected ingest"),
    ("show", "no store, no id"),
    ("view s.zarr --port abc", "port abc; expected a whole number"),
    ("cache foo", "action foo; expected list, clear or verify"),
    ("info s.zarr --jsn", "option --jsn, which does not exist; expected --json"),
]


@pytest.mark.parametrize(("line", "told"), MISTAKES)
def test_a_mistake_is_one_line_that_says_what_was_meant(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    (only,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert told in only
    assert "Fix: " in only


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "ingest" in capsys.readouterr().out


def test_flags_may_stand_between_sources_and_the_store(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.csv", ("site", "day", "x"), [("a", "2020-01-01", 1), ("b", "2020-01-01", -2)])
    store = tmp_path / "s.zarr"
    words = ["ingest", "--quiet", str(table), "--id=site", str(store), "--time", "day", "--missing", "-2"]
    assert main(words) == 0
    assert main(["show", "--stop", "2020-02-01", str(store), "--debug", "b"]) == 0


def test_words_stay_in_their_order_where_a_flag_is_not_known() -> None:
    parser = COMMANDS["show"].parser()
    assert parser.in_front(["--x", "s.zarr", "a"]) == ["--x", "s.zarr", "a"]
    assert parser.in_front(["s.zarr", "--stop", "5", "a"]) == ["s.zarr", "a", "--stop", "5"]
    assert parser.in_front(["--stop"]) == ["--stop"]
