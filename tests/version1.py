"""What the stores of format version 1 in ``tests/stores/version1`` do, as plain values.

``python tests/version1.py make`` wrote those stores, and ``expected.json`` beside them, with the last code whose new
stores had format version 1. Never run it again: the stores are there to be read by all later code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import xxhash

import zstore
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split
from lightning_app.models import NLinear
from zstore.cli import main
from zstore.upkeep.doctor import examine

STORES = Path(__file__).parent / "stores" / "version1"
NAMES = ("daily", "monthly")


def copied(name: str, folder: Path) -> Path:
    """A copy of one of the stores, with the tables it was made from beside it."""
    for table in STORES.glob("*.csv"):
        shutil.copy(table, folder)
    return Path(shutil.copytree(STORES / name, folder / name))


def exported(path: Path) -> list[str]:
    """Every row of a store, as lines of CSV; midnights with their clock, as they were written then."""
    target = path.with_name(f"{path.name}.exported.csv")
    zstore.export(zstore.open_store(path), target, overwrite=True)
    return [
        re.sub(r"^(\"[^\"]*\",\d{4}-\d\d-\d\d),", r"\1 00:00:00,", line) for line in target.read_text().splitlines()
    ]


def opened(path: Path) -> dict[str, Any]:
    """What it is to those who look."""
    store, out = zstore.open_store(path), StringIO()
    with redirect_stdout(out):
        main(["info", str(path)])
    windows = store.windows(2, 1, channels=store.numbers, cache=path.parent / "cache")
    batch = windows.batch(np.arange(len(windows)))
    return {
        "rows": exported(path),
        "info": out.getvalue().splitlines()[1:],  # the first line has the path
        "runs": [store.index.runs.start.tolist(), store.index.runs.time.tolist()],
        "windows": [batch["series"].tolist(), batch["time"].tolist()],
        # What it said of months was wrong: they were gaps of -1 step.
        "findings": _findings(store) if path.name == "daily" else [],
        "statics": {s.name: np.asarray(s.values).tolist() for s in store.statics},
    }


def verified(path: Path) -> list[Any]:
    """Objects and bytes that agree with their digests, and what does not."""
    result = zstore.verify(zstore.open_store(path))
    return [result.n_objects, result.n_bytes, list(result.faults)]


def appended(path: Path) -> dict[str, Any]:
    """What an append makes of it: the digest of every object but those that have the time of the commit."""
    receipt = zstore.append(path.parent / f"{path.name}-later.csv", path, workers=1)
    assert receipt is not None
    keys = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    timed = {"zarr.json"} | {key for key in keys if key.endswith("/root.json")}
    document = json.loads((path / "zarr.json").read_text())["attributes"]["zstore"]
    for key in ("sources", "notes"):  # paths, and sentences for people
        document["receipt"].pop(key)
    same = ("format", "version", "n_rows", "n_places", "n_series", "time", "channels", "receipt", "table", "manifest")
    return {
        "objects": {k: xxhash.xxh3_128_hexdigest((path / k).read_bytes()) for k in keys if k not in timed},
        "root": {key: document[key] for key in same},
        **opened(path),
    }


def trained(path: Path) -> dict[str, float]:
    """Losses of one epoch."""
    pl.seed_everything(0, verbose=False)
    lookback = 3 if path.name == "daily" else 1  # all that its calendar months leave room for
    cache, split = str(path.parent / "cache"), Split(sizes=(0.6, 0.2, 0.2))
    data = WindowDataModule(str(path), lookback, 1, targets=["level"], batch_size=8, cache=cache, split=split)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        enable_checkpointing=False,
        default_root_dir=path.parent,
        **quiet,
    )
    data.setup("fit")
    trainer.fit(NLinear(data.shape), datamodule=data)
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


def compacted(path: Path) -> dict[str, Any]:
    """What is left after it was put in order."""
    store = zstore.compact(path, workers=1)
    return {"rows": exported(path), "size": store.index.row_size.tolist(), "faults": list(zstore.verify(store).faults)}


def read_by_xarray(path: Path) -> dict[str, Any]:
    """The dataset as xarray has it: values and attributes of every variable."""
    dataset = zstore.open_store(path).to_xarray(words=True)
    return {
        str(name): [
            str(variable.dtype),
            list(variable.dims),
            " ".join(str(value) for value in variable.values),
            {key: str(value) for key, value in variable.attrs.items()},
        ]
        for name, variable in dataset.variables.items()
    }


CHECKS = {f.__name__: f for f in (opened, verified, appended, trained, compacted, read_by_xarray)}


def _findings(store: zstore.Store) -> list[dict[str, Any]]:
    """What the doctor finds and where; its words may change."""
    return [
        {key: part for key, part in each.items() if key not in ("detail", "severity")}
        for each in examine(store).to_json()["findings"]
    ]


def results(name: str, check: str, folder: Path) -> Any:
    """What one check says of one store, as JSON has it."""
    return json.loads(json.dumps(CHECKS[check](copied(name, folder))))


def make() -> None:
    """Write the tables, the stores and what today's code says of them."""
    random = np.random.default_rng(17)
    STORES.mkdir(parents=True, exist_ok=True)

    def write(name: str, ids: list[str], times: list[np.datetime64]) -> None:
        lines = ["site,date,level,flow,sky"]
        for id_ in ids:
            for time in times:
                sky = ["clear", "rain", "snow, wet", ""][int(random.integers(4))]
                level = "" if random.random() < 0.1 else f"{random.normal(3, 1):.2f}"
                lines.append(f'{id_},{time},{level},{random.normal() * 1e-9!r},"{sky}"')
        (STORES / name).write_text("\n".join(lines) + "\n")

    def days(first: str, n: int) -> list[np.datetime64]:
        return list(np.datetime64(first) + np.arange(n))

    def months(first: str, n: int) -> list[np.datetime64]:
        return [np.datetime64(f"{month}-01") for month in np.datetime64(first, "M") + np.arange(n)]

    write("daily.csv", ["007", "ä", "b"], days("2001-02-20", 25) + days("2001-03-20", 10))
    write("daily-more.csv", ["007", "c"], days("2001-03-30", 12))
    write("daily-later.csv", ["b", "c", "d"], days("2001-04-11", 9))
    write("monthly.csv", ["007", "ä", "b"], months("1998-11", 32))
    write("monthly-later.csv", ["b", "c", "d"], months("2001-07", 9))
    (STORES / "statics.csv").write_text("site,area,soil\n007,12.5,clay\nä,,sand\nb,3,\nc,7,clay\n")
    known: dict[str, Any] = {"id": "site", "time": "date", "workers": 1}
    os.chdir(STORES)  # receipts name files as they were named
    zstore.ingest("daily.csv", "daily", static="statics.csv", **known)
    zstore.append("daily-more.csv", "daily", static="statics.csv", workers=1)
    zstore.ingest("monthly.csv", "monthly", channels=["level"], **known)
    expected: dict[str, Any] = {}
    for name in NAMES:
        for check in CHECKS:
            with tempfile.TemporaryDirectory() as folder:
                expected.setdefault(name, {})[check] = results(name, check, Path(folder))
    (STORES / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__" and sys.argv[1:] == ["make"]:
    make()
