"""Jobs over HTTP: submissions that count once, whose they are, what they are refused for, and lists."""

from __future__ import annotations

import asyncio
import gzip
import io
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from coordinator.core.rows import Role
from coordinator.service.api.openapi import ROUTES
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, READER, TENANT, Rig, served
from tests.unit.api.worked import Work, listening

BODY: dict[str, Any] = {"command": ["true"], "name": "one"}
KEY = {"Idempotency-Key": "k1"}


def test_a_submission_is_201_and_its_repetition_200_with_the_same_job() -> None:
    """By the key alone: whichever token of the tenant, also when the order of its fields differs."""

    async def test(rig: Rig) -> None:
        got = await rig.post("/v1/jobs", BODY, TENANT, headers=KEY)
        assert 201 == got.status and "physics" == got.json["tenant"] and "one" == got.json["name"]
        again = await rig.post("/v1/jobs", dict(reversed(BODY.items())), TENANT, headers=KEY)
        assert (200, got.json["job_id"]) == (again.status, again.json["job_id"])
        other_token = await rig.tenant_token("physics")
        assert got.json["job_id"] == (await rig.post("/v1/jobs", BODY, other_token, headers=KEY)).json["job_id"]
        changed = await rig.post("/v1/jobs", BODY | {"name": "two"}, TENANT, headers=KEY)
        assert (409, "conflict") == (changed.status, changed.code)
        without = [(await rig.post("/v1/jobs", BODY, TENANT)).json["job_id"] for _ in range(2)]
        assert 3 == len({got.json["job_id"], *without})

    served(test)


def test_the_same_key_of_another_tenant_makes_another_job() -> None:
    """Keys are a tenant's own."""

    async def test(rig: Rig) -> None:
        mine = await rig.post("/v1/jobs", BODY, TENANT, headers=KEY)
        theirs = await rig.post("/v1/jobs", BODY, await rig.tenant_token("chemistry"), headers=KEY)
        assert (201, 201) == (mine.status, theirs.status) and mine.json["job_id"] != theirs.json["job_id"]

    served(test)


def test_many_at_once_under_one_key_make_one_job() -> None:
    """One of them made it, the others found it."""

    async def test(rig: Rig) -> None:
        answers = await asyncio.gather(*(rig.post("/v1/jobs", BODY, TENANT, headers=KEY) for _ in range(20)))
        assert 1 == len({got.json["job_id"] for got in answers})
        assert [200] * 19 + [201] == sorted(got.status for got in answers)

    served(test)


def test_a_key_counts_when_the_job_has_ended_and_nothing_is_replayed_from_memory() -> None:
    """The answer tells how the job stands now."""

    async def test(rig: Rig) -> None:
        made = (await rig.post("/v1/jobs", BODY, TENANT, headers=KEY)).json
        assert 200 == (await rig.ask("DELETE", f"/v1/jobs/{made['job_id']}", TENANT)).status
        again = await rig.post("/v1/jobs", BODY, TENANT, headers=KEY)
        assert (200, "cancelled") == (again.status, again.json["state"])
        assert "Idempotency-Replayed" not in again.headers

    served(test)


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "é"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """400, and no job comes to be."""

    async def test(rig: Rig) -> None:
        assert 400 == (await rig.post("/v1/jobs", BODY, headers={"Idempotency-Key": key})).status
        assert [] == (await rig.get("/v1/jobs")).json["entries"]

    served(test)


