"""Any order of leases, orders, ends, reports and deaths: keeper and starters never run more than there is room for.

The keeper's custody, its line and the starters are the real ones, over real sockets; processes, groups and the clock
are made up here.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.agent import channel, custody, starter, starters, starting
from coordinator.agent.attempt import Attempt
from coordinator.agent.cgroup import CgroupTree
from coordinator.agent.custody import Custody
from coordinator.agent.group import UNIFIED
from coordinator.agent.guard import Guard
from coordinator.agent.journal import Journal
from coordinator.agent.launching import Launcher
from coordinator.agent.places import Places
from coordinator.agent.starter import Starter, _Began
from coordinator.agent.starting import Order, Setup
from coordinator.agent.telling import SPOKEN_AGAIN_S
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken, Resources
from coordinator.core.work.launch_plan import LaunchPlan

CPUS = 3.0
WIDTHS = (1.0, 2.0)
NEAR_S, FAR_S = 5.0, 10_000.0
SETUP = Setup({}, (64, 64), 0)


class Program:
    """Processes that are not there: of one order."""

    def __init__(self, name: str, cpus: float, starter: int) -> None:
        self.name = name
        self.cpus = cpus
        self.starter = starter
        """Whose child the main process is; 0: the keeper's."""
        self.main = True
        """It lives."""
        self.reaped = False
        self.children = False

    @property
    def lives(self) -> bool:
        return self.main or self.children


