"""Made-up fleets of known characters: whoever ranks machines can be asked whether it also does so on other fleets.

The same seed is the same fleet, to the millisecond. Nobody's data is in it, and nothing was fitted to anybody's: each
character is a few sentences about why machines leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from random import Random

from coordinator.core.ids import Ms, ProviderId
from coordinator.core.rows import EndReason
from coordinator.simulator.history.fleet import Session
from coordinator.simulator.history.workload import HOUR_MS

DAY_MS: Ms = 24 * HOUR_MS
BEGAN_MS: Ms = 1_699_833_600_000
"""2023-11-13, a Monday, 00:00 UTC."""
WEEK_H = 168.0
TURNS_DAY = 25
"""When a fleet's machines turn flaky, where they do."""
ZONES = 8
"""Of a spot market; each is taken back at moments of its own."""

Hours = tuple[float, float]
"""A time online, in hours since the beginning."""
Character = Callable[[Random, int, int, float], Iterator[Hours]]
"""(dice, number of the machine, seed of the fleet, hours in all) -> its times online, in order. The last may go on."""


def _now_and_then(dice: Random, mean_h: float, away_h: float, hours: float, since: float = 0.0) -> Iterator[Hours]:
    """There all the time but for absences; it leaves at a constant rate."""
    at = since
    while at < hours:
        end = at + 0.02 + dice.expovariate(1.0 / mean_h)
        yield at, end
        at = end + 0.05 + dice.expovariate(1.0 / away_h)


