"""Many agents at once, with their reconnects: the swarm that the soak uses, against the links themselves."""

from __future__ import annotations

import asyncio

from bench.swarm import MACHINE, run_swarm
from coordinator.service.link_settings import LinkSettings
from tests.unit.service.links_rig import a_rig, until


def test_a_swarm_loses_no_heartbeat_when_every_socket_breaks() -> None:
    """All agents come back as the processes they were; what was not acknowledged is sent again and stored once."""

    async def main() -> None:
        async with a_rig(LinkSettings(close_s=0.2)) as rig:
            names = [f"n{i}" for i in range(30)]
            credentials = {name: await rig.enrol(name, MACHINE) for name in names}
            swarm = asyncio.ensure_future(
                run_swarm(f"http://127.0.0.1:{rig.port}", credentials, seconds=4.0, interval_s=0.2)
            )
            await until(lambda: len(rig.store.rows) > 60)
            for link in tuple(rig.links._links.values()):
                link.abort()
            report = await swarm
            assert report.agents == 30
            assert report.dropped == 0
            assert report.acked == report.sent > 300
            assert report.reconnects >= 30
            assert report.gave_up == 0
            await rig.stored(report.sent)
            stored = [(row.key, row.observed_at_ms, row.n) for row in rig.store.rows]
            assert len(stored) == len(set(stored)) == report.sent

    asyncio.run(main())
