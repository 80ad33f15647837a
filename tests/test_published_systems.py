"""Muscles, hearts and robots go from `zstore fetch` to a tested model by the commands of their pages."""

import gzip
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY
from test_notebooks import execute

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif("ZSTORE_TEST_DATA" not in os.environ, reason="needs $ZSTORE_TEST_DATA"),
]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has the files as they are published, for a user in the folder above it."""
    data, folder = Path(os.environ["ZSTORE_TEST_DATA"]), tmp_path / "mirror"
    (folder / "adrenal").mkdir(parents=True)
    shutil.copy(data / "medmnist3d" / "adrenalmnist3d_64.npz", folder / "adrenal")
    (folder / "pusht").symlink_to(data / "pusht")
    for packed in (data / "emg_myo").glob("*/*.txt.gz"):
        target = folder / "emg_myo" / packed.parent.name / packed.name.removesuffix(".gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.decompress(packed.read_bytes()))
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.setenv("ZSTORE_MIRROR", str(folder))
    return folder


@pytest.mark.parametrize(
    ("name", "config"), [("adrenal", "adrenal_cnn3d"), ("emg_myo", "emg_myo_tds"), ("pusht", "pusht_state_bc")]
)
def test_a_fetched_set_is_ingested_by_the_command_it_names_and_trains(
    name: str, config: str, mirror: Path, tmp_path: Path, run: Run
) -> None:
    said = run("zstore", "fetch", name, check=True).stdout
    following = next(line for line in said.splitlines() if line.startswith("next: zstore "))
    run(*shlex.split(following)[1:], check=True)
    few = [f"--trainer.limit_{part}_batches" for part in ("train", "val", "test")]
    short = ["--config", f"configs/{config}.yaml", "--trainer.max_epochs", "1"]
    run("lightning_app", "fit", *short, few[0], 3, few[1], 3, check=True)
    run("lightning_app", "test", *short, few[2], 3, "--ckpt_path", "last", check=True)
    assert (tmp_path / "runs" / config / "test_metrics.json").exists()


@pytest.mark.filterwarnings("default")  # of the kernel's start
@pytest.mark.parametrize("name", ["muscles", "volumes", "robots"])
def test_a_notebook_shows_a_slice_of_the_fetched_set(
    name: str, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSTORE_REAL", "1")
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    execute(notebook, tmp_path, sys.executable)  # a start of its own, so that figures are shown
    real = [cell for cell in notebook.cells if "ZSTORE_REAL" in cell.source and cell.cell_type == "code"]
    printed = [output for cell in real for output in cell.outputs]
    assert any(output["output_type"] == "stream" for output in printed)
    assert any("image/png" in output.get("data", {}) for output in printed)
