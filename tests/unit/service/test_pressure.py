"""Pools that are used up: an alert after a minute, with a time where one can be told, that ends by itself."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.ids import ConnId, PoolName, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.lines import HORIZON_MS
from coordinator.core.rows import EndCause, ExitInfo, Promises, Resources
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.service.alerts import Alerts
from coordinator.service.pressure import ANY, KIND, WAITED_MS, Pressure
from coordinator.timetext import to_text
from tests.builders import Fleet, a_hello


class Rig:
    """One provider with one core, and what is told of its queue."""

    def __init__(self) -> None:
        self.fleet = Fleet("a")
        hello = a_hello(1, at_ms=self.fleet.now_ms)
        self.fleet.decide(replace(hello, resources=Resources(cpus=1.0), promises=Promises(work=True)))
        self.alerts = Alerts(lambda: self.fleet.now_ms)
        self.pressure = Pressure(lambda: self.fleet.state, Policy(), self.alerts)

    def submit(self, **step: object) -> None:
        spec = JobSpec(name="j", steps=(StepSpec(name="main", command=("true",), **step),))  # type: ignore[arg-type]
        self.fleet.decide(
            events.JobSubmit(
                at_ms=self.fleet.now_ms,
                request_id=self.fleet.request(),
                tenant=TenantName("default"),
                by="token:1",
                spec=spec,
            )
        )
        self.fleet.decide(events.Place(at_ms=self.fleet.now_ms))

    def limit(self, cpus: int | None) -> None:
        """The default tenant's quota."""
        set_to = events.TenantSet(
            at_ms=self.fleet.now_ms,
            request_id=self.fleet.request(),
            name=TenantName("default"),
            quota=(("cpus", cpus),),
            by="token:1",
            create=False,
        )
        self.fleet.decide(set_to)

    def run_first(self) -> None:
        """The first attempt is granted, launched and runs."""
        for attempt in list(self.fleet.state.work.attempts.values()):
            said: dict[str, object] = {"at_ms": self.fleet.now_ms, "conn_id": ConnId(1), "rank": 0}
            said |= {"attempt_id": attempt.row.attempt_id, "token": attempt.row.token}
            self.fleet.decide(events.AgentGranted(**said))  # type: ignore[arg-type]
            self.fleet.decide(events.AttemptPhase(**said, phase="running"))  # type: ignore[arg-type]

    def end_first(self) -> None:
        attempt = next(iter(self.fleet.state.work.attempts.values()))
        self.fleet.decide(
            events.AttemptExited(
                at_ms=self.fleet.now_ms,
                conn_id=ConnId(1),
                attempt_id=attempt.row.attempt_id,
                rank=0,
                token=attempt.row.token,
                exit=ExitInfo(cause=EndCause.EXITED, code=0),
            )
        )
        self.fleet.decide(events.Place(at_ms=self.fleet.now_ms))

    def look_after(self, ms: int) -> list[tuple[str, str, bool]]:
        """(subject, text, standing) of the alerts after so long."""
        self.fleet.now_ms += ms
        self.fleet.beat(1)
        self.pressure.look(self.fleet.now_ms)
        return [(e.subject, e.text, e.resolved_at is None) for e in self.alerts.entries() if e.kind == KIND]


def test_a_queue_that_moves_is_no_alert_and_one_that_stands_for_a_minute_is() -> None:
    """The alert names when something should end, as the running task's expectation has it."""
    rig = Rig()
    rig.submit(expected_ms=600_000)
    rig.run_first()
    began_ms = rig.fleet.now_ms
    rig.submit()
    assert rig.look_after(0) == []
    assert rig.look_after(WAITED_MS - 1) == []
    ((subject, text, standing),) = rig.look_after(1)
    assert subject == ANY and standing
    assert to_text(began_ms + 600_000) in text and "1 provider could run it, 0 now: 1 busy" in text


def test_work_that_its_tenant_s_quota_holds_back_is_no_alert_of_its_pool() -> None:
    """More capacity would not help it; it is one as soon as the quota has room and the pool has none."""
    rig = Rig()
    rig.limit(cpus=2_000_000)
    rig.submit()
    rig.run_first()
    rig.limit(cpus=1_200_000)
    rig.submit()
    rig.look_after(0)
    assert rig.look_after(WAITED_MS) == []
    rig.limit(cpus=None)
    rig.look_after(0)
    ((subject, _, standing),) = rig.look_after(WAITED_MS)
    assert subject == ANY and standing


def test_it_is_over_when_the_work_has_its_place() -> None:
    rig = Rig()
    rig.submit()
    rig.run_first()
    began_ms = rig.fleet.now_ms
    rig.submit()
    rig.look_after(0)
    ((_, text, standing),) = rig.look_after(WAITED_MS)
    assert standing and to_text(began_ms + HORIZON_MS) in text, "nothing tells: an hour"
    rig.end_first()
    ((_, _, standing),) = rig.look_after(1_000)
    assert not standing


def test_work_that_no_provider_could_ever_run_is_no_exhausted_pool() -> None:
    """That is said when it is submitted, and by `why`."""
    rig = Rig()
    rig.submit(pools=(PoolName("nowhere"),))
    rig.look_after(0)
    assert rig.look_after(WAITED_MS) == []


def test_each_pool_that_was_asked_for_is_named() -> None:
    rig = Rig()
    rig.submit()
    rig.run_first()
    rig.submit(pools=(PoolName("default"),))
    rig.look_after(0)
    assert [subject for subject, *_ in rig.look_after(WAITED_MS)] == ["default"]
