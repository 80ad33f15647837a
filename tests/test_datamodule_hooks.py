"""The data module as Lightning's hooks have it, and the names by which users' files know its parts."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split

CSV = "id,time,flow\n" + "".join(f"{id_},2024-01-{day:02d},{day}\n" for id_ in "ab" for day in range(1, 21))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "flow.csv"
    path.write_text(CSV)
    return path


def test_class_paths_that_configurations_of_earlier_releases_name_are_those_classes(csv: Path, tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(WindowDataModule, "data")
    found = parser.parse_object(
        {
            "data": {
                "class_path": "lightning_app.data.datamodule.WindowDataModule",
                "init_args": {
                    "store": str(csv),
                    "lookback": 2,
                    "horizon": 1,
                    "cache": str(tmp_path / "cache"),
                    "ingest": {"id": "id", "time": "time"},
                    "split": {
                        "class_path": "lightning_app.data.splits.Split",
                        "init_args": {"sizes": [0.5, 0.25, 0.25]},
                    },
                    "panel": {"class_path": "lightning_app.data.views.Panel", "init_args": {"ids": ["a"]}},
                },
            }
        }
    )
    data = parser.instantiate(found).data
    assert (Split(sizes=(0.5, 0.25, 0.25)), 1) == (data.split, data.view.n_nodes)


def test_split_and_panel_are_imported_by_the_names_that_they_had() -> None:
    import lightning_app.data.splits as splits
    import lightning_app.data.views as views

    assert (Split, Panel) == (splits.Split, views.Panel)
