"""The newest measurements, at hand when a heartbeat is due. Slow hardware makes them old, never the heartbeat late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coordinator import wire
from coordinator.agent import gpus
from coordinator.agent.clock import boot_s, wall_ms
from coordinator.agent.log import logger
from coordinator.agent.probe import Probe, Sample
from coordinator.agent.standing import Standing

LOOK_S = 0.1
"""A heartbeat waits so long for a fresh sample (one takes about a millisecond), then takes the one before."""
SAMPLE_AGE_MAX_S = 60.0
"""An older sample says nothing about now: its fields are left out."""


class Vitals:
    """Samples of one machine. `look` samples in a thread of its own, one at a time; a stuck one is never joined."""

    def __init__(self, sample: Callable[[], Sample] | None = None) -> None:
        self._sample = sample if sample is not None else Probe().sample
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="probe")
        self._flying: asyncio.Future[Sample] | None = None
        self._newest: Sample | None = None
        self.gpus = gpus.Gpus()
        self._gpus_known = asyncio.Event()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """Have a fresh sample if one can be had at once."""
        if self._flying is None:
            self._flying = asyncio.get_running_loop().run_in_executor(self._thread, self._sample)
        await asyncio.wait({self._flying}, timeout=LOOK_S)
        if self._flying.done():
            flown, self._flying = self._flying, None
            try:
                self._newest = flown.result()
            except Exception as error:  # a driver's oddity must not cost a heartbeat
                logger.warning("the machine could not be measured: %s", error)

    async def watch_gpus(self) -> None:
        """Keep `gpus` fresh, as long as there are any. Ends at once on a machine without."""
        while True:
            self.gpus = await gpus.ask()
            self._gpus_known.set()
            if not self.gpus.names:
                return
            await asyncio.sleep(gpus.EVERY_S)

    async def gpu_names(self) -> tuple[str, ...]:
        """The GPUs of this machine; needs `watch_gpus` to run. Waits for its first answer, bounded."""
        await self._gpus_known.wait()
        return self.gpus.names

    def heartbeat(self, standing: Standing, busy: bool = False) -> wire.Heartbeat:
        """The next heartbeat, from the newest that is known."""
        sample = self._newest
        if sample is None or boot_s() - sample.at_s > SAMPLE_AGE_MAX_S:
            sample = Sample(at_s=0.0)
        offset = standing.offset
        return wire.Heartbeat(
            seq=standing.next_seq(),
            sent_at_ms=int(wall_ms()),
            status="draining" if standing.draining else "busy" if busy else "idle",
            memory_pressure=sample.memory_pressure,
            cpu_usage=sample.cpu_usage,
            thermal_state=sample.thermal_state,
            memory_available_gb=sample.memory_available_gb,
            gpu_memory_active_gb=self.gpus.memory_used_gb,
            clock_offset_ms=round(offset.offset_ms, 3) if offset is not None else None,
            clock_bound_ms=round(offset.bound_ms, 3) if offset is not None else None,
        )
