"""What an ingest costs, counted: flushes, tasks, bytes read and space."""

import gzip
import json
import os
import shutil
import threading
import tracemalloc
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from conftest import few, stored, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import SourceError, StoreError, open_store
from zstore.format.documents import to_bytes
from zstore.storage.file import File
from zstore.storage.folder import Folder
from zstore.writing import planner
from zstore.writing.ledger import read_digests
from zstore.writing.planner import plan_ingest
from zstore.writing.scheduler import Scheduler
from zstore.writing.sources.digests import PieceDigest, read_digested
from zstore.writing.sources.files import expand

MIB = 1 << 20


# Flushes.


class Disk:
    """What is asked of a file system, in order: ``flush PATH`` and ``name PATH``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        flush, replace = os.fsync, os.replace

        def flushed(descriptor: int) -> None:
            flush(descriptor)
            self.calls.append(f"flush {os.readlink(f'/proc/self/fd/{descriptor}')}")

        def named(source: Path, target: Path) -> None:
            replace(source, target)
            self.calls.append(f"name {target}")

        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "replace", named)


@pytest.mark.usefixtures("flushes")
@pytest.mark.parametrize("appended", [False, True])
def test_every_object_and_folder_is_flushed_once_before_the_root_names_it(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, appended: bool
) -> None:
    path = tmp_path / "s.zarr"
    if appended:
        zstore.ingest(csv, path, id="site", time="date")
        csv = write_table(tmp_path / "more.csv", ["site", "date", "level", "count"], [["0000", "2002-01-01", 1, 2]])
    disk = Disk(monkeypatch)
    if appended:
        zstore.append(csv, path)
    else:
        zstore.ingest(csv, path, id="site", time="date")
    before = disk.calls[: disk.calls.index(f"name {path / 'zarr.json'}")]
    written = [
        key for key in open_store(path).objects.keys if not appended or "/00000002/" in key or key.endswith("/c/1")
    ]
    written = [key for key in written if not key.endswith("/root.json")]  # a copy of the root, made after it
    folders = {str(folder) for key in written for folder in (path / key).parents if path in (folder, *folder.parents)}
    counted = Counter(before)
    assert {f"flush {path / key}": 1 for key in written}.items() <= counted.items()
    assert {f"flush {folder}": 1 for folder in folders}.items() <= counted.items()


@pytest.mark.usefixtures("flushes")
def test_the_copies_that_an_append_makes_follow_the_root_and_the_last_of_them_is_the_roots_own(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    zstore.ingest(csv, path, id="site", time="date")
    more = write_table(tmp_path / "more.csv", ["site", "date", "level", "count"], [["0000", "2002-01-01", 1, 2]])
    disk = Disk(monkeypatch)
    zstore.append(more, path)
    names = [call.removeprefix(f"name {path}/") for call in disk.calls if call.startswith(f"name {path}/")]
    assert names[0] == "zarr.json"
    assert sorted(names[1:-1]) == ["count/zarr.json", "level/zarr.json", "time/zarr.json"]
    assert names[-1] == "manifest/00000002/root.json"
    first = disk.calls.index(f"name {path / names[1]}")
    assert [call for call in disk.calls[first : first + 3] if not call.startswith("name ")] == []  # flushed before


@pytest.mark.usefixtures("flushes")
def test_flushes_of_a_commit_wait_for_the_disk_together(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, others, flush = threading.Lock(), threading.Event(), os.fsync
    waiting = most = 0

    def flushed(descriptor: int) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        if most > 3:
            others.set()
        others.wait(timeout=0.2)  # a slow disk, until four wait for it
        flush(descriptor)
        with lock:
            waiting -= 1

    monkeypatch.setattr(os, "fsync", flushed)
    zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date")
    assert most > 3


@pytest.mark.usefixtures("flushes")
def test_a_flush_that_fails_commits_nothing(csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def failing(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("level/c/0"):
            raise OSError(5, "Input/output error")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(zstore.StoreError, match=r"not on its disk .Input/output error"):
        zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date")
    assert not (tmp_path / "s.zarr").exists()


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), documents, max_size=5))
def test_documents_have_the_bytes_that_json_gives_them(document: dict[str, Any]) -> None:
    assert to_bytes(document) == json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()


# Many files.

cells = st.one_of(st.integers(-9, 9).map(str), st.sampled_from(["", "0.25", "1e3", "NA"]))
words = st.sampled_from(["", "a", "b", "cc"])
rows = st.tuples(st.sampled_from(["x", "y", "z"]), st.integers(0, 20), cells, words)
tables = st.lists(st.lists(rows, max_size=5), min_size=1, max_size=9)


@settings(max_examples=few(25))
@given(tables=tables, workers=st.sampled_from([1, 2, 3]), keep=st.sampled_from(["first", "last"]))
def test_small_files_that_are_read_together_make_the_bytes_that_they_make_one_by_one(
    tables: list[list[tuple[str, int, str, str]]], workers: int, keep: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    paths = [write_table(folder / f"{n}.csv", ["id", "t", "v", "kind"], rows) for n, rows in enumerate(tables)]
    paths[0].write_text("id,t,v,kind\nx,50,1.5,a\ny,51,1,b\ny,x,1,b\n" + paths[0].read_text().partition("\n")[2])
    reading: dict[str, Any] = {"id": "id", "time": "t", "time_unit": "steps", "on_duplicate": keep}
    reading |= {"on_bad_row": "quarantine", "categories": ["kind"]}
    with pytest.MonkeyPatch.context() as one_by_one:
        one_by_one.setattr("zstore.writing.sources.join.MOST_TOGETHER", 1, raising=False)
        zstore.ingest(paths, folder / "alone.zarr", **reading, max_bad_rows=1.0)
    zstore.ingest(paths, folder / "together.zarr", **reading, max_bad_rows=1.0, workers=workers)
    assert stored(folder / "together.zarr") == stored(folder / "alone.zarr")
    aside = [(folder / f"{name}.zarr.quarantine.csv").read_text() for name in ("together", "alone")]
    assert aside[0] == aside[1]
    assert "0.csv,4," in aside[0]


def test_six_hundred_small_files_are_no_more_than_a_few_tasks_and_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(600):
        (folder / f"{n:04d}.csv").write_text(f"t,v\n{n},{n % 7}\n")
    written: list[str] = []
    write = Folder.write_stream

    def noted(self: Folder, key: str, pieces: Any) -> int:
        written.append(key.rpartition(".")[2])
        return write(self, key, pieces)

    monkeypatch.setattr(Folder, "write_stream", noted)
    options: dict[str, Any] = {"time": "t", "id_from_path": r"(\d+)\.csv", "workers": 2}
    tasks: Counter[str] = Counter()
    receipt = zstore.ingest(
        str(folder / "*.csv"), tmp_path / "s.zarr", **options, progress=lambda phase, *_: tasks.update([phase])
    )
    assert (receipt.n_series, receipt.n_stored) == (600, 600)
    assert {"spill": 3, "note": 3}.items() <= Counter(written).items()
    assert (tasks["parse"], tasks["digest"]) == (1 + 3, 0)  # the start, and 256 files each, digested as they are parsed
    planned = plan_ingest(str(folder / "*.csv"), **options)
    assert (planned.tasks["parse"], planned.tasks.get("digest")) == (3, None)


def test_the_tasks_of_a_phase_are_started_in_their_order() -> None:
    started: list[int] = []
    with Scheduler(1) as runner:
        assert runner.map("phase", lambda n: started.append(n) or -n, list(range(50))) == [-n for n in range(50)]
    assert started == list(range(50))


def test_a_duplicate_in_small_files_is_told_with_both_lines(tmp_path: Path) -> None:
    paths = [write_table(tmp_path / f"{n}.csv", ["t", "v"], [[n, 1], [n + 10, 2]]) for n in range(5)]
    paths.append(write_table(tmp_path / "last.csv", ["t", "v"], [[99, 1], [12, 2]]))
    with pytest.raises(SourceError, match=r"2\.csv line 3 and .*last\.csv line 3"):
        zstore.ingest(paths, tmp_path / "s.zarr", time="t")


# Bad rows.


class Reads:
    """Bytes that are read of sources, wherever that is; of their heads few, and of where two blocks meet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_bytes = 0
        read = File.read

        def counted(file: File, start: int = 0, stop: int | None = None) -> bytes:
            content = read(file, start, stop)
            self.n_bytes += len(content)
            return content

        monkeypatch.setattr(File, "read", counted)
        monkeypatch.setattr("zstore.writing.sources.csv.borders._LOOK_BYTES", 64)
        monkeypatch.setattr("zstore.writing.sources.csv.header._HEAD_BYTES", 64)
        monkeypatch.setattr("zstore.writing.sources.csv.sniff._FIRST_BYTES", 64)


