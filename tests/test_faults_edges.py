"""Races of whoever replaces a store, what the doctor says, other operating systems, and secrets."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import yaml
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

import zstore
from lightning_app.arguments import take_arguments
from lightning_app.table import runs_of
from zstore import ConflictError, CorruptionError, SourceError, Store, StoreError, open_store, verify
from zstore.cli import main as zstore_main
from zstore.format.layout import safe_names
from zstore.printing import show_diagnosis
from zstore.storage import portable
from zstore.storage.urls import open_storage
from zstore.upkeep.doctor import examine
from zstore.upkeep.findings import Finding
from zstore.writing import lock

App = Callable[..., subprocess.CompletedProcess[str]]

BY_ID: dict[str, Any] = {"id": "id", "time": "t", "workers": 1}
SECRET = "SEKRIT7"  # noqa: S105  # it is none
DAY = np.datetime64("2001-01-01")


def rows(path: Path, n: int = 60, first: int = 0, bad: int = 0, id_: str = "a") -> Path:
    """Steps of one series; the last some cannot be stored."""
    lines = [[id_, first + t, "bad" if t >= n else t / 4] for t in range(n + bad)]
    return write_table(path, ["id", "t", "v"], lines)


def made(folder: Path, **options: Any) -> Path:
    """A store of one series of 60 steps."""
    zstore.ingest(rows(folder / "rows.csv"), folder / "s.zarr", **BY_ID, **options)
    return folder / "s.zarr"


def beside(store: Path) -> list[str]:
    """What lies beside a store and the sources."""
    return sorted(path.name for path in store.parent.iterdir() if path.suffix != ".csv" or "quarantine" in path.name)


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
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def gone() -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(OSError, match="No space"):
        zstore.end_quietly(full)
    assert [zstore.end_quietly(command) for command in (gone, lambda: 0, lambda: 3)] == [141, 0, 3]
    assert capsys.readouterr() == ("", "")


# The doctor


def store_of(folder: Path, series: dict[str, Any], name: str = "d", **options: Any) -> Store:
    """A store of daily values."""
    lines = [
        [id_, DAY + np.timedelta64(t, "D"), value] for id_, values in series.items() for t, value in enumerate(values)
    ]
    zstore.ingest(
        write_table(folder / f"{name}.csv", ["id", "t", "v"], lines), folder / f"{name}.zarr", **BY_ID, **options
    )
    return open_store(folder / f"{name}.zarr")


def found(store: Store) -> list[tuple[str, str]]:
    return [(finding.kind, finding.series) for finding in examine(store).findings]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_stand_for_missing_are_found_where_they_are_a_share_of_one_series(
    tmp_path: Path, dtype: Any
) -> None:
    random = np.random.default_rng(3)
    some = random.choice(400, 92, replace=False)
    flow, kelvin, tenths, high, both = (
        random.gamma(0.5, 300, 400).round(1),
        random.uniform(250, 303, 400).round(2),
        random.normal(10, 3, 400).round(1),
        np.minimum(random.gamma(0.5, 2000, 400).round(1), 9000 - np.arange(400)),
        random.normal(0, 2000, 400).round(1),
    )
    flow[some], kelvin[some[:40]], tenths[some], high[some], both[some] = -999, 0, -99.9, 9999, -999
    ill = {"flow": flow, "kelvin": kelvin, "tenths": tenths, "high": high, "both": both}
    fit = {
        "clean": random.normal(0, 1, 400).round(2),
        "gamma": random.gamma(0.5, 300, 400).round(1),
        "valve": np.where(np.arange(400) % 60 < 10, 100, 0),
        "switched": np.where(np.arange(400) % 60 < 40, 0, random.normal(2000, 30, 400).round(0)),
        "wide": random.normal(-999, 500, 400).round(0),
    }
    store = store_of(tmp_path, ill | fit, dtype=dtype)
    assert sorted(found(store)) == sorted(("sentinel", id_) for id_ in ill)
    said = {finding.series: finding.sentence for finding in examine(store).findings}
    assert re.fullmatch(
        r"-999 in 92 of 400 rows, first at 2001-01-\d\d; all other values lie between 0(\.\d)? and [\d.]+", said["flow"]
    )
    assert said["kelvin"].startswith("0 in 40 of 400 rows, first at 200")
    assert said["tenths"].startswith("-99.9 in 92 of 400 rows")


@settings(max_examples=few(60))
@given(values=st.lists(st.integers(-60, 60), min_size=60, max_size=90), at=st.integers(0, 59))
def test_a_sentinel_is_found_wherever_it_stands_and_none_where_there_is_none(values: list[int], at: int) -> None:
    from zstore.upkeep import checks

    clean = np.array(values, np.float64) / 4
    told = checks.sentinels(clean)
    spread = clean[clean != clean[0]]
    if len(np.unique(clean)) > 40:
        assert told is None
    ill = clean.copy()
    ill[at : at + 3] = -999
    if len(ill[at : at + 3]) == 3 and len(spread):
        first = checks.sentinels(ill)
        assert first is not None
        assert (first.start, first.detail.split(" of ")[0]) == (at, "-999 in 3")


def test_each_receipt_is_counted_once_and_only_for_versions_that_have_its_rows(tmp_path: Path) -> None:
    aside: dict[str, Any] = {"on_bad_row": "quarantine", "max_bad_rows": 9, "on_duplicate": "first"}
    twice = [["a", t, t] for t in (*range(60), 5, 6)]
    path = tmp_path / "s.zarr"
    zstore.ingest(write_table(tmp_path / "a.csv", ["id", "t", "v"], [*twice, ["a", 99, "bad"]]), path, **BY_ID, **aside)
    zstore.append(rows(tmp_path / "b.csv", first=60, bad=3), path, workers=1, **aside)
    zstore.append(rows(tmp_path / "c.csv", first=200, id_="b"), path, workers=1)
    zstore.compact(path, workers=1)
    zstore.rollback(path, 2)
    zstore.rollback(path, 1)
    first = ["1 row set aside by version 1, see", "2 rows dropped by version 1"]
    second = ["3 rows set aside by version 2, see", *first]
    told = {}
    for version in open_versions(path):
        details = [f.detail for f in examine(open_store(path, version)).findings if f.kind in ("refused", "duplicate")]
        told[version] = sorted(re.sub(r"see .*", "see", detail) for detail in details)
    assert told == {1: sorted(first), 2: sorted(second), 3: sorted(second), 5: sorted(second), 6: sorted(first)} | (
        {4: sorted(second)} if 4 in told else {}
    )


def open_versions(path: Path) -> list[int]:
    return [entry.version for entry in zstore.log(path)]


def test_gaps_are_told_in_whole_steps_of_at_least_one(tmp_path: Path) -> None:
    steps = [t * 2 + (t > 100) - (t > 200) + 8 * (t > 300) for t in range(400)]
    table = write_table(tmp_path / "s.csv", ["id", "t", "v"], [["a", t, t % 17] for t in steps])
    zstore.ingest(table, tmp_path / "s.zarr", **BY_ID)
    told = [finding.sentence for finding in examine(open_store(tmp_path / "s.zarr")).findings]
    assert told == ["2 steps that are no multiple of 2 steps, first at 203", "4 steps missing, until 610"]


def test_the_doctor_speaks_in_whole_sentences(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    series = {name: random.normal(10, 1, 300).round(2).astype(object) for name in "abcde"}
    series["a"][50:90], series["b"][100:180], series["c"][7] = 12.5, "", 1e9
    series["d"][3], series["e"][:] = "inf", 4
    lines = [
        [id_, DAY + np.timedelta64(t, "D"), value]
        for id_, values in series.items()
        for t, value in enumerate(values)
        if not (id_ == "a" and t in (150, 200, 201))
    ]
    zstore.ingest(write_table(tmp_path / "s.csv", ["id", "t", "v"], lines), tmp_path / "s.zarr", **BY_ID)
    text = show_diagnosis(examine(open_store(tmp_path / "s.zarr")))
    assert [line.strip() for line in text.splitlines() if line.startswith("  ")] == [
        "a: 3 steps missing in 2 gaps, at most 2 together, the longest until 2001-07-22",
        "d v: 1 value, the first inf, first at 2001-01-04",
        "e v: 4 in all 300 rows that have a value",
        "b v: 80 rows without a value, from 2001-04-11",
        "a v: 12.5 in 40 consecutive rows, from 2001-02-20",
        "c v: a value of 1e+09, at 2001-01-08; 98 % of the values lie between 7.6994 and 12.3801",
    ]
    assert text.splitlines()[0].endswith("1,497 rows of 5 series, 6 findings")
    assert Finding("empty", "a", "v", "no value in 3 rows", 0, 3, "2001-01-01").sentence == "no value in 3 rows"


def test_what_is_constant_in_every_series_is_told_once_if_a_number_and_not_at_all_if_a_word(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = [
        [s, DAY + np.timedelta64(t, "D"), round(random.normal(), 2), f"group {s % 3}", s % 3]
        for s in range(6)
        for t in range(80)
    ]
    table = write_table(tmp_path / "s.csv", ["id", "t", "v", "group", "number"], lines)
    zstore.ingest(table, tmp_path / "s.zarr", **BY_ID)
    (told,) = examine(open_store(tmp_path / "s.zarr")).findings
    assert (told.kind, told.series, told.channel) == ("constant", "", "number")
    assert told.sentence == "one value in each of 6 series; a static attribute would say it once"


# Secrets


def command_line_of_child(monkeypatch: pytest.MonkeyPatch, module: str) -> list[str]:
    """Let `subprocess.run` of a module start its process, note what everybody may read of it, and end it."""
    seen: list[str] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        given = {name: options[name] for name in ("env",) if name in options}
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **given
        )
        while "lightning_app" not in (line := Path(f"/proc/{child.pid}/cmdline").read_text()):
            time.sleep(0.01)  # it is not there at once
        seen.append(line)
        child.kill()
        child.communicate()
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(f"{module}.subprocess.run", run)
    return seen


linux = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the command lines of others are in /proc")


@linux
def test_no_child_of_plan_and_bench_has_storage_options_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path)
    seen = command_line_of_child(monkeypatch, "zstore.commands.training")
    options = ["--storage-options", f"region=here,secret_access_key={SECRET}"]
    zstore_main(["bench", str(path), *options])
    zstore_main(["plan", str(path), "--config", "none.yaml", *options])
    assert ["lightning_app.tuning" in line for line in seen] == [True, True]
    assert [SECRET in line for line in seen] == [False, False]


@linux
@pytest.mark.parametrize("form", ["mapping", "one", "whole"])
def test_no_run_of_a_table_has_storage_options_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    seen = command_line_of_child(monkeypatch, "lightning_app.table")
    (tmp_path / "c.yaml").write_text("model: {class_path: Repeat}\n")
    words = {
        "mapping": ["--data.storage_options", json.dumps({"secret_access_key": SECRET})],
        "one": [f"--data.storage_options.secret_access_key={SECRET}"],
        "whole": ["--data", json.dumps({"storage_options": {"secret_access_key": SECRET}})],
    }[form]
    run = runs_of(tmp_path / "c.yaml", None, [0], tmp_path, tuple(words))[0]
    with pytest.raises(zstore.UsageError, match="test of c failed"):
        run.result()
    assert [SECRET in line for line in seen] == [False]
    other = runs_of(tmp_path / "c.yaml", None, [0], tmp_path, tuple(word.replace(SECRET, "new") for word in words))[0]
    assert run.digest == other.digest  # the same run after a key was changed


def test_processes_that_lightning_starts_get_storage_options_without_a_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["fit", "--config", "c.yaml", "--data.storage_options", json.dumps({"secret_access_key": SECRET})]
    monkeypatch.setenv("LIGHTNING_APP_ARGUMENTS", "")
    monkeypatch.setattr(sys, "argv", ["lightning_app", *words])
    assert take_arguments() == words
    assert SECRET not in " ".join(_basic_subprocess_cmd())  # Lightning's, made of sys.argv
    assert take_arguments() == words  # as the other process does, which has the same environment
    monkeypatch.setattr(sys, "argv", ["lightning_app", "fit", "--config", "c.yaml"])
    assert (take_arguments(), sys.argv[1:]) == (words[:3], words[:3])


@pytest.mark.filterwarnings("default")  # of Lightning and jsonargparse, as in the tests of the command
def test_a_run_folder_and_what_is_printed_hold_no_secret(app: App, tmp_path: Path) -> None:
    path = made(tmp_path)
    known = {"region": "here", "secret_access_key": SECRET, "access_key_id": SECRET}
    words = [
        "--data.store",
        path,
        "--data.storage_options",
        json.dumps(known),
        "--data.lookback",
        4,
        "--data.horizon",
        2,
    ]
    words += ["--model", "NLinear", "--trainer.max_steps", 1, "--trainer.default_root_dir", tmp_path / "run"]
    words += ["--data.split.sizes", "[0.5, 0.2, 0.3]", "--early_stopping.monitor", "val/mse"]
    done = app("fit", *words, check=True)
    config = yaml.safe_load(next((tmp_path / "run").rglob("config.yaml")).read_text())
    assert config["data"]["storage_options"] == {"region": "here"}
    said = [done.stdout, done.stderr, *(path.read_text("latin-1") for path in (tmp_path / "run").rglob("*.*"))]
    for wrong in ('{"secret_access_key": "SEKRIT7", "region": [1]}', "secret_access_key=SEKRIT7"):
        for command in (["fit"], ["splits", "--config", next((tmp_path / "run").rglob("config.yaml"))]):
            done = app(*command, "--data.store", path, "--data.storage_options", wrong)
            assert done.returncode != 0
            assert "not shown, for they may hold secrets" in done.stdout + done.stderr
            said += [done.stdout, done.stderr]
    assert [text for text in said if SECRET in text] == []


@pytest.mark.parametrize("given", [f"key=a,{SECRET}", SECRET, json.dumps({"k": [SECRET]}), json.dumps([SECRET])])
def test_storage_options_that_cannot_be_meant_are_refused_without_being_shown(
    tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zstore_main(["info", str(tmp_path), "--storage-options", given]) == 2
    printed = capsys.readouterr()
    assert "--storage-options (not shown, for they may hold secrets); expected KEY=VALUE" in printed.err
    assert SECRET not in printed.out + printed.err


# Other operating systems

HIDDEN = """
import sys, os, signal, warnings, mmap
warnings.simplefilter("ignore")
import pyarrow.csv, pyarrow.parquet, dask.threaded, psutil, rich.progress  # these know other systems
if "fit" in sys.argv:
    import torch, pytorch_lightning.cli, tensorboard, torchmetrics, zarr
