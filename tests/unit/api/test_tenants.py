"""Tenants over HTTP: limits, use, prices, the ledger as JSON and CSV, and refusals that name everything."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from coordinator.core.amounts import UNIT, Price
from coordinator.core.commands import Put
from coordinator.core.ids import JobId, PoolName, ProviderId, TenantName
from coordinator.core.rows import LedgerRow
from tests.unit.api.rig import ADMIN, READER, TENANT, Rig, served
from tests.unit.api.worked import AT


def a_charge(seq: int, tenant: str = "physics", **more: Any) -> LedgerRow:
    """One CPU for an hour, at two units an hour."""
    given: dict[str, Any] = {
        "at_ms": AT + seq,
        "month": 202701,
        "job_id": JobId(1_000),
        "step": 0,
        "task": seq,
        "attempt": 1,
        "rank": 0,
        "provider_id": ProviderId("p0"),
        "pool": PoolName("default"),
        "cpus": UNIT,
        "gpus": 0,
        "memory": 0,
        "price": Price(cpu=2 * UNIT),
        "ran_ms": 3_600_000,
        "cost": 2 * UNIT,
    }
    return LedgerRow(**{"seq": seq, "tenant": TenantName(tenant), **given, **more})


def test_a_tenant_is_made_changed_listed_and_deleted() -> None:
    """201 with every field; what a change does not name stays; null lifts a limit; it is gone afterwards."""

    async def test(rig: Rig) -> None:
        body = {"name": "chem", "note": "the lab", "weight": 3, "priority_max": 10, "on_full": "refuse"}
        made = await rig.post("/v1/tenants", body | {"quota": {"cpus": 8 * UNIT, "budget": 1_000 * UNIT}})
        assert 201 == made.status
        entry = made.json
        assert ("chem", "the lab", 3, 10) == tuple(entry[k] for k in ("name", "note", "weight", "priority_max"))
        assert ("refuse", "continue", 3_600_000) == tuple(entry[k] for k in ("on_full", "on_budget", "runtime_ms"))
        assert {"cpus": 8 * UNIT, "budget": 1_000 * UNIT} == {k: v for k, v in entry["quota"].items() if v is not None}
        assert 9 == len(entry["quota"])
        change = {"on_budget": "stop", "quota": {"cpus": None, "gpus": 2 * UNIT}}
        changed = await rig.ask("PATCH", "/v1/tenants/chem", json=change)
        assert 200 == changed.status and changed.json == (await rig.get("/v1/tenants/chem", READER)).json
        assert ("stop", 3, "refuse") == tuple(changed.json[k] for k in ("on_budget", "weight", "on_full"))
        assert {"gpus": 2 * UNIT, "budget": 1_000 * UNIT} == {
            k: v for k, v in changed.json["quota"].items() if v is not None
        }
        names = [one["name"] for one in (await rig.get("/v1/tenants", READER)).json["entries"]]
        assert ["chem", "default", "physics"] == names
        assert 204 == (await rig.ask("DELETE", "/v1/tenants/chem")).status
        assert 404 == (await rig.get("/v1/tenants/chem")).status

    served(test)


def test_pages_of_tenants_are_whole() -> None:
    """Each once, in the order of their names."""

    async def test(rig: Rig) -> None:
        for number in range(5):
            await rig.make_tenant(f"t{number}")
        names: list[str] = []
        page = ""
        while True:
            got = (await rig.get(f"/v1/tenants?limit=2{page}")).json
            names += [one["name"] for one in got["entries"]]
            if got["next_page"] is None:
                break
            page = f"&page={got['next_page']}"
        assert ["default", "physics", "t0", "t1", "t2", "t3", "t4"] == names

    served(test)


def test_what_is_no_tenant_is_refused_by_name() -> None:
    """Unknown fields, dimensions and modes, amounts below zero, names that are none, names that are taken."""

    async def test(rig: Rig) -> None:
        for body, said in (
            ({"name": "x", "wait": 3}, "wait"),
            ({"name": "x", "quota": {"cpu": 1}}, "did you mean cpus"),
            ({"name": "x", "quota": {"cpus": -1}}, "quota"),
            ({"name": "x", "quota": {"cpus": 1.5}}, "quota"),
            ({"name": "x", "on_full": "wait"}, "on_full"),
            ({"name": "x", "weight": 0}, "weight"),
            ({"name": "x", "priority_max": 101}, "priority_max"),
            ({"name": "x", "runtime_ms": 0}, "runtime"),
            ({"name": "a b"}, "a b"),
            ({"name": "x", "note": "\x1b[31m"}, "note"),
        ):
            got = await rig.post("/v1/tenants", body)
            assert (400, "bad_request") == (got.status, got.code), body
            assert said in got.json["detail"], got.json
        assert "conflict" == (await rig.post("/v1/tenants", {"name": "physics"})).code
        assert "conflict" == (await rig.post("/v1/tenants", {"name": "default"})).code
        assert 404 == (await rig.ask("PATCH", "/v1/tenants/nobody", json={"weight": 2})).status
        assert 404 == (await rig.ask("DELETE", "/v1/tenants/nobody")).status
        assert "conflict" == (await rig.ask("DELETE", "/v1/tenants/default")).code
        assert "conflict" == (await rig.ask("DELETE", "/v1/tenants/physics")).code, "it has a valid token"
        assert "not_found" == (await rig.post("/v1/tokens", {"role": "tenant", "tenant": "nobody"})).code
        assert "not_found" == (await rig.post("/v1/jobs?tenant=nobody", {"command": ["true"]})).code

    served(test)


def test_a_refusal_names_every_dimension_with_its_figures() -> None:
    """403, and nothing was submitted; the preview says the same beforehand, and what would fit."""

    async def test(rig: Rig) -> None:
        quota = {"cpus": 10 * UNIT, "memory": 10**10, "storage": 1_000, "queued": 5}
        assert 200 == (await rig.ask("PATCH", "/v1/tenants/physics", json={"quota": quota})).status
        job = {"command": ["true"], "resources": {"cpus": 10, "memory": "9.5GB"}, "estimate": {"storage": "900B"}}
        got = await rig.post("/v1/jobs", job, TENANT)
        assert (403, "quota") == (got.status, got.code)
        said = {one["dimension"]: one for one in got.json["refusals"]}
        assert {"cpus", "memory", "storage"} == set(said)
        assert {
            "dimension": "cpus",
            "used": 0,
            "reserved": 0,
            "request": 10 * UNIT,
            "limit": 10 * UNIT,
            "guardrail": 9 * UNIT,
        } == said["cpus"]
        assert (900, 1_000, 900) == tuple(said["storage"][k] for k in ("request", "limit", "guardrail"))
        assert not (await rig.get("/v1/jobs", TENANT)).json["entries"]
        seen = (await rig.post("/v1/jobs/preview", job, TENANT)).json
        assert {"cpus": False, "memory": False, "storage": False, "queued": True} == {
            one["name"]: one["fits"] for one in seen["dimensions"]
        }
        metrics = (await rig.get("/metrics")).body.decode()
        assert 'coord_quota_refusals_total{dimension="storage"} 1' in metrics

    served(test)


def test_a_priority_above_its_tenants_bound_is_an_admins_to_give() -> None:
    """The tenant's own token may ask up to priority_max; an admin for any."""

    async def test(rig: Rig) -> None:
        await rig.ask("PATCH", "/v1/tenants/physics", json={"priority_max": 5})
        job = {"command": ["true"], "priority": 6}
        assert (await rig.post("/v1/jobs", job, TENANT)).status in (400, 403)
        assert 5 == (await rig.post("/v1/jobs", job | {"priority": 5}, TENANT)).json["priority"]
        assert 6 == (await rig.post("/v1/jobs?tenant=physics", job)).json["priority"]

    served(test)


