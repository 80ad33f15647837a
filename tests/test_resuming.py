"""A fit that is killed goes on from its last checkpoint with the same windows and the same loss, bit by bit."""

import json
import os
import random
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, write_table

from zstore import Store, ingest, open_store

Step = tuple[int, int]
SAVED_EVERY = 4
PADDED = {"pad_before": "repeat", "pad_after": "zero", "target_stride": 2, "jitter": 2}


def write_config(
    folder: Path, store: Store, residency: str, budget: str = "2MB", window: dict[str, Any] | None = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fit.yaml").write_text(
        yaml.safe_dump(
            {
                "data": {
                    "store": str(store.path),
                    "lookback": 20,
                    "horizon": 3,
                    "stride": 3,
                    "channels": ["rain_mm", "flow_mm"],
                    "targets": ["flow_mm"],
                    "batch_size": 64,
                    "cache": str(folder / "cache"),
                    "residency": residency,
                    "memory_budget": budget,
                    **(window or {}),
                },
                "model": {"class_path": "LSTM", "init_args": {"hidden": 8}},
                "checkpoint": {"monitor": None, "every_n_train_steps": SAVED_EVERY},
                "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False},
            }
        )
    )


def free_port() -> int:
    """A port that nobody listens on, below those that the system hands out itself."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def fit(
    python: str, folder: Path, witness: str, ranks: int = 1, kill_at: int | None = None, run: str = "run", **more: Any
) -> None:
    """Fit on some processes, from the last checkpoint where there is one; dies after one step, or ends well."""
    callback = {"path": str(folder / witness), "kill_at": kill_at, **more}
    last = (folder / run / "checkpoints" / "last.ckpt").exists()
    words = ("--ckpt_path", "last") if last else ()
    done = on_ranks(python, folder, "fit", ranks, run, {"class_path": "witness.Witness", "init_args": callback}, *words)
    assert done.returncode == (0 if kill_at is None else -signal.SIGKILL), done.stderr


def on_ranks(
    python: str, folder: Path, command: str, ranks: int, run: str, callback: dict[str, Any], *words: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with ``fit.yaml``, and one more callback, on some processes."""
    callbacks = [*yaml.safe_load((folder / "fit.yaml").read_text())["trainer"].get("callbacks", ()), callback]
    overlay = {"trainer": {"callbacks": callbacks, "devices": ranks, "default_root_dir": str(folder / run)}}
    if ranks > 1:
        # DDP orders gradients anew after its first step, and more than two numbers have several sums; not in this one.
        overlay["trainer"]["strategy"] = "ddp" if ranks == 2 else "ddp_find_unused_parameters_true"
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    line = [python, "-m", "lightning_app", command, "--config", "fit.yaml", "--config", "overlay.yaml", *words]
    # The callback is found beside the tests; one thread sums in one order.
    found = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    alone = {"PYTHONPATH": found, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, env={**os.environ, **alone})


def seen(folder: Path, witness: str, ranks: int = 1) -> list[dict[str, Any]]:
    """Steps in the order they were taken; the windows of all ranks of a step together."""
    found = []
    for rank in range(ranks):
        lines = (folder / f"{witness}.{rank}").read_text().splitlines()
        found.append([json.loads(line) for line in lines])
    assert len({len(steps) for steps in found}) == 1
    joined = []
    for parts in zip(*found, strict=True):
        assert len({part["step"] for part in parts}) == 1
        windows = [tuple(window) for part in parts for window in part["windows"]]
        joined.append({**parts[0], "windows": windows, "loss": [part["loss"] for part in parts]})
    return joined


def kill_again_and_again(
    python: str, folder: Path, store: Store, ranks: int, residency: str, n_kills: int, window: dict[str, Any]
) -> None:
    write_config(folder, store, residency, window=window)
    fit(python, folder, "whole", ranks, run="undisturbed")
    whole = {step["step"]: step for step in seen(folder, "whole", ranks)}
    assert sorted(whole) == list(range(1, len(whole) + 1))
    assert {step["epoch"] for step in whole.values()} == {0, 1}
    shuffler = random.Random(ranks)
    kills: list[Any] = []
    while len(kills) < n_kills:
        kills += sorted(shuffler.sample(range(1, len(whole)), min(n_kills - len(kills), len(whole) - 1)))
    for number, kill_at in enumerate(kills):
        if number and kill_at <= kills[number - 1]:
            for path in (folder / "run" / "checkpoints").iterdir():
                path.unlink()  # from the beginning once more
        fit(python, folder, "killed", ranks, kill_at)
    fit(python, folder, "killed", ranks)
    taken = seen(folder, "killed", ranks)
    assert {step["step"] for step in taken} == set(whole)
    for step in taken:
        assert step == whole[step["step"]]
    assert len(taken) > len(whole)


