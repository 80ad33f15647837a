"""Stores in Google Cloud Storage and Azure: the class of S3, with the conditional writes of each.

Google's is a server of ours (``wire.py``) that knows what the class needs of it. Azure's is Azurite, where it is
installed: ``npm install --global azurite``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from wire import Wire

import zstore
from zstore import ConflictError, UsageError, open_store, verify
from zstore.storage.urls import open_storage

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # everybody's
Place = tuple[str, dict[str, str]]


@pytest.fixture
def google(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "buckets").mkdir()
    with Wire(tmp_path / "buckets") as wire:
        nobody = {"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": True}
        address = f"http://127.0.0.1:{wire.port}"
        account = json.dumps({**nobody, "gcs_base_url": address})
        yield "gs://b", {"service_account_key": account, "base_url": address}


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Place]:
    command = shutil.which("azurite")
    if command is None:
        pytest.skip("azurite is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [command, "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    words += ["--blobPort", f"{port}", "--queuePort", "0", "--tablePort", "0"]
    server = subprocess.Popen(words, cwd=tmp_path)
    try:
        address = f"http://127.0.0.1:{port}/{ACCOUNT}"
        _make_container(address, "cont")
        yield "az://cont", {"account_name": ACCOUNT, "account_key": KEY, "endpoint": address}
    finally:
        server.terminate()
        server.wait(10)


def _make_container(address: str, name: str) -> None:
    date = formatdate(usegmt=True)
    about = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    lines = "\n".join(f"{key}:{value}" for key, value in about.items())
    signed = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{lines}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    about["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(f"{address}/{name}?restype=container", method="PUT", headers=about)  # noqa: S310  # ours
    for attempt in range(100):
        try:
            urllib.request.urlopen(request).close()  # noqa: S310
        except OSError:
            if attempt == 99:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.mark.parametrize("service", ["google", pytest.param("azure", marks=pytest.mark.long)])
def test_a_store_is_made_goes_on_and_is_kept_up(service: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place, options = request.getfixturevalue(service)
    url = f"{place}/s.zarr"
    for day in range(2):
        rows = [[id_, t, t / 10] for id_ in "abc" for t in range(200 * day, 200 * day + 200)]
        source = write_table(tmp_path / f"{day}.csv", ["id", "t", "v"], rows)
        open_storage(place, options).replace(f"in/{day}.csv", source.read_bytes())
        if day == 0:
            name = f"{place}/in/{day}.csv"
            zstore.ingest(name, url, id="id", time="t", workers=1, storage_options=options)
        else:
            assert zstore.append(f"{place}/in/*.csv", url, workers=1, storage_options=options) is not None
    store = open_store(url, storage_options=options)
    assert (store.version, store.n_rows, verify(store).faults) == (2, 1200, ())
    near = store.with_cache(tmp_path / "cache")
    np.testing.assert_allclose(near.series("b").read("v"), np.arange(400) / 10, rtol=1e-6)
    assert zstore.compact(url, storage_options=options).version == 3
    assert zstore.gc(url, keep=1, storage_options=options)[0] > 0
    store = open_store(url, storage_options=options)
    assert (store.n_rows, verify(store).faults) == (1200, ())
    assert store.to_xarray()["v"].shape == (1200,)


@pytest.mark.parametrize("service", ["google", pytest.param("azure", marks=pytest.mark.long)])
def test_a_write_that_depends_on_what_was_there_is_refused_once_that_has_changed(
    service: str, request: pytest.FixtureRequest
) -> None:
    place, options = request.getfixturevalue(service)
    storage: Any = open_storage(f"{place}/s.zarr", options)
    storage.put("zarr.json", b"first", None)
    before = storage.state("zarr.json")[1]
    with pytest.raises(ConflictError, match="another process is writing"):
        storage.put("zarr.json", b"second", None)
    storage.put("zarr.json", b"third one", before)
    with pytest.raises(ConflictError, match="another process is writing"):
        storage.put("zarr.json", b"fourth", before)
    assert storage.read("zarr.json") == b"third one"
    storage.remove(["zarr.json", "none"])
    assert storage.sizes() == {}


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("gs://b/s.zarr", {"flavour": "1"}, "GCSConfig"),
        ("az://b/s.zarr", {"flavour": "1", "account_name": "a"}, "AzureConfig"),
        ("gs:///s.zarr", {}, "gs://BUCKET/PREFIX"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_own_name(url: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_store(url, storage_options=options)
