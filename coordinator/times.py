"""Times as people and JSON read them: RFC 3339 in UTC with milliseconds, and lengths like `30s 5m 8h 7d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
YEAR_9999_MS = 253_402_300_799_999


def to_text(at_ms: Ms) -> str:
    """`2026-11-22T04:31:05.123Z`."""
    seconds, milliseconds = divmod(at_ms, 1_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def to_ms(text: str) -> Ms:
    """Unix seconds (`1551830000`, `1551830000.5`) or ISO 8601 with a zone. CoordError(BAD_REQUEST) otherwise."""
    try:
        at_ms = round(float(text) * 1_000)
    except (ValueError, OverflowError):
        at_ms = _from_iso(text)
    if not 0 <= at_ms <= YEAR_9999_MS:
        raise CoordError(
            Code.BAD_REQUEST, f"{text[:40]!r} is outside the years 1970 to 9999", "give Unix seconds or ISO 8601"
        )
    return at_ms


def _from_iso(text: str) -> Ms:
    hint = "give Unix seconds or ISO 8601 with a zone, as 2026-11-22T04:31:05Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CoordError(Code.BAD_REQUEST, f"{text[:40]!a} is not a time", hint) from error
    if moment.tzinfo is None:
        raise CoordError(Code.BAD_REQUEST, f"{text[:40]!a} names no time zone", hint)
    return round(moment.timestamp() * 1_000)


def length_ms(text: str) -> Ms:
    """`30s 5m 8h 7d 1.5h` as milliseconds. CoordError(BAD_REQUEST) otherwise."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise CoordError(Code.BAD_REQUEST, f"{text[:40]!a} is not a length of time", "write it as 30s, 5m, 8h or 7d")
    return round(float(match[1]) * _UNIT_MS[match[2]])
