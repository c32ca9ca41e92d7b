"""Months, as budgets count them: UTC, and no clock's business."""

from __future__ import annotations

from coordinator.core.ids import Ms

DAY_MS: Ms = 86_400_000
_ERA_DAYS = 146_097
"""Of 400 years."""
_TO_MARCH_0000 = 719_468
"""Days from 1 March of year 0 to 1 January 1970. Years that begin in March have their leap day last."""


def month_of(at_ms: Ms) -> int:
    """The month of this moment: 202611. Days to civil date as in Hinnant, "chrono-Compatible Low-Level Date
    Algorithms"."""
    era, day = divmod(at_ms // DAY_MS + _TO_MARCH_0000, _ERA_DAYS)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    from_march = (5 * of_year + 2) // 153
    month = from_march + 3 if from_march < 10 else from_march - 9
    return (year + era * 400 + (month <= 2)) * 100 + month


def next_month(month: int) -> int:
    return month + 1 if month % 100 < 12 else month + 89


def begins_ms(month: int) -> Ms:
    """Its first moment."""
    year, number = divmod(month, 100)
    era, of_era = divmod(year - (number <= 2), 400)
    from_march = number - 3 if number > 2 else number + 9
    day = of_era * 365 + of_era // 4 - of_era // 100 + (153 * from_march + 2) // 5
    return (era * _ERA_DAYS + day - _TO_MARCH_0000) * DAY_MS


def ends_ms(month: int) -> Ms:
    """The first moment of the month after this one."""
    return begins_ms(next_month(month))
