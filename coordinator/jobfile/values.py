"""Lengths of time, sizes and moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from coordinator.core.ids import Ms
from coordinator.jobfile.problems import shown
from coordinator.jobfile.table import Found, Table
from coordinator.timetext import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, duration_text, parse_time, to_text

_UNITS_MS = {"w": 7 * DAY_MS, "d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS, "s": SECOND_MS, "ms": 1}
_LENGTH = re.compile(r"(?:\d{1,12}(?:\.\d{1,6})?(?:ms|[wdhms]))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[wdhms])", re.ASCII)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kKMGTP]i?)?B?", re.ASCII)
_FACTORS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "P": 1000**5}
_BINARY = {"ki": 1024, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4, "Pi": 1024**5}
BYTES_MAX = 1 << 60


def length_ms(text: str) -> Ms | None:
    """`90s`, `2h`, `1h30m`, `1.5h` in milliseconds: units fall, each once. None when it is no length of time."""
    if not _LENGTH.fullmatch(text):
        return None
    parts = _PART.findall(text)
    sizes = [_UNITS_MS[unit] for _, unit in parts]
    if sizes != sorted(set(sizes), reverse=True):
        return None
    return round(sum(float(number) * size for (number, _), size in zip(parts, sizes, strict=True)))


def length(table: Table, key: str, least_ms: Ms, most_ms: Ms) -> Ms | None:
    """The length of time there, within bounds."""
    found = table.find(key)
    return length_of(table, found, least_ms, most_ms) if found is not None else None


def length_of(table: Table, found: Found, least_ms: Ms, most_ms: Ms) -> Ms | None:
    ms = length_ms(found.value) if isinstance(found.value, str) else None
    bounds = f"{duration_text(least_ms)} to {duration_text(most_ms)}"
    if ms is None:
        table.wrong(found, "a length of time", f"write a number and a unit, as 90s, 2h or 1h30m: {bounds}")
        return None
    if not least_ms <= ms <= most_ms:
        table.problems.add(found.path, f"{shown(found.value)} is out of range", bounds)
        return None
    return ms


def size(table: Table, key: str, least: int, most: int) -> int | None:
    """Bytes with a unit, rounded up."""
    found = table.find(key)
    if found is None:
        return None
    match = _SIZE.fullmatch(found.value) if isinstance(found.value, str) else None
    if match is None or not (match[2] or found.value.endswith("B")):
        table.wrong(found, "a size", "write a number and a unit, as 512MiB, 16GiB (1024) or 4GB (1000)")
        return None
    factor = {**_FACTORS, **_BINARY}[match[2] or ""]
    amount = -int(-float(match[1]) * factor // 1)
    if not least <= amount <= most:
        table.problems.add(found.path, f"{shown(found.value)} is out of range", f"{least} to {most} bytes")
        return None
    return amount


def moment(table: Table, key: str, now_ms: Ms) -> Ms | None:
    """A time that lies ahead: ISO 8601 with a zone, or a length from now."""
    found = table.find(key)
    if found is None:
        return None
    value = found.value
    if isinstance(value, str) and (ahead_ms := length_ms(value)) is not None:
        at_ms = now_ms + ahead_ms
    else:
        known = _absolute(value)
        if known is None:
            table.wrong(found, "a time", "write it as 2027-01-31T18:00:00Z, or a length from now: 6h")
            return None
        at_ms = known
    if not now_ms < at_ms <= now_ms + 3_650 * DAY_MS:
        table.problems.add(
            found.path,
            f"{shown(str(value))} does not lie ahead",
            f"it is {to_text(now_ms)}; at most ten years from now",
        )
        return None
    return at_ms


def _absolute(value: object) -> Ms | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return None
        try:
            return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        except OverflowError:
            return None
    if isinstance(value, str):
        try:
            return parse_time(value)
        except (ValueError, OverflowError):
            return None
    return None
