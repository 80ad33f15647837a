"""Every notebook runs from top to bottom as it is saved."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
LONG = {"robots", "traffic", "volumes"}
"""Those that fit for longer; pages of the documentation on the same kinds of data are run each time."""


# The kernel is another process; what its start-up warns about on this side is not the notebook's.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.long if path.stem in LONG else ()) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_and_was_saved_with_its_pictures(path: Path, tmp_path: Path, python: str) -> None:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    saved = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in saved)
    assert not any(output["output_type"] == "error" for output in saved)
    execute(notebook, tmp_path, python)


def execute(notebook: Any, folder: Path, python: str) -> None:
    """Run all cells of a notebook in a folder."""
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    kernel: Any = client.create_kernel_manager().kernel_spec
    kernel.argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client.execute()


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
