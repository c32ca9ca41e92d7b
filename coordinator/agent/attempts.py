"""The attempts of this provider: what the coordinator asked, what the keeper says, and who must hear of it.

The keeper's word is the truth about processes, the coordinator's about leases; here they meet. Nothing is decided
here but what is refused at once, and nothing waits. What the coordinator must hear is said at every change, again
on every connection, and again from time to time until it is answered: its disk may have been full.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from coordinator import wire
from coordinator.agent import channel
from coordinator.agent.clock import boot_s
from coordinator.agent.config import Patience
from coordinator.agent.held import AT_WORK, LIVE, RUNNING, AttemptStatus, Held, status_of
from coordinator.agent.leases import LeaseClock, freeze_at_s
from coordinator.agent.log import logger
from coordinator.agent.logship import Key, LogShip
from coordinator.agent.offer import exceeds
from coordinator.agent.reports import exit_of, held_attempts
from coordinator.agent.staging import Stager, needs_staging
from coordinator.agent.tending import Tending
from coordinator.agent.tracing import Tracing
from coordinator.core.ids import names_attempt
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken, Resources

AGAIN_S = 4.0
"""`granted` is said again until it is answered by launch or stop, `exited` until it is settled."""
PHASE_AGAIN_S = 30.0
"""`phase` is said again as long as it lasts."""
JITTER = 0.25
Order = wire.Grant | wire.Launch | wire.Stop | wire.Settled | wire.Renew | wire.LogAck | wire.Warm | wire.Save
FORGOTTEN_MAX = 4_096
"""Attempts remembered after they were forgotten: what was on its way for them is no news."""


class Attempts:
    """The book. `to_keeper` takes everything; `launch` completes the plan for a directory, and has it run; before that
    `stager` brings what is needed, from then on `tending` sees to what is owed to it, and `tracing` to its trace."""

    def __init__(
        self,
        to_keeper: Callable[[channel.ToKeeper], None],
        launch: Callable[[str, wire.Launch], None],
        stager: Stager,
        tending: Tending,
        tracing: Tracing,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.clock = LeaseClock()
        self.ship = LogShip(tending.on_log)
        self.offered = Resources()
        self.leaving = False
        self._to_keeper = to_keeper
        self._launch = launch
        self._stager = stager
        stager.over = self._on_staged
        self._tending = tending
        tending.over, tending.running, tending.news = self._on_tended, self.running, self._tell_progress
        self._tracing = tracing
        tracing.over = self._on_looked_into
        self._draw = draw
        self._held: dict[Key, Held] = {}
        self._asked: dict[Key, wire.Grant] = {}
        """Grants that the keeper has not answered yet."""
        self._forgotten: dict[Key, None] = {}
        self._changed = asyncio.Event()
        self._came = asyncio.Event()
        self._say: Callable[[wire.FromAgent], None] | None = None
        """Tells the coordinator. None: no connection, or one that knows no attempts."""

    # ---- what the keeper says

    def on_now(self, now: channel.Now) -> None:
        """An attempt stands so: the whole truth of it."""
        key = now.attempt, now.rank
        if key in self._forgotten:
            return
        self._asked.pop(key, None)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = Held(now=now, freeze_at_s=now.freeze_at_s)
            self._came.set()
        held.now, held.freeze_at_s = now, now.freeze_at_s
        self.ship.update(now)
        held.uploading = self._tending.on_now(now)
        self._tracing.on_now(now, held.uploading)
        self._changed.set()
        if held.said != held.phase:
            self._tell(held)
        if now.phase == "exited":
            self._stager.drop(key)
            self._forget_if_done(held)

    def on_no(self, no: channel.No) -> None:
        """The keeper does not take a lease."""
        if self._asked.pop((no.attempt, no.rank), None) is not None:
            self._refuse(no.attempt, no.rank, no.token, no.why)

    # ---- what the coordinator asks

    def take(self, message: Order) -> None:
        """Obey. Whatever names no attempt is the coordinator's error and changes nothing."""
        if isinstance(message, wire.Renew):
            self._on_renew(message)
        elif not names_attempt(message.attempt):
            logger.error("the coordinator speaks of %a, which is no attempt", message.attempt[:80])
        else:
            match message:
                case wire.Grant():
                    self._on_grant(message)
                case wire.Launch():
                    self._on_launch(message)
                case wire.Stop():
                    self._on_stop(message)
                case wire.Settled():
                    self._on_settled(message)
                case wire.LogAck():
                    self._on_log_ack(message)
                case wire.Warm():
                    self._stager.warm(message.attempt, message.rank)
                case wire.Save():
                    self._tending.save(message.attempt, message.token, message.why)

    def _on_grant(self, grant: wire.Grant) -> None:
        key = grant.attempt, grant.rank
        held = self._held.get(key)
        if held is not None and held.now.token == grant.token:
            self._tell(held)
            return
        if self.leaving:
            # A refusal would have the task wait, be blamed on this machine, and be followed by the next grant. Left
            # unanswered it is taken back with our good-bye, at once and without a charge.
            logger.info("%s is not taken: this agent is leaving", grant.attempt)
            return
        why = self._why_not(grant)
        if why:
            logger.warning("%s is refused: %s", grant.attempt, why)
            self._refuse(grant.attempt, grant.rank, grant.token, why)
            return
        self._asked[key] = grant
        self._to_keeper(
            channel.Hold(
                attempt=grant.attempt,
                rank=grant.rank,
                token=grant.token,
                share=grant.share,
                freeze_at_s=freeze_at_s(self.clock.heard_s(), grant.term_s),
                prefetched=grant.prefetched,
            )
        )

    def _why_not(self, grant: wire.Grant) -> str:
        if len(self._held) + len(self._asked) >= wire.ATTEMPTS_MAX:
            return f"{wire.ATTEMPTS_MAX} attempts are held here already"
        return exceeds(grant.share, self.offered)

    def _on_launch(self, launch: wire.Launch) -> None:
        held = self._held.get((launch.attempt, launch.rank))
        if held is None or held.now.token != launch.token:
            self._unknown(launch.attempt, launch.rank, launch.token)
            return
        held.answered = True
        if held.now.phase == "leased":
            if not held.launching:
                held.launching = True
                self._tending.expect(launch)
                if needs_staging(launch.plan):
                    held.staging = True
                    self._tell(held)
                    self._stager.put(held.now, launch)
                else:
                    self._launch(held.now.directory, launch)
        else:
            self._tell(held)

    def _on_stop(self, stop: wire.Stop) -> None:
        ranks = [held for key, held in self._held.items() if key[0] == stop.attempt and held.now.token <= stop.token]
        asked = [key for key in self._asked if key[0] == stop.attempt]
        if not ranks and not asked:
            if not any(key[0] == stop.attempt for key in self._held):
                self._unknown(stop.attempt, 0, stop.token)
            return
        for held in ranks:
            held.answered = True
            if held.uploading and not stop.unbegun:
                self._tending.give_up(held.key)
            elif held.now.phase == "exited" or (stop.unbegun and held.now.phase != "leased"):
                self._tell(held)
        token = ranks[0].now.token if ranks else stop.token
        end = channel.End(
            attempt=stop.attempt, token=token, why=stop.why, grace_s=max(0.0, stop.grace_s), unbegun=stop.unbegun
        )
        self._to_keeper(end)

    def _on_settled(self, settled: wire.Settled) -> None:
        held = self._held.get((settled.attempt, settled.rank))
        if held is not None and held.now.token == settled.token:
            held.settled = True
            self._changed.set()
            if held.uploading:
                self._tending.give_up(held.key)
            self._forget_if_done(held)

    def _on_renew(self, renew: wire.Renew) -> None:
        sent_s = self.clock.renewed(renew.seq)
        if sent_s is None:
            return
        for lease in renew.leases:
            at_s = freeze_at_s(sent_s, lease.term_s)
            ranks = [held for held in self._of(lease.attempt) if held.now.token == lease.token]
            for held in ranks:
                held.freeze_at_s = at_s
            if ranks:
                self._to_keeper(channel.Deadline(attempt=lease.attempt, token=lease.token, freeze_at_s=at_s))

    def _on_log_ack(self, ack: wire.LogAck) -> None:
        key = ack.attempt, ack.rank
        if not self.ship.acked(ack):
            return
        held = self._held.get(key)
        if held is None:
            return
        out_bytes, err_bytes = self.ship.stored(key)
        self._to_keeper(channel.LogStored(attempt=ack.attempt, rank=ack.rank, out_bytes=out_bytes, err_bytes=err_bytes))
        self._forget_if_done(held)

    def _of(self, attempt: str) -> list[Held]:
        """Its ranks here: one, as each rank is on a provider of its own; were there more, they are ranks 0 and up."""
        held = self._held.get((attempt, 0))
        return [held] if held is not None else [h for key, h in self._held.items() if key[0] == attempt]

    def _on_staged(self, key: Key) -> None:
        """Nothing is brought for it any more."""
        if key in self._held:
            self._forget_if_done(self._held[key])

    def _on_looked_into(self, key: Key) -> None:
        """What its program traced is taken care of."""
        if key in self._held:
            self._forget_if_done(self._held[key])

    def _on_tended(self, key: Key, verdict: ExitInfo | None) -> None:
        """Its outputs and its last checkpoint are where they should be, or will never be."""
        held = self._held.get(key)
        if held is None:
            return
        held.uploading, held.verdict = False, verdict
        self._changed.set()
        if held.said != held.phase:
            self._tell(held)
        self._forget_if_done(held)

    def _forget_if_done(self, held: Held) -> None:
        if not held.settled or held.now.phase != "exited" or not self.ship.complete(held.key):
            return
        if self._stager.holds(held.key) or self._tending.holds(held.key) or self._tracing.holds(held.key):
            return  # its directories are still in use
        key = held.key
        del self._held[key]
        self.ship.drop(key)
        self._tending.drop(key)
        self._tracing.drop(key)
        self._forgotten[key] = None
        if len(self._forgotten) > FORGOTTEN_MAX:
            del self._forgotten[next(iter(self._forgotten))]
        self._to_keeper(channel.Forget(attempt=key[0], rank=key[1], token=held.now.token))

    # ---- what the coordinator hears

    def hello(self, room: int) -> tuple[wire.HeldAttempt, ...]:
        """Everything that is held, in `room` bytes, for a hello that is about to be said."""
        for held in self._held.values():
            held.said = held.phase
        return held_attempts(list(self._held.values()), room)

    def connected(self, say: Callable[[wire.FromAgent], None]) -> None:
        """Welcomed: from now on changes are told, and first what changed since the hello."""
        self._say = say
        self.ship.restart()
        now_s = boot_s()
        for held in self._held.values():
            held.answered = False
            self._say_again_after(held, now_s)
            if held.said != held.phase:
                self._tell(held)

    def disconnected(self) -> None:
        """Nobody hears us."""
        self._say = None

    def again(self) -> None:
        """Say again what was not answered. Called every second or so."""
        now_s = boot_s()
        for held in self._held.values():
            if held.again_s <= now_s and not (held.phase == "leased" and held.answered):
                self._tell(held)

    def named(self) -> tuple[str, ...]:
        """What heartbeats name: every attempt whose lease is to be renewed."""
        return tuple(held.now.attempt for held in self._held.values() if held.phase in LIVE)

    def running(self) -> dict[Key, channel.Now]:
        """What has processes here."""
        return {key: held.now for key, held in self._held.items() if held.now.phase in RUNNING}

    def busy(self) -> bool:
        return any(held.phase in AT_WORK for held in self._held.values())

    async def leave(self, patience: Patience) -> None:
        """Nothing new is taken, what runs is ended, and the coordinator learns of it: all of that within bounds."""
        self.leaving = True
        if self._say is not None:
            await self._tending.save_all("the agent leaves")
        self._to_keeper(channel.EndAll(why="the agent leaves", grace_s=patience.end_s))
        if self._held or self._asked:
            logger.info("leaving: %d attempts are ended first", len(self._held) + len(self._asked))
        within_s = patience.end_s + patience.report_s
        if not await self._within(within_s, lambda: all(held.now.phase == "exited" for held in self._held.values())):
            logger.warning("not every attempt ended within %.0f s", within_s)
        elif self._say is not None and not await self._within(patience.send_s, lambda: not self._tending.sends()):
            logger.warning("results are still on their way: this agent goes on with them when it is back")
        elif self._say is not None and not await self._within(
            patience.report_s, lambda: all(held.settled for held in self._held.values())
        ):
            logger.warning("the coordinator has not settled every end; this agent reports them when it is back")

    async def some(self) -> None:
        """Wait until something is held: an idle agent wakes up for its heartbeats alone."""
        while not self._held:
            self._came.clear()
            await self._came.wait()

    async def _within(self, within_s: float, true: Callable[[], bool]) -> bool:
        """Wait until something becomes true of the book, or that long. Whether it did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        return true()

    def stay(self) -> None:
        """Nobody wants us gone any more: work is taken again."""
        self.leaving = False

    def _tell(self, held: Held) -> None:
        """Say how it stands."""
        now = held.now
        if self._say is None:
            return
        if held.now.phase == "exited" and (last := self._tending.last_report(now)) is not None:
            self._say(last)
        match held.phase:
            case "leased":
                self._say(wire.Granted(attempt=now.attempt, rank=now.rank, token=now.token))
            case "staging" | "running" | "frozen" | "uploading" as phase:
                ran_ms = max(0, round((boot_s() - now.began_s) * 1_000)) if now.began_s else 0
                self._say(wire.Phase(attempt=now.attempt, rank=now.rank, token=now.token, phase=phase, ran_ms=ran_ms))
            case "exited":
                self._say(wire.Exited(attempt=now.attempt, rank=now.rank, token=now.token, exit=exit_of(held.exit)))
        held.said = held.phase
        self._say_again_after(held, boot_s())

    def _say_again_after(self, held: Held, now_s: float) -> None:
        wait_s = PHASE_AGAIN_S if held.phase in AT_WORK else AGAIN_S
        held.again_s = now_s + wait_s * (1 + JITTER * self._draw())

    def _refuse(self, attempt: str, rank: int, token: LeaseToken, why: str) -> None:
        if self._say is not None:
            self._say(wire.Refused(attempt=attempt, rank=rank, token=token, why=why[:500]))

    def _unknown(self, attempt: str, rank: int, token: LeaseToken) -> None:
        """It is not here: for the coordinator that is an end like another. What ended is settled there already."""
        if self._say is not None and (attempt, rank) not in self._forgotten:
            exit_said = wire.Exit(cause=EndCause.AGENT, text="it is not held here")
            self._say(wire.Exited(attempt=attempt, rank=rank, token=token, exit=exit_said))

    def _tell_progress(self) -> None:
        """What programs said of how far they are."""
        if self._say is not None:
            for report in self._tending.reports.ready():
                self._say(report)

    def status(self) -> tuple[AttemptStatus, ...]:
        """For people."""
        return tuple(
            status_of(held, sum(self.ship.stored(held.key)), self._tending.problem(held.key))
            for held in self._held.values()
        )
