"""How the commands end where there is nothing to do, or nobody to tell."""

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_app.cli
import zstore.cli


def test_the_zstore_command_alone_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        zstore.cli.main([])
    assert ended.value.code == 2
    assert "zstore" in capsys.readouterr().err


def test_the_training_command_alone_says_what_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning_app"])
    with pytest.raises(SystemExit) as ended:
        lightning_app.cli.main([])
    assert ended.value.code == 2
    assert "usage: python -m lightning_app" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="closes standard output as a Unix shell does")
def test_a_look_with_closed_output_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,x\n2001-01-01,1\n2001-01-02,2\n")
    command = f"'{sys.executable}' -m zstore.cli inspect '{tmp_path / 'a.csv'}' >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
