"""Every attempt that this agent holds: what the daemon asks for, what ends, what is due, and what is said about it.

Nothing is said before it is durable: see `telling`.
"""

from __future__ import annotations

import heapq
import math
import os
import resource
import select
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from coordinator import wire
from coordinator.agent import channel
from coordinator.agent.attempt import Attempt, Usage
from coordinator.agent.cgroup import CgroupTree
from coordinator.agent.clock import boot_s
from coordinator.agent.guard import Guard
from coordinator.agent.journal import Ended, Forgotten, Held, Journal
from coordinator.agent.launching import OVER_AT_ONCE, Launcher
from coordinator.agent.lineup import LineUp
from coordinator.agent.log import logger
from coordinator.agent.places import Places
from coordinator.agent.pump import Pump
from coordinator.agent.spawn import CannotStart
from coordinator.agent.starter import own_peak
from coordinator.agent.starters import Starters
from coordinator.agent.starting import Ended as ProcessEnded
from coordinator.agent.telling import Telling, Voice
from coordinator.agent.tree import tell
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken, Resources

TEXT_CHARS_MAX = 1_000
STREAMS_S = 0.02
"""So long after its start the streams of a program are watched: those of a shorter one are read once, at its end."""
SAVING_S = 5.0
"""The daemon may take so much longer to have programs save their state than they were given for it."""

Watch = Callable[[int, int, Callable[[], None]], None]
"""(descriptor, poll mask, what to call): mask 0 ends it."""


