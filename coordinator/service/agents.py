"""Agents' WebSockets: who is let in, which connections there are, and what the engine may ask of them.

Order that the engine can rely on: beats are taken before every batch of events, so a LinkClosed or a
Tick never overtakes a heartbeat that was read before it. After a stall of our own, `drained` returns
once every socket that was readable has been read; a Tick posted then judges nobody by our own absence.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

from coordinator.core import commands, events
from coordinator.core.commands import CloseCode
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import ConnId, ProviderId
from coordinator.core.rows import TokenRow
from coordinator.service.acks import AckWheel
from coordinator.service.engine import Engine
from coordinator.service.frames import PushedWebSocket, pull, seam_fits
from coordinator.service.heartbeats import HeartbeatWriter
from coordinator.service.link import Link
from coordinator.service.link_settings import LinkCounters, LinkSettings
from coordinator.service.surroundings import LogSink, Surroundings

log = logging.getLogger("coord.agents")


class AgentLinks:
    """All connections of agents. Bound by `settings`; a new one beyond is refused with TOO_MANY."""

    def __init__(
        self,
        engine: Engine,
        heartbeats: HeartbeatWriter,
        logs: LogSink,
        settings: LinkSettings,
        coordinator_id: str,
        version: str,
    ) -> None:
        """Binds itself to the engine: as its links, its source of beats and a listener of its notes."""
        self.counters = LinkCounters()
        self.acks = AckWheel()
        self._engine = engine
        self._heartbeats = heartbeats
        self._logs = logs
        self._settings = settings
        self._links: dict[ConnId, Link] = {}
        self._by_provider: dict[ProviderId, set[ConnId]] = {}
        self._greeting: set[ConnId] = set()
        self._arrivals: dict[ProviderId, tuple[float, float]] = {}
        """Of each provider how many connections it may open yet, and when that was counted."""
        self._next_conn = 1
        self._beaten: list[Link] = []
        self._wake: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._around = Surroundings(
            post=engine.post,
            greeted=self._on_greeted,
            beaten=self._on_beaten,
            admitted=self._admitted,
            clock=engine.clock,
            heartbeats=heartbeats,
            acks=self.acks,
            logs=logs,
            settings=settings,
            counters=self.counters,
            coordinator_id=coordinator_id,
            version=version,
        )
        engine.bind_links(self)
        engine.set_beats_source(self.take_beats)
        engine.views.listen(self._on_note, commands.LinkBound, commands.ProviderForgotten, commands.TokenChanged)

    # ---- connections

    async def handle(self, request: web.Request, token: TokenRow) -> web.StreamResponse:
        """Serve one agent until its socket is gone. `token` was checked: role agent, with its provider_id.

        Raises CoordError: SHUTTING_DOWN, TOO_MANY, BAD_REQUEST (not a WebSocket handshake).
        """
        link = self._admit(request, token)
        try:
            response: web.StreamResponse
            if self.pushed:
                response = socket_ = PushedWebSocket(link, self._settings.frame_bytes_max)
                await socket_.prepare(request)
                await link.gone
            else:
                response = await pull(request, link, self._settings.frame_bytes_max)
        finally:
            self._dismiss(link)
        return response

    @property
    def pushed(self) -> bool:
        """Whether frames come straight from aiohttp's parser (else through its slower receive loop)."""
        return self._settings.pushed and seam_fits()

    @property
    def connected(self) -> int:
        return len(self._links)

    def _admit(self, request: web.Request, token: TokenRow) -> Link:
        if self._closing:
            raise CoordError(Code.SHUTTING_DOWN, "the coordinator is stopping", "connect again in a few seconds")
        provider_id = token.provider_id
        if provider_id is None:
            raise CoordError(Code.FORBIDDEN, "this token speaks for no provider", "connect with an agent's credential")
        if not web.WebSocketResponse().can_prepare(request):
            raise CoordError(Code.BAD_REQUEST, "not a WebSocket handshake", "connect with a WebSocket client")
        own = self._by_provider.get(provider_id, set())
        refusal = ""
        if (
            len(self._links) >= self._settings.links_max
            or len(own) >= self._settings.per_provider_max
            or len(self._greeting) >= self._settings.greeting_max
        ):
            refusal = f"{len(self._links)} agents' sockets are open, {len(own)} of this provider"
        elif not self._may_arrive(provider_id):
            refusal = f"provider {provider_id} connects again and again"
        if refusal:
            self.counters.refused += 1
            raise CoordError(Code.TOO_MANY, refusal, "try later")
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        shown = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unknown"
        conn_id = ConnId(self._next_conn)
        self._next_conn += 1
        link = self._links[conn_id] = Link(conn_id, token, shown, self._around)
        self._by_provider.setdefault(provider_id, set()).add(conn_id)
        self._greeting.add(conn_id)
        self._empty.clear()
        self.counters.opened += 1
        return link

    def _may_arrive(self, provider_id: ProviderId) -> bool:
        """Take one from the provider's bucket of connections. Bound: one bucket a provider that is enrolled."""
        settings, now_s = self._settings, self._engine.clock.monotonic_s()
        left, before_s = self._arrivals.get(provider_id, (settings.arrivals_burst, now_s))
        left = min(settings.arrivals_burst, left + (now_s - before_s) * settings.arrivals_per_s)
        may = left >= 1.0
        self._arrivals[provider_id] = (left - 1.0 if may else left, now_s)
        return may

    def _dismiss(self, link: Link) -> None:
        link.lost()
        link.abort()
        self._logs.gone(link)
        del self._links[link.conn_id]
        self._greeting.discard(link.conn_id)
        assert link.token.provider_id is not None
        own = self._by_provider[link.token.provider_id]
        own.discard(link.conn_id)
        if not own:
            del self._by_provider[link.token.provider_id]
        self.counters.closed += 1
        if not self._links:
            self._empty.set()
        if link.said_hello and not link.sent_away and not self._closing:
            self._engine.post(events.LinkClosed(at_ms=self._engine.clock.now_ms(), conn_id=link.conn_id))

    async def close_all(self, code: CloseCode, reason: str) -> None:
        """Let nobody in any more, close every connection, and return when all are gone.

        No LinkClosed is posted from here on: sessions stay open for agents that are expected back.
        """
        self._closing = True
        for link in tuple(self._links.values()):
            link.close(code, reason)
        try:
            async with asyncio.timeout(self._settings.close_s + 1.0):
                await self._empty.wait()
        except TimeoutError:
            for link in tuple(self._links.values()):
                link.abort()
            log.warning("%d connections were still open at the stop", len(self._links))
        self.acks.stop()
        if self._wake is not None:
            self._wake.cancel()

    # ---- the engine's side

    def send(self, conn_id: ConnId, message: commands.Message) -> None:
        """Queue it for the connection; dropped when that is gone. Never blocks: a peer that does not read is cut."""
        link = self._links.get(conn_id)
        if link is not None:
            link.send(message)

    def take_beats(self) -> tuple[events.Beat, ...]:
        """The newest heartbeat of each connection that sent some since the last call."""
        if not self._beaten:
            return ()
        beaten, self._beaten = self._beaten, []
        beats = []
        for link in beaten:
            link.beaten = False
            beats.append(link.beat_event())
        return tuple(beats)

    async def drained(self) -> None:
        """Return when every socket that is readable now has been read at least once.

        The kernel tells of readable sockets in the order in which they became so: when a byte that is
        written now has come round, all that was there before it has been handed to us.
        """
        loop = asyncio.get_running_loop()
        ours, marker = socket.socketpair()
        arrived = asyncio.Event()
        ours.setblocking(False)
        loop.add_reader(ours, arrived.set)
        try:
            marker.send(b"x")
            await arrived.wait()
        finally:
            loop.remove_reader(ours)
            ours.close()
            marker.close()

    def _on_greeted(self, link: Link) -> None:
        self._greeting.discard(link.conn_id)

    def _on_beaten(self, link: Link) -> None:
        self._beaten.append(link)
        if self._wake is None:
            delay_s = self._settings.beats_delay_s
            self._wake = asyncio.get_running_loop().call_later(delay_s, self._wake_engine)

    def _wake_engine(self) -> None:
        self._wake = None
        self._engine.wake()

    def _admitted(self, token: TokenRow) -> bool:
        row = self._engine.views.tokens.get(token.token_id)
        return row is not None and row.revoked_at_ms is None

    def _on_note(self, note: commands.Note) -> None:
        match note:
            case commands.LinkBound(conn_id=conn_id, view=view):
                link = self._links.get(conn_id)
                if link is not None:
                    link.bound(view.key)
            case commands.ProviderForgotten(provider_id=provider_id):
                self._heartbeats.forget(provider_id)
                self._arrivals.pop(provider_id, None)
                self._cut(provider_id, CloseCode.FORGOTTEN, "this provider was forgotten; enrol it again")
            case commands.TokenChanged(row=row) if row.revoked_at_ms is not None and row.provider_id is not None:
                self._cut(row.provider_id, CloseCode.UNAUTHENTICATED, "this provider's credential was revoked")
            case _:
                pass

    def _cut(self, provider_id: ProviderId, code: CloseCode, reason: str) -> None:
        """Close every connection of a provider, those that await a decision included."""
        for conn_id in tuple(self._by_provider.get(provider_id, ())):
            self._links[conn_id].close(code, reason)
