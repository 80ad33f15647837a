"""An option is described once: in the docstring of the function that takes it, which flags and their help come from."""

import contextlib
import inspect
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore import UsageError, append, ingest, open_store
from zstore.cli import COMMANDS, main
from zstore.commands.training import Bench, Trial
from zstore.flags import Flags, names_of, said
from zstore.inspection.command import command_of
from zstore.manual import Parameter, parameters
from zstore.writing.planner import plan_ingest
from zstore.writing.sources.options import TableOptions

ROWS = "id;t;v\na;2001-01-01;1,5\na;2001-01-02;2,5\nb;2001-01-01;3,5\n"
NO_FLAG = {"sources", "store", "progress"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_text(ROWS)
    return tmp_path / "a.csv"


def printed_help(command: str, flag: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([command, flag])
    return printed.getvalue()


def help_of(command: str) -> str:
    """The whole help of a command, each entry on one line."""
    return " ".join(printed_help(command, "--help-all").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_on_a_screen(command: str) -> None:
    shown, whole = (printed_help(command, flag).splitlines() for flag in ("--help", "--help-all"))
    assert len(shown) <= 40
    assert max(map(len, shown)) <= 80
    if COMMANDS[command].short is None:
        assert shown == whole
    else:
        assert shown[-1] == f"All options: zstore {command} --help-all"


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.short is not None])
def test_a_short_help_shows_options_and_examples_that_the_parser_takes(command: str) -> None:
    parser, text = COMMANDS[command].parser(), printed_help(command, "--help")
    assert set(re.findall(r"(?<!\S)--[a-z-]+", text)) <= set(parser._option_string_actions)
    for example in re.findall(rf"^  zstore {command} (.*)$", text, re.MULTILINE):
        parser.parse_args(parser.in_front(shlex.split(example)))


def unbroken(text: str) -> str:
    """A text without what a line break may add within words."""
    return re.sub(r"\s+", "", text)


def test_every_parameter_of_an_ingest_is_a_flag_with_the_help_of_its_docstring() -> None:
    shown = unbroken(help_of("ingest"))
    lacking = [
        name
        for name, parameter in parameters(ingest).items()
        if name not in NO_FLAG
        and (f"--{name.replace('_', '-')}" not in shown or unbroken(parameter.help) not in shown or not parameter.help)
    ]
    assert lacking == []


@pytest.mark.parametrize("function", [ingest, append, plan_ingest, zstore.compact, zstore.gc, zstore.verify])
def test_every_parameter_of_a_verb_is_described(function: Any) -> None:
    assert [name for name, parameter in parameters(function).items() if not parameter.text] == []


def test_parameters_that_two_verbs_share_have_one_default() -> None:
    own, shared = parameters(ingest), parameters(append)
    assert {n: p.default for n, p in shared.items() if n in own} == {n: own[n].default for n in shared if n in own}


def test_the_usual_options_of_tables_are_the_defaults_of_an_ingest() -> None:
    usual = {name: parameter.default for name, parameter in parameters(ingest).items()}
    assert TableOptions.of({**usual, "dtype": "float64"}) == TableOptions()


def test_a_command_line_that_says_nothing_gives_no_arguments() -> None:
    parsed = COMMANDS["ingest"].parser().parse_args(["a.csv", "s.zarr"])
    assert said(ingest, parsed) == {}


def test_what_a_function_adds_is_a_flag_with_its_type_default_and_help() -> None:
    def function(*, n_turns: int | None = None, side: str = "left", names: list[str] | None = None) -> None:
        """Turn.

        Parameters
        ----------
        n_turns
            How often; None for `side` alone. At most 3.
        side
            Where ``it`` turns.

        Returns
        -------
        n_turns
            Nothing.
        """

    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    Flags(parser).of(function, n_turns="N", side="WORD")
    assert "how often; default: --side alone" in parser.format_help()
    assert "where it turns; default: left" in parser.format_help()
    assert said(function, parser.parse_args(["--n-turns", "2"])) == {"n_turns": 2}


@given(st.from_regex(r"[A-Z][a-z]{2,8}( [a-z0-9]{1,8}|, [a-z]{2,5}| as ``[a-z.]{1,4}``){0,6}", fullmatch=True))
def test_help_is_the_first_sentence_without_markup(sentence: str) -> None:
    parameter = Parameter("x", int, inspect.Parameter.empty, f"{sentence}. Further ones are for `readers`.")
    plain = sentence.replace("``", "")
    assert plain[0].lower() + plain[1:] == parameter.help


def test_an_append_refuses_a_usual_option_that_is_not_that_of_the_store(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(table.with_suffix(".zarr"))
    ingest(table, store, id="id", time="t", decimal=",")
    later = table.with_name("b.csv")
    later.write_text("id;t;v\na;2001-01-03;7\n")
    assert main(["ingest", str(later), store, "--append", "--decimal", "."]) == 2
    assert f"--decimal .; expected ,, as {store} was ingested" in capsys.readouterr().err
    assert main(["ingest", str(later), store, "--append", "--decimal", ",", "--id", "id", "--quiet"]) == 0


@pytest.mark.parametrize("flag", ["--id", "--delimiter", "--comment", "--thousands", "--codec", "--scratch"])
def test_a_flag_without_a_text_is_refused_and_not_passed_over(
    table: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ingest", str(table), str(table.with_suffix(".zarr")), "--time", "t", f"{flag}="]
    assert main(words) == 2
    assert "Fix: " in capsys.readouterr().err
    assert not table.with_suffix(".zarr").exists()


@pytest.mark.parametrize(
    "option",
    [
        {"layout": "Wide"},
        {"on_duplicate": "lst"},
        {"on_bad_row": "quarantin"},
        {"on_empty_file": "leave"},
        {"decimal": ";"},
        {"dtype": "float16"},
        {"missing": [None]},
        {"names": [1.5], "no_header": True},
        {"blocksize": 0},
        {"memory_limit": "much"},
        {"max_bad_rows": "lots"},
        {"max_bad_rows": -1},
    ],
    ids=str,
)
def test_an_argument_that_is_none_of_its_kind_is_refused_before_anything_is_written(
    table: Path, option: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        ingest(table, table.with_suffix(".zarr"), **{"id": "id", "time": "t", "decimal": ",", **option})
    assert not table.with_suffix(".zarr").exists()


def test_sizes_and_shares_are_read_as_the_command_reads_them(table: Path) -> None:
    options: dict[str, Any] = {"id": "id", "time": "t", "decimal": ",", "on_bad_row": "quarantine"}
    made = ingest(
        table, table.with_suffix(".zarr"), blocksize="1KiB", memory_limit="1GiB", max_bad_rows="1%", **options
    )
    assert made.n_stored == 3


def test_one_name_may_stand_for_a_list_of_one(table: Path) -> None:
    options: dict[str, Any] = {"time": ["t"], "decimal": ",", "leave_out": "id"}
    ingest(table, table.with_suffix(".zarr"), on_duplicate="first", **options)
    assert open_store(table.with_suffix(".zarr")).channels == ("v",)


@pytest.mark.parametrize("flag", ["--id", "--comment", "--thousands", "--missing", "--freq", "--names"])
@pytest.mark.parametrize("word", ["#", "null", "~", "1.0", "true"])
def test_a_word_that_yaml_would_take_for_something_else_stays_a_text(flag: str, word: str) -> None:
    parsed = COMMANDS["ingest"].parser().parse_args(["a.csv", "s.zarr", f"{flag}={word}"])
    name = flag.removeprefix("--")
    assert said(ingest, parsed) == {name: [word] if name in ("id", "missing", "names") else word}


def test_a_configuration_that_was_printed_reads_back_as_the_same(tmp_path: Path) -> None:
    words = ["a.csv", "s.zarr", "--comment", "#", "--rename", "a=b,c=d", "--widths", "3,*", "--max-bad-rows", "0.25"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        COMMANDS["ingest"].parser().parse_args([*words, "--no-header", "--print_config"])
    (tmp_path / "o.yaml").write_text(printed.getvalue())
    parsed = COMMANDS["ingest"].parser().parse_args(["--config", str(tmp_path / "o.yaml"), *words[:2]])
    assert said(ingest, parsed) == {
        "comment": "#",
        "rename": {"a": "b", "c": "d"},
        "widths": ["3", "*"],
        "max_bad_rows": "0.25",
        "no_header": True,
    }


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1), min_size=1))
def test_names_are_typed_as_a_line_of_csv(names: list[str]) -> None:
    command = shlex.split(command_of("a.csv", {"channels": names}))
    assert names_of(command[-1]) == names


@pytest.mark.parametrize("text", ['"a', '"a,b', '"a"b,c'])
def test_a_quote_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="close the quotes"):
        names_of(text)


def test_a_flag_of_pairs_may_be_repeated_and_brings_all_of_them() -> None:
    words = [
        "a.csv",
        "s.zarr",
        "--rename",
        "a=b,c=d",
        "--rename",
        "e=f",
        "--file",
        "image=path",
        "--file",
        "mask=other",
    ]
    parsed = said(ingest, COMMANDS["ingest"].parser().parse_args(words))
    assert parsed == {"rename": {"a": "b", "c": "d", "e": "f"}, "file": {"image": "path", "mask": "other"}}


def test_pairs_of_the_command_line_take_the_place_of_those_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("rename: {a: b, c: d}\n")
    words = ["a.csv", "s.zarr", "--config", str(tmp_path / "c.yaml"), "--rename", "e=f", "--rename", "g=h"]
    parsed = said(ingest, COMMANDS["ingest"].parser().parse_args(words))
    assert parsed == {"rename": {"e": "f", "g": "h"}}


@pytest.mark.parametrize(("command", "what"), [("bench", Bench), ("plan", Trial)])
def test_what_is_measured_is_described_once(command: str, what: Any) -> None:
    shown = unbroken(help_of(command))
    lacking = [name for name, each in parameters(what).items() if not each.help or unbroken(each.help) not in shown]
    assert lacking == []