def test_whose_a_job_is_comes_from_the_token_and_an_admin_may_name_another() -> None:
    """In the query or in the body, not two different ones; a tenant may only name itself."""

    async def test(rig: Rig) -> None:
        await rig.make_tenant("chemistry")
        for token, query, body, tenant in (
            (TENANT, "", BODY, "physics"),
            (TENANT, "?tenant=physics", BODY | {"tenant": "physics"}, "physics"),
            (ADMIN, "", BODY, "default"),
            (ADMIN, "?tenant=chemistry", BODY, "chemistry"),
            (ADMIN, "", BODY | {"tenant": "chemistry"}, "chemistry"),
        ):
            for path in ("/v1/jobs", "/v1/jobs/preview"):
                got = await rig.post(path + query, body, token)
                assert got.status in (200, 201) and tenant == got.json["tenant"]
        for token, query, body, status in (
            (TENANT, "?tenant=chemistry", BODY, 403),
            (TENANT, "", BODY | {"tenant": "chemistry"}, 403),
            (ADMIN, "?tenant=a", BODY | {"tenant": "b"}, 400),
            (ADMIN, "?tenant=a%20b", BODY, 400),
            (ADMIN, "", BODY | {"tenant": "a b"}, 422),
        ):
            for path in ("/v1/jobs", "/v1/jobs/preview"):
                assert status == (await rig.post(path + query, body, token)).status, (query, body)
        assert 403 == (await rig.get("/v1/jobs?tenant=chemistry", TENANT)).status
        assert {"physics"} == {e["tenant"] for e in (await rig.get("/v1/jobs", TENANT)).json["entries"]}
        assert 2 == len((await rig.get("/v1/jobs?tenant=chemistry", READER)).json["entries"])

    served(test)


def test_another_tenants_job_does_not_exist_on_any_route_with_any_method() -> None:
    """The answers about it and about one that never was are the same, byte for byte but for the number."""

    async def test(rig: Rig) -> None:
        await rig.make_tenant("chemistry")
        work = Work(rig, 1_000, "chemistry")
        await work.begin()
        first = await work.start()
        await work.prints(first, b"secret\n")
        live = (await rig.post("/v1/jobs?tenant=chemistry", BODY)).json["job_id"]
        before = (await rig.get(f"/v1/jobs/{live}")).body
        walked = 0
        for route in rig.app[ROUTES]:
            if "/jobs/{id}" not in route.path or Role.TENANT not in route.roles:
                continue
            for theirs in (1_000, live):
                for query in ("", "?follow=true", "?task=0.0"):
                    name = query.partition("=")[0].removeprefix("?")
                    if name and name not in route.query.__struct_fields__:
                        continue
                    got = await rig.ask(
                        route.method, route.path.replace("{id}", str(theirs)).replace("{path}", "a.bin") + query, TENANT
                    )
                    never = await rig.ask(
                        route.method, route.path.replace("{id}", "77777").replace("{path}", "a.bin") + query, TENANT
                    )
                    assert (404, "not_found") == (got.status, got.code), route.path
                    assert never.body.replace(b"77777", b"N") == got.body.replace(str(theirs).encode(), b"N")
                    walked += 1
        assert walked >= 16
        assert before == (await rig.get(f"/v1/jobs/{live}")).body
        for path in ("/v1/jobs", "/v1/audit", "/v1/audit?job=1000", f"/v1/audit?subject={live}"):
            assert [] == (await rig.get(path, TENANT)).json["entries"], path
        (pool,) = (await rig.get("/v1/nodepools", TENANT)).json["entries"]
        assert 0 == pool["queued"]
        assert 1 == (await rig.get("/v1/nodepools")).json["entries"][0]["queued"]

    served(test)


def test_a_feed_of_one_tenant_never_tells_of_another() -> None:
    """Whatever is filtered for."""

    async def test(rig: Rig) -> None:
        await rig.make_tenant("chemistry")
        theirs = (await rig.post("/v1/jobs?tenant=chemistry", BODY)).json["job_id"]
        mine = (await rig.post("/v1/jobs", BODY, TENANT)).json["job_id"]
        async with listening(rig, "/v1/events?after=0", TENANT) as events:
            assert mine == msgspec.json.decode((await anext(events)).data)["job_id"]
        async with listening(rig, f"/v1/events?after=0&job={theirs}", TENANT) as events:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(events)

    served(test)


@pytest.mark.parametrize("name", ["x", "0x1", "-1", "1.5", "9" * 16, "٣"])
def test_what_is_no_number_of_a_job_is_not_found(name: str) -> None:
    """404, as for every other thing that is not there."""

    async def test(rig: Rig) -> None:

        assert 404 == (await rig.get(f"/v1/jobs/{quote(name)}")).status

    served(test)


