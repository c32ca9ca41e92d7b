"""What keeper and daemon say to each other, over a socket pair that keeps messages whole.

The end of the channel is the death of the other one. Nothing here blocks: what does not fit is dropped, and is
said again, because every message is the whole truth of its kind. Several that are said at once travel as one array.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from coordinator.agent.config import AgentConfig, Patience
from coordinator.core.amounts import Share
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken, Promises
from coordinator.core.work.launch_plan import LaunchPlan

MESSAGE_BYTES_MAX = 128 * 1024
MANY = 64
"""Messages that travel together at most: a wake-up of the other process costs what twenty messages do."""
DAEMON_FD = 3
"""The daemon's end of the channel."""
ENDPOINT_FD = 4
"""The socket that attempts speak to, listening already: the keeper's, so that its address outlives every daemon."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Start(Struct, frozen=True, kw_only=True, tag="start"):
    """The keeper's first word: what this daemon needs to be the same agent process as the one before."""

    config: AgentConfig
    patience: Patience
    process_id: str
    """Of the keeper's run."""
    daemon: int
    """How many daemons this keeper started, this one included. Heartbeats are numbered from it."""
    resume_key: str = ""
    promises: Promises = Promises()
    """What the keeper found that it can do for attempts. What it holds follows as `Now` messages, then `Told`."""


class Leave(Struct, frozen=True, kw_only=True, tag="leave"):
    """Say good-bye and end."""


class Pulse(Struct, frozen=True, kw_only=True, tag="pulse"):
    """The daemon's loop turns. Carries what the next daemon needs, so that a lost one costs nothing."""

    resume_key: str
    sending: bool = False
    """Results or last checkpoints are on their way: an agent that is to stop waits for them, within its bounds."""


# ---- attempts: what the daemon asks of the keeper


class Hold(Struct, frozen=True, kw_only=True, tag="hold"):
    """Keep this lease, durably, and make its directory. Answered by a `Now` in phase `leased`, or a `No`."""

    attempt: str
    rank: int
    token: LeaseToken
    share: Share
    freeze_at_s: float
    """On CLOCK_BOOTTIME: when it is to be frozen unless a `Deadline` comes."""
    prefetched: bool = False
    """It is started when what runs leaves room for it, in the order of tokens, once it was ordered to run."""


class Run(Struct, frozen=True, kw_only=True, tag="run"):
    """Start it once, by `plan`, or when that is None (too large for a message) by the LaunchPlan in `plan.json` of its
    directory, which the daemon has written."""

    attempt: str
    rank: int
    token: LeaseToken
    secret: str = ""
    """What its program proves itself with at the endpoint, to be laid into its token file; empty: it gets none."""
    plan: LaunchPlan | None = None


class Deadline(Struct, frozen=True, kw_only=True, tag="deadline"):
    """Its lease was renewed: freeze it at this time instead, and thaw it if it is frozen."""

    attempt: str
    token: LeaseToken
    freeze_at_s: float


class End(Struct, frozen=True, kw_only=True, tag="end"):
    """SIGTERM, `grace_s`, SIGKILL, to everything of it."""

    attempt: str
    token: LeaseToken
    why: str
    grace_s: float
    unbegun: bool = False
    """Only if it was not started yet."""
    cause: EndCause = EndCause.STOPPED
    code: int | None = None
    """Of one that was not started; else its own counts."""


class EndAll(Struct, frozen=True, kw_only=True, tag="end_all"):
    """The agent leaves: end every attempt, each with its own grace but no longer than `grace_s`. Cause: `agent`."""

    why: str
    grace_s: float


class Tell(Struct, frozen=True, kw_only=True, tag="tell"):
    """Send this signal to those of its processes that catch it: who does not would die of most of them."""

    attempt: str
    token: LeaseToken
    signum: int


class LogStored(Struct, frozen=True, kw_only=True, tag="log_stored"):
    """The coordinator has these bytes: they need no room here any more."""

    attempt: str
    rank: int
    out_bytes: int
    err_bytes: int