def test_usage_is_what_is_decided_by() -> None:
    """A submitted job is queued, and what it is estimated at is reserved, at once; a tenant sees its own."""

    async def test(rig: Rig) -> None:
        await rig.ask("PATCH", "/v1/pools/default", json={"price": {"cpu": 3 * UNIT}})
        await rig.ask("PATCH", "/v1/tenants/physics", json={"quota": {"budget": 1_000 * UNIT}})
        job = {"command": ["true"], "resources": {"cpus": 2}, "expected_runtime": "30m", "array": "1-10"}
        made = (await rig.post("/v1/jobs", job, TENANT)).json
        assert (30 * UNIT, "30") == (made["estimate"], made["estimate_text"])
        (mine,) = (await rig.get("/v1/usage", TENANT)).json["entries"]
        assert ("physics", 1, 1) == (mine["tenant"], mine["live_jobs"], mine["weight"])
        by_name = {one["name"]: one for one in mine["dimensions"]}
        assert {
            "name": "budget",
            "used": 0,
            "reserved": 30 * UNIT,
            "limit": 1_000 * UNIT,
            "guardrail": 900 * UNIT,
        } == by_name["budget"]
        assert (1, None) == (by_name["queued"]["used"], by_name["queued"]["limit"])
        every = (await rig.get("/v1/usage", READER)).json["entries"]
        assert ["default", "physics"] == [one["tenant"] for one in every]
        assert [mine] == (await rig.get("/v1/usage?tenant=physics")).json["entries"]
        assert 404 == (await rig.get("/v1/usage?tenant=nobody")).status

    served(test)


