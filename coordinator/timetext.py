"""Times and lengths of time as text, both ways: what people write and what answers say.

Inside everything is integer milliseconds; this is the one place where they become text. It asks no clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from coordinator.api_types.units import Timestamp
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNITS_MS = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|w)")
_NUMBER = re.compile(r"-?[0-9]{1,17}(?:\.[0-9]{1,9})?")
_LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: nothing later has a four-digit year."""


def to_text(ms: Ms) -> Timestamp:
    """RFC 3339 in UTC with milliseconds: `2026-11-22T04:31:05.123Z`. Exact; years 1970 to 9999."""
    seconds, rest = divmod(ms, SECOND_MS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def optional_text(ms: Ms | None) -> Timestamp | None:
    """`to_text`, for a time that may not have come."""
    return None if ms is None else to_text(ms)


def parse_time(text: str) -> Ms:
    """Unix seconds (`1547399272`, `1547399272.5`) or ISO 8601 with a zone, to the nearest millisecond.

    ValueError says what is wrong. A time without a zone is refused: whose zone it is cannot be known.
    """
    if _NUMBER.fullmatch(text):
        return _in_range(round(float(text) * SECOND_MS), text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{_shown(text)} is neither Unix seconds nor ISO 8601") from None
    if moment.tzinfo is None:
        raise ValueError(f"{_shown(text)} has no time zone: add Z or an offset such as +02:00")
    try:
        whole = round(moment.timestamp() * SECOND_MS)
    except OverflowError:
        raise ValueError(f"{_shown(text)} is not a time between the years 1970 and 9999") from None
    return _in_range(whole, text)


def _in_range(ms: Ms, text: str) -> Ms:
    if 0 <= ms <= _LAST_MS:
        return ms
    raise ValueError(f"{_shown(text)} is not a time between the years 1970 and 9999")


def parse_duration(text: str) -> Ms:
    """`30s 5m 8h 7d` (also `ms`, `w` and decimals: `1.5h`) as milliseconds; ValueError says what is wrong."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{_shown(text)} is not a length of time: write a number and a unit, as 30s 5m 8h 7d")
    return round(float(found.group(1)) * _UNITS_MS[found.group(2)])


def duration_text(ms: Ms) -> str:
    """The shortest exact text that `parse_duration` reads back: 28800000 -> `8h`."""
    for unit, size in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS)):
        if ms >= size and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def asked_time(text: str, what: str) -> Ms:
    """`parse_time` of what somebody asked for; CoordError(BAD_REQUEST) names `what` it was for."""
    try:
        return parse_time(text)
    except ValueError as error:
        raise CoordError(
            Code.BAD_REQUEST, f"{what}: {error}", "give Unix seconds or ISO 8601, as 2026-11-22T04:31:05Z"
        ) from None


def asked_duration(text: str, what: str, least_ms: Ms, most_ms: Ms) -> Ms:
    """`parse_duration` within bounds; CoordError(BAD_REQUEST) names `what` it was for and the bounds."""
    bounds = f"give {duration_text(least_ms)} to {duration_text(most_ms)}, as 30s 5m 8h 7d"
    try:
        ms = parse_duration(text)
    except ValueError as error:
        raise CoordError(Code.BAD_REQUEST, f"{what}: {error}", bounds) from None
    if not least_ms <= ms <= most_ms:
        raise CoordError(Code.BAD_REQUEST, f"{what}: {_shown(text)} is out of range", bounds)
    return ms


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")
