"""Quotas and budgets over HTTP: eight clients at once, real agents, and books that balance to the millionth.

A CPU costs one unit of account a second here, so that runs of a tenth of a second are worth their charge.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coordinator.api_types.tenants import DimensionEntry, LedgerEntry
from coordinator.api_types.work import JobEntry
from coordinator.client import Client, every
from coordinator.core.amounts import UNIT
from coordinator.core.errors import Code, CoordError, Refusal
from tests.acceptance.processes import Agent, Head, wait_for, when_online

HOUR_S = 3_600
CLIENTS, SUBMITS = 8, 12
BUSY = {"cpus": 5 * UNIT, "running": 3, "queued": 12, "budget": 60 * UNIT}
"""Of the tenant that waits: at most 4 of 5 CPUs are filled (the guardrail is 4.5)."""
PICKY = {"cpus": 3 * UNIT, "running": 10, "queued": 10}
"""Of the tenant that is refused what does not fit now: 2 of 3 CPUs."""
CUMULATIVE = frozenset({"storage", "ingress", "egress", "budget"})


class Place(NamedTuple):
    """A coordinator with two agents of four CPUs each, and an admin's client."""

    head: Head
    client: Client

    def tenant(self, name: str, **more: Any) -> Client:
        """A client of a new tenant."""
        self.client.tenants.create(name, **more)
        return Client(self.head.url, self.client.create_token(role="tenant", tenant=name).token)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("quotas")
    with Head(directory) as head:
        client = head.start()
        with Agent(directory, head, "w1", "--cpus", "4") as one, Agent(directory, head, "w2", "--cpus", "4") as two:
            try:
                when_online(client, one, two)
                client.price_pool("default", cpu=HOUR_S * UNIT)
                yield Place(head, client)
            finally:
                client.close()


def usage(client: Client, tenant: str) -> dict[str, DimensionEntry]:
    (found,) = client.tenants.usage(tenant).entries
    return {one.name: one for one in found.dimensions}


class Watch:
    """Asks for the exact usage again and again, and keeps what was never to be seen."""

    def __init__(self, head: Head, tenants: tuple[str, ...]) -> None:
        self.wrong: list[str] = []
        self.looks = 0
        self.most: Counter[tuple[str, str]] = Counter()
        self._head, self._tenants = head, tenants
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        with self._head.client() as client:
            while not self._over.wait(0.01):
                for tenant in self._tenants:
                    for one in usage(client, tenant).values():
                        self.most[tenant, one.name] = max(self.most[tenant, one.name], one.used + one.reserved)
                        if one.guardrail is not None and one.used + one.reserved > one.guardrail:
                            self.wrong.append(f"{tenant}: {one}")
                self.looks += 1


