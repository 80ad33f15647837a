"""Sources are held still while they are read; what is kept of a store goes by its content."""

import gzip
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from zstore import Scaling, SourceError, StoreError, append, ingest, open_rows, open_store
from zstore.storage.folder import Folder
from zstore.upkeep.compare import compare_sources
from zstore.writing.receipt import write_receipt


def two_histories(tmp_path: Path) -> None:
    """Two stores of the same uuid and version number: a copy was restored and appended to otherwise."""
    header = ["id", "t", "v"]
    first = [[id_, t, t] for id_ in "ab" for t in range(20)]
    ingest(write_table(tmp_path / "a.csv", header, first), tmp_path / "one.zarr", id="id", time="t")
    shutil.copytree(tmp_path / "one.zarr", tmp_path / "two.zarr")
    for name, factor in (("one", 1), ("two", -1)):
        rows = [[id_, t, factor * t] for id_ in "ab" for t in range(20, 40)]
        append(write_table(tmp_path / f"{name}.csv", header, rows), tmp_path / f"{name}.zarr")


def test_decoded_rows_go_by_the_content_of_a_version(tmp_path: Path) -> None:
    two_histories(tmp_path)
    one, two = (open_store(tmp_path / f"{name}.zarr") for name in ("one", "two"))
    assert (one.schema.uuid, one.version) == (two.schema.uuid, two.version)
    assert one.digest != two.digest
    for store in (one, two):
        found = open_rows(store, ["v"], Scaling.identity(1), tmp_path / "cache").values[:, 0]
        assert found.tolist() == store.read("v", 0, store.n_rows).tolist()


@pytest.mark.parametrize("panel", [None, Panel()], ids=["series", "panel"])
def test_scalers_and_panels_go_by_the_content_of_a_version(tmp_path: Path, panel: Panel | None) -> None:
    two_histories(tmp_path)
    split = Split(over="store", sizes=(30, 5, 5))
    means = []
    for name in ("one", "two"):
        data = WindowDataModule(
            str(tmp_path / f"{name}.zarr"), 2, 1, split=split, panel=panel, cache=str(tmp_path / "cache")
        )
        means.append(float(data.scaler.offset[0]))
        batch = next(iter(data.train_dataloader()))
        assert np.isfinite(batch["x"].numpy()).all()
    assert means == [14.5, np.mean([*range(20), *(-t for t in range(20, 30))])]


def test_a_store_that_was_replaced_is_no_longer_the_one_that_was_pickled(tmp_path: Path) -> None:
    two_histories(tmp_path)
    store = open_store(tmp_path / "one.zarr")
    pickled = pickle.dumps(store)
    assert pickle.loads(pickled).digest == store.digest  # noqa: S301  # our own bytes
    shutil.rmtree(tmp_path / "one.zarr")
    (tmp_path / "two.zarr").rename(tmp_path / "one.zarr")
    with pytest.raises(StoreError, match="another one than when it was opened"):
        pickle.loads(pickled)  # noqa: S301  # our own bytes


def edited(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"9")


def edited_in_secret(path: Path) -> None:
    before = path.stat()
    edited(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"z,1,1\n")


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


def deleted(path: Path) -> None:
    path.unlink()


CHANGES = [edited, edited_in_secret, truncated, grown, replaced, deleted]


def change_at(monkeypatch: pytest.MonkeyPatch, path: Path, change: Callable[[Path], None], n_reads: int) -> list[int]:
    """Change a file before it is read the n-th time; the list counts how often it was read."""
    seen = [0]
    read = Folder.read

    def reading(self: Folder, key: str, *arguments: Any, **options: Any) -> bytes:
        if key == str(path):
            seen[0] += 1
            if seen[0] == n_reads:
                change(path)
        return read(self, key, *arguments, **options)

    monkeypatch.setattr(Folder, "read", reading)
    return seen


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_source_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    content = "id,t,v\n" + "".join(f"a,{t},{t % 7}.25\n" for t in range(2000))
    options: dict[str, Any] = {"id": "id", "time": "t", "blocksize": 4096, "workers": 1}

    def fresh() -> None:
        path.write_bytes(gzip.compress(content.encode()) if suffix == ".csv.gz" else content.encode())

    fresh()
    with monkeypatch.context() as patch:
        seen = change_at(patch, path, change, 0)
        ingest(path, tmp_path / "whole.zarr", **options)
        n_reads = seen[0]
    assert n_reads > 1
    for point in sorted({1, 2, n_reads // 2, n_reads}):
        fresh()
        with monkeypatch.context() as patch:
            change_at(patch, path, change, point)
            with pytest.raises(SourceError, match=r"changed while it was read|cannot read"):
                ingest(path, tmp_path / "s.zarr", **options)
        assert not (tmp_path / "s.zarr" / "zarr.json").exists()


def test_a_source_that_changes_before_the_commit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "a.csv", ["id", "t", "v"], [["a", t, t] for t in range(50)])

    def late(*arguments: Any) -> Any:
        grown(path)
        return write_receipt(*arguments)

    monkeypatch.setattr("zstore.writing.ingest.write_receipt", late)
    with pytest.raises(SourceError, match="changed while it was read"):
        ingest(path, tmp_path / "s.zarr", id="id", time="t")
    assert not (tmp_path / "s.zarr" / "zarr.json").exists()


def test_an_append_and_a_comparison_refuse_a_source_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "a.csv", ["id", "t", "v"], [["a", t, t] for t in range(50)])
    more = write_table(tmp_path / "b.csv", ["id", "t", "v"], [["a", t, t] for t in range(50, 90)])
    ingest(path, tmp_path / "s.zarr", id="id", time="t")
    with monkeypatch.context() as patch:
        change_at(patch, more, edited_in_secret, 3)
        with pytest.raises(SourceError, match="changed while it was read"):
            append(more, tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").version == 1
    change_at(monkeypatch, path, replaced, 2)
    with pytest.raises(SourceError, match="changed while it was read"):
        compare_sources(open_store(tmp_path / "s.zarr"), [path])
