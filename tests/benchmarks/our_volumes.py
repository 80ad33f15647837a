"""How this project reads volumes: ``python -m tests.benchmarks.our_volumes STORE TABLE …``; prints JSON.

``--as u1`` counts volumes as batches have them, ``--as float`` as models do, in memory that is used again. ``--hold``
reads every volume, says so, and waits for a line on standard input: another process looks at its memory meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split
from lightning_app.models import FieldToFloat

from .harness import rate

BATCH = 64


def module_of(store: Path, table: Path, cache: Path) -> WindowDataModule:
    """A volume and its label, one row each; splits as the table says."""
    return WindowDataModule(
        str(store),
        lookback=1,
        horizon=1,
        delay=-1,
        channels=["label"],
        targets=["label"],
        fields={"volume": 1},
        scaler="none",
        batch_size=BATCH,
        split=Split(by="series", table=str(table)),
        cache=str(cache),
        residency="host",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How this project reads volumes.")
    parser.add_argument("store", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".bench"))
    parser.add_argument("--as", dest="kind", choices=["u1", "float"], default="u1")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()
    data = module_of(options.store, options.table, options.cache)
    if options.hold:
        print("ready", flush=True)
        sys.stdin.readline()
    began = time.perf_counter()
    loader, scaled = data.train_dataloader(), FieldToFloat(data.shape, "volume")
    out = torch.empty(BATCH, *data.shape.fields["volume"])

    def epoch() -> int:
        n_volumes = 0
        for batch in loader:
            volumes = batch["volume"]  # type: ignore[typeddict-item]
            n_volumes += len(scaled(volumes, out) if options.kind == "float" else volumes)
        return n_volumes

    epoch()
    if options.hold:  # all rows, not only those of training
        for other in (data.val_dataloader(), data.test_dataloader()):
            for _ in other:
                pass
    first_s = time.perf_counter() - began
    if options.hold:
        print("read", flush=True)
        sys.stdin.readline()
        return
    found = {"windows_per_s": rate(epoch, options.seconds), "first_s": first_s}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
