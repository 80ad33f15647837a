"""A payload that cannot be stored makes its row a bad one: refused, or set aside and gone from everything."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from conftest import SMALL_GRID, stored, write_table
from hdf5files import aloha
from payload_files import AFFINE, image, nifti, npy, npz, voxels

import zstore
from zstore import SourceError
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.named_files import below

HEADER = ["id", "date", "age", "kind", "path", "number"]
N_ROWS = 30
BAD = (4, 11, 12, 27)
"""Rows whose payload is bad, in the order of the table."""


def rows(ending: str) -> list[list[object]]:
    """A row for each file: of three people in turn, with a word that no other row has."""
    return [[f"p{n % 3}", f"2020-01-{n // 3 + 1:02d}", n, f"w{n}", f"{n}{ending}", 0] for n in range(N_ROWS)]


def ingest(source: Any, store: Path, root: Path, **options: Any) -> zstore.Receipt:
    usual: dict[str, Any] = {"id": "id", "time": "date", "file": {"image": "path"}, "file_root": root, **SMALL_GRID}
    return zstore.ingest(source, store, **{**usual, "on_bad_row": "quarantine", **options})


def arrays(store: Path) -> dict[str, bytes]:
    """All objects but those that tell of the sources."""
    return {key: content for key, content in stored(store).items() if not key.startswith("manifest")}


def set_aside(store: Path) -> list[dict[str, str]]:
    with store.with_name(f"{store.name}.quarantine.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


MAKE: dict[str, Callable[[Path, int], object]] = {
    ".png": lambda path, n: image(path, voxels((9, 8, 3), np.uint8, seed=n)),
    ".jpg": lambda path, n: image(path, voxels((19, 18, 3), np.uint8, seed=n)),
    ".npy": lambda path, n: npy(path, voxels((4, 3), np.float32, seed=n)),
    ".nii.gz": lambda path, n: nifti(path, voxels((6, 5, 4), seed=n)),
}


def singular(path: Path) -> object:
    nifti(path, voxels((6, 5, 4)))
    return nifti(path, voxels((6, 5, 4)), None, sform_code=1, srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4)


HARM: list[tuple[str, Callable[[Path], object], str]] = [
    (".png", Path.unlink, "a file that is not there"),
    (".png", lambda path: cut(path, 60), "a PNG file of .* ends too early"),
    (".png", lambda path: image(path, voxels((9, 7, 3), np.uint8)), r"shape \(9, 7, 3\) .*expected shape \(9, 8, 3\)"),
    (".png", lambda path: path.write_text("no image"), "PNG or JPEG|begins with"),
    (".jpg", lambda path: cut(path, 40), "JPEG.*ends"),
    (".npy", lambda path: cut(path, 4), "npy file of .* whose header says"),
    (".npy", lambda path: npy(path, voxels((4, 3), np.float64)), "dtype float64"),
    (".nii.gz", lambda path: cut(path, 20), "ends|gzip|whole"),
    (".nii.gz", singular, "affine"),
]


@pytest.mark.parametrize(("ending", "harm", "reason"), HARM)
def test_rows_whose_file_is_no_good_are_set_aside_and_the_store_is_that_of_a_table_without_them(
    tmp_path: Path, ending: str, harm: Callable[[Path], object], reason: str
) -> None:
    table = rows(ending)
    for n in range(N_ROWS):
        MAKE[ending](tmp_path / f"{n}{ending}", n)
    for n in BAD:
        harm(tmp_path / f"{n}{ending}")
    source = write_table(tmp_path / "all.csv", HEADER, table)
    with pytest.raises(SourceError, match=rf"(?s)image of id 'p\d'.*all.csv line \d+: \d+{ending}"):
        ingest(source, tmp_path / "s.zarr", tmp_path, on_bad_row="error")
    assert not (tmp_path / "s.zarr").exists()
    receipt = ingest(source, tmp_path / "s.zarr", tmp_path, workers=1)
    assert (receipt.n_rows_in, receipt.n_stored, receipt.n_quarantined) == (N_ROWS, N_ROWS - 4, 4)
    told = set_aside(tmp_path / "s.zarr")
    assert [(row["file"], row["line"], row["row"]) for row in told] == [
        (str(source), str(n + 2), ",".join(map(str, table[n]))) for n in BAD
    ]
    for row in told:
        assert row["reason"].startswith("image ")
        assert re.search(reason, row["reason"])
    good = write_table(tmp_path / "good.csv", HEADER, [row for n, row in enumerate(table) if n not in BAD])
    ingest(good, tmp_path / "good.zarr", tmp_path)
    assert arrays(tmp_path / "s.zarr") == arrays(tmp_path / "good.zarr")
    ingest(source, tmp_path / "two.zarr", tmp_path, workers=2, blocksize=150)
    assert arrays(tmp_path / "two.zarr") == arrays(tmp_path / "s.zarr")
    assert set_aside(tmp_path / "two.zarr") == told
    assert zstore.verify(zstore.open_store(tmp_path / "s.zarr")).faults == ()
    assert list(tmp_path.glob("*/.*")) == []


@pytest.fixture
def pictures(tmp_path: Path) -> list[np.ndarray[Any, Any]]:
    values = [voxels((9, 8, 3), np.uint8, seed=n) for n in range(N_ROWS)]
    for n, value in enumerate(values):
        image(tmp_path / f"{n}.png", value)
    return values


def test_paths_that_leave_the_folder_are_set_aside_and_nothing_is_read_there(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for n in range(N_ROWS):
        (tmp_path / f"{n}.png").rename(root / f"{n}.png")
    image(tmp_path / "secret.png", voxels((9, 8, 3), np.uint8))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    table = rows(".png")
    for n, path in zip(
        BAD, ("../secret.png", str(tmp_path / "secret.png"), "link.png", "a/../../secret.png"), strict=True
    ):
        table[n][4] = path
    receipt = ingest(write_table(tmp_path / "a.csv", HEADER, table), tmp_path / "s.zarr", root)
    assert receipt.n_quarantined == 4
    assert all(f"below {root}" in row["reason"] for row in set_aside(tmp_path / "s.zarr"))


def test_encoded_images_are_set_aside_alike(tmp_path: Path, pictures: list[np.ndarray[Any, Any]]) -> None:
    (tmp_path / "7.png").unlink()
    cut(tmp_path / "8.png", 50)
    table = rows(".png")
    ingest(write_table(tmp_path / "a.csv", HEADER, table), tmp_path / "s.zarr", tmp_path, keep_encoded=["image"])
    del table[7:9]
    ingest(write_table(tmp_path / "b.csv", HEADER, table), tmp_path / "t.zarr", tmp_path, keep_encoded=["image"])
    assert arrays(tmp_path / "s.zarr") == arrays(tmp_path / "t.zarr")
    assert [row["line"] for row in set_aside(tmp_path / "s.zarr")] == ["9", "10"]


def test_a_row_with_two_bad_payloads_is_set_aside_once_with_both(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    (tmp_path / "7.png").unlink()
    source = write_table(tmp_path / "a.csv", HEADER, rows(".png"))
    ingest(source, tmp_path / "s.zarr", tmp_path, file={"left": "path", "right": "path"})
    (row,) = set_aside(tmp_path / "s.zarr")
    assert row["reason"].count("7.png: a file that is not there") == 2
    assert "left 7.png" in row["reason"]
    assert "right 7.png" in row["reason"]


def test_typed_tables_tell_row_and_cells_of_what_was_set_aside(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    (tmp_path / "7.png").unlink()
    columns = dict(zip(HEADER, map(list, zip(*rows(".png"), strict=True)), strict=True))
    columns["date"] = pa.array(columns["date"]).cast(pa.timestamp("s"))
    receipt = ingest(pa.table(columns), tmp_path / "s.zarr", tmp_path)
    (row,) = set_aside(tmp_path / "s.zarr")
    assert receipt.n_quarantined == 1
    assert '"path": "7.png"' in row["row"]


def test_one_position_that_an_array_has_not_is_told_of_its_own_row_alone(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", a=voxels((40, 4, 3)))
    npy(tmp_path / "a.npy", voxels((40, 4, 3)))
    for ending in (".npz", ".npy"):
        table = [[*row[:4], f"a{ending}", n if n != 9 else 40] for n, row in enumerate(rows(""))]
        source = write_table(tmp_path / "a.csv", HEADER, table)
        positions: dict[str, Any] = {"file_position": {"image": "number"}}
        with pytest.raises(SourceError, match=r"position 40 of 40.*line 11"):
            ingest(source, tmp_path / "s.zarr", tmp_path, **positions, on_bad_row="error")
        ingest(source, tmp_path / f"s{ending}.zarr", tmp_path, **positions)
        assert [row["line"] for row in set_aside(tmp_path / f"s{ending}.zarr")] == ["11"]


def test_a_position_that_is_none_and_a_name_with_a_nul_are_bad_rows_too(tmp_path: Path) -> None:
    npy(tmp_path / "a.npy", voxels((40, 4, 3)))
    table = [[*row[:4], "a.npy", n] for n, row in enumerate(rows(""))]
    table[3][5], table[5][5], table[8][5], table[9][4] = "0.5", "", "-1", "a\0.npy"
    positions: dict[str, Any] = {"file_position": {"image": "number"}}
    source = write_table(tmp_path / "a.csv", HEADER, table)
    with pytest.raises(SourceError, match=r"'0.5' in column 'number', of id 'p0'"):
        ingest(source, tmp_path / "s.zarr", tmp_path, **positions, on_bad_row="error")
    assert ingest(source, tmp_path / "s.zarr", tmp_path, **positions).n_quarantined == 4
    assert [(row["line"], row["reason"]) for row in set_aside(tmp_path / "s.zarr")] == [
        ("5", "'0.5' in column 'number'"),
        ("7", "no number in column 'number'"),
        ("10", "'-1' in column 'number'"),
        ("11", "a name with a NUL in column 'path'"),
    ]
    good = [row for n, row in enumerate(table) if n not in (3, 5, 8, 9)]
    ingest(write_table(tmp_path / "b.csv", HEADER, good), tmp_path / "good.zarr", tmp_path, **positions)
    assert arrays(tmp_path / "s.zarr") == arrays(tmp_path / "good.zarr")
    with pytest.raises(SourceError, match="4 of 30 rows are bad"):
        ingest(source, tmp_path / "t.zarr", tmp_path, **positions, max_bad_rows=3)


def test_a_damaged_archive_is_read_once_for_all_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npz(tmp_path / "good.npz", a=voxels((40, 4, 3)))
    npz(tmp_path / "bad.npz", a=voxels((40, 90, 90), np.float32))
    content = bytearray((tmp_path / "bad.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "bad.npz").write_bytes(content)
    table = [[*row[:4], "bad.npz" if n % 3 == 1 else "good.npz", n] for n, row in enumerate(rows(""))]
    opened: list[str] = []
    plain = below.opened

    def counted(root: str, name: str) -> Any:
        opened.append(name)
        return plain(root, name)

    monkeypatch.setattr("zstore.writing.sources.named_files.reader.opened", counted)
    source = write_table(tmp_path / "a.csv", HEADER, table)
    receipt = ingest(source, tmp_path / "s.zarr", tmp_path, file_position={"image": "number"}, workers=1)
    assert receipt.n_quarantined == 10
    assert opened.count("bad.npz") <= 2


def test_more_bad_payloads_than_there_may_be_are_refused(tmp_path: Path, pictures: list[np.ndarray[Any, Any]]) -> None:
    for n in BAD:
        (tmp_path / f"{n}.png").unlink()
    source = write_table(tmp_path / "a.csv", HEADER, rows(".png"))
    limits: list[Any] = [3, "10%", 0]
    for most in limits:
        with pytest.raises(SourceError, match=r"4 of 30 rows are bad.*image 4.png: a file that is not there.*line 6"):
            ingest(source, tmp_path / "s.zarr", tmp_path, max_bad_rows=most)
        assert not (tmp_path / "s.zarr").exists()
    assert ingest(source, tmp_path / "s.zarr", tmp_path, max_bad_rows=4).n_quarantined == 4


def test_a_table_of_which_no_file_is_good_is_refused(tmp_path: Path) -> None:
    source = write_table(tmp_path / "a.csv", HEADER, rows(".png"))
    with pytest.raises(SourceError, match=r"30 of 30 rows are bad.*not there"):
        ingest(source, tmp_path / "s.zarr", tmp_path)
    for keep in ((), ("image",)):
        with pytest.raises(SourceError, match=r"no row to store \(30 are bad\)"):
            ingest(source, tmp_path / "s.zarr", tmp_path, max_bad_rows=1.0, keep_encoded=keep)


def test_a_row_takes_the_place_of_a_duplicate_whose_payload_is_bad(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    (tmp_path / "7.png").unlink()
    table = [*rows(".png"), ["p1", "2020-01-03", 7, "again", "29.png", 0]]
    source = write_table(tmp_path / "a.csv", HEADER, table)
    receipt = ingest(source, tmp_path / "s.zarr", tmp_path, on_duplicate="first")
    assert (receipt.n_stored, receipt.n_quarantined, receipt.n_duplicates) == (30, 1, 0)
    store = zstore.open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(pictures[29], store.read_field("image", 12, 13)[0])


def test_an_append_sets_rows_aside_too_and_a_row_of_the_store_stays(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    table = rows(".png")
    ingest(write_table(tmp_path / "a.csv", HEADER, table[:15]), tmp_path / "s.zarr", tmp_path)
    (tmp_path / "20.png").unlink()
    later = [*table[15:], [*table[3][:4], "gone.png", 0], [*table[5][:4], "29.png", 0]]
    source = write_table(tmp_path / "b.csv", HEADER, later)
    receipt = zstore.append(source, tmp_path / "s.zarr", on_bad_row="quarantine", on_duplicate="last")
    assert receipt is not None
    assert (receipt.n_rows_in, receipt.n_stored, receipt.n_quarantined) == (17, 15, 2)
    assert "gone.png" in (tmp_path / "s.zarr.quarantine-2.csv").read_text()
    store = zstore.open_store(tmp_path / "s.zarr")
    by_key = {(n % 3, n // 3): pictures[n] for n in range(N_ROWS) if n != 20}
    by_key[(2, 1)] = pictures[29]
    expected = [by_key[key] for key in sorted(by_key)]
    np.testing.assert_array_equal(np.stack(expected), store.read_field("image", 0, store.n_rows))
    assert zstore.verify(store).faults == ()


def test_sources_are_compared_but_for_rows_whose_payload_was_bad(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    (tmp_path / "7.png").unlink()
    source = write_table(tmp_path / "a.csv", HEADER, rows(".png"))
    ingest(source, tmp_path / "s.zarr", tmp_path)
    comparison = compare_sources(zstore.open_store(tmp_path / "s.zarr"), source)
    assert (comparison.n_rows, comparison.n_bad, comparison.n_different, comparison.faults) == (29, 1, 0, ())
    table = rows(".png")
    table[8][2] = 77
    more = compare_sources(zstore.open_store(tmp_path / "s.zarr"), write_table(tmp_path / "a.csv", HEADER, table))
    assert more.n_different == 1
    image(tmp_path / "7.png", pictures[7])  # now it could be stored, and is not
    assert compare_sources(zstore.open_store(tmp_path / "s.zarr"), source).n_different == 2


def test_a_row_that_was_set_aside_beside_a_good_one_of_its_time_is_no_difference(
    tmp_path: Path, pictures: list[np.ndarray[Any, Any]]
) -> None:
    (tmp_path / "7.png").unlink()
    table = [*rows(".png"), ["p1", "2020-01-03", 7, "again", "29.png", 0]]
    source = write_table(tmp_path / "a.csv", HEADER, table)
    ingest(source, tmp_path / "s.zarr", tmp_path, on_duplicate="first")
    comparison = compare_sources(zstore.open_store(tmp_path / "s.zarr"), source)
    assert (comparison.n_rows, comparison.n_bad, comparison.n_different, comparison.faults) == (30, 1, 0, ())


def test_a_position_that_an_array_lacks_spoils_no_comparison_of_others(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", voxels((6, 3, 2)))
    table = [["p", n, n, "", "a.npy", position] for n, position in enumerate([0, 3, 9, 5, 4])]
    source = write_table(tmp_path / "t.csv", HEADER, table)
    ingest(source, tmp_path / "s.zarr", tmp_path, file_position={"image": HEADER[5]})
    comparison = compare_sources(zstore.open_store(tmp_path / "s.zarr"), source)
    assert (comparison.n_rows, comparison.n_bad, comparison.n_different) == (4, 1, 0)


def damage(path: Path, camera: str, frames: list[int]) -> None:
    """Flip a bit in some chunks, which have checksums."""
    with h5py.File(path, "a") as file:
        values = file[camera][:]
        del file[camera]
        made = file.create_dataset(camera, data=values, chunks=(1, *values.shape[1:]), fletcher32=True)
        offsets = [made.id.get_chunk_info(frame).byte_offset for frame in frames]
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset + 5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_images_of_an_episode_are_set_aside_with_their_rows(tmp_path: Path, compress: bool) -> None:
    made = [aloha(tmp_path / f"{n}.hdf5", seed=n, compress=compress) for n in range(3)]
    damage(tmp_path / "1.hdf5", "observations/images/cam_low", [3, 4])
    damage(tmp_path / "1.hdf5", "observations/images/cam_high", [4, 19])
    sources = sorted(tmp_path.glob("*.hdf5"))
    with pytest.raises(SourceError, match=r"cam_(low|high) of id '1' at"):
        zstore.ingest(sources, tmp_path / "s.zarr", mapping="aloha")
    options: dict[str, Any] = {"mapping": "aloha", "on_bad_row": "quarantine", **SMALL_GRID}
    receipt = zstore.ingest(sources, tmp_path / "s.zarr", **options, workers=1)
    assert (receipt.n_stored, receipt.n_quarantined) == (57, 3)
    told = set_aside(tmp_path / "s.zarr")
    assert [(row["file"], row["episode"], row["row"][:1]) for row in told] == [(str(sources[1]), "/", "{")] * 3
    assert [row["reason"].count("cam_") for row in told] >= [1, 2, 1]
    store = zstore.open_store(tmp_path / "s.zarr")
    kept = [n for n in range(20) if n not in (3, 4, 19)]
    rows_of = {0: range(20), 1: kept, 2: range(20)}
    actions = np.concatenate([made[n]["action"][list(rows_of[n])] for n in range(3)])
    np.testing.assert_array_equal(actions[:, 5], store.read("action.5", 0, 57))
    for camera in ("cam_low", "cam_high"):
        frames = [made[n]["images"][camera][row] for n in range(3) for row in rows_of[n]]
        if compress:
            assert store.read_bytes(camera, 0, 57) == frames
        else:
            np.testing.assert_array_equal(np.stack(frames), store.read_field(camera, 0, 57))
    zstore.ingest(sources, tmp_path / "t.zarr", **options, workers=2)
    assert arrays(tmp_path / "t.zarr") == arrays(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("at", "octets", "reason"),
    [
        (0, b"XX", "begins with"),  # no image of any kind
        (4, b"\x00\x01", "segment of 1 bytes"),
        (20, b"\x00" * 4, "JPEG"),  # in its tables
        (-2, b"\x01\x01", "ends after"),
    ],
)
def test_an_encoded_image_of_an_episode_that_cannot_be_decoded_takes_its_own_row(
    tmp_path: Path, at: int, octets: bytes, reason: str
) -> None:
    made = aloha(tmp_path / "0.hdf5", compress=True)
    with h5py.File(tmp_path / "0.hdf5", "a") as file:
        row = file["observations/images/cam_low"][7]
        end = len(made["images"]["cam_low"][7])
        begin = at % end
        row[begin : begin + len(octets)] = np.frombuffer(octets, np.uint8)
        file["observations/images/cam_low"][7] = row
    with pytest.raises(SourceError, match=r"cam_low of id '0' at"):
        zstore.ingest(tmp_path / "0.hdf5", tmp_path / "s.zarr", mapping="aloha")
    assert not (tmp_path / "s.zarr").exists()
    receipt = zstore.ingest(tmp_path / "0.hdf5", tmp_path / "s.zarr", mapping="aloha", on_bad_row="quarantine")
    assert (receipt.n_stored, receipt.n_quarantined) == (19, 1)
    (told,) = [row["reason"] for row in set_aside(tmp_path / "s.zarr")]
    assert reason in told
    assert "row 7" in told


def test_chains_and_their_grids_leave_the_same_rows_out(tmp_path: Path) -> None:
    for n in range(6):
        nifti(tmp_path / f"{n}.nii", voxels((6, 5, 4), seed=n), AFFINE)
    singular(tmp_path / "2.nii")
    chain = {"scan": {"spacing": [2, 2, 2], "shape": [8, 8, 8]}}
    source = write_table(tmp_path / "a.csv", HEADER, rows(".nii")[:6])
    receipt = ingest(source, tmp_path / "s.zarr", tmp_path, file={"scan": "path"}, file_chain=chain)
    assert (receipt.n_stored, receipt.n_quarantined) == (5, 1)
    (reason,) = [row["reason"] for row in set_aside(tmp_path / "s.zarr")]
    assert "affine" in reason
    assert "scan_grid" not in reason
