"""The daemon as a model: the connection, heartbeats, and the lease clock that it keeps for the keeper.

It keeps the same promises as the real one: it beats at the interval that it was told, answers pings, notices
missing acknowledgements, reconnects with jitter, counts terms from what it sent, and says an end until it is settled.
"""

from __future__ import annotations

from random import Random
from zlib import crc32

from coordinator.core import commands
from coordinator.core.commands import CloseCode, CloseLink, PingAgent, TellInterval, Welcome
from coordinator.core.ids import Ms
from coordinator.core.rows import EndCause, ExitInfo
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.frames import (
    Acks,
    Beats,
    Closes,
    Down,
    HasExited,
    HasGranted,
    HasRefused,
    IsIn,
    IsSoFar,
    Pongs,
    Says,
    SaysBye,
    SaysHello,
    Up,
)
from coordinator.simulator.keeper import Keeper
from coordinator.simulator.machine import Held, Machine, RankId
from coordinator.simulator.network import Link
from coordinator.simulator.parts import Door

ACKS_MISSING = 3
"""Intervals without an acknowledgement after which an agent gives its connection up."""
FREEZE_SHARE = 5 / 6
AGAIN_S = 4
"""A grant that is held and an end are said again until they are answered."""
PHASE_AGAIN_S = 30
TOGETHER_S = 1
"""Half of the machines gather ends for so long, and say them side by side."""
SEQS_A_DAEMON = 1_000_000


