"""Inputs: there at submission, held for the job, brought before the start; what cannot be brought is no failure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.data import events as data
from coordinator.core.errors import Code
from coordinator.core.ids import ConnId, ProviderId, TenantName
from coordinator.core.rows import AttemptRow, EndCause, Promises, SpecRow
from coordinator.core.tenants.months import begins_ms, month_of, next_month
from coordinator.core.work.jobspec import Input, JobSpec, OnLost, RetryRule
from coordinator.runtimes import RUNTIMES
from tests.builders import START_MS, refusal, sent
from tests.depot import DATA, Depot, an_input, digest_of, outcome
from tests.site import TENANT, a_job, a_step


def a_reader(*texts: str, **more: Any) -> JobSpec:
    told: dict[str, Any] = {"inputs": tuple(map(an_input, texts)), "on_lost": OnLost(mode="retry")}
    return a_job(**(told | more))


def plans(depot: Depot) -> list[Any]:
    return [RUNTIMES["plain"](m) for d in depot.decisions for _, m in sent(d, commands.Launch)]


def test_a_job_holds_its_inputs() -> None:
    """With their sizes as they are, whatever was said of them."""
    depot = Depot("a")
    depot.store("x", 7)
    depot.submit_with(a_reader("x"))
    assert depot.holds() == {"job:1": (digest_of("x"),)}
    spec = depot.rows["spec", 1]
    assert isinstance(spec, SpecRow) and spec.spec.steps[0].inputs[0].size == 7
    (plan,) = plans(depot)
    assert plan.inputs and plan.outputs == () and plan.checkpoint is None
    depot.exits("1.0.0.1")
    assert depot.holds() == {"job:1": (digest_of("x"),)}, "it may be run again"


def test_a_job_whose_inputs_are_not_there_is_refused() -> None:
    depot = Depot("a")
    assert refusal(depot.submit_with(a_reader("x"))).code is Code.INCOMPLETE
    row = depot.store("x")
    depot.restart(1)
    assert (
        refusal(depot.submit_with(a_reader("x"), (replace(row, tenant=TenantName("other")),))).code is Code.INCOMPLETE
    )
    assert depot.state.work.jobs == {} and depot.holds() == {}
    backwards = a_job(a_step("take", inputs=(Input(path="", step=1, pattern="*"),)), a_step("make", outputs=("*",)))
    assert refusal(depot.submit_with(backwards)).code is Code.BAD_JOB


def test_an_agent_is_told_what_its_step_needs() -> None:
    depot = Depot("a")
    depot.store("x")
    take = (an_input("x"), Input(path="in", step=0, pattern="*.out"))
    steps = (a_step("make", tasks=2, outputs=("*.out",)), a_step("take", needs=(0,), inputs=take))
    depot.submit_with(a_job(*steps))
    for attempt in ("1.0.0.1", "1.0.1.1"):
        depot.results(attempt, attempt)
    found = depot.admitted(depot.claim("1.1.0.1"))
    assert found.needs == ((0, "make", 2),) and found.step.inputs[0].digest == digest_of("x")


def says(depot: Depot, attempt: str, phase: str) -> commands.Decision:
    claim = depot.claim(attempt)
    return depot.decide(
        events.AttemptPhase(
            at_ms=depot.now_ms,
            conn_id=ConnId(depot.conn(claim.provider_id)),
            attempt_id=claim.attempt_id,
            rank=0,
            token=claim.token,
            phase=phase,
        )
    )


class Slow(Depot):
    """Its agents bring inputs before they start anything."""

    def decide(self, event: events.AnyEvent, durable: bool = True) -> commands.Decision:
        if isinstance(event, events.AttemptPhase) and event.phase == "running" and not self.brought:
            event = events.AttemptPhase(
                at_ms=event.at_ms,
                conn_id=event.conn_id,
                attempt_id=event.attempt_id,
                rank=event.rank,
                token=event.token,
                phase="staging",
            )
        return super().decide(event, durable)

    brought = False


def test_time_in_staging_is_nobodys() -> None:
    """It is not slow to begin, however long it takes, and is charged from its start on."""
    depot = Slow("a")
    depot.store("x")
    depot.submit_with(a_reader("x"))
    depot.run_to(200)
    assert depot.states() == ["staging"] and "inputs" in depot.attempt("1.0.0.1").reason
    assert "slow" not in [row.after for row in depot.audits("attempt", "1.0.0.1")]
    depot.brought = True
    says(depot, "1.0.0.1", "running")
    assert depot.attempt("1.0.0.1").started_at_ms == depot.now_ms
    says(depot, "1.0.0.1", "uploading")
    assert depot.states() == ["running"] and "outputs" in depot.attempt("1.0.0.1").reason


def test_what_cannot_be_brought_is_tried_elsewhere() -> None:
    """Charged like a loss, behind a backoff; a full disk is the provider's fault."""
    depot = Depot("a", "b")
    depot.store("x")
    depot.submit_with(a_reader("x"))
    first = depot.attempt("1.0.0.1").ranks[0].provider_id
    depot.exits("1.0.0.1", 28, cause=EndCause.STAGE, text="2 GB needed, 1 GB free", ran_ms=0)
    assert depot.states() == ["lost"] and "2 GB needed" in depot.task().reason
    assert depot.task().losses == 1 and depot.task().failures == 0 and depot.task().unstaged_on == (first,)
    assert len(depot.state.work.failures[first]) == 1
    depot.run_to(10)
    assert depot.attempt("1.0.0.2").ranks[0].provider_id == ({"a", "b"} - {first}).pop()