@pytest.mark.parametrize(("ranks", "residency", "window"), [(1, "stream", PADDED), (2, "host", {})])
def test_a_fit_that_is_killed_goes_on_with_the_same_windows_and_losses(
    catchments: Store, tmp_path: Path, python: str, ranks: int, residency: str, window: dict[str, Any]
) -> None:
    kill_again_and_again(python, tmp_path, catchments, ranks, residency, 1, window)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("ranks", "residency", "window"),
    [
        *((ranks, residency, {}) for ranks in (1, 2) for residency in ("host", "stream")),
        (2, "host", PADDED),
        (2, "stream", PADDED),
        (2, "stream", {**PADDED, "vectors": {"rain_mm": {"steps": 4, "stride": 5}}}),
    ],
)
def test_a_fit_killed_at_twenty_steps_goes_on_with_the_same_windows_and_losses(
    catchments: Store, tmp_path: Path, python: str, ranks: int, residency: str, window: dict[str, Any]
) -> None:
    kill_again_and_again(python, tmp_path, catchments, ranks, residency, 20, window)


@pytest.mark.long
@pytest.mark.parametrize(("ranks", "place"), [(1, "stream"), (2, "stream"), (2, "encoded")])
def test_a_fit_with_fields_that_is_killed_goes_on_with_the_same_values_of_them(
    tmp_path: Path, python: str, ranks: int, place: str
) -> None:
    np.save(tmp_path / "all.npy", np.random.default_rng(0).integers(0, 256, (3000, 32, 32), np.uint8))
    rows = [[f"s{n // 300}", n % 300, n % 17, "all.npy", n] for n in range(3000)]
    files: dict[str, Any] = {"file": {"image": "f"}, "file_position": {"image": "n"}, "file_root": str(tmp_path)}
    table = write_table(tmp_path / "r.csv", ["id", "t", "v", "f", "n"], rows)
    ingest(table, tmp_path / "s.zarr", id="id", time="t", chunk_rows=64, shard_rows=256, **files)
    fields = {"image": {"steps": 2, "stride": 3, "residency": place}}
    options: dict[str, Any] = {"channels": ["v"], "targets": ["v"], "fields": fields, "memory_budget": "2.6MB"}
    kill_again_and_again(python, tmp_path, open_store(tmp_path / "s.zarr"), ranks, "host", 3, options)


@pytest.mark.parametrize("residency", ["host", pytest.param("stream", marks=pytest.mark.long)])
def test_a_fit_of_one_process_goes_on_with_two_on_the_same_windows_and_with_the_same_losses(
    catchments: Store, tmp_path: Path, python: str, residency: str
) -> None:
    window = {"pad_before": "zero", "pad_after": "repeat"} if residency == "host" else {}
    write_config(tmp_path, catchments, residency, "2MB", window)
    fit(python, tmp_path, "whole", run="undisturbed")
    whole = {step["step"]: step["windows"] for step in seen(tmp_path, "whole")}
    fit(python, tmp_path, "one", kill_at=7)
    write_config(tmp_path, catchments, residency, "6MB", window)  # of the machine: two pools of as many pieces
    fit(python, tmp_path, "two", ranks=2)
    after = {step["step"]: step["windows"] for step in seen(tmp_path, "two", 2)}
    assert min(after) == SAVED_EVERY + 1
    assert {**{step["step"]: step["windows"] for step in seen(tmp_path, "one")}, **after} == whole
    in_epoch = [window for step, windows in whole.items() if step <= len(whole) // 2 for window in windows]
    assert len(set(in_epoch)) == len(in_epoch)
    losses, shared = (
        {step["step"]: np.mean([float.fromhex(loss) for loss in step["loss"]]) for step in seen(tmp_path, *witness)}
        for witness in (("whole",), ("two", 2))
    )
    assert shared == {step: pytest.approx(losses[step], rel=1e-6) for step in shared}
