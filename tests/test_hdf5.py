"""HDF5 files as sources, in four layouts, with h5py's own reading of them as the oracle."""

from __future__ import annotations

import csv
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
import yaml
from conftest import REPOSITORY, SMALL_GRID, no_flush, stored
from hdf5files import QWERTY, aloha, robomimic, session
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import zstore
from zstore import SourceError, Store, UsageError, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.planner import plan_ingest
from zstore.writing.sources.files import find
from zstore.writing.sources.hdf5.clock import Clock
from zstore.writing.sources.hdf5.library import opened
from zstore.writing.sources.hdf5.source import Hdf5Source
from zstore.writing.sources.hdf5.table import holder_of
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import Payload, PayloadError


def vector(store: Store, id_: str, name: str, width: int) -> NDArray[Any]:
    """(row, item) a vector of one series, as the store has it."""
    row = store.index.row_start
    position = [str(each) for each in store.ids].index(id_)
    start, stop = int(row[position]), int(row[position + 1])
    return np.stack([store.read(f"{name}.{item}", start, stop) for item in range(width)], axis=1)


def channel(store: Store, id_: str, name: str) -> NDArray[Any]:
    position = [str(each) for each in store.ids].index(id_)
    start, stop = store.index.row_start[position : position + 2].tolist()
    return np.asarray(store.read(name, start, stop))


def times(store: Store, id_: str) -> list[int]:
    position = [str(each) for each in store.ids].index(id_)
    start, stop = store.index.row_start[position : position + 2].tolist()
    return [int(time) for time in store.times(start, stop)]


def statics(store: Store) -> dict[str, list[Any]]:
    """By name, the value of each series."""
    return {
        static.name: [
            float(value) if static.categories is None else (static.categories[value] if value >= 0 else None)
            for value in static.values.tolist()
        ]
        for static in store.statics
    }


# The four layouts, by the command that a user types.


def test_sessions_of_emg2pose_have_every_value_of_h5py_and_failed_labels_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"session{n}": session(tmp_path / f"session{n}.h5", seed=n, n_rows=500 + n) for n in range(2)}
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", "session*.h5", "s.zarr", "--mapping", "emg2pose", "--quiet"]) == 0
    store = open_store("s.zarr")
    assert list(store.channels) == [*(f"emg.{n}" for n in range(16)), *(f"joint_angles.{n}" for n in range(20))]
    for id_, expected in rows.items():
        np.testing.assert_array_equal(vector(store, id_, "emg", 16), expected["emg"])
        angles = np.where(expected["joint_angles"].any(axis=1, keepdims=True), expected["joint_angles"], np.nan)
        np.testing.assert_array_equal(vector(store, id_, "joint_angles", 20), angles.astype("f4"))
        assert times(store, id_) == list(range(len(expected)))
    known = statics(store)
    assert known["session"] == ["session0", "session1"]
    assert known["sample_rate"] == [2000.0, 2000.0]
    assert known["time_start"] == [rows[id_]["time"][0] for id_ in rows]
    assert compare_sources(store, "session*.h5").n_different == 0


def test_sessions_of_emg2qwerty_leave_long_attributes_out_and_say_so(tmp_path: Path) -> None:
    rows = session(tmp_path / "a.hdf5", QWERTY)
    receipt = zstore.ingest(tmp_path / "a.hdf5", tmp_path / "s.zarr", mapping="emg2qwerty")
    store = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(vector(store, "a", "emg_right", 16), rows["emg_right"])
    assert "keystrokes" not in statics(store)
    assert [note for note in receipt.notes if "keystrokes" in note and "left out" in note]


def test_a_long_attribute_that_is_named_is_kept(tmp_path: Path) -> None:
    session(tmp_path / "a.hdf5", QWERTY)
    mapping = {
        "episodes": "emg2qwerty",
        "vectors": {"emg_left": {"data": "timeseries", "member": "emg_left"}},
        "statics": {"attributes": ["keystrokes"]},
    }
    zstore.ingest(tmp_path / "a.hdf5", tmp_path / "s.zarr", mapping=mapping)
    with h5py.File(tmp_path / "a.hdf5") as file:
        expected = file["emg2qwerty"].attrs["keystrokes"]
    assert statics(open_store(tmp_path / "s.zarr")) == {"keystrokes": [expected]}