def test_a_pool_s_price_is_set_and_shown() -> None:
    """Also of the default pool, which nobody made; another one than there are is not found."""

    async def test(rig: Rig) -> None:
        await rig.make_pool("gpu")
        price = {"cpu": 40_000, "gpu": 1_200_000, "memory": 5_000}
        got = await rig.ask("PATCH", "/v1/pools/gpu", json={"price": price})
        assert (200, price) == (got.status, got.json["price"])
        default = await rig.ask("PATCH", "/v1/pools/default", json={"price": {"cpu": 1}})
        assert (None, {"cpu": 1, "gpu": 0, "memory": 0}) == (default.json["created_at"], default.json["price"])
        shown = {one["name"]: one["price"] for one in (await rig.get("/v1/pools")).json["entries"]}
        assert {"default": {"cpu": 1, "gpu": 0, "memory": 0}, "gpu": price} == shown
        pools = (await rig.get("/v1/nodepools", TENANT)).json["entries"]
        assert shown == {one["name"]: one["price"] for one in pools}
        assert 404 == (await rig.ask("PATCH", "/v1/pools/nobody", json={"price": {}})).status
        assert 400 == (await rig.ask("PATCH", "/v1/pools/gpu", json={"price": {"cpu": -1}})).status
        assert 400 == (await rig.ask("PATCH", "/v1/pools/gpu", json={"price": {"cpus": 1}})).status

    served(test)


def test_the_ledger_comes_in_pages_newest_first_and_is_ones_own() -> None:
    """By tenant, month and job; no charge twice, none missing; sums to the millionth."""

    async def test(rig: Rig) -> None:
        rows = [a_charge(n) for n in range(1, 6)]
        rows += [a_charge(6, job_id=JobId(7)), a_charge(7, month=202612), a_charge(8, "chem", cost=5)]
        await rig.store.commit([Put(row) for row in rows])
        first = (await rig.get("/v1/ledger?limit=4", TENANT)).json
        rest = (await rig.get(f"/v1/ledger?limit=4&page={first['next_page']}", TENANT)).json
        assert [7, 6, 5, 4, 3, 2, 1] == [one["seq"] for one in first["entries"] + rest["entries"]]
        assert rest["next_page"] is None
        one = first["entries"][-1]
        shown = tuple(one[k] for k in ("attempt", "cost", "cost_text", "provider_id"))
        assert ("1000.0.4.1", 2 * UNIT, "2", "p0") == shown
        assert [6] == [e["seq"] for e in (await rig.get("/v1/ledger?job=7", TENANT)).json["entries"]]
        assert [7] == [e["seq"] for e in (await rig.get("/v1/ledger?month=202612", TENANT)).json["entries"]]
        assert [8] == [e["seq"] for e in (await rig.get("/v1/ledger?tenant=chem", READER)).json["entries"]]
        sums = (await rig.get("/v1/usage/by?by=month", TENANT)).json["entries"]
        assert [("202701", 12 * UNIT, 6), ("202612", 2 * UNIT, 1)] == [
            (e["key"], e["cost"], e["charges"]) for e in sums
        ]
        assert 3_600_000 * 7 == sum(e["cpu_ms"] for e in sums)
        by_tenant = (await rig.get("/v1/usage/by?by=tenant")).json["entries"]
        assert [("physics", "14"), ("chem", "0.000005")] == [(e["key"], e["cost_text"]) for e in by_tenant]
        assert "did you mean job" in (await rig.get("/v1/usage/by?by=jobs")).json["detail"]

    served(test)


def test_the_ledger_as_csv_is_whole_and_calculates_nothing() -> None:
    """Every charge of the selection in one answer; a name that a spreadsheet would take for a formula is text."""

    async def test(rig: Rig) -> None:
        rows = [a_charge(n) for n in range(1, 2_503)]
        rows.append(a_charge(2_503, provider_id=ProviderId("=cmd|'/c calc'!A0")))
        await rig.store.commit([Put(row) for row in rows])
        got = await rig.get("/v1/ledger", TENANT, headers={"Accept": "text/csv"})
        assert 200 == got.status and got.headers["Content-Type"].startswith("text/csv")
        lines = list(csv.DictReader(io.StringIO(got.body.decode(), newline="")))
        assert [str(n) for n in range(2_503, 0, -1)] == [line["seq"] for line in lines]
        assert "'=cmd|'/c calc'!A0" == lines[0]["provider_id"]
        assert ("2000000", "2", "2000000") == tuple(lines[1][k] for k in ("price_cpu", "cost_text", "cost"))

    served(test)


