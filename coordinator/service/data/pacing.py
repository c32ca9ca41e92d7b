"""One direction of a link, shared: a token bucket for all of it, one for each tenant that has a rate of its own, and
the order in which pieces go. Pure: the time comes in, nothing waits here.

Between tenants start-time fair queueing (Goyal, Vin and Cheng 1996): a piece of n bytes gets the start tag
max(virtual time, its tenant's last finish tag) and finishes n / weight later; the eligible piece with the lowest start
tag goes first. Whoever has been away gains nothing by it but a tenth of a second, and whoever sends ten times as much
gets no more. O(tenants) a piece.
"""

from __future__ import annotations

import math
from collections import deque

from msgspec import Struct, field

BURST_S = 0.2
"""What a bucket may hold: a burst of 120 % over one second."""


class Piece(Struct, eq=False, kw_only=True):
    """Bytes that want to go, or on ingress bytes that were let into the spill area and are not paid for yet."""

    tenant: str
    size: int
    start: float
    """Its start tag."""
    spilled: bool = False
    gone: bool = False
    """It went, or nobody wants it any more."""


class Bucket:
    """Tokens are bytes. A piece may overdraw it: the next one waits until it is above zero again."""

    def __init__(self, rate: float, now_s: float) -> None:
        self.rate = rate
        self._tokens = rate * BURST_S
        self._at_s = now_s

    def tokens(self, now_s: float) -> float:
        if now_s > self._at_s:
            self._tokens = min(self.rate * BURST_S, self._tokens + (now_s - self._at_s) * self.rate)
            self._at_s = now_s
        return self._tokens

    def take(self, size: int, now_s: float) -> None:
        self._tokens = self.tokens(now_s) - size

    def ready_s(self, now_s: float) -> float:
        """When a piece may go."""
        short = -self.tokens(now_s)
        return now_s if short < 0 else now_s + short / self.rate + 1e-6

    def change(self, rate: float, now_s: float) -> None:
        self.tokens(now_s)
        self.rate = rate


class _Queue(Struct, kw_only=True):
    weight: float
    bucket: Bucket | None
    finish: float = 0.0
    waiting: deque[Piece] = field(default_factory=deque)
    """With some that are gone."""
    pieces: int = 0
    size: int = 0
    """Of those in line that are not gone: how many, and their bytes."""


class FairLink:
    """`rate` in bytes a second; 0: as fast as it goes, and only tenants with a rate of their own ever wait."""

    def __init__(self, rate: float, now_s: float) -> None:
        self._link = Bucket(rate, now_s) if rate > 0 else None
        self._queues: dict[str, _Queue] = {}
        self._virtual = 0.0
        self.waiting_bytes = 0
        self.spilled_bytes = 0

    def __len__(self) -> int:
        """Tenants that are known."""
        return len(self._queues)

    @property
    def rate(self) -> float:
        """Of the whole link; 0: unbounded."""
        return self._link.rate if self._link is not None else 0.0

    def know(self, tenant: str, weight: float, rate: float, now_s: float) -> None:
        """How much of the link is this tenant's when others want it, and what it never gets more than (0: no bound)."""
        queue = self._queues.get(tenant)
        if queue is None:
            self._queues[tenant] = _Queue(weight=weight, bucket=Bucket(rate, now_s) if rate > 0 else None)
            return
        queue.weight = weight
        if rate <= 0:
            queue.bucket = None
        elif queue.bucket is None:
            queue.bucket = Bucket(rate, now_s)
        else:
            queue.bucket.change(rate, now_s)

    def ask(self, tenant: str, size: int) -> Piece:
        """A piece that wants to go. It goes with an `advance`: the next one, when it is its turn then."""
        queue = self._queues[tenant]
        start = max(self._virtual - self._slack(), queue.finish)
        queue.finish = start + size / queue.weight
        piece = Piece(tenant=tenant, size=size, start=start)
        queue.waiting.append(piece)
        queue.pieces += 1
        queue.size += size
        self.waiting_bytes += size
        return piece

    def _slack(self) -> float:
        """How far behind the virtual time a tenant may come and still be in its place: who has one piece in line at a
        time asks for the next one a moment after the last one went, and others' may have gone in that moment."""
        return self._link.rate * BURST_S / 2 if self._link is not None else 0.0

    def spill(self, piece: Piece) -> None:
        """Its bytes are taken already; it stays in line until they are paid for."""
        piece.spilled = True
        self.spilled_bytes += piece.size

    def forget(self, piece: Piece) -> None:
        """Nobody wants it any more. One that waits leaves its place; what it would have cost is not charged."""
        if not piece.gone:
            self._leave(piece)

    def _leave(self, piece: Piece) -> None:
        piece.gone = True
        queue = self._queues[piece.tenant]
        queue.pieces -= 1
        queue.size -= piece.size
        self.waiting_bytes -= piece.size
        if piece.spilled:
            self.spilled_bytes -= piece.size

    def advance(self, now_s: float) -> list[Piece]:
        """Let go what may: those, in their order."""
        went: list[Piece] = []
        while self._link is None or self._link.tokens(now_s) > 0:
            queue = self._first(now_s)
            if queue is None:
                break
            piece = queue.waiting.popleft()
            self._virtual = max(self._virtual, piece.start)
            for bucket in (self._link, queue.bucket):
                if bucket is not None:
                    bucket.take(piece.size, now_s)
            self._leave(piece)
            went.append(piece)
        return went

    def _first(self, now_s: float) -> _Queue | None:
        """Whose turn it is: the lowest start tag among the tenants whose own bucket has tokens."""
        best: _Queue | None = None
        for queue in self._queues.values():
            while queue.waiting and queue.waiting[0].gone:
                queue.waiting.popleft()
            if not queue.waiting or (queue.bucket is not None and queue.bucket.tokens(now_s) <= 0):
                continue
            if best is None or queue.waiting[0].start < best.waiting[0].start:
                best = queue  # equal tags: who was known first
        return best

    def next_s(self, now_s: float) -> float:
        """When `advance` has something to do next; infinity when nothing waits."""
        ready_s = math.inf
        for queue in self._queues.values():
            if queue.pieces:
                ready_s = min(ready_s, queue.bucket.ready_s(now_s) if queue.bucket is not None else now_s)
        return ready_s if self._link is None else max(ready_s, self._link.ready_s(now_s))

    def behind(self, tenant: str) -> int:
        """Bytes of this tenant that wait or are spilled. O(1)."""
        queue = self._queues.get(tenant)
        return queue.size if queue is not None else 0

    def pieces(self, tenant: str) -> int:
        """How many pieces they are."""
        queue = self._queues.get(tenant)
        return queue.pieces if queue is not None else 0

    def drained_s(self, tenant: str) -> float:
        """How long what waits of this tenant takes at its share of the link, about."""
        queue = self._queues.get(tenant)
        left = self.behind(tenant)
        if queue is None or not left:
            return 0.0
        rates = [queue.bucket.rate] if queue.bucket is not None else []
        if self._link is not None:
            busy = sum(other.weight for other in self._queues.values() if other is queue or other.waiting)
            rates.append(self._link.rate * queue.weight / busy)
        return left / min(rates) if rates else 0.0

    def drop_idle(self, keep: frozenset[str]) -> None:
        """Forget tenants that nothing waits for and that are not in `keep`: names cannot pile up."""
        for name in [name for name, queue in self._queues.items() if not queue.waiting and name not in keep]:
            del self._queues[name]
