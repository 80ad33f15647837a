"""Kills a writer at every mutating file-system call in turn, or fills the disk there, and looks what is left.

``python tests/crash.py FOLDER OPERATION EVERY kill|full|broken [files|hdf5|parts]`` prints ``{"points": n, "failures":
[...]}``; with ``random`` instead of an operation, EVERY is how many kills, at any time, on a larger store. Sources are
tables of numbers; of files that a column names, of which one is damaged; or episodes of HDF5 with images. With
``parts``, tables of numbers are stored with a manifest in parts of a few objects. Every step runs in a fork of this
process, which itself starts no thread: a killed writer takes nothing with it.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from partly import force_parts

import zstore
from zstore.errors import StoreError

READING: dict[str, Any] = {"id": "id", "time": "t", "workers": 1, "blocksize": 2000}
SOURCES = {"first": "1.csv", "later": "2.csv"}
SIZE = {"rows": 400}
_FIELDS: dict[str, dict[str, Any]] = {
    "files": {
        "id": "id",
        "time": "t",
        "file": {"image": "path", "picture": "path"},
        "keep_encoded": ["picture"],
        "on_bad_row": "quarantine",
    },
    "hdf5": {"mapping": "aloha"},
}
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


def operate(operation: str, folder: Path) -> None:
    """Do what is to be killed."""
    store = folder / "s.zarr"
    if "file" in READING:
        READING["file_root"] = folder
    if operation == "ingest":
        zstore.ingest(folder / SOURCES["first"], store, **READING)
    elif operation == "overwrite":
        zstore.ingest(folder / SOURCES["later"], store, overwrite=True, **READING)
    elif operation == "append":
        sizes = {name: READING[name] for name in ("workers", "blocksize", "on_bad_row") if name in READING}
        zstore.append(folder / SOURCES["later"], store, on_duplicate="last", **sizes)
    elif operation == "compact":
        zstore.compact(store, workers=READING["workers"])
    elif operation == "rollback":
        zstore.rollback(store, 1)
    else:
        zstore.gc(store, keep=1)


def prepare(operation: str, folder: Path) -> None:
    """The store that the operation finds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if "path" in READING.get("file", {}).values():
        write_pictures(folder)
    elif "mapping" in READING:
        write_episodes(folder)
    else:
        write_numbers(folder)
    if operation != "ingest":
        operate("ingest", folder)
    if operation in ("compact", "rollback", "gc"):
        operate("append", folder)