class Forget(Struct, frozen=True, kw_only=True, tag="forget"):
    """Its end is settled and its log is stored: remove its directory."""

    attempt: str
    rank: int
    token: LeaseToken


# ---- and what the keeper tells the daemon


class Now(Struct, frozen=True, kw_only=True, tag="now"):
    """How an attempt stands: the whole truth of it. Sent at every change, and for each one when a daemon starts."""

    attempt: str
    rank: int
    token: LeaseToken
    phase: str
    """`leased`, `staging`, `running`, `frozen`, `exited`."""
    directory: str
    """Where its `stdout`, `stderr` and `plan.json` are."""
    freeze_at_s: float
    out_bytes: int = 0
    """What its streams hold so far."""
    err_bytes: int = 0
    out_stored: int = 0
    """What the last `LogStored` said: the next daemon sends what is above it."""
    err_stored: int = 0
    exit: ExitInfo | None = None
    user: int = 0
    """The user that its program runs as; 0: this agent's own."""
    began_s: float = 0.0
    """When its program was started, on CLOCK_BOOTTIME; 0: it was not."""
    untouched: bool = False
    """It has exited, and left its program's directories as they were; False: that is not known."""


class No(Struct, frozen=True, kw_only=True, tag="no"):
    """A `Hold` that is not kept: a lower token than one seen, no room on the disk, no such isolation."""

    attempt: str
    rank: int
    token: LeaseToken
    why: str


class Told(Struct, frozen=True, kw_only=True, tag="told"):
    """Everything that is held has been said: hello may be said."""


ToDaemon = Start | Leave | Now | No | Told
ToKeeper = Pulse | Hold | Run | Deadline | End | EndAll | Tell | LogStored | Forget
_TO_DAEMON: msgspec.json.Decoder[ToDaemon | list[ToDaemon]] = msgspec.json.Decoder(ToDaemon | list[ToDaemon])
_TO_KEEPER: msgspec.json.Decoder[ToKeeper | list[ToKeeper]] = msgspec.json.Decoder(ToKeeper | list[ToKeeper])
_ENCODER = msgspec.json.Encoder()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def endpoint_socket() -> socket.socket:
    """A socket on loopback that listens, on a port of its own. Nobody answers before a daemon does: callers wait."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def say(end: socket.socket, message: ToDaemon | ToKeeper) -> bool:
    """Send if there is room. False: there is none, say it again later. True also when nobody is left to hear it."""
    return _send(end, _ENCODER.encode(message))


def say_many(end: socket.socket, messages: Sequence[ToDaemon | ToKeeper]) -> int:
    """Send in their order as many of these as there is room for; returns how many. All, when nobody is left."""
    said = 0
    while said < len(messages):
        part = messages[said : said + MANY]
        data = _ENCODER.encode(part)
        while len(data) > MESSAGE_BYTES_MAX and len(part) > 1:
            part = part[: len(part) // 2]
            data = _ENCODER.encode(part)
        if not _send(end, data):
            break
        said += len(part)
    return said


def _send(end: socket.socket, data: bytes) -> bool:
    try:
        end.send(data, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        return True
    except BlockingIOError:
        return False
    return True


def hear_keeper(end: socket.socket) -> list[ToDaemon] | None:
    """The next messages; None when the keeper is gone. BlockingIOError when there are none yet."""
    data = _receive(end)
    if not data:
        return None
    said = _TO_DAEMON.decode(data)
    return said if isinstance(said, list) else [said]


def hear_daemon(end: socket.socket) -> list[ToKeeper] | None:
    """The next messages; None when the daemon is gone. BlockingIOError when there are none yet."""
    data = _receive(end)
    if not data:
        return None
    said = _TO_KEEPER.decode(data)
    return said if isinstance(said, list) else [said]


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(MESSAGE_BYTES_MAX)
    except ConnectionResetError:
        return b""


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def hear_of_parents_death(signum: signal.Signals) -> None:
    """Have the kernel send us `signum` when the thread that started us ends."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none escapes being reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
