"""Several files as one table: columns that come and go, change their type, or hold times in a format of their own."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zstore import SourceError, Store, UsageError, ingest, open_store
from zstore.arrow import text_array
from zstore.writing.sources.times.formats import read_formatted


def made(tmp_path: Path, *files: str, **options: Any) -> Store:
    """A store of files a.csv, b.csv, …"""
    for name, text in zip("abcd", files, strict=False):
        (tmp_path / f"{name}.csv").write_text(text)
    ingest(tmp_path / "?.csv", tmp_path / "made.zarr", overwrite=True, **options)
    return open_store(tmp_path / "made.zarr")


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    store = made(tmp_path, "t,v,w\n1,10,100\n", "w,t,v\n200,2,20\n", time="t")
    assert store.read("v", 0, 2).tolist() == [10, 20]
    assert store.read("w", 0, 2).tolist() == [100, 200]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ("t,v\n2,20\n", r"column 'w' is missing; expected the columns of .*a.csv.*b.csv line 1"),
        ("t,v,w,x\n2,20,200,9\n", r"column 'x' is not in the files before.*b.csv line 1.*--allow-new-channels"),
        ("t,v,speed\n2,20,200\n", r"column 'w' is missing"),
        (
            "t,v,w\n2,a,1\n3,b,1\n4,c,1\n",
            r"text 'a' in column 'v'; expected numbers as in .*a.csv.*b.csv.*--categories",
        ),
        (
            "t,v,w\n2001-01-01,1,1\n2001-01-02,1,1\n2001-01-03,1,1\n",
            r"unreadable time '2001-01-01' in column 't'.*b.csv",
        ),
    ],
)
def test_a_later_file_of_another_kind_is_refused_before_anything_is_written(
    tmp_path: Path, later: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zstore.writing.parse.parse_all", lambda *_: pytest.fail("blocks were parsed"))
    with pytest.raises(SourceError, match=message):
        made(tmp_path, "t,v,w\n1,10,100\n", later, time="t", on_bad_row="quarantine")
    assert not (tmp_path / "made.zarr").exists()


def test_words_that_become_numbers_in_a_later_file_are_refused(tmp_path: Path) -> None:
    files = ("t,wind\n1,NE\n2,S\n", "t,wind\n3,10\n4,20\n5,30\n")
    with pytest.raises(SourceError, match=r"number '10' in column 'wind'; expected categories as in .*a.csv"):
        made(tmp_path, *files, time="t")
    store = made(tmp_path, *files, time="t", categories=["wind"])
    assert store.channel("wind").categories == ("10", "20", "30", "NE", "S")


def test_a_column_of_words_some_of_which_look_like_numbers_is_named(tmp_path: Path) -> None:
    text = "t,state\n1,ok\n2,7\n3,\n"
    with pytest.raises(SourceError, match=r"text 'ok' in number column 'state'"):
        made(tmp_path, text, time="t")
    store = made(tmp_path, text, time="t", categories=["state"])
    assert store.channel("state").categories == ("7", "ok")
    np.testing.assert_array_equal(store.read("state", 0, 3), [1, 0, np.nan])


def test_the_kind_of_a_column_is_found_in_the_first_file_that_has_known_cells(tmp_path: Path) -> None:
    store = made(tmp_path, "t,v\n1,\n", "t,v\n2,up\n3,down\n4,up\n", time="t")
    assert store.channel("v").categories == ("down", "up")
    store = made(tmp_path, "t,v\n", "t,v\n2001-01-01T00:00Z,1\n", time="t")
    assert (store.schema.time.unit, store.schema.time.zone) == ("s", "UTC")


def test_new_channels_are_missing_in_the_rows_of_other_files(tmp_path: Path) -> None:
    files = ("t,v\n1,10\n2,20\n", "t,v,w,kind\n3,30,300,x\n", "v,t\n40,4\n")
    store = made(tmp_path, *files, time="t", allow_new_channels=True)
    assert store.channels == ("v", "w", "kind")
    np.testing.assert_array_equal(store.read("v", 0, 4), [10, 20, 30, 40])
    np.testing.assert_array_equal(store.read("w", 0, 4), [np.nan, np.nan, 300, np.nan])
    np.testing.assert_array_equal(store.read("kind", 0, 4), [np.nan, np.nan, 0, np.nan])
    assert store.channel("w").encoding.dtype == "int16"


def test_new_channels_do_not_excuse_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="column 'v' is missing"):
        made(tmp_path, "t,v\n1,10\n", "t,speed\n2,20\n", time="t", allow_new_channels=True)


def test_a_new_column_of_a_wide_table_is_a_series_without_rows_elsewhere(tmp_path: Path) -> None:
    files = ("t,a\n1,10\n2,20\n", "t,b,a\n3,300,30\n")
    store = made(tmp_path, *files, time="t", layout="wide", allow_new_channels=True)
    assert {id_: store.series(id_).to_pandas()["value"].tolist() for id_ in store.ids} == {
        "a": [10, 20, 30],
        "b": [300],
    }


FORMATS = [
    ("%d.%m.%Y %H:%M", timedelta(minutes=1)),
    ("%Y%m%d%H%M%S", timedelta(seconds=1)),
    ("%Y-%m", timedelta(days=32)),
    ("%d %b %Y, %I:%M:%S %p", timedelta(seconds=1)),
    ("%m/%d/%y %H:%M:%S.%f", timedelta(microseconds=1)),
    ("%Y-%j", timedelta(days=1)),
    ("%d.%m.%Y %H:%M %z", timedelta(minutes=1)),
]


@given(
    st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2067, 12, 31)), min_size=1, max_size=20),
    st.sampled_from(FORMATS),
    st.integers(-14 * 60, 14 * 60),
)
def test_times_in_a_format_are_read_as_python_reads_them(
    moments: list[datetime], form: tuple[str, timedelta], offset: int
) -> None:
    zone = timezone(timedelta(minutes=offset))
    texts = [moment.replace(tzinfo=zone).strftime(form[0]) for moment in moments]
    found, wrong = read_formatted(text_array(texts), form[0])
    expected = [datetime.strptime(text, form[0]) for text in texts]
    aware = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in expected]
    unit = 1_000_000 if "%f" in form[0] else 1
    assert found.tolist() == [
        round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1) * unit) for moment in aware
    ]
    assert not wrong.any()


@given(st.text(alphabet="0123456789.- :", max_size=18))
def test_what_python_refuses_is_refused(text: str) -> None:
    form = "%d.%m.%Y %H:%M"
    try:
        expected: datetime | None = datetime.strptime(text, form)
    except ValueError:
        expected = None
    found, wrong = read_formatted(text_array([text, "01.02.2003 04:05"]), form)
    assert wrong.tolist() == [expected is None, False]
    if expected is not None:
        assert found[0] == (expected - datetime(1970, 1, 1)) // timedelta(seconds=1)


@pytest.mark.parametrize("written", ["31.02.2001", "30.02.2000", "1.2.01", "2001.02.03", "", "03.02.2001 "])
def test_a_day_that_the_format_cannot_mean_is_refused_not_guessed(tmp_path: Path, written: str) -> None:
    with pytest.raises(
        SourceError, match=rf"unreadable time '{written}' in column 't'; expected a time written as %d.%m"
    ):
        made(tmp_path, f"t,v\n01.02.2001,1\n{written},2\n", time="t", time_format="%d.%m.%Y")


def test_a_format_with_offsets_becomes_utc(tmp_path: Path) -> None:
    rows = "t,v\n28.10.2001 02:30 +0200,1\n28.10.2001 02:30 +0100,2\n"  # the hour that clocks went back
    store = made(tmp_path, rows, time="t", time_format="%d.%m.%Y %H:%M %z")
    assert np.diff(store.times(0, 2)).tolist() == [3600]
    assert store.schema.time.zone == "UTC"


@pytest.mark.parametrize(
    ("form", "expected"),
    [("%H:%M", "a year"), ("%d.%m.%Y %Z", "offsets from UTC"), ("%Y-%Q", "directives of strptime")],
)
def test_a_format_that_cannot_tell_a_time_is_refused(tmp_path: Path, form: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        made(tmp_path, "t,v\n1,1\n", time="t", time_format=form)
