"""The feed: every durable row once and in order, from any number on; waits for jobs miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice

from coordinator.core import commands
from coordinator.core.commands import Put
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AuditRow, JobRow, WorkState
from coordinator.service import feed as feed_module
from coordinator.service.bells import heard
from coordinator.service.feed import Feed
from coordinator.service.views import ENDED_MAX, LiveViews
from store.memory import MemoryStore
from tests.conformance.homes import ended, first_leases, launched


def a_row(seq: int, job: int = 1, tenant: str = "physics") -> AuditRow:
    return AuditRow(
        seq=seq,
        wall_ns=seq,
        mono_ns=seq,
        entity="job",
        subject=str(job),
        after="running",
        tenant=tenant,
        job_id=JobId(job),
    )


def a_job(job: int = 1, state: WorkState = WorkState.RUNNING) -> JobRow:
    return JobRow(
        job_id=JobId(job),
        tenant=TenantName("physics"),
        name="j",
        state=state,
        submitted_at_ms=0,
        by="token:1",
        tasks=1,
    )


class Rig:
    """A feed over the in-memory store; `happens` makes rows durable and published, as the engine does."""

    def __init__(self, already: int = 0) -> None:
        self.store = MemoryStore("head")
        self.views = LiveViews()
        self.feed = Feed(self.views, self.store, last_seq=already)

    async def happens(self, *rows: AuditRow) -> None:
        await self.store.commit([Put(row) for row in rows])
        self.views.apply([commands.Audited(row) for row in rows])


async def take(rows: AsyncIterator[AuditRow], count: int) -> list[int]:
    async with asyncio.timeout(60):
        return [(await anext(rows)).seq for _ in range(count)]


def test_a_follower_gets_what_there_is_and_then_what_comes() -> None:
    """In order, each once, whichever number it begins behind."""

    async def main() -> None:
        rig = Rig()
        await rig.happens(*map(a_row, range(1, 6)))
        rows = rig.feed.follow(2)
        assert await take(rows, 3) == [3, 4, 5]
        coming = asyncio.ensure_future(take(rows, 2))
        await asyncio.sleep(0)
        await rig.happens(a_row(6), a_row(7))
        assert await coming == [6, 7]

    asyncio.run(main())


def test_what_the_ring_has_forgotten_comes_from_the_store() -> None:
    """A follower that begins long ago, or before this start, sees no seam."""

    async def main() -> None:
        rig = Rig(already=1_000)
        await rig.store.commit([Put(a_row(seq)) for seq in range(1, 1_001)])
        await rig.happens(*map(a_row, range(1_001, 1_301)))
        assert await take(rig.feed.follow(0), 1_300) == list(range(1, 1_301))
        fresh = Rig(already=1_000)
        await fresh.store.commit([Put(a_row(seq)) for seq in range(1, 1_001)])
        assert await take(fresh.feed.follow(990), 10) == list(range(991, 1_001))

    asyncio.run(main())


def test_first_leases_together_are_told_row_by_row() -> None:
    """From any number among them on, and on over what comes behind them."""

    async def main() -> None:
        rig = Rig()
        leases = first_leases(400, seq=3)
        waits = asyncio.ensure_future(anext(aiter(rig.feed.pages(0))))
        await asyncio.sleep(0)
        change = rig.feed.next_change(JobId(1))
        await rig.happens(a_row(1), a_row(2))
        rig.views.apply([leases])
        await rig.happens(a_row(803))
        assert [1, 2] == [row.seq for row in (await waits)[:2]]
        assert change.done()
        rows = rig.feed.follow(0)
        found = [await anext(rows) for _ in range(803)]
        assert list(range(1, 804)) == [row.seq for row in found]
        assert leases.audited() == found[2:-1]
        for after in (2, 3, 500, 801, 802):
            assert after + 1 == (await anext(rig.feed.follow(after))).seq
        assert [note.attempt_id for note in leases.attempts] == [
            view.row.attempt_id for view in rig.views.attempts.live()
        ]

    asyncio.run(main())


def test_launches_together_are_told_row_by_row() -> None:
    """And attempts stand as they are now."""

    async def main() -> None:
        rig = Rig()
        leases = first_leases(40)
        begun = launched(leases, range(5, 40), seq=81)
        rig.views.apply([leases])
        change = rig.feed.next_change(JobId(1))
        rig.views.apply([begun])
        assert change.done()
        rows = rig.feed.follow(70)
        assert leases.audited()[70:] + begun.audited() == [await anext(rows) for _ in range(45)]
        assert [*leases.attempts[:5], *begun.attempts] == [view.row for view in rig.views.attempts.live()]

    asyncio.run(main())


def test_ends_together_are_told_row_by_row() -> None:
    """And their attempts are known as they ended, and live no more."""

    async def main() -> None:
        rig = Rig()
        leases = first_leases(40)
        begun = launched(leases, range(40), seq=81)
        over = ended(begun, range(5, 40), seq=121)
        rig.views.apply([leases, begun])
        change = rig.feed.next_change(JobId(1))
        rig.views.apply([over])
        assert change.done()
        rows = rig.feed.follow(110)
        assert begun.audited()[30:] + over.audited() == [await anext(rows) for _ in range(80)]
        assert begun.attempts[:5] == [view.row for view in rig.views.attempts.live()]
        known = [rig.views.attempts.get(row.attempt_id) for row in over.attempts]
        assert over.attempts == [view.row for view in known if view is not None]

    asyncio.run(main())


def test_the_ring_is_bounded_and_a_slow_follower_misses_nothing() -> None:
    """While it reads nothing, more than twice the ring goes by."""

    async def main() -> None:
        rig = Rig()
        await rig.happens(a_row(1))
        slow = rig.feed.follow(0)
        assert await take(slow, 1) == [1]
        numbers = iter(range(2, 2 * feed_module.RING_MAX + 1_000))
        while rows := [a_row(seq) for seq in islice(numbers, 5_000)]:
            await rig.happens(*rows)
        assert len(rig.feed._ring) <= 2 * feed_module.RING_MAX
        assert await take(slow, 3_000) == list(range(2, 3_002))

    asyncio.run(main())


def test_a_follower_sees_its_own_tenant_and_job_alone() -> None:
    """Whether rows come from the ring or from the store, and also when long stretches are others'."""

    async def main() -> None:
        rig = Rig(already=2_000)
        old = [a_row(seq, job=seq % 7, tenant="physics" if seq % 2 else "biology") for seq in range(1, 2_001)]
        await rig.store.commit([Put(row) for row in old])
        new = [a_row(seq, job=3, tenant="physics" if seq > 2_700 else "biology") for seq in range(2_001, 2_711)]
        await rig.happens(*new)
        expected = [row.seq for row in (*old, *new) if row.tenant == "physics" and row.job_id == 3]
        rows = rig.feed.follow(0, tenant=TenantName("physics"), job_id=JobId(3))
        assert await take(rows, len(expected)) == expected

    asyncio.run(main())


