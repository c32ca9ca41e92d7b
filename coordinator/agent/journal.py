"""What the keeper must not forget: leases held, exits not yet settled, and the tokens that fence them.

One file, appended to, synced once for everything that a turn decided. A file per attempt would cost four syncs each,
where one pays for a hundred attempts. It never holds more than it needs for long: it is written anew when most of it
is history.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator.agent.exits import AgentStop, Exit
from coordinator.agent.log import logger
from coordinator.core.rows import ExitInfo, LeaseToken

TASKS_REMEMBERED = 10_000
"""Tasks whose highest token is kept. A grant of an older task could come from nothing but a restored coordinator, and
that one's generation is refused for ever."""
USERS = 65_536
"""User ids that one agent has for its attempts, given out in turn."""
REWRITE_BYTES = 1 << 20
BALLAST_BYTES = 256 * 1024
"""Given back to a full disk, so that exits can still be written."""


class Held(Struct, frozen=True, kw_only=True, tag="held"):
    """A lease is held."""

    attempt: str
    rank: int
    token: LeaseToken
    place: int
    """Number of its directories."""
    user: int = 0
    """Number of the user id that was made for it, counted from 1; 0: it has none of its own."""


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """No process of it is left."""

    attempt: str
    exit: ExitInfo


class Forgotten(Struct, frozen=True, kw_only=True, tag="forgotten"):
    """It is settled, nothing of it is kept."""

    attempt: str


class Fences(Struct, frozen=True, kw_only=True, tag="fences"):
    """The head of a journal: what was seen before it."""

    generation: int = 0
    tokens: dict[str, LeaseToken] = {}
    users: int = 0
    """How many user ids were given out, ever."""


Record = Held | Ended | Forgotten | Fences
_DECODER: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_ENCODER = msgspec.json.Encoder()


def task_of(attempt: str) -> str:
    return attempt.rpartition(".")[0]


class Journal:
    """The file, and what it says. Nothing that was `add`ed may be acted upon before `commit` returned True."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "attempts.journal"
        self._ballast = directory / "ballast"
        self.held: dict[str, Held] = {}
        self.exits: dict[str, ExitInfo] = {}
        self._generation = 0
        self._tokens: OrderedDict[str, LeaseToken] = OrderedDict()
        self._users = 0
        self._in_use: set[int] = set()
        """User ids of attempts that are held, as numbers below USERS."""
        self._pending: list[bytes] = []
        self._must_sync = False
        self._broken = False
        self._size = 0
        self._fd = -1
        self._live_bytes = 0
        self._read()
        if not self._rewrite():
            self._yield_ballast()
            if not self._rewrite():
                raise AgentStop(Exit.DISK, f"{self._path} cannot be written", "make room on its disk")
        self._lay_ballast()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- reading

    def _read(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in content.split(b"\n")[:-1]:  # a line without its end was never acknowledged
            try:
                self._apply(_DECODER.decode(line))
            except msgspec.DecodeError:
                logger.error("a record of %s cannot be read and is left out: %r", self._path, line[:200])

    def _apply(self, record: Record) -> None:
        match record:
            case Held():
                self.held[record.attempt] = record
                self._see(record.attempt, record.token)
                self._users = max(self._users, record.user)
                if record.user:
                    self._in_use.add(record.user % USERS)
            case Ended():
                if record.attempt in self.held:
                    self.exits[record.attempt] = record.exit
            case Forgotten():
                held = self.held.pop(record.attempt, None)
                if held is not None and held.user:
                    self._in_use.discard(held.user % USERS)
                self.exits.pop(record.attempt, None)
            case Fences():
                self._generation = max(self._generation, record.generation)
                self._users = max(self._users, record.users)
                for task, token in record.tokens.items():
                    self._see(task + ".0", token)

    def _see(self, attempt: str, token: LeaseToken) -> None:
        task = task_of(attempt)
        self._generation = max(self._generation, token.generation)
        self._tokens[task] = max(token, self._tokens.get(task, token))
        self._tokens.move_to_end(task)
        if len(self._tokens) > TASKS_REMEMBERED:
            self._tokens.popitem(last=False)

    # ---- asking

    def why_stale(self, attempt: str, token: LeaseToken) -> str:
        """Why this token is refused; empty: it is not."""
        if token.generation < self._generation:
            return f"generation {token.generation} is over: {self._generation} was seen"
        seen = self._tokens.get(task_of(attempt))
        if seen is not None and token < seen:
            return f"a newer token of task {task_of(attempt)} was seen ({seen.number} after {token.number})"
        return ""

    def next_user(self) -> int:
        """The number of the next user id to give out. It rises also when earlier ones are free again, so that what
        one attempt left behind outside of its directory is not soon another's; an id that is in use is left out."""
        number = self._users + 1
        while number % USERS in self._in_use:
            number += 1
        return number

    # ---- writing

    def add(self, record: Held | Ended | Forgotten) -> None:
        self._pending.append(_ENCODER.encode(record) + b"\n")
        self._must_sync = self._must_sync or not isinstance(record, Forgotten)
        self._apply(record)

    def commit(self) -> bool:
        """Make durable what was added. False: it is not, and stays to be tried again. One sync at most."""
        if self._broken:
            return self._rewrite()
        if not self._pending:
            return True
        data = b"".join(self._pending)
        try:
            self._write(self._fd, data)
            if self._must_sync:
                os.fdatasync(self._fd)
        except OSError as error:
            logger.error("%s cannot be written: %s", self._path, error.strerror)
            self._broken = True  # what reached the file is not known: it is written anew, as a whole
            self._yield_ballast()
            return self._rewrite()
        self._pending.clear()
        self._must_sync = False
        self._size += len(data)
        if self._size > REWRITE_BYTES and self._size > 4 * self._live_bytes:
            self._rewrite()
            self._lay_ballast()
        return True

    @staticmethod
    def _write(fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def _rewrite(self) -> bool:
        """Write everything that counts into a new file in the place of the old one."""
        lines = [_ENCODER.encode(Fences(generation=self._generation, tokens=dict(self._tokens), users=self._users))]
        for attempt, held in self.held.items():
            lines.append(_ENCODER.encode(held))
            if attempt in self.exits:
                lines.append(_ENCODER.encode(Ended(attempt=attempt, exit=self.exits[attempt])))
        lines.append(b"")
        data = b"\n".join(lines)
        fresh = self._path.with_suffix(".new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                self._write(fd, data)
                os.fsync(fd)
                fresh.replace(self._path)
                place = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(place)
                finally:
                    os.close(place)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            logger.error("%s cannot be written: %s", fresh, error.strerror)
            self._broken = True
            return False
        self.close()
        self._fd, self._size, self._live_bytes = fd, len(data), len(data)
        self._pending.clear()
        self._must_sync = self._broken = False
        return True

    # ---- what a full disk is paid with

    def _lay_ballast(self) -> None:
        try:
            fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, BALLAST_BYTES)
            finally:
                os.close(fd)
        except OSError:
            self._yield_ballast()  # half of one helps nobody

    def _yield_ballast(self) -> None:
        with contextlib.suppress(OSError):
            self._ballast.unlink()
