"""Verdicts and suspicions over HTTP: whole, in short beside their attempts, and nobody else's."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.api_types.verdict import VerdictEntry
from coordinator.core.commands import Put
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TenantName
from coordinator.core.rows import AttemptState, TaskRow, WorkState
from coordinator.core.verdict.rows import Avoided, Cause, Judged, SuspicionRow, VerdictRow
from coordinator.ports.analytics import AskFeatures, AskReliability
from tests.unit.api.rig import READER, TENANT, Rig, served
from tests.unit.api.worked import AT, Work
from tests.verdicts import a_broken_gpu


def a_row(attempt_id: AttemptId, **more: Any) -> VerdictRow:
    job, step, task, attempt = attempt_id
    values: dict[str, Any] = {"at_ms": AT, "late": False, "verdict": a_broken_gpu("p0"), **more}
    return VerdictRow(job_id=JobId(job), step=step, task=task, attempt=attempt, **values)


def test_a_verdict_is_shown_whole_and_in_short_beside_its_attempt() -> None:
    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        first = await work.start()
        await work.exit(first, AttemptState.FAILED)
        await work.start(number=2)
        missing = await rig.get("/v1/attempts/1000.0.0.1/verdict", TENANT)
        assert (404, "not_found") == (missing.status, missing.code)
        row = a_row(first, late=True, remark="a part of its log is missing")
        await rig.store.commit([Put(row)])
        got = await rig.get("/v1/attempts/1000.0.0.1/verdict", TENANT)
        entry = msgspec.json.decode(got.body, type=VerdictEntry)
        assert ("1000.0.0.1", True, row.remark, row.verdict) == (
            entry.attempt,
            entry.late,
            entry.remark,
            entry.verdict,
        )
        (task,) = (await rig.get("/v1/jobs/1000/tasks?attempts=true", TENANT)).json["entries"]
        brief, none = (one["verdict"] for one in task["tries"])
        assert none is None
        assert ("gpu_hardware", "provider", "RESTART_ELSEWHERE", "a GPU fell off the bus", True) == (
            brief["cause"],
            brief["fault"],
            brief["recommendation"],
            brief["summary"],
            brief["late"],
        )
        assert "evidence" not in brief, "a page has thousands of them"

    served(test)


def test_another_tenants_verdict_does_not_exist() -> None:
    """Nor one of an attempt that never was, or that is none."""

    async def test(rig: Rig) -> None:
        await rig.make_tenant("chemistry")
        work = Work(rig, 1_000, "chemistry")
        await work.begin()
        first = await work.start()
        await rig.store.commit([Put(a_row(first))])
        assert 200 == (await rig.get("/v1/attempts/1000.0.0.1/verdict", READER)).status
        for name in ("1000.0.0.1", "1000.0.0.2", "77777.0.0.1", "1000.0.0", "x", "1000.0.0.1.1"):
            got = await rig.get(f"/v1/attempts/{name}/verdict", TENANT)
            assert (404, "not_found") == (got.status, got.code), name
        for token, status in ((None, 401), ("coord-join-x", 403)):
            assert status == (await rig.get("/v1/attempts/1000.0.0.1/verdict", token)).status

    served(test)


def test_a_task_tells_what_it_avoids() -> None:
    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        now_ms = rig.clock.now_ms()
        avoid = (
            Avoided(provider_id=ProviderId("p0"), at_ms=AT, until_ms=now_ms + 60_000, why="a GPU fell off the bus"),
            Avoided(provider_id=ProviderId("p1"), at_ms=AT, until_ms=now_ms - 60_000, why="its disk is broken"),
        )
        row = TaskRow(job_id=JobId(1_000), step=0, task=0, state=WorkState.PENDING, judged=Judged(avoid=avoid))
        await rig.store.commit([Put(row)])
        (task,) = (await rig.get("/v1/jobs/1000/tasks", TENANT)).json["entries"]
        assert ["p0", "p1"] == [one["provider_id"] for one in task["avoids"]]
        assert [True, False] == [one["until"] is not None for one in task["avoids"]]
        assert "its disk is broken" == task["avoids"][1]["why"]

    served(test)


def test_a_provider_shows_what_is_said_against_it() -> None:
    """With how much that counts now; in no list, and not to tenants."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        day_ms: Ms = 24 * 3_600_000
        now_ms = rig.clock.now_ms()
        for job, age in ((1, 0), (2, day_ms)):
            row = SuspicionRow(
                provider_id=ProviderId("a"),
                attempt=f"{job}.0.0.1",
                at_ms=now_ms - age,
                cause=Cause.GPU_HARDWARE,
                confidence=1.0,
                text="Xid 79",
                tenant=TenantName(f"t{job}"),
            )
            await rig.store.commit([Put(row)])
        got = (await rig.get("/v1/providers/a", READER)).json
        assert abs(got["suspicion"] - (1 - 0.75 * 0.875)) < 1e-3
        assert ["1.0.0.1", "2.0.0.1"] == [one["attempt"] for one in got["suspicions"]]
        assert ("Xid 79", "t1") == (got["suspicions"][0]["text"], got["suspicions"][0]["tenant"])
        (listed,) = (await rig.get("/v1/providers")).json["entries"]
        assert (None, []) == (listed["suspicion"], listed["suspicions"])
        assert 403 == (await rig.get("/v1/providers/a", TENANT)).status

    served(test)


def test_features_are_asked_for_with_what_verdicts_say() -> None:
    """As much as counts now, or counted then; analytics answers it with the rest."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        now_ms = rig.clock.now_ms()
        row = SuspicionRow(
            provider_id=ProviderId("a"),
            attempt="1.0.0.1",
            at_ms=now_ms - 24 * 3_600_000,
            cause=Cause.GPU_HARDWARE,
            confidence=1.0,
            text="Xid 79",
        )
        rig.engine.state.work.suspicions[row.provider_id] = (row,)
        before_s = now_ms // 1_000 - 48 * 3_600
        for question in (AskFeatures, AskReliability):
            rig.analytics.says(question, {})
        for path in ("a/liveness", f"a/liveness?as_of={before_s}", "reliability", f"reliability?as_of={before_s}"):
            assert 200 == (await rig.get(f"/v1/providers/{path}", READER)).status
        one, then, many, none = rig.analytics.asked
        assert isinstance(one, AskFeatures) and isinstance(then, AskFeatures)
        assert (True, 0.0) == (abs(one.suspicion - 0.125) < 1e-4, then.suspicion)
        assert isinstance(many, AskReliability) and isinstance(none, AskReliability)
        assert (["a"], ()) == ([who for who, _ in many.suspicions], none.suspicions)

    served(test)