def test_where_there_is_no_elsewhere_it_is_tried_again_there() -> None:
    """And not for ever."""
    depot = Depot("a")
    depot.store("x")
    depot.submit_with(a_reader("x", retry=RetryRule(losses=2, delay_ms=1_000)))
    for number in (1, 2, 3):
        depot.run_to(depot.now_s + 20)
        depot.exits(f"1.0.0.{number}", cause=EndCause.STAGE, text="no way there", ran_ms=0)
    assert depot.job().state.value == "failed" and depot.task().failures == 0 and depot.task().exit_code == 66
    assert ProviderId("a") not in depot.state.work.loads, "the way there is not the provider's fault"


def test_what_is_there_for_nobody_ends_the_task() -> None:
    depot = Depot("a", "b")
    depot.store("x")
    depot.submit_with(a_reader("x"))
    depot.exits("1.0.0.1", 2, cause=EndCause.STAGE, text="x.txt was removed", ran_ms=0)
    assert depot.job().state.value == "failed" and "x.txt was removed" in depot.job().reason


def test_stalled_is_a_failure_like_others() -> None:
    depot = Depot("a")
    depot.submit(a_job(stall_ms=60_000))
    assert plans(depot)[0].stall_ms == 60_000
    depot.exits("1.0.0.1", cause=EndCause.STALLED, text="nothing for 1 min")
    assert depot.task().failures == 1 and depot.task().exit_code == 124 and "retry 1 of 3" in depot.task().reason


def test_short_tasks_with_data_are_not_leased_ahead() -> None:
    depot = Depot("a", promises=Promises(work=True, data=True, prefetch=8))
    depot.store("x")
    depot.submit_with(a_reader("x", tasks=8, expected_ms=10))
    assert len(depot.state.work.attempts) == 2
    depot.cancel(1)
    depot.submit(a_job(tasks=8, expected_ms=10))
    assert len(depot.state.work.attempts) > 2


def limit_egress(depot: Depot, egress: int | None) -> None:
    told = (("egress", egress),)
    what = events.TenantSet(at_ms=depot.now_ms, request_id=depot.request(), name=TENANT, quota=told)
    outcome(depot.decide(what))


