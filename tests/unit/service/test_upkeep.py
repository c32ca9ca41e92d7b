"""Recurring work: what one round cannot do is told, and neither the coordinator nor the next round stops for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.ports.store import CheckReport
from coordinator.service.alerts import Alerts
from coordinator.service.clock import ObservedClock
from coordinator.service.upkeep import UpkeepSettings, keep_up
from store.memory import MemoryStore

LATE = CoordError(Code.TIMEOUT, "store.check took longer than 600 s", "look at the disk's load")
BROKEN = CoordError(Code.STORE_BROKEN, "a sync failed", "look at the disk")
OFTEN = UpkeepSettings(maintain_s=0.001, check_after_s=0.0, alerts_s=0.001)


class FailingStore(MemoryStore):
    """Maintenance and the full check fail as they are told to, and are counted."""

    def __init__(self, *, maintaining: CoordError | None = None, checking: CoordError | None = None) -> None:
        super().__init__()
        self.maintaining, self.checking = maintaining, checking
        self.rounds = 0

    async def maintain(self, now_ms: Ms) -> None:
        self.rounds += 1
        if self.maintaining is not None:
            raise self.maintaining
        await super().maintain(now_ms)

    async def check(self) -> CheckReport:
        if self.checking is not None:
            raise self.checking
        return await super().check()


def keep_up_until(store: FailingStore, holds: Callable[[Alerts], bool]) -> None:
    """Run all recurring work until `holds`; what ends it before is raised."""

    async def main() -> None:
        clock = ObservedClock()
        alerts = Alerts(clock.now_ms)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            work = group.create_task(keep_up(store, clock, alerts, OFTEN, lambda report: None))
            while not holds(alerts):  # noqa: ASYNC110  it has no event for every round
                await asyncio.sleep(0)
            work.cancel()

    asyncio.run(main())


def texts(alerts: Alerts) -> list[str]:
    return [entry.text for entry in alerts.entries()]


def test_a_check_that_cannot_be_made_is_an_alert_and_no_end() -> None:
    """A store too large for the check's time, or a killed child: the coordinator serves on."""
    store = FailingStore(checking=LATE)
    keep_up_until(store, lambda alerts: any(LATE.message in text for text in texts(alerts)) and store.rounds > 2)


def test_maintenance_that_fails_is_an_alert_and_is_tried_again() -> None:
    damaged = CoordError(Code.INTERNAL, "store.seal ended with 1: an hour is damaged", "coord db check")
    store = FailingStore(maintaining=damaged)
    keep_up_until(store, lambda alerts: any(damaged.message in text for text in texts(alerts)) and store.rounds > 2)


@pytest.mark.parametrize("store", [FailingStore(maintaining=BROKEN), FailingStore(checking=BROKEN)])
def test_a_broken_disk_ends_it(store: FailingStore) -> None:
    with pytest.raises(BaseExceptionGroup) as ended:
        keep_up_until(store, lambda alerts: False)
    found = ended.value.subgroup(lambda error: isinstance(error, CoordError) and error.code is Code.STORE_BROKEN)
    assert found is not None
