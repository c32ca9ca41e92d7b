"""What of this machine's offer is in use, and who is started next of those that were leased ahead.

A prefetched attempt has no room of its own: it is started when those that run leave enough, in the order of the
tokens, without asking anybody. Whoever is first waits for its order to run, and everybody behind waits for it: so what
the coordinator believes to hold the room is what runs.
"""

from __future__ import annotations

from heapq import heappop, heappush

from coordinator.agent.attempt import NOTHING, Attempt
from coordinator.core.amounts import UNIT, Share
from coordinator.core.rows import LeaseToken, Resources


class LineUp:
    """`offer` is what was announced; GPUs are not counted: nobody who waits here asks for any."""

    def __init__(self, offer: Resources) -> None:
        self._cpus = round(offer.cpus * UNIT)
        self._memory = round(offer.memory_gb * 1e9)
        self._named = {name: round(amount * UNIT) for name, amount in offer.named.items()}
        self._line: list[tuple[LeaseToken, str, Attempt]] = []

    def hold(self, attempt: Attempt, share: Share, prefetched: bool) -> None:
        """A lease came: it has its room from now on, or waits for some."""
        attempt.share, attempt.in_line = share, prefetched
        if prefetched:
            heappush(self._line, (attempt.held.token, attempt.name, attempt))
        else:
            self._take(share, 1)

    def next(self, now_s: float) -> Attempt | None:
        """Whose turn it is, if it is anybody's: its room is taken."""
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

    def over(self, attempt: Attempt) -> None:
        """It has ended: its room is free, or it waits no more. Once or more often."""
        if attempt.in_line:
            attempt.in_line = False
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
