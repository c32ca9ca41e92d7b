"""The real scheduler on a virtual clock: `decide` with the events that a coordinator sees, and agents that do as told.

A machine that goes has sent its last heartbeat that moment. It is found silent SUSPECT_MS later, and what it ran is
lost when its lease is over. Heartbeats between are left out: nothing that is decided depends on them while they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush

from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.commands import (
    Decision,
    Grant,
    JobChanged,
    Launch,
    Message,
    Put,
    StopAttempt,
    sends_one_by_one,
)
from coordinator.core.data.answers import CheckpointTaken
from coordinator.core.data.events import AttemptRestored
from coordinator.core.errors import CoordError
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    ENDED,
    AttemptRow,
    AttemptState,
    EndCause,
    ExitInfo,
    JobRow,
    LeaseToken,
    Row,
    TaskRow,
    TenantRow,
    WorkState,
)
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import JobSpec, OnLost, RetryRule, StepSpec
from coordinator.simulator.desk import QUIET, Desk, admin_row
from coordinator.simulator.history.books import Books
from coordinator.simulator.history.fleet import Fleet, Stay
from coordinator.simulator.history.saving import Course, Saving
from coordinator.simulator.history.workload import Job, tenants_of

SUSPECT_MS: Ms = 10_000
"""From a machine's last heartbeat to the moment from which it is given no new work."""
RANK_MS: Ms = 3_600_000
"""How often forecasts are taken anew between two figures, and at each of them."""
LOOK_MS: Ms = 300_000
"""How often time alone is told while something waits."""
IDLE_LOOK_MS: Ms = 3_600_000
"""How often while nothing does."""
FORGET_MS: Ms = 120_000
"""A machine that is gone for so long, with everything that it ran long lost, is not kept in the tables."""
EXITS, DIES, CLOSES, ARRIVES, SUBMITS, TICKS = range(6)
"""What comes first of what happens in the same millisecond."""


def policy_of(rank: str, forecast_stale_ms: Ms) -> Policy:
    """The usual policy, but that silence alone means nothing: who is gone is told by its history."""
    return replace(QUIET, rank=rank, forecast_stale_ms=forecast_stale_ms, rank_every_ms=RANK_MS)


def spec_of(job: Job, saving: Saving | None = None) -> JobSpec:
    """One step of one task. What is lost is begun anew, or from its checkpoint, as often as it takes."""
    step = StepSpec(
        name="run",
        command=("true",),
        asks=(job.ask,),
        nodes=job.nodes,
        pools=job.pools,
        time_limit_ms=job.limit_ms,
        expected_ms=job.told_ms,
        retry=RetryRule(losses=1_000_000),
        on_lost=OnLost(mode="retry"),
        checkpoint=saving.rule() if saving is not None else None,
    )
    return JobSpec(name="job", steps=(step,))


class Node:
    """One machine's agent. It does what it is told at once, while its machine is there."""

    def __init__(self) -> None:
        self.conn_id = ConnId(0)
        self.alive = False
        self.connected = False
        self.runs: dict[tuple[AttemptId, int], LeaseToken] = {}


