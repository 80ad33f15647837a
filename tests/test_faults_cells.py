"""Cells: what a number, a word and a missing value is, in rows and in static attributes alike."""

import json
import math
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zstore import Receipt, SourceError, Store, UsageError, append, ingest, open_store
from zstore.cli import main
from zstore.format.encodings.numbers import observe_numbers
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.csv.blocks import read_block
from zstore.writing.sources.csv.borders import align
from zstore.writing.sources.csv.header import open_source
from zstore.writing.sources.csv.sniff import sniff
from zstore.writing.sources.files import find
from zstore.writing.sources.options import TableOptions

Run = Callable[..., subprocess.CompletedProcess[str]]


def made(tmp_path: Path, text: str, static: str | None = None, **options: Any) -> tuple[Store, Receipt]:
    """A store of one file, with times in `t`, and its receipt."""
    (tmp_path / "rows.csv").write_text(text)
    if static is not None:
        (tmp_path / "static.csv").write_bytes(static.encode(options.get("encoding", "utf-8")))
        options["static"] = tmp_path / "static.csv"
    if "encoding" in options:
        (tmp_path / "rows.csv").write_bytes(text.encode(options["encoding"]))
    receipt = ingest(tmp_path / "rows.csv", tmp_path / "s.zarr", **{"time": "t", "overwrite": True, **options})
    return open_store(tmp_path / "s.zarr"), receipt


def values(store: Store, channel: str = "v") -> list[float]:
    numbers: list[float] = store.read(channel, 0, store.n_rows).tolist()
    return numbers


def words(store: Store, channel: str) -> list[str | None]:
    known = store.channel(channel).categories or ()
    return [None if math.isnan(code) else known[int(code)] for code in values(store, channel)]


def attribute(store: Store, name: str) -> list[float | str | None]:
    static = next(static for static in store.statics if static.name == name)
    if static.categories is None:
        return [None if math.isnan(value) else value for value in static.values.tolist()]
    return [None if code < 0 else static.categories[code] for code in static.values.tolist()]


# What a number is.

PIECES = ["0", "1", "9", "12", "+", "-", ".", ",", "e", "E", " ", "\t", "nan", "inf", "Infinity", "NaN", "(", ")"]
PIECES += ["abc", "0x", "_", "e5", "e-400", "e400", "\u00e9", "\u0663", "%", "\u00a0"]
cells = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)


def read_cell(cell: str, decimal: Literal[".", ","], folder: Path, neighbour: str = "1") -> float | None:
    """What the reader of a block makes of one cell beside a good one; None if it refuses it."""
    path = folder / "c.csv"
    path.write_bytes(f't;v\n1;{neighbour}\n2;"{cell}"\n'.encode())
    file = find(path, "SRC")
    source, _ = open_source(file, file, TableOptions(delimiter=";"))
    options = TableOptions(time=("t",), decimal=decimal, missing=("NA",))
    spec = sniff([source], ";", options)
    block = align(source, [(source.body, file.n_bytes)], [0])[0]
    columns = read_block(block, spec, keep_bad=True)
    assert [bad.place.line for bad in columns.bad] == [2][: len(columns.bad)]  # of the block: below the header
    return None if columns.bad else float(columns.channels[0].as_stored((), "float64")[1])


