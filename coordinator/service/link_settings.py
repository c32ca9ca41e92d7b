"""Bounds of agents' connections, and what they have done."""

from __future__ import annotations

from msgspec import Struct, field

from coordinator import wire
from coordinator.core import commands

_KINDS: dict[type[commands.Message], str] = {
    commands.Grant: "grant",
    commands.Grants: "grant",
    commands.Launch: "launch",
    commands.Launches: "launch",
    commands.Renew: "renew",
    commands.StopAttempt: "stop",
    commands.Settled: "settle",
    commands.Settlements: "settle",
    commands.Warm: "warm",
    commands.SaveState: "save",
}
ORDERS = tuple(dict.fromkeys(_KINDS.values()))
"""What agents are told about attempts."""


class LinkSettings(Struct, frozen=True, kw_only=True):
    """Bounds of agents' connections."""

    links_max: int = 20_000
    """Sockets at a time; further ones are answered 429."""
    greeting_max: int = 4_096
    """Sockets that have not said hello yet."""
    per_provider_max: int = 8
    """Sockets of one provider: one is its session, the others await a decision."""
    arrivals_burst: float = 60.0
    """Connections that one provider may open at once ..."""
    arrivals_per_s: float = 0.5
    """... and over time: each may begin a session, which is kept for ever. An honest agent's retries are rarer."""
    hello_s: float = 10.0
    close_s: float = 2.0
    """A closed peer has so long to close from its side."""
    messages_per_s: float = 50.0
    """Of one connection, over time. An agent sends one in five seconds."""
    messages_burst: float = 1_000.0
    """Of one connection at once: what a process that was stopped for minutes may have queued."""
    messages_per_grant: float = 32.0
    """Further ones for each lease that it was granted: an attempt is answered for, runs, freezes, thaws and ends."""
    progress_per_s: float = 400.0
    """Words of one connection about how far its programs are, over time and at once; beyond, they are dropped."""
    log_frames_per_s: float = 4_000.0
    """Of one connection, over time and at once; beyond, its socket is read more slowly."""
    bad_frames_max: int = 20
    """Bad frames of one connection until it is closed."""
    frame_bytes_max: int = wire.FRAME_BYTES_MAX
    out_bytes_max: int = 256 * 1024
    """Waiting for a peer to read; beyond, it is cut."""
    out_work_bytes_max: int = 16 * 1024 * 1024
    """The same for an agent that was granted leases: a launch brings its environment and its input along."""
    in_bytes: int = 32 * 1024
    """Receive buffer that the kernel is asked for (it takes twice as much): a peer that floods is read in pieces
    of a few milliseconds, and what a slow disk leaves unread is bounded."""
    in_log_bytes: int = 512 * 1024
    """The same for a connection that log bytes come by: with less, each frame of 256 kB is many wake-ups of both."""
    beats_delay_s: float = 0.02
    """Heartbeats wait so long for others before the engine is woken."""
    pushed: bool = True
    """Take frames from aiohttp's parser directly where the installed version allows it."""


class LinkCounters(Struct):
    """What the connections did so far."""

    opened: int = 0
    closed: int = 0
    refused: int = 0
    messages: int = 0
    bad_frames: int = 0
    unknown_messages: int = 0
    log_frames: int = 0
    log_bytes: int = 0
    slowed: int = 0
    """How often a socket was read more slowly: too many log frames."""
    orders: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORDERS, 0))
    """What was told about attempts; `renew` counts leases."""
    plans_failed: int = 0
    """Launches that no plan could be made of; each is a failure of its attempt."""
    cut_stalled: int = 0
    cut_fast: int = 0
    cut_bad: int = 0
    cut_silent: int = 0
    """Closed without a hello."""

    def ordered(self, message: commands.Message) -> None:
        """Count what was told, if it is about attempts."""
        kind = _KINDS.get(type(message))
        if kind is not None:
            self.orders[kind] += _count(message)


def _count(message: commands.Message) -> int:
    """Of how many leases it tells."""
    match message:
        case commands.Renew(terms=terms):
            return len(terms)
        case commands.Grants(leases=leases) | commands.Launches(leases=leases) | commands.Settlements(leases=leases):
            return len(leases)
        case _:
            return 1