def test_everything_that_is_wrong_comes_back_at_once_with_its_path() -> None:
    """422 with `errors`; a body that is no object or no JSON is 400; nothing was submitted."""

    async def test(rig: Rig) -> None:
        for path in ("/v1/jobs", "/v1/jobs/preview"):
            got = await rig.post(path, {"command": ["x"], "resources": {"cpu": 1}, "outputs": ["/y"]})
            assert (422, "bad_job") == (got.status, got.code)
            assert {"resources.cpu", "outputs[0]"} == {part["path"] for part in got.json["errors"]}
            assert 422 == (await rig.post(path, {"command": ["x"], "array": {"file": "/etc/passwd"}})).status
            for data in (b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000, b'{"command": [1' + b"0" * 5_000 + b"]}"):
                got = await rig.ask("POST", path, data=data, headers={"Content-Type": "application/json"})
                assert got.status in (400, 422), data[:20]
            got = await rig.ask("POST", path, data=b"command=x", headers={"Content-Type": "text/plain"})
            assert 400 == got.status
        assert [] == (await rig.get("/v1/jobs")).json["entries"]

    served(test)


def test_a_job_has_its_own_bound_before_and_after_unpacking() -> None:
    """A large array is taken, packed too; beyond the bound it is 413 however it was packed."""

    async def test(rig: Rig) -> None:
        large = msgspec.json.encode({"command": ["x", "{item}"], "array": ["y" * 100] * 15_000})
        headers = {"Content-Type": "application/json"}
        packed = {**headers, "Content-Encoding": "gzip"}
        assert len(large) > 1_500_000
        assert 201 == (await rig.ask("POST", "/v1/jobs", data=io.BytesIO(large), headers=headers)).status
        assert 201 == (await rig.ask("POST", "/v1/jobs", data=gzip.compress(large), headers=packed)).status
        bomb = gzip.compress(b'{"command": ["x"], "stdin": "' + b"y" * 5_000_000 + b'"}')
        assert len(bomb) < 20_000
        assert 413 == (await rig.ask("POST", "/v1/jobs", data=bomb, headers=packed)).status
        assert 413 == (await rig.ask("POST", "/v1/jobs", data=io.BytesIO(b"x" * 5_000_000), headers=headers)).status
        assert 413 == (await rig.ask("POST", "/v1/pools", data=io.BytesIO(b"x" * 1_500_000), headers=headers)).status
        entries = (await rig.get("/v1/jobs")).json["entries"]
        assert [15_000, 15_000] == [entry["counts"]["tasks"] for entry in entries]

    served(test, ApiSettings(failures_burst=100_000))


def test_lists_are_paged_and_filtered() -> None:
    """Newest first; by state, by a name with stars; every job once over the pages."""

    async def test(rig: Rig) -> None:
        ids = [(await rig.post("/v1/jobs", BODY | {"name": f"n{i % 2}-{i}"})).json["job_id"] for i in range(7)]
        await rig.ask("DELETE", f"/v1/jobs/{ids[3]}")
        found, page = [], ""
        while True:
            got = (await rig.get(f"/v1/jobs?limit=3{page}")).json
            found += [entry["job_id"] for entry in got["entries"]]
            if got["next_page"] is None:
                break
            page = f"&page={got['next_page']}"
        assert sorted(ids, reverse=True) == found
        for query, expected in (
            ("state=cancelled", [ids[3]]),
            ("state=pending,cancelled&name=n1*", [ids[5], ids[3], ids[1]]),
            ("name=n0-2", [ids[2]]),
            ("state=completed", []),
        ):
            assert expected == [e["job_id"] for e in (await rig.get(f"/v1/jobs?{query}")).json["entries"]], query
        got = await rig.get("/v1/jobs?state=pendin")
        assert 400 == got.status and "did you mean pending?" in got.json["detail"]
        for query in ("limit=0", "limit=1001", "page=x", "tenant=a/b", "name=" + "x" * 200):
            assert 400 == (await rig.get(f"/v1/jobs?{query}")).status, query

    served(test)


