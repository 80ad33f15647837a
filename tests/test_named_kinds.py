"""What holds for files of every kind that a column names: ends, damage, limits, digests, and the reader itself."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from payload_files import KINDS, one, refused, voxels

from zstore import UsageError
from zstore.format.payloads.chain import MERLIN, VolumeChain
from zstore.writing.sources.named_files.reader import FileReader
from zstore.writing.sources.payloads import PayloadError

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]


@pytest.fixture
def reader(tmp_path: Path) -> FileReader:
    return FileReader(str(tmp_path))


# --- all kinds


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_refused_wherever_it_ends_and_whatever_it_says_it_is(
    tmp_path: Path, reader: FileReader, name: str
) -> None:
    content = KINDS[name](tmp_path / name).read_bytes()
    whole = one(reader, name).value
    assert whole.any()
    for n in [*range(0, min(len(content), 400), 23), len(content) // 2, len(content) - 9]:
        (tmp_path / name).write_bytes(content[:n])
        assert refused(reader, name)
    (tmp_path / name).write_bytes(content[:-1])
    if name == "r.dcm":  # that byte only says that no voxels follow
        np.testing.assert_array_equal(whole, one(reader, name).value)
    else:
        assert refused(reader, name)
    (tmp_path / name).write_bytes(bytes(1000))
    assert refused(reader, name)


@pytest.mark.parametrize("name", KINDS)
def test_a_payload_beyond_the_limit_is_refused(tmp_path: Path, reader: FileReader, name: str) -> None:
    KINDS[name](tmp_path / name)
    n_bytes = one(reader, name).value.nbytes
    small = replace(reader, limit_bytes=n_bytes // 2)
    assert "bytes" in refused(small, name)
    with pytest.raises(PayloadError, match="--file-limit"):
        small.look(name, 0)


@pytest.mark.parametrize("name", KINDS)
def test_the_digest_changes_with_the_bytes_and_with_nothing_else(tmp_path: Path, reader: FileReader, name: str) -> None:
    path = KINDS[name](tmp_path / name)
    (tmp_path / f"copy.{name}").write_bytes(path.read_bytes())
    assert one(reader, name).digest == one(reader, f"copy.{name}").digest == one(reader, name).digest
    assert len(one(reader, name).digest) == 16


@pytest.mark.parametrize("name", KINDS)
def test_a_payload_that_several_rows_name_is_handed_out_for_each(tmp_path: Path, reader: FileReader, name: str) -> None:
    KINDS[name](tmp_path / name)
    payloads = list(reader.read(name, [0, 0, 0]))
    assert len(payloads) == 3
    assert list(reader.read(name, [])) == []


def mutations(content: bytes, n: int, seed: int) -> list[bytes]:
    """Damage of the kinds that disks, networks and people do."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        damaged, at = bytearray(content), int(random.integers(len(content)))
        match random.integers(8):
            case 0:
                damaged[at] ^= 1 << int(random.integers(8))
            case 1:
                damaged[at : at + 8] = random.bytes(8)
            case 2:
                del damaged[at : at + int(random.integers(1, 64))]
            case 3:
                damaged[at:at] = random.bytes(int(random.integers(1, 64)))
            case 4:
                damaged[at : at + 4] = b"\xff" * 4
            case 5:
                damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
            case 6:
                damaged[int(random.integers(min(400, len(damaged))))] = int(random.integers(256))
            case _:
                damaged = damaged[:at] + damaged[: len(damaged) - at]
        made.append(bytes(damaged))
    return made


CHECKED = ("a.npz", "s.npz", "a.png", "a.nii.gz", "a.nrrd")
"""Kinds with checksums over their values: those come out the same, or not at all."""


@pytest.mark.filterwarnings("ignore")  # of pydicom, about values that it cannot make anything of
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chained", [False, True])
def test_a_damaged_file_is_read_as_it_is_or_refused(tmp_path: Path, name: str, chained: bool) -> None:
    check_damaged(tmp_path, name, chained, 30)


def check_damaged(tmp_path: Path, name: str, chained: bool, n: int) -> None:
    chain = VolumeChain("RAS", (2.0, 2.0, 2.0), shape=(8, 8, 8)) if chained else None
    if chained and not name.endswith((".nii", ".gz", ".nrrd", ".dcm")):
        return
    reader = FileReader(str(tmp_path), chain=chain, limit_bytes=1 << 24)
    content = KINDS[name](tmp_path / name).read_bytes()
    whole = one(reader, name)
    for damaged in mutations(content, n, seed=1):
        (tmp_path / name).write_bytes(damaged)
        try:
            payload = one(reader, name)
        except PayloadError:
            continue
        if name in CHECKED and not chained:
            same = payload.value.tobytes() == whole.value.tobytes()
            assert same or payload.value.shape != whole.value.shape or payload.value.dtype != whole.value.dtype
        assert payload.digest != whole.digest or damaged == content or name in ("a.npz", "s.npz")


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files_are_read_as_they_are_or_refused(tmp_path: Path, name: str, chained: bool) -> None:
    check_damaged(tmp_path, name, chained, 2_000)


# --- the reader itself


def test_a_reader_survives_pickle_and_says_all_that_values_depend_on(tmp_path: Path) -> None:
    reader = FileReader(str(tmp_path), "a", chain=MERLIN)
    assert pickle.loads(pickle.dumps(reader)) == reader  # noqa: S301  # our own bytes
    assert len({reader, replace(reader, member="b"), replace(reader)}) == 2
    assert reader.to_json() == {
        "reader": "files",
        "root": str(tmp_path),
        "member": "a",
        "indexed": False,
        "keep_encoded": False,
        "chain": {**MERLIN.to_json(), "digest": MERLIN.digest()},
    }


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("simplejpeg", "a.jpg", "image"),
        ("PIL", "a.png", "image"),
        ("nibabel", "a.nii", "volume"),
        ("pydicom", "a.dcm", "volume"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_the_command_that_installs_it(
    tmp_path: Path, reader: FileReader, monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str
) -> None:
    KINDS[name](tmp_path / name)
    for part in ("", ".Image", ".PngImagePlugin", ".filereader", ".orientations"):
        monkeypatch.setitem(__import__("sys").modules, module + part, None)
    with pytest.raises(UsageError) as error:
        list(reader.read(name, [0]))
    assert error.value.fix == f"pip install 'zstore[{extra}]'"


def test_one_file_is_opened_once_for_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = voxels((50, 4))
    np.save(tmp_path / "a.npy", values)
    opened, real = [], io.FileIO

    def counting(*arguments: Any) -> Any:
        opened.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("zstore.writing.sources.named_files.below.io.FileIO", counting)
    rows: list[NDArray[Any]] = [
        payload.value for payload in FileReader(str(tmp_path), indexed=True).read("a.npy", range(50))
    ]
    np.testing.assert_array_equal(values, rows)
    assert len(opened) == 1
