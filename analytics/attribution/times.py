"""Times that lines begin with. Read for what lies between two lines, so two of the same clock are comparable."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import IntEnum

_DAY_MS = 86_400_000
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}
_DATE = rb"(?P<y>\d{4})[-/](?P<mo>\d\d)[-/](?P<d>\d\d)"
_CLOCK = rb"(?P<h>\d\d):(?P<mi>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d{1,9}))?"
_NAMES = rb"(?P<name>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
FORMS = (
    rb"%s[T _:,]{1,2}%s ?(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)?" % (_DATE, _CLOCK),
    rb"(?P<y>\d\d)/(?P<mo>\d\d)/(?P<d>\d\d) %s" % _CLOCK,
    rb"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?%s {1,2}(?P<d>\d{1,2}) (?:(?P<y>\d{4}) )?%s(?: (?P<y2>\d{4}))?"
    % (_NAMES, _CLOCK),
    rb"(?P<mo>\d{1,2})-?(?P<d>\d\d) %s" % _CLOCK,
    rb"%s" % _CLOCK,
    rb" {0,8}(?P<up>\d{1,10})\.(?P<f>\d{6,9})(?=[\] ])",
)
"""A time each; of one text the first that fits counts."""


class Clock(IntEnum):
    """What a time counts from."""

    NONE = 0
    DATE = 1
    DAY_OF_YEAR = 2
    DAY = 3
    START = 4
    """Of the machine, or of 1970."""


def read(found: re.Match[bytes]) -> tuple[Clock, int]:
    """(clock, milliseconds) of a match of one of FORMS; Clock.NONE for a date that there is not."""
    told = found.groupdict()
    fraction = int((told.get("f") or b"0")[:3].ljust(3, b"0"))
    if told.get("up"):
        return Clock.START, int(told["up"]) * 1_000 + fraction
    try:
        return _dated(told, fraction)
    except ValueError:
        return Clock.NONE, 0


def _dated(told: dict[str, bytes | None], fraction: int) -> tuple[Clock, int]:
    hour, minute, second = (int(told[name] or 0) for name in ("h", "mi", "s"))
    of_day = ((hour * 60 + minute) * 60 + second) * 1_000 + fraction
    month = _MONTHS[told["name"] or b""] if "name" in told else int(told.get("mo") or 0)
    if not month:
        return Clock.DAY, of_day
    year = told.get("y") or told.get("y2")
    day = datetime(_year(year), month, int(told["d"] or 0), tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (Clock.DATE if year else Clock.DAY_OF_YEAR), day.days * _DAY_MS + of_day - _zone_ms(told.get("zone"))


def _year(told: bytes | None) -> int:
    """Two digits are of this century. A year with a 29th of February stands for those that are not told."""
    return 2000 if told is None else int(told) + (2000 if len(told) == 2 else 0)


def _zone_ms(zone: bytes | None) -> int:
    if zone is None or zone[:1] not in b"+-":
        return 0
    digits = zone[1:].replace(b":", b"")
    away = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return int(away.total_seconds() * 1_000) * (-1 if zone.startswith(b"-") else 1)
