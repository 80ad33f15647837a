"""A YAML file that is none of names and plain values is refused by name, whoever reads it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.data.stores import open_or_ingest
from zstore import UsageError, open_store
from zstore.cli import main as zstore
from zstore.yamlfiles import check_yaml

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


BOMBS = ("merges of merges", "aliases of aliases", "200 levels", "a text of two million bytes")
LIMITS = ("more than 100,000 values", "more than 50 levels", "more than 1,000,000 bytes")
WAYS = {
    "data of a configuration": "data: foreign.yaml\nmodel: {class_path: Linear}\n",
    "model of a configuration": "data: {store: s.zarr, lookback: 3, horizon: 2}\nmodel: foreign.yaml\n",
    "a configuration of a configuration": "config: foreign.yaml\n",
}


def is_over_a_limit(message: str) -> bool:
    return any(f"({limit}" in message for limit in LIMITS)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_a_configuration_names_is_held_to_its_limits(way: str, bomb: str, app: App, tmp_path: Path) -> None:
    (tmp_path / "foreign.yaml").write_bytes(FILES[bomb])
    (tmp_path / "fit.yaml").write_text(WAYS[way])
    done = app("fit", "--config", "fit.yaml")
    assert (done.returncode, is_over_a_limit(done.stderr)) == (2, True), done.stderr[-1000:]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_an_argument_names_is_held_to_the_same_limits(bomb: str, app: App, tmp_path: Path) -> None:
    (tmp_path / "foreign.yaml").write_bytes(FILES[bomb])
    done = app("fit", "--data", "foreign.yaml")
    assert (done.returncode, is_over_a_limit(done.stderr)) == (2, True), done.stderr[-1000:]


@pytest.mark.parametrize("bomb", BOMBS)
def test_splits_holds_a_file_that_a_configuration_names_to_the_same_limits(bomb: str, app: App, tmp_path: Path) -> None:
    (tmp_path / "foreign.yaml").write_bytes(FILES[bomb])
    (tmp_path / "fit.yaml").write_text("data: {store: s.zarr, lookback: 3, horizon: 2, split: foreign.yaml}\n")
    done = app("splits", "--config", "fit.yaml")
    assert (done.returncode, is_over_a_limit(done.stderr)) == (2, True), done.stderr[-1000:]


def test_a_text_in_a_configuration_is_held_to_the_same_limits(app: App, tmp_path: Path) -> None:
    text = yaml.safe_dump({"data": {"store": "s.zarr", "lookback": FILES["merges of merges"].decode()}})
    (tmp_path / "fit.yaml").write_text(text)
    done = app("fit", "--config", "fit.yaml")
    assert (done.returncode, is_over_a_limit(done.stderr)) == (2, True), done.stderr[-1000:]


@pytest.mark.parametrize("name", FILES)
def test_zstore_refuses_a_configuration_that_is_none(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("foreign.yaml").write_bytes(FILES[name])
    Path("rows.csv").write_text("id,t,v\na,1,2\n")
    for words in (["ingest", "rows.csv", "new.zarr"], ["plan", "new.zarr"]):
        assert zstore([*words, "--config", "foreign.yaml"]) == 2
        assert "zstore: configuration foreign.yaml (" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.yaml", "rows.csv"]


def test_zstore_holds_a_configuration_that_another_names_to_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("id,t,v\na,1,2\n")
    Path("fit.yaml").write_text("config: foreign.yaml\n")
    for bomb in BOMBS:
        Path("foreign.yaml").write_bytes(FILES[bomb])
        assert zstore(["ingest", "rows.csv", "new.zarr", "--config", "fit.yaml"]) == 2
        assert is_over_a_limit(capsys.readouterr().err)
    assert not Path("new.zarr").exists()


def n_values(document: Any) -> int:
    inner = [*document, *document.values()] if isinstance(document, dict) else document
    return 1 + (sum(n_values(each) for each in inner) if isinstance(inner, list) else 0)


def n_levels(document: Any) -> int:
    inner = list(document.values()) if isinstance(document, dict) else document
    return 1 + max(map(n_levels, inner), default=0) if isinstance(inner, list) else 0


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 9), min_size=1, max_size=5)), min_size=1, max_size=9))
def test_values_and_levels_are_counted_as_if_aliases_were_written_out(nodes: list[tuple[bool, list[int]]]) -> None:
    lines: list[str] = ["a0: &a0 x"]
    documents: list[Any] = ["x"]
    for number, (is_map, inner) in enumerate(nodes, 1):
        known = [each % number for each in inner]
        words = [f"*a{each}" for each in known]
        names = [f"k{place}: {word}" for place, word in enumerate(words)]
        lines.append(f"a{number}: &a{number} " + (f"{{{', '.join(names)}}}" if is_map else f"[{', '.join(words)}]"))
        whole = [documents[each] for each in known]
        documents.append({f"k{place}": each for place, each in enumerate(whole)} if is_map else whole)
    document = {f"a{number}": each for number, each in enumerate(documents)}
    assert yaml.safe_load("\n".join(lines)) == document
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zstore.yamlfiles.MOST_VALUES", n_values(document))
        patch.setattr("zstore.yamlfiles.MOST_LEVELS", n_levels(document))
        check_yaml("\n".join(lines))
        patch.setattr("zstore.yamlfiles.MOST_VALUES", n_values(document) - 1)
        with pytest.raises(ValueError, match="values, aliases followed"):
            check_yaml("\n".join(lines))
        patch.setattr("zstore.yamlfiles.MOST_VALUES", n_values(document))
        patch.setattr("zstore.yamlfiles.MOST_LEVELS", n_levels(document) - 1)
        with pytest.raises(ValueError, match="levels"):
            check_yaml("\n".join(lines))


NOTHING = ("null", "NULL", "~", "#1")  # in YAML, and real names of columns, ids and delimiters


@pytest.mark.parametrize("word", NOTHING)
def test_what_yaml_takes_for_nothing_is_a_text_on_a_command_line(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text(f"{word},t,v,w\n{word},1,2,{word}\nb,1,3,{word}\n")
    ingest = ["ingest", "rows.csv", "s.zarr", "--time", "t", "--quiet"]
    assert zstore([*ingest, "--id", word, "--missing", f"w={word}", "--channels", "v"]) == 0
    assert open_store("s.zarr").ids.tolist() == sorted([word, "b"])
    assert zstore(["export", "s.zarr", "out.csv", "--ids", word, "--quiet"]) == 0
    assert Path("out.csv").read_text().splitlines()[1:] == [f'"{word}",1,2']
    assert zstore([*ingest, "--id", "v", "--leave-out", word, "--overwrite"]) == 0
    assert open_store("s.zarr").channels == ("w",)


def test_null_in_a_configuration_leaves_an_option_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("null,t,v\na,1,2\nb,2,3\n")
    Path("options.yaml").write_text("time: t\nid: null\nleave_out: ~\ndelimiter: null\nrename: null\n")
    assert zstore(["ingest", "rows.csv", "s.zarr", "--config", "options.yaml", "--quiet"]) == 0
    assert (open_store("s.zarr").n_series, open_store("s.zarr").channels) == (1, ("null", "v"))
    Path("options.yaml").write_text("time: t\nid: 'null'\n")
    assert zstore(["ingest", "rows.csv", "s.zarr", "--config", "options.yaml", "--quiet", "--overwrite"]) == 0
    assert open_store("s.zarr").ids.tolist() == ["a", "b"]


def test_a_tilde_is_a_delimiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("t,v\n1,5\n")
    assert zstore(["ingest", "rows.csv", "s.zarr", "--time", "t", "--quiet", "--delimiter", "~"]) == 2
    assert "no column 't'; expected one of 't,v'" in capsys.readouterr().err
