"""Ingests of queries that are killed at any moment, or whose server is: nothing half committed, and the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from queries import READING, content, execute, folder_of_server, kill_server, rows_of_postgres, running

import zstore
from zstore import Query, StoreError, open_store

N_ROWS = 30_000
SQL = "select t.*, case when k % 500 = 0 then pg_sleep(0.02)::text end as pause from t order by k"
INGESTING = """
import sys
import zstore
from zstore.writing.sources.sql import order, postgres
order._SEGMENT_BYTES, postgres._BATCH_BYTES = 1, 1 << 16
query = zstore.Query(sys.argv[1], sys.argv[2], partition=sys.argv[4] or None)
zstore.ingest(query, sys.argv[3], id="id", time="time", leave_out=["pause"])
"""
TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep%' and pid <> pg_backend_pid()"
)


def is_committed(path: Path) -> bool:
    try:
        open_store(path)
    except StoreError:
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize("partition", ["", "k"])
def test_nothing_is_half_committed_and_the_next_run_makes_the_same_bytes(partition: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**READING, "leave_out": ["pause"]}
    moments = random.Random(3)
    n_died = 0
    with folder_of_server() as folder, ExitStack() as servers:
        uri = servers.enter_context(running(folder))
        rows_of_postgres(uri, "t", N_ROWS)
        zstore.ingest(Query(SQL.replace("0.02", "0"), uri), tmp_path / "whole.zarr", **options)
        expected = content(tmp_path / "whole.zarr")
        for number in range(10):
            store = tmp_path / f"{number}.zarr"
            command = [sys.executable, "-c", INGESTING, SQL, uri, str(store), partition]
            process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
            while not store.exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 1.5))
            if number % 3 == 0:
                process.send_signal(signal.SIGKILL)
            elif number % 3 == 1:
                execute(uri, TERMINATE)
            else:
                kill_server(folder)
                servers.close()
                uri = servers.enter_context(running(folder))
            died = process.wait() != 0
            n_died += died
            assert not died or not is_committed(store) or content(store) == expected
            if not is_committed(store):
                assert zstore.ingest(Query(SQL, uri, partition=partition or None), store, **options).n_stored == N_ROWS
            assert content(store) == expected
    assert n_died >= 5
