"""Numbers that are limits of detection: the number, and a channel that says on which side of it the value lies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zstore
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.cells import NumberStyle

CELLS = ["<0.5", "1.25", "> 200", "", " ≤0.05 ", "-3", ">=1e3", "nan", "≥ 7", "<=2"]
VALUES = [0.5, 1.25, 200, np.nan, 0.05, -3, 1000, np.nan, 7, 2]
SIDES = [-1, 0, 1, np.nan, -1, 0, 1, np.nan, 1, -1]


def written(path: Path, cells: list[str], id_: str = "a", first: int = 0) -> Path:
    lines = (f"{id_},{first + n},{cell},{n}\n" for n, cell in enumerate(cells))
    path.write_text("id,t,lead,x\n" + "".join(lines))
    return path


def both(store: zstore.Store, name: str = "lead") -> tuple[Any, Any]:
    return store.read(name, 0, store.n_rows), store.read(f"{name}.censored", 0, store.n_rows)


def test_a_limit_is_stored_with_the_side_that_its_value_is_on(tmp_path: Path) -> None:
    zstore.ingest(written(tmp_path / "a.csv", CELLS), tmp_path / "s.zarr", id="id", time="t", censored=["lead"])
    store = zstore.open_store(tmp_path / "s.zarr")
    assert store.channels == ("lead", "lead.censored", "x")
    values, sides = both(store)
    assert np.array_equal(values, np.array(VALUES, np.float32), equal_nan=True)
    assert np.array_equal(sides, np.array(SIDES, np.float32), equal_nan=True)


def test_an_append_and_a_comparison_read_limits_as_the_store_was_read(tmp_path: Path) -> None:
    first = written(tmp_path / "a.csv", CELLS)
    options: dict[str, Any] = {"id": "id", "time": "t", "censored": ["lead"], "rename": {"lead": "Pb"}}
    zstore.ingest(first, tmp_path / "s.zarr", **options)
    more = written(tmp_path / "b.csv", ["<9", "4"], "b", 100)
    zstore.append(more, tmp_path / "s.zarr")
    store = zstore.open_store(tmp_path / "s.zarr")
    assert store.series("b").to_pandas()[["Pb", "Pb.censored"]].to_numpy().tolist() == [[9, -1], [4, 0]]
    found = compare_sources(zstore.open_store(tmp_path / "s.zarr"), [str(first), str(more)])
    assert (found.n_rows, found.n_different, found.n_unseen) == (12, 0, 0)


@pytest.mark.parametrize(
    ("cell", "told"),
    [("<", "text '<'"), ("<<1", "text '<<1'"), ("<1>", "text"), ("1<", "text '1<'"), ("~1", "text"), ("< one", "text")],
)
def test_other_marks_are_refused(cell: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(zstore.SourceError, match=told):
        zstore.ingest(
            written(tmp_path / "a.csv", ["1", "2", cell]), tmp_path / "s.zarr", id="id", time="t", censored=["lead"]
        )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"categories": ["lead"]}, "--censored lead with --categories"),
        ({"percent": ["lead"]}, "--censored lead with --percent"),
        ({"layout": "wide", "id": None}, "--censored lead with --layout wide"),
        ({"rename": {"x": "lead.censored"}}, "every name once"),
        ({"censored": ["zinc"]}, "no column 'zinc'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(zstore.ZstoreError, match=told):
        zstore.ingest(
            written(tmp_path / "a.csv", CELLS),
            tmp_path / "s.zarr",
            **{"id": "id", "time": "t", "censored": ["lead"], **options},
        )


def test_without_the_flag_limits_are_refused_with_it(tmp_path: Path) -> None:
    with pytest.raises(zstore.SourceError, match=r"--censored lead for the numbers"):
        zstore.ingest(written(tmp_path / "a.csv", CELLS), tmp_path / "s.zarr", id="id", time="t")


def test_a_number_that_means_missing_has_no_side(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ["<0.5", "-999", "<-999", "NA"])
    zstore.ingest(
        path, tmp_path / "s.zarr", id="id", time="t", censored=["lead"], missing=["lead=-999", "NA", ""], workers=1
    )
    values, sides = both(zstore.open_store(tmp_path / "s.zarr"))
    assert np.isnan(values).tolist() == np.isnan(sides).tolist() == [False, True, True, True]


@given(
    st.floats(-1e30, 1e30),
    st.sampled_from([("", 0), ("<", -1), ("<=", -1), ("≤", -1), (">", 1), (">=", 1), ("≥", 1)]),
    st.sampled_from([".", ","]),
    st.integers(0, 2),
)
def test_every_number_is_read_with_its_side(value: float, mark: tuple[str, int], decimal: str, blanks: int) -> None:
    style = NumberStyle(decimal, censored=True)
    cell = " " * blanks + mark[0] + " " * blanks + repr(value).replace(".", decimal)
    assert (style.read(cell), style.side(cell)) == (value, mark[1])
