"""Races of whoever replaces a store, and what is told of what cannot be stored or written."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from conftest import write_table
from edges import BY_ID, DAY, beside, made, rows

import zstore
from zstore import CorruptionError, SourceError, StoreError, open_store, verify
from zstore.storage import portable

# Whoever replaces a store


def test_an_append_to_a_store_that_was_just_replaced_is_refused_until_the_old_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said = made(tmp_path), []
    before, remove = path.stat().st_ino, os.unlink
    more = rows(tmp_path / "more.csv", first=60)
    begun, go_on = threading.Event(), threading.Event()

    def working(*_: object) -> None:
        begun.set()
        assert go_on.wait(60)

    def appended() -> None:
        try:
            zstore.append(more, path, workers=1, progress=working)
            said.append("committed")
        except Exception as error:  # what it says is looked at below
            said.append(f"{type(error).__name__}: {error}")
        finally:
            begun.set()

    other = threading.Thread(target=appended)

    def unlink(*arguments: Any, **options: Any) -> None:
        if not other.ident and path.stat().st_ino != before:  # the new store is in its place, and the old one goes
            other.start()
            assert begun.wait(60)
        remove(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        zstore.ingest(rows(tmp_path / "new.csv", 10), path, **BY_ID, overwrite=True)
    go_on.set()
    other.join(60)
    assert said == [
        f"ConflictError: another process is writing to {path}; expected one writer at a time. "
        "Fix: wait for it to finish, then run again; nothing of either is lost."
    ]
    assert zstore.append(more, path, workers=1) is not None
    assert (open_store(path).n_rows, verify(open_store(path)).faults) == (70, ())
    assert beside(path) == ["s.zarr"]


def test_what_lies_where_a_new_store_would_be_built_is_left_alone(tmp_path: Path) -> None:
    path = made(tmp_path)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"x")
    new = tmp_path / ".s.zarr.new"
    for plant in (lambda: new.symlink_to(other), lambda: shutil.copytree(other, new)):
        plant()
        with pytest.raises(StoreError, match=r"something that is no store is in the way .*\.s\.zarr\.new"):
            zstore.ingest(tmp_path / "rows.csv", path, **BY_ID, overwrite=True)
        assert (new / "a.jpg").read_bytes() == b"x"
        new.unlink() if new.is_symlink() else shutil.rmtree(new)
    assert verify(open_store(path)).faults == ()


def test_a_link_to_a_store_is_still_one_after_the_store_was_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path = made(tmp_path / "disk")
    (tmp_path / "link.zarr").symlink_to(path)
    for n in (10, 20):
        zstore.ingest(
            rows(tmp_path / "new.csv", n, bad=1),
            tmp_path / "link.zarr",
            **BY_ID,
            overwrite=True,
            on_bad_row="quarantine",
            max_bad_rows=5,
        )
        assert (tmp_path / "link.zarr").is_symlink()
        assert open_store(path).n_rows == n
    assert beside(path) == ["s.zarr"]
    assert beside(tmp_path / "link.zarr") == ["disk", "link.zarr", "link.zarr.quarantine.csv"]


def test_where_folders_cannot_be_exchanged_a_killed_replacement_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_exchanged", lambda a, b: False)
    path, rename = made(tmp_path), os.rename
    zstore.ingest(rows(tmp_path / "new.csv", 10), path, **BY_ID, overwrite=True)
    assert (open_store(path).n_rows, beside(path)) == (10, ["s.zarr"])

    class Killed(BaseException):
        pass

    def killed(a: Path, b: Path) -> None:
        if Path(b) == path:
            raise Killed
        rename(a, b)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(Killed):
        zstore.ingest(tmp_path / "rows.csv", path, **BY_ID, overwrite=True)
    monkeypatch.setattr(os, "rename", rename)
    assert not path.exists()
    assert zstore.append(rows(tmp_path / "more.csv", 5, first=10), path, workers=1) is not None
    assert (open_store(path).n_rows, verify(open_store(path)).faults) == (15, ())

    def refused(a: Path, b: Path) -> None:
        if Path(a) != path and not Path(b).name.endswith(".old") and Path(a).name.endswith(".new"):
            raise PermissionError(errno.EACCES, "in use")
        rename(a, b)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(StoreError, match=r"cannot replace .*in use.*Fix: end what"):
        zstore.ingest(tmp_path / "rows.csv", path, **BY_ID, overwrite=True)
    assert (open_store(path).n_rows, beside(path)) == (15, ["s.zarr"])


def test_a_store_that_was_removed_is_told_to_be_gone_not_damaged(tmp_path: Path) -> None:
    path = made(tmp_path)
    store = open_store(path)
    assert store.n_series == 1
    shutil.rmtree(path)
    with pytest.raises(
        StoreError, match=r"the store is gone \(.*s\.zarr\); expected the store that was opened"
    ) as told:
        store.series("a").read("v")
    assert not isinstance(told.value, CorruptionError)


def test_rows_set_aside_are_those_of_the_store_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside: dict[str, Any] = {"on_bad_row": "quarantine", "max_bad_rows": 5}
    path, own = tmp_path / "s.zarr", tmp_path / "s.zarr.quarantine-9.csv"
    own.write_text("my own file\n")
    zstore.ingest(rows(tmp_path / "a.csv", bad=2), path, **BY_ID, **aside)
    zstore.append(rows(tmp_path / "b.csv", first=60, bad=1), path, workers=1, **aside)
    assert beside(path) == ["s.zarr", "s.zarr.quarantine-2.csv", own.name, "s.zarr.quarantine.csv"]
    first = (tmp_path / "s.zarr.quarantine.csv").read_text()

    with pytest.raises(SourceError):  # what is refused leaves both as they are
        zstore.ingest(rows(tmp_path / "c.csv", bad=3), path, **BY_ID, overwrite=True)
    for module in ("ingest", "append"):
        monkeypatch.setattr(f"zstore.writing.{module}.check_unchanged", fails)
    with pytest.raises(SourceError, match="changed"):
        zstore.ingest(tmp_path / "c.csv", path, **BY_ID, **aside, overwrite=True)
    assert (tmp_path / "s.zarr.quarantine.csv").read_text() == first
    with pytest.raises(SourceError, match="changed"):
        zstore.append(rows(tmp_path / "d.csv", first=200, bad=3), path, workers=1, **aside)
    monkeypatch.undo()
    assert zstore.append(rows(tmp_path / "e.csv", first=200), path, workers=1) is not None
    assert beside(path) == ["s.zarr", "s.zarr.quarantine-2.csv", own.name, "s.zarr.quarantine.csv"]

    zstore.ingest(tmp_path / "c.csv", path, **BY_ID, **aside, overwrite=True)
    assert beside(path) == ["s.zarr", own.name, "s.zarr.quarantine.csv"]
    assert (tmp_path / "s.zarr.quarantine.csv").read_text().count("c.csv") == 3
    zstore.ingest(rows(tmp_path / "f.csv"), path, **BY_ID, overwrite=True)
    assert beside(path) == ["s.zarr", own.name]
    assert own.read_text() == "my own file\n"
    zstore.ingest(tmp_path / "c.csv", path, **BY_ID, **aside, overwrite=True)
    shutil.rmtree(path)
    zstore.ingest(tmp_path / "f.csv", path, **BY_ID)
    assert beside(path) == ["s.zarr", own.name]


def fails(*_: object) -> None:
    raise SourceError("changed while it was read")


# What is told


def test_a_time_beyond_a_nanosecond_axis_is_told_with_its_line_and_the_years_that_fit(tmp_path: Path) -> None:
    for year in ("1500", "2500"):
        lines = [["a", "2001-01-01 00:00:00.000000001", 1], ["a", f"{year}-01-01 00:00:00", 2]]
        table = write_table(tmp_path / "n.csv", ["id", "t", "v"], lines)
        with pytest.raises(SourceError, match=rf"'{year}-01-01 00:00:00' .* from 1677-09-21 to 2262-04-11\. .* line 3"):
            zstore.ingest(table, tmp_path / "n.zarr", **BY_ID)


@pytest.mark.parametrize(("first", "last"), [(1690, 1800), (1800, 2085), (2120, 2260)])
def test_times_of_any_century_that_int64_holds_in_nanoseconds_are_read_back(
    tmp_path: Path, first: int, last: int
) -> None:
    years = range(first, last, 5)
    rows = [["a", f"{year}-01-01T00:00:00.000000001", year] for year in years]
    source = write_table(tmp_path / "a.csv", ["id", "t", "v"], rows)
    store = open_store(zstore.ingest(source, tmp_path / "s.zarr", id="id", time="t").store)
    assert verify(store).faults == ()
    read = store.times(0, store.n_rows).astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    assert read.tolist() == list(years)


def test_times_that_an_int64_cannot_count_between_are_refused_before_anything_is_committed(tmp_path: Path) -> None:
    rows = [["a", "1700-01-01T00:00:00.000000001", 1], ["b", "2200-01-01T00:00:00.000000001", 2]]
    source = write_table(tmp_path / "a.csv", ["id", "t", "v"], rows)
    with pytest.raises(SourceError, match=r"times from 1700-01-01 .* to 2200-01-01 .*, in ns; expected .* apart"):
        zstore.ingest(source, tmp_path / "s.zarr", id="id", time="t")
    assert not (tmp_path / "s.zarr").exists()
    later = write_table(tmp_path / "b.csv", ["id", "t", "v"], rows[1:])
    zstore.ingest(write_table(tmp_path / "c.csv", ["id", "t", "v"], rows[:1]), tmp_path / "s.zarr", id="id", time="t")
    with pytest.raises(SourceError, match="apart"):
        zstore.append(later, tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").version == 1


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
@pytest.mark.parametrize("words", [False, True])
def test_a_store_of_categories_survives_every_kind_of_netcdf(tmp_path: Path, engine: Any, words: bool) -> None:
    lexicon = ["", "red", "dark blue", "grün"]
    lines = [[f"ü{s}", DAY + np.timedelta64(t, "D"), lexicon[t % 4], t / 4] for s in range(2) for t in range(8)]
    attributes = write_table(tmp_path / "st.csv", ["id", "soil", "area"], [["ü0", "sand", 1.5], ["ü1", "clay", 2]])
    table = write_table(tmp_path / "w.csv", ["id", "t", "kind", "v"], lines)
    zstore.ingest(table, tmp_path / "w.zarr", **BY_ID, static=attributes)
    dataset = open_store(tmp_path / "w.zarr").to_xarray(words=words).load()
    dataset.to_netcdf(tmp_path / "w.nc", engine=engine)
    with xarray.open_dataset(tmp_path / "w.nc", engine=engine, mask_and_scale=False) as again:
        if words:  # netCDF has no word that is missing
            assert again["kind"].values.tolist() == ["" if w != w else w for w in dataset["kind"].values.tolist()]
        else:
            xarray.testing.assert_equal(again, dataset)
            assert json.loads(again["kind"].attrs["categories"]) == ["dark blue", "grün", "red"]
            assert json.loads(again["soil"].attrs["categories"]) == ["clay", "sand"]
        assert again["id"].values.tolist() == ["ü0", "ü1"]


def test_a_command_whose_reader_has_gone_ends_without_a_word(tmp_path: Path) -> None:
    path = made(tmp_path)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "zstore.cli", "show", str(path), "a"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_is_no_broken_pipe_is_still_told(capsys: pytest.CaptureFixture[str]) -> None:
    def failed(number: int, *where: str) -> int:
        raise OSError(number, os.strerror(number), *where)

    assert zstore.end_quietly(partial(failed, errno.EPIPE)) == 141
    assert [zstore.end_quietly(partial(int, code)) for code in (0, 3)] == [0, 3]
    assert capsys.readouterr() == ("", "")
    assert zstore.end_quietly(partial(failed, errno.ENOSPC)) == 1
    line = "[Errno 28] No space left on device. Fix: make room where the command writes, and run again\n"
    assert capsys.readouterr() == ("", line)
    for unknown in (partial(failed, errno.EIO), partial(failed, errno.ENOSPC, "a.zarr")):
        with pytest.raises(OSError, match=r"Errno"):
            zstore.end_quietly(unknown)
