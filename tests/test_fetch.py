"""Public data sets come whole, from where they are published or from a mirror, or not at all; quiet commands."""

import hashlib
import shlex
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr

from zstore import SourceError, UsageError, fetch, open_store
from zstore.cli import main
from zstore.published.catalog import DATASETS
from zstore.published.files import PublicDataset, RemoteFile, RemoteTree, sha256_of_tree
from zstore.published.tables import table_of_adrenal, table_of_pusht

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
    with pytest.raises(SourceError, match="not what was published"):
        fetch("small", tmp_path / "data")
    with pytest.raises(SourceError, match="not what was published"):
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


@pytest.fixture
def tree(published: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteTree:
    """A data set `tree` of two files in a folder, published as an archive that has others too."""
    content = {"a/s.csv": b"date,a\n2001-01-01,1\n", "a/deep/t.bin": bytes(5000)}
    for name, value in content.items():
        path = published / "whole" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
    _pack(published / "tree.zip", {f"whole/{name}": value for name, value in content.items()} | {"other": b"1"})
    url = DATASETS["small"].files[0].url.replace("small.csv", "tree.zip")
    digest, size = sha256_of_tree(published / "whole"), sum(map(len, content.values()))
    found = RemoteTree(url, "whole", digest, size, 2)
    usual = "zstore ingest {folder}/whole/a/s.csv s.zarr --time date"
    monkeypatch.setitem(DATASETS, "tree", PublicDataset("two files", "CC0", "nobody", (found,), usual))
    return found


def _pack(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)


def test_a_folder_comes_out_of_its_archive_or_of_a_mirror_that_has_either(
    tree: RemoteTree, published: Path, tmp_path: Path
) -> None:
    (tmp_path / "packed").mkdir()
    shutil.copy(published / "tree.zip", tmp_path / "packed")
    address = tree.url.removesuffix("/tree.zip")
    for number, mirror in enumerate([None, address, str(published), str(tmp_path / "packed")]):
        folder = tmp_path / str(number)
        assert fetch("tree", folder, mirror) == [folder / "whole"]
        assert sha256_of_tree(folder / "whole") == tree.sha256
        assert {path.name for path in folder.iterdir()} == {"whole"}
        (folder / "whole" / "a" / "s.csv").write_text("mine")
        with pytest.raises(UsageError, match="another --to"):
            fetch("tree", folder, mirror)
    with pytest.raises(SourceError, match=r"no tree\.zip in the mirror"):
        fetch("tree", tmp_path / "other", mirror=str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        {"whole/a/s.csv": b"date,a\n2001-01-01,2\n", "whole/a/deep/t.bin": bytes(5000)},  # another digit
        {"whole/a/s.csv": b"date,a\n2001-01-01,1\n", "whole/a/deep/t.bin": bytes(4_000_000)},  # far larger
        {"whole/../../s.csv": b"date,a\n2001-01-01,1\n", "whole/a/deep/t.bin": bytes(5000)},  # leads out
        {"/whole/a/s.csv": b"date,a\n2001-01-01,1\n", "whole/a/deep/t.bin": bytes(5000)},
        {"whole/a/s.csv": b"date,a\n2001-01-01,1\n"},
        {},
    ],
)
def test_an_archive_of_anything_else_leaves_nothing(
    content: dict[str, bytes], tree: RemoteTree, published: Path, tmp_path: Path
) -> None:
    _pack(published / "tree.zip", content)
    with pytest.raises(SourceError, match=r"whole"):
        fetch("tree", tmp_path / "in" / "data")
    assert list((tmp_path / "in" / "data").iterdir()) == []
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["data"]


def test_an_archive_that_is_none_or_never_ends_is_refused(tree: RemoteTree, published: Path, tmp_path: Path) -> None:
    (published / "tree.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(SourceError, match=r"tree\.zip cannot be unpacked"):
        fetch("tree", tmp_path / "data")
    (published / "tree.zip").write_bytes(bytes(3_000_000))
    with pytest.raises(SourceError, match=r"tree\.zip is longer than what was published"):
        fetch("tree", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_volumes_get_a_table_of_splits_and_labels(tmp_path: Path) -> None:
    (tmp_path / "adrenal").mkdir()
    labels = {f"{split}_labels": np.array([[0], [1]], np.uint8) for split in ("train", "val", "test")}
    np.savez(tmp_path / "adrenal" / "adrenalmnist3d_64.npz", allow_pickle=False, **labels)
    (path,) = table_of_adrenal(tmp_path)
    lines = path.read_text().splitlines()
    assert lines[:3] == [
        "split,study,archive,position,label",
        "train,0000,adrenalmnist3d_64.npz/train_images,0,normal",
        "train,0001,adrenalmnist3d_64.npz/train_images,1,hyperplasia",
    ]
    assert len(lines) == 7


def test_demonstrations_get_a_table_and_frames_that_ingest_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zstore: Run
) -> None:
    random, ends = np.random.default_rng(0), np.array([3, 7])
    replay = zarr.open_group(tmp_path / "data" / "pusht" / "pusht_cchi_v7_replay.zarr", mode="w", zarr_format=2)
    shapes = {"img": (96, 96, 3), "state": (5,), "keypoint": (9, 2), "action": (2,)}
    made = {name: random.integers(0, 256, (7, *shape)).astype("f4") for name, shape in shapes.items()}
    for name, values in made.items():
        replay.create_array(f"data/{name}", data=values, chunks=(2, *values.shape[1:]))
    replay.create_array("meta/episode_ends", data=ends)
    monkeypatch.chdir(tmp_path)
    table_of_pusht(Path("data"))
    words = shlex.split(DATASETS["pusht"].ingest.format(folder="data"))
    assert zstore(*words[1:], "--quiet") == (0, "", "")
    store = open_store("pusht.zarr")
    assert [len(store[name]) for name in store] == [3, 4]
    assert np.array_equal(store.read_field("image", 0, 7), made["img"].astype(np.uint8))
    rows = np.concatenate([store[name].to_pandas()[["action.0", "action.1"]].to_numpy() for name in store])
    assert np.array_equal(rows, made["action"])
    zarr.open_array(replay.store_path / "data" / "img")[5, 0, 0, 0] = 0.5
    (tmp_path / "data" / "pusht" / "pusht.parquet").unlink()
    with pytest.raises(SourceError, match="frames 4 to 6"):
        table_of_pusht(Path("data"))


def test_the_published_files_have_addresses_digests_and_a_next_command() -> None:
    for dataset in DATASETS.values():
        assert shlex.split(dataset.ingest)[2].startswith("{folder}/")
        assert dataset.ingest.startswith("zstore ingest ")
        assert len({file.path for file in dataset.files}) == len(dataset.files)
        for file in dataset.files:
            assert file.url.startswith("https://")
            assert file.name in file.url
            assert not {"..", ""} & set(file.path.split("/"))
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
