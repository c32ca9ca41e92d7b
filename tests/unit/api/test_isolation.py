"""Another tenant does not exist for you: every route of the table, asked about one that is there."""

from __future__ import annotations

import re
from typing import Any

from blake3 import blake3

from coordinator.core.commands import Put
from coordinator.core.ids import JobId
from coordinator.core.rows import Role
from coordinator.service.api.openapi import ROUTES
from coordinator.service.api.route import AnyRoute
from tests.unit.api.rig import ADMIN, TENANT, Rig, served
from tests.unit.api.test_tenants import a_charge
from tests.unit.api.worked import Work, listening

THEIRS = "canary-lab"
JOB = 1_000
CONTENT = b"canary bytes"
DIGEST = blake3(CONTENT).hexdigest()
BODIES: dict[str, Any] = {
    "/v1/jobs": {"command": ["true"]},
    "/v1/jobs/preview": {"command": ["true"]},
    "/v1/uploads": {"digest": blake3(b"mine").hexdigest(), "size": 4},
    "/v1/artifacts/missing": {"digests": [DIGEST]},
    "/v1/traces": {},
}


async def somebody_else(rig: Rig) -> None:
    """A tenant with everything that one can have, each with a word that tells where it came from."""
    await rig.make_tenant(THEIRS, note="canary note", quota={"budget": 1_000_000, "cpus": 4_000_000})
    await rig.post("/v1/tokens", {"role": "tenant", "tenant": THEIRS, "note": "canary token"})
    work = Work(rig, JOB, THEIRS)
    await work.begin()
    await work.prints(await work.start(), b"canary line\n")
    await rig.store.commit([Put(a_charge(1, THEIRS, job_id=JobId(JOB)))])
    opened = await rig.post("/v1/uploads", {"digest": DIGEST, "size": len(CONTENT), "tenant": THEIRS})
    assert 201 == (await rig.ask("PUT", opened.json["url"], None, data=CONTENT)).status
    named = await rig.post("/v1/artifacts", {"name": THEIRS, "digest": DIGEST, "tenant": THEIRS})
    assert 201 == named.status, named.body
    made = await rig.post(f"/v1/jobs?tenant={THEIRS}", {"command": ["true"], "name": "canary-job"})
    assert 201 == made.status
    assert b"canary" in (await rig.get("/v1/ledger")).body, "there would be nothing to find"


def about(route: AnyRoute, name: str = THEIRS, number: int = JOB) -> str:
    """The route's path, about what is theirs."""
    named = {"{name}": name, "{task}": f"{number}.0.0"}
    return re.sub(r"\{\w+\}", lambda found: named.get(found[0], str(number)), route.path)


def test_no_route_tells_a_tenant_or_its_reader_anything_of_another_one() -> None:
    """What is named in a path is 404, lists lack it, and naming it in a query is refused like one that never was."""

    async def test(rig: Rig) -> None:
        await somebody_else(rig)
        reader = await rig.tenant_token("physics", Role.READ_ONLY)
        walked = 0
        for token, role in ((TENANT, Role.TENANT), (reader, Role.READ_ONLY)):
            for route in rig.app[ROUTES]:
                if isinstance(route.roles, str) or route.path == "/v1/events":  # a stream without an end, below
                    continue
                walked += 1
                body = BODIES.get(route.path) if route.method == "POST" else None
                got = await rig.ask(route.method, about(route), token, json=body)
                may = role in route.roles and Role.TENANT in route.roles
                if not may:
                    assert 403 == got.status, f"{route.method} {route.path} as {role}"
                elif "{" in route.path:
                    assert 404 == got.status, f"{route.method} {route.path} as {role}: {got.status}"
                    never = await rig.ask(route.method, about(route, "no-such-lab", 77_777), token, json=body)
                    assert never.body == re.sub(b"canary-lab", b"no-such-lab", got.body.replace(b"1000", b"77777"))
                elif route.path == "/v1/artifacts" and route.method == "POST":  # what is theirs cannot be named
                    told = await rig.post(route.path, {"name": "mine", "digest": DIGEST}, token)
                    never = await rig.post(route.path, {"name": "mine", "digest": "0" * 64}, token)
                    assert 404 == told.status == never.status
                    assert told.body.replace(DIGEST.encode(), b"0" * 64) == never.body
                elif route.path != "/v1/usage/by":  # it takes a parameter that it cannot do without
                    assert got.status in (200, 201), f"{route.method} {route.path} as {role}: {got.body!r}"
                if "{" not in route.path:
                    assert b"canary" not in got.body, f"{route.method} {route.path} as {role}"
                if may and "tenant" in route.query.__struct_fields__:
                    refused = [
                        await rig.ask(route.method, f"{about(route)}?{by(route)}tenant={name}", token, json=body)
                        for name in (THEIRS, "nobody")
                    ]
                    assert [403, 403] == [one.status for one in refused], route.path
                    assert refused[0].body == refused[1].body
        assert walked > 80, "the walk has become a stroll"

    served(test)


