"""Storage options may hold secrets: they are on no command line, in no run folder and in no message."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from edges import made
from lightning_fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

import zstore
from lightning_app.arguments import take_arguments
from lightning_app.table import runs_of
from zstore.cli import main as zstore_main

App = Callable[..., subprocess.CompletedProcess[str]]


SECRET = "SEKRIT7"  # noqa: S105  # it is none


def command_line_of_child(monkeypatch: pytest.MonkeyPatch, module: str) -> list[str]:
    """Let `subprocess.run` of a module start its process, note what everybody may read of it, and end it."""
    seen: list[str] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given = {name: options[name] for name in ("env",) if name in options}
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **given
        )
        while "lightning_app" not in (line := Path(f"/proc/{child.pid}/cmdline").read_text()):
            time.sleep(0.01)  # it is not there at once
        seen.append(line)
        child.kill()
        child.communicate()
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(f"{module}.subprocess.run", run)
    return seen


linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the command lines of others are in /proc")


@linux
def test_no_child_of_plan_and_bench_has_storage_options_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path)
    seen = command_line_of_child(monkeypatch, "zstore.commands.training")
    options = ["--storage-options", f"region=here,secret_access_key={SECRET}"]
    zstore_main(["bench", str(path), *options])
    zstore_main(["plan", str(path), "--config", "none.yaml", *options])
    assert ["lightning_app.tuning" in line for line in seen] == [True, True]
    assert [SECRET in line for line in seen] == [False, False]


@linux
@pytest.mark.parametrize("form", ["mapping", "one", "whole"])
def test_no_run_of_a_table_has_storage_options_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    seen = command_line_of_child(monkeypatch, "lightning_app.table")
    (tmp_path / "c.yaml").write_text("model: {class_path: Repeat}\n")
    words = {
        "mapping": ["--data.storage_options", json.dumps({"secret_access_key": SECRET})],
        "one": [f"--data.storage_options.secret_access_key={SECRET}"],
        "whole": ["--data", json.dumps({"storage_options": {"secret_access_key": SECRET}})],
    }[form]
    run = runs_of(tmp_path / "c.yaml", None, [0], tmp_path, tuple(words))[0]
    with pytest.raises(zstore.UsageError, match="test of c failed"):
        run.result()
    assert [SECRET in line for line in seen] == [False]
    other = runs_of(tmp_path / "c.yaml", None, [0], tmp_path, tuple(word.replace(SECRET, "new") for word in words))[0]
    assert run.digest == other.digest  # the same run after a key was changed


def test_processes_that_lightning_starts_get_storage_options_without_a_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["fit", "--config", "c.yaml", "--data.storage_options", json.dumps({"secret_access_key": SECRET})]
    monkeypatch.setenv("LIGHTNING_APP_ARGUMENTS", "")
    monkeypatch.setattr(sys, "argv", ["lightning_app", *words])
    assert take_arguments() == words
    assert SECRET not in " ".join(_basic_subprocess_cmd())  # Lightning's, made of sys.argv
    assert take_arguments() == words  # as the other process does, which has the same environment
    monkeypatch.setattr(sys, "argv", ["lightning_app", "fit", "--config", "c.yaml"])
    assert (take_arguments(), sys.argv[1:]) == (words[:3], words[:3])


@pytest.mark.filterwarnings("default")  # of Lightning and jsonargparse, as in the tests of the command
def test_a_run_folder_and_what_is_printed_hold_no_secret(app: App, tmp_path: Path) -> None:
    path = made(tmp_path)
    known = {"region": "here", "secret_access_key": SECRET, "access_key_id": SECRET}
    words = [
        "--data.store",
        path,
        "--data.storage_options",
        json.dumps(known),
        "--data.lookback",
        4,
        "--data.horizon",
        2,
    ]
    words += ["--model", "NLinear", "--trainer.max_steps", 1, "--trainer.default_root_dir", tmp_path / "run"]
    words += ["--data.split.sizes", "[0.5, 0.2, 0.3]", "--early_stopping.monitor", "val/mse"]
    done = app("fit", *words, check=True)
    config = yaml.safe_load(next((tmp_path / "run").rglob("config.yaml")).read_text())
    assert config["data"]["storage_options"] == {"region": "here"}
    said = [done.stdout, done.stderr, *(path.read_text("latin-1") for path in (tmp_path / "run").rglob("*.*"))]
    for wrong in ('{"secret_access_key": "SEKRIT7", "region": [1]}', "secret_access_key=SEKRIT7"):
        for command in (["fit"], ["splits", "--config", next((tmp_path / "run").rglob("config.yaml"))]):
            done = app(*command, "--data.store", path, "--data.storage_options", wrong)
            assert done.returncode != 0
            assert "not shown, for they may hold secrets" in done.stdout + done.stderr
            said += [done.stdout, done.stderr]
    assert [text for text in said if SECRET in text] == []


@pytest.mark.parametrize("given", [f"key=a,{SECRET}", SECRET, json.dumps({"k": [SECRET]}), json.dumps([SECRET])])
def test_storage_options_that_cannot_be_meant_are_refused_without_being_shown(
    tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zstore_main(["info", str(tmp_path), "--storage-options", given]) == 2
    printed = capsys.readouterr()
    assert "--storage-options (not shown, for they may hold secrets); expected KEY=VALUE" in printed.err
    assert SECRET not in printed.out + printed.err
