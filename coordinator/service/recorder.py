"""The recorder keeps recent events in memory, with the state they began from, so that an incident replays.

Nothing is written while all is well. A dump holds, as length-prefixed MessagePack: a header, the state's
image, then every event with the CRC-32 of the decision that followed. Secrets never enter the core, so
none is in here.
"""

from __future__ import annotations

import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.errors import Code, CoordError
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState

log = logging.getLogger("coord.recorder")

FORMAT = 7
ENTRIES_MAX = 10_000
"""Providers, attempts and steps of jobs of a state that an image is taken of: some 60 ms and 9 MB."""
LOOK_AGAIN = 20_000
"""Events until a state that was too large is looked at again."""
NOTED_MAX = 4
"""Decided events that wait to be encoded: a lone one is when its answer has left."""
SAMPLED_FROM, SAMPLED = 256, 15
"""Of a decision with more writes, or sends, than that every fifteenth of these counts. To encode all of a Place would
cost a tenth of deciding it."""
_LENGTH = struct.Struct(">I")


class Header(Struct, frozen=True, kw_only=True):
    """The first record of a dump."""

    format: int
    why: str
    recorded_at_ms: int
    policy: Policy


class Recorded(Struct, frozen=True, gc=False):
    """One event and what it led to; `decision_crc` is None where deciding failed."""

    event: events.AnyEvent
    decision_crc: int | None


class Replayed(Struct, frozen=True, kw_only=True):
    """How a replay went: `diverged_at` is the index of the first event that led to something else."""

    events: int
    diverged_at: int | None
    failed_at: int | None
    why: str


_encoder = msgspec.msgpack.Encoder(enc_hook=lambda value: _plain(value))


def _entries(state: ClusterState) -> int:
    steps = sum(len(job.steps) for job in state.work.jobs.values())
    return len(state.providers) + len(state.work.attempts) + steps


def _plain(value: object) -> object:
    if isinstance(value, CoordError):
        return (value.code.value, value.message, value.hint)
    raise TypeError(f"a decision holds a {type(value).__name__}")


def decision_crc(decision: commands.Decision) -> int:
    """CRC-32 of a decision's encoding: equal decisions have equal ones. Of notes only how many there are: they tell of
    the rows that are written, and their encoding would cost as much again. Of hundreds of writes and sends some: their
    audit rows are numbered, so that whatever differs before them shows in them."""
    writes, sends = decision.writes, decision.sends
    counts = len(writes), len(sends), len(decision.notes)
    if len(writes) > SAMPLED_FROM:
        writes = writes[::SAMPLED]
    if len(sends) > SAMPLED_FROM:
        sends = sends[::SAMPLED]
    told = [_told(send) for send in sends]
    return zlib.crc32(_encoder.encode(([_written(write) for write in writes], decision.replies, told, counts)))


def _written(write: commands.Write) -> object:
    """What is compared of a write. Of rows that are put together the ends: what differs between has other numbers
    there, or is in the orders that go with them."""
    match write:
        case commands.FirstLeases():
            return write.tenant, write.seq, write.wall_ns, write.mono_ns, write.tasks[0], write.attempts[-1]
        case commands.Launched():
            return write.tenant, write.seq, write.wall_ns, write.mono_ns, write.attempts[0], write.attempts[-1]
        case commands.Ended():
            return write.tenant, write.seq, write.wall_ns, write.mono_ns, write.tasks[0], write.attempts[-1]
        case _:
            return write


def _told(send: commands.Send) -> object:
    """What is compared of a send. An order to launch names its step whole, which is the state's and the same for all
    its tasks: to encode that with each would cost as much as all else."""
    message = send.message
    match message:
        case commands.Launch():
            return send.conn_id, message.attempt_id, message.rank, message.token, message.share, message.nodes
        case commands.Launches(leases=leases, like=like):  # of any tasks; a token is of one attempt alone
            return send.conn_id, leases[0], [token.number for _, token in leases], like.share, like.nodes
        case commands.Settlements(leases=leases):
            return send.conn_id, [token.number for _, token in leases]
        case commands.Grants():
            return (
                send.conn_id,
                message.leases[0],
                message.leases[-1],
                len(message.leases),
                message.share,
                message.prefetched,
            )
        case _:
            return send


