"""One agent's connection: what it says becomes events and heartbeats, what it is told becomes frames.

Everything here is called by the loop and returns at once. What a peer sends is not trusted: it is
bounded in size, number and depth, a bad frame is answered with an error and is otherwise ignored, and a
peer that goes on, or that does not read, is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec
from aiohttp import WSMsgType

from coordinator import wire
from coordinator.core import commands, events
from coordinator.core.commands import CloseCode
from coordinator.core.errors import Code
from coordinator.core.ids import AttemptId, ConnId, Ms, ProviderId, ProviderKey, attempts_of, dotted
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken, TokenRow
from coordinator.service.frames import Frame, close_frame, pong_frame, text_frame
from coordinator.service.heartbeats import Track
from coordinator.service.inbound import (
    BAD,
    Complaint,
    OfAttempt,
    answers_of,
    cache_of,
    decode,
    hello_of,
    problem_of,
    sort_out,
)
from coordinator.service.outbound import grants_to_wire, is_large, launches_to_wire, settlements_to_wire, to_wire
from coordinator.service.pace import full_bucket
from coordinator.service.peer import Peer
from coordinator.service.surroundings import Surroundings
from coordinator.service.tokens import digest_of, new_resume_key
from coordinator.service.words import Words

IGNORED_MAX = 1_000
"""Frames of a peer that was told why it is closed; one that sends more has not listened and is cut."""
OF_ATTEMPTS = (wire.Granted, wire.Refused, wire.Phase, wire.Exited, wire.Progress)
ORDERS = (wire.Grant, wire.Launch, wire.Stop, wire.Settled, wire.Renew)
"""What there may be many of in one turn: they share frames."""
WORK_VERSION = 2
"""From this protocol version on an agent runs attempts."""
TOO_BIG = 1009
"""RFC 6455: a message larger than the receiver takes."""

_encode = msgspec.json.Encoder().encode

CODES: dict[CloseCode, Code] = {
    CloseCode.BAD_FRAME: Code.BAD_FRAME,
    CloseCode.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    CloseCode.MACHINE_MISMATCH: Code.MACHINE_MISMATCH,
    CloseCode.FORGOTTEN: Code.NOT_FOUND,
    CloseCode.HELLO_TIMEOUT: Code.TIMEOUT,
    CloseCode.DUPLICATE: Code.DUPLICATE_PROVIDER,
    CloseCode.SUPERSEDED: Code.CONFLICT,
    CloseCode.TOO_FAST: Code.TOO_MANY,
    CloseCode.LOST: Code.TIMEOUT,
    CloseCode.VERSION: Code.VERSION_UNSUPPORTED,
}
"""The `code` of the error message before a close. Going away is no error: no message precedes it."""


class Phase(Enum):
    """Where a connection stands."""

    GREETING = "greeting"
    CLAIMING = "claiming"
    OPEN = "open"
    LEAVING = "leaving"


class Link:
    """One socket. `gone` is done when it is closed."""

    __slots__ = (
        "_around",
        "_bad_frames",
        "_brings_logs",
        "_frames",
        "_ids",
        "_ignored",
        "_messages",
        "_names",
        "_peer",
        "_progress",
        "_resume_key",
        "_slowed",
        "_version",
        "_words",
        "ack_waits",
        "acked_s",
        "beaten",
        "conn_id",
        "gone",
        "peer",
        "phase",
        "process_id",
        "received_ms",
        "said_hello",
        "sent_away",
        "token",
        "track",
    )

    def __init__(self, conn_id: ConnId, token: TokenRow, peer: str, around: Surroundings) -> None:
        self.conn_id = conn_id
        self.token = token
        self.peer = peer
        self.phase = Phase.GREETING
        self.process_id = ""
        self.said_hello = False
        self.sent_away = False
        """The core closed it as going away, and needs no word of its end."""
        self.track: Track | None = None
        self.received_ms: Ms = 0
        self.beaten = False
        self.acked_s = 0.0
        self.ack_waits = False
        self._around = around
        self._bad_frames = 0
        self._ids: tuple[AttemptId, ...] = ()
        self._words = Words(conn_id, around.post, around.clock)
        self._ignored = 0
        self._names: tuple[str, ...] = ()
        self._resume_key = ""
        self._slowed = False
        self._brings_logs = False
        self._version = wire.VERSIONS[-1]
        self._messages = full_bucket(around.settings.messages_per_s, around.settings.messages_burst)
        self._frames = full_bucket(around.settings.log_frames_per_s, around.settings.log_frames_per_s)
        self._progress = full_bucket(around.settings.progress_per_s, around.settings.progress_per_s)
        self._peer = Peer(around.settings, around.counters)
        self.gone = self._peer.gone
        self._peer.after(around.settings.hello_s, self._hello_timeout)

    # ---- the socket

    def attach(self, transport: asyncio.Transport) -> None:
        self._peer.attach(transport)

    def lost(self) -> None:
        """The socket is gone."""
        self._peer.lost()

    def broken(self, code: int, text: str) -> None:
        """The peer broke the WebSocket protocol itself."""
        self._around.counters.bad_frames += 1
        kind = Code.TOO_LARGE if code == TOO_BIG else Code.BAD_FRAME
        hint = f"a frame has at most {self._around.settings.frame_bytes_max} bytes" if code == TOO_BIG else ""
        self._peer.shut(code, text, _error(kind, text, hint))
        self._peer.hang_up()

    def close(self, code: CloseCode, reason: str) -> None:
        """Say why, and close; a peer that does not close from its side is cut after `close_s`."""
        kind = CODES.get(code)
        self._peer.shut(code, reason, _error(kind, reason, "") if kind is not None else b"")

    def abort(self) -> None:
        """Close without a word."""
        self._peer.abort()

    def _hello_timeout(self) -> None:
        self._around.counters.cut_silent += 1
        self.close(CloseCode.HELLO_TIMEOUT, f"no hello within {self._around.settings.hello_s:g} s")

    # ---- what the agent says

    def take(self, frames: list[Frame]) -> None:
        """What one read of the socket brought. Heartbeats of one read are one offer to the writer."""
        beats: list[wire.Heartbeat] = []
        if self._peer.closed:
            self._ignored += len(frames)
            if self._ignored > IGNORED_MAX:  # it goes on as if nothing was said: not worth its `close_s`
                self.abort()
                return
        for kind, data, _ in frames:
            if kind is WSMsgType.TEXT and not self._peer.closed:
                if self.phase is Phase.OPEN and not beats and self._answers(data):
                    continue
                try:
                    message = decode(data)
                except BAD:
                    self._sort_out(data, beats)
                    continue
                if type(message) is wire.Heartbeat:
                    beats.append(message)
                elif type(message) is tuple:
                    for part in message:
                        self._say(part, beats)
                else:
                    self._say(message, beats)
            elif kind is WSMsgType.BINARY and not self._peer.closed:
                self._log(data)
            else:
                self._control(kind, data)
        if beats:
            self._beat(beats)
        self._words.pass_on()

    def _beat(self, beats: list[wire.Heartbeat]) -> None:
        """Heartbeats, in order. Empties the list."""
        track = self.track
        if self._peer.closed or self.phase is not Phase.OPEN or track is None:
            if not self._peer.closed:
                self._refuse("a heartbeat before the welcome", "say hello and wait for the welcome")
            beats.clear()
            return
        if not self._allow(len(beats)):
            beats.clear()
            return
        around = self._around
        now_ms = around.clock.now_ms()
        around.heartbeats.offer(track, beats, now_ms)
        beats.clear()
        self.received_ms = now_ms
        if not self.beaten:
            self.beaten = True
            around.beaten(self)
        if not self.ack_waits:
            around.acks.book(self)
        if around.heartbeats.crowded and not self._peer.held:
            self.hold()
            around.heartbeats.when_roomy(self.release)

    def hold(self) -> None:
        """Stop reading until `release` was called as often."""
        self._peer.hold()

    def release(self) -> None:
        self._peer.release()

    def _allow(self, messages: int) -> bool:
        """Take `messages` from the bucket; an empty one closes the connection."""
        self._around.counters.messages += messages
        if self._messages.take(messages):
            return True
        self._around.counters.cut_fast += 1
        self.close(CloseCode.TOO_FAST, f"more than {self._messages.rate_per_s:g} messages a second")
        return False

    def _control(self, kind: WSMsgType, data: bytes | int | None) -> None:
        """A frame that is not text."""
        if kind is WSMsgType.CLOSE:
            if not self._peer.closed:
                self._peer.write(close_frame(data if isinstance(data, int) and data else 1000, ""))
            self._peer.hang_up()
        elif self._peer.closed or not self._allow(1):
            return
        elif kind is WSMsgType.PING and isinstance(data, bytes | bytearray):
            self._peer.write(pong_frame(bytes(data)))

    def _log(self, data: bytes) -> None:
        """Bytes of an attempt's log. What is beyond the pace is not refused: the socket is read more slowly."""
        if self.phase is not Phase.OPEN and self.phase is not Phase.LEAVING:
            self._refuse("log bytes before the welcome", "say hello and wait for the welcome")
            return
        try:
            chunk = wire.log_chunk(data)
        except ValueError as error:
            self._refuse(str(error))
            return
        if not self._brings_logs:
            self._brings_logs = True
            self._peer.receive(self._around.settings.in_log_bytes)
        counters = self._around.counters
        counters.log_frames += 1
        counters.log_bytes += len(chunk.data)
        self._around.logs.take(self, chunk)
        if not self._frames.take(1) and not self._slowed:  # let the kernel keep the rest for a while
            counters.slowed += 1
            self._slowed = True
            self.hold()
            asyncio.get_running_loop().call_later(min(1.0, 0.01 + self._frames.owed_s), self._go_on)

    def _go_on(self) -> None:
        self._slowed = False
        self.release()

    def _sort_out(self, data: bytes, beats: list[wire.Heartbeat]) -> None:
        """A frame that is not right as a whole: take the messages that are, answer each of those that are not."""
        for found in sort_out(data):
            if not isinstance(found, Complaint):
                self._say(found, beats)
            elif found.unknown:
                self._around.counters.unknown_messages += 1
                if self._allow(1):
                    self._tell(Code.BAD_FRAME, found.what, found.hint)
            else:
                self._refuse(found.what, found.hint)

    def _refuse(self, what: str, hint: str = "docs/reference/wire.md describes every message") -> None:
        """Answer a bad frame; too many of them close the connection."""
        if self._peer.closed or not self._allow(1):
            return
        self._around.counters.bad_frames += 1
        self._bad_frames += 1
        if self._bad_frames >= self._around.settings.bad_frames_max:
            self._around.counters.cut_bad += 1
            self.close(CloseCode.BAD_FRAME, f"{self._bad_frames} bad frames; the last: {what[:200]}")
        else:
            self._tell(Code.BAD_FRAME, what[:400], hint)

    def _tell(self, code: Code, message: str, hint: str) -> None:
        self._peer.write(_error(code, message, hint))

    def _say(self, message: wire.FromAgent, beats: list[wire.Heartbeat]) -> None:
        """Any message. Heartbeats before it count first."""
        if type(message) is wire.Heartbeat:
            beats.append(message)
            return
        if beats:
            self._beat(beats)
        if type(message) is wire.Progress:
            if not self._progress.take(1):
                self._progress.left += 1  # dropped, not owed: the next one says more
            elif not self._peer.closed:
                self._around.counters.messages += 1
                self._work(message)
            return
        if self._peer.closed or not self._allow(1):
            return
        around = self._around
        if not isinstance(message, OF_ATTEMPTS):
            self._words.pass_on()
        match message:
            case wire.Granted() | wire.Refused() | wire.Phase() | wire.Exited():
                self._work(message)
            case wire.Cached() if self.phase is Phase.OPEN:
                around.post(cache_of(message, self.conn_id, around.clock.now_ms()))
            case wire.Cached():
                self._refuse("a word about a cache before the welcome", "say hello and wait for the welcome")
            case wire.Hello():
                self._hello(message)
            case wire.Pong():
                around.post(events.AgentPong(at_ms=around.clock.now_ms(), conn_id=self.conn_id))
            case wire.Bye() if self.phase is Phase.OPEN:
                self.phase = Phase.LEAVING
                around.post(
                    events.AgentBye(
                        at_ms=around.clock.now_ms(),
                        conn_id=self.conn_id,
                        draining=message.draining,
                        away_until_ms=message.away_until_ms,
                    )
                )
            case wire.Bye():
                self.close(CloseCode.GOING_AWAY, "good bye")

    def _work(self, message: OfAttempt) -> None:
        """Something about an attempt."""
        if self.phase is not Phase.OPEN and self.phase is not Phase.LEAVING:
            self._refuse("a word about an attempt before the welcome", "say hello and wait for the welcome")
        elif not self._words.add(message):
            self._refuse("a token beyond its bounds")

    def _answers(self, data: bytes) -> bool:
        """A frame of acknowledgements and ends alone is taken at once. False: it is another one, and nothing of it was
        taken."""
        answers = answers_of(data, self.conn_id, self._around.clock.now_ms())
        if answers is not None and self._allow(answers.messages):
            self._words.add_all(answers)
        return answers is not None

    def _hello(self, hello: wire.Hello) -> None:
        if self.phase is not Phase.GREETING:
            self._refuse("hello was said already on this connection")
            return
        common = set(hello.versions) & set(wire.VERSIONS)
        problem = problem_of(hello)
        if hello.provider_id != self.token.provider_id or not self._around.admitted(self.token):
            self.close(CloseCode.UNAUTHENTICATED, f"this credential does not speak for provider {hello.provider_id!a}")
        elif not common:
            ours = ", ".join(map(str, wire.VERSIONS))
            self.close(CloseCode.VERSION, f"this coordinator speaks protocol versions {ours}, the agent none of them")
        elif problem:
            self._refuse(problem)
        else:
            self._claim(hello, max(common))

    def _claim(self, hello: wire.Hello, version: int) -> None:
        self._peer.disarm()
        self.phase = Phase.CLAIMING
        self.said_hello = True
        self._around.greeted(self)
        self.process_id = hello.process_id
        self._version = version
        self._resume_key = new_resume_key()
        assert self.token.provider_id is not None
        fresh_digest = digest_of(self._resume_key)
        at_ms, works = self._around.clock.now_ms(), version >= WORK_VERSION
        self._around.post(hello_of(hello, self.token.provider_id, self.conn_id, self.peer, fresh_digest, works, at_ms))

    # ---- what the agent is told

    def beat_event(self) -> events.Beat:
        """The newest heartbeat, as far as the core needs it."""
        latest = self.track.latest if self.track is not None else None
        if latest is None:
            return events.Beat(conn_id=self.conn_id, received_ms=self.received_ms)
        if latest.attempts != self._names:
            self._names, self._ids = latest.attempts, attempts_of(latest.attempts)
        return events.Beat(
            conn_id=self.conn_id,
            received_ms=self.received_ms,
            requests_served=latest.requests_served,
            tokens_generated=latest.tokens_generated,
            seq=latest.seq,
            renewed_seq=latest.renewed_seq,
            attempts=self._ids if self._version >= WORK_VERSION else (),
        )

    def bound(self, key: ProviderKey) -> None:
        """From here on, its heartbeats are this provider's."""
        if self.phase is Phase.CLAIMING and self.token.provider_id is not None:
            self.phase = Phase.OPEN
            self.track = self._around.heartbeats.track(self.token.provider_id, key, self.process_id)

    def send(self, message: commands.Message) -> None:
        """Carry out a Send of the core's."""
        if self._peer.closed:
            return
        around = self._around
        match message:
            case commands.Welcome():
                told: wire.FromCoordinator = wire.Welcome(
                    version=self._version,
                    provider_id=message.provider_id,
                    session_id=message.session_id,
                    resumed=message.resumed,
                    resume_key=self._resume_key,
                    heartbeat_interval_s=message.heartbeat_interval_ms / 1_000,
                    lost_after_s=message.lost_after_ms / 1_000,
                    draining=message.draining,
                    coordinator_id=around.coordinator_id,
                    coordinator_version=around.version,
                    now_ms=around.clock.now_ms(),
                )
                self._resume_key = ""
            case commands.CloseLink():
                self.sent_away = message.code is CloseCode.GOING_AWAY
                self.close(message.code, message.reason)
                return
            case commands.Launch() if is_large(message):
                around.counters.ordered(message)
                self._peer.write_slowly(self._one_by_one((message,)))
                return
            case commands.Launches() if is_large(message.like):
                around.counters.ordered(message)
                self._peer.write_slowly(self._one_by_one(message.each()))
                return
            case commands.Launch():
                told = self._launch(message)
            case commands.Launches():
                self._launches(message)
                return
            case commands.Grants():
                self._credit(len(message.leases))
                around.counters.ordered(message)
                self._peer.gather_all(grants_to_wire(message))
                return
            case commands.Settlements():
                around.counters.ordered(message)
                self._peer.gather_all(settlements_to_wire(message))
                return
            case commands.Grant():
                self._credit(1)
                told = to_wire(message)
            case _:
                told = to_wire(message)
        around.counters.ordered(message)
        if isinstance(told, ORDERS):
            self._peer.gather(_encode(told))
        else:
            self._peer.write(text_frame(_encode(told)))

    def _credit(self, leases: int) -> None:
        """Of each lease the attempt will be spoken of, and what starts it may be large."""
        settings = self._around.settings
        most = settings.messages_burst + wire.ATTEMPTS_MAX * settings.messages_per_grant
        self._messages.left = min(self._messages.left + leases * settings.messages_per_grant, most)
        self._peer.out_max = settings.out_work_bytes_max

    def _launches(self, orders: commands.Launches) -> None:
        """What is the same in all of them is worked out once. Where no plan can be made, each of them says so."""
        try:
            told = launches_to_wire(orders)
        except (LookupError, ArithmeticError):
            for order in orders.each():
                self.send(order)
        else:
            self._around.counters.ordered(orders)
            self._peer.gather_all(told)

    def _one_by_one(self, orders: Iterable[commands.Launch]) -> Iterator[bytes]:
        """Frames of orders that are too large to be made before they can leave."""
        for order in orders:
            yield text_frame(_encode(self._launch(order)))

    def _launch(self, order: commands.Launch) -> wire.Launch | wire.Stop:
        """The order with its plan. One that no plan can be made of has failed, and its agent lets go of the lease."""
        try:
            told = to_wire(order)
            assert isinstance(told, wire.Launch)
            return told
        except (LookupError, ArithmeticError) as error:
            around = self._around
            around.counters.plans_failed += 1
            why = f"no plan could be made of it: {error!r}"[:500]
            around.post(
                events.AttemptExited(
                    at_ms=around.clock.now_ms(),
                    conn_id=self.conn_id,
                    attempt_id=order.attempt_id,
                    rank=order.rank,
                    token=order.token,
                    exit=ExitInfo(cause=EndCause.START, text=why),
                )
            )
            return wire.Stop(attempt=dotted(order.attempt_id), token=order.token, why=why)

    # ---- what the relay tells

    @property
    def provider_id(self) -> ProviderId | None:
        """Whose connection it is."""
        return self.token.provider_id

    def acknowledge_log(self, attempt_id: AttemptId, rank: int, stream: int, offset: int) -> None:
        """Every byte of this stream below `offset` is stored."""
        if not self._peer.closed:
            ack = wire.LogAck(attempt=dotted(attempt_id), rank=rank, stream=stream, offset=offset)
            self._peer.write(text_frame(_encode(ack)))

    def stop_attempt(self, attempt_id: AttemptId, token: LeaseToken, why: str) -> None:
        """Its token counts no more: it is to end, wherever it stands."""
        if not self._peer.closed:
            self._peer.write(text_frame(_encode(wire.Stop(attempt=dotted(attempt_id), token=token, why=why))))

    def send_ack(self) -> None:
        """Acknowledge everything that was received; nothing when the connection is closing."""
        track = self.track
        if track is not None and self.phase is Phase.OPEN and not self._peer.closed:
            held_ms = self._around.clock.now_ms() - self.received_ms
            ack = wire.Ack(seq=track.seq, received_at_ms=self.received_ms, held_ms=held_ms)
            self._peer.write(text_frame(_encode(ack)))


def _error(code: Code, message: str, hint: str) -> bytes:
    """A frame that says what was refused."""
    return text_frame(_encode(wire.Error(code=code, message=message[:1000], hint=hint)))
