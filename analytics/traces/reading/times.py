"""Times as text, in columns: ISO 8601 into integer nanoseconds since 1970, exactly. What names no zone is UTC.

OpenTelemetry's own form (`2026-04-29T00:00:00.008253Z`) is read for a whole column at once, 0.1 us a time; others one
by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import UNFINISHED

NS_MAX = 2**62 - 1
"""The middle of 2116: two times can be added, and none is a number that means something else."""
_US, _S = 1_000, 1_000_000_000
_PLACES = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 22, 23, 24, 25)
"""Of the digits in OpenTelemetry's form."""
_SIGNS = ((4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":"), (19, b"."), (26, b"Z"))
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION = re.compile(r"[.,]([0-9]{1,12})", re.ASCII)


def nanoseconds(text: str | None) -> int:
    """The time that `text` names; UNFINISHED for None and the empty string; ValueError for what is no time."""
    if not text:
        return UNFINISHED
    fraction = _FRACTION.search(text)
    if fraction is not None:
        text = text[: fraction.start()] + text[fraction.end() :]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!a} is no time") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    whole = (at - _EPOCH) // timedelta(seconds=1)
    ns = whole * _S + (int(fraction[1].ljust(9, "0")[:9]) if fraction is not None else 0)
    if not 0 <= ns <= NS_MAX:
        raise ValueError(f"{text[:40]!a} lies outside of 1970 to 2116")
    return ns


def column(texts: Sequence[str | None]) -> NDArray[np.int64]:
    """`nanoseconds` of each; ValueError when one of them is no time."""
    out = np.empty(len(texts), np.int64)
    if not len(texts):
        return out
    try:
        table = np.array([text or "" for text in texts] if None in texts else texts, "S28")
    except UnicodeEncodeError:
        raise ValueError("a time has characters that none has") from None
    marks = table.view(np.uint8).reshape(len(texts), 28)
    usual = marks[:, 27] == 0
    for place, sign in _SIGNS:
        usual &= marks[:, place] == sign[0]
    digits = marks[:, _PLACES].astype(np.int64) - 48
    usual &= ((digits >= 0) & (digits <= 9)).all(axis=1)
    year = digits[:, 0] * 1000 + digits[:, 1] * 100 + digits[:, 2] * 10 + digits[:, 3]
    month, day, hour, minute, second = (digits[:, n] * 10 + digits[:, n + 1] for n in range(4, 14, 2))
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    usual &= (month >= 1) & (month <= 12) & (year >= 1970) & (year <= 2115)
    in_month = _MONTH_DAYS[np.where(usual, month, 0)] + (leap & (month == 2))
    usual &= (day >= 1) & (day <= in_month) & (hour < 24) & (minute < 60) & (second < 60)
    micro = digits[:, 14:] @ np.array([100_000, 10_000, 1_000, 100, 10, 1])
    out[:] = (((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * _S + micro * _US
    if not usual.all():
        for row in np.flatnonzero(~usual).tolist():
            out[row] = nanoseconds(texts[row])
    return out


def _days(year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
    """Days since 1970 of dates of the Gregorian calendar: years are taken to begin in March, behind the leap day."""
    from_march = (month + 9) % 12
    year = year - (month <= 2)
    days = year * 365 + year // 4 - year // 100 + year // 400 + (from_march * 153 + 2) // 5 + day - 1
    return days - 719_468
