"""Machines and the agents on them: what an agent does, and what can befall it.

An agent here keeps the same promises as the real one: it beats at the interval that it was told, answers
pings, notices missing acknowledgements, and reconnects with jitter.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from coordinator.core.commands import CloseCode, CloseLink, PingAgent, TellDrain, TellInterval, Welcome
from coordinator.core.ids import Ms, ProviderId
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.frames import Acks, Beats, Closes, Down, Pongs, Says, SaysBye, SaysHello, Up
from coordinator.simulator.network import Link

if TYPE_CHECKING:
    from coordinator.simulator.head import Head

ACKS_MISSING = 3
"""Intervals without an acknowledgement after which an agent gives its connection up."""


class Machine:
    """A box with an identity. A copy of it has the same, and another agent."""

    def __init__(self, provider_id: ProviderId, machine_id: str, character: str, credential: str = "") -> None:
        self.provider_id = provider_id
        self.machine_id = machine_id
        self.character = character
        self.credential = credential
        self.boot = 1
        self.up_cut = False
        self.down_cut = False
        self.links: list[Link] = []
        self.process: Process | None = None

    @property
    def boot_id(self) -> str:
        return f"{self.machine_id}/{self.boot}"

    def mend(self) -> None:
        """Both directions pass again."""
        self.up_cut = self.down_cut = False
        for link in self.links:
            link.mend()


class Process:
    """One run of an agent."""

    def __init__(self, process_id: str, machine: Machine, head: Head, agenda: Agenda, dice: Random) -> None:
        self.process_id = process_id
        self.machine = machine
        self.boot_id = machine.boot_id
        self.link: Link | None = None
        self.welcomed = False
        self.resume_key = ""
        self.alive = True
        self.stopped = False
        """Suspended: sockets stay open, nobody reads them."""
        self._head, self._agenda, self._dice = head, agenda, dice
        self.interval_ms: Ms = head.policy.heartbeat_interval_ms
        self._seq = 0
        self._acked_ms: Ms = 0
        self._unread: list[tuple[Link, Down]] = []
        self._attempts = 0
        self._leaving = False
        self._beating = 0
        """Raised by every connection: an older one's timer finds another number and ends."""

    # ---- life

    def start(self) -> None:
        self._retry(0)

    def die(self, silently: bool) -> None:
        """Killed; `silently` when the machine went with it and nobody sends a reset."""
        self.alive = False
        if self.link is not None:
            if silently:
                self.link.dead = True
            else:
                self._send(Closes())
            self.link.agent_open = False
            self.link = None

    def stop(self) -> None:
        self.stopped = True

    def resume(self) -> None:
        """Read what came meanwhile, and go on."""
        self.stopped = False
        unread, self._unread = self._unread, []
        for link, frame in unread:
            self.take(link, frame)
        if self.alive and self.link is None:
            self._retry(0)
        elif self.alive and self.link is not None and self.welcomed:
            self._beat_on()
        elif self.alive and self.link is not None:
            self._drop()

    def leave(self, draining: bool, away_until_ms: Ms | None) -> None:
        """Say good bye and wait for the close."""
        if self.link is None or not self.welcomed or self.stopped:
            self.die(silently=False)
            return
        self._leaving = True
        self._send(SaysBye(draining, away_until_ms))

    def reset(self, half_open: bool) -> None:
        """Its connection breaks: with a reset on both ends, or without a word."""
        link = self.link
        if link is None:
            return
        if half_open:
            link.dead = True
            return
        self._send(Closes())
        link.send("down", lambda: self.take(link, Closes()))

    # ---- connection

    def _retry(self, delay_ms: Ms) -> None:
        self._beating += 1
        number = self._beating
        self._agenda.after(delay_ms, lambda: self._connect(number))

    def _connect(self, number: int) -> None:
        if not self.alive or self.stopped or self.link is not None or number != self._beating:
            return
        unit = self._head.unit_ms
        self._attempts += 1
        machine = self.machine
        link = None if machine.up_cut or machine.down_cut else self._head.accept(self, machine)
        if link is None:
            self._retry(int(unit * min(30.0, 2.0 ** min(self._attempts, 5)) * self._dice.uniform(0.5, 1.0)))
            return
        machine.links = [old for old in machine.links if old.agent_open or old.head_open]
        machine.links.append(link)
        self.link, self.welcomed = link, False
        self._acked_ms = self._agenda.now_ms
        self._send(SaysHello(self.process_id, self.boot_id, machine.machine_id, machine.credential, self.resume_key))
        self._agenda.after(15 * unit, lambda: self._give_up_unwelcomed(link))

    def _give_up_unwelcomed(self, link: Link) -> None:
        if self.link is link and not self.welcomed and self.alive and not self.stopped:
            self._drop()

    def _drop(self) -> None:
        """Close our end and try again."""
        self._send(Closes())
        assert self.link is not None
        self.link.agent_open = False
        self.link = None
        self.welcomed = False
        self._retry(int(self._head.unit_ms * self._dice.uniform(0.2, 2.0)))

    def _send(self, frame: Up) -> None:
        link = self.link
        if link is not None:
            link.send("up", lambda: self._head.take(link, self, frame))

    def take(self, link: Link, frame: Down) -> None:
        """Something arrived on `link`."""
        if self.stopped:
            self._unread.append((link, frame))
            return
        if not self.alive or link is not self.link:
            return
        match frame:
            case Acks():
                self._acked_ms = self._agenda.now_ms
            case Closes():
                self._closed(None)
            case Says(message=Welcome() as welcome, resume_key=key):
                self._welcomed(welcome, key)
            case Says(message=PingAgent()):
                self._send(Pongs())
            case Says(message=TellInterval(heartbeat_interval_ms=interval_ms)):
                self.interval_ms = interval_ms
                self._beat_on()
            case Says(message=TellDrain()):
                pass
            case Says(message=CloseLink(code=code)):
                self._closed(code)

    def _welcomed(self, welcome: Welcome, key: str) -> None:
        self.welcomed = True
        self._attempts = 0
        self._acked_ms = self._agenda.now_ms
        self.resume_key = key
        self.interval_ms = welcome.heartbeat_interval_ms
        self._beat_on()

    def _closed(self, code: CloseCode | None) -> None:
        self._send(Closes())
        assert self.link is not None
        self.link.agent_open = False
        self.link = None
        self.welcomed = False
        unit = self._head.unit_ms
        if self._leaving or code is CloseCode.MACHINE_MISMATCH:
            self.alive = False
        elif code in (CloseCode.FORGOTTEN, CloseCode.UNAUTHENTICATED):
            self._head.enrol_again(self.machine)
            self._retry(int(unit * self._dice.uniform(3, 20)))
        elif code in (CloseCode.DUPLICATE, CloseCode.SUPERSEDED):
            self._retry(int(unit * self._dice.uniform(20, 60)))
        else:
            self._retry(int(unit * self._dice.uniform(0.2, 3.0)))

    # ---- heartbeats

    def _beat_on(self) -> None:
        self._beating += 1
        self._beat(self._beating)

    def _beat(self, number: int) -> None:
        if number != self._beating or not self.alive or self.stopped or self.link is None or not self.welcomed:
            return
        if self._agenda.now_ms - self._acked_ms > ACKS_MISSING * self.interval_ms:
            self._drop()
            return
        self._seq += 1
        self._send(Beats(self._seq))
        jitter_ms = self._dice.randint(0, self.interval_ms // 20)
        self._agenda.after(self.interval_ms - jitter_ms, lambda: self._beat(number))