warnings.simplefilter("default")
warnings.filterwarnings("ignore", message="only soft file lock|flock not supported")
for name in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
    del sys.modules[name]  # it looks for fcntl when it is imported
for name in ("fcntl", "resource", "pwd", "grp", "termios", "syslog"):
    sys.modules[name] = None
gone = "sched_getaffinity posix_fallocate posix_fadvise pread preadv pwrite pwritev fork O_NOFOLLOW O_DIRECTORY "
gone += "O_CLOEXEC O_NONBLOCK getuid geteuid fdatasync fchmod mkfifo copy_file_range register_at_fork"
for name in gone.split():
    if hasattr(os, name):
        delattr(os, name)
if "fit" not in sys.argv:  # Lightning asks for the name of the system there
    del signal.SIGKILL, signal.SIGHUP
os.supports_dir_fd = set()
import zstore, zstore.storage.portable
zstore.storage.portable.sys = type("Other", (), {"platform": "other"})
folder = sys.argv[1]
with open(f"{folder}/a.csv", "w", encoding="utf-8") as file:
    file.write("id,t,v\\n" + "".join(f"{s},2001-01-{d:02d} {h:02d}:00:00,{s * h % 7 / 4}\\n"
                                    for s in range(2) for d in range(1, 9) for h in range(24)))
