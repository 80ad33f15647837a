"""Opening, reading, verifying, and the commands that show a store."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import table

import zstore
from zstore import (
    CorruptionError,
    NotFoundError,
    Scaling,
    Store,
    StoreError,
    UsageError,
    export,
    ingest,
    open_store,
    verify,
)

Run = Callable[..., subprocess.CompletedProcess[str]]


def shard(store: Store, channel: str = "level") -> Path:
    return Path(store.path) / channel / "c" / "0"


def test_random_reads_by_id_and_time_equal_pandas(catchments: Store) -> None:
    frame = pd.read_csv(Path(catchments.path).parent / "catchments.csv", dtype={"gauge_id": str}, parse_dates=["date"])
    by_id = {id_: rows.set_index("date").sort_index() for id_, rows in frame.groupby("gauge_id")}
    random = np.random.default_rng(0)
    for _ in range(100):
        id_ = str(random.choice(catchments.ids))
        first, last = sorted(random.integers(0, 1400, 2))
        start, stop = (np.datetime64("2001-01-01") + np.timedelta64(int(n), "D") for n in (first, last))
        expected = (
            by_id[id_].loc[str(start) : str(stop - np.timedelta64(1, "D"))] if stop > start else by_id[id_].iloc[:0]
        )
        found = catchments.series(id_).to_pandas(str(start), str(stop))
        np.testing.assert_array_equal(found.index.to_numpy(), expected.index.to_numpy())
        for channel in catchments.channels:
            np.testing.assert_array_equal(found[channel], expected[channel].to_numpy(np.float32))


def test_an_unknown_id_channel_or_attribute_names_what_there_is(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"no id '1'; expected one of 5 ids, such as '0003', '0004'"):
        store.series("1")
    with pytest.raises(NotFoundError, match=r"no channel 'depth'; expected one of level, count"):
        store.read("depth", 0, 1)
    with pytest.raises(KeyError, match="ingest with --static"):
        store.static("area")


def test_an_unreadable_time_is_wrong_usage(store: Store) -> None:
    with pytest.raises(UsageError, match="unreadable start 'noon'"):
        store.series("0001").read("level", start="noon")


def test_an_open_store_does_not_decode_before_it_is_asked_to(store: Store) -> None:
    shard(store).unlink()
    assert open_store(store.path).ids.tolist() == ["0000", "0001", "0002", "0003", "0004"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "swap"])
def test_a_damaged_shard_is_an_error_and_never_nan(store: Store, damage: str) -> None:
    path = shard(store)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-3])
    elif damage == "remove":
        path.unlink()
    else:
        other = shard(store, "count").read_bytes()
        shard(store, "count").write_bytes(content)
        path.write_bytes(other)
    fresh = open_store(store.path)
    with pytest.raises(CorruptionError, match="level/c/0"):
        fresh.read("level", 0, 10)
    faults = verify(open_store(store.path)).faults
    assert any("level, rows 0 to 199, ids '0000' to '0004'" in fault for fault in faults)


def test_every_object_of_a_store_is_covered_by_verify(store: Store) -> None:
    for path in sorted(Path(store.path).rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
            try:
                found = verify(open_store(store.path)).faults
            except StoreError as error:
                found = (str(error),)
            assert found, path
            path.write_bytes(content)
    assert verify(open_store(store.path)).faults == ()


def test_a_store_of_another_format_is_refused(store: Store) -> None:
    root = Path(store.path) / "zarr.json"
    root.write_text(root.read_text().replace('"format": 2', '"format": 9'))
    with pytest.raises(StoreError, match="store format 9; expected format 1 or 2"):
        open_store(store.path)


def test_a_changed_root_document_is_refused(store: Store) -> None:
    root = Path(store.path) / "zarr.json"
    for old, new in (('"decimals"', '"digits"'), ("seconds since", "minutes since"), ("  ", " \t")):
        content = root.read_text()
        root.write_text(content.replace(old, new))
        with pytest.raises(CorruptionError, match="root document differs from its digest"):
            open_store(store.path)
        root.write_text(content)


def test_decode_gives_scaled_rows_of_the_wanted_channels(store: Store) -> None:
    plain, scaled = np.empty((200, 2), np.float32), np.empty((200, 2), np.float32)
    store.decode(["count", "level"], plain)
    np.testing.assert_array_equal(plain[:, 0], store.read("count", 0, 200))
    np.testing.assert_array_equal(plain[:, 1], store.read("level", 0, 200))
    store.decode(["count", "level"], scaled, Scaling.linear(np.array([1.0, 0.5]), np.array([2.0, 4.0])))
    np.testing.assert_allclose(scaled, (plain - [1.0, 0.5]) / [2.0, 4.0], rtol=1e-6, atol=1e-6)


def test_info_show_and_verify_print_what_is_there(run: Run, store: Store) -> None:
    info = run("zstore.cli", "info", store.path, check=True).stdout
    assert "200 rows of 5 series, 2001-01-01 to 2001-02-09, step 1d, 5 runs" in info
    assert json.loads(run("zstore.cli", "info", store.path, "--json", check=True).stdout)["n_rows"] == 200
    shown = run("zstore.cli", "show", store.path, "0002", "--start", "2001-01-03", "--stop", "2001-01-05", check=True)
    lines = shown.stdout.splitlines()
    assert lines[0] == "time,level,count"
    assert [line.split(",")[0] for line in lines[1:]] == ["2001-01-03", "2001-01-04"]
    assert lines[1].endswith(",2002")
    assert "sound: version 1" in run("zstore.cli", "verify", store.path, check=True).stdout


def test_verify_lists_faults_and_exits_with_1(run: Run, store: Store) -> None:
    shard(store).write_bytes(b"nothing")
    done = run("zstore.cli", "verify", store.path)
    assert done.returncode == 1
    assert "object level/c/0 has 7 bytes" in done.stdout


def test_ingest_prints_the_receipt_and_json_on_request(run: Run, tmp_path: Path) -> None:
    path = table(tmp_path / "r.csv")
    done = run("zstore.cli", "ingest", path, "a.zarr", "--id", "site", "--time", "date", check=True)
    assert "rows in 200 = stored 200 + quarantined 0 + duplicates dropped 0" in done.stdout
    assert done.stderr == ""
    done = run("zstore.cli", "ingest", path, "b.zarr", "--id", "site", "--time", "date", "--json", check=True)
    assert json.loads(done.stdout)["n_stored"] == 200


def test_options_may_come_from_a_yaml_file(run: Run, tmp_path: Path) -> None:
    path = table(tmp_path / "r.csv")
    (tmp_path / "o.yaml").write_text("id: site\ntime: date\nchannels: [count]\n")
    run("zstore.cli", "ingest", path, "a.zarr", "--config", "o.yaml", check=True)
    assert open_store(tmp_path / "a.zarr").channels == ("count",)


def test_help_is_for_people(run: Run) -> None:
    for flag in ("--help", "--help-all"):
        text = run("zstore.cli", "ingest", flag, check=True).stdout
        assert "column of ids, kept as exact text" in text
        assert "<function" not in text


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_exported_store_ingests_to_the_same_store(catchments: Store, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"rows.{suffix}"
    assert export(catchments, target) == catchments.n_rows
    if suffix == "parquet":
        pd.read_parquet(target).to_csv(tmp_path / "rows.csv", index=False)
    ingest(tmp_path / "rows.csv", tmp_path / "again.zarr", id="gauge_id", time="time")
    again = open_store(tmp_path / "again.zarr")
    assert again.ids.tolist() == catchments.ids.tolist()
    for channel in catchments.channels:
        stored = (
            path.read_bytes() for path in (Path(store.path) / channel / "c" / "0" for store in (catchments, again))
        )
        assert next(stored) == next(stored), channel


def test_some_series_can_be_exported_with_their_categories(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('id,t,v,wind\nb,1,2.5,NW\na,1,,S\nb,2,3,\n"c,d",1,0,N\n')
    run("zstore.cli", "ingest", "r.csv", "s.zarr", "--id", "id", "--time", "t", check=True)
    done = run("zstore.cli", "export", "s.zarr", "out.csv", "--ids", "b,a", check=True)
    assert "wrote 3 rows" in done.stdout
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.replace('"', "") for line in lines] == ["id,time,v,wind", "a,1,,S", "b,1,2.5,NW", "b,2,3,"]
    refused = run("zstore.cli", "export", "s.zarr", "out.xlsx")
    assert (refused.returncode, ".csv or .parquet" in refused.stderr) == (2, True)
    assert run("zstore.cli", "export", "s.zarr", "out2.csv", "--ids", "z").returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "r.csv", "s.zarr"]


def test_a_store_is_compared_with_its_source_row_by_row(run: Run, catchments: Store, tmp_path: Path) -> None:
    rows = Path(catchments.path).parent / "catchments.csv"
    done = run("zstore.cli", "verify", catchments.path, "--source", rows, check=True)
    assert f"{catchments.n_rows:,} rows of the sources compared: 0 differ" in done.stdout
    lines = rows.read_text().splitlines()
    changed = tmp_path / "changed.csv"
    cells = lines[500].split(",")
    lines[500] = ",".join([*cells[:2], "99.9", *cells[3:]])
    added = f"{cells[0]},1999-01-01,0.0,1.0,0.10,0.20"
    changed.write_text("\n".join([*lines[:700], *lines[702:], added]) + "\n")
    done = run("zstore.cli", "verify", catchments.path, "--source", changed)
    assert done.returncode == 1
    assert f"id '{cells[0]}' at {cells[1]} in {changed} is not what the store has" in done.stdout
    assert f"id '{cells[0]}' at 1999-01-01 in {changed} is not what the store has" in done.stdout
    assert "2 rows of the store are in no source" in done.stdout


def test_an_id_that_is_written_a_little_differently_is_the_one_that_is_named(tmp_path: Path) -> None:
    rows = [f"{shop} / {what},2001-01-01,1\n" for shop in (29, 292, 293) for what in ("DELI", "MEAT", "PASTRY")]
    (tmp_path / "a.csv").write_text("id,t,x\n" + "".join(rows))
    zstore.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", id="id", time="t")
    store = zstore.open_store(tmp_path / "a.zarr")
    with pytest.raises(NotFoundError, match=r"no id '292/DELI'; expected one of 9 ids, such as '292 / DELI'"):
        store.series("292/DELI")
    with pytest.raises(NotFoundError, match=r"such as '292 / MEAT', '292 / PASTRY', '293 / DELI'"):
        store.series("292 / ZZZZZZZZZZZZZZ")


def test_a_path_where_nothing_is_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(zstore.StoreError, match=r"\. Nothing is there\. Fix: check the path"):
        zstore.open_store(tmp_path / "none.zarr")
