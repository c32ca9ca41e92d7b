"""Work that recurs: rollups and sealing, the background check after a start, the loop's lag, the alerts' probes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.ports.clock import Clock
from coordinator.ports.store import CheckReport, Store
from coordinator.service.alerts import Alerts

log = logging.getLogger("coord.upkeep")


class UpkeepSettings(Struct, frozen=True, kw_only=True):
    """How often."""

    maintain_s: float = 300.0
    """Rollup, sealing and retention."""
    check_after_s: float = 20.0
    """The full integrity check begins so long after a start."""
    alerts_s: float = 2.0
    lag_s: float = 0.1
    """The loop's lag is probed at this pace."""


class LoopLag:
    """How late the loop runs what is due: the worst of the last ten seconds or so."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._recent: deque[float] = deque(maxlen=max(1, int(10 / pace_s)))
        self.worst_ms = 0.0

    def recent_ms(self) -> float:
        return max(self._recent, default=0.0)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._pace_s
            await asyncio.sleep(self._pace_s)
            late_ms = max(0.0, (loop.time() - due) * 1_000)
            self._recent.append(late_ms)
            self.worst_ms = max(self.worst_ms, late_ms)


async def keep_up(
    store: Store,
    clock: Clock,
    alerts: Alerts,
    settings: UpkeepSettings,
    on_checked: Callable[[CheckReport], None],
) -> None:
    """Run all recurring work until cancelled. A full disk delays it, what else goes wrong is an alert; a broken disk
    raises STORE_BROKEN. `on_checked` is told what the check after the start found."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_maintain(store, clock, alerts, settings))
        group.create_task(_check_once(store, alerts, settings, on_checked))
        group.create_task(_probe(alerts, settings))


async def _maintain(store: Store, clock: Clock, alerts: Alerts, settings: UpkeepSettings) -> None:
    while True:
        try:
            await store.maintain(clock.now_ms())
        except CoordError as error:
            if error.code is Code.STORE_BROKEN:
                raise
            log.warning("maintenance waits: %s", error)
            if error.code is not Code.STORE_FULL:  # that has an alert of its own
                alerts.fire("record_set_aside", "maintenance", error.message)
        except OSError as error:  # no file or process to be had just now
            log.warning("maintenance waits: %s", error)
            alerts.fire("record_set_aside", "maintenance", f"the machine refused: {error}")
        await asyncio.sleep(settings.maintain_s)


async def _check_once(
    store: Store, alerts: Alerts, settings: UpkeepSettings, on_checked: Callable[[CheckReport], None]
) -> None:
    await asyncio.sleep(settings.check_after_s)
    try:
        report = await store.check()
    except CoordError as error:
        if error.code is Code.STORE_BROKEN:
            raise
        alerts.fire("record_set_aside", "store", f"the check after the start was not made: {error.message}")
        return
    except OSError as error:
        alerts.fire("record_set_aside", "store", f"the check after the start was not made: {error}")
        return
    on_checked(report)
    for problem in report.problems:
        alerts.fire("record_set_aside", "store", problem)
    log.info("checked %d files, %d segments: %d problems", report.files, report.segments, len(report.problems))


async def _probe(alerts: Alerts, settings: UpkeepSettings) -> None:
    while True:
        alerts.check()
        await asyncio.sleep(settings.alerts_s)