@given(cell=cells, decimal=st.sampled_from([".", ","]))
def test_a_block_takes_a_cell_if_and_only_if_the_strict_reader_does_and_with_its_value(
    cell: str, decimal: Literal[".", ","], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from zstore.writing.sources.cells import NumberStyle  # here, so that other tests need no such module

    folder = tmp_path_factory.getbasetemp()
    expected = NumberStyle(decimal).read(cell)
    if expected is not None and math.isinf(expected) and "n" not in cell.lower():
        expected = None  # too large
    found = read_cell(cell, decimal, folder)
    np.testing.assert_array_equal([found], [expected])


@pytest.mark.parametrize("cell", ["nan(abc)", "nan()", " -nan(0x1)\t", "NaN(ind)"])
def test_a_nan_with_a_payload_is_no_missing_value(cell: str, tmp_path: Path) -> None:
    assert read_cell(cell, ".", tmp_path) is None


# Missing values.


def test_words_are_missing_only_where_empty_or_named(tmp_path: Path) -> None:
    text = "t,prov,v\n1,NA,1\n2,MI,NA\n3,,3\n4,null,4\n"
    store, receipt = made(tmp_path, text)
    assert words(store, "prov") == ["NA", "MI", None, "null"]
    assert "prov has the word 'NA'; --missing prov=NA makes it missing" in receipt.notes
    store, _ = made(tmp_path, text, categories=["prov"])
    assert words(store, "prov") == ["NA", "MI", None, "null"]
    store, _ = made(tmp_path, text, missing=["prov=NA"])
    assert words(store, "prov") == [None, "MI", None, "null"]
    np.testing.assert_array_equal(values(store), [1, np.nan, 3, 4])  # the usual texts stay


@given(value=st.integers(-999, 999), spelling=st.sampled_from(["{}", "{}.00", "{}e0", " {}", "{}.", "{}000e-3"]))
def test_a_missing_number_is_missing_however_it_is_written(
    value: int, spelling: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    store, receipt = made(folder, f"t,v\n1,{spelling.format(value)}\n2,{value + 1}\n", missing=[str(value)])
    np.testing.assert_array_equal(values(store), [np.nan, value + 1])
    assert not [note for note in receipt.notes if "never occurred" in note]


@pytest.mark.parametrize(
    ("missing", "never"),
    [
        (["-999"], []),
        (["-999", "-99"], ["-99"]),
        (["x", ""], ["x"]),
        (["NA", ""], []),
        (["", "v=-999.0"], []),
        (["", "w=-999"], ["w=-999"]),
        (["-999.0", "-999"], []),
    ],
)
def test_a_missing_text_that_never_occurred_is_named(tmp_path: Path, missing: list[str], never: list[str]) -> None:
    text = "t,x,v,w\n1,x,-999.00,1\n2,y," + ("NA" if "NA" in missing else "" if "" in missing else "2") + ",2\n"
    _, receipt = made(tmp_path, text, missing=missing)
    assert [n for n in receipt.notes if "never occurred" in n] == [f"--missing {text} never occurred" for text in never]


def test_a_text_is_missing_in_its_column_alone(tmp_path: Path) -> None:
    text = "t,a,b\n1,-,1\n2,2,{}\n"
    store, _ = made(tmp_path, text.format(3), missing=["a=-"])
    np.testing.assert_array_equal(values(store, "a"), [np.nan, 2])
    with pytest.raises(SourceError, match=r"text '-' in number column 'b'.*line 3"):
        made(tmp_path, text.format("-"), missing=["a=-"])
    with pytest.raises(UsageError, match="no column 'c'"):
        made(tmp_path, text.format(3), missing=["c=-"])


def test_an_hour_of_0_is_no_missing_time_and_a_missing_time_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("y,m,d,h,v\n2001,1,1,0,0\n2001,1,1,1,7\n")
    ingest(tmp_path / "h.csv", tmp_path / "h.zarr", time=["y", "m", "d", "h"], missing=["0"], on_bad_row="quarantine")
    np.testing.assert_array_equal(values(open_store(tmp_path / "h.zarr")), [np.nan, 7])
    with pytest.raises(SourceError, match=r"missing time '1900-01-01' in column 't'.* line 3"):
        made(tmp_path, "t,v\n2001-01-01,1\n1900-01-01,2\n", missing=["1900-01-01"])


def test_a_value_of_missing_may_begin_with_a_minus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text("t,v,w\n1,-999.00,\n2,-999,3\n")
    assert main(["ingest", "r.csv", "s.zarr", "--time", "t", "--missing", "-999.00,"]) == 0
    store = open_store("s.zarr")
    assert np.isnan(values(store)).all()
    np.testing.assert_array_equal(values(store, "w"), [np.nan, 3])


def test_an_append_reads_as_the_store_was_read_also_one_of_before(tmp_path: Path) -> None:
    from zstore.writing.sources.cells import NumberStyle

    made(tmp_path, "t,prov,v\n1,NA,-1\n2,MI,2\n", missing=["-1", "prov=NA"])
    (tmp_path / "more.csv").write_text("t,prov,v\n3,NA,-1.0\n4,RM,4\n")
    append(tmp_path / "more.csv", tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert words(store, "prov") == [None, "MI", None, "RM"]
    np.testing.assert_array_equal(values(store), [np.nan, 2, np.nan, 4])
    # Of old, one list of texts held for words too, and numbers were compared as texts.
    root = tmp_path / "s.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    table = document["attributes"]["zstore"]["table"]
    for name in ("missing_by", "thousands", "percent"):
        del table[name]
    old = TableOptions.from_json({**table, "missing": ["", "NA", "-1"]}).missing_texts(["prov", "v"])
    assert set(old.of_words("prov").texts) == {"", "NA", "-1"}
    assert (old.of_numbers("v", NumberStyle()).name("-1", -1), old.of_numbers("v", NumberStyle()).name("-1.0", -1)) == (
        "-1",
        None,
    )


# Words that look like numbers.


@pytest.mark.parametrize(
    ("cells", "flag"),
    [
        (["1,5", "2,25", "3"], "--decimal ,"),
        (["1,234", "2,345,678"], "--thousands ,"),
        (["1.234,5", "12.345,75"], "--decimal , --thousands ."),
        (["1 234", "5 678"], "--thousands ' '"),
        (["1'234.5", "5'678.0"], '--thousands "\'"'),
        (["45%", "5.5 %"], "--percent v"),
        (["$12", "$1,000.50"], "--categories v"),
        (["12 \u20ac", "3 \u20ac"], "--categories v"),
        (["\u22121.5", "\u22122"], "--categories v"),
    ],
)
def test_words_that_look_like_numbers_are_refused_and_the_flag_is_named(
    tmp_path: Path, cells: list[str], flag: str
) -> None:
    text = "t;v\n" + "".join(f"{n};{cell}\n" for n, cell in enumerate(cells))
    text = "t;v\n" + "".join(f"{n};{cell}\n" for n, cell in enumerate([c for c in cells if c != "3"] * 3))
    with pytest.raises(SourceError, match="column 'v' holds words such as") as refused:
        made(tmp_path, text, delimiter=";")
    assert flag in str(refused.value)
    store, _ = made(tmp_path, text, delimiter=";", categories=["v"])
    assert set(words(store, "v")) == set(cells) - {"3"}


@pytest.mark.parametrize(
    ("cells", "options", "expected"),
    [
        (["45%", "-9"], {"percent": ["v"], "missing": ["v=-9"]}, [45, np.nan]),
        (["1.234,5", "-12.345.678", "0,25", ""], {"decimal": ",", "thousands": "."}, [1234.5, -12345678, 0.25, np.nan]),
        (["1,234", "7", "1,234.5e1"], {"thousands": ","}, [1234, 7, 12345]),
        (["1 234", "1\u00a0234", "1\u202f234"], {"thousands": " "}, [1234] * 3),
        (["45%", "5.5 %", "NA", "1e1%"], {"percent": ["v"]}, [45, 5.5, np.nan, 10]),
    ],
)
def test_numbers_in_another_spelling_are_read_when_it_is_named(
    tmp_path: Path, cells: list[str], options: dict[str, Any], expected: list[float]
) -> None:
    text = "t;v\n" + "".join(f"{n};{cell}\n" for n, cell in enumerate(cells))
    store, _ = made(tmp_path, text, delimiter=";", dtype="float64", **options)
    np.testing.assert_array_equal(values(store), expected)


@pytest.mark.parametrize(
    ("cell", "options"),
    [("12,34", {"thousands": ","}), ("1,2345", {"thousands": ","}), ("45", {"percent": ["v"]}), ("4%5", {})],
)
def test_a_number_in_another_spelling_than_named_is_refused(tmp_path: Path, cell: str, options: dict[str, Any]) -> None:
    good = "1%" if "percent" in options else "1"
    with pytest.raises(SourceError, match=r"in number column 'v'.* line 3"):
        made(tmp_path, f"t;v\n1;{good}\n2;{cell}\n", delimiter=";", **options)


# Static attributes.

ROWS = "t,id,v\n1,01,1\n1,1,2\n"


def static(tmp_path: Path, cells: list[str], **options: Any) -> tuple[Store, Receipt]:
    table = "".join(f"{id_};{cell}\n" for id_, cell in zip(["01", "1"], cells, strict=True))
    return made(tmp_path, ROWS, f"id;a\n{table}", id="id", **options)


@pytest.mark.parametrize(
    ("cells", "options", "expected"),
    [
        (["01", "17"], {}, ["01", "17"]),
        (["1.5", "-999.0"], {"missing": ["a=-999"]}, [1.5, None]),
        (["1,5", "2,5"], {"decimal": ","}, [1.5, 2.5]),
        (["1.234,5", "2"], {"decimal": ",", "thousands": "."}, [1234.5, 2]),
        (["5%", "6%"], {"percent": ["a"]}, [5, 6]),
        (["5%", "6%"], {"categories": ["a"]}, ["5%", "6%"]),
        (["NA", "x"], {}, ["NA", "x"]),
        (["NA", "x"], {"missing": ["a=NA"]}, [None, "x"]),
        (["NA", "2"], {}, [None, 2]),
        (["\u00e9", "\u00fc"], {"encoding": "latin-1"}, ["\u00e9", "\u00fc"]),
    ],
)
def test_static_attributes_are_read_as_rows_are(
    tmp_path: Path, cells: list[str], options: dict[str, Any], expected: list[Any]
) -> None:
    store, _ = static(tmp_path, cells, **options)
    assert (store.ids.tolist(), attribute(store, "a")) == (["01", "1"], expected)


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["1,5", "2,5"], "--decimal ,"),
        (["1e400", "2"], r"number 1e400 in column 'a'.*static.csv line 2"),
        (["1", "deep"], r"text 'deep' in number column 'a'.*static.csv line 3"),
        (['5"x', "6"], r"a quote stands inside an unquoted field.*static.csv line 2"),
        (["1;2", "6"], r"long row: 3 fields.*static.csv line 2"),
        (["nan(abc)", "6"], r"text 'nan\(abc\)'.*static.csv line 2"),
    ],
)
def test_static_attributes_are_refused_as_rows_are(tmp_path: Path, cells: list[str], problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        static(tmp_path, cells)
    assert not (tmp_path / "s.zarr").exists()


def test_digits_and_codes_of_static_attributes_are_noted(tmp_path: Path) -> None:
    store, receipt = static(tmp_path, ["9007199254740993", "2"])
    assert attribute(store, "a") == [9007199254740992.0, 2.0]
    assert any("static attribute a has 1 values with more digits than float64" in note for note in receipt.notes)
    _, receipt = static(tmp_path, ["01", "2"])
    assert any("static attribute a has codes such as '01'" in note for note in receipt.notes)


# Digits.


@given(
    digits=st.integers(1, 10**22),
    exponent=st.integers(-30, 12),
)
def test_digits_are_lost_if_the_float64_does_not_give_them_back(digits: int, exponent: int) -> None:
    from zstore.writing.sources.cells import lost_digits

    text = f"{digits}e{exponent}"
    exact = Decimal(text)
    significant = len(str(digits).rstrip("0"))
    assert lost_digits(text) == (Decimal(f"{float(text):.{significant - 1}e}") != exact)
    assert not (significant <= 15 and lost_digits(text))


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize(
    ("cell", "in_float32", "in_float64"),
    [
        ("9007199254740993", 1, 1),
        ("9007199254740992", 0, 0),
        ("18446744073709551615", 1, 1),
        ("1e-400", 1, 1),
        ("0.1000000000000000000000001", 1, 1),
        ("1.00000001", 1, 0),
        ("0.30000000000000004", 0, 0),  # noise of float64 arithmetic, not digits
        ("0.123456789012345678901", 1, 1),
        ("1.5", 0, 0),
        ("16777217", 1, 0),
        ("5.827000141143799", 0, 0),  # a float32 as float64 prints it
    ],
)
def test_digits_that_are_lost_are_counted(
    tmp_path: Path, cell: str, in_float32: int, in_float64: int, decimal: str
) -> None:
    text = "t;v\n" + "".join(f"{n};{c}\n" for n, c in enumerate(["2", cell.replace(".", decimal), "3", "0"]))
    for dtype, expected in (("float32", in_float32), ("float64", in_float64)):
        _, receipt = made(tmp_path, text, dtype=dtype, decimal=decimal, delimiter=";")
        assert receipt.channels[0].n_inexact == expected, dtype
        assert any("more digits than" in note for note in receipt.notes) == bool(expected)


def test_values_that_pack_though_they_have_more_digits_are_counted() -> None:
    assert observe_numbers(np.array([1.00000001, 2.0]), "float32").form.n_inexact == 1


def test_a_comparison_says_which_digits_it_cannot_see(tmp_path: Path) -> None:
    store, _ = made(tmp_path, "t,v\n1,9007199254740993\n2,1\n", dtype="float64")
    compared = compare_sources(store, [tmp_path / "rows.csv"])
    assert (compared.n_different, compared.n_inexact) == (0, 1)


# Lines, ceilings, empty stores.


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("how", [{"time": None, "freq": "1"}, {"time": None, "freq": "1", "layout": "wide"}])
def test_blank_lines_are_skipped_and_counted(tmp_path: Path, end: str, quoted: bool, how: dict[str, Any]) -> None:
    first = '"1"' if quoted else "1"
    text = end.join(["a,b", "", f"{first},2", "", "", "3,4", "", ""])
    store, receipt = made(tmp_path, text, **how)
    assert store.n_rows == (4 if "layout" in how else 2)
    assert "5 blank lines were skipped" in receipt.notes or "4 blank lines were skipped" in receipt.notes
    assert not np.isnan(values(store, store.channels[0])).any()


def test_a_blank_line_with_times_is_skipped_too_and_lines_stay_right(tmp_path: Path) -> None:
    store, receipt = made(tmp_path, "t,v\n1,2\n\n2,3\n\n")
    assert (store.n_rows, receipt.n_rows_in) == (2, 2)
    assert "2 blank lines were skipped" in receipt.notes
    with pytest.raises(SourceError, match=r"rows.csv line 2 and .*rows.csv line 4"):
        made(tmp_path, "t,v\n1,2\n\n1,3\n")
    with pytest.raises(SourceError, match=r"text 'x' in number column 'v'.* line 5"):
        made(tmp_path, "t,v\n1,2\n\n2,3\n3,x\n")


def test_a_blank_line_under_a_single_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a blank line in a file of one column.* line 3"):
        made(tmp_path, "v\n1\n\n2\n", time=None, freq="1")
    store, _ = made(tmp_path, 'v\n1\n""\n2\n', time=None, freq="1")
    np.testing.assert_array_equal(values(store), [1, np.nan, 2])


@pytest.mark.parametrize("time", ["2001-01-03Z", "2001-01-03T00:00:00+24:00", "9999-01-01T00:00:00.000000001"])
def test_a_row_that_only_arrow_refuses_is_set_aside_with_its_line(tmp_path: Path, time: str) -> None:
    zone = "Z" if "Z" in time or "+" in time else ""
    fraction = "T00:00:00.000000001" if "." in time else "T00:00:00"
    rows = "".join(f"2001-01-0{day}{fraction}{zone},{day}\n" for day in (1, 2, 4))
    _, receipt = made(tmp_path, f"t,v\n{rows}{time},3\n", on_bad_row="quarantine")
    assert receipt.n_rows_in == receipt.n_stored + receipt.n_quarantined == 4
    with open(tmp_path / "s.zarr.quarantine.csv") if receipt.n_quarantined else open("/dev/null") as file:
        lines = file.read().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == ["5"] * receipt.n_quarantined


def test_more_bad_rows_than_allowed_are_refused(tmp_path: Path) -> None:
    from zstore.writing.plan import most_bad

    text = "t,v\n" + "".join(f"{n},{'x' if n % 10 == 3 else n}\n" for n in range(100))
    _, receipt = made(tmp_path, text, on_bad_row="quarantine")
    assert receipt.n_quarantined == 10
    for most in (0.05, 9):
        with pytest.raises(SourceError, match=r"10 of 100 rows are bad, the first for this: text 'x' .* line 5"):
            made(tmp_path, text, on_bad_row="quarantine", max_bad_rows=most)
    for most in (0.1, 10):
        assert made(tmp_path, text, on_bad_row="quarantine", max_bad_rows=most)[1].n_stored == 90
    assert [most_bad(text) for text in ("20", "1%", "0.01", "1", "1.0")] == [20, 0.01, 0.01, 1, 1.0]
    assert isinstance(most_bad("1"), int)
    with pytest.raises(UsageError):
        most_bad("lots")


def test_a_damaged_header_and_a_file_without_rows_make_no_store(tmp_path: Path) -> None:
    for text, options in (
        ("t,v,\n1,2\n2,3\n", {"on_bad_row": "quarantine"}),
        ("t,v,\n1,2\n2,3\n", {"on_bad_row": "quarantine", "max_bad_rows": 1.0}),
        ("t,v\n", {}),
    ):
        with pytest.raises(SourceError):
            made(tmp_path, text, **options)
        assert not (tmp_path / "s.zarr").exists()


def test_a_dry_run_takes_options_that_name_static_attributes(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(ROWS)
    (tmp_path / "a.csv").write_bytes("id,a\n01,\u00e9\n1,NA\n".encode("latin-1"))
    words = ["ingest", str(tmp_path / "r.csv"), str(tmp_path / "s.zarr"), "--id", "id", "--time", "t", "--dry-run"]
    assert main([*words, "--static", str(tmp_path / "a.csv"), "--missing", "a=NA", "--encoding", "latin-1"]) == 0
    assert not (tmp_path / "s.zarr").exists()


def test_a_number_that_is_too_large_is_refused_beside_a_column_that_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="number 1e39 in column 'b'"):
        made(tmp_path, "t,a,b\n2024-01-01,1,2\n2024-01-02,oops,1e39\n", missing=["a=oops"])


@pytest.mark.parametrize("far", ["inf", "-inf", "3.4028235e38"])
def test_a_far_number_is_stored_beside_a_column_that_names_what_is_missing(tmp_path: Path, far: str) -> None:
    store, _ = made(tmp_path, f"t,a,b\n2024-01-01,1,{far}\n2024-01-02,oops,2\n", missing=["a=oops"])
    np.testing.assert_array_equal(store.series("0").read("a"), [1, np.nan])
    np.testing.assert_array_equal(store.series("0").read("b"), np.array([np.float32(far), 2], np.float32))
