"""A header that ends in a delimiter above rows that do not, and the other way round."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from zstore import SourceError, ingest, inspect, open_store
from zstore.cli import main

DAYS = [f"s,2001-01-{day:02d},{day / 4}" for day in range(1, 8)]
FILES = {
    "header": ["id,day,flow,", *DAYS],
    "rows": ["id,day,flow", *(f"{row}," for row in DAYS)],
    "both": ["id,day,flow,", *(f"{row}," for row in DAYS)],
    "numbered rows": ["id,day,flow", *(f"{n},{row}" for n, row in enumerate(DAYS, 1))],
}


@pytest.mark.parametrize("ends", FILES)
def test_a_look_names_the_columns_and_its_command_reads_every_row(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("\n".join(FILES[ends]) + "\n")
    look = inspect("a.csv")
    assert set(look.times) == {"day"}
    assert main([*shlex.split(look.command)[1:], "--quiet"]) == 0
    store = open_store("a.zarr")
    assert store.n_rows == 7
    assert store.series(store.ids[0]).read("flow").tolist() == [day / 4 for day in range(1, 8)]


@pytest.mark.parametrize(
    ("ends", "way"),
    [
        ("header", "the header ends in a delimiter: .*--no-header --names id,day,flow[)]"),
        ("rows", "the row ends in a delimiter: .*--no-header --names id,day,flow,rest --leave-out rest"),
    ],
)
def test_a_refusal_names_the_flags_that_read_such_rows(ends: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(FILES[ends]) + "\n")
    with pytest.raises(SourceError, match=way) as refused:
        ingest(path, tmp_path / "s.zarr", id="id", time="day")
    words = str(refused.value).partition("--no-header ")[2].partition(")")[0].split()
    more: dict[str, Any] = {
        word[2:].replace("-", "_"): words[n + 1].split(",") for n, word in enumerate(words) if word[:2] == "--"
    }
    receipt = ingest(path, tmp_path / "s.zarr", id="id", time="day", skip_lines=1, no_header=True, **more)
    assert receipt.n_stored == 7
