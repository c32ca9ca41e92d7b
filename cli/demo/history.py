"""A fleet's past, made up: nodes of five characters over some weeks, the same for the same seed.

Rows are as `coord import sessions` takes them. Nobody's data is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

HOUR_S = 3600
DAY_S = 24 * HOUR_S
HEADER = "provider_id,connected_at,disconnected_at,disconnect_reason"


class Stint(NamedTuple):
    """One session, in Unix seconds. `end` None: still connected when the history ends."""

    provider_id: str
    begin: int
    end: int | None
    reason: str


class _Span(NamedTuple):
    """When a node was there, before it is cut at the history's end."""

    begin: float
    end: float
    reason: str


Character = Callable[[Random, int, int], Iterator[_Span]]


def _server(dice: Random, since: int, until: int) -> Iterator[_Span]:
    """Always on; a reboot every three weeks or so, announced two times in three."""
    at = float(since)
    while at < until:
        end = at + dice.expovariate(1 / (21 * DAY_S))
        yield _Span(at, end, dice.choice(("draining", "draining", "agent_restart")))
        at = end + dice.uniform(120, 900)


def _office(dice: Random, since: int, until: int) -> Iterator[_Span]:
    """On from about eight to about six on weekdays; some are left on overnight, some people stay at home."""
    first = since - since % DAY_S
    for midnight in range(first, until, DAY_S):
        weekday = (midnight // DAY_S + 3) % 7  # Unix time began on a Thursday
        if weekday >= 5 or dice.random() < 0.08:
            continue
        begin = midnight + dice.gauss(8.2, 0.5) * HOUR_S
        end = midnight + dice.gauss(17.8, 0.8) * HOUR_S
        if dice.random() < 0.05:
            end += dice.uniform(5, 10) * HOUR_S
        if end > begin + HOUR_S:
            yield _Span(begin, end, "clean_close" if dice.random() < 0.9 else "stale_heartbeat")


def _spot(dice: Random, since: int, until: int) -> Iterator[_Span]:
    """Taken back without warning after some hours; comes again when the price falls."""
    at = float(since)
    while at < until:
        end = at + dice.expovariate(1 / (11 * HOUR_S)) + 300
        yield _Span(at, end, "read_error" if dice.random() < 0.8 else "stale_heartbeat")
        at = end + dice.uniform(0.3, 5) * HOUR_S


def _laptop(dice: Random, since: int, until: int) -> Iterator[_Span]:
    """The lid closes, the network goes: short stays, awake from morning to midnight."""
    at = float(since)
    while at < until:
        if 1 <= (at % DAY_S) / HOUR_S < 7:
            at += dice.uniform(3, 7) * HOUR_S
            continue
        end = at + dice.lognormvariate(7.6, 0.9)
        yield _Span(at, end, dice.choice(("read_error", "stale_heartbeat", "read_error", "clean_close")))
        at = end + dice.lognormvariate(7.2, 1.0) + 60


def _newcomer(dice: Random, since: int, until: int) -> Iterator[_Span]:
    """Joined within the last two days and has been there since: little is known of it."""
    begin = until - dice.uniform(1, 48) * HOUR_S
    yield _Span(max(begin, float(since)), until + DAY_S, "clean_close")


CHARACTERS: dict[str, Character] = {
    "server": _server,
    "office": _office,
    "spot": _spot,
    "laptop": _laptop,
    "newcomer": _newcomer,
}


def generate(*, seed: int, nodes: int, days: int, until: int) -> Iterator[Stint]:
    """The sessions of `nodes` nodes, an equal share of each character, in the `days` before `until`.

    Sessions of a node follow each other without overlap; those that reach `until` are open.
    """
    kinds = list(CHARACTERS)
    for index in range(nodes):
        kind = kinds[index % len(kinds)]
        dice = Random(f"{seed}/{index}")  # noqa: S311  a made-up fleet, no secret
        name = f"{kind}-{index // len(kinds) + 1:03d}"
        since = until - days * DAY_S
        free = since
        for span in CHARACTERS[kind](dice, since, until):
            begin, end = max(int(span.begin), free), int(span.end)
            if begin >= until:
                break
            if end <= begin:
                continue
            free = end + 1
            yield Stint(name, begin, end, span.reason) if end < until else Stint(name, begin, None, "")


def as_csv(stints: Iterator[Stint]) -> Iterator[str]:
    """Lines of the import format, header first."""
    yield HEADER + "\n"
    for stint in stints:
        yield f"{stint.provider_id},{stint.begin},{'' if stint.end is None else stint.end},{stint.reason}\n"