def test_a_reader_of_one_tenant_reads_what_that_tenant_may_and_nothing_else() -> None:
    """Jobs, usage and the ledger of its own; no fleet, no SQL, no metrics, no audit of others, no change."""

    async def test(rig: Rig) -> None:
        made = await rig.post("/v1/tokens", {"role": "read-only", "tenant": "physics"})
        assert 201 == made.status and "physics" == made.json["entry"]["tenant"]
        bound = made.json["token"]
        await rig.store.commit([Put(a_charge(1)), Put(a_charge(2, "chem"))])
        mine = (await rig.post("/v1/jobs", {"command": ["true"]}, TENANT)).json["job_id"]
        await rig.post("/v1/jobs", {"command": ["true"]})
        assert [mine] == [one["job_id"] for one in (await rig.get("/v1/jobs", bound)).json["entries"]]
        assert ["physics"] == [one["tenant"] for one in (await rig.get("/v1/usage", bound)).json["entries"]]
        assert [1] == [one["seq"] for one in (await rig.get("/v1/ledger", bound)).json["entries"]]
        assert 200 == (await rig.get("/v1/tenants/physics", bound)).status
        assert 404 == (await rig.get("/v1/tenants/default", bound)).status
        for path in ("/v1/providers", "/v1/pools", "/v1/tenants", "/v1/alerts", "/metrics", "/openapi.json"):
            assert 403 == (await rig.get(path, bound)).status, path
        assert 403 == (await rig.post("/v1/sql", {"statement": "select 1"}, bound)).status
        assert 403 == (await rig.post("/v1/jobs", {"command": ["true"]}, bound)).status
        listed = (await rig.get("/v1/tokens?tenant=physics")).json["entries"]
        assert {"tenant", "read-only"} == {one["role"] for one in listed}

    served(test)


def test_an_alert_that_somebody_looks_after_stands_and_says_so() -> None:
    """The first acknowledgement stays; when it begins again it is another alert; an unknown one is not found."""

    async def test(rig: Rig) -> None:
        rig.alerts.fire("budget", "physics", "its budget is used up")
        (one,) = (await rig.get("/v1/alerts")).json["entries"]
        assert (None, "") == (one["acknowledged_at"], one["acknowledged_by"])
        acked = await rig.post(f"/v1/alerts/{one['id']}/ack")
        assert (200, "token:t-admin", None) == (
            acked.status,
            acked.json["acknowledged_by"],
            acked.json["resolved_at"],
        )
        rig.clock.ahead_ms += 5_000
        assert acked.json == (await rig.post(f"/v1/alerts/{one['id']}/ack")).json
        assert 403 == (await rig.post(f"/v1/alerts/{one['id']}/ack", None, READER)).status
        rig.alerts.resolve("budget", "physics")
        rig.clock.ahead_ms += 5_000
        rig.alerts.fire("budget", "physics", "again")
        again = (await rig.get("/v1/alerts")).json["entries"][0]
        assert again["id"] != one["id"] and again["acknowledged_at"] is None
        assert 404 == (await rig.post("/v1/alerts/nobody/ack")).status

    served(test)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**30, -(10**30)])
def test_a_number_that_nobody_can_store_is_refused_at_the_door(number: int) -> None:
    """In every place of a tenant and of a price; the coordinator goes on."""

    async def test(rig: Rig) -> None:
        await rig.make_tenant("lab")
        bodies = [{name: number} for name in ("weight", "priority_max", "runtime_ms")] + [{"quota": {"cpus": number}}]
        for body in bodies:
            assert 400 == (await rig.ask("PATCH", "/v1/tenants/lab", ADMIN, json=body)).status, body
            assert 400 == (await rig.post("/v1/tenants", {"name": "new", **body})).status, body
        for name in ("cpu", "gpu", "memory"):
            price = {"price": {name: number}}
            assert 400 == (await rig.ask("PATCH", "/v1/pools/default", ADMIN, json=price)).status
        assert 200 == (await rig.get("/v1/usage")).status

    served(test)