def test_a_jobs_next_change_is_told_to_all_who_wait_and_leaves_nothing_behind() -> None:
    """Another job's wakes nobody; the one after it is waited for anew."""

    async def main() -> None:
        rig = Rig()
        first, second = rig.feed.next_change(JobId(1)), rig.feed.next_change(JobId(1))
        rig.views.apply([commands.JobChanged(a_job(2))])
        assert not await heard(first, 0)
        rig.views.apply([commands.JobChanged(a_job())])
        assert await heard(first) and await heard(second)
        assert not rig.feed.next_change(JobId(1)).done()
        del first, second
        assert len(rig.feed._jobs) == 0

    asyncio.run(main())


def test_closing_ends_followers_and_waits() -> None:
    """A stop keeps nobody."""

    async def main() -> None:
        rig = Rig()

        async def follow() -> list[AuditRow]:
            return [row async for row in rig.feed.follow(0)]

        following, change = asyncio.ensure_future(follow()), rig.feed.next_change(JobId(1))
        await asyncio.sleep(0)
        rig.feed.close()
        assert await following == []
        assert change.done()
        assert rig.feed.followers == 0

    asyncio.run(main())


def test_views_know_what_ended_lately_and_forget_the_oldest() -> None:
    """A bound on what is kept of the past, and none on what lives."""
    views = LiveViews()
    views.apply([commands.JobChanged(a_job(0))])
    views.apply([commands.JobChanged(a_job(n, WorkState.COMPLETED)) for n in range(1, ENDED_MAX + 2)])
    assert views.jobs.get(JobId(1)) is None
    assert views.jobs.get(JobId(2)) is not None and views.jobs.get(JobId(ENDED_MAX + 1)) is not None
    assert [row.job_id for row in views.jobs.live()] == [0]


def test_a_job_that_is_retried_lives_again() -> None:
    views = LiveViews()
    views.apply([commands.JobChanged(a_job(1, state)) for state in (WorkState.FAILED, WorkState.PENDING)])
    assert [row.state for row in views.jobs.live()] == [WorkState.PENDING]


def test_rows_that_come_together_are_told_together() -> None:
    """Pages: what is there is one, what comes while its reader is busy or within a moment is the next."""

    async def main() -> None:
        rig = Rig()
        await rig.happens(*map(a_row, range(1, 6)))
        pages = rig.feed.pages(0)
        assert [row.seq for row in await anext(pages)] == [1, 2, 3, 4, 5]
        coming = asyncio.ensure_future(anext(pages))
        for seq in range(6, 16):
            await rig.happens(a_row(seq))
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert [row.seq for row in await coming] == list(range(6, 16))
        await pages.aclose()
        assert rig.feed.followers == 0

    asyncio.run(main())
