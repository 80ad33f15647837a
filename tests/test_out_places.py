"""No option that names what is written leads into a store, and no path with a NUL ends in a traceback."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import write_table

import zstore as package
from lightning_app.audit import main as splits
from lightning_app.cli import main as fit
from lightning_app.table import main as table
from lightning_app.tuning import main as tune
from zstore import UsageError, ingest, open_store, verify
from zstore.cli import main as zstore

pytestmark = pytest.mark.filterwarnings("default")  # of Lightning and jsonargparse
INGEST = ["--id", "id", "--time", "t", "--quiet"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in the current folder, with what it was made of beside it, and a link that leads into it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning_app"])
    rows = [[id_, t, t / 4] for id_ in "ab" for t in range(100)]
    ingest(write_table(tmp_path / "rows.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    model = {"class_path": "Repeat"}
    data = {"store": "s.zarr", "lookback": 4, "horizon": 2}
    Path("fit.yaml").write_text(json.dumps({"model": model, "data": data}))
    os.symlink("s.zarr", "inside")
    return tmp_path / "s.zarr"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _of_app(command: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """The command, with errors as its caller tells them."""

    def run(words: Sequence[str]) -> int:
        try:
            return command(words)
        except UsageError as error:
            sys.stderr.write(str(error))
            return error.exit_code

    return run


Command = tuple[Callable[[Sequence[str]], int], Callable[[str], list[str]]]
OPTIONS: dict[str, Command] = {
    "ingest STORE": (zstore, lambda out: ["ingest", "rows.csv", out, *INGEST]),
    "ingest --append STORE": (zstore, lambda out: ["ingest", "--append", "rows.csv", out, *INGEST]),
    "ingest --scratch": (zstore, lambda out: ["ingest", "rows.csv", "new.zarr", "--scratch", out, *INGEST]),
    "append --scratch": (
        zstore,
        lambda out: ["ingest", "--append", "--force", "rows.csv", "s.zarr", "--scratch", out, *INGEST],
    ),
    "compact --scratch": (zstore, lambda out: ["compact", "s.zarr", "--scratch", out]),
    "ingest --log-file": (zstore, lambda out: ["ingest", "rows.csv", "new.zarr", "--log-file", out, *INGEST]),
    "export": (zstore, lambda out: ["export", "s.zarr", f"{out}.csv", "--overwrite", "--quiet"]),
    "export --rows-per-file": (zstore, lambda out: ["export", "s.zarr", out, "--rows-per-file", "10", "--quiet"]),
    "doctor --html": (zstore, lambda out: ["doctor", "s.zarr", "--html", f"{out}.html", "--quiet"]),
    "fetch --to": (zstore, lambda out: ["fetch", "etth1", "--to", out, "--quiet", "--mirror", "nowhere"]),
    "cache --folder": (zstore, lambda out: ["cache", "clear", "--folder", out]),
    "plan --write": (tune, lambda out: ["s.zarr", "--config", "fit.yaml", "--write", out, "--seconds", "0.01"]),
    "splits --out": (_of_app(splits), lambda out: ["--config", "fit.yaml", "--out", f"{out}.png"]),
    "table --out": (_of_app(table), lambda out: ["--configs", "fit.yaml", "--out", out]),
    "table --runs": (_of_app(table), lambda out: ["--configs", "fit.yaml", "--out", "t.md", "--runs", out]),
    "run folder": (fit, lambda out: ["test", "--config", "fit.yaml", "--trainer.default_root_dir", out]),
    "checkpoints": (fit, lambda out: ["test", "--config", "fit.yaml", "--checkpoint.dirpath", out]),
    "rows": (fit, lambda out: ["test", "--config", "fit.yaml", "--data.cache", out]),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("out", ["s.zarr/v/c/0", "inside/out"])
def test_nothing_that_a_user_names_is_written_into_a_store(
    option: str, out: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command, words = OPTIONS[option]
    before = files(store.parent)
    assert command(words(out)) == 2
    said = "".join(capfd.readouterr())
    assert f"inside the store {store}" in said
    assert "Traceback" not in said
    assert files(store.parent) == before
    assert verify(open_store(store)).faults == ()


@pytest.mark.parametrize("option", OPTIONS)
def test_a_path_with_a_nul_is_one_clear_error(option: str, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command, words = OPTIONS[option]
    before = files(store.parent)
    assert command(words("a\0b")) == 2
    said = "".join(capfd.readouterr())
    assert "with a NUL; expected a path" in said
    assert "Traceback" not in said
    assert files(store.parent) == before


@pytest.mark.parametrize("command", [zstore, fit])
def test_a_configuration_with_a_nul_in_its_path_is_one_clear_error(
    command: Callable[[Sequence[str]], int], store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command([*(["ingest", "a", "b"] if command is zstore else ["fit"]), "--config", "a\0b"]) == 2
    assert "(embedded null byte)" in capfd.readouterr().err


READERS: dict[str, Callable[[str], Any]] = {
    "open_store": lambda path: package.open_store(path),
    "ingest": lambda path: ingest(path, "new.zarr", time="t"),
    "ingest static": lambda path: ingest("rows.csv", "new.zarr", id="id", time="t", static=path),
    "append": lambda path: package.append(path, "s.zarr"),
    "inspect": lambda path: package.inspect(path),
    "log": lambda path: package.log(path),
    "gc": lambda path: package.gc(path),
    "compact": lambda path: package.compact(path),
    "rollback": lambda path: package.rollback(path, 1),
    "source_states": lambda path: package.source_states([path]),
    "cache": lambda path: package.Cache(Path(path)),
    "read_yaml": lambda path: package.read_yaml(path),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_path_to_read_with_a_nul_is_one_clear_error(reader: str, store: Path) -> None:
    with pytest.raises(UsageError, match=r"NUL|null byte"):
        READERS[reader]("a\0b")


@pytest.mark.parametrize(
    "out", ["log", "s.zarr", "s.zarr/zarr.json", "rows.csv", "fit.yaml", "new.zarr", "new.zarr/log"]
)
def test_a_log_is_appended_to_no_store_and_to_nothing_that_is_read(
    out: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.symlink("s.zarr/zarr.json", "log")
    Path("fit.yaml").write_text("id: id\n")
    Path("new.zarr").mkdir()
    before = files(store.parent)
    words = ["ingest", "*.csv", "new.zarr", "--config", "fit.yaml", "--time", "t", "--log-file", out]
    assert zstore(words) == 2
    assert "zstore ingest: log to" in capsys.readouterr().err
    assert files(store.parent) == before


def test_a_plan_replaces_a_link_and_not_what_it_leads_to(store: Path) -> None:
    os.symlink("s.zarr/zarr.json", "plan.yaml")
    before = files(store)
    words = ["s.zarr", "--config", "fit.yaml", "--write", "plan.yaml", "--seconds", "0.01"]
    assert tune(words) == 0
    assert files(store) == before
    assert "residency" in Path("plan.yaml").read_text()
