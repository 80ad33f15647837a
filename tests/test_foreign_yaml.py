"""A YAML file that is none of names and plain values is refused by name, whoever reads it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_app.data.stores import open_or_ingest
from zstore import UsageError

App = Callable[..., subprocess.CompletedProcess[str]]

FILES = {
    "an object": b"data: !!python/object/apply:os.system ['touch evil']\n",
    "a tag": b"data: !evil a\n",
    "a text": b"hello",
    "a list": b"- 1\n- 2\n",
    "tabs": b"data:\n\tstore: x\n",
    "an alias of nothing": b"data: *nothing\n",
    "brackets without end": b"data: " + b"[" * 3000 + b"]" * 3000,
    "merges of merges": b"m0: &m0 {a: 1}\n"
    + b"".join(b"m%d: &m%d {<<: [%s]}\n" % (i, i, b", ".join([b"*m%d" % (i - 1)] * 10)) for i in range(1, 9)),
    "aliases of aliases": b"a0: &a0 [x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 9)),
    "an alias of what it lies in": b"data: &data {store: *data}\n",
    "200 levels": b"data: " + b"[" * 200 + b"]" * 200,
    "a text of two million bytes": b"data: {store: " + b"s" * 2_000_000 + b"}\n",
    "bytes": b"\0\1\xff\xfe",
    "UTF-16": "data: {}".encode("utf-16"),
    "Latin-1": b"data: {}  # \xe9\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_that_is_none_is_refused_by_all_commands(name: str, app: App, tmp_path: Path) -> None:
    (tmp_path / "foreign.yaml").write_bytes(FILES[name])
    for command in ("fit", "splits"):
        done = app(command, "--config", "foreign.yaml")
        assert done.returncode == 2
        assert "configuration foreign.yaml (" in done.stderr
        assert "expected a YAML file of names and plain values, in UTF-8. Fix: correct it." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["foreign.yaml"]


@pytest.mark.parametrize("name", FILES)
def test_options_of_an_ingest_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "foreign.yaml").write_bytes(FILES[name])
    (tmp_path / "rows.csv").write_text("id,t,v\na,1,2\n")
    with pytest.raises(UsageError, match=r"--data.ingest .*foreign\.yaml"):
        open_or_ingest(str(tmp_path / "rows.csv"), str(tmp_path / "foreign.yaml"), tmp_path / "cache", None)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["foreign.yaml", "rows.csv"]
