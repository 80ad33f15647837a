"""Lookups by id, name and value: right, and no slower where there is much to look through."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import write_table
from hypothesis import given
from hypothesis import strategies as st

from lightning_app.data.columns.meaning import StaticMeaning
from lightning_app.data.scaling.statics import unknown_words
from lightning_app.data.windows.members import assign_series, with_values
from lightning_app.data.windows.splits import Split
from zstore import NotFoundError, Store, UsageError, ingest, open_store

IDS = st.text(st.characters(codec="utf-8"), max_size=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """64 series with a name of their own, a word and a number each."""
    folder = tmp_path_factory.mktemp("lookups")
    rows = write_table(folder / "r.csv", ["id", "t", "v"], [[f"s{n:02d}", t, n] for n in range(64) for t in range(3)])
    table = [[f"s{n:02d}", f"w{n:02d}", n % 8 / 4] for n in range(64)]
    attributes = write_table(folder / "a.csv", ["id", "word", "number"], table)
    ingest(rows, folder / "s.zarr", id="id", time="t", static=attributes)
    return open_store(folder / "s.zarr")


class Counted:
    """A sequence that counts what is taken of it."""

    def __init__(self, values: Any) -> None:
        self.values, self.n_taken = values, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: Any) -> Any:
        self.n_taken += 1
        return self.values[key]


@given(st.sets(IDS, max_size=20), IDS)
def test_an_id_is_where_it_stands_among_ids_sorted_by_their_bytes(ids: set[str], other: str) -> None:
    ordered = sorted(ids, key=str.encode)
    store: Any = SimpleNamespace(ids=np.array(ordered, np.dtypes.StringDType()), path="s.zarr")
    assert [Store.position(store, id_) for id_ in ordered] == list(range(len(ordered)))
    if other not in ids:
        with pytest.raises(NotFoundError):
            Store.position(store, other)


def test_a_lookup_takes_the_logarithm_of_the_ids(store: Store) -> None:
    opened = open_store(store.path)
    ids: Any = Counted(store.ids)
    opened.__dict__["index"] = replace(opened.index, texts=ids)
    assert [opened.position(f"s{n:02d}") for n in range(64)] == list(range(64))
    assert ids.n_taken <= 64 * 8


def test_channels_are_found_without_looking_through_all(store: Store) -> None:
    opened = open_store(store.path)
    channels: Any = Counted(tuple(replace(opened.schema.channels[0], name=f"c{n}") for n in range(200)))
    opened.schema = replace(opened.schema, channels=channels)
    assert [opened.channel(f"c{n}").name for n in range(200)] == [f"c{n}" for n in range(200)]
    assert channels.n_taken <= 3 * 200


@pytest.mark.parametrize(
    ("attribute", "values", "expected"),
    [
        ("word", ["w03", "w60", "w03"], [3, 60]),
        ("number", [0.25, "1.75"], [n for n in range(64) if n % 8 in (1, 7)]),
        ("word", [], []),
        ("number", [], []),
    ],
)
def test_series_are_found_by_values_of_a_static_attribute(
    store: Store, attribute: str, values: list[str | float], expected: list[int]
) -> None:
    assert with_values(store, attribute, values, "--data.split.values").tolist() == expected


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("word", "w64"), ("word", ""), ("word", 3.0), ("number", 3.0), ("number", "many"), ("number", float("nan"))],
)
def test_a_value_that_no_series_has_is_refused_by_name(store: Store, attribute: str, value: str | float) -> None:
    known: list[str | float] = ["w01"] if attribute == "word" else [0.5]
    with pytest.raises(UsageError, match=f"no series has {attribute} {value}.*change --data.split.values"):
        with_values(store, attribute, [*known, value], "--data.split.values")


def test_a_split_by_ids_and_one_by_values_deal_out_the_same_series(store: Store) -> None:
    names = {"train": range(40), "val": range(40, 50), "test": range(50, 64)}
    by_ids = Split("series", ids={name: [f"s{n:02d}" for n in numbers] for name, numbers in names.items()})  # type: ignore[misc]
    words = {name: [f"w{n:02d}" for n in numbers] for name, numbers in names.items()}
    by_values = Split("series", attribute="word", values=words)  # type: ignore[arg-type]
    assert assign_series(store, by_ids).tolist() == assign_series(store, by_values).tolist()
    assert assign_series(store, by_ids).tolist() == [0] * 40 + [1] * 10 + [2] * 14


def test_words_that_a_model_does_not_know_are_found_without_looking_through_all(store: Store) -> None:
    known = tuple(f"w{n:02d}" for n in range(60))
    meaning = StaticMeaning("word", known)
    assert unknown_words(store, meaning, np.arange(64)) == ["w60", "w61", "w62", "w63"]


def test_ids_of_a_foreign_kind_are_not_there(store: Store, tmp_path: Path) -> None:
    for id_ in ("", "s", "s00 ", "S00", "\ud800", "s\x00"):
        with pytest.raises(NotFoundError, match="one of 64 ids"):
            store.position(id_)
