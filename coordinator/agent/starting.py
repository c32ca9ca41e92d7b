"""What the keeper and its starters say to each other, over a socket pair that keeps messages whole.

Descriptors travel beside the orders, in their order: a program's stdin where it has one of its own, then its stdout and
stderr. A message that is too large for the socket lies in a file in memory, which is then the first descriptor.
"""

from __future__ import annotations

import array
import math
import os
import socket
import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct

BYTES_MAX = 96 * 1024
"""Of a message in the socket itself."""
ORDERS_MAX = 16
"""In one message: so many descriptors may travel with it."""
_ELSEWHERE = b"\0"
_FD = array.array("i")
_ARRAY = struct.Struct(">BH")


class Setup(Struct, frozen=True, array_like=True):
    """The first message: what holds for every order."""

    backs: dict[str, str]
    """By hierarchy, the file that leads out of every attempt's group."""
    files: tuple[int, int]
    """Open files of a program: soft, hard."""
    processes: int
    """Each program is a user of its own, with so many processes at most, and may not get more rights; 0: it is not."""


class Order(Struct, frozen=True, array_like=True, tag="o"):
    """Start a program."""

    number: int
    argv: tuple[str, ...]
    env: dict[str, str]
    directory: str
    entrances: dict[str, str]
    """By hierarchy, the file that leads into its group."""
    user: int = 0
    groups: tuple[int, ...] = ()
    limits: tuple[tuple[int, int, int], ...] = ()
    """(resource, soft, hard), set as soon as it runs."""
    stdin: bool = False
    apart: bool = False
    """Its group is left at once: it will be bounded when this is told."""
    kind: int = 0
    """Of the room that it takes: who follows it needs the same. 0: nobody follows it."""
    waits: bool = False
    """There is no room for it yet: it follows a program of its kind that has ended and left nothing, in the order in
    which those that wait were told, or begins with its `Turn`."""
    until_s: float = math.inf
    """On CLOCK_BOOTTIME: from then on one that waits is not begun, but given back."""


class Turn(Struct, frozen=True, array_like=True, tag="t"):
    """There is room for it: begin it now, if it waits still."""

    number: int


class Recall(Struct, frozen=True, array_like=True, tag="c"):
    """Give it back, if it waits still. One that was begun is none of this."""

    number: int


class Started(Struct, frozen=True, array_like=True, tag="s"):
    """It runs, and its starter is not in its group."""

    number: int
    pid: int


class Refused(Struct, frozen=True, array_like=True, tag="r"):
    """It could not be started, and nothing of it runs."""

    number: int
    code: int
    text: str


class Returned(Struct, frozen=True, array_like=True, tag="b"):
    """It waited, and will not be begun: it was called back, or its time was over."""

    number: int


class Ended(Struct, frozen=True, array_like=True, tag="e"):
    """It was reaped."""

    pid: int
    status: int
    cpu_s: float
    memory_max: int
    """Bytes that one process of it had; 0: not known."""
    ran_s: float
    """From its start to its end as its starter saw them: the keeper may hear of both at once."""
    successor: int = 0
    """The order that takes its room, and is being begun: nothing is left of the one that ended. 0: nobody."""


Word = Order | Turn | Recall
Report = Started | Refused | Returned | Ended
_ENCODER = msgspec.msgpack.Encoder()
_SETUP = msgspec.msgpack.Decoder(Setup)
_WORDS: msgspec.msgpack.Decoder[list[Word]] = msgspec.msgpack.Decoder(list[Word])
_REPORTS: msgspec.msgpack.Decoder[list[Report]] = msgspec.msgpack.Decoder(list[Report])


def encoded(word: Word) -> bytes:
    return _ENCODER.encode(word)


def send_setup(end: socket.socket, setup: Setup) -> None:
    end.send(_ENCODER.encode(setup), socket.MSG_NOSIGNAL)


def hear_setup(end: socket.socket) -> Setup:
    return _SETUP.decode(end.recv(BYTES_MAX))


def send_words(end: socket.socket, words: Sequence[bytes], fds: Sequence[int]) -> bool:
    """Send at most ORDERS_MAX words, each `encoded`, with what belongs to the orders. False: there is no room now.
    OSError when nobody is at the other end."""
    data = _ARRAY.pack(0xDC, len(words)) + b"".join(words)  # an array of so many, by the rules of MessagePack
    elsewhere = -1
    if len(data) > BYTES_MAX:
        elsewhere = os.memfd_create("orders", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(elsewhere), "wb") as file:
            file.write(data)
        data, fds = _ELSEWHERE, (elsewhere, *fds)
    try:
        socket.send_fds(end, [data], list(fds), socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    finally:
        if elsewhere >= 0:
            os.close(elsewhere)
    return True


def hear_words(end: socket.socket) -> tuple[list[Word], list[int]]:
    """The next words and the orders' descriptors; none when the keeper is gone. BlockingIOError when there are none
    yet."""
    # not recv_fds: it would leave them open for every program
    room = socket.CMSG_LEN((1 + 3 * ORDERS_MAX) * _FD.itemsize)
    data, beside, _, _ = end.recvmsg(BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    fds = [fd for _, _, some in beside for fd in array.array(_FD.typecode, some)]
    if data == _ELSEWHERE:
        elsewhere = fds.pop(0)
        with os.fdopen(elsewhere, "rb") as file:
            file.seek(0)
            data = file.read()
    return (_WORDS.decode(data) if data else []), fds


def send_reports(end: socket.socket, reports: Sequence[Report]) -> None:
    end.send(_ENCODER.encode(reports), socket.MSG_NOSIGNAL)


def hear_reports(end: socket.socket) -> list[Report] | None:
    """The next reports; None when the starter is gone. BlockingIOError when there are none yet."""
    try:
        data = end.recv(BYTES_MAX)
    except ConnectionResetError:
        return None
    return _REPORTS.decode(data) if data else None


def order_fds(order: Order, fds: list[int]) -> tuple[int, int, int]:
    """stdin (-1: none of its own), stdout and stderr of the next order, taken from those that came."""
    stdin = fds.pop(0) if order.stdin else -1
    return stdin, fds.pop(0), fds.pop(0)
