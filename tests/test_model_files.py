"""Every shipped model as a file that needs none of this package, and from its checkpoint alone."""

from pathlib import Path
from typing import Any

import pytest
from model_files import OF_TASK, SHIPPED, Case, case_of, write_places, write_scenes

from lightning_app.export.export import Export, export_model
from lightning_app.export.program import Format

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's and torch's own


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_places(folder)
    write_scenes(folder)
    return folder


def exported(case: Case, format_: Format, stores: Path, folder: Path, **options: Any) -> Any:
    data = case.module(stores)
    return export_model(case.build(data), data, Export(format_, windows=20, **options), folder)


@pytest.mark.parametrize("format_", ["onnx", "torch"])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_exported_and_gives_what_it_gives_in_pytorch(
    name: str, format_: Format, stores: Path, tmp_path: Path
) -> None:
    assert exported(case_of(name), format_, stores, tmp_path).difference <= 1e-5


@pytest.mark.parametrize("format_", ["onnx", "torch"])
@pytest.mark.parametrize("name", OF_TASK)
def test_every_task_is_exported(name: str, format_: Format, stores: Path, tmp_path: Path) -> None:
    assert exported(OF_TASK[name], format_, stores, tmp_path).difference <= 1e-5