def fetched(depot: Depot, size: int) -> None:
    moved = (data.Moved(tenant=TENANT, ingress=0, egress=size),)
    depot.decide(data.BytesMoved(at_ms=depot.now_ms, moved=moved))


def test_a_tenant_that_may_fetch_no_more_waits_with_its_inputs() -> None:
    """Nothing is started for it, nothing is lost; why says so. It goes on when the limit rises; what fetches nothing is
    not concerned."""
    depot = Depot("a")
    limit_egress(depot, 1_000)
    depot.store("x", 100)
    fetched(depot, 850)
    depot.submit_with(a_reader("x"))
    depot.submit(a_job())
    depot.run_to(60)
    assert (depot.states(1), depot.states(2)) == ([], ["running"])
    (step,) = depot.explain(1).steps
    assert step.verdict == "wait" and "limit of egress" in step.text
    assert [(found.constraint, found.ever) for found in step.obstacles] == [("quota:egress", True)]
    limit_egress(depot, 2_000)
    depot.run_to(62)
    assert depot.states(1) == ["running"] and depot.task().losses == 0


def test_a_tenant_that_may_fetch_no_more_goes_on_with_the_month() -> None:
    depot = Depot("a")
    limit_egress(depot, 1_000)
    depot.store("x", 100)
    fetched(depot, 899)
    depot.submit_with(a_reader("x"))
    depot.run_to(10)
    assert depot.states() == []
    depot.at((begins_ms(next_month(month_of(START_MS))) - START_MS) / 1_000 + 1)
    depot.back("a", process="p2")
    depot.run_to((depot.now_ms - START_MS) / 1_000 + 20)
    assert depot.states() == ["running"]


def test_inputs_that_no_month_has_room_for_never_start() -> None:
    depot = Depot("a")
    depot.store("x", 1_000)
    depot.submit_with(a_reader("x"))
    depot.exits("1.0.0.1", 1)
    limit_egress(depot, 1_000)
    depot.run_to(60)
    (step,) = depot.explain(1).steps
    assert step.verdict == "never" and "limit of egress is below" in step.text


def test_whoever_is_refused_its_bytes_waits_and_nobody_is_charged() -> None:
    """What was only found out as they were fetched: the size of another step's outputs is known to nobody before. One
    whose tenant has no such limit says nothing by it."""
    for limited in (True, False):
        depot = Depot("a", "b")
        depot.store("x", 100)
        if limited:
            limit_egress(depot, 1_000)
        depot.submit_with(a_reader("x"))
        depot.exits("1.0.0.1", 122, cause=EndCause.STAGE, text="no room: egress", ran_ms=0)
        assert (depot.task().losses, bool(depot.task().unstaged_on)) == ((0, False) if limited else (1, True))
        depot.run_to(599)
        assert depot.states() == (["lost"] if limited else ["lost", "running"])
        if limited:
            assert "higher limit of egress" in depot.task().reason
            depot.run_to(602)
            assert depot.states() == ["lost", "running"]


def test_inputs_larger_than_a_whole_disk_go_elsewhere_or_never_start() -> None:
    """A provider whose disk can never hold them is not tried again and again; why says so. One that does not say how
    large its disk is takes them."""
    for sizes, expected in (((99, 100), {"b"}), ((99, 0), {"b"}), ((99, 50), set())):
        depot = Depot("a", "b")
        for agent, size in zip(depot.agents.values(), sizes, strict=True):
            agent.promises = replace(DATA, disk_bytes=size)
            depot.back(agent.name)
        depot.store("x", 60)
        depot.store("y", 40)
        depot.submit_with(a_reader("x", "y"))
        depot.run_to(20)
        placed = {row.ranks[0].provider_id for row in depot.all(AttemptRow)}
        assert placed == expected, sizes
        if not expected:
            (step,) = depot.explain(1).steps
            assert step.verdict == "never" and "more than the whole disk" in step.hint
            assert [(found.constraint, found.providers, found.ever) for found in step.obstacles] == [("disk", 2, False)]
