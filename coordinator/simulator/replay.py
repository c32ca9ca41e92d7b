"""Machines that come and go as real ones did: recorded sessions as availability.

A recording says when a provider was there, not why it went: here its power fails at the end of a session, and its agent
starts with the next one. Everything else about it is made up by the seed.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from coordinator.core.ids import Ms

Stays = tuple[tuple[Ms, Ms], ...]
"""From when until when, from the beginning of the recording on, rising."""


def read_stays(rows: Iterable[dict[str, str]]) -> list[Stays]:
    """The stays of each provider in rows of `coord import sessions` with Unix seconds; one that is open goes on."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        end_s = float(row["disconnected_at"] or "inf")
        found.setdefault(row["provider_id"], []).append((float(row["connected_at"]), end_s))
    began_s = min((stay[0] for stays in found.values() for stay in stays), default=0.0)
    last_s = max((s for stays in found.values() for stay in stays for s in stay if s != float("inf")), default=0.0)
    return [
        tuple(
            (int((begin - began_s) * 1_000), int((min(end, last_s + 86_400) - began_s) * 1_000))
            for begin, end in sorted(stays)
        )
        for stays in found.values()
    ]


def pick_stays(recorded: list[Stays], count: int, dice: Random) -> list[Stays]:
    """`count` providers that come and go, all from one moment of the recording on: that is where the world begins."""
    lively = [stays for stays in recorded if len(stays) >= 10]
    chosen = [dice.choice(lively) for _ in range(count)]
    begin_ms = dice.randint(0, max(0, min(stays[-1][0] for stays in chosen)))
    return [
        tuple((max(0, begin - begin_ms), end - begin_ms) for begin, end in stays if end > begin_ms) for stays in chosen
    ]
