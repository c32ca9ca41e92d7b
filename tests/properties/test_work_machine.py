"""Any interleaving of submissions, placements, agents that tell the truth or not, silence, restarts and full disks.

A hypothesis state machine on the core. Its agents may answer, lie, repeat themselves, come back with what they never
held, or say nothing: what is durable must be right all the same, and every refusal must change nothing.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import CoordError
from coordinator.core.ids import AttemptId, ConnId, JobId, ProviderId, TaskId, TenantName
from coordinator.core.image import image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AttemptState,
    EndCause,
    ExitInfo,
    JobRow,
    LeaseToken,
    Promises,
    Resources,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.snapshot import Liveness
from coordinator.core.work.jobspec import JobSpec, OnLost, Overlap, RetryRule, StepSpec, When
from tests.builders import Fleet, a_hello, sent

NAMES = ("a", "b", "c")
CONN_OF = {"a": 1, "b": 2, "c": 3}
TENANT = TenantName("default")
POLICY = Policy(jobs_max=12, quarantine_failures=4, quarantine_jobs=2, storm_failures=6)
OFFER = Resources(cpus=2.0, memory_gb=4.0, gpus=("gpu",))
EXITS = (
    ExitInfo(cause=EndCause.EXITED, code=0),
    ExitInfo(cause=EndCause.EXITED, code=0),
    ExitInfo(cause=EndCause.EXITED, code=1),
    ExitInfo(cause=EndCause.EXITED, code=126),
    ExitInfo(cause=EndCause.SIGNALLED, signal=9),
    ExitInfo(cause=EndCause.START, code=127),
    ExitInfo(cause=EndCause.AGENT),
    ExitInfo(cause=EndCause.STOPPED),
)
ASKS = (Ask(), Ask(cpus=2 * UNIT), Ask(cpus=UNIT // 2, gpus=UNIT // 2), Ask(memory=3 * 10**9))
Lease = tuple[AttemptId, int, LeaseToken]


class Works(RuleBasedStateMachine):
    """Never: two results of a task, a state after the end, more held than offered, a lost promise."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(*NAMES, policy=POLICY)
        self.full_from: int | None = None
        self.conns: dict[str, int] = {}
        self.next_conn = 10
        self.granted: dict[str, list[Lease]] = {name: [] for name in NAMES}
        """What each agent was ever told to hold."""
        self.attempts: dict[AttemptId, AttemptRow] = {}
        self.jobs: dict[JobId, JobRow] = {}
        self.acked: set[JobId] = set()
        self.judged = True
        """A tick went by since the last start or reload: what these leave to it is done."""

    # ---- deciding

    @property
    def durable(self) -> bool:
        return self.full_from is None

    def decide(self, event: events.AnyEvent) -> commands.Decision:
        decision = self.fleet.decide(event, self.durable)
        for conn_id, grant in sent(decision, commands.Grant):
            name = self.fleet.state.conns[ConnId(conn_id)]
            self.granted[name].append((grant.attempt_id, grant.rank, grant.token))
        for reply in decision.replies:
            if isinstance(reply.result, JobRow) and self.durable:
                self.acked.add(reply.result.job_id)
        return decision

    def ask(self, event: events.AnyEvent) -> commands.Result | CoordError:
        """A refusal changes nothing, and says what to do. The first decision after a reload also finds its month."""
        before = image_of(self.fleet.state)
        (reply,) = self.decide(event).replies
        if isinstance(reply.result, CoordError):
            self.fleet.state.now_ms = before.now_ms
            if before.work.accounts.month:
                assert before == image_of(self.fleet.state), f"a refusal changed something: {reply.result}"
            assert reply.result.message and reply.result.hint
        return reply.result

    @initialize()
    def everybody_comes(self) -> None:
        for name in NAMES:
            self.connect(name)
        steps = (
            StepSpec(name="each", command=("true",), tasks=3),
            StepSpec(name="last", command=("true",), needs=(0,)),
        )
        self.ask_for(JobSpec(name="first", steps=steps), "", "")

    # ---- people

    @rule(
        tasks=st.integers(1, 5),
        steps=st.integers(1, 3),
        ask=st.sampled_from(ASKS),
        nodes=st.sampled_from((1, 1, 1, 2)),
        limit=st.integers(0, 2),
        losses=st.integers(0, 2),
        mode=st.sampled_from(("retry", "wait", "auto")),
        overlap=st.sampled_from(tuple(Overlap)),
        when=st.sampled_from(tuple(When)),
        max_running=st.sampled_from((None, 1, 2)),
        max_fails=st.sampled_from((None, 0, 1)),
        deadline_s=st.sampled_from((None, None, 60)),
        key=st.sampled_from(("", "", "k1", "k2")),
        body=st.sampled_from(("x", "x", "y")),
    )
    def submit(
        self,
        tasks: int,
        steps: int,
        ask: Ask,
        nodes: int,
        limit: int,
        losses: int,
        mode: str,
        overlap: Overlap,
        when: When,
        max_running: int | None,
        max_fails: int | None,
        deadline_s: int | None,
        key: str,
        body: str,
    ) -> None:
        made = tuple(
            StepSpec(
                name=f"s{number}",
                command=("true",),
                tasks=tasks,
                needs=(number - 1,) if number else (),
                when=when if number else When.SUCCEEDED,
                asks=(ask,),
                nodes=nodes,
                retry=RetryRule(limit=limit, losses=losses, delay_ms=2_000),
                on_lost=OnLost(mode=mode, wait_ms=20_000 if mode == "wait" else 0),
                overlap=overlap,
                max_running=max_running,
                max_fails=max_fails,
            )
            for number in range(steps)
        )
        deadline_ms = self.fleet.now_ms + deadline_s * 1_000 if deadline_s is not None else None
        self.ask_for(JobSpec(name="j", steps=made, deadline_ms=deadline_ms), key, body if key else "")

    def ask_for(self, spec: JobSpec, key: str, body: str) -> None:
        known = [row for row in self.rows(JobRow) if key and row.idempotency_key == key]
        result = self.ask(
            events.JobSubmit(
                at_ms=self.fleet.now_ms,
                request_id=self.fleet.request(),
                tenant=TENANT,
                by="token:t",
                spec=spec,
                idempotency_key=key,
                body_digest=body,
                known=known[0] if known else None,
            )
        )
        if isinstance(result, JobRow) and known:
            assert result.job_id == known[0].job_id and result.body_digest == body, "one key made two jobs"

    @rule(job=st.integers(1, 6), whole=st.booleans(), step=st.integers(0, 3), task=st.integers(0, 5))
    def cancel(self, job: int, whole: bool, step: int, task: int) -> None:
        self.ask(
            events.JobCancel(
                at_ms=self.fleet.now_ms,
                request_id=self.fleet.request(),
                tenant=TENANT,
                by="token:t",
                job_id=JobId(job),
                task=None if whole else (step, task),
                known=self.row(("job", job), JobRow),
            )
        )

    @rule(job=st.integers(1, 6))
    def retry(self, job: int) -> None:
        row, spec = self.row(("job", job), JobRow), self.row(("spec", job), SpecRow)
        if row is None or spec is None:
            return
        self.ask(
            events.JobRetry(
                at_ms=self.fleet.now_ms,
                request_id=self.fleet.request(),
                tenant=TENANT,
                by="token:t",
                job_id=row.job_id,
                job=row,
                spec=spec.spec,
                steps=tuple(r for r in self.rows(StepRow) if r.job_id == job),
                tasks=tuple(r for r in self.rows(TaskRow) if r.job_id == job and r.state is not WorkState.COMPLETED),
            )
        )

    @rule(job=st.integers(1, 6), foreign=st.booleans(), name=st.sampled_from(NAMES))
    def explain_and_resume(self, job: int, foreign: bool, name: str) -> None:
        at_ms, request = self.fleet.now_ms, self.fleet.request
        tenant = TenantName("stranger") if foreign else TENANT
        result = self.ask(events.JobExplain(at_ms=at_ms, request_id=request(), tenant=tenant, job_id=JobId(job)))
        assert not foreign or isinstance(result, CoordError), "another tenant's job was explained"
        self.ask(events.ProviderResume(at_ms=at_ms, request_id=request(), provider_id=ProviderId(name)))

    @rule(name=st.sampled_from(NAMES))
    def drain(self, name: str) -> None:
        request_id = self.fleet.request()
        self.ask(events.ProviderDrain(at_ms=self.fleet.now_ms, request_id=request_id, provider_id=ProviderId(name)))

    # ---- agents

    @rule(name=st.sampled_from(NAMES), boot=st.sampled_from(("b1", "b1", "b2")), held=st.data(), fresh=st.booleans())
    def hello(self, name: str, boot: str, held: st.DataObject, fresh: bool) -> None:
        """It holds anything of what it was ever told, in any phase."""
        old = self.conns.pop(name, None)
        if old is not None and self.fleet.state.conns.get(ConnId(old)) == name:
            self.decide(events.LinkClosed(at_ms=self.fleet.now_ms, conn_id=ConnId(old)))
        leases = self.granted[name]
        named = held.draw(st.lists(st.sampled_from(leases), max_size=4, unique=True)) if leases else []
        phases = ("leased", "staging", "running", "frozen", "exited")
        attempts = []
        for attempt_id, rank, token in named:
            phase = held.draw(st.sampled_from(phases))
            ends = held.draw(st.sampled_from(EXITS)) if phase == "exited" else None
            attempts.append(events.HeldAttempt(attempt_id=attempt_id, rank=rank, token=token, phase=phase, exit=ends))
        self.connect(name, "p2" if fresh else "p1", boot, tuple(attempts))

    def connect(
        self, name: str, process: str = "p1", boot: str = "b1", attempts: tuple[events.HeldAttempt, ...] = ()
    ) -> None:
        self.next_conn += 1
        plain = a_hello(self.next_conn, name, at_ms=self.fleet.now_ms, process=process, boot=boot)
        told = {field: getattr(plain, field) for field in events.AgentHello.__struct_fields__}
        told |= {"resources": OFFER, "promises": Promises(work=True), "attempts": attempts}
        self.decide(events.AgentHello(**told))
        self.conns[name] = self.next_conn

    @rule(silent=st.sampled_from((None, None, *NAMES)), all_of_it=st.booleans(), renewed=st.booleans())
    def beat(self, silent: str | None, all_of_it: bool, renewed: bool) -> None:
        """All but one: of what they hold, or of all that they ever held."""
        beats = []
        for name in sorted(set(self.conns) - {silent}):
            live = [a for a, _, _ in (self.granted[name] if all_of_it else self.held_by(name))]
            seq = self.fleet.now_ms // 100
            beats.append(
                events.Beat(
                    conn_id=ConnId(self.conns[name]),
                    received_ms=self.fleet.now_ms,
                    seq=seq,
                    renewed_seq=seq - 1 if renewed else 0,
                    attempts=tuple(dict.fromkeys(live)),
                )
            )
        self.decide(events.Heartbeats(at_ms=self.fleet.now_ms, beats=tuple(beats)))

    @rule()
    def everybody_answers(self) -> None:
        """The truth, for once: every grant is acknowledged, and what was launched runs."""
        self.place()
        for name, conn in self.conns.items():
            for lease in self.held_by(name):
                self.say(events.AgentGranted, conn, lease)
        for name, conn in self.conns.items():
            for lease in self.held_by(name):
                self.say(events.AttemptPhase, conn, lease, phase="running")

    @rule(data=st.data(), count=st.integers(1, 4), together=st.booleans())
    def some_end(self, data: st.DataObject, count: int, together: bool) -> None:
        """And the truth again: processes end, and their agents say how; one by one, or side by side."""
        self.everybody_answers()
        for name, conn in self.conns.items():
            ended = [(lease, data.draw(st.sampled_from(EXITS))) for lease in self.held_by(name)[:count]]
            if together:
                told = tuple((*lease, exit) for lease, exit in ended)
                self.decide(events.AttemptsEnded(at_ms=self.fleet.now_ms, conn_id=ConnId(conn), ended=told))
            else:
                for lease, exit in ended:
                    self.say(events.AttemptExited, conn, lease, exit=exit)

    def held_by(self, name: str) -> list[Lease]:
        """What it was granted and the core still counts as alive."""
        live = self.fleet.state.work.attempts
        return [lease for lease in self.granted[name] if lease[0] in live and live[lease[0]].row.token == lease[2]]

    @rule(name=st.sampled_from(NAMES), data=st.data(), kind=st.sampled_from(("granted", "refused", "phase", "exited")))
    def one_says_something(self, name: str, data: st.DataObject, kind: str) -> None:
        """Also of what it does not hold any more, of another agent's, and with another token."""
        everything = [lease for leases in self.granted.values() for lease in leases]
        if not everything:
            return
        attempt_id, rank, token = data.draw(st.sampled_from(everything))
        rank = data.draw(st.sampled_from((rank, rank, rank + 1)))
        token = data.draw(st.sampled_from((token, token, LeaseToken(1, token.number + 1), LeaseToken(0, 0))))
        conn, lease = self.conns.get(name, 99), (attempt_id, rank, token)
        match kind:
            case "granted":
                self.say(events.AgentGranted, conn, lease)
            case "refused":
                self.say(events.AgentRefused, conn, lease, why="no room")
            case "phase":
                self.say(events.AttemptPhase, conn, lease, phase=data.draw(st.sampled_from(("running", "frozen"))))
            case _:
                self.say(events.AttemptExited, conn, lease, exit=data.draw(st.sampled_from(EXITS)))

    def say(
        self,
        kind: type[events.AgentGranted | events.AgentRefused | events.AttemptPhase | events.AttemptExited],
        conn: int,
        lease: Lease,
        **more: object,
    ) -> None:
        attempt_id, rank, token = lease
        told = {"at_ms": self.fleet.now_ms, "conn_id": ConnId(conn), "attempt_id": attempt_id, "rank": rank}
        self.decide(kind(**told, token=token, **more))  # type: ignore[arg-type]

    @rule(name=st.sampled_from(NAMES), draining=st.booleans())
    def bye(self, name: str, draining: bool) -> None:
        conn = self.conns.pop(name, None)
        if conn is not None:
            self.decide(events.AgentBye(at_ms=self.fleet.now_ms, conn_id=ConnId(conn), draining=draining))

    # ---- time, and what befalls the coordinator

    @rule()
    def place(self) -> None:
        """As the engine does while the state asks for it; it comes to an end."""
        for _ in range(100):
            if not self.fleet.state.work.place_due:
                return
            self.decide(events.Place(at_ms=self.fleet.now_ms))
        raise AssertionError("placing asks for itself for ever")

    @rule(seconds=st.sampled_from((0.25, 1.0, 6.0, 11.0, 31.0, 120.0)), stalled=st.booleans())
    def time_goes_by(self, seconds: float, stalled: bool) -> None:
        steps = 1 if stalled else max(1, min(20, int(seconds * 4)))
        for _ in range(steps):
            self.fleet.at(self.fleet.now_s + seconds / steps)
            self.decide(events.Tick(at_ms=self.fleet.now_ms))
        self.judged = True

    @rule(away_s=st.sampled_from((1.0, 20.0, 3_600.0)), planned=st.booleans())
    def restart(self, away_s: float, planned: bool) -> None:
        if planned and self.durable:
            self.decide(events.Stopping(at_ms=self.fleet.now_ms))
        self.full_from, self.judged = None, False
        self.conns.clear()
        self.fleet.restart(self.fleet.now_s + away_s)
        for job_id in self.acked:
            assert self.row(("job", job_id), JobRow) is not None, f"job {job_id} was acknowledged and is gone"

    @precondition(lambda self: self.full_from is None)
    @rule()
    def the_disk_fills(self) -> None:
        self.full_from = len(self.fleet.decisions)

    @precondition(lambda self: self.full_from is not None)
    @rule()
    def the_disk_has_room(self) -> None:
        assert self.full_from is not None
        undone = self.fleet.decisions[self.full_from :]
        self.full_from, self.judged = None, False
        self.fleet.disk_was_full(*undone)
        self.conns = {n: c for n, c in self.conns.items() if self.fleet.state.conns.get(ConnId(c)) == n}

    @rule()
    def a_copy_is_the_same(self) -> None:
        assert image_of(self.fleet.state) == image_of(state_of(image_of(self.fleet.state)))

    # ---- what must always hold

    def rows(self, kind: type[JobRow] | type[StepRow] | type[TaskRow] | type[AttemptRow]) -> list[Any]:
        return [row for row in self.fleet.rows.values() if isinstance(row, kind)]

    def row(self, key: tuple[str, object], kind: type[Any]) -> Any:
        found = self.fleet.rows.get(key)
        return found if isinstance(found, kind) else None

    @invariant()
    def what_is_durable_is_right(self) -> None:
        tokens: dict[LeaseToken, AttemptId] = {}
        results: dict[TaskId, AttemptId] = {}
        newest: dict[TaskId, LeaseToken] = {}
        revived: list[AttemptRow] = []
        for row in self.rows(AttemptRow):
            before = self.attempts.get(row.attempt_id)
            newest[row.task_id] = max(row.token, newest.get(row.task_id, row.token))
            if before is not None and before.state not in LIVE_ATTEMPT and before.state is not row.state:
                assert before.state is AttemptState.LOST, f"{row.attempt_id} was {before.state} and is {row.state}"
                revived.append(row)
            if row.token != LeaseToken(0, 0):
                assert tokens.setdefault(row.token, row.attempt_id) == row.attempt_id, "a token was given twice"
            if row.state is AttemptState.COMPLETED:
                assert results.setdefault(row.task_id, row.attempt_id) == row.attempt_id, "a task has two results"
                assert all(r.exit is not None and r.exit.code == 0 for r in row.ranks), "a failure is a result"
            self.attempts[row.attempt_id] = row
        assert all(row.token == newest[row.task_id] for row in revived), "a fenced attempt came back"
        for task in self.rows(TaskRow):
            assert (task.state is WorkState.COMPLETED) == (task.task_id in results), f"{task} and its attempts differ"
        for job in self.rows(JobRow):
            counted = job.completed + job.failed + job.cancelled
            assert counted <= job.tasks and (counted == job.tasks or job.state not in ENDED), f"{job} counts wrongly"
            was = self.jobs.get(job.job_id)
            if was is not None and was.state in ENDED and job.retries == was.retries:
                assert job.state is was.state, f"{job.job_id} had ended"
            self.jobs[job.job_id] = job

    @invariant()
    def nothing_is_held_twice(self) -> None:
        """By the rows alone: what is not released never exceeds what its provider offers."""
        held: dict[str, int] = {}
        for attempt in self.fleet.state.work.attempts.values():
            for rank in attempt.row.ranks:
                if not rank.released:
                    held[rank.provider_id] = held.get(rank.provider_id, 0) + rank.share.ask.cpus
        assert all(cpus <= OFFER.cpus * UNIT for cpus in held.values()), f"held: {held}"

    @invariant()
    def one_attempt_of_a_task_may_run(self) -> None:
        """Launched, its lease not over, and no end reported: one, unless the job allows more."""
        running: dict[TaskId, int] = {}
        for attempt in self.fleet.state.work.attempts.values():
            live = attempt.row.state in LIVE_ATTEMPT and any(r.launched and r.exit is None for r in attempt.row.ranks)
            running[attempt.row.task_id] = running.get(attempt.row.task_id, 0) + live
        for task_id, count in running.items():
            job = self.fleet.state.work.jobs.get(task_id[0])
            overlap = job is not None and job.spec.steps[task_id[1]].overlap is Overlap.ALLOW
            assert count <= 1 or overlap, f"{count} attempts of {task_id} may run"

    @invariant()
    def silence_is_doubt(self) -> None:
        for attempt in self.fleet.state.work.attempts.values():
            if attempt.row.state is AttemptState.RUNNING and self.judged:
                phases = {self.fleet.state.providers[r.provider_id].phase for r in attempt.row.ranks if r.exit is None}
                assert phases <= {Liveness.ONLINE, Liveness.AWAITED}, f"{attempt.row.attempt_id}: {phases}"


TestWorks = Works.TestCase
TestWorks.settings = settings(max_examples=300, stateful_step_count=50, deadline=None, derandomize=True)
