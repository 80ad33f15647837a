"""Any sequence of writing, dying, going back and cleaning up against a model of lists, with readers looking on."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, write_table
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from partly import small_parts

import zstore
from zstore import SourceError, Store, StoreError, open_store, verify

Rows = dict[tuple[str, int], float]

BY_ID: dict[str, Any] = {"id": "id", "time": "t", "freq": "1", "workers": 1}
TABLES = st.dictionaries(
    st.tuples(st.sampled_from(["a", "é", "0", "zz"]), st.integers(0, 12)),
    st.decimals(-400, 400, places=2).map(float) | st.sampled_from([1e-7, 5e9]),
    min_size=1,
    max_size=6,
)
KEEP = st.sampled_from(["error", "first", "last", "update"])


Killer = subprocess.Popen[str]


class StoreMachine(RuleBasedStateMachine):
    """The model: for every version its rows and the files that it knows."""

    def __init__(self, killer: Killer) -> None:
        super().__init__()
        self.killer = killer
        self.folder = Path(tempfile.mkdtemp(prefix="zstore-states-"))
        self.path = self.folder / "s.zarr"
        self.versions: dict[int, tuple[Rows, dict[str, Rows]]] = {}
        self.readers: list[tuple[Store, Rows]] = []
        self.n_files = 0

    @property
    def newest(self) -> int:
        return max(self.versions)

    def file(self, rows: Rows) -> Path:
        self.n_files += 1
        return self.written(f"{self.n_files}.csv", rows)

    def written(self, name: str, rows: Rows) -> Path:
        return write_table(self.folder / name, ["id", "t", "v"], [[id_, t, v] for (id_, t), v in rows.items()])

    @initialize(rows=TABLES)
    def first(self, rows: Rows) -> None:
        file = self.file(rows)
        zstore.ingest(file, self.path, **BY_ID)
        self.versions = {1: (rows, {file.name: rows})}

    @rule(rows=TABLES)
    def overwrite(self, rows: Rows) -> None:
        file = self.file(rows)
        zstore.ingest(file, self.path, **BY_ID, overwrite=True)
        self.versions, self.readers = {1: (rows, {file.name: rows})}, []

    @rule(rows=TABLES, keep=KEEP)
    def append(self, rows: Rows, keep: Any) -> None:
        self.add(self.file(rows), rows, keep)

    @rule(choice=st.integers(0, 20), keep=KEEP)
    def append_again(self, choice: int, keep: Any) -> None:
        """A file that some version knows: nothing new for that one, new for those from before it."""
        known = sorted((name, tuple(rows)) for _, files in self.versions.values() for name, rows in files.items())
        name = known[choice % len(known)][0]
        rows = next(files[name] for _, files in self.versions.values() if name in files)
        if name in self.versions[self.newest][1]:
            assert zstore.append(self.folder / name, self.path, workers=1) is None
        else:
            self.add(self.folder / name, rows, keep)

    def add(self, file: Path, rows: Rows, keep: Any) -> None:
        after = self.after(file, rows, keep)
        if after is None:
            with pytest.raises(SourceError, match="duplicate time"):
                zstore.append(file, self.path, workers=1)
            return
        assert zstore.append(file, self.path, on_duplicate=keep, workers=1) is not None
        self.versions[self.newest + 1] = after

    def after(self, file: Path, rows: Rows, keep: str) -> tuple[Rows, dict[str, Rows]] | None:
        """What an append makes of the newest version; None if it is refused."""
        before, files = self.versions[self.newest]
        if keep == "error" and before.keys() & rows.keys():
            return None
        joined = {**before, **rows} if keep in ("last", "update") else {**rows, **before}
        return joined, {**files, file.name: rows}

    @rule()
    def compact(self) -> None:
        version = zstore.compact(self.path, workers=1).version
        assert version in (self.newest, self.newest + 1)
        self.versions[version] = self.versions[self.newest]

    @rule(choice=st.integers(0, 50))
    def rollback(self, choice: int) -> None:
        version = sorted(self.versions)[choice % len(self.versions)]
        zstore.rollback(self.path, version)
        self.versions[self.newest + 1] = self.versions[version]

    @precondition(lambda self: len(self.versions) > 1)
    @rule(keep=st.integers(1, 3))
    def gc(self, keep: int) -> None:
        zstore.gc(self.path, keep)
        self.versions = {version: self.versions[version] for version in sorted(self.versions)[-keep:]}

    @rule(point=st.integers(0, 150), rows=TABLES, keep=st.sampled_from(["first", "last", "update"]))
    def die_appending(self, point: int, rows: Rows, keep: str) -> None:
        file = self.file(rows)
        arguments = {"sources": str(file), "store": str(self.path), "on_duplicate": keep, "workers": 1}
        after = self.after(file, rows, keep)
        assert after is not None
        self.die(point, "append", arguments, after)

    @rule(point=st.integers(0, 150))
    def die_compacting(self, point: int) -> None:
        self.die(point, "compact", {"path": str(self.path), "workers": 1}, self.versions[self.newest])

    @rule(point=st.integers(0, 60), keep=st.integers(1, 3))
    def die_collecting(self, point: int, keep: int) -> None:
        self.die(point, "gc", {"path": str(self.path), "keep": keep}, None)
        open_versions = {entry.version for entry in zstore.log(self.path)}
        assert set(sorted(self.versions)[-keep:]) <= open_versions <= self.versions.keys()
        self.versions = {version: self.versions[version] for version in open_versions}

    def die(self, point: int, operation: str, arguments: dict[str, Any], after: Any) -> None:
        """Let another process do it, and die before its n-th mutating call; it may be through before that."""
        wanted = {"point": point, "folder": str(self.path), "operation": operation, "arguments": arguments}
        assert self.killer.stdin is not None
        assert self.killer.stdout is not None
        self.killer.stdin.write(json.dumps(wanted) + "\n")
        self.killer.stdin.flush()
        assert int(self.killer.stdout.readline()) in (0, 9)
        version = open_store(self.path).version
        assert version in (self.newest, self.newest + 1)
        if version > self.newest:
            self.versions[version] = after

    @rule(choice=st.integers(0, 50))
    def open(self, choice: int) -> None:
        version = sorted(self.versions)[choice % len(self.versions)]
        self.readers.append((open_store(self.path, version), self.versions[version][0]))

    @precondition(lambda self: self.readers)
    @rule(choice=st.integers(0, 50))
    def read_on(self, choice: int) -> None:
        """A reader that was opened before sees its version, or, once that was collected, an error."""
        store, rows = self.readers[choice % len(self.readers)]
        if store.version in self.versions:
            assert contents(store) == expected(rows)
            return
        try:
            assert contents(store) == expected(rows)
        except StoreError:
            self.readers.remove((store, rows))

    @invariant()
    def the_newest_version_is_what_the_model_says(self) -> None:
        if self.versions:
            store = open_store(self.path)
            assert (store.version, contents(store)) == (self.newest, expected(self.versions[self.newest][0]))

    def teardown(self) -> None:
        try:
            for version, (rows, files) in self.versions.items():
                store = open_store(self.path, version)
                assert contents(store) == expected(rows)
                assert verify(store).faults == ()
                assert {record.key for record in store.ledger} == set(files)
            if self.versions:
                zstore.gc(self.path, 1)
                keys = {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}
                objects = open_store(self.path).objects
                assert keys == {
                    *objects.keys,
                    "zarr.json",
                    "time/zarr.json",
                    f"{store.schema.channels[0].variable}/zarr.json",
                }
        finally:
            shutil.rmtree(self.folder)


def contents(store: Store) -> dict[tuple[str, int], float]:
    times = store.times(0, store.n_rows).tolist()
    owners = np.repeat(store.ids, store.index.row_size).tolist()
    return dict(zip(zip(owners, times, strict=True), store.read("v", 0, store.n_rows).tolist(), strict=True))


def expected(rows: Rows) -> dict[tuple[str, int], float]:
    order = sorted(rows, key=lambda key: (key[0].encode(), key[1]))
    return {key: float(np.float32(rows[key])) for key in order}


@pytest.fixture
def killer() -> Iterator[Killer]:
    """``tests/killer.py``, for all examples."""
    with started() as running:
        yield running


@pytest.fixture
def parting_killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    """One that writes manifests in parts, as this process does then."""
    small_parts(monkeypatch)
    with started("parts") as running:
        yield running


@contextmanager
def started(*options: str) -> Iterator[Killer]:
    words = [sys.executable, str(REPOSITORY / "tests/killer.py"), *options]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running
        assert running.stdin is not None
        running.stdin.close()


def run_machine(killer: Killer, examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(killer)

    chosen = settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=checks)
    run_state_machine_as_test(Machine, settings=chosen)


def test_some_sequences_of_operations_keep_what_was_committed(killer: Killer) -> None:
    run_machine(killer, 10, 25)


def test_some_sequences_of_operations_keep_what_was_committed_in_parts(parting_killer: Killer) -> None:
    run_machine(parting_killer, 5, 25)


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_many_sequences_of_operations_keep_what_was_committed(killer: Killer) -> None:
    run_machine(killer, 200, 75)


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_many_sequences_of_operations_keep_what_was_committed_in_parts(parting_killer: Killer) -> None:
    run_machine(parting_killer, 100, 75)
