"""HDF5 in the layouts that are published, from published values: every value is h5py's, whoever dies meanwhile.

Values are generated in the formats of their publishers, or are the published ones where ``ZSTORE_TEST_DATA`` names the
folder that has them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import zarr
from conftest import REPOSITORY, stored
from origins import CAMERAS, episodes, features, generate, records, write_records
from published import LAYOUTS, Arrays, Layout

import zstore
from zstore.cli import main
from zstore.upkeep.compare import compare_sources

REAL = pytest.param("real", marks=pytest.mark.long)
N_KILLED = 3
"""Episodes of stores that are killed."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("generated"))


@pytest.fixture
def origin(request: pytest.FixtureRequest, generated: Path) -> Path:
    """The folder that values come from."""
    if request.param == "generated":
        return generated
    if "ZSTORE_TEST_DATA" not in os.environ:
        pytest.skip("ZSTORE_TEST_DATA names no folder of published data")
    return Path(os.environ["ZSTORE_TEST_DATA"])


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return LAYOUTS[str(request.param)]


def expected_of(layout: Layout, folder: Path) -> Arrays:
    found: Arrays = {}
    for path in layout.files(folder):
        found |= layout.read(path)
    return found


def assert_equal(store: zstore.Store, expected: Arrays) -> None:
    """Every id, name and value must be what is expected, and nothing else."""
    assert sorted(map(str, store.ids)) == sorted(expected)
    names = {name for arrays in expected.values() for name in arrays}
    fields = set(store.fields)
    assert {name.rpartition(".")[0] or name for name in store.channels} | fields == names
    for position, id_ in enumerate(map(str, store.ids)):
        start, stop = store.index.row_start[position : position + 2].tolist()
        for name, known in expected[id_].items():
            if isinstance(known, list):
                assert store.read_bytes(name, start, stop) == known
            elif known.ndim > 2:
                np.testing.assert_array_equal(store.read_field(name, start, stop), known)
            elif known.ndim == 2:
                items = [store.read(f"{name}.{item}", start, stop) for item in range(known.shape[1])]
                np.testing.assert_array_equal(np.stack(items, axis=1), known.astype("f4"))
            else:
                np.testing.assert_array_equal(store.read(name, start, stop), known.astype("f4"))


@pytest.mark.parametrize("origin", ["generated", REAL], indirect=True)
def test_the_command_that_a_user_types_stores_every_value_of_h5py(
    layout: Layout, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.write(origin, tmp_path, layout.n_episodes)
    monkeypatch.chdir(tmp_path)
    pattern = f"*{layout.files(tmp_path)[0].suffix}"
    assert main(["ingest", pattern, "s.zarr", "--mapping", layout.preset, "--quiet"]) == 0
    store = zstore.open_store("s.zarr")
    assert_equal(store, expected_of(layout, tmp_path))
    on_disk: Any = zarr.open_group("s.zarr", mode="r")
    assert {str(on_disk[name].dtype) for name in store.fields} <= {"uint8"}  # floats that are all whole, too
    assert compare_sources(store, pattern).n_different == 0
    assert zstore.verify(store).faults == ()


@pytest.mark.parametrize("origin", ["generated", REAL], indirect=True)
def test_jpegs_of_a_tfrecord_are_the_same_bytes_in_the_store(origin: Path, tmp_path: Path) -> None:
    LAYOUTS["aloha compressed"].write(origin, tmp_path, 99)
    zstore.ingest(tmp_path / "*.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store, n_images = zstore.open_store(tmp_path / "s.zarr"), 0
    ids = [str(id_) for id_ in store.ids]
    for number, episode in enumerate(episodes(origin)):
        position = ids.index(f"episode_{number}")
        start, stop = store.index.row_start[position : position + 2].tolist()
        for camera in CAMERAS:
            assert store.read_bytes(camera, start, stop) == episode.images[camera]
            n_images += stop - start
    assert n_images == store.n_rows * len(CAMERAS)


def test_a_tfrecord_that_was_written_is_read_with_every_value(tmp_path: Path) -> None:
    made = {"a": [b"", b"x" * 300], "b": np.array([0, 1, 127, 128, 2**40]), "c": np.array([0.5, -1e30], np.float32)}
    write_records(tmp_path / "a.tfrecord", [made, {"a": [b"y"]}])
    first, second = map(features, records(tmp_path / "a.tfrecord"))
    assert first["a"] == made["a"]
    assert first["b"].tolist() == np.asarray(made["b"]).tolist()
    assert first["c"].tolist() == np.asarray(made["c"]).tolist()
    assert second == {"a": [b"y"]}


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("robomimic")], indirect=True)
@pytest.mark.parametrize("origin", ["generated", REAL], indirect=True)
def test_episodes_that_are_appended_and_compacted_keep_every_value_of_h5py(
    layout: Layout, origin: Path, tmp_path: Path
) -> None:
    layout.write(origin, tmp_path, 6)
    files = layout.files(tmp_path)
    for some in (files[::2], files[1::2], files):
        paths = [str(path) for path in some]
        assert main(["ingest", *paths, str(tmp_path / "s.zarr"), "--mapping", layout.preset, "--append"]) == 0
    assert zstore.open_store(tmp_path / "s.zarr").version == 2
    assert_equal(zstore.open_store(tmp_path / "s.zarr"), expected_of(layout, tmp_path))
    zstore.compact(tmp_path / "s.zarr")
    assert_equal(zstore.open_store(tmp_path / "s.zarr"), expected_of(layout, tmp_path))