def polluted(path: Path, n_rows: int, is_bad: Any) -> Path:
    lines = [f"s{n % 7},{n},{'bad' if is_bad(n) else n % 9}" for n in range(n_rows)]
    path.write_text("\n".join(["id,t,v", *lines]) + "\n")
    return path


def test_a_bad_row_in_every_block_costs_no_second_read_and_keeps_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = polluted(tmp_path / "a.csv", 20_000, lambda n: n % 100 == 57)
    reads = Reads(monkeypatch)
    zstore.ingest(path, tmp_path / "s.zarr", id="id", time="t", on_bad_row="quarantine", blocksize=4000)
    aside = (tmp_path / "s.zarr.quarantine.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1]) for row in aside] == [n + 2 for n in range(57, 20_000, 100)]
    assert reads.n_bytes < 2.1 * path.stat().st_size  # once to parse it, and once for its digest: blocks are short


def test_blocks_that_have_whole_pieces_of_a_file_are_read_once_for_rows_and_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = polluted(tmp_path / "a.csv", 20_000, lambda n: n % 100 == 57)
    options: dict[str, Any] = {"id": "id", "time": "t", "on_bad_row": "quarantine", "workers": 2}
    for module in ("zstore.writing.ledger", "zstore.writing.sources.digests"):
        monkeypatch.setattr(f"{module}.PIECE_BYTES", 4096)
    reads = Reads(monkeypatch)
    zstore.ingest(path, tmp_path / "s.zarr", **options, blocksize=3 * 4096)
    assert reads.n_bytes < 1.1 * path.stat().st_size
    zstore.ingest(path, tmp_path / "t.zarr", **options, blocksize=1000)
    assert zstore.open_store(tmp_path / "s.zarr").ledger == zstore.open_store(tmp_path / "t.zarr").ledger


def test_a_file_that_an_earlier_release_has_taken_is_known_and_a_changed_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their digests were of pieces of 16 MiB."""
    path = polluted(tmp_path / "a.csv", 150_000, lambda _: False)
    assert path.stat().st_size > MIB
    with monkeypatch.context() as earlier:
        for module in ("zstore.writing.ledger", "zstore.writing.sources.digests"):
            earlier.setattr(f"{module}.PIECE_BYTES", 16 * MIB)
        zstore.ingest(path, tmp_path / "s.zarr", id="id", time="t")
    assert zstore.append(path, tmp_path / "s.zarr") is None
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"8\n" if content[-2:-1] != b"8" else content[:-2] + b"7\n")
    with pytest.raises(SourceError, match="changed after its rows were taken"):
        zstore.append(path, tmp_path / "s.zarr")


@given(data=st.data())
@settings(max_examples=few(60))
def test_the_digest_of_a_file_does_not_depend_on_who_has_read_its_pieces(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    content = data.draw(st.binary(min_size=1, max_size=300))
    (folder / "a.csv").write_bytes(content)
    (file,) = expand([folder / "a.csv"])
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6).map(sorted))
    with pytest.MonkeyPatch.context() as patch:
        piece_bytes = data.draw(st.sampled_from([7, 32, 1000]))
        for module in ("zstore.writing.ledger", "zstore.writing.sources.digests"):
            patch.setattr(f"{module}.PIECE_BYTES", piece_bytes)
        patch.setattr("zstore.writing.sources.digests._MOST_BEFORE", data.draw(st.sampled_from([0, 3, 100])))
        known: list[PieceDigest] = []
        for start, stop in pairwise([0, *cuts, len(content)]):
            some, pieces = read_digested(file, start, stop)
            assert some == content[start:stop]
            known += pieces
        with Scheduler(1) as runner:
            folder_of_store = Folder(folder / "s.zarr")
            alone = read_digests([file], folder_of_store, None, runner)
            assert read_digests([file], folder_of_store, None, runner, known) == alone


def test_bad_rows_without_quotes_cost_a_quoted_file_no_further_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    lines = [f'"s{n % 7}",{n},{"bad" if n % 100 == 57 else n % 9}' for n in range(20_000)]
    path.write_text("\n".join(['"id","t","v"', *lines]) + "\n")
    for module in ("zstore.writing.ledger", "zstore.writing.sources.digests"):
        monkeypatch.setattr(f"{module}.PIECE_BYTES", 4096)
    reads = Reads(monkeypatch)
    zstore.ingest(path, tmp_path / "s.zarr", id="id", time="t", on_bad_row="quarantine", blocksize=3 * 4096)
    assert reads.n_bytes < 2.1 * path.stat().st_size  # to count quotes, and to parse it
    assert zstore.open_store(tmp_path / "s.zarr").n_rows == 19_800


def test_lines_of_bad_rows_are_those_of_their_files_behind_quotes_blank_lines_and_crlf(tmp_path: Path) -> None:
    text = 't,"v\nalso v",k\r\n' + "".join(f'{n},{"x" if n % 50 == 9 else n},"a\nb"\r\n\r\n' for n in range(400))
    (tmp_path / "a.csv").write_bytes(text.encode())
    (tmp_path / "b.csv").write_bytes(text.replace("x", "y").replace('"a\nb"', "a").encode())
    sources = [tmp_path / name for name in ("a.csv", "b.csv")]
    zstore.ingest(sources, tmp_path / "s.zarr", time="t", on_bad_row="quarantine", on_duplicate="first", blocksize=700)
    aside = (tmp_path / "s.zarr.quarantine.csv").read_text()
    for n in range(9, 400, 50):
        assert f"a.csv,{3 + 3 * n}," in aside
        assert f"b.csv,{3 + 2 * n}," in aside


@pytest.mark.parametrize(("most", "share"), [(5, 0.1), (0.001, 0.1), (0.5, 0.9)])
def test_too_many_bad_rows_end_an_ingest_long_before_everything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: float, share: float
) -> None:
    path = polluted(tmp_path / "a.csv", 20_000, lambda n: n > 0)
    reads = Reads(monkeypatch)
    with pytest.raises(SourceError, match=r"rows read so far are bad, the first for this: text 'bad'.*line"):
        zstore.ingest(
            path, tmp_path / "s.zarr", id="id", time="t", on_bad_row="quarantine", max_bad_rows=most, blocksize=2000
        )
    # Whole for its digest; then once, and once more to look for quotes before it.
    assert reads.n_bytes < (1 + 2 * share) * path.stat().st_size
    assert not (tmp_path / "s.zarr").exists()


@settings(max_examples=few(40))
@given(
    bad=st.sets(st.integers(0, 59), max_size=60),
    most=st.sampled_from([0, 3, 30, 0.1, 0.5, 0.9, 1.0]),
    blocksize=st.sampled_from([40, 100, 1000]),
)
def test_bad_rows_are_too_many_if_and_only_if_they_are_more_than_allowed_wherever_they_stand(
    bad: set[int], most: float, blocksize: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bad")
    path = polluted(folder / "a.csv", 60, lambda n: n in bad)
    allowed = most if isinstance(most, int) else most * 60
    reading: dict[str, Any] = {"id": "id", "time": "t", "on_bad_row": "quarantine", "max_bad_rows": most}
    if len(bad) > allowed or len(bad) == 60:
        with pytest.raises(SourceError, match=r"rows|no row"):
            zstore.ingest(path, folder / "s.zarr", **reading, blocksize=blocksize)
        assert not (folder / "s.zarr").exists()
    else:
        assert zstore.ingest(path, folder / "s.zarr", **reading, blocksize=blocksize).n_stored == 60 - len(bad)


def test_lines_within_a_quoted_cell_are_never_counted_as_bad_rows(tmp_path: Path) -> None:
    inside = "".join("no row, at all\n" for _ in range(2000))
    text = "t,v,note\n" + "".join(f"{n},1,a\n" for n in range(5000)) + f'5000,2,"{inside}"\n5001,3,b\n'
    (tmp_path / "a.csv").write_text(text)
    receipt = zstore.ingest(
        tmp_path / "a.csv", tmp_path / "s.zarr", time="t", on_bad_row="quarantine", max_bad_rows=0, blocksize=3000
    )
    assert receipt.n_stored == 5002
    assert zstore.ingest(tmp_path / "a.csv", tmp_path / "t.zarr", time="t", blocksize=3000).n_stored == 5002


def test_a_bad_row_is_refused_without_reading_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = polluted(tmp_path / "a.csv", 20_000, lambda n: n == 2000)
    reads = Reads(monkeypatch)
    with pytest.raises(SourceError, match="line 2,002"):
        zstore.ingest(path, tmp_path / "s.zarr", id="id", time="t", blocksize=2000, workers=1)
    # 2,000 of 20,000 rows: to parse them, to look for quotes, and to count lines.
    assert reads.n_bytes < 0.4 * path.stat().st_size


# The dry run.


def repeated(path: Path, n_rows: int) -> Path:
    """A file of a kilobyte or so that inflates to many rows."""
    row = b"2001-01-01,1\n"
    if path.suffix == ".gz":
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        parts = [packer.compress(b"t,v\n"), *(packer.compress(row * 1000) for _ in range(n_rows // 1000))]
        path.write_bytes(b"".join([*parts, packer.flush()]))
    else:
        with path.open("wb") as file, pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as stream:
            stream.write(b"t,v\n")
            for _ in range(n_rows // 1000):
                stream.write(row * 1000)
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_dry_run_inflates_no_more_than_it_looks_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(planner, "_SAMPLE_BYTES", 1 << 16)
    path = repeated(tmp_path / f"a.csv{suffix}", 2_000_000)
    tracemalloc.start()
    planned = plan_ingest(path, time="t")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * MIB  # of 26 MB; the file is read in pieces of 4 MiB
    assert planned.plain_bytes > (2_000_000 * 13 // 3 if suffix == ".gz" else 1 << 17)


@pytest.mark.parametrize("between", [b"", b"\0" * 700])
def test_a_dry_run_reads_every_member_of_a_gzip(tmp_path: Path, between: bytes) -> None:
    parts = ["t,v\n" + "".join(f"{n},{n % 7}\n" for n in range(3000))]
    parts += ["".join(f"{n},{n % 7}\n" for n in range(first, first + 3000)) for first in (3000, 6000)]
    path = tmp_path / "a.csv.gz"
    path.write_bytes(between.join(gzip.compress(part.encode()) for part in parts) + between)
    assert plan_ingest(path, time="t").n_rows == 9000
    assert zstore.ingest(path, tmp_path / "s.zarr", time="t").n_stored == 9000


@settings(max_examples=few(30))
@given(text=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=3), most=st.integers(1, 4000))
def test_the_head_of_a_gzip_is_that_of_its_text_however_it_is_cut_into_members(
    text: bytes, cuts: list[int], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from zstore.writing.sources.files import find
    from zstore.writing.sources.inflate import head

    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    members = [gzip.compress(text[a:b]) for a, b in pairwise(borders)]
    path = tmp_path_factory.mktemp("gzip") / "a.gz"
    path.write_bytes(b"".join(members))
    first = head(find(path, "SRC"), most)
    assert first.plain == text[:most]
    assert first.n_read <= path.stat().st_size
    assert first.whole or len(first.plain) == most


@pytest.mark.parametrize("cut", [30, 1])
def test_a_dry_run_refuses_a_file_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"t,v\n" + b"".join(b"%d,1\n" % n for n in range(1000)))[:-cut])
    with pytest.raises(SourceError, match=r"damaged file.*Fix: fetch the file again"):
        plan_ingest(path, time="t")


def test_a_dry_run_reads_the_head_of_static_attributes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_SAMPLE_BYTES", 1 << 16)
    rows = write_table(tmp_path / "a.csv", ["id", "t", "v"], [["s0", n, 1] for n in range(100)])
    with gzip.open(tmp_path / "b.csv.gz", "wb") as file:
        file.write(b"id,area\n" + b"".join(b"s%d,1\n" % n for n in range(1_000_000)))
    tracemalloc.start()
    planned = plan_ingest(rows, id="id", time="t", static=tmp_path / "b.csv.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert planned.n_rows == 100
    assert peak < 12 * MIB


# Room on scratch space.


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_inflates_to_more_than_there_is_room_for_is_refused_before_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = repeated(tmp_path / f"a.csv{suffix}", 3_000_000)
    written, write = 0, Folder._write

    def counted(self: Folder, target: Any, pieces: Any) -> int:
        nonlocal written

        def noted() -> Any:
            nonlocal written
            for piece in pieces:
                written += len(piece)
                yield piece

        return write(self, target, noted())

    def usage(_: object) -> Any:
        return SimpleNamespace(total=1000 * MIB, free=20 * MIB - written)

    monkeypatch.setattr(Folder, "_write", counted)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(StoreError, match=r"cannot write .* \(No space left on device\).*are free.*Fix: .*--scratch"):
        zstore.ingest(path, tmp_path / "s.zarr", time="t", on_duplicate="first")
    assert written < 20 * MIB
    assert not (tmp_path / "s.zarr").exists()


def test_spills_are_refused_where_the_disk_has_no_room_and_the_run_goes_on_when_it_has(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstore.ingest(csv, tmp_path / "whole.zarr", id="site", time="date")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100 * MIB, free=MIB))
        with pytest.raises(StoreError, match=r"No space left on device.*spill"):
            zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date")
    assert not (tmp_path / "s.zarr").exists()
    zstore.ingest(csv, tmp_path / "s.zarr", id="site", time="date")
    assert stored(tmp_path / "s.zarr") == stored(tmp_path / "whole.zarr")


# Many columns.


def test_a_spill_of_many_columns_is_read_in_one_pass_over_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from zstore.writing.sort import Spill

    spill = Spill(Folder(Path("unused")), "key", 7, ("int64", *["int16"] * 2000), "")
    assert spill.n_bytes == 7 * (8 + 2 * 2000)
    asked = 0
    monkeypatch.setattr(Folder, "open", lambda self, key: SimpleNamespace(read=lambda start, stop: bytes(stop - start)))
    kind = np.dtype

    class Counted:
        def __new__(cls, name: object) -> Any:
            nonlocal asked
            asked += 1
            return kind(name)  # type: ignore[call-overload]

    monkeypatch.setattr("zstore.writing.sort.np.dtype", Counted)
    for column in range(2001):
        spill.read(column, 0, 7)
    assert asked <= 2 * 2001


def test_a_spill_is_opened_once_for_the_times_of_a_shard_and_once_for_all_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [f"c{n}" for n in range(20)]
    path = write_table(tmp_path / "t.csv", ["id", "t", *columns], [[f"s{n % 3}", n, *range(20)] for n in range(300)])
    opened: Counter[str] = Counter()
    open_ = Folder.open

    def counted(self: Folder, key: str, most: int | None = None) -> Any:
        opened[key] += 1
        return open_(self, key, most)

    monkeypatch.setattr(Folder, "open", counted)
    zstore.ingest(path, tmp_path / "s.zarr", id="id", time="t")
    assert [n for key, n in opened.items() if key.endswith(".spill")] == [2]
