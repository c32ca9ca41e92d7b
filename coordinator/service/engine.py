"""The engine owns the state: drain the inbox, decide, write, and only then reply, send and publish.

One commit is in flight while deciding goes on; what decisions lead to leaves in their order, after the
commit that holds their writes; renewals alone, which are memory, leave at once. A full disk rolls everything
undurable back and reloads; a broken store ends the process. Nothing here knows what an event means.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, ConnId, Ms, RequestId
from coordinator.core.policy import Policy
from coordinator.core.reload import reloaded
from coordinator.core.rows import AttemptRow
from coordinator.core.state import ClusterState
from coordinator.ports.clock import Clock
from coordinator.ports.store import Store
from coordinator.service.pace import Bucket, full_bucket
from coordinator.service.recorder import Recorder
from coordinator.service.views import LiveViews

log = logging.getLogger("coord.engine")

PLACE_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class EngineSettings(Struct, frozen=True, kw_only=True):
    """Bounds of the engine's queues, and its patience."""

    inbox_max: int = 50_000
    """Waiting events; further calls are refused (links stop reading on their own bounds)."""
    batch_max: int = 2_000
    """Events decided before the loop gets its turn again."""
    undurable_max: int = 20_000
    """Decided events that wait for the disk; deciding pauses beyond."""
    place_writes_max: int = 12_000
    """Rows that wait for the disk; beyond, nothing more is placed for now. 512 leases are some 2,000 rows; a
    third of the rows wrote a seventh more bytes and took a seventh longer."""
    commits_per_s: float = 50.0
    """Commits that nobody waits for by name: beyond, decisions gather. A commit costs some 0.8 ms of CPU whatever is in
    it, ten short tasks' worth."""
    commits_burst: float = 50.0
    """As many of them follow each other at once: what happens now and then is never held up."""
    gather_writes_max: int = 1_000
    """Rows that are worth a commit at once."""
    stop_s: float = 5.0
    """How long a planned stop waits for the disk before the agents' sockets are closed all the same."""
    retry_s: float = 1.0
    """Pause after a full disk before writing is tried again."""
    load_s: float = 30.0
    """How long a reload after a full disk may take before the store counts as broken."""


class AgentLinks(Protocol):
    """Who carries out a Send."""

    def send(self, conn_id: ConnId, message: commands.Message) -> None:
        """Queue it for the connection; dropped when that is gone. Never blocks."""
        ...

    async def drained(self) -> None:
        """Return when every socket that is readable now has been read at least once."""
        ...


class _NoLinks:
    def send(self, conn_id: ConnId, message: commands.Message) -> None:
        """Nobody is connected before the links are bound."""

    async def drained(self) -> None:
        """There is nothing to read."""


class EngineCounters(Struct):
    """What the engine has done so far."""

    events: int = 0
    decisions: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    commit_seconds_max: float = 0.0
    rollbacks: int = 0
    ends_undone: int = 0
    """Ends of sessions among what was rolled back; each is made again."""
    refused: int = 0
    stalls: int = 0
    place_seconds: list[int] = field(default_factory=lambda: [0] * (len(PLACE_BOUNDS_S) + 1))
    """Placements by duration: the n-th took at most PLACE_BOUNDS_S[n], the last one longer than all."""
    place_seconds_sum: float = 0.0


class _Group:
    """Decisions whose writes become durable together. Grows while the commit before it is in flight."""

    def __init__(self) -> None:
        self.writes: list[commands.Write] = []
        self.decisions: list[commands.Decision] = []
        self._attempts: set[AttemptId] = set()
        self._looked_at = 0
        self.rows = 0
        """That these writes put or delete."""
        self.renewing: set[ConnId] = set()
        """Connections that are told of renewals with this group."""
        self.awaited = False
        """Somebody waits for an answer in it."""
        self.questions: list[tuple[commands.Decision, events.AnyEvent]] = []
        """What changed nothing and was only answered: it may be asked anew."""

    def add(self, decision: commands.Decision) -> None:
        self.writes.extend(decision.writes)
        self.rows += commands.count_rows(decision.writes)
        self.decisions.append(decision)
        self.awaited = self.awaited or bool(decision.replies)

    def attempts(self) -> set[AttemptId]:
        """Whose rows are among the writes. O(writes since it was asked last)."""
        for write in islice(self.writes, self._looked_at, None):
            if isinstance(write, commands.Put) and isinstance(write.row, AttemptRow):
                self._attempts.add(write.row.attempt_id)
            elif isinstance(write, commands.Together):
                self._attempts.update(write.ids)
        self._looked_at = len(self.writes)
        return self._attempts


BeatsSource = Callable[[], tuple[events.Beat, ...]]
MakeEvent = Callable[[RequestId], events.AnyEvent]


