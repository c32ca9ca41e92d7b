"""A fleet that never fails under the real core: jobs are submitted, tasks run for as long as they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.core import events
from coordinator.core.commands import Decision, Grant, Launch, sends_one_by_one
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, ProviderId, TenantName
from coordinator.core.rows import (
    EndCause,
    ExitInfo,
    JobRow,
    LeaseToken,
    Resources,
    Row,
    TenantRow,
)
from coordinator.core.state import ClusterState
from coordinator.core.tenants.months import begins_ms
from coordinator.core.work.jobspec import JobSpec
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.desk import QUIET, Desk, admin_row
from coordinator.simulator.violation import Violation

BEGAN_MS: Ms = begins_ms(202702) + 1
"""No month turns within."""
POLICY = QUIET


class Watching(Protocol):
    """Who keeps books of what runs."""

    def began(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> Ms:
        """It runs from now on; returns for how long."""
        ...

    def ended(self, attempt_id: AttemptId, rank: int, provider_id: ProviderId) -> None: ...


class Site:
    """The coordinator and its fleet."""

    def __init__(self, machines: Sequence[Resources], tenants: Sequence[TenantRow], books: Watching) -> None:
        self.agenda = Agenda()
        self.agenda.now_ms = BEGAN_MS
        self._books = books
        rows: list[Row] = [admin_row(BEGAN_MS), *tenants]
        self.state = ClusterState.load("fair", rows, 1, 1)
        self._desk = Desk(self.state, POLICY, lambda: self.now_ms, self._carry_out)
        self._names: dict[ConnId, ProviderId] = {}
        self._desk.tell(events.Boot(at_ms=BEGAN_MS))
        for number, resources in enumerate(machines, 1):
            self._join(ConnId(number), ProviderId(f"box-{number}"), resources)

    @property
    def now_ms(self) -> Ms:
        return self.agenda.now_ms

    @property
    def elapsed_ms(self) -> Ms:
        return self.agenda.now_ms - BEGAN_MS

    @property
    def events(self) -> int:
        """How many were decided."""
        return self._desk.decided

    def submit(self, tenant: TenantName, spec: JobSpec) -> JobId:
        event = events.JobSubmit(
            at_ms=self.now_ms, request_id=self._desk.request(), tenant=tenant, by="seed", spec=spec, any_priority=True
        )
        answer = self._desk.decide(event).replies[0].result
        if not isinstance(answer, JobRow):
            raise Violation(f"{spec.name} of {tenant} is refused: {answer}")
        self._desk.come_to_rest()
        return answer.job_id

    def after(self, delay_ms: Ms, happens: Callable[[], None]) -> None:
        self.agenda.after(delay_ms, happens)

    def run_until(self, elapsed_ms: Ms) -> None:
        """Let happen what is due; the world ends at that moment."""
        done = False

        def end() -> None:
            nonlocal done
            done = True

        self.agenda.at(BEGAN_MS + elapsed_ms, end)
        while not done:
            self.agenda.step()

    def tick(self) -> None:
        self._desk.tell(events.Tick(at_ms=self.now_ms))

    # ---- the fleet

    def _join(self, conn_id: ConnId, name: ProviderId, resources: Resources) -> None:
        self._names[conn_id] = name
        self._desk.enrol(name)
        self._desk.connect(conn_id, name, resources, data=False)

    def _launch(self, conn_id: ConnId, order: Launch) -> None:
        attempt_id, rank, token = order.attempt_id, order.rank, order.token
        length_ms = self._books.began(attempt_id, rank, self._names[conn_id])
        self.agenda.after(length_ms, lambda: self._exit(conn_id, attempt_id, rank, token, length_ms))
        phase = events.AttemptPhase(
            at_ms=self.now_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, phase="running"
        )
        self._desk.say(phase)

    def _exit(self, conn_id: ConnId, attempt_id: AttemptId, rank: int, token: LeaseToken, ran_ms: Ms) -> None:
        self._books.ended(attempt_id, rank, self._names[conn_id])
        exit = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=ran_ms)
        ended = ((attempt_id, rank, token, exit),)
        self._desk.tell(events.AttemptsEnded(at_ms=self.now_ms, conn_id=conn_id, ended=ended))

    def _carry_out(self, decision: Decision) -> None:
        for send in sends_one_by_one(decision.sends):
            match send.message:
                case Grant(attempt_id=attempt_id, rank=rank, token=token):
                    self._desk.say(
                        events.AgentGranted(
                            at_ms=self.now_ms, conn_id=send.conn_id, attempt_id=attempt_id, rank=rank, token=token
                        )
                    )
                case Launch() as order:
                    self._launch(send.conn_id, order)
                case _:
                    pass
