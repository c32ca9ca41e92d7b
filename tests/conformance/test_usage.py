"""Who uses what and what it cost: tenants, accounts, prices and the ledger come back, and add up."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from msgspec.structs import replace

from coordinator.core.amounts import UNIT, Price
from coordinator.core.commands import Delete, Put
from coordinator.core.ids import JobId, PoolName, ProviderId, TenantName
from coordinator.core.rows import (
    AccountRow,
    LedgerRow,
    OnBudget,
    OnFull,
    PoolRow,
    Quota,
    Row,
    TenantRow,
    row_key,
)
from coordinator.ports.store import SUMMED_BY, Loaded, Store
from tests.conformance.homes import DAY_MS, NOON_MS, Home

MONTHS = (202_510, 202_511, 202_512)


def a_tenant(name: str = "physics") -> TenantRow:
    """Something in every field."""
    quota = Quota(cpus=1, gpus=2, memory=2**50, running=4, queued=5, storage=2**52, ingress=7, egress=8, budget=10**15)
    return TenantRow(
        name=TenantName(name),
        created_at_ms=NOON_MS,
        note="für ''",
        quota=quota,
        weight=3,
        priority_max=9,
        on_full=OnFull.REFUSE,
        on_budget=OnBudget.STOP,
        runtime_ms=77,
    )


def an_account(tenant: str = "physics", cost: int = 5) -> AccountRow:
    return AccountRow(
        tenant=TenantName(tenant),
        month=202_511,
        cost=cost,
        ingress=6,
        egress=7,
        storage=8,
        share=0.1 + 0.2,
        share_at_ms=NOON_MS,
        storage_mb_s=9,
        storage_at_ms=NOON_MS + 1,
    )


def a_charge(seq: int, dice: Random) -> LedgerRow:
    return LedgerRow(
        seq=seq,
        at_ms=NOON_MS + seq * DAY_MS // 10,
        month=MONTHS[min(seq // 40, 2)],
        tenant=TenantName(dice.choice(("a", "b", "ü"))),
        job_id=JobId(dice.randrange(1, 6)),
        step=dice.randrange(2),
        task=dice.randrange(100),
        attempt=1,
        rank=dice.randrange(3),
        provider_id=ProviderId(dice.choice(("p", "q"))),
        pool=PoolName(dice.choice(("gpu", "default"))),
        cpus=dice.randrange(64 * UNIT),
        gpus=dice.randrange(8 * UNIT),
        memory=dice.randrange(2**40),
        price=Price(cpu=dice.randrange(10**9), gpu=2, memory=3),
        ran_ms=dice.randrange(10**9),
        cost=dice.randrange(10**12),
    )


async def the_load(store: Store) -> Loaded:
    return await store.load()


def test_tenants_accounts_and_prices_survive_a_restart(home: Home) -> None:
    """Every field of them, beside those that were changed or deleted since; charges are no part of a start."""
    price = Price(cpu=1, gpu=2, memory=10**12)
    rows: list[Row] = [
        a_tenant(),
        TenantRow(name=TenantName("plain"), created_at_ms=1),
        an_account(),
        AccountRow(tenant=TenantName("plain"), month=202_511),
        PoolRow(name=PoolName("gpu"), created_at_ms=3, note="x", price=price),
        PoolRow(name=PoolName("free"), created_at_ms=3),
    ]

    async def write(store: Store) -> None:
        await store.commit([Put(TenantRow(name=TenantName("gone"), created_at_ms=1)), Put(an_account(cost=4))])
        await store.commit([*map(Put, rows), Put(a_charge(1, Random(1))), Delete("tenant", "gone")])

    home.run(write)
    found = home.run(the_load)
    assert {row_key(row): row for row in rows} == {row_key(row): row for row in found.rows}
    assert 2 == found.next_ledger

    async def accounts(store: Store) -> list[AccountRow]:
        return await store.accounts()

    assert [an_account(), AccountRow(tenant=TenantName("plain"), month=202_511)] == home.run(accounts)


def test_the_ledger_is_read_newest_first_by_tenant_month_and_job(home: Home) -> None:
    """Each filter alone and all together; pages join without a gap or a double."""
    dice = Random(3)
    rows = [a_charge(seq, dice) for seq in range(1, 121)]

    async def story(store: Store) -> None:
        await store.commit([Put(row) for row in rows])
        for tenant in (None, TenantName("a"), TenantName("ü"), TenantName("nobody")):
            for month in (None, MONTHS[1], 202_601):
                for job_id in (None, JobId(2), JobId(99)):
                    wanted = [
                        row
                        for row in reversed(rows)
                        if tenant in (None, row.tenant) and month in (None, row.month) and job_id in (None, row.job_id)
                    ]
                    assert wanted == await store.ledger(1_000, tenant, month, job_id)
                    paged = page = await store.ledger(7, tenant, month, job_id)
                    while page:
                        page = await store.ledger(7, tenant, month, job_id, before=page[-1].seq)
                        paged = paged + page
                    assert wanted == paged

    home.run(story)


@pytest.mark.parametrize("by", SUMMED_BY)
def test_sums_are_those_of_the_charges_to_the_millionth(home: Home, by: str) -> None:
    """By every key and under every filter, the largest first, or the newest where the key is a time."""
    dice = Random(4)
    rows = [a_charge(seq, dice) for seq in range(1, 121)]

    async def story(store: Store) -> None:
        await store.commit([Put(row) for row in rows])
        for tenant in (None, TenantName("b")):
            for month in (None, MONTHS[0]):
                for job_id in (None, JobId(3)):
                    among = [
                        row
                        for row in rows
                        if tenant in (None, row.tenant) and month in (None, row.month) and job_id in (None, row.job_id)
                    ]
                    sums = await store.usage_by(by, 1_000, tenant, month, job_id)
                    assert sum(row.cost for row in among) == sum(found.cost for found in sums)
                    assert sum(row.ran_ms for row in among) == sum(found.ran_ms for found in sums)
                    assert sum(row.cpus * row.ran_ms // UNIT for row in among) == sum(found.cpu_ms for found in sums)
                    assert sum(row.gpus * row.ran_ms // UNIT for row in among) == sum(found.gpu_ms for found in sums)
                    assert len(among) == sum(found.charges for found in sums)
                    if by in ("tenant", "pool"):
                        expected: Counter[str] = Counter()
                        for row in among:
                            expected[row.tenant if by == "tenant" else row.pool] += row.cost
                        assert dict(expected) == {found.key: found.cost for found in sums}
                    if by in ("month", "day"):
                        assert sorted((found.key for found in sums), reverse=True) == [found.key for found in sums]
                    else:
                        assert sorted(-found.cost for found in sums) == [-found.cost for found in sums]
                    assert sums[:2] == await store.usage_by(by, 2, tenant, month, job_id)

    home.run(story)


def test_bytes_are_summed_beside_what_ran(home: Home) -> None:
    """By tenant and time; they are no charge of a job, a pool or a provider, and their row grows under its number."""
    dice = Random(6)
    ran = [replace(a_charge(seq, dice), tenant=TenantName("a"), month=MONTHS[0]) for seq in (1, 2)]
    plain = {"job_id": JobId(0), "provider_id": ProviderId(""), "pool": PoolName(""), "cost": 0, "ran_ms": 0}
    moved = [
        replace(ran[0], seq=3 + n, kind=kind, amount=2**50 + n, **plain)
        for n, kind in enumerate(("ingress", "egress", "storage", "ingress"))
    ]

    async def story(store: Store) -> None:
        await store.commit([Put(replace(moved[3], amount=1)), *map(Put, ran)])
        await store.commit([*map(Put, moved)])
        assert list(reversed(moved)) + list(reversed(ran)) == await store.ledger(9)
        for by in ("tenant", "month"):
            (found,) = await store.usage_by(by, 9)
            assert (2, sum(row.cost for row in ran)) == (found.charges, found.cost)
            assert (2**51 + 3, 2**50 + 1, 2**50 + 2) == (found.ingress, found.egress, found.storage_mb_s)
        for by in ("job", "pool", "provider"):
            sums = await store.usage_by(by, 9)
            assert 2 == sum(found.charges for found in sums)
            assert {(0, 0, 0)} == {(found.ingress, found.egress, found.storage_mb_s) for found in sums}

    home.run(story)


def test_days_and_months_are_those_of_utc(home: Home) -> None:
    """The key of a sum is what people write: a day and a month."""

    async def story(store: Store) -> None:
        await store.commit([Put(a_charge(1, Random(1)))])
        (day,) = await store.usage_by("day", 9)
        (month,) = await store.usage_by("month", 9)
        assert ("2025-11-24", "202510") == (day.key, month.key)

    home.run(story)


def test_charges_are_kept_for_400_days(home: Home) -> None:
    """Older ones go, oldest first; their numbers stay used."""

    async def story(store: Store) -> None:
        dice = Random(5)
        await store.commit([Put(a_charge(seq, dice)) for seq in range(1, 31)])  # ten a day
        await store.maintain(NOON_MS + 402 * DAY_MS)
        assert list(range(30, 19, -1)) == [row.seq for row in await store.ledger(99)]
        await store.maintain(NOON_MS + 500 * DAY_MS)
        assert [] == await store.ledger(99)

    home.run(story)
    assert 31 == home.run(the_load).next_ledger
