"""What the daemon knows of itself just now, and what it was asked to do. One loop owns it; nothing here waits."""

from __future__ import annotations

import asyncio
from typing import Literal

from msgspec import Struct

from coordinator.agent.cache import CacheStatus
from coordinator.agent.clock import boot_s, wall_ms
from coordinator.agent.held import AttemptStatus
from coordinator.agent.offset import Estimate
from coordinator.agent.trace_spool import TraceStatus
from coordinator.core.rows import Promises

Phase = Literal["enrolling", "connecting", "connected", "waiting", "away", "leaving"]
SEQ_PER_DAEMON = 2**32
"""Heartbeats of one daemon at most: 680 years at one every 5 s. Those of the next daemon are numbered above them."""


class Wish(Struct, frozen=True, kw_only=True):
    """Somebody wants the agent gone: until a moment of the wall clock, or for good (None)."""

    until_ms: int | None = None


class AgentStatus(Struct, frozen=True, kw_only=True):
    """The answer to AgentControl.status."""

    phase: Phase
    provider_id: str
    coordinator: str
    process_id: str
    keeper_pid: int
    daemon_pid: int
    daemons: int
    """Started by this keeper so far."""
    session_id: int | None
    draining: bool
    drain_note: str
    heartbeat_interval_s: float | None
    heartbeats_sent: int
    last_ack_age_s: float | None
    clock_offset_ms: float | None
    clock_bound_ms: float | None
    next_try_in_s: float | None
    away_until_ms: int | None
    last_problem: str
    promises: Promises = Promises()
    attempts: tuple[AttemptStatus, ...] = ()
    cache: CacheStatus = CacheStatus()
    traces: TraceStatus = TraceStatus()


class Standing:
    """Mutable, one per daemon."""

    def __init__(self, *, process_id: str, daemon: int, resume_key: str) -> None:
        self.process_id = process_id
        self.daemon = daemon
        self.resume_key = resume_key
        self.seq = daemon * SEQ_PER_DAEMON
        self.phase: Phase = "connecting"
        self.provider_id = ""
        self.coordinator = ""
        self.coordinator_id = ""
        """Of the one that welcomed us; empty before."""
        self.session_id: int | None = None
        self.draining = False
        self.drain_note = ""
        self.interval_s: float | None = None
        self.sent = 0
        self.acked_at_s: float | None = None
        self.offset: Estimate | None = None
        self.try_at_s: float | None = None
        self.last_problem = ""
        self.wish: Wish | None = None
        self.wished = asyncio.Event()

    def ask(self, wish: Wish | None) -> None:
        """Take a wish (None: come back). For good stands against anything later."""
        if self.wish is not None and self.wish.until_ms is None:
            return
        self.wish = wish
        self.wished.set()

    async def wish_made(self) -> Wish:
        """Wait until somebody wants the agent gone."""
        while self.wish is None:
            await self.changed()
        return self.wish

    async def changed(self) -> None:
        """Wait for the next call of `ask`, whatever it asks for. One waiter at a time."""
        self.wished.clear()
        await self.wished.wait()

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def connected(
        self, session_id: int, resume_key: str, draining: bool, interval_s: float, coordinator_id: str
    ) -> None:
        self.phase = "connected"
        self.coordinator_id = coordinator_id
        self.session_id = session_id
        self.resume_key = resume_key
        self.draining = draining
        self.interval_s = interval_s
        self.try_at_s = None
        self.last_problem = ""

    def disconnected(self, phase: Phase, problem: str) -> None:
        self.phase = phase
        self.session_id = None
        self.acked_at_s = None
        self.offset = None
        self.last_problem = problem

    def status(
        self,
        keeper_pid: int,
        daemon_pid: int,
        promises: Promises,
        attempts: tuple[AttemptStatus, ...],
        cache: CacheStatus,
        traces: TraceStatus,
    ) -> AgentStatus:
        now_s = boot_s()
        return AgentStatus(
            phase=self.phase,
            provider_id=self.provider_id,
            coordinator=self.coordinator,
            process_id=self.process_id,
            keeper_pid=keeper_pid,
            daemon_pid=daemon_pid,
            daemons=self.daemon,
            session_id=self.session_id,
            draining=self.draining,
            drain_note=self.drain_note,
            heartbeat_interval_s=self.interval_s,
            heartbeats_sent=self.sent,
            last_ack_age_s=now_s - self.acked_at_s if self.acked_at_s is not None else None,
            clock_offset_ms=self.offset.offset_ms if self.offset is not None else None,
            clock_bound_ms=self.offset.bound_ms if self.offset is not None else None,
            next_try_in_s=max(0.0, self.try_at_s - now_s) if self.try_at_s is not None else None,
            away_until_ms=self.wish.until_ms if self.wish is not None else None,
            last_problem=self.last_problem,
            promises=promises,
            attempts=attempts,
            cache=cache,
            traces=traces,
        )

    def away_for_s(self) -> float:
        """How long the wish still keeps us away, by the wall clock that people meant."""
        until_ms = self.wish.until_ms if self.wish is not None else None
        return max(0.0, (until_ms - wall_ms()) / 1000) if until_ms is not None else 0.0