class Replay:
    """One policy's run. `advance` moves the clock, `tell` gives it figures. Deterministic."""

    def __init__(
        self,
        fleet: Fleet,
        jobs: Sequence[Job],
        policy: Policy,
        end_ms: Ms,
        tenants: Sequence[TenantRow] = (),
        saving: Saving | None = None,
    ) -> None:
        """`jobs` by the time of their submission. Nothing happens from `end_ms` on. O(stays + jobs).

        Stays that are forgotten before the first submission are left out: nothing that is decided depends on them, and
        of a history of a million sessions they took most of the time.
        """
        self.books = Books()
        self.now_ms: Ms = fleet.from_ms
        self.settled: dict[WorkState, int] = {}
        """Jobs that ended, as the scheduler has it."""
        self._fleet, self._jobs, self._policy, self._end_ms = fleet, jobs, policy, end_ms
        self._nodes: dict[ProviderId, Node] = {}
        self._by_conn: dict[ConnId, Node] = {}
        self._names: dict[ConnId, ProviderId] = {}
        self._agenda: list[tuple[Ms, int, int, Callable[[], None]]] = []
        self._posted = self._boots = self._next_job = self._checkpoints = 0
        self._saving = saving
        self._courses: dict[JobId, Course] = {}
        """Of jobs that have not ended, where they save their state."""
        self._state = ClusterState.load("replay", self._rows(tenants), 1, 1)
        self._desk = Desk(self._state, policy, lambda: self.now_ms, self._carry_out)
        self._desk.tell(events.Boot(at_ms=self.now_ms))
        first_ms = jobs[0].at_ms if jobs else fleet.from_ms
        for stay in fleet.stays:
            if stay.ended_ms is None or stay.ended_ms + FORGET_MS > first_ms:
                self._at(stay.began_ms, ARRIVES, partial(self._arrive, stay))
        if jobs:
            self._at(jobs[0].at_ms, SUBMITS, self._submit)
        self._at(self.now_ms, TICKS, self._look)

    def _rows(self, tenants: Sequence[TenantRow]) -> list[Row]:
        at_ms = self._fleet.from_ms
        rows: list[Row] = [admin_row(at_ms)]
        rows += tenants
        known = {"default", *(row.name for row in tenants)}
        rows += [TenantRow(name=name, created_at_ms=at_ms) for name in tenants_of(self._jobs) if name not in known]
        return rows

    # ---- the clock

    def tell(self, figures: events.FiguresPublished) -> None:
        """What analytics knows by now."""
        self._desk.tell(replace(figures, at_ms=self.now_ms))

    @property
    def decisions(self) -> int:
        """Events that were decided."""
        return self._desk.decided

    @property
    def idle(self) -> bool:
        """Everything was submitted and has ended."""
        return self._next_job >= len(self._jobs) and not self._state.work.jobs

    def advance(self, to_ms: Ms) -> None:
        """Let everything happen that happens before `to_ms`, or until nothing is left to be done."""
        to_ms = min(to_ms, self._end_ms)
        while self._agenda and self._agenda[0][0] < to_ms and not self.idle:
            at_ms, _, _, happens = heappop(self._agenda)
            self.now_ms = max(self.now_ms, at_ms)
            happens()
        if not self.idle:
            self.now_ms = max(self.now_ms, to_ms)

    def _at(self, at_ms: Ms, kind: int, happens: Callable[[], None]) -> None:
        self._posted += 1
        heappush(self._agenda, (at_ms, kind, self._posted, happens))

    # ---- what happens to machines

    def _arrive(self, stay: Stay) -> None:
        name = stay.provider_id
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = Node()
            self._enrol(name)
        self._close(node, node.conn_id)
        self._boots += 1
        node.conn_id, node.alive, node.connected = ConnId(self._boots), True, True
        self._by_conn[node.conn_id] = node
        self._names[node.conn_id] = name
        if stay.ended_ms is not None:
            self._at(stay.ended_ms, DIES, partial(self._die, node, node.conn_id))
        self._desk.connect(node.conn_id, name, self._fleet.machines[name].resources, data=True)

    def _enrol(self, name: ProviderId) -> None:
        pool = self._fleet.machines[name].pool
        if pool not in self._state.pools and pool != "default":
            self._desk.tell(events.PoolCreate(at_ms=self.now_ms, request_id=self._desk.request(), name=pool))
        self._desk.enrol(name, pool)

    def _die(self, node: Node, conn_id: ConnId) -> None:
        """Its last heartbeat, and what it ran is gone. Nobody knows yet."""
        if node.conn_id != conn_id:
            return
        if node.runs:
            held = tuple(dict.fromkeys(attempt_id for attempt_id, _ in node.runs))
            beat = events.Beat(conn_id=conn_id, received_ms=self.now_ms, attempts=held, seq=1)
            self._desk.tell(events.Heartbeats(at_ms=self.now_ms, beats=(beat,)))
        node.alive = False
        for attempt_id, rank in node.runs:
            self.books.ended(attempt_id, rank, self.now_ms, well=False)
        node.runs.clear()
        self._at(self.now_ms + SUSPECT_MS, CLOSES, partial(self._close, node, conn_id))
        self._at(self.now_ms + FORGET_MS, CLOSES, partial(self._forget, node, conn_id))

    def _forget(self, node: Node, conn_id: ConnId) -> None:
        """It is gone for long: it enrols again when it is back. Only who is there is looked at by every placement."""
        name = self._names[conn_id]
        if node.conn_id == conn_id and self._nodes.pop(name, None) is not None:
            self._desk.tell(events.ProviderForget(at_ms=self.now_ms, request_id=self._desk.request(), provider_id=name))

    def _close(self, node: Node, conn_id: ConnId) -> None:
        """Its silence is noticed."""
        if node.conn_id != conn_id or not node.connected:
            return
        node.connected = False
        del self._by_conn[conn_id]
        self._desk.tell(events.LinkClosed(at_ms=self.now_ms, conn_id=conn_id))

    # ---- what happens to work

    def _submit(self) -> None:
        job = self._jobs[self._next_job]
        self._next_job += 1
        if self._next_job < len(self._jobs):
            self._at(self._jobs[self._next_job].at_ms, SUBMITS, self._submit)
        submit = events.JobSubmit(
            at_ms=self.now_ms,
            request_id=self._desk.request(),
            tenant=job.tenant,
            by="replay",
            spec=spec_of(job, self._saving),
        )
        answer = self._desk.decide(submit).replies[0].result
        if isinstance(answer, JobRow):
            self.books.submitted(answer.job_id, job)
            if self._saving is not None:
                self._courses[answer.job_id] = Course()
        else:
            assert isinstance(answer, CoordError)
            self.books.refusals.append(answer.message)
        self._desk.come_to_rest()

    def _exit(self, node: Node, attempt_id: AttemptId, rank: int, token: LeaseToken) -> None:
        """It came to its end, if it still runs there."""
        if node.runs.get((attempt_id, rank)) == token:
            self._ends(node, attempt_id, rank, token, well=True)
            self._desk.come_to_rest()

    def _ends(self, node: Node, attempt_id: AttemptId, rank: int, token: LeaseToken, *, well: bool) -> None:
        ran_ms: Ms = 0
        if node.runs.pop((attempt_id, rank), None) is not None:
            ran_ms = self.now_ms - self.books.records[attempt_id[0]].running[rank]
            self.books.ended(attempt_id, rank, self.now_ms, well=well)
        cause = EndCause.EXITED if well else EndCause.STOPPED
        self._desk.say(
            events.AttemptExited(
                at_ms=self.now_ms,
                conn_id=node.conn_id,
                attempt_id=attempt_id,
                rank=rank,
                token=token,
                exit=ExitInfo(cause=cause, code=0 if well else None, ran_ms=ran_ms),
            )
        )

    def _look(self) -> None:
        """Time goes by: the next look is soon while something waits."""
        self._desk.tell(events.Tick(at_ms=self.now_ms))
        self._at(self.now_ms + (LOOK_MS if self._state.work.queue else IDLE_LOOK_MS), TICKS, self._look)

    def _tick(self) -> None:
        self._desk.tell(events.Tick(at_ms=self.now_ms))

    # ---- what was decided

    def _carry_out(self, decision: Decision) -> None:
        for write in decision.writes:
            if isinstance(write, Put):
                self._appoint(write.row)
        for send in sends_one_by_one(decision.sends):
            node = self._by_conn.get(send.conn_id)
            if node is not None and node.alive:
                self._told(node, send.message)
            elif isinstance(send.message, Grant):
                self._at(self.now_ms + self._policy.grant_ms, TICKS, self._tick)
        for note in decision.notes:
            if isinstance(note, JobChanged) and note.row.state in ENDED:
                self.settled[note.row.state] = self.settled.get(note.row.state, 0) + 1
                self._courses.pop(note.row.job_id, None)

    def _appoint(self, row: Row) -> None:
        """Something is due at a moment that the scheduler wrote down: it is told of the time then."""
        due_ms: Ms | None = None
        match row:
            case AttemptRow(state=AttemptState.IN_DOUBT):
                due_ms = row.lease_over_ms
            case TaskRow():
                due_ms = row.not_before_ms
            case _:
                pass
        if due_ms is not None:
            self._at(max(due_ms, self.now_ms), TICKS, self._tick)

    def _told(self, node: Node, message: Message) -> None:
        """The agent answers in the same moment."""
        match message:
            case Grant(attempt_id=attempt_id, rank=rank, token=token):
                answer: events.AnyEvent = events.AgentGranted(
                    at_ms=self.now_ms, conn_id=node.conn_id, attempt_id=attempt_id, rank=rank, token=token
                )
                self._desk.say(answer)
            case Launch():
                self._launch(node, message)
            case StopAttempt(attempt_id=attempt_id, token=token):
                for held, rank in [key for key in node.runs if key[0] == attempt_id] or [(attempt_id, 0)]:
                    self._ends(node, held, rank, token, well=False)
            case _:
                pass

    def _launch(self, node: Node, order: Launch) -> None:
        attempt_id, rank, token = order.attempt_id, order.rank, order.token
        if (attempt_id, rank) in node.runs:
            return
        node.runs[attempt_id, rank] = token
        self.books.began(attempt_id, rank, self.now_ms)
        phase = events.AttemptPhase(
            at_ms=self.now_ms, conn_id=node.conn_id, attempt_id=attempt_id, rank=rank, token=token, phase="running"
        )
        self._desk.say(phase)
        job = self.books.records[attempt_id[0]].job
        course = self._courses.get(attempt_id[0])
        if self._saving is None or course is None:
            self._at(self.now_ms + job.run_ms, EXITS, partial(self._exit, node, attempt_id, rank, token))
            return
        assert order.restore == (course.number > 0), f"{attempt_id} restores: {order.restore}, saved {course.number}"
        course.joined(attempt_id, rank, order.nodes[rank], token)
        if rank:
            return
        if not order.restore:
            self._work(course, attempt_id, order.checkpoint_every_ms)
            return
        restored = partial(self._restored, course, attempt_id, order.checkpoint_every_ms)
        self._at(self.now_ms + self._saving.cost_ms, EXITS, restored)

    # ---- checkpoints

    def _restored(self, course: Course, attempt_id: AttemptId, every_ms: Ms | None) -> None:
        """Its newest checkpoint is laid out: it goes on from there."""
        assert self._saving is not None
        if not self._all_run(course, attempt_id):
            return
        self.books.kept(attempt_id, self.now_ms, self._saving.cost_ms)
        self._desk.say(
            AttemptRestored(
                at_ms=self.now_ms, request_id=self._desk.request(), claim=course.claim(), number=course.number
            )
        )
        self._desk.come_to_rest()
        self._work(course, attempt_id, every_ms)

    def _work(self, course: Course, attempt_id: AttemptId, every_ms: Ms | None) -> None:
        """On to its end, or to its next checkpoint if that is due before."""
        assert self._saving is not None
        left_ms = self.books.records[attempt_id[0]].job.run_ms - course.saved_ms
        if every_ms is None or left_ms <= every_ms:
            self._at(self.now_ms + left_ms, EXITS, partial(self._all_exit, course, attempt_id))
            return
        save = partial(self._save, course, attempt_id, every_ms)
        self._at(self.now_ms + every_ms + self._saving.cost_ms, EXITS, save)

    def _save(self, course: Course, attempt_id: AttemptId, every_ms: Ms) -> None:
        """What it did in `every_ms` is saved, and will not be lost any more."""
        assert self._saving is not None
        if not self._all_run(course, attempt_id):
            return
        self.books.kept(attempt_id, self.now_ms, self._saving.cost_ms)
        self._checkpoints += 1
        course.saved_ms += every_ms
        tenant = self.books.records[attempt_id[0]].job.tenant
        saved = course.published(self.now_ms, self._desk.request(), tenant, self._saving.cost_ms, self._checkpoints)
        taken = self._desk.tell(saved).replies[0].result
        assert isinstance(taken, CheckpointTaken), f"a checkpoint of {attempt_id} is not taken: {taken}"
        course.number = taken.row.number
        self._work(course, attempt_id, taken.next_ms)

    def _all_run(self, course: Course, attempt_id: AttemptId) -> bool:
        """It is still this attempt, and no rank of it was lost: one alone gets nowhere."""
        nodes = self.books.records[attempt_id[0]].job.nodes
        return course.attempt_id == attempt_id and len(self.books.records[attempt_id[0]].running) == nodes

    def _all_exit(self, course: Course, attempt_id: AttemptId) -> None:
        """Every rank comes to its end."""
        if not self._all_run(course, attempt_id):
            return
        for rank, (provider_id, token) in sorted(course.ranks.items()):
            self._ends(self._nodes[provider_id], attempt_id, rank, token, well=True)
        self._desk.come_to_rest()
