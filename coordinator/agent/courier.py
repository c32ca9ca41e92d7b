"""Snapshots of one attempt on their way: sent, then published. What waits gives way to what was taken after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from coordinator import wire_data
from coordinator.agent import beneath
from coordinator.agent.asking import Asking, Refused, Stale, Whose
from coordinator.agent.clock import boot_s
from coordinator.agent.log import logger
from coordinator.agent.sending import Changed, Sending
from coordinator.agent.snapshots import Snapshot
from coordinator.agent.spool import Spool
from coordinator.agent.trace_rows import Traced, Value, nobody, timed


class Saved(Struct, frozen=True, kw_only=True):
    """A checkpoint, as the program that asked for it is told."""

    number: int | None
    """None: it is being sent."""
    size: int
    """Bytes of all its files."""
    sent: int
    """Bytes that had to travel."""


class NotSaved(Exception):
    """There is none; the text says why."""


class Means(NamedTuple):
    """What all savers share."""

    asking: Asking
    sending: Sending
    spool: Spool
    traced: Traced = nobody


class _Outcome:
    """What became of a snapshot, or of the one that took its place; and who waits for that."""

    def __init__(self) -> None:
        self._is: Saved | Exception | None = None
        self._known = asyncio.Event()

    def tell(self, outcome: Saved | Exception) -> None:
        self._is = outcome
        self._known.set()

    async def told(self) -> Saved:
        """Raises what it failed with."""
        await self._known.wait()
        assert self._is is not None
        if isinstance(self._is, Exception):
            raise self._is
        return self._is


class Pending(NamedTuple):
    """A snapshot on its way."""

    snapshot: Snapshot
    label: str
    whole_s: float
    """On CLOCK_BOOTTIME: what its program did until then is in it."""
    outcome: _Outcome


class Courier:
    """Of one attempt. `on_saved`: this one counts, and the next is due after so long (None: when the program takes one
    itself). `on_failed`: it was not stored, and why."""

    def __init__(
        self,
        whose: Whose,
        means: Means,
        on_saved: Callable[[Snapshot, int | None], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._whose = whose
        self._means = means
        self._on_saved = on_saved
        self._on_failed = on_failed
        self._waiting: Pending | None = None
        self._sending: Pending | None = None
        self._news = asyncio.Event()
        self._over = False
        """Nobody sends any more."""
        self.idle = asyncio.Event()
        """Nothing waits, and nothing is being sent."""
        self.idle.set()

    def put(self, taken: Snapshot, label: str, whole_s: float) -> Pending:
        """Have it sent, instead of one that still waits for that. Raises NotSaved; then it is closed."""
        if self._over:
            taken.close()
            raise NotSaved("the attempt has ended")
        before = self._waiting
        pending = Pending(taken, label, whole_s, before.outcome if before is not None else _Outcome())
        if before is not None:
            asyncio.get_running_loop().run_in_executor(None, before.snapshot.close)
        self._waiting = pending
        self.idle.clear()
        self._news.set()
        return pending

    async def run(self) -> None:
        """Send what is put, for ever. Raises Stale when the attempt is not ours any more."""
        while True:
            await self._news.wait()
            self._news.clear()
            pending, self._waiting = self._waiting, None
            if pending is None:
                continue
            self._sending = pending
            try:
                await self._publish(pending)
            except Stale:
                pending.outcome.tell(NotSaved("the attempt is not ours any more"))
                raise
            except (Refused, Changed, OSError, beneath.Unsafe) as error:
                why = f"a checkpoint was not stored: {error}"
                self._on_failed(why)
                logger.warning("%s: %s", self._whose.attempt, why)
                pending.outcome.tell(NotSaved(why))
            finally:
                self._sending = None
                await _close(pending.snapshot)
            if self._waiting is None:
                self.idle.set()

    async def _publish(self, pending: Pending) -> None:
        taken = pending.snapshot
        whole: dict[str, Value] = {"coord.label": pending.label, "coord.bytes": taken.size}
        what = f"checkpoint {taken.manifest}"
        with timed(self._means.traced, self._whose, what, "save checkpoint", "network", whole) as said:
            sent = said["coord.bytes.sent"] = await self._means.sending.send(self._whose, taken.parcels)
        now_s = boot_s()
        answer = await self._means.asking.checkpoint(
            self._whose,
            wire_data.CheckpointRequest(
                rank=self._whose.rank,
                token=self._whose.token,
                manifest=taken.manifest,
                sent=sent,
                age_ms=int((now_s - pending.whole_s) * 1000),
                cost_ms=int((now_s - taken.began_s) * 1000),
                label=pending.label,
            ),
        )
        logger.info("checkpoint %d of %s: %d bytes, %d sent", answer.number, self._whose.attempt, taken.size, sent)
        self._on_saved(taken, answer.next_ms)
        pending.outcome.tell(Saved(number=answer.number, size=taken.size, sent=sent))

    def end(self) -> None:
        """`run` has ended: nothing of it is sent any more."""
        self._over = True
        for pending in (self._waiting, self._sending):
            if pending is not None:
                pending.outcome.tell(NotSaved("the attempt has ended"))
        if self._waiting is not None:
            self._waiting.snapshot.close()
            self._waiting = None
        self.idle.set()


def boot_of(changed_ns: int, latest_s: float) -> float:
    """When a file changed, on CLOCK_BOOTTIME; `latest_s` at most, whatever the wall clock did since."""
    return min(latest_s, boot_s() - max(0, time.time_ns() - changed_ns) / 1e9)


async def _close(snapshot: Snapshot) -> None:
    """In a thread, also when we are cancelled before it began."""
    await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, snapshot.close))
