"""Every refusal of an ingest names the value, the place and the remedy."""

import inspect
import re
import traceback
from pathlib import Path
from typing import Any

import pytest

import zstore
from zstore import SourceError, UsageError, WindowShape, ZstoreError, ingest
from zstore.cli import COMMANDS
from zstore.in_python import NOT_IN_PYTHON, OTHERWISE, SWITCHES

ROWS = "id,t,v\na,1,1.5\nb,1,2\n"
BY_ID: dict[str, Any] = {"id": "id", "time": "t"}


def refusal(tmp_path: Path, files: dict[str, bytes | str], source: str, **options: Any) -> ZstoreError:
    """The error of an ingest that must be refused and leave nothing."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.iterdir())
    if "static" in options:
        options["static"] = tmp_path / options["static"]
    with pytest.raises(ZstoreError) as caught:
        ingest(tmp_path / source, tmp_path / "s.zarr", **options)
    assert sorted(tmp_path.iterdir()) == before
    return caught.value


@pytest.mark.parametrize(
    ("files", "source", "options", "value", "place", "remedy"),
    [
        ({}, "*.csv", BY_ID, "no file matches", "*.csv", "check the pattern"),
        ({}, "a.csv", BY_ID, "no such file", "a.csv", "check the path"),
        ({}, ".", BY_ID, "not a file", "", "name its files"),
        ({"a.csv": ""}, "a.csv", BY_ID, "empty file", "a.csv", "leave it out"),
        ({"a.csv": '"id,t,v\n'}, "a.csv", BY_ID, "unreadable header", "a.csv line 1", "correct the header"),
        ({"a.csv": "id,t,t\na,1,2\n"}, "a.csv", BY_ID, "column 't' stands 2 times", "a.csv line 1", "rename one"),
        ({"a.csv": "id,t\na,1\n"}, "a.csv", BY_ID, "no channel", "a.csv line 1", "--leave-out"),
        ({"a.csv": "id,t,v\na,soon,1\n"}, "a.csv", BY_ID, "unreadable time 'soon'", "a.csv line 2", "--time-format"),
        ({"a.csv": ROWS}, "a.csv", {"id": "site", "time": "t"}, "no column 'site'", "a.csv line 1", "with --id"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "categories": ["w"]}, "no column 'w'", "a.csv line 1", "--categories"),
        ({"a.csv": ROWS}, "a.csv", {"id": "id"}, "no time column", "", "--time"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "freq": "daily"}, "frequency 'daily'", "", "--freq"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "codec": "zip"}, "codec 'zip'", "", "--codec"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "encoding": "klingon"}, "encoding 'klingon'", "", "--encoding"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "delimiter": "::"}, "delimiter '::'", "", "--delimiter"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "workers": 0}, "0 workers", "", "--workers"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "time_unit": "weeks"}, "--time-unit 'weeks'", "", "--time-unit"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "time_format": "%H"}, "--time-format '%H'", "", "as in '%d.%m.%Y"),
        (
            {"a.csv": ROWS},
            "a.csv",
            {"time": "t", "id_from_path": "x(.)"},
            "no id in the path",
            "a.csv",
            "--id-from-path",
        ),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "rename": {"t": "t2"}}, "--rename of 't'", "", "leave it out"),
        ({"a.csv": ROWS}, "a.csv", {**BY_ID, "static": "no.csv"}, "no such file", "no.csv", "--static"),
        (
            {"a.csv": ROWS, "k.csv": "site,x\na,1\n"},
            "a.csv",
            {**BY_ID, "static": "k.csv"},
            "no column 'id' in the static attributes",
            "k.csv line 1",
            "name the id column",
        ),
        (
            {"a.csv": ROWS, "k.csv": "id,x\na,1\na,2\n"},
            "a.csv",
            {**BY_ID, "static": "k.csv"},
            "id 'a' stands 2 times",
            "k.csv",
            "keep one",
        ),
        (
            {"a.csv": "id,t,v\na,1,1e39\n"},
            "a.csv",
            BY_ID,
            "number 1e39 in column 'v'",
            "a.csv line 2",
            "--dtype float64",
        ),
        (
            {"a.csv": "id,t,v\na,1,1_000\na,2,5\n"},
            "a.csv",
            BY_ID,
            "text '1_000' in number column 'v'",
            "a.csv line 2",
            "clean",
        ),
        ({"a.csv": b"id,t,v\na,1,\xff\n"}, "a.csv", BY_ID, "", "a.csv line 2", "clean the file"),
        ({"a.csv.gz": b"\x1f\x8bnope"}, "a.csv.gz", BY_ID, "damaged file", "a.csv.gz", "fetch the file again"),
        ({"a.csv.zst": b"nope"}, "a.csv.zst", BY_ID, "damaged file", "a.csv.zst", "fetch the file again"),
        ({"a.csv": b"id,t,v\na,1,\xff\n"}, "a.csv", {**BY_ID, "encoding": "ascii"}, "not ascii", "a.csv", "--encoding"),
        (
            {"a.csv": "v\n1\n2\n"},
            "a.csv",
            {"freq": "1", "on_bad_row": "quarantine"},
            "quarantine without a time column",
            "",
            "--time",
        ),
        (
            {"a.csv": "y,m,d,h,v\n2021,3,28,2,1\n2021,3,28,3,1\n"},
            "a.csv",
            {"time": ["y", "m", "d", "h"], "timezone": "Europe/Berlin"},
            "time '2021-3-28-2' in columns y, m, d, h, which Europe/Berlin has not at all",
            "a.csv line 2",
            "an offset from UTC",
        ),
        ({"a.csv": "t,v\n0,1\n1,1\n9,1\n13,1\n"}, "a.csv", {"time": "t", "fill_gaps": True}, "irregular", "", "--freq"),
        (
            {"a.csv": "t,v\n0,1\n2,1\n4,1\n5,1\n7,1\n"},
            "a.csv",
            {"time": "t", "fill_gaps": True},
            "time 5 of id '0'",
            "",
            "--freq",
        ),
    ],
)
def test_a_refusal_names_value_place_and_remedy(
    tmp_path: Path,
    files: dict[str, bytes | str],
    source: str,
    options: dict[str, Any],
    value: str,
    place: str,
    remedy: str,
) -> None:
    error = refusal(tmp_path, files, source, **options)
    assert value in error.what
    assert place in str(error)
    assert remedy in f"{error.expected} {error.fix}"
    assert error.expected, "says what was expected"
    assert re.search(r"Fix: .", str(error))
    assert error.exit_code == (2 if isinstance(error, UsageError) else 1)
    assert isinstance(error, (SourceError, UsageError))


@pytest.mark.parametrize(
    ("fix", "told"),
    [
        ("drop it", "Fix: drop it."),
        ("drop --decimal or --thousands", "Fix: drop --decimal or --thousands."),
        ("as in --decimal ,", "Fix: as in --decimal ,"),
        ("--on-duplicate last", "Fix: --on-duplicate last"),
        ("pip install 'zstore[sql]'", "Fix: pip install 'zstore[sql]'"),
        ("with: zstore ingest SRC STORE --time date", "Fix: with: zstore ingest SRC STORE --time date"),
    ],
)
def test_no_full_stop_touches_what_is_to_be_typed(fix: str, told: str) -> None:
    assert str(UsageError("x", fix=fix)) == f"x. {told}"


def test_a_traceback_tells_callers_in_python_which_arguments_are_meant(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ROWS)
    ingest(tmp_path / "a.csv", tmp_path / "s.zarr", **BY_ID)
    with pytest.raises(ZstoreError) as twice:
        ingest(tmp_path / "a.csv", tmp_path / "s.zarr", **BY_ID)
    *_, last = "".join(traceback.format_exception(twice.value)).splitlines()
    assert last == "In Python: zstore.append() for --append, overwrite=True for --overwrite."
    assert "In Python" not in str(twice.value)
    with pytest.raises(UsageError) as of_data:
        WindowShape(lookback=0, horizon=1)
    assert of_data.value.__notes__ == ["In Python: lookback=… of data for --data.lookback."]
    assert not hasattr(UsageError("no option at all; --debug shows more"), "__notes__")


def test_every_option_of_a_command_is_an_argument_in_python_or_said_to_be_none() -> None:
    public = [value for name in zstore.__all__ if callable(value := getattr(zstore, name))]
    methods = [each for value in public for each in vars(value).values() if inspect.isfunction(each)]
    known, switches = set(), set()
    for function in [*public, *methods]:
        for name, parameter in inspect.signature(function).parameters.items():
            known.add(name)
            if parameter.default is False and function in public:
                switches.add(name)
    assert switches - {"quiet"} == SWITCHES
    flags = {
        word.lstrip("-")
        for name in ("ingest", "inspect", "export", "compact", "gc", "verify", "rollback", "show", "log", "fetch")
        for action in COMMANDS[name].parser()._actions
        for word in action.option_strings
    }
    unknown = {flag for flag in flags - {"h"} if flag.replace("-", "_") not in known}
    assert unknown <= NOT_IN_PYTHON | set(OTHERWISE)
