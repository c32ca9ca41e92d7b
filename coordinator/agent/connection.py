"""One connection from hello to its end: heartbeats, acknowledgements, logs, and what the coordinator asks for.

Every ending is told as `closing.Ended`; nothing is retried here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
from collections.abc import Callable

import aiohttp
import msgspec

from coordinator import wire
from coordinator.agent.attempts import Attempts
from coordinator.agent.cache import Cache
from coordinator.agent.clock import boot_s, wall_ms
from coordinator.agent.closing import Ended, Then, on_close
from coordinator.agent.config import Patience
from coordinator.agent.exits import Exit
from coordinator.agent.log import logger
from coordinator.agent.offset import OffsetFilter
from coordinator.agent.outbox import Outbox, Overfull
from coordinator.agent.racing import first_of
from coordinator.agent.standing import Standing
from coordinator.agent.vitals import Vitals

FRAME_BYTES_MAX = 8 * 1024 * 1024
"""Of a frame from the coordinator: an order to launch carries a whole environment."""
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.05, 3600.0
"""A coordinator that asks for other intervals is not followed beyond these."""
SOCKET_TIMEOUT_MS = 60_000
UNSENT_BYTES_MAX = 128 * 1024
"""That the kernel takes beyond what is on its way: what waits there, a heartbeat waits behind."""
HELLO_SPARE_BYTES = 64
"""For the name of the field that its attempts stand in."""
AGAIN_EVERY_S = 1.0
"""How often it is looked at what has to be said again."""
CACHED_AGAIN_S = 10.0
"""What the cache holds is told no more often."""
WORK_VERSION = 2
"""The protocol version from which on there are attempts."""
UNACKED_MAX = 256
"""Heartbeats remembered until acknowledged. A connection is given up long before."""
OFFSET_NEWS_MS = 100.0
"""A change of the clock offset beyond its bounds and this is worth a line in the log."""

TCP_NOTSENT_LOWAT = 25
"""tcp(7); the socket module of Python 3.11 does not name it."""

_MESSAGE: msgspec.json.Decoder[wire.FromCoordinator] = msgspec.json.Decoder(wire.FromCoordinator)
_MESSAGES = msgspec.json.Decoder(list[wire.FromCoordinator])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_BAD = (msgspec.DecodeError, RecursionError)
_ENCODER = msgspec.json.Encoder()
Ws = aiohttp.ClientWebSocketResponse


def decode(text: str) -> list[wire.FromCoordinator]:
    """The messages of a frame. Those that this agent does not know are left out, with a line in the log."""
    many = text.lstrip().startswith("[")
    if many:
        with contextlib.suppress(*_BAD):
            return _MESSAGES.decode(text)  # as a rule all of them are known
    try:
        parts: list[msgspec.Raw] | list[str] = _ARRAY.decode(text) if many else [text]
    except _BAD as error:
        logger.warning("a frame of the coordinator was not understood: %s", error)
        return []
    messages: list[wire.FromCoordinator] = []
    for part in parts:
        try:
            messages.append(_MESSAGE.decode(part))
        except _BAD as error:
            logger.warning("a message of the coordinator was not understood: %s", error)
    return messages


class Connection:
    """An open WebSocket. `attend` is called once."""

    def __init__(
        self,
        ws: Ws,
        hello: wire.Hello,
        standing: Standing,
        vitals: Vitals,
        attempts: Attempts,
        cache: Cache,
        patience: Patience,
        keep_key: Callable[[str], None],
    ) -> None:
        self._ws = ws
        self._hello = hello
        self._attempts = attempts
        self._cache = cache
        self._outbox = Outbox()
        self._works = False
        """Both sides know of attempts."""
        self._standing = standing
        self._vitals = vitals
        self._patience = patience
        self._keep_key = keep_key
        self._interval_s = 0.0
        self._next_s = 0.0
        self._lost_after_s = 0.0
        self._retimed = asyncio.Event()
        self._unacked: dict[int, float] = {}
        self._filter = OffsetFilter()
        self._last_error = ""
        self.welcomed_at_s: float | None = None

    async def attend(self) -> Ended:
        """Say hello, be a provider, and return how it ended. The socket is closed then, within `close_s`."""
        self._bound_retransmission()
        try:
            refused = await first_of(self._greet(), self._unwanted())
            if refused is not None:
                return refused
            return await first_of(
                self._read(),
                self._beat(),
                self._say_bye(),
                self._tell_news(),
                self._tell_again(),
                self._tell_cached(),
                self._ship_logs(),
            )
        finally:
            self._attempts.disconnected()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * self._patience.close_s):
                    await self._ws.close()

    def _bound_retransmission(self) -> None:
        """Have the kernel drop a dead peer's socket soon, not after the quarter of an hour of its default, and take
        no more than it can send: its own buffer would hold megabytes of logs before a heartbeat."""
        sock = self._ws.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SOCKET_TIMEOUT_MS)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)

    async def _send(self, message: wire.FromAgent) -> None:
        await self._ws.send_str(_ENCODER.encode(message).decode())

    # ---- what comes in

    async def _greet(self) -> Ended | None:
        """Say hello; None once welcomed."""
        try:
            async with asyncio.timeout(self._patience.welcome_s):
                self._attempts.clock.hello_sent(boot_s())
                room = wire.FRAME_BYTES_MAX - len(_ENCODER.encode(self._hello)) - HELLO_SPARE_BYTES
                await self._send(msgspec.structs.replace(self._hello, attempts=self._attempts.hello(room)))
                return await self._await_welcome()
        except TimeoutError:
            return Ended(then=Then.RETRY, why=f"no welcome within {self._patience.welcome_s:.0f} s")
        except (OSError, aiohttp.ClientError) as error:
            return Ended(then=Then.RETRY, why=f"connection lost: {error}")

    async def _unwanted(self) -> Ended:
        await self._standing.wish_made()
        return Ended(then=Then.RETRY, why="asked to leave")

    async def _await_welcome(self) -> Ended | None:
        while True:
            messages = await self._receive()
            if isinstance(messages, Ended):
                return messages
            for i, message in enumerate(messages):
                if isinstance(message, wire.Welcome):
                    refused = self._on_welcome(message)
                    if refused is None:
                        for later in messages[i + 1 :]:
                            await self._take(later)
                    return refused
                await self._take(message)

    async def _read(self) -> Ended:
        try:
            while True:
                messages = await self._receive()
                if isinstance(messages, Ended):
                    return messages
                for message in messages:
                    await self._take(message)
        except (OSError, aiohttp.ClientError) as error:
            return Ended(then=Then.RETRY, why=f"connection lost: {error}")

    async def _receive(self) -> list[wire.FromCoordinator] | Ended:
        frame = await self._ws.receive()
        match frame.type:
            case aiohttp.WSMsgType.TEXT:
                return decode(frame.data)
            case aiohttp.WSMsgType.CLOSE:
                reason = str(frame.extra or "")
                if self._last_error.startswith(reason):  # the whole of what the close had no room for
                    reason = self._last_error
                return on_close(int(frame.data or 1005), reason)
            case aiohttp.WSMsgType.ERROR:
                return Ended(then=Then.RETRY, why=f"connection lost: {frame.data}")
            case aiohttp.WSMsgType.CLOSED | aiohttp.WSMsgType.CLOSING:
                return Ended(then=Then.RETRY, why="connection lost")
            case _:
                return []

    def _on_welcome(self, welcome: wire.Welcome) -> Ended | None:
        if welcome.version not in wire.VERSIONS:
            why = f"the coordinator speaks version {welcome.version}, this agent {wire.VERSIONS}"
            return Ended(then=Then.STOP, why=why, exit_code=Exit.PROTOCOL, hint="install a matching agent")
        self.welcomed_at_s = boot_s()
        self._lost_after_s = max(welcome.lost_after_s, 2 * INTERVAL_MIN_S)
        self._take_interval(welcome.heartbeat_interval_s)
        self._standing.connected(
            welcome.session_id, welcome.resume_key, welcome.draining, self._interval_s, welcome.coordinator_id
        )
        self._keep_key(welcome.resume_key)
        self._works = welcome.version >= WORK_VERSION
        if self._works:
            self._attempts.connected(self._outbox.put)
        logger.info(
            "connected to %s as %s: session %d %s, a heartbeat every %g s%s",
            self._standing.coordinator,
            welcome.provider_id,
            welcome.session_id,
            "goes on" if welcome.resumed else "begins",
            self._interval_s,
            ", drained" if welcome.draining else "",
        )
        return None

    def _take_interval(self, interval_s: float) -> None:
        """Follow a new interval from now on, somewhere within it: a fleet told at once must not beat at once."""
        self._interval_s = min(max(interval_s, INTERVAL_MIN_S), INTERVAL_MAX_S)
        self._standing.interval_s = self._interval_s
        self._next_s = min(self._next_s, boot_s() + random.random() * self._interval_s)  # noqa: S311  # no secret
        self._retimed.set()

    async def _take(self, message: wire.FromCoordinator) -> None:
        match message:
            case wire.Ack():
                self._on_ack(message)
            case wire.Ping():
                await self._send(wire.Pong())
            case wire.Settings():
                self._take_interval(message.heartbeat_interval_s)
                logger.info("a heartbeat every %g s from now on", self._interval_s)
            case wire.Drain():
                self._standing.draining, self._standing.drain_note = message.draining, message.note
                note = f": {message.note}" if message.note else ""
                logger.info("drained%s" if message.draining else "takes work again%s", note)
            case wire.Error():
                self._last_error = f"{message.message} ({message.hint})" if message.hint else message.message
                logger.warning("the coordinator refused what we sent: %s: %s", message.code, self._last_error)
            case wire.Welcome():
                logger.warning("a second welcome was ignored")
            case _ if self._works:
                self._attempts.take(message)
            case _:
                logger.warning("an order to work was ignored: version %d knows none", WORK_VERSION - 1)

    def _on_ack(self, ack: wire.Ack) -> None:
        now_s = boot_s()
        sent_s = self._unacked.get(ack.seq)
        for seq in [seq for seq in self._unacked if seq <= ack.seq]:
            del self._unacked[seq]
        if sent_s is None:
            return
        self._standing.acked_at_s = now_s
        self._attempts.clock.acked(ack.seq)
        self._filter.add(sent_s * 1000, ack.received_at_ms, ack.held_ms, now_s * 1000)
        before = self._standing.offset
        after = self._filter.estimate(now_s * 1000, wall_ms())
        self._standing.offset = after
        if after is None:
            return
        known = 0.0 if before is None else before.bound_ms
        if abs(after.offset_ms - (before.offset_ms if before else 0.0)) > after.bound_ms + known + OFFSET_NEWS_MS:
            logger.warning(
                "the coordinator's clock is %+.0f ms from ours (within %.0f ms)", after.offset_ms, after.bound_ms
            )

    # ---- what goes out

    def _dead_after_s(self) -> float:
        """Half the time after which the coordinator would count us as lost: enough is left to come back in."""
        return max(self._lost_after_s / 2, 3 * self._interval_s)

    async def _beat(self) -> Ended:
        """A heartbeat every interval; ends when they are no longer acknowledged, or cannot be sent."""
        before_s = self._next_s = boot_s()
        while True:
            now_s = boot_s()
            if now_s - before_s > max(self._lost_after_s, 6 * self._interval_s):
                return Ended(then=Then.RETRY, why=f"this machine slept for {now_s - before_s:.0f} s")
            silent_s = now_s - self._oldest_unacked_s()
            if silent_s >= self._dead_after_s():
                return Ended(
                    then=Then.RETRY, why=f"no acknowledgement for {silent_s:.1f} s: the connection is half dead"
                )
            if now_s >= self._next_s:
                if not await self._send_heartbeat():
                    return Ended(then=Then.RETRY, why="the connection takes no more: it is half dead")
                before_s = boot_s()
                ahead_s = self._next_s + self._interval_s
                self._next_s = ahead_s if ahead_s > before_s else before_s + self._interval_s
            await self._nap(min(self._next_s, self._oldest_unacked_s() + self._dead_after_s()) - boot_s())

    def _oldest_unacked_s(self) -> float:
        return next(iter(self._unacked.values()), math.inf)

    async def _send_heartbeat(self) -> bool:
        await self._vitals.look()
        heartbeat = self._vitals.heartbeat(self._standing, self._attempts.busy())
        if self._works:
            heartbeat = msgspec.structs.replace(
                heartbeat, attempts=self._attempts.named(), renewed_seq=self._attempts.clock.renewed_seq
            )
        sent_s = boot_s()
        self._attempts.clock.beat_sent(heartbeat.seq, sent_s)
        if len(self._unacked) < UNACKED_MAX:
            self._unacked[heartbeat.seq] = sent_s
        try:
            async with asyncio.timeout(self._dead_after_s()):
                await self._send(heartbeat)
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False
        self._standing.sent += 1
        return True

    async def _nap(self, for_s: float) -> None:
        self._retimed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, for_s)):
                await self._retimed.wait()

    # ---- attempts

    async def _tell_news(self) -> Ended:
        """What the coordinator must hear of attempts, as it happens."""
        try:
            await self._outbox.run(self._ws.send_str)
        except (OSError, aiohttp.ClientError, Overfull) as error:
            return Ended(then=Then.RETRY, why=f"the connection takes no more: {error}")
        raise AssertionError("an outbox has no end")

    async def _tell_again(self) -> Ended:
        while True:
            await self._attempts.some()
            await asyncio.sleep(AGAIN_EVERY_S)
            self._attempts.again()

    async def _tell_cached(self) -> Ended:
        """What is in the cache, after a welcome and when that has changed. Of an empty one nothing is told before
        something was in it: a coordinator that knows no blobs would not know the message."""
        if not self._works:
            await asyncio.Event().wait()
        told: tuple[str, ...] = ()
        while True:
            self._cache.changed.clear()
            digests = self._cache.digests()
            if digests == told:
                await self._cache.changed.wait()
                continue
            self._outbox.put(wire.Cached(digests=digests))
            told = digests
            await asyncio.sleep(CACHED_AGAIN_S)

    async def _ship_logs(self) -> Ended:
        """What attempts wrote, as the connection takes it."""
        if not self._works:
            await asyncio.Event().wait()
        try:
            await self._attempts.ship.run(self._ws.send_bytes)
        except (OSError, aiohttp.ClientError) as error:
            return Ended(then=Then.RETRY, why=f"connection lost: {error}")
        raise AssertionError("a ship has no end")

    # ---- leaving

    async def _say_bye(self) -> Ended:
        """Wait until somebody wants us gone, say so, and wait for the close."""
        standing = self._standing
        wish = await standing.wish_made()
        standing.phase = "leaving"
        await self._attempts.leave(self._patience)
        bye = wire.Bye(draining=wish.until_ms is not None or standing.draining, away_until_ms=wish.until_ms)
        try:
            async with asyncio.timeout(self._patience.bye_s):
                await self._send(bye)
                await asyncio.Event().wait()  # the reader sees the close, and ends us all
        except (OSError, aiohttp.ClientError, TimeoutError):
            logger.warning("no answer to our good-bye")
        return Ended(then=Then.RETRY, why="said good-bye, unanswered")