class Engine:
    """One task that owns the ClusterState. Others post events, call, or read `views`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        views: LiveViews,
        policy: Policy,
        settings: EngineSettings,
        recorder: Recorder,
        state: ClusterState,
    ) -> None:
        """`state` was just loaded; Boot is the first event to be posted."""
        self.clock = clock
        self.views = views
        self.policy = policy
        self.counters = EngineCounters()
        self._store = store
        self._settings = settings
        self._recorder = recorder
        self._state = state
        self._inbox: deque[events.AnyEvent] = deque()
        self._waiting: dict[RequestId, asyncio.Future[commands.Result]] = {}
        self._next_request = 1
        self._wake = asyncio.Event()
        self._tick_waits = False
        self._links: AgentLinks = _NoLinks()
        self._take_beats: BeatsSource = tuple
        self._open = _Group()
        self._in_flight: tuple[_Group, asyncio.Future[None]] | None = None
        self._commits: Bucket | None = None
        self._gathering: asyncio.TimerHandle | None = None
        """Runs while the open group gathers."""
        self._gathered = False
        """It has gathered for long enough."""
        self._placing = False
        """The last Place did not get to its end: the next one goes on at once."""
        self._stopping = False
        self._running = False
        self._ended = asyncio.Event()
        self._full_since_ms: Ms | None = None
        views.load(state)
        recorder.begin(state, policy)

    # ---- what others use

    def bind_links(self, links: AgentLinks) -> None:
        self._links = links

    def set_beats_source(self, take: BeatsSource) -> None:
        """`take` is drained before every batch, as one event: heartbeats received so far count first."""
        self._take_beats = take

    def wake(self) -> None:
        """There is something to take."""
        self._wake.set()

    def post(self, event: events.AnyEvent) -> None:
        """Hand an event over. Never blocks. Ticks coalesce; links bound their own events by their number."""
        if isinstance(event, events.Tick):
            if self._tick_waits:
                return
            self._tick_waits = True
        self._inbox.append(event)
        self._wake.set()

    async def call(self, make: MakeEvent) -> commands.Result:
        """Post the event that `make` builds and wait for its durable answer. Raises the CoordError that refused it."""
        if self._stopping:
            raise CoordError(Code.SHUTTING_DOWN, "the coordinator is stopping", "try again in a few seconds")
        if len(self._inbox) >= self._settings.inbox_max:
            self.counters.refused += 1
            raise CoordError(Code.TOO_MANY, f"{len(self._inbox)} requests wait already", "try again in a few seconds")
        request_id = RequestId(self._next_request)
        self._next_request += 1
        future: asyncio.Future[commands.Result] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            self.post(make(request_id))
            return await future
        finally:
            self._waiting.pop(request_id, None)

    @property
    def inbox_depth(self) -> int:
        return len(self._inbox)

    @property
    def full_since_ms(self) -> Ms | None:
        """Since when the store has been full; None when it takes writes."""
        return self._full_since_ms

    @property
    def state(self) -> ClusterState:
        """For reads between awaits by those who need what no view shows (forecasts). Never to be changed."""
        return self._state

    def dump_recording(self, why: str) -> Path | None:
        """Write what the recorder holds into its directory; the path to replay, None while there is nothing."""
        return self._recorder.dump(why)

    async def stop(self) -> None:
        """Refuse new calls, decide what waits, extend the leases, write it all, tell the agents and end `run`.

        Returns when what agents are told has left, or after `stop_s` where the disk takes nothing.
        """
        self._stopping = True
        self.post(events.Stopping(at_ms=self.clock.now_ms()))
        if self._running:
            try:
                async with asyncio.timeout(self._settings.stop_s):
                    await self._ended.wait()
            except TimeoutError:
                log.warning("the disk has not taken what the stop wrote; leases were not extended")

    # ---- the loop

    async def run(self) -> None:
        """Until `stop`. A group with CoordError(STORE_BROKEN) when the disk is: nothing unsaid was acknowledged."""
        self._running = True
        async with asyncio.TaskGroup() as group:
            ticker = group.create_task(self._tick())
            try:
                await self._loop()
            finally:
                self._running = False
                self._ended.set()
                ticker.cancel()
                if self._gathering is not None:
                    self._gathering.cancel()
                self._fail_waiting(CoordError(Code.SHUTTING_DOWN, "the coordinator stopped", "ask the next one"))

    async def _loop(self) -> None:
        while True:
            await self._rest()
            self._wake.clear()
            await self._take_committed()
            if self._has_room():
                self._decide_batch()
            due = self._is_due(self._open)
            if self._may_place() and self._has_room():
                self._place()
            if due:
                self._commit_open()
            if self._stopping and not self._inbox and self._in_flight is None:
                return
            if self._has_room() and (self._inbox or self._may_place()):  # without room, the end of the commit wakes us
                self._wake.set()
                await asyncio.sleep(0)

    async def _rest(self) -> None:
        """Until there is something to take. What was decided is recorded when it has left, and nobody waits: not beside
        a commit, whose thread would wait for this one."""
        if self._recorder.behind and self._in_flight is None and not self._wake.is_set():
            await asyncio.sleep(0)
            if not self._wake.is_set():
                self._recorder.settle()
        await self._wake.wait()

    def _has_room(self) -> bool:
        return len(self._open.decisions) < self._settings.undurable_max

    def _may_place(self) -> bool:
        """Whether the queue or capacity changed, and the disk keeps up with what was placed already. What came free
        while the disk is busy, or decisions gather, is placed when that is over: its leases could leave no sooner."""
        if self._stopping or not self._state.work.place_due:
            return False
        if (self._in_flight is not None or self._gathering is not None) and not self._placing:
            return False
        return self._open.rows < self._settings.place_writes_max

    def _decide_batch(self) -> None:
        beats = self._take_beats()
        if beats:
            self._decide(events.Heartbeats(at_ms=self.clock.now_ms(), beats=beats))
        for _ in range(min(len(self._inbox), self._settings.batch_max)):
            event = self._inbox.popleft()
            if isinstance(event, events.Tick):
                self._tick_waits = False
            self._decide(event)

    def _place(self) -> None:
        began_s = self.clock.monotonic_s()
        self._decide(events.Place(at_ms=self.clock.now_ms()))
        took_s = self.clock.monotonic_s() - began_s
        self.counters.place_seconds[bisect_left(PLACE_BOUNDS_S, took_s)] += 1
        self.counters.place_seconds_sum += took_s
        self._placing = self._state.work.place_due

    def _decide(self, event: events.AnyEvent) -> None:
        event = replace(event, wall_ns=self.clock.now_ns(), mono_ns=self.clock.boot_ns())
        self.counters.events += 1
        try:
            decision = decide(self._state, event, self.policy)
        except Exception:
            self._recorder.note(event, None)
            self._recorder.dump("deciding failed")
            raise
        self._recorder.note(event, decision)
        self.counters.decisions += 1
        if _only_answers(decision):
            if (
                self._in_flight is None and not self._open.writes
            ):  # of what is durable: a full disk is none of its matter
                self._answer(decision)
                return
            self._open.questions.append((decision, event))
        self._open.add(decision)
        if isinstance(event, events.Heartbeats):
            self._recorder.settle()  # as it was decided
            decision.sends[:] = [send for send in decision.sends if not self._renewed_at_once(send)]

    def _renewed_at_once(self, send: commands.Send) -> bool:
        """Say a renewal before the disk is done: it is memory alone, and a slow disk is to freeze nobody. Not where the
        row of a lease that it names is not durable yet, and never past a renewal that waits for that."""
        if not isinstance(send.message, commands.Renew):
            return False
        groups = (self._open, self._in_flight[0]) if self._in_flight is not None else (self._open,)
        named = {term.attempt_id for term in send.message.terms}
        if any(send.conn_id in group.renewing or not group.attempts().isdisjoint(named) for group in groups):
            self._open.renewing.add(send.conn_id)
            return False
        self._links.send(send.conn_id, send.message)
        return True

    async def _take_committed(self) -> None:
        """Carry out what the disk has taken, or undo what it refused."""
        if self._in_flight is None or not self._in_flight[1].done():
            return
        (group, commit), self._in_flight = self._in_flight, None
        error = commit.exception()
        if isinstance(error, CoordError) and error.code is Code.STORE_FULL:
            await self._roll_back(group, error)
            return
        if error is not None:
            self._recorder.dump("the store failed")
            raise error
        self._full_since_ms = None
        if self._open.writes and (self._placing or not self._may_place()) and self._is_due(self._open):
            self._commit_open()  # the disk is at work while all that leaves; of the next group nothing does before it
            await asyncio.sleep(0)
        self._carry_out(group)

    def _commit_open(self) -> None:
        """Let go what needs no disk, and give the disk the next group."""
        if not self._open.decisions:
            return
        group, self._open = self._open, _Group()
        if group.writes:
            began_s = self.clock.monotonic_s()
            commit = asyncio.ensure_future(self._store.commit(group.writes))
            commit.add_done_callback(lambda done: self._has_committed(done, began_s))
            self._in_flight = (group, commit)
        else:
            self._carry_out(group)

    def _is_due(self, group: _Group) -> bool:
        """Whether it goes to the disk now. Else the loop is woken when it does: by the commit in flight, or in time."""
        if self._in_flight is not None:
            return False
        at_once = self._stopping or group.awaited or group.rows >= self._settings.gather_writes_max
        if self._gathering is not None:
            if at_once:
                self._gathering.cancel()
                self._gathering = None
            return at_once
        if at_once or self._gathered or not group.writes:
            self._gathered = False
            return True
        if self._commits is None:
            self._commits = full_bucket(self._settings.commits_per_s, self._settings.commits_burst)
        if self._commits.take(1):
            return True
        self._gathering = asyncio.get_running_loop().call_later(self._commits.owed_s, self._has_gathered)
        return False

    def _has_gathered(self) -> None:
        self._gathering, self._gathered = None, True
        self._wake.set()

    def _has_committed(self, commit: asyncio.Future[None], began_s: float) -> None:
        self._wake.set()
        if commit.cancelled() or commit.exception() is not None:
            return
        took_s = self.clock.monotonic_s() - began_s
        self.counters.commits += 1
        self.counters.commit_seconds += took_s
        self.counters.commit_seconds_max = max(self.counters.commit_seconds_max, took_s)

    def _carry_out(self, group: _Group) -> None:
        for decision in group.decisions:
            self._answer(decision)
            for send in decision.sends:
                self._links.send(send.conn_id, send.message)
            if decision.notes:
                self.views.apply(decision.notes)

    def _answer(self, decision: commands.Decision) -> None:
        for reply in decision.replies:
            self._reply(reply)

    def _reply(self, reply: commands.Reply) -> None:
        future = self._waiting.pop(reply.request_id, None)
        if future is None or future.done():
            return
        if isinstance(reply.result, CoordError):
            future.set_exception(reply.result)
        else:
            future.set_result(reply.result)

    def _fail_waiting(self, error: CoordError) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    # ---- a full disk

    async def _roll_back(self, group: _Group, error: CoordError) -> None:
        """Nothing of `group` or behind it is durable: say so to its callers and go on from what is. Questions are asked
        again, before anything else: they are answered by what is durable."""
        self.counters.rollbacks += 1
        if self._full_since_ms is None:
            self._full_since_ms = self.clock.now_ms()
            log.error("the store is full, undurable decisions are rolled back: %s", error)
        undone = (*group.decisions, *self._open.decisions)
        questions = (*group.questions, *self._open.questions)
        asked = {id(decision) for decision, _ in questions}
        for decision in undone:
            self.counters.ends_undone += sum(isinstance(note, commands.SessionEnded) for note in decision.notes)
            if id(decision) not in asked:
                for reply in decision.replies:
                    self._reply(commands.Reply(reply.request_id, error))
        self._open = _Group()
        async with asyncio.timeout(self._settings.load_s):
            loaded = await self._store.load()
        old = self._state
        fresh = ClusterState.load(
            old.coordinator_id,
            loaded.rows,
            loaded.next_session_id,
            loaded.next_key,
            next_job_id=loaded.next_job_id,
            next_token=loaded.next_token,
            next_audit=loaded.next_audit,
            next_ledger=loaded.next_ledger,
        )
        decision = reloaded(old, fresh, self.policy, undone)
        self._state = fresh
        self.views.load(fresh)
        self._recorder.begin(fresh, self.policy)
        kept = _Group()
        kept.add(decision)
        self._carry_out(kept)
        for _, event in questions:
            self._decide(replace(event, at_ms=self.clock.now_ms()))
        await asyncio.sleep(self._settings.retry_s)
        self._wake.set()

    # ---- time

    async def _tick(self) -> None:
        """A second at a time. After a stall of our own the sockets are read before anybody is judged."""
        pace_s = self.policy.tick_ms / 1_000
        before_s = self.clock.monotonic_s()
        drift_ms = self.clock.wall_ms() - self.clock.now_ms()
        while True:
            await asyncio.sleep(pace_s)
            now_s = self.clock.monotonic_s()
            late_ms = int((now_s - before_s - pace_s) * 1_000)
            stalled_ms = late_ms if late_ms >= self.policy.stall_ms else 0
            before_s = now_s
            if stalled_ms:
                self.counters.stalls += 1
                log.warning("the coordinator stood still for %.1f s; nobody is judged by it", stalled_ms / 1_000)
                await self._links.drained()
            drifted_ms = self.clock.wall_ms() - self.clock.now_ms()
            step_ms = drifted_ms - drift_ms
            if abs(step_ms) < self.policy.wall_jump_ms:
                step_ms = 0
            elif not self._tick_waits:  # else this tick is dropped, and the next one has to tell of the step
                drift_ms = drifted_ms
            self.post(events.Tick(at_ms=self.clock.now_ms(), stalled_ms=stalled_ms, wall_step_ms=step_ms))


def _only_answers(decision: commands.Decision) -> bool:
    """Whether it is an answer, and nothing else."""
    return bool(decision.replies) and not (decision.writes or decision.sends or decision.notes)
