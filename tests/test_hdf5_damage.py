"""HDF5 files that are damaged, lead elsewhere or have odd times: told with file and row, by h5py as the oracle."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import few
from hdf5files import robomimic, session, times, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import zstore
from zstore import SourceError, open_store
from zstore.writing.sources.files import find
from zstore.writing.sources.hdf5.clock import Clock
from zstore.writing.sources.hdf5.library import opened

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


def test_a_heap_of_texts_on_which_hdf5_reads_for_ever_is_refused_at_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["x"] = np.arange(6.0)
        file.attrs["who"] = "somebody"
        file.attrs["where"] = "somewhere else"
    content = bytearray((tmp_path / "a.h5").read_bytes())
    heap = content.index(b"GCOL")
    at, sizes = heap + 16, []
    while content[at]:  # objects, up to the free space behind them
        sizes.append(at + 8)
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    content[sizes[-1] + 1] = 2  # 512 bytes more
    (tmp_path / "a.h5").write_bytes(content)
    mapping = {"channels": {"x": "x"}, "statics": "attributes"}
    asked = f"import zstore; zstore.ingest({str(tmp_path / 'a.h5')!r}, {str(tmp_path / 's.zarr')!r}, mapping={mapping})"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, timeout=120, capture_output=True, text=True, check=False
    )
    assert f"damage in a heap of texts at byte {heap:,}" in done.stderr.splitlines()[-1]


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


@settings(max_examples=few(30))
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
