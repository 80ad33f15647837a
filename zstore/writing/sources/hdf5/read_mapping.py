"""A mapping from what the user has written, checked key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from zstore.errors import UsageError
from zstore.writing.sources.hdf5.mapping import ID, ROWS, STEPS, TIME, UNITS, DataPath, FieldWay, Hdf5Mapping, TimeWay
from zstore.writing.sources.hdf5.presets import PRESETS
from zstore.yamlfiles import read_yaml

_KEYS = ("episodes", "id", "time", "channels", "vectors", "fields", "missing where", "statics", "splits")


class MappingError(ValueError):
    """A mapping that cannot be meant: its key, the value, and what is expected."""

    def __init__(self, key: str, value: Any, expected: str) -> None:
        super().__init__(key, value, expected)
        self.key, self.value, self.expected = key, value, expected


def mapping_text(given: Any) -> str:
    """A mapping as text, as a store records it.

    Parameters
    ----------
    given
        Name of a preset, path of a YAML or JSON file, a mapping, or such a text.

    Raises
    ------
    UsageError
        If it cannot be read, or a key has no meaning.
    """
    if isinstance(given, Mapping):
        document, where = dict(given), ""
    elif isinstance(given, str) and given in PRESETS:
        document, where = PRESETS[given], given
    elif isinstance(given, str) and given.startswith("{"):
        document, where = json.loads(given), ""
    else:
        where = str(given)
        if not Path(where).is_file():
            raise UsageError(
                f"--mapping {where}, which is no file",
                expected=f"one of {', '.join(PRESETS)}, or a YAML or JSON file",
                fix="zstore inspect FILE.h5 shows a mapping to start from",
            )
        document = read_yaml(where, "mapping")
    try:
        read_mapping(document)
        return json.dumps(document, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(error, MappingError):
            error = MappingError("", type(error).__name__, "plain names and values")
        raise UsageError(
            f"{error.key or 'document'} {error.value!r} in the mapping {where}".rstrip(),
            expected=error.expected,
            fix="correct it; zstore inspect FILE.h5 shows a mapping to start from",
        ) from None


@lru_cache(maxsize=16)
def mapping_of(text: str) -> Hdf5Mapping:
    """The mapping of a text from :func:`mapping_text`."""
    return read_mapping(json.loads(text))


def read_mapping(document: Mapping[str, Any]) -> Hdf5Mapping:
    """A mapping out of its document.

    Raises
    ------
    MappingError
        If a key or a value has no meaning.
    """
    _check_keys("", document, _KEYS)
    episodes = _path("episodes", document.get("episodes", "/"))
    if "*" in episodes[:-1]:
        raise MappingError("episodes", episodes, "a group, or GROUP/* for all groups in it")
    made = Hdf5Mapping(
        episodes=episodes,
        id=_id(document.get("id", "file")),
        time=_time(document.get("time", ROWS)),
        channels=dict(_data("channels", document.get("channels", {}))),
        vectors=dict(_data("vectors", document.get("vectors", {}))),
        fields=dict(_fields(document.get("fields", {}))),
        missing_where=tuple(_missing(document.get("missing where", {}))),
        **_statics(document.get("statics", "none")),
        splits=None if document.get("splits") is None else _path("splits", document["splits"]),
    )
    if not made.channels and not made.vectors:
        raise MappingError("", "without channels and vectors", "a data set of numbers, as in vectors: {qpos: qpos}")
    if made.id["of"] in ("group", "file/group") and not episodes.endswith("*"):
        raise MappingError("id", made.id["of"], "file, where each file is one episode")
    both = set(made.channels) & set(made.vectors) - {name for name in made.channels if "*" in name}
    for name in sorted(both):
        raise MappingError("vectors", name, "a name that is not among the channels")
    for name in made.missing_where:
        if name not in {*made.channels, *made.vectors} and not any("*" in n for n in (*made.channels, *made.vectors)):
            raise MappingError("missing where", name, "a name of the channels or vectors")
    return made


def _check_keys(key: str, document: Any, known: tuple[str, ...]) -> None:
    if not isinstance(document, Mapping):
        raise MappingError(key, document, f"names and values, with names of {', '.join(known)}")
    for name in document:
        if name not in known:
            raise MappingError(f"{key} key".strip(), name, f"one of {', '.join(known)}")


def _path(key: str, value: Any) -> str:
    parts = value.split("/") if isinstance(value, str) else [".."]
    if not value or {".", ".."} & set(parts) or "\0" in value or "" in parts[1:-1]:
        raise MappingError(key, value, "a path of groups with / between")
    return str(value) if value == "/" else str(value).rstrip("/")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise MappingError(key, value, "a text")
    return value


def _pattern(key: str, value: Any) -> str:
    try:
        compiled = re.compile(_text(key, value))
    except re.error:
        raise MappingError(key, value, "a regular expression") from None
    if not compiled.groups:
        raise MappingError(key, value, "a regular expression with a group, as in '(?P<user>u\\d+)_'")
    return str(value)


def _id(value: Any) -> dict[str, str]:
    if value in ("file", "group", "file/group"):
        return {"of": value}
    _check_keys("id", value, ("attribute", "pattern"))
    if len(value) != 1:
        raise MappingError("id", value, "file, group, file/group, {attribute: NAME} or {pattern: REGEX}")
    ((kind, text),) = value.items()
    return {"of": kind, "text": (_pattern if kind == "pattern" else _text)(f"id {kind}", text)}


def _time(value: Any) -> TimeWay:
    if value == ROWS:
        return TimeWay()
    _check_keys("time", value, ("data", "member", "rate", "unit"))
    rate, unit = value.get("rate"), value.get("unit", STEPS)
    good = rate is None or (isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate <= 1e9)
    if not good:
        raise MappingError("time rate", rate, "rows a second, as in rate: 2000")
    if unit not in (*UNITS, STEPS) or (rate is not None and "unit" in value):
        raise MappingError("time unit", unit, f"one of {', '.join((*UNITS, STEPS))}, and no rate")
    if "data" not in value:
        if rate is None or "member" in value or "unit" in value:
            raise MappingError("time", dict(value), "rows, {rate: N}, or the data set of times as {data: PATH, …}")
        return TimeWay(rate=float(rate))
    data = _data_path("time", {name: value[name] for name in ("data", "member") if name in value})
    return TimeWay(data, None if rate is None else float(rate), unit)


def _data(key: str, value: Any) -> Iterator[tuple[str, DataPath]]:
    if not isinstance(value, Mapping):
        raise MappingError(key, value, "names and their data sets, as in {qpos: observations/qpos}")
    for name, way in value.items():
        yield _name(key, name, path := _data_path(f"{key} {name}", way)), path


def _name(key: str, name: Any, data: DataPath) -> str:
    text = _text(key, name)
    if text in (ID, TIME):
        raise MappingError(key, name, f"another name than {ID} and {TIME}, which every store has")
    if ("*" in text) != data.path.endswith("*") or text.count("*") > 1:
        raise MappingError(key, f"{name}: {data.path}", "a * in the name and at the end of the path, or in neither")
    return text


def _data_path(key: str, value: Any) -> DataPath:
    if isinstance(value, str):
        value = {"data": value}
    _check_keys(key, value, ("data", "member", "optional"))
    path = _path(key, value.get("data"))
    if "*" in path[:-1] or (path.endswith("*") and not path.endswith("/*") and path != "*"):
        raise MappingError(key, path, "a path; * stands only for its whole last part")
    member, optional = value.get("member"), value.get("optional", path.endswith("*"))
    if not isinstance(optional, bool):
        raise MappingError(f"{key} optional", optional, "true or false")
    return DataPath(path, None if member is None else _text(f"{key} member", member), optional)


def _fields(value: Any) -> Iterator[tuple[str, FieldWay]]:
    if not isinstance(value, Mapping):
        raise MappingError("fields", value, "names and their data sets, as in {image: images}")
    for name, way in value.items():
        if isinstance(way, str):
            way = {"data": way}
        key = f"fields {name}"
        _check_keys(key, way, ("data", "optional", "dimensions", "lengths", "when", "units"))
        data = _data_path(key, {part: way[part] for part in ("data", "optional") if part in way})
        dimensions = way.get("dimensions", [])
        if not isinstance(dimensions, list) or not all(isinstance(each, str) and each for each in dimensions):
            raise MappingError(f"{key} dimensions", dimensions, "a list of names, as in [y, x, colour]")
        lengths = None if way.get("lengths") is None else _path(f"{key} lengths", way["lengths"])
        when, units = (None if way.get(k) is None else _text(f"{key} {k}", way[k]) for k in ("when", "units"))
        yield _name("fields", name, data), FieldWay(data, tuple(dimensions), lengths, when, units)


def _missing(value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        raise MappingError("missing where", value, "names and what means missing, as in {joint_angles: all zero}")
    for name, rule in value.items():
        if rule != "all zero":
            raise MappingError(f"missing where {name}", rule, "all zero")
        yield _text("missing where", name)


def _statics(value: Any) -> dict[str, Any]:
    if value in ("attributes", "none", None):
        return {"attributes": None if value == "attributes" else (), "pattern": None}
    _check_keys("statics", value, ("attributes", "pattern"))
    names = value.get("attributes", [])
    if names != "all" and (not isinstance(names, list) or not all(isinstance(each, str) and each for each in names)):
        raise MappingError("statics attributes", names, "all, or a list of names")
    pattern = None if value.get("pattern") is None else _pattern("statics pattern", value["pattern"])
    if pattern is not None and not re.compile(pattern).groupindex:
        raise MappingError("statics pattern", pattern, "a regular expression with named groups, as in (?P<user>u\\d+)")
    return {"attributes": None if names == "all" else tuple(names), "pattern": pattern}