class World:
    """Everything that runs. Orders, processes and groups have one number."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.programs: dict[int, Program] = {}
        self.names: dict[int, str] = {}
        self.widths: dict[str, float] = {}
        self.deadlines: dict[str, float] = {}
        self.begun: list[str] = []
        self.over: set[str] = set()
        """Of whom the keeper said that nothing runs."""
        self.watched: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, mask: int, call: Callable[[], None]) -> None:
        if mask:
            self.watched[fd] = call
        else:
            self.watched.pop(fd, None)

    def begin(self, number: int, starter: int) -> None:
        name = self.names[number]
        assert name not in self.over, f"{name} is begun though its end was told"
        assert self.now_s < self.deadlines[name], f"{name} is begun though its lease is over"
        self.begun.append(name)
        self.programs[number] = Program(name, self.widths[name], starter)
        in_use = sum(program.cpus for program in self.programs.values() if program.lives)
        assert in_use <= CPUS, f"{in_use} CPUs are in use as {name} is begun"


class PaperTree(CgroupTree):
    """A group that is not there."""

    def __init__(self, world: World, number: int) -> None:
        self.main = 0
        self.path = Path("group")
        self.frozen = False
        self._world = world
        self._number = number

    @property
    def entered(self) -> bool:
        return False

    def _program(self) -> Program | None:
        return self._world.programs.get(self._number)

    def left(self) -> None: ...

    def bound_memory(self) -> bool:
        return True

    def members(self) -> Iterable[int]:
        return ()

    def signal_all(self, signum: int) -> None:
        if (program := self._program()) is not None:
            program.main = False

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False

    def kill(self) -> None:
        if (program := self._program()) is not None:
            program.main = program.children = False

    def empty(self) -> bool:
        program = self._program()
        return program is None or not program.lives

    def visited(self) -> bool:
        return self._program() is not None

    def events(self) -> int:
        return os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        assert self.empty()

    def cpu_ms(self) -> int:
        return 0

    def memory_peak(self) -> int:
        return 0

    def oom_kills(self) -> int:
        return 0


class PaperLauncher(Launcher):
    """Makes orders without streams."""

    def __init__(self, world: World) -> None:
        self.gives_users = False
        self.starters = None
        self._world = world
        self._orders = 0

    def setup(self) -> Setup | None:
        return SETUP

    def launched(self) -> None: ...

    def user_id(self, number: int) -> int:
        return 0

    def may_wait(self, attempt: Attempt) -> bool:
        return True

    def launch(self, attempt: Attempt, kind: int = 0, taker: int = 0) -> int:
        assert self.starters is not None
        assert attempt.plan is not None
        self._orders += 1
        number = self._orders
        self._world.names[number] = attempt.name
        streams = (os.open(os.devnull, os.O_WRONLY), os.open(os.devnull, os.O_WRONLY))
        order = Order(
            number=number,
            argv=(),
            env={},
            directory="",
            entrances={UNIFIED: str(number)},
            kind=kind,
            waits=taker > 0,
            until_s=attempt.freeze_at_s,
        )
        if taker:
            self.starters.put_ahead(taker, order, streams)
        else:
            self.starters.put(order, streams)
        attempt.expect(number, attempt.plan, PaperTree(self._world, number), ())
        return number


class PaperStarter(Starter):
    """The real one, but for what it asks of the kernel. `pid` is its own."""

    def __init__(self, world: World, pid: int, end: socket.socket) -> None:
        super().__init__(end, SETUP)
        self.pid = pid
        self.end = end
        self._world = world

    def _enter(self, order: Order) -> None:
        self._left()

    def _spawn(self, order: Order, fds: tuple[int, int, int]) -> int:
        self._world.begin(order.number, self.pid)
        self._began[order.number] = _Began(self._world.now_s, order.kind, order.entrances[UNIFIED])
        return order.number

    def _is_empty(self, events: str) -> bool:
        return not self._world.programs[int(events)].lives

    def hear(self, most: int) -> None:
        """As `run` does, for so many messages."""
        for _ in range(most):
            try:
                words, fds = starting.hear_words(self.end)
            except BlockingIOError:
                break
            for word in words:
                self._take(word, fds)
            self._work()
        self._leave()

    def reap(self) -> None:
        for number, program in list(self._world.programs.items()):
            if program.starter == self.pid and not program.main and not program.reaped:
                program.reaped = True
                self._on_ended(number, 0, 0.0, 0)
        self._work()
        self._leave()

    def tell(self) -> None:
        if self._reports:
            self._tell()

    def close(self) -> None:
        self.end.close()
        os.close(self._nothing)
        for _, fds in self._ahead.values():
            for fd in fds[1:]:
                os.close(fd)


class StartersMachine(RuleBasedStateMachine):
    """Never: more programs than there is room for; one that is begun twice, or when its end was told or its lease is
    over. In the end everybody who was ordered to run has run, or has an end that says why not."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self._open = ExitStack()
        clock = lambda: self.world.now_s  # noqa: E731  # what takes its place is a function
        for module in (custody, starter, starters):
            self._open.enter_context(patch.object(module, "boot_s", clock))
        their_os = SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | {"kill": self._killed})
        self._open.enter_context(patch.object(starters, "os", their_os))
        not_reaped = lambda pid: not self.world.programs[pid].reaped  # noqa: E731  # likewise
        self._open.enter_context(patch.object(custody, "is_our_child", not_reaped))
        self._open.enter_context(patch.object(starters, "is_dead", lambda pid: False))
        self._open.enter_context(patch.object(starters.Starters, "_make", self._make_starter))
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the journal is synced at every turn
        place = Path(self._open.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        self.starters: dict[int, PaperStarter] = {}
        self._dead: list[int] = []
        self._open.enter_context(patch.object(Guard, "_run", lambda guard: None))  # its clock is the machine's
        guard = Guard()
        journal = Journal(place)
        places = Places(place / "attempts", place / "work", ())
        for part in (guard, journal, places):
            self._open.callback(part.close)
        self.custody = Custody(
            PaperLauncher(self.world), journal, places, guard, self.world.watch, Resources(cpus=CPUS), 1e9
        )
        self.told: dict[str, channel.Now] = {}
        self.tokens: dict[str, LeaseToken] = {}
        self.ordered: set[str] = set()
        self._pids = 10_000_000

    def teardown(self) -> None:
        try:
            self.run_down()
        finally:
            self.close()

    def close(self) -> None:
        for one in self.starters.values():
            one.close()
        kept = self.custody._starters
        assert kept is not None
        for known in kept._all:
            known.drop_unsaid()
            known.end.close()
        kept._all.clear()
        kept.close()
        self._open.close()

    # ---- the made up parts

    def _make_starter(self) -> starters._One:
        ours, theirs = channel.socket_pair()
        self._pids += 1
        one = starters._One(self._pids, ours)
        self.starters[one.pid] = PaperStarter(self.world, one.pid, theirs)
        kept = self.custody._starters
        assert kept is not None
        kept._all.append(one)
        self.world.watch(ours.fileno(), 1, lambda: kept._attend(one))
        return one

    def _killed(self, pid: int, _signum: int) -> None:
        one = self.starters.pop(pid, None)
        if one is not None:
            self._dead.append(pid)
            one.close()
            for program in self.world.programs.values():
                program.starter = 0 if program.starter == pid else program.starter

    def turn(self) -> None:
        """A turn of the keeper."""
        self.custody.run_due()
        dead, self._dead = self._dead, []
        for pid in dead:
            self.custody.on_child(pid, 9, None)  # type: ignore[arg-type]  # whose use is not asked for
        for number, program in self.world.programs.items():
            if program.starter == 0 and not program.main and not program.reaped:
                program.reaped = True
                used = SimpleNamespace(ru_maxrss=0, ru_utime=0.0, ru_stime=0.0)
                self.custody.on_child(number, 9, used)  # type: ignore[arg-type]  # what is read of a struct_rusage
        self.custody.look(self.world.now_s)
        self.custody.run_due()
        self.custody.flush(self._hear, self.world.now_s)

    def _hear(self, messages: Sequence[channel.ToDaemon]) -> int:
        for message in messages:
            if isinstance(message, channel.Now):
                self.told[message.attempt] = message
                if message.exit is not None:
                    self.world.over.add(message.attempt)
        return len(messages)

    def attend(self) -> None:
        for call in list(self.world.watched.values()):
            call()

    # ---- what the daemon asks

    @initialize(width=st.sampled_from(WIDTHS))
    def begin(self, width: float) -> None:
        """Some run, and some wait at a starter: without that little can happen."""
        self.hold_some(8, width, FAR_S, True)
        self.turn()
        self.starters_hear(4)
        self.starters_tell()

    @rule(
        count=st.integers(1, 4),
        width=st.sampled_from(WIDTHS),
        for_s=st.sampled_from((NEAR_S, FAR_S)),
        run=st.sampled_from((True, True, True, False)),
    )
    def hold_some(self, count: int, width: float, for_s: float, run: bool) -> None:
        for _ in range(count):
            self._hold(width, for_s, run)

    def _hold(self, width: float, for_s: float, run: bool) -> None:
        number = len(self.tokens) + 1
        name = f"1.0.{number}.1"
        self.tokens[name] = LeaseToken(1, number)
        self.world.widths[name] = width
        self.world.deadlines[name] = self.world.now_s + for_s
        share = Share(ask=Ask(cpus=round(width * UNIT)))
        self.custody.hear(
            channel.Hold(
                attempt=name,
                rank=0,
                token=self.tokens[name],
                share=share,
                freeze_at_s=self.world.deadlines[name],
                prefetched=True,
            )
        )
        if run:
            self._order(name)

    def _order(self, name: str) -> None:
        self.ordered.add(name)
        self.custody.hear(
            channel.Run(attempt=name, rank=0, token=self.tokens[name], plan=LaunchPlan(argv=("true",), grace_ms=0))
        )

    @precondition(lambda self: len(self.ordered) < len(self.tokens))
    @rule()
    def run_all(self) -> None:
        for name in self.tokens:
            if name not in self.ordered:
                self._order(name)

    def _not_over(self) -> list[str]:
        return [name for name in self.tokens if name not in self.world.over]

    @precondition(lambda self: self._not_over())
    @rule(data=st.data(), unbegun=st.booleans())
    def end(self, data: st.DataObject, unbegun: bool) -> None:
        name = data.draw(st.sampled_from(self._not_over()))
        self.custody.hear(
            channel.End(attempt=name, token=self.tokens[name], why="told to", grace_s=0.0, unbegun=unbegun)
        )

    @precondition(lambda self: self._not_over())
    @rule(data=st.data(), for_s=st.sampled_from((NEAR_S, FAR_S)))
    def renew(self, data: st.DataObject, for_s: float) -> None:
        self._renew(data.draw(st.sampled_from(self._not_over())), for_s)

    def _renew(self, name: str, for_s: float) -> None:
        self.world.deadlines[name] = max(self.world.deadlines[name], self.world.now_s + for_s)
        self.custody.hear(
            channel.Deadline(attempt=name, token=self.tokens[name], freeze_at_s=self.world.deadlines[name])
        )

    # ---- what happens

    @rule()
    def keeper_turns(self) -> None:
        self.turn()

    @rule()
    def keeper_hears(self) -> None:
        self.attend()
        self.turn()

    @rule(by_s=st.sampled_from((0.001, 0.03, 0.2, 5.0)))
    def time_goes_on(self, by_s: float) -> None:
        self.world.now_s += by_s

    @rule(most=st.integers(1, 4))
    def starters_hear(self, most: int) -> None:
        for one in list(self.starters.values()):
            one.hear(most)

    @precondition(lambda self: any(program.main for program in self.world.programs.values()))
    @rule(data=st.data(), leaves=st.booleans())
    def program_ends(self, data: st.DataObject, leaves: bool) -> None:
        number = data.draw(st.sampled_from([n for n, program in self.world.programs.items() if program.main]))
        self.world.programs[number].main = False
        self.world.programs[number].children = leaves

    @rule()
    def all_that_runs_ends(self) -> None:
        for program in self.world.programs.values():
            program.main = False

    @rule(tell=st.booleans())
    def starters_reap(self, tell: bool) -> None:
        for one in list(self.starters.values()):
            one.reap()
            if tell:
                one.tell()

    @rule()
    def starters_tell(self) -> None:
        for one in list(self.starters.values()):
            one.tell()

    @precondition(lambda self: self.starters)
    @rule(data=st.data())
    def starter_dies(self, data: st.DataObject) -> None:
        self._killed(data.draw(st.sampled_from(sorted(self.starters))), 9)

    # ---- what holds

    @invariant()
    def nobody_runs_twice(self) -> None:
        assert len(set(self.world.begun)) == len(self.world.begun)

    @invariant()
    def whose_end_was_told_does_not_run(self) -> None:
        running = {program.name for program in self.world.programs.values() if program.lives}
        assert not running & self.world.over

    @invariant()
    def who_was_stopped_before_it_began_did_not_run(self) -> None:
        for name, now in self.told.items():
            if now.exit is not None and now.exit.cause is EndCause.STOPPED and now.exit.ran_ms == 0:
                assert name not in self.world.begun

    def run_down(self) -> None:
        """Everything goes on as it should: nobody who was ordered to run waits for ever."""
        for name in self.tokens:
            if name not in self.ordered:
                self._order(name)
            self._renew(name, FAR_S)
        for _ in range(60 + 6 * len(self.tokens)):
            for program in self.world.programs.values():
                program.main = program.children = False
            self.starters_hear(4)
            self.starters_reap(True)
            self.keeper_hears()
            self.world.now_s += 0.03
        waiting = [name for name in self.tokens if name not in self.world.over]
        assert not waiting, f"{waiting} wait for ever"


StartersMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestStarters = StartersMachine.TestCase


@pytest.fixture
def machine() -> Iterator[StartersMachine]:
    """Three programs run, and five orders wait at the starter. In the end everything runs down."""
    made = StartersMachine()
    made.begin(1.0)
    made.keeper_hears()
    yield made
    made.teardown()


def test_one_that_waits_begins_when_another_has_ended_and_the_keeper_hears_of_both_at_once(
    machine: StartersMachine,
) -> None:
    """No word of the keeper is needed: four begin in the room of one after the other before it hears of any."""
    for _ in range(4):
        machine.all_that_runs_ends()
        machine.starters_reap(False)
    assert 8 == len(machine.world.begun)
    assert not machine.world.over


def test_what_a_program_leaves_behind_keeps_its_room(machine: StartersMachine) -> None:
    """Its main process has ended, a child has not: who waits begins when the keeper has killed that, on its word."""
    machine.world.programs[1].main, machine.world.programs[1].children = False, True
    machine.starters_reap(True)
    assert 3 == len(machine.world.begun)
    machine.keeper_hears()
    machine.keeper_hears()
    machine.starters_hear(4)
    assert 4 == len(machine.world.begun)


def test_one_whose_lease_ends_as_it_waits_is_given_back_and_begins_when_that_is_renewed() -> None:
    """Its starter does not begin it, though nobody has called it back."""
    machine = StartersMachine()
    machine.hold_some(3, 1.0, FAR_S, True)
    machine.hold_some(1, 1.0, NEAR_S, True)
    machine.turn()
    machine.starters_hear(4)
    machine.world.now_s += NEAR_S
    machine.all_that_runs_ends()
    machine.starters_reap(True)
    assert "1.0.4.1" not in machine.world.begun
    machine.keeper_hears()
    machine._renew("1.0.4.1", FAR_S)
    machine.turn()
    machine.starters_hear(4)
    assert "1.0.4.1" in machine.world.begun
    machine.teardown()


def test_one_that_waits_and_is_called_back_ends_and_one_that_has_begun_meanwhile_goes_on(
    machine: StartersMachine,
) -> None:
    """The order to end it unless it was begun crosses its beginning: it runs, and ends by itself."""
    for number in (4, 8):
        name = f"1.0.{number}.1"
        machine.custody.hear(
            channel.End(attempt=name, token=machine.tokens[name], why="back", grace_s=0.0, unbegun=True)
        )
    machine.world.programs[1].main = False
    machine.starters_reap(True)
    machine.keeper_hears()
    machine.starters_hear(4)
    machine.starters_tell()
    machine.keeper_hears()
    machine.world.now_s += 1.0
    machine.turn()
    assert ("1.0.4.1" in machine.world.begun, machine.told["1.0.4.1"].phase) == (True, "running")
    assert machine.told["1.0.8.1"].exit == ExitInfo(cause=EndCause.STOPPED, text="back")


def test_an_end_of_one_that_waits_is_an_end_at_once(machine: StartersMachine) -> None:
    """It is called back in the same turn, and those behind it move up."""
    name = "1.0.4.1"
    machine.custody.hear(channel.End(attempt=name, token=machine.tokens[name], why="cancelled", grace_s=60.0))
    machine.starters_hear(1)
    machine.starters_tell()
    machine.world.now_s += SPOKEN_AGAIN_S
    machine.keeper_hears()
    assert machine.told[name].exit == ExitInfo(cause=EndCause.STOPPED, text="cancelled")
    machine.all_that_runs_ends()
    machine.starters_reap(True)
    assert ["1.0.5.1", "1.0.6.1", "1.0.7.1"] == machine.world.begun[3:]