with open(f"{folder}/b.csv", "w", encoding="utf-8") as file:
    file.write("id,t,v\\n" + "".join(f"0,2001-01-09 {h:02d}:00:00,{h}\\n" for h in range(24)) + "0,never,1\\n")
path = f"{folder}/s.zarr"
for overwrite in (False, True):
    zstore.ingest(f"{folder}/a.csv", path, id="id", time="t", overwrite=overwrite)
zstore.append(f"{folder}/b.csv", path, on_bad_row="quarantine", max_bad_rows=1)
store = zstore.open_store(path)
from zstore.writing.lock import locked
from pathlib import Path
with locked(Path(path)):
    try:
        zstore.append(f"{folder}/a.csv", path, force=True)
    except zstore.ConflictError:
        print("refused")
print(store.n_rows, zstore.verify(store).faults, len(store.windows(24, 2)), flush=True)
if "die" in sys.argv:
    with locked(Path(path)):
        os._exit(9)
if "fit" in sys.argv:
    from lightning_app.cli import main
    words = ["--data.store", path, "--data.lookback", "4", "--data.horizon", "2", "--model", "NLinear", "--quiet"]
    words += ["--trainer.max_epochs", "1", "--trainer.default_root_dir", f"{folder}/run"]
    words += ["--data.split.sizes", "[0.5, 0.2, 0.3]"]
    codes = [main(["fit", *words]), main(["test", *words]), main(["predict", *words])]
    print(codes, os.path.exists(f"{folder}/run/predictions.zarr/zarr.json"))
