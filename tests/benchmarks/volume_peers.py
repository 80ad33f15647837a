"""How MONAI reads volumes: ``python volume_peers.py cache|persistent FOLDER …``, or ``chain SCAN OUT``; prints JSON.

Floats from 0 to 1, as MONAI's transforms make them, of the volumes in ``FOLDER/volumes``; plain tensors, for its own
with metadata take longer to collate. What does not change is cached, in memory or in files. In an environment with
monai, nibabel, numpy and torch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPE, SPACING = (224, 224, 160), (1.5, 1.5, 3.0)


def loader_of(how: str, folder: Path, batch: int, workers: int) -> Any:
    from monai.data import CacheDataset, DataLoader, PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, ScaleIntensityRanged

    steps = Compose(
        [
            LoadImaged("image", reader="NumpyReader"),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            ScaleIntensityRanged("image", 0, 255, 0, 1),
            EnsureTyped("image", track_meta=False),
        ]
    )
    items = [{"image": str(path)} for path in sorted((folder / "volumes").glob("*.npy"))]
    if how == "cache":
        dataset = CacheDataset(items, steps, progress=False)
        return DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=workers)
    cache = folder / "persistent.out"
    shutil.rmtree(cache, ignore_errors=True)
    stored = PersistentDataset(items, steps, cache)
    for sample in range(len(stored)):  # into the files
        stored[sample]
    return DataLoader(stored, batch_size=batch, shuffle=True, num_workers=workers)


def chain(scan: Path, out: Path) -> dict[str, Any]:
    """A scan as the Merlin models take it, saved as .npy; seconds of that."""
    from monai.transforms import (
        CenterSpatialCrop,
        Compose,
        EnsureChannelFirst,
        LoadImage,
        Orientation,
        ScaleIntensityRange,
        Spacing,
        SpatialPad,
    )

    began = time.perf_counter()
    steps = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Orientation("RAS"),
            Spacing(SPACING, mode="bilinear"),
            ScaleIntensityRange(-1000, 1000, 0, 1, clip=True),
            SpatialPad(SHAPE),
            CenterSpatialCrop(SHAPE),
        ]
    )
    volume = steps(str(scan))
    taken = time.perf_counter() - began
    np.save(out, np.asarray(volume)[0])
    return {"seconds": taken}


def read(loader: Any, batch: int, seconds: float) -> dict[str, Any]:
    """Volumes a second, over whole epochs, after one."""
    began = time.perf_counter()
    for _ in loader:
        pass
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += sum(len(each["image"]) for each in loader)
    spent = time.perf_counter() - start
    return {"windows_per_s": count / spent, "first_s": start - began}


def main() -> None:
    parser = argparse.ArgumentParser(description="How MONAI reads volumes.")
    parser.add_argument("how", choices=["cache", "persistent", "chain"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    try:
        if options.how == "chain":
            print(json.dumps(chain(options.source, options.out)))
            return
        began = time.perf_counter()
        loader = loader_of(options.how, options.source, options.batch, options.workers)
        prepare_s = time.perf_counter() - began
        print(json.dumps({**read(loader, options.batch, options.seconds), "prepare_s": prepare_s}))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}))


if __name__ == "__main__":
    main()