def test_episodes_of_aloha_have_every_value_of_h5py(tmp_path: Path) -> None:
    made = {f"episode_{n}": aloha(tmp_path / f"episode_{n}.hdf5", 20 + n, n) for n in range(3)}
    command = ["ingest", str(tmp_path / "episode_*.hdf5"), str(tmp_path / "s.zarr"), "--mapping", "aloha"]
    assert main([*command, "--leave-out", "cam_high,cam_low", "--quiet"]) == 0
    store = open_store(tmp_path / "s.zarr")
    for id_, expected in made.items():
        for name in ("action", "qpos", "qvel"):
            np.testing.assert_array_equal(vector(store, id_, name, 14), expected[name])
    assert statics(store) == {"sim": [1.0, 1.0, 1.0]}


def test_demonstrations_of_robomimic_have_every_value_of_h5py_and_the_splits_of_their_masks(tmp_path: Path) -> None:
    made = robomimic(tmp_path / "low_dim.hdf5")
    assert main(["ingest", str(tmp_path / "low_dim.hdf5"), str(tmp_path / "s.zarr"), "--mapping", "robomimic"]) == 0
    store = open_store(tmp_path / "s.zarr")
    for id_, expected in made.items():
        for name, width in (("actions", 7), ("states", 5), ("robot0_eef_pos", 3)):
            known = expected[name if name in expected else f"obs/{name}"]
            np.testing.assert_array_equal(vector(store, id_, name, width), known.astype("f4"))
        for name in ("rewards", "dones", "gripper"):
            known = expected[name if name in expected else f"obs/{name}"]
            np.testing.assert_array_equal(channel(store, id_, name), known.astype("f4"))
    facts = statics(store)
    assert facts["split"] == ["train", "train", "valid"]
    assert facts["mask_20_percent"] == [1.0, 0.0, 0.0]
    assert facts["num_samples"] == [12.0, 9.0, 15.0]
    assert "model_file" not in facts


