"""The keeper's starters: who of them starts what, what they tell, and what is made of the death of one.

They are made when there is something to start, and die with the keeper. A few are enough: a start waits, mostly for
the kernel, so that two of them keep two CPUs busy; more would only take turns.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from coordinator.agent import channel, starting
from coordinator.agent.clock import boot_s
from coordinator.agent.log import logger
from coordinator.agent.spawn import NOT_STARTED
from coordinator.agent.starter import END_FD
from coordinator.agent.starting import Ended, Order, Refused, Report, Returned, Setup, Started

COMMAND = (sys.executable, "-P", "-m", "coordinator.agent.starter")
STARTERS = max(1, min(4, os.cpu_count() or 1))
AT_ONCE = 8
"""Orders to begin that a starter has at once: the others are not behind one that waits for a disk."""
AHEAD = 16
"""Orders that wait at a starter for room: as many as begin there before the keeper hears of it."""
TOGETHER = 4
"""Orders that travel in one message though others could follow some of them at the same time: a message, a wake-up and
a way out of the groups cost more than what is gained by a start that is a millisecond earlier. For the same reason who
has fewer to follow is given the next one before somebody idle is."""
PROMPT_S = 0.01
"""Unless one of them is older than this: it may wait for a disk."""
ANSWER_S = 0.1
"""Nobody is to wait for room at one that has not answered for so long."""
STILLBORN_MAX = 3
"""Starters in a row that died before they told anything: there are none on this machine, then."""
_DEFAULT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Hearer(Protocol):
    """Who is told. Numbers are those of orders."""

    def on_started(self, number: int, pid: int) -> None: ...

    def on_refused(self, number: int, code: int, text: str) -> None: ...

    def on_returned(self, number: int) -> None:
        """It waited for room, and was not begun and will not be."""

    def on_ended(self, number: int, ended: Ended) -> None:
        """`ended.successor` is being begun in its room."""

    def on_lost(self, numbers: Sequence[int], running: Mapping[int, int]) -> None:
        """A starter died: of these orders it is not known whether they were begun, and who has these pids (each with
        its order) is ours now, unless it ended unseen."""


class _One:
    """A starter that runs."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid = pid
        self.end = end
        self.ordered: dict[int, float] = {}
        """What it is to begin and has not answered, and when it was told to, the oldest first."""
        self.ahead: dict[int, int] = {}
        """What waits there for room, and its kind."""
        self.kinds: dict[int, int] = {}
        """Of the orders that it has: what it is to begin, and what runs."""
        self.unsaid: deque[tuple[bytes, tuple[int, ...]]] = deque()
        """Words that it has to hear in their order, beside the orders to begin."""
        self.running: dict[int, int] = {}
        """Its children, with their orders. Another starter may have been given the number of one that has ended here,
        and say so first: a process id alone tells nobody apart."""
        self.spoke = False
        self.dead = False
        self.mask = select.EPOLLIN

    def take_turn(self, number: int) -> None:
        """One that waited is begun now."""
        self.kinds[number] = self.ahead.pop(number)
        self.ordered[number] = boot_s()

    def forget(self, number: int) -> None:
        """It has ended, or will not be begun."""
        self.ordered.pop(number, None)
        self.ahead.pop(number, None)
        self.kinds.pop(number, None)

    def drop_unsaid(self) -> None:
        for _, fds in self.unsaid:
            for fd in fds:
                os.close(fd)
        self.unsaid.clear()

    def is_prompt(self, now_s: float) -> bool:
        """Whether what it is given now is followed soon."""
        return len(self.ordered) < TOGETHER and self.answers(now_s, PROMPT_S)

    def answers(self, now_s: float, within_s: float) -> bool:
        """Whether nothing that it was told to begin is older than that."""
        return not self.ordered or next(iter(self.ordered.values())) > now_s - within_s


