"""Public data sets come whole, from where they are published or from a mirror, or not at all; quiet commands."""

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zstore import SourceError, UsageError, fetch
from zstore.cli import main
from zstore.datasets import DATASETS, PublicDataset, RemoteFile

CONTENT = b"date,a\n2001-01-01,1\n2001-01-02,2\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def zstore(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the `zstore` command in this process: its exit code, and what it printed and complained about."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        return code, *capsys.readouterr()

    return run


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server on loopback, and a data set `small` of one file that is published there."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "small.csv").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    file = RemoteFile(
        f"http://127.0.0.1:{server.server_port}/small.csv", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)
    )
    usual = "zstore ingest {folder}/small.csv small.zarr --time date"
    monkeypatch.setitem(DATASETS, "small", PublicDataset("two days", "CC0", "nobody", (file,), usual))
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_data_set_is_downloaded_once_with_progress(published: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    paths = fetch("small", tmp_path / "data", progress=lambda *report: seen.append(report))
    assert [path.read_bytes() for path in paths] == [CONTENT]
    assert seen[-1] == ("small", len(CONTENT), len(CONTENT), "bytes")
    (published / "small.csv").unlink()
    assert fetch("small", tmp_path / "data") == paths


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT.replace(b"1", b"3"), b""])
def test_a_file_that_is_not_the_published_one_is_refused_and_not_kept(
    content: bytes, published: Path, tmp_path: Path
) -> None:
    (published / "small.csv").write_bytes(content)
    with pytest.raises(SourceError, match="not the file that was published"):
        fetch("small", tmp_path / "data")
    with pytest.raises(SourceError, match="not the file that was published"):
        fetch("small", tmp_path / "data", mirror=str(published))
    assert list((tmp_path / "data").iterdir()) == []


def test_without_an_answer_it_says_what_to_do(published: Path, tmp_path: Path) -> None:
    (published / "small.csv").unlink()
    with pytest.raises(SourceError, match=r"cannot download small\.csv .*404.*--mirror FOLDER"):
        fetch("small", tmp_path / "data")
    with pytest.raises(SourceError, match=r"cannot download small\.csv .*refused.*--mirror FOLDER"):
        fetch("small", tmp_path / "data", mirror="http://127.0.0.1:9")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_mirror_is_a_folder_or_an_address(published: Path, tmp_path: Path) -> None:
    address = DATASETS["small"].files[0].url.removesuffix("/small.csv")
    for number, mirror in enumerate([str(published), address, f"{address}/"]):
        assert fetch("small", tmp_path / str(number), mirror)[0].read_bytes() == CONTENT
    with pytest.raises(SourceError, match=r"no small\.csv in the mirror"):
        fetch("small", tmp_path / "other", mirror=str(tmp_path))


def test_a_file_of_the_users_own_is_not_overwritten(published: Path, tmp_path: Path) -> None:
    (tmp_path / "small.csv").write_text("mine")
    with pytest.raises(UsageError, match="another --to"):
        fetch("small", tmp_path)
    assert (tmp_path / "small.csv").read_text() == "mine"


def test_names_are_those_of_the_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of etth1"):
        fetch("../etc", tmp_path)


def test_the_published_files_have_addresses_digests_and_a_next_command() -> None:
    for dataset in DATASETS.values():
        assert dataset.ingest.startswith("zstore ingest {folder}/")
        for file in dataset.files:
            assert file.url.startswith("https://")
            assert file.name in file.url
            assert len(bytes.fromhex(file.sha256)) == 32


def test_the_command_names_what_to_type_next_and_that_works(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zstore: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = zstore("fetch", "small", "--to", "data")
    assert (code, err) == (0, "")
    following = next(line for line in out.splitlines() if line.startswith("next: zstore "))
    assert zstore(*following.removeprefix("next: zstore ").split())[0] == 0
    assert zstore("info", "small.zarr")[0] == 0
    assert zstore("fetch")[1].count("etth1") == 1


def test_quiet_commands_print_nothing_but_errors(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zstore: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ("published/small.csv", "s.zarr", "--time", "date")
    for words in (
        ("fetch", "small", "--quiet"),
        ("ingest", *rows, "--quiet"),
        ("ingest", *rows, "--append", "--quiet"),
        ("verify", "s.zarr", "--source", "published/small.csv", "--quiet"),
        ("doctor", "s.zarr", "--quiet"),
        ("export", "s.zarr", "o.csv", "--quiet"),
        ("rollback", "s.zarr", "1", "--quiet"),
        ("compact", "s.zarr", "--quiet"),
        ("gc", "s.zarr", "--quiet"),
    ):
        assert zstore(*words) == (0, "", ""), words
    code, out, err = zstore("ingest", *rows, "--quiet")
    assert (code, out) == (1, "")
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("zstore do", "doctor"), ("zstore ingest --on-b", "--on-bad-row"), ("zstore ingest --on-bad-row q", "quarantine")],
)
def test_bash_completes_commands_flags_and_choices(typed: str, wanted: str, tmp_path: Path, zstore: Run) -> None:
    code, script, _ = zstore("completion", "bash")
    assert code == 0
    (tmp_path / "zstore").write_text(script)
    words = typed.split()
    ask = (
        f"source {tmp_path}/zstore; f=$(complete -p zstore | sed 's/.*-F //; s/ .*//'); "
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; $f; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [wanted]


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_get_a_script_too(shell: str, zstore: Run) -> None:
    code, script, _ = zstore("completion", shell)
    assert code == 0
    assert "doctor" in script
