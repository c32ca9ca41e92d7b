"""What people are told of the queue: why a job waits, what pools offer, and a tenant its own part of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cli.providers import print_provider
from coordinator.api_types.fleet import ProviderEntry
from coordinator.core.rows import Promises, Resources
from coordinator.core.work.jobspec import Isolation
from coordinator.timetext import parse_time
from tests.builders import a_hello
from tests.unit.api.rig import READER, TENANT, Rig, served
from tests.unit.api.worked import eventually

JOB: dict[str, Any] = {"command": ["true"], "time_limit": "1h"}


async def a_provider(rig: Rig, cpus: float = 4.0) -> None:
    """One that takes work and says nothing of it any more."""
    await rig.enrol("a")
    hello = a_hello(1, "a", at_ms=rig.clock.now_ms())
    promises = Promises(work=True, isolation=Isolation.UID)
    rig.engine.post(
        replace(
            hello,
            machine_id="machine-a",
            resources=Resources(cpus=cpus),
            promises=promises,
        )
    )
    await eventually(lambda: rig.views.providers["a"].liveness.value == "online", "its being online")  # type: ignore[index]


async def has_lease(rig: Rig, job_id: int) -> None:
    await eventually(lambda: any(one.row.job_id == job_id for one in rig.views.attempts.live()), "its lease")


async def reason(rig: Rig, job_id: int) -> str:
    shown = (await rig.get(f"/v1/jobs/{job_id}")).json["job"]["reason"]
    listed = {one["job_id"]: one["reason"] for one in (await rig.get("/v1/jobs")).json["entries"]}
    assert shown == listed[job_id]
    return str(shown)


def test_the_list_says_whether_a_job_waits_for_capacity_its_plan_or_its_tenant_s_quota() -> None:
    """Not what it waited for when it was submitted; and of its quota, which dimensions."""

    async def test(rig: Rig) -> None:
        await a_provider(rig)
        await rig.ask("PATCH", "/v1/tenants/physics", json={"quota": {"running": 1}})
        first = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 2}}, TENANT)).json["job_id"]
        await has_lease(rig, first)
        (task,) = (await rig.get(f"/v1/jobs/{first}/tasks?attempts=true", TENANT)).json["entries"]
        (attempt,) = task["tries"]
        assert (1, False, False) == (attempt["choice"]["among"], attempt["choice"]["backfilled"], attempt["prefetched"])
        assert attempt["choice"]["run_ms"] >= 3_600_000 and attempt["choice"]["loss_ms"] >= 0
        second = (await rig.post("/v1/jobs", JOB | {"time_limit": "10m"}, TENANT)).json["job_id"]
        assert "waits for its tenant's quota: running" == await reason(rig, second)
        large = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 4}})).json["job_id"]
        await eventually(lambda: bool(rig.engine.state.work.plans), "a plan for it")
        assert (await reason(rig, large)).startswith("waits for capacity, planned to start by 20")
        shown = (await rig.get("/metrics")).body.decode()
        assert "\ncoord_queue_lines 2\n" in shown and "\ncoord_planned_starts 1\n" in shown
        assert "\ncoord_queue_aged 0\n" in shown
        await rig.ask("PATCH", "/v1/tenants/physics", json={"quota": {"running": None}})
        await has_lease(rig, second)
        assert "quota" not in await reason(rig, second)

    served(test)


def test_the_list_says_that_nobody_is_there_who_could_run_a_job() -> None:
    """What waits in vain is told from what waits for its turn."""

    async def test(rig: Rig) -> None:
        await a_provider(rig)
        vain = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 400}})).json["job_id"]
        work = rig.engine.state.work
        await eventually(lambda: any(line.held_by for line in work.queue.values()), "a look at it")
        assert f"waits for a provider that could run it: coord job why {vain}" == await reason(rig, vain)

    served(test)


def test_a_pool_tells_a_tenant_what_is_free_and_of_the_queue_its_own_part_alone() -> None:
    """Capacity is the same for everybody; what is held and what waits is one's own, or everybody's for who sees all."""

    async def test(rig: Rig) -> None:
        await a_provider(rig)
        mine = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 3}}, TENANT)).json
        await has_lease(rig, mine["job_id"])
        waits = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 2}, "array": "1-7"}, TENANT)).json
        await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 1}})
        await eventually(lambda: len(list(rig.views.attempts.live())) == 2, "the other's lease")
        await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 4}, "array": "1-3"})
        (own,) = (await rig.get("/v1/nodepools", TENANT)).json["entries"]
        (every,) = (await rig.get("/v1/nodepools", READER)).json["entries"]
        assert (4.0, 0.0) == (own["cpus"], own["cpus_free"]) == (every["cpus"], every["cpus_free"])
        assert (3.0, 7) == (own["cpus_held"], own["queued"])
        assert (4.0, 10) == (every["cpus_held"], every["queued"])
        assert waits["submitted_at"] == own["waits_since"] == every["waits_since"]
        assert "physics" not in str(own) and "default" == own["name"]

    served(test)


def test_a_pool_s_eta_is_when_room_is_expected_as_the_waiting_job_is_told() -> None:
    """Not the time limit of what runs, which is what a plan rests on: the pool said an hour and the job ten minutes."""

    async def test(rig: Rig) -> None:
        await a_provider(rig)
        runs = JOB | {"resources": {"cpus": 4}, "expected_runtime": "10m"}
        await has_lease(rig, (await rig.post("/v1/jobs", runs)).json["job_id"])
        (attempt,) = rig.engine.state.work.attempts.values()
        attempt.row = replace(attempt.row, started_at_ms=rig.clock.now_ms())
        waits = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 4}})).json["job_id"]
        await eventually(lambda: bool(rig.engine.state.work.plans), "a plan for it")
        (plan,) = rig.engine.state.work.plans.values()
        pool = next(one for one in (await rig.get("/v1/nodepools")).json["entries"] if one["name"] == "default")
        (step,) = (await rig.get(f"/v1/jobs/{waits}/why")).json["steps"]
        assert step["eta"] == pool["eta"] and parse_time(pool["eta"]) < plan.start_ms - 30 * 60_000

    served(test)


def test_a_provider_says_what_is_free_there_and_whose_attempts_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Which job is on that machine is asked of the machine; in a list it is how many, and how much is left."""

    async def test(rig: Rig) -> None:
        await a_provider(rig)
        (idle,) = (await rig.get("/v1/providers")).json["entries"]
        assert (4.0, 0, []) == (idle["cpus_free"], idle["runs"], idle["attempts"])
        job = (await rig.post("/v1/jobs", JOB | {"resources": {"cpus": 1.5}, "array": "1-2"}, TENANT)).json["job_id"]
        await eventually(lambda: len(list(rig.views.attempts.live())) == 2, "both leases")
        (busy,) = (await rig.get("/v1/providers")).json["entries"]
        assert (1.0, 2, []) == (busy["cpus_free"], busy["runs"], busy["attempts"])
        shown = await rig.get("/v1/providers/a", READER)
        assert [f"{job}.0.0.1", f"{job}.0.1.1"] == shown.json["attempts"]
        print_provider(msgspec.json.decode(shown.body, type=ProviderEntry), "table")
        out = capsys.readouterr().out
        assert "4, 1 free" in out and f"{job}.0.0.1, {job}.0.1.1\n" in out

    served(test)
