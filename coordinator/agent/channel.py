"""What keeper and daemon say to each other, over a socket pair that keeps messages whole.

The end of the channel is the death of the other one. Nothing here blocks: what does not fit is dropped, and is
said again, because every message is the whole truth of its kind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket

import msgspec
from msgspec import Struct

from coordinator.agent.config import AgentConfig, Patience

MESSAGE_BYTES_MAX = 128 * 1024
DAEMON_FD = 3
"""The daemon's end of the channel."""
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


class Leave(Struct, frozen=True, kw_only=True, tag="leave"):
    """Say good-bye and end."""


class Pulse(Struct, frozen=True, kw_only=True, tag="pulse"):
    """The daemon's loop turns. Carries what the next daemon needs, so that a lost one costs nothing."""

    resume_key: str


ToDaemon = Start | Leave
_TO_DAEMON: msgspec.json.Decoder[ToDaemon] = msgspec.json.Decoder(ToDaemon)
_PULSE = msgspec.json.Decoder(Pulse)
_ENCODER = msgspec.json.Encoder()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends, non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def say(end: socket.socket, message: ToDaemon | Pulse) -> None:
    """Send if there is room and somebody to hear it."""
    try:
        end.send(_ENCODER.encode(message), socket.MSG_NOSIGNAL)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return


def hear_keeper(end: socket.socket) -> ToDaemon | None:
    """The next message; None when the keeper is gone. BlockingIOError when there is none yet."""
    data = _receive(end)
    return _TO_DAEMON.decode(data) if data else None


def hear_daemon(end: socket.socket) -> Pulse | None:
    """The next pulse; None when the daemon is gone. BlockingIOError when there is none yet."""
    data = _receive(end)
    return _PULSE.decode(data) if data else None


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
