"""The front door of lightning_app: help, the version, commands and options that do not exist, values that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

import lightning_app.models
from lightning_app import front
from lightning_app.app_cli import AppCLI
from lightning_app.arguments import Parser
from lightning_app.cli import main
from lightning_app.data.windows.splits import Split
from lightning_app.demo import whole
from lightning_app.front import OTHERS

COMMANDS = list(front.SHORT)


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command, and what it prints to both streams."""
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out + err


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """By command, all flags that its parser knows."""

    class Parsers(AppCLI):
        def parse_arguments(self, *_: Any) -> None:
            raise StopIteration(self)

    with pytest.raises(StopIteration) as made:
        Parsers(["any"], None)
    parsers = made.value.args[0]._subcommand_parsers
    return {name: set(parser._option_string_actions) for name, parser in parsers.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_on_a_screen_and_names_flags_that_exist(
    command: str, flags: dict[str, set[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said([command, "--help"], capsys)
    lines = text.splitlines()
    assert code == 0
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert f"{front.PROGRAM} {command} --help-all" in lines[-1]
    own = flags["fit" if command == "run" else command]
    named = {flag.partition(" ")[0] for flag in front.SHORT[command].flags}
    named |= {word for example in front.SHORT[command].examples for word in example.split() if word[:2] == "--"}
    assert named <= own | {"--model"}


def test_the_help_of_a_fit_names_every_model_that_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(["fit", "--help"], capsys)[1]
    models = text[text.index("Models:") : text.index("Examples:")].replace(",", " ").replace(";", " ").split()
    assert set(lightning_app.models.__all__) - {"TaskModel"} <= set(models)


def test_help_all_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(["test", "--help-all"], capsys)
    assert code == 0
    assert "--data.pad_before" in text
    assert len(text.splitlines()) > 300


def test_every_command_is_listed_with_a_line_in_a_screen_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(["--help"], capsys)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")] == front.COMMANDS


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--version"], 0, "lightning_app"),
        ([], 2, "Usage"),
        (["ftt"], 2, "expected fit"),
        (["zzz"], 2, "expected one of run, fit"),
        (["fit", "--help"], 0, "--data.lookback"),
    ],
)
def test_what_needs_no_torch_imports_none(words: list[str], code: int, told: str) -> None:
    script = "import sys; from lightning_app.__main__ import main as m; c = m(); sys.exit('torch' in sys.modules or c)"
    made = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=REPOSITORY)
    assert (made.returncode, told in made.stdout + made.stderr) == (code, True)


def test_libraries_that_are_missing_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front, "_LIBRARIES", ("torch", "no_such_library"))
    code, text = said(["fit", "--config", "x.yaml"], capsys)
    assert code == 1
    assert "fit needs no_such_library" in text
    assert "pip install 'zstore[train]'" in text
    assert said(["fit", "--help"], capsys)[0] == 0


MISTAKES: list[tuple[dict[str, Any] | list[str], str, str]] = [
    ({"data": {"lookbck": 3}}, "option data.lookbck, which does not exist", "--data.lookback"),
    ({"trainer": {"max_epoch": 3}}, "option trainer.max_epoch", "--trainer.max_epochs"),
    ({"data": {"lookback": "a"}}, "data.lookback a", "a whole number"),
    ({"data": {"scaler": "standrd"}}, "data.scaler standrd", "--data.scaler standard"),
    ({"data": {"residency": "gpu"}}, "data.residency gpu", "auto, device, host or stream"),
    ({"data": {"targets": "flow"}}, "data.targets flow", "a list, such as A,B"),
    ({"data": {"split": {"by": "tme"}}}, "data.split.by tme", "--data.split.by time"),
    ({"data": {"horizon": 2}}, "fit without --data.store, --data.lookback", "--config FILE"),
    (["--data.lookbck", "3"], "option --data.lookbck, which does not exist", "--data.lookback"),
    (["--trainer.max_epochs", "x"], "trainer.max_epochs x", "a whole number"),
    (["--data.observed_inputs", "maybe"], "data.observed_inputs maybe", "true or false"),
    (["--model", "NLiner"], "model NLiner", "NLinear"),
    (["--config", "nope.yaml"], "nope.yaml", "a file that exists"),
]


@pytest.mark.parametrize(("mistake", "what", "fix"), MISTAKES, ids=str)
def test_a_mistake_in_an_option_is_one_line_with_what_was_meant(
    mistake: dict[str, Any] | list[str], what: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(mistake))
    words = ["--config", str(path)] if isinstance(mistake, dict) else mistake
    code, text = said(["fit", "--model", "NLinear", *words], capsys)
    assert code == 2
    (line,) = text.splitlines()
    assert what in line
    assert fix in line[line.index("; expected") :]
    assert "Fix: " in line


names = st.lists(
    st.text(st.characters(exclude_characters=",[]{", exclude_categories=["Cs", "Cc", "Z"]), min_size=1), min_size=1
)
counts = st.lists(st.integers(0, 99), min_size=1)


