"""The gate that every piece of a transfer passes: paced fairly, spilled within bounds, refused beyond them.

Ingress: a piece goes at once while its tenant and the link have tokens (bursts to 120 %). Beyond that its bytes are
taken all the same, as long as the spill area has room: they lie in their upload's file, which is published only when
they are paid for. Beyond that it is refused with the time after which it may be tried again, and the bytes before it
stay. Egress waits for its turn; nothing of it is held. Without rates nothing ever waits.

Bounds: spilled bytes in all and of one tenant (half of it), spilled pieces of one tenant, pieces that wait (each
transfer has one at a time).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.service.data.breaker import Breaker, State
from coordinator.service.data.pacing import FairLink, Piece


class GateSettings(Struct, frozen=True, kw_only=True):
    """How fast blobs may move over this coordinator. 0: no bound."""

    ingress_bytes_per_s: int = 0
    """Of the whole link, to this coordinator."""
    egress_bytes_per_s: int = 0
    """Of the whole link, from it."""
    tenant_bytes_per_s: int = 0
    """Of one tenant, in each direction, however idle the link is."""
    spill_bytes_max: int = 4 << 30
    """Bytes that were taken beyond their tenant's rate and are not paid for yet."""
    saturated_s: float = 10.0
    """Refusing for so long opens the breaker."""
    pause_s: float = 15.0
    """How long it stays open at first; doubled when the transfer that is let in then fails too."""
    pause_max_s: float = 600.0
    """It is never doubled beyond this."""


class GateView(Struct, frozen=True, kw_only=True):
    """How it stands, for people and metrics."""

    state: State
    why: str
    opened: int
    spilled_bytes: int
    spill_bytes_max: int
    waiting_in_bytes: int
    waiting_out_bytes: int
    refused: int
    ingress_bytes_per_s: int
    egress_bytes_per_s: int