def test_images_of_aloha_and_robomimic_are_fields_with_every_value_of_h5py(tmp_path: Path) -> None:
    made = {f"episode_{n}": aloha(tmp_path / f"episode_{n}.hdf5", 7 + n, n) for n in range(2)}
    zstore.ingest(tmp_path / "episode_*.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store = open_store(tmp_path / "s.zarr")
    names = ["cam_high", "cam_low"]
    frames = {name: np.concatenate([made[id_]["images"][name] for id_ in made]) for name in names}
    for name in names:
        np.testing.assert_array_equal(zstore.open_field(store, name), frames[name])
    assert list(store.channels) == [f"{name}.{n}" for name in ("action", "qpos", "qvel") for n in range(14)]


# What all sources share.


@pytest.mark.parametrize("scheduler", [None, pytest.param("local", marks=pytest.mark.long)])
def test_one_and_two_workers_and_a_cluster_make_the_same_bytes(scheduler: str | None, tmp_path: Path) -> None:
    for n in range(2):
        session(tmp_path / f"{n}.h5", seed=n, n_rows=1500 + n)
    robomimic(tmp_path / "demos.hdf5", range(1, 20), images=True)
    for files, mapping in (("*.h5", "emg2pose"), ("demos.hdf5", "robomimic")):
        options: dict[str, Any] = {"mapping": mapping, **SMALL_GRID} if mapping == "robomimic" else {"mapping": mapping}
        zstore.ingest(tmp_path / files, tmp_path / f"one {mapping}.zarr", **options, workers=1)
        again = {**options, "workers": 2, "blocksize": 50_000, "scheduler": scheduler}
        zstore.ingest(tmp_path / files, tmp_path / f"two {mapping}.zarr", **again)
        assert stored(tmp_path / f"one {mapping}.zarr") == stored(tmp_path / f"two {mapping}.zarr")


def test_sessions_that_are_appended_are_those_of_one_ingest_with_their_static_attributes(tmp_path: Path) -> None:
    for n in range(3):
        session(tmp_path / f"{n}.h5", seed=n, n_rows=300 + n)
    options = ["--mapping", "emg2pose", "--quiet", "--append"]
    for name in ("1.h5", "[02].h5", "*.h5"):
        assert main(["ingest", str(tmp_path / name), str(tmp_path / "s.zarr"), *options]) == 0
    zstore.ingest(tmp_path / "*.h5", tmp_path / "whole.zarr", mapping="emg2pose")
    store, whole = open_store(tmp_path / "s.zarr"), open_store(tmp_path / "whole.zarr")
    assert store.version == 2
    assert statics(store) == statics(whole)
    for id_ in map(str, whole.ids):
        np.testing.assert_array_equal(vector(store, id_, "emg", 16), vector(whole, id_, "emg", 16))
        assert times(store, id_) == times(whole, id_)
    comparison = compare_sources(store, tmp_path / "*.h5")
    assert (comparison.n_rows, comparison.n_different, comparison.n_unseen) == (903, 0, 0)


def test_an_append_by_another_mapping_is_refused(tmp_path: Path) -> None:
    session(tmp_path / "a.h5")
    session(tmp_path / "b.h5", seed=1)
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")
    command = ["ingest", str(tmp_path / "b.h5"), str(tmp_path / "s.zarr"), "--append", "--mapping"]
    assert main([*command, "emg2qwerty"]) == 2
    assert main([*command, "emg2pose"]) == 0


@pytest.mark.parametrize("n_points", [4, pytest.param(60, marks=pytest.mark.long)])
def test_a_run_that_is_killed_anywhere_is_gone_on_with(n_points: int, tmp_path: Path) -> None:
    for n in range(2):
        session(tmp_path / f"{n}.h5", seed=n, n_rows=300)
    options: dict[str, Any] = {"mapping": "emg2pose", "workers": 1, **SMALL_GRID}
    options |= {"shard_rows": 256, "chunk_rows": 64}
    zstore.ingest(tmp_path / "*.h5", tmp_path / "whole/s.zarr", **options)
    words = [sys.executable, str(REPOSITORY / "tests/killer.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        for point in np.unique(np.linspace(0, 150, n_points, dtype=int)).tolist():
            folder = tmp_path / str(point)
            arguments = {"sources": str(tmp_path / "*.h5"), "store": str(folder / "s.zarr"), **options}
            wanted = {"point": point, "folder": str(folder), "operation": "ingest", "arguments": arguments}
            killer.stdin.write(json.dumps(wanted) + "\n")
            killer.stdin.flush()
            if int(killer.stdout.readline()) != 0:
                zstore.ingest(tmp_path / "*.h5", folder / "s.zarr", **options)
            assert stored(folder / "s.zarr") == stored(tmp_path / "whole/s.zarr")
        killer.stdin.close()


def test_the_dry_run_knows_the_rows_from_the_layout(tmp_path: Path) -> None:
    session(tmp_path / "a.h5", n_rows=3000)
    robomimic(tmp_path / "d.hdf5", [5, 7, 9])
    assert abs(plan_ingest(tmp_path / "a.h5", mapping="emg2pose").n_rows - 3000) <= 1
    assert abs(plan_ingest(tmp_path / "d.hdf5", mapping="robomimic").n_rows - 21) <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "d.hdf5"]
    aloha(tmp_path / "e.hdf5", n_rows=40)
    planned = plan_ingest(tmp_path / "e.hdf5", mapping="aloha")
    assert abs(planned.n_rows - 40) <= 1


# Damage, and what must not be followed.


def quarantined(path: Path) -> list[list[str]]:
    """Rows set aside: file, episode, row, reason, text."""
    with path.with_name(f"{path.name}.quarantine.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_a_damaged_chunk_loses_its_own_rows_alone(tmp_path: Path) -> None:
    rows = session(tmp_path / "a.h5", n_rows=2000)
    with h5py.File(tmp_path / "a.h5") as file:
        chunk = file["emg2pose/timeseries"].id.get_chunk_info(20)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[chunk.byte_offset + 8 : chunk.byte_offset + chunk.size] = bytes(chunk.size - 8)
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(SourceError, match="damage in rows 1,280 to 1,343 of data set /emg2pose/timeseries"):
        zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")
    assert not (tmp_path / "s.zarr").exists()
    receipt = zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose", on_bad_row="quarantine")
    assert (receipt.n_rows_in, receipt.n_stored, receipt.n_quarantined) == (2000, 1936, 64)
    assert [(row[1], row[2], row[4]) for row in quarantined(tmp_path / "s.zarr")] == [("/emg2pose", "1280", "64 rows")]
    store = open_store(tmp_path / "s.zarr")
    known = np.delete(np.arange(2000), np.arange(1280, 1344))
    assert times(store, "a") == known.tolist()
    np.testing.assert_array_equal(vector(store, "a", "emg", 16), rows["emg"][known])


def replaced_actions(path: Path, replace: Callable[[h5py.File, h5py.Group], None]) -> None:
    """Write demonstrations, of which the second has other actions."""
    robomimic(path)
    with h5py.File(path.with_name("secret.h5"), "w") as secret:
        secret["d"] = np.zeros((9, 7))
    with h5py.File(path, "a", libver="latest") as file:
        group = file["data/demo_1"]
        del group["actions"]
        replace(file, group)


def virtual(file: h5py.File, group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((9, 7), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "d", shape=(9, 7))
    group.create_virtual_dataset("actions", layout)


def by_way_of_a_link(file: h5py.File, group: h5py.Group) -> None:
    file["out"] = h5py.ExternalLink("secret.h5", "/")
    group["actions"] = h5py.SoftLink("/out/d")


def filtered(file: h5py.File, group: h5py.Group) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((9, 7))
    creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((9, 7))
    h5py.h5d.create(group.id, b"actions", h5py.h5t.NATIVE_DOUBLE, space, creation)


REPLACED: dict[str, tuple[Callable[[h5py.File, h5py.Group], Any], str]] = {
    "length": (lambda _, group: group.create_dataset("actions", data=np.zeros((8, 7))), "8 rows in data set"),
    "missing": (lambda *_: None, "no /data/demo_1/actions"),
    "external link": (lambda _, g: g.__setitem__("actions", h5py.ExternalLink("secret.h5", "d")), "to another file"),
    "soft link": (by_way_of_a_link, "link /out to another file"),
    "loop": (lambda _, group: group.__setitem__("actions", h5py.SoftLink("actions")), "soft link"),
    "virtual": (virtual, "virtual data set"),
    "external": (
        lambda _, g: g.create_dataset("actions", (9, 7), "f8", external=[("secret.h5", 0, 504)]),
        "in an external file",
    ),
    "vlen": (lambda _, group: group.create_dataset("actions", (9,), h5py.vlen_dtype("f8")), "variable length"),
    "references": (lambda _, group: group.create_dataset("actions", (9,), h5py.ref_dtype), "references"),
    "unwritten": (lambda _, group: group.create_dataset("actions", (9, 7), "f8"), "of which 0 are in the file"),
    "unwritten chunks": (
        lambda _, g: g.create_dataset("actions", (9, 7), "f8", chunks=(3, 7)).__setitem__(0, 1.0),
        "of which 168 are in the file",
    ),
    "unwritten gzip": (
        lambda _, g: g.create_dataset("actions", (9, 7), "f8", chunks=(3, 7), compression="gzip").__setitem__(0, 1.0),
        "of 3 chunks, of which 1 are in the file",
    ),
    "huge": (lambda _, group: group.create_dataset("actions", (9, 10**12), "f8", chunks=(1, 1000)), "are in the file"),
    "huge chunk": (
        lambda _, g: g.create_dataset("actions", (9, 7), "f8", chunks=(1 << 24, 7), maxshape=(None, 7)),
        "chunks of 939,524,096 bytes",
    ),
    "filter": (filtered, "filter 32015"),
    "type": (lambda _, group: group.create_dataset("actions", data=np.zeros((9, 7), "c16")), "of type complex128"),
    "rank": (lambda _, group: group.create_dataset("actions", data=np.zeros((9, 7, 2))), "7×2 values a row"),
    "width": (lambda _, group: group.create_dataset("actions", data=np.zeros((9, 6))), "'actions' in /data/demo_1"),
    "group": (lambda _, group: group.create_group("actions"), "which is no data set"),
}


@pytest.mark.parametrize("case", REPLACED)
def test_a_data_set_that_cannot_be_read_is_refused_by_name_or_its_episode_is_set_aside(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_flush(monkeypatch)
    monkeypatch.chdir(tmp_path)
    replace, told = REPLACED[case]
    replaced_actions(Path("d.hdf5"), replace)
    with pytest.raises(SourceError, match=re.escape(told)) as refused:
        zstore.ingest("d.hdf5", "s.zarr", mapping="robomimic")
    assert "d.hdf5 /data/demo_1" in str(refused.value)
    assert not Path("s.zarr").exists()
    zstore.ingest("d.hdf5", "s.zarr", mapping="robomimic", on_bad_row="quarantine")
    assert [str(id_) for id_ in open_store("s.zarr").ids] == ["demo_0", "demo_2"]
    assert [row[:2] for row in quarantined(Path("s.zarr"))] == [["d.hdf5", "/data/demo_1"]]


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"id,time\n1,2\n"])
def test_a_file_that_is_truncated_or_none_is_refused_or_set_aside_whole(content: bytes, tmp_path: Path) -> None:
    session(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(content or whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"damaged HDF5 file .*b\.h5"):
        zstore.ingest(tmp_path / "*.h5", tmp_path / "s.zarr", mapping="emg2pose")
    zstore.ingest(tmp_path / "*.h5", tmp_path / "s.zarr", mapping="emg2pose", on_bad_row="quarantine")
    assert [str(id_) for id_ in open_store(tmp_path / "s.zarr").ids] == ["a"]
    assert [row[0] for row in quarantined(tmp_path / "s.zarr")] == [str(tmp_path / "b.h5")]


def test_a_file_that_changes_while_it_is_read_is_told_as_such(tmp_path: Path) -> None:
    session(tmp_path / "a.h5", n_rows=3000)
    file = find(tmp_path / "a.h5", "SRC")

    def changed() -> None:
        with opened(file) as root:
            (tmp_path / "a.h5").write_bytes(b"other")
            root["emg2pose/timeseries"][2000:]

    with pytest.raises(SourceError, match="changed while it was read"):
        changed()


# Times.


def clocked(path: Path, moved: Callable[[NDArray[Any]], NDArray[Any]], n_rows: int = 300) -> NDArray[Any]:
    """A session whose times are moved; in steps of 1 / 2000 s."""
    rows = session(path, n_rows=n_rows)
    rows["time"] = 1.66e9 + moved(np.arange(n_rows, dtype=np.float64)) / 2000
    with h5py.File(path, "a") as file:
        file["emg2pose/timeseries"][...] = rows
    return rows


def moved_row(row: int, steps: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda t: np.where(np.arange(len(t)) == row, t + steps, t)


@pytest.mark.parametrize(
    ("moved", "lost"),
    [
        (moved_row(100, 0.49), []),
        (moved_row(100, -0.49), []),
        (moved_row(100, 0.7), [100]),
        (moved_row(100, -0.7), [100]),
        (moved_row(0, 0.7), [0]),
        (moved_row(299, -0.7), [299]),
        (moved_row(100, 50), [100, 101]),
        (moved_row(100, np.nan), [100]),
        (moved_row(100, np.inf), [100]),
    ],
)
def test_a_time_more_than_half_a_step_off_is_a_bad_row_with_file_and_position(
    moved: Callable[[NDArray[Any]], NDArray[Any]], lost: list[int], tmp_path: Path
) -> None:
    clocked(tmp_path / "a.h5", moved)
    if lost:
        with pytest.raises(SourceError, match=rf"a\.h5 /emg2pose row {lost[0]}"):
            zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose", on_bad_row="quarantine")
    store = open_store(tmp_path / "s.zarr")
    first = 1 if 0 in lost else 0  # steps count from the first row that has one
    assert times(store, "a") == [row - first for row in range(300) if row not in lost]
    if lost:
        assert [int(row[2]) for row in quarantined(tmp_path / "s.zarr")] == lost


def test_a_stretch_without_rows_is_a_gap(tmp_path: Path) -> None:
    clocked(tmp_path / "a.h5", lambda t: np.where(t >= 100, t + 40, t))
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")
    assert times(open_store(tmp_path / "s.zarr"), "a") == [*range(100), *range(140, 340)]


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_times_of_another_rate_are_refused(factor: float, tmp_path: Path) -> None:
    clocked(tmp_path / "a.h5", lambda t: t * factor)
    with pytest.raises(SourceError, match="a second; expected 2000, as the mapping's rate says"):
        zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping="emg2pose")


@settings(max_examples=30)
@given(
    rate=st.sampled_from([1.0, 30.0, 1000 / 3, 2000.0, 48_000.0]),
    origin=st.sampled_from([0.0, 12.5, 1.66e9]),
    seed=st.integers(0, 1000),
    cut=st.integers(1, 198),
)
def test_steps_do_not_depend_on_where_rows_are_cut(rate: float, origin: float, seed: int, cut: int) -> None:
    random = np.random.default_rng(seed)
    whole = np.cumsum(random.choice([1, 1, 1, 1, 7], 200))
    times = origin + (whole + random.uniform(-0.4, 0.4, 200)) / rate
    clock = Clock.of(times, rate)
    steps, wrong = clock.steps(times, None)
    assert wrong == {}
    np.testing.assert_array_equal(np.diff(steps), np.diff(whole))
    before, behind = clock.steps(times[:cut], None), clock.steps(times[cut:], float(times[cut - 1]))
    assert np.concatenate([before[0], behind[0]]).tolist() == steps.tolist()
    assert (before[1], behind[1]) == ({}, {})


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


# Payloads of fields.


def bytes_of(payload: Payload) -> bytes:
    return bytes(payload.value.tobytes())


def field_readers(path: Path, mapping: str) -> tuple[Any, dict[str, Any], list[str]]:
    """The opened file, its readers by name of the field, and holders of its episodes."""
    options = TableOptions.of({"mapping": mapping})
    table = Hdf5Source().open_one(find(path, "SRC"), options)
    fields = Hdf5Source().fields([table], options)
    groups = dict.fromkeys(stretch.episode.group for group in table.groups for stretch in group)
    return table, {field.name: field.reader for field in fields}, [holder_of(table.file, group) for group in groups]


@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 99), chunk=st.integers(1, 5))
def test_dense_payloads_are_the_rows_of_h5py_in_any_order(
    data: st.DataObject, seed: int, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("dense") / "a.hdf5"
    dtype = data.draw(st.sampled_from(["u1", ">i2", "<f4", "f8", "?"]))
    images = np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 200, (12, 4, 5)).astype(dtype)
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(12)
        file.create_dataset("image", data=images, chunks=(chunk, 4, 5))
    mapping = json.dumps({"channels": {"x": "x"}, "fields": {"image": {"data": "image", "dimensions": ["y", "x"]}}})
    _, readers, (holder,) = field_readers(path, mapping)
    positions = data.draw(st.lists(st.integers(0, 11), max_size=20))
    payloads = list(readers["image"].read(holder, positions))
    assert [bytes_of(payload) for payload in payloads] == [
        images[position].astype(images.dtype.newbyteorder("=")).tobytes() for position in positions
    ]
    assert {payload.digest for payload in payloads} == {
        xxhash.xxh3_128(images[position].tobytes()).digest() for position in positions
    }
    look = readers["image"].look(holder, 3)
    assert (look.shape, look.dtype, look.n_bytes) == ((4, 5), images.dtype.newbyteorder("=").name, images[0].nbytes)


@pytest.mark.parametrize("cameras", [("cam_high", "cam_low"), ("cam_low", "cam_high", "a")])
def test_jpegs_of_aloha_are_the_exact_bytes_whatever_the_order_of_cameras(
    cameras: tuple[str, ...], tmp_path: Path
) -> None:
    made = aloha(tmp_path / "a.hdf5", compress=True, cameras=cameras)["images"]
    _, readers, (holder,) = field_readers(tmp_path / "a.hdf5", "aloha")
    assert sorted(readers) == sorted(cameras)
    for name, reader in readers.items():
        positions = [*range(20), 3, 3, 19, 0]
        assert [bytes_of(payload) for payload in reader.read(holder, positions)] == [made[name][n] for n in positions]
        assert reader.look(holder, 7)[:3] == (None, "uint8", len(made[name][7]))


def damaged_frame(file: h5py.File) -> None:
    rows = file["observations/images/cam_high"]
    row = rows[5]
    length = int(np.flatnonzero(row)[-1]) + 1
    row[length - 2 : length] = 0
    rows[5] = row


def longer_frame(file: h5py.File) -> None:
    lengths = file["compress_len"]
    lengths[0, 5] -= 3


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damaged_frame, "JPEG|lengths"),
        (longer_frame, "bytes behind the|lengths"),
        (lambda file: file["observations/images/cam_high"].__setitem__(5, 0), "no image|lengths"),
        (lambda file: file["compress_len"].__setitem__((0, 5), 0.5), "whole numbers"),
        (lambda file: file["compress_len"].__setitem__((0, 5), np.nan), "whole numbers"),
        (lambda file: file["compress_len"].__setitem__((0, 5), 1e9), "whole numbers"),
        (lambda file: file.__delitem__("compress_len"), "no /compress_len"),
    ],
)
def test_an_image_that_is_not_whole_is_a_fault_with_its_row(
    damage: Callable[[h5py.File], None], told: str, tmp_path: Path
) -> None:
    aloha(tmp_path / "a.hdf5", compress=True)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        damage(file)
    _, readers, (holder,) = field_readers(tmp_path / "a.hdf5", "aloha")
    with pytest.raises(PayloadError) as refused:
        list(readers["cam_high"].read(holder, range(20)))
    assert re.search(told, f"{refused.value.reason} {refused.value.expected}")


