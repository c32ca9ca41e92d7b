"""What is told together leaves views, metrics and the feed as if each row had been told by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from coordinator.core import commands
from coordinator.core.ids import AttemptId
from coordinator.core.rows import AuditRow
from coordinator.service.feed import Feed
from coordinator.service.measures import count_notes
from coordinator.service.metric_values import Metrics
from coordinator.service.tenant_measures import count_waits
from coordinator.service.views import AttemptView, LiveViews
from store.memory import MemoryStore
from tests.conformance.homes import ended, first_leases, launched

Seen = tuple[list[str], list[AttemptView | None], list[AttemptView], list[AuditRow]]


async def seen(told: Iterable[commands.Note], ids: list[AttemptId], rows: int) -> Seen:
    """Metrics, what is known of these attempts, which of them live, and the rows that a follower is told."""
    views, metrics = LiveViews(), Metrics()
    feed = Feed(views, MemoryStore("ours"))
    count_notes(metrics, views)
    count_waits(metrics, views)
    views.apply(told)
    pages = feed.follow(0)
    found = [await anext(pages) for _ in range(rows)]
    feed.close()
    known = [views.attempts.get(attempt_id) for attempt_id in ids]
    return sorted(metrics.render().decode().splitlines()), known, list(views.attempts.live()), found


def test_leases_launches_and_ends_together_are_told_as_each_by_itself() -> None:
    leases = first_leases(40)
    begun = launched(leases, range(40), seq=leases.last_seq + 1)
    over = ended(begun, range(5, 40), seq=begun.last_seq + 1)
    notes: list[commands.Note] = [leases, begun, over]

    async def main() -> None:
        each = list(commands.notes_one_by_one(notes))
        together = await seen(notes, leases.ids, over.last_seq)
        assert together == await seen(each, leases.ids, over.last_seq)
        assert 'coord_transitions_total{entity="task",after="completed"} 35' in together[0]
        assert len(together[2]) == 5

    asyncio.run(main())
