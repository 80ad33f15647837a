"""The suite fields on episodes of a few small frames: what it compares are the same windows, and it prints all rows.

And what suites do where a peer is not installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

from benchmarks import field_peers, fields, our_fields, read
from benchmarks.field_data import simulated

N_EPISODES, N_STEPS, SIZE = 34, 60, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    fields.prepare(folder, simulated(N_EPISODES, N_STEPS, SIZE))
    return folder


@pytest.mark.parametrize("residency", ["host", "encoded", "stream"])
@pytest.mark.parametrize("name", list(field_peers.FILES))
def test_all_read_the_same_windows(folder: Path, tmp_path: Path, residency: Any, name: str) -> None:
    data, dataset = our_fields.module_of(folder, residency, tmp_path), field_peers.dataset_of(name, folder)
    assert len(dataset) == N_EPISODES * N_STEPS
    batch: Any = next(iter(data.train_dataloader()))
    scaler = data.scaler
    for n, (series, time) in enumerate(zip(batch["series"].tolist(), batch["time"].tolist(), strict=True)):
        peer = dataset[series * N_STEPS + time]
        image, action = batch["image"][n], batch["y"][n].numpy() * scaler.scale[-2:] + scaler.offset[-2:]
        if isinstance(dataset, field_peers.ReplayBuffer):
            image = image.movedim(-1, 1) / 255
            low, width = dataset.scales["action"]
            peer["action"] = (peer["action"].numpy() + 1) / 2 * width + low
        np.testing.assert_allclose(peer["image"], image, rtol=1e-6)
        np.testing.assert_allclose(peer["action"], action, rtol=1e-4, atol=1e-2)
    data.close()


def test_the_suite_measures_and_prints_every_reader(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: fields.Runs = {}
    for name in ("first", "host", "stream", "encoded"):
        fields.add(runs, name, our_fields.read(name, folder, tmp_path, 0.03))
    for job in (job for job in fields.LABELS if job.split()[0] in field_peers.FILES):
        fields.add(runs, job, field_peers.read(job.split()[0], folder, 0, 0.03))
    fields.report(folder, {"alone": runs})
    printed = capsys.readouterr().out
    assert all(f"| {label} |" in printed for label in fields.LABELS.values())
    assert 0.9 < runs["stream"][0]["decoded_per_epoch"] <= 1  # the last windows, too few for a batch, may need no more
    assert (
        fields.ratio(runs, "host", ("copy",), "samples_per_s")
        == runs["host"][0]["samples_per_s"] / runs["copy"][0]["samples_per_s"]
    )


@pytest.mark.long
def test_the_suite_runs_each_reader_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    runs = fields.measured(tmp_path, folder, 1, fields.SETTINGS[1], seconds=0.1)
    assert set(runs) == {"first", *fields.LABELS}


def test_a_peer_that_is_not_installed_has_no_row_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Whether it lacks its package when it prepares, or when it reads."""

    def printing(document: dict[str, Any]) -> list[str]:
        return [sys.executable, "-S", "-c", f"print({json.dumps(json.dumps(document))})"]

    rate: dict[str, Any] = {"windows_per_s": 5.0}
    lack: dict[str, Any] = {"missing": "No module named 'xbatcher'"}
    jobs = {("host", 256, 0): rate, ("xbatcher", 256, 0): lack, ("xbatcher", 256, 2): rate, ("memmap", 256, 0): rate}
    made: dict[str, dict[str, Any]] = {"litdata": {"missing": "no litdata"}, "xbatcher": {}, "memmap": {}}
    found = read.measured({job: printing(document) for job, document in jobs.items()}, made, 2)
    assert {job: len(runs) for job, runs in found.items()} == {("host", 256, 0): 2, ("memmap", 256, 0): 2}
    assert made["xbatcher"] == lack
    read.say_missing(made)
    told = capsys.readouterr().out
    assert "litdata is not installed: no litdata" in told
    assert "xbatcher is not installed: No module named 'xbatcher'" in told