class Custody:
    def __init__(
        self,
        launcher: Launcher,
        journal: Journal,
        places: Places,
        guard: Guard,
        watch: Watch,
        offer: Resources,
        kept_frozen_s: float = wire.KEPT_FROZEN_S,
    ) -> None:
        self._launcher = launcher
        self._journal = journal
        self._places = places
        self._guard = guard
        self._watch = watch
        self._kept_frozen_s = kept_frozen_s
        self._attempts: dict[str, Attempt] = {}
        self._by_main: dict[int, Attempt] = {}
        """By the process id of the main process, where this process is its parent."""
        self._starting: dict[int, Attempt] = {}
        """By the number of the order that a starter was given; likewise the next ones, which run."""
        self._by_order: dict[int, Attempt] = {}
        setup = launcher.setup()
        self._starters = launcher.starters = Starters(setup, watch, self) if setup is not None else None
        self._appointments: list[tuple[float, str]] = []
        self._telling = Telling(journal, self._attempts)
        self._begun: deque[tuple[float, Attempt]] = deque()
        """Their streams are not watched yet, and will be at that time."""
        self._due_to_run: list[Attempt] = []
        self._leaving = ""
        self._line = LineUp(offer)
        for name, held in journal.held.items():
            attempt = Attempt(held, places.used(held.place), 0.0, kept_frozen_s)
            attempt.exit, attempt.phase, attempt.saved = journal.exits[name], "exited", True
            attempt.left_files = True
            attempt.user = launcher.user_id(held.user)
            attempt.lengths = (attempt.exit.out_bytes, attempt.exit.err_bytes)
            self._attempts[name] = attempt

    # ---- asking

    def alive(self) -> bool:
        """Whether any attempt is left that has not ended."""
        return any(attempt.exit is None for attempt in self._attempts.values())

    def due_s(self) -> float:
        """When `look` or `flush` has something to do."""
        return min(
            self._appointments[0][0] if self._appointments else math.inf,
            self._begun[0][0] if self._begun else math.inf,
            self._telling.due_s(),
        )

    # ---- what the daemon asks for

    def hear(self, message: channel.ToKeeper) -> None:
        try:
            self._hear(message)
        except Exception as error:
            attempt = (
                None if isinstance(message, channel.Pulse | channel.EndAll) else self._attempts.get(message.attempt)
            )
            if attempt is None:
                raise
            self._fault(attempt, error)

    def _hear(self, message: channel.ToKeeper) -> None:
        now_s = boot_s()
        match message:
            case channel.Hold():
                self._hold(message)
            case channel.Run():
                if attempt := self._current(message.attempt, message.token):
                    attempt.wanted = attempt.phase == "leased" and not attempt.starting
                    if attempt.plan is None:  # what the first daemon told stands: the secret is in the plan, too
                        attempt.plan, attempt.secret = message.plan, message.secret
                    attempt.left_files = attempt.left_files or message.plan is None
                    if not attempt.in_line:
                        self._due_to_run.append(attempt)
            case channel.Deadline():
                if attempt := self._current(message.attempt, message.token):
                    before = attempt.phase
                    with self._guard.lock:
                        attempt.renew(message.freeze_at_s, now_s)
                    if attempt.wanted and not attempt.in_line:
                        self._due_to_run.append(attempt)
                    self._after(attempt, before)
            case channel.End():
                attempt = self._current(message.attempt, message.token)
                if attempt is not None and attempt.follows and message.unbegun:
                    attempt.unless_begun = message.cause, message.why[:TEXT_CHARS_MAX], message.code
                    self._call_back(attempt)
                elif attempt is not None and (attempt.in_line or not message.unbegun):
                    self._end(attempt, message.cause, message.why, message.grace_s, now_s, message.code)
            case channel.EndAll():
                self.end_all(message.why, message.grace_s, refuse=False)
            case channel.Tell():
                attempt = self._current(message.attempt, message.token)
                if attempt is not None and attempt.phase == "running" and attempt.tree is not None:
                    tell(attempt.tree, message.signum)
            case channel.LogStored():
                if attempt := self._attempts.get(message.attempt):
                    attempt.on_stored(message.out_bytes, message.err_bytes)
                    self._attend_streams(attempt)
            case channel.Forget():
                attempt = self._current(message.attempt, message.token)
                if attempt is not None and attempt.saved:
                    self._forget(attempt)
            case channel.Pulse():
                """The keeper's own."""

    def end_all(self, why: str, grace_s: float, refuse: bool, saved_first: bool = False) -> float:
        """The agent leaves: everything ends, with its own grace but no more than this. `refuse`: for good.

        `saved_first`: those whose state can be saved are left to the daemon, which has that done and says `EndAll`; for
        how many seconds at most is returned.
        """
        if refuse:
            self._leaving = why
        left_s = 0.0
        for attempt in list(self._attempts.values()):
            if attempt.exit is not None:
                continue
            rule = attempt.plan.checkpoint if attempt.plan is not None else None
            if saved_first and rule is not None and attempt.phase == "running":
                left_s = max(left_s, rule.grace_ms / 1000 + SAVING_S)
            else:
                own_s = attempt.plan.grace_ms / 1000 if attempt.plan is not None else 0.0
                self._end(attempt, EndCause.AGENT, why, min(grace_s, own_s), boot_s())
        return left_s

    def _current(self, name: str, token: LeaseToken) -> Attempt | None:
        attempt = self._attempts.get(name)
        return attempt if attempt is not None and attempt.held.token == token else None

    def _hold(self, hold: channel.Hold) -> None:
        known = self._attempts.get(hold.attempt)
        if known is not None and known.held.token == hold.token:
            self._telling.changed(hold.attempt)
            return
        why = self._journal.why_stale(hold.attempt, hold.token) or self._leaving
        if not why and known is not None:
            why = "another lease of this attempt is held"
        if not why and len(self._attempts) >= wire.ATTEMPTS_MAX:
            why = f"{wire.ATTEMPTS_MAX} attempts are held here"
        place = None
        if not why:
            try:
                place = self._places.take(again=not self._launcher.gives_users)
            except OSError as error:
                why = f"no directory could be made: {error.strerror}"
        if place is None:
            self._telling.say(channel.No(attempt=hold.attempt, rank=hold.rank, token=hold.token, why=why))
            return
        user = self._journal.next_user() if self._launcher.gives_users else 0
        held = Held(attempt=hold.attempt, rank=hold.rank, token=hold.token, place=place.number, user=user)
        self._journal.add(held)
        self._attempts[hold.attempt] = attempt = Attempt(held, place, hold.freeze_at_s, self._kept_frozen_s)
        attempt.user = self._launcher.user_id(user)
        self._line.hold(attempt, hold.share, hold.prefetched)
        if self._starters is not None:
            self._starters.warm()
        self._after(attempt, "")

    def run_due(self) -> None:
        """Start what was ordered in this turn, in its order, and those whose turn it is now that others have ended."""
        now_s = boot_s()
        while (first := self._line.next(now_s)) is not None:
            if first.starting:
                self._have_begun(first)
            else:
                self._due_to_run.append(first)
        due, self._due_to_run = self._due_to_run, []
        try:
            for attempt in due:
                self._run(attempt)
            if self._starters is not None:
                self._starters.flush()  # who follows whom is known then
                self._send_ahead(self._starters, now_s)
        finally:
            self._launcher.launched()
            if self._starters is not None:
                self._starters.flush()

    def _send_ahead(self, starters: Starters, now_s: float) -> None:
        """Orders of those that are next in line wait at the starters for the room of their like."""
        while (first := self._line.ahead(now_s)) is not None:
            taker = starters.taker(self._line.kind(first.share)) if self._launcher.may_wait(first) else 0
            if not taker:
                return
            self._line.follow(first)
            self._run(first, taker)

    def _have_begun(self, attempt: Attempt) -> None:
        """There is room for one that waits at a starter."""
        assert self._starters is not None
        attempt.has_turn()
        self._starters.turn(attempt.order)
        self._after(attempt, attempt.phase)

    def _call_back(self, attempt: Attempt) -> None:
        """One that waits at a starter is to be begun no more."""
        if not attempt.recalled:
            assert self._starters is not None
            attempt.recall(boot_s())
            self._starters.call_back(attempt.order)
            self._after(attempt, attempt.phase)

    def _run(self, attempt: Attempt, taker: int = 0) -> None:
        try:
            self._run_if_held(attempt, boot_s(), taker)
        except Exception as error:
            self._launcher.launched()  # what is ended is its group, and we may be inside
            self._fault(attempt, error)

    def _run_if_held(self, attempt: Attempt, now_s: float, taker: int) -> None:
        """Start it, once, unless its lease is over; then the renewal starts it. `taker`: who does as soon as there is
        room."""
        if not attempt.wanted or attempt.phase != "leased" or now_s >= attempt.freeze_at_s:
            return
        attempt.wanted = False
        try:
            number = self._launcher.launch(attempt, self._line.kind(attempt.share), taker)
        except CannotStart as refused:
            logger.info("attempt %s could not be started: %s", attempt.name, refused.text)
            attempt.exit = ExitInfo(cause=EndCause.START, code=refused.code, text=refused.text[:TEXT_CHARS_MAX])
            attempt.phase = "exited"
        else:
            self._guard.watch(attempt)
            if number:
                self._starting[number] = attempt
            else:
                assert attempt.tree is not None
                self._by_main[attempt.tree.main] = attempt
                self._attend_streams(attempt)
        self._after(attempt, "leased")

    # ---- what starters tell

    def on_started(self, number: int, pid: int) -> None:
        attempt = self._starting.pop(number)
        if attempt.exit is not None:
            assert attempt.tree is not None
            attempt.tree.kill()  # it was given up meanwhile
            return
        self._by_order[number] = attempt
        before = attempt.phase
        try:
            assert isinstance(attempt.tree, CgroupTree)
            attempt.tree.left()
            attempt.began(pid, boot_s())
            if not attempt.tree.bound_memory():
                attempt.end(EndCause.OOM, OVER_AT_ONCE, 0.0, boot_s())
            self._begun.append((boot_s() + STREAMS_S, attempt))
        except Exception as error:
            self._fault(attempt, error)
        self._after(attempt, before)

    def on_refused(self, number: int, code: int, text: str) -> None:
        attempt = self._starting.pop(number)
        if attempt.exit is not None:
            return
        logger.info("attempt %s could not be started: %s", attempt.name, text)
        before = attempt.phase
        attempt.refused(code, text[:TEXT_CHARS_MAX])
        self._after(attempt, before)

    def on_returned(self, number: int) -> None:
        attempt = self._starting.pop(number)
        if attempt.exit is None:
            self._have_back(attempt)

    def _have_back(self, attempt: Attempt) -> None:
        before = attempt.phase
        try:
            attempt.returned(boot_s())
            self._line.returned(attempt)
            if not attempt.in_line:
                self._due_to_run.append(attempt)
        except Exception as error:
            self._fault(attempt, error)
        self._after(attempt, before)

    def on_ended(self, number: int, ended: ProcessEnded) -> None:
        self._on_main(self._by_order.pop(number, None), ended.status, Usage(ended.cpu_s, ended.memory_max, ended.ran_s))
        follower = self._starting.get(ended.successor)
        if follower is not None and follower.exit is None:
            self._line.turn(follower)
            follower.has_turn()
            self._after(follower, follower.phase)

    def on_lost(self, numbers: Sequence[int], running: Mapping[int, int]) -> None:
        now_s = boot_s()
        lost = []
        for one in [self._starting.pop(number) for number in numbers]:
            if _was_not_begun(one):
                one.passed_on = True
                self._have_back(one)
            else:
                lost.append(one)
        for pid, number in running.items():
            attempt = self._by_order.pop(number, None)
            if attempt is not None and is_our_child(pid):
                self._by_main[pid] = attempt
            elif attempt is not None:
                lost.append(attempt)
        for attempt in lost:
            if attempt.exit is not None:
                continue
            before = attempt.phase
            try:
                attempt.lost("the process of the agent that started it died", now_s)
                if attempt.exit is None and isinstance(attempt.tree, CgroupTree):
                    self._await_empty(attempt, attempt.tree)
            except Exception as error:
                self._fault(attempt, error)
            self._after(attempt, before)

    def _end(
        self, attempt: Attempt, cause: EndCause, why: str, grace_s: float, now_s: float, code: int | None = None
    ) -> None:
        before = attempt.phase
        attempt.end(cause, why[:TEXT_CHARS_MAX], grace_s, now_s, code)
        self._after(attempt, before)
        if attempt.follows and attempt.exit is None:
            self._call_back(attempt)

    def _forget(self, attempt: Attempt) -> None:
        del self._attempts[attempt.name]
        self._telling.forget(attempt.name)
        self._journal.add(Forgotten(attempt=attempt.name))
        self._places.give_back(attempt.place, again=attempt.held.user == 0, files=attempt.left_files)

    # ---- what happens by itself

    def on_child(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """A child was reaped; it may be the main process of an attempt."""
        number = self._starters.on_child(pid) if self._starters is not None else None
        attempt = self._by_main.pop(pid, None) if number is None else self._by_order.pop(number, None)
        if attempt is not None:
            # a process counts what it was copied from as its own: no more than we had means that it is not known
            memory = usage.ru_maxrss * 1024
            self._on_main(attempt, status, Usage(usage.ru_utime + usage.ru_stime, memory if memory > own_peak() else 0))

    def _on_main(self, attempt: Attempt | None, status: int, usage: Usage) -> None:
        if attempt is None:
            return
        before = attempt.phase
        try:
            attempt.on_main_ended(status, usage, boot_s())
            if attempt.exit is None and isinstance(attempt.tree, CgroupTree):
                self._await_empty(attempt, attempt.tree)
        except Exception as error:
            self._fault(attempt, error)
        self._after(attempt, before)

    def look(self, now_s: float) -> None:
        """Do what is due: freeze, end, kill, look again who is left."""
        self._guard.tell()
        while self._begun and self._begun[0][0] <= now_s:
            self._attend_streams(self._begun.popleft()[1])
        while self._appointments and self._appointments[0][0] <= now_s:
            attempt = self._attempts.get(heapq.heappop(self._appointments)[1])
            if attempt is not None and attempt.exit is None:
                before, attempt.due_told_s = attempt.phase, -1.0
                try:
                    attempt.look(now_s)
                    if attempt.overdue(now_s) and attempt.follows and not attempt.recalled:
                        self._call_back(attempt)
                    elif attempt.overdue(now_s):
                        self._abandon(attempt)
                except Exception as error:
                    self._fault(attempt, error)
                self._after(attempt, before)

    def _abandon(self, attempt: Attempt) -> None:
        """It must not be started any more: who was told to is killed, if need be, and what may have been started."""
        assert self._starters is not None
        assert attempt.tree is not None
        logger.warning("attempt %s was not started in time", attempt.name)
        attempt.abandoned = True
        attempt.tree.kill()
        self._starters.recall(attempt.order)

    def _fault(self, attempt: Attempt, error: Exception) -> None:
        """Something here went wrong with one attempt: it ends, with the reason; the others go on."""
        logger.error("attempt %s is ended: the agent failed at it", attempt.name, exc_info=error)
        before = attempt.phase
        attempt.give_up(f"the agent failed at it: {type(error).__name__}: {error}"[:TEXT_CHARS_MAX], boot_s())
        self._after(attempt, before)

    def _after(self, attempt: Attempt, before: str) -> None:
        """Whatever was done to it: is there something to tell, to store, to wait for?"""
        if attempt.phase == "running" and before == "leased":
            self._telling.begun(attempt.name, boot_s())
        elif attempt.phase != before:
            self._telling.changed(attempt.name)
            if attempt.exit is not None and not attempt.saved:
                self._guard.forget(attempt)
                self._line.over(attempt)
                attempt.untouched = self._places.untouched(attempt.place)
                self._journal.add(Ended(attempt=attempt.name, exit=attempt.exit))
        due_s = attempt.due_s()
        if due_s < math.inf and attempt.due_told_s != due_s:
            attempt.due_told_s = due_s
            heapq.heappush(self._appointments, (due_s, attempt.name))

    def _await_empty(self, attempt: Attempt, tree: CgroupTree) -> None:
        fd = tree.events()

        def gone() -> None:
            self._watch(fd, 0, gone)
            os.close(fd)
            before = attempt.phase
            try:
                attempt.look(boot_s())
                if attempt.exit is None:
                    self._await_empty(attempt, tree)
            except Exception as error:
                self._fault(attempt, error)
            self._after(attempt, before)

        self._watch(fd, select.EPOLLPRI, gone)

    # ---- streams

    def _attend_streams(self, attempt: Attempt) -> None:
        for pump in attempt.pumps:
            if pump.open:
                wanted = 0 if pump.blocked else select.EPOLLIN
                self._watch(pump.fileno(), wanted, lambda pump=pump: self._pump(attempt, pump))  # type: ignore[misc]

    def _pump(self, attempt: Attempt, pump: Pump) -> None:
        if not pump.open:
            return  # closed by something else of this turn
        fd, overran = pump.fileno(), pump.overran
        try:
            pump.move()
        except Exception as error:
            self._fault(attempt, error)
            return
        self._telling.grown(attempt.name)
        if not pump.open or pump.blocked:
            self._watch(fd, 0, lambda: None)
        if pump.overran and not overran:
            before = attempt.phase
            attempt.log_is_full(boot_s())
            self._after(attempt, before)

    # ---- speaking

    def meet(self) -> None:
        """A new daemon: tell it everything, then that this was everything."""
        self._telling.anew()
        if self._leaving:
            self._telling.say(channel.Leave())

    def close(self) -> None:
        """Nothing is started any more; what runs stays."""
        if self._starters is not None:
            self._starters.close()

    def leave(self) -> None:
        self._telling.say(channel.Leave())

    def flush(self, say: Voice, now_s: float) -> bool:
        """Make durable, then tell. True: something is left that the daemon had no room for."""
        return self._telling.flush(say, now_s)


def _was_not_begun(attempt: Attempt) -> bool:
    """Of one whose starter has died: nobody was in its group, and it is the first time. An order that is the death of
    starters is not passed on and on."""
    if attempt.exit is not None or attempt.abandoned or attempt.passed_on:
        return False
    return isinstance(attempt.tree, CgroupTree) and not attempt.tree.visited()


def is_our_child(pid: int) -> bool:
    """Whether this process will reap it."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