"""


def run_elsewhere(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Write and read a store with what only Unix has hidden; with ``fit`` train too, with ``die`` die as a writer."""
    command = [sys.executable, "-c", HIDDEN, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_stores_are_written_and_read_without_what_only_unix_has(tmp_path: Path) -> None:
    for _ in range(2):  # a writer that was killed leaves no lock
        done = run_elsewhere(tmp_path, "die")
        assert (done.returncode, done.stdout) == (9, "refused\n408 () 358\n"), done.stderr
        shutil.rmtree(tmp_path / "s.zarr")


@pytest.mark.long
def test_a_model_is_fitted_tested_and_predicts_without_what_only_unix_has(tmp_path: Path) -> None:
    done = run_elsewhere(tmp_path, "fit")
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] True", done.stdout + done.stderr


def test_names_of_variables_are_folders_on_every_file_system() -> None:
    assert safe_names(["aux", "AUX.csv", "flow.", "a", "A", "con", "com7.x"]) == [
        "v_aux",
        "AUX_csv",
        "flow",
        "a",
        "A_2",
        "v_con",
        "com7_x",
    ]


def test_a_drive_letter_is_no_url(tmp_path: Path) -> None:
    for path in ("C:/data/x.zarr", "C:\\data\\x.zarr", "c://data/x.zarr"):
        assert not isinstance(open_storage(path), str)
    with pytest.raises(zstore.UsageError, match="URL 'ftp://a/b'"):
        open_storage("ftp://a/b")


def test_a_file_lock_refuses_a_second_writer_at_once_and_is_free_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "s.zarr")
    for _ in range(2):
        with lock.locked(tmp_path / "s.zarr"):
            for name in ("s.zarr", "link.zarr"):
                with pytest.raises(ConflictError, match="another process is writing"), lock.locked(tmp_path / name):
                    pass
    with pytest.raises(ConflictError), lock.locked(tmp_path / "gone.zarr"):
        pass


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
