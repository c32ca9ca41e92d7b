"""A process that writes to a store and says what is durable, to be killed by the test that started it.

    python -m tests.acceptance.store_process DIRECTORY FAILPOINT STORY

Every line on standard output is an acknowledgement: it is printed after the call that it speaks of returned.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from coordinator.core.commands import Delete, Put
from coordinator.core.data.rows import BlobRow, UploadRow
from coordinator.core.errors import CoordError
from coordinator.core.ids import Digest, JobId, TenantName, UploadId
from coordinator.core.rows import AccountRow, WorkState
from store.durable import DiskStore
from store.layout import DataDir
from store.restore import restore
from store.settings import StoreSettings
from tests.conformance.homes import (
    DAY_MS,
    HOUR_MS,
    NOON_MS,
    a_beat,
    a_job,
    a_provider,
    a_session,
    a_spec,
    a_step,
    first_leases,
    imported,
    launched,
)

ROUNDS = 40
LEASED = 30
BLOBS = 7
EXIT_BROKEN = 70


def say(*words: object) -> None:
    print(*words, flush=True)


async def write(store: DiskStore) -> None:
    """Commits and heartbeats in turn, each acknowledged by its number."""
    number = (await store.load()).next_session_id
    for n in range(number, number + ROUNDS):
        session = a_session(n, NOON_MS + n * 1_000, NOON_MS + n * 1_000 + 500, provider=f"p{n}")
        await store.commit([Put(session), Put(a_provider(f"p{n}", n))])
        say("session", n)
        await store.append_heartbeats([a_beat(NOON_MS + n * 1_000, 1), a_beat(NOON_MS + n * 1_000, 2)])
        say("beat", n)


async def lease(store: DiskStore) -> None:
    """Leases given together, and launched in two pieces; each acknowledged by the number of its first task."""
    await store.commit([Put(row) for row in (a_job(1, WorkState.RUNNING), a_spec(1), a_step(1))])
    begin = len(await store.job_tasks(JobId(1), 100_000))
    for task in range(begin, begin + ROUNDS * LEASED, LEASED):
        leases = first_leases(LEASED, task=task, seq=(await store.load()).next_audit)
        await store.commit([leases])
        say("leased", task)
        for first, to in ((0, LEASED // 3), (LEASED // 3, LEASED)):
            await store.commit([launched(leases, range(first, to), seq=(await store.load()).next_audit)])
            say("launched", task + first)


async def seal(store: DiskStore) -> None:
    """Two hours of heartbeats, sealed; then so late that retention removes them."""
    await store.append_heartbeats([a_beat(NOON_MS + n * 60_000, 1) for n in range(120)])
    say("filled")
    await store.maintain(NOON_MS + 3 * HOUR_MS)
    say("sealed")
    await store.maintain(NOON_MS + 40 * DAY_MS)
    say("pruned")


async def bring(store: DiskStore) -> None:
    """An import."""
    await store.import_sessions([imported(n, f"q{n % 7}", n * 10, n * 10 + 5) for n in range(1, 500)])
    say("imported")


async def save(store: DiskStore) -> None:
    """A backup, and a restore of it into a directory beside."""
    path = await store.backup(store.data.backups)
    say("saved", path)


def bytes_of(number: int) -> bytes:
    """What the upload of that number brings."""
    return random.Random(number).randbytes(40_000 + number)


async def keep(store: DiskStore) -> None:
    """Blobs as a service has them: an upload is opened, brought and published, every third blob is removed again; one
    upload is refused, one dropped, and one is nobody's. What is over was so in an earlier life too."""
    blobs, tenant = store.blob_files, TenantName("t")
    known = {row.upload_id: row for row in (await store.load()).rows if isinstance(row, UploadRow)}
    await blobs.tidy(list(known))
    for number in range(1, BLOBS + 1):
        upload_id, data = UploadId(f"{number:032x}"), bytes_of(number)
        digest = Digest(blake3(data).hexdigest())
        if not await store.blobs(tenant, [digest]):
            opened = UploadRow(
                upload_id=upload_id,
                tenant=tenant,
                size=len(data),
                opened_at_ms=1,
                expires_at_ms=2,
                by="x",
                digest=digest,
            )
            await store.commit([Put(opened)])
            offset = await blobs.begin(upload_id, len(data))
            if offset:
                say("resumed", number)
            for place in range(offset, len(data), 16_000):
                await blobs.write(upload_id, place, [data[place : place + 16_000]])
                say("arrived", number)
            await blobs.finish(upload_id, tenant, digest, "")
            row = BlobRow(tenant=tenant, digest=digest, size=len(data), created_at_ms=1, touched_ms=1)
            await store.commit([Put(row), Delete("upload", upload_id), Put(await _account(store, len(data)))])
            say("published", number)
        if number % 3 == 0:
            await store.commit([Delete("blob", (tenant, digest)), Put(await _account(store, -len(data)))])
            say("forgotten", number)
            await blobs.remove([(tenant, digest)])
    for number, ends in ((101, "refused"), (102, "dropped"), (103, "forgotten")):
        await blobs.begin(f"{number:032x}", 5)
        await blobs.write(f"{number:032x}", 0, [b"wrong"])
        if ends == "refused":
            with suppress(CoordError):
                await blobs.finish(f"{number:032x}", tenant, "0" * 64, "")
        elif ends == "dropped":
            await blobs.drop(f"{number:032x}")
    await blobs.tidy([])
    say("kept")


async def _account(store: DiskStore, more: int) -> AccountRow:
    rows = await store.accounts()
    return AccountRow(tenant=TenantName("t"), month=202_611, storage=(rows[0].storage if rows else 0) + more)


STORIES = {"write": write, "lease": lease, "seal": seal, "bring": bring, "save": save, "keep": keep}


async def tell(directory: Path, failpoint: str, story: str) -> None:
    store = await DiskStore.open(DataDir(directory), StoreSettings(failpoint=failpoint))
    try:
        await STORIES[story](store)
    finally:
        await store.close()


def main() -> int:
    directory, failpoint, story = sys.argv[1:4]
    try:
        if story == "restore":
            restore(next(DataDir(Path(directory)).backups.iterdir()), Path(directory), failpoint)
        else:
            asyncio.run(tell(Path(directory), failpoint, story))
    except CoordError as error:
        say("refused", error.code.value)
        return EXIT_BROKEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