class Gate:
    """`weight_of` tells a tenant's share, as fair share has it."""

    def __init__(
        self,
        settings: GateSettings,
        weight_of: Callable[[str], float],
        now_s: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._weight_of = weight_of
        self._now_s = now_s
        began_s = now_s()
        self._in = _Lane(FairLink(settings.ingress_bytes_per_s, began_s), now_s)
        self._out = _Lane(FairLink(settings.egress_bytes_per_s, began_s), now_s)
        self._unpaid: dict[str, list[Piece]] = {}
        """By upload."""
        self._breaker = Breaker(settings.saturated_s, settings.pause_s, settings.pause_max_s)
        self.refused = 0

    def admit(self, transfer: object) -> None:
        """A transfer is about to begin. CoordError(TOO_FAST) while the breaker is open."""
        wait_s = self._breaker.admit(transfer, self._now_s())
        if wait_s:
            self.refused += 1
            raise CoordError(
                Code.TOO_FAST,
                f"transfers are saturated: {self._breaker.why}",
                f"try again in {math.ceil(wait_s)} s",
                retry_after_s=wait_s,
            )

    async def ingress(self, tenant: str, upload_id: str, size: int) -> None:
        """Before so many bytes of an upload are stored. CoordError(TOO_FAST): they must not be."""
        link = self._in.link
        self._know(link, tenant)
        piece = self._in.ask(tenant, size)
        if piece.gone:
            return
        room = self._settings.spill_bytes_max
        full = link.spilled_bytes + size > room
        if full or link.behind(tenant) > room // 2 or link.pieces(tenant) > SPILLED_PIECES_MAX:
            link.forget(piece)
            wait_s = max(1.0, min(60.0, link.drained_s(tenant) / 2))
            if link.spilled_bytes + size > room // 4 * 3 or len(link) == 1:
                self.saturated(f"{link.spilled_bytes} bytes wait in the spill area")
            else:  # it is the only one that sends too fast: that shuts nobody else out
                self._breaker.relieved()
            self.refused += 1
            raise CoordError(
                Code.TOO_FAST,
                f"tenant {tenant} sends faster than it may, and the spill area is full",
                f"go on in {math.ceil(wait_s)} s; what arrived is kept",
                retry_after_s=wait_s,
            )
        if link.spilled_bytes < room // 2:
            self._breaker.relieved()
        link.spill(piece)
        self._unpaid.setdefault(upload_id, []).append(piece)

    async def settled(self, upload_id: str) -> None:
        """Return when every byte of this upload is paid for."""
        for piece in self._unpaid.pop(upload_id, []):
            await self._in.turn_of(piece)

    def drop(self, upload_id: str) -> None:
        """It is given up: what it had spilled makes room."""
        for piece in self._unpaid.pop(upload_id, []):
            self._in.link.forget(piece)

    async def egress(self, tenant: str, size: int) -> None:
        """Return when so many bytes may be sent to this tenant."""
        self._know(self._out.link, tenant)
        piece = self._out.ask(tenant, size)
        try:
            await self._out.turn_of(piece)
        finally:
            self._out.link.forget(piece)

    def egress_piece(self, most: int) -> int:
        """How many bytes, of at most `most`, should ask together, so that whoever waits has a turn every tenth of a
        second or so."""
        rates = [rate for rate in (self._settings.egress_bytes_per_s, self._settings.tenant_bytes_per_s) if rate > 0]
        return min(most, max(PIECE_BYTES_MIN, min(rates) // 10)) if rates else most

    def saturated(self, why: str) -> None:
        """Something had no room: too fast, or a full disk."""
        self._breaker.saturated(why, self._now_s())

    def went_well(self, transfer: object) -> None:
        """A transfer that was admitted is complete."""
        self._breaker.went_well(transfer, self._now_s())

    def gave_up(self, transfer: object) -> None:
        """It ended before that, by its own fault."""
        self._breaker.gave_up(transfer)

    def view(self) -> GateView:
        self._in.advance()
        return GateView(
            state=self._breaker.state,
            why=self._breaker.why,
            opened=self._breaker.opened,
            spilled_bytes=self._in.link.spilled_bytes,
            spill_bytes_max=self._settings.spill_bytes_max,
            waiting_in_bytes=self._in.link.waiting_bytes,
            waiting_out_bytes=self._out.link.waiting_bytes,
            refused=self.refused,
            ingress_bytes_per_s=self._settings.ingress_bytes_per_s,
            egress_bytes_per_s=self._settings.egress_bytes_per_s,
        )

    def _know(self, link: FairLink, tenant: str) -> None:
        link.know(tenant, self._weight_of(tenant), self._settings.tenant_bytes_per_s, self._now_s())
        if len(link) > TENANTS_KEPT_MAX:
            link.drop_idle(frozenset({tenant}))


SPILLED_PIECES_MAX = 32_768
"""Of one tenant: bodies of a byte each fill our memory long before they fill the disk."""
PIECE_BYTES_MIN = 64 * 1024
"""Smaller pieces cost more than they even out."""
TENANTS_KEPT_MAX = 1_000
"""Tenants with nothing in line are forgotten beyond so many."""


class _Lane:
    """Waits for pieces of one direction. One timer, however many wait: none when nobody does."""

    def __init__(self, link: FairLink, now_s: Callable[[], float]) -> None:
        self.link = link
        self._now_s = now_s
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, tenant: str, size: int) -> Piece:
        """A piece of this tenant: `gone` already when nothing holds it up."""
        piece = self.link.ask(tenant, size)
        self.advance()
        return piece

    def advance(self) -> None:
        """Let go what may, and tell those who wait for it."""
        for piece in self.link.advance(self._now_s()):
            turn = self._waiting.get(id(piece))
            if turn is not None and not turn.done():
                turn.set_result(None)

    async def turn_of(self, piece: Piece) -> None:
        """Return when it goes."""
        if piece.gone:
            return
        turn = self._waiting[id(piece)] = asyncio.get_running_loop().create_future()
        try:
            self._wind()
            await turn
        finally:
            self._waiting.pop(id(piece), None)

    def _wind(self) -> None:
        if self._timer is None and self._waiting:
            now_s = self._now_s()
            delay_s = min(1.0, max(0.0, self.link.next_s(now_s) - now_s))
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.advance()
        self._wind()
