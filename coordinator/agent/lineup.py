"""What of this machine's offer is in use, and who is started next of those that were leased ahead.

A prefetched attempt has no room of its own: it is started when those that run leave enough, in the order of the
tokens, without asking anybody. Whoever is first waits for its order to run, and everybody behind waits for it: so what
the coordinator believes to hold the room is what runs. Only those whose orders wait at starters, and that ask for the
same, may overtake each other by a few: each starter knows its own.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count

from coordinator.agent.attempt import NOTHING, Attempt
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.rows import LeaseToken, Resources

KINDS_MAX = 256
"""Different shares that are told apart at once."""


class LineUp:
    """`offer` is what was announced; GPUs are not counted: nobody who waits here asks for any."""

    def __init__(self, offer: Resources) -> None:
        self._cpus = round(offer.cpus * UNIT)
        self._memory = round(offer.memory_gb * 1e9)
        self._named = {name: round(amount * UNIT) for name, amount in offer.named.items()}
        self._line: list[tuple[LeaseToken, str, Attempt]] = []
        self._ahead: deque[Attempt] = deque()
        """Those whose orders wait at starters: they stand before everybody else."""
        self._kinds: dict[Ask, int] = {}
        self._numbers = count(1)

    def hold(self, attempt: Attempt, share: Share, prefetched: bool) -> None:
        """A lease came: it has its room from now on, or waits for some."""
        attempt.share, attempt.in_line = share, prefetched
        if prefetched:
            heappush(self._line, (attempt.held.token, attempt.name, attempt))
        else:
            self._take(share, 1)

    def next(self, now_s: float) -> Attempt | None:
        """Whose turn it is, if it is anybody's: its room is taken."""
        while self._ahead:
            first = self._ahead[0]
            if not first.follows or first.recalled:
                self._ahead.popleft()
                continue
            if not self._fits(first.share):
                return None
            self._ahead.popleft()
            self.turn(first)
            return first
        while self._line:
            _, _, first = self._line[0]
            if first.in_line:
                if not first.wanted or now_s >= first.freeze_at_s or not self._fits(first.share):
                    return None
                first.in_line = False
                self._take(first.share, 1)
                heappop(self._line)
                return first
            heappop(self._line)  # it was ended where it stood
        return None

    def ahead(self, now_s: float) -> Attempt | None:
        """Who is next in line and could wait at a starter for the room of its like."""
        while self._line:
            _, _, first = self._line[0]
            if first.in_line:
                return first if first.wanted and now_s < first.freeze_at_s else None
            heappop(self._line)
        return None

    def follow(self, first: Attempt) -> None:
        """The next in line, whose order waits at a starter."""
        heappop(self._line)
        first.follows = True
        self._ahead.append(first)

    def turn(self, attempt: Attempt) -> None:
        """One that waited at a starter has its room."""
        if attempt.in_line:
            attempt.in_line = attempt.follows = False
            self._take(attempt.share, 1)

    def returned(self, attempt: Attempt) -> None:
        """Nobody begins it without being told so again: it stands where its token says."""
        if attempt.in_line:
            heappush(self._line, (attempt.held.token, attempt.name, attempt))

    def kind(self, share: Share) -> int:
        """The number of all shares that are like this one: one of them has room where another had it. 0: it is like no
        other."""
        if share.gpus:
            return 0
        if len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()  # numbers are not used again
        known = self._kinds.get(share.ask)
        if known is None:
            known = self._kinds[share.ask] = next(self._numbers)
        return known

    def over(self, attempt: Attempt) -> None:
        """It has ended: its room is free, or it waits no more. Once or more often."""
        if attempt.in_line:
            attempt.in_line = attempt.follows = False
        else:
            self._take(attempt.share, -1)
        attempt.share = NOTHING

    def _fits(self, share: Share) -> bool:
        ask = share.ask
        if (ask.cpus and ask.cpus > self._cpus) or (ask.memory and ask.memory > self._memory):
            return False
        return all(amount <= self._named.get(name, 0) for name, amount in ask.named if amount)

    def _take(self, share: Share, sign: int) -> None:
        ask = share.ask
        self._cpus -= sign * ask.cpus
        self._memory -= sign * ask.memory
        for name, amount in ask.named:
            self._named[name] = self._named.get(name, 0) - sign * amount
