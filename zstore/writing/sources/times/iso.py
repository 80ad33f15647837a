"""Dates and times as ISO 8601 writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from zstore.writing.sources.times.formats import moment_in

UNITS = ("s", "ms", "us", "ns")

ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[ T](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?)?"
    r"(?P<zone>Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def read_iso(text: str, unit: str, zone: bool) -> int | None:
    """An ISO date, or date and time.

    Parameters
    ----------
    text
        ``YYYY-MM-DD``, and behind ``T`` or a space ``hh``, ``hh:mm``, ``hh:mm:ss`` or ``hh:mm:ss.f…``; behind that
        ``Z``, ``+hh``, ``+hhmm`` or ``+hh:mm`` if `zone`.
    unit
        ``s``, ``ms``, ``us`` or ``ns``.
    zone
        Whether it has an offset from UTC.

    Returns
    -------
    Whole units since 1970-01-01 (UTC if `zone`); None where there is no such time, or it is finer than `unit`. Zeros
    behind a fraction are nothing.
    """
    match = ISO.fullmatch(text)
    if match is None or (match["zone"] is not None) != zone:
        return None
    try:
        day = datetime.fromisoformat(match["day"]).replace(tzinfo=UTC)
        clock = [int(match[name] or 0) for name in ("hour", "minute", "second")]
        moment = day.replace(hour=clock[0], minute=clock[1], second=clock[2])
    except ValueError:
        return None
    fraction, digits = (match["fraction"] or "").rstrip("0"), 3 * UNITS.index(unit)
    if len(fraction) > digits:
        return None
    seconds = moment_in(moment, "s")
    if zone and match["zone"] != "Z":
        hours, minutes = int(match["zone"][1:3]), int(match["zone"][3:].lstrip(":") or 0)
        seconds -= int(match["zone"][0] + "1") * (hours * 3600 + minutes * 60)
    return seconds * int(10**digits) + int(fraction.ljust(digits, "0") or 0)
