"""What suite bucket compares with: libraries that stream samples from a bucket. Runs where these are installed alone.

Each sample is a window of 120 rows, written once: windows do not overlap here, so that nobody stores a row twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

LOOKBACK, SPAN, BATCH = 96, 120, 256


def options_of(port: int) -> dict[str, str]:
    """Storage options for a server on this port."""
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    return {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1", **keys}


class Sample:
    """Window number n, for libraries that write samples by number."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bucket-rows.npy"
        self.rows: Any = None

    def __call__(self, number: int) -> Any:
        if self.rows is None:
            self.rows = np.load(self.path, mmap_mode="r")
        return np.array(self.rows[number * SPAN : (number + 1) * SPAN])


def n_samples(folder: Path) -> int:
    """Windows that do not overlap."""
    return len(np.load(folder / "bucket-rows.npy", mmap_mode="r")) // SPAN


def prepare_litdata(folder: Path, out: Path) -> None:
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder / "litdata-cache")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(folder / "litdata-data-cache")
    from litdata import optimize

    numbers = list(range(n_samples(folder)))
    optimize(Sample(folder), numbers, str(out), chunk_bytes="16MB", num_workers=2, verbose=False)


def prepare_mosaicml(folder: Path, out: Path) -> None:
    from streaming import MDSWriter  # type: ignore[import-not-found]

    sample = Sample(folder)
    with MDSWriter(out=str(out), columns={"x": "ndarray"}, compression="zstd", size_limit="16mb") as writer:
        for number in range(n_samples(folder)):
            writer.write({"x": sample(number)})


def read_litdata(port: int, cache: Path) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader
    from litdata.streaming.resolver import Dir

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no option for a server without TLS
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    place = Dir(path=str(cache), url="s3://bench/litdata.out")
    dataset = StreamingDataset(place, shuffle=True, storage_options={**options, "region_name": "us-east-1"})
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=2)


def read_mosaicml(port: int, cache: Path) -> Any:
    variables = {"S3_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    os.environ.update(variables, AWS_REGION="us-east-1")
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    dataset = StreamingDataset(
        remote="s3://bench/mosaicml.out", local=str(cache), shuffle=True, batch_size=BATCH, num_canonical_nodes=1
    )
    return DataLoader(dataset, BATCH, num_workers=2)


PREPARE = {"litdata": prepare_litdata, "mosaicml": prepare_mosaicml}
READ = {"litdata": read_litdata, "mosaicml": read_mosaicml}


def timed(loader: Any, began: float) -> dict[str, float]:
    """Seconds to the first batch, and of two epochs."""
    found: dict[str, float] = {}
    for epoch in ("epoch_s", "again_s"):
        start = time.perf_counter()
        for _ in loader:
            found.setdefault("first_s", time.perf_counter() - began)
        found[epoch] = time.perf_counter() - start
    return found


def main() -> None:
    """Prepare, or read, as one library does; print figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["prepare", "read"])
    parser.add_argument("name", choices=list(PREPARE))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    out = given.folder / "buckets" / "bench" / f"{given.name}.out"
    began = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        if given.action == "read":
            cache = given.folder / "bucket-cache"
            cache.mkdir(parents=True)
            found = timed(READ[given.name](given.port, cache), began)
        elif not out.exists():
            try:
                PREPARE[given.name](given.folder, out)
            except BaseException:
                shutil.rmtree(out, ignore_errors=True)
                raise
            found = {"prepare_s": time.perf_counter() - began}
    except ImportError as error:
        found = {"missing": f"not installed here ({error})"}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
