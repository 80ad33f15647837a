"""Public data sets by name: downloaded once, compared with their digests, or taken from a mirror."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from zstore.errors import SourceError, UsageError
from zstore.format.outside import check_outside
from zstore.progress import Report

_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_TGCN = "https://raw.githubusercontent.com/lehaifeng/T-GCN/master/data"
_DCRNN = "https://raw.githubusercontent.com/liyaguang/DCRNN/master/data/sensor_graph"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class RemoteFile:
    """One file.

    Parameters
    ----------
    url
        Where it is published.
    sha256
        64 hex digits.
    n_bytes
        Its size.
    """

    url: str
    sha256: str
    n_bytes: int

    @property
    def name(self) -> str:
        """The last part of its address."""
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True)
class PublicDataset:
    """A data set that anybody may download.

    Parameters
    ----------
    about
        What it is.
    licence, source
        Of its authors; whom to cite.
    files
        What is downloaded.
    ingest
        What to type next, with ``{folder}`` for where the files are.
    """

    about: str
    licence: str
    source: str
    files: tuple[RemoteFile, ...]
    ingest: str


def _ett(name: str, every: str, n_rows: int, sha256: str, n_bytes: int) -> PublicDataset:
    return PublicDataset(
        f"electricity transformer temperature and loads, {n_rows:,} rows, {every}",
        "CC BY-ND 4.0",
        "Zhou et al. 2021, Informer (AAAI)",
        (RemoteFile(f"{_ETT}/{name}.csv", sha256, n_bytes),),
        f"zstore ingest {{folder}}/{name}.csv {name.lower()}.zarr --time date",
    )


DATASETS = {
    "etth1": _ett(
        "ETTh1", "hourly", 17_420, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066", 2_589_657
    ),
    "etth2": _ett(
        "ETTh2", "hourly", 17_420, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b", 2_417_960
    ),
    "ettm1": _ett(
        "ETTm1",
        "quarter-hourly",
        69_680,
        "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
        10_360_719,
    ),
    "ettm2": _ett(
        "ETTm2", "quarter-hourly", 69_680, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd", 9_677_236
    ),
    "metr_la_week": PublicDataset(
        "METR-LA: speeds of 207 sensors in a week, 2,016 steps of five minutes, and where the sensors are",
        "MIT",
        "Li et al. 2018, DCRNN (ICLR); the week is that of Zhao et al. 2019, T-GCN",
        (
            RemoteFile(
                f"{_TGCN}/los_speed.csv",
                "7b732d86ae32b2930595becba28aff39dacbfb2197e250fc0332e1744ce2cbf4",
                3_402_125,
            ),
            RemoteFile(
                f"{_DCRNN}/graph_sensor_locations.csv",
                "eb8ea96e07358b45d0e4ba3b89c2673fa20c54af50150249e627389e749ade6f",
                6_341,
            ),
        ),
        "zstore ingest {folder}/los_speed.csv metr_la.zarr --layout wide --start 2012-03-01 --freq 5min "
        "--value-name speed --static {folder}/graph_sensor_locations.csv",
    ),
}
"""By name; names come from here alone, never from data."""


def fetch(
    name: str, folder: str | Path = "data", mirror: str | None = None, progress: Report | None = None
) -> list[Path]:
    """Have the files of a public data set in a folder.

    Parameters
    ----------
    name
        Of the data set. One of ``DATASETS``.
    folder
        Where its files go. Made if it is not there.
    mirror
        Folder, or the address of one, that has the files; None for ``$ZSTORE_MIRROR``, or where they are published. By
        the same names.
    progress
        Called with bytes done and in all.

    Returns
    -------
    Their paths. What is there already, and whole, is left as it is.

    Raises
    ------
    UsageError
        If there is no such data set, or the folder has another file of the same name.
    SourceError
        If a file cannot be had, or is not the one that was published. Nothing is left of it.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise UsageError(f"data set {name!r}", expected=f"one of {', '.join(DATASETS)}")
    mirror = mirror or os.environ.get("ZSTORE_MIRROR")
    total, done, found = sum(file.n_bytes for file in dataset.files), 0, []
    check_outside(folder, "--to")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in dataset.files:
        path = Path(folder) / file.name
        if not path.exists():
            _bring(file, path, mirror, _Bytes(progress, name, done, total))
        elif _digest(path) != file.sha256:
            raise UsageError(
                f"{path} is not the file that was published", expected=f"sha256 {file.sha256}", fix="another --to"
            )
        done += file.n_bytes
        if progress is not None:
            progress(name, done, total, "bytes")
        found.append(path)
    return found


def _bring(file: RemoteFile, path: Path, mirror: str | None, shown: _Bytes) -> None:
    """From the mirror, or from where it is published, to a path: whole, or not at all."""
    if mirror is not None and urlsplit(mirror).scheme not in ("http", "https"):
        _copy(file, path, Path(mirror))
        return
    import pooch  # with requests a fifth of a second
    import requests

    url = file.url if mirror is None else f"{mirror.rstrip('/')}/{file.name}"
    pooch.get_logger().setLevel("WARNING")
    try:
        download = pooch.HTTPDownloader(progressbar=shown, timeout=_TIMEOUT_S)
        pooch.retrieve(url, f"sha256:{file.sha256}", fname=file.name, path=path.parent, downloader=download)
    except requests.exceptions.RequestException as error:
        raise SourceError(
            f"cannot download {file.name} ({_reason(error)})",
            expected="an answer",
            where=_without_password(url),
            fix=f"download {file.url} elsewhere and name its folder: --mirror FOLDER",
        ) from error
    except ValueError as error:  # pooch: the digest is another one
        raise _another(file, _without_password(url)) from error


def _copy(file: RemoteFile, path: Path, mirror: Path) -> None:
    source = mirror / file.name
    if not source.is_file():
        raise SourceError(
            f"no {file.name} in the mirror {mirror}", expected="that file", fix=f"download {file.url} there"
        )
    part = path.with_name(path.name + ".part")
    try:
        shutil.copyfile(source, part)
        if _digest(part) != file.sha256:
            raise _another(file, str(source))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _another(file: RemoteFile, where: str) -> SourceError:
    return SourceError(
        f"{file.name} is not the file that was published, or is damaged",
        expected=f"sha256 {file.sha256}",
        where=where,
        fix="try again, or --mirror",
    )


def _reason(error: Exception) -> str:
    """The innermost cause, which names it in a few words."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return _without_password(str(error)) or type(error).__name__


def _without_password(text: str) -> str:
    """A text in which no URL names a user and a password."""
    return re.sub(r"://[^/\s@]*@", "://", text)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Bytes:
    """A progress bar as pooch wants one: bytes of one file, among those of all."""

    def __init__(self, progress: Report | None, name: str, before: int, all_bytes: int) -> None:
        self._progress, self._name, self._before, self._all, self._done = progress, name, before, all_bytes, 0
        self.total = 0

    def update(self, n_bytes: int) -> None:
        """So many more."""
        self._done += n_bytes
        if self._progress is not None:
            self._progress(self._name, min(self._before + self._done, self._all), self._all, "bytes")

    def reset(self) -> None:
        """From the beginning."""
        self._done = 0

    def close(self) -> None:
        """Nothing more will come."""
