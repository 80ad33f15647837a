"""Suite gpu: a step with batches made of a store, beside the same step with batches that lie on the GPU already.

All in one process, in turn: constant batches, then rows on the device, then on the host, and again. A step
is what the clock says between two synchronisations, over as many steps; it has in it all that Lightning does.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.windows.splits import Split
from zstore import ingest

from .epoch import made
from .harness import setting
from .system_data import CONFIGS, SYSTEMS

CONSTANT = "constant"
PLACES = (CONSTANT, "device", "host")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
FORECASTERS = ("etth1_dlinear", "etth1_lstm")
_LSTM = {"class_path": "LSTM", "init_args": {"hidden": 128}}
_HELD = 8  # constant batches, in turn
_WARM_UP = 30
_EVERY_S = 0.05


class Held(WindowDataModule):
    """The same few batches again and again, as many as an epoch has."""

    def train_dataloader(self) -> Any:
        """Of rows on the device, taken once."""
        loader = super().train_dataloader()
        held = [
            {name: values.clone() for name, values in batch.items()}  # type: ignore[attr-defined]
            for batch in islice(loader, _HELD)
        ]
        return _Again(held, len(loader))


class _Again:
    def __init__(self, held: list[Any], n: int) -> None:
        self._held, self._n = held, n

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Any]:
        return (dict(self._held[number % len(self._held)]) for number in range(self._n))


class StepClock(pl.Callback):
    """Milliseconds of a step once it is warm, and the share of samples of its utilisation that the GPU tells."""

    def __init__(self, n_steps: int, busy: bool = False) -> None:
        self.n_steps, self.step_ms, self.busy = n_steps, 0.0, 0.0
        self._began, self._samples, self._ended = 0.0, list[int](), threading.Event()
        self._watches = busy

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin, once."""
        if trainer.global_step == _WARM_UP:
            torch.cuda.synchronize()
            self._began = time.perf_counter()
            if self._watches:
                threading.Thread(target=self._watch, daemon=True).start()

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End when the GPU does."""
        torch.cuda.synchronize()
        self.step_ms = 1000 * (time.perf_counter() - self._began) / (self.n_steps - _WARM_UP)
        self._ended.set()
        if self._samples:
            self.busy = statistics.mean(self._samples[2:] or self._samples) / 100

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._samples.append(torch.cuda.utilization())


def configuration(name: str) -> dict[str, Any]:
    """That of a system, or of a forecaster: the LSTM is fitted as DLinear is."""
    if name in SYSTEMS:
        return SYSTEMS[name].configuration()
    found: dict[str, Any] = yaml.safe_load((CONFIGS / "etth1_dlinear.yaml").read_text())
    return {**found, "model": _LSTM} if name.endswith("lstm") else found


def module(config: dict[str, Any], store: Path, cache: Path, place: str) -> WindowDataModule:
    """Data of a configuration, all rows and fields in one place."""
    options = dict(config["data"])
    split, fields = dict(options.pop("split")), options.pop("fields", {})
    where: Any = "device" if place == CONSTANT else place
    given = {name: FieldOptions(**({"steps": own} if isinstance(own, int) else own)) for name, own in fields.items()}
    options |= {"fields": {name: replace(own, residency=where) for name, own in given.items()}, "residency": where}
    options |= {"store": str(store), "cache": str(cache), "memory_budget": 0.5}
    kind = Held if place == CONSTANT else WindowDataModule
    return kind(split=Split(**split), **options)


def step(config: dict[str, Any], data: WindowDataModule, n_steps: int, precision: Any, busy: bool = False) -> StepClock:
    """Fit for some steps."""
    pl.seed_everything(0)
    model = made(config["model"], data.shape)
    optimizer = made(config["optimizer"], model.parameters())
    model.configure_optimizers = lambda: optimizer
    clock, options = StepClock(n_steps, busy), config["trainer"]
    trainer = pl.Trainer(
        accelerator="gpu",
        devices=1,
        precision=precision,
        max_steps=n_steps,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        gradient_clip_val=options.get("gradient_clip_val"),
        callbacks=[*(made(each) for each in options.get("callbacks", ())), clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    return clock


def measured(name: str, store: Path, cache: Path, n_steps: int, rounds: int) -> dict[str, Any]:
    """Step times by precision and place, the utilisation of the GPU, and bytes of rows there."""
    config, found = configuration(name), dict[str, Any]()
    for precision in PRECISIONS:
        places = PLACES if precision == "32-true" else PLACES[:2]
        times: dict[str, list[float]] = {place: [] for place in places}
        for _ in range(rounds if precision == "32-true" else (rounds + 1) // 2):
            for place in places:
                with closing(module(config, store, cache, place)) as data:
                    times[place].append(step(config, data, n_steps, precision).step_ms)
        found[precision] = times
    for place in PLACES[:2]:
        with closing(module(config, store, cache, place)) as data:
            found.setdefault("busy", {})[place] = step(config, data, n_steps, "32-true", busy=True).busy
    return found | {"bytes": held_bytes(config, store, cache)}


def held_bytes(config: dict[str, Any], store: Path, cache: Path) -> dict[str, Any]:
    """What rows on the device take there, as the allocator tells, and what they should."""

    class OnGPU(WindowDataModule):
        @property
        def process(self) -> Any:
            return replace(super().process, device=torch.device("cuda", 0))

    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    plain = module(config, store, cache, "device")
    plain.__class__ = OnGPU
    with closing(plain) as data:
        source = data.source
        sizes = {"channels": source.rows.values.nbytes}
        sizes |= {name: own.values.values.nbytes for name, own in source.fields.items()}  # type: ignore[attr-defined]
        kinds = {name: str(own.values.dtype) for name, own in source.fields.items()}
        return {"allocated": torch.cuda.memory_allocated() - before, "rows": sizes, "dtypes": kinds}


def report(name: str, found: dict[str, Any]) -> str:
    """A row for each place and precision; ratios pair by pair."""
    lines = []
    for precision in PRECISIONS:
        times = found[precision]
        for place, own in times.items():
            ratio = statistics.median(a / b for a, b in zip(own, times[CONSTANT], strict=True))
            busy = f"{found['busy'][place]:.0%}" if precision == "32-true" and place in found["busy"] else ""
            lines.append(f"| {name} | {precision} | {place} | {statistics.median(own):.3f} | {ratio:.3f} | {busy} |")
    return "\n".join(lines)


def run(
    folder: Path, data: Path | None, n: int, stores: Path | None = None, n_steps: int = 300, names: Sequence[str] = ()
) -> None:
    """Prints a row for each system and place; figures go to ``gpu.json``.

    Parameters
    ----------
    folder
        For data, stores and figures.
    data
        Folder of real data sets; None for others like them, without the forecasters.
    n
        Rounds.
    stores
        Folder of stores that are there already: emg_myo.zarr, adrenal.zarr, pusht.zarr and etth1.zarr.
    n_steps
        Of a fit; the first 30 are not counted.
    names
        Of systems and forecasters. Default: all.
    """
    if not torch.cuda.is_available():
        print("suite gpu: PyTorch finds no CUDA device here\n")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {setting()}\n")
    print("| | precision | rows | step, ms | step / constant batches | GPU busy |\n|---|---|---|---|---|---|")
    all_found: dict[str, Any] = {}
    for name in names or (*SYSTEMS, *FORECASTERS):
        store = _store(name, folder, data, stores)
        if store is None:
            continue
        all_found[name] = measured(name, store, folder / "cache", n_steps, n)
        print(report(name, all_found[name]), flush=True)
        (folder / "gpu.json").write_text(json.dumps(all_found, indent=1) + "\n")
    for name, found in all_found.items():
        print(f"\n{name}: rows on the device {found['bytes']}")


def _store(name: str, folder: Path, data: Path | None, stores: Path | None) -> Path | None:
    """The store of a system or forecaster, ingested where it is not there."""
    configured = str(configuration(name)["data"]["store"])
    if stores is not None:
        return stores / configured if (stores / configured).exists() else None
    own = folder / "gpu" / configured
    if own.exists():
        return own
    own.parent.mkdir(parents=True, exist_ok=True)
    if name in SYSTEMS:
        SYSTEMS[name].store(SYSTEMS[name].raw(folder / "gpu", data), own)
        return own
    if data is None:
        return None
    ingest(data / "ett" / "ETTh1.csv", own, time="date")
    return own
