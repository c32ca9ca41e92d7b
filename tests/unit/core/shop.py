"""Tenants that ask for the slots of one fleet, on a virtual clock of minutes: what each is given, and in which order.

Straight on `decide`: no agent says anything but that what it was given has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from heapq import heappop, heappush

from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Grant, sends_one_by_one
from coordinator.core.decide import decide
from coordinator.core.ids import ConnId, JobId, PoolName, ProviderId, ProviderKey, RequestId, TenantName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndCause, ExitInfo, Promises, ProviderRow, Resources, TenantRow
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import Isolation, JobSpec
from tests.builders import START_MS, a_hello

PATIENT = Policy(heartbeat_interval_ms=10**9, lost_after_ms=10**12, grant_ms=10**12, launch_ms=10**12, prefetch_ms=0)
"""Nobody is judged by what he does not say."""
DONE = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=60_000)
SHARED = Promises(work=True, isolation=Isolation.UID)


class Shop:
    def __init__(
        self,
        weights: Mapping[str, int],
        providers: Mapping[str, Resources],
        lasts: Callable[[JobId, str], int],
        policy: Policy = PATIENT,
    ) -> None:
        """`lasts`: how many minutes a task of this job of this tenant runs."""
        self.policy, self.lasts = policy, lasts
        self.now_ms = START_MS
        tenants = [TenantRow(name=TenantName(n), created_at_ms=1, weight=w) for n, w in weights.items()]
        rows = [a_row(name, number) for number, name in enumerate(providers, start=1)]
        self.state = ClusterState.load("shop", [*tenants, *rows], 1, len(rows) + 1)
        self.served: Counter[str] = Counter()
        """Minutes that were given to each tenant."""
        self.begun: list[tuple[int, JobId, str]] = []
        """(minute, job, provider) of every task that was placed."""
        self._ends: list[tuple[int, int, ConnId, Grant]] = []
        self._tell(events.Boot(at_ms=self.now_ms))
        for conn, (name, offer) in enumerate(providers.items(), start=1):
            self._tell(replace(a_hello(conn, name, at_ms=self.now_ms), resources=offer, promises=SHARED))

    @property
    def minute(self) -> int:
        return (self.now_ms - START_MS) // 60_000

    def submit(self, tenant: str, spec: JobSpec) -> JobId:
        job_id = self.state.work.next_job_id
        ask = events.JobSubmit(
            at_ms=self.now_ms,
            request_id=RequestId(1),
            tenant=TenantName(tenant),
            by="token:t",
            spec=spec,
            any_priority=True,
        )
        self._tell(ask)
        return job_id

    def waiting(self, tenant: str) -> int:
        """Tasks of it that have not begun."""
        jobs = [job for job in self.state.work.jobs.values() if job.row.tenant == tenant]
        return sum(step.spec.tasks - step.row.cursor for job in jobs for step in job.steps)

    def run_to(self, minute: int, each: Callable[[int], None] = lambda minute: None) -> None:
        """Let time go by; `each` is called at the beginning of every minute."""
        while self.minute < minute:
            each(self.minute)
            self._place()
            self.now_ms += 60_000
            while self._ends and self._ends[0][0] <= self.now_ms:
                _, _, conn_id, grant = heappop(self._ends)
                told = {"conn_id": conn_id, "attempt_id": grant.attempt_id, "rank": grant.rank, "token": grant.token}
                self._tell(events.AttemptExited(at_ms=self.now_ms, **told, exit=DONE))  # type: ignore[arg-type]
            self._place()

    def _place(self) -> None:
        self.state.work.place_due = True
        while self.state.work.place_due:
            self._tell(events.Place(at_ms=self.now_ms))

    def _tell(self, event: events.AnyEvent) -> None:
        decision = decide(self.state, event, self.policy)
        for reply in decision.replies:
            assert not isinstance(reply.result, Exception), reply.result
        for send in sends_one_by_one(decision.sends):
            if isinstance(send.message, Grant):
                job = self.state.work.jobs[send.message.attempt_id[0]]
                lasts = self.lasts(job.row.job_id, job.row.tenant)
                self.served[job.row.tenant] += lasts
                self.begun.append((self.minute, job.row.job_id, self.state.conns[send.conn_id]))
                end_ms = self.now_ms + lasts * 60_000
                number = send.message.token.number * 100 + send.message.rank
                heappush(self._ends, (end_ms, number, send.conn_id, send.message))
                self._tell(
                    events.AgentGranted(
                        at_ms=self.now_ms,
                        conn_id=send.conn_id,
                        attempt_id=send.message.attempt_id,
                        rank=send.message.rank,
                        token=send.message.token,
                    )
                )


def a_row(name: str, number: int) -> ProviderRow:
    return ProviderRow(
        provider_id=ProviderId(name),
        key=ProviderKey(number),
        machine_id=f"machine of {name}",
        pool=PoolName("default"),
        credential_id=TokenId(name),
        enrolled_at_ms=1,
    )


def cpus(count: int) -> Resources:
    return Resources(cpus=float(count), memory_gb=1_000.0)


def an_ask(count: float) -> tuple[Ask, ...]:
    return (Ask(cpus=round(count * UNIT)),)