class Recorder:
    """Two generations of events, each behind an image of the state, in at most about twice `bytes_max` bytes.

    With `bytes_max` 0 nothing is kept. An image is taken anew once the events since the last one outweigh it
    several times, so that its cost stays a small share. Of a state so large that its image would hold the loop up, or
    outweigh `bytes_max`, nothing is recorded until it is smaller.
    """

    def __init__(self, directory: Path, bytes_max: int = 16 * 1024 * 1024, dumps_max: int = 8) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._dumps_max = dumps_max
        self._policy = Policy()
        self._state: ClusterState | None = None
        self._now: list[bytes] = []
        self._now_bytes = 0
        self._before: list[bytes] = []
        self._noted: list[tuple[events.AnyEvent, commands.Decision | None]] = []
        """Not encoded yet."""
        self._idle = 0
        """So many events go by until the state is looked at again."""

    def begin(self, state: ClusterState, policy: Policy) -> None:
        """Start over from this state: it was loaded, or loaded again."""
        self._state, self._policy = state, policy
        self._before, self._noted = [], []
        self._take_image()

    def _take_image(self) -> None:
        self._now = []
        self._now_bytes = 0
        if not self._bytes_max or self._state is None:
            return
        image = b""
        if _entries(self._state) <= ENTRIES_MAX:
            try:
                image = _encoder.encode(image_of(self._state))
            except OverflowError:
                log.exception("the state cannot be recorded")
        if image and len(image) <= self._bytes_max:
            self._now.append(image)
        else:
            self._before = []
            self._idle = LOOK_AGAIN

    def note(self, event: events.AnyEvent, decision: commands.Decision | None) -> None:
        """Keep one event. Called after it was decided, before the next. Nothing of either may change until `settle`,
        which comes with the NOTED_MAXth at the latest."""
        if not self._bytes_max:
            return
        if self._idle:
            self._idle -= 1
            if not self._idle:
                self._take_image()
            return
        self._noted.append((event, decision))
        if len(self._noted) >= NOTED_MAX:
            self.settle()

    @property
    def behind(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._noted)

    def settle(self) -> None:
        """Encode what was noted. Not while something is decided: an image that is due is of the state behind it all."""
        noted, self._noted = self._noted, []
        for event, decision in noted:
            try:
                crc = decision_crc(decision) if decision is not None else None
                record = _encoder.encode(Recorded(event, crc))
            except OverflowError:  # a number beyond 64 bits: nobody is stopped by what only watches
                log.exception("an event cannot be recorded: %s", type(event).__name__)
                self._now, self._before, self._now_bytes = [], [], 0
                self._idle = LOOK_AGAIN
                return
            self._now.append(record)
            self._now_bytes += len(record)
        if noted and self._now_bytes > min(self._bytes_max // 2, max(self._bytes_max // 4, 8 * len(self._now[0]))):
            self._before = self._now
            self._take_image()

    def dump(self, why: str) -> Path | None:
        """Write both generations (each is a file that replays by itself) and return the newer one's path."""
        self.settle()
        if len(self._now) < 2 and not self._before:
            return None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        newest = None
        for name, records in (("before", self._before), ("now", self._now)):
            if len(records) > 1:
                newest = self._write(f"{stamp}-{os.getpid()}-{name}.rec", records, why)
        for old in sorted(self._directory.glob("*.rec"))[: -self._dumps_max]:
            old.unlink(missing_ok=True)
        return newest

    def _write(self, name: str, records: list[bytes], why: str) -> Path:
        path = self._directory / name
        header = Header(
            format=FORMAT, why=why, recorded_at_ms=self._state.now_ms if self._state else 0, policy=self._policy
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for record in (_encoder.encode(header), *records):
                file.write(_LENGTH.pack(len(record)))
                file.write(record)
        return path


def read_dump(path: Path) -> tuple[Header, StateImage, list[Recorded]]:
    """The parts of a dump. CoordError(BAD_REQUEST) when it is not one; a torn last record is left out."""
    records = list(_records(path))
    try:
        header = msgspec.msgpack.decode(records[0], type=Header)
        image = msgspec.msgpack.decode(records[1], type=StateImage)
        recorded = [msgspec.msgpack.decode(record, type=Recorded) for record in records[2:]]
    except (IndexError, msgspec.DecodeError) as error:
        raise CoordError(
            Code.BAD_REQUEST, f"{path} is no recording of this version: {error}", "name a .rec file"
        ) from error
    return header, image, recorded


def _records(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while len(prefix := file.read(_LENGTH.size)) == _LENGTH.size:
            record = file.read(_LENGTH.unpack(prefix)[0])
            if len(record) < _LENGTH.unpack(prefix)[0]:
                return
            yield record


Tell = Callable[[events.AnyEvent, commands.Decision], None]


def replay(path: Path, tell: Tell = lambda event, decision: None) -> Replayed:
    """Decide a dump's events again from its image and compare every decision; `tell` hears of each."""
    header, image, recorded = read_dump(path)
    state = state_of(image)
    for index, record in enumerate(recorded):
        try:
            decision = decide(state, record.event, header.policy)
        except Exception:
            if record.decision_crc is not None:
                raise
            return Replayed(events=index + 1, diverged_at=None, failed_at=index, why=header.why)
        tell(record.event, decision)
        if decision_crc(decision) != record.decision_crc:
            return Replayed(events=index + 1, diverged_at=index, failed_at=None, why=header.why)
    return Replayed(events=len(recorded), diverged_at=None, failed_at=None, why=header.why)