def test_payloads_that_are_too_large_or_gone_are_faults(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    _, readers, (holder,) = field_readers(tmp_path / "a.hdf5", "aloha")
    reader = readers["cam_high"]
    assert reader.show(holder, 7) == f"{tmp_path / 'a.hdf5'}: /observations/images/cam_high, row 7"
    with pytest.raises(PayloadError, match="row 20 of"):
        reader.look(holder, 20)
    with pytest.raises(PayloadError, match="144 bytes in a row"):
        replace(reader, most_bytes=143).look(holder, 0)
    (tmp_path / "a.hdf5").unlink()
    with pytest.raises(PayloadError, match="no file"):
        reader.look(holder, 0)


def test_a_damaged_image_is_refused_with_file_and_row(tmp_path: Path) -> None:
    aloha(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        images = file["observations/images/cam_low"][:]
        del file["observations/images/cam_low"]
        made = file.create_dataset("observations/images/cam_low", data=images, chunks=(1, 6, 8, 3), fletcher32=True)
        offset = made.id.get_chunk_info(13).byte_offset
    content = bytearray((tmp_path / "a.hdf5").read_bytes())
    content[offset + 5] ^= 1
    (tmp_path / "a.hdf5").write_bytes(content)
    with pytest.raises(SourceError, match=r"/observations/images/cam_low.*13"):
        zstore.ingest(tmp_path / "a.hdf5", tmp_path / "s.zarr", mapping="aloha")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("odd", [np.zeros((7, 5, 5, 3), "u1"), np.zeros((7, 6, 8, 3), "f4"), None])
def test_an_episode_whose_images_are_of_another_kind_is_refused_or_set_aside(odd: Any, tmp_path: Path) -> None:
    for n in range(3):
        aloha(tmp_path / f"{n}.hdf5", 7, n)
    with h5py.File(tmp_path / "0.hdf5", "a") as file:
        del file["observations/images/cam_low"]
        if odd is not None:
            file["observations/images/cam_low"] = odd
    with pytest.raises(SourceError, match=r"field 'cam_low' .*expected uint8 of 6×8×3 as in .*1\.hdf5"):
        zstore.ingest(tmp_path / "*.hdf5", tmp_path / "s.zarr", mapping="aloha")
    zstore.ingest(tmp_path / "*.hdf5", tmp_path / "s.zarr", mapping="aloha", on_bad_row="quarantine")
    assert [str(id_) for id_ in open_store(tmp_path / "s.zarr").ids] == ["1", "2"]
    zstore.ingest(tmp_path / "*.hdf5", tmp_path / "t.zarr", mapping="aloha", leave_out=["cam_low"])
    assert [str(id_) for id_ in open_store(tmp_path / "t.zarr").ids] == ["0", "1", "2"]


def test_images_that_are_appended_stand_behind_those_of_before(tmp_path: Path) -> None:
    made = {f"e{n}": aloha(tmp_path / f"e{n}.hdf5", 6 + n, n) for n in range(3)}
    for name in ("e1", "e[02]"):
        command = ["ingest", str(tmp_path / f"{name}.hdf5"), str(tmp_path / "s.zarr"), "--mapping", "aloha"]
        assert main([*command, "--append", "--quiet"]) == 0
    store = open_store(tmp_path / "s.zarr")
    assert [str(id_) for id_ in store.ids] == list(made)
    expected = np.concatenate([made[id_]["images"]["cam_high"] for id_ in made])
    np.testing.assert_array_equal(zstore.open_field(store, "cam_high"), expected)
    zstore.compact(tmp_path / "s.zarr")
    np.testing.assert_array_equal(zstore.open_field(open_store(tmp_path / "s.zarr"), "cam_high"), expected)


def test_a_star_takes_the_data_sets_that_have_rows_and_refuses_those_of_other_lengths(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.arange(3.0), np.ones((3, 2))
        file["scalar"], file["empty"], file["deep/x"] = 5.0, h5py.Empty("f8"), np.arange(9)
    mapping = {"channels": {"*": "*"}, "vectors": {"v.*": "*"}}
    zstore.ingest(tmp_path / "a.h5", tmp_path / "s.zarr", mapping=mapping)
    assert list(open_store(tmp_path / "s.zarr").channels) == ["x", "v.y.0", "v.y.1"]
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["z"] = np.arange(4.0)
    with pytest.raises(SourceError, match="4 rows in data set /z; expected 3 as in /x"):
        zstore.ingest(tmp_path / "a.h5", tmp_path / "t.zarr", mapping=mapping)


NUMBERS = st.sampled_from(["?", "i1", ">i2", "<u4", ">i8", "f2", ">f4", "f8"])


@settings(max_examples=20)
@given(
    dtypes=st.lists(st.tuples(NUMBERS, st.integers(0, 3)), min_size=1, max_size=5),
    chunk=st.none() | st.integers(1, 9),
    compression=st.sampled_from([None, "gzip", "lzf"]),
    compound=st.booleans(),
    seed=st.integers(0, 999),
)
def test_values_of_every_type_layout_and_width_are_those_of_h5py(
    dtypes: list[tuple[str, int]],
    chunk: int | None,
    compression: str | None,
    compound: bool,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_flush(monkeypatch)
    path, random = tmp_path_factory.mktemp("types"), np.random.default_rng(seed)
    columns = {
        f"c{n}": random.integers(0, 2 if dtype == "?" else 100, (9, width) if width else 9).astype(dtype)
        for n, (dtype, width) in enumerate(dtypes)
    }
    writing: dict[str, Any] = {}
    if chunk is not None:
        writing = {"compression": compression, "shuffle": True}
    with h5py.File(path / "a.h5", "w") as file:
        if compound:
            kinds = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
            rows = np.zeros(9, kinds)
            for name, values in columns.items():
                rows[name] = values
            file.create_dataset("rows", data=rows, chunks=None if chunk is None else (chunk,), **writing)
        else:
            for name, values in columns.items():
                chunks = None if chunk is None else (chunk, *values.shape[1:])
                file.create_dataset(name, data=values, chunks=chunks, **writing)
    where = {name: {"data": "rows", "member": name} if compound else name for name in columns}
    mapping = {
        "channels": {name: where[name] for name, values in columns.items() if values.ndim == 1},
        "vectors": {name: where[name] for name, values in columns.items() if values.ndim == 2},
    }
    zstore.ingest(path / "a.h5", path / "s.zarr", mapping=mapping, dtype="float64", blocksize=1000)
    store = open_store(path / "s.zarr")
    for name, values in columns.items():
        if values.ndim == 1:
            np.testing.assert_array_equal(channel(store, "a", name), values.astype("f8"))
        else:
            np.testing.assert_array_equal(vector(store, "a", name, values.shape[1]), values.astype("f8"))
    assert compare_sources(store, path / "a.h5").n_different == 0


def test_no_handle_outlives_a_read_and_none_is_pickled(tmp_path: Path) -> None:
    session(tmp_path / "a.h5", n_rows=300)
    aloha(tmp_path / "b.hdf5")
    options = TableOptions.of({"mapping": "emg2pose"})
    files = [find(tmp_path / "a.h5", "SRC")]
    source = Hdf5Source()
    tables, spec = source.open(files, files, options)
    blocks = pickle.loads(pickle.dumps(source.cut(tables, spec, 1 << 20)))  # noqa: S301  # its own
    assert sum(columns.n_rows for block in blocks for columns in source.read(block, spec, keep_bad=False)) == 300
    zstore.ingest(tmp_path / "b.hdf5", tmp_path / "s.zarr", mapping="aloha")
    zstore.inspect_hdf5(tmp_path / "b.hdf5")
    kinds = h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_GROUP | h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_ATTR
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, kinds) == 0