def check_refusal(one: Refusal) -> None:
    """Its figures say by themselves that the request does not fit, and that without it nothing was passed."""
    total = one.used + one.reserved + one.request
    over = total >= one.guardrail if one.dimension in CUMULATIVE else total > one.guardrail
    assert over and one.request > 0, one
    assert one.used + one.reserved <= one.guardrail, one
    exact = one.dimension in ("running", "queued")
    assert one.guardrail == (one.limit if exact else one.limit * 9 // 10), one


def jobs_of(client: Client, tenant: str | None = None) -> list[JobEntry]:
    pages = every(lambda page: client.jobs.list(tenant=tenant, page=page))
    return [job for page in pages for job in page.entries]


def ledger_of(client: Client, tenant: str) -> list[LedgerEntry]:
    pages = every(lambda page: client.tenants.ledger(tenant=tenant, limit=200, page=page))
    return [entry for page in pages for entry in page.entries]


def check_books(client: Client, tenant: str) -> None:
    """The ledger is the sum of the meters; jobs, sums and usage say the same, to the millionth; nothing is reserved."""
    ledger = ledger_of(client, tenant)
    assert ledger, "nothing ran"
    seen: Counter[int] = Counter()
    for charge in ledger:
        assert HOUR_S * UNIT == charge.price.cpu and UNIT == charge.cpus
        assert charge.cost == -(-charge.cpus * charge.price.cpu * charge.ran_ms // (HOUR_S * 1_000 * UNIT)), charge
        seen[charge.job_id] += charge.cost
    assert len(ledger) == len({(charge.attempt, charge.rank, charge.month) for charge in ledger}), "charged twice"
    by_id = {job.job_id: job for job in jobs_of(client, tenant)}
    assert {job_id: job.cost for job_id, job in by_id.items() if job.cost} == dict(seen)
    for job_id in seen:
        tries = [one for task in client.jobs.show(job_id).tasks for one in task.tries]
        exits = {one.attempt: rank.exit for one in tries for rank in one.ranks if rank.exit is not None}
        for charge in ledger:
            if charge.job_id == job_id and (exit := exits.get(charge.attempt)) is not None:
                assert charge.ran_ms <= round(exit.ran_seconds * 1_000), "metered more than its agent saw"
        assert len(tries) >= by_id[job_id].counts.completed
    total = sum(charge.cost for charge in ledger)
    now = usage(client, tenant)
    assert (total, 0) == (now["budget"].used, now["budget"].reserved)
    assert all(0 == now[name].used for name in ("cpus", "gpus", "memory", "running", "queued"))
    (line,) = client.tenants.usage_by("tenant", tenant=tenant).entries
    assert (total, len(ledger)) == (line.cost, line.charges)


def test_eight_clients_at_once_never_pass_a_quota_and_the_books_balance(place: Place) -> None:
    """Whatever was seen at any moment was within every limit; every refusal's figures are right and nothing that was
    refused was kept; all that was admitted ran, and was charged exactly once."""
    clients = {"busy": place.tenant("busy", quota=BUSY), "picky": place.tenant("picky", quota=PICKY, on_full="refuse")}
    tokens = {name: place.client.create_token(role="tenant", tenant=name).token for name in clients}
    admitted: list[tuple[str, int]] = []
    refused: list[tuple[str, tuple[Refusal, ...]]] = []
    failed: list[BaseException] = []

    def submit(number: int) -> None:
        name = ("busy", "busy", "busy", "picky")[number % 4]
        try:
            with Client(place.head.url, tokens[name]) as client:
                for turn in range(SUBMITS):
                    job = {"command": ["sleep", "0.1"], "array": "1-3", "expected_runtime": "1s"}
                    if name == "picky":
                        job["array"] = "1-2"
                    try:
                        made = client.jobs.submit(job | {"name": f"j{number}-{turn}"})
                        admitted.append((name, made.job_id))
                    except CoordError as error:
                        assert Code.QUOTA is error.code, error
                        refused.append((name, error.refusals))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(CLIENTS)]
    with Watch(place.head, tuple(clients)) as watch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        for name, client in clients.items():
            mine = [job_id for owner, job_id in admitted if owner == name]
            for job_id in mine:
                assert "completed" == client.jobs.wait(job_id, timeout_s=60.0).state
    assert not watch.wrong and watch.looks > 20
    assert CLIENTS * SUBMITS == len(admitted) + len(refused)
    for name, refusals in refused:
        assert refusals, name
        for one in refusals:
            check_refusal(one)
            assert (BUSY if name == "busy" else PICKY)[one.dimension] == one.limit
    kinds = Counter((name, one.dimension) for name, refusals in refused for one in refusals)
    assert kinds["busy", "queued"] or kinds["busy", "budget"], kinds
    assert kinds["picky", "cpus"], kinds
    assert watch.most["busy", "cpus"] > 0
    for name, client in clients.items():
        kept = [job.job_id for job in jobs_of(client)]
        assert sorted(job_id for owner, job_id in admitted if owner == name) == sorted(kept)
        check_books(place.client, name)
        client.close()


def test_at_the_budget_nothing_new_starts_and_what_runs_is_stopped_where_it_was_asked(place: Place) -> None:
    """Work that costs more than it was estimated is stopped when the budget is used up, and is charged; nothing more is
    admitted and an alert stands, until the budget is raised."""
    client = place.tenant("spent", quota={"budget": 3 * UNIT}, on_budget="stop")
    job = client.jobs.submit({"command": ["sleep", "300"], "estimate": {"cost": "0.5"}})
    over = client.jobs.wait(job.job_id, timeout_s=60.0)
    assert "cancelled" == over.state and "budget" in over.reason, over.reason
    assert over.cost >= 3 * UNIT
    wait_for(lambda: usage(client, "spent")["budget"].reserved == 0, "its reservation being given back")
    check_books(place.client, "spent")
    with pytest.raises(CoordError) as caught:
        client.jobs.submit({"command": ["true"], "estimate": {"cost": "0.1"}})
    (refusal,) = caught.value.refusals
    assert (Code.QUOTA, "budget", over.cost) == (caught.value.code, refusal.dimension, refusal.used)

    def stands() -> set[str]:
        return {one.kind for one in place.client.alerts().entries if one.subject == "spent" and not one.resolved_at}

    wait_for(lambda: "budget" in stands(), "the alert")
    place.client.tenants.change("spent", quota={"budget": 1_000 * UNIT})
    wait_for(lambda: "budget" not in stands(), "the alert being over")
    again = client.jobs.submit({"command": ["true"], "expected_runtime": "1s"})
    assert "completed" == client.jobs.wait(again.job_id, timeout_s=30.0).state
    client.close()


def test_quotas_hold_over_kill_9_of_the_coordinator(place: Place, tmp_path: Path) -> None:
    """What is held, reserved and used is the same after a restart as before it, and the books still balance."""
    client = place.tenant("steady", quota={"cpus": 3 * UNIT, "budget": 10_000 * UNIT})
    gate = tmp_path / "gate"
    gate.parent.chmod(0o755)
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    job = client.jobs.submit({"command": ["sh", "-c", script], "array": "1-5", "expected_runtime": "100s"})
    client.close()
    wait_for(lambda: usage(place.client, "steady")["cpus"].used == 2 * UNIT, "two of the five running")
    wait_for(lambda: place.client.jobs.show(job.job_id).job.counts.running == 2, "two being at work")
    before = usage(place.client, "steady")
    place.head.kill()
    place.head.start().close()
    after = usage(place.client, "steady")
    for name in ("cpus", "memory", "running", "queued"):
        assert before[name] == after[name]
    promised = [one["budget"].used + one["budget"].reserved for one in (before, after)]
    assert promised[0] == promised[1] == 500 * UNIT
    gate.touch()
    assert "completed" == place.client.jobs.wait(job.job_id, timeout_s=60.0).state
    check_books(place.client, "steady")