def by(route: AnyRoute) -> str:
    return "by=job&" if "by" in route.query.__struct_fields__ else ""


def test_sums_and_usage_of_another_tenant_are_in_no_total() -> None:
    """Whatever charges are summed by, theirs are not among them; a job's number names nothing of theirs."""

    async def test(rig: Rig) -> None:
        await somebody_else(rig)
        await rig.store.commit([Put(a_charge(2))])
        for what in ("tenant", "month", "pool", "job", "provider", "day"):
            sums = (await rig.get(f"/v1/usage/by?by={what}", TENANT)).json["entries"]
            assert [(2_000_000, 1)] == [(one["cost"], one["charges"]) for one in sums], what
        assert [] == (await rig.get(f"/v1/ledger?job={JOB}&month=202701", TENANT)).json["entries"][1:]
        csv = await rig.get("/v1/ledger", TENANT, headers={"Accept": "text/csv"})
        assert 2 == csv.body.count(b"\r\n") and b"canary" not in csv.body

    served(test)


def test_the_feed_of_a_tenant_tells_of_its_own_alone() -> None:
    """From the beginning, while both submit."""

    async def test(rig: Rig) -> None:
        await somebody_else(rig)
        async with listening(rig, "/v1/events?after=0", TENANT) as events:
            await rig.post(f"/v1/jobs?tenant={THEIRS}", {"command": ["true"], "name": "canary-2"})
            mine = (await rig.post("/v1/jobs", {"command": ["true"]}, TENANT)).json["job_id"]
            event = await anext(events)
            assert str(mine) in event.data and "canary" not in event.data

    served(test)


def test_a_revoked_tenant_s_token_cuts_what_it_follows_and_no_other() -> None:
    """Streams of jobs' ends, of the feed and of usage's CSV end at once; another token of the tenant goes on."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        other = await rig.tenant_token("physics")
        reader = await rig.tenant_token("physics", Role.READ_ONLY)
        made = {one["role"]: one["token_id"] for one in (await rig.get("/v1/tokens?tenant=physics")).json["entries"]}
        async with (
            listening(rig, "/v1/jobs/1000/wait", TENANT) as revoked,
            listening(rig, "/v1/jobs/1000/wait", reader) as revoked_too,
            listening(rig, "/v1/jobs/1000/wait", other) as goes_on,
        ):
            for stream in (revoked, revoked_too, goes_on):
                assert "running" == (await anext(stream)).id
            assert 204 == (await rig.ask("DELETE", "/v1/tokens/t-tenant", ADMIN)).status
            assert 204 == (await rig.ask("DELETE", f"/v1/tokens/{made['read-only']}", ADMIN)).status
            for stream in (revoked, revoked_too):
                assert await ended(stream)
            await work.end()
            assert "completed" == (await anext(goes_on)).id
        assert 401 == (await rig.get("/v1/usage", TENANT)).status

    served(test)


async def ended(stream: Any) -> bool:
    """Whether a stream was cut: it ends without having said so."""
    try:
        return await anext(stream, None) is None
    except Exception as error:
        return "ClientPayloadError" in type(error).__name__ or "ClientConnection" in type(error).__name__
