"""What the doctor says, and what it does not say, of numbers that stand for missing, gaps and constants."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import few, write_table
from edges import BY_ID, DAY, rows
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import Store, open_store
from zstore.printing import show_diagnosis
from zstore.upkeep.doctor import examine
from zstore.upkeep.findings import Finding


def store_of(folder: Path, series: dict[str, Any], name: str = "d", **options: Any) -> Store:
    """A store of daily values."""
    lines = [
        [id_, DAY + np.timedelta64(t, "D"), value] for id_, values in series.items() for t, value in enumerate(values)
    ]
    zstore.ingest(
        write_table(folder / f"{name}.csv", ["id", "t", "v"], lines), folder / f"{name}.zarr", **BY_ID, **options
    )
    return open_store(folder / f"{name}.zarr")


def found(store: Store) -> list[tuple[str, str]]:
    return [(finding.kind, finding.series) for finding in examine(store).findings]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_stand_for_missing_are_found_where_they_are_a_share_of_one_series(
    tmp_path: Path, dtype: Any
) -> None:
    random = np.random.default_rng(3)
    some = random.choice(400, 92, replace=False)
    flow, kelvin, tenths, high, both = (
        random.gamma(0.5, 300, 400).round(1),
        random.uniform(250, 303, 400).round(2),
        random.normal(10, 3, 400).round(1),
        np.minimum(random.gamma(0.5, 2000, 400).round(1), 9000 - np.arange(400)),
        random.normal(0, 2000, 400).round(1),
    )
    flow[some], kelvin[some[:40]], tenths[some], high[some], both[some] = -999, 0, -99.9, 9999, -999
    ill = {"flow": flow, "kelvin": kelvin, "tenths": tenths, "high": high, "both": both}
    fit = {
        "clean": random.normal(0, 1, 400).round(2),
        "gamma": random.gamma(0.5, 300, 400).round(1),
        "valve": np.where(np.arange(400) % 60 < 10, 100, 0),
        "switched": np.where(np.arange(400) % 60 < 40, 0, random.normal(2000, 30, 400).round(0)),
        "wide": random.normal(-999, 500, 400).round(0),
    }
    store = store_of(tmp_path, ill | fit, dtype=dtype)
    assert sorted(found(store)) == sorted(("sentinel", id_) for id_ in ill)
    said = {finding.series: finding.sentence for finding in examine(store).findings}
    assert re.fullmatch(
        r"-999 in 92 of 400 rows, first at 2001-01-\d\d; all other values lie between 0(\.\d)? and [\d.]+", said["flow"]
    )
    assert said["kelvin"].startswith("0 in 40 of 400 rows, first at 200")
    assert said["tenths"].startswith("-99.9 in 92 of 400 rows")


@settings(max_examples=few(60))
@given(values=st.lists(st.integers(-60, 60), min_size=60, max_size=90), at=st.integers(0, 59))
def test_a_sentinel_is_found_wherever_it_stands_and_none_where_there_is_none(values: list[int], at: int) -> None:
    from zstore.upkeep import checks

    clean = np.array(values, np.float64) / 4
    told = checks.sentinels(clean)
    spread = clean[clean != clean[0]]
    if len(np.unique(clean)) > 40:
        assert told is None
    ill = clean.copy()
    ill[at : at + 3] = -999
    if len(ill[at : at + 3]) == 3 and len(spread):
        first = checks.sentinels(ill)
        assert first is not None
        assert (first.start, first.detail.split(" of ")[0]) == (at, "-999 in 3")


def test_each_receipt_is_counted_once_and_only_for_versions_that_have_its_rows(tmp_path: Path) -> None:
    aside: dict[str, Any] = {"on_bad_row": "quarantine", "max_bad_rows": 9, "on_duplicate": "first"}
    twice = [["a", t, t] for t in (*range(60), 5, 6)]
    path = tmp_path / "s.zarr"
    zstore.ingest(write_table(tmp_path / "a.csv", ["id", "t", "v"], [*twice, ["a", 99, "bad"]]), path, **BY_ID, **aside)
    zstore.append(rows(tmp_path / "b.csv", first=60, bad=3), path, workers=1, **aside)
    zstore.append(rows(tmp_path / "c.csv", first=200, id_="b"), path, workers=1)
    zstore.compact(path, workers=1)
    zstore.rollback(path, 2)
    zstore.rollback(path, 1)
    first = ["1 row set aside by version 1, see", "2 rows dropped by version 1"]
    second = ["3 rows set aside by version 2, see", *first]
    told = {}
    for version in open_versions(path):
        details = [f.detail for f in examine(open_store(path, version)).findings if f.kind in ("refused", "duplicate")]
        told[version] = sorted(re.sub(r"see .*", "see", detail) for detail in details)
    assert told == {1: sorted(first), 2: sorted(second), 3: sorted(second), 5: sorted(second), 6: sorted(first)} | (
        {4: sorted(second)} if 4 in told else {}
    )


def open_versions(path: Path) -> list[int]:
    return [entry.version for entry in zstore.log(path)]


def test_gaps_are_told_in_whole_steps_of_at_least_one(tmp_path: Path) -> None:
    steps = [t * 2 + (t > 100) - (t > 200) + 8 * (t > 300) for t in range(400)]
    table = write_table(tmp_path / "s.csv", ["id", "t", "v"], [["a", t, t % 17] for t in steps])
    zstore.ingest(table, tmp_path / "s.zarr", **BY_ID)
    told = [finding.sentence for finding in examine(open_store(tmp_path / "s.zarr")).findings]
    assert told == ["2 steps that are no multiple of 2 steps, first at 203", "4 steps missing, until 610"]


def test_the_doctor_speaks_in_whole_sentences(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    series = {name: random.normal(10, 1, 300).round(2).astype(object) for name in "abcde"}
    series["a"][50:90], series["b"][100:180], series["c"][7] = 12.5, "", 1e9
    series["d"][3], series["e"][:] = "inf", 4
    lines = [
        [id_, DAY + np.timedelta64(t, "D"), value]
        for id_, values in series.items()
        for t, value in enumerate(values)
        if not (id_ == "a" and t in (150, 200, 201))
    ]
    zstore.ingest(write_table(tmp_path / "s.csv", ["id", "t", "v"], lines), tmp_path / "s.zarr", **BY_ID)
    text = show_diagnosis(examine(open_store(tmp_path / "s.zarr")))
    assert [line.strip() for line in text.splitlines() if line.startswith("  ")] == [
        "a: 3 steps missing in 2 gaps, at most 2 together, the longest until 2001-07-22",
        "d v: 1 value, the first inf, first at 2001-01-04",
        "e v: 4 in all 300 rows that have a value",
        "b v: 80 rows without a value, from 2001-04-11",
        "a v: 12.5 in 40 consecutive rows, from 2001-02-20",
        "c v: a value of 1e+09, at 2001-01-08; 98 % of the values lie between 7.6994 and 12.3801",
    ]
    assert text.splitlines()[0].endswith("1,497 rows of 5 series, 6 findings")
    assert Finding("empty", "a", "v", "no value in 3 rows", 0, 3, "2001-01-01").sentence == "no value in 3 rows"


def test_what_is_constant_in_every_series_is_told_once_if_a_number_and_not_at_all_if_a_word(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = [
        [s, DAY + np.timedelta64(t, "D"), round(random.normal(), 2), f"group {s % 3}", s % 3]
        for s in range(6)
        for t in range(80)
    ]
    table = write_table(tmp_path / "s.csv", ["id", "t", "v", "group", "number"], lines)
    zstore.ingest(table, tmp_path / "s.zarr", **BY_ID)
    (told,) = examine(open_store(tmp_path / "s.zarr")).findings
    assert (told.kind, told.series, told.channel) == ("constant", "", "number")
    assert told.sentence == "one value in each of 6 series; a static attribute would say it once"
