"""Where values of published data come from: TFRecord of Bridge, Zarr of Push-T, CSV of the Myo band.

Folders ``bridge``, ``pusht`` and ``emg_myo`` have the published files, or small files of the same formats that
:func:`generate` writes.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

CAMERAS = ("image_0", "image_1", "image_2")
BRIDGE, PUSHT = "bridge/bridge_dataset-train.tfrecord", "pusht/pusht_cchi_v7_replay.zarr"


@dataclass(frozen=True)
class Episode:
    """An episode of Bridge: JPEG bytes by camera, (step, 7) state and action, and what was asked for."""

    images: dict[str, list[bytes]]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    instruction: str


@dataclass(frozen=True)
class Demonstration:
    """A demonstration of Push-T: float32 (step, 96, 96, 3) images of whole numbers, state, action and keypoints."""

    images: NDArray[np.float32]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    keypoint: NDArray[np.float32]


def episodes(folder: Path, count: int | None = None) -> Iterator[Episode]:
    """The first episodes of Bridge; None for all."""
    for record in islice(records(folder / BRIDGE), count):
        found = features(record)
        n_steps = len(found["steps/is_first"])
        yield Episode(
            {camera: found[f"steps/observation/{camera}"] for camera in CAMERAS},
            found["steps/observation/state"].reshape(n_steps, 7),
            found["steps/action"].reshape(n_steps, 7),
            found["steps/language_instruction"][0].decode(),
        )


def demonstrations(folder: Path, count: int | None = None) -> Iterator[Demonstration]:
    """The first demonstrations of Push-T; None for all."""
    group: Any = zarr.open_group(folder / PUSHT, mode="r")
    ends = np.asarray(group["meta/episode_ends"][:]).tolist()
    for start, stop in islice(zip([0, *ends[:-1]], ends, strict=True), count):
        img, state, action, keypoint = (group[f"data/{n}"][start:stop] for n in ("img", "state", "action", "keypoint"))
        yield Demonstration(img, state, action, keypoint.reshape(stop - start, -1))


def minutes(folder: Path, count: int | None = None) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Names of the first recordings of the Myo band and their (row, 9) electrodes and labels; None for all.

    Lines that are no nine numbers are left out; one of the published ones has fewer.
    """
    for path in islice(sorted(folder.glob("emg_myo/*/*.txt.gz")), count):
        lines = [line.split(b",") for line in gzip.decompress(path.read_bytes()).splitlines()]
        rows = np.array([line for line in lines if len(line) == 9 and all(line)]).astype(np.int64)
        yield f"{path.parent.name}-{path.name.split('.')[0]}", rows


# TFRecord: a length, a record and their checksums; the record a tf.Example in the wire format of protobuf.


def _checksum(content: bytes) -> int:
    value = int(google_crc32c.value(content))
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file, whose checksums must fit."""
    with path.open("rb") as file:
        while head := file.read(12):
            length, of_length = struct.unpack("<QI", head)
            assert of_length == _checksum(head[:8])
            record = file.read(length)
            assert struct.unpack("<I", file.read(4)) == (_checksum(record),)
            yield record


def features(record: bytes) -> dict[str, Any]:
    """Features of a tf.Example by name: a list of bytes, float32 or int64."""
    found: dict[str, Any] = {}
    for _, listed in _messages(record):
        for _, entry in _messages(listed):
            pair = dict(_messages(entry))
            for kind, values in _messages(pair[2]):
                items = [item for _, item in _messages(values)]
                if kind == 1:
                    found[pair[1].decode()] = items
                elif kind == 2:
                    found[pair[1].decode()] = np.frombuffer(b"".join(items), "<f4")
                else:
                    found[pair[1].decode()] = np.array([n for item in items for n in _varints(item)], np.int64)
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = content[at]
        value, shift, at = value | (octet & 127) << shift, shift + 7, at + 1
        if octet < 128:
            return value, at


def _varints(content: bytes) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        yield value


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a message, all of which have a length here."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        assert key & 7 == 2
        length, at = _varint(content, at)
        assert at + length <= len(content)
        yield key >> 3, content[at : at + length]
        at += length


def _written_varint(value: int) -> bytes:
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])


def _message(number: int, content: bytes) -> bytes:
    return _written_varint(number << 3 | 2) + _written_varint(len(content)) + content


def write_records(path: Path, examples: Sequence[Mapping[str, Any]]) -> None:
    """Write features by name as a TFRecord file, as :func:`records` and :func:`features` read it."""
    content = b""
    for example in examples:
        entries = b""
        for name, values in example.items():
            if isinstance(values, list):
                listed = _message(1, b"".join(_message(1, item) for item in values))
            elif values.dtype.kind == "f":
                listed = _message(2, _message(1, values.astype("<f4").tobytes()))
            else:
                listed = _message(3, _message(1, b"".join(map(_written_varint, values.tolist()))))
            entries += _message(1, _message(1, name.encode()) + _message(2, listed))
        record, length = _message(1, entries), struct.pack("<Q", len(_message(1, entries)))
        content += length + struct.pack("<I", _checksum(length)) + record + struct.pack("<I", _checksum(record))
    path.write_bytes(content)


# Small files of the same formats.


def generate(folder: Path, seed: int = 0) -> Path:
    """Write small files as Bridge, Push-T and the Myo band have them; returns their folder."""
    random = np.random.default_rng(seed)
    for name in (Path(BRIDGE).parent, PUSHT, "emg_myo/11111-1"):
        (folder / name).mkdir(parents=True)
    write_records(folder / BRIDGE, [_example(random, n_steps) for n_steps in (7, 10, 4)])
    lengths = [9, 5, 11, 6]
    group: Any = zarr.open_group(folder / PUSHT, mode="w", zarr_format=2)
    n_rows = sum(lengths)
    arrays = {
        "data/img": random.integers(65, 256, (n_rows, 8, 8, 3)),
        "data/state": np.round(random.normal(size=(n_rows, 5)), 3),
        "data/action": random.integers(0, 512, (n_rows, 2)),
        "data/keypoint": np.round(random.normal(size=(n_rows, 9, 2)), 3),
    }
    for name, values in arrays.items():
        group.create_array(name, data=values.astype(np.float32))
    group.create_array("meta/episode_ends", data=np.cumsum(lengths))
    for number in range(6):
        rows = np.hstack([random.integers(-128, 128, (300 + number, 8)), random.integers(0, 8, (300 + number, 1))])
        lines = [",".join(map(str, row)) for row in rows.tolist()]
        lines[7] = "1,2,"
        (folder / f"emg_myo/11111-1/{number}.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def _example(random: np.random.Generator, n_steps: int) -> dict[str, Any]:
    def jpeg() -> bytes:
        octets = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(octets, "JPEG")
        return octets.getvalue()

    numbers = np.round(random.normal(size=(2, n_steps * 7)), 3).astype(np.float32)
    return {
        **{f"steps/observation/{camera}": [jpeg() for _ in range(n_steps)] for camera in CAMERAS},
        "steps/observation/state": numbers[0],
        "steps/action": numbers[1],
        "steps/is_first": (np.arange(n_steps) == 0).astype(np.int64),
        "episode_metadata/episode_id": np.array([12345]),
        "steps/language_instruction": [b"put the spoon on the towel"] * n_steps,
    }
