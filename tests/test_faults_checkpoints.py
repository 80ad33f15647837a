"""A checkpoint says what a model was trained on, and with; another store is matched by that, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from zstore import Store, UsageError, ingest, open_store

Rows = list[list[Any]]


def make(folder: Path, rows: Rows, header: Sequence[str] = ("id", "t", "v"), **options: Any) -> Store:
    """A store of some rows, with static attributes if `static` has a table of them."""
    folder.mkdir(parents=True, exist_ok=True)
    if "static" in options:
        options["static"] = write_table(folder / "static.csv", options["static"][0], options["static"][1:])
    source = write_table(folder / "rows.csv", header, rows)
    ingest(source, folder / "s.zarr", id="id", time="t", overwrite=True, **options)
    return open_store(folder / "s.zarr")


def steps(ids: str, first: int, last: int, step: int = 1) -> Rows:
    """Rows of one value from one step to another, both included, for each letter."""
    return [[id_, time, time % 7] for id_ in ids for time in range(first, last + 1, step)]


def module(store: Store, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": 3, "horizon": 1, "scaler": "none", "residency": "host", **options}
    given.setdefault("cache", str(Path(store.path).parent / "cache"))
    return WindowDataModule(str(store.path), **given)


def evaluated(trained: WindowDataModule, other: WindowDataModule) -> int:
    """Windows of the test split of another module that has the state of the first."""
    other.load_state_dict(trained.state_dict())
    return len(other.test_dataloader().index)


CACHE: dict[tuple[str, str], Path] = {}
LEAK = "trained on targets that are in test here"


@pytest.mark.parametrize("finer", ["trained", "tested"])
def test_what_a_model_was_trained_on_is_known_in_another_unit_of_time(tmp_path: Path, finer: str) -> None:
    seconds = make(tmp_path / "s", steps("a", 0, 100), time_unit="s")
    thousandths = make(tmp_path / "ms", steps("a", 0, 100_000, 1000), time_unit="ms")
    stores = [thousandths, seconds] if finer == "trained" else [seconds, thousandths]
    assert [store.schema.time.unit for store in stores] == (["ms", "s"] if finer == "trained" else ["s", "ms"])
    first, other = (
        module(store, split=Split(sizes=sizes)) for store, sizes in zip(stores, [(0.6, 0.2, 0.2)] * 2, strict=True)
    )
    assert evaluated(first, other) == 20
    early = module(stores[1], split=Split(sizes=(0.2, 0.2, 0.6)))
    with pytest.raises(UsageError, match=LEAK + ": series a"):
        evaluated(first, early)


def test_dates_are_not_compared_with_plain_steps(tmp_path: Path) -> None:
    dated, plain = (
        make(tmp_path / name, steps("a", 0, 100), **unit) for name, unit in (("d", {"time_unit": "s"}), ("p", {}))
    )
    with pytest.raises(UsageError, match="plain steps"):
        evaluated(module(dated), module(plain))
    with pytest.raises(UsageError, match="plain steps"):
        evaluated(module(plain), module(dated))


def test_a_model_is_tested_on_series_it_was_never_trained_on(tmp_path: Path) -> None:
    first, other = make(tmp_path / "1", steps("ab", 0, 99)), make(tmp_path / "2", steps("cd", 0, 99))
    early = Split(sizes=(0.1, 0.1, 0.8))
    assert evaluated(module(first), module(other, split=early)) == 2 * 80
    with pytest.raises(UsageError, match=LEAK + ": series a, .*of 2 such series"):
        evaluated(module(first), module(first, split=early))


def test_a_panel_is_tested_on_series_that_another_panel_was_not_of(tmp_path: Path) -> None:
    store = make(tmp_path, steps("abcd", 0, 99))
    early = Split(sizes=(0.1, 0.1, 0.8))
    first = module(store, panel=Panel(ids=["a", "b"]))
    assert evaluated(first, module(store, panel=Panel(ids=["c", "d"]), split=early)) == 80
    with pytest.raises(UsageError, match=LEAK + ": series b, .*of 1 such series"):
        evaluated(first, module(store, panel=Panel(ids=["b", "c"]), split=early))


def test_borders_between_two_steps_share_no_target(tmp_path: Path) -> None:
    store = make(tmp_path, [[id_, f"2001-01-01 {hour:02d}:00", hour] for id_ in "ab" for hour in range(24)])
    day = "2001-01-01 "
    first = module(store, split=Split(dates=(day + "00:00", day + "12:40", day + "18:00", day + "23:59")))
    other = module(store, split=Split(dates=(day + "00:00", day + "06:00", day + "12:20", day + "23:59")))
    assert evaluated(first, other) == 2 * 11
    late = module(store, split=Split(dates=(day + "00:00", day + "06:00", day + "12:00", day + "23:59")))
    with pytest.raises(UsageError, match=LEAK):
        evaluated(first, late)


@settings(max_examples=few(30))
@given(
    trained=st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.integers(4, 30)),
    other=st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.integers(4, 30)),
    units=st.tuples(st.sampled_from(["s", "ms"]), st.sampled_from(["s", "ms"])),
)
def test_a_model_is_tested_on_all_targets_that_it_was_not_trained_on_and_on_no_others(
    tmp_path_factory: pytest.TempPathFactory,
    trained: tuple[set[str], int],
    other: tuple[set[str], int],
    units: tuple[str, str],
) -> None:
    modules, targets = [], []
    for (ids, border), unit, name in zip((trained, other), units, ("train", "test"), strict=True):
        path = CACHE.setdefault(("".join(sorted(ids)), unit), tmp_path_factory.mktemp("leak"))
        per = 1000 if unit == "ms" else 1
        if not (path / "s.zarr").exists():
            make(path, steps("".join(sorted(ids)), 0, 39 * per, per), time_unit=unit)
        split = Split(sizes=(border, 1, 39 - border))
        modules.append(module(open_store(path / "s.zarr"), split=split))
        times = range(3, border) if name == "train" else range(border + 1, 40)
        targets.append({(id_, time) for id_ in ids for time in times})
    if targets[0] & targets[1]:
        with pytest.raises(UsageError, match=LEAK):
            evaluated(*modules)
    else:
        assert evaluated(*modules) == len(targets[1])


def test_a_checkpoint_of_old_keeps_its_training_times(tmp_path: Path) -> None:
    store = make(tmp_path, steps("ab", 0, 99))
    state = module(store).state_dict()
    state["trained_on"] = {"start": torch.tensor([0]), "stop": torch.tensor([70]), "unit": ""}
    late, early = module(store), module(store, split=Split(sizes=(0.1, 0.1, 0.8)))
    late.load_state_dict(state)
    assert len(late.test_dataloader().index) == 2 * 20
    early.load_state_dict(state)
    with pytest.raises(UsageError, match=LEAK):
        early.test_dataloader()


@pytest.mark.parametrize(
    ("option", "names"),
    [("channels", ["v", "w", "v"]), ("targets", ["w", "w"]), ("future", ["w", "w"]), ("statics", ["k", "k"])],
)
def test_a_name_that_is_given_twice_is_refused(tmp_path: Path, option: str, names: list[str]) -> None:
    rows = [[id_, time, time % 7, time % 3] for id_ in "ab" for time in range(50)]
    store = make(tmp_path, rows, ("id", "t", "v", "w"), static=[["id", "k"], ["a", 1], ["b", 2]])
    with pytest.raises(UsageError, match=f"--data.{option} with '{names[-1]}' more than once"):
        module(store, **{option: names})
