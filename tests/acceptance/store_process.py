"""A process that writes to a store and says what is durable, to be killed by the test that started it.

    python -m tests.acceptance.store_process DIRECTORY FAILPOINT STORY

Every line on standard output is an acknowledgement: it is printed after the call that it speaks of returned.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from coordinator.core.commands import Put
from coordinator.core.errors import CoordError
from store.durable import DiskStore
from store.layout import DataDir
from store.restore import restore
from store.settings import StoreSettings
from tests.conformance.homes import DAY_MS, HOUR_MS, NOON_MS, a_beat, a_provider, a_session, imported

ROUNDS = 40
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


STORIES = {"write": write, "seal": seal, "bring": bring, "save": save}


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
