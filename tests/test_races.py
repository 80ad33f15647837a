"""Several processes write to one store at once: every acknowledged commit is there, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from s3server import S3Server

from zstore import open_store, verify
from zstore.storage.urls import open_storage

WRITER = """
import sys, time
import zstore
path, name, patient = sys.argv[1], sys.argv[2], sys.argv[3] == "patient"
with open(f"{name}.csv", "w") as file:
    file.write("id,t,v\\n" + "".join(f"{name},{t},{t}\\n" for t in range(20)))
print("ready", flush=True)
sys.stdin.readline()
stop = time.monotonic() + 100
while time.monotonic() < stop:
    try:
        try:
            zstore.append(f"{name}.csv", path, workers=1)
        except zstore.StoreError as error:
            if "no store to append to" not in str(error):
                raise
            zstore.ingest(f"{name}.csv", path, id="id", time="t", workers=1)
        print("committed", flush=True)
        break
    except zstore.ConflictError as error:
        print("conflict", flush=True)
        if not patient:
            break
        time.sleep(0.01)
    except zstore.StoreError as error:
        if "there is a store already" not in str(error):
            raise
"""


def race(folder: Path, path: str, n_writers: int) -> list[list[str]]:
    """What each of some writers, started at once, says; every second one gives up at the first conflict."""
    folder.mkdir()
    words = [sys.executable, "-c", WRITER, path]
    writers = [
        subprocess.Popen(
            [*words, f"w{n}", "patient" if n % 2 == 0 else "impatient"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(n_writers)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = []
    for writer in writers:
        out, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
        said.append(out.split())
    return said


def run_rounds(tmp_path: Path, sizes: list[int], bucket: str | None = None) -> int:
    n_conflicts = 0
    for number, n_writers in enumerate(sizes):
        path = f"{bucket or tmp_path}/{number}/s.zarr"
        said = race(tmp_path / str(number), path, n_writers)
        acknowledged = [f"w{n}" for n, words in enumerate(said) if words and words[-1] == "committed"]
        n_conflicts += sum(words.count("conflict") for words in said)
        assert set(acknowledged) >= {f"w{n}" for n in range(0, n_writers, 2)}
        store = open_store(path)
        assert store.ids.tolist() == sorted(acknowledged)
        assert store.version == len(acknowledged)
        for id_ in acknowledged:
            np.testing.assert_array_equal(store.series(id_).read("v"), np.arange(20))
        assert verify(store).faults == ()
        assert not [key for key in open_storage(path).sizes() if key.startswith(".")]
    return n_conflicts


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{server.make_bucket()}"


def test_of_writers_at_once_each_commits_or_is_told_of_the_conflict(tmp_path: Path) -> None:
    run_rounds(tmp_path, [2, 5])


def test_of_writers_at_once_in_a_bucket_each_commits_or_is_told_of_the_conflict(bucket: str, tmp_path: Path) -> None:
    run_rounds(tmp_path, [4], bucket)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thirty_races_in_a_bucket_lose_no_acknowledged_commit(bucket: str, tmp_path: Path) -> None:
    assert run_rounds(tmp_path, [2 + n % 7 for n in range(30)], bucket) > 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_races_lose_no_acknowledged_commit(tmp_path: Path) -> None:
    assert run_rounds(tmp_path, [2 + n % 7 for n in range(100)]) > 0
