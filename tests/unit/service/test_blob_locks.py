"""Publishing a blob and removing it never meet."""

from __future__ import annotations

import asyncio

from coordinator.core.ids import TenantName
from coordinator.service.data.locks import UNKNOWN, BlobLocks

PHYSICS, CHEMISTRY = TenantName("physics"), TenantName("chemistry")


def test_one_at_a_time_for_a_digest_and_no_waiting_for_others() -> None:
    """In the order in which they came."""

    async def main() -> None:
        locks, order = BlobLocks(), []

        async def publish(name: str, digest: str, go: asyncio.Event) -> None:
            async with locks.alone(PHYSICS, digest):
                order.append(f"{name} in")
                await go.wait()
                order.append(f"{name} out")

        free, held = asyncio.Event(), asyncio.Event()
        free.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(publish("a", "1", held))
            group.create_task(publish("b", "1", free))
            group.create_task(publish("c", "2", free))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert ["a in", "c in", "c out"] == order
            held.set()
        assert ["a out", "b in", "b out"] == order[3:]

    asyncio.run(main())


def test_a_sweep_leaves_out_what_is_being_published_and_keeps_others_from_the_rest() -> None:
    """It waits for nobody; whoever publishes one of its victims waits for it. Bytes whose digest is not known yet may
    be any of their tenant's."""

    async def main() -> None:
        locks = BlobLocks()
        wanted = [(PHYSICS, "1"), (PHYSICS, "2"), (CHEMISTRY, "1")]
        async with locks.alone(PHYSICS, "1"), locks.idle(wanted) as free:
            assert [(PHYSICS, "2"), (CHEMISTRY, "1")] == free
            for tenant, digest in ((PHYSICS, "2"), (CHEMISTRY, UNKNOWN)):
                waiting = asyncio.ensure_future(locks.alone(tenant, digest).__aenter__())
                done, _ = await asyncio.wait((waiting,), timeout=0.01)
                assert not done
                waiting.cancel()
                await asyncio.wait((waiting,))
            async with locks.alone(PHYSICS, "3"):
                pass
        async with locks.alone(PHYSICS, UNKNOWN), locks.idle(wanted) as free:
            assert [(CHEMISTRY, "1")] == free
        async with locks.idle(wanted) as free:
            assert wanted == free
        assert not locks._locks, "nothing is left behind"

    asyncio.run(main())
