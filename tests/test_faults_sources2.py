"""Which sources a store has taken, which of its rows are fillers, and what of both is checked later."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_GRID, few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from s3server import S3Server

from lightning_app.data.stores import open_or_ingest
from zstore import (
    CorruptionError,
    SourceError,
    Store,
    StoreError,
    append,
    compact,
    ingest,
    open_store,
    rollback,
    verify,
)
from zstore.format.commit import marked
from zstore.storage.urls import open_storage
from zstore.upkeep.compare import compare_sources
from zstore.writing.ledger import read_digests
from zstore.writing.version import commit_version

HEADER = ["site", "date", "v"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket, reached through the usual environment variables."""
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{server.make_bucket()}"


def days(path: Path, values: list[float], first: str = "2001-01-01", site: str = "a") -> Path:
    """A CSV of one series, a value a day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = np.datetime64(first)
    return write_table(path, HEADER, [[site, start + np.timedelta64(n, "D"), value] for n, value in enumerate(values)])


def made(folder: Path, *values: float) -> Store:
    ingest(days(folder / "rows.csv", list(values)), folder / "s.zarr", id="site", time="date")
    return open_store(folder / "s.zarr")


def test_the_digest_of_a_version_stays_while_others_are_written(tmp_path: Path) -> None:
    store = made(tmp_path, 1.0, 2.0, 3.0)
    root = tmp_path / "s.zarr" / "zarr.json"
    committed = root.read_bytes()
    root.write_bytes(marked(committed, "0" * 32))  # as while another writer is at work
    assert open_store(store.path).digest == store.digest
    root.write_bytes(committed)
    (tmp_path / "s.zarr" / "manifest" / "00000001" / "root.json").unlink()  # as when a writer died after its commit
    append(days(tmp_path / "more.csv", [4.0], "2001-01-04"), store.path)  # which writes it
    assert open_store(store.path, version=1).digest == store.digest
    assert open_store(store.path).digest != store.digest


def test_files_of_one_name_in_dated_folders_are_taken_once_each(tmp_path: Path) -> None:
    store, pattern = tmp_path / "s.zarr", str(tmp_path / "q" / "*" / "data.csv")
    for month in (1, 2, 3):
        days(tmp_path / "q" / f"2001-0{month}" / "data.csv", [month, month + 0.5], f"2001-0{month}-01")
        ingest(pattern, store, id="site", time="date") if month == 1 else append(pattern, store)
        assert append(pattern, store) is None
    assert open_store(store).version == 3
    assert open_store(store).read("v", 0, 6).tolist() == [1, 1.5, 2, 2.5, 3, 3.5]
    names = [record.key for record in open_store(store).ledger]
    assert names == [f"q/2001-0{month}/data.csv" for month in (1, 2, 3)]


@pytest.mark.parametrize("moved", ["sources", "all", "called from elsewhere", "named behind a link"])
def test_files_that_were_taken_are_known_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    root = tmp_path / "before"
    days(root / "q" / "01" / "data.csv", [1, 2])
    days(root / "q" / "02" / "data.csv", [3, 4], "2001-02-01")
    monkeypatch.chdir(root)
    ingest("q/*/data.csv", "s.zarr", id="site", time="date")
    if moved == "sources":
        (root / "q").rename(tmp_path / "elsewhere")
        assert append(str(tmp_path / "elsewhere" / "*" / "data.csv"), "s.zarr") is None
    elif moved == "all":
        monkeypatch.chdir(tmp_path)
        root.rename(tmp_path / "after")
        assert append("after/q/*/data.csv", "after/s.zarr") is None
    elif moved == "called from elsewhere":
        monkeypatch.chdir(root / "q" / "01")
        assert append("data.csv", "../../s.zarr") is None
        write_table(root / "q" / "01" / "data.csv", HEADER, [["a", "2001-01-03", 3]])
        with pytest.raises(SourceError, match="changed after its rows were taken"):
            append(str(root / "q" / "01" / "data.csv"), root / "s.zarr")
    else:
        (tmp_path / "link").symlink_to(root)
        write_table(root / "q" / "01" / "data.csv", HEADER, [["a", "2001-01-03", 3]])
        with pytest.raises(SourceError, match="changed after its rows were taken"):
            append(str(tmp_path / "link" / "q" / "01" / "data.csv"), tmp_path / "link" / "s.zarr")


@pytest.mark.parametrize("on_duplicate", ["error", "first", "last"])
def test_a_file_that_changed_after_it_was_taken_is_refused_unless_forced(tmp_path: Path, on_duplicate: Any) -> None:
    store = made(tmp_path, 1, 2).path
    days(tmp_path / "rows.csv", [1, 7, 3])
    with pytest.raises(SourceError, match=r"changed after its rows were taken.*rows\.csv.*--force"):
        append(tmp_path / "rows.csv", store, on_duplicate=on_duplicate)
    assert open_store(store).version == 1
    if on_duplicate != "error":
        append(tmp_path / "rows.csv", store, on_duplicate=on_duplicate, force=True)
        assert open_store(store).read("v", 0, 3).tolist() == [1, 2 if on_duplicate == "first" else 7, 3]
        assert append(tmp_path / "rows.csv", store) is None
        days(tmp_path / "rows.csv", [1, 2])  # as it was first: not what the store has
        with pytest.raises(SourceError, match="changed after its rows were taken"):
            append(tmp_path / "rows.csv", store)


def test_the_same_bytes_under_a_path_of_another_id_are_other_rows(tmp_path: Path) -> None:
    for site in "ab":
        (tmp_path / site).mkdir()
        write_table(tmp_path / site / "data.csv", ["date", "v"], [["2001-01-01", 1], ["2001-01-02", 2]])
    pattern, store = r"/(\w+)/data\.csv", tmp_path / "s.zarr"
    ingest(tmp_path / "a" / "data.csv", store, time="date", id_from_path=pattern)
    append(str(tmp_path / "*" / "data.csv"), store)
    assert open_store(store).ids.tolist() == ["a", "b"]
    assert append(str(tmp_path / "*" / "data.csv"), store) is None
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").rename(tmp_path / "sub" / "a")
    assert append(tmp_path / "sub" / "a" / "data.csv", store) is None


@pytest.mark.parametrize("by_path", [False, True])
def test_ledgers_of_earlier_releases_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_path: bool
) -> None:
    """They had the last part of a name; or the path as it was typed, where ids come from it."""
    files = [days(tmp_path / "q" / site / "data.csv", [1, 2], site=site) for site in "ab"]
    store, options = tmp_path / "s.zarr", {"channels": ["v"], "id_from_path": r"q/(\w)/"} if by_path else {"id": "site"}

    def early(files: Any, target: Any, id_from_path: Any, runner: Any, known: Any) -> Any:
        records = read_digests(files, target, None, runner)
        return [
            replace(record, key=str(file) if by_path else file.path.name)
            for file, record in zip(files, records, strict=True)
        ]

    with monkeypatch.context() as patched:
        patched.setattr("zstore.writing.ingest.read_digests", early)
        ingest(files[0], store, time="date", **options)
    append(files, store)
    assert open_store(store).ids.tolist() == ["a", "b"]
    assert append(files, store) is None


Cell = tuple[str, int, float | None, str | None]
CELLS = st.tuples(
    st.sampled_from("ab"),
    st.integers(0, 8),
    st.sampled_from([None, 0.0, 1.0, 2.5, 1 / 3]),
    st.sampled_from([None, "x", "y"]),
)


def cells(path: Path, rows: Sequence[Cell]) -> Path:
    return write_table(path, ["id", "t", "v", "w"], [["" if c is None else c for c in row] for row in rows])


def stored_cells(store: Store) -> dict[tuple[str, int], tuple[float | None, str | None]]:
    """What a store has by id and time."""
    words = (*(store.channel("w").categories or ()), None)
    values, codes = store.read("v", 0, store.n_rows), np.nan_to_num(store.read("w", 0, store.n_rows), nan=-1)
    ids = store.ids[store.index.series_of(0, store.n_rows)].tolist()
    rows = zip(ids, store.times(0, store.n_rows).tolist(), values.tolist(), codes.astype(int).tolist(), strict=True)
    return {(id_, t): (None if np.isnan(v) else v, words[code]) for id_, t, v, code in rows}


@given(
    first=st.lists(CELLS, min_size=1, max_size=8, unique_by=lambda row: row[:2]),
    later=st.lists(
        st.tuples(
            st.lists(CELLS, min_size=1, max_size=5),
            st.sampled_from(["error", "first", "last", "update"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=few(12))
def test_a_filler_gives_way_to_any_row(
    tmp_path_factory: pytest.TempPathFactory, first: list[Cell], later: list[tuple[list[Cell], Any, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("fill")
    # The first two rows say that v holds numbers and w words.
    first = [("z", 0, 1.25, "x"), ("z", 1, None, "y"), *first]
    store, files = str(folder / "s.zarr"), [cells(folder / "0.csv", first)]
    ingest(files[0], store, id="id", time="t", freq="1", fill_gaps=True, workers=1)
    expected: dict[tuple[str, int], tuple[float | None, str | None]] = {}
    for id_ in {row[0] for row in first}:
        times = [row[1] for row in first if row[0] == id_]
        expected.update({(id_, t): (None, None) for t in range(min(times), max(times) + 1)})
    expected.update({row[:2]: (None if row[2] is None else float(np.float32(row[2])), row[3]) for row in first})
    n_dropped = 0
    for number, (rows, policy, compacted) in enumerate(later, start=1):
        before, after, refused = dict(expected), dict(expected), False
        fresh: set[tuple[str, int]] = set()
        for id_, t, v, w in rows:
            known = before.get((id_, t), (None, None)) != (None, None) or (id_, t) in fresh
            refused |= known
            if not known or policy == "last":
                after[id_, t] = (None if v is None else float(np.float32(v)), w)
            elif policy == "update":
                old_v, old_w = after[id_, t]
                after[id_, t] = (old_v if v is None else float(np.float32(v)), w or old_w)
            fresh.add((id_, t))
        path = cells(folder / f"{number}.csv", rows)
        if refused and policy == "error":
            with pytest.raises(SourceError, match="duplicate time"):
                append(path, store, workers=1)
        else:
            receipt = append(path, store, on_duplicate=policy, workers=1)
            assert receipt is not None
            assert receipt.n_rows_in == len(rows)
            expected, n_dropped = after, n_dropped + receipt.n_duplicates
            files.append(path)
        if compacted:
            compact(store, workers=1)
        assert stored_cells(open_store(store)) == expected
    comparison = compare_sources(open_store(store), files)
    assert (comparison.n_different, comparison.n_unseen, comparison.faults) == (0, 0, ())


def test_a_filler_gives_way_in_every_packing_and_across_shards(tmp_path: Path) -> None:
    for name, scale in (("ints", 1.0), ("decimals", 0.25), ("floats", 1 / 3)):
        rows = [["a", t, t * scale] for t in range(100) if t % 4 == 0 or t in (1, 2, 99)]
        store = tmp_path / f"{name}.zarr"
        ingest(
            write_table(tmp_path / f"{name}.csv", ["id", "t", "v"], rows),
            store,
            id="id",
            time="t",
            freq="1",
            fill_gaps=True,
            **SMALL_GRID,
        )
        late = [["a", t, t * scale] for t in range(100) if [t] not in [row[1:2] for row in rows]]
        append(write_table(tmp_path / f"{name}-late.csv", ["id", "t", "v"], late), store)
        expected = (np.arange(100) * scale).astype(np.float32)
        np.testing.assert_array_equal(open_store(store).read("v", 0, open_store(store).n_rows), expected)


def test_a_row_without_any_value_that_a_store_without_fillers_has_does_not_give_way(tmp_path: Path) -> None:
    path = write_table(tmp_path / "rows.csv", HEADER, [["a", "2001-01-01", 1], ["a", "2001-01-02", ""]])
    ingest(path, tmp_path / "s.zarr", id="site", time="date")
    with pytest.raises(SourceError, match="duplicate time"):
        append(days(tmp_path / "more.csv", [2], "2001-01-02"), tmp_path / "s.zarr")


@given(
    batches=st.lists(
        st.tuples(st.lists(CELLS, min_size=1, max_size=6), st.sampled_from(["first", "last"])), min_size=1, max_size=4
    ),
    then=st.sampled_from(["nothing", "compact", "rollback"]),
    spoiled=st.booleans(),
)
@settings(max_examples=few(12))
def test_a_sound_store_equals_its_sources_whatever_was_dropped_on_the_way(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[list[Cell], Any]], then: str, spoiled: bool
) -> None:
    folder = tmp_path_factory.mktemp("chain")
    store = str(folder / "s.zarr")
    files = [cells(folder / "0.csv", [("z", 0, 1.25, "x"), ("z", 1, None, "y")])]
    ingest(files[0], store, id="id", time="t", workers=1)
    for number, (rows, policy) in enumerate(batches, start=1):
        files.append(cells(folder / f"{number}.csv", rows))
        append(files[-1], store, on_duplicate=policy, workers=1)
    if then == "compact":
        compact(store, workers=1)
    elif then == "rollback":
        rollback(store, len(batches))
        files.pop()
    opened = open_store(store)
    if spoiled:  # a row of the sources that is nowhere, and one of the store that no source has so
        cells(files[0], [("z", 0, 1.5, "x"), ("z", 1, None, "y"), ("y", 5, 1.0, None)])
    comparison = compare_sources(opened, files)
    expected = (2, 0, 2) if spoiled else (0, 0, 0)
    assert (comparison.n_different, comparison.n_unseen, len(comparison.faults)) == expected


def test_more_rows_that_differ_than_were_dropped_are_told(tmp_path: Path) -> None:
    store = made(tmp_path, 1, 2, 3)
    more = write_table(tmp_path / "again.csv", HEADER, [["a", "2001-01-02", 9]])
    comparison = compare_sources(store, [tmp_path / "rows.csv", more])
    assert comparison.n_different == 1
    assert "2001-01-02" in comparison.faults[0]


def test_receipts_of_earlier_releases_tell_what_was_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They did not add up what the appends before had dropped."""

    commit: Any = commit_version

    def as_before(*args: Any) -> None:
        *others, notes = args
        commit(*others, {name: value for name, value in notes.items() if name != "n_dropped"})

    monkeypatch.setattr("zstore.writing.pipeline.commit_version", as_before)
    store = made(tmp_path, 1, 2, 3)
    assert compare_sources(store, [tmp_path / "rows.csv"]).n_different == 0
    files = [tmp_path / "rows.csv", days(tmp_path / "again.csv", [7, 4], "2001-01-03")]
    assert compare_sources(store, files).n_different == 2
    append(files[1], store.path, on_duplicate="last")
    files.append(days(tmp_path / "more.csv", [5], "2001-01-05"))
    append(files[2], store.path)
    assert compare_sources(open_store(store.path), files).n_different == 0


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_csv_files_behind_wildcards_or_in_a_bucket_are_ingested_again_when_they_change(
    tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    root = str(tmp_path / "q") if place == "folder" else request.getfixturevalue("bucket")

    def write(month: int, values: list[float]) -> None:
        path = days(tmp_path / "new.csv", values, f"2001-0{month}-01")
        storage, key = open_storage(root), f"2001-0{month}/data.csv"
        if place == "folder":
            (tmp_path / "q" / key).parent.mkdir(parents=True, exist_ok=True)
        storage.replace(key, path.read_bytes())

    def read() -> list[float]:
        first, store = (
            open_or_ingest(f"{root}/*/data.csv", {"id": "site", "time": "date"}, tmp_path / "cache", None) for _ in "12"
        )
        assert first.digest == store.digest  # it was not ingested once more
        numbers: list[float] = store.read("v", 0, store.n_rows).tolist()
        return numbers

    write(1, [1, 2])
    write(2, [3, 4])
    assert read() == [1, 2, 3, 4]
    write(2, [3, 5])
    assert read() == [1, 2, 3, 5]
    write(3, [6])
    assert read() == [1, 2, 3, 5, 6]
    open_storage(root).remove(["2001-01/data.csv"])
    assert read() == [3, 5, 6]


def test_csv_files_are_known_from_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days(tmp_path / "q" / "data.csv", [1, 2])
    stores = []
    for folder, name in ((tmp_path, "q/data.csv"), (tmp_path / "q", "data.csv")):
        monkeypatch.chdir(folder)
        stores.append(open_or_ingest(name, {"id": "site", "time": "date"}, tmp_path / "cache", None))
    assert stores[0].digest == stores[1].digest


@pytest.mark.parametrize("read", ["rows", "index", "moments", "manifest", "verify", "rows of the shard in use"])
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_reader_of_a_store_that_was_replaced_is_told_so(
    tmp_path: Path, request: pytest.FixtureRequest, place: str, read: str
) -> None:
    path = str(tmp_path / "s.zarr") if place == "folder" else f"{request.getfixturevalue('bucket')}/s.zarr"
    ingest(days(tmp_path / "rows.csv", [1, 2, 3]), path, id="site", time="date")
    store = open_store(path)
    if read in ("rows", "verify"):
        assert store.objects.records
    elif read == "rows of the shard in use":
        assert store.read("v", 0, 1).tolist() == [1]
        store.objects._recent.clear()  # as when many others were read since
    ingest(days(tmp_path / "other.csv", [7, 8], site="b"), path, id="site", time="date", overwrite=True)
    reads: dict[str, Any] = {
        "rows": lambda: store.read("v", 0, 3),
        "index": lambda: store.ids,
        "moments": lambda: store.moments,
        "manifest": lambda: store.ledger,
        "verify": lambda: verify(store),
        "rows of the shard in use": lambda: store.read("v", 0, 3),
    }
    with pytest.raises(StoreError, match=r"the store was replaced.*open the store again") as caught:
        reads[read]()
    assert not isinstance(caught.value, CorruptionError)
    assert open_store(path).read("v", 0, 2).tolist() == [7, 8]


def test_damage_is_still_told_as_damage(tmp_path: Path) -> None:
    store = made(tmp_path, 1, 2, 3)
    shard = next((tmp_path / "s.zarr" / "v").rglob("0"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptionError, match="has digest"):
        store.read("v", 0, 3)
    shard.unlink()
    with pytest.raises(CorruptionError, match="is missing"):
        open_store(store.path).read("v", 0, 3)
