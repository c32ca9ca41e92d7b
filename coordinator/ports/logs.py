"""What the service asks of stored logs of attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from coordinator.core.ids import AttemptId, JobId, Ms


class LogKey(NamedTuple):
    """One stream of one rank. `stream` indexes wire.STREAMS."""

    attempt_id: AttemptId
    rank: int
    stream: int


class LogMark(NamedTuple):
    """What arrived when: `length` bytes of `stream` at `offset`. The order of both streams as they came."""

    at_ms: Ms
    stream: int
    offset: int
    length: int


class LogWrite(NamedTuple):
    """Bytes to be appended. They lie at `offset`, which is the stream's length or (a repetition) below it."""

    key: LogKey
    offset: int
    data: bytes
    at_ms: Ms


class Logs(Protocol):
    """Stored logs: plain files, byte for byte. A power cut takes nothing that `append` returned for.

    Raises CoordError(STORE_FULL) on a full disk: nothing of that call counts.
    """

    async def append(self, writes: Sequence[LogWrite]) -> dict[LogKey, int]:
        """Store them all, synced, and return the new length of each stream. Bytes below a stream's length are known
        already and skipped; a write beyond it (a gap) is ignored, and the length returned tells where to go on."""
        ...

    async def length(self, key: LogKey) -> int: ...

    async def read(self, key: LogKey, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`; empty at the end."""
        ...

    async def marks(self, attempt_id: AttemptId, rank: int, after: int, limit: int) -> list[LogMark]:
        """The arrivals from number `after` (0: the first) on, oldest first."""
        ...

    async def marks_count(self, attempt_id: AttemptId, rank: int) -> int: ...

    async def since(self, attempt_id: AttemptId, rank: int, at_ms: Ms) -> int:
        """The number of the first mark at or after `at_ms`."""
        ...

    async def remove(self, job_id: JobId) -> None:
        """Every log of this job."""
        ...
