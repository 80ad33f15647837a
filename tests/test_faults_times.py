"""Times are read as they are written, by every reader alike, or refused with their line."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import few, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as pacsv

from zstore import SourceError, UsageError, append, ingest, open_store
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.times.formats import check_format, read_formatted, read_one
from zstore.writing.sources.times.guesses import dates_or_epochs, sniff_iso
from zstore.writing.sources.times.iso import read_iso
from zstore.writing.sources.times.spec import TimeSpec

ISO_SECONDS = TimeSpec("iso", ("t",), "s")


def stored_times(tmp_path: Path, times: Sequence[str], **options: Any) -> list[str]:
    """The times that a table of one series is stored with."""
    path = write_table(tmp_path / "a.csv", ["id", "t", "v"], [["a", time, n] for n, time in enumerate(times)])
    ingest(path, tmp_path / "s.zarr", id="id", time="t", overwrite=True, **options)
    store = open_store(tmp_path / "s.zarr")
    unit: Any = store.schema.time.unit
    times = store.times(0, store.n_rows).tolist()
    return [str(time if unit is None else np.datetime64(time, unit)) for time in times]


def refusal(tmp_path: Path, times: Sequence[str], **options: Any) -> str:
    with pytest.raises((SourceError, UsageError)) as caught:
        stored_times(tmp_path, times, **options)
    assert not (tmp_path / "s.zarr").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        ("213503982334601", "d"),
        ("-213503982334601", "d"),
        ("5124095576030431", "h"),
        ("9223372036854775807", "s"),
        ("253402300800", "s"),
        ("-62135596801", "s"),
        ("9223372036854775808", "ns"),
    ],
)
def test_an_epoch_that_the_axis_does_not_hold_is_refused_with_its_line(tmp_path: Path, time: str, unit: str) -> None:
    said = refusal(tmp_path, ["1", time], time_unit=unit)
    assert f"time {time!r}" in said
    assert "line 3" in said


def test_an_epoch_in_nanoseconds_has_nineteen_digits(tmp_path: Path) -> None:
    found = stored_times(tmp_path, ["1577836800000000001", "1577836800000000002"], time_unit="ns")
    assert [time[-9:] for time in found] == ["000000001", "000000002"]


def test_rows_that_are_numbered_past_the_axis_are_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["v"], [[n] for n in range(5)])
    with pytest.raises(SourceError, match="of a row that is numbered"):
        ingest(path, tmp_path / "s.zarr", freq="1D", start="9999-12-29")
    ingest(path, tmp_path / "s.zarr", freq="1D", start="9999-12-27")


@pytest.mark.parametrize(
    ("times", "flag"),
    [
        (["20010131", "20010201"], "--time-format %Y%m%d"),
        (["200101", "200102"], "--time-format %Y%m"),
        (["2001013123", "2001020100"], "--time-format %Y%m%d%H"),
        (["20010131235959", "20010201000000"], "--time-format %Y%m%d%H%M%S"),
        (["1577836800", "1577836860"], "--time-unit s"),
        (["1577836800000", "1577836860000"], "--time-unit ms"),
        (["1577836800000000", "1577836860000000"], "--time-unit us"),
        (["1577836800000000000", "1577836860000000000"], "--time-unit ns"),
    ],
)
def test_numbers_that_look_like_dates_or_epochs_are_asked_about(tmp_path: Path, times: list[str], flag: str) -> None:
    said = refusal(tmp_path, times)
    assert flag in said
    assert "--time-unit steps" in said
    name, value = flag.removeprefix("--").split(" ")
    assert len(stored_times(tmp_path, times, **{name.replace("-", "_"): value})) == 2


def test_numbers_that_look_like_dates_are_steps_when_said_so_and_are_appended_alike(tmp_path: Path) -> None:
    assert stored_times(tmp_path, ["20010131", "20010201"], time_unit="steps") == ["20010131", "20010201"]
    stored_times(tmp_path, ["5", "6"])
    more = write_table(tmp_path / "b.csv", ["id", "t", "v"], [["a", 20010131, 1], ["a", 20010201, 2]])
    append(more, tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").times(0, 4).tolist() == [5, 6, 20010131, 20010201]


@pytest.mark.parametrize("first", [0, 1, 100, 1990, 20_000, 100_000, 999_999, 20_013_101, 31_012_001, 123_456_789])
def test_counters_are_steps_without_a_question(first: int) -> None:
    assert dates_or_epochs([str(first + n) for n in range(100)]) == []


@pytest.mark.parametrize("zeros", [".0", ".000", ".000000", ".000000000", ".000000000000"])
def test_zeros_behind_a_fraction_are_nothing(tmp_path: Path, zeros: str) -> None:
    times = [f"2020-01-01 00:00:0{n}{zeros}" for n in range(3)]
    assert stored_times(tmp_path, times) == [f"2020-01-01T00:00:0{n}" for n in range(3)]
    assert open_store(tmp_path / "s.zarr").schema.time.unit == "s"


def test_a_later_line_may_have_more_zeros_than_the_first(tmp_path: Path) -> None:
    times = [*(f"2020-01-01 00:{n // 60:02}:{n % 60:02}" for n in range(3000)), "2020-01-02 00:00:00.000"]
    assert stored_times(tmp_path, times)[-1] == "2020-01-02T00:00:00"
    times[-1] = "2020-01-02 00:00:00.001"
    (tmp_path / "b").mkdir()
    assert "line 3,002" in refusal(tmp_path / "b", times)


def test_a_year_that_nanoseconds_do_not_hold_is_refused_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, ["2020-01-01 00:00:00.000000001", "9999-01-01 00:00:00.000000001"])
    assert "line 3" in said
    assert "out of range" in said


def test_a_time_that_is_wrong_is_set_aside_and_the_rest_is_stored(tmp_path: Path) -> None:
    for good, wrong, options in (
        ("2020-01-0{} 00:00:00Z", ["2001-01-03Z", "2020-01-01 00:00:00+24:00", "2020-01-01 00:00:00"], {}),
        ("2020-01-01 00:00:00.00000000{}", ["9999-01-01 00:00:00.000000001", "1600-01-01 00:00:00.000000001"], {}),
        ("{}", ["0x10", "+3", "1e3", "1000000000000000000000"], {"time_unit": "steps"}),
        ("{}", ["213503982334601", "0x10"], {"time_unit": "d"}),
    ):
        times = [*(good.format(n) for n in range(1, 10)), *wrong]
        found = stored_times(tmp_path, times, on_bad_row="quarantine", **options)
        assert len(found) == 9
        aside = (tmp_path / "s.zarr.quarantine.csv").read_text()
        assert [str(9 + 2 + n) in aside for n in range(len(wrong))] == [True] * len(wrong)


def test_a_missing_text_that_is_an_hour_is_an_hour(tmp_path: Path) -> None:
    rows = [[2001, 1, 1, hour, 5] for hour in range(4)]
    path = write_table(tmp_path / "a.csv", ["year", "month", "day", "hour", "v"], rows)
    ingest(path, tmp_path / "s.zarr", time=["year", "month", "day", "hour"], missing=["0"])
    assert open_store(tmp_path / "s.zarr").n_rows == 4


def test_hexadecimal_numbers_are_no_times_in_parts(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["y", "m", "d", "v"], [[2001, 1, 1, 5], [2001, 1, "0x1F", 5]])
    with pytest.raises(SourceError, match="line 3"):
        ingest(path, tmp_path / "s.zarr", time=["y", "m", "d"])


def test_ids_in_hexadecimal_do_no_harm(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", ["id", "t", "v"], [["0x1f", n, n] for n in range(5)])
    ingest(path, tmp_path / "s.zarr", id="id", time="t")
    assert open_store(tmp_path / "s.zarr").times(0, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M %p",
        "%Y-%m-%d %I:%M",
        "%Y-W%W",
        "%Y-%d",
        "%Y %Y",
        "%Y-%m-%d %M",
        "%d.%m",
        "%Y %c",
        "%Y%",
        "%Y %Q",
    ],
)
def test_a_format_that_leaves_the_time_ambiguous_is_refused(form: str) -> None:
    with pytest.raises(UsageError, match="--time-format"):
        check_format(form)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("200112", "%Y%m%d"),
        ("2001111", "%Y%m%d"),
        ("2001366", "%Y%j"),
        ("2002-W53-1", "%Y-W%W-%w"),
        ("2001-W53-1", "%G-W%V-%u"),
        ("Mon 2001-01-02", "%a %Y-%m-%d"),
        ("2001-02-30", "%Y-%m-%d"),
        ("٢٠٠١-01-02", "%Y-%m-%d"),
        ("2001-01-02 23:59:61", "%Y-%m-%d %H:%M:%S"),
        ("01:00 PM 01.01.2001", "%H:%M PM %d.%m.%Y %f"),
    ],
)
def test_a_text_that_does_not_say_what_was_read_from_it_is_refused(text: str, form: str) -> None:
    assert read_one(text, form) is None


FORMATS = [
    "%Y%m%d",
    "%d.%m.%Y %H:%M",
    "%Y%j",
    "%Y-W%W-%w",
    "%G-W%V-%u",
    "%I:%M %p %d %b %Y",
    "%y/%m/%d",
    "%Y-%m-%dT%H:%M:%S.%f",
]
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31))


@given(st.sampled_from(FORMATS), MOMENTS, st.data())
@settings(max_examples=few(150))
def test_a_format_round_trips_every_time_that_it_reads(form: str, moment: datetime, data: st.DataObject) -> None:
    text = moment.strftime(form)
    exact = read_one(text, form, "us")
    assert exact is not None
    assert (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=exact)).strftime(form) == text
    position = data.draw(st.integers(0, len(text) - 1))
    changed = text[:position] + data.draw(st.sampled_from(["", "0", "9", " ", "x"])) + text[position + 1 :]
    value = read_one(changed, form, "us")
    times, wrong = read_formatted(pa.array([changed]), form, "us")
    assert (None if wrong[0] else int(times[0])) == value
    if value is not None:
        again = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)).strftime(form)
        assert [int(n) if n.isdigit() else n for n in numbers_of(again)] == [
            int(n) if n.isdigit() else n for n in numbers_of(changed)
        ]


def numbers_of(text: str) -> list[str]:
    """Runs of digits and the words between, fractions filled up to six digits."""
    text = re.sub(r"\.(\d+)$", lambda match: "." + match[1].ljust(6, "0"), text)
    return re.findall(r"\d+|[^\d ]+", text.casefold())


def oracle(text: str, unit: str, zone: bool) -> int | None:
    """An ISO time by the standard library and decimal arithmetic."""
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d(?:[ T]\d\d(?::\d\d(?::\d\d)?)?)?)(\.\d+)?(Z|[+-]\d\d(?::?\d\d)?)?", text, re.ASCII
    )
    if match is None or (match[3] is not None) != zone or (match[3] and len(match[1]) == 10):
        return None
    if match[2] is not None and len(match[1]) != 19:
        return None
    offset = match[3] or "Z"
    offset = "+00:00" if offset == "Z" else offset if ":" in offset else f"{offset[:3]}:{offset[3:] or '00'}"
    if int(offset[1:3]) > 23 or int(offset[4:]) > 59:
        return None
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        return None
    minutes = int(offset[0] + "1") * (int(offset[1:3]) * 60 + int(offset[4:]))
    digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) - minutes * 60
    fraction = (match[2] or ".0")[1:]
    if fraction[digits:].strip("0"):
        return None
    value = seconds * 10**digits + int(fraction[:digits].ljust(digits, "0") or 0)
    first, last = -62_135_596_800 * 10**digits, 253_402_300_800 * 10**digits - 1
    return value if max(first, -(2**63) + 1) <= value <= min(last, 2**63 - 1) else None


@st.composite
def iso_texts(draw: st.DrawFn) -> str:
    day = draw(st.dates()).isoformat()
    clock = draw(st.sampled_from(["", " 00", "T23:59", " 12:34:56", "T24:00:00", " 23:59:60", "T01:02:03"]))
    fraction = draw(st.sampled_from(["", "", ".0", ".5", ".500", ".000000", ".123456789", ".1234567890", "."]))
    zone = draw(st.sampled_from(["", "", "Z", "+01", "-0130", "+23:59", "+24:00", "-00:60", "z"]))
    text = day + clock + fraction + zone
    if draw(st.booleans()):
        position = draw(st.integers(0, len(text)))
        text = text[:position] + draw(st.sampled_from(["", "0", "-", " ", "T", "x", "9"])) + text[position + 1 :]
    return text


@given(iso_texts(), st.sampled_from(["s", "ms", "us", "ns"]), st.booleans(), st.sampled_from([None, "ms", "ns"]))
@settings(max_examples=few(400))
def test_the_fast_reader_of_iso_times_the_strict_one_and_the_standard_library_agree(
    text: str, unit: str, zone: bool, written: str | None
) -> None:
    spec = TimeSpec("iso", ("t",), unit, zone=zone, written=written)
    expected = oracle(text, unit, zone)
    assert spec.read_cells([text]) == expected
    assert (spec.judge({"t": text}) is None) == (expected is not None)
    assert by_arrow(spec, [text]) in (expected, "refused")
    assert by_arrow(spec, [text], as_words=True) == (expected if expected is not None else "refused")


WHOLE = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.from_regex(r"[ \t]?[-+]?0?[xX]?[0-9a-f]{1,4}[ e.]?", fullmatch=True),
    st.sampled_from(["", "-", "1_0", "٣", "00000000000000000000000012", "-0", "1e3", "0b1", "1.0"]),
)


@given(WHOLE, st.sampled_from(["steps", "d", "h", "s", "ms", "ns"]))
@settings(max_examples=few(400))
def test_the_fast_reader_of_whole_numbers_and_the_strict_one_agree(text: str, unit: str) -> None:
    factor = {"d": 86_400, "h": 3_600}.get(unit, 1)
    axis = None if unit == "steps" else {"d": "s", "h": "s"}.get(unit, unit)
    spec = TimeSpec("steps" if axis is None else "epoch", ("t",), axis, factor=factor)
    stripped = text.strip(" \t")
    digits = stripped.removeprefix("-")
    expected: int | None = int(stripped) * factor if digits.isdecimal() and digits.isascii() else None
    if expected is not None and not spec.bounds[0] <= expected <= spec.bounds[1]:
        expected = None
    assert spec.read_cells([text]) == expected
    assert (spec.judge({"t": text}) is None) == (expected is not None)
    assert by_arrow(spec, [text], as_words=True) == (expected if expected is not None else "refused")
    if "x" not in text.lower():
        assert by_arrow(spec, [text]) in (expected, "refused")


PART = st.one_of(
    st.integers(-1, 61).map(str),
    st.integers(1990, 2010).map(str),
    st.sampled_from(["07", " 7", "0x7", "", "1e0", "7.0"]),
)


@given(st.lists(PART, min_size=4, max_size=4))
@settings(max_examples=few(200))
def test_the_fast_reader_of_times_in_several_columns_and_the_strict_one_agree(parts: list[str]) -> None:
    spec = TimeSpec("parts", ("y", "m", "d", "h"), "s")
    try:
        assert all(re.fullmatch(r"[ \t]*-?\d+[ \t]*", part, re.ASCII) for part in parts)
        year, month, day, hour = map(int, parts)
        moment = datetime(year, month, day, hour, tzinfo=UTC)
        expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    except (ValueError, AssertionError):
        expected = None
    assert spec.read_cells(parts) == expected
    table = {
        name: pa.chunked_array([pa.array([part]).dictionary_encode()]) for name, part in zip("ymdh", parts, strict=True)
    }
    if expected is None:
        with pytest.raises(RefusedError):
            spec.read(table, 1)
    else:
        assert spec.read(table, 1).tolist() == [expected]


def by_arrow(spec: TimeSpec, texts: Sequence[str], as_words: bool = False) -> int | str | None:
    """The first time as a block is read, or ``refused``."""
    content = "".join(f'"{text}",1\n' for text in texts).encode()
    try:
        table = pacsv.read_csv(
            pa.BufferReader(content),
            pacsv.ReadOptions(column_names=["t", "v"]),
            convert_options=pacsv.ConvertOptions(
                column_types=spec.arrow_types(as_words), null_values=[], timestamp_parsers=[pacsv.ISO8601]
            ),
        )
        return int(spec.read(table, len(texts))[0])
    except (pa.ArrowInvalid, RefusedError):
        return "refused"


def test_the_unit_of_an_iso_column_is_that_of_its_digits_without_zeros() -> None:
    unit: Any
    for texts, unit, written in (
        (["2020-01-01 00:00:00.000"], "s", "ms"),
        (["2020-01-01 00:00:00.500000"], "ms", "us"),
        (["2020-01-01 00:00:00.5", "2020-01-01 00:00:00.000001"], "us", None),
        (["2020-01-01"], "s", None),
    ):
        spec = sniff_iso("t", texts)
        assert spec is not None
        assert (spec.unit, spec.written) == (unit, written)
        assert read_iso(texts[0], unit, False) == np.datetime64(texts[0], unit).astype(int)