def test_a_job_is_shown_with_steps_tasks_and_attempts() -> None:
    """Tasks that have a row, a page at a time; steps by name; counts that sum up."""

    async def test(rig: Rig) -> None:
        work = Work(rig, tasks=120)
        await work.begin()
        for task in range(60):
            last = await work.start(task)
            if task % 2:
                await work.exit(last)
        again = await work.start(3, number=2, ranks=2)
        got = (await rig.get("/v1/jobs/1000", TENANT)).json
        assert (50, 1) == (len(got["tasks"]), len(got["steps"]))
        (step,) = got["steps"]
        assert ["1 cpu"] == step["resources"] and step["command"] and "array" not in step["settings"]
        shown = got["tasks"][3]
        assert ("1000.0.3", ["1000.0.3.1", "1000.0.3.2"]) == (shown["task"], [one["attempt"] for one in shown["tries"]])
        assert [0, 1] == [rank["rank"] for rank in shown["tries"][1]["ranks"]] and again[3] == 2
        rest = (await rig.get(f"/v1/jobs/1000/tasks?page={got['next_page']}", TENANT)).json
        assert list(range(50, 60)) == [task["number"] for task in rest["entries"]] and rest["next_page"] is None
        assert () == tuple(rest["entries"][0]["tries"])
        done = (await rig.get("/v1/jobs/1000/tasks?state=completed&limit=1000&step=0")).json["entries"]
        assert [n for n in range(60) if n % 2 and n != 3] == [task["number"] for task in done]
        counts = got["job"]["counts"]
        assert counts["tasks"] == 120 == sum(value for name, value in counts.items() if name != "tasks")

    served(test)


def test_cancel_and_retry_answer_how_the_job_stands() -> None:
    """Cancelled again it stays as it is; a retry makes it wait again; readers may do neither."""

    async def test(rig: Rig) -> None:
        job_id = (await rig.post("/v1/jobs", BODY | {"array": "1-3"}, TENANT)).json["job_id"]
        one = await rig.ask("DELETE", f"/v1/jobs/{job_id}?task=0.1&why=one", TENANT)
        assert (200, "pending") == (one.status, one.json["state"])
        assert 403 == (await rig.ask("DELETE", f"/v1/jobs/{job_id}", READER)).status
        assert 403 == (await rig.post(f"/v1/jobs/{job_id}/retry", token=READER)).status
        got = await rig.ask("DELETE", f"/v1/jobs/{job_id}?why=enough", TENANT)
        assert (
            "cancelled" == got.json["state"] and "enough" in got.json["reason"] and 3 == got.json["counts"]["cancelled"]
        )
        assert 200 == (await rig.ask("DELETE", f"/v1/jobs/{job_id}", TENANT)).status
        why = (await rig.get(f"/v1/jobs/{job_id}/why", TENANT)).json
        assert "cancelled" == why["state"] and ["ended"] == [step["verdict"] for step in why["steps"]]
        again = await rig.post(f"/v1/jobs/{job_id}/retry", token=TENANT)
        assert 200 == again.status, again.body
        assert (200, "pending", 1) == (again.status, again.json["state"], again.json["retries"])
        why = (await rig.get(f"/v1/jobs/{job_id}/why", TENANT)).json
        assert "never" == why["steps"][0]["verdict"] and why["steps"][0]["hint"]
        for query in ("task=x", "task=0", "why=%1b[31m", "why=" + "x" * 501):
            assert 400 == (await rig.ask("DELETE", f"/v1/jobs/{job_id}?{query}", TENANT)).status, query

    served(test)


def test_why_of_a_job_that_the_core_knows_no_more_tells_from_what_is_stored() -> None:
    """It may have ended between the look and the question."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        why = (await rig.get("/v1/jobs/1000/why")).json
        assert ("running", ["ended"]) == (why["state"], [step["verdict"] for step in why["steps"]])

    served(test)


def test_a_caller_who_leaves_while_it_submits_leaves_no_lock_behind() -> None:
    """The next one under the same key gets its job."""

    async def test(rig: Rig) -> None:
        asking = [asyncio.ensure_future(rig.post("/v1/jobs", BODY, headers=KEY)) for _ in range(5)]
        await asyncio.sleep(0)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        got = await rig.post("/v1/jobs", BODY, headers=KEY)
        assert got.status in (200, 201)
        assert 1 == len((await rig.get("/v1/jobs")).json["entries"])

    served(test)