def write_numbers(folder: Path) -> None:
    """Two tables of numbers, of which the second has late rows."""
    last = SIZE["rows"]
    rows = [f"s{n % 5},{n // 5},{n % 40 / 10}" for n in range(last)]
    (folder / "1.csv").write_text("\n".join(["id,t,v", *rows]) + "\n")
    later = [f"s{n % 7},{n // 5},{n % 40 / 100}" for n in range(last - 5, last * 6 // 5)]
    (folder / "2.csv").write_text("\n".join(["id,t,v", *dict.fromkeys(later)]) + "\n")


def write_pictures(folder: Path) -> None:
    """Two tables of images, of which the second has late rows; in each, one image ends early."""
    from payload_files import image, voxels

    for n in range(30):
        image(folder / f"im{n}.png", voxels((9, 8, 3), np.uint8, seed=n))
    for n in (7, 25):
        (folder / f"im{n}.png").write_bytes((folder / f"im{n}.png").read_bytes()[:-50])
    for n in range(30):
        os.utime(folder / f"im{n}.png", ns=(1, 1))  # which stores keep
    for name, numbers in (("1.csv", range(20)), ("2.csv", range(18, 30))):
        rows = [f"s{n % 3},{n // 3 if n < 29 else 1},{n / 4},im{n}.png" for n in numbers]
        (folder / name).write_text("\n".join(["id,t,v,path", *rows]) + "\n")


def write_episodes(folder: Path) -> None:
    """Two episodes, with images of two cameras."""
    from hdf5files import aloha

    for n in (1, 2):
        aloha(folder / f"{n}.hdf5", seed=n)


def choose(kind: str) -> None:
    """Take sources that have fields, or write manifests in parts."""
    if kind == "parts":
        force_parts()
        READING.update(chunk_rows=16, shard_rows=32)
        return
    READING.clear()
    READING.update(_FIELDS[kind], chunk_rows=8, shard_rows=16, workers=1, blocksize=300)
    if kind == "hdf5":
        SOURCES.update(first="1.hdf5", later="2.hdf5")


def killed_at(point: int, operation: str, folder: Path) -> None:
    """Run the operation and die before its n-th mutating call on the store or beside it."""
    die_at(point, folder)
    operate(operation, folder)


def die_at(point: int, folder: Path) -> None:
    """From now on, die before the n-th mutating call below a folder; at every second point in the middle of a write."""
    count, torn = 0, point % 2 == 1

    def reached(create: Callable[[], Any] | None) -> None:
        nonlocal count
        count += 1
        if count > point:
            if torn and create is not None:
                create()
            os.kill(os.getpid(), signal.SIGKILL)

    watch_files(folder, lambda path, create: reached(create), lambda event, path: reached(None))


def watch_files(
    folder: Path, before_write: Callable[[str, Callable[[], Any]], None], before_change: Callable[[str, str], None]
) -> None:
    """Call a function before each file below a folder is opened to be written, and one before each other change.

    The first gets the path, and what makes an empty file there; the other the audit event and its path. Files are
    opened by :func:`open`, whose audit event tells, or by :func:`os.open`, maybe relative to a folder that no event
    tells of. Of threads that make one folder at a time, only the call that makes it counts: the others' change nothing,
    and how many they are differs from run to run.
    """
    real, make, making = os.open, os.mkdir, threading.Lock()

    def watched(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        whole = os.path.join(base, path)
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and whole.startswith(str(folder)):
            before_write(whole, lambda: real(path, flags | os.O_CREAT, mode, dir_fd=dir_fd))
        return real(path, flags, mode, dir_fd=dir_fd)

    def made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        assert dir_fd is None, path
        with making:
            possible = not os.path.lexists(path) and os.path.isdir(os.path.dirname(os.path.abspath(path)))
            if possible and str(path).startswith(str(folder)):
                before_change("os.mkdir", str(path))
            make(path, mode)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        if event != "open":
            before_change(event, str(arguments[0]))
        elif isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            path = str(arguments[0])
            before_write(path, lambda: os.close(real(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)))

    os.open, os.mkdir = watched, made
    sys.addaudithook(watch)


def refused_from(point: int, operation: str, folder: Path, number: int = errno.ENOSPC) -> None:
    """Run the operation on a disk that is full from its n-th mutating call on; it must say so, with path and bytes."""
    count = 0

    def refuse(path: str) -> None:
        nonlocal count
        count += 1
        if count > point:
            raise OSError(number, os.strerror(number), path)

    watch_files(
        folder,
        lambda path, create: refuse(path),
        lambda event, path: refuse(path) if event == "os.mkdir" else None,
    )
    try:
        operate(operation, folder)
    except StoreError as error:
        text = str(error)
        if os.strerror(number) not in text or str(folder) not in text or "Fix: " not in text:
            raise AssertionError(text) from error
        os._exit(3 if "bytes" in text else 4)


def forked(function: Callable[[], Any]) -> int:
    """The wait status of a function in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except BaseException as error:  # the parent reports it
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return os.waitpid(child, 0)[1]


def imported_beside(known: Set[str]) -> list[str]:
    """Names of modules that this process has beside those known, and another one can import."""
    specs = {name: getattr(module, "__spec__", None) for name, module in sys.modules.items() if name not in known}
    return [name for name, spec in specs.items() if spec is not None and spec.name == name and spec.has_location]


def listing(folder: Path) -> dict[str, str]:
    """Digest of every file; of those that record times, just that they are there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            timed = path.name == "root.json" or path == folder / "s.zarr/zarr.json"
            content = path.read_bytes()
            if "quarantine" in path.name:  # it names files as they were named
                content = re.sub(rb"/[^,\n]*/", b"", content)
            found[str(path.relative_to(folder))] = "" if timed else hashlib.sha256(content).hexdigest()
    return found


def look(operation: str, folder: Path, n_rows: set[int]) -> None:
    """The store must open at one of its versions and be sound; or, if it was to be made, not be there yet."""
    store = folder / "s.zarr"
    if operation == "ingest" and not (store / "zarr.json").exists():
        return
    opened = zstore.open_store(store)
    assert opened.n_rows in n_rows, opened.n_rows
    faults = zstore.verify(opened).faults
    assert faults == (), faults


def again(operation: str, folder: Path) -> None:
    """The next run, which may find that all is done."""
    if operation == "rollback" and zstore.open_store(folder / "s.zarr").version > 2:
        zstore.gc(folder / "s.zarr", keep=9)  # it would commit once more; this one only tidies up
        return
    try:
        operate(operation, folder)
    except StoreError as error:
        if operation != "ingest" or "there is a store already" not in str(error):
            raise


def main(folder: Path, operation: str, every: int, how: str) -> None:
    """Kill the operation at every n-th point, or fill the disk there, and report."""
    whole = folder / "whole"
    assert forked(lambda: prepare(operation, whole)) == 0
    counts: set[int] = set()
    reader, writer = os.pipe()

    def sizes() -> None:
        known = frozenset(sys.modules)
        before = zstore.open_store(whole / "s.zarr").n_rows if operation != "ingest" else 0
        operate(operation, whole)
        after = zstore.open_store(whole / "s.zarr").n_rows
        os.write(writer, json.dumps([before, after, imported_beside(known)]).encode())

    assert forked(sizes) == 0
    *counted, modules = json.loads(os.read(reader, 1 << 16))
    counts = set(counted)
    for module in modules:  # once here, and not in each of the forks: most of what they do else
        importlib.import_module(module)
    expected, failures, point, tried = listing(whole), [], 0, 0
    start = folder / "start"
    assert forked(lambda: prepare(operation, start)) == 0
    while True:
        there = folder / "there"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(start, there)
        harms: dict[str, Any] = {
            "kill": killed_at,
            "full": refused_from,
            "broken": partial(refused_from, number=errno.EIO),
        }
        harm = harms[how]
        status = forked(lambda: harm(point, operation, there))  # noqa: B023  # runs before the loop goes on
        tried += 1
        if status == 0:
            break
        if how != "kill" and os.waitstatus_to_exitcode(status) not in (3, 4):
            failures.append(f"{operation} {point}: no clear error")
        if forked(lambda: look(operation, there, counts)):  # noqa: B023
            failures.append(f"{operation} {point}: unsound")
        if forked(lambda: again(operation, there)):  # noqa: B023
            failures.append(f"{operation} {point}: cannot run again")
        if listing(there) != expected:
            extra = sorted(set(listing(there).items()) ^ set(expected.items()))[:4]
            failures.append(f"{operation} {point}: another result {extra}")
        point += every
    sys.stdout.write(json.dumps({"points": tried - 1, "failures": failures}) + "\n")


def kill_at_random(folder: Path, n_kills: int) -> None:
    """Kill operations on a larger store at any time, and report."""
    SIZE["rows"] = 200_000
    READING.update(workers=2, blocksize=100_000)
    draw, failures, done = random.Random(11), [], 0
    operations = ["ingest", "overwrite", "append", "compact", "rollback", "gc"]
    known = {}
    for operation in operations:
        start, whole = folder / operation, folder / f"{operation}-whole"
        assert forked(lambda: prepare(operation, start)) == 0  # noqa: B023
        shutil.copytree(start, whole)
        before = forked_rows(whole)
        began = time.monotonic()
        assert forked(lambda: operate(operation, whole)) == 0  # noqa: B023
        known[operation] = (listing(whole), {before, forked_rows(whole)}, time.monotonic() - began)
    while done < n_kills:
        operation = operations[done % len(operations)]
        expected, counts, seconds = known[operation]
        there = folder / "there"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(folder / operation, there)
        child = os.fork()
        if child == 0:
            operate(operation, there)
            os._exit(0)
        time.sleep(draw.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == 0:
            continue  # it was through
        done += 1
        if forked(lambda: look(operation, there, counts)):  # noqa: B023
            failures.append(f"{operation} {done}: unsound")
        if forked(lambda: again(operation, there)):  # noqa: B023
            failures.append(f"{operation} {done}: cannot run again")
        if listing(there) != expected:
            extra = sorted(set(listing(there).items()) ^ set(expected.items()))[:4]
            failures.append(f"{operation} {done}: another result {extra}")
    sys.stdout.write(json.dumps({"points": done, "failures": failures}) + "\n")


def forked_rows(folder: Path) -> int:
    """Rows of the store, 0 if there is none; counted in a fork."""
    reader, writer = os.pipe()
    there = (folder / "s.zarr/zarr.json").exists()
    assert (
        forked(lambda: os.write(writer, str(zstore.open_store(folder / "s.zarr").n_rows if there else 0).encode())) == 0
    )
    return int(os.read(reader, 100))


if __name__ == "__main__":
    if sys.argv[2] == "random":
        kill_at_random(Path(sys.argv[1]), int(sys.argv[3]))
    else:
        if len(sys.argv) > 5:
            choose(sys.argv[5])
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
