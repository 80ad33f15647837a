"""The data doctor: it finds each planted fault where it is, and nothing in data that are clean."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_table

import zstore
from zstore import Store, ingest, open_store
from zstore.look.report import to_html
from zstore.upkeep.doctor import examine
from zstore.upkeep.findings import KINDS, SEVERITIES, SEVERITY

Run = Callable[..., subprocess.CompletedProcess[str]]
Row = list[Any]  # id, time, temperature, rain

N_SERIES, N_HOURS = 5, 2_400
START = np.datetime64("2021-01-01T00", "h")
ILL = "s3"


@pytest.fixture(scope="module")
def clean() -> list[Row]:
    """Weather of five places by the hour: a wave of a day on one of a season, some rain, a few cells missing."""
    random = np.random.default_rng(7)
    hours, rows = np.arange(N_HOURS), []
    for number in range(N_SERIES):
        wave = 10 + 8 * np.sin(hours / 24 * 2 * np.pi) + 5 * np.sin(hours / N_HOURS * np.pi)
        temperature = (wave + number + random.normal(0, 1, N_HOURS)).round(2)
        rain = (random.gamma(0.5, 4, N_HOURS) * (random.random(N_HOURS) < 0.15)).round(1)
        missing = random.random((N_HOURS, 2)) < 0.03
        for hour in hours.tolist():
            cells = ["" if missing[hour, n] else value for n, value in enumerate((temperature[hour], rain[hour]))]
            rows.append([f"s{number}", START + np.timedelta64(hour, "h"), *cells])
    return rows


def store_of(folder: Path, rows: list[Row], **options: Any) -> Store:
    lines = [[id_, str(time).replace("T", " ") + ":00", *cells] for id_, time, *cells in rows]
    table = write_table(folder / "rows.csv", ["id", "time", "temperature", "rain"], lines)
    ingest(table, folder / "rows.zarr", id="id", time="time", **options)
    return open_store(folder / "rows.zarr")


def changed(rows: list[Row], change: Callable[[Row, int], Row | None]) -> list[Row]:
    """The rows of one series changed, by their hour; None leaves a row out."""
    found = []
    for row in rows:
        hour = int((row[1] - START) / np.timedelta64(1, "h"))
        new = change(list(row), hour) if row[0] == ILL else row
        found += [] if new is None else [new]
    return found


def cell(column: int, hours: range, value: Any) -> Callable[[Row, int], Row]:
    """Another value in some hours, or what a function makes of the one there is."""

    def change(row: Row, hour: int) -> Row:
        if hour in hours:
            known = value(row[column]) if callable(value) and row[column] != "" else row[column]
            row[column] = known if callable(value) else value
        return row

    return change


def test_clean_data_are_found_clean(clean: list[Row], tmp_path: Path) -> None:
    assert examine(store_of(tmp_path, clean)).findings == ()


PLANTED: dict[str, tuple[str, Callable[[Row, int], Row | None]]] = {
    "gap": ("", lambda row, hour: None if 500 <= hour < 560 else row),
    "missing_run": ("temperature", cell(2, range(700, 800), "")),
    "flat_line": ("temperature", cell(2, range(900, 1_000), 12.34)),
    "sentinel": ("temperature", lambda row, hour: [*row[:2], -9999, row[3]] if hour % 400 == 7 else row),
    "outlier": ("temperature", cell(2, range(1_234, 1_235), 4_321)),
    "drift": ("temperature", cell(2, range(1_600, N_HOURS), lambda value: round(value + 90, 2))),
    "constant": ("rain", cell(3, range(N_HOURS), 0)),
    "empty": ("rain", cell(3, range(N_HOURS), "")),
    "sampling_change": ("", lambda row, hour: None if hour > 1_500 and hour % 3 else row),
    "off_grid": ("", lambda row, hour: [row[0], row[1].astype("M8[m]") + np.timedelta64(20, "m"), *row[2:]]),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else(kind: str, clean: list[Row], tmp_path: Path) -> None:
    channel, change = PLANTED[kind]
    rows = changed(clean, change)
    if kind == "off_grid":
        lines = [[id_, str(time.astype("M8[m]")).replace("T", " "), *cells] for id_, time, *cells in rows]
        table = write_table(tmp_path / "rows.csv", ["id", "time", "temperature", "rain"], lines)
        ingest(table, tmp_path / "rows.zarr", id="id", time="time", freq="1h")
        store = open_store(tmp_path / "rows.zarr")
    else:
        store = store_of(tmp_path, rows)
    found = examine(store).findings
    assert [(each.kind, each.series, each.channel) for each in found] == [(kind, ILL, channel)]
    first, last = store.index.row_start[3:5].tolist()
    assert first <= found[0].start < found[0].stop <= last
    if kind == "missing_run":
        assert found[0].stop - found[0].start >= 100
        assert found[0].when.startswith("2021-01-30")


def test_an_hour_lost_each_spring_is_told_as_summer_time(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    times = np.datetime64("2020-03-01T00", "h") + np.arange(24 * 60)
    sunday = np.datetime64("2020-03-29T02", "h")
    rows = [["a", time, round(random.normal(), 2), round(random.random(), 2)] for time in times if time != sunday]
    found = examine(store_of(tmp_path, rows)).findings
    assert [(each.kind, each.when) for each in found] == [("clock_change", "2020-03-29 03:00:00")]
    shutil.rmtree(tmp_path / "rows.zarr")
    monday = sunday + np.timedelta64(24, "h")
    rows = [["a", time, round(random.normal(), 2), round(random.random(), 2)] for time in times if time != monday]
    assert [each.kind for each in examine(store_of(tmp_path, rows)).findings] == ["gap"]


def test_a_series_stored_twice_under_two_ids_is_found(clean: list[Row], tmp_path: Path) -> None:
    rows = [*clean, *(["z", *row[1:]] for row in clean if row[0] == "s1")]
    (found,) = examine(store_of(tmp_path, rows)).findings
    assert (found.kind, found.series) == ("copy", "z")
    assert "as s1 in every channel" in found.detail


def test_rows_refused_and_duplicates_of_every_version_are_told(clean: list[Row], tmp_path: Path) -> None:
    bad = [*clean[:50], ["s0", "not a time", 1, 1], clean[10], *clean[50:]]
    store = store_of(tmp_path, bad, on_bad_row="quarantine", on_duplicate="last")
    heads = ["id", "time", "temperature", "rain"]
    more = write_table(
        tmp_path / "more.csv",
        heads,
        [*(["s0", f"2031-01-01 0{n}:00:00", 1, 1] for n in range(5)), ["s0", "never", 1, 1], ["s1", "never", 1, 1]],
    )
    zstore.append(more, store.path, on_bad_row="quarantine", max_bad_rows=0.9)
    found = [each for each in examine(open_store(store.path)).findings if not each.series]
    assert [each.detail for each in found if each.kind == "duplicate"] == ["1 row dropped by version 1"]
    refused = [each.detail.split(",")[0] for each in found if each.kind == "refused"]
    assert refused == ["2 rows set aside by version 2", "1 row set aside by version 1"]


def test_irregular_times_whose_step_changes_are_found(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    for name, factor, wanted in (("even", 1, []), ("slower", 4, ["sampling_change"])):
        steps = random.integers(50, 70, 600)
        steps[300:] *= factor
        rows = [["a", int(time), round(random.normal(), 2)] for time in np.cumsum(steps)]
        table = write_table(tmp_path / f"{name}.csv", ["id", "t", "v"], rows)
        ingest(table, tmp_path / f"{name}.zarr", id="id", time="t")
        assert [each.kind for each in examine(open_store(tmp_path / f"{name}.zarr")).findings] == wanted


def test_the_report_is_one_page_of_markup_that_needs_nothing_else(clean: list[Row], tmp_path: Path) -> None:
    rows = changed(clean, PLANTED["flat_line"][1])
    hostile = '<script>alert("x")</script>'
    rows = [[f'"{hostile.replace(chr(34), chr(34) * 2)}"' if row[0] == ILL else row[0], *row[1:]] for row in rows]
    diagnosis = examine(store_of(tmp_path, rows))
    html = to_html(diagnosis)
    closed = re.sub(r"<(meta[^>]*)>", r"<\1/>", html.removeprefix("<!doctype html>"))
    page = ElementTree.fromstring(closed)  # noqa: S314  # ours
    assert not {"script", "link", "img", "iframe"} & {element.tag for element in page.iter()}
    assert "http" not in html
    text = "".join(page.itertext())
    assert hostile in text
    assert "12.34 in 100 consecutive rows" in text
    assert text.count("Looked for, and not found") == 1


def test_every_kind_has_one_severity_and_the_report_has_the_severest_first(clean: list[Row], tmp_path: Path) -> None:
    assert sorted(kind for kinds in SEVERITIES.values() for kind in kinds) == sorted(KINDS)
    rows = clean
    for kind in ("gap", "flat_line", "sentinel"):
        rows = changed(rows, PLANTED[kind][1])
    diagnosis = examine(store_of(tmp_path, rows))
    assert {"gap", "flat_line", "sentinel"} <= set(diagnosis.counts)
    html = to_html(diagnosis)
    places = [html.index(f"<h2 id='{kind}'") for kind in ("sentinel", "flat_line", "gap")]
    assert places == sorted(places)
    assert [each["severity"] for each in diagnosis.to_json()["findings"]] == [
        SEVERITY[each.kind] for each in diagnosis.findings
    ]


def test_the_picture_of_a_finding_says_its_times_and_its_range(clean: list[Row], tmp_path: Path) -> None:
    diagnosis = examine(store_of(tmp_path, changed(clean, PLANTED["flat_line"][1])))
    (found,) = [finding for finding in diagnosis.findings if finding.kind == "flat_line"]
    store, half = diagnosis.store, 3 * (found.stop - found.start) // 2
    position = store.position(found.series)
    first, last = store.index.row_start[position : position + 2].tolist()
    low, high = max(first, found.start - half), min(last, found.stop + half)
    values, html = store.read(found.channel, low, high), to_html(diagnosis)
    times = [store.time.show(int(store.times(row, row + 1)[0])) for row in (low, high - 1)]
    assert f"<span>{np.nanmax(values):.6g} </span><span>{np.nanmin(values):.6g}</span>" in html
    assert f"<span>{times[0]}</span><span>{times[1]}</span>" in html


def test_the_command_says_writes_and_fails_on_what_it_is_told_to(clean: list[Row], tmp_path: Path, run: Run) -> None:
    store = store_of(tmp_path, changed(clean, PLANTED["outlier"][1]))
    done = run("zstore.cli", "doctor", store.path, "--html", tmp_path / "report.html", check=True)
    assert "outlier: values far beyond all others (1)" in done.stdout
    assert "s3 temperature: a value of 4321, at 2021-02-21 10:00:00; 98 % of the values lie between" in done.stdout
    assert "<svg" in (tmp_path / "report.html").read_text()
    for words, code in ((["gap"], 0), (["gap,outlier"], 1), (["any"], 1), (["nonsense"], 2)):
        assert run("zstore.cli", "doctor", store.path, "--fail-on", *words).returncode == code
    document = json.loads(run("zstore.cli", "doctor", store.path, "--json", check=True).stdout)
    assert document["counts"] == {"outlier": 1}
    assert set(document["counts"]) <= set(KINDS)


@pytest.mark.parametrize(("n_series", "n_ends", "once"), [(4, 4, True), (4, 2, False), (2, 2, False)])
def test_values_that_most_series_lack_at_their_ends_as_days_to_come_are_one_finding(
    n_series: int, n_ends: int, once: bool, tmp_path: Path
) -> None:
    days = [str(day) for day in np.arange("2024-01-01", "2024-07-01", dtype="datetime64[D]")]
    lines = ["shop,date,price,sold"]
    for shop in range(n_series):
        known = len(days) - 30 * (shop < n_ends)
        for n, day in enumerate(days):
            sold = str(10 + 7 * n % 5 + n * shop % 3) if n < known else ""
            lines.append(f"s{shop},{day},{10 + n % 7 + shop},{sold}")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    ingest(tmp_path / "a.csv", tmp_path / "a.zarr", id="shop", time="date")
    found = [each for each in examine(open_store(tmp_path / "a.zarr")).findings if each.kind == "missing_run"]
    assert [(each.series, each.channel) for each in found] == (
        [("", "sold")] if once else [(f"s{shop}", "sold") for shop in range(n_ends)]
    )
    if once:
        assert found[0].sentence == "the last 30 rows of 4 series have no value, as rows to come have none"