class Daemon:
    """One run of the daemon of one keeper."""

    def __init__(self, keeper: Keeper, head: Door, agenda: Agenda, dice: Random) -> None:
        keeper.daemons += 1
        self.keeper = keeper
        self.process_id = keeper.process_id
        self.machine = keeper.machine
        self.link: Link | None = None
        self.welcomed = False
        self.resume_key = keeper.resume_key
        self.alive = True
        self.stopped = False
        """Suspended: sockets stay open, nobody reads them."""
        self.interval_ms: Ms = head.policy.heartbeat_interval_ms
        self._head, self._agenda, self._dice = head, agenda, dice
        self._seq = keeper.daemons * SEQS_A_DAEMON
        self._acked_ms: Ms = 0
        self._unread: list[tuple[Link, Down]] = []
        self._tries = 0
        self._leaving: SaysBye | None = None
        self._beating = 0
        """Raised by every connection: an older one's timer finds another number and ends."""
        # the lease clock: all of this connection
        self._hello_ms: Ms = 0
        self._sent_ms: dict[int, Ms] = {}
        self._acked_seq = 0
        self._renewed_seq = 0
        self._gathers = False
        self._said: dict[RankId, str] = {}
        """The last phase of each that was said on this connection."""

    @property
    def box(self) -> Machine:
        return self.machine

    # ---- life

    def start(self) -> None:
        self.keeper.ear = self
        self._retry(0)

    def die(self, silently: bool) -> None:
        """Killed; `silently` when the machine went with it and nobody sends a reset."""
        self.alive = False
        if self.keeper.ear is self:
            self.keeper.ear = None
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
            self._say_news()
            self._beat_on()
        elif self.alive and self.link is not None:
            self._drop()

    def leave(self, draining: bool, away_until_ms: Ms | None) -> None:
        """End what runs, report it, say good bye and wait for the close."""
        if self.link is None or not self.welcomed or self.stopped:
            self.keeper.die(cleaned=True)
            self.die(silently=False)
            return
        self.keeper.end_all()
        self._say_bye_when_settled(SaysBye(draining, away_until_ms), 20)

    def _say_bye_when_settled(self, bye: SaysBye, patience: int) -> None:
        if not self.alive:
            return
        if self.link is None or not self.welcomed:
            self.keeper.die(cleaned=True)
            self.die(silently=False)
        elif not self.stopped and (patience == 0 or not self.keeper.unsettled()):
            self._leaving = bye
            self._send(bye)
        else:
            later_ms = self._head.unit_ms // 2
            self._agenda.after(later_ms, lambda: self._say_bye_when_settled(bye, max(0, patience - 1)))

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
        self._tries += 1
        machine = self.machine
        link = None if machine.up_cut or machine.down_cut else self._head.accept(self)
        if link is None:
            self._retry(int(unit * min(30.0, 2.0 ** min(self._tries, 5)) * self._dice.uniform(0.5, 1.0)))
            return
        machine.links = [old for old in machine.links if old.agent_open or old.head_open]
        machine.links.append(link)
        self.link, self.welcomed = link, False
        self._acked_ms = self._hello_ms = self._agenda.now_ms
        self._sent_ms, self._acked_seq, self._renewed_seq = {}, 0, 0
        held = self.keeper.unsettled()
        self._said = {(h.attempt_id, h.rank): h.phase for h in held}
        self._send(
            SaysHello(
                process_id=self.process_id,
                boot_id=self.keeper.boot_id,
                machine_id=machine.machine_id,
                credential=machine.credential,
                resume_key=self.resume_key,
                resources=machine.resources,
                promises=machine.promises,
                labels=machine.labels,
                attempts=tuple(h.as_said() for h in held),
            )
        )
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
            case Acks(seq=seq):
                self._acked_ms = self._agenda.now_ms
                self._acked_seq = max(self._acked_seq, seq)
            case Closes():
                self._closed(None)
            case Says(message=Welcome() as welcome, resume_key=key):
                self._welcomed(welcome, key)
            case Says(message=PingAgent()):
                self._send(Pongs())
            case Says(message=TellInterval(heartbeat_interval_ms=interval_ms)):
                self.interval_ms = interval_ms
                self._beat_on()
            case Says(message=CloseLink(code=code)):
                self._closed(code)
            case Says(message=message):
                self._take_work(message)

    def _welcomed(self, welcome: Welcome, key: str) -> None:
        self.welcomed = True
        self._tries = 0
        self._acked_ms = self._agenda.now_ms
        self.resume_key = self.keeper.resume_key = key
        self.interval_ms = welcome.heartbeat_interval_ms
        self._say_news()
        self._beat_on()

    def _closed(self, code: CloseCode | None) -> None:
        self._send(Closes())
        assert self.link is not None
        self.link.agent_open = False
        self.link = None
        self.welcomed = False
        unit = self._head.unit_ms
        if self._leaving is not None or code is CloseCode.MACHINE_MISMATCH:
            self.keeper.die(cleaned=True)
            self.die(silently=False)
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
        self._sent_ms[self._seq] = self._agenda.now_ms
        live = tuple(h.attempt_id for h in self.keeper.unsettled() if h.exit is None)
        self._send(Beats(self._seq, live, self._renewed_seq))
        self._say_again()
        jitter_ms = self._dice.randint(0, self.interval_ms // 20)
        self._agenda.after(self.interval_ms - jitter_ms, lambda: self._beat(number))

    # ---- work

    def hear(self, held: Held) -> None:
        """The keeper says how one stands now."""
        if not self._may_speak():
            return
        if held.exit is None or crc32(self.machine.machine_id.encode()) % 2:
            self._say(held)
        elif not self._gathers:
            self._gathers = True
            self._agenda.after(TOGETHER_S * self._head.unit_ms, self._say_gathered)

    def _may_speak(self) -> bool:
        return self.alive and not self.stopped and self.link is not None and self.welcomed

    def _say_gathered(self) -> None:
        self._gathers = False
        if self._may_speak():
            self._say_news()

    def _say_news(self) -> None:
        """What changed since it was said last on this connection."""
        for held in self.keeper.unsettled():
            if self._said.get((held.attempt_id, held.rank)) != held.phase:
                self._say(held)

    def _say_again(self) -> None:
        """What was not answered: the coordinator's disk may have been full when we said it."""
        for held in self.keeper.unsettled():
            patience_s = PHASE_AGAIN_S if held.phase in ("running", "frozen") else AGAIN_S
            if held.said_ms + patience_s * self._head.unit_ms <= self._agenda.now_ms:
                self._say(held)

    def _say(self, held: Held) -> None:
        held.said_ms = self._agenda.now_ms
        self._said[held.attempt_id, held.rank] = held.phase
        if held.exit is not None:
            self._send(HasExited(held.attempt_id, held.rank, held.token, held.exit))
        elif held.phase == "leased":
            self._send(HasGranted(held.attempt_id, held.rank, held.token))
        elif held.phase in ("running", "frozen", "uploading") or (held.phase == "staging" and held.order is not None):
            self._send(IsIn(held.attempt_id, held.rank, held.token, held.phase))

    def _take_work(self, message: commands.Message) -> None:
        keeper = self.keeper
        match message:
            case commands.Grant(attempt_id=attempt_id, rank=rank, token=token, prefetched=in_line):
                freeze_at_ms = self._freeze_at(self._acked_seq, message.term_ms)
                why = keeper.hold(attempt_id, rank, token, message.share, freeze_at_ms or 0, in_line)
                if why:
                    self._send(HasRefused(attempt_id, rank, token, why))
                else:
                    self._said[attempt_id, rank] = "leased"
                    self._send(HasGranted(attempt_id, rank, token))
            case commands.Launch(attempt_id=attempt_id, rank=rank, token=token):
                if not keeper.run(message):
                    nothing = ExitInfo(cause=EndCause.AGENT, text="not held here")
                    self._send(HasExited(attempt_id, rank, token, nothing))
            case commands.StopAttempt(attempt_id=attempt_id, token=token, grace_ms=grace_ms, unbegun=unbegun):
                keeper.end(attempt_id, token, grace_ms, unbegun)
            case commands.Settled(attempt_id=attempt_id, rank=rank, token=token):
                keeper.forget(attempt_id, rank, token)
            case commands.Renew(seq=seq, terms=terms):
                self._renew(seq, terms)
            case commands.SaveState(attempt_id=attempt_id, token=token):
                keeper.save(attempt_id, token)
            case commands.Warm(attempt_id=attempt_id, rank=rank):
                keeper.warm(attempt_id, rank)
            case _:
                pass

    def tell_progress(self, held: Held, fraction: float) -> bool:
        """Whether it is on its way."""
        if self.link is None or not self.welcomed or self.stopped:
            return False
        self._send(IsSoFar(held.attempt_id, held.rank, held.token, fraction))
        return True

    def _renew(self, seq: int, terms: tuple[commands.Term, ...]) -> None:
        self._renewed_seq = max(self._renewed_seq, seq)
        for term in terms:
            freeze_at_ms = self._freeze_at(seq, term.term_ms)
            if freeze_at_ms is not None:
                self.keeper.deadline(term.attempt_id, term.token, freeze_at_ms)

    def _freeze_at(self, seq: int, term_ms: Ms) -> Ms | None:
        """When a lease is to be frozen that was renewed by what we sent as `seq`. None: we never did."""
        sent_ms = self._hello_ms if seq == 0 else self._sent_ms.get(seq)
        if sent_ms is None:
            return None
        return sent_ms + int(term_ms * FREEZE_SHARE / self.machine.drift)
