"""CSV files that are more than a header and records with a delimiter: preambles, comments, units, widths, spaces."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import stored
from hypothesis import given
from hypothesis import strategies as st

from zstore import SourceError, UsageError, append, ingest, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.planner import plan_ingest
from zstore.writing.sources.csv.framing import Framing
from zstore.writing.sources.csv.records import plain_records, split_fields, split_records
from zstore.writing.sources.refused import RefusedError

PREAMBLE = """Station: 123
# made today, "quoted
#

time,flow,level
-,m3/s,m
14n,5s,3d
2001-01-01,1.5,2
# a "comment
2001-01-02,,3
2001-01-03,2.5,4
"""
ABOVE = {"skip_lines": 1, "comment": "#", "units_row": True, "skip_below_header": 1}
AS_PLAIN = "time,flow,level\n2001-01-01,1.5,2\n2001-01-02,,3\n2001-01-03,2.5,4\n"


def channels(path: Path) -> dict[str, list[float]]:
    store = open_store(path)
    return {name: store.read(name, 0, store.n_rows).tolist() for name in store.channels}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (PREAMBLE, ABOVE),
        (PREAMBLE.replace("\n", "\r\n"), ABOVE),
        ("2001-01-01,1.5,2\n2001-01-02,,3\n2001-01-03,2.5,4", {"no_header": True, "names": ["time", "flow", "level"]}),
        ("  time   flow level \n2001-01-01 1.5 2\n 2001-01-02  NA\t3\n\n2001-01-03 2.5  4  ", {"delimiter": "spaces"}),
        (
            "2001-01-01  1.52\n2001-01-02     3\n2001-01-03  2.54\n",
            {"widths": [10, 5, 1], "no_header": True, "names": ["time", "flow", "level"]},
        ),
        (
            "time      flow level\n2001-01-01 1.5 2\n2001-01-02     3 \n\n2001-01-03 2.5 4",
            {"widths": [10, 5, "*"]},
        ),
    ],
)
def test_a_table_in_another_frame_is_the_same_store_as_plain_csv(
    text: str, options: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "plain.csv").write_text(AS_PLAIN)
    path = tmp_path / "framed.csv"
    path.write_bytes(text.encode())
    ingest(tmp_path / "plain.csv", tmp_path / "plain.zarr", time="time")
    ingest(path, tmp_path / "framed.zarr", time="time", blocksize=1, **options)  # type: ignore[arg-type]
    plain, framed = stored(tmp_path / "plain.zarr"), stored(tmp_path / "framed.zarr")
    same = {key for key in plain if "manifest" not in key and not key.endswith("zarr.json")}
    assert {key: plain[key] for key in same} == {key: framed[key] for key in same}
    assert compare_sources(open_store(tmp_path / "framed.zarr"), [path]).n_different == 0
    assert plan_ingest(path, time="time", **options).n_rows == 3  # type: ignore[arg-type]


def test_units_below_the_header_are_those_of_the_channels_and_flags_win(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PREAMBLE)
    ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="time", units={"level": "cm"}, **ABOVE)  # type: ignore[arg-type]
    assert [channel.units for channel in open_store(tmp_path / "a.zarr").schema.channels] == ["m3/s", "cm"]


def test_files_of_different_units_are_not_made_one_channel(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,flow\n-,m3/s\n2001-01-01,1\n")
    (tmp_path / "b.csv").write_text("time,flow\n-,cfs\n2001-01-02,1\n")
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(SourceError, match="unit 'cfs' of column 'flow'; expected 'm3/s', as in"):
        ingest(files, tmp_path / "a.zarr", time="time", units_row=True)
    ingest(files, tmp_path / "a.zarr", time="time", units_row=True, units={"flow": "m3/s"})
    ingest(files[0], tmp_path / "b.zarr", time="time", units_row=True)
    with pytest.raises(SourceError, match="unit 'cfs' of channel 'flow', which has m3/s"):
        append(files[1], tmp_path / "b.zarr")


def test_a_bad_row_is_named_by_its_line_in_the_file_and_set_aside_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PREAMBLE + "2001-01-04,x,4\n")
    with pytest.raises(SourceError, match=r"a\.csv line 12: '2001-01-04,x,4'"):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="time", **ABOVE)  # type: ignore[arg-type]
    (tmp_path / "b.txt").write_text('t  x\n\n1   2\n 2  3   4\n3 5\n4 "6"\n')
    ingest(tmp_path / "b.txt", tmp_path / "b.zarr", time="t", delimiter="spaces", on_bad_row="quarantine")
    assert channels(tmp_path / "b.zarr") == {"x": [2, 5]}
    aside = (tmp_path / "b.zarr.quarantine.csv").read_text()
    assert "line 4" in aside.replace(",4,", " line 4 ")
    assert " 2  3   4" in aside


@pytest.mark.parametrize("seed", range(3))
def test_comments_with_quotes_and_quoted_fields_are_cut_into_blocks_of_any_size_alike(
    seed: int, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    lines, rows = [], []
    for n in range(60):
        if draw.random() < 0.3:
            lines.append(draw.choice(['# "', '#,"a', "#", '#","', '# a,"b"']))
        word = draw.choice(["a", 'b"c', "d\n# e", "f,g"])
        rows.append(word)
        lines.append(f'{n},"{word.replace(chr(34), chr(34) * 2)}",{n}')
    (tmp_path / "a.csv").write_text("t,word,x\n" + "\n".join(lines) + "\n")
    for size in (1, 40, 300, None):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="t", comment="#", blocksize=size, overwrite=True)
        store = open_store(tmp_path / "a.zarr")
        words = next(channel for channel in store.schema.channels if channel.name == "word").categories
        assert [words[code] for code in store.read("word", 0, 60).astype(int)] == rows
    assert compare_sources(open_store(tmp_path / "a.zarr"), [tmp_path / "a.csv"]).n_different == 0


def test_new_rows_are_read_as_the_store_was(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PREAMBLE)
    (tmp_path / "b.csv").write_text(PREAMBLE.replace("2001-01", "2001-02"))
    ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="time", **ABOVE)  # type: ignore[arg-type]
    append(tmp_path / "b.csv", tmp_path / "a.zarr")
    assert channels(tmp_path / "a.zarr")["level"] == [2, 3, 4, 2, 3, 4]
    assert open_store(tmp_path / "a.zarr").objects.document["table"]["comment"] == "#"


def test_a_store_of_plain_csv_records_none_of_the_newer_options(csv: Path, tmp_path: Path) -> None:
    ingest(csv, tmp_path / "a.zarr", id="site", time="date")
    assert not {"skip_lines", "comment", "names"} & set(open_store(tmp_path / "a.zarr").objects.document["table"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a"]}, "--no-header with --names"),
        ({"no_header": True}, "expected 3 names"),
        ({"no_header": True, "names": ["time", "b"]}, "2 names in --names; expected 3 names"),
        ({"no_header": True, "names": ["time", "a", "a"]}, "'a' stands twice"),
        ({"no_header": True, "units_row": True, "names": ["time", "a", "b"]}, "--units-row with --no-header"),
        ({"widths": [3]}, "several columns"),
        ({"widths": ["*", 3]}, "as in --widths"),
        ({"widths": [3, 4], "delimiter": ","}, "expected one of them"),
        ({"comment": ""}, "as in --comment '#'"),
        ({"skip_lines": -1}, "a number of lines"),
    ],
)
def test_contradictions_about_the_first_lines_are_named(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(AS_PLAIN)
    with pytest.raises(UsageError, match=message):
        ingest(tmp_path / "a.csv", tmp_path / "a.zarr", time="time", **options)  # type: ignore[arg-type]


def test_the_command_takes_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PREAMBLE)
    flags = ["--skip-lines", "1", "--comment", "#", "--units-row", "--skip-below-header", "1", "--time", "time"]
    assert main(["ingest", str(tmp_path / "a.csv"), str(tmp_path / "a.zarr"), *flags]) == 0
    (tmp_path / "b.txt").write_text("2001-01-01 1\n2001-01-02 2\n")
    flags = ["--no-header", "--names", "time,x", "--widths", "10,2", "--time", "time"]
    assert main(["ingest", str(tmp_path / "b.txt"), str(tmp_path / "b.zarr"), *flags]) == 0
    assert channels(tmp_path / "b.zarr") == {"x": [1, 2]}


LINES = st.lists(st.text(alphabet='a1 \t.#"\r\x1fé', max_size=9), max_size=6)


def fast(content: bytes, framing: Framing) -> list[list[str] | None]:
    """The fields that stand in the plain CSV of a block, blank lines left out."""
    plain = plain_records(content, str(framing.delimiter), framing)
    lines = [line.removesuffix("\r") for line in plain.decode().split("\n")]
    return [split_fields(line.encode(), str(framing.delimiter))[0] for line in lines if line]


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_runs_of_spaces_are_cut_for_whole_blocks_as_for_each_line(lines: list[str], end: str, closed: bool) -> None:
    agree(lines, end, closed, Framing(comment="#", spaces=True))


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from([(2, 3), (1, 1, 2), (2, None)]))
def test_widths_are_cut_for_whole_blocks_as_for_each_line(
    lines: list[str], end: str, closed: bool, widths: Sequence[int | None]
) -> None:
    agree(lines, end, closed, Framing(comment="#", widths=tuple(widths)))


@given(st.lists(st.text(alphabet="a1 .", min_size=5, max_size=5), max_size=6))
def test_lines_of_one_width_are_cut_for_whole_blocks_as_for_each_line(lines: list[str]) -> None:
    agree(lines, "\n", True, Framing(widths=(2, 1, 2)))


def agree(lines: list[str], end: str, closed: bool, framing: Framing) -> None:
    """Either every record is read alike, or the block is left to the strict reader."""
    content = (end.join(lines) + (end if closed else "")).encode()
    strict = [record.fields for record in split_records(content, " ", 0, 1, framing) if record.fields != []]
    try:
        made = fast(content, framing)
    except RefusedError:
        assert None in strict
        return
    if None not in strict:
        assert strict == [fields for fields in made if fields != [""] or framing.widths == ()]
    else:
        assert b"\r" in content or any(fields is None or len(fields) != len(framing.widths) for fields in made)


@pytest.mark.parametrize("options", [{"delimiter": "spaces"}, {"widths": [1, 11, 4]}])
def test_a_quote_where_lines_are_records_spoils_its_line_alone_in_blocks_of_any_size(
    options: dict[str, object], tmp_path: Path
) -> None:
    rows = [f"{id_} 2001-01-{day:02} 1.{day}" for id_ in "ab" for day in range(1, 8)]
    rows[3] = rows[3].replace("1.", '1"')
    (tmp_path / "a.csv").write_text("\n".join(["i time      xx.x", *rows]) + "\n")
    for size in (1, 20, 50, None):
        ingest(
            tmp_path / "a.csv",
            tmp_path / "a.zarr",
            id="i",
            time="time",
            blocksize=size,
            on_bad_row="quarantine",
            overwrite=True,
            **options,  # type: ignore[arg-type]
        )
        assert open_store(tmp_path / "a.zarr").n_rows == len(rows) - 1
