"""The documentation is true: its blocks run and print what they say, its references lead somewhere."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from conftest import REPOSITORY
from documents import NOT_CODE, RUN, Reader, blocks, commands, links, same
from s3server import S3Server

import zstore
from lightning_app import audit, backtest, evaluation, table
from lightning_app.cli import main as app
from zstore import cli

TASKS = sorted(page for page in (REPOSITORY / "docs").rglob("*.md"))
PAGES = [*TASKS, *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))]
WITH_CODE = [page for page in PAGES if any(block.language in RUN for block in blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest, python: str) -> Iterator[Reader]:
    page: Path = request.param
    if "s3://" not in page.read_text() or page.parent.name != "docs":
        reader = Reader(tmp_path, {}, python)
        yield reader
        reader.close()
        return
    with S3Server() as server:
        reader = Reader(tmp_path, {**server.environment, "BUCKET": server.make_bucket()}, python)
        yield reader
        reader.close()


@pytest.mark.parametrize(("reader", "page"), [(page, page) for page in WITH_CODE], indirect=["reader"], ids=name_of)
def test_the_blocks_of_a_page_run_in_order_and_print_what_it_says(reader: Reader, page: Path) -> None:
    if page.name == "serve.md":
        pytest.importorskip("fastapi", reason="the extra serve, which make test installs")
    for block in blocks(page):
        if block.language in NOT_CODE or not block.can_run:
            continue
        try:
            printed = reader.run(block)
        except AssertionError as error:
            pytest.fail(f"{name_of(page)} line {block.line} {error}")
        if block.printed is not None:
            assert same(block.printed, printed), f"{name_of(page)} line {block.line} printed:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    languages = {block.language for block in blocks(page)}
    assert languages <= {*RUN, *NOT_CODE}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_links_to_or_names_is_there(page: Path) -> None:
    text = page.read_text()
    assert [target for target in links(page) if not (page.parent / target).exists()] == []
    named = [each for word in re.findall(r"(?:configs|notebooks)/[\w{},./*-]+", text) for each in expanded(word)]
    assert [each for each in named if not list(REPOSITORY.glob(each.rstrip("./,*") or "."))] == []


@pytest.mark.filterwarnings("default")  # of Lightning and jsonargparse, as in the tests of the command
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_within_a_sentence_has_the_arguments_it_needs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["lightning_app"])
    for words in commands(page):
        assert refusal(words) is None, f"{name_of(page)}: {' '.join(words)}"


def refusal(words: list[str]) -> str | None:
    """Why a command cannot be what its page says, or None."""
    try:
        if words[0] == "zstore":
            words = words[1 : words.index(">")] if ">" in words else words[1:]
            if (
                any(not word.startswith("-") for word in words[1:]) or words[0] not in zstore_commands()
            ):  # alone, or with a flag, it is a mention
                cli.make_parser().parse_args(words)
        elif words[3] == "table":
            table.make_parser().parse_args([path for word in words[4:] for path in expanded(word)])
        elif words[3] == "evaluate":
            evaluation.make_parser().parse_args(words[4:])
        elif words[3] == "backtest":
            backtest.make_parser().parse_known_args(words[4:])
        elif words[3] == "splits":
            audit.make_parser().parse_args(words[4:])
        else:
            app([*words[3:], "--print_config"])
    except SystemExit as stop:
        return None if stop.code in (None, 0) else f"exit {stop.code}"
    return None


@pytest.mark.filterwarnings("default")  # of Lightning and jsonargparse, as in the tests of the command
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_flag_that_a_page_names_exists(page: Path, every_flag: str) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    named = {flag for span in spans if "pip " not in span for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span)}
    assert [
        flag for flag in sorted(named) if not re.search(rf"{re.escape(flag.rstrip('.'))}(?![\w-])", every_flag)
    ] == []


@pytest.fixture(scope="session")
def every_flag() -> str:
    """The help of all commands."""
    arguments, sys.argv = sys.argv, ["lightning_app"]
    helps = [module.make_parser().format_help() for module in (table, audit, evaluation, backtest)]
    of_app = [[name, "--help-all"] for name in ("fit", "predict")]
    own = [(cli.main, [name, "--help-all"]) for name in zstore_commands()]
    for run, words in [*own, *((app, words) for words in of_app), (app, ["fit", "--help"])]:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            run(words)
        helps.append(printed.getvalue())
    sys.argv = arguments
    return "\n".join(helps)


def paths_of(tree: str) -> list[str]:
    """Paths that a tree of files names, each line by its indentation: names with commas between, then what they are."""
    folders: list[tuple[int, str]] = []
    paths: list[str] = []
    for indent, names in re.findall(r"^( {0,8})(\w[\w./]*(?:, \w[\w./]*)*)  +\S", tree, re.MULTILINE):
        while folders and folders[-1][0] >= len(indent):
            folders.pop()
        above = folders[-1][1] if folders else ""
        first, *others = names.split(", ")
        paths += [above + first, *(f"{above}{first.rpartition('/')[0]}/{name}".replace("//", "/") for name in others)]
        if first.endswith("/"):
            folders.append((len(indent), above + first))
    return paths


def test_the_file_tree_names_every_module_where_it_is_and_nothing_else() -> None:
    tree = (REPOSITORY / "ARCHITECTURE.md").read_text().partition("### Where everything is")[2]
    as_folders = ("lightning_app/models/", "lightning_app/tasks/", "lightning_app/demo/")
    named = [path for path in paths_of(tree) if path.startswith(("zstore/", "lightning_app/")) and path[-3:] == ".py"]
    modules = [
        path.relative_to(REPOSITORY).as_posix()
        for package in ("zstore", "lightning_app")
        for path in (REPOSITORY / package).rglob("*.py")
        if not path.name.startswith("_")
    ]
    of_one_line = [path for path in modules if path.startswith(as_folders)]
    shown = [path for path in named if not path.rpartition("/")[2].startswith("_")]
    assert sorted(shown) == sorted({*modules} - {*of_one_line})
    assert {*as_folders} <= {*paths_of(tree)}


def expanded(word: str) -> list[str]:
    """The paths that a shell makes of braces."""
    parts = [part.split(",") for part in re.split(r"[{}]", word)]
    return ["".join(each) for each in product(*parts)]


def test_the_documentation_builds_without_a_warning(tmp_path: Path, python: str) -> None:
    assert built(python, REPOSITORY / "docs", tmp_path / "html", "-D", "html_theme=basic") == (0, "")
    reference = (tmp_path / "html" / "reference" / "zstore.html").read_text()
    named = {*re.findall(r'id="(?:module-)?zstore\.(\w+)"', reference), "__version__"}
    assert [name for name in zstore.__all__ if name not in named] == []
    described = (tmp_path / "html" / "reference" / "commands.html").read_text()
    assert [name for name in zstore_commands() if f'id="zstore-{name}"' not in described] == []


def test_a_reference_that_leads_nowhere_fails_the_build(tmp_path: Path, python: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(REPOSITORY / "docs" / "conf.py", docs)
    shutil.copy(REPOSITORY / "docs" / "append.md", docs)
    broken = "[](nowhere.md)\n\n{doc}`no-page`\n\n[](append.md#no-such-heading)"
    (docs / "index.md").write_text(f"# Title\n\n{broken}\n\n```{{toctree}}\nappend\n```\n")
    code, said = built(python, docs, tmp_path / "html")
    assert code != 0
    for line, target in ((3, "nowhere.md"), (5, "no-page"), (7, "no-such-heading")):
        assert re.search(rf"index\.md:{line}: WARNING: .*{target}", said), said


def zstore_commands() -> set[str]:
    return set(cli.COMMANDS)


def built(python: str, docs: Path, out: Path, *options: str) -> tuple[int, str]:
    """Exit code, and all warnings."""
    command = [python, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *options, str(docs), str(out)]
    done = subprocess.run([*command, "-d", str(out.parent / "doctrees")], capture_output=True, text=True)
    return done.returncode, done.stderr
