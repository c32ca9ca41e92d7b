"""What the keeper has to tell its daemon, and has not told yet.

Nothing is said before it is durable: `flush` syncs the journal once for all that a turn decided, then speaks. To a
daemon each attempt is told as a whole (`Now`), so that what could not be sent yet is merged with what came after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from coordinator.agent import channel
from coordinator.agent.attempt import Attempt
from coordinator.agent.journal import Journal

LOG_NEWS_S = 0.004
"""New lengths of a stream are told at once, but not more often than this: a program that writes byte by byte would
keep both processes busy with telling."""
SPOKEN_AGAIN_S = 0.005
"""Between two syncs of the journal, and what is told after them: an exit waits so long at most for those beside it."""
RUNS_S = 0.02
"""That a program runs is told when it has done so for this long: of a shorter one only the end is news."""
COMMIT_AGAIN_S = 1.0


class Voice(Protocol):
    """Says messages to the daemon, in their order; how many of them, the rest has to wait."""

    def __call__(self, messages: Sequence[channel.ToDaemon]) -> int: ...


class Telling:
    """Of the attempts that are held: `attempts` is the holder's, and is only read."""

    def __init__(self, journal: Journal, attempts: Mapping[str, Attempt]) -> None:
        self._journal = journal
        self._attempts = attempts
        self._changed: dict[str, None] = {}
        """Attempts whose standing the daemon does not know yet, in their order."""
        self._grown: dict[str, None] = {}
        """The same for new lengths of streams alone."""
        self._begun: dict[str, float] = {}
        """Those that run, and nobody knows it: when that is told."""
        self._queue: list[channel.No | channel.Told | channel.Leave] = []
        self._grown_at_s = 0.0
        self._spoke_at_s = 0.0
        self._commit_at_s = 0.0

    def changed(self, name: str) -> None:
        """It stands otherwise than was told."""
        self._begun.pop(name, None)
        self._changed[name] = None

    def begun(self, name: str, now_s: float) -> None:
        """It runs from now on."""
        if name not in self._changed:
            self._begun[name] = now_s + RUNS_S

    def grown(self, name: str) -> None:
        """It wrote something."""
        self._grown[name] = None

    def forget(self, name: str) -> None:
        """It is held no more."""
        self._changed.pop(name, None)
        self._grown.pop(name, None)
        self._begun.pop(name, None)

    def say(self, message: channel.No | channel.Told | channel.Leave) -> None:
        self._queue.append(message)

    def anew(self) -> None:
        """To a daemon that knows nothing: everything, then that this was everything."""
        self._queue.clear()
        self._grown.clear()
        self._begun.clear()
        self._changed = dict.fromkeys(self._attempts)
        self._queue.append(channel.Told())

    def due_s(self) -> float:
        """When `flush` has something to do."""
        due_s = self._spoke_at_s + SPOKEN_AGAIN_S if self._changed or self._queue else math.inf
        if self._grown:
            due_s = min(due_s, self._grown_at_s + LOG_NEWS_S)
        if self._begun:
            due_s = min(due_s, next(iter(self._begun.values())))
        return min(due_s, self._commit_at_s) if self._commit_at_s else due_s

    def flush(self, say: Voice, now_s: float) -> bool:
        """Make durable, then tell. True: something is left that the daemon had no room for."""
        while self._begun and next(iter(self._begun.values())) <= now_s:
            self.changed(next(iter(self._begun)))
        if (self._changed or self._queue) and now_s < self._spoke_at_s + SPOKEN_AGAIN_S:
            return False
        if not self._journal.commit():
            self._commit_at_s = now_s + COMMIT_AGAIN_S
            return False
        self._commit_at_s = 0.0
        if self._changed or self._queue:
            self._spoke_at_s = now_s
        if self._changed:
            changed = [self._attempts[name] for name in self._changed]
            for attempt in changed:
                attempt.saved = attempt.exit is not None
            said = say([now_of(attempt) for attempt in changed])
            for attempt in changed[:said]:
                self.forget(attempt.name)
            if said < len(changed):
                return True
        if self._queue:
            said = say(self._queue)
            del self._queue[:said]
            if self._queue:
                return True
        if self._grown and now_s >= self._grown_at_s + LOG_NEWS_S:
            self._grown_at_s = now_s
            grown = list(self._grown)
            said = say([now_of(self._attempts[name]) for name in grown])
            for name in grown[:said]:
                del self._grown[name]
            return said < len(grown)
        return False


def now_of(attempt: Attempt) -> channel.Now:
    out_bytes, err_bytes = attempt.sizes()
    return channel.Now(
        attempt=attempt.name,
        rank=attempt.held.rank,
        token=attempt.held.token,
        phase=attempt.phase,
        directory=attempt.place.kept,
        freeze_at_s=attempt.freeze_at_s,
        out_bytes=out_bytes,
        err_bytes=err_bytes,
        out_stored=attempt.stored[0],
        err_stored=attempt.stored[1],
        exit=attempt.exit,
        user=attempt.user,
        began_s=attempt.began_s,
        untouched=attempt.untouched,
    )
