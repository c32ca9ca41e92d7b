"""A fleet that never fails under the real core: jobs are submitted, tasks run for as long as they are told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.core import events
from coordinator.core.commands import Decision, Enrolled, Grant, Launch
from coordinator.core.decide import decide
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, ProviderId, RequestId, TenantName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import (
    EndCause,
    ExitInfo,
    JobRow,
    LeaseToken,
    Promises,
    Resources,
    Role,
    Row,
    TenantRow,
    TokenRow,
)
from coordinator.core.state import ClusterState
from coordinator.core.tenants.months import begins_ms
from coordinator.core.work.jobspec import Isolation, JobSpec
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.violation import Violation

BEGAN_MS: Ms = begins_ms(202702) + 1
"""No month turns within."""
NEVER_MS: Ms = 100 * 366 * 86_400_000
PLACES_MAX = 100
"""Place events in a row: a queue of this size needs no more to come to rest."""
ADMIN = "admin"
PROMISES = Promises(work=True, isolation=Isolation.SANDBOX, kills_all=True, freezes_all=True)
POLICY = Policy(
    heartbeat_interval_ms=NEVER_MS,
    heartbeat_budget_per_s=1e12,
    lost_after_ms=NEVER_MS,
    beat_save_every_ms=NEVER_MS,
    alive_every_ms=NEVER_MS,
    stall_ms=NEVER_MS,
    outage_ms=NEVER_MS,
)
"""The usual policy, but that silence means nothing."""


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
        self.events = 0
        self._books = books
        self._requests = 0
        self._inbox: deque[events.AnyEvent] = deque()
        token = TokenRow(token_id=TokenId(ADMIN), role=Role.ADMIN, digest=ADMIN, created_at_ms=BEGAN_MS)
        rows: list[Row] = [token, *tenants]
        self.state = ClusterState.load("fair", rows, 1, 1)
        self._names: dict[ConnId, ProviderId] = {}
        self._tell(events.Boot(at_ms=BEGAN_MS))
        for number, resources in enumerate(machines, 1):
            self._join(ConnId(number), ProviderId(f"box-{number}"), resources)

    @property
    def now_ms(self) -> Ms:
        return self.agenda.now_ms

    @property
    def elapsed_ms(self) -> Ms:
        return self.agenda.now_ms - BEGAN_MS

    def submit(self, tenant: TenantName, spec: JobSpec) -> JobId:
        event = events.JobSubmit(
            at_ms=self.now_ms, request_id=self._request(), tenant=tenant, by="seed", spec=spec, any_priority=True
        )
        answer = self._decide(event).replies[0].result
        if not isinstance(answer, JobRow):
            raise Violation(f"{spec.name} of {tenant} is refused: {answer}")
        self.come_to_rest()
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
        self._tell(events.Tick(at_ms=self.now_ms))

    # ---- the fleet

    def _join(self, conn_id: ConnId, name: ProviderId, resources: Resources) -> None:
        self._names[conn_id] = name
        enrol = events.ProviderEnrol(
            at_ms=self.now_ms,
            request_id=self._request(),
            provider_id=name,
            machine_id=name,
            token_digest=ADMIN,
            credential_digest=f"credential of {name}",
            credential_id=TokenId(f"credential-{name}"),
        )
        granted = self._tell(enrol).replies[0].result
        assert isinstance(granted, Enrolled)
        self._tell(
            events.AgentHello(
                at_ms=self.now_ms,
                conn_id=conn_id,
                provider_id=name,
                machine_id=name,
                boot_id=f"boot of {name}",
                process_id=f"process of {name}",
                agent_version="1",
                peer="",
                fresh_resume_digest="",
                resources=resources,
                promises=PROMISES,
            )
        )

    def _launch(self, conn_id: ConnId, order: Launch) -> None:
        attempt_id, rank, token = order.attempt_id, order.rank, order.token
        length_ms = self._books.began(attempt_id, rank, self._names[conn_id])
        self.agenda.after(length_ms, lambda: self._exit(conn_id, attempt_id, rank, token, length_ms))
        phase = events.AttemptPhase(
            at_ms=self.now_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, phase="running"
        )
        self._inbox.append(phase)

    def _exit(self, conn_id: ConnId, attempt_id: AttemptId, rank: int, token: LeaseToken, ran_ms: Ms) -> None:
        self._books.ended(attempt_id, rank, self._names[conn_id])
        exit = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=ran_ms)
        self._tell(
            events.AttemptExited(
                at_ms=self.now_ms, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, exit=exit
            )
        )

    # ---- the engine

    def _request(self) -> RequestId:
        self._requests += 1
        return RequestId(self._requests)

    def _tell(self, event: events.AnyEvent) -> Decision:
        decision = self._decide(event)
        self.come_to_rest()
        return decision

    def come_to_rest(self) -> None:
        """Agents answer and whoever waits is placed, until nobody has anything more to say in this moment."""
        for _ in range(PLACES_MAX):
            while self._inbox:
                self._decide(self._inbox.popleft())
            if not self.state.work.place_due:
                return
            self._decide(events.Place(at_ms=self.now_ms))
        raise Violation(f"after {self.elapsed_ms} ms the queue asks for a place for ever")

    def _decide(self, event: events.AnyEvent) -> Decision:
        self.events += 1
        decision = decide(self.state, event, POLICY)
        for send in decision.sends:
            match send.message:
                case Grant(attempt_id=attempt_id, rank=rank, token=token):
                    self._inbox.append(
                        events.AgentGranted(
                            at_ms=self.now_ms, conn_id=send.conn_id, attempt_id=attempt_id, rank=rank, token=token
                        )
                    )
                case Launch() as order:
                    self._launch(send.conn_id, order)
                case _:
                    pass
        return decision
