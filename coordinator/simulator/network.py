"""Sockets between agents and coordinator, with what goes wrong on the way.

A link is like TCP: in order per direction, late under a partition, silent when it is half open. Links of one
machine know nothing of each other: an old one's end may be learnt after the new one's hello.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from coordinator.core.ids import ConnId, Ms
from coordinator.simulator.agenda import Agenda

LATENCY_MS = (1, 80)


class Road(Protocol):
    """The way between one machine and the coordinator. A cut direction holds what is sent until it is mended."""

    up_cut: bool
    down_cut: bool


class Link:
    """One socket, seen from both of its ends. `up` leads to the coordinator."""

    def __init__(self, conn_id: ConnId, road: Road, agenda: Agenda, dice: Random, opened_ms: Ms) -> None:
        self.conn_id = conn_id
        self.opened_ms = opened_ms
        """By the coordinator's clock: no session on it can have begun before."""
        self.dead = False
        """Half open: both ends believe in it, nothing arrives."""
        self.head_open = True
        self.agent_open = True
        self._road, self._agenda, self._dice = road, agenda, dice
        self._free = {"up": 0, "down": 0}
        self._held: dict[str, list[Callable[[], None]]] = {"up": [], "down": []}

    def send(self, way: str, arrives: Callable[[], None]) -> None:
        """Have `arrives` called when what was sent gets there; never when it is lost."""
        if self.dead:
            return
        if self._held[way] or self._cut(way):
            self._held[way].append(arrives)
            return
        when = max(self._free[way], self._agenda.now_ms + self._dice.randint(*LATENCY_MS))
        self._free[way] = when
        self._agenda.at(when, lambda: self._arrive(way, arrives))

    def mend(self) -> None:
        """The partition is over: what was held goes on, in order."""
        for way in ("up", "down"):
            if not self._cut(way):
                held, self._held[way] = self._held[way], []
                for arrives in held:
                    self.send(way, arrives)

    def _cut(self, way: str) -> bool:
        return self._road.up_cut if way == "up" else self._road.down_cut

    def _arrive(self, way: str, arrives: Callable[[], None]) -> None:
        if self.dead:
            return
        if self._cut(way):
            self._held[way].append(arrives)
        else:
            arrives()