class Starters:
    """`watch` calls when a descriptor is ready (`keeper._Watched`)."""

    def __init__(
        self,
        setup: Setup,
        watch: Callable[[int, int, Callable[[], None]], None],
        hearer: Hearer,
        most: int = STARTERS,
    ) -> None:
        self._setup = setup
        self._watch = watch
        self._most = most
        self._all: list[_One] = []
        self._dying: dict[int, _One] = {}
        """By process id: they say no more, and are not reaped."""
        self._waiting: deque[tuple[Order, bytes, tuple[int, ...]]] = deque()
        self._stillborn = 0
        self._hearer = hearer

    @property
    def possible(self) -> bool:
        """False: they do not live on this machine."""
        return self._stillborn < STILLBORN_MAX

    @property
    def _another_possible(self) -> bool:
        return len(self._all) < self._most and self.possible

    def warm(self) -> None:
        """Something is to be started soon."""
        if not self._all:
            self._make()

    def put(self, order: Order, fds: tuple[int, ...]) -> None:
        """Have it started. The descriptors are closed here, when they were sent."""
        self._waiting.append((order, starting.encoded(order), fds))

    # ---- orders that wait for room

    def put_ahead(self, taker: int, order: Order, fds: tuple[int, ...]) -> None:
        """Have it begun by this one in the room of one of its kind, or when its turn is told. The descriptors are
        closed here, when they were sent."""
        one = next(one for one in self._all if one.pid == taker)
        one.ahead[order.number] = order.kind
        one.unsaid.append((starting.encoded(order), fds))

    def taker(self, kind: int) -> int:
        """Who would begin one more of this kind when one of it ends, by process id: who has the fewest that wait for
        each program that they could follow. Nobody has them who has more than its part of the programs: what ends there
        goes to another. 0: nobody."""
        now_s = boot_s()
        best, least = 0, float(AHEAD)
        fair = sum(len(one.kinds) for one in self._all) // max(1, len(self._all)) + 1
        for one in self._all:
            most = len(one.ahead)
            if one.dead or most >= AHEAD or len(one.kinds) > fair or not one.answers(now_s, ANSWER_S):
                continue
            followed = sum(1 for other in one.kinds.values() if other == kind)
            if followed and most / followed < least:
                best, least = one.pid, most / followed
        return best

    def turn(self, number: int) -> None:
        """There is room for one that waits."""
        for one in self._all:
            if number in one.ahead:
                one.take_turn(number)
                one.unsaid.append((starting.encoded(starting.Turn(number)), ()))

    def call_back(self, number: int) -> None:
        """One that waits is to be returned; if it was begun meanwhile, it runs."""
        for one in self._all:
            if number in one.ahead:
                one.unsaid.append((starting.encoded(starting.Recall(number)), ()))
                self._say(one)

    def _say(self, one: _One) -> None:
        """Have it hear what it has to; the rest when there is room for it."""
        while one.unsaid and not one.dead:
            some = [one.unsaid[n] for n in range(min(len(one.unsaid), starting.ORDERS_MAX))]
            fds = [fd for _, fds in some for fd in fds]
            try:
                if not starting.send_words(one.end, [data for data, _ in some], fds):
                    break
            except OSError:
                one.dead = True  # its end will be heard
                break
            for _ in some:
                one.unsaid.popleft()
            for fd in fds:
                os.close(fd)
        mask = select.EPOLLIN | select.EPOLLOUT if one.unsaid and not one.dead else select.EPOLLIN
        if mask != one.mask:
            one.mask = mask
            self._watch(one.end.fileno(), mask, lambda: self._attend(one))

    def _attend(self, one: _One) -> None:
        """It has said something, or is gone, or has room for what it has to hear."""
        self._hear(one)
        if one in self._all:
            self._say(one)

    # ---- sending

    def flush(self) -> None:
        """Send what was put, as far as it may be on its way."""
        self._begin_waiting()
        for one in self._all:
            if one.unsaid:
                self._say(one)

    def _begin_waiting(self) -> None:
        while self._waiting:
            now_s = boot_s()
            live = [one for one in self._all if not one.dead]
            prompt = [one for one in live if one.is_prompt(now_s)]
            one = min(prompt, key=lambda one: len(one.kinds) // TOGETHER, default=None)
            if one is None or len(one.kinds) >= TOGETHER:
                if self._another_possible:
                    one = self._make() or one
                one = one or min(live, key=lambda one: len(one.ordered), default=None)
            if one is None and self._all:
                return  # they are dying: then another is made
            if one is None:
                numbers = [order.number for order, _, _ in self._waiting]
                self._drop_waiting()
                self._lost(numbers, {})
                return
            room = AT_ONCE - len(one.ordered)
            if len(one.kinds) < TOGETHER and self._another_possible:
                room = min(room, TOGETHER - len(one.kinds))  # another is made for the rest
            if room <= 0 or not self._send(one, min(room, max(TOGETHER, len(self._waiting) // len(self._all)))):
                return

    def _send(self, one: _One, count: int) -> bool:
        some = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        try:
            sent = starting.send_words(one.end, [data for _, data, _ in some], [fd for _, _, fds in some for fd in fds])
        except OSError:
            sent, one.dead = False, True  # its end will be heard; until then it is given nothing
        if not sent:
            self._waiting.extendleft(reversed(some))
            return False
        now_s = boot_s()
        for order, _, fds in some:
            one.ordered[order.number] = now_s
            one.kinds[order.number] = order.kind
            for fd in fds:
                os.close(fd)
        return True

    def recall(self, number: int) -> None:
        """This order must not be followed any more: `on_refused`, or the death of who has it."""
        for place, (order, _, fds) in enumerate(self._waiting):
            if order.number == number:
                del self._waiting[place]
                for fd in fds:
                    os.close(fd)
                self._hearer.on_refused(number, NOT_STARTED, "it was not started in time")
                return
        for one in self._all:
            if number in one.ordered or number in one.ahead:
                os.kill(one.pid, signal.SIGKILL)

    def close(self) -> None:
        """They end, and leave whatever they started."""
        self._drop_waiting()
        for one in self._all:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(one.pid, 0)
            one.drop_unsaid()
            one.end.close()
        self._all.clear()

    def _drop_waiting(self) -> None:
        for _, _, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()

    # ---- their lives

    def _make(self) -> _One | None:
        ours, theirs = channel.socket_pair()
        with theirs:
            # not the number that it gets: that one would be closed in it
            given = os.dup(theirs.fileno()) if theirs.fileno() == END_FD else theirs.fileno()
            try:
                pid = os.posix_spawn(
                    COMMAND[0],
                    COMMAND,
                    {k: v for k, v in os.environ.items() if not k.startswith("COORD_")},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, given, END_FD),
                    ],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_DEFAULT,
                )
                starting.send_setup(ours, self._setup)
            except OSError as error:
                logger.error("a process that starts programs could not be made: %s", error.strerror)
                ours.close()
                self._stillborn += 1
                return None
            finally:
                if given != theirs.fileno():
                    os.close(given)
        one = _One(pid, ours)
        self._all.append(one)
        self._watch(ours.fileno(), select.EPOLLIN, lambda: self._attend(one))
        return one

    def _hear(self, one: _One, reaped: bool = False) -> None:
        try:
            while (reports := starting.hear_reports(one.end)) is not None:
                one.spoke, self._stillborn = True, 0
                for report in reports:
                    self._take(one, report)
        except BlockingIOError:
            self.flush()
            return
        except msgspec.DecodeError:
            logger.error("a starter says what the keeper does not understand")
        self._bury(one, reaped)

    def _take(self, one: _One, report: Report) -> None:
        match report:
            case Started():
                one.ordered.pop(report.number, None)
                one.running[report.pid] = report.number
                self._hearer.on_started(report.number, report.pid)
            case Refused():
                one.forget(report.number)
                self._hearer.on_refused(report.number, report.code, report.text)
            case Returned():
                one.forget(report.number)
                self._hearer.on_returned(report.number)
            case Ended():
                if report.successor in one.ahead:  # it may have been told already that it is its turn
                    one.take_turn(report.successor)
                number = one.running.pop(report.pid, None)
                if number is not None:
                    one.forget(number)
                    self._hearer.on_ended(number, report)

    def _bury(self, one: _One, reaped: bool = False) -> None:
        """It says no more. What its children are is known when it is gone: before, they are not ours."""
        if one not in self._all:
            return
        self._all.remove(one)
        self._dying[one.pid] = one
        self._watch(one.end.fileno(), 0, lambda: None)
        one.drop_unsaid()
        one.end.close()
        if not reaped:
            os.kill(one.pid, signal.SIGKILL)
        self._stillborn += not one.spoke
        self.flush()

    def on_child(self, pid: int) -> int | None:
        """A child was reaped: it may be a starter. -> the order that it was begun by, if it was a program of one that
        has died since."""
        for one in self._all:
            if one.pid == pid:
                self._hear(one, reaped=True)  # what it said last
                self._bury(one, reaped=True)
                break
        gone = self._dying.pop(pid, None)
        if gone is None:
            orphaned_by = next((one for one in self._everyone() if pid in one.running and is_dead(one.pid)), None)
            return orphaned_by.running.pop(pid) if orphaned_by is not None else None
        in_doubt = [*gone.ordered, *gone.ahead]
        logger.warning("a process that starts programs died; %d starts are in doubt", len(in_doubt))
        self._lost(in_doubt, gone.running)
        return None

    def _everyone(self) -> list[_One]:
        return [*self._all, *self._dying.values()]

    def _lost(self, numbers: Sequence[int], running: Mapping[int, int]) -> None:
        self._hearer.on_lost(numbers, running)


def is_dead(pid: int) -> bool:
    """Whether this child has ended, and is not reaped yet."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
