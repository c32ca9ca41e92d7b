"""A fleet at work, for tests of the core: honest agents that answer at once, and what people ask of jobs.

Times are seconds since it began. What an agent holds, it goes on holding when nobody hears it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, ProviderId, TenantName, attempt_of, dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    AttemptRow,
    AuditRow,
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
from coordinator.core.work.jobspec import JobSpec, StepSpec
from tests.builders import Fleet, a_hello

TENANT = TenantName("default")
OFFER = Resources(cpus=2.0, memory_gb=8.0)
WORKS = Promises(work=True)


def a_step(name: str = "s", **more: Any) -> StepSpec:
    """One task of one CPU that runs `true`, unless `more` says otherwise."""
    return StepSpec(**{"name": name, "command": ("true",), **more})


def a_job(*steps: StepSpec, name: str = "j", deadline_ms: Ms | None = None, priority: int = 0, **more: Any) -> JobSpec:
    """A job of these steps, or of one: `a_job(tasks=3)`."""
    return JobSpec(name=name, steps=steps or (a_step(**more),), deadline_ms=deadline_ms, priority=priority)


class Held(Struct):
    """What an agent holds of one attempt."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    phase: str
    exit: ExitInfo | None = None
    cpus: int = 0
    """What it uses of the machine."""
    waits: bool = False
    """It was leased ahead and waits for room; `ordered` to launch or not."""
    ordered: bool = False


class Agent:
    """An honest agent: it stores grants, launches when told, stops when told, keeps ends until they are settled."""

    def __init__(self, name: str, offer: Resources, promises: Promises) -> None:
        self.name, self.offer, self.promises = name, offer, promises
        self.conn: int | None = None
        self.process, self.boot = "p1", "b1"
        self.seq = 0
        self.renewed_seq = 0
        self.held: dict[tuple[AttemptId, int], Held] = {}
        self.terms: dict[AttemptId, Ms] = {}
        self.hears = True
        """False: its machine or its network is gone, and nobody noticed."""
        self.grants = "answers"
        """`answers`, `refuses` or `ignores` them; `begins unheard`: it answers, and that it runs is not heard of."""

    def hear(self, message: commands.Message, at_ms: Ms) -> events.AnyEvent | None:
        """Do what it says, and answer."""
        conn = ConnId(self.conn or 0)
        match message:
            case commands.Grant(attempt_id=attempt_id, rank=rank, token=token):
                if self.grants == "ignores":
                    return None
                if self.grants == "refuses":
                    return events.AgentRefused(
                        at_ms=at_ms, conn_id=conn, attempt_id=attempt_id, rank=rank, token=token, why="no room"
                    )
                held = Held(attempt_id, rank, token, "leased", cpus=message.share.ask.cpus, waits=message.prefetched)
                self.held[attempt_id, rank] = held
                self.terms[attempt_id] = message.term_ms
                return events.AgentGranted(at_ms=at_ms, conn_id=conn, attempt_id=attempt_id, rank=rank, token=token)
            case commands.Launch(attempt_id=attempt_id, rank=rank, token=token):
                held = self.held[attempt_id, rank]
                held.ordered = True
                if held.waits:
                    return self.turn(at_ms)
                held.phase = "running"
                if self.grants == "begins unheard":
                    return None
                return events.AttemptPhase(
                    at_ms=at_ms, conn_id=conn, attempt_id=attempt_id, rank=rank, token=token, phase="running"
                )
            case commands.StopAttempt(attempt_id=attempt_id):
                mine = next((h for h in self.held.values() if h.attempt_id == attempt_id), None)
                if mine is None or (message.unbegun and not mine.waits):
                    return None
                return self.ends(mine, ExitInfo(cause=EndCause.STOPPED), at_ms)
            case commands.Settled(attempt_id=attempt_id, rank=rank):
                self.held.pop((attempt_id, rank), None)
            case commands.Renew(seq=seq, terms=terms):
                self.renewed_seq = seq
                self.terms |= {term.attempt_id: term.term_ms for term in terms}
                for held in self.held.values():
                    if held.phase == "frozen" and held.attempt_id in {term.attempt_id for term in terms}:
                        return self._thaws(held, at_ms)
            case _:
                pass
        return None

    def turn(self, at_ms: Ms) -> events.AttemptPhase | None:
        """Start the first of those that were leased ahead, if it was ordered to launch and there is room."""
        line = sorted((h for h in self.held.values() if h.waits and h.phase == "leased"), key=lambda h: h.token)
        used = sum(h.cpus for h in self.held.values() if h.phase != "exited" and not h.waits)
        if not line or not line[0].ordered or used + line[0].cpus > self.offer.cpus * 1_000_000:
            return None
        line[0].waits = False
        return self._thaws(line[0], at_ms)

    def _thaws(self, held: Held, at_ms: Ms) -> events.AttemptPhase:
        held.phase = "running"
        return events.AttemptPhase(
            at_ms=at_ms,
            conn_id=ConnId(self.conn or 0),
            attempt_id=held.attempt_id,
            rank=held.rank,
            token=held.token,
            phase="running",
        )

    def ends(self, held: Held, exit: ExitInfo, at_ms: Ms) -> events.AttemptExited:
        held.phase, held.exit = "exited", exit
        return events.AttemptExited(
            at_ms=at_ms,
            conn_id=ConnId(self.conn or 0),
            attempt_id=held.attempt_id,
            rank=held.rank,
            token=held.token,
            exit=exit,
        )