@given(names, counts, st.booleans())
def test_a_list_without_brackets_is_the_list(texts: list[str], numbers: list[int], equals: bool) -> None:
    parser = Parser()
    parser.add_argument("--names", type=list[str] | None)
    parser.add_argument("--counts", type=list[int])
    parser.add_argument("--text", type=str)
    parser.add_argument("--either", type=list[str] | str)
    pairs = {"names": ",".join(texts), "counts": ",".join(map(str, numbers)), "text": "a,b", "either": "a,b"}
    if pairs["names"] in ("null", "None") or pairs["names"].startswith("-") or os.path.isfile(pairs["names"]):
        return
    words = [[f"--{name}={value}"] if equals else [f"--{name}", value] for name, value in pairs.items()]
    parsed = parser.parse_args([word for own in words for word in own])
    assert (parsed.names, parsed.counts, parsed.text, parsed.either) == (texts, numbers, "a,b", "a,b")


def test_shares_of_a_split_may_be_written_without_brackets() -> None:
    parser = Parser()
    parser.add_argument("--split", type=Split, default=Split())
    parsed = parser.parse_args(
        ["--split.sizes", "0.6,0.2,0.2", "--split.dates", "2001-01-01,2002-01-01,2003-01-01,2004-01-01"]
    )
    assert tuple(parsed.split.sizes) == (0.6, 0.2, 0.2)
    assert parsed.split.dates[0] == "2001-01-01"


def test_a_shell_completes_commands_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, script = said(["completion", "bash"], capsys)
    assert code == 0
    (tmp_path / "lightning-app").write_text(script)
    lines = {"fit --data.lookb": "--data.lookback", "eval": "evaluate", "table --see": "--seeds"}
    for line, wanted in lines.items():
        words = ["lightning-app", *line.split()]
        typed = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
        ask = f'source ./lightning-app; {typed}; _shtab_lightning_app; echo "${{COMPREPLY[@]}}"'
        made = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert wanted in made.stdout.split()


def test_zsh_and_fish_are_told_all_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("zsh", "fish"):
        code, script = said(["completion", shell], capsys)
        assert code == 0
        assert [word for word in (*OTHERS, "fit", "data.lookback") if word != "completion" and word not in script] == []


def test_every_configuration_is_listed_and_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {str(path.relative_to(REPOSITORY / "configs")) for path in (REPOSITORY / "configs").rglob("*.yaml")}
    code, text = said(["configs"], capsys)
    assert code == 0
    assert {f"{line.split()[0]}.yaml" for line in text.splitlines()} == files
    assert said(["configs", "demo_lstm", "ingest/camels", "--out", str(tmp_path)], capsys)[0] == 0
    for name in ("demo_lstm", "ingest/camels"):
        assert (tmp_path / f"{name}.yaml").read_bytes() == (REPOSITORY / "configs" / f"{name}.yaml").read_bytes()


def test_a_configuration_that_was_changed_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo_lstm.yaml").write_text("mine")
    code, text = said(["configs", "demo_lstm", "--out", str(tmp_path)], capsys)
    assert (code, "exists, and differs" in text) == (2, True)
    assert (tmp_path / "demo_lstm.yaml").read_text() == "mine"
    assert said(["configs", "demo_lstm", "--out", str(tmp_path), "--overwrite"], capsys)[0] == 0
    assert said(["configs", "demo_lst"], capsys)[1].count("expected demo_lstm") == 1


def test_the_demo_ends_at_the_first_step_that_fails_with_its_exit_code_and_leaves_other_configurations(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    (tmp_path / "demo").touch()  # in the way of the folder
    assert main(["demo", "--out", str(tmp_path)]) == 1
    printed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("$ ")]
    assert printed == [f"$ {whole.STEPS[0]}"]
    config = tmp_path / "configs" / "demo_lstm.yaml"
    assert config.read_text() == (REPOSITORY / "configs" / "demo_lstm.yaml").read_text()
    config.write_text("# mine")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert config.read_text() == "# mine"


@pytest.mark.long
def test_the_demo_needs_nothing_but_a_folder_that_is_not_there_yet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "tried")]) == 0
    text = capfd.readouterr().out
    assert [line[2:] for line in text.splitlines() if line.startswith("$ ")] == list(whole.STEPS)
    (lstm,) = (line.split() for line in text.splitlines() if line.startswith("LSTM"))
    assert float(lstm[1]) < 0.7
    assert (tmp_path / "tried" / "runs" / "demo_lstm" / "forecast.png").stat().st_size > 10_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", ["lightning_app --help", "lightning_app fit --help", "zstore ingest --help"])
def test_an_answer_that_has_no_room_is_told_in_one_line(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", *words.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left on device. Fix: " in done.stderr


@pytest.mark.parametrize("words", [["configs"], ["--help"], ["fit", "--help"]], ids=str)
def test_an_answer_that_nobody_reads_ends_without_a_traceback(words: list[str]) -> None:
    command = [sys.executable, "-m", "lightning_app", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    process.stdout.close()  # as `head` does
    assert (process.communicate()[1], process.returncode) == ("", 141)


@pytest.mark.parametrize(("named", "used"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_pyarrow_takes_memory_where_torch_does_unless_told(tmp_path: Path, named: dict[str, str], used: str) -> None:
    (tmp_path / "seen.py").write_text(
        "import pyarrow\nfrom lightning_app.models import DLinear\n\n"
        "print(pyarrow.default_memory_pool().backend_name)\n\n\nclass Seen(DLinear):\n    pass\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)]), **named}
    words = ["--model", "seen.Seen", "--data.store", "x.zarr", "--data.lookback", "4", "--data.horizon", "2"]
    command = [sys.executable, "-m", "lightning_app", "fit", *words, "--print_config"]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert printed.stdout.split("\n")[0] == used, printed.stderr
