"""Which sources a store has taken, which of its rows are fillers, and what of both is checked later."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table

from zstore import SourceError, Store, append, ingest, open_store
from zstore.format.commit import marked
from zstore.writing.ledger import read_digests

HEADER = ["site", "date", "v"]


def days(path: Path, values: list[float], first: str = "2001-01-01", site: str = "a") -> Path:
    """A CSV of one series, a value a day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = np.datetime64(first)
    return write_table(path, HEADER, [[site, start + n, value] for n, value in enumerate(values)])


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

    def early(files: Any, target: Any, id_from_path: Any, runner: Any) -> Any:
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