class Site(Fleet):
    """A fleet at work. Its agents answer at once, and the engine's Place follows whenever the state asks for it."""

    def __init__(
        self,
        *providers: str,
        offer: Resources = OFFER,
        promises: Promises = WORKS,
        policy: Policy | None = None,
    ) -> None:
        self.agents = {name: Agent(name, offer, promises) for name in providers}
        self.next_conn = 1
        self.names: dict[int, str] = {}
        """Whose each connection was."""
        self.durable = True
        super().__init__(*providers, policy=policy)
        for name in providers:
            self.back(name)

    # ---- agents

    def decide(self, event: events.AnyEvent, durable: bool = True) -> commands.Decision:
        decision = super().decide(event, durable and self.durable)
        for send in decision.sends if self.durable else ():
            agent = next((a for a in self.agents.values() if a.conn == send.conn_id and a.hears), None)
            answer = agent.hear(send.message, self.now_ms) if agent is not None else None
            if answer is not None:
                self.decide(answer)
        while self.state.work.place_due and not isinstance(event, events.Place):
            self.decide(events.Place(at_ms=self.now_ms))
        return decision

    def back(self, name: str, *, rebooted: bool = False, empty: bool = False, process: str = "") -> commands.Decision:
        """It connects, with all that it holds; `empty`: its keeper died; `rebooted`: its machine did."""
        agent = self.agents[name]
        agent.hears, agent.conn, self.next_conn = True, self.next_conn, self.next_conn + 1
        agent.seq = agent.renewed_seq = 0
        self.names[agent.conn] = name
        if rebooted:
            agent.boot, agent.process = agent.boot + "'", agent.process + "'"
        agent.process = process or agent.process
        if rebooted or empty:
            agent.held = {key: held for key, held in agent.held.items() if held.exit is not None}
        hello = a_hello(agent.conn, name, at_ms=self.now_ms, process=agent.process, boot=agent.boot)
        held = tuple(
            events.HeldAttempt(attempt_id=h.attempt_id, rank=h.rank, token=h.token, phase=h.phase, exit=h.exit)
            for h in agent.held.values()
        )
        provider = self.state.providers[ProviderId(name)]
        key = "" if rebooted or empty else provider.row.resume_digest_unconfirmed or provider.row.resume_digest
        more = {"resources": agent.offer, "promises": agent.promises, "attempts": held, "resume_digest": key}
        return self.decide(replace(hello, **more))

    def breaks(self, name: str) -> commands.Decision:
        """Its socket breaks; what it runs goes on there, unheard."""
        conn, self.agents[name].conn = self.agents[name].conn, None
        return self.decide(events.LinkClosed(at_ms=self.now_ms, conn_id=ConnId(conn or 0)))

    def falls_silent(self, name: str) -> None:
        """Nothing arrives any more, and no socket breaks."""
        self.agents[name].hears = False

    def exits(self, attempt: str, code: int = 0, *, rank: int = 0, **more: Any) -> None:
        """The program ends; its agent says so if it can."""
        attempt_id = attempt_of(attempt)
        exit = ExitInfo(**{"cause": EndCause.EXITED, "code": code, "ran_ms": 1_000, **more})
        for agent in self.agents.values():
            held = agent.held.get((attempt_id, rank))
            if held is not None and held.phase != "exited":
                told = agent.ends(held, exit, self.now_ms)
                heard = agent.hears and agent.conn is not None
                if heard:
                    self.decide(told)
                while (started := agent.turn(self.now_ms)) is not None:
                    if heard:
                        self.decide(started)
                return
        raise AssertionError(f"nobody runs rank {rank} of {attempt}")

    def beat_all(self) -> None:
        """Every agent that can be heard sends a heartbeat with what it holds."""
        beats = []
        for agent in self.agents.values():
            if agent.conn is not None and agent.hears:
                agent.seq += 1
                named = tuple(h.attempt_id for h in agent.held.values() if h.phase != "exited")
                beats.append(
                    events.Beat(
                        conn_id=ConnId(agent.conn),
                        received_ms=self.now_ms,
                        seq=agent.seq,
                        renewed_seq=agent.renewed_seq,
                        attempts=named,
                    )
                )
        self.decide(events.Heartbeats(at_ms=self.now_ms, beats=tuple(beats)))

    def run_to(self, seconds: float, beating: Iterable[int] = ()) -> None:
        """Tick every second; agents beat every fifth, and repeat every tenth what was not answered yet."""
        while self.now_s + 1 <= seconds:
            self.at(self.now_s + 1)
            if round(self.now_s) % 5 == 0:
                self.beat_all()
            if round(self.now_s) % 10 == 0:
                self._repeat()
            self.tick()

    def _repeat(self) -> None:
        for agent in self.agents.values():
            for held in list(agent.held.values()):
                if held.exit is not None and agent.conn is not None and agent.hears:
                    self.decide(agent.ends(held, held.exit, self.now_ms))

    # ---- people

    def submit(self, spec: JobSpec, *, key: str = "", body: str = "", known: JobRow | None = None) -> commands.Decision:
        return self.decide(
            events.JobSubmit(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=TENANT,
                by="token:t",
                spec=spec,
                idempotency_key=key,
                body_digest=body,
                known=known,
            )
        )

    def cancel(
        self, job: int, task: tuple[int, int] | None = None, tenant: TenantName | None = None
    ) -> commands.Decision:
        known = self.rows.get(("job", job))
        assert known is None or isinstance(known, JobRow)
        return self.decide(
            events.JobCancel(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=tenant,
                by="token:t",
                job_id=JobId(job),
                task=task,
                known=known,
            )
        )

    def retry(self, job: int, tenant: TenantName | None = None) -> commands.Decision:
        row, spec = self.rows["job", job], self.rows["spec", job]
        assert isinstance(row, JobRow) and isinstance(spec, SpecRow)
        steps = tuple(r for r in self.rows.values() if isinstance(r, StepRow) and r.job_id == job)
        tasks = tuple(
            r
            for r in self.rows.values()
            if isinstance(r, TaskRow) and r.job_id == job and r.state is not WorkState.COMPLETED
        )
        return self.decide(
            events.JobRetry(
                at_ms=self.now_ms,
                request_id=self.request(),
                tenant=tenant,
                by="token:t",
                job_id=JobId(job),
                job=row,
                spec=spec.spec,
                steps=steps,
                tasks=tasks,
            )
        )

    def explain(self, job: int) -> commands.Explanation:
        ask = events.JobExplain(at_ms=self.now_ms, request_id=self.request(), tenant=None, job_id=JobId(job))
        (reply,) = self.decide(ask).replies
        assert isinstance(reply.result, commands.Explanation), f"refused: {reply.result}"
        return reply.result

    # ---- looking

    def job(self, job: int = 1) -> JobRow:
        """As it is durable."""
        row = self.rows["job", job]
        assert isinstance(row, JobRow)
        return row

    def step(self, job: int = 1, step: int = 0) -> StepRow:
        row = self.rows["step", (job, step)]
        assert isinstance(row, StepRow)
        return row

    def task(self, job: int = 1, step: int = 0, task: int = 0) -> TaskRow:
        row = self.rows["task", (job, step, task)]
        assert isinstance(row, TaskRow)
        return row

    def attempt(self, text: str) -> AttemptRow:
        row = self.rows["attempt", attempt_of(text)]
        assert isinstance(row, AttemptRow)
        return row

    def states(self, job: int = 1, step: int = 0, task: int = 0) -> list[str]:
        """How each attempt of a task stands, oldest first."""
        rows = [r for r in self.rows.values() if isinstance(r, AttemptRow) and r.task_id == (job, step, task)]
        return [row.state.value for row in sorted(rows, key=lambda row: row.attempt)]

    def running(self, name: str) -> list[str]:
        """What this agent's machine runs."""
        return [dotted(h.attempt_id) for h in self.agents[name].held.values() if h.phase == "running"]

    def warned(self, kind: str) -> list[str]:
        """The subjects that were warned of."""
        notes = [note for decision in self.decisions for note in decision.notes]
        return [note.subject for note in notes if isinstance(note, commands.Warned) and note.kind == kind]

    def calmed(self, kind: str) -> list[str]:
        """The subjects of which it was said that it is over."""
        notes = [note for decision in self.decisions for note in decision.notes]
        return [note.subject for note in notes if isinstance(note, commands.Calmed) and note.kind == kind]

    def audits(self, entity: str, subject: str) -> list[AuditRow]:
        found = [
            r for r in self.rows.values() if isinstance(r, AuditRow) and (r.entity, r.subject) == (entity, subject)
        ]
        return sorted(found, key=lambda row: row.seq)
