"""HDF5 files looked at before an ingest, and mappings that cannot be meant."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from hdf5files import QWERTY, aloha, robomimic, session, statics, vector

import zstore
from zstore import UsageError, open_store
from zstore.cli import main

# A look before an ingest.


@pytest.mark.parametrize(
    ("write", "preset"),
    [
        (lambda path: session(path), "emg2pose"),
        (lambda path: session(path, QWERTY), "emg2qwerty"),
        (lambda path: aloha(path), "aloha"),
        (lambda path: aloha(path, compress=True), "aloha"),
        (lambda path: robomimic(path, images=True), "robomimic"),
    ],
)
def test_inspect_names_the_preset_that_fits_and_a_command_that_works(
    write: Callable[[Path], object], preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.h5")
    assert main(["inspect", str(tmp_path / "a.h5")]) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [
        f"the preset {preset} fits",
        f"zstore ingest {tmp_path / 'a.h5'} a.zarr --mapping {preset}",
    ]


def test_inspect_writes_a_mapping_that_ingests_the_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = np.zeros(50, [("t", "f8"), ("x", "f4", (3,)), ("y", "i2")])
    rows["t"], rows["x"], rows["y"] = np.arange(50) / 30, random.normal(size=(50, 3)), np.arange(50)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("first", "second"):
            file[f"runs/{name}/log"] = rows
            file[f"runs/{name}/pose/x"] = random.normal(size=(50, 2))
            file[f"runs/{name}/words"] = np.array([b"on", b"off"] * 25)
            file[f"runs/{name}"].attrs["who"] = name
        file["runs/first/short"] = np.zeros(3)
        file["runs/second/short"] = np.zeros(3)
    look = zstore.inspect_hdf5(tmp_path / "a.h5")
    assert look.mapping == {
        "episodes": "runs/*",
        "id": "group",
        "time": {"data": "log", "member": "t", "rate": 30.0},
        "channels": {"y": {"data": "log", "member": "y"}, "words": "words"},
        "vectors": {"log.x": {"data": "log", "member": "x"}, "pose.x": "pose/x"},
        "statics": "attributes",
    }
    assert [q for q in look.questions if "/runs/first/short has 3 rows" in q]
    assert [q for q in look.questions if "30 rows a second" in q]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(dict(look.mapping)))
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping=tmp_path / "a.yaml")
    store = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(vector(store, "first", "log.x", 3), rows["x"])
    assert statics(store)["who"] == ["first", "second"]
    assert store.channel("words").categories == ("off", "on")


@pytest.mark.parametrize(("rate", "jitter_s", "digits"), [(1000, 2e-4, 9), (2000, 1e-4, 9), (30, 5e-3, 2), (7, 0, 3)])
def test_inspect_finds_the_rate_of_times_that_jitter_or_have_few_digits_or_gaps(
    rate: int, jitter_s: float, digits: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(rate)
    rows = np.zeros(3000, [("t", "f8"), ("x", "f4")])
    rows["t"] = np.round(np.arange(3000) / rate + random.uniform(-jitter_s, jitter_s, 3000), digits)
    rows["t"][1500:] += 0.7
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["run/log"] = rows
    assert dict(zstore.inspect_hdf5(tmp_path / "a.h5").mapping or {})["time"] == {
        "data": "log",
        "member": "t",
        "rate": rate,
    }


def test_the_tree_is_bounded_and_shows_links_without_following_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for n in range(3000):
            file.create_group(f"many/g{n}/inner")
        for n in range(300):
            file.create_group(f"wide{n}")[f"d{n}"] = np.zeros(2)
        file["loop"] = file["many/g0"]
        file["many/g0/inner/back"] = file["many"]
        file["out"] = h5py.ExternalLink("/etc/hostname", "/")
    look = zstore.inspect_hdf5(tmp_path / "a.h5")
    assert len(look.tree) <= 201
    assert "    … and 2,998 more" in [*look.tree, *(f"  {line}" for line in look.tree)]


def test_what_hard_links_name_twice_is_looked_at_once_and_circles_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["arm/hand/pose"] = np.zeros((5, 2))
        file["arm/root"] = file["/"]
        file["hand"] = file["arm/hand"]
        for n in range(20):
            file[f"odd/z{n}"] = np.zeros(n + 10)
    look = zstore.inspect_hdf5(tmp_path / "a.h5")
    assert look.tree[:5] == ("arm/", "  hand = /hand", "  root = /", "hand/", "  pose  5×2 f8")
    assert look.mapping is not None
    assert look.mapping["vectors"] == {"pose": "hand/pose"}
    assert len(look.questions) == 12
    assert "10 more have other numbers of rows than 5" in look.questions


def test_files_without_a_mapping_are_refused_with_the_command_that_would_read_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(tmp_path / "a.h5")
    assert main(["ingest", str(tmp_path / "a.h5"), str(tmp_path / "s.zarr")]) == 2
    assert f"zstore ingest {tmp_path / 'a.h5'} {tmp_path / 's.zarr'} --mapping emg2pose" in capsys.readouterr().err


def test_a_missing_h5py_is_told_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'zstore[hdf5]'")):
        zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"vectors": {"x": "x"}, "colour": 1}, "key 'colour'"),
        ({"channels": {}}, "without channels and vectors"),
        ({"vectors": {"time": "x"}}, "another name than id and time"),
        ({"vectors": {"x": "../x"}}, "a path of groups"),
        ({"vectors": {"x": "*/x"}}, "whole last part"),
        ({"vectors": {"*": "x"}}, "a * in the name"),
        ({"vectors": {"x": "x"}, "channels": {"x": "x"}}, "not among the channels"),
        ({"vectors": {"x": "x"}, "id": "group"}, "file, where each file is one episode"),
        ({"vectors": {"x": "x"}, "id": {"pattern": "abc"}}, "with a group"),
        ({"vectors": {"x": "x"}, "id": {"pattern": "("}}, "a regular expression"),
        ({"vectors": {"x": "x"}, "time": {"rate": -1}}, "rows a second"),
        ({"vectors": {"x": "x"}, "time": {"data": "t", "unit": "week"}}, "time unit 'week'"),
        ({"vectors": {"x": "x"}, "missing where": {"y": "all zero"}}, "a name of the channels or vectors"),
        ({"vectors": {"x": "x"}, "missing where": {"x": "nan"}}, "all zero"),
        ({"vectors": {"x": {"data": "x", "optional": "yes"}}}, "true or false"),
        ({"vectors": ["x"]}, "names and their data sets"),
        ({"vectors": {"x": "x"}, "statics": {"pattern": "(a)"}}, "named groups"),
        ({"vectors": {"x": "x"}, "fields": {"y": {"data": "y", "dimensions": "x"}}}, "a list of names"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused_by_its_key(
    document: dict[str, Any], told: str, tmp_path: Path
) -> None:
    session(tmp_path / "a.h5", n_rows=4)
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(document))
    for mapping in (document, tmp_path / "m.yaml", str(tmp_path / "m.yaml")):
        with pytest.raises(UsageError, match=re.escape(told)):
            zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping=mapping)


@pytest.mark.parametrize("flag", ["--id x", "--time x", "--time-unit s", "--id-from-path (a)", "--layout wide"])
def test_what_a_mapping_says_no_flag_says_too(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(tmp_path / "a.h5", n_rows=4)
    command = ["ingest", str(tmp_path / "a.h5"), str(tmp_path / "s.zarr"), "--mapping", "emg2pose", *flag.split()]
    assert main(command) == 2
    assert f"{flag.split()[0]} with --mapping" in capsys.readouterr().err


def test_a_mapping_of_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,time,v\na,0,1\n")
    with pytest.raises(UsageError, match="--mapping of CSV files"):
        zstore.ingest(tmp_path / "a.csv", tmp_path / "s.zarr", mapping="aloha")
