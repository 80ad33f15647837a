"""How the commands end where there is nothing to do, or nobody to tell."""

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_app.cli
import zstore.cli


def test_the_zstore_command_alone_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert zstore.cli.main([]) == 2
    assert "ingest" in capsys.readouterr().out


def test_the_training_command_alone_says_what_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning_app"])
    assert lightning_app.cli.main([]) == 2
    assert "Usage: python -m lightning_app" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="closes standard output as a Unix shell does")
def test_a_look_with_closed_output_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,x\n2001-01-01,1\n2001-01-02,2\n")
    command = f"'{sys.executable}' -m zstore.cli inspect '{tmp_path / 'a.csv'}' >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_training_command_knows_its_version_and_all_of_its_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning_app"])
    shown = {}
    for flag in ("--version", "--help"):
        assert lightning_app.cli.main([flag]) == 0
        shown[flag] = " ".join(capsys.readouterr().out.split())
    assert zstore.__version__ in shown["--version"]
    assert [
        word for word in ("fit", "validate", "test", "predict", "splits", "table") if word not in shown["--help"]
    ] == []


def test_a_table_in_the_place_of_a_store_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("t,v\n0,1\n")
    for words in (["info"], ["show", "--", "0"], ["log"], ["verify"]):
        assert zstore.cli.main([words[0], str(tmp_path / "a.csv"), *words[2:]]) == 1
        assert f"look at it with: zstore inspect {tmp_path / 'a.csv'}" in capsys.readouterr().err
