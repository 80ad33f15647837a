"""Tables at the edges of size: few ids with many rows, many ids with few, all within the memory limit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from benchmarks import series
from benchmarks.panel import flows

from zstore import open_store, verify

LIMIT_KIB = 1_250 * 1024
# Its own peak: that of getrusage is never below what the process had that started it.
SHOW_PEAK_KIB = "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"


def ingest_within_the_limit(path: Path, store: Path, arguments: str) -> None:
    """Ingest in a process of its own, whose peak memory must stay under 1.25 GiB."""
    code = f"import zstore; zstore.ingest({str(path)!r}, {str(store)!r}, {arguments}, memory_limit=1 << 30)"
    done = subprocess.run([sys.executable, "-c", code + SHOW_PEAK_KIB], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= LIMIT_KIB


@pytest.mark.long
def test_one_series_of_twenty_million_shuffled_rows_is_ingested_within_the_memory_limit(tmp_path: Path) -> None:
    times = np.random.default_rng(0).permutation(20_000_000)
    with (tmp_path / "one.csv").open("w") as file:
        file.write("t,a,b\n")
        for start in range(0, len(times), 1_000_000):
            piece = times[start : start + 1_000_000].tolist()
            file.write("\n".join(f"{time},{time % 5000 / 100},{time % 13}" for time in piece) + "\n")
    ingest_within_the_limit(tmp_path / "one.csv", tmp_path / "one.zarr", "time='t'")
    store = open_store(tmp_path / "one.zarr")
    assert (store.n_rows, store.n_series, len(store.index.runs.start)) == (20_000_000, 1, 1)
    for start in (0, 9_999_990, 19_999_990):
        expected = np.arange(start, start + 10)
        np.testing.assert_array_equal(store.times(start, start + 10), expected)
        np.testing.assert_array_equal(store.read("a", start, start + 10), (expected % 5000 / 100).astype(np.float32))
    assert verify(store).faults == ()


@pytest.mark.long
def test_twenty_million_rows_at_irregular_times_are_ingested_within_the_memory_limit(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    times = np.cumsum(random.integers(1, 100_000, 20_000_000))
    with (tmp_path / "odd.csv").open("w") as file:
        file.write("t,a\n")
        for start in range(0, len(times), 1_000_000):
            file.write("\n".join(f"{time},{time % 7}" for time in times[start : start + 1_000_000].tolist()) + "\n")
    ingest_within_the_limit(tmp_path / "odd.csv", tmp_path / "odd.zarr", "time='t'")
    store = open_store(tmp_path / "odd.zarr")
    assert (store.n_rows, store.schema.time.freq, len(store.index.runs.start)) == (20_000_000, None, 1)
    np.testing.assert_array_equal(store.times(19_999_000, 20_000_000), times[-1000:])


@pytest.mark.long
def test_a_million_series_of_one_row_are_ingested_within_the_memory_limit(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(1_000_000).tolist()
    with (tmp_path / "many.csv").open("w") as file:
        file.write("id,t,a,b\n")
        file.writelines(f"{number:07d},5,{number % 1000 / 10},{number % 7}\n" for number in order)
    ingest_within_the_limit(tmp_path / "many.csv", tmp_path / "many.zarr", "id='id', time='t'")
    store = open_store(tmp_path / "many.zarr")
    assert (store.n_rows, store.n_series) == (1_000_000, 1_000_000)
    for number in (0, 123_456, 999_999):
        assert store.series(f"{number:07d}").read("a").tolist() == [np.float32(number % 1000 / 10)]
    assert verify(store).faults == ()


def peak_mib(code: str) -> int:
    """The largest resident memory of a process that runs some Python, in MiB."""
    done = subprocess.run([sys.executable, "-c", code + SHOW_PEAK_KIB], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) // 1024


@pytest.mark.long
def test_a_million_short_series_take_some_hundred_bytes_each(tmp_path: Path) -> None:
    found = series.measure(tmp_path, 1_000_000)
    most = {"ingest": 450, "open": 120, "series": 180, "info": 340, "doctor": 340, "view": 390, "append": 620}
    assert {job: found[job]["peak_mib"] for job in most if found[job]["peak_mib"] > most[job]} == {}
    assert found["window"]["peak_mib"] < 1_200  # of which 450 are torch's
    assert found["series"]["cpu_s"] < 1
    assert found["open"]["cpu_s"] < 1
    assert found["append"]["cpu_s"] < 5


@pytest.mark.long
def test_a_panel_of_8600_sensors_over_a_year_is_ingested_and_batched_within_its_memory(tmp_path: Path) -> None:
    path = flows(tmp_path / "flows.csv", 8_600, 35_040)
    store = tmp_path / "flows.zarr"
    reading = "layout='wide', time='time', value_name='flow', memory_limit=1 << 30"
    assert peak_mib(f"import zstore; zstore.ingest({str(path)!r}, {str(store)!r}, {reading})") < 4096
    assert open_store(store).n_rows == 8_600 * 35_040
    for residency, budget, limit in (("host", 0.5, 4096), ("stream", "400MB", 1024)):
        code = (
            "from lightning_app.data.datamodule import WindowDataModule\n"
            "from lightning_app.data.rows.views import Panel\n"
            f"data = WindowDataModule({str(store)!r}, 12, 12, panel=Panel(), batch_size=16, residency={residency!r},"
            f" memory_budget={budget!r}, cache={str(tmp_path / 'cache')!r})\n"
            "batches = iter(data.train_dataloader())\n"
            "for _ in range(300):\n"
            "    assert next(batches)['x'].shape == (16, 12, 8600, 1)\n"
        )
        assert peak_mib(code) < limit


LINES = {
    "one cell": (".csv.gz", b"3,a," + b"x" * (1 << 20), 1000, b"x", "a record of more than 67,108,864 bytes"),
    "unclosed quote": (".csv", b'3,a,"', 300, b"\n", "a record of more than 67,108,864 bytes"),
    "zeros": (".csv.zst", b"", 1000, b"\0", "a record of more than 67,108,864 bytes"),
    "carriage returns": (".csv", b"", 300, b"1,a,2\r", "a record of more than 67,108,864 bytes"),
    "blank lines": (".csv", b"", 300, b"\n", "4 rows"),
    "comments": (".csv.gz", b"", 300, b"#\n", "4 rows"),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", LINES)
def test_what_is_no_row_takes_no_more_memory_the_more_there_is_of_it(tmp_path: Path, kind: str) -> None:
    ending, first, n_mebibytes, line, outcome = LINES[kind]
    path, piece = tmp_path / f"rows{ending}", line * ((1 << 20) // len(line))
    with pa.output_stream(path, compression="detect") as file:
        file.write(b"t,id,v\n0,a,0\n1,a,1\n2,a,2\n" + first)
        for _ in range(n_mebibytes):
            file.write(piece)
        file.write(b"\n3,a,3\n")
    options = "id='id', time='t', comment='#'"
    code = (
        "import zstore\ntry:\n"
        f"    print(zstore.ingest({str(path)!r}, {str(tmp_path / 's.zarr')!r}, {options}).n_stored, 'rows')\n"
        "except zstore.SourceError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code + SHOW_PEAK_KIB], capture_output=True, text=True, check=True)
    assert outcome in done.stdout
    assert int(done.stdout.split()[-1]) < 500 * 1024