def server(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """A constant rate, of its own: a stay lasts ten days in the middle, two or fifty at the edges."""
    yield from _now_and_then(dice, 240.0 * dice.lognormvariate(0.0, 0.8), 2.0, hours, dice.uniform(0.0, 2.0))


def flaky_tenth(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """Servers that stay for a month; every tenth leaves after some hours, again and again."""
    mean_h = dice.uniform(2.0, 8.0) if number % 10 == 0 else 720.0
    yield from _now_and_then(dice, mean_h, 0.5, hours, dice.uniform(0.0, 2.0))


def office(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """On weekdays, each from about its own morning hour to about its own evening hour; some are often left on."""
    morning, evening = dice.gauss(8.3, 0.7), dice.gauss(17.8, 1.2)
    left_on = 0.5 if dice.random() < 0.1 else 0.03
    free = 0.0
    for day in range(int(hours // 24) + 1):
        if day % 7 >= 5 or dice.random() < 0.07:
            continue
        begin = max(day * 24 + morning + dice.gauss(0.0, 0.3), free)
        end = day * 24 + evening + dice.gauss(0.0, 0.5)
        while dice.random() < left_on:
            end += 24.0
        if end > begin + 0.5:
            yield begin, end
            free = end + 0.1


def laptop(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """Short stays by day, the likelier to go on the longer they have lasted; each owner has a habit and a time zone."""
    zone = dice.choice((0.0, 0.0, 8.0, 16.0))
    middle_h = 0.7 * dice.lognormvariate(0.0, 0.7)
    at = dice.uniform(0.0, 12.0)
    while at < hours:
        hour = (at + zone) % 24
        if hour < 7.0:
            at += 7.0 - hour + dice.expovariate(1.0)
        end = at + 0.02 + middle_h * dice.lognormvariate(0.0, 1.2)
        yield at, end
        at = end + 0.05 + dice.lognormvariate(-0.3, 1.0)


def spot(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """Zones whose market takes most of their machines back at once, each at a rate of its own; singles in between."""
    zone = Random(f"{seed}/zone {number % ZONES}")  # noqa: S311 - a made-up fleet, no secret
    calm_h = 10.0 * zone.lognormvariate(0.0, 1.0)
    at, wave = dice.uniform(0.0, 3.0), zone.expovariate(1.0 / calm_h)
    while at < hours:
        alone = at + dice.expovariate(1.0 / 60.0)
        while wave <= at or (wave < alone and dice.random() < 0.2):
            wave += 0.2 + zone.expovariate(1.0 / calm_h)
        end = min(alone, wave + dice.uniform(0.0, 0.03))
        if end > at:
            yield at, end
        at = end + 0.1 + dice.expovariate(1.0 / 2.0)


def turning(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """Servers. On day 25 a third of them begin to leave after hours, and some that did so before begin to stay."""
    turns_at = TURNS_DAY * 24.0 + dice.uniform(0.0, 12.0)
    before, after = ((240.0, 4.0), (4.0, 240.0), (240.0, 240.0))[min(dice.randrange(9) // 3, 2)]
    if before < after and dice.random() < 0.6:
        before = after
    for begin, end in _now_and_then(dice, before, 0.5, turns_at, dice.uniform(0.0, 2.0)):
        yield begin, min(end, turns_at)
    yield from _now_and_then(dice, after, 0.5, hours, turns_at + 0.1)


def desktop_grid(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """Volunteers, looked at each minute: free while the owner does nothing. Stays of minutes by day and of hours by
    night, owners of very different habits, absences of minutes."""
    use, zone = dice.lognormvariate(0.0, 1.0), dice.choice((0.0, 1.0, 6.0, 9.0))
    at_night = dice.random() < 0.6
    at = dice.uniform(0.0, 6.0)
    while at < hours:
        hour = (at + zone) % 24
        if at_night and (hour >= 23.5 or hour < 7.0):
            at += (7.0 - hour) % 24 + dice.uniform(0.0, 1.0)
            continue
        awake = 8.0 <= hour < 23.0
        mean_h = (1.2 if awake else 9.0) / use
        stays_h = dice.expovariate(1.0 / (mean_h if dice.random() < 0.6 else mean_h * 4.0))
        if at_night:
            stays_h = min(stays_h, (23.5 - hour) % 24 + dice.uniform(0.0, 0.5))
        end = at + round(0.5 + stays_h * 60.0) / 60.0
        yield at, end
        at = end + (1.0 + round(dice.expovariate(1.0 / 25.0))) / 60.0


def enterprise(dice: Random, number: int, seed: int, hours: float) -> Iterator[Hours]:
    """Desktops of a firm. Half are never switched off; the others follow the office. All of a department are patched on
    one night of the week, and somebody logs in at whiles on a weekday and takes the machine for half an hour."""
    always = dice.random() < 0.5
    busy_h = 30.0 * dice.lognormvariate(0.0, 1.0)
    patched = (number % 3 + 1) * 24.0 + 26.0
    days = list(office(dice, number, seed, hours)) if not always else [(dice.uniform(0.0, 2.0), hours + 24.0)]
    for begin, end in days:
        at = begin
        while at < min(end, hours):
            night = patched + WEEK_H * max(0, ceil((at - patched) / WEEK_H)) + dice.uniform(0.05, 0.2)
            login = at + dice.expovariate(1.0 / busy_h)
            if not (login // 24 % 7 < 5 and 8.0 <= login % 24 < 18.0):
                login = login - login % 24 + 24.0 + 9.0 + dice.expovariate(1.0 / 2.0)
            leaves = min(end, night, login)
            if leaves > at:
                yield at, leaves
            at = leaves + 0.5


CHARACTERS: dict[str, Character] = {
    "servers": server,
    "flaky-tenth": flaky_tenth,
    "office": office,
    "laptops": laptop,
    "spot": spot,
    "turning": turning,
    "desktop-grid": desktop_grid,
    "enterprise": enterprise,
}
QUARTERS = (server, office, spot, laptop)
NAMES = (*CHARACTERS, "quarters")
"""`quarters`: a quarter each of servers, office machines, spot instances and laptops."""


def made(name: str, machines: int, days: float, seed: int) -> list[Session]:
    """The history of a fleet of one of NAMES; what goes on at its end is open. Names of machines tell nothing.

    Sessions of a machine follow each other without overlap. O(sessions).
    """
    hours = days * 24.0
    sessions = []
    order = list(range(machines))
    Random(f"{seed}/names").shuffle(order)  # noqa: S311 - a made-up fleet, no secret
    for number in range(machines):
        character = QUARTERS[number % 4] if name == "quarters" else CHARACTERS[name]
        dice = Random(f"{seed}/{number}")  # noqa: S311 - a made-up fleet, no secret
        provider_id = ProviderId(f"m{order[number]:05d}")
        free_ms = 0
        for begin, end in character(dice, number, seed, hours):
            if begin >= hours:
                break
            began_ms, ended_ms = max(round(begin * HOUR_MS), free_ms), round(end * HOUR_MS)
            if ended_ms <= began_ms:
                continue
            free_ms = ended_ms + 1
            over = ended_ms < round(hours * HOUR_MS)
            sessions.append(
                Session(
                    provider_id=provider_id,
                    began_ms=BEGAN_MS + began_ms,
                    ended_ms=BEGAN_MS + ended_ms if over else None,
                    reason=EndReason.READ_ERROR if over else None,
                )
            )
    return sessions