@pytest.mark.parametrize(
    ("origin", "scheduler"),
    [("generated", None), ("real", None), ("real", "local")],
    indirect=["origin"],
)
@pytest.mark.long
def test_one_and_two_workers_and_a_cluster_make_the_same_bytes(
    layout: Layout, origin: Path, scheduler: str | None, tmp_path: Path
) -> None:
    layout.write(origin, tmp_path, 6)
    sources = [str(path) for path in layout.files(tmp_path)]
    zstore.ingest(sources, tmp_path / "one.zarr", mapping=layout.preset, workers=1)
    again: dict[str, Any] = {"workers": 2, "blocksize": 50_000, "scheduler": scheduler}
    zstore.ingest(sources, tmp_path / "two.zarr", mapping=layout.preset, **again)
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "two.zarr")


class Killer(Protocol):
    """Runs an operation in a fork, which dies before its n-th mutating call; returns the wait status.

    With None as the point the operation is gone through with, and its calls are counted.
    """

    def __call__(self, point: int | None, folder: Path, operation: str, **arguments: Any) -> int: ...


@pytest.fixture
def killer() -> Iterator[Killer]:
    words = [sys.executable, str(REPOSITORY / "tests/killer.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def kill(point: int | None, folder: Path, operation: str, **arguments: Any) -> int:
            wanted = {"point": point, "folder": str(folder), "operation": operation, "arguments": arguments}
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(wanted) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield kill
        assert process.stdin is not None
        process.stdin.close()


KILLED = [
    pytest.param(
        *case,
        marks=() if case == ("aloha compressed", "ingest", "generated", 2) else pytest.mark.long,
        id="-".join(map(str, case)),
    )
    for origin, n_points in (("generated", 2), ("real", 60))
    for operation in ("ingest", "append", "compact")
    for layout in LAYOUTS
    if operation == "ingest" or not layout.startswith("robomimic")  # of which one file has all episodes
    for case in [(layout, operation, origin, n_points)]
]


@pytest.mark.parametrize(("layout", "operation", "origin", "n_points"), KILLED, indirect=["layout", "origin"])
def test_an_operation_that_is_killed_anywhere_is_gone_on_with(
    layout: Layout, operation: str, origin: Path, n_points: int, killer: Killer, tmp_path: Path
) -> None:
    layout.write(origin, tmp_path, N_KILLED)
    first, *later = [str(path) for path in layout.files(tmp_path)]
    start, whole = tmp_path / "start", tmp_path / "whole"
    start.mkdir()
    if operation != "ingest":
        zstore.ingest(first, start / "s.zarr", mapping=layout.preset, **layout.grid)
    if operation == "compact":
        zstore.append(later, start / "s.zarr")
    arguments: dict[str, Any] = {
        "ingest": {"sources": [first, *later], "mapping": layout.preset, **layout.grid},
        "append": {"sources": later},
        "compact": {},
    }[operation]
    named = "path" if operation == "compact" else "store"

    def at(folder: Path) -> dict[str, Any]:
        return {named: str(folder / "s.zarr"), "workers": 1, **arguments}

    shutil.copytree(start, whole)
    n_calls = killer(None, whole, operation, **at(whole))
    expected = stored(whole / "s.zarr")
    points = np.unique(np.linspace(0, n_calls - 1, n_points, dtype=int)).tolist()
    assert len(points) == n_points
    for point in points:
        there = tmp_path / f"{point}"
        shutil.copytree(start, there)
        assert killer(point, there, operation, **at(there)) == signal.SIGKILL
        go_on(operation, at(there))
        assert stored(there / "s.zarr") == expected, point
        shutil.rmtree(there)


def go_on(operation: str, arguments: dict[str, Any]) -> None:
    """Do it again, as somebody would who does not know how far it came."""
    try:
        getattr(zstore, operation)(**arguments)
    except zstore.StoreError as error:
        if "there is a store already" not in str(error):
            raise
